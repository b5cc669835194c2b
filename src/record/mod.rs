//! An event → the bytes of one Firehose record, or of several (`oversize split`).
//!
//! Whatever the event, the record is one valid JSON object within Firehose's limit, without repeated keys, or the
//! event is dead-lettered with the reason.

pub mod fit;
pub mod json;
#[cfg(test)]
mod oracle;
pub mod pack;
pub mod remap;
pub mod stream;
mod tape;
pub mod time;
mod writer;

use crate::event::chunk::{Chunk, Event, Time, Token, Value};
use crate::event::path::{Path, Paths};
use crate::record::fit::Split;
use crate::record::pack::PackOptions;
use crate::record::remap::{Moved, Plan, Remap, TagFields};
use crate::record::tape::TapeWriter;
use crate::record::time::{TimeKey, TimeWriter};
pub use crate::record::writer::MapId;
use crate::record::writer::Writer;
use std::fmt;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_128;

pub use crate::service::MAX_RECORD;

/// The attribute that says how many bytes of a record's JSON were cut to keep it within [`MAX_RECORD`].
pub const TRUNCATED: &str = "kubehose_truncated";

/// The attributes of a record that holds a part of an event: the event's id, the part (from 1 on), and how many there are.
pub const SPLIT: [&str; 3] = ["kubehose_id", "kubehose_part", "kubehose_parts"];

/// What to do with a record beyond [`MAX_RECORD`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oversize {
    /// Cut the longest texts, then drop the largest parts, and mark the record with [`TRUNCATED`].
    #[default]
    Truncate,
    /// Send the long texts in several records, marked with [`SPLIT`]; truncate if there are no long texts.
    Split,
    /// Dead-letter it.
    Drop,
}

/// How records of one output look.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// The mapping of attributes, and the constants.
    pub remap: Remap,
    /// The name under which the event's time is added, and its format.
    pub time: Option<TimeKey>,
    /// The name under which an id is added that is the same when the record is sent again.
    pub record_id: Option<Box<[u8]>>,
    /// Whether a newline ends each record.
    pub newline: bool,
    /// What to do with a record that is too large.
    pub oversize: Oversize,
    /// Only the values at these paths (`data_keys`), after the mapping.
    pub data_keys: Option<Paths>,
    /// All but the values at these paths (`drop_keys`), after the mapping.
    pub drop_keys: Option<Paths>,
    /// The value at this path alone (`log_key`), raw.
    pub log_key: Option<LogKey>,
    /// What replaces dots in keys (`replace_dots`).
    pub replace_dots: Option<String>,
    /// Whether an OTLP record's own metadata is sent.
    pub otlp_metadata: bool,
    /// How texts become records.
    pub pack: PackOptions,
}

/// The option `log_key`.
#[derive(Clone, Debug)]
pub struct LogKey {
    paths: Paths,
    /// Its name, if it is a root attribute.
    root: Option<Box<[u8]>>,
}

impl LogKey {
    /// The value that `path` leads to, or that is mapped to the root attribute of this name.
    pub fn new(path: &Path) -> LogKey {
        let mut paths = Paths::default();
        paths.add(path);
        let root = match path.segments() {
            [root] => Some(root.clone()),
            _ => None,
        };
        LogKey { paths, root }
    }
}

/// Why an event became no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Larger than [`MAX_RECORD`], with `oversize drop`.
    TooLarge {
        /// The record's size in bytes.
        bytes: usize,
    },
    /// It has no `log_key`.
    NoLogKey,
}

impl fmt::Display for Unfit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::TooLarge { bytes } => write!(out, "it has {bytes} bytes, Firehose accepts {MAX_RECORD}"),
            Unfit::NoLogKey => out.write_str("it has no log_key"),
        }
    }
}

/// What records show of where their chunk comes from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'c> {
    /// What the tag says about the container.
    pub tag: Option<&'c TagFields>,
    /// Identifies the chunk, and is the same when the host brings it again: ids are made from it.
    pub identity: [u8; 16],
}

/// The outcome of the next event of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'w> {
    /// A record; it may still be joined with others and compressed.
    Record {
        /// Its bytes, at most [`PackOptions::limit`].
        text: &'w [u8],
        /// Which of the chunk's events it holds: one, or none if more parts of the event follow.
        events: Range<u32>,
        /// The event's `kubernetes` map, if it was written in one pass and the map is kept.
        map: Option<MapId>,
    },
    /// No record.
    Unfit {
        /// Which of the chunk's events.
        event: u32,
        /// Why.
        reason: Unfit,
        /// What the record would have been.
        text: &'w [u8],
    },
    /// The event holds nothing to send: `{}`, or a blank `log_key`.
    Empty {
        /// Which of the chunk's events.
        event: u32,
    },
    /// The chunk has no more events.
    End,
}

/// Writes events as records, and keeps buffers between them.
pub struct RecordWriter<'o> {
    options: &'o RecordOptions,
    /// Names that are added after every event; the event's own attributes of these names are dropped.
    reserved: Vec<&'o [u8]>,
    /// Whether the options allow one pass.
    one_pass: bool,
    by_tape: u64,
    writer: Writer<'o>,
    tape: TapeWriter,
    time: TimeWriter,
    /// What is added after the current event: the id and the time, without a comma before them.
    last: Vec<u8>,
    /// A record that is not in the writer's memory.
    text: Vec<u8>,
    split: Option<Parts>,
    plan: Plan,
    truncated: u64,
    /// How many records were cut, and values dropped, before the last event.
    before: (u64, u64),
    /// After this many calls, the next one panics.
    #[cfg(test)]
    pub calls_until_panic: Option<u32>,
}

/// An event whose parts have not all been returned.
struct Parts {
    event: u32,
    time: Time,
    next: usize,
    split: Split,
}

impl<'o> RecordWriter<'o> {
    /// A writer for `options`.
    pub fn new(options: &'o RecordOptions) -> Self {
        // No `..` here: a new option does not compile until it is decided whether one pass can do it.
        let RecordOptions {
            data_keys,
            drop_keys,
            log_key,
            replace_dots,
            record_id,
            time,
            // One pass can do these.
            remap: _,
            newline: _,
            oversize: _,
            otlp_metadata: _,
            pack: _,
        } = options;
        let everything = data_keys.is_none() && drop_keys.is_none();
        let as_it_is = log_key.is_none() && replace_dots.is_none();
        let reserved: Vec<&[u8]> =
            record_id.iter().map(|name| &**name).chain(time.iter().map(|key| &*key.name)).collect();
        RecordWriter {
            options,
            one_pass: everything && as_it_is,
            by_tape: 0,
            writer: Writer::new(&options.remap, reserved.clone()),
            reserved,
            tape: TapeWriter::default(),
            time: TimeWriter::default(),
            last: Vec::new(),
            text: Vec::new(),
            split: None,
            plan: Plan::default(),
            truncated: 0,
            before: (0, 0),
            #[cfg(test)]
            calls_until_panic: None,
        }
    }

    /// The record of the chunk's next event, or the next part of its last one; `now` is the time of events that have none.
    pub fn next(&mut self, chunk: &mut Chunk<'_>, origin: &Origin<'_>, now: Time) -> Next<'_> {
        #[cfg(test)]
        if let Some(calls) = &mut self.calls_until_panic {
            *calls = calls.checked_sub(1).expect("a panic that a test has asked for");
        }
        if self.split.is_some() {
            return self.part(origin);
        }
        self.before = (self.truncated, self.tape.collisions());
        json::begin(&mut self.text);
        let number = chunk.events();
        if self.one_pass
            && let Some((time, rest)) = chunk.plain_head()
            && let Some((read, end)) = self.writer.event(rest, origin.tag)
        {
            chunk.pass(rest, read);
            let (added, map) = (self.writer.added(), self.writer.map_id());
            return self.finish(number, time, (end, added), map, origin);
        }
        match chunk.next_event() {
            Some(event) => {
                self.by_tape += 1;
                self.event(&event, origin, now)
            }
            None => Next::End,
        }
    }

    /// Whether more parts of an event follow; only without such parts may a chunk be left to be resumed later.
    pub fn has_parts(&self) -> bool {
        self.split.is_some()
    }

    /// Takes the last event back, which will be written again later: its other parts, and what was counted of it.
    pub fn take_back(&mut self) {
        self.split = None;
        let (truncated, collisions) = self.before;
        self.truncated = truncated;
        self.tape.set_collisions(collisions);
    }

    /// Starts afresh after a panic.
    pub fn begin_anew(&mut self) {
        let truncated = self.truncated;
        let mut writer = std::mem::replace(&mut self.writer, Writer::new(&self.options.remap, Vec::new()));
        writer.begin_anew();
        *self = RecordWriter { truncated, writer, ..RecordWriter::new(self.options) };
    }

    /// What a tag says about the container, if the mapping can use it, or if it is `asked` for.
    pub fn tag_fields(&self, tag: &[u8], asked: bool) -> Option<TagFields> {
        self.options.remap.tag_fields(tag, asked)
    }

    /// How many records were cut to fit.
    pub fn truncated(&self) -> u64 {
        self.truncated
    }

    /// How many values were dropped because `replace_dots` gave two keys the same name, or a key has the name of an added one.
    pub fn collisions(&self) -> u64 {
        self.tape.collisions()
    }

    /// How many events took the longer way over the tape.
    pub fn by_tape(&self) -> u64 {
        self.by_tape
    }

    /// An event that one pass cannot write, because of its form or the options.
    fn event(&mut self, event: &Event<'_, '_>, origin: &Origin<'_>, now: Time) -> Next<'_> {
        let (number, time) = (event.index, event.time.unwrap_or(now));
        // In an OTLP group an event is more than its body.
        if matches!(event.body.token(), Token::Map { len: 0, .. }) && event.group.is_none() {
            return Next::Empty { event: number };
        }
        // What replaces a container that is nested too deep tells little of it.
        self.truncated += u64::from(event.body.tape.contains(&Token::TooDeep));
        let mut plan = std::mem::take(&mut self.plan);
        self.options.remap.plan(event.body, origin.tag, &mut plan);
        if let Some(key) = &self.options.log_key {
            return self.log_key(key, event, &plan, origin.tag);
        }
        let added = self.tape.event(event, &plan, origin.tag, self.options, &self.reserved);
        self.plan = plan;
        let Some(added) = added else {
            return Next::Empty { event: number };
        };
        self.writer.swap_room(&mut self.tape.room);
        self.finish(number, time, (self.tape.end, added), None, origin)
    }

    /// The record whose object is in the writer up to `end`, without its closing brace; its last `added` attributes
    /// are not the event's own.
    fn finish(
        &mut self,
        event: u32,
        time: Time,
        (end, added): (usize, usize),
        map: Option<MapId>,
        origin: &Origin<'_>,
    ) -> Next<'_> {
        self.write_last(event, 0, time, origin);
        let behind: &[u8] = if self.options.newline { b"\n" } else { b"" };
        let events = event..event + 1;
        let limit = self.options.pack.limit();
        let comma = usize::from(!self.last.is_empty());
        let bytes = end + comma + self.last.len() + 1 + behind.len();
        if bytes <= limit || self.options.oversize == Oversize::Drop {
            let end = self.writer.close(end, &self.last, behind);
            let text = self.writer.text(end);
            return match bytes <= limit {
                true => Next::Record { text, events, map },
                false => Next::Unfit { event, reason: Unfit::TooLarge { bytes }, text },
            };
        }
        let end = self.writer.close(end, b"", b"");
        // Without the added attributes and their comma.
        let room = limit - behind.len() - comma - self.last.len();
        if self.options.oversize == Oversize::Split {
            let marks = SPLIT.iter().map(|name| name.len() + 4).sum::<usize>() + 34 + 2 * 20;
            if let Some(split) = Split::new(self.writer.text(end), &SPLIT, room - marks) {
                self.split = Some(Parts { event, time, next: 0, split });
                return self.part(origin);
            }
        }
        let budget = room - (TRUNCATED.len() + 24);
        let (mut text, missing) = fit::truncate(self.writer.text(end), &[TRUNCATED], budget, added);
        text.pop();
        if text.len() > 1 {
            text.push(b',');
        }
        text.extend_from_slice(format!("\"{TRUNCATED}\":{missing}").as_bytes());
        self.text = text;
        self.truncated += 1;
        self.close_text();
        Next::Record { text: &self.text, events, map: None }
    }

    /// The next part of the event that is being split.
    fn part(&mut self, origin: &Origin<'_>) -> Next<'_> {
        let Some(mut parts) = self.split.take() else { return Next::End };
        let (event, part, count) = (parts.event, parts.next, parts.split.parts);
        self.write_last(event, part, parts.time, origin);
        parts.split.write(part, &mut self.text);
        self.text.pop();
        let id = id(origin, event, 0);
        let [id_name, part_name, parts_name] = SPLIT;
        let marks = format!(",\"{id_name}\":\"{id}\",\"{part_name}\":{},\"{parts_name}\":{count}", part + 1);
        self.text.extend_from_slice(marks.as_bytes());
        self.close_text();
        parts.next += 1;
        let events = if parts.next < count {
            self.split = Some(parts);
            event..event
        } else {
            event..event + 1
        };
        Next::Record { text: &self.text, events, map: None }
    }

    /// Ends the object in `text` with what is added after every event.
    fn close_text(&mut self) {
        if !self.last.is_empty() {
            self.text.push(b',');
            self.text.extend_from_slice(&self.last);
        }
        self.text.push(b'}');
        if self.options.newline {
            self.text.push(b'\n');
        }
    }

    /// The id and the time, as the last attributes.
    fn write_last(&mut self, event: u32, part: usize, time: Time, origin: &Origin<'_>) {
        self.last.clear();
        if let Some(name) = &self.options.record_id {
            json::write_string(&mut self.last, name);
            self.last.extend_from_slice(b":\"");
            self.last.extend_from_slice(id(origin, event, part).as_bytes());
            self.last.push(b'"');
        }
        if let Some(key) = &self.options.time {
            let before = self.last.len();
            if before > 0 {
                self.last.push(b',');
            }
            if !self.time.write(key, time, &mut self.last) {
                self.last.truncate(before);
            }
        }
    }

    /// One value alone: a string as it is, anything else as its JSON.
    fn log_key(&mut self, key: &LogKey, event: &Event<'_, '_>, plan: &Plan, tag: Option<&TagFields>) -> Next<'_> {
        let (number, options) = (event.index, self.options);
        let moved = plan.moved.iter().find(|(rule, _)| key.root.as_deref() == Some(options.remap.target(*rule)));
        let mut found = Vec::new();
        key.paths.find(event.body, &mut found);
        let found = found.first().copied().flatten().filter(|found| !plan.removed.contains(&found.key));
        let from = moved.copied().or(found.map(|found| (0, Moved::At(found.value))));
        self.text.clear();
        let mut is_json = false;
        match from {
            None => {
                if self.tape.event(event, plan, tag, options, &self.reserved).is_some() {
                    self.text.extend_from_slice(self.tape.text());
                    self.text.push(b'}');
                }
                return Next::Unfit { event: number, reason: Unfit::NoLogKey, text: &self.text };
            }
            Some((rule, Moved::Tag)) => self.text.extend_from_slice(options.remap.tag_value(rule, tag)),
            Some((_, Moved::At(at))) => {
                let value = Value { tape: event.body.tape, at };
                match value.token() {
                    Token::Str(text) => self.text.extend_from_slice(String::from_utf8_lossy(text).as_bytes()),
                    Token::Bin(text) if std::str::from_utf8(text).is_ok() => self.text.extend_from_slice(text),
                    _ => {
                        is_json = true;
                        self.tape.alone(value, options.replace_dots.as_deref());
                        self.text.extend_from_slice(self.tape.text());
                    }
                }
            }
        }
        if matches!(self.text.trim_ascii(), b"") || is_json && matches!(&*self.text, b"{}" | b"[]") {
            return Next::Empty { event: number };
        }
        let limit = options.pack.limit() - usize::from(options.newline);
        if self.text.len() > limit {
            if options.oversize == Oversize::Drop {
                let reason = Unfit::TooLarge { bytes: self.text.len() };
                return Next::Unfit { event: number, reason, text: &self.text };
            }
            if is_json {
                self.text = fit::truncate(&self.text, &[], limit, 0).0;
            } else {
                // At the border of a character.
                let end = (0..=limit).rev().find(|at| self.text.get(*at).is_none_or(|byte| byte & 0xC0 != 0x80));
                self.text.truncate(end.unwrap_or(0));
            }
            self.truncated += 1;
        }
        // A container's line often ends with its own newline; a second one would make a blank line.
        if options.newline && self.text.last() != Some(&b'\n') {
            self.text.push(b'\n');
        }
        Next::Record { text: &self.text, events: number..number + 1, map: None }
    }
}

/// An id of 32 hexadecimal digits: the same whenever this part of this event of this chunk is sent.
fn id(origin: &Origin<'_>, event: u32, part: usize) -> String {
    let mut bytes = [0; 28];
    let (identity, rest) = bytes.split_at_mut(16);
    identity.copy_from_slice(&origin.identity);
    let (number, rest) = rest.split_at_mut(4);
    number.copy_from_slice(&event.to_be_bytes());
    rest.copy_from_slice(&(part as u64).to_be_bytes());
    format!("{:032x}", xxh3_128(&bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::event::chunk::MAX_DEPTH;
    use crate::record::time::TimeFormat;
    use proptest::prelude::*;
    use serde_json::json;

    pub fn options(remap: Remap) -> RecordOptions {
        RecordOptions {
            remap,
            time: None,
            record_id: None,
            newline: true,
            oversize: Oversize::Truncate,
            data_keys: None,
            drop_keys: None,
            log_key: None,
            replace_dots: None,
            otlp_metadata: true,
            pack: PackOptions::default(),
        }
    }

    /// A chunk with one event at 1,700,000,000.123456789 s.
    pub fn chunk_of(body: &serde_json::Value) -> Vec<u8> {
        let head: &[u8] = b"\x92\x92\xd7\x00\x65\x53\xf1\x00\x07\x5b\xcd\x15\x80";
        [head, &rmp_serde::to_vec(body).unwrap()].concat()
    }

    /// The same in each form that outputs get: of in_forward, of filters that write the event anew, of in_tail with and without a
    /// parser in 4.2 and in 5.1, of 1.9.
    pub fn forms_of(body: &serde_json::Value) -> Vec<Vec<u8>> {
        let (fix, wide): (&[u8], &[u8]) = (b"\x92", b"\xdd\x00\x00\x00\x02");
        let (empty, wide_empty): (&[u8], &[u8]) = (b"\x80", b"\xdf\x00\x00\x00\x00");
        let stamp: &[u8] = b"\xd7\x00\x65\x53\xf1\x00\x07\x5b\xcd\x15";
        let body = rmp_serde::to_vec(body).unwrap();
        let mut wide_body = body.clone();
        if let Some(len) = body[0].checked_sub(0x80).filter(|len| *len < 16) {
            wide_body.splice(..1, [0xdf, 0, 0, 0, len]);
        }
        vec![
            [fix, fix, stamp, empty, &body].concat(),
            [fix, fix, stamp, empty, &wide_body].concat(),
            [wide, wide, stamp, wide_empty, &wide_body].concat(),
            [wide, wide, stamp, wide_empty, &body].concat(),
            [fix, fix, stamp, wide_empty, &wide_body].concat(),
            [fix, stamp, &body].concat(),
        ]
    }

    const NOW: Time = Time { seconds: 1_800_000_000, nanos: 0 };

    /// What came of an event.
    #[derive(Clone, Debug, PartialEq)]
    pub enum Came {
        Record(Vec<u8>),
        Part(Vec<u8>),
        Unfit(Unfit),
        Empty,
    }

    /// What comes of the events of a chunk: what is ordinary in one pass, if `one_pass`.
    pub fn all(options: &RecordOptions, tag: &str, data: &[u8], one_pass: bool) -> Vec<Came> {
        let tag = options.remap.tag_fields(tag.as_bytes(), false);
        let origin = Origin { tag: tag.as_ref(), identity: [7; 16] };
        let (mut chunk, mut writer) = (Chunk::new(data), RecordWriter::new(options));
        writer.one_pass &= one_pass;
        let (mut came, mut done) = (Vec::new(), 0);
        loop {
            let limit = options.pack.limit();
            match writer.next(&mut chunk, &origin, NOW) {
                Next::Record { text, events, .. } => {
                    assert!(text.len() <= limit && events.start == done);
                    done = events.end;
                    came.push(if events.is_empty() { Came::Part(text.to_vec()) } else { Came::Record(text.to_vec()) });
                }
                Next::Unfit { event, reason, .. } => {
                    assert_eq!(event, done);
                    done += 1;
                    came.push(Came::Unfit(reason));
                }
                Next::Empty { event } => {
                    assert_eq!(event, done);
                    done += 1;
                    came.push(Came::Empty);
                }
                Next::End => {
                    assert_eq!(chunk.events(), done);
                    return came;
                }
            }
        }
    }

    pub fn encode(options: &RecordOptions, tag: &str, chunk: &[u8]) -> Result<Vec<u8>, Option<Unfit>> {
        match all(options, tag, chunk, true).swap_remove(0) {
            Came::Record(text) | Came::Part(text) => Ok(text),
            Came::Unfit(unfit) => Err(Some(unfit)),
            Came::Empty => Err(None),
        }
    }

    /// One event through a mapping and out again.
    pub fn through(remap: &Remap, tag: &str, body: &serde_json::Value) -> serde_json::Value {
        serde_json::from_slice(&encode(&options(remap.clone()), tag, &chunk_of(body)).unwrap()).unwrap()
    }

    fn text(options: &RecordOptions, body: &serde_json::Value) -> String {
        String::from_utf8(encode(options, "", &chunk_of(body)).unwrap()).unwrap()
    }

    #[test]
    fn a_record_is_the_events_json_and_a_newline() {
        let mut plain = options(Remap::default());
        let body = json!({"b": 1, "a": [1.5, null, "x"]});
        assert_eq!(text(&plain, &body), "{\"b\":1,\"a\":[1.5,null,\"x\"]}\n");
        plain.newline = false;
        assert_eq!(encode(&plain, "", &chunk_of(&json!({}))), Err(None));
        assert_eq!(text(&plain, &json!(["no", "map"])), r#"{"log":["no","map"]}"#);
    }

    #[test]
    fn the_time_is_written_as_the_format_says() {
        let mut timed = options(Remap::default());
        timed.newline = false;
        for (format, expected) in [
            ("%Y-%m-%dT%H:%M:%S", "2023-11-14T22:13:20"),
            ("%Y-%m-%dT%H:%M:%S.%LZ", "2023-11-14T22:13:20.123Z"),
            ("%s.%6N", "1700000000.123456"),
            ("%H%z %9N %f %3N %N", "22+0000 123456789 123456 123 123456789"),
            ("100%% \"%Y\"", "100% \"2023\""),
        ] {
            timed.time = Some(TimeKey::new("@t", TimeFormat::parse(format).unwrap(), jiff::tz::TimeZone::UTC));
            let wanted = json!({"a": 1, "@t": expected}).to_string();
            assert_eq!(text(&timed, &json!({"a": 1})), wanted, "{format}");
            assert_eq!(text(&timed, &json!({"@t": 1, "a": 1})), wanted, "{format}");
        }
        assert!(TimeFormat::parse("%!").is_err());
        assert!(TimeFormat::parse("%").is_err());
    }

    #[test]
    fn a_group_offers_its_resource_and_scope() {
        let marker =
            b"\x92\x92\xd7\x00\xff\xff\xff\xff\x00\x00\x00\x00\x80\x82\xa8resource\x81\xa1r\x01\xa5scope\x81\xa1s\x02";
        let plain = options(Remap::default());
        let with = |body: serde_json::Value| {
            let record = encode(&plain, "", &[&marker[..], &chunk_of(&body)].concat()).unwrap();
            serde_json::from_slice::<serde_json::Value>(&record).unwrap()
        };
        assert_eq!(with(json!({"log": "x"})), json!({"log": "x", "resource": {"r": 1}, "scope": {"s": 2}}));
        assert_eq!(with(json!({"scope": "own"})), json!({"scope": "own", "resource": {"r": 1}}));
    }

    #[test]
    fn an_otlp_record_brings_its_own_metadata() {
        let marker = b"\x92\x92\xd7\x00\xff\xff\xff\xff\x00\x00\x00\x00\x80\x81\xa8resource\x81\xa1r\x01";
        let record = |body: &[u8]| {
            let otlp = [
                &b"\x81\xa4otlp\x86\xadseverity_text\xa4WARN"[..],
                b"\xafseverity_number\x0d\xaaattributes\x81\xa3k.y\xa1v",
                b"\xa8trace_id\xc4\x10\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\xff",
                b"\xa7span_id\xc4\x08abcdefgh\xa8resource\xc0",
            ]
            .concat();
            [&marker[..], b"\x92\x92\xd7\x00\x65\x53\xf1\x00\x07\x5b\xcd\x15", &otlp, body].concat()
        };
        let mut plain = options(Remap::default());
        let body = b"\x82\xa3log\xa1x\xadseverity_text\xa3own";
        let all = json!({"log": "x", "severity_text": "own", "resource": {"r": 1}, "severity_number": 13,
            "attributes": {"k.y": "v"}, "trace_id": "000102030405060708090a0b0c0d0eff", "span_id": "6162636465666768"});
        assert_eq!(one_object(&encode(&plain, "", &record(body)).unwrap()), all);
        // An event of nothing else is still one.
        assert_eq!(one_object(&encode(&plain, "", &record(b"\x80")).unwrap())["severity_text"], "WARN");
        plain.drop_keys = Some(Paths::default());
        for path in ["attributes", "resource.r", "trace_id", "span_id"] {
            plain.drop_keys.as_mut().unwrap().add(&Path::parse(path).unwrap());
        }
        plain.replace_dots = Some("_".to_owned());
        let some = json!({"log": "x", "severity_text": "own", "resource": {}, "severity_number": 13});
        assert_eq!(one_object(&encode(&plain, "", &record(body)).unwrap()), some);
        plain.otlp_metadata = false;
        let body = json!({"log": "x", "severity_text": "own", "resource": {}});
        assert_eq!(
            one_object(&encode(&plain, "", &record(b"\x82\xa3log\xa1x\xadseverity_text\xa3own")).unwrap()),
            body
        );
    }

    #[test]
    fn what_is_nested_too_deep_counts_as_cut() {
        let plain = options(Remap::parse("none").unwrap());
        for (arrays, cut) in [(MAX_DEPTH - 2, 0), (MAX_DEPTH, 1)] {
            let mut chunk = chunk_of(&json!({"a": 0}));
            chunk.pop();
            chunk.extend(std::iter::repeat_n(0x91, arrays));
            chunk.push(0x90);
            let mut writer = RecordWriter::new(&plain);
            let origin = Origin { tag: None, identity: [0; 16] };
            let mut events = Chunk::new(&chunk);
            assert!(matches!(writer.next(&mut events, &origin, NOW), Next::Record { .. }));
            assert_eq!(writer.truncated(), cut, "{arrays}");
        }
    }

    #[test]
    fn what_is_too_large_is_cut_at_its_longest_string() {
        let mut plain = options(Remap::parse("datadog").unwrap());
        for newline in [true, false] {
            plain.newline = newline;
            for filler in ["x", "é", "\n", "\u{1F600}", "\u{1}"] {
                let body = json!({"a": "short", "log": filler.repeat(1_100_000), "kubernetes": {"pod_name": "p"}});
                let whole = serde_json::to_vec(&body).unwrap().len();
                let record = encode(&plain, "", &chunk_of(&body)).unwrap();
                assert!(record.len() <= MAX_RECORD && record.len() > MAX_RECORD - 100, "{}", record.len());
                assert_eq!(record.ends_with(b"\n"), newline);
                let cut: serde_json::Value = serde_json::from_slice(&record).unwrap();
                let log = cut["log"].as_str().unwrap();
                assert!(filler.repeat(1_100_000).starts_with(log));
                assert_eq!((&cut["a"], &cut["pod_name"]), (&json!("short"), &json!("p")));
                let missing = serde_json::to_vec(&body["log"]).unwrap().len() - serde_json::to_vec(log).unwrap().len();
                assert_eq!(cut[TRUNCATED], missing, "of {whole}");
            }
        }
        // Exactly at the limit nothing is cut.
        plain.newline = true;
        let fits = json!({"log": "x".repeat(MAX_RECORD - r#"{"log":""}"#.len() - 1)});
        assert_eq!(text(&plain, &fits), format!("{fits}\n"));
        // No string to cut; a text that is there twice; many of them; keys; an event's own marker.
        for body in [
            json!({"n": vec![123_456_789u64; 110_000]}),
            json!({"log": "x".repeat(1_000_000), "json": {"message": "x".repeat(1_000_000)}}),
            json!({"a": "x".repeat(700_000), "b": "y".repeat(700_000), "c": "z".repeat(700_000)}),
            (0..30_000).map(|n| (format!("key{n}"), "x".repeat(100).into())).collect::<serde_json::Map<_, _>>().into(),
            json!({"log": "x", "k".repeat(1_100_000): 1}),
            json!({TRUNCATED: "mine", "log": "x".repeat(1_100_000)}),
        ] {
            let mut body = body;
            body["kubernetes"] =
                json!({"pod_name": "p", "namespace_name": "n", "container_name": "c", "docker_id": "d"});
            let record = encode(&plain, "", &chunk_of(&body)).unwrap();
            let cut = one_object(&record);
            assert!(cut[TRUNCATED].is_u64());
            assert_eq!((&cut["pod_name"], &cut["container_id"]), (&json!("p"), &json!("d")));
        }
        plain.oversize = Oversize::Drop;
        assert!(encode(&plain, "", &chunk_of(&json!({"log": "x".repeat(1_100_000)}))).is_err());
    }

    /// A record, which has no key twice: it is the same when it was read and written again.
    pub fn one_object(record: &[u8]) -> serde_json::Value {
        let text = std::str::from_utf8(record).unwrap().trim_end_matches('\n');
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let again = value.to_string();
        assert!(value.is_object() && again == text, "{text:.400}");
        value
    }

    /// Records of one event under options as a user writes them.
    fn with(given: &[(&str, &str)], body: &serde_json::Value) -> Result<String, String> {
        let get = |name: &str| {
            let given = given.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            given.or_else(|| match name {
                "region" => Some("eu-west-1".to_owned()),
                "delivery_stream" => Some("s".to_owned()),
                _ => None,
            })
        };
        let config = crate::options::Config::read(&get, &|_| None).map_err(|error| error.to_string())?;
        let text = encode(&config.record, "", &chunk_of(body))
            .map_err(|unfit| unfit.map_or("nothing".to_owned(), |unfit| unfit.to_string()))?;
        Ok(String::from_utf8(text).unwrap())
    }

    #[test]
    fn keys_that_are_alike_need_no_tape() {
        let options = options(Remap::default());
        for length in 1..=64 {
            for place in 0..length {
                // As labels, which have long prefixes in common, and often an end.
                let mut other = vec![b'a'; length];
                other[place] = b'b';
                let other = String::from_utf8(other).unwrap();
                let data = chunk_of(&json!({"kubernetes": {"labels": {"a".repeat(length): 1, other: 2}}}));
                let (mut chunk, mut writer) = (Chunk::new(&data), RecordWriter::new(&options));
                while !matches!(writer.next(&mut chunk, &Origin::default(), NOW), Next::End) {}
                assert_eq!(writer.by_tape(), 0, "keys of {length} bytes that differ at {place}");
            }
        }
    }

    #[test]
    fn only_what_was_asked_for_is_sent() {
        let body = json!({"log": "x", "stream": "stdout", "kubernetes": {"pod_name": "p", "labels": {"a.b": 1}}});
        for (options, expected) in [
            (vec![("data_keys", "log, pod_name")], r#"{"log":"x","pod_name":"p"}"#),
            (vec![("data_keys", "log,$kubernetes['labels']")], r#"{"log":"x","kubernetes":{"labels":{"a.b":1}}}"#),
            (
                vec![("data_keys", "$kubernetes['labels']['a.b'], log.x, stream.y")],
                r#"{"kubernetes":{"labels":{"a.b":1}}}"#,
            ),
            (
                vec![("data_keys", "log"), ("add_keys", "service=a\"b , env = x=y")],
                r#"{"log":"x","service":"a\"b","env":"x=y"}"#,
            ),
            (vec![("data_keys", "log"), ("add_keys", "log=mine")], r#"{"log":"x"}"#),
            (
                vec![
                    ("drop_keys", "stream,kubernetes.labels.a.b,kubernetes"),
                    ("add_keys", "a=1"),
                    ("time_key", "t"),
                    ("time_key_format", "%Y"),
                ],
                r#"{"log":"x","pod_name":"p","a":"1","t":"2023"}"#,
            ),
            (vec![("data_keys", "log"), ("time_key", "t"), ("time_key_format", "%Y")], r#"{"log":"x","t":"2023"}"#),
            (vec![("drop_keys", "stream,kubernetes")], r#"{"log":"x","pod_name":"p"}"#),
            (
                vec![("drop_keys", "$kubernetes['labels']['a.b'],pod_name")],
                r#"{"log":"x","stream":"stdout","kubernetes":{"labels":{}}}"#,
            ),
            (vec![("data_keys", "log,stream"), ("drop_keys", "stream")], r#"{"log":"x"}"#),
            (vec![("log_key", "log")], "x"),
            (vec![("log_key", "pod_name")], "p"),
            (vec![("log_key", "kubernetes.labels")], r#"{"a.b":1}"#),
            (vec![("log_key", "kubernetes.labels"), ("replace_dots", "_")], r#"{"a_b":1}"#),
            (
                vec![("replace_dots", "_"), ("drop_keys", "log,stream")],
                r#"{"kubernetes":{"labels":{"a_b":1}},"pod_name":"p"}"#,
            ),
        ] {
            assert_eq!(with(&options, &body).unwrap(), format!("{expected}\n"), "{options:?}");
        }
        assert_eq!(with(&[("log_key", "absent")], &body), Err("it has no log_key".to_owned()));
        // A string is unquoted and unescaped, and matched by its whole name.
        let raw = json!({"logs": "no", "log": "a \"b\"\n\u{e9}"});
        assert_eq!(with(&[("log_key", "log")], &raw).unwrap(), "a \"b\"\n\u{e9}\n");
        assert_eq!(with(&[("log_key", "log")], &json!({"log": 1.5})).unwrap(), "1.5\n");
        assert_eq!(
            with(&[("data_keys", "nothing"), ("add_keys", "a=1"), ("time_key", "t")], &body),
            Err("nothing".to_owned())
        );
        for other in
            [("data_keys", "a"), ("drop_keys", "a"), ("time_key", "a"), ("add_keys", "a=b"), ("record_id", "a")]
        {
            assert!(with(&[("log_key", "log"), other], &body).unwrap_err().contains("log_key"));
        }
    }

    #[test]
    fn dots_are_replaced_everywhere_and_the_first_of_two_keys_wins() {
        let body =
            json!({"a.b": 1, "a_b": 2, "c": [{"d.e": {"f.g": 3}}], "pod.name": 4, "kubernetes": {"pod_name": "p"}});
        let text = with(&[("replace_dots", "_")], &body).unwrap();
        assert_eq!(text, "{\"a_b\":1,\"c\":[{\"d_e\":{\"f_g\":3}}],\"kubernetes\":{},\"pod_name\":\"p\"}\n");
        let named = [("replace_dots", "-"), ("remap", "c=x.y"), ("time_key", "t.t"), ("time_key_format", "%Y")];
        assert_eq!(with(&named, &json!({"c": 1})).unwrap(), "{\"x-y\":1,\"t-t\":\"2023\"}\n");
    }

    #[test]
    fn a_raw_value_that_is_too_large_is_cut_at_a_character() {
        let body = json!({"log": "\u{e9}".repeat(600_000)});
        let text = with(&[("log_key", "log")], &body).unwrap();
        assert!(text.len() <= MAX_RECORD && text.len() > MAX_RECORD - 4);
        assert!(with(&[("log_key", "log"), ("oversize", "drop")], &body).unwrap_err().contains("1200000 bytes"));
        // Text that begins as JSON does is cut, JSON is not.
        let text = with(&[("log_key", "log")], &json!({"log": format!("[INFO] {}", "x".repeat(1_200_000))})).unwrap();
        assert!(text.starts_with("[INFO] xx") && text.ends_with("x\n") && text.len() == MAX_RECORD);
        // What is JSON stays JSON.
        let text = with(&[("log_key", "log")], &json!({"log": ["x".repeat(1_200_000), 1]})).unwrap();
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(text.len() > MAX_RECORD - 4 && text.len() <= MAX_RECORD && list[1] == 1);
    }

    const TAG: &str = "kube.var.log.containers.web-1_shop_nginx-\
                       0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.log";

    /// Mappings of every kind, with and without what may stand around them.
    fn kinds_of_options() -> Vec<RecordOptions> {
        let mut kinds = Vec::new();
        for remap in
            ["none", "datadog", "a=b, b=c, log=message, kubernetes.labels=labels, kubernetes=k8s, pod_name=pod_name"]
        {
            for bits in 0..16 {
                let mut options = options(Remap::parse(remap).unwrap());
                if bits & 5 == 5 {
                    options.remap.add_constant("stream", "s").unwrap();
                    options.record_id = Some(b"id"[..].into());
                }
                options.remap.preserve_source = bits & 1 != 0;
                options.remap.override_on_conflict = bits & 2 != 0;
                options.remap.tag_fallback = bits & 4 != 0;
                options.newline = bits & 8 == 0;
                for name in [None, Some("time"), Some("log")] {
                    let format = TimeFormat::parse("%Y-%m-%dT%H:%M:%S.%LZ").unwrap();
                    let time = name.map(|name| TimeKey::new(name, format, jiff::tz::TimeZone::UTC));
                    kinds.push(RecordOptions { time, ..options.clone() });
                }
            }
        }
        kinds
    }

    #[test]
    fn an_ordinary_event_takes_one_pass() {
        let event = json!({"time": "t", "log": "a \"b\" \u{e9}\n".repeat(20), "n": [1, -1, 1.5, null, true, 300, -300],
            "kubernetes": {"pod_name": "p", "labels": {"app.kubernetes.io/name": "x", "app.kubernetes.io/part": ""}}});
        let data = chunk_of(&event);
        for (options, data) in
            kinds_of_options().iter().flat_map(|kind| forms_of(&event).into_iter().map(move |form| (kind, form)))
        {
            let mut writer = Writer::new(&options.remap, Vec::new());
            let rest = Chunk::new(&data).plain_head().unwrap().1;
            assert_eq!(writer.event(rest, None).map(|(read, _)| read), Some(rest.len()), "{options:?}");
        }
        // What is out of the ordinary is not lost beside it: text that is too long, keys that are repeated.
        let repeated = b"\x92\x92\xd7\x00\x65\x53\xf1\x00\x07\x5b\xcd\x15\x80\x82\xa1a\x01\xa1a\x02";
        let long = chunk_of(&json!({"log": "x".repeat(MAX_RECORD)}));
        let data = [&data[..], &repeated[..], &long, &chunk_of(&json!({})), &data].concat();
        let plain = options(Remap::parse("datadog").unwrap());
        let came = all(&plain, "", &data, true);
        assert_eq!(came.len(), 5);
        assert_eq!(came, all(&plain, "", &data, false));
    }

    #[test]
    fn a_split_text_comes_in_parts_that_carry_the_names() {
        let mut split = options(Remap::parse("datadog").unwrap());
        split.oversize = Oversize::Split;
        split.record_id = Some(b"id"[..].into());
        for twice in [false, true] {
            let log: String = (0..400_000).map(|n| format!("{n} \u{e9}\"\n")).collect();
            let mut body = json!({"log": log, "kubehose_part": "mine", "kubernetes": {"pod_name": "p"}});
            if twice {
                body["json"] = json!({"message": log});
            }
            let came = all(&split, "", &[chunk_of(&body), chunk_of(&json!({"log": "short"}))].concat(), true);
            let (mut text, mut message, mut ids) = (String::new(), String::new(), std::collections::HashSet::new());
            let (parts, short) = came.split_at(came.len() - 1);
            for (at, part) in parts.iter().enumerate() {
                let (Came::Part(record) | Came::Record(record)) = part else { panic!("{part:?}") };
                assert_eq!(matches!(part, Came::Record(_)), at + 1 == parts.len());
                let record = one_object(record);
                text.push_str(record["log"].as_str().unwrap());
                message.push_str(record["json"]["message"].as_str().unwrap_or_default());
                assert_eq!(
                    (&record["kubehose_part"], &record["kubehose_parts"]),
                    (&json!(at + 1), &json!(parts.len()))
                );
                assert_eq!((&record["pod_name"], &record["kubernetes"]), (&json!("p"), &json!({})));
                assert_eq!(record["kubehose_id"].as_str().unwrap().len(), 32);
                assert!(ids.insert(record["id"].clone()));
            }
            assert!(text == log && (message == log || !twice));
            assert!(parts.len() < if twice { 16 } else { 8 }, "{}", parts.len());
            assert!(matches!(&short[0], Came::Record(record) if one_object(record)["log"] == "short"));
        }
        // Nothing of it is long text.
        let numbers = json!({"n": vec![123_456_789u64; 110_000]});
        assert!(one_object(&encode(&split, "", &chunk_of(&numbers)).unwrap())[TRUNCATED].is_u64());
    }

    fn arbitrary_event() -> impl Strategy<Value = serde_json::Value> {
        let name = prop_oneof![
            3 => prop::sample::select(vec!["a", "b", "c", "log", "time", "kubernetes", "labels", "pod_name", "docker_id",
                "namespace_name", "container_name", "kube_namespace", "container_id", "message", "k8s"]).prop_map(str::to_owned),
            1 => "\\PC{0,40}",
        ];
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            "[ -~]{0,80}".prop_map(Into::into),
            "\\PC{0,80}".prop_map(Into::into),
        ];
        let value = leaf.prop_recursive(4, 40, 8, move |inner| {
            prop_oneof![
                1 => prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::Array),
                3 => prop::collection::vec((name.clone(), inner), 0..8).prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
            ]
        });
        value.prop_filter("an event's body", serde_json::Value::is_object)
    }

    proptest! {
        #[test]
        fn one_pass_writes_the_same_bytes(events in prop::collection::vec(arbitrary_event(), 1..6), tagged in any::<bool>(),
                kind in 0usize..144, form in 0..6usize) {
            let options = &kinds_of_options()[kind];
            // Twice, since what was seen before is written from memory.
            let data = events.iter().flat_map(|event| forms_of(event).swap_remove(form)).collect::<Vec<u8>>().repeat(2);
            let tag = if tagged { TAG } else { "" };
            prop_assert_eq!(all(options, tag, &data, true), all(options, tag, &data, false));
        }

        #[test]
        fn one_pass_sees_what_the_tape_sees_in_damaged_chunks(
            events in prop::collection::vec(arbitrary_event(), 1..4),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            kind in 0usize..144,
            form in 0..6usize,
        ) {
            let options = &kinds_of_options()[kind];
            let mut data = events.iter().flat_map(|event| forms_of(event).swap_remove(form)).collect::<Vec<u8>>().repeat(3);
            for (place, byte) in damage {
                let at = place.index(data.len());
                data[at] = byte;
            }
            prop_assert_eq!(all(options, TAG, &data, true), all(options, TAG, &data, false));
        }
    }

    /// Any msgpack, with what JSON does not have and keys of every kind, repeated.
    fn arbitrary_msgpack() -> impl Strategy<Value = Vec<u8>> {
        let text = |text: &[u8]| {
            let mut out = Vec::new();
            rmp::encode::write_str_len(&mut out, text.len() as u32).unwrap();
            [&out, text].concat()
        };
        let leaf = prop_oneof![
            prop::sample::select(vec![
                b"\xc0".to_vec(),
                b"\xc2".to_vec(),
                b"\xc3".to_vec(),
                b"\x07".to_vec(),
                b"\xff".to_vec(),
                b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
                b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00".to_vec(),
                b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00".to_vec(),
                b"\xca\xff\x80\x00\x00".to_vec(),
                b"\xca\x3d\xcc\xcc\xcd".to_vec(),
                b"\xd4\x05\x01".to_vec(),
                b"\xc4\x02\xff\xfe".to_vec(),
                b"\xc4\x01a".to_vec(),
                b"\xa0".to_vec(),
                b"\xda\x00\x00".to_vec(),
                b"\xa2\xffa".to_vec(),
            ]),
            prop::sample::select(vec!["a", "b", "log", "time", "pod_name", "x.y", "x_y"])
                .prop_map(move |name| text(name.as_bytes())),
            "(\\PC|[\"\\\\\\x01]){0,40}".prop_map(move |name| text(name.as_bytes())),
            any::<f64>().prop_map(|number| [&b"\xcb"[..], &number.to_be_bytes()].concat()),
        ];
        leaf.prop_recursive(4, 30, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(|items| [
                    &[0x90 | items.len() as u8][..],
                    &items.concat()
                ]
                .concat()),
                (prop::collection::vec((inner.clone(), inner), 0..6), any::<bool>()).prop_map(|(pairs, wide)| {
                    let all: Vec<u8> = pairs.iter().flat_map(|(key, value)| [&key[..], value].concat()).collect();
                    let len = pairs.len() as u8;
                    if wide { [&[0xdf, 0, 0, 0, len], &all[..]].concat() } else { [&[0x80 | len], &all[..]].concat() }
                }),
            ]
        })
    }

    /// An event's body of the attributes that mean something, with any msgpack in them.
    pub fn arbitrary_body() -> impl Strategy<Value = Vec<u8>> {
        let names = vec![
            "a",
            "b",
            "a.b",
            "a_b",
            "log",
            "time",
            "kubernetes",
            "labels",
            "pod_name",
            "resource",
            "message",
            "kube_namespace",
            "kubehose_truncated",
            "service",
        ];
        let named =
            prop::sample::select(names).prop_map(|name| [&[0xa0 | name.len() as u8][..], name.as_bytes()].concat());
        let kubernetes = prop::collection::vec(
            (
                prop::sample::select(vec![
                    "pod_name",
                    "namespace_name",
                    "container_name",
                    "docker_id",
                    "labels",
                    "host",
                ]),
                arbitrary_msgpack(),
            ),
            0..6,
        )
        .prop_map(|pairs| {
            let pair =
                |(name, value): &(&str, Vec<u8>)| [&[0xa0 | name.len() as u8][..], name.as_bytes(), value].concat();
            let all: Vec<u8> = pairs.iter().flat_map(pair).collect();
            [b"\xaakubernetes", &[0x80 | pairs.len() as u8][..], &all].concat()
        });
        let key = prop_oneof![8 => named, 1 => arbitrary_msgpack()];
        let pair = prop_oneof![5 => (key, arbitrary_msgpack()).prop_map(|(key, value)| [key, value].concat()), 1 => kubernetes];
        prop::collection::vec(pair, 0..9).prop_map(|pairs| [&[0x80 | pairs.len() as u8][..], &pairs.concat()].concat())
    }

    /// Options as a user writes them, and as the oracle has them.
    fn sets_of_options() -> Vec<(RecordOptions, oracle::Rules)> {
        let datadog = || {
            vec![
                (vec!["kubernetes", "container_name"], "kube_container_name"),
                (vec!["kubernetes", "namespace_name"], "kube_namespace"),
                (vec!["kubernetes", "pod_name"], "pod_name"),
                (vec!["kubernetes", "docker_id"], "container_id"),
            ]
        };
        let own = || {
            vec![
                (vec!["a"], "b"),
                (vec!["log"], "message"),
                (vec!["kubernetes", "labels"], "labels"),
                (vec!["kubernetes"], "k8s"),
                (vec!["a", "b"], "a.b"),
            ]
        };
        let time = ("time_key_format", "%Y");
        let both = || [datadog(), vec![(vec!["log"], "message")]].concat();
        let rules = oracle::Rules::default;
        let sets: Vec<(Vec<(&str, &str)>, oracle::Rules)> = vec![
            (vec![("remap", "none")], rules()),
            (vec![], oracle::Rules { remap: datadog(), ..rules() }),
            (
                vec![("remap", "datadog, log=message"), ("remap_override", "on")],
                oracle::Rules { remap: both(), overwrite: true, ..rules() },
            ),
            (
                vec![("remap_preserve_source", "on"), ("add_keys", "service=s, log=none")],
                oracle::Rules {
                    remap: datadog(),
                    preserve_source: true,
                    constants: vec![("service", "s"), ("log", "none")],
                    ..rules()
                },
            ),
            (
                vec![("remap", "a=b, log=message, kubernetes.labels=labels, kubernetes=k8s, $a['b']=a.b")],
                oracle::Rules { remap: own(), ..rules() },
            ),
            (
                vec![("time_key", "time"), time, ("replace_dots", "_")],
                oracle::Rules { remap: datadog(), time: Some(("time", "2023")), dots: Some("_"), ..rules() },
            ),
            (
                vec![("data_keys", "log, pod_name, kubernetes.labels, a.b"), ("time_key", "log"), time],
                oracle::Rules {
                    remap: datadog(),
                    time: Some(("log", "2023")),
                    keep: Some(vec![
                        vec!["log"],
                        vec!["pod_name"],
                        vec!["kubernetes", "labels"],
                        vec!["kubernetes.labels"],
                        vec!["a", "b"],
                        vec!["a.b"],
                    ]),
                    ..rules()
                },
            ),
            (
                vec![
                    ("drop_keys", "a, kubernetes.labels, $log['a'], pod_name"),
                    ("replace_dots", "--"),
                    ("add_keys", "a.b=c"),
                ],
                oracle::Rules {
                    remap: datadog(),
                    drop: vec![vec!["a"], vec!["kubernetes", "labels"], vec!["log", "a"], vec!["pod_name"]],
                    dots: Some("--"),
                    constants: vec![("a.b", "c")],
                    ..rules()
                },
            ),
            (
                vec![
                    ("drop_keys", "k8s.host, message"),
                    ("remap", "a=b, log=message, kubernetes.labels=labels, kubernetes=k8s, $a['b']=a.b"),
                ],
                oracle::Rules { remap: own(), drop: vec![vec!["k8s", "host"], vec!["message"]], ..rules() },
            ),
        ];
        let read = |given: &[(&str, &str)]| {
            let get = |name: &str| match name {
                "region" => Some("eu-west-1".to_owned()),
                "delivery_stream" => Some("s".to_owned()),
                _ => given.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
            };
            crate::options::Config::read(&get, &|_| None).unwrap().record
        };
        sets.into_iter().map(|(given, rules)| (read(&given), rules)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]
        #[test]
        fn whatever_the_event_the_record_is_what_the_rules_say(body in arbitrary_body(), set in 0usize..9, tagged in any::<bool>()) {
            let (options, mut rules) = sets_of_options().swap_remove(set);
            let data = [b"\x92\x92\xd7\x00\x65\x53\xf1\x00\x07\x5b\xcd\x15\x80", &body[..]].concat();
            let tag = if tagged { TAG } else { "" };
            rules.tag = tagged.then(|| ["web-1", "shop", "nginx", &"0123456789abcdef".repeat(4)].map(str::to_owned));
            let mut chunk = Chunk::new(&data);
            let expected = oracle::record(chunk.next_event().unwrap().body, &rules);
            let expected = expected.map_or(Came::Empty, |record| Came::Record(format!("{record}\n").into_bytes()));
            let text = |came: &Came| if let Came::Record(text) = came { String::from_utf8_lossy(text).into_owned() } else { format!("{came:?}") };
            for one_pass in [true, false] {
                let came = all(&options, tag, &data, one_pass);
                prop_assert!(came == [expected.clone()], "\n{}\n{}", text(&came[0]), text(&expected));
            }
        }
    }

    #[test]
    fn all_pairs_of_options_give_a_record_or_a_reason() {
        let values: [(&str, &[&str]); 14] = [
            ("data_keys", &["log,pod_name", "kubernetes"]),
            ("drop_keys", &["stream", "$kubernetes['labels']"]),
            ("log_key", &["log", "kubernetes"]),
            ("replace_dots", &["_", "--"]),
            ("add_keys", &["service=x, log=y", "a.c=1"]),
            ("record_id", &["id", "log"]),
            ("time_key", &["@timestamp", "log"]),
            ("time_key_format", &["%Y-%m-%dT%H:%M:%S.%3NZ"]),
            ("newline", &["on", "off"]),
            ("simple_aggregation", &["on"]),
            ("compression", &["gzip", "zstd", "snappy"]),
            ("oversize", &["drop", "split"]),
            ("remap", &["none", "log=message,stream=log"]),
            ("remap_override", &["on"]),
        ];
        let body = json!({"log": "x".repeat(1_100_000), "stream": "s", "a.b": 1,
            "kubernetes": {"pod_name": "p", "labels": {"c.d": "e"}}});
        let mut records = 0;
        for (first, first_values) in &values {
            for (second, second_values) in &values {
                for pair in first_values.iter().flat_map(|one| second_values.iter().map(move |two| (*one, *two))) {
                    let options = [(*first, pair.0), (*second, pair.1)];
                    let text = match with(&options, &body) {
                        Ok(text) => text,
                        Err(reason) => {
                            let reasons = ["_key", "bytes", "nothing", "name"];
                            assert!(reasons.iter().any(|word| reason.contains(word)), "{options:?}: {reason}");
                            continue;
                        }
                    };
                    records += 1;
                    assert!(text.len() <= MAX_RECORD);
                    if !options.iter().any(|(name, _)| *name == "log_key") {
                        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                        // A key stands there once: reading and writing again gives the same text.
                        assert_eq!(value.to_string(), text.trim_end(), "{options:?}");
                    }
                }
            }
        }
        assert!(records > 300, "{records}");
    }
}
