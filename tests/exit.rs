//! SIGTERM while the endpoint fails: in every mode the host exits in time, and all acknowledged events are accounted
//! for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

mod host;

use host::*;
use kubehose_local::firehose::{Down, Faults, Options, Server};
use std::fs;
use std::time::{Duration, Instant};

const EVENTS: usize = 8_000;
const GRACE: u64 = 2;
const SHUTDOWN: u64 = 3;

/// What is wrong with the endpoint.
#[derive(Clone, Copy, Debug)]
enum Endpoint {
    Refuses,
    Hangs,
    Throttles,
    /// The endpoint is healthy, but the credentials source never answers.
    NoCredentials,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Delivered,
    Buffered,
    Spool,
}

fn ends_in_time(endpoint: Endpoint, mode: Mode, workers: &str, outputs: usize) {
    let what = format!("{endpoint:?}, {mode:?}, Workers {workers}, {outputs} outputs");
    let faults = match endpoint {
        Endpoint::Refuses => Faults { down: Down::Refuse, ..Faults::default() },
        Endpoint::Hangs => Faults { stall_every: 1, stall_ms: 600_000, ..Faults::default() },
        Endpoint::Throttles => {
            Faults { fail_every_request: 1, request_error: "503".parse().unwrap(), ..Faults::default() }
        }
        Endpoint::NoCredentials => Faults::default(),
    };
    let server = Server::start(Options { faults, ..firehose_options(true) }).unwrap();
    let mut scene = Scene::new().service("Grace", &GRACE.to_string()).tail(EVENTS, &[]);
    // A credentials source that accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    if matches!(endpoint, Endpoint::NoCredentials) {
        let url = format!("http://{}", silent.local_addr().unwrap());
        scene = scene.without_credentials().environment("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url);
    }
    let shutdown = format!("{SHUTDOWN}s");
    let mut folders = Vec::new();
    for number in 0..outputs {
        let (letters, spool) = (scene.path(&format!("dead-{number}")), scene.path(&format!("spool-{number}")));
        let (letters_path, spool_path) = (letters.display().to_string(), spool.display().to_string());
        let mut options = vec![("Workers", workers), ("shutdown_timeout", shutdown.as_str())];
        options.push(("dead_letter_file", &letters_path));
        match mode {
            Mode::Delivered => {}
            Mode::Buffered => options.push(("acknowledge", "buffered")),
            Mode::Spool => options.push(("spool_dir", &spool_path)),
        }
        scene = scene.output(&server, &options);
        folders.push((letters, spool));
    }
    let mut running = scene.start();
    // Wait until chunks queue up: each mode has acknowledged or holds some, and in `delivered` more are queued behind
    // them.
    std::thread::sleep(Duration::from_secs(5));
    let since = Instant::now();
    running.signal("TERM");
    let status = running.wait(Duration::from_secs(GRACE + SHUTDOWN + 5));
    assert!(status.success(), "{what}: {status}\n{}", running.log());
    println!("{what}: ended {:.1} s after SIGTERM", since.elapsed().as_secs_f64());
    let log = running.log();
    assert_eq!(log.matches("] ended: ").count(), outputs, "{what}\n{log}");
    assert_eq!(server.stats().records_accepted, 0, "{what}: the fault did not fire");
    for (number, (letters, spool)) in folders.iter().enumerate() {
        // Only this output's counts: the `ended:` lines are in the order of the outputs.
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("] ended: ")).collect();
        let of = |name| ended(lines[number], name);
        let letters = fs::read_to_string(letters).unwrap_or_default().lines().count() as u64;
        assert_eq!((of("accepted"), of("dead_lettered"), of("dropped")), (0, letters, 0), "{what}\n{log}");
        match mode {
            // Every event that was encoded is in a dead letter.
            Mode::Delivered | Mode::Buffered => {
                assert!(of("events") > 0, "{what}: nothing reached the plugin\n{log}");
                assert_eq!(of("events"), letters, "{what}\n{log}");
            }
            Mode::Spool => {
                let chunks = fs::read_dir(spool).unwrap().filter(|entry| {
                    entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "chunk")
                });
                assert!(chunks.count() > 0 && letters == 0, "{what}\n{log}");
            }
        }
    }
}

/// Runs all modes in parallel: they spend nearly all their time waiting.
fn every_mode_ends_in_time(endpoint: Endpoint) {
    std::thread::scope(|scope| {
        for mode in [Mode::Delivered, Mode::Buffered, Mode::Spool] {
            for (workers, outputs) in [("0", 1), ("1", 1), ("8", 1), ("1", 3)] {
                scope.spawn(move || ends_in_time(endpoint, mode, workers, outputs));
            }
        }
    });
}

#[test]
fn sigterm_while_the_endpoint_refuses() {
    every_mode_ends_in_time(Endpoint::Refuses);
}

#[test]
fn sigterm_while_the_endpoint_hangs() {
    every_mode_ends_in_time(Endpoint::Hangs);
}

#[test]
fn sigterm_while_the_endpoint_throttles() {
    every_mode_ends_in_time(Endpoint::Throttles);
}

#[test]
fn sigterm_while_credentials_are_unavailable() {
    every_mode_ends_in_time(Endpoint::NoCredentials);
}

/// If one chunk waits (in the spool, in memory or in a long flush) and the application logs nothing more, no host
/// thread calls the plugin. The error must be logged all the same.
#[test]
fn errors_are_logged_even_if_no_flush_ends() {
    if !real_or_skip("lines without a flush") {
        return;
    }
    std::thread::scope(|scope| {
        for mode in [Mode::Delivered, Mode::Buffered, Mode::Spool] {
            scope.spawn(move || {
                let server = Server::start(Options {
                    faults: Faults {
                        fail_every_request: 1,
                        request_error: "400:AccessDeniedException".parse().unwrap(),
                        ..Faults::default()
                    },
                    ..firehose_options(true)
                })
                .unwrap();
                let scene = Scene::new().tail(10, &[]);
                let spool = scene.path("spool").display().to_string();
                let mut options = vec![("Workers", "1"), ("flush_timeout", "10m")];
                match mode {
                    Mode::Delivered => {}
                    Mode::Buffered => options.push(("acknowledge", "buffered")),
                    Mode::Spool => options.push(("spool_dir", &spool)),
                }
                let running = scene.output(&server, &options).start();
                let told =
                    || running.log().lines().any(|line| line.contains("cannot deliver: ") && line.contains("] ["));
                until(&format!("log line with the error, {mode:?}"), Duration::from_secs(30), told);
                assert!(!running.log().contains("] ended: "), "{}", running.log());
            });
        }
    });
}

/// A separate file system that can be frozen: writes to it block until it is thawed.
struct Freezer(std::path::PathBuf);

impl Freezer {
    /// Returns None, and prints one line saying so, where no file system can be mounted.
    fn mount(folder: &std::path::Path) -> Option<Freezer> {
        let (image, mount) = (folder.join("disk.img"), folder.join("disk"));
        fs::create_dir(&mount).unwrap();
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let script = "mkfs.ext4 -q \"$0\" && mount -o loop \"$0\" \"$1\"";
        let done = std::process::Command::new("sh").args(["-c", script]).args([&image, &mount]).output().unwrap();
        if !done.status.success() {
            let why = String::from_utf8_lossy(&done.stderr).lines().last().unwrap_or_default().to_owned();
            eprintln!("not run, because no file system can be mounted ({why}): a disk that hangs");
            return None;
        }
        Some(Freezer(mount))
    }

    /// The file system hangs until the returned value is dropped.
    fn freeze(&self) -> Frozen<'_> {
        let done = std::process::Command::new("fsfreeze").arg("--freeze").arg(&self.0).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        Frozen(&self.0)
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

struct Frozen<'f>(&'f std::path::Path);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("fsfreeze").arg("--unfreeze").arg(self.0).output();
    }
}

/// The spool's disk hangs while events flow, recovers, then hangs again until the end. The kernel cannot end a
/// process while one of its threads is blocked on such a disk, but the output ends in time and logs the outcome of
/// every event.
#[test]
fn sigterm_while_the_disk_hangs() {
    if !real_or_skip("a disk that hangs") {
        return;
    }
    std::thread::scope(|scope| {
        for workers in ["0", "1"] {
            scope.spawn(move || disk_hangs(workers));
        }
    });
}

fn disk_hangs(workers: &str) {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Freezer::mount(folder.path()) else { return };
    let server = firehose(true);
    let shutdown = format!("{SHUTDOWN}s");
    let (spool, letters) = (disk.0.join("spool").display().to_string(), disk.0.join("dead").display().to_string());
    let options = [
        ("Workers", workers),
        ("shutdown_timeout", shutdown.as_str()),
        ("spool_dir", spool.as_str()),
        ("dead_letter_file", letters.as_str()),
    ];
    let scene = Scene::new().service("Grace", &GRACE.to_string()).service("Flush", "0.2").tail(1000, &[]);
    let mut running = scene.output(&server, &options).start();
    until("events before the disk hangs", Duration::from_secs(30), || server.stats().records_accepted == 1000);
    let log = || running.log();
    let said = |words: &str| log().matches(words).count();
    let mut frozen = disk.freeze();
    running.scene.append(1000..3000);
    until("log line that the disk hangs", Duration::from_secs(30), || said("has not answered for") == 1);
    drop(frozen);
    until("log line that the disk answers again", Duration::from_secs(30), || said("answers again") == 1);
    // Fluent Bit 1.9 reads appended data in pieces of 64 KB, and reads on only when more is appended.
    until("events after the disk hung", Duration::from_secs(30), || server.stats().records_accepted > 1000);
    let before = server.stats().records_accepted;
    frozen = disk.freeze();
    running.scene.append(3000..5000);
    until("log line that the disk hangs again", Duration::from_secs(30), || said("has not answered for") == 2);
    let since = Instant::now();
    running.signal("TERM");
    until("`ended:` line", Duration::from_secs(GRACE + SHUTDOWN + 5), || log().contains("] ended: "));
    println!("Workers {workers}: ended {:.1} s after SIGTERM", since.elapsed().as_secs_f64());
    let log = running.log();
    let line = log.lines().find(|line| line.contains("] ended: ")).unwrap();
    // Chunks that cannot be stored are delivered from memory, and no event is lost.
    let events = ended(line, "events");
    assert!(events > before, "Workers {workers}: no events arrived while the disk hung\n{log}");
    assert_eq!((ended(line, "accepted"), ended(line, "dropped")), (events, 0), "Workers {workers}\n{log}");
    drop(frozen);
    let status = running.wait(Duration::from_secs(10));
    assert!(status.success(), "Workers {workers}: {status}\n{log}");
}
