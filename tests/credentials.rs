//! Credentials: each source that clusters and hosts provide, with its rotation, its absence and its faults, in the
//! host.
//!
//! The Firehose endpoint in these tests accepts only calls signed with the key and session token of the source under
//! test. Sources are small servers here, which answer as STS or a metadata service does; tests/moto.rs uses moto's
//! STS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

mod host;

use host::*;
use jiff::{SignedDuration, Timestamp};
use kubehose_local::firehose::{AccessKey, Faults, Options, Server};
use serde_json::json;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const EVENTS: usize = 500;
const ROLE: &str = "arn:aws:iam::123456789012:role/logs";

/// A header that only the instance metadata service needs; other clients ignore it.
const IMDS_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n";

/// Used in place of a status: closes the connection without a reply.
const CUT: u16 = 0;

/// A request to a credentials source.
#[derive(Clone, Debug)]
struct Ask {
    /// Method, path, version.
    line: String,
    headers: String,
    body: String,
}

/// A credentials source on this machine.
struct Source {
    url: String,
    asks: Arc<Mutex<Vec<Ask>>>,
}

impl Source {
    fn start(answer: impl Fn(&Ask) -> (u16, String) + Send + Sync + 'static) -> Source {
        Source::listen("127.0.0.1:0", answer)
    }

    fn listen(address: &str, answer: impl Fn(&Ask) -> (u16, String) + Send + Sync + 'static) -> Source {
        let listener = TcpListener::bind(address).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asks = Arc::new(Mutex::new(Vec::new()));
        let seen = asks.clone();
        std::thread::spawn(move || {
            let answer = Arc::new(answer);
            for stream in listener.incoming() {
                let (mut stream, answer, seen) = (stream.unwrap(), answer.clone(), seen.clone());
                std::thread::spawn(move || {
                    let Some(ask) = read(&stream) else { return };
                    seen.lock().unwrap().push(ask.clone());
                    let (status, body) = answer(&ask);
                    if status == CUT {
                        return;
                    }
                    let head = format!(
                        "HTTP/1.1 {status} \r\nContent-Length: {}\r\n{IMDS_TTL}Connection: close\r\n\r\n",
                        body.len()
                    );
                    // A client that has closed the connection has given up, and retries.
                    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
                });
            }
        });
        Source { url, asks }
    }

    fn asks(&self) -> Vec<Ask> {
        self.asks.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> Option<Ask> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut headers = String::new();
    while !headers.ends_with("\r\n\r\n") && headers != "\r\n" {
        if reader.read_line(&mut headers).ok()? == 0 {
            return None;
        }
    }
    let length =
        headers.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Ask { line, headers, body: String::from_utf8(body).unwrap() })
}

/// A key with a session token; each part is distinct, so that a leak in the log is recognised.
fn key(name: &str) -> AccessKey {
    let name = name.to_uppercase();
    let session_token = Some(format!("SESSION/{name}/TOKEN+="));
    AccessKey { session_token, ..AccessKey::new(format!("ASIA{name}"), format!("SECRET/{name}/KEY+")) }
}

/// An expiration so soon that the SDK renews the credentials before its next call.
fn soon() -> String {
    (Timestamp::now() + SignedDuration::from_secs(2)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The reply of a metadata service or a credential process.
fn as_json(key: &AccessKey) -> String {
    json!({"Version": 1, "AccessKeyId": key.id, "SecretAccessKey": key.secret,
        "SessionToken": key.session_token, "Token": key.session_token, "Expiration": soon()})
    .to_string()
}

/// The reply of STS to `action`.
fn as_xml(action: &str, key: &AccessKey) -> String {
    let (id, secret, token, expiration) = (&key.id, &key.secret, key.session_token.as_ref().unwrap(), soon());
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>\
         <Expiration>{expiration}</Expiration></Credentials><AssumedRoleUser><AssumedRoleId>AROA:kubehose</AssumedRoleId>\
         <Arn>arn:aws:sts::123456789012:assumed-role/logs/kubehose</Arn></AssumedRoleUser></{action}Result></{action}Response>"
    )
}

/// The reply of STS to a caller that the role's trust policy does not allow.
fn not_authorized(action: &str) -> (u16, String) {
    let text = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>AccessDenied</Code>\
         <Message>User: arn:aws:iam::123456789012:user/kubehose is not authorized to perform: sts:{action} on resource: {ROLE}\
         </Message></Error><RequestId>1</RequestId></ErrorResponse>"
    );
    (403, text)
}

fn firehose_with(keys: Vec<AccessKey>) -> Server {
    Server::start(Options { access_keys: keys, ..firehose_options(true) }).unwrap()
}

/// A host without credentials, with debug logs.
fn scene() -> Scene {
    // The engine retries soon, and the lines waiting in the log are shown.
    let scene = Scene::new().without_credentials().service("Log_Level", "debug");
    scene.service("Scheduler.Base", "1").service("Scheduler.Cap", "1").tail(EVENTS, &[("Refresh_Interval", "1")])
}

fn start(scene: Scene, server: &Server, more: &[(&str, &str)]) -> Running {
    let options = [("Workers", "1"), ("flush_timeout", "1s"), ("log_level", "debug"), ("Retry_Limit", "no_limits")];
    scene.output(server, &[&options[..], more].concat()).start()
}

/// Waits until `count` events have arrived, ends the host, and returns its log, which must contain no secret.
fn end(mut running: Running, server: &Server, count: usize, secrets: &[&str]) -> String {
    arrived(&running, server, count);
    running.signal("TERM");
    assert!(running.wait(Duration::from_secs(30)).success());
    let log = running.log();
    assert_each_once(server, count, &log);
    assert_eq!(ended(&log, "accepted"), count as u64, "{log}");
    assert_eq!((ended(&log, "dead_lettered"), ended(&log, "possibly_duplicate")), (0, 0), "{log}");
    assert_silent(&log, secrets);
    log
}

fn arrived(running: &Running, server: &Server, count: usize) {
    let limit = std::time::Instant::now() + Duration::from_secs(60);
    while server.stats().records_accepted < count as u64 {
        assert!(std::time::Instant::now() < limit, "{} of {count}\n{}", server.stats().records_accepted, running.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn assert_silent(log: &str, secrets: &[&str]) {
    for secret in secrets.iter().copied().chain(["SECRET/", "SESSION/"]) {
        let percent = secret.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
        for secret in [secret, &percent] {
            assert!(!log.contains(secret), "{secret} is in the log\n{log}");
        }
    }
    assert!(log.contains("[debug]"), "{log}");
}

/// Waits for the first log line with an error, and returns it.
fn complaint(running: &Running) -> String {
    let mut found = None;
    until("log line with the error", Duration::from_secs(60), || {
        found = running.log().lines().find(|line| line.contains("cannot deliver: ")).map(str::to_owned);
        found.is_some() || running.log().contains("] ended: ")
    });
    found.unwrap_or_else(|| panic!("{}", running.log()))
}

fn assert_says(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "no '{word}' in: {line}");
    }
}

#[test]
fn a_role_is_assumed_with_its_external_id_and_the_firehose_endpoint_is_kept() {
    let (own, role) = (AccessKey::new(KEY, SECRET), key("role"));
    let server = firehose_with(vec![role.clone()]);
    let trusted = Arc::new(Mutex::new("another-id"));
    let sts = Source::start({
        let (role, trusted) = (role.clone(), trusted.clone());
        move |ask| {
            let external_id = format!("&ExternalId={}&", trusted.lock().unwrap());
            match format!("{}&", ask.body).contains(&external_id) {
                true => (200, as_xml("AssumeRole", &role)),
                false => not_authorized("AssumeRole"),
            }
        }
    });
    let scene = scene().environment("AWS_ACCESS_KEY_ID", KEY).environment("AWS_SECRET_ACCESS_KEY", SECRET);
    let options = [("role_arn", ROLE), ("external_id", "my-id"), ("sts_endpoint", sts.url.as_str())];
    let running = start(scene, &server, &options);
    let line = complaint(&running);
    assert_says(&line, &["AccessDenied", "sts:AssumeRole", ROLE, "'role_arn'", "'external_id'", "trust policy"]);
    assert_eq!(server.stats().requests, 0);
    // The trust policy is fixed.
    *trusted.lock().unwrap() = "my-id";
    let log = end(running, &server, EVENTS, &[SECRET]);
    assert!(log.contains("records are accepted again after"), "{log}");
    assert_eq!(server.stats().signed_by.keys().collect::<Vec<_>>(), [&role.id]);
    for ask in sts.asks() {
        assert!(ask.body.contains("Action=AssumeRole&"), "{ask:?}");
        assert!(ask.body.contains("RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Flogs"), "{ask:?}");
        assert!(ask.headers.contains(&format!("Credential={}/", own.id)), "{ask:?}");
    }
}

#[test]
fn irsa_asks_the_sts_endpoint_and_reads_a_rotated_token() {
    let (one, two) = (key("web1"), key("web2"));
    let server = firehose_with(vec![one.clone()]);
    let sts = Source::start({
        let (one, two) = (one.clone(), two.clone());
        move |ask| match ask.body.contains("WebIdentityToken=header.ONE.signature") {
            true => (200, as_xml("AssumeRoleWithWebIdentity", &one)),
            false if ask.body.contains("header.TWO.signature") => (200, as_xml("AssumeRoleWithWebIdentity", &two)),
            false => not_authorized("AssumeRoleWithWebIdentity"),
        }
    });
    let scene = scene();
    let file = scene.path("token");
    fs::write(&file, "header.ONE.signature").unwrap();
    let scene =
        scene.environment("AWS_ROLE_ARN", ROLE).environment("AWS_WEB_IDENTITY_TOKEN_FILE", &file.display().to_string());
    let running = start(scene, &server, &[("sts_endpoint", sts.url.as_str())]);
    arrived(&running, &server, EVENTS);
    fs::write(&file, "header.TWO.signature").unwrap();
    server.set_access_keys(vec![two.clone()]);
    running.scene.append(EVENTS..2 * EVENTS);
    end(running, &server, 2 * EVENTS, &["header.ONE", "header.TWO"]);
    assert_eq!(server.stats().signed_by.keys().collect::<Vec<_>>(), [&one.id, &two.id]);
    assert!(sts.asks().iter().all(|ask| ask.body.contains("Action=AssumeRoleWithWebIdentity&")));
}

#[test]
fn a_role_is_assumed_with_irsa_credentials_both_from_the_sts_endpoint() {
    let (web, role) = (key("web"), key("role"));
    let server = firehose_with(vec![role.clone()]);
    let sts = Source::start({
        let (web, role) = (web.clone(), role.clone());
        move |ask| match ask.body.contains("Action=AssumeRoleWithWebIdentity&") {
            true => (200, as_xml("AssumeRoleWithWebIdentity", &web)),
            false if ask.headers.contains(&format!("Credential={}/", web.id)) => (200, as_xml("AssumeRole", &role)),
            false => not_authorized("AssumeRole"),
        }
    });
    let scene = scene();
    let file = scene.path("token");
    fs::write(&file, "header.ONE.signature").unwrap();
    let scene = scene
        .environment("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pod")
        .environment("AWS_WEB_IDENTITY_TOKEN_FILE", &file.display().to_string());
    let running = start(scene, &server, &[("role_arn", ROLE), ("sts_endpoint", sts.url.as_str())]);
    end(running, &server, EVENTS, &["header.ONE"]);
    assert_eq!(server.stats().signed_by.keys().collect::<Vec<_>>(), [&role.id]);
}

#[test]
fn refused_irsa_is_logged_and_loses_nothing() {
    let web = key("web");
    let server = firehose_with(vec![web.clone()]);
    let sts = Source::start({
        let web = web.clone();
        move |ask| match ask.body.contains("header.NEW.signature") {
            true => (200, as_xml("AssumeRoleWithWebIdentity", &web)),
            false => not_authorized("AssumeRoleWithWebIdentity"),
        }
    });
    let scene = scene();
    let file = scene.path("token");
    fs::write(&file, "header.OLD.signature").unwrap();
    let scene =
        scene.environment("AWS_ROLE_ARN", ROLE).environment("AWS_WEB_IDENTITY_TOKEN_FILE", &file.display().to_string());
    let running = start(scene, &server, &[("sts_endpoint", sts.url.as_str())]);
    assert_says(&complaint(&running), &["AccessDenied", "sts:AssumeRoleWithWebIdentity", ROLE, "trust policy"]);
    fs::write(&file, "header.NEW.signature").unwrap();
    end(running, &server, EVENTS, &["header.OLD", "header.NEW"]);
}

/// Where a role's credentials come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Container,
    PodIdentity,
    Irsa,
    AssumeRole,
    InstanceProfile,
    Process,
}

/// How a source fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Cut,
    /// After 0.3 s.
    Forbidden,
    Hangs,
}

/// A source of each kind fails at the first look-up and again at a later one, while many batches wait for
/// credentials.
fn fails_and_recovers(kind: Kind, trouble: Trouble, workers: &str) {
    const MANY: usize = 4000;
    let what = format!("{kind:?}, {trouble:?}, Workers {workers}");
    let own = AccessKey::new(KEY, SECRET);
    let role = key("role");
    let server = firehose_with(vec![role.clone()]);
    let state = Arc::new(Mutex::new(trouble));
    let source = Source::start({
        let (state, role) = (state.clone(), role.clone());
        move |ask| {
            let now = *state.lock().unwrap();
            match now {
                Trouble::None => {}
                Trouble::Cut => return (CUT, String::new()),
                Trouble::Forbidden => {
                    std::thread::sleep(Duration::from_millis(300));
                    return (403, "no".to_owned());
                }
                Trouble::Hangs => std::thread::sleep(Duration::from_secs(120)),
            }
            match kind {
                Kind::Irsa => (200, as_xml("AssumeRoleWithWebIdentity", &role)),
                Kind::AssumeRole => (200, as_xml("AssumeRole", &role)),
                Kind::InstanceProfile if ask.line.starts_with("PUT ") => (200, "a-token".to_owned()),
                Kind::InstanceProfile if ask.line.contains("/ HTTP") => (200, "logs".to_owned()),
                Kind::InstanceProfile => {
                    let mut json: serde_json::Value = serde_json::from_str(&as_json(&role)).unwrap();
                    json["Code"] = json!("Success");
                    json["Type"] = json!("AWS-HMAC");
                    json["LastUpdated"] = json!("2026-01-01T00:00:00Z");
                    (200, json.to_string())
                }
                _ => (200, as_json(&role)),
            }
        }
    });
    let mut scene = Scene::new().without_credentials().service("Log_Level", "debug");
    scene = scene.service("Scheduler.Base", "1").service("Scheduler.Cap", "1");
    scene = scene.tail(MANY, &[("Refresh_Interval", "1")]);
    let (token, script) = (scene.path("token"), scene.path("process"));
    fs::write(&token, "a.web.token").unwrap();
    let url = source.url.as_str();
    let mut options = vec![("request_timeout", "2s"), ("Workers", workers), ("Retry_Limit", "no_limits")];
    options.extend([("log_level", "debug"), ("shutdown_timeout", "10s")]);
    match kind {
        Kind::Container => scene = scene.environment("AWS_CONTAINER_CREDENTIALS_FULL_URI", url),
        Kind::PodIdentity => {
            scene = scene
                .environment("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
                .environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token.display().to_string());
        }
        Kind::Irsa => {
            scene = scene
                .environment("AWS_ROLE_ARN", ROLE)
                .environment("AWS_WEB_IDENTITY_TOKEN_FILE", &token.display().to_string());
            options.push(("sts_endpoint", url));
        }
        Kind::AssumeRole => {
            scene = scene.environment("AWS_ACCESS_KEY_ID", &own.id).environment("AWS_SECRET_ACCESS_KEY", &own.secret);
            options.extend([("role_arn", ROLE), ("sts_endpoint", url)]);
        }
        Kind::InstanceProfile => {
            scene = scene
                .environment("AWS_EC2_METADATA_DISABLED", "false")
                .environment("AWS_EC2_METADATA_SERVICE_ENDPOINT", url);
        }
        Kind::Process => {
            // It calls the source, and fails when that fails.
            fs::write(&script, format!("#!/bin/sh\nexec curl -sSf {url}/process\n")).unwrap();
            fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            let config = format!("[profile process]\ncredential_process = {}\n", script.display());
            scene = with_profiles(scene, &config, "");
            options.push(("profile", "process"));
        }
    }
    let mut running = scene.output(&server, &options).start();
    let line = complaint(&running);
    assert!(line.contains("To fix it: "), "{what}: {line}");
    assert!(!source.asks().is_empty() && server.stats().requests == 0, "{what}: the fault did not fire");
    *state.lock().unwrap() = Trouble::None;
    arrived(&running, &server, MANY);
    // These credentials expire soon, so there is a look-up before the next call, too.
    *state.lock().unwrap() = trouble;
    let asks = source.asks().len();
    running.scene.append(MANY..2 * MANY);
    until("look-up", Duration::from_secs(30), || source.asks().len() > asks);
    std::thread::sleep(Duration::from_secs(4));
    let between = server.stats().records_accepted;
    // The SDK keeps using an instance profile's last credentials when it cannot get new ones.
    assert!(between < 2 * MANY as u64 || kind == Kind::InstanceProfile, "{what}: the fault did not fire");
    *state.lock().unwrap() = Trouble::None;
    arrived(&running, &server, 2 * MANY);
    running.signal("TERM");
    assert!(running.wait(Duration::from_secs(15)).success(), "{what}");
    let log = running.log();
    assert_each_once(&server, 2 * MANY, &log);
    assert_eq!(ended(&log, "accepted"), 2 * MANY as u64, "{what}\n{log}");
    assert_silent(&log, &["a.web.token", "a-token"]);
    assert_eq!(server.stats().signed_by.keys().collect::<Vec<_>>(), [&role.id]);
}

fn every_kind_fails_and_recovers(trouble: Trouble) {
    let kinds =
        [Kind::Container, Kind::PodIdentity, Kind::Irsa, Kind::AssumeRole, Kind::InstanceProfile, Kind::Process];
    std::thread::scope(|scope| {
        for (kind, workers) in kinds.into_iter().zip(["0", "1", "8"].into_iter().cycle().skip(trouble as usize)) {
            scope.spawn(move || fails_and_recovers(kind, trouble, workers));
        }
    });
}

#[test]
fn every_source_that_cuts_connections_recovers() {
    every_kind_fails_and_recovers(Trouble::Cut);
}

#[test]
fn every_source_that_refuses_after_a_delay_recovers() {
    every_kind_fails_and_recovers(Trouble::Forbidden);
}

#[test]
fn every_source_that_hangs_recovers() {
    every_kind_fails_and_recovers(Trouble::Hangs);
}

/// EKS Pod Identity and ECS provide a container with a URL, and a token to send there, which rotates.
#[test]
fn pod_identity_reads_its_token_again_when_it_rotates() {
    let (one, two) = (key("pod1"), key("pod2"));
    let server = firehose_with(vec![one.clone()]);
    let agent = Source::start({
        let (one, two) = (one.clone(), two.clone());
        move |ask| match ask.headers.contains("uthorization: pod.TOKENONE")
            || ask.headers.contains("AUTHORIZATION: pod.TOKENONE")
        {
            true => (200, as_json(&one)),
            false if ask.headers.contains("pod.TOKENTWO") => (200, as_json(&two)),
            false => (401, "who are you".to_owned()),
        }
    });
    let scene = scene();
    let file = scene.path("token");
    fs::write(&file, "pod.TOKENONE").unwrap();
    let scene = scene
        .environment("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/v1/credentials", agent.url))
        .environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &file.display().to_string());
    let running = start(scene, &server, &[]);
    arrived(&running, &server, EVENTS);
    fs::write(&file, "pod.TOKENTWO").unwrap();
    server.set_access_keys(vec![two.clone()]);
    running.scene.append(EVENTS..2 * EVENTS);
    end(running, &server, 2 * EVENTS, &["pod.TOKENONE", "pod.TOKENTWO"]);
    assert_eq!(server.stats().signed_by.keys().collect::<Vec<_>>(), [&one.id, &two.id]);
    assert!(agent.asks().iter().all(|ask| ask.line.starts_with("GET /v1/credentials ")));
}

/// The SDK accepts only 169.254.170.2 as ECS's address: the test runs again in its own network namespace, which has
/// that address.
#[test]
fn an_ecs_tasks_role_is_requested_at_the_ecs_address() {
    let setup = "ip link set lo up && ip address add 169.254.170.2/32 dev lo";
    if !inside("an_ecs_tasks_role_is_requested_at_the_ecs_address", &["--net"], setup) {
        return;
    }
    let task = key("task");
    let server = firehose_with(vec![task.clone()]);
    let agent = Source::listen("169.254.170.2:80", {
        let task = task.clone();
        move |_| (200, as_json(&task))
    });
    let scene = scene().environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/0123-4567");
    end(start(scene, &server, &[]), &server, EVENTS, &[]);
    assert_eq!(server.stats().signed_by.keys().collect::<Vec<_>>(), [&task.id]);
    assert!(agent.asks().iter().all(|ask| ask.line.starts_with("GET /v2/credentials/0123-4567 ")));
}

/// Writes the two files of `aws configure` to the scene's folder, and points the host at them.
fn with_profiles(scene: Scene, config: &str, credentials: &str) -> Scene {
    let files = ["config", "credentials"].map(|name| scene.path(name));
    fs::write(&files[0], config).unwrap();
    fs::write(&files[1], credentials).unwrap();
    let [config, credentials] = files.map(|file| file.display().to_string());
    scene.environment("AWS_CONFIG_FILE", &config).environment("AWS_SHARED_CREDENTIALS_FILE", &credentials)
}

fn profile_of(name: &str, key: &AccessKey) -> String {
    let token = key.session_token.as_ref().unwrap();
    format!(
        "[{name}]\naws_access_key_id = {}\naws_secret_access_key = {}\naws_session_token = {token}\n",
        key.id, key.secret
    )
}

#[test]
fn the_profile_option_takes_precedence_over_the_environment() {
    let (default, environment, option) = (key("default"), key("environment"), key("option"));
    let files = [profile_of("default", &default), profile_of("from-env", &environment), profile_of("mine", &option)];
    for (variable, given, expected) in
        [(None, None, &default), (Some("from-env"), None, &environment), (Some("from-env"), Some("mine"), &option)]
    {
        let server = firehose_with(vec![expected.clone()]);
        let mut scene = with_profiles(scene(), "", &files.concat());
        if let Some(name) = variable {
            scene = scene.environment("AWS_PROFILE", name);
        }
        let more: Vec<_> = given.iter().map(|name| ("profile", *name)).collect();
        end(start(scene, &server, &more), &server, EVENTS, &[]);
    }
}

#[test]
fn a_missing_profile_is_named() {
    let server = firehose_with(vec![key("mine")]);
    let scene = with_profiles(scene(), "", &profile_of("other", &key("other")));
    let file = scene.path("credentials");
    let running = start(scene, &server, &[("profile", "mine")]);
    assert_says(&complaint(&running), &["mine", "'profile'"]);
    // The profile is added to the file while the host runs.
    fs::write(&file, profile_of("mine", &key("mine"))).unwrap();
    end(running, &server, EVENTS, &[]);
}

#[test]
fn a_credential_process_is_run_again_when_its_credentials_expire() {
    let (one, two) = (key("process1"), key("process2"));
    let server = firehose_with(vec![one.clone()]);
    let scene = scene();
    let answer = scene.path("answer");
    fs::write(&answer, as_json(&one)).unwrap();
    let config = format!("[profile process]\ncredential_process = cat {}\n", answer.display());
    let running = start(with_profiles(scene, &config, ""), &server, &[("profile", "process")]);
    arrived(&running, &server, EVENTS);
    // Replaced atomically, because `cat` may read it at any time.
    fs::write(answer.with_extension("new"), as_json(&two)).unwrap();
    fs::rename(answer.with_extension("new"), &answer).unwrap();
    server.set_access_keys(vec![two.clone()]);
    running.scene.append(EVENTS..2 * EVENTS);
    end(running, &server, 2 * EVENTS, &[]);
    assert_eq!(server.stats().signed_by.keys().collect::<Vec<_>>(), [&one.id, &two.id]);
}

#[test]
fn a_failing_credential_process_is_logged() {
    let process = key("process");
    let server = firehose_with(vec![process.clone()]);
    let scene = scene();
    let answer = scene.path("answer");
    let config = format!("[default]\ncredential_process = cat {}\n", answer.display());
    let running = start(with_profiles(scene, &config, ""), &server, &[]);
    assert_says(&complaint(&running), &["external process", "No such file"]);
    fs::write(&answer, as_json(&process)).unwrap();
    end(running, &server, EVENTS, &[]);
}

#[test]
fn a_profile_assumes_its_role_at_the_sts_endpoint() {
    let (base, role) = (key("base"), key("role"));
    let server = firehose_with(vec![role.clone()]);
    let sts = Source::start({
        let (base, role) = (base.clone(), role.clone());
        move |ask| match ask.headers.contains(&format!("Credential={}/", base.id)) {
            true => (200, as_xml("AssumeRole", &role)),
            false => not_authorized("AssumeRole"),
        }
    });
    for (name, given) in [("logs", Some("logs")), ("default", None)] {
        let section = if given.is_some() { "profile logs" } else { name };
        let config = format!("[{section}]\nrole_arn = {ROLE}\nsource_profile = base\n");
        let before = server.stats().records_accepted as usize;
        let scene = with_profiles(scene(), &config, &profile_of("base", &base));
        let more: Vec<_> =
            given.iter().map(|name| ("profile", *name)).chain([("sts_endpoint", sts.url.as_str())]).collect();
        let running = start(scene, &server, &more);
        arrived(&running, &server, before + EVENTS);
    }
    assert_eq!(server.stats().signed_by.keys().collect::<Vec<_>>(), [&role.id]);
}

#[test]
fn without_credentials_the_log_names_the_sources_tried_and_later_ones_are_used() {
    let later = key("later");
    let server = firehose_with(vec![later.clone()]);
    let scene = scene();
    let file = scene.path("credentials");
    let scene = scene.environment("AWS_SHARED_CREDENTIALS_FILE", &file.display().to_string());
    let running = start(scene, &server, &[]);
    let tried = ["Environment", "Profile", "WebIdentityToken", "EcsContainer", "Ec2InstanceMetadata"];
    assert_says(&complaint(&running), &[&tried[..], &["no credentials", "IRSA", "AWS_ACCESS_KEY_ID"]].concat());
    assert_eq!(server.stats().requests, 0);
    fs::write(&file, profile_of("default", &later)).unwrap();
    let log = end(running, &server, EVENTS, &[]);
    // One log line for all its retries.
    assert_eq!(log.matches("cannot deliver: ").count(), 1, "{log}");
}

#[test]
fn a_source_that_returns_garbage_is_logged_and_loses_nothing() {
    for (status, rubbish, says) in [
        (500, "internal SECRET/IN/ANSWER".to_owned(), "500"),
        (404, "<html>SECRET/IN/ANSWER</html>".to_owned(), "404"),
        (200, "<html>SECRET/IN/ANSWER</html>".to_owned(), ""),
        (200, json!({"AccessKeyId": "A", "SecretAccessKey": ["SECRET/IN/ANSWER"]}).to_string(), ""),
        (200, json!({"Code": "AccessDenied", "Message": "the association is gone"}).to_string(), "association is gone"),
    ] {
        let pod = key("pod");
        let server = firehose_with(vec![pod.clone()]);
        let mended = Arc::new(Mutex::new(false));
        let agent = Source::start({
            let (pod, mended) = (pod.clone(), mended.clone());
            move |_| match *mended.lock().unwrap() {
                true => (200, as_json(&pod)),
                false => (status, rubbish.clone()),
            }
        });
        let scene = scene()
            .environment("AWS_CONTAINER_CREDENTIALS_FULL_URI", &agent.url)
            .environment("AWS_CONTAINER_AUTHORIZATION_TOKEN", "pod.TOKEN");
        let running = start(scene, &server, &[]);
        assert_says(&complaint(&running), &["AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.url.as_str(), says]);
        *mended.lock().unwrap() = true;
        end(running, &server, EVENTS, &["pod.TOKEN"]);
    }
}

#[test]
fn an_sts_that_returns_garbage_or_is_down_is_logged_and_loses_nothing() {
    let role = key("role");
    for (status, rubbish) in
        [(500, "SECRET/IN/ANSWER"), (200, "<html>SECRET/IN/ANSWER"), (502, "<html>SECRET/IN/ANSWER</html>")]
    {
        let server = firehose_with(vec![role.clone()]);
        let mended = Arc::new(Mutex::new(false));
        let sts = Source::start({
            let (role, mended) = (role.clone(), mended.clone());
            move |_| match *mended.lock().unwrap() {
                true => (200, as_xml("AssumeRole", &role)),
                false => (status, rubbish.to_owned()),
            }
        });
        let scene = scene().environment("AWS_ACCESS_KEY_ID", KEY).environment("AWS_SECRET_ACCESS_KEY", SECRET);
        let running = start(scene, &server, &[("role_arn", ROLE), ("sts_endpoint", sts.url.as_str())]);
        assert_says(&complaint(&running), &["'role_arn'", ROLE, sts.url.as_str()]);
        *mended.lock().unwrap() = true;
        end(running, &server, EVENTS, &[SECRET]);
    }
    // Nothing listens at that address yet.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let server = firehose_with(vec![role.clone()]);
    let scene = scene().environment("AWS_ACCESS_KEY_ID", KEY).environment("AWS_SECRET_ACCESS_KEY", SECRET);
    let url = format!("http://{address}");
    let running = start(scene, &server, &[("role_arn", ROLE), ("sts_endpoint", url.as_str())]);
    assert_says(&complaint(&running), &["refused", "'role_arn'", url.as_str()]);
    let _sts = Source::listen(&address, move |_| (200, as_xml("AssumeRole", &role)));
    end(running, &server, EVENTS, &[SECRET]);
}

#[test]
fn credentials_that_the_service_rejects_are_logged_and_looked_up_again() {
    let (old, new) = (key("old"), key("new"));
    let server = firehose_with(vec![new.clone()]);
    let scene = with_profiles(scene(), "", &profile_of("default", &old));
    let file = scene.path("credentials");
    let running = start(scene, &server, &[]);
    assert_says(&complaint(&running), &["UnrecognizedClientException", "have not expired"]);
    fs::write(&file, profile_of("default", &new)).unwrap();
    arrived(&running, &server, EVENTS);
    assert_eq!(arrivals(&server).values().filter(|times| **times > 1).count(), 0);
    assert_silent(&running.log(), &[]);
    assert_eq!(server.stats().signed_by.keys().collect::<Vec<_>>(), [&new.id]);
}

#[test]
fn a_wrong_clock_is_logged_and_corrected_for() {
    for (clock_ahead_s, words) in
        [(3630, "60 minutes behind the service's"), (-7230, "120 minutes ahead of the service's")]
    {
        let faults = Faults { clock_ahead_s, ..Faults::default() };
        let server = Server::start(Options { faults, ..firehose_options(true) }).unwrap();
        let scene = Scene::new().service("Log_Level", "debug").tail(EVENTS, &[("Refresh_Interval", "1")]);
        let mut running = start(scene, &server, &[]);
        assert_says(&complaint(&running), &["InvalidSignatureException", words, "is corrected for"]);
        arrived(&running, &server, EVENTS);
        // Then the clock is set right.
        server.set_faults(Faults::default());
        running.scene.append(EVENTS..2 * EVENTS);
        arrived(&running, &server, 2 * EVENTS);
        running.signal("TERM");
        assert!(running.wait(Duration::from_secs(30)).success());
        let log = running.log();
        assert_eq!((ended(&log, "errors.credentials"), ended(&log, "accepted")), (2, 2 * EVENTS as u64), "{log}");
        assert_eq!(arrivals(&server).values().filter(|times| **times > 1).count(), 0);
        assert_silent(&log, &[SECRET]);
    }
}
