//! `ubccl sim` and `ubccl plan`.

mod common;
use common::{COLLECTIVES, err, out, run};

/// The lines that do not depend on how long the simulation took.
fn timeless(text: &str) -> Vec<&str> {
    let changes = ["# Messages per second", "# Peak memory"];
    text.lines().filter(|line| !changes.iter().any(|start| line.starts_with(start))).collect()
}

#[test]
fn every_collective_is_right_in_virtual_time_and_marked_so() {
    for collective in COLLECTIVES {
        let output = run(&format!("sim {collective} --ranks 5 -b 4 -e 64K -f 128 -d all -o all -r all"));
        assert!(output.status.success(), "{collective}: {} {}", out(&output), err(&output));
        let text = out(&output);
        assert!(text.contains("VIRTUAL TIME") && text.contains("# Out of bounds values : 0 OK"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.ends_with("  virtual"), "{line}");
        }
        for line in ["# Messages  ", "# Messages per second", "# Peak memory", "# Event hash"] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}

#[test]
fn two_runs_are_the_same_and_one_picosecond_more_is_not() {
    let line = |latency: &str| {
        format!("sim all_reduce --ranks 6 -e 4K --fabric custom --latency {latency} --bandwidth 10GB/s")
    };
    let [first, again, slower] = [line("1us"), line("1us"), line("1000001ps")].map(|line| run(&line));
    assert!(first.status.success(), "{}", err(&first));
    assert_eq!(timeless(&out(&first)), timeless(&out(&again)));
    let hash = |text: String| text.lines().find(|line| line.starts_with("# Event hash")).unwrap().to_owned();
    assert_ne!(hash(out(&first)), hash(out(&slower)));
}

#[test]
fn bench_over_optical_is_the_same_as_sim() {
    let bench = run("bench all_gather --transport optical --ranks 3 -e 1K --fabric cloudmatrix384");
    let sim = run("sim all_gather --ranks 3 -e 1K");
    assert!(bench.status.success() && sim.status.success(), "{}", err(&bench));
    assert_eq!(timeless(&out(&bench)), timeless(&out(&sim)));
}

#[test]
fn large_simulations_run_on_fingerprints_and_are_checked() {
    for collective in ["reduce_scatter", "all_to_all", "gather_v"] {
        let output = run(&format!("sim {collective} --ranks 16 -b 5G -e 5G -d bf16"));
        assert!(output.status.success(), "{}", err(&output));
        let text = out(&output);
        let row = text.lines().find(|line| !line.starts_with('#')).unwrap();
        assert!(row.split_whitespace().next().unwrap() == "5368709120" && row.contains("bfloat16"), "{row}");
        assert_eq!(row.split_whitespace().nth(8), Some("0"), "{row}");
    }
}

#[test]
fn plans_of_every_collective_are_verified_and_tell_how_much_tables_hold() {
    for collective in COLLECTIVES {
        for rest in ["", "--in-place"] {
            let output = run(&format!("plan {collective} --ranks 5 -r 2 -b 92 {rest}"));
            assert!(output.status.success(), "{collective} {rest}: {} {}", out(&output), err(&output));
            let verdict = out(&output).lines().last().unwrap_or_default().to_owned();
            assert!(verdict.starts_with(&format!("verified for {collective}")), "{verdict}");
            assert_eq!(verdict.contains("(in all 23 elements)"), collective.ends_with("_v"), "{verdict}");
        }
    }
}

#[test]
fn a_plan_is_printed_with_its_verdict() {
    let output = run("plan all_reduce --algo ring --ranks 4");
    assert!(output.status.success(), "{}", err(&output));
    let text = out(&output);
    assert_eq!(text.matches("plan ring all_reduce rank ").count(), 4, "{text}");
    assert!(text.contains("receive_reduce") && text.contains("verified for all_reduce"), "{text}");
    let one = out(&run("plan broadcast --ranks 5 --rank 3 -r 2 --in-place"));
    assert_eq!(one.matches("\nplan ").count() + 1, 1, "{one}");
    assert!(one.contains("rank 3 of 5 root 2 in place"), "{one}");
}
