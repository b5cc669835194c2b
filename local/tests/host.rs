//! `kubehose-host` with a plugin that records its calls and misbehaves on request.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The recording plugin. Cargo builds examples before tests, next to the binaries.
fn plugin() -> &'static Path {
    static PLUGIN: OnceLock<PathBuf> = OnceLock::new();
    PLUGIN.get_or_init(|| {
        let directory = Path::new(env!("CARGO_BIN_EXE_kubehose-host")).parent().unwrap();
        let path = directory.join("examples/librecording_plugin.so");
        assert!(path.exists(), "{} is missing: cargo build -p kubehose-local --examples", path.display());
        path
    })
}

/// A directory with a configuration and the files that a run writes.
struct Run {
    directory: tempfile::TempDir,
}

impl Run {
    fn new(configuration: &str) -> Run {
        let directory = tempfile::tempdir().unwrap();
        let run = Run { directory };
        run.write("host.conf", configuration);
        run
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn start(&self, args: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_kubehose-host"))
            .arg("-c")
            .arg(self.path("host.conf"))
            .arg("-e")
            .arg(plugin())
            .args(args)
            .env("RECORDING", self.directory.path())
            .env("OUT", self.path("out"))
            .env("DIR", self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs to the end; also returns stderr as text.
    fn run(&self, args: &[&str]) -> (Output, String) {
        let output = self.start(args).wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output, text)
    }

    /// The calls that the plugin has recorded, without the main thread's name.
    fn calls(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        calls.lines().map(|line| line.trim_end_matches(" @kubehose-host").to_owned()).collect()
    }

    /// Waits until the plugin has recorded a call.
    fn wait_for(&self, call: &str) {
        let begin = Instant::now();
        while !self.calls().iter().any(|line| line.starts_with(call)) {
            assert!(begin.elapsed() < Duration::from_secs(10), "no {call}: {:?}", self.calls());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn signal(child: &Child, name: &str) {
    // The shell's built-in: a small system has no `kill` program.
    let kill = format!("kill -s {name} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

/// Two outputs, of which the first has the given behaviour; a file with three lines is read to its end.
fn tail(behaviour: &str, more: &str) -> Run {
    let run = Run::new(&format!(
        "[SERVICE]\n  flush 0.1\n  scheduler.base 1\n  scheduler.cap 1\n\
         [INPUT]\n  Name tail\n  Path ${{DIR}}/*.log\n  Tag kube.*\n  Read_from_Head on\n  Exit_On_Eof on\n\
         [OUTPUT]\n  Name recording\n  Match kube.*\n  behaviour {behaviour}\n  file ${{OUT}}\n{more}\
         [OUTPUT]\n  Name RECORDING\n  Match nothing\n  behaviour ${{UNSET}}\n"
    ));
    run.write("p_n_c-1.log", "one\ntwo\nthree\n");
    run
}

#[test]
fn calls_come_in_the_same_order_as_in_fluent_bit() {
    let run = tail("ok", "");
    let (output, text) = run.run(&[]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let tag = format!("kube{}/p_n_c-1.log", run.directory.path().display()).replace('/', ".");
    // As recorded line by line with Fluent Bit 5.1.1 and the same plugin.
    let expected = [
        "PreRegister(0)".to_owned(),
        "Register".to_owned(),
        "Init(0, behaviour=ok, match=None) @flb-pipeline".to_owned(),
        "Init(1, behaviour=, match=None) @flb-pipeline".to_owned(),
        "PreRun(0) @flb-pipeline".to_owned(),
        "PreRun(0) @flb-pipeline".to_owned(),
        format!("Flush(0, {tag}) @flb-pipeline"),
        "PreExit(0) @flb-pipeline".to_owned(),
        "Exit(0) @flb-pipeline".to_owned(),
        "PreExit(0) @flb-pipeline".to_owned(),
        "Exit(1) @flb-pipeline".to_owned(),
        "Unregister".to_owned(),
    ];
    assert_eq!(run.calls(), expected);
    assert!(text.contains("1 chunks, 3 events: 1 ok (3 events), 0 errors, 0 retries, 0 dropped"), "{text}");
    let data = std::fs::read(run.path("out")).unwrap();
    assert!(data.windows(10).any(|bytes| bytes == b"\xa3log\xa5three"), "{data:?}");
    assert_eq!(data[..4], [0x92, 0x92, 0xd7, 0x00]);
}

#[test]
fn workers_flush_on_their_own_threads() {
    let run = tail("ok", "  Workers 2\n");
    let (output, text) = run.run(&["--event-form", "v1"]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        run.calls().iter().any(|call| call.starts_with("Flush(0") && call.contains("@flb-out-")),
        "{:?}",
        run.calls()
    );
    assert_eq!(std::fs::read(run.path("out")).unwrap()[..3], [0x92, 0xd7, 0x00]);
}

#[test]
fn retries_end_at_the_limit_and_errors_drop() {
    // The plugin accepts each third flush: with one retry the chunk is lost, with two it is delivered.
    let (_, text) = tail("retry", "").run(&[]);
    assert!(text.contains("cannot be retried: task_id=0, input=tail.0 > output=recording.0"), "{text}");
    assert!(text.contains("0 ok (0 events), 0 errors, 1 retries, 1 dropped (3 events)"), "{text}");
    let (_, text) = tail("retry", "  Retry_Limit no_limits\n").run(&[]);
    assert!(text.contains("succeeded at retry 2"), "{text}");
    assert!(text.contains("1 ok (3 events), 0 errors, 2 retries, 0 dropped"), "{text}");
    let (_, text) = tail("error", "").run(&[]);
    assert!(text.contains("0 ok (0 events), 1 errors, 0 retries, 1 dropped (3 events)"), "{text}");
}

#[test]
fn a_plugin_that_refuses_ends_the_host_with_255() {
    let run = tail("refuse", "");
    let (output, text) = run.run(&[]);
    assert_eq!(output.status.code(), Some(255), "{text}");
    assert!(text.contains("[output] failed to initialize 'recording' plugin"), "{text}");
    // The failed output gets no exit, but the one that was never initialised does.
    let calls = run.calls();
    assert_eq!(calls[3..], ["PreExit(0) @flb-pipeline", "Exit(NULL) @flb-pipeline", "Unregister"]);
}

#[test]
fn misuse_of_memory_is_detected_and_named() {
    let many = "[INPUT]\n  Name dummy\n  Rate 50\n  Tag kube.d\n";
    for (behaviour, message) in [
        ("overflow", "STACK OVERFLOW: FLBPluginFlushCtx"),
        ("write", "WRITE TO A CHUNK"),
        ("past", "READ PAST A CHUNK"),
        ("late", "USE AFTER RETURN"),
    ] {
        for workers in ["", "  Workers 1\n"] {
            let run = Run::new(&format!(
                "[SERVICE]\n  flush 0.05\n{many}[OUTPUT]\n  Name recording\n  Match *\n  behaviour {behaviour}\n{workers}"
            ));
            let (output, text) = run.run(&[]);
            assert_eq!(output.status.signal(), Some(11), "{behaviour}: {text}");
            assert!(text.contains(message), "{behaviour}: {text}");
        }
    }
}

#[test]
fn the_log_functions_exist_and_follow_the_level() {
    let run = tail("log", "  log_level warn\n  alias named\n");
    let (_, text) = run.run(&[]);
    assert!(text.contains("[error] a line at error") && text.contains("[ warn] a line at warn"), "{text}");
    assert!(!text.contains("a line at info"), "{text}");
}

#[test]
fn sigterm_flushes_the_remaining_chunks() {
    let run = Run::new(
        "[SERVICE]\n  flush 30\n[INPUT]\n  Name dummy\n  Samples 5\n  Rate 100\n[OUTPUT]\n  Name recording\n  Match *\n",
    );
    let child = run.start(&[]);
    run.wait_for("PreRun");
    std::thread::sleep(Duration::from_millis(300));
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("5 events: 1 ok (5 events)"), "{text}");
}

#[test]
fn a_hot_reload_drains_the_old_engine_before_the_new_one_starts() {
    let run =
        Run::new("[SERVICE]\n  flush 0.1\n[INPUT]\n  Name dummy\n  Rate 20\n[OUTPUT]\n  Name recording\n  Match *\n");
    let child = run.start(&["-Y"]);
    run.wait_for("Flush(0");
    signal(&child, "HUP");
    run.wait_for("Init(1");
    run.wait_for("Flush(1");
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let calls: Vec<String> = run.calls().into_iter().filter(|call| !call.starts_with("Flush")).collect();
    let names: Vec<&str> = calls.iter().map(|call| call.split([',', ' ']).next().unwrap()).collect();
    assert_eq!(
        names,
        [
            "PreRegister(0)",
            "Register",
            "Init(0",
            "PreRun(0)",
            "PreRegister(1)",
            "Register",
            "PreExit(1)",
            "Exit(0)",
            "Unregister",
            "Init(1",
            "PreRun(1)",
            "PreExit(0)",
            "Exit(1)",
            "Unregister"
        ]
    );
}

#[test]
fn a_dry_run_calls_exit_without_an_instance() {
    let run = tail("ok", "");
    let (output, text) = run.run(&["-D"]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(run.calls()[..4], ["PreRegister(0)", "Register", "PreExit(0)", "Exit(NULL)"]);
}

#[test]
fn unsupported_features_are_named() {
    for (configuration, part) in [
        ("[INPUT]\n  Name systemd\n", "no input \"systemd\""),
        ("[FILTER]\n  Name grep\n", "no [FILTER]"),
        ("[OUTPUT]\n  Name stdout\n", "no output \"stdout\"; loaded with -e or plugins_file: recording"),
        ("[INPUT]\n  Name tail\n  Path x\n  Docker_Mode on\n", "\"Docker_Mode\""),
        ("[INPUT]\n  Name tail\n  Path x\n  Parser none\n", "parser \"none\" is not defined"),
        ("[SERVICE]\n  daemon on\n", "daemon on"),
        ("[OUTPUT]\n  Name recording\n  tls on\n", "tls on"),
    ] {
        let (output, text) = Run::new(configuration).run(&[]);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(part), "{configuration}: {text}");
    }
}
