//! The examples, the workflows and the build scripts: the checkers of their formats accept them, and they agree with
//! the code.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{check, kubehose, root, run};

/// The files of a folder of the repository with this ending.
fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.display().to_string().ends_with(end))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "nothing in {folder} ends with {end}");
    files
}

fn check_all(kind: &str, files: &[PathBuf]) {
    check(kind, &files.iter().map(PathBuf::as_path).collect::<Vec<_>>());
}

fn text(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

#[test]
fn kubernetes_accepts_the_manifests() {
    check_all("kubernetes", &files("examples/kubernetes", ".yaml"));
}

#[test]
fn ecs_accepts_the_task_definition() {
    check_all("task-definition", &files("examples/ecs", ".json"));
}

#[test]
fn compose_accepts_its_file() {
    check_all("compose", &files("examples/compose", "compose.yaml"));
}

#[test]
fn hadolint_accepts_the_images() {
    check_all("dockerfile", &files("examples/images", ".Dockerfile"));
    check_all("dockerfile", &[root().join("Dockerfile")]);
}

#[test]
fn github_accepts_the_workflows_and_the_forms() {
    check_all("workflow", &files(".github/workflows", ".yml"));
    check_all("dependabot", &files(".github", "dependabot.yml"));
    check_all("issue-form", &files(".github/ISSUE_TEMPLATE", ".yml"));
}

/// The manifests that the command line generates name a file that the images contain.
#[test]
fn the_images_have_the_plugin_at_the_path_in_the_manifests() {
    let manifest = kubehose("manifest --target daemonset --image a --region eu-west-1 --delivery-stream logs").fine();
    let path = manifest.split("Path ").find_map(|rest| rest.split_whitespace().next().filter(|p| p.ends_with(".so")));
    let path = path.unwrap_or_else(|| panic!("no plugin in {manifest}"));
    let folder = Path::new(path).parent().unwrap().display().to_string();
    for image in files("examples/images", ".Dockerfile") {
        let text = fs::read_to_string(&image).unwrap();
        let copied = text.lines().filter(|line| line.starts_with("COPY") && line.contains("libkubehose.so"));
        for line in copied {
            let target = line.rsplit(' ').next().unwrap();
            assert!(target == path || target == format!("{folder}/"), "{}: {line}, not {path}", image.display());
        }
        assert!(text.contains("libkubehose.so"), "{}", image.display());
    }
    // The Dockerfile that builds from a checkout uses the same base images and the same start command.
    let built = text("Dockerfile");
    for image in files("examples/images", ".Dockerfile") {
        let text = fs::read_to_string(&image).unwrap();
        for line in text
            .lines()
            .filter(|line| ["FROM ", "USER ", "ENTRYPOINT ", "CMD "].iter().any(|word| line.starts_with(word)))
        {
            assert!(built.contains(line), "Dockerfile differs from {}: {line}", image.display());
        }
    }
    assert!(text("examples/images/plugins.conf").contains(&format!("Path {path}\n")));
}

/// The compiler version we promise must not be older than any dependency requires.
#[test]
fn the_minimum_compiler_version_is_enough_for_the_dependencies() {
    let version = |text: &str| -> Vec<u32> {
        let mut parts: Vec<u32> = text.split('.').map(|part| part.parse().unwrap()).collect();
        parts.resize(3, 0);
        parts
    };
    let cargo = run(Command::new(env!("CARGO")).current_dir(root()).args([
        "metadata",
        "--format-version=1",
        "--locked",
        "--offline",
        "--filter-platform=x86_64-unknown-linux-gnu",
    ]));
    let metadata: serde_json::Value = serde_json::from_str(&cargo.fine()).unwrap();
    let ours = env!("CARGO_PKG_RUST_VERSION");
    let mut known = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let Some(needed) = package["rust_version"].as_str() else { continue };
        known += 1;
        assert!(version(needed) <= version(ours), "{} needs {needed}, newer than {ours}", package["name"]);
    }
    assert!(known > 100, "only {known} packages say what they need");
}

/// The check that `make dist` uses: what it accepts, what it rejects, and that it names the symbol.
#[test]
fn check_glibc_distinguishes_old_from_new() {
    if Command::new("objdump").arg("--version").output().is_err() {
        support::not_run("check-glibc: no objdump (binutils)");
        return;
    }
    let program = env!("CARGO_BIN_EXE_kubehose");
    let check = |version: &str, file: &str| run(Command::new(root().join("scripts/check-glibc")).args([version, file]));
    let passed = check("2.99", program);
    assert_eq!(passed.code, 0, "{passed:?}");
    assert!(passed.stdout.contains("needs glibc 2."), "{passed:?}");
    // Nothing linked on a current system runs on the first glibc for x86-64 or arm64.
    let refused = check("2.2", program);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("newer than 2.2, for:\n") && refused.stderr.contains("GLIBC_2."), "{refused:?}");
    // 2.3 is older than 2.26: versions are not decimal numbers.
    let between = passed.stdout.split("glibc ").nth(1).unwrap().trim();
    assert_eq!(check(between, program).code, 0);
    let (dir, path) = support::scratch("text", "no program");
    let none = check("2.99", path.to_str().unwrap());
    assert_eq!(none.code, 1, "{none:?}");
    assert!(none.stderr.contains("is it an ELF file"), "{none:?}");
    drop(dir);
}

/// Every `make …` in a page is a target, and `make help` documents every target.
#[test]
fn make_has_every_target_that_pages_name() {
    let makefile = text("Makefile");
    let help = run(Command::new("make").current_dir(root()).arg("help")).fine();
    let mut pages = files("docs/src", ".md");
    pages
        .extend(["README.md", "CONTRIBUTING.md", "BENCHMARKS.md", "CHANGELOG.md", "DESIGN.md"].map(|n| root().join(n)));
    let mut named = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let quoted = text.split("`make ").skip(1).filter_map(|rest| rest.split('`').next());
        let indented = text.lines().filter_map(|line| line.strip_prefix("    make "));
        for target in quoted.chain(indented).filter_map(|words| words.split_whitespace().next()) {
            assert!(makefile.contains(&format!("\n{target}:")), "{}: make {target}", page.display());
            assert!(help.contains(&format!("make {target}")), "make help does not list {target}:\n{help}");
            named += 1;
        }
    }
    assert!(named > 5, "only {named} targets were found");
}
