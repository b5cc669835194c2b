//! The `kubehose` command.

fn main() {}
