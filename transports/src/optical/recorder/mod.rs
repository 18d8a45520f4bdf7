//! Writes down what happens, for traces and critical paths. A world without one pays a comparison for each hook.
//!
//! The network and its timing tell what they do by the numbers of their own records (sends, messages, receives); what was
//! under way when recording began has none here and is left out.

mod ports;

pub(super) use ports::{Injection, Passing, Reception};

use std::collections::BTreeMap;
use ubccl_core::Rank;
use ubccl_core::endpoint::{Key, Place, Post, Stream};
use ubccl_core::record::{
    At, Link, LinkId, Message, Occupation, PostId, PostKind, Reason, Record, Stretch, What,
};

/// A record that is being written.
#[derive(Debug)]
pub(super) struct Recorder {
    record: Record,
    /// The next ordinal of each place, stream and lane.
    ordinals: BTreeMap<(Place, Stream, u8), u32>,
    sends: Known<Sending>,
    messages: Known<Travelling>,
    receives: Known<Receiving>,
    /// What made each link free last, and each rank's folding and copying.
    link_free: Vec<Reason>,
    compute_free: Vec<Reason>,
    /// What let the last message of a pair of ranks have left, and be there.
    pairs: BTreeMap<(Rank, Rank), (Reason, Reason)>,
}

/// What the recorder knows of records of the network, by their numbers.
#[derive(Debug)]
struct Known<T>(Vec<Option<T>>);

#[derive(Clone, Copy, Debug)]
struct Sending {
    post: PostId,
    /// When the last of its messages so far had left, and what led there.
    sent_ps: u64,
    reason: Reason,
}

#[derive(Clone, Copy, Debug)]
struct Travelling {
    /// In the record.
    index: u32,
    send: u32,
    /// What led to where it is now.
    reason: Reason,
}

#[derive(Clone, Copy, Debug)]
struct Receiving {
    post: PostId,
    /// What led to where it is now.
    reason: Reason,
}

impl<T: Copy> Known<T> {
    fn get(&self, id: u32) -> Option<T> {
        self.0.get(id as usize).copied().flatten()
    }

    fn set(&mut self, id: u32, value: T) {
        let id = id as usize;
        if self.0.len() <= id {
            self.0.resize(id + 1, None);
        }
        self.0[id] = Some(value);
    }

    fn forget(&mut self, id: u32) {
        if let Some(place) = self.0.get_mut(id as usize) {
            *place = None;
        }
    }
}

impl Recorder {
    /// An empty record of a world of so many ranks, which begins now.
    pub(super) fn new(start_ps: u64, ranks: u32, levels: Vec<String>) -> Self {
        Recorder {
            record: Record { start_ps, ranks, levels, ..Record::default() },
            ordinals: BTreeMap::new(),
            sends: Known(Vec::new()),
            messages: Known(Vec::new()),
            receives: Known(Vec::new()),
            link_free: Vec::new(),
            compute_free: vec![Reason::Unknown; ranks as usize],
            pairs: BTreeMap::new(),
        }
    }

    /// What was recorded.
    pub(super) fn finish(self) -> Record {
        self.record
    }

    /// A class of links: its number.
    pub(super) fn add_class(&mut self, name: String) -> u16 {
        self.record.classes.push(name);
        self.record.classes.len() as u16 - 1
    }

    /// A link: its number.
    pub(super) fn add_link(&mut self, link: Link) -> LinkId {
        self.record.links.push(link);
        self.link_free.push(Reason::Unknown);
        LinkId(self.record.links.len() as u32 - 1)
    }

    /// A rank posts something.
    pub(super) fn posted(
        &mut self,
        (place, rank): (Place, Rank),
        key: &Key,
        post: &Post,
        now_ps: u64,
    ) -> PostId {
        let ordinal = self.ordinals.entry((place, key.stream, key.lane)).or_default();
        let (kind, bytes) = match *post {
            Post::Send { from, .. } => (PostKind::Send, from.len),
            Post::Receive { into, .. } => (PostKind::Receive, into.len),
            Post::ReceiveReduce { into, .. } => (PostKind::ReceiveReduce, into.len),
            Post::Copy { into, .. } => (PostKind::Copy, into.len),
        };
        let id = PostId(self.record.posts.len() as u32);
        self.record.posts.push(ubccl_core::record::Post {
            place,
            rank,
            stream: key.stream,
            lane: key.lane,
            kind,
            ordinal: *ordinal,
            bytes,
            posted_ps: now_ps,
            done_ps: None,
            done_by: Reason::Unknown,
        });
        *ordinal += 1;
        id
    }

    /// The last post is this send of the network.
    pub(super) fn is_send(&mut self, send: u32, now_ps: u64) {
        let post = self.last_post();
        self.sends.set(send, Sending { post, sent_ps: now_ps, reason: Reason::Posted(post) });
    }

    /// The last post is this receive of the network.
    pub(super) fn is_receive(&mut self, receive: u32) {
        let post = self.last_post();
        self.receives.set(receive, Receiving { post, reason: Reason::Posted(post) });
    }

    fn last_post(&self) -> PostId {
        PostId((self.record.posts.len() as u32).saturating_sub(1))
    }

    /// The last post completed at once.
    pub(super) fn is_done(&mut self, now_ps: u64) {
        let post = self.last_post();
        self.done(post, Reason::Posted(post), now_ps);
    }

    fn done(&mut self, post: PostId, reason: Reason, now_ps: u64) {
        let post = &mut self.record.posts[post.0 as usize];
        (post.done_ps, post.done_by) = (Some(now_ps), reason);
    }

    /// A message of a send begins its journey.
    pub(super) fn sends(
        &mut self,
        message: u32,
        send: u32,
        (from, to): (Rank, Rank),
        bytes: u64,
        now_ps: u64,
    ) {
        let Some(Sending { post, .. }) = self.sends.get(send) else { return self.messages.forget(message) };
        let index = self.record.messages.len() as u32;
        self.record.messages.push(Message {
            sent_by: post,
            received_by: None,
            from,
            to,
            bytes,
            start_ps: now_ps,
            sent_ps: now_ps,
            head_ps: None,
            arrived_ps: None,
            arrived_by: Reason::Unknown,
        });
        self.messages.set(message, Travelling { index, send, reason: Reason::Posted(post) });
    }

    /// What led to where a message is.
    pub(super) fn reason_of(&self, message: u32) -> Option<Reason> {
        self.messages.get(message).map(|known| known.reason)
    }

    /// What leads to a message's next step.
    pub(super) fn lead(&mut self, message: u32, reason: Reason) {
        if let Some(known) = self.messages.get(message) {
            self.messages.set(message, Travelling { reason, ..known });
        }
    }

    /// What let the last message of a pair of ranks have left, and be there.
    fn pair(&mut self, from: Rank, to: Rank) -> &mut (Reason, Reason) {
        self.pairs.entry((from, to)).or_default()
    }

    /// What made a link free last.
    pub(super) fn free_by(&self, link: LinkId) -> Reason {
        self.link_free[link.0 as usize]
    }

    /// What makes a link free.
    pub(super) fn free(&mut self, link: LinkId, reason: Reason) {
        self.link_free[link.0 as usize] = reason;
    }

    /// Something takes time; what takes none leads on as it came.
    pub(super) fn stretch(
        &mut self,
        what: What,
        at: At,
        (from_ps, until_ps): (u64, u64),
        reason: Reason,
    ) -> Reason {
        if from_ps >= until_ps {
            return reason;
        }
        self.record.stretches.push(Stretch { what, at, from_ps, until_ps, reason });
        Reason::After(self.record.stretches.len() as u32 - 1)
    }

    /// A message has a link to itself for a while.
    pub(super) fn occupy(&mut self, link: LinkId, message: u32, (from_ps, until_ps): (u64, u64)) {
        if let Some(Travelling { index, .. }) = self.messages.get(message)
            && from_ps < until_ps
        {
            self.record.occupations.push(Occupation { link, message: index, from_ps, until_ps });
        }
    }

    /// When a message's first byte leaves and its last one has left, and what leads to that.
    pub(super) fn leaves(&mut self, message: u32, (start_ps, sent_ps): (u64, u64), reason: Reason) {
        let Some(Travelling { index, send, .. }) = self.messages.get(message) else { return };
        let message = &mut self.record.messages[index as usize];
        (message.start_ps, message.sent_ps) = (start_ps, sent_ps);
        if let Some(sending) = self.sends.get(send)
            && sent_ps >= sending.sent_ps
        {
            self.sends.set(send, Sending { sent_ps, reason, ..sending });
        }
    }

    /// A message's head is at the receiver's port.
    pub(super) fn head(&mut self, message: u32, now_ps: u64) {
        if let Some(Travelling { index, .. }) = self.messages.get(message) {
            self.record.messages[index as usize].head_ps = Some(now_ps);
        }
    }

    /// A message is there.
    pub(super) fn arrived(&mut self, message: u32, now_ps: u64) {
        if let Some(Travelling { index, reason, .. }) = self.messages.get(message) {
            let message = &mut self.record.messages[index as usize];
            (message.arrived_ps, message.arrived_by) = (Some(now_ps), reason);
        }
    }

    /// A receive takes a message.
    pub(super) fn takes(&mut self, receive: u32, message: u32) {
        if let (Some(receiving), Some(travelling)) = (self.receives.get(receive), self.messages.get(message))
        {
            self.record.messages[travelling.index as usize].received_by = Some(receiving.post);
        }
    }

    /// A message has come just now for a receive that was posted before.
    pub(super) fn comes_for(&mut self, receive: u32, message: u32) {
        if let (Some(receiving), Some(reason)) = (self.receives.get(receive), self.reason_of(message)) {
            self.receives.set(receive, Receiving { reason, ..receiving });
        }
    }

    /// A rank folds or copies for a receive, once it is done with what it folds and copies before.
    pub(super) fn computes(
        &mut self,
        what: What,
        receive: u32,
        rank: Rank,
        (from_ps, until_ps): (u64, u64),
        now_ps: u64,
    ) {
        let Some(receiving) = self.receives.get(receive) else { return };
        let reason = self.busy(what, rank, (from_ps, until_ps), now_ps, receiving.reason);
        self.receives.set(receive, Receiving { reason, ..receiving });
    }

    /// A rank copies a message to itself.
    pub(super) fn carries(&mut self, message: u32, rank: Rank, (from_ps, until_ps): (u64, u64), now_ps: u64) {
        let Some(reason) = self.reason_of(message) else { return };
        let reason = self.busy(What::Copy, rank, (from_ps, until_ps), now_ps, reason);
        self.lead(message, reason);
    }

    fn busy(
        &mut self,
        what: What,
        rank: Rank,
        (from_ps, until_ps): (u64, u64),
        now_ps: u64,
        reason: Reason,
    ) -> Reason {
        let waits = from_ps > now_ps;
        let reason = if waits { self.compute_free[rank as usize] } else { reason };
        let reason = self.stretch(what, At::Rank(rank), (from_ps, until_ps), reason);
        if from_ps < until_ps {
            self.compute_free[rank as usize] = reason;
        }
        reason
    }

    /// A receive or copy of the network is over.
    pub(super) fn received(&mut self, receive: u32, now_ps: u64) {
        if let Some(Receiving { post, reason }) = self.receives.get(receive) {
            self.done(post, reason, now_ps);
        }
    }

    /// Every message of a send has left.
    pub(super) fn sent(&mut self, send: u32, now_ps: u64) {
        if let Some(Sending { post, reason, .. }) = self.sends.get(send) {
            self.done(post, reason, now_ps);
        }
    }
}
