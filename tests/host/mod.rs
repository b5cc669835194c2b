//! Runs a real Fluent Bit, or the stand-in host where it is missing, with the plugin, against the local Firehose
//! endpoint.
//!
//! Fluent Bit is searched in `FLUENT_BIT`, then on PATH. Without it the tests run in `kubehose-host`, and print one
//! line saying so; each test that only the real host can run is skipped with a line of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests; each uses a part")]

use kubehose_local::firehose::{AccessKey, Keep, Options, Server};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const KEY: &str = "AKIDEXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub const STREAM: &str = "kubehose-test";

/// The program that loads the plugin.
pub struct Host {
    pub program: PathBuf,
    pub real: bool,
}

/// The host of this run.
pub fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| {
        let named = std::env::var_os("FLUENT_BIT").filter(|path| !path.is_empty()).map(PathBuf::from);
        let on_path = || {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|folder| folder.join("fluent-bit")).find(|program| program.is_file())
        };
        if let Some(program) = named.or_else(on_path) {
            return Host { program, real: true };
        }
        eprintln!("no fluent-bit on PATH or in FLUENT_BIT: run in the stand-in host instead of the real one");
        Host { program: built("kubehose-host"), real: false }
    })
}

/// Whether there is a real Fluent Bit; if not, prints what was not run.
pub fn real_or_skip(what: &str) -> bool {
    if !host().real {
        eprintln!("not run, because there is no fluent-bit on PATH or in FLUENT_BIT: {what}");
    }
    host().real
}

/// The version of the real Fluent Bit.
pub fn version() -> (u32, u32, u32) {
    let output = Command::new(&host().program).arg("--version").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let (_, number) = told.split_once("Fluent Bit v").unwrap_or_else(|| panic!("no version in: {told}"));
    let line = number.lines().next().unwrap_or_default();
    let mut parts = line.trim().split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Whether there is a real Fluent Bit of at least this version; if not, prints what was not run.
pub fn since_or_skip(least: (u32, u32, u32), what: &str) -> bool {
    if !real_or_skip(what) {
        return false;
    }
    let version = version();
    if version < least {
        eprintln!(
            "not run, because Fluent Bit {}.{}.{} is older than {}.{}.{}: {what}",
            version.0, version.1, version.2, least.0, least.1, least.2
        );
    }
    version >= least
}

/// A file made by `cargo build` in this test's profile.
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let file = profile.join(name);
    assert!(file.exists(), "{} is missing: run `cargo build --workspace` before the tests", file.display());
    file
}

/// The plugin: `KUBEHOSE_SO`, or the one built with this test.
pub fn plugin() -> PathBuf {
    let beside = || std::env::current_exe().unwrap().with_file_name("libkubehose.so");
    std::env::var_os("KUBEHOSE_SO").map_or_else(beside, PathBuf::from)
}

/// Options of a Firehose endpoint that keeps the accepted records and checks signatures.
pub fn firehose_options(tls: bool) -> Options {
    Options {
        tls,
        region: Some("eu-west-1".to_owned()),
        streams: vec![STREAM.to_owned()],
        access_keys: vec![AccessKey::new(KEY, SECRET)],
        keep: Keep::Records,
        ..Options::default()
    }
}

pub fn firehose(tls: bool) -> Server {
    Server::start(firehose_options(tls)).unwrap()
}

/// The configuration of one run, in its own folder.
pub struct Scene {
    pub folder: TempDir,
    service: String,
    sections: String,
    environment: HashMap<String, String>,
    arguments: Vec<String>,
}

impl Scene {
    pub fn new() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("parsers.conf", "[PARSER]\n    Name json\n    Format json\n");
        write("plugins.conf", &format!("[PLUGINS]\n    Path {}\n", plugin().display()));
        let environment = [
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            // Credential look-ups stay on this machine, and use no developer's own profile.
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/nonexistent"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Scene { folder, service: String::new(), sections: String::new(), environment, arguments: Vec::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn service(mut self, key: &str, value: &str) -> Scene {
        self.service += &format!("    {key} {value}\n");
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Scene {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn argument(mut self, argument: &str) -> Scene {
        self.arguments.push(argument.to_owned());
        self
    }

    pub fn section(mut self, name: &str, pairs: &[(&str, &str)]) -> Scene {
        self.sections += &format!("[{name}]\n");
        for (key, value) in pairs {
            self.sections += &format!("    {key} {value}\n");
        }
        self
    }

    /// A file of `count` events, read once from its beginning; the host exits at the file's end.
    pub fn events(self, count: usize) -> Scene {
        self.tail(count, &[("Exit_On_Eof", "on")])
    }

    /// A file of `count` events, read from its beginning.
    pub fn tail(self, count: usize, more: &[(&str, &str)]) -> Scene {
        self.append(0..count);
        let file = self.path("events.log").display().to_string();
        let pairs = [
            ("Name", "tail"),
            ("Path", file.as_str()),
            ("Tag", "kube.x"),
            ("Read_from_Head", "on"),
            ("Parser", "json"),
        ];
        self.section("INPUT", &[&pairs[..], more].concat())
    }

    /// Appends more events to the file.
    pub fn append(&self, numbers: std::ops::Range<usize>) {
        let text = numbers.map(|n| format!("{}\n", event(n))).collect::<String>();
        let mut file = File::options().create(true).append(true).open(self.path("events.log")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Appends one more line to the file.
    pub fn append_line(&self, event: &Value) {
        let mut file = File::options().create(true).append(true).open(self.path("events.log")).unwrap();
        writeln!(file, "{event}").unwrap();
    }

    /// Removes the credentials that each scene has in its environment.
    pub fn without_credentials(mut self) -> Scene {
        self.environment.remove("AWS_ACCESS_KEY_ID");
        self.environment.remove("AWS_SECRET_ACCESS_KEY");
        self
    }

    /// An `[OUTPUT]` of the plugin that delivers to `server`.
    pub fn output(self, server: &Server, more: &[(&str, &str)]) -> Scene {
        let (url, ca) = (server.url(), server.ca_pem_path().map(|path| path.display().to_string()));
        let mut pairs = vec![
            ("Name", "kubehose"),
            ("Match", "*"),
            ("region", "eu-west-1"),
            ("delivery_stream", STREAM),
            ("endpoint", url.as_str()),
        ];
        if let Some(ca) = &ca {
            pairs.push(("ca_file", ca));
        }
        pairs.retain(|(key, _)| more.iter().all(|(other, _)| other != key));
        pairs.extend_from_slice(more);
        self.section("OUTPUT", &pairs)
    }

    pub fn start(self) -> Running {
        let configuration = format!(
            // A daemon's working folder is the root, so every path is absolute.
            "[SERVICE]\n    Plugins_File {}\n    Parsers_File {}\n{}{}",
            self.path("plugins.conf").display(),
            self.path("parsers.conf").display(),
            self.service,
            self.sections
        );
        fs::write(self.path("fluent-bit.conf"), configuration).unwrap();
        let log = self.path("log");
        let mut command = Command::new(&host().program);
        // The tests must not depend on the AWS and proxy variables of the shell.
        for (name, _) in std::env::vars_os() {
            let upper = name.to_string_lossy().to_ascii_uppercase();
            if upper.starts_with("AWS_") || upper.ends_with("_PROXY") {
                command.env_remove(name);
            }
        }
        let child = command
            .args(["-c", "fluent-bit.conf"])
            .args(&self.arguments)
            .current_dir(self.folder.path())
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(&log).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", host().program.display()));
        Running { child, log, scene: self }
    }

    /// Runs until the host exits, which must be successful; returns the log.
    pub fn run(self) -> String {
        let mut running = self.start();
        let status = running.wait(Duration::from_secs(240));
        let log = running.log();
        assert!(status.success(), "{status}\n{log}");
        log
    }
}

/// A running host; it is killed when dropped.
pub struct Running {
    pub child: Child,
    pub scene: Scene,
    log: PathBuf,
}

impl Running {
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// `kill -9`; the scene can be started again.
    pub fn kill(mut self) -> Scene {
        let _ = self.child.kill();
        let _ = self.child.wait();
        std::mem::replace(&mut self.scene, Scene::new())
    }

    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > end {
                let _ = self.child.kill();
                panic!("the host did not end within {limit:?}\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs one of this program's tests again in new namespaces (`unshare`'s arguments), which the shell command `setup`
/// prepares as their root. Inside it returns true, and the test does its work. Outside it returns false once that run
/// has succeeded, or prints one line saying that it is not possible.
pub fn inside(test: &str, namespaces: &[&str], setup: &str) -> bool {
    const INSIDE: &str = "KUBEHOSE_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let shell = |script: &str| {
        let mut command = Command::new("unshare");
        command.arg("--map-root-user").args(namespaces).args(["sh", "-c", script]);
        command
    };
    if !shell(setup).output().is_ok_and(|output| output.status.success()) {
        let namespaces = namespaces.join(" ");
        eprintln!(
            "not run, because namespaces are not allowed (unshare --map-root-user {namespaces}, then {setup}): {test}"
        );
        return false;
    }
    let program = std::env::current_exe().unwrap();
    let mut command = shell(&format!("{setup} && exec \"$0\" --exact {test} --nocapture"));
    let output = command.arg(program).env(INSIDE, "1").output().unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    false
}

pub fn signal(pid: u32, name: &str) {
    // The shell's built-in: a small system has no `kill` program.
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
    assert!(sent.success(), "kill -{name} {pid}");
}

/// Waits until a condition holds.
pub fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < end, "not seen within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Event number `n`: an application's line with the kubernetes filter's metadata, some 700 bytes.
pub fn event(n: usize) -> Value {
    json!({
        "log": format!("line {n} {}\u{e9}\t\"quoted\" {}", "x".repeat(n % 400), n * 7),
        "stream": "stdout",
        "n": n,
        "float": n as f64 / 8.0,
        "kubernetes": {
            "pod_name": format!("web-{}", n % 7),
            "namespace_name": "shop",
            "pod_id": "6f2ca1b4-7f5c-4b6c-9a52-3b8a2a8b6f11",
            "labels": {"app": "nginx", "pod-template-hash": "6c8b449b8f"},
            "annotations": {"kubernetes.io/psp": "eks.privileged"},
            "host": "ip-10-0-1-17.eu-west-1.compute.internal",
            "container_name": "nginx",
            "docker_id": format!("{n:064x}"),
            "container_image": "docker.io/library/nginx:latest"
        }
    })
}

/// The expected record: the event with the four names moved to the top level.
pub fn expected(n: usize) -> Value {
    let mut event = event(n);
    let taken: Vec<Value> = ["container_name", "namespace_name", "pod_name", "docker_id"]
        .iter()
        .map(|name| event["kubernetes"].as_object_mut().unwrap().remove(*name).unwrap())
        .collect();
    for (name, value) in ["kube_container_name", "kube_namespace", "pod_name", "container_id"].iter().zip(taken) {
        event[*name] = value;
    }
    event
}

/// How often each event arrived, by its number; every record must be the expected one, and end with a newline.
pub fn arrivals(server: &Server) -> HashMap<usize, usize> {
    let mut arrived = HashMap::new();
    for record in server.records() {
        assert_eq!(record.data.last(), Some(&b'\n'));
        let value: Value = serde_json::from_slice(&record.data).unwrap();
        let n = value["n"].as_u64().unwrap() as usize;
        assert_eq!(value, expected(n));
        *arrived.entry(n).or_default() += 1;
    }
    arrived
}

/// Every event must have arrived exactly once, within all limits and with valid signatures.
pub fn assert_each_once(server: &Server, count: usize, log: &str) {
    let arrived = arrivals(server);
    let missing: Vec<usize> = (0..count).filter(|n| !arrived.contains_key(n)).collect();
    let repeated = arrived.values().filter(|times| **times > 1).count();
    assert!(
        missing.is_empty() && repeated == 0 && arrived.len() == count,
        "of {count} events {} are missing (first {:?}) and {repeated} repeated\n{log}",
        missing.len(),
        missing.first()
    );
    let stats = server.stats();
    assert_eq!((stats.limit_violations, stats.signature_failures), (0, 0));
    assert!(stats.batch_records_max <= 500);
}

/// A number from the plugin's `ended:` line.
pub fn ended(log: &str, name: &str) -> u64 {
    let line =
        log.lines().rev().find(|line| line.contains("] ended: ")).unwrap_or_else(|| panic!("no 'ended:'\n{log}"));
    let found = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or("0").parse().unwrap()
}
