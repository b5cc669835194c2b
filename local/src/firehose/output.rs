//! Where accepted records go: memory, a file as the service writes its objects, or nowhere.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::options::Keep;
use super::request::Records;

/// A record that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedRecord {
    /// The stream it was sent to.
    pub stream: Arc<str>,
    /// Its bytes, before base64.
    pub data: Bytes,
}

/// The accepted records that are kept, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Output {
    keep: Keep,
    file: Option<File>,
    pub records: Vec<AcceptedRecord>,
    pub hashes: Vec<u64>,
    /// A buffer for the bytes to write, where they differ from the request's.
    lines: Vec<u8>,
}

/// Whether the server needs the hash of each record.
pub(super) fn needs_hashes(keep: Keep, count_unique: bool) -> bool {
    count_unique || keep == Keep::Hashes
}

impl Output {
    /// Opens `path` for appending.
    pub fn open(keep: Keep, path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(|path| File::options().create(true).append(true).open(path)).transpose()?;
        Ok(Output { keep, file, ..Output::default() })
    }

    /// Stores the accepted ones of `records`, with their hashes where those are needed.
    pub fn take(&mut self, records: &mut Records, accepted: impl Fn(usize) -> bool, hashes: &[u64]) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            let as_they_are = (0..records.spans.len()).all(&accepted) && records.iter().all(ends_as_written);
            if as_they_are {
                file.write_all(&records.bytes)?;
            } else {
                self.lines.clear();
                for (_, record) in records.iter().enumerate().filter(|(at, _)| accepted(*at)) {
                    self.lines.extend_from_slice(record);
                    if !ends_as_written(record) {
                        self.lines.push(b'\n');
                    }
                }
                file.write_all(&self.lines)?;
            }
        }
        match self.keep {
            Keep::Nothing => {}
            Keep::Hashes => {
                self.hashes.extend(hashes.iter().enumerate().filter(|(at, _)| accepted(*at)).map(|(_, hash)| *hash));
            }
            Keep::Records => {
                let stream: Arc<str> = records.stream.as_str().into();
                let bytes = Bytes::from(std::mem::take(&mut records.bytes));
                let accepted_spans = records.spans.iter().enumerate().filter(|(at, _)| accepted(*at));
                self.records.extend(
                    accepted_spans.map(|(_, span)| AcceptedRecord {
                        stream: Arc::clone(&stream),
                        data: bytes.slice(span.clone()),
                    }),
                );
            }
        }
        Ok(())
    }
}

/// Whether a record is written unchanged: it ends with a newline, or is compressed, so that a newline would corrupt
/// it.
fn ends_as_written(record: &[u8]) -> bool {
    record.ends_with(b"\n") || compression(record).is_some()
}

/// The compression of a record, by its first bytes.
pub(super) fn compression(record: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 3] =
        [(&[0x1f, 0x8b], "gzip"), (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"), (b"\xff\x06\x00\x00sNaPpY", "snappy")];
    MAGIC.iter().find(|(magic, _)| record.starts_with(magic)).map(|(_, name)| *name)
}
