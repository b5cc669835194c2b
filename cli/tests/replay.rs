//! Replay ends, and reports where the records are, whatever the endpoint does.

#![allow(clippy::unwrap_used)]

mod support;

use kubehose::storage::letters::DeadLetter;
use kubehose_local::firehose::{Down, Faults, Keep, Options, Server};
use support::{command, run};

const RECORDS: usize = 80;

#[test]
fn replay_ends_whether_or_not_the_endpoint_accepts_anything() {
    // Both more records than `max_buffer` holds, some of which may remain only in the original file, and fewer.
    for (down, size, codes) in [
        (Down::Off, 100_000, &[0][..]),
        (Down::Off, 100, &[0]),
        (Down::Reset, 300_000, &[1, 2]),
        (Down::Refuse, 300_000, &[1, 2]),
        (Down::Refuse, 100, &[1]),
    ] {
        let faults = Faults { down, ..Faults::default() };
        let server = Server::start(Options { faults, keep: Keep::Records, ..Options::default() }).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dead.ndjson");
        let lines: String = (0..RECORDS)
            .map(|n| DeadLetter::new("tag", "logs", "a reason", format!("{n} {}\n", "x".repeat(size)).into_bytes()))
            .map(|letter| serde_json::to_string(&letter).unwrap() + "\n")
            .collect();
        std::fs::write(&file, lines).unwrap();
        let mut command = command();
        command.args(["replay", "--region", "eu-west-1", "--endpoint", &server.url()]);
        command.args(["-o", "max_buffer=1M", "-o", "shutdown_timeout=1s"]).arg(&file);
        command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "secret");
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        let done = run(&mut command);
        assert!(codes.contains(&done.code), "{down:?}, {size}: {done:?}");
        // Including those of earlier runs.
        let rests = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let rests = rests.filter(|path| path.to_string_lossy().contains(".rest"));
        let rest: usize = rests.map(|path| std::fs::read_to_string(path).unwrap().lines().count()).sum();
        let accepted = server.records().len();
        match done.code {
            0 => assert_eq!((accepted, rest), (RECORDS, 0), "{done:?}"),
            1 => assert_eq!((accepted, rest), (0, RECORDS), "{done:?}"),
            _ => {
                assert!(accepted == 0 && rest < RECORDS, "{rest} of {RECORDS}: {done:?}");
                let said = format!("not sent, and only in this file: {} records for logs", RECORDS - rest);
                assert!(done.stderr.contains(&said) && done.stderr.contains("dead.ndjson"), "{done:?}");
            }
        }
    }
}
