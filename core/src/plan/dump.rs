//! A plan as text.

use super::{Action, After, At, Cut, Edge, Index, Peers, Plan, Shape, Slice, Trips};
use std::fmt;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spec = self.spec();
        write!(f, "plan {} {}", self.algorithm, spec.kind.name())?;
        write!(f, " rank {} of {}", spec.rank, spec.ranks)?;
        if let Some(root) = spec.root {
            write!(f, " root {root}")?;
        }
        let place = if spec.in_place { "in place" } else { "out of place" };
        writeln!(f, " {place}, order {:?}, number {:#010x}", self.association, self.number())?;
        if let Some(scratch) = &self.scratch {
            writeln!(f, "  scratch {} x {}", scratch.slots, scratch.shape)?;
        }
        for (index, lane) in self.lanes.iter().enumerate() {
            writeln!(f, "  lane {index}, window {}", lane.window)?;
            for turn in &lane.loops {
                writeln!(f, "    for outer in 0..{}, inner in 0..{}", turn.outer, turn.inner)?;
                for step in &turn.steps {
                    write!(f, "      {}", step.action)?;
                    for after in &step.after {
                        write!(f, " {}", Named(self, after))?;
                    }
                    writeln!(f)?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Send { from, to } => write!(f, "send {from} -> {to}"),
            Action::Receive { into, from } => write!(f, "receive {into} <- {from}"),
            Action::ReceiveReduce { sources, own, into } => {
                write!(f, "receive_reduce {into} <- {sources} own {own}")
            }
            Action::Copy { from, into } => write!(f, "copy {into} <- {from}"),
        }
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slice::Empty => f.write_str("nothing"),
            Slice::Of(shape) => shape.fmt(f),
            Slice::Scratch { slot, shape, part } => {
                write!(f, "scratch[{slot}]")?;
                part.iter().try_for_each(|cut| cut.fmt(f))?;
                write!(f, " as {shape}")
            }
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", format!("{:?}", self.buffer).to_lowercase())?;
        self.cuts.iter().try_for_each(|cut| cut.fmt(f))
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cut::Even { parts, index } => write!(f, ".block({index} of {parts})"),
            Cut::Span { parts, first, blocks } => write!(f, ".blocks({first}, {blocks} of {parts})"),
            Cut::Times(times) => write!(f, ".times({times})"),
            Cut::Chunk { elements, index } => write!(f, ".chunk({index} x {elements})"),
            Cut::Block { side, index } => write!(f, ".{}({index})", side.name()),
        }
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(side) = self.table {
            return write!(f, "peer of {}({})", side.name(), Index { table: None, ..*self });
        }
        if self.per_outer == 0 && self.per_inner == 0 {
            return self.at(At::default()).fmt(f);
        }
        // On a circle, the base's place on it says the same.
        let base = match self.modulo {
            0 => i64::from(self.base),
            modulo => i64::from(self.base).rem_euclid(i64::from(modulo)),
        };
        let mut sum = if base == 0 { String::new() } else { base.to_string() };
        for (factor, name) in [(self.per_outer, "outer"), (self.per_inner, "inner")] {
            let sign = if factor < 0 { "-" } else { "+" };
            match factor.unsigned_abs() {
                0 => {}
                1 => sum += &format!("{sign}{name}"),
                times => sum += &format!("{sign}{times}*{name}"),
            }
        }
        let sum = sum.trim_start_matches('+');
        match (self.offset, self.modulo) {
            (0, 0) => f.write_str(sum)?,
            (0, modulo) => write!(f, "({sum}) mod {modulo}")?,
            (offset, 0) => write!(f, "{offset}+{sum}")?,
            (offset, modulo) => write!(f, "{offset}+({sum}) mod {modulo}")?,
        }
        if self.wrap == 0 { Ok(()) } else { write!(f, " wrapped at {}", self.wrap) }
    }
}

impl fmt::Display for Trips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trips::Fixed(trips) => trips.fmt(f),
            Trips::Chunks { shape, elements } => write!(f, "chunks({shape} by {elements})"),
            Trips::Entries(side) => write!(f, "entries({})", side.name()),
        }
    }
}

impl fmt::Display for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peers::Run { first, stride, count } => write!(f, "[{first}, step {stride}, {count} ranks]"),
            Peers::List(list) => {
                let list: Vec<_> = list.iter().map(Index::to_string).collect();
                write!(f, "[{}]", list.join(", "))
            }
        }
    }
}

struct Named<'a>(&'a Plan, &'a After);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Named(plan, after) = self;
        let place = plan.place(after.step);
        let edge = if after.edge == Edge::Whole { "after" } else { "elementwise after" };
        write!(f, "({edge} lane {} loop {} step {}", place.lane, place.turn, place.body)?;
        write!(f, " at {}, {})", after.outer, after.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_read_like_arithmetic() {
        let circle = Index::on_circle(-2, 4);
        for (index, text) in [
            (circle, "2"),
            (circle.per_outer(-1), "(2-outer) mod 4"),
            (Index::OUTER.plus(-1), "-1+outer"),
            (Index::fixed(1).per_outer(4), "1+4*outer"),
            (Index::INNER, "inner"),
            (Index::on_circle(0, 7).per_inner(-1).from(3, 8), "3+(-inner) mod 7 wrapped at 8"),
        ] {
            assert_eq!(index.to_string(), text);
        }
    }
}
