//! One output in a real Fluent Bit, delivering a flow of events to the local Firehose endpoint: its cost, and
//! comparing contenders in turn.

use crate::events::write_event;
use crate::host::*;
use kubehose_local::firehose::{Faults, Keep, Options, Server};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// An output plugin with its options.
#[derive(Clone, Copy)]
pub struct Contender {
    pub name: &'static str,
    pub plugin: &'static str,
    pub options: &'static [(&'static str, &'static str)],
}

impl Contender {
    pub const fn kubehose(name: &'static str, options: &'static [(&'static str, &'static str)]) -> Contender {
        Contender { name, plugin: "kubehose", options }
    }

    /// The same with more options.
    pub fn with(self, more: &[(&'static str, &'static str)]) -> Contender {
        Contender { options: [self.options, more].concat().leak(), ..self }
    }
}

/// What one run cost.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    /// CPU time in seconds, user and system.
    pub cpu: f64,
    /// Peak resident set size, in MB.
    pub rss: f64,
    /// Seconds from the first event to the last record.
    pub wall: f64,
    pub requests: f64,
    /// The maximum number of requests at a time.
    pub in_flight: f64,
}

/// How events are grouped into messages of the forward protocol.
#[derive(Clone, Copy)]
pub enum Messages {
    /// About a megabyte each, all with the same tag: chunks are full.
    Large,
    /// This many events each, all with the same tag: a chunk has the events since the last flush.
    Few(usize),
    /// This many events, each with its own tag, and therefore its own chunk and call.
    Small(usize),
}

/// How events reach the host.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// `in_forward`, which passes msgpack through at almost no cost: one message per pause, or as fast as it reads.
    Forward(Duration),
    /// `in_tail` with a JSON parser, reading a file from its beginning.
    Tail,
}

/// The events, generated once for all runs.
pub struct Flow {
    messages: Vec<Vec<u8>>,
    /// The same events as a file of lines, written at the first use.
    lines: PathBuf,
    /// The folder of that file, removed at the end.
    _folder: tempfile::TempDir,
    /// How often all of them are sent.
    times: usize,
    /// Whether to leave out one-time work (certificates, credentials, connections): one event is sent first, and
    /// counting starts once it has arrived.
    warm: bool,
    /// The number of events in all, and of bytes of JSON.
    pub events: usize,
    pub bytes: usize,
}

/// A running host, and the Firehose endpoint that it delivers to.
pub struct Run {
    pub server: Server,
    pub running: Running,
    address: String,
}

impl Run {
    /// Starts the host with this output, and waits until [`Input::Forward`] listens, or lets it read the file.
    pub fn start(contender: Contender, options: Options, tail: Option<&PathBuf>) -> Run {
        let server = Server::start(options).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let scene = Scene::new().service("Flush", "0.2").service("Log_Level", "warn");
        let folder = scene.folder.path().display().to_string();
        let mut scene = match tail {
            Some(file) => {
                let file = file.display().to_string();
                let pairs = [
                    ("Name", "tail"),
                    ("Path", file.as_str()),
                    ("Tag", "kube.x"),
                    ("Read_from_Head", "on"),
                    ("Parser", "json"),
                ];
                scene.section("INPUT", &pairs)
            }
            None => {
                let pairs = [
                    ("Name", "forward"),
                    ("Listen", "127.0.0.1"),
                    ("Port", &port),
                    ("Buffer_Max_Size", "16M"),
                    ("Buffer_Chunk_Size", "2M"),
                ];
                scene.section("INPUT", &pairs)
            }
        };
        let options: Vec<(&str, String)> =
            contender.options.iter().map(|(key, value)| (*key, value.replace("FOLDER", &folder))).collect();
        let options: Vec<(&str, &str)> = options.iter().map(|(key, value)| (*key, value.as_str())).collect();
        scene = match contender.plugin {
            "null" => scene.section("OUTPUT", &[("Name", "null"), ("Match", "*")]),
            // Only the destination, and the contender's options.
            "kubehose" => scene.output(&server, &options),
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
        let running = scene.start();
        let address = format!("127.0.0.1:{port}");
        if tail.is_none() {
            until("input", Duration::from_secs(10), || TcpStream::connect(&address).is_ok());
        }
        Run { server, running, address }
    }

    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).unwrap()
    }

    pub fn end(mut self) {
        self.running.signal("TERM");
        self.running.wait(Duration::from_secs(60));
    }
}

impl Flow {
    pub fn of(events: usize, messages: Messages, event: impl Fn(usize) -> Value) -> Flow {
        let folder = tempfile::tempdir().unwrap();
        let lines = folder.path().join("events.log");
        let mut file = std::io::BufWriter::new(fs::File::create(&lines).unwrap());
        let mut flow = Flow { messages: Vec::new(), lines, _folder: folder, times: 1, warm: false, events, bytes: 0 };
        let (mut entries, mut held) = (Vec::new(), 0);
        for n in 0..events {
            let event = event(n);
            let text = event.to_string();
            flow.bytes += text.len() + 1;
            writeln!(file, "{text}").unwrap();
            write_event(&mut entries, &event);
            held += 1;
            let (full, tag) = match messages {
                Messages::Large => (entries.len() > 1_000_000, "kube.x".to_owned()),
                Messages::Few(each) => (held == each, "kube.x".to_owned()),
                Messages::Small(each) => (held == each, format!("kube.{n}")),
            };
            if full || n + 1 == events {
                flow.messages.push(message(&tag, &entries));
                entries.clear();
                held = 0;
            }
        }
        file.flush().unwrap();
        flow
    }

    /// The same flow, this many times in a row.
    pub fn times(self, times: usize) -> Flow {
        Flow { times, events: self.events * times, bytes: self.bytes * times, ..self }
    }

    /// The same flow, measured after all one-time work.
    pub fn warm(self) -> Flow {
        Flow { warm: true, ..self }
    }

    pub fn megabytes(&self) -> f64 {
        self.bytes as f64 / 1e6
    }

    /// Delivers all events with this output.
    pub fn run(&self, contender: Contender, input: Input, options: Options) -> Cost {
        let tail = (input == Input::Tail).then_some(&self.lines);
        let start = Instant::now();
        let run = Run::start(contender, options, tail);
        let (mut start, pid) = (start, run.running.child.id());
        let mut before = 0.0;
        if let Input::Forward(pause) = input {
            let mut socket = run.connect();
            if self.warm {
                let mut entries = Vec::new();
                write_event(&mut entries, &serde_json::json!({"log": "the first"}));
                socket.write_all(&message("kube.x", &entries)).unwrap();
                let arrived = || contender.plugin == "null" || run.server.stats().records_accepted > 0;
                until("first record", Duration::from_secs(60), arrived);
                std::thread::sleep(Duration::from_millis(1500));
                before = cpu(pid);
            }
            start = Instant::now();
            for message in std::iter::repeat_n(&self.messages, self.times).flatten() {
                socket.write_all(message).unwrap();
                if !pause.is_zero() {
                    std::thread::sleep(pause);
                }
            }
        }
        let expected = (self.events + usize::from(self.warm)) as u64;
        let mut last = Instant::now();
        if contender.plugin == "null" {
            // `null` reports nothing, so it is done once its CPU time stops growing.
            let mut spent = -1.0;
            until("rest", Duration::from_secs(60), || {
                // Timers still use a little CPU time.
                if cpu(pid) > spent + 0.003 {
                    (spent, last) = (cpu(pid), Instant::now());
                }
                last.elapsed() > Duration::from_millis(1200)
            });
        } else {
            let aggregated = contender.options.iter().any(|(key, _)| *key == "simple_aggregation");
            let mut seen = 0;
            until("last record", Duration::from_secs(600), || {
                let accepted = run.server.stats().records_accepted;
                if accepted != seen {
                    (seen, last) = (accepted, Instant::now());
                }
                accepted >= expected || (aggregated && accepted > 0 && last.elapsed() > Duration::from_millis(1500))
            });
        }
        let stats = run.server.stats();
        let cost = Cost {
            cpu: cpu(pid) - before,
            rss: peak(pid),
            wall: (last - start).as_secs_f64(),
            requests: stats.requests as f64,
            in_flight: stats.in_flight_peak as f64,
        };
        run.end();
        cost
    }
}

/// A message of the forward protocol (PackedForward).
pub fn message(tag: &str, entries: &[u8]) -> Vec<u8> {
    let mut message = vec![0x92];
    rmp::encode::write_str(&mut message, tag).unwrap();
    rmp::encode::write_bin(&mut message, entries).unwrap();
    message
}

/// A Firehose endpoint that counts and checks signatures, with these faults.
pub fn counting(faults: Faults) -> Options {
    Options { keep: Keep::Nothing, faults, ..firehose_options(true) }
}

/// CPU time in seconds of all threads of a process, to the nanosecond; our threads all live until it ends.
fn cpu(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let spent = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    spent.sum::<f64>() / 1e9
}

/// The peak resident set size, in MB.
pub fn peak(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The costs of one contender, one for each round.
pub struct Costs(Vec<Cost>);

impl Costs {
    pub fn median(&self, field: impl Fn(&Cost) -> f64) -> f64 {
        median(&mut self.0.iter().map(field).collect::<Vec<_>>())
    }

    /// CPU time minus that of `null`.
    pub fn above(&self, null: &Costs) -> f64 {
        self.median(|cost| cost.cpu) - null.median(|cost| cost.cpu)
    }

    /// The median of the rounds' ratios: load that varies on a shared machine affects both runs of a round.
    pub fn ratio(&self, other: &Costs, field: impl Fn(&Cost) -> f64) -> f64 {
        median(&mut self.0.iter().zip(&other.0).map(|(one, other)| field(one) / field(other)).collect::<Vec<_>>())
    }

    /// The same ratio for CPU time minus that of `null`.
    pub fn cpu_ratio(&self, other: &Costs, null: &Costs) -> f64 {
        let null = null.median(|cost| cost.cpu);
        self.ratio(other, |cost| cost.cpu - null)
    }
}

/// Runs the contenders in turn, `KUBEHOSE_ROUNDS` times, or as often as the table needs.
pub fn in_turn(rounds: usize, contenders: &[Contender], mut run: impl FnMut(Contender) -> Cost) -> Vec<Costs> {
    let rounds: usize = std::env::var("KUBEHOSE_ROUNDS").map_or(rounds, |text| text.parse().unwrap());
    let mut all: Vec<Costs> = contenders.iter().map(|_| Costs(Vec::new())).collect();
    for round in 1..=rounds {
        for (contender, costs) in contenders.iter().zip(&mut all) {
            eprint!("\r\x1b[Kround {round} of {rounds}: {}", contender.name);
            costs.0.push(run(*contender));
        }
    }
    eprint!("\r\x1b[K");
    all
}
