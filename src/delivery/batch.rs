//! Records → the bodies of PutRecordBatch calls within the service's limits.
//!
//! Each record is encoded once, straight into the body that goes onto the wire, and its place there is kept, so that a
//! part of a batch can be sent again without being encoded again. Records keep their order; none is lost or doubled.

use crate::record::pack::Events;
use crate::service::{BODY_BETWEEN as BETWEEN, BODY_END as END, BODY_RECORDS, BODY_STREAM, MAX_BODY, MAX_RECORDS};
use bytes::Bytes;
use std::ops::Range;

/// A record's place in a body, and the events that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its base64 within the body.
    data: Range<u32>,
    /// Its size before base64, in bytes.
    pub bytes: u32,
    /// Its events.
    pub events: Events,
}

/// The body of one call, finished.
#[derive(Clone, Debug)]
pub struct Batch {
    body: Bytes,
    /// What was allocated for the body.
    capacity: usize,
    places: Vec<Place>,
}

impl Batch {
    /// The body; cloning it copies nothing.
    pub fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// Its records, in their order. Never none.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// What it takes in memory, in bytes.
    pub fn held(&self) -> usize {
        self.capacity
            + self.places.capacity() * size_of::<Place>()
            + self.places.iter().map(|place| place.events.held()).sum::<usize>()
    }

    /// Size of its body, in bytes.
    pub fn bytes_held(&self) -> usize {
        self.body.len()
    }

    /// Size of its records before base64, in bytes.
    pub fn bytes(&self) -> u64 {
        self.places.iter().map(|place| u64::from(place.bytes)).sum()
    }

    /// A record's bytes, for a dead letter.
    pub fn record(&self, place: &Place) -> Vec<u8> {
        base64_simd::STANDARD.decode_to_vec(self.data(place)).unwrap_or_default()
    }

    fn data(&self, place: &Place) -> &[u8] {
        self.body.get(place.data.start as usize..place.data.end as usize).unwrap_or_default()
    }

    /// A batch of those of its records that `keep` names by their index; none if it names none.
    pub fn part(&self, opening: &Opening, mut keep: impl FnMut(usize) -> bool) -> Option<Batch> {
        let kept: Vec<&Place> =
            self.places.iter().enumerate().filter(|(index, _)| keep(*index)).map(|(_, place)| place).collect();
        let size =
            kept.iter().map(|place| place.data.len() + BETWEEN.len()).sum::<usize>() + opening.0.len() + END.len();
        let mut body = Vec::with_capacity(size);
        body.extend_from_slice(&opening.0);
        let mut places = Vec::with_capacity(kept.len());
        for place in kept {
            opening.between(&mut body, places.len());
            let start = body.len();
            body.extend_from_slice(self.data(place));
            places.push(Place { data: start as u32..body.len() as u32, ..place.clone() });
        }
        finish(body, places)
    }

    /// The body's buffer, when nobody else holds it any more, to be filled anew.
    pub fn into_buffer(self) -> Option<Vec<u8>> {
        self.body.is_unique().then(|| self.body.into())
    }
}

fn finish(mut body: Vec<u8>, mut places: Vec<Place>) -> Option<Batch> {
    if places.is_empty() {
        return None;
    }
    body.extend_from_slice(END);
    // Memory that was meant for more is given back where it is worth it.
    if body.len() < body.capacity() / 2 {
        body.shrink_to_fit();
    }
    if places.len() < places.capacity() / 2 {
        places.shrink_to_fit();
    }
    let capacity = body.capacity();
    Some(Batch { body: body.into(), capacity, places })
}

/// How each body to one delivery stream begins.
#[derive(Clone, Debug)]
pub struct Opening(Box<[u8]>);

impl Opening {
    /// For the stream of this name, which has been checked against the service's pattern.
    pub fn new(delivery_stream: &str) -> Opening {
        let mut text = BODY_STREAM.to_vec();
        crate::record::json::write_string(&mut text, delivery_stream.as_bytes());
        text.extend_from_slice(BODY_RECORDS);
        Opening(text.into())
    }

    fn between(&self, body: &mut Vec<u8>, before: usize) {
        if before > 0 {
            body.extend_from_slice(BETWEEN);
        }
    }
}

/// Fills one batch after the other.
pub struct Batcher {
    opening: Opening,
    body: Vec<u8>,
    places: Vec<Place>,
    /// What the events of its records take beside the places.
    events_held: usize,
    /// How many records the last batch had: the next one's are about that many.
    expected: usize,
}

impl Batcher {
    /// A batcher for the stream of `opening`.
    pub fn new(opening: &Opening) -> Self {
        Batcher { opening: opening.clone(), body: Vec::new(), places: Vec::new(), events_held: 0, expected: 0 }
    }

    /// Adds a record of at most [`crate::record::MAX_RECORD`] bytes that holds `events`. The batch that was full before
    /// it, if one was, is handed out; `buffer` is asked for the next one's memory.
    pub fn push(&mut self, record: &[u8], events: Events, buffer: impl FnOnce() -> Vec<u8>) -> Option<Batch> {
        let encoded = base64_simd::STANDARD.encoded_length(record.len());
        let mut full = None;
        if self.places.len() == MAX_RECORDS
            || (!self.places.is_empty() && self.body.len() + BETWEEN.len() + encoded + END.len() > MAX_BODY)
        {
            full = self.finish();
        }
        if self.places.is_empty() {
            self.body = buffer();
            self.body.clear();
            self.body.extend_from_slice(&self.opening.0);
            self.places.reserve(self.expected);
        }
        self.opening.between(&mut self.body, self.places.len());
        let start = self.body.len();
        base64_simd::STANDARD.encode_append(record, &mut self.body);
        self.events_held += events.held();
        self.places.push(Place { data: start as u32..self.body.len() as u32, bytes: record.len() as u32, events });
        full
    }

    /// The size of the largest record that the batch still takes, in bytes.
    pub fn room(&self) -> usize {
        if self.places.len() == MAX_RECORDS {
            return 0;
        }
        let begun = if self.places.is_empty() { self.opening.0.len() } else { self.body.len() + BETWEEN.len() };
        MAX_BODY.saturating_sub(begun + END.len()) / 4 * 3
    }

    /// Whether no record is in it.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// What was allocated for it, in bytes.
    pub fn capacity(&self) -> usize {
        self.body.capacity() + self.places.capacity() * size_of::<Place>() + self.events_held
    }

    /// Lets go what was allocated for it, if nothing is in it.
    pub fn rest(&mut self) {
        if self.places.is_empty() {
            (self.body, self.places) = (Vec::new(), Vec::new());
        }
    }

    /// Takes back what a panic may have left of a record that was not added to its end.
    pub fn discard_partial_record(&mut self) {
        self.body.truncate(self.places.last().map_or(0, |place| place.data.end as usize));
    }

    /// Hands out what has been filled so far.
    pub fn finish(&mut self) -> Option<Batch> {
        self.expected = self.places.len();
        self.events_held = 0;
        finish(std::mem::take(&mut self.body), std::mem::take(&mut self.places))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::MAX_RECORD;
    use proptest::prelude::*;

    fn batches(records: &[Vec<u8>]) -> Vec<Batch> {
        let opening = Opening::new("a-stream");
        let mut batcher = Batcher::new(&opening);
        let mut out = Vec::new();
        for (index, record) in records.iter().enumerate() {
            out.extend(batcher.push(record, Events::One(index as u32..index as u32 + 1), Vec::new));
        }
        out.extend(batcher.finish());
        assert!(batcher.finish().is_none());
        out
    }

    /// What a reader of the body's JSON sees.
    fn read(batch: &Batch) -> Vec<Vec<u8>> {
        let body: serde_json::Value = serde_json::from_slice(&batch.body()).unwrap();
        assert_eq!(body["DeliveryStreamName"], "a-stream");
        let records = body["Records"].as_array().unwrap();
        records.iter().map(|r| base64_simd::STANDARD.decode_to_vec(r["Data"].as_str().unwrap()).unwrap()).collect()
    }

    fn check(records: &[Vec<u8>]) {
        let batches = batches(records);
        let mut seen = Vec::new();
        for batch in &batches {
            let read = read(batch);
            assert!(!read.is_empty() && read.len() <= MAX_RECORDS && batch.bytes_held() <= MAX_BODY);
            assert_eq!(read.len(), batch.places().len());
            for (place, record) in batch.places().iter().zip(&read) {
                assert_eq!(&batch.record(place), record);
                assert_eq!(place.bytes as usize, record.len());
                assert_eq!(place.events, Events::One(seen.len() as u32..seen.len() as u32 + 1));
                seen.push(record.clone());
            }
        }
        assert_eq!(seen, records);
        // No batch is left less full than it need be.
        for pair in batches.windows(2) {
            let next = pair[1].places().first().unwrap().bytes as usize;
            let room = MAX_BODY - pair[0].bytes_held();
            assert!(pair[0].places().len() == MAX_RECORDS || room < next * 4 / 3 + 32);
        }
    }

    #[test]
    fn a_batch_counts_what_was_allocated_for_it() {
        let opening = Opening::new("a-stream");
        for capacity in [0, 100, 1000, 100_000] {
            let mut batcher = Batcher::new(&opening);
            assert!(batcher.push(&[b'x'; 400], Events::One(0..1), || Vec::with_capacity(capacity)).is_none());
            assert!(batcher.capacity() >= capacity);
            let batch = batcher.finish().unwrap();
            let (held, part) = (batch.held(), batch.part(&opening, |_| true).unwrap());
            assert!(part.held() >= part.into_buffer().unwrap().capacity());
            assert!(held >= batch.into_buffer().unwrap().capacity());
        }
    }

    #[test]
    fn the_largest_records_fit_three_to_a_batch() {
        check(&vec![vec![b'x'; MAX_RECORD]; 7]);
        assert_eq!(
            batches(&vec![vec![b'x'; MAX_RECORD]; 7]).iter().map(|b| b.places().len()).collect::<Vec<_>>(),
            [3, 3, 1]
        );
    }

    #[test]
    fn a_record_as_large_as_the_room_fills_the_batch() {
        let mut batcher = Batcher::new(&Opening::new("a-stream"));
        let push = |batcher: &mut Batcher, bytes| batcher.push(&vec![b'x'; bytes], Events::One(0..1), Vec::new);
        for bytes in [MAX_RECORD, MAX_RECORD - 5, 777_777] {
            assert!(batcher.room() >= MAX_RECORD.min(bytes));
            assert!(push(&mut batcher, bytes).is_none());
        }
        let room = batcher.room();
        assert!(room > 100_000 && push(&mut batcher, room).is_none() && batcher.room() < 16);
        assert!(push(&mut batcher, 16).is_some_and(|full| full.bytes_held() > MAX_BODY - 64));
    }

    #[test]
    fn what_a_panic_left_behind_is_taken_back() {
        let mut batcher = Batcher::new(&Opening::new("a-stream"));
        for record in [b"one".as_slice(), b"two"] {
            batcher.push(record, Events::One(0..1), Vec::new);
            batcher.body.extend_from_slice(b"\"},{\"Data\":\"half a rec");
            batcher.discard_partial_record();
        }
        assert_eq!(read(&batcher.finish().unwrap()), [b"one", b"two"]);
        batcher.body.extend_from_slice(b"{\"DeliveryStreamName\":");
        batcher.discard_partial_record();
        assert!(batcher.is_empty() && batcher.finish().is_none());
    }

    #[test]
    fn five_hundred_and_one_records_are_two_batches() {
        assert_eq!(batches(&vec![vec![b'x']; 501]).iter().map(|b| b.places().len()).collect::<Vec<_>>(), [500, 1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn limits_hold_order_is_kept_nothing_is_lost(sizes in proptest::collection::vec(prop_oneof![
            8 => 0usize..300, 2 => 0usize..60_000, 1 => 500_000..=MAX_RECORD], 0..1200)) {
            let records: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(i, n)| vec![i as u8; *n]).collect();
            check(&records);
        }

        #[test]
        fn a_part_holds_exactly_what_was_kept(keep in proptest::collection::vec(any::<bool>(), 1..40)) {
            let records: Vec<Vec<u8>> = (0..keep.len()).map(|n| vec![n as u8; n]).collect();
            let whole = batches(&records).remove(0);
            let part = whole.part(&Opening::new("a-stream"), |index| keep[index]);
            let expected: Vec<_> = records.iter().zip(&keep).filter(|(_, k)| **k).map(|(r, _)| r.clone()).collect();
            prop_assert_eq!(part.is_none(), expected.is_empty());
            if let Some(part) = part {
                prop_assert_eq!(read(&part), expected);
                for place in part.places() {
                    prop_assert_eq!(part.record(place), records[place.events.stretches()[0].start as usize].clone());
                }
            }
        }
    }
}
