//! Fluent Bit as the core sees it: chunks, workers that are queues, retries, storage, a signal, the end.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One event of the world: its number is in its record.
pub type EventId = u64;

/// How often something happened to each event.
#[derive(Debug, Default)]
pub struct Tally(Vec<u32>);

impl Tally {
    /// Once more.
    pub fn add(&mut self, id: EventId) {
        let at = id as usize;
        if at >= self.0.len() {
            self.0.resize(at + at / 4 + 64, 0);
        }
        self.0[at] += 1;
    }

    /// Once less.
    pub fn sub(&mut self, id: EventId) {
        if let Some(times) = self.0.get_mut(id as usize) {
            *times = times.saturating_sub(1);
        }
    }

    pub fn get(&self, id: EventId) -> u32 {
        self.0.get(id as usize).copied().unwrap_or(0)
    }

    /// The events that it happened to, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (EventId, u32)> {
        self.0.iter().enumerate().filter(|(_, times)| **times > 0).map(|(id, times)| (id as EventId, *times))
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// A chunk of the host.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Its tag.
    pub tag: &'static str,
    /// Concatenated msgpack.
    pub bytes: Arc<Vec<u8>>,
    /// Its events, in their order.
    pub events: Arc<Vec<EventId>>,
    /// It outlives the process (`storage.type filesystem`).
    pub on_disk: bool,
    /// How often a flush of it was answered RETRY.
    pub retries: u32,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a chunk, for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is the host's: it waits, or is being flushed.
    Host,
    /// It was answered OK in this life of the process.
    Acknowledged(u32),
    /// The host gave it up after its last retry, or it was in the memory of a process that ended.
    Dropped,
}

/// A worker: flushes one chunk after the other.
#[derive(Debug, Default)]
pub struct Worker {
    /// Chunks that wait, by their place in the world's list.
    pub queue: VecDeque<usize>,
    /// The flush that is under way: its number, its chunk, its deadline.
    pub flush: Option<(u64, usize, Instant)>,
}

/// How the host is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of workers; with `blocks`, the engine's own thread.
    pub workers: usize,
    /// How long a flush waits.
    pub flush_timeout: Duration,
    /// How often a chunk is retried before it is dropped.
    pub retry_limit: u32,
    /// Chunks are on disk.
    pub filesystem: bool,
    /// How long the engine waits for its tasks after the signal.
    pub grace: Duration,
}

thread_local! {
    /// Whether the events of the world that this thread runs name a stream.
    static STREAMED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the events of the world that this thread runs name a stream.
pub fn set_streamed(streamed: bool) {
    STREAMED.set(streamed);
}

/// See [`set_streamed`].
pub fn is_streamed() -> bool {
    STREAMED.get()
}

/// What an event says of its stream: six streams, nothing, and what is no name.
pub fn said_of(id: EventId) -> &'static str {
    ["a0", "a1", "a2", "a3", "a4", "a5", "", "no/name"][(id / 3 % 8) as usize]
}

/// The stream that an event is for, or the default one.
pub fn stream_of(id: EventId) -> String {
    match said_of(id) {
        _ if !is_streamed() => "logs".to_owned(),
        "" | "no/name" => "logs".to_owned(),
        name => format!("x-{name}"),
    }
}

/// Event number `id` as msgpack, in the form of Fluent Bit 2.1 and later.
pub fn encode(id: EventId, pad: usize, out: &mut Vec<u8>) {
    out.extend([0x92, 0x92, 0xd7, 0x00]);
    out.extend((id as u32 & 0x3fff_ffff).to_be_bytes());
    out.extend(0u32.to_be_bytes());
    out.extend([0x80, 0x82 + u8::from(is_streamed()), 0xa1, b'n', 0xcf]);
    out.extend(id.to_be_bytes());
    if is_streamed() {
        let said = said_of(id);
        out.extend([0xa1, b's', 0xa0 + said.len() as u8]);
        out.extend(said.as_bytes());
    }
    out.extend([0xa3, b'p', b'a', b'd', 0xdb]);
    out.extend((pad as u32).to_be_bytes());
    out.resize(out.len() + pad, b'x');
}

/// The record that must come of it.
pub fn expected(id: EventId, pad: usize) -> String {
    let said = if is_streamed() { format!("\"s\":\"{}\",", said_of(id)) } else { String::new() };
    format!("{{\"n\":{id},{said}\"pad\":\"{}\"}}\n", "x".repeat(pad))
}

/// How long the pad of an event is: a part of its number, so that its record can be foretold.
pub fn pad_of(id: EventId) -> usize {
    match id % 1000 {
        // Over the limit of a record: `oversize drop` makes it a dead letter.
        999 => 1_100_000,
        998 => 300_000,
        n if n >= 990 => 20_000,
        n => n as usize % 300,
    }
}
