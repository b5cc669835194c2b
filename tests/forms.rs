//! The forms in which the real host's inputs and filters write ordinary events: all are encoded directly, without the
//! tape.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

mod host;

use host::*;
use kubehose::event::chunk::Chunk;
use kubehose::record::{Origin, RecordWriter};
use std::fs;
use std::time::Duration;

const EVENTS: usize = 20;

/// The msgpack bytes of the events, as an output receives them.
fn written(what: &str, input: &[(&str, &str)], filter: &[(&str, &str)]) -> Vec<u8> {
    let scene = Scene::new().service("Flush", "0.2").service("Grace", "1");
    let lines: String = match what {
        "json" => (0..EVENTS).map(|n| format!("{}\n", event(n))).collect(),
        _ => (0..EVENTS).map(|n| format!("2026-01-27T16:53:42.123456789Z stdout F line {n}\n")).collect(),
    };
    fs::write(scene.path("events.log"), lines).unwrap();
    let (file, folder) = (scene.path("events.log").display().to_string(), scene.folder.path().display().to_string());
    let tail = [("Name", "tail"), ("Path", file.as_str()), ("Tag", "kube.x"), ("Read_from_Head", "on")];
    let mut scene = scene.section("INPUT", &[&tail[..], input].concat());
    if !filter.is_empty() {
        scene = scene.section("FILTER", &[&[("Match", "*")], filter].concat());
    }
    let output =
        [("Name", "file"), ("Match", "*"), ("Path", folder.as_str()), ("File", "chunk"), ("Format", "msgpack")];
    let mut running = scene.section("OUTPUT", &output).start();
    let chunk = running.scene.path("chunk");
    let read = || fs::read(&chunk).unwrap_or_default();
    until("events in the output's file", Duration::from_secs(30), || {
        let (bytes, mut events) = (read(), 0);
        let mut chunk = Chunk::new(&bytes);
        while chunk.next_event().is_some() {
            events += 1;
        }
        events == EVENTS && chunk.undecodable() == 0
    });
    let bytes = read();
    running.signal("TERM");
    assert!(running.wait(Duration::from_secs(20)).success());
    bytes
}

#[test]
fn tail_input_and_filter_events_need_no_tape() {
    if !real_or_skip("forms of events") {
        return;
    }
    let get = |name: &str| match name {
        "region" => Some("eu-west-1".to_owned()),
        "delivery_stream" => Some("logs".to_owned()),
        _ => None,
    };
    let options = kubehose::options::Config::read(&get, &|_| None).unwrap().record;
    let filters: [&[(&str, &str)]; 3] =
        [&[], &[("Name", "modify"), ("Add", "a b")], &[("Name", "record_modifier"), ("Record", "a b")]];
    for (what, input) in [("json", ("Parser", "json")), ("cri", ("multiline.parser", "cri"))] {
        for filter in filters {
            let bytes = written(what, &[input], filter);
            let (mut chunk, mut writer) = (Chunk::new(&bytes), RecordWriter::new(&options));
            for event in 0..EVENTS {
                let start = bytes.get(chunk.resume_state().position()..).unwrap();
                assert!(chunk.plain_head().is_some(), "{what} {filter:?}: {:02x?}", &start[..32]);
                let _ = writer.next(&mut chunk, &Origin::default(), Default::default());
                assert!(chunk.events() as usize == event + 1);
            }
            assert_eq!(writer.by_tape(), 0, "{what} {filter:?}: {:02x?}", &bytes[..64]);
        }
    }
}
