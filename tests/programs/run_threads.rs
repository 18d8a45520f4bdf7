//! A program on the ranks of a real transport: threads that live for many programs.

use crate::program::{Bundle, Checked, Creation, Form, Part, Program, Tag, What};
use crate::support::memory::Guarded;
use crate::support::oracle::RUBBISH;
use crate::support::ranks::{collective, joint};
use ubccl::{Collective, Communicator};

/// Runs a program on one rank with the world's communicator. What is wrong comes with the number of its step; it is
/// told before the communicators made are dropped, by which the other ranks learn of it.
pub fn run(world: &Communicator, program: &Program, tell: impl FnOnce(Result<(), (usize, String)>)) {
    // By the program's numbers; the world's is lent.
    let mut made: Vec<Option<Communicator>> = program.members.iter().map(|_| None).collect();
    tell(run_steps(world, program, &mut made).and_then(|()| close(&mut made, program)));
}

/// Half of the programs close children before their parents.
fn close(made: &mut [Option<Communicator>], program: &Program) -> Result<(), (usize, String)> {
    let mut left: Vec<Communicator> = made.iter_mut().filter_map(Option::take).collect();
    if program.seed.is_multiple_of(2) {
        left.reverse();
    }
    let closed = left.into_iter().try_for_each(Communicator::close);
    closed.map_err(|error| (program.steps.len(), format!("a communicator does not close: {error}")))
}

fn run_steps(
    world: &Communicator,
    program: &Program,
    made: &mut [Option<Communicator>],
) -> Result<(), (usize, String)> {
    let me = world.rank() as usize;
    for (number, step) in program.steps.iter().enumerate() {
        let Some(rank) = program.members_of(step).iter().position(|&member| member == me) else { continue };
        let comm = if step.on == 0 { world } else { made[step.on].as_ref().expect("it was made before") };
        let numbers = (comm.rank() as usize, comm.ranks() as usize);
        let done = caught(|| {
            assert_eq!(numbers, (rank, program.members_of(step).len()), "rank and size of the communicator");
            match &step.what {
                What::Create(creation) => {
                    return create(comm, creation, rank).map(|new| (new, creation.made[rank]));
                }
                What::Call(call) => run_call(comm, call),
                What::Group(bundle) => run_group(comm, bundle),
                What::Tagged(bundle) => run_tagged(comm, bundle),
            }
            None
        });
        if let Some((new, slot)) = done.map_err(|error| (number, error))? {
            made[slot.expect("a rank that gets one is in it")] = Some(new);
        }
    }
    Ok(())
}

/// What `body` gives, or the text it panics with.
pub fn caught<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
    })
}

fn create(comm: &Communicator, creation: &Creation, rank: usize) -> Option<Communicator> {
    let made = match &creation.form {
        Form::Duplicate => comm.duplicate().map(Some),
        Form::List(list) => comm.split_ranks(list),
        Form::Colours(wishes) => comm.split(wishes[rank].0, wishes[rank].1),
    };
    let made = made.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(made.is_some(), creation.made[rank].is_some(), "whether rank {rank} is in what was made");
    made
}

/// One rank's call: its buffers, and what they must hold after it.
struct Prepared<'p> {
    call: Collective<'static>,
    buffers: Buffers,
    input: &'p [u8],
    expected: &'p [u8],
}

enum Buffers {
    Apart(Guarded, Guarded),
    InPlace(Guarded),
}

impl<'p> Prepared<'p> {
    fn new(comm: &Communicator, checked: &'p Checked) -> Self {
        let (ranks, rank, case) = (comm.ranks(), comm.rank(), &checked.case);
        let call = collective(case.call, case.dtype, case.count, ranks, rank);
        let (input, expected) = (&case.inputs[rank as usize], &checked.expected[rank as usize]);
        let buffers = if case.in_place {
            Buffers::InPlace(Guarded::new(&joint(&call, ranks, rank, case.dtype.size(), input), case.skew))
        } else {
            apart(input, expected.len(), case.skew)
        };
        Prepared { call, buffers, input, expected }
    }

    /// A message's part.
    fn part(bundle: &'p Bundle, part: Part) -> Self {
        let (Part::Send(index) | Part::Receive(index) | Part::Call(index)) = part;
        let message = &bundle.messages[index];
        let count = (message.bytes.len() / message.dtype.size()) as u64;
        let (from, to) = (message.from as u32, message.to as u32);
        let (call, input, expected) = match part {
            Part::Send(_) => {
                (Collective::send_receive(count, message.dtype, Some(to), None), &message.bytes[..], &[][..])
            }
            _ => (
                Collective::send_receive(count, message.dtype, None, Some(from)),
                &[][..],
                &message.bytes[..],
            ),
        };
        let buffers = apart(input, expected.len(), index % 5 * message.dtype.size());
        Prepared { call, buffers, input, expected }
    }

    fn check(&self, rank: u32) {
        let what = format!("{} on rank {rank}", self.call);
        let output = match &self.buffers {
            Buffers::Apart(input, output) => {
                input.check(&what);
                output.check(&what);
                assert!(input.get() == self.input, "{what}: the input was changed");
                output.get()
            }
            Buffers::InPlace(buffer) => {
                buffer.check(&what);
                let from = self.call.in_place_offsets(rank).1 as usize * self.call.dtype().size();
                &buffer.get()[from..][..self.expected.len()]
            }
        };
        assert!(output == self.expected, "{what}: {}", difference(output, self.expected));
    }
}

fn apart(input: &[u8], output_bytes: usize, skew: usize) -> Buffers {
    Buffers::Apart(Guarded::new(input, skew), Guarded::new(&vec![RUBBISH; output_bytes], skew))
}

/// Where bytes differ first.
pub fn difference(got: &[u8], expected: &[u8]) -> String {
    let at = got.iter().zip(expected).position(|(got, expected)| got != expected);
    match at {
        Some(at) => format!("byte {at} is {:#x}, the oracle says {:#x}", got[at], expected[at]),
        None => format!("{} bytes, the oracle says {}", got.len(), expected.len()),
    }
}

fn run_call(comm: &Communicator, checked: &Checked) {
    let mut prepared = Prepared::new(comm, checked);
    let Prepared { call, buffers, .. } = &mut prepared;
    match buffers {
        Buffers::Apart(input, output) => comm.run(call, input.get(), output.get_mut()),
        Buffers::InPlace(buffer) => comm.run_in_place(call, buffer.get_mut()),
    }
    .unwrap_or_else(|error| panic!("{error}"));
    prepared.check(comm.rank());
}

fn run_group(comm: &Communicator, bundle: &Bundle) {
    let prepare = |part| match part {
        Part::Call(index) => Prepared::new(comm, &bundle.calls[index]),
        part => Prepared::part(bundle, part),
    };
    let mut parts: Vec<Prepared<'_>> = bundle.order(comm.rank() as usize).into_iter().map(prepare).collect();
    let mut group = comm.group();
    for Prepared { call, buffers, .. } in &mut parts {
        match buffers {
            Buffers::Apart(input, output) => group.call(call, input.get(), output.get_mut()),
            Buffers::InPlace(buffer) => group.call_in_place(call, buffer.get_mut()),
        }
        .unwrap_or_else(|error| panic!("{error}"));
    }
    group.run().unwrap_or_else(|error| panic!("{error}"));
    parts.iter().for_each(|part| part.check(comm.rank()));
}

fn tag_of(tag: Tag) -> u32 {
    match tag {
        Tag::Named(tag) | Tag::Any(tag) => tag,
        Tag::None => panic!("a tagged message has a tag"),
    }
}

/// Sends without waiting; receives one by one, or all at once among the sends.
fn run_tagged(comm: &Communicator, bundle: &Bundle) {
    let rank = comm.rank() as usize;
    let (mut order, mut came) = (bundle.order(rank), Vec::new());
    if bundle.is_blocking {
        order.sort_by_key(|part| !matches!(part, Part::Send(_)));
    }
    let (mut sends, mut receives) = (Vec::new(), Vec::new());
    for part in order {
        let (Part::Send(index) | Part::Receive(index) | Part::Call(index)) = part;
        let message = &bundle.messages[index];
        let (tag, skew) = (tag_of(message.tag), index % 5);
        let source = matches!(message.tag, Tag::Named(_)).then_some(message.from as u32);
        if let Part::Send(_) = part {
            let work = comm.send_tagged_async(message.bytes.clone(), message.to as u32, tag);
            sends.push((work.unwrap_or_else(|error| panic!("{error}")), message));
        } else if bundle.is_blocking {
            let mut buffer = Guarded::new(&vec![RUBBISH; message.bytes.len()], skew);
            let from = comm.receive_tagged(buffer.get_mut(), source, tag);
            buffer.check("a tagged receive");
            came.push((from.unwrap_or_else(|error| panic!("{error}")), buffer.get().to_vec(), message));
        } else {
            let work = comm.receive_tagged_async(vec![RUBBISH; message.bytes.len()], source, tag);
            receives.push((work.unwrap_or_else(|error| panic!("{error}")), message));
        }
    }
    for (work, message) in receives {
        let (bytes, from) = work.wait().unwrap_or_else(|error| panic!("{error}"));
        came.push((from, bytes, message));
    }
    for (work, message) in sends {
        let bytes = work.wait().unwrap_or_else(|error| panic!("{error}"));
        assert!(bytes == message.bytes, "what was sent was changed");
    }
    let (named, any): (Vec<_>, Vec<_>) =
        came.into_iter().partition(|(.., message)| matches!(message.tag, Tag::Named(_)));
    for (from, bytes, message) in named {
        assert!(from as usize == message.from, "a message of rank {} came from {from}", message.from);
        assert!(bytes == message.bytes, "{:?}: {}", message.tag, difference(&bytes, &message.bytes));
    }
    let any: Vec<_> = any.into_iter().map(|(from, bytes, _)| (from as usize, bytes)).collect();
    bundle.check_any(rank, &any);
}
