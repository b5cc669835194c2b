//! A chunk's events → records in the lane's bodies, a slice at a time, so that calls are looked after meanwhile.

use crate::delivery::lane::{Lane, Owner};
use crate::delivery::room::Copied;
use crate::delivery::{ChunkId, Origin};
use crate::event::chunk::{Chunk, Cursor, Time};
use crate::metrics::Counts;
use crate::record::pack::Packer;
use crate::record::{self, Next, RecordOptions, RecordWriter};
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
    packer: Packer,
    /// Events that were settled before, in ascending order.
    settled: Vec<Range<u32>>,
    /// How many of these lie behind.
    passed: usize,
}

/// An event of which no record can be made.
pub struct Rejected {
    /// The event, by its place in the chunk.
    pub event: u32,
    /// Why.
    pub reason: String,
    /// What there is of it.
    pub bytes: Vec<u8>,
}

/// What came of a slice.
#[derive(Default)]
pub struct Slice {
    /// Records that were added to the lane.
    pub records: u64,
    /// Events of which there is no record.
    pub rejected: Vec<Rejected>,
    /// Events of which there are several records, and how many, a rejected rest among them.
    pub split: BTreeMap<u32, u32>,
    /// Events in which there is nothing to send, which is no loss.
    pub empty: u64,
    /// Records that were cut to the service's limit.
    pub truncated: u64,
    /// Stretches that were no event.
    pub undecodable: u64,
    /// Lines for the log: what failed beside that.
    pub errors: Vec<String>,
    /// The chunk is done.
    pub done: bool,
}

impl Encoding {
    /// The chunk from its beginning, without the events that were settled before.
    pub fn new(origin: Arc<Origin>, bytes: Arc<Copied>, settled: Vec<Range<u32>>, options: &RecordOptions) -> Encoding {
        let packer = Packer::new(options.pack);
        Encoding { origin, bytes, cursor: Cursor::default(), packer, settled, passed: 0 }
    }

    /// Encodes about `limit` bytes of the chunk; `now` is the time of events that have none. Should that panic, which would be a defect,
    /// the event at fault is rejected and the others go on.
    pub fn slice(
        &mut self,
        writer: &mut RecordWriter<'_>,
        lane: &mut Lane,
        counts: &Counts,
        limit: usize,
        now: Time,
    ) -> Slice {
        let mut slice = Slice::default();
        let before = self.cursor;
        let (collisions, truncated) = (writer.collisions(), writer.truncated());
        let end = before.position().saturating_add(limit);
        let run = AssertUnwindSafe(|| self.run(writer, lane, end, now, &mut slice));
        let panicked = catch_unwind(run);
        slice.truncated = writer.truncated() - truncated;
        counts.key_collisions.add(writer.collisions() - collisions);
        if let Err(panic) = panicked {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            // Dropping what a panic carries may panic once more.
            std::mem::forget(panic);
            lane.discard_partial_record();
            writer.reset();
            self.pass_over_panic(&text, &mut slice);
        }
        slice.undecodable = self.cursor.undecodable() - before.undecodable();
        counts.events.add(u64::from(self.cursor.events() - before.events()));
        slice
    }

    fn run(&mut self, writer: &mut RecordWriter<'_>, lane: &mut Lane, end: usize, now: Time, slice: &mut Slice) {
        let bytes = self.bytes.clone();
        let owner = &self.origin;
        let fields = writer.tag_fields(owner.tag.as_bytes());
        let origin = record::Origin { tag: fields.as_ref(), identity: owner.identity.to_bytes() };
        let mut chunk = Chunk::resume(&bytes, self.cursor);
        loop {
            if !writer.has_parts() {
                // Where a panic would have to go on: all parts of an event are made in one slice.
                self.cursor = chunk.resume_state();
                if self.cursor.position() >= end && self.cursor.position() < bytes.len() {
                    return;
                }
                let next = chunk.events();
                while self.settled.get(self.passed).is_some_and(|range| range.end <= next) {
                    self.passed += 1;
                }
                if self.settled.get(self.passed).is_some_and(|range| range.contains(&next))
                    && chunk.next_event().is_some()
                {
                    continue;
                }
            }
            let mut add = |record: &[u8], events: Range<u32>| {
                lane.add(record, events, owner);
                slice.records += 1;
            };
            match writer.next(&mut chunk, &origin, now) {
                Next::Record { text, events } => {
                    let event = events.start;
                    let packed = self.packer.push(text, events.clone(), &mut add);
                    slice.part(event, events.is_empty());
                    if let Err(error) = packed {
                        slice.errors.push(format!("event {event} of a chunk with tag {}: {error}", owner.tag));
                    }
                }
                Next::Unfit { event, reason, text } => {
                    slice.rejected.push(Rejected { event, reason: reason.to_string(), bytes: text.to_vec() });
                }
                Next::Empty { .. } => slice.empty += 1,
                Next::End => {
                    slice.done = true;
                    self.cursor = chunk.resume_state();
                    if let Err(error) = self.packer.finish(&mut add) {
                        slice.errors.push(format!("the last events of a chunk with tag {}: {error}", owner.tag));
                    }
                    return;
                }
            }
        }
    }

    /// Rejects the event at which encoding panicked.
    fn pass_over_panic(&mut self, text: &str, slice: &mut Slice) {
        let bytes = self.bytes.clone();
        let start = self.cursor.position();
        let event = self.cursor.events();
        let passed = catch_unwind(|| {
            let mut chunk = Chunk::resume(&bytes, self.cursor);
            let more = chunk.next_event().is_some();
            (more, chunk.resume_state())
        });
        let end = match passed {
            Ok((true, cursor)) => {
                self.cursor = cursor;
                self.cursor.position()
            }
            _ => {
                slice.done = true;
                bytes.len()
            }
        };
        slice.part(event, false);
        slice.rejected.push(Rejected {
            event,
            reason: format!("a defect in kubehose, please report it: {text}"),
            bytes: bytes.get(start..end).unwrap_or_default().to_vec(),
        });
    }
}

impl Slice {
    /// There is a record of this event, and more of them, or no more.
    fn part(&mut self, event: u32, more: bool) {
        if let Some(records) = self.split.get_mut(&event) {
            *records += 1;
        } else if more {
            self.split.insert(event, 1);
        }
    }
}

/// Events of chunks in the spool of which there are several records: they are settled once all of these are.
#[derive(Default)]
pub struct SplitEvents(BTreeMap<(ChunkId, u32), u32>);

impl SplitEvents {
    /// So many records hold parts of this event.
    pub fn add(&mut self, chunk: ChunkId, event: u32, records: u32) {
        self.0.insert((chunk, event), records);
    }

    /// A record is settled that holds these events, or, if they are none, a part of the one at the start. Says which events are
    /// settled by that. [`Packer`] lets a record that holds a part begin with it.
    pub fn settle(&mut self, chunk: ChunkId, events: Range<u32>) -> Range<u32> {
        let Range { start, end } = events;
        match self.0.get_mut(&(chunk, start)) {
            None => start..end,
            Some(records) if *records > 1 => {
                *records -= 1;
                end.min(start + 1)..end
            }
            Some(_) => {
                self.0.remove(&(chunk, start));
                start..end.max(start + 1)
            }
        }
    }
}

/// Owners of some of a lane's records, merged where they follow one another.
pub fn own(owners: &mut Vec<Owner>, origin: &Arc<Origin>) {
    match owners.last_mut() {
        Some(owner) if owner.origin.delivery == origin.delivery => owner.records += 1,
        _ => owners.push(Owner { origin: origin.clone(), records: 1 }),
    }
}
