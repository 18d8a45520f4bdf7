//! Bytes in memory that others touch at the same time: whole words of one size, atomically, whatever the bytes are.
//!
//! A part of a word is exchanged in it, so its other bytes stay as they are, and no element, which lies in one word, is
//! ever seen half written. Nothing is ordered: that is the business of signals and barriers, hence Relaxed throughout.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a word. No element is longer.
pub(super) const WORD: usize = size_of::<u64>();

/// Writes `data` from byte `begin` on.
pub(super) fn store<'a>(word: impl Fn(usize) -> &'a AtomicU64, begin: usize, data: &[u8]) {
    let (first, whole) = data.split_at(before_words(begin, data.len()));
    if !first.is_empty() {
        splice(word(begin / WORD), begin % WORD, first);
    }
    let (words, last) = whole.as_chunks::<WORD>();
    let next = begin.div_ceil(WORD);
    for (at, &bytes) in words.iter().enumerate() {
        word(next + at).store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
    }
    if !last.is_empty() {
        splice(word(next + words.len()), 0, last);
    }
}

/// Reads what is there from byte `begin` on.
pub(super) fn load<'a>(word: impl Fn(usize) -> &'a AtomicU64, begin: usize, data: &mut [u8]) {
    let (first, whole) = data.split_at_mut(before_words(begin, data.len()));
    if !first.is_empty() {
        extract(word(begin / WORD), begin % WORD, first);
    }
    let (words, last) = whole.as_chunks_mut::<WORD>();
    let next = begin.div_ceil(WORD);
    for (at, bytes) in words.iter_mut().enumerate() {
        *bytes = word(next + at).load(Ordering::Relaxed).to_ne_bytes();
    }
    if !last.is_empty() {
        extract(word(next + words.len()), 0, last);
    }
}

/// How many of `len` bytes from `begin` on belong to a word that begins before them.
fn before_words(begin: usize, len: usize) -> usize {
    (begin.next_multiple_of(WORD) - begin).min(len)
}

/// Exchanges some bytes of a word.
fn splice(word: &AtomicU64, begin: usize, bytes: &[u8]) {
    let with_them = |word: u64| {
        let mut all = word.to_ne_bytes();
        all[begin..begin + bytes.len()].copy_from_slice(bytes);
        u64::from_ne_bytes(all)
    };
    word.update(Ordering::Relaxed, Ordering::Relaxed, with_them);
}

fn extract(word: &AtomicU64, begin: usize, bytes: &mut [u8]) {
    bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes()[begin..][..bytes.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_are_written_and_read_where_they_are_meant_and_nowhere_else(
            background in prop::collection::vec(any::<u64>(), 1..9),
            data in prop::collection::vec(any::<u8>(), 0..64),
            begin in 0_usize..64,
        ) {
            let len = background.len() * WORD;
            let begin = begin.min(len);
            let data = &data[..data.len().min(len - begin)];
            let words: Vec<AtomicU64> = background.iter().copied().map(AtomicU64::new).collect();
            let mut expected: Vec<u8> = background.iter().flat_map(|word| word.to_ne_bytes()).collect();
            expected[begin..begin + data.len()].copy_from_slice(data);

            store(|at| &words[at], begin, data);
            let found: Vec<u8> =
                words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
            prop_assert_eq!(found, expected);

            let mut back = vec![0; data.len()];
            load(|at| &words[at], begin, &mut back);
            prop_assert_eq!(&back[..], data);
        }
    }

    /// Two threads write the two halves of each word, again and again: neither undoes what the other did.
    #[test]
    fn writers_of_one_word_leave_each_other_alone() {
        let words = [const { AtomicU64::new(0) }; 4];
        std::thread::scope(|scope| {
            for half in 0..2 {
                let words = &words;
                scope.spawn(move || {
                    for round in 1..=1000_u32 {
                        for at in 0..words.len() {
                            let (begin, mut back) = (at * WORD + half * 4, [0; 4]);
                            store(|at| &words[at], begin, &round.to_ne_bytes());
                            load(|at| &words[at], begin, &mut back);
                            assert_eq!(u32::from_ne_bytes(back), round);
                        }
                    }
                });
            }
        });
    }
}
