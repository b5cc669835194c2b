//! verify against stand-ins of kubectl, aws and curl: what is good, each thing that can be bad, and what cannot be asked.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use support::{Run, file_of, golden, kubehose, run};

/// What the stand-ins answer, by a part of their words.
struct World(BTreeMap<&'static str, Value>);

impl World {
    /// A setup in which everything is right.
    fn good() -> Self {
        let manifest = kubehose("manifest --region eu-west-1 --delivery-stream logs").fine();
        let file = |key: &str| file_of(&manifest, key);
        let pipeline: Value = serde_json::from_str(&kubehose("pipeline").fine()).unwrap();
        let pod = |name: &str| {
            json!({
                "metadata": {"name": name, "annotations": {"Logging": "LoggingEnabled"}},
                "spec": {"schedulerName": "fargate-scheduler"},
                "status": {"phase": "Running"}
            })
        };
        Self(BTreeMap::from([
            ("config view", json!({"clusters": [{"name": "arn:aws:eks:eu-west-1:123456789012:cluster/c"}]})),
            (
                "get namespace aws-observability",
                json!({"metadata": {"name": "aws-observability", "labels": {"aws-observability": "enabled"}}}),
            ),
            (
                "get configmap aws-logging",
                json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": "aws-logging", "namespace": "aws-observability"},
                    "data": {
                        "parsers.conf": file("parsers.conf"), "filters.conf": file("filters.conf"),
                        "output.conf": file("output.conf"), "flb_log_cw": "true"
                    }
                }),
            ),
            (
                "describe-fargate-profile",
                json!({"fargateProfile": {
                    "status": "ACTIVE", "selectors": [{"namespace": "other"}, {"namespace": "fargate-*"}],
                    "podExecutionRoleArn": "arn:aws:iam::123456789012:role/path/pods"
                }}),
            ),
            (
                "simulate-principal-policy",
                json!({"EvaluationResults": [
                    {"EvalActionName": "firehose:PutRecord", "EvalDecision": "allowed"},
                    {"EvalActionName": "firehose:PutRecordBatch", "EvalDecision": "allowed"}
                ]}),
            ),
            ("get pods", json!({"items": [pod("a"), pod("b")]})),
            ("get events", json!({"items": []})),
            (
                "describe-delivery-stream",
                json!({"DeliveryStreamDescription": {
                    "DeliveryStreamStatus": "ACTIVE", "DeliveryStreamType": "DirectPut",
                    "Destinations": [{"HttpEndpointDestinationDescription": {"EndpointConfiguration": {
                        "Url": "https://aws-kinesis-http-intake.logs.datadoghq.eu/v1/input"
                    }}}]
                }}),
            ),
            ("IncomingRecords", json!({"Datapoints": [{"Sum": 1200.0}]})),
            ("DeliveryToHttpEndpoint.Success", json!({"Datapoints": [{"Average": 1.0}]})),
            ("logs/config/pipelines", json!([pipeline])),
            ("logs/events", json!({"data": [{"id": "x"}]})),
        ]))
    }

    /// The same, but for one answer.
    fn but(mut self, key: &'static str, change: impl FnOnce(&mut Value)) -> Self {
        change(self.0.get_mut(key).unwrap());
        self
    }

    /// Runs verify in it; an answer that is a string is what the program says when it fails.
    fn verify(&self) -> Run {
        let dir = tempfile::tempdir().unwrap();
        let mut cases = String::new();
        for (index, (key, answer)) in self.0.iter().enumerate() {
            let file = dir.path().join(index.to_string());
            let (text, end) = match answer {
                Value::String(said) => (said.clone(), ">&2; exit 254"),
                other => (other.to_string(), ""),
            };
            std::fs::write(&file, text).unwrap();
            cases.push_str(&format!("*\"{key}\"*) cat {}{end} ;;\n", file.display()));
        }
        let script = format!(
            "#!/bin/bash\necho \"$0 $*\" >>{}/calls\ncase \"$*\" in\n{cases}*) echo unexpected >&2; exit 9 ;;\nesac\n",
            dir.path().display()
        );
        for name in ["kubectl", "aws", "curl"] {
            let path = dir.path().join(name);
            std::fs::write(&path, &script).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let words = "verify --region eu-west-1 --cluster c --fargate-profile p --delivery-stream logs --site eu";
        let done = run(support::command()
            .args(words.split(' '))
            .env("PATH", format!("{}:/usr/bin:/bin", dir.path().display()))
            .env("DD_API_KEY", "0123456789abcdef")
            .env("DD_APP_KEY", "fedcba9876543210"));
        let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap_or_default();
        for key in ["0123456789abcdef", "fedcba9876543210"] {
            assert!(!calls.contains(key) && !done.stdout.contains(key) && !done.stderr.contains(key), "a key is shown");
        }
        for changing in ["apply", "create", "delete", "put-", "attach", "label ", "edit"] {
            assert!(
                !calls.split_whitespace().any(|word| word.starts_with(changing)),
                "verify changes something: {calls}"
            );
        }
        done
    }
}

#[test]
fn a_good_setup_passes_every_check() {
    let done = World::good().verify();
    golden("verify-good.txt", &done.stdout);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!done.stdout.contains('✘') && !done.stdout.contains('?'), "{}", done.stdout);
}

#[test]
fn each_fault_is_found_with_its_cure() {
    let cases: Vec<(&str, World)> = vec![
        ("no label", World::good().but("get namespace aws-observability", |v| v["metadata"]["labels"] = json!({}))),
        (
            "no namespace",
            World::good().but("get namespace aws-observability", |v| *v = json!("Error from server (NotFound): namespaces \"aws-observability\" not found")),
        ),
        ("no ConfigMap", World::good().but("get configmap aws-logging", |v| *v = json!("Error from server (NotFound): x"))),
        ("wrong key", World::good().but("get configmap aws-logging", |v| v["data"]["outputs.conf"] = json!("x"))),
        (
            "another stream",
            World::good().but("get configmap aws-logging", |v| {
                v["data"]["output.conf"] = json!("[OUTPUT]\n    Name kinesis_firehose\n    Match kube.*\n    region eu-west-1\n    delivery_stream other\n");
            }),
        ),
        (
            "no profile",
            World::good().but("describe-fargate-profile", |v| *v = json!("An error occurred (ResourceNotFoundException) when calling")),
        ),
        ("profile selects another", World::good().but("describe-fargate-profile", |v| v["fargateProfile"]["selectors"] = json!([]))),
        (
            "denied",
            World::good().but("simulate-principal-policy", |v| v["EvaluationResults"][1]["EvalDecision"] = json!("implicitDeny")),
        ),
        (
            "logging disabled",
            World::good().but("get pods", |v| {
                v["items"][0]["metadata"]["annotations"]["Logging"] = json!("LoggingDisabled: LOGGING_CONFIGMAP_NOT_FOUND");
            }),
        ),
        ("no pods", World::good().but("get pods", |v| v["items"] = json!([]))),
        (
            "disabled by event",
            World::good()
                .but("get pods", |v| {
                    for pod in v["items"].as_array_mut().unwrap() {
                        pod["metadata"]["annotations"] = json!({});
                    }
                })
                .but("get events", |v| {
                    v["items"] = json!([{"reason": "LoggingDisabled", "message": "Disabled logging for pod due to invalid configmap."}]);
                }),
        ),
        (
            "stream creating",
            World::good().but("describe-delivery-stream", |v| v["DeliveryStreamDescription"]["DeliveryStreamStatus"] = json!("CREATING")),
        ),
        (
            "another site",
            World::good().but("describe-delivery-stream", |v| {
                v["DeliveryStreamDescription"]["Destinations"][0]["HttpEndpointDestinationDescription"]["EndpointConfiguration"]["Url"] =
                    json!("https://aws-kinesis-http-intake.logs.datadoghq.com/v1/input");
            }),
        ),
        ("nothing came in", World::good().but("IncomingRecords", |v| v["Datapoints"] = json!([]))),
        ("Datadog refuses", World::good().but("DeliveryToHttpEndpoint.Success", |v| v["Datapoints"][0]["Average"] = json!(0.2))),
        ("pipeline off", World::good().but("logs/config/pipelines", |v| v[0]["is_enabled"] = json!(false))),
        ("no logs", World::good().but("logs/events", |v| v["data"] = json!([]))),
    ];
    let mut text = String::new();
    for (name, world) in cases {
        let done = world.verify();
        assert_eq!(done.code, 1, "{name}: {done:?}");
        let bad: Vec<&str> =
            done.stdout.lines().filter(|line| line.starts_with('✘') || line.starts_with("  cure")).collect();
        assert_eq!(bad.len() % 2, 0, "{name}: a fault without a cure: {bad:?}");
        text.push_str(&format!("{name}\n{}\n", bad.join("\n")));
    }
    golden("verify-faults.txt", &text);
}

#[test]
fn what_cannot_be_asked_is_neither_good_nor_bad() {
    let mut world = World::good();
    for answer in world.0.values_mut() {
        *answer = json!("Unable to locate credentials");
    }
    let done = world.verify();
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        !done.stdout.contains('✘') && !done.stdout.contains('✔') && done.stdout.contains("Unable to locate"),
        "{}",
        done.stdout
    );

    let alone = run(support::command()
        .args("verify --region eu-west-1 --cluster c --fargate-profile p --delivery-stream logs".split(' '))
        .env("PATH", "/nowhere"));
    assert!(alone.stdout.contains("kubectl cannot be run") && alone.stdout.contains("aws cannot be run"), "{alone:?}");
}
