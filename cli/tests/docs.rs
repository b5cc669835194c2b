//! The documentation and the examples are right: the option reference matches the code, links work, commands run, and
//! the real Fluent Bit accepts every configuration.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kubehose::options::OPTIONS;
use kubehose_local::firehose::{Keep, Options, Server};
use support::fluent_bit;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The pages of the book and the Markdown files beside it, with their text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(root().join("docs/src")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root().join(name)));
    files.sort();
    files
        .into_iter()
        .filter(|file| file.exists())
        .map(|file| (file.clone(), fs::read_to_string(file).unwrap()))
        .collect()
}

#[test]
fn the_option_reference_matches_the_code() {
    let mut text = "# Options\n\nOf an `[OUTPUT]` section with `Name kubehose`. A value that is not accepted stops the start. Fluent Bit's own\n\
                    (`Match`, `Alias`, `Workers`, `Retry_Limit`, `log_level`, …) come beside them.\n"
        .to_owned();
    for option in OPTIONS {
        text += &format!("\n## `{}`\n\n{}\n\n- accepted: {}\n", option.name, option.help, option.accepted);
        if !option.default.is_empty() {
            text += &format!("- default: `{}`\n", option.default);
        }
    }
    let file = root().join("docs/src/options.md");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == text, "docs/src/options.md is out of date: BLESS=1 cargo test -p kubehose-cli --test docs");
}

/// The anchor that GitHub and mdBook generate for a heading.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn no_link_is_broken_and_every_page_is_listed() {
    let summary = fs::read_to_string(root().join("docs/src/SUMMARY.md")).unwrap();
    let mut links = 0;
    for (file, text) in pages() {
        let name = file.file_name().unwrap().to_str().unwrap();
        if file.parent().unwrap().ends_with("src") && name != "SUMMARY.md" {
            assert!(summary.contains(&format!("({name})")), "{name} is not in SUMMARY.md");
        }
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            if path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            let there = if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            assert!(there.exists(), "{}: ({target}) leads nowhere", file.display());
            if !fragment.is_empty() {
                let headings = fs::read_to_string(&there).unwrap();
                let mut headings = headings.lines().filter(|line| line.starts_with('#'));
                assert!(headings.any(|line| anchor(line) == fragment), "{}: no heading for ({target})", file.display());
            }
            links += 1;
        }
        // Files of the repository that a page mentions.
        for quoted in text.split('`').skip(1).step_by(2).filter(|quoted| quoted.starts_with("examples/")) {
            assert!(root().join(quoted).exists(), "{}: `{quoted}` does not exist", file.display());
        }
    }
    assert!(links > 20, "only {links} links were found");
}

/// The values of an attribute in a page of HTML.
fn attributes<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!(" {name}=\"");
    html.split(start.as_str()).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn the_book_builds_and_no_link_in_it_is_broken() {
    if Command::new("mdbook").arg("--version").output().is_err() {
        support::not_run("the book: no mdbook on the PATH (cargo install mdbook)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let done = Command::new("mdbook").arg("build").arg(root().join("docs")).arg("-d").arg(folder.path()).output();
    let done = done.unwrap();
    let log = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && !log.contains("WARN") && !log.contains("ERROR"), "{log}");
    let html = |name: &str| fs::read_to_string(folder.path().join(name));
    let mut links = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // 404.html is served at any depth, so its paths start at the root.
        if !name.ends_with(".html") || name == "404.html" {
            continue;
        }
        let text = html(&name).unwrap();
        for target in [attributes(&text, "href"), attributes(&text, "src")].concat() {
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            if path.contains("://") || path.starts_with("data:") {
                continue;
            }
            let path = if path.is_empty() { name.as_str() } else { path };
            assert!(folder.path().join(path).exists(), "{name}: {target} leads nowhere");
            if !fragment.is_empty() {
                let there = html(path).unwrap();
                assert!(attributes(&there, "id").contains(&fragment), "{name}: {target} has no such anchor");
            }
            links += 1;
        }
    }
    assert!(links > 100, "only {links} links were found in the book");
}

/// The blocks of a page that start with this fence.
fn blocks<'a>(text: &'a str, fence: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(fence).skip(1).map(|rest| rest.split("```").next().unwrap())
}

#[test]
fn commands_that_run_locally_run() {
    let program = Path::new(env!("CARGO_BIN_EXE_kubehose"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut ran = 0;
    for (file, text) in pages() {
        // Files that a page writes go to the test's folder; files that it reads are links to the repository's.
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(root().join("examples"), folder.path().join("examples")).unwrap();
        for block in blocks(&text, "```sh\n") {
            let run = Command::new("sh")
                .args(["-euc", block])
                .current_dir(folder.path())
                .env("PATH", &path)
                .output()
                .unwrap();
            assert!(run.status.success(), "{}: {block}{}", file.display(), String::from_utf8_lossy(&run.stderr));
            ran += 1;
        }
    }
    assert!(ran >= 7, "only {ran} blocks of commands were found");
}

/// The other commands need AWS, a cluster or Docker: check at least that their programs accept the arguments.
#[test]
fn commands_that_need_a_cluster_are_well_formed() {
    let mut aws = String::new();
    let mut known = 0;
    for (file, text) in pages() {
        for block in blocks(&text, "```console\n") {
            for line in block.replace("\\\n", " ").lines() {
                let words: Vec<&str> = line.split_whitespace().skip_while(|word| word.contains('=')).collect();
                let place = format!("{}: {line}", file.display());
                // The last line of a block in a list is empty.
                let Some(program) = words.first() else { continue };
                match *program {
                    // Without kubectl and aws it can find nothing out, but it parses its arguments.
                    "kubehose" if words[1] == "firehose" => {
                        let run = support::command().args(&words[1..]).arg("--help").output().unwrap();
                        assert!(run.status.success(), "{place}: {}", String::from_utf8_lossy(&run.stderr));
                    }
                    "kubehose" => {
                        let run = support::command().args(&words[1..]).env("PATH", "").output().unwrap();
                        // verify exits with 3 if it could check nothing.
                        let code = if words[1] == "verify" && !words[2].starts_with("--permissions") { 3 } else { 0 };
                        let said = String::from_utf8_lossy(&run.stderr);
                        assert_eq!(run.status.code(), Some(code), "{place}: {said}");
                    }
                    "aws" => aws += &format!("{}\n", words.join(" ")),
                    "kubectl" => {
                        let verbs = ["apply", "delete", "describe", "get", "label", "logs", "rollout", "-n"];
                        assert!(verbs.contains(&words[1]), "{place}");
                        // Events are in the namespace of their pods.
                        assert!(!words.contains(&"events") || words.contains(&"-n"), "{place}: no namespace");
                    }
                    "valgrind" => assert!(words.contains(&"fluent-bit"), "{place}"),
                    "docker" => assert!(["build", "compose", "push"].contains(&words[1]), "{place}"),
                    "logs/apply.sh" => assert!(words.len() == 1 || words[1..] == ["--dry-run"], "{place}"),
                    _ => panic!("{place}: not known to this test"),
                }
                known += 1;
            }
        }
    }
    assert!(known > 10, "only {known} commands were found");
    let (_folder, path) = support::scratch("aws", &aws);
    support::check("aws-commands", &[&path]);
}

#[test]
fn messages_in_the_book_are_those_of_the_code() {
    let mut code = String::new();
    for folder in ["src", "src/delivery", "src/firehose", "src/storage", "src/record"] {
        for file in fs::read_dir(root().join(folder)).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap_or_default();
            // A comment is no message.
            text.lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .for_each(|line| code += &format!("{line}\n"));
        }
    }
    let page = fs::read_to_string(root().join("docs/src/troubleshooting.md")).unwrap();
    let table = page.split("| message | what it means |").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut known = 0;
    for cell in table.lines().skip(1).filter_map(|row| row.split(" | ").next()) {
        // What stands between dots is filled in.
        for part in cell.split('`').skip(1).step_by(2).flat_map(|message| message.split('…')) {
            let part = part.trim_matches([' ', ':', ';', '.']);
            assert!(code.contains(part), "{cell}: no such message: {part}");
            known += 1;
        }
    }
    assert!(known > 20, "only {known} messages were found");
}

#[test]
fn every_rule_of_lint_has_its_symptom() {
    let rules = support::kubehose("lint --rules").fine();
    let page = fs::read_to_string(root().join("docs/src/troubleshooting.md")).unwrap();
    let known: Vec<&str> =
        rules.lines().filter_map(|line| line.split_whitespace().next()).filter(|w| *w != "rule").collect();
    assert!(known.len() > 60, "{known:?}");
    let missing: Vec<_> = known.iter().filter(|rule| !page.contains(&format!("`{rule}`"))).collect();
    assert!(missing.is_empty(), "docs/src/troubleshooting.md does not name {missing:?}");
    for sentence in page.split("**Lint**: ").skip(1).filter_map(|rest| rest.split('.').next()) {
        for named in sentence.split('`').skip(1).step_by(2) {
            assert!(known.contains(&named), "lint has no rule `{named}`");
        }
    }
}

/// The same attribute carries the time in every page, example and manifest and in lint: Datadog takes the log's date
/// from it.
#[test]
fn every_page_and_example_uses_the_time_key_of_the_manifests_and_lint() {
    let manifest = support::kubehose("manifest --region eu-west-1 --delivery-stream logs").fine();
    let value = |key: &str| {
        let line = manifest.lines().find(|line| line.split_whitespace().next() == Some(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let rules = fs::read_to_string(root().join("cli/src/lint/rules.rs")).unwrap();
    let mut texts = pages();
    for folder in ["compose", "demo", "ecs", "kubernetes"] {
        let files = fs::read_dir(root().join("examples").join(folder)).unwrap().map(|entry| entry.unwrap().path());
        texts.extend(files.filter(|file| file.is_file()).map(|file| (file.clone(), fs::read_to_string(file).unwrap())));
    }
    let mut found = 0;
    for key in ["time_key", "time_key_format"] {
        let wanted = value(key);
        assert!(rules.contains(&format!("{key} {wanted}")), "lint does not advise {key} {wanted}");
        for (file, text) in &texts {
            // Finds values in classic configurations, in task definitions and in running text.
            for line in text.lines().filter(|line| !line.starts_with('|')) {
                let words: Vec<&str> = line.split([' ', '"', '`', ':', ',']).filter(|word| !word.is_empty()).collect();
                let values = words
                    .windows(2)
                    .filter(|pair| pair[0] == key && (pair[1].starts_with(['%', '_']) || pair[1] == "timestamp"));
                for pair in values {
                    let given = line.split(pair[0]).nth(1).unwrap();
                    assert!(given.contains(&wanted), "{}: {line}, but the manifest has {key} {wanted}", file.display());
                    found += 1;
                }
            }
        }
    }
    assert!(found >= 10, "only {found} were found");
}

#[test]
fn the_readme_stays_short() {
    let size = fs::metadata(root().join("README.md")).unwrap().len();
    assert!(size < 12_000, "README.md has {size} bytes: move details to the book");
}

#[test]
fn the_bench_highlights_the_names_in_the_plugins_table() {
    let script = fs::read_to_string(root().join("local/src/firehose/bench/page.js")).unwrap();
    let names = kubehose::record::remap::DATADOG.map(|(_, name)| format!("'{name}'")).join(", ");
    assert!(script.contains(&format!("const NAMES = [{names}];")), "the names in page.js are not {names}");
}

/// The plugin built with this test.
fn plugin() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_kubehose")).with_file_name("libkubehose.so");
    let file = std::env::var_os("KUBEHOSE_SO").map_or(built, PathBuf::from);
    assert!(file.exists(), "{} is missing: run `cargo build --workspace` before the tests", file.display());
    file
}

/// The value of a ConfigMap's block `name: |`.
fn block(manifest: &str, name: &str) -> String {
    let rest = manifest.split(&format!("  {name}: |\n")).nth(1).unwrap();
    rest.lines()
        .take_while(|line| line.starts_with("    ") || line.is_empty())
        .map(|line| format!("{}\n", line.get(4..).unwrap_or("")))
        .collect()
}

/// An example's configuration with this machine's paths.
fn here(folder: &Path, text: &str, endpoint: &str) -> PathBuf {
    let path = |name: &str| folder.join(name);
    fs::write(path("plugins.conf"), format!("[PLUGINS]\n    Path {}\n", plugin().display())).unwrap();
    let folder = folder.display().to_string();
    let text = text
        .replace("/kubehose/plugins.conf", &format!("{folder}/plugins.conf"))
        .replace("/config/", &format!("{folder}/"))
        .replace("/state/", &format!("{folder}/"))
        .replace("/var/log/containers", &folder)
        .replace("http://firehose:4573", endpoint);
    fs::write(path("fluent-bit.conf"), text).unwrap();
    path("fluent-bit.conf")
}

/// The configuration that FireLens writes around the task definition's options, as far as Fluent Bit reads it.
fn firelens(forward: u16, health: u16) -> String {
    let text = fs::read_to_string(root().join("examples/ecs/task-definition.json")).unwrap();
    let task: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut conf = format!(
        "[INPUT]\n    Name tcp\n    Listen 127.0.0.1\n    Port {health}\n    Tag firelens-healthcheck\n
[INPUT]\n    Name forward\n    Listen 127.0.0.1\n    Port {forward}\n
[FILTER]\n    Name record_modifier\n    Match *\n    Record ecs_cluster shop\n    Record ecs_task_arn arn:aws:ecs:eu-west-1:123456789012:task/shop/0\n    Record ecs_task_definition web-with-kubehose:1\n
[OUTPUT]\n    Name null\n    Match firelens-healthcheck\n
[OUTPUT]\n    Match web-firelens*\n"
    );
    for (key, value) in task["containerDefinitions"][1]["logConfiguration"]["options"].as_object().unwrap() {
        conf += &format!("    {key} {}\n", value.as_str().unwrap());
    }
    conf
}

/// Every configuration in the examples and the pages: where it is, its text, and the plugin that the command line
/// loads.
fn configurations() -> Vec<(&'static str, String, Option<PathBuf>)> {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let sidecar = read("docs/src/sidecar.md");
    let readme = read("README.md");
    let readme = readme.split("```\n").find(|block| block.starts_with("[SERVICE]")).unwrap();
    vec![
        ("kubernetes", block(&read("examples/kubernetes/daemonset.yaml"), "fluent-bit.conf"), None),
        ("ecs", firelens(24224, 8877), Some(plugin())),
        ("sidecar", sidecar.split("```\n").nth(1).unwrap().to_owned(), None),
        ("compose", read("examples/compose/fluent-bit.conf"), None),
        (
            "README",
            format!("{}\n[INPUT]\n    Name dummy\n", readme.replace("plugins.conf", "/kubehose/plugins.conf")),
            None,
        ),
    ]
}

#[test]
fn the_real_fluent_bit_accepts_every_configuration() {
    let Some(program) = fluent_bit("the configurations of the examples") else { return };
    for (name, text, loaded) in configurations() {
        let folder = tempfile::tempdir().unwrap();
        let file = here(folder.path(), &text, "http://127.0.0.1:1");
        let mut command = Command::new(&program);
        if let Some(plugin) = loaded {
            command.arg("-e").arg(plugin);
        }
        let done = command.arg("-D").arg("-c").arg(file).output().unwrap();
        let log = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && !log.contains("[error]"), "{name}: {}\n{log}", done.status);
    }
}

/// A process that is killed when dropped.
struct Running(std::process::Child);

impl Running {
    fn start(command: &mut Command) -> Running {
        let command = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let keys =
            [("AWS_ACCESS_KEY_ID", "local"), ("AWS_SECRET_ACCESS_KEY", "local"), ("AWS_EC2_METADATA_DISABLED", "true")];
        Running(command.envs(keys).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for the first record, and returns it.
fn first_record(server: &Server) -> serde_json::Value {
    let end = Instant::now() + Duration::from_secs(30);
    while server.records().is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    let record = server.records().into_iter().next().unwrap_or_else(|| panic!("no record within 30 s"));
    serde_json::from_slice(&record.data).unwrap()
}

fn server() -> Server {
    Server::start(Options { keep: Keep::Records, ..Options::default() }).unwrap()
}

#[test]
fn records_arrive_with_the_configuration_of_the_compose_file() {
    let Some(program) = fluent_bit("the configuration of the compose file") else { return };
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(root().join("examples/compose/fluent-bit.conf")).unwrap();
    let file = here(folder.path(), &text, &server.url());
    let _running = Running::start(Command::new(&program).arg("-c").arg(file));
    let record = first_record(&server);
    assert_eq!(record["kube_namespace"], "shop");
    assert_eq!(record["pod_name"], "web-6c8b449b8f-x2k4p");
    assert!(record["_timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{record}");
}

#[test]
fn records_arrive_with_the_configuration_that_firelens_writes() {
    let Some(program) = fluent_bit("the configuration of the task definition") else { return };
    let server = server();
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let forward = port();
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{}    endpoint {}\n", firelens(forward, port()), server.url());
    let file = here(folder.path(), &text, "");
    let _router = Running::start(Command::new(&program).arg("-e").arg(plugin()).arg("-c").arg(file));
    // A second Fluent Bit acts as Docker's log driver.
    let event =
        r#"{"container_id":"c4d8166a5cb1","container_name":"/ecs-web-1","source":"stdout","log":"GET /cart 200"}"#;
    let sender = ["-i", "dummy", "-t", "web-firelens-0", "-p", &format!("dummy={event}")].map(str::to_owned);
    let output =
        ["-o", "forward", "-m", "*", "-p", "host=127.0.0.1", "-p", &format!("port={forward}")].map(str::to_owned);
    let retry = ["-p", "retry_limit=no_limits", "-f", "1"].map(str::to_owned);
    let _sender = Running::start(Command::new(&program).args(sender).args(output).args(retry));
    let record = first_record(&server);
    assert_eq!(record["container_name"], "/ecs-web-1", "{record}");
    assert_eq!(record["ecs_cluster_name"], "shop", "{record}");
    assert_eq!(record["container_id"], "c4d8166a5cb1", "{record}");
    assert_eq!(record["task_arn"], "arn:aws:ecs:eu-west-1:123456789012:task/shop/0", "{record}");
    assert_eq!(record["log"], "GET /cart 200", "{record}");
}

/// Each message quoted in the table of messages is one that the plugin logs.
#[test]
fn each_message_in_the_book_is_one_that_the_plugin_logs() {
    fn sources(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, text);
            } else {
                *text += &fs::read_to_string(&path).unwrap();
            }
        }
    }
    let mut code = String::new();
    sources(&root().join("src"), &mut code);
    let page = fs::read_to_string(root().join("docs/src/troubleshooting.md")).unwrap();
    let table = page.split("| message |").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut messages = 0;
    for row in table.lines().skip(2) {
        let quoted = row.split('|').nth(1).unwrap();
        for piece in quoted.split('`').skip(1).step_by(2).flat_map(|message| message.split('…')) {
            let piece = piece.trim();
            assert!(code.contains(piece.split('=').next().unwrap()), "nothing logs '{piece}'");
            messages += 1;
        }
    }
    assert!(messages > 20, "only {messages} messages were found");
}
