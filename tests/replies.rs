//! Replies that contradict themselves, in the host: they say of no record what became of it, so none is lost, and each is counted.
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
fn no_reply_that_contradicts_itself_loses_a_record_or_repeats_one_uncounted() {
    // How often replies contradict themselves, and how often records fail in those that do not.
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
        // Each of the three ways, with records accepted and with records refused.
        assert!(met.unwrap_or(0) >= 6, "{met:?} contradictions\n{log}");
        assert_eq!((arrived.len(), ended(&log, "dead_lettered"), ended(&log, "dropped")), (EVENTS, 0, 0), "{log}");
        assert_eq!((ended(&log, "accepted"), ended(&log, "held")), (EVENTS as u64, 0), "{log}");
        assert!(repeated > 0 && repeated <= possibly, "{repeated} repeated, {possibly} possibly_duplicate\n{log}");
        assert_eq!((stats.limit_violations, stats.signature_failures), (0, 0));
    }
}
