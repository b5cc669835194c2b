//! `kill -9`, restarts, and the spool: everything that the host or the spool stores arrives.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

mod host;

use host::*;
use kubehose_local::firehose::{Faults, Options, Server};
use std::fs;
use std::time::Duration;

const EVENTS: usize = 20_000;
const KILLS: usize = 20;

/// Kills the host `KILLS` times while records flow, then lets it run to the end. Returns how many events arrived, and
/// how many repeats.
fn killed_again_and_again(server: &Server, options: &[(&str, &str)], service: &[(&str, &str)]) -> (usize, usize) {
    let mut scene = Scene::new().service("Flush", "0.2");
    for (key, value) in service {
        let value = value.replace("FOLDER", &scene.folder.path().display().to_string());
        scene = scene.service(key, &value);
    }
    let folder = scene.folder.path().display().to_string();
    let options: Vec<(&str, String)> =
        options.iter().map(|(key, value)| (*key, value.replace("FOLDER", &folder))).collect();
    let options: Vec<(&str, &str)> = options.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let db = scene.path("tail.db").display().to_string();
    let storage = if service.is_empty() { "memory" } else { "filesystem" };
    let mut scene = scene
        .tail(0, &[("DB", &db), ("DB.sync", "full"), ("Refresh_Interval", "1"), ("storage.type", storage)])
        .output(server, &options);
    for kill in 0..KILLS {
        let next = EVENTS / KILLS * kill;
        scene.append(next..next + EVENTS / KILLS);
        let before = server.stats().records_accepted;
        let running = scene.start();
        // Kill at a different moment of the flow each time.
        until("record", Duration::from_secs(30), || server.stats().records_accepted > before);
        std::thread::sleep(Duration::from_millis(13 * kill as u64 % 61));
        scene = running.kill();
    }
    let mut running = scene.start();
    let all = || arrivals(server).len() == EVENTS;
    until("all records", Duration::from_secs(60), all);
    running.signal("TERM");
    assert!(running.wait(Duration::from_secs(60)).success());
    let arrived = arrivals(server);
    (arrived.len(), arrived.values().map(|times| times - 1).sum())
}

fn slow_server() -> Server {
    Server::start(Options { faults: Faults { latency_ms: 60, ..Faults::default() }, ..firehose_options(true) }).unwrap()
}

#[test]
fn killed_with_the_hosts_own_storage_nothing_is_lost() {
    if !real_or_skip("kill -9 with storage.type filesystem") {
        return;
    }
    let server = slow_server();
    let storage = [("storage.path", "FOLDER/storage"), ("storage.sync", "full")];
    let (unique, repeated) = killed_again_and_again(&server, &[("Workers", "1"), ("concurrency", "1")], &storage);
    println!("kubehose-matrix | kill -9, 20 times, storage.type filesystem | 1 | {unique} | {repeated} | | |");
    assert_eq!(unique, EVENTS);
    // At each kill the chunk of the waiting flush and those answered RETRY may repeat: one chunk here.
    assert!(repeated <= KILLS * EVENTS / KILLS, "{repeated} repeated");
}

#[test]
fn killed_with_a_spool_nothing_is_lost_that_was_acknowledged() {
    if !real_or_skip("kill -9 with spool_dir") {
        return;
    }
    let server = slow_server();
    let storage = [("storage.path", "FOLDER/storage"), ("storage.sync", "full")];
    let options = [("spool_dir", "FOLDER/spool"), ("concurrency", "1")];
    let (unique, repeated) = killed_again_and_again(&server, &options, &storage);
    println!("kubehose-matrix | kill -9, 20 times, spool_dir | 0 | {unique} | {repeated} | | |");
    assert_eq!(unique, EVENTS);
    // One call at a time is in flight, so each kill can lose at most one reply: 500 records.
    assert!(repeated <= KILLS * 500, "{repeated} repeated");
}

#[test]
fn the_spool_is_delivered_at_the_next_start() {
    // The endpoint is down, and the spool stores everything; the next process delivers each event exactly once.
    let server = firehose(true);
    let scene = Scene::new();
    let spool = scene.path("spool").display().to_string();
    let dead = [("endpoint", "http://127.0.0.1:1"), ("spool_dir", spool.as_str()), ("shutdown_timeout", "100ms")];
    let mut running = scene.events(EVENTS).output(&server, &dead).start();
    assert!(running.wait(Duration::from_secs(60)).success());
    let log = running.log();
    assert!(log.contains("stay in spool_dir for the next start"), "{log}");
    assert_eq!((ended(&log, "accepted"), ended(&log, "dead_lettered")), (0, 0));
    let again = Scene::new().tail(0, &[]).output(&server, &[("spool_dir", spool.as_str())]);
    let mut second = again.start();
    until("20,000 records", Duration::from_secs(60), || server.stats().records_accepted >= EVENTS as u64);
    second.signal("TERM");
    assert!(second.wait(Duration::from_secs(30)).success());
    assert_each_once(&server, EVENTS, &second.log());
    assert_eq!(fs::read_dir(&spool).unwrap().count(), 1, "only the lock stays");
}

#[test]
fn a_spool_that_is_in_use_or_unusable_stops_the_start_and_names_the_fix() {
    let server = firehose(false);
    let scene = Scene::new();
    let spool = scene.path("spool").display().to_string();
    let _first = scene.tail(0, &[]).output(&server, &[("spool_dir", &spool)]).start();
    until("the spool's lock", Duration::from_secs(10), || fs::exists(format!("{spool}/lock")).unwrap());
    std::thread::sleep(Duration::from_millis(200));
    for (folder, words) in [(spool.as_str(), "in use by another process"), ("/proc/no/such", "cannot be used")] {
        let mut second = Scene::new().events(1).output(&server, &[("spool_dir", folder)]).start();
        assert!(!second.wait(Duration::from_secs(20)).success());
        let log = second.log();
        assert!(log.contains(words) && log.contains(folder), "{log}");
    }
}

#[test]
fn a_full_spool_falls_back_to_delivery() {
    let server = slow_server();
    let scene = Scene::new();
    let spool = scene.path("spool").display().to_string();
    let options = [("spool_dir", spool.as_str()), ("spool_limit", "3M"), ("shutdown_timeout", "1m"), ("Workers", "1")];
    let mut running = scene.service("Grace", "30").events(EVENTS).output(&server, &options).start();
    assert!(running.wait(Duration::from_secs(90)).success());
    assert_each_once(&server, EVENTS, &running.log());
}

#[test]
fn a_disk_that_is_full_falls_back_to_delivery() {
    // A file system of 4 MB.
    let mounted = std::process::Command::new("sh")
        .args(["-c", "d=$(mktemp -d) && mount -t tmpfs -o size=4m tmpfs $d && echo $d"])
        .output()
        .unwrap();
    let folder = String::from_utf8(mounted.stdout).unwrap().trim().to_owned();
    if folder.is_empty() {
        eprintln!("not run, because mounting is not allowed: the spool on a full disk");
        return;
    }
    let server = slow_server();
    let options = [("spool_dir", folder.as_str()), ("shutdown_timeout", "1m"), ("Workers", "1"), ("concurrency", "1")];
    let mut running = Scene::new().service("Grace", "30").events(EVENTS).output(&server, &options).start();
    assert!(running.wait(Duration::from_secs(90)).success());
    let log = running.log();
    let left = fs::read_dir(&folder).unwrap().count();
    std::process::Command::new("umount").arg(&folder).status().unwrap();
    assert!(log.contains("No space left on device"), "{log}");
    assert_each_once(&server, EVENTS, &log);
    assert_eq!(left, 1, "only the lock stays");
}
