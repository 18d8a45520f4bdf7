//! How algorithms are chosen, forced, explained, measured and tuned, as a user of the program sees it.

mod common;
use common::{err, finish, out, run, ubccl};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use ubccl::sim::WorldConfig;
use ubccl::{Collective, Config, DataType, Planner, ReduceOp};

/// A file of this test's own, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Scratch(std::env::temp_dir().join(format!("ubccl-cli-{name}-{}.toml", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The candidates of `ubccl explain`: whether it is taken, its name, and the five times.
fn candidates(text: &str) -> Vec<(bool, String, Vec<f64>)> {
    let rows = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    rows.map(|line| {
        let words: Vec<&str> = line.trim_start_matches('*').split_whitespace().collect();
        let times = words[words.len() - 5..].iter().map(|word| word.parse().unwrap()).collect();
        (line.starts_with('*'), words[0].to_owned(), times)
    })
    .collect()
}

#[test]
fn every_candidate_is_explained_by_its_parts_and_one_is_taken() {
    for place in ["--fabric cloudmatrix384 --ranks 384", "--ranks 5", "--transport tcp --ranks 2"] {
        let output = run(&format!("explain all_reduce 1MiB {place}"));
        assert!(output.status.success(), "{place}: {}", err(&output));
        let text = out(&output);
        let rows = candidates(&text);
        assert!(rows.len() > 10, "{text}");
        for (_, name, times) in &rows {
            let parts: f64 = times[1..].iter().sum();
            assert!((times[0] - parts).abs() < 0.01, "{name}: {} is not {parts} in {text}", times[0]);
        }
        let taken: Vec<_> = rows.iter().filter(|row| row.0).collect();
        let cheapest = rows.iter().map(|row| row.2[0]).fold(f64::INFINITY, f64::min);
        assert_eq!(taken.len(), 1, "{text}");
        assert!(taken[0].2[0] <= cheapest * 1.02, "{text}");
        let why = text.lines().last().unwrap_or_default();
        assert!(why.starts_with('#') && why.contains(&taken[0].1), "{why}");
    }
}

#[test]
fn argument_environment_file_and_api_select_the_same_and_nonsense_lists_what_there_is() {
    let wanted = "node:mesh;supernode:nhr";
    let plan = ["plan", "all_reduce", "--ranks", "8", "-b", "64K"];
    let file = Scratch::new("selection");
    fs::write(&file.0, format!("algo = '{wanted}'\nlayout = 'node=4;supernode=8'\n")).unwrap();
    let mut by_argument = ubccl("");
    by_argument.args(plan).args(["--algo", wanted, "--layout", "node=4;supernode=8"]);
    let mut by_environment = ubccl("");
    by_environment.args(plan).env("UBCCL_ALGO", wanted).env("UBCCL_LAYOUT", "node=4;supernode=8");
    let mut by_file = ubccl("");
    by_file.args(plan).env("UBCCL_CONFIG", &file.0);
    let [first, second, third] = [by_argument, by_environment, by_file].map(|mut command| {
        let output = finish(command.spawn().unwrap());
        assert!(output.status.success(), "{}", err(&output));
        out(&output)
    });
    let config = Config {
        ranks: 8,
        algorithm: Some(wanted.into()),
        layout: Some("node=4;supernode=8".into()),
        ..Config::default()
    };
    let call = Collective::all_reduce(16 << 10, DataType::F32, ReduceOp::Sum);
    let api = Planner::new(&config).unwrap().plan(&call, 0, false).unwrap();
    assert!(first.contains(&format!("plan {} all_reduce rank 0 ", api.algorithm())), "{first}");
    assert_eq!(first, second);
    assert_eq!(first, third);

    let mut nonsense = ubccl("plan all_reduce");
    nonsense.env("UBCCL_ALGO", "rings");
    for output in [run("plan all_reduce --algo rings"), finish(nonsense.spawn().unwrap())] {
        assert!(!output.status.success());
        for name in ["'rings'", "double-tree", "halving-doubling", "nhr"] {
            assert!(err(&output).contains(name), "{name} is not in {}", err(&output));
        }
    }
}

#[test]
fn an_engine_is_forced_by_argument_environment_file_and_api_and_told_wherever_it_runs() {
    let fabric = "cloudmatrix384-die+hixl-write+hixl-read";
    let explain = ["explain", "all_gather", "1M", "--fabric", fabric, "--ranks", "4"];
    let file = Scratch::new("engine");
    fs::write(&file.0, "engine = 'hixl-read'\n").unwrap();
    let mut by_argument = ubccl("");
    by_argument.args(explain).args(["--engine", "hixl-read"]);
    let mut by_environment = ubccl("");
    by_environment.args(explain).env("UBCCL_ENGINE", "hixl-read");
    let mut by_file = ubccl("");
    by_file.args(explain).env("UBCCL_CONFIG", &file.0);
    let [first, second, third] = [by_argument, by_environment, by_file].map(|mut command| {
        let output = finish(command.spawn().unwrap());
        assert!(output.status.success(), "{}", err(&output));
        out(&output)
    });
    assert!(first.contains(" on hixl-read ") && !first.contains("hixl-write "), "{first}");
    assert_eq!((&first, &first), (&second, &third));
    let free = out(&finish({
        let mut command = ubccl("");
        command.args(explain).spawn().unwrap()
    }));
    assert!(free.contains(" on hixl-read ") && free.contains(" on hixl-write "), "{free}");

    let config = WorldConfig {
        fabric: fabric.into(),
        ranks: 4,
        engine: Some("hixl-read".into()),
        ..WorldConfig::default()
    };
    let planner = Planner::simulated(&config).unwrap();
    let call = Collective::all_gather(64 << 10, DataType::F32);
    let choices = planner.candidates(&call).unwrap();
    let names = planner.engines();
    let taken = choices.iter().find(|candidate| candidate.is_picked).unwrap();
    assert_eq!(names[usize::from(taken.choice.engine.unwrap())], "hixl-read");
    let is_forced =
        |engine: Option<u8>| engine.is_none_or(|engine| names[usize::from(engine)] == "hixl-read");
    assert!(choices.iter().all(|candidate| is_forced(candidate.choice.engine)));

    let rows = Scratch::new("engine-rows");
    let json = rows.0.to_str().unwrap();
    let simulated = run(&format!(
        "sim all_gather --fabric {fabric} --ranks 4 --engine hixl-read -b 1M -e 1M --json {json}"
    ));
    assert!(out(&simulated).contains(" on hixl-read, lanes "), "{} {}", out(&simulated), err(&simulated));
    assert!(fs::read_to_string(json).unwrap().contains("\"engine\":\"hixl-read\""));

    let nonsense = run(&format!("sim all_gather --fabric {fabric} --ranks 4 --engine hixl"));
    let told = "unknown engine 'hixl'; there are: hixl-write, hixl-read";
    assert!(!nonsense.status.success() && err(&nonsense).contains(told), "{}", err(&nonsense));
    for place in
        ["bench all_gather --ranks 2 -n 1 -w 0 -e 8", "explain all_gather 8 --ranks 2 --transport tcp"]
    {
        let refused = run(&format!("{place} --engine hixl-read"));
        let told = "unknown engine 'hixl-read'; there is one, which has no name: leave it out";
        assert!(!refused.status.success() && err(&refused).contains(told), "{}", err(&refused));
    }
}

#[test]
fn a_contest_in_virtual_time_places_the_pick_among_all_that_is_simulated() {
    let output = run("sim all_reduce --algo all --ranks 8 -b 8 -e 16M --points 3 --margin 2");
    let text = String::from_utf8(output.stdout).unwrap();
    let verdicts: Vec<&str> = text.lines().filter(|line| line.starts_with("# the pick, ")).collect();
    assert_eq!(verdicts.len(), 3, "{text}");
    assert!(verdicts.iter().all(|line| line.contains(" simulated, predicted at ")), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("* ")).count(), 3, "{text}");
    assert!(text.contains("# picks within 1.03 of the best: 3 of 3"), "{text}");
}

#[test]
fn a_contest_measures_every_algorithm_and_places_the_pick() {
    let output = run("bench all_reduce --algo all --ranks 2 -b 1K -e 2K -f 2 -n 1 -w 1");
    assert!(output.status.success(), "{} {}", out(&output), err(&output));
    let text = out(&output);
    let entries = |taken: bool| {
        text.lines().filter(move |line| line.contains(" measured ") && line.starts_with('*') == taken)
    };
    assert_eq!(entries(true).count(), 2, "a pick for each size: {text}");
    let sizes_of = |name: &str| -> BTreeSet<&str> {
        let rows = entries(false).chain(entries(true));
        let words =
            rows.map(|line| line.trim_start_matches('*').split_whitespace().take(2).collect::<Vec<_>>());
        words.filter(|words| words[1] == name).map(|words| words[0]).collect()
    };
    for name in ["ring", "mesh-one-shot", "double-tree"] {
        assert_eq!(sizes_of(name), BTreeSet::from(["1024", "2048"]), "{name}: {text}");
    }
    let last = text.lines().rfind(|line| line.contains("picks within")).unwrap_or_default();
    assert!(last.contains(" of 2;"), "{text}");
}

#[test]
fn what_was_tuned_is_written_with_machine_and_residuals_and_used() {
    let file = Scratch::new("tuned");
    let path = file.0.to_str().unwrap();
    let output = run(&format!("tune --ranks 2 -e 4K --out {path}"));
    assert!(output.status.success(), "{} {}", out(&output), err(&output));
    let text = fs::read_to_string(&file.0).unwrap();
    for part in ["[shm.fitted]", "machine = ", "date = ", "residual_median = ", "points = "] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let explained = |rest: &str| out(&run(&format!("explain all_reduce 1K --ranks 2 {rest}")));
    let tuned = explained(&format!("--tuning {path}"));
    assert_eq!(candidates(&tuned).iter().filter(|row| row.0).count(), 1, "{tuned}");
    assert_ne!(tuned, explained(""), "the file makes no difference");

    fs::write(&file.0, text.replace("machine = \"", "machine = \"not ")).unwrap();
    let refused = run(&format!("explain all_reduce 1K --ranks 2 --tuning {path}"));
    assert!(!refused.status.success() && err(&refused).contains("another machine"), "{}", err(&refused));
}
