//! The stages of a chunk one by one, per megabyte of JSON: `cargo bench --bench stages`.
#![allow(clippy::unwrap_used, reason = "a benchmark")]

mod events;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use kubehose::delivery::batch::{Batcher, Opening};
use kubehose::event::chunk::{Chunk, Time};
use kubehose::host::Log;
use kubehose::options::Config;
use kubehose::output::Instance;
use kubehose::record::pack::Events;
use kubehose::record::stream::{Scratch, Template};
use kubehose::record::{Next, Origin, RecordOptions, RecordWriter};
use std::sync::Arc;
use std::time::SystemTime;

fn main() {
    divan::main();
}

/// A chunk of 2,000 events, as the host passes it.
fn chunk() -> Vec<u8> {
    let mut chunk = Vec::new();
    (0..2000).for_each(|n| events::write_event(&mut chunk, &events::kubernetes_event(n)));
    chunk
}

fn kinds_and_mix() -> impl Iterator<Item = &'static str> {
    events::KINDS.map(|(name, _)| name).into_iter().chain(["mix"])
}

/// The same for one kind of event or for the mix, with the size of their JSON.
fn chunk_of(name: &str) -> (Vec<u8>, BytesCount) {
    let kind = events::KINDS.into_iter().find(|(of, _)| *of == name);
    let event = |n| kind.map_or_else(|| events::mixed_event(n), |(_, kind)| events::event_of(kind, n));
    let mut chunk = Vec::new();
    let events: Vec<_> = (0..2000).map(event).collect();
    events.iter().for_each(|event| events::write_event(&mut chunk, event));
    (chunk, BytesCount::new(events.iter().map(|event| event.to_string().len() + 1).sum::<usize>()))
}

/// The events' JSON, one text each.
fn texts() -> Vec<String> {
    (0..2000).map(|n| format!("{}\n", events::kubernetes_event(n))).collect()
}

fn json_bytes() -> BytesCount {
    BytesCount::new(texts().iter().map(String::len).sum::<usize>())
}

fn options() -> RecordOptions {
    config().record
}

fn config() -> Config {
    let get = |name: &str| match name {
        "region" => Some("eu-west-1".to_owned()),
        "delivery_stream" => Some("bench".to_owned()),
        _ => None,
    };
    Config::read(&get, &|_| None).unwrap()
}

/// The work of Init, from the options to threads that wait for the first chunk.
#[divan::bench(sample_count = 20)]
fn init(bencher: Bencher) {
    let start = || Instance::start(config(), Arc::new(Log::detached()), None).unwrap();
    // The threads end when it is dropped, which is not timed.
    bencher.bench_local(start);
}

/// Decodes msgpack to the tape.
#[divan::bench]
fn decode(bencher: Bencher) {
    let chunk = chunk();
    bencher.counter(json_bytes()).bench_local(|| {
        let mut chunk = Chunk::new(&chunk);
        while let Some(event) = chunk.next_event() {
            black_box(event.index);
        }
    });
}

/// Finds the stream of each event, from its namespace.
#[divan::bench(args = kinds_and_mix())]
fn stream_of_each(bencher: Bencher, name: &str) {
    let (chunk, bytes) = chunk_of(name);
    let template = Template::parse("logs-$kubernetes['namespace_name']").unwrap().unwrap();
    let mut scratch = Scratch::default();
    bencher.counter(bytes).bench_local(|| {
        let mut chunk = Chunk::new(&chunk);
        while let Some(name) = template.next(&mut chunk, "", None, &mut scratch) {
            black_box(name);
        }
    });
}

/// Writes all records of a chunk.
fn write(chunk: &[u8], options: &RecordOptions) {
    let (mut chunk, mut writer) = (Chunk::new(chunk), RecordWriter::new(options));
    loop {
        match writer.next(&mut chunk, &Origin::default(), Time::default()) {
            Next::End => break,
            next => drop(black_box(next)),
        }
    }
}

/// msgpack to records through the tape, with the mapping of names.
#[divan::bench]
fn encode_by_tape(bencher: Bencher) {
    let (chunk, mut options) = (chunk(), options());
    options.drop_keys = Some(kubehose::event::path::Paths::default());
    bencher.counter(json_bytes()).bench_local(|| write(&chunk, &options));
}

/// msgpack to records in one pass, without the tape.
#[divan::bench]
fn encode(bencher: Bencher) {
    let (chunk, options) = (chunk(), options());
    bencher.counter(json_bytes()).bench_local(|| write(&chunk, &options));
}

/// The same for each kind of event, and for the mix.
#[divan::bench(args = kinds_and_mix())]
fn encode_kinds(bencher: Bencher, name: &str) {
    let ((chunk, bytes), options) = (chunk_of(name), options());
    bencher.counter(bytes).bench_local(|| write(&chunk, &options));
}

/// An event of 16 MB, truncated to one record: one text, the same text twice, many small ones, numbers.
#[divan::bench(args = ["text", "twice", "small", "numbers"], sample_count = 10)]
fn truncate(bencher: Bencher, shape: &str) {
    const BYTES: usize = 16 << 20;
    let event = match shape {
        "text" => serde_json::json!({"log": "a \"line\"\n".repeat(BYTES / 9)}),
        "twice" => serde_json::json!({"log": "x".repeat(BYTES / 2), "json": {"message": "x".repeat(BYTES / 2)}}),
        "small" => (0..BYTES / 80)
            .map(|n| (format!("key{n}"), "x".repeat(70).into()))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        _ => serde_json::json!({"n": vec![123_456_789u64; BYTES / 10]}),
    };
    let (mut chunk, options) = (Vec::new(), options());
    events::write_event(&mut chunk, &event);
    bencher.counter(BytesCount::new(chunk.len())).bench_local(|| write(&chunk, &options));
}

/// Texts to request bodies in base64.
#[divan::bench]
fn batch(bencher: Bencher) {
    let (texts, opening) = (texts(), Opening::new("bench"));
    let mut used = Vec::new();
    bencher.counter(json_bytes()).bench_local(|| {
        let mut batcher = Batcher::new(&opening);
        for (index, text) in (0..).zip(&texts) {
            if let Some(full) =
                batcher.push(text.as_bytes(), Events::One(index..index + 1), || used.pop().unwrap_or_default())
            {
                used.extend(full.into_buffer());
            }
        }
        used.extend(batcher.finish().and_then(|last| last.into_buffer()));
    });
}

/// Hashing and signing the bodies, as kubehose does it and as the SDK does it.
#[divan::bench(args = ["ring", "sha2"])]
fn sign_bodies(bencher: Bencher, hash: &str) {
    let body = vec![b'A'; texts().iter().map(String::len).sum::<usize>() * 4 / 3];
    let identity = Credentials::new("AKIDEXAMPLE", "secret", None, None, "bench").into();
    bencher.counter(json_bytes()).bench_local(|| {
        for body in body.chunks(600_000) {
            let params = v4::SigningParams::builder()
                .identity(&identity)
                .region("eu-west-1")
                .name("firehose")
                .time(SystemTime::UNIX_EPOCH)
                .settings(SigningSettings::default())
                .build()
                .unwrap();
            let headers = [("x-amz-target", "Firehose_20150804.PutRecordBatch")].into_iter();
            let url = "https://firehose.eu-west-1.amazonaws.com/";
            let body = match hash {
                "ring" => {
                    let hash = ring::digest::digest(&ring::digest::SHA256, body);
                    SignableBody::Precomputed(hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
                }
                _ => SignableBody::Bytes(body),
            };
            let request = SignableRequest::new("POST", url, headers, body).unwrap();
            black_box(sign(request, &params.into()).unwrap());
        }
    });
}
