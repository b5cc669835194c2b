//! The bundle needs no editing, its files pass their checkers, and apply.sh performs the guide's steps and may be run
//! again.

#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use support::{check, golden, kubehose, run, venv};

const FLAGS: &str = "--site eu --region eu-west-1 --account 123456789012 --cluster fargate-cluster --fargate-profile \
                     fargate-profile --delivery-stream logs";

fn bundle(dir: &Path, options: &str) {
    kubehose(&format!("bundle {} {FLAGS} {options}", dir.display())).fine();
}

/// Stand-ins that write their arguments to `calls`; `there` is whether the resources that the script looks up exist.
fn stand_ins(dir: &Path, there: bool) {
    let answer = if there { 0 } else { 254 };
    let script = format!(
        r#"#!/bin/bash
printf '%s %s\n' "$(basename "$0")" "$*" | sed "s#$TMPDIR[^ ]*/#TMP/#g" >>"$CALLS"
case "$*" in
*describe-stacks* | *get-policy\ * | *"get deployment"*) exit {answer} ;;
*list-policy-versions*) printf 'v1\tv2\n' ;;
*describe-fargate-profile*) echo arn:aws:iam::123456789012:role/path/pods ;;
*"-X GET"* | *--silent*) cat >>"$CALLS.stdin"; {} ;;
esac
"#,
        if there { r#"echo '[{"id":"x","name":"EKS Fargate Log Pipeline"}]'"# } else { "echo '[]'" }
    );
    for name in ["aws", "kubectl", "curl"] {
        let path = dir.join(name);
        std::fs::write(&path, &script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Runs apply.sh against stand-ins; returns its exit code, the calls, and its whole output.
fn apply(bundle: &Path, there: bool, keys: bool, arguments: &[&str]) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    stand_ins(&bin, there);
    let calls = dir.path().join("calls");
    let mut command = Command::new("bash");
    command
        .arg(bundle.join("apply.sh"))
        .args(arguments)
        .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
        .env("TMPDIR", dir.path())
        .env("CALLS", &calls)
        .env_remove("DD_API_KEY")
        .env_remove("DD_APP_KEY");
    if keys {
        command.env("DD_API_KEY", "0123456789abcdef0123456789abcdef").env("DD_APP_KEY", "fedcba9876543210");
    }
    let done = run(&mut command);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| ["bin", "calls", "calls.stdin"].contains(&name.to_str().unwrap())), "{left:?}");
    (done.code, std::fs::read_to_string(calls).unwrap_or_default(), done.stdout + &done.stderr)
}

#[test]
fn every_file_passes_its_checker_and_none_needs_editing() {
    let dir = tempfile::tempdir().unwrap();
    bundle(dir.path(), "");
    let file = |name: &str| dir.path().join(name);
    check("kubernetes", &[&file("aws-logging.yaml"), &file("sample-app.yaml")]);
    check("cloudformation", &[&file("delivery-stream.cloudformation.json")]);
    check("policy", &[&file("allow_kinesis_put_permission.json")]);
    check("pipeline", &[&file("pipeline.json")]);
    check("terraform", &[&file("terraform/delivery-stream.tf"), &file("terraform/pipeline/pipeline.tf")]);
    if let Some(shellcheck) = venv("shellcheck", "shellcheck of apply.sh") {
        let checked = run(Command::new(shellcheck).arg(file("apply.sh")));
        assert_eq!(checked.code, 0, "{}", checked.stdout);
    }
    assert_eq!(kubehose(&format!("lint {}", file("aws-logging.yaml").display())).code, 0);
    for name in
        ["aws-logging.yaml", "sample-app.yaml", "allow_kinesis_put_permission.json", "apply.sh", "pipeline.json"]
    {
        let text = std::fs::read_to_string(file(name)).unwrap();
        for placeholder in ["<REGION>", "<ACCOUNTID>", "<YOUR", "TODO", "CHANGEME"] {
            assert!(!text.contains(placeholder), "{name} contains {placeholder}");
        }
    }
    golden("apply.sh", &std::fs::read_to_string(file("apply.sh")).unwrap());
    assert_ne!(std::fs::metadata(file("apply.sh")).unwrap().permissions().mode() & 0o111, 0);
}

#[test]
fn the_first_run_creates_everything() {
    let dir = tempfile::tempdir().unwrap();
    bundle(dir.path(), "");
    let (code, calls, said) = apply(dir.path(), false, true, &[]);
    assert_eq!(code, 0, "{said}");
    golden("apply-first.txt", &calls);
    for secret in ["0123456789abcdef0123456789abcdef", "fedcba9876543210"] {
        assert!(!calls.contains(secret) && !said.contains(secret), "a key is shown");
    }
}

#[test]
fn the_streams_of_routes_are_created_and_allowed() {
    let dir = tempfile::tempdir().unwrap();
    bundle(dir.path(), "--route shop=logs-shop,cart=logs-shop --route label:team=pay=logs-pay");
    let file = |name: &str| dir.path().join(name);
    check("cloudformation", &[&file("delivery-stream.cloudformation.json")]);
    check("policy", &[&file("allow_kinesis_put_permission.json")]);
    check("terraform", &[&file("terraform/delivery-stream.tf")]);
    assert_eq!(kubehose(&format!("lint {}", file("aws-logging.yaml").display())).code, 0);
    for name in [
        "aws-logging.yaml",
        "allow_kinesis_put_permission.json",
        "delivery-stream.cloudformation.json",
        "terraform/delivery-stream.tf",
    ] {
        let text = std::fs::read_to_string(file(name)).unwrap();
        for stream in ["logs", "logs-shop", "logs-pay"] {
            assert!(
                text.contains(&format!("{stream}\"")) || text.contains(&format!("stream {stream}\n")),
                "{name}: {stream}"
            );
        }
    }
    let (code, calls, said) = apply(dir.path(), false, true, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(calls.contains("create-policy --policy-name FluentBitEKSFargate-logs "), "{calls}");
}

#[test]
fn the_second_run_creates_nothing_again() {
    let dir = tempfile::tempdir().unwrap();
    bundle(dir.path(), "");
    let (code, calls, said) = apply(dir.path(), true, true, &[]);
    assert_eq!(code, 0, "{said}");
    golden("apply-again.txt", &calls);
    assert!(!calls.contains("create-policy ") && !calls.contains("POST"), "{calls}");
}

#[test]
fn a_dry_run_makes_no_calls() {
    let dir = tempfile::tempdir().unwrap();
    bundle(dir.path(), "");
    let (code, calls, said) = apply(dir.path(), false, true, &["--dry-run"]);
    assert_eq!((code, calls.as_str()), (0, ""), "{said}");
    for step in [
        "cloudformation deploy",
        "kubectl apply -f aws-logging.yaml",
        "create-policy",
        "attach-role-policy",
        "pipelines",
    ] {
        assert!(said.contains(step), "{step}: {said}");
    }
    assert!(!said.contains("0123456789abcdef"), "a key is shown");
}

#[test]
fn without_keys_it_names_the_missing_ones() {
    let dir = tempfile::tempdir().unwrap();
    bundle(dir.path(), "");
    let (code, calls, said) = apply(dir.path(), false, false, &[]);
    assert_eq!(code, 1);
    assert!(said.contains("DD_API_KEY") && !calls.contains("deploy"), "{said}");
    // The stack exists, and its secret with the key; only the pipeline remains.
    let (code, calls, said) = apply(dir.path(), true, false, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("left to you") && !calls.contains("curl"), "{said}");
    // An existing secret needs no key.
    let own = tempfile::tempdir().unwrap();
    bundle(
        own.path(),
        "--bucket spare --secret-arn arn:aws:secretsmanager:eu-west-1:123456789012:secret:datadog-AbCdEf",
    );
    assert_eq!(apply(own.path(), false, false, &[]).0, 0);
}

#[test]
fn files_changed_by_hand_are_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    bundle(dir.path(), "");
    bundle(dir.path(), "");
    std::fs::write(dir.path().join("sample-app.yaml"), "mine").unwrap();
    let line = format!("bundle {} {FLAGS}", dir.path().display());
    let refused = kubehose(&line);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("sample-app.yaml"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(dir.path().join("sample-app.yaml")).unwrap(), "mine");
    kubehose(&format!("{line} --force")).fine();
}

/// The files below a folder, by their relative paths.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path()).iter().map(|file| format!("{name}/{file}"))),
            false => found.push(name),
        }
    }
    found.sort();
    found
}

#[test]
fn anything_in_the_place_of_a_file_is_named_and_never_followed() {
    let whole = tempfile::tempdir().unwrap();
    bundle(whole.path(), "");
    let names = files(whole.path());
    assert!(names.len() >= 8);
    for name in &names {
        let text = std::fs::read(whole.path().join(name)).unwrap();
        for (obstacle, forced) in [
            ("dangling link", true),
            ("link to a file", true),
            ("link to the same text", true),
            ("link to a folder", true),
            ("no text", true),
            ("nothing", true),
            ("folder", false),
            ("pipe", false),
        ] {
            let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let (path, target) = (dir.path().join(name), outside.path().join("target"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let link = || std::os::unix::fs::symlink(&target, &path).unwrap();
            match obstacle {
                "dangling link" => link(),
                "link to a file" => (std::fs::write(&target, "theirs").unwrap(), link()).1,
                "link to the same text" => (std::fs::write(&target, &text).unwrap(), link()).1,
                "link to a folder" => (std::fs::create_dir(&target).unwrap(), link()).1,
                "no text" => std::fs::write(&path, [0xff, 0xfe, 0]).unwrap(),
                "nothing" => std::fs::write(&path, "").unwrap(),
                "folder" => std::fs::create_dir(&path).unwrap(),
                _ => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
            }
            let state = |path: &Path| (std::fs::read(path).ok(), std::fs::symlink_metadata(path).ok().map(|m| m.len()));
            let before = state(&target);
            let line = format!("bundle {} {FLAGS}", dir.path().display());
            let refused = kubehose(&line);
            assert_eq!(refused.code, 2, "{obstacle}: {refused:?}");
            assert!(refused.stderr.contains(&path.display().to_string()), "{obstacle}: {refused:?}");
            let only: Vec<String> = if obstacle == "folder" { Vec::new() } else { vec![name.clone()] };
            assert_eq!(files(dir.path()), only, "{obstacle}: other files were written");
            let again = kubehose(&format!("{line} --force"));
            assert_eq!(again.code, if forced { 0 } else { 2 }, "{obstacle}: {again:?}");
            if forced {
                let kind = std::fs::symlink_metadata(&path).unwrap();
                assert!(kind.is_file() && std::fs::read(&path).unwrap() == text, "{obstacle}");
                assert_eq!(kind.permissions().mode() & 0o111 != 0, name == "apply.sh");
                assert_eq!(files(dir.path()), names);
            }
            assert_eq!(state(&target), before, "{obstacle}: the link's target was changed");
        }
    }
}

#[test]
fn a_folder_of_the_bundle_that_is_a_link_is_not_written_into() {
    for (folder, force) in [("terraform", ""), ("terraform", " --force"), ("terraform/pipeline", " --force")] {
        let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = dir.path().join(folder);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(outside.path(), &path).unwrap();
        let refused = kubehose(&format!("bundle {} {FLAGS}{force}", dir.path().display()));
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains(&path.display().to_string()), "{refused:?}");
        assert!(files(outside.path()).is_empty());
    }
}
