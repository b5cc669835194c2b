//! `kubehose completions` and `kubehose man`: shell completions and man pages, from the declaration of the command line.

use clap::Args as ClapArgs;
use clap_complete::Shell;

use crate::verdict::{Failure, Outcome, print};

/// Write the completions of a shell.
#[derive(ClapArgs)]
#[command(after_help = "Example:
  kubehose completions bash > /etc/bash_completion.d/kubehose")]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Write the man page, of a subcommand if one is named.
#[derive(ClapArgs)]
#[command(after_help = "Example:
  kubehose man > /usr/local/share/man/man1/kubehose.1")]
pub struct ManArgs {
    /// A subcommand, such as lint
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

/// Runs `kubehose completions`.
pub fn run(args: &Args, mut command: clap::Command) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "kubehose", &mut text);
    print(&String::from_utf8_lossy(&text))
}

/// Runs `kubehose man`.
pub fn man(args: &ManArgs, mut command: clap::Command) -> Outcome {
    command.build();
    let page = match &args.command {
        None => command,
        Some(name) => {
            let found = command.find_subcommand(name).cloned();
            found.ok_or_else(|| Failure::new(format!("there is no subcommand {name}: kubehose --help lists them")))?
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page)
        .render(&mut text)
        .map_err(|error| Failure::new(format!("cannot write the page: {error}")))?;
    print(&String::from_utf8_lossy(&text))
}
