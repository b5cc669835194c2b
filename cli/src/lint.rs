//! `kubehose lint`: finds, before anything is applied, faults that would show only as missing logs.

pub mod conf;
pub mod embedded;
pub mod fluent_yaml;
mod host;
pub mod kubernetes;
pub mod options;
mod parsers;
mod pattern;
mod plugins;
pub mod reader;
mod regex;
mod report;
mod required;
pub mod router;
pub mod rules;
mod terraform;
pub mod yaml;

use std::cell::LazyCell;
use std::collections::{HashSet, VecDeque};
use std::io::Read as _;
use std::path::Path;

use clap::{Args as ClapArgs, ValueEnum};

use crate::verdict::{Failure, Outcome, Verdict, note, plural, print};
use conf::{Conf, Origin};
use kubernetes::Seen;
use router::Scope;
use rules::{Rule, Severity};
use yaml::Place;

/// Check aws-logging manifests and Fluent Bit configurations.
///
/// Manifests may hold anything; lint checks aws-logging, its namespace, ConfigMaps with a Fluent Bit configuration (also the files of a
/// kustomization's generators), values of Helm charts, outputs of the Fluent Operator, heredocs of Terraform, and ECS task
/// definitions. A line
/// `# kubehose-lint: ignore RULE` silences a rule for its file.
#[derive(ClapArgs)]
#[command(after_help = "Exit codes:
  0  nothing at or above --fail-on
  1  findings at or above --fail-on
  2  a file cannot be read, or the command line is wrong
  3  nothing was there to check (with --strict)

Examples:
  kubehose lint aws-logging.yaml fluent-bit.conf
  kubehose lint --target fargate output.conf filters.conf
  kubectl get configmap -n aws-observability aws-logging -o yaml | kubehose lint --format github -
  kubehose lint --rules")]
pub struct Args {
    /// Manifests, classic or YAML configurations, folders with them, in which other files are left out; `-` is stdin
    #[arg(value_name = "FILE", required_unless_present = "rules")]
    files: Vec<String>,
    /// How the findings are written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Do not report this rule (can be repeated)
    #[arg(long, value_name = "RULE", value_parser = parse_rule)]
    ignore: Vec<&'static Rule>,
    /// The lowest severity that makes the exit code 1
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t = FailOn::Error)]
    fail_on: FailOn,
    /// Exit with 3 when a file has nothing to check
    #[arg(long)]
    strict: bool,
    /// What the classic files are for: a router of your own, or EKS Fargate's
    #[arg(long, value_enum, default_value_t = Target::Own)]
    target: Target,
    /// List the rules instead
    #[arg(long)]
    rules: bool,
}

/// From which severity on the exit code is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FailOn {
    Warning,
    Error,
}

/// What bare classic files are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    Own,
    Fargate,
}

/// The rule of that name.
fn parse_rule(id: &str) -> Result<&'static Rule, String> {
    rules::ALL.iter().copied().find(|rule| rule.id == id).ok_or_else(|| {
        let near = options::near(id, rules::ALL.iter().map(|rule| rule.id));
        let more = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
        format!("there is no such rule{more} (kubehose lint --rules lists them)")
    })
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
    /// The place of a finding about the whole file.
    start: Place,
    /// Whether there was anything to check.
    checked: bool,
    /// How many findings are over the cap.
    left_off: usize,
}

impl Findings {
    fn of(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            list: Vec::new(),
            start: Place { line: 1, column: 1 },
            checked: false,
            left_off: 0,
        }
    }

    /// Adds the findings of a part of the same file, with places within that part.
    fn inner(&self) -> Self {
        Self::of(&self.file)
    }

    /// Whether more findings would only be counted.
    fn is_full(&self) -> bool {
        self.list.len() == MAX_FINDINGS
    }

    fn into_list(self) -> Vec<Finding> {
        self.list
    }

    fn push(&mut self, finding: Finding) {
        if self.list.len() == MAX_FINDINGS {
            self.left_off += 1;
            return;
        }
        self.list.push(finding);
    }

    fn add(&mut self, rule: &'static Rule, at: Place, message: String) {
        self.push(Finding { file: self.file.clone(), at, rule, message });
    }

    fn add_at_start(&mut self, rule: &'static Rule, message: String) {
        self.add(rule, self.start, message);
    }
}

/// The most findings that are listed for one file; more are only counted.
const MAX_FINDINGS: usize = 200;

/// The most bytes of a file: more than any configuration, because the API server accepts no ConfigMap above 1 MiB.
pub const MAX_BYTES: u64 = 2 << 20;

/// Runs `kubehose lint`.
pub fn run(args: &Args) -> Outcome {
    if args.rules {
        return print(&table());
    }
    let mut files = Vec::new();
    let mut unreadable = 0;
    let mut names: VecDeque<String> = args.files.iter().flat_map(|name| files_of(name)).collect();
    // What is named itself is meant, the rest was found.
    let found: HashSet<String> = names.iter().filter(|name| !args.files.contains(name)).cloned().collect();
    let mut seen: HashSet<String> = names.iter().cloned().collect();
    let mut generators = HashSet::new();
    while let Some(name) = names.pop_front() {
        match read(&name) {
            Ok(bytes) => {
                let generated = generated_from(&name, &bytes);
                if !generated.is_empty() {
                    generators.insert(name.clone());
                }
                names.extend(generated.into_iter().filter(|file| seen.insert(file.clone())));
                files.push((name, bytes));
            }
            Err(failure) => {
                note(&format!("error: {failure}"));
                unreadable += 1;
            }
        }
    }
    let mut report = check_all(files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())), args.target);
    report.unchecked.retain(|name| !generators.contains(name));
    report.leave_unknown(&found);
    let findings: Vec<Finding> = report
        .findings
        .into_iter()
        .filter(|finding| !args.ignore.iter().any(|ignored| ignored.id == finding.rule.id))
        .collect();
    let text = match args.format {
        Format::Text => crate::verdict::coloured(&report::text(&findings)),
        Format::Json => report::json(&findings),
        Format::Github => report::github(&findings),
        Format::Sarif => report::sarif(&findings),
    };
    print(&text)?;
    let errors = findings.iter().filter(|finding| finding.rule.severity == Severity::Error).count();
    for (file, count) in &report.left_off {
        note(&format!("{file}: {} more not listed", plural(*count, "finding")));
    }
    for file in &report.unchecked {
        note(&format!("{file}: nothing to check: there is no Fluent Bit configuration in it"));
    }
    note(&format!(
        "{}: {}, {}",
        plural(files.len(), "file"),
        plural(errors, "error"),
        plural(findings.len() - errors, "warning")
    ));
    if unreadable > 0 {
        return Err(Failure::new(format!("{} could not be read", plural(unreadable, "file"))));
    }
    let failing = match args.fail_on {
        FailOn::Error => errors,
        FailOn::Warning => findings.len(),
    };
    Ok(match failing {
        0 if args.strict && !report.unchecked.is_empty() => Verdict::Nothing,
        0 => Verdict::Fine,
        _ => Verdict::Findings,
    })
}

/// The files that a name stands for: of a folder, those below it that may hold a configuration, in the order of their names.
fn files_of(name: &str) -> Vec<String> {
    if name == "-" || !Path::new(name).is_dir() {
        return vec![name.to_owned()];
    }
    let mut found = Vec::new();
    let mut open = vec![Path::new(name).to_owned()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            // Reading it says why it cannot be read.
            found.push(folder.display().to_string());
            continue;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            let wanted =
                path.extension().is_some_and(|extension| ["conf", "yaml", "yml"].iter().any(|e| extension == *e));
            let wanted = wanted || is_terraform_with_sections(&path);
            // A link may lead back up.
            if path.is_dir() && !hidden && !path.is_symlink() {
                open.push(path);
            } else if wanted && path.is_file() {
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// Whether it is one of Terraform's files, most of which have nothing to do with logs, with something like a configuration.
fn is_terraform_with_sections(path: &Path) -> bool {
    terraform::is_terraform(&path.to_string_lossy())
        && std::fs::read_to_string(path)
            .is_ok_and(|text| text.lines().any(|line| is_section_line(line) || line.trim_end() == "pipeline:"))
}

/// The configurations of which a kustomization makes ConfigMaps.
fn generated_from(name: &str, bytes: &[u8]) -> Vec<String> {
    let path = Path::new(name);
    let is_kustomization = path.file_name().is_some_and(|name| {
        ["kustomization.yaml", "kustomization.yml", "Kustomization"].iter().any(|known| name == *known)
    });
    let Some(documents) = std::str::from_utf8(bytes).ok().filter(|_| is_kustomization).map(yaml::documents) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for document in documents.unwrap_or_default() {
        for generator in document.get("configMapGenerator").map_or(&[][..], |list| list.items()) {
            for file in generator.get("files").map_or(&[][..], |files| files.items()) {
                let Some(file) = file.text() else { continue };
                // KEY=PATH, or a path whose last part is the key.
                let (key, file) = file.split_once('=').unwrap_or((file, file));
                let is_configuration = [key, file].iter().any(|name| {
                    Path::new(name)
                        .extension()
                        .is_some_and(|end| ["conf", "yaml", "yml"].iter().any(|known| end == *known))
                });
                if is_configuration {
                    found.push(path.with_file_name(file).display().to_string());
                }
            }
        }
    }
    found
}

fn table() -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["rule", "severity", "finds", "fix"]);
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

/// The errors of a configuration that would stop Fluent Bit's start. `open`: parts of it may
/// be in other files. Comments that silence a rule are for `lint` alone.
pub fn refusals(name: &str, text: &str, open: bool) -> Vec<Finding> {
    let mut findings = Findings::of(name);
    if is_classic(name, text) {
        let conf = conf::read(text, &Origin::File, &mut findings);
        check_sections(&conf, &mut findings);
        check_own(&conf, open, &mut findings);
    } else {
        match yaml::documents(text) {
            Err(fault) => findings.add(&rules::YAML_SYNTAX, fault.at, fault.what),
            Ok(documents) => {
                let aliases = yaml::aliases(text);
                for document in &documents {
                    let conf = fluent_yaml::read(document, &mut findings);
                    fluent_yaml::check_aliases(&aliases, document, &mut findings);
                    check_own(&conf, open, &mut findings);
                }
            }
        }
    }
    findings.list.retain(|finding| rules::refuses(finding.rule));
    findings.list
}

/// The sections of a classic text, and what Fluent Bit's reader of it would refuse.
pub fn sections(text: &str) -> (Conf, Vec<Finding>) {
    let mut findings = Findings::of("");
    let conf = conf::read(text, &Origin::File, &mut findings);
    (conf, findings.list)
}

/// Checks a router that is not EKS Fargate's.
fn check_own(conf: &Conf, open: bool, findings: &mut Findings) {
    router::check(conf, Scope::of(conf, open), findings);
}

/// Whether the text is in the classic format.
pub fn is_classic(name: &str, text: &str) -> bool {
    let is_yaml_name = Path::new(name).extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#')).unwrap_or_default();
    ((first.starts_with('@') || is_section_line(first)) && !is_yaml_name) || name.ends_with(".conf")
}

/// The findings over several files.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order of the files and of their lines.
    pub findings: Vec<Finding>,
    /// Files with more findings than are listed, and how many more.
    pub left_off: Vec<(String, usize)>,
    /// Files in which there was nothing to check.
    pub unchecked: Vec<String>,
    /// Files with `{{` in them, which may be YAML only once a template engine has filled them in.
    templates: HashSet<String>,
}

impl Report {
    /// Files that were found in a folder and are no configuration become files without anything to check.
    fn leave_unknown(&mut self, found: &HashSet<String>) {
        let known = |finding: &Finding| match finding.rule.id {
            id if id == rules::UNKNOWN_DOCUMENT.id => false,
            id if id == rules::YAML_SYNTAX.id => !self.templates.contains(&finding.file),
            _ => true,
        };
        let with_others: HashSet<String> =
            self.findings.iter().filter(|finding| known(finding)).map(|finding| finding.file.clone()).collect();
        let mut left = Vec::new();
        self.findings.retain(|finding| {
            let leave = found.contains(&finding.file) && !with_others.contains(&finding.file);
            if leave && left.last() != Some(&finding.file) {
                left.push(finding.file.clone());
            }
            !leave
        });
        self.unchecked.extend(left);
    }
}

/// All findings over `files`, in the order of the files and of their lines.
pub fn check<'f>(files: impl Iterator<Item = (&'f str, &'f [u8])>) -> Vec<Finding> {
    check_all(files, Target::Own).findings
}

/// Checks `files`, the classic ones by the rules of `target`.
pub fn check_all<'f>(files: impl Iterator<Item = (&'f str, &'f [u8])>, target: Target) -> Report {
    let mut report = Report::default();
    let mut namespace_seen = false;
    let mut unseen = Vec::new();
    for (name, bytes) in files {
        let mut findings = Findings::of(if name == "-" { "stdin" } else { name });
        let seen = check_file(name, bytes, &mut findings, target);
        namespace_seen |= seen.namespace;
        if let Some(at) = seen.aws_logging {
            unseen.push((findings.file.clone(), at));
        }
        let ignored = ignored_in(bytes);
        findings.list.retain(|finding| !ignored.contains(&finding.rule.id));
        findings.list.sort_by_key(|finding| finding.at);
        let text = String::from_utf8_lossy(bytes);
        if text.contains("{{") && !is_classic(name, &text) {
            report.templates.insert(findings.file.clone());
        }
        if !findings.checked && findings.list.is_empty() {
            report.unchecked.push(findings.file.clone());
        }
        if findings.left_off > 0 {
            report.left_off.push((findings.file.clone(), findings.left_off));
        }
        report.findings.extend(findings.list);
    }
    if !namespace_seen {
        for (file, at) in unseen {
            let message = "no namespace is among these files".to_owned();
            let finding = Finding { file: file.clone(), at, rule: &rules::NAMESPACE_UNSEEN, message };
            let all = &mut report.findings;
            let index = all.iter().position(|other| other.file == file && other.at > at).unwrap_or(all.len());
            all.insert(index, finding);
        }
    }
    report
}

/// The rules that comments `# kubehose-lint: ignore RULE …` of a file silence.
fn ignored_in(bytes: &[u8]) -> Vec<&'static str> {
    let text = String::from_utf8_lossy(bytes);
    text.lines()
        .filter_map(|line| line.split_once("# kubehose-lint: ignore ").map(|(_, names)| names))
        .flat_map(|names| names.split([' ', ',']))
        .filter_map(|name| parse_rule(name.trim()).ok())
        .map(|rule| rule.id)
        .collect()
}

/// Whether a line opens a section of the classic format.
pub fn is_section_line(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('[')
        && line.ends_with(']')
        && line.len() > 2
        && line[1..line.len() - 1].bytes().all(|b| b.is_ascii_alphabetic() || b == b'_')
}

fn check_file(name: &str, bytes: &[u8], findings: &mut Findings, target: Target) -> Seen {
    let mut seen = Seen::default();
    let start = findings.start;
    if bytes.len() as u64 > MAX_BYTES {
        findings.add(&rules::NOT_TEXT, start, format!("it is larger than {} MiB", MAX_BYTES >> 20));
        return seen;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => {
            findings.add(&rules::NOT_TEXT, start, "it is not UTF-8".to_owned());
            return seen;
        }
    };
    if let Some(line) = text.lines().position(|line| line.contains('\0')) {
        // It is UTF-8, but both readers of Fluent Bit end at it.
        findings.add(&rules::NOT_TEXT, Place { line: line + 1, column: 1 }, "there is a NUL byte in it".to_owned());
        return seen;
    }
    if terraform::is_terraform(name) {
        terraform::check(text, findings);
        return seen;
    }
    if is_classic(name, text) {
        let conf = conf::read(text, &Origin::File, findings);
        match target {
            Target::Own => check_classic(&conf, findings),
            Target::Fargate => check_fargate(&conf, findings),
        }
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
    // Of comments alone there is nothing to check, and nothing wrong with them.
    if text.trim().is_empty() {
        findings.add(&rules::UNKNOWN_DOCUMENT, start, "it is empty".to_owned());
    }
    let aliases = LazyCell::new(|| yaml::aliases(text));
    for document in &documents {
        let configuration = !kubernetes::is_manifest(document) && fluent_yaml::is_configuration(document);
        check_duplicates(document, configuration, findings);
        if kubernetes::is_manifest(document) {
            kubernetes::check(document, &lines, findings, &mut seen);
        } else if configuration {
            let conf = fluent_yaml::read(document, findings);
            fluent_yaml::check_aliases(&aliases, document, findings);
            findings.checked = true;
            check_own(&conf, false, findings);
        } else if !embedded::search(document, &lines, findings)
            && !document.text().is_some_and(|text| text.is_empty() || text == "~")
            && !kubernetes::is_kustomization(document)
        {
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
    findings.checked = true;
    check_sections(conf, findings);
    check_own(conf, false, findings);
}

/// One of the files of aws-logging by itself: the others are not seen.
fn check_fargate(conf: &Conf, findings: &mut Findings) {
    findings.checked = true;
    kubernetes::check_parts(conf, None, findings);
    router::check(
        conf,
        Scope { fargate: Some(router::OwnLog::Off), open: true, parsers: true, reloads: false },
        findings,
    );
}

/// Sections that do not exist.
fn check_sections(conf: &Conf, findings: &mut Findings) {
    for section in &conf.sections {
        if !conf::SECTIONS.contains(&section.name.as_str()) && section.name != "NODE" {
            let more = options::near(&section.name, conf::SECTIONS)
                .map_or(String::new(), |near| format!(": did you mean [{near}]?"));
            findings.add(&rules::SECTION_UNKNOWN, section.at, format!("there is no [{}]{more}", section.name));
        }
    }
}

/// Keys that one mapping has twice; shared nodes are checked once. Not for a Fluent Bit configuration, which uses both.
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
