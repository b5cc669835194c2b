//! The plugin in its host: the main task, the host's calls, exits and reloads.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

mod host;

use host::*;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

const EVENTS: usize = 20_000;

#[test]
fn twenty_thousand_events_arrive_once_and_unchanged_except_for_the_four_names() {
    for tls in [true, false] {
        for workers in ["0", "1", "4"] {
            let server = firehose(tls);
            let log = Scene::new().events(EVENTS).output(&server, &[("Workers", workers)]).run();
            assert_each_once(&server, EVENTS, &log);
            assert_eq!(ended(&log, "events"), EVENTS as u64);
            assert_eq!(ended(&log, "accepted"), EVENTS as u64);
        }
    }
}

#[test]
fn two_outputs_each_deliver_everything() {
    let (one, two) = (firehose(true), firehose(false));
    let log = Scene::new()
        .events(EVENTS)
        .output(&one, &[("Workers", "1")])
        .output(&two, &[("Workers", "2"), ("alias", "second")])
        .run();
    assert_each_once(&one, EVENTS, &log);
    assert_each_once(&two, EVENTS, &log);
    // Log lines carry the output's name, or its alias.
    assert!(log.contains("[output:kubehose:kubehose.0] kubehose "), "{log}");
    assert!(log.contains("[output:kubehose:second] ended: "), "{log}");
}

#[test]
fn a_dry_run_initialises_nothing_and_exits_successfully() {
    let server = firehose(false);
    let log = Scene::new().events(10).output(&server, &[]).argument("-D").run();
    assert!(!log.contains("ended:"), "{log}");
    assert_eq!(server.stats().requests, 0);
}

#[test]
fn a_wrong_option_stops_the_host_with_a_line_that_names_it() {
    let server = firehose(false);
    let mut running = Scene::new().events(10).output(&server, &[("concurrency", "lots")]).start();
    let status = running.wait(Duration::from_secs(30));
    let log = running.log();
    assert!(!status.success());
    assert!(
        log.contains("option 'concurrency': 'lots' is not accepted; accepted: auto, or a whole number from 1 to 128"),
        "{log}"
    );
}

#[test]
fn another_output_that_fails_to_start_ends_the_host_without_a_crash() {
    let server = firehose(false);
    let mut running = Scene::new()
        .events(10)
        .output(&server, &[])
        .output(&server, &[("region", "nowhere")])
        .output(&server, &[])
        .start();
    let status = running.wait(Duration::from_secs(30));
    assert!(!status.success() && status.code().is_some(), "{status}: a signal, not an exit\n{}", running.log());
}

#[test]
fn the_log_level_of_the_output_is_obeyed() {
    let server = firehose(false);
    let log = Scene::new().events(10).output(&server, &[("log_level", "error")]).run();
    assert!(!log.contains("[output:kubehose"), "{log}");
}

#[test]
fn sigterm_while_events_flow_loses_nothing_that_was_read() {
    for workers in ["0", "1"] {
        let server = firehose(true);
        let scene = Scene::new()
            .service("Grace", "10")
            .tail(200_000, &[("Mem_Buf_Limit", "10MB")])
            .output(&server, &[("Workers", workers)]);
        let mut running = scene.start();
        until("record", Duration::from_secs(30), || server.stats().records_accepted > 2000);
        running.signal("TERM");
        let status = running.wait(Duration::from_secs(60));
        let log = running.log();
        assert!(status.success(), "{status}\n{log}");
        // The host read the file from its start: the records must have no gaps.
        let arrived = arrivals(&server).len();
        assert!(arrived > 2000);
        assert_each_once(&server, arrived, &log);
        assert_eq!(ended(&log, "accepted"), arrived as u64);
    }
}

#[test]
fn in_daemon_mode_the_log_goes_where_the_hosts_log_goes() {
    if !real_or_skip("daemon mode") {
        return;
    }
    let server = firehose(true);
    let scene = Scene::new();
    let log_file = scene.path("daemon.log");
    let mut running = scene
        .service("Daemon", "on")
        .service("Log_File", &log_file.display().to_string())
        .tail(EVENTS, &[])
        .output(&server, &[])
        .start();
    let status = running.wait(Duration::from_secs(20));
    assert!(status.success(), "{status}\n{}", running.log());
    until("20,000 records", Duration::from_secs(60), || server.stats().records_accepted >= EVENTS as u64);
    let text = || fs::read_to_string(&log_file).unwrap_or_default();
    // The PID is in the daemon's log: "pid=…" before the fork, and this line after it.
    let told = running.log();
    let pid = told.rsplit_once("(PID=").and_then(|(_, rest)| rest.split_once(')')).map(|(pid, _)| pid.parse().unwrap());
    signal(pid.unwrap_or_else(|| panic!("no PID\n{told}")), "TERM");
    until("end of the daemon", Duration::from_secs(30), || text().contains("] ended: "));
    assert_each_once(&server, EVENTS, &text());
    assert_eq!(ended(&text(), "accepted"), EVENTS as u64);
}

#[test]
fn a_hundred_hot_reloads_neither_lose_nor_leak() {
    if !since_or_skip((2, 1, 0), "hot reload") {
        return;
    }
    const RELOADS: usize = 100;
    let server = firehose(true);
    let port = free_port();
    // Not tail: it needs its database to continue at the right position, and not every Fluent Bit is built with
    // SQLite.
    let input = [("Name", "http"), ("Listen", "127.0.0.1"), ("Port", port.as_str())];
    let scene = Scene::new()
        .service("Hot_Reload", "on")
        .service("Flush", "0.1")
        .section("INPUT", &input)
        // Without Workers: the host starts a proxy plugin's workers twice and ends them once, and after a reload
        // crashes in a left-over thread (flb_upstream_conn_timeouts), whatever the plugin.
        .output(&server, &[]);
    let mut running = scene.start();
    let pid = running.child.id();
    let status = |key: &str| -> u64 {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    until("start", Duration::from_secs(10), || running.log().contains("stream processor started"));
    // Before 4.0 the host does not log that a reload is done; the start of the stream processor is its last line.
    let tells = version() >= (4, 0, 0);
    let reloads = |log: &str| match tells {
        true => log.matches("successful reload done").count(),
        false => log.matches("stream processor started").count() - 1,
    };
    let mut early = (0, 0);
    for reload in 1..=RELOADS {
        let next = EVENTS / RELOADS * (reload - 1);
        // The reply means that the host has the events, not yet that they are delivered.
        let body = serde_json::Value::from((next..next + EVENTS / RELOADS).map(event).collect::<Vec<_>>()).to_string();
        let head =
            format!("POST /kube.x HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        until("input", Duration::from_secs(10), || TcpStream::connect(format!("127.0.0.1:{port}")).is_ok());
        let reply = ask(&port, &head, &body);
        assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
        running.signal("HUP");
        until("reload", Duration::from_secs(30), || reloads(&running.log()) >= reload);
        if reload == 30 {
            early = (status("Threads:"), status("VmRSS:"));
        }
    }
    until("20,000 records", Duration::from_secs(60), || server.stats().records_accepted >= EVENTS as u64);
    let late = (status("Threads:"), status("VmRSS:"));
    running.signal("TERM");
    assert!(running.wait(Duration::from_secs(30)).success());
    let log = running.log();
    assert_each_once(&server, EVENTS, &log);
    assert_eq!(log.matches("] ended: ").count(), RELOADS + 1, "{log}");
    eprintln!("threads and RSS in KB after 30 reloads: {early:?}, after {RELOADS}: {late:?}");
    // The host itself leaves an idle worker behind at each reload; ours (one thread for each output) all end.
    assert!(
        late.0 <= early.0 + RELOADS as u64 - 30,
        "threads after 30 reloads and after all: {} and {}",
        early.0,
        late.0
    );
}

/// A few small chunks a second: nearly always nothing is under way, and the gauges say so.
#[test]
fn the_gauges_do_not_always_show_the_middle_of_a_flush() {
    if !since_or_skip((2, 0, 0), "metrics of plugins on the host's own endpoint") {
        return;
    }
    for workers in ["0", "1"] {
        let server = kubehose_local::firehose::Server::start(firehose_options(false)).unwrap();
        let port = free_port();
        let mut scene = Scene::new();
        for (name, value) in [("HTTP_Server", "on"), ("HTTP_Listen", "127.0.0.1"), ("HTTP_Port", &*port)] {
            scene = scene.service(name, value);
        }
        for tag in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            scene = scene.section("INPUT", &[("Name", "dummy"), ("Tag", &*format!("kube.{tag}")), ("Rate", "1")]);
        }
        let mut running = scene.output(&server, &[("Workers", workers), ("alias", "mine")]).start();
        until("records", Duration::from_secs(30), || server.stats().records_accepted >= 24);
        let zeros = |text: &str, name: &str| {
            let start = format!("kubehose_{name}{{name=\"mine\"");
            text.lines().any(|line| line.starts_with(&start) && line.ends_with(" 0"))
        };
        let mut at_rest = 0;
        for _ in 0..30 {
            std::thread::sleep(Duration::from_millis(100));
            let text = ask(&port, "GET /api/v2/metrics/prometheus HTTP/1.1\r\n", "");
            at_rest += usize::from(zeros(&text, "in_flight") && zeros(&text, "held_bytes"));
        }
        println!("Workers {workers}: {at_rest} of 30 at rest");
        assert!(at_rest > 10, "{at_rest} of 30 at rest");
        running.signal("TERM");
        assert!(running.wait(Duration::from_secs(20)).success());
    }
}

#[test]
fn the_hosts_own_metrics_endpoint_shows_the_counts() {
    if !since_or_skip((2, 0, 0), "metrics of plugins on the host's own endpoint") {
        return;
    }
    use kubehose_local::firehose::{Faults, Options, Server};
    let faults = Faults { fail_every_record: 100, fail_every_request: 10, ..Faults::default() };
    let server = Server::start(Options { faults, ..firehose_options(true) }).unwrap();
    let port = free_port();
    let mut running = Scene::new()
        .service("HTTP_Server", "on")
        .service("HTTP_Listen", "127.0.0.1")
        .service("HTTP_Port", &port)
        .tail(EVENTS, &[])
        .output(&server, &[("alias", "mine")])
        .start();
    until("20,000 records", Duration::from_secs(60), || server.stats().records_accepted >= EVENTS as u64);
    let scrape = || ask(&port, "GET /api/v2/metrics/prometheus HTTP/1.1\r\n", "");
    let number = |text: &str, name: &str| -> Option<f64> {
        let line = text.lines().find(|line| line.starts_with(&format!("kubehose_{name}{{name=\"mine\"")))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    // The host collects metrics at intervals.
    until("final counts", Duration::from_secs(30), || {
        number(&scrape(), "records_accepted_total") == Some(EVENTS as f64)
    });
    std::thread::sleep(Duration::from_millis(500));
    let (text, stats) = (scrape(), server.stats());
    for (name, expected) in [
        ("events_total", EVENTS as u64),
        ("records_accepted_total", stats.records_accepted),
        ("bytes_total", stats.bytes_accepted),
        ("billed_bytes_total", stats.bytes_billed),
        ("batches_total", stats.statuses[&200]),
        ("records_dead_lettered_total", 0),
        ("in_flight", 0),
        ("held_bytes", 0),
        ("held_bytes_limit", 64 << 20),
        ("put_record_batch_seconds_count", stats.requests),
        ("errors_total", 0),
    ] {
        assert_eq!(number(&text, name), Some(expected as f64), "{name}\n{text}");
    }
    let service =
        text.lines().find(|line| line.contains("errors_total") && line.contains("class=\"service\"")).unwrap();
    assert!(service.ends_with(&format!(" {}", stats.statuses[&500])), "{service}");
    // After a server error it is unknown whether the records were accepted.
    assert!(number(&text, "records_possibly_duplicate_total") > Some(0.0), "{text}");
    assert!(number(&text, "records_resent_total") > Some(0.0) && number(&text, "throttled_total") > Some(0.0));
    running.signal("TERM");
    assert!(running.wait(Duration::from_secs(30)).success());
    assert_each_once(&server, EVENTS, &running.log());
}

#[test]
fn with_a_template_failing_streams_are_counted_and_each_stream_is_summed_up_at_exit() {
    if !since_or_skip((2, 0, 0), "metrics of plugins on the host's own endpoint") {
        return;
    }
    use kubehose_local::firehose::{Options, Server};
    let streams = ["logs-a", "logs-b", "rest"].map(str::to_owned).to_vec();
    let server = Server::start(Options { streams, ..firehose_options(true) }).unwrap();
    let port = free_port();
    let scene = Scene::new()
        .service("Grace", "1")
        .service("HTTP_Server", "on")
        .service("HTTP_Listen", "127.0.0.1")
        .service("HTTP_Port", &port)
        .tail(0, &[])
        .output(
            &server,
            &[
                ("alias", "mine"),
                ("delivery_stream", "logs-$space"),
                ("default_delivery_stream", "rest"),
                ("Retry_Limit", "no_limits"),
                ("shutdown_timeout", "1s"),
            ],
        );
    for (space, count) in [("a", 30), ("missing", 10), ("b", 20), ("/", 5)] {
        (0..count).for_each(|n| scene.append_line(&serde_json::json!({"space": space, "n": n})));
    }
    let mut running = scene.start();
    until("all records but those of the missing stream", Duration::from_secs(60), || {
        server.stats().records_accepted == 55
    });
    until("the failing stream", Duration::from_secs(30), || {
        let text = ask(&port, "GET /api/v2/metrics/prometheus HTTP/1.1\r\n", "");
        text.lines().any(|line| line.starts_with("kubehose_streams_failing{name=\"mine\"") && line.ends_with(" 1"))
    });
    running.signal("TERM");
    assert!(running.wait(Duration::from_secs(30)).success());
    let log = running.log();
    for line in [
        "stream logs-a: accepted=30 not_accepted=0 dead_lettered=0",
        "stream logs-b: accepted=20 not_accepted=0 dead_lettered=0",
        "stream rest: accepted=5 not_accepted=0 dead_lettered=0",
        "stream logs-missing: accepted=0 not_accepted=",
    ] {
        assert_eq!(log.matches(line).count(), 1, "{line}\n{log}");
    }
    let stats = server.stats();
    assert!(stats.streams["logs-missing"].calls_refused > 0 && stats.streams["logs-a"].records_accepted == 30);
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// Returns the reply to a request. Not every release closes the connection when asked to, so this reads to the end of
/// the reply, or until no more data arrives.
fn ask(port: &str, head: &str, body: &str) -> String {
    let mut socket = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let request = format!("{head}Host: 127.0.0.1\r\nConnection: close\r\n\r\n{body}");
    socket.write_all(request.as_bytes()).unwrap();
    let (mut reply, mut part) = (Vec::new(), [0; 64 << 10]);
    while !whole(&reply) {
        match socket.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(read) => reply.extend_from_slice(&part[..read]),
        }
    }
    String::from_utf8_lossy(&reply).into_owned()
}

/// Whether a reply is complete: by its content-length, or by its last chunk.
fn whole(reply: &[u8]) -> bool {
    let text = String::from_utf8_lossy(reply).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    match length {
        Some(length) => body.len() >= length,
        None => head.contains("transfer-encoding: chunked") && body.ends_with("\r\n0\r\n\r\n"),
    }
}
