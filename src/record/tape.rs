//! An event of any shape → its JSON, from its tape: applies the mapping and the options; every key is a string without
//! repetition, every value of a kind that JSON has.
//!
//! A repeated key keeps its first place and its last value. NaN and the infinities become null. Keys that are not
//! strings become their JSON. Binary becomes text if it is UTF-8, otherwise base64; extension values become base64.

use crate::event::chunk::{Event, Token, Value};
use crate::event::path::Node;
use crate::record::remap::{Moved, Plan, TagFields};
use crate::record::{RecordOptions, json};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// Replaces a container that is nested deeper than [`crate::event::chunk::MAX_DEPTH`].
pub const TOO_DEEP: &[u8] = b"[nested too deep]";

/// Which parts of a value are written, and how.
#[derive(Clone, Copy, Default)]
struct Part<'p> {
    /// The paths to drop.
    drop: Option<&'p Node>,
    /// The only paths to keep.
    keep: Option<&'p Node>,
    /// Indices of the keys (on the value's tape) that are dropped with their values.
    removed: &'p [usize],
    /// What replaces dots in keys.
    dots: Option<&'p str>,
    /// Whether this is within a key. A container that is a key there is not written, because a text within a text within a
    /// text doubles its length with each level.
    in_key: bool,
}

impl<'p> Part<'p> {
    /// Which parts of the value under `name` are written; `None` if none.
    #[inline]
    fn child(self, name: &[u8], value: Value<'_, '_>) -> Option<Part<'p>> {
        if self.drop.is_none() && self.keep.is_none() {
            return Some(self);
        }
        let drop = self.drop.and_then(|node| node.child(name));
        if drop.is_some_and(|node| !node.ends().is_empty()) {
            return None;
        }
        let keep = match self.keep {
            None => None,
            Some(node) => match node.child(name)? {
                all if !all.ends().is_empty() => None,
                some if matches!(value.token(), Token::Map { .. }) => Some(some),
                _ => return None,
            },
        };
        Some(Part { drop, keep, ..self })
    }
}

/// The names of a map so far.
#[derive(Default)]
struct Names {
    text: Vec<u8>,
    ends: Vec<usize>,
    many: HashSet<Box<[u8]>>,
}

impl Names {
    /// Up to this number, comparing with each name is cheaper than hashing.
    const FEW: usize = 32;

    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
        self.many.clear();
    }

    /// Adds a name; false if it was there already.
    fn insert(&mut self, name: &[u8]) -> bool {
        if self.contains(name) {
            return false;
        }
        if self.ends.len() >= Self::FEW {
            return self.many.insert(name.into());
        }
        self.text.extend_from_slice(name);
        self.ends.push(self.text.len());
        true
    }

    fn contains(&self, name: &[u8]) -> bool {
        self.few().any(|other| other == name) || !self.many.is_empty() && self.many.contains(name)
    }

    fn few(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| self.text.get(start..*end).unwrap_or_default())
    }
}

/// Writes events of any shape, and keeps its buffers.
#[derive(Default)]
pub struct TapeWriter {
    /// The last text, and room after it.
    pub room: Vec<u8>,
    /// How much of that is in use.
    pub end: usize,
    names: Names,
    /// Where the event's own root keys are in the text, with their quotes.
    keys: Vec<Range<usize>>,
    collisions: u64,
}

impl TapeWriter {
    /// How many values were dropped because `replace_dots` gave two keys the same name, or a key has the name of an added one.
    pub fn collisions(&self) -> u64 {
        self.collisions
    }

    /// Sets that number: of an event that is taken back nothing counts.
    pub fn set_collisions(&mut self, collisions: u64) {
        self.collisions = collisions;
    }

    /// The last text.
    pub fn text(&self) -> &[u8] {
        self.room.get(..self.end).unwrap_or_default()
    }

    /// Writes a value alone, with dots in keys replaced.
    pub fn alone(&mut self, value: Value<'_, '_>, dots: Option<&str>) {
        self.begin();
        self.value(value, Part { dots, ..Part::default() });
    }

    fn begin(&mut self) {
        json::begin(&mut self.room);
        self.end = 0;
    }

    /// Writes an event, with what `plan` moves and without its closing brace and `reserved` names. Returns how many
    /// attributes follow its own; `None` if nothing was written.
    pub fn event(
        &mut self,
        event: &Event<'_, '_>,
        plan: &Plan,
        tag: Option<&TagFields>,
        options: &RecordOptions,
        reserved: &[&[u8]],
    ) -> Option<usize> {
        self.begin();
        let mut names = std::mem::take(&mut self.names);
        names.clear();
        let (remap, body) = (&options.remap, event.body);
        let part = Part {
            drop: options.drop_keys.as_ref().map(|paths| paths.root()),
            keep: options.data_keys.as_ref().map(|paths| paths.root()),
            dots: options.replace_dots.as_deref(),
            ..Part::default()
        };
        let moved: Vec<_> = plan
            .moved
            .iter()
            .filter_map(|(rule, from)| {
                let value = match from {
                    Moved::At(at) => Value { tape: body.tape, at: *at },
                    Moved::Tag => Value { tape: &[], at: 0 },
                };
                Some((*rule, *from, part.child(remap.target(*rule), value)?))
            })
            .collect();
        for name in reserved.iter().copied().chain(moved.iter().map(|(rule, ..)| remap.name(*rule))) {
            names.insert(name);
        }
        self.keys.clear();
        self.put(b"{");
        let gone = |name: &[u8]| reserved.contains(&name) || remap.overrides(plan, name);
        let own = Part { removed: &plan.removed, ..part };
        let mut count = match body.token() {
            Token::Map { .. } => self.map(body, own, Some(&mut names), gone),
            _ => {
                let log = (Cow::Borrowed(&b"log"[..]), body.at, body);
                self.pairs(std::iter::once(log), true, own, Some(&mut names), gone)
            }
        };
        let own_count = count;
        for (rule, from, part) in moved {
            self.comma();
            self.put(remap.name_json(rule));
            match from {
                Moved::At(at) => {
                    let part = Part { removed: &plan.removed, ..part };
                    self.value(Value { tape: body.tape, at }, part);
                }
                Moved::Tag => self.put(tag.and_then(|tag| remap.from_tag(rule, tag)).unwrap_or(b"null")),
            }
            count += 1;
        }
        count += self.group(event, part, options, &mut names);
        let empty = count == 0;
        for rule in remap.moves()..remap.rules() {
            let name = remap.name_json(rule);
            if !self.has_key(name.strip_suffix(b":").unwrap_or(name)) && names.insert(remap.name(rule)) {
                self.comma();
                self.put(name);
                self.put(remap.constant(rule));
                count += 1;
            }
        }
        self.names = names;
        (!empty).then_some(count - own_count)
    }

    /// What an OTLP record has besides its body: the group's resource and scope, and the record's own metadata, under the
    /// names of OpenTelemetry's log data model.
    fn group(&mut self, event: &Event<'_, '_>, part: Part<'_>, options: &RecordOptions, names: &mut Names) -> usize {
        let Some(group) = event.group else { return 0 };
        let mut count = 0;
        let mut add = |name: &[u8], value: Value<'_, '_>| {
            let Some(part) = part.child(name, value) else { return };
            let name = dotless(name, part.dots);
            let mut quoted = Vec::new();
            json::write_string(&mut quoted, &name);
            if self.has_key(&quoted) || !names.insert(&name) {
                return;
            }
            self.key(&name);
            match value.token() {
                Token::Bin(id) if matches!(&*name, b"trace_id" | b"span_id") => {
                    self.string(hex::encode(id).as_bytes());
                }
                _ => self.value(value, part),
            }
            count += 1;
        };
        for name in [&b"resource"[..], b"scope"] {
            if let Some((_, value)) = group.get(name) {
                add(name, value);
            }
        }
        if options.otlp_metadata
            && let Some((_, record)) = event.metadata.get(b"otlp")
        {
            for (name, _, value) in entries(record, false) {
                add(&name, value);
            }
        }
        count
    }

    fn value(&mut self, value: Value<'_, '_>, part: Part<'_>) {
        match value.token() {
            Token::Nil => self.put(b"null"),
            Token::Bool(flag) => self.put(if flag { b"true" } else { b"false" }),
            Token::UInt(number) => self.put(itoa::Buffer::new().format(number).as_bytes()),
            Token::Int(number) => self.put(itoa::Buffer::new().format(number).as_bytes()),
            Token::F32(number) if number.is_finite() => self.put(zmij::Buffer::new().format_finite(number).as_bytes()),
            Token::F64(number) if number.is_finite() => self.put(zmij::Buffer::new().format_finite(number).as_bytes()),
            Token::F32(_) | Token::F64(_) => self.put(b"null"),
            Token::Str(text) => self.string(text),
            Token::Bin(bytes) if std::str::from_utf8(bytes).is_ok() => self.string(bytes),
            Token::Bin(bytes) | Token::Ext(bytes) => self.string(base64(bytes).as_bytes()),
            Token::TooDeep => self.string(TOO_DEEP),
            Token::Array { len, .. } => {
                let mut at = value.at + 1;
                // Paths lead through maps only.
                let part = Part { drop: None, keep: None, ..part };
                self.put(b"[");
                for item in 0..len {
                    if item > 0 {
                        self.put(b",");
                    }
                    let item = Value { tape: value.tape, at };
                    self.value(item, part);
                    at = item.next();
                }
                self.put(b"]");
            }
            Token::Map { .. } => {
                self.put(b"{");
                self.map(value, part, None, |_| false);
                self.put(b"}");
            }
        }
    }

    /// Writes the pairs of a map, except those whose name is among `names` (if given) and those that are `gone`.
    fn map(
        &mut self,
        map: Value<'_, '_>,
        part: Part<'_>,
        names: Option<&mut Names>,
        gone: impl Fn(&[u8]) -> bool,
    ) -> usize {
        match plain_keys(map, part.dots.is_some()) {
            // Most maps: no key is renamed, and none dropped except those that were moved.
            true if names.is_none() && part.drop.is_none() && part.keep.is_none() => {
                let mut count = 0;
                for (key, value) in map.pairs() {
                    let Token::Str(name) = key.token() else { continue };
                    if part.removed.is_empty() || !part.removed.contains(&key.at) {
                        self.key(name);
                        self.value(value, part);
                        count += 1;
                    }
                }
                count
            }
            true => {
                let plain = map.pairs().filter_map(|(key, value)| match key.token() {
                    Token::Str(name) => Some((Cow::Borrowed(name), key.at, value)),
                    _ => None,
                });
                self.pairs(plain, true, part, names, gone)
            }
            false => {
                let entries = entries(map, part.in_key);
                // Keys without dots cannot become equal.
                let unique = part.dots.is_none_or(|_| !entries.iter().any(|(name, ..)| name.contains(&b'.')));
                self.pairs(entries.into_iter(), unique, part, names, gone)
            }
        }
    }

    fn pairs<'t, 'a: 't>(
        &mut self,
        entries: impl Iterator<Item = Entry<'t, 'a>>,
        unique: bool,
        part: Part<'_>,
        names: Option<&mut Names>,
        gone: impl Fn(&[u8]) -> bool,
    ) -> usize {
        let mut own = Names::default();
        let root = names.is_some();
        let names = names.unwrap_or(&mut own);
        let mut count = 0;
        for (name, key, value) in entries {
            if part.removed.contains(&key) || gone(&name) {
                continue;
            }
            let Some(part) = part.child(&name, value) else { continue };
            let name = dotless(&name, part.dots);
            let is_new = if unique { !names.contains(&name) } else { names.insert(&name) };
            if !is_new {
                self.collisions += 1;
                continue;
            }
            let start = self.end;
            let key = self.key(&name);
            let from = self.end;
            self.value(value, part);
            // No part of it was kept.
            if part.keep.is_some() && self.room.get(from..self.end) == Some(b"{}") {
                self.end = start;
                continue;
            }
            if root {
                self.keys.push(key);
            }
            count += 1;
        }
        count
    }

    /// Whether the event itself has this root key, given as it is written.
    fn has_key(&self, quoted: &[u8]) -> bool {
        self.keys.iter().any(|key| key.len() == quoted.len() && self.room.get(key.clone()) == Some(quoted))
    }

    /// Writes a key with its colon, and a comma before it if needed; returns where the key is.
    fn key(&mut self, name: &[u8]) -> Range<usize> {
        self.comma();
        let start = self.end;
        self.string(name);
        let key = start..self.end;
        self.put(b":");
        key
    }

    fn comma(&mut self) {
        if self.text().last() != Some(&b'{') {
            self.put(b",");
        }
    }

    fn string(&mut self, text: &[u8]) {
        self.end = json::string_at(&mut self.room, self.end, text);
    }

    fn put(&mut self, text: &[u8]) {
        self.end = json::put(&mut self.room, text, self.end);
    }
}

fn base64(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(bytes)
}

/// A name with its dots replaced.
fn dotless<'n>(name: &'n [u8], with: Option<&str>) -> Cow<'n, [u8]> {
    match with {
        Some(with) if name.contains(&b'.') => {
            let parts: Vec<&[u8]> = name.split(|byte| *byte == b'.').collect();
            parts.join(with.as_bytes()).into()
        }
        _ => Cow::Borrowed(name),
    }
}

/// A key's text, its index on the tape, and its value.
type Entry<'t, 'a> = (Cow<'a, [u8]>, usize, Value<'t, 'a>);

/// Whether the keys are different strings of ASCII, and without dots if `dots` is set. Nearly all are, and this decides it
/// without a copy.
fn plain_keys(map: Value<'_, '_>, dots: bool) -> bool {
    let mut seen: [&[u8]; Names::FEW] = [&[]; Names::FEW];
    let (mut lengths, mut marks) = (0u64, Vec::new());
    let many = matches!(map.token(), Token::Map { len, .. } if len as usize > Names::FEW);
    for (index, (key, _)) in map.pairs().enumerate() {
        let Token::Str(text) = key.token() else { return false };
        if !text.is_ascii() || dots && text.contains(&b'.') {
            return false;
        }
        if many {
            marks.push(xxh3_64(text));
            continue;
        }
        // Only keys of the same length can be equal.
        let length = 1 << text.len().min(63);
        if lengths & length != 0 && seen.iter().take(index).any(|earlier| *earlier == text) {
            return false;
        }
        lengths |= length;
        if let Some(place) = seen.get_mut(index) {
            *place = text;
        }
    }
    marks.sort_unstable();
    marks.is_sorted_by(|one, two| one < two)
}

/// The pairs of a map, each key once, in its first place and with its last value.
fn entries<'t, 'a>(map: Value<'t, 'a>, in_key: bool) -> Vec<Entry<'t, 'a>> {
    let entries = map.pairs().map(|(key, value)| (key_text(key, in_key), key.at, value));
    let mut places: HashMap<Cow<'a, [u8]>, usize> = HashMap::new();
    let mut once: Vec<Entry<'t, 'a>> = Vec::new();
    for (name, key, value) in entries {
        match places.get(&name).and_then(|place| once.get_mut(*place)) {
            Some(entry) => (entry.1, entry.2) = (key, value),
            None => {
                places.insert(name.clone(), once.len());
                once.push((name, key, value));
            }
        }
    }
    once
}

/// A key as text: a number or a container as its JSON.
fn key_text<'a>(key: Value<'_, 'a>, in_key: bool) -> Cow<'a, [u8]> {
    match key.token() {
        Token::Str(text) if text.is_ascii() => Cow::Borrowed(text),
        Token::Str(text) => match String::from_utf8_lossy(text) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        },
        Token::Bin(text) if std::str::from_utf8(text).is_ok() => Cow::Borrowed(text),
        Token::Bin(bytes) | Token::Ext(bytes) => Cow::Owned(base64(bytes).into_bytes()),
        Token::TooDeep => Cow::Borrowed(TOO_DEEP),
        Token::Array { .. } | Token::Map { .. } if in_key => Cow::Borrowed(TOO_DEEP),
        _ => {
            let mut writer = TapeWriter::default();
            writer.value(key, Part { in_key: true, ..Part::default() });
            Cow::Owned(writer.text().to_vec())
        }
    }
}
