//! What is kept on disk: chunks until they are delivered, and records that could not be delivered. One thread does all of it.
//!
//! The thread executes its tasks in order and reports their outcomes. Calls do not wait for it, so a disk that hangs stops
//! none.

mod chunk_file;
pub mod chunks;
mod files;
pub mod hang;
pub mod letters;
mod notes;

use crate::delivery::room::Copied;
use crate::delivery::{ChunkId, Identity, Input, LetterId, Loaded, Recovered};
use crate::error::Error;
use crate::storage::chunks::{Chunks, Damaged, Found, Revoker};
use crate::storage::hang::Busy;
use crate::storage::letters::{DeadLetter, Letters};
use crossbeam_channel::RecvTimeoutError;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// A task for the thread.
#[derive(Debug)]
pub enum Task {
    /// Write a chunk into the spool.
    Store(ChunkId, Identity, Arc<str>, Arc<Copied>),
    /// Note that these events are settled.
    Note(ChunkId, Vec<Range<u32>>),
    /// Read a chunk back.
    Load(ChunkId),
    /// Remove a chunk whose events are all settled.
    Remove(ChunkId),
    /// Write a dead letter.
    DeadLetter(LetterId, DeadLetter),
}

/// How chunks are spooled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolOptions {
    /// Its folder.
    pub folder: PathBuf,
    /// Its maximal size, in bytes.
    pub limit: u64,
    /// What survives a power loss.
    pub sync: chunks::SyncMode,
}

/// What is kept on disk.
#[derive(Clone, Debug, Default)]
pub struct StorageOptions {
    /// The spool, if there is one.
    pub spool: Option<SpoolOptions>,
    /// The dead-letter file, if there is one, and the maximal size of it and the older ones together, in bytes.
    pub dead_letters: Option<(PathBuf, u64)>,
}

/// The spool and the dead letters of one output.
pub struct Storage {
    spool: Option<Spool>,
    letters: Option<Letters>,
}

struct Spool {
    chunks: Chunks,
    /// The stream that new chunks are for.
    delivery_stream: String,
    /// Chunks whose files are damaged: once what could be read of them is settled, the files are kept.
    damaged: BTreeSet<ChunkId>,
}

/// What was found at the start.
#[derive(Debug, Default)]
pub struct AtStart {
    /// Chunks that an earlier process left in the spool, the oldest first.
    pub recovered: Vec<Recovered>,
    /// How many of these are for other streams, and one such stream.
    pub for_another_stream: Option<(usize, String)>,
    /// Files that no chunk can be delivered from.
    pub damaged: Vec<Damaged>,
    /// The number of the next chunk.
    pub next_chunk: u64,
}

impl Storage {
    /// Opens the spool and the dead-letter file.
    ///
    /// # Errors
    /// When one of them cannot be used, or is in use.
    pub fn open(delivery_stream: &str, options: &StorageOptions) -> Result<(Storage, AtStart), Error> {
        let mut at_start = AtStart { next_chunk: 1, ..AtStart::default() };
        let letters = options.dead_letters.as_ref().map(|(path, limit)| Letters::open(path, *limit)).transpose()?;
        let Some(SpoolOptions { folder, limit, sync }) = &options.spool else {
            return Ok((Storage { spool: None, letters }, at_start));
        };
        let (chunks, found, damaged) = Chunks::open(folder, *limit, *sync)?;
        let elsewhere = |found: &&Found| !found.delivery_stream.is_empty() && found.delivery_stream != delivery_stream;
        at_start.next_chunk = chunks.next_id();
        at_start.damaged = damaged;
        at_start.for_another_stream = found
            .iter()
            .find(elsewhere)
            .map(|first| (found.iter().filter(elsewhere).count(), first.delivery_stream.clone()));
        at_start.recovered = found
            .into_iter()
            .map(|Found { id, size, identity, .. }| Recovered {
                chunk: ChunkId(id),
                identity: Identity::from_bytes(identity),
                size: usize::try_from(size).unwrap_or(usize::MAX),
            })
            .collect();
        let spool = Spool { chunks, delivery_stream: delivery_stream.to_owned(), damaged: BTreeSet::new() };
        Ok((Storage { spool: Some(spool), letters }, at_start))
    }

    /// What releases the spool's folder and the dead-letter file although the thread hangs in the system.
    pub fn revokers(&self) -> Vec<Revoker> {
        let spool = self.spool.as_ref().map(|spool| spool.chunks.revoker());
        spool.into_iter().chain(self.letters.as_ref().map(Letters::revoker)).collect()
    }

    /// Starts the thread. It ends when all senders of tasks are gone, and then disconnects the channel that is returned.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        mut self,
        tasks: crossbeam_channel::Receiver<Task>,
        busy: Busy,
        done: impl Fn(Input) + Send + 'static,
    ) -> io::Result<crossbeam_channel::Receiver<()>> {
        let (running, ended) = crossbeam_channel::bounded(0);
        thread::Builder::new().name("kubehose-disk".to_owned()).spawn(move || {
            loop {
                let due = self.spool.as_ref().and_then(|spool| spool.chunks.sync_due());
                let task = match due {
                    None => tasks.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    Some(due) => tasks.recv_deadline(due),
                };
                busy.set(true);
                let input = match task {
                    Ok(task) => self.run(task),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                };
                let synced = self.sync(Instant::now());
                busy.set(false);
                for input in input.into_iter().chain(synced) {
                    done(input);
                }
            }
            if let Some(input) = self.sync(Instant::now() + Duration::from_secs(3600)) {
                done(input);
            }
            // The spool's folder is free before the end is signalled.
            drop(self);
            drop(running);
        })?;
        Ok(ended)
    }

    fn sync(&mut self, now: Instant) -> Option<Input> {
        let error = self.spool.as_mut()?.chunks.sync_if_due(now).err()?;
        Some(Input::SpoolFailed { error: format!("cannot sync it: {error}") })
    }

    fn run(&mut self, task: Task) -> Option<Input> {
        match task {
            Task::Store(chunk, identity, tag, bytes) => {
                let Spool { chunks, delivery_stream, .. } = self.spool.as_mut()?;
                Some(match chunks.add(chunk.0, identity.to_bytes(), delivery_stream, tag.as_bytes(), &bytes) {
                    Ok(()) => Input::Stored { chunk },
                    Err(error) => Input::NotStored { chunk, error: error.to_string() },
                })
            }
            Task::Note(chunk, events) => {
                let error = self.spool.as_mut()?.chunks.settle(chunk.0, &events).err()?;
                Some(Input::SpoolFailed { error: format!("cannot write the notes of chunk {}: {error}", chunk.0) })
            }
            Task::Load(chunk) => Some(Input::Loaded { chunk, loaded: self.spool.as_mut()?.load(chunk) }),
            Task::Remove(chunk) => {
                let error = self.spool.as_mut()?.remove(chunk).err()?;
                Some(Input::SpoolFailed { error: format!("cannot remove chunk {}: {error}", chunk.0) })
            }
            Task::DeadLetter(letter, content) => {
                let (outcome, discarded) = match &mut self.letters {
                    None => (Err("no dead_letter_file is set".to_owned()), 0),
                    Some(letters) => match letters.write(&content) {
                        Ok(written) => (Ok(()), written.discarded),
                        Err(error) => (Err(format!("dead_letter_file: {error}")), letters.discarded()),
                    },
                };
                Some(Input::Lettered { letter, outcome, discarded })
            }
        }
    }
}

impl Spool {
    fn load(&mut self, chunk: ChunkId) -> Result<Loaded, String> {
        let loaded = match self.chunks.load(chunk.0, Vec::new()) {
            Ok(loaded) => loaded,
            // Trying again cannot help: nothing of it can be sent, and the file is kept.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound) => {
                chunks::Loaded { damage: Some(error.to_string()), ..chunks::Loaded::default() }
            }
            Err(error) => return Err(error.to_string()),
        };
        let chunks::Loaded { tag, bytes, settled, disbelieved, mut damage } = loaded;
        if damage.is_some() {
            self.damaged.insert(chunk);
        } else if disbelieved > 0 {
            damage = Some(format!("{disbelieved} of its notes on delivered events are damaged"));
        }
        Ok(Loaded { tag, bytes, settled, damage })
    }

    fn remove(&mut self, chunk: ChunkId) -> io::Result<()> {
        if self.damaged.remove(&chunk) {
            return self.chunks.quarantine(chunk.0).map(|_| ());
        }
        self.chunks.remove(chunk.0)
    }
}
