//! cost, completions, man and --help.

#![allow(clippy::unwrap_used)]

mod support;

use support::{golden, kubehose, kubehose_with, run, scratch};

#[test]
fn the_cost_of_a_sample() {
    let lines = format!("{}\n{}\n", "x".repeat(899), "y".repeat(6000));
    let sample = kubehose_with(&["cost", "--sample", "-", "--per-second", "200", "--routers", "10"], lines.as_bytes());
    golden("cost-sample.txt", &sample.fine());
    golden("cost-bytes.txt", &kubehose("cost --record-bytes 300 --per-second 1000").fine());
    golden(
        "cost-prices.txt",
        &kubehose("cost --record-bytes 300 --per-second 1 --firehose-per-gb 1 --cloudwatch-per-gb 0 --kept-months 0")
            .fine(),
    );
}

#[test]
fn a_small_log_is_billed_seventeen_times() {
    let text = kubehose("cost --record-bytes 300 --per-second 1000").fine();
    assert!(text.contains("17.1 times"), "{text}");
}

#[test]
fn a_cost_of_nothing_is_refused() {
    for line in [
        "cost --record-bytes 0 --per-second 1",
        "cost --record-bytes 10 --per-second 0",
        "cost --record-bytes 10 --per-second nan",
        "cost --per-second 1",
        "cost --sample /no/such/file --per-second 1",
        "cost --sample /dev/null --per-second 1",
    ] {
        assert_eq!(kubehose(line).code, 2, "{line}");
    }
}

/// The subcommands that `kubehose --help` lists.
fn subcommands() -> Vec<String> {
    let help = kubehose("--help").fine();
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
    list.lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|name| name != "help")
        .collect()
}

#[test]
fn every_help_has_an_example() {
    let names = subcommands();
    assert!(names.len() >= 12, "{names:?}");
    for name in names {
        let help = kubehose(&format!("{name} --help")).fine();
        assert!(help.contains(&format!("kubehose {name}")) && help.contains("Example"), "{name}: {help}");
    }
}

#[test]
fn shells_and_man_get_their_pages() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = kubehose(&format!("completions {shell}")).fine();
        for name in ["manifest", "delivery-stream", "lint"] {
            assert!(text.contains(name), "{shell} knows no {name}");
        }
    }
    let bash = kubehose("completions bash").fine();
    let (_dir, path) = scratch("completion.bash", &bash);
    assert_eq!(run(std::process::Command::new("bash").arg("-n").arg(path)).code, 0);
    let page = kubehose("man").fine();
    assert!(page.starts_with(".ie") || page.contains(".TH kubehose"), "{page}");
    assert!(kubehose("man lint").fine().contains("sarif"));
    assert_eq!(kubehose("man nothing").code, 2);
}

#[test]
fn the_version_names_the_revision() {
    let version = kubehose("--version").fine();
    assert!(version.starts_with(&format!("kubehose {} (", env!("CARGO_PKG_VERSION"))), "{version}");
}

#[test]
fn a_misspelt_subcommand_is_a_usage_error() {
    let refused = kubehose("manifst");
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("manifest") && refused.stdout.is_empty(), "{refused:?}");
}
