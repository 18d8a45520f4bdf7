//! The critical path: what the end of an operation waited for, back to its beginning, without a gap.

use super::reasons::Reasons;
use super::{Operation, Share};
use std::collections::BTreeMap;
use ubccl_core::record::{At, Reason, What};
use ubccl_core::{Error, Result};

/// One piece of a critical path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// What took the time.
    pub what: What,
    /// Where.
    pub at: At,
    /// From when on.
    pub from_ps: u64,
    /// Until when: the next leg begins there.
    pub until_ps: u64,
}

/// How much of a critical path one thing at one place took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// What.
    pub what: What,
    /// Where.
    pub at: At,
    /// How long, in all.
    pub ps: u64,
}

/// What the time of an operation was made of. Its legs follow one another from the first rank's beginning to the last
/// rank's end, so the parts sum up to the time it took.
///
/// A message that waits for a port which another message has follows that message: its serialisation is what took the
/// time. There may be several critical paths; this is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CriticalPath {
    /// In order of time.
    pub legs: Vec<Leg>,
}

impl CriticalPath {
    /// The sum of all parts: what the operation took.
    pub fn total_ps(&self) -> u64 {
        self.legs.iter().map(|leg| leg.until_ps - leg.from_ps).sum()
    }

    /// The legs added up by what and where, the longest first.
    pub fn parts(&self) -> Vec<Part> {
        let mut sums: BTreeMap<(What, At), u64> = BTreeMap::new();
        for leg in &self.legs {
            *sums.entry((leg.what, leg.at)).or_default() += leg.until_ps - leg.from_ps;
        }
        let mut parts: Vec<Part> = sums.into_iter().map(|((what, at), ps)| Part { what, at, ps }).collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.ps)); // stable: equal parts stay in order of what and where
        parts
    }
}

/// Walks back from the last rank's end.
pub(super) fn of(operation: &Operation, reasons: &Reasons<'_>) -> Result<CriticalPath> {
    let start_ps = operation.start_ps();
    let end_ps = operation.end_ps();
    let end_ps = end_ps.ok_or_else(|| Error::invalid(format!("{operation:?} did not end on every rank")))?;
    let mut walk = Walk { legs: Vec::new(), start_ps, now_ps: end_ps };
    let ends = |share: &Share| share.span.is_some_and(|span| span.end_ps == Some(end_ps));
    let Some(last) = operation.ranks.iter().position(ends) else {
        return Ok(CriticalPath { legs: Vec::new() });
    };
    let mut rank = operation.ranks[last].rank;
    let mut reason = reasons.of_end(operation, last, end_ps);
    // Every step goes back in time or to something recorded earlier; more steps than records would be a circle.
    let mut left = reasons.limit();
    while walk.now_ps > start_ps {
        left = left.checked_sub(1).ok_or_else(|| Error::internal("a critical path goes in a circle"))?;
        reason = match reason {
            Reason::After(index) => {
                let stretch = reasons.stretch(index);
                walk.back_to(stretch.from_ps, stretch.until_ps, stretch.what, stretch.at)?;
                if let At::Rank(at) = stretch.at {
                    rank = at;
                }
                match stretch.reason {
                    Reason::Unknown => reasons.of_moment(rank, stretch.from_ps),
                    reason => reason,
                }
            }
            Reason::Posted(post) => {
                rank = reasons.post(post).rank;
                reasons.of_post(post, walk.now_ps)
            }
            Reason::Unknown => {
                // Nothing happened for the rank just before: it had not called yet, or stood still.
                let since_ps = reasons.last_seen_ps(rank, walk.now_ps).max(start_ps);
                walk.back_to(since_ps, walk.now_ps, What::Waiting, At::Rank(rank))?;
                reasons.of_moment(rank, since_ps)
            }
        };
    }
    walk.legs.reverse();
    Ok(CriticalPath { legs: walk.legs })
}

/// The legs so far, the last one first.
struct Walk {
    legs: Vec<Leg>,
    start_ps: u64,
    now_ps: u64,
}

impl Walk {
    /// Adds a leg that ends now, cut at the operation's beginning.
    fn back_to(&mut self, from_ps: u64, until_ps: u64, what: What, at: At) -> Result<()> {
        if until_ps != self.now_ps {
            let gap = format!("{what:?} ends at {until_ps} ps, what follows it begins at {}", self.now_ps);
            return Err(Error::internal(format!("the record has a gap: {gap}")));
        }
        let from_ps = from_ps.max(self.start_ps);
        self.now_ps = from_ps;
        match self.legs.last_mut() {
            _ if from_ps == until_ps => {}
            Some(last) if (last.what, last.at) == (what, at) => last.from_ps = from_ps,
            _ => self.legs.push(Leg { what, at, from_ps, until_ps }),
        }
        Ok(())
    }
}
