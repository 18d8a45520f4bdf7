//! The segments of a phantom region: found by the page they begin in, linked in order.
//!
//! A list would have its tail moved by each cut, and a tree takes a walk from its root that a world of many ranks waits
//! for memory in. Here a region has about as many pages, of equal length, as segments: who looks for an element reads
//! its page's entry and the segment, mostly in one cache line each.

use super::runs::Content;
use super::slab::{NONE, Slab};
use ubccl_core::prefetch::prefetch_at;
use ubccl_core::symbolic::Value;

/// Pages are made smaller where more segments than this begin in one,
const CROWD: usize = 8;
/// as long as there are fewer than so many pages for each segment.
const MOST_PAGES: usize = 8;
/// At first, for any region.
const FIRST_PAGES: usize = 2;

/// What stands in a region, from its first element to its last.
#[derive(Debug)]
pub(super) struct Segments {
    len: u64,
    segments: Slab<Segment>,
    /// The one that begins at 0: it is never removed.
    first: u32,
    count: usize,
    /// By page: the first segment that begins in it, or [`NONE`].
    pages: Vec<u32>,
    /// The pages that have one, bit by bit.
    begun: Vec<u64>,
    /// The page of an element is the element without so many bits.
    shift: u32,
}

/// One line of a cache.
#[derive(Debug)]
#[repr(align(64))]
struct Segment {
    start: u64,
    before: u32,
    next: u32,
    content: Content,
}

impl Segments {
    /// Of a region of `len` elements, of which none is known yet: the first segment has to begin at 0.
    pub(super) fn new(len: u64) -> Self {
        let pages = vec![NONE; FIRST_PAGES];
        let shift = shift(len, pages.len());
        Segments { len, segments: Slab::new(), first: NONE, count: 0, pages, begun: vec![0], shift }
    }

    /// How many elements.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// How many segments.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The segment that an element lies in.
    #[inline]
    pub(super) fn find(&self, element: u64) -> u32 {
        if self.count == 1 {
            return self.first;
        }
        let page = (element >> self.shift) as usize;
        let mut at = self.pages[page];
        if at == NONE {
            at = self.pages[self.begun_before(page)];
        } else if self.start(at) > element {
            return self.before(at);
        }
        loop {
            let next = self.next(at);
            if next == NONE || self.start(next) > element {
                return at;
            }
            at = next;
        }
    }

    /// Has the entry of an element's page fetched.
    pub(super) fn foresee_page(&self, element: u64) {
        if self.count > 1 {
            prefetch_at(&self.pages, (element >> self.shift) as usize);
        }
    }

    /// Has the first segment fetched that begins in an element's page, a while later.
    pub(super) fn foresee(&self, element: u64) {
        if self.count == 1 {
            self.segments.foresee(self.first);
        } else if let Some(&first) = self.pages.get((element >> self.shift) as usize) {
            self.segments.foresee(first);
        }
    }

    /// Has the segments beside that one fetched, a while later still.
    pub(super) fn foresee_beside(&self, element: u64) {
        if let Some(&first) = self.pages.get((element >> self.shift) as usize)
            && first != NONE
        {
            let Segment { before, next, .. } = self.segments[first];
            self.segments.foresee(before);
            self.segments.foresee(next);
        }
    }

    /// The last page before this one that a segment begins in; one begins in the first page.
    fn begun_before(&self, page: usize) -> usize {
        let mut word = page / 64;
        let mut bits = self.begun[word] & ((1 << (page % 64)) - 1);
        while bits == 0 && word > 0 {
            word -= 1;
            bits = self.begun[word];
        }
        64 * word + bits.checked_ilog2().unwrap_or(0) as usize
    }

    /// A segment's first element.
    #[inline]
    pub(super) fn start(&self, id: u32) -> u64 {
        self.segments[id].start
    }

    /// The one after its last.
    #[inline]
    pub(super) fn end(&self, id: u32) -> u64 {
        match self.next(id) {
            NONE => self.len,
            next => self.start(next),
        }
    }

    /// The segment before, or [`NONE`].
    #[inline]
    pub(super) fn before(&self, id: u32) -> u32 {
        self.segments[id].before
    }

    /// The segment after, or [`NONE`].
    #[inline]
    pub(super) fn next(&self, id: u32) -> u32 {
        self.segments[id].next
    }

    /// What its elements are.
    #[inline]
    pub(super) fn content(&self, id: u32) -> &Content {
        &self.segments[id].content
    }

    #[inline]
    pub(super) fn set_content(&mut self, id: u32, content: Content) {
        self.segments[id].content = content;
    }

    /// Adds one that begins in `before` ([`NONE`] for the first) or at its end; answers which it is.
    pub(super) fn insert(&mut self, before: u32, start: u64, content: Content) -> u32 {
        let next = if before == NONE { NONE } else { self.next(before) };
        let id = self.segments.insert(Segment { start, before, next, content });
        match before {
            NONE => self.first = id,
            _ => self.segments[before].next = id,
        }
        if next != NONE {
            self.segments[next].before = id;
        }
        self.count += 1;
        let is_first = before == NONE || self.page(before) != self.page(id);
        if is_first {
            self.begin(self.page(id), id);
        }
        let pages = self.pages.len();
        if self.count > pages || !is_first && pages < MOST_PAGES * self.count && self.is_crowded(id) {
            self.turn_pages(2 * pages);
        }
        id
    }

    /// Removes a segment: it is the one before's.
    pub(super) fn remove(&mut self, id: u32) {
        let Segment { before, next, .. } = self.segments[id];
        let page = self.page(id);
        if next != NONE {
            self.segments[next].before = before;
        }
        if before != NONE {
            self.segments[before].next = next;
        }
        if self.pages[page] == id {
            if next != NONE && self.page(next) == page {
                self.pages[page] = next;
            } else {
                self.pages[page] = NONE;
                self.begun[page / 64] &= !(1 << (page % 64));
            }
        }
        let content = &mut self.segments[id].content;
        if let Content::Part(..) = content {
            *content = Content::Value(Value::UNWRITTEN); // nobody holds the list for it any more
        }
        self.segments.remove(id);
        self.count -= 1;
    }

    #[inline]
    fn page(&self, id: u32) -> usize {
        (self.start(id) >> self.shift) as usize
    }

    fn begin(&mut self, page: usize, id: u32) {
        self.pages[page] = id;
        self.begun[page / 64] |= 1 << (page % 64);
    }

    /// Whether many segments begin in the page of this one, up to it.
    fn is_crowded(&self, id: u32) -> bool {
        let mut at = self.pages[self.page(id)];
        for _ in 0..CROWD {
            if at == id {
                return false;
            }
            at = self.next(at);
        }
        self.shift > 0
    }

    /// Has so many pages from now on.
    fn turn_pages(&mut self, pages: usize) {
        let mut at = self.pages[0];
        self.shift = shift(self.len, pages);
        self.pages.clear();
        self.pages.resize(pages, NONE);
        self.begun.clear();
        self.begun.resize(pages.div_ceil(64), 0);
        while at != NONE {
            let page = self.page(at);
            if self.pages[page] == NONE {
                self.begin(page, at);
            }
            at = self.next(at);
        }
    }
}

/// So many bits of an element's number do not count for its page.
fn shift(len: u64, pages: usize) -> u32 {
    let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
    bits.saturating_sub(pages.ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Random cuts and removals within the first so many elements of a region, against a map by start.
    fn check(len: u64, cut_below: u64) -> usize {
        let content = |start: u64| Content::Value(Value::contribution(0, 1, start));
        let mut segments = Segments::new(len);
        let mut expected = BTreeMap::from([(0, segments.insert(NONE, 0, content(0)))]);
        let mut random = 3_u64;
        for _ in 0..3000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let element = (random >> 20) % cut_below;
            let (&start, &id) = expected.range(..=element).next_back().unwrap();
            assert_eq!((segments.find(element), segments.start(id)), (id, start));
            let next = expected.range(element + 1..).next();
            assert_eq!(segments.next(id), next.map_or(NONE, |next| *next.1));
            assert_eq!(segments.end(id), next.map_or(len, |next| *next.0));
            segments.foresee_page(element);
            segments.foresee(element);
            segments.foresee_beside(element);
            if start < element {
                expected.insert(element, segments.insert(id, element, content(element)));
            } else if start > 0 && random >> 63 == 0 {
                assert_eq!(segments.before(id), *expected.range(..start).next_back().unwrap().1);
                expected.remove(&start);
                segments.remove(id);
            }
        }
        assert_eq!(segments.count(), expected.len());
        segments.pages.len()
    }

    #[test]
    fn segments_are_found_wherever_they_begin() {
        for len in [1 << 10, 1 << 30, u64::MAX] {
            check(len, len);
        }
    }

    #[test]
    fn crowded_pages_become_smaller() {
        assert!(check(1 << 20, 4000) > 2 * check(1 << 20, 1 << 20));
    }
}
