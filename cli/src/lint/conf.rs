//! Fluent Bit's classic format, read as src/config_format/flb_cf_fluentbit.c does (v5.1.1), with the place of every word.

use super::yaml::Place;
use super::{Findings, options, rules};

/// A word and its place.
#[derive(Clone, Debug)]
pub struct Word {
    pub text: String,
    pub at: Place,
}

/// `key value`.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: Word,
    pub value: Word,
}

/// A section; its name is in capitals.
#[derive(Clone, Debug)]
pub struct Section {
    pub name: String,
    pub at: Place,
    pub entries: Vec<Entry>,
}

impl Section {
    /// The entry that counts of those of that name: of what the core reads itself the last, which overwrites the others, else
    /// the first. Names are case-insensitive.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        let overwrites = self.name == "SERVICE" || options::is_core_of(&self.name, &key.to_ascii_lowercase());
        let mut entries = self.all(key);
        if overwrites { entries.last() } else { entries.next() }
    }

    /// Every entry of that name.
    pub fn all<'s>(&'s self, key: &str) -> impl Iterator<Item = &'s Entry> {
        let key = key.to_owned();
        self.entries.iter().filter(move |entry| entry.key.text.eq_ignore_ascii_case(&key))
    }

    /// The value of the entry that counts of those of that name.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.get(key).map(|entry| entry.value.text.as_str())
    }

    /// The plugin's name, in small letters.
    pub fn plugin(&self) -> String {
        self.value("name").unwrap_or_default().to_ascii_lowercase()
    }
}

/// What a file holds.
#[derive(Debug, Default)]
pub struct Conf {
    pub sections: Vec<Section>,
    /// `@INCLUDE`, `@SET` and the like.
    pub directives: Vec<Word>,
    /// Whether an input names its outputs itself (`routes`, YAML of 4.2 and later), which then need no Match.
    pub routes: bool,
    /// Processors of inputs and outputs, of which some are filters.
    pub processors: Vec<Section>,
    /// Whether it was written in the classic format.
    pub classic: bool,
}

impl Conf {
    /// Whether it includes other files.
    pub fn includes(&self) -> bool {
        let set = |word: &Word| word.text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("@set"));
        self.directives.iter().any(|directive| !set(directive))
    }
}

/// Maps line and column of a text to the file that holds it.
pub enum Origin<'a> {
    /// The text is the file.
    File,
    /// The text is a literal block: its first line, and the file's lines.
    Block { first_line: usize, lines: &'a [&'a str] },
    /// Positions inside were lost (a quoted or folded scalar).
    Point(Place),
}

impl Origin<'_> {
    /// The same text with so many lines before it that are not in the file.
    pub fn after(self, more: usize) -> Self {
        match self {
            Self::Block { first_line, lines } => {
                Self::Block { first_line: first_line.saturating_sub(more).max(1), lines }
            }
            other => other,
        }
    }

    /// Where a line and column of the text, counted from 0, lie; `text` is that line.
    pub fn at(&self, line: usize, column: usize, text: &str) -> Place {
        match self {
            Self::File => Place { line: line + 1, column: column + 1 },
            Self::Block { first_line, lines } => {
                let line = first_line + line;
                let raw = lines.get(line - 1).map_or(0, |raw| raw.trim_end_matches('\r').chars().count());
                let indent = raw.saturating_sub(text.chars().count());
                Place { line, column: indent + column + 1 }
            }
            Self::Point(place) => *place,
        }
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// The names that open a section of each kind, in the order in which Fluent Bit compares them; the beginning of one is enough.
const KINDS: [(&str, &str); 11] = [
    ("SERVICE", "SERVICE"),
    ("PARSER", "PARSER"),
    ("MULTILINE_PARSER", "MULTILINE_PARSER"),
    ("STREAM_PROCESSOR", "STREAM_PROCESSOR"),
    ("PLUGINS", "PLUGINS"),
    ("UPSTREAM_SERVERS", "UPSTREAM_SERVERS"),
    ("CUSTOMS", "CUSTOM"),
    ("INPUTS", "INPUT"),
    ("FILTERS", "FILTER"),
    ("OUTPUTS", "OUTPUT"),
    ("STREAM_TASK", "STREAM_TASK"),
];

/// The kind of section that `name` opens, else the name in capitals.
fn kind(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    let found = KINDS.iter().find(|(full, _)| !upper.is_empty() && full.starts_with(&upper));
    found.map_or(upper, |(_, kind)| (*kind).to_owned())
}

/// Why Fluent Bit refuses a line for how it is indented, or the bytes of indent before its content.
fn check_indent(line: &str, indent: &str) -> Result<usize, String> {
    let common = line.bytes().zip(indent.bytes()).take_while(|(a, b)| a == b).count();
    let rest = line.as_bytes().get(common..).unwrap_or_default();
    if common < indent.len() {
        return Err(if rest.first().is_some_and(|byte| is_blank(*byte)) {
            "tabs and spaces are mixed".to_owned()
        } else {
            let depth = line.bytes().take_while(|byte| is_blank(*byte)).count();
            format!("its indent is {depth}, that of the file's first key {}", indent.len())
        });
    }
    let extra = rest.iter().take_while(|byte| is_blank(**byte)).count();
    // Twice as deep is the content of a group, and accepted anywhere.
    if extra == 0 || extra == common {
        return Ok(common + extra);
    }
    Err(format!("its indent is {}, that of the file's first key {}", common + extra, indent.len()))
}

/// Reads `text`; adds what Fluent Bit would refuse to `findings`.
pub fn read(text: &str, origin: &Origin<'_>, findings: &mut Findings) -> Conf {
    let mut conf = Conf { classic: true, ..Conf::default() };
    let mut indent: Option<String> = None;
    let mut in_section = false;
    for (number, line) in text.lines().enumerate() {
        let at = |byte: usize| origin.at(number, line.get(..byte).map_or(0, |head| head.chars().count()), line);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix('\u{feff}') {
            findings.add(&rules::BOM, at(0), format!("a byte order mark comes before `{}`", first_word(rest)));
            // Read on without it.
            if rest.starts_with(['#', '@']) || rest.is_empty() {
                continue;
            }
        }
        let line = line.strip_prefix('\u{feff}').unwrap_or(line);
        if line.starts_with('@') && line.len() > 3 {
            if !line.contains(' ') {
                findings.add(&rules::VALUE_MISSING, at(0), format!("`{line}` has no value"));
            }
            conf.directives.push(Word { text: line.trim_end().to_owned(), at: at(0) });
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            let Some(end) = rest.find(']') else {
                findings.add(&rules::SECTION_UNCLOSED, at(0), format!("`{}` has no closing ]", line.trim_end()));
                in_section = false;
                continue;
            };
            close(&conf, in_section, findings);
            in_section = true;
            let name = kind(rest.get(..end).unwrap_or_default());
            conf.sections.push(Section { name, at: at(0), entries: Vec::new() });
            continue;
        }
        let blanks = line.bytes().take_while(|byte| is_blank(*byte)).count();
        let body = line.get(blanks..).unwrap_or_default();
        let shown = first_word(body);
        let inner = body.trim_end();
        let known_section = inner.starts_with('[')
            && inner.ends_with(']')
            && SECTIONS.contains(&inner[1..inner.len() - 1].to_ascii_uppercase().as_str());
        if known_section && blanks > 0 {
            findings.add(&rules::SECTION_INDENTED, at(blanks), format!("`{inner}` is indented"));
            // Read on as if it were not: its keys are worth checking too.
            close(&conf, in_section, findings);
            in_section = true;
            indent = None;
            let name = kind(&inner[1..inner.len() - 1]);
            conf.sections.push(Section { name, at: at(blanks), entries: Vec::new() });
            continue;
        }
        let mut start = blanks;
        if blanks == 0 {
            // Fluent Bit reads the first letter of such a line as its indent.
            if in_section {
                findings.add(&rules::INDENT, at(0), format!("`{shown}` is not indented"));
            }
        } else {
            let first = indent.is_none();
            let indent = indent.get_or_insert_with(|| line.get(..blanks).unwrap_or_default().to_owned());
            if first && body.is_empty() {
                continue;
            }
            match check_indent(line, indent) {
                Ok(depth) => start = depth,
                Err(why) => {
                    let what = match body.chars().next() {
                        None => "a line of blanks".to_owned(),
                        Some('#') => "a comment".to_owned(),
                        Some(_) => format!("`{shown}`"),
                    };
                    findings.add(&rules::INDENT, at(blanks), format!("{what}: {why}"));
                }
            }
        }
        let body = line.get(start..).unwrap_or_default();
        if body.is_empty() || body.starts_with('#') {
            continue;
        }
        let Some((key, value)) = body.split_once(' ').filter(|(_, value)| !value.trim().is_empty()) else {
            let hint = if body.contains('\t') { " (a tab separates them, instead of a space)" } else { "" };
            findings.add(&rules::VALUE_MISSING, at(start), format!("`{shown}` has no value{hint}"));
            continue;
        };
        if key.starts_with('[') {
            // A group, for the plugins that have them.
            continue;
        }
        let gap = value.len() - value.trim_start().len();
        let entry = Entry {
            key: Word { text: key.trim().to_owned(), at: at(start) },
            value: Word { text: value.trim().to_owned(), at: at(start + key.len() + 1 + gap) },
        };
        match conf.sections.last_mut().filter(|_| in_section) {
            Some(section) => section.entries.push(entry),
            None => findings.add(&rules::KEY_OUTSIDE, entry.key.at, format!("`{key}` is outside of a section")),
        }
    }
    close(&conf, in_section, findings);
    conf
}

fn first_word(text: &str) -> &str {
    text.split([' ', '\t']).next().unwrap_or(text)
}

/// The sections of the classic format.
pub const SECTIONS: [&str; 12] = [
    "SERVICE",
    "INPUT",
    "FILTER",
    "OUTPUT",
    "PARSER",
    "MULTILINE_PARSER",
    "PLUGINS",
    "CUSTOM",
    "STREAM_TASK",
    "STREAM_PROCESSOR",
    "UPSTREAM",
    "UPSTREAM_SERVERS",
];

/// The sections that need a Name.
pub const NAMED: [&str; 6] = ["FILTER", "OUTPUT", "INPUT", "PARSER", "MULTILINE_PARSER", "CUSTOM"];

fn close(conf: &Conf, in_section: bool, findings: &mut Findings) {
    let empty = |section: &&Section| section.entries.is_empty() && NAMED.contains(&section.name.as_str());
    if let Some(section) = conf.sections.last().filter(|_| in_section).filter(empty) {
        findings.add(&rules::SECTION_EMPTY, section.at, format!("[{}] has no keys", section.name));
    }
}
