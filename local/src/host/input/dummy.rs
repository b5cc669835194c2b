//! `[INPUT] Name dummy`: repeats the same event.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Input, Progress};
use crate::host::chunk::Chunks;
use crate::host::configuration::{Error, Section};
use crate::host::event::{Body, Time, Value};

pub(super) struct Dummy {
    name: Arc<str>,
    tag: String,
    body: Body,
    /// How many more events to send, if limited.
    samples: Option<u64>,
    interval: Duration,
    next: Instant,
}

impl Dummy {
    pub fn from_section(section: &Section, name: Arc<str>) -> Result<Self, Error> {
        section.only(&["name", "alias", "tag", "dummy", "samples", "rate"])?;
        let text = section.get("dummy").unwrap_or(r#"{"message":"dummy"}"#);
        let body = match serde_json::from_str(text) {
            Ok(Value::Map(body)) => body,
            Ok(_) => return Err(section.error(format!("Dummy {text:?} is no JSON object"))),
            Err(error) => return Err(section.error(format!("Dummy {text:?} is no JSON: {error}"))),
        };
        let samples = section.number("samples", 0)?;
        let rate: u32 = section.number("rate", 1)?;
        if rate == 0 {
            return Err(section.error("Rate 0 gives no events; use 1 or more a second".to_owned()));
        }
        let tag = section.get("tag").unwrap_or(&name).to_owned();
        let samples = (samples > 0).then_some(samples);
        Ok(Dummy { name, tag, body, samples, interval: Duration::from_secs(1) / rate, next: Instant::now() })
    }
}

impl Input for Dummy {
    fn collect(&mut self, chunks: &mut Chunks) -> Progress {
        let now = Instant::now();
        while self.next <= now && self.samples != Some(0) {
            chunks.push(&self.name, &self.tag, Time::now(), &self.body);
            self.next += self.interval;
            self.samples = self.samples.map(|left| left - 1);
        }
        Progress::Idle
    }
}
