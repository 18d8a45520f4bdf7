//! A program in a simulated world.

use crate::program::{Bundle, Checked, Creation, Form, Message, Part, Program, Tag, What};
use crate::run_threads::{caught, difference};
use crate::support::oracle::RUBBISH;
use crate::support::ranks::{collective, joint};
use ubccl::plan::Side;
use ubccl::sim::{CommunicatorId, RankMemory, TaggedStep, TaggedWay, World, WorldConfig};
use ubccl::{Collective, GroupSide, Rank, blocks};

/// Runs a program on all ranks. What is wrong comes with the number of its step.
pub fn run(transport: &str, program: &Program) -> Result<(), (usize, String)> {
    let chunk_bytes = [u32::MAX, 256 << 10, 4096, 64][(program.seed >> 8) as usize % 4];
    let config = WorldConfig {
        transport: transport.into(),
        fabric: "custom:latency_ps=1000000,bytes_per_s=1000000000".into(),
        ranks: program.ranks as u32,
        chunk_bytes: Some(chunk_bytes),
        lanes: 1,
        seed: program.seed,
        ..WorldConfig::default()
    };
    let mut world = World::new(config).expect("a world");
    let mut ids = vec![CommunicatorId::WORLD];
    for (number, step) in program.steps.iter().enumerate() {
        let (on, ranks) = (ids[step.on], program.members_of(step).len() as u32);
        let done = caught(|| match &step.what {
            What::Create(creation) => ids.extend(create(&mut world, on, creation)),
            What::Call(call) => run_all(&mut world, on, ranks, std::slice::from_ref(call), &[]),
            What::Group(bundle) => run_all(&mut world, on, ranks, &bundle.calls, &bundle.messages),
            What::Tagged(bundle) => run_tagged(&mut world, on, ranks, bundle),
        });
        done.map_err(|error| (number, error))?;
    }
    let ended = caught(|| {
        for (id, members) in ids.iter().zip(&program.members) {
            let found = world.members(*id).expect("it exists").iter().map(|&rank| rank as usize);
            assert!(found.eq(members.iter().copied()), "the members of {id:?} are not {members:?}");
        }
        world.close().expect("nothing is left over");
    });
    ended.map_err(|error| (program.steps.len(), error))
}

fn create(world: &mut World, of: CommunicatorId, creation: &Creation) -> Vec<CommunicatorId> {
    match &creation.form {
        Form::Duplicate => world.duplicate(of).map(|id| vec![id]),
        Form::List(list) => world.split_ranks(of, list).map(|id| vec![id]),
        Form::Colours(wishes) => {
            world.split(of, &|rank| wishes[rank as usize].0, &|rank| wishes[rank as usize].1)
        }
    }
    .unwrap_or_else(|error| panic!("{error}"))
}

/// Issues messages and calls, waits for all, and checks what they gave.
fn run_all(world: &mut World, on: CommunicatorId, ranks: u32, calls: &[Checked], messages: &[Message]) {
    let exchange = Exchange::new(ranks, messages);
    let group = |rank: Rank| {
        let rank = rank as usize;
        Collective::group(exchange.sends[rank].sorted(), exchange.receives[rank].sorted())
    };
    let exchanging =
        (!messages.is_empty()).then(|| world.issue(on, &group, exchange.memory()).expect("it is issued"));
    let issue = |checked: &Checked| {
        let case = &checked.case;
        let call = |rank| collective(case.call, case.dtype, case.count, ranks, rank);
        let memory = (0..ranks).map(|rank| memory(checked, &call(rank), ranks, rank)).collect();
        world.issue(on, &call, memory).unwrap_or_else(|error| panic!("{checked}: {error}"))
    };
    let issued: Vec<_> = calls.iter().map(issue).collect();
    for (checked, issued) in calls.iter().zip(issued).rev() {
        let (_, memory) = world.wait(issued).unwrap_or_else(|error| panic!("{checked}: {error}"));
        (0..).zip(memory).for_each(|(rank, memory)| check(checked, &memory, ranks, rank));
    }
    if let Some(issued) = exchanging {
        let (_, memory) = world.wait(issued).unwrap_or_else(|error| panic!("{error}"));
        for (rank, memory) in memory.iter().enumerate() {
            let (output, expected) = (memory.output(), &exchange.expected[rank]);
            assert!(output == expected, "group, rank {rank}: {}", difference(output, expected));
        }
    }
}

fn memory(checked: &Checked, call: &Collective<'_>, ranks: u32, rank: u32) -> RankMemory {
    let input = &checked.case.inputs[rank as usize];
    if checked.case.in_place {
        return RankMemory::InPlace(joint(call, ranks, rank, checked.case.dtype.size(), input));
    }
    let output = vec![RUBBISH; checked.expected[rank as usize].len()];
    RankMemory::Apart { input: input.clone(), output }
}

fn check(checked: &Checked, memory: &RankMemory, ranks: u32, rank: u32) {
    let (case, expected) = (&checked.case, &checked.expected[rank as usize]);
    let output = match memory {
        RankMemory::InPlace(buffer) => {
            let call = collective(case.call, case.dtype, case.count, ranks, rank);
            let from = call.in_place_offsets(rank).1 as usize * case.dtype.size();
            &buffer[from..][..expected.len()]
        }
        RankMemory::Apart { input, output } => {
            assert!(*input == case.inputs[rank as usize], "{checked}: rank {rank}'s input was changed");
            output
        }
    };
    assert!(output == expected, "{checked}, rank {rank}: {}", difference(output, expected));
}

/// The messages of a group, packed: each rank's one after the other in one buffer. A rank's messages to itself are no
/// part of it: groups copy them before there is a plan.
struct Exchange {
    sends: Vec<GroupSide>,
    receives: Vec<GroupSide>,
    inputs: Vec<Vec<u8>>,
    expected: Vec<Vec<u8>>,
}

impl Exchange {
    fn new(ranks: u32, messages: &[Message]) -> Self {
        let sides = || (0..ranks).map(|_| GroupSide::default()).collect::<Vec<_>>();
        let bytes = || vec![Vec::new(); ranks as usize];
        let mut exchange = Exchange { sends: sides(), receives: sides(), inputs: bytes(), expected: bytes() };
        for message in messages.iter().filter(|message| message.from != message.to) {
            let count = (message.bytes.len() / message.dtype.size()) as u64;
            let signature = Collective::send_receive(count, message.dtype, None, None).signature(0);
            let part = |peer: usize, start: usize| blocks::Message {
                peer: peer as Rank,
                start: start as u64,
                len: message.bytes.len() as u64,
                signature,
            };
            let (input, output) = (&mut exchange.inputs[message.from], &mut exchange.expected[message.to]);
            exchange.sends[message.from].push(part(message.to, input.len()));
            exchange.receives[message.to].push(part(message.from, output.len()));
            input.extend(&message.bytes);
            output.extend(&message.bytes);
        }
        for rank in 0..ranks {
            exchange.sends[rank as usize].sort(Side::Send, rank, ranks);
            exchange.receives[rank as usize].sort(Side::Receive, rank, ranks);
        }
        exchange
    }

    fn memory(&self) -> Vec<RankMemory> {
        let apart = |(input, expected): (&Vec<u8>, &Vec<u8>)| RankMemory::Apart {
            input: input.clone(),
            output: vec![RUBBISH; expected.len()],
        };
        self.inputs.iter().zip(&self.expected).map(apart).collect()
    }
}

fn run_tagged(world: &mut World, on: CommunicatorId, ranks: u32, bundle: &Bundle) {
    let parts =
        (0..ranks).flat_map(|rank| bundle.order(rank as usize).into_iter().map(move |part| (rank, part)));
    let parts: Vec<(Rank, Part)> = parts.collect();
    let step = |&(rank, part): &(Rank, Part)| {
        let (Part::Send(index) | Part::Receive(index) | Part::Call(index)) = part;
        let message = &bundle.messages[index];
        let (Tag::Named(tag) | Tag::Any(tag)) = message.tag else { panic!("a tagged message has a tag") };
        let source = matches!(message.tag, Tag::Named(_)).then_some(message.from as Rank);
        let (way, bytes) = match part {
            Part::Send(_) => (TaggedWay::To(message.to as Rank), message.bytes.clone()),
            _ => (TaggedWay::From(source), vec![RUBBISH; message.bytes.len()]),
        };
        TaggedStep { rank, way, tag, bytes }
    };
    let mut steps: Vec<TaggedStep> = parts.iter().map(step).collect();
    world.run_tagged_on(on, &mut steps).unwrap_or_else(|error| panic!("{error}"));
    let mut any = vec![Vec::new(); ranks as usize];
    for (step, (rank, part)) in steps.into_iter().zip(parts) {
        let (Part::Send(index) | Part::Receive(index) | Part::Call(index)) = part;
        let message = &bundle.messages[index];
        match (step.way, message.tag) {
            (TaggedWay::From(source), Tag::Any(_)) => {
                any[rank as usize].push((source.expect("it is found there") as usize, step.bytes));
            }
            _ => assert!(
                step.bytes == message.bytes,
                "{:?}, rank {rank}: {}",
                message.tag,
                difference(&step.bytes, &message.bytes)
            ),
        }
    }
    (0..).zip(&any).for_each(|(rank, came)| bundle.check_any(rank, came));
}
