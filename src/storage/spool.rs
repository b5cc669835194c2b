//! Chunks on disk until they are delivered, and what of them was.
//!
//! In the folder, `N.chunk` holds a chunk as the host handed it over, and `N.taken` which of its events have been settled
//! since. A chunk's file is written under another name first, so what bears its own name is whole; it is removed before
//! its notes are. So a process may be killed at any point: at the next start every chunk that was acknowledged is there,
//! and of each only what no reply had settled goes out. A file survives the process, not the machine's power: nothing
//! is synced, as the host's own storage does it by default.

use crate::delivery::Identity;
use crate::error::Error;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The first bytes of a chunk's file; the digit is the format's version.
const MAGIC: &[u8; 8] = b"kubehos1";

/// Magic, length of the tag (u32), length of the chunk (u64), [`Identity`] of the chunk; little-endian.
const HEADER: usize = 8 + 4 + 8 + 16;

/// The file that is locked for as long as the spool is in use.
const LOCK: &str = "lock";

/// A folder of chunks that belongs to one output of one process.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    /// Bytes of all chunks' files at most.
    limit: u64,
    used: Arc<Used>,
    _lock: File,
}

/// What a spool's chunks and the files that wait to be used again take.
#[derive(Debug, Default)]
struct Used {
    /// Bytes of all chunks' files.
    bytes: AtomicU64,
    /// Files of chunks that are delivered, with their sizes. To write over one costs a third of what it costs to have the
    /// system free its pages and blocks and look for new ones.
    files: Mutex<Vec<(PathBuf, u64)>>,
}

/// How many files wait to be used again at most.
const FILES: usize = 4;

/// One chunk in the spool.
#[derive(Debug)]
pub struct Spooled {
    folder: PathBuf,
    number: u64,
    /// Size of its file, in bytes.
    size: u64,
    used: Arc<Used>,
    taken: Mutex<Option<File>>,
}

/// A chunk, read back.
#[derive(Debug)]
pub struct Chunk {
    /// Its tag.
    pub tag: Vec<u8>,
    /// Its bytes: all of them, or what is left of a torn file.
    pub bytes: Vec<u8>,
    /// Events that had been settled before, in ascending order.
    pub taken: Vec<Range<u32>>,
    /// What is wrong with the file, if anything is.
    pub torn: Option<String>,
}

impl Spool {
    /// Opens a folder, which is made if it is not there, and gives the chunks that an earlier process left, the oldest
    /// first.
    ///
    /// # Errors
    /// [`Error::Spool`] when another process (or output) uses the folder, or it cannot be written.
    pub fn open(folder: &Path, limit: u64) -> Result<(Spool, Vec<Spooled>), Error> {
        let failed = |error: io::Error| Error::Spool { folder: folder.to_owned(), error };
        fs::create_dir_all(folder).map_err(failed)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::SpoolInUse { folder: folder.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let used = Arc::new(Used::default());
        let mut left = Vec::new();
        let mut orphans = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            match name.to_str().and_then(|name| name.split_once('.')) {
                Some((number, "chunk")) => {
                    let Ok(number) = number.parse() else { continue };
                    let size = entry.metadata().map_err(failed)?.len();
                    used.bytes.fetch_add(size, Ordering::Relaxed);
                    left.push(Spooled::new(folder, number, size, used.clone()));
                }
                // It was never acknowledged, and the host brings it again; or it was delivered.
                Some((_, "part")) => fs::remove_file(entry.path()).map_err(failed)?,
                Some((number, "taken")) => orphans.extend(number.parse::<u64>()),
                _ => {}
            }
        }
        left.sort_by_key(|spooled| spooled.number);
        for number in orphans {
            if left.binary_search_by_key(&number, |spooled| spooled.number).is_err() {
                fs::remove_file(path(folder, number, "taken")).map_err(failed)?;
            }
        }
        Ok((Spool { folder: folder.to_owned(), limit, used, _lock: lock }, left))
    }

    /// Writes a chunk.
    ///
    /// # Errors
    /// What the system says, or [`io::ErrorKind::StorageFull`] when the spool's own limit is reached. Nothing is left
    /// behind then.
    pub fn add(&self, number: u64, identity: Identity, tag: &[u8], bytes: &[u8]) -> io::Result<Spooled> {
        let size = (HEADER + tag.len() + bytes.len()) as u64;
        let before = self.used.bytes.fetch_add(size, Ordering::Relaxed);
        let written = self.room(before + size).and_then(|()| self.write(number, identity, tag, bytes));
        if let Err(error) = written {
            self.used.bytes.fetch_sub(size, Ordering::Relaxed);
            return Err(error);
        }
        Ok(Spooled::new(&self.folder, number, size, self.used.clone()))
    }

    /// Whether chunks may take so many bytes. If need be, files that wait to be used again make way.
    fn room(&self, bytes: u64) -> io::Result<()> {
        let mut files = self.used.files();
        while bytes + files.iter().map(|(_, size)| size).sum::<u64>() > self.limit
            && let Some((file, _)) = files.pop()
        {
            fs::remove_file(file)?;
        }
        if bytes > self.limit {
            let text = format!("spool_limit ({} bytes) is reached", self.limit);
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        Ok(())
    }

    fn write(&self, number: u64, identity: Identity, tag: &[u8], bytes: &[u8]) -> io::Result<()> {
        let used = self.used.files().pop();
        let (part, had) = used.unwrap_or_else(|| (path(&self.folder, number, "part"), 0));
        let mut head = Vec::with_capacity(HEADER + tag.len());
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&(tag.len() as u32).to_le_bytes());
        head.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        head.extend_from_slice(&identity.to_bytes());
        head.extend_from_slice(tag);
        let written = OpenOptions::new().create(true).truncate(false).write(true).open(&part).and_then(|mut file| {
            file.write_all(&head)?;
            file.write_all(bytes)?;
            let size = (head.len() + bytes.len()) as u64;
            if had > size { file.set_len(size) } else { Ok(()) }
        });
        let written = written.and_then(|()| fs::rename(&part, path(&self.folder, number, "chunk")));
        if written.is_err() {
            let _ = fs::remove_file(&part);
        }
        written
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.bytes.load(Ordering::Relaxed)
    }
}

impl Used {
    fn files(&self) -> MutexGuard<'_, Vec<(PathBuf, u64)>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        for (file, _) in self.files().drain(..) {
            // Otherwise the next start removes it.
            let _ = fs::remove_file(file);
        }
    }
}

impl Spooled {
    fn new(folder: &Path, number: u64, size: u64, used: Arc<Used>) -> Spooled {
        Spooled { folder: folder.to_owned(), number, size, used, taken: Mutex::default() }
    }

    fn path(&self, kind: &str) -> PathBuf {
        path(&self.folder, self.number, kind)
    }

    /// Its file's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Size of its file, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its file, for messages.
    pub fn file(&self) -> PathBuf {
        self.path("chunk")
    }

    /// The chunk's identity as its file's head tells it; none of a file that is torn there, or cannot be read.
    pub fn identity(&self) -> Option<Identity> {
        let mut head = [0; HEADER];
        File::open(self.path("chunk")).and_then(|mut file| file.read_exact(&mut head)).ok()?;
        let identity = head.last_chunk().copied().map(Identity::from_bytes);
        identity.filter(|_| head.starts_with(MAGIC))
    }

    /// Reads the chunk and its notes back, the chunk into the memory of `buffer`.
    ///
    /// # Errors
    /// What the system says. A torn file is none: what of it is left comes back.
    pub fn read(&self, buffer: Vec<u8>) -> io::Result<Chunk> {
        let mut chunk = read_chunk(&mut File::open(self.path("chunk"))?, self.size, buffer)?;
        let notes = match fs::read(self.path("taken")) {
            Ok(notes) => notes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        // A note that was cut off by the process's end is none.
        for note in notes.as_chunks::<8>().0 {
            let [a, b, c, d, e, f, g, h] = *note;
            chunk.taken.push(u32::from_le_bytes([a, b, c, d])..u32::from_le_bytes([e, f, g, h]));
        }
        chunk.taken.sort_by_key(|range| range.start);
        Ok(chunk)
    }

    /// Notes that these events are settled.
    ///
    /// # Errors
    /// What the system says; then they go out again after a restart.
    pub fn note(&self, events: &[Range<u32>]) -> io::Result<()> {
        let mut notes = Vec::with_capacity(16);
        let mut ranges = events.iter().cloned();
        let Some(mut current) = ranges.next() else {
            return Ok(());
        };
        for range in ranges {
            if range.start == current.end {
                current.end = range.end;
            } else {
                write_note(&mut notes, &current);
                current = range;
            }
        }
        write_note(&mut notes, &current);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match &mut *taken {
            Some(file) => file,
            None => taken.insert(OpenOptions::new().create(true).append(true).open(self.path("taken"))?),
        };
        file.write_all(&notes)
    }

    /// All of it is settled: removes it.
    ///
    /// # Errors
    /// What the system says; then it goes out again after a restart, but for what is noted.
    pub fn remove(&self) -> io::Result<()> {
        let mut files = self.used.files();
        if files.len() < FILES {
            // Not a chunk any more, should the process end here.
            let part = self.path("part");
            fs::rename(self.path("chunk"), &part)?;
            files.push((part, self.size));
        } else {
            fs::remove_file(self.path("chunk"))?;
        }
        drop(files);
        self.used.bytes.fetch_sub(self.size, Ordering::Relaxed);
        if self.taken.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() || self.path("taken").exists() {
            fs::remove_file(self.path("taken"))?;
        }
        Ok(())
    }
}

fn path(folder: &Path, number: u64, kind: &str) -> PathBuf {
    folder.join(format!("{number:012}.{kind}"))
}

fn write_note(notes: &mut Vec<u8>, range: &Range<u32>) {
    notes.extend_from_slice(&range.start.to_le_bytes());
    notes.extend_from_slice(&range.end.to_le_bytes());
}

/// Reads a chunk's file of so many bytes; of a torn one, whatever is left.
fn read_chunk(file: &mut impl Read, size: u64, mut buffer: Vec<u8>) -> io::Result<Chunk> {
    buffer.clear();
    let chunk = |torn: Option<String>, tag, bytes| Chunk { tag, bytes, taken: Vec::new(), torn };
    let torn = |text: &str, tag, bytes| Ok(chunk(Some(text.to_owned()), tag, bytes));
    let mut head = Vec::with_capacity(HEADER);
    file.take(HEADER as u64).read_to_end(&mut head)?;
    let Some((magic, rest)) = head.split_first_chunk::<8>() else {
        return torn("it ends within its header", Vec::new(), Vec::new());
    };
    if magic != MAGIC {
        return torn("it is no chunk of kubehose's", Vec::new(), Vec::new());
    }
    let numbers = rest.split_first_chunk::<4>().and_then(|(tag, rest)| {
        let (bytes, rest) = rest.split_first_chunk::<8>()?;
        let identity = Identity::from_bytes(*rest.first_chunk()?);
        Some((u64::from(u32::from_le_bytes(*tag)), u64::from_le_bytes(*bytes), identity))
    });
    let Some((tag_size, bytes, identity)) = numbers else {
        return torn("it ends within its header", Vec::new(), Vec::new());
    };
    buffer.reserve_exact(usize::try_from(bytes.min(size)).unwrap_or(0));
    let mut tag = Vec::new();
    file.take(tag_size).read_to_end(&mut tag)?;
    if (tag.len() as u64) < tag_size {
        return torn("it ends within its tag", Vec::new(), Vec::new());
    }
    file.read_to_end(&mut buffer)?;
    if buffer.len() as u64 == bytes && Identity::of(&tag, &buffer) == identity {
        return Ok(chunk(None, tag, buffer));
    }
    let text = format!("{} of {bytes} bytes are there, or some have changed", buffer.len());
    torn(&text, tag, buffer)
}
