//! `kubehose replay`: sends the records of dead-letter files again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args as ClapArgs;
use kubehose::host::Log;
use kubehose::options::Config;
use kubehose::record::MAX_RECORD;
use kubehose::replay::Sender;
use kubehose::storage::letters::DeadLetter;

use crate::preview::option;
use crate::verdict::{Failure, Outcome, Verdict, note, plural, progress};

/// Send the records of dead-letter files again.
///
/// Each record goes to the stream that it was for, unless --delivery-stream names another. The files stay as they are;
/// records that are not accepted this time are written to FILE.rest, which can be replayed, too. The exit code is then 1; if sending stops before the end, it is 2.
#[derive(ClapArgs)]
#[command(after_help = "Exit codes:
  0  every record was accepted
  1  some were not, as it says
  2  sending stopped before the end, a file cannot be read, or the command line is wrong

Example:
  kubehose replay --region eu-west-1 /var/log/kubehose/dead.ndjson")]
pub struct Args {
    /// Dead-letter files, the oldest first
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The region of the streams; by default AWS_REGION
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Send to this stream instead of the records' own
    #[arg(long, value_name = "NAME")]
    delivery_stream: Option<String>,
    /// An endpoint other than the region's
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// An option of the plugin: role_arn, profile, ca_file, records_per_second, …
    #[arg(short, long = "option", value_name = "NAME=VALUE", value_parser = option)]
    options: Vec<(String, String)>,
    /// Only count the records that would be sent
    #[arg(long)]
    dry_run: bool,
}

/// What a file's lines come to.
#[derive(Default)]
struct Read {
    /// Records by stream, and by tag.
    streams: BTreeMap<String, BTreeMap<String, Vec<Vec<u8>>>>,
    unreadable: usize,
    too_large: usize,
}

/// Runs `kubehose replay`.
pub fn run(args: &Args) -> Outcome {
    let mut findings = false;
    for file in &args.files {
        findings |= replay(args, file)?;
    }
    Ok(if findings { Verdict::Findings } else { Verdict::Fine })
}

/// Sends one file; says whether anything was left.
fn replay(args: &Args, file: &Path) -> Result<bool, Failure> {
    let read = read(args, file)?;
    let name = file.display();
    for (count, thing, what) in [
        (read.unreadable, "line", "no dead letter, or torn: left out".to_owned()),
        (read.too_large, "record", format!("over {MAX_RECORD} bytes, which Firehose never accepts: left out")),
    ] {
        if count > 0 {
            note(&format!("{name}: {}: {what}", plural(count, thing)));
        }
    }
    let mut left = read.unreadable + read.too_large > 0;
    for (stream, tags) in read.streams {
        let total: usize = tags.values().map(Vec::len).sum();
        let config = config(args, &stream, file)?;
        if args.dry_run {
            note(&format!("{name}: {} would go to {stream} in {}", plural(total, "record"), config.firehose.region));
            continue;
        }
        let log = Arc::new(Log::detached());
        let mut sender = Sender::start(config, log.clone()).map_err(|error| Failure::new(error.to_string()))?;
        let bar = progress("records accepted");
        let each = |counts: &kubehose::metrics::Counts| {
            bar.set_position(counts.records_accepted.get());
            while let Some((_, line)) = log.take() {
                bar.suspend(|| note(&line));
            }
        };
        for (tag, records) in tags {
            sender.send(&tag, records.into_iter(), each);
        }
        let kubehose::replay::End { counts, stopped } = sender.finish(each);
        bar.finish_and_clear();
        note(&format!("{name}: {} of {} accepted by {stream}", counts.records_accepted, plural(total, "record")));
        if counts.records_accepted < total as u64 {
            note(&format!("{} are in {}", counts.records_dead_lettered, rest(file).display()));
            left = true;
        }
        if let Some(stopped) = stopped {
            let settled = counts.records_accepted + counts.records_dead_lettered;
            return Err(Failure::new(format!(
                "{name}: {stopped}; not sent, and only in this file: {} for {stream}",
                plural((total as u64).saturating_sub(settled), "record")
            )));
        }
    }
    Ok(left)
}

fn read(args: &Args, file: &Path) -> Result<Read, Failure> {
    let failure = |error: std::io::Error| Failure::new(format!("cannot read {}: {error}", file.display()));
    let mut read = Read::default();
    for line in BufReader::new(File::open(file).map_err(failure)?).split(b'\n') {
        let line = line.map_err(failure)?;
        if line.is_empty() {
            continue;
        }
        let letter = serde_json::from_slice::<DeadLetter>(&line).ok();
        let Some((letter, record)) = letter.and_then(|letter| letter.record().map(|record| (letter, record))) else {
            read.unreadable += 1;
            continue;
        };
        if record.len() > MAX_RECORD {
            read.too_large += 1;
            continue;
        }
        let stream = args.delivery_stream.clone().unwrap_or(letter.delivery_stream);
        read.streams.entry(stream).or_default().entry(letter.tag).or_default().push(record);
    }
    Ok(read)
}

/// `FILE.rest`, where what is not accepted goes.
fn rest(file: &Path) -> PathBuf {
    let mut name = std::path::absolute(file).unwrap_or_else(|_| file.to_owned()).into_os_string();
    name.push(".rest");
    name.into()
}

fn config(args: &Args, stream: &str, file: &Path) -> Result<Config, Failure> {
    let rest = rest(file).display().to_string();
    let get = |name: &str| {
        let own = match name {
            "delivery_stream" => Some(stream.to_owned()),
            "region" => args.region.clone(),
            "endpoint" => args.endpoint.clone(),
            _ => None,
        };
        let given = args.options.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        own.or(given).or_else(|| match name {
            "dead_letter_file" => Some(rest.clone()),
            // A person waits here, not a host.
            "shutdown_timeout" => Some("30s".to_owned()),
            _ => None,
        })
    };
    Config::read(&get, &|name| std::env::var(name).ok()).map_err(|error| Failure::new(error.to_string()))
}
