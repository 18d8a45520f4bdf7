//! Bit errors: where they fall in the bytes of a link, drawn from the link's own stream.

use super::script::mixed;

/// Go-back-N in a row after which a link trains anew: PCI Express gives up at the fourth replay.
const MOST_REPLAYS: u32 = 4;
/// Fractional bits of a logarithm.
const BITS: u32 = 32;

/// One direction of one rank's ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct ErrorStream {
    state: u64,
    /// Bytes up to the next error, in parts of the mean: 1 is 2⁻³² of it.
    left: u128,
    /// Errors that came within a window of one another.
    replays: u32,
}

/// What so many bytes meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Damage {
    /// Errors.
    pub(super) retries: u64,
    /// How often the link trained anew.
    pub(super) trainings: u64,
}

impl ErrorStream {
    pub(super) fn new(seed: u64) -> Self {
        let mut stream = ErrorStream { state: mixed(seed), left: 0, replays: 0 };
        stream.left = stream.draw();
        stream
    }

    /// Errors in the next bytes, one in `one_in` on average. Those less than `window` bytes apart are of one replay after
    /// the other.
    pub(super) fn take(&mut self, bytes: u64, one_in: u64, window: u64) -> Damage {
        let mut damage = Damage::default();
        let scale = |bytes: u64| (u128::from(bytes) << BITS) / u128::from(one_in.max(1));
        let (mut ahead, window) = (scale(bytes), scale(window));
        while self.left <= ahead {
            ahead -= self.left;
            self.left = self.draw();
            damage.retries += 1;
            self.replays = if self.left < window { self.replays + 1 } else { 0 };
            if self.replays == MOST_REPLAYS {
                (damage.trainings, self.replays) = (damage.trainings + 1, 0);
            }
        }
        self.left -= ahead;
        damage
    }

    /// Up to the next error, exponentially distributed: at least 1 part.
    fn draw(&mut self) -> u128 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        // −ln u = ln 2 · −log₂ u, with ln 2 in 2⁻³².
        const LN_2: u128 = 2_977_044_472;
        ((minus_log2(mixed(self.state)) * LN_2) >> BITS).max(1)
    }
}

/// −log₂((x + ½) / 2⁶⁴) in 2⁻³²: bit by bit, so that every machine gets the same.
fn minus_log2(x: u64) -> u128 {
    let x = x | 1;
    let zeros = x.leading_zeros();
    let mut mantissa = u128::from(x << zeros); // 1 to 2, in 2⁻⁶³
    let mut fraction: u128 = 0;
    for _ in 0..BITS {
        mantissa = (mantissa * mantissa) >> 63;
        let bit = mantissa >> 64;
        fraction = fraction << 1 | bit;
        mantissa >>= bit;
    }
    (u128::from(zeros + 1) << BITS) - fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_right() {
        let value = |x: u64| minus_log2(x) as f64 / f64::from(BITS).exp2();
        for x in [1, 3, 12_345, 1 << 40 | 1, u64::MAX / 3, u64::MAX] {
            let expected = 64.0 - (x as f64).log2();
            assert!((value(x) - expected).abs() < 1e-8, "{x}: {} {expected}", value(x));
        }
    }

    #[test]
    fn errors_come_once_in_so_many_bytes_on_average_and_the_same_each_time() {
        let run = |seed| {
            let mut stream = ErrorStream::new(seed);
            (0..1000).map(|_| stream.take(100_000, 10_000, 100)).collect::<Vec<_>>()
        };
        let damages = run(7);
        assert_eq!(damages, run(7));
        assert_ne!(damages, run(8));
        let retries: u64 = damages.iter().map(|damage| damage.retries).sum();
        assert!((9_500..10_500).contains(&retries), "{retries} of about 10,000");
        // One error in ten is near the one before: four in a row are rare.
        let trainings: u64 = damages.iter().map(|damage| damage.trainings).sum();
        assert!(trainings < 20, "{trainings}");
        let mut stream = ErrorStream::new(1);
        assert!(stream.take(100_000, 1000, 1_000_000).trainings > 15, "nothing passes without training anew");
    }
}
