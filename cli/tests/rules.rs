//! The book's page of lint rules: each rule with a faulty example and its fix, both linted. BLESS=1 rewrites the
//! page.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::kubehose;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lint")
}

struct Rule {
    id: String,
    severity: String,
    finds: String,
    fix: String,
}

/// Every rule, as SARIF describes them.
fn rules() -> Vec<Rule> {
    let run = kubehose(&format!("lint --format sarif {}", folder().join("good.conf").display()));
    let report: Value = serde_json::from_str(&run.fine()).unwrap();
    let rules = report["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rules
        .iter()
        .map(|rule| Rule {
            id: text(&rule["id"]),
            severity: text(&rule["defaultConfiguration"]["level"]),
            finds: text(&rule["shortDescription"]["text"]),
            fix: text(&rule["help"]["text"]),
        })
        .collect()
}

/// The rules that lint reports for a file.
fn found(file: &Path) -> BTreeSet<String> {
    let run = kubehose(&format!("lint --format json {}", file.display()));
    let list: Vec<Value> = serde_json::from_str(&run.stdout).unwrap();
    list.iter().map(|finding| finding["rule"].as_str().unwrap().to_owned()).collect()
}

/// A file with the fault and one without it: the pair with the smallest difference. None for a file that is not text.
fn example(id: &str) -> Option<(PathBuf, PathBuf)> {
    let expected = std::fs::read_to_string(folder().join("expected.txt")).unwrap();
    let faults = expected
        .lines()
        .filter(|line| line.split(' ').nth(1) == Some(id))
        .map(|line| folder().join(line.split(' ').next().unwrap()));
    let pairs = faults.flat_map(|fault| {
        let fixed = folder().join("fixed").join(fault.file_name().unwrap());
        let fixes = match fixed.exists() {
            true => vec![fixed],
            false => ["good.yaml", "good.conf", "good-fluent-bit.yaml"].map(|name| folder().join(name)).to_vec(),
        };
        fixes.into_iter().map(move |fix| (fault.clone(), fix))
    });
    pairs
        .filter_map(|(fault, fix)| {
            let old = String::from_utf8(std::fs::read(&fault).unwrap()).ok()?;
            let new = std::fs::read_to_string(&fix).unwrap();
            let lines = difference(&old, &new).iter().filter(|(sign, _)| *sign != ' ').count();
            Some((lines, fault, fix))
        })
        .min()
        .map(|(_, fault, fix)| (fault, fix))
}

/// The lines of two texts, marked as removed, added or common, by their longest common subsequence.
fn difference<'t>(old: &'t str, new: &'t str) -> Vec<(char, &'t str)> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut common = vec![vec![0usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] =
                if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push((' ', old[i]));
            i += 1;
            j += 1;
        } else if i < old.len() && (j == new.len() || common[i + 1][j] >= common[i][j + 1]) {
            lines.push(('-', old[i]));
            i += 1;
        } else {
            lines.push(('+', new[j]));
            j += 1;
        }
    }
    lines
}

/// How many consecutive lines of one kind are shown.
const MOST: usize = 13;

/// The changed lines with two lines of context.
fn shown(lines: &[(char, &str)]) -> String {
    let changed: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].0 != ' ').collect();
    let near = |at: usize| changed.iter().any(|change| at.abs_diff(*change) <= 2);
    let mut text = String::new();
    let mut before: Option<usize> = None;
    // The current sign, and how many lines it has had in a row.
    let mut run = (' ', 0);
    for (at, (sign, line)) in lines.iter().enumerate().filter(|(at, _)| near(*at)) {
        if before.is_some_and(|before| before + 1 != at) {
            text.push_str(" …\n");
        }
        before = Some(at);
        run = if run.0 == *sign { (*sign, run.1 + 1) } else { (*sign, 1) };
        match run.1 {
            count if count <= MOST => {
                let line = line.replace('\u{feff}', "<U+FEFF>").replace('\t', "<TAB>");
                text.push_str(&format!("{sign}{line}\n"));
            }
            count if count == MOST + 1 => text.push_str(&format!("{sign}…\n")),
            _ => {}
        }
    }
    text
}

/// Files that are not text are created by the example itself.
const NOT_TEXT: &str = "
```sh
printf '[SERVICE]\\n    Flush 1\\n' | iconv -t UTF-16 >utf16.conf
kubehose lint utf16.conf | grep not-text
iconv -f UTF-16 -t UTF-8 utf16.conf >fluent-bit.conf
kubehose lint fluent-bit.conf
```
";

#[test]
fn the_page_shows_for_each_rule_a_fault_and_its_fix() {
    let mut page = String::from(
        "# Rules of lint

What `kubehose lint` finds, a heading for each rule. An error is what Fluent Bit, EKS Fargate or kubehose refuses, or what loses
records; a warning is for what works, but not as intended. Each example is a change that removes the finding: the lines with `-` are
the fault, those with `+` the fix.

`--ignore RULE` turns a rule off, a comment `# kubehose-lint: ignore RULE` does so for its file, and
`--fail-on warning` makes the exit code 1 for warnings, too.

The repository has a hook for [pre-commit](https://pre-commit.com), `kubehose-lint`, and a GitHub Action with the inputs `files`,
`fail-on`, `target` and `ignore`.
",
    );
    for Rule { id, severity, finds, fix } in rules() {
        let severity = severity[..1].to_uppercase() + &severity[1..];
        // A placeholder in angle brackets is text, not HTML.
        let plain = |text: &str| text.replace('<', "\\<").replace('*', "\\*");
        page.push_str(&format!("\n## {id}\n\n{severity}: {}.\n\nFix: {}.\n", plain(&finds), plain(&fix)));
        match example(&id) {
            Some((fault, fixed)) => {
                let found_there = found(&fault);
                assert!(found_there.contains(&id), "{}: {found_there:?}", fault.display());
                assert_eq!(found(&fixed), BTreeSet::new(), "{id}: {}", fixed.display());
                let old = std::fs::read_to_string(&fault).unwrap();
                let new = std::fs::read_to_string(&fixed).unwrap();
                let lines = difference(&old, &new);
                page.push_str(&format!("\n```diff\n{}```\n", shown(&lines)));
            }
            None => {
                assert_eq!(id, "not-text");
                page.push_str(NOT_TEXT);
            }
        }
    }
    let path = support::root().join("docs/src/lint-rules.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "{} is not what the rules and their examples say (BLESS=1 writes it)", path.display());
}

#[test]
fn each_finding_links_to_its_place_on_the_page() {
    let page = std::fs::read_to_string(support::root().join("docs/src/lint-rules.md")).unwrap();
    let headings: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let file = folder().join("tls-on.conf").display().to_string();
    let text = kubehose(&format!("lint {file}"));
    assert!(text.stdout.contains("  page: lint-rules.html#tls-on\n"), "{}", text.stdout);
    let json: Value = serde_json::from_str(&kubehose(&format!("lint --format json {file}")).stdout).unwrap();
    assert_eq!(json[0]["page"], "lint-rules.html#tls-on");
    let sarif: Value = serde_json::from_str(&kubehose(&format!("lint --format sarif {file}")).stdout).unwrap();
    for rule in sarif["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap() {
        let id = rule["id"].as_str().unwrap();
        assert!(headings.contains(id), "{id}");
        assert!(rule["help"]["markdown"].as_str().unwrap().contains(&format!("lint-rules.html#{id}")), "{rule}");
    }
    assert!(kubehose(&format!("lint --format github {file}")).stdout.contains("lint-rules.html#tls-on"));
}
