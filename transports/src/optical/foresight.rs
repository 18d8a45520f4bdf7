//! What the next events will touch, fetched before: a world has more records than caches hold, and one names the next.

use super::events::{Event, Kind};
use super::network::{Message, Network};

/// So many events lie between the hints at what one of them needs.
const STRIDE: usize = 4;

impl Network {
    /// Takes a look at what comes after the event that is handled now, the first of `bucket`.
    #[inline]
    pub(super) fn foresee(&self, bucket: &[Event]) {
        // Each hint looks at what the one before it, some events ago, had fetched.
        let coming = |hints: usize| match bucket.get(hints * STRIDE) {
            Some(event) => Some(*event),
            None => self.queue.coming(hints * STRIDE - bucket.len()),
        };
        if let Some(Event { kind, target }) = coming(4) {
            match kind {
                Kind::Injected => self.sends.foresee(target),
                Kind::Head | Kind::Begun | Kind::Arrived => self.messages.foresee(target),
                Kind::Computed => self.receives.foresee(target),
                Kind::Left | Kind::Died | Kind::Detected | Kind::Alarm | Kind::Resumed => {}
            }
        }
        if let Some(Event { kind, target }) = coming(3) {
            match kind {
                Kind::Injected => self.seats.foresee(self.sends[target].seat),
                Kind::Head | Kind::Begun => self.sends.foresee(self.messages[target].send),
                Kind::Arrived => {
                    let Message { send, line, .. } = self.messages[target];
                    self.sends.foresee(send);
                    self.matching.foresee(line);
                }
                Kind::Computed => self.seats.foresee(self.receives[target].seat()),
                Kind::Left | Kind::Died | Kind::Detected | Kind::Alarm | Kind::Resumed => {}
            }
        }
        if let Some(Event { kind: Kind::Arrived, target }) = coming(2) {
            self.matching.foresee_first(self.messages[target].line);
        }
        if let Some(Event { kind: Kind::Arrived, target }) = coming(1)
            && let Some(receive) = self.matching.first_receive(self.messages[target].line)
        {
            self.receives.foresee(receive);
        }
    }
}
