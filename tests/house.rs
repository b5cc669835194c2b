//! Which module of src/ may use which, and words that are not used. DESIGN.md's list of dependencies is checked here.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test; clippy.toml sees only the test functions")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The files under a folder with this ending, without build output.
fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !["target", ".git", ".venv"].contains(&name.as_str()) {
            files(&path, ending, found);
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The module of src/ that a file belongs to: a folder, or a file beside the folders.
fn room(path: &Path) -> String {
    let relative = path.strip_prefix(root().join("src")).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules that each module uses, tests aside.
fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = Vec::new();
    files(&root().join("src"), ".rs", &mut found);
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in found {
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let own = room(&file);
        let entry = uses.entry(own.clone()).or_default();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (at, _) in line.match_indices("crate::") {
                let rest = &line[at + "crate::".len()..];
                let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(rest.len());
                let other = &rest[..end];
                if !other.is_empty() && other != own {
                    entry.insert(other.to_owned());
                }
            }
        }
    }
    uses
}

/// A cycle among the dependencies, if there is one.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk(
        at: &str,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
        uses: &BTreeMap<String, BTreeSet<String>>,
    ) -> Option<Vec<String>> {
        if let Some(begin) = path.iter().position(|room| room == at) {
            return Some(path[begin..].to_vec());
        }
        if !done.insert(at.to_owned()) {
            return None;
        }
        path.push(at.to_owned());
        let found = uses.get(at).and_then(|others| others.iter().find_map(|other| walk(other, path, done, uses)));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    uses.keys().find_map(|room| walk(room, &mut Vec::new(), &mut done, uses))
}

#[test]
fn modules_use_only_allowed_modules() {
    let uses = uses();
    for (room, others) in &uses {
        println!("{room} -> {}", others.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
    }
    assert!(uses.len() >= 8, "the modules were not found: {uses:?}");
    assert_eq!(circle(&uses), None, "the modules depend on each other in a cycle");
    let none = BTreeSet::new();
    let of = |room: &str| uses.get(room).unwrap_or(&none);
    assert_eq!(of("event"), &none, "event uses no other module");
    assert_eq!(of("host"), &none, "host uses no other module");
    let upper = ["delivery", "storage", "firehose", "output", "replay", "abi", "options"];
    assert!(of("record").iter().all(|room| !upper.contains(&room.as_str())), "record uses {:?}", of("record"));
    let pure = ["storage", "output", "replay", "abi", "options"];
    assert!(of("delivery").iter().all(|room| !pure.contains(&room.as_str())), "delivery uses {:?}", of("delivery"));
}

#[test]
fn the_dependencies_in_the_design_match_the_code() {
    let design = fs::read_to_string(root().join("DESIGN.md")).unwrap();
    let floors = design.split("## The floors").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut drawn: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (rooms, others) in
        floors.lines().filter(|line| line.starts_with("    ")).filter_map(|line| line.split_once('→'))
    {
        let others: BTreeSet<String> =
            others.split(',').map(|room| room.trim().to_owned()).filter(|room| room != "nothing").collect();
        for room in rooms.split(',') {
            drawn.insert(room.trim().to_owned(), others.clone());
        }
    }
    let mut used = uses();
    used.remove("lib");
    assert_eq!(drawn, used, "left: DESIGN.md, right: src/");
}

#[test]
fn a_dependency_cycle_is_found() {
    let of = |pairs: &[(&str, &str)]| {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (room, other) in pairs {
            uses.entry((*room).to_owned()).or_default().insert((*other).to_owned());
        }
        circle(&uses)
    };
    assert_eq!(of(&[("a", "b"), ("b", "c"), ("a", "c")]), None);
    assert_eq!(of(&[("a", "b"), ("b", "c"), ("c", "b")]), Some(vec!["b".to_owned(), "c".to_owned()]));
}

#[test]
fn each_dependency_has_its_reason_above_it() {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = text.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let lines: Vec<&str> = section.lines().collect();
    let bare: Vec<&str> = lines
        .windows(2)
        .filter(|pair| pair[1].contains(" = ") && !pair[1].starts_with('#') && !pair[0].starts_with('#'))
        .map(|pair| pair[1])
        .collect();
    assert!(lines.iter().filter(|line| line.contains(" = ")).count() > 50, "the dependencies were not found");
    assert!(bare.is_empty(), "without a reason: {bare:?}");
}

#[test]
fn words_to_avoid_appear_nowhere() {
    let words = ["put aside", "courier", "hand-over", "unclear", "mended", "came to nothing"];
    let begins = |text: &str, at: usize| !text[..at].ends_with(|before: char| before.is_alphanumeric());
    let mut found = Vec::new();
    for folder in ["src", "cli/src", "local/src", "docs/src", "scripts"] {
        for ending in [".rs", ".md", ".sh"] {
            files(&root().join(folder), ending, &mut found);
        }
    }
    found.extend(["README.md", "DESIGN.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root().join(name)));
    assert!(found.len() > 60, "the files were not found");
    let mut said = Vec::new();
    for file in found {
        let text = fs::read_to_string(&file).unwrap().to_lowercase();
        let used = |word: &str| text.match_indices(word).any(|(at, _)| begins(&text, at));
        for word in words.iter().filter(|word| used(word)) {
            said.push(format!("{}: {word}", file.display()));
        }
    }
    assert!(said.is_empty(), "CONTRIBUTING.md lists the terms to use:\n{}", said.join("\n"));
}
