//! Where configurations are kept: in a file of their own, in ConfigMaps, in the values of charts, in task definitions of ECS.

use std::collections::HashSet;

use super::configuration::{self, Notes, Refused, Rewritten};
use super::edit::{Edits, quoted};
use super::options::{self, Around, Given, Peer};
use crate::lint::conf::Origin;
use crate::lint::yaml::{self, Node, ScalarStyle, Value};
use crate::lint::{self, fluent_yaml, kubernetes};
use crate::{fargate, lint::rules};

/// Rewrites whatever the file is.
pub fn rewrite(name: &str, text: &str) -> Result<Rewritten, Refused> {
    if lint::is_classic(name, text) {
        return configuration::rewrite(name, text, false);
    }
    // YAML may begin with a byte order mark.
    let (mark, body) = text.strip_prefix('\u{feff}').map_or(("", text), |body| ("\u{feff}", body));
    let documents = yaml::documents(body)
        .map_err(|fault| Refused::Kept(fault.at.line, format!("this is no YAML: {}", fault.what)))?;
    let is_own = |document: &Node| !kubernetes::is_manifest(document) && fluent_yaml::is_configuration(document);
    let mut new = if documents.iter().any(|document| is_own(document)) {
        if let Some(line) = documents.iter().filter(|document| is_own(document)).find_map(|document| routed(document)) {
            let why = "a route names this output: give the output an alias, name that in the route, and try again";
            return Err(Refused::Kept(line, why.to_owned()));
        }
        configuration::rewrite(name, body, false)?
    } else {
        documents_with_more(name, body, &documents)?
    };
    new.text.insert_str(0, mark);
    Ok(new)
}

/// The line of a route of an input to an output of the peers, by the plugin's name.
fn routed(document: &Node) -> Option<usize> {
    let inputs = document.get("pipeline")?.get("inputs")?;
    let routes = inputs.items().iter().filter_map(|input| input.get("routes"));
    let mut open: Vec<&Node> = routes.map(|routes| &**routes).collect();
    while let Some(node) = open.pop() {
        let names = node.get("outputs").map_or(&[][..], |outputs| outputs.items());
        let peer =
            names.iter().find(|name| name.text().is_some_and(|name| ["firehose", "kinesis_firehose"].contains(&name)));
        if let Some(peer) = peer {
            return Some(peer.at.line);
        }
        open.extend(node.pairs().iter().map(|(_, value)| &**value));
        open.extend(node.items().iter().map(|item| &**item));
    }
    None
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
        return Err(holder.passed.map_or(Refused::Nothing, |(line, why)| Refused::Kept(line, why)));
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
            if let Some(options) = lint::embedded::firelens_options(node) {
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
                        if name == "firehose" && value.get("enabled").is_some() {
                            self.chart(node, key, value)?;
                        } else if name == "firehose" && value.pairs().len() > 1 {
                            self.pass(
                                key,
                                "an operator makes this output itself: write a custom plugin kubehose in its place",
                            );
                        }
                        match value.get("config").filter(|_| name == "customPlugin") {
                            Some(config) => self.custom_plugin(config)?,
                            None => open.push((value, name)),
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The values of which the chart aws-for-fluent-bit makes an [OUTPUT] firehose: they are switched off, and what comes of the
    /// section goes to its additional outputs.
    fn chart(&mut self, values: &Node, key: &Node, firehose: &Node) -> Result<(), Refused> {
        let enabled = firehose.get("enabled");
        let Some(enabled) = enabled.filter(|enabled| enabled.text().is_some_and(|on| on.eq_ignore_ascii_case("true")))
        else {
            return Ok(());
        };
        let wrong = |why: String| Refused::Wrong(key.at.line, why);
        let kept = |why: &str| Refused::Kept(key.at.line, why.to_owned());
        let mut given = vec![Given { key: "name".to_owned(), value: "firehose".to_owned() }];
        for (option, value) in CHART_OPTIONS {
            let text = firehose.get(value).and_then(|value| value.text()).filter(|text| !text.is_empty());
            let default = CHART_DEFAULTS.iter().find(|(name, _)| *name == value).map(|(_, default)| *default);
            let Some(text) = text.or(default) else { continue };
            given.push(Given { key: option.to_owned(), value: text.to_owned() });
        }
        for line in firehose.get("extraOutputs").and_then(|extra| extra.text()).unwrap_or_default().lines() {
            if let Some((key, value)) = line.trim().split_once(' ').filter(|(key, _)| !key.starts_with('#')) {
                given.push(Given { key: key.to_owned(), value: value.trim().to_owned() });
            }
        }
        let plan = options::plan(Peer::Go, &given, Around::default()).map_err(wrong)?;
        let section = options::render(&plan, &given);
        if let Some(finding) = lint::refusals("part.conf", &section, true).into_iter().next() {
            return Err(wrong(format!("{} ({})", finding.message, finding.rule.id)));
        }
        let start = self.edits.offset(key.at);
        let indent = " ".repeat(key.at.column.saturating_sub(1));
        if self.json || self.edits.slice(self.edits.line_start(start)..start) != indent {
            return Err(kept(
                "the chart makes this output itself: switch it off, and write one among additionalOutputs",
            ));
        }
        let newline = self.edits.newline();
        match values.get("additionalOutputs") {
            Some(empty) if empty.text().is_none_or(|text| text.trim().is_empty()) => {
                return Err(Refused::Kept(
                    empty.at.line,
                    "additionalOutputs is empty: remove that line, and the output goes there".to_owned(),
                ));
            }
            None => {
                let lines: Vec<String> = section.lines().map(|line| format!("{indent}  {line}{newline}")).collect();
                self.edits.replace(start..start, format!("additionalOutputs: |{newline}{}{indent}", lines.concat()));
            }
            Some(more) => {
                let Value::Scalar { text, style: ScalarStyle::Literal } = &more.value else {
                    return Err(kept("additionalOutputs is no literal block, where the output could go"));
                };
                let (Origin::Block { first_line, .. }, count) =
                    (configuration::origin(more, &self.lines), text.trim_end().lines().count())
                else {
                    return Err(kept("additionalOutputs is no literal block, where the output could go"));
                };
                let last = self.lines.get(first_line + count - 2).copied().unwrap_or_default();
                let inner = text.trim_end().lines().last().unwrap_or_default();
                let indent = last.trim_end().strip_suffix(inner.trim_end()).unwrap_or_default();
                let lines: Vec<String> = section.lines().map(|line| format!("{newline}{indent}{line}")).collect();
                let end = self.edits.offset(yaml::Place { line: first_line + count - 1, column: 1 });
                let end = self.edits.line_end(end);
                self.edits.replace(end..end, lines.concat());
            }
        }
        let place = self.edits.offset(enabled.at)..self.edits.offset(enabled.end);
        self.edits.replace(place, "false");
        self.found = true;
        self.notes
            .push((key.at.line, "the chart's own output is switched off; kubehose is in additionalOutputs".to_owned()));
        self.notes.extend(plan.notes.into_iter().map(|(_, note)| (key.at.line, note)));
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
            return Err(Refused::Kept(node.at.line, why.to_owned()));
        }
        // Its parts may be in other texts of the same document.
        let new = match configuration::rewrite(file, text, name != "fluent-bit.conf") {
            Err(Refused::Nothing) => return Ok(()),
            Err(refused) => return Err(refused.on(line)),
            Ok(new) => new,
        };
        self.notes.extend(new.notes.iter().map(|(inner, note)| (line(*inner), note.clone())));
        self.put(node, text, style, &new.text)
    }

    /// The section that a custom plugin of the Fluent Operator is without its first line, which the operator writes, as it does the
    /// Match. The operator changes a configuration by a hot reload.
    fn custom_plugin(&mut self, node: &Node) -> Result<(), Refused> {
        let Value::Scalar { text, style } = &node.value else { return Ok(()) };
        if configuration::has_sections(text) {
            return Ok(());
        }
        let body: String =
            text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }).collect();
        let first = match configuration::origin(node, &self.lines) {
            Origin::Block { first_line, .. } => Some(first_line),
            _ => None,
        };
        let before = OPERATOR_SECTION.lines().count();
        let line = |inner: usize| first.map_or(node.at.line, |first| first + inner.saturating_sub(before + 1));
        let new = match configuration::rewrite("part.conf", &format!("{OPERATOR_SECTION}{body}"), true) {
            Err(Refused::Nothing) => return Ok(()),
            Err(refused) => return Err(refused.on(line)),
            Ok(new) => new,
        };
        self.notes.extend(new.notes.iter().map(|(inner, note)| (line(*inner), note.clone())));
        let lines =
            new.text.lines().skip(before).map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line)));
        self.put(node, text, *style, &lines.collect::<String>())
    }

    /// Puts another text in the place of one.
    fn put(&mut self, node: &Node, old: &str, style: ScalarStyle, new: &str) -> Result<(), Refused> {
        self.found = true;
        match (style, configuration::origin(node, &self.lines)) {
            (ScalarStyle::Literal, Origin::Block { first_line, .. }) => self.block(first_line, old, new),
            (ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted, _) => {
                let range = self.edits.offset(node.at)..self.edits.offset(node.end);
                self.edits.replace(range, quoted(new));
            }
            _ => {
                let why = "the configuration stands in a folded text: write it as a literal block, with |";
                return Err(Refused::Kept(node.at.line, why.to_owned()));
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

/// What the operator writes, as far as it says what to make of an output.
const OPERATOR_SECTION: &str = "[SERVICE]\n    Hot_Reload On\n[OUTPUT]\n";

/// What the values of the chart aws-for-fluent-bit under `firehose` become in its section.
const CHART_OPTIONS: [(&str, &str); 8] = [
    ("match", "match"),
    ("region", "region"),
    ("delivery_stream", "deliveryStream"),
    ("data_keys", "dataKeys"),
    ("role_arn", "roleArn"),
    ("endpoint", "endpoint"),
    ("time_key", "timeKey"),
    ("time_key_format", "timeKeyFormat"),
];

/// The chart's values where none are given.
const CHART_DEFAULTS: [(&str, &str); 3] = [("match", "*"), ("region", "us-east-1"), ("deliveryStream", "my-stream")];

/// The ConfigMap of EKS Fargate.
fn is_aws_logging(node: &Node) -> bool {
    let name = node.get("metadata").and_then(|metadata| metadata.get("name"));
    node.get("kind").and_then(|kind| kind.text()) == Some("ConfigMap")
        && name.and_then(|name| name.text()) == Some(fargate::CONFIG_MAP)
}
