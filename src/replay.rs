//! Dead letters, sent again: batched and delivered as the plugin does it, without a host.

use crate::delivery::Input;
use crate::error::Error;
use crate::host::Log;
use crate::metrics::{Counts, Snapshot};
use crate::options::Config;
use crate::output::{Driver, Event};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one waits between two looks at the counts.
const LOOK: Duration = Duration::from_millis(20);

/// How long the end may take once nothing more is waited for.
const END: Duration = Duration::from_secs(10);

/// How many bytes of records are sent on at a time.
const PORTION: usize = 256 * 1024;

/// A sender of finished records to one stream.
pub struct Sender {
    driver: Driver,
    shutdown_timeout: Duration,
    sent: u64,
}

impl Sender {
    /// Starts sending to the stream of `config`. What cannot be delivered goes to its `dead_letter_file`.
    ///
    /// # Errors
    /// When the system refuses a thread or a socket, or TLS cannot be set up.
    pub fn start(config: Config, log: Arc<Log>) -> Result<Sender, Error> {
        let shutdown_timeout = config.delivery.shutdown_timeout;
        Ok(Sender { driver: Driver::start(config, log, None)?, shutdown_timeout, sent: 0 })
    }

    /// Sends records of one tag, each with its bytes; `each` is called now and then with what has become of them.
    pub fn send(&mut self, tag: &str, records: impl Iterator<Item = Vec<u8>>, each: impl Fn(&Counts)) {
        let tag: Arc<str> = tag.into();
        let (mut portion, mut size) = (Vec::new(), 0);
        for record in records {
            size += record.len();
            portion.push(record);
            if size >= PORTION {
                self.hand_on(&tag, std::mem::take(&mut portion), &each);
                size = 0;
            }
        }
        if !portion.is_empty() {
            self.hand_on(&tag, portion, &each);
        }
    }

    fn hand_on(&mut self, tag: &Arc<str>, records: Vec<Vec<u8>>, each: &impl Fn(&Counts)) {
        while !self.driver.has_ended() && !self.driver.room.fits(2 * PORTION) {
            each(&self.driver.counts);
            std::thread::sleep(LOOK);
        }
        self.sent += records.len() as u64;
        // Should its thread be gone, the records are counted as not accepted.
        self.driver.tell(Event::Input(Input::Records { tag: tag.clone(), records }));
    }

    /// Waits until all is settled, or nothing has been accepted for `shutdown_timeout`; then gives up what remains.
    pub fn finish(self, each: impl Fn(&Counts)) -> Snapshot {
        let counts = &self.driver.counts;
        let settled = || counts.records_accepted.get() + counts.records_dead_lettered.get();
        let (mut before, mut since) = (settled(), Instant::now());
        while settled() < self.sent && since.elapsed() < self.shutdown_timeout && !self.driver.has_ended() {
            each(counts);
            if settled() > before {
                (before, since) = (settled(), Instant::now());
            }
            std::thread::sleep(LOOK);
        }
        self.driver.end(Event::Input(Input::GiveUp), Instant::now() + END);
        each(counts);
        counts.snapshot()
    }
}
