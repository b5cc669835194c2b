//! The plugin against moto, an independent implementation of AWS services: it checks signatures, and its S3 bucket is
//! read back.
//!
//! moto runs from the Python environment in `KUBEHOSE_VENV`, or `.venv` (`make test` creates it). Without it these
//! tests do not run, and print one line saying so. moto has neither the service's limits nor faults: the local
//! Firehose endpoint covers those.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

mod host;

use host::*;
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const EVENTS: usize = 2000;

/// The Python environment's programs; without them, prints what was not run.
fn programs(what: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::var_os("KUBEHOSE_VENV").map_or_else(|| root.join(".venv"), PathBuf::from).join("bin");
    if folder.join("moto_server").is_file() {
        return Some(folder);
    }
    eprintln!("not run, because moto is missing in {} (`make test` installs it): {what}", folder.display());
    None
}

/// A moto server with a stream, checking signatures and permissions; it is killed when dropped.
struct Moto {
    programs: PathBuf,
    server: Child,
    url: String,
    key: String,
    secret: String,
    /// The id and secret of a key that may only assume the role.
    assumer: (String, String),
    role: String,
}

impl Moto {
    fn start(programs: PathBuf) -> Moto {
        let mut server = Command::new(programs.join("moto_server"))
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
        let url =
            lines.by_ref().map(Result::unwrap).find_map(|line| Some(line.split_once(" * Running on ")?.1.to_owned()));
        // It logs each request, and would block if its output were not read.
        std::thread::spawn(move || lines.for_each(drop));
        let url = url.expect("moto prints its address");
        let mut moto = Moto {
            programs,
            server,
            url,
            key: String::new(),
            secret: String::new(),
            assumer: <_>::default(),
            role: String::new(),
        };
        let told = moto.python("moto_setup.py", &[&moto.url, STREAM]);
        let told: Vec<String> = told.lines().map(str::to_owned).collect();
        let [key, secret, assumer, assumers_secret, role] = told.try_into().expect("moto_setup.py prints five lines");
        (moto.key, moto.secret, moto.assumer, moto.role) = (key, secret, (assumer, assumers_secret), role);
        moto
    }

    /// Runs one of the scripts beside this file.
    fn python(&self, script: &str, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(script);
        let output = Command::new(self.programs.join("python"))
            .arg(&script)
            .args(arguments)
            .env_remove("AWS_PROFILE")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// How often each event is in the bucket, by its number; every record must be the expected one.
    fn arrivals(&self) -> HashMap<usize, usize> {
        let mut arrived = HashMap::new();
        for line in self.python("moto_read.py", &[&self.url, &self.key, &self.secret]).lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            let n = record["n"].as_u64().unwrap() as usize;
            assert_eq!(record, expected(n));
            *arrived.entry(n).or_default() += 1;
        }
        arrived
    }

    /// Sends events to `stream` with `secret`; returns the host's log after a successful exit.
    fn send(&self, count: usize, secret: &str, stream: &str) -> String {
        self.send_as(count, (&self.key, secret), stream, &[])
    }

    fn send_as(&self, count: usize, (key, secret): (&str, &str), stream: &str, more: &[(&str, &str)]) -> String {
        let options = [
            ("Name", "kubehose"),
            ("Match", "*"),
            ("Workers", "1"),
            ("region", "eu-west-1"),
            ("delivery_stream", stream),
            ("endpoint", &self.url),
            // Records that cannot be delivered are kept and retried until the exit gives up.
            ("flush_timeout", "2s"),
            ("shutdown_timeout", "1s"),
        ];
        Scene::new()
            .service("Grace", "2")
            .environment("AWS_ACCESS_KEY_ID", key)
            .environment("AWS_SECRET_ACCESS_KEY", secret)
            .events(count)
            .section("OUTPUT", &[&options[..], more].concat())
            .run()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The log line with the error. There must be exactly one: it is not repeated for each retry.
fn complaint(log: &str) -> &str {
    let mut lines = log.lines().filter(|line| line.contains("cannot deliver: "));
    let line = lines.next().unwrap_or_else(|| panic!("no line names the error\n{log}"));
    assert_eq!(lines.next(), None, "{log}");
    line
}

#[test]
fn moto_accepts_our_signatures_and_its_bucket_holds_each_event_once() {
    let Some(programs) = programs("the signature check and S3 of moto") else { return };
    let moto = Moto::start(programs);
    let log = moto.send(EVENTS, &moto.secret, STREAM);
    let arrived = moto.arrivals();
    assert!(arrived.len() == EVENTS && arrived.values().all(|times| *times == 1), "{} events\n{log}", arrived.len());
    assert_eq!(ended(&log, "accepted"), EVENTS as u64);
}

#[test]
fn an_unknown_stream_is_named_with_its_fix() {
    let Some(programs) = programs("an unknown stream in moto") else { return };
    let moto = Moto::start(programs);
    let log = moto.send(10, &moto.secret, "no-such-stream");
    let line = complaint(&log);
    assert!(line.contains("ResourceNotFoundException"), "{line}");
    assert!(line.contains("check 'delivery_stream' and 'region': no-such-stream in eu-west-1"), "{line}");
    assert!(moto.arrivals().is_empty());
}

// moto rejects a signature with an XML reply.
#[test]
fn a_wrong_secret_is_named_with_its_fix() {
    let Some(programs) = programs("a wrong secret in moto") else { return };
    let moto = Moto::start(programs);
    let log = moto.send(10, "not the secret of this key", STREAM);
    let line = complaint(&log);
    assert!(line.contains("check that the credentials belong to an existing user or role"), "{line}");
    assert_eq!(ended(&log, "possibly_duplicate"), 0);
    assert!(moto.arrivals().is_empty());
}

#[test]
fn a_role_assumed_at_motos_sts_may_write_to_its_firehose() {
    let Some(programs) = programs("a role assumed at the STS of moto") else { return };
    let moto = Moto::start(programs);
    let (key, secret) = &moto.assumer;
    let options = [("role_arn", moto.role.as_str()), ("external_id", "id-1"), ("sts_endpoint", moto.url.as_str())];
    let log = moto.send_as(EVENTS, (key, secret), STREAM, &options);
    let arrived = moto.arrivals();
    assert!(arrived.len() == EVENTS && arrived.values().all(|times| *times == 1), "{} events\n{log}", arrived.len());
    assert_eq!(ended(&log, "accepted"), EVENTS as u64);
    // With another external ID, the role's trust policy denies access; without the role, the key may not write.
    let other = [options[0], ("external_id", "id-2"), options[2]];
    let log = moto.send_as(10, (key, secret), STREAM, &other);
    assert!(complaint(&log).contains("'external_id'"), "{log}");
    let log = moto.send_as(10, (key, secret), STREAM, &[]);
    assert!(complaint(&log).contains("allow firehose:PutRecordBatch on"), "{log}");
    assert_eq!(moto.arrivals().len(), EVENTS);
}
