//! What the next events will touch, fetched before: a world has more records than caches hold, and one names the next.

use super::events::{Event, Kind};
use super::network::{Message, Network};
use super::posting::Receive;
use super::seats::SeatId;
use ubccl_core::endpoint::{Place, Span, Token};

/// So many events lie between the looks at what one of them needs.
const STRIDE: usize = 4;
/// Looks at the memory that a receive writes. A receive lies between them: with what else happens about three events.
const LOOKS: usize = 4;
const RECEIVES: usize = (LOOKS + 1).next_power_of_two();
/// A driver that never asks is told of no more completions than this.
const MOST_COMING: usize = 4096;

/// Completions that are to come.
#[derive(Debug, Default)]
pub(super) struct Foresight {
    /// Those that the driver was not told of.
    coming: Vec<(SeatId, Token)>,
    /// The last of those that are receives, round and round.
    receives: [Option<Coming>; RECEIVES],
    newest: usize,
}

/// A receive that is to complete: what it writes, and which own contribution it folds.
#[derive(Clone, Copy, Debug)]
struct Coming {
    seat: SeatId,
    into: Span,
    own: Option<Span>,
}

impl Network {
    /// Takes a look at what comes after the event that is handled now, the first of `bucket`.
    #[inline]
    pub(super) fn foresee(&mut self, bucket: &[Event]) {
        // Each look is at what the one before it, some events ago, had fetched.
        let coming = |looks: usize| match bucket.get(looks * STRIDE) {
            Some(event) => Some(*event),
            None => self.queue.coming(looks * STRIDE - bucket.len()),
        };
        let completes = coming(4);
        if let Some(Event { kind, target }) = coming(8) {
            match kind {
                Kind::Injected => self.sends.foresee(target),
                Kind::Head | Kind::Begun | Kind::Arrived => self.messages.foresee(target),
                Kind::Computed => self.receives.foresee(target),
                Kind::Left | Kind::Died | Kind::Detected | Kind::Alarm | Kind::Resumed => {}
            }
        }
        if let Some(Event { kind: Kind::Head | Kind::Begun | Kind::Arrived, target }) = coming(7) {
            let Message { send, line, .. } = self.messages[target];
            self.sends.foresee(send);
            self.matching.foresee(line);
        }
        if let Some(Event { kind: Kind::Arrived, target }) = coming(6) {
            self.matching.foresee_first(self.messages[target].line);
        }
        match coming(5) {
            Some(Event { kind: Kind::Arrived, target }) => {
                if let Some(receive) = self.matching.first_receive(self.messages[target].line) {
                    self.receives.foresee(receive);
                }
            }
            Some(Event { kind: Kind::Injected, target }) => self.seats.foresee(self.sends[target].seat),
            _ => {}
        }
        match completes {
            Some(Event { kind: Kind::Injected, target }) => {
                let send = &self.sends[target];
                if let (seat, Some(token)) = (send.seat, send.token)
                    && self.seats[seat].heeds(token)
                {
                    self.foresee_completion(seat, token);
                }
            }
            Some(Event { kind: Kind::Computed, target }) => self.foresee_receive(target),
            Some(Event { kind: Kind::Arrived, target }) => {
                if let Some(receive) = self.matching.first_receive(self.messages[target].line) {
                    self.foresee_receive(receive);
                }
            }
            _ => {}
        }
    }

    fn foresee_receive(&mut self, receive: u32) {
        let Receive { seat, token, into, .. } = self.receives[receive];
        let own = self.receives[receive].own();
        self.foresee_completion(seat, token);
        let Foresight { receives, newest, .. } = &mut self.foresight;
        *newest = newest.wrapping_add(1);
        receives[*newest % RECEIVES] = Some(Coming { seat, into, own });
        // The seat of the newest is on its way.
        for look in 1..=LOOKS {
            let Some(Coming { seat, into, own }) = receives[newest.wrapping_sub(look) % RECEIVES] else {
                return;
            };
            let memory = &self.seats[seat].memory;
            let spans = [Some(into), own.filter(|own| *own != into)].into_iter().flatten();
            match look {
                1 => spans.for_each(|span| memory.foresee(span)),
                2 => spans.for_each(|span| memory.foresee_page(span)),
                3 => spans.for_each(|span| memory.foresee_segment(span)),
                _ => memory.foresee_beside(into),
            }
        }
    }

    fn foresee_completion(&mut self, seat: SeatId, token: Token) {
        self.seats.foresee(seat);
        if self.foresight.coming.len() < MOST_COMING {
            self.foresight.coming.push((seat, token));
        }
    }

    /// See `World::foresee`.
    pub(super) fn tell_coming(&mut self, coming: &mut Vec<(Place, Token)>) {
        let told = self.foresight.coming.drain(..);
        coming.extend(told.map(|(seat, token)| (self.seats.place(seat), token)));
    }
}
