//! Simulated rows: the same plans in virtual time.

use crate::bound::Ports;
use crate::call::Call;
use crate::failure::{Failure, Outcome};
use crate::layout::Layout;
use crate::measure::{Measure, Measured, Simulated};
use crate::observe::Observers;
use crate::orders::How;
use crate::pattern::{Data, Totals};
use crate::progress::{self, Progress};
use crate::stats::Times;
use crate::target::{Error, Machine, Moment, Simulation};
use crate::units::show_bytes;
use std::time::Instant;

/// So many bytes a call may move (each rank's to each rank: the one-shot mesh does) to run on real data, bits
/// compared; above, it runs on fingerprints of who contributed what, checked too.
const MOST_REAL_BYTES: u64 = 256 << 20;

/// The largest size for which so many ranks simulate real data.
pub(crate) fn most_real_bytes(ranks: u32) -> u64 {
    MOST_REAL_BYTES / (u64::from(ranks) * u64::from(ranks))
}

/// Measures with a simulated machine.
pub(crate) struct Simulator {
    /// The machine.
    pub(crate) machine: Machine,
    /// Calls that count.
    pub(crate) iterations: u32,
    /// Calls before.
    pub(crate) warmup: u32,
    /// Whether data are checked.
    pub(crate) check: bool,
    /// What the machine's ports can do at best.
    pub(crate) ports: Ports,
    /// Who wants to know more than times, of each first iteration.
    pub(crate) observers: Observers,
    /// Who is told how far it is.
    pub(crate) progress: Progress,
}

impl Measure for Simulator {
    fn measure(&mut self, call: &Call, in_place: bool, _capacity: u64) -> Outcome<Measured> {
        let (begun, progress) = (self.machine.now(), self.progress.clone());
        let expected_ps = self.machine.expected_ps(call).filter(|_| progress.is_on());
        self.machine.observe(progress.is_on().then(|| {
            let observer = move |moment: Moment| {
                let (now_ps, messages) = (moment.now_ps - begun.now_ps, moment.messages - begun.messages);
                progress.simulated(progress::Simulated { now_ps, expected_ps, messages });
            };
            Box::new(observer) as Box<dyn FnMut(Moment) + Send>
        }));
        for _ in 0..self.warmup {
            self.machine.run_phantom(call, in_place)?;
        }
        let is_real = self.check && call.bytes() <= most_real_bytes(call.ranks);
        let mut times_us = Vec::new();
        let (mut wrong, mut note, mut how) = (0, None, How::default());
        let bound_us = self.ports.bound_us(call);
        let mut all =
            Simulated { messages: 0, events: 0, retries: 0, lost: 0, hash: 0, real_us: 0.0, bound_us };
        let mut explained = None;
        for iteration in 0..self.iterations {
            let is_recorded = iteration == 0 && self.observers.record();
            if is_recorded {
                self.machine.start_recording();
            }
            let (simulation, found) = if is_real {
                self.run_real(call, in_place, u64::from(iteration))?
            } else {
                self.run_phantom(call, in_place)?
            };
            if is_recorded {
                let recording = self.machine.stop_recording();
                explained = self.observers.see(&recording, &title(call, in_place, &simulation.how))?;
            }
            times_us.push(simulation.elapsed_ps as f64 / 1e6);
            wrong += simulation.wrong;
            note = note.or(found);
            all.messages += simulation.events.messages;
            all.events += simulation.events.events;
            all.retries += simulation.events.retries;
            all.lost += simulation.events.lost;
            all.hash = simulation.events.hash; // the last one covers those before
            all.real_us += simulation.events.real_us;
            how = simulation.how;
        }
        Ok(Measured {
            times: Times::of(times_us)
                .ok_or_else(|| Failure::new("--iters 0 measures nothing; use 1 or more"))?,
            iterations: self.iterations,
            calls_per_iteration: 1,
            how,
            wrong: self.check.then_some(wrong),
            note,
            cpu_us: 0.0, // virtual ranks use no processor
            simulated: Some(all),
            breakdown_us: None,
            explained,
        })
    }
}

/// A call, for a picture.
fn title(call: &Call, in_place: bool, how: &How) -> [String; 2] {
    let place = if in_place { "in place" } else { "out of place" };
    let (kind, dtype, bytes) = (call.kind.name(), call.dtype.name(), show_bytes(call.bytes()));
    let above = format!("Links over time: {kind} of {bytes} ({dtype}, {place}), {} ranks", call.ranks);
    [above, format!("algorithm: {how}")]
}

impl Simulator {
    fn run_phantom(&mut self, call: &Call, in_place: bool) -> Result<(Simulation, Option<String>), Error> {
        let start = Instant::now();
        let mut simulation = self.machine.run_phantom(call, in_place)?;
        simulation.events.real_us = start.elapsed().as_nanos() as f64 / 1000.0;
        let told = || format!("{} elements have other contributors than they should", simulation.wrong);
        let note = (simulation.wrong > 0).then(told);
        Ok((simulation, note))
    }

    fn run_real(
        &mut self,
        call: &Call,
        in_place: bool,
        seed: u64,
    ) -> Result<(Simulation, Option<String>), Error> {
        let totals = Totals::new(call, Data::Plain { seed })?;
        let ranks = 0..call.ranks;
        let layouts: Vec<Layout> =
            ranks.map(|rank| Layout::with_totals(&totals, rank, in_place)).collect::<Result<_, _>>()?;
        let mut data: Vec<[Vec<u8>; 2]> =
            layouts.iter().map(|layout| layout.lengths().map(|len| vec![0; len as usize])).collect();
        for (layout, buffers) in layouts.iter().zip(&mut data) {
            layout.fill(buffers.each_mut().map(Vec::as_mut_slice));
        }
        let start = Instant::now();
        let mut simulation = self.machine.run_real(call, in_place, &mut data)?;
        simulation.events.real_us = start.elapsed().as_nanos() as f64 / 1000.0;
        let mut note = None;
        for (rank, (layout, buffers)) in layouts.iter().zip(&data).enumerate() {
            let wrong = layout.verify(buffers.each_ref().map(Vec::as_slice));
            simulation.wrong += wrong.elements;
            note = note.or(wrong.first.map(|first| format!("rank {rank}: {first}")));
        }
        Ok((simulation, note))
    }
}

/// The most memory this process has had, in bytes, if the system tells.
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_memory_is_told_by_the_system() {
        assert!(peak_memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
