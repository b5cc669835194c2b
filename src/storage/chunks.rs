//! The spool: a folder with the chunks of one output, each until it is delivered, and notes on which events are settled.
//!
//! `N.chunk` holds a chunk and `N.acked` notes on it. A chunk is written as `N.kubehose-tmp` and renamed, so that a `N.chunk` is
//! always complete; it is removed before its notes. So a process may be killed at any point: at the next start
//! every chunk that was added is there, and events without a note are sent again. [`SyncMode`] says what survives a
//! power loss. Damaged chunks are kept as `N.bad`; foreign files are left alone.

use super::chunk_file::{self, Head, Opened};
use super::{files, notes};
use crate::error::Error;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// The file that is locked while the spool is in use.
const LOCK: &str = "lock";

/// The most delivered files that are kept to be overwritten, which spares the system freeing blocks and finding new ones.
const SPARES: usize = 4;

/// The most files of notes that are kept open.
const OPEN_NOTES: usize = 16;

/// When files are synced, so that they survive a power loss and not only the end of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// When the system decides.
    None,
    /// This long after it was written, by [`Chunks::sync_if_due`].
    Interval(Duration),
    /// A chunk before [`Chunks::add`] returns; notes within a second, because a lost note only means that events are sent again.
    Always,
}

/// A chunk that an earlier process left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub id: u64,
    /// Size of its file, in bytes.
    pub size: u64,
    /// Its identity.
    pub identity: [u8; 16],
    /// The stream that it was for.
    pub delivery_stream: String,
    /// Damage that shows in its head or size. It can still be loaded; [`Chunks::load`] may find more.
    pub damage: Option<String>,
}

/// A file that no chunk can be delivered from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Where it is now: `N.bad`, or its old place if kubehose did not write it.
    pub file: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// A chunk, read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Its tag.
    pub tag: Vec<u8>,
    /// Its bytes: all of them, or those that can be read of a damaged file.
    pub bytes: Vec<u8>,
    /// Events that are settled, ascending and merged. Empty for a damaged chunk, where events may have other numbers.
    pub settled: Vec<Range<u32>>,
    /// How many entries of its notes are invalid; their events are sent again.
    pub disbelieved: u64,
    /// What is wrong with the file, if anything. Then it must be quarantined when its events are settled, not removed.
    pub damage: Option<String>,
}

/// The folder of one output. It is in use until this is dropped or revoked.
#[derive(Debug)]
pub struct Chunks {
    folder: PathBuf,
    limit: u64,
    sync: SyncMode,
    chunks: BTreeMap<u64, Chunk>,
    /// Bytes of all chunks' files.
    used: u64,
    /// Bytes of all quarantined files.
    bad: u64,
    next: u64,
    spares: Vec<(PathBuf, u64)>,
    notes: VecDeque<(u64, File)>,
    unsynced: BTreeSet<(u64, Kind)>,
    /// When they are synced.
    due: Option<Instant>,
    lock: Arc<Mutex<Option<File>>>,
}

#[derive(Debug)]
struct Chunk {
    /// Size of its file.
    size: u64,
    /// The seed of its notes' checksums.
    seed: u64,
    /// Where its next note is written; 0 while that is not known.
    notes_end: u64,
}

/// Kinds of files, by the ends of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Chunk,
    Notes,
    Temporary,
    Bad,
    BadNotes,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Chunk, Kind::Notes, Kind::Temporary, Kind::Bad, Kind::BadNotes];

    fn ending(self) -> &'static str {
        match self {
            Kind::Chunk => "chunk",
            Kind::Notes => "acked",
            Kind::Temporary => "kubehose-tmp",
            Kind::Bad => "bad",
            Kind::BadNotes => "acked.bad",
        }
    }

    /// Number and kind of a file with this name, if the name is exactly one of ours.
    fn of(name: &str) -> Option<(u64, Kind)> {
        let (number, ending) = name.split_once('.')?;
        let id = number.parse().ok().filter(|id| *id < u64::MAX / 2)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.ending() == ending)?;
        (number == format!("{id:012}")).then_some((id, kind))
    }
}

/// Releases a spool's folder, or a dead-letter file, from any thread, even while the storage thread hangs.
#[derive(Clone, Debug)]
pub struct Revoker(Arc<Mutex<Option<File>>>);

impl Revoker {
    /// For a locked file.
    pub(super) fn new(lock: File) -> Revoker {
        Revoker(Arc::new(Mutex::new(Some(lock))))
    }

    /// Whether it has been used.
    pub(super) fn is_revoked(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Releases the folder, so that it can be opened again. Every later call of its [`Chunks`] fails. A call that hangs
    /// in the system can at most rename its own file, whose number is not used again.
    pub fn revoke(&self) {
        // The mutex is never held during a system call that could hang.
        let lock = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(lock) = lock {
            // Closing is not enough: a process that is being started may have a copy of the descriptor.
            let _ = lock.unlock();
        }
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        if self.alive().is_ok() {
            for (file, _) in self.spares.drain(..) {
                // If this fails, the next start removes it.
                let _ = fs::remove_file(file);
            }
        }
        self.revoker().revoke();
    }
}

impl Chunks {
    /// Opens a folder, or creates it, for chunks of at most `limit` bytes, and returns what an earlier process
    /// left: chunks, the oldest first, and files that nothing can be delivered from, which are kept as `N.bad`.
    ///
    /// # Errors
    /// [`Error::SpoolInUse`] when another process or output uses it; [`Error::Spool`] when it cannot be written or belongs to
    /// somebody else.
    pub fn open(folder: &Path, limit: u64, sync: SyncMode) -> Result<(Chunks, Vec<Found>, Vec<Damaged>), Error> {
        let failed = |error: io::Error| Error::Spool { folder: folder.to_owned(), error };
        files::make_folder(folder).map_err(failed)?;
        let mut options = OpenOptions::new();
        let lock = files::open(&folder.join(LOCK), options.create(true).truncate(false).write(true)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::SpoolInUse { folder: folder.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut chunks = Chunks {
            folder: folder.to_owned(),
            limit,
            sync,
            chunks: BTreeMap::new(),
            used: 0,
            bad: 0,
            next: 1,
            spares: Vec::new(),
            notes: VecDeque::new(),
            unsynced: BTreeSet::new(),
            due: None,
            lock: Arc::new(Mutex::new(Some(lock))),
        };
        let (found, damaged) = chunks.read_folder().map_err(failed)?;
        Ok((chunks, found, damaged))
    }

    /// Releases the folder from any thread.
    pub fn revoker(&self) -> Revoker {
        Revoker(self.lock.clone())
    }

    fn alive(&self) -> io::Result<()> {
        match *self.lock.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(_) => Ok(()),
            None => Err(io::Error::new(io::ErrorKind::NotConnected, "the spool was closed")),
        }
    }

    fn path(&self, id: u64, kind: Kind) -> PathBuf {
        self.folder.join(format!("{id:012}.{}", kind.ending()))
    }

    fn read_folder(&mut self) -> io::Result<(Vec<Found>, Vec<Damaged>)> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.folder)? {
            names.extend(entry?.file_name().to_str().and_then(Kind::of));
        }
        // No number is used again, whatever kind of file has it.
        self.next = names.iter().map(|(id, _)| id.saturating_add(1)).max().unwrap_or(1).max(1);
        files::probe_folder(&self.folder, &self.path(self.next, Kind::Temporary))?;
        let (mut found, mut damaged) = (Vec::new(), Vec::new());
        for &(id, kind) in &names {
            let path = self.path(id, kind);
            let metadata = fs::symlink_metadata(&path).map_err(|error| files::named(&path, &error))?;
            if let Err(error) = files::regular(&path, &metadata) {
                damaged.push(Damaged { file: path, size: 0, reason: format!("{error}; it is left alone") });
                continue;
            }
            let size = metadata.len();
            match kind {
                Kind::Chunk => {}
                Kind::Bad => self.bad += size,
                Kind::BadNotes => {}
                // Either it was never acknowledged, and the host brings it again, or it was delivered.
                Kind::Temporary if begins_with(&path, chunk_file::MAGIC)? => fs::remove_file(&path)?,
                Kind::Temporary => {
                    let reason = "it has the name of a temporary file, but kubehose did not write it; it is left alone";
                    damaged.push(Damaged { file: path, size, reason: reason.to_owned() });
                }
                Kind::Notes if !begins_with(&path, notes::MAGIC)? => {
                    let file = self.set_apart(id, Kind::Notes, Kind::BadNotes)?;
                    let reason =
                        "it holds no notes of kubehose on delivered events; the chunk is sent again as a whole";
                    damaged.push(Damaged { file, size, reason: reason.to_owned() });
                }
                Kind::Notes if names.contains(&(id, Kind::Chunk)) || names.contains(&(id, Kind::Bad)) => {}
                // Its chunk was removed.
                Kind::Notes => fs::remove_file(&path)?,
            }
            if kind != Kind::Chunk {
                continue;
            }
            match self.open_chunk(id) {
                Ok(Ok((_, opened))) => {
                    self.used += size;
                    self.chunks.insert(id, Chunk { size, seed: opened.seed, notes_end: 0 });
                    let Head { identity, delivery_stream, .. } = opened.head;
                    found.push(Found { id, size, identity, delivery_stream, damage: opened.damage });
                }
                Ok(Err(reason)) => {
                    let file = self.set_apart(id, Kind::Chunk, Kind::Bad)?;
                    self.bad += size;
                    damaged.push(Damaged { file, size, reason });
                }
                // Not the file's fault: a later start may be able to read it.
                Err(error) if files::is_shortage(&error) => return Err(error),
                Err(error) => {
                    let file = self.set_apart(id, Kind::Chunk, Kind::Bad)?;
                    self.bad += size;
                    damaged.push(Damaged { file, size, reason: format!("it cannot be read: {error}") });
                }
            }
        }
        Ok((found, damaged))
    }

    fn open_chunk(&self, id: u64) -> io::Result<Result<(File, Opened), String>> {
        let path = self.path(id, Kind::Chunk);
        let file = files::open(&path, OpenOptions::new().read(true))?;
        let opened = chunk_file::read_head(&file).map_err(|error| files::named(&path, &error))?;
        Ok(opened.map(|mut opened| {
            if opened.head.id != id {
                let other = opened.head.id;
                opened.damage.get_or_insert_with(|| format!("it holds chunk {other} under another's name"));
            }
            (file, opened)
        }))
    }

    /// Renames a file to the first free name of the kind `to`.
    fn set_apart(&self, id: u64, from: Kind, to: Kind) -> io::Result<PathBuf> {
        let from = self.path(id, from);
        let mut target = self.path(id, to);
        let mut copy = 0;
        while files::exists(&target)? {
            copy += 1;
            target = self.folder.join(format!("{id:012}.{copy}.{}", to.ending()));
        }
        fs::rename(&from, &target).map_err(|error| files::named(&from, &error))?;
        Ok(target)
    }

    /// Number of the next chunk: greater than that of any file in the folder.
    pub fn next_id(&self) -> u64 {
        self.next
    }

    /// Bytes of all chunks' files.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Writes a chunk. `id` must be [`Chunks::next_id`] or greater.
    ///
    /// # Errors
    /// What the system says, or [`io::ErrorKind::StorageFull`] when the spool's own limit is reached. Then nothing remains on
    /// disk.
    pub fn add(
        &mut self,
        id: u64,
        identity: [u8; 16],
        delivery_stream: &str,
        tag: &[u8],
        bytes: &[u8],
    ) -> io::Result<()> {
        self.alive()?;
        if id < self.next {
            let text = format!("chunk {id} has the number of an earlier one; the next is {}", self.next);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let head = Head {
            id,
            size: bytes.len() as u64,
            sum: xxh3_64(bytes),
            identity,
            salt: fastrand::u64(..),
            tag: tag.to_vec(),
            delivery_stream: delivery_stream.to_owned(),
        }
        .encode()?;
        let trailer = chunk_file::trailer(&head);
        let size = (head.len() + bytes.len() + trailer.len()) as u64;
        self.make_room(size)?;
        self.next = id.saturating_add(1);
        let (temporary, had) = match self.spares.pop() {
            Some(spare) => spare,
            None => (self.path(id, Kind::Temporary), 0),
        };
        let file = open_temporary(&temporary, had > 0)?;
        let cut = had > size;
        if let Err(error) = self.write(id, &temporary, file, cut, [&head, bytes, &trailer]) {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        self.used += size;
        self.chunks.insert(id, Chunk { size, seed: chunk_file::seed(&head), notes_end: 0 });
        if self.sync != SyncMode::Always {
            self.written(id, Kind::Chunk);
        }
        Ok(())
    }

    fn write(&self, id: u64, temporary: &Path, mut file: File, cut: bool, parts: [&[u8]; 3]) -> io::Result<()> {
        let written = (|| {
            for part in parts {
                file.write_all(part)?;
            }
            if cut {
                file.set_len(parts.iter().map(|part| part.len() as u64).sum())?;
            }
            if self.sync == SyncMode::Always {
                file.sync_data()?;
            }
            Ok(())
        })();
        written.map_err(|error| files::named(temporary, &error))?;
        self.alive()?;
        let target = self.path(id, Kind::Chunk);
        if files::exists(&target)? {
            let text = format!("{} is there already and was not made by this output", target.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        fs::rename(temporary, &target).map_err(|error| files::named(&target, &error))?;
        if self.sync == SyncMode::Always
            && let Err(error) = files::sync_folder(&self.folder)
        {
            // It may not survive a power loss, so the host keeps it, and we must not deliver it too.
            let _ = fs::rename(&target, temporary);
            return Err(error);
        }
        Ok(())
    }

    /// Makes room for `size` more bytes. If necessary, files that are kept to be overwritten are deleted.
    fn make_room(&mut self, size: u64) -> io::Result<()> {
        let mut bytes = self.used.saturating_add(self.bad).saturating_add(size);
        if bytes > self.limit && self.bad > 0 {
            // Somebody may have removed some.
            self.bad = self.bad_bytes()?;
            bytes = self.used.saturating_add(self.bad).saturating_add(size);
        }
        while bytes.saturating_add(self.spares.iter().map(|(_, size)| size).sum()) > self.limit
            && let Some((file, _)) = self.spares.pop()
        {
            fs::remove_file(&file).map_err(|error| files::named(&file, &error))?;
        }
        if bytes <= self.limit {
            return Ok(());
        }
        let mut text = format!("spool_limit ({} bytes) is reached", self.limit);
        if self.bad > 0 {
            text += &format!("; {} bytes of it are damaged chunks, *.bad, which may be moved elsewhere", self.bad);
        }
        Err(io::Error::new(io::ErrorKind::StorageFull, text))
    }

    fn bad_bytes(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_str().and_then(Kind::of).is_some_and(|(_, kind)| kind == Kind::Bad) {
                bytes += entry.metadata().map_or(0, |metadata| metadata.len());
            }
        }
        Ok(bytes)
    }

    fn chunk(&mut self, id: u64) -> io::Result<&mut Chunk> {
        self.alive()?;
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("the spool has no chunk {id}"));
        self.chunks.get_mut(&id).ok_or_else(missing)
    }

    /// Notes that these events are settled.
    ///
    /// # Errors
    /// What the system says; then they may be sent again after a restart.
    pub fn settle(&mut self, id: u64, events: &[Range<u32>]) -> io::Result<()> {
        let Chunk { seed, notes_end, .. } = *self.chunk(id)?;
        let mut entries = Vec::new();
        if notes_end == 0 {
            entries.extend_from_slice(notes::MAGIC);
        }
        notes::encode(seed, events, &mut entries);
        if entries.len() < notes::ENTRY * if notes_end == 0 { 2 } else { 1 } {
            return Ok(());
        }
        let path = self.path(id, Kind::Notes);
        let file = match self.notes.iter().position(|(open, _)| *open == id) {
            Some(place) => &self.notes[place].1,
            None => {
                let mut options = OpenOptions::new();
                let file = files::open(&path, options.read(true).write(true).create(true).truncate(false))?;
                if self.notes.len() >= OPEN_NOTES {
                    self.notes.pop_front();
                }
                self.notes.push_back((id, file));
                &self.notes[self.notes.len() - 1].1
            }
        };
        let (bytes, at) = if notes_end == 0 {
            // An entry that was cut off is overwritten.
            let whole = file.metadata()?.len() / notes::ENTRY as u64 * notes::ENTRY as u64;
            if whole > 0 && !begins_with(&path, notes::MAGIC)? {
                let text = format!("{} was not written by kubehose; move it away", path.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            (if whole == 0 { &entries[..] } else { &entries[notes::ENTRY..] }, whole)
        } else {
            (&entries[..], notes_end)
        };
        // After an error the next note overwrites this place.
        file.write_all_at(bytes, at).map_err(|error| files::named(&path, &error))?;
        self.chunk(id)?.notes_end = at + bytes.len() as u64;
        self.written(id, Kind::Notes);
        Ok(())
    }

    /// Reads a chunk and its notes back, the chunk into the memory of `buffer`. A damaged file is not an error: the readable
    /// part is returned.
    ///
    /// # Errors
    /// What the system says, and [`io::ErrorKind::InvalidData`] when the head was damaged since the folder was opened. The
    /// file stays; if it can never be read, quarantine it.
    pub fn load(&mut self, id: u64, mut buffer: Vec<u8>) -> io::Result<Loaded> {
        let seed = self.chunk(id)?.seed;
        let path = self.path(id, Kind::Chunk);
        let (file, opened) = match self.open_chunk(id)? {
            Ok((file, opened)) if opened.seed == seed => (file, opened),
            Ok(_) => {
                let text = format!("{} is not the file that was there before", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            Err(reason) => {
                let text = format!("{}: {reason}", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        };
        let body = chunk_file::read_body(&file, &opened, &mut buffer).map_err(|error| files::named(&path, &error))?;
        let mut loaded = Loaded { tag: opened.head.tag, bytes: buffer, ..Loaded::default() };
        if body.is_none() {
            // The events of unreadable notes are sent again.
            let notes = files::open(&self.path(id, Kind::Notes), OpenOptions::new().read(true));
            let notes = notes.and_then(|file| notes::read(file, opened.seed, opened.head.size));
            match notes {
                Ok((settled, disbelieved)) => (loaded.settled, loaded.disbelieved) = (settled, disbelieved),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => loaded.disbelieved = 1,
            }
        }
        loaded.damage = body.or(opened.damage);
        Ok(loaded)
    }

    /// Removes a chunk whose events are all settled.
    ///
    /// # Errors
    /// What the system says; then it is sent again after a restart, except for events with a note.
    pub fn remove(&mut self, id: u64) -> io::Result<()> {
        let size = self.chunk(id)?.size;
        let path = self.path(id, Kind::Chunk);
        let temporary = self.path(id, Kind::Temporary);
        files::regular(&path, &fs::symlink_metadata(&path).map_err(|error| files::named(&path, &error))?)?;
        // A file is overwritten only if it need not survive a power loss: after one it could have its old name again.
        if self.sync == SyncMode::None && self.spares.len() < SPARES && !files::exists(&temporary)? {
            fs::rename(&path, &temporary).map_err(|error| files::named(&path, &error))?;
            self.spares.push((temporary, size));
        } else {
            fs::remove_file(&path).map_err(|error| files::named(&path, &error))?;
        }
        self.forget(id);
        let notes = self.path(id, Kind::Notes);
        match fs::symlink_metadata(&notes) {
            Ok(found) if found.is_file() && begins_with(&notes, notes::MAGIC)? => fs::remove_file(&notes),
            _ => Ok(()),
        }
    }

    /// Keeps a damaged chunk's file as `N.bad`, and its notes as `N.acked.bad`. Returns the new name.
    ///
    /// # Errors
    /// What the system says; then it is found again after a restart.
    pub fn quarantine(&mut self, id: u64) -> io::Result<PathBuf> {
        let size = self.chunk(id)?.size;
        let target = self.set_apart(id, Kind::Chunk, Kind::Bad)?;
        self.forget(id);
        self.bad += size;
        if files::exists(&self.path(id, Kind::Notes))? {
            self.set_apart(id, Kind::Notes, Kind::BadNotes)?;
        }
        Ok(target)
    }

    fn forget(&mut self, id: u64) {
        if let Some(chunk) = self.chunks.remove(&id) {
            self.used -= chunk.size;
        }
        self.notes.retain(|(open, _)| *open != id);
        self.unsynced.retain(|(unsynced, _)| *unsynced != id);
    }

    /// Remembers that this file must be synced.
    fn written(&mut self, id: u64, kind: Kind) {
        let after = match self.sync {
            SyncMode::None => return,
            SyncMode::Interval(after) => after,
            SyncMode::Always => Duration::from_secs(1),
        };
        self.unsynced.insert((id, kind));
        self.due.get_or_insert_with(|| Instant::now() + after);
    }

    /// When [`Chunks::sync_if_due`] next has something to do.
    pub fn sync_due(&self) -> Option<Instant> {
        self.due
    }

    /// Syncs what was written, files before the folder, if it is time.
    ///
    /// # Errors
    /// What the system says, once: it may have dropped what it could not write, so trying again would not show it. The
    /// data survives the process, but may not survive a power loss.
    pub fn sync_if_due(&mut self, now: Instant) -> io::Result<()> {
        if self.due.is_none_or(|due| now < due) {
            return Ok(());
        }
        self.sync_now()
    }

    /// Syncs what was written, whether or not it is time: at the exit.
    ///
    /// # Errors
    /// As [`Chunks::sync_if_due`].
    pub fn sync_now(&mut self) -> io::Result<()> {
        self.alive()?;
        self.due = None;
        let unsynced = std::mem::take(&mut self.unsynced);
        if unsynced.is_empty() {
            return Ok(());
        }
        let mut outcome = Ok(());
        for (id, kind) in unsynced {
            let path = self.path(id, kind);
            let synced = files::open(&path, OpenOptions::new().read(true)).and_then(|file| file.sync_data());
            if let Err(error) = synced {
                outcome = Err(files::named(&path, &error));
            }
        }
        files::sync_folder(&self.folder)?;
        outcome
    }
}

/// Opens a file to write a chunk to: a new one, or one that is overwritten.
fn open_temporary(path: &Path, over: bool) -> io::Result<File> {
    if over {
        let file = files::open(path, OpenOptions::new().write(true))?;
        if file.metadata()?.nlink() == 1 {
            return Ok(file);
        }
        // Somebody has a hard link to it, whose content must not change.
        fs::remove_file(path)?;
    }
    files::open(path, OpenOptions::new().write(true).create_new(true))
}

/// Whether a file begins with `magic`, or is shorter and fits so far because the process ended while writing.
fn begins_with(path: &Path, magic: &[u8]) -> io::Result<bool> {
    let mut begin = Vec::new();
    let file = files::open(path, OpenOptions::new().read(true));
    match file.and_then(|file| file.take(magic.len() as u64).read_to_end(&mut begin)) {
        Ok(_) => Ok(magic.starts_with(&begin)),
        Err(error) if files::is_shortage(&error) => Err(error),
        // A file that cannot be read may not be ours.
        Err(_) => Ok(false),
    }
}
