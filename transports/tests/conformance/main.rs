//! The conformance suite: the same bodies on every transport of the index, one named test for each.
//!
//! A case's name begins with the point of the contract it tests: `c1` to `c11` are the points of `Endpoint`, `w1` to
//! `w3` those of `World`. Nothing here names a transport: whatever is in the index is tested, as
//! `NAME::CASE::N_ranks`. The same bodies run over a right double (which must pass) and over wrong ones
//! (`wrong::DEFECT::CASE`, where the case must fail), so that the suite itself is known to accept and to reject.
#![allow(unreachable_pub, reason = "nothing is public outside a test program")]

mod cancel;
mod cases;
mod completion;
mod lanes;
mod mismatch;
mod probe;
mod reduction;
mod sleeping;
mod stress;
#[path = "../support/mod.rs"]
mod support;
mod user_ops;
mod worlds;
mod wrong;

use cases::{Case, Check};
use libtest_mimic::{Arguments, Failed, Trial};
use std::time::Duration;
use support::double::Double;
use support::drive::{Run, quiet_panics};
use ubccl_core::endpoint::{Clock, ConnectOptions, Endpoint, Reach, Transport, TransportDescriptor};
use ubccl_core::{Exchange, Result};

/// How long nothing may happen before a test of a transport fails: ranks share cores with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

static DOUBLES: [Double; 2] = [Double::new(Clock::Real, None), Double::new(Clock::Virtual, None)];

/// Shared memory at the pace of a fabric: fast, so that the suite's traffic takes no time to speak of.
#[derive(Debug)]
struct Paced;

impl Transport for Paced {
    fn descriptor(&self) -> &'static TransportDescriptor {
        &TransportDescriptor {
            name: "optical-paced",
            alias: None,
            summary: "real transfers at a fabric's pace",
            clock: Clock::Real,
            reach: Reach::Host,
        }
    }

    fn connect(&self, exchange: &mut dyn Exchange, options: &ConnectOptions) -> Result<Box<dyn Endpoint>> {
        let paced = Some("custom:latency_ps=30000000,bytes_per_s=4000000000".to_owned());
        ubccl_transports::optical::OPTICAL.connect(exchange, &ConnectOptions { paced, ..options.clone() })
    }
}

fn main() {
    let arguments = Arguments::from_args();
    quiet_panics();
    let mut trials = Vec::new();
    for &transport in ubccl_transports::index() {
        trials.extend(trials_of(transport));
    }
    trials.extend(trials_of(&Paced));
    for double in &DOUBLES {
        trials.extend(trials_of(double));
    }
    trials.extend(wrong::trials());
    libtest_mimic::run(&arguments, trials).exit();
}

/// Every case that this transport's clock allows, on every rank count the case asks for.
fn trials_of(transport: &'static dyn Transport) -> Vec<Trial> {
    let descriptor = transport.descriptor();
    let fits = |case: &&Case| case.clock.is_none_or(|clock| clock == descriptor.clock);
    let cases = cases::all().filter(fits);
    cases
        .flat_map(|case| {
            case.ranks.iter().map(move |&ranks| {
                let name = format!("{}::{}::{ranks}_ranks", descriptor.name, case.name);
                Trial::test(name, move || run(transport, case, ranks, PATIENCE).map_err(Failed::from))
            })
        })
        .collect()
}

/// Runs one case.
fn run(transport: &'static dyn Transport, case: &Case, ranks: u32, patience: Duration) -> Result<(), String> {
    match case.check {
        Check::Ranks(body) => (0..case.variants).try_for_each(|variant| {
            let end = Run { transport, ranks, body, variant, patience }.go();
            end.map(drop).map_err(|message| format!("variant {variant}: {message}"))
        }),
        Check::Worlds(check) => check(transport, ranks, patience),
    }
}
