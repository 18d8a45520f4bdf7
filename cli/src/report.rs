//! The sweep: every type, operation, root and size in turn, as table and as JSON lines.

use crate::call::Call;
use crate::failure::{Failure, Outcome};
use crate::json::{Circumstances, JsonLines};
use crate::measure::{Effort, Explained, Measure, Measured};
use crate::plot::Plot;
use crate::progress::Progress;
use crate::sweep::{Step, Sweep};
use crate::table;
use crate::target::{DataType, Kind, ReduceOp};
use crate::units::show_bytes;
use std::io::Write;

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Agenda {
    /// The collective.
    pub(crate) kind: Kind,
    /// The sizes.
    pub(crate) sweep: Sweep,
    /// The element types in turn.
    pub(crate) dtypes: Vec<DataType>,
    /// The operations in turn; the first alone if nothing is reduced.
    pub(crate) ops: Vec<ReduceOp>,
    /// The roots in turn; the first alone if there is none.
    pub(crate) roots: Vec<u32>,
    /// How many ranks.
    pub(crate) ranks: u32,
    /// How much is measured.
    pub(crate) effort: Effort,
    /// The transport's name.
    pub(crate) transport: String,
    /// More lines for the head of the table, without `#`.
    pub(crate) remarks: Vec<String>,
    /// What results are compared with, where that is known.
    pub(crate) bound: Option<String>,
}

impl Agenda {
    /// Every call with the size that was asked for, in nccl-tests' order. Of `all` types and operations, those pairs
    /// that exist; one pair that does not is left for the library to refuse.
    pub(crate) fn calls(&self) -> Vec<(Call, u64)> {
        let row = self.kind.row();
        let ops = if row.reduces { &self.ops[..] } else { &self.ops[..1] };
        let roots = if row.rooted { &self.roots[..] } else { &self.roots[..1] };
        let mut calls = Vec::new();
        for &dtype in &self.dtypes {
            let is_only = self.dtypes.len() == 1 && ops.len() == 1;
            for &op in ops.iter().filter(|op| is_only || op.supports(dtype).is_ok()) {
                for &root in roots {
                    let call = Call { kind: self.kind, count: 0, dtype, op, root, ranks: self.ranks };
                    calls.extend(self.sizes(dtype).map(|asked| (call.sized(asked), asked)));
                }
            }
        }
        calls
    }

    fn sizes(&self, dtype: DataType) -> impl Iterator<Item = u64> {
        let most = if self.kind == Kind::Barrier { 1 } else { usize::MAX }; // every size is the same barrier
        self.sweep.sizes(dtype.size() as u64).take(most)
    }

    /// The lines above the table, nccl-tests' first.
    fn head(&self) -> String {
        let Sweep { min_bytes, max_bytes, step } = self.sweep;
        let (step, unit) = match step {
            Step::Factor(factor) => (factor, "factor"),
            Step::Bytes(bytes) => (bytes, "bytes"),
            Step::Points(points) => (u64::from(points), "points"),
        };
        let or_auto = |number: Option<u32>| number.map_or("auto".to_owned(), |number| number.to_string());
        let Effort { iterations, warmup, checks, .. } = self.effort;
        let mut head = format!(
            "# ubccl version {}\n# Collective test starting: {}_perf\n# nThread 1 nGpus 1 minBytes {min_bytes} \
             maxBytes {max_bytes} step: {step}({unit}) warmup iters: {} iters: {} agg iters: 1 validation: {checks} \
             graph: 0 unalign: 0\n#\n",
            env!("CARGO_PKG_VERSION"),
            self.kind.name(),
            or_auto(warmup),
            or_auto(iterations),
        );
        for remark in &self.remarks {
            head += &format!("# {remark}\n");
        }
        if let Some(bound) = &self.bound {
            head += &format!("# {bound}\n");
        }
        head + &table::header(self.bound.is_some())
    }
}

/// Where the results go.
pub(crate) struct Report<'a> {
    /// Standard output.
    pub(crate) out: &'a mut dyn Write,
    /// The file of `--json`.
    pub(crate) json: Option<JsonLines>,
    /// A word behind every row, for results that must not be taken for measurements.
    pub(crate) mark: &'static str,
    /// The picture of `--plot`.
    pub(crate) plot: Option<Plot>,
    /// The line that says how far it is.
    pub(crate) progress: Progress,
}

/// What all rows together say.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    bus_bandwidths: Vec<f64>,
    out_of_bounds: u64,
    /// Messages, events and real time of all simulations.
    pub(crate) messages: u64,
    /// How often bytes were sent again.
    pub(crate) retries: u64,
    /// Messages that were lost with a rank.
    pub(crate) lost: u64,
    /// Real time of all simulations.
    pub(crate) real_us: f64,
    /// One hash over the hashes of all simulations, in order.
    pub(crate) hash: u64,
}

impl Summary {
    fn add(&mut self, call: &Call, measured: &Measured) {
        self.bus_bandwidths.push(call.bandwidths(measured.times.p50_us).1);
        self.out_of_bounds += u64::from(measured.wrong > Some(0));
        if let Some(simulated) = measured.simulated {
            self.messages += simulated.messages;
            self.retries += simulated.retries;
            self.lost += simulated.lost;
            self.real_us += simulated.real_us;
            // FNV's prime for 64 bits: the order matters.
            self.hash = (self.hash ^ simulated.hash).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn mean_bus_bandwidth(&self) -> f64 {
        self.bus_bandwidths.iter().sum::<f64>() / self.bus_bandwidths.len().max(1) as f64
    }
}

/// Measures everything on the agenda; the footer is printed too, but wrong elements are not yet a failure.
pub(crate) fn run(agenda: &Agenda, measure: &mut dyn Measure, report: &mut Report<'_>) -> Outcome<Summary> {
    print(report.out, &agenda.head())?;
    let calls = agenda.calls();
    let capacity = calls.iter().map(|(call, _)| call.bytes()).max().unwrap_or(0);
    let mut summary = Summary::default();
    let mut algorithm = String::new();
    let halves_of = |call: &Call| 1 + usize::from(call.has_in_place());
    let (mut index, count) = (0, calls.iter().map(|(call, _)| halves_of(call)).sum());
    for (call, asked_bytes) in &calls {
        let mut halves = [None, None];
        for in_place in [false, true] {
            if in_place && !call.has_in_place() {
                continue;
            }
            let placement = if in_place { "in place" } else { "out of place" };
            report.progress.begin(format!("{}, {placement}", show_bytes(call.bytes())), index, count);
            let measured = measure.measure(call, in_place, capacity)?;
            report.progress.end();
            index += 1;
            if let Some(json) = &mut report.json {
                let transport = &agenda.transport;
                json.write(
                    call,
                    Circumstances { asked_bytes: *asked_bytes, in_place, transport },
                    &measured,
                )?;
            }
            if let Some(plot) = &mut report.plot {
                plot.add(call, in_place, &measured)?;
            }
            summary.add(call, &measured);
            halves[usize::from(in_place)] = Some(measured);
        }
        report.progress.clear();
        print(report.out, &row(call, &halves, &mut algorithm, report.mark))?;
    }
    print(report.out, &table::footer(summary.out_of_bounds, summary.mean_bus_bandwidth()))?;
    Ok(summary)
}

/// The lines of one row: how it was done if that is another than before, the row, what is wrong.
fn row(call: &Call, halves: &[Option<Measured>; 2], algorithm: &mut String, mark: &str) -> String {
    let mut names: Vec<String> = halves.iter().flatten().map(|half| half.how.to_string()).collect();
    names.dedup();
    let names = names.join(", in place: ");
    let mut text = String::new();
    if names != *algorithm {
        text += &format!("# algorithm: {names}\n");
        *algorithm = names;
    }
    let mut row = table::row_start(call);
    for half in halves {
        row += &table::row_half(call, half.as_ref());
    }
    text += &table::with_bound(row, halves.each_ref().map(Option::as_ref));
    text += &format!("{mark}\n");
    for note in halves.iter().flatten().filter_map(|half| half.note.as_ref()) {
        text += &format!("# wrong: {note}\n");
    }
    for (place, half) in ["out-of-place", "in-place"].iter().zip(halves) {
        if let Some([check, look_up, post, poll]) = half.as_ref().and_then(|half| half.breakdown_us) {
            text += &format!(
                "# where ({place}, us per call on rank 0): check {check:.3}, look-up {look_up:.3}, post {post:.3}, \
                 poll {poll:.3}\n"
            );
        }
        if let Some(explained) = half.as_ref().and_then(|half| half.explained.as_ref()) {
            text += &explanation(place, explained);
        }
    }
    text
}

/// Where a simulated call's time goes.
fn explanation(place: &str, explained: &Explained) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let classes = explained.links.iter().map(|class| {
        let busiest = if class.busiest.is_empty() {
            String::new()
        } else {
            format!(" (most {}: {})", class.busiest, percent(class.most))
        };
        format!("{} {}{busiest}", class.class, percent(class.mean))
    });
    let links = classes.collect::<Vec<_>>().join(", ");
    format!("# where ({place}): {}\n# links in use ({place}): {links}\n", explained.path)
}

/// Writes to standard output at once.
pub(crate) fn print(out: &mut dyn Write, text: &str) -> Outcome<()> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::from_output)
}

/// The last line, and whether all was right.
pub(crate) fn conclude(agenda: &Agenda, summary: &Summary, out: &mut dyn Write) -> Outcome<()> {
    print(out, &format!("# Collective test concluded: {}_perf\n", agenda.kind.name()))?;
    if summary.out_of_bounds > 0 { Err(Failure::Told) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::measured;

    struct Scripted(Vec<(bool, Option<u64>)>, usize);

    impl Measure for Scripted {
        fn measure(&mut self, _: &Call, in_place: bool, _: u64) -> Outcome<Measured> {
            let (expected_in_place, wrong) = self.0[self.1 % self.0.len()];
            assert_eq!(in_place, expected_in_place);
            self.1 += 1;
            Ok(Measured {
                note: wrong.filter(|&w| w > 0).map(|_| "rank 1: bad".into()),
                ..measured(2.0, wrong)
            })
        }
    }

    fn agenda(kind: Kind) -> Agenda {
        Agenda {
            kind,
            sweep: Sweep::new(Some(8), Some(16), None, None).unwrap(),
            dtypes: vec![DataType::F32, DataType::U8],
            ops: vec![ReduceOp::Sum, ReduceOp::Max],
            roots: vec![0, 1],
            ranks: 2,
            effort: Effort { iterations: Some(20), warmup: None, checks: 1, breakdown: false },
            transport: "shm".into(),
            remarks: vec!["two threads".into()],
            bound: None,
        }
    }

    fn run_to_text(agenda: &Agenda, script: Vec<(bool, Option<u64>)>) -> (String, Outcome<()>) {
        let mut out = Vec::new();
        let mut report =
            Report { out: &mut out, json: None, mark: "", plot: None, progress: Progress::new(false) };
        let summary = run(agenda, &mut Scripted(script, 0), &mut report).unwrap();
        let verdict = conclude(agenda, &summary, &mut out);
        (String::from_utf8(out).unwrap(), verdict)
    }

    #[test]
    fn of_all_types_and_operations_those_pairs_come_that_exist() {
        let dtypes = vec![DataType::F32, DataType::U8];
        let both = Agenda { dtypes, ops: vec![ReduceOp::Sum, ReduceOp::Xor], ..agenda(Kind::AllReduce) };
        let pairs: Vec<_> = both.calls().iter().map(|(call, _)| (call.dtype, call.op)).collect();
        assert!(
            pairs.contains(&(DataType::U8, ReduceOp::Xor)) && pairs.contains(&(DataType::F32, ReduceOp::Sum))
        );
        assert!(!pairs.contains(&(DataType::F32, ReduceOp::Xor)));
        let one = Agenda { dtypes: vec![DataType::F32], ops: vec![ReduceOp::Xor], ..agenda(Kind::AllReduce) };
        assert!(!one.calls().is_empty(), "the library tells what is wrong with it");
    }

    #[test]
    fn a_whole_report_reads_like_nccl_tests() {
        let only =
            Agenda { dtypes: vec![DataType::F32], ops: vec![ReduceOp::Sum], ..agenda(Kind::AllReduce) };
        let (text, verdict) = run_to_text(&only, vec![(false, Some(0)), (true, Some(0))]);
        assert!(verdict.is_ok());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "# Collective test starting: all_reduce_perf");
        assert_eq!(
            lines[2],
            "# nThread 1 nGpus 1 minBytes 8 maxBytes 16 step: 2(factor) warmup iters: auto iters: 20 agg iters: 1 \
             validation: 1 graph: 0 unalign: 0"
        );
        assert_eq!(lines[4], "# two threads");
        let end = [
            "# algorithm: ring, lanes 2, chunk 64 KiB",
            "           8             2     float     sum      -1     2.00    0.00    0.00       0     2.00    0.00    0.00       0",
            "          16             4     float     sum      -1     2.00    0.01    0.01       0     2.00    0.01    0.01       0",
            "# Out of bounds values : 0 OK",
            "# Avg bus bandwidth    : 0.006 ",
            "#",
            "# Collective test concluded: all_reduce_perf",
        ];
        assert_eq!(lines[lines.len() - end.len()..], end);
    }

    #[test]
    fn every_type_operation_and_root_has_its_rows() {
        assert_eq!(agenda(Kind::AllReduce).calls().len(), 2 * 2 * 2);
        assert_eq!(agenda(Kind::Broadcast).calls().len(), 2 * 2 * 2);
        assert_eq!(agenda(Kind::AllGather).calls().len(), 2 * 2);
        assert_eq!(agenda(Kind::Reduce).calls().len(), 2 * 2 * 2 * 2);
        assert_eq!(agenda(Kind::Gather).calls().len(), 2 * 2 * 2);
        assert_eq!(agenda(Kind::AllToAll).calls().len(), 2 * 2);
        assert_eq!(agenda(Kind::Barrier).calls().len(), 2);
    }

    #[test]
    fn wrong_elements_fail_and_are_told() {
        let (text, verdict) = run_to_text(&agenda(Kind::AllReduce), vec![(false, Some(0)), (true, Some(3))]);
        assert!(matches!(verdict, Err(Failure::Told)));
        assert!(text.contains("# wrong: rank 1: bad\n"));
        assert!(text.contains("# Out of bounds values : 8 FAILED\n"), "{text}");
    }

    #[test]
    fn a_barrier_has_no_in_place_half() {
        let only = Agenda { dtypes: vec![DataType::F32], ..agenda(Kind::Barrier) };
        let (text, _) = run_to_text(&only, vec![(false, Some(0))]);
        assert!(text.contains(
            "           0             0     float    none      -1     2.00    0.00    0.00       0      N/A"
        ));
    }

    #[test]
    fn a_closed_standard_output_ends_quietly_and_a_full_one_says_what_to_do() {
        struct Broken(std::io::ErrorKind);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let closed = print(&mut Broken(std::io::ErrorKind::BrokenPipe), "x");
        assert!(matches!(closed, Err(Failure::NobodyListens)));
        let Err(Failure::Message(text)) = print(&mut Broken(std::io::ErrorKind::StorageFull), "x") else {
            panic!()
        };
        assert!(text.contains("free space"));
    }
}
