//! Configurations inside of other documents: files of a ConfigMap, values of a Helm chart, a task definition of ECS.

use saphyr_parser::ScalarStyle;

use super::conf::{self, Conf, Entry, Origin, Section, Word};
use super::router::{self, Scope};
use super::yaml::{self, Node, Place, Value};
use super::{Findings, fluent_yaml};

/// Where the lines of a scalar lie in the file.
pub fn origin<'l>(value: &Node, lines: &'l [&'l str]) -> Origin<'l> {
    match &value.value {
        // The parser puts a literal block where its first line that is not empty begins.
        Value::Scalar { style: ScalarStyle::Literal, text } => {
            let empty = text.lines().take_while(|line| line.trim().is_empty()).count();
            Origin::Block { first_line: value.at.line.saturating_sub(empty).max(1), lines }
        }
        _ => Origin::Point(value.at),
    }
}

/// Checks the files of one configuration, each by its name and text. One file may use what another defines.
pub fn check<'n>(files: impl Iterator<Item = (&'n str, &'n Node)>, lines: &[&str], findings: &mut Findings) {
    for (name, value) in files {
        let Some(text) = value.text() else { continue };
        if text.lines().any(|line| line.trim_start().starts_with("{{")) {
            // A template decides here which lines there are.
            continue;
        }
        if text.lines().any(super::is_section_line) {
            let read = conf::read(text, &origin(value, lines), findings);
            // The other files are included in an order that only the program knows.
            let open = name != "fluent-bit.conf" || read.includes() || super::names_other_files(&read);
            super::check_sections(&read, findings);
            router::check(&read, Scope { fargate: None, open, reloads: false }, findings);
            findings.checked = true;
        } else if name.ends_with(".yaml") || name.ends_with(".yml") {
            check_yaml(value, text, lines, findings);
        }
    }
}

/// A configuration in YAML, in a block of the file.
fn check_yaml(value: &Node, text: &str, lines: &[&str], findings: &mut Findings) {
    let origin = origin(value, lines);
    let mut inner = findings.inner();
    match yaml::documents(text) {
        // A chart's template is not YAML before it is rendered.
        Err(fault) if text.contains("{{") => drop(fault),
        Err(fault) => inner.add(&super::rules::YAML_SYNTAX, fault.at, fault.what),
        Ok(documents) => {
            for document in documents.iter().filter(|document| fluent_yaml::is_configuration(document)) {
                let conf = fluent_yaml::read(document, &mut inner);
                let open = conf.includes() || super::names_other_files(&conf);
                router::check(&conf, Scope { fargate: None, open, reloads: false }, &mut inner);
                findings.checked = true;
            }
        }
    }
    let text_lines: Vec<&str> = text.lines().collect();
    for mut finding in inner.into_list() {
        let line = text_lines.get(finding.at.line.saturating_sub(1)).copied().unwrap_or_default();
        finding.at = origin.at(finding.at.line.saturating_sub(1), finding.at.column.saturating_sub(1), line);
        findings.push(finding);
    }
}

/// The parts of a configuration in the values of the charts fluent-bit and aws-for-fluent-bit.
const CHART_KEYS: [&str; 14] = [
    "service",
    "inputs",
    "filters",
    "outputs",
    "customParsers",
    "upstream",
    "extraService",
    "extraInputs",
    "additionalInputs",
    "extraFilters",
    "additionalFilters",
    "extraOutputs",
    "additionalOutputs",
    "extraParsers",
];

/// Looks through a whole document for texts that are configurations; returns whether there was one.
pub fn search(document: &Node, lines: &[&str], findings: &mut Findings) -> bool {
    let before = findings.checked;
    findings.checked = false;
    let mut seen = std::collections::HashSet::new();
    let mut open: Vec<&Node> = vec![document];
    while let Some(node) = open.pop() {
        if !seen.insert(std::ptr::from_ref(node)) {
            continue;
        }
        if let Some(options) = firelens_options(node) {
            check_firelens(options, findings);
        }
        for (key, value) in node.pairs() {
            let name = key.text().unwrap_or_default();
            let is_file = name.contains('.');
            if (CHART_KEYS.contains(&name) || is_file) && value.text().is_some() {
                // Parts that are not given come from the chart's defaults.
                check(std::iter::once((if is_file { name } else { "part.conf" }, &**value)), lines, findings);
            }
            if value.text().is_none() {
                open.push(value);
            }
        }
        open.extend(node.items().iter().map(|item| &**item));
    }
    let found = findings.checked;
    findings.checked |= before;
    found
}

/// The options of a container's log configuration, of which FireLens makes an [OUTPUT]; as ECS writes them, CloudFormation, or
/// Compose.
pub fn firelens_options(node: &Node) -> Option<&Node> {
    [("logDriver", "options"), ("LogDriver", "Options"), ("driver", "options")].into_iter().find_map(
        |(driver, options)| {
            let is_firelens = node.get(driver).and_then(|driver| driver.text()) == Some("awsfirelens");
            is_firelens.then(|| node.get(options)).flatten().map(|options| &**options)
        },
    )
}

fn check_firelens(options: &Node, findings: &mut Findings) {
    let word = |node: &Node| Some(Word { text: node.text()?.to_owned(), at: node.at });
    let mut entries: Vec<Entry> = Vec::new();
    for (key, value) in options.pairs() {
        if let (Some(key), Some(value)) = (word(key), word(value)) {
            entries.push(Entry { key, value });
        }
    }
    if entries.is_empty() {
        return;
    }
    // FireLens adds the Match itself.
    let at = |text: &str, at: Place| Word { text: text.to_owned(), at };
    entries.push(Entry { key: at("Match", options.at), value: at("*", options.at) });
    let output = Section { name: "OUTPUT".to_owned(), at: options.at, entries };
    let conf = Conf { sections: vec![output], ..Conf::default() };
    router::check(&conf, Scope { fargate: None, open: true, reloads: false }, findings);
    findings.checked = true;
}
