//! `kubehose migrate`: a configuration for `firehose` or `kinesis_firehose` becomes one for kubehose, line by line, with
//! what changes in meaning said on stderr. Nothing is lost: what has no counterpart stays as a comment.

use std::collections::BTreeMap;
use std::io::Read as _;

use clap::Args as ClapArgs;

use crate::lint::{self, Migration};
use crate::verdict::{Failure, Outcome, note, print};

/// Rewrite a Fluent Bit configuration for `firehose` or `kinesis_firehose` to kubehose.
///
/// The file goes to stdout; what changes in meaning is said on stderr.
#[derive(ClapArgs)]
#[command(after_help = "Example:
  kubehose migrate fluent-bit.conf > fluent-bit-kubehose.conf")]
pub struct Args {
    /// A classic or YAML configuration; `-` is stdin
    #[arg(value_name = "FILE")]
    file: String,
}

/// Runs `kubehose migrate`.
pub fn run(args: &Args) -> Outcome {
    let failure = |error: std::io::Error| Failure::new(format!("cannot read {}: {error}", args.file));
    let mut text = String::new();
    match args.file.as_str() {
        "-" => std::io::stdin().lock().take(lint::MAX_BYTES + 1).read_to_string(&mut text).map_err(failure)?,
        path => std::fs::File::open(path)
            .and_then(|file| file.take(lint::MAX_BYTES + 1).read_to_string(&mut text))
            .map_err(failure)?,
    };
    if text.len() as u64 > lint::MAX_BYTES {
        return Err(Failure::new(format!(
            "{} is larger than {} MiB: that is no configuration",
            args.file,
            lint::MAX_BYTES >> 20
        )));
    }
    let conf = match lint::outputs(&args.file, &text) {
        Migration::Outputs(conf) => conf,
        Migration::Manifest => {
            return Err(Failure::new(
                "this is a Kubernetes manifest: EKS Fargate loads no plugin, so kubehose manifest writes its filters instead; \
                 of a router of your own, give the Fluent Bit file itself",
            ));
        }
        Migration::Broken(what) => return Err(Failure::new(format!("{}: {what}; kubehose lint says more", args.file))),
    };
    let lines: Vec<&str> = text.lines().collect();
    let mut edits: BTreeMap<usize, Edit> = BTreeMap::new();
    let mut found = false;
    for section in conf.iter().filter(|section| section.name == "OUTPUT") {
        let from = section.plugin();
        if from == "firehose" || from == "kinesis_firehose" {
            found = true;
            migrate_output(section, &from, &lines, &mut edits);
        }
    }
    if !found {
        return Err(Failure::new(format!("{} has no output firehose or kinesis_firehose", args.file)));
    }
    note("load the plugin: [SERVICE] plugins_file with [PLUGINS] Path …/libkubehose.so, or fluent-bit -e");
    let mut out = String::new();
    for (number, line) in lines.iter().enumerate() {
        match edits.get(&(number + 1)) {
            None => out.push_str(line),
            Some(Edit::Replace(from, to, more)) => {
                out.push_str(&line.replacen(from, to, 1));
                for line in more {
                    out.push('\n');
                    out.push_str(line);
                }
            }
            Some(Edit::Comment) => {
                let indent = line.len() - line.trim_start().len();
                out.push_str(&format!("{}# {}", &line[..indent], line.trim_start()));
            }
        }
        out.push('\n');
    }
    print(&out)
}

/// What becomes of a line.
enum Edit {
    /// A word of it changes, and lines follow it.
    Replace(String, String, Vec<String>),
    Comment,
}

/// Options of the peers without a counterpart, and what does their work.
const GONE: [(&str, &str); 5] = [
    ("auto_retry_requests", "kubehose always resends what failed, and only that"),
    ("experimental_concurrency", "concurrency is the number of calls in flight"),
    ("experimental_concurrency_retries", "what failed is resent until flush_timeout, then the host keeps it"),
    ("tls", "kubehose speaks TLS by itself; `tls on` would abort the configuration"),
    ("net.", "kubehose has connections of its own"),
];

fn migrate_output(section: &lint::Section, from: &str, lines: &[&str], edits: &mut BTreeMap<usize, Edit>) {
    let at = |line: usize| format!("line {line}");
    let known =
        |key: &str| kubehose::options::OPTIONS.iter().any(|spec| spec.name == key) || lint::options::is_core(key);
    let mut more = Vec::new();
    let name_line = section.get("name").map_or(section.at.line, |entry| entry.key.at.line);
    let raw = lines.get(name_line - 1).copied().unwrap_or_default();
    let mut add = |key: &str, value: &str| {
        let yaml = raw.contains(':');
        let indent = raw.find(|c: char| c != ' ' && c != '\t' && c != '-').unwrap_or(0);
        let gap: String = raw.chars().take(indent).map(|c| if c == '-' { ' ' } else { c }).collect();
        more.push(if yaml { format!("{gap}{key}: {value}") } else { format!("{gap}{key} {value}") });
    };
    note(&format!("{}: {from} becomes kubehose", at(name_line)));
    if section.get("remap").is_none() {
        note("  the four attributes get Datadog's names at the root: add `remap none` to keep them under kubernetes");
    }
    if section.get("workers").is_none() {
        add("workers", "2");
        note(&format!("  workers 2 added: {from} waits in coroutines, kubehose on threads"));
    }
    if from == "firehose" || section.get("retry_limit").is_none_or(|entry| entry.value.text == "1") {
        note("  Retry_Limit counts flushes: a delivery that outlives its flush goes on, and the next flush joins it");
    }
    note("  of a partial failure only the failed records are sent again, so there are fewer duplicates");
    for entry in &section.entries {
        let key = entry.key.text.to_ascii_lowercase();
        let line = entry.key.at.line;
        if key == "name" {
            continue;
        }
        if key == "port" || key == "host" {
            edits.insert(line, Edit::Comment);
            match section.get("endpoint").filter(|endpoint| key == "port" && !endpoint.value.text.contains(':')) {
                Some(endpoint) => {
                    let with_port = format!("{}:{}", endpoint.value.text, entry.value.text);
                    edits.insert(
                        endpoint.key.at.line,
                        Edit::Replace(endpoint.value.text.clone(), with_port, Vec::new()),
                    );
                    note(&format!(
                        "  {}: {} goes into endpoint: the host keeps it for itself",
                        at(line),
                        entry.key.text
                    ));
                }
                None => note(&format!(
                    "  {}: {} is left out: the host keeps it for itself; write endpoint host:port",
                    at(line),
                    entry.key.text
                )),
            }
            continue;
        }
        let gone = GONE.iter().find(|(name, _)| *name == key || (name.ends_with('.') && key.starts_with(name)));
        if let Some((_, why)) = gone.or_else(|| GONE.iter().find(|(name, _)| *name == "tls" && key.starts_with("tls.")))
        {
            edits.insert(line, Edit::Comment);
            note(&format!("  {}: {} is left out: {why}", at(line), entry.key.text));
        } else if !known(&key) {
            edits.insert(line, Edit::Comment);
            note(&format!("  {}: {} is left out: kubehose has no such option", at(line), entry.key.text));
        } else if key == "time_key_format" && from == "kinesis_firehose" && entry.value.text.contains("%L") {
            // src/aws/flb_aws_util.c writes nanoseconds for %L; for kubehose and strftime's kin it is milliseconds.
            edits.insert(line, Edit::Replace("%L".to_owned(), "%9N".to_owned(), Vec::new()));
            note(&format!("  {}: %L becomes %9N: {from} writes nanoseconds for %L, kubehose milliseconds", at(line)));
        } else if key == "log_key" {
            note(&format!("  {}: log_key names one key; {from} took every key that begins with it", at(line)));
        }
    }
    let value = section.value("name").unwrap_or(from).to_owned();
    edits.insert(name_line, Edit::Replace(value, "kubehose".to_owned(), more));
}
