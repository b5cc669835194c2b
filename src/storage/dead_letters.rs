//! Records that are put aside: counted, logged, and written to the dead-letter file if there is one.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// How many older files are kept beside the one that is written: `FILE.1` … `FILE.4`.
pub const OLDER: usize = 4;

/// One record that was put aside: one line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// When it was put aside, RFC 3339, UTC.
    pub time: String,
    /// The tag of its chunk.
    pub tag: String,
    /// The stream that it was for.
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
    /// A record that is put aside now.
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

    /// The record's bytes; none if the line holds none that can be read.
    pub fn record(&self) -> Option<Vec<u8>> {
        match (&self.data, &self.data_base64) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(base64)) => base64_simd::STANDARD.decode_to_vec(base64).ok(),
            (None, None) => None,
        }
    }
}

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
