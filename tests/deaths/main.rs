//! Ranks as real processes that are killed, stopped, or leave: what the others get to know, and that nothing is left.

#[path = "../support/mod.rs"]
mod support;

mod killed;
mod leaving;
mod messages;
mod mixed;
mod traces;

use support::processes::play;

/// Not a test by itself: the ranks of the others' jobs play their scenarios here.
#[test]
fn a_rank() {
    play(&[
        ("busy", killed::busy),
        ("start", killed::start),
        ("exchanges", messages::exchanges),
        ("stopped", leaving::stopped),
        ("last words", leaving::last_words),
        ("deserter", leaving::deserter),
        ("mixed collectives", mixed::collectives),
        ("mixed kill", mixed::until_the_end),
        ("mixed refusal", mixed::refused),
    ]);
}

/// The transports whose ranks may be processes.
fn real_transports() -> Vec<&'static str> {
    let fits =
        |t: &&ubccl::TransportDescriptor| t.clock == ubccl::Clock::Real && t.reach > ubccl::Reach::Process;
    ubccl::transports().filter(fits).map(|t| t.name).collect()
}
