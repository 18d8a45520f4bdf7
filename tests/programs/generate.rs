//! A program from a seed.

use crate::program::{Bundle, Checked, Creation, Form, Message, Program, Step, Tag, What};
use crate::support::Random;
use crate::support::oracle::{Call, exact_data, has, outputs_over, sizes};
use crate::support::ranks::Case;
use std::collections::BTreeMap;
use ubccl::{DataType, ReduceOp};

/// At least so many operations; creations of communicators are not counted.
pub const OPERATIONS: usize = 20;
/// Worlds of so many ranks: small ones are cheaper and as telling.
const WORLDS: [usize; 20] = [2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 5, 5, 6];
/// Counts around nothing, one, odd ones and the sizes of vectors.
const COUNTS: [usize; 12] = [0, 1, 1, 2, 3, 5, 7, 9, 16, 33, 100, 257];
/// Rarer ones: around transports' fragments and a chooser's switch.
const LONG_COUNTS: [usize; 4] = [1023, 2048, 5000, 12_289];
/// Tables of lengths are kept for ever: there are only so many.
const TABLES: u64 = 32;

/// The program of a seed.
pub fn program(seed: u64) -> Program {
    let mut random = Random(seed);
    let ranks = pick(&WORLDS, &mut random);
    let mut program = Program { seed, ranks, members: vec![(0..ranks).collect()], steps: Vec::new() };
    for _ in 0..1 + random.below(2) {
        create(&mut program, &mut random);
    }
    let operations = OPERATIONS + random.below(5) as usize;
    for number in 0..operations {
        if random.below(60) == 0 {
            create(&mut program, &mut random);
        }
        // Whatever else it does, it uses two communicators.
        let on = if number < 2 { number } else { communicator(&program, &mut random) };
        let members = program.members[on].len();
        let what = match random.below(20) {
            0 | 1 => What::Group(group(members, &mut random)),
            2 | 3 => What::Tagged(tagged(members, program.steps.len() as u32, &mut random)),
            _ => What::Call(checked(members, true, &mut random)),
        };
        program.steps.push(Step { on, what });
    }
    program
}

fn pick<T: Copy>(from: &[T], random: &mut Random) -> T {
    from[random.below(from.len() as u64) as usize]
}

fn any_dtype(random: &mut Random) -> DataType {
    DataType::TABLE[random.below(DataType::TABLE.len() as u64) as usize].dtype
}

/// Any, rather one of several ranks.
fn communicator(program: &Program, random: &mut Random) -> usize {
    let mut any = || random.below(program.members.len() as u64) as usize;
    let first = any();
    if program.members[first].len() > 1 { first } else { any() }
}

fn create(program: &mut Program, random: &mut Random) {
    let of = communicator(program, random);
    let parent = program.members[of].clone();
    let form = match random.below(3) {
        0 => Form::Duplicate,
        1 => Form::List(list(parent.len(), random)),
        _ => Form::Colours(colours(parent.len(), random)),
    };
    let mut made = vec![None; parent.len()];
    for group in groups(&form, parent.len()) {
        group.iter().for_each(|&rank| made[rank] = Some(program.members.len()));
        program.members.push(group.iter().map(|&rank| parent[rank]).collect());
    }
    program.steps.push(Step { on: of, what: What::Create(Creation { form, made }) });
}

/// Some ranks in any order.
fn list(ranks: usize, random: &mut Random) -> Vec<u32> {
    let mut left: Vec<u32> = (0..ranks as u32).collect();
    let least = ranks.min(2);
    let len = least + random.below((ranks - least + 1) as u64) as usize;
    (0..len).map(|_| left.swap_remove(random.below(left.len() as u64) as usize)).collect()
}

/// Colours and keys of which some are alike; some ranks have no colour, but one has.
fn colours(ranks: usize, random: &mut Random) -> Vec<(Option<u32>, i64)> {
    let mut one = || {
        let colour = [Some(5), Some(5), Some(5), Some(0), Some(77), None][random.below(6) as usize];
        (colour, [i64::MIN, -1, 0, 0, 3, i64::MAX][random.below(6) as usize])
    };
    let mut wishes: Vec<_> = (0..ranks).map(|_| one()).collect();
    wishes[0].0.get_or_insert(5);
    wishes
}

/// The parent's ranks of each communicator made, in its order: the definition, spelled out.
fn groups(form: &Form, ranks: usize) -> Vec<Vec<usize>> {
    match form {
        Form::Duplicate => vec![(0..ranks).collect()],
        Form::List(list) => vec![list.iter().map(|&rank| rank as usize).collect()],
        Form::Colours(wishes) => {
            let mut groups: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
            for (rank, (colour, key)) in wishes.iter().enumerate() {
                let Some(colour) = colour else { continue };
                let group = groups.entry(*colour).or_default();
                let place = group.iter().position(|&member| wishes[member].1 > *key);
                group.insert(place.unwrap_or(group.len()), rank);
            }
            groups.into_values().collect()
        }
    }
}

fn call(ranks: usize, with_shift: bool, random: &mut Random) -> Call {
    let root = random.below(ranks as u64) as usize;
    let op = pick(ReduceOp::TABLE, random).0;
    let seed = random.below(TABLES);
    match random.below(if with_shift { 15 } else { 14 }) {
        0 => Call::AllReduce(op),
        1 => Call::AllGather,
        2 => Call::ReduceScatter(op),
        3 => Call::Broadcast { root },
        4 => Call::Barrier,
        5 => Call::Reduce { op, root },
        6 => Call::Gather { root },
        7 => Call::Scatter { root },
        8 => Call::AllToAll,
        9 => Call::GatherV { root, seed },
        10 => Call::ScatterV { root, seed },
        11 => Call::AllGatherV { seed },
        12 => Call::ReduceScatterV { op, seed },
        13 => Call::AllToAllV { seed },
        _ => Call::Shift(random.below(ranks as u64 + 1) as usize),
    }
}

/// Mostly short; what is long is short in bytes all the same, but for some.
fn count(dtype: DataType, random: &mut Random) -> usize {
    let count = if random.below(20) == 0 { pick(&LONG_COUNTS, random) } else { pick(&COUNTS, random) };
    if count * dtype.size() > 6000 && random.below(8) > 0 { count % 1000 } else { count }
}

fn checked(ranks: usize, with_shift: bool, random: &mut Random) -> Checked {
    let call = call(ranks, with_shift, random);
    let dtype = loop {
        let dtype = any_dtype(random);
        if call.op().is_none_or(|op| has(op, dtype)) {
            break dtype;
        }
    };
    let count = if call == Call::Barrier { 0 } else { count(dtype, random) };
    let mut input = |rank| exact_data(call, dtype, sizes(call, ranks, rank, count).0, random);
    let inputs: Vec<Vec<u8>> = (0..ranks).map(&mut input).collect();
    let in_place = random.below(2) == 0 && call.may_be_in_place();
    let expected = outputs_over(call, dtype, &inputs, count, in_place);
    let skew = random.below(5) as usize * dtype.size();
    Checked { case: Case { call, dtype, count, in_place, inputs, skew }, expected }
}

/// Messages between random pairs, ranks and themselves among them; often some collectives.
fn group(ranks: usize, random: &mut Random) -> Bundle {
    let mut bundle =
        Bundle { messages: Vec::new(), calls: Vec::new(), seed: random.next(), is_blocking: false };
    for _ in 0..random.below(10) {
        let dtype = any_dtype(random);
        let len = count(dtype, random) * dtype.size();
        for _ in 0..1 + random.below(3) / 2 {
            let (from, to) = (random.below(ranks as u64) as usize, random.below(ranks as u64) as usize);
            push(&mut bundle, (from, to, Tag::None), (dtype, len), random);
        }
    }
    for _ in 0..random.below(3) {
        bundle.calls.push(checked(ranks, false, random));
    }
    bundle
}

/// Tagged messages. Those that are received from any rank have a tag of their own and one length, for any of them may
/// come first.
fn tagged(ranks: usize, step: u32, random: &mut Random) -> Bundle {
    let is_blocking = random.below(2) == 0;
    let mut bundle = Bundle { messages: Vec::new(), calls: Vec::new(), seed: random.next(), is_blocking };
    let any_len = count(DataType::U8, random);
    for _ in 0..1 + random.below(10) {
        let (from, to) = (random.below(ranks as u64) as usize, random.below(ranks as u64) as usize);
        let (tag, len) = match random.below(3) {
            0 => (Tag::Any(1000 + step), any_len),
            _ => (Tag::Named([0, 1, 2, u32::MAX][random.below(4) as usize]), count(DataType::U8, random)),
        };
        push(&mut bundle, (from, to, tag), (DataType::U8, len), random);
    }
    bundle
}

fn push(
    bundle: &mut Bundle,
    (from, to, tag): (usize, usize, Tag),
    (dtype, len): (DataType, usize),
    random: &mut Random,
) {
    let bytes = (0..len).map(|_| random.next() as u8).collect();
    bundle.messages.push(Message { from, to, tag, dtype, bytes });
}
