//! The parsers that sections name: what Fluent Bit does where one exists nowhere depends on who names it (plugins/ of v5.1.1).
//!
//! Held to the host by tests/differential.rs.

use super::conf::{Conf, Entry, Section};
use super::router::is_known;
use super::{Findings, host, options, rules};

/// Parsers for several lines that the host has itself (src/multiline/flb_ml_parser.c).
const MULTILINE: [&str; 6] = ["docker", "cri", "java", "go", "python", "ruby"];

/// What the host does without the parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    /// It does not start.
    Refuses,
    /// It writes one line to its log and starts; records stay as they are.
    Ignores,
}

/// Options that name one parser: the section, the plugin, the option, and what happens without it.
const NAMES: [(&str, &str, &str, Without); 11] = [
    ("INPUT", "docker_events", "parser", Without::Refuses),
    ("INPUT", "exec", "parser", Without::Ignores),
    ("INPUT", "exec_wasi", "parser", Without::Ignores),
    ("INPUT", "stdin", "parser", Without::Refuses),
    ("INPUT", "syslog", "parser", Without::Refuses),
    ("INPUT", "tail", "docker_mode_parser", Without::Ignores),
    ("INPUT", "tail", "parser", Without::Ignores),
    ("INPUT", "tcp", "parser", Without::Refuses),
    ("INPUT", "udp", "parser", Without::Refuses),
    ("FILTER", "kubernetes", "merge_parser", Without::Ignores),
    ("FILTER", "kubernetes", "regex_parser", Without::Refuses),
];

/// What of a configuration defines parsers.
struct Defined<'c> {
    /// Each with its format.
    parsers: Vec<(&'c str, &'c str)>,
    multiline: Vec<&'c str>,
}

impl<'c> Defined<'c> {
    /// The parsers for one line.
    fn names(&self) -> impl Iterator<Item = &'c str> {
        self.parsers.iter().map(|(name, _)| *name)
    }

    /// Whether it defines the parser; capitals count.
    fn has(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    /// Whether there is that parser for several lines; capitals do not count.
    fn has_multiline(&self, name: &str) -> bool {
        MULTILINE.iter().chain(&self.multiline).any(|known| known.eq_ignore_ascii_case(name))
    }

    /// Whether the parser is one of Format regex; None where there is no such parser.
    fn is_regex(&self, name: &str) -> Option<bool> {
        let (_, format) = self.parsers.iter().find(|(known, _)| *known == name)?;
        Some(format.eq_ignore_ascii_case("regex") || !is_known(format))
    }

    /// What else may be meant.
    fn hint(&self, name: &str) -> String {
        if self.has_multiline(name) {
            return "; there is one for several lines, which multiline.parser takes".to_owned();
        }
        let close = options::near(name, self.names());
        close.map_or(String::new(), |close| format!(": did you mean {close}?"))
    }

    /// What else may be meant by the name of a parser for several lines.
    fn hint_multiline(&self, name: &str) -> String {
        if self.has(name) {
            return "; the one of that name is for one line".to_owned();
        }
        let all = MULTILINE.iter().chain(&self.multiline).copied();
        options::near(name, all).map_or(String::new(), |close| format!(": did you mean {close}?"))
    }
}

fn name_of(section: &Section) -> &str {
    section.value("name").unwrap_or_default().trim()
}

/// Checks the names in all sections of a configuration whose parsers are all known.
pub fn check(conf: &Conf, findings: &mut Findings) {
    let of = |kind: &'static str| {
        conf.sections.iter().filter(move |section| section.name == kind && section.get("name").is_some())
    };
    let defined = Defined {
        parsers: of("PARSER").map(|parser| (name_of(parser), parser.value("format").unwrap_or_default())).collect(),
        multiline: of("MULTILINE_PARSER").map(name_of).collect(),
    };
    // A name that is known only at run time may be any.
    if defined.names().chain(defined.multiline.iter().copied()).any(|name| !is_known(name)) {
        return;
    }
    for section in conf.sections.iter().chain(&conf.processors) {
        check_section(section, &defined, findings);
    }
}

fn check_section(section: &Section, defined: &Defined<'_>, findings: &mut Findings) {
    let plugin = section.plugin();
    let is_on = |key: &str| section.value(key).is_some_and(|value| host::bool_of(value) == Some(true));
    for (_, _, key, without) in NAMES.iter().filter(|(kind, name, ..)| section.name == *kind && plugin == *name) {
        let used = *key != "docker_mode_parser" || is_on("docker_mode");
        if let Some(entry) = section.get(key).filter(|entry| used && is_missing(entry, defined)) {
            add(entry, *without, defined, findings);
        }
    }
    match (section.name.as_str(), plugin.as_str()) {
        // Without a name it takes one that its mode implies.
        ("INPUT", "syslog") if section.get("parser").is_none() => {
            let network = |mode: &str| mode.eq_ignore_ascii_case("tcp") || mode.eq_ignore_ascii_case("udp");
            let implied =
                if section.value("mode").is_some_and(network) { "syslog-rfc5424" } else { "syslog-rfc3164-local" };
            if !defined.has(implied) && section.value("mode").is_none_or(is_known) {
                let message = format!("there is no parser {implied}, which syslog takes by itself");
                findings.add(&rules::PARSER_UNDEFINED, section.at, message);
            }
        }
        ("INPUT", "tail") => {
            check_multiline(section, defined, findings);
            // The older way of several lines, whose parsers are for one line each.
            let of_lines = |entry: &&Entry| {
                entry.key.text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("parser_"))
                    && is_missing(entry, defined)
            };
            for entry in section.entries.iter().filter(of_lines).filter(|_| is_on("multiline")) {
                add(entry, Without::Refuses, defined, findings);
            }
        }
        ("FILTER", "multiline") => {
            let partial = section.value("mode").is_some_and(|mode| mode.eq_ignore_ascii_case("partial_message"));
            if !partial {
                check_multiline(section, defined, findings);
            }
        }
        ("FILTER", "kubernetes") => {
            if let Some(entry) = section.get("regex_parser")
                && defined.is_regex(entry.value.text.trim()) == Some(false)
            {
                let message = format!("{}: {} has another Format than regex", entry.key.text, entry.value.text);
                findings.add(&rules::OPTION_VALUE, entry.value.at, message);
            }
        }
        ("FILTER", "parser") => {
            // One that exists is enough.
            let all_missing = section.all("parser").all(|entry| is_missing(entry, defined));
            let without = if all_missing { Without::Refuses } else { Without::Ignores };
            for entry in section.all("parser").filter(|entry| is_missing(entry, defined)) {
                add(entry, without, defined, findings);
            }
        }
        _ => {}
    }
}

/// The names in `multiline.parser`, separated by commas.
fn check_multiline(section: &Section, defined: &Defined<'_>, findings: &mut Findings) {
    for entry in section.all("multiline.parser").filter(|entry| is_known(&entry.value.text)) {
        let names = entry.value.text.split(',').map(str::trim).filter(|name| !name.is_empty());
        for name in names.filter(|name| !defined.has_multiline(name)) {
            let hint = defined.hint_multiline(name);
            let message = format!("there is no parser for several lines {name}{hint}");
            findings.add(&rules::PARSER_UNDEFINED, entry.value.at, message);
        }
    }
}

fn is_missing(entry: &Entry, defined: &Defined<'_>) -> bool {
    // The host takes blanks off a value, which in YAML may have some.
    let name = entry.value.text.trim();
    is_known(name) && !name.contains("{{") && !defined.has(name)
}

fn add(entry: &Entry, without: Without, defined: &Defined<'_>, findings: &mut Findings) {
    let name = entry.value.text.trim();
    let message = format!("there is no parser {name}{}", defined.hint(name));
    let rule = match without {
        Without::Refuses => &rules::PARSER_UNDEFINED,
        Without::Ignores => &rules::PARSER_IGNORED,
    };
    findings.add(rule, entry.value.at, message);
}
