//! verify against stand-ins for kubectl, aws and curl that record their calls: correct setups, each fault, and checks
//! that are not possible; and stand-ins that stall, are throttled, have expired credentials or another account's, or
//! answer with 10 MB.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Run, file_of, golden, kubehose, run};

/// The stand-ins' answers, by a part of the command line.
struct World(BTreeMap<&'static str, Value>);

impl World {
    /// A setup without faults.
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
            (
                "get-caller-identity",
                json!({"Account": "123456789012", "Arn": "arn:aws:sts::123456789012:assumed-role/me/x", "UserId": "A"}),
            ),
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

    /// The same setup with one answer changed.
    fn but(mut self, key: &'static str, change: impl FnOnce(&mut Value)) -> Self {
        change(self.0.get_mut(key).unwrap());
        self
    }

    /// A router on nodes, without faults.
    fn nodes() -> Self {
        let mut world = Self::good();
        let manifest =
            kubehose("manifest --target daemonset --image a/b:1 --region eu-west-1 --delivery-stream logs").fine();
        let pod = |name: &str| json!({"metadata": {"name": name}, "status": {"containerStatuses": [{"state": {"running": {}}, "lastState": {}}]}});
        for key in
            ["get namespace aws-observability", "get configmap aws-logging", "describe-fargate-profile", "get events"]
        {
            world.0.remove(key);
        }
        world.0.extend([
            (
                "get daemonset kubehose",
                json!({
                    "status": {"desiredNumberScheduled": 2, "numberReady": 2},
                    "spec": {
                        "selector": {"matchLabels": {"app": "kubehose"}},
                        "template": {"spec": {
                            "serviceAccountName": "router",
                            "volumes": [{"configMap": {"name": "kubehose"}}, {"hostPath": {"path": "/var/log"}}]
                        }}
                    }
                }),
            ),
            ("get pods", json!({"items": [pod("a"), pod("b")]})),
            (
                "get configmap kubehose",
                json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kubehose", "namespace": "kubehose"},
                    "data": {"fluent-bit.conf": file_of(&manifest, "fluent-bit.conf"), "plugins.conf": file_of(&manifest, "plugins.conf")}
                }),
            ),
            (
                "get serviceaccount router",
                json!({"metadata": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/router"}}}),
            ),
            ("list-pod-identity-associations", json!({"associations": [{"associationId": "a-1"}]})),
            (
                "describe-pod-identity-association",
                json!({"association": {"roleArn": "arn:aws:iam::123456789012:role/router"}}),
            ),
        ]);
        world
    }

    /// An ECS service without faults.
    fn ecs() -> Self {
        let mut world = Self::good();
        let mut task: Value = serde_json::from_str(
            &kubehose(
                "manifest --target firelens --image a/b:1 --region eu-west-1 --delivery-stream logs \
                 --role-arn arn:aws:iam::123456789012:role/router",
            )
            .fine(),
        )
        .unwrap();
        task["taskDefinitionArn"] = json!("arn:aws:ecs:eu-west-1:123456789012:task-definition/web:7");
        world
            .0
            .retain(|key, _| !key.starts_with("get ") && *key != "config view" && *key != "describe-fargate-profile");
        world.0.extend([
            (
                "describe-services",
                json!({"services": [{
                    "status": "ACTIVE", "runningCount": 2, "desiredCount": 2,
                    "taskDefinition": "arn:aws:ecs:eu-west-1:123456789012:task-definition/web:7"
                }], "failures": []}),
            ),
            ("describe-task-definition", json!({"taskDefinition": task})),
        ]);
        world
    }

    /// Writes the stand-ins. A string as an answer is the error that the program prints when it fails; `sleep N`
    /// makes it stall.
    fn stand_ins(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut cases = String::new();
        for (index, (key, answer)) in self.0.iter().enumerate() {
            let file = dir.path().join(index.to_string());
            let (text, end) = match answer {
                Value::String(sleep) if sleep.starts_with("sleep ") => {
                    cases.push_str(&format!("*\"{key}\"*) exec {sleep} ;;\n"));
                    continue;
                }
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
        dir
    }

    /// Runs verify in this setup.
    fn verify(&self) -> Run {
        self.verify_with(FARGATE).0
    }

    /// Runs verify with these arguments; also returns the calls that it made.
    fn verify_with(&self, words: &str) -> (Run, Vec<String>) {
        let dir = self.stand_ins();
        let done = run(&mut with_stand_ins(&dir, words));
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
        let folder = format!("{}/", dir.path().display());
        (done, calls.lines().map(|call| call.replacen(&folder, "", 1)).collect())
    }
}

const FARGATE: &str = "verify --region eu-west-1 --cluster c --fargate-profile p --delivery-stream logs --site eu";
const NODES: &str = "verify --target nodes --region eu-west-1 --cluster c --delivery-stream logs --site eu";
const ECS: &str = "verify --target ecs --region eu-west-1 --cluster c --service web --delivery-stream logs --site eu";

fn with_stand_ins(dir: &tempfile::TempDir, words: &str) -> Command {
    let mut command = support::command();
    command
        .args(words.split(' '))
        .env("PATH", format!("{}:/usr/bin:/bin", dir.path().display()))
        .env("DD_API_KEY", "0123456789abcdef")
        .env("DD_APP_KEY", "fedcba9876543210");
    command
}

#[test]
fn a_good_setup_passes_every_check() {
    let done = World::good().verify();
    golden("verify-good.txt", &done.stdout);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!done.stdout.contains('✘') && !done.stdout.contains('?'), "{}", done.stdout);
}

#[test]
fn each_fault_is_found_with_its_fix() {
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
            done.stdout.lines().filter(|line| line.starts_with('✘') || line.starts_with("  fix")).collect();
        assert_eq!(bad.len() % 2, 0, "{name}: a fault without a fix: {bad:?}");
        text.push_str(&format!("{name}\n{}\n", bad.join("\n")));
    }
    golden("verify-faults.txt", &text);
}

#[test]
fn each_fault_on_nodes_and_on_ecs_is_found_with_its_fix() {
    for (world, words) in [(World::nodes(), NODES), (World::ecs(), ECS)] {
        let (done, _) = world.verify_with(words);
        assert_eq!(done.code, 0, "{done:?}");
        assert!(!done.stdout.contains('✘') && !done.stdout.contains('?'), "{}", done.stdout);
    }
    let waiting = json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"reason": "OOMKilled"}}});
    let cases: Vec<(&str, World, &str)> = vec![
        (
            "no DaemonSet",
            World::nodes().but("get daemonset kubehose", |v| *v = json!("Error from server (NotFound): x")),
            NODES,
        ),
        ("not ready", World::nodes().but("get daemonset kubehose", |v| v["status"]["numberReady"] = json!(1)), NODES),
        ("no node", World::nodes().but("get daemonset kubehose", |v| v["status"] = json!({})), NODES),
        (
            "crashing",
            World::nodes().but("get pods", |v| v["items"][0]["status"]["containerStatuses"][0] = waiting),
            NODES,
        ),
        (
            "wrong option",
            World::nodes().but("get configmap kubehose", |v| {
                let text = v["data"]["fluent-bit.conf"]
                    .as_str()
                    .unwrap()
                    .replace("delivery_stream", "oversize explode\n    delivery_stream");
                v["data"]["fluent-bit.conf"] = json!(text);
            }),
            NODES,
        ),
        (
            "another stream",
            World::nodes().but("get configmap kubehose", |v| {
                v["data"]["fluent-bit.conf"] =
                    json!(v["data"]["fluent-bit.conf"].as_str().unwrap().replace(" logs", " other"));
            }),
            NODES,
        ),
        (
            "no role",
            World::nodes()
                .but("get serviceaccount router", |v| v["metadata"] = json!({}))
                .but("list-pod-identity-associations", |v| v["associations"] = json!([])),
            NODES,
        ),
        (
            "denied by Pod Identity",
            World::nodes()
                .but("get serviceaccount router", |v| v["metadata"] = json!({}))
                .but("simulate-principal-policy", |v| {
                    v["EvaluationResults"][0]["EvalDecision"] = json!("explicitDeny")
                }),
            NODES,
        ),
        ("no service", World::ecs().but("describe-services", |v| v["services"] = json!([])), ECS),
        ("tasks missing", World::ecs().but("describe-services", |v| v["services"][0]["runningCount"] = json!(0)), ECS),
        (
            "no router",
            World::ecs().but("describe-task-definition", |v| {
                v["taskDefinition"]["containerDefinitions"][0]["firelensConfiguration"] = json!(null);
            }),
            ECS,
        ),
        (
            "wrong option of the task",
            World::ecs().but("describe-task-definition", |v| {
                v["taskDefinition"]["containerDefinitions"][1]["logConfiguration"]["options"]["oversize"] =
                    json!("explode");
            }),
            ECS,
        ),
        (
            "ECR without execution role",
            World::ecs().but("describe-task-definition", |v| {
                v["taskDefinition"]["containerDefinitions"][0]["image"] =
                    json!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/k:1");
                v["taskDefinition"].as_object_mut().unwrap().remove("executionRoleArn");
            }),
            ECS,
        ),
        (
            "no task role",
            World::ecs().but("describe-task-definition", |v| v["taskDefinition"]["taskRoleArn"] = json!(null)),
            ECS,
        ),
    ];
    let mut text = String::new();
    for (name, world, words) in cases {
        let (done, _) = world.verify_with(words);
        assert_eq!(done.code, 1, "{name}: {done:?}");
        let bad: Vec<&str> =
            done.stdout.lines().filter(|line| line.starts_with('✘') || line.starts_with("  fix")).collect();
        assert_eq!(bad.len() % 2, 0, "{name}: a fault without a fix: {bad:?}");
        text.push_str(&format!("{name}\n{}\n", bad.join("\n")));
    }
    golden("verify-faults-elsewhere.txt", &text);
}

#[test]
fn checks_that_are_not_possible_are_neither_good_nor_bad() {
    let mut world = World::good();
    for answer in world.0.values_mut() {
        *answer = json!("Unable to locate credentials");
    }
    let (done, calls) = world.verify_with(FARGATE);
    assert_eq!(done.code, 3, "{done:?}");
    assert!(
        !done.stdout.contains('✘') && !done.stdout.contains('✔') && done.stdout.contains("Unable to locate"),
        "{}",
        done.stdout
    );
    // Without credentials it makes no further AWS calls, and reports that once.
    assert_eq!(calls.iter().filter(|call| call.starts_with("aws")).count(), 1, "{calls:?}");
    assert!(done.stdout.contains("not checked, for a reason above: Fargate profile, delivery stream"), "{done:?}");

    let alone = run(support::command()
        .args("verify --region eu-west-1 --cluster c --fargate-profile p --delivery-stream logs".split(' '))
        .env("PATH", "/nowhere"));
    assert_eq!(alone.code, 3, "{alone:?}");
    assert!(alone.stdout.contains("kubectl cannot be run") && alone.stdout.contains("aws cannot be run"), "{alone:?}");
    assert_eq!(alone.stdout.matches("cannot be run").count(), 2, "{alone:?}");
}

#[test]
fn account_and_region_come_first() {
    let (done, _) = World::good().verify_with(FARGATE);
    let first: Vec<&str> = done.stdout.lines().take(4).collect();
    assert_eq!(
        first,
        [
            "account: 123456789012",
            "region: eu-west-1",
            "identity: arn:aws:sts::123456789012:assumed-role/me/x",
            "cluster: arn:aws:eks:eu-west-1:123456789012:cluster/c"
        ]
    );
}

#[test]
fn credentials_of_another_account_are_a_fault() {
    let other = World::good().but("get-caller-identity", |v| v["Account"] = json!("999999999999"));
    let (done, _) = other.verify_with(FARGATE);
    assert_eq!(done.code, 1);
    let fault = "✘ the account: the credentials are for 999999999999, kubectl's cluster is in 123456789012";
    assert!(done.stdout.contains(fault), "{}", done.stdout);
    assert_eq!(done.stdout.matches("✘ the account").count(), 1, "{}", done.stdout);
    // If kubectl's cluster does not name its account, the role of the Fargate profile does.
    let other = other.but("config view", |v| v["clusters"][0]["name"] = json!("c"));
    let (done, _) = other.verify_with(FARGATE);
    let fault = "✘ the account: the credentials are for 999999999999, the profile's role is of 123456789012";
    assert!(done.code == 1 && done.stdout.contains(fault), "{}", done.stdout);
    let (done, _) = World::ecs().verify_with(&format!("{ECS} --account 111111111111"));
    assert!(done.code == 1 && done.stdout.contains("--account names 111111111111"), "{}", done.stdout);
}

#[test]
fn many_pods_with_one_fault_are_one_line() {
    let pods: Vec<Value> = (0..500)
        .map(|number| {
            json!({
                "metadata": {"name": format!("web-{number:03}"), "annotations": {"Logging": format!("LoggingDisabled: REASON_{}", number % 2)}},
                "spec": {"schedulerName": "fargate-scheduler"}, "status": {"phase": "Running"}
            })
        })
        .collect();
    let done = World::good().but("get pods", |v| v["items"] = json!(pods)).verify();
    let lines: Vec<&str> = done.stdout.lines().filter(|line| line.contains("REASON_")).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].ends_with("(250 of 500: web-000, web-002, web-004, …)"), "{lines:?}");
}

#[test]
fn lines_are_printed_as_results_arrive_and_a_stalled_call_times_out() {
    let world = World::good().but("IncomingRecords", |v| *v = json!("sleep 300"));
    let dir = world.stand_ins();
    let begun = Instant::now();
    let mut child = with_stand_ins(&dir, &format!("{FARGATE} --timeout 3")).stdout(Stdio::piped()).spawn().unwrap();
    let mut early = 0;
    let mut text = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        early += usize::from(begun.elapsed() < Duration::from_secs(2));
        text.push_str(&line.unwrap());
        text.push('\n');
    }
    let took = begun.elapsed();
    assert!(early >= 10, "{early} lines in time\n{text}");
    assert!(text.contains("? records of the last hour: aws gave no answer within 3 s"), "{text}");
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(10), "{took:?}");
    // The remaining checks still run.
    assert!(text.contains("✔ Datadog's pipeline"), "{text}");
    assert_eq!(child.wait().unwrap().code(), Some(0));

    // A program that stalls twice is not called again.
    let mut world = World::good();
    for (key, answer) in &mut world.0 {
        if key.contains('-') || key.contains("Records") || key.contains("Success") {
            *answer = json!("sleep 300");
        }
    }
    let begun = Instant::now();
    let (done, calls) = world.verify_with(&format!("{FARGATE} --timeout 1"));
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    assert_eq!(calls.iter().filter(|call| call.starts_with("aws")).count(), 2, "{calls:?}");
    assert!(done.stdout.contains("within 1 s, twice"), "{}", done.stdout);
}

#[test]
fn throttled_expired_denied_or_invalid_answers_are_reported_in_one_line() {
    let cases = [
        (
            "describe-delivery-stream",
            json!(
                "\nAn error occurred (ThrottlingException) when calling the DescribeDeliveryStream operation: Rate exceeded"
            ),
            "it is throttled",
        ),
        (
            "get-caller-identity",
            json!(
                "An error occurred (ExpiredToken) when calling the GetCallerIdentity operation: The security token included in the request is expired"
            ),
            "the credentials are expired: renew them",
        ),
        (
            "describe-delivery-stream",
            json!("An error occurred (AccessDeniedException) when calling: not authorized"),
            "it needs firehose:DescribeDeliveryStream in IAM",
        ),
        (
            "simulate-principal-policy",
            json!("An error occurred (AccessDenied) when calling: not authorized"),
            "it needs iam:SimulatePrincipalPolicy in IAM",
        ),
        (
            "get configmap aws-logging",
            json!("Error from server (Forbidden): configmaps is forbidden"),
            "it needs get configmaps in namespace aws-observability (RBAC)",
        ),
        (
            "get pods",
            json!("Error from server (Forbidden): pods is forbidden"),
            "it needs list pods in namespace fargate-namespace (RBAC)",
        ),
        (
            "get namespace aws-observability",
            json!("Error from server (Forbidden): namespaces is forbidden"),
            "it needs get namespaces in the cluster (RBAC)",
        ),
        (
            "logs/events",
            json!("curl: (22) The requested URL returned error: 403"),
            "it needs the scope logs_read_data of the application key",
        ),
        ("get pods", json!("x".repeat(10 << 20)), "xxx…"),
        ("get pods", json!("\u{1b}[31mred\u{1b}[0m"), "[31mred[0m"),
        ("get pods", json!([1, 2]), "none in fargate-namespace"),
        ("describe-delivery-stream", json!(null), "its status is unknown"),
    ];
    for (key, answer, said) in cases {
        let (done, _) = World::good().but(key, |v| *v = answer).verify_with(FARGATE);
        assert!(done.code <= 1, "{key}: {done:?}");
        let lines: Vec<&str> = done.stdout.lines().filter(|line| line.contains(said)).collect();
        assert_eq!(lines.len(), 1, "{key}, {said}: {}", done.stdout);
        assert!(lines[0].chars().count() < 600 && !lines[0].contains('\u{1b}'), "{}", lines[0]);
        assert!(lines[0].starts_with('?') || said.starts_with("none") || said.starts_with("its"), "{}", lines[0]);
    }
}

#[test]
fn an_answer_of_ten_megabytes_is_read_and_an_endless_one_is_not() {
    let pod = json!({
        "metadata": {"name": "web", "annotations": {"Logging": "LoggingEnabled", "padding": "x".repeat(1000)}},
        "spec": {"schedulerName": "fargate-scheduler"}, "status": {"phase": "Running"}
    });
    let world = World::good().but("get pods", |v| v["items"] = json!(vec![pod; 10_000]));
    let done = world.verify();
    assert!(done.stdout.contains("✔ the router of the pods: LoggingEnabled on 10000 of 10000"), "{}", done.stdout);

    let dir = World::good().stand_ins();
    std::fs::write(dir.path().join("kubectl"), "#!/bin/sh\nexec cat /dev/zero\n").unwrap();
    let done = run(&mut with_stand_ins(&dir, FARGATE));
    assert!(done.stdout.contains("kubectl answered more than 64 MiB"), "{}", done.stdout);
}

#[test]
fn the_json_has_the_results_of_the_lines() {
    let world = World::good().but("get pods", |v| v["items"] = json!([])).but("describe-delivery-stream", |v| {
        *v = json!("An error occurred (AccessDenied) when calling");
    });
    let (done, _) = world.verify_with(&format!("{FARGATE} --output json"));
    assert_eq!(done.code, 1);
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(report["account"], "123456789012");
    assert_eq!(report["region"], "eu-west-1");
    let checks = report["checks"].as_array().unwrap();
    let of = |result: &str| checks.iter().filter(|check| check["result"] == result).collect::<Vec<_>>();
    assert_eq!(of("bad").len() as u64, report["failed"].as_u64().unwrap());
    assert_eq!(of("good").len() as u64, report["good"].as_u64().unwrap());
    assert_eq!(of("unknown").len() as u64, report["not_checked"].as_u64().unwrap());
    assert!(of("bad").iter().all(|check| check["fix"].is_string()), "{report}");
    assert!(of("unknown").iter().any(|check| check["needs"] == "firehose:DescribeDeliveryStream in IAM"), "{report}");
    let text = world.verify_with(FARGATE).0.stdout;
    for check in checks {
        assert!(text.contains(check["check"].as_str().unwrap()), "{check}");
    }
    // The report is JSON even without a single check.
    let alone = run(support::command().args(format!("{FARGATE} --output json").split(' ')).env("PATH", "/nowhere"));
    let report: Value = serde_json::from_str(&alone.stdout).unwrap();
    assert!(alone.code == 3 && report["account"].is_null(), "{alone:?}");
}

/// The IAM action of a call: `describe-fargate-profile` is eks:DescribeFargateProfile.
fn action(call: &str) -> String {
    let words: Vec<&str> = call.split(' ').collect();
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    format!("{}:{}", words[1], words[2].split('-').map(capital).collect::<String>())
}

#[test]
fn the_permissions_match_the_calls_that_are_made() {
    let mut all_of_aws = String::new();
    let mut without_irsa = World::nodes();
    without_irsa.0.insert("get serviceaccount router", json!({"metadata": {}}));
    let without_annotations = World::good().but("get pods", |v| {
        for pod in v["items"].as_array_mut().unwrap() {
            pod["metadata"]["annotations"] = json!({});
        }
    });
    for (target, world, words) in
        [("fargate", without_annotations, FARGATE), ("nodes", without_irsa, NODES), ("ecs", World::ecs(), ECS)]
    {
        let (_, calls) = world.verify_with(words);
        all_of_aws.extend(calls.iter().filter(|call| call.starts_with("aws ")).map(|call| format!("{call}\n")));
        let both: Value =
            serde_json::from_str(&kubehose(&format!("verify --permissions --target {target}")).fine()).unwrap();
        let statements = both["iam"]["Statement"].as_array().unwrap();
        let written: BTreeSet<&str> = statements
            .iter()
            .flat_map(|statement| statement["Action"].as_array().unwrap())
            .map(|action| action.as_str().unwrap())
            .collect();
        let made: BTreeSet<String> = calls
            .iter()
            .filter(|call| call.starts_with("aws "))
            .map(|call| action(call))
            // This action needs no permission.
            .filter(|action| action != "sts:GetCallerIdentity")
            .collect();
        assert_eq!(written, made.iter().map(String::as_str).collect(), "{target}");

        let mut written = BTreeSet::new();
        for role in both["rbac"]["items"].as_array().unwrap().iter().filter(|item| item["rules"].is_array()) {
            let namespace = role["metadata"]["namespace"].as_str().unwrap_or("");
            for rule in role["rules"].as_array().unwrap() {
                let resource = rule["resources"][0].as_str().unwrap();
                written.insert(format!("{} {resource} {namespace}", rule["verbs"][0].as_str().unwrap()));
            }
        }
        let made: BTreeSet<String> = calls
            .iter()
            .filter(|call| call.starts_with("kubectl ") && !call.contains("config view"))
            .map(|call| {
                let words: Vec<&str> = call.split(' ').skip_while(|word| *word != "get").collect();
                let namespace = words.iter().position(|word| *word == "-n").map_or("", |at| words[at + 1]);
                let verb = if words[2] == "-n" { "list" } else { "get" };
                format!("{verb} {}s {namespace}", words[1].trim_end_matches('s'))
            })
            .collect();
        assert_eq!(written, made, "{target}");
        for part in ["iam", "rbac"] {
            let alone = kubehose(&format!("verify --permissions={part} --target {target}")).fine();
            assert_eq!(serde_json::from_str::<Value>(&alone).unwrap(), both[part]);
        }
    }
    // Each call is one that aws accepts, with valid options.
    let (_dir, path) = support::scratch("calls", &all_of_aws);
    support::check("aws-commands", &[Path::new(&path)]);
    let names = "--region eu-west-1 --account 123456789012 --cluster c --delivery-stream logs --service web";
    for target in ["fargate", "nodes", "ecs"] {
        for names in [names, ""] {
            let policy = kubehose(&format!("verify --permissions=iam --target {target} {names}")).fine();
            let stream =
                if names.is_empty() { "*:*:deliverystream/*" } else { "eu-west-1:123456789012:deliverystream/logs" };
            assert!(policy.contains(stream), "{policy}");
            // Without names the policy allows the actions on all resources, which the checker rejects.
            if !names.is_empty() {
                let (_dir, path) = support::scratch("policy.json", &policy);
                support::check("policy", &[Path::new(&path)]);
            }
        }
    }
    let roles = kubehose("verify --permissions=rbac --target nodes").fine();
    let (_dir, path) = support::scratch("roles.json", &roles);
    support::check("kubernetes", &[Path::new(&path)]);
}

#[test]
fn missing_options_of_a_target_are_named() {
    for (line, named) in [
        ("verify --region eu-west-1 --delivery-stream logs", "--cluster and --fargate-profile"),
        ("verify --target ecs --region eu-west-1 --delivery-stream logs", "--service or --task-definition"),
        ("verify --target nodes --delivery-stream logs", "--region"),
        ("verify --target nodes --region eu-west-1 --delivery-stream logs --timeout 0", "--timeout"),
    ] {
        let run = kubehose(line);
        assert!(run.code == 2 && run.stderr.contains(named) && run.stdout.is_empty(), "{line}: {run:?}");
    }
}
