//! The Firehose endpoint, called with the real AWS SDK and with hand-written requests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

use aws_sdk_firehose::Client;
use aws_sdk_firehose::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_sdk_firehose::error::ProvideErrorMetadata;
use aws_sdk_firehose::operation::put_record_batch::PutRecordBatchOutput;
use aws_sdk_firehose::primitives::Blob;
use aws_sdk_firehose::types::Record;
use aws_smithy_http_client::tls;
use aws_smithy_types::retry::RetryConfig;
use kubehose_local::firehose::{
    AccessKey, Down, Faults, Keep, MAX_RECORD_BYTES, MAX_RECORDS, Options, RecordError, Server, Stats,
};

const REGION: &str = "eu-west-1";

fn options() -> Options {
    Options { keep: Keep::Records, count_unique: true, region: Some(REGION.to_owned()), ..Options::default() }
}

fn start(faults: Faults) -> Server {
    Server::start(Options { faults, ..options() }).unwrap()
}

/// A client without retries, so that tests see each reply of the server.
fn client(server: &Server, credentials: Credentials, region: &str) -> Client {
    let mut trust = tls::TrustStore::empty();
    if let Some(ca) = server.ca_pem_path() {
        trust.add_pem_certificate(std::fs::read(ca).unwrap());
    }
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .tls_context(tls::TlsContext::builder().with_trust_store(trust).build().unwrap())
        .build_https();
    let config = aws_sdk_firehose::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(server.url())
        .region(Region::new(region.to_owned()))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(RetryConfig::disabled())
        .http_client(http)
        .build();
    Client::from_conf(config)
}

fn anyone(server: &Server) -> Client {
    client(server, Credentials::new("AKID", "any", None, None, "test"), REGION)
}

/// Sends `records` in one call; returns an error as its code and message.
async fn put(client: &Client, records: Vec<Vec<u8>>) -> Result<PutRecordBatchOutput, (String, String)> {
    let record = |data| Record::builder().data(Blob::new(data)).build().unwrap();
    client
        .put_record_batch()
        .delivery_stream_name("logs")
        .set_records(Some(records.into_iter().map(record).collect()))
        .send()
        .await
        .map_err(|error| {
            let code = error.code().unwrap_or("no reply").to_owned();
            let message = error.message().map_or_else(|| format!("{error:?}"), str::to_owned);
            (code, message)
        })
}

fn numbered(range: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    range.map(|n| format!("{{\"n\":{n}}}\n").into_bytes()).collect()
}

fn error_codes(output: &PutRecordBatchOutput) -> Vec<Option<&str>> {
    output.request_responses().iter().map(|entry| entry.error_code()).collect()
}

#[tokio::test]
async fn signed_records_sent_over_tls_are_kept_unchanged() {
    let key = AccessKey { session_token: Some("a token".to_owned()), ..AccessKey::new("AKID", "secret") };
    let server = Server::start(Options { tls: true, access_keys: vec![key], ..options() }).unwrap();
    assert!(server.url().starts_with("https://127.0.0.1:"));
    let client = client(&server, Credentials::new("AKID", "secret", Some("a token".to_owned()), None, "test"), REGION);
    let sent: Vec<Vec<u8>> = vec![b"plain".to_vec(), b"line\n".to_vec(), vec![0, 255, 128], b"plain".to_vec()];
    let output = put(&client, sent.clone()).await.unwrap();
    assert_eq!(output.failed_put_count(), 0);
    assert_eq!(output.encrypted(), Some(false));
    let ids: std::collections::HashSet<_> = output.request_responses().iter().map(|entry| entry.record_id()).collect();
    assert_eq!(ids.len(), 4);
    let kept = server.records();
    assert_eq!(kept.iter().map(|record| record.data.to_vec()).collect::<Vec<_>>(), sent);
    assert!(kept.iter().all(|record| &*record.stream == "logs"));

    let output = client
        .put_record()
        .delivery_stream_name("logs")
        .record(Record::builder().data(Blob::new("alone")).build().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(output.record_id().len(), 224);
    let described = client.describe_delivery_stream().delivery_stream_name("logs").send().await.unwrap();
    assert_eq!(described.delivery_stream_description().unwrap().delivery_stream_status().as_str(), "ACTIVE");

    let stats = server.stats();
    assert_eq!((stats.requests, stats.records_accepted, stats.unique, stats.duplicates), (3, 5, 4, 1));
    assert_eq!((stats.bytes_accepted, stats.bytes_billed), (5 + 5 + 3 + 5 + 5, 5 * 5120));
    assert_eq!((stats.batches, stats.batch_records_max, stats.statuses[&200]), (1, 4, 3));
    assert_eq!(stats.signature_failures, 0);
}

#[tokio::test]
async fn signatures_are_rejected_as_the_service_does() {
    let expired = AccessKey { expires: Some(SystemTime::now()), ..AccessKey::new("AKIDOLD", "old") };
    let server =
        Server::start(Options { access_keys: vec![AccessKey::new("AKID", "secret"), expired], ..options() }).unwrap();
    let cases = [
        ("AKID", "wrong", REGION, "InvalidSignatureException"),
        ("AKIDNONE", "secret", REGION, "UnrecognizedClientException"),
        ("AKIDOLD", "old", REGION, "ExpiredTokenException"),
        ("AKID", "secret", "us-west-2", "InvalidSignatureException"),
    ];
    for (id, secret, region, expected) in cases {
        let client = client(&server, Credentials::new(id, secret, None, None, "test"), region);
        let (code, message) = put(&client, numbered(0..1)).await.unwrap_err();
        assert_eq!(code, expected, "{message}");
    }
    assert_eq!(server.stats().signature_failures, 4);
    assert_eq!(server.stats().records_accepted, 0);

    // Rotation: from now on the new key works and the old one does not.
    assert!(server.stats().signed_by.is_empty());
    let old = client(&server, Credentials::new("AKID", "secret", None, None, "test"), REGION);
    let new = client(&server, Credentials::new("AKIDNEW", "new", None, None, "test"), REGION);
    put(&old, numbered(0..1)).await.unwrap();
    server.set_access_keys(vec![AccessKey::new("AKIDNEW", "new")]);
    put(&new, numbered(0..1)).await.unwrap();
    assert_eq!(put(&old, numbered(0..1)).await.unwrap_err().0, "UnrecognizedClientException");
}

#[tokio::test]
async fn limits_allow_their_maximum_and_no_more() {
    let server = start(Faults::default());
    let client = anyone(&server);
    put(&client, numbered(0..MAX_RECORDS)).await.unwrap();
    let (code, message) = put(&client, numbered(0..MAX_RECORDS + 1)).await.unwrap_err();
    assert_eq!(code, "ValidationException");
    assert!(message.contains("at 'records' failed to satisfy constraint"), "{message}");

    put(&client, vec![vec![b'a'; MAX_RECORD_BYTES]]).await.unwrap();
    let (code, message) = put(&client, vec![b"fine".to_vec(), vec![b'a'; MAX_RECORD_BYTES + 1]]).await.unwrap_err();
    assert_eq!(code, "ValidationException");
    assert!(message.contains("'records.2.member.data'") && message.contains("equal to 1024000"), "{message}");

    // Three records of the maximum size are 4,096,000 bytes of base64; the rest of 4 MiB is used up exactly.
    let batch = |last: usize| {
        let mut records = vec![vec![b'a'; MAX_RECORD_BYTES]; 3];
        records.push(vec![b'a'; last]);
        records
    };
    let fixed = r#"{"DeliveryStreamName":"logs","Records":[{"Data":""},{"Data":""},{"Data":""},{"Data":""}]}"#.len();
    let room = 4 * 1024 * 1024 - fixed - 3 * MAX_RECORD_BYTES.div_ceil(3) * 4;
    put(&client, batch(room / 4 * 3)).await.unwrap();
    let stats = server.stats();
    assert!((4 * 1024 * 1024 - 3..=4 * 1024 * 1024).contains(&(stats.body_bytes_max as usize)), "{stats:?}");
    let (code, message) = put(&client, batch(room / 4 * 3 + 1)).await.unwrap_err();
    assert_eq!((code.as_str(), message.as_str()), ("InvalidArgumentException", "Records size exceeds 4 MB limit"));
    assert_eq!(server.stats().limit_violations, 3);

    let streams = vec!["other".to_owned()];
    let server = Server::start(Options { streams, ..options() }).unwrap();
    let (code, message) = put(&anyone(&server), numbered(0..1)).await.unwrap_err();
    assert_eq!(code, "ResourceNotFoundException");
    assert_eq!(message, "Firehose logs under account 000000000000 not found.");
}

#[tokio::test]
async fn records_fail_one_by_one() {
    let server = start(Faults { fail_every_record: 3, ..Faults::default() });
    let client = anyone(&server);
    let output = put(&client, numbered(0..4)).await.unwrap();
    let throttled = Some("ServiceUnavailableException");
    assert_eq!(error_codes(&output), [None, None, throttled, None]);
    assert_eq!(output.failed_put_count(), 1);
    assert_eq!(output.request_responses()[2].error_message(), Some("Slow down."));
    // Counting continues across requests: the sixth and the ninth record fail.
    server.set_faults(Faults { fail_every_record: 3, record_error: RecordError::InternalFailure, ..Faults::default() });
    let output = put(&client, numbered(4..9)).await.unwrap();
    let failure = Some("InternalFailure");
    assert_eq!(error_codes(&output), [None, failure, None, None, failure]);
    assert_eq!(server.records().len(), 6);
    let stats = server.stats();
    assert_eq!((stats.records_offered, stats.records_accepted, stats.records_failed), (9, 6, 3));
    assert_eq!(stats.faults["fail_every_record"], 3);
}

#[tokio::test]
async fn requests_fail_whole() {
    let server = start(Faults {
        fail_first_requests: 2,
        fail_every_request: 4,
        request_error: "400:ThrottlingException".parse().unwrap(),
        ..Faults::default()
    });
    let client = anyone(&server);
    let mut codes = Vec::new();
    for n in 0..4 {
        codes.push(put(&client, numbered(n..n + 1)).await.map_or_else(|(code, _)| code, |_| "ok".to_owned()));
    }
    assert_eq!(codes, ["ServiceUnavailableException", "ServiceUnavailableException", "ok", "ThrottlingException"]);
    let stats = server.stats();
    assert_eq!((stats.statuses[&503], stats.statuses[&200], stats.statuses[&400]), (2, 1, 1));
    assert_eq!(stats.errors["ThrottlingException"], 1);
    assert_eq!(stats.records_accepted, 1);
}

#[tokio::test]
async fn quotas_throttle_records_and_requests() {
    let server = start(Faults { quota_records_per_second: 10, ..Faults::default() });
    let output = put(&anyone(&server), numbered(0..25)).await.unwrap();
    assert_eq!(output.failed_put_count(), 15);
    assert_eq!(error_codes(&output)[10], Some("ServiceUnavailableException"));

    let server = start(Faults { quota_bytes_per_second: 1000, ..Faults::default() });
    let output = put(&anyone(&server), vec![vec![b'a'; 300]; 5]).await.unwrap();
    assert_eq!(output.failed_put_count(), 2);

    let server = start(Faults { quota_requests_per_second: 1, ..Faults::default() });
    let client = anyone(&server);
    put(&client, numbered(0..1)).await.unwrap();
    assert_eq!(put(&client, numbered(0..1)).await.unwrap_err().0, "ServiceUnavailableException");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    put(&client, numbered(0..1)).await.unwrap();
}

#[tokio::test]
async fn a_cut_before_accepts_nothing_and_a_cut_after_accepts_everything() {
    for tls in [false, true] {
        let faults = Faults { cut_before_every: 2, ..Faults::default() };
        let server = Server::start(Options { tls, faults, ..options() }).unwrap();
        let client = anyone(&server);
        put(&client, numbered(0..3)).await.unwrap();
        assert_eq!(put(&client, numbered(3..6)).await.unwrap_err().0, "no reply");
        assert_eq!(server.records().len(), 3);
        server.set_faults(Faults { cut_after_every: 3, ..Faults::default() });
        assert_eq!(put(&client, numbered(6..9)).await.unwrap_err().0, "no reply");
        assert_eq!(server.records().len(), 6);
        put(&client, numbered(6..9)).await.unwrap();
        let stats = server.stats();
        assert_eq!((stats.records_accepted_then_cut, stats.duplicates), (3, 3));
        assert_eq!((stats.faults["cut_before"], stats.faults["cut_after"]), (1, 1));
        assert_eq!((stats.requests, stats.in_flight), (4, 0));
    }
}

#[tokio::test]
async fn down_resets_or_refuses_and_ends_by_itself() {
    let server = start(Faults { down: Down::Reset, ..Faults::default() });
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let _ = stream.write_all(b"POST / HTTP/1.1\r\n\r\n");
    let error = stream.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    server.set_faults(Faults::default());
    let client = anyone(&server);
    put(&client, numbered(0..1)).await.unwrap();
    server.set_faults(Faults { down: Down::Refuse, down_after_ms: 100, down_for_ms: 400, ..Faults::default() });
    // The first request starts the durations, during which the open connection does not work either.
    put(&client, numbered(1..2)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(put(&client, numbered(2..3)).await.unwrap_err().0, "no reply");
    let error = TcpStream::connect(("127.0.0.1", server.port())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    tokio::time::sleep(Duration::from_millis(400)).await;
    put(&client, numbered(2..3)).await.unwrap();
    assert_eq!(server.records().len(), 3);
}

#[tokio::test]
async fn latency_and_stalls_delay_replies() {
    let server = start(Faults { latency_ms: 50, jitter_ms: 10, stall_every: 2, stall_ms: 300, ..Faults::default() });
    let client = anyone(&server);
    let timed = async |n: usize| {
        let begin = Instant::now();
        put(&client, numbered(n..n + 1)).await.unwrap();
        begin.elapsed().as_millis()
    };
    assert!((50..300).contains(&timed(0).await));
    assert!(timed(1).await >= 350);
    assert_eq!(server.stats().faults["stall"], 1);
}

#[tokio::test]
async fn one_poison_record_fails_its_batch() {
    let server = start(Faults { poison: "n\":7".to_owned(), ..Faults::default() });
    let client = anyone(&server);
    put(&client, numbered(0..7)).await.unwrap();
    assert_eq!(put(&client, numbered(5..9)).await.unwrap_err().0, "InvalidArgumentException");
    put(&client, numbered(8..10)).await.unwrap();
    assert_eq!(server.stats().records_accepted, 9);

    server.set_faults(Faults { access_denied: true, ..Faults::default() });
    let (code, message) = put(&client, numbered(0..1)).await.unwrap_err();
    assert_eq!(code, "AccessDeniedException");
    assert!(
        message
            .contains("is not authorized to perform: firehose:PutRecordBatch on resource: arn:aws:firehose:eu-west-1:")
    );
}

#[tokio::test]
async fn the_output_has_lines_and_unchanged_compressed_records() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.ndjson");
    let faults = Faults { fail_every_record: 5, ..Faults::default() };
    let server = Server::start(Options { output: Some(path.clone()), faults, ..options() }).unwrap();
    let client = anyone(&server);
    put(&client, vec![b"a\n".to_vec(), b"b\n".to_vec()]).await.unwrap();
    put(&client, vec![b"c".to_vec(), vec![0x1f, 0x8b, 1], b"fails\n".to_vec(), b"d\n".to_vec()]).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"a\nb\nc\n\x1f\x8b\x01d\n");
}

/// Sends one hand-written request over its own connection.
fn by_hand(port: u16, method: &str, path: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let len = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {len}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

#[test]
fn faults_are_set_from_outside_even_while_down() {
    let admin_listen = Some("127.0.0.1:0".parse().unwrap());
    let faults = Faults { down: Down::Refuse, ..Faults::default() };
    let server = Server::start(Options { admin_listen, faults, ..options() }).unwrap();
    let admin: u16 = server.admin_url().rsplit(':').next().unwrap().parse().unwrap();
    let reply = by_hand(admin, "GET", "/_kubehose/faults", "", "");
    assert!(reply.contains("\"down\": \"refuse\""), "{reply}");
    let reply = by_hand(admin, "PUT", "/_kubehose/faults", "", r#"{"fail_every_record": 2}"#);
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert_eq!(server.faults(), Faults { fail_every_record: 2, ..Faults::default() });
    let reply = by_hand(admin, "PUT", "/_kubehose/faults", "", r#"{"fail_evry_record": 2}"#);
    assert!(reply.starts_with("HTTP/1.1 400") && reply.contains("fail_evry_record"), "{reply}");
    // The listener is back within one tick.
    std::thread::sleep(Duration::from_millis(100));
    let reply = by_hand(server.port(), "GET", "/_kubehose/stats", "", "");
    assert!(reply.contains("\"requests\": 0"), "{reply}");
}

#[test]
fn invalid_requests_get_an_error_and_do_no_harm() {
    let server = start(Faults::default());
    let target = "X-Amz-Target: Firehose_20150804.PutRecordBatch\r\n";
    for (method, path, headers, body, code) in [
        ("GET", "/", "", "", "UnknownOperationException"),
        ("POST", "/elsewhere", target, "{}", "UnknownOperationException"),
        ("POST", "/", "", "{}", "UnknownOperationException"),
        ("POST", "/", "X-Amz-Target: Firehose_20150804.DeleteDeliveryStream\r\n", "{}", "UnknownOperationException"),
        ("POST", "/", target, "", "SerializationException"),
        ("POST", "/", target, "{\"Records\":", "SerializationException"),
        ("POST", "/", target, r#"{"DeliveryStreamName":"a","Records":[{"Data":"*"}]}"#, "SerializationException"),
    ] {
        let reply = by_hand(server.port(), method, path, headers, body);
        assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
        assert!(reply.contains(&format!("x-amzn-errortype: {code}")), "{reply}");
        assert!(reply.contains(&format!("\"__type\":\"{code}\"")), "{reply}");
        assert!(reply.contains("x-amzn-requestid: "), "{reply}");
    }
    let Stats { requests, statuses, .. } = server.stats();
    assert_eq!((requests, statuses[&400]), (7, 7));
}

#[test]
fn a_server_that_cannot_start_reports_the_reason_and_the_fix() {
    let server = start(Faults::default());
    let listen = format!("127.0.0.1:{}", server.port()).parse().unwrap();
    let Err(error) = Server::start(Options { listen, ..options() }) else { panic!("the port is taken") };
    assert!(error.to_string().contains("port 0"), "{error}");
    let output = Some("/nonexistent/out".into());
    let Err(error) = Server::start(Options { output, ..options() }) else { panic!("there is no such directory") };
    assert!(error.to_string().contains("/nonexistent/out"), "{error}");
}
