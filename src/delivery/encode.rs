//! A chunk's events → records in the lane's bodies, a slice at a time, so that calls are looked after meanwhile.

use crate::delivery::Origin;
use crate::delivery::lane::{Lane, Owner};
use crate::delivery::room::Copied;
use crate::event::chunk::{Chunk, Cursor, Time};
use crate::metrics::Counts;
use crate::record::pack::Packer;
use crate::record::{self, Next, RecordOptions, RecordWriter};
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
    /// What the chunk is known by.
    identity: [u8; 16],
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
    /// Events that make no record, and are no loss.
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
        let identity = origin.identity.to_bytes();
        Encoding { origin, bytes, cursor: Cursor::default(), packer, identity, settled, passed: 0 }
    }

    /// Encodes about `limit` bytes of the chunk; events without a time get `now`. Should that panic, which would be a defect, the event at
    /// fault is rejected and the others go on.
    pub fn slice(
        &mut self,
        writer: &mut RecordWriter<'_>,
        lane: &mut Lane,
        counts: &Counts,
        limit: usize,
        now: Time,
    ) -> Slice {
        let mut slice = Slice::default();
        let run = AssertUnwindSafe(|| self.run(writer, lane, counts, limit, now, &mut slice));
        if let Err(panic) = catch_unwind(run) {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            // Dropping what a panic carries may panic once more.
            std::mem::forget(panic);
            writer.begin_anew();
            lane.discard_partial_record();
            self.pass_over_panic(&text, &mut slice);
        }
        slice
    }

    fn run(
        &mut self,
        writer: &mut RecordWriter<'_>,
        lane: &mut Lane,
        counts: &Counts,
        limit: usize,
        now: Time,
        slice: &mut Slice,
    ) {
        let bytes = self.bytes.clone();
        let owner = &self.origin;
        let tag = writer.tag_fields(owner.tag.as_bytes());
        let origin = record::Origin { tag: tag.as_ref(), identity: self.identity };
        let (collisions, truncated) = (writer.collisions(), writer.truncated());
        let mut chunk = Chunk::resume(&bytes, self.cursor);
        let undecodable = chunk.undecodable();
        let events = chunk.events();
        let stop = chunk.remaining().saturating_sub(limit);
        loop {
            if !writer.has_parts() {
                if chunk.remaining() <= stop && chunk.remaining() > 0 {
                    break;
                }
                // Where a panic would have to go on.
                self.cursor = chunk.resume_state();
            }
            let next = chunk.events();
            let mut add = |record: &[u8], events: Range<u32>| {
                lane.add(record, events, owner);
                slice.records += 1;
            };
            while self.settled.get(self.passed).is_some_and(|range| range.end <= next) {
                self.passed += 1;
            }
            let is_part = writer.has_parts();
            if !is_part && self.settled.get(self.passed).is_some_and(|range| range.contains(&next)) {
                match chunk.next_event() {
                    Some(_) => continue,
                    None => slice.done = true,
                }
            }
            let packed = match if slice.done { Next::End } else { writer.next(&mut chunk, &origin, now) } {
                // The last part does not tell of the others, whose calls may fare worse: after a restart all are sent again.
                Next::Record { text, events } if is_part => {
                    self.packer.push(text, events.start..events.start, &mut add)
                }
                Next::Record { text, events } => self.packer.push(text, events, &mut add),
                Next::Empty { .. } => {
                    slice.empty += 1;
                    Ok(())
                }
                Next::Unfit { event, reason, text } => {
                    slice.rejected.push(Rejected { event, reason: reason.to_string(), bytes: text.to_vec() });
                    Ok(())
                }
                Next::End => {
                    slice.done = true;
                    self.packer.finish(&mut add)
                }
            };
            if let Err(error) = packed {
                slice.errors.push(format!("event {next} of a chunk with tag {}: {error}", owner.tag));
            }
            if slice.done {
                break;
            }
        }
        self.cursor = chunk.resume_state();
        slice.undecodable = chunk.undecodable() - undecodable;
        slice.truncated = writer.truncated() - truncated;
        counts.key_collisions.add(writer.collisions() - collisions);
        counts.events.add(u64::from(chunk.events() - events));
    }

    /// Rejects the event at which encoding panicked.
    fn pass_over_panic(&mut self, text: &str, slice: &mut Slice) {
        let bytes = self.bytes.clone();
        let mut chunk = Chunk::resume(&bytes, self.cursor);
        let (event, start) = (chunk.events(), bytes.len() - chunk.remaining());
        let passed = catch_unwind(AssertUnwindSafe(|| {
            let more = chunk.next_event().is_some();
            more.then(|| (chunk.resume_state(), bytes.len() - chunk.remaining()))
        }));
        let end = match passed {
            Ok(Some((cursor, end))) => {
                self.cursor = cursor;
                end
            }
            _ => {
                slice.done = true;
                bytes.len()
            }
        };
        slice.rejected.push(Rejected {
            event,
            reason: format!("a defect in kubehose, please report it: {text}"),
            bytes: bytes.get(start..end).unwrap_or_default().to_vec(),
        });
    }
}

/// Owners of some of a lane's records, merged where they follow one another.
pub fn own(owners: &mut Vec<Owner>, origin: &Arc<Origin>) {
    match owners.last_mut() {
        Some(owner) if owner.origin.delivery == origin.delivery => owner.records += 1,
        _ => owners.push(Owner { origin: origin.clone(), records: 1 }),
    }
}
