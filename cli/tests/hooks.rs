//! The repository's pre-commit hook and GitHub Action run lint as documented.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::Command;

use support::{Run, root, run, scratch};

const WRONG: &str = "[INPUT]\n    Name dummy\n[OUTPUT]\n    Name kinesis_firehose\n    Match *\n    region Ireland\n    delivery_stream a\n";

/// Puts this build's kubehose on the command's PATH.
fn with_program(command: &mut Command) -> &mut Command {
    let folder = Path::new(env!("CARGO_BIN_EXE_kubehose")).parent().unwrap();
    command.env("PATH", format!("{}:/usr/bin:/bin", folder.display()))
}

#[test]
fn the_pre_commit_hook_lints_the_files_it_is_given() {
    let hooks = std::fs::read_to_string(root().join(".pre-commit-hooks.yaml")).unwrap();
    let value = |key: &str| {
        let start = format!("  {key}: ");
        hooks.lines().find_map(|line| line.strip_prefix(&start)).unwrap().to_owned()
    };
    assert!(hooks.contains("- id: kubehose-lint\n"));
    assert_eq!(value("language"), "script");
    let script = root().join(value("entry"));
    let (_dir, wrong) = scratch("fluent-bit.conf", WRONG);
    let done = run(with_program(Command::new(&script).arg(&wrong)));
    assert!(done.code == 1 && done.stdout.contains("error[region]"), "{done:?}");
    let (_dir, right) = scratch("fluent-bit.conf", "[SERVICE]\n    Flush 1\n");
    assert_eq!(run(with_program(Command::new(&script).arg("--strict").arg(&right))).code, 0);
}

/// Runs the action's step with these inputs, as GitHub's runner does.
fn action(inputs: &[(&str, &str)]) -> Run {
    let text = std::fs::read_to_string(root().join("action.yml")).unwrap();
    let script: String = text
        .lines()
        .skip_while(|line| line.trim() != "run: |")
        .skip(1)
        .map(|line| format!("{}\n", line.strip_prefix("        ").unwrap_or_default()))
        .collect();
    assert!(script.contains("lint-hook"), "{script}");
    let mut command = Command::new("bash");
    command.args(["--noprofile", "--norc", "-e", "-o", "pipefail", "-c", &script]).env("GITHUB_ACTION_PATH", root());
    // The variables that the inputs set in the step's environment, with their defaults.
    for (name, variable, default) in
        [("files", "FILES", ""), ("fail-on", "FAIL_ON", "error"), ("target", "TARGET", "own"), ("ignore", "IGNORE", "")]
    {
        assert!(text.contains(&format!("{variable}: ${{{{ inputs.{name} }}}}")), "{name}");
        let given = inputs.iter().find(|(input, _)| *input == name).map_or(default, |(_, value)| value);
        command.env(variable, given);
    }
    run(with_program(&mut command))
}

#[test]
fn github_accepts_the_action() {
    support::check("action", &[&root().join("action.yml")]);
}

#[test]
fn the_action_annotates_findings_and_fails_as_its_inputs_say() {
    let (_one, wrong) = scratch("a b.conf", WRONG);
    let folder = wrong.parent().unwrap().display().to_string();
    let done = action(&[("files", &folder)]);
    assert!(done.code == 1 && done.stdout.starts_with("::"), "{done:?}");
    assert!(done.stdout.contains("::error file=") && done.stdout.contains("title=region"), "{done:?}");
    assert_eq!(action(&[("files", &folder), ("ignore", "region\nretry-limit")]).code, 0);
    assert_eq!(action(&[("files", &folder), ("ignore", "region"), ("fail-on", "warning")]).code, 1);
    let (_two, right) = scratch("b.conf", "[SERVICE]\n    Flush 1\n");
    let both = format!("{}\n  {folder}\n", right.display());
    assert!(action(&[("files", &both)]).stderr.contains("2 files"));
    // An input is passed as one word, whatever it contains.
    let hostile = action(&[("files", "$(touch /tmp/x) ; true"), ("target", "own; true")]);
    assert_eq!(hostile.code, 2, "{hostile:?}");
}
