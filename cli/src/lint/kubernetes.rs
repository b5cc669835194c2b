//! The rules over Kubernetes manifests: aws-logging above all, and every ConfigMap that holds a Fluent Bit configuration.

use std::rc::Rc;

use super::conf::{self, Conf, Entry, Section, Word};
use super::options::near;
use super::router::{self, OwnLog, Scope};
use super::yaml::{Node, Place};
use super::{Findings, rules};
use super::{embedded, fluent_yaml};
use crate::fargate;

/// What a file says about the namespace, for the rule over all files together.
#[derive(Debug, Default)]
pub struct Seen {
    /// The namespace aws-observability.
    pub namespace: bool,
    /// An aws-logging ConfigMap.
    pub aws_logging: Option<Place>,
}

/// Whether the document is a manifest.
pub fn is_manifest(document: &Node) -> bool {
    document.get("kind").is_some() && document.get("apiVersion").is_some()
}

/// The fields of a kustomization (<https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/>).
const KUSTOMIZATION: [&str; 35] = [
    "apiVersion",
    "bases",
    "buildMetadata",
    "commonAnnotations",
    "commonLabels",
    "components",
    "configMapGenerator",
    "configurations",
    "crds",
    "generatorOptions",
    "generators",
    "helmChartInflationGenerator",
    "helmCharts",
    "helmGlobals",
    "images",
    "imageTags",
    "inventory",
    "kind",
    "labels",
    "metadata",
    "namePrefix",
    "nameSuffix",
    "namespace",
    "openapi",
    "patches",
    "patchesJson6902",
    "patchesStrategicMerge",
    "replacements",
    "replicas",
    "resources",
    "secretGenerator",
    "sortOptions",
    "transformers",
    "validators",
    "vars",
];

/// Whether it is a kustomization, which may do without kind and apiVersion.
pub fn is_kustomization(document: &Node) -> bool {
    let known = |key: &Node| key.text().is_some_and(|key| KUSTOMIZATION.contains(&key));
    !document.pairs().is_empty() && document.pairs().iter().all(|(key, _)| known(key))
}

/// Checks one manifest; of a List each of its items.
pub fn check(document: &Node, lines: &[&str], findings: &mut Findings, seen: &mut Seen) {
    match document.get("kind").and_then(|kind| kind.text()) {
        Some("List") => {
            for item in document.get("items").map_or(&[][..], |items| items.items()) {
                check(item, lines, findings, seen);
            }
        }
        Some("Namespace") => check_namespace(document, findings, seen),
        Some("ConfigMap") => check_config_map(document, lines, findings, seen),
        Some(kind) if is_of_operator(document) => check_operator(kind, document, lines, findings),
        // Charts' values inside of other kinds (HelmRelease, Application), and configurations that an operator is given whole.
        Some(_) => {
            embedded::search(document, lines, findings);
        }
        None => {}
    }
}

/// Whether it is a resource of the Fluent Operator: <https://github.com/fluent/fluent-operator/blob/master/docs/fluentbit.md>.
fn is_of_operator(document: &Node) -> bool {
    let version = document.get("apiVersion").and_then(|version| version.text());
    version.is_some_and(|version| version.starts_with("fluentbit.fluent.io/"))
}

/// Checks the custom plugins of an input, a filter or an output, and the output `firehose`. Other plugins are typed fields, which the
/// API server checks.
fn check_operator(kind: &str, document: &Node, lines: &[&str], findings: &mut Findings) {
    let Some(spec) = document.get("spec") else { return };
    let section = match kind.strip_prefix("Cluster").unwrap_or(kind) {
        "Input" => "INPUT",
        "Filter" => "FILTER",
        "Output" => "OUTPUT",
        _ => {
            embedded::search(document, lines, findings);
            return;
        }
    };
    let mut all = Conf::default();
    let filters = spec.get("filters").map_or(&[][..], |filters| filters.items());
    for holder in std::iter::once(spec).chain(filters) {
        let plugin = holder.get("customPlugin");
        let part = |key: &str| plugin.and_then(|plugin| plugin.get(key));
        let mut read = Conf::default();
        if let Some(config) = part("config")
            && let Some(body) = config.text()
        {
            // The operator writes the section's name before it, and indents it.
            let origin = embedded::origin(config, lines).after(1);
            let body: String = body.lines().map(|line| format!("    {line}\n")).collect();
            read = conf::read(&format!("[{section}]\n{body}"), &origin, findings);
        }
        if let Some(config) = part("yamlConfig") {
            read.sections.push(fluent_yaml::section(section, config, findings));
        }
        if section == "OUTPUT"
            && let Some(firehose) = holder.get("firehose")
        {
            read.sections.push(typed_firehose(firehose));
        }
        for (name, key) in [("Match", "match"), ("Match_Regex", "matchRegex"), ("Retry_Limit", "retry_limit")] {
            let Some((text, at)) = spec.get(key).and_then(|value| Some((value.text()?, value.at))) else { continue };
            let word = |text: &str| Word { text: text.to_owned(), at };
            for section in &mut read.sections {
                section.entries.push(Entry { key: word(name), value: word(text) });
            }
        }
        super::check_sections(&read, findings);
        findings.checked |= !read.sections.is_empty();
        all.sections.extend(read.sections);
    }
    // What goes into it, and comes out of it, stands in other resources. The operator changes a configuration by a hot reload.
    router::check(&all, Scope { reloads: true, ..Scope::of(&all, true) }, findings);
}

/// The fields of the operator's output `firehose`, and the options of kinesis_firehose that they become
/// (apis/fluentbit/v1alpha2/plugins/output/firehose_types.go of the operator).
const FIREHOSE: [(&str, &str); 15] = [
    ("region", "region"),
    ("deliveryStream", "delivery_stream"),
    ("timeKey", "time_key"),
    ("timeKeyFormat", "time_key_format"),
    ("dataKeys", "data_keys"),
    ("logKey", "log_key"),
    ("roleARN", "role_arn"),
    ("endpoint", "endpoint"),
    ("stsEndpoint", "sts_endpoint"),
    ("autoRetryRequests", "auto_retry_requests"),
    ("compression", "compression"),
    ("externalID", "external_id"),
    ("profile", "profile"),
    ("simpleAggregation", "simple_aggregation"),
    ("workers", "workers"),
];

/// The section that the operator makes of its output `firehose`. The API server itself refuses a field of another name.
fn typed_firehose(firehose: &Node) -> Section {
    let word = |text: &str, at: Place| Word { text: text.to_owned(), at };
    let mut entries = vec![Entry { key: word("Name", firehose.at), value: word("kinesis_firehose", firehose.at) }];
    for (key, value) in firehose.pairs() {
        let option = FIREHOSE.iter().find(|(field, _)| key.text() == Some(field)).map(|(_, option)| *option);
        if let (Some(option), Some(text)) = (option, value.text()) {
            entries.push(Entry { key: word(option, key.at), value: word(text, value.at) });
        }
    }
    Section { name: "OUTPUT".to_owned(), at: firehose.at, entries }
}

fn metadata<'n>(document: &'n Node, key: &str) -> Option<&'n Rc<Node>> {
    document.get("metadata")?.get(key)
}

fn check_namespace(document: &Node, findings: &mut Findings, seen: &mut Seen) {
    let Some(name) = metadata(document, "name") else { return };
    if name.text() != Some(fargate::NAMESPACE) {
        return;
    }
    seen.namespace = true;
    findings.checked = true;
    let (key, value) = fargate::NAMESPACE_LABEL;
    match metadata(document, "labels").and_then(|labels| labels.get(key)) {
        None => findings.add(&rules::NAMESPACE_LABEL, name.at, format!("there is no label {key}")),
        Some(label) if label.text() != Some(value) => {
            findings.add(
                &rules::NAMESPACE_LABEL,
                label.at,
                format!("the label is {:?}", label.text().unwrap_or_default()),
            );
        }
        Some(_) => {}
    }
}

fn check_config_map(document: &Node, lines: &[&str], findings: &mut Findings, seen: &mut Seen) {
    let name = metadata(document, "name");
    let namespace = metadata(document, "namespace");
    let is_named = name.and_then(|name| name.text()) == Some(fargate::CONFIG_MAP);
    let is_there = namespace.and_then(|namespace| namespace.text()) == Some(fargate::NAMESPACE);
    // kube-root-ca.crt is in every namespace.
    let holds_sections =
        fargate::SECTION_OF_KEY.iter().any(|(key, _)| document.get("data").is_some_and(|data| data.get(key).is_some()));
    match (is_named, is_there) {
        (false, true) if holds_sections => {
            let at = name.map_or(document.at, |name| name.at);
            findings.add(
                &rules::CONFIG_MAP_NAME,
                at,
                format!("it is called {:?}", name.and_then(|n| n.text()).unwrap_or_default()),
            );
        }
        (true, false) => {
            let at = namespace.or(name).map_or(document.at, |node| node.at);
            let is = namespace.and_then(|node| node.text()).unwrap_or("default");
            findings.add(&rules::CONFIG_MAP_NAMESPACE, at, format!("its namespace is {is}"));
        }
        (false, false) => return check_other(document, lines, findings),
        _ => {}
    }
    if !is_named && !holds_sections {
        return;
    }
    seen.aws_logging = Some(name.map_or(document.at, |name| name.at));
    check_aws_logging(document, lines, findings);
}

/// A ConfigMap of a Fluent Bit outside of Fargate: all of `data` is checked, whatever the names of the files.
fn check_other(document: &Node, lines: &[&str], findings: &mut Findings) {
    let files = document.get("data").map_or(&[][..], |data| data.pairs());
    embedded::check(files.iter().map(|(key, value)| (key.text().unwrap_or_default(), &**value)), lines, findings);
}

fn check_aws_logging(document: &Node, lines: &[&str], findings: &mut Findings) {
    findings.checked = true;
    if let Some(binary) = document.get("binaryData") {
        findings.add(&rules::DATA_BINARY, binary.at, "binaryData is there".to_owned());
    }
    let Some(data) = document.get("data").filter(|data| !data.pairs().is_empty()) else {
        findings.add(&rules::DATA_MISSING, document.at, "data is missing or empty".to_owned());
        return;
    };
    findings.start = data.at;
    let mut all = Conf::default();
    let mut own_log = OwnLog::Off;
    let mut characters = 0;
    for (key, value) in data.pairs() {
        let name = key.text().unwrap_or_default();
        characters += value.text().map_or(0, |text| text.chars().count());
        let section = fargate::SECTION_OF_KEY.iter().find(|(known, _)| *known == name);
        if section.is_none() && name != fargate::FLB_LOG_CW {
            let known = fargate::SECTION_OF_KEY.iter().map(|(known, _)| *known).chain([fargate::FLB_LOG_CW]);
            let more = near(name, known).map_or(String::new(), |near| format!(": did you mean {near}?"));
            findings.add(&rules::DATA_KEY, key.at, format!("{name} is not read{more}"));
        }
        let Some(text) = value.string() else {
            findings.add(&rules::DATA_NOT_STRING, value.at, format!("{name} is not a string"));
            if name == fargate::FLB_LOG_CW && value.text() == Some("true") {
                own_log = OwnLog::On;
            }
            continue;
        };
        if name == fargate::FLB_LOG_CW {
            match text {
                "true" => own_log = OwnLog::On,
                "false" => {}
                other => findings.add(&rules::FLB_LOG_CW, value.at, format!("it is {other:?}")),
            }
            continue;
        }
        let read = conf::read(text, &embedded::origin(value, lines), findings);
        check_parts(&read, section.map(|(_, wanted)| (name, *wanted)), findings);
        all.sections.extend(read.sections);
    }
    if characters > fargate::MAX_CHARACTERS {
        findings.add(&rules::CONFIG_MAP_SIZE, data.at, format!("it holds {characters}"));
    } else if characters > fargate::NEAR_MAX_CHARACTERS {
        findings.add(&rules::CONFIG_MAP_NEAR_SIZE, data.at, format!("it holds {characters}"));
    }
    router::check(&all, Scope { fargate: Some(own_log), open: false, parsers: false, reloads: false }, findings);
}

/// Checks whether the parts of a file are allowed in aws-logging; `place` is its key there, and the section that the key is for.
pub fn check_parts(conf: &Conf, place: Option<(&str, &str)>, findings: &mut Findings) {
    for directive in &conf.directives {
        findings.add(&rules::DIRECTIVE_NOT_ALLOWED, directive.at, format!("`{}`", directive.text));
    }
    for section in &conf.sections {
        check_place(section, place, findings);
    }
}

/// Checks whether `section` is allowed there.
fn check_place(section: &Section, place: Option<(&str, &str)>, findings: &mut Findings) {
    let name = section.name.as_str();
    let allowed = fargate::SECTION_OF_KEY.iter().map(|(_, section)| *section);
    match fargate::SECTION_OF_KEY.iter().find(|(_, allowed)| *allowed == name) {
        None if conf::SECTIONS.contains(&name) => {
            findings.add(&rules::SECTION_NOT_ALLOWED, section.at, format!("[{name}] is not yours"));
        }
        None => {
            let more = near(name, allowed).map_or(String::new(), |near| format!(": did you mean [{near}]?"));
            findings.add(&rules::SECTION_UNKNOWN, section.at, format!("there is no [{name}]{more}"));
        }
        Some((right, _)) if place.is_some_and(|(_, wanted)| wanted != name) => {
            let key = place.map_or("", |(key, _)| key);
            findings.add(&rules::SECTION_KEY, section.at, format!("[{name}] is under {key}, not under {right}"));
        }
        Some(_) => {}
    }
}
