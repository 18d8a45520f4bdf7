//! Pending work in small arrays: what waits on a lane, in which order on a channel, and which channels to look at.

use ubccl_core::plan::MAX_WINDOW;

/// The most posts of a lane that wait at once.
pub(crate) const MAX_PENDING: usize = MAX_WINDOW as usize;

/// The pending posts of one lane, each with a number below [`MAX_PENDING`].
#[derive(Debug)]
pub(crate) struct Table<T> {
    live: u64,
    items: Vec<Option<T>>,
}

impl<T> Table<T> {
    pub(crate) fn new() -> Self {
        Table { live: 0, items: (0..MAX_PENDING).map(|_| None).collect() }
    }

    /// A bit for each number that is taken.
    #[inline]
    pub(crate) fn live(&self) -> u64 {
        self.live
    }

    /// Takes a number, if there is one left.
    #[inline]
    pub(crate) fn insert(&mut self, item: T) -> Option<u8> {
        let free = self.live.trailing_ones();
        if free as usize >= MAX_PENDING {
            return None;
        }
        self.live |= 1 << free;
        self.items[free as usize] = Some(item);
        Some(free as u8)
    }

    /// The post with this number.
    #[inline]
    pub(crate) fn get_mut(&mut self, number: u8) -> &mut T {
        self.items[usize::from(number)].as_mut().expect("only live numbers are in queues")
    }

    /// The post with this number.
    #[inline]
    pub(crate) fn get(&self, number: u8) -> &T {
        self.items[usize::from(number)].as_ref().expect("only live numbers are in queues")
    }

    /// Gives the number back.
    #[inline]
    pub(crate) fn remove(&mut self, number: u8) -> T {
        self.live &= !(1 << number);
        self.items[usize::from(number)].take().expect("only live numbers are removed")
    }

    pub(crate) fn clear(&mut self) {
        self.live = 0;
        self.items.fill_with(|| None);
    }
}

/// The numbers of the posts that wait on one channel, first come first served.
#[derive(Clone, Debug)]
pub(crate) struct Fifo {
    numbers: [u8; MAX_PENDING],
    head: u8,
    len: u8,
}

impl Fifo {
    pub(crate) const fn new() -> Self {
        Fifo { numbers: [0; MAX_PENDING], head: 0, len: 0 }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Who is first.
    #[inline]
    pub(crate) fn front(&self) -> Option<u8> {
        (self.len > 0).then(|| self.numbers[usize::from(self.head)])
    }

    /// Who is last.
    #[inline]
    pub(crate) fn back(&self) -> Option<u8> {
        (self.len > 0).then(|| self.numbers[self.at(self.len - 1)])
    }

    /// Queues a number. Each of at most [`MAX_PENDING`] posts is queued once, so there is room.
    #[inline]
    pub(crate) fn push(&mut self, number: u8) {
        assert!(usize::from(self.len) < MAX_PENDING, "a post is queued twice");
        let at = self.at(self.len);
        self.numbers[at] = number;
        self.len += 1;
    }

    /// Lets the first one go.
    #[inline]
    pub(crate) fn pop(&mut self) {
        debug_assert!(self.len > 0);
        self.head = (self.head + 1) % MAX_PENDING as u8;
        self.len -= 1;
    }

    pub(crate) fn clear(&mut self) {
        (self.head, self.len) = (0, 0);
    }

    #[inline]
    fn at(&self, place: u8) -> usize {
        (usize::from(self.head) + usize::from(place)) % MAX_PENDING
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
            assert_eq!(table.insert(number), Some(number as u8));
        }
        assert_eq!(table.insert(99), None);
        assert_eq!(table.remove(17), 17);
        assert_eq!(table.live().count_zeros(), 1);
        assert_eq!(table.insert(99), Some(17));
        assert_eq!(*table.get(17), 99);
        table.clear();
        assert_eq!(table.live(), 0);
    }

    #[test]
    fn a_queue_keeps_order_over_many_turns() {
        let mut queue = Fifo::new();
        let mut expected = std::collections::VecDeque::new();
        for turn in 0..1000_u32 {
            let number = (turn * 7 % 64) as u8;
            if expected.len() < MAX_PENDING {
                queue.push(number);
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
