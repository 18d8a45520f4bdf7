//! Pending work in small arrays: what waits on a lane, in which order on a channel, and which channels to look at.

use ubccl_core::plan::{MAX_WINDOW, MAX_WINDOW_PER_PEER};

/// The most posts of a lane that wait at once.
pub(crate) const MAX_PENDING: usize = MAX_WINDOW as usize;
/// The most of them that wait for one peer.
pub(crate) const MAX_PENDING_PER_PEER: usize = MAX_WINDOW_PER_PEER as usize;

/// Numbers in a word, and words in a table: one more word tells which of them have what is looked for.
const WORD: usize = 64;
const WORDS: usize = MAX_PENDING.div_ceil(WORD);
const _: () = assert!(WORDS <= WORD, "a word tells of that many others at most");

/// The pending posts of one lane, each with a number below [`MAX_PENDING`].
#[derive(Debug)]
pub(crate) struct Table<T> {
    /// Which words of `live` are not 0.
    used: u64,
    /// Which words of `live` have no number left.
    full: u64,
    /// A bit for each number that is taken.
    live: [u64; WORDS],
    /// Room for all is asked for at the start, and costs memory only where it was ever used.
    items: Vec<Option<T>>,
}

impl<T> Table<T> {
    pub(crate) fn new() -> Self {
        Table { used: 0, full: 0, live: [0; WORDS], items: Vec::with_capacity(MAX_PENDING) }
    }

    /// The smallest number that is taken and is `from` or more.
    #[inline]
    pub(crate) fn next(&self, from: u16) -> Option<u16> {
        let (word, bit) = (usize::from(from) / WORD, usize::from(from) % WORD);
        let rest = self.live.get(word)? & (u64::MAX << bit);
        if rest != 0 {
            return Some((word * WORD) as u16 + rest.trailing_zeros() as u16);
        }
        // Twice, since all bits of the last word may have to go.
        let later = self.used & (u64::MAX << word << 1);
        let word = (later != 0).then(|| later.trailing_zeros() as usize)?;
        Some((word * WORD) as u16 + self.live[word].trailing_zeros() as u16)
    }

    /// Takes a number, if there is one left.
    #[inline]
    pub(crate) fn insert(&mut self, item: T) -> Option<u16> {
        let word = self.full.trailing_ones() as usize;
        let bits = self.live.get_mut(word)?;
        let bit = bits.trailing_ones() as usize;
        *bits |= 1 << bit;
        self.used |= 1 << word;
        self.full |= u64::from(*bits == u64::MAX) << word;
        let number = word * WORD + bit;
        if number == self.items.len() {
            self.items.push(Some(item));
        } else {
            self.items[number] = Some(item);
        }
        Some(number as u16)
    }

    /// The post with this number.
    #[inline]
    pub(crate) fn get_mut(&mut self, number: u16) -> &mut T {
        self.items[usize::from(number)].as_mut().expect("only live numbers are in queues")
    }

    /// The post with this number.
    #[inline]
    pub(crate) fn get(&self, number: u16) -> &T {
        self.items[usize::from(number)].as_ref().expect("only live numbers are in queues")
    }

    /// Gives the number back.
    #[inline]
    pub(crate) fn remove(&mut self, number: u16) -> T {
        let (word, bit) = (usize::from(number) / WORD, usize::from(number) % WORD);
        self.live[word] &= !(1 << bit);
        self.full &= !(1 << word);
        if self.live[word] == 0 {
            self.used &= !(1 << word);
        }
        self.items[usize::from(number)].take().expect("only live numbers are removed")
    }

    /// Bytes of memory that was ever used.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.items)
    }

    pub(crate) fn clear(&mut self) {
        (self.used, self.full, self.live) = (0, 0, [0; WORDS]);
        self.items.clear();
    }
}

/// The numbers of the posts that wait on one channel, first come first served.
#[derive(Clone, Debug)]
pub(crate) struct Fifo {
    numbers: [u16; MAX_PENDING_PER_PEER],
    head: u8,
    len: u8,
}

impl Fifo {
    pub(crate) const fn new() -> Self {
        Fifo { numbers: [0; MAX_PENDING_PER_PEER], head: 0, len: 0 }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Who is first.
    #[inline]
    pub(crate) fn front(&self) -> Option<u16> {
        (self.len > 0).then(|| self.numbers[usize::from(self.head)])
    }

    /// Who is last.
    #[inline]
    pub(crate) fn back(&self) -> Option<u16> {
        (self.len > 0).then(|| self.numbers[self.at(self.len - 1)])
    }

    /// Queues a number; `false` if [`MAX_PENDING_PER_PEER`] wait already.
    #[inline]
    #[must_use]
    pub(crate) fn push(&mut self, number: u16) -> bool {
        if usize::from(self.len) == MAX_PENDING_PER_PEER {
            return false;
        }
        let at = self.at(self.len);
        self.numbers[at] = number;
        self.len += 1;
        true
    }

    /// Lets the first one go.
    #[inline]
    pub(crate) fn pop(&mut self) {
        debug_assert!(self.len > 0);
        self.head = (self.head + 1) % MAX_PENDING_PER_PEER as u8;
        self.len -= 1;
    }

    pub(crate) fn clear(&mut self) {
        (self.head, self.len) = (0, 0);
    }

    #[inline]
    fn at(&self, place: u8) -> usize {
        (usize::from(self.head) + usize::from(place)) % MAX_PENDING_PER_PEER
    }
}

/// A set of small numbers.
#[derive(Debug)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    /// An empty set of numbers below `len`.
    pub(crate) fn new(len: usize) -> Self {
        Bits(vec![0; len.div_ceil(64)])
    }

    #[inline]
    pub(crate) fn insert(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    #[inline]
    pub(crate) fn remove(&mut self, number: usize) {
        self.0[number / 64] &= !(1 << (number % 64));
    }

    pub(crate) fn clear(&mut self) {
        self.0.fill(0);
    }

    /// The smallest member that is `from` or more.
    #[inline]
    pub(crate) fn next(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = self.0.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.0.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_holds_a_window_and_no_more() {
        let mut table = Table::new();
        for number in 0..MAX_PENDING {
            assert_eq!(table.insert(number), Some(number as u16));
        }
        assert_eq!(table.insert(99), None);
        for number in [17, 64, MAX_PENDING - 1] {
            assert_eq!(table.remove(number as u16), number);
            assert_eq!(table.insert(99), Some(number as u16));
            assert_eq!(*table.get(number as u16), 99);
        }
        table.clear();
        assert_eq!(table.next(0), None);
        assert_eq!(table.insert(5), Some(0));
    }

    #[test]
    fn a_table_gives_its_numbers_in_order() {
        let mut table = Table::new();
        (0..MAX_PENDING).for_each(|number| assert!(table.insert(number).is_some()));
        let kept = [0, 1, 63, 64, 127, 128, 2000, MAX_PENDING - 1];
        for number in (0..MAX_PENDING).filter(|number| !kept.contains(number)) {
            table.remove(number as u16);
        }
        let (mut found, mut from) = (Vec::new(), 0);
        while let Some(number) = table.next(from) {
            found.push(usize::from(number));
            from = number + 1;
        }
        assert_eq!(found, kept);
        assert_eq!(table.next(MAX_PENDING as u16), None);
    }

    #[test]
    fn a_queue_refuses_what_is_beyond_its_peers_window() {
        let mut queue = Fifo::new();
        assert!((0..MAX_PENDING_PER_PEER as u16).all(|number| queue.push(number)));
        assert!(!queue.push(7));
        queue.pop();
        assert!(queue.push(7));
        assert_eq!((queue.front(), queue.back()), (Some(1), Some(7)));
    }

    #[test]
    fn a_queue_keeps_order_over_many_turns() {
        let mut queue = Fifo::new();
        let mut expected = std::collections::VecDeque::new();
        for turn in 0..1000_u32 {
            let number = (turn * 7 % 4096) as u16;
            if expected.len() < MAX_PENDING_PER_PEER {
                assert!(queue.push(number));
                expected.push_back(number);
            }
            if turn % 3 != 0 {
                queue.pop();
                expected.pop_front();
            }
            assert_eq!(queue.front(), expected.front().copied());
            assert_eq!(queue.back(), expected.back().copied());
            assert_eq!(queue.is_empty(), expected.is_empty());
        }
    }

    #[test]
    fn bits_are_found_across_words() {
        let mut bits = Bits::new(200);
        for number in [0, 63, 64, 130, 199] {
            bits.insert(number);
        }
        bits.remove(64);
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(number) = bits.next(from) {
            found.push(number);
            from = number + 1;
        }
        assert_eq!(found, [0, 63, 130, 199]);
        assert_eq!(bits.next(200), None);
        assert_eq!(bits.next(1000), None);
    }
}
