//! Traces for the Perfetto viewer (<https://ui.perfetto.dev>), in its own binary format.
//!
//! A process stands for each rank, with a track for its operations, one for what it folds and copies, one for what its
//! program computes and one for each of its ports; one more process has the links that ranks share, one the critical
//! path of each operation. A message is a slice on each port that it has to itself, joined by an arrow; a shared link
//! has a counter, in percent of its rate. Slices that overlap on one track get rows of it.
//!
//! The viewer counts in nanoseconds: times are rounded down to them. Every slice has the picoseconds beside, `from_ps`
//! and `until_ps`.

mod proto;
mod rows;
#[cfg(test)]
mod tests;

use super::{At, Recording, What};
use prost::Message as _;
use proto::{
    Data, DebugAnnotation, EventType, InternedData, Name, TracePacket, TrackDescriptor, TrackEvent, Value,
};
use rows::{Slice, rows};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Result, Write};

/// Picoseconds of a nanosecond.
const PS_PER_NS: u64 = 1_000;
/// All packets are of one sequence: names are numbered within it.
const SEQUENCE: u32 = 1;
/// Tracks inside a process, in the order shown.
const OPERATIONS: &str = "operations";
const ENGINE: &str = "folds and copies";
const PROGRAM: &str = "program";
const INCIDENTS: &str = "incidents";

/// A trace that is being written. Recordings of one world are added one after the other.
#[derive(Debug)]
pub struct Trace<W: Write> {
    out: W,
    /// Numbers of names of slices, and of annotations.
    names: BTreeMap<String, u64>,
    keys: BTreeMap<&'static str, u64>,
    /// Numbers of tracks, by process and name.
    tracks: BTreeMap<(i32, String), u64>,
    /// Messages of the recordings before.
    messages: u64,
    has_begun: bool,
}

impl<W: Write> Trace<W> {
    /// An empty trace.
    pub fn new(out: W) -> Self {
        let (names, keys, tracks) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Trace { out, names, keys, tracks, messages: 0, has_begun: false }
    }

    /// Appends what was recorded.
    ///
    /// Errors: those of the writer.
    pub fn add(&mut self, recording: &Recording) -> Result<()> {
        self.add_operations(recording)?;
        self.add_doings(recording)?;
        self.add_messages(recording)?;
        self.add_loads(recording)?;
        self.add_incidents(recording)?;
        self.add_critical_paths(recording)?;
        self.messages += recording.record.messages.len() as u64;
        self.out.flush()
    }

    /// Gives the writer back.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn add_operations(&mut self, recording: &Recording) -> Result<()> {
        let mut slices: BTreeMap<u32, Vec<Slice>> = BTreeMap::new();
        for operation in &recording.operations {
            for (share, span) in operation.ranks.iter().filter_map(|share| Some((share, share.span?))) {
                let until_ps = span.end_ps.unwrap_or(span.begin_ps);
                let slice = Slice::new(&operation.text, span.begin_ps, until_ps)
                    .with("algorithm", Value::Text(operation.algorithm.to_owned()))
                    .with("sequence", Value::Number(operation.sequence))
                    .with("communicator", Value::Number(operation.communicator.0.into()));
                slices.entry(share.rank).or_default().push(slice);
            }
        }
        for (rank, slices) in slices {
            self.add_slices(&Process::rank(rank), OPERATIONS, slices)?;
        }
        Ok(())
    }

    /// What ranks do themselves.
    fn add_doings(&mut self, recording: &Recording) -> Result<()> {
        let mut slices: BTreeMap<(u32, &str), Vec<Slice>> = BTreeMap::new();
        for stretch in &recording.record.stretches {
            let track = match stretch.what {
                What::Reduction | What::Copy | What::StartUp => ENGINE,
                What::Compute | What::Waiting => PROGRAM,
                _ => continue,
            };
            if let At::Rank(rank) = stretch.at {
                let slice = Slice::new(stretch.what.name(), stretch.from_ps, stretch.until_ps);
                slices.entry((rank, track)).or_default().push(slice);
            }
        }
        for ((rank, track), slices) in slices {
            self.add_slices(&Process::rank(rank), track, slices)?;
        }
        Ok(())
    }

    /// Messages on the links that they have to themselves.
    fn add_messages(&mut self, recording: &Recording) -> Result<()> {
        let record = &recording.record;
        // A message comes to its links in order.
        let (mut first_of, mut last_of) =
            (vec![usize::MAX; record.messages.len()], vec![0; record.messages.len()]);
        let mut by_link: Vec<Vec<usize>> = vec![Vec::new(); record.links.len()];
        for (k, occupied) in record.occupations.iter().enumerate() {
            let message = occupied.message as usize;
            first_of[message] = first_of[message].min(k);
            last_of[message] = k;
            by_link[occupied.link.0 as usize].push(k);
        }
        for (link, occupations) in record.links.iter().zip(by_link) {
            let slices = occupations.into_iter().map(|k| {
                let occupied = &record.occupations[k];
                let message = &record.messages[occupied.message as usize];
                let name = format!("{} → {}", message.from, message.to);
                let mut slice = Slice::new(&name, occupied.from_ps, occupied.until_ps)
                    .with("bytes", Value::Number(message.bytes))
                    .with("posted_ps", Value::Number(record.posts[message.sent_by.0 as usize].posted_ps));
                let flow = Some(self.messages + u64::from(occupied.message) + 1);
                let is_end = last_of[occupied.message as usize] == k;
                match first_of[occupied.message as usize] < k && is_end {
                    true => slice.ends_flow = flow,
                    false => slice.flow = flow,
                }
                slice
            });
            let slices = slices.collect();
            self.add_slices(&Process::of_link(link.rank), &link.name, slices)?;
        }
        Ok(())
    }

    fn add_loads(&mut self, recording: &Recording) -> Result<()> {
        let record = &recording.record;
        for load in &record.loads {
            let link = &record.links[load.link.0 as usize];
            let process = Process::of_link(link.rank);
            let track_uuid = self.track(&process, format!("{} in use", link.name), Some("%"))?;
            let share = 100.0 * load.bytes_per_s as f64 / link.rate_bytes_per_s as f64;
            let event = TrackEvent {
                r#type: EventType::Counter.into(),
                track_uuid,
                double_counter_value: Some(share),
                ..TrackEvent::default()
            };
            self.event(load.at_ps, event)?;
        }
        Ok(())
    }

    fn add_incidents(&mut self, recording: &Recording) -> Result<()> {
        let done = recording.record.posts.iter().filter_map(|post| post.done_ps);
        let end_ps = done.max().unwrap_or(recording.record.start_ps);
        for incident in &recording.record.incidents {
            let process = match incident.at {
                At::Rank(rank) => Process::rank(rank),
                At::Link(link) => Process::of_link(recording.record.links[link.0 as usize].rank),
                At::Level(_) => Process::SHARED,
            };
            let until_ps = incident.until_ps.unwrap_or(end_ps).max(incident.from_ps);
            let slice = Slice::new(&incident.text, incident.from_ps, until_ps);
            self.add_slices(&process, INCIDENTS, vec![slice])?;
        }
        Ok(())
    }

    /// Operations that did not end have none.
    fn add_critical_paths(&mut self, recording: &Recording) -> Result<()> {
        for (index, operation) in recording.operations.iter().enumerate() {
            let Ok(path) = recording.critical_path(index) else { continue };
            let of_leg = |leg: &super::Leg| {
                let name = format!("{} {}", leg.what.name(), place(&leg.at, recording));
                Slice::new(&name, leg.from_ps, leg.until_ps)
            };
            let slices = path.legs.iter().map(of_leg).collect();
            let track = match operation.communicator.0 {
                0 => "world".to_owned(),
                communicator => format!("communicator {communicator}"),
            };
            self.add_slices(&Process::CRITICAL_PATH, &track, slices)?;
        }
        Ok(())
    }

    fn add_slices(&mut self, process: &Process, track: &str, slices: Vec<Slice>) -> Result<()> {
        for (row, slices) in rows(slices).into_iter().enumerate() {
            let name = if row == 0 { track.to_owned() } else { format!("{track} ({})", row + 1) };
            let uuid = self.track(process, name, None)?;
            for slice in slices {
                self.slice(uuid, &slice)?;
            }
        }
        Ok(())
    }

    fn slice(&mut self, track_uuid: u64, slice: &Slice) -> Result<()> {
        let mut notes = Vec::with_capacity(slice.notes.len() + 2);
        let times = [("from_ps", slice.from_ps), ("until_ps", slice.until_ps)];
        let times = times.map(|(key, ps)| (key, Value::Number(ps)));
        for (key, value) in slice.notes.iter().cloned().chain(times) {
            notes.push(DebugAnnotation { name_iid: self.key(key)?, value: Some(value) });
        }
        let begin = TrackEvent {
            r#type: EventType::SliceBegin.into(),
            track_uuid,
            name_iid: Some(self.name(&slice.name)?),
            debug_annotations: notes,
            double_counter_value: None,
            flow_ids: slice.flow.into_iter().collect(),
            terminating_flow_ids: slice.ends_flow.into_iter().collect(),
        };
        self.event(slice.from_ps, begin)?;
        let end = TrackEvent { r#type: EventType::SliceEnd.into(), track_uuid, ..TrackEvent::default() };
        self.event(slice.until_ps, end)
    }

    fn event(&mut self, at_ps: u64, event: TrackEvent) -> Result<()> {
        self.packet(TracePacket {
            timestamp: Some(at_ps / PS_PER_NS),
            data: Some(Data::Event(event)),
            ..TracePacket::default()
        })
    }

    /// The number of a track, which is described before its first use.
    fn track(&mut self, process: &Process, name: String, counter: Option<&str>) -> Result<u64> {
        if let Some(&uuid) = self.tracks.get(&(process.pid, name.clone())) {
            return Ok(uuid);
        }
        let of_process = self.process(process)?;
        let uuid = self.tracks.len() as u64 + 1;
        self.tracks.insert((process.pid, name.clone()), uuid);
        self.describe(TrackDescriptor {
            uuid,
            name: Some(name),
            parent_uuid: Some(of_process),
            counter: counter.map(|unit| proto::Counter { unit_name: unit.to_owned() }),
            sibling_order_rank: Some(uuid as i32),
            ..TrackDescriptor::default()
        })?;
        Ok(uuid)
    }

    fn process(&mut self, process: &Process) -> Result<u64> {
        let key = (process.pid, String::new());
        if let Some(&uuid) = self.tracks.get(&key) {
            return Ok(uuid);
        }
        let uuid = self.tracks.len() as u64 + 1;
        self.tracks.insert(key, uuid);
        self.describe(TrackDescriptor {
            uuid,
            process: Some(proto::Process { pid: process.pid, process_name: process.name.to_string() }),
            child_ordering: Some(proto::Ordering::Explicit.into()),
            ..TrackDescriptor::default()
        })?;
        Ok(uuid)
    }

    fn describe(&mut self, track: TrackDescriptor) -> Result<()> {
        self.packet(TracePacket { data: Some(Data::Track(track)), ..TracePacket::default() })
    }

    /// The number of a slice's name, which is told before its first use.
    fn name(&mut self, name: &str) -> Result<u64> {
        if let Some(&iid) = self.names.get(name) {
            return Ok(iid);
        }
        let iid = self.names.len() as u64 + 1;
        self.names.insert(name.to_owned(), iid);
        let event_names = vec![Name { iid, name: name.to_owned() }];
        self.intern(InternedData { event_names, ..InternedData::default() })?;
        Ok(iid)
    }

    fn key(&mut self, key: &'static str) -> Result<u64> {
        if let Some(&iid) = self.keys.get(key) {
            return Ok(iid);
        }
        let iid = self.keys.len() as u64 + 1;
        self.keys.insert(key, iid);
        let debug_annotation_names = vec![Name { iid, name: key.to_owned() }];
        self.intern(InternedData { debug_annotation_names, ..InternedData::default() })?;
        Ok(iid)
    }

    fn intern(&mut self, data: InternedData) -> Result<()> {
        self.packet(TracePacket { interned_data: Some(data), ..TracePacket::default() })
    }

    /// Writes a packet: field 1 of the trace.
    fn packet(&mut self, packet: TracePacket) -> Result<()> {
        const FIELD_1: u8 = 1 << 3 | 2;
        let flags = if std::mem::replace(&mut self.has_begun, true) { proto::GOES_ON } else { proto::BEGINS };
        let packet =
            TracePacket { trusted_packet_sequence_id: SEQUENCE, sequence_flags: Some(flags), ..packet };
        self.out.write_all(&[FIELD_1])?;
        self.out.write_all(&packet.encode_length_delimited_to_vec())
    }
}

/// What stands for a group of tracks.
struct Process {
    pid: i32,
    name: Cow<'static, str>,
}

impl Process {
    /// The links that ranks share.
    const SHARED: Process = Process { pid: i32::MAX - 1, name: Cow::Borrowed("shared links") };
    const CRITICAL_PATH: Process = Process { pid: i32::MAX, name: Cow::Borrowed("critical path") };

    fn rank(rank: u32) -> Self {
        Process { pid: rank as i32 + 1, name: format!("rank {rank}").into() }
    }

    fn of_link(rank: Option<u32>) -> Self {
        rank.map_or(Process::SHARED, Process::rank)
    }
}

fn place(at: &At, recording: &Recording) -> String {
    match *at {
        At::Rank(rank) => format!("at rank {rank}"),
        At::Link(link) => format!("on {}", recording.record.links[link.0 as usize].name),
        At::Level(level) => format!("within a {}", recording.record.levels[usize::from(level)]),
    }
}
