use super::*;

fn parsed(line: &str) -> Result<Cli, String> {
    parse(line.split_whitespace().map(OsString::from).collect()).map_err(|error| error.to_string())
}

fn bench(line: &str) -> BenchArgs {
    match parsed(&format!("ubccl bench {line}")).unwrap().command {
        Command::Bench(args) => args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_command_is_well_formed() {
    command().debug_assert();
}

#[test]
fn nccl_tests_flags_mean_the_same_in_their_short_and_long_forms() {
    let short = bench("all_reduce -b 8 -e 1G -f 4 -n 30 -w 3 -c 2 -o max -d bfloat16 -r 1");
    let long = bench(
        "all-reduce --minbytes 8 --maxbytes 1G --stepfactor 4 --iters 30 --warmup_iters 3 --check 2 --op max \
         --datatype bf16 --root 1",
    );
    for args in [short, long] {
        assert_eq!(args.sweep.sweep(), Sweep::new(Some(8), Some(1 << 30), Some(4), None));
        assert_eq!((args.sweep.iters, args.sweep.warmup_iters, args.sweep.check), (Some(30), Some(3), 2));
        assert_eq!((args.sweep.ops(), args.sweep.dtypes()), (vec![ReduceOp::Max], vec![DataType::BF16]));
        assert_eq!((args.sweep.roots(2), args.sweep.ranks), (Ok(vec![1]), 2));
    }
    assert_eq!(bench("barrier --pin").pin, Pin::On);
    assert_eq!(bench("barrier").pin, Pin::Auto);
}

#[test]
fn all_stands_for_everything_there_is() {
    let all = bench("broadcast -o all -d all -r all --ranks 3");
    assert_eq!(all.sweep.ops().len(), ReduceOp::TABLE.len() - 1, "all but mulsum");
    assert_eq!(all.sweep.dtypes().len(), DataType::TABLE.len());
    assert_eq!(all.sweep.roots(3), Ok(vec![0, 1, 2]));
}

#[test]
fn unknown_words_list_what_exists() {
    let cases: [(&str, &[&str]); 10] = [
        ("bench all_recude", &["all_recude", "all_reduce", "sendrecv"]),
        ("bench all_reduce -d f33", &["f33", "bf16 (bfloat16)", "or all"]),
        ("bench all_reduce -o summ", &["summ", "sum, prod", "or all"]),
        ("bench all_reduce -o mulsum", &["mulsum", "measure sum"]),
        ("bench all_reduce --algo tree-of-life", &["tree-of-life", "ring"]),
        ("bench all_reduce --transport rdma-of-dreams", &["rdma-of-dreams", "there are:"]),
        ("bench all_reduce --bogus", &["--bogus", "-b --minbytes", "--timeout", "--transport"]),
        ("sim all_reduce --bogus 3", &["--fabric", "--latency"]),
        ("banch all_reduce", &["banch", "bench", "sim", "plan"]),
        ("bench all_reduce -r x", &["'x' is not a rank"]),
    ];
    for (line, parts) in cases {
        let message = parsed(&format!("ubccl {line}")).unwrap_err();
        for part in parts {
            assert!(message.contains(part), "{line}: {part} in {message}");
        }
    }
}

#[test]
fn nonsense_is_refused_with_its_limit() {
    assert!(parsed("ubccl bench all_reduce --ranks 0").is_err());
    assert!(parsed("ubccl bench all_reduce -n 0").is_err());
    assert!(bench("broadcast -r 2").sweep.roots(2).unwrap_err().contains("0 to 1"));
    assert!(parsed("ubccl bench all_reduce -b 8parsecs").unwrap_err().contains("64K"));
}

#[test]
fn a_comparison_has_options_of_its_own_and_refuses_those_that_it_would_ignore() {
    let args = bench(
        "--compare peers --ranks 8 -d bf16 --ops allreduce,pingpong --sizes 8,64K --rounds 3 --time 1s",
    );
    assert_eq!(args.compare.compare.as_deref(), Some(std::path::Path::new("peers")));
    assert_eq!(
        (args.compare.ops.len(), &args.compare.sizes[..], args.compare.rounds),
        (2, &[8, 65536][..], 3)
    );
    for line in ["all_reduce", "-b 8", "-n 3", "-c 2", "--pin", "--lanes 2", "--where", "-o max", "--seed 1"]
    {
        let message = parsed(&format!("ubccl bench --compare peers {line}")).unwrap_err();
        assert!(message.contains("cannot be used with"), "{line}: {message}");
    }
    assert!(parsed("ubccl bench").unwrap_err().contains("required"));
    for line in ["--rounds 3", "--ops allreduce", "--sizes 8", "--time 1s", "--peers mpich"] {
        let message = parsed(&format!("ubccl bench all_reduce {line}")).unwrap_err();
        assert!(message.contains("cannot be used with"), "{line}: {message}");
    }
}

#[test]
fn a_custom_fabric_has_its_numbers_and_no_other_has() {
    let custom = bench("all_reduce --fabric custom --latency 2.1us --bandwidth 392GB/s");
    let text = custom.fabric.specification().unwrap();
    assert_eq!(text, "custom:latency_ps=2100000,bytes_per_s=392000000000");
    assert!(bench("all_reduce --fabric custom").fabric.specification().unwrap_err().contains("--latency"));
    let preset = bench("all_reduce --fabric cloudmatrix384 --latency 1us");
    assert!(preset.fabric.specification().unwrap_err().contains("custom"));
    let missing = bench("all_reduce --fabric ./no-such.toml");
    assert!(missing.fabric.specification().unwrap_err().contains("no-such.toml"));
    assert!(!bench("all_reduce").fabric.is_given());
}

#[test]
fn help_lists_algorithms_transports_and_the_environment() {
    let help = parsed("ubccl bench --help").unwrap_err();
    for part in ["Algorithms:", "ring", "Transports:", "UBCCL_RENDEZVOUS", "--warmup_iters", "cpu_us"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    assert!(!parsed("ubccl --help").unwrap_err().contains("worker"));
}
