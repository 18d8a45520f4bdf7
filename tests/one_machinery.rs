//! A simulated fabric runs what real transports run: `optical` has no algorithm, executor or tuner of its own, nobody
//! above it treats it apart, and the same program gives the same bytes over shm, tcp, threads and optical.

#![allow(unreachable_pub, reason = "nothing is public outside a test program")]

#[path = "tidy/source.rs"]
#[allow(dead_code, reason = "tidy.rs uses all of it")]
mod source;
mod support;

use source::{Source, has_word, root, under};
use support::oracle::{Call, encode, sizes};
use support::ranks::{Case, Setup, collective, run};
use support::{Random, seed};
use ubccl::{Choice, DataType, ReduceOp};

/// The code of a folder, without tests.
fn shipped(folder: &str) -> Vec<Source> {
    under(folder).into_iter().filter(|source| !source.is_test()).collect()
}

fn places(sources: &[Source], words: &[&str]) -> Vec<String> {
    let of_word = |word: &&str| {
        sources.iter().flat_map(|source| source.places(source.shipped(), word)).collect::<Vec<_>>()
    };
    words.iter().flat_map(of_word).collect()
}

/// What a crate's manifest says it uses, for tests too.
fn dependencies(manifest: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(manifest)).expect("a manifest");
    let table: toml::Table = text.parse().expect("TOML");
    let names = |key: &str| {
        let named = table.get(key).and_then(toml::Value::as_table);
        named.into_iter().flat_map(|table| table.keys().cloned()).collect::<Vec<_>>()
    };
    ["dependencies", "dev-dependencies", "build-dependencies"].iter().flat_map(|key| names(key)).collect()
}

#[test]
fn transports_can_name_no_algorithm_executor_or_tuner() {
    let used = dependencies("transports/Cargo.toml");
    let ours: Vec<_> = used.iter().filter(|name| name.starts_with("ubccl")).collect();
    assert_eq!(ours, ["ubccl-core"], "algorithms and tuner are in ubccl-algorithms, the executor in ubccl");
}

/// What could be one by another name: of plans `optical` knows a run of peers, which posts name, and nothing else.
#[test]
fn optical_has_none_of_its_own() {
    let optical = shipped("transports/src/optical");
    assert!(optical.len() > 20, "the transport has moved");
    let wrong = places(
        &optical,
        &[
            "Algorithm",
            "Plan",
            "PlanBuilder",
            "Schedule",
            "Step",
            "Binding",
            "Choice",
            "Candidate",
            "Tuner",
            "Cost",
            "CostModel",
            "Profile",
            "Execution",
            "Executor",
            "Engine::issue",
            "verify",
        ],
    );
    assert!(wrong.is_empty(), "plans, picks and calls belong to others: {wrong:#?}");
    for source in &optical {
        let of_calls = source.shipped().iter().filter(|line| has_word(line, "Collective"));
        let other = of_calls.filter(|line| !line.contains("Stream::Collective"));
        assert_eq!(other.collect::<Vec<_>>(), Vec::<&String>::new(), "{}", source.path);
        let of_plans = source.shipped().iter().filter(|line| line.contains("plan::"));
        let other = of_plans.filter(|line| !line.contains("plan::PeerRun;"));
        assert_eq!(other.collect::<Vec<_>>(), Vec::<&String>::new(), "{}", source.path);
    }
    // Which collective it is a post does not say, but for the engine whose limits count bytes: never by kind or name.
    let kinds =
        places(&optical, &["CollectiveKind", "Kind::AllReduce", "all_reduce", "all_gather", "broadcast"]);
    let kinds: Vec<_> = kinds.into_iter().filter(|at| !at.contains("/paced/mod.rs")).collect(); // Exchange::all_gather
    assert!(kinds.is_empty(), "{kinds:#?}");
}

/// Nobody who plans, picks or executes asks whether the transport is simulated.
#[test]
fn nobody_treats_optical_apart() {
    let mut above = shipped("algorithms/src");
    above.extend(shipped("core/src/plan"));
    above.extend(shipped("src").into_iter().filter(|source| {
        let parts = [
            "src/executor.rs",
            "src/executor/",
            "src/engine/",
            "src/choose.rs",
            "src/planned.rs",
            "src/waiting.rs",
        ];
        parts.iter().any(|part| source.path.starts_with(part))
    }));
    assert!(above.len() > 40, "files have moved");
    let named = |source: &Source| {
        let lines = source.lines.iter().zip(source.shipped());
        // Names stand in strings: the lines as they are, but for comments.
        let asks = |(line, code): &(&String, &String)| {
            let line = line.split("//").next().unwrap_or_default().to_lowercase();
            has_word(&line, "optical") || has_word(code, "Clock") || has_word(code, "paced")
        };
        lines.filter(asks).map(|(line, _)| format!("{}: {line}", source.path)).collect::<Vec<_>>()
    };
    let named: Vec<String> = above.iter().flat_map(named).collect();
    assert!(named.is_empty(), "{named:#?}");
}

/// A call with floats whose sums depend on their order.
fn case(random: &mut Random, call: Call, ranks: usize) -> Case {
    let dtype = [DataType::F32, DataType::BF16, DataType::F64][random.below(3) as usize];
    let count = 1 + random.below(3000) as usize;
    let float = |random: &mut Random| {
        (random.below(1 << 20) as f64 + 1.0) * f64::from(2).powi(random.below(40) as i32 - 20)
    };
    let input = |rank, random: &mut Random| {
        let bytes: Vec<u8> =
            (0..sizes(call, ranks, rank, count).0).flat_map(|_| encode(dtype, float(random))).collect();
        bytes
    };
    let inputs = (0..ranks).map(|rank| input(rank, random)).collect();
    let in_place = random.below(2) == 0 && call.may_be_in_place();
    Case { call, dtype, count, in_place, inputs, skew: 0 }
}

/// Every algorithm with every call it does, on numbers of ranks drawn anew: the same bytes everywhere.
#[test]
fn the_same_program_gives_the_same_bytes_over_every_transport() {
    let seed = seed("the_same_program_gives_the_same_bytes_over_every_transport");
    let random = &mut Random(seed);
    let (mut calls, mut programs) = (0, 0);
    for algorithm in ubccl::algorithms() {
        let known = ubccl::algorithm(algorithm.name).expect("the index finds its own");
        let name = algorithm.name;
        let ranks = 2 + random.below(4) as usize;
        let (root, op) = (random.below(ranks as u64) as usize, ReduceOp::Sum);
        let table = random.next();
        let all = [
            Call::AllReduce(op),
            Call::AllGather,
            Call::ReduceScatter(op),
            Call::Broadcast { root },
            Call::Reduce { op, root },
            Call::Gather { root },
            Call::Scatter { root },
            Call::AllToAll,
            Call::AllToAllV { seed: table },
            Call::ReduceScatterV { op, seed: table },
        ];
        let does = |call: &Call| {
            known.supports_call(&collective(*call, DataType::F32, 8, ranks as u32, 0), ranks as u32).is_ok()
        };
        let cases: Vec<Case> = all.into_iter().filter(does).map(|call| case(random, call, ranks)).collect();
        if cases.is_empty() {
            continue;
        }
        let choice = Choice { lanes: 1 + random.below(3) as u8, ..Choice::default() };
        let setup = |transport| Setup { transport, ranks: ranks as u32, algorithm: Some(name), choice };
        let over = |transport| run(&setup(transport), &cases);
        let optical = over("optical");
        for transport in ubccl::transports().filter(|transport| transport.name != "optical") {
            let found = over(transport.name);
            for (k, case) in cases.iter().enumerate() {
                let same = (0..ranks).all(|rank| found[rank][k] == optical[rank][k]);
                let told = format!("{:?} of {} {:?} by {name}", case.call, case.count, case.dtype);
                assert!(same, "seed {seed}, {ranks} ranks: {told}: {} is not optical", transport.name);
            }
        }
        (calls, programs) = (calls + cases.len(), programs + 1);
    }
    assert!(programs > 10 && calls > 20, "{programs} programs of {calls} calls");
}
