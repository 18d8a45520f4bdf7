//! From what an endpoint saw to a cause that every rank is told.

use ubccl_core::endpoint::{Fault, Header, Stream};
use ubccl_core::{Cause, Culprit, Error, ErrorKind};

/// The sequence number that stands for closing: after every call.
pub(crate) const CLOSED: u64 = u64::MAX;

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

/// Judges what rank `me` saw. `members` has one entry for each rank.
pub(crate) fn judge(fault: Fault, me: u32, members: &[Culprit]) -> Verdict {
    match fault {
        Fault::Mismatch { peer, theirs, ours } => {
            Verdict::Cause(mismatch(me, &members[peer as usize], theirs, ours))
        }
        Fault::Lost { peer, message } => Verdict::Suspect { rank: peer, message },
        Fault::Other(error) => Verdict::Cause(own_failure(&members[me as usize], &error)),
    }
}

fn mismatch(me: u32, peer: &Culprit, theirs: Header, ours: Header) -> Cause {
    let said = |header: &Header| match header.stream {
        Stream::Collective(CLOSED) => "close".to_owned(),
        Stream::Collective(sequence) => format!("{} as its operation {sequence}", header.signature),
        Stream::Tagged(_) => header.signature.to_string(),
    };
    let advice = if theirs.stream != ours.stream {
        "every rank must make the same calls in the same order"
    } else if theirs.signature.plan() != ours.signature.plan()
        && theirs.signature.describe() == ours.signature.describe()
    {
        "the calls agree but their plans differ: configure algorithm, lanes and chunk alike on all ranks"
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
        Stream::Tagged(_) => 0,
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

    #[test]
    fn a_mismatch_names_both_ranks_and_both_calls() {
        let ours = header(Collective::all_reduce(2, DataType::F32, ReduceOp::Sum), 1);
        let theirs = header(Collective::broadcast(8, DataType::U8, 1), 1);
        let Verdict::Cause(cause) = judge(Fault::Mismatch { peer: 1, theirs, ours }, 0, &members()) else {
            panic!("a mismatch is a cause");
        };
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
        let Verdict::Cause(cause) = judge(Fault::Mismatch { peer: 1, theirs, ours }, 0, &members()) else {
            panic!("a mismatch is a cause");
        };
        assert!(cause.message.contains("plans differ"), "{}", cause.message);
    }
}
