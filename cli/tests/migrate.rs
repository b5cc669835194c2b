//! migrate: its output starts in the real Fluent Bit with the plugin, whatever format contains the configuration.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{golden, kubehose, kubehose_with, run, scratch};

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
fn a_migrated_configuration_passes_lint() {
    for (name, text) in [("classic.conf", CLASSIC), ("pipeline.yaml", YAML)] {
        let (_dir, path) = scratch(name, text);
        let done = run(support::command().args(["migrate", &path.display().to_string()]));
        let folder = format!("{}/", path.parent().unwrap().display());
        golden(&format!("migrate-{name}.notes"), &done.stderr.replace(&folder, ""));
        let migrated = done.fine();
        golden(&format!("migrate-{name}"), &migrated);
        let (_dir, path) = scratch(name, &migrated);
        let linted = kubehose(&format!("lint {}", path.display()));
        assert_eq!(linted.code, 0, "{linted:?}");
    }
}

#[test]
fn a_refused_migration_gives_the_reason() {
    let manifest = kubehose("manifest --guide --region eu-west-1 --delivery-stream logs").fine();
    let output = |options: &str| format!("[OUTPUT]\n    Name kinesis_firehose\n    Match *\n{options}");
    let good = "    region eu-west-1\n    delivery_stream logs\n";
    for (text, said) in [
        (manifest, "kubehose manifest"),
        ("[OUTPUT]\n    Name stdout\n    Match *\n".to_owned(), "no output firehose"),
        ("@INCLUDE outputs.conf\n".to_owned(), "migrate those"),
        (output("    region\n"), "stdin:4: "),
        ("a: [".to_owned(), "stdin:1: "),
        ("a: b\n".to_owned(), "no output firehose"),
        (output("    region eu-west-1\n"), "delivery_stream"),
        (output("    region <REGION>\n    delivery_stream logs\n"), "<REGION>"),
        (output("    region Ireland\n    delivery_stream logs\n"), "Ireland"),
        (output(&format!("{good}    endpoint https://vpce/path\n")), "https://vpce/path"),
        (output(&format!("{good}    endpoint vpce:8443\n    port 443x\n")), "443x"),
        (output(&format!("{good}    endpoint vpce:8443\n    port 9443\n")), "has a port already"),
        (output(&format!("{good}    role_arn logs\n")), "role_arn"),
        // Not our plugin's section, but Fluent Bit refuses it all the same.
        (output(&format!("{good}[OUTPUT]\n    Name stdotu\n    Match *\n")), "stdotu"),
        ("kind: ConfigMap\napiVersion: v1\ndata:\n  a.conf: |\n    {{ if x }}\n    [OUTPUT]\n        Name firehose\n".to_owned(), "helm template"),
        ("kind: ClusterOutput\napiVersion: a\nspec:\n  firehose:\n    region: eu-west-1\n    deliveryStream: logs\n".to_owned(), "an operator makes this output"),
        ("firehose:\n  enabled: true\nadditionalOutputs: \"\"\n".to_owned(), "additionalOutputs is empty"),
        ("pipeline:\n  inputs:\n    - name: dummy\n      routes:\n        logs:\n          - name: all\n            to:\n              outputs: [kinesis_firehose]\n  outputs:\n    - name: kinesis_firehose\n      region: eu-west-1\n      delivery_stream: logs\n".to_owned(), "stdin:8: "),
    ] {
        let refused = kubehose_with(&["migrate", "-"], text.as_bytes());
        assert_eq!(refused.code, 1, "{said}: {refused:?}");
        assert!(refused.stderr.contains(said) && refused.stdout.is_empty(), "{said}: {refused:?}");
        assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
    }
    assert_eq!(kubehose_with(&["migrate", "-"], b"\xff\xfe").code, 2);
    assert_eq!(kubehose_with(&["migrate", "-"], CLASSIC.repeat(4000).as_bytes()).code, 2);
}

/// The result of migrating `text`.
#[track_caller]
fn migrated(text: &str) -> String {
    kubehose_with(&["migrate", "-"], text.as_bytes()).fine()
}

/// An output of `peer` with these options, and the options after the migration.
fn options(peer: &str, given: &str) -> String {
    let lines: String = given.lines().map(|line| format!("    {}\n", line.trim())).collect();
    migrated(&format!(
        "[INPUT]\n    Name dummy\n[OUTPUT]\n    Name {peer}\n    Match *\n    region eu-west-1\n    delivery_stream logs\n{lines}"
    ))
}

#[test]
fn each_option_of_the_peers_becomes_its_equivalent() {
    let cases = [
        ("kinesis_firehose", "port 8443", "endpoint firehose.eu-west-1.amazonaws.com:8443"),
        ("kinesis_firehose", "endpoint https://vpce.example\nport 8443", "endpoint https://vpce.example:8443"),
        ("kinesis_firehose", "endpoint ${VPCE}\nport 8443", "endpoint ${VPCE}:8443"),
        ("kinesis_firehose", "port 443", "# port 443"),
        ("firehose", "port 8443", "# port 8443"),
        ("kinesis_firehose", "tls.ca_file /etc/own.pem", "ca_file /etc/own.pem"),
        ("kinesis_firehose", "tls.ca_file own.pem", "# tls.ca_file own.pem"),
        ("kinesis_firehose", "tls.verify off", "# tls.verify off"),
        ("kinesis_firehose", "compression gzip", "compression gzip"),
        ("kinesis_firehose", "compression zstd", "compression zstd"),
        ("kinesis_firehose", "compression snappy", "compression snappy"),
        ("kinesis_firehose", "compression arrow", "# compression arrow"),
        ("kinesis_firehose", "compression ${HOW}", "compression ${HOW}"),
        ("firehose", "compression zlib", "# compression zlib"),
        ("firehose", "compression gzip", "# compression gzip"),
        ("firehose", "experimental_concurrency 4", "concurrency 4"),
        ("firehose", "experimental_concurrency 0", "# experimental_concurrency 0"),
        ("firehose", "experimental_concurrency many", "# experimental_concurrency many"),
        ("firehose", "data_keys log,kubernetes", "remap none"),
        ("firehose", "log_key log\ndata_keys log", "# data_keys log"),
        ("firehose", "log_key log\ntime_key t", "# time_key t"),
        ("firehose", "log_key a.b", "log_key $a.b"),
        ("firehose", "replace_dots true", "# replace_dots true"),
        ("firehose", "replace_dots _", "replace_dots _"),
        ("firehose", "external_id one", "# external_id one"),
        ("firehose", "time_key a\ntime_key b", "# time_key b"),
        ("firehose", "time_key pod_name", "# time_key pod_name"),
        ("firehose", "time_key t\ntime_key_format %L", "time_key_format %L"),
        ("kinesis_firehose", "time_key t\ntime_key_format %L", "time_key_format %9N"),
        ("kinesis_firehose", "net.keepalive off", "# net.keepalive off"),
        ("kinesis_firehose", "simple_aggregation maybe", "# simple_aggregation maybe"),
        ("kinesis_firehose", "retry_limit 5", "retry_limit 5"),
        ("kinesis_firehose", "workers 1", "workers 1"),
        ("firehose", "nonsense 1", "# nonsense 1"),
    ];
    for (peer, given, line) in cases {
        let text = options(peer, given);
        assert!(text.lines().any(|other| other.trim() == line), "{peer} {given}: no line {line:?}\n{text}");
        // A comment right before gives the reason.
        for (before, after) in text.lines().zip(text.lines().skip(1)) {
            if after.trim().starts_with("# ") && !after.contains("# Left out: ") {
                assert!(before.contains("# Left out: ") && before.len() > "    # Left out: ".len(), "{text}");
            }
        }
    }
    // With workers, a hot reload would crash Fluent Bit.
    let reloading = migrated(
        "[SERVICE]\n    Hot_Reload On\n[OUTPUT]\n    Name firehose\n    Match *\n    region eu-west-1\n    delivery_stream logs\n",
    );
    assert!(!reloading.contains("workers"), "{reloading}");
}

#[test]
fn a_template_follows_the_plugins_syntax_and_an_environment_variable_is_not_one() {
    for (stream, default, told) in [
        ("logs-${ENV}", "", None),
        ("${STREAM}", "", None),
        // The variable's value is unknown, and may be a template.
        ("${STREAM}", "rest", None),
        ("logs-$TAG[1]", "rest", Some("is a template for kubehose")),
        ("${ENV}-$kubernetes['namespace_name']", "${REST}", Some("is a template for kubehose")),
        ("logs-$TAG[1]", "", Some("'default_delivery_stream' is missing")),
        ("${ENV}-$TAG[1]", "", Some("'default_delivery_stream' is missing")),
        ("${ENV}$", "", Some("behind a '$'")),
        ("logs", "rest", Some("default_delivery_stream is left out")),
    ] {
        let option =
            if default.is_empty() { String::new() } else { format!("    default_delivery_stream {default}\n") };
        let text = format!(
            "[INPUT]\n    Name dummy\n[OUTPUT]\n    Name firehose\n    Match *\n    region eu-west-1\n    delivery_stream {stream}\n{option}"
        );
        let done = kubehose_with(&["migrate", "-"], text.as_bytes());
        match told {
            None => assert!(!done.stderr.contains("delivery_stream"), "{stream}: {done:?}"),
            Some(told) => assert!(done.stderr.contains(told), "{stream}: {done:?}"),
        }
        let refused = told.is_some_and(|told| told.contains("missing") || told.contains("behind"));
        assert_eq!(done.code, i32::from(refused), "{stream}: {done:?}");
        if !refused {
            let (_dir, path) = scratch("a.conf", &done.stdout);
            let linted = kubehose(&format!("lint {}", path.display()));
            assert_eq!(linted.code, 0, "{stream}: {linted:?}");
        }
    }
}

/// Streams by namespace in the way of the peers: the output of `kubehose manifest --route` for Fargate, used on a
/// node here.
#[test]
fn routes_by_rewrite_tag_still_work_after_a_migration() {
    let manifest = kubehose(
        "manifest --region eu-west-1 --delivery-stream logs --route shop=logs-shop --route label:team=pay=logs-pay --remap none --no-cri",
    )
    .fine();
    let text = format!(
        "[INPUT]\n    Name dummy\n    Tag kube.var.log.a\n    Dummy {{\"kubernetes\":{{\"namespace_name\":\"shop\"}}}}\n\n{}\n{}",
        support::file_of(&manifest, "filters.conf")
            .replace("kubernetes\n", "modify\n")
            .lines()
            .filter(|line| { !["Merge_Log", "Buffer_Size", "Kube_Meta"].iter().any(|option| line.contains(option)) })
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
        support::file_of(&manifest, "output.conf"),
    );
    let done = kubehose_with(&["migrate", "-"], text.as_bytes());
    assert!(done.stderr.contains("rewrite_tag stays, with 3 outputs of kubehose"), "{done:?}");
    let new = done.fine();
    assert_eq!(new.matches("Name            kubehose\n").count(), 3, "{new}");
    // All lines outside the outputs are unchanged.
    let filters = |text: &str| text.split("[OUTPUT]").next().unwrap().to_owned();
    assert_eq!(filters(&new), filters(&text));
    for (tag, stream) in [("kube.var.*", "logs"), ("kube.1", "logs-shop"), ("kube.2", "logs-pay")] {
        let output =
            new.split("[OUTPUT]").find(|output| output.contains(&format!("delivery_stream {stream}\n"))).unwrap();
        assert!(output.contains(&format!("Match           {tag}\n")), "{new}");
    }
    let yaml = "pipeline:
  inputs:
    - {name: dummy, tag: a}
  filters:
    - name: rewrite_tag
      match: a
      rule: $log ^x$ b false
  outputs:
    - {name: kinesis_firehose, match: a, region: eu-west-1, delivery_stream: logs}
    - {name: firehose, match: b, region: eu-west-1, delivery_stream: logs-x}
";
    let done = kubehose_with(&["migrate", "-"], yaml.as_bytes());
    assert!(done.stderr.contains("stdin:5: rewrite_tag stays, with 2 outputs"), "{done:?}");
    let one = yaml
        .replace("{name: firehose,", "{name: stdout,")
        .replace(", delivery_stream: logs-x", "")
        .replace("match: b, region: eu-west-1", "match: b");
    let done = kubehose_with(&["migrate", "-"], one.as_bytes());
    assert!(!done.stderr.contains("rewrite_tag") && done.code == 0, "{done:?}");
    let Some(program) = support::fluent_bit("a migrated configuration with rewrite_tag") else { return };
    let plugin = plugin();
    for (name, text) in [("a.conf", new), ("a.yaml", migrated(yaml))] {
        let (_dir, path) = scratch(name, &text);
        let (started, said) = starts(&program, &plugin, &path);
        assert!(started && !said.contains("[error]"), "{said}\n{text}");
    }
}

#[test]
fn the_note_on_log_key_is_for_the_output_that_does_it() {
    let notes = |peer: &str| {
        let text = format!(
            "[OUTPUT]\n    Name {peer}\n    Match *\n    region eu-west-1\n    delivery_stream a\n    log_key log\n"
        );
        kubehose_with(&["migrate", "-"], text.as_bytes()).stderr
    };
    assert!(notes("kinesis_firehose").contains("sent each key that log begins with"));
    assert!(!notes("firehose").contains("log_key"), "{}", notes("firehose"));
    // No note on Datadog's names: with log_key there are no Kubernetes names in the record.
    assert!(!notes("firehose").contains("Datadog"));
}

/// Our own generator, so that a seed always gives the same sections (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[(self.next() % from.len() as u64) as usize]
    }

    fn once_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// Options of the two plugins, with valid and invalid values.
const OPTIONS: &[(&str, &[&str])] = &[
    ("data_keys", &["log", "log,kubernetes", "a.b", "a..b", "true"]),
    ("log_key", &["log", "a.b", "$log", "log_message", "on"]),
    ("role_arn", &["arn:aws:iam::123456789012:role/logs", "${ROLE}", "logs"]),
    ("external_id", &["one", "x"]),
    (
        "endpoint",
        &[
            "vpce.example",
            "https://vpce.example",
            "https://vpce.example/",
            "http://127.0.0.1:1",
            "https://a/b",
            "[::1]",
        ],
    ),
    ("sts_endpoint", &["https://sts.example", "sts.example", "ftp://x"]),
    ("time_key", &["t", "time", "pod_name", "true"]),
    ("time_key_format", &["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%LZ", "%s.%L", "%Q%!"]),
    ("replace_dots", &["_", ".", "true", "-"]),
    ("simple_aggregation", &["true", "on", "off", "1", "maybe"]),
    ("compression", &["gzip", "zstd", "snappy", "zlib", "arrow", "parquet", "none"]),
    ("experimental_concurrency", &["0", "1", "8", "1000", "x"]),
    ("experimental_concurrency_retries", &["4"]),
    ("auto_retry_requests", &["true", "false", "x"]),
    ("profile", &["default"]),
    ("port", &["443", "8443", "0", "70000"]),
    ("host", &["example"]),
    ("tls", &["on", "off"]),
    ("tls.verify", &["on", "off"]),
    ("tls.ca_file", &["own.pem"]),
    ("tls.ca_path", &["/etc/ssl"]),
    ("net.keepalive", &["on", "off"]),
    ("net.connect_timeout", &["10"]),
    ("retry_limit", &["5", "no_limits", "1"]),
    ("workers", &["0", "1", "4"]),
    ("alias", &["x"]),
    ("log_level", &["debug"]),
    ("nonsense", &["1"]),
    ("drop_key", &["a"]),
];

/// An output of one of the two plugins.
fn section(random: &mut Random) -> Vec<(String, String)> {
    let peer = random.pick(&["firehose", "kinesis_firehose", "Kinesis_Firehose"]);
    let mut section = vec![("name".to_owned(), peer.to_owned()), ("match".to_owned(), "*".to_owned())];
    section.push(("region".to_owned(), if random.once_in(12) { "Ireland" } else { "eu-west-1" }.to_owned()));
    let stream = match random.once_in(3) {
        true => {
            random.pick(&["a/b", "${STREAM}", "logs-${STREAM}", "${STREAM}-$TAG[0]", "logs-$kubernetes['a.b']", "$x$"])
        }
        false => "logs",
    };
    section.push(("delivery_stream".to_owned(), stream.to_owned()));
    if (stream.contains("-$T") || stream.contains("-$k")) && random.once_in(2) {
        section.push(("default_delivery_stream".to_owned(), random.pick(&["logs", "${STREAM}"]).to_owned()));
    }
    for _ in 0..random.next() % 6 {
        let &(key, values) = &OPTIONS[(random.next() % OPTIONS.len() as u64) as usize];
        let value = random.pick(values);
        let at = (random.next() % (section.len() as u64 + 1)) as usize;
        section.insert(at, (key.to_owned(), value.to_owned()));
    }
    section
}

fn classic(section: &[(String, String)], newline: &str) -> String {
    let lines: String = section.iter().map(|(key, value)| format!("    {key} {value}{newline}")).collect();
    format!("# Ours.{newline}[INPUT]{newline}    Name dummy{newline}    Tag a{newline}[OUTPUT]{newline}{lines}")
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The same in YAML: one option per line, or all in braces. YAML allows no repeated key, so repeats are left out.
fn pipeline(section: &[(String, String)], flow: bool, newline: &str) -> String {
    let mut seen = std::collections::HashSet::new();
    let pairs: Vec<String> = section
        .iter()
        .filter(|(key, _)| seen.insert(key))
        .map(|(key, value)| format!("{key}: {}", quoted(value)))
        .collect();
    let output = if flow { format!("{{{}}}", pairs.join(", ")) } else { pairs.join(&format!("{newline}      ")) };
    format!("pipeline:{newline}  inputs:{newline}    - name: dummy{newline}  outputs:{newline}    - {output}{newline}")
}

/// The plugin built with this test.
fn plugin() -> PathBuf {
    let plugin = std::env::var_os("KUBEHOSE_SO")
        .map_or_else(|| Path::new(env!("CARGO_BIN_EXE_kubehose")).with_file_name("libkubehose.so"), PathBuf::from);
    assert!(plugin.exists(), "{} is missing: run `cargo build --workspace` before the tests", plugin.display());
    plugin
}

/// Whether Fluent Bit starts with the plugin and this configuration, and its whole output.
fn starts(program: &Path, plugin: &Path, file: &Path) -> (bool, String) {
    let mut child = Command::new(program)
        .arg("-e")
        .arg(plugin)
        .arg("-c")
        .arg(file)
        .envs([("ROLE", "arn:aws:iam::123456789012:role/logs"), ("STREAM", "x"), ("AWS_EC2_METADATA_DISABLED", "true")])
        .envs([("AWS_ACCESS_KEY_ID", "local"), ("AWS_SECRET_ACCESS_KEY", "local")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut started = false;
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
        said.push_str(&line);
        said.push('\n');
        if line.contains("stream processor started") {
            started = true;
            break;
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    (started, said)
}

#[test]
fn the_output_starts_in_the_real_fluent_bit_or_the_input_is_rejected() {
    let Some(program) = support::fluent_bit("what migrate writes") else { return };
    let plugin = plugin();
    let count: u64 = std::env::var("VARIANTS").ok().and_then(|n| n.parse().ok()).unwrap_or(90);
    let mut random = Random(std::env::var("SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(18));
    let folder = tempfile::tempdir().unwrap();
    let (mut written, mut refused) = (0, 0);
    for number in 0..count {
        let section = section(&mut random);
        let newline = if random.once_in(3) { "\r\n" } else { "\n" };
        let (name, text) = match number % 3 {
            0 => ("a.conf", classic(&section, newline)),
            1 => ("a.yaml", pipeline(&section, false, newline)),
            _ => ("a.yaml", pipeline(&section, true, newline)),
        };
        let file = folder.path().join(name);
        std::fs::write(&file, &text).unwrap();
        let done = run(support::command().args(["migrate", &file.display().to_string()]));
        if done.code != 0 {
            assert!(done.code == 1 && done.stdout.is_empty() && done.stderr.contains(": "), "{done:?}\n{text}");
            refused += 1;
            continue;
        }
        written += 1;
        let new = &done.stdout;
        std::fs::write(&file, new).unwrap();
        let dry = run(Command::new(&program).arg("-e").arg(&plugin).arg("-D").arg("-c").arg(&file));
        assert_eq!(dry.code, 0, "{}\n{text}\n{new}", dry.stderr);
        let (started, said) = starts(&program, &plugin, &file);
        assert!(started, "{said}\n{text}\n{new}");
        let linted = kubehose(&format!("lint {}", file.display()));
        assert_eq!(linted.code, 0, "{linted:?}\n{new}");
        // Line endings are unchanged, and each value is kept or reported.
        assert_eq!(new.matches('\n').count(), new.matches(newline).count(), "{new:?}");
        for (key, value) in &section {
            let has = |text: &str| {
                text.contains(&format!("{key} {value}")) || text.contains(&format!("{key}: {}", quoted(value)))
            };
            assert!(
                !has(&text) || has(new) || done.stderr.contains(key.as_str()) || key == "name",
                "{key} {value}\n{text}\n{new}"
            );
        }
    }
    println!("{written} sections were rewritten and start, {refused} were refused");
    assert!(written > refused && refused > 0, "{written} {refused}");
}

#[test]
fn a_migration_is_the_same_wherever_the_configuration_is_stored() {
    let mut random = Random(7);
    let mut rewritten = 0;
    for number in 0..120 {
        let section = section(&mut random);
        let text = if number % 2 == 0 { classic(&section, "\n") } else { pipeline(&section, number % 4 == 1, "\n") };
        let key = if number % 2 == 0 { "outputs.conf" } else { "fluent-bit.yaml" };
        let alone = kubehose_with(&["migrate", "-"], text.as_bytes());
        let block: String = text.lines().map(|line| format!("    {line}\n")).collect();
        let config_map = |value: &str| {
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  # Kept.\n  {key}: {value}  z: y\n")
        };
        let kept = [
            config_map(&format!("|\n{block}")),
            config_map(&format!("{}\n", quoted(&text))),
            format!("image:\n  tag: 1\nconfig:\n  outputs: |\n{block}"),
            serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "ConfigMap", "data": {key: text}}]})
                .to_string(),
        ];
        for file in kept {
            let done = kubehose_with(&["migrate", "-"], file.as_bytes());
            assert_eq!(done.code, alone.code, "{done:?}\n{alone:?}\n{file}");
            if done.code == 0 {
                rewritten += 1;
                let new: String = alone.stdout.lines().map(|line| format!("    {line}\n")).collect();
                let expected = file.replace(&block, &new).replace(&quoted(&text), &quoted(&alone.stdout));
                assert_eq!(done.stdout, expected, "{file}");
            }
        }
    }
    assert!(rewritten > 100, "{rewritten}");
}

#[test]
fn a_task_definition_stays_json_and_its_options_become_the_plugins() {
    let task = |options: &serde_json::Value| {
        serde_json::json!({"family": "web", "containerDefinitions": [
            {"name": "router", "image": "a", "firelensConfiguration": {"type": "fluentbit"}},
            {"name": "web", "image": "b", "logConfiguration": {"logDriver": "awsfirelens", "options": options}}
        ]})
    };
    let mut random = Random(3);
    let mut written = 0;
    for _ in 0..60 {
        let mut options = serde_json::Map::new();
        for (key, value) in section(&mut random).into_iter().filter(|(key, _)| key != "match") {
            options.entry(if key == "name" { "Name".to_owned() } else { key }).or_insert(value.into());
        }
        let pretty = format!("{:#}\n", task(&options.clone().into()));
        let done = kubehose_with(&["migrate", "-"], pretty.as_bytes());
        if done.code == 0 {
            written += 1;
            let new: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
            let new = &new["containerDefinitions"][1]["logConfiguration"]["options"];
            assert_eq!(new["Name"], "kubehose");
            let read = |name: &str| new.get(name).map(|value| value.as_str().unwrap().to_owned());
            // With the variable replaced, as Fluent Bit does.
            let read = |name: &str| read(name).map(|value| value.replace("${STREAM}", "x"));
            let read = |name: &str| read(name).filter(|value| !value.contains("${") && name != "ca_file");
            kubehose::options::Config::of_section(&read, &|_| None).unwrap();
            assert!(!done.stderr.contains("Datadog"), "{}", done.stderr);
        }
    }
    assert!(written > 20, "{written}");
}

#[test]
fn the_values_of_a_chart_with_a_built_in_output_become_an_additional_output() {
    let values = "image:
  tag: 3.2.1
# Ours.
firehose:
  enabled: true
  match: \"*\"
  region: eu-west-1
  deliveryStream: logs
  dataKeys:
  timeKey: t # its name
  extraOutputs: |
    Retry_Limit 5
    experimental_concurrency 4
";
    let section = "additionalOutputs: |
  [OUTPUT]
      name kubehose
      workers 2
      match *
      region eu-west-1
      delivery_stream logs
      time_key t
      Retry_Limit 5
      concurrency 4
";
    let off = values.replace("enabled: true", "enabled: false");
    let expected = off.replace("firehose:\n", &format!("{section}firehose:\n"));
    assert_eq!(migrated(values), expected);
    // Inside another chart's values, and next to existing outputs.
    let indented = |text: &str| text.lines().map(|line| format!("  {line}\n")).collect::<String>();
    let nested = format!("aws-for-fluent-bit:\n{}", indented(values));
    assert_eq!(migrated(&nested), format!("aws-for-fluent-bit:\n{}", indented(&expected)));
    let others = "additionalOutputs: |\n  [OUTPUT]\n      Name stdout\n      Match *\n\n";
    let body = section.strip_prefix("additionalOutputs: |\n").unwrap();
    let joined =
        format!("{}{}\n{off}", others.trim_end_matches('\n').to_owned() + "\n", body.trim_end().to_owned() + "\n");
    assert_eq!(migrated(&format!("{others}{values}")), joined);
    assert_eq!(kubehose_with(&["migrate", "-"], off.as_bytes()).code, 1);
    // What is not given is what the chart's values say by default.
    let short = "firehose:\n  enabled: true\n";
    let defaults = "      match *\n      region us-east-1\n      delivery_stream my-stream\n";
    assert!(migrated(short).contains(defaults), "{}", migrated(short));
    let wrong = values.replace("eu-west-1", "Ireland");
    let refused = kubehose_with(&["migrate", "-"], wrong.as_bytes());
    assert!(refused.code == 1 && refused.stderr.starts_with("stdin:4: ") && refused.stdout.is_empty(), "{refused:?}");
}

#[test]
fn options_in_braces_stay_one_per_line() {
    let task = "{\"containerDefinitions\": [{\"logConfiguration\": {\"logDriver\": \"awsfirelens\", \"options\": {
\t\"Name\": \"firehose\",
\t\"region\": \"eu-west-1\",
\t\"delivery_stream\": \"logs\"
}}}]}
";
    let expected = task.replace("\"firehose\",\n", "\"kubehose\",\n\t\"workers\": \"2\",\n");
    assert_eq!(migrated(task), expected);
    let compose = "services:\n  web:\n    logging:\n      driver: awsfirelens\n      options:\n        Name: firehose\n        region: eu-west-1\n        delivery_stream: logs\n";
    let expected = compose.replace("Name: firehose\n", "Name: kubehose\n        workers: 2\n");
    assert_eq!(migrated(compose), expected);
    let template = "Resources:\n  Task:\n    Properties:\n      ContainerDefinitions:\n        - LogConfiguration:\n            LogDriver: awsfirelens\n            Options:\n              Name: kinesis_firehose\n              region: !Ref AWS::Region\n              delivery_stream: !Ref Stream\n              endpoint: !Sub 'vpce.${AWS::Region}.example'\n";
    let expected = template.replace("Name: kinesis_firehose\n", "Name: kubehose\n              workers: 2\n");
    assert_eq!(migrated(template), expected);
    let with_port = template.replace("!Sub 'vpce.${AWS::Region}.example'", "!Ref Endpoint\n              port: 8443");
    let refused = kubehose_with(&["migrate", "-"], with_port.as_bytes());
    assert!(refused.code == 1 && refused.stderr.contains("write it out"), "{refused:?}");
}

#[test]
fn hostile_input_ends() {
    let output = "[OUTPUT]\n    Name firehose\n    Match *\n    region eu-west-1\n    delivery_stream a\n";
    for text in [
        "firehose".repeat(200_000),
        output.repeat(20_000),
        format!("a: \"{}\"", "[OUTPUT]\\n  Name firehose\\n".repeat(40_000)),
        format!("{}firehose", "[".repeat(1 << 20)),
        format!("{output}\u{feff}"),
        format!("\u{feff}{output}"),
        format!("a: &a [*a]\nb: |\n  {output}"),
        "pipeline:\n  outputs:\n    - name: firehose\n      region: {a: b}\n".to_owned(),
        "pipeline:\n  outputs:\n    - name: firehose\n      [a]: b\n".to_owned(),
    ] {
        let begun = std::time::Instant::now();
        let done = kubehose_with(&["migrate", "-"], text.as_bytes());
        assert!(done.code <= 2 && done.code >= 0, "{:?}", &done.stderr[..done.stderr.len().min(500)]);
        // Far above what a busy machine takes for the largest (5 s).
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?} {:.60}", begun.elapsed(), text);
    }
}

/// ECS's log driver reads these options itself, so they stay.
#[test]
fn options_of_the_log_driver_stay() {
    let task = r#"{"family": "t", "containerDefinitions": [{"logConfiguration": {"logDriver": "awsfirelens", "options": {"Name": "kinesis_firehose", "region": "eu-west-1", "delivery_stream": "logs", "exclude-pattern": "health", "include-pattern": "^ERR", "log-driver-buffer-limit": "2097152"}}}]}"#;
    let new: serde_json::Value = serde_json::from_str(&migrated(task)).unwrap();
    let options = &new["containerDefinitions"][0]["logConfiguration"]["options"];
    assert_eq!(options["Name"], "kubehose");
    for (option, value) in
        [("exclude-pattern", "health"), ("include-pattern", "^ERR"), ("log-driver-buffer-limit", "2097152")]
    {
        assert_eq!(options[option], value, "{new}");
    }
}

/// A custom plugin of the Fluent Operator is a section without its first line.
#[test]
fn the_custom_plugin_of_the_fluent_operator_is_rewritten_where_it_stands() {
    let resource = |kind: &str, config: &str| {
        format!(
            "apiVersion: fluentbit.fluent.io/v1alpha2\nkind: {kind}\nmetadata:\n  name: x\nspec:\n  match: kube.*\n  customPlugin:\n    config: {config}"
        )
    };
    let literal = "|\n      Name firehose\n      region eu-west-1\n\n      delivery_stream logs\n      time_key t\n      sts_endpoint https://sts\n  alias: a\n";
    for kind in ["ClusterOutput", "Output"] {
        let text = resource(kind, literal);
        let done = kubehose_with(&["migrate", "-"], text.as_bytes());
        let new = done.stdout.clone();
        assert_eq!(done.code, 0, "{done:?}");
        assert!(new.contains("    config: |\n      Name kubehose\n") && new.contains("\n  alias: a\n"), "{new}");
        assert!(!new.contains("[OUTPUT]") && !new.contains("Hot_Reload"), "{new}");
        // A hot reload does harm to workers, and the operator reloads.
        assert!(!new.contains("Workers 1"), "{new}");
        // Notes name lines of the file.
        let count = text.lines().count();
        let lines: Vec<usize> = done
            .stderr
            .lines()
            .filter_map(|note| note.strip_prefix("stdin:")?.split(':').next()?.parse().ok())
            .collect();
        assert!(!lines.is_empty() && lines.iter().all(|line| (9..=count).contains(line)), "{}", done.stderr);
        let linted = kubehose_with(&["lint", "-"], new.as_bytes());
        assert_eq!(linted.code, 0, "{linted:?}");
    }
    let quoted = kubehose_with(
        &["migrate", "-"],
        resource("Output", "\"Name kinesis_firehose\\nregion eu-west-1\\ndelivery_stream logs\\n\"\n").as_bytes(),
    )
    .fine();
    assert!(quoted.contains("config: \"Name kubehose\\n"), "{quoted}");
    // Another plugin, and one that would not start.
    let other = kubehose_with(&["migrate", "-"], resource("Output", "|\n      Name stdout\n").as_bytes());
    assert!(other.code == 1 && other.stderr.contains("no output firehose"), "{other:?}");
    let wrong = kubehose_with(
        &["migrate", "-"],
        resource("Output", "|\n      Name firehose\n      region Ireland\n      delivery_stream l\n").as_bytes(),
    );
    assert!(
        wrong.code == 1 && wrong.stderr.contains("stdin:9: nothing was written, since Fluent Bit would not start"),
        "{wrong:?}"
    );
}

/// Only what would not start is called so.
#[test]
fn what_stays_for_another_reason_is_not_said_to_fail() {
    let fargate = kubehose("manifest --guide --region eu-west-1 --delivery-stream logs").fine();
    for (text, said) in [
        (fargate.as_str(), "EKS Fargate loads no plugin"),
        (
            "kind: ClusterOutput\napiVersion: a\nspec:\n  firehose:\n    region: r\n    deliveryStream: s\n",
            "an operator makes this output",
        ),
        (
            "kind: ConfigMap\napiVersion: v1\ndata:\n  a.conf: |\n    {{ x }}\n    [OUTPUT]\n      Name firehose\n",
            "a template decides",
        ),
        (
            "kind: ConfigMap\napiVersion: v1\ndata:\n  a.conf: >\n    [OUTPUT]\n\n        Name firehose\n\n        Match *\n\n        region eu-west-1\n\n        delivery_stream s\n",
            "folded text",
        ),
        ("firehose:\n  enabled: true\nadditionalOutputs: ''\n", "additionalOutputs is empty"),
    ] {
        let run = kubehose_with(&["migrate", "-"], text.as_bytes());
        assert!(run.code == 1 && run.stderr.contains(said), "{said}: {run:?}");
        assert!(!run.stderr.contains("would not start"), "{said}: {run:?}");
    }
}
