//! `kubehose migrate`: a configuration for `firehose` or `kinesis_firehose` becomes one for kubehose, with what was done said
//! on stderr. What has no counterpart stays as a comment.

mod configuration;
mod edit;
mod options;
mod places;

use std::io::Read as _;

use clap::Args as ClapArgs;

use crate::lint;
use crate::verdict::{Failure, Outcome, Verdict, note, print};
use configuration::{Refused, Rewritten};

/// Rewrite a Fluent Bit configuration for `firehose` or `kinesis_firehose` to kubehose.
///
/// The file goes to stdout, what was done to stderr. The configuration may stand in a file of its own, in a ConfigMap, in a
/// chart's values, or in a task definition of ECS. The result starts where the plugin is loaded (plugins_file, or -e); if it would not, nothing is written.
#[derive(ClapArgs)]
#[command(after_help = "Exit codes:
  0  the file is on stdout
  1  there is nothing to rewrite, or what came of it would not start
  2  the file cannot be read, or the command line is wrong

Examples:
  kubehose migrate fluent-bit.conf > fluent-bit-kubehose.conf
  kubectl get configmap -n logging fluent-bit -o yaml | kubehose migrate - | kubectl apply -f -")]
pub struct Args {
    /// A configuration, classic or YAML, or a file that holds one; `-` is stdin
    #[arg(value_name = "FILE")]
    file: String,
}

/// Runs `kubehose migrate`.
pub fn run(args: &Args) -> Outcome {
    let name = if args.file == "-" { "stdin" } else { args.file.as_str() };
    let failure = |error: std::io::Error| Failure::new(format!("cannot read {name}: {error}"));
    let mut text = String::new();
    match args.file.as_str() {
        "-" => std::io::stdin().lock().take(lint::MAX_BYTES + 1).read_to_string(&mut text).map_err(failure)?,
        path => std::fs::File::open(path)
            .and_then(|file| file.take(lint::MAX_BYTES + 1).read_to_string(&mut text))
            .map_err(failure)?,
    };
    if text.len() as u64 > lint::MAX_BYTES {
        let limit = lint::MAX_BYTES >> 20;
        return Err(Failure::new(format!("{name} is larger than {limit} MiB: that is no configuration")));
    }
    match places::rewrite(name, &text) {
        Ok(Rewritten { text: new, mut notes }) => {
            notes.sort_by_key(|(line, _)| *line);
            for (line, what) in notes {
                note(&format!("{name}:{line}: {what}"));
            }
            print(&new)
        }
        Err(Refused::Nothing) => {
            let more = if text.to_ascii_lowercase().contains("@include") || text.contains("includes:") {
                "; it includes other files: migrate those"
            } else {
                ""
            };
            note(&format!("{name} has no output firehose or kinesis_firehose{more}"));
            Ok(Verdict::Findings)
        }
        Err(Refused::Kept(line, why)) => {
            note(&format!("{name}:{line}: nothing was written: {why}"));
            Ok(Verdict::Findings)
        }
        Err(Refused::Wrong(line, why)) => {
            note(&format!("{name}:{line}: nothing was written, since Fluent Bit would not start with it: {why}"));
            Ok(Verdict::Findings)
        }
    }
}
