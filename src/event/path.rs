//! Paths to values of an event, and many of them looked up in one pass.

use crate::event::chunk::{Token, Value};

/// The path to a value: `a.b.c`, or `$a['b.c']['d']` as Fluent Bit's record accessor writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    segments: Vec<Box<[u8]>>,
}

impl Path {
    /// Reads either form. The error says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Path, String> {
        let segments = match text.strip_prefix('$') {
            Some(accessor) => parse_accessor(accessor)?,
            None => text.split('.').map(str::to_owned).collect(),
        };
        if segments.iter().any(String::is_empty) {
            return Err(format!("the path '{text}' has an empty part"));
        }
        Ok(Path { segments: segments.into_iter().map(|part| part.into_bytes().into_boxed_slice()).collect() })
    }

    /// The path of a root attribute, whatever characters its name has.
    pub fn attribute(name: &[u8]) -> Path {
        Path { segments: vec![name.into()] }
    }

    /// Its parts, from the root on.
    pub fn segments(&self) -> &[Box<[u8]>] {
        &self.segments
    }
}

/// Reads what follows the dollar sign: `a['b.c']['d']`.
fn parse_accessor(text: &str) -> Result<Vec<String>, String> {
    let (first, mut rest) = text.split_at(text.find('[').unwrap_or(text.len()));
    let mut parts = vec![first.to_owned()];
    while !rest.is_empty() {
        let inner = rest.strip_prefix("['").and_then(|rest| rest.split_once("']"));
        let Some((part, behind)) = inner else {
            return Err(format!(
                "'${text}' is not a record accessor: after the first key, each part is written ['key']"
            ));
        };
        parts.push(part.to_owned());
        rest = behind;
    }
    Ok(parts)
}

/// Where a path led: indices of the last key and of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Index of the key on the tape.
    pub key: usize,
    /// Index of the value.
    pub value: usize,
}

/// A set of paths that are looked up together, in one pass.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    root: Node,
    count: usize,
}

/// A step of such paths: what may follow, and which paths end here.
#[derive(Clone, Debug, Default)]
pub struct Node {
    children: Vec<(Box<[u8]>, Node)>,
    /// Bit n: a child's name has n bytes (63 and more: bit 63). This alone rules out most keys of an event.
    lengths: u64,
    /// The numbers of the paths that end here.
    ends: Vec<usize>,
}

fn length_bit(name: &[u8]) -> u64 {
    1 << name.len().min(63)
}

impl Paths {
    /// How many paths there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Adds a path; returns its number in [`Paths::find`].
    pub fn add(&mut self, path: &Path) -> usize {
        let mut node = &mut self.root;
        for segment in &path.segments {
            node.lengths |= length_bit(segment);
            let at = match node.children.iter().position(|(name, _)| name == segment) {
                Some(at) => at,
                None => {
                    node.children.push((segment.clone(), Node::default()));
                    node.children.len() - 1
                }
            };
            node = &mut node.children[at].1;
        }
        node.ends.push(self.count);
        self.count += 1;
        self.count - 1
    }

    /// The node where all paths begin.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Looks up all paths in `root`; replaces `found` by one entry for each number. If a key is repeated, the last
    /// counts.
    pub fn find(&self, root: Value<'_, '_>, found: &mut Vec<Option<Found>>) {
        found.clear();
        found.resize(self.count, None);
        self.root.find(root, found);
    }
}

impl Node {
    /// The child with this name.
    #[inline]
    pub fn child(&self, name: &[u8]) -> Option<&Node> {
        if self.lengths & length_bit(name) == 0 {
            return None;
        }
        self.children.iter().find(|(child, _)| **child == *name).map(|(_, node)| node)
    }

    /// The numbers of the paths that end here.
    pub fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// Whether paths go on from here.
    pub fn goes_on(&self) -> bool {
        !self.children.is_empty()
    }

    fn find(&self, map: Value<'_, '_>, found: &mut [Option<Found>]) {
        for (key, value) in map.pairs() {
            let (Token::Str(name) | Token::Bin(name)) = key.token() else { continue };
            if self.lengths & length_bit(name) == 0 {
                continue;
            }
            for (child_name, child) in &self.children {
                if **child_name == *name {
                    child.forget(found);
                    for number in &child.ends {
                        found[*number] = Some(Found { key: key.at, value: value.at });
                    }
                    if child.lengths != 0 {
                        child.find(value, found);
                    }
                }
            }
        }
    }

    /// What an earlier key of the same name had below it does not count any more.
    pub fn forget<T>(&self, found: &mut [Option<T>]) {
        for (_, child) in &self.children {
            for number in &child.ends {
                found[*number] = None;
            }
            child.forget(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::chunk::Chunk;

    #[test]
    fn many_paths_are_found_in_one_pass_and_the_last_of_repeated_keys_counts() {
        // {"a": {"b": 1, "c": 2}, "x": 3, "a": {"b": 4}}
        let data = b"\x92\x07\x83\xa1a\x82\xa1b\x01\xa1c\x02\xa1x\x03\xa1a\x81\xa1b\x04";
        let mut chunk = Chunk::new(data);
        let body = chunk.next_event().unwrap().body;
        let mut paths = Paths::default();
        for path in ["a.b", "a.c", "x", "a", "$a['b']", "x.y", "no"] {
            paths.add(&Path::parse(path).unwrap());
        }
        let mut found = Vec::new();
        paths.find(body, &mut found);
        let values: Vec<_> =
            found.iter().map(|found| found.map(|found| Value { tape: body.tape, at: found.value }.token())).collect();
        let four = Some(Token::UInt(4));
        assert!(matches!(values[3], Some(Token::Map { len: 1, .. })));
        assert_eq!((values[0], values[1], values[2], values[4]), (four, None, Some(Token::UInt(3)), four));
        assert_eq!((values[5], values[6]), (None, None));
    }
}
