//! The two 8-bit floats of the Open Compute Project's OFP8 specification (2023), as NCCL, torch and `ml_dtypes` use
//! them.
//!
//! | | exponent, mantissa bits | largest | infinities | NaN | too large becomes |
//! |---|---|---|---|---|---|
//! | [`F8E4M3`] ("e4m3fn") | 4, 3 | 448 | none | `0x7F`, `0xFF` | NaN |
//! | [`F8E5M2`] | 5, 2 | 57344 | `0x7C`, `0xFC` | `0x7D` to `0x7F`, `0xFD` to `0xFF` | infinity |
//!
//! A number is too large if rounding to nearest even, with an exponent without limit, would go past the largest one.
//! OFP8 also allows to saturate, and CUDA's constructors do. We don't: an overflow shows, as it does in f16 and in
//! torch's and `ml_dtypes`' conversions. A NaN becomes the canonical one (`0x7F`, `0x7E`), without a sign.

/// Numbers of a format with a sign, `8 - 1 - mantissa` bits of exponent and a mantissa.
struct Format {
    mantissa_bits: u32,
    bias: u32,
    /// The first pattern (without sign) that is no finite number, which is where rounding up from the largest ends.
    beyond: u32,
    /// What a NaN becomes.
    nan: u8,
}

const E4M3: Format = Format { mantissa_bits: 3, bias: 7, beyond: 0x7F, nan: 0x7F };
const E5M2: Format = Format { mantissa_bits: 2, bias: 15, beyond: 0x7C, nan: 0x7E };

/// Exponent bias of f32.
const BIAS_F32: u32 = 127;
const MANTISSA_BITS_F32: u32 = 23;

impl Format {
    /// The bits of the f32 of the same value; exact.
    const fn widened(&self, stored: u8) -> u32 {
        let (sign, magnitude) = ((stored as u32 >> 7) << 31, stored as u32 & 0x7F);
        let mantissa = magnitude & ((1 << self.mantissa_bits) - 1);
        let exponent = magnitude >> self.mantissa_bits;
        let shift = MANTISSA_BITS_F32 - self.mantissa_bits;
        if magnitude == self.beyond && self.beyond != self.nan as u32 {
            sign | 0x7F80_0000
        } else if magnitude >= self.beyond {
            0x7FC0_0000
        } else if exponent > 0 {
            sign | (exponent + BIAS_F32 - self.bias) << MANTISSA_BITS_F32 | mantissa << shift
        } else if mantissa > 0 {
            // A subnormal is a normal f32: its leading one goes where f32 leaves it out.
            let up = self.mantissa_bits - mantissa.ilog2();
            let fraction = (mantissa << up) & ((1 << self.mantissa_bits) - 1);
            sign | (1 + BIAS_F32 - self.bias - up) << MANTISSA_BITS_F32 | fraction << shift
        } else {
            sign
        }
    }

    const fn table(&self) -> [f32; 256] {
        let mut table = [0.0; 256];
        let mut stored = 0;
        while stored < 256 {
            table[stored] = f32::from_bits(self.widened(stored as u8));
            stored += 1;
        }
        table
    }

    /// The nearest number of the format, a tie to the even one.
    #[inline]
    fn narrowed(&self, wide: f32) -> u8 {
        if wide.is_nan() {
            return self.nan;
        }
        let magnitude = self.round(wide.abs()).min(self.beyond);
        if magnitude == u32::from(self.nan) {
            return self.nan;
        }
        (wide.to_bits() >> 31 << 7) as u8 | magnitude as u8
    }

    /// The pattern without sign, as if exponents went on.
    #[inline]
    fn round(&self, wide: f32) -> u32 {
        let least_normal = f32::from_bits((BIAS_F32 + 1 - self.bias) << MANTISSA_BITS_F32);
        if wide < least_normal {
            // Added to this, a subnormal's last place is the sum's last place: the addition rounds.
            let place = BIAS_F32 + 1 - self.bias - self.mantissa_bits;
            let magic = f32::from_bits((place + MANTISSA_BITS_F32) << MANTISSA_BITS_F32);
            return (wide + magic).to_bits() - magic.to_bits();
        }
        let bits = wide.to_bits() - ((BIAS_F32 - self.bias) << MANTISSA_BITS_F32);
        let shift = MANTISSA_BITS_F32 - self.mantissa_bits;
        let is_odd = bits >> shift & 1;
        // Just under half, or half if the last kept bit is 1, carries exactly when rounding up is right.
        (bits + (1 << (shift - 1)) - 1 + is_odd) >> shift
    }
}

macro_rules! float8 {
    ($(#[$doc:meta])* $name:ident, $format:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(transparent)]
        pub struct $name(pub u8);

        impl $name {
            /// The same value as an f32; exact. Every NaN becomes the canonical one.
            #[inline]
            pub fn to_f32(self) -> f32 {
                static TABLE: [f32; 256] = $format.table();
                TABLE[usize::from(self.0)]
            }

            /// The nearest value, a tie to the even one. See the module for numbers that are too large.
            #[inline]
            pub fn from_f32(wide: f32) -> Self {
                Self($format.narrowed(wide))
            }
        }
    };
}

float8! {
    /// 8-bit float with 4 bits of exponent and 3 of mantissa: "e4m3fn". Compare values, not bits.
    F8E4M3, E4M3
}
float8! {
    /// 8-bit float with 5 bits of exponent and 2 of mantissa: the upper half of an f16. Compare values, not bits.
    F8E5M2, E5M2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value by the specification's formula, in f64; infinities and NaN by name.
    fn value(stored: u8, e4m3: bool) -> f64 {
        let (mantissa_bits, bias) = if e4m3 { (3, 7) } else { (2, 15) };
        let (exponent, mantissa) =
            (i32::from(stored & 0x7F) >> mantissa_bits, stored & ((1 << mantissa_bits) - 1));
        let sign = if stored >= 0x80 { -1.0 } else { 1.0 };
        let fraction = f64::from(mantissa) / f64::from(1 << mantissa_bits);
        match (e4m3, stored & 0x7F) {
            (true, 0x7F) | (false, 0x7D..) => f64::NAN,
            (false, 0x7C) => sign * f64::INFINITY,
            _ if exponent == 0 => sign * fraction * 2.0_f64.powi(1 - bias),
            _ => sign * (1.0 + fraction) * 2.0_f64.powi(exponent - bias),
        }
    }

    fn wide(stored: u8, e4m3: bool) -> f32 {
        if e4m3 { F8E4M3(stored).to_f32() } else { F8E5M2(stored).to_f32() }
    }

    fn narrow(wide: f32, e4m3: bool) -> u8 {
        if e4m3 { F8E4M3::from_f32(wide).0 } else { F8E5M2::from_f32(wide).0 }
    }

    #[test]
    fn every_pattern_has_the_value_of_the_specification_and_comes_back() {
        for (stored, e4m3) in (0..=255).flat_map(|stored| [(stored, true), (stored, false)]) {
            let (expected, found) = (value(stored, e4m3), wide(stored, e4m3));
            if expected.is_nan() {
                assert_eq!(found.to_bits(), 0x7FC0_0000, "{stored:#x}");
                assert_eq!(narrow(found, e4m3), if e4m3 { 0x7F } else { 0x7E });
            } else {
                assert_eq!(f64::from(found).to_bits(), expected.to_bits(), "{stored:#x} {e4m3}");
                assert_eq!(narrow(found, e4m3), stored, "{stored:#x} {e4m3}");
            }
        }
        assert_eq!((value(0x7E, true), value(0x7B, false)), (448.0, 57344.0));
    }

    /// By comparing distances to all finite values, and to the first one beyond them.
    fn nearest(wide: f32, e4m3: bool) -> u8 {
        let (last, beyond, above) = if e4m3 { (0x7E, 0x7F, 480.0) } else { (0x7B, 0x7C, 65536.0) };
        let sign = if wide.is_sign_negative() { 0x80 } else { 0 };
        let target = f64::from(wide.abs());
        let candidates = (0..=last).map(|s| (s, value(s, e4m3))).chain([(beyond, above)]);
        let closer = |a: &(u8, f64), b: &(u8, f64)| {
            let distance = |x: f64| (x - target).abs();
            distance(a.1).total_cmp(&distance(b.1)).then((a.0 & 1).cmp(&(b.0 & 1)))
        };
        let found = candidates.min_by(closer).map(|found| found.0).unwrap();
        let is_beyond = found == beyond || target > above;
        match (is_beyond, e4m3) {
            (false, _) => sign | found,
            (true, true) => 0x7F,
            (true, false) => sign | 0x7C,
        }
    }

    /// Rounding only ever changes at the middle between two neighbours: the middles and what lies next to them, and a
    /// sweep over everything else.
    #[test]
    fn rounding_is_to_nearest_even_everywhere() {
        for e4m3 in [true, false] {
            let last = if e4m3 { 0x7E } else { 0x7B };
            let above = if e4m3 { 480.0 } else { 65536.0 };
            let values: Vec<f64> = (0..=last).map(|s| value(s, e4m3)).chain([above]).collect();
            let middles = values.windows(2).map(|pair| ((pair[0] + pair[1]) / 2.0) as f32);
            let near =
                middles.flat_map(|middle| [-1, 0, 1].map(|by| middle.to_bits().wrapping_add_signed(by)));
            let sweep =
                (0..1 << 15).flat_map(|high: u32| [0, 1, 0x7FFF, 0x8000, 0xFFFF].map(|low| high << 16 | low));
            for bits in near.chain(sweep) {
                for wide in [f32::from_bits(bits), -f32::from_bits(bits)] {
                    let expected = match wide.is_nan() {
                        true if e4m3 => 0x7F,
                        true => 0x7E,
                        false => nearest(wide, e4m3),
                    };
                    assert_eq!(narrow(wide, e4m3), expected, "{wide:e} ({bits:#x}) {e4m3}");
                }
            }
        }
    }

    #[test]
    fn numbers_that_are_too_large_show() {
        assert_eq!(
            (narrow(464.0, true), narrow(464.1, true), narrow(f32::NEG_INFINITY, true)),
            (0x7E, 0x7F, 0x7F)
        );
        assert_eq!(
            (narrow(61439.0, false), narrow(61440.0, false), narrow(-1e30, false)),
            (0x7B, 0x7C, 0xFC)
        );
    }
}
