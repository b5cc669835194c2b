//! A request's body: its JSON, the records' bytes, and the service's limits for both.

use std::borrow::Cow;
use std::ops::Range;

use base64_simd::STANDARD;
use serde::Deserialize;

use super::reply::ServiceError;

/// The maximum number of records in one PutRecordBatch.
pub const MAX_RECORDS: usize = 500;
/// The maximum size of one record in bytes, before base64.
pub const MAX_RECORD_BYTES: usize = 1_024_000;
/// The maximum size of one call in bytes. The documentation does not say whether it counts before or after base64, so
/// it applies to both.
pub const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The size that the front end of an AWS service accepts; a larger body is not read at all.
pub(super) const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRecordBatch<'a> {
    #[serde(borrow)]
    delivery_stream_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    records: Option<Vec<Option<Entry<'a>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRecord<'a> {
    #[serde(borrow)]
    delivery_stream_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    record: Option<Entry<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(borrow)]
    data: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named<'a> {
    #[serde(borrow)]
    delivery_stream_name: Option<Cow<'a, str>>,
}

/// The records of a request, decoded one after another into one buffer.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub stream: String,
    pub bytes: Vec<u8>,
    pub spans: Vec<Range<usize>>,
}

impl Records {
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|span| &self.bytes[span.clone()])
    }
}

/// Why a request is rejected, and whether it exceeded a documented limit.
#[derive(Debug)]
pub(super) struct Refusal {
    pub error: ServiceError,
    pub over_limit: bool,
}

impl From<ServiceError> for Refusal {
    fn from(error: ServiceError) -> Self {
        Refusal { error, over_limit: false }
    }
}

/// The server's options that matter for the limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// The streams that exist; an empty list allows every valid name.
    pub streams: &'a [String],
    /// The error code of a violated constraint.
    pub validation_error: &'a str,
}

impl Rules<'_> {
    /// Reads a PutRecordBatch into `into`, whose buffers are reused.
    pub fn put_record_batch(&self, body: &[u8], into: &mut Records) -> Result<(), Refusal> {
        let request: PutRecordBatch<'_> = parse(body)?;
        let stream = self.stream_name(request.delivery_stream_name)?;
        let Some(records) = request.records else {
            return Err(self
                .violated("Value null at 'records' failed to satisfy constraint: Member must not be null")
                .into());
        };
        if records.is_empty() {
            return Err(self.violated(
                "Value '[]' at 'records' failed to satisfy constraint: Member must have length greater than or equal to 1",
            ).into());
        }
        if records.len() > MAX_RECORDS {
            return Err(self.over(&format!(
                "Value '[{} records]' at 'records' failed to satisfy constraint: Member must have length less than or \
                 equal to {MAX_RECORDS}",
                records.len()
            )));
        }
        decode(records.iter().map(Option::as_ref), into, |at, fault| {
            self.record(&format!("records.{}.member.data", at + 1), fault)
        })?;
        if body.len() > MAX_BATCH_BYTES || into.bytes.len() > MAX_BATCH_BYTES {
            return Err(Refusal {
                error: ServiceError::bad("InvalidArgumentException", "Records size exceeds 4 MB limit"),
                over_limit: true,
            });
        }
        self.existing(&stream)?;
        into.stream = stream;
        Ok(())
    }

    /// Reads a PutRecord into `into`, whose buffers are reused.
    pub fn put_record(&self, body: &[u8], into: &mut Records) -> Result<(), Refusal> {
        let request: PutRecord<'_> = parse(body)?;
        let stream = self.stream_name(request.delivery_stream_name)?;
        decode(std::iter::once(request.record.as_ref()), into, |_, fault| self.record("record.data", fault))?;
        self.existing(&stream)?;
        into.stream = stream;
        Ok(())
    }

    /// The stream that a DescribeDeliveryStream names.
    pub fn describe(&self, body: &[u8]) -> Result<String, Refusal> {
        let request: Named<'_> = parse(body)?;
        let stream = self.stream_name(request.delivery_stream_name)?;
        self.existing(&stream)?;
        Ok(stream)
    }

    fn stream_name(&self, name: Option<Cow<'_, str>>) -> Result<String, Refusal> {
        let Some(name) = name else {
            let violated = "Value null at 'deliveryStreamName' failed to satisfy constraint: Member must not be null";
            return Err(self.violated(violated).into());
        };
        let constraint = match name.len() {
            0 => "length greater than or equal to 1",
            65.. => "length less than or equal to 64",
            _ if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) => {
                return Ok(name.into_owned());
            }
            _ => {
                return Err(self.violated(&format!(
                    "Value '{name}' at 'deliveryStreamName' failed to satisfy constraint: Member must satisfy regular \
                     expression pattern: [a-zA-Z0-9_.-]+"
                )).into());
            }
        };
        Err(self
            .violated(&format!(
                "Value '{name}' at 'deliveryStreamName' failed to satisfy constraint: Member must have {constraint}"
            ))
            .into())
    }

    fn existing(&self, stream: &str) -> Result<(), Refusal> {
        if self.streams.is_empty() || self.streams.iter().any(|known| known == stream) {
            return Ok(());
        }
        let message = format!("Firehose {stream} under account {ACCOUNT} not found.");
        Err(ServiceError::bad("ResourceNotFoundException", message).into())
    }

    fn record(&self, member: &str, fault: RecordFault) -> Refusal {
        match fault {
            RecordFault::Missing => self
                .violated(&format!("Value null at '{member}' failed to satisfy constraint: Member must not be null"))
                .into(),
            RecordFault::Empty => {
                ServiceError::bad("InvalidArgumentException", format!("Value at '{member}' is empty: a record needs data"))
                    .into()
            }
            RecordFault::NotBase64 => {
                ServiceError::bad("SerializationException", format!("'{member}' is not base64")).into()
            }
            RecordFault::TooLarge(len) => self.over(&format!(
                "Value 'java.nio.HeapByteBuffer[pos=0 lim={len} cap={len}]' at '{member}' failed to satisfy constraint: \
                 Member must have length less than or equal to {MAX_RECORD_BYTES}"
            )),
        }
    }

    fn violated(&self, constraint: &str) -> ServiceError {
        ServiceError::bad(self.validation_error, format!("1 validation error detected: {constraint}"))
    }

    fn over(&self, constraint: &str) -> Refusal {
        Refusal { error: self.violated(constraint), over_limit: true }
    }
}

/// The account of all resources here.
pub(super) const ACCOUNT: &str = "000000000000";

enum RecordFault {
    Missing,
    Empty,
    NotBase64,
    TooLarge(usize),
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ServiceError> {
    serde_json::from_slice(body).map_err(|error| ServiceError::bad("SerializationException", error.to_string()))
}

/// Decodes the records one after another into `into`.
fn decode<'a>(
    records: impl Iterator<Item = Option<&'a Entry<'a>>>,
    into: &mut Records,
    refuse: impl Fn(usize, RecordFault) -> Refusal,
) -> Result<(), Refusal> {
    into.bytes.clear();
    into.spans.clear();
    for (at, entry) in records.enumerate() {
        let Some(data) = entry.and_then(|entry| entry.data.as_deref()) else {
            return Err(refuse(at, RecordFault::Missing));
        };
        let begin = into.bytes.len();
        if STANDARD.decode_append(data.as_bytes(), &mut into.bytes).is_err() {
            return Err(refuse(at, RecordFault::NotBase64));
        }
        match into.bytes.len() - begin {
            0 => return Err(refuse(at, RecordFault::Empty)),
            len if len > MAX_RECORD_BYTES => return Err(refuse(at, RecordFault::TooLarge(len))),
            _ => into.spans.push(begin..into.bytes.len()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules<'_> = Rules { streams: &[], validation_error: "ValidationException" };

    fn refused(body: &str) -> ServiceError {
        RULES.put_record_batch(body.as_bytes(), &mut Records::default()).unwrap_err().error
    }

    #[test]
    fn records_are_decoded_one_after_another() {
        let mut records = Records::default();
        let body = br#"{"Records":[{"Data":"aGFs"},{"Data":"bG8K"}],"DeliveryStreamName":"a.b-c_1"}"#;
        RULES.put_record_batch(body, &mut records).unwrap();
        assert_eq!(records.stream, "a.b-c_1");
        assert_eq!(records.iter().collect::<Vec<_>>(), [b"hal".as_slice(), b"lo\n"]);
        // An encoder may escape base64's slash.
        RULES.put_record_batch(br#"{"Records":[{"Data":"\/\/\/\/"}],"DeliveryStreamName":"a"}"#, &mut records).unwrap();
        assert_eq!(records.bytes, [0xff; 3]);
    }

    #[test]
    fn rejections_have_the_services_codes() {
        for (body, code, part) in [
            ("{", "SerializationException", "EOF"),
            ("[]", "SerializationException", ""),
            ("{}", "ValidationException", "deliveryStreamName"),
            (r#"{"DeliveryStreamName":"a"}"#, "ValidationException", "'records'"),
            (r#"{"DeliveryStreamName":"a","Records":[]}"#, "ValidationException", "greater than or equal to 1"),
            (r#"{"DeliveryStreamName":"a b","Records":[{"Data":"YQ=="}]}"#, "ValidationException", "pattern"),
            (r#"{"DeliveryStreamName":"","Records":[{"Data":"YQ=="}]}"#, "ValidationException", "greater"),
            (r#"{"Records":[{"Data":"YQ=="}]}"#, "ValidationException", "deliveryStreamName"),
            (r#"{"DeliveryStreamName":"a","Records":[{}]}"#, "ValidationException", "records.1.member.data"),
            (r#"{"DeliveryStreamName":"a","Records":[null]}"#, "ValidationException", "records.1.member.data"),
            (r#"{"DeliveryStreamName":"a","Records":[{"Data":""}]}"#, "InvalidArgumentException", "empty"),
            (r#"{"DeliveryStreamName":"a","Records":[{"Data":"YQ="}]}"#, "SerializationException", "base64"),
            (r#"{"DeliveryStreamName":"a","Records":[{"Data":7}]}"#, "SerializationException", "invalid type"),
        ] {
            let error = refused(body);
            assert_eq!(error.code, code, "{body}");
            assert!(error.message.contains(part), "{body}: {}", error.message);
        }
    }

    #[test]
    fn a_missing_stream_is_named() {
        let rules = Rules { streams: &["other".to_owned()], ..RULES };
        let body = br#"{"DeliveryStreamName":"mine","Records":[{"Data":"YQ=="}]}"#;
        let error = rules.put_record_batch(body, &mut Records::default()).unwrap_err().error;
        assert_eq!(error.message, "Firehose mine under account 000000000000 not found.");
    }
}
