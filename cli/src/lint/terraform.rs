//! Configurations in the heredocs of Terraform's language:
//! <https://developer.hashicorp.com/terraform/language/expressions/strings#heredoc-strings>.

use super::yaml::{Node, Place, ScalarStyle, Value};
use super::{Findings, conf, embedded};

/// Whether the file is one of Terraform's, by its name.
pub fn is_terraform(name: &str) -> bool {
    [".tf", ".tofu"].iter().any(|ending| name.ends_with(ending))
}

/// Checks the heredocs that hold a configuration. What `${…}` stands for is as unknown as a variable's value.
pub fn check(text: &str, findings: &mut Findings) {
    let lines: Vec<&str> = text.lines().collect();
    let mut number = 0;
    while let Some(line) = lines.get(number) {
        number += 1;
        let Some((marker, strips)) = heredoc(line) else { continue };
        let Some(length) = lines[number..].iter().position(|line| line.trim() == marker) else { return };
        let body = &lines[number..number + length];
        let indent = if strips { common_indent(body) } else { 0 };
        let inner: Vec<String> =
            body.iter().map(|line| line.get(indent..).unwrap_or_default().replace("$${", "${")).collect();
        // What a directive decides is known only once Terraform has run.
        if !inner.iter().any(|line| line.contains("%{")) {
            check_text(inner.join("\n"), number, &lines, findings);
        }
        number += length + 1;
    }
}

/// The word that ends the heredoc that a line opens, and whether its indent is taken off.
fn heredoc(line: &str) -> Option<(&str, bool)> {
    let code = line.trim_start();
    let (_, opened) = code.split_once("<<").filter(|_| !code.starts_with(['#', '/']))?;
    let marker = opened.strip_prefix('-').unwrap_or(opened).trim_end();
    let is_word = !marker.is_empty() && marker.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    is_word.then_some((marker, opened.starts_with('-')))
}

fn common_indent(lines: &[&str]) -> usize {
    let blanks = |line: &&str| line.len() - line.trim_start_matches([' ', '\t']).len();
    lines.iter().filter(|line| !line.trim().is_empty()).map(blanks).min().unwrap_or(0)
}

/// Checks a text that begins on the line behind `header`.
fn check_text(text: String, header: usize, lines: &[&str], findings: &mut Findings) {
    let section = |line: &str| {
        super::is_section_line(line)
            && conf::SECTIONS.contains(&line.trim().trim_matches(['[', ']']).to_ascii_uppercase().as_str())
    };
    let name = if text.lines().any(section) { embedded::PART } else { "part.yaml" };
    let at = Place { line: header, column: 1 };
    let node = Node { at, end: at, value: Value::Scalar { text, style: ScalarStyle::Literal } };
    embedded::check(std::iter::once((name, &node)), lines, findings);
}
