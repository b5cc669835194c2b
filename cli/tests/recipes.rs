//! The book's recipes for filtering, sampling and multiline logs, run in the real Fluent Bit exactly as printed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test; clippy.toml sees only the test functions")]

mod support;

use kubehose_local::firehose::{Keep, Options, Server};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{file_of, fluent_bit, kubehose, root};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait for records that must not arrive.
const QUIET: Duration = Duration::from_millis(800);

/// A page's configuration blocks, each with the heading above it.
fn recipes(page: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("docs/src").join(page)).unwrap();
    let mut found = Vec::new();
    for section in text.split("\n## ").skip(1) {
        let (heading, body) = section.split_once('\n').unwrap();
        let blocks = body.split("\n```").skip(1).step_by(2).filter_map(|block| block.strip_prefix('\n'));
        found.extend(blocks.map(|block| (heading.to_owned(), format!("{block}\n"))));
    }
    found
}

/// The blocks under a heading.
fn recipe(page: &str, heading: &str) -> Vec<String> {
    let found: Vec<String> =
        recipes(page).into_iter().filter(|(above, _)| above == heading).map(|(_, block)| block).collect();
    assert!(!found.is_empty(), "{page} has no recipe under {heading}");
    found
}

/// A container's log file and its lines.
struct Log {
    name: String,
    lines: Vec<String>,
}

fn log(pod: &str, namespace: &str, container: &str, lines: &[String]) -> Log {
    Log { name: format!("{pod}_{namespace}_{container}-{ID}.log"), lines: lines.to_vec() }
}

fn plugin() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_kubehose")).with_file_name("libkubehose.so");
    let file = std::env::var_os("KUBEHOSE_SO").map_or(built, PathBuf::from);
    assert!(file.exists(), "{} is missing: run `cargo build --workspace` before the tests", file.display());
    file
}

/// The records that arrive from the logs with this recipe: waits for `expected`, and then a moment for any others.
/// Adds what the recipe lacks: an input of JSON lines, an output.
fn arrived(program: &Path, recipe: &str, parsers: &str, logs: &[Log], expected: usize) -> Vec<Value> {
    let server = Server::start(Options { keep: Keep::Records, ..Options::default() }).unwrap();
    let folder = tempfile::Builder::new().prefix("containers").tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for Log { name, lines } in logs {
        fs::write(path(name), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }
    fs::write(path("parsers.conf"), format!("[PARSER]\n    Name json\n    Format json\n{parsers}")).unwrap();
    fs::write(path("plugins.conf"), format!("[PLUGINS]\n    Path {}\n", plugin().display())).unwrap();
    let mut config = format!(
        "[SERVICE]\n    Flush 0.2\n    Grace 1\n    Parsers_File {}\n    Plugins_File {}\n",
        path("parsers.conf"),
        path("plugins.conf")
    );
    let files = path("*.log");
    if !recipe.contains("[INPUT]") {
        config += &format!(
            "[INPUT]\n    Name tail\n    Path {files}\n    Tag kube.*\n    Parser json\n    Read_from_Head on\n"
        );
    }
    config += &recipe
        .replace("/var/log/containers", &folder.path().display().to_string())
        .replace("[INPUT]\n", "[INPUT]\n    Read_from_Head on\n");
    if !recipe.contains("[OUTPUT]") {
        config += "[OUTPUT]\n    Name kubehose\n    Match *\n    region eu-west-1\n    delivery_stream logs\n";
    }
    config += &format!("    endpoint {}\n", server.url());
    fs::write(path("fluent-bit.conf"), config).unwrap();
    let mut router = Command::new(program)
        .args(["-c", &path("fluent-bit.conf")])
        .env("AWS_ACCESS_KEY_ID", "local")
        .env("AWS_SECRET_ACCESS_KEY", "local")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .stdout(Stdio::null())
        .stderr(fs::File::create(path("stderr")).unwrap())
        .spawn()
        .unwrap();
    let end = Instant::now() + PATIENCE;
    while server.records().len() < expected && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(QUIET);
    let _ = router.kill();
    let _ = router.wait();
    let said = fs::read_to_string(path("stderr")).unwrap();
    assert!(!said.contains("[error]"), "{recipe}{said}");
    server.records().iter().map(|record| serde_json::from_slice(&record.data).unwrap()).collect()
}

/// The texts that arrive from the logs, sorted.
fn texts(program: &Path, recipe: &str, logs: &[Log], expected: &[&str]) -> Vec<String> {
    let records = arrived(program, recipe, "", logs, expected.len());
    let mut texts: Vec<String> =
        records.iter().map(|record| record["log"].as_str().unwrap_or_default().to_owned()).collect();
    texts.sort();
    texts
}

/// Events as the kubernetes filter leaves them; the last is one for which no API server answered.
fn events() -> Vec<Log> {
    let event = |text: &str, level: &str, trace: &str, kubernetes: Value| {
        json!({"log": text, "level": level, "trace_id": trace, "stream": "stdout", "kubernetes": kubernetes})
            .to_string()
    };
    let of = |namespace: &str, pod: &str, container: &str, id: &str, annotations: Value| {
        json!({"namespace_name": namespace, "pod_name": pod, "container_name": container, "docker_id": id,
               "labels": {"app": container}, "annotations": annotations})
    };
    let web = || of("shop", "web-1", "nginx", "0a", json!({}));
    let api = of("pay", "api-1", "api", "9b", json!({"logs.example.com/exclude": "true"}));
    let dns = of("kube-system", "coredns-1", "coredns", "9c", json!({}));
    vec![
        log(
            "web-1",
            "shop",
            "nginx",
            &[event("GET /healthz 200", "info", "1f", web()), event("GET /cart 200", "debug", "2f", web())],
        ),
        log("api-1", "pay", "api", &[event("POST /pay 500", "error", "af", api)]),
        log("coredns-1", "kube-system", "coredns", &[event("sync", "info", "bf", dns)]),
        log("bare-1", "kube-system", "bare", &[r#"{"log":"bare","level":"info"}"#.to_owned()]),
    ]
}

#[test]
fn each_filtering_recipe_keeps_the_events_that_its_page_says() {
    let Some(program) = fluent_bit("the recipes for filtering") else { return };
    let (bare, cart, healthz, pay, sync) = ("bare", "GET /cart 200", "GET /healthz 200", "POST /pay 500", "sync");
    let cases: [(&str, usize, &[&str]); 10] = [
        ("Leave out namespaces", 0, &[cart, healthz, pay, bare]),
        ("Leave out namespaces", 1, &[cart, healthz, pay]),
        ("Keep only some namespaces", 0, &[cart, healthz, pay]),
        ("Let pods opt out", 0, &[cart, healthz, bare, sync]),
        ("Leave out health checks of one container", 0, &[cart, pay, bare, sync]),
        ("Leave out levels", 0, &[healthz, pay, bare, sync]),
        ("Keep a share of the traces", 0, &[cart, healthz]),
        ("Keep a share of the traces", 1, &[cart, healthz, pay]),
        ("Keep a share of the containers", 0, &[cart, healthz]),
        ("Leave out attributes", 0, &[cart, healthz, pay, bare, sync]),
    ];
    for (heading, at, expected) in cases {
        let recipe = &recipe("filtering.md", heading)[at];
        assert_eq!(texts(&program, recipe, &events(), expected), expected, "{heading}");
    }
    let known: Vec<&str> = cases.iter().map(|(heading, ..)| *heading).collect();
    let elsewhere = ["Limit the rate of one application"];
    for (heading, _) in recipes("filtering.md") {
        assert!(known.contains(&&*heading) || elsewhere.contains(&&*heading), "{heading} is not run");
    }
}

#[test]
fn excluded_log_files_do_not_arrive() {
    let Some(program) = fluent_bit("the recipe for namespaces that are not read") else { return };
    let line = |text: &str| [format!("2026-01-27T16:53:42.123456789Z stdout F {text}")];
    let logs = [log("web-1", "shop", "nginx", &line("cart")), log("dns-1", "kube-system", "dns", &line("sync"))];
    let recipe = &recipe("filtering.md", "Leave out namespaces")[2];
    assert_eq!(texts(&program, recipe, &logs, &["cart"]), ["cart"]);
}

#[test]
fn removed_attributes_do_not_arrive() {
    let Some(program) = fluent_bit("the recipe for leaving out attributes") else { return };
    let recipe = &recipe("filtering.md", "Leave out attributes")[0];
    for record in arrived(&program, recipe, "", &events()[..1], 2) {
        assert_eq!(record["pod_name"], "web-1", "{record}");
        let kubernetes = &record["kubernetes"];
        let gone = [&record["stream"], &kubernetes["labels"], &kubernetes["annotations"]];
        assert!(gone.iter().all(|value| value.is_null()), "{record}");
    }
}

#[test]
fn a_throttled_application_leaves_the_others_alone() {
    let Some(program) = fluent_bit("the recipe for a limited rate") else { return };
    let many = |text: &str| -> Vec<String> { (0..500).map(|n| json!({"log": text, "n": n}).to_string()).collect() };
    let logs = [log("batch-7", "jobs", "batch", &many("batch")), log("web-1", "shop", "nginx", &many("web"))];
    let recipe = &recipe("filtering.md", "Limit the rate of one application")[0];
    let records = arrived(&program, recipe, "", &logs, 600);
    let of = |text: &str| records.iter().filter(|record| record["log"] == text).count();
    // A burst of Rate × Window passes; a new interval may begin during the test.
    assert!((100..=140).contains(&of("batch")), "{} records of a throttled application", of("batch"));
    assert_eq!(of("web"), 500);
}

/// Lines of a container runtime: a long line in two parts, a stack trace, an ordinary line.
fn runtime_log() -> Log {
    let lines = [
        ("stdout P", "the first part, "),
        ("stdout F", "and the rest"),
        ("stderr F", "Exception in thread \"main\" java.lang.IllegalStateException: no"),
        ("stderr F", "    at com.example.Shop.pay(Shop.java:7)"),
        ("stderr F", "    at com.example.Shop.main(Shop.java:3)"),
        ("stdout F", "after"),
    ];
    let lines = lines.map(|(stream, text)| format!("2026-01-27T16:53:42.123456789Z {stream} {text}"));
    log("web-1", "shop", "nginx", &lines)
}

const JOINED: &str = "the first part, and the rest";
const TRACE: &str = "Exception in thread \"main\" java.lang.IllegalStateException: no
    at com.example.Shop.pay(Shop.java:7)
    at com.example.Shop.main(Shop.java:3)";

#[test]
fn parts_and_stack_traces_are_joined_as_their_recipes_say() {
    let Some(program) = fluent_bit("the recipes for multiline") else { return };
    let page = "multiline.md";
    let parts = &recipe(page, "Join the runtime's parts, on nodes")[0];
    let mut expected: Vec<&str> = TRACE.lines().collect();
    expected.extend(["after", JOINED]);
    expected.sort_unstable();
    assert_eq!(texts(&program, parts, &[runtime_log()], &expected), expected);

    let traces = recipe(page, "Join stack traces");
    let [java, indented] = traces.as_slice() else { panic!("{} recipes for stack traces", traces.len()) };
    let mut expected = [TRACE, "after", JOINED];
    expected.sort_unstable();
    let log = [runtime_log()];
    assert_eq!(texts(&program, java, &log, &expected), expected);
    let own = java.replace("java, go", "indented");
    let mut texts: Vec<Value> = arrived(&program, &own, indented, &log, expected.len());
    texts.sort_by_key(|record| record["log"].to_string());
    assert_eq!(texts.iter().map(|record| &record["log"]).collect::<Vec<_>>(), expected.map(Value::from).each_ref());
}

#[test]
fn parts_of_dockers_log_driver_are_joined() {
    let Some(program) = fluent_bit("the recipe for Docker's parts") else { return };
    let part = |text: &str, ordinal: u32, last: bool| {
        json!({"log": text, "container_name": "/web", "partial_message": "true", "partial_id": "a1",
               "partial_ordinal": ordinal.to_string(), "partial_last": last.to_string()})
        .to_string()
    };
    let lines = [part("the first part, ", 1, false), r#"{"log":"between"}"#.to_owned(), part("and the rest", 2, true)];
    let recipe = &recipe("multiline.md", "Join the parts of Docker's log driver, in ECS FireLens")[0];
    let logs = [log("web-1", "shop", "nginx", &lines)];
    assert_eq!(texts(&program, recipe, &logs, &["between", JOINED]), ["between", JOINED]);
}

#[test]
fn on_fargate_parts_stay_separate_and_identifiable() {
    let Some(program) = fluent_bit("long lines with the filters of Fargate") else { return };
    let manifest = kubehose("manifest --region eu-west-1 --delivery-stream logs").fine();
    // There is no Kubernetes API here; only the parser reads the runtime's line.
    let filters = file_of(&manifest, "filters.conf");
    let parser = filters.split("[FILTER]").nth(1).unwrap();
    let recipe =
        format!("[INPUT]\n    Name tail\n    Path /var/log/containers/*.log\n    Tag kube.*\n[FILTER]{parser}");
    let records = arrived(&program, &recipe, &file_of(&manifest, "parsers.conf"), &[runtime_log()], 6);
    let tags: Vec<&str> = records.iter().map(|record| record["logtag"].as_str().unwrap()).collect();
    assert_eq!(tags.iter().filter(|tag| **tag == "P").count(), 1, "{records:?}");
    assert_eq!(records.len(), 6, "{records:?}");
}
