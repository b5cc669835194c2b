//! YAML as a tree in which every node has its line and column. An alias is shared, never copied, so the work is bounded by
//! the file's size. It is read by a port of libyaml: Fluent Bit reads with libyaml itself, kubectl with another port of it, and a
//! reader that follows YAML 1.2 to the letter refuses files that both accept.

use std::collections::HashMap;
use std::io::{BufRead, Read as _};
use std::rc::Rc;

pub use libyaml_safer::ScalarStyle;
use libyaml_safer::{EventData, Parser};

/// A place in a file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// A node, where it begins and where it ends.
#[derive(Debug)]
pub struct Node {
    pub at: Place,
    /// Where it ends; for a block, where the reader noticed the end.
    pub end: Place,
    pub value: Value,
}

/// What a node is.
#[derive(Debug)]
pub enum Value {
    Scalar { text: String, style: ScalarStyle },
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<(Rc<Node>, Rc<Node>)>),
}

/// Why a text is not YAML.
#[derive(Debug)]
pub struct Fault {
    pub at: Place,
    pub what: String,
}

/// The most levels; deeper than any manifest.
const MAX_DEPTH: usize = 64;

impl Node {
    /// The scalar's text.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The scalar's text if YAML reads it as a string: quoted, a block, or a word that is neither a number nor a keyword.
    pub fn string(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, style: ScalarStyle::Plain } if !is_plain_string(text) => None,
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The mapping's pairs, none for anything else.
    pub fn pairs(&self) -> &[(Rc<Node>, Rc<Node>)] {
        match &self.value {
            Value::Mapping(pairs) => pairs,
            _ => &[],
        }
    }

    /// The sequence's items, none for anything else.
    pub fn items(&self) -> &[Rc<Node>] {
        match &self.value {
            Value::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Rc<Node>> {
        self.pairs().iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }
}

/// Whether YAML 1.1, which kubectl reads, treats a plain scalar as a string.
fn is_plain_string(text: &str) -> bool {
    let keyword = ["", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    !keyword.contains(&text.to_ascii_lowercase().as_str()) && text.parse::<f64>().is_err()
}

/// What is being built.
enum Open {
    Sequence(Place, Option<String>, Vec<Rc<Node>>),
    Mapping(Place, Option<String>, Vec<(Rc<Node>, Rc<Node>)>, Option<Rc<Node>>),
}

/// The place of bytes of a text, each found from the one before.
#[derive(Clone)]
struct Cursor<'t> {
    text: &'t str,
    byte: usize,
    place: Place,
}

impl<'t> Cursor<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, byte: 0, place: Place { line: 1, column: 1 } }
    }

    /// Goes on to a byte; libyaml's own lines end also where those of an editor do not.
    fn go(&mut self, byte: usize) -> Place {
        let byte = byte.min(self.text.len());
        if byte < self.byte {
            *self = Self::new(self.text);
        }
        for c in self.text.get(self.byte..byte).unwrap_or_default().chars() {
            match c {
                '\n' => self.place = Place { line: self.place.line + 1, column: 1 },
                _ => self.place.column += 1,
            }
        }
        self.byte = byte;
        self.place
    }
}

/// Where the content of a node begins, behind its anchor and its tag.
fn content(text: &str, from: usize, to: usize) -> usize {
    let mut at = from;
    while let Some(rest) = text.get(at..to).filter(|rest| rest.starts_with(['&', '!'])) {
        let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let mut behind = &rest[word..];
        loop {
            behind = behind.trim_start();
            if !behind.starts_with('#') {
                break;
            }
            behind = behind.find('\n').map_or("", |end| &behind[end..]);
        }
        at = to - behind.len();
    }
    at
}

/// The place of a byte that a mark of libyaml names.
fn byte(mark: libyaml_safer::Mark) -> usize {
    usize::try_from(mark.index).unwrap_or(usize::MAX)
}

fn fault(text: &str, error: &libyaml_safer::Error) -> Fault {
    let is_refused = |c: &char| {
        let allowed = matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..);
        !allowed || *c == '\u{feff}'
    };
    let at = match error.problem_mark() {
        Some(mark) => byte(mark),
        // The reader of characters has no marks.
        None => text.char_indices().find(|(_, c)| is_refused(c)).map_or(0, |(at, _)| at),
    };
    let context = error.context().map_or(String::new(), |context| format!(" {context}"));
    Fault { at: Cursor::new(text).go(at.min(text.len())), what: format!("{}{context}", error.problem()) }
}

/// What libyaml reads in `text`. Its last line gets an end if it has none, without which this port does not always see the end.
fn events(text: &str) -> Parser<impl BufRead> {
    let end: &[u8] = if text.ends_with('\n') { b"" } else { b"\n" };
    let mut parser = Parser::new();
    parser.set_input(text.as_bytes().chain(end));
    parser
}

/// Where a tag may have a comma directly behind it, which in a flow this port of libyaml has no answer to but to panic.
fn unanswered(text: &str) -> Option<usize> {
    text.match_indices('!').map(|(at, _)| at).find(|at| {
        let ends = |c: char| c.is_whitespace() || ",[]{}".contains(c);
        text[*at..].find(ends).is_some_and(|end| text[at + end..].starts_with(','))
    })
}

/// Does `read`, and catches its panic without a word.
fn quietly<T>(read: impl FnOnce() -> T) -> Option<T> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    std::panic::set_hook(hook);
    done.ok()
}

/// The places of the aliases in a text that is YAML.
pub fn aliases(text: &str) -> Vec<Place> {
    let mut cursor = Cursor::new(text);
    let events = events(text).map_while(Result::ok);
    let is_alias = |event: &libyaml_safer::Event| matches!(event.data, EventData::Alias { .. });
    events.filter(is_alias).map(|event| cursor.go(byte(event.start_mark))).collect()
}

/// The documents of `text`.
pub fn documents(text: &str) -> Result<Vec<Rc<Node>>, Fault> {
    let Some(at) = unanswered(text) else { return read(text) };
    quietly(|| read(text)).unwrap_or_else(|| {
        let what = "a comma directly behind a tag: put a blank between".to_owned();
        Err(Fault { at: Cursor::new(text).go(at), what })
    })
}

fn read(text: &str) -> Result<Vec<Rc<Node>>, Fault> {
    let mut documents = Vec::new();
    let mut stack: Vec<Open> = Vec::new();
    let mut anchors: HashMap<String, Rc<Node>> = HashMap::new();
    let mut cursor = Cursor::new(text);
    for event in events(text) {
        let event = event.map_err(|error| fault(text, &error))?;
        let (from, to) = (byte(event.start_mark), byte(event.end_mark));
        let at = cursor.go(from);
        let mut behind = cursor.clone();
        let (node, anchor) = match event.data {
            EventData::Scalar { value, anchor, tag, style, .. } => {
                // The value of CloudFormation's tags (`!Ref AWS::Region`) is as unknown as a variable's.
                let open = tag.is_some_and(|tag| tag.starts_with('!') && tag.len() > 1 && !value.is_empty());
                let text = if open { format!("${{{value}}}") } else { value };
                let at = behind.go(content(cursor.text, from, to));
                let end = behind.go(to);
                (Rc::new(Node { at, end, value: Value::Scalar { text, style } }), anchor)
            }
            EventData::Alias { anchor } => {
                let Some(node) = anchors.get(&anchor) else {
                    return Err(Fault { at, what: format!("an alias of {anchor}, which is not there before it") });
                };
                (Rc::clone(node), None)
            }
            EventData::SequenceStart { anchor, .. } => {
                stack.push(Open::Sequence(behind.go(content(text, from, to)), anchor, Vec::new()));
                if stack.len() > MAX_DEPTH {
                    return Err(Fault { at, what: format!("nested deeper than {MAX_DEPTH}") });
                }
                continue;
            }
            EventData::MappingStart { anchor, .. } => {
                stack.push(Open::Mapping(behind.go(content(text, from, to)), anchor, Vec::new(), None));
                if stack.len() > MAX_DEPTH {
                    return Err(Fault { at, what: format!("nested deeper than {MAX_DEPTH}") });
                }
                continue;
            }
            EventData::SequenceEnd | EventData::MappingEnd => {
                let end = behind.go(to);
                match stack.pop() {
                    Some(Open::Sequence(at, anchor, items)) => {
                        (Rc::new(Node { at, end, value: Value::Sequence(items) }), anchor)
                    }
                    Some(Open::Mapping(at, anchor, pairs, _)) => {
                        (Rc::new(Node { at, end, value: Value::Mapping(pairs) }), anchor)
                    }
                    None => continue,
                }
            }
            // An anchor names nothing beyond its document.
            EventData::DocumentEnd { .. } => {
                anchors.clear();
                continue;
            }
            _ => continue,
        };
        if let Some(anchor) = anchor {
            anchors.insert(anchor, Rc::clone(&node));
        }
        match stack.last_mut() {
            None => documents.push(node),
            Some(Open::Sequence(_, _, items)) => items.push(node),
            Some(Open::Mapping(_, _, pairs, key)) => match key.take() {
                None => *key = Some(node),
                Some(key) => pairs.push((key, node)),
            },
        }
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Rc<Node> {
        documents(text).unwrap_or_else(|fault| panic!("{text:?}: {} at {:?}", fault.what, fault.at)).remove(0)
    }

    /// What libyaml accepts, and with it Fluent Bit and kubectl.
    #[test]
    fn what_libyaml_accepts_is_yaml() {
        for (text, items) in [
            ("a: [\n  'x',\n  \"y\"\n]\n", 2),
            ("o:\n  a: [\n    'x'\n  ]\n", 1),
            ("a: [\n'x',\ny\n]\nb: 1\n", 2),
            ("a:\t[x, y]\n", 2),
        ] {
            let node = only(text);
            let holder = node.get("o").unwrap_or(&node);
            assert_eq!(holder.get("a").unwrap().items().len(), items, "{text:?}");
        }
        assert_eq!(only("a:\tx\n").get("a").unwrap().text(), Some("x"));
        assert_eq!(only("{\"a\":\"\\/\", \"b\":[1,2]}").get("b").unwrap().items().len(), 2);
    }

    #[test]
    fn a_fault_is_where_it_stands() {
        for (text, line, column) in [
            ("a: [x\nb: y\n", 2, 2),
            ("a: b: c\n", 1, 5),
            ("é: 'x\n", 2, 1),
            ("a: é\u{1}\n", 1, 5),
            ("\tb: 1\n", 1, 1),
            ("a:\n-\ty\n", 2, 2),
            ("a: *b\n", 1, 4),
            ("a: &a [*a]\n", 1, 8),
            ("a: 1\n---\nb: &x 1\n---\nc: *x\n", 5, 4),
            ("a: [!x,]\n", 1, 5),
            ("a: \"\\", 1, 6),
        ] {
            let fault = documents(text).unwrap_err();
            assert_eq!((fault.at.line, fault.at.column), (line, column), "{text:?}: {}", fault.what);
        }
    }

    /// Texts that end anywhere, of any of YAML's signs: each is YAML or has a fault, and none ends the program.
    #[test]
    fn no_text_is_too_much() {
        let words = [
            "a", "é", " ", "  ", "\n", "\r", "\t", "- ", ": ", "[", "]", "{", "}", "\"", "'", "|", "|+", ">-", "&a",
            "*a", "!", "!t", "!<", "!!s", "%YAML", "---", "...", "#", "? ", "\\", "\\x", ",", "\u{85}", "\u{2028}",
            "\u{feff}", "\u{1}",
        ];
        let mut seed = 0x2545_F491_4F6C_DD1D_u64;
        let mut read = 0;
        for _ in 0..200_000 {
            let mut text = String::new();
            for _ in 0..seed % 12 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                text.push_str(words[(seed % words.len() as u64) as usize]);
            }
            seed = seed.rotate_left(9) ^ 0x9E37_79B9;
            read += usize::from(documents(&text).is_ok());
        }
        assert!(read > 1000, "{read}");
    }

    /// Places are those of an editor: lines end with a newline alone, columns count characters.
    #[test]
    fn a_node_is_where_its_content_stands() {
        let node = only("é: &x !t\n  'y'\nb: 'a\u{2028}b'\nc: &l |\n  text\nd: {e: f}\n");
        let at = |key: &str| {
            let at = node.get(key).unwrap().at;
            (at.line, at.column)
        };
        assert_eq!((at("é"), at("b"), at("c"), at("d")), ((2, 3), (3, 4), (4, 7), (6, 4)));
        let end = node.get("b").unwrap().end;
        assert_eq!((end.line, end.column), (3, 9));
        assert_eq!(aliases("a: &x 1\nb:\n  - *x\nc: *x").len(), 2);
    }
}
