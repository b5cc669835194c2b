//! Contradictory replies: they do not reveal the outcome of any record, so no record may be lost, and every possible
//! duplicate is counted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

mod host;

use host::*;
use kubehose_local::firehose::{Faults, Options, Server};

const EVENTS: usize = 20_000;

#[test]
fn contradictory_replies_lose_no_record_and_every_repeat_is_counted() {
    // How often a reply contradicts itself, and how often a record fails in the other replies.
    for (contradict, fail_every_record, workers) in [(2, 7, "0"), (3, 1000, "1"), (5, 0, "1")] {
        let faults = Faults { contradict, fail_every_record, ..Faults::default() };
        let server = Server::start(Options { faults, ..firehose_options(true) }).unwrap();
        let options = [("Workers", workers), ("shutdown_timeout", "2m")];
        let log = Scene::new().events(EVENTS).output(&server, &options).run();
        let (arrived, stats) = (arrivals(&server), server.stats());
        let repeated: u64 = arrived.values().map(|times| *times as u64 - 1).sum();
        let (possibly, met) = (ended(&log, "possibly_duplicate"), stats.faults.get("contradict").copied());
        println!(
            "kubehose-matrix | every {contradict}th reply contradicts itself | {workers} | {} | {repeated} | {possibly} | {} |",
            arrived.len(),
            stats.requests
        );
        // Each of the three kinds of contradiction occurs, with accepted and with refused records.
        assert!(met.unwrap_or(0) >= 6, "{met:?} contradictions\n{log}");
        assert_eq!((arrived.len(), ended(&log, "dead_lettered"), ended(&log, "dropped")), (EVENTS, 0, 0), "{log}");
        assert_eq!((ended(&log, "accepted"), ended(&log, "held")), (EVENTS as u64, 0), "{log}");
        assert!(repeated > 0 && repeated <= possibly, "{repeated} repeated, {possibly} possibly_duplicate\n{log}");
        assert_eq!((stats.limit_violations, stats.signature_failures), (0, 0));
    }
}
