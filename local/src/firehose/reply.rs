//! Replies to requests: a result or an error, in the JSON 1.1 protocol of AWS.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::Response;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, DATE, HeaderValue};

use super::bench::{self, Events};
use super::faults::{Contradiction, RecordError, RecordFate, RequestError};

/// The media type of requests and replies.
pub(super) const CONTENT: &str = "application/x-amz-json-1.1";

/// The length of a record's id: about that of the service's, because clients spend time on reading them.
const RECORD_ID_CHARS: usize = 224;

/// An error of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceError {
    pub status: u16,
    pub code: String,
    pub message: String,
}

impl ServiceError {
    /// An error caused by the request itself: status 400.
    pub fn bad(code: &str, message: impl Into<String>) -> Self {
        ServiceError { status: 400, code: code.to_owned(), message: message.into() }
    }

    /// `ServiceUnavailableException`, the reply of a throttled or overloaded service.
    pub fn unavailable() -> Self {
        RequestError { status: 503, code: "ServiceUnavailableException".to_owned() }.into()
    }
}

impl From<RequestError> for ServiceError {
    fn from(RequestError { status, code }: RequestError) -> Self {
        let message = match code.as_str() {
            "ServiceUnavailableException" => {
                "The service is unavailable. Back off and retry the operation. If you continue to see the exception, \
                 throughput limits for the Firehose stream may have been exceeded."
            }
            "InternalFailure" => "The request processing has failed because of an unknown error, exception or failure.",
            "ThrottlingException" => "Rate exceeded",
            _ => "A fault that was asked for.",
        };
        ServiceError { status, message: message.to_owned(), code }
    }
}

pub(super) type Reply = Response<Either<Full<Bytes>, Events>>;

/// A reply with `body` and a new request id.
pub(super) fn with_body(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Either::Left(Full::new(body.into())));
    *reply.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(id) = HeaderValue::from_str(&request_id()) {
        headers.insert("x-amzn-requestid", id);
    }
    reply
}

/// The reply with its `Date`. <https://www.rfc-editor.org/rfc/rfc9110#name-date>
pub(super) fn dated(mut reply: Reply, now: SystemTime) -> Reply {
    let date = jiff::Timestamp::try_from(now).map(|now| now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
    if let Some(date) = date.ok().and_then(|date| HeaderValue::from_str(&date).ok()) {
        reply.headers_mut().insert(DATE, date);
    }
    reply
}

/// A file of the bench's page.
pub(super) fn file(content_type: &'static str, text: &'static str) -> Reply {
    let mut reply = with_body(200, content_type, text);
    let policy = HeaderValue::from_static(bench::CONTENT_SECURITY_POLICY);
    reply.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// An endless stream of events.
pub(super) fn events(events: Events) -> Reply {
    let mut reply = Response::new(Either::Right(events));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// An error in the service's own words.
pub(super) fn error(error: &ServiceError) -> Reply {
    let body = serde_json::json!({ "__type": error.code, "message": error.message }).to_string();
    let mut reply = with_body(error.status, CONTENT, body);
    if let Ok(code) = HeaderValue::from_str(&error.code) {
        reply.headers_mut().insert("x-amzn-errortype", code);
    }
    reply
}

/// The result of PutRecordBatch, which may contradict itself.
pub(super) fn put_record_batch(fates: &[RecordFate], contradiction: Option<Contradiction>) -> Reply {
    let refused = fates.iter().filter(|fate| **fate != RecordFate::Accepted).count();
    let (failed, entries) = match contradiction {
        None => (refused, fates.len()),
        Some(Contradiction::FailedWithoutCodes) => (fates.len(), fates.len()),
        Some(Contradiction::CodesWithoutFailed) => (0, fates.len()),
        // Contradicts only by its length: the entries that are left agree with the count.
        Some(Contradiction::FewerEntries) => {
            let entries = fates.len().saturating_sub(1);
            (refused.min(entries), entries)
        }
    };
    let mut body = Vec::with_capacity(80 + fates.len() * (RECORD_ID_CHARS + 16));
    body.extend_from_slice(format!(r#"{{"FailedPutCount":{failed},"Encrypted":false,"RequestResponses":["#).as_bytes());
    for (at, fate) in fates.iter().take(entries).enumerate() {
        if at > 0 {
            body.push(b',');
        }
        let error = match (contradiction, fate) {
            (Some(Contradiction::FailedWithoutCodes), _)
            | (None | Some(Contradiction::FewerEntries), RecordFate::Accepted) => None,
            (_, RecordFate::Failed(error)) => Some(*error),
            _ => Some(RecordError::ServiceUnavailable),
        };
        match error {
            None => {
                body.extend_from_slice(br#"{"RecordId":""#);
                record_id(&mut body);
                body.extend_from_slice(br#""}"#);
            }
            Some(error) => body.extend_from_slice(error.entry().as_bytes()),
        }
    }
    body.extend_from_slice(b"]}");
    with_body(200, CONTENT, body)
}

/// The result of PutRecord.
pub(super) fn put_record() -> Reply {
    let mut body = br#"{"Encrypted":false,"RecordId":""#.to_vec();
    record_id(&mut body);
    body.extend_from_slice(br#""}"#);
    with_body(200, CONTENT, body)
}

static RECORDS: AtomicU64 = AtomicU64::new(0);

/// Writes an id that is unique in this process.
fn record_id(body: &mut Vec<u8>) {
    // The service's ids are opaque. A fixed text with a number at the end serves as well, and costs almost nothing.
    const OPAQUE: &[u8; 64] = b"gxCzcMW0GtuVqRkLh3Zs9fTnbYpJ7eQ5aDwKoX2mUi8vHrBNy4dESjPlA1OF6Ist";
    let end = body.len() + RECORD_ID_CHARS - 16;
    while body.len() < end {
        let some = (end - body.len()).min(OPAQUE.len());
        body.extend_from_slice(&OPAQUE[..some]);
    }
    hex(body, RECORDS.fetch_add(1, Ordering::Relaxed));
}

fn hex(body: &mut Vec<u8>, number: u64) {
    for nibble in (0..16).rev() {
        let digit = ((number >> (nibble * 4)) & 15) as u8;
        body.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
    }
}

/// A request id in the form of a UUID.
fn request_id() -> String {
    let bits = fastrand::u128(..);
    let part = |shift: u32, chars: u32| (bits >> shift) & ((1u128 << (chars * 4)) - 1);
    format!("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", part(0, 8), part(32, 4), part(48, 4), part(64, 4), part(80, 12))
}
