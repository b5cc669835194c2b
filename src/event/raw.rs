//! Values at some paths of an event, found in its msgpack without laying the rest on a tape.

use crate::event::chunk::{Chunk, Malformed, Reader, Token};
use crate::event::known::Known;
use crate::event::path::{Node, Paths};

/// An event with paths that go deeper than this is left to the tape.
const MOST_LEVELS: usize = 32;

/// Finds values, and keeps its buffers and maps from event to event.
#[derive(Clone, Debug, Default)]
pub struct Finder {
    /// Where the value at the path with this number begins.
    found: Vec<Option<usize>>,
    /// Root attributes, with the number of each path into their values and how far behind the value's beginning it leads.
    known: Known<Vec<(usize, usize)>>,
}

impl Finder {
    /// Looks up all paths in the next event, and moves past it. Returns the data in which [`Finder::token`] finds their values;
    /// `None`, without moving, if the event must be read onto the tape.
    pub fn find<'a>(&mut self, paths: &Paths, chunk: &mut Chunk<'a>) -> Option<&'a [u8]> {
        let (_, data) = chunk.plain_head()?;
        self.found.clear();
        self.found.resize(paths.count(), None);
        let mut reader = Reader::at(data, 0);
        let Ok((Token::Map { len, .. }, _)) = reader.token() else { return None };
        for _ in 0..len {
            let attribute = reader;
            let Some(child) = key(&mut reader, paths.root()).ok()? else { continue };
            child.forget(&mut self.found);
            let at = reader.position();
            child.ends().iter().for_each(|number| self.found[*number] = Some(at));
            if !child.goes_on() {
                reader.skip(1).ok()?;
                continue;
            }
            // With its key, since other paths may lead into an equal value of another attribute.
            match self.known.find(attribute.rest()) {
                Ok((bytes, below)) => {
                    below.iter().for_each(|(number, offset)| self.found[*number] = Some(at + offset));
                    reader = attribute;
                    reader.pass(bytes);
                }
                Err(unknown) => {
                    value(&mut reader, child, &mut self.found, 1).ok()?;
                    let whole = data.get(attribute.position()..reader.position())?;
                    if let Some(below) = self.known.keep(unknown, whole) {
                        below.clear();
                        let found = self.found.iter().enumerate();
                        let within =
                            found.filter_map(|(number, found)| Some((number, found.filter(|found| *found > at)?)));
                        below.extend(within.map(|(number, found)| (number, found - at)));
                    }
                }
            }
        }
        chunk.pass(data, reader.position());
        Some(data)
    }

    /// The value at the path with this number, in the data that [`Finder::find`] returned: of a container only its head.
    pub fn token<'a>(&self, number: usize, data: &'a [u8]) -> Option<Token<'a>> {
        let at = self.found.get(number).copied().flatten()?;
        Reader::at(data, at).token().ok().map(|(token, _)| token)
    }
}

/// Reads a key. If no path goes on with it, moves past its value, too.
fn key<'p>(reader: &mut Reader<'_>, node: &'p Node) -> Result<Option<&'p Node>, Malformed> {
    let (key, contents) = reader.token()?;
    let child = match key {
        Token::Str(name) | Token::Bin(name) => node.child(name),
        _ => None,
    };
    if child.is_none() {
        reader.skip(contents.unwrap_or(0) + 1)?;
    }
    Ok(child)
}

/// Moves past a value, in which the paths below `node` are looked up if it is a map.
fn value(reader: &mut Reader<'_>, node: &Node, found: &mut [Option<usize>], levels: usize) -> Result<(), Malformed> {
    let (token, contents) = reader.token()?;
    let Token::Map { len, .. } = token else { return reader.skip(contents.unwrap_or(0)) };
    if levels > MOST_LEVELS {
        return Err(Malformed);
    }
    for _ in 0..len {
        let Some(child) = key(reader, node)? else { continue };
        child.forget(found);
        let at = reader.position();
        for number in child.ends() {
            if let Some(found) = found.get_mut(*number) {
                *found = Some(at);
            }
        }
        match child.goes_on() {
            true => value(reader, child, found, levels + 1)?,
            false => reader.skip(1)?,
        }
    }
    Ok(())
}
