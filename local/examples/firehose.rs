//! Only the Firehose endpoint, without the other subcommands.

use std::process::ExitCode;

use clap::Parser;
use kubehose_local::firehose;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: firehose::Args,
}

fn main() -> ExitCode {
    firehose::run(&Command::parse().args)
}
