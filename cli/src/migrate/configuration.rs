//! One configuration, classic or YAML: its outputs are rewritten in place, and the result is judged as Fluent Bit would.

use super::edit::{self, Edits, Layout, Spot};
use super::options::{Around, Change, Given, Peer, plan};
use crate::lint;
use crate::lint::conf::{self, Origin};
use crate::lint::fluent_yaml;
use crate::lint::yaml::{self, Node, Value};

/// What was done, by the line of the text in which it was done.
pub type Notes = Vec<(usize, String)>;

/// A configuration that was rewritten.
pub struct Rewritten {
    pub text: String,
    pub notes: Notes,
}

/// Why nothing became of a configuration.
#[derive(Debug)]
pub enum Refused {
    /// There is no output of the peers in it.
    Nothing,
    /// The line, and why the result would not start.
    Wrong(usize, String),
    /// The line, and why it is left as it is, whether it starts or not.
    Kept(usize, String),
}

impl Refused {
    /// The same, on another line for each.
    pub fn on(self, line: impl Fn(usize) -> usize) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Wrong(at, why) => Self::Wrong(line(at), why),
            Self::Kept(at, why) => Self::Kept(line(at), why),
        }
    }
}

/// Rewrites the outputs of the peers in a configuration. `open`: parts of it may be in other files.
pub fn rewrite(name: &str, text: &str, open: bool) -> Result<Rewritten, Refused> {
    let (new, notes) = if lint::is_classic(name, text) { classic(text)? } else { yaml(text)? };
    match lint::refusals(name, &new, open).into_iter().next() {
        Some(finding) => Err(Refused::Wrong(
            line_before(text, &new, finding.at.line),
            format!("{} ({}: {})", finding.message, finding.rule.id, finding.rule.finds),
        )),
        None => Ok(Rewritten { text: new, notes }),
    }
}

/// The line of the text that became that line of the new one: nearly every line is still there as it was.
fn line_before(text: &str, new: &str, line: usize) -> usize {
    let Some(wanted) = new.lines().nth(line.saturating_sub(1)) else { return line };
    let before = new.lines().take(line.saturating_sub(1)).filter(|other| *other == wanted).count();
    let mut same = text.lines().enumerate().filter(|(_, other)| *other == wanted);
    same.nth(before).map_or(line.min(text.lines().count()), |(number, _)| number + 1)
}

fn is_on(value: Option<&str>) -> bool {
    value.is_some_and(|value| ["on", "true", "yes"].contains(&value.to_ascii_lowercase().as_str()))
}

fn classic(text: &str) -> Result<(String, Notes), Refused> {
    let (conf, faults) = lint::sections(text);
    if !conf.sections.iter().any(is_peer) {
        return Err(Refused::Nothing);
    }
    if let Some(fault) = faults.into_iter().next() {
        return Err(Refused::Wrong(fault.at.line, fault.message));
    }
    let hot_reload = conf.sections.iter().any(|s| s.name == "SERVICE" && is_on(s.value("hot_reload")));
    let mut edits = Edits::new(text);
    let mut notes = Notes::new();
    for section in conf.sections.iter().filter(|section| is_peer(section)) {
        let given: Vec<Given> = section
            .entries
            .iter()
            .map(|entry| Given { key: entry.key.text.clone(), value: entry.value.text.clone() })
            .collect();
        let lines: Vec<usize> = section.entries.iter().map(|entry| entry.key.at.line).collect();
        let spots: Vec<Spot> = section
            .entries
            .iter()
            .map(|entry| {
                let at = |word: &conf::Word| {
                    let start = edits.offset(word.at);
                    start..start + word.text.len()
                };
                Spot { key: at(&entry.key), value: at(&entry.value) }
            })
            .collect();
        let around = Around { firelens: false, hot_reload };
        output(&mut edits, Layout::Classic, &given, &spots, &lines, around, &mut notes)?;
    }
    let rewrites = conf.sections.iter().find(|s| s.name == "FILTER" && s.plugin() == REWRITE_TAG);
    note_routing(conf.sections.iter().filter(|s| is_peer(s)).count(), rewrites.map(|s| s.at.line), &mut notes);
    Ok((edits.apply(), notes))
}

/// The filter with which the peers route.
const REWRITE_TAG: &str = "rewrite_tag";

/// Where several outputs stand behind a filter that routes to them, one can do.
fn note_routing(outputs: usize, filter: Option<usize>, notes: &mut Notes) {
    if let Some(line) = filter.filter(|_| outputs > 1) {
        let note = format!(
            "{REWRITE_TAG} stays, with {outputs} outputs of kubehose; where they differ in delivery_stream alone, one with a template in \
             its place needs no such filter"
        );
        notes.push((line, note));
    }
}

fn is_peer(section: &conf::Section) -> bool {
    section.name == "OUTPUT" && Peer::named(&section.plugin()).is_some()
}

fn yaml(text: &str) -> Result<(String, Notes), Refused> {
    let documents = yaml::documents(text)
        .map_err(|fault| Refused::Wrong(fault.at.line, format!("this is no YAML: {}", fault.what)))?;
    let mut edits = Edits::new(text);
    let mut notes = Notes::new();
    let mut found = false;
    for document in &documents {
        found |= pipeline(&mut edits, document, &mut notes)?;
    }
    if found { Ok((edits.apply(), notes)) } else { Err(Refused::Nothing) }
}

/// Rewrites the outputs of a configuration in YAML; whether there was one of the peers.
fn pipeline(edits: &mut Edits<'_>, document: &Node, notes: &mut Notes) -> Result<bool, Refused> {
    let service = document.get("service");
    let hot_reload = service.is_some_and(|service| {
        is_on(service.get("hot_reload").or_else(|| service.get("Hot_Reload")).and_then(|value| value.text()))
    });
    let outputs = document.get("pipeline").and_then(|pipeline| pipeline.get("outputs"));
    let mut found = 0;
    for output in outputs.map_or(&[][..], |outputs| outputs.items()) {
        found += usize::from(mapping(edits, output, Around { firelens: false, hot_reload }, false, notes)?);
    }
    let filters = document.get("pipeline").and_then(|pipeline| pipeline.get("filters"));
    let is_rewrite = |filter: &Node| {
        let name = filter.get("name").or_else(|| filter.get("Name")).and_then(|name| name.text());
        name.is_some_and(|name| name.eq_ignore_ascii_case(REWRITE_TAG))
    };
    let rewrites = filters.map_or(&[][..], |filters| filters.items()).iter().find(|filter| is_rewrite(filter));
    note_routing(found, rewrites.map(|filter| filter.at.line), notes);
    Ok(found > 0)
}

/// Rewrites a mapping that is an output; whether it is one of the peers.
pub fn mapping(
    edits: &mut Edits<'_>,
    node: &Node,
    around: Around,
    json: bool,
    notes: &mut Notes,
) -> Result<bool, Refused> {
    let is_name = |key: &Node| key.text().is_some_and(|key| key.eq_ignore_ascii_case("name"));
    let name = node.pairs().iter().find(|(key, _)| is_name(key)).and_then(|(_, value)| value.text());
    if name.and_then(Peer::named).is_none() {
        return Ok(false);
    }
    let start = edits.offset(node.at);
    let flow = edits.slice(start..start + 1) == "{";
    let (mut given, mut spots, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for (key, value) in node.pairs() {
        let Some(name) = key.text() else {
            return Err(Refused::Wrong(key.at.line, "a key is no text".to_owned()));
        };
        if name == "processors" {
            // What works on events before the output is not the output's.
            continue;
        }
        let many = match &value.value {
            Value::Scalar { text, .. } => Ok(text.clone()),
            Value::Sequence(items) if items.iter().all(|item| item.text().is_some()) => {
                Ok(items.iter().filter_map(|item| item.text()).collect::<Vec<_>>().join(","))
            }
            _ => {
                Err(Refused::Wrong(value.at.line, format!("the value of {name} is neither a text nor a list of texts")))
            }
        };
        given.push(Given { key: fluent_yaml::snake_case(name), value: many? });
        spots.push(Spot { key: span(edits, key), value: span(edits, value) });
        lines.push(key.at.line);
    }
    let layout = if flow { Layout::Flow { json } } else { Layout::Block };
    output(edits, layout, &given, &spots, &lines, around, notes)?;
    Ok(true)
}

/// The bytes of a node, without the blanks behind it.
fn span(edits: &Edits<'_>, node: &Node) -> std::ops::Range<usize> {
    let start = edits.offset(node.at);
    let text = edits.slice(start..edits.offset(node.end).max(start));
    start..start + text.trim_end().len()
}

fn output(
    edits: &mut Edits<'_>,
    layout: Layout,
    given: &[Given],
    spots: &[Spot],
    lines: &[usize],
    around: Around,
    notes: &mut Notes,
) -> Result<(), Refused> {
    let Some(name) = given.iter().position(|option| option.key.eq_ignore_ascii_case("name")) else { return Ok(()) };
    let Some(peer) = Peer::named(&given[name].value) else { return Ok(()) };
    let plan = plan(peer, given, around).map_err(|why| Refused::Wrong(lines[name], why))?;
    for (at, change) in plan.changes.iter().enumerate() {
        // A value that a tag stands for has no text to write another one into.
        if matches!(change, Change::Value(_)) && given[at].value.starts_with("${") {
            let source = edits.slice(spots[at].value.clone());
            if !source.contains("${") {
                let why = format!("{} is {source}, to which nothing can be added: write it out", given[at].key);
                return Err(Refused::Kept(lines[at], why));
            }
        }
    }
    edit::section(edits, layout, spots, &plan.changes, name, &plan.added);
    // A list that stays becomes the one text that the plugin reads.
    for (at, change) in plan.changes.iter().enumerate() {
        if matches!(change, Change::Keep) && given[at].value.contains(',') && !matches!(layout, Layout::Classic) {
            let text = edits.slice(spots[at].value.clone());
            if text.starts_with(['[', '-']) {
                edits.replace(spots[at].value.clone(), edit::quoted(&given[at].value));
            }
        }
    }
    for (at, note) in plan.notes {
        notes.push((lines[at.unwrap_or(name)], note));
    }
    Ok(())
}

/// Whether a text is a configuration in the classic format, whatever it is called.
pub fn has_sections(text: &str) -> bool {
    text.lines().any(lint::is_section_line)
}

/// Whether a text is a configuration in YAML.
pub fn is_pipeline(text: &str) -> bool {
    yaml::documents(text).is_ok_and(|documents| documents.iter().any(|document| document.get("pipeline").is_some()))
}

/// Where the lines of a node's text lie.
pub fn origin<'l>(node: &Node, lines: &'l [&'l str]) -> Origin<'l> {
    lint::embedded::origin(node, lines)
}
