//! Findings as text, JSON, GitHub's annotations, or SARIF.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use super::Finding;
use super::rules::{ALL, Severity};
use crate::verdict;

/// For people; colour adds no information.
pub fn text(findings: &[Finding]) -> String {
    let bold = Style::new().bold();
    let mut out = String::new();
    for finding in findings {
        let colour = match finding.rule.severity {
            Severity::Error => AnsiColor::Red,
            Severity::Warning => AnsiColor::Yellow,
        };
        let style = colour.on_default().bold();
        let _ = writeln!(
            out,
            "{bold}{}:{}:{}:{bold:#} {style}{}[{}]{style:#}: {}\n  {}\n  fix: {}\n  page: {}",
            finding.file,
            finding.at.line,
            finding.at.column,
            finding.rule.severity.word(),
            finding.rule.id,
            finding.message,
            finding.rule.finds,
            finding.rule.fix,
            finding.rule.page()
        );
    }
    out
}

/// For programs.
pub fn json(findings: &[Finding]) -> String {
    let findings: Vec<Value> = findings
        .iter()
        .map(|finding| {
            json!({
                "file": finding.file,
                "line": finding.at.line,
                "column": finding.at.column,
                "rule": finding.rule.id,
                "severity": finding.rule.severity.word(),
                "message": finding.message,
                "finds": finding.rule.finds,
                "fix": finding.rule.fix,
                "page": finding.rule.page()
            })
        })
        .collect();
    verdict::json(&Value::Array(findings))
}

/// Workflow commands
/// (<https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands#setting-an-error-message>).
pub fn github(findings: &[Finding]) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut out = String::new();
    for finding in findings {
        let _ = writeln!(
            out,
            "::{} file={},line={},col={},title={}::{}",
            finding.rule.severity.word(),
            property(&finding.file),
            finding.at.line,
            finding.at.column,
            property(finding.rule.id),
            data(&format!(
                "{}. {}. Fix: {} ({})",
                finding.message,
                finding.rule.finds,
                finding.rule.fix,
                finding.rule.page()
            ))
        );
    }
    out
}

/// SARIF 2.1.0 (<https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>).
pub fn sarif(findings: &[Finding]) -> String {
    let rules: Vec<Value> = ALL
        .iter()
        .map(|rule| {
            json!({
                "id": rule.id,
                "shortDescription": {"text": rule.finds},
                "help": {"text": rule.fix, "markdown": format!("{}. In the book: `{}`.", rule.fix, rule.page())},
                "defaultConfiguration": {"level": rule.severity.word()}
            })
        })
        .collect();
    let results: Vec<Value> = findings
        .iter()
        .map(|finding| {
            json!({
                "ruleId": finding.rule.id,
                "level": finding.rule.severity.word(),
                "message": {"text": format!("{}. {}. Fix: {}", finding.message, finding.rule.finds, finding.rule.fix)},
                "locations": [{"physicalLocation": {
                    "artifactLocation": {"uri": finding.file},
                    "region": {"startLine": finding.at.line, "startColumn": finding.at.column}
                }}]
            })
        })
        .collect();
    verdict::json(&json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "kubehose", "version": kubehose::VERSION, "rules": rules}},
            "results": results
        }]
    }))
}
