//! Fluent Bit's YAML format, converted to the sections of the classic one.
//!
//! Vendor's page: <https://docs.fluentbit.io/manual/administration/configuring-fluent-bit/yaml>.

use std::rc::Rc;

use super::conf::{Conf, Entry, Section, Word};
use super::options::near;
use super::yaml::{Node, Place, Value};
use super::{Findings, host, rules};

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

/// Keys of the root that other programs' files have as well.
const COMMON: [&str; 7] = ["env", "extensions", "includes", "plugins", "processors", "service", "customs"];

/// Whether the document is a configuration: by a key that only those have, or by having keys of its root alone.
pub fn is_configuration(document: &Node) -> bool {
    let keys = || document.pairs().iter().filter_map(|(key, _)| key.text());
    let own = |key: &str| key.eq_ignore_ascii_case("pipeline") || (ROOT.contains(&key) && !COMMON.contains(&key));
    let listed = document.get("plugins").is_none_or(|plugins| plugins.pairs().is_empty());
    let alone = || listed && keys().any(|key| ROOT.contains(&key)) && keys().all(|key| near(key, ROOT).is_some());
    (keys().any(own) || alone()) && !is_chart_values(document)
}

/// Whether these are values of a Helm chart, which have a `service` and an `env` of their own.
fn is_chart_values(document: &Node) -> bool {
    let service = |key: &str| document.get("service").is_some_and(|service| service.get(key).is_some());
    let list = document.get("env").is_some_and(|env| matches!(env.value, Value::Sequence(_)));
    let other = ["image", "config", "serviceAccount", "rbac", "tolerations", "resources"];
    document.get("pipeline").is_none()
        && (list || service("type") || service("port") || other.into_iter().any(|key| document.get(key).is_some()))
}

/// The document's sections. Of the shape of each part only what src/config_format/flb_cf_yaml.c accepts is without a finding.
pub fn read(document: &Node, findings: &mut Findings) -> Conf {
    let mut conf = Conf::default();
    if document.text().is_some() || !document.items().is_empty() {
        shape(document, "a configuration is a mapping", findings);
    }
    let mut service = false;
    for (key, value) in document.pairs() {
        let Some(name) = key.text() else {
            shape(key, "a key is a text", findings);
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "service" => {
                if std::mem::replace(&mut service, true) {
                    shape(key, "service stands twice", findings);
                }
                texts(name, value, &["telemetry"], findings);
                conf.sections.push(section("SERVICE", value, &mut Findings::of("")));
            }
            "env" if matches!(value.value, Value::Sequence(_)) => {
                mappings(name, value, findings).iter().for_each(|item| texts(name, item, &[], findings));
            }
            "parsers" => list(name, value, "PARSER", findings, &mut conf),
            "multiline_parsers" => multiline(name, value, findings, &mut conf),
            "customs" => list(name, value, "CUSTOM", findings, &mut conf),
            "includes" => {
                only_texts(name, value, findings);
                conf.directives.push(Word { text: "includes".to_owned(), at: key.at });
            }
            "plugins" => {
                only_texts(name, value, findings);
                plugins(value, &mut conf);
            }
            "pipeline" => pipeline(name, value, findings, &mut conf),
            "stream_processor" => {
                mappings(name, value, findings).iter().for_each(|item| texts(name, item, &[], findings));
            }
            "upstream_servers" => drop(mappings(name, value, findings)),
            "extensions" if matches!(value.value, Value::Mapping(_)) => {}
            // A custom plugin's section may have any name; a misspelt one resembles a known name.
            lower if !ROOT.contains(&lower) && near(name, ROOT).is_some() => unknown_key(key, ROOT, findings),
            _ => texts(name, value, &[], findings),
        }
    }
    conf
}

fn shape(node: &Node, message: &str, findings: &mut Findings) {
    findings.add(&rules::YAML_SHAPE, node.at, message.to_owned());
}

/// Reports those of a text's aliases that stand in a configuration: the host's reader knows none.
pub fn check_aliases(aliases: &[Place], document: &Node, findings: &mut Findings) {
    let first = aliases.partition_point(|at| *at < document.at);
    for at in aliases[first..].iter().take_while(|at| **at <= document.end) {
        findings.add(&rules::YAML_SHAPE, *at, "Fluent Bit knows no aliases: write the value".to_owned());
    }
}

/// Checks that it is a mapping of texts, but for the keys in `more`.
fn texts(name: &str, node: &Node, more: &[&str], findings: &mut Findings) {
    if !matches!(node.value, Value::Mapping(_)) {
        shape(node, &format!("{name} is no mapping"), findings);
    }
    for (key, value) in node.pairs() {
        let known = key.text().is_some_and(|key| more.iter().any(|more| more.eq_ignore_ascii_case(key)));
        if value.text().is_none() && !known {
            shape(value, &format!("{} is no text", key.text().unwrap_or(name)), findings);
        }
    }
}

fn only_texts(name: &str, node: &Node, findings: &mut Findings) {
    if !matches!(node.value, Value::Sequence(_)) || node.items().iter().any(|item| item.text().is_none()) {
        shape(node, &format!("{name} is no list of texts"), findings);
    }
}

/// The mappings of what has to be a list of them.
fn mappings<'n>(name: &str, node: &'n Node, findings: &mut Findings) -> Vec<&'n Rc<Node>> {
    if !matches!(node.value, Value::Sequence(_)) {
        shape(node, &format!("{name} is no list"), findings);
    }
    let (good, bad): (Vec<_>, Vec<_>) = node.items().iter().partition(|item| matches!(item.value, Value::Mapping(_)));
    for item in bad {
        shape(item, &format!("an entry of {name} is no mapping"), findings);
    }
    good
}

fn pipeline(name: &str, node: &Node, findings: &mut Findings, conf: &mut Conf) {
    if !matches!(node.value, Value::Mapping(_)) {
        shape(node, &format!("{name} is no mapping"), findings);
    }
    for (part, entries) in node.pairs() {
        let name = part.text().unwrap_or_default();
        match PIPELINE.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((_, section)) => {
                conf.routes |= entries.items().iter().any(|entry| entry.get("routes").is_some());
                list(name, entries, section, findings, conf);
            }
            None => unknown_key(part, PIPELINE.map(|(known, _)| known), findings),
        }
    }
}

fn unknown_key(key: &Node, known: impl IntoIterator<Item = &'static str>, findings: &mut Findings) {
    let name = key.text().unwrap_or_default();
    let more = near(name, known).map_or(String::new(), |near| format!(": did you mean {near}?"));
    findings.add(&rules::YAML_KEY, key.at, format!("there is no {name}{more}"));
}

fn list(name: &str, node: &Node, kind: &str, findings: &mut Findings, conf: &mut Conf) {
    for item in mappings(name, node, findings) {
        let read = section(kind, item, findings);
        conf.sections.push(read);
        if ["INPUT", "OUTPUT"].contains(&kind)
            && let Some(groups) = item.get("processors")
        {
            processors(groups, findings, conf);
        }
    }
}

/// Each scalar is an entry, and each scalar of a list is one of the same name.
pub fn section(name: &str, node: &Node, findings: &mut Findings) -> Section {
    let mut entries = Vec::new();
    for (key, value) in node.pairs() {
        let Some(text) = key.text() else {
            shape(key, "a key is a text", findings);
            continue;
        };
        let own = match text {
            "processors" => matches!(value.value, Value::Mapping(_)),
            "routes" => true,
            "telemetry" => name == "INPUT",
            _ => false,
        };
        if own {
            continue;
        }
        // A parser's reader knows no lists.
        let lists = !name.ends_with("PARSER") && text != "processors";
        let good = match &value.value {
            Value::Scalar { .. } => text != "processors",
            Value::Sequence(items) => lists && !items.is_empty() && items.iter().all(|item| item.text().is_some()),
            Value::Mapping(_) => name == "PROCESSOR",
        };
        if !good {
            let wanted = if lists { "neither a text nor a list of texts" } else { "no text" };
            shape(value, &format!("{text} is {wanted}"), findings);
        }
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

/// The mapping without a key.
fn without(node: &Node, key: &str) -> Node {
    let pairs = node.pairs().iter().filter(|(name, _)| name.text() != Some(key)).cloned().collect();
    Node { at: node.at, end: node.end, value: Value::Mapping(pairs) }
}

/// The kinds of events that processors have a list for.
const EVENTS: [&str; 3] = ["logs", "metrics", "traces"];

/// `processors` of an input or an output: filters and processors, for each kind of events.
fn processors(groups: &Node, findings: &mut Findings, conf: &mut Conf) {
    for (group, list) in groups.pairs() {
        let name = group.text().unwrap_or_default();
        if !EVENTS.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            unknown_key(group, EVENTS, findings);
            continue;
        }
        for item in mappings(name, list, findings) {
            let logs = name.eq_ignore_ascii_case("logs");
            // A condition is a mapping of its own.
            let plain = without(item, "condition");
            let plugin = item.get("name").and_then(|name| name.text()).unwrap_or_default();
            let kind = if logs && host::plugin("FILTER", plugin).is_some() { "FILTER" } else { "PROCESSOR" };
            conf.processors.push(section(kind, &plain, findings));
        }
    }
}

/// A parser for several lines, whose rules are a list of mappings.
fn multiline(name: &str, node: &Node, findings: &mut Findings, conf: &mut Conf) {
    for item in mappings(name, node, findings) {
        let mut read = section("MULTILINE_PARSER", &without(item, "rules"), findings);
        for rule in item.get("rules").map_or(Vec::new(), |rules| mappings("rules", rules, findings)) {
            texts("a rule", rule, &[], findings);
            let word = |key: &str| rule.get(key).and_then(|value| Some((value.text()?, value.at)));
            match (word("state"), word("regex"), word("next_state")) {
                (Some(state), Some(regex), Some(next)) => {
                    // As the classic format has it.
                    let text = format!("\"{}\" \"{}\" \"{}\"", state.0, regex.0.replace('"', "\\\""), next.0);
                    let key = Word { text: "rule".to_owned(), at: rule.at };
                    read.entries.push(Entry { key, value: Word { text, at: regex.1 } });
                }
                _ => findings.add(&rules::ARITY, rule.at, "a rule needs state, regex and next_state".to_owned()),
            }
        }
        conf.sections.push(read);
    }
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
