//! The `kubehose` command: writes, checks and verifies what stands around the plugin.

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

use clap::{CommandFactory as _, Parser, Subcommand};

/// Kubernetes logs, out of Fluent Bit, into Amazon Data Firehose, named the way Datadog knows them.
#[derive(Parser)]
#[command(name = "kubehose", version = VERSION.as_str(), propagate_version = true, arg_required_else_help = true)]
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
    #[command(after_help = "Example:
  kubehose firehose --listen 127.0.0.1:4573
  (and in the output: endpoint http://127.0.0.1:4573)")]
    Firehose(Box<kubehose_local::firehose::Args>),
    Completions(completions::Args),
    Man(completions::ManArgs),
}

fn main() -> ExitCode {
    verdict::exit(match Cli::parse().command {
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
        Command::Completions(args) => completions::run(&args, Cli::command()),
        Command::Man(args) => completions::man(&args, Cli::command()),
    })
}
