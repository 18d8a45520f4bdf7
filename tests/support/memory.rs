//! Buffers between guard bytes, at any alignment.

const GUARD: usize = 96;
const MARK: u8 = 0xa5;

/// A buffer with guard bytes on both sides.
#[derive(Clone, Debug)]
pub struct Guarded {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Guarded {
    /// `content` at an address that is `skew` bytes off.
    pub fn new(content: &[u8], skew: usize) -> Self {
        let start = GUARD + skew;
        let mut bytes = vec![MARK; start + content.len() + GUARD];
        bytes[start..start + content.len()].copy_from_slice(content);
        Guarded { bytes, start, len: content.len() }
    }

    pub fn get(&self) -> &[u8] {
        &self.bytes[self.start..][..self.len]
    }

    pub fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
    }

    /// Panics if a byte outside was touched.
    pub fn check(&self, what: &str) {
        let outside = self.bytes[..self.start].iter().chain(&self.bytes[self.start + self.len..]);
        assert!(outside.copied().all(|byte| byte == MARK), "{what}: a byte outside the buffer was written");
    }
}
