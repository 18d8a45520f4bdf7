//! The contract of `World`. That time never goes back (1), and that `step` names ranks once and in order (3), the
//! driver checks at every step of every test; here are the tests that look at whole runs.

use crate::cases::{Case, Check, named};
use crate::support::drive::{FABRIC, Run};
use std::time::Duration;
use ubccl_core::endpoint::{Clock, CommunicatorId, Fidelity, Transport, WorldOptions, WorldStats};

pub const CASES: &[Case] = &[
    world("w1_every_run_of_traffic_keeps_time_going_forward", &[3], time_goes_forward),
    world("w2_the_same_posts_give_the_same_events_and_hash", &[2, 5], same_hash),
    world("w5_an_alarm_wakes_its_rank_at_its_time_and_next_ps_tells_it", &[1, 3], alarms_ring),
    world("w3_a_world_in_which_nothing_was_posted_never_steps", &[1, 4], nothing_happens),
];

type WorldCheck = fn(&'static dyn Transport, u32, Duration) -> Result<(), String>;

const fn world(name: &'static str, ranks: &'static [u32], check: WorldCheck) -> Case {
    Case { name, ranks, clock: Some(Clock::Virtual), variants: 1, check: Check::Worlds(check) }
}

const TRAFFIC: &str = "c2_random_traffic_arrives_whole_and_in_order";

fn run_traffic(
    transport: &'static dyn Transport,
    ranks: u32,
    patience: Duration,
) -> Result<Vec<WorldStats>, String> {
    let case = named(TRAFFIC);
    let Check::Ranks(body) = case.check else { unreachable!("traffic runs on ranks") };
    (0..case.variants).map(|variant| Run { transport, ranks, body, variant, patience }.go()).collect()
}

/// The driver asserts it at every step; this makes sure that there were steps.
fn time_goes_forward(
    transport: &'static dyn Transport,
    ranks: u32,
    patience: Duration,
) -> Result<(), String> {
    let stats = run_traffic(transport, ranks, patience)?;
    let idle = stats.iter().any(|stats| stats.events < 500 || stats.messages < 500 || stats.bytes == 0);
    if idle { Err(format!("traffic of 500 events moved too little: {stats:?}")) } else { Ok(()) }
}

/// Two runs agree in everything; other traffic has another hash.
fn same_hash(transport: &'static dyn Transport, ranks: u32, patience: Duration) -> Result<(), String> {
    let (first, second) =
        (run_traffic(transport, ranks, patience)?, run_traffic(transport, ranks, patience)?);
    if first != second {
        return Err(format!("two runs of the same posts differ: {first:?} and {second:?}"));
    }
    if first[0].hash == first[1].hash {
        return Err(format!("different traffic has the same hash: {first:?}"));
    }
    Ok(())
}

fn nothing_happens(transport: &'static dyn Transport, ranks: u32, _: Duration) -> Result<(), String> {
    let options = WorldOptions {
        ranks,
        fabric: FABRIC.into(),
        seed: 1,
        fidelity: Fidelity::default(),
        faults: String::new(),
    };
    let mut world = transport.world(&options).map_err(|error| error.to_string())?;
    let mut woken = Vec::new();
    let stepped = world.step(&mut woken).map_err(|error| error.to_string())?;
    let quiet = !stepped && woken.is_empty() && world.now_ps() == 0 && world.dead().is_empty();
    if quiet {
        Ok(())
    } else {
        Err(format!("an empty world stepped to {} and woke {woken:?}", world.now_ps()))
    }
}

fn alarms_ring(transport: &'static dyn Transport, ranks: u32, _: Duration) -> Result<(), String> {
    let fidelity = Fidelity::default();
    let options = WorldOptions { ranks, fabric: FABRIC.into(), seed: 1, fidelity, faults: String::new() };
    let mut world = transport.world(&options).map_err(|error| error.to_string())?;
    let last = ranks - 1;
    for (rank, after_ps) in [(last, 700), (0, 300), (last, 300)] {
        world.alarm(rank, after_ps);
    }
    let mut rung = Vec::new();
    while let Some(next_ps) = world.next_ps() {
        let mut woken = Vec::new();
        let stepped = world.step(&mut woken).map_err(|error| error.to_string())?;
        rung.push((next_ps, world.now_ps(), woken.iter().map(|place| place.rank).collect::<Vec<_>>()));
        if !stepped || woken.iter().any(|place| place.communicator != CommunicatorId::WORLD) {
            return Err(format!("at {next_ps} step answered {stepped} and woke {woken:?}"));
        }
    }
    let both = if last == 0 { vec![0] } else { vec![0, last] };
    let expected = vec![(300, 300, both), (700, 700, vec![last])];
    if rung == expected { Ok(()) } else { Err(format!("rang {rung:?}, expected {expected:?}")) }
}
