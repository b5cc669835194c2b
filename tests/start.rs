//! An output that lacks a required resource does not start: Init returns an error, instead of succeeding and logging
//! the problem later.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

use kubehose::host::{Level, Log};
use kubehose::options::Config;
use kubehose::output::Instance;
use std::fs::File;
use std::process::Command;
use std::sync::Arc;

/// Set in the child process, which runs the test under its limit.
const LIMITED: &str = "KUBEHOSE_TEST_LIMITED";

#[test]
fn an_output_without_the_sockets_it_needs_does_not_start() {
    if std::env::var_os(LIMITED).is_none() {
        let script =
            "ulimit -n 100 && exec \"$0\" --exact an_output_without_the_sockets_it_needs_does_not_start --nocapture";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(std::env::current_exe().unwrap()).env(LIMITED, "1");
        let output = command.output().unwrap();
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && told.contains("1 passed"), "{told}");
        return;
    }
    let options = |name: &str| {
        let value = match name {
            "region" => "eu-west-1",
            "delivery_stream" => "a-stream",
            "endpoint" => "http://127.0.0.1:1",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let config = Config::read(&options, &|_| None).unwrap();
    let (mut refused, mut started) = (0, 0);
    for free in 0..24 {
        let mut files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        files.truncate(files.len() - free);
        let log = Arc::new(Log::detached());
        let start = Instance::start(config.clone(), log.clone(), None);
        match start {
            Err(error) => {
                refused += 1;
                let text = error.to_string();
                assert!(text.contains("cannot watch sockets") && text.contains("ulimit -n"), "{free} free: {text}");
            }
            Ok(instance) => {
                started += 1;
                // A started instance stops when asked to, and logs no error.
                instance.drain();
                while let Some((level, line)) = log.take() {
                    assert!(!matches!(level, Level::Error), "{free} free: {line}");
                }
            }
        }
        drop(files);
    }
    assert!(refused > 0 && started > 0, "{refused} refused, {started} started");
}
