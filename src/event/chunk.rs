//! msgpack bytes → events: walks a chunk once and lays each event out as a flat tape of tokens that borrow from it.
//!
//! Invariants: nothing here recurses, so nesting cannot overflow a stack; every length is checked against the remaining
//! bytes; bytes that cannot be decoded cost only their own event, because decoding goes on at the next place that looks
//! like one.

use rmp::Marker;

/// Containers nested deeper than this are not decoded; they become [`Token::TooDeep`].
///
/// serde_json refuses more than 128 levels, and most readers of a record use a parser with such a bound.
pub const MAX_DEPTH: usize = 100;

/// One step of a decoded value. A container's token is followed by its contents; its `next` is the index of the first
/// token after them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    /// nil
    Nil,
    /// true, false
    Bool(bool),
    /// A non-negative integer.
    UInt(u64),
    /// A negative integer.
    Int(i64),
    /// A float of 32 bits; kept apart from [`Token::F64`] because its shortest decimal text differs.
    F32(f32),
    /// A float of 64 bits.
    F64(f64),
    /// A string. Fluent Bit does not guarantee that it is UTF-8.
    Str(&'a [u8]),
    /// Binary.
    Bin(&'a [u8]),
    /// An extension value; its type is dropped.
    Ext(&'a [u8]),
    /// An array of `len` values.
    Array {
        /// Number of values.
        len: u32,
        /// Index of the token after the array.
        next: u32,
    },
    /// A map of `len` pairs: key, value, key, value…
    Map {
        /// Number of pairs.
        len: u32,
        /// Index of the token after the map.
        next: u32,
    },
    /// A container beyond [`MAX_DEPTH`].
    TooDeep,
}

/// A decoded value: its tape and its index there.
#[derive(Clone, Copy, Debug)]
pub struct Value<'t, 'a> {
    /// The tape.
    pub tape: &'t [Token<'a>],
    /// Where the value begins.
    pub at: usize,
}

impl<'t, 'a> Value<'t, 'a> {
    /// The value's own token.
    pub fn token(self) -> Token<'a> {
        self.tape.get(self.at).copied().unwrap_or(Token::Nil)
    }

    /// Index of the token after the value.
    pub fn next(self) -> usize {
        match self.token() {
            Token::Array { next, .. } | Token::Map { next, .. } => next as usize,
            _ => self.at + 1,
        }
    }

    /// The pairs of a map, as values; nothing if it is not a map.
    pub fn pairs(self) -> Pairs<'t, 'a> {
        let left = match self.token() {
            Token::Map { len, .. } => len,
            _ => 0,
        };
        Pairs { tape: self.tape, at: self.at + 1, left }
    }

    /// The value under `key`, a string or binary, with the index of its key; if the key is repeated, the last one.
    pub fn get(self, key: &[u8]) -> Option<(usize, Value<'t, 'a>)> {
        let mut found = None;
        for (k, v) in self.pairs() {
            if let Token::Str(text) | Token::Bin(text) = k.token()
                && text == key
            {
                found = Some((k.at, v));
            }
        }
        found
    }
}

/// Iterator over the pairs of a map.
pub struct Pairs<'t, 'a> {
    tape: &'t [Token<'a>],
    at: usize,
    left: u32,
}

impl<'t, 'a> Iterator for Pairs<'t, 'a> {
    type Item = (Value<'t, 'a>, Value<'t, 'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let key = Value { tape: self.tape, at: self.at };
        let value = Value { tape: self.tape, at: key.next() };
        self.at = value.next();
        Some((key, value))
    }
}

/// When an event happened: seconds since 1970 in UTC, and nanoseconds below 1,000,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

/// One decoded event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'t, 'a> {
    /// Its place in the chunk, counted over events (not over group markers).
    pub index: u32,
    /// Its time; `None` if the chunk has none that can be read.
    pub time: Option<Time>,
    /// Its metadata (Fluent Bit 2.1 and later); nil if there is none.
    pub metadata: Value<'t, 'a>,
    /// Its body, normally a map.
    pub body: Value<'t, 'a>,
    /// The body of its group's start marker (OTLP, Fluent Bit 3.1 and later): `resource`, `scope`.
    pub group: Option<Value<'t, 'a>>,
}

/// Walks the events of one chunk: concatenated msgpack, `[ts, map]` up to Fluent Bit 2.0, `[[ts, metadata], map]` since.
pub struct Chunk<'a> {
    data: &'a [u8],
    tape: Vec<Token<'a>>,
    /// Open containers while a value is read: index of the token, values still to come.
    open: Vec<(u32, u64)>,
    group: Vec<Token<'a>>,
    at: Cursor,
}

/// How far a chunk has been read, so that reading can go on later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    position: usize,
    /// Where the start marker of the open group is.
    group: Option<usize>,
    events: u32,
    undecodable: u64,
    /// Bytes that were read without finding an event.
    wasted: usize,
}

impl Cursor {
    /// Bytes of the chunk that have been read.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Events that have been read.
    pub fn events(&self) -> u32 {
        self.events
    }

    /// Parts so far that were not an event.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }
}

/// When this many times the chunk's bytes have been read without finding an event, the rest is given up. Otherwise a chunk of
/// event beginnings that each fail only at its end would be read to the end again and again.
const WASTE: usize = 16;

/// Why a value could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// `seconds` of a group's start and end marker: -1 and -2 as unsigned (Fluent Bit's flb_log_event.h).
const GROUP_START: u32 = 0xFFFF_FFFF;
const GROUP_END: u32 = 0xFFFF_FFFE;

/// What precedes an event's body.
enum Head {
    Time(Option<Time>),
    GroupStart,
    GroupEnd,
}

impl<'a> Chunk<'a> {
    /// Begins at the first byte of `data`. Chunks of 4 GiB and more are not read: Fluent Bit's are about 2 MB.
    pub fn new(data: &'a [u8]) -> Self {
        let data = if u32::try_from(data.len()).is_ok() { data } else { &[] };
        Chunk {
            data,
            tape: Vec::with_capacity(128),
            open: Vec::with_capacity(16),
            group: Vec::new(),
            at: Cursor::default(),
        }
    }

    /// Goes on reading the same bytes.
    pub fn resume(data: &'a [u8], cursor: Cursor) -> Self {
        let mut chunk = Chunk::new(data);
        chunk.at = cursor;
        if let Some(marker) = cursor.group {
            chunk.at.position = marker;
            if chunk.read_value().is_ok()
                && let Some((Head::GroupStart, _, body)) = chunk.frame()
            {
                chunk.group.push(Token::Nil);
                rebase(&chunk.tape, body, &mut chunk.group);
            }
            chunk.at.position = cursor.position;
        }
        chunk
    }

    /// Goes to where another reading of the same data has come to.
    pub fn catch_up(&mut self, cursor: Cursor) {
        match cursor.group == self.at.group {
            true => self.at = cursor,
            false => *self = Chunk::resume(self.data, cursor),
        }
    }

    /// How far it has been read, for [`Chunk::resume`].
    pub fn resume_state(&self) -> Cursor {
        self.at
    }

    /// How many parts of the chunk were not an event so far.
    pub fn undecodable(&self) -> u64 {
        self.at.undecodable
    }

    /// How many events have been returned.
    pub fn events(&self) -> u32 {
        self.at.events
    }

    /// The time of the next event, and the rest of the chunk from its body on, if it begins as nearly all do, is in
    /// no group and has no metadata. This does not move past it: see [`Chunk::pass`].
    pub fn plain_head(&self) -> Option<(Time, &'a [u8])> {
        if !self.group.is_empty() {
            return None;
        }
        let inner = pair(self.data.get(self.at.position..)?)?;
        let head = pair(inner);
        let (stamp, rest) = head.unwrap_or(inner).strip_prefix(STAMP)?.split_first_chunk::<8>()?;
        let body = if head.is_some() { empty_map(rest)? } else { rest };
        match read_head(Token::Ext(stamp)) {
            Head::Time(Some(time)) => Some((time, body)),
            _ => None,
        }
    }

    /// Moves past the event whose head [`Chunk::plain_head`] returned, and past `read` bytes of its rest.
    pub fn pass(&mut self, rest: &[u8], body: usize) {
        self.at.position = self.data.len() - rest.len() + body;
        self.at.events += 1;
    }

    /// The next event; `None` at the end of the chunk.
    pub fn next_event(&mut self) -> Option<Event<'_, 'a>> {
        let (time, metadata, body) = loop {
            if self.at.position >= self.data.len() {
                return None;
            }
            let start = self.at.position;
            self.tape.clear();
            match self.read_value() {
                Ok(()) => {}
                Err(Malformed) => {
                    self.at.undecodable += 1;
                    self.at.wasted += self.at.position - start;
                    if self.at.wasted / WASTE > self.data.len() {
                        self.at.position = self.data.len();
                        continue;
                    }
                    // The head of the failed event is not an event itself, so the search begins after it.
                    let failed = self.data.get(start..).unwrap_or_default();
                    let head = pair(failed).map_or(1, |inner| failed.len() - pair(inner).unwrap_or(inner).len());
                    self.at.position = self.find_event(start + head);
                    continue;
                }
            }
            let Some((head, metadata, body)) = self.frame() else {
                // Well-formed msgpack, but not an event: the next one begins right after it.
                self.at.undecodable += 1;
                continue;
            };
            match head {
                Head::GroupStart => {
                    // The marker's tape is kept: records of its group may contain its values.
                    self.at.group = Some(start);
                    self.group.clear();
                    self.group.push(Token::Nil);
                    rebase(&self.tape, body, &mut self.group);
                }
                Head::GroupEnd => {
                    self.at.group = None;
                    self.group.clear();
                }
                Head::Time(time) => break (time, metadata, body),
            }
        };
        let index = self.at.events;
        self.at.events += 1;
        let tape = self.tape.as_slice();
        // Index 0 is the event's own array, which is no longer needed, and serves as a nil.
        let metadata = match metadata {
            Some(at) => Value { tape, at },
            None => Value { tape: &[], at: 0 },
        };
        let group = (self.group.len() > 1).then_some(Value { tape: &self.group, at: 1 });
        Some(Event { index, time, metadata, body: Value { tape, at: body }, group })
    }

    /// Recognises the event on the tape: its head, and the indices of its metadata and body.
    fn frame(&self) -> Option<(Head, Option<usize>, usize)> {
        let tape = self.tape.as_slice();
        let Some(Token::Array { len: 2, .. }) = tape.first() else {
            return None;
        };
        let head = Value { tape, at: 1 };
        let body = head.next();
        let (time, metadata) = match head.token() {
            Token::Array { len: 2, .. } => {
                let time = Value { tape, at: 2 };
                (time, Some(time.next()))
            }
            Token::Array { .. } | Token::Map { .. } | Token::TooDeep => return None,
            _ => (head, None),
        };
        Some((read_head(time.token()), metadata, body))
    }

    /// The next place from `from` on where an event seems to begin and can be read to its end.
    fn find_event(&self, from: usize) -> usize {
        let mut at = from;
        while let Some(rest) = self.data.get(at..) {
            let Some(offset) = rest.iter().position(|byte| matches!(byte, 0x92 | 0xdc | 0xdd)) else {
                break;
            };
            at += offset;
            if self.data.get(at..).is_some_and(looks_like_event) {
                return at;
            }
            at += 1;
        }
        self.data.len()
    }

    /// Reads one whole value onto the tape.
    fn read_value(&mut self) -> Result<(), Malformed> {
        self.open.clear();
        loop {
            let children = self.read_token()?;
            if let Some(count) = children
                && count > 0
            {
                if self.open.len() >= MAX_DEPTH {
                    self.skip(count)?;
                    if let Some(last) = self.tape.last_mut() {
                        *last = Token::TooDeep;
                    }
                } else {
                    self.open.push(((self.tape.len() - 1) as u32, count));
                    continue;
                }
            }
            // A value is complete, and perhaps the containers around it.
            loop {
                let Some((at, left)) = self.open.last_mut() else {
                    return Ok(());
                };
                *left -= 1;
                if *left > 0 {
                    break;
                }
                let (at, end) = (*at as usize, self.tape.len() as u32);
                if let Some(Token::Array { next, .. } | Token::Map { next, .. }) = self.tape.get_mut(at) {
                    *next = end;
                }
                self.open.pop();
            }
        }
    }

    /// Skips `count` values and their contents.
    fn skip(&mut self, count: u64) -> Result<(), Malformed> {
        let mut reader = Reader { data: self.data, position: self.at.position };
        let skipped = reader.skip(count);
        self.at.position = reader.position;
        skipped
    }

    /// Reads one token onto the tape; for a container, only its head, and returns how many values belong to it.
    fn read_token(&mut self) -> Result<Option<u64>, Malformed> {
        let mut reader = Reader { data: self.data, position: self.at.position };
        let read = reader.token();
        self.at.position = reader.position;
        let (mut token, children) = read?;
        if let Token::Array { next, .. } | Token::Map { next, .. } = &mut token {
            *next = self.tape.len() as u32 + 1;
        }
        self.tape.push(token);
        Ok(children)
    }
}

/// Reads msgpack token by token.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    data: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Begins at a byte of the data.
    pub fn at(data: &'a [u8], position: usize) -> Reader<'a> {
        Reader { data, position }
    }

    /// Where the next token begins.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Moves past bytes that were read before.
    pub fn pass(&mut self, bytes: usize) {
        self.position += bytes;
    }

    /// What is left of the data.
    pub fn rest(&self) -> &'a [u8] {
        self.data.get(self.position..).unwrap_or_default()
    }

    /// One token, and how many values belong to it if it is a container; its `next` is not known yet, and 0.
    ///
    /// # Errors
    /// If there is no whole token.
    #[inline]
    pub fn token(&mut self) -> Result<(Token<'a>, Option<u64>), Malformed> {
        match self.text() {
            Some(text) => Ok((Token::Str(text), None)),
            None => self.any_token(),
        }
    }

    fn any_token(&mut self) -> Result<(Token<'a>, Option<u64>), Malformed> {
        let array = |len: u32| (Token::Array { len, next: 0 }, Some(u64::from(len)));
        let map = |len: u32| (Token::Map { len, next: 0 }, Some(u64::from(len) * 2));
        let (token, children) = match Marker::from_u8(self.byte()?) {
            Marker::FixPos(value) => (Token::UInt(value.into()), None),
            Marker::FixNeg(value) => (Token::Int(value.into()), None),
            Marker::Null => (Token::Nil, None),
            Marker::True => (Token::Bool(true), None),
            Marker::False => (Token::Bool(false), None),
            Marker::U8 => (Token::UInt(self.byte()?.into()), None),
            Marker::U16 => (Token::UInt(self.be16()?.into()), None),
            Marker::U32 => (Token::UInt(self.be32()?.into()), None),
            Marker::U64 => (Token::UInt(u64::from_be_bytes(self.array()?)), None),
            Marker::I8 => (signed(i8::from_be_bytes(self.array()?).into()), None),
            Marker::I16 => (signed(i16::from_be_bytes(self.array()?).into()), None),
            Marker::I32 => (signed(i32::from_be_bytes(self.array()?).into()), None),
            Marker::I64 => (signed(i64::from_be_bytes(self.array()?)), None),
            Marker::F32 => (Token::F32(f32::from_be_bytes(self.array()?)), None),
            Marker::F64 => (Token::F64(f64::from_be_bytes(self.array()?)), None),
            Marker::FixStr(len) => (Token::Str(self.take(len.into())?), None),
            Marker::Str8 => (self.byte().and_then(|len| self.take(len.into())).map(Token::Str)?, None),
            Marker::Str16 => (self.be16().and_then(|len| self.take(len.into())).map(Token::Str)?, None),
            Marker::Str32 => (self.be32().and_then(|len| self.take(len as usize)).map(Token::Str)?, None),
            Marker::Bin8 => (self.byte().and_then(|len| self.take(len.into())).map(Token::Bin)?, None),
            Marker::Bin16 => (self.be16().and_then(|len| self.take(len.into())).map(Token::Bin)?, None),
            Marker::Bin32 => (self.be32().and_then(|len| self.take(len as usize)).map(Token::Bin)?, None),
            Marker::FixArray(len) => array(len.into()),
            Marker::Array16 => array(self.be16()?.into()),
            Marker::Array32 => array(self.be32()?),
            Marker::FixMap(len) => map(len.into()),
            Marker::Map16 => map(self.be16()?.into()),
            Marker::Map32 => map(self.be32()?),
            Marker::FixExt1 => (self.ext(1)?, None),
            Marker::FixExt2 => (self.ext(2)?, None),
            Marker::FixExt4 => (self.ext(4)?, None),
            Marker::FixExt8 => (self.ext(8)?, None),
            Marker::FixExt16 => (self.ext(16)?, None),
            Marker::Ext8 => (self.byte().and_then(|len| self.ext(len.into()))?, None),
            Marker::Ext16 => (self.be16().and_then(|len| self.ext(len.into()))?, None),
            Marker::Ext32 => (self.be32().and_then(|len| self.ext(len as usize))?, None),
            Marker::Reserved => return Err(Malformed),
        };
        // Each value has at least one byte: a count that the rest of the chunk cannot hold is wrong.
        if children.is_some_and(|count| count > (self.data.len() - self.position) as u64) {
            return Err(Malformed);
        }
        Ok((token, children))
    }

    /// A string, the most frequent token; `None`, without moving, if there is another one, or none.
    #[inline]
    fn text(&mut self) -> Option<&'a [u8]> {
        let (from, length) = match *self.data.get(self.position..)? {
            [head @ 0xa0..=0xbf, ..] => (self.position + 1, usize::from(head & 31)),
            [0xd9, length, ..] => (self.position + 2, usize::from(length)),
            [0xda, high, low, ..] => (self.position + 3, usize::from(u16::from_be_bytes([high, low]))),
            _ => return None,
        };
        let text = self.data.get(from..from + length)?;
        self.position = from + length;
        Some(text)
    }

    /// Moves past `count` values and their contents.
    ///
    /// # Errors
    /// If these are not all there.
    pub fn skip(&mut self, count: u64) -> Result<(), Malformed> {
        let mut left = count;
        while left > 0 {
            let (_, children) = self.token()?;
            left = (left - 1).checked_add(children.unwrap_or(0)).ok_or(Malformed)?;
        }
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let end = self.position.checked_add(len).ok_or(Malformed)?;
        let bytes = self.data.get(self.position..end).ok_or(Malformed)?;
        self.position = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    fn be16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn be32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn ext(&mut self, len: usize) -> Result<Token<'a>, Malformed> {
        self.byte()?;
        self.take(len).map(Token::Ext)
    }
}

/// The type of a time stamp, and its size.
const STAMP: &[u8] = b"\xd7\x00";

/// What follows the head of an array of two. in_tail of Fluent Bit 3.2 and 4.2 writes it as array32, others as
/// fixarray.
#[inline]
fn pair(data: &[u8]) -> Option<&[u8]> {
    match data {
        [0x92, rest @ ..] | [0xdc, 0, 2, rest @ ..] | [0xdd, 0, 0, 0, 2, rest @ ..] => Some(rest),
        _ => None,
    }
}

/// What follows an empty map, as which in_tail writes the metadata: as map32.
#[inline]
fn empty_map(data: &[u8]) -> Option<&[u8]> {
    match data {
        [0x80, rest @ ..] | [0xde, 0, 0, rest @ ..] | [0xdf, 0, 0, 0, 0, rest @ ..] => Some(rest),
        _ => None,
    }
}

/// Whether an event seems to begin here.
fn looks_like_event(data: &[u8]) -> bool {
    let Some(inner) = pair(data) else { return false };
    match pair(inner) {
        Some(head) => head.starts_with(STAMP) || matches!(head, [0xcf | 0xce | 0xcb, ..]),
        // An empty body means that this is rather the head of an event: time and metadata.
        None => inner.starts_with(STAMP) && inner.get(10..).is_some_and(|body| empty_map(body).is_none()),
    }
}

/// msgpack may write a non-negative number as a signed one.
fn signed(value: i64) -> Token<'static> {
    match u64::try_from(value) {
        Ok(value) => Token::UInt(value),
        Err(_) => Token::Int(value),
    }
}

/// Copies the value at `at` from one tape to the end of another.
fn rebase<'a>(from: &[Token<'a>], at: usize, to: &mut Vec<Token<'a>>) {
    let end = Value { tape: from, at }.next();
    let (before, after) = (at as u32, to.len() as u32);
    let moved = |next: u32| next - before + after;
    for token in from.get(at..end).unwrap_or_default() {
        to.push(match *token {
            Token::Array { len, next } => Token::Array { len, next: moved(next) },
            Token::Map { len, next } => Token::Map { len, next: moved(next) },
            other => other,
        });
    }
}

/// A time stamp or a group's marker: ext of 8 bytes (big-endian u32 seconds, u32 nanoseconds), unsigned, or float.
fn read_head(token: Token<'_>) -> Head {
    let time = match token {
        Token::Ext(bytes) => match <[u8; 8]>::try_from(bytes) {
            Ok([a, b, c, d, e, f, g, h]) => {
                let seconds = u32::from_be_bytes([a, b, c, d]);
                match seconds {
                    GROUP_START => return Head::GroupStart,
                    GROUP_END => return Head::GroupEnd,
                    _ => {}
                }
                let nanos = u32::from_be_bytes([e, f, g, h]);
                Some(Time { seconds: seconds.into(), nanos: nanos.min(999_999_999) })
            }
            Err(_) => None,
        },
        Token::UInt(seconds) => match u32::try_from(seconds) {
            Ok(GROUP_START) => return Head::GroupStart,
            Ok(GROUP_END) => return Head::GroupEnd,
            Ok(seconds) => Some(Time { seconds: seconds.into(), nanos: 0 }),
            Err(_) => None,
        },
        Token::Int(-1) => return Head::GroupStart,
        Token::Int(-2) => return Head::GroupEnd,
        Token::F64(seconds) => float_time(seconds),
        Token::F32(seconds) => float_time(seconds.into()),
        _ => None,
    };
    Head::Time(time)
}

/// Seconds as a float; only those of the years 1970 to 2106, as an ext could hold them.
fn float_time(seconds: f64) -> Option<Time> {
    if !(0.0..f64::from(u32::MAX - 1)).contains(&seconds) {
        return None;
    }
    let whole = seconds.floor();
    Some(Time { seconds: whole as i64, nanos: (((seconds - whole) * 1e9) as u32).min(999_999_999) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(data: &[u8]) -> (Vec<String>, u64) {
        let mut chunk = Chunk::new(data);
        let mut seen = Vec::new();
        while let Some(event) = chunk.next_event() {
            let text = match event.body.get(b"log") {
                Some((_, value)) => format!("{:?}", value.token()),
                None => format!("{:?}", event.body.token()),
            };
            seen.push(format!("{:?} {text}", event.time.map(|t| (t.seconds, t.nanos))));
        }
        (seen, chunk.undecodable())
    }

    const BODY: &[u8] = b"\x81\xa3log\xa1x";

    fn event(head: &[u8]) -> Vec<u8> {
        [b"\x92", head, BODY].concat()
    }

    #[test]
    fn every_form_of_an_event_is_read() {
        let stamp: &[u8] = b"\xd7\x00\x00\x00\x00\x07\x00\x00\x00\x05";
        let stamp8: &[u8] = b"\xc7\x08\x00\x00\x00\x00\x07\x00\x00\x00\x05";
        let forms: Vec<Vec<u8>> = vec![
            event(stamp),
            event(stamp8),
            event(&[b"\x92", stamp, b"\x80"].concat()),
            event(&[b"\xdc\x00\x02", stamp, b"\x80"].concat()),
            event(&[b"\xdd\x00\x00\x00\x02", stamp, b"\x81\xa1a\xa1b"].concat()),
            [b"\xdc\x00\x02", stamp, BODY].concat(),
            [b"\xdd\x00\x00\x00\x02\x92", stamp, b"\x80", BODY].concat(),
        ];
        for form in &forms {
            assert_eq!(names(form), (vec!["Some((7, 5)) Str([120])".to_owned()], 0), "{form:02x?}");
        }
        assert_eq!(names(&forms.concat()).0.len(), forms.len());
        assert_eq!(names(&event(b"\x07")).0, ["Some((7, 0)) Str([120])"]);
        assert_eq!(names(&event(b"\xd2\x00\x00\x00\x07")).0, ["Some((7, 0)) Str([120])"]);
        assert_eq!(names(&event(b"\xcb\x40\x1e\x00\x00\x00\x00\x00\x00")).0, ["Some((7, 500000000)) Str([120])"]);
        assert_eq!(names(&event(b"\xca\x40\xf0\x00\x00")).0, ["Some((7, 500000000)) Str([120])"]);
        for no_time in [&b"\xc0"[..], b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", b"\xa1t", b"\xd6\x00\x00\x00\x00\x07"] {
            assert_eq!(names(&event(no_time)).0, ["None Str([120])"]);
        }
    }

    #[test]
    fn group_markers_are_no_events_and_their_body_goes_with_the_group() {
        let marker = |seconds: u32, body: &[u8]| {
            [b"\x92\x92\xd7\x00", &seconds.to_be_bytes()[..], b"\x00\x00\x00\x00\x80", body].concat()
        };
        let one = event(b"\x07");
        let data = [
            marker(GROUP_START, b"\x81\xa8resource\x81\xaaattributes\x80"),
            one.clone(),
            marker(GROUP_END, b"\x80"),
            one,
        ]
        .concat();
        let mut chunk = Chunk::new(&data);
        let inside =
            chunk.next_event().map(|e| e.group.map(|g| format!("{:?}", g.get(b"resource").map(|(_, v)| v.token()))));
        assert_eq!(inside, Some(Some("Some(Map { len: 1, next: 6 })".to_owned())));
        assert!(chunk.next_event().is_some_and(|e| e.group.is_none() && e.index == 1));
        assert!(chunk.next_event().is_none());
    }

    #[test]
    fn a_chunk_that_is_put_down_is_read_on_from_there() {
        let one = event(b"\x92\xd7\x00\x00\x00\x00\x07\x00\x00\x00\x05\x80");
        let marker = |seconds: u32, body: &[u8]| {
            [b"\x92\x92\xd7\x00", &seconds.to_be_bytes()[..], b"\x00\x00\x00\x00\x80", body].concat()
        };
        let start = marker(GROUP_START, b"\x81\xa8resource\x81\xa1a\x07");
        let data =
            [&one[..], &start, &one, b"\xc1", &one, &marker(GROUP_END, b"\x80"), &one, &one.repeat(3), &start, &one]
                .concat();
        let told = |chunk: &mut Chunk<'_>| {
            chunk.next_event().map(|event| {
                let resource = event.group.and_then(|group| group.get(b"resource"));
                let resource = resource.map(|(_, value)| format!("{:?}", value.tape));
                (event.index, event.time, resource, format!("{:?}", event.body.token()))
            })
        };
        let (mut whole, mut cursor) = (Chunk::new(&data), Cursor::default());
        let mut cursors = vec![cursor];
        loop {
            let mut part = Chunk::resume(&data, cursor);
            let (expected, event) = (told(&mut whole), told(&mut part));
            assert_eq!(event, expected);
            assert_eq!(part.resume_state(), whole.resume_state());
            cursor = part.resume_state();
            cursors.push(cursor);
            if event.is_none() {
                break;
            }
        }
        assert_eq!((whole.events(), whole.undecodable()), (8, 1));
        for (at, to) in cursors.iter().flat_map(|at| cursors.iter().map(move |to| (*at, *to))) {
            // Wherever it has read, it goes on like one that begins there.
            let mut behind = Chunk::resume(&data, at);
            told(&mut behind);
            behind.catch_up(to);
            assert_eq!(told(&mut behind), told(&mut Chunk::resume(&data, to)), "{at:?} {to:?}");
        }
    }

    #[test]
    fn what_cannot_be_decoded_costs_its_own_event() {
        // As most inputs write an event, and as in_tail does.
        for (pair, empty) in
            [(&b"\x92"[..], &b"\x80"[..]), (b"\xdd\0\0\0\x02", b"\xdf\0\0\0\0"), (b"\xdc\0\x02", b"\xde\0\0")]
        {
            let with = |body: &[u8]| [pair, pair, b"\xd7\0\0\0\0\x07\0\0\0\x05", empty, body].concat();
            let good = with(BODY);
            let bodies: [&[u8]; 4] = [
                b"\x81\xa3log\xdb\xff\xff\xff\xff",
                b"\xdf\xff\xff\xff\xff",
                b"\x81\xa3log\xc1",
                b"\xdd\xff\xff\xff\xff\x00",
            ];
            for lie in bodies.map(with).into_iter().chain([b"\xc1\xc1\xc1".to_vec()]) {
                let data = [&good, &lie[..], &good, &good].concat();
                let (seen, undecodable) = names(&data);
                assert_eq!(seen.len(), 3, "{lie:02x?}");
                assert_eq!(undecodable, 1, "{lie:02x?}");
            }
        }
        let good = event(b"\x92\xd7\x00\x00\x00\x00\x07\x00\x00\x00\x05\x80");
        // Well-formed, and no event.
        for other in [&b"\xc0"[..], b"\x93\x01\x02\x03", b"\xa3abc", b"\x92\x93\x01\x02\x03\x80", b"\x92\x80\x80"] {
            assert_eq!(names(&[&good, other, &good].concat()), (vec!["Some((7, 5)) Str([120])".to_owned(); 2], 1));
        }
        // Cut short, at every place.
        for cut in 0..good.len() {
            let (seen, _) = names(&[&good, &good[..cut]].concat());
            assert_eq!(seen.len(), 1, "cut at {cut}");
        }
    }

    #[test]
    fn ten_thousand_levels_are_one_token() {
        for (opening, closing) in [(&b"\x91"[..], &b"\xc0"[..]), (&b"\x81\xa1k"[..], &b"\xc0"[..])] {
            let deep = [b"\x92\x07\x81\xa3log", opening.repeat(10_000).as_slice(), closing].concat();
            let mut chunk = Chunk::new(&deep);
            let tokens = chunk.next_event().map(|e| e.body.tape.to_vec()).unwrap();
            assert!(tokens.contains(&Token::TooDeep));
            assert!(tokens.len() <= 3 * MAX_DEPTH);
            assert!(chunk.next_event().is_none());
            assert_eq!(chunk.undecodable(), 0);
        }
    }

    #[test]
    fn of_a_repeated_key_the_last_counts() {
        assert_eq!(names(b"\x92\x07\x82\xa3log\xa1x\xa3log\xa1y").0, ["Some((7, 0)) Str([121])"]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_end_and_leave_the_tape_in_bounds(data in proptest::collection::vec(any::<u8>(), 0..600)) {
            walk_all(&data);
        }

        /// Bytes that are likely to be containers and events, so that the walk gets deep.
        #[test]
        fn arbitrary_structure_ends(data in proptest::collection::vec(
            prop_oneof![Just(0x92u8), Just(0x81), Just(0x91), Just(0xd7), Just(0x00), Just(0xdc), Just(0xde), Just(0xa1), any::<u8>()],
            0..600,
        )) {
            walk_all(&data);
        }

        #[test]
        fn good_events_survive_around_a_bad_one(bad in proptest::collection::vec(any::<u8>(), 0..40), n in 1usize..5) {
            let good = event(b"\x92\xd7\x00\x00\x00\x00\x07\x00\x00\x00\x05\x80");
            let (seen, _) = names(&[good.repeat(n).as_slice(), &bad].concat());
            prop_assert!(seen.len() >= n);
        }
    }

    fn walk_all(data: &[u8]) {
        let mut chunk = Chunk::new(data);
        while let Some(event) = chunk.next_event() {
            assert!(event.body.next() <= event.body.tape.len());
            for (key, value) in event.body.pairs() {
                assert!(key.at < value.at && value.next() <= event.body.tape.len());
            }
        }
    }
}
