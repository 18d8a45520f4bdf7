//! The table of cases.

use crate::support::drive::Body;
use crate::{cancel, completion, lanes, mismatch, probe, reduction, sleeping, stress, user_ops, worlds};
use std::time::Duration;
use ubccl_core::endpoint::{Clock, Transport};

/// One test body with where it runs.
pub struct Case {
    /// Begins with the point of the contract.
    pub name: &'static str,
    /// On how many ranks.
    pub ranks: &'static [u32],
    /// On which clock, if not on both.
    pub clock: Option<Clock>,
    /// How often it is run, each time on new endpoints and with another [`crate::support::rank::TestRank::variant`].
    pub variants: usize,
    /// What is done.
    pub check: Check,
}

/// What a case does.
#[derive(Clone, Copy)]
pub enum Check {
    /// Runs a body on every rank.
    Ranks(Body),
    /// Looks at whole worlds.
    Worlds(fn(&'static dyn Transport, u32, Duration) -> Result<(), String>),
}

impl Case {
    /// A case for both clocks.
    pub const fn new(name: &'static str, ranks: &'static [u32], body: Body) -> Self {
        Case { name, ranks, clock: None, variants: 1, check: Check::Ranks(body) }
    }

    /// A case for one clock.
    pub const fn on(clock: Clock, name: &'static str, ranks: &'static [u32], body: Body) -> Self {
        Case { clock: Some(clock), ..Case::new(name, ranks, body) }
    }

    /// The same in this many variants.
    pub const fn variants(self, variants: usize) -> Self {
        Case { variants, ..self }
    }
}

/// Every case there is.
pub fn all() -> impl Iterator<Item = &'static Case> {
    let tables: [&[Case]; 10] = [
        lanes::CASES,
        completion::CASES,
        mismatch::CASES,
        reduction::CASES,
        user_ops::CASES,
        cancel::CASES,
        sleeping::CASES,
        probe::CASES,
        stress::CASES,
        worlds::CASES,
    ];
    tables.into_iter().flatten()
}

/// The case of this name.
pub fn named(name: &str) -> &'static Case {
    all().find(|case| case.name == name).unwrap_or_else(|| panic!("no case is named {name}"))
}
