//! One rank at work: it keeps the buffers, runs the calls, times them and checks them.

use crate::buffer::Guarded;
use crate::call::Call;
use crate::layout::{Layout, View, ViewMut, Wrong};
use crate::orders::{Answer, How, Order};
use crate::pattern::Data;
use crate::target::{Error, Kind, Target};
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// From this size on, iterations are single calls, and only stamps are renewed between them: filling a larger buffer
/// would make ranks late.
pub(crate) const CALL_BY_CALL_BYTES: u64 = 4096;
/// Seed of the timed data; checks use their round.
const TIMED_SEED: u64 = 1 << 32;
/// How late one rank comes to a checked barrier.
const LATE: Duration = Duration::from_millis(2);

/// The one buffer and an unused one in place; input and output otherwise.
type Buffers = [Guarded; 2];

fn look(buffers: &Buffers) -> View<'_> {
    buffers.each_ref().map(Guarded::data)
}

fn touch(buffers: &mut Buffers) -> ViewMut<'_> {
    buffers.each_mut().map(Guarded::data_mut)
}

/// A rank with its communicator.
pub(crate) struct Rank<T> {
    /// The communicator.
    pub(crate) target: T,
    buffers: Buffers,
    case: Option<Case>,
    /// Counts what processor time this rank takes.
    cpu_clock: ClockId,
}

/// The prepared call.
#[derive(Clone, Copy)]
struct Case {
    call: Call,
    in_place: bool,
    check: bool,
}

/// A timed run in progress.
struct Run {
    case: Case,
    /// Whether all data are renewed and compared around a sample, or only stamps.
    whole: bool,
    calls_per_sample: u32,
    samples_ns: Vec<u64>,
    cpu_ns: u64,
    tally: Tally,
}

/// What was found wrong so far.
struct Tally {
    enabled: bool,
    wrong: u64,
    note: Option<String>,
}

impl Tally {
    fn new(enabled: bool) -> Self {
        Tally { enabled, wrong: 0, note: None }
    }

    fn add(&mut self, when: &str, verify: impl FnOnce() -> Wrong) {
        if !self.enabled {
            return;
        }
        let Wrong { elements, first } = verify();
        self.wrong += elements;
        if let Some(first) = first {
            self.note.get_or_insert_with(|| format!("{first} (after {when})"));
        }
    }

    fn add_guards(&mut self, buffers: &Buffers) {
        for (name, buffer) in ["buffer", "output"].iter().zip(buffers) {
            if let Some((offset, bytes)) = buffer.broken_guards().filter(|_| self.enabled) {
                self.wrong += bytes;
                let told =
                    format!("{bytes} guard bytes around the {name} changed, the first at offset {offset}");
                self.note.get_or_insert(told);
            }
        }
    }

    fn answer(self, samples_ns: Vec<u64>, cpu_ns: u64, calls: u64) -> Answer {
        Answer { samples_ns, cpu_ns, calls, wrong: self.wrong, note: self.note, how: How::default() }
    }
}

/// The time on a clock of the system in nanoseconds.
fn clock_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl<T: Target> Rank<T> {
    /// A rank without buffers yet.
    pub(crate) fn new(target: T) -> Result<Self, Error> {
        let cpu_clock = ClockId::ProcessCPUTime;
        Ok(Rank { target, buffers: [Guarded::new(0)?, Guarded::new(0)?], case: None, cpu_clock })
    }

    /// Counts processor time by this clock, if the process is not this rank's alone.
    pub(crate) fn counting_by(self, cpu_clock: ClockId) -> Self {
        Rank { cpu_clock, ..self }
    }

    /// Does what is asked.
    ///
    /// Errors: those of the library; a build that knows the collective no more.
    pub(crate) fn obey(&mut self, order: &Order) -> Result<Answer, Error> {
        match *order {
            Order::Prepare { call, in_place, check, capacity } => {
                let unknown =
                    || Error::internal("an order names a collective that this program does not know");
                let call = call.decode().ok_or_else(unknown)?;
                self.case = Some(Case { call, in_place, check });
                self.prepare(capacity)
            }
            Order::Choose(ref how) => {
                self.target.force(how.as_ref())?;
                Ok(Answer::default())
            }
            Order::Spin { calls } => self.spin(calls),
            Order::Measure { calls_per_sample, samples } => self.measure(calls_per_sample, samples),
            Order::Where { calls } => self.breakdown(calls),
            Order::Check { round } => self.check(round),
        }
    }

    /// The prepared call, selected again: the communicator may have carried other traffic since.
    fn select(&mut self) -> Result<Case, Error> {
        let case = self.case.ok_or_else(|| Error::internal("an order came before a call was prepared"))?;
        self.target.select(&case.call);
        Ok(case)
    }

    fn prepare(&mut self, capacity: u64) -> Result<Answer, Error> {
        let case = self.select()?;
        let needed = [capacity, if case.in_place { 0 } else { capacity }];
        for (buffer, needed) in self.buffers.iter_mut().zip(needed) {
            if buffer.capacity() < needed {
                *buffer = Guarded::new(0)?; // let go of the old one first
                *buffer = Guarded::new(needed)?;
            }
        }
        let how = self.target.how()?; // says whether the call is possible at all
        let answer = self.checked_call(Data::Plain { seed: 0 })?;
        Ok(Answer { how, ..answer })
    }

    /// One call from fresh data, untimed.
    fn checked_call(&mut self, data: Data) -> Result<Answer, Error> {
        let case = self.select()?;
        let data = if case.check { data } else { Data::Zero };
        let layout = Layout::new(&case.call, self.target.rank(), case.in_place, data)?;
        self.lay_out(&layout);
        self.call(case.in_place)?;
        let mut tally = Tally::new(case.check);
        tally.add("an untimed call", || layout.verify(look(&self.buffers)));
        tally.add_guards(&self.buffers);
        Ok(tally.answer(Vec::new(), 0, 0))
    }

    fn lay_out(&mut self, layout: &Layout) {
        for (buffer, len) in self.buffers.iter_mut().zip(layout.lengths()) {
            buffer.resize(len);
        }
        layout.fill(touch(&mut self.buffers));
    }

    #[inline]
    fn call(&mut self, in_place: bool) -> Result<(), Error> {
        let [first, second] = &mut self.buffers;
        if in_place {
            self.target.run_in_place(first.data_mut())
        } else {
            self.target.run(first.data(), second.data_mut())
        }
    }

    fn spin(&mut self, calls: u32) -> Result<Answer, Error> {
        let case = self.select()?;
        self.target.barrier()?;
        let start = Instant::now();
        for _ in 0..calls {
            self.call(case.in_place)?;
        }
        self.target.barrier()?; // behind a root calls pipeline: wait for the last one
        Ok(Answer { samples_ns: vec![start.elapsed().as_nanos() as u64], ..Answer::default() })
    }

    fn breakdown(&mut self, calls: u32) -> Result<Answer, Error> {
        let case = self.select()?;
        self.target.barrier()?;
        self.target.breakdown(true);
        for _ in 0..calls {
            self.call(case.in_place)?;
        }
        let parts = self.target.breakdown(false).unwrap_or_default();
        self.target.barrier()?;
        Ok(Answer { samples_ns: parts.to_vec(), calls: u64::from(calls), ..Answer::default() })
    }

    fn measure(&mut self, calls_per_sample: u32, samples: u32) -> Result<Answer, Error> {
        let case = self.select()?;
        let whole = case.call.bytes() < CALL_BY_CALL_BYTES;
        let accumulates = case.in_place && case.call.accumulates_in_place();
        let layout = self.timed_layout(case, whole, accumulates, calls_per_sample)?;
        self.lay_out(&layout);
        // Long runs of an accumulating call carry few data; the last iteration carries plain ones, all checked.
        let closing = u32::from(case.check && accumulates && !whole).min(samples);
        let samples_ns = Vec::with_capacity(samples as usize);
        let mut run =
            Run { case, whole, calls_per_sample, samples_ns, cpu_ns: 0, tally: Tally::new(case.check) };
        self.timed(&mut run, &layout, samples - closing)?;
        if !whole {
            layout.clear_stamps_to_rest(touch(&mut self.buffers));
            run.tally.add("the end of the timed calls", || layout.verify(look(&self.buffers)));
        }
        if closing > 0 {
            let data = Data::Plain { seed: TIMED_SEED + 1 };
            let layout = Layout::new(&case.call, self.target.rank(), case.in_place, data)?;
            self.lay_out(&layout);
            run.whole = true;
            self.timed(&mut run, &layout, closing)?;
        }
        run.tally.add_guards(&self.buffers);
        let calls = u64::from(calls_per_sample) * u64::from(samples);
        Ok(run.tally.answer(run.samples_ns, run.cpu_ns, calls))
    }

    fn timed_layout(&self, case: Case, whole: bool, accumulates: bool, calls: u32) -> Result<Layout, Error> {
        let rank = self.target.rank();
        let data = match (case.check, accumulates) {
            (false, _) => Data::Zero,
            (true, true) => Data::Repeated { calls },
            (true, false) => Data::Plain { seed: TIMED_SEED },
        };
        if whole || !case.check {
            Layout::new(&case.call, rank, case.in_place, data)
        } else {
            Layout::stamped(&case.call, rank, case.in_place, TIMED_SEED)
        }
    }

    /// The timed loop. Between two samples stands only what cannot delay a rank much: a small buffer or a few stamps
    /// are looked at and renewed; behind a root, an untimed barrier. Processor time is that of calls and barriers alone.
    fn timed(&mut self, run: &mut Run, layout: &Layout, samples: u32) -> Result<(), Error> {
        let in_place = run.case.in_place;
        self.target.barrier()?;
        let mut cpu = clock_ns(self.cpu_clock);
        for _ in 0..samples {
            if run.case.call.is_rooted() {
                self.target.barrier()?;
            }
            let start = Instant::now();
            for _ in 0..run.calls_per_sample {
                self.call(in_place)?;
            }
            run.samples_ns.push(start.elapsed().as_nanos() as u64);
            if !run.case.check {
                continue;
            }
            run.cpu_ns += clock_ns(self.cpu_clock) - cpu;
            if run.whole {
                run.tally.add("a timed call", || layout.verify(look(&self.buffers)));
                layout.fill(touch(&mut self.buffers));
            } else {
                run.tally.add("a timed call", || layout.verify_stamps(look(&self.buffers)));
                layout.fill_stamps(touch(&mut self.buffers));
            }
            cpu = clock_ns(self.cpu_clock);
        }
        run.cpu_ns += clock_ns(self.cpu_clock) - cpu;
        Ok(())
    }

    fn check(&mut self, round: u32) -> Result<Answer, Error> {
        let case = self.select()?;
        if case.call.kind != Kind::Barrier {
            return self.checked_call(Data::Plain { seed: 1 + u64::from(round) });
        }
        self.target.barrier()?;
        if self.target.rank() == round % case.call.ranks {
            std::thread::sleep(LATE);
        }
        // The monotonic clock is the same for all threads and processes of a host.
        let entered = clock_ns(ClockId::Monotonic);
        self.call(false)?;
        let samples_ns = vec![entered, clock_ns(ClockId::Monotonic)];
        Ok(Answer { samples_ns, ..Answer::default() })
    }
}
