//! kubehose beside the built-in `kinesis_firehose` and `null`, in the real Fluent Bit, in turn; `make bench` runs it.
//!
//! All get the same events from `in_forward` (which passes msgpack through, so that the input costs next to nothing),
//! and deliver over TLS to the same stand-in. CPU is the host's, user and system, above `null`'s; every figure is the
//! median of `KUBEHOSE_ROUNDS` rounds (5 by default) in which the contenders take turns. Arguments name the tables to be
//! run: `cpu`, `drain`, `joined`, `messages`, `chunks`, `flat`; none runs all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

mod events;
#[path = "../tests/host/mod.rs"]
mod host;

use events::{kubernetes_event, write_event};
use host::*;
use kubehose_local::firehose::{Faults, Keep, Options, Server};
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Events of one run, unless a table says otherwise.
const EVENTS: usize = 200_000;

/// Who delivers, and how.
#[derive(Clone, Copy)]
struct Contender {
    name: &'static str,
    plugin: &'static str,
    options: &'static [(&'static str, &'static str)],
}

const NULL: Contender = Contender { name: "null", plugin: "null", options: &[] };
const THEIRS: Contender = Contender { name: "kinesis_firehose", plugin: "kinesis_firehose", options: &[] };
const OURS: Contender = Contender { name: "kubehose", plugin: "kubehose", options: &[("Workers", "1")] };
const BUFFERED: Contender =
    Contender { name: "kubehose, buffered", plugin: "kubehose", options: &[("acknowledge", "buffered")] };
const SPOOLED: Contender =
    Contender { name: "kubehose, spool_dir", plugin: "kubehose", options: &[("spool_dir", "FOLDER/spool")] };
const EIGHT: Contender =
    Contender { name: "kubehose, Workers 8", plugin: "kubehose", options: &[("Workers", "8"), ("concurrency", "64")] };
const BUFFERED_64: Contender = Contender {
    name: "kubehose, buffered",
    plugin: "kubehose",
    options: &[("acknowledge", "buffered"), ("concurrency", "64")],
};
/// Both plugins with these options.
const fn joined(plugin: &'static str, options: &'static [(&'static str, &'static str)]) -> Contender {
    Contender { name: plugin, plugin, options }
}
const SPOOLED_64: Contender = Contender {
    name: "kubehose, spool_dir",
    plugin: "kubehose",
    options: &[("spool_dir", "FOLDER/spool"), ("concurrency", "64")],
};

/// What one run cost.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// Seconds of CPU, user and system.
    cpu: f64,
    /// Peak resident set, MB.
    rss: f64,
    /// Seconds from the first event to the last record.
    wall: f64,
    requests: f64,
}

/// The events as messages of the forward protocol (PackedForward).
struct Flow {
    messages: Vec<Vec<u8>>,
    /// How often all of them are sent.
    times: usize,
    /// Whether what is done once (certificates, credentials, connections) is left out: one event goes before, and counts
    /// begin once it has arrived.
    warm: bool,
    /// How many events that makes, and how many bytes of JSON.
    events: usize,
    bytes: usize,
}

/// How events are put into messages.
#[derive(Clone, Copy)]
enum Messages {
    /// Of about a megabyte, all with the same tag: chunks are full.
    Large,
    /// Of so many events, all with the same tag: a chunk is what a flush finds.
    Few(usize),
    /// Of so many events, each with a tag of its own, and hence a chunk and a call of its own.
    Small(usize),
}

impl Flow {
    fn of(events: usize, messages: Messages) -> Flow {
        let mut flow = Flow { messages: Vec::new(), times: 1, warm: false, events, bytes: 0 };
        let (mut entries, mut held) = (Vec::new(), 0);
        for n in 0..events {
            let event = kubernetes_event(n);
            flow.bytes += event.to_string().len() + 1;
            write_event(&mut entries, &event);
            held += 1;
            let (full, tag) = match messages {
                Messages::Large => (entries.len() > 1_000_000, "kube.x".to_owned()),
                Messages::Few(each) => (held == each, "kube.x".to_owned()),
                Messages::Small(each) => (held == each, format!("kube.{n}")),
            };
            if full || n + 1 == events {
                let mut message = vec![0x92];
                rmp::encode::write_str(&mut message, &tag).unwrap();
                rmp::encode::write_bin(&mut message, &entries).unwrap();
                flow.messages.push(message);
                entries.clear();
                held = 0;
            }
        }
        flow
    }

    /// The same flow so many times in a row.
    fn times(self, times: usize) -> Flow {
        Flow { times, events: self.events * times, bytes: self.bytes * times, ..self }
    }

    fn run(&self, contender: Contender, faults: &Faults, pause: Duration) -> Cost {
        let server =
            Server::start(Options { keep: Keep::Nothing, faults: faults.clone(), ..firehose_options(true) }).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let scene = Scene::new().service("Flush", "0.2").service("Log_Level", "warn");
        let folder = scene.folder.path().display().to_string();
        let mut scene = scene.section(
            "INPUT",
            &[
                ("Name", "forward"),
                ("Listen", "127.0.0.1"),
                ("Port", &port),
                ("Buffer_Max_Size", "16M"),
                ("Buffer_Chunk_Size", "2M"),
            ],
        );
        let options: Vec<(&str, String)> =
            contender.options.iter().map(|(key, value)| (*key, value.replace("FOLDER", &folder))).collect();
        let options: Vec<(&str, &str)> = options.iter().map(|(key, value)| (*key, value.as_str())).collect();
        scene = match contender.plugin {
            "null" => scene.section("OUTPUT", &[("Name", "null"), ("Match", "*")]),
            "kubehose" => scene.output(&server, &[&options[..], &[("shutdown_timeout", "1m")]].concat()),
            peer => {
                let (port, ca) = (server.port().to_string(), server.ca_pem_path().unwrap().display().to_string());
                let peers = [
                    ("Name", peer),
                    ("Match", "*"),
                    ("region", "eu-west-1"),
                    ("delivery_stream", STREAM),
                    ("endpoint", "127.0.0.1"),
                    ("port", port.as_str()),
                    ("tls.ca_file", ca.as_str()),
                    ("tls.vhost", "localhost"),
                ];
                scene.section("OUTPUT", &[&peers[..], &options[..]].concat())
            }
        };
        let mut running = scene.start();
        let address = format!("127.0.0.1:{port}");
        until("input", Duration::from_secs(10), || TcpStream::connect(&address).is_ok());
        let pid = running.child.id();
        let mut socket = TcpStream::connect(&address).unwrap();
        let mut before = 0.0;
        if self.warm {
            socket.write_all(&Flow::of(1, Messages::Large).messages[0]).unwrap();
            let arrived = || contender.plugin == "null" || server.stats().records_accepted > 0;
            until("first record", Duration::from_secs(60), arrived);
            std::thread::sleep(Duration::from_millis(1500));
            before = cpu(pid);
        }
        let start = Instant::now();
        for message in std::iter::repeat_n(&self.messages, self.times).flatten() {
            socket.write_all(message).unwrap();
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
        }
        drop(socket);
        let expected = (self.events + usize::from(self.warm)) as u64;
        if contender.plugin == "null" {
            // Nothing tells when it is done but that it does nothing any more.
            let mut last = (-1.0, Instant::now());
            until("rest", Duration::from_secs(60), || {
                // Its timers tick on.
                if cpu(pid) > last.0 + 0.003 {
                    last = (cpu(pid), Instant::now());
                }
                last.1.elapsed() > Duration::from_millis(1200)
            });
        } else {
            let aggregated = contender.options.iter().any(|(key, _)| *key == "simple_aggregation");
            let (mut seen, mut since) = (0, Instant::now());
            until("last record", Duration::from_secs(600), || {
                let accepted = server.stats().records_accepted;
                if accepted != seen {
                    (seen, since) = (accepted, Instant::now());
                }
                accepted >= expected || (aggregated && accepted > 0 && since.elapsed() > Duration::from_millis(1500))
            });
        }
        let wall = start.elapsed().as_secs_f64();
        let cost = Cost { cpu: cpu(pid) - before, rss: peak(pid), wall, requests: server.stats().requests as f64 };
        running.signal("TERM");
        running.wait(Duration::from_secs(60));
        cost
    }
}

/// Seconds of CPU that a process's threads have used, to the nanosecond; all of ours live until it ends.
fn cpu(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let spent = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    spent.sum::<f64>() / 1e9
}

fn peak(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The costs of one contender, a round each.
struct Costs(Vec<Cost>);

impl Costs {
    fn median(&self, field: impl Fn(&Cost) -> f64) -> f64 {
        median(&mut self.0.iter().map(field).collect::<Vec<_>>())
    }

    /// CPU above `null`'s.
    fn above(&self, null: &Costs) -> f64 {
        self.median(|cost| cost.cpu) - null.median(|cost| cost.cpu)
    }

    /// The median of the rounds' ratios: what changes from round to round on a shared machine changes both.
    fn ratio(&self, other: &Costs, field: impl Fn(&Cost) -> f64) -> f64 {
        median(&mut self.0.iter().zip(&other.0).map(|(one, other)| field(one) / field(other)).collect::<Vec<_>>())
    }

    /// The same of CPU above `null`'s.
    fn cpu_ratio(&self, other: &Costs, null: &Costs) -> f64 {
        let null = null.median(|cost| cost.cpu);
        self.ratio(other, |cost| cost.cpu - null)
    }
}

/// The contenders in turn, `KUBEHOSE_ROUNDS` times.
fn in_turn(flow: &Flow, contenders: &[Contender], faults: &Faults, pause: Duration) -> Vec<Costs> {
    let rounds: usize = std::env::var("KUBEHOSE_ROUNDS").map_or(5, |text| text.parse().unwrap());
    // What takes minutes is measured once: its own length evens out what happens meanwhile.
    let rounds = if flow.events > 1_000_000 { 1 } else { rounds };
    let mut all: Vec<Costs> = contenders.iter().map(|_| Costs(Vec::new())).collect();
    for round in 1..=rounds {
        for (contender, costs) in contenders.iter().zip(&mut all) {
            eprint!("\r\x1b[Kround {round} of {rounds}: {}", contender.name);
            costs.0.push(flow.run(*contender, faults, pause));
        }
    }
    eprint!("\r\x1b[K");
    all
}

/// A megabyte each so often, about 80 MB a second: a flow that each can follow, so that no backlog's memory is measured.
const PACE: Duration = Duration::from_millis(12);

fn cpu_table() {
    let flow = Flow::of(EVENTS, Messages::Large);
    let megabytes = flow.bytes as f64 / 1e6;
    println!("\n## CPU and memory: {EVENTS} events, {megabytes:.0} MB of JSON\n");
    println!(
        "| output | CPU s | above null s | ms per MB | ratio | peak RSS MB | ratio |\n|---|---|---|---|---|---|---|"
    );
    let contenders = [NULL, THEIRS, OURS, BUFFERED, SPOOLED, EIGHT];
    let costs = in_turn(&flow, &contenders, &Faults::default(), PACE);
    for (contender, cost) in contenders.iter().zip(&costs) {
        let above = cost.above(&costs[0]);
        println!(
            "| {} | {:.3} | {above:.3} | {:.2} | {:.2} | {:.0} | {:.2} |",
            contender.name,
            cost.median(|cost| cost.cpu),
            above * 1000.0 / megabytes,
            cost.cpu_ratio(&costs[1], &costs[0]),
            cost.median(|cost| cost.rss),
            cost.ratio(&costs[1], |cost| cost.rss)
        );
    }
    println!("\nspool_dir adds {:.0} % of CPU to `buffered`", 100.0 * (costs[4].cpu_ratio(&costs[3], &costs[0]) - 1.0));
}

fn drain_table() {
    let flow = Flow::of(EVENTS, Messages::Large);
    println!("\n## Seconds to drain {EVENTS} events\n");
    println!(
        "| latency of a call | kinesis_firehose | Workers 8 | ratio | buffered | ratio | spool_dir | ratio |\n|---|---|---|---|---|---|---|---|"
    );
    for latency in [20, 100, 300] {
        let faults = Faults { latency_ms: latency, ..Faults::default() };
        let costs = in_turn(&flow, &[THEIRS, EIGHT, BUFFERED_64, SPOOLED_64], &faults, Duration::ZERO);
        let wall = |cost: &Cost| cost.wall;
        let theirs = costs[0].median(wall);
        let ours = costs[1..].iter().map(|c| format!("{:.2} | {:.2}", c.median(wall), c.ratio(&costs[0], wall)));
        let ours: Vec<String> = ours.collect();
        println!("| {latency} ms | {theirs:.2} | {} |", ours.join(" | "));
    }
}

fn messages_table() {
    println!("\n## Small messages: 20,000 events, 10 a message, one message each 3 ms, a flush each 200 ms\n");
    small(Messages::Few(10));
}

fn chunks_table() {
    println!("\n## Small chunks: 20,000 events, 10 a chunk\n");
    small(Messages::Small(10));
}

fn small(messages: Messages) {
    let flow = Flow::of(20_000, messages);
    println!("| output | CPU above null s | ratio | requests |\n|---|---|---|---|");
    let contenders = [NULL, THEIRS, OURS, EIGHT, BUFFERED];
    let costs = in_turn(&flow, &contenders, &Faults::default(), Duration::from_millis(3));
    for (contender, cost) in contenders.iter().zip(&costs).skip(1) {
        println!(
            "| {} | {:.3} | {:.2} | {} |",
            contender.name,
            cost.above(&costs[0]),
            cost.cpu_ratio(&costs[1], &costs[0]),
            cost.median(|cost| cost.requests)
        );
    }
}

fn joined_table() {
    const AGGREGATED: &[(&str, &str)] = &[("simple_aggregation", "on")];
    const GZIP: &[(&str, &str)] = &[("simple_aggregation", "on"), ("compression", "gzip")];
    const ZSTD: &[(&str, &str)] = &[("simple_aggregation", "on"), ("compression", "zstd")];
    let flow = Flow::of(EVENTS, Messages::Large);
    println!("\n## Joined and compressed: {EVENTS} events\n");
    println!(
        "| options | kinesis_firehose, CPU above null s | kubehose, Workers 8 | ratio | buffered | ratio | their requests | ours | ratio | buffered | ratio |\n|---|---|---|---|---|---|---|---|---|---|---|"
    );
    for (name, options) in [("simple_aggregation", AGGREGATED), ("and gzip", GZIP), ("and zstd", ZSTD)] {
        let ours: &'static [(&str, &str)] = [options, EIGHT.options].concat().leak();
        let buffered: &'static [(&str, &str)] = [options, &[("acknowledge", "buffered")]].concat().leak();
        let contenders =
            [NULL, joined("kinesis_firehose", options), joined("kubehose", ours), joined("kubehose", buffered)];
        let costs = in_turn(&flow, &contenders, &Faults::default(), PACE);
        let requests = |costs: &Costs| costs.median(|cost| cost.requests);
        println!(
            "| {name} | {:.3} | {:.3} | {:.2} | {:.3} | {:.2} | {} | {} | {:.2} | {} | {:.2} |",
            costs[1].above(&costs[0]),
            costs[2].above(&costs[0]),
            costs[2].cpu_ratio(&costs[1], &costs[0]),
            costs[3].above(&costs[0]),
            costs[3].cpu_ratio(&costs[1], &costs[0]),
            requests(&costs[1]),
            requests(&costs[2]),
            requests(&costs[2]) / requests(&costs[1]),
            requests(&costs[3]),
            requests(&costs[3]) / requests(&costs[1])
        );
    }
}

fn flat_table() {
    println!("\n## Cost per event as the number of events grows, after the first\n");
    println!("| events | CPU above null, ns per event | peak RSS MB |\n|---|---|---|");
    for (events, times) in [(10_000, 1), (100_000, 1), (100_000, 10), (100_000, 100)] {
        let flow = Flow { warm: true, ..Flow::of(events, Messages::Large).times(times) };
        // Paced, since what cannot be kept up with is a backlog in the host, which costs by itself.
        let costs = in_turn(&flow, &[NULL, OURS], &Faults::default(), PACE);
        let nanos = costs[1].above(&costs[0]) * 1e9 / flow.events as f64;
        println!("| {} | {nanos:.0} | {:.0} |", flow.events, costs[1].median(|cost| cost.rss));
    }
}

fn main() {
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if !real_or_skip("the comparison with kinesis_firehose") {
        return;
    }
    for (name, table) in [
        ("cpu", cpu_table as fn()),
        ("drain", drain_table),
        ("joined", joined_table),
        ("messages", messages_table),
        ("chunks", chunks_table),
        ("flat", flat_table),
    ] {
        if named.is_empty() || named.iter().any(|wanted| wanted == name) {
            table();
        }
    }
}
