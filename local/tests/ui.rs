//! The page of the local bench, in a headless Chromium driven by chromedriver; without them, only the tests that need
//! no browser run.
//!
//! `KUBEHOSE_SCREENSHOTS` names a folder for its screenshots.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kubehose_local::firehose::{Faults, Options, Server};
use serde_json::{Value, json};

/// One HTTP exchange over its own connection; returns status, head and body.
fn http(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
        .unwrap();
    let mut reply = Vec::new();
    let mut part = [0; 65536];
    // An event stream never ends, and chromedriver closes late, so this stops after the announced length.
    loop {
        let text = String::from_utf8_lossy(&reply).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head_lower = head.to_lowercase();
            let announced =
                head_lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            let whole = match announced {
                Some(length) => reply.len() - head.len() - 4 >= length,
                None => body.contains("\n\n"),
            };
            if whole {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return (status, head.to_owned(), body.to_owned());
            }
        }
        let n = stream.read(&mut part).unwrap();
        assert!(n > 0, "the connection ended early: {text}");
        reply.extend_from_slice(&part[..n]);
    }
}

fn address(url: &str) -> SocketAddr {
    url.rsplit_once("//").unwrap().1.parse().unwrap()
}

fn get(server: &Server, path: &str, host: &str) -> (u16, String, String) {
    http(address(&server.admin_url()), "GET", path, &format!("Host: {host}\r\n"), "")
}

/// Sends records in one call; returns the HTTP status.
fn put(server: &Server, records: &[impl AsRef<[u8]>]) -> u16 {
    put_to(server, "shop-logs", records)
}

fn put_to(server: &Server, stream: &str, records: &[impl AsRef<[u8]>]) -> u16 {
    let records: Vec<Value> =
        records.iter().map(|data| json!({ "Data": base64_simd::STANDARD.encode_to_string(data.as_ref()) })).collect();
    let body = json!({ "DeliveryStreamName": stream, "Records": records }).to_string();
    let headers = "Host: localhost\r\nX-Amz-Target: Firehose_20150804.PutRecordBatch\r\n";
    http(address(&server.url()), "POST", "/", headers, &body).0
}

fn record(n: usize) -> String {
    const LINES: [&str; 4] = [
        "GET /cart 200 in 12 ms",
        "checkout failed: card declined for order 7731",
        "<b>not markup</b> & \"quotes\" é 日本語",
        "cache refreshed, 1204 entries",
    ];
    let id = format!("{:064x}", n * 7919);
    let line = LINES[n % 4];
    let record = json!({
        "log": format!("{line} #{n}"), "stream": "stdout", "n": n, "kubernetes": { "labels": { "app": "web" }, "none": {} },
        "pod_name": format!("web-6c8b449b8f-{}", ["x2k4p", "q9zzt", "m1abc"][n % 3]), "kube_namespace": "shop",
        "kube_container_name": "nginx", "container_id": id,
    });
    // A number that a double cannot hold.
    record.to_string().replace("\"n\":", "\"big\":9007199254740993,\"n\":") + "\n"
}

fn start(ui: bool) -> Server {
    let admin_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    Server::start(Options { ui, admin_listen, ..Options::default() }).unwrap()
}

#[test]
fn the_page_is_served_when_enabled_and_only_under_a_name_of_this_machine() {
    let server = start(true);
    for path in ["/_kubehose/", "/_kubehose/page.js", "/_kubehose/page.css"] {
        let (status, head, body) = get(&server, path, "localhost:4574");
        assert_eq!(status, 200, "{path}");
        assert!(head.to_lowercase().contains("content-security-policy: default-src 'none'"), "{head}");
        assert!(!body.contains("//cdn") && !body.contains("https://"), "{path} refers to another site");
        assert_eq!(get(&server, path, "evil.example").0, 403);
    }
    assert_eq!(get(&server, "/_kubehose/events", "evil.example").0, 403);
    let (_, _, without) = get(&start(false), "/_kubehose/", "localhost");
    assert!(without.contains("with --ui a page at /_kubehose/"), "{without}");
}

#[test]
fn failed_records_and_records_of_rejected_calls_are_listed_with_the_reason() {
    let server = start(true);
    server.set_faults(Faults { fail_every_record: 2, ..Faults::default() });
    assert_eq!(put(&server, &[record(0), record(1), record(2), record(3)]), 200);
    server.set_faults(Faults { access_denied: true, ..Faults::default() });
    assert_eq!(put(&server, &[record(4)]), 400);
    server.set_faults(Faults { fail_every_request: 1, ..Faults::default() });
    assert_eq!(put(&server, &[record(5), record(6)]), 500);
    let (_, _, body) = get(&server, "/_kubehose/events", "localhost");
    let data = body.split("data: ").nth(1).unwrap().split("\n\n").next().unwrap();
    let event: Value = serde_json::from_str(data).unwrap();
    assert_eq!((&event["records_total"], &event["failed_total"]), (&json!(2), &json!(5)), "{event}");
    assert!(event["records"].as_array().unwrap().iter().all(|record| record["reason"].is_null()), "{event}");
    let failed: Vec<(u64, String)> = event["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let record: Value = serde_json::from_str(one["text"].as_str().unwrap()).unwrap();
            (record["n"].as_u64().unwrap(), one["reason"].as_str().unwrap().to_owned())
        })
        .collect();
    assert_eq!(failed.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 3, 4, 5, 6]);
    for ((_, reason), word) in failed.iter().zip(["Slow down", "Slow down", "AccessDenied", "whole call", "whole call"])
    {
        assert!(reason.contains(word), "{failed:?}");
    }
}

#[test]
fn each_stream_has_its_counts() {
    let streams = vec!["shop-logs".to_owned(), "logs-pay".to_owned()];
    let admin_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let server = Server::start(Options { streams, admin_listen, ..Options::default() }).unwrap();
    assert_eq!(put(&server, &[record(0), record(1), record(2)]), 200);
    server.set_faults(Faults { fail_every_record: 2, ..Faults::default() });
    assert_eq!(put_to(&server, "logs-pay", &[record(3), record(4)]), 200);
    assert_eq!(put_to(&server, "missing", &[record(5)]), 400);
    server.set_faults(Faults { fail_every_request: 1, ..Faults::default() });
    assert_eq!(put_to(&server, "logs-pay", &[record(6)]), 500);
    let (_, _, body) = get(&server, "/_kubehose/stats", "localhost");
    let stats: Value = serde_json::from_str(&body).unwrap();
    let of = |stream: &str| {
        ["calls", "calls_refused", "records_accepted", "records_failed", "bytes_billed"]
            .map(|name| stats["streams"][stream][name].as_u64().unwrap())
    };
    assert_eq!(of("shop-logs"), [1, 0, 3, 0, 3 * 5120], "{stats}");
    assert_eq!(of("logs-pay"), [1, 1, 1, 1, 5120], "{stats}");
    assert_eq!(of("missing"), [0, 1, 0, 0, 0], "{stats}");
    let sum = |name: &str| {
        stats["streams"].as_object().unwrap().values().map(|stream| stream[name].as_u64().unwrap()).sum::<u64>()
    };
    for name in ["records_accepted", "records_failed", "bytes_accepted", "bytes_billed"] {
        assert_eq!(sum(name), stats[name].as_u64().unwrap(), "{name}: {stats}");
    }
}

/// The routes of the administration: method, path, and a valid body.
const ROUTES: [(&str, &str, &str); 9] = [
    ("GET", "/_kubehose/", ""),
    ("GET", "/_kubehose/page.js", ""),
    ("GET", "/_kubehose/page.css", ""),
    ("GET", "/_kubehose/events", ""),
    ("GET", "/_kubehose/stats", ""),
    ("GET", "/_kubehose/faults", ""),
    ("PUT", "/_kubehose/faults", r#"{"access_denied":true}"#),
    ("PUT", "/_kubehose/access-keys", r#"[{"id":"evil","secret":"evil"}]"#),
    ("GET", "/_kubehose/whatever-comes", ""),
];

#[test]
fn no_route_of_the_administration_answers_pages_of_other_sites() {
    for ui in [true, false] {
        let server = start(ui);
        for listener in [address(&server.admin_url()), address(&server.url())] {
            let own = listener.to_string();
            let refused = [
                // Another site's name that resolves to this machine's address.
                format!("Host: evil.example:{}\r\n", listener.port()),
                "Host: localhost.evil.example\r\nOrigin: http://localhost.evil.example\r\n".to_owned(),
                String::new(),
                "Host:\r\n".to_owned(),
                // Another site's page that calls this machine by its right name.
                format!("Host: {own}\r\nOrigin: http://evil.example\r\n"),
                format!("Host: {own}\r\nOrigin: http://{own}.evil.example\r\n"),
                format!("Host: {own}\r\nOrigin: http://localhost:1\r\n"),
                format!("Host: {own}\r\nOrigin: null\r\n"),
                format!("Host: {own}\r\nOrigin: http://{own}\r\nOrigin: http://evil.example\r\n"),
            ];
            for (method, path, body) in ROUTES {
                for headers in &refused {
                    let (status, _, text) = http(listener, method, path, headers, body);
                    assert!([400, 403].contains(&status), "{method} {path}, {headers:?}: {status} {text}");
                    assert!(!text.contains("requests") && !text.contains("fail_every"), "{text}");
                }
                for method in ["POST", "DELETE", "OPTIONS", "PATCH"] {
                    assert_eq!(http(listener, method, path, &refused[4], body).0, 403, "{method} {path}");
                }
                // A name in the request line takes precedence over the header's.
                let absolute = format!("http://evil.example{path}");
                assert_eq!(http(listener, method, &absolute, &format!("Host: {own}\r\n"), body).0, 403, "{absolute}");
            }
            assert_eq!(server.faults(), Faults::default());
            // The service itself accepts calls under any name and from any page.
            let put = json!({ "DeliveryStreamName": "shop-logs", "Records": [{ "Data": "eAo=" }] }).to_string();
            for headers in &refused {
                if headers.starts_with("Host: ") {
                    let headers = format!("{headers}X-Amz-Target: Firehose_20150804.PutRecordBatch\r\n");
                    assert_eq!(http(address(&server.url()), "POST", "/", &headers, &put).0, 200, "{headers:?}");
                }
            }
            // The page itself and clients without a page get an answer.
            for headers in [
                format!("Host: {own}\r\n"),
                format!("Host: {own}\r\nOrigin: http://{own}\r\n"),
                "Host: localhost:4574\r\nOrigin: http://localhost:4574\r\n".to_owned(),
                "Host: LOCALHOST\r\nOrigin: https://localhost\r\n".to_owned(),
            ] {
                for (method, path, _) in ROUTES {
                    let body = if path.ends_with("access-keys") { "[]" } else { "{}" };
                    let found = path.ends_with("faults")
                        || path.ends_with("stats")
                        || path.ends_with("access-keys")
                        || (ui && !path.ends_with("whatever-comes"));
                    let (status, _, text) = http(listener, method, path, &headers, body);
                    assert_eq!(status, if found { 200 } else { 404 }, "{method} {path}, {headers:?}: {text}");
                }
            }
        }
    }
}

#[test]
fn a_page_that_opens_late_gets_the_kept_data() {
    let server = start(true);
    assert_eq!(put(&server, &(0..30).map(record).collect::<Vec<_>>()), 200);
    server.set_faults(Faults { fail_every_request: 1, ..Faults::default() });
    assert_eq!(put(&server, &[record(30)]), 500);
    server.set_faults(Faults { fail_every_record: 2, ..Faults::default() });
    assert_eq!(put(&server, &[record(31), record(32)]), 200);
    let (status, head, body) = get(&server, "/_kubehose/events", "127.0.0.1");
    assert_eq!(status, 200);
    assert!(head.to_lowercase().contains("content-type: text/event-stream"), "{head}");
    let line = body.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let event: Value = serde_json::from_str(line).unwrap();
    assert_eq!(event["records"].as_array().unwrap().len(), 31);
    assert_eq!(event["records"][3]["text"], record(3));
    assert_eq!(event["records"][3]["billed"], 5120);
    let calls = event["calls"].as_array().unwrap();
    let of = |call: &Value| {
        (call["outcome"].as_str().unwrap().to_owned(), call["records"].as_u64(), call["failed"].as_u64())
    };
    assert_eq!(of(&calls[0]), ("200".to_owned(), Some(30), Some(0)));
    assert_eq!(calls[0]["billed"], 30 * 5120);
    assert_eq!(of(&calls[1]), ("InternalFailure".to_owned(), Some(0), Some(0)));
    assert_eq!(of(&calls[2]), ("200".to_owned(), Some(2), Some(1)));
    let sum = |name: &str| event["seconds"].as_array().unwrap().iter().map(|s| s[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("accepted"), sum("failed"), sum("calls"), sum("refused")), (31, 1, 3, 1));
    assert_eq!(event["faults"]["fail_every_record"], 2);
}

/// A browser; it ends when dropped.
struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser, or prints what is not run without one.
    fn start() -> Option<Browser> {
        // In its own process group, so that the browser ends with it when a test fails.
        let mut driver = Command::new("chromedriver");
        driver.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let driver = driver.spawn();
        let Ok(mut driver) = driver else {
            eprintln!("not run, because chromium or chromedriver is missing: the bench's page in a browser");
            return None;
        };
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse::<u16>().ok());
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Browser {
            driver,
            address: SocketAddr::from(([127, 0, 0, 1], port.unwrap())),
            session: String::new(),
            _profile: profile,
        };
        let arguments = json!([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1280,1400",
            format!("--user-data-dir={}", browser._profile.path().display()),
        ]);
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": { "args": arguments } } } });
        let session = browser.ask("POST", "/session", &wanted);
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        Some(browser)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let headers = "Host: localhost\r\nContent-Type: application/json\r\n";
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let (status, _, reply) = http(self.address, method, path, headers, &body);
        let mut reply: Value = serde_json::from_str(&reply).unwrap();
        assert_eq!(status, 200, "{path}: {reply}");
        reply["value"].take()
    }

    fn post(&self, path: &str, body: Value) -> Value {
        self.ask("POST", &format!("/session/{}/{path}", self.session), &body)
    }

    /// The value of an expression in the page.
    fn value(&self, expression: &str) -> Value {
        self.post("execute/sync", json!({ "script": format!("return {expression}"), "args": [] }))
    }

    /// Waits until an expression has this value.
    fn until(&self, expression: &str, wanted: &Value) {
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            let value = self.value(expression);
            if value == *wanted {
                return;
            }
            assert!(Instant::now() < end, "{expression} is {value}, not {wanted}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn element(&self, selector: &str) -> String {
        let found = self.post("element", json!({ "using": "css selector", "value": selector }));
        found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned()
    }

    fn click(&self, selector: &str) {
        self.post(&format!("element/{}/click", self.element(selector)), json!({}));
    }

    /// Types into an element, or presses a key in it.
    fn keys(&self, selector: &str, text: &str) {
        self.post(&format!("element/{}/value", self.element(selector)), json!({ "text": text }));
    }

    fn cdp(&self, command: &str, params: Value) -> Value {
        self.post("goog/cdp/execute", json!({ "cmd": command, "params": params }))
    }

    fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("KUBEHOSE_SCREENSHOTS") else { return };
        let picture = self.cdp("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": true }));
        let bytes = base64_simd::STANDARD.decode_to_vec(picture["data"].as_str().unwrap()).unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(std::path::Path::new(&folder).join(name), bytes).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.ask("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
        let group = format!("-{}", self.driver.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.driver.wait();
    }
}

const ENTER: &str = "\u{e007}";
const ROWS: &str = "document.querySelectorAll('#list li').length";

#[test]
fn in_a_browser_records_arrive_can_be_found_and_opened_and_switches_work() {
    let server = start(true);
    let Some(browser) = Browser::start() else { return };
    browser.post("url", json!({ "url": format!("{}/_kubehose/", server.admin_url()) }));
    browser.until("document.getElementById('state').textContent", &json!("live"));
    assert_eq!(browser.value(ROWS), json!(0));

    // Records arrive while the page is open, the newest on top, and markup in them is shown as text.
    assert_eq!(put(&server, &(0..30).map(record).collect::<Vec<_>>()), 200);
    browser.until(ROWS, &json!(30));
    let text = |selector: &str| format!("document.querySelector('{selector}').textContent");
    browser.until(&text("#accepted"), &json!("30"));
    browser.until(&text("#billed"), &json!("154 KB"));
    // The plot fills its height: its scale ends at the highest second, or slightly above.
    browser.until(&text("#plot text"), &json!("30"));
    assert_eq!(browser.value(&text("#list .message")), json!("checkout failed: card declined for order 7731 #29"));
    assert_eq!(browser.value(&text("#list .pod")), json!("shop / web-6c8b449b8f-m1abc / nginx"));
    assert_eq!(browser.value("document.querySelectorAll('#list b').length"), json!(0));
    assert_eq!(
        browser.value("[...document.querySelectorAll('#calls td')].slice(3, 6).map(td => td.textContent)"),
        json!(["200", "30", "0"])
    );

    // Search for all words, in upper or lower case.
    browser.keys("#search", "CHECKOUT #29");
    browser.until(ROWS, &json!(1));
    assert_eq!(browser.value(&text("#found")), json!("1 of the last 30 match"));

    // Open a record with the keyboard; the four names are highlighted, and numbers are unchanged.
    browser.keys("#list summary", ENTER);
    browser.until("document.querySelectorAll('#list mark').length", &json!(4));
    let unfolded = browser.value(&text("#list pre"));
    assert!(unfolded.as_str().unwrap().contains("\"big\": 9007199254740993,\n"), "{unfolded}");
    assert_eq!(
        serde_json::from_str::<Value>(unfolded.as_str().unwrap()).unwrap(),
        serde_json::from_str::<Value>(&record(29)).unwrap()
    );
    // The record being read does not move: a new match waits until it is folded again.
    assert_eq!(put(&server, &[record(129).replace("#129", "#29 again")]), 200);
    browser.until(&text("#accepted"), &json!("31"));
    assert_eq!(browser.value(ROWS), json!(1));
    browser.keys("#list summary", ENTER);
    browser.until(ROWS, &json!(2));
    browser.value("(document.getElementById('search').value = '', document.getElementById('search').dispatchEvent(new Event('input')))");
    browser.until(ROWS, &json!(31));

    // A record that aggregates two lines, and a compressed one.
    assert_eq!(put(&server, &[format!("{}{}", record(200), record(201))]), 200);
    assert_eq!(put(&server, &[[0x1f, 0x8b, 8, 0, 255].as_slice(), b"not JSON"]), 200);
    browser.until(ROWS, &json!(34));
    let messages =
        browser.value("[...document.querySelectorAll('#list .message')].slice(0, 3).map(m => m.textContent)");
    assert_eq!(messages, json!(["not JSON", "(compressed with gzip)", "2 lines: GET /cart 200 in 12 ms #200"]));
    browser.click("#list li:nth-child(3) summary");
    browser.until("document.querySelectorAll('#list mark').length", &json!(8));
    browser.click("#list li:nth-child(3) summary");

    // A fault's switch, by mouse and by keyboard.
    browser.click("#fault-fail_every_record");
    browser.until("document.getElementById('fault-fail_every_record').ariaChecked", &json!("true"));
    assert_eq!(server.faults().fail_every_record, 100);
    browser.keys("#fault-access_denied", " ");
    browser.until("document.getElementById('fault-access_denied').ariaChecked", &json!("true"));
    assert!(server.faults().access_denied);
    assert_eq!(put(&server, &[record(1)]), 400);
    browser.until(&text("#refused"), &json!("1"));
    browser.until(&text("#calls tr td:nth-child(4)"), &json!("AccessDeniedException"));
    // Refused records are listed with the reason.
    browser.click("#view-failed");
    browser.until(ROWS, &json!(1));
    assert_eq!(browser.value(&text("#list .reason")), json!("the whole call failed: AccessDeniedException: "));
    browser.click("#view-accepted");
    browser.until(ROWS, &json!(34));
    browser.click("#calm");
    browser.until("document.querySelectorAll('#faults [aria-checked=true]').length", &json!(0));
    assert_eq!(server.faults(), Faults { request_error: server.faults().request_error, ..Faults::default() });
    // Conversely, a fault that is set elsewhere is shown.
    server.set_faults(Faults { latency_ms: 20, ..Faults::default() });
    browser.until("document.getElementById('fault-latency_ms').ariaChecked", &json!("true"));
    browser.until("document.querySelector('#fault-latency_ms ~ input').value", &json!("20"));

    // The page works while the endpoint is down.
    browser.click("#fault-down");
    browser.until("document.getElementById('fault-down').ariaChecked", &json!("true"));
    browser.click("#fault-down");
    browser.until("document.getElementById('fault-down').ariaChecked", &json!("false"));

    // All resources come from this server, every control has a name, and the script reported no error.
    let elsewhere = "performance.getEntriesByType('resource').filter(e => !e.name.startsWith(location.origin)).length";
    assert_eq!(browser.value(elsewhere), json!(0));
    let nameless = "[...document.querySelectorAll('button, input, svg')].filter(e => !e.ariaLabel && !e.textContent.trim() && !(e.labels || []).length).map(e => e.outerHTML)";
    assert_eq!(browser.value(nameless), json!([]));
    let regions = "[...document.querySelectorAll('section, [role=region]')].map(e => e.ariaLabel || document.getElementById(e.getAttribute('aria-labelledby')).textContent)";
    let names = browser.value(regions);
    let names: Vec<&str> = names.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(names.iter().enumerate().all(|(i, name)| !names[..i].contains(name)), "two regions of one name: {names:?}");
    let log = browser.post("se/log", json!({ "type": "browser" }));
    assert_eq!(log, json!([]));

    pictures(&server, &browser);
}

#[test]
fn in_a_browser_records_show_their_stream_and_can_be_filtered_by_stream_and_namespace() {
    let server = start(true);
    let Some(browser) = Browser::start() else { return };
    browser.post("url", json!({ "url": format!("{}/_kubehose/", server.admin_url()) }));
    browser.until("document.getElementById('state').textContent", &json!("live"));

    let of = |namespace: &str, n: usize| record(n).replace("\"shop\"", &format!("{namespace:?}"));
    // Metadata as the host's filter leaves it, without the remap; and a record of which the page has only the
    // beginning.
    let nested = json!({"log": "nested", "kubernetes": {"namespace_name": "pay", "pod_name": "p-0"}}).to_string();
    let long = json!({"kube_namespace": "pay", "log": "x".repeat(20_000)}).to_string();
    assert_eq!(put(&server, &[of("shop", 1), of("shop", 2), of("pay", 3)]), 200);
    assert_eq!(
        put_to(&server, "logs-pay", &[of("pay", 4), nested, long, format!("{}{}", of("a", 5), of("b", 6))]),
        200
    );
    server.set_faults(Faults { access_denied: true, ..Faults::default() });
    assert_eq!(put_to(&server, "logs-denied", &[of("denied", 7)]), 400);
    server.set_faults(Faults::default());
    browser.until(ROWS, &json!(7));
    let texts = |selector: &str| format!("[...document.querySelectorAll('{selector}')].map(e => e.textContent)");
    let streams = browser.value(&texts("#list .stream"));
    assert_eq!(streams, json!(["logs-pay", "logs-pay", "logs-pay", "logs-pay", "shop-logs", "shop-logs", "shop-logs"]));
    assert!(browser.value(&texts("#list .pod")).to_string().contains("pay / p-0"));
    browser.until(&texts("#of-stream option"), &json!(["all", "logs-denied", "logs-pay", "shop-logs"]));
    browser.until(&texts("#of-namespace option"), &json!(["all", "a", "b", "denied", "pay", "shop"]));

    let choose = |id: &str, name: &str| {
        browser.value(&format!(
            "(document.getElementById('{id}').value = '{name}', document.getElementById('{id}').dispatchEvent(new Event('input')))"
        ));
    };
    for (stream, namespace, rows) in [
        ("logs-pay", "", 4),
        ("logs-pay", "pay", 3),
        ("shop-logs", "pay", 1),
        ("", "pay", 4),
        ("", "b", 1),
        ("logs-denied", "", 0),
        ("", "", 7),
    ] {
        choose("of-stream", stream);
        choose("of-namespace", namespace);
        browser.until(ROWS, &json!(rows));
    }
    choose("of-stream", "logs-pay");
    browser.until("document.getElementById('found').textContent", &json!("4 of the last 7 match"));
    // Records that arrive meanwhile are filtered by the same choice, which stays.
    assert_eq!(put(&server, &[of("new", 8)]), 200);
    assert_eq!(put_to(&server, "logs-pay", &[of("pay", 9)]), 200);
    browser.until(ROWS, &json!(5));
    assert_eq!(browser.value("document.getElementById('of-stream').value"), json!("logs-pay"));
    choose("of-stream", "logs-denied");
    browser.click("#view-failed");
    browser.until(ROWS, &json!(1));
    browser.until(
        "[...document.querySelectorAll('#streams tr')].map(row => [...row.children].slice(0, 3).concat([...row.children].slice(5)).map(e => e.textContent))",
        &json!([["logs-denied", "0", "0", "0", "1"], ["logs-pay", "5", "0", "2", "0"], ["shop-logs", "4", "0", "2", "0"]]),
    );
    assert_eq!(browser.post("se/log", json!({ "type": "browser" })), json!([]));
    let phone = json!({ "width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true });
    browser.cdp("Emulation.setDeviceMetricsOverride", phone);
    browser.until("innerWidth", &json!(390));
    assert_eq!(browser.value("document.documentElement.scrollWidth"), json!(390));
}

/// Screenshots in light, in dark and on a phone, after a minute with some faults; on a phone nothing may be cut off.
fn pictures(server: &Server, browser: &Browser) {
    if std::env::var_os("KUBEHOSE_SCREENSHOTS").is_some() {
        for turn in 0..24 {
            server.set_faults(match turn {
                8..12 => Faults { fail_every_record: 5, ..Faults::default() },
                12..14 => Faults { fail_every_request: 2, ..Faults::default() },
                20.. => Faults { latency_ms: 40, quota_records_per_second: 2000, ..Faults::default() },
                _ => Faults::default(),
            });
            for call in 0..8 + turn % 5 {
                put(
                    server,
                    &(0..20 + 9 * (turn % 7)).map(|n| record(n + 1000 * turn + 100 * call)).collect::<Vec<_>>(),
                );
            }
            std::thread::sleep(Duration::from_millis(700));
        }
        browser.value("document.querySelector('#list summary').click()");
        browser.until("document.querySelectorAll('#list mark').length", &json!(4));
    }
    let scheme = |scheme: &str| {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        browser.cdp("Emulation.setEmulatedMedia", json!({ "features": features }));
    };
    scheme("light");
    browser.picture("light.png");
    scheme("dark");
    browser.picture("dark.png");
    scheme("light");
    let phone = json!({ "width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true });
    browser.cdp("Emulation.setDeviceMetricsOverride", phone);
    browser.until("innerWidth", &json!(390));
    assert_eq!(browser.value("document.documentElement.scrollWidth"), json!(390));
    // Held records stay until the page goes on, and no button's text wraps, however many records there are.
    browser.click("#hold");
    let newest = "document.querySelector('#list li').dataset.id";
    let held = browser.value(newest);
    let arrived = browser.value("document.getElementById('accepted').textContent");
    assert_eq!(put(server, &[record(7)]), 200);
    browser.until(&format!("document.getElementById('accepted').textContent !== {arrived}"), &json!(true));
    browser.until(
        "document.getElementById('found').textContent.includes('1 more since held: “Go on” shows them')",
        &json!(true),
    );
    assert_eq!(browser.value(newest), held);
    let tall =
        "[...document.querySelectorAll('.head button')].filter(b => b.clientHeight > 40).map(b => b.textContent)";
    assert_eq!(browser.value(tall), json!([]));
    browser.click("#hold");
    browser.until(&format!("{newest} !== {held}"), &json!(true));
    browser.picture("phone.png");
}
