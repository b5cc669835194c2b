//! An event, and its msgpack as plugins receive it.

use std::fmt;

use rmp::encode as pack;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value in an event's body. Text may be any bytes, like the lines of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(Vec<u8>),
    Array(Vec<Value>),
    Map(Body),
}

/// The entries of a map, in order.
pub(super) type Body = Vec<(Vec<u8>, Value)>;

/// A time: seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time {
    pub seconds: u32,
    pub nanoseconds: u32,
}

impl Time {
    pub fn now() -> Self {
        jiff::Timestamp::now().into()
    }
}

impl From<jiff::Timestamp> for Time {
    fn from(time: jiff::Timestamp) -> Self {
        Time {
            seconds: u32::try_from(time.as_second()).unwrap_or_default(),
            nanoseconds: u32::try_from(time.subsec_nanosecond()).unwrap_or_default(),
        }
    }
}

/// The msgpack form of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum EventForm {
    /// `[time, body]`, as Fluent Bit did up to 2.0.
    V1,
    /// `[[time, metadata], body]`, as it does since 2.1.
    #[default]
    V2,
}

/// Appends an event. Writing to memory cannot fail, so the results are ignored.
pub(super) fn append(buffer: &mut Vec<u8>, form: EventForm, time: Time, body: &Body) {
    let _ = pack::write_array_len(buffer, 2);
    if form == EventForm::V2 {
        let _ = pack::write_array_len(buffer, 2);
    }
    let _ = pack::write_ext_meta(buffer, 8, 0);
    buffer.extend_from_slice(&time.seconds.to_be_bytes());
    buffer.extend_from_slice(&time.nanoseconds.to_be_bytes());
    // The real host's in_tail writes these two maps before it knows their size, and therefore as map32.
    if form == EventForm::V2 {
        append_wide_map_len(buffer, 0);
    }
    append_wide_map_len(buffer, body.len());
    append_entries(buffer, body);
}

fn append_wide_map_len(buffer: &mut Vec<u8>, len: usize) {
    buffer.push(rmp::Marker::Map32.to_u8());
    buffer.extend_from_slice(&length(len).to_be_bytes());
}

fn append_map(buffer: &mut Vec<u8>, body: &Body) {
    let _ = pack::write_map_len(buffer, length(body.len()));
    append_entries(buffer, body);
}

fn append_entries(buffer: &mut Vec<u8>, body: &Body) {
    for (key, value) in body {
        append_text(buffer, key);
        append_value(buffer, value);
    }
}

fn append_text(buffer: &mut Vec<u8>, text: &[u8]) {
    let _ = pack::write_str_len(buffer, length(text.len()));
    buffer.extend_from_slice(text);
}

fn append_value(buffer: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Nil => {
            let _ = pack::write_nil(buffer);
        }
        Value::Bool(value) => {
            let _ = pack::write_bool(buffer, *value);
        }
        Value::Int(value) => {
            let _ = pack::write_sint(buffer, *value);
        }
        Value::Uint(value) => {
            let _ = pack::write_uint(buffer, *value);
        }
        Value::Float(value) => {
            let _ = pack::write_f64(buffer, *value);
        }
        Value::Text(text) => append_text(buffer, text),
        Value::Array(values) => {
            let _ = pack::write_array_len(buffer, length(values.len()));
            values.iter().for_each(|value| append_value(buffer, value));
        }
        Value::Map(body) => append_map(buffer, body),
    }
}

/// Lengths beyond msgpack's limit do not fit into memory here.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Uint(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.as_bytes().to_vec()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text.into_bytes()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut body = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            body.push((key.into_bytes(), value));
        }
        Ok(Value::Map(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_same_bytes_as_in_the_real_host() {
        let Value::Map(body) = serde_json::from_str(r#"{"b":[1,-1,1.5,null,true],"a":{"x":"ü"}}"#).unwrap() else {
            panic!("a map")
        };
        let time = Time { seconds: 1, nanoseconds: 2 };
        let mut v2 = Vec::new();
        append(&mut v2, EventForm::V2, time, &body);
        let head = [0x92, 0x92, 0xd7, 0x00, 0, 0, 0, 1, 0, 0, 0, 2, 0xdf, 0, 0, 0, 0, 0xdf, 0, 0, 0, 2];
        assert_eq!(v2[..head.len()], head);
        assert_eq!(v2[head.len()..head.len() + 6], [0xa1, b'b', 0x95, 1, 0xff, 0xcb]);
        assert_eq!(v2[v2.len() - 8..], [0xa1, b'a', 0x81, 0xa1, b'x', 0xa2, 0xc3, 0xbc]);
        let mut v1 = Vec::new();
        append(&mut v1, EventForm::V1, time, &body);
        assert_eq!(v1[..4], [0x92, 0xd7, 0x00, 0]);
        assert_eq!(v1.len() + 1 + 5, v2.len());
    }
}
