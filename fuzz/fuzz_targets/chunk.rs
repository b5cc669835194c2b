//! Arbitrary bytes, as a host might hand them over: each event that is found in them becomes a record that Firehose and
//! every JSON parser take, whether it is written in one pass or by way of the tape, and the batches hold exactly these
//! records, in their order.
#![no_main]

use kubehose::delivery::batch::{Batch, Batcher, MAX_BODY, MAX_RECORDS, Opening};
use kubehose::event::chunk::Chunk;
use kubehose::options::Config;
use kubehose::record::remap::TagFields;
use kubehose::record::{MAX_RECORD, RecordEncoder, RecordOptions};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const TAG: &str = "kube.var.log.containers.web-6c8b449b8f-x2x7q_shop_nginx-\
                   0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.log";

/// Sets of options, each beside the two that are required; they are read as an `[OUTPUT]` section is.
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
    &[("data_keys", "log, pod_name, kubernetes, a"), ("replace_dots", "-")],
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

/// Reads a batch as the service does.
fn records_of(batch: &Batch) -> Vec<Vec<u8>> {
    assert!(batch.held() <= MAX_BODY, "a body of {} bytes", batch.held());
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
    for options in RECORDS.iter() {
        let mut encoder = RecordEncoder::new(options);
        let mut batcher = Batcher::new(&opening);
        let (mut written, mut batched) = (Vec::new(), Vec::new());
        let mut record = Vec::new();
        let (mut chunk, mut ahead) = (Chunk::new(bytes), Chunk::new(bytes));
        let mut in_one_pass = RecordEncoder::new(options);
        while let Some(event) = chunk.next_event() {
            let ordinary = in_one_pass.encode_ordinary(&mut ahead, fields.as_ref()).map(<[u8]>::to_vec);
            if ordinary.is_none() {
                assert_eq!(ahead.next_event().map(|other| other.index), Some(event.index));
            }
            let fits = encoder.encode(&event, fields.as_ref(), &mut record).is_ok();
            assert!(ordinary.is_none_or(|text| fits && text == record), "one pass writes another text than the tape");
            if !fits {
                continue;
            }
            assert!(record.len() <= MAX_RECORD, "a record of {} bytes", record.len());
            let text = std::str::from_utf8(&record).expect("a record is UTF-8");
            // It refuses what is nested too deep for most readers, too.
            let value: serde_json::Value = serde_json::from_str(text).expect("a record is JSON");
            assert!(value.is_object(), "a record is an object");
            assert_eq!(text.ends_with('\n'), options.newline);
            if let Some(full) = batcher.push(&record, event.index..event.index + 1, Vec::new) {
                batched.extend(records_of(&full));
            }
            written.push(record.clone());
        }
        if let Some(last) = batcher.finish() {
            batched.extend(records_of(&last));
        }
        assert!(batched == written, "the batches hold other records than were written");
    }
});
