//! How a subcommand ends: 0 in order, 1 findings, 2 it cannot be done, 3 nothing to check; stdout carries only the requested output.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;

/// The end of a subcommand that did what it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No findings.
    Fine,
    /// It ran, and what it looked at is not in order.
    Findings,
    /// It ran, and there was nothing that it could judge.
    Nothing,
}

/// Why a subcommand could not do what it was asked to, with the fix.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// A failure that says `what`.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What every subcommand returns.
pub type Outcome = Result<Verdict, Failure>;

/// The process's exit code; a failure is told on stderr.
pub fn exit(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Findings) => ExitCode::from(1),
        Ok(Verdict::Nothing) => ExitCode::from(3),
        Err(failure) => {
            note(&format!("error: {failure}"));
            ExitCode::from(2)
        }
    }
}

/// Writes `text` to stdout. A reader that has gone (`| head`) is no failure.
pub fn print(text: &str) -> Outcome {
    print_bytes(text.as_bytes())?;
    Ok(Verdict::Fine)
}

/// Writes `bytes` to stdout, as they are.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// `text` as it is where a terminal listens on stdout and wants colour, without its escapes elsewhere.
pub fn coloured(text: &str) -> String {
    // https://no-color.org: set, and not empty. A terminal called dumb knows no escapes.
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let dumb = set("TERM").is_some_and(|term| term == "dumb");
    if io::stdout().is_terminal() && set("NO_COLOR").is_none() && !dumb {
        text.to_owned()
    } else {
        anstream::adapter::strip_str(text).to_string()
    }
}

/// Says something on stderr; when nobody listens there, nothing is lost.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// `value` as the JSON that people read: two spaces, a newline at the end.
pub fn json(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

/// `1 file`, `2 files`, `3 batches`.
pub fn plural(count: impl TryInto<u64>, word: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    let ending = match count {
        1 => "",
        _ if word.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{count} {word}{ending}")
}

/// Progress on stderr of what takes more than a second; silent where no terminal listens.
pub fn progress(what: &'static str) -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new_spinner();
    let style = indicatif::ProgressStyle::with_template(&format!("{{elapsed}} {{human_pos}} {what}"));
    if let Ok(style) = style {
        bar.set_style(style);
    }
    // indicatif draws on stderr, and on a terminal only.
    bar
}
