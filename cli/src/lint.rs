//! `kubehose lint`: finds, before anything is applied, what would show only as a pod without logs.

mod conf;
mod fluent_yaml;
mod host;
mod kubernetes;
pub mod options;
mod pattern;
mod plugins;
mod regex;
mod report;
mod router;
pub mod rules;
mod yaml;

use std::collections::HashSet;
use std::io::Read as _;
use std::path::Path;

use clap::{Args as ClapArgs, ValueEnum};

use crate::verdict::{Failure, Outcome, Verdict, note, print};
use conf::{Conf, Origin};
use kubernetes::Seen;
use router::Scope;
use rules::{Rule, Severity};
use yaml::Place;

pub use conf::Section;

/// Check aws-logging manifests and Fluent Bit configurations.
///
/// Manifests may hold anything; what counts is aws-logging, its namespace, and ConfigMaps with a Fluent Bit configuration.
/// The exit code is 1 when there is a finding of severity error.
#[derive(ClapArgs)]
#[command(after_help = "Examples:
  kubehose lint aws-logging.yaml fluent-bit.conf
  kubectl get configmap -n aws-observability aws-logging -o yaml | kubehose lint --format github -
  kubehose lint --rules")]
pub struct Args {
    /// Manifests, classic or YAML configurations; `-` is stdin
    #[arg(value_name = "FILE", required_unless_present = "rules")]
    files: Vec<String>,
    /// How the findings are written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// List the rules instead
    #[arg(long)]
    rules: bool,
}

/// How the findings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Github,
    Sarif,
}

/// What was found, where.
#[derive(Debug)]
pub struct Finding {
    pub file: String,
    pub at: Place,
    pub rule: &'static Rule,
    pub message: String,
}

/// What was found in one file.
#[derive(Debug)]
pub struct Findings {
    file: String,
    list: Vec<Finding>,
    /// Where a finding about the whole stands.
    start: Place,
}

impl Findings {
    fn of(file: &str) -> Self {
        Self { file: file.to_owned(), list: Vec::new(), start: Place { line: 1, column: 1 } }
    }

    fn add(&mut self, rule: &'static Rule, at: Place, message: String) {
        if self.list.len() == MAX_FINDINGS {
            return;
        }
        self.list.push(Finding { file: self.file.clone(), at, rule, message });
    }

    fn add_at_start(&mut self, rule: &'static Rule, message: String) {
        self.add(rule, self.start, message);
    }
}

/// More of one file helps nobody; the first ones are listed.
const MAX_FINDINGS: usize = 200;

/// More than any configuration: the API server takes no ConfigMap above 1 MiB.
pub const MAX_BYTES: u64 = 2 << 20;

/// Runs `kubehose lint`.
pub fn run(args: &Args) -> Outcome {
    if args.rules {
        return print(&table());
    }
    let mut files = Vec::new();
    for file in &args.files {
        files.push((file.as_str(), read(file)?));
    }
    let findings = check(files.iter().map(|(name, bytes)| (*name, bytes.as_slice())));
    let text = match args.format {
        Format::Text => crate::verdict::coloured(&report::text(&findings)),
        Format::Json => report::json(&findings),
        Format::Github => report::github(&findings),
        Format::Sarif => report::sarif(&findings),
    };
    print(&text)?;
    let errors = findings.iter().filter(|finding| finding.rule.severity == Severity::Error).count();
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    note(&format!(
        "{}: {}, {}",
        plural(files.len(), "file"),
        plural(errors, "error"),
        plural(findings.len() - errors, "warning")
    ));
    Ok(if errors > 0 { Verdict::Findings } else { Verdict::Fine })
}

fn table() -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["rule", "severity", "finds", "cure"]);
    for rule in rules::ALL {
        table.add_row([rule.id, rule.severity.word(), rule.finds, rule.fix]);
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The bytes of a file, or of stdin, no more than one over the limit.
fn read(file: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let result = match file {
        "-" => std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes),
        path => std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)),
    };
    result.map_err(|error| Failure::new(format!("cannot read {file}: {error}")))?;
    Ok(bytes)
}

/// What `migrate` works on.
pub enum Migration {
    Outputs(Vec<Section>),
    /// A Kubernetes manifest, which is another matter.
    Manifest,
    Broken(String),
}

/// The sections of a configuration, whichever format it is in.
pub fn outputs(name: &str, text: &str) -> Migration {
    let mut findings = Findings::of(name);
    let sections = if is_classic(name, text) {
        conf::read(text, &Origin::File, &mut findings).sections
    } else {
        match yaml::documents(text) {
            Err(fault) => return Migration::Broken(fault.what),
            Ok(documents) if documents.iter().any(|document| kubernetes::is_manifest(document)) => {
                return Migration::Manifest;
            }
            Ok(documents) => {
                documents.iter().flat_map(|document| fluent_yaml::read(document, &mut findings).sections).collect()
            }
        }
    };
    match findings.list.into_iter().find(|finding| finding.rule.severity == Severity::Error) {
        Some(finding) => Migration::Broken(format!("line {}: {}", finding.at.line, finding.message)),
        None => Migration::Outputs(sections),
    }
}

/// Whether the text is in the classic format.
fn is_classic(name: &str, text: &str) -> bool {
    let is_yaml_name = Path::new(name).extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#')).unwrap_or_default();
    ((first.starts_with('@') || is_section_line(first)) && !is_yaml_name) || name.ends_with(".conf")
}

/// All findings over `files`, in the order of the files and of their lines.
pub fn check<'f>(files: impl Iterator<Item = (&'f str, &'f [u8])>) -> Vec<Finding> {
    let mut all = Vec::new();
    let mut namespace_seen = false;
    let mut unseen = Vec::new();
    for (name, bytes) in files {
        let mut findings = Findings::of(if name == "-" { "stdin" } else { name });
        let seen = check_file(name, bytes, &mut findings);
        namespace_seen |= seen.namespace;
        if let Some(at) = seen.aws_logging {
            unseen.push((findings.file.clone(), at));
        }
        findings.list.sort_by_key(|finding| finding.at);
        all.extend(findings.list);
    }
    if !namespace_seen {
        for (file, at) in unseen {
            let message = "no namespace is among these files".to_owned();
            let finding = Finding { file: file.clone(), at, rule: &rules::NAMESPACE_UNSEEN, message };
            let index = all.iter().position(|other| other.file == file && other.at > at).unwrap_or(all.len());
            all.insert(index, finding);
        }
    }
    all
}

/// Whether a line opens a section of the classic format.
fn is_section_line(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('[')
        && line.ends_with(']')
        && line.len() > 2
        && line[1..line.len() - 1].bytes().all(|b| b.is_ascii_alphabetic() || b == b'_')
}

/// Whether `[SERVICE]` names files with parsers.
fn names_other_files(conf: &Conf) -> bool {
    conf.sections.iter().any(|section| section.name == "SERVICE" && section.get("parsers_file").is_some())
}

fn check_file(name: &str, bytes: &[u8], findings: &mut Findings) -> Seen {
    let mut seen = Seen::default();
    let start = findings.start;
    if bytes.len() as u64 > MAX_BYTES {
        findings.add(&rules::NOT_TEXT, start, format!("it is larger than {} MiB", MAX_BYTES >> 20));
        return seen;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => text,
        _ => {
            findings.add(&rules::NOT_TEXT, start, "it is not UTF-8".to_owned());
            return seen;
        }
    };
    if is_classic(name, text) {
        let conf = conf::read(text, &Origin::File, findings);
        check_classic(&conf, findings);
        return seen;
    }
    // YAML may begin with a byte order mark, the classic format may not.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.lines().collect();
    let documents = match yaml::documents(text) {
        Ok(documents) => documents,
        Err(fault) => {
            findings.add(&rules::YAML_SYNTAX, fault.at, fault.what);
            return seen;
        }
    };
    if documents.is_empty() {
        findings.add(&rules::UNKNOWN_DOCUMENT, start, "it is empty".to_owned());
    }
    for document in &documents {
        let configuration = !kubernetes::is_manifest(document) && fluent_yaml::is_configuration(document);
        check_duplicates(document, configuration, findings);
        if kubernetes::is_manifest(document) {
            kubernetes::check(document, &lines, findings, &mut seen);
        } else if configuration {
            let conf = fluent_yaml::read(document, findings);
            let open = conf.includes() || names_other_files(&conf);
            router::check(&conf, Scope { fargate: None, open }, findings);
        } else if !document.text().is_some_and(|text| text.is_empty() || text == "~") {
            findings.add(
                &rules::UNKNOWN_DOCUMENT,
                document.at,
                "neither kind and apiVersion nor a pipeline".to_owned(),
            );
        }
    }
    seen
}

fn check_classic(conf: &Conf, findings: &mut Findings) {
    for section in &conf.sections {
        if !conf::SECTIONS.contains(&section.name.as_str()) && section.name != "NODE" {
            let more = options::near(&section.name, conf::SECTIONS)
                .map_or(String::new(), |near| format!(": did you mean [{near}]?"));
            findings.add(&rules::SECTION_UNKNOWN, section.at, format!("there is no [{}]{more}", section.name));
        }
    }
    let open = conf.includes() || names_other_files(conf);
    router::check(conf, Scope { fargate: None, open }, findings);
}

/// Keys that stand twice in one mapping; shared nodes are looked at once. Of a Fluent Bit configuration, which uses both, only
/// those of the root and of the pipeline count.
fn check_duplicates(document: &yaml::Node, configuration: bool, findings: &mut Findings) {
    if configuration {
        return;
    }
    let mut seen = HashSet::new();
    let mut open: Vec<&yaml::Node> = vec![document];
    while let Some(node) = open.pop() {
        if !seen.insert(std::ptr::from_ref(node)) {
            continue;
        }
        let mut keys = HashSet::new();
        for (key, value) in node.pairs() {
            if let Some(name) = key.text()
                && !keys.insert(name)
            {
                findings.add(&rules::YAML_DUPLICATE_KEY, key.at, format!("{name} stands twice"));
            }
            if value.text().is_none() {
                open.push(value);
            }
        }
        open.extend(node.items().iter().filter(|item| item.text().is_none()).map(|item| &**item));
    }
}
