//! An event's msgpack → its JSON, in one pass, without a tape.
//!
//! Nearly every event is a map of plain keys without repetition, with values of kinds that JSON has and a mapping
//! without conflicts. Its text is written while it is read; what the mapping moves is written at the end. All other
//! events are left to [`crate::record::tape`].

use crate::event::known::Known;
use crate::event::path::Node;
use crate::record::json::{self, BLOCK, grow, is_special, plain};
use crate::record::remap::{Remap, Role, TagFields};
use xxhash_rust::xxh3::xxh3_64;

/// An event with containers nested deeper than this is left to the tape.
const MOST_LEVELS: usize = 32;

/// So is an event with more keys in a map than this: comparing each key with all others would cost too much.
const MOST_KEYS: usize = 64;

/// Tells `kubernetes` maps apart: events with the same number have the same map, byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapId(u64);

/// Writes events, and keeps its buffers and maps from event to event.
pub struct Writer<'o> {
    remap: &'o Remap,
    /// Root attributes that are replaced by what is added after the event.
    replaced: Vec<&'o [u8]>,
    /// The text, and room after it. How much is in use is passed from call to call, so that it stays in registers.
    room: Vec<u8>,
    /// Marks of the keys so far, of the open maps.
    marks: Vec<u64>,
    /// Where in the msgpack each rule's source is, and what other rules may move out of it.
    sources: Vec<Option<(usize, &'o Node)>>,
    /// Which rules' targets the event has.
    targets: Vec<bool>,
    /// Attributes that the mapping added to the last event.
    added: usize,
    /// `kubernetes` maps that were written before.
    known: Known<Written<'o>>,
    /// The map of the last event, if it is kept.
    map: Option<MapId>,
    /// How many maps have been kept so far.
    kept: u64,
}

/// A map's text, and what the mapping moves out of it.
#[derive(Default)]
struct Written<'o> {
    number: u64,
    text: Vec<u8>,
    /// Rules whose source is in it, each with its place there.
    sources: Vec<(usize, usize, &'o Node)>,
}

/// How far the msgpack has been read, and how far the text is written.
type Ends = (usize, usize);

impl<'o> Writer<'o> {
    /// A writer for this mapping; root attributes with the names `replaced` are dropped.
    pub fn new(remap: &'o Remap, replaced: Vec<&'o [u8]>) -> Self {
        Writer {
            remap,
            replaced,
            room: vec![0; 2048],
            marks: Vec::new(),
            sources: Vec::new(),
            targets: Vec::new(),
            added: 0,
            known: Known::default(),
            map: None,
            kept: 0,
        }
    }

    /// The same with empty buffers, after a panic. Numbers of maps are not given again.
    pub fn begin_anew(&mut self) {
        let kept = self.kept;
        *self = Writer { kept, ..Writer::new(self.remap, std::mem::take(&mut self.replaced)) };
    }

    /// The `kubernetes` map of the last event, if it is kept.
    pub fn map_id(&self) -> Option<MapId> {
        self.map
    }

    /// Writes an event whose body begins `data`, without its closing brace. Returns how many bytes of `data` the body
    /// has, and how many the text has; `None` if the event is empty, or must be left to the tape.
    pub fn event(&mut self, data: &[u8], tag: Option<&TagFields>) -> Option<Ends> {
        self.marks.clear();
        self.sources.clear();
        self.sources.resize(self.remap.rules(), None);
        self.targets.clear();
        self.targets.resize(self.remap.rules(), false);
        self.added = 0;
        self.map = None;
        json::begin(&mut self.room);
        let (pairs, at) = match *data.first()? {
            head @ 0x81..=0x8f => (usize::from(head & 15), 1),
            0xde => (usize::from(be16(data, 1)?), 3),
            // As in_tail writes it with a parser.
            0xdf => (be32(data, 1)? as usize, 5),
            _ => return None,
        };
        if pairs == 0 {
            return None;
        }
        let (read, written) = self.map::<true>(data, (at, 0), pairs, Some(self.remap.paths()), 1)?;
        // The closing brace is written after the added attributes.
        let written = self.write_moved(data, tag, written - 1)?;
        Some((read, written))
    }

    /// Exchanges the room in which the record is ended.
    pub fn swap_room(&mut self, room: &mut Vec<u8>) {
        std::mem::swap(&mut self.room, room);
    }

    /// How many attributes the mapping added to the last event.
    pub fn added(&self) -> usize {
        self.added
    }

    /// The first `end` bytes of the text.
    pub fn text(&self, end: usize) -> &[u8] {
        self.room.get(..end).unwrap_or_default()
    }

    /// Closes the object that was written up to `end`, with `last` attributes if there are any, and with what follows
    /// the brace; returns its length.
    pub fn close(&mut self, mut end: usize, last: &[u8], behind: &[u8]) -> usize {
        if !last.is_empty() {
            end = self.comma(end);
            end = self.put(last, end);
        }
        end = self.put(b"}", end);
        self.put(behind, end)
    }

    /// Writes what the mapping moves, and the constants; `None` if a target exists already.
    fn write_moved(&mut self, data: &[u8], tag: Option<&TagFields>, mut end: usize) -> Option<usize> {
        let remap = self.remap;
        for rule in 0..remap.moves() {
            let source = self.sources.get(rule).copied().flatten();
            let from_tag = tag.and_then(|tag| remap.from_tag(rule, tag));
            if source.is_none() && from_tag.is_none() {
                continue;
            }
            if self.targets.get(rule).copied().unwrap_or(true) {
                return None;
            }
            self.added += 1;
            end = self.comma(end);
            end = self.put(remap.name_json(rule), end);
            end = match source {
                // Reading it again is cheaper than keeping its text.
                Some((at, node)) => self.value(data, (at, end), Some(node), 1)?.1,
                None => self.put(from_tag.unwrap_or_default(), end),
            };
        }
        // Constants alone make no record.
        if end <= 1 {
            return None;
        }
        for rule in remap.moves()..remap.rules() {
            if !self.targets.get(rule).copied().unwrap_or(true) {
                self.added += 1;
                end = self.put(b",", end);
                end = self.put(remap.name_json(rule), end);
                end = self.put(remap.constant(rule), end);
            }
        }
        Some(end)
    }

    /// One value.
    fn value(&mut self, data: &[u8], (at, end): Ends, node: Option<&'o Node>, levels: usize) -> Option<Ends> {
        let head = *data.get(at)?;
        let at = at + 1;
        match head {
            0xa0..=0xbf => self.string(data, at, usize::from(head & 31), end),
            0xd9 => self.string(data, at + 1, usize::from(*data.get(at)?), end),
            0xda => self.string(data, at + 2, usize::from(be16(data, at)?), end),
            0xdb => self.string(data, at + 4, be32(data, at)? as usize, end),
            0x80..=0x8f => self.map::<false>(data, (at, end), usize::from(head & 15), node, levels + 1),
            0xde => self.map::<false>(data, (at + 2, end), usize::from(be16(data, at)?), node, levels + 1),
            0xdf => self.map::<false>(data, (at + 4, end), be32(data, at)? as usize, node, levels + 1),
            0x90..=0x9f => self.array(data, (at, end), usize::from(head & 15), levels + 1),
            0xdd => self.array(data, (at + 4, end), be32(data, at)? as usize, levels + 1),
            0xdc => self.array(data, (at + 2, end), usize::from(be16(data, at)?), levels + 1),
            0xc0 => Some((at, self.put(b"null", end))),
            0xc2 => Some((at, self.put(b"false", end))),
            0xc3 => Some((at, self.put(b"true", end))),
            0x00..=0x7f => Some((at, self.put(itoa::Buffer::new().format(head).as_bytes(), end))),
            0xe0..=0xff => Some((at, self.put(itoa::Buffer::new().format(head as i8).as_bytes(), end))),
            0xcc => self.integer(u8::from_be_bytes(*data.get(at..)?.first_chunk()?), at + 1, end),
            0xcd => self.integer(be16(data, at)?, at + 2, end),
            0xce => self.integer(be32(data, at)?, at + 4, end),
            0xcf => self.integer(u64::from_be_bytes(*data.get(at..)?.first_chunk()?), at + 8, end),
            0xd0 => self.integer(i8::from_be_bytes(*data.get(at..)?.first_chunk()?), at + 1, end),
            0xd1 => self.integer(i16::from_be_bytes(*data.get(at..)?.first_chunk()?), at + 2, end),
            0xd2 => self.integer(i32::from_be_bytes(*data.get(at..)?.first_chunk()?), at + 4, end),
            0xd3 => self.integer(i64::from_be_bytes(*data.get(at..)?.first_chunk()?), at + 8, end),
            0xca => self.float(f32::from_be_bytes(*data.get(at..)?.first_chunk()?), at + 4, end),
            0xcb => self.float(f64::from_be_bytes(*data.get(at..)?.first_chunk()?), at + 8, end),
            _ => None,
        }
    }

    fn integer(&mut self, number: impl itoa::Integer, at: usize, end: usize) -> Option<Ends> {
        Some((at, self.put(itoa::Buffer::new().format(number).as_bytes(), end)))
    }

    fn float<F: zmij::Float + Into<f64>>(&mut self, number: F, at: usize, end: usize) -> Option<Ends> {
        // NaN and the infinities are left to the tape.
        let finite = Some(number).filter(|number| <F as Into<f64>>::into(*number).is_finite())?;
        Some((at, self.put(zmij::Buffer::new().format_finite(finite).as_bytes(), end)))
    }

    fn array(&mut self, data: &[u8], (mut at, mut end): Ends, items: usize, levels: usize) -> Option<Ends> {
        if levels > MOST_LEVELS {
            return None;
        }
        end = self.put(b"[", end);
        for item in 0..items {
            if item > 0 {
                end = self.put(b",", end);
            }
            (at, end) = self.value(data, (at, end), None, levels)?;
        }
        Some((at, self.put(b"]", end)))
    }

    fn map<const ROOT: bool>(
        &mut self,
        data: &[u8],
        (mut at, mut end): Ends,
        pairs: usize,
        node: Option<&'o Node>,
        levels: usize,
    ) -> Option<Ends> {
        if levels > MOST_LEVELS || pairs > MOST_KEYS {
            return None;
        }
        let first_mark = self.marks.len();
        end = self.put(b"{", end);
        let (mut any, mut bits) = (false, 0u64);
        for _ in 0..pairs {
            let (from, length) = match *data.get(at)? {
                head @ 0xa0..=0xbf => (at + 1, usize::from(head & 31)),
                0xd9 => (at + 2, usize::from(*data.get(at + 1)?)),
                _ => return None,
            };
            at = from.checked_add(length)?;
            let name = data.get(from..at)?;
            let before = end;
            // Equal keys have equal marks; different keys hardly ever.
            let mark = mark(data, from, name);
            let bit = 1 << (mark.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58);
            if bits & bit != 0 && self.marks.get(first_mark..)?.contains(&mark) {
                return None;
            }
            bits |= bit;
            self.marks.push(mark);
            end = self.key(data, from, length, any, end)?;
            let child = node.and_then(|node| node.child(name));
            let value = at;
            (at, end) = match child {
                Some(child) if ROOT && self.remap.is_kubernetes(child) => self.known(data, (at, end), child)?,
                _ => self.value(data, (at, end), child, levels)?,
            };
            let mut removed = ROOT && self.replaced.contains(&name);
            if let Some(child) = child {
                for role in self.remap.roles(child) {
                    match role {
                        Role::Target(rule) => *self.targets.get_mut(rule)? = true,
                        // A value that is not a text is not a name.
                        Role::Source(rule) if self.remap.is_name(rule) && !is_text(data, value) => {}
                        Role::Source(rule) => {
                            *self.sources.get_mut(rule)? = Some((value, child));
                            removed |= !self.remap.preserve_source;
                        }
                    }
                }
            }
            if removed {
                end = before;
            } else {
                any = true;
            }
        }
        self.marks.truncate(first_mark);
        Some((at, self.put(b"}", end)))
    }

    /// Writes the `kubernetes` map: copies its text, if it was written before.
    fn known(&mut self, data: &[u8], (at, end): Ends, node: &'o Node) -> Option<Ends> {
        let unknown = match self.known.find(data.get(at..)?) {
            Ok((bytes, known)) => {
                for (rule, offset, node) in &known.sources {
                    *self.sources.get_mut(*rule)? = Some((at + offset, *node));
                }
                let text = known.text.len();
                grow(&mut self.room, end, text);
                self.room.get_mut(end..end + text)?.copy_from_slice(&known.text);
                self.map = Some(MapId(known.number));
                return Some((at + bytes, end + text));
            }
            Err(unknown) => unknown,
        };
        let (read, written) = self.value(data, (at, end), Some(node), 1)?;
        let text = self.room.get(end..written)?;
        if let Some(known) = self.known.keep(unknown, data.get(at..read)?) {
            self.kept += 1;
            self.map = Some(MapId(self.kept));
            known.number = self.kept;
            known.text.clear();
            known.sources.clear();
            known.text.extend_from_slice(text);
            let sources =
                self.sources.iter().enumerate().filter_map(|(rule, source)| source.map(|(at, node)| (rule, at, node)));
            let within = sources.filter(|(_, source, _)| (at..read).contains(source));
            known.sources.extend(within.map(|(rule, source, node)| (rule, source - at, node)));
        }
        Some((read, written))
    }

    /// Writes a key with its quotes and the colon; `None` if it needs escaping or is not ASCII.
    #[inline]
    fn key(&mut self, data: &[u8], from: usize, length: usize, comma: bool, end: usize) -> Option<usize> {
        grow(&mut self.room, end, length);
        let (block, room) = (data.get(from..)?.first_chunk::<BLOCK>(), self.room.get_mut(end..)?);
        let room = match comma {
            true => {
                let (first, rest) = room.split_first_mut()?;
                *first = b',';
                rest
            }
            false => room,
        };
        *room.first_mut()? = b'"';
        match block {
            Some(block) if length <= BLOCK => {
                if !plain_block(block, length) {
                    return None;
                }
                *room.get_mut(1..)?.first_chunk_mut()? = *block;
            }
            _ => {
                let text = data.get(from..from + length)?;
                if !plain(text) {
                    return None;
                }
                room.get_mut(1..=length)?.copy_from_slice(text);
            }
        }
        *room.get_mut(length + 1..)?.first_chunk_mut()? = *b"\":";
        Some(end + usize::from(comma) + length + 3)
    }

    /// Writes a string with its quotes.
    #[inline]
    fn string(&mut self, data: &[u8], from: usize, length: usize, end: usize) -> Option<Ends> {
        let text = data.get(from..from.checked_add(length)?)?;
        grow(&mut self.room, end, length);
        let (block, room) = (data.get(from..)?.first_chunk::<BLOCK>(), self.room.get_mut(end..)?);
        match block {
            Some(block) if length <= BLOCK && plain_block(block, length) => {
                *room.get_mut(1..)?.first_chunk_mut()? = *block;
            }
            _ => return Some((from + length, json::string_at(&mut self.room, end, text))),
        }
        *room.first_mut()? = b'"';
        *room.get_mut(length + 1)? = b'"';
        Some((from + length, end + length + 2))
    }

    fn comma(&mut self, end: usize) -> usize {
        // There is none only directly after the opening brace.
        if end > 1 { self.put(b",", end) } else { end }
    }

    #[inline]
    fn put(&mut self, text: &[u8], end: usize) -> usize {
        json::put(&mut self.room, text, end)
    }
}

/// Whether there is a text that is not empty.
fn is_text(data: &[u8], at: usize) -> bool {
    match data.get(at..) {
        Some([0xa1..=0xbf, ..] | [0xd9, 1..=0xff, ..]) => true,
        Some([0xda, high, low, ..]) => (high | low) != 0,
        Some([0xdb, ..]) => be32(data, at + 1).is_some_and(|length| length > 0),
        _ => false,
    }
}

/// A mark that differs for nearly all different keys, also for those of labels, which often begin and end alike. The name is at `from`
/// in the data.
#[inline]
fn mark(data: &[u8], from: usize, name: &[u8]) -> u64 {
    if name.len() > 16 {
        return xxh3_64(name);
    }
    let ends = match (name.first_chunk::<8>(), name.last_chunk::<8>(), data.get(from..).and_then(<[u8]>::first_chunk)) {
        (Some(head), Some(tail), _) => u64::from_le_bytes(*head) ^ u64::from_le_bytes(*tail).rotate_left(29),
        (_, _, Some(block)) => u64::from_le_bytes(*block) & ((1 << (8 * name.len())) - 1),
        _ => name.iter().rev().fold(0, |mark, byte| mark << 8 | u64::from(*byte)),
    };
    ends ^ (name.len() as u64) << 56
}

/// Whether the first `length` bytes of a block are ASCII that JSON does not escape. Without a branch, so that it becomes
/// vector instructions.
#[inline]
fn plain_block(block: &[u8; BLOCK], length: usize) -> bool {
    let mut special = false;
    for (index, byte) in block.iter().enumerate() {
        special |= is_special(*byte) & ((index as u8) < length as u8);
    }
    !special
}

#[inline]
fn be16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

#[inline]
fn be32(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*data.get(at..)?.first_chunk()?))
}
