//! The contracts of a transport: endpoints that take posts and give completions, and worlds of virtual time.

mod world;

use crate::collective::Rank;
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::exchange::Exchange;
use crate::op::ReduceOp;
use crate::plan::PeerRun;
use crate::signature::Signature;
use crate::symbolic::Piece;
use crate::usage::{MemoryKind, Over};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

pub use crate::direct::{DirectCall, DirectLimits, DirectProgress};
pub use crate::one_pass::{OnePass, OnePassCall, OnePassProgress};
pub use crate::usage::Counters;
pub use world::{CommunicatorId, EngineCosts, Fidelity, Machine, Place, World, WorldOptions, WorldStats};

/// Names a piece of memory that was given to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegionId(pub u32);

/// A range of a region, in bytes. Nobody but the memory domain turns it into an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The region.
    pub region: RegionId,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// Memory behind a region.
#[derive(Clone, Debug)]
pub enum Memory {
    /// Real memory: whoever registers it vouches that it stays valid, and is touched by nobody else while a post that
    /// names it is under way.
    Host {
        /// First byte.
        address: HostPointer,
        /// Bytes.
        len: u64,
    },
    /// No bytes, only who contributed what (virtual time only). One element stands for one byte-sized unit of `unit`
    /// bytes; spans are multiples of it.
    Phantom {
        /// Bytes that one symbolic element stands for.
        unit: u32,
        /// What the region holds at first, in order.
        content: Vec<Piece>,
    },
}

/// The address of real memory, as a number that may cross threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostPointer(pub usize);

/// Memory that an endpoint gave out ([`Endpoint::allocate`]); freed when dropped.
pub trait Allocation: std::fmt::Debug + Send + Sync {
    /// Its first byte, at the beginning of a page.
    fn address(&self) -> HostPointer;

    /// Where peers find it ([`Endpoint::find_allocation`]).
    fn place(&self) -> u64;
}

/// Which operation a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// The collective with this sequence number, counted from 1.
    Collective(u64),
    /// Point to point without a tag: the k-th send of a pair meets the k-th receive.
    Direct,
    /// Point to point with this tag. Whoever posts a receive has seen the message's header ([`Endpoint::probe`]):
    /// matching by tag happens above endpoints, which know order only.
    Tagged(u32),
}

/// What every message carries beside its bytes. Its ordinal per pair and lane is implied: lanes keep order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Which operation.
    pub stream: Stream,
    /// Which lane: 0 to `MAX_LANES` − 1 for collectives, [`POINT_TO_POINT_LANE`] and [`TAGGED_LANE`] for the rest.
    pub lane: u8,
    /// What the sender (or receiver) called.
    pub signature: Signature,
    /// Which of the transport's engines does it; none: the first.
    pub engine: Option<u8>,
}

/// The lane of point-to-point messages without a tag.
pub const POINT_TO_POINT_LANE: u8 = crate::plan::MAX_LANES as u8;

/// The lane of tagged messages: one of them that nobody receives yet holds up no other message.
pub const TAGGED_LANE: u8 = POINT_TO_POINT_LANE + 1;

/// The poster's name for a post; comes back when it completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// Something to do.
#[derive(Clone, Copy, Debug)]
pub enum Post {
    /// Send `from` to every peer.
    Send {
        /// What.
        from: Span,
        /// To whom.
        to: PeerRun,
    },
    /// Receive one message of exactly this length.
    Receive {
        /// Where to.
        into: Span,
        /// From whom.
        from: Rank,
    },
    /// Receive one message from each source (an entry that is this rank stands for `own`) and write the reduction in
    /// list order: accumulated wide, rounded once.
    ReceiveReduce {
        /// From whom, in order.
        sources: PeerRun,
        /// This rank's own contribution.
        own: Span,
        /// Where to; may be `own`.
        into: Span,
        /// Element type.
        dtype: DataType,
        /// Operation.
        op: ReduceOp,
    },
    /// Copy within this rank's memory.
    Copy {
        /// What.
        from: Span,
        /// Where to.
        into: Span,
    },
}

/// The answer to a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// Completed already; its token will not come again.
    Done,
    /// Under way; its token will come from [`Endpoint::poll`].
    Pending,
}

/// A message to send or receive at once. Its memory is no region: to give it a name would take as long as a small message.
#[derive(Clone, Copy, Debug)]
pub struct MessageNow {
    /// Who gets it or sent it.
    pub peer: Rank,
    /// Whether this rank sends it.
    pub is_send: bool,
    /// Where it is or goes.
    pub memory: HostPointer,
    /// Bytes.
    pub len: u64,
    /// How often to look for each next piece of one that is received, at least once.
    pub looks: u32,
}

/// What has become of a message that was to go at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Now {
    /// It is done.
    Done,
    /// Nothing was done; it may be worth asking again.
    NotYet,
    /// The beginning of a receive was done, or some more of it. The same has to be asked for again, or posted, before
    /// anything else with that rank on that lane.
    Begun,
    /// Nothing was done, and will be: it is not for doing at once.
    Never,
}

/// What an endpoint saw go wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A message that does not fit what this rank called. No byte of it reached an output.
    Mismatch {
        /// Who sent it.
        peer: Rank,
        /// Its operation.
        theirs: Header,
        /// What this rank expected.
        ours: Header,
    },
    /// The connection to a peer is gone. Evidence, not a cause: somebody knows better why.
    Lost {
        /// The peer.
        peer: Rank,
        /// What was seen.
        message: String,
    },
    /// Anything else.
    Other(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Other(error)
    }
}

/// What a message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which operation.
    pub stream: Stream,
    /// What was called.
    pub signature: Signature,
    /// Bytes of the message.
    pub len: u64,
}

/// The sequence number of a rank that takes nothing any more.
pub const CLOSING: u64 = u64::MAX;

impl Header {
    /// Whether a rank in operation `sequence` with `signature`, which has posted nothing for this message, will never
    /// take it. Point-to-point messages may be taken at any time until the rank closes.
    pub fn is_stale(&self, sequence: u64, signature: Signature) -> bool {
        match self.stream {
            _ if sequence == CLOSING => true,
            Stream::Collective(theirs) => {
                theirs < sequence || theirs == sequence && self.signature != signature
            }
            Stream::Direct | Stream::Tagged(_) => false,
        }
    }
}

/// One rank's side of the links of one transport, together with the memory domain that moves and combines its bytes.
///
/// Contract:
/// 1. `post` and `poll` never block. No free slot, no connection yet, a slow peer: the post waits, it is not refused,
///    as long as a lane has at most `MAX_WINDOW` posts under way, and at most `MAX_WINDOW_PER_PEER` of them with any one
///    peer.
/// 2. Messages of one (sender, receiver, lane) arrive in the order posted; the k-th send meets the k-th receive.
///    Lanes and peers are independent: a message nobody receives yet on one never holds up another.
///    On one of them a message may wait until the post that takes the one before it has completed.
/// 3. A send completes when its source may be overwritten, at the latest when every post that receives it has completed;
///    a receive when its destination may be read.
/// 4. A post whose header differs from the arriving one (stream, signature, length) is a [`Fault::Mismatch`]; no byte
///    of such a message reaches a destination.
/// 5. Zero bytes are a message like any other.
/// 6. `ReceiveReduce` folds in list order, accumulates wide and rounds once; `into` may be `own`. A user's operation sees
///    copies of whole elements; if it panics, that is a [`Fault::Other`] with its error.
/// 7. After `cancel` no region is touched again, and every post is forgotten.
/// 8. Once warm (every peer, lane and size class used once), posting and polling allocate nothing.
/// 9. `inspect` finds an arrived message that no post has taken and that can no longer be taken: of an older
///    operation, of the current one with another signature, or, if the sequence is [`CLOSING`], any
///    ([`Header::is_stale`]).
/// 10. `sleep` returns soon after anything arrives for this rank, after `Wake::wake`, or when its time is up. In virtual
///     time, `World::step` names a rank at which a message without a post arrives on the tagged lane.
/// 11. `probe` tells the header of the next message of a peer on [`TAGGED_LANE`] that no post takes, once it has arrived
///     (a poll may be needed to bring it in), and the next post of a receive from that peer there takes it. It moves
///     nothing and allocates nothing. Of a rank that is not a peer, or itself, nothing arrives.
/// 12. `direct` publishes this rank's input once (after all writers, if it `reads_first`) and, as soon as all writers have
///     published theirs, makes the output: as
///     [`Direct`](crate::direct::Direct) says, folding in the order of ranks, wide, rounded once. It is called again and again, with the same
///     call, until it answers `true`; no other direct call begins before, but posts may be under way. A publication with
///     another header is a [`Fault::Mismatch`]; the input may be overwritten once it answers `true`. 1, 8 and 10 hold for it,
///     publications of one sequence number meet, and a rank that publishes may run ahead of its readers by a few.
/// 13. `message_now` does what `post` would have answered [`Posted::Done`] to, or leaves everything as it was, or begins a
///     receive, which the post after it goes on with.
/// 14. `one_pass` is called again and again, with the same call, until it answers something else than
///     [`OnePass::Pending`]; no direct call and no other of these begins before. All ranks get the same answer. 1, 7, 8 and 10
///     hold for it, and headers are compared as for `direct`.
pub trait Endpoint: Send {
    /// Gives memory a name, replacing what had it.
    ///
    /// # Safety
    /// Host memory must stay valid until the region is replaced or the endpoint is cancelled or dropped, and nobody
    /// else may write a span (or read one that is written) while a post that names it is under way.
    #[expect(unsafe_code, reason = "the caller vouches for memory that outlives this call")]
    unsafe fn register(&mut self, region: RegionId, memory: Memory) -> Result<()>;

    /// Memory of so many bytes, zeroed, that this rank's peers can read and write in place; none if there is no such
    /// memory here, or not as much. It outlives the endpoint if need be, and goes when it is dropped, which its owner does
    /// only when no post names it. Whether memory is of this kind changes how bytes move and nothing else: it is
    /// registered like any other.
    ///
    /// Errors: System, if the host has no more memory.
    fn allocate(&mut self, _bytes: u64) -> Result<Option<Box<dyn Allocation>>> {
        Ok(None)
    }

    /// Memory that a peer allocated, as this rank sees it, for `bytes` bytes from its `place` on; none if there is none.
    /// Both ranks may touch it at any time, by atomic operations only.
    fn find_allocation(
        &mut self,
        _peer: Rank,
        _place: u64,
        _bytes: u64,
    ) -> Result<Option<Box<dyn Allocation>>> {
        Ok(None)
    }

    /// Wakes a peer that sleeps: this rank has written to memory that both know.
    fn notify(&mut self, _peer: Rank) {}

    /// Sleeps as [`Endpoint::sleep`] does, unless `is_there`, which a peer brings about before it notifies this rank.
    fn sleep_unless(&mut self, timeout: Duration, is_there: &dyn Fn() -> bool) -> Result<()> {
        if is_there() { Ok(()) } else { self.sleep(timeout) }
    }

    /// Starts something.
    fn post(&mut self, token: Token, key: &Key, post: &Post) -> Result<Posted, Fault>;

    /// Sends or receives a message if that can be done at once, and otherwise does nothing or the beginning of it.
    ///
    /// # Safety
    /// During the call the memory is valid for `len` bytes, and touched by nobody else if it is written.
    #[expect(unsafe_code, reason = "the caller vouches for memory")]
    unsafe fn message_now(&mut self, _key: &Key, _message: &MessageNow) -> Result<Now, Fault> {
        Ok(Now::Never)
    }

    /// Moves on what can move and appends the tokens of what completed. `true` if anything moved at all.
    fn poll(&mut self, done: &mut Vec<Token>) -> Result<bool, Fault>;

    /// Until it is told otherwise, this rank can do nothing with completions other than these (none: with any), and
    /// `World::step` need not name it for them: it sees them when it polls next. In virtual time only.
    fn heed(&mut self, _wanted: Option<&[Token]>) {}

    /// Looks for messages that can no longer be taken, given the current collective's sequence and signature.
    fn inspect(&mut self, sequence: u64, signature: Signature) -> Result<(), Fault>;

    /// How long publications [`Endpoint::direct`] takes; none, unless it says otherwise.
    fn direct_limits(&self) -> DirectLimits {
        DirectLimits::default()
    }

    /// Goes on with a round of publications; `true` once it is done. Before it looks for what others publish, if it
    /// comes to that, it calls `meanwhile`: what peers need not wait for.
    ///
    /// # Safety
    /// Until it has answered `true` or an error, or the endpoint is cancelled or dropped, the call's input stays valid and
    /// unwritten, and its output is writable and touched by nobody else.
    #[expect(unsafe_code, reason = "the caller vouches for memory that outlives this call")]
    unsafe fn direct(
        &mut self,
        _key: &Key,
        _call: &DirectCall<'_>,
        _progress: &mut DirectProgress,
        _meanwhile: &mut dyn FnMut(),
    ) -> Result<bool, Fault> {
        Err(Error::internal("this endpoint has no publications").into())
    }

    /// From how many bytes of a rank's share on it is worth asking whether an all-reduce can be done in one pass over memory
    /// that the endpoint gave out; none: never. The same on all ranks.
    fn one_pass_from(&self) -> Option<u64> {
        None
    }

    /// Goes on with an all-reduce of which each rank may have its buffers in such memory, or not.
    ///
    /// # Safety
    /// As for [`Endpoint::direct`].
    #[expect(unsafe_code, reason = "the caller vouches for memory that outlives this call")]
    unsafe fn one_pass(
        &mut self,
        _key: &Key,
        _call: &OnePassCall,
        _progress: &mut OnePassProgress,
    ) -> Result<OnePass, Fault> {
        Ok(OnePass::Declined)
    }

    /// The header of the next message of `peer` on [`TAGGED_LANE`] that no post has taken, if it has arrived.
    fn probe(&mut self, peer: Rank) -> Result<Option<Header>, Fault>;

    /// Forgets every post; afterwards no registered memory is touched.
    fn cancel(&mut self);

    /// Waits in the kernel until something may have arrived, or woken, or `timeout` is over.
    fn sleep(&mut self, timeout: Duration) -> Result<()>;

    /// What wakes a sleeper from another thread.
    fn waker(&self) -> Arc<dyn Wake>;

    /// A descriptor that becomes readable when something arrives while [`Endpoint::watch`] is on, if there is one.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Turns the ringing of [`Endpoint::descriptor`] on or off.
    fn watch(&mut self, _on: bool) {}

    /// What it has moved.
    fn counters(&self) -> Counters;

    /// The same in parts, by peer or by level: `each` is called any number of times for one, and the parts sum up to
    /// [`Endpoint::counters`]. One that tells nothing is counted in total only.
    fn count_links(&self, _each: &mut dyn FnMut(Over<'_>, Counters)) {}

    /// What it keeps in memory, in bytes: `each` is called any number of times for a kind.
    fn count_memory(&self, _each: &mut dyn FnMut(MemoryKind, u64)) {}

    /// What a phantom region holds now.
    fn phantom(&self, _region: RegionId) -> Option<Vec<Piece>> {
        None
    }
}

/// Wakes a sleeping endpoint.
pub trait Wake: Send + Sync {
    /// Makes a current or the next `sleep` return.
    fn wake(&self);
}

/// Whether a transport's time is the wall clock's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Real processes, real time.
    Real,
    /// A simulated world in one process, virtual time.
    Virtual,
}

/// How far apart the ranks of a transport may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// All in one process, each in a thread of its own or simulated.
    Process,
    /// In processes of one host, or several of them in a process.
    Host,
}

/// What everybody needs to know about a transport.
#[derive(Debug)]
pub struct TransportDescriptor {
    /// The name, as in `--transport`.
    pub name: &'static str,
    /// Another name, if it has one.
    pub alias: Option<&'static str>,
    /// One line for help and tables.
    pub summary: &'static str,
    /// Its time.
    pub clock: Clock,
    /// Where its ranks may be.
    pub reach: Reach,
}

/// A way to move bytes. A real one implements `connect`, a virtual one `world`.
pub trait Transport: Sync {
    /// Its descriptor.
    fn descriptor(&self) -> &'static TransportDescriptor;

    /// Connects this rank with the others; every rank calls it with the same options.
    fn connect(&self, _exchange: &mut dyn Exchange, _options: &ConnectOptions) -> Result<Box<dyn Endpoint>> {
        Err(Error::unsupported(format!("{} runs in virtual time; use World", self.descriptor().name)))
    }

    /// Makes a world of `ranks` simulated ranks.
    fn world(&self, _options: &WorldOptions) -> Result<Box<dyn World>> {
        Err(Error::unsupported(format!("{} runs in real time; use Communicator", self.descriptor().name)))
    }
}

/// What a real transport may be told.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Lanes that plans will use.
    pub lanes: u8,
    /// Bytes of buffering for each ordered pair of ranks; if not said, what the transport finds good for so many ranks.
    pub pair_bytes: Option<u64>,
    /// The fabric at whose pace a simulated transport moves real data.
    pub paced: Option<String>,
    /// Whether this rank may read messages in the memory of other processes, and be read by them.
    pub peer_reads: bool,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        ConnectOptions { lanes: 1, pair_bytes: None, paced: None, peer_reads: true }
    }
}
