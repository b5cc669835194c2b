//! cost, completions, man, --help, and the environment variables.

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
fn a_cost_without_records_is_rejected() {
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
fn every_help_explains_the_exit_codes() {
    assert!(kubehose("--help").fine().contains("Exit codes:\n  0  "));
    for name in subcommands() {
        let help = kubehose(&format!("{name} --help")).fine();
        let codes = help.split("Exit codes:\n").nth(1).unwrap_or_else(|| panic!("{name}: {help}"));
        let codes: Vec<&str> = codes.lines().take_while(|line| line.starts_with("  ")).collect();
        assert!(codes.len() >= 2 && codes[0].starts_with("  0  "), "{name}: {codes:?}");
        // A wrong command line has one of the documented exit codes.
        let wrong = kubehose(&format!("{name} --no-such-option"));
        assert!(codes.iter().any(|line| line.starts_with(&format!("  {}  ", wrong.code))), "{name}: {codes:?}");
    }
}

/// Runs a command with these environment variables.
fn with_environment(line: &str, variables: &[(&str, &str)]) -> support::Run {
    run(support::command().args(line.split_whitespace()).envs(variables.iter().copied()))
}

#[test]
fn the_region_comes_from_either_variable_and_an_empty_one_is_none() {
    let line = "manifest --delivery-stream logs";
    let region = |variables: &[(&str, &str)]| {
        let run = with_environment(line, variables);
        let text = run.stdout.lines().find(|line| line.contains("region ")).map(|line| line.trim().to_owned());
        (run.code, text.unwrap_or_default().split_whitespace().last().unwrap_or_default().to_owned())
    };
    let is = |code: i32, region: &str| (code, region.to_owned());
    assert_eq!(region(&[("AWS_REGION", "eu-west-1")]), is(0, "eu-west-1"));
    assert_eq!(region(&[("AWS_DEFAULT_REGION", "eu-west-2")]), is(0, "eu-west-2"));
    assert_eq!(region(&[("AWS_REGION", "eu-west-1"), ("AWS_DEFAULT_REGION", "eu-west-2")]), is(0, "eu-west-1"));
    assert_eq!(region(&[("AWS_REGION", ""), ("AWS_DEFAULT_REGION", "eu-west-2")]), is(0, "eu-west-2"));
    assert_eq!(region(&[("AWS_REGION", ""), ("AWS_DEFAULT_REGION", "")]), is(2, ""));
    assert_eq!(region(&[]), is(2, ""));
    for other in ["iam-policy --account 123456789012 --delivery-stream logs", "verify --permissions"] {
        for variables in [&[("AWS_REGION", "")][..], &[("AWS_REGION", ""), ("AWS_DEFAULT_REGION", "eu-west-2")]] {
            let run = with_environment(other, variables);
            assert!(!run.stderr.contains("invalid value"), "{other}: {run:?}");
        }
    }
    let empty = with_environment(line, &[("AWS_REGION", "")]);
    assert!(empty.stderr.contains("--region"), "{empty:?}");
    let given = with_environment(&format!("{line} --region us-east-1"), &[("AWS_DEFAULT_REGION", "eu-west-2")]);
    assert!(given.stdout.contains("us-east-1") && !given.stdout.contains("eu-west-2"), "{given:?}");
}

#[test]
fn a_site_is_known_by_any_of_its_names() {
    let place = "--region eu-west-1 --account 123456789012 --delivery-stream logs --format terraform";
    let stream = |site: &str| kubehose(&format!("delivery-stream --site {site} {place}"));
    let eu = stream("eu").fine();
    for site in ["EU", "eu1", "EU1", "datadoghq.eu", "app.datadoghq.eu", "https://app.datadoghq.eu/logs"] {
        assert_eq!(stream(site).fine(), eu, "{site}");
    }
    assert!(stream("UK1").fine().contains("logs.uk1.datadoghq.com"));
    assert!(stream("US1_FED").fine().contains("ddog-gov.com"));
    for (wrong, said) in [("eu2", "US1-FED"), ("US2-FED", "no intake")] {
        let refused = stream(wrong);
        assert!(refused.code == 2 && refused.stderr.contains(said) && refused.stderr.contains("--site"), "{refused:?}");
    }
}

#[test]
fn counts_of_one_are_singular() {
    let one = kubehose_with(&["preview"], b"{\"log\":\"a\"}\n");
    assert!(one.stderr.contains("1 event, 1 record of 12 bytes in 1 batch;"), "{one:?}");
    let two = kubehose_with(&["preview"], b"{\"log\":\"a\"}\n{\"log\":\"b\"}\n");
    assert!(two.stderr.contains("2 events, 2 records of 24 bytes in 1 batch;"), "{two:?}");
    let (_dir, path) = scratch("a.conf", "[SERVICE]\n    Flush 1\n");
    assert!(kubehose(&format!("lint {}", path.display())).stderr.contains("1 file: 0 errors, 0 warnings"));
}

#[test]
fn completions_and_man_pages_are_generated() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = kubehose(&format!("completions {shell}")).fine();
        for name in ["manifest", "delivery-stream", "lint"] {
            assert!(text.contains(name), "{shell} does not complete {name}");
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

#[test]
fn the_comparison_names_its_assumptions() {
    let text = kubehose("cost --record-bytes 300 --per-second 1000").fine();
    for said in ["Datadog is not known to split", "stored compressed", "List prices of"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    // A GB stored for a month is billed as 0.15 GB.
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
fn an_endpoint_on_every_address_prints_that_and_a_reachable_url() {
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

#[test]
fn the_policy_of_a_template_allows_the_default_stream_and_the_prefix() {
    let line =
        "iam-policy --region eu-west-1 --account 123456789012 --delivery-stream logs-other --stream-prefix logs-";
    let policy: serde_json::Value = serde_json::from_str(&kubehose(line).fine()).unwrap();
    let arn = "arn:aws:firehose:eu-west-1:123456789012:deliverystream/logs-";
    let expected = serde_json::json!([format!("{arn}other"), format!("{arn}*")]);
    assert_eq!(policy["Statement"][0]["Resource"], expected);
}

#[test]
fn the_preview_of_a_template_shows_each_records_stream() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let events = r#"{"n":1,"kubernetes":{"namespace_name":"shop"}}
{"n":2,"kubernetes":{"namespace_name":"a/b"}}
{"n":3,"kubernetes":{"namespace_name":"shop"}}
"#;
    std::fs::write(file.path(), events).unwrap();
    for aggregated in ["off", "on"] {
        let mut preview = support::command();
        preview.args(["preview", "--format", "json", "-o", "region=eu-west-1", "-o", "max_streams=2", "-o"]);
        preview.args([
            "delivery_stream=logs-$kubernetes['namespace_name']",
            "-o",
            "default_delivery_stream=rest",
            "-o",
        ]);
        let output = preview.arg(format!("simple_aggregation={aggregated}")).arg(file.path()).output().unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let records: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let streams: Vec<(&str, usize)> = records
            .iter()
            .map(|record| {
                let text = record["record"].as_str().unwrap();
                (record["delivery_stream"].as_str().unwrap(), text.lines().count())
            })
            .collect();
        let expected = match aggregated {
            "on" => vec![("logs-shop", 2), ("rest", 1)],
            _ => vec![("logs-shop", 1), ("logs-shop", 1), ("rest", 1)],
        };
        assert_eq!(streams, expected, "{}", String::from_utf8_lossy(&output.stderr));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("event 2: no stream's name comes of it; it goes to rest"), "{told}");
    }
}

/// The records in a preview, each with its stream and its size.
fn previewed(events: &str, options: &[&str]) -> Vec<(String, usize)> {
    let mut preview = support::command();
    preview.args(["preview", "--format", "json", "-o", "region=eu-west-1", "-o", "remap=none"]);
    for option in options {
        preview.args(["-o", option]);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), events).unwrap();
    let output = preview.arg(file.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let record = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        (record["delivery_stream"].as_str().unwrap_or_default().to_owned(), record["record"].as_str().unwrap().len())
    };
    text.lines().map(record).collect()
}

#[test]
fn the_preview_aggregates_no_part_of_an_event_and_obeys_max_streams_like_the_plugin() {
    let events = format!("{{\"log\":\"{}\"}}\n{{\"log\":\"b\"}}\n", "x".repeat(1_100_000));
    let found = previewed(&events, &["delivery_stream=s", "simple_aggregation=on", "oversize=split"]);
    assert_eq!((found.len(), found[2].1), (3, "{\"log\":\"b\"}\n".len()), "{found:?}");
    let events = "{\"log\":\"a\"}\n{\"log\":\"b\"}\n{\"log\":\"a\"}\n";
    let found = previewed(events, &["delivery_stream=$log", "default_delivery_stream=rest", "max_streams=2"]);
    let mut streams: Vec<&str> = found.iter().map(|(stream, _)| stream.as_str()).collect();
    streams.sort_unstable();
    assert_eq!(streams, ["a", "a", "rest"]);
}
