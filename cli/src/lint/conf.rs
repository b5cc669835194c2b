//! Fluent Bit's classic format, read as src/config_format/flb_cf_fluentbit.c does (v5.1.1), with the place of every word.

use super::Findings;
use super::rules;
use super::yaml::Place;

/// A word and where it stands.
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

/// A section, in capitals whatever the file has.
#[derive(Clone, Debug)]
pub struct Section {
    pub name: String,
    pub at: Place,
    pub entries: Vec<Entry>,
}

impl Section {
    /// The first entry of that name; names are case-insensitive.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.all(key).next()
    }

    /// Every entry of that name.
    pub fn all<'s>(&'s self, key: &str) -> impl Iterator<Item = &'s Entry> {
        let key = key.to_owned();
        self.entries.iter().filter(move |entry| entry.key.text.eq_ignore_ascii_case(&key))
    }

    /// The value of the first entry of that name.
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
}

/// Where line and column of a text lie in the file that holds it.
pub enum Origin<'a> {
    /// The text is the file.
    File,
    /// The text is a literal block: its first line, and the file's lines.
    Block { first_line: usize, lines: &'a [&'a str] },
    /// Positions inside were lost (a quoted or folded scalar).
    Point(Place),
}

impl Origin<'_> {
    fn at(&self, line: usize, column: usize, text: &str) -> Place {
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

/// Reads `text`; what Fluent Bit would refuse goes to `findings`.
pub fn read(text: &str, origin: &Origin<'_>, findings: &mut Findings) -> Conf {
    let mut conf = Conf::default();
    let mut indent: Option<String> = None;
    let mut in_section = false;
    for (number, line) in text.lines().enumerate() {
        let at = |byte: usize| origin.at(number, line.get(..byte).map_or(0, |head| head.chars().count()), line);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with('@') {
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
            let name = rest.get(..end).unwrap_or_default().trim().to_ascii_uppercase();
            conf.sections.push(Section { name, at: at(0), entries: Vec::new() });
            continue;
        }
        let blanks = line.bytes().take_while(|byte| is_blank(*byte)).count();
        let body = line.get(blanks..).unwrap_or_default().trim_end();
        if body.is_empty() || body.starts_with('#') {
            continue;
        }
        let given = line.get(..blanks).unwrap_or_default();
        let known_section = body.starts_with('[')
            && body.ends_with(']')
            && SECTIONS.contains(&body[1..body.len() - 1].to_ascii_uppercase().as_str());
        if known_section {
            findings.add(&rules::SECTION_INDENTED, at(blanks), format!("`{body}` is indented"));
            // Read on as if it were not: its keys are worth checking too.
            close(&conf, in_section, findings);
            in_section = true;
            indent = None;
            let name = body[1..body.len() - 1].to_ascii_uppercase();
            conf.sections.push(Section { name, at: at(blanks), entries: Vec::new() });
            continue;
        }
        match &indent {
            _ if blanks == 0 && in_section => {
                findings.add(&rules::INDENT, at(0), format!("`{}` is not indented", first_word(body)));
            }
            _ if blanks == 0 => {}
            None => indent = Some(given.to_owned()),
            // Twice as deep is the content of a group, and taken anywhere.
            Some(indent) if indent == given || format!("{indent}{indent}") == given => {}
            Some(indent) => {
                let why = match (indent.contains('\t'), given.contains('\t')) {
                    (a, b) if a != b => "tabs and spaces are mixed".to_owned(),
                    _ => format!("it stands {blanks} deep, the first key of the file {}", indent.len()),
                };
                findings.add(&rules::INDENT, at(blanks), format!("`{}`: {why}", first_word(body)));
            }
        }
        if body.starts_with('[') {
            // A group, for the plugins that have them.
            continue;
        }
        let Some((key, value)) = body.split_once(' ') else {
            let hint = if body.contains('\t') { " (a tab parts them, where a space must)" } else { "" };
            findings.add(&rules::VALUE_MISSING, at(blanks), format!("`{}` has no value{hint}", first_word(body)));
            continue;
        };
        let gap = value.len() - value.trim_start().len();
        let entry = Entry {
            key: Word { text: key.to_owned(), at: at(blanks) },
            value: Word { text: value.trim().to_owned(), at: at(blanks + key.len() + 1 + gap) },
        };
        match conf.sections.last_mut().filter(|_| in_section) {
            Some(section) => section.entries.push(entry),
            None => findings.add(&rules::KEY_OUTSIDE, entry.key.at, format!("`{key}` stands outside of a section")),
        }
    }
    close(&conf, in_section, findings);
    conf
}

fn first_word(text: &str) -> &str {
    text.split([' ', '\t']).next().unwrap_or(text)
}

/// The sections of the classic format.
pub const SECTIONS: [&str; 10] = [
    "SERVICE",
    "INPUT",
    "FILTER",
    "OUTPUT",
    "PARSER",
    "MULTILINE_PARSER",
    "PLUGINS",
    "CUSTOM",
    "STREAM_TASK",
    "UPSTREAM",
];

/// The sections that need a Name.
pub const NAMED: [&str; 6] = ["FILTER", "OUTPUT", "INPUT", "PARSER", "MULTILINE_PARSER", "CUSTOM"];

fn close(conf: &Conf, in_section: bool, findings: &mut Findings) {
    let empty = |section: &&Section| section.entries.is_empty() && NAMED.contains(&section.name.as_str());
    if let Some(section) = conf.sections.last().filter(|_| in_section).filter(empty) {
        findings.add(&rules::SECTION_EMPTY, section.at, format!("[{}] has no keys", section.name));
    }
}
