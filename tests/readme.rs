//! The README's table of options matches the code; `BLESS=1 cargo test --test readme` rewrites it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

use kubehose::options::OPTIONS;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const BEGIN: &str = "<!-- options: BLESS=1 cargo test --test readme -->\n";
const END: &str = "<!-- end of options -->\n";
/// The README's maximum size in bytes, for the reader's sake.
const MOST: usize = 12_000;

/// The options as a table in Markdown.
fn table() -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let mut table = "| option | default | accepted | meaning |\n|---|---|---|---|\n".to_owned();
    for option in OPTIONS {
        let default = match option.default {
            "" => "–".to_owned(),
            value => format!("`{}`", cell(value)),
        };
        let (accepted, help) = (cell(option.accepted), cell(option.help));
        writeln!(table, "| `{}` | {default} | {accepted} | {help} |", option.name).unwrap();
    }
    table
}

#[test]
fn the_readme_has_the_options_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap_or_else(|| panic!("README.md has no line {BEGIN}"));
    let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("README.md has no line {END}"));
    let expected = format!("{before}{BEGIN}{}{END}{after}", table());
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &expected).unwrap();
    } else {
        assert!(text == expected, "README.md is out of date: run `BLESS=1 cargo test --test readme`");
    }
    assert!(expected.len() < MOST, "README.md has {} bytes, at most {MOST} are wanted", expected.len());
}
