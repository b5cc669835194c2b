//! Encodes a chunk's events into records in the lanes' bodies, a slice at a time, so that replies are handled in between.

use crate::delivery::Origin;
use crate::delivery::lane::{Lane, Owner};
use crate::delivery::lanes::{DEFAULT, Fallback, LaneId, Lanes, Takes};
use crate::delivery::room::Copied;
use crate::event::chunk::{Chunk, Cursor, Time};
use crate::metrics::Counts;
use crate::record::pack::{Events, Joined, Packer};
use crate::record::{self, MapId, Next, RecordWriter};
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A chunk that is being encoded.
pub struct Encoding {
    /// Whose records these are.
    pub origin: Arc<Origin>,
    /// The chunk, as the host gave it.
    bytes: Arc<Copied>,
    cursor: Cursor,
    /// The record being joined for each stream.
    joined: BTreeMap<LaneId, Joined>,
    /// The stream whose record is being packed.
    packing: Option<LaneId>,
    /// The chunk's identity.
    identity: [u8; 16],
    /// Events that were settled before, in ascending order.
    settled: Vec<Range<u32>>,
    /// How many of these ranges have been passed.
    passed: usize,
    /// Whether those were already counted when the chunk was encoded before.
    counted: bool,
    /// Events of the present slice not to count: they were, or will be.
    uncounted: u32,
    /// Events left for later, because their lanes are full.
    deferred: Vec<Range<u32>>,
    /// Those lanes.
    deferred_by: Vec<LaneId>,
    /// The lanes of events with these `kubernetes` maps, if they depend on nothing else of an event.
    lanes_of: Vec<(MapId, LaneId)>,
}

/// How many of them are kept.
const LANES_KEPT: usize = 64;

/// All records being joined together take at most this much memory, in bytes.
const JOINED: usize = 4 << 20;

/// A chunk with events left for later.
pub struct Rest {
    /// The chunk.
    pub bytes: Arc<Copied>,
    /// The events not to encode again.
    pub done: Vec<Range<u32>>,
    /// The full lanes of the others.
    pub lanes: Vec<LaneId>,
}

/// Events that cannot become a record.
pub struct Rejected {
    /// The events.
    pub events: Events,
    /// The lane of their stream.
    pub lane: LaneId,
    /// Why.
    pub reason: String,
    /// Their bytes.
    pub bytes: Vec<u8>,
}

/// The results of a slice.
#[derive(Default)]
pub struct Slice {
    /// Records that were added to lanes.
    pub records: u64,
    /// Events that could not become a record.
    pub rejected: Vec<Rejected>,
    /// Empty events, which make no record.
    pub empty: u64,
    /// Records that were cut to the service's limit.
    pub truncated: u64,
    /// Parts of the chunk that are no event.
    pub undecodable: u64,
    /// Other failures, as log lines.
    pub errors: Vec<String>,
    /// Events that went to the default stream because the template makes no valid name of them.
    pub without_name: u64,
    /// Events that went there because too many streams are in use.
    pub too_many: u64,
    /// The next event waits for its lane.
    pub waits: bool,
    /// The chunk is done.
    pub done: bool,
}

impl Encoding {
    /// Begins a chunk, without the events that were settled before; `counted` if these were counted then.
    pub fn new(origin: Arc<Origin>, bytes: Arc<Copied>, settled: Vec<Range<u32>>, counted: bool) -> Encoding {
        let identity = origin.identity.to_bytes();
        Encoding {
            origin,
            bytes,
            cursor: Cursor::default(),
            joined: BTreeMap::new(),
            packing: None,
            identity,
            settled,
            passed: 0,
            counted,
            uncounted: 0,
            deferred: Vec::new(),
            deferred_by: Vec::new(),
            lanes_of: Vec::new(),
        }
    }

    /// Size of the chunk, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Encodes about `limit` bytes of the chunk; events without a time get `now`. If that panics, which would be a defect, the event is
    /// rejected and the others go on.
    pub fn slice(
        &mut self,
        writer: &mut RecordWriter<'_>,
        packer: &mut Packer,
        lanes: &mut Lanes<'_>,
        counts: &Counts,
        limit: usize,
        now: Time,
    ) -> Slice {
        let mut slice = Slice::default();
        let before = self.cursor;
        let (collisions, truncated) = (writer.collisions(), writer.truncated());
        let end = before.position().saturating_add(limit);
        let panicked = catch_unwind(AssertUnwindSafe(|| self.run(writer, packer, lanes, end, now, &mut slice)));
        slice.truncated = writer.truncated() - truncated;
        counts.key_collisions.add(writer.collisions() - collisions);
        if let Err(panic) = panicked {
            let text = text_of(panic);
            writer.begin_anew();
            lanes.all().for_each(Lane::discard_partial_record);
            self.reject_packing(&text, &mut slice);
            self.pass_over_panic(&text, &mut slice);
            // A remainder without any event counts as one.
            counts.events.add(u64::from(slice.done));
        }
        while slice.done && !self.joined.is_empty() || self.joined_held() > JOINED {
            let panicked = catch_unwind(AssertUnwindSafe(|| self.finish_joined(packer, lanes, &mut slice)));
            if let Err(panic) = panicked {
                lanes.all().for_each(Lane::discard_partial_record);
                self.reject_packing(&text_of(panic), &mut slice);
            }
        }
        slice.undecodable = self.cursor.undecodable() - before.undecodable();
        let passed = self.cursor.events() - before.events();
        counts.events.add(u64::from(passed.saturating_sub(std::mem::take(&mut self.uncounted))));
        slice
    }

    fn run(
        &mut self,
        writer: &mut RecordWriter<'_>,
        packer: &mut Packer,
        lanes: &mut Lanes<'_>,
        end: usize,
        now: Time,
        slice: &mut Slice,
    ) {
        let bytes = self.bytes.clone();
        let owner = self.origin.clone();
        let tag = writer.tag_fields(owner.tag.as_bytes(), lanes.template());
        let origin = record::Origin { tag: tag.as_ref(), identity: self.identity };
        let mut chunk = Chunk::resume(&bytes, self.cursor);
        let by_map = lanes.go_by_kubernetes_alone();
        // Where the stream must be looked up in the event, apart from writing it.
        let mut ahead = lanes.template().then(|| Chunk::resume(&bytes, self.cursor));
        let mut lane = DEFAULT;
        loop {
            let next = chunk.events();
            let is_part = writer.has_parts();
            if !is_part {
                // Where to go on after a panic: all parts of an event are made in one slice.
                self.cursor = chunk.resume_state();
                let full = self.joined.len() > 1 && self.joined_held() > JOINED;
                if full || self.cursor.position() >= end && self.cursor.position() < bytes.len() {
                    return;
                }
                while self.settled.get(self.passed).is_some_and(|range| range.end <= next) {
                    self.passed += 1;
                }
                let is_settled = self.settled.get(self.passed).is_some_and(|range| range.contains(&next));
                if is_settled && chunk.next_event().is_some() {
                    self.uncounted += u32::from(self.counted);
                    continue;
                }
            }
            let outcome = writer.next(&mut chunk, &origin, now);
            if let Some(ahead) = &mut ahead
                && !is_part
                && let Some(map) = map_of(&outcome)
            {
                let map = map.filter(|_| by_map);
                let (chosen, fallback) = match map.and_then(|map| self.lane_of(map, lanes)) {
                    Some(lane) => (lane, None),
                    None => {
                        ahead.catch_up(self.cursor);
                        let choice = lanes.choose(ahead, &owner.tag, tag.as_ref()).unwrap_or((DEFAULT, None));
                        if let (Some(map), (lane, None)) = (map, choice) {
                            self.keep_lane(map, lane);
                        }
                        choice
                    }
                };
                match lanes.takes(chosen) {
                    Takes::Yes => {}
                    Takes::Soon => {
                        writer.take_back();
                        slice.waits = true;
                        return;
                    }
                    Takes::Later => {
                        writer.take_back();
                        self.defer(next, chosen);
                        continue;
                    }
                }
                lane = chosen;
                slice.without_name += u64::from(fallback == Some(Fallback::NoName));
                slice.too_many += u64::from(fallback == Some(Fallback::TooMany));
            }
            let (mut records, share) = (0, lanes.share());
            // Without aggregation nothing is joined, and nothing is looked up.
            let mut alone = Joined::default();
            let (joined, room) = match packer.joins() {
                true => (self.joined.entry(lane).or_default(), lanes.get(lane).map_or(0, |lane| lane.batch_room())),
                false => (&mut alone, 0),
            };
            let mut add = |record: &[u8], events: Events| {
                records += u64::from(lanes.add(lane, record, events, &owner));
            };
            let packed = match outcome {
                // No part alone settles its event, since the others' calls may fail: after a restart all parts are sent again.
                Next::Record { text, events, .. } if is_part => {
                    self.packing = Some(lane);
                    packer.push(joined, text, events.start..events.start, room, &mut add)
                }
                Next::Record { text, events, .. } => {
                    self.packing = Some(lane);
                    // With many lanes a share is smaller than the largest joined record.
                    packer.push(joined, text, events, room, &mut add).and_then(|()| match joined.size() > share {
                        true => packer.finish(joined, &mut add),
                        false => Ok(()),
                    })
                }
                Next::Empty { .. } => {
                    slice.empty += 1;
                    Ok(())
                }
                Next::Unfit { event, reason, text } => {
                    let events = Events::One(event..event + 1);
                    slice.rejected.push(Rejected { events, lane, reason: reason.to_string(), bytes: text.to_vec() });
                    Ok(())
                }
                Next::End => {
                    slice.done = true;
                    self.cursor = chunk.resume_state();
                    Ok(())
                }
            };
            slice.records += records;
            self.packing = None;
            if let Err(error) = packed {
                slice.errors.push(format!("event {next} of a chunk with tag {}: {error}", owner.tag));
            }
            if slice.done {
                return;
            }
        }
    }

    /// The lane of an earlier event with this map, if it is still there.
    fn lane_of(&self, map: MapId, lanes: &Lanes<'_>) -> Option<LaneId> {
        let (_, lane) = self.lanes_of.iter().rev().find(|(of, _)| *of == map)?;
        lanes.exists(*lane).then_some(*lane)
    }

    fn keep_lane(&mut self, map: MapId, lane: LaneId) {
        if self.lanes_of.len() == LANES_KEPT {
            self.lanes_of.clear();
        }
        self.lanes_of.push((map, lane));
    }

    /// Adds the joined records to their lanes.
    fn finish_joined(&mut self, packer: &mut Packer, lanes: &mut Lanes<'_>, slice: &mut Slice) {
        while let Some(mut entry) = self.joined.first_entry() {
            let (owner, lane) = (&self.origin, *entry.key());
            self.packing = Some(lane);
            let packed = packer.finish(entry.get_mut(), |record, events| {
                slice.records += u64::from(lanes.add(lane, record, events, owner));
            });
            if let Err(error) = packed {
                slice.errors.push(format!("events of a chunk with tag {}: {error}", owner.tag));
            }
            self.packing = None;
            entry.remove();
        }
    }

    fn joined_held(&self) -> usize {
        self.joined.values().map(Joined::held).sum()
    }

    /// After a panic, rejects what was being packed.
    fn reject_packing(&mut self, text: &str, slice: &mut Slice) {
        if let Some(lane) = self.packing.take()
            && let Some((bytes, events)) = self.joined.remove(&lane).as_mut().and_then(Joined::take)
        {
            slice.rejected.push(Rejected { events, lane, reason: defect(text), bytes });
        }
    }

    /// Leaves an event for later.
    fn defer(&mut self, event: u32, lane: LaneId) {
        self.uncounted += 1;
        match self.deferred.last_mut() {
            Some(last) if last.end == event => last.end += 1,
            _ => self.deferred.push(event..event + 1),
        }
        if !self.deferred_by.contains(&lane) {
            self.deferred_by.push(lane);
        }
    }

    /// What was left for later, if anything was.
    pub fn deferred(self) -> Option<Rest> {
        if self.deferred.is_empty() {
            return None;
        }
        let (mut done, mut from) = (Vec::new(), 0);
        for Range { start, end } in self.deferred {
            if from < start {
                done.push(from..start);
            }
            from = end;
        }
        if from < self.cursor.events() {
            done.push(from..self.cursor.events());
        }
        Some(Rest { bytes: self.bytes, done, lanes: self.deferred_by })
    }

    /// Rejects the event at which encoding panicked.
    fn pass_over_panic(&mut self, text: &str, slice: &mut Slice) {
        let bytes = self.bytes.clone();
        let (event, start) = (self.cursor.events(), self.cursor.position());
        let passed = catch_unwind(AssertUnwindSafe(|| {
            let mut chunk = Chunk::resume(&bytes, self.cursor);
            chunk.next_event().is_some().then(|| chunk.resume_state())
        }));
        let end = match passed {
            Ok(Some(cursor)) => {
                self.cursor = cursor;
                cursor.position()
            }
            _ => {
                slice.done = true;
                bytes.len()
            }
        };
        slice.rejected.push(Rejected {
            events: Events::One(event..event + 1),
            lane: DEFAULT,
            reason: defect(text),
            bytes: bytes.get(start..end).unwrap_or_default().to_vec(),
        });
    }
}

/// The map of an event that goes to a lane, as far as it is known; `None` if there is no such event.
fn map_of(outcome: &Next<'_>) -> Option<Option<MapId>> {
    match outcome {
        Next::Record { map, .. } => Some(*map),
        Next::Unfit { .. } => Some(None),
        Next::Empty { .. } | Next::End => None,
    }
}

/// The message of a panic.
fn text_of(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    // Dropping the payload may panic again.
    std::mem::forget(panic);
    text
}

fn defect(text: &str) -> String {
    format!("a defect in kubehose, please report it: {text}")
}

/// Owners of some of a lane's records, merged where they follow one another.
pub fn own(owners: &mut Vec<Owner>, origin: &Arc<Origin>) {
    match owners.last_mut() {
        Some(owner) if owner.origin.delivery == origin.delivery => owner.records += 1,
        _ => owners.push(Owner { origin: origin.clone(), records: 1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Identity;
    use crate::delivery::ledger::Ledger;
    use crate::delivery::room::Room;
    use crate::options::Config;
    use std::time::Instant;

    /// What stands before an event's body.
    const HEAD: &[u8] = b"\x92\x92\xd7\x00\x65\x53\xf1\x00\x07\x5b\xcd\x15\x80";

    /// What stands before the body of a group's start marker, and its end marker.
    const GROUP_START: &[u8] = b"\x92\x92\xd7\x00\xff\xff\xff\xff\0\0\0\0\x80";
    const GROUP_END: &[u8] = b"\x92\x92\xd7\x00\xff\xff\xff\xfe\0\0\0\0\x80\x80";

    fn event(log: &str) -> Vec<u8> {
        let body = rmp_serde::to_vec(&serde_json::json!({"log": log})).unwrap();
        [HEAD, &body[..]].concat()
    }

    #[test]
    fn no_record_alone_settles_an_event_that_is_split() {
        for aggregation in ["off", "on"] {
            let get = |name: &str| match name {
                "region" => Some("eu-west-1".to_owned()),
                "delivery_stream" => Some("s".to_owned()),
                "oversize" => Some("split".to_owned()),
                "simple_aggregation" => Some(aggregation.to_owned()),
                _ => None,
            };
            let config = Config::read(&get, &|_| None).unwrap();
            let chunk = [event("a"), event("b"), event(&"x".repeat(2_500_000)), event("c"), event("d")].concat();
            let room = Arc::new(Room::new(64 << 20));
            let mut lanes = Lanes::new(&config.streams, &config.delivery, room.clone());
            let delivery = Ledger::default().begin_acknowledged(Identity::of(b"", &chunk));
            let origin = Origin { delivery, identity: Identity::of(b"", &chunk), tag: "t".into(), chunk: None };
            let mut encoding = Encoding::new(Arc::new(origin), Arc::new(room.count_copy(chunk)), Vec::new(), false);
            let (mut writer, mut packer) = (RecordWriter::new(&config.record), Packer::new(config.record.pack));
            while !encoding.slice(&mut writer, &mut packer, &mut lanes, &Counts::default(), 1, Time::default()).done {}
            lanes.close_batches();
            let (mut settled, mut parts) = (Vec::new(), 0);
            while let Some((_, job)) = lanes.next_call(Instant::now()) {
                for place in job.batch.places() {
                    settled.extend(place.events.stretches().iter().cloned().flatten());
                    parts += usize::from(place.events == Events::One(2..2));
                }
            }
            assert_eq!((settled, parts), (vec![0, 1, 3, 4], 3), "{aggregation}");
        }
    }

    #[test]
    fn a_panic_rejects_its_event_and_all_others_are_sent_and_counted() {
        let get = |name: &str| match name {
            "region" => Some("eu-west-1".to_owned()),
            "delivery_stream" => Some("s".to_owned()),
            "oversize" => Some("split".to_owned()),
            _ => None,
        };
        let config = Config::read(&get, &|_| None).unwrap();
        // Of these eight events one is three parts, one is empty, and one is none.
        let long = event(&"x".repeat(2_500_000));
        let empty = b"\x92\x92\xd7\x00\x65\x53\xf1\x00\x07\x5b\xcd\x15\x80\x80".to_vec();
        let chunk =
            [event("a"), event("b"), long, event("c"), empty, b"\xc1".to_vec(), event("d"), event("e"), event("f")];
        let (chunk, events) = (chunk.concat(), 8);
        for panics in 0..=11 {
            let room = Arc::new(Room::new(64 << 20));
            let mut lanes = Lanes::new(&config.streams, &config.delivery, room.clone());
            let delivery = Ledger::default().begin_acknowledged(Identity::of(b"", &chunk));
            let origin = Origin { delivery, identity: Identity::of(b"", &chunk), tag: "t".into(), chunk: None };
            let bytes = Arc::new(room.count_copy(chunk.clone()));
            let mut encoding = Encoding::new(Arc::new(origin), bytes, Vec::new(), false);
            let (mut writer, mut packer) = (RecordWriter::new(&config.record), Packer::new(config.record.pack));
            writer.calls_until_panic = Some(panics);
            let counts = Counts::default();
            let (mut records, mut rejected, mut empty, mut undecodable) = (0, Vec::new(), 0, 0);
            loop {
                let slice = encoding.slice(&mut writer, &mut packer, &mut lanes, &counts, 1, Time::default());
                records += slice.records;
                rejected.extend(slice.rejected);
                empty += slice.empty;
                undecodable += slice.undecodable;
                assert!(slice.errors.is_empty());
                if slice.done {
                    break;
                }
            }
            // Calls of the writer: two events, three parts, an event, an empty one, three events, the end.
            let (event, lost_records) = match panics {
                0 | 1 => (panics, 1),
                2..=4 => (2, 3 - u64::from(panics - 2)),
                5 => (3, 1),
                6 => (4, 0),
                7..=9 => (panics - 2, 1),
                // What is left at the end.
                10 => (8, 0),
                _ => (u32::MAX, 0),
            };
            assert_eq!((records, undecodable), (9 - lost_records, 1), "{panics}");
            assert_eq!(empty, u64::from(event != 4), "{panics}");
            assert_eq!(counts.events.get(), events + u64::from(event == 8), "{panics}");
            let rejected: Vec<u32> =
                rejected.iter().flat_map(|rejected| rejected.events.stretches()[0].clone()).collect();
            assert_eq!(rejected, if event == u32::MAX { vec![] } else { vec![event] }, "{panics}");
        }
    }

    #[test]
    fn what_was_joined_is_sent_though_the_end_of_the_chunk_panics() {
        let get = |name: &str| match name {
            "region" => Some("eu-west-1".to_owned()),
            "delivery_stream" => Some("s".to_owned()),
            "simple_aggregation" => Some("on".to_owned()),
            _ => None,
        };
        let config = Config::read(&get, &|_| None).unwrap();
        let room = Arc::new(Room::new(64 << 20));
        let mut lanes = Lanes::new(&config.streams, &config.delivery, room.clone());
        let (mut writer, mut packer) = (RecordWriter::new(&config.record), Packer::new(config.record.pack));
        // The first ends with a panic; the second has nothing of it.
        for panics in [Some(2), None] {
            let chunk = [event("a"), event("b")].concat();
            let identity = Identity::of(b"", &chunk);
            let delivery = Ledger::default().begin_acknowledged(identity);
            let origin = Origin { delivery, identity, tag: "t".into(), chunk: None };
            let mut encoding = Encoding::new(Arc::new(origin), Arc::new(room.count_copy(chunk)), Vec::new(), false);
            writer.calls_until_panic = panics;
            while !encoding.slice(&mut writer, &mut packer, &mut lanes, &Counts::default(), 9999, Time::default()).done
            {
            }
            lanes.close_batches();
            let (_, job) = lanes.next_call(Instant::now()).unwrap();
            let events: Vec<Events> = job.batch.places().iter().map(|place| place.events.clone()).collect();
            assert_eq!(events, [Events::One(0..2)], "{panics:?}");
        }
    }

    #[test]
    fn each_event_goes_to_the_stream_of_its_name_whatever_was_remembered() {
        let tag = "kube.var.log.containers.p_of-the-tag_c-0123456789012345678901234567890123456789012345678901234567890123.log";
        let mut random = fastrand::Rng::with_seed(7);
        for template in [
            "s-$kubernetes['namespace_name']",
            "s-$kubernetes['labels']['app']",
            "s-$kubernetes['namespace_name']-$log",
        ] {
            let get = |name: &str| match name {
                "region" => Some("eu-west-1".to_owned()),
                "delivery_stream" => Some(template.to_owned()),
                "default_delivery_stream" => Some("other".to_owned()),
                "max_streams" => Some("1000".to_owned()),
                _ => None,
            };
            let config = Config::read(&get, &|_| None).unwrap();
            // So much that no lane is ever full.
            let room = Arc::new(Room::new(1 << 40));
            let mut lanes = Lanes::new(&config.streams, &config.delivery, room.clone());
            let (mut writer, mut packer) = (RecordWriter::new(&config.record), Packer::new(config.record.pack));
            for round in 0..20 {
                // More maps than are kept, in runs and mixed; some of them are too short to be kept, or no map.
                let pods = [1, 3, 100][round % 3];
                let body = |n: usize, random: &mut fastrand::Rng| {
                    let (pod, log) = (random.usize(..pods), random.usize(..3));
                    let kubernetes = match pod % 7 {
                        5 => serde_json::json!({"namespace_name": format!("n{pod}")}),
                        6 => serde_json::Value::Null,
                        _ => serde_json::json!({
                            "pod_name": format!("pod-{pod}-{}", "x".repeat(100)), "namespace_name": format!("n{}", pod % 10),
                            "labels": {"app": format!("a{}", pod % 4)}, "host": format!("h{round}")
                        }),
                    };
                    serde_json::json!({"n": n, "log": format!("{log}"), "kubernetes": kubernetes})
                };
                let bodies: Vec<_> = (0..300).map(|n| body(n, &mut random)).collect();
                let expected = |body: &serde_json::Value| {
                    let of = |path: &str| body.pointer(path).and_then(|value| value.as_str()).map(str::to_owned);
                    let namespace = of("/kubernetes/namespace_name").unwrap_or_else(|| "of-the-tag".to_owned());
                    match template.contains("app") {
                        true => of("/kubernetes/labels/app").map_or("other".to_owned(), |app| format!("s-{app}")),
                        false if template.contains("log") => format!("s-{namespace}-{}", of("/log").unwrap()),
                        false => format!("s-{namespace}"),
                    }
                };
                // In every other round most events are in groups, as those of OTLP are.
                let marker = |n: usize| match (round % 2, n % 40) {
                    (1, 0) => {
                        [GROUP_START, &rmp_serde::to_vec(&serde_json::json!({"resource": {"n": n}})).unwrap()].concat()
                    }
                    (1, 30) => GROUP_END.to_vec(),
                    _ => Vec::new(),
                };
                let event = |(n, body)| [marker(n), HEAD.to_vec(), rmp_serde::to_vec(body).unwrap()].concat();
                let chunk: Vec<u8> = bodies.iter().enumerate().flat_map(event).collect();
                let delivery = Ledger::default().begin_acknowledged(Identity::of(b"", &chunk));
                let origin = Origin { delivery, identity: Identity::of(b"", &chunk), tag: tag.into(), chunk: None };
                let mut encoding = Encoding::new(Arc::new(origin), Arc::new(room.count_copy(chunk)), Vec::new(), false);
                lanes.begin(Instant::now());
                loop {
                    let slice =
                        encoding.slice(&mut writer, &mut packer, &mut lanes, &Counts::default(), 5000, Time::default());
                    assert!(!slice.waits, "{template}, round {round}");
                    if slice.done {
                        break;
                    }
                }
                lanes.close_batches();
                let mut arrived = 0;
                while let Some((_, job)) = lanes.next_call(Instant::now()) {
                    let call: serde_json::Value = serde_json::from_slice(&job.batch.body()).unwrap();
                    for record in call["Records"].as_array().unwrap() {
                        let data = base64_simd::STANDARD.decode_to_vec(record["Data"].as_str().unwrap()).unwrap();
                        let record: serde_json::Value = serde_json::from_slice(&data).unwrap();
                        let body = &bodies[usize::try_from(record["n"].as_u64().unwrap()).unwrap()];
                        assert_eq!(call["DeliveryStreamName"], expected(body), "{template}, round {round}: {body}");
                        arrived += 1;
                    }
                }
                assert_eq!(arrived, bodies.len(), "{template}, round {round}");
            }
        }
    }
}
