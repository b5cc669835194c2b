//! Chunks: the events of one input and tag, collected until the flush.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::event::{self, Body, EventForm, Time};

/// A chunk takes events until it has this many bytes; its last event may exceed it, as in the real host.
const FULL_BYTES: usize = 2_048_000;

/// A closed chunk.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Its name in log lines.
    pub name: String,
    /// The input's name.
    pub input: Arc<str>,
    /// The tag of its events.
    pub tag: String,
    /// The events, as concatenated msgpack.
    pub data: Vec<u8>,
    /// Their number.
    pub events: u64,
    /// The bytes of all existing chunks, including this one.
    held: Arc<AtomicUsize>,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.held.fetch_sub(self.data.len(), Ordering::Relaxed);
    }
}

/// The open chunks.
pub(super) struct Chunks {
    form: EventForm,
    open: Vec<Chunk>,
    full: Vec<Chunk>,
    held: Arc<AtomicUsize>,
}

impl Chunks {
    pub fn new(form: EventForm) -> Self {
        Chunks { form, open: Vec::new(), full: Vec::new(), held: Arc::default() }
    }

    /// The bytes of all existing chunks.
    pub fn held_bytes(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Appends an event to the chunk of its input and tag.
    pub fn push(&mut self, input: &Arc<str>, tag: &str, time: Time, body: &Body) {
        let at = self.open.iter().position(|chunk| chunk.tag == tag && chunk.input == *input);
        let at = at.unwrap_or_else(|| {
            let now = Time::now();
            let name = format!("{}-{}.{:09}.flb", std::process::id(), now.seconds, now.nanoseconds);
            let (input, tag, held) = (Arc::clone(input), tag.to_owned(), Arc::clone(&self.held));
            self.open.push(Chunk { name, input, tag, data: Vec::new(), events: 0, held });
            self.open.len() - 1
        });
        let chunk = &mut self.open[at];
        let before = chunk.data.len();
        event::append(&mut chunk.data, self.form, time, body);
        chunk.events += 1;
        self.held.fetch_add(chunk.data.len() - before, Ordering::Relaxed);
        if chunk.data.len() >= FULL_BYTES {
            self.full.push(self.open.remove(at));
        }
    }

    /// Closes all chunks and returns them, the oldest first.
    pub fn take(&mut self) -> Vec<Chunk> {
        let mut chunks = std::mem::take(&mut self.full);
        chunks.append(&mut self.open);
        chunks
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.full.is_empty()
    }
}
