//! Records that are put aside: counted, logged, and written to the dead-letter file if there is one.

pub use super::letters::DeadLetter;
use crate::host::{Level, Log};
use crate::metrics::Counts;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many older files are kept beside the one that is written: `FILE.1` … `FILE.4`.
pub const OLDER: usize = 4;

/// The file of one output.
pub struct DeadLetters {
    path: PathBuf,
    /// Size at which the file is rotated, in bytes.
    each: u64,
    file: Option<File>,
    size: u64,
}

impl DeadLetters {
    /// Opens nothing yet; all files together take at most `limit` bytes.
    pub fn new(path: &Path, limit: u64) -> DeadLetters {
        DeadLetters { path: path.to_owned(), each: limit / (OLDER as u64 + 1), file: None, size: 0 }
    }

    /// Appends one line. A line that was not written whole is taken back, so that a full disk leaves no torn one.
    ///
    /// # Errors
    /// What the system says; the next call tries from the beginning.
    pub fn write(&mut self, letter: &DeadLetter) -> io::Result<()> {
        let mut line = serde_json::to_vec(letter)?;
        line.push(b'\n');
        if self.size > 0 && self.size + line.len() as u64 > self.each {
            self.rotate()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
                self.size = file.metadata()?.len();
                self.file.insert(file)
            }
        };
        if let Err(error) = file.write_all(&line) {
            // If this fails too, a reader skips the torn line.
            let _ = file.set_len(self.size);
            self.file = None;
            return Err(error);
        }
        self.size += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        self.size = 0;
        for number in (1..OLDER).rev() {
            let from = self.older(number);
            if from.exists() {
                std::fs::rename(from, self.older(number + 1))?;
            }
        }
        std::fs::rename(&self.path, self.older(1))
    }

    fn older(&self, number: usize) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        name.into()
    }
}

/// Where the records of one output are put aside.
pub struct Aside {
    delivery_stream: String,
    letters: Option<Mutex<DeadLetters>>,
    counts: Arc<Counts>,
    log: Arc<Log>,
    logged: Mutex<Option<Instant>>,
}

impl Aside {
    /// Without a file, records are counted and lost.
    pub fn new(delivery_stream: &str, file: Option<(&Path, u64)>, counts: Arc<Counts>, log: Arc<Log>) -> Aside {
        let letters = file.map(|(path, limit)| Mutex::new(DeadLetters::new(path, limit)));
        Aside { delivery_stream: delivery_stream.to_owned(), letters, counts, log, logged: Mutex::default() }
    }

    /// Puts one record aside.
    pub fn record(&self, tag: &str, reason: &str, record: Vec<u8>) {
        self.counts.records_put_aside.add(1);
        let bytes = record.len();
        let outcome = match &self.letters {
            None => "it is lost: no dead_letter_file is set".to_owned(),
            Some(letters) => {
                let letter = DeadLetter::new(tag, &self.delivery_stream, reason, record);
                let mut letters = letters.lock().unwrap_or_else(PoisonError::into_inner);
                match letters.write(&letter) {
                    Ok(()) => "it is in the dead_letter_file".to_owned(),
                    Err(error) => format!("it is lost: dead_letter_file {}: {error}", letters.path.display()),
                }
            }
        };
        let lost = outcome.starts_with("it is lost");
        if lost {
            self.counts.records_dropped.add(1);
        }
        // The counts tell how many; the log, that there are any, and why.
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|last| last.elapsed() >= Duration::from_secs(10)) {
            *logged = Some(Instant::now());
            let level = if lost { Level::Error } else { Level::Warn };
            let put_aside = self.counts.records_put_aside.get();
            let line =
                format!("record of {bytes} bytes with tag {tag} put aside: {reason}; {outcome} ({put_aside} so far)");
            self.log.line(level, &line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead");
        let mut letters = DeadLetters::new(&path, 1 << 20);
        let records = [b"{\"a\":1}\n".to_vec(), vec![0xff, 0x00]];
        for record in &records {
            letters.write(&DeadLetter::new("kube.x", "logs", "refused", record.clone())).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let read: Vec<DeadLetter> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read.iter().map(|letter| letter.record().unwrap()).collect::<Vec<_>>(), records);
        assert_eq!((read[0].tag.as_str(), read[1].bytes), ("kube.x", 2));
    }

    #[test]
    fn files_are_rotated_and_stay_within_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead");
        let limit = 10_000;
        let mut letters = DeadLetters::new(&path, limit);
        for _ in 0..200 {
            letters.write(&DeadLetter::new("t", "s", "r", vec![b'x'; 100])).unwrap();
        }
        let sizes: Vec<u64> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes.len(), OLDER + 1);
        assert!(sizes.iter().sum::<u64>() <= limit);
        assert!(folder.path().join("dead.4").exists());
    }

    #[test]
    fn a_full_disk_is_an_error_and_leaves_no_torn_line() {
        // Writing to /dev/full fails as a full disk does.
        let mut letters = DeadLetters::new(Path::new("/dev/full"), 1 << 20);
        let letter = DeadLetter::new("t", "s", "r", b"x".to_vec());
        assert!(letters.write(&letter).is_err());
        assert!(letters.write(&letter).is_err());
    }
}
