//! What a random program is, what every rank does in it, and how it reads.

use crate::support::Random;
use crate::support::ranks::Case;
use std::collections::BTreeMap;
use std::fmt;
use ubccl::DataType;

/// A world and the steps its ranks make in lock step. Who is not in a step's communicator skips it.
#[derive(Debug)]
pub struct Program {
    pub seed: u64,
    pub ranks: usize,
    /// The ranks of the world that are in each communicator, in its order; the first is the world itself.
    pub members: Vec<Vec<usize>>,
    pub steps: Vec<Step>,
}

/// One thing that all ranks of a communicator do.
#[derive(Debug)]
pub struct Step {
    pub on: usize,
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    Create(Creation),
    Call(Checked),
    Group(Bundle),
    Tagged(Bundle),
}

/// How communicators come from another.
#[derive(Clone, Debug)]
pub enum Form {
    /// Colour and key of each rank.
    Colours(Vec<(Option<u32>, i64)>),
    List(Vec<u32>),
    Duplicate,
}

#[derive(Debug)]
pub struct Creation {
    pub form: Form,
    /// Which of the program's communicators each rank of the parent gets.
    pub made: Vec<Option<usize>>,
}

/// A call with data, and what the oracle says of every rank's output.
#[derive(Debug)]
pub struct Checked {
    pub case: Case,
    pub expected: Vec<Vec<u8>>,
}

/// Messages and collectives of a group, or tagged messages.
#[derive(Debug)]
pub struct Bundle {
    pub messages: Vec<Message>,
    pub calls: Vec<Checked>,
    /// Of the order in which each rank lists its parts.
    pub seed: u64,
    /// Whether tagged messages are received one by one instead of all at once.
    pub is_blocking: bool,
}

/// A message; those of a pair and a tag come in the order listed.
#[derive(Debug)]
pub struct Message {
    pub from: usize,
    pub to: usize,
    pub tag: Tag,
    pub dtype: DataType,
    pub bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tag {
    None,
    Named(u32),
    /// Received from whoever sends it.
    Any(u32),
}

/// One rank's part in a bundle, by its place in the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Send(usize),
    Receive(usize),
    Call(usize),
}

impl Program {
    pub fn members_of(&self, step: &Step) -> &[usize] {
        &self.members[step.on]
    }

    /// The program up to a step and with it.
    pub fn text(&self, last: usize) -> String {
        let mut text = format!("program {}: {} ranks\n", self.seed, self.ranks);
        for (number, step) in self.steps.iter().enumerate().take(last + 1) {
            text += &format!("  {number:2}. on {}: {}\n", step.on, step.what);
            if let What::Create(creation) = &step.what {
                let mut made: Vec<usize> = creation.made.iter().flatten().copied().collect();
                made.sort_unstable();
                made.dedup();
                made.iter().for_each(|&made| text += &format!("      {made} = {:?}\n", self.members[made]));
            }
        }
        text
    }
}

impl Bundle {
    /// A rank's parts in an order of its own; messages of a pair and a tag stay in order, and so do collectives.
    pub fn order(&self, rank: usize) -> Vec<Part> {
        let mut random = Random(self.seed ^ (rank as u64) << 32);
        let mut lines: BTreeMap<(u8, usize, Tag), Vec<Part>> = BTreeMap::new();
        for (index, message) in self.messages.iter().enumerate() {
            if message.from == rank {
                lines.entry((0, message.to, message.tag)).or_default().push(Part::Send(index));
            }
            if message.to == rank {
                lines.entry((1, message.from, message.tag)).or_default().push(Part::Receive(index));
            }
        }
        if !self.calls.is_empty() {
            lines.insert((2, 0, Tag::None), (0..self.calls.len()).map(Part::Call).collect());
        }
        let mut lines: Vec<_> = lines.into_values().map(Vec::into_iter).collect();
        let mut merged = Vec::new();
        while !lines.is_empty() {
            let line = random.below(lines.len() as u64) as usize;
            match lines[line].next() {
                Some(part) => merged.push(part),
                None => drop(lines.swap_remove(line)),
            }
        }
        merged
    }

    /// Checks what came to a rank's receives from any rank: everything of each sender, in the order sent.
    pub fn check_any(&self, rank: usize, came: &[(usize, Vec<u8>)]) {
        let is_any = |message: &&Message| matches!(message.tag, Tag::Any(_)) && message.to == rank;
        let senders: std::collections::BTreeSet<usize> =
            self.messages.iter().filter(is_any).map(|message| message.from).collect();
        for sender in senders {
            let sent = self.messages.iter().filter(is_any).filter(|message| message.from == sender);
            let sent: Vec<&Vec<u8>> = sent.map(|message| &message.bytes).collect();
            let got: Vec<&Vec<u8>> = came.iter().filter(|got| got.0 == sender).map(|got| &got.1).collect();
            assert!(sent == got, "rank {rank} did not get from any rank what rank {sender} sent, in order");
        }
        assert_eq!(came.len(), self.messages.iter().filter(is_any).count(), "messages from any rank");
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Create(Creation { form: Form::Colours(wishes), .. }) => {
                write!(f, "split (colour, key) {wishes:?}")
            }
            What::Create(Creation { form: Form::List(list), .. }) => write!(f, "split_ranks {list:?}"),
            What::Create(Creation { form: Form::Duplicate, .. }) => write!(f, "duplicate"),
            What::Call(call) => call.fmt(f),
            What::Group(bundle) => write!(f, "group of {bundle}"),
            What::Tagged(bundle) if bundle.is_blocking => write!(f, "tagged, one by one, {bundle}"),
            What::Tagged(bundle) => write!(f, "tagged, at once, {bundle}"),
        }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { call, dtype, count, in_place, skew, .. } = &self.case;
        let place = if *in_place { "in place" } else { "apart" };
        write!(f, "{call:?} count {count} {dtype:?} {place} skew {skew}")
    }
}

impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Message { from, to, tag, dtype, bytes, .. } in &self.messages {
            let tag = if *tag == Tag::None { String::new() } else { format!(" {tag:?}") };
            write!(f, "[{from}->{to}{tag} {} bytes {dtype:?}] ", bytes.len())?;
        }
        self.calls.iter().try_for_each(|call| write!(f, "[{call}] "))
    }
}
