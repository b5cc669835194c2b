//! Reads the classic configuration format, with its variables and included files.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// A section and its position.
#[derive(Debug, Clone)]
pub(super) struct Section {
    /// Its name in upper case, such as `OUTPUT`.
    pub name: String,
    /// Its properties in order: name as written, value with variables replaced.
    pub properties: Vec<(String, String)>,
    /// `file:line`, for messages.
    pub place: String,
}

impl Section {
    /// The first non-empty value of a property; names are not case-sensitive.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.properties.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// All values of a property.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.properties.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// A boolean: on/off, true/false, yes/no.
    pub fn switch(&self, name: &str, default: bool) -> Result<bool, Error> {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(default),
            Some("on" | "true" | "yes") => Ok(true),
            Some("off" | "false" | "no") => Ok(false),
            Some(other) => Err(self.error(format!("{name} {other:?} is neither on nor off"))),
        }
    }

    /// A number.
    pub fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T, Error> {
        match self.get(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| self.error(format!("{name} {text:?} is not a number that fits"))),
        }
    }

    /// Rejects unknown properties: ignoring one would run another configuration than the given one.
    pub fn only(&self, known: &[&str]) -> Result<(), Error> {
        match self.properties.iter().find(|(key, _)| !known.iter().any(|name| key.eq_ignore_ascii_case(name))) {
            None => Ok(()),
            Some((key, _)) => Err(self.error(format!(
                "the stand-in does not know {key:?} in [{}]; it knows {}. Run Fluent Bit for the rest",
                self.name,
                known.join(", ")
            ))),
        }
    }

    pub fn error(&self, message: String) -> Error {
        Error(format!("{}: {message}", self.place))
    }
}

/// What is wrong with a configuration, its position, and the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Error(pub String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a file and what it includes.
pub(super) fn read(path: &Path) -> Result<Vec<Section>, Error> {
    let mut reader = Reader { variables: HashMap::new(), sections: Vec::new(), depth: 0 };
    reader.file(path)?;
    Ok(reader.sections)
}

struct Reader {
    variables: HashMap<String, String>,
    sections: Vec<Section>,
    depth: u32,
}

impl Reader {
    fn file(&mut self, path: &Path) -> Result<(), Error> {
        if self.depth > 10 {
            return Err(Error(format!("{}: @INCLUDE goes round in a circle", path.display())));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error(format!("cannot read the configuration {}: {error}", path.display())))?;
        self.depth += 1;
        let result = self.text(path, &text);
        self.depth -= 1;
        result
    }

    fn text(&mut self, path: &Path, text: &str) -> Result<(), Error> {
        let mut open = false;
        let mut indentation: Option<&str> = None;
        for (at, line) in text.lines().enumerate() {
            let place = || format!("{}:{}", path.display(), at + 1);
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let lead = &line[..line.len() - line.trim_start().len()];
            if let Some(command) = trimmed.strip_prefix('@') {
                self.command(path, &place(), command)?;
            } else if let Some(name) = trimmed.strip_prefix('[') {
                let Some(name) = name.strip_suffix(']') else {
                    return Err(Error(format!("{}: a section's name ends with ]", place())));
                };
                if !lead.is_empty() {
                    return Err(Error(format!("{}: [{name}] is indented, sections must not be", place())));
                }
                (open, indentation) = (true, None);
                self.sections.push(Section { name: name.to_ascii_uppercase(), properties: Vec::new(), place: place() });
            } else {
                let section = self.sections.last_mut().filter(|_| open);
                let Some(section) = section else {
                    return Err(Error(format!("{}: a property stands before any section", place())));
                };
                if lead.is_empty() || *indentation.get_or_insert(lead) != lead {
                    return Err(Error(format!(
                        "{}: invalid indentation level: properties are indented, all alike within a section",
                        place()
                    )));
                }
                // A variable may be empty, but the property must have a value as written.
                let Some((key, value)) = trimmed.split_once(char::is_whitespace) else {
                    return Err(Error(format!("{}: undefined value of {trimmed}", place())));
                };
                section.properties.push((key.to_owned(), expand(value.trim(), &self.variables)));
            }
        }
        Ok(())
    }

    fn command(&mut self, path: &Path, place: &str, command: &str) -> Result<(), Error> {
        let (name, value) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let value = expand(value.trim(), &self.variables);
        match (name.to_ascii_uppercase().as_str(), value.split_once('=')) {
            ("SET", Some((name, value))) => {
                self.variables.insert(name.trim().to_owned(), value.trim().to_owned());
                Ok(())
            }
            ("INCLUDE", _) if !value.is_empty() => {
                let directory = path.parent().unwrap_or(Path::new("."));
                self.file(&beside(directory, &value))
            }
            _ => Err(Error(format!("{place}: @{command} is neither @SET name=value nor @INCLUDE file"))),
        }
    }
}

/// The path of a file named in a configuration, relative to its directory.
pub(super) fn beside(directory: &Path, file: &str) -> PathBuf {
    directory.join(file)
}

/// Replaces `${NAME}`; an unset variable is empty.
fn expand(text: &str, variables: &HashMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("${") {
        let Some(end) = rest[begin..].find('}') else { break };
        let name = &rest[begin + 2..begin + end];
        result.push_str(&rest[..begin]);
        let value = variables.get(name).cloned().or_else(|| std::env::var(name).ok());
        result.push_str(&value.unwrap_or_default());
        rest = &rest[begin + end + 1..];
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Section>, Error> {
        let mut reader = Reader { variables: HashMap::new(), sections: Vec::new(), depth: 0 };
        reader.text(Path::new("x.conf"), text)?;
        Ok(reader.sections)
    }

    #[test]
    fn sections_and_properties_are_read() {
        let sections = parse(
            "@SET who=me\n[SERVICE]\n  Flush 0.5\n\n# note\n[output]\n\tName  x y \n\tempty ${NO_SUCH}\n\tTo ${who}!${NO_SUCH}\n",
        )
        .unwrap();
        assert_eq!(sections[0].number("flush", 1.0), Ok(0.5));
        assert_eq!(sections[1].name, "OUTPUT");
        assert_eq!(sections[1].get("NAME"), Some("x y"));
        assert_eq!(sections[1].get("empty"), None);
        assert_eq!(sections[1].get("to"), Some("me!"));
    }

    #[test]
    fn mistakes_are_reported_with_their_line() {
        for (text, part) in [
            ("key value", "x.conf:1: a property stands before any section"),
            ("[A]\n  a 1\n   b 2", "x.conf:3: invalid indentation"),
            ("[A]\na 1", "x.conf:2: invalid indentation"),
            ("[A", "ends with ]"),
            ("@what x", "@SET"),
            ("[A]\n  key", "undefined value of key"),
        ] {
            let error = parse(text).unwrap_err().0;
            assert!(error.contains(part), "{text:?}: {error}");
        }
        let section = &parse("[A]\n a 1\n b x").unwrap()[0];
        assert!(section.only(&["a"]).unwrap_err().0.contains("\"b\""));
        assert!(section.number("b", 1).unwrap_err().0.contains("\"x\""));
    }
}
