//! YAML as a tree in which every node has its line and column. An alias is shared, never copied, so the work is bounded by
//! the file's size.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle};

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
    Sequence(Place, usize, Vec<Rc<Node>>),
    Mapping(Place, usize, Vec<(Rc<Node>, Rc<Node>)>, Option<Rc<Node>>),
}

/// The documents of `text`.
pub fn documents(text: &str) -> Result<Vec<Rc<Node>>, Fault> {
    let mut documents = Vec::new();
    let mut stack: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, Rc<Node>> = HashMap::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Fault {
            at: Place { line: error.marker().line().max(1), column: error.marker().col() + 1 },
            what: error.info().to_owned(),
        })?;
        let at = Place { line: span.start.line().max(1), column: span.start.col() + 1 };
        let end = Place { line: span.end.line().max(1), column: span.end.col() + 1 };
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                // The value of CloudFormation's tags (`!Ref AWS::Region`) is as unknown as a variable's.
                let open = tag.is_some_and(|tag| tag.handle == "!" && !text.is_empty());
                let text = if open { format!("${{{text}}}") } else { text.into_owned() };
                (Rc::new(Node { at, end, value: Value::Scalar { text, style } }), anchor)
            }
            Event::Alias(anchor) => {
                let Some(node) = anchors.get(&anchor) else {
                    return Err(Fault { at, what: "an alias inside of what it names".to_owned() });
                };
                (Rc::clone(node), 0)
            }
            Event::SequenceStart(anchor, _) => {
                stack.push(Open::Sequence(at, anchor, Vec::new()));
                if stack.len() > MAX_DEPTH {
                    return Err(Fault { at, what: format!("nested deeper than {MAX_DEPTH}") });
                }
                continue;
            }
            Event::MappingStart(anchor, _) => {
                stack.push(Open::Mapping(at, anchor, Vec::new(), None));
                if stack.len() > MAX_DEPTH {
                    return Err(Fault { at, what: format!("nested deeper than {MAX_DEPTH}") });
                }
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match stack.pop() {
                Some(Open::Sequence(at, anchor, items)) => {
                    (Rc::new(Node { at, end, value: Value::Sequence(items) }), anchor)
                }
                Some(Open::Mapping(at, anchor, pairs, _)) => {
                    (Rc::new(Node { at, end, value: Value::Mapping(pairs) }), anchor)
                }
                None => continue,
            },
            _ => continue,
        };
        if anchor != 0 {
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
