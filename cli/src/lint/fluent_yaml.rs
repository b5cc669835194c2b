//! Fluent Bit's YAML format, converted to the sections of the classic one.
//!
//! Vendor's page: <https://docs.fluentbit.io/manual/administration/configuring-fluent-bit/yaml>.

use std::rc::Rc;

use super::conf::{Conf, Entry, Section, Word};
use super::options::near;
use super::yaml::{Node, Value};
use super::{Findings, rules};

/// The keys of the root (src/config_format/flb_cf_yaml.c).
const ROOT: [&str; 12] = [
    "env",
    "parsers",
    "multiline_parsers",
    "stream_processor",
    "plugins",
    "upstream_servers",
    "pipeline",
    "service",
    "customs",
    "includes",
    "extensions",
    "processors",
];
/// The parts of a pipeline, each with its section.
const PIPELINE: [(&str, &str); 3] = [("inputs", "INPUT"), ("filters", "FILTER"), ("outputs", "OUTPUT")];

/// Whether the document is a configuration.
pub fn is_configuration(document: &Node) -> bool {
    document.pairs().iter().any(|(key, _)| key.text().is_some_and(|key| ROOT.contains(&key)))
        && !is_chart_values(document)
}

/// Whether these are values of a Helm chart, which have a `service` and an `env` of their own.
fn is_chart_values(document: &Node) -> bool {
    let service = |key: &str| document.get("service").is_some_and(|service| service.get(key).is_some());
    let list = document.get("env").is_some_and(|env| matches!(env.value, Value::Sequence(_)));
    let other = ["image", "config", "serviceAccount", "rbac", "tolerations", "resources"];
    document.get("pipeline").is_none()
        && (list || service("type") || service("port") || other.into_iter().any(|key| document.get(key).is_some()))
}

/// The document's sections.
pub fn read(document: &Node, findings: &mut Findings) -> Conf {
    let mut conf = Conf::default();
    for (key, value) in document.pairs() {
        let name = key.text().unwrap_or_default();
        match name {
            "service" => conf.sections.push(section("SERVICE", value)),
            "parsers" => list(value, "PARSER", findings, &mut conf),
            "customs" => list(value, "CUSTOM", findings, &mut conf),
            "includes" => conf.directives.push(Word { text: "includes".to_owned(), at: key.at }),
            "plugins" => plugins(value, &mut conf),
            "pipeline" => {
                for (part, entries) in value.pairs() {
                    let name = part.text().unwrap_or_default();
                    match PIPELINE.iter().find(|(known, _)| *known == name) {
                        Some((_, section)) => {
                            conf.routes |= entries.items().iter().any(|entry| entry.get("routes").is_some());
                            list(entries, section, findings, &mut conf);
                        }
                        None => unknown_key(part, PIPELINE.map(|(known, _)| known), findings),
                    }
                }
            }
            _ if ROOT.contains(&name) => {}
            // A custom plugin's section may have any name; a misspelt one resembles a known name.
            _ if near(name, ROOT).is_none() => {}
            _ => unknown_key(key, ROOT, findings),
        }
    }
    conf
}

fn unknown_key(key: &Node, known: impl IntoIterator<Item = &'static str>, findings: &mut Findings) {
    let name = key.text().unwrap_or_default();
    let more = near(name, known).map_or(String::new(), |near| format!(": did you mean {near}?"));
    findings.add(&rules::YAML_KEY, key.at, format!("there is no {name}{more}"));
}

fn list(node: &Rc<Node>, name: &str, findings: &mut Findings, conf: &mut Conf) {
    if !matches!(node.value, Value::Sequence(_)) {
        findings.add(&rules::YAML_SHAPE, node.at, "this is no list".to_owned());
    }
    conf.sections.extend(node.items().iter().map(|item| section(name, item)));
}

/// Each scalar is an entry, and each scalar of a list is one of the same name.
fn section(name: &str, node: &Node) -> Section {
    let mut entries = Vec::new();
    for (key, value) in node.pairs() {
        let Some(text) = key.text() else { continue };
        let word = Word { text: snake_case(text), at: key.at };
        let values = if value.items().is_empty() { std::slice::from_ref(value) } else { value.items() };
        for value in values {
            if let Some(text) = value.text() {
                entries.push(Entry { key: word.clone(), value: Word { text: text.to_owned(), at: value.at } });
            }
        }
    }
    Section { name: name.to_owned(), at: node.at, entries }
}

/// camelCase as Fluent Bit reads it, which has small letters and underscores (flb_cf_key_translate).
pub fn snake_case(key: &str) -> String {
    if !key.starts_with(|c: char| c.is_ascii_lowercase()) || key.contains('_') {
        return key.to_owned();
    }
    let mut out = String::new();
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// `plugins:` is a list of paths.
fn plugins(node: &Node, conf: &mut Conf) {
    let path = |item: &Rc<Node>| {
        let text = item.text()?.to_owned();
        let key = Word { text: "path".to_owned(), at: item.at };
        Some(Entry { key, value: Word { text, at: item.at } })
    };
    // Not in the main file's [PLUGINS]: in YAML that is where it belongs.
    let entries = node.items().iter().filter_map(path).collect();
    conf.sections.push(Section { name: "YAML_PLUGINS".to_owned(), at: node.at, entries });
}
