//! One output in a real Fluent Bit against the local Firehose: what it costs to deliver a flow of events, and the contenders in turn.

use crate::events::write_event;
use crate::host::*;
use kubehose_local::firehose::{Faults, Keep, Options, Server};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Who delivers, and with which options.
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
    /// Seconds of CPU, user and system.
    pub cpu: f64,
    /// Peak resident set, MB.
    pub rss: f64,
    /// Seconds from the first event to the last record.
    pub wall: f64,
    pub requests: f64,
    /// The most requests at a time.
    pub in_flight: f64,
}

/// How events are put into messages of the forward protocol.
#[derive(Clone, Copy)]
pub enum Messages {
    /// Of about a megabyte, all with the same tag: chunks are full.
    Large,
    /// Of so many events, all with the same tag: a chunk is what a flush finds.
    Few(usize),
    /// Of so many events, each with a tag of its own, and hence a chunk and a call of its own.
    Small(usize),
}

/// How they come to the host.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// `in_forward`, which passes msgpack through and so costs next to nothing: one message in this time, or as fast as it reads.
    Forward(Duration),
    /// `in_tail` with a JSON parser, which reads a file from its beginning.
    Tail,
}

/// The events, made once for all runs.
pub struct Flow {
    messages: Vec<Vec<u8>>,
    /// The same as a file of lines, made when it is first wanted.
    lines: PathBuf,
    /// Where that file is, until the end.
    _folder: tempfile::TempDir,
    /// How often all of them are sent.
    times: usize,
    /// Whether what is done once (certificates, credentials, connections) is left out: one event goes before, and counts
    /// begin once it has arrived.
    warm: bool,
    /// How many events that makes, and how many bytes of JSON.
    pub events: usize,
    pub bytes: usize,
}

/// A host that runs, and the Firehose that it delivers to.
pub struct Run {
    pub server: Server,
    pub running: Running,
    address: String,
}

impl Run {
    /// Starts the host with this output, and waits until it listens to [`Input::Forward`]; or it reads this file.
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
            // Nothing but where to deliver, and what the contender's name says.
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

    /// The same flow so many times in a row.
    pub fn times(self, times: usize) -> Flow {
        Flow { times, events: self.events * times, bytes: self.bytes * times, ..self }
    }

    /// The same flow, with all that is done once before it.
    pub fn warm(self) -> Flow {
        Flow { warm: true, ..self }
    }

    pub fn megabytes(&self) -> f64 {
        self.bytes as f64 / 1e6
    }

    /// Delivers all of it with this output.
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
            // Nothing tells when it is done but that it does nothing any more.
            let mut spent = -1.0;
            until("rest", Duration::from_secs(60), || {
                // Its timers tick on.
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

/// A Firehose that counts, checks signatures and has these faults.
pub fn counting(faults: Faults) -> Options {
    Options { keep: Keep::Nothing, faults, ..firehose_options(true) }
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

/// The peak resident set, in MB.
pub fn peak(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The costs of one contender, a round each.
pub struct Costs(Vec<Cost>);

impl Costs {
    pub fn median(&self, field: impl Fn(&Cost) -> f64) -> f64 {
        median(&mut self.0.iter().map(field).collect::<Vec<_>>())
    }

    /// CPU above `null`'s.
    pub fn above(&self, null: &Costs) -> f64 {
        self.median(|cost| cost.cpu) - null.median(|cost| cost.cpu)
    }

    /// The median of the rounds' ratios: what changes from round to round on a shared machine changes both.
    pub fn ratio(&self, other: &Costs, field: impl Fn(&Cost) -> f64) -> f64 {
        median(&mut self.0.iter().zip(&other.0).map(|(one, other)| field(one) / field(other)).collect::<Vec<_>>())
    }

    /// The same of CPU above `null`'s.
    pub fn cpu_ratio(&self, other: &Costs, null: &Costs) -> f64 {
        let null = null.median(|cost| cost.cpu);
        self.ratio(other, |cost| cost.cpu - null)
    }
}

/// The contenders in turn, `KUBEHOSE_ROUNDS` times, or as often as the table wants.
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
