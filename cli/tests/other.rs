//! cost, migrate, completions, man and --help.

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
fn what_the_comparison_rests_on_is_said_in_it() {
    let text = kubehose("cost --record-bytes 300 --per-second 1000").fine();
    for said in ["Datadog is not known to split", "stored compressed", "List prices of"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    // A GB that is kept for a month is billed as 0.15 GB.
    let kept = |months: &str| {
        let line = format!(
            "cost --record-bytes 5120 --per-second 1000 --cloudwatch-per-gb 0 --cloudwatch-kept-per-gb 1 --kept-months {months}"
        );
        let text = kubehose(&line).fine();
        let row = text.lines().find(|line| line.starts_with("CloudWatch")).unwrap();
        let words: Vec<f64> = row.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        words[1] / words[0]
    };
    assert!((kept("1") - 0.15).abs() < 1e-4 && (kept("4") - 0.6).abs() < 1e-4, "{} {}", kept("1"), kept("4"));
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

const CLASSIC: &str = "# Ours.
[SERVICE]
    Flush 1
    storage.path /var/lib/router

[INPUT]
    Name             tail
    Tag              kube.*
    Path             /var/log/containers/*.log
    multiline.parser cri
    storage.type     filesystem

[OUTPUT]
    Name                kinesis_firehose
    Match               kube.*
    # The stream of the team.
    region              ${AWS_REGION}
    delivery_stream     logs
    time_key            date
    time_key_format     %Y-%m-%dT%H:%M:%S.%LZ
    auto_retry_requests true
    tls                 On
    net.keepalive       Off
    Retry_Limit         5

[OUTPUT]
    Name            firehose
    Match           kube.other.*
    region          eu-west-1
    delivery_stream other
    experimental_concurrency 4
    Workers         3

[OUTPUT]
    Name  stdout
    Match *
";

const YAML: &str = "pipeline:
  inputs:
    - name: dummy
      tag: a
  outputs:
    - name: kinesis_firehose
      match: a
      region: eu-west-1
      delivery_stream: logs
      auto_retry_requests: true
      retry_limit: 5
";

#[test]
fn a_migrated_configuration_is_one_that_lint_passes() {
    for (name, text) in [("classic.conf", CLASSIC), ("pipeline.yaml", YAML)] {
        let (_dir, path) = scratch(name, text);
        let done = run(support::command().args(["migrate", &path.display().to_string()]));
        golden(&format!("migrate-{name}.notes"), &done.stderr);
        let migrated = done.fine();
        golden(&format!("migrate-{name}"), &migrated);
        let (_dir, path) = scratch(name, &migrated);
        let linted = kubehose(&format!("lint {}", path.display()));
        assert_eq!(linted.code, 0, "{linted:?}");
    }
}

#[test]
fn what_cannot_be_migrated_says_why() {
    let manifest = kubehose("manifest --guide --region eu-west-1 --delivery-stream logs").fine();
    for (text, said) in [
        (manifest.as_str(), "kubehose manifest"),
        ("[OUTPUT]\n    Name stdout\n    Match *\n", "no output firehose"),
        ("[OUTPUT]\n    Name\n", "line 2"),
        ("a: [", "kubehose lint"),
    ] {
        let refused = kubehose_with(&["migrate", "-"], text.as_bytes());
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains(said), "{said}: {refused:?}");
    }
    assert_eq!(kubehose_with(&["migrate", "-"], b"\xff\xfe").code, 2);
    assert_eq!(kubehose_with(&["migrate", "-"], CLASSIC.repeat(4000).as_bytes()).code, 2);
}

#[test]
fn an_endpoint_on_every_address_says_so_and_where_it_is_reached() {
    use std::io::BufRead as _;
    for (listen, everywhere) in [("127.0.0.1:0", false), ("0.0.0.0:0", true), ("[::]:0", true)] {
        let mut endpoint = support::command();
        endpoint.args(["firehose", "--listen", listen]).stderr(std::process::Stdio::piped());
        let mut endpoint = endpoint.spawn().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(endpoint.stderr.take().unwrap()).read_line(&mut line).unwrap();
        endpoint.kill().unwrap();
        endpoint.wait().unwrap();
        let address = listen.trim_end_matches(":0");
        assert!(
            line.contains("listening on http://127.0.0.1:") || line.contains("listening on http://[::1]:"),
            "{line}"
        );
        assert_eq!(line.contains(&format!("on {address}:")) && line.contains("every address"), everywhere, "{line}");
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
