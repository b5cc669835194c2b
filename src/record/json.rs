//! A decoded value → its JSON text, appended to a buffer.
//!
//! The text is always valid UTF-8 and valid JSON: bytes that are no UTF-8 become U+FFFD, NaN and the infinities null,
//! keys that are not strings strings; binary that is UTF-8 is text, otherwise base64, as are extension values; of a
//! repeated key the last value counts, at the first one's place.

use crate::event::chunk::{Token, Value};
use std::cell::Cell;

/// What stands where a container was nested deeper than [`crate::event::chunk::MAX_DEPTH`].
pub const TOO_DEEP: &[u8] = b"\"[nested too deep]\"";

/// What of a value is left out or cut while it is written.
#[derive(Clone, Copy, Default)]
pub struct Cut<'p> {
    /// Indices of the keys (on the value's tape) that are left out with their values.
    pub removed: &'p [usize],
    /// One string (its index) that ends after so many bytes of JSON text, at a character's border.
    pub shortened: Option<(usize, usize)>,
    /// What dots in keys become.
    pub dots: Option<Dots<'p>>,
    /// This is within a key: a container that is a key itself is not written there, since text within text within text
    /// doubles with each level.
    pub in_key: bool,
}

/// How dots in keys are replaced.
#[derive(Clone, Copy)]
pub struct Dots<'p> {
    /// What stands in for a dot.
    pub with: &'p str,
    /// Names (as JSON strings) that are taken already beside the map that is written first.
    pub taken: &'p [Vec<u8>],
    /// Counts values that were left out because their key became another's.
    pub collisions: &'p Cell<u64>,
}

/// Appends `value` as JSON.
pub fn write_value(out: &mut Vec<u8>, value: Value<'_, '_>, cut: Cut<'_>) {
    match value.token() {
        Token::Nil => out.extend_from_slice(b"null"),
        Token::Bool(true) => out.extend_from_slice(b"true"),
        Token::Bool(false) => out.extend_from_slice(b"false"),
        Token::UInt(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Token::Int(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Token::F32(number) if number.is_finite() => {
            out.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
        }
        Token::F64(number) if number.is_finite() => {
            out.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
        }
        Token::F32(_) | Token::F64(_) => out.extend_from_slice(b"null"),
        Token::Str(text) => match cut.shortened {
            Some((at, limit)) if at == value.at => write_shortened(out, text, limit),
            _ => write_string(out, text),
        },
        Token::Bin(bytes) => write_binary(out, bytes),
        Token::Ext(bytes) => write_base64(out, bytes),
        Token::TooDeep => out.extend_from_slice(TOO_DEEP),
        Token::Array { len, .. } => {
            out.push(b'[');
            let mut at = value.at + 1;
            for index in 0..len {
                if index > 0 {
                    out.push(b',');
                }
                let item = Value { tape: value.tape, at };
                write_value(out, item, cut);
                at = item.next();
            }
            out.push(b']');
        }
        Token::Map { .. } => {
            out.push(b'{');
            let dots = cut.dots.map(|dots| Dots { taken: &[], ..dots });
            write_pairs(out, value, Cut { dots, ..cut });
            out.push(b'}');
        }
    }
}

/// Appends the pairs of a map without its braces; says whether there were any.
pub fn write_pairs(out: &mut Vec<u8>, map: Value<'_, '_>, cut: Cut<'_>) -> bool {
    let mut any = false;
    if let Some(dots) = cut.dots
        && map.pairs().any(|(key, _)| has_dot(key))
    {
        for (name, key, value) in renamed(map, dots, cut) {
            any |= write_named(out, any, &name, key, value, cut);
        }
    } else if has_repeated_keys(map) {
        for (key, value) in last_of_each(map, cut.in_key) {
            any |= write_pair(out, any, key, value, cut);
        }
    } else {
        for (key, value) in map.pairs() {
            any |= write_pair(out, any, key, value, cut);
        }
    }
    any
}

fn has_dot(key: Value<'_, '_>) -> bool {
    match key.token() {
        Token::Str(text) | Token::Bin(text) => text.contains(&b'.'),
        // A float has one as JSON, too.
        Token::F32(_) | Token::F64(_) | Token::Array { .. } | Token::Map { .. } => true,
        _ => false,
    }
}

/// The pairs with their keys as JSON, dots replaced; of two keys that become one, the first wins.
fn renamed<'t, 'a>(map: Value<'t, 'a>, dots: Dots<'_>, cut: Cut<'_>) -> Vec<(Vec<u8>, Value<'t, 'a>, Value<'t, 'a>)> {
    let mut named: Vec<(Vec<u8>, Value<'t, 'a>, Value<'t, 'a>)> = Vec::new();
    let mut names: std::collections::HashSet<Vec<u8>> = dots.taken.iter().cloned().collect();
    for (key, value) in last_of_each(map, cut.in_key) {
        if cut.removed.contains(&key.at) {
            continue;
        }
        let mut text = Vec::new();
        write_key(&mut text, key, cut.in_key);
        let name = replace_dots(&text, dots.with);
        if names.insert(name.clone()) {
            named.push((name, key, value));
        } else {
            dots.collisions.set(dots.collisions.get() + 1);
        }
    }
    named
}

/// A key, as JSON, with its dots replaced.
pub fn replace_dots(key: &[u8], with: &str) -> Vec<u8> {
    let mut with_json = Vec::new();
    write_escaped(&mut with_json, with.as_bytes());
    let mut name = Vec::with_capacity(key.len());
    for (index, part) in key.split(|byte| *byte == b'.').enumerate() {
        if index > 0 {
            name.extend_from_slice(&with_json);
        }
        name.extend_from_slice(part);
    }
    name
}

fn write_named(
    out: &mut Vec<u8>,
    comma: bool,
    name: &[u8],
    key: Value<'_, '_>,
    value: Value<'_, '_>,
    cut: Cut<'_>,
) -> bool {
    if cut.removed.contains(&key.at) {
        return false;
    }
    if comma {
        out.push(b',');
    }
    out.extend_from_slice(name);
    out.push(b':');
    write_value(out, value, cut);
    true
}

fn write_pair(out: &mut Vec<u8>, comma: bool, key: Value<'_, '_>, value: Value<'_, '_>, cut: Cut<'_>) -> bool {
    if !cut.removed.is_empty() && cut.removed.contains(&key.at) {
        return false;
    }
    if comma {
        out.push(b',');
    }
    write_key(out, key, cut.in_key);
    out.push(b':');
    write_value(out, value, cut);
    true
}

/// Appends a key, always as a string: a number or a container as its JSON within quotes.
pub fn write_key(out: &mut Vec<u8>, key: Value<'_, '_>, in_key: bool) {
    match key.token() {
        Token::Str(text) => write_string(out, text),
        Token::Bin(_) | Token::Ext(_) | Token::TooDeep => write_value(out, key, Cut::default()),
        Token::Array { .. } | Token::Map { .. } if in_key => out.extend_from_slice(TOO_DEEP),
        _ => {
            let mut text = Vec::new();
            write_value(&mut text, key, Cut { in_key: true, ..Cut::default() });
            write_string(out, &text);
        }
    }
}

/// Whether two keys of the map may be the same once they are JSON.
///
/// Nearly every map has a few short, plain keys, all different, so that is decided without writing any.
fn has_repeated_keys(map: Value<'_, '_>) -> bool {
    /// Up to here, comparing each with each is cheaper than anything cleverer.
    const FEW: usize = 32;
    let mut seen: [&[u8]; FEW] = [&[]; FEW];
    let mut lengths = 0u64;
    for (index, (key, _)) in map.pairs().enumerate() {
        let Token::Str(text) = key.token() else { return true };
        let Some(slot) = seen.get_mut(index) else { return true };
        if !text.is_ascii() {
            return true;
        }
        *slot = text;
        // Only one of the same length can be the same.
        let length = 1 << text.len().min(63);
        if lengths & length != 0 && seen.iter().take(index).any(|earlier| *earlier == text) {
            return true;
        }
        lengths |= length;
    }
    false
}

/// The pairs, each key once, at its first place and with its last value.
fn last_of_each<'t, 'a>(map: Value<'t, 'a>, in_key: bool) -> Vec<(Value<'t, 'a>, Value<'t, 'a>)> {
    let mut places: std::collections::HashMap<Vec<u8>, usize> = std::collections::HashMap::new();
    let mut pairs = Vec::new();
    for (key, value) in map.pairs() {
        let mut text = Vec::new();
        write_key(&mut text, key, in_key);
        match places.entry(text) {
            std::collections::hash_map::Entry::Occupied(place) => {
                if let Some(pair) = pairs.get_mut(*place.get()) {
                    *pair = (key, value);
                }
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(pairs.len());
                pairs.push((key, value));
            }
        }
    }
    pairs
}

/// Appends a string with its quotes.
pub fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    if next_special(text, 0) == text.len() {
        out.extend_from_slice(text);
    } else if let Ok(text) = std::str::from_utf8(text) {
        write_escaped(out, text.as_bytes());
    } else {
        for part in text.utf8_chunks() {
            write_escaped(out, part.valid().as_bytes());
            if !part.invalid().is_empty() {
                out.extend_from_slice("\u{FFFD}".as_bytes());
            }
        }
    }
    out.push(b'"');
}

/// Appends a string of which at most `limit` bytes stand between the quotes, cut at a character's border.
fn write_shortened(out: &mut Vec<u8>, text: &[u8], limit: usize) {
    out.push(b'"');
    let end = out.len() + limit;
    'text: for part in text.utf8_chunks() {
        let replaced = if part.invalid().is_empty() { "" } else { "\u{FFFD}" };
        for character in part.valid().chars().chain(replaced.chars()) {
            let start = out.len();
            write_escaped(out, character.encode_utf8(&mut [0; 4]).as_bytes());
            if out.len() > end {
                out.truncate(start);
                break 'text;
            }
        }
    }
    out.push(b'"');
}

/// Appends binary: as text where it is UTF-8, otherwise as base64.
fn write_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    if std::str::from_utf8(bytes).is_ok() { write_string(out, bytes) } else { write_base64(out, bytes) }
}

fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    base64_simd::STANDARD.encode_append(bytes, out);
    out.push(b'"');
}

/// The high bit of each byte that JSON must escape, or that is not ASCII.
/// <https://graphics.stanford.edu/~seander/bithacks.html#HasLessInWord>
fn special_bits(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    // In each: below 0x20, equal to a quote, equal to a backslash; a borrow may mark the byte above a marked one.
    let below = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = quote.wrapping_sub(ONES) & !quote;
    let backslash = backslash.wrapping_sub(ONES) & !backslash;
    (below | quote | backslash | word) & HIGH
}

/// Where at or behind `from` the next byte stands that is to be escaped or is not ASCII; the text's length if there is
/// none. The first byte that is marked is marked rightly, whatever borrows do above it.
fn next_special(text: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(word) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let bits = special_bits(u64::from_le_bytes(*word));
        if bits != 0 {
            return at + bits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| ESCAPE[*byte as usize] != 0 || *byte >= 0x80).unwrap_or(rest.len())
}

/// How many bytes of a word, from its beginning, stand as they are in a JSON string and are ASCII.
#[inline]
pub fn plain_bytes(word: [u8; 8]) -> usize {
    // The first byte that is marked is marked rightly, whatever borrows do above it.
    special_bits(u64::from_le_bytes(word)).trailing_zeros() as usize / 8
}

/// What stands for a byte in a JSON string; none of those that are not ASCII.
#[inline]
pub fn escape(byte: u8) -> Option<&'static [u8]> {
    let text = ESCAPED.get(usize::from(byte))?;
    Some(if ESCAPE[usize::from(byte)] == b'u' { text } else { text.split_at(2).0 })
}

/// The escapes of ASCII, of two bytes or six.
static ESCAPED: [[u8; 6]; 0x80] = {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut table = [[0; 6]; 0x80];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = match ESCAPE[byte] {
            b'u' => [b'\\', b'u', b'0', b'0', HEX[byte >> 4], HEX[byte & 15]],
            letter => [b'\\', letter, 0, 0, 0, 0],
        };
        byte += 1;
    }
    table
};

/// For each byte, what follows the backslash; 0: nothing to escape; `u`: as \u00XX.
static ESCAPE: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Appends valid UTF-8 with what JSON demands escaped.
fn write_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let (mut done, mut at) = (0, 0);
    loop {
        at = next_special(text, at);
        let Some(byte) = text.get(at) else { break };
        at += 1;
        // Not ASCII: as it is.
        let Some(escaped) = escape(*byte) else { continue };
        out.extend_from_slice(&text[done..at - 1]);
        done = at;
        out.extend_from_slice(escaped);
    }
    out.extend_from_slice(&text[done..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::chunk::Chunk;
    use proptest::prelude::*;

    /// The JSON of a msgpack value, by way of an event.
    fn json(value: &[u8]) -> String {
        let data = [b"\x92\x07\x81\xa1v", value].concat();
        let mut chunk = Chunk::new(&data);
        let event = chunk.next_event().unwrap();
        let mut out = Vec::new();
        write_value(&mut out, event.body.get(b"v").unwrap().1, Cut::default());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_that_json_does_not_know() {
        assert_eq!(json(b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"), "null");
        assert_eq!(json(b"\xca\xff\x80\x00\x00"), "null");
        assert_eq!(json(b"\xa4a\xffb\xf0"), "\"a\u{FFFD}b\u{FFFD}\"");
        assert_eq!(json(b"\xc4\x02ab"), "\"ab\"");
        assert_eq!(json(b"\xc4\x02\xff\xfe"), "\"//4=\"");
        assert_eq!(json(b"\xd4\x05\x01"), "\"AQ==\"");
        assert_eq!(json(b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), "18446744073709551615");
        assert_eq!(json(b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00"), "-9223372036854775808");
        assert_eq!(json(b"\xca\x3d\xcc\xcc\xcd"), "0.1");
        assert_eq!(
            json(b"\x84\x01\xa1a\xc2\xa1b\xc0\xa1c\x91\x05\xa1d"),
            r#"{"1":"a","false":"b","null":"c","[5]":"d"}"#
        );
        assert_eq!(json(b"\xa5\x00\x1f\x7f\"\\"), "\"\\u0000\\u001f\x7f\\\"\\\\\"");
    }

    #[test]
    fn of_repeated_keys_the_last_value_stands_at_the_first_place() {
        assert_eq!(json(b"\x83\xa1a\x01\xa1b\x02\xa1a\x03"), r#"{"a":3,"b":2}"#);
        // Keys that are the same only as JSON: 1 and "1", and two kinds of bytes that are no UTF-8.
        assert_eq!(json(b"\x82\x01\x01\xa11\x02"), r#"{"1":2}"#);
        assert_eq!(json(b"\x82\xa1\xff\x01\xa1\xfe\x02"), "{\"\u{FFFD}\":2}");
        // More keys than are compared each with each.
        let many: Vec<u8> = (0..40u8).flat_map(|n| [0xa1, b'a' + n % 20, n]).collect();
        let text = json(&[&b"\xde\x00\x28"[..], &many].concat());
        assert!(text.starts_with(r#"{"a":20,"b":21,"#), "{text}");
        assert_eq!(text.matches(':').count(), 20);
    }

    #[test]
    fn a_shortened_string_ends_at_a_characters_border() {
        for limit in 0..24 {
            let mut out = Vec::new();
            write_shortened(&mut out, "aé\n\u{1F600}\u{1}zz".as_bytes(), limit);
            assert!(out.len() <= limit + 2);
            let text: String = serde_json::from_slice(&out).unwrap();
            assert!("aé\n\u{1F600}\u{1}zz".starts_with(&text));
        }
    }

    fn arbitrary_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            "\\PC*".prop_map(Into::into),
            "[\\x00-\\x7f]{0,80}".prop_map(Into::into),
            proptest::collection::vec(any::<char>(), 0..60).prop_map(|c| c.into_iter().collect::<String>().into()),
        ];
        leaf.prop_recursive(6, 80, 12, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..12).prop_map(serde_json::Value::Array),
                proptest::collection::vec(("\\PC{0,8}", inner), 0..40)
                    .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// rmp-serde writes the value and serde_json its text: an oracle that shares no code with ours.
        #[test]
        fn the_text_is_what_serde_writes(value in arbitrary_json()) {
            let bytes = rmp_serde::to_vec(&value).unwrap();
            prop_assert_eq!(json(&bytes), serde_json::to_string(&value).unwrap());
        }

        #[test]
        fn strings_of_any_bytes_are_valid_json(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            write_string(&mut out, &bytes);
            let text: String = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
