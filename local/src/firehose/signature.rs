//! Checks a request's Signature Version 4 as the service does, with its error messages.
//!
//! [Create a signed request](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use hyper::http::request::Parts;
use ring::{digest, hmac};

use super::options::AccessKey;
use super::reply::ServiceError;

const SERVICE: &str = "firehose";
/// How far a request's date may be from the service's time.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// The parts of an `Authorization` header.
struct Authorization<'a> {
    key_id: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    scope: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

/// Checks the signature of a request whose body has the SHA-256 `payload`, at the time `now`; returns the key that
/// signed it.
pub(super) fn verify<'k>(
    head: &Parts,
    payload: &[u8],
    keys: &'k [AccessKey],
    region: Option<&str>,
    now: SystemTime,
) -> Result<&'k AccessKey, ServiceError> {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let Some(authorization) = header("authorization") else {
        return Err(ServiceError::bad("MissingAuthenticationTokenException", "Missing Authentication Token"));
    };
    let date = header("x-amz-date");
    let auth = parse(authorization, date)?;
    let Some(date) = date else {
        return Err(incomplete(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ",
            authorization,
        ));
    };

    // A signature can only be checked with a known key, so the service looks up the key first.
    let Some(key) = keys.iter().find(|key| key.id == auth.key_id) else {
        return Err(unrecognized());
    };
    if key.session_token.as_deref().is_some_and(|token| header("x-amz-security-token") != Some(token)) {
        return Err(unrecognized());
    }
    if key.expires.is_some_and(|expires| expires <= now) {
        return Err(ServiceError::bad(
            "ExpiredTokenException",
            "The security token included in the request is expired",
        ));
    }
    if let Some(region) = region
        && auth.region != region
    {
        return Err(invalid(format!("Credential should be scoped to a valid region, not '{}'. ", auth.region)));
    }
    if auth.service != SERVICE {
        return Err(invalid(format!("Credential should be scoped to correct service: '{SERVICE}'. ")));
    }
    check_date(date, &auth, now)?;
    if !auth.signed_headers.split(';').any(|name| name == "host" || name == ":authority") {
        return Err(invalid("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.".to_owned()));
    }
    let claimed = header("x-amz-content-sha256").unwrap_or("UNSIGNED-PAYLOAD");
    let payload = hex::encode(payload);
    if claimed != "UNSIGNED-PAYLOAD" && !claimed.eq_ignore_ascii_case(&payload) {
        return Err(invalid("The value of 'x-amz-content-sha256' does not match the request's payload.".to_owned()));
    }

    let canonical = canonical_request(head, auth.signed_headers, &payload);
    let hashed = hex::encode(digest::digest(&digest::SHA256, canonical.as_bytes()));
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{}\n{hashed}", auth.scope);
    let signing_key = signing_key(&key.secret, &auth);
    let signature = hex::decode(auth.signature).ok();
    // Compared in constant time, as in the real service.
    match signature.map(|signature| hmac::verify(&signing_key, to_sign.as_bytes(), &signature)) {
        Some(Ok(())) => Ok(key),
        _ => Err(invalid(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method. Consult the service documentation for details."
                .to_owned(),
        )),
    }
}

fn invalid(message: String) -> ServiceError {
    ServiceError::bad("InvalidSignatureException", message)
}

fn unrecognized() -> ServiceError {
    ServiceError::bad("UnrecognizedClientException", "The security token included in the request is invalid.")
}

fn incomplete(what: &str, authorization: &str) -> ServiceError {
    let hashed = digest::digest(&digest::SHA256, authorization.as_bytes());
    let hashed = base64_simd::STANDARD.encode_to_string(hashed.as_ref());
    let message = format!("{what}(Hashed with SHA-256 and encoded with Base64) Authorization={hashed}");
    ServiceError::bad("IncompleteSignatureException", message)
}

fn parse<'a>(authorization: &'a str, date: Option<&str>) -> Result<Authorization<'a>, ServiceError> {
    let Some(fields) = authorization.strip_prefix("AWS4-HMAC-SHA256") else {
        return Err(incomplete("Unsupported AWS 'algorithm': only AWS4-HMAC-SHA256 is accepted here. ", authorization));
    };
    let field = |name: &str| {
        fields
            .split(',')
            .filter_map(|field| field.trim().split_once('='))
            .find_map(|(key, value)| (key == name).then_some(value))
    };
    let (credential, signed_headers, signature) = (field("Credential"), field("SignedHeaders"), field("Signature"));
    let mut missing = String::new();
    for (name, value) in [("Credential", credential), ("Signature", signature), ("SignedHeaders", signed_headers)] {
        if value.is_none() {
            missing.push_str(&format!("Authorization header requires '{name}' parameter. "));
        }
    }
    if date.is_none() {
        missing.push_str("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ");
    }
    let (Some(credential), Some(signed_headers), Some(signature), true) =
        (credential, signed_headers, signature, missing.is_empty())
    else {
        return Err(incomplete(&missing, authorization));
    };
    let scoped = || {
        let (key_id, scope) = credential.split_once('/')?;
        let mut parts = scope.split('/');
        let (date, region, service) = (parts.next()?, parts.next()?, parts.next()?);
        (parts.next() == Some("aws4_request") && parts.next().is_none()).then_some(Authorization {
            key_id,
            date,
            region,
            service,
            scope,
            signed_headers,
            signature,
        })
    };
    scoped().ok_or_else(|| {
        incomplete(
            &format!("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{credential}'. "),
            authorization,
        )
    })
}

fn check_date(date: &str, auth: &Authorization<'_>, now: SystemTime) -> Result<(), ServiceError> {
    const FORMAT: &str = "%Y%m%dT%H%M%SZ";
    let Some(signed) = jiff::civil::DateTime::strptime(FORMAT, date)
        .ok()
        .and_then(|signed| signed.to_zoned(jiff::tz::TimeZone::UTC).ok())
        .map(|signed| SystemTime::from(signed.timestamp()))
    else {
        return Err(invalid(format!(
            "Date must be in ISO-8601 'basic format'. Got '{date}'. See http://en.wikipedia.org/wiki/ISO_8601 "
        )));
    };
    if !date.starts_with(auth.date) {
        return Err(invalid(format!(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{}', from '{date}'. ",
            auth.date,
            date.get(..8).unwrap_or(date)
        )));
    }
    let text = |time: SystemTime| match jiff::Timestamp::try_from(time) {
        Ok(time) => time.strftime(FORMAT).to_string(),
        Err(_) => "?".to_owned(),
    };
    if now.duration_since(signed).is_ok_and(|late| late > TOLERANCE) {
        let limit = text(now - TOLERANCE);
        return Err(invalid(format!("Signature expired: {date} is now earlier than {limit} ({} - 5 min.)", text(now))));
    }
    if signed.duration_since(now).is_ok_and(|early| early > TOLERANCE) {
        let limit = text(now + TOLERANCE);
        return Err(invalid(format!(
            "Signature not yet current: {date} is still later than {limit} ({} + 5 min.)",
            text(now)
        )));
    }
    Ok(())
}

/// The canonical request: method, path, query, signed headers, payload.
fn canonical_request(head: &Parts, signed_headers: &str, payload: &str) -> String {
    let mut query: Vec<(&str, &str)> = head
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    query.sort_unstable();
    let query: Vec<String> = query.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut text = format!("{}\n{}\n{}\n", head.method, head.uri.path(), query.join("&"));
    for name in signed_headers.split(';') {
        text.push_str(name);
        text.push(':');
        text.push_str(&header_value(head, name));
        text.push('\n');
    }
    text.push('\n');
    text.push_str(signed_headers);
    text.push('\n');
    text.push_str(payload);
    text
}

/// A header's values, joined, trimmed, and with runs of spaces reduced to one.
fn header_value(head: &Parts, name: &str) -> String {
    let values: Vec<Cow<'_, str>> =
        head.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    // HTTP/2 has the host in the URI.
    if values.is_empty() && name == "host" {
        return head.uri.authority().map(|host| host.as_str().to_owned()).unwrap_or_default();
    }
    let trimmed: Vec<String> =
        values.iter().map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    trimmed.join(",")
}

fn signing_key(secret: &str, auth: &Authorization<'_>) -> hmac::Key {
    let mut key = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{secret}").as_bytes());
    for part in [auth.date, auth.region, auth.service, "aws4_request"] {
        key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"DeliveryStreamName":"s","Records":[{"Data":"YQ=="}]}"#;
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const TOKEN: &str = "TOKEN+/==";

    /// Signed by botocore 1.43.11 for 2026-11-22T12:00:00Z.
    fn signed() -> Parts {
        hyper::Request::post("/")
            .header("host", "firehose.eu-west-1.amazonaws.com")
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", "Firehose_20150804.PutRecordBatch")
            .header("x-two", "  a   b  c ")
            .header("x-amz-date", "20261122T120000Z")
            .header("x-amz-security-token", TOKEN)
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-west-1/firehose/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target;x-two, \
                 Signature=ea50298b3d3dd84b0e2e8ad0d010767afab444e5092586a37ed40f1ff4a7ec43",
            )
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    fn key() -> AccessKey {
        AccessKey { session_token: Some(TOKEN.to_owned()), ..AccessKey::new("AKIDEXAMPLE", SECRET) }
    }

    fn at(time: &str) -> SystemTime {
        time.parse::<jiff::Timestamp>().unwrap().into()
    }

    fn check(head: &Parts, body: &[u8], key: AccessKey, region: &str, now: &str) -> Result<(), (String, String)> {
        let payload = digest::digest(&digest::SHA256, body);
        verify(head, payload.as_ref(), &[key], Some(region), at(now)).map(|_| ()).map_err(|error| {
            assert_eq!(error.status, 400);
            (error.code, error.message)
        })
    }

    #[test]
    fn botocores_signature_is_valid_for_five_minutes() {
        for now in ["2026-11-22T11:55:00Z", "2026-11-22T12:00:00Z", "2026-11-22T12:05:00Z"] {
            assert_eq!(check(&signed(), BODY, key(), "eu-west-1", now), Ok(()), "{now}");
        }
    }

    #[test]
    fn rejections_have_the_services_messages() {
        const NOON: &str = "2026-11-22T12:00:00Z";
        let without = |name: &str| {
            let mut head = signed();
            head.headers.remove(name);
            head
        };
        let with = |name: &'static str, value: &str| {
            let mut head = signed();
            head.headers.insert(name, value.parse().unwrap());
            head
        };
        let mut expired = key();
        expired.expires = Some(at(NOON));
        let mut other_token = key();
        other_token.session_token = Some("other".to_owned());
        for (head, body, key, region, now, code, part) in [
            (signed(), b"{}".as_slice(), key(), "eu-west-1", NOON, "InvalidSignatureException", "does not match"),
            (
                signed(),
                BODY,
                AccessKey::new("AKIDEXAMPLE", "wrong"),
                "eu-west-1",
                NOON,
                "InvalidSignatureException",
                "does not match",
            ),
            (with("x-two", "changed"), BODY, key(), "eu-west-1", NOON, "InvalidSignatureException", "does not match"),
            (
                signed(),
                BODY,
                AccessKey::new("AKIDOTHER", SECRET),
                "eu-west-1",
                NOON,
                "UnrecognizedClientException",
                "is invalid.",
            ),
            (signed(), BODY, other_token, "eu-west-1", NOON, "UnrecognizedClientException", "is invalid."),
            (signed(), BODY, expired, "eu-west-1", NOON, "ExpiredTokenException", "expired"),
            (signed(), BODY, key(), "us-east-1", NOON, "InvalidSignatureException", "valid region, not 'eu-west-1'"),
            (
                signed(),
                BODY,
                key(),
                "eu-west-1",
                "2026-11-22T12:05:01Z",
                "InvalidSignatureException",
                "Signature expired: 20261122T120000Z is now earlier than 20261122T120001Z (20261122T120501Z - 5 min.)",
            ),
            (
                signed(),
                BODY,
                key(),
                "eu-west-1",
                "2026-11-22T11:54:59Z",
                "InvalidSignatureException",
                "Signature not yet current",
            ),
            (
                without("authorization"),
                BODY,
                key(),
                "eu-west-1",
                NOON,
                "MissingAuthenticationTokenException",
                "Missing",
            ),
            (without("x-amz-date"), BODY, key(), "eu-west-1", NOON, "IncompleteSignatureException", "'X-Amz-Date'"),
            (
                with("authorization", "AWS4-HMAC-SHA256 Credential=a"),
                BODY,
                key(),
                "eu-west-1",
                NOON,
                "IncompleteSignatureException",
                "'SignedHeaders'",
            ),
            (
                with("authorization", "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=é"),
                BODY,
                key(),
                "eu-west-1",
                NOON,
                "MissingAuthenticationTokenException",
                "Missing",
            ),
            (
                with("authorization", "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=1"),
                BODY,
                key(),
                "eu-west-1",
                NOON,
                "IncompleteSignatureException",
                "5 slash-delimited",
            ),
            (
                with("authorization", "Basic abc"),
                BODY,
                key(),
                "eu-west-1",
                NOON,
                "IncompleteSignatureException",
                "algorithm",
            ),
            (with("x-amz-date", "yesterday"), BODY, key(), "eu-west-1", NOON, "InvalidSignatureException", "ISO-8601"),
            (
                with("x-amz-date", "20261123T000000Z"),
                BODY,
                key(),
                "eu-west-1",
                NOON,
                "InvalidSignatureException",
                "does not match YYYYMMDD",
            ),
            (
                with("x-amz-content-sha256", "00"),
                BODY,
                key(),
                "eu-west-1",
                NOON,
                "InvalidSignatureException",
                "payload",
            ),
        ] {
            let (got, message) = check(&head, body, key, region, now).unwrap_err();
            assert_eq!(got, code, "{message}");
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}
