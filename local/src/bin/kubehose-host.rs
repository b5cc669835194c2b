//! `kubehose-host`: runs a plugin like Fluent Bit does, on machines without Fluent Bit.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubehose_local::host::main()
}
