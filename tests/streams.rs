//! A stream for each record in the real host: fifty namespaces, fifty streams, each event exactly once in its own.
//! Missing, throttled or slow streams delay no other, and receive their events once they recover.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

mod host;

use host::*;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const NAMESPACES: usize = 50;
const EVENTS: usize = 20_000;

/// How the endpoint treats calls to a stream while it is failing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stream {
    Well,
    Missing,
    Throttled,
    Slow,
}

/// Five streams of each kind fail.
fn kind(stream: &str) -> Stream {
    match stream.strip_prefix("logs-ns").and_then(|number| number.parse::<usize>().ok()) {
        Some(0..5) => Stream::Missing,
        Some(5..10) => Stream::Throttled,
        Some(10..15) => Stream::Slow,
        _ => Stream::Well,
    }
}

/// An endpoint that treats each stream differently.
#[derive(Default)]
struct Endpoint {
    ill: AtomicBool,
    /// The stream of each accepted event, and the time of acceptance.
    accepted: Mutex<HashMap<usize, Vec<(String, Instant)>>>,
    refused: Mutex<HashMap<String, u64>>,
}

impl Endpoint {
    fn start(ill: bool) -> (Arc<Endpoint>, String) {
        let endpoint = Arc::new(Endpoint { ill: AtomicBool::new(ill), ..Endpoint::default() });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = endpoint.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let endpoint = served.clone();
                std::thread::spawn(move || endpoint.serve(connection.unwrap()));
            }
        });
        (endpoint, url)
    }

    fn serve(&self, mut connection: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        loop {
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                let line = line.trim().to_ascii_lowercase();
                if line.is_empty() {
                    break;
                }
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            let (status, text) = self.answer(&serde_json::from_slice(&body).unwrap());
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\r\n",
                text.len()
            );
            connection.write_all(&[head.as_bytes(), text.as_bytes()].concat()).ok()?;
        }
    }

    fn answer(&self, body: &Value) -> (&'static str, String) {
        let stream = body["DeliveryStreamName"].as_str().unwrap().to_owned();
        let error = |code: &str| json!({"__type": code, "message": "as the test wants it"}).to_string();
        if self.ill.load(Relaxed) {
            let refused = match kind(&stream) {
                Stream::Missing => Some(("400 Bad Request", error("ResourceNotFoundException"))),
                Stream::Throttled => Some(("503 Service Unavailable", error("ServiceUnavailableException"))),
                Stream::Slow => {
                    std::thread::sleep(Duration::from_secs(2));
                    None
                }
                Stream::Well => None,
            };
            if let Some(refused) = refused {
                *self.refused.lock().unwrap().entry(stream).or_default() += 1;
                return refused;
            }
        }
        let records = body["Records"].as_array().unwrap();
        let mut accepted = self.accepted.lock().unwrap();
        for record in records {
            let data = base64_simd::STANDARD.decode_to_vec(record["Data"].as_str().unwrap()).unwrap();
            for line in data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let event: Value = serde_json::from_slice(line).unwrap();
                let n = event["n"].as_u64().unwrap() as usize;
                assert_eq!(stream, stream_of(n), "event {n}");
                accepted.entry(n).or_default().push((stream.clone(), Instant::now()));
            }
        }
        let responses: Vec<Value> = records.iter().map(|_| json!({"RecordId": "x"})).collect();
        ("200 OK", json!({"FailedPutCount": 0, "RequestResponses": responses}).to_string())
    }

    fn count(&self, of: impl Fn(Stream) -> bool) -> usize {
        self.accepted.lock().unwrap().keys().filter(|n| of(kind(&stream_of(**n)))).count()
    }
}

fn stream_of(n: usize) -> String {
    format!("logs-ns{}", n % NAMESPACES)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Delivered,
    Buffered,
    Spool,
}

/// One run; returns the time until all events for healthy streams had arrived.
fn run(mode: Mode, mixed: bool, aggregated: bool, ill: bool, max_buffer: &str) -> Duration {
    let (endpoint, url) = Endpoint::start(ill);
    let mut scene = Scene::new().service("Grace", "5").service("Flush", "0.2").service("scheduler.base", "1");
    scene = scene.service("scheduler.cap", "2");
    // Either one file with all namespaces in each chunk, or one file, and therefore its own tag and chunks, for each
    // namespace.
    let files = if mixed { 1 } else { NAMESPACES };
    for file in 0..files {
        let numbers = (0..EVENTS).filter(|n| mixed || n % NAMESPACES == file);
        let lines: String = numbers
            .map(|n| {
                let mut event = event(n);
                event["kubernetes"]["namespace_name"] = format!("ns{}", n % NAMESPACES).into();
                format!("{event}\n")
            })
            .collect();
        fs::write(scene.path(&format!("events-{file}.log")), lines).unwrap();
    }
    let path = scene.path("events-*.log").display().to_string();
    scene = scene.section(
        "INPUT",
        &[("Name", "tail"), ("Path", &path), ("Tag", "app.*"), ("Read_from_Head", "on"), ("Parser", "json")],
    );
    let spool = scene.path("spool").display().to_string();
    let mut options = vec![
        ("Name", "kubehose"),
        ("Match", "*"),
        ("region", "eu-west-1"),
        ("endpoint", url.as_str()),
        ("delivery_stream", "logs-$kubernetes['namespace_name']"),
        ("default_delivery_stream", "logs-rest"),
        ("Retry_Limit", "no_limits"),
        ("Workers", "8"),
        ("max_buffer", max_buffer),
    ];
    match mode {
        Mode::Delivered => {}
        Mode::Buffered => options.push(("acknowledge", "buffered")),
        Mode::Spool => options.push(("spool_dir", &spool)),
    }
    if aggregated {
        options.push(("simple_aggregation", "on"));
    }
    let what = format!("{mode:?}, mixed {mixed}, aggregated {aggregated}, ill {ill}, max_buffer {max_buffer}");
    let since = Instant::now();
    let mut running = scene.section("OUTPUT", &options).start();
    let well = (0..EVENTS).filter(|n| kind(&stream_of(*n)) == Stream::Well).count();
    let arrive = |wanted: usize, kinds: &dyn Fn(Stream) -> bool| {
        let end = Instant::now() + Duration::from_secs(60);
        while endpoint.count(kinds) < wanted {
            let arrived = endpoint.count(kinds);
            assert!(Instant::now() < end, "{arrived} of {wanted} have arrived, {what}\n{}", running.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    arrive(well, &|kind| kind == Stream::Well);
    let took = since.elapsed();
    if ill {
        // The healthy streams may be done before each failing one was called once.
        until(&format!("refusal of each of the ten streams, {what}"), Duration::from_secs(30), || {
            endpoint.refused.lock().unwrap().len() == 10
        });
        until(&format!("log line that names a stream, {what}"), Duration::from_secs(30), || {
            let log = running.log();
            log.contains("deliverystream/logs-ns") || log.contains("logs-ns0 in eu-west-1")
        });
        endpoint.ill.store(false, Relaxed);
    }
    arrive(EVENTS, &|_| true);
    running.signal("TERM");
    let status = running.wait(Duration::from_secs(20));
    assert!(status.success(), "{what}: {status}");
    let accepted = endpoint.accepted.lock().unwrap();
    let repeated = accepted.values().filter(|times| times.len() > 1).count();
    assert_eq!((accepted.len(), repeated), (EVENTS, 0), "{what}\n{}", running.log());
    took
}

/// Compares an undisturbed run with a run in which some streams fail until all events for the others have arrived.
fn holds_up_no_other(mode: Mode, mixed: bool, aggregated: bool) {
    if !real_or_skip("several streams") {
        return;
    }
    // The events waiting for failing streams fit into the default buffer, but not into the small one.
    for max_buffer in ["64M", "2M"] {
        let run = |ill| run(mode, mixed, aggregated, ill, max_buffer);
        let (undisturbed, disturbed) = (run(false), run(true));
        println!(
            "{mode:?}, mixed {mixed}, aggregated {aggregated}, {max_buffer}: {undisturbed:.2?}, disturbed {disturbed:.2?}"
        );
    }
}

#[test]
fn buffered_with_a_namespace_in_each_chunk() {
    holds_up_no_other(Mode::Buffered, false, false);
}

#[test]
fn buffered_with_all_namespaces_in_each_chunk() {
    holds_up_no_other(Mode::Buffered, true, false);
}

#[test]
fn spooled_with_a_namespace_in_each_chunk() {
    holds_up_no_other(Mode::Spool, false, false);
}

#[test]
fn spooled_with_all_namespaces_in_each_chunk_and_aggregated() {
    holds_up_no_other(Mode::Spool, true, true);
}

#[test]
fn delivered_with_a_namespace_in_each_chunk() {
    holds_up_no_other(Mode::Delivered, false, false);
}

#[test]
fn delivered_with_all_namespaces_in_each_chunk() {
    holds_up_no_other(Mode::Delivered, true, false);
}
