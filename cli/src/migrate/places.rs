//! Where configurations are kept: in a file of their own, in ConfigMaps, in the values of charts, in task definitions of ECS.

use std::collections::HashSet;

use saphyr_parser::ScalarStyle;

use super::configuration::{self, Notes, Refused, Rewritten};
use super::edit::{Edits, quoted};
use super::options::Around;
use crate::lint::conf::Origin;
use crate::lint::yaml::{self, Node, Value};
use crate::lint::{self, fluent_yaml, kubernetes};
use crate::{fargate, lint::rules};

/// Rewrites whatever the file is.
pub fn rewrite(name: &str, text: &str) -> Result<Rewritten, Refused> {
    if lint::is_classic(name, text) {
        return configuration::rewrite(name, text, false);
    }
    // YAML may begin with a byte order mark.
    let (mark, body) = text.strip_prefix('\u{feff}').map_or(("", text), |body| ("\u{feff}", body));
    let documents = yaml::documents(body).map_err(|fault| Refused::Wrong(fault.at.line, fault.what))?;
    let is_own = |document: &Node| !kubernetes::is_manifest(document) && fluent_yaml::is_configuration(document);
    let mut new = if documents.iter().any(|document| is_own(document)) {
        configuration::rewrite(name, body, false)?
    } else {
        documents_with_more(name, body, &documents)?
    };
    new.text.insert_str(0, mark);
    Ok(new)
}

/// What holds configurations among other things.
struct Holder<'t> {
    edits: Edits<'t>,
    lines: Vec<&'t str>,
    notes: Notes,
    json: bool,
    found: bool,
    /// Why a part was left alone, if nothing else is found.
    passed: Option<(usize, String)>,
}

fn documents_with_more(name: &str, text: &str, documents: &[std::rc::Rc<Node>]) -> Result<Rewritten, Refused> {
    let mut holder = Holder {
        edits: Edits::new(text),
        lines: text.lines().collect(),
        notes: Notes::new(),
        json: text.trim_start().starts_with(['{', '[']),
        found: false,
        passed: None,
    };
    for document in documents {
        holder.search(document)?;
    }
    if !holder.found {
        return Err(holder.passed.map_or(Refused::Nothing, |(line, why)| Refused::Wrong(line, why)));
    }
    let new = holder.edits.apply();
    // What was read as one file is one still, and the task definitions in it are in order.
    let findings = lint::check([(name, new.as_bytes())].into_iter());
    match findings.into_iter().find(|finding| rules::refuses(finding.rule)) {
        Some(finding) => Err(Refused::Wrong(finding.at.line, format!("{} ({})", finding.message, finding.rule.id))),
        None => Ok(Rewritten { text: new, notes: holder.notes }),
    }
}

impl Holder<'_> {
    fn search(&mut self, document: &Node) -> Result<(), Refused> {
        let mut seen = HashSet::new();
        // In the order of the file, for the sake of the notes.
        let mut open: Vec<(&Node, &str)> = vec![(document, "")];
        while let Some((node, name)) = open.pop() {
            if !seen.insert(std::ptr::from_ref(node)) {
                continue;
            }
            if is_aws_logging(node) {
                self.pass(
                    node,
                    "EKS Fargate loads no plugin, so aws-logging stays; kubehose manifest writes its filters",
                );
                continue;
            }
            if let Some(options) = firelens_options(node) {
                let around = Around { firelens: true, ..Around::default() };
                self.found |= configuration::mapping(&mut self.edits, options, around, self.json, &mut self.notes)?;
                continue;
            }
            match &node.value {
                Value::Scalar { text, style } => self.text(node, name, text, *style)?,
                Value::Sequence(items) => open.extend(items.iter().rev().map(|item| (&**item, ""))),
                Value::Mapping(pairs) => {
                    for (key, value) in pairs.iter().rev() {
                        let name = key.text().unwrap_or_default();
                        if name == "firehose" && value.pairs().len() > 1 {
                            self.pass(
                                key,
                                "the chart or the operator makes this output itself: switch it off, and write an [OUTPUT] kubehose \
                                 among the additional outputs",
                            );
                        }
                        open.push((value, name));
                    }
                }
            }
        }
        Ok(())
    }

    fn pass(&mut self, node: &Node, why: &str) {
        self.passed.get_or_insert_with(|| (node.at.line, why.to_owned()));
    }

    /// A text that may be a configuration.
    fn text(&mut self, node: &Node, name: &str, text: &str, style: ScalarStyle) -> Result<(), Refused> {
        if !text.to_ascii_lowercase().contains("firehose") {
            return Ok(());
        }
        let file = match configuration::has_sections(text) {
            true => "part.conf",
            false if configuration::is_pipeline(text) => "part.yaml",
            false => return Ok(()),
        };
        let line = |inner: usize| match configuration::origin(node, &self.lines) {
            Origin::Block { first_line, .. } => first_line + inner.saturating_sub(1),
            _ => node.at.line,
        };
        if text.lines().any(|line| line.trim_start().starts_with("{{")) {
            let why = "a template decides here which lines there are: give what it makes (helm template)";
            return Err(Refused::Wrong(node.at.line, why.to_owned()));
        }
        // Its parts may be in other texts of the same document.
        let new = match configuration::rewrite(file, text, name != "fluent-bit.conf") {
            Err(Refused::Nothing) => return Ok(()),
            Err(Refused::Wrong(inner, why)) => return Err(Refused::Wrong(line(inner), why)),
            Ok(new) => new,
        };
        self.found = true;
        self.notes.extend(new.notes.iter().map(|(inner, note)| (line(*inner), note.clone())));
        match style {
            ScalarStyle::Literal => {
                let first = line(1);
                self.block(first, text, &new.text);
            }
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
                let range = self.edits.offset(node.at)..self.edits.offset(node.end);
                self.edits.replace(range, quoted(&new.text));
            }
            _ => {
                let why = "the configuration stands in a folded text: write it as a literal block, with |";
                return Err(Refused::Wrong(node.at.line, why.to_owned()));
            }
        }
        Ok(())
    }

    /// The lines of a literal block, each with the block's indent.
    fn block(&mut self, first: usize, old: &str, new: &str) {
        let count = old.lines().count();
        let raw = |number: usize| self.lines.get(first + number - 1).copied().unwrap_or_default();
        let indent = old
            .lines()
            .enumerate()
            .find(|(_, line)| !line.trim().is_empty())
            .and_then(|(number, line)| raw(number).trim_end_matches('\r').strip_suffix(line))
            .unwrap_or_default();
        let lines: Vec<String> =
            new.lines().map(|line| if line.is_empty() { String::new() } else { format!("{indent}{line}") }).collect();
        let place = |line: usize| yaml::Place { line, column: 1 };
        let start = self.edits.offset(place(first));
        let end = self.edits.line_end(self.edits.offset(place(first + count.max(1) - 1)));
        let text = lines.join(self.edits.newline());
        self.edits.replace(start..end, text);
    }
}

/// The ConfigMap of EKS Fargate.
fn is_aws_logging(node: &Node) -> bool {
    let name = node.get("metadata").and_then(|metadata| metadata.get("name"));
    node.get("kind").and_then(|kind| kind.text()) == Some("ConfigMap")
        && name.and_then(|name| name.text()) == Some(fargate::CONFIG_MAP)
}

/// The options of a container's log configuration, of which FireLens makes an [OUTPUT]; as ECS writes them, or CloudFormation.
fn firelens_options(node: &Node) -> Option<&Node> {
    [("logDriver", "options"), ("LogDriver", "Options")].into_iter().find_map(|(driver, options)| {
        let is_firelens = node.get(driver).and_then(|driver| driver.text()) == Some("awsfirelens");
        is_firelens.then(|| node.get(options)).flatten().map(|options| &**options)
    })
}
