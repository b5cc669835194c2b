//! The dead-letter file: records that could not be delivered, one JSON line each, within a limit.

use super::chunks::Revoker;
use super::files;
use crate::error::Error;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// How many older files are kept besides the current one: `FILE.1` … `FILE.4`.
pub const OLDER: usize = 4;

/// What every line begins with: [`DeadLetter`]'s first field.
const BEGIN: &[u8] = b"{\"time\":\"";

/// One record that could not be delivered: one line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// When it was dead-lettered, RFC 3339, UTC.
    pub time: String,
    /// The tag of its chunk.
    pub tag: String,
    /// The stream that the record was for.
    pub delivery_stream: String,
    /// Why.
    pub reason: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The record, where it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The record in base64, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
}

impl DeadLetter {
    /// A record that is dead-lettered now.
    pub fn new(tag: &str, delivery_stream: &str, reason: &str, record: Vec<u8>) -> DeadLetter {
        let bytes = record.len() as u64;
        let (data, data_base64) = match String::from_utf8(record) {
            Ok(text) => (Some(text), None),
            Err(binary) => (None, Some(base64_simd::STANDARD.encode_to_string(binary.as_bytes()))),
        };
        DeadLetter {
            time: Timestamp::now().to_string(),
            tag: tag.to_owned(),
            delivery_stream: delivery_stream.to_owned(),
            reason: reason.to_owned(),
            bytes,
            data,
            data_base64,
        }
    }

    /// The record's bytes; `None` if the line holds none that can be read.
    pub fn record(&self) -> Option<Vec<u8>> {
        match (&self.data, &self.data_base64) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(base64)) => base64_simd::STANDARD.decode_to_vec(base64).ok(),
            (None, None) => None,
        }
    }
}

/// The outcome of writing one letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// How many letters were in files that were deleted to stay within the limit. They are lost.
    pub discarded: u64,
}

/// The dead-letter file of one output, `FILE`, and the older ones. `FILE.lock` is locked while it is in use.
#[derive(Debug)]
pub struct Letters {
    path: PathBuf,
    /// The most bytes of all files together.
    limit: u64,
    /// With its device and inode.
    file: Option<(File, (u64, u64))>,
    /// Deleted letters that were not yet reported.
    discarded: u64,
    lock: Revoker,
}

impl Letters {
    /// Opens the file, or creates it; all files together hold at most `limit` bytes.
    ///
    /// # Errors
    /// [`Error::DeadLettersInUse`] when another process or output uses it; [`Error::DeadLetters`] when the file or its folder cannot be
    /// written, or one of the files is not a regular file or holds something else.
    pub fn open(path: &Path, limit: u64) -> Result<Letters, Error> {
        let failed = |error: io::Error| Error::DeadLetters { file: path.to_owned(), error };
        let mut options = OpenOptions::new();
        let lock = ending(path, "lock");
        let lock = files::open(&lock, options.create(true).truncate(false).write(true)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::DeadLettersInUse { file: path.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut letters = Letters { path: path.to_owned(), limit, file: None, discarded: 0, lock: Revoker::new(lock) };
        // Rotation needs a writable folder, which an existing lock does not prove.
        let probe = ending(path, "kubehose-tmp");
        if fs::symlink_metadata(&probe).is_ok_and(|found| found.is_file() && found.len() == 0) {
            // Left by a process that ended between the two calls below.
            fs::remove_file(&probe).map_err(failed)?;
        }
        let probed = files::open(&probe, OpenOptions::new().write(true).create_new(true));
        probed.and_then(|_| fs::remove_file(&probe)).map_err(failed)?;
        for number in 0..=OLDER {
            check_ours(&letters.older(number)).map_err(failed)?;
        }
        let size = letters.open_file().map_err(failed)?;
        // The limit may have been lowered.
        letters.make_room(size.max(letters.each())).map_err(failed)?;
        Ok(letters)
    }

    /// Appends one letter. A partly written one is cut off again, so that a full disk leaves no torn line.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::FileTooLarge`] for a line longer than the limit. The letter is then lost. The
    /// next call opens the file again.
    pub fn write(&mut self, letter: &DeadLetter) -> io::Result<Written> {
        if self.lock.is_revoked() {
            return Err(io::Error::other("the output has ended"));
        }
        let mut line = serde_json::to_vec(letter)?;
        line.push(b'\n');
        let length = line.len() as u64;
        if length > self.limit {
            let text = format!("a line of {length} bytes is longer than dead_letter_limit ({} bytes)", self.limit);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        let mut size = self.open_file()?;
        if size.saturating_add(length) > self.each() {
            if size > 0 {
                self.rotate()?;
            }
            self.make_room(length.max(self.each()))?;
            size = self.open_file()?;
        }
        let Some((file, _)) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err(error) = file.write_all(&line) {
            // If this fails too, the torn line is ended before the next one.
            let _ = file.set_len(size);
            self.file = None;
            return Err(files::named(&self.path, &error));
        }
        Ok(Written { discarded: self.discarded() })
    }

    /// Releases the file even if a call hangs in the system.
    pub fn revoker(&self) -> Revoker {
        self.lock.clone()
    }

    /// Deleted letters that no [`Written`] has reported: after an error, and at the end.
    pub fn discarded(&mut self) -> u64 {
        std::mem::take(&mut self.discarded)
    }

    /// Opens the file, unless it is open and still has its name; returns its size.
    fn open_file(&mut self) -> io::Result<u64> {
        // One system call for each letter: at the exit there may be many, and little time.
        match fs::symlink_metadata(&self.path) {
            Ok(found) if self.file.as_ref().is_some_and(|(_, known)| *known == (found.dev(), found.ino())) => {
                return Ok(found.len());
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(files::named(&self.path, &error)),
            _ => self.file = None,
        }
        check_ours(&self.path)?;
        let mut file = files::open(&self.path, OpenOptions::new().read(true).append(true).create(true))?;
        let mut last = [b'\n'];
        if let Some(end) = file.metadata()?.len().checked_sub(1) {
            file.read_exact_at(&mut last, end)?;
        }
        if last != [b'\n'] {
            // A line that an earlier process did not finish.
            file.write_all(b"\n")?;
        }
        let found = file.metadata()?;
        self.file = Some((file, (found.dev(), found.ino())));
        Ok(found.len())
    }

    /// Size at which the file is rotated, in bytes.
    fn each(&self) -> u64 {
        self.limit / (OLDER as u64 + 1)
    }

    /// Renames all files to the next number, up to the first number that is free.
    fn rotate(&mut self) -> io::Result<()> {
        let mut free = None;
        for number in 1..=OLDER {
            if !files::exists(&self.older(number))? {
                free = Some(number);
                break;
            }
        }
        let free = match free {
            Some(number) => number,
            None => {
                self.discard(OLDER)?;
                OLDER
            }
        };
        self.file = None;
        for number in (0..free).rev() {
            let from = self.older(number);
            fs::rename(&from, self.older(number + 1)).map_err(|error| files::named(&from, &error))?;
        }
        Ok(())
    }

    /// Deletes the oldest files until the others and `bytes` more stay within the limit.
    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        let size =
            |path: &Path| fs::symlink_metadata(path).map_or(0, |found| if found.is_file() { found.len() } else { 0 });
        let mut sizes: Vec<u64> = (1..=OLDER).map(|number| size(&self.older(number))).collect();
        while sizes.iter().fold(bytes, |sum, size| sum.saturating_add(*size)) > self.limit && !sizes.is_empty() {
            if files::exists(&self.older(sizes.len()))? {
                self.discard(sizes.len())?;
            }
            sizes.pop();
        }
        Ok(())
    }

    /// Counts the letters of an older file, and deletes it.
    fn discard(&mut self, number: usize) -> io::Result<()> {
        let path = self.older(number);
        check_ours(&path)?;
        let letters = count_lines(files::open(&path, OpenOptions::new().read(true))?)?;
        fs::remove_file(&path).map_err(|error| files::named(&path, &error))?;
        self.discarded += letters;
        Ok(())
    }

    /// The file with this number; 0 is the current one.
    fn older(&self, number: usize) -> PathBuf {
        if number == 0 { self.path.clone() } else { ending(&self.path, &number.to_string()) }
    }
}

impl Drop for Letters {
    fn drop(&mut self) {
        // Closing is not enough: a process that is just being started may have a copy of the descriptor.
        self.lock.revoke();
    }
}

fn ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// An error unless this is a file of dead letters, empty, or missing. Zeros at the beginning, which a file may have
/// after a power loss, are skipped.
fn check_ours(path: &Path) -> io::Result<()> {
    if !files::exists(path)? {
        return Ok(());
    }
    let mut begin = Vec::new();
    files::open(path, OpenOptions::new().read(true))?.take(4096).read_to_end(&mut begin)?;
    let zeros = begin.iter().take_while(|byte| **byte == 0).count();
    let begin = begin.get(zeros..).unwrap_or_default();
    if begin.starts_with(BEGIN) || BEGIN.starts_with(begin) {
        return Ok(());
    }
    let text =
        format!("{} holds something other than dead letters; move it away, or name another file", path.display());
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

/// Counts lines; the last one need not end with a newline.
fn count_lines(mut file: File) -> io::Result<u64> {
    let (mut lines, mut last) = (0, b'\n');
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok(lines + u64::from(last != b'\n'));
        };
        lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        last = bytes.last().copied().unwrap_or(last);
    }
}
