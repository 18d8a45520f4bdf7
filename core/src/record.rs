//! What happened in a simulated world, moment by moment: the raw material of traces, pictures and critical paths.
//!
//! Two views of the same events. **Occupations** and **loads** say what each link did when: they make pictures and
//! utilisation. **Stretches** say why things took as long as they did: each begins when its [`Reason`] ends, so that
//! walking the reasons back from an end gives an unbroken chain of times whose parts sum up to the whole.

use crate::collective::Rank;
use crate::endpoint::{Place, Stream};

/// Number of a link in [`Record::links`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// Number of a post in [`Record::posts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PostId(pub u32);

/// Everything that was recorded. Times are virtual picoseconds, counted from the world's beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When recording began.
    pub start_ps: u64,
    /// How many ranks the world has.
    pub ranks: u32,
    /// Levels of the machine, innermost first: what [`At::Level`] counts.
    pub levels: Vec<String>,
    /// Classes of links: what [`Link::class`] counts.
    pub classes: Vec<String>,
    /// The links.
    pub links: Vec<Link>,
    /// What ranks posted, in order.
    pub posts: Vec<Post>,
    /// Messages, in the order in which they were sent.
    pub messages: Vec<Message>,
    /// When a message had a link to itself.
    pub occupations: Vec<Occupation>,
    /// How fast links that messages share were in use, in order of time.
    pub loads: Vec<Load>,
    /// What took time, and why it began when it did.
    pub stretches: Vec<Stretch>,
    /// What went wrong.
    pub incidents: Vec<Incident>,
}

impl Record {
    /// What a link is called.
    pub fn link(&self, link: LinkId) -> String {
        self.links[link.0 as usize].name.clone()
    }

    /// The index of a link's class.
    pub fn class_of(&self, link: LinkId) -> usize {
        usize::from(self.links[link.0 as usize].class)
    }

    /// What a place is called: `rank 3`, `rank 3 out`, `node`.
    pub fn place(&self, at: &At) -> String {
        match *at {
            At::Rank(rank) => format!("rank {rank}"),
            At::Link(link) => self.link(link),
            At::Level(level) => self.levels[usize::from(level)].clone(),
        }
    }
}

/// A link, one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What it is called: `rank 3 out`.
    pub name: String,
    /// Links that are alike: index in [`Record::classes`].
    pub class: u16,
    /// The rank whose port it is, if it is one's.
    pub rank: Option<Rank>,
    /// Bytes per second when it is full, the fastest it can be.
    pub rate_bytes_per_s: u64,
}

/// One post of one rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Post {
    /// Which rank of which communicator.
    pub place: Place,
    /// Which rank of the world that is.
    pub rank: Rank,
    /// Which operation.
    pub stream: Stream,
    /// Which lane.
    pub lane: u8,
    /// What was posted.
    pub kind: PostKind,
    /// The k-th of its place, stream and lane: a lane posts its plan's steps in order, so this is the step's position.
    pub ordinal: u32,
    /// Bytes of one message, or of what is copied or reduced.
    pub bytes: u64,
    /// When.
    pub posted_ps: u64,
    /// When it completed; `None` if it had not.
    pub done_ps: Option<u64>,
    /// Why it completed then.
    pub done_by: Reason,
}

/// What can be posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PostKind {
    /// A send, to any number of peers.
    Send,
    /// A receive.
    Receive,
    /// A receive-reduce.
    ReceiveReduce,
    /// A copy.
    Copy,
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// What sent it.
    pub sent_by: PostId,
    /// What received it, if anything did.
    pub received_by: Option<PostId>,
    /// Ranks of the world.
    pub from: Rank,
    /// Ranks of the world.
    pub to: Rank,
    /// Payload.
    pub bytes: u64,
    /// When its first byte left.
    pub start_ps: u64,
    /// When its last byte had left.
    pub sent_ps: u64,
    /// When its first byte reached the receiver's port; `None` if it was lost.
    pub head_ps: Option<u64>,
    /// When all of it was there, for the receiver to see.
    pub arrived_ps: Option<u64>,
    /// Why it arrived then.
    pub arrived_by: Reason,
}

/// A message has a link to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupation {
    /// The link.
    pub link: LinkId,
    /// Index in [`Record::messages`].
    pub message: u32,
    /// First byte.
    pub from_ps: u64,
    /// Last byte.
    pub until_ps: u64,
}

/// A link that messages share begins to be used at another rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The link.
    pub link: LinkId,
    /// From then on.
    pub at_ps: u64,
    /// Bytes per second of all messages together.
    pub bytes_per_s: u64,
}

/// Something that took time, from the end of its reason on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// What.
    pub what: What,
    /// Where.
    pub at: At,
    /// When it began: when its reason ended.
    pub from_ps: u64,
    /// When it ended.
    pub until_ps: u64,
    /// Why it began then.
    pub reason: Reason,
}

/// Why something happened when it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    /// Nothing that was recorded.
    #[default]
    Unknown,
    /// This post, at its time.
    Posted(PostId),
    /// The end of this stretch: index in [`Record::stretches`].
    After(u32),
}

/// What takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// An engine begins an operation.
    StartUp,
    /// What a rank spends on a message beside its bytes.
    Overhead,
    /// A port lets the least time between two messages pass.
    Gap,
    /// Bytes travel.
    Latency,
    /// Bytes pass a link.
    Serialisation,
    /// Bytes pass a link more slowly than alone, because others pass it too.
    Sharing,
    /// Values are combined.
    Reduction,
    /// Bytes are copied inside a rank.
    Copy,
    /// The rank's program computes.
    Compute,
    /// A rank is waited for: it has not begun, or stands still.
    Waiting,
    /// A fault is got over: bytes are sent again, a link trains.
    Recovery,
}

impl What {
    /// Every one.
    pub const ALL: [What; 11] = [
        What::StartUp,
        What::Overhead,
        What::Gap,
        What::Latency,
        What::Serialisation,
        What::Sharing,
        What::Reduction,
        What::Copy,
        What::Compute,
        What::Waiting,
        What::Recovery,
    ];

    /// The word for tables.
    pub fn name(self) -> &'static str {
        match self {
            What::StartUp => "start-up",
            What::Overhead => "overhead",
            What::Gap => "gap",
            What::Latency => "latency",
            What::Serialisation => "serialisation",
            What::Sharing => "sharing",
            What::Reduction => "reduction",
            What::Copy => "copy",
            What::Compute => "compute",
            What::Waiting => "waiting",
            What::Recovery => "recovery",
        }
    }
}

/// Where something took time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum At {
    /// In this rank of the world.
    Rank(Rank),
    /// On this link.
    Link(LinkId),
    /// On the way between two ranks that share this level and no smaller one.
    Level(u8),
}

/// Something that went wrong, or was made to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Where.
    pub at: At,
    /// When it began.
    pub from_ps: u64,
    /// When it was over, if it ever was.
    pub until_ps: Option<u64>,
    /// What.
    pub text: String,
}
