//! What the program asks of its ranks, and what they answer.

use crate::call::CallCode;
use crate::failure::Outcome;
use crate::units::show_bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One thing that all ranks do together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Make the buffers ready, and run one call, checked.
    Prepare {
        /// The call of the orders that follow.
        call: CallCode,
        /// Whether it runs in place.
        in_place: bool,
        /// Whether data are checked.
        check: bool,
        /// The bytes of the largest buffer of the sweep.
        capacity: u64,
    },
    /// Do calls so from now on, or as the tuner chooses.
    Choose(Option<How>),
    /// Run so many calls back to back; the answer has their time as its one sample.
    Spin {
        /// How many.
        calls: u32,
    },
    /// Time iterations; the answer has a sample for each.
    Measure {
        /// Calls per sample.
        calls_per_sample: u32,
        /// How many samples.
        samples: u32,
    },
    /// Run so many calls and tell where their time goes; the answer's samples are check, look-up, post and poll.
    Where {
        /// How many.
        calls: u32,
    },
    /// Run one call with other data, untimed, and check it. A barrier answers with when it was entered and left.
    Check {
        /// Which data, or which rank comes late to a barrier.
        round: u32,
    },
}

/// What one rank answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Times.
    pub(crate) samples_ns: Vec<u64>,
    /// Processor time, user and system, of the timed part.
    pub(crate) cpu_ns: u64,
    /// Calls in the timed part.
    pub(crate) calls: u64,
    /// Wrong elements.
    pub(crate) wrong: u64,
    /// What is wrong, first case.
    pub(crate) note: Option<String>,
    /// How the prepared call is done.
    pub(crate) how: How,
}

/// One way to do a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct How {
    /// The algorithm's name.
    pub(crate) algorithm: String,
    /// Channels used at once.
    pub(crate) lanes: u8,
    /// Bytes of a chunk, where the algorithm pipelines.
    pub(crate) chunk_bytes: u32,
    /// What moves the bytes, where there are several.
    pub(crate) engine: Option<String>,
}

impl How {
    /// Algorithm and engine.
    pub(crate) fn title(&self) -> String {
        let engine = self.engine.as_ref().map_or_else(String::new, |engine| format!(" on {engine}"));
        format!("{}{engine}", self.algorithm)
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let How { lanes, chunk_bytes, .. } = self;
        write!(f, "{}, lanes {lanes}, chunk {}", self.title(), show_bytes(u64::from(*chunk_bytes)))
    }
}

/// All ranks, as the one that measures sees them.
pub(crate) trait Crew {
    /// Gives an order to every rank and waits for all answers, in rank order.
    fn run(&mut self, order: &Order) -> Outcome<Vec<Answer>>;
}

impl<C: Crew + ?Sized> Crew for &mut C {
    fn run(&mut self, order: &Order) -> Outcome<Vec<Answer>> {
        (**self).run(order)
    }
}
