//! `kubehose-host`: runs a plugin as Fluent Bit does, for machines without Fluent Bit.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubehose_local::host::main()
}
