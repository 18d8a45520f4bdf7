//! How a long message in ordinary memory goes: through slots, which its sender fills and its receiver empties, or read in
//! its sender's memory by its receiver.
//!
//! Slots cost two copies, which two processors share if nothing else keeps them busy; reading is one copy and a call into the
//! kernel. Which is quicker depends on where the processors are, on what the message's lines are in, and on its length, so
//! both are measured where they are used, by length, and each is tried again now and then.

/// Messages shorter than this are never read: the call alone costs more than their copies.
const SHORTEST: u64 = 16 << 10;
/// Powers of two from `SHORTEST` on; longer messages are like the last.
const CLASSES: usize = 12;
/// So many messages are read before reading is judged: the first ones may touch their pages for the first time.
const FIRST_READINGS: u32 = 4;
/// The other way is tried with so many bytes, twice what the slots of a good ring have: the first are in nobody's cache.
const TRIED: u64 = 4 << 20;
/// But with so many messages at least, and at most.
const TRIED_MESSAGES: (u64, u64) = (2, 64);
/// One trial in so many messages as it has, if the other way costs about as much, and if it costs much more. At first, and
/// after each change, trials come sooner, and then each time half as often: what is known of a way may be what its first
/// messages cost, which touch memory that nobody has touched.
const OFTEN: u32 = 16;
const SELDOM: u32 = 64;
/// The first trial: after as many messages as it has. Of reading, which was judged by several, later: a trial leaves slots
/// that are in nobody's cache.
const SOON: u32 = 2;
const SOON_OF_READING: u32 = 8;

/// What is known of the messages to one receiver.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    classes: [Class; CLASSES],
}

/// Of messages about as long, in picoseconds a line; 0 is not known.
#[derive(Clone, Copy, Debug, Default)]
struct Class {
    slots: u64,
    reading: u64,
    /// Whether reading is the better way.
    is_read: bool,
    /// How often a message was read, as far as it matters.
    readings: u32,
    /// Messages since the other way was tried.
    messages: u32,
    /// How often it was since the ways changed, as far as it matters.
    trials: u32,
}

/// What a line of a message costs through slots, in picoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotCost {
    pub(crate) writing: u64,
    pub(crate) reading: u64,
}

impl SlotCost {
    /// The cost if each processor has a message of its own to write and one to read, or if they share one message.
    pub(crate) fn of(&self, is_exchange: bool) -> u64 {
        match is_exchange {
            true => self.writing.saturating_add(self.reading),
            false => self.writing.max(self.reading),
        }
    }
}

impl Ways {
    /// Whether messages so long are worth asking about.
    #[inline]
    pub(crate) fn matter(len: u64) -> bool {
        len >= SHORTEST
    }

    /// Whether the next message of `len` bytes should be read in place.
    pub(crate) fn reads(&mut self, len: u64) -> bool {
        let class = &mut self.classes[class(len)];
        let (now, other) = match (class.slots, class.reading) {
            (0, _) => return false,
            _ if class.readings < FIRST_READINGS => return true,
            (slots, reading) => {
                // Reading has to be clearly better to begin with: a message in slots leaves its sender free.
                let least = if class.is_read { reading } else { reading + reading / 8 };
                if class.is_read != (least < slots) {
                    (class.is_read, class.messages, class.trials) = (!class.is_read, 0, 0);
                }
                if class.is_read { (reading, slots) } else { (slots, reading) }
            }
        };
        class.messages += 1;
        let tried = (TRIED / len.max(1)).clamp(TRIED_MESSAGES.0, TRIED_MESSAGES.1) as u32;
        let seldom = if other / 2 > now { SELDOM } else { OFTEN };
        let soon = if class.is_read { SOON } else { SOON_OF_READING };
        let round = tried * (soon << class.trials).min(seldom);
        let is_trial = class.messages > round - tried;
        if class.messages >= round {
            class.messages = 0;
            class.trials = (class.trials + 1).min(SELDOM.ilog2());
        }
        class.is_read != is_trial
    }

    /// A message of `len` bytes, or pieces of it, went through slots at so many picoseconds a line.
    pub(crate) fn went_through_slots(&mut self, len: u64, line: u64) {
        mix(&mut self.classes[class(len)].slots, line);
    }

    /// A message of `len` bytes was read at so many picoseconds a line.
    pub(crate) fn was_read(&mut self, len: u64, line: u64) {
        let class = &mut self.classes[class(len)];
        class.readings = class.readings.saturating_add(1);
        mix(&mut class.reading, line);
    }
}

fn class(len: u64) -> usize {
    (len / SHORTEST).max(1).ilog2().min(CLASSES as u32 - 1) as usize
}

/// Takes a timing into account: a shorter one at once for the most part, a longer one, which may have been interrupted or the
/// first to touch its pages, little by little.
fn mix(known: &mut u64, line: u64) {
    let weighed = |before: u64, after: u64, share: u64| before / 4 * (4 - share) + after / 4 * share;
    *known = match *known {
        0 => line,
        before if line < before => weighed(before, line, 3),
        before => weighed(before, line.min(before.saturating_mul(4)), 1),
    };
    *known = (*known).max(1);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Messages of 10,000 that are read, if the two ways cost so much.
    fn read_of_ten_thousand(ways: &mut Ways, len: u64, (slots, reading): (u64, u64)) -> usize {
        let one = |_: &u32| match ways.reads(len) {
            true => {
                ways.was_read(len, reading);
                true
            }
            false => {
                ways.went_through_slots(len, slots);
                false
            }
        };
        (0..10_000).filter(one).count()
    }

    #[test]
    fn the_cheaper_way_is_found_at_every_length_and_found_again_when_it_changes() {
        for len in [SHORTEST, 50_000, 1 << 18, 1 << 24, u64::MAX >> 1] {
            let mut ways = Ways::default();
            let mut read = |costs| read_of_ten_thousand(&mut ways, len, costs);
            assert!(read((20_000, 5_000)) > 9_500, "{len}");
            assert!(read((3_000, 5_000)) < 6_000, "{len}: while it learns");
            assert!(read((3_000, 5_000)) < 1_000, "{len}");
            assert!(read((5_200, 5_000)) < 1_000, "{len}: not clearly better");
            read((20_000, 5_000));
            assert!(read((20_000, 5_000)) > 9_500, "{len}");
        }
    }

    #[test]
    fn what_the_first_messages_cost_is_soon_put_right() {
        let len = TRIED / 8;
        let mut ways = Ways::default();
        ways.went_through_slots(len, 20_000);
        let one = |_: &u32| match ways.reads(len) {
            true => {
                ways.was_read(len, 5_000);
                true
            }
            false => {
                ways.went_through_slots(len, 3_000);
                false
            }
        };
        let read = (0..100).filter(one).count();
        assert!(
            read < 30,
            "{read}: the first trial, of eight messages, shows it, and two more are due by then"
        );
    }

    #[test]
    fn of_few_long_messages_few_are_read_that_had_better_not() {
        let (len, mut ways) = (8 << 20, Ways::default());
        let reads = |ways: &mut Ways| match ways.reads(len) {
            true => {
                ways.was_read(len, 13_000);
                1
            }
            false => {
                ways.went_through_slots(len, 6_000);
                0
            }
        };
        let counts: Vec<u32> =
            [5, 16, 32].map(|messages| (0..messages).map(|_| reads(&mut ways)).sum()).into();
        assert_eq!(counts, [FIRST_READINGS, 2, 2], "the first, and two trials of two");
    }

    #[test]
    fn slots_are_tried_first_and_then_reading() {
        let mut ways = Ways::default();
        assert!((0..1000).all(|_| !ways.reads(1 << 20)));
        ways.went_through_slots(1 << 20, 1);
        for line in [70_000, 9_000, 5_000, 5_000] {
            assert!(ways.reads(1 << 20));
            ways.was_read(1 << 20, line);
        }
        assert!(!ways.reads(1 << 20));
        assert!(Ways::matter(SHORTEST) && !Ways::matter(SHORTEST - 1));
    }

    #[test]
    fn lengths_do_not_learn_from_each_other() {
        let mut ways = Ways::default();
        assert!(read_of_ten_thousand(&mut ways, 1 << 20, (3_000, 9_000)) < 500);
        assert!(read_of_ten_thousand(&mut ways, 1 << 22, (9_000, 3_000)) > 9_500);
        assert!(!ways.reads(1 << 20) && ways.reads(1 << 22));
    }

    #[test]
    fn an_interruption_counts_little() {
        let mut known = 4_000;
        mix(&mut known, u64::MAX);
        assert_eq!(known, 7_000);
        (0..2).for_each(|_| mix(&mut known, 4_000));
        assert!(known < 4_300, "{known}");
    }

    #[test]
    fn two_processors_share_one_message_and_not_two() {
        let cost = SlotCost { writing: 2_000, reading: 3_000 };
        assert_eq!((cost.of(true), cost.of(false)), (5_000, 3_000));
    }
}
