//! The events of all benchmarks, as the kubernetes filter leaves them, about a kilobyte each: six kinds, and a mix in
//! which each of 50 pods writes one kind.

use serde_json::{Value, json};

/// What a container logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An access log line.
    Plain,
    /// JSON as text in `log`, with escaped quotes.
    Json,
    /// The same, merged into the event (`Merge_Log on`).
    Merged,
    /// Characters beyond ASCII.
    NonAscii,
    /// Measurements as floats.
    Floats,
    /// An access log line from a pod with many long labels.
    Labels,
}

/// Each kind, with its name in the tables.
pub const KINDS: [(&str, Kind); 6] = [
    ("plain lines", Kind::Plain),
    ("JSON in `log`", Kind::Json),
    ("merged JSON", Kind::Merged),
    ("non-ASCII", Kind::NonAscii),
    ("floats", Kind::Floats),
    ("long labels", Kind::Labels),
];

/// The number of pods.
pub const PODS: usize = 50;

/// Event number `n`, of its pod's kind.
pub fn mixed_event(n: usize) -> Value {
    let (_, kind) = KINDS[n % PODS % KINDS.len()];
    event_of(kind, n)
}

/// Event number `n` of this kind.
pub fn event_of(kind: Kind, n: usize) -> Value {
    let mut event = kubernetes_event(n);
    match kind {
        Kind::Plain => {}
        Kind::Json => event["log"] = payload(n).to_string().into(),
        Kind::Merged => {
            event["log"] = payload(n).to_string().into();
            event["log_processed"] = payload(n);
        }
        Kind::NonAscii => {
            event["log"] = format!(
                "注文 {n} を受け付けました: お届け先 東京都千代田区丸の内 {}-{}、Überprüfung abgeschlossen für Kundin Jörgensen ({}), оплата прошла успешно, μέσος χρόνος {} ms ✅",
                n % 9, n % 31, n % 997, n % 499
            )
            .into();
        }
        Kind::Floats => {
            let x = n as f64;
            event["log"] = "measured".into();
            event["values"] = json!({
                "load": [x / 7.0, x / 11.0, x / 13.0], "seconds": x * 0.000_123, "ratio": 1.0 / (x + 3.0),
                "heap": x * 1_048_576.5, "mean": (x * 0.37).sin(), "max": 1e21 / (x + 1.0), "zero": 0.0, "half": x + 0.5
            });
        }
        Kind::Labels => {
            let labels = (0..12).map(|label| {
                let key = format!("team.example.com/label-number-{label}-of-this-deployment");
                (key, Value::from(format!("value-{label}-{}", "abcdefghij".repeat(3))))
            });
            event["kubernetes"]["labels"] = labels.collect::<serde_json::Map<_, _>>().into();
        }
    }
    event
}

/// An application's log entry as JSON.
fn payload(n: usize) -> Value {
    json!({
        "level": "info", "ts": 1_795_562_434.123 + n as f64, "caller": "handler/orders.go:118", "msg": format!("order \"{n}\" accepted"),
        "request_id": format!("{:032x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)), "user": {"id": n % 100_000, "plan": "pro"},
        "duration_ms": (n % 1000) as f64 / 8.0, "path": "C:\\orders\\new", "ok": true, "retries": 0, "parent": null
    })
}

/// Event number `n` with an access log line, 925 bytes of JSON.
pub fn kubernetes_event(n: usize) -> Value {
    json!({
        "time": "2026-11-22T23:20:34.123456789Z", "stream": "stdout", "logtag": "F",
        "log": format!("10.0.{}.{} - - [22/Nov/2026:23:20:34 +0000] \"GET /api/v1/items/{n}?page={} HTTP/1.1\" 200 {} \"https://shop.example/cart\" \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\" rt=0.{}", n % 256, n % 199, n % 17, n % 5000, n % 997),
        "kubernetes": {
            "pod_name": format!("web-6c8b449b8f-{:05}", n % PODS), "namespace_name": "shop",
            "pod_id": "6f2ca1b4-7f5c-4b6c-9a52-3b8a2a8b6f11",
            "labels": {"app": "nginx", "app.kubernetes.io/part-of": "shop", "pod-template-hash": "6c8b449b8f", "tier": "frontend"},
            "annotations": {"kubernetes.io/psp": "eks.privileged", "prometheus.io/scrape": "true"},
            "host": "ip-10-0-1-17.eu-west-1.compute.internal", "pod_ip": "10.0.1.23", "container_name": "nginx",
            "docker_id": format!("{:064x}", n % PODS),
            "container_hash": "docker.io/library/nginx@sha256:0d17b565c37bcbd895e9d92315a05c1c3c9a29f762b011a10c54a66cd53c9b31",
            "container_image": "docker.io/library/nginx:1.27"
        }
    })
}

/// Appends an event in the form of the forward protocol: its time and its body.
pub fn write_event(out: &mut Vec<u8>, event: &Value) {
    out.extend_from_slice(&[0x92, 0xd7, 0x00, 0x65, 0x53, 0xf1, 0x00, 0x07, 0x5b, 0xcd, 0x15]);
    out.extend_from_slice(&rmp_serde::to_vec(event).unwrap());
}
