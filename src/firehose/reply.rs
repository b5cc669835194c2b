//! The reply to a PutRecordBatch call → the outcome of each record.
//!
//! <https://docs.aws.amazon.com/firehose/latest/APIReference/API_PutRecordBatch.html>

use crate::firehose::foreign::shown;
use serde::Deserializer;
use serde::de::{Deserialize, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// The outcome of the records of a call.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The records that were not accepted, by their index in the batch; empty if all were.
    pub refused: Vec<Refused>,
}

/// A record that was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its index in the batch.
    pub index: usize,
    /// The service's code, such as `ServiceUnavailableException`; fit for a log line.
    pub code: String,
}

/// Reads which of `records` records were accepted; the reply's order is the request's. Nothing is allocated for accepted records.
///
/// # Errors
/// When the reply is not Firehose's, or contradicts itself or the request, the contradiction: then any of the records may
/// have been accepted.
pub(super) fn read(reply: &[u8], records: usize) -> Result<Reply, String> {
    let output: Output =
        serde_json::from_slice(reply).map_err(|error| format!("the reply is not Firehose's: {error}"))?;
    let failed = output.failed.ok_or("the reply is not Firehose's: it has no FailedPutCount")?;
    let Some(entries) = output.entries else {
        return match failed {
            0 => Ok(Reply::default()),
            _ => Err(format!("the reply has FailedPutCount {failed} and no RequestResponses")),
        };
    };
    if entries.count != records {
        return Err(format!("the reply has {} RequestResponses, the request had {records} records", entries.count));
    }
    if u64::try_from(entries.refused.len()) != Ok(failed) {
        return Err(format!("the reply has FailedPutCount {failed} and {} error codes", entries.refused.len()));
    }
    Ok(Reply { refused: entries.refused })
}

#[derive(Default)]
struct Output {
    failed: Option<u64>,
    entries: Option<Entries>,
}

impl<'de> Deserialize<'de> for Output {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Output, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Output;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object with FailedPutCount")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Output, A::Error> {
                let mut output = Output::default();
                let mut listed = false;
                while let Some(key) = map.next_key()? {
                    match key {
                        Key::FailedPutCount if output.failed.is_some() => {
                            return Err(A::Error::duplicate_field("FailedPutCount"));
                        }
                        Key::FailedPutCount => output.failed = Some(map.next_value()?),
                        Key::RequestResponses if listed => {
                            return Err(A::Error::duplicate_field("RequestResponses"));
                        }
                        Key::RequestResponses => {
                            output.entries = map.next_value()?;
                            listed = true;
                        }
                        // The body of an error, although the status is a success.
                        Key::Type => return Err(A::Error::custom("it is an error with the status of a success")),
                        Key::RecordId | Key::ErrorCode | Key::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(output)
            }
        }
        from.deserialize_map(Object)
    }
}

#[derive(serde::Deserialize)]
#[serde(field_identifier)]
enum Key {
    FailedPutCount,
    RequestResponses,
    RecordId,
    ErrorCode,
    #[serde(rename = "__type")]
    Type,
    #[serde(other)]
    Other,
}

/// How many records the reply names, and those among them that were not accepted.
#[derive(Default)]
struct Entries {
    count: usize,
    refused: Vec<Refused>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Entries, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Entries;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list of entries")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries, A::Error> {
                let mut entries = Entries::default();
                while let Some(Entry { code }) = list.next_element()? {
                    if let Some(code) = code {
                        entries.refused.push(Refused { index: entries.count, code });
                    }
                    entries.count += 1;
                }
                Ok(entries)
            }
        }
        from.deserialize_seq(List)
    }
}

/// The error code of one record, if it was not accepted.
struct Entry {
    code: Option<String>,
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Entry, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Entry;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object with RecordId or ErrorCode")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
                let (mut id, mut code) = (None, None);
                while let Some(key) = map.next_key()? {
                    match key {
                        Key::RecordId if id.is_some() => return Err(A::Error::duplicate_field("RecordId")),
                        Key::RecordId => id = Some(map.next_value::<Option<Text>>()?.is_some()),
                        Key::ErrorCode if code.is_some() => return Err(A::Error::duplicate_field("ErrorCode")),
                        Key::ErrorCode => code = Some(map.next_value::<Option<String>>()?.map(|code| shown(&code))),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                let code = code.flatten();
                if id.unwrap_or_default() == code.is_some() {
                    return Err(A::Error::custom("an entry has not one of RecordId and ErrorCode"));
                }
                Ok(Entry { code })
            }
        }
        from.deserialize_map(Object)
    }
}

/// A string that is not kept.
struct Text;

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Text, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Text;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string")
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<Text, E> {
                Ok(Text)
            }
        }
        from.deserialize_str(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One entry's text and, if it is a sound one, its error code.
    fn entry() -> impl Strategy<Value = (String, Option<Option<String>>)> {
        let sound = |text: &str, code: Option<&str>| (text.to_owned(), Some(code.map(str::to_owned)));
        let wrong = |text: &str| (text.to_owned(), None);
        prop_oneof![
            20 => Just(sound(r#"{"RecordId":"a\u00e9"}"#, None)),
            4 => Just(sound(r#"{"ErrorCode":null,"RecordId":"b","New":{"x":[1]}}"#, None)),
            8 => Just(sound(r#"{"ErrorCode":"InternalFailure","ErrorMessage":"\"FailedPutCount\":0,"}"#, Some("InternalFailure"))),
            1 => prop_oneof![
                Just(wrong("{}")),
                Just(wrong("null")),
                Just(wrong(r#"["a",null]"#)),
                Just(wrong(r#"{"RecordId":null}"#)),
                Just(wrong(r#"{"RecordId":7}"#)),
                Just(wrong(r#"{"ErrorCode":7}"#)),
                Just(wrong(r#"{"RecordId":"a","ErrorCode":"b"}"#)),
                Just(wrong(r#"{"ErrorCode":"a","ErrorCode":"b"}"#)),
                Just(wrong(r#"{"RecordId":"a","RecordId":"b"}"#)),
            ],
        ]
    }

    proptest! {
        #[test]
        fn a_reply_is_believed_only_where_nothing_in_it_contradicts(
            entries in prop::collection::vec(entry(), 0..12),
            list in prop_oneof![6 => Just(true), 1 => Just(false)],
            off in prop_oneof![6 => Just(0_i64), 1 => -3_i64..4],
            more in prop_oneof![6 => Just(0_i64), 1 => -3_i64..4],
            count in prop_oneof![
                8 => Just(None),
                1 => prop::sample::select(vec!["null", "-1", "\"0\"", "0.0", "{}", "[]", "1e0"]).prop_map(Some),
            ],
            order in any::<bool>(),
            extra in prop_oneof![
                8 => Just(""),
                1 => prop::sample::select(vec![
                    r#""FailedPutCount":0"#, r#""RequestResponses":[]"#, r#""__type":"InternalFailure""#,
                ]),
            ],
            tail in prop_oneof![8 => Just(""), 1 => prop::sample::select(vec!["}", "x", "{}", ","])],
        ) {
            let codes = entries.iter().filter(|(_, code)| matches!(code, Some(Some(_)))).count() as i64;
            let stated = codes + off;
            let records = entries.len() as i64 + more;
            prop_assume!(records >= 0);
            let number = count.map_or_else(|| stated.to_string(), str::to_owned);
            let texts: Vec<&str> = entries.iter().map(|(text, _)| text.as_str()).collect();
            let mut fields = vec![format!(r#""FailedPutCount":{number}"#), r#""Encrypted":false"#.to_owned()];
            if list {
                fields.push(format!(r#""RequestResponses":[{}]"#, texts.join(",")));
            }
            if !order {
                fields.reverse();
            }
            if !extra.is_empty() {
                fields.push(extra.to_owned());
            }
            let text = format!("{{{}}}{tail}", fields.join(","));
            // Without a list, a second one is the first.
            let added = extra == r#""RequestResponses":[]"# && !list;
            let sound = count.is_none() && stated >= 0 && tail.is_empty() && (extra.is_empty() || added)
                && match (list, added) {
                    (true, _) => off == 0 && more == 0 && entries.iter().all(|(_, code)| code.is_some()),
                    (false, true) => stated == 0 && records == 0,
                    (false, false) => stated == 0,
                };
            let read = read(text.as_bytes(), records as usize);
            prop_assert_eq!(read.is_ok(), sound, "{} for {} records: {:?}", text, records, read);
            if let (Ok(reply), true) = (read, list) {
                let refused = entries.into_iter().enumerate();
                let refused = refused.filter_map(|(index, (_, code))| code.flatten().map(|code| Refused { index, code }));
                prop_assert_eq!(reply.refused, refused.collect::<Vec<_>>());
            }
            // Whatever is cut off.
            for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
                let cut = &text[..end];
                prop_assert!(tail.len() >= text.len() - end || super::read(cut.as_bytes(), records as usize).is_err(), "{}", cut);
            }
        }

        #[test]
        fn bytes_that_are_no_reply_are_not_believed(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read(&bytes, 3).is_err());
        }
    }

    #[test]
    fn what_is_no_object_is_not_believed() {
        for text in
            ["", "{}", "[]", "[0,[]]", "null", "0", "<html>\"FailedPutCount\":0,</html>", "{\"FailedPutCount\":"]
        {
            assert!(read(text.as_bytes(), 0).is_err(), "{text}");
        }
    }
}
