//! What the programs did: counted by kind, printed, and asserted to be everything.

use crate::program::{Bundle, Checked, Form, Program, Tag, What};
use crate::support::oracle::{Call, has};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use ubccl::{DataType, ReduceOp};

/// Everything that a run must have done on every transport it ran on.
const KINDS: [&str; 15] = [
    "AllReduce",
    "AllGather",
    "ReduceScatter",
    "Broadcast",
    "Barrier",
    "Shift",
    "Reduce",
    "Gather",
    "Scatter",
    "AllToAll",
    "GatherV",
    "ScatterV",
    "AllGatherV",
    "ReduceScatterV",
    "AllToAllV",
];
const OTHERS: [&str; 8] = [
    "split",
    "split_ranks",
    "duplicate",
    "group",
    "group message",
    "message to itself",
    "tagged message",
    "any source",
];

/// Counts of one kind.
#[derive(Clone, Debug, Default)]
struct Row {
    apart: u64,
    in_place: u64,
    zero: u64,
    grouped: u64,
    on_parts: u64,
    dtypes: BTreeSet<&'static str>,
    ops: BTreeSet<&'static str>,
    /// Ranks that did it.
    ranks: BTreeSet<usize>,
}

/// What ran on one transport.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Simulated groups have no messages of a rank to itself.
    is_simulated: bool,
    pub programs: u64,
    pub operations: u64,
    communicators: u64,
    rows: BTreeMap<&'static str, Row>,
}

fn kind(call: Call) -> &'static str {
    let name = format!("{call:?}");
    let end = name.find([' ', '(']).unwrap_or(name.len());
    KINDS.iter().find(|kind| **kind == &name[..end]).expect("every call is in the table")
}

impl Coverage {
    pub fn new(is_simulated: bool) -> Self {
        Coverage { is_simulated, ..Coverage::default() }
    }

    pub fn add(&mut self, program: &Program) {
        self.programs += 1;
        self.communicators += program.members.len() as u64;
        for step in &program.steps {
            let (is_part, ranks) = (step.on > 0, program.members_of(step).len());
            match &step.what {
                What::Create(creation) => {
                    let name = match creation.form {
                        Form::Colours(_) => "split",
                        Form::List(_) => "split_ranks",
                        Form::Duplicate => "duplicate",
                    };
                    self.row(name, ranks, is_part).apart += 1;
                    continue;
                }
                What::Call(call) => self.add_call(call, false, ranks, is_part),
                What::Group(bundle) => {
                    self.row("group", ranks, is_part).apart += 1;
                    bundle.calls.iter().for_each(|call| self.add_call(call, true, ranks, is_part));
                    self.add_messages(bundle, ranks, is_part);
                }
                What::Tagged(bundle) => self.add_messages(bundle, ranks, is_part),
            }
            self.operations += 1;
        }
    }

    fn row(&mut self, name: &'static str, ranks: usize, is_part: bool) -> &mut Row {
        let row = self.rows.entry(name).or_default();
        row.ranks.insert(ranks);
        row.on_parts += u64::from(is_part);
        row
    }

    fn add_call(&mut self, Checked { case, .. }: &Checked, is_grouped: bool, ranks: usize, is_part: bool) {
        let row = self.row(kind(case.call), ranks, is_part);
        *(if case.in_place { &mut row.in_place } else { &mut row.apart }) += 1;
        row.grouped += u64::from(is_grouped);
        row.zero += u64::from(case.count == 0);
        row.dtypes.insert(case.dtype.name());
        row.ops.extend(case.call.op().map(ReduceOp::name));
    }

    fn add_messages(&mut self, bundle: &Bundle, ranks: usize, is_part: bool) {
        for message in &bundle.messages {
            let name = match message.tag {
                Tag::None if message.from == message.to && self.is_simulated => continue,
                Tag::None if message.from == message.to => "message to itself",
                Tag::None => "group message",
                Tag::Named(_) => "tagged message",
                Tag::Any(_) => "any source",
            };
            let row = self.row(name, ranks, is_part);
            row.apart += 1;
            row.zero += u64::from(message.bytes.is_empty());
            row.dtypes.insert(message.dtype.name());
        }
    }

    /// Panics if something did not occur that can.
    pub fn assert_everything(&self, transport: &str) {
        let names = |dtypes: &mut dyn Iterator<Item = DataType>| -> BTreeSet<&str> {
            dtypes.map(DataType::name).collect()
        };
        let every_dtype = names(&mut DataType::TABLE.iter().map(|row| row.dtype));
        let every_op: BTreeSet<&str> = ReduceOp::TABLE.iter().map(|row| row.0.name()).collect();
        assert!(ReduceOp::TABLE.iter().all(|row| has(row.0, DataType::U8)), "every operation has a type");
        let can_occur = |name: &&&str| !self.is_simulated || **name != "message to itself";
        for name in KINDS.iter().chain(&OTHERS).filter(can_occur) {
            let row = self.rows.get(name).unwrap_or_else(|| panic!("{transport}: no {name}"));
            assert!(row.apart > 0 && row.on_parts > 0, "{transport}: {name} never on a part");
            if !KINDS.contains(name) {
                continue;
            }
            assert!(row.in_place > 0 && row.zero > 0, "{transport}: {name} never in place or with nothing");
            assert!(*name == "Shift" || row.grouped > 0, "{transport}: {name} never in a group");
            assert_eq!(row.dtypes, every_dtype, "{transport}: types of {name}");
            let has_op = matches!(*name, "AllReduce" | "ReduceScatter" | "Reduce" | "ReduceScatterV");
            assert!(!has_op || row.ops == every_op, "{transport}: operations of {name}: {:?}", row.ops);
            assert!((1..=6).all(|ranks| row.ranks.contains(&ranks)), "{transport}: {name}: {:?}", row.ranks);
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Coverage { programs, operations, communicators, .. } = self;
        writeln!(f, "{programs} programs, {operations} operations, {communicators} communicators")?;
        let titles = ["apart", "in place", "grouped", "on parts", "zero", "dtypes", "ops", "ranks"];
        write!(f, "{:18}", "")?;
        titles.iter().try_for_each(|title| write!(f, "{title:>9}"))?;
        writeln!(f)?;
        for name in KINDS.iter().chain(&OTHERS) {
            let row = self.rows.get(name).cloned().unwrap_or_default();
            let sizes = [row.dtypes.len(), row.ops.len()].map(|len| len as u64);
            let counts = [row.apart, row.in_place, row.grouped, row.on_parts, row.zero, sizes[0], sizes[1]];
            write!(f, "{name:18}")?;
            counts.iter().try_for_each(|count| write!(f, "{count:>9}"))?;
            let (least, most) = (row.ranks.first().unwrap_or(&0), row.ranks.last().unwrap_or(&0));
            writeln!(f, "{:>9}", format!("{least}-{most}"))?;
        }
        Ok(())
    }
}
