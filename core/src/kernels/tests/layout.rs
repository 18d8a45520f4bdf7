//! Float types by their definitions: decoded and rounded with f64 arithmetic, no conversion of the language or a library.
//!
//! The oracles of other crates' tests include this file too, so it names nothing of ours.
#![allow(dead_code)] // not every test that includes it needs all of it

/// How a float type lays out its bits.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    exponent_bits: u32,
    pub(super) mantissa_bits: u32,
    /// e4m3 has numbers in the highest exponent, and no infinity.
    is_fn: bool,
    nan: u64,
}

/// The layout of a float type by our name for it, none of an integer.
pub(super) fn of(name: &str) -> Option<Layout> {
    let of = |exponent_bits, mantissa_bits, nan| {
        Some(Layout { exponent_bits, mantissa_bits, is_fn: name == "f8e4m3", nan })
    };
    match name {
        "f64" => of(11, 52, 0x7FF8_0000_0000_0000),
        "f32" => of(8, 23, 0x7FC0_0000),
        "bf16" => of(8, 7, 0x7FC0),
        "f16" => of(5, 10, 0x7E00),
        "f8e5m2" => of(5, 2, 0x7E),
        "f8e4m3" => of(4, 3, 0x7F),
        _ => None,
    }
}

impl Layout {
    pub(super) fn bias(self) -> i32 {
        (1 << (self.exponent_bits - 1)) - 1
    }

    pub(super) fn highest_exponent(self) -> u64 {
        (1 << self.exponent_bits) - 1
    }

    pub(super) fn join(self, sign: u64, exponent: u64, mantissa: u64) -> u64 {
        let mantissa = mantissa & ((1 << self.mantissa_bits) - 1);
        ((sign & 1) << self.exponent_bits | exponent) << self.mantissa_bits | mantissa
    }

    /// The value. Exact, as every type fits f64.
    pub(super) fn value(self, bits: u64) -> f64 {
        if self.mantissa_bits == 52 {
            return f64::from_bits(bits);
        }
        let mantissa = bits & ((1 << self.mantissa_bits) - 1);
        let exponent = bits >> self.mantissa_bits & self.highest_exponent();
        let sign = if bits >> (self.mantissa_bits + self.exponent_bits) & 1 == 1 { -1.0 } else { 1.0 };
        let fraction = mantissa as f64 / (1_u64 << self.mantissa_bits) as f64;
        let is_highest = exponent == self.highest_exponent();
        let is_all_ones = mantissa == (1 << self.mantissa_bits) - 1;
        match (is_highest, self.is_fn) {
            (true, true) if is_all_ones => f64::NAN,
            (true, false) if mantissa == 0 => sign * f64::INFINITY,
            (true, false) => f64::NAN,
            _ if exponent == 0 => sign * fraction * power_of_two(1 - self.bias()),
            _ => sign * (1.0 + fraction) * power_of_two(exponent as i32 - self.bias()),
        }
    }

    /// The bits of the nearest value, a tie to even: counted in last places, which is exact in f64.
    pub(super) fn nearest(self, value: f64) -> u64 {
        let sign = u64::from(value.is_sign_negative());
        if value.is_nan() {
            return self.nan;
        }
        if self.mantissa_bits == 52 {
            return value.to_bits();
        }
        if value == 0.0 {
            return self.join(sign, 0, 0);
        }
        let most = f64::from(self.bias() + 1);
        let exponent = value.abs().log2().floor().clamp(f64::from(1 - self.bias()), most) as i32;
        // The logarithm may be one off next to a power of two.
        let exponent = (exponent - 1..=exponent + 1)
            .rev()
            .find(|&e| power_of_two(e) <= value.abs() || e <= 1 - self.bias())
            .unwrap();
        let places = value.abs() / power_of_two(exponent - self.mantissa_bits as i32);
        let pattern = ((exponent - 1 + self.bias()) as u64) << self.mantissa_bits;
        let pattern = pattern + (places.round_ties_even().min(1e15) as u64); // the hidden one counts in the exponent
        let infinity = self.join(0, self.highest_exponent(), 0);
        match self.is_fn {
            true if pattern >= self.nan => self.nan,
            false if pattern >= infinity => infinity | self.join(sign, 0, 0),
            _ => pattern | self.join(sign, 0, 0),
        }
    }
}

/// Exact, for exponents of normal numbers.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}
