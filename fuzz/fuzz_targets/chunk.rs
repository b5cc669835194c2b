//! Arbitrary bytes as a chunk from the host. Each event found in them becomes a record that Firehose and every JSON
//! parser accept, with no repeated key and the right names. The records are the same when encoding pauses and
//! resumes, and the batches contain exactly these records, in order.
#![no_main]

use kubehose::delivery::batch::{Batch, Batcher, Opening};
use kubehose::event::chunk::{Chunk, Cursor, Time, Token, Value};
use kubehose::options::Config;
use kubehose::record::pack::Events;
use kubehose::record::remap::TagFields;
use kubehose::record::stream::{Scratch, Template};
use kubehose::record::{MAX_RECORD, Next, Origin, RecordOptions, RecordWriter};
use kubehose::service::{MAX_BODY, MAX_RECORDS};
use libfuzzer_sys::fuzz_target;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::collections::HashMap;
use std::sync::LazyLock;

const TAG: &str = "kube.var.log.containers.web-6c8b449b8f-x2x7q_shop_nginx-\
                   0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.log";

/// Sets of options, each combined with the two required ones; they are read like an `[OUTPUT]` section.
const OPTIONS: &[&[(&str, &str)]] = &[
    &[],
    &[("time_key", "@timestamp"), ("time_key_format", "%Y-%m-%dT%H:%M:%S.%LZ"), ("remap_override", "on")],
    &[
        ("remap", "log=message, a.b=c, $kubernetes['labels']['app']=app"),
        ("remap_preserve_source", "on"),
        ("newline", "off"),
    ],
    &[("remap", "none"), ("time_key", "log"), ("oversize", "drop")],
    &[("drop_keys", "kubernetes.labels, $a['b'], stream"), ("replace_dots", "_"), ("time_key", "@time.stamp")],
    &[("data_keys", "log, pod_name, kubernetes.labels, a.b"), ("replace_dots", "-"), ("add_keys", "a=1, service=shop")],
    &[
        ("add_keys", "resource=r, log=none"),
        ("record_id", "a"),
        ("oversize", "split"),
        ("remap", "datadog, a=b, x=scope"),
    ],
];

static RECORDS: LazyLock<Vec<RecordOptions>> = LazyLock::new(|| {
    let read = |set: &[(&str, &str)]| {
        let get = |name: &str| match name {
            "region" => Some("eu-west-1".to_owned()),
            "delivery_stream" => Some("fuzz".to_owned()),
            _ => set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
        };
        Config::read(&get, &|_| None).unwrap_or_else(|error| panic!("{error}")).record
    };
    OPTIONS.iter().map(|set| read(set)).collect()
});

static TEMPLATE: LazyLock<Template> = LazyLock::new(|| {
    let text = "x-$kubernetes['namespace_name']-$kubernetes['labels']['app']$a['b']$log";
    Template::parse(text).ok().flatten().unwrap_or_else(|| panic!("no template: {text}"))
});

/// JSON in whose objects no key is repeated, at any depth.
enum Json {
    Object(HashMap<String, Json>),
    Text(String),
    Other,
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("JSON, each key there once")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut pairs = HashMap::new();
        while let Some((key, value)) = map.next_entry::<String, Json>()? {
            if pairs.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!("the key {key} is repeated")));
            }
        }
        Ok(Json::Object(pairs))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        while items.next_element::<Json>()?.is_some() {}
        Ok(Json::Other)
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

/// The four names: the kubernetes filter's field, the record's attribute, the value in the tag.
const NAMES: [(&str, &str, &str); 4] = [
    ("pod_name", "pod_name", "web-6c8b449b8f-x2x7q"),
    ("namespace_name", "kube_namespace", "shop"),
    ("container_name", "kube_container_name", "nginx"),
    ("docker_id", "container_id", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
];

/// Each name that these options send must be in the record: the event's own attribute of that name unless overridden,
/// otherwise the text in the `kubernetes` map, otherwise the value in the tag.
fn check_names(record: &HashMap<String, Json>, body: Value<'_, '_>, set: &[(&str, &str)]) {
    let given = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    if !given("remap").unwrap_or("datadog").contains("datadog") {
        return;
    }
    for (field, target, told) in NAMES {
        if given("data_keys").is_some_and(|keys| !keys.contains(target)) {
            continue;
        }
        let value = record.get(target);
        assert!(value.is_some(), "there is no {target}");
        if body.get(target.as_bytes()).is_some() && given("remap_override").is_none() {
            continue;
        }
        let in_map = body.get(b"kubernetes").and_then(|(_, map)| map.get(field.as_bytes()));
        let text = in_map.and_then(|(_, value)| match value.token() {
            Token::Str(text) => Some(String::from_utf8_lossy(text).into_owned()),
            Token::Bin(text) => Some(std::str::from_utf8(text).ok()?.to_owned()),
            _ => None,
        });
        let expected = text.filter(|text| !text.is_empty()).unwrap_or_else(|| told.to_owned());
        assert!(matches!(value, Some(Json::Text(text)) if *text == expected), "{target} is not {expected}");
    }
}

/// Reads a batch as the service does.
fn records_of(batch: &Batch) -> Vec<Vec<u8>> {
    assert!(batch.bytes_held() <= MAX_BODY, "a body of {} bytes", batch.bytes_held());
    let body: serde_json::Value = serde_json::from_slice(&batch.body()).expect("a body is JSON");
    let records = body["Records"].as_array().expect("a body has records");
    assert!((1..=MAX_RECORDS).contains(&records.len()));
    let data = |record: &serde_json::Value| record["Data"].as_str().expect("a record has data").to_owned();
    let decode = |text: String| base64_simd::STANDARD.decode_to_vec(text).expect("data is base64");
    records.iter().map(data).map(decode).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let fields = TagFields::parse(TAG.as_bytes());
    assert!(fields.is_some());
    let opening = Opening::new("fuzz");
    for (options, set) in RECORDS.iter().zip(OPTIONS) {
        let mut writer = RecordWriter::new(options);
        let mut batcher = Batcher::new(&opening);
        let (mut written, mut batched) = (Vec::new(), Vec::new());
        let origin = Origin { tag: fields.as_ref(), identity: [7; 16] };
        let (mut cursor, mut done) = (Cursor::default(), 0);
        // The same chunk encoded without a pause.
        let (mut again, mut whole) = (RecordWriter::new(options), Chunk::new(bytes));
        // The events themselves.
        let mut events_of = Chunk::new(bytes);
        'chunk: loop {
            let mut chunk = Chunk::resume(bytes, cursor);
            loop {
                let next = writer.next(&mut chunk, &origin, Time::default());
                assert!(
                    next == again.next(&mut whole, &origin, Time::default()),
                    "a resumed chunk gives other records"
                );
                let event = if next == Next::End { None } else { events_of.next_event() };
                match next {
                    Next::Record { text: record, events, .. } => {
                        assert_eq!(events.start, done);
                        done = events.end;
                        assert!(record.len() <= MAX_RECORD, "a record of {} bytes", record.len());
                        let text = std::str::from_utf8(record).expect("a record is UTF-8");
                        // The parser also rejects nesting that is too deep for most parsers.
                        let value = serde_json::from_str(text).expect("a record is JSON without repeated keys");
                        let Json::Object(value) = value else { panic!("a record is an object") };
                        assert!(!value.is_empty(), "an empty record");
                        check_names(&value, event.expect("a record is an event's").body, set);
                        assert_eq!(text.ends_with('\n'), options.newline);
                        if let Some(full) = batcher.push(record, Events::One(events), Vec::new) {
                            batched.extend(records_of(&full));
                        }
                        written.push(record.to_vec());
                    }
                    Next::Unfit { event, .. } | Next::Empty { event } => {
                        assert_eq!(event, done);
                        done += 1;
                    }
                    Next::End => break 'chunk,
                }
                if !writer.has_parts() {
                    cursor = chunk.resume_state();
                    break;
                }
            }
        }
        if let Some(last) = batcher.finish() {
            batched.extend(records_of(&last));
        }
        assert!(batched == written, "the batches contain other records than were written");
    }
    // Finding each event's stream without the tape must leave the chunk at the same position as decoding with it.
    let (mut ahead, mut tape, mut scratch) = (Chunk::new(bytes), Chunk::new(bytes), Scratch::default());
    loop {
        let named = TEMPLATE.next(&mut ahead, TAG, fields.as_ref(), &mut scratch).is_some();
        assert_eq!(named, tape.next_event().is_some());
        assert_eq!(ahead.resume_state(), tape.resume_state());
        if !named {
            break;
        }
    }
});
