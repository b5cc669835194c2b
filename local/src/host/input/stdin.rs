//! `[INPUT] Name stdin`: one JSON object per line, or lines for its parser.

use std::io::BufRead;
use std::sync::Arc;

use crossbeam_channel::{Receiver, TryRecvError, bounded};

use super::{Input, Progress};
use crate::host::chunk::Chunks;
use crate::host::configuration::{Error, Section};
use crate::host::event::{Time, Value};
use crate::host::log::log;
use crate::host::parser::Parser;

pub(super) struct Stdin {
    name: Arc<str>,
    tag: String,
    parser: Option<Parser>,
    lines: Receiver<Vec<u8>>,
}

impl Stdin {
    pub fn from_section(section: &Section, name: Arc<str>, parser: Option<Parser>) -> Result<Self, Error> {
        section.only(&["name", "alias", "tag", "parser", "buffer_size"])?;
        // Reading blocks, so it has its own thread; the bound makes a fast writer wait.
        let (sender, lines) = bounded(10_000);
        let reader = std::thread::Builder::new().name("flb-in-stdin".to_owned()).spawn(move || {
            for line in std::io::stdin().lock().split(b'\n').map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        reader.map_err(|error| section.error(format!("cannot start the reader of stdin: {error}")))?;
        let tag = section.get("tag").unwrap_or(&name).to_owned();
        Ok(Stdin { name, tag, parser, lines })
    }

    fn line(&self, line: &[u8], chunks: &mut Chunks) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let event = match &self.parser {
            Some(parser) => parser.parse(line),
            None => match serde_json::from_slice(line) {
                Ok(Value::Map(body)) => Some((None, body)),
                _ => None,
            },
        };
        match event {
            Some((time, body)) => chunks.push(&self.name, &self.tag, time.unwrap_or_else(Time::now), &body),
            None => log!(Error, "[input:stdin:{}] invalid record found, skipping", self.name),
        }
    }
}

impl Input for Stdin {
    fn collect(&mut self, chunks: &mut Chunks) -> Progress {
        for _ in 0..1000 {
            match self.lines.try_recv() {
                Ok(line) => self.line(&line, chunks),
                Err(TryRecvError::Empty) => return Progress::Idle,
                Err(TryRecvError::Disconnected) => {
                    log!(Warn, "[input:stdin:{}] end of file (stdin closed by remote end)", self.name);
                    return Progress::Done;
                }
            }
        }
        Progress::More
    }
}
