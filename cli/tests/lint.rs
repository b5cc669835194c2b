//! lint reports each fault at its line, accepts correct files, and survives any input.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{golden, kubehose, kubehose_with, scratch};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lint")
}

/// The findings in a file: rule, line, severity.
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

/// The findings of a broken file apart from the rule that it is named after.
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
fn correct_files_pass() {
    for file in ["good.yaml", "good.conf", "good-fluent-bit.yaml"] {
        assert_eq!(findings(&folder().join(file).display().to_string()), [], "{file}");
    }
}

#[test]
fn generated_files_pass() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for file in
        ["fargate", "fargate-preserve", "fargate-override", "fargate-small", "daemonset", "daemonset-small", "sidecar"]
    {
        assert_eq!(findings(&golden.join(format!("{file}.yaml")).display().to_string()), [], "{file}");
    }
    // --no-cri is the user's own choice, so lint reports only its effect.
    let none = findings(&golden.join("fargate-none.yaml").display().to_string());
    assert_eq!(none.iter().map(|(rule, ..)| rule.as_str()).collect::<Vec<_>>(), ["cri-parser"]);
}

#[test]
fn the_guides_manifest_lacks_the_label_and_the_parser() {
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
fn a_list_from_the_cluster_is_read_like_its_items() {
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
fn the_custom_plugins_of_the_fluent_operator_are_judged_where_they_stand() {
    let own =
        kubehose("manifest --target fluent-operator --region eu-west-1 --delivery-stream logs --image x/y:1").fine();
    let run = kubehose_with(&["lint", "--strict", "--fail-on", "warning", "-"], own.as_bytes());
    assert_eq!(run.code, 0, "{run:?}");
    // Each fault, and the line on which it must be reported.
    for (key, value, broken, rule) in [
        ("Workers", "0", "Workers 2", "hot-reload"),
        ("delivery_stream", "logs", "delivery_straem logs", "kubehose-option"),
        ("Merge_Log", "On", "Merge_Lgo On", "option-unknown"),
    ] {
        let mut lines: Vec<String> = own.lines().map(str::to_owned).collect();
        let at = lines.iter().position(|line| line.split_whitespace().eq([key, value])).unwrap();
        lines[at] = lines[at].replacen(lines[at].trim_start(), broken, 1);
        let run = kubehose_with(&["lint", "--format", "json", "-"], lines.join("\n").as_bytes());
        let found: Vec<Value> = serde_json::from_str(&run.stdout).unwrap();
        assert!(found.iter().any(|one| one["line"] == at as u64 + 1), "{rule} on line {}: {found:#?}", at + 1);
        assert_eq!(run.code, i32::from(rule != "hot-reload"), "{broken}: {run:?}");
    }
    // A resource in which lint has nothing to check.
    let typed = "apiVersion: fluentbit.fluent.io/v1alpha2\nkind: ClusterOutput\nmetadata:\n  name: x\nspec:\n  match: '*'\n  es:\n    host: h\n";
    assert_eq!(kubehose_with(&["lint", "--strict", "-"], typed.as_bytes()).code, 3);
}

#[test]
fn files_that_a_kustomization_makes_config_maps_of_are_linted_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "kustomization.yaml",
        "configMapGenerator:\n  - name: fluent-bit\n    files:\n      - router.conf\n      - fluent-bit.yaml=other.txt\n      - notes.txt\n",
    );
    write("router.conf", "[OUTPUT]\n    Name stduot\n    Match *\n");
    write("other.txt", "pipeline:\n  outputs:\n    - name: nlul\n      match: '*'\n");
    write("notes.txt", "[OUTPUT]\n    Name none\n");
    let lint = |path: &Path| support::run(support::command().args(["lint", "--strict"]).arg(path));
    let run = lint(&folder.path().join("kustomization.yaml"));
    assert_eq!(run.code, 1, "{run:?}");
    for (file, wanted) in [("router.conf", true), ("other.txt", true), ("notes.txt", false)] {
        assert_eq!(run.stdout.contains(file), wanted, "{file}: {run:?}");
    }
    // A file that is given twice, because its folder is given too, is read once; a missing one is an error.
    let run = lint(folder.path());
    assert_eq!(run.stdout.matches("router.conf").count(), 1, "{run:?}");
    std::fs::remove_file(folder.path().join("router.conf")).unwrap();
    assert_eq!(lint(&folder.path().join("kustomization.yaml")).code, 2);
}

/// A repository has workflows, charts and values beside its configurations.
#[test]
fn what_is_no_configuration_is_an_error_alone_and_left_out_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("ci.yml", "name: CI\non: push\nenv:\n  A: b\njobs:\n  x:\n    steps: []\n");
    write("list.yaml", "- a\n- b\n");
    let lint = |options: &[&str], path: &Path| support::run(support::command().arg("lint").args(options).arg(path));
    let run = lint(&[], folder.path());
    assert_eq!((run.code, &*run.stdout), (0, ""), "{run:?}");
    assert!(run.stderr.contains("ci.yml: nothing to check") && run.stderr.contains("list.yaml: nothing"), "{run:?}");
    assert_eq!(lint(&["--strict"], folder.path()).code, 3);
    for file in ["ci.yml", "list.yaml"] {
        let run = lint(&[], &folder.path().join(file));
        assert!(run.code == 1 && run.stdout.contains("unknown-document"), "{run:?}");
    }
    // Named beside its folder, it is meant.
    let both = support::run(support::command().arg("lint").arg(folder.path()).arg(folder.path().join("ci.yml")));
    assert!(both.code == 1 && both.stdout.contains("ci.yml") && !both.stdout.contains("list.yaml"), "{both:?}");
    write("router.conf", "[OUTPUT]\n    Name stduot\n    Match *\n");
    assert_eq!(lint(&[], folder.path()).code, 1);
}

#[test]
fn every_format_reports_the_same_findings() {
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
fn hostile_input_ends_in_seconds() {
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
        ("2 MB of documents with aliases", "---\npipeline: [*a]\nenv: &a {}\n".repeat(40_000).into_bytes()),
        ("2 MB of documents", "---\nenv: {a: &a x}\nservice: {b: *a}\n".repeat(40_000).into_bytes()),
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
        let (dir, path) = scratch("input", "");
        std::fs::write(&path, input).unwrap();
        // CPU time, which does not depend on the load of the machine.
        let timed = "TIMEFORMAT='%U %S'; time \"$0\" lint --format json - <\"$1\"";
        let run = support::run(
            std::process::Command::new("bash").args(["-c", timed, env!("CARGO_BIN_EXE_kubehose")]).arg(&path),
        );
        drop(dir);
        assert_eq!(run.code, 1, "{name}: {} {}", run.stderr, &run.stdout[..run.stdout.len().min(500)]);
        let times = run.stderr.lines().last().unwrap();
        let took: f64 = times.split(' ').map(|seconds| seconds.parse::<f64>().unwrap()).sum();
        assert!(took < 10.0, "{name} took {took} s of CPU");
    }
}

#[test]
fn a_file_that_is_not_there_is_no_finding() {
    let run = kubehose("lint /no/such/file.yaml");
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("/no/such/file.yaml") && run.stdout.is_empty(), "{run:?}");
    assert_eq!(kubehose("lint").code, 2);
}

/// Configurations that lint once judged wrongly: the expected findings follow what Fluent Bit 5.1.1 does with each.
#[test]
fn each_former_misjudgement_now_agrees_with_fluent_bit() {
    let cases: [(&str, &[(&str, u64)]); 14] = [
        ("one-input-one-output.conf", &[]),
        ("key-twice.yaml", &[]),
        ("comment-indent.conf", &[("indent", 3)]),
        ("grep-of-one-word.conf", &[("arity", 7)]),
        ("modify-of-one-word.conf", &[("arity", 7)]),
        ("record-of-one-word.conf", &[("arity", 7)]),
        ("output-misspelt.conf", &[("plugin-unknown", 5)]),
        (
            "yaml-in-a-configmap.yaml",
            &[("match-nothing", 16), ("region", 17), ("stream-name", 18), ("option-unknown", 19)],
        ),
        ("chart-values.yaml", &[]),
        ("kinesis-streams-on-fargate.yaml", &[("output-not-allowed", 9)]),
        ("tls-on.conf", &[("tls-on", 10)]),
        ("options-in-conflict.conf", &[("options-together", 15)]),
        ("option-twice.conf", &[("option-twice", 7)]),
        ("task-definition.json", &[]),
    ];
    let folder = folder().join("cases");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), cases.len());
    for (file, expected) in cases {
        let path = folder.join(file).display().to_string();
        let errors: Vec<(String, u64)> = findings(&path)
            .into_iter()
            .filter(|(_, _, severity)| severity == "error")
            .map(|(rule, line, _)| (rule, line))
            .collect();
        let expected: Vec<(String, u64)> = expected.iter().map(|(rule, line)| ((*rule).to_owned(), *line)).collect();
        assert_eq!(errors, expected, "{file}");
        // lint found something to check in each.
        assert_ne!(kubehose(&format!("lint --strict {path}")).code, 3, "{file}");
    }
    let hint = |file: &str| kubehose(&format!("lint {}", folder.join(file).display())).stdout;
    assert!(hint("kinesis-streams-on-fargate.yaml").contains("did you mean kinesis?"));
    assert!(hint("output-misspelt.conf").contains("did you mean firehose?"));
}

const TWO_FAULTS: &str = "[INPUT]
    Name dummy
[OUTPUT]
    Name kubehose
    Match *
    region eu-west-1
    delivery_stream logs
    flush_timeout never
";

/// The rules that lint reports with these arguments, and its exit code.
fn rules_of(words: &str) -> (Vec<String>, i32) {
    let run = kubehose(&format!("lint --format json {words}"));
    let list: Vec<Value> = serde_json::from_str(&run.stdout).unwrap();
    (list.iter().map(|finding| finding["rule"].as_str().unwrap().to_owned()).collect(), run.code)
}

#[test]
fn a_rule_is_ignored_by_an_option_or_by_a_comment() {
    let (_dir, path) = scratch("a.conf", TWO_FAULTS);
    let path = path.display();
    assert_eq!(
        rules_of(&format!("{path}")),
        (vec!["workers".to_owned(), "retry-limit".into(), "option-value".into()], 1)
    );
    assert_eq!(
        rules_of(&format!("--ignore option-value {path}")),
        (vec!["workers".to_owned(), "retry-limit".into()], 0)
    );
    assert_eq!(rules_of(&format!("--ignore option-value --ignore workers --ignore retry-limit {path}")), (vec![], 0));
    let commented = [
        format!("# kubehose-lint: ignore option-value\n{TWO_FAULTS}"),
        format!("{TWO_FAULTS}# kubehose-lint: ignore option-value, cri-parser\n"),
        TWO_FAULTS.replace("    region", "    # kubehose-lint: ignore option-value\n    region"),
    ];
    for text in commented {
        let (_dir, path) = scratch("a.conf", &text);
        assert_eq!(
            rules_of(&path.display().to_string()),
            (vec!["workers".to_owned(), "retry-limit".into()], 0),
            "{text}"
        );
    }
    // The comment applies to its own file only.
    let (_one, silent) = scratch("a.conf", &format!("# kubehose-lint: ignore option-value\n{TWO_FAULTS}"));
    assert_eq!(rules_of(&format!("{path} {}", silent.display())).1, 1);
    let wrong = kubehose(&format!("lint --ignore option-valu {path}"));
    assert!(wrong.code == 2 && wrong.stderr.contains("did you mean option-value?"), "{wrong:?}");
}

#[test]
fn the_exit_code_is_that_of_the_severity_asked_for() {
    let (_dir, warned) = scratch("a.conf", &TWO_FAULTS.replace("    flush_timeout never\n", ""));
    let (_other, right) = scratch("a.conf", "[SERVICE]\n    Flush 1\n");
    let code = |words: &str, path: &Path| kubehose(&format!("lint {words} {}", path.display())).code;
    assert_eq!(code("", &warned), 0);
    assert_eq!(code("--fail-on error", &warned), 0);
    assert_eq!(code("--fail-on warning", &warned), 1);
    assert_eq!(code("--fail-on warning", &right), 0);
    assert_eq!(code("--fail-on warning --ignore workers --ignore retry-limit", &warned), 0);
    assert_eq!(code("--fail-on never", &right), 2);
}

#[test]
fn with_strict_a_file_that_has_nothing_to_check_is_exit_3() {
    let service = "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n";
    let (_dir, nothing) = scratch("service.yaml", service);
    let (_other, right) = scratch("a.conf", "[SERVICE]\n    Flush 1\n");
    let (_third, wrong) = scratch("a.conf", TWO_FAULTS);
    let lint = |words: &str, files: &[&Path]| {
        let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
        kubehose(&format!("lint {words} {}", files.join(" ")))
    };
    let run = lint("", &[&nothing]);
    assert!(run.code == 0 && run.stderr.contains("service.yaml: nothing to check"), "{run:?}");
    assert_eq!(lint("--strict", &[&nothing]).code, 3);
    assert_eq!(lint("--strict", &[&nothing, &right]).code, 3);
    assert_eq!(lint("--strict", &[&right]).code, 0);
    // Errors take precedence over missing content.
    assert_eq!(lint("--strict", &[&nothing, &wrong]).code, 1);
}

#[test]
fn for_fargate_a_bare_file_is_judged_as_a_part_of_aws_logging() {
    let own = "[INPUT]\n    Name tail\n    Path /a\n[OUTPUT]\n    Name kubehose\n    Match *\n    region ${AWS_REGION}\n    delivery_stream logs\n    Workers 1\n    Retry_Limit no_limits\n";
    let (_dir, path) = scratch("output.conf", own);
    assert_eq!(rules_of(&path.display().to_string()), (vec![], 0));
    let (found, code) = rules_of(&format!("--target fargate {}", path.display()));
    assert_eq!(code, 1);
    for rule in ["section-not-allowed", "output-not-allowed", "environment-not-allowed"] {
        assert!(found.iter().any(|found| found == rule), "{found:?}");
    }
    let right =
        "[OUTPUT]\n    Name kinesis_firehose\n    Match kube.*\n    region eu-west-1\n    delivery_stream logs\n";
    let (_dir, path) = scratch("output.conf", right);
    assert_eq!(rules_of(&format!("--target fargate {}", path.display())), (vec![], 0));
}

#[test]
fn a_folder_is_its_configurations_and_one_unreadable_file_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    std::fs::create_dir_all(dir.path().join("deep/.git")).unwrap();
    write("deep/a.conf", TWO_FAULTS);
    write("deep/.git/b.conf", TWO_FAULTS);
    write("c.txt", TWO_FAULTS);
    write("d.yaml", "pipeline:\n  outputs: {}\n");
    std::os::unix::fs::symlink("..", dir.path().join("deep/up")).unwrap();
    let run = kubehose(&format!("lint --format json {}", dir.path().display()));
    let list: Vec<Value> = serde_json::from_str(&run.stdout).unwrap();
    let files: HashSet<&str> = list.iter().map(|finding| finding["file"].as_str().unwrap()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(run.stderr.contains("2 files: 2 errors"), "{}", run.stderr);

    let one = dir.path().join("deep/a.conf");
    let run = kubehose(&format!("lint /no/such.conf {} /nor/this.conf", one.display()));
    assert_eq!(run.code, 2);
    assert!(run.stdout.contains("option-value") && run.stderr.contains("2 files could not be read"), "{run:?}");
}

#[test]
fn a_template_of_streams_is_judged_as_the_plugin_does() {
    let of = |options: &str| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fluent-bit.conf");
        let output =
            "[OUTPUT]\n    Name kubehose\n    Match *\n    region eu-west-1\n    Workers 1\n    Retry_Limit 5\n";
        std::fs::write(&file, format!("[INPUT]\n    Name dummy\n{output}{options}")).unwrap();
        let found = findings(file.to_str().unwrap());
        found.into_iter().filter(|(_, _, severity)| severity == "error").map(|(rule, ..)| rule).collect::<Vec<_>>()
    };
    let template = "    delivery_stream logs-$kubernetes['namespace_name']\n";
    let default = "    default_delivery_stream logs-other\n";
    assert_eq!(of(&format!("{template}{default}")), [""; 0]);
    for wrong in [
        template.to_owned(),
        format!("    delivery_stream logs-$0\n{default}"),
        format!("    delivery_stream logs\n{default}"),
        format!("{template}    default_delivery_stream a/b\n"),
        format!("{template}{default}    max_streams 1\n"),
    ] {
        assert_eq!(of(&wrong).len(), 1, "{wrong}: {:?}", of(&wrong));
    }
}

/// What real Fluent Bit, FireLens and the charts accept, in the forms of other people's repositories.
#[test]
fn what_works_elsewhere_is_no_error() {
    let rest = "[OUTPUT]\n    Name stdout\n    Match *\n";
    let dummy = "[INPUT]\n    Name dummy\n    Tag a\n";
    let task = |log: &str| {
        format!(
            "{{\"family\": \"t\", \"containerDefinitions\": [{{\"name\": \"app\", \"logConfiguration\": {{\"logDriver\": \"awsfirelens\"{log}}}}}]}}"
        )
    };
    let named = "\"Name\": \"kinesis_firehose\", \"region\": \"us-west-2\"";
    let cases = [
        // Files of other programs in a ConfigMap.
        ("grafana.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\ndata:\n  grafana.ini: |\n    [server]\n    http_port = 3000\n".to_owned()),
        // Options that ECS reads itself; those from a secret; an output in a file of the router's; Fluentd.
        ("own.json", task(&format!(", \"options\": {{{named}, \"delivery_stream\": \"s\", \"log-driver-buffer-limit\": \"2097152\", \"exclude-pattern\": \"x\"}}"))),
        ("secret.json", task(&format!(", \"options\": {{{named}}}, \"secretOptions\": [{{\"name\": \"delivery_stream\", \"valueFrom\": \"arn:aws:ssm:us-east-1:111111111111:parameter/x\"}}]"))),
        ("file.json", task("")),
        ("limit.json", task(", \"options\": {\"log-driver-buffer-limit\": \"2097152\"}")),
        ("fluentd.json", task(", \"options\": {\"@type\": \"kinesis_firehose\", \"delivery_stream_name\": \"s\"}")),
        ("extra.conf", format!("{dummy}[OUTPUT]\n    Name stdout\n    Match app-firelens*\n{rest}")),
        // Values of which a chart makes the output.
        ("values.yaml", "firehose:\n  enabled: true\n  region: us-east-1\n  deliveryStream: s\n".to_owned()),
        // Tags that inputs, filters and the stream processor make.
        ("http.conf", "[INPUT]\n    Name http\n    Tag web\n[OUTPUT]\n    Name stdout\n    Match app.log\n".to_owned()),
        ("forward.conf", "[INPUT]\n    Name forward\n    Tag f\n    Tag_Prefix p.\n[OUTPUT]\n    Name stdout\n    Match p.*\n".to_owned()),
        ("metrics.conf", format!("{dummy}[FILTER]\n    Name log_to_metrics\n    Match a\n    Tag m\n    metric_mode counter\n    metric_name n\n    metric_description d\n[OUTPUT]\n    Name stdout\n    Match m\n")),
        ("streams.conf", format!("[SERVICE]\n    Streams_File s.conf\n{dummy}[OUTPUT]\n    Name stdout\n    Match results\n")),
        // One input goes to one output without a Match.
        ("one.conf", format!("{dummy}[FILTER]\n    Name grep\n    Match *\n    Regex message dummy\n[OUTPUT]\n    Name stdout\n")),
        // A key of ECS at the root.
        ("ecs.conf", format!("{dummy}[FILTER]\n    Name modify\n    Match *\n    Rename container_name app\n{rest}")),
        // Options of a library, and of a plugin without a table.
        ("kafka.conf", format!("{dummy}[OUTPUT]\n    Name kafka\n    Match *\n    Brokers b:9092\n    Topics t\n    rdkafka.request.required.acks 1\n")),
        ("pgsql.conf", format!("{dummy}[OUTPUT]\n    Name pgsql\n    Match *\n    User u\n    Database d\n")),
        ("variable.conf", format!("{dummy}[FILTER]\n    Name parser\n    Match *\n    Key_Name log\n    Parser ${{PARSER}}\n{rest}")),
    ];
    let (folder, _) = scratch("none", "");
    let mut wrong = Vec::new();
    for (name, text) in cases {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let errors: Vec<_> =
            findings(&file.display().to_string()).into_iter().filter(|(_, _, severity)| severity == "error").collect();
        if !errors.is_empty() {
            wrong.push(format!("{name}: {errors:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A chart's `service` and `env` do not make its values a configuration of Fluent Bit.
#[test]
fn values_of_a_chart_with_a_service_are_looked_through() {
    let (folder, _) = scratch("none", "");
    for head in ["service:\n  type: ClusterIP\n", "env: []\n", "image:\n  tag: x\nservice:\n  labels: {}\n"] {
        let file = folder.path().join("values.yaml");
        let config = "config:\n  outputs: |\n    [OUTPUT]\n        Name kinesis_firehose\n        Match kube.*\n        region Ireland\n        delivery_stream a b\n";
        std::fs::write(&file, format!("{head}{config}")).unwrap();
        let found: Vec<String> = findings(&file.display().to_string()).into_iter().map(|(rule, ..)| rule).collect();
        assert!(found.contains(&"region".to_owned()) && found.contains(&"stream-name".to_owned()), "{head}: {found:?}");
    }
}

/// EKS Fargate's outputs are plugins with types of options, too.
#[test]
fn options_of_fargates_outputs_are_checked() {
    let (folder, _) = scratch("none", "");
    let file = folder.path().join("aws-logging.yaml");
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: aws-logging\n  namespace: aws-observability\ndata:\n  output.conf: |\n    [OUTPUT]\n        Name cloudwatch_logs\n        Match *\n        region eu-west-1\n        log_group_name g\n        log_stream_prefix p\n        auto_create_group maybe\n";
    std::fs::write(&file, text).unwrap();
    let found = findings(&file.display().to_string());
    assert!(found.iter().any(|(rule, line, _)| rule == "option-value" && *line == 14), "{found:?}");
}

/// Lints a text under that name; the rules that are found, with their lines, and the exit code with --strict.
fn lint_text(name: &str, text: &str) -> (Vec<(String, u64)>, i32) {
    let (_folder, path) = scratch(name, text);
    let run = kubehose(&format!("lint --strict --format json {}", path.display()));
    let list: Vec<Value> = serde_json::from_str(&run.stdout).unwrap();
    let found = list.iter().map(|one| (one["rule"].as_str().unwrap().to_owned(), one["line"].as_u64().unwrap()));
    (found.collect(), run.code)
}

/// A file of parsers holds parsers alone; what is included may hold anything.
#[test]
fn only_what_includes_other_sections_leaves_the_pipeline_open() {
    let pipeline = "[INPUT]\n    Name dummy\n    Tag a\n    storage.type filesystem\n[FILTER]\n    Name parser\n    Match a\n    Key_Name log\n    Parser elsewhere\n[OUTPUT]\n    Name stduot\n    Match b\n";
    let all = ["match-nothing", "parser-undefined", "plugin-unknown", "storage-path"];
    for (head, silent) in [
        ("", &[][..]),
        ("[SERVICE]\n    Parsers_File p.conf\n", &["parser-undefined"]),
        ("[SERVICE]\n    Plugins_File p.conf\n", &["plugin-unknown"]),
        ("[SERVICE]\n    Parsers_File p.conf\n    Plugins_File p.conf\n", &["parser-undefined", "plugin-unknown"]),
        ("@INCLUDE other.conf\n", &all),
    ] {
        let (found, _) = lint_text("fluent-bit.conf", &format!("{head}{pipeline}"));
        for rule in all {
            let says = found.iter().any(|(id, _)| id == rule);
            assert_eq!(says, !silent.contains(&rule), "{head:?} {rule}: {found:?}");
        }
    }
    let yaml =
        "pipeline:\n  inputs:\n    - name: dummy\n      tag: a\n  outputs:\n    - name: stdout\n      match: b\n";
    for (head, says) in [("service:\n  parsers_file: p.conf\n", true), ("includes:\n  - p.yaml\n", false)] {
        let (found, _) = lint_text("fluent-bit.yaml", &format!("{head}{yaml}"));
        assert_eq!(found.iter().any(|(id, _)| id == "match-nothing"), says, "{head}: {found:?}");
    }
}

/// The host overwrites what its core reads with what comes later, and says so; it refuses, or takes the first of, all else.
#[test]
fn of_two_entries_the_one_counts_that_fluent_bit_uses() {
    let conf = |tags: &str, matches: &str| {
        format!(
            "[INPUT]\n    Name dummy\n{tags}[INPUT]\n    Name dummy\n    Tag other\n[OUTPUT]\n    Name stdout\n{matches}"
        )
    };
    let (a, b) = ("    Tag a\n    Tag b\n", "    Tag b\n    Tag a\n");
    let (x, y) = ("    Match a\n    match b\n", "    match b\n    Match a\n");
    for (tags, matches, fits) in [(a, x, true), (a, y, false), (b, x, false), (b, y, true)] {
        let (found, _) = lint_text("a.conf", &conf(tags, matches));
        let nothing = found.iter().any(|(id, _)| id == "match-nothing");
        assert_eq!(nothing, !fits, "{tags} {matches}: {found:?}");
    }
    let yaml = "pipeline:\n  inputs:\n    - name: dummy\n      tag: [a, b]\n    - name: dummy\n      tag: c\n  outputs:\n    - name: stdout\n      match: [b, a]\n";
    assert_eq!(lint_text("a.yaml", yaml).0, [("match-nothing".to_owned(), 9)]);
    // Each of them is read.
    for (first, second) in [("loud", "info"), ("info", "loud")] {
        let text = format!(
            "[INPUT]\n    Name dummy\n    Log_Level {first}\n    Log_Level {second}\n[OUTPUT]\n    Name stdout\n    Match *\n"
        );
        assert_eq!(lint_text("a.conf", &text).0.len(), 1, "{first}");
    }
    // Of two names the first counts.
    let (found, _) =
        lint_text("a.conf", "[INPUT]\n    Name dummy\n    Name nope\n[OUTPUT]\n    Name stdout\n    Match *\n");
    assert!(found.is_empty(), "{found:?}");
}

/// A kustomization may do without kind, and a file may hold comments alone: neither has anything to check, neither is wrong.
#[test]
fn what_is_known_and_has_nothing_to_check_is_no_unknown_document() {
    for (name, text) in [
        ("kustomization.yaml", "resources:\n  - a.yaml\n"),
        ("k.yaml", "namespace: logging\nresources: [a.yaml]\npatches:\n  - path: b.yaml\nimages: []\n"),
        ("k.yaml", "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yaml]\n"),
        ("comments.yaml", "# Nothing here.\n"),
        ("comments.yaml", "---\n# Nothing here.\n---\n"),
    ] {
        assert_eq!(lint_text(name, text), (vec![], 3), "{text}");
    }
    for (name, text) in
        [("a.yaml", ""), ("a.yaml", "\n \n"), ("a.yaml", "resource: [a.yaml]\n"), ("a.yaml", "a: b\n---\n# c\n")]
    {
        let (found, code) = lint_text(name, text);
        assert!(code == 1 && found.len() == 1 && found[0].0 == "unknown-document", "{text:?}: {found:?}");
    }
}

/// Options that the schema of a Linux host lacks, on their plugin alone.
#[test]
fn options_of_windows_are_known() {
    let input = |plugin: &str, option: &str| {
        format!("[INPUT]\n    Name {plugin}\n    Path C:\\logs\n    {option}\n[OUTPUT]\n    Name stdout\n    Match *\n")
    };
    assert_eq!(lint_text("a.conf", &input("tail", "Windows.Path_Encoding utf-8")).0, []);
    for (plugin, option) in [("tail", "Windows.Path_Encodin utf-8"), ("head", "Windows.Path_Encoding utf-8")] {
        let (found, _) = lint_text("a.conf", &input(plugin, option));
        assert!(found.iter().any(|(id, line)| id == "option-unknown" && *line == 4), "{plugin}: {found:?}");
    }
}

/// Keys with a prefix that nest gave them exist under that name.
#[test]
fn a_prefix_that_nest_adds_is_part_of_the_name() {
    let conf = |nest: &str, user: &str| {
        format!(
            "[INPUT]\n    Name dummy\n    Tag a\n[FILTER]\n    Name kubernetes\n    Match *\n{nest}[FILTER]\n    Match *\n{user}[OUTPUT]\n    Name stdout\n    Match *\n"
        )
    };
    let lift = |under: &str, prefix: &str| {
        format!(
            "[FILTER]\n    Name nest\n    Match *\n    Operation lift\n    Nested_under {under}\n    Add_prefix {prefix}\n"
        )
    };
    let nest = "[FILTER]\n    Name nest\n    Match *\n    Operation nest\n    Wildcard *\n    Nest_under all\n    Add_prefix k8s_\n";
    let rename = |name: &str| format!("    Name modify\n    Rename {name} x\n");
    let grep = |name: &str| format!("    Name grep\n    Regex {name} x\n");
    for (before, user, wrong) in [
        (lift("other", "k8s_"), rename("k8s_namespace_name"), None),
        (nest.to_owned(), rename("k8s_namespace_name"), None),
        (String::new(), rename("k8s_namespace_name"), Some("rename-before-lift")),
        (lift("other", "o_"), rename("k8s_namespace_name"), Some("rename-before-lift")),
        (lift("log", "log."), grep("log.level"), None),
        (lift("log", "l."), grep("log.level"), Some("dotted-key")),
        (String::new(), grep("log.level"), Some("dotted-key")),
    ] {
        let (found, _) = lint_text("a.conf", &conf(&before, &user));
        let rules: Vec<&str> = found
            .iter()
            .map(|(id, _)| id.as_str())
            .filter(|id| ["rename-before-lift", "dotted-key"].contains(id))
            .collect();
        assert_eq!(rules, wrong.into_iter().collect::<Vec<_>>(), "{before}{user}");
    }
}

/// Of the words of a rule of modify, Fluent Bit refuses a wrong number unless it is three; three are its first rule, Rename.
#[test]
fn the_words_of_modify_are_counted_as_the_filter_counts_them() {
    let found = |line: &str| {
        let text = format!(
            "[INPUT]\n    Name dummy\n    Tag a\n[FILTER]\n    Name modify\n    Match a\n    {line}\n[OUTPUT]\n    Name stdout\n    Match a\n"
        );
        let mut rules: Vec<String> = lint_text("a.conf", &text).0.into_iter().map(|(rule, _)| rule).collect();
        rules.dedup();
        rules.join(" ")
    };
    for (words, one, two) in [
        ("a", "", "arity"),
        ("a b", "arity", ""),
        ("a \"b c\"", "arity", ""),
        ("a b c", "modify-words", "modify-words"),
        ("a ( c", "modify-words", "modify-words"),
        ("a b (", "modify-words regex", "modify-words regex"),
        ("a b c d", "arity", "arity"),
        ("a b c d e", "arity", "arity"),
        ("a 'b c", "option-value", "option-value"),
    ] {
        for (rules, wanted) in [
            (&["Remove", "remove_wildcard", "Remove_regex", "Move_to_start", "Move_to_end"][..], one),
            (&["Rename", "Hard_rename", "set", "Add", "Copy", "Hard_copy"], two),
        ] {
            for rule in rules {
                assert_eq!(found(&format!("{rule} {words}")), wanted, "{rule} {words}");
            }
        }
    }
    for (condition, wanted) in [
        ("Key_exists", "modify-words"),
        ("Key_exists a", ""),
        ("Key_exists a b", ""),
        ("Key_exists a b c", "arity"),
        ("Key_value_equals a", "modify-words"),
        ("Key_value_equals a b", ""),
        ("Key_value_matches a", "arity"),
        ("Key_value_does_not_match a", "arity"),
        ("Matching_keys_have_matching_values a", "arity"),
        ("Matching_keys_do_not_have_matching_values a b", ""),
    ] {
        assert_eq!(found(&format!("Condition {condition}")), wanted, "{condition}");
    }
}

/// What [SERVICE] refuses, what it reads as 0 or as neither on nor off, and what it takes.
#[test]
fn the_values_of_the_service_are_judged_by_type() {
    for (line, wanted) in [
        ("Flush abc", "option-value"),
        ("flush 0", "option-value"),
        ("Flush -1", "option-value"),
        ("Flush 0.2", ""),
        ("Flush 5s", ""),
        ("Flush ${FLUSH}", ""),
        ("Log_Level loud", "option-value"),
        ("Log_Level INFO # more", "option-value"),
        ("Log_Level Warning", ""),
        ("storage.sync off", "option-value"),
        ("storage.sync Full", ""),
        ("Coro_Stack_Size abc", "option-value"),
        ("Coro_Stack_Size 4096", ""),
        ("telemetry on", "option-value"),
        ("Daemon off # no", "option-number"),
        ("HTTP_Server maybe", "option-number"),
        ("storage.metrics maybe", "option-number"),
        ("storage.checksum on", ""),
        ("storage.max_chunks_up many", "option-number"),
        ("storage.backlog.mem_limit 5X", "option-number"),
        ("storage.backlog.mem_limit 5M", ""),
        ("Grace ten", "option-number"),
        ("HTTP_Port 2020", ""),
        ("Whatever abc", ""),
    ] {
        let (found, _) = lint_text(
            "a.conf",
            &format!("[SERVICE]\n    {line}\n[INPUT]\n    Name dummy\n[OUTPUT]\n    Name stdout\n    Match *\n"),
        );
        let rules: Vec<&str> = found.iter().map(|(rule, _)| rule.as_str()).collect();
        assert_eq!(rules.join(" "), wanted, "{line}");
    }
    // Of two only the last is used, but each level is read.
    let twice = |lines: &str| lint_text("a.conf", &format!("[SERVICE]\n{lines}[INPUT]\n    Name dummy\n")).0.len();
    assert_eq!(twice("    Flush abc\n    Flush 1\n"), 0);
    assert_eq!(twice("    Flush 1\n    Flush abc\n"), 1);
    assert_eq!(twice("    Log_Level loud\n    Log_Level info\n"), 1);
}

/// The rule that a pipeline with this section breaks; None for none.
fn only_rule(kind: &str, plugin: &str, lines: &[&str]) -> Option<String> {
    let body: String = lines.iter().map(|line| format!("    {line}\n")).collect();
    let routed = if kind == "INPUT" { "" } else { "    Match *\n" };
    let section = format!("[{kind}]\n    Name {plugin}\n{routed}{body}");
    let (input, output) = ("[INPUT]\n    Name dummy\n    Tag t\n", "[OUTPUT]\n    Name stdout\n    Match *\n");
    let text = match kind {
        "INPUT" => format!("{section}{output}"),
        "OUTPUT" => format!("{input}{section}"),
        _ => format!("{input}{section}{output}"),
    };
    let (found, _) = lint_text("a.conf", &text);
    assert!(found.len() < 2, "{plugin} {lines:?}: {found:?}");
    found.into_iter().next().map(|(rule, _)| rule)
}

/// Each plugin with what it needs, and without each of it.
#[test]
fn a_plugin_without_what_it_needs_is_an_error() {
    for (kind, plugin, lines) in [
        ("INPUT", "tail", &["Path /a"][..]),
        ("INPUT", "exec", &["Command true"]),
        ("FILTER", "lua", &["script a.lua", "call f"]),
        ("FILTER", "lua", &["code x", "call f"]),
        ("FILTER", "multiline", &["multiline.parser cri"]),
        ("FILTER", "type_converter", &["str_key a b string"]),
        ("OUTPUT", "s3", &["bucket b"]),
        ("OUTPUT", "cloudwatch_logs", &["log_group_name g", "log_stream_name s", "region eu-west-1"]),
        ("OUTPUT", "kinesis_streams", &["stream s", "region eu-west-1"]),
        ("OUTPUT", "nrlogs", &["api_key k"]),
        (
            "OUTPUT",
            "azure_kusto",
            &[
                "tenant_id t",
                "client_id c",
                "client_secret s",
                "ingestion_endpoint e",
                "database_name d",
                "table_name t",
            ],
        ),
        ("OUTPUT", "bigquery", &["dataset_id d", "table_id t"]),
        ("OUTPUT", "chronicle", &["customer_id c", "log_type t"]),
        ("OUTPUT", "oracle_log_analytics", &["oci_la_log_source_name s", "oci_la_log_group_id g"]),
        ("OUTPUT", "datadog", &["apikey ${KEY}"]),
    ] {
        assert_eq!(only_rule(kind, plugin, lines), None, "{plugin}");
        for at in 0..lines.len() {
            let mut fewer = lines.to_vec();
            fewer.remove(at);
            assert_eq!(
                only_rule(kind, plugin, &fewer).as_deref(),
                Some("option-missing"),
                "{plugin} without {}",
                lines[at]
            );
        }
    }
    let both = ["log_group_name g", "log_stream_name s", "log_stream_prefix p", "region eu-west-1"];
    assert_eq!(only_rule("OUTPUT", "cloudwatch_logs", &both).as_deref(), Some("options-exclude"));
    // es has a second name, and a region to give where it signs.
    for plugin in ["es", "elasticsearch", "opensearch"] {
        assert_eq!(only_rule("OUTPUT", plugin, &["Index a"]), None, "{plugin}");
        assert_eq!(only_rule("OUTPUT", plugin, &["aws_auth on"]).as_deref(), Some("option-missing"), "{plugin}");
    }
}

#[test]
fn a_compression_is_one_that_the_plugin_was_built_with() {
    let aws = ["gzip", "zstd", "snappy"];
    for (plugin, need, option, good) in [
        ("kinesis_firehose", &["delivery_stream s", "region eu-west-1", "Retry_Limit 5"][..], "compression", &aws[..]),
        ("kinesis_streams", &["stream s", "region eu-west-1"], "compression", &aws),
        ("s3", &["bucket b"], "compression", &["gzip", "zstd", "snappy", "none", "NONE", "arrow", "Parquet"]),
        ("http", &[], "compress", &["gzip", "GZIP", "zstd", "snappy"]),
        ("forward", &[], "compress", &["gzip", "Text"]),
        ("opentelemetry", &[], "compress", &["gzip", "zstd"]),
        // These take what they do not know as none.
        ("es", &[], "compress", &["gzip", "lz4"]),
        ("loki", &[], "compress", &["gzip", "lz4"]),
    ] {
        for value in
            ["gzip", "GZIP", "zstd", "snappy", "none", "NONE", "arrow", "Parquet", "Text", "lz4", "${COMPRESSION}"]
        {
            let line = format!("{option} {value}");
            let mut lines = need.to_vec();
            lines.push(&line);
            let known = value.starts_with('$') || good.contains(&value) || (good.contains(&"lz4"));
            // Where capitals do not count.
            let folded = !["kinesis_firehose", "kinesis_streams", "s3"].contains(&plugin)
                && good.iter().any(|one| one.eq_ignore_ascii_case(value));
            let wanted = (!known && !folded).then_some("option-value");
            let found = only_rule("OUTPUT", plugin, &lines);
            assert_eq!(found.as_deref(), wanted, "{plugin} {line}");
        }
    }
}

/// A comment behind a value is part of it, and a key with blanks alone has no value.
#[test]
fn what_the_core_of_an_input_reads_is_judged_by_type() {
    for (line, wanted) in [
        ("storage.pause_on_chunks_overlimit Off # more", Some("option-value")),
        ("storage.pause_on_chunks_overlimit Off", None),
        ("Threaded maybe", Some("option-value")),
        ("rate_gate on", None),
        ("rate_gate on # more", Some("option-value")),
        ("tls.verify_client_cert maybe", Some("option-value")),
        ("Routable maybe", None),
        ("thread.ring_buffer.window 101", Some("option-value")),
        ("thread.ring_buffer.capacity 0", Some("option-value")),
        ("Mem_Buf_Limit 5M # more", Some("option-value")),
        ("Log_Suppress_Interval 5s", None),
        ("Tag  ", Some("value-missing")),
        ("Tag \t ", Some("value-missing")),
        ("Alias   ", Some("value-missing")),
        ("Rate  ", Some("value-missing")),
    ] {
        assert_eq!(only_rule("INPUT", "dummy", &[line]).as_deref(), wanted, "{line:?}");
    }
    assert_eq!(only_rule("OUTPUT", "stdout", &["Retry_Limit  "]).as_deref(), Some("value-missing"));
}

/// Parsers for several lines in a file of their own, the expression of each rule on its own line.
#[test]
fn the_rules_of_a_multiline_parser_are_judged() {
    for (rules, wanted) in [
        ("    Rule \"start_state\" \"/^a/\" \"next\"\n    Rule \"next\" \"/^b/\" \"next\"\n", None),
        ("    Rule \"start_state\" \"/^a/\"\n", None),
        ("    Rule \"start_state\" \"/^a/\" \"gone\"\n", Some(("option-value", 4))),
        ("    Rule \"begin\" \"/^a/\" \"begin\"\n", Some(("option-value", 4))),
        ("    Rule \"start_state\" \"/^a/\" \"n\"\n    Rule \"n\" \"/(/\" \"n\"\n", Some(("regex", 5))),
        ("    Rule \"start_state\" \"/(?<=a+)b/\" \"start_state\"\n", Some(("regex", 4))),
        ("    Rule start_state\n", Some(("arity", 4))),
    ] {
        let (found, _) = lint_text("parsers.conf", &format!("[MULTILINE_PARSER]\n    Name a\n    Type regex\n{rules}"));
        let found: Vec<(&str, u64)> = found.iter().map(|(rule, line)| (rule.as_str(), *line)).collect();
        assert_eq!(found, wanted.into_iter().collect::<Vec<_>>(), "{rules}");
    }
    assert_eq!(lint_text("parsers.conf", "[MULTILINE_PARSER]\n    Name a\n").0, [("option-missing".to_owned(), 1)]);
    assert_eq!(
        lint_text("parsers.conf", "[MULTILINE_PARSER]\n    Name a\n    Type what\n").0,
        [("option-value".to_owned(), 3)]
    );
}

/// Of each shape that Fluent Bit's reader refuses the line on which it stands.
#[test]
fn a_wrong_shape_is_reported_where_it_stands() {
    let rest = "pipeline:\n  inputs:\n    - name: dummy\n      tag: a\n";
    for (text, line) in [
        (format!("x:\n  a: &a 1\n{rest}      rate: *a\n"), 7),
        (format!("{rest}      rate: {{a: b}}\n"), 5),
        (format!("{rest}      rate: []\n"), 5),
        (format!("{rest}      dummy: [[a]]\n"), 5),
        (format!("env: [A]\n{rest}"), 1),
        (format!("env:\n  A: [b]\n{rest}"), 2),
        (format!("service:\n{rest}"), 1),
        (format!("service:\n  flush: [1]\n{rest}"), 2),
        (format!("parsers:\n  - name: a\n    format: json\n    types: {{a: b}}\n{rest}"), 4),
        ("pipeline:\n".to_owned(), 1),
        ("pipeline:\n  inputs:\n".to_owned(), 2),
        ("pipeline:\n  inputs: [dummy]\n".to_owned(), 2),
        (format!("{rest}      processors:\n        - name: x\n"), 6),
        (format!("{rest}      processors:\n        logs: {{name: x}}\n"), 6),
        (format!("x: [1]\n{rest}"), 1),
    ] {
        let (found, code) = lint_text("a.yaml", &text);
        assert!(code == 1 && found.contains(&("yaml-shape".to_owned(), line)), "{text}: {found:?}");
    }
    for (text, wanted) in [
        (
            "          - name: content_modifier\n            action: insert\n            key: a\n            value: b\n",
            None,
        ),
        ("          - name: content_modifer\n            action: insert\n", Some(("plugin-unknown", 7))),
        (
            "          - name: content_modifier\n            action: insert\n            key: a\n",
            Some(("option-missing", 7)),
        ),
        (
            "          - name: content_modifier\n            action: what\n            key: a\n",
            Some(("option-value", 8)),
        ),
        ("          - name: grep\n            regex: a\n", Some(("arity", 8))),
        ("          - name: grep\n            regx: a b\n", Some(("option-unknown", 8))),
        ("          - action: insert\n", Some(("name-missing", 7))),
    ] {
        let (found, _) = lint_text("a.yaml", &format!("{rest}      processors:\n        logs:\n{text}"));
        let found: Vec<(&str, u64)> = found.iter().map(|(rule, line)| (rule.as_str(), *line)).collect();
        assert_eq!(found, wanted.into_iter().collect::<Vec<_>>(), "{text}");
    }
    let (found, _) = lint_text("a.yaml", &format!("{rest}      alias:\n"));
    assert_eq!(found, [("value-missing".to_owned(), 5)]);
}

/// A NUL byte is UTF-8, and no text all the same.
#[test]
fn a_nul_byte_is_named_where_it_stands() {
    for (bytes, line, message) in
        [(&b"[SERVICE]\n    Flush 1\0\n"[..], 2, "NUL"), (b"a: b\nc: \0\n", 2, "NUL"), (b"\xff\xfe[\0", 1, "not UTF-8")]
    {
        let run = kubehose_with(&["lint", "--format", "json", "-"], bytes);
        let list: Vec<Value> = serde_json::from_str(&run.stdout).unwrap();
        assert!(list.len() == 1 && list[0]["rule"] == "not-text" && list[0]["line"] == line, "{list:?}");
        assert!(list[0]["message"].as_str().unwrap().contains(message), "{list:?}");
    }
}

/// The operator makes kinesis_firehose of its output `firehose`, and a section of a custom plugin's `yamlConfig`.
#[test]
fn typed_outputs_and_yaml_of_the_fluent_operator_are_judged() {
    let resource = |kind: &str, spec: &str| {
        format!(
            "apiVersion: fluentbit.fluent.io/v1alpha2\nkind: {kind}\nmetadata:\n  name: x\nspec:\n  match: '*'\n  retry_limit: no_limits\n{spec}"
        )
    };
    let firehose = |more: &str| format!("  firehose:\n    region: eu-west-1\n    deliveryStream: logs\n{more}");
    for (spec, wanted) in [
        (firehose(""), None),
        (firehose("    compression: lz4\n"), Some(("option-value", 11))),
        (firehose("    logKey: log\n"), Some(("log-key", 11))),
        (firehose("").replace("logs", "arn:aws:firehose:x"), Some(("stream-name", 10))),
        (firehose("").replace("eu-west-1", "Ireland"), Some(("region", 9))),
        ("  customPlugin:\n    yamlConfig:\n      name: stdout\n      format: json\n".to_owned(), None),
        (
            "  customPlugin:\n    yamlConfig:\n      name: stdout\n      fromat: json\n".to_owned(),
            Some(("option-unknown", 11)),
        ),
        (
            "  customPlugin:\n    yamlConfig:\n      name: stdout\n      format: {a: b}\n".to_owned(),
            Some(("yaml-shape", 11)),
        ),
    ] {
        for kind in ["ClusterOutput", "Output"] {
            let (found, code) = lint_text("a.yaml", &resource(kind, &spec));
            let found: Vec<(&str, u64)> = found.iter().map(|(rule, line)| (rule.as_str(), *line)).collect();
            assert_eq!(found, wanted.into_iter().collect::<Vec<_>>(), "{kind} {spec}");
            assert_ne!(code, 3, "{spec}");
        }
    }
}

/// A heredoc is read as the file that it becomes, and reported where it stands in Terraform's.
#[test]
fn configurations_in_heredocs_of_terraform_are_judged() {
    let output = "[OUTPUT]\n    Name kinesis_firehose\n    Match *\n    region ${var.region}\n    delivery_stream logs\n    Retry_Limit no_limits\n";
    let inside = |open: &str, indent: &str, body: &str| {
        let body: String = body.lines().map(|line| format!("{indent}{line}\n")).collect();
        format!(
            "# A comment with <<EOT\nresource \"kubernetes_config_map\" \"a\" {{\n  data = {{\n    \"output.conf\" = {open}\n{body}{indent}EOT\n  }}\n}}\n"
        )
    };
    for (open, indent) in [("<<EOT", ""), ("<<-EOT", "      "), ("<<-EOT", "\t")] {
        assert_eq!(lint_text("a.tf", &inside(open, indent, output)), (vec![], 0), "{open}");
        for (right, wrong, rule, line) in [
            ("delivery_stream logs", "delivery_stream a/b", "stream-name", 9),
            ("Retry_Limit no_limits", "compression lz4", "option-value", 10),
            ("delivery_stream", "delivery_straem", "option-unknown", 9),
        ] {
            let (found, _) = lint_text("a.tf", &inside(open, indent, &output.replace(right, wrong)));
            assert!(found.contains(&(rule.to_owned(), line)), "{open} {wrong}: {found:?}");
        }
        let yaml = "pipeline:\n  outputs:\n    - name: stdout\n      fromat: json\n";
        if indent != "\t" {
            let (found, _) = lint_text("a.tf", &inside(open, indent, yaml));
            assert!(found.contains(&("option-unknown".to_owned(), 8)), "{found:?}");
        }
    }
    // What Terraform decides, what is no configuration, and a heredoc without an end.
    for text in [
        inside("<<EOT", "", &format!("%{{ if var.x }}\n{}%{{ endif }}\n", output.replace("kinesis_firehose", "nope"))),
        inside("<<EOT", "", "#!/bin/sh\n[ -f x ]\n"),
        "a = <<EOT\n[OUTPUT]\n".to_owned(),
        "a = 1 << 2\n".to_owned(),
    ] {
        assert_eq!(lint_text("a.tf", &text), (vec![], 3), "{text}");
    }
    // In a folder only those with a configuration are read.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.tf"), inside("<<EOT", "", &output.replace("Match", "Macth"))).unwrap();
    std::fs::write(folder.path().join("b.tf"), "resource \"x\" \"y\" {}\n").unwrap();
    let run = kubehose(&format!("lint --strict {}", folder.path().display()));
    assert!(run.code == 1 && run.stderr.contains("1 file"), "{run:?}");
}

/// `env`, `plugins` and the like are keys of many programs' files; a value that a template fills in is not known.
#[test]
fn files_of_other_programs_have_no_wrong_shape() {
    for text in [
        "version: 0.2\nenv:\n  exported-variables: [A]\nphases: {}\n",
        "name: x\non: push\nenv:\n  A: b\njobs: {a: [b]}\n",
        "plugins:\n  a: {b: c}\n",
        "plugins: {a: [b]}\nservices: [c]\n",
    ] {
        let (found, code) = lint_text("a.yaml", text);
        assert!(code == 1 && found.iter().all(|(rule, _)| rule == "unknown-document"), "{text}: {found:?}");
    }
    for text in
        ["service:\n  flush: 1\nincludes: [a.yaml]\n", "env:\n  A: b\n", "service: {flush: 1}\npipline: {inputs: []}\n"]
    {
        let (found, code) = lint_text("a.yaml", text);
        assert!(code != 3 && found.iter().all(|(rule, _)| rule != "unknown-document"), "{text}: {found:?}");
    }
    let values = "config:\n  service: |\n    [SERVICE]\n        Flush {{ .Values.flush }}\n        Log_Level {{ .Values.level }}\n        HTTP_Port {{ .Values.port }}\n";
    let (found, code) = lint_text("values.yaml", values);
    assert!(code == 0 && found.iter().all(|(rule, _)| rule == "placeholder-left"), "{found:?}");
}

/// A chart's templates stand beside its values, and are no YAML before they are rendered.
#[test]
fn a_template_in_a_folder_is_left_out_and_one_that_is_named_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("daemonset.yaml");
    std::fs::write(&template, "{{- if .Values.logs }}\napiVersion: v1\nkind: ConfigMap\n{{- end }}\n").unwrap();
    let broken = folder.path().join("broken.yaml");
    std::fs::write(&broken, "apiVersion: [v1\n").unwrap();
    let run = kubehose(&format!("lint --format json {}", folder.path().display()));
    let found: Vec<Value> = serde_json::from_str(&run.stdout).unwrap();
    let files: Vec<&str> = found.iter().map(|finding| finding["file"].as_str().unwrap()).collect();
    assert_eq!(files, [broken.display().to_string()], "{run:?}");
    assert!(run.stderr.contains("daemonset.yaml: nothing to check"), "{run:?}");
    assert_eq!(findings(&template.display().to_string())[0].0, "yaml-syntax");
}

/// Where all parsers are known, each that is named has to be there.
#[test]
fn a_parser_that_is_named_nowhere_is_judged_by_who_names_it() {
    for (section, parsers, expected) in [
        ("name: tail\n      path: /a\n      parser: nope", "", "parser-ignored"),
        ("name: tail\n      path: /a\n      parser: a", "", ""),
        ("name: tail\n      path: /a\n      multiline.parser: cri, nope", "", "parser-undefined"),
        ("name: tail\n      path: /a\n      multiline.parser: cri, m", "", ""),
        ("name: tail\n      path: /a\n      multiline: on", "", "option-missing"),
        ("name: tail\n      path: /a\n      multiline: on\n      parser_firstline: nope", "", "parser-undefined"),
        ("name: tail\n      path: /a\n      parser_firstline: nope", "", ""),
        ("name: tcp\n      parser: nope", "", "parser-undefined"),
        ("name: tcp\n      parser: ${PARSER}", "", ""),
        ("name: syslog\n      mode: tcp", "", "parser-undefined"),
        // A file of parsers may define it.
        ("name: syslog\n      mode: tcp", "service: {parsers_file: parsers.conf}\n", ""),
        ("name: tail\n      path: /a\n      multiline.parser: nope", "includes: [more.yaml]\n", ""),
    ] {
        let text = format!(
            "{parsers}parsers:\n  - {{name: a, format: json}}\nmultiline_parsers:\n  - {{name: m, type: endswith}}\npipeline:\n  inputs:\n    - {section}\n      tag: t\n  outputs:\n    - name: stdout\n      match: t\n"
        );
        let (_dir, path) = scratch("fluent-bit.yaml", &text);
        let found = findings(&path.display().to_string());
        let rules: Vec<&str> = found.iter().map(|(rule, ..)| rule.as_str()).collect();
        assert_eq!(rules.join(" "), expected, "{text}");
    }
}

/// What only one value of an option makes necessary.
#[test]
fn what_an_option_needs_besides_itself_is_missed() {
    for (plugin, lines, expected) in [
        (
            "azure_kusto",
            &[
                "auth_type managed_identity",
                "client_id system",
                "ingestion_endpoint e",
                "database_name d",
                "table_name t",
            ][..],
            None,
        ),
        ("bigquery", &["dataset_id d", "table_id t", "enable_identity_federation off"], None),
        (
            "bigquery",
            &[
                "dataset_id d",
                "table_id t",
                "enable_identity_federation on",
                "project_id p",
                "aws_region eu-west-1",
                "project_number 1",
                "pool_id p",
                "provider_id q",
            ],
            Some("option-missing"),
        ),
        ("oracle_log_analytics", &["oci_config_in_record on"], None),
        ("http", &["oauth2.enable on", "oauth2.token_url u", "oauth2.client_id c"], Some("option-missing")),
        ("http", &["oauth2.enable on", "oauth2.token_url u", "oauth2.client_id c", "oauth2.client_secret s"], None),
        ("http", &["oauth2.enable off"], None),
        ("stackdriver", &["resource k8s_container", "k8s_cluster_name n"], Some("option-missing")),
        ("stackdriver", &["resource k8s_container", "k8s_cluster_name n", "k8s_cluster_location l"], None),
        ("stackdriver", &["resource k8s_pod", "resource_labels a=b"], None),
        ("stackdriver", &["resource generic_task", "location l", "namespace n", "job j"], Some("option-missing")),
    ] {
        assert_eq!(only_rule("OUTPUT", plugin, lines).as_deref(), expected, "{plugin} {lines:?}");
    }
}

/// Each family of options has its names, for what connects and for what is connected to.
#[test]
fn options_that_the_core_keeps_for_many_plugins_are_known_by_name() {
    for (kind, plugin, line, expected) in [
        ("OUTPUT", "http", "net.keepalive_idle_timeout 30s", None),
        ("OUTPUT", "http", "net.keepalive_idle_timeot 30s", Some("option-unknown")),
        ("OUTPUT", "http", "net.backlog 5", Some("option-unknown")),
        ("OUTPUT", "http", "net.keepalive maybe", Some("option-value")),
        ("OUTPUT", "http", "net.connect_timeout soon", Some("option-number")),
        ("OUTPUT", "http", "tls.verfy off", Some("option-unknown")),
        ("OUTPUT", "http", "tls.proxy.verify off", None),
        ("OUTPUT", "http", "oauth2.clientid a", Some("option-unknown")),
        ("OUTPUT", "http", "retry_limit often", Some("option-number")),
        ("OUTPUT", "http", "retry_limit No_Limits", None),
        ("OUTPUT", "http", "workers many", Some("option-number")),
        ("OUTPUT", "counter", "nope 1", Some("option-unknown")),
        ("OUTPUT", "counter", "net.nope 1", Some("option-unknown")),
        ("INPUT", "http", "net.backlog 5", None),
        ("INPUT", "http", "net.dns.mode UDP", Some("option-unknown")),
        ("INPUT", "http", "http_server.wrkers 1", Some("option-unknown")),
        ("INPUT", "http", "http_server.workers 1", None),
        ("INPUT", "health", "host a", None),
        ("INPUT", "dummy", "net.keepalive on", Some("option-unknown")),
        ("INPUT", "dummy", "oauth2.issuer a", None),
        ("INPUT", "dummy", "oauth2.client_id a", Some("option-unknown")),
        ("INPUT", "dummy", "tls.min_version TLSv1.2", Some("option-missing")),
    ] {
        assert_eq!(only_rule(kind, plugin, &[line]).as_deref(), expected, "{plugin} {line}");
    }
    // What others connect to needs a certificate.
    for (kind, plugin, lines, expected) in [
        ("INPUT", "http", ["tls on", "tls.crt_file a"], Some("option-missing")),
        ("INPUT", "nginx_metrics", ["tls off", "tls.verify off"], None),
        ("INPUT", "tcp", ["tls ${TLS}", "tls.ciphers a"], None),
    ] {
        assert_eq!(only_rule(kind, plugin, &lines).as_deref(), expected, "{plugin} {lines:?}");
    }
}
