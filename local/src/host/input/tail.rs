//! `[INPUT] Name tail`: the lines of files, as they are written.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use glob::Pattern;

use super::{Input, Progress};
use crate::host::chunk::Chunks;
use crate::host::configuration::{Error, Section};
use crate::host::event::{Time, Value};
use crate::host::log::log;
use crate::host::parser::{CriJoin, Parser};

/// How often the paths are searched again.
const REFRESH: Duration = Duration::from_millis(500);
/// Bytes read from a file at a time.
const READ_BYTES: usize = 256 * 1024;

pub(super) struct Tail {
    name: Arc<str>,
    tag: String,
    paths: Vec<String>,
    exclude: Vec<Pattern>,
    key: Vec<u8>,
    path_key: Option<Vec<u8>>,
    parser: Option<Parser>,
    join_cri: bool,
    exit_on_eof: bool,
    files: HashMap<PathBuf, Followed>,
    /// Whether new files are read from their beginning: always, except for those found at the start without
    /// `Read_from_Head`.
    from_head: bool,
    refreshed: Option<Instant>,
    buffer: Vec<u8>,
}

struct Followed {
    file: File,
    inode: u64,
    offset: u64,
    tag: String,
    /// The beginning of a line that is not complete yet.
    rest: Vec<u8>,
    join: CriJoin,
}

impl Tail {
    pub fn from_section(section: &Section, name: Arc<str>, parser: Option<Parser>) -> Result<Self, Error> {
        section.only(&[
            "name",
            "alias",
            "tag",
            "path",
            "exclude_path",
            "key",
            "path_key",
            "parser",
            "multiline.parser",
            "read_from_head",
            "exit_on_eof",
            // Tuning options of the real host, without effect here.
            "refresh_interval",
            "mem_buf_limit",
            "skip_long_lines",
            "buffer_chunk_size",
            "buffer_max_size",
            "rotate_wait",
            "inotify_watcher",
            "db",
        ])?;
        let list = |name: &str| -> Vec<String> {
            section.get(name).unwrap_or_default().split(',').map(|part| part.trim().to_owned()).collect()
        };
        if section.get("path").is_none() {
            return Err(section.error("tail needs a Path".to_owned()));
        }
        let exclude: Result<Vec<Pattern>, Error> = list("exclude_path")
            .iter()
            .filter(|text| !text.is_empty())
            .map(|text| Pattern::new(text).map_err(|error| section.error(format!("Exclude_Path {text:?}: {error}"))))
            .collect();
        let join_cri = match section.get("multiline.parser") {
            None => false,
            Some("cri") => true,
            Some(other) => {
                return Err(section.error(format!("multiline.parser {other:?}: the stand-in knows cri only")));
            }
        };
        Ok(Tail {
            tag: section.get("tag").unwrap_or(&name).to_owned(),
            name,
            paths: list("path"),
            exclude: exclude?,
            key: section.get("key").unwrap_or("log").into(),
            path_key: section.get("path_key").map(Into::into),
            parser,
            join_cri,
            exit_on_eof: section.switch("exit_on_eof", false)?,
            files: HashMap::new(),
            from_head: section.switch("read_from_head", false)?,
            refreshed: None,
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Looks for new files, including replaced ones.
    fn refresh(&mut self) {
        for path in self.paths.iter().filter_map(|pattern| glob::glob(pattern).ok()).flatten().flatten() {
            if self.exclude.iter().any(|pattern| pattern.matches_path(&path)) {
                continue;
            }
            let Ok(metadata) = std::fs::metadata(&path) else {
                continue;
            };
            if !metadata.is_file() || self.files.get(&path).is_some_and(|file| file.inode == metadata.ino()) {
                continue;
            }
            let rotated = self.files.contains_key(&path);
            match File::open(&path) {
                Ok(mut file) => {
                    let from = if self.from_head || rotated { SeekFrom::Start(0) } else { SeekFrom::End(0) };
                    let offset = file.seek(from).unwrap_or_default();
                    let tag = expand_tag(&self.tag, &path);
                    log!(Debug, "[input:tail:{}] {} is read from {offset} on, as {tag}", self.name, path.display());
                    let (rest, join) = (Vec::new(), CriJoin::default());
                    self.files.insert(path, Followed { file, inode: metadata.ino(), offset, tag, rest, join });
                }
                Err(error) => log!(Error, "[input:tail:{}] cannot open {}: {error}", self.name, path.display()),
            }
        }
        self.from_head = true;
        self.refreshed = Some(Instant::now());
    }
}

/// Replaces a tag's `*` by the path, with dots instead of slashes.
fn expand_tag(tag: &str, path: &Path) -> String {
    let path = path.to_string_lossy().replace('/', ".");
    tag.replacen('*', path.trim_start_matches('.'), 1)
}

impl Input for Tail {
    fn collect(&mut self, chunks: &mut Chunks) -> Progress {
        if self.refreshed.is_none_or(|refreshed| refreshed.elapsed() >= REFRESH) {
            self.refresh();
        }
        let mut progress = if self.exit_on_eof { Progress::Done } else { Progress::Idle };
        let Tail { files, buffer, key, path_key, parser, join_cri, name, .. } = self;
        for (path, followed) in files {
            // A file that has become shorter was truncated, and is read from its beginning again.
            if followed.file.metadata().is_ok_and(|metadata| metadata.len() < followed.offset) {
                followed.offset = followed.file.seek(SeekFrom::Start(0)).unwrap_or_default();
                followed.rest.clear();
            }
            let Ok(read @ 1..) = followed.file.read(buffer) else {
                continue;
            };
            progress = Progress::More;
            followed.offset += read as u64;
            let mut event = |tag: &str, join: &mut CriJoin, line: &[u8]| {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                let raw = || (None, vec![(key.clone(), Value::Text(line.to_vec()))]);
                let (time, mut body) = match (&parser, *join_cri) {
                    (_, true) => match join.line(line) {
                        Some((time, body)) => (Some(time), body),
                        None => return,
                    },
                    (Some(parser), false) => parser.parse(line).unwrap_or_else(raw),
                    (None, false) => raw(),
                };
                if let Some(key) = path_key {
                    body.insert(0, (key.clone(), Value::Text(path.as_os_str().as_encoded_bytes().to_vec())));
                }
                chunks.push(name, tag, time.unwrap_or_else(Time::now), &body);
            };
            let mut bytes = &buffer[..read];
            while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                if followed.rest.is_empty() {
                    event(&followed.tag, &mut followed.join, &bytes[..end]);
                } else {
                    followed.rest.extend_from_slice(&bytes[..end]);
                    event(&followed.tag, &mut followed.join, &followed.rest);
                    followed.rest.clear();
                }
                bytes = &bytes[end + 1..];
            }
            followed.rest.extend_from_slice(bytes);
        }
        progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_replaces_the_star() {
        let path = Path::new("/var/log/containers/p_n_c-1.log");
        assert_eq!(expand_tag("kube.*", path), "kube.var.log.containers.p_n_c-1.log");
        assert_eq!(expand_tag("fixed", path), "fixed");
    }
}
