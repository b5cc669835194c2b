//! The same events through the built-in `kinesis_firehose` and kubehose, in one real Fluent Bit, compared byte by
//! byte.
//!
//! Every difference is listed in [`DIFFERENCES`] or [`CASES`] and, for users, in `docs/src/differences.md`. An
//! unlisted difference, or a listed one that no longer exists, fails the test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

mod host;

use host::*;
use kubehose_local::firehose::Server;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

const EVENTS: usize = 2000;

/// Kinds of values, each with its JSON text; each event holds one.
const KINDS: &[(&str, &str)] = &[
    ("nested maps", r#"{"a":{"b":{"c":{"d":[{"e":1},[2,[3]]]}}}}"#),
    ("integers", "[0,1,-1,127,128,-129,65535,-65536,4294967296,-9007199254740993]"),
    ("the largest integers", "[9223372036854775807,-9223372036854775808]"),
    ("floats", "[0.5,-2.25,0.1,3.14159,1234.5678]"),
    ("whole floats", "[1.0,-100.0,0.0]"),
    ("large floats", "[1e300,1.5e16,6.02e23]"),
    ("small floats", "[1e-7,2.5e-10,1e-300]"),
    ("floats of 17 digits", "[0.30000000000000004,123456789.12345678]"),
    ("text", r#""GET /index.html 200""#),
    ("unicode", r#""caf\u00e9 \u65e5\u672c \u00a0""#),
    ("unicode beyond 16 bits", "\"\u{1f600} \u{1d11e}\""),
    ("unicode keys", "{\"cl\u{e9}\":1,\"\u{65e5}\":2}"),
    ("line separators", "\"\u{2028}\u{2029}\""),
    ("quotes and backslashes", r#""she said \"no\" \\ C:\\temp""#),
    ("slashes", r#""a/b <c>&amp;</script> 'd'""#),
    ("common control characters", r#""\n\r\t""#),
    ("backspace and form feed", r#""\b\f""#),
    ("other control characters", r#""\u0001\u001b[31m\u001f""#),
    ("delete", r#""\u007f""#),
    ("empty maps and lists", r#"{"map":{},"list":[]}"#),
    ("empty text", r#""""#),
    ("null", "null"),
    ("bool", "[true,false]"),
    ("keys with dots and quotes", r#"{"a.b":1,"c\"d":2,"e f":3}"#),
];

/// Kinds for which the two plugins write different bytes: whether the value is still the same, and why.
const DIFFERENCES: &[(&str, bool, &str)] = &[
    (
        "unicode",
        true,
        "kubehose writes characters beyond ASCII as UTF-8, kinesis_firehose escapes them: fewer bytes, the same text",
    ),
    ("unicode beyond 16 bits", true, "one character of 4 bytes in place of two escaped surrogates of 6 bytes each"),
    ("unicode keys", true, "keys are written as values are, in UTF-8"),
    ("line separators", true, "U+2028 and U+2029 are characters like any other in JSON"),
    ("delete", true, "JSON does not ask for U+007F to be escaped"),
    (
        "large floats",
        true,
        "a float is written with the fewest digits that read back as it, so with an exponent from 1e16 on",
    ),
    ("small floats", true, "an exponent is written without a leading zero: 1e-7 for 1e-07"),
    (
        "floats of 17 digits",
        false,
        "kubehose writes all digits of a float, kinesis_firehose rounds to 16 and so changes the value",
    ),
];

/// The `n`th event's line.
fn line(n: usize) -> String {
    // One event in four looks as the kubernetes filter leaves it, in ASCII: the records must be identical.
    if n.is_multiple_of(4) {
        return event(n).to_string().replace('\u{e9}', "e");
    }
    let (kind, value) = KINDS[(n - n / 4 - 1) % KINDS.len()];
    format!(r#"{{"n":{n},"kind":"{kind}","value":{value}}}"#)
}

fn by_number(server: &Server) -> HashMap<u64, Vec<u8>> {
    let mut records = HashMap::new();
    for record in server.records() {
        let value: Value = serde_json::from_slice(&record.data)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&record.data)));
        let again = records.insert(value["n"].as_u64().unwrap(), record.data.to_vec());
        assert!(again.is_none(), "{value} twice");
    }
    records
}

/// Whether the host is older than 4.2, whose `kinesis_firehose` cannot be pointed at a local port.
fn too_old() -> bool {
    let told = std::process::Command::new(&host().program).arg("--version").output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let version = told.split_once(" v").unwrap().1;
    let mut numbers = version.split(['.', '\n']).map(|number| number.parse::<u32>().unwrap());
    (numbers.next(), numbers.next()) < (Some(4), Some(2))
}

#[test]
fn the_built_in_plugin_writes_the_same_bytes_except_for_listed_differences() {
    if !real_or_skip("the comparison with kinesis_firehose") {
        return;
    }
    if too_old() {
        eprintln!("not run, because kinesis_firehose before 4.2 cannot use a local port: the comparison with it");
        return;
    }
    let (theirs, ours) = (firehose(true), firehose(true));
    let (port, ca) = (theirs.port().to_string(), theirs.ca_pem_path().unwrap().display().to_string());
    let scene = Scene::new().service("Grace", "60");
    let text = (0..EVENTS).map(|n| line(n) + "\n").collect::<String>();
    fs::write(scene.path("events.log"), text).unwrap();
    let log = scene
        .tail(0, &[("Exit_On_Eof", "on")])
        .section("OUTPUT", &built_in(&port, &ca))
        .output(&ours, &[("remap", "none"), ("shutdown_timeout", "1m")])
        .run();
    let (theirs, ours) = (by_number(&theirs), by_number(&ours));
    assert_eq!((theirs.len(), ours.len()), (EVENTS, EVENTS), "{log}");
    let mut found: BTreeMap<String, (bool, String)> = BTreeMap::new();
    for (n, one) in &theirs {
        let two = &ours[n];
        if one != two {
            let (before, after): (Value, Value) =
                (serde_json::from_slice(one).unwrap(), serde_json::from_slice(two).unwrap());
            let kind = after["kind"].as_str().unwrap_or("kubernetes").to_owned();
            let texts = [one, two].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            found.insert(kind, (before == after, format!("theirs {}ours   {}", texts[0], texts[1])));
        }
    }
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/src/differences.md")).unwrap();
    let new: String = found
        .iter()
        .filter(|(kind, (same, _))| !DIFFERENCES.iter().any(|(listed, alike, _)| listed == kind && alike == same))
        .map(|(kind, (same, texts))| format!("\n{kind} (the same value: {same}):\n{texts}"))
        .collect();
    assert!(new.is_empty(), "differences that are not listed, or listed differently:{new}");
    for (kind, _, reason) in DIFFERENCES {
        assert!(found.contains_key(*kind), "{kind} is listed as a difference, but there is none any more");
        assert!(
            document.contains(&format!("| {kind} |")) && document.contains(reason),
            "docs/src/differences.md lacks: {kind}: {reason}"
        );
    }
}

/// What each plugin writes for a line under the same options, in the form of [`seen`]: the topic, the options, the
/// line, the result of `kinesis_firehose`, ours. Where the results differ, the document has a row for it.
type Case<'c> = (&'c str, &'c [(&'c str, &'c str)], &'c str, &'c str, &'c str);

const CASES: &[Case<'_>] = &[
    ("`{}`", &[], "{}", "nothing", "nothing"),
    ("blank text", &[], r#"{"log":" "}"#, r#"{"log":" "}\n"#, r#"{"log":" "}\n"#),
    ("a repeated key", &[], r#"{"a":1,"a":2}"#, r#"{"a":2}\n"#, r#"{"a":2}\n"#),
    ("an event beyond 1,024,000 bytes", &[], HUGE, "nothing", "1023985 bytes"),
    ("`log_key`", LOG_KEY, r#"{"log":"a"}"#, r"a\n", r"a\n"),
    ("`log_key`, quotes in its text", LOG_KEY, r#"{"log":"a \"b\""}"#, r#"a \"b\"\n"#, r#"a "b"\n"#),
    ("`log_key log`, and a key `lo`", LOG_KEY, r#"{"lo":"a","log":"b"}"#, r"a\n b\n", r"b\n"),
    ("`log_key` of a map", LOG_KEY, r#"{"log":{"a":1}}"#, r#""a":1\n"#, r#"{"a":1}\n"#),
    ("`log_key` of an empty text", LOG_KEY, r#"{"log":""}"#, "nothing", "nothing"),
    ("`log_key` of a blank text", LOG_KEY, r#"{"log":" "}"#, r" \n", "nothing"),
    ("`log_key` of a number", LOG_KEY, r#"{"log":5}"#, "nothing", r"5\n"),
    ("`log_key` of a boolean", LOG_KEY, r#"{"log":true}"#, r"ru\n", r"true\n"),
    ("`log_key` of a null", LOG_KEY, r#"{"log":null}"#, r"ul\n", r"null\n"),
    ("`log_key` of a list", LOG_KEY, r#"{"log":[1,2]}"#, r"1,2\n", r"[1,2]\n"),
    ("`log_key`, a newline at its end", LOG_KEY, r#"{"log":"a\n"}"#, r"a\n\n", r"a\n"),
    ("`log_key`, text beyond ASCII", LOG_KEY, r#"{"log":"\u00e9"}"#, r"\u00e9\n", "\u{e9}\\n"),
    (
        "`%Z` in `time_key_format`",
        &[("time_key", "t"), ("time_key_format", "%Z")],
        r#"{"a":0}"#,
        r#"{"a":0,"t":"GMT"}\n"#,
        r#"{"a":0,"t":"UTC"}\n"#,
    ),
    ("no `log_key`", LOG_KEY, r#"{"message":"a"}"#, "nothing", "nothing"),
    (
        "`%3N` in `time_key_format`",
        &[("time_key", "t"), ("time_key_format", "%Y-%m-%dT%H:%M:%S.%3N")],
        r#"{"a":0}"#,
        r#"{"a":0,"t":"0000-00-00T00:00:00.000"}\n"#,
        r#"{"a":0,"t":"0000-00-00T00:00:00.000"}\n"#,
    ),
    (
        "`%L` in `time_key_format`",
        &[("time_key", "t"), ("time_key_format", "%L")],
        r#"{"a":0}"#,
        r#"{"a":0,"t":"000000000"}\n"#,
        r#"{"a":0,"t":"000"}\n"#,
    ),
    (
        "`time_key a`, and the event has it",
        &[("time_key", "a"), ("time_key_format", "%Y")],
        r#"{"a":0,"b":0}"#,
        r#"{"a":0,"b":0,"a":"0000"}\n"#,
        r#"{"b":0,"a":"0000"}\n"#,
    ),
    ("`compression snappy`", &[("compression", "snappy")], r#"{"a":1}"#, "one snappy block", "snappy frames"),
    (
        "`simple_aggregation`",
        &[("simple_aggregation", "on")],
        "{\"a\":1}\n{\"a\":2}",
        r#"{"a":1}\n{"a":2}\n\n"#,
        r#"{"a":1}\n{"a":2}\n"#,
    ),
];

/// What each plugin writes for an event that JSON cannot represent: the topic, the msgpack, the result of
/// `kinesis_firehose`, ours.
const EVENTS_OF_MSGPACK: &[(&str, &[u8], &str, &str)] = &[
    ("text that is not UTF-8", b"\x81\xa1v\xa3a\xffb", r#"{"v":"ab"}\n"#, "{\"v\":\"a\u{fffd}b\"}\\n"),
    ("binary that is not UTF-8", b"\x81\xa1v\xc4\x03x\xff\x01", r#"{"v":"x\u0001"}\n"#, r#"{"v":"eP8B"}\n"#),
    ("an ext value", b"\x81\xa1v\xd5\x01xy", r#"{"v":"\x78\x79"}\n"#, r#"{"v":"eHk="}\n"#),
    ("NaN", b"\x81\xa1v\xcb\x7f\xf8\0\0\0\0\0\0", r#"{"v":nan}\n"#, r#"{"v":null}\n"#),
    ("infinity", b"\x81\xa1v\xcb\x7f\xf0\0\0\0\0\0\0", r#"{"v":inf}\n"#, r#"{"v":null}\n"#),
    ("a float of 32 bits", b"\x81\xa1v\xca\x3d\xcc\xcc\xcd", r#"{"v":0.1000000014901161}\n"#, r#"{"v":0.1}\n"#),
    ("a key that is a number", b"\x81\x01\x02", r#"{1:2}\n"#, r#"{"1":2}\n"#),
    ("a key that is null", b"\x81\xc0\x02", r#"{null:2}\n"#, r#"{"null":2}\n"#),
    ("a key that is not UTF-8", b"\x81\xa1\xff\x02", r#"{"":2}\n"#, "{\"\u{fffd}\":2}\\n"),
];

const LOG_KEY: &[(&str, &str)] = &[("log_key", "log")];

/// A placeholder for a line with a text of 1,100,000 bytes.
const HUGE: &str = "huge";

/// What a Firehose endpoint received, in short: its records, a long one as its length, the digits of a time as zeros.
fn seen(server: &Server, times: bool) -> String {
    let short = |data: &[u8]| match data.len() {
        _ if data.starts_with(b"\xff\x06\0\0sNaPpY") => "snappy frames".to_owned(),
        _ if snap::raw::Decoder::new().decompress_vec(data).is_ok() => "one snappy block".to_owned(),
        0..200 => String::from_utf8_lossy(data).replace('\n', "\\n"),
        _ => format!("{} bytes", data.len()),
    };
    let records: Vec<String> = server.records().iter().map(|record| short(&record.data)).collect();
    let text = if records.is_empty() { "nothing".to_owned() } else { records.join(" ") };
    if times { text.replace(|digit: char| digit.is_ascii_digit(), "0") } else { text }
}

#[test]
fn results_of_the_same_options_differ_only_as_listed() {
    if !real_or_skip("the comparison of options with kinesis_firehose") {
        return;
    }
    if too_old() {
        eprintln!(
            "not run, because kinesis_firehose before 4.2 cannot use a local port: the comparison of options with it"
        );
        return;
    }
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/src/differences.md")).unwrap();
    for (what, options, line, wanted_theirs, wanted_ours) in CASES {
        let (theirs, ours) = (firehose(true), firehose(true));
        let (port, ca) = (theirs.port().to_string(), theirs.ca_pem_path().unwrap().display().to_string());
        let scene = Scene::new().service("Grace", "20");
        let huge = format!(r#"{{"log":"{}"}}"#, "x".repeat(1_100_000));
        let line = if *line == HUGE { huge.as_str() } else { line };
        fs::write(scene.path("events.log"), format!("{line}\n")).unwrap();
        let log = scene
            .tail(0, &[("Exit_On_Eof", "on"), ("Buffer_Max_Size", "8MB"), ("Buffer_Chunk_Size", "4MB")])
            .section("OUTPUT", &[&built_in(&port, &ca), *options].concat())
            .output(&ours, &[&[("remap", "none")], *options].concat())
            .run();
        let times = options.iter().any(|(name, _)| *name == "time_key");
        let (theirs, ours) = (seen(&theirs, times), seen(&ours, times));
        assert_eq!((theirs.as_str(), ours.as_str()), (*wanted_theirs, *wanted_ours), "{what}: {log}");
        let is_told = |text: &str| ["nothing", "bytes", "snappy"].iter().any(|word| text.contains(word));
        let quoted = |text: &str| if is_told(text) { text.to_owned() } else { format!("`{text}`") };
        let row = format!("| {what} | {} | {} |", quoted(&theirs), quoted(&ours));
        assert_eq!(document.contains(&row), theirs != ours, "docs/src/differences.md: {row}");
    }
}

/// The `[OUTPUT]` section of the built-in plugin.
fn built_in<'p>(port: &'p str, ca: &'p str) -> [(&'static str, &'p str); 8] {
    [
        ("Name", "kinesis_firehose"),
        ("Match", "*"),
        ("region", "eu-west-1"),
        ("delivery_stream", STREAM),
        ("endpoint", "127.0.0.1"),
        ("port", port),
        ("tls.ca_file", ca),
        ("tls.vhost", "localhost"),
    ]
}

/// What both plugins write for an event received by the forward protocol.
fn through_both(what: &str, event: &[u8]) -> (String, String, String) {
    let (theirs, ours) = (firehose(true), firehose(true));
    let (port, ca) = (theirs.port().to_string(), theirs.ca_pem_path().unwrap().display().to_string());
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut running = Scene::new()
        .service("Grace", "20")
        .service("Flush", "0.2")
        .section("INPUT", &[("Name", "forward"), ("Listen", "127.0.0.1"), ("Port", &listen.port().to_string())])
        .section("OUTPUT", &built_in(&port, &ca))
        .output(&ours, &[("remap", "none")])
        .start();
    let mut connection = None;
    until("the forward input", Duration::from_secs(20), || {
        connection = TcpStream::connect(listen).ok();
        connection.is_some()
    });
    // PackedForward: a tag, then entries of a time and an event.
    let entry = [b"\x92\xce\x65\x53\xf1\x00", event].concat();
    let message = [b"\x92\xa1t\xc4", &[entry.len() as u8][..], &entry].concat();
    let mut connection = connection.unwrap();
    connection.write_all(&message).unwrap();
    until(&format!("the record of {what}"), Duration::from_secs(20), || !ours.records().is_empty());
    running.signal("TERM");
    assert!(running.wait(Duration::from_secs(40)).success());
    (seen(&theirs, false), seen(&ours, false), running.log())
}

#[test]
fn results_of_msgpack_beyond_json_differ_only_as_listed() {
    if !real_or_skip("the comparison of msgpack with kinesis_firehose") {
        return;
    }
    if too_old() {
        eprintln!("not run, because kinesis_firehose before 4.2 cannot use a local port: the comparison of msgpack");
        return;
    }
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/src/differences.md")).unwrap();
    for cases in EVENTS_OF_MSGPACK.chunks(4) {
        std::thread::scope(|scope| {
            for (what, event, wanted_theirs, wanted_ours) in cases {
                let document = &document;
                scope.spawn(move || {
                    let (theirs, ours, log) = through_both(what, event);
                    assert_eq!((theirs.as_str(), ours.as_str()), (*wanted_theirs, *wanted_ours), "{what}: {log}");
                    let is_told = |text: &str| ["nothing", "bytes"].iter().any(|word| text.contains(word));
                    let quoted = |text: &str| if is_told(text) { text.to_owned() } else { format!("`{text}`") };
                    let row = format!("| {what} | {} | {} |", quoted(&theirs), quoted(&ours));
                    assert!(document.contains(&row), "docs/src/differences.md: {row}");
                });
            }
        });
    }
}
