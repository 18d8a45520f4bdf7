//! One step instance of a plan as numbers: its ranges and its peers.

use super::flat::{Entry, Layout, NONE};
use crate::collective::Rank;
use crate::plan::{Action, At, Binding, Cut, Extent, Plan, Slice};

/// Turns one plan's steps into numbers.
pub(super) struct Resolver<'a> {
    pub(super) plan: &'a Plan,
    pub(super) layout: &'a Layout,
    pub(super) binding: &'a Binding,
}

/// The error says what is wrong with the step.
pub(super) type Resolved<T> = Result<T, &'static str>;

impl Resolver<'_> {
    /// What a step reads, what it writes, how much, and whether it sends.
    #[inline]
    pub(super) fn step(
        &self,
        action: &Action,
        at: At,
        entries: &mut Vec<Entry>,
    ) -> Resolved<(u64, u64, u64, bool)> {
        match action {
            Action::Send { from, to } => {
                let (read, len) = self.range(from, at)?;
                for peer in to.at(self.binding.sizes(), at).iter() {
                    entries.push(self.entry(peer)?);
                }
                Ok((read, NONE, len, true))
            }
            Action::Receive { into, from } => {
                let (write, len) = self.range(into, at)?;
                entries.push(self.entry(from.rank(self.binding.sizes(), at))?);
                Ok((NONE, write, len, false))
            }
            Action::ReceiveReduce { sources, own, into } => {
                let (write, len) = self.range(into, at)?;
                let before = entries.len();
                let mut own_entries = 0;
                for peer in sources.at(self.binding.sizes(), at).iter() {
                    let is_own = peer == self.plan.spec.rank;
                    own_entries += u32::from(is_own);
                    entries.push(if is_own { Entry::new(peer) } else { self.entry(peer)? });
                }
                if entries.len() == before {
                    return Err("reduces nothing: its list of sources is empty");
                }
                let read = match own_entries {
                    0 => NONE,
                    1 => self.same_length(own, at, len)?,
                    _ => return Err("lists its own contribution twice"),
                };
                Ok((read, write, len, false))
            }
            Action::Copy { from, into } => {
                let (write, len) = self.range(into, at)?;
                let read = self.same_length(from, at, len)?;
                entries.push(Entry::new(self.plan.spec.rank));
                Ok((read, write, len, false))
            }
        }
    }

    fn same_length(&self, slice: &Slice, at: At, len: u64) -> Resolved<u64> {
        match self.range(slice, at)? {
            (start, own) if own == len => Ok(start),
            _ => Err("its own slice and the slice it writes are of different lengths"),
        }
    }

    fn entry(&self, peer: Rank) -> Resolved<Entry> {
        if peer == self.plan.spec.rank {
            return Err("names the rank itself as its peer");
        }
        if peer >= self.plan.spec.ranks {
            return Err("names a peer that is no rank");
        }
        Ok(Entry::new(peer))
    }

    /// First element, in the rank's flat memory, and length. The range is computed as it is when the plan runs.
    #[inline]
    fn range(&self, slice: &Slice, at: At) -> Resolved<(u64, u64)> {
        match slice {
            Slice::Empty => return Ok((NONE, 0)),
            Slice::Of(shape) => {
                self.check_cuts(&shape.cuts, at)?;
                check_within(&shape.cuts)?;
            }
            Slice::Scratch { slot, shape, part } => {
                self.check_cuts(&shape.cuts, at)?;
                self.check_cuts(part, at)?;
                check_within(part)?;
                let slots = self.plan.scratch.as_ref().map_or(0, |scratch| i64::from(scratch.slots));
                let (_, held) = shape.range(self.binding.sizes(), at);
                if held > self.layout.slot || !(0..slots).contains(&slot.at(at)) {
                    return Err("names scratch that the plan did not ask for");
                }
            }
        }
        Ok(match self.binding.extent(slice, at) {
            Extent::Input(start, len) => (self.layout.input.start + start, len),
            Extent::Output(start, len) => (self.layout.output.start + start, len),
            Extent::Scratch(start, len) => (self.layout.scratch.start + start, len),
        })
    }

    fn check_cuts(&self, cuts: &[Cut], at: At) -> Resolved<()> {
        // A table counts from a buffer's beginning.
        let is_first = cuts.iter().skip(1).all(|cut| !matches!(cut, Cut::Block { .. }));
        match is_first && cuts.iter().all(|cut| cut.exists(self.binding.sizes(), at)) {
            true => Ok(()),
            false => Err("names a block or chunk that does not exist"),
        }
    }
}

/// Only what scratch stands in for may be longer than what it is made from.
fn check_within(cuts: &[Cut]) -> Resolved<()> {
    match cuts.iter().any(|cut| matches!(cut, Cut::Times(_))) {
        true => Err("names more than there is"),
        false => Ok(()),
    }
}
