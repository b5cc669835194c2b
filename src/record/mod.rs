//! An event → the bytes of one Firehose record.
//!
//! Whatever the event, the record is one valid JSON object within Firehose's limit, or the event is put aside with the
//! reason.

pub mod json;
mod one_pass;
pub mod pack;
pub mod remap;

use crate::event::chunk::{Chunk, Event, Time, Token, Value};
use crate::event::path::{Found, Path, Paths};
use crate::record::json::{Cut, Dots};
use crate::record::one_pass::OnePass;
use crate::record::pack::PackOptions;
use crate::record::remap::{Moved, Plan, Remap, TagFields, remove_all};
use jiff::Timestamp;
use jiff::fmt::strtime;
use std::cell::Cell;
use std::fmt;

/// The most bytes of one record, before base64: 1,000 KiB.
///
/// <https://docs.aws.amazon.com/firehose/latest/dev/limits.html>
pub const MAX_RECORD: usize = 1_024_000;

/// The attribute that tells how many bytes of a record's text were cut off to keep it within [`MAX_RECORD`].
pub const TRUNCATED: &str = "kubehose_truncated";

/// What to do with a record beyond [`MAX_RECORD`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oversize {
    /// Cut the longest string, and say so in [`TRUNCATED`].
    #[default]
    Truncate,
    /// Put it aside.
    Drop,
}

/// How records of one output look.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// The mapping of attributes.
    pub remap: Remap,
    /// Under which name the event's time is added, and how it is written.
    pub time: Option<TimeKey>,
    /// Whether a newline ends each record.
    pub newline: bool,
    /// What to do with a record that is too large.
    pub oversize: Oversize,
    /// Only these root attributes (`data_keys`), after the mapping.
    pub data_keys: Option<Vec<Box<[u8]>>>,
    /// All but these (`drop_keys`), after the mapping.
    pub drop_keys: DropKeys,
    /// The value at this path alone (`log_key`), raw.
    pub log_key: Option<LogKey>,
    /// What stands in for dots in keys (`replace_dots`).
    pub replace_dots: Option<String>,
    /// How texts become records.
    pub pack: PackOptions,
}

/// The option `drop_keys`.
#[derive(Clone, Debug, Default)]
pub struct DropKeys {
    paths: Paths,
    /// Those that are root attributes, which may be targets of the mapping, too.
    roots: Vec<Box<[u8]>>,
    any: bool,
}

impl DropKeys {
    /// Leaves out what these paths lead to.
    pub fn new(paths: &[Path]) -> DropKeys {
        let mut keys = DropKeys { any: !paths.is_empty(), ..DropKeys::default() };
        for path in paths {
            keys.paths.add(path);
            if let [root] = path.segments() {
                keys.roots.push(root.clone());
            }
        }
        keys
    }
}

/// The option `log_key`.
#[derive(Clone, Debug)]
pub struct LogKey {
    paths: Paths,
    /// Its name, where it is a root attribute.
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

/// The option `time_key` with its format.
#[derive(Clone, Debug)]
pub struct TimeKey {
    name: Box<[u8]>,
    /// `"name":"`
    opening: Box<[u8]>,
    format: TimeFormat,
}

impl TimeKey {
    /// An attribute `name` with times written as `format` says.
    pub fn new(name: &str, format: TimeFormat, dots: Option<&str>) -> TimeKey {
        let mut opening = Vec::new();
        json::write_string(&mut opening, name.as_bytes());
        if let Some(with) = dots {
            opening = json::replace_dots(&opening, with);
        }
        opening.extend_from_slice(b":\"");
        TimeKey { name: name.as_bytes().into(), opening: opening.into(), format }
    }
}

/// A strftime format, always in UTC, with `%L` and `%3N` (milliseconds), `%6N`, `%9N`, `%f` (microseconds).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeFormat {
    pieces: Vec<TimePiece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TimePiece {
    /// What changes at most once a second, for strftime.
    Second(String),
    /// So many digits of the second's fraction.
    Fraction(usize),
}

impl TimeFormat {
    /// Reads a format; the error says what in it is not understood.
    pub fn parse(format: &str) -> Result<TimeFormat, String> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            let (before, from) = rest.split_at(at);
            text.push_str(before);
            let fraction = [("%L", 3), ("%f", 6), ("%N", 9), ("%3N", 3), ("%6N", 6), ("%9N", 9)];
            if let Some((spelling, digits)) = fraction.iter().find(|(spelling, _)| from.starts_with(spelling)) {
                if !text.is_empty() {
                    pieces.push(TimePiece::Second(std::mem::take(&mut text)));
                }
                pieces.push(TimePiece::Fraction(*digits));
                rest = &from[spelling.len()..];
            } else {
                // The percent sign and what follows it: one character, which may itself be a percent sign.
                let length = from.chars().take(2).map(char::len_utf8).sum();
                text.push_str(&from[..length]);
                rest = &from[length..];
            }
        }
        text.push_str(rest);
        if !text.is_empty() {
            pieces.push(TimePiece::Second(text));
        }
        let parsed = TimeFormat { pieces };
        parsed.second_text(0).map_err(|error| error.to_string())?;
        Ok(parsed)
    }

    /// The pieces for one second; an empty one where the fraction comes.
    fn second_text(&self, second: i64) -> Result<Vec<String>, jiff::Error> {
        let time = Timestamp::from_second(second)?.to_zoned(jiff::tz::TimeZone::UTC);
        self.pieces
            .iter()
            .map(|piece| match piece {
                TimePiece::Second(format) => strtime::format(format, &time),
                TimePiece::Fraction(_) => Ok(String::new()),
            })
            .collect()
    }
}

/// Why an event became no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Beyond [`MAX_RECORD`], and to be dropped, or not to be cut because no string is long enough.
    TooLarge {
        /// The record's size in bytes.
        bytes: usize,
    },
    /// It has no `log_key`.
    NoLogKey,
    /// Its `log_key` is an empty text and no newline is to end it. There is nothing to deliver, whether or not the service
    /// would take it (its model allows no bytes), so nothing is lost either.
    Empty,
}

impl fmt::Display for Unfit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::TooLarge { bytes } => write!(out, "it has {bytes} bytes, Firehose takes {MAX_RECORD}"),
            Unfit::NoLogKey => out.write_str("it has no log_key"),
            Unfit::Empty => out.write_str("its log_key is empty, and an empty record is none"),
        }
    }
}

/// Writes events as records; keeps what can be reused between them.
pub struct RecordEncoder<'o> {
    options: &'o RecordOptions,
    /// The second last written, and its texts: neighbours in a chunk mostly share it.
    second: Option<(i64, Vec<String>)>,
    plan: Plan,
    found: Vec<Option<Found>>,
    collisions: Cell<u64>,
    truncated: u64,
    /// None where the options ask for what one pass cannot do.
    one_pass: Option<OnePass<'o>>,
    /// The last event's time, as an attribute.
    time: Vec<u8>,
}

impl<'o> RecordEncoder<'o> {
    /// An encoder for `options`.
    pub fn new(options: &'o RecordOptions) -> Self {
        let everything = options.data_keys.is_none() && !options.drop_keys.any;
        let as_it_is = options.log_key.is_none() && options.replace_dots.is_none();
        let replaced = options.time.as_ref().map(|key| &*key.name);
        RecordEncoder {
            options,
            second: None,
            plan: Plan::default(),
            found: Vec::new(),
            collisions: Cell::new(0),
            truncated: 0,
            one_pass: (everything && as_it_is).then(|| OnePass::new(&options.remap, replaced)),
            time: Vec::new(),
        }
    }

    /// The text of the chunk's next event, if it is an ordinary one: the same text that
    /// [`RecordEncoder::encode`] writes, for less. Otherwise the chunk stays where it is.
    pub fn encode_ordinary(&mut self, chunk: &mut Chunk<'_>, tag: Option<&TagFields>) -> Option<&[u8]> {
        self.one_pass.as_ref()?;
        let (time, rest) = chunk.plain_head()?;
        let mut last = std::mem::take(&mut self.time);
        last.clear();
        self.write_time(Some(time), |_| {}, &mut last);
        self.time = last;
        let end: &[u8] = if self.options.newline { b"\n" } else { b"" };
        let (body, text) = self.one_pass.as_mut()?.text(rest, tag, &self.time, end)?;
        if text.len() > self.options.pack.limit() {
            return None;
        }
        chunk.pass(rest, body);
        Some(text)
    }

    /// Whether what the tag says is asked for.
    pub fn wants_tag(&self) -> bool {
        self.options.remap.wants_tag()
    }

    /// Records that were cut to fit.
    pub fn truncated(&self) -> u64 {
        self.truncated
    }

    /// Values that were left out because `replace_dots` made two keys one.
    pub fn collisions(&self) -> u64 {
        self.collisions.get()
    }

    /// Writes the text of `event` over `out`: the record, unless it is joined with others or compressed.
    ///
    /// # Errors
    /// [`Unfit`] when it cannot be brought within the limit, or there is nothing of it; `out` then holds the whole text.
    pub fn encode(&mut self, event: &Event<'_, '_>, tag: Option<&TagFields>, out: &mut Vec<u8>) -> Result<(), Unfit> {
        let mut plan = std::mem::take(&mut self.plan);
        self.options.remap.plan(event, tag, &mut plan);
        if let Some(key) = &self.options.time {
            // The user asked for the event's time under this name: an attribute of the event gives way.
            remove_all(&mut plan.removed, event.body, &key.name);
        }
        self.select(event, &mut plan);
        let fits = match &self.options.log_key {
            None => self.write_within(event, tag, &plan, out),
            Some(key) => self.write_log_key(key, event, tag, &plan, out),
        };
        self.plan = plan;
        fits
    }

    /// `data_keys` and `drop_keys`.
    fn select(&mut self, event: &Event<'_, '_>, plan: &mut Plan) {
        let options = self.options;
        if let Some(wanted) = &options.data_keys {
            let keep = |name: &[u8]| wanted.iter().any(|wanted| **wanted == *name);
            for (key, _) in event.body.pairs() {
                if !matches!(key.token(), Token::Str(name) | Token::Bin(name) if keep(name)) {
                    plan.removed.push(key.at);
                }
            }
            options.remap.retain_moved(plan, keep);
        }
        if options.drop_keys.any {
            options.drop_keys.paths.find(event.body, &mut self.found);
            plan.removed.extend(self.found.iter().flatten().map(|found| found.key));
            options.remap.retain_moved(plan, |name| !options.drop_keys.roots.iter().any(|root| **root == *name));
        }
    }

    /// One value alone: a string as it is, anything else as its JSON.
    fn write_log_key(
        &mut self,
        key: &LogKey,
        event: &Event<'_, '_>,
        tag: Option<&TagFields>,
        plan: &Plan,
        out: &mut Vec<u8>,
    ) -> Result<(), Unfit> {
        let moved = key.root.as_ref().and_then(|name| self.options.remap.moved_value(name, tag, plan));
        key.paths.find(event.body, &mut self.found);
        let found = self.found.first().copied().flatten().filter(|found| !plan.removed.contains(&found.key));
        let found = found.map(|found| Moved::At(found.value));
        out.clear();
        // JSON that is cut is JSON no more; text may well begin as JSON does ("[INFO] …").
        let mut cuttable = true;
        match moved.or(found) {
            None => {
                self.write(event, tag, plan, None, out);
                return Err(Unfit::NoLogKey);
            }
            // What a tag tells has nothing in it that JSON would escape.
            Some(Moved::Json(text)) => out.extend_from_slice(text.get(1..text.len() - 1).unwrap_or_default()),
            Some(Moved::At(at)) => {
                let value = Value { tape: event.body.tape, at };
                match value.token() {
                    Token::Str(text) => out.extend_from_slice(String::from_utf8_lossy(text).as_bytes()),
                    Token::Bin(text) if std::str::from_utf8(text).is_ok() => out.extend_from_slice(text),
                    _ => {
                        cuttable = false;
                        let dots = self.dots(&[]);
                        json::write_value(out, value, Cut { dots, ..Cut::default() });
                    }
                }
            }
        }
        let limit = self.options.pack.limit() - usize::from(self.options.newline);
        if out.len() > limit {
            if self.options.oversize == Oversize::Drop || !cuttable {
                return Err(Unfit::TooLarge { bytes: out.len() });
            }
            // At a character's border.
            let end = (0..=limit).rev().find(|at| out.get(*at).is_none_or(|byte| byte & 0xC0 != 0x80));
            out.truncate(end.unwrap_or(0));
            self.truncated += 1;
        }
        // A container's line often brings its newline along; a second one would make a blank line.
        if self.options.newline && out.last() != Some(&b'\n') {
            out.push(b'\n');
        }
        if out.is_empty() { Err(Unfit::Empty) } else { Ok(()) }
    }

    fn dots<'p>(&'p self, taken: &'p [Vec<u8>]) -> Option<Dots<'p>> {
        let with = self.options.replace_dots.as_deref()?;
        Some(Dots { with, taken, collisions: &self.collisions })
    }

    /// Writes the record; one that is too large again, with its longest string cut.
    fn write_within(
        &mut self,
        event: &Event<'_, '_>,
        tag: Option<&TagFields>,
        plan: &Plan,
        out: &mut Vec<u8>,
    ) -> Result<(), Unfit> {
        self.write(event, tag, plan, None, out);
        let limit = self.options.pack.limit();
        if out.len() <= limit {
            return Ok(());
        }
        let bytes = out.len();
        if self.options.oversize == Oversize::Truncate {
            let mut strings = longest_strings(event);
            while let Some((length, at)) = strings.pop() {
                // Room for the marker, its number of up to 20 digits, and the comma.
                let excess = bytes - limit + TRUNCATED.len() + 24;
                let Some(left) = length.checked_sub(excess) else { break };
                let mut cut = Vec::with_capacity(limit);
                self.write(event, tag, plan, Some((at, left, bytes)), &mut cut);
                if cut.len() <= limit {
                    *out = cut;
                    self.truncated += 1;
                    return Ok(());
                }
            }
        }
        Err(Unfit::TooLarge { bytes })
    }

    fn write(
        &mut self,
        event: &Event<'_, '_>,
        tag: Option<&TagFields>,
        plan: &Plan,
        shortened: Option<(usize, usize, usize)>,
        out: &mut Vec<u8>,
    ) {
        out.clear();
        out.push(b'{');
        let mut taken = Vec::new();
        if self.options.replace_dots.is_some() {
            taken.extend(self.options.remap.moved_names(plan));
            let time =
                self.options.time.iter().map(|key| key.opening.strip_suffix(b":\"").unwrap_or_default().to_vec());
            taken.extend(time);
        }
        let with = self.options.replace_dots.as_deref();
        let collisions = Cell::new(0);
        let dots = with.map(|with| Dots { with, taken: &taken, collisions: &collisions });
        let cut =
            Cut { removed: &plan.removed, shortened: shortened.map(|(at, limit, _)| (at, limit)), dots, in_key: false };
        let mut any = if let Token::Map { .. } = event.body.token() {
            json::write_pairs(out, event.body, cut)
        } else {
            out.extend_from_slice(b"\"log\":");
            json::write_value(out, event.body, cut);
            true
        };
        let mut comma = |out: &mut Vec<u8>| {
            if std::mem::replace(&mut any, true) {
                out.push(b',');
            }
        };
        self.options.remap.write_moved(event, tag, plan, cut, out, &mut comma);
        if let Some(group) = event.group {
            for name in [&b"resource"[..], b"scope"] {
                let wanted = self.options.data_keys.as_ref();
                if wanted.is_none_or(|wanted| wanted.iter().any(|wanted| **wanted == *name))
                    && event.body.get(name).is_none()
                    && let Some((key, value)) = group.get(name)
                {
                    comma(out);
                    json::write_key(out, Value { tape: group.tape, at: key }, false);
                    out.push(b':');
                    json::write_value(out, value, Cut { dots, ..Cut::default() });
                }
            }
        }
        self.collisions.set(self.collisions.get() + collisions.get());
        if let Some((_, _, whole)) = shortened {
            comma(out);
            json::write_string(out, TRUNCATED.as_bytes());
            out.push(b':');
            // Filled in below: the number is of what is missing from the whole text.
            let before = out.len();
            out.extend_from_slice(b"0");
            self.write_time(event.time, comma, out);
            out.push(b'}');
            let marker = before - (TRUNCATED.len() + 4);
            let missing = whole.saturating_sub(out.len() + usize::from(self.options.newline) - (before + 1 - marker));
            out.splice(before..=before, itoa::Buffer::new().format(missing).bytes());
        } else {
            self.write_time(event.time, comma, out);
            out.push(b'}');
        }
        if self.options.newline {
            out.push(b'\n');
        }
    }

    fn write_time(&mut self, time: Option<Time>, mut comma: impl FnMut(&mut Vec<u8>), out: &mut Vec<u8>) {
        let Some(key) = &self.options.time else { return };
        let time = time.unwrap_or_else(now);
        if self.second.as_ref().is_none_or(|(second, _)| *second != time.seconds) {
            // Such a time cannot come from a chunk; should it, its record says so by having none.
            let Ok(texts) = key.format.second_text(time.seconds) else {
                return;
            };
            self.second = Some((time.seconds, texts));
        }
        let Some((_, texts)) = &self.second else { return };
        comma(out);
        out.extend_from_slice(&key.opening);
        for (piece, text) in key.format.pieces.iter().zip(texts) {
            match piece {
                TimePiece::Second(_) => {
                    let mut quoted = Vec::with_capacity(text.len() + 2);
                    json::write_string(&mut quoted, text.as_bytes());
                    out.extend_from_slice(&quoted[1..quoted.len() - 1]);
                }
                TimePiece::Fraction(digits) => {
                    let nanos = format!("{:09}", time.nanos);
                    out.extend_from_slice(nanos.as_bytes().get(..*digits).unwrap_or_default());
                }
            }
        }
        out.push(b'"');
    }
}

/// The strings of an event that a cut can shorten, by the length of their JSON text, the longest last.
fn longest_strings(event: &Event<'_, '_>) -> Vec<(usize, usize)> {
    let mut strings = Vec::new();
    let mut text = Vec::new();
    collect_strings(event.body, &mut |value| {
        text.clear();
        json::write_value(&mut text, value, Cut::default());
        strings.push((text.len() - 2, value.at));
    });
    strings.sort_unstable();
    strings
}

/// Calls `each` for every string value that is written, keys not among them.
fn collect_strings<'t, 'a>(value: Value<'t, 'a>, each: &mut impl FnMut(Value<'t, 'a>)) {
    match value.token() {
        Token::Str(_) => each(value),
        Token::Map { .. } => {
            for (_, value) in value.pairs() {
                collect_strings(value, each);
            }
        }
        Token::Array { len, .. } => {
            let mut at = value.at + 1;
            for _ in 0..len {
                let item = Value { tape: value.tape, at };
                collect_strings(item, each);
                at = item.next();
            }
        }
        _ => {}
    }
}

/// The present, for an event without a time of its own.
fn now() -> Time {
    let now = Timestamp::now();
    Time { seconds: now.as_second(), nanos: u32::try_from(now.subsec_nanosecond()).unwrap_or(0) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    pub fn options(remap: Remap) -> RecordOptions {
        RecordOptions {
            remap,
            time: None,
            newline: true,
            oversize: Oversize::Truncate,
            data_keys: None,
            drop_keys: DropKeys::default(),
            log_key: None,
            replace_dots: None,
            pack: PackOptions::default(),
        }
    }

    /// A chunk with one event at 1,700,000,000.123456789 s.
    pub fn chunk_of(body: &serde_json::Value) -> Vec<u8> {
        let head: &[u8] = b"\x92\x92\xd7\x00\x65\x53\xf1\x00\x07\x5b\xcd\x15\x80";
        [head, &rmp_serde::to_vec(body).unwrap()].concat()
    }

    pub fn encode(options: &RecordOptions, tag: &str, chunk: &[u8]) -> Result<Vec<u8>, Unfit> {
        let tag = TagFields::parse(tag.as_bytes());
        let mut chunk = Chunk::new(chunk);
        let event = chunk.next_event().unwrap();
        let mut out = Vec::new();
        RecordEncoder::new(options).encode(&event, tag.as_ref(), &mut out).map(|()| out)
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
        assert_eq!(text(&plain, &json!({})), "{}");
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
            timed.time = Some(TimeKey::new("@t", TimeFormat::parse(format).unwrap(), None));
            assert_eq!(text(&timed, &json!({"a": 1})), json!({"a": 1, "@t": expected}).to_string(), "{format}");
            assert_eq!(text(&timed, &json!({"@t": 1})), json!({"@t": expected}).to_string(), "{format}");
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
        // No string to cut.
        let numbers = json!({"n": vec![123_456_789u64; 110_000]});
        assert!(
            matches!(encode(&plain, "", &chunk_of(&numbers)), Err(Unfit::TooLarge { bytes }) if bytes > MAX_RECORD)
        );
        plain.oversize = Oversize::Drop;
        assert!(encode(&plain, "", &chunk_of(&json!({"log": "x".repeat(1_100_000)}))).is_err());
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
        let text = encode(&config.record, "", &chunk_of(body)).map_err(|unfit| unfit.to_string())?;
        Ok(String::from_utf8(text).unwrap())
    }

    #[test]
    fn only_what_was_asked_for_is_sent() {
        let body = json!({"log": "x", "stream": "stdout", "kubernetes": {"pod_name": "p", "labels": {"a.b": 1}}});
        for (options, expected) in [
            (vec![("data_keys", "log, pod_name")], r#"{"log":"x","pod_name":"p"}"#),
            (vec![("data_keys", "nothing")], "{}"),
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
        for other in [("data_keys", "a"), ("drop_keys", "a"), ("time_key", "a")] {
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
        let list = json!({"log": ["x".repeat(1_200_000)]});
        assert!(with(&[("log_key", "log")], &list).unwrap_err().contains("1200004 bytes"));
    }

    /// The records of a chunk: what is ordinary in one pass if `ordinary`, and how many of them were.
    fn all(options: &RecordOptions, tag: &str, data: &[u8], ordinary: bool) -> (Vec<Result<Vec<u8>, Unfit>>, usize) {
        let tag = TagFields::parse(tag.as_bytes()).filter(|_| options.remap.wants_tag());
        let (mut chunk, mut encoder) = (Chunk::new(data), RecordEncoder::new(options));
        let (mut records, mut in_one_pass, mut out) = (Vec::new(), 0, Vec::new());
        loop {
            assert_eq!(chunk.events() as usize, records.len());
            if ordinary && let Some(text) = encoder.encode_ordinary(&mut chunk, tag.as_ref()) {
                records.push(Ok(text.to_vec()));
                in_one_pass += 1;
                continue;
            }
            let Some(event) = chunk.next_event() else { return (records, in_one_pass) };
            assert_eq!(event.index as usize, records.len());
            records.push(encoder.encode(&event, tag.as_ref(), &mut out).map(|()| out.clone()));
        }
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
                options.remap.preserve_source = bits & 1 != 0;
                options.remap.override_on_conflict = bits & 2 != 0;
                options.remap.tag_fallback = bits & 4 != 0;
                options.newline = bits & 8 == 0;
                for name in [None, Some("time"), Some("log")] {
                    let format = TimeFormat::parse("%Y-%m-%dT%H:%M:%S.%LZ").unwrap();
                    let time = name.map(|name| TimeKey::new(name, format, None));
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
        let data = [chunk_of(&event), chunk_of(&json!({})), chunk_of(&event)].concat();
        for options in kinds_of_options() {
            let (records, in_one_pass) = all(&options, TAG, &data, true);
            assert_eq!((records, in_one_pass), (all(&options, TAG, &data, false).0, 3), "{options:?}");
        }
        // What is out of the ordinary is not lost beside it: text that is too long, keys that are repeated.
        let repeated = b"\x92\x92\xd7\x00\x65\x53\xf1\x00\x07\x5b\xcd\x15\x80\x82\xa1a\x01\xa1a\x02";
        let long = chunk_of(&json!({"log": "x".repeat(MAX_RECORD)}));
        let data = [&data[..], &repeated[..], &long, &data].concat();
        let plain = options(Remap::parse("datadog").unwrap());
        let (records, in_one_pass) = all(&plain, "", &data, true);
        assert_eq!((records.len(), in_one_pass), (8, 6));
        assert_eq!(records, all(&plain, "", &data, false).0);
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
                kind in 0usize..144) {
            let options = &kinds_of_options()[kind];
            // Twice, since what was seen before is written from memory.
            let data: Vec<u8> = events.iter().flat_map(chunk_of).collect::<Vec<u8>>().repeat(2);
            let tag = if tagged { TAG } else { "" };
            prop_assert_eq!(all(options, tag, &data, true).0, all(options, tag, &data, false).0);
        }

        #[test]
        fn one_pass_sees_what_the_tape_sees_in_damaged_chunks(
            events in prop::collection::vec(arbitrary_event(), 1..4),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            kind in 0usize..144,
        ) {
            let options = &kinds_of_options()[kind];
            let mut data: Vec<u8> = events.iter().flat_map(chunk_of).collect::<Vec<u8>>().repeat(3);
            for (place, byte) in damage {
                let at = place.index(data.len());
                data[at] = byte;
            }
            prop_assert_eq!(all(options, TAG, &data, true).0, all(options, TAG, &data, false).0);
        }
    }

    #[test]
    fn all_pairs_of_options_give_a_record_or_a_reason() {
        let values: [(&str, &[&str]); 12] = [
            ("data_keys", &["log,pod_name", "kubernetes"]),
            ("drop_keys", &["stream", "$kubernetes['labels']"]),
            ("log_key", &["log", "kubernetes"]),
            ("replace_dots", &["_", ""]),
            ("time_key", &["@timestamp", "log"]),
            ("time_key_format", &["%Y-%m-%dT%H:%M:%S.%3NZ"]),
            ("newline", &["on", "off"]),
            ("simple_aggregation", &["on"]),
            ("compression", &["gzip", "zstd", "snappy"]),
            ("oversize", &["drop"]),
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
                            assert!(reason.contains("log_key") || reason.contains("bytes"), "{options:?}: {reason}");
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
