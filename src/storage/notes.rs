//! The format of notes on a chunk: which of its events are settled.
//!
//! A file begins with [`MAGIC`]; each entry is start (u32), end (u32) and the XXH3 of both, seeded with the checksum of the
//! chunk's head (u64), little-endian. So an entry is valid for its own chunk only, and damage costs only the damaged
//! entry: its events are sent again.

use std::io::{self, Read};
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The first bytes of the file; the last one is the format's version.
pub const MAGIC: &[u8; ENTRY] = b"kubehose notes 2";

/// Size of an entry, in bytes.
pub const ENTRY: usize = 16;

/// The most bytes of a file that are read. The rest is ignored.
const LONGEST: u64 = 64 << 20;

/// Writes the entries for these ranges; adjoining ones are joined, empty ones skipped.
pub fn encode(seed: u64, ranges: &[Range<u32>], out: &mut Vec<u8>) {
    let mut ranges = ranges.iter().filter(|range| range.start < range.end).cloned().peekable();
    while let Some(mut range) = ranges.next() {
        while let Some(next) = ranges.next_if(|next| next.start == range.end) {
            range.end = next.end;
        }
        let mut entry = [0; 8];
        entry[..4].copy_from_slice(&range.start.to_le_bytes());
        entry[4..].copy_from_slice(&range.end.to_le_bytes());
        out.extend_from_slice(&entry);
        out.extend_from_slice(&xxh3_64_with_seed(&entry, seed).to_le_bytes());
    }
}

/// The ranges of a file, ascending and merged, and how many of its entries are invalid. `events` is the most events that
/// the chunk can have.
///
/// # Errors
/// What the system says.
pub fn read(file: impl Read, seed: u64, events: u64) -> io::Result<(Vec<Range<u32>>, u64)> {
    let mut file = file.take(LONGEST);
    let mut ranges = Vec::new();
    let mut disbelieved = 0;
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if file.by_ref().take(64 << 10).read_to_end(&mut bytes)? == 0 {
            break;
        }
        // An incomplete entry at the end was cut off.
        for entry in bytes.as_chunks::<ENTRY>().0 {
            match decode(entry, seed) {
                Some(range) if range.start < range.end && u64::from(range.end) <= events => ranges.push(range),
                _ if entry == MAGIC => {}
                _ => disbelieved += 1,
            }
        }
        if ranges.len() > 1 << 16 {
            ranges = merged(ranges);
        }
    }
    Ok((merged(ranges), disbelieved))
}

fn decode(entry: &[u8; ENTRY], seed: u64) -> Option<Range<u32>> {
    let [a, b, c, d, e, f, g, h, sum @ ..] = *entry;
    let sound = xxh3_64_with_seed(&[a, b, c, d, e, f, g, h], seed) == u64::from_le_bytes(sum);
    sound.then(|| u32::from_le_bytes([a, b, c, d])..u32::from_le_bytes([e, f, g, h]))
}

fn merged(mut ranges: Vec<Range<u32>>) -> Vec<Range<u32>> {
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, last| {
        let joined = next.start <= last.end;
        if joined {
            last.end = last.end.max(next.end);
        }
        joined
    });
    ranges
}
