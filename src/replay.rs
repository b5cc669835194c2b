//! Records that were put aside, sent again: batched and delivered as the plugin does it, without a host.

use crate::delivery::batch::{Batch, Batcher, Opening};
use crate::delivery::ledger::{DeliveryId, Identity, Ledger};
use crate::delivery::{ChunkOf, Command, CourierParts};
use crate::error::Error;
use crate::host::Log;
use crate::metrics::{Counts, Snapshot};
use crate::options::Config;
use crate::output;
use crate::storage::dead_letters::Aside;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// How long one waits between two looks at the counts.
const LOOK: Duration = Duration::from_millis(20);

/// A sender of finished records to one stream.
pub struct Sender {
    ledger: Arc<Ledger>,
    counts: Arc<Counts>,
    commands: UnboundedSender<Command>,
    courier: std::thread::JoinHandle<()>,
    delivery: DeliveryId,
    max_buffer: u64,
    shutdown_timeout: Duration,
}

impl Sender {
    /// Starts sending to the stream of `config`. What cannot be delivered goes to its `dead_letter_file`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(config: Config, log: Arc<Log>) -> Result<Sender, Error> {
        let counts = Arc::new(Counts::default());
        let ledger = Arc::new(Ledger::new(counts.clone()));
        let opening = Arc::new(Opening::new(&config.firehose.delivery_stream));
        let letters = config.delivery.dead_letter_file.as_deref().map(|file| (file, config.delivery.dead_letter_limit));
        let aside = Arc::new(Aside::new(&config.firehose.delivery_stream, letters, counts.clone(), log.clone()));
        let (commands, orders) = tokio::sync::mpsc::unbounded_channel();
        let (max_buffer, shutdown_timeout) = (config.delivery.max_buffer as u64, config.delivery.shutdown_timeout);
        let parts = CourierParts {
            config,
            opening,
            ledger: ledger.clone(),
            aside,
            log,
            spool: None,
            left: VecDeque::new(),
            commands: orders,
            metrics: None,
        };
        let courier = output::start_courier(parts).map_err(Error::Thread)?;
        let delivery = ledger.begin(Identity::of(b"", b""));
        Ok(Sender { ledger, counts, commands, courier, delivery, max_buffer, shutdown_timeout })
    }

    /// Sends records of one tag, each with its bytes; `each` is called now and then with what has become of them.
    pub fn send(&self, opening: &Opening, tag: &str, records: impl Iterator<Item = Vec<u8>>, each: impl Fn(&Counts)) {
        let tag: Arc<str> = tag.into();
        let mut batcher = Batcher::new(opening);
        for record in records {
            if let Some(full) = batcher.push(&record, 0..1, Vec::new) {
                self.hand_over(&tag, full, &each);
            }
        }
        if let Some(last) = batcher.finish() {
            self.hand_over(&tag, last, &each);
        }
    }

    fn hand_over(&self, tag: &Arc<str>, batch: Batch, each: &impl Fn(&Counts)) {
        while self.counts.held.get() > self.max_buffer {
            each(&self.counts);
            std::thread::sleep(LOOK);
        }
        self.ledger.add(self.delivery, batch.places().len() as u64);
        self.counts.held.add(batch.held() as u64);
        let chunk = ChunkOf { delivery: self.delivery, tag: tag.clone(), spooled: None };
        // Should the courier be gone, the records are counted as not accepted.
        let _ = self.commands.send(Command::Send(chunk, batch));
    }

    /// Waits until all is settled, or nothing has been accepted for `shutdown_timeout`; then puts aside what is left.
    pub fn finish(self, each: impl Fn(&Counts)) -> Snapshot {
        let (mut accepted, mut since) = (0, Instant::now());
        while self.counts.held.get() > 0 && since.elapsed() < self.shutdown_timeout {
            each(&self.counts);
            if self.counts.records_accepted.get() > accepted {
                (accepted, since) = (self.counts.records_accepted.get(), Instant::now());
            }
            std::thread::sleep(LOOK);
        }
        let _ = self.commands.send(Command::End);
        if let Err(panic) = self.courier.join() {
            std::mem::forget(panic);
        }
        each(&self.counts);
        self.counts.snapshot()
    }
}
