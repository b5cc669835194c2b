//! Hostile chunks, hand-made or found by the fuzzer: none may take more than a moment to encode.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

use kubehose::event::chunk::{Chunk, Time};
use kubehose::options::Config;
use kubehose::record::{MAX_RECORD, Next, Origin, RecordWriter};
use std::sync::mpsc;
use std::time::Duration;

/// An event's header: its time and empty metadata.
const HEAD: &[u8] = b"\x92\x92\xd7\x00\x65\x53\xf1\x00\x07\x5b\xcd\x15\x80";

/// The records of a chunk; fails if encoding takes too long.
fn records(chunk: Vec<u8>) -> Vec<String> {
    let (done, records) = mpsc::channel();
    std::thread::spawn(move || {
        let required = |name: &str| match name {
            "region" => Some("eu-west-1".to_owned()),
            "delivery_stream" => Some("s".to_owned()),
            _ => None,
        };
        let options = Config::read(&required, &|_| None).unwrap().record;
        let (mut chunk, mut writer, mut records) = (Chunk::new(&chunk), RecordWriter::new(&options), Vec::new());
        loop {
            match writer.next(&mut chunk, &Origin::default(), Time::default()) {
                Next::Record { text, .. } => {
                    assert!(text.len() <= MAX_RECORD);
                    records.push(String::from_utf8(text.to_vec()).unwrap());
                }
                Next::End => break,
                _ => {}
            }
        }
        let _ = done.send(records);
    });
    records.recv_timeout(Duration::from_secs(20)).expect("the chunk is encoded within 20 s")
}

// A map as a key becomes text, and its quotes and backslashes are escaped again at each level, so naive encoding
// doubles the size per level.
#[test]
fn maps_as_keys_of_maps_as_keys_cost_no_more_than_their_bytes() {
    for depth in [12, 24, 99, 200] {
        let chunk = [HEAD, &vec![0x81; depth], &vec![0x01; depth + 1]].concat();
        let records = records(chunk);
        assert_eq!(records.len(), 1);
        assert!(records[0].len() < 4096, "{} bytes", records[0].len());
        let value: serde_json::Value = serde_json::from_str(&records[0]).unwrap();
        assert!(value.is_object());
    }
}

#[test]
fn many_event_headers_without_readable_bodies_cost_little_time() {
    // Each event header claims an array that spans the rest of the chunk, so decoding it fails only at the chunk's
    // end.
    let mut chunk = Vec::new();
    while chunk.len() < 2_000_000 {
        let left = (2_000_000 - chunk.len()) as u32;
        chunk.extend_from_slice(HEAD);
        chunk.push(0xdd);
        chunk.extend_from_slice(&(left / 2).to_be_bytes());
    }
    assert_eq!(records(chunk), Vec::<String>::new());
}
