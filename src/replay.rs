//! Sends dead letters again: batched and delivered as by the plugin, without a host.

use crate::delivery::Input;
use crate::error::Error;
use crate::host::Log;
use crate::metrics::{Counts, Snapshot};
use crate::options::Config;
use crate::output::{Driver, Event};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the counts are checked.
const LOOK: Duration = Duration::from_millis(20);

/// How long the end may take once no more replies are awaited.
const END: Duration = Duration::from_secs(10);

/// How many bytes of records go to the core at a time.
const PORTION: usize = 256 * 1024;

/// A sender of finished records to one stream.
pub struct Sender {
    driver: Driver,
    shutdown_timeout: Duration,
    sent: u64,
    progress: Progress,
    stopped: Option<Stopped>,
}

/// Why sending ended before all was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The delivery thread is dead, or no longer answers: a defect.
    Dead,
    /// Nothing was accepted for this time, and no more fits into memory.
    Stalled(Duration),
}

impl fmt::Display for Stopped {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stopped::Dead => out.write_str("the delivery thread has failed; please report it"),
            Stopped::Stalled(time) => write!(out, "nothing was accepted for {time:?}"),
        }
    }
}

/// The outcome of all records.
#[derive(Debug)]
pub struct End {
    /// The counts.
    pub counts: Snapshot,
    /// Why some records may be neither accepted nor dead-lettered, if so.
    pub stopped: Option<Stopped>,
}

/// How many records were settled, and when that last changed.
struct Progress {
    settled: u64,
    since: Instant,
}

impl Progress {
    /// Reads the counts; returns how long nothing has been settled.
    fn look(&mut self, counts: &Counts) -> Duration {
        let settled = settled(counts);
        if settled > self.settled {
            *self = Progress { settled, since: Instant::now() };
        }
        self.since.elapsed()
    }
}

fn settled(counts: &Counts) -> u64 {
    counts.records_accepted.get() + counts.records_dead_lettered.get()
}

impl Sender {
    /// Starts sending to the stream of `config`. Records that cannot be delivered go to its `dead_letter_file`.
    ///
    /// # Errors
    /// When the system refuses a thread or a socket, or TLS cannot be set up.
    pub fn start(config: Config, log: Arc<Log>) -> Result<Sender, Error> {
        let shutdown_timeout = config.delivery.shutdown_timeout;
        Ok(Sender::of(Driver::start(config, log, None)?, shutdown_timeout))
    }

    fn of(driver: Driver, shutdown_timeout: Duration) -> Sender {
        let progress = Progress { settled: 0, since: Instant::now() };
        Sender { driver, shutdown_timeout, sent: 0, progress, stopped: None }
    }

    /// Sends records of one tag; `each` is called now and then with the counts. Once nothing has been accepted for
    /// `shutdown_timeout` it stops, and [`Sender::finish`] says so.
    pub fn send(&mut self, tag: &str, records: impl Iterator<Item = Vec<u8>>, each: impl Fn(&Counts)) {
        let tag: Arc<str> = tag.into();
        let (mut portion, mut size) = (Vec::new(), 0);
        for record in records {
            if self.stopped.is_some() {
                return;
            }
            size += record.len();
            portion.push(record);
            if size >= PORTION {
                self.pass(&tag, std::mem::take(&mut portion), &each);
                size = 0;
            }
        }
        if !portion.is_empty() && self.stopped.is_none() {
            self.pass(&tag, portion, &each);
        }
    }

    fn pass(&mut self, tag: &Arc<str>, records: Vec<Vec<u8>>, each: &impl Fn(&Counts)) {
        // The time starts when we begin to wait.
        self.progress.since = Instant::now();
        while !self.driver.room.fits(2 * PORTION) && !self.driver.has_ended() {
            each(&self.driver.counts);
            if self.progress.look(&self.driver.counts) >= self.shutdown_timeout {
                self.stopped = Some(Stopped::Stalled(self.shutdown_timeout));
                return;
            }
            std::thread::sleep(LOOK);
        }
        let count = records.len() as u64;
        match self.driver.tell(Event::Input(Input::Records { tag: tag.clone(), records })) {
            true => self.sent += count,
            false => self.stopped = Some(Stopped::Dead),
        }
    }

    /// Waits until all records are settled, or nothing has been accepted for `shutdown_timeout`; then gives up the rest.
    pub fn finish(mut self, each: impl Fn(&Counts)) -> End {
        let counts = self.driver.counts.clone();
        self.progress.since = Instant::now();
        while self.stopped.is_none() && settled(&counts) < self.sent && !self.driver.has_ended() {
            each(&counts);
            if self.progress.look(&counts) >= self.shutdown_timeout {
                break;
            }
            std::thread::sleep(LOOK);
        }
        let early = self.driver.has_ended();
        let ended = self.driver.end(Event::Input(Input::GiveUp), Instant::now() + END);
        each(&counts);
        if early && settled(&counts) < self.sent || !ended {
            self.stopped = Some(Stopped::Dead);
        }
        End { counts: counts.snapshot(), stopped: self.stopped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 MB in records of one byte more each time.
    fn records() -> impl Iterator<Item = Vec<u8>> {
        (0..1400).map(|n| vec![b'x'; n])
    }

    #[test]
    fn sending_ends_with_an_error_wherever_its_thread_dies() {
        // After so many portions, while more are sent or, without room, waited with.
        for portions in 0..4 {
            for full in [false, true] {
                let (driver, mut inbox, running) = Driver::without_thread(8 << 20);
                let portions = if full { 0 } else { portions };
                if full {
                    driver.room.add(8 << 20);
                }
                let counts = driver.counts.clone();
                let thread = std::thread::spawn(move || {
                    for _ in 0..portions {
                        std::thread::sleep(LOOK);
                        if let Some(Event::Input(Input::Records { records, .. })) = inbox.blocking_recv() {
                            counts.records_accepted.add(records.len() as u64);
                        }
                    }
                    drop((inbox, running));
                });
                let mut sender = Sender::of(driver, Duration::from_secs(600));
                sender.send("tag", records(), |_| {});
                let end = sender.finish(|_| {});
                assert_eq!(end.stopped, Some(Stopped::Dead), "{portions} {full}");
                thread.join().unwrap();
            }
        }
    }

    #[test]
    fn sending_ends_with_an_error_when_nothing_is_accepted_any_more() {
        let (driver, _inbox, running) = Driver::without_thread(8 << 20);
        driver.room.add(8 << 20);
        let time = Duration::from_millis(200);
        let (mut sender, start) = (Sender::of(driver, time), Instant::now());
        sender.send("tag", records(), |_| {});
        assert_eq!((sender.stopped, sender.sent), (Some(Stopped::Stalled(time)), 0));
        drop(running);
        assert_eq!(sender.finish(|_| {}).stopped, Some(Stopped::Stalled(time)));
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_thread_that_does_not_end_is_left_behind_with_an_error() {
        let (driver, _inbox, _running) = Driver::without_thread(8 << 20);
        let mut sender = Sender::of(driver, Duration::from_millis(200));
        sender.send("tag", records(), |_| {});
        assert_eq!(sender.finish(|_| {}).stopped, Some(Stopped::Dead));
    }
}
