//! `ubccl sim` and `ubccl plan`.

mod common;
use common::{COLLECTIVES, err, out, run, ubccl, until};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

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
fn lanes_are_as_many_as_were_asked_for_even_one() {
    let lanes = |line: &str, variable: &[(&str, &str)]| {
        let mut command =
            ubccl(&format!("sim all_reduce --ranks 6 -b 64M -e 64M --algo ring --chunk 1M {line}"));
        let output = command.envs(variable.iter().copied()).output().expect("ubccl runs");
        assert!(output.status.success(), "{}", err(&output));
        let text = out(&output);
        let how =
            text.lines().find_map(|line| line.strip_prefix("# algorithm: ring, lanes ")).unwrap_or_default();
        how.split(',').next().unwrap_or_default().to_owned()
    };
    assert_eq!(lanes("", &[]), "4");
    assert_eq!((lanes("--lanes 1", &[]), lanes("--lanes 2", &[])), ("1".to_owned(), "2".to_owned()));
    assert_eq!(lanes("", &[("UBCCL_LANES", "1")]), "1");
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

/// A folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn a_row_says_how_near_it_comes_to_what_ports_allow() {
    // Two ranks exchange 1 MB halves at 1 GB/s after 1 us: nothing is faster, and nothing here is slower.
    let fabric = "--fabric custom --latency 1us --bandwidth 1GB/s";
    let output = run(&format!("sim all_to_all --ranks 2 -b 2000000 -e 2000000 -d int8 {fabric}"));
    assert!(output.status.success(), "{}", err(&output));
    let text = out(&output);
    assert!(
        text.contains("# bound: 0.500 of the size through a rank's port at 1 GB/s, after 1 us"),
        "{text}"
    );
    let row = text.lines().find(|line| !line.starts_with('#')).unwrap();
    assert!(row.ends_with("   1001.00   100.0   100.0  virtual"), "{row}");
}

#[test]
fn where_a_simulated_calls_time_goes_is_told_and_recording_changes_nothing() {
    let line = "sim all_reduce --ranks 12 -b 64 -e 4M -f 256 --fabric cloudmatrix384";
    let folder = folder("where");
    let files = ["trace.pftrace", "links.svg", "plot.svg", "rows.json"].map(|name| folder.join(name));
    let [trace, links, plot, json] = files.each_ref().map(|file| file.display().to_string());
    let watched = run(&format!("{line} --where --trace {trace} --links {links} --plot {plot} --json {json}"));
    assert!(watched.status.success(), "{}", err(&watched));
    let text = out(&watched);
    assert_eq!(text.matches("# where (out-of-place): ").count(), 3, "{text}");
    assert!(text.contains("% latency within a supernode"), "{text}");
    let without: Vec<&str> = timeless(&text)
        .into_iter()
        .filter(|line| !line.starts_with("# where") && !line.starts_with("# links"))
        .collect();
    assert_eq!(without, timeless(&out(&run(line))), "the same times, the same hash");
    let [_, links, plot, json] = files.map(|file| std::fs::read(file).unwrap());
    for (svg, word) in
        [(links, "Links over time: all_reduce of 4 MiB"), (plot, "all_reduce f32 sum, 12 ranks")]
    {
        let svg = String::from_utf8(svg).unwrap();
        assert!(
            svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && svg.contains(word),
            "{word}"
        );
    }
    let rows = String::from_utf8(json).unwrap();
    assert_eq!(rows.matches("\"critical_path\":[{\"what\":").count(), 6, "{rows}");
}

#[test]
fn json_lines_are_there_as_soon_as_their_row_is() {
    let fifo = folder("fifo").join("rows.json");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    // The second row takes minutes: hundreds of millions of messages.
    let fabric = "--fabric custom --latency 1us --bandwidth 1GB/s";
    let line = format!("sim all_reduce --ranks 512 --algo ring --chunk 1 -b 8 -e 8G -f 1073741824 {fabric}");
    let mut child = ubccl(&format!("{line} --json {}", fifo.display())).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(std::fs::File::open(&fifo).unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("\"bytes\":8,") && first.ends_with("}\n"), "{first}");
    assert!(child.try_wait().unwrap().is_none(), "the sweep goes on");
    child.kill().unwrap();
    until("the program has ended", || child.try_wait().unwrap());
}

#[test]
fn files_that_cannot_be_made_are_told_before_anything_runs() {
    for flag in ["--trace", "--links", "--plot"] {
        let output = run(&format!("sim barrier --ranks 4 {flag} /nowhere/at/all"));
        assert!(!output.status.success() && out(&output).lines().all(|line| line.starts_with('#')), "{flag}");
        let told = err(&output);
        assert!(told.contains("/nowhere/at/all") && told.contains(flag), "{told}");
    }
    let output = run("bench barrier --trace x");
    assert!(!output.status.success() && err(&output).contains("ubccl sim"), "{}", err(&output));
    let output = run("sim all_reduce -d all --plot x.svg --ranks 2");
    assert!(!output.status.success() && err(&output).contains("one type"), "{}", err(&output));
}

#[test]
fn fabrics_are_listed_shown_with_their_sources_and_copied() {
    let listed = out(&run("topo list"));
    assert!(
        listed.contains("cloudmatrix384  ") && listed.contains("8 × NPU in a node, 48 × node"),
        "{listed}"
    );
    let shown = run("topo show --fabric cloudmatrix384");
    assert!(shown.status.success(), "{}", err(&shown));
    let shown = out(&shown);
    let row = |start: &str| {
        let found = shown.lines().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("no line begins with {start}: {shown}")).to_owned()
    };
    assert!(row("node").contains("8 × NPU") && row("supernode").contains("48 × node"));
    assert!(row("one supernode, not one node").contains("us"));
    assert!(
        row("topology.level node: holds").contains("8") && row("rank: detection_ps").contains("10_000_000")
    );
    // The description that is printed is the fabric that was shown.
    let copied = out(&run("topo show --fabric cloudmatrix384 --toml"));
    let file = folder("topo").join("mine.toml");
    std::fs::write(&file, copied).unwrap();
    assert_eq!(out(&run(&format!("topo show --fabric {}", file.display()))), shown);
    let missing = run("topo show --fabric cloudmatrix385");
    assert!(
        !missing.status.success() && err(&missing).contains("there are: cloudmatrix384"),
        "{}",
        err(&missing)
    );
    let custom = run("topo show --fabric custom --latency 2us --bandwidth 10GB/s");
    assert!(out(&custom).contains("10 GB/s") && out(&custom).contains("one flat"), "{}", out(&custom));
}
