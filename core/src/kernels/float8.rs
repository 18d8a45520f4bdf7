//! The numbers with which the vector levels convert 8-bit floats by arithmetic, where [`crate::float8`] looks them up.
//!
//! Widening: the pattern without sign, shifted to where f32 has exponent and mantissa, is the value but for the bias,
//! which a multiplication mends, for subnormals too. Narrowing: as in [`crate::float8`], both ways, then one is chosen.

/// One format.
pub(super) struct Float8 {
    /// From its last place to f32's.
    pub(super) shift: i32,
    /// 2 to the difference of the biases.
    pub(super) scale: f32,
    /// The same difference in an f32's exponent.
    pub(super) rebase: i32,
    /// The f32 with its smallest normal number's bits.
    pub(super) least_normal: i32,
    /// The f32 whose last place is a subnormal's last place.
    pub(super) magic: f32,
    /// The first pattern without sign that is no finite number.
    pub(super) beyond: i32,
    /// The canonical NaN.
    pub(super) nan: i32,
}

impl Float8 {
    const fn new(mantissa_bits: u32, bias: u32, beyond: i32, nan: i32) -> Self {
        Float8 {
            shift: 23 - mantissa_bits as i32,
            scale: f32::from_bits((254 - bias) << 23),
            rebase: ((127 - bias) << 23) as i32,
            least_normal: ((128 - bias) << 23) as i32,
            magic: f32::from_bits((151 - bias - mantissa_bits) << 23),
            beyond,
            nan,
        }
    }

    /// Just under half of the last place that is kept.
    pub(super) const fn under_half(&self) -> i32 {
        (1 << (self.shift - 1)) - 1
    }
}

pub(super) const E4M3: Float8 = Float8::new(3, 7, 0x7F, 0x7F);
pub(super) const E5M2: Float8 = Float8::new(2, 15, 0x7C, 0x7E);
