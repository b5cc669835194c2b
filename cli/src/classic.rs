//! Writes Fluent Bit's classic configuration: sections of aligned keys, deeper than their section's line.

use std::fmt::Write as _;

/// One `[SECTION]`.
#[derive(Clone, Debug)]
pub struct Section {
    name: &'static str,
    entries: Vec<(String, String)>,
}

impl Section {
    /// An empty section.
    pub fn new(name: &'static str) -> Self {
        Self { name, entries: Vec::new() }
    }

    /// Adds `key value`.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.entries.push((key.to_owned(), value.to_string()));
        self
    }

    /// Adds each pair.
    #[must_use]
    pub fn set_all<'a>(self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        pairs.into_iter().fold(self, |section, (key, value)| section.set(key, value))
    }

    /// Adds `key value` if there is a value.
    #[must_use]
    pub fn set_if(self, key: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.set(key, value),
            None => self,
        }
    }
}

impl Section {
    /// What follows the section's line, not indented.
    pub fn body(&self) -> String {
        let width = self.entries.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
        self.entries.iter().map(|(key, value)| format!("{key:width$} {value}\n")).collect()
    }
}

/// The sections as a file.
pub fn render(sections: &[Section]) -> String {
    let mut text = String::new();
    for (index, section) in sections.iter().enumerate() {
        let gap = if index == 0 { "" } else { "\n" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{gap}[{}]", section.name);
        for line in section.body().lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

/// The sections as a file of as few characters as can be.
pub fn render_narrow(sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections {
        let _ = writeln!(text, "[{}]", section.name);
        for (key, value) in &section.entries {
            let _ = writeln!(text, " {key} {value}");
        }
    }
    text
}
