//! preview shows the plugin's own bytes: names, batches, limits, billed size, and truncated or dead-lettered records.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::{kubehose_with, run};

const EVENT: &str = r#"{"log":"hi","kubernetes":{"pod_name":"web-1","namespace_name":"shop","container_name":"web","docker_id":"abc","host":"n"},"n":18446744073709551615}"#;

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_event_has_the_names_that_datadog_expects() {
    let done = kubehose_with(&["preview"], EVENT.as_bytes());
    assert_eq!(
        done.stdout,
        "{\"log\":\"hi\",\"kubernetes\":{\"host\":\"n\"},\"n\":18446744073709551615,\"kube_container_name\":\"web\",\
         \"kube_namespace\":\"shop\",\"pod_name\":\"web-1\",\"container_id\":\"abc\"}\n"
    );
    let account = format!("1 event, 1 record of {} bytes in 1 batch; billed as 5120 bytes", done.stdout.len());
    assert!(done.stderr.contains(&account), "{done:?}");
    assert_eq!(done.code, 0);
}

#[test]
fn options_tag_and_time_are_the_plugins() {
    let id = "0".repeat(64);
    let tag = format!("kube.var.log.containers.web-1_shop_web-{id}.log");
    let args = [
        "preview",
        "--tag",
        &tag,
        "--time",
        "2026-01-27T16:53:42.123Z",
        "--option",
        "time_key=_timestamp",
        "--option",
        "time_key_format=%Y-%m-%dT%H:%M:%S.%3NZ",
    ];
    let record = &objects(&kubehose_with(&args, b"{\"log\":\"hi\"}").fine())[0];
    let expected = json!({
        "log": "hi", "kube_container_name": "web", "kube_namespace": "shop", "pod_name": "web-1", "container_id": id,
        "_timestamp": "2026-01-27T16:53:42.123Z"
    });
    assert_eq!(*record, expected);
    let kept = kubehose_with(&["preview", "-o", "remap=none"], EVENT.as_bytes()).fine();
    assert_eq!(kept.trim_end(), EVENT);
}

#[test]
fn a_batch_holds_500_records_and_each_is_billed_in_steps() {
    let done = kubehose_with(&["preview", "--format", "json"], format!("{EVENT}\n").repeat(1001).as_bytes());
    let records = objects(&done.stdout);
    assert_eq!(records.len(), 1001);
    assert_eq!(
        (&records[499]["batch"], &records[500]["batch"], &records[1000]["batch"]),
        (&json!(1), &json!(2), &json!(3))
    );
    assert!(records.iter().all(|record| record["billed"] == 5120));
    assert_eq!(records[1000]["events"], json!([1001, 1001]));
    assert!(done.stderr.contains("batch 3: 1 record of"), "{}", done.stderr);
}

#[test]
fn bodies_are_in_the_form_that_firehose_accepts() {
    let done = kubehose_with(&["preview", "--format", "bodies", "-o", "delivery_stream=logs"], EVENT.as_bytes());
    let body = &objects(&done.stdout)[0];
    assert_eq!(body["DeliveryStreamName"], "logs");
    assert_eq!(body["Records"].as_array().unwrap().len(), 1);
}

#[test]
fn too_large_records_are_truncated_or_dead_lettered() {
    let large = json!({"log": "x".repeat(1_100_000)}).to_string();
    let cut = kubehose_with(&["preview", "--format", "json"], large.as_bytes());
    assert_eq!(cut.code, 0, "{}", cut.stderr);
    assert_eq!(objects(&cut.stdout)[0]["cut"], true);
    assert!(cut.stderr.contains("1 cut, 0 dead-lettered"), "{}", cut.stderr);
    let aside = kubehose_with(&["preview", "-o", "oversize=drop"], large.as_bytes());
    assert_eq!((aside.code, aside.stdout.as_str()), (1, ""));
    assert!(aside.stderr.contains("0 cut, 1 dead-lettered"), "{}", aside.stderr);
}

#[test]
fn a_chunk_of_msgpack_is_read_as_the_host_flushes_it() {
    // [[EventTime, {}], {"log": "a"}], [seconds, {"log": "b"}], then bytes that are not an event.
    let mut chunk = b"\x92\x92\xd7\x00\x60\x00\x00\x00\x00\x00\x00\x00\x80\x81\xa3log\xa1a".to_vec();
    chunk.extend_from_slice(b"\x92\xce\x60\x00\x00\x00\x81\xa3log\xa1b");
    chunk.extend_from_slice(b"\xc1\xc1");
    let done = kubehose_with(&["preview"], &chunk);
    assert_eq!(done.stdout, "{\"log\":\"a\"}\n{\"log\":\"b\"}\n");
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("2 events") && !done.stderr.contains("0 not readable"), "{}", done.stderr);
}

#[test]
fn input_that_cannot_be_previewed_is_named() {
    for (args, input, said) in [
        (&["preview"][..], &b"{\"a\":1}\nnot json\n"[..], "line 2"),
        (&["preview"], b"", "empty"),
        (&["preview"], &[b"[".repeat(100_000), b"]".repeat(100_000)].concat(), "line 1"),
        (&["preview", "/no/such/file"], b"", "/no/such/file"),
        (&["preview", "-o", "remap=pod_name"], b"{}", "remap"),
        (&["preview", "-o", "time_keys=x"], b"{}", "did you mean time_key"),
        (&["preview", "-o", "concurrency=0"], b"{}", "concurrency"),
        (&["preview", "--time", "1700"], b"{}", "--time"),
    ] {
        let refused = kubehose_with(args, input);
        assert_eq!(refused.code, 2, "{args:?}: {refused:?}");
        assert!(refused.stderr.contains(said), "{said}: {refused:?}");
    }
}

#[test]
fn a_closed_pipe_is_not_a_failure() {
    let (_dir, path) = support::scratch("events", &format!("{EVENT}\n").repeat(20_000));
    let script = format!(
        "set -o pipefail; {} preview {} 2>/dev/null | head -n 1",
        env!("CARGO_BIN_EXE_kubehose"),
        path.display()
    );
    let done = run(std::process::Command::new("bash").args(["-c", &script]));
    assert_eq!((done.code, done.stdout.lines().count()), (0, 1), "{done:?}");
}
