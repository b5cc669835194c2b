//! Texts as JSON strings: the one place that knows what JSON escapes.
//!
//! The result is always valid: bytes that are not UTF-8 become U+FFFD.

/// Room that is kept after the text, because words are copied whole.
pub const AROUND: usize = 80;

/// Strings are read and copied in blocks of this many bytes.
pub const BLOCK: usize = 32;

/// Appends a string with its quotes.
pub fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    let end = string_at(out, out.len(), text);
    out.truncate(end);
}

/// Writes a string with its quotes at `start` of `room`, which grows as needed; returns where the string ends.
pub fn string_at(room: &mut Vec<u8>, start: usize, text: &[u8]) -> usize {
    let begin = put(room, b"\"", start);
    if text.len() >= BLOCK && plain(text) {
        let end = put(room, text, begin);
        return put(room, b"\"", end);
    }
    let (mut end, ascii) = escaped(room, begin, text);
    if !ascii && std::str::from_utf8(text).is_err() {
        end = begin;
        for part in text.utf8_chunks() {
            end = escaped(room, end, part.valid().as_bytes()).0;
            if !part.invalid().is_empty() {
                end = put(room, "\u{FFFD}".as_bytes(), end);
            }
        }
    }
    put(room, b"\"", end)
}

/// Writes a text, escaped as JSON requires; returns where it ends, and whether all of it is ASCII. Words are copied as they
/// are, then special bytes in them are overwritten.
fn escaped(room: &mut Vec<u8>, mut end: usize, text: &[u8]) -> (usize, bool) {
    let (mut at, mut bits) = (0, 0);
    grow(room, end, text.len());
    while at < text.len() {
        let (word, length) = word_at(text, at);
        if let Some(place) = room.get_mut(end..).and_then(<[u8]>::first_chunk_mut) {
            *place = word.to_le_bytes();
        }
        bits |= word;
        // The first marked byte is right; borrows can only mark bytes above it wrongly.
        let plain = special_bits(word).trailing_zeros() as usize / 8;
        if plain >= length {
            (at, end) = (at + length, end + length);
            continue;
        }
        let (escape, bytes) = escape((word >> (8 * plain)) as u8);
        // There is room for the longest escape after each word.
        if let Some(place) = room.get_mut(end + plain..).and_then(<[u8]>::first_chunk_mut) {
            *place = *escape;
        }
        (at, end) = (at + plain + 1, end + plain + bytes);
        grow(room, end, text.len() - at);
    }
    (end, bits & HIGH == 0)
}

/// The next eight bytes of a text, or fewer at its end, and their number. Short texts are frequent, so this makes no call
/// and stores nothing in parts that is loaded as a whole.
#[inline]
fn word_at(text: &[u8], at: usize) -> (u64, usize) {
    let rest = text.get(at..).unwrap_or_default();
    let length = rest.len().min(8);
    let word = match (rest.first_chunk::<8>(), text.last_chunk::<8>(), rest.first_chunk::<4>(), rest.last_chunk::<4>())
    {
        (Some(word), ..) => u64::from_le_bytes(*word),
        (_, Some(last), ..) => u64::from_le_bytes(*last) >> (8 * (8 - length)),
        (_, _, Some(head), Some(tail)) => {
            u64::from(u32::from_le_bytes(*head)) | u64::from(u32::from_le_bytes(*tail)) << (8 * (length - 4))
        }
        _ => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    (word, length)
}

/// Whether all of a text is ASCII that JSON does not escape.
#[inline]
pub fn plain(text: &[u8]) -> bool {
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    let block_is_plain = |block: &[u8; BLOCK]| !block.iter().fold(false, |special, byte| special | is_special(*byte));
    blocks.iter().all(block_is_plain)
        && match text.last_chunk() {
            Some(last) => block_is_plain(last),
            None => !rest.iter().fold(false, |special, byte| special | is_special(*byte)),
        }
}

/// Whether a byte is not ASCII, or JSON escapes it.
#[inline]
pub fn is_special(byte: u8) -> bool {
    // As a signed number, a byte that is not ASCII is below a space, too.
    ((byte as i8) < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Writes bytes at `end` of `room`; returns where they end.
#[inline]
pub fn put(room: &mut Vec<u8>, text: &[u8], end: usize) -> usize {
    grow(room, end, text.len());
    if let Some(room) = room.get_mut(end..end + text.len()) {
        room.copy_from_slice(text);
    }
    end + text.len()
}

/// Makes room for this many bytes after `end`, with quotes and slack.
#[inline]
pub fn grow(room: &mut Vec<u8>, end: usize, bytes: usize) {
    if room.len() < end + bytes + AROUND {
        room.resize((end + bytes + AROUND).next_power_of_two(), 0);
    }
}

/// How much room is kept from record to record; a huge event's additional room is freed.
const KEPT: usize = 4 << 20;

/// Frees the additional room of an earlier, huge record.
pub fn begin(room: &mut Vec<u8>) {
    if room.capacity() > KEPT {
        *room = vec![0; AROUND];
    }
}

/// Where the JSON string that begins at `start` ends, after its quotes.
pub fn string_end(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(rest) = json.get(at..).filter(|rest| !rest.is_empty()) {
        if let Some(word) = rest.first_chunk::<8>() {
            let plain = special_bits(u64::from_le_bytes(*word)).trailing_zeros() as usize / 8;
            at += plain;
            if plain == 8 {
                continue;
            }
        }
        match json.get(at) {
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

/// Where, from `at` on and outside of strings, the next string or bracket is; the end if there is none.
pub fn next_structure(json: &[u8], mut at: usize) -> usize {
    while let Some(word) = json.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ (ONES * b'"' as u64);
        // This turns all four brackets into 0x7f, and nothing else that occurs outside of strings.
        let bracket = (word | (ONES * 0x26)) ^ (ONES * 0x7f);
        let marked = (quote.wrapping_sub(ONES) & !quote | bracket.wrapping_sub(ONES) & !bracket) & HIGH;
        if marked != 0 {
            return at + marked.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = json.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| b"\"[]{}".contains(byte)).unwrap_or(rest.len())
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bit of each byte that JSON must escape.
/// <https://graphics.stanford.edu/~seander/bithacks.html#HasLessInWord>
fn special_bits(word: u64) -> u64 {
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    // In each: below 0x20, equal to a quote, equal to a backslash; a borrow may mark the byte above a marked one.
    let below = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = quote.wrapping_sub(ONES) & !quote;
    let backslash = backslash.wrapping_sub(ONES) & !backslash;
    (below | quote | backslash) & HIGH
}

/// The escape of a byte that cannot be in a JSON string itself, and its length.
#[inline]
fn escape(byte: u8) -> (&'static [u8; 6], usize) {
    let text = ESCAPED.get(usize::from(byte)).unwrap_or(&ESCAPED[0]);
    (text, if text[1] == b'u' { 6 } else { 2 })
}

/// The escapes of ASCII, of two bytes or six.
static ESCAPED: [[u8; 6]; 0x80] = {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut table = [[0; 6]; 0x80];
    let mut byte = 0;
    while byte < table.len() {
        let letter = match byte as u8 {
            0x08 => b'b',
            0x09 => b't',
            0x0a => b'n',
            0x0c => b'f',
            0x0d => b'r',
            b'"' => b'"',
            b'\\' => b'\\',
            _ => b'u',
        };
        table[byte] = match letter {
            b'u' => [b'\\', b'u', b'0', b'0', HEX[byte >> 4], HEX[byte & 15]],
            letter => [b'\\', letter, 0, 0, 0, 0],
        };
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn strings_of_any_bytes_are_valid_json(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = b"before".to_vec();
            write_string(&mut out, &bytes);
            prop_assert_eq!(string_end(&out, 6), out.len());
            let text: String = serde_json::from_slice(&out[6..]).unwrap();
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }

        /// An oracle that shares no code with ours.
        #[test]
        fn a_text_is_written_as_serde_writes_it(text in "(\\PC|[\\x00-\\x7f]|[\"\\\\]){0,80}") {
            let mut out = Vec::new();
            write_string(&mut out, text.as_bytes());
            prop_assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&text).unwrap());
        }
    }
}
