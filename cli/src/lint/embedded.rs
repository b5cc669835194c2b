//! Configurations inside of other documents: files of a ConfigMap, values of a Helm chart, a task definition of ECS.

use super::conf::{self, Conf, Entry, Origin, Section, Word};
use super::router::{self, Scope};
use super::yaml::{self, Node, Place, ScalarStyle, Value};
use super::{Findings, fluent_yaml};

/// Where the lines of a scalar lie in the file.
pub fn origin<'l>(value: &Node, lines: &'l [&'l str]) -> Origin<'l> {
    match &value.value {
        // A literal block begins with its `|`.
        Value::Scalar { style: ScalarStyle::Literal, .. } => Origin::Block { first_line: value.at.line + 1, lines },
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
        // Other programs' files have sections, too: grafana.ini, my.cnf.
        let own =
            |line: &str| conf::SECTIONS.contains(&line.trim().trim_matches(['[', ']']).to_ascii_uppercase().as_str());
        let named = name == "fluent-bit.conf" || name == PART;
        if text.lines().any(|line| super::is_section_line(line) && (named || own(line))) {
            let read = conf::read(text, &origin(value, lines), findings);
            // The other files are included in an order that only the program knows.
            let scope = Scope::of(&read, name != "fluent-bit.conf");
            super::check_sections(&read, findings);
            router::check(&read, scope, findings);
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
            let aliases = yaml::aliases(text);
            for document in documents.iter().filter(|document| fluent_yaml::is_configuration(document)) {
                let conf = fluent_yaml::read(document, &mut inner);
                fluent_yaml::check_aliases(&aliases, document, &mut inner);
                router::check(&conf, Scope::of(&conf, false), &mut inner);
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

/// How a value is called that is a part of a configuration.
pub const PART: &str = "part.conf";

/// The outputs that the chart aws-for-fluent-bit makes of values.
const CHART_OUTPUTS: [&str; 7] =
    ["cloudWatch", "cloudWatchLogs", "firehose", "kinesis", "elasticsearch", "opensearch", "s3"];

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
        if is_firelens(node) {
            match firelens_options(node) {
                Some(options) => check_firelens(node, options, findings),
                // The output stands in a file of the router's.
                None => findings.checked = true,
            }
        }
        for (key, value) in node.pairs() {
            let name = key.text().unwrap_or_default();
            // The chart makes these outputs itself; its values are its own to check.
            findings.checked |= CHART_OUTPUTS.contains(&name) && value.get("enabled").is_some();
            let is_file = name.contains('.');
            if (CHART_KEYS.contains(&name) || is_file) && value.text().is_some() {
                // Parts that are not given come from the chart's defaults.
                check(std::iter::once((if is_file { name } else { PART }, &**value)), lines, findings);
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
    ["options", "Options"]
        .into_iter()
        .filter(|_| is_firelens(node))
        .find_map(|options| node.get(options))
        .map(|options| &**options)
}

/// Whether it is a container's log configuration for FireLens.
fn is_firelens(node: &Node) -> bool {
    let drivers = ["logDriver", "LogDriver", "driver"];
    drivers.into_iter().any(|driver| node.get(driver).and_then(|driver| driver.text()) == Some("awsfirelens"))
}

/// Options that ECS's log driver reads itself, and hands to no plugin:
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/firelens-taskdef.html>
pub const FIRELENS_OWN: [&str; 3] = ["exclude-pattern", "include-pattern", "log-driver-buffer-limit"];

fn check_firelens(log: &Node, options: &Node, findings: &mut Findings) {
    let word = |node: &Node| Some(Word { text: node.text()?.to_owned(), at: node.at });
    let mut entries: Vec<Entry> = Vec::new();
    for (key, value) in options.pairs() {
        if let (Some(key), Some(value)) = (word(key), word(value))
            && !FIRELENS_OWN.contains(&key.text.as_str())
        {
            entries.push(Entry { key, value });
        }
    }
    // Their values come from Secrets Manager or Parameter Store.
    let secrets = ["secretOptions", "SecretOptions"].into_iter().find_map(|key| log.get(key));
    for secret in secrets.map_or(&[][..], |secrets| secrets.items()) {
        if let Some(name) = ["name", "Name"].into_iter().find_map(|key| word(secret.get(key)?)) {
            let value = Word { text: format!("${{{}}}", name.text), at: name.at };
            entries.push(Entry { key: name, value });
        }
    }
    findings.checked = true;
    // Without options the output stands in a file of the router's; Fluentd's begin with @type.
    if entries.is_empty() || entries.iter().any(|entry| entry.key.text == "@type") {
        return;
    }
    // FireLens adds the Match itself.
    let at = |text: &str, at: Place| Word { text: text.to_owned(), at };
    entries.push(Entry { key: at("Match", options.at), value: at("*", options.at) });
    let output = Section { name: "OUTPUT".to_owned(), at: options.at, entries };
    let conf = Conf { sections: vec![output], ..Conf::default() };
    router::check(&conf, Scope::of(&conf, true), findings);
}
