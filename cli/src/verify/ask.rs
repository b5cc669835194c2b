//! Runs kubectl, aws and curl, read-only: each call has a time limit, each answer a maximal size, each fault one line.

use std::collections::HashMap;
use std::io::{Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::permissions::Need;

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum NoAnswer {
    /// The thing does not exist.
    Missing,
    /// Access is denied; the program's message.
    Forbidden(String),
    /// This call failed.
    Failed(String),
    /// The program does not work here, so no other call can succeed.
    Unusable(String),
    /// The program has failed before.
    Known,
}

/// An answer: JSON.
pub type Answer = Result<Value, NoAnswer>;

/// The most bytes of an answer: enough for thousands of pods.
const MAX_ANSWER: u64 = 64 << 20;
/// The most characters of a fault.
const MAX_SAID: usize = 300;

/// The programs and what is known of them.
pub struct Programs {
    limit: Duration,
    context: Option<String>,
    region: String,
    /// Time-outs in a row; after the second one the program counts as not working.
    stalls: HashMap<&'static str, u32>,
    unusable: HashMap<&'static str, ()>,
}

impl Programs {
    /// Each call ends after `limit`.
    pub fn new(limit: Duration, context: Option<String>, region: String) -> Self {
        Self { limit, context, region, stalls: HashMap::new(), unusable: HashMap::new() }
    }

    /// Asks kubectl; of what is read of the cluster, `need` says with which permission.
    pub fn kubectl(&mut self, words: &[&str]) -> Answer {
        let mut all: Vec<String> = Vec::new();
        if let Some(context) = &self.context {
            all.extend(["--context".to_owned(), context.clone()]);
        }
        all.push(format!("--request-timeout={}s", self.limit.as_secs().max(1)));
        all.extend(words.iter().map(|word| (*word).to_owned()));
        all.extend(["-o".to_owned(), "json".to_owned()]);
        self.ask("kubectl", &all, None)
    }

    /// Asks aws.
    pub fn aws(&mut self, words: &[&str]) -> Answer {
        let mut all: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let seconds = self.limit.as_secs().max(1).to_string();
        for (option, value) in [
            ("--region", self.region.as_str()),
            ("--output", "json"),
            ("--cli-connect-timeout", &seconds),
            ("--cli-read-timeout", &seconds),
        ] {
            all.extend([option.to_owned(), value.to_owned()]);
        }
        self.ask("aws", &all, None)
    }

    /// GET through curl; secrets go through a pipe, since other users can read a command line.
    pub fn curl(&mut self, url: &str, headers: &[(&str, &str)]) -> Answer {
        let seconds = self.limit.as_secs().max(1).to_string();
        let words = ["--silent", "--show-error", "--fail", "--max-time", &seconds, "--config", "-", url];
        let config: String = headers.iter().map(|(name, value)| format!("header = \"{name}: {value}\"\n")).collect();
        self.ask("curl", &words.map(str::to_owned), Some(&config))
    }

    fn ask(&mut self, program: &'static str, words: &[String], input: Option<&str>) -> Answer {
        if self.unusable.contains_key(program) {
            return Err(NoAnswer::Known);
        }
        let answer = match call(program, words, input, self.limit) {
            Ok(Ended { good: true, said, .. }) => serde_json::from_slice(&said)
                .map_err(|error| NoAnswer::Failed(format!("{program} did not answer JSON: {error}"))),
            Ok(Ended { complaint, .. }) => Err(fault(program, &complaint)),
            Err(Failed::Start(said)) => Err(NoAnswer::Unusable(format!("{program} cannot be run: {said}"))),
            Err(Failed::Large) => {
                Err(NoAnswer::Failed(format!("{program} answered more than {} MiB", MAX_ANSWER >> 20)))
            }
            Err(Failed::Stalled) => {
                let said = format!("{program} gave no answer within {} s", self.limit.as_secs_f64());
                let stalls = self.stalls.entry(program).or_default();
                *stalls += 1;
                Err(if *stalls < 2 { NoAnswer::Failed(said) } else { NoAnswer::Unusable(format!("{said}, twice")) })
            }
        };
        match &answer {
            Err(NoAnswer::Unusable(_)) => {
                self.unusable.insert(program, ());
            }
            Err(NoAnswer::Failed(said)) if said.contains("no answer within") => {}
            _ => {
                self.stalls.remove(program);
            }
        }
        answer
    }
}

/// The output of a program that has ended.
struct Ended {
    good: bool,
    said: Vec<u8>,
    complaint: String,
}

enum Failed {
    Start(String),
    Stalled,
    Large,
}

fn call(program: &str, words: &[String], input: Option<&str>, limit: Duration) -> Result<Ended, Failed> {
    let end = Instant::now() + limit;
    let mut child = Command::new(program)
        .args(words)
        .env("AWS_PAGER", "")
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failed::Start(error.to_string()))?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        // If the program has exited, its own message says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let said = reader(child.stdout.take());
    let complaint = reader(child.stderr.take());
    let result = wait(&mut child, &said, &complaint, end);
    if result.is_err() {
        // Its own children may go on; they hold none of our pipes.
        let _ = child.kill();
        let _ = child.wait();
    }
    result
}

fn wait(
    child: &mut Child,
    said: &Receiver<Vec<u8>>,
    complaint: &Receiver<Vec<u8>>,
    end: Instant,
) -> Result<Ended, Failed> {
    let left = || end.saturating_duration_since(Instant::now());
    let said = said.recv_timeout(left()).map_err(|_| Failed::Stalled)?;
    if said.len() as u64 > MAX_ANSWER {
        return Err(Failed::Large);
    }
    let complaint = complaint.recv_timeout(left()).map_err(|_| Failed::Stalled)?;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                let complaint = String::from_utf8_lossy(&complaint).into_owned();
                return Ok(Ended { good: status.success(), said, complaint });
            }
            Ok(None) if !left().is_zero() => std::thread::sleep(Duration::from_millis(2)),
            _ => return Err(Failed::Stalled),
        }
    }
}

/// Reads a pipe to its end, up to one byte over the limit.
fn reader(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            let _ = pipe.take(MAX_ANSWER + 1).read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

/// The meaning of a program's error message.
fn fault(program: &str, complaint: &str) -> NoAnswer {
    let said = |prefix: &str| {
        let line = complaint.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed without a word").trim();
        format!("{prefix}{}", shortened(line))
    };
    let has = |words: &[&str]| words.iter().any(|word| complaint.contains(word));
    let missing = ["(NotFound)", "NoSuchEntity", "NotFoundException", "Unable to describe task definition"];
    let forbidden = ["(Forbidden)", "AccessDenied", "not authorized to perform", "UnauthorizedOperation", "error: 403"];
    let throttled = ["Throttling", "Rate exceeded", "TooManyRequests", "too many requests", "error: 429"];
    // An expired certificate is not an expired token.
    let expired = complaint.to_ascii_lowercase().contains("expired") && !complaint.contains("certificate");
    let unusable: &[&str] = match program {
        "aws" => &[
            "Unable to locate credentials",
            "InvalidClientTokenId",
            "UnrecognizedClientException",
            "SignatureDoesNotMatch",
            "could not be found",
            "Could not connect to the endpoint",
            "Partial credentials",
        ],
        "kubectl" => &[
            "Unauthorized",
            "must be logged in",
            "connection refused",
            "Unable to connect",
            "no such host",
            "executable aws",
            "getting credentials",
        ],
        _ => &["Could not resolve host", "Failed to connect", "error: 401"],
    };
    if expired {
        NoAnswer::Unusable(said("the credentials are expired: renew them (aws sso login, or whatever gives them): "))
    } else if has(unusable) {
        NoAnswer::Unusable(said(""))
    } else if has(&missing) {
        NoAnswer::Missing
    } else if has(&forbidden) {
        NoAnswer::Forbidden(said(""))
    } else if has(&throttled) {
        NoAnswer::Failed(said("it is throttled; verify again in a minute: "))
    } else {
        NoAnswer::Failed(said(""))
    }
}

/// A text for one line: shortened, and without control characters.
pub fn shortened(text: &str) -> String {
    let mut out: String = text.chars().filter(|c| !c.is_control()).take(MAX_SAID).collect();
    if text.chars().nth(MAX_SAID).is_some() {
        out.push('…');
    }
    out
}

/// The missing permission that an error message names.
pub fn forbidden(need: &Need, said: &str) -> String {
    format!("may not be read; it needs {need} (kubehose verify --permissions writes all of them): {said}")
}
