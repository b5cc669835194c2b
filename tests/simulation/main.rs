//! The delivery core in simulated worlds: each seed is one world with a host, a service, a disk and faults of all
//! three, in virtual time.
//!
//! `cargo test --test simulation` runs some thousand seeds; set `SEEDS=100000` for more, or `SEED=n` for one with its
//! trace.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

mod disk;
mod host;
mod service;
mod watch;
mod world;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use world::Summary;

/// How often a long run reports its progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// Stop after so many broken worlds.
const BROKEN: u64 = 5;

/// Seeds of worlds that once revealed a fault.
const REGRESSIONS: [u64; 5] = [20, 38, 1416, 4922, 13352];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_world_breaks_an_invariant() {
    let all = run_all(world::run, 2000);
    // Without faults a passing simulation would prove nothing.
    assert!(all.is_none_or(|all| all.every_fault_fired()), "some kind of fault never happened");
}

#[test]
fn streams_that_are_healthy_wait_for_no_failing_stream() {
    if let Some(all) = run_all(world::run_lasting, 300) {
        println!("the longest wait: {:?}", all.waited);
    }
}

/// Runs a world for each seed; returns the summary of all if no invariant is broken. With `SEED`, runs that one world
/// and returns None.
fn run_all(world: fn(u64, bool) -> Result<Summary, String>, by_default: u64) -> Option<Summary> {
    if let Some(seed) = number("SEED") {
        println!("{:?}", world(seed, true).unwrap_or_else(|broken| panic!("seed {seed}: {broken}")));
        return None;
    }
    let since = Instant::now();
    let asked = number("SEEDS");
    let seeds = asked.unwrap_or(by_default);
    let first = number("FIRST").unwrap_or(0);
    let threads = std::thread::available_parallelism().map_or(2, |threads| threads.get() as u64);
    let (done, violations) = (AtomicU64::new(0), AtomicU64::new(0));
    let results: Vec<(Summary, Vec<String>)> = std::thread::scope(|scope| {
        let run = |thread| {
            let (done, violations) = (&done, &violations);
            move || {
                let (mut all, mut broken) = (Summary::default(), Vec::new());
                let mut told = since;
                let mine = (first..first + seeds).filter(|seed| seed % threads == thread);
                let regressions = REGRESSIONS.into_iter().filter(|_| thread == 0);
                for seed in regressions.chain(mine) {
                    let ran = std::panic::catch_unwind(|| world(seed, false));
                    match ran.unwrap_or_else(|_| Err("a panic".to_owned())) {
                        Ok(summary) => all.add(&summary),
                        Err(what) => {
                            violations.fetch_add(1, Relaxed);
                            // A long run tells at once.
                            eprintln!("seed {seed}: {what}");
                            broken.push(format!("seed {seed}: {what}"));
                        }
                    }
                    let done = done.fetch_add(1, Relaxed) + 1;
                    if asked.is_some() && thread == 0 && told.elapsed() >= PROGRESS {
                        told = Instant::now();
                        eprintln!(
                            "{done} of {seeds} seeds in {:.0?}, {} violations",
                            since.elapsed(),
                            violations.load(Relaxed)
                        );
                    }
                    if violations.load(Relaxed) >= BROKEN {
                        break;
                    }
                }
                (all, broken)
            }
        };
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(run(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut all = Summary::default();
    let mut broken = Vec::new();
    for (summary, more) in results {
        all.add(&summary);
        broken.extend(more);
    }
    println!("{} seeds in {:.0?}: {all}", done.load(Relaxed), since.elapsed());
    assert!(
        broken.is_empty(),
        "{} worlds broke an invariant; run one with SEED=n:\n{}",
        broken.len(),
        broken.join("\n")
    );
    Some(all)
}

#[test]
fn the_same_seed_gives_the_same_world() {
    for seed in 0..20 {
        let (one, two) = (world::run(seed, false), world::run(seed, false));
        assert_eq!(format!("{one:?}"), format!("{two:?}"), "seed {seed}");
    }
}
