//! Chunks that were handed over are joined, admitted and encoded, and late flushes are answered.
//!
//! It alone reads the host's memory, and drops what it read before the flush can be answered.

use crate::delivery::batch::{Batcher, Opening};
use crate::delivery::ledger::{DeliveryId, Flush, Identity, Ledger};
use crate::delivery::{ChunkOf, Job, Owner};
use crate::event::chunk::{Chunk, Time};
use crate::host::{self, FlushData, Level, Log, Status};
use crate::options::{Acknowledge, Config};
use crate::record::pack::Packer;
use crate::record::{MAX_RECORD, Next, Origin, RecordWriter};
use crate::storage::dead_letters::Aside;
use crate::storage::spool::{Spool, Spooled};
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// A chunk, handed over by a flush. The fields' order matters: the data is dropped before the flush is answered.
pub struct HandOver {
    /// The host's memory.
    pub data: FlushData,
    /// Since when.
    pub since: Instant,
    /// Who waits.
    pub flush: Flush,
}

/// A chunk that waits for memory, and its flush for an answer.
struct Parked {
    identity: Identity,
    hand_over: HandOver,
    /// It goes into the spool, which has not refused it.
    to_spool: bool,
}

/// How much larger a chunk is expected to be once it is encoded: JSON is about 1.2 times its msgpack, base64 4/3 of it.
const GROWTH: usize = 2;

/// One log line of each kind in this time.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// How long a chunk that would fit into memory waits for batches before it to be sent, at most. As msgpack in the host's
/// memory it takes less room than as a body in ours, and a fast endpoint sends what is ahead in less; when it is slow or
/// away, kubehose takes what it can hold.
const PATIENCE: Duration = Duration::from_millis(50);

/// How long a batch that is not full waits for the records of more chunks, where no flush waits for it: with a tag for
/// each container, most chunks have a few events.
const LINGER: Duration = Duration::from_millis(100);

/// The same where a flush does wait, but fewer do than did at once before: the others' workers may be about to bring more.
const LINGER_AWAITED: Duration = Duration::from_millis(2);

/// How often one looks, while flushes wait, whether the host has been asked to end.
const LOOK: Duration = Duration::from_millis(100);

/// Makes batches of chunks.
pub struct Encoder {
    config: Config,
    /// The batch that is being filled, whose records these are, and until when it may be.
    batcher: Batcher,
    owners: Vec<Owner>,
    until: Option<Instant>,
    /// How many flushes were last seen to wait at once.
    together: usize,
    /// Records of the chunk that is being encoded.
    records: u64,
    /// No more chunks will come.
    closed: bool,
    ledger: Arc<Ledger>,
    aside: Arc<Aside>,
    log: Arc<Log>,
    /// Used buffers.
    buffers: Vec<Vec<u8>>,
    /// Where chunks are kept until they are delivered, if they are.
    spool: Option<Spool>,
    /// Chunks of the spool that wait for memory, the oldest first.
    waiting: VecDeque<(DeliveryId, Arc<Spooled>)>,
    /// Chunks that wait for memory while their flushes wait for an answer.
    parked: VecDeque<Parked>,
    /// No flush waits for less long than until this.
    expiry: Option<Instant>,
    /// When trouble with the spool was last logged.
    spool_logged: Option<Instant>,
    /// The memory of the chunk that was last read from the spool.
    file: Vec<u8>,
    /// The size of the last body that was full: the next one's is about that.
    body_size: usize,
    /// When records that were cut were last logged.
    truncated_logged: Option<Instant>,
    /// When events without a record were last logged.
    empty_logged: Option<Instant>,
}

/// What an encoder needs from outside.
pub struct EncoderParts {
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
    /// Where chunks are kept until they are delivered, if they are.
    pub spool: Option<Spool>,
    /// Chunks that an earlier process left there, the oldest first.
    pub left: VecDeque<(DeliveryId, Arc<Spooled>)>,
}

impl Encoder {
    /// An encoder with nothing to do but what was left in the spool.
    pub fn new(parts: EncoderParts) -> Encoder {
        let EncoderParts { config, opening, ledger, aside, log, spool, left } = parts;
        Encoder {
            config,
            batcher: Batcher::new(&opening),
            owners: Vec::new(),
            until: None,
            together: 0,
            records: 0,
            closed: false,
            ledger,
            aside,
            log,
            buffers: Vec::new(),
            spool,
            waiting: left,
            parked: VecDeque::new(),
            expiry: None,
            spool_logged: None,
            file: Vec::new(),
            body_size: 0,
            truncated_logged: None,
            empty_logged: None,
        }
    }

    /// Encodes what may be encoded now into batches that are `ready`, and answers the flushes whose time is over. Says
    /// when to look again.
    pub fn work(&mut self, texts: &mut RecordWriter<'_>, ready: &mut VecDeque<Job>) -> Option<Instant> {
        self.admit(texts, ready);
        let now = Instant::now();
        let limit = host::ending_since().map(|since| since + self.config.delivery.shutdown_timeout);
        if self.expiry.is_some_and(|expiry| expiry <= now) || limit.is_some_and(|limit| limit <= now) {
            let ends = |parked: &Parked| {
                limit.map_or(parked.hand_over.flush.deadline, |limit| limit.min(parked.hand_over.flush.deadline))
            };
            self.refuse(|parked| ends(parked) <= now);
            let parked = self.parked.iter().map(ends).min();
            self.expiry = [self.ledger.expire(now, limit), parked].into_iter().flatten().min();
        }
        // Nothing tells that the host was asked to end; before the last flush is answered, it goes no further.
        let look = (self.waiting_flushes() > 0).then(|| now + LOOK);
        if self.until.is_some_and(|until| until <= now || self.closed) {
            self.together = self.waiting_flushes();
            self.send(ready);
        }
        let patience = self.parked.front().map(|parked| parked.hand_over.since + PATIENCE).filter(|over| *over > now);
        [self.expiry, self.until, patience, look].into_iter().flatten().min()
    }

    /// Chunks of the spool that have not been encoded.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Flushes that wait for an answer.
    fn waiting_flushes(&self) -> usize {
        self.ledger.flushes() + self.parked.len()
    }

    /// Whether, besides the chunk that has just been encoded, nothing can be handed over before a reply is there.
    fn all_are_here(&mut self) -> bool {
        // That chunk's flush is not counted yet.
        let here = self.waiting_flushes() + 1;
        self.together = self.together.max(here);
        self.parked.is_empty() && here == self.together
    }

    /// Takes a used buffer back.
    pub fn reuse(&mut self, buffer: Vec<u8>) {
        if self.buffers.len() < self.config.delivery.concurrency {
            self.buffers.push(buffer);
        }
    }

    /// The chunk's earlier delivery goes on, if there is one; otherwise it waits for its turn.
    pub fn take(&mut self, hand_over: HandOver) {
        let deadline = hand_over.flush.deadline;
        self.expiry = Some(self.expiry.map_or(deadline, |expiry| expiry.min(deadline)));
        let identity = Identity::of(hand_over.data.tag(), hand_over.data.bytes());
        if let Some(delivery) = self.ledger.detached(identity) {
            let HandOver { data, flush, .. } = hand_over;
            data.release();
            return self.ledger.attach(delivery, flush);
        }
        self.parked.push_back(Parked { identity, hand_over, to_spool: self.spool.is_some() });
    }

    /// Writes a chunk into the spool, and encodes it if `now`, so that it need not be read back. If the spool does not
    /// take it, it is delivered without.
    fn spool(&mut self, parked: Parked, now: bool, texts: &mut RecordWriter<'_>, ready: &mut VecDeque<Job>) {
        let Some(spool) = &self.spool else { return };
        let Parked { identity, hand_over, .. } = parked;
        match spool.add(identity, hand_over.data.tag(), hand_over.data.bytes()) {
            Ok(spooled) => {
                let HandOver { data, flush, .. } = hand_over;
                let spooled = Arc::new(spooled);
                let delivery = self.ledger.begin_spooled(identity, spooled.clone());
                if now {
                    let of = ChunkOf::new(delivery, data.tag(), Some(spooled));
                    self.encode_guarded(texts, ready, &of, data.bytes(), &[]);
                    data.release();
                    self.ledger.seal_spooled(delivery);
                } else {
                    data.release();
                    self.waiting.push_back((delivery, spooled));
                }
                flush.answer(Status::Ok);
            }
            Err(error) => {
                if self.spool_logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
                    self.spool_logged = Some(Instant::now());
                    let line = format!(
                        "spool_dir: {error}; chunks are acknowledged once they are delivered, until there is space again"
                    );
                    self.log.line(Level::Warn, &line);
                }
                self.parked.push_front(Parked { identity, hand_over, to_spool: false });
            }
        }
    }

    /// Whether a chunk of this size may be encoded now.
    fn fits(&self, bytes: usize) -> bool {
        let held = self.ledger.counts().held.get() as usize + self.batcher.held();
        held == 0 || held + bytes * GROWTH <= self.config.delivery.max_buffer
    }

    /// Encodes what fits into the memory that is left, in order.
    fn admit(&mut self, texts: &mut RecordWriter<'_>, ready: &mut VecDeque<Job>) {
        while let Some((_, next)) = self.waiting.front()
            && self.fits(next.size() as usize)
            && ready.is_empty()
        {
            if let Some((delivery, spooled)) = self.waiting.pop_front() {
                self.start_spooled(delivery, &spooled, texts, ready);
            }
        }
        while let Some(Parked { hand_over, to_spool, .. }) = self.parked.front() {
            let fits = self.fits(hand_over.data.bytes().len());
            // Batches are sent as fast as they are encoded.
            let at_once = fits && ready.is_empty();
            let waited = hand_over.since.elapsed() >= PATIENCE;
            let to_spool = *to_spool;
            // What waits in the spool goes first, and tells that there is nothing to be waited for.
            let behind = !self.waiting.is_empty();
            let turn = if to_spool { at_once || waited || behind } else { at_once || fits && waited };
            let Some(next) = self.parked.pop_front_if(|_| turn) else { break };
            match to_spool {
                true => self.spool(next, at_once && !behind, texts, ready),
                false => self.start(next.identity, next.hand_over, texts, ready),
            }
        }
    }

    /// Answers RETRY to those of the flushes whose chunks wait for memory.
    fn refuse(&mut self, which: impl Fn(&Parked) -> bool) {
        for _ in 0..self.parked.len() {
            let Some(next) = self.parked.pop_front() else { break };
            if !which(&next) {
                self.parked.push_back(next);
                continue;
            }
            let HandOver { data, flush, .. } = next.hand_over;
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

    /// Takes nothing more: what waits for memory stays with the host. Nothing lingers any more.
    pub fn close(&mut self) {
        self.parked.clear();
        self.closed = true;
    }

    /// Sends what has been filled of a batch on its way.
    fn send(&mut self, ready: &mut VecDeque<Job>) {
        self.until = None;
        if let Some(batch) = self.batcher.finish() {
            self.ledger.counts().held.add(batch.held() as u64);
            ready.push_back(Job::new(std::mem::take(&mut self.owners), batch));
        }
    }

    /// Encodes a chunk and sends its batches on their way.
    fn start(
        &mut self,
        identity: Identity,
        hand_over: HandOver,
        texts: &mut RecordWriter<'_>,
        ready: &mut VecDeque<Job>,
    ) {
        let HandOver { data, flush, .. } = hand_over;
        let delivery = self.ledger.begin(identity);
        self.encode_guarded(texts, ready, &ChunkOf::new(delivery, data.tag(), None), data.bytes(), &[]);
        data.release();
        // With a spool that is full, a chunk is safe only once it is delivered.
        if self.config.delivery.acknowledge == Acknowledge::Taken {
            flush.answer(Status::Ok);
            self.ledger.seal_acknowledged(delivery);
        } else {
            self.ledger.seal(delivery, flush);
        }
    }

    /// Encodes a chunk of the spool, but for what has been settled of it.
    fn start_spooled(
        &mut self,
        delivery: DeliveryId,
        spooled: &Arc<Spooled>,
        texts: &mut RecordWriter<'_>,
        ready: &mut VecDeque<Job>,
    ) {
        let chunk = match spooled.read(std::mem::take(&mut self.file)) {
            Ok(chunk) => chunk,
            Err(error) => {
                let line = format!("cannot read {}: {error}; it stays for the next start", spooled.file().display());
                return self.log.line(Level::Error, &line);
            }
        };
        if let Some(torn) = chunk.torn {
            let line = format!("{} is torn: {torn}; what can be read of it is sent", spooled.file().display());
            self.log.line(Level::Error, &line);
        }
        let of = ChunkOf::new(delivery, &chunk.tag, Some(spooled.clone()));
        self.encode_guarded(texts, ready, &of, &chunk.bytes, &chunk.taken);
        self.ledger.seal_spooled(delivery);
        self.file = chunk.bytes;
    }

    /// Encodes; should that panic, what was encoded before goes its way.
    fn encode_guarded(
        &mut self,
        texts: &mut RecordWriter<'_>,
        ready: &mut VecDeque<Job>,
        of: &ChunkOf,
        bytes: &[u8],
        taken: &[Range<u32>],
    ) {
        self.records = 0;
        let encode = AssertUnwindSafe(|| self.encode(texts, ready, of, bytes, taken));
        if let Err(panic) = catch_unwind(encode) {
            // Dropping what a panic carries may panic once more.
            std::mem::forget(panic);
            self.batcher.mend();
            let line = "a defect in kubehose: a chunk could not be encoded to its end; please report it";
            self.log.line(Level::Error, line);
        }
        self.ledger.add(of.delivery, self.records);
        let awaited = of.spooled.is_none() && self.config.delivery.acknowledge != Acknowledge::Taken;
        let linger = if awaited { LINGER_AWAITED } else { LINGER };
        if awaited && self.all_are_here() {
            self.send(ready);
        } else if self.batcher.held() > 0 {
            let until = Instant::now() + linger;
            self.until = Some(self.until.map_or(until, |earlier| earlier.min(until)));
        }
    }

    fn encode(
        &mut self,
        texts: &mut RecordWriter<'_>,
        ready: &mut VecDeque<Job>,
        of: &ChunkOf,
        bytes: &[u8],
        taken: &[Range<u32>],
    ) {
        let counts = self.ledger.counts();
        // Nobody else counts these.
        let empty = counts.records_empty.get();
        let ChunkOf { delivery, tag, spooled } = of;
        let fields = self.config.record.remap.tag_fields(tag.as_bytes());
        let (collisions, truncated) = (texts.collisions(), texts.truncated());
        let mut packer = Packer::new(self.config.record.pack);
        let mut chunk = Chunk::new(bytes);
        let mut taken = taken.iter().peekable();
        let mut batch = |record: &[u8], events: Range<u32>| {
            let buffer = || self.buffers.pop().unwrap_or_else(|| Vec::with_capacity(self.body_size));
            if let Some(full) = self.batcher.push(record, events, buffer) {
                self.body_size = full.held() + full.held() / 16;
                counts.held.add(full.held() as u64);
                ready.push_back(Job::new(std::mem::take(&mut self.owners), full));
                self.until = None;
            }
            self.records += 1;
            match self.owners.last_mut() {
                Some(owner) if owner.chunk.delivery == *delivery => owner.records += 1,
                _ => self.owners.push(Owner { chunk: of.clone(), records: 1 }),
            }
        };
        let origin = Origin { tag: fields.as_ref(), identity: Identity::of(tag.as_bytes(), bytes).to_bytes() };
        let now = now();
        loop {
            let next = chunk.events();
            while taken.next_if(|range| range.end <= next).is_some() {}
            if !texts.has_parts() && taken.peek().is_some_and(|range| range.contains(&next)) {
                match chunk.next_event() {
                    Some(_) => continue,
                    None => break,
                }
            }
            // Not once more after a restart. If it cannot be noted, it is put aside twice.
            let note = |event: u32| {
                spooled.as_ref().map_or(Ok(()), |spooled| spooled.note(std::slice::from_ref(&(event..event + 1))))
            };
            let packed = match texts.next(&mut chunk, &origin, now) {
                Next::Record { text, events } => packer.push(text, events, &mut batch),
                Next::Unfit { event, reason, text } => {
                    self.aside.record(tag, &reason.to_string(), text.to_vec());
                    note(event)
                }
                Next::Empty { event } => {
                    counts.records_empty.add(1);
                    note(event)
                }
                Next::End => break,
            };
            if let Err(error) = packed {
                self.log.line(Level::Error, &format!("event {next} of a chunk with tag {tag}: {error}"));
            }
        }
        if let Err(error) = packer.finish(&mut batch) {
            self.log.line(Level::Error, &format!("the last events of a chunk with tag {tag}: {error}"));
        }
        counts.key_collisions.add(texts.collisions() - collisions);
        let truncated = texts.truncated() - truncated;
        if truncated > 0 {
            counts.records_truncated.add(truncated);
            if now_and_then(&mut self.truncated_logged) {
                let line = format!(
                    "a record with tag {tag} was cut to Firehose's limit of {MAX_RECORD} bytes ({} so far)",
                    counts.records_truncated.get()
                );
                self.log.line(Level::Warn, &line);
            }
        }
        if counts.records_empty.get() > empty && now_and_then(&mut self.empty_logged) {
            let line = format!(
                "an event with tag {tag} is empty, and so there is no record of it ({} so far)",
                counts.records_empty.get()
            );
            self.log.line(Level::Info, &line);
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
}

/// The present, for events without a time of their own.
fn now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Time { seconds: i64::try_from(since.as_secs()).unwrap_or(0), nanos: since.subsec_nanos() }
}

/// Whether it is time for another line of a kind; then the next one waits.
fn now_and_then(last: &mut Option<Instant>) -> bool {
    let due = last.is_none_or(|last| last.elapsed() >= LOG_EVERY);
    if due {
        *last = Some(Instant::now());
    }
    due
}
