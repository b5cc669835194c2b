//! Shared by the tests of the command line: running it, comparing with golden files, and the checkers in `.venv`.

#![allow(dead_code, clippy::unwrap_used)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The result of running a program.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The standard output of a successful run.
    #[track_caller]
    pub fn fine(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.stdout
    }
}

/// The program, without the variables of the user's environment.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubehose"));
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION", "DD_API_KEY", "DD_APP_KEY", "NO_COLOR"] {
        command.env_remove(name);
    }
    command
}

/// Runs `kubehose` with the words of `line`.
pub fn kubehose(line: &str) -> Run {
    Run::of(command().args(line.split_whitespace()).stdin(Stdio::null()).output().unwrap())
}

/// Runs `kubehose` with `args`, `input` on its stdin.
pub fn kubehose_with(args: &[&str], input: &[u8]) -> Run {
    let mut child =
        command().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A program that rejects its input need not read all of it.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Run::of(output)
}

/// Runs another program to its end.
pub fn run(command: &mut Command) -> Run {
    Run::of(command.stdin(Stdio::null()).output().unwrap())
}

/// Compares with `tests/golden/<name>`; `BLESS=1` writes it instead.
#[track_caller]
pub fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "{} differs (BLESS=1 accepts it)\n--- expected\n{expected}\n--- actual\n{actual}",
        path.display()
    );
}

/// A checker from the virtual environment; returns None, and prints one line saying so, if it is missing.
pub fn venv(program: &str, what: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("KUBEHOSE_VENV").map_or_else(|| root().join(".venv"), PathBuf::from);
    let path = folder.join("bin").join(program);
    if path.exists() {
        return Some(path);
    }
    not_run(&format!("{what}: no {} (make test installs it)", path.display()));
    None
}

/// Checks `files` with `tests/check.py <kind>`.
#[track_caller]
pub fn check(kind: &str, files: &[&Path]) {
    let Some(python) = venv("python", &format!("check of {kind}")) else {
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check.py");
    let result = run(Command::new(python).arg(script).arg(kind).args(files));
    assert_eq!(result.code, 0, "{kind}: {}\n{}", result.stdout, result.stderr);
}

/// The real Fluent Bit, from `FLUENT_BIT` or PATH; returns None, and prints one line saying so, if it is missing.
pub fn fluent_bit(what: &str) -> Option<PathBuf> {
    let named = std::env::var_os("FLUENT_BIT").map(PathBuf::from);
    let found = named.or_else(|| {
        std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join("fluent-bit")).find(|path| path.is_file())
    });
    if found.is_none() {
        not_run(&format!("{what}: no fluent-bit on the PATH or in FLUENT_BIT"));
    }
    found
}

/// Prints what was not run to the real stderr, past the capture of the test harness.
pub fn not_run(what: &str) {
    // In a single write, so that the harness's output cannot come between.
    let _ = std::io::stderr().write_all(format!("\nNOT RUN: {what}\n").as_bytes());
}

/// A file in a folder that is removed with the test.
pub fn scratch(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

/// The value of `key` in the ConfigMap of `manifest`.
pub fn file_of(manifest: &str, key: &str) -> String {
    let start = format!("  {key}: |");
    let lines = manifest.lines().skip_while(|line| *line != start).skip(1);
    lines
        .take_while(|line| line.is_empty() || line.starts_with("    "))
        .map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or("")))
        .collect()
}

/// Writes at the end of a file, as a container's runtime does.
pub fn append(file: &Path, text: &str) {
    use std::io::Write as _;
    std::fs::OpenOptions::new().append(true).open(file).unwrap().write_all(text.as_bytes()).unwrap();
}
