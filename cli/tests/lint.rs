//! lint finds what is broken where it is broken, is quiet about what is right, and survives what is neither.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{golden, kubehose, kubehose_with, scratch};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lint")
}

/// The findings over a file: rule, line, severity.
fn findings(file: &str) -> Vec<(String, u64, String)> {
    let run = kubehose(&format!("lint --format json {file}"));
    assert!(run.code < 2, "{run:?}");
    let list: Vec<Value> = serde_json::from_str(&run.stdout).unwrap();
    let errors = list.iter().any(|finding| finding["severity"] == "error");
    assert_eq!(run.code, i32::from(errors), "{run:?}");
    list.iter()
        .map(|finding| {
            let word = |key: &str| finding[key].as_str().unwrap().to_owned();
            (word("rule"), finding["line"].as_u64().unwrap(), word("severity"))
        })
        .collect()
}

/// `expected.txt`: file, rule, line.
fn expected() -> Vec<(String, String, u64)> {
    let text = std::fs::read_to_string(folder().join("expected.txt")).unwrap();
    let words = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap(), words.next().unwrap().parse().unwrap())
    };
    text.lines().map(words).collect()
}

#[test]
fn each_broken_file_has_its_finding_on_its_line() {
    let mut wrong = Vec::new();
    for (file, rule, line) in expected() {
        let found = findings(&folder().join(&file).display().to_string());
        if !found.iter().any(|(id, at, _)| *id == rule && *at == line) {
            wrong.push(format!("{file}: expected {rule} on line {line}, found {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a broken file brings along besides the rule that it is named after.
#[test]
fn a_broken_file_has_few_other_findings() {
    let mut text = String::new();
    for (file, rule, _) in expected() {
        let others: Vec<String> = findings(&folder().join(&file).display().to_string())
            .into_iter()
            .filter(|(id, ..)| *id != rule)
            .map(|(id, line, _)| format!("{id}:{line}"))
            .collect();
        if !others.is_empty() {
            text.push_str(&format!("{file}: {}\n", others.join(" ")));
        }
    }
    golden("lint-others.txt", &text);
}

#[test]
fn every_rule_has_a_broken_file() {
    let table = kubehose("lint --rules").fine();
    let rules: HashSet<&str> = table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    let shown: HashSet<String> = expected().into_iter().map(|(_, rule, _)| rule).collect();
    assert!(rules.len() >= 40, "{}", rules.len());
    let missing: Vec<&&str> = rules.iter().filter(|rule| !shown.contains(**rule)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    golden("lint-rules.txt", &table);
}

#[test]
fn what_is_right_is_passed() {
    for file in ["good.yaml", "good.conf", "good-fluent-bit.yaml"] {
        assert_eq!(findings(&folder().join(file).display().to_string()), [], "{file}");
    }
}

#[test]
fn what_is_generated_is_passed() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for file in
        ["fargate", "fargate-preserve", "fargate-override", "fargate-small", "daemonset", "daemonset-small", "sidecar"]
    {
        assert_eq!(findings(&golden.join(format!("{file}.yaml")).display().to_string()), [], "{file}");
    }
    // --no-cri is the user's own choice, and said to be one.
    let none = findings(&golden.join("fargate-none.yaml").display().to_string());
    assert_eq!(none.iter().map(|(rule, ..)| rule.as_str()).collect::<Vec<_>>(), ["cri-parser"]);
}

#[test]
fn the_guides_own_lacks_the_label_and_the_parser() {
    let guide = kubehose("manifest --guide --region eu-west-1 --delivery-stream logs").fine();
    let unlabelled = format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: aws-observability\n---\n{guide}");
    let (_dir, path) = scratch("guide.yaml", &unlabelled);
    let found = findings(&path.display().to_string());
    assert_eq!(found.iter().map(|(rule, ..)| rule.as_str()).collect::<Vec<_>>(), ["namespace-label", "cri-parser"]);
    let (_dir, path) = scratch("guide.yaml", &guide);
    let found = findings(&path.display().to_string());
    assert_eq!(found.iter().map(|(rule, ..)| rule.as_str()).collect::<Vec<_>>(), ["namespace-unseen", "cri-parser"]);
}

#[test]
fn the_namespace_may_come_in_another_file() {
    let guide = kubehose("manifest --guide --region eu-west-1 --delivery-stream logs").fine();
    let labelled =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: aws-observability, labels: {aws-observability: enabled}}\n";
    let (_one, config_map) = scratch("guide.yaml", &guide);
    let (_two, namespace) = scratch("namespace.yaml", labelled);
    let found = findings(&format!("{} {}", config_map.display(), namespace.display()));
    assert_eq!(found.iter().map(|(rule, ..)| rule.as_str()).collect::<Vec<_>>(), ["cri-parser"]);
}

#[test]
fn a_list_out_of_the_cluster_is_read_like_its_items() {
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "aws-observability"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "aws-logging", "namespace": "aws-observability"},
         "data": {"output.conf": "[OUTPUT]\n    Name stdout\n    Match *\n"}}
    ]});
    let run = kubehose_with(&["lint", "-"], list.to_string().as_bytes());
    assert_eq!(run.code, 1);
    for rule in ["namespace-label", "output-not-allowed"] {
        assert!(run.stdout.contains(rule), "{run:?}");
    }
}

#[test]
fn every_format_says_the_same() {
    let dir = folder();
    for format in ["text", "json", "github", "sarif"] {
        let run = support::run(support::command().current_dir(&dir).args([
            "lint",
            "--format",
            format,
            "placeholder.yaml",
            "cri-parser.yaml",
        ]));
        assert_eq!(run.code, 1);
        golden(&format!("lint.{format}"), &run.stdout);
    }
}

#[test]
fn hostile_input_ends_in_under_a_second() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for n in 1..40 {
        let alias = vec![format!("*a{}", n - 1); 9].join(", ");
        laughs.push_str(&format!("a{n}: &a{n} [{alias}]\n"));
    }
    let laughs_in_a_manifest =
        format!("kind: ConfigMap\napiVersion: v1\nmetadata: {{name: aws-logging}}\ndata:\n  x:\n{}", {
            laughs.lines().map(|line| format!("    {line}\n")).collect::<String>()
        });
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("prose", b"this is not a manifest: at all: [".to_vec()),
        ("10 MB of one key", "a: b\n".repeat(2 << 20).into_bytes()),
        ("2 MB of one key", "a: b\n".repeat(400_000).into_bytes()),
        ("2 MB of sections", "[OUTPUT]\n  Name x\n".repeat(110_000).into_bytes()),
        ("binary", (0..=255u8).cycle().take(1 << 20).collect()),
        ("laughs", laughs.into_bytes()),
        ("laughs in a manifest", laughs_in_a_manifest.into_bytes()),
        ("deep flow", "[".repeat(2 << 20).into_bytes()),
        ("deep maps", "{a: ".repeat(1 << 19).into_bytes()),
        ("deep blocks", (0..2000).map(|n| format!("{}a:\n", " ".repeat(n))).collect::<String>().into_bytes()),
        ("an alias of itself", b"a: &a [*a]\n".to_vec()),
        ("2 MB of anchors", (0..110_000).map(|n| format!("k{n}: &x{n} y\n")).collect::<String>().into_bytes()),
        ("one long line", format!("[OUTPUT]\n    Name {}\n", "x".repeat(2_000_000)).into_bytes()),
    ];
    for (name, input) in cases {
        let start = Instant::now();
        let run = kubehose_with(&["lint", "--format", "json", "-"], &input);
        let took = start.elapsed();
        assert_eq!(run.code, 1, "{name}: {} {}", run.stderr, &run.stdout[..run.stdout.len().min(500)]);
        assert!(took < Duration::from_secs(1), "{name} took {took:?}");
    }
}

#[test]
fn a_file_that_is_not_there_is_no_finding() {
    let run = kubehose("lint /no/such/file.yaml");
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("/no/such/file.yaml") && run.stdout.is_empty(), "{run:?}");
    assert_eq!(kubehose("lint").code, 2);
}
