//! Every record option, checked by decoding the records that arrive; and generated pairs of options.
//!
//! One host runs many outputs, each with its own Firehose endpoint. The expected records come from a model of the
//! options over `serde_json::Value`, which shares no code with the plugin, and are decoded with third-party decoders.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

mod host;

use host::*;
use kubehose::options::Config;
use kubehose_local::firehose::{Options, Server};
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::process::Command;
use std::time::Duration;

const MAX_RECORD: usize = 1_024_000;

type Pairs<'p> = Vec<(&'p str, &'p str)>;

/// The value of an option, if it is given.
fn given<'p>(options: &[(&str, &'p str)], name: &str) -> Option<&'p str> {
    options.iter().find(|(option, _)| *option == name).map(|(_, value)| *value)
}

fn on(options: &[(&str, &str)], name: &str, default: bool) -> bool {
    given(options, name).map_or(default, |value| value == "on")
}

/// Delivers the same lines in one host through one output for each of `outputs`; returns their Firehose endpoints,
/// and the log.
fn deliver(lines: &[Value], outputs: &[Pairs<'_>]) -> (Vec<Server>, String) {
    deliver_tagged("kube.x", lines, outputs)
}

/// The same under another tag.
fn deliver_tagged(tag: &str, lines: &[Value], outputs: &[Pairs<'_>]) -> (Vec<Server>, String) {
    let mut scene = Scene::new().service("Grace", "60");
    // The event's own time, which stays in the event too.
    let parser = "[PARSER]\n    Name json\n    Format json\n    Time_Key ts\n    Time_Format %Y-%m-%dT%H:%M:%S.%L%z\n    \
                  Time_Keep on\n";
    fs::write(scene.path("parsers.conf"), parser).unwrap();
    let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    fs::write(scene.path("events.log"), text).unwrap();
    let path = scene.path("events.log").display().to_string();
    let input = [
        ("Name", "tail"),
        ("Path", path.as_str()),
        ("Tag", tag),
        ("Read_from_Head", "on"),
        ("Parser", "json"),
        ("Exit_On_Eof", "on"),
        ("Buffer_Max_Size", "8MB"),
        ("Buffer_Chunk_Size", "4MB"),
    ];
    scene = scene.section("INPUT", &input);
    let mut servers = Vec::new();
    for options in outputs {
        let server = Server::start(Options { tls: false, ..firehose_options(false) }).unwrap();
        scene = scene.output(&server, &[&options[..], &[("shutdown_timeout", "2m")]].concat());
        servers.push(server);
    }
    let log = scene.run();
    for server in &servers {
        let stats = server.stats();
        assert_eq!((stats.limit_violations, stats.signature_failures), (0, 0), "{log}");
    }
    (servers, log)
}

/// The text of a record, or of several concatenated ones.
fn decode(compression: &str, data: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    match compression {
        "none" => text.extend_from_slice(data),
        "gzip" => drop(flate2::read::MultiGzDecoder::new(data).read_to_end(&mut text).unwrap()),
        "zstd" => text = zstd::stream::decode_all(data).unwrap(),
        "snappy" => drop(snap::read::FrameDecoder::new(data).read_to_end(&mut text).unwrap()),
        other => panic!("{other}"),
    }
    text
}

/// The same with the command-line tool, where it is installed.
fn decode_by_command(compression: &str, data: &[u8]) -> Option<Vec<u8>> {
    if !["gzip", "zstd"].contains(&compression) {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records");
    fs::write(&file, data).unwrap();
    let Ok(output) = Command::new(compression).arg("-dc").stdin(File::open(&file).unwrap()).output() else {
        eprintln!("not run, because {compression} is not on PATH: `{compression} -dc` over the records in a row");
        return None;
    };
    assert!(output.status.success(), "{compression} -dc: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// A value as text with sorted keys.
fn canonical(value: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut pairs: Vec<_> = map.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
                pairs.sort_by(|one, two| one.0.cmp(&two.0));
                Value::Object(pairs.into_iter().collect::<Map<_, _>>())
            }
            Value::Array(values) => values.iter().map(sorted).collect(),
            other => other.clone(),
        }
    }
    sorted(value).to_string()
}

/// The events received, decoded as the options say. Each record on its own and all of them concatenated must be
/// within the limits and without blank lines. The events are canonical text, or the raw lines with `log_key`.
fn events_of(server: &Server, options: &[(&str, &str)]) -> Vec<String> {
    let compression = given(options, "compression").unwrap_or("none");
    let newline = on(options, "newline", true);
    let aggregated = on(options, "simple_aggregation", false);
    let (mut row, mut texts, mut events) = (Vec::new(), Vec::new(), Vec::new());
    for record in server.records() {
        assert!(record.data.len() <= MAX_RECORD, "{options:?}");
        row.extend_from_slice(&record.data);
        let text = decode(compression, &record.data);
        assert!(text.len() <= MAX_RECORD, "{options:?}");
        texts.extend_from_slice(&text);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.ends_with('\n'), newline, "{options:?}: {:?}", text.chars().last());
        let body = text.strip_suffix('\n').unwrap_or(&text);
        let lines: Vec<&str> = body.split('\n').collect();
        assert!(lines.iter().all(|line| !line.trim().is_empty()), "{options:?}: a blank line");
        assert!(aggregated || lines.len() == 1, "{options:?}: {} events in one record", lines.len());
        for line in lines {
            events.push(match given(options, "log_key") {
                Some(_) => line.to_owned(),
                None => canonical(&serde_json::from_str(line).unwrap()),
            });
        }
    }
    assert!(decode(compression, &row) == texts, "{options:?}: concatenated records decode to something else");
    if let Some(told) = decode_by_command(compression, &row) {
        assert!(told == texts, "{options:?}: {compression} -dc prints something else");
    }
    if given(options, "log_key").is_none() {
        // Even without newlines, a JSON reader finds all events in Firehose's concatenated output.
        let read = serde_json::Deserializer::from_slice(&texts).into_iter::<Value>();
        assert_eq!(read.map(Result::unwrap).count(), events.len(), "{options:?}");
    }
    events
}

fn assert_same(mut arrived: Vec<String>, mut wanted: Vec<String>, options: &[(&str, &str)], log: &str) {
    arrived.sort_unstable();
    wanted.sort_unstable();
    let differs = arrived.iter().zip(&wanted).find(|(one, two)| one != two);
    assert!(
        arrived == wanted,
        "{options:?}: {} arrived, {} wanted; first difference (arrived, wanted): {differs:?}\n{log}",
        arrived.len(),
        wanted.len()
    );
}

/// An event with its own time, keys with dots at all depths, and a list.
fn timed(n: usize) -> Value {
    let mut event = event(n);
    // Only fractions that a binary float can hold: the host's parser uses one.
    event["ts"] = format!("2026-11-22T23:20:{:02}.{:09}+0000", n % 60, n % 512 * 1_953_125).into();
    event["list"] = json!([{"a.b": n, "c": [{"d.e.f": "g.h"}]}, "i.j"]);
    event["x.y"] = json!({"z.z": n});
    event
}

/// The expected record of `timed(n)`: the options applied to a `Value`, independently of the plugin.
fn model(n: usize, options: &[(&str, &str)]) -> Option<String> {
    let mut value = timed(n);
    match given(options, "remap").unwrap_or("datadog") {
        "datadog" => {
            for (name, wanted) in expected(n).as_object().unwrap() {
                value[name] = wanted.clone();
            }
        }
        "none" => {}
        "datadog, log=message" => {
            for (name, wanted) in expected(n).as_object().unwrap() {
                value[name] = wanted.clone();
            }
            let log = value.as_object_mut().unwrap().remove("log").unwrap();
            value["message"] = log;
        }
        "log=message" => {
            let log = value.as_object_mut().unwrap().remove("log").unwrap();
            value["message"] = log;
        }
        other => panic!("the model has no {other}"),
    }
    if let Some(key) = given(options, "log_key") {
        return match value.get(key)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
    }
    let map = value.as_object_mut().unwrap();
    if let Some(keys) = given(options, "data_keys") {
        let labels = keys.contains("$kubernetes['labels']").then(|| json!({"labels": map["kubernetes"]["labels"]}));
        map.retain(|name, _| keys.split(',').any(|key| key == name));
        if let Some(labels) = labels {
            map.insert("kubernetes".to_owned(), labels);
        }
        if map.is_empty() {
            return None;
        }
    }
    for pair in given(options, "add_keys").into_iter().flat_map(|list| list.split(", ")) {
        let (name, constant) = pair.split_once('=').unwrap();
        map.entry(name).or_insert(constant.into());
    }
    for key in given(options, "drop_keys").into_iter().flat_map(|keys| keys.split(',')) {
        match key {
            "$kubernetes['labels']" => {
                if let Some(kubernetes) = map.get_mut("kubernetes") {
                    kubernetes.as_object_mut().unwrap().remove("labels");
                }
            }
            name => drop(map.remove(name)),
        }
    }
    if let Some(name) = given(options, "time_key") {
        let format = given(options, "time_key_format").unwrap_or("%Y-%m-%dT%H:%M:%S");
        let nanos = format!("{:09}", n % 512 * 1_953_125);
        let mut text = format.replace("%Y-%m-%dT%H:%M:%S", &format!("2026-11-22T23:20:{:02}", n % 60));
        for (spelling, digits) in [("%3N", 3), ("%L", 3), ("%6N", 6), ("%f", 6), ("%9N", 9)] {
            text = text.replace(spelling, &nanos[..digits]);
        }
        let text = match given(options, "time_key_zone") {
            Some(_) => "04:50+0530 11/23/26 26".to_owned(),
            None => text.replace("%z", "+0000"),
        };
        map.insert(name.to_owned(), text.into());
    }
    if let Some(with) = given(options, "replace_dots") {
        fn undot(value: &mut Value, with: &str) {
            match value {
                Value::Object(map) => {
                    let pairs = std::mem::take(map).into_iter().map(|(key, mut value)| {
                        undot(&mut value, with);
                        (key.replace('.', with), value)
                    });
                    *map = pairs.collect();
                }
                Value::Array(values) => values.iter_mut().for_each(|value| undot(value, with)),
                _ => {}
            }
        }
        undot(&mut value, with);
    }
    Some(canonical(&value))
}

fn wanted(count: usize, options: &[(&str, &str)]) -> Vec<String> {
    (0..count).filter_map(|n| model(n, options)).collect()
}

#[test]
fn aggregation_compression_and_newlines_in_every_combination() {
    const EVENTS: usize = 5000;
    let mut outputs: Vec<Pairs<'_>> = Vec::new();
    for aggregation in ["off", "on"] {
        for compression in ["none", "gzip", "zstd", "snappy"] {
            for newline in ["on", "off"] {
                let options = [("simple_aggregation", aggregation), ("compression", compression), ("newline", newline)];
                outputs.push(options.to_vec());
            }
        }
    }
    let lines: Vec<Value> = (0..EVENTS).map(timed).collect();
    let (servers, log) = deliver(&lines, &outputs);
    let wanted = wanted(EVENTS, &[]);
    let alone = servers[0].stats();
    assert_eq!(alone.records_accepted, EVENTS as u64);
    for (server, options) in servers.iter().zip(&outputs) {
        assert_same(events_of(server, options), wanted.clone(), options, &log);
        let stats = server.stats();
        if on(options, "simple_aggregation", false) {
            // All records are full but the last of each chunk, and a request has several.
            assert!(stats.records_accepted <= 20, "{options:?}: {} records", stats.records_accepted);
            assert!(stats.requests * 2 <= alone.requests, "{options:?}: {} requests", stats.requests);
        } else {
            assert_eq!(stats.records_accepted, EVENTS as u64, "{options:?}");
        }
    }
}

#[test]
fn options_for_keys_dots_and_times() {
    const EVENTS: usize = 600;
    let outputs: Vec<Pairs<'_>> = vec![
        vec![("data_keys", "log,pod_name,x.y")],
        vec![("data_keys", "log,$kubernetes['labels'],n.no")],
        vec![("add_keys", "service=shop, n=not this"), ("remap", "datadog, log=message")],
        vec![("time_key", "t"), ("time_key_zone", "+05:30"), ("time_key_format", "%H:%M%z %x %Ey")],
        vec![("data_keys", "no_such_key")],
        vec![("drop_keys", "$kubernetes['labels'],stream")],
        vec![("log_key", "log")],
        vec![("log_key", "kubernetes"), ("remap", "none")],
        vec![("log_key", "n")],
        // A name that no attribute has, though one starts with it: no record, and each event is dead-lettered.
        vec![("log_key", "lo")],
        vec![("replace_dots", "_")],
        vec![("replace_dots", "_"), ("time_key", "event.time"), ("time_key_format", "%Y-%m-%dT%H:%M:%S%z")],
        vec![("time_key", "@timestamp")],
        vec![("time_key", "@timestamp"), ("time_key_format", "%Y-%m-%dT%H:%M:%S.%3NZ")],
        vec![("time_key", "@timestamp"), ("time_key_format", "%Y-%m-%dT%H:%M:%S.%6N%z")],
        vec![("time_key", "@timestamp"), ("time_key_format", "%Y-%m-%dT%H:%M:%S.%9N%z")],
        vec![("time_key", "@timestamp"), ("time_key_format", "%Y-%m-%dT%H:%M:%S.%L%z")],
        vec![("time_key", "@timestamp"), ("time_key_format", "\"%Y-%m-%dT%H:%M:%S.%f\" \\ %z")],
        // The event's own attribute is replaced.
        vec![("time_key", "ts"), ("time_key_format", "%Y-%m-%dT%H:%M:%S.%3N%z")],
    ];
    let lines: Vec<Value> = (0..EVENTS).map(timed).collect();
    let (servers, log) = deliver(&lines, &outputs);
    for (server, options) in servers.iter().zip(&outputs) {
        assert_same(events_of(server, options), wanted(EVENTS, options), options, &log);
    }
    assert!(log.contains("it has no log_key"), "{log}");
    let put_aside = log.lines().find(|line| line.contains("] ended: ") && line.contains("kubehose.9]")).unwrap();
    assert!(put_aside.contains(&format!(" dead_lettered={EVENTS} ")), "{put_aside}");
}

#[test]
fn two_megabytes_are_truncated_or_dead_lettered() {
    let mut large = timed(7);
    // Two bytes each in UTF-8 and two more for the escaped quote: most cuts fall inside a character or an escape.
    large["log"] = "\u{e9}\"".repeat(600_000).into();
    let mut lines: Vec<Value> = (0..200).map(timed).collect();
    lines.insert(100, large);
    let folder = tempfile::tempdir().unwrap();
    let letters = folder.path().join("dead.ndjson").display().to_string();
    let outputs: Vec<Pairs<'_>> = vec![
        vec![("oversize", "truncate")],
        vec![("newline", "off")],
        vec![("simple_aggregation", "on")],
        vec![("compression", "gzip"), ("simple_aggregation", "on")],
        vec![("compression", "snappy")],
        vec![("compression", "zstd")],
        vec![("remap", "none"), ("time_key", "t"), ("time_key_format", "%L")],
        vec![("oversize", "drop"), ("dead_letter_file", letters.as_str())],
        vec![("oversize", "drop"), ("compression", "gzip"), ("simple_aggregation", "on")],
    ];
    let (servers, log) = deliver(&lines, &outputs);
    for (at, (server, options)) in servers.iter().zip(&outputs).enumerate() {
        let (cut, whole): (Vec<String>, Vec<String>) =
            events_of(server, options).into_iter().partition(|event| event.contains("kubehose_truncated"));
        assert_same(whole, wanted(200, options), options, &log);
        let ended = ended_of(&log, at);
        let truncated = usize::from(given(options, "oversize") != Some("drop"));
        assert!(ended.contains(&format!(" truncated={truncated} ")), "{ended}");
        if truncated == 0 {
            assert!(cut.is_empty(), "{options:?}");
            assert!(ended.contains(" dead_lettered=1 "), "{ended}");
            continue;
        }
        assert!(ended.contains(" dead_lettered=0 "), "{ended}");
        let [cut] = &cut[..] else { panic!("{options:?}: {} were cut", cut.len()) };
        let mut cut: Value = serde_json::from_str(cut).unwrap();
        let missing = cut.as_object_mut().unwrap().remove("kubehose_truncated").unwrap().as_u64().unwrap() as usize;
        let mut full: Value = serde_json::from_str(&model(7, options).unwrap()).unwrap();
        full["log"] = "\u{e9}\"".repeat(600_000).into();
        assert_eq!(cut.to_string().len() + missing, full.to_string().len(), "{options:?}");
        let log = cut["log"].as_str().unwrap();
        // The record keeps as much as fits, and nothing else changes.
        assert!(cut.to_string().len() > MAX_RECORD - 10_000, "{options:?}: {}", cut.to_string().len());
        assert!(full["log"].as_str().unwrap().starts_with(log), "{options:?}");
        cut["log"] = full["log"].clone();
        assert_eq!(cut, full, "{options:?}");
    }
    let letter: Value = serde_json::from_str(fs::read_to_string(&letters).unwrap().trim()).unwrap();
    let reason = letter["reason"].as_str().unwrap();
    assert!(reason.contains("Firehose accepts 1024000"), "{reason}");
    let record: Value = serde_json::from_str(letter["data"].as_str().unwrap()).unwrap();
    assert_eq!(record["log"].as_str().unwrap().len(), 1_800_000);
    assert_eq!(letter["bytes"].as_u64().unwrap() as usize, letter["data"].as_str().unwrap().len());
}

#[test]
fn pairs_of_options_do_what_both_promise_or_are_rejected_with_a_reason() {
    const EVENTS: usize = 150;
    let values: [(&str, &[&str]); 11] = [
        ("data_keys", &["log,n,pod_name,x.y", "kubernetes"]),
        ("drop_keys", &["stream", "$kubernetes['labels']"]),
        ("log_key", &["log", "kubernetes"]),
        ("replace_dots", &["_", "--"]),
        ("time_key", &["@timestamp", "stream"]),
        ("time_key_format", &["%Y-%m-%dT%H:%M:%S.%3N%z"]),
        ("newline", &["off"]),
        ("simple_aggregation", &["on"]),
        ("compression", &["gzip", "zstd", "snappy"]),
        ("oversize", &["drop"]),
        ("remap", &["none", "log=message"]),
    ];
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for (at, (first, first_values)) in values.iter().enumerate() {
        for (second, second_values) in &values[at + 1..] {
            for pair in first_values.iter().flat_map(|one| second_values.iter().map(move |two| (*one, *two))) {
                let options: Pairs<'_> = vec![(*first, pair.0), (*second, pair.1)];
                let get = |name: &str| match name {
                    "region" => Some("eu-west-1".to_owned()),
                    "delivery_stream" => Some(STREAM.to_owned()),
                    _ => given(&options, name).map(str::to_owned),
                };
                match Config::read(&get, &|_| None) {
                    Ok(_) => accepted.push(options),
                    Err(error) => {
                        let text = error.to_string();
                        assert!(given(&options, "log_key").is_some() && text.contains("log_key"), "{text}");
                        refused += 1;
                    }
                }
            }
        }
    }
    assert_eq!(refused, 12, "log_key with each value of data_keys, drop_keys and time_key");
    // src/record/mod.rs tries all pairs; this is a sample that covers every option, in the host.
    let sample: Vec<Pairs<'_>> = accepted.iter().step_by((accepted.len() / 25).max(1)).cloned().collect();
    assert!((20..=40).contains(&sample.len()), "{} of {}", sample.len(), accepted.len());
    for (name, _) in &values {
        assert!(sample.iter().any(|options| given(options, name).is_some()), "{name} is not in the sample");
    }
    let lines: Vec<Value> = (0..EVENTS).map(timed).collect();
    let (servers, log) = deliver(&lines, &sample);
    for (server, options) in servers.iter().zip(&sample) {
        assert_same(events_of(server, options), wanted(EVENTS, options), options, &log);
    }
}

#[test]
fn a_log_key_value_that_is_blank_or_has_several_lines() {
    // A container's line often ends in a newline, and some lines are only a newline.
    let lines: Vec<Value> =
        ["", "a\n", "\n", "b\nc", "", "d", ""].iter().map(|log| json!({"log": log, "n": 1})).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters").display().to_string();
    let log_key = ("log_key", "log");
    let outputs: Vec<Pairs<'_>> = vec![
        vec![log_key],
        vec![log_key, ("simple_aggregation", "on")],
        vec![log_key, ("newline", "off"), ("dead_letter_file", &file)],
        vec![log_key, ("newline", "off"), ("simple_aggregation", "on")],
    ];
    let (servers, log) = deliver(&lines, &outputs);
    let texts: Vec<Vec<String>> = servers
        .iter()
        .map(|server| server.records().iter().map(|record| String::from_utf8_lossy(&record.data).into()).collect())
        .collect();
    // No newline is doubled, blank lines make no record and are counted, and no other line is lost.
    assert_eq!(texts[0], ["a\n", "b\nc\n", "d\n"], "{log}");
    assert_eq!(texts[1], [texts[0].concat()], "{log}");
    assert_eq!(texts[2], ["a\n", "b\nc", "d"], "{log}");
    assert_eq!(texts[3], ["a\nb\nc\nd"], "{log}");
    for (at, empty) in [(0, 4), (1, 4), (2, 4), (3, 4)] {
        let ended = ended_of(&log, at);
        assert!(ended.contains(&format!(" dead_lettered=0 dropped=0 truncated=0 empty={empty} ")), "{ended}");
        let told = format!("kubehose.{at}] an event with tag kube.x is empty, and so there is no record of it");
        assert_eq!(log.matches(&told).count(), usize::from(empty > 0), "{log}");
        assert_eq!(servers[at].stats().requests, 1, "{log}");
    }
    assert_eq!(fs::metadata(&file).unwrap().len(), 0, "{log}");
}

#[test]
fn a_truncated_log_key_value_is_counted_and_logged() {
    let text = "\u{e9}".repeat(600_000);
    let lines = [json!({"log": text}), json!({"log": "short"}), json!({"log": text})];
    let log_key = ("log_key", "log");
    let outputs = [vec![log_key], vec![log_key, ("oversize", "drop")], vec![log_key, ("compression", "gzip")]];
    let (servers, log) = deliver(&lines, &outputs);
    for (at, records) in [(0, 3), (1, 1), (2, 3)] {
        let ended = ended_of(&log, at);
        let (cut, aside) = if records == 3 { (2, 0) } else { (0, 2) };
        assert!(ended.contains(&format!(" dead_lettered={aside} dropped={aside} truncated={cut} empty=0 ")), "{ended}");
        let told =
            format!("kubehose.{at}] a record with tag kube.x was cut: over 1024000 bytes, or nested deeper than 100");
        assert_eq!(log.matches(&told).count(), usize::from(cut > 0), "{log}");
        assert_eq!(servers[at].records().len(), records);
    }
    let first = &servers[0].records()[0].data;
    assert!(first.len() > MAX_RECORD - 4 && text.as_bytes().starts_with(first.strip_suffix(b"\n").unwrap()));
}

#[test]
fn the_cost_of_rounding_to_5_kb_is_logged_once_without_aggregation() {
    let lines: Vec<Value> = (0..2500).map(|n| json!({"log": "x".repeat(80), "n": format!("{n:05}")})).collect();
    let long: Vec<Value> = (0..1200).map(|_| json!({"log": "x".repeat(4000)})).collect();
    let (at_init, measured) =
        ("; Firehose bills each record as a multiple of 5 KB", " bytes on average are billed as ");
    let (servers, log) = deliver(&lines, &[vec![], vec![("simple_aggregation", "on")]]);
    // About 103 bytes each, billed as 5,120.
    let stats = servers[0].stats();
    let times = format!("billed as {:.0} times", stats.bytes_billed as f64 / stats.bytes_accepted as f64);
    for (at, said) in [(0, 1), (1, 0)] {
        for text in [at_init, measured, &times] {
            let lines = log.lines().filter(|line| line.contains(&format!("kubehose.{at}]")) && line.contains(text));
            assert_eq!(lines.count(), said, "{text}\n{log}");
        }
    }
    // Records billed at less than twice their size cause no line with measured costs.
    let (_, log) = deliver(&long, &[vec![]]);
    assert_eq!((log.matches(at_init).count(), log.matches(measured).count()), (1, 0), "{log}");
}

/// Parses a record and checks that no key is repeated: it is the same when it is written again.
fn one_object(record: &[u8]) -> Value {
    let text = std::str::from_utf8(record).unwrap().trim_end_matches('\n');
    let value: Value = serde_json::from_str(text).unwrap();
    let again = value.to_string();
    assert!(value.is_object() && again == text, "{text:.300}");
    value
}

#[test]
fn the_names_appear_once_for_any_shape_of_the_kubernetes_key() {
    let id = "0123456789abcdef".repeat(4);
    let tag = format!("kube.var.log.containers.web-1_shop_nginx-{id}.log");
    let shapes = ["null", "\"text\"", "{}", r#"{"mine":1}"#, r#"{"pod_name":null,"docker_id":{}}"#, "[1]", "7"];
    let mut lines: Vec<Value> = shapes
        .iter()
        .map(|shape| json!({"log": "x", "kubernetes": serde_json::from_str::<Value>(shape).unwrap()}))
        .collect();
    lines.push(json!({"log": "x"}));
    lines.push(json!({"log": "x", "kubehose_truncated": "mine", "resource": 1, "scope": 2}));
    let outputs: Vec<Pairs<'_>> = vec![
        vec![],
        vec![("replace_dots", "_"), ("time_key", "log"), ("record_id", "scope"), ("add_keys", "resource=r, service=s")],
        vec![("remap", "datadog, log=resource"), ("drop_keys", "kubernetes.mine")],
        vec![("remap_override", "on"), ("remap_preserve_source", "on")],
    ];
    let (servers, log) = deliver_tagged(&tag, &lines, &outputs);
    for (server, options) in servers.iter().zip(&outputs) {
        let records: Vec<Value> = server.records().iter().map(|record| one_object(&record.data)).collect();
        assert_eq!(records.len(), lines.len(), "{options:?} {log}");
        for record in records {
            let names = ["pod_name", "kube_namespace", "kube_container_name", "container_id"].map(|name| &record[name]);
            assert_eq!(names, [&json!("web-1"), &json!("shop"), &json!("nginx"), &json!(id)], "{options:?}: {record}");
        }
    }
}

#[test]
fn too_long_events_of_any_shape_are_truncated_or_split() {
    let text = |letter: &str, length: usize| Value::from(letter.repeat(length));
    let many: Map<String, Value> = (0..15_000).map(|n| (format!("key{n}"), text("x", 100))).collect();
    let lines = [
        // The event that Merge_Log with Keep_Log makes of a long line of JSON.
        json!({"log": text("\u{e9}", 450_000), "message": text("\u{e9}", 450_000)}),
        json!({"a": text("a", 500_000), "b": [text("b", 500_000)], "c": {"d": text("d", 500_000)}}),
        Value::Object(many),
        json!({"n": (0..300_000).collect::<Vec<u32>>()}),
    ];
    let outputs: Vec<Pairs<'_>> = vec![
        vec![("remap", "none")],
        vec![("drop_keys", "message"), ("time_key", "t")],
        vec![("oversize", "split"), ("record_id", "id")],
        vec![("oversize", "split"), ("compression", "gzip"), ("simple_aggregation", "on")],
    ];
    let (servers, log) = deliver(&lines, &outputs);
    for (at, (server, options)) in servers.iter().zip(&outputs).enumerate() {
        let ended = ended_of(&log, at);
        assert!(ended.contains(" dead_lettered=0 ") && ended.contains("dropped=0"), "{ended}");
        if given(options, "compression").is_some() {
            continue;
        }
        let records: Vec<Value> = server.records().iter().map(|record| one_object(&record.data)).collect();
        let truncated = records.iter().filter(|record| record["kubehose_truncated"].is_u64()).count();
        let split = given(options, "oversize") == Some("split");
        // The last two have no long text; without its message, the first fits.
        let expected = match (split, given(options, "drop_keys").is_some()) {
            (true, _) => 2,
            (_, true) => 3,
            _ => 4,
        };
        assert_eq!(truncated, expected, "{options:?}: {log}");
        if split {
            let parts: Vec<&Value> = records.iter().filter(|record| record["kubehose_part"].is_u64()).collect();
            let joined = |key: &str| parts.iter().filter_map(|part| part[key].as_str()).collect::<String>();
            assert_eq!(
                (joined("log"), joined("message"), joined("a")),
                ("\u{e9}".repeat(450_000), "\u{e9}".repeat(450_000), "a".repeat(500_000))
            );
        }
    }
}

#[test]
fn a_record_id_stays_the_same_when_resent_and_is_unique() {
    let lines: Vec<Value> = (0..300).map(|n| json!({"log": "the same", "n": n / 3})).collect();
    let outputs: Vec<Pairs<'_>> = vec![vec![("record_id", "id")], vec![("record_id", "id"), ("drop_keys", "n")]];
    let (servers, log) = deliver(&lines, &outputs);
    let ids = |server: &Server| {
        let records = server.records();
        let ids = records.iter().map(|record| one_object(&record.data)["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<String>>()
    };
    // Two outputs receive the same chunk, as if it were delivered twice.
    let (one, two) = (ids(&servers[0]), ids(&servers[1]));
    assert_eq!(one, two, "{log}");
    let different: std::collections::HashSet<&String> = one.iter().collect();
    assert_eq!((one.len(), different.len()), (300, 300), "{log}");
}

#[test]
fn empty_events_are_counted_and_not_sent() {
    let lines = [json!({}), json!({"log": "x"}), json!({}), json!({"ts": "2026-11-22T23:20:00.5+0000"})];
    let outputs: Vec<Pairs<'_>> = vec![vec![("time_key", "t"), ("add_keys", "a=b")], vec![("data_keys", "log")]];
    let (servers, log) = deliver(&lines, &outputs);
    for (at, (records, empty)) in [(2, 2), (1, 3)].into_iter().enumerate() {
        assert_eq!(servers[at].records().len(), records, "{log}");
        assert!(
            ended_of(&log, at).contains(&format!(" dead_lettered=0 dropped=0 truncated=0 empty={empty} ")),
            "{log}"
        );
    }
}

#[test]
fn a_wrong_option_stops_the_start_with_a_message() {
    for (name, value, told) in [
        ("replace_dots", "true", "option 'replace_dots': 'true' is not accepted"),
        ("time_key", "on", "option 'time_key': 'on' is not accepted"),
        ("time_key", "pod_name", "option 'time_key': 'pod_name' is not accepted"),
        ("drop_key", "log", "there is no option 'drop_key': did you mean 'drop_keys'?"),
        ("Data-Keys", "log", "did you mean 'data_keys'?"),
        ("time_zone", "UTC", "did you mean 'time_key_zone'?"),
        ("time_key_zone", "Mars/Olympus", "option 'time_key_zone': 'Mars/Olympus' is not accepted"),
        ("add_keys", "service", "option 'add_keys': 'service' is not accepted"),
        ("oversize", "cut", "option 'oversize': 'cut' is not accepted"),
    ] {
        let server = Server::start(Options { tls: false, ..firehose_options(false) }).unwrap();
        let mut running = Scene::new().events(1).output(&server, &[(name, value)]).start();
        let status = running.wait(Duration::from_secs(30));
        let log = running.log();
        // A host that reads our table of options comes before us.
        let by_host = format!("kubehose: unknown configuration property '{}'", name.to_lowercase());
        let told = if told.contains("did you mean") && reads_options() { by_host.as_str() } else { told };
        assert!(!status.success() && log.contains(told), "{name} {value}: {log}");
        assert_eq!(server.records().len(), 0);
    }
}

/// Whether the host is one that reads a plugin's table of options.
fn reads_options() -> bool {
    host().real && version() >= (5, 1, 1)
}

#[test]
fn a_host_that_reads_options_refuses_unknown_and_repeated_ones_and_every_other_is_left_alone() {
    let names: Vec<&str> = kubehose::options::OPTIONS.iter().map(|option| option.name).collect();
    let unknown = [("colour_of_the_pod", "blue")];
    let repeated = [("compression", "gzip"), ("compression", "none")];
    for options in [unknown.as_slice(), repeated.as_slice()] {
        let server = Server::start(Options { tls: false, ..firehose_options(false) }).unwrap();
        let mut running = Scene::new().events(100).output(&server, options).start();
        let status = running.wait(Duration::from_secs(30));
        let log = running.log();
        if reads_options() {
            let told = match options {
                [_] => {
                    let (before, last) = names.split_at(names.len() - 1);
                    format!(
                        "unknown configuration property 'colour_of_the_pod'. The following properties are allowed: {}, and {}.",
                        before.join(", "),
                        last[0]
                    )
                }
                _ => "configuration property 'compression' is set 2 times".to_owned(),
            };
            assert!(!status.success() && log.contains(&told), "{log}");
        } else {
            assert!(status.success() && server.records().len() == 100, "{log}");
        }
    }
    if host().real {
        let mut help = Command::new(&host().program);
        help.arg("-e").arg(plugin()).args(["-o", "kubehose", "-h"]);
        let help = help.output().unwrap();
        let text = String::from_utf8_lossy(&help.stdout);
        // Earlier releases show nothing of a plugin without a table.
        assert!(help.status.success(), "{text}");
        for name in names {
            let shown =
                text.lines().any(|line| line.split_whitespace().next().is_some_and(|word| word.ends_with(name)));
            assert_eq!(shown, reads_options(), "{name} in {text}");
        }
    }
}

#[test]
fn opentelemetry_records_arrive_with_their_metadata() {
    if !since_or_skip((4, 0, 0), "records of OpenTelemetry's log data model") {
        return;
    }
    let servers: Vec<Server> =
        (0..4).map(|_| Server::start(Options { tls: false, ..firehose_options(false) }).unwrap()).collect();
    let outputs: [Pairs<'_>; 4] = [
        vec![],
        vec![("otlp_metadata", "off")],
        vec![
            ("replace_dots", "_"),
            ("drop_keys", "trace_id, attributes.http.method, $resource['attributes']['host.name']"),
        ],
        vec![("data_keys", "log, severity_number, attributes"), ("add_keys", "severity_text=none, span_id=none")],
    ];
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (listen, text) = (port.to_string(), |value: &str| json!({"stringValue": value}));
    let mut scene = Scene::new().service("Grace", "60");
    let input = [("Name", "opentelemetry"), ("Listen", "127.0.0.1"), ("Port", &listen), ("Tag", "otel")];
    scene = scene.section("INPUT", &input);
    for (server, options) in servers.iter().zip(&outputs) {
        scene = scene.output(server, options);
    }
    let mut running = scene.start();
    let body = json!({"resourceLogs": [{
        "resource": {"attributes": [
            {"key": "service.name", "value": text("shop")},
            {"key": "host.name", "value": text("web-1")},
        ]},
        "scopeLogs": [{"scope": {"name": "lib"}, "logRecords": [
            {
                "timeUnixNano": "1700000000123456789", "observedTimeUnixNano": "1700000001000000000",
                "severityNumber": 13, "severityText": "WARN", "body": text("a text"),
                "attributes": [{"key": "http.status", "value": {"intValue": "503"}}],
                "traceId": "000102030405060708090a0b0c0d0eff", "spanId": "6162636465666768", "flags": 1
            },
            {
                "timeUnixNano": "1700000000123456789", "severityText": "ERROR",
                "body": {"kvlistValue": {"values": [
                    {"key": "log", "value": text("x")}, {"key": "severity_text", "value": text("own")}]}}
            },
        ]}]
    }]})
    .to_string();
    let post = || {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
        let head =
            "POST /v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n";
        write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).ok()?;
        let mut reply = [0; 12];
        stream.read_exact(&mut reply).ok()?;
        Some(reply == *b"HTTP/1.1 201")
    };
    let limit = Duration::from_secs(30);
    until("input that listens", limit, || post() == Some(true));
    until("records", limit, || servers.iter().all(|server| server.records().len() == 2));
    running.signal("TERM");
    assert!(running.wait(limit * 3).success(), "{}", running.log());
    let resource = json!({"attributes": {"service.name": "shop", "host.name": "web-1"}});
    let [first, second] = [
        json!({"log": "a text", "resource": resource, "scope": {"name": "lib"},
            "observed_timestamp": 1_700_000_001_000_000_000_u64, "severity_number": 13, "severity_text": "WARN",
            "attributes": {"http.status": 503}, "trace_id": "000102030405060708090a0b0c0d0eff",
            "span_id": "6162636465666768"}),
        // The event's own value takes precedence.
        json!({"log": "x", "severity_text": "own", "resource": resource, "scope": {"name": "lib"}}),
    ];
    let wanted = [
        [first, second],
        [
            json!({"log": "a text", "resource": resource, "scope": {"name": "lib"}}),
            json!({"log": "x", "severity_text": "own", "resource": resource, "scope": {"name": "lib"}}),
        ],
        [
            json!({"log": "a text", "resource": {"attributes": {"service_name": "shop"}}, "scope": {"name": "lib"},
                "observed_timestamp": 1_700_000_001_000_000_000_u64, "severity_number": 13, "severity_text": "WARN",
                "attributes": {"http_status": 503}, "span_id": "6162636465666768"}),
            json!({"log": "x", "severity_text": "own", "resource": {"attributes": {"service_name": "shop"}},
                "scope": {"name": "lib"}}),
        ],
        [
            json!({"log": "a text", "severity_number": 13, "attributes": {"http.status": 503},
                "severity_text": "none", "span_id": "none"}),
            json!({"log": "x", "severity_text": "none", "span_id": "none"}),
        ],
    ];
    for ((server, options), wanted) in servers.iter().zip(&outputs).zip(wanted) {
        let arrived = server.records().iter().map(|record| canonical(&one_object(&record.data))).collect();
        assert_same(arrived, wanted.iter().map(canonical).collect(), options, &running.log());
    }
}

#[test]
fn names_are_read_from_custom_tags() {
    let lines = [json!({"log": "x"}), json!({"log": "y", "kubernetes": {"pod_name": "own", "host": "h"}})];
    let pattern = r"^app\.(?P<namespace_name>[^.]+)\.(?P<pod_name>[^.]+)(?:\.(?P<container_name>.+))?$";
    let outputs: Vec<Pairs<'_>> = vec![
        vec![("tag_pattern", pattern)],
        vec![("kube_tag_fallback", "off")],
        vec![("tag_pattern", r"^other\.(?P<pod_name>.+)$")],
        vec![("tag_pattern", pattern), ("remap", "kubernetes.pod_name=pod, kubernetes.host=host"), ("log_key", "pod")],
        vec![],
    ];
    for (tag, container) in [("app.shop.web-1.nginx.main", Some("nginx.main")), ("app.shop.web-1", None)] {
        let (servers, log) = deliver_tagged(tag, &lines, &outputs);
        let records = |at: usize| servers[at].records();
        let json_of = |at: usize| records(at).iter().map(|record| one_object(&record.data)).collect::<Vec<Value>>();
        let mut told = json!({"log": "x"});
        let mut own = json!({"log": "y", "kubernetes": {"host": "h"}});
        for (record, pod) in [(&mut told, "web-1"), (&mut own, "own")] {
            if let Some(container) = container {
                record["kube_container_name"] = container.into();
            }
            (record["kube_namespace"], record["pod_name"]) = ("shop".into(), pod.into());
        }
        assert_eq!(json_of(0), [told, own], "{log}");
        let without = [lines[0].clone(), json!({"log": "y", "kubernetes": {"host": "h"}, "pod_name": "own"})];
        for at in [1, 2, 4] {
            assert_eq!(json_of(at), without, "{:?} {log}", outputs[at]);
        }
        let texts: Vec<_> = records(3).iter().map(|record| record.data.to_vec()).collect();
        assert_eq!(texts, [b"web-1\n", &b"own\n"[..]], "{log}");
    }
}

/// The line that an output logs at its end.
fn ended_of(log: &str, at: usize) -> &str {
    let ours = |line: &&str| line.contains("] ended: ") && line.contains(&format!("kubehose.{at}]"));
    log.lines().find(ours).unwrap_or_else(|| panic!("{log}"))
}
