//! Fits find the model that made the points, and picks survive noise.

use super::*;
use crate::tuner::{Limits, LinkCost, Tuner};
use std::sync::Arc;
use ubccl_core::{Collective, DataType, Kind, ReduceOp, Spec};

const KINDS: [Kind; 6] =
    [Kind::AllReduce, Kind::AllGather, Kind::ReduceScatter, Kind::Broadcast, Kind::AllToAll, Kind::Barrier];

/// Two cores and shared memory.
fn truth() -> Model {
    let host = LinkCost {
        name: "host".to_owned(),
        latency_ps: 7.1e5,
        overhead_ps: 1.3e5,
        port_overhead_ps: 0.0,
        gap_ps: 0.0,
        rate_bytes_per_s: 6.4e9,
        port_bytes_per_s: None,
        port: 0,
        multicast: false,
        reduces: false,
        hop_ps: None,
        ports: None,
    };
    Model {
        launch_ps: 2.9e5,
        fold_ps: 0.0,
        reduce_bytes_per_s: Some(1.7e10),
        copy_bytes_per_s: Some(1.1e10),
        cores: Some(2),
        at_once: None,
        level: vec![host],
        correction: Vec::new(),
        fitted: None,
    }
}

/// What somebody would guess.
fn guess() -> Model {
    let level = vec![LinkCost {
        latency_ps: 3e6,
        overhead_ps: 0.0,
        rate_bytes_per_s: 1e9,
        ..truth().level[0].clone()
    }];
    Model { launch_ps: 0.0, reduce_bytes_per_s: None, copy_bytes_per_s: Some(1e9), level, ..truth() }
}

fn call(kind: Kind, bytes: u64, ranks: u32) -> Collective<'static> {
    let seed = Collective::broadcast(1, DataType::U8, 0);
    let op = kind.row().reduces.then_some(ReduceOp::Sum);
    let spec = Spec { kind, op, ..Spec::new(&seed, ranks, 0, false, Choice::default()) };
    spec.collective(bytes / spec.collective(1).longest_bytes(ranks).max(1))
}

/// Points as `ubccl tune` measures them: every way, some sizes. `noise` is given the number of the point.
fn points(model: &Model, noise: impl Fn(usize) -> f64) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    for ranks in [2, 4, 8] {
        let layout = Layout::flat(ranks);
        for kind in KINDS {
            for bytes in [8, 2 << 10, 32 << 10, 256 << 10, 2 << 20, 16 << 20] {
                let call = call(kind, bytes, ranks);
                for &algorithm in crate::index() {
                    if algorithm.supports_call(&call, ranks).is_err() {
                        continue;
                    }
                    let choice = Choice { lanes: 1, chunk_bytes: 256 << 10, ..Choice::default() };
                    let profile = algorithm.profile(&Spec::new(&call, ranks, 0, false, choice), &layout);
                    let bytes = call.longest_bytes(ranks);
                    let ps = model.cost(&profile, bytes, &choice, &layout).total_ps();
                    let seconds = ps / PS_PER_S * noise(points.len());
                    points.push(Point { profile, layout: layout.clone(), bytes, choice, seconds });
                }
            }
        }
    }
    points
}

fn near(a: f64, b: f64, part: f64) -> bool {
    (a / b - 1.0).abs() < part
}

#[test]
fn a_fit_finds_the_model_that_made_the_points() {
    let (fitted, residuals) = guess().fit(&points(&truth(), |_| 1.0)).unwrap();
    assert!(residuals.worst < 0.01, "{residuals:?} {fitted:?}");
    let numbers = Numbers::used(&truth(), &points(&truth(), |_| 1.0));
    assert_eq!(numbers.0.len(), 6);
    for number in numbers.0 {
        let (found, wanted) = (number.get(&fitted), number.get(&truth()));
        assert!(near(found, wanted, 0.01), "{number:?}: {found}, not {wanted}; {residuals:?}");
    }
}

#[test]
fn picks_survive_noise() {
    // ± 5 %, and every fortieth point is twice as slow: somebody else ran.
    let noise = |k: usize| {
        let wobble = (k * 7919 % 1000) as f64 / 1000.0 * 0.1 - 0.05;
        if k % 40 == 7 { 2.0 } else { 1.0 + wobble }
    };
    let (fitted, residuals) = guess().fit(&points(&truth(), noise)).unwrap();
    assert!(residuals.median < 0.06 && residuals.worst > 0.3, "{residuals:?}");
    let (ranks, limits) = (8, Limits::default());
    let tuner = |model| Tuner::new(model, Arc::new(Layout::flat(ranks)), limits);
    let (by_fit, by_truth) = (tuner(fitted), tuner(truth()));
    for kind in KINDS {
        for shift in 0..28 {
            let call = call(kind, 1 << shift, ranks);
            let picked = by_fit.pick(&call).unwrap();
            let explained = by_truth.explain(&call);
            let cost = |name: &str, choice| {
                let same =
                    explained.iter().find(|c| (c.algorithm.descriptor().name, c.choice) == (name, choice));
                same.unwrap().cost.as_ref().unwrap().total_ps()
            };
            let (cost, least) = (
                cost(picked.algorithm.descriptor().name, picked.choice),
                explained[0].cost.as_ref().unwrap(),
            );
            assert!(
                cost <= 1.1 * least.total_ps(),
                "{call}: {picked:?} takes {cost}, not {}",
                least.total_ps()
            );
        }
    }
}

#[test]
fn too_little_and_nonsense_is_refused() {
    let all = points(&truth(), |_| 1.0);
    let error = guess().fit(&all[..3]).unwrap_err();
    assert!(error.message().contains("3 measurements are too few"), "{error}");
    assert!(guess().fit(&[]).is_err());
    for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let mut wrong = all.clone();
        wrong[5].seconds = seconds;
        let error = guess().fit(&wrong).unwrap_err();
        assert!(error.message().contains("no time that a call takes"), "{error}");
    }
}

#[test]
fn what_is_not_measured_stays() {
    let far = LinkCost { name: "all".to_owned(), latency_ps: 4.2e7, ..truth().level[0].clone() };
    let start = Model { level: vec![guess().level[0].clone(), far.clone()], ..guess() };
    let (fitted, _) = start.fit(&points(&truth(), |_| 1.0)).unwrap();
    assert_eq!(fitted.level[1], far);
}
