//! Each record option with each unusual shape of each attribute it may meet. Every event becomes a record or is
//! rejected with a reason; every record is one JSON object within Firehose's limit, with no repeated key and the
//! right names; and the ordinary event next to it is unaffected.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

use kubehose::event::chunk::{Chunk, Time};
use kubehose::options::{Config, OPTIONS};
use kubehose::record::pack::{Joined, Packer};
use kubehose::record::remap::TagFields;
use kubehose::record::{MAX_RECORD, Next, Origin, RecordOptions, RecordWriter};
use serde_json::{Value, json};

/// Options, each alone and with those it may be combined with.
const OPTIONS_OF_RECORDS: &[&[(&str, &str)]] = &[
    &[],
    &[("remap", "none")],
    &[("remap", "datadog, log=message, $kubernetes['labels']=labels, stream=resource")],
    &[("remap", "kubernetes=k8s, datadog, a.b=time"), ("remap_override", "on")],
    &[("remap_preserve_source", "on")],
    &[("remap_override", "on")],
    &[("kube_tag_fallback", "off")],
    &[(
        "tag_pattern",
        r"containers\.(?P<pod_name>[^_]+)_(?P<namespace_name>[^_]+)_(?P<container_name>.+)-(?P<docker_id>.+)\.log$",
    )],
    &[("add_keys", "service=shop, log=none, resource=r, stream=s")],
    &[("data_keys", "log, pod_name, kube_namespace, kube_container_name, container_id, kubernetes.labels, a.b")],
    &[("drop_keys", "stream, kubernetes.labels, $a['b'], resource")],
    &[("log_key", "log")],
    &[("log_key", "kubernetes.labels")],
    &[("replace_dots", "_")],
    &[("replace_dots", "_"), ("data_keys", "log,pod_name,kubernetes"), ("add_keys", "a.b=1"), ("time_key", "t.t")],
    &[("time_key", "time")],
    &[("time_key", "log"), ("time_key_format", "%s.%9N \"\\"), ("time_key_zone", "+05:30")],
    &[("record_id", "stream")],
    &[("otlp_metadata", "off")],
    &[("newline", "off")],
    &[("simple_aggregation", "on")],
    &[("compression", "gzip")],
    &[("compression", "zstd"), ("compression_level", "9"), ("simple_aggregation", "on")],
    &[("compression", "snappy"), ("oversize", "split")],
    &[("oversize", "split"), ("record_id", "time"), ("time_key", "a.b")],
    &[("oversize", "split"), ("drop_keys", "stream"), ("remap", "none")],
    &[("oversize", "drop")],
];

/// Options that do not affect the content of a record.
const OTHER_OPTIONS: [&str; 24] = [
    "region",
    "delivery_stream",
    "default_delivery_stream",
    "max_streams",
    "endpoint",
    "sts_endpoint",
    "role_arn",
    "external_id",
    "profile",
    "ca_file",
    "dead_letter_file",
    "dead_letter_limit",
    "concurrency",
    "auto_retry_requests",
    "records_per_second",
    "bytes_per_second",
    "acknowledge",
    "spool_dir",
    "spool_limit",
    "spool_sync",
    "flush_timeout",
    "request_timeout",
    "shutdown_timeout",
    "max_buffer",
];

const TAG: &str = "kube.var.log.containers.web-1_shop_nginx-\
                   0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.log";

/// The kubernetes filter's field, the record's attribute, the value in the tag.
const NAMES: [(&str, &str, &str); 4] = [
    ("pod_name", "pod_name", "web-1"),
    ("namespace_name", "kube_namespace", "shop"),
    ("container_name", "kube_container_name", "nginx"),
    ("docker_id", "container_id", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
];

fn msgpack(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap()
}

/// A msgpack string of any bytes.
fn text(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    rmp::encode::write_str_len(&mut out, bytes.len() as u32).unwrap();
    [&out, bytes].concat()
}

/// A msgpack map of the pairs, unchanged.
fn map(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    rmp::encode::write_map_len(&mut out, pairs.len() as u32).unwrap();
    pairs.iter().for_each(|(key, value)| out.extend([&key[..], value].concat()));
    out
}

/// The pairs of an ordinary event's map.
fn pairs(value: &Value) -> Vec<(Vec<u8>, Vec<u8>)> {
    value.as_object().unwrap().iter().map(|(key, value)| (text(key.as_bytes()), msgpack(value))).collect()
}

fn ordinary() -> Value {
    json!({"log": "GET / \"200\"\n", "stream": "stdout", "time": "t", "kubernetes": {"pod_name": "p", "namespace_name": "n",
        "labels": {"a.b": "c"}, "container_name": "c", "docker_id": "d"}})
}

/// Values of every unusual shape; None stands for a missing key.
fn shapes() -> Vec<(&'static str, Option<Vec<u8>>)> {
    let long = "\u{e9}\"\n\u{1}".repeat(250_000);
    let many: serde_json::Map<String, Value> =
        (0..40_000).map(|n| (format!("key {n}"), json!("x".repeat(20)))).collect();
    vec![
        ("missing", None),
        ("null", Some(msgpack(&json!(null)))),
        ("a number", Some(msgpack(&json!(-7)))),
        ("a float", Some(msgpack(&json!(0.1)))),
        ("no number", Some([&b"\xcb"[..], &f64::NAN.to_be_bytes()].concat())),
        ("a flag", Some(msgpack(&json!(false)))),
        ("a list", Some(msgpack(&json!([1, {"pod_name": "x"}, []])))),
        ("a map", Some(msgpack(&json!({"pod_name": {"a": 1}, "b": 2, "labels": [3]})))),
        ("an extension", Some(b"\xd6\x05abcd".to_vec())),
        ("an empty text", Some(text(b""))),
        ("an empty map", Some(map(&[]))),
        ("an empty list", Some(msgpack(&json!([])))),
        ("a blank text", Some(text(b" \n"))),
        ("bytes that are text", Some(b"\xc4\x03abc".to_vec())),
        ("bytes that are none", Some(b"\xc4\x02\xff\xfe".to_vec())),
        ("a text that is not UTF-8", Some(text(b"a\xff\xc3(\xf0\x90b"))),
        ("a long text that is not UTF-8", Some(text(&b"\xff".repeat(1_100_000)))),
        ("a huge text", Some(msgpack(&json!(long)))),
        ("a huge text twice", Some(msgpack(&json!({"pod_name": long, "b": [long]})))),
        ("a huge map", Some(msgpack(&Value::Object(many)))),
        ("a huge list", Some(msgpack(&json!(vec![123_456_789; 120_000])))),
        ("a huge key", Some(map(&[(text(&b"k".repeat(1_100_000)), vec![1])]))),
        (
            "a map whose keys are repeated",
            Some(map(&[
                (text(b"pod_name"), vec![1]),
                (text(b"pod_name"), text(b"p")),
                (vec![1], vec![1]),
                (text(b"1"), vec![2]),
            ])),
        ),
        (
            "a map whose keys are odd",
            Some(map(&[
                (vec![0xc0], vec![1]),
                (text(b""), vec![2]),
                (map(&[]), vec![3]),
                (text(b"\xff"), vec![4]),
                (text(b"\xfe"), vec![5]),
                (text(b"a.b"), vec![6]),
                (text(b"a_b"), vec![7]),
                (text(b"\"\n"), vec![8]),
            ])),
        ),
        ("maps without end", Some([&b"\x81\xa1m".repeat(300)[..], b"\x01"].concat())),
        ("lists without end", Some([&b"\x91".repeat(300)[..], b"\x01"].concat())),
        ("maps as keys", Some([&b"\x81".repeat(60)[..], &[1; 61]].concat())),
    ]
}

/// The places in an event where a value may be.
const PLACES: [&str; 13] = [
    "log",
    "stream",
    "time",
    "kubernetes",
    "kubernetes pod_name",
    "kubernetes docker_id",
    "kubernetes labels",
    "pod_name",
    "container_id",
    "resource",
    "a.b",
    "kubehose_truncated",
    "kubehose_id",
];

/// An ordinary event with this value at this place; if `repeated`, the value stands there twice, after the ordinary
/// one.
fn body(place: &str, value: Option<&[u8]>, repeated: bool) -> Vec<u8> {
    let with = |pairs: &mut Vec<(Vec<u8>, Vec<u8>)>, name: &str, value: Option<&[u8]>| {
        let key = text(name.as_bytes());
        if !repeated {
            pairs.retain(|(other, _)| *other != key);
        }
        pairs.extend(value.map(|value| (key.clone(), value.to_vec())));
        if repeated {
            pairs.extend(value.map(|value| (key, value.to_vec())));
        }
    };
    let mut event = pairs(&ordinary());
    match place.split_once(' ') {
        Some((outer, inner)) => {
            let mut within = pairs(&ordinary()[outer]);
            with(&mut within, inner, value);
            event.retain(|(other, _)| *other != text(outer.as_bytes()));
            event.push((text(outer.as_bytes()), map(&within)));
        }
        None => with(&mut event, place, value),
    }
    map(&event)
}

const HEAD: &[u8] = b"\x92\x92\xd7\x00\x65\x53\xf1\x00\x07\x5b\xcd\x15";

/// The event, with `metadata` in a group if there is any.
fn event(body: &[u8], metadata: Option<&[u8]>) -> Vec<u8> {
    match metadata {
        None => [HEAD, b"\x80", body].concat(),
        Some(metadata) => {
            let marker = |seconds: u8, body: &[u8]| {
                [&b"\x92\x92\xd7\x00\xff\xff\xff"[..], &[seconds], b"\x00\x00\x00\x00\x80", body].concat()
            };
            let group = map(&[(text(b"resource"), metadata.to_vec()), (text(b"scope"), metadata.to_vec())]);
            let otlp = map(&[
                (text(b"attributes"), metadata.to_vec()),
                (text(b"trace_id"), metadata.to_vec()),
                (text(b"log"), metadata.to_vec()),
            ]);
            let record = [HEAD, &map(&[(text(b"otlp"), otlp)]), body].concat();
            [marker(0xff, &group), record, marker(0xfe, b"\x80")].concat()
        }
    }
}

fn options(given: &[(&str, &str)]) -> RecordOptions {
    let get = |name: &str| match name {
        "region" => Some("eu-west-1".to_owned()),
        "delivery_stream" => Some("s".to_owned()),
        _ => given.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
    };
    Config::read(&get, &|_| None).unwrap_or_else(|error| panic!("{error}")).record
}

/// The outcome of each event of a chunk, in order: its records, or the reason why there is none.
fn come_of(chunk: &[u8], options: &RecordOptions) -> Vec<Result<Vec<Vec<u8>>, String>> {
    let tag = options.remap.tag_fields(TAG.as_bytes(), false);
    assert!(tag.is_none() || tag == TagFields::parse(TAG.as_bytes()));
    let origin = Origin { tag: tag.as_ref(), identity: [7; 16] };
    let (mut chunk, mut writer, mut packer) =
        (Chunk::new(chunk), RecordWriter::new(options), Packer::new(options.pack));
    let (mut came, mut parts, mut joined) = (Vec::new(), Vec::new(), Joined::default());
    loop {
        match writer.next(&mut chunk, &origin, Time::default()) {
            Next::Record { text, events, .. } => {
                packer
                    .push(&mut joined, text, events.clone(), MAX_RECORD, |record, _| {
                        assert!(record.len() <= MAX_RECORD)
                    })
                    .unwrap();
                parts.push(text.to_vec());
                if !events.is_empty() {
                    assert_eq!(events, came.len() as u32..came.len() as u32 + 1);
                    came.push(Ok(std::mem::take(&mut parts)));
                }
            }
            Next::Unfit { reason, .. } => came.push(Err(reason.to_string())),
            Next::Empty { .. } => came.push(Err("empty".to_owned())),
            Next::End => break,
        }
    }
    packer.finish(&mut joined, |record, _| assert!(record.len() <= MAX_RECORD)).unwrap();
    assert_eq!((chunk.undecodable(), parts.len()), (0, 0));
    came
}

/// Parses a record and checks that no key is repeated: it is the same when it is written again.
fn one_object(record: &[u8], options: &RecordOptions) -> Value {
    let text = std::str::from_utf8(record).unwrap();
    assert_eq!(text.ends_with('\n'), options.newline);
    let text = text.trim_end_matches('\n');
    let value: Value = serde_json::from_str(text).unwrap();
    let again = value.to_string();
    assert!(value.is_object() && again == text, "{text:.300}");
    value
}

/// The names that the record of this event must have, with their values where they are known.
fn names(chunk: &[u8], given: &[(&str, &str)]) -> Vec<(&'static str, Option<String>)> {
    let option = |name: &str| given.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    if !option("remap").is_none_or(|remap| remap.contains("datadog")) {
        return Vec::new();
    }
    let mut chunk = Chunk::new(chunk);
    let body = chunk.next_event().unwrap().body;
    let name = |(field, target, told): (&str, &'static str, &str)| {
        if option("data_keys").is_some_and(|keys| !keys.contains(target)) {
            return None;
        }
        // The event's own value takes precedence, unless overridden.
        if body.get(target.as_bytes()).is_some() && option("remap_override").is_none() {
            return Some((target, None));
        }
        let value = body.get(b"kubernetes").and_then(|(_, map)| map.get(field.as_bytes()));
        let text = value.and_then(|(_, value)| match value.token() {
            kubehose::event::chunk::Token::Str(text) => Some(String::from_utf8_lossy(text).into_owned()),
            kubehose::event::chunk::Token::Bin(text) => String::from_utf8(text.to_vec()).ok(),
            _ => None,
        });
        let told = option("kube_tag_fallback").is_none().then(|| told.to_owned());
        Some((target, Some(text.filter(|text| !text.is_empty()).or(told)?)))
    };
    NAMES.into_iter().filter_map(name).collect()
}

fn check(what: &str, chunk: &[u8], given: &[(&str, &str)], options: &RecordOptions) {
    let behind = event(&msgpack(&ordinary()), None);
    let came = come_of(&[chunk, &behind].concat(), options);
    let [odd, plain] = &came[..] else { panic!("{what}: {} events", came.len()) };
    // Ids differ, because they contain the event's place in the chunk.
    if options.record_id.is_none() {
        assert!(*plain == come_of(&behind, options)[0], "{what}: the next event's record has changed");
    }
    let is_raw = options.log_key.is_some();
    let records = match odd {
        Ok(records) => records,
        Err(reason) => {
            let large =
                reason.contains("Firehose accepts 1024000") && options.oversize == kubehose::record::Oversize::Drop;
            assert!(large || is_raw && ["it has no log_key", "empty"].contains(&reason.as_str()), "{what}: {reason}");
            return;
        }
    };
    for record in records {
        assert!(record.len() <= options.pack.limit(), "{what}: {} bytes", record.len());
        if is_raw {
            assert!(std::str::from_utf8(record).is_ok_and(|text| !text.trim().is_empty()), "{what}");
            continue;
        }
        let record = one_object(record, options);
        for (target, name) in names(chunk, given) {
            let value = record.get(target).unwrap_or_else(|| panic!("{what}: no {target}"));
            let Some(name) = name else { continue };
            // A name that is itself too long is truncated or split, too.
            let is_right = match value.as_str() {
                Some(_) if name.len() > 4096 => true,
                Some(value) => value == name,
                None => false,
            };
            assert!(is_right, "{what}: {target} is {:.200}", value.to_string());
        }
        if let Some(id) = &options.record_id {
            let id = &record[std::str::from_utf8(id).unwrap()];
            assert!(id.as_str().is_some_and(|id| id.len() == 32), "{what}: {id}");
        }
        if let Some(key) = &options.time {
            assert!(record[std::str::from_utf8(&key.name).unwrap()].is_string(), "{what}");
        }
    }
}

#[test]
fn every_option_of_records_is_tried() {
    for spec in OPTIONS {
        let tried = OPTIONS_OF_RECORDS.iter().any(|set| set.iter().any(|(name, _)| *name == spec.name));
        assert!(tried != OTHER_OPTIONS.contains(&spec.name), "{}", spec.name);
    }
}

#[test]
fn an_attribute_of_any_shape_under_any_option_makes_one_object_within_the_limit() {
    let shapes = shapes();
    for given in OPTIONS_OF_RECORDS {
        let options = options(given);
        for place in PLACES {
            for (shape, value) in &shapes {
                for repeated in [false, true] {
                    let what = format!("{given:?}, {place} is {shape}, repeated: {repeated}");
                    // Huge values take time, and behave much the same in any place.
                    let huge = value.as_ref().is_some_and(|value| value.len() > 10_000);
                    let tried = ["log", "kubernetes", "kubernetes pod_name", "kubehose_truncated"].contains(&place);
                    if huge && (repeated || !tried) || repeated && value.is_none() {
                        continue;
                    }
                    check(&what, &event(&body(place, value.as_deref(), repeated), None), given, &options);
                }
            }
        }
    }
}

#[test]
fn a_body_or_metadata_of_any_shape_makes_one_object_within_the_limit() {
    for given in OPTIONS_OF_RECORDS {
        let options = options(given);
        for (shape, value) in shapes() {
            let Some(value) = value else { continue };
            let what = format!("{given:?}, in a group, metadata are {shape}");
            check(&what, &event(&msgpack(&ordinary()), Some(&value)), given, &options);
            let data_keys = options.data_keys.is_some() || options.log_key.is_some();
            // `{}` alone makes no record.
            if value != [0x80] && !data_keys {
                check(&format!("{given:?}, the body is {shape}"), &event(&value, None), given, &options);
            }
        }
    }
}
