//! Kubernetes' names, and texts in its YAML.

use std::fmt;

/// A DNS label (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names>): the name of a
/// namespace, of a container, and of everything that is written here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// Checks `text` once.
    pub fn new(text: &str) -> Result<Self, String> {
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let good = (1..=63).contains(&text.len())
            && text.starts_with(edge)
            && text.ends_with(edge)
            && text.chars().all(|c| edge(c) || c == '-');
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err("expected a name as Kubernetes takes them: 1 to 63 of a-z 0-9 -, a letter or digit at both ends"
                .to_owned())
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// An image's reference, with no more of its grammar than keeps it one YAML scalar.
pub fn image(text: &str) -> Result<String, String> {
    let good = !text.is_empty()
        && text.len() <= 512
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b));
    if good { Ok(text.to_owned()) } else { Err("expected an image such as registry.example/kubehose:0.1".to_owned()) }
}

/// `text` as a literal block scalar: kubectl, diff and people read it as the file that it becomes.
pub fn literal(text: &str, indent: usize) -> String {
    let mut out = String::from("|\n");
    for line in text.lines() {
        if !line.is_empty() {
            out.push_str(&" ".repeat(indent));
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

/// `text` with each of its lines moved to the right.
pub fn indented(text: &str, indent: usize) -> String {
    text.lines().map(|line| format!("{}{line}\n", " ".repeat(indent))).collect()
}

/// A name or an image as a scalar that every reader of YAML takes for a text: in quotes where it could be a number, a boolean or null.
pub fn scalar(text: &str) -> String {
    // YAML 1.1's words, which kubectl reads too: https://yaml.org/type/bool.html
    const WORDS: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    let is_word = WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is_word || !text.starts_with(|c: char| c.is_ascii_alphabetic()) { quoted(text) } else { text.to_owned() }
}

/// `text` as a single-quoted scalar, for what could be read as another type.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_images_stay_texts_in_yaml() {
        for text in ["true", "No", "null", "y", "123", "1e3", "0x10", "1-20", "12:30"] {
            assert_eq!(scalar(text), format!("'{text}'"));
        }
        for text in ["kubehose", "none", "nobody", "e3", "registry.example:5000/kubehose:0.1", "k@sha256:00"] {
            assert_eq!(scalar(text), text);
        }
    }

    #[test]
    fn an_image_is_one_scalar() {
        for bad in ["", "k:", ":k", "k 1", "k#", "k@", "é"] {
            assert!(image(bad).is_err(), "{bad}");
        }
    }
}
