//! The `kubehose` command.

mod demo;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "kubehose", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    /// Serve a local Amazon Data Firehose endpoint
    Firehose(Box<kubehose_local::firehose::Args>),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Firehose(args) => kubehose_local::firehose::run(&args),
    }
}
