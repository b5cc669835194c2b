//! kubehose compared with the built-in `kinesis_firehose` and `null`, in turn, in the real Fluent Bit; `make bench`
//! runs it.
//!
//! All receive the same events and deliver them over TLS to the same local endpoint **with the defaults**: a row sets
//! only its mode and `Workers`, unless it names another option. CPU is the host's time, user and system, minus that
//! of `null`. Every figure is the median of the rounds (`KUBEHOSE_ROUNDS` sets their number), in which the contenders
//! take turns. Arguments name the tables to run; without arguments all run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; clippy.toml sees only the test functions"
)]

mod events;
#[path = "../tests/host/mod.rs"]
mod host;
mod race;

use events::{KINDS, PODS, event_of, mixed_event};
use host::*;
use kubehose_local::firehose::{Faults, Options};
use race::*;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Events of one run, unless a table says otherwise.
const EVENTS: usize = 200_000;

const NULL: Contender = Contender { name: "null", plugin: "null", options: &[] };
const THEIRS: Contender = Contender { name: "kinesis_firehose", plugin: "kinesis_firehose", options: &[] };
const ONE: Contender = Contender::kubehose("delivered, Workers 1", &[("Workers", "1")]);
const EIGHT: Contender = Contender::kubehose("delivered, Workers 8", &[("Workers", "8")]);
const BUFFERED: Contender =
    Contender::kubehose("buffered, Workers 0", &[("acknowledge", "buffered"), ("Workers", "0")]);
const SPOOLED: Contender =
    Contender::kubehose("spool_dir, Workers 0", &[("spool_dir", "FOLDER/spool"), ("Workers", "0")]);

/// A megabyte at each interval, about 80 MB a second: every contender keeps up, so that memory is not that of a
/// backlog.
const PACED: Input = Input::Forward(Duration::from_millis(12));

/// As fast as the host reads.
const FULL_RATE: Input = Input::Forward(Duration::ZERO);

fn delayed(latency_ms: u64) -> Options {
    counting(Faults { latency_ms, ..Faults::default() })
}

fn cpu_table() {
    let flow = Flow::of(EVENTS, Messages::Large, mixed_event);
    let megabytes = flow.megabytes();
    println!("\n## CPU and memory at 0 ms a call: {EVENTS} events, {megabytes:.0} MB of JSON\n");
    println!(
        "| output | CPU above null, s | ms per MB | ratio | goal | peak RSS, MB | ratio | goal |\n|---|---|---|---|---|---|---|---|"
    );
    let contenders = [NULL, THEIRS, ONE, EIGHT, BUFFERED, SPOOLED];
    let costs = in_turn(5, &contenders, |contender| flow.run(contender, PACED, delayed(0)));
    let goals = ["", "0.55", "0.55", "0.55", "0.60"].into_iter().zip(["", "1.0", "1.0", "1.0", "1.0"]);
    for ((contender, cost), (cpu, rss)) in contenders.iter().zip(&costs).skip(1).zip(goals) {
        let above = cost.above(&costs[0]);
        println!(
            "| {} | {above:.3} | {:.2} | {:.2} | {cpu} | {:.0} | {:.2} | {rss} |",
            contender.name,
            above * 1000.0 / megabytes,
            cost.cpu_ratio(&costs[1], &costs[0]),
            cost.median(|cost| cost.rss),
            cost.ratio(&costs[1], |cost| cost.rss)
        );
    }
    println!("\n`spool_dir` adds {:.0} % to `buffered`.", 100.0 * (costs[5].cpu_ratio(&costs[4], &costs[0]) - 1.0));
}

fn kinds_table() {
    const EVENTS: usize = 100_000;
    println!("\n## CPU by kind of event: {EVENTS} events of each, delivered, Workers 1\n");
    println!(
        "| events | bytes of JSON | kinesis_firehose, CPU above null, s | kubehose | ns per event | ratio |\n|---|---|---|---|---|---|"
    );
    for (name, kind) in KINDS {
        let flow = Flow::of(EVENTS, Messages::Large, |n| event_of(kind, n));
        let costs = in_turn(3, &[NULL, THEIRS, ONE], |contender| flow.run(contender, PACED, delayed(0)));
        let above = costs[2].above(&costs[0]);
        println!(
            "| {name} | {} | {:.3} | {above:.3} | {:.0} | {:.2} |",
            flow.bytes / EVENTS,
            costs[1].above(&costs[0]),
            above * 1e9 / EVENTS as f64,
            costs[2].cpu_ratio(&costs[1], &costs[0])
        );
    }
}

fn drain_table() {
    let flow = Flow::of(EVENTS, Messages::Large, mixed_event);
    for (input, name) in [(Input::Tail, "in_tail with a JSON parser"), (FULL_RATE, "in_forward at its full rate")] {
        println!("\n## Seconds to drain {EVENTS} events from {name} (goal 0.85)\n");
        println!(
            "| latency of a call, ms | output | seconds | ratio | peak RSS, MB | ratio | most calls at a time |\n|---|---|---|---|---|---|---|"
        );
        for latency in [0, 20, 100, 300] {
            let mut contenders = vec![THEIRS, EIGHT, BUFFERED, SPOOLED];
            // The cost of the input alone.
            contenders.extend((latency == 0).then_some(NULL));
            let costs = in_turn(3, &contenders, |contender| flow.run(contender, input, delayed(latency)));
            for (contender, cost) in contenders.iter().zip(&costs) {
                println!(
                    "| {latency} | {} | {:.2} | {:.2} | {:.0} | {:.2} | {} |",
                    contender.name,
                    cost.median(|cost| cost.wall),
                    cost.ratio(&costs[0], |cost| cost.wall),
                    cost.median(|cost| cost.rss),
                    cost.ratio(&costs[0], |cost| cost.rss),
                    cost.median(|cost| cost.in_flight)
                );
            }
        }
    }
}

fn messages_table() {
    println!("\n## Small messages: 20,000 events, 10 a message, one message each 3 ms, a flush each 200 ms\n");
    small(Messages::Few(10), [""; 4]);
}

fn chunks_table() {
    println!("\n## Small chunks: 20,000 events, 10 a chunk\n");
    small(Messages::Small(10), ["", "0.70", "0.45", "0.35"]);
}

fn small(messages: Messages, goals: [&str; 4]) {
    let flow = Flow::of(20_000, messages, mixed_event);
    println!("| output | CPU above null, s | ratio | goal | calls |\n|---|---|---|---|---|");
    let contenders = [NULL, THEIRS, ONE, EIGHT, BUFFERED];
    let input = Input::Forward(Duration::from_millis(3));
    let costs = in_turn(3, &contenders, |contender| flow.run(contender, input, delayed(0)));
    for ((contender, cost), goal) in contenders.iter().zip(&costs).skip(1).zip(goals) {
        println!(
            "| {} | {:.3} | {:.2} | {goal} | {} |",
            contender.name,
            cost.above(&costs[0]),
            cost.cpu_ratio(&costs[1], &costs[0]),
            cost.median(|cost| cost.requests)
        );
    }
}

fn joined_table() {
    const JOINED: [(&str, &[(&str, &str)]); 3] = [
        ("simple_aggregation", &[("simple_aggregation", "on")]),
        ("and gzip", &[("simple_aggregation", "on"), ("compression", "gzip")]),
        ("and zstd", &[("simple_aggregation", "on"), ("compression", "zstd")]),
    ];
    let flow = Flow::of(EVENTS, Messages::Large, mixed_event);
    println!(
        "\n## Joined and compressed: {EVENTS} events; each row with these options besides (goal for calls, uncompressed: 0.27)\n"
    );
    println!("| options | output | CPU above null, s | ratio | calls | ratio |\n|---|---|---|---|---|---|");
    for (name, options) in JOINED {
        let contenders = [NULL, THEIRS.with(options), EIGHT.with(options), BUFFERED.with(options)];
        let costs = in_turn(3, &contenders, |contender| flow.run(contender, PACED, delayed(0)));
        for (contender, cost) in contenders.iter().zip(&costs).skip(1) {
            println!(
                "| {name} | {} | {:.3} | {:.2} | {} | {:.3} |",
                contender.name,
                cost.above(&costs[0]),
                cost.cpu_ratio(&costs[1], &costs[0]),
                cost.median(|cost| cost.requests),
                cost.ratio(&costs[1], |cost| cost.requests)
            );
        }
    }
}

/// Event number `n`, with its pod's own namespace.
fn event_in_namespace(n: usize) -> serde_json::Value {
    let mut event = mixed_event(n);
    event["kubernetes"]["namespace_name"] = format!("team-{:02}", n % PODS).into();
    event
}

fn routing_table() {
    /// An endpoint where the streams of this table exist.
    fn streams() -> Options {
        let teams = (0..50).map(|team| format!("logs-team-{team:02}"));
        Options { streams: teams.chain(["logs-shop".to_owned(), STREAM.to_owned()]).collect(), ..delayed(0) }
    }
    const ROUTED: &[(&str, &str)] =
        &[("delivery_stream", "logs-$kubernetes['namespace_name']"), ("default_delivery_stream", STREAM)];
    println!(
        "\n## A stream for each namespace: {EVENTS} events, against none of it (goal with 1 stream in use: 1.03)\n"
    );
    println!(
        "| streams in use | output | CPU above null without, s | with | ratio | calls without | with |\n|---|---|---|---|---|---|---|"
    );
    for (name, event) in [("1", mixed_event as fn(usize) -> serde_json::Value), ("50", event_in_namespace)] {
        let flow = Flow::of(EVENTS, Messages::Large, event);
        let contenders = [NULL, EIGHT, EIGHT.with(ROUTED), BUFFERED, BUFFERED.with(ROUTED)];
        let costs = in_turn(5, &contenders, |contender| flow.run(contender, PACED, streams()));
        for (contender, at) in [(EIGHT, 1), (BUFFERED, 3)] {
            let (without, with) = (&costs[at], &costs[at + 1]);
            println!(
                "| {name} | {} | {:.3} | {:.3} | {:.3} | {} | {} |",
                contender.name,
                without.above(&costs[0]),
                with.above(&costs[0]),
                with.cpu_ratio(without, &costs[0]),
                without.median(|cost| cost.requests),
                with.median(|cost| cost.requests)
            );
        }
    }
}

/// Records sent per second; the quota is half of that.
const RATE: usize = 2_000;

/// How long the quota lasts.
const THROTTLED: Duration = Duration::from_secs(60);

fn throttled_table() {
    println!(
        "\n## {RATE} events a second, half of them as quota for {} s, then free (goals: none lost, 0.95)\n",
        THROTTLED.as_secs()
    );
    println!(
        "| output | events lost | accepted twice | share of the quota used | peak RSS, MB |\n|---|---|---|---|---|"
    );
    // In parallel: two thousand events a second leave the machine idle.
    let contenders = [THEIRS, EIGHT, BUFFERED, SPOOLED];
    let rows: Vec<String> = std::thread::scope(|scope| {
        let runs = contenders.map(|contender| scope.spawn(move || throttled(contender)));
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    println!("{}", rows.join("\n"));
}

/// One row of the table.
fn throttled(contender: Contender) -> String {
    let tenth = |tenth: usize| {
        let mut entries = Vec::new();
        for n in tenth * RATE / 10..(tenth + 1) * RATE / 10 {
            let mut event = mixed_event(n);
            event["n"] = n.into();
            events::write_event(&mut entries, &event);
        }
        message("kube.x", &entries)
    };
    let tenths = THROTTLED.as_secs() as usize * 10 + 50;
    let (events, quota) = ((tenths * RATE / 10) as u64, RATE as u64 / 2);
    let faults = Faults { quota_records_per_second: quota, latency_ms: 20, ..Faults::default() };
    let run = Run::start(contender, Options { count_unique: true, ..counting(faults.clone()) }, None);
    let mut socket = run.connect();
    let start = Instant::now();
    // The share of the quota used, from the time when there is a backlog until the quota ends.
    let (mut from, mut to) = (None, None);
    for n in 0..tenths {
        socket.write_all(&tenth(n)).unwrap();
        let accepted = || Some((Instant::now(), run.server.stats().records_accepted));
        if start.elapsed() >= Duration::from_secs(10) && from.is_none() {
            from = accepted();
        }
        if start.elapsed() >= THROTTLED && to.is_none() {
            to = accepted();
            run.server.set_faults(Faults { quota_records_per_second: 0, ..faults.clone() });
        }
        let next = start + Duration::from_millis(100) * (n as u32 + 1);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    drop(socket);
    let (mut seen, mut last) = (0, Instant::now());
    // The host's own retries may be several seconds apart.
    until("the rest", Duration::from_secs(300), || {
        let unique = run.server.stats().unique;
        if unique != seen {
            (seen, last) = (unique, Instant::now());
        }
        unique >= events || last.elapsed() > Duration::from_secs(20)
    });
    let (stats, ((from, before), (to, after))) = (run.server.stats(), from.zip(to).unwrap());
    let used = (after - before) as f64 / (to - from).as_secs_f64() / quota as f64;
    let rss = peak(run.running.child.id());
    run.end();
    format!("| {} | {} | {} | {used:.2} | {rss:.0} |", contender.name, events - stats.unique, stats.duplicates)
}

fn flat_table() {
    println!(
        "\n## Cost per event as the number of events grows, after the first: delivered, Workers 1 (goal: flat within 10 %)\n"
    );
    println!("| events | CPU above null, ns per event | peak RSS, MB |\n|---|---|---|");
    for (events, times, rounds) in [(10_000, 1, 3), (100_000, 1, 3), (100_000, 10, 1), (100_000, 30, 1)] {
        let flow = Flow::of(events, Messages::Large, mixed_event).times(times).warm();
        // Paced, because a backlog in the host would add a cost of its own.
        let costs = in_turn(rounds, &[NULL, ONE], |contender| flow.run(contender, PACED, delayed(0)));
        let nanos = costs[1].above(&costs[0]) * 1e9 / flow.events as f64;
        println!("| {} | {nanos:.0} | {:.0} |", flow.events, costs[1].median(|cost| cost.rss));
    }
}

fn main() {
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if !real_or_skip("the comparison with kinesis_firehose") {
        return;
    }
    let tables: [(&str, fn()); 9] = [
        ("cpu", cpu_table),
        ("kinds", kinds_table),
        ("drain", drain_table),
        ("joined", joined_table),
        ("chunks", chunks_table),
        ("messages", messages_table),
        ("routing", routing_table),
        ("throttled", throttled_table),
        ("flat", flat_table),
    ];
    for name in &named {
        let known = tables.map(|(name, _)| name);
        assert!(known.contains(&name.as_str()), "there is no table '{name}'; there are {}", known.join(", "));
    }
    for (name, table) in tables {
        if named.is_empty() || named.iter().any(|wanted| wanted == name) {
            table();
        }
    }
}
