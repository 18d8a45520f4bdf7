//! Reads traces back with another implementation of protocol buffers and none of our types.

use super::super::{Operation, Recording, Share, Span};
use super::*;
use protobuf::CodedInputStream;
use std::collections::BTreeMap;
use ubccl_core::endpoint::{CommunicatorId, Place, Stream};
use ubccl_core::record::{
    Incident, Link, LinkId, Load, Message, Occupation, Post, PostId, PostKind, Reason, Record, Stretch,
};

/// One field of a message as it is on the wire.
#[derive(Clone, Debug, PartialEq)]
enum Wire {
    Number(u64),
    Bytes(Vec<u8>),
}

type Fields = BTreeMap<u32, Vec<Wire>>;

fn fields(bytes: &[u8]) -> Fields {
    let mut input = CodedInputStream::from_bytes(bytes);
    let mut fields = Fields::new();
    while let Some(tag) = input.read_raw_tag_or_eof().unwrap() {
        let value = match tag & 7 {
            0 => Wire::Number(input.read_raw_varint64().unwrap()),
            1 => Wire::Number(input.read_fixed64().unwrap()),
            2 => Wire::Bytes(input.read_bytes().unwrap()),
            wire => panic!("wire type {wire}"),
        };
        fields.entry(tag >> 3).or_default().push(value);
    }
    fields
}

fn number(fields: &Fields, field: u32) -> Option<u64> {
    match fields.get(&field)?.last()? {
        Wire::Number(number) => Some(*number),
        Wire::Bytes(_) => panic!("field {field} is no number"),
    }
}

fn text(fields: &Fields, field: u32) -> Option<String> {
    fields.get(&field)?;
    Some(String::from_utf8(all_bytes(fields, field).pop()?).unwrap())
}

fn all_bytes(fields: &Fields, field: u32) -> Vec<Vec<u8>> {
    let of = |wire: &Wire| match wire {
        Wire::Bytes(bytes) => bytes.clone(),
        Wire::Number(_) => panic!("field {field} is a number"),
    };
    fields.get(&field).into_iter().flatten().map(of).collect()
}

/// A slice or a value of a counter, as the viewer will show it.
#[derive(Clone, Debug, PartialEq)]
struct Shown {
    /// Process and track.
    track: String,
    name: String,
    from_ns: u64,
    until_ns: u64,
    notes: BTreeMap<String, String>,
    flows: Vec<u64>,
}

/// Reads a trace: its slices, and its counters' values in their tracks' names.
fn read(trace: &[u8]) -> (Vec<Shown>, Vec<(String, u64, f64)>) {
    let packets = all_bytes(&fields(trace), 1);
    let (mut tracks, mut names, mut keys) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut open: BTreeMap<u64, Vec<Shown>> = BTreeMap::new();
    let mut last_ns: BTreeMap<u64, u64> = BTreeMap::new();
    let (mut shown, mut counters) = (Vec::new(), Vec::new());
    for (k, packet) in packets.iter().enumerate() {
        let packet = fields(packet);
        assert_eq!(number(&packet, 10), Some(1), "the sequence");
        assert_eq!(
            number(&packet, 13),
            Some(if k == 0 { 1 } else { 2 }),
            "names are told anew at first only"
        );
        for data in all_bytes(&packet, 12) {
            let data = fields(&data);
            for (field, table) in [(2, &mut names), (3, &mut keys)] {
                for entry in all_bytes(&data, field) {
                    let entry = fields(&entry);
                    table.insert(number(&entry, 1).unwrap(), text(&entry, 2).unwrap());
                }
            }
        }
        for track in all_bytes(&packet, 60) {
            let track = fields(&track);
            let process = all_bytes(&track, 3).first().map(|process| text(&fields(process), 6).unwrap());
            let name = process.unwrap_or_else(|| {
                let parent: &String = &tracks[&number(&track, 5).unwrap()];
                format!("{parent}/{}", text(&track, 2).unwrap())
            });
            assert!(tracks.insert(number(&track, 1).unwrap(), name).is_none(), "a track is described once");
        }
        for event in all_bytes(&packet, 11) {
            let event = fields(&event);
            let (at_ns, track) = (number(&packet, 8).unwrap(), number(&event, 11).unwrap());
            let before = last_ns.insert(track, at_ns).unwrap_or(0);
            assert!(before <= at_ns, "time goes back on {}", tracks[&track]);
            match number(&event, 9).unwrap() {
                1 => {
                    let notes = all_bytes(&event, 4).into_iter().map(|note| {
                        let note = fields(&note);
                        let key = keys[&number(&note, 1).unwrap()].clone();
                        (key, number(&note, 3).map(|n| n.to_string()).or(text(&note, 6)).unwrap())
                    });
                    let flow = |field| event.get(&field).into_iter().flatten().cloned();
                    let flows = flow(47).chain(flow(48)).map(|flow| match flow {
                        Wire::Number(id) => id,
                        Wire::Bytes(_) => panic!("flows are not packed"),
                    });
                    let begun = Shown {
                        track: tracks[&track].clone(),
                        name: names[&number(&event, 10).unwrap()].clone(),
                        from_ns: at_ns,
                        until_ns: 0,
                        notes: notes.collect(),
                        flows: flows.collect(),
                    };
                    open.entry(track).or_default().push(begun);
                }
                2 => {
                    let begun = open.get_mut(&track).unwrap().pop().expect("an end has its beginning");
                    shown.push(Shown { until_ns: at_ns, ..begun });
                }
                4 => {
                    let value = f64::from_bits(number(&event, 44).unwrap());
                    counters.push((tracks[&track].clone(), at_ns, value));
                }
                other => panic!("event type {other}"),
            }
        }
    }
    assert!(open.values().all(Vec::is_empty), "every slice ends");
    (shown, counters)
}

/// Two ranks, one message, a fold, and a shared link.
fn recording() -> Recording {
    let link = |name: &str, rank, class| Link { name: name.to_owned(), class, rank, rate_bytes_per_s: 1_000 };
    let post = |rank, kind, posted_ps, done_ps, done_by| Post {
        place: Place { communicator: CommunicatorId::WORLD, rank },
        rank,
        stream: Stream::Collective(1),
        lane: 0,
        kind,
        ordinal: 0,
        bytes: 64,
        posted_ps,
        done_ps: Some(done_ps),
        done_by,
    };
    let stretch = |what, at, from_ps, until_ps, reason| Stretch { what, at, from_ps, until_ps, reason };
    let (sent, received) = (PostId(0), PostId(1));
    let record = Record {
        ranks: 2,
        levels: vec!["node".into()],
        classes: vec!["rank out".into(), "rank in".into(), "uplink".into()],
        links: vec![link("out", Some(0), 0), link("in", Some(1), 1), link("plane 2 up", None, 2)],
        posts: vec![
            post(0, PostKind::Send, 2_000, 7_500, Reason::After(0)),
            post(1, PostKind::ReceiveReduce, 2_000, 15_500, Reason::After(3)),
        ],
        messages: vec![Message {
            sent_by: sent,
            received_by: Some(received),
            from: 0,
            to: 1,
            bytes: 64,
            start_ps: 2_000,
            sent_ps: 7_500,
            head_ps: Some(5_000),
            arrived_ps: Some(10_500),
            arrived_by: Reason::After(2),
        }],
        occupations: vec![
            Occupation { link: LinkId(0), message: 0, from_ps: 2_000, until_ps: 7_500 },
            Occupation { link: LinkId(1), message: 0, from_ps: 5_000, until_ps: 10_500 },
        ],
        loads: vec![
            Load { link: LinkId(2), at_ps: 5_000, bytes_per_s: 250 },
            Load { link: LinkId(2), at_ps: 9_000, bytes_per_s: 0 },
        ],
        stretches: vec![
            stretch(What::Serialisation, At::Link(LinkId(0)), 2_000, 7_500, Reason::Posted(sent)),
            stretch(What::Latency, At::Level(0), 2_000, 5_000, Reason::Posted(sent)),
            stretch(What::Serialisation, At::Link(LinkId(1)), 5_000, 10_500, Reason::After(1)),
            stretch(What::Reduction, At::Rank(1), 10_500, 15_500, Reason::After(2)),
        ],
        incidents: vec![Incident { at: At::Rank(1), from_ps: 3_000, until_ps: None, text: "paused".into() }],
        ..Record::default()
    };
    let share =
        |rank, end_ps| Share { rank, span: Some(Span { begin_ps: 2_000, end_ps: Some(end_ps) }), plan: None };
    let operation = Operation {
        communicator: CommunicatorId::WORLD,
        sequence: 1,
        text: "all_reduce count=16 f32 sum".into(),
        algorithm: "ring",
        ranks: vec![share(0, 7_500), share(1, 15_500)],
    };
    Recording { record, operations: vec![operation] }
}

#[test]
fn another_decoder_finds_every_event_with_its_track_times_notes_and_arrow() {
    let mut trace = Trace::new(Vec::new());
    trace.add(&recording()).unwrap();
    let (mut shown, counters) = read(&trace.into_inner());
    let mut expected = Vec::new();
    let mut expect =
        |track: &str, name: &str, (from_ps, until_ps): (u64, u64), notes: &[(&str, &str)], flows: &[u64]| {
            let times = [("from_ps", from_ps.to_string()), ("until_ps", until_ps.to_string())];
            let notes = notes.iter().map(|&(key, value)| (key, value.to_owned())).chain(times);
            expected.push(Shown {
                track: track.to_owned(),
                name: name.to_owned(),
                from_ns: from_ps / 1000,
                until_ns: until_ps / 1000,
                notes: notes.map(|(key, value)| (key.to_owned(), value)).collect(),
                flows: flows.to_vec(),
            });
        };
    let call = [("algorithm", "ring"), ("sequence", "1"), ("communicator", "0")];
    expect("rank 0/operations", "all_reduce count=16 f32 sum", (2_000, 7_500), &call, &[]);
    expect("rank 1/operations", "all_reduce count=16 f32 sum", (2_000, 15_500), &call, &[]);
    expect("rank 1/folds and copies", "reduction", (10_500, 15_500), &[], &[]);
    let message = [("bytes", "64"), ("posted_ps", "2000")];
    expect("rank 0/out", "0 → 1", (2_000, 7_500), &message, &[1]);
    expect("rank 1/in", "0 → 1", (5_000, 10_500), &message, &[1]);
    // It has no end, so it lasts to that of the recording.
    expect("rank 1/incidents", "paused", (3_000, 15_500), &[], &[]);
    expect("critical path/world", "latency within a node", (2_000, 5_000), &[], &[]);
    expect("critical path/world", "serialisation on in", (5_000, 10_500), &[], &[]);
    expect("critical path/world", "reduction at rank 1", (10_500, 15_500), &[], &[]);
    let order = |a: &Shown, b: &Shown| (&a.track, a.from_ns).cmp(&(&b.track, b.from_ns));
    shown.sort_by(order);
    expected.sort_by(order);
    assert_eq!(shown, expected);
    let track = "shared links/plane 2 up in use".to_owned();
    assert_eq!(counters, [(track.clone(), 5, 25.0), (track, 9, 0.0)]);
}

#[test]
fn recordings_follow_one_another_without_describing_a_track_twice_or_joining_their_messages() {
    let mut trace = Trace::new(Vec::new());
    let mut second = recording();
    let late = 20_000;
    for stretch in &mut second.record.stretches {
        (stretch.from_ps, stretch.until_ps) = (stretch.from_ps + late, stretch.until_ps + late);
    }
    for post in &mut second.record.posts {
        (post.posted_ps, post.done_ps) = (post.posted_ps + late, post.done_ps.map(|ps| ps + late));
    }
    for occupied in &mut second.record.occupations {
        (occupied.from_ps, occupied.until_ps) = (occupied.from_ps + late, occupied.until_ps + late);
    }
    second.record.loads.iter_mut().for_each(|load| load.at_ps += late);
    second.record.incidents.iter_mut().for_each(|incident| incident.from_ps += late);
    for share in &mut second.operations[0].ranks {
        let Span { begin_ps, end_ps } = share.span.unwrap();
        share.span = Some(Span { begin_ps: begin_ps + late, end_ps: end_ps.map(|ps| ps + late) });
    }
    trace.add(&recording()).unwrap();
    trace.add(&second).unwrap();
    let (shown, _) = read(&trace.into_inner());
    assert_eq!(shown.len(), 18);
    let flows =
        |from_ns: u64| shown.iter().find(|s| s.track == "rank 0/out" && s.from_ns == from_ns).unwrap();
    assert_eq!((&flows(2).flows, &flows(22).flows), (&vec![1], &vec![2]));
}
