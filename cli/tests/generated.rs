//! Every generated file is what it was (golden), and what its readers' own checkers accept.

#![allow(clippy::unwrap_used)]

mod support;

use support::{check, golden, kubehose, scratch};

const STREAM: &str = "--region eu-west-1 --delivery-stream logs";
const WHERE: &str = "--region eu-west-1 --account 123456789012 --delivery-stream logs";
const SECRET: &str = "--secret-arn arn:aws:secretsmanager:eu-west-1:123456789012:secret:datadog-AbCdEf";
const ROLE: &str = "--role-arn arn:aws:iam::123456789012:role/logs";

/// Generates, compares with the golden file, and checks as `kind`.
#[track_caller]
fn generated(name: &str, kind: &str, line: &str) {
    let text = kubehose(line).fine();
    golden(name, &text);
    let (_dir, path) = scratch(name, &text);
    check(kind, &[&path]);
}

#[test]
fn fargate_manifests() {
    for (name, options) in [
        ("fargate", ""),
        ("fargate-none", "--remap none --no-cri --flb-log-cw=false"),
        ("fargate-preserve", "--preserve-source --role-arn arn:aws:iam::123456789012:role/logs"),
        ("fargate-override", "--override --time-key date"),
        (
            "fargate-small",
            "--exclude-namespace kube-system,dev --keep-labels app,app.kubernetes.io/name --drop annotations,log,host,pod-id,\
             pod-ip,container-hash,container-image",
        ),
        ("fargate-guide", "--guide"),
    ] {
        generated(&format!("{name}.yaml"), "kubernetes", &format!("manifest {STREAM} {options}"));
    }
}

#[test]
fn manifests_of_the_plugin() {
    let image = "--image registry.example/kubehose:0.1";
    generated("daemonset.yaml", "kubernetes", &format!("manifest --target daemonset {STREAM} {image} {ROLE}"));
    generated(
        "daemonset-small.yaml",
        "kubernetes",
        &format!("manifest --target daemonset {STREAM} {image} --exclude-namespace dev --drop host,labels --override"),
    );
    generated("sidecar.yaml", "kubernetes", &format!("manifest --target sidecar {STREAM} {image} {ROLE}"));
    generated("firelens.json", "task-definition", &format!("manifest --target firelens {STREAM} {image} {ROLE}"));
}

#[test]
fn policies() {
    generated("router-policy.json", "policy", &format!("iam-policy {WHERE}"));
    generated("router-policy-guide.json", "policy", &format!("iam-policy {WHERE} --flb-log-cw=false"));
    generated("delivery-policy.json", "policy", &format!("iam-policy --of delivery {WHERE} --bucket spare {SECRET}"));
    generated("router-trust.json", "trust", &format!("iam-policy --of router-trust {WHERE}"));
    generated("delivery-trust.json", "trust", &format!("iam-policy --of delivery-trust {WHERE}"));
}

#[test]
fn delivery_streams_of_every_site() {
    for site in ["us1", "us3", "us5", "eu", "ap1", "ap2", "uk1", "us1-fed"] {
        generated(
            &format!("stream-{site}.json"),
            "create-stream",
            &format!("delivery-stream --site {site} {WHERE} --bucket spare {ROLE} {SECRET}"),
        );
    }
    generated(
        "stream-tuned.json",
        "create-stream",
        &format!(
            "delivery-stream --site eu {WHERE} --bucket spare {ROLE} {SECRET} --attribute env=prod --attribute team=a=b \
             --buffer-seconds 0 --buffer-mib 4 --retry-seconds 0"
        ),
    );
}

#[test]
fn templates_of_the_delivery_stream() {
    for (name, options) in [
        ("own", String::new()),
        ("existing", format!("--bucket spare {SECRET} --pod-execution-role pods --attribute env=prod")),
        ("alone", "--no-pod-execution-role --flb-log-cw=false".to_owned()),
    ] {
        for (format, extension) in [("cloudformation", "json"), ("terraform", "tf")] {
            generated(
                &format!("{format}-{name}.{extension}"),
                format,
                &format!("delivery-stream --site eu {WHERE} --format {format} {options}"),
            );
        }
    }
}

#[test]
fn pipelines() {
    generated("pipeline.json", "pipeline", "pipeline");
    let arn = "--stream-arn arn:aws:firehose:eu-west-1:123456789012:deliverystream/logs";
    generated("pipeline-arn.json", "pipeline", &format!("pipeline {arn}"));
    generated("pipeline.tf", "terraform", &format!("pipeline --format terraform {arn}"));
}

#[test]
fn the_sample() {
    generated("sample-app.yaml", "kubernetes", "sample-app");
}

#[test]
fn a_config_map_over_the_limit_is_refused_with_both_sizes() {
    let labels: Vec<String> = (0..60).map(|n| format!("a-label-with-a-long-name-number-{n}")).collect();
    let run = kubehose(&format!("manifest {STREAM} --keep-labels {}", labels.join(",")));
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("5300") && run.stdout.is_empty(), "{run:?}");
}

#[test]
fn what_cannot_be_known_is_asked_for() {
    for (line, named) in [
        ("manifest --delivery-stream logs", "--region"),
        ("manifest --region eu-west-1", "--delivery-stream"),
        ("manifest --region <REGION> --delivery-stream logs", "placeholder"),
        ("manifest --target daemonset --region eu-west-1 --delivery-stream logs", "--image"),
        ("manifest --target sidecar --image a --region eu-west-1 --delivery-stream logs --drop host", "--drop"),
        ("manifest --guide --override --region eu-west-1 --delivery-stream logs", "--override"),
        ("delivery-stream --site eu --region eu-west-1 --account 123456789012 --delivery-stream logs", "--role-arn"),
        ("iam-policy --of delivery --region eu-west-1 --account 123456789012 --delivery-stream logs", "--bucket"),
    ] {
        let run = kubehose(line);
        assert_eq!(run.code, 2, "{line}: {run:?}");
        assert!(run.stderr.contains(named) && run.stdout.is_empty(), "{line}: {run:?}");
    }
}
