//! A soak test: a steady flow under changing faults, for `KUBEHOSE_SOAK_SECONDS` (600 by default).
//!
//! Ignored unless asked for: `cargo test --release --test soak -- --ignored --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

mod host;

use host::*;
use kubehose_local::firehose::{Down, Faults, Keep, Options, Server};
use std::fs;
use std::io::{BufWriter, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Events a second.
const RATE: u64 = 20_000;

/// Faults that leave no outcome ambiguous, so that no record may arrive twice.
fn faults(turn: u64) -> Faults {
    let none = Faults::default();
    match turn % 8 {
        0 => none,
        1 => Faults { fail_every_record: 100, ..none },
        2 => Faults { fail_every_request: 20, ..none },
        3 => Faults { latency_ms: 100, jitter_ms: 100, ..none },
        4 => Faults { quota_records_per_second: 25_000, ..none },
        5 => Faults { cut_before_every: 50, ..none },
        6 => Faults { down: Down::Refuse, down_for_ms: 2000, ..none },
        _ => Faults { fail_first_requests: 20, ..none },
    }
}

#[test]
#[ignore = "takes ten minutes"]
fn a_steady_flow_under_changing_faults_loses_nothing_and_memory_stays_flat() {
    let seconds: u64 = std::env::var("KUBEHOSE_SOAK_SECONDS").map_or(600, |text| text.parse().unwrap());
    let server = Server::start(Options { keep: Keep::Nothing, count_unique: true, ..firehose_options(true) }).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let input =
        [("Name", "tcp"), ("Listen", "127.0.0.1"), ("Port", port.as_str()), ("Format", "json"), ("Tag", "kube.x")];
    let scene = Scene::new().service("Grace", "30").section("INPUT", &[&input[..], &[("Chunk_Size", "256")]].concat());
    let mut running = scene.output(&server, &[("Workers", "1"), ("shutdown_timeout", "1m")]).start();
    let address = format!("127.0.0.1:{port}");
    until("input", Duration::from_secs(10), || TcpStream::connect(&address).is_ok());
    let mut socket = BufWriter::new(TcpStream::connect(&address).unwrap());
    let pid = running.child.id();
    let status = |key: &str| -> u64 {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let start = Instant::now();
    let (mut sent, mut samples) = (0u64, Vec::<(u64, u64, u64, usize)>::new());
    while start.elapsed() < Duration::from_secs(seconds) {
        let due = (start.elapsed().as_secs_f64() * RATE as f64) as u64;
        while sent < due {
            let filler = "x".repeat((sent % 97) as usize);
            let kubernetes =
                r#"{"pod_name":"web-1","namespace_name":"shop","container_name":"nginx","host":"ip-10-0-1-17"}"#;
            writeln!(socket, r#"{{"n":{sent},"log":"{filler}","kubernetes":{kubernetes}}}"#).unwrap();
            sent += 1;
        }
        socket.flush().unwrap();
        let second = start.elapsed().as_secs();
        if samples.last().is_none_or(|(last, ..)| second >= last + 5) {
            server.set_faults(faults(second / 10));
            let sockets = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
            samples.push((second, status("VmRSS:") / 1024, status("Threads:"), sockets));
            let (_, rss, threads, descriptors) = samples.last().unwrap();
            let accepted = server.stats().records_accepted;
            eprintln!(
                "{second:4} s  sent {sent:9}  accepted {accepted:9}  RSS {rss:4} MB  threads {threads}  descriptors {descriptors}"
            );
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    server.set_faults(Faults::default());
    drop(socket);
    until("all records", Duration::from_secs(60), || server.stats().records_accepted >= sent);
    running.signal("TERM");
    assert!(running.wait(Duration::from_secs(60)).success());
    let (stats, log) = (server.stats(), running.log());
    let line = log.lines().rev().find(|line| line.contains("] ended: ")).unwrap();
    println!(
        "sent {sent}, unique {}, duplicates {}, requests {}\n{line}",
        stats.unique, stats.duplicates, stats.requests
    );
    assert_eq!((stats.unique, stats.duplicates), (sent, 0));
    // Memory is flat in the second half: compare its two quarters.
    let half = samples.len() / 2;
    let mean = |part: &[(u64, u64, u64, usize)]| part.iter().map(|sample| sample.1).sum::<u64>() / part.len() as u64;
    let (third, fourth) = samples[half..].split_at(half / 2);
    let (third, fourth) = (mean(third), mean(fourth));
    println!("RSS in the third quarter {third} MB, in the fourth {fourth} MB");
    assert!(fourth <= third + third / 10, "RSS grows: {third} MB, then {fourth} MB");
    let threads: Vec<u64> = samples[half..].iter().map(|sample| sample.2).collect();
    assert!(threads.iter().max() == threads.iter().min(), "threads: {threads:?}");
    // Connections come and go with the number of calls in flight; their maximum does not grow.
    let most = |part: &[(u64, u64, u64, usize)]| part.iter().map(|sample| sample.3).max().unwrap();
    let (third, fourth) = samples[half..].split_at(half / 2);
    let (third, fourth) = (most(third), most(fourth));
    assert!(fourth <= third + 4, "descriptors grow: {third}, then {fourth}");
}
