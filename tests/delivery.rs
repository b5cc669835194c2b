//! The delivery contract under faults: no event lost, none repeated, with the host's defaults (`Retry_Limit` 1).
//!
//! Lines with `kubehose-matrix` in the output are rows of a table; `make faults` prints it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

mod host;

use host::*;
use kubehose_local::firehose::{AccessKey, Down, Faults, Options, RecordError, Server};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

const EVENTS: usize = 20_000;

/// One row of the table: the faults, and more options of the output.
struct Row<'r> {
    name: &'r str,
    faults: Faults,
    options: &'r [(&'r str, &'r str)],
}

fn row(name: &str, faults: Faults) -> Row<'_> {
    Row { name, faults, options: &[] }
}

/// Runs a row with Workers 0 and 1, where each event must arrive exactly once; returns the log of the last run.
fn each_once(row: Row<'_>) -> String {
    let mut last = String::new();
    for workers in ["0", "1"] {
        let server = Server::start(Options { faults: row.faults.clone(), ..firehose_options(true) }).unwrap();
        // Long enough for all records in flight: this tests delivery, not a fast exit.
        let options = [&[("Workers", workers), ("shutdown_timeout", "2m")], row.options].concat();
        let log = Scene::new().events(EVENTS).output(&server, &options).run();
        let arrived = arrivals(&server);
        let repeated: usize = arrived.values().map(|times| times - 1).sum();
        println!(
            "kubehose-matrix | {} | {workers} | {} | {repeated} | {} | {} |",
            row.name,
            arrived.len(),
            ended(&log, "resent"),
            server.stats().requests
        );
        assert_each_once(&server, EVENTS, &log);
        assert_eq!(ended(&log, "accepted"), EVENTS as u64);
        assert_eq!((ended(&log, "dead_lettered"), ended(&log, "held")), (0, 0));
        last = log;
    }
    last
}

#[test]
fn every_thousandth_record_fails() {
    let log = each_once(row("every 1000th record fails", Faults { fail_every_record: 1000, ..Faults::default() }));
    assert!(ended(&log, "resent") >= 20);
}

#[test]
fn every_seventh_record_fails() {
    each_once(row("every 7th record fails", Faults { fail_every_record: 7, ..Faults::default() }));
    each_once(row(
        "every 7th record fails (InternalFailure)",
        Faults { fail_every_record: 7, record_error: RecordError::InternalFailure, ..Faults::default() },
    ));
}

#[test]
fn every_tenth_request_is_a_500() {
    each_once(row("every 10th request 500", Faults { fail_every_request: 10, ..Faults::default() }));
}

#[test]
fn the_first_twenty_requests_are_refused() {
    each_once(row("first 20 requests 503", Faults { fail_first_requests: 20, ..Faults::default() }));
}

#[test]
fn down_for_a_minute_in_the_middle() {
    each_once(row(
        "down for 60 s in the middle",
        Faults { down: Down::Refuse, down_after_ms: 60, down_for_ms: 60_000, ..Faults::default() },
    ));
}

#[test]
fn a_quota_of_5000_records_a_second() {
    let quota = Faults { quota_records_per_second: 5000, ..Faults::default() };
    let log = each_once(row("quota 5,000 records/s", quota.clone()));
    assert!(ended(&log, "throttled") > 0);
    // With this option it stays under the quota.
    let told = [("records_per_second", "4900")];
    let log = each_once(Row { name: "the same, records_per_second 4900", faults: quota, options: &told });
    assert_eq!(ended(&log, "resent"), 0);
}

#[test]
fn replies_after_a_second_and_a_half() {
    each_once(row("replies after 1.5 s", Faults { latency_ms: 1500, ..Faults::default() }));
}

#[test]
fn calls_without_a_reply_for_forty_seconds_time_out_and_are_retried() {
    // Two requests of the run stall for longer than request_timeout (30 s).
    each_once(row("replies after 40 s", Faults { stall_every: 20, stall_ms: 40_000, ..Faults::default() }));
}

#[test]
fn connections_refused_or_reset_before_the_request_is_read() {
    each_once(row("connection refused for 5 s", Faults { down: Down::Refuse, down_for_ms: 5000, ..Faults::default() }));
    each_once(row("connection reset for 5 s", Faults { down: Down::Reset, down_for_ms: 5000, ..Faults::default() }));
    each_once(row("every 5th request reset unread", Faults { cut_before_every: 5, ..Faults::default() }));
}

#[test]
fn repeats_after_connections_cut_late_are_counted() {
    let faults = Faults { cut_after_every: 10, ..Faults::default() };
    let server = Server::start(Options { faults, ..firehose_options(true) }).unwrap();
    let log = Scene::new().events(EVENTS).output(&server, &[("Workers", "1"), ("shutdown_timeout", "2m")]).run();
    let arrived = arrivals(&server);
    let repeated: usize = arrived.values().map(|times| times - 1).sum();
    let cut = server.stats().records_accepted_then_cut;
    let told = ended(&log, "possibly_duplicate");
    println!(
        "kubehose-matrix | every 10th connection cut after accepting | 1 | {} | {repeated} | {told} | {} |",
        arrived.len(),
        server.stats().requests
    );
    assert_eq!(arrived.len(), EVENTS);
    assert!(repeated > 0 && repeated as u64 <= cut, "{repeated} repeated, {cut} records in cut requests\n{log}");
    assert!(told >= repeated as u64, "{told} possibly_duplicate, {repeated} repeated\n{log}");
}

#[test]
fn credentials_that_come_late() {
    let server = firehose(true);
    let scene = Scene::new();
    let file = scene.path("credentials");
    let mut running = scene
        .without_credentials()
        .environment("AWS_SHARED_CREDENTIALS_FILE", &file.display().to_string())
        .tail(EVENTS, &[])
        .output(&server, &[("shutdown_timeout", "1m")])
        .start();
    until("log line with the error", Duration::from_secs(30), || running.log().contains("cannot deliver"));
    let log = running.log();
    assert!(log.contains("AWS_ACCESS_KEY_ID") && !log.contains(SECRET), "{log}");
    fs::write(&file, format!("[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")).unwrap();
    until("20,000 records", Duration::from_secs(90), || server.stats().records_accepted >= EVENTS as u64);
    running.signal("TERM");
    assert!(running.wait(Duration::from_secs(60)).success());
    let log = running.log();
    assert!(log.contains("records are accepted again after"), "{log}");
    assert_each_once(&server, EVENTS, &log);
    println!(
        "kubehose-matrix | credentials that come late | 0 | {EVENTS} | 0 | {} | {} |",
        ended(&log, "resent"),
        server.stats().requests
    );
}

#[test]
fn credentials_that_expire_and_are_rotated() {
    let first = AccessKey { expires: Some(SystemTime::now() + Duration::from_secs(4)), ..AccessKey::new(KEY, SECRET) };
    let second = AccessKey::new("AKIDROTATED", "another-secret");
    let faults = Faults { latency_ms: 500, ..Faults::default() };
    let server = Server::start(Options { access_keys: vec![first, second], faults, ..firehose_options(true) }).unwrap();
    let scene = Scene::new();
    let file = scene.path("credentials");
    let write = |key: &str, secret: &str| {
        fs::write(&file, format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")).unwrap();
    };
    write(KEY, SECRET);
    let mut running = scene
        .without_credentials()
        .environment("AWS_SHARED_CREDENTIALS_FILE", &file.display().to_string())
        .tail(EVENTS, &[])
        .output(&server, &[("concurrency", "1"), ("shutdown_timeout", "1m")])
        .start();
    until("log line with the error", Duration::from_secs(30), || {
        running.log().contains("cannot deliver: ExpiredToken")
    });
    write("AKIDROTATED", "another-secret");
    until("20,000 records", Duration::from_secs(120), || server.stats().records_accepted >= EVENTS as u64);
    running.signal("TERM");
    assert!(running.wait(Duration::from_secs(60)).success());
    let arrived = arrivals(&server);
    assert!(arrived.len() == EVENTS && arrived.values().all(|times| *times == 1), "{}", running.log());
    println!(
        "kubehose-matrix | credentials expire, rotated | 0 | {EVENTS} | 0 | {} | {} |",
        ended(&running.log(), "resent"),
        server.stats().requests
    );
}

#[test]
fn only_the_poison_record_is_dead_lettered() {
    // One record in 10,000 contains this number.
    let faults = Faults { poison: "line 7777 ".to_owned(), ..Faults::default() };
    let server = Server::start(Options { faults, ..firehose_options(true) }).unwrap();
    let scene = Scene::new();
    let letters = scene.path("dead.ndjson").display().to_string();
    let running = scene.events(10_000).output(&server, &[("dead_letter_file", &letters), ("shutdown_timeout", "2m")]);
    let folder = running.start();
    let mut running = folder;
    assert!(running.wait(Duration::from_secs(120)).success());
    let log = running.log();
    let arrived = arrivals(&server);
    assert_eq!(arrived.len(), 9_999, "{log}");
    assert!(!arrived.contains_key(&7777) && arrived.values().all(|times| *times == 1));
    let file = letters;
    let letters = fs::read_to_string(&file).unwrap();
    let letter: serde_json::Value = serde_json::from_str(letters.trim()).unwrap();
    let record: serde_json::Value = serde_json::from_str(letter["data"].as_str().unwrap()).unwrap();
    assert_eq!(record, expected(7777));
    assert!(letter["reason"].as_str().unwrap().contains("Exception"), "{letter}");
    assert_eq!((letter["tag"].as_str(), letter["delivery_stream"].as_str()), (Some("kube.x"), Some(STREAM)));
    assert_eq!((ended(&log, "dead_lettered"), ended(&log, "dropped")), (1, 0));
    println!(
        "kubehose-matrix | one poison record in 10,000 | 0 | 9,999 and 1 dead-lettered | 0 | {} | {} |",
        ended(&log, "resent"),
        server.stats().requests
    );
}

#[test]
fn a_record_of_three_megabytes_is_truncated_and_no_other() {
    let server = firehose(true);
    let scene = Scene::new();
    let mut large = event(1_000_000);
    large["log"] = "y".repeat(3_000_000).into();
    scene.append(0..EVENTS / 2);
    scene.append_line(&large);
    scene.append(EVENTS / 2..EVENTS);
    let log = scene
        .tail(0, &[("Exit_On_Eof", "on"), ("Buffer_Max_Size", "8MB"), ("Buffer_Chunk_Size", "4MB")])
        .output(&server, &[("shutdown_timeout", "2m")])
        .run();
    let mut cut = None;
    let mut arrived = vec![0; EVENTS];
    for record in server.records() {
        let value: serde_json::Value = serde_json::from_slice(&record.data).unwrap();
        match value["n"].as_u64().unwrap() as usize {
            1_000_000 => cut = Some(value),
            n => arrived[n] += 1,
        }
    }
    assert!(arrived.iter().all(|times| *times == 1), "{log}");
    let cut = cut.expect("the large record is truncated");
    let missing = cut["kubehose_truncated"].as_u64().unwrap();
    assert_eq!(cut["log"].as_str().unwrap().len() as u64 + missing, 3_000_000);
    println!("kubehose-matrix | one record of 3 MB | 0 | 20,000 and 1 cut | 0 | 0 | {} |", server.stats().requests);
}

#[test]
fn a_full_disk_loses_dead_letters_and_nothing_else() {
    let faults = Faults { poison: "line 7777 ".to_owned(), ..Faults::default() };
    let server = Server::start(Options { faults, ..firehose_options(true) }).unwrap();
    // A separate file system, which is full before the first dead letter.
    let script =
        "d=$(mktemp -d) && mount -t tmpfs -o size=64k tmpfs $d && { cat /dev/zero >$d/fill 2>/dev/null; echo $d; }";
    let mounted = std::process::Command::new("sh").args(["-c", script]).output().unwrap();
    let folder = String::from_utf8(mounted.stdout).unwrap().trim().to_owned();
    if folder.is_empty() {
        eprintln!("not run, because mounting is not allowed: dead letters on a full disk");
        return;
    }
    let file = format!("{folder}/letters");
    let log =
        Scene::new().events(10_000).output(&server, &[("dead_letter_file", &file), ("shutdown_timeout", "2m")]).run();
    std::process::Command::new("umount").arg(&folder).status().unwrap();
    let arrived = arrivals(&server);
    assert!(arrived.len() == 9_999 && arrived.values().all(|times| *times == 1), "{log}");
    assert!(log.contains("No space left on device"), "{log}");
    assert_eq!((ended(&log, "dead_lettered"), ended(&log, "dropped")), (1, 1));
    println!(
        "kubehose-matrix | disk full for the dead letters | 0 | 9,999 and 1 lost, counted | 0 | {} | {} |",
        ended(&log, "resent"),
        server.stats().requests
    );
}

#[test]
fn chunks_refused_by_a_full_buffer_arrive_after_a_retry() {
    // The buffer holds a chunk or two; the others are answered RETRY, and are flushed again.
    let server =
        Server::start(Options { faults: Faults { latency_ms: 300, ..Faults::default() }, ..firehose_options(true) })
            .unwrap();
    let log = Scene::new()
        .service("Scheduler.Base", "1")
        .service("Scheduler.Cap", "2")
        .service("Grace", "60")
        .events(EVENTS)
        .output(
            &server,
            &[
                ("max_buffer", "4M"),
                ("flush_timeout", "300ms"),
                ("concurrency", "1"),
                ("Retry_Limit", "no_limits"),
                ("shutdown_timeout", "2m"),
            ],
        )
        .run();
    assert!(ended(&log, "chunks_refused") > 0, "{log}");
    assert_each_once(&server, EVENTS, &log);
    println!("kubehose-matrix | refused chunks come again | 0 | {EVENTS} | 0 | 0 | {} |", server.stats().requests);
}

/// One call at a time, and the host exits while nearly all chunks are still in the spool.
#[test]
fn chunks_waiting_in_the_spool_are_delivered_during_exit() {
    let server =
        Server::start(Options { faults: Faults { latency_ms: 100, ..Faults::default() }, ..firehose_options(true) })
            .unwrap();
    let scene = Scene::new();
    let spool = scene.path("spool");
    let folder = spool.display().to_string();
    let options = [("spool_dir", folder.as_str()), ("concurrency", "1"), ("shutdown_timeout", "2m")];
    let mut running = scene.events(EVENTS).output(&server, &options).start();
    assert!(running.wait(Duration::from_secs(120)).success());
    assert_each_once(&server, EVENTS, &running.log());
    assert_eq!(fs::read_dir(&spool).unwrap().count(), 1, "only the lock file remains");
}

#[test]
fn everything_arrives_when_acknowledged_as_buffered_or_spooled() {
    for workers in ["0", "4"] {
        let faults = || Faults { fail_every_record: 100, fail_every_request: 10, latency_ms: 20, ..Faults::default() };
        let server = Server::start(Options { faults: faults(), ..firehose_options(true) }).unwrap();
        let options = [("Workers", workers), ("acknowledge", "buffered"), ("shutdown_timeout", "2m")];
        let log = Scene::new().events(EVENTS).output(&server, &options).run();
        assert_each_once(&server, EVENTS, &log);

        let server = Server::start(Options { faults: faults(), ..firehose_options(true) }).unwrap();
        let scene = Scene::new();
        let spool = scene.path("spool");
        let folder = spool.display().to_string();
        let options = [("Workers", workers), ("spool_dir", folder.as_str()), ("shutdown_timeout", "2m")];
        let mut running = scene.events(EVENTS).output(&server, &options).start();
        assert!(running.wait(Duration::from_secs(120)).success());
        assert_each_once(&server, EVENTS, &running.log());
        assert_eq!(fs::read_dir(&spool).unwrap().count(), 1, "only the lock file remains");
    }
}

/// One file, and therefore one tag and one chunk, for each container.
const CONTAINERS: usize = 60;
const LINES: usize = 40;

fn containers(scene: Scene) -> Scene {
    files(scene, CONTAINERS, LINES)
}

/// So many files of so many events each, with a tag of its own: a chunk for each.
fn files(scene: Scene, files: usize, lines_of_each: usize) -> Scene {
    for file in 0..files {
        let lines = (0..lines_of_each).map(|line| format!("{}\n", event(file * lines_of_each + line)));
        fs::write(scene.path(&format!("container-{file:03}.log")), lines.collect::<String>()).unwrap();
    }
    let files = scene.path("container-*.log").display().to_string();
    let pairs =
        [("Name", "tail"), ("Path", files.as_str()), ("Tag", "kube.*"), ("Read_from_Head", "on"), ("Parser", "json")];
    scene.section("INPUT", &pairs)
}

/// Chunks of five events each: with one worker they come one at a time.
fn small_chunks(scene: Scene) -> Scene {
    files(scene, SMALL_CHUNKS, SMALL)
}

const SMALL: usize = 5;
const SMALL_CHUNKS: usize = 400;

/// How often the output's own thread has gone to sleep.
fn sleeps_of_the_thread(process: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let sleeps = tasks.flatten().filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let status = fs::read_to_string(task.path().join("status")).ok().filter(|_| name.trim() == "kubehose")?;
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        sleeps.trim().parse::<u64>().ok()
    });
    sleeps.sum()
}

#[test]
fn small_chunks_that_come_one_at_a_time_arrive_once_whatever_fails() {
    let none = Faults::default;
    for (name, faults) in [
        ("no fault", none()),
        ("every 7th record", Faults { fail_every_record: 7, ..none() }),
        ("every 50th request 500", Faults { fail_every_request: 50, ..none() }),
        ("replies after 30 ms", Faults { latency_ms: 30, ..none() }),
        ("down for 3 s", Faults { latency_ms: 5, down: Down::Refuse, down_after_ms: 700, down_for_ms: 3000, ..none() }),
    ] {
        let quiet = name == "no fault";
        for workers in ["0", "1"] {
            let server = Server::start(Options { faults: faults.clone(), ..firehose_options(true) }).unwrap();
            let options = [("Workers", workers), ("shutdown_timeout", "2m"), ("Retry_Limit", "no_limits")];
            let scene = small_chunks(Scene::new()).service("Scheduler.Base", "1").service("Scheduler.Cap", "2");
            let mut running = scene.output(&server, &options).start();
            until(name, Duration::from_secs(120), || arrivals(&server).len() == SMALL_CHUNKS * SMALL);
            let sleeps = sleeps_of_the_thread(running.child.id());
            running.signal("TERM");
            assert!(running.wait(Duration::from_secs(60)).success());
            assert_each_once(&server, SMALL_CHUNKS * SMALL, &running.log());
            let requests = server.stats().requests;
            assert!(
                !name.starts_with("down") || running.log().contains("PutRecordBatch failed"),
                "the fault did not fire"
            );
            println!("{name}, Workers {workers}: {requests} calls, the thread slept {sleeps} times");
            // The thread would sleep twice for each: until the chunk comes, and until the reply does.
            assert!(!quiet || (requests as usize > SMALL_CHUNKS / 2 && sleeps < requests), "{sleeps}, {requests}");
        }
    }
}

#[test]
fn sigterm_while_flushes_run_the_tasks_and_the_endpoint_is_gone() {
    for workers in ["0", "1"] {
        for down in [Down::Refuse, Down::Reset] {
            let faults = Faults { latency_ms: 5, down, down_after_ms: 700, down_for_ms: 600_000, ..Faults::default() };
            let server = Server::start(Options { faults, ..firehose_options(true) }).unwrap();
            let options = [("Workers", workers), ("shutdown_timeout", "2s")];
            let mut running = small_chunks(Scene::new()).output(&server, &options).start();
            std::thread::sleep(Duration::from_secs(2));
            running.signal("TERM");
            assert!(running.wait(Duration::from_secs(20)).success());
            let log = running.log();
            assert!(log.contains("] ended: "), "{log}");
            let arrived = arrivals(&server);
            assert!(arrived.len() < SMALL_CHUNKS * SMALL, "the fault did not fire");
            assert!(arrived.values().all(|times| *times == 1), "{log}");
            assert_eq!(ended(&log, "accepted"), arrived.len() as u64, "{log}");
        }
    }
}

#[test]
fn joined_records_of_several_flushes_share_calls() {
    let calls = |aggregation| {
        let server = Server::start(firehose_options(false)).unwrap();
        let scene = Scene::new().service("Flush", "0.2");
        let input = [("Name", "dummy"), ("Tag", "kube.a"), ("Rate", "50"), ("Samples", "200")];
        let options = [("acknowledge", "buffered"), ("simple_aggregation", aggregation)];
        let mut running = scene.section("INPUT", &input).output(&server, &options).start();
        std::thread::sleep(Duration::from_secs(6));
        running.signal("TERM");
        assert!(running.wait(Duration::from_secs(20)).success());
        server.stats().requests
    };
    let (apart, joined) = (calls("off"), calls("on"));
    println!("{apart} calls, {joined} if joined");
    assert!(apart > 10 && 3 * joined <= 2 * apart, "{apart} calls, {joined} if joined");
}

#[test]
fn chunks_share_calls() {
    const POISON: usize = 777;
    let spool = ("spool_dir", "FOLDER");
    // Either no flush waits for its delivery, or eight wait at once.
    for how in [("acknowledge", "buffered"), spool, ("Workers", "8")] {
        let poison = format!("line {POISON} ");
        let faults = Faults { fail_every_record: 9, fail_every_request: 7, poison, ..Faults::default() };
        let server = Server::start(Options { faults, ..firehose_options(true) }).unwrap();
        let scene = Scene::new();
        let letters = scene.path("dead.ndjson");
        let (file, folder) = (letters.display().to_string(), scene.path("spool").display().to_string());
        let how = if how == spool { (how.0, folder.as_str()) } else { how };
        let options = [("dead_letter_file", file.as_str()), ("shutdown_timeout", "2m"), how];
        let mut running = containers(scene).output(&server, &options).start();
        let all = (CONTAINERS * LINES - 1) as u64;
        until("records", Duration::from_secs(60), || server.stats().records_accepted >= all && letters.exists());
        running.signal("TERM");
        assert!(running.wait(Duration::from_secs(60)).success());
        let log = running.log();
        let arrived = arrivals(&server);
        assert_eq!(arrived.len() as u64, all, "{log}");
        assert!(!arrived.contains_key(&POISON) && arrived.values().all(|times| *times == 1), "{log}");
        // Without resends five calls are enough. With Workers, flushes that wait for a resend end one by one.
        let requests = server.stats().requests;
        assert!(how.0 == "Workers" || requests < CONTAINERS as u64, "{requests} calls for {CONTAINERS} chunks\n{log}");
        let letter: serde_json::Value = serde_json::from_str(fs::read_to_string(&letters).unwrap().trim()).unwrap();
        let tag = letter["tag"].as_str().unwrap();
        assert!(tag.ends_with(&format!("container-{:03}.log", POISON / LINES)), "{tag}");
        assert_eq!((ended(&log, "dead_lettered"), ended(&log, "accepted")), (1, all), "{log}");
    }
}

#[test]
fn chunks_whose_flushes_wait_at_the_same_time_share_calls() {
    let faults = Faults { latency_ms: 50, ..Faults::default() };
    let server = Server::start(Options { faults, ..firehose_options(true) }).unwrap();
    let options = [("Workers", "8"), ("shutdown_timeout", "2m")];
    let mut running = containers(Scene::new()).output(&server, &options).start();
    until("records", Duration::from_secs(60), || arrivals(&server).len() == CONTAINERS * LINES);
    running.signal("TERM");
    assert!(running.wait(Duration::from_secs(60)).success());
    assert!(arrivals(&server).values().all(|times| *times == 1));
    // Usually a third to half of the chunks; more where the workers are slow. One call for each chunk would make at
    // least as many calls as chunks.
    let requests = server.stats().requests as usize;
    assert!(requests < CONTAINERS, "{requests} calls");
}

/// The number of events in a spool's chunks, counted by the start of their lines.
fn events_in(spool: &Path) -> usize {
    let files = fs::read_dir(spool).into_iter().flatten().map(|file| file.unwrap().path());
    let chunks = files.filter(|file| file.extension().is_some_and(|kind| kind == "chunk"));
    let lines = |chunk: &[u8]| chunk.windows(5).filter(|bytes| *bytes == b"line ").count();
    chunks.map(|chunk| lines(&fs::read(chunk).unwrap_or_default())).sum()
}

#[test]
fn after_a_crash_only_unsettled_events_of_chunks_that_share_calls_are_repeated() {
    let faults = Faults { fail_every_request: 1, ..Faults::default() };
    let server = Server::start(Options { faults, ..firehose_options(true) }).unwrap();
    let scene = Scene::new();
    let folder = scene.path("spool");
    let spool = folder.display().to_string();
    let options = [("spool_dir", spool.as_str()), ("concurrency", "1"), ("shutdown_timeout", "2m")];
    let running = containers(scene).output(&server, &options).start();
    // Wait for the host to pass on everything, however slowly it reads: the spool can only recover what reached the
    // plugin.
    until("all in the spool", Duration::from_secs(60), || events_in(&folder) == CONTAINERS * LINES);
    server.set_faults(Faults { latency_ms: 300, fail_every_record: 9, ..Faults::default() });
    until("two calls", Duration::from_secs(60), || server.stats().records_accepted > 800);
    let killed = running.kill();
    let before = server.stats().records_accepted;
    assert!(before < (CONTAINERS * LINES) as u64, "all records were delivered before the kill");
    // All remaining events are in the spool: this host reads no files.
    let options = [("spool_dir", spool.as_str()), ("shutdown_timeout", "2m")];
    let mut running = Scene::new().tail(0, &[]).output(&server, &options).start();
    until("the rest", Duration::from_secs(60), || arrivals(&server).len() == CONTAINERS * LINES);
    running.signal("TERM");
    assert!(running.wait(Duration::from_secs(60)).success());
    let repeated = arrivals(&server).values().filter(|times| **times > 1).count();
    assert!(repeated <= 500, "{repeated} records were repeated, and one call of at most 500 was in flight");
    assert_eq!(fs::read_dir(&spool).unwrap().count(), 1, "only the lock file remains");
    drop(killed);
}
