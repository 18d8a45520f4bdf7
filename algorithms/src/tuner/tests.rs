//! What the tuner promises: the cheapest way, no cliffs, the same everywhere.

use super::*;
use ubccl_core::endpoint::{EngineCosts, Machine};
use ubccl_core::plan::Association;
use ubccl_core::topology::Link;
use ubccl_core::{DataType, ErrorKind, ReduceOp, Spec, Topology, UserOp};

fn link(name: &str, latency_ps: f64, rate_bytes_per_s: f64) -> LinkCost {
    LinkCost {
        name: name.to_owned(),
        latency_ps,
        overhead_ps: 0.0,
        port_overhead_ps: 0.0,
        gap_ps: 0.0,
        rate_bytes_per_s,
        port_bytes_per_s: None,
        port: 0,
        multicast: false,
        reduces: false,
        hop_ps: None,
        ports: None,
    }
}

fn model(level: Vec<LinkCost>) -> Model {
    Model {
        launch_ps: 0.0,
        reduce_bytes_per_s: None,
        fold_ps: 0.0,
        copy_bytes_per_s: None,
        cores: None,
        at_once: None,
        level,
        correction: Vec::new(),
        fitted: None,
    }
}

/// 384 ranks, each as near to every other.
fn ideal() -> (Model, Arc<Layout>) {
    (model(vec![link("supernode", 2.1e6, 392e9)]), Arc::new(Layout::flat(384)))
}

/// 48 nodes of 8.
fn nodes() -> (Model, Arc<Layout>) {
    let text = "node=8;supernode=384";
    (
        model(vec![link("node", 1.3e6, 274e9), link("supernode", 2.1e6, 270e9)]),
        Arc::new(Layout::parse(text, 384).unwrap()),
    )
}

fn call(kind: Kind, bytes: u64, ranks: u32) -> Collective<'static> {
    let seed = Collective::broadcast(1, DataType::U8, 0);
    let op = kind.row().reduces.then_some(ReduceOp::Sum);
    let spec = Spec { kind, op, ..Spec::new(&seed, ranks, 0, false, Choice::default()) };
    let one = spec.collective(1);
    let longest = one.longest_bytes(ranks).max(1);
    spec.collective(bytes / longest)
}

/// Every kind, in sizes from 1 B to 1 TiB; of each the picks' predicted times, 10 % apart.
fn sweep(tuner: &Tuner, kind: Kind) -> Vec<(u64, f64)> {
    let ranks = tuner.layout().ranks();
    let mut times: Vec<(u64, f64)> = Vec::new();
    let mut bytes = 1.0_f64;
    while bytes < (1_u64 << 40) as f64 {
        let call = call(kind, bytes as u64, ranks);
        let longest = call.longest_bytes(ranks);
        bytes *= 1.1;
        if times.last().is_some_and(|(before, _)| *before == longest) {
            continue;
        }
        let picked = tuner.explain(&call).into_iter().find(|candidate| candidate.is_picked);
        let cost = picked.expect("something is picked").cost.expect("what is picked is not refused");
        times.push((longest, cost.total_ps()));
    }
    times
}

#[test]
fn the_same_call_is_picked_by_every_tuner_and_at_every_time() {
    let (model, layout) = nodes();
    let tuners = [0, 1].map(|_| Tuner::new(model.clone(), layout.clone(), Limits::default()));
    let mut sizes: Vec<u64> = (0..40).map(|shift| (1 << shift) + 3).collect();
    let first: Vec<String> = sizes
        .iter()
        .map(|&size| format!("{:?}", tuners[0].pick(&call(Kind::AllReduce, size, 384))))
        .collect();
    sizes.reverse();
    let mut second: Vec<String> = sizes
        .iter()
        .map(|&size| format!("{:?}", tuners[1].pick(&call(Kind::AllReduce, size, 384))))
        .collect();
    second.reverse();
    assert_eq!(first, second);
    assert!(first.iter().any(|pick| pick.contains("node:")), "{first:?}");
}

/// Eight ranks on two cores, by way of shared memory.
fn crowd() -> (Model, Arc<Layout>) {
    let link = LinkCost { overhead_ps: 2e5, ..link("host", 1e6, 8e9) };
    let rates = Model { reduce_bytes_per_s: Some(10e9), copy_bytes_per_s: Some(12e9), ..model(vec![link]) };
    (Model { launch_ps: 3e5, cores: Some(2), ..rates }, Arc::new(Layout::flat(8)))
}

/// Four hosts with one network port each.
fn hosts() -> (Model, Arc<Layout>) {
    let far = LinkCost { overhead_ps: 5e6, gap_ps: 1e6, ports: Some(1), ..link("all", 2e7, 1e9) };
    let near = LinkCost { overhead_ps: 2e5, ..link("host", 1e6, 8e9) };
    let rates = Model { reduce_bytes_per_s: Some(10e9), ..model(vec![near, far]) };
    (rates, Arc::new(Layout::parse("host=5+3+8", 16).unwrap()))
}

#[test]
fn a_little_more_never_costs_a_lot_more() {
    for (name, (model, layout)) in
        [("ideal", ideal()), ("nodes", nodes()), ("crowd", crowd()), ("hosts", hosts())]
    {
        for reproducible in [false, true] {
            let tuner =
                Tuner::new(model.clone(), layout.clone(), Limits { reproducible, ..Limits::default() });
            for row in Kind::TABLE {
                let times = sweep(&tuner, row.kind);
                assert!(
                    times.len() > 100 || times.iter().all(|(bytes, _)| *bytes == 0),
                    "{name} {}",
                    row.name
                );
                for pair in times.windows(2).filter(|pair| pair[0].0 > 10) {
                    let [(bytes, before), (_, after)] = *pair else { unreachable!("a window of two") };
                    assert!(
                        after <= 1.3 * before,
                        "{name} {}: {bytes} B: {before} ps, then {after} ps",
                        row.name
                    );
                }
            }
        }
    }
}

#[test]
fn the_pick_is_the_cheapest_or_nearly_so_and_what_is_explained() {
    for (model, layout) in [ideal(), nodes(), crowd(), hosts()] {
        let tuner = Tuner::new(model, layout, Limits::default());
        for row in Kind::TABLE {
            for bytes in [0, 1, 1000, 70_000, 3 << 20, 1 << 30] {
                let call = call(row.kind, bytes, tuner.layout().ranks());
                let explained = tuner.explain(&call);
                let costs: Vec<f64> =
                    explained.iter().flat_map(|c| c.cost.as_ref().map(Cost::total_ps)).collect();
                assert!(costs.is_sorted(), "{call}");
                assert!(costs.iter().all(|cost| cost.is_finite() && *cost >= 0.0), "{call}: {costs:?}");
                assert!(explained.is_sorted_by_key(|c| c.cost.is_err()), "{call}: those refused come last");
                let pick = tuner.pick(&call).unwrap();
                let same = explained.iter().find(|c| {
                    (c.algorithm.descriptor().name, c.choice)
                        == (pick.algorithm.descriptor().name, pick.choice)
                });
                // Near a border between two, its neighbour may be the pick.
                let cost = same.expect("picks are explained").cost.as_ref().unwrap().total_ps();
                assert!(cost <= 1.05 * costs[0], "{call}: {pick:?} for {cost}, not {}", costs[0]);
                assert!(
                    pick.algorithm.supports_call(&call, tuner.layout().ranks()).is_ok(),
                    "{call}: {pick:?}"
                );
                assert_eq!(explained.iter().filter(|c| c.is_picked).count(), 1, "{call}");
            }
        }
    }
}

#[test]
fn averages_and_user_operations_get_what_can_do_them() {
    fn first(_: usize, _: &mut [u8], _: &[u8], _: DataType) {}
    static FIRST: UserOp = UserOp::new("first", false, first, 0);
    let (model, layout) = nodes();
    let tuner = Tuner::new(model, layout, Limits::default());
    for op in [ReduceOp::Avg, ReduceOp::User(&FIRST)] {
        for count in [1, 1 << 16, 1 << 28] {
            let pick = tuner.pick(&Collective::all_reduce(count, DataType::F32, op)).unwrap();
            assert!(pick.algorithm.supports_op(op).is_ok(), "{pick:?}");
        }
    }
    // Beyond the widest window nobody combines all of a reduce-scatter at once.
    let tuner = Tuner::new(ideal().0, Arc::new(Layout::flat(5000)), Limits::default());
    let error = tuner.pick(&Collective::reduce_scatter(9, DataType::F32, ReduceOp::Avg)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.message().contains("no algorithm does this reduce_scatter on 5000 ranks: ring does not do avg"),
        "{error}"
    );
}

#[test]
fn reproducible_picks_combine_in_rank_order() {
    let (model, layout) = nodes();
    let tuner = Tuner::new(model, layout, Limits { reproducible: true, ..Limits::default() });
    for kind in [Kind::AllReduce, Kind::ReduceScatter, Kind::Reduce] {
        for bytes in [8, 1 << 16, 1 << 30] {
            let call = call(kind, bytes, 384);
            let pick = tuner.pick(&call).unwrap();
            let plan = pick.algorithm.plan(&Spec::new(&call, 384, 5, false, pick.choice));
            assert_eq!(plan.association(), Association::Flat, "{call}: {pick:?}");
        }
    }
    // Where nothing is combined, everything is.
    let gather = call(Kind::AllGather, 1 << 30, 384);
    assert!(tuner.explain(&gather).iter().any(|c| c.cost.is_ok() && c.algorithm.descriptor().name == "ring"));
}

#[test]
fn few_lanes_are_a_limit_and_messages_of_a_pair_keep_to_one() {
    let (model, layout) = crowd();
    let tuner = Tuner::new(model, layout, Limits { lanes: 1, ..Limits::default() });
    for row in Kind::TABLE {
        let explained = tuner.explain(&call(row.kind, 1 << 20, 8));
        assert!(explained.iter().all(|candidate| candidate.choice.lanes == 1), "{}", row.name);
    }
    let (model, layout) = crowd();
    let tuner = Tuner::new(model, layout, Limits::default());
    let call = Collective::send_receive(1 << 20, DataType::U8, Some(3), None);
    assert_eq!(tuner.pick(&call).unwrap().choice.lanes, 1);
}

#[test]
fn uneven_groups_have_a_table_for_each_root() {
    let (model, layout) = hosts();
    let tuner = Tuner::new(model, layout, Limits::default());
    let cost = |root| {
        let explained = tuner.explain(&Collective::scatter(1 << 20, DataType::U8, root));
        let linear = explained.into_iter().find(|c| c.algorithm.descriptor().name == "linear");
        linear.unwrap().cost.unwrap().total_ps()
    };
    // The more neighbours a root has, the fewer of its blocks take the slow links.
    assert!(cost(9) < cost(0) && cost(0) < cost(6), "{} {} {}", cost(9), cost(0), cost(6));
}

#[test]
fn what_wants_clever_switches_is_considered_only_where_they_are() {
    let layout = Arc::new(Layout::parse("node=4", 8).unwrap());
    let switched = |multicast, reduces| LinkCost { multicast, reduces, ..link("all", 1e6, 8e9) };
    let near = LinkCost { name: "node".to_owned(), ..switched(true, true) };
    let find = |all: LinkCost, call: &Collective<'_>| {
        let levels = model(vec![near.clone(), all]);
        let candidates = Tuner::new(levels, layout.clone(), Limits::default()).explain(call);
        let own = candidates.into_iter().find(|one| one.algorithm.descriptor().name == "in-network");
        own.expect("it is considered").cost.map_err(|error| error.message().to_owned())
    };
    let all_reduce = Collective::all_reduce(1 << 20, DataType::F32, ReduceOp::Sum);
    let (scatter, gather) = (
        Collective::reduce_scatter(1 << 20, DataType::F32, ReduceOp::Sum),
        Collective::all_gather(1 << 20, DataType::F32),
    );
    assert!(find(switched(true, true), &all_reduce).is_ok());
    for (lacking, call, what) in [
        (switched(true, false), &all_reduce, "level 'all' do not fold"),
        (switched(false, true), &all_reduce, "level 'all' do not copy"),
        (switched(true, false), &scatter, "level 'all' do not fold"),
        (switched(false, true), &gather, "level 'all' do not copy"),
    ] {
        let refusal = find(lacking, call).unwrap_err();
        assert!(refusal.contains(what), "{refusal}");
    }
    assert!(find(switched(false, true), &scatter).is_ok());
    assert!(find(switched(true, false), &gather).is_ok());
}

/// A quick engine for little, on few ranks, and one that is strong.
fn quick_and_strong() -> Machine {
    let topology = Topology::flat("rank", Link::plain(1_000_000, 1_000_000_000)).unwrap();
    let engine = |name: &str, link| EngineCosts {
        name: Some(name.to_owned()),
        links: vec![link],
        ..EngineCosts::default()
    };
    let quick = engine("quick", Link::plain(1_000_000, 1_000_000_000));
    let strong = engine("strong", Link::plain(1_000_000_000, 100_000_000_000));
    let quick = EngineCosts { most_bytes: Some(40_000), most_ranks: Some(8), ..quick };
    Machine { topology, engines: vec![quick, strong] }
}

fn picked_engine(tuner: &Tuner, call: &Collective<'_>) -> Option<u8> {
    tuner.pick(call).unwrap().choice.engine
}

fn picked_ps(tuner: &Tuner, call: &Collective<'_>) -> f64 {
    let picked = tuner.explain(call).into_iter().find(|candidate| candidate.is_picked).unwrap();
    assert_eq!(picked.choice, tuner.pick(call).unwrap().choice);
    picked.cost.unwrap().total_ps()
}

#[test]
fn the_engine_that_costs_least_is_picked_among_those_that_do_the_call() {
    let machine = quick_and_strong();
    let boundless = EngineCosts { most_bytes: None, ..machine.engines[0].clone() };
    let machine = Machine { engines: vec![boundless, machine.engines[1].clone()], ..machine };
    for ranks in [2, 5, 8] {
        let layout = Arc::new(Layout::flat(ranks));
        let tuner = |limits| Tuner::new(Engines::of(&machine), layout.clone(), limits);
        let free = tuner(Limits::default());
        let forced = [0, 1].map(|engine| tuner(Limits { engine: Some(engine), ..Limits::default() }));
        let mut taken = Vec::new();
        for bits in 3..30 {
            let call = call(Kind::AllReduce, 1 << bits, ranks);
            let [quick_ps, strong_ps] = forced.each_ref().map(|tuner| picked_ps(tuner, &call));
            assert!(picked_ps(&free, &call) <= quick_ps.min(strong_ps) * 1.02, "{call}");
            taken.push(picked_engine(&free, &call));
            assert_eq!(picked_engine(&forced[1], &call), Some(1));
        }
        assert_eq!((taken[0], taken[taken.len() - 1]), (Some(0), Some(1)), "{ranks} ranks");
    }
}

#[test]
fn an_engine_does_what_is_within_its_limits_to_the_byte() {
    let few = Arc::new(Layout::flat(4));
    let tuner = |machine: &Machine, layout: &Arc<Layout>, engine| {
        let limits = Limits { engine, ..Limits::default() };
        Tuner::new(Engines::of(machine), layout.clone(), limits)
    };
    let machine = quick_and_strong();
    let free = tuner(&machine, &few, None);
    let sum = |bytes| Collective::all_reduce(bytes, DataType::U8, ReduceOp::Sum);
    // A gather counts what one rank brings.
    let gather = |bytes| Collective::all_gather(bytes, DataType::U8);
    for (within, beyond) in [(sum(40_000), sum(40_001)), (gather(40_000), gather(40_001))] {
        assert_eq!([&within, &beyond].map(|call| picked_engine(&free, call)), [Some(0), Some(1)]);
        let refused = free.explain(&beyond).into_iter().filter(|one| one.choice.engine == Some(0));
        let reasons: Vec<String> = refused.map(|one| one.cost.unwrap_err().message().to_owned()).collect();
        let reason = "the engine quick does calls of up to 40000 bytes on up to 8 ranks";
        assert!(!reasons.is_empty() && reasons.iter().all(|told| told == reason), "{reasons:?}");
        let forced = tuner(&machine, &few, Some(0));
        assert_eq!(picked_engine(&forced, &within), Some(0));
        let error = forced.pick(&beyond).unwrap_err();
        assert!(error.kind() == ErrorKind::Unsupported && error.message().contains(reason), "{error}");
    }
    let unknown = Collective::gather_v(1, DataType::U8, 0, None);
    assert_eq!(picked_engine(&free, &unknown), Some(1), "nobody knows whether it is within the limit");
    assert_eq!(picked_engine(&tuner(&machine, &Arc::new(Layout::flat(9)), None), &sum(1)), Some(1));
    // What none does, the last does all the same.
    let weak = EngineCosts { most_bytes: Some(10), ..machine.engines[1].clone() };
    let weak = Machine { engines: vec![machine.engines[0].clone(), weak], ..machine.clone() };
    let calls = [sum(40_000), sum(40_001)];
    assert_eq!(calls.map(|call| picked_engine(&tuner(&weak, &few, None), &call)), [Some(0), Some(1)]);
    let alone = Machine { engines: vec![machine.engines[0].clone()], ..machine };
    assert_eq!(picked_engine(&tuner(&alone, &few, None), &sum(1 << 20)), None, "nothing to choose");
}
