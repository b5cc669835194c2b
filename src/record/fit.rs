//! A record's JSON that is too long → JSON that fits: the longest texts cut, then the largest parts dropped
//! (`oversize truncate`), or the texts in several records (`oversize split`).
//!
//! It reads only JSON that [`crate::record::writer`] wrote: valid, without white space. Each byte is read a bounded number of
//! times, whatever the shape.

use crate::record::json::{next_structure, string_end};

/// The places of strings longer than this are remembered, so that they can be skipped without reading them again.
const LONG: usize = 64;

/// If not even this many bytes are available for each part, parts are dropped rather than cut.
const LEAST: usize = 64;

/// If fewer bytes than this remain, no further part is tried.
const FULL: usize = 16;

/// Only texts longer than this are split; everything else goes with every part.
const LEAST_TO_SPLIT: usize = 4096;

/// A container or a long string: where it begins and ends, and the number of the first one after it.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    next: usize,
}

/// All containers and long strings, in the order in which they begin.
fn spans(json: &[u8]) -> Vec<Span> {
    let (mut spans, mut open) = (Vec::new(), Vec::new());
    let mut at = 0;
    loop {
        at = next_structure(json, at);
        let Some(byte) = json.get(at) else { return spans };
        match byte {
            b'"' => {
                let end = string_end(json, at);
                if end - at > LONG {
                    spans.push(Span { start: at, end, next: spans.len() + 1 });
                }
                at = end;
                continue;
            }
            b'{' | b'[' => {
                open.push(spans.len());
                spans.push(Span { start: at, end: json.len(), next: 0 });
            }
            b'}' | b']' => {
                let next = spans.len();
                if let Some(span) = open.pop().and_then(|number: usize| spans.get_mut(number)) {
                    (span.end, span.next) = (at + 1, next);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// An attribute or an item: where it begins (with its key, if it has one), where its value does, where it ends.
#[derive(Clone, Copy)]
struct Child {
    start: usize,
    value: usize,
    end: usize,
    span: Option<usize>,
}

impl Child {
    /// Its bytes, and a comma.
    fn cost(&self) -> usize {
        self.end - self.start + 1
    }
}

struct Fitter<'j> {
    json: &'j [u8],
    out: Vec<u8>,
}

/// The children of a container, read from the JSON each time: a large one has too many to keep.
#[derive(Clone)]
struct Children<'f> {
    json: &'f [u8],
    spans: &'f [Span],
    /// Root attributes that are dropped.
    without: &'f [&'f str],
    map: bool,
    at: usize,
    last: usize,
    /// The next container or long string.
    number: usize,
}

impl Children<'_> {
    fn string(&mut self) -> usize {
        match self.spans.get(self.number) {
            Some(span) if span.start == self.at => {
                self.number = span.next;
                span.end
            }
            _ => string_end(self.json, self.at),
        }
    }
}

impl Iterator for Children<'_> {
    type Item = Child;

    fn next(&mut self) -> Option<Child> {
        loop {
            if self.at >= self.last {
                return None;
            }
            let start = self.at;
            if self.map {
                self.at = self.string() + 1;
            }
            let value = self.at;
            let mut span = None;
            match self.spans.get(self.number) {
                Some(next) if next.start == value => {
                    (span, self.at, self.number) = (Some(self.number), next.end, next.next);
                }
                _ if self.json.get(value) == Some(&b'"') => self.at = string_end(self.json, value),
                _ => {
                    let rest = self.json.get(value..self.last).unwrap_or_default();
                    self.at += rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len());
                }
            }
            let child = Child { start, value, end: self.at, span };
            self.at += 1;
            let name = || self.json.get(start + 1..(value - 2).max(start + 1)).unwrap_or_default();
            if !self.map || !self.without.iter().any(|without| without.as_bytes() == name()) {
                return Some(child);
            }
        }
    }
}

impl Fitter<'_> {
    /// Writes a container of at most `budget` bytes; if not all children fit, the last `added` have precedence.
    fn container(&mut self, spans: &[Span], number: usize, without: &[&str], budget: usize, added: usize) {
        let Some(Span { start, end, .. }) = spans.get(number).copied() else { return };
        let json = self.json;
        let map = json.get(start) == Some(&b'{');
        let children = Children { json, spans, without, map, at: start + 1, last: end - 1, number: number + 1 };
        let opening = self.out.len();
        self.out.extend_from_slice(json.get(start..=start).unwrap_or_default());
        // The braces, without a comma after the last child.
        let available = budget.saturating_sub(1);
        let (count, level) = level(children.clone(), available, added > 0);
        if let Some(level) = level {
            children.for_each(|child| self.child(spans, &child, level));
        } else {
            // A child stays whole if there is room; one that can be cut gets at most half the room.
            let mut left = available;
            let share = |child: &Child, left: &mut usize| {
                let half = if child.span.is_some() && *left / 2 >= LEAST { *left / 2 } else { 0 };
                let keep = if child.cost() <= *left { child.cost() } else { half };
                *left -= keep;
                keep
            };
            let own = if added > 0 { count.saturating_sub(added) } else { usize::MAX };
            let mut shares = Vec::new();
            if added > 0 {
                shares.extend(children.clone().skip(own).map(|child| share(&child, &mut left)));
            }
            for (at, child) in children.enumerate() {
                if left < FULL && added == 0 {
                    break;
                }
                let keep = match at.checked_sub(own).and_then(|added| shares.get(added)) {
                    Some(keep) => *keep,
                    None if left < FULL => continue,
                    None => share(&child, &mut left),
                };
                self.child(spans, &child, keep);
            }
        }
        if self.out.len() > opening + 1 {
            self.out.pop();
        }
        self.out.extend_from_slice(json.get(end - 1..end).unwrap_or_default());
    }

    /// Writes a child and a comma in at most `budget` bytes; nothing if too little of it would remain.
    fn child(&mut self, spans: &[Span], child: &Child, budget: usize) {
        if child.cost() <= budget {
            self.out.extend_from_slice(self.json.get(child.start..child.end).unwrap_or_default());
            self.out.push(b',');
            return;
        }
        let key = self.json.get(child.start..child.value).unwrap_or_default();
        let (Some(number), Some(budget)) = (child.span, budget.checked_sub(key.len() + 3)) else { return };
        self.out.extend_from_slice(key);
        if self.json.get(child.value) == Some(&b'"') {
            let text = self.json.get(child.value + 1..child.end - 1).unwrap_or_default();
            self.out.push(b'"');
            self.out.extend_from_slice(text.get(..cut_at(text, budget)).unwrap_or_default());
            self.out.push(b'"');
        } else {
            self.container(spans, number, &[], budget + 2, 0);
        }
        self.out.push(b',');
    }
}

/// How many children there are, and to how many bytes each may be cut so that all fit into `available`; `None` if that
/// is too few to be useful. Then the number is exact only if `counted`.
fn level(children: Children<'_>, available: usize, counted: bool) -> (usize, Option<usize>) {
    let (mut count, mut least, mut large) = (0, 0, Vec::new());
    for child in children {
        let cost = child.cost();
        count += 1;
        least += cost.min(LEAST);
        if least > available && !counted {
            return (count, None);
        }
        if cost > LEAST {
            large.push(cost);
        }
    }
    let Some(left) = available.checked_sub(least) else { return (count, None) };
    let mut left = left + large.len() * LEAST;
    large.sort_unstable();
    for (at, cost) in large.iter().enumerate() {
        let others = large.len() - at;
        if cost.checked_mul(others).is_none_or(|all| all > left) {
            return (count, Some(left / others));
        }
        left -= cost;
    }
    (count, Some(usize::MAX))
}

/// The last place at or before `most` where the content of a JSON string may end: no escape and no character is cut.
fn cut_at(text: &[u8], most: usize) -> usize {
    if most >= text.len() {
        return text.len();
    }
    let mut at = most;
    while text.get(at).is_some_and(|byte| byte & 0xC0 == 0x80) {
        at -= 1;
    }
    for start in at.saturating_sub(5)..at {
        let before = text.get(..=start).unwrap_or_default();
        // A backslash begins an escape unless it is escaped itself.
        let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\').count();
        let length = if text.get(start + 1) == Some(&b'u') { 6 } else { 2 };
        if backslashes % 2 == 1 && start + length > at {
            return start;
        }
    }
    at
}

/// The object (or list, or text) without these root attributes, within `budget` bytes (at least 2), and how many bytes are missing from it.
/// The last `added` attributes are kept before the others where not all can be.
pub fn truncate(json: &[u8], without: &[&str], budget: usize, added: usize) -> (Vec<u8>, usize) {
    if json.first() == Some(&b'"') {
        let text = json.get(1..json.len() - 1).unwrap_or_default();
        let cut = text.get(..cut_at(text, budget.saturating_sub(2))).unwrap_or_default();
        return ([b"\"", cut, b"\""].concat(), text.len() - cut.len());
    }
    let mut fitter = Fitter { json, out: Vec::with_capacity(budget.min(json.len())) };
    fitter.container(&spans(json), 0, without, budget, added);
    let missing = json.len() - fitter.out.len();
    (fitter.out, missing)
}

/// An object whose long texts are sent in several records; each of these has everything else.
pub struct Split {
    json: Vec<u8>,
    /// The contents of the texts that are split, and where each piece ends.
    texts: Vec<(usize, Vec<usize>)>,
    /// How many records there are.
    pub parts: usize,
}

impl Split {
    /// Splits an object into objects of at most `budget` bytes; `None` if too little of it is long text.
    pub fn new(json: &[u8], without: &[&str], budget: usize) -> Option<Split> {
        let (json, _) = truncate(json, without, usize::MAX, 0);
        let spans = spans(&json);
        let long: Vec<Span> = spans
            .into_iter()
            .filter(|span| json.get(span.start) == Some(&b'"') && json.get(span.end) != Some(&b':'))
            .filter(|span| span.end - span.start > LEAST_TO_SPLIT)
            .collect();
        let total: usize = long.iter().map(|span| span.end - span.start - 2).sum();
        // Rounding, and the minimal length of a piece, may make it longer than its share.
        let room = budget.checked_sub(json.len() - total + 24 * long.len())?;
        if long.is_empty() || room < budget / 2 {
            return None;
        }
        let parts = total.div_ceil(room);
        let texts: Vec<(usize, Vec<usize>)> = long
            .iter()
            .map(|span| {
                let (start, end) = (span.start + 1, span.end - 1);
                let share = (end - start).div_ceil(parts).max(16);
                let (mut ends, mut at) = (Vec::new(), start);
                while at < end {
                    at += cut_at(json.get(at..end).unwrap_or_default(), share).max(1);
                    ends.push(at);
                }
                (start, ends)
            })
            .collect();
        let parts = texts.iter().map(|(_, ends)| ends.len()).max()?;
        Some(Split { json, texts, parts })
    }

    /// Writes a part over `out`, counted from 0.
    pub fn write(&self, part: usize, out: &mut Vec<u8>) {
        out.clear();
        let mut done = 0;
        for (start, ends) in &self.texts {
            out.extend_from_slice(self.json.get(done..*start).unwrap_or_default());
            let from = part.checked_sub(1).map_or(Some(start), |before| ends.get(before));
            if let (Some(from), Some(end)) = (from, ends.get(part)) {
                out.extend_from_slice(self.json.get(*from..*end).unwrap_or_default());
            }
            done = ends.last().copied().unwrap_or(*start);
        }
        out.extend_from_slice(self.json.get(done..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn arbitrary_object() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<u64>().prop_map(Into::into),
            "[a-z]{0,30}".prop_map(Into::into),
            ("(\\PC|[\"\\\\\\x01\n]){0,12}", 1usize..300).prop_map(|(text, times)| text.repeat(times).into()),
        ];
        let value = leaf.prop_recursive(5, 60, 10, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..10).prop_map(Value::Array),
                prop::collection::vec(("(\\PC|[\"\\\\]){0,90}", inner), 0..10)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        });
        prop::collection::vec(("[a-d]|\\PC{0,9}", value), 0..8)
            .prop_map(|pairs| Value::Object(pairs.into_iter().collect()))
    }

    /// Whether `cut` is `whole` with shortened texts and fewer parts.
    fn is_rest(cut: &Value, whole: &Value) -> bool {
        match (cut, whole) {
            (Value::String(cut), Value::String(whole)) => whole.starts_with(cut.as_str()),
            (Value::Array(cut), Value::Array(whole)) => {
                let mut whole = whole.iter();
                cut.iter().all(|cut| whole.any(|whole| is_rest(cut, whole)))
            }
            (Value::Object(cut), Value::Object(whole)) => {
                cut.iter().all(|(key, cut)| whole.get(key).is_some_and(|whole| is_rest(cut, whole)))
            }
            _ => cut == whole,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]
        #[test]
        fn whatever_is_truncated_fits_and_is_a_rest_of_the_whole(object in arbitrary_object(), budget in 2usize..3000, added in 0usize..4) {
            let text = object.to_string();
            let (cut, missing) = truncate(text.as_bytes(), &[], budget, added);
            prop_assert!(cut.len() <= budget, "{} of {budget}", cut.len());
            prop_assert_eq!(cut.len() + missing, text.len());
            let cut: Value = serde_json::from_slice(&cut).unwrap();
            prop_assert!(is_rest(&cut, &object));
            prop_assert!(budget < text.len() || cut == object);
        }

        #[test]
        fn the_parts_of_a_split_make_the_whole(object in arbitrary_object(), text in "(\\PC|[\"\\\\\\x01\n]){1,40}", times in 1usize..4000, twice in any::<bool>()) {
            let mut object = object;
            object["long"] = text.repeat(times).into();
            if twice {
                object["nested"] = json!({"again": [text.repeat(times / 2)]});
            }
            let whole = object.to_string();
            let Some(split) = Split::new(whole.as_bytes(), &[], 20_000) else { return Ok(()) };
            let (mut long, mut again, mut out) = (String::new(), String::new(), Vec::new());
            for part in 0..split.parts {
                split.write(part, &mut out);
                prop_assert!(out.len() <= 20_000);
                let mut part: Value = serde_json::from_slice(&out).unwrap();
                long.push_str(part["long"].as_str().unwrap());
                part["long"] = object["long"].clone();
                if twice {
                    again.push_str(part["nested"]["again"][0].as_str().unwrap());
                    part["nested"] = object["nested"].clone();
                }
                prop_assert!(out.len() > 20_000 || part.as_object().unwrap().len() == object.as_object().unwrap().len());
            }
            if object["long"].to_string().len() > LEAST_TO_SPLIT {
                prop_assert_eq!(long, text.repeat(times));
            }
        }
    }

    #[test]
    fn the_longest_texts_are_cut_alike_and_the_rest_stays() {
        let text = json!({"log": "x".repeat(900), "n": [1, {"message": "y".repeat(900)}], "name": "short"}).to_string();
        let (cut, _) = truncate(text.as_bytes(), &[], 1000, 1);
        let cut: Value = serde_json::from_slice(&cut).unwrap();
        let (log, message) = (cut["log"].as_str().unwrap().len(), cut["n"][1]["message"].as_str().unwrap().len());
        assert!(log > 400 && message > 400 && cut["name"] == "short", "{log} {message}");
    }

    #[test]
    fn of_many_small_parts_as_many_stay_as_there_is_room_for_and_what_was_added_goes_first() {
        let mut object: serde_json::Map<String, Value> =
            (0..30_000).map(|n| (format!("key{n:05}"), format!("value{n}").into())).collect();
        object.insert("pod_name".to_owned(), "web-1".into());
        let text = Value::Object(object).to_string();
        let (cut, missing) = truncate(text.as_bytes(), &[], 100_000, 1);
        assert!(cut.len() > 99_900 && cut.len() <= 100_000 && missing == text.len() - cut.len());
        let cut: Value = serde_json::from_slice(&cut).unwrap();
        assert_eq!((&cut["pod_name"], &cut["key00000"]), (&json!("web-1"), &json!("value0")));
        let numbers = json!({"n": vec![123_456_789u64; 110_000]}).to_string();
        assert!(truncate(numbers.as_bytes(), &[], 1_000_000, 0).0.len() > 490_000);
    }
}
