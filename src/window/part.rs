//! One rank's part of a window over messages, without the messages: heads that came go in, what is to be done about them
//! comes out. Real and simulated ranks carry it out.

use super::head::Head;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use ubccl_core::{Element, Error, Rank, Result};

/// The part, and what this rank has asked others for.
#[derive(Debug)]
pub(crate) struct Part<T: Element> {
    elements: Vec<T>,
    peers: Vec<Peer>,
    /// What came for gets, by peer and number.
    replies: BTreeMap<(Rank, u64), Vec<T>>,
}

/// One rank of the window, as another sees it.
#[derive(Clone, Debug, Default)]
struct Peer {
    /// What it has signalled.
    signalled: u64,
    /// The lengths of the gets that it has not answered, in order, and how many it has.
    asked: VecDeque<usize>,
    answered: u64,
    /// How many flushes were asked for, and how many it has answered.
    flushes: u64,
    flushed: u64,
}

/// What a head asks a rank to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Deed<T> {
    /// Nothing more.
    Nothing,
    /// To receive the data that follow, for [`Part::write`].
    ReceivePut(Range<usize>),
    /// To receive so many elements that follow, for [`Part::reply`].
    ReceiveReply(usize),
    /// To send this back.
    Answer(Head),
    /// To send this back and the data after it.
    AnswerData(Head, Vec<T>),
    /// To receive nothing more.
    Stop,
}

impl<T: Element> Part<T> {
    /// A part of so many elements, zeroed, in a window of so many ranks.
    pub(crate) fn new(ranks: u32, count: usize) -> Self {
        let peers = vec![Peer::default(); ranks as usize];
        Part { elements: vec![T::zeroed(); count], peers, replies: BTreeMap::new() }
    }

    /// What a head asks for.
    ///
    /// Errors: Internal, if it makes no sense: what a peer says is not believed.
    pub(crate) fn hear(&mut self, source: Rank, words: &[u64]) -> Result<Deed<T>> {
        let nonsense =
            || Error::internal(format!("rank {source} says {words:?} in a window, which cannot be"));
        let peer = &mut self.peers[source as usize];
        Ok(match Head::decode(words).ok_or_else(nonsense)? {
            Head::Put { offset, count } => {
                Deed::ReceivePut(range(self.elements.len(), offset, count).ok_or_else(nonsense)?)
            }
            Head::Signal { by } => {
                peer.signalled = peer.signalled.wrapping_add(by);
                Deed::Nothing
            }
            Head::Get { offset, count } => {
                let range = range(self.elements.len(), offset, count).ok_or_else(nonsense)?;
                Deed::AnswerData(Head::Reply { count }, self.elements[range].to_vec())
            }
            Head::Reply { count } => {
                let asked = peer.asked.front().filter(|&&asked| asked as u64 == count);
                Deed::ReceiveReply(*asked.ok_or_else(nonsense)?)
            }
            Head::Flush => Deed::Answer(Head::Flushed),
            Head::Flushed if peer.flushed == peer.flushes => return Err(nonsense()),
            Head::Flushed => {
                peer.flushed += 1;
                Deed::Nothing
            }
            Head::Stop => Deed::Stop,
        })
    }

    /// Writes elements, from one that exists on.
    pub(crate) fn write(&mut self, offset: usize, data: &[T]) {
        self.elements[offset..offset + data.len()].copy_from_slice(data);
    }

    /// Elements that exist.
    pub(crate) fn read(&self, offset: usize, count: usize) -> &[T] {
        &self.elements[offset..offset + count]
    }

    /// This rank signals itself.
    pub(crate) fn signal_own(&mut self, rank: Rank, by: u64) {
        let peer = &mut self.peers[rank as usize];
        peer.signalled = peer.signalled.wrapping_add(by);
    }

    pub(crate) fn signalled(&self, from: Rank) -> u64 {
        self.peers[from as usize].signalled
    }

    /// A get of so many elements is sent to a peer; its number.
    pub(crate) fn ask(&mut self, peer: Rank, count: usize) -> u64 {
        let peer = &mut self.peers[peer as usize];
        peer.asked.push_back(count);
        peer.answered + peer.asked.len() as u64
    }

    /// The data of a peer's answer have come.
    pub(crate) fn reply(&mut self, source: Rank, data: Vec<T>) {
        let peer = &mut self.peers[source as usize];
        peer.asked.pop_front();
        peer.answered += 1;
        self.replies.insert((source, peer.answered), data);
    }

    /// What came for a get, if it has.
    pub(crate) fn take_reply(&mut self, peer: Rank, number: u64) -> Option<Vec<T>> {
        self.replies.remove(&(peer, number))
    }

    /// A flush is sent to a peer; its number.
    pub(crate) fn ask_flush(&mut self, peer: Rank) -> u64 {
        let peer = &mut self.peers[peer as usize];
        peer.flushes += 1;
        peer.flushes
    }

    pub(crate) fn is_flushed(&self, peer: Rank, number: u64) -> bool {
        self.peers[peer as usize].flushed >= number
    }
}

/// Elements of a part, if they are there.
fn range(len: usize, offset: u64, count: u64) -> Option<Range<usize>> {
    let end = offset.checked_add(count).filter(|&end| end <= len as u64)?;
    Some(offset as usize..end as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part() -> Part<u16> {
        Part::new(3, 10)
    }

    #[test]
    fn what_is_not_in_a_part_has_no_range() {
        assert_eq!(range(10, 4, 6), Some(4..10));
        assert_eq!(range(10, 10, 0), Some(10..10));
        for (offset, count) in [(4, 7), (11, 0), (u64::MAX, 1), (1, u64::MAX)] {
            assert_eq!(range(10, offset, count), None);
        }
    }

    #[test]
    fn a_put_is_received_and_a_get_answered() {
        let mut part = part();
        let put = Head::Put { offset: 3, count: 2 }.encode();
        assert_eq!(part.hear(1, &put).expect("it makes sense"), Deed::ReceivePut(3..5));
        part.write(3, &[7, 8]);
        let get = Head::Get { offset: 2, count: 4 }.encode();
        let answer = Deed::AnswerData(Head::Reply { count: 4 }, vec![0, 7, 8, 0]);
        assert_eq!(part.hear(2, &get).expect("it makes sense"), answer);
    }

    #[test]
    fn answers_belong_to_questions_in_order() {
        let mut part = part();
        let (first, second) = (part.ask(1, 4), part.ask(1, 5));
        let reply = |part: &mut Part<u16>, count| part.hear(1, &Head::Reply { count }.encode());
        assert!(reply(&mut part, 5).is_err(), "the first asked for 4");
        assert_eq!(reply(&mut part, 4).expect("it makes sense"), Deed::ReceiveReply(4));
        part.reply(1, vec![1; 4]);
        assert_eq!(reply(&mut part, 5).expect("it makes sense"), Deed::ReceiveReply(5));
        part.reply(1, vec![2; 5]);
        assert!(reply(&mut part, 5).is_err(), "nobody asked");
        assert_eq!(part.take_reply(1, second), Some(vec![2; 5]));
        assert_eq!(part.take_reply(1, first), Some(vec![1; 4]));
        assert_eq!(part.take_reply(1, first), None);
    }

    #[test]
    fn signals_count_up_by_rank() {
        let mut part = part();
        part.hear(1, &Head::Signal { by: 3 }.encode()).expect("it makes sense");
        part.hear(1, &Head::Signal { by: 2 }.encode()).expect("it makes sense");
        part.signal_own(2, 1);
        assert_eq!([0, 1, 2].map(|rank| part.signalled(rank)), [0, 5, 1]);
    }

    #[test]
    fn nonsense_is_refused() {
        let mut part = part();
        let flush = part.ask_flush(1);
        assert!(!part.is_flushed(1, flush));
        part.hear(1, &Head::Flushed.encode()).expect("it was asked for");
        assert!(part.is_flushed(1, flush));
        let heads = [
            Head::Flushed,
            Head::Put { offset: 9, count: 2 },
            Head::Get { offset: u64::MAX, count: 1 },
            Head::Reply { count: 0 },
        ];
        for head in heads {
            let error = part.hear(1, &head.encode()).unwrap_err();
            assert!(error.to_string().contains("rank 1 says"), "{error}");
        }
        assert!(part.hear(0, &[9, 9, 9, 9]).is_err());
    }
}
