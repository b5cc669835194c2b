//! Events' texts → Firehose records: joined (`simple_aggregation`) and compressed.
//!
//! Records can be decoded alone and concatenated, as Firehose delivers them: gzip members, zstd frames and framed snappy
//! may all be concatenated.

use crate::record::MAX_RECORD;
use flate2::{Compress, Crc, FlushCompress};
use std::io::{self, Write};
use std::ops::Range;

/// By how many bytes a compressor may lengthen data that cannot be compressed. Snappy's framing adds most, 8 bytes
/// in 64 KiB.
const SLACK: usize = 8 * 1024;

/// How each Firehose record is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip, RFC 1952.
    Gzip,
    /// Zstandard, RFC 8878.
    Zstd,
    /// Snappy in its framing format.
    Snappy,
}

/// How texts become records.
#[derive(Clone, Copy, Debug, Default)]
pub struct PackOptions {
    /// Join texts by newlines, up to a record's limit.
    pub aggregate: bool,
    /// Compress each record.
    pub compression: Compression,
    /// How hard it tries: for gzip from 1 to 9, for zstd from 1 to 19; none for the compressor's own default.
    pub level: Option<u8>,
}

impl PackOptions {
    /// The most bytes of one text, and of joined texts, before compression.
    pub fn limit(&self) -> usize {
        match self.compression {
            Compression::None => MAX_RECORD,
            Compression::Gzip | Compression::Zstd | Compression::Snappy => MAX_RECORD - SLACK,
        }
    }
}

/// The events that a record holds, by their index in the chunk, in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Events {
    /// A range; empty if more parts of an event follow.
    One(Range<u32>),
    /// Several ranges: the events between them go to other streams.
    Many(Box<Vec<Range<u32>>>),
}

impl Events {
    /// The ranges.
    pub fn stretches(&self) -> &[Range<u32>] {
        match self {
            Events::One(range) => std::slice::from_ref(range),
            Events::Many(ranges) => ranges,
        }
    }

    /// Its memory on the heap, in bytes.
    pub fn held(&self) -> usize {
        match self {
            Events::One(_) => 0,
            Events::Many(ranges) => size_of::<Vec<Range<u32>>>() + ranges.capacity() * size_of::<Range<u32>>(),
        }
    }

    fn push(&mut self, more: Range<u32>) {
        match self {
            Events::One(range) if range.end == more.start => range.end = more.end,
            Events::One(range) => *self = Events::Many(Box::new(vec![range.clone(), more])),
            Events::Many(ranges) => match ranges.last_mut() {
                Some(last) if last.end == more.start => last.end = more.end,
                _ => ranges.push(more),
            },
        }
    }
}

/// Texts of one stream that are joined to a record.
#[derive(Debug)]
pub struct Joined {
    text: Vec<u8>,
    events: Events,
}

impl Default for Joined {
    fn default() -> Self {
        Joined { text: Vec::new(), events: Events::One(0..0) }
    }
}

impl Joined {
    /// Its memory on the heap, in bytes.
    pub fn held(&self) -> usize {
        self.text.capacity()
    }

    /// How long the texts are, in bytes.
    pub fn size(&self) -> usize {
        self.text.len()
    }

    /// Removes and returns the texts and their events, if there are any.
    pub fn take(&mut self) -> Option<(Vec<u8>, Events)> {
        let Joined { text, events } = std::mem::take(self);
        (!text.is_empty()).then_some((text, events))
    }
}

/// Makes the records of one chunk after the other.
pub struct Packer {
    options: PackOptions,
    packed: Vec<u8>,
    /// Contexts, made for the first record: each is some hundred kilobytes.
    gzip: Option<Compress>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

/// How a gzip member begins: deflate, no name, no time, any system (RFC 1952).
const GZIP: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

impl Packer {
    /// A packer with nothing in it.
    pub fn new(options: PackOptions) -> Packer {
        Packer { options, packed: Vec::new(), gzip: None, zstd: None }
    }

    /// Whether texts are joined.
    pub fn joins(&self) -> bool {
        self.options.aggregate
    }

    /// Adds the text of some events, of at most [`PackOptions::limit`] bytes; it may be joined to others for the same stream.
    /// `each` is called with every record that is ready, and its events.
    /// Uncompressed, a record that just fits into `room` bytes is joined no further: it fills its call.
    ///
    /// # Errors
    /// Those of a compressor; writing to memory has none.
    pub fn push(
        &mut self,
        joined: &mut Joined,
        text: &[u8],
        events: Range<u32>,
        room: usize,
        mut each: impl FnMut(&[u8], Events),
    ) -> io::Result<()> {
        if !self.options.aggregate {
            return self.pack(text, Events::One(events), &mut each);
        }
        // A part of an event is never joined: when a joined record is settled, so are all of its events.
        if events.is_empty() {
            self.finish(joined, &mut each)?;
            return self.pack(text, Events::One(events), &mut each);
        }
        let between = usize::from(!joined.text.is_empty() && !joined.text.ends_with(b"\n"));
        let length = joined.text.len() + between + text.len();
        // How much room compressed text takes is not known before.
        let fills = self.options.compression == Compression::None && joined.text.len() <= room && length > room;
        if !joined.text.is_empty() && (fills || length > self.options.limit()) {
            self.finish(joined, &mut each)?;
        }
        match joined.text.last() {
            None => joined.events = Events::One(events),
            Some(last) => {
                if *last != b'\n' {
                    joined.text.push(b'\n');
                }
                joined.events.push(events);
            }
        }
        joined.text.extend_from_slice(text);
        Ok(())
    }

    /// Ends the record that has been joined so far.
    ///
    /// # Errors
    /// See [`Packer::push`].
    pub fn finish(&mut self, joined: &mut Joined, mut each: impl FnMut(&[u8], Events)) -> io::Result<()> {
        if joined.text.is_empty() {
            return Ok(());
        }
        // If this panics, text and events are still there.
        let packed = self.pack(&joined.text, joined.events.clone(), &mut each);
        joined.text.clear();
        packed
    }

    fn pack(&mut self, text: &[u8], events: Events, each: &mut impl FnMut(&[u8], Events)) -> io::Result<()> {
        self.packed.clear();
        match self.options.compression {
            Compression::None => {
                each(text, events);
                return Ok(());
            }
            Compression::Gzip => {
                let level = flate2::Compression::default().level();
                let level = flate2::Compression::new(self.options.level.map_or(level, u32::from));
                let deflate = self.gzip.get_or_insert_with(|| Compress::new(level, false));
                deflate.reset();
                self.packed.extend_from_slice(&GZIP);
                // Data that cannot be compressed is stored, with 5 bytes for each block of at least 16 KiB.
                self.packed.reserve(text.len() + text.len() / 1024 + 64);
                loop {
                    let rest = text.get(deflate.total_in() as usize..).unwrap_or_default();
                    match deflate.compress_vec(rest, &mut self.packed, FlushCompress::Finish)? {
                        flate2::Status::StreamEnd => break,
                        _ => self.packed.reserve(64 << 10),
                    }
                }
                let mut sum = Crc::new();
                sum.update(text);
                self.packed.extend_from_slice(&sum.sum().to_le_bytes());
                self.packed.extend_from_slice(&sum.amount().to_le_bytes());
            }
            Compression::Zstd => {
                let level = self.options.level.map_or(zstd::DEFAULT_COMPRESSION_LEVEL, i32::from);
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(zstd::bulk::Compressor::new(level)?),
                };
                self.packed.reserve(zstd::zstd_safe::compress_bound(text.len()));
                zstd.compress_to_buffer(text, &mut self.packed)?;
            }
            Compression::Snappy => {
                let mut encoder = snap::write::FrameEncoder::new(&mut self.packed);
                encoder.write_all(text)?;
                encoder.flush()?;
            }
        }
        each(&self.packed, events);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read as _;

    fn records(options: PackOptions, texts: &[Vec<u8>]) -> Vec<(Vec<u8>, Events)> {
        let (mut packer, mut joined) = (Packer::new(options), Joined::default());
        let mut records = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let events = index as u32..index as u32 + 1;
            packer
                .push(&mut joined, text, events, MAX_RECORD, |record, events| records.push((record.to_vec(), events)))
                .unwrap();
        }
        packer.finish(&mut joined, |record, events| records.push((record.to_vec(), events))).unwrap();
        records
    }

    fn decoded(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match compression {
            Compression::None => out.extend_from_slice(bytes),
            Compression::Gzip => {
                flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out).unwrap();
            }
            Compression::Zstd => out = zstd::decode_all(bytes).unwrap(),
            Compression::Snappy => {
                snap::read::FrameDecoder::new(bytes).read_to_end(&mut out).unwrap();
            }
        }
        out
    }

    const ALL: [Compression; 4] = [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Snappy];

    #[test]
    fn the_largest_text_fits_into_a_record_even_if_it_cannot_be_compressed() {
        for compression in ALL {
            let options = PackOptions { aggregate: true, compression, level: None };
            let mut state = 1u64;
            let noise: Vec<u8> = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .take(options.limit())
            .collect();
            let records = records(options, &[noise.clone(), b"x".to_vec()]);
            assert_eq!(records.len(), 2, "{compression:?}");
            assert!(records[0].0.len() <= MAX_RECORD, "{compression:?}: {}", records[0].0.len());
            assert_eq!(decoded(compression, &records[0].0), noise);
        }
    }

    #[test]
    fn a_higher_level_makes_less_of_the_same() {
        let text: Vec<u8> =
            (0..20_000u32).flat_map(|n| format!("{} line {n}\n", n.wrapping_mul(n) % 977).into_bytes()).collect();
        for (compression, most) in [(Compression::Gzip, 9), (Compression::Zstd, 19)] {
            let [low, high] = [1, most].map(|level| {
                let options = PackOptions { aggregate: false, compression, level: Some(level) };
                let mut packed = records(options, std::slice::from_ref(&text));
                assert_eq!(decoded(compression, &packed[0].0), text);
                packed.remove(0).0.len()
            });
            assert!(high < low, "{compression:?}: {low} and {high}");
        }
    }

    #[test]
    fn a_record_is_cut_to_the_room_that_is_left_and_no_room_is_no_reason_for_small_ones() {
        let options = PackOptions { aggregate: true, ..PackOptions::default() };
        let (mut packer, mut joined, mut sizes) = (Packer::new(options), Joined::default(), Vec::new());
        // Room for four and a half, then for nothing.
        for (event, room) in (0..20).zip(std::iter::repeat_n(45, 5).chain(std::iter::repeat_n(0, 15))) {
            let each = |record: &[u8], _| sizes.push(record.len());
            packer.push(&mut joined, b"ten bytes\n", event..event + 1, room, each).unwrap();
        }
        packer.finish(&mut joined, |record, _| sizes.push(record.len())).unwrap();
        assert_eq!(sizes, [40, 160]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn what_is_packed_unpacks_in_order_without_blank_lines(
            lines in proptest::collection::vec("[a-z]{1,40}", 1..400),
            newline in any::<bool>(),
            aggregate in any::<bool>(),
        ) {
            for compression in ALL {
                let end = if newline { "\n" } else { "" };
                let texts: Vec<Vec<u8>> = lines.iter().map(|line| format!("{line}{end}").into_bytes()).collect();
                let records = records(PackOptions { aggregate, compression, level: None }, &texts);
                let all: Vec<u8> = records.iter().flat_map(|(record, _)| record.clone()).collect();
                let text = String::from_utf8(decoded(compression, &all)).unwrap();
                let expected = if aggregate && !newline { lines.join("\n") } else { lines.iter().map(|l| format!("{l}{end}")).collect() };
                prop_assert_eq!(text, expected);
                let covered: Vec<u32> = records.iter().flat_map(|(_, events)| events.stretches().iter().cloned().flatten()).collect();
                prop_assert_eq!(covered, (0..lines.len() as u32).collect::<Vec<_>>());
                prop_assert!(aggregate == (records.len() == 1) || lines.len() == 1);
            }
        }
    }
}
