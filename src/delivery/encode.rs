//! A chunk's events → records in the lane's bodies, a slice at a time, so that calls are looked after meanwhile.

use crate::delivery::Origin;
use crate::delivery::lane::{Lane, Owner};
use crate::delivery::room::Copied;
use crate::event::chunk::{Chunk, Cursor};
use crate::metrics::Counts;
use crate::record::pack::Packer;
use crate::record::remap::TagFields;
use crate::record::{RecordEncoder, RecordOptions, Unfit};
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
        Encoding { origin, bytes, cursor: Cursor::default(), packer, settled, passed: 0 }
    }

    /// Encodes about `limit` bytes of the chunk. Should that panic, which would be a defect, the event at fault is rejected and the others
    /// go on.
    pub fn slice(&mut self, encoder: &mut RecordEncoder<'_>, lane: &mut Lane, counts: &Counts, limit: usize) -> Slice {
        let mut slice = Slice::default();
        let before = self.cursor.clone();
        let end = before.position().saturating_add(limit);
        let run = AssertUnwindSafe(|| self.run(encoder, lane, counts, end, &mut slice));
        if let Err(panic) = catch_unwind(run) {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            // Dropping what a panic carries may panic once more.
            std::mem::forget(panic);
            lane.discard_partial_record();
            self.pass_over_panic(&text, &mut slice);
        }
        slice
    }

    fn run(
        &mut self,
        encoder: &mut RecordEncoder<'_>,
        lane: &mut Lane,
        counts: &Counts,
        end: usize,
        slice: &mut Slice,
    ) {
        let bytes = self.bytes.clone();
        let fields = encoder.wants_tag().then(|| TagFields::parse(self.origin.tag.as_bytes())).flatten();
        let (collisions, truncated) = (encoder.collisions(), encoder.truncated());
        let mut text = Vec::new();
        let mut chunk = Chunk::resume(&bytes, self.cursor.clone());
        let undecodable = chunk.undecodable();
        let events = chunk.events();
        let owner = &self.origin;
        loop {
            if chunk.position() >= end && chunk.position() < bytes.len() {
                break;
            }
            // Where a panic would have to go on.
            self.cursor = chunk.cursor();
            let next = chunk.events();
            let mut add = |record: &[u8], events: Range<u32>| {
                lane.add(record, events, owner);
                slice.records += 1;
            };
            let known = self.settled.get(self.passed);
            let packed = if known.is_none()
                && let Some(text) = encoder.encode_ordinary(&mut chunk, fields.as_ref())
            {
                self.packer.push(text, next..next + 1, &mut add)
            } else {
                let Some(event) = chunk.next_event() else {
                    slice.done = true;
                    if let Err(error) = self.packer.finish(&mut add) {
                        slice.errors.push(format!("the last events of a chunk with tag {}: {error}", owner.tag));
                    }
                    break;
                };
                while self.settled.get(self.passed).is_some_and(|range| range.end <= next) {
                    self.passed += 1;
                }
                if self.settled.get(self.passed).is_some_and(|range| range.contains(&next)) {
                    continue;
                }
                match encoder.encode(&event, fields.as_ref(), &mut text) {
                    Ok(()) => self.packer.push(&text, next..next + 1, &mut add),
                    Err(Unfit::Empty) => {
                        slice.empty += 1;
                        Ok(())
                    }
                    Err(unfit) => {
                        let bytes = std::mem::take(&mut text);
                        slice.rejected.push(Rejected { event: next, reason: unfit.to_string(), bytes });
                        Ok(())
                    }
                }
            };
            if let Err(error) = packed {
                slice.errors.push(format!("event {next} of a chunk with tag {}: {error}", owner.tag));
            }
        }
        self.cursor = chunk.cursor();
        slice.undecodable = chunk.undecodable() - undecodable;
        slice.truncated = encoder.truncated() - truncated;
        counts.key_collisions.add(encoder.collisions() - collisions);
        counts.events.add(u64::from(chunk.events() - events));
    }

    /// Rejects the event at which encoding panicked.
    fn pass_over_panic(&mut self, text: &str, slice: &mut Slice) {
        let bytes = self.bytes.clone();
        let start = self.cursor.position();
        let event = self.cursor.events();
        let passed = catch_unwind(|| {
            let mut chunk = Chunk::resume(&bytes, self.cursor.clone());
            let more = chunk.next_event().is_some();
            (more, chunk.cursor())
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
