//! The Firehose endpoint alone, without the rest of the command line.

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
