//! Random programs: collectives, groups and messages on several communicators, the ranks in lock step, against the
//! oracle; in real time on threads and in virtual time on optical.
//!
//! A failure names the program's seed: `UBCCL_TEST_SEED=<seed> cargo test -p ubccl --test programs` runs it alone. The
//! whole run comes again with `UBCCL_TEST_BASE_SEED`; `UBCCL_TEST_PROGRAMS` makes it longer.
#![allow(unreachable_pub)] // one test binary
#![allow(clippy::print_stdout)] // seeds, the table, and what failed

#[path = "../support/mod.rs"]
mod support;

mod coverage;
mod generate;
mod pool;
mod program;
mod run_threads;
mod run_virtual;

use coverage::Coverage;
use pool::{Failure, Pool};
use program::Program;
use std::collections::BTreeMap;
use std::sync::Arc;
use support::Random;

/// How many programs there are, each on both transports.
const PROGRAMS: u64 = 10_000;
/// Seeds that found a bug: 1. a receive from any rank, called hopeless while its own rank might still send.
const FOUND: [u64; 1] = [9_711_525_900_909_946_784];
const REAL: &str = "threads";
const VIRTUAL: &str = "optical";

fn given(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a seed is a number"))
}

/// Runs programs on both transports, the simulated ones while the threads work.
fn run(seeds: impl Iterator<Item = u64>) -> Result<[Coverage; 2], Vec<Failure>> {
    let (mut real, mut simulated) = (Coverage::new(false), Coverage::new(true));
    let mut pools: BTreeMap<usize, Pool> = BTreeMap::new();
    for seed in seeds {
        let program = Arc::new(generate::program(seed));
        if let Some(pool) = pools.remove(&program.ranks) {
            if pool.is_old() { pool.finish()? } else { drop(pools.insert(program.ranks, pool)) }
        }
        pools.entry(program.ranks).or_insert_with(|| Pool::new(REAL, program.ranks)).give(&program)?;
        real.add(&program);
        run_virtual::run(VIRTUAL, &program).map_err(|(step, message)| {
            vec![Failure { program: program.clone(), transport: VIRTUAL, rank: None, step, message }]
        })?;
        simulated.add(&program);
    }
    pools.into_values().try_for_each(Pool::finish)?;
    Ok([real, simulated])
}

/// The program up to where it failed first, everybody's errors, and how to run it again.
fn report(failures: &[Failure], base: Option<u64>) -> String {
    let Failure { program, transport, step, .. } = &failures[0];
    let mut text = format!("on {transport}, {}", program.text(*step));
    for failure in failures {
        let who = failure.rank.map_or("all ranks".into(), |rank| format!("rank {rank}"));
        let other = if failure.program.seed == program.seed { "" } else { " of another program" };
        text += &format!("{who}, step {}{other}: {}\n", failure.step, failure.message);
    }
    text += &format!(
        "this program again: UBCCL_TEST_SEED={} cargo test -p ubccl --test programs\n",
        program.seed
    );
    if let Some(base) = base {
        text +=
            &format!("all of them again: UBCCL_TEST_BASE_SEED={base} cargo test -p ubccl --test programs");
    }
    text
}

#[test]
fn ten_thousand_random_programs_agree_with_the_oracle_on_threads_and_optical() {
    if let Some(seed) = given("UBCCL_TEST_SEED") {
        println!("{}", generate::program(seed).text(usize::MAX - 1));
        run([seed].into_iter()).unwrap_or_else(|failures| panic!("{}", report(&failures, None)));
        return;
    }
    let base = given("UBCCL_TEST_BASE_SEED").unwrap_or_else(|| {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        clock.map_or(1, |time| time.as_nanos() as u64)
    });
    println!("programs: UBCCL_TEST_BASE_SEED={base}");
    let programs = given("UBCCL_TEST_PROGRAMS").unwrap_or(PROGRAMS);
    let fresh = (0..programs).map(|number| Random(base.wrapping_add(number)).next());
    let seeds = FOUND.into_iter().chain(fresh).take(programs as usize);
    let coverage = run(seeds).unwrap_or_else(|failures| panic!("{}", report(&failures, Some(base))));
    for (transport, coverage) in [REAL, VIRTUAL].iter().zip(&coverage) {
        println!("on {transport}: {coverage}");
        assert_eq!(coverage.programs, programs);
        assert!(coverage.operations >= programs * generate::OPERATIONS as u64);
        coverage.assert_everything(transport);
    }
}

#[test]
fn a_program_is_the_same_from_the_same_seed_and_never_small() {
    let mut random = Random(support::seed("programs from seeds"));
    for _ in 0..200 {
        let seed = random.next();
        let (one, other) = (generate::program(seed), generate::program(seed));
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
        let is_operation = |step: &&program::Step| !matches!(step.what, program::What::Create(_));
        let used: std::collections::BTreeSet<usize> =
            one.steps.iter().filter(is_operation).map(|step| step.on).collect();
        assert!(one.steps.iter().filter(is_operation).count() >= generate::OPERATIONS && used.len() >= 2);
        check_members(&one);
    }
}

/// Communicators have a rank at least, nobody twice, and only ranks of the world.
fn check_members(program: &Program) {
    for members in &program.members {
        let mut sorted = members.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert!(
            !members.is_empty() && sorted.len() == members.len() && sorted[sorted.len() - 1] < program.ranks
        );
    }
}
