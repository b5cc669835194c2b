//! The encoder's thread: chunks that were handed over are joined, admitted and encoded, and late flushes are answered.
//!
//! It is the only one that reads the host's memory, and it drops what it read before the flush can be answered.

use crate::batch::{Batch, Batcher, Opening};
use crate::chunk::Chunk;
use crate::config::{Acknowledge, Config};
use crate::dead_letter::Aside;
use crate::delivery::Command;
use crate::host::{FlushData, Level, Log, Status};
use crate::ledger::{DeliveryId, Flush, Identity, Ledger};
use crate::record::{RecordEncoder, Unfit};
use crate::remap::TagFields;
use crossbeam_channel::{Receiver, select};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// A chunk, handed over by a flush. The fields' order matters: the data is dropped before the flush is answered.
pub struct HandOver {
    /// The host's memory.
    pub data: FlushData,
    /// Who waits.
    pub flush: Flush,
}

/// How much larger a chunk is expected to be once it is encoded: JSON is about 1.2 times its msgpack, base64 4/3 of it.
const GROWTH: usize = 2;

/// How long the thread sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// What the encoder's thread works with.
pub struct Encoder {
    /// The output's options.
    pub config: Config,
    /// How bodies begin.
    pub opening: Arc<Opening>,
    /// What is owed to the host.
    pub ledger: Arc<Ledger>,
    /// Where records are put aside.
    pub aside: Arc<Aside>,
    /// The output's log.
    pub log: Arc<Log>,
    /// Chunks from the flushes. When all of them are gone, the thread ends.
    pub hand_overs: Receiver<HandOver>,
    /// Tells that memory was given back.
    pub released: Receiver<()>,
    /// Used buffers.
    pub buffers: Receiver<Vec<u8>>,
    /// To the courier.
    pub commands: UnboundedSender<Command>,
}

impl Encoder {
    /// Works until the output ends, then tells the courier to drain.
    pub fn run(self) {
        let mut parked: VecDeque<(Identity, HandOver)> = VecDeque::new();
        loop {
            let now = Instant::now();
            let expiry = self.ledger.expire(now);
            let parked_expiry = parked.iter().map(|(_, hand_over)| hand_over.flush.deadline).min();
            let next = [expiry, parked_expiry].into_iter().flatten().min();
            let wait = next.map_or(IDLE, |next| next.saturating_duration_since(now));
            select! {
                recv(self.hand_overs) -> hand_over => match hand_over {
                    Ok(hand_over) => self.take(hand_over, &mut parked),
                    Err(_) => break,
                },
                recv(self.released) -> _ => {}
                default(wait) => {}
            }
            self.admit(&mut parked);
        }
        let deadline = Instant::now() + self.config.delivery.shutdown_timeout;
        // The courier is gone only if it has panicked.
        let _ = self.commands.send(Command::Drain(deadline));
    }

    /// The chunk's earlier delivery goes on, if there is one; otherwise it waits for its turn.
    fn take(&self, hand_over: HandOver, parked: &mut VecDeque<(Identity, HandOver)>) {
        let identity = Identity::of(hand_over.data.tag(), hand_over.data.bytes());
        match self.ledger.detached(identity) {
            Some(delivery) => {
                let HandOver { data, flush } = hand_over;
                data.release();
                self.ledger.attach(delivery, flush);
            }
            None => parked.push_back((identity, hand_over)),
        }
    }

    /// Encodes what fits into the memory that is left, in order; refuses what has waited for too long.
    fn admit(&self, parked: &mut VecDeque<(Identity, HandOver)>) {
        while let Some((_, next)) = parked.front() {
            let held = self.ledger.counts().held.get() as usize;
            if held > 0 && held + next.data.bytes().len() * GROWTH > self.config.delivery.max_buffer {
                break;
            }
            if let Some((identity, hand_over)) = parked.pop_front() {
                self.start(identity, hand_over);
            }
        }
        let now = Instant::now();
        for _ in 0..parked.len() {
            let Some((identity, hand_over)) = parked.pop_front() else {
                break;
            };
            if hand_over.flush.deadline > now {
                parked.push_back((identity, hand_over));
                continue;
            }
            let HandOver { data, flush } = hand_over;
            data.release();
            flush.answer(Status::Retry);
            let refused = &self.ledger.counts().chunks_refused;
            refused.add(1);
            if refused.get().is_power_of_two() {
                let line = format!(
                    "max_buffer ({} bytes) is full: {} chunks were given back to the host with RETRY so far",
                    self.config.delivery.max_buffer,
                    refused.get()
                );
                self.log.line(Level::Warn, &line);
            }
        }
    }

    /// Encodes a chunk and sends its batches on their way.
    fn start(&self, identity: Identity, hand_over: HandOver) {
        let HandOver { data, flush } = hand_over;
        let delivery = self.ledger.begin(identity);
        let encoded = catch_unwind(AssertUnwindSafe(|| self.encode(delivery, data.tag(), data.bytes())));
        data.release();
        if let Err(panic) = encoded {
            // Dropping what a panic carries may panic once more.
            std::mem::forget(panic);
            self.log.line(
                Level::Error,
                "a defect in kubehose: a chunk could not be encoded to its end; please report it",
            );
        }
        match self.config.delivery.acknowledge {
            Acknowledge::Taken => {
                flush.answer(Status::Ok);
                self.ledger.seal_acknowledged(delivery);
            }
            Acknowledge::Delivered => self.ledger.seal(delivery, flush),
        }
    }

    fn encode(&self, delivery: DeliveryId, tag_bytes: &[u8], bytes: &[u8]) {
        let counts = self.ledger.counts();
        let tag: Arc<str> = String::from_utf8_lossy(tag_bytes).into();
        let fields = self
            .config
            .record
            .remap
            .wants_tag()
            .then(|| TagFields::parse(tag_bytes))
            .flatten();
        let mut records = RecordEncoder::new(&self.config.record);
        let mut batcher = Batcher::new(&self.opening);
        let mut record = Vec::new();
        let mut chunk = Chunk::new(bytes);
        while let Some(event) = chunk.next_event() {
            match records.encode(&event, fields.as_ref(), &mut record) {
                Ok(()) => {
                    let place = event.index..event.index + 1;
                    if let Some(full) = batcher.push(&record, place, || self.buffers.try_recv().ok()) {
                        self.send(delivery, &tag, full);
                    }
                }
                Err(Unfit::TooLarge { bytes }) => {
                    let reason = format!("it has {bytes} bytes, Firehose takes {}", crate::record::MAX_RECORD);
                    self.aside.record(&tag, &reason, std::mem::take(&mut record));
                }
            }
        }
        if let Some(last) = batcher.finish() {
            self.send(delivery, &tag, last);
        }
        counts.events.add(chunk.events().into());
        if chunk.undecodable() > 0 {
            counts.undecodable.add(chunk.undecodable());
            let line = format!(
                "chunk of {} bytes with tag {tag}: {} parts of it are no event",
                bytes.len(),
                chunk.undecodable()
            );
            self.log.line(Level::Warn, &line);
        }
    }

    fn send(&self, delivery: DeliveryId, tag: &Arc<str>, batch: Batch) {
        let records = batch.places().len() as u64;
        self.ledger.add(delivery, records);
        self.ledger.counts().held.add(batch.held() as u64);
        // If the courier is gone, the records stay unsettled, and the host keeps the chunk.
        let _ = self.commands.send(Command::Send {
            delivery,
            tag: tag.clone(),
            batch,
        });
    }
}
