//! `kubehose preview`: turns events and options into the exact records and batches, by the plugin's own code.

use std::io::{BufRead as _, BufReader, Read as _};

use clap::{Args as ClapArgs, ValueEnum};
use kubehose::delivery::Identity;
use kubehose::delivery::batch::{Batch, Batcher, Opening};
use kubehose::delivery::lanes::Streams;
use kubehose::event::chunk::{Chunk, Time};
use kubehose::options::{Config, OPTIONS};
use kubehose::record::pack::{Events, Joined, Packer};
use kubehose::record::remap::TagFields;
use kubehose::record::stream::Scratch;
use kubehose::record::{Next, Origin, RecordWriter, TRUNCATED};
use kubehose::service::billed;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

use crate::verdict::{Failure, Outcome, Verdict, note, plural, print_bytes};

/// Show what the plugin turns events into: the exact bytes of each record, the batches, what is billed.
///
/// Events are one JSON object a line, or a chunk of msgpack as Fluent Bit flushes it. Records go to stdout as they are, a
/// summary to stderr. The exit code is 1 if an event would be dead-lettered or cannot be decoded.
#[derive(ClapArgs)]
#[command(after_help = "Exit codes:
  0  each event makes a record
  1  some make none, as it says
  2  the events cannot be read, or the command line is wrong

Examples:
  echo '{\"log\":\"hi\",\"kubernetes\":{\"pod_name\":\"web-1\"}}' | kubehose preview
  kubehose preview --option remap=none --option time_key=_timestamp --format json events.ndjson")]
pub struct Args {
    /// Events; `-` is stdin
    #[arg(value_name = "FILE", default_value = "-")]
    file: String,
    /// An option of the plugin
    #[arg(short, long = "option", value_name = "NAME=VALUE", value_parser = option)]
    options: Vec<(String, String)>,
    /// The tag of the events
    #[arg(long, value_name = "TAG", default_value = "kube.preview")]
    tag: String,
    /// The time of events without one, as in 2026-01-27T16:53:42.5Z; by default now
    #[arg(long, value_name = "TIME")]
    time: Option<jiff::Timestamp>,
    /// What goes to stdout
    #[arg(long, value_enum, default_value_t = Format::Records)]
    format: Format,
}

/// What goes to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The records, byte for byte
    Records,
    /// One JSON object a record: batch, sizes, what is billed, the record
    Json,
    /// The bodies of the PutRecordBatch calls, one a line
    Bodies,
}

/// An option of the plugin, `NAME=VALUE`.
pub fn option(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "expected NAME=VALUE".to_owned())?;
    if OPTIONS.iter().any(|spec| spec.name == name) {
        return Ok((name.to_owned(), value.to_owned()));
    }
    let near = crate::lint::options::near(name, OPTIONS.iter().map(|spec| spec.name));
    Err(format!(
        "kubehose has no option {name}{}",
        near.map_or(String::new(), |near| format!(": did you mean {near}?"))
    ))
}

/// The most that is read of msgpack; a chunk is about 2 MB.
const MAX_CHUNK: u64 = 256 << 20;

/// What the events come to.
#[derive(Default)]
struct Account {
    events: u32,
    records: u64,
    batches: u64,
    bytes: u64,
    billed: u64,
    cut: u64,
    empty: u64,
    dead_lettered: u64,
    undecodable: u64,
}

/// The stages, one behind the other.
struct Stages<'c> {
    format: Format,
    records: RecordWriter<'c>,
    tag: Option<TagFields>,
    tag_text: &'c str,
    packer: Packer,
    streams: &'c Streams,
    /// What is being joined and batched for each stream.
    lanes: BTreeMap<String, (Joined, Batcher)>,
    in_use: BTreeSet<String>,
    account: Account,
}

/// Runs `kubehose preview`.
pub fn run(args: &Args) -> Outcome {
    let config = read_config(args)?;
    let mut stages = Stages {
        format: args.format,
        records: RecordWriter::new(&config.record),
        tag: config.record.remap.tag_fields(args.tag.as_bytes(), config.streams.template.is_some()),
        tag_text: &args.tag,
        packer: Packer::new(config.record.pack),
        streams: &config.streams,
        lanes: BTreeMap::new(),
        in_use: BTreeSet::from([config.streams.default.to_string()]),
        account: Account::default(),
    };
    let failure = |error: std::io::Error| Failure::new(format!("cannot read {}: {error}", args.file));
    let input: Box<dyn std::io::Read> = match args.file.as_str() {
        "-" => Box::new(std::io::stdin().lock()),
        path => Box::new(std::fs::File::open(path).map_err(failure)?),
    };
    let mut input = BufReader::new(input);
    let first = input.fill_buf().map_err(failure)?.iter().copied().find(|byte| !byte.is_ascii_whitespace());
    match first {
        None => return Err(Failure::new(format!("{} is empty: give events, one JSON object a line", args.file))),
        // An event of msgpack is an array of two; no JSON begins with that byte.
        Some(0x92 | 0xdc | 0xdd) => {
            let mut data = Vec::new();
            input.take(MAX_CHUNK + 1).read_to_end(&mut data).map_err(failure)?;
            if data.len() as u64 > MAX_CHUNK {
                return Err(Failure::new(format!("the chunk is larger than {} MiB", MAX_CHUNK >> 20)));
            }
            stages.chunk(&data)?;
        }
        Some(_) => {
            let time = args.time.unwrap_or_else(jiff::Timestamp::now);
            let progress = crate::verdict::progress("events");
            let mut line = Vec::new();
            let mut number = 0;
            while input.read_until(b'\n', &mut line).map_err(failure)? > 0 {
                number += 1;
                if !line.trim_ascii().is_empty() {
                    let body: Value = serde_json::from_slice(&line).map_err(|error| {
                        Failure::new(format!("{}, line {number}: no JSON ({error}); give one event a line", args.file))
                    })?;
                    stages.chunk(&msgpack(time, &body)?)?;
                    progress.inc(1);
                }
                line.clear();
            }
            progress.finish_and_clear();
        }
    }
    stages.finish()
}

fn read_config(args: &Args) -> Result<Config, Failure> {
    let get = |name: &str| {
        let given = args.options.iter().find(|(option, _)| option == name).map(|(_, value)| value.clone());
        // What decides where the records go decides nothing about them.
        given.or_else(|| match name {
            "region" => Some("us-east-1".to_owned()),
            "delivery_stream" => Some("preview".to_owned()),
            _ => None,
        })
    };
    Config::read(&get, &|_| None).map_err(|error| Failure::new(error.to_string()))
}

/// One event as the host encodes it: `[[time, {}], body]`.
fn msgpack(time: jiff::Timestamp, body: &Value) -> Result<Vec<u8>, Failure> {
    let seconds = u32::try_from(time.as_second()).map_err(|_| Failure::new("--time lies before 1970 or after 2106"))?;
    let nanos = u32::try_from(time.subsec_nanosecond()).unwrap_or(0);
    let mut out = vec![0x92, 0x92, 0xd7, 0x00];
    out.extend_from_slice(&seconds.to_be_bytes());
    out.extend_from_slice(&nanos.to_be_bytes());
    out.push(0x80);
    write(&mut out, body).map_err(|_| Failure::new("an event is too large for msgpack"))?;
    Ok(out)
}

fn write(out: &mut Vec<u8>, value: &Value) -> Result<(), std::num::TryFromIntError> {
    use rmp::encode;
    // Writing to a Vec does not fail.
    match value {
        Value::Null => drop(encode::write_nil(out)),
        Value::Bool(flag) => drop(encode::write_bool(out, *flag)),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => drop(encode::write_uint(out, number)),
            (None, Some(number)) => drop(encode::write_sint(out, number)),
            (None, None) => drop(encode::write_f64(out, number.as_f64().unwrap_or(f64::NAN))),
        },
        Value::String(text) => drop(encode::write_str(out, text)),
        Value::Array(items) => {
            let _ = encode::write_array_len(out, u32::try_from(items.len())?);
            for item in items {
                write(out, item)?;
            }
        }
        Value::Object(fields) => {
            let _ = encode::write_map_len(out, u32::try_from(fields.len())?);
            for (key, value) in fields {
                let _ = encode::write_str(out, key);
                write(out, value)?;
            }
        }
    }
    Ok(())
}

/// The numbers of a record's first and last event, from 1 on; a part of an event tells of none but its own.
fn first_and_last(events: &Events) -> [u32; 2] {
    match events.stretches() {
        [first, .., last] => [first.start + 1, last.end],
        [only] => [only.start + 1, only.end.max(only.start + 1)],
        [] => [0, 0],
    }
}

impl Stages<'_> {
    fn chunk(&mut self, data: &[u8]) -> Result<(), Failure> {
        let identity = Identity::of(self.tag_text.as_bytes(), data).to_bytes();
        let tag = self.tag.clone();
        let origin = Origin { tag: tag.as_ref(), identity };
        let now = jiff::Timestamp::now();
        let now = Time { seconds: now.as_second(), nanos: u32::try_from(now.subsec_nanosecond()).unwrap_or(0) };
        let mut chunk = Chunk::new(data);
        let (before, mut full) = (self.account.events, Vec::new());
        let mut ahead = self.streams.template.as_ref().map(|template| (template, Chunk::new(data)));
        let (mut stream, mut scratch) = (self.streams.default.to_string(), Scratch::default());
        loop {
            let (cut, is_part) = (self.records.truncated(), self.records.has_parts());
            if let Some((template, ahead)) = &mut ahead
                && !self.records.has_parts()
                && let Some(name) = template.next(ahead, self.tag_text, origin.tag, &mut scratch)
            {
                let number = before + ahead.events();
                let known = |name: &str| self.in_use.contains(name);
                stream = match name {
                    Some(name) if !known(name) && self.in_use.len() >= self.streams.most => {
                        let default = &self.streams.default;
                        note(&format!(
                            "event {number}: as many streams as max_streams allows are in use; it goes to {default}"
                        ));
                        default.to_string()
                    }
                    Some(name) => {
                        self.in_use.insert(name.to_owned());
                        name.to_owned()
                    }
                    None => {
                        let default = &self.streams.default;
                        note(&format!("event {number}: no stream's name comes of it; it goes to {default}"));
                        default.to_string()
                    }
                };
            }
            match self.records.next(&mut chunk, &origin, now) {
                Next::Record { text, events, .. } => {
                    let (bytes, events) = (text.len(), before + events.start..before + events.end);
                    let number = events.start + 1;
                    let opened = || (Joined::default(), Batcher::new(&Opening::new(&stream)));
                    let (joined, batcher) = self.lanes.entry(stream.clone()).or_insert_with(opened);
                    let room = batcher.room();
                    // A part of an event is joined to nothing, as by the plugin.
                    let end = if is_part { events.start } else { events.end };
                    let pushed = self.packer.push(joined, text, events.start..end, room, |record, events| {
                        full.extend(batcher.push(record, events, Vec::new).map(|batch| (stream.clone(), batch)));
                    });
                    pushed.map_err(|error| Failure::new(error.to_string()))?;
                    if self.records.truncated() > cut {
                        self.account.cut += 1;
                        note(&format!("event {number}: cut to {bytes} bytes"));
                    }
                }
                Next::Empty { event } => {
                    self.account.empty += 1;
                    note(&format!("event {}: no record: there is nothing in it to send", before + event + 1));
                }
                Next::Unfit { event, reason, .. } => {
                    self.account.dead_lettered += 1;
                    note(&format!("event {}: dead-lettered: {reason}", before + event + 1));
                }
                Next::End => break,
            }
            for (stream, full) in std::mem::take(&mut full) {
                self.batch(&stream, &full)?;
            }
        }
        self.account.events += chunk.events();
        self.account.undecodable += chunk.undecodable();
        Ok(())
    }

    fn batch(&mut self, stream: &str, batch: &Batch) -> Result<(), Failure> {
        self.account.batches += 1;
        if self.format == Format::Bodies {
            print_bytes(&batch.body())?;
            print_bytes(b"\n")?;
        }
        for place in batch.places() {
            let bytes = u64::from(place.bytes);
            self.account.records += 1;
            self.account.bytes += bytes;
            self.account.billed += billed(bytes);
            match self.format {
                Format::Bodies => {}
                Format::Records => print_bytes(&batch.record(place))?,
                Format::Json => {
                    let record = batch.record(place);
                    let mut line = json!({
                        "batch": self.account.batches,
                        // A part of an event tells of none but its own.
                        "events": first_and_last(&place.events),
                        "bytes": bytes,
                        "billed": billed(bytes),
                        "cut": is_cut(&record),
                        "record": String::from_utf8_lossy(&record)
                    });
                    if self.streams.template.is_some() {
                        line["delivery_stream"] = stream.into();
                    }
                    print_bytes(format!("{line}\n").as_bytes())?;
                }
            }
        }
        let to = if self.streams.template.is_some() { format!(" to {stream}") } else { String::new() };
        note(&format!(
            "batch {}{to}: {} of {}, a body of {}",
            self.account.batches,
            plural(batch.places().len(), "record"),
            plural(batch.bytes(), "byte"),
            batch.body().len()
        ));
        Ok(())
    }

    fn finish(mut self) -> Outcome {
        for (stream, (mut joined, mut batcher)) in std::mem::take(&mut self.lanes) {
            let mut full = Vec::new();
            let finished =
                self.packer.finish(&mut joined, |record, events| full.extend(batcher.push(record, events, Vec::new)));
            finished.map_err(|error| Failure::new(error.to_string()))?;
            full.extend(batcher.finish());
            full.iter().try_for_each(|batch| self.batch(&stream, batch))?;
        }
        let Account { events, records, batches, bytes, billed, cut, empty, dead_lettered, undecodable } = self.account;
        let times = if bytes > 0 { billed as f64 / bytes as f64 } else { 0.0 };
        note(&format!(
            "{}, {} of {} in {}; billed as {} ({times:.1} times); {cut} cut, {dead_lettered} dead-lettered, {undecodable} not readable, \
             {empty} empty",
            plural(events, "event"),
            plural(records, "record"),
            plural(bytes, "byte"),
            plural(batches, "batch"),
            plural(billed, "byte")
        ));
        Ok(if dead_lettered + undecodable > 0 { Verdict::Findings } else { Verdict::Fine })
    }
}

/// Whether the plugin has marked the record as shortened: the marker is its last attribute, or the last but the time.
fn is_cut(record: &[u8]) -> bool {
    let marker = format!("\"{TRUNCATED}\":");
    let tail = record.get(record.len().saturating_sub(512)..).unwrap_or_default();
    record.len() > kubehose::record::MAX_RECORD / 2
        && tail.windows(marker.len()).any(|window| window == marker.as_bytes())
}
