//! The generated filters in the real Fluent Bit, with a container runtime's log files and a stand-in for the
//! Kubernetes API.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use kubehose_local::firehose::{Keep, Options, Server};
use serde_json::{Value, json};
use support::{append, file_of, fluent_bit, kubehose};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A stand-in for the Kubernetes API that knows every pod, those named `team-…` with that label; returns its address.
fn kubernetes_api() -> String {
    api_of(|pod, namespace| {
        let mut body = json!({
            "kind": "Pod",
            "metadata": {
                "name": pod,
                "namespace": namespace,
                "uid": "6b6a3a7c-0000-4000-8000-000000000000",
                "labels": {"app": "web", "app.kubernetes.io/name": "shop", "pod-template-hash": "6c8b449b8f"},
                "annotations": {"checksum/config": "abc"}
            },
            "spec": {"nodeName": "fargate-ip-10-0-0-1", "containers": [{"name": "nginx"}]},
            "status": {
                "podIP": "10.0.0.2",
                "containerStatuses": [{
                    "name": "nginx", "image": "nginx:1", "imageID": "nginx@sha256:1", "containerID": format!("containerd://{ID}")
                }]
            }
        });
        if let Some(team) = pod.strip_prefix("team-") {
            body["metadata"]["labels"]["example.com/team"] = json!(team);
        }
        if namespace == "bare" {
            body["metadata"]["labels"] = Value::Null;
        }
        body
    })
}

/// A stand-in for the Kubernetes API; `say` returns the reply for a pod and its namespace.
fn api_of(say: impl Fn(&str, &str) -> Value + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request = lines.next().and_then(Result::ok).unwrap_or_default();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let path = request.split(' ').nth(1).unwrap_or("/");
            let mut parts = path.rsplit('/');
            let (pod, _, namespace) = (parts.next().unwrap_or(""), parts.next(), parts.next().unwrap_or(""));
            let body = say(pod, namespace).to_string();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    address
}

/// The records that Fluent Bit makes of `lines`, written by the container `nginx` of a pod in `namespace`, with
/// `manifest`'s filters.
fn through(program: &Path, manifest: &str, namespace: &str, lines: &[&str], api: &str) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let log: String = lines.iter().map(|line| format!("2026-01-27T16:53:42.123456789Z stdout F {line}\n")).collect();
    std::fs::create_dir(path("containers")).unwrap();
    std::fs::write(path(&format!("containers/sample-app-6c8b_{namespace}_nginx-{ID}.log")), log).unwrap();
    std::fs::write(path("token"), "token").unwrap();
    std::fs::write(path("parsers.conf"), file_of(manifest, "parsers.conf")).unwrap();
    // The API's address is added here, because a Fargate manifest must not contain it.
    let filters = file_of(manifest, "filters.conf").replace(
        "kubernetes\n    Match ",
        &format!("kubernetes\n    Kube_URL http://{api}\n    Kube_Token_File {}\n    Match ", path("token")),
    );
    assert!(filters.contains("Kube_URL"), "{filters}");
    let config = format!(
        "[SERVICE]
    Flush 0.2
    Log_Level warn
    Parsers_File {}

[INPUT]
    Name tail
    Path {}
    Tag kube.var.log.containers.<file>
    Tag_Regex ^.*/(?<file>[^/]+)$
    Read_from_Head On
    Exit_On_Eof On

{filters}
[OUTPUT]
    Name stdout
    Match kube.*
    Format json_lines
    json_date_key date_of_record
    json_date_format iso8601
",
        path("parsers.conf"),
        path("containers/*.log"),
    );
    std::fs::write(path("fluent-bit.conf"), config).unwrap();
    let run = support::run(Command::new("timeout").arg("60").arg(program).args(["-q", "-c", &path("fluent-bit.conf")]));
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(!run.stderr.contains("error"), "{}", run.stderr);
    run.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn manifest(options: &str) -> String {
    kubehose(&format!("manifest --region eu-west-1 --delivery-stream logs {options}")).fine()
}

/// The four names at the top level, as Datadog expects them.
fn four(record: &Value) -> [&Value; 4] {
    [&record["kube_container_name"], &record["kube_namespace"], &record["pod_name"], &record["container_id"]]
}

const PLAIN: &str = "GET /";
const OWN: &str = r#"{"pod_name":"mine","n":1}"#;

#[test]
fn renaming_moves_the_four_names_and_keeps_an_applications_own() {
    let Some(program) = fluent_bit("renaming by filters") else {
        return;
    };
    let api = kubernetes_api();
    let records = through(&program, &manifest(""), "shop", &[PLAIN, OWN], &api);
    assert_eq!(records.len(), 2, "{records:?}");

    assert_eq!(four(&records[0]), ["nginx", "shop", "sample-app-6c8b", ID]);
    assert_eq!(records[0]["log"], "GET /");
    let kubernetes = records[0]["kubernetes"].as_object().unwrap();
    for moved in ["container_name", "namespace_name", "pod_name", "docker_id"] {
        assert!(!kubernetes.contains_key(moved), "{moved} is there twice: {kubernetes:?}");
    }
    assert_eq!(kubernetes["host"], "fargate-ip-10-0-0-1");
    assert_eq!(kubernetes["labels"]["app"], "web");
    assert!(records[0].as_object().unwrap().keys().all(|key| !key.starts_with("kubehose")), "{:?}", records[0]);
    assert_eq!(records[0]["date_of_record"], "2026-01-27T16:53:42.123456Z");

    assert_eq!(four(&records[1]), ["nginx", "shop", "mine", ID]);
    assert_eq!(records[1]["n"], 1);
    assert_eq!(records[1]["kubernetes"]["pod_name"], "sample-app-6c8b");
}

#[test]
fn preserving_keeps_both_names() {
    let Some(program) = fluent_bit("preserving by filters") else {
        return;
    };
    let api = kubernetes_api();
    let records = through(&program, &manifest("--preserve-source"), "shop", &[PLAIN, OWN], &api);
    assert_eq!(four(&records[0]), ["nginx", "shop", "sample-app-6c8b", ID]);
    assert_eq!(records[0]["kubernetes"]["pod_name"], "sample-app-6c8b");
    assert_eq!(records[0]["kubernetes"]["docker_id"], ID);
    assert_eq!(four(&records[1]), ["nginx", "shop", "mine", ID]);
    assert_eq!(records[1]["kubernetes"]["pod_name"], "sample-app-6c8b");
}

#[test]
fn overriding_replaces_what_the_application_has() {
    let Some(program) = fluent_bit("overriding by filters") else {
        return;
    };
    let api = kubernetes_api();
    for (options, source_stays) in [("--override", false), ("--override --preserve-source", true)] {
        let records = through(&program, &manifest(options), "shop", &[OWN], &api);
        assert_eq!(four(&records[0]), ["nginx", "shop", "sample-app-6c8b", ID], "{options}");
        assert_eq!(records[0]["kubernetes"].get("pod_name").is_some(), source_stays, "{options}: {records:?}");
    }
}

#[test]
fn without_the_remap_the_map_stays_whole() {
    let Some(program) = fluent_bit("no remap") else { return };
    let records = through(&program, &manifest("--remap none"), "shop", &[PLAIN], &kubernetes_api());
    assert_eq!(records[0]["kubernetes"]["pod_name"], "sample-app-6c8b");
    assert!(records[0].get("pod_name").is_none());
}

#[test]
fn smaller_records_keep_the_named_labels_only() {
    let Some(program) = fluent_bit("smaller records") else {
        return;
    };
    let options =
        "--keep-labels app.kubernetes.io/name --drop annotations,log,pod-id,pod-ip,container-hash,container-image";
    let records = through(&program, &manifest(options), "shop", &[OWN], &kubernetes_api());
    let kubernetes = json!({
        "pod_name": "sample-app-6c8b",
        "host": "fargate-ip-10-0-0-1",
        "labels": {"app.kubernetes.io/name": "shop"}
    });
    assert_eq!(records[0]["kubernetes"], kubernetes, "{records:?}");
    assert!(records[0].get("log").is_none(), "the unparsed text is still there: {records:?}");
    let labels_off = through(&program, &manifest("--drop labels"), "shop", &[PLAIN], &kubernetes_api());
    assert!(labels_off[0]["kubernetes"].get("labels").is_none(), "{labels_off:?}");
}

#[test]
fn excluded_namespaces_are_not_sent() {
    let Some(program) = fluent_bit("excluded namespaces") else {
        return;
    };
    let manifest = manifest("--exclude-namespace kube-system,shop");
    assert_eq!(through(&program, &manifest, "shop", &[PLAIN], &kubernetes_api()), Vec::<Value>::new());
    assert_eq!(through(&program, &manifest, "shop-2", &[PLAIN], &kubernetes_api()).len(), 1);
}

#[test]
fn the_guides_manifest_keeps_the_prefix_and_the_names() {
    let Some(program) = fluent_bit("the guide's filters") else {
        return;
    };
    let records = through(&program, &manifest("--guide"), "shop", &[OWN], &kubernetes_api());
    assert_eq!(records[0]["kubernetes"]["pod_name"], "sample-app-6c8b");
    assert_eq!(records[0]["kubernetes"]["docker_id"], ID);
    assert!(records[0]["log"].as_str().unwrap().contains(" stdout F {"), "{records:?}");
    assert!(records[0].get("n").is_none(), "JSON behind a prefix is not merged: {records:?}");
}

#[test]
fn logs_are_delivered_without_the_kubernetes_api() {
    let Some(program) = fluent_bit("the API out of reach") else {
        return;
    };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let records = through_without_api(&program, &manifest(""), &closed);
    assert_eq!(records[0]["log"], "GET /");
}

/// The records that arrive, by stream, of the line `{"n":…}` and then `own` from each of these pods, through the
/// manifest with its own output, as EKS Fargate would run it.
fn routed(program: &Path, manifest: &str, pods: &[(&str, &str)], own: &str) -> BTreeMap<String, Vec<Value>> {
    routed_by(program, manifest, pods, own, Some(&kubernetes_api()))
}

/// Like [`routed`], with the API at that address, or without a reachable one.
fn routed_by(
    program: &Path,
    manifest: &str,
    pods: &[(&str, &str)],
    own: &str,
    api: Option<&str>,
) -> BTreeMap<String, Vec<Value>> {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let server = Server::start(Options {
        tls: true,
        region: Some("eu-west-1".to_owned()),
        keep: Keep::Records,
        ..Options::default()
    })
    .unwrap();
    std::fs::create_dir(path("containers")).unwrap();
    for (index, (pod, namespace)) in pods.iter().enumerate() {
        let line = |text: &str| format!("2026-01-27T16:53:42.123456789Z stdout F {text}\n");
        let log: String = [format!("{{\"n\":{index}}}"), own.to_owned()].iter().map(|text| line(text)).collect();
        std::fs::write(path(&format!("containers/{pod}_{namespace}_nginx-{ID}.log")), log).unwrap();
    }
    std::fs::write(path("token"), "token").unwrap();
    std::fs::write(path("parsers.conf"), file_of(manifest, "parsers.conf")).unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let url = api.unwrap_or(&closed);
    let filter = format!("Name kubernetes\n Kube_URL http://{url}\n Kube_Token_File {}\n", path("token"));
    let endpoint = format!(
        "kinesis_firehose\n endpoint 127.0.0.1\n port {}\n tls.ca_file {}\n tls.vhost localhost\n",
        server.port(),
        server.ca_pem_path().unwrap().display()
    );
    // The section's lines must be indented like its first one.
    let flat = |key: &str| file_of(manifest, key).lines().map(|line| narrow(line) + "\n").collect::<String>();
    let config = format!(
        "[SERVICE]\n Flush 0.2\n Log_Level info\n Parsers_File {}\n[INPUT]\n Name tail\n Path {}\n Tag kube.var.log.containers.<file>\n \
         Tag_Regex ^.*/(?<file>[^/]+)$\n Read_from_Head On\n{}{}",
        path("parsers.conf"),
        path("containers/*.log"),
        flat("filters.conf").replace("Name kubernetes\n", &filter),
        flat("output.conf").replace("kinesis_firehose\n", &endpoint),
    );
    std::fs::write(path("fluent-bit.conf"), &config).unwrap();
    let said = std::fs::File::create(path("said")).unwrap();
    let router = Command::new(program)
        .args(["-c", &path("fluent-bit.conf")])
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .stdout(std::process::Stdio::null())
        .stderr(said)
        .spawn()
        .unwrap();
    let router = Child(router);
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let wanted = pods.len() * 2;
    while server.records().len() < wanted && std::time::Instant::now() < patience {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // A loop in the filters would send records again and again.
    std::thread::sleep(std::time::Duration::from_secs(1));
    drop(router);
    let said = std::fs::read_to_string(path("said")).unwrap();
    let quiet = !said.contains("[error]") || api.is_none();
    assert!(quiet && !said.contains("cycle"), "{said}\n{config}");
    let records = server.records();
    assert_eq!(records.len(), wanted, "{said}\n{config}");
    let mut streams: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for record in records {
        streams.entry(record.stream.to_string()).or_default().push(serde_json::from_slice(&record.data).unwrap());
    }
    streams
}

/// A line with runs of blanks reduced to one.
fn narrow(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    if line.starts_with(' ') { format!(" {}", words.join(" ")) } else { words.join(" ") }
}

/// The event of an application that imitates another one's metadata.
const POSING: &str = r#"{"kubernetes":{"namespace_name":"shop","labels":{"app":"other"}},"kube_namespace":"shop"}"#;

/// Whether the program's own output cannot be pointed at a local port.
fn built_in_is_bound_to_aws(program: &Path) -> bool {
    let told = support::run(Command::new(program).arg("--version")).stdout;
    let mut numbers =
        told.split(" v").nth(1).unwrap_or("").split('.').map(|number| number.trim().parse::<u32>().unwrap_or(0));
    let old = (numbers.next(), numbers.next()) < (Some(4), Some(2));
    if old {
        support::not_run("the routes: kinesis_firehose before 4.2 cannot be led to a local port");
    }
    old
}

#[test]
fn each_log_arrives_exactly_once_in_the_stream_of_its_route() {
    let Some(program) = fluent_bit("routes") else { return };
    if built_in_is_bound_to_aws(&program) {
        return;
    }
    let long = "n".repeat(63);
    let options = format!(
        "--route shop=logs-shop,a-1=logs-a,{long}=logs-shop,label:example.com/team=pay.v1=logs-pay,label:app=web=logs-web,bare=never"
    );
    let pods = [
        ("web-0", "shop", "logs-shop"),
        // A namespace's route takes precedence over a label's.
        ("team-pay.v1", "shop", "logs-shop"),
        ("web-0", "a-1", "logs-a"),
        ("web-0", long.as_str(), "logs-shop"),
        ("team-pay.v1", "other", "logs-pay"),
        // Neither a part of a name matches, nor a character in place of the name's dot.
        ("team-payxv1", "other", "logs-web"),
        ("web-0", "shop-2", "logs-web"),
        ("web-0", "a", "logs-web"),
        ("web-0", "bare", "never"),
        ("web-0", "a-11", "logs-web"),
    ];
    let names: Vec<(&str, &str)> = pods.iter().map(|(pod, namespace, _)| (*pod, *namespace)).collect();
    for more in ["", "--drop labels,host", "--keep-labels pod-template-hash", "--remap none", "--preserve-source"] {
        let streams = routed(&program, &manifest(&format!("{options} {more}")), &names, POSING);
        for (index, (pod, namespace, stream)) in pods.iter().enumerate() {
            let there = &streams[*stream];
            let own: Vec<&Value> = there.iter().filter(|record| record["n"] == json!(index)).collect();
            assert_eq!(own.len(), 1, "{more}: {pod} {namespace}: {streams:#?}");
            assert_eq!(own[0]["_timestamp"], "2026-01-27T16:53:42.123Z", "{:#}", own[0]);
            let renamed = four(own[0]) == ["nginx", namespace, pod, ID];
            assert_eq!(renamed, more != "--remap none", "{more}: {:#}", own[0]);
            let labels = &own[0]["kubernetes"]["labels"];
            match more {
                _ if *namespace == "bare" => assert!(labels.is_null() || labels == &json!({}), "{labels}"),
                "--drop labels,host" => assert!(labels.is_null() && own[0]["kubernetes"]["host"].is_null(), "{labels}"),
                "--keep-labels pod-template-hash" => assert_eq!(labels, &json!({"pod-template-hash": "6c8b449b8f"})),
                _ => assert_eq!(labels["app"], "web"),
            }
        }
        // An event that imitates another application goes to the stream of its own pod: each pod has its two lines
        // there.
        for (stream, records) in &streams {
            let pods = pods.iter().filter(|(_, _, own)| own == stream).count();
            assert_eq!(records.len(), 2 * pods, "{more}: {stream}: {records:#?}");
        }
    }
}

#[test]
fn unrouted_logs_go_to_the_default_stream_and_a_route_may_name_it() {
    let Some(program) = fluent_bit("routes and the default") else { return };
    if built_in_is_bound_to_aws(&program) {
        return;
    }
    let pods = [("web-0", "shop"), ("web-0", "dev"), ("team-x", "other"), ("web-0", "bare"), ("team-x", "shop")];
    let options = "--route shop=logs --route label:app=web=logs-web";
    let streams = routed(&program, &manifest(options), &pods, PLAIN);
    let numbers = |stream: &str| {
        let mut numbers: Vec<u64> = streams[stream].iter().filter_map(|record| record["n"].as_u64()).collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!((numbers("logs"), numbers("logs-web")), (vec![0, 3, 4], vec![1, 2]), "{streams:#?}");
    // The most compact form of the manifest gives the same result.
    let many: Vec<String> = (0..13).map(|n| format!("namespace-with-a-long-name-{n}=logs-of-namespace-{n}")).collect();
    let manifest = manifest(&format!("--route {} {options}", many.join(",")));
    assert!(manifest.contains("\n     Name rewrite_tag\n"), "{manifest}");
    let streams = routed(&program, &manifest, &[("web-0", "shop"), ("web-0", "namespace-with-a-long-name-4")], PLAIN);
    assert_eq!(streams.keys().collect::<Vec<_>>(), ["logs", "logs-of-namespace-4"], "{streams:#?}");
}

#[test]
fn labels_with_any_allowed_character_or_empty_can_be_routed() {
    let Some(program) = fluent_bit("routes by odd labels") else { return };
    if built_in_is_bound_to_aws(&program) {
        return;
    }
    let long = format!("{}.{}", "a".repeat(31), "b".repeat(31));
    let key = format!("{}/{}", "very-long.example.com", "k".repeat(63));
    let labels =
        [("Team_Name", "A-b_C.9"), (key.as_str(), long.as_str()), ("empty", ""), ("TAG", "0"), ("a.b-c", "true")];
    let api = labelled_api(&labels.map(|(key, value)| (key.to_owned(), value.to_owned())));
    for (index, (key, value)) in labels.iter().enumerate() {
        // A route with another value of the same label, one character shorter, comes first and must not match.
        let other = if value.len() > 1 { value[1..].trim_start_matches(['-', '_', '.']) } else { "other" };
        let options =
            format!("--route label:{key}={other}=wrong,label:{key}={value}=stream-{index},label:absent=x=wrong");
        let streams = routed_by(&program, &manifest(&options), &[("web-0", "shop")], PLAIN, Some(&api));
        assert_eq!(streams.keys().collect::<Vec<_>>(), [&format!("stream-{index}")], "{key}={value}");
    }
}

/// A stand-in for the Kubernetes API in which every pod has these labels.
fn labelled_api(labels: &[(String, String)]) -> String {
    let labels: BTreeMap<String, String> = labels.iter().cloned().collect();
    api_of(move |pod, namespace| {
        json!({
            "kind": "Pod",
            "metadata": {"name": pod, "namespace": namespace, "labels": labels},
            "spec": {"nodeName": "a", "containers": [{"name": "nginx"}]},
            "status": {"podIP": "10.0.0.2", "containerStatuses": []}
        })
    })
}

#[test]
fn without_the_kubernetes_api_logs_go_to_the_default() {
    let Some(program) = fluent_bit("routes without the API") else { return };
    if built_in_is_bound_to_aws(&program) {
        return;
    }
    let manifest = manifest("--route shop=logs-shop,label:app=web=logs-web");
    let pods = [("web-0", "shop"), ("web-0", "dev")];
    let streams = routed_by(&program, &manifest, &pods, OWN, None);
    assert_eq!(streams.keys().collect::<Vec<_>>(), ["logs"], "{streams:#?}");
    // Without the API an event's own `kubernetes` map cannot be told from the filter's; the book says so.
    let streams = routed_by(&program, &manifest, &pods, POSING, None);
    assert_eq!(streams.keys().collect::<Vec<_>>(), ["logs", "logs-shop"], "{streams:#?}");
}

/// Like [`through`], where the filter is expected to log errors.
fn through_without_api(program: &Path, manifest: &str, api: &str) -> Vec<Value> {
    let quiet = manifest.replace("Merge_Log           On", "Merge_Log           On\n        Log_Level           off");
    through(program, &quiet, "shop", &[PLAIN], api)
}

/// Fluent Bit must refuse each file that lint rejects as malformed; otherwise lint is too strict.
#[test]
fn fluent_bit_refuses_what_lint_rejects() {
    let Some(program) = fluent_bit("the broken files of lint") else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lint");
    let mut taken = Vec::new();
    for name in [
        "indent",
        "section-indented",
        "section-unclosed",
        "section-empty",
        "key-outside",
        "value-missing",
        "value-missing-tab",
        "name-missing",
        "parser-format",
        "parser-regex",
        "parser-undefined",
        "option-unknown",
        "option-unknown-filter",
        "option-missing",
    ] {
        let manifest = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        for key in ["parsers.conf", "filters.conf", "output.conf"] {
            std::fs::write(path(key), file_of(&manifest, key)).unwrap();
        }
        let config = format!(
            "[SERVICE]\n    Parsers_File {}\n[INPUT]\n    Name dummy\n    Tag kube.a\n@INCLUDE {}\n@INCLUDE {}\n",
            path("parsers.conf"),
            path("filters.conf"),
            path("output.conf")
        );
        if refuses(&program, dir.path(), &config) == Some(false) {
            taken.push(name);
        }
    }
    for name in ["indent-tab", "indent-none", "storage-path", "plugins-section"] {
        let dir = tempfile::tempdir().unwrap();
        let config = std::fs::read_to_string(folder.join(format!("{name}.conf"))).unwrap();
        let config = config.replace("/var/lib/router", &dir.path().display().to_string());
        // The cause must be the file's fault, not the missing plugin.
        let config = config.replace("Name            kubehose", "Name            stdout");
        if refuses(&program, dir.path(), &config) == Some(false) {
            taken.push(name);
        }
    }
    assert_eq!(taken, [""; 0], "Fluent Bit accepts these");
}

/// Whether the program exits at once with an error.
fn refuses(program: &Path, dir: &Path, config: &str) -> Option<bool> {
    let path = dir.join("fluent-bit.conf");
    std::fs::write(&path, config).unwrap();
    let run = support::run(Command::new("timeout").arg("5").arg(program).arg("-q").arg("-c").arg(path));
    // 124 is `timeout`'s code for a program that was still running.
    Some(run.code != 124 && run.code != 0)
}

/// A process that is killed when dropped.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `setpriv` arguments for the user of the container: the DaemonSet's root with one capability, the sidecar's user
/// with none.
const DAEMONSET: [&str; 3] = ["--bounding-set=-all,+dac_read_search", "--inh-caps=-all", "--no-new-privs"];
const SIDECAR: [&str; 6] =
    ["--reuid=65532", "--regid=65532", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"];

/// The program as the manifest's security context runs it, if the test may become that user.
fn as_in_the_pod(program: &Path, who: &[&str]) -> Command {
    let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
    let trial = || Command::new("setpriv").args(who).arg("true").status().is_ok_and(|status| status.success());
    if !root || !trial() {
        support::not_run("the user and the capabilities of the manifests: they need root and setpriv (util-linux)");
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(who).arg(program);
    command
}

/// Whether Fluent Bit's server answers a probe.
fn answers(address: &str, port: u16) -> bool {
    let Ok(mut stream) = std::net::TcpStream::connect((address, port)) else { return false };
    let _ = write!(stream, "GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    BufReader::new(stream)
        .lines()
        .next()
        .is_some_and(|line| line.is_ok_and(|line| line.split(" ").nth(1) == Some("200")))
}

/// The records that a local Firehose endpoint receives from `config`, run in the real program with the plugin.
fn delivered(program: &Path, who: &[&str], dir: &Path, config: &str, plugins: &str, wanted: usize) -> Vec<Value> {
    // The pod's user, too, reads and writes in this folder.
    std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let path = |name: &str| dir.join(name).display().to_string();
    // Of an earlier run in this folder.
    let _ = std::fs::remove_file(path("port"));
    let endpoint = support::command()
        .args(["firehose", "--listen", "127.0.0.1:0", "--port-file", &path("port"), "--output", &path("delivered")])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let _endpoint = Child(endpoint);
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let wait = || {
        assert!(std::time::Instant::now() < patience, "nothing in 20 seconds");
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    let port = loop {
        match std::fs::read_to_string(path("port")).ok().and_then(|text| text.trim().parse::<u16>().ok()) {
            Some(port) => break port,
            None => wait(),
        }
    };
    let probed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let stream = "    delivery_stream ";
    let config = config
        .replace(stream, &format!("    endpoint http://127.0.0.1:{port}\n{stream}"))
        .replace("/kubehose/etc", &path(""))
        .replace("/kubehose/state", &path(""))
        // A free port, because other tests run on the same machine.
        .replace(" 2020\n", &format!(" {probed}\n"));
    std::fs::write(path("fluent-bit.conf"), &config).unwrap();
    std::fs::write(path("plugins.conf"), plugins).unwrap();
    let said = std::fs::File::create(path("said")).unwrap();
    let router = as_in_the_pod(program, who)
        .args(["-c", &path("fluent-bit.conf")])
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("POD_NAME", "web-1")
        .env("POD_NAMESPACE", "shop")
        .stdout(std::process::Stdio::null())
        .stderr(said)
        .spawn()
        .unwrap();
    let _router = Child(router);
    loop {
        let lines = std::fs::read_to_string(path("delivered")).unwrap_or_default();
        if lines.lines().count() >= wanted {
            for address in ["127.0.0.1", "::1"] {
                assert!(answers(address, probed), "no answer to a probe of {address}");
            }
            return lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        }
        let late = std::time::Instant::now() >= patience;
        assert!(!late, "not delivered: {}\n{config}", std::fs::read_to_string(path("said")).unwrap_or_default());
        wait();
    }
}

/// The plugin built with these tests.
fn plugin() -> Option<std::path::PathBuf> {
    let named = std::env::var_os("KUBEHOSE_SO").map(std::path::PathBuf::from);
    let path = named.or_else(|| Some(std::env::current_exe().ok()?.with_file_name("libkubehose.so")))?;
    if path.is_file() {
        return Some(path);
    }
    support::not_run(&format!("the plugin's manifests: no {}", path.display()));
    None
}

fn plugin_manifest(target: &str, plugin: &Path, options: &str) -> String {
    kubehose(&format!(
        "manifest --target {target} --image a --plugin-path {} --region eu-west-1 --delivery-stream logs {options}",
        plugin.display()
    ))
    .fine()
}

#[test]
fn the_daemonsets_configuration_delivers_with_the_plugin() {
    let (Some(program), Some(plugin)) = (fluent_bit("the DaemonSet's configuration"), plugin()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let containers = dir.path().join("containers");
    std::fs::create_dir(&containers).unwrap();
    let file = containers.join(format!("sample-app-6c8b_shop_nginx-{ID}.log"));
    std::fs::write(&file, format!("2026-01-27T16:53:42.123456789Z stdout F {OWN}\n")).unwrap();
    // With the mode that the container runtime sets.
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "token").unwrap();
    let manifest = plugin_manifest("daemonset", &plugin, "");
    assert!(manifest.contains("runAsUser: 0\n") && manifest.contains("add: [DAC_READ_SEARCH]"), "{manifest}");
    let api = format!("Kube_URL http://{}\n    Kube_Token_File {}\n    Match ", kubernetes_api(), token.display());
    let config = file_of(&manifest, "fluent-bit.conf")
        .replace("/var/log/containers", &containers.display().to_string())
        .replace("kube.*\n    Path", "kube.var.log.containers.<file>\n    Tag_Regex ^.*/(?<file>[^/]+)$\n    Path")
        .replace("kubernetes\n    Match ", &format!("kubernetes\n    {api}"));
    let records = delivered(&program, &DAEMONSET, dir.path(), &config, &file_of(&manifest, "plugins.conf"), 1);
    assert_eq!(four(&records[0]), ["nginx", "shop", "mine", ID]);
    assert_eq!(records[0]["kubernetes"]["pod_name"], "sample-app-6c8b", "{}", records[0]);
    assert_eq!(records[0]["_timestamp"], "2026-01-27T16:53:42.123Z");

    // While the router is away, the file grows and a pod comes: of both every line arrives, and none again.
    append(&file, "2026-01-27T16:54:00.000000000Z stdout F later\n");
    let new = containers.join(format!("new-1_shop_nginx-{ID}.log"));
    std::fs::write(&new, "2026-01-27T16:54:01.000000000Z stdout F first of the new pod\n").unwrap();
    let plugins = file_of(&manifest, "plugins.conf");
    let records = delivered(&program, &DAEMONSET, dir.path(), &config, &plugins, 3);
    let mut logs: Vec<_> = records[1..].iter().map(|record| record["log"].as_str().unwrap()).collect();
    logs.sort_unstable();
    assert_eq!(logs, ["first of the new pod", "later"], "{records:?}");
}

#[test]
fn the_sidecars_configuration_delivers_with_the_plugin() {
    let (Some(program), Some(plugin)) = (fluent_bit("the sidecar's configuration"), plugin()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    std::fs::write(logs.join("access.log"), "GET /\n").unwrap();
    let manifest = plugin_manifest("sidecar", &plugin, &format!("--log-dir {}", "/logs"));
    let config = file_of(&manifest, "fluent-bit.conf").replace("/logs/*.log", &format!("{}/*.log", logs.display()));
    let records = delivered(&program, &SIDECAR, dir.path(), &config, &file_of(&manifest, "plugins.conf"), 1);
    assert_eq!(records[0]["log"], "GET /");
    assert_eq!(records[0]["pod_name"], "web-1");
    assert_eq!(records[0]["kube_namespace"], "shop");
    assert_eq!(records[0]["kube_container_name"], "app");
}
