//! The `kubehose` command: writes, checks and verifies the configuration around the plugin.

mod aws;
mod bundle;
mod classic;
mod completions;
mod cost;
mod datadog;
mod delivery_stream;
mod demo;
mod fargate;
mod iam_policy;
mod kube;
mod lint;
mod manifest;
mod migrate;
mod pipeline;
mod preview;
mod replay;
mod sample_app;
mod verdict;
mod verify;

use std::process::ExitCode;
use std::sync::LazyLock;

use clap::builder::Resettable;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// Kubernetes logs from Fluent Bit to Amazon Data Firehose, named as Datadog expects them.
#[derive(Parser)]
#[command(name = "kubehose", version = VERSION.as_str(), propagate_version = true, arg_required_else_help = true,
    after_help = "Exit codes:
  0  done, and in order
  1  findings: lint, verify and migrate found something that is wrong
  2  it cannot be done, or the command line is wrong
  3  there was nothing to check")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What `--version` prints after the name.
static VERSION: LazyLock<String> = LazyLock::new(|| format!("{} ({})", kubehose::VERSION, kubehose::REVISION));

#[derive(Subcommand)]
enum Command {
    Manifest(manifest::Args),
    Lint(lint::Args),
    IamPolicy(iam_policy::Args),
    DeliveryStream(delivery_stream::Args),
    Pipeline(pipeline::Args),
    SampleApp(sample_app::Args),
    Bundle(Box<bundle::Args>),
    Verify(verify::Args),
    Preview(preview::Args),
    Replay(replay::Args),
    Cost(cost::Args),
    Migrate(migrate::Args),
    Demo(demo::Args),
    /// Serve a local Amazon Data Firehose endpoint
    #[command(after_help = "Exit codes:
  0  it was stopped
  1  it cannot listen there
  2  the command line is wrong

Example:
  kubehose firehose --listen 127.0.0.1:4573
  (and in the output: endpoint http://127.0.0.1:4573)")]
    Firehose(Box<kubehose_local::firehose::Args>),
    Completions(completions::Args),
    Man(completions::ManArgs),
}

/// Variables that replace another that is not set.
const OTHER_VARIABLES: [(&str, &str); 1] = [("AWS_REGION", "AWS_DEFAULT_REGION")];

/// What a subcommand's exit codes mean, where it does not say so itself.
const EXIT_CODES: &str = "Exit codes:
  0  done
  2  it cannot be done, or the command line is wrong";
const EXIT_CODES_OF_DEMO: &str = "Exit codes:
  0  every line arrived, as it should
  1  something did not, or nothing could be run
  2  the command line is wrong";

/// The command line as it is defined, with what the environment makes of it: a variable that is set to nothing counts as not
/// set, and another may stand in for it.
fn command() -> clap::Command {
    Cli::command().mut_subcommands(|command| {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let command = if help.contains("Exit codes:") {
            command
        } else {
            let codes = if command.get_name() == "demo" { EXIT_CODES_OF_DEMO } else { EXIT_CODES };
            let gap = if help.is_empty() { "" } else { "\n\n" };
            command.after_help(format!("{codes}{gap}{help}"))
        };
        command.mut_args(|arg| {
            let Some(name) = arg.get_env().and_then(|name| name.to_str()).map(str::to_owned) else { return arg };
            let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
            let other = OTHER_VARIABLES.iter().find(|(of, _)| *of == name).map(|(_, other)| *other);
            match other.filter(|other| !set(&name) && set(other)) {
                Some(other) => arg.env(other),
                None if std::env::var_os(&name).is_some_and(|value| value.is_empty()) => arg.env(Resettable::Reset),
                None => arg,
            }
        })
    })
}

fn main() -> ExitCode {
    let cli = Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit());
    verdict::exit(match cli.command {
        Command::Manifest(args) => manifest::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::IamPolicy(args) => iam_policy::run(&args),
        Command::DeliveryStream(args) => delivery_stream::run(&args),
        Command::Pipeline(args) => pipeline::run(&args),
        Command::SampleApp(args) => sample_app::run(&args),
        Command::Bundle(args) => bundle::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Preview(args) => preview::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Cost(args) => cost::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Demo(args) => return demo::run(&args),
        Command::Firehose(args) => return kubehose_local::firehose::run(&args),
        Command::Completions(args) => completions::run(&args, command()),
        Command::Man(args) => completions::man(&args, command()),
    })
}
