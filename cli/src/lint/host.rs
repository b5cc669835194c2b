//! The host's plugins and their options, from `host.txt`, which scripts/host-schema.py writes from Fluent Bit's own schema.

use std::collections::HashMap;
use std::sync::LazyLock;

/// How the host reads an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Bool,
    /// A number without a fraction; any other text is read as 0.
    Int,
    Double,
    Size,
    Time,
    /// Words, separated by blanks, and how many there must be.
    Words(usize),
    /// Words, separated by commas, and how many there must be.
    Commas(usize),
    /// The beginning of a name.
    Prefix,
    /// Any text.
    Text,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct HostOption {
    pub name: &'static str,
    pub kind: Type,
    /// Whether it may be repeated.
    pub many: bool,
}

/// One plugin.
#[derive(Debug)]
pub struct Plugin {
    pub name: &'static str,
    /// Whether the host's TLS serves it.
    pub tls: bool,
    /// Whether the host's HTTP server serves it, and with it options of its own.
    pub http_server: bool,
    /// Whether it has no options, and the host knows that.
    pub bare: bool,
    /// Whether it is an input that connects to others.
    pub client: bool,
    /// Whether it is an input that others connect to.
    pub server: bool,
    pub options: Vec<HostOption>,
}

impl Plugin {
    /// The option of that name, in small letters.
    pub fn option(&self, name: &str) -> Option<&HostOption> {
        self.options.iter().find(|option| match option.kind {
            Type::Prefix => name.len() > option.name.len() && name.starts_with(option.name),
            _ => option.name == name,
        })
    }
}

type Table = HashMap<&'static str, Vec<Plugin>>;

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table::new();
    let mut kind = "";
    for line in include_str!("host.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (Some(first), Some(second)) = (words.next(), words.next()) else { continue };
        if line.starts_with(' ') {
            let many = second.ends_with('+');
            let option = HostOption { name: first, kind: type_of(second.trim_end_matches('+')), many };
            if let Some(plugin) = table.get_mut(kind).and_then(|plugins| plugins.last_mut()) {
                plugin.options.push(option);
            }
            continue;
        }
        kind = first;
        let marks: Vec<&str> = words.collect();
        table.entry(kind).or_default().push(Plugin {
            name: second,
            tls: marks.contains(&"tls"),
            http_server: marks.contains(&"http-server"),
            bare: marks.contains(&"bare"),
            client: marks.contains(&"client"),
            server: marks.contains(&"server"),
            options: Vec::new(),
        });
    }
    table
});

fn type_of(word: &str) -> Type {
    let count = |prefix: &str| word.strip_prefix(prefix).map(|number| number.parse().unwrap_or(0));
    match word {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "double" => Type::Double,
        "size" => Type::Size,
        "time" => Type::Time,
        "prefix" => Type::Prefix,
        _ => count("words").map(Type::Words).or_else(|| count("commas").map(Type::Commas)).unwrap_or(Type::Text),
    }
}

/// The plugins of a section's kind: INPUT, FILTER, OUTPUT, CUSTOM.
pub fn plugins(section: &str) -> &'static [Plugin] {
    TABLE.get(section.to_ascii_lowercase().as_str()).map_or(&[], Vec::as_slice)
}

/// The plugin of that name, which may be followed by `://` and an address.
pub fn plugin(section: &str, name: &str) -> Option<&'static Plugin> {
    let name = name.split("://").next().unwrap_or(name).to_ascii_lowercase();
    // The host's own second name of a plugin (src/flb_plugin_alias.c).
    let name = if section == "OUTPUT" && name == "elasticsearch" { "es".to_owned() } else { name };
    plugins(section).iter().find(|plugin| plugin.name == name)
}

/// Options that the core reads for many plugins: of `client`, `server`, `http-server`, and of `tls` and `oauth2` for inputs and outputs.
pub fn shared(name: &str) -> Option<&'static Plugin> {
    plugin("SHARED", name)
}

/// What the host reads as a boolean (flb_utils_bool).
pub fn bool_of(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" => Some(true),
        "false" | "off" | "no" => Some(false),
        _ => None,
    }
}

/// Whether the host reads the text as a size (flb_utils_size_to_bytes): a number, then nothing, K, M or G, with or without B.
pub fn is_size(text: &str) -> bool {
    if text.eq_ignore_ascii_case("false") {
        return true;
    }
    let tail = text.bytes().skip(1).collect::<Vec<u8>>().iter().rev().take_while(|b| !b.is_ascii_digit()).count();
    let unit = text.get(text.len() - tail.min(text.len())..).unwrap_or("?").to_ascii_uppercase();
    !text.is_empty() && ["", "K", "KB", "M", "MB", "G", "GB"].contains(&unit.as_str())
}

/// Whether the host finds a number at the beginning of the text (atoi), which it otherwise reads as 0.
pub fn begins_with_number(text: &str) -> bool {
    let digits = text.trim_start().trim_start_matches(['+', '-']);
    digits.trim_start_matches('.').starts_with(|c: char| c.is_ascii_digit())
}

/// The words of a list, as the host separates them (flb_slist_split_tokens): quotes keep one together, and the last one of
/// `most` is the whole rest.
pub fn words(text: &str, most: usize) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(' ');
    while !rest.is_empty() {
        if most > 0 && words.len() == most {
            words.push(rest.to_owned());
            break;
        }
        let (word, after) = match rest.strip_prefix('"') {
            Some(inner) => {
                let end = inner.char_indices().find(|(at, c)| *c == '"' && !inner[..*at].ends_with('\\'));
                let end = end.map_or(inner.len(), |(at, _)| at);
                (inner[..end].replace("\\\"", "\""), inner.get(end + 1..).unwrap_or_default())
            }
            None => {
                let end = rest.find(' ').unwrap_or(rest.len());
                (rest[..end].to_owned(), rest.get(end + 1..).unwrap_or_default())
            }
        };
        words.push(word);
        rest = after.trim_start_matches(' ');
    }
    words
}

/// The parts of a value as flb_utils_split_quoted makes them, the last one all that remains after `most`; None where a quote
/// is left open.
pub fn split_quoted(text: &str, most: usize) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if parts.len() == most {
            parts.push(rest.to_owned());
            break;
        }
        let token = rest.trim_start_matches(' ');
        match token.chars().next().filter(|c| ['"', '\''].contains(c)) {
            Some(quote) => {
                let mut word = String::new();
                let mut characters = token.char_indices().skip(1).peekable();
                let mut end = None;
                while let Some((at, c)) = characters.next() {
                    match c {
                        '\\' => match characters.peek() {
                            Some((_, next)) if *next == quote || *next == '\\' => {
                                word.push(*next);
                                characters.next();
                            }
                            _ => word.push(c),
                        },
                        _ if c == quote => {
                            end = Some(at + 1);
                            break;
                        }
                        _ => word.push(c),
                    }
                }
                rest = token.get(end?..).unwrap_or_default();
                rest = rest.strip_prefix(' ').unwrap_or(rest);
                parts.push(word);
            }
            None => {
                let end = token.find(' ').unwrap_or(token.len());
                parts.push(token[..end].to_owned());
                rest = token.get(end + 1..).unwrap_or_default();
            }
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_the_plugins_with_their_options() {
        let firehose = plugin("OUTPUT", "kinesis_firehose").unwrap();
        assert!(!firehose.tls && firehose.option("delivery_stream").is_some() && firehose.option("tls").is_none());
        assert!(plugin("OUTPUT", "HTTP").unwrap().tls && plugin("OUTPUT", "tcp://1.2.3.4:5").is_some());
        assert_eq!(plugin("FILTER", "rewrite_tag").unwrap().option("rule").unwrap().kind, Type::Words(4));
        assert!(plugin("FILTER", "modify").unwrap().option("rename").unwrap().many);
        assert!(!plugin("FILTER", "parser").unwrap().option("key_name").unwrap().many);
        assert!(plugin("INPUT", "systemd").is_some() && plugin("INPUT", "nope").is_none());
        for kind in ["INPUT", "FILTER", "OUTPUT"] {
            assert!(plugins(kind).len() > 15, "{kind}");
        }
    }

    #[test]
    fn values_are_read_as_the_host_reads_them() {
        for (text, good) in
            [("5M", true), ("5MB", true), ("5m", true), ("x", true), ("12 parsec", false), ("5X", false)]
        {
            // A single letter has no digit to end it, and counts as a number.
            assert_eq!(is_size(text), good, "{text}");
        }
        assert!(begins_with_number("-5s") && !begins_with_number("many"));
        assert_eq!(words("a \"b c\" d e", 2), ["a", "b c", "d e"]);
        assert_eq!(split_quoted("a 'b c' d", 3).unwrap(), ["a", "b c", "d"]);
        assert_eq!(split_quoted("a b c d e", 3).unwrap(), ["a", "b", "c", "d e"]);
        assert!(split_quoted("a 'b", 3).is_none());
    }
}
