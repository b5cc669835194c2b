//! A model of the disk: does one task after another, late, or not at all.

use crate::host::EventId;
use crate::service::events_of;
use kubehose::delivery::room::Copied;
use kubehose::delivery::{Action, ChunkId, Identity, Input, LetterId, Loaded, Recovered};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// What is wrong with the disk for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// Writes fail.
    Full,
    /// Tasks never end.
    Hangs,
    /// Each task may fail.
    Fails,
}

/// A chunk in the spool.
pub struct Stored {
    identity: Identity,
    tag: Vec<u8>,
    pub bytes: Vec<u8>,
    pub settled: Vec<Range<u32>>,
}

#[derive(Debug)]
pub enum Task {
    Store(ChunkId, Identity, Arc<str>, Arc<Copied>),
    Note(ChunkId, Vec<Range<u32>>),
    Load(ChunkId),
    Remove(ChunkId),
    Letter(LetterId, Vec<u8>),
}

#[derive(Default)]
pub struct Disk {
    pub chunks: BTreeMap<u64, Stored>,
    /// How often each event was dead-lettered.
    pub letters: BTreeMap<EventId, u32>,
    /// How often the core learned that a dead letter is lost.
    pub lost: BTreeMap<EventId, u32>,
    pub queue: VecDeque<Task>,
    pub refused: u64,
}

impl Disk {
    /// Queues the actions that are for the disk; returns the others.
    pub fn take(&mut self, action: Action) -> Option<Action> {
        self.queue.push_back(match action {
            Action::Store { chunk, identity, tag, bytes } => Task::Store(chunk, identity, tag, bytes),
            Action::Note { chunk, events } => Task::Note(chunk, events),
            Action::Load { chunk } => Task::Load(chunk),
            Action::Remove { chunk } => Task::Remove(chunk),
            Action::DeadLetter { letter, record, .. } => Task::Letter(letter, record),
            other => return Some(other),
        });
        None
    }

    /// Does the next task; returns the core's input, if there is one.
    pub fn step(&mut self, trouble: Trouble, random: &mut fastrand::Rng) -> Result<Option<Input>, String> {
        let Some(task) = self.queue.pop_front() else { return Ok(None) };
        let fails = match trouble {
            Trouble::Full => true,
            Trouble::Fails => random.u8(..3) == 0,
            Trouble::None | Trouble::Hangs => false,
        };
        self.refused += u64::from(fails);
        Ok(match task {
            Task::Store(chunk, ..) if fails => Some(Input::NotStored { chunk, error: "full".to_owned() }),
            Task::Store(chunk, identity, tag, bytes) => {
                let stored =
                    Stored { identity, tag: tag.as_bytes().to_vec(), bytes: bytes.to_vec(), settled: Vec::new() };
                if self.chunks.insert(chunk.0, stored).is_some() {
                    return Err(format!("chunk {} is stored twice", chunk.0));
                }
                Some(Input::Stored { chunk })
            }
            Task::Note(..) if fails => Some(Input::SpoolFailed { error: "full".to_owned() }),
            Task::Note(chunk, events) => {
                // A chunk that was not stored has no notes either.
                if let Some(stored) = self.chunks.get_mut(&chunk.0) {
                    stored.settled.extend(events);
                    stored.settled.sort_by_key(|range| range.start);
                }
                None
            }
            Task::Load(chunk) if trouble == Trouble::Fails && fails => {
                Some(Input::Loaded { chunk, loaded: Err("cannot read".to_owned()) })
            }
            Task::Load(chunk) => {
                let Some(stored) = self.chunks.get(&chunk.0) else {
                    return Err(format!("chunk {} is read, but is not in the spool", chunk.0));
                };
                let loaded = Loaded {
                    tag: stored.tag.clone(),
                    bytes: stored.bytes.clone(),
                    settled: stored.settled.clone(),
                    damage: None,
                };
                Some(Input::Loaded { chunk, loaded: Ok(loaded) })
            }
            Task::Remove(_) if trouble == Trouble::Fails && fails => {
                Some(Input::SpoolFailed { error: "cannot remove".to_owned() })
            }
            Task::Remove(chunk) => {
                if self.chunks.remove(&chunk.0).is_none() {
                    return Err(format!("chunk {} is removed, but is not in the spool", chunk.0));
                }
                None
            }
            Task::Letter(letter, record) => {
                let counts = if fails { &mut self.lost } else { &mut self.letters };
                for id in events_of(&record)? {
                    *counts.entry(id).or_default() += 1;
                }
                let outcome = if fails { Err("full".to_owned()) } else { Ok(()) };
                Some(Input::Lettered { letter, outcome, discarded: 0 })
            }
        })
    }

    /// Whether a chunk is in the spool.
    pub fn holds(&self, identity: Identity) -> bool {
        self.chunks.values().any(|stored| stored.identity == identity)
    }

    /// What a new process finds in the spool.
    pub fn recovered(&self) -> Vec<Recovered> {
        let found = self.chunks.iter();
        found
            .map(|(chunk, stored)| Recovered {
                chunk: ChunkId(*chunk),
                identity: stored.identity,
                size: stored.bytes.len(),
            })
            .collect()
    }
}
