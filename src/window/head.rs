//! What the ranks of a window tell each other over messages.

/// The tag of heads.
pub(crate) const HEAD: u32 = 0;
/// The tag of data that follow a head.
pub(crate) const DATA: u32 = 1;
/// Words of a head.
pub(crate) const WORDS: usize = 4;

/// The beginning of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// So many elements follow, to be written from `offset` on.
    Put { offset: u64, count: u64 },
    /// The sender's count of signals goes up.
    Signal { by: u64 },
    /// So many elements from `offset` on are asked for.
    Get { offset: u64, count: u64 },
    /// They follow.
    Reply { count: u64 },
    /// What came before is to be confirmed.
    Flush,
    /// It is.
    Flushed,
    /// To itself: the rank takes nothing more.
    Stop,
}

impl Head {
    pub(crate) fn encode(self) -> Vec<u64> {
        match self {
            Head::Put { offset, count } => vec![0, offset, count, 0],
            Head::Signal { by } => vec![1, by, 0, 0],
            Head::Get { offset, count } => vec![2, offset, count, 0],
            Head::Reply { count } => vec![3, count, 0, 0],
            Head::Flush => vec![4, 0, 0, 0],
            Head::Flushed => vec![5, 0, 0, 0],
            Head::Stop => vec![6, 0, 0, 0],
        }
    }

    pub(crate) fn decode(words: &[u64]) -> Option<Head> {
        Some(match *words {
            [0, offset, count, 0] => Head::Put { offset, count },
            [1, by, 0, 0] => Head::Signal { by },
            [2, offset, count, 0] => Head::Get { offset, count },
            [3, count, 0, 0] => Head::Reply { count },
            [4, 0, 0, 0] => Head::Flush,
            [5, 0, 0, 0] => Head::Flushed,
            [6, 0, 0, 0] => Head::Stop,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_back_and_nothing_else_is_one() {
        let heads = [
            Head::Put { offset: 7, count: u64::MAX },
            Head::Signal { by: 3 },
            Head::Get { offset: 0, count: 9 },
            Head::Reply { count: 1 },
            Head::Flush,
            Head::Flushed,
            Head::Stop,
        ];
        for head in heads {
            let words = head.encode();
            assert_eq!((words.len(), Head::decode(&words)), (WORDS, Some(head)));
        }
        for words in [&[][..], &[4], &[7, 0, 0, 0], &[4, 1, 0, 0], &[0, 1, 2, 3]] {
            assert_eq!(Head::decode(words), None);
        }
    }
}
