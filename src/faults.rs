//! From what an endpoint saw to a cause that every rank is told.

use ubccl_core::endpoint::{CLOSING, Fault, Header, Stream};
use ubccl_core::{Cause, Culprit, Error, ErrorKind, Signature};

/// What a judge knows beside the fault.
pub(crate) struct Scene<'a> {
    /// The rank that saw it.
    pub(crate) me: u32,
    /// One entry for each rank.
    pub(crate) members: &'a [Culprit],
    /// What a rank called as the collective with this sequence number, if that is known.
    pub(crate) called: &'a dyn Fn(u32, u64) -> Option<Signature>,
}

/// What a fault means.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// A cause to report.
    Cause(Cause),
    /// Only evidence that this rank is in trouble: somebody may know the cause.
    Suspect {
        /// The rank.
        rank: u32,
        /// What was seen.
        message: String,
    },
}

/// Judges what a rank saw.
pub(crate) fn judge(fault: Fault, scene: &Scene<'_>) -> Verdict {
    let &Scene { me, members, .. } = scene;
    match fault {
        Fault::Mismatch { peer, theirs, ours } => {
            let (theirs, ours) = first_difference(peer, theirs, ours, scene).unwrap_or((theirs, ours));
            Verdict::Cause(mismatch(me, &members[peer as usize], theirs, ours))
        }
        Fault::Lost { peer, message } => Verdict::Suspect { rank: peer, message },
        Fault::Other(error) => Verdict::Cause(own_failure(&members[me as usize], &error)),
    }
}

/// If a message of one operation met another operation: what both ranks called as the earlier of the two. That is
/// where they differ; the message only brought it to light.
fn first_difference(peer: u32, theirs: Header, ours: Header, scene: &Scene<'_>) -> Option<(Header, Header)> {
    let (Stream::Collective(their), Stream::Collective(our)) = (theirs.stream, ours.stream) else {
        return None;
    };
    let first = their.min(our);
    let header = |rank| {
        let signature = (scene.called)(rank, first)?;
        Some(Header { stream: Stream::Collective(first), signature, len: 0 })
    };
    let (theirs, ours) = (header(peer)?, header(scene.me)?);
    (their != our && theirs != ours).then_some((theirs, ours))
}

fn mismatch(me: u32, peer: &Culprit, theirs: Header, ours: Header) -> Cause {
    let said = |header: &Header| match header.stream {
        Stream::Collective(CLOSING) => "close".to_owned(),
        Stream::Collective(sequence) => format!("{} as its operation {sequence}", header.signature),
        Stream::Direct => header.signature.to_string(),
        Stream::Tagged(tag) => format!("{} with tag {tag}", header.signature),
    };
    let advice = if theirs.stream != ours.stream {
        "every rank must make the same calls in the same order"
    } else if theirs.signature.plan() != ours.signature.plan()
        && theirs.signature.describe() == ours.signature.describe()
    {
        "the calls agree but their plans differ: configure algorithm, lanes and chunk alike on all ranks, name a \
         user-defined operation alike, and coalesce buffers of the same lengths"
    } else if theirs.signature == ours.signature && has_tables(theirs.signature) {
        "what a rank sends another must be as long as the other's table says"
    } else if theirs.signature == ours.signature {
        "the calls agree but the message lengths differ, which is a defect in ubccl"
    } else {
        "all ranks must pass the same operation, count, type, op and root"
    };
    let bytes = if theirs.len == ours.len {
        String::new()
    } else {
        format!(" ({} bytes came where {} were expected)", theirs.len, ours.len)
    };
    Cause {
        kind: ErrorKind::Mismatch,
        culprit: peer.clone(),
        operation: theirs.signature.describe(),
        sequence: sequence_of(theirs.stream),
        message: format!(
            "rank {} called {}, rank {me} called {}{bytes}; {advice}",
            peer.rank,
            said(&theirs),
            said(&ours)
        ),
    }
}

fn has_tables(signature: Signature) -> bool {
    signature.kind().is_some_and(|kind| kind.row().tabled)
}

fn own_failure(me: &Culprit, error: &Error) -> Cause {
    Cause {
        kind: error.kind(),
        culprit: me.clone(),
        operation: String::new(),
        sequence: 0,
        message: error.to_string(),
    }
}

fn sequence_of(stream: Stream) -> u64 {
    match stream {
        Stream::Collective(sequence) => sequence,
        Stream::Direct | Stream::Tagged(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ubccl_core::{Collective, DataType, ReduceOp};

    fn members() -> Vec<Culprit> {
        (0..2).map(|rank| Culprit { rank, host: "here".into(), pid: 7 + rank }).collect()
    }

    fn header(call: Collective, plan: u32) -> Header {
        Header { stream: Stream::Collective(4), signature: call.signature(plan), len: 8 }
    }

    fn cause(fault: Fault, called: &dyn Fn(u32, u64) -> Option<Signature>) -> Cause {
        match judge(fault, &Scene { me: 0, members: &members(), called }) {
            Verdict::Cause(cause) => cause,
            Verdict::Suspect { .. } => panic!("a mismatch is a cause"),
        }
    }

    #[test]
    fn a_mismatch_names_both_ranks_and_both_calls() {
        let ours = header(Collective::all_reduce(2, DataType::F32, ReduceOp::Sum), 1);
        let theirs = header(Collective::broadcast(8, DataType::U8, 1), 1);
        let cause = cause(Fault::Mismatch { peer: 1, theirs, ours }, &|_, _| None);
        for part in ["rank 1 called broadcast count=8 u8 root=1", "rank 0 called all_reduce count=2 f32 sum"]
        {
            assert!(cause.message.contains(part), "{}", cause.message);
        }
        assert_eq!((cause.culprit.pid, cause.sequence), (8, 4));
    }

    #[test]
    fn equal_calls_with_different_plans_are_told_so() {
        let call = Collective::all_reduce(2, DataType::F32, ReduceOp::Sum);
        let (ours, theirs) = (header(call, 1), header(call, 2));
        let cause = cause(Fault::Mismatch { peer: 1, theirs, ours }, &|_, _| None);
        assert!(cause.message.contains("plans differ"), "{}", cause.message);
    }

    #[test]
    fn a_message_that_comes_to_another_operation_is_traced_to_where_the_calls_differ() {
        let late = header(Collective::barrier(), 1);
        let theirs = Header { stream: Stream::Collective(6), ..header(Collective::barrier(), 1) };
        let calls = [Collective::broadcast(8, DataType::U8, 0), Collective::broadcast(8, DataType::U8, 1)];
        let called = |rank, sequence| (sequence == 4).then(|| calls[rank as usize].signature(1));
        let cause = cause(Fault::Mismatch { peer: 1, theirs, ours: late }, &called);
        let both = "rank 1 called broadcast count=8 u8 root=1 as its operation 4, \
                    rank 0 called broadcast count=8 u8 root=0 as its operation 4";
        assert!(cause.message.contains(both), "{}", cause.message);
        assert_eq!(cause.sequence, 4);
    }
}
