//! Inputs: where events come from.

mod dummy;
mod stdin;
mod tail;

use std::collections::HashMap;
use std::sync::Arc;

use super::chunk::Chunks;
use super::configuration::{Error, Section};
use super::parser::Parser;

/// The result of a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// More events may be available immediately.
    More,
    /// No events now.
    Idle,
    /// No more events will come; the service must stop.
    Done,
}

/// A source of events.
pub(super) trait Input: Send {
    /// Adds the available events to `chunks`, without waiting for more.
    fn collect(&mut self, chunks: &mut Chunks) -> Progress;
}

/// Creates the input of an `[INPUT]`. `number` distinguishes inputs of the same kind.
pub(super) fn from_section(
    section: &Section,
    number: usize,
    parsers: &HashMap<String, Parser>,
) -> Result<Box<dyn Input>, Error> {
    let kind =
        section.get("name").ok_or_else(|| section.error("[INPUT] needs a Name".to_owned()))?.to_ascii_lowercase();
    let name: Arc<str> = section.get("alias").map_or_else(|| format!("{kind}.{number}"), str::to_owned).into();
    let parser = section.get("parser").map(|wanted| {
        parsers.get(wanted).cloned().ok_or_else(|| {
            section.error(format!("the parser {wanted:?} is not defined; name its file with parsers_file in [SERVICE]"))
        })
    });
    let parser = parser.transpose()?;
    Ok(match kind.as_str() {
        "tail" => Box::new(tail::Tail::from_section(section, name, parser)?),
        "dummy" => Box::new(dummy::Dummy::from_section(section, name)?),
        "stdin" => Box::new(stdin::Stdin::from_section(section, name, parser)?),
        _ => {
            return Err(section.error(format!("the stand-in has no input {kind:?}, only tail, dummy and stdin")));
        }
    })
}
