//! The events of all benchmarks: an access log line as the kubernetes filter leaves it, 925 bytes of JSON.

use serde_json::json;

/// The event of this number.
pub fn kubernetes_event(n: usize) -> serde_json::Value {
    json!({
        "time": "2026-11-22T23:20:34.123456789Z", "stream": "stdout", "logtag": "F",
        "log": format!("10.0.{}.{} - - [22/Nov/2026:23:20:34 +0000] \"GET /api/v1/items/{n}?page={} HTTP/1.1\" 200 {} \"https://shop.example/cart\" \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\" rt=0.{}", n % 256, n % 199, n % 17, n % 5000, n % 997),
        "kubernetes": {
            "pod_name": format!("web-6c8b449b8f-{:05}", n % 50), "namespace_name": "shop",
            "pod_id": "6f2ca1b4-7f5c-4b6c-9a52-3b8a2a8b6f11",
            "labels": {"app": "nginx", "app.kubernetes.io/part-of": "shop", "pod-template-hash": "6c8b449b8f", "tier": "frontend"},
            "annotations": {"kubernetes.io/psp": "eks.privileged", "prometheus.io/scrape": "true"},
            "host": "ip-10-0-1-17.eu-west-1.compute.internal", "pod_ip": "10.0.1.23", "container_name": "nginx",
            "docker_id": format!("{:064x}", n % 50),
            "container_hash": "docker.io/library/nginx@sha256:0d17b565c37bcbd895e9d92315a05c1c3c9a29f762b011a10c54a66cd53c9b31",
            "container_image": "docker.io/library/nginx:1.27"
        }
    })
}

/// Appends an event as the forward protocol has it: its time, and its body.
pub fn write_event(out: &mut Vec<u8>, event: &serde_json::Value) {
    out.extend_from_slice(&[0x92, 0xd7, 0x00, 0x65, 0x53, 0xf1, 0x00, 0x07, 0x5b, 0xcd, 0x15]);
    out.extend_from_slice(&rmp_serde::to_vec(event).unwrap());
}
