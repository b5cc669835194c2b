//! A real proxy, tinyproxy, between the plugin and the local Firehose: HTTPS_PROXY, NO_PROXY, passwords, refusals.
//!
//! tinyproxy's own log shows whether a call went through it. Without tinyproxy these tests do not run, and print one
//! line saying so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

mod host;

use host::*;
use kubehose_local::firehose::{Options, Server};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const EVENTS: usize = 300;
const PASSWORD: &str = "proxy-PASSWORD";

/// Whether tinyproxy is installed; if not, prints what was not run.
fn tinyproxy_or_skip(what: &str) -> bool {
    let there = Command::new("tinyproxy").arg("-v").stdout(Stdio::null()).status().is_ok();
    if !there {
        eprintln!("not run, because tinyproxy is not on PATH (`make test` installs it): {what}");
    }
    there
}

/// A running tinyproxy; it is killed when dropped.
struct Proxy {
    child: Child,
    port: u16,
    log: PathBuf,
    _folder: TempDir,
}

impl Proxy {
    /// Starts it on this port (0 for a free one), with more lines in its configuration.
    fn start(port: u16, more: &str) -> Proxy {
        let folder = tempfile::tempdir().unwrap();
        let port = if port == 0 { free_port() } else { port };
        let log = folder.path().join("log");
        fs::write(folder.path().join("no-firehose"), "localhost\n127\\.0\\.0\\.1\n").unwrap();
        let more = more.replace("FOLDER", &folder.path().display().to_string());
        let configuration = format!(
            "Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 60\nMaxClients 50\nLogLevel Connect\nLogFile \"{}\"\n{more}",
            log.display()
        );
        let file = folder.path().join("tinyproxy.conf");
        fs::write(&file, configuration).unwrap();
        let child = Command::new("tinyproxy")
            .args(["-d", "-c"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let proxy = Proxy { child, port, log, _folder: folder };
        until("tinyproxy", Duration::from_secs(10), || TcpStream::connect(("127.0.0.1", port)).is_ok());
        proxy
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The hosts and ports for which a tunnel was requested.
    fn tunnels(&self) -> Vec<String> {
        let asked = |line: &str| Some(line.split_once(": CONNECT ")?.1.split(' ').next()?.to_owned());
        self.log().lines().filter_map(asked).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Sends all events with these environment variables; returns the host's log.
fn send(server: &Server, variables: &[(&str, &str)], more: &[(&str, &str)]) -> String {
    let mut scene = Scene::new().service("Log_Level", "debug").events(EVENTS);
    for (name, value) in variables {
        scene = scene.environment(name, value);
    }
    let options = [("log_level", "debug"), ("shutdown_timeout", "1m")];
    let log = scene.output(server, &[&options[..], more].concat()).run();
    assert_each_once(server, EVENTS, &log);
    assert_eq!(ended(&log, "accepted"), EVENTS as u64);
    assert!(!log.contains(PASSWORD), "{log}");
    log
}

/// Starts a host that keeps reading; chunks that cannot be delivered are kept and retried.
fn start(server: &Server, variables: &[(&str, &str)], more: &[(&str, &str)]) -> Running {
    let mut scene =
        Scene::new().service("Log_Level", "debug").service("Scheduler.Base", "1").service("Scheduler.Cap", "1");
    for (name, value) in variables {
        scene = scene.environment(name, value);
    }
    let options = [("Workers", "1"), ("flush_timeout", "1s"), ("log_level", "debug"), ("Retry_Limit", "no_limits")];
    scene.tail(EVENTS, &[]).output(server, &[&options[..], more].concat()).start()
}

/// Waits for the log line with the error; no call may have arrived.
fn complaint(running: &Running, server: &Server, words: &[&str]) {
    let mut found = None;
    until("log line with the error", Duration::from_secs(60), || {
        found = running.log().lines().find(|line| line.contains("cannot deliver: ")).map(str::to_owned);
        found.is_some()
    });
    let line = found.unwrap();
    for word in words {
        assert!(line.contains(word), "no '{word}' in: {line}");
    }
    assert_eq!(server.stats().requests, 0);
}

/// Waits until all events have arrived, ends the host, and returns its log.
fn end(mut running: Running, server: &Server) -> String {
    let arrived = || server.stats().records_accepted >= EVENTS as u64;
    until("delivery of all", Duration::from_secs(60), arrived);
    running.signal("TERM");
    assert!(running.wait(Duration::from_secs(30)).success());
    let log = running.log();
    assert_each_once(server, EVENTS, &log);
    assert_eq!((ended(&log, "accepted"), ended(&log, "dead_lettered")), (EVENTS as u64, 0), "{log}");
    assert_eq!(ended(&log, "possibly_duplicate"), 0, "{log}");
    assert!(!log.contains(PASSWORD), "{log}");
    log
}

#[test]
fn every_proxy_variable_for_https_leads_to_a_tunnel() {
    if !tinyproxy_or_skip("HTTPS_PROXY and its like") {
        return;
    }
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        let (server, proxy) = (firehose(true), Proxy::start(0, ""));
        // HTTP_PROXY must not be used for https.
        send(&server, &[(name, &proxy.url()), ("HTTP_PROXY", "http://127.0.0.1:1")], &[]);
        let tunnels = proxy.tunnels();
        let host = format!("127.0.0.1:{}", server.port());
        assert!(!tunnels.is_empty() && tunnels.iter().all(|asked| *asked == host), "{tunnels:?}\n{}", proxy.log());
        // No connection bypassed the tunnels.
        assert_eq!(server.stats().connections, tunnels.len() as u64, "{}", proxy.log());
    }
}

#[test]
fn an_http_endpoint_bypasses_the_proxy() {
    if !tinyproxy_or_skip("HTTPS_PROXY with an endpoint over http") {
        return;
    }
    let (server, proxy) = (firehose(false), Proxy::start(0, ""));
    send(&server, &[("HTTPS_PROXY", &proxy.url()), ("ALL_PROXY", &proxy.url())], &[]);
    assert_eq!(proxy.tunnels(), Vec::<String>::new());
}

#[test]
fn no_proxy_bypasses_the_proxy_in_each_of_its_forms() {
    if !tinyproxy_or_skip("NO_PROXY") {
        return;
    }
    // Names in a domain, which exist only in this test's own hosts file.
    let setup = "printf '127.0.0.1 localhost firehose.vpce.example.test\\n' > /tmp/kubehose-hosts.$$ && \
                 mount --bind /tmp/kubehose-hosts.$$ /etc/hosts && rm /tmp/kubehose-hosts.$$";
    if !inside("no_proxy_bypasses_the_proxy_in_each_of_its_forms", &["--mount"], setup) {
        return;
    }
    const NAME: &str = "firehose.vpce.example.test";
    for (host, list, round) in [
        ("127.0.0.1", "127.0.0.1", true),
        ("127.0.0.1", "10.0.0.0/8,127.0.0.0/8", true),
        ("127.0.0.1", "*", true),
        ("127.0.0.1", "localhost,127.0.0.2,10.0.0.0/8", false),
        ("localhost", "localhost", true),
        ("localhost", "127.0.0.1", false),
        (NAME, NAME, true),
        (NAME, "localhost, .example.test", true),
        (NAME, "example.test", true),
        (NAME, "*.example.test", true),
        (NAME, "*", true),
        (NAME, "ample.test,.firehose.vpce.example,vpce", false),
    ] {
        for variable in ["NO_PROXY", "no_proxy"] {
            let names = vec![NAME.to_owned()];
            let server = Server::start(Options { tls_names: names, ..firehose_options(true) }).unwrap();
            let proxy = Proxy::start(0, "");
            let endpoint = format!("https://{host}:{}", server.port());
            send(&server, &[("HTTPS_PROXY", &proxy.url()), (variable, list)], &[("endpoint", &endpoint)]);
            assert_eq!(proxy.tunnels().is_empty(), round, "{host}, {variable}={list}\n{}", proxy.log());
        }
    }
}

#[test]
fn the_proxy_password_is_sent_and_never_logged() {
    if !tinyproxy_or_skip("a proxy with a password") {
        return;
    }
    let authentication = format!("BasicAuth user {PASSWORD}\n");
    let (server, proxy) = (firehose(true), Proxy::start(0, &authentication));
    let url = |password: &str| format!("http://user:{password}@127.0.0.1:{}", proxy.port);
    send(&server, &[("HTTPS_PROXY", &url(PASSWORD))], &[]);
    assert!(!proxy.tunnels().is_empty());

    let server = firehose(true);
    // tinyproxy answers a wrong password with 401, as if it were the server.
    for (url, why) in [(url(&format!("{PASSWORD}X")), "unsuccessful"), (proxy.url(), "authorization required")] {
        let running = start(&server, &[("HTTPS_PROXY", &url)], &[]);
        let words = [&format!("the proxy {} of HTTPS_PROXY", proxy.url()), why, "its user and password are right"];
        complaint(&running, &server, &words);
        assert!(!running.log().contains(PASSWORD), "{}", running.log());
    }
    // A URL's last `@` ends the password, whether or not those in it are escaped. tinyproxy itself allows no `@` in
    // passwords.
    for at in ["@", "%40"] {
        let url = format!("http://us{at}er:{PASSWORD}{at}{PASSWORD}@127.0.0.1:{}", proxy.port);
        let running = start(&server, &[("HTTPS_PROXY", &url)], &[]);
        complaint(&running, &server, &[&format!("the proxy {} of HTTPS_PROXY", proxy.url()), "unsuccessful"]);
        assert!(!running.log().contains(PASSWORD), "{}", running.log());
    }
    // The proxy's password is changed to the one sent.
    let running = start(&server, &[("HTTPS_PROXY", &url(&format!("{PASSWORD}X")))], &[]);
    complaint(&running, &server, &["unsuccessful"]);
    let port = proxy.port;
    drop(proxy);
    let proxy = Proxy::start(port, &format!("BasicAuth user {PASSWORD}X\n"));
    end(running, &server);
    assert!(!proxy.tunnels().is_empty());
}

#[test]
fn records_held_up_by_a_dead_proxy_are_delivered_when_it_is_back() {
    if !tinyproxy_or_skip("a proxy that is down") {
        return;
    }
    let server = firehose(true);
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let running = start(&server, &[("HTTPS_PROXY", &url)], &[]);
    let host = format!("no connection to 127.0.0.1:{}", server.port());
    complaint(&running, &server, &[&host, &format!("the proxy {url} of HTTPS_PROXY"), "refused", "runs", "NO_PROXY"]);
    let proxy = Proxy::start(port, "");
    let log = end(running, &server);
    assert!(!proxy.tunnels().is_empty());
    assert!(log.contains("records are accepted again after"), "{log}");
}

#[test]
fn records_held_up_by_a_proxys_filter_are_delivered_when_it_allows_them() {
    if !tinyproxy_or_skip("a proxy that refuses CONNECT") {
        return;
    }
    let server = firehose(true);
    // A list of blocked hosts, and a list of allowed ports.
    for refusal in ["Filter \"FOLDER/no-firehose\"\n", "ConnectPort 443\n"] {
        let proxy = Proxy::start(0, refusal);
        let running = start(&server, &[("https_proxy", &proxy.url())], &[]);
        let named = format!("the proxy {} of https_proxy", proxy.url());
        complaint(&running, &server, &[&named, "unsuccessful", "allows CONNECT to that host and port"]);
        assert!(!proxy.tunnels().is_empty());
    }
    let proxy = Proxy::start(0, "Filter \"FOLDER/no-firehose\"\n");
    let running = start(&server, &[("HTTPS_PROXY", &proxy.url())], &[]);
    complaint(&running, &server, &["unsuccessful"]);
    let port = proxy.port;
    drop(proxy);
    let proxy = Proxy::start(port, "");
    end(running, &server);
    assert!(!proxy.tunnels().is_empty());
}

#[test]
fn a_certificate_outside_ca_file_is_logged_through_the_proxy_too() {
    if !tinyproxy_or_skip("a certificate behind a proxy") {
        return;
    }
    let (server, other, proxy) = (firehose(true), firehose(true), Proxy::start(0, ""));
    let ca = other.ca_pem_path().unwrap().display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let letters = folder.path().join("letters").display().to_string();
    let more = [("ca_file", ca.as_str()), ("dead_letter_file", &letters), ("shutdown_timeout", "1s")];
    let mut running = start(&server, &[("HTTPS_PROXY", &proxy.url())], &more);
    complaint(&running, &server, &["certificate", "'ca_file'"]);
    assert!(!proxy.tunnels().is_empty());
    // The fault stays: the kept records are in the dead-letter file when the host exits.
    running.signal("TERM");
    assert!(running.wait(Duration::from_secs(30)).success());
    let log = running.log();
    assert_eq!((ended(&log, "dead_lettered"), ended(&log, "dropped")), (EVENTS as u64, 0), "{log}");
    assert_eq!(fs::read_to_string(&letters).unwrap().lines().count(), EVENTS);
}

#[test]
fn an_unusable_proxy_is_logged_and_not_bypassed() {
    let server = firehose(true);
    for (value, why) in [
        (format!("socks5://user:{PASSWORD}@127.0.0.1:1080"), "only proxies with http://"),
        (format!("https://user:{PASSWORD}@127.0.0.1:3129"), "only proxies with http://"),
        // As URLs these have the host `user`, with a port, and more after it.
        (format!("http://user:{PASSWORD}#x@127.0.0.1:3128"), "its value is not a URL such as http://proxy:3128"),
        (format!("http://user:80/{PASSWORD}@127.0.0.1:3128"), "its value is not a URL such as http://proxy:3128"),
        (format!("http://user:80?{PASSWORD}@127.0.0.1:3128"), "its value is not a URL such as http://proxy:3128"),
    ] {
        let running = start(&server, &[("HTTPS_PROXY", &value)], &[]);
        complaint(&running, &server, &["the proxy HTTPS_PROXY", why]);
        assert!(!running.log().contains(PASSWORD), "{}", running.log());
    }
    assert_eq!(server.stats().connections, 0);
}
