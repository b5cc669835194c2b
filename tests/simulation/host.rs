//! A model of Fluent Bit: chunks, workers that are queues, retries, storage, a signal, the exit.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One event of the world; its record contains this number.
pub type EventId = u64;

/// How often something happened to each event.
#[derive(Debug, Default)]
pub struct Tally(Vec<u32>);

impl Tally {
    /// Counts one more.
    pub fn add(&mut self, id: EventId) {
        let at = id as usize;
        if at >= self.0.len() {
            self.0.resize(at + at / 4 + 64, 0);
        }
        self.0[at] += 1;
    }

    /// Counts one less.
    pub fn sub(&mut self, id: EventId) {
        if let Some(times) = self.0.get_mut(id as usize) {
            *times = times.saturating_sub(1);
        }
    }

    pub fn get(&self, id: EventId) -> u32 {
        self.0.get(id as usize).copied().unwrap_or(0)
    }

    /// Each event with a count, and the count.
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
    pub tag: &'static str,
    /// Concatenated msgpack.
    pub bytes: Arc<Vec<u8>>,
    /// Its events, in order.
    pub events: Arc<Vec<EventId>>,
    /// Whether it outlives the process (`storage.type filesystem`).
    pub on_disk: bool,
    /// How often its flush was answered RETRY.
    pub retries: u32,
    pub fate: Fate,
}

/// What the host has done with a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The host still has it: it is waiting or being flushed.
    Host,
    /// It was answered OK in this run of the process.
    Acknowledged(u32),
    /// The host dropped it after its last retry, or it was in the memory of a process that ended.
    Dropped,
}

/// A worker: flushes one chunk after another.
#[derive(Debug, Default)]
pub struct Worker {
    /// Waiting chunks, by their index in the world's list.
    pub queue: VecDeque<usize>,
    /// The current flush: its number, its chunk, its deadline.
    pub flush: Option<(u64, usize, Instant)>,
}

/// The host's configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// The number of workers; for `Workers 0`, one: the engine's own thread.
    pub workers: usize,
    /// How long a flush waits.
    pub flush_timeout: Duration,
    /// How often a chunk is retried before it is dropped.
    pub retry_limit: u32,
    /// Whether chunks are on disk.
    pub filesystem: bool,
    /// How long the engine waits for its tasks after the signal.
    pub grace: Duration,
}

thread_local! {
    /// Whether events name a stream, in the world that this thread runs.
    static STREAMED: Cell<bool> = const { Cell::new(false) };
}

/// Sets whether events name a stream, in the world that this thread runs.
pub fn set_streamed(streamed: bool) {
    STREAMED.set(streamed);
}

/// See [`set_streamed`].
pub fn is_streamed() -> bool {
    STREAMED.get()
}

/// What an event says about its stream: one of six streams, nothing, or an invalid name.
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

/// The expected record.
pub fn expected(id: EventId, pad: usize) -> String {
    let said = if is_streamed() { format!("\"s\":\"{}\",", said_of(id)) } else { String::new() };
    format!("{{\"n\":{id},{said}\"pad\":\"{}\"}}\n", "x".repeat(pad))
}

/// The length of an event's pad: it follows from the number, so that the record can be predicted.
pub fn pad_of(id: EventId) -> usize {
    match id % 1000 {
        // Over the record limit: `oversize drop` makes it a dead letter.
        999 => 1_100_000,
        998 => 300_000,
        n if n >= 990 => 20_000,
        n => n as usize % 300,
    }
}
