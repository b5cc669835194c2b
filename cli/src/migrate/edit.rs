//! Edits of a text in place: what is not edited stays byte for byte, the ends of its lines included.

use std::ops::Range;

use super::options::Change;
use crate::lint::yaml::Place;

/// A text and its edits.
pub struct Edits<'t> {
    text: &'t str,
    /// Where each line begins.
    starts: Vec<usize>,
    newline: &'static str,
    list: Vec<(Range<usize>, String)>,
}

impl<'t> Edits<'t> {
    /// No edits yet.
    pub fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        Self { text, starts, newline, list: Vec::new() }
    }

    /// The end of a line, as the lines of the text have it.
    pub fn newline(&self) -> &'static str {
        self.newline
    }

    /// The byte at which a place lies.
    pub fn offset(&self, place: Place) -> usize {
        let start = self.starts.get(place.line.saturating_sub(1)).copied().unwrap_or(self.text.len());
        let line = self.text.get(start..).unwrap_or_default();
        line.char_indices().nth(place.column.saturating_sub(1)).map_or(self.text.len(), |(at, _)| start + at)
    }

    /// Where the line begins that a byte stands in.
    pub fn line_start(&self, at: usize) -> usize {
        self.text.get(..at).and_then(|head| head.rfind('\n')).map_or(0, |newline| newline + 1)
    }

    /// Where the line ends that a byte stands in, before its newline.
    pub fn line_end(&self, at: usize) -> usize {
        let end = self.text.get(at..).and_then(|tail| tail.find('\n')).map_or(self.text.len(), |newline| at + newline);
        if self.text.get(at..end).is_some_and(|line| line.ends_with('\r')) { end - 1 } else { end }
    }

    /// The bytes of a range.
    pub fn slice(&self, range: Range<usize>) -> &'t str {
        self.text.get(range).unwrap_or_default()
    }

    /// Puts `with` in the place of a range.
    pub fn replace(&mut self, range: Range<usize>, with: impl Into<String>) {
        self.list.push((range, with.into()));
    }

    /// Puts a line behind the line in which a byte stands.
    pub fn insert_after(&mut self, at: usize, line: &str) {
        let end = self.line_end(at);
        self.replace(end..end, format!("{}{line}", self.newline()));
    }

    /// Comments what stands in `range`, which begins a line but for its indent, with the reason before it.
    pub fn comment(&mut self, range: Range<usize>, why: &str) {
        let start = self.line_start(range.start);
        // A list's dash stays where it is; what follows it is deeper.
        let blank = |c: char| if c == '\t' { '\t' } else { ' ' };
        let gap: String = self.slice(start..range.start).chars().map(blank).collect();
        let why = why.replace(['\n', '\r'], " ");
        self.replace(range.start..range.start, format!("# Left out: {why}{}{gap}# ", self.newline()));
        let mut at = self.line_end(range.start);
        while let Some(next) = self.slice(at..range.end).find('\n') {
            let line = at + next + 1;
            let blanks = self.slice(line..range.end).bytes().take_while(|b| *b == b' ').count().min(gap.len());
            if line + blanks < range.end {
                self.replace(line + blanks..line + blanks, "# ");
            }
            at = line;
        }
    }

    /// The text with its edits.
    pub fn apply(mut self) -> String {
        // Of edits at one place, the one that was asked for first comes first.
        self.list.sort_by_key(|(range, _)| (range.start, range.end));
        let mut out = String::with_capacity(self.text.len() + 256);
        let mut at = 0;
        for (range, with) in self.list {
            out.push_str(self.text.get(at..range.start).unwrap_or_default());
            out.push_str(&with);
            at = at.max(range.end);
        }
        out.push_str(self.text.get(at..).unwrap_or_default());
        out
    }
}

/// An option and where its words stand.
pub struct Spot {
    pub key: Range<usize>,
    pub value: Range<usize>,
}

/// How the options of a section stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `key value`, one a line.
    Classic,
    /// `key: value`, one a line.
    Block,
    /// `{key: value, …}`; in JSON there are no comments.
    Flow { json: bool },
}

impl Layout {
    fn option(self, key: &str, value: &str) -> String {
        match self {
            Self::Classic => format!("{key} {value}"),
            Self::Block | Self::Flow { json: false } => format!("{key}: {}", self.scalar(value)),
            Self::Flow { json: true } => format!("{}: {}", quoted(key), quoted(value)),
        }
    }

    fn scalar(self, value: &str) -> String {
        let plain = value.starts_with(|c: char| c.is_ascii_alphanumeric())
            && value.chars().all(|c| c.is_ascii_alphanumeric() || "_./:-".contains(c))
            && !value.ends_with(':');
        match self {
            Self::Classic => value.to_owned(),
            Self::Block | Self::Flow { json: false } if plain => value.to_owned(),
            _ => quoted(value),
        }
    }
}

/// A double-quoted scalar, of YAML and of JSON.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Edits a section: its `changes`, and the options that come behind the one at `name`.
pub fn section(
    edits: &mut Edits<'_>,
    layout: Layout,
    spots: &[Spot],
    changes: &[Change],
    name: usize,
    added: &[(&'static str, String)],
) {
    for (spot, change) in spots.iter().zip(changes) {
        match change {
            Change::Value(value) => edits.replace(spot.value.clone(), layout.scalar(value)),
            Change::Key(key) if layout == (Layout::Flow { json: true }) => edits.replace(spot.key.clone(), quoted(key)),
            Change::Key(key) => edits.replace(spot.key.clone(), key.clone()),
            Change::Out(why) if !matches!(layout, Layout::Flow { .. }) => {
                let end = if layout == Layout::Classic { edits.line_end(spot.key.start) } else { spot.value.end };
                edits.comment(spot.key.start..end, why);
            }
            Change::Out(_) | Change::Keep => {}
        }
    }
    let Some(spot) = spots.get(name) else { return };
    if let Layout::Flow { json } = layout {
        // One a line where the others are so.
        let before = edits.slice(edits.line_start(spot.key.start)..spot.key.start);
        let gap = if before.trim().is_empty() && !before.is_empty() {
            format!(",{}{before}", edits.newline())
        } else {
            ", ".to_owned()
        };
        let more: String = added.iter().map(|(key, value)| format!("{gap}{}", layout.option(key, value))).collect();
        edits.replace(spot.value.end..spot.value.end, more);
        flow_removals(edits, json, spots, changes);
        return;
    }
    let start = edits.line_start(spot.key.start);
    let blank = |c: char| if c == '\t' { '\t' } else { ' ' };
    let gap: String = edits.slice(start..spot.key.start).chars().map(blank).collect();
    for (key, value) in added {
        edits.insert_after(spot.value.end, &format!("{gap}{}", layout.option(key, value)));
    }
}

/// Takes options out of a flow mapping; a comment at the end of its line says why, where there may be one.
fn flow_removals(edits: &mut Edits<'_>, json: bool, spots: &[Spot], changes: &[Change]) {
    let out = |at: usize| matches!(changes.get(at), Some(Change::Out(_)));
    let mut reasons = Vec::new();
    for (at, change) in changes.iter().enumerate() {
        let Change::Out(why) = change else { continue };
        reasons.push(format!("{}: {}", edits.slice(spots[at].key.clone()), why.replace(['\n', '\r'], " ")));
        match (spots.get(at + 1), (0..at).rev().find(|before| !out(*before))) {
            (Some(next), _) if (at + 1..changes.len()).any(|later| !out(later)) => {
                edits.replace(spots[at].key.start..next.key.start, "");
            }
            // The last ones go together with the comma before them.
            (None, Some(kept)) => edits.replace(spots[kept].value.end..spots[at].value.end, ""),
            _ => {}
        }
    }
    let Some(last) = spots.last().filter(|_| !json && !reasons.is_empty()) else { return };
    let end = edits.line_end(last.value.end);
    if edits.slice(last.value.end..end).chars().all(|c| " \t}],".contains(c)) {
        edits.replace(end..end, format!(" # Left out: {}", reasons.join("; ")));
    }
}
