//! The generated filters run in the real Fluent Bit, over the files of a container runtime, against a local Kubernetes API.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{fluent_bit, kubehose};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A stand-in of the Kubernetes API that knows one pod in every namespace; the address it listens at.
fn kubernetes_api() -> String {
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
            let body = json!({
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
            })
            .to_string();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    address
}

/// The file that the ConfigMap in `manifest` holds under `key`.
fn file_of(manifest: &str, key: &str) -> String {
    let start = format!("  {key}: |");
    let lines = manifest.lines().skip_while(|line| *line != start).skip(1);
    lines
        .take_while(|line| line.is_empty() || line.starts_with("    "))
        .map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or("")))
        .collect()
}

/// What Fluent Bit makes of `lines`, written by the container `nginx` of a pod in `namespace`, through `manifest`'s filters.
fn through(program: &Path, manifest: &str, namespace: &str, lines: &[&str], api: &str) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let log: String = lines.iter().map(|line| format!("2026-01-27T16:53:42.123456789Z stdout F {line}\n")).collect();
    std::fs::create_dir(path("containers")).unwrap();
    std::fs::write(path(&format!("containers/sample-app-6c8b_{namespace}_nginx-{ID}.log")), log).unwrap();
    std::fs::write(path("token"), "token").unwrap();
    std::fs::write(path("parsers.conf"), file_of(manifest, "parsers.conf")).unwrap();
    // The stand-in's address is the one thing that a Fargate manifest must not hold.
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

/// The four names at the root, as Datadog knows them.
fn four(record: &Value) -> [&Value; 4] {
    [&record["kube_container_name"], &record["kube_namespace"], &record["pod_name"], &record["container_id"]]
}

const PLAIN: &str = "GET /";
const OWN: &str = r#"{"pod_name":"mine","n":1}"#;

#[test]
fn renaming_moves_the_four_and_leaves_an_application_its_own() {
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
        assert!(!kubernetes.contains_key(moved), "{moved} stands twice: {kubernetes:?}");
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
    assert!(records[0].get("log").is_none(), "the unparsed text stays: {records:?}");
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
fn the_guides_own_leaves_the_prefix_and_the_names() {
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
fn without_the_kubernetes_api_the_logs_still_pass() {
    let Some(program) = fluent_bit("the API out of reach") else {
        return;
    };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let records = through_without_api(&program, &manifest(""), &closed);
    assert_eq!(records[0]["log"], "GET /");
}

/// As [`through`], where errors of the filter are expected.
fn through_without_api(program: &Path, manifest: &str, api: &str) -> Vec<Value> {
    let quiet = manifest.replace("Merge_Log           On", "Merge_Log           On\n        Log_Level           off");
    through(program, &quiet, "shop", &[PLAIN], api)
}
