//! What is kept on disk, by a thread of its own: chunks until they are delivered, and records that could not be.
//!
//! The thread does what it is told in that order, and tells what came of it. Nothing waits for it but what it is told: a disk that hangs
//! stops no call.

pub mod dead_letters;
pub mod spool;

use crate::delivery::room::Copied;
use crate::delivery::{ChunkId, Identity, Input, LetterId, Loaded, Recovered};
use crate::storage::dead_letters::{DeadLetter, DeadLetters};
use crate::storage::spool::{Spool, Spooled};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::thread;

/// What the thread is told.
#[derive(Debug)]
pub enum Task {
    /// Write a chunk into the spool.
    Store(ChunkId, Identity, Arc<str>, Arc<Copied>),
    /// Note that these events are settled.
    Note(ChunkId, Vec<Range<u32>>),
    /// Read a chunk back.
    Load(ChunkId),
    /// All of a chunk is settled.
    Remove(ChunkId),
    /// Write a dead letter.
    DeadLetter(LetterId, DeadLetter),
}

/// What is on disk of one output.
pub struct Storage {
    spool: Option<(Spool, HashMap<ChunkId, Spooled>)>,
    letters: Option<DeadLetters>,
}

impl Storage {
    /// With a spool and the chunks that were left in it, and a dead-letter file, where there are such.
    pub fn new(spool: Option<(Spool, Vec<Spooled>)>, letters: Option<DeadLetters>) -> Storage {
        let spool = spool.map(|(spool, left)| {
            let chunks = left.into_iter().map(|spooled| (ChunkId(spooled.number()), spooled)).collect();
            (spool, chunks)
        });
        Storage { spool, letters }
    }

    /// What an earlier process left in the spool, the oldest first.
    pub fn recovered(&self) -> Vec<Recovered> {
        let mut recovered: Vec<Recovered> = self
            .spool
            .iter()
            .flat_map(|(_, chunks)| chunks)
            .map(|(chunk, spooled)| Recovered {
                chunk: *chunk,
                // A damaged one has an identity that no chunk will ask for.
                identity: spooled.identity().unwrap_or(Identity::of(b"", b"")),
                size: spooled.size() as usize,
            })
            .collect();
        recovered.sort_by_key(|recovered| recovered.chunk);
        recovered
    }

    /// Starts the thread. It ends when nobody can tell it anything any more, and then disconnects the channel that is given back.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        mut self,
        tasks: crossbeam_channel::Receiver<Task>,
        done: impl Fn(Input) + Send + 'static,
    ) -> std::io::Result<crossbeam_channel::Receiver<()>> {
        let (running, ended) = crossbeam_channel::bounded(0);
        thread::Builder::new().name("kubehose-disk".to_owned()).spawn(move || {
            for task in tasks {
                if let Some(input) = self.run(task) {
                    done(input);
                }
            }
            // The spool's folder is free before the end is told.
            drop(self);
            drop(running);
        })?;
        Ok(ended)
    }

    fn run(&mut self, task: Task) -> Option<Input> {
        match task {
            Task::Store(chunk, identity, tag, bytes) => {
                let (spool, chunks) = self.spool.as_mut()?;
                Some(match spool.add(chunk.0, identity, tag.as_bytes(), &bytes) {
                    Ok(spooled) => {
                        chunks.insert(chunk, spooled);
                        Input::Stored { chunk }
                    }
                    Err(error) => Input::NotStored { chunk, error: error.to_string() },
                })
            }
            Task::Note(chunk, events) => {
                let spooled = self.spool.as_ref()?.1.get(&chunk)?;
                let error = spooled.note(&events).err()?;
                Some(Input::SpoolFailed {
                    error: format!("cannot note what was delivered of chunk {}: {error}", chunk.0),
                })
            }
            Task::Load(chunk) => {
                let spooled = self.spool.as_ref()?.1.get(&chunk);
                let loaded = match spooled.map(|spooled| spooled.read(Vec::new())) {
                    Some(Ok(read)) => {
                        Ok(Loaded { tag: read.tag, bytes: read.bytes, settled: read.taken, damage: read.torn })
                    }
                    Some(Err(error)) => Err(error.to_string()),
                    None => Err("it is gone".to_owned()),
                };
                Some(Input::Loaded { chunk, loaded })
            }
            Task::Remove(chunk) => {
                let spooled = self.spool.as_mut()?.1.remove(&chunk)?;
                let error = spooled.remove().err()?;
                Some(Input::SpoolFailed { error: format!("cannot remove chunk {}: {error}", chunk.0) })
            }
            Task::DeadLetter(letter, content) => {
                let outcome = match &mut self.letters {
                    None => Err("no dead_letter_file is set".to_owned()),
                    Some(letters) => letters.write(&content).map_err(|error| format!("dead_letter_file: {error}")),
                };
                Some(Input::Lettered { letter, outcome })
            }
        }
    }
}
