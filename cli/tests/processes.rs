//! `ubccl bench` on real processes and threads: its results, and that nothing is ever left behind.

mod common;
use common::{COLLECTIVES, children, err, exists, finish, out, run, send_signal, ubccl, until};
use std::process::Child;

/// The data rows of a table.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// Asserts a successful run without wrong elements, and gives its rows.
fn rows_of(line: &str) -> Vec<Vec<String>> {
    let output = run(line);
    assert!(output.status.success(), "{line}: {} {}", out(&output), err(&output));
    assert!(out(&output).contains("# Out of bounds values : 0 OK"), "{line}: {}", out(&output));
    rows(&out(&output))
}

/// Every type with every operation on one transport, which has the same kernels as the others; every type, operation
/// and root on all.
fn choices(transport: &str, ranks: u32) -> Vec<String> {
    let last = ranks - 1;
    let all = |choice: &str| format!("{choice} -r {last}");
    let mut choices = vec!["-r all".to_owned()];
    match transport {
        "threads" => choices.push(all("-d all -o all")),
        _ => choices.extend([all("-d all"), all("-d u8 -o all"), all("-d bf16 -o all")]),
    }
    choices
}

#[test]
fn every_collective_is_right_on_every_real_transport_and_odd_rank_counts() {
    for transport in ["shm", "threads", "tcp"] {
        for collective in COLLECTIVES {
            for ranks in [1, 2, 3] {
                for rest in choices(transport, ranks) {
                    let sizes = "-b 1 -e 5000 -f 70 -n 3 -w 1";
                    let line =
                        format!("bench {collective} --transport {transport} --ranks {ranks} {sizes} {rest}");
                    for row in rows_of(&line) {
                        assert_eq!(row.len(), 13, "{line}: {row:?}");
                        assert_eq!(row[8], "0", "{line}: {row:?}");
                        assert!(row[12] == "0" || collective == "barrier", "{line}: {row:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn zero_counts_and_counts_that_ranks_do_not_divide_work() {
    let rows = rows_of("bench all_gather --ranks 3 -b 0 -e 100 -i 50 -n 2");
    let sizes: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(sizes, ["0", "48", "96"]);
}

#[test]
fn json_lines_tell_what_the_table_tells() {
    let file = std::env::temp_dir().join(format!("ubccl-json-{}", std::process::id()));
    rows_of(&format!("bench all-reduce-perf -b 8 -e 8K -f 1024 -n 4 --json {}", file.display()));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 4, "two sizes, two placements: {text}");
    for (row, in_place) in rows.iter().zip([false, true, false, true]) {
        for field in [
            "op",
            "dtype",
            "bytes",
            "asked_bytes",
            "ranks",
            "transport",
            "algo",
            "iters",
            "p50_us",
            "min_us",
            "p99_us",
            "algbw_GBps",
            "busbw_GBps",
            "cpu_us",
        ] {
            assert!(!row[field].is_null(), "{field}: {row}");
        }
        assert_eq!(row["in_place"], in_place);
        assert_eq!(row["wrong"], 0);
        assert_eq!(row["iters"], 4);
        assert_eq!(row["p99_of_block"], row["bytes"] == 8 && row["calls_per_iter"] != 1);
    }
}

/// A measurement that goes on until it is ended.
fn endless(ranks: usize) -> (Child, Vec<u32>) {
    let line = format!("bench all_reduce --ranks {ranks} -b 4K -e 4K -n 1000000 -w 1000000 --timeout 60s");
    let child = ubccl(&line).spawn().unwrap();
    let pid = child.id();
    let ranks = until("all ranks run", || Some(children(pid)).filter(|pids| pids.len() == ranks));
    (child, ranks)
}

fn assert_gone(pids: &[u32]) {
    for &pid in pids {
        until("no process is left", || (!exists(pid)).then_some(()));
    }
}

#[test]
fn a_killed_rank_ends_all_and_is_named_once() {
    for victim in [0, 2] {
        let (child, pids) = endless(3);
        send_signal("KILL", pids[victim]);
        let output = finish(child);
        assert!(!output.status.success());
        let told = format!("rank {victim}: its process (pid {}) was killed by signal 9", pids[victim]);
        assert_eq!(err(&output).matches(&told).count(), 1, "{}", err(&output));
        assert_gone(&pids);
    }
}

#[test]
fn a_signal_to_the_parent_leaves_no_process_and_is_what_the_shell_sees() {
    use std::os::unix::process::ExitStatusExt;
    for (name, number) in [("INT", 2), ("TERM", 15), ("HUP", 1), ("KILL", 9)] {
        let (child, pids) = endless(2);
        send_signal(name, child.id());
        let output = finish(child);
        assert_eq!(output.status.signal(), Some(number), "{name}: {}", err(&output));
        // The parent reaps the ranks before it ends; only after SIGKILL the kernel does it, and later.
        if name == "KILL" {
            let running = |pid: &u32| {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                !stat.is_empty() && !stat.contains(") Z ")
            };
            until("the kernel has killed the ranks", || (!pids.iter().any(running)).then_some(()));
        } else {
            assert!(!pids.iter().any(|&pid| exists(pid)), "{name}");
        }
    }
}

#[test]
fn a_closed_standard_output_ends_the_measurement() {
    for transport in ["shm", "threads"] {
        let line = format!("bench all_reduce --transport {transport} -b 8 -e 64 -n 20");
        let mut child = ubccl(&line).spawn().unwrap();
        drop(child.stdout.take());
        let output = finish(child);
        assert!(!output.status.success());
        assert_eq!(err(&output), "", "nobody listens, so nobody is told");
    }
}

#[test]
fn ranks_of_another_launcher_measure_together_and_rank_0_prints() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let rendezvous = format!("ubccl:1:127.0.0.1:{port}:00112233445566778899aabbccddeeff");
    let start = |rank: u32| {
        let mut command = ubccl("bench all_reduce -b 8 -e 8K -f 32 -n 3 -w 1");
        command
            .env("UBCCL_RENDEZVOUS", &rendezvous)
            .env("UBCCL_RANK", rank.to_string())
            .env("UBCCL_SIZE", "3");
        command.spawn().unwrap()
    };
    let ranks: Vec<Child> = (0..3).map(start).collect();
    for (rank, child) in ranks.into_iter().enumerate() {
        let output = finish(child);
        assert!(output.status.success(), "rank {rank}: {}", err(&output));
        let rows = rows(&out(&output));
        assert_eq!(rows.len(), if rank == 0 { 3 } else { 0 });
        assert!(rows.iter().all(|row| row[8] == "0" && row[12] == "0"), "{rows:?}");
    }
}

#[test]
fn an_error_of_all_ranks_is_told_once() {
    for transport in ["shm", "threads"] {
        let line = format!("bench all_gather --transport {transport} --ranks 2 --algo mesh-two-shot -e 8");
        let output = run(&line);
        assert!(!output.status.success());
        assert_eq!(err(&output).matches("mesh-two-shot").count(), 1, "{}", err(&output));
        assert!(err(&output).contains("ranks 0, 1:"), "{}", err(&output));
    }
}

/// Its ranks are threads of the program, which a signal ends as it ends any other.
#[test]
fn ranks_that_share_a_process_are_threads_of_the_program() {
    use std::os::unix::process::ExitStatusExt;
    let line = "bench all_reduce --transport threads --ranks 3 -b 4K -e 4K -n 1000000 -w 1000000";
    let child = ubccl(line).spawn().unwrap();
    let pid = child.id();
    let ranks = || {
        let names = std::fs::read_dir(format!("/proc/{pid}/task"))
            .ok()?
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        Some(names.filter(|name| name.starts_with("rank ")).count()).filter(|&found| found == 3)
    };
    until("all ranks run", ranks);
    assert_eq!(children(pid), Vec::<u32>::new());
    send_signal("INT", pid);
    assert_eq!(finish(child).status.signal(), Some(2));
}

#[test]
fn where_the_time_goes_is_told_for_both_places() {
    let output = run("bench all_reduce -b 64 -e 64 -n 50 --where");
    let text = out(&output);
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("# where")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    for (line, place) in lines.iter().zip(["out-of-place", "in-place"]) {
        assert!(line.contains(place), "{line}");
        let numbers: Vec<f64> = line.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
        assert_eq!(numbers.len(), 4, "check, look-up, post, poll: {line}");
        assert!(numbers.iter().sum::<f64>() > 0.0, "{line}");
    }
}
