//! The plugin against moto, a stand-in that others wrote: its signature check on, its S3 read back.
//!
//! moto runs from the Python environment in `KUBEHOSE_VENV`, or `.venv` (`make test` makes it). Without it nothing is run
//! here, and a line says so. It knows neither the service's limits nor faults: those are the local Firehose's part.
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

/// The Python environment's programs; without them, says what was not run.
fn programs(what: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::var_os("KUBEHOSE_VENV").map_or_else(|| root.join(".venv"), PathBuf::from).join("bin");
    if folder.join("moto_server").is_file() {
        return Some(folder);
    }
    eprintln!("not run, because moto is missing in {} (`make test` installs it): {what}", folder.display());
    None
}

/// A moto server with a stream and its checks on; it is killed when dropped.
struct Moto {
    programs: PathBuf,
    server: Child,
    url: String,
    key: String,
    secret: String,
    /// A key that may do nothing but assume the role.
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
        // It logs each request: somebody has to read.
        std::thread::spawn(move || lines.for_each(drop));
        let url = url.expect("moto tells where it listens");
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

    /// How often each event stands in the bucket, by its number; every record must be its event's.
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

    /// Sends events to `stream` with `secret`; gives the host's log, after a good end.
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
            // What is set up wrongly is kept and tried again until the exit gives up.
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

/// The first line of the log that tells what is wrong, and that there is one at most: a fix is not repeated each second.
fn complaint(log: &str) -> &str {
    let mut lines = log.lines().filter(|line| line.contains("cannot deliver: "));
    let line = lines.next().unwrap_or_else(|| panic!("no line says what is wrong\n{log}"));
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

// moto refuses a signature in XML.
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
fn motos_sts_gives_a_role_whose_signatures_its_firehose_accepts() {
    let Some(programs) = programs("a role assumed at the STS of moto") else { return };
    let moto = Moto::start(programs);
    let (key, secret) = &moto.assumer;
    let options = [("role_arn", moto.role.as_str()), ("external_id", "id-1"), ("sts_endpoint", moto.url.as_str())];
    let log = moto.send_as(EVENTS, (key, secret), STREAM, &options);
    let arrived = moto.arrivals();
    assert!(arrived.len() == EVENTS && arrived.values().all(|times| *times == 1), "{} events\n{log}", arrived.len());
    assert_eq!(ended(&log, "accepted"), EVENTS as u64);
    // With another external ID the role's trust policy does not let it in, and without the role the key may not write.
    let other = [options[0], ("external_id", "id-2"), options[2]];
    let log = moto.send_as(10, (key, secret), STREAM, &other);
    assert!(complaint(&log).contains("'external_id'"), "{log}");
    let log = moto.send_as(10, (key, secret), STREAM, &[]);
    assert!(complaint(&log).contains("allow firehose:PutRecordBatch on"), "{log}");
    assert_eq!(moto.arrivals().len(), EVENTS);
}
