//! Every generated file equals its golden file, and passes the checkers of its format.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::process::Command;

use support::{check, golden, kubehose, not_run, scratch};

const STREAM: &str = "--region eu-west-1 --delivery-stream logs";
const WHERE: &str = "--region eu-west-1 --account 123456789012 --delivery-stream logs";
const SECRET: &str = "--secret-arn arn:aws:secretsmanager:eu-west-1:123456789012:secret:datadog-AbCdEf";
const ROLE: &str = "--role-arn arn:aws:iam::123456789012:role/logs";

/// Generates a file, compares it with the golden file, and checks it as `kind`.
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
        ("fargate-routes", "--route shop=logs-shop,cart=logs-shop --route label:team=payments=logs-pay"),
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
    let ecr = "--image 123456789012.dkr.ecr.eu-west-1.amazonaws.com/kubehose:0.1.0";
    let line = format!("manifest --target firelens {STREAM} {ecr} {ROLE}");
    let refused = kubehose(&line);
    assert_eq!(refused.code, 2, "Fargate pulls nothing from ECR without an execution role: {refused:?}");
    assert!(refused.stderr.contains("--execution-role-arn"), "{refused:?}");
    let execution = "--execution-role-arn arn:aws:iam::123456789012:role/ecsTaskExecutionRole";
    generated("firelens-ecr.json", "task-definition", &format!("{line} {execution}"));
}

/// The formats of Helm charts, the operator and kustomize. KUBEHOSE_CHARTS names a folder with the charts
/// `fluent-bit` and `aws-for-fluent-bit` and the operator's definitions `fluent-operator-fluent-bit-crds`: the
/// generated files are checked against them.
#[test]
fn values_resources_and_kustomizations() {
    let line =
        |target: &str| format!("manifest --target {target} {STREAM} --image registry.example/kubehose:0.1 {ROLE}");
    generated("helm-fluent-bit.yaml", "helm-fluent-bit", &line("helm-values"));
    generated(
        "helm-aws-for-fluent-bit.yaml",
        "helm-aws-for-fluent-bit",
        &line("helm-values --chart aws-for-fluent-bit"),
    );
    generated("fluent-operator.yaml", "fluent-operator", &line("fluent-operator"));
    let kustomization = kubehose(&line("kustomize")).fine();
    golden("kustomization.yaml", &kustomization);
    for target in ["kustomize", "helm-values --chart aws-for-fluent-bit"] {
        let refused = kubehose(&format!("manifest --target {target} {STREAM} --image registry.example:5000/kubehose"));
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains("tag"), "{refused:?}");
        let digest = format!("registry.example:5000/kubehose:0.1@sha256:{}", "ab".repeat(32));
        let pinned = kubehose(&format!("manifest --target {target} {STREAM} --image {digest}")).fine();
        assert!(pinned.contains(&"ab".repeat(32)), "{pinned}");
    }
    // kubectl builds the DaemonSet's manifest from it, apart from the configuration's name.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("kustomization.yaml"), &kustomization).unwrap();
    let manifest = kubehose(&line("daemonset")).fine();
    std::fs::write(dir.path().join("kubehose.yaml"), &manifest).unwrap();
    let built = Command::new("kubectl").arg("kustomize").arg(dir.path()).output();
    let Ok(built) = built else {
        not_run("kubectl kustomize: no kubectl on the PATH");
        return;
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let text = String::from_utf8_lossy(&built.stdout);
    // The generated ConfigMap, under its name with the hash, replaces the other one and is mounted.
    assert_eq!(text.matches("name: kubehose-config-").count(), 2, "{text}");
    assert_eq!(text.matches("kind: ConfigMap").count(), 1, "{text}");
    assert!(text.contains("image: registry.example/kubehose:0.1"), "{text}");
    for line in support::file_of(&manifest, "fluent-bit.conf").lines() {
        assert!(text.contains(line), "{line}: {text}");
    }
    let (_dir, path) = scratch("built.yaml", &text);
    check("kubernetes", &[&path]);
}

/// Names that YAML could take for another type, in every file that has them.
#[test]
fn names_that_look_like_numbers_or_booleans_stay_texts() {
    for (name, image) in [("123", "1e3"), ("null", "true"), ("no", "0x10")] {
        for target in ["daemonset", "sidecar", "fluent-operator", "helm-values"] {
            let options = format!("{STREAM} --namespace {name} --image {image} --app-image {image}");
            let text = kubehose(&format!("manifest --target {target} {options}")).fine();
            for line in text.lines().map(str::trim_start).filter(|line| !line.starts_with('#')) {
                let value = ["image: ", "namespace: ", "name: "].iter().find_map(|key| line.strip_prefix(key));
                let Some(value) = value else { continue };
                assert!(value != name && value != image, "{target}: {line}");
            }
            assert!(text.contains(&format!("'{image}'")), "{target}: {text}");
        }
    }
}

/// Helm runs the values of the chart fluent/fluent-bit through its templates: braces of an option must not be one.
#[test]
fn braces_in_options_are_no_template_of_helm() {
    let run = |options: &str| {
        kubehose(&format!("manifest --target helm-values {STREAM} --image registry.example/kubehose:0.1 {options}"))
            .fine()
    };
    let plain = run("--time-key time");
    for key in ["{{.Values.nope}}", "{{", "a{{{b", "{{/*", "}}"] {
        let values = run(&format!("--time-key {key}"));
        // As Helm prints it: a template is a text in quotes, and nothing else.
        let printed = values.replace("{{ \"{{\" }}", "\u{1}");
        assert!(!printed.contains("{{"), "{key}: {values}");
        assert_eq!(printed.replace('\u{1}', "{{"), plain.replace(" time\n", &format!(" {key}\n")), "{key}");
    }
}

#[test]
fn policies() {
    generated("router-policy.json", "policy", &format!("iam-policy {WHERE}"));
    generated("router-policy-guide.json", "policy", &format!("iam-policy {WHERE} --flb-log-cw=false"));
    generated("delivery-policy.json", "policy", &format!("iam-policy --of delivery {WHERE} --bucket spare {SECRET}"));
}

#[test]
fn every_trust_policy_comes_with_the_commands_that_create_and_attach_the_role() {
    let issuer = "--oidc-issuer https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF";
    for (who, options, attached) in [
        ("irsa", issuer, "kubectl -n kubehose annotate serviceaccount kubehose"),
        ("pod-identity", "--cluster shop", "aws eks create-pod-identity-association --cluster-name shop"),
        ("ecs-task", "", "--role-arn arn:aws:iam::123456789012:role/kubehose"),
        ("fargate", "", "AmazonEKSFargatePodExecutionRolePolicy"),
        ("firehose", "", "kubehose iam-policy --of delivery"),
    ] {
        let run = kubehose(&format!("iam-policy --trust {who} {WHERE} {options}"));
        let name = format!("trust-{who}.json");
        golden(&name, &run.stdout);
        golden(&format!("trust-{who}.txt"), &run.stderr);
        assert!(run.stderr.contains(attached), "{who}: {run:?}");
        let commands: String = run
            .stderr
            .lines()
            .filter_map(|line| line.strip_prefix("  aws "))
            .map(|line| format!("aws {line}\n"))
            .collect();
        let (_dir, file) = scratch("aws", &commands);
        check("aws-commands", &[&file]);
        let (_dir, path) = scratch(&name, &run.fine());
        check("trust", &[&path]);
    }
    for (line, named) in [
        ("--trust irsa", "--oidc-issuer"),
        ("--trust pod-identity", "--cluster"),
        ("--trust irsa --oidc-issuer a", "--oidc-issuer"),
        ("--trust firehose --of delivery", "--of"),
        ("--role-name a", "--trust"),
    ] {
        let refused = kubehose(&format!("iam-policy {WHERE} {line}"));
        assert_eq!(refused.code, 2, "{line}: {refused:?}");
        assert!(refused.stderr.contains(named) && refused.stdout.is_empty(), "{line}: {refused:?}");
    }
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

const THREE: &str =
    "--region eu-west-1 --account 123456789012 --delivery-stream logs,logs.shop --delivery-stream logs-shop,logs";

#[test]
fn several_streams_share_roles_and_other_resources() {
    for (format, extension) in [("cloudformation", "json"), ("terraform", "tf")] {
        let line = format!("delivery-stream --site eu --format {format}");
        generated(&format!("{format}-several.{extension}"), format, &format!("{line} {THREE}"));
        let text = kubehose(&format!("{line} {THREE}")).fine();
        let blocks: Vec<&str> = text.lines().filter(|line| line.starts_with("resource ")).collect();
        let once: std::collections::HashSet<&str> = blocks.iter().copied().collect();
        assert_eq!(blocks.len(), once.len(), "{blocks:#?}");
        // The role of Firehose and the role of the pods.
        assert_eq!(
            text.matches("\"AWS::IAM::Role\"").count() + text.matches("resource \"aws_iam_role\"").count(),
            2,
            "{text}"
        );
    }
    // Each line is the input of one call.
    let run = kubehose(&format!("delivery-stream --site eu {THREE} --bucket spare {ROLE} {SECRET}"));
    assert!(run.stderr.contains("while IFS= read -r stream"), "{run:?}");
    let text = run.fine();
    let names: Vec<String> = text
        .lines()
        .map(|line| {
            let (_dir, path) = scratch("stream.json", line);
            check("create-stream", &[&path]);
            line.split('"').nth(3).unwrap().to_owned()
        })
        .collect();
    assert_eq!(names, ["logs", "logs.shop", "logs-shop"]);
    generated("router-policy-several.json", "policy", &format!("iam-policy {THREE}"));
    generated("delivery-policy-several.json", "policy", &format!("iam-policy --of delivery {THREE} --bucket spare"));
    let prefixed = kubehose(&format!("iam-policy {THREE} --stream-prefix logs-")).fine();
    for name in ["logs", "logs.shop", "logs-shop", "logs-*"] {
        assert_eq!(prefixed.matches(&format!("deliverystream/{name}\"")).count(), 1, "{name}: {prefixed}");
    }
    let arn = |name: &str| format!("arn:aws:firehose:eu-west-1:123456789012:deliverystream/{name}");
    let pipeline =
        format!("pipeline --stream-arn {},{} --stream-arn {}", arn("logs"), arn("logs.shop"), arn("logs-shop"));
    generated("pipeline-several.json", "pipeline", &pipeline);
    generated("pipeline-several.tf", "terraform", &format!("{pipeline} --format terraform"));
}

/// The 64 streams that a template of the plugin may use, with names of the maximum length.
#[test]
fn many_streams_are_within_the_limits_or_cause_a_message() {
    let names: Vec<String> = (0..64).map(|n| format!("{n:02}{}", "-stream".repeat(8))).collect();
    let many = format!("--region eu-west-1 --account 123456789012 --delivery-stream {}", names.join(","));
    let template = kubehose(&format!("delivery-stream --site eu --format cloudformation {many}"));
    assert!(template.stderr.contains("--s3-bucket"), "{}", template.stderr);
    let (_dir, path) = scratch("template.json", &template.fine());
    check("cloudformation", &[&path]);
    let policy = kubehose(&format!("iam-policy {many}"));
    assert!(policy.stderr.contains("6144") && policy.stderr.contains("--stream-prefix"), "{}", policy.stderr);
    for fine in [format!("iam-policy {THREE}"), format!("delivery-stream --site eu --format cloudformation {THREE}")] {
        assert_eq!(kubehose(&fine).stderr, "");
    }
}

/// The stream and the pipeline in one folder, as one module: `terraform validate`, if Terraform and its AWS provider
/// are installed.
#[test]
fn terraform_accepts_stream_and_pipeline_in_one_folder_and_as_modules() {
    for streams in [WHERE, THREE] {
        terraform_takes(streams);
    }
}

fn terraform_takes(streams: &str) {
    let dir = tempfile::tempdir().unwrap();
    let stream = kubehose(&format!("delivery-stream --site eu {streams} --format terraform")).fine();
    std::fs::write(dir.path().join("stream.tf"), &stream).unwrap();
    std::fs::write(dir.path().join("pipeline.tf"), kubehose("pipeline --format terraform").fine()).unwrap();
    check("terraform-folder", &[dir.path()]);
    for word in ["provider \"", "required_providers"] {
        assert!(!stream.contains(word), "a module with {word}:\n{stream}");
    }
    // The stream depends on the secret's value, not only on the secret.
    let waits = stream.lines().find(|line| line.contains("depends_on")).unwrap();
    assert!(waits.contains("aws_secretsmanager_secret_version.api_key"), "{waits}");
    let existing = kubehose(&format!("delivery-stream --site eu {streams} --format terraform {SECRET}")).fine();
    assert!(!existing.contains("secret_version"), "{existing}");

    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("logs/main.tf", &stream);
    write(
        "main.tf",
        "provider \"aws\" {\n  region = \"eu-west-1\"\n}\nmodule \"logs\" {\n  source          = \"./logs\"\n  datadog_api_key = \"0\"\n  \
         buffering_size = 4\n}\noutput \"arn\" {\n  value = module.logs.delivery_stream_arn\n}\n"
            .replace("delivery_stream_arn", if streams == THREE { "delivery_stream_arns" } else { "delivery_stream_arn" })
            .as_str(),
    );
    let terraform = |arguments: &[&str]| {
        let mut command = Command::new("terraform");
        command.current_dir(root.path()).args(arguments).env("TF_IN_AUTOMATION", "1").env("CHECKPOINT_DISABLE", "1");
        command.stdin(std::process::Stdio::null()).output()
    };
    let plugins = std::env::var("KUBEHOSE_TERRAFORM_PLUGINS").map(|folder| format!("-plugin-dir={folder}"));
    let Ok(plugins) = plugins else {
        not_run("terraform validate: KUBEHOSE_TERRAFORM_PLUGINS names no folder with the AWS provider");
        return;
    };
    for arguments in [
        vec!["init", "-backend=false", "-input=false", &plugins],
        vec!["validate", "-no-color"],
        vec!["fmt", "-check", "logs"],
    ] {
        let done = terraform(&arguments).unwrap();
        let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "terraform {arguments:?}: {said}");
    }
}

#[test]
fn a_buffer_larger_than_datadog_accepts_is_rejected() {
    let line =
        |mib: &str| format!("delivery-stream --site eu {WHERE} --bucket spare {ROLE} {SECRET} --buffer-mib {mib}");
    for mib in ["0", "5", "64", "-1", "2.5", ""] {
        let refused = kubehose(&line(mib));
        assert_eq!(refused.code, 2, "{mib}: {refused:?}");
    }
    assert!(kubehose(&line("5")).stderr.contains("413"));
    for mib in ["1", "4"] {
        kubehose(&line(mib)).fine();
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
fn too_many_routes_are_rejected_with_the_number_that_fits() {
    let route = |n: usize| format!("--route namespace-{n}=logs-of-namespace-{n}");
    let line = |count: usize| {
        format!("manifest {STREAM} --keep-labels app {}", (0..count).map(route).collect::<Vec<_>>().join(" "))
    };
    let refused = kubehose(&line(40));
    assert_eq!(refused.code, 2);
    let told = refused.stderr.split("first ").nth(1).and_then(|rest| rest.split(' ').next());
    let most: usize = told.unwrap_or_else(|| panic!("{refused:?}")).parse().unwrap();
    assert!((9..40).contains(&most), "{refused:?}");
    for count in [1, most / 2, most] {
        let text = kubehose(&line(count)).fine();
        let (_dir, path) = scratch("aws-logging.yaml", &text);
        let judged = kubehose(&format!("lint --strict {}", path.display()));
        assert_eq!(judged.code, 0, "{count}: {judged:?}\n{text}");
    }
    assert_eq!(kubehose(&line(most + 1)).code, 2);
}

#[test]
fn contradictory_routes_are_rejected() {
    for (options, named) in [
        ("--route shop=a --route shop=b", "shop=a comes before"),
        ("--route label:a=b=c,label:a=b=d", "label:a=b=c comes before"),
        ("--route shop=a --exclude-namespace dev,shop", "--exclude-namespace shop"),
        ("--route shop=a --guide", "--guide"),
        ("--route shop=a --match kube.var.*", "--match"),
        ("--route team=payments=a", "label:"),
        ("--route shop=a --target daemonset --image a", "$kubernetes['namespace_name']"),
    ] {
        let run = kubehose(&format!("manifest {STREAM} {options}"));
        assert_eq!(run.code, 2, "{options}: {run:?}");
        assert!(run.stderr.contains(named) && run.stdout.is_empty(), "{options}: {run:?}");
    }
}

#[test]
fn missing_or_unsuitable_options_are_named() {
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
