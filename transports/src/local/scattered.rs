//! Where the entries of a ring stand that two processors share, and where in a slot a payload does.
//!
//! A reader that takes neighbouring lines one after the other, or lines at a steady distance, has its processor fetch those
//! to come. Here they belong to the writer, which is about to write them and would have to get them back, line by line. So entries that follow
//! one another do not stand beside one another: number i is at i's low bits, reversed.
//!
//! Lines that the reader still has in its private cache cost the writer several times what evicted ones cost. So payloads
//! of half a slot and less move on in their slots from turn to turn, and use as much memory as long ones. Those of
//! 1 KiB and less do not: their few lines come sooner from a cache nearby.

/// Slots that are divided, from one to the next: these are multiples of 1 KiB.
const SHORTEST_DIVIDED: usize = 4096;
/// Payloads up to this stay where slots begin.
const SHORT: usize = 1024;
/// What at least is left free after each part of a slot: a processor that reads one to its end fetches what follows, and the
/// writer would have to get it back.
const LEAST_GAP: usize = 512;

/// The bits of every byte, reversed.
static REVERSED: [u8; 256] = {
    let mut reversed = [0; 256];
    let mut byte = 0;
    while byte < reversed.len() {
        reversed[byte] = (byte as u8).reverse_bits();
        byte += 1;
    }
    reversed
};

/// As many places as a power of two says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scattered {
    bits: u32,
}

impl Scattered {
    /// So many places, a power of two.
    pub(crate) fn new(positions: usize) -> Self {
        assert!(positions.is_power_of_two());
        Scattered { bits: positions.ilog2() }
    }

    /// How many places.
    pub(crate) fn positions(self) -> usize {
        1 << self.bits
    }

    /// Where number `number` stands.
    #[inline]
    pub(crate) fn position(self, number: u64) -> usize {
        if self.bits <= u8::BITS {
            // A processor reverses bits in some twenty instructions, and small calls ask several times.
            return usize::from(REVERSED[usize::from(number as u8)]) >> (u8::BITS - self.bits);
        }
        self.position_of_many(number)
    }

    /// The same of more places than a byte counts.
    #[cold]
    fn position_of_many(self, number: u64) -> usize {
        (number.reverse_bits() >> (u64::BITS - self.bits)) as usize
    }

    /// At which byte of a slot, that is `stride` bytes from the next, the payload of number `number` begins, which has
    /// `len` bytes: a multiple of 64 that leaves room for them.
    #[inline]
    pub(crate) fn offset(self, number: u64, stride: usize, len: usize) -> usize {
        if stride < SHORTEST_DIVIDED || len <= SHORT || 2 * (len + LEAST_GAP) > stride {
            return 0;
        }
        let parts = stride as u32 / (len + LEAST_GAP) as u32;
        let turn = (number >> self.bits) as u32 % parts;
        (turn * (stride as u32 / parts / 64 * 64)) as usize
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn payloads_stay_in_their_slots_and_short_ones_use_all_of_them() {
        let scattered = Scattered::new(1 << 8);
        for stride in [64, 1024, 5 << 10, 9 << 10, 257 << 10] {
            for len in [0, 1, 24, 64, 575, 1153, 2304, 4096, 4609, stride - stride / 9] {
                let len = len.min(stride);
                let offsets: Vec<_> = (0..256).map(|turn| scattered.offset(turn << 8, stride, len)).collect();
                assert!(
                    offsets.iter().all(|at| at.is_multiple_of(64) && at + len <= stride),
                    "{stride} {len}"
                );
                let longest = offsets.iter().max().expect("there are some");
                if stride >= SHORTEST_DIVIDED && len > SHORT {
                    let room = stride - longest;
                    assert!(
                        room < 2 * (len + LEAST_GAP) + 64 * stride / len,
                        "{stride} {len}: room for another"
                    );
                }
            }
        }
    }

    #[test]
    fn every_turn_uses_each_place_once_and_neighbours_are_apart() {
        for bits in 0..=10 {
            let scattered = Scattered::new(1 << bits);
            let count = scattered.positions() as u64;
            assert_eq!(count, 1 << bits);
            for turn in [0, 1, 77] {
                let mut places: Vec<_> =
                    (0..count).map(|number| scattered.position(turn * count + number)).collect();
                if bits >= 3 {
                    assert!(places.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 1), "{places:?}");
                }
                places.sort_unstable();
                assert!(places.into_iter().eq(0..scattered.positions()));
            }
        }
    }
}
