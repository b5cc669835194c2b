//! The delivery core: decides what to do about each chunk, reply and disk failure, and as time passes.
//!
//! It has no clock, I/O, thread, lock or await: [`Delivery::handle`] gets what happened and the time, and returns what to do. The same
//! inputs, times and seed give the same actions, so tests/simulation can drive it through anything. Each record is settled exactly once:
//! accepted by the service, or dead-lettered and counted.

pub mod batch;
mod buffers;
mod encode;
mod lane;
pub mod lanes;
mod ledger;
pub mod pace;
mod retry;
pub mod room;

use crate::delivery::encode::{Encoding, Rest, Slice};
use crate::delivery::lane::{Job, Owner, split};
use crate::delivery::lanes::{DEFAULT, LaneId, Lanes, Streams};
use crate::delivery::ledger::{DeliveryId, Flush, Kept, Ledger};
use crate::delivery::pace::Concurrency;
use crate::delivery::retry::Kind;
use crate::delivery::room::{Copied, Reservation, Room};
use crate::event::chunk::{MAX_DEPTH, Time};
use crate::firehose::{self, Class, Fault, Setup};
use crate::host::{Level, Status};
use crate::metrics::{Counts, billed};
use crate::record::pack::{Events, Packer};
use crate::record::{MAX_RECORD, RecordOptions, RecordWriter};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// When a flush may say OK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// Once every record is settled.
    Delivered,
    /// Once the chunk is held in memory.
    Buffered,
}

/// How records are delivered.
#[derive(Clone, Debug)]
pub struct DeliveryOptions {
    /// Calls in flight.
    pub concurrency: Concurrency,
    /// Quota of records a second.
    pub records_per_second: Option<u64>,
    /// Quota of bytes a second.
    pub bytes_per_second: Option<u64>,
    /// When a flush may say OK.
    pub acknowledge: Acknowledge,
    /// Whether there is a spool: a chunk is acknowledged once it is there.
    pub spool: bool,
    /// How long a flush waits.
    pub flush_timeout: Duration,
    /// How long the exit waits, counted from the signal that ends the host if there was one.
    pub shutdown_timeout: Duration,
    /// Bytes held in memory.
    pub max_buffer: usize,
}

impl DeliveryOptions {
    /// Whether each chunk is answered OK as soon as it is copied, whichever it is: the host's thread then does so itself, without the
    /// way to the core and back.
    pub fn acknowledges_all(&self, streams: &Streams) -> bool {
        // With a template what is acknowledged is bounded, see `Delivery::may_hold`.
        self.acknowledge == Acknowledge::Buffered && streams.template.is_none()
    }
}

/// One flush of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlushId(pub u64);

/// One call of PutRecordBatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// One chunk of the spool: its file's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub u64);

/// One dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId(pub u64);

/// Identifies a chunk when the host brings it again: a 128-bit hash of its tag and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(u128);

impl Identity {
    /// The identity of a chunk with this tag and these bytes.
    pub fn of(tag: &[u8], bytes: &[u8]) -> Identity {
        Identity(xxh3_128_with_seed(bytes, xxh3_64(tag)))
    }

    /// As written to files.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// Reads what [`Identity::to_bytes`] wrote.
    pub fn from_bytes(bytes: [u8; 16]) -> Identity {
        Identity(u128::from_le_bytes(bytes))
    }
}

/// Where records come from.
#[derive(Debug)]
pub struct Origin {
    delivery: DeliveryId,
    identity: Identity,
    /// The tag of their chunk.
    pub tag: Arc<str>,
    /// Their chunk in the spool.
    chunk: Option<ChunkId>,
}

/// A chunk that an earlier process left in the spool.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Its number.
    pub chunk: ChunkId,
    /// Its identity, by which it is recognized when the host brings it again.
    pub identity: Identity,
    /// Size of its file, in bytes.
    pub size: usize,
}

/// A chunk, read back from the spool.
#[derive(Debug)]
pub struct Loaded {
    /// Its tag.
    pub tag: Vec<u8>,
    /// Its bytes: all of them, or what a damaged file still holds.
    pub bytes: Vec<u8>,
    /// Events that were settled before, in ascending order.
    pub settled: Vec<Range<u32>>,
    /// What is wrong with the file, if anything is.
    pub damage: Option<String>,
}

/// What has happened.
#[derive(Debug)]
pub enum Input {
    /// The host's thread has copied a chunk and waits for an answer to its flush.
    Chunk {
        /// The flush.
        flush: FlushId,
        /// When it stops waiting.
        deadline: Instant,
        /// The chunk's tag.
        tag: Vec<u8>,
        /// The chunk's identity.
        identity: Identity,
        /// The copy.
        bytes: Copied,
    },
    /// The host's thread has copied a chunk and answered its flush OK, as [`DeliveryOptions::acknowledges_all`] allows.
    Acknowledged {
        /// The chunk's tag.
        tag: Vec<u8>,
        /// The chunk's identity.
        identity: Identity,
        /// The copy.
        bytes: Copied,
    },
    /// A flush waits for [`Action::Admit`]: there was no room to copy its chunk.
    Waiting {
        /// The flush.
        flush: FlushId,
        /// When it stops waiting.
        deadline: Instant,
        /// The chunk's identity.
        identity: Identity,
        /// The chunk's size, in bytes.
        size: usize,
    },
    /// Records that need no encoding: dead letters that are sent again.
    Records {
        /// The tag of their chunk.
        tag: Arc<str>,
        /// Their bytes.
        records: Vec<Vec<u8>>,
    },
    /// A call has ended.
    Answered {
        /// The call.
        call: CallId,
        /// What the service said.
        outcome: Result<firehose::Reply, Fault>,
    },
    /// A chunk is in the spool.
    Stored {
        /// The chunk.
        chunk: ChunkId,
    },
    /// A chunk is not in the spool.
    NotStored {
        /// The chunk.
        chunk: ChunkId,
        /// Why.
        error: String,
    },
    /// A chunk was read back from the spool.
    Loaded {
        /// The chunk.
        chunk: ChunkId,
        /// What could be read, or why nothing could.
        loaded: Result<Loaded, String>,
    },
    /// Writing to the spool, or removing from it, failed.
    SpoolFailed {
        /// What failed, and why.
        error: String,
    },
    /// A dead letter is written, or lost.
    Lettered {
        /// The letter.
        letter: LetterId,
        /// Why it is lost, if it is.
        outcome: Result<(), String>,
        /// How many older letters were deleted to stay within `dead_letter_limit`.
        discarded: u64,
    },
    /// The host received a signal to end.
    HostStopping {
        /// When that was first seen.
        since: Instant,
    },
    /// The output ends: there will be no more flushes.
    Close,
    /// Time is up: dead-letter what is not delivered.
    GiveUp,
    /// Only time has passed.
    Tick,
}

/// What to do. Stores, loads, notes, removals and dead letters must be done in this order; the order of the others does not matter.
#[derive(Debug)]
pub enum Action {
    /// The flush's thread may copy its chunk into this room.
    Admit {
        /// The flush.
        flush: FlushId,
        /// The room.
        reservation: Reservation,
    },
    /// Answer a flush.
    Reply {
        /// The flush.
        flush: FlushId,
        /// The answer.
        status: Status,
    },
    /// Call PutRecordBatch.
    Call {
        /// The call.
        call: CallId,
        /// The stream.
        stream: Arc<str>,
        /// Its body.
        body: Bytes,
        /// The number of its records.
        records: usize,
    },
    /// Cancel a call: nobody waits for it any more.
    CancelCall {
        /// The call.
        call: CallId,
    },
    /// Look up the credentials anew: they were refused, or could not be found.
    RenewCredentials,
    /// Write a chunk into the spool.
    Store {
        /// The chunk.
        chunk: ChunkId,
        /// The chunk's identity.
        identity: Identity,
        /// Its tag.
        tag: Arc<str>,
        /// Its bytes.
        bytes: Arc<Copied>,
    },
    /// Write a note that events of a chunk in the spool are settled.
    Note {
        /// The chunk.
        chunk: ChunkId,
        /// The events, in ascending order.
        events: Vec<Range<u32>>,
    },
    /// Read a chunk back.
    Load {
        /// The chunk.
        chunk: ChunkId,
    },
    /// Remove a chunk: all of it is settled.
    Remove {
        /// The chunk.
        chunk: ChunkId,
    },
    /// Write a dead letter.
    DeadLetter {
        /// The letter.
        letter: LetterId,
        /// The tag of its chunk.
        tag: Arc<str>,
        /// The stream that it was for.
        stream: Arc<str>,
        /// Why it could not be delivered.
        reason: String,
        /// The record.
        record: Vec<u8>,
    },
    /// Write a line of the log.
    Log {
        /// Its level.
        level: Level,
        /// Its text.
        text: String,
    },
    /// Log that somebody has to fix something, and how.
    CannotDeliver {
        /// What has to be fixed.
        setup: Setup,
        /// The stream.
        stream: Arc<str>,
        /// What happened.
        text: String,
    },
}

/// The time.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Wall-clock time, for events without a time of their own.
    pub wall: Time,
    /// Monotonic time.
    pub at: Instant,
}

/// About how many bytes of a chunk one [`Delivery::handle`] encodes, so that replies are handled in between.
pub const SLICE: usize = 256 * 1024;

/// Memory for an encoded slice: JSON is about 1.2 times its msgpack, base64 4/3 of that.
const SLICE_ROOM: usize = 2 * SLICE;

/// Each kind of line is logged at most once in this time.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// With more kinds of lines than this, old ones are forgotten.
const LOGGED: usize = 256;

/// The mean size of records is known well enough after this many to log what the rounding costs.
const BILL_AFTER: u64 = 1000;

/// How often a single record is tried that is refused as invalid while no other record is accepted either.
const BLAME_AFTER: u32 = 8;

/// How long a batch that is not full waits for records of more chunks if no flush waits for it: with one tag per container most chunks
/// have only a few events.
const LINGER: Duration = Duration::from_millis(100);

/// The same if flushes wait, but fewer than there were at once before: the other workers may be about to bring more.
const LINGER_AWAITED: Duration = Duration::from_millis(2);

/// Both with `simple_aggregation`, which is there for few calls: longer than a `Flush` of 0.2 s, which brings more.
const LINGER_JOINED: Duration = Duration::from_millis(250);

/// How long the exit waits for the disk after giving up: since its last write, and in total.
pub const DISK_AT_EXIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));

/// How often to check which flushes wait only for stuck lanes.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long after a failed read of a spooled chunk it is tried again.
const LOAD_AGAIN: Duration = Duration::from_secs(5);

/// A flush that waits for room.
#[derive(Debug)]
struct Parked {
    flush: Flush,
    identity: Identity,
}

/// A chunk that waits to be encoded.
#[derive(Debug)]
struct Queued {
    origin: Arc<Origin>,
    source: Source,
    /// Events not to encode again, if others were left for later.
    done: Vec<Range<u32>>,
    /// Whether this is a chunk of which events were left for later.
    resumed: bool,
}

/// A chunk with events left for later, because their lanes were full.
#[derive(Debug)]
struct Deferred {
    queued: Queued,
    lanes: Vec<LaneId>,
}

#[derive(Debug)]
enum Source {
    Memory(Arc<Copied>),
    /// In the spool, with the size of its file.
    Disk(usize),
}

/// A dead letter that is being written.
#[derive(Debug)]
struct Letter {
    origin: Arc<Origin>,
    events: Events,
    bytes: usize,
    reason: String,
}

/// What a [`Delivery`] needs from outside.
pub struct Parts<'o> {
    /// How records are delivered.
    pub options: &'o DeliveryOptions,
    /// How records are written.
    pub record: &'o RecordOptions,
    /// The streams.
    pub streams: &'o Streams,
    /// The memory that may be used.
    pub room: Arc<Room>,
    /// What is counted.
    pub counts: Arc<Counts>,
    /// The source of jitter.
    pub random: fastrand::Rng,
    /// Chunks that an earlier process left in the spool, the oldest first.
    pub recovered: Vec<Recovered>,
    /// The number of the next chunk of the spool.
    pub next_chunk: u64,
}

/// The delivery of one output.
pub struct Delivery<'o> {
    options: &'o DeliveryOptions,
    record: &'o RecordOptions,
    encoder: RecordWriter<'o>,
    packer: Packer,
    room: Arc<Room>,
    counts: Arc<Counts>,
    random: fastrand::Rng,
    ledger: Ledger,
    lanes: Lanes<'o>,
    parked: VecDeque<Parked>,
    queue: VecDeque<Queued>,
    /// Chunks of the spool that could not be read, and when they are tried again.
    unreadable: VecDeque<(Instant, Queued)>,
    deferred: VecDeque<Deferred>,
    /// Whether one of these is back in the queue.
    resuming: bool,
    encoding: Option<Encoding>,
    /// Whether its next event waits for a full lane.
    encoding_waits: bool,
    /// When it last checked which flushes wait only for stuck lanes.
    looked: Option<Instant>,
    /// Whether the first of the queue is being read from the spool.
    loading: bool,
    storing: BTreeMap<ChunkId, DeliveryId>,
    letters: BTreeMap<LetterId, Letter>,
    /// How many flushes waited at once when last seen.
    together: usize,
    next_chunk: u64,
    next_call: u64,
    next_letter: u64,
    stopping: Option<Instant>,
    /// When the exit stops waiting.
    closing: Option<Instant>,
    /// When it gave up, and when the disk last wrote something after that.
    gave_up: Option<(Instant, Instant)>,
    /// Records given up at the exit: dead-lettered, and left in the spool.
    given_up: (u64, u64),
    /// Chunks left in the spool at the exit before they were encoded.
    left_on_disk: usize,
    /// Chunks, and their bytes, answered RETRY since the signal to end.
    refused_at_end: (u64, u64),
    logged: BTreeMap<(&'static str, Option<LaneId>), (Instant, u64)>,
    bill_logged: bool,
    now: Option<Instant>,
    wall: Time,
}

impl<'o> Delivery<'o> {
    /// A delivery that has only recovered chunks to send.
    pub fn new(parts: Parts<'o>) -> Delivery<'o> {
        let Parts { options, record, streams, room, counts, random, recovered, next_chunk } = parts;
        let mut ledger = Ledger::default();
        let queue = recovered
            .into_iter()
            .map(|Recovered { chunk, identity, size }| {
                let delivery = ledger.begin_recovered(identity, chunk);
                let origin = Arc::new(Origin { delivery, identity, tag: "".into(), chunk: Some(chunk) });
                Queued { origin, source: Source::Disk(size), done: Vec::new(), resumed: false }
            })
            .collect();
        Delivery {
            options,
            record,
            encoder: RecordWriter::new(record),
            packer: Packer::new(record.pack),
            lanes: Lanes::new(streams, options, room.clone()),
            room,
            counts,
            random,
            ledger,
            parked: VecDeque::new(),
            queue,
            unreadable: VecDeque::new(),
            deferred: VecDeque::new(),
            resuming: false,
            encoding: None,
            encoding_waits: false,
            looked: None,
            loading: false,
            storing: BTreeMap::new(),
            letters: BTreeMap::new(),
            together: 0,
            next_chunk,
            next_call: 0,
            next_letter: 0,
            stopping: None,
            closing: None,
            gave_up: None,
            given_up: (0, 0),
            left_on_disk: 0,
            refused_at_end: (0, 0),
            logged: BTreeMap::new(),
            bill_logged: false,
            now: None,
            wall: Time::default(),
        }
    }

    /// Handles what happened, and adds what to do to `out`. Never blocks, and encodes about [`SLICE`] bytes at most.
    pub fn handle(&mut self, input: Input, now: Now, out: &mut Vec<Action>) {
        self.wall = now.wall;
        let now = now.at;
        self.now = Some(now);
        self.lanes.begin(now);
        // First, because this thread may have been stalled: flushes that gave up meanwhile must not be answered OK.
        self.expire(now, out);
        match input {
            Input::Chunk { flush, deadline, tag, identity, bytes } => {
                let flush = Flush { id: flush, deadline, size: bytes.len() };
                self.chunk(flush, &tag, identity, bytes, now, out);
            }
            Input::Acknowledged { tag, identity, bytes } => {
                let tag = String::from_utf8_lossy(&tag).into();
                let delivery = self.ledger.begin_acknowledged(identity);
                let origin = Arc::new(Origin { delivery, identity, tag, chunk: None });
                let source = Source::Memory(Arc::new(bytes));
                self.queue.push_back(Queued { origin, source, done: Vec::new(), resumed: false });
            }
            Input::Waiting { flush, deadline, identity, size } => {
                let flush = Flush { id: flush, deadline, size };
                if self.closing.is_some() || flush.deadline <= now {
                    self.refuse(flush, now, out);
                } else if !self.ledger.attach(identity, flush, out) {
                    self.parked.push_back(Parked { flush, identity });
                }
            }
            Input::Records { tag, records } => self.records(tag, &records, now, out),
            Input::Answered { call, outcome } => self.answered(call, outcome, now, out),
            Input::Stored { chunk } => {
                if let Some(delivery) = self.storing.remove(&chunk) {
                    self.ledger.stored(delivery, now, out);
                    self.leave_to_disk(chunk);
                    self.leave_deferred_to_disk(chunk);
                }
            }
            Input::NotStored { chunk, error } => self.not_stored(chunk, &error, now, out),
            Input::Loaded { chunk, loaded } => self.loaded(chunk, loaded, now, out),
            Input::SpoolFailed { error } => {
                let text = format!("spool_dir: {error}; these events are sent again after a restart");
                self.log_sometimes("spool", Level::Error, &text, now, out);
            }
            Input::Lettered { letter, outcome, discarded } => {
                self.lettered(letter, outcome, now, out);
                self.discarded(discarded, now, out);
            }
            Input::HostStopping { since } => {
                self.stopping.get_or_insert(since);
            }
            Input::Close => {
                let from = self.stopping.unwrap_or(now);
                self.closing.get_or_insert(from + self.options.shutdown_timeout);
                while let Some(Parked { flush, .. }) = self.parked.pop_front() {
                    self.refuse(flush, now, out);
                }
            }
            Input::GiveUp => {
                self.closing = Some(now);
            }
            Input::Tick => {}
        }
        self.advance(now, out);
    }

    /// When to call [`Delivery::handle`] with [`Input::Tick`] if nothing else happens before; a time in the past means at once.
    pub fn wake_at(&self) -> Option<Instant> {
        if self.can_encode() && !self.encoding_waits {
            return self.now;
        }
        let limit = self.flush_limit().filter(|_| self.ledger.flushes() + self.parked.len() > 0);
        let parked = self.parked.iter().map(|parked| parked.flush.deadline).min();
        let closing = self.disk_limit().or(self.closing);
        let lanes = if self.gave_up.is_some() { None } else { self.lanes.wake_at() };
        let patience = self.now.and_then(|now| self.lanes.patience_ends(now));
        let unreadable = self.unreadable.front().map(|(again, _)| *again);
        [self.ledger.expires_at(), limit, parked, closing, lanes, patience, self.look_at(), unreadable]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether the exit need not wait any longer.
    pub fn is_done(&self) -> bool {
        if self.closing.is_none() {
            return false;
        }
        let waits_for_disk = !self.letters.is_empty() || !self.storing.is_empty();
        let over = self.disk_limit() <= self.now;
        let in_memory = self.queue.iter().any(|queued| matches!(queued.source, Source::Memory(_)));
        let idle = self.lanes.are_empty() && !self.lanes.have_open() && self.encoding.is_none();
        match self.gave_up.is_some() {
            true => !in_memory && idle && !waits_for_disk || over && !self.can_encode(),
            false => {
                idle && self.queue.is_empty()
                    && self.unreadable.is_empty()
                    && self.deferred.is_empty()
                    && !waits_for_disk
            }
        }
    }

    /// The last log lines, at the very end.
    pub fn last_words(&self, out: &mut Vec<Action>) {
        let (records, in_spool) = self.given_up;
        let on_disk = self.queue.iter().filter(|queued| queued.origin.chunk.is_some()).count()
            + self.unreadable.len()
            + self.left_on_disk;
        if on_disk > 0 {
            let text = format!("{on_disk} chunks stay in spool_dir for the next start");
            out.push(Action::Log { level: Level::Info, text });
        }
        if in_spool > 0 {
            let text = format!("{in_spool} records stay in spool_dir for the next start");
            out.push(Action::Log { level: Level::Info, text });
        }
        if records > 0 {
            let timeout = self.options.shutdown_timeout;
            let text = format!("{records} records could not be delivered within shutdown_timeout ({timeout:?})");
            out.push(Action::Log { level: Level::Error, text });
        }
        let lost = self.letters.len() as u64;
        if lost > 0 {
            self.counts.records_dropped.add(lost);
            let text = format!("{lost} dead letters were not written in time, and are lost");
            out.push(Action::Log { level: Level::Error, text });
        }
        let (chunks, bytes) = self.refused_at_end;
        if chunks > 0 {
            let text = format!(
                "{chunks} chunks ({bytes} bytes) were answered RETRY after the signal to end: with storage.type filesystem the host keeps those whose Retry_Limit (1 by default) is not reached, and it drops the others"
            );
            out.push(Action::Log { level: Level::Warn, text });
        }
    }

    /// When the exit stops waiting for the disk, after giving up.
    fn disk_limit(&self) -> Option<Instant> {
        let (since, wrote) = self.gave_up?;
        Some((wrote + DISK_AT_EXIT.0).min(since + DISK_AT_EXIT.1))
    }

    /// When all flushes are answered, after a signal: the host waits for them before it ends.
    fn flush_limit(&self) -> Option<Instant> {
        self.stopping.map(|since| since + self.options.shutdown_timeout)
    }

    /// What is due whatever has just happened.
    fn advance(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.expire(now, out);
        if self.closing.is_some_and(|deadline| deadline <= now) && self.gave_up.is_none() {
            self.gave_up = Some((now, now));
            self.lanes.unbound();
            self.give_up(out);
        }
        while self.unreadable.front().is_some_and(|(again, _)| *again <= now)
            && let Some((_, queued)) = self.unreadable.pop_front()
        {
            self.queue.push_back(queued);
        }
        self.resume_deferred();
        self.room.share_copies(self.quarters_for_copies());
        self.room.copy_only_enough(self.encodes_at_once());
        self.room.yield_spare();
        self.admit(out);
        self.encode(now, out);
        let waiting = self.waiting_flushes();
        if self.lanes.close_lingering(now) {
            self.together = waiting;
        }
        if self.gave_up.is_some() {
            self.give_up(out);
        }
        while self.gave_up.is_none()
            && let Some((lane, job)) = self.lanes.next_call(now)
        {
            self.call(lane, job, out);
        }
        self.lanes.rest(now, self.encoding.is_none());
        self.retry_stuck(now, out);
    }

    /// When to check again which flushes wait only for stuck lanes.
    fn look_at(&self) -> Option<Instant> {
        let (now, looked) = (self.now?, self.looked?);
        (self.ledger.flushes() > 0 && self.lanes.stuck(now).next().is_some()).then(|| looked + LOOK_EVERY)
    }

    /// Answers RETRY to flushes that wait only for stuck lanes, since each keeps a worker from the chunks of other streams. Their records
    /// stay here, and the chunk's next flush joins them.
    fn retry_stuck(&mut self, now: Instant, out: &mut Vec<Action>) {
        let due = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_EVERY);
        if !self.lanes.template() || !due || self.ledger.flushes() == 0 {
            return;
        }
        self.looked = Some(now);
        let mut stuck: HashMap<DeliveryId, u64> = HashMap::new();
        for owner in self.lanes.stuck(now).flat_map(lane::Lane::owners) {
            *stuck.entry(owner.origin.delivery).or_default() += owner.records as u64;
        }
        self.ledger.retry_stuck(&stuck, out);
    }

    /// Puts a chunk with events left for later back into the queue, one at a time, once one of their lanes has room; at the exit, all.
    fn resume_deferred(&mut self) {
        if self.gave_up.is_some() {
            self.queue.extend(self.deferred.drain(..).map(|deferred| deferred.queued));
            return;
        }
        if self.resuming || self.deferred.is_empty() {
            return;
        }
        let has_room = |deferred: &Deferred| deferred.lanes.iter().any(|lane| self.lanes.has_room(*lane));
        if let Some(at) = self.deferred.iter().position(has_room)
            && let Some(Deferred { queued, .. }) = self.deferred.remove(at)
        {
            self.resuming = true;
            // Not before the first if that is being read.
            self.queue.insert(usize::from(self.loading).min(self.queue.len()), queued);
        }
    }

    /// Frees the memory of a chunk with events left for later once it is in the spool: they may wait for long.
    fn leave_deferred_to_disk(&mut self, chunk: ChunkId) {
        let queued = self.deferred.iter_mut().map(|deferred| &mut deferred.queued);
        for queued in queued.filter(|queued| queued.origin.chunk == Some(chunk)) {
            if let Source::Memory(bytes) = &queued.source {
                queued.source = Source::Disk(bytes.len());
            }
        }
    }

    /// Whether a chunk of this size may be acknowledged as soon as it is in memory. With several streams such chunks may hold a quarter of
    /// the memory at most, since all of them may have events for streams that fail.
    fn may_hold(&self, size: usize) -> bool {
        if !self.lanes.template() {
            return true;
        }
        let queued = self.queue.iter().chain(self.deferred.iter().map(|deferred| &deferred.queued));
        let waiting = queued.filter_map(|queued| match &queued.source {
            Source::Memory(bytes) => Some((queued.origin.delivery, bytes.len())),
            Source::Disk(_) => None,
        });
        let encoding = self.encoding.iter().map(|encoding| (encoding.origin.delivery, encoding.size()));
        let acknowledged = waiting.chain(encoding).filter(|(delivery, _)| self.ledger.is_acknowledged(*delivery));
        acknowledged.map(|(_, bytes)| bytes).sum::<usize>() + size <= self.room.limit() / 4
    }

    /// Handles a copied chunk: joins its earlier delivery, or begins one.
    fn chunk(
        &mut self,
        flush: Flush,
        tag: &[u8],
        identity: Identity,
        bytes: Copied,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        if self.closing.is_some() {
            return self.refuse(flush, now, out);
        }
        if flush.deadline <= now {
            // Its flush has given up, so the host brings the chunk again.
            out.push(Action::Reply { flush: flush.id, status: Status::Retry });
            return;
        }
        if self.ledger.attach(identity, flush, out) {
            return;
        }
        let tag: Arc<str> = String::from_utf8_lossy(tag).into();
        let bytes = Arc::new(bytes);
        if let Some((delivery, done)) = self.ledger.reopen(identity, flush) {
            let origin = Arc::new(Origin { delivery, identity, tag, chunk: None });
            self.queue.push_back(Queued { origin, source: Source::Memory(bytes), done, resumed: false });
            return;
        }
        let done = self.ledger.resume(identity);
        let (delivery, chunk) = if self.options.spool {
            let chunk = ChunkId(self.next_chunk);
            self.next_chunk += 1;
            let delivery = self.ledger.begin_awaited(identity, flush, Some(chunk));
            self.storing.insert(chunk, delivery);
            out.push(Action::Store { chunk, identity, tag: tag.clone(), bytes: bytes.clone() });
            if !done.is_empty() {
                out.push(Action::Note { chunk, events: done.clone() });
            }
            (delivery, Some(chunk))
        } else if self.options.acknowledge == Acknowledge::Buffered && done.is_empty() && self.may_hold(bytes.len()) {
            out.push(Action::Reply { flush: flush.id, status: Status::Ok });
            (self.ledger.begin_acknowledged(identity), None)
        } else {
            (self.ledger.begin_awaited(identity, flush, None), None)
        };
        self.queue.push_back(Queued {
            origin: Arc::new(Origin { delivery, identity, tag, chunk }),
            source: Source::Memory(bytes),
            done,
            resumed: false,
        });
    }

    /// Records that need no encoding.
    fn records(&mut self, tag: Arc<str>, records: &[Vec<u8>], now: Instant, out: &mut Vec<Action>) {
        let identity = Identity::of(b"", b"");
        let delivery = self.ledger.begin_acknowledged(identity);
        let origin = Arc::new(Origin { delivery, identity, tag, chunk: None });
        self.ledger.add(delivery, records.len() as u64);
        for record in records {
            self.lanes.add(DEFAULT, record, Events::One(0..1), &origin);
        }
        self.ledger.seal(delivery, now, out);
        self.lanes.linger_until(now + LINGER);
    }

    /// Frees the memory of a queued chunk that is in the spool, if memory is short.
    fn leave_to_disk(&mut self, chunk: ChunkId) {
        if self.parked.is_empty() && self.room.copies() <= self.room.limit() / 4 {
            return;
        }
        let queued = self.queue.iter_mut().skip(1).find(|queued| queued.origin.chunk == Some(chunk));
        if let Some(queued) = queued
            && let Source::Memory(bytes) = &queued.source
        {
            queued.source = Source::Disk(bytes.len());
        }
    }

    fn not_stored(&mut self, chunk: ChunkId, error: &str, now: Instant, out: &mut Vec<Action>) {
        let Some(delivery) = self.storing.remove(&chunk) else { return };
        // Acknowledged once delivered: with `spool_dir`, being in memory is never enough.
        self.ledger.not_stored(delivery, now, out);
        let text =
            format!("spool_dir: {error}; chunks are acknowledged once they are delivered, until there is space again");
        self.log_sometimes("not stored", Level::Warn, &text, now, out);
    }

    fn loaded(&mut self, chunk: ChunkId, loaded: Result<Loaded, String>, now: Instant, out: &mut Vec<Action>) {
        self.loading = false;
        if self.queue.front().is_none_or(|queued| queued.origin.chunk != Some(chunk)) {
            return;
        }
        let Some(Queued { origin, source, done, resumed }) = self.queue.pop_front() else { return };
        self.resuming &= !resumed;
        let Loaded { tag, bytes, settled, damage } = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                let text = format!("cannot read chunk {} of spool_dir: {error}; it is tried again", chunk.0);
                self.log_sometimes("load", Level::Error, &text, now, out);
                // Others go before it.
                self.unreadable.push_back((now + LOAD_AGAIN, Queued { origin, source, done, resumed: false }));
                return;
            }
        };
        if let Some(damage) = &damage {
            self.counts.chunks_damaged.add(1);
            let text = format!(
                "chunk {} of spool_dir is damaged: {damage}; what can be read of it is sent, and a damaged file is kept as N.bad",
                chunk.0
            );
            out.push(Action::Log { level: Level::Error, text });
        }
        let tag: Arc<str> = String::from_utf8_lossy(&tag).into();
        let origin = Arc::new(Origin { delivery: origin.delivery, identity: origin.identity, tag, chunk: Some(chunk) });
        let bytes = Arc::new(self.room.count_copy(bytes));
        let counted = !done.is_empty();
        let settled = if counted { done } else { settled };
        self.encoding = Some(Encoding::new(origin, bytes, settled, counted));
    }

    /// Answers RETRY to a flush whose chunk was not admitted.
    fn refuse(&mut self, flush: Flush, now: Instant, out: &mut Vec<Action>) {
        out.push(Action::Reply { flush: flush.id, status: Status::Retry });
        self.counts.chunks_refused.add(1);
        if self.stopping.is_some() {
            self.refused_at_end.0 += 1;
            self.refused_at_end.1 += flush.size as u64;
            return;
        }
        let text = format!(
            "max_buffer ({} bytes) is full: a chunk is answered RETRY; Fluent Bit drops it once Retry_Limit (1 by default) is reached",
            self.room.limit()
        );
        self.log_sometimes("full", Level::Warn, &text, now, out);
    }

    fn expire(&mut self, now: Instant, out: &mut Vec<Action>) {
        let limit = self.flush_limit();
        let ended = limit.is_some_and(|limit| limit <= now);
        while let Some(at) = self.parked.iter().position(|parked| ended || parked.flush.deadline <= now)
            && let Some(Parked { flush, .. }) = self.parked.remove(at)
        {
            self.refuse(flush, now, out);
        }
        let (stopping, refused) = (self.stopping.is_some(), &mut self.refused_at_end);
        self.ledger.expire(now, limit, out, |size| {
            if stopping {
                refused.0 += 1;
                refused.1 += size as u64;
            }
        });
    }

    /// Lets flushes copy their chunks, in order, where there is room.
    fn admit(&mut self, out: &mut Vec<Action>) {
        while let Some(Parked { flush, identity }) = self.parked.front() {
            let (flush, identity) = (*flush, *identity);
            // The flush of its earlier delivery may have given up meanwhile.
            if self.ledger.attach(identity, flush, out) {
                self.parked.pop_front();
                continue;
            }
            let Some(reservation) = self.room.reserve(flush.size) else { break };
            self.parked.pop_front();
            out.push(Action::Admit { flush: flush.id, reservation });
        }
    }

    /// Whether there is something to encode, and room and need for it.
    fn can_encode(&self) -> bool {
        self.has_to_encode() && (self.gave_up.is_some() || self.wants_more(SLICE_ROOM))
    }

    /// Copies hold the same records in less memory than bodies. But calls in flight need bodies, the more the farther the endpoint is.
    fn quarters_for_copies(&self) -> usize {
        match (self.lanes.are_throttled(), self.lanes.template()) {
            // More calls would be of no use.
            (true, _) => 3,
            // Streams that are out of order may keep a quarter of the memory in copies.
            (false, true) => 2,
            (false, false) => 1,
        }
    }

    /// Whether flushes wait for their deliveries, and nothing but the encoder delays these: then it does not matter where a chunk is. What cannot
    /// be encoded for now is copied, since its flush may give up.
    fn encodes_at_once(&self) -> bool {
        let flushes_wait = self.options.acknowledge == Acknowledge::Delivered && !self.options.spool;
        flushes_wait && self.deferred.is_empty() && (self.can_encode() || !self.has_to_encode())
    }

    /// Whether a chunk in memory is to be encoded.
    fn has_to_encode(&self) -> bool {
        self.encoding.is_some()
            || self.queue.front().is_some_and(|queued| match queued.source {
                Source::Memory(_) => true,
                Source::Disk(_) => false,
            })
    }

    fn wants_more(&self, bytes: usize) -> bool {
        // With several streams each has its share of the memory, whatever the others hold.
        let may_hold = || self.room.fits(bytes) || self.lanes.are_empty() || self.has_stuck_lanes();
        self.lanes.want_more() && may_hold()
    }

    fn has_stuck_lanes(&self) -> bool {
        self.now.is_some_and(|now| self.lanes.stuck(now).next().is_some())
    }

    /// Asks for the next chunk, if it is in the spool.
    fn load(&mut self, out: &mut Vec<Action>) {
        if self.encoding.is_none()
            && self.gave_up.is_none()
            && !self.loading
            && let Some(Queued { origin, source: Source::Disk(size), .. }) = self.queue.front()
            && let Some(chunk) = origin.chunk
            && self.wants_more(*size)
        {
            self.loading = true;
            out.push(Action::Load { chunk });
        }
    }

    /// Encodes a slice.
    fn encode(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.load(out);
        if !self.can_encode() {
            return;
        }
        if self.encoding.is_none()
            && let Some(Queued { origin, source: Source::Memory(bytes), done, resumed }) = self.queue.pop_front()
        {
            self.resuming &= !resumed;
            // At the exit, what is in the spool stays there.
            if self.gave_up.is_some() && matches!(self.ledger.kept(origin.delivery), Kept::Stored(_) | Kept::Storing(_))
            {
                self.left_on_disk += 1;
                return;
            }
            self.encoding = Some(Encoding::new(origin, bytes, done, true));
        }
        let Some(mut encoding) = self.encoding.take() else { return };
        let slice =
            encoding.slice(&mut self.encoder, &mut self.packer, &mut self.lanes, &self.counts, SLICE, self.wall);
        let done = slice.done;
        self.encoding_waits = slice.waits;
        if self.lanes.template() {
            // The chunk may wait for another stream before there is more for this one.
            self.lanes.linger_until(now + self.linger(false));
        }
        let origin = encoding.origin.clone();
        self.note_slice(&origin, slice, now, out);
        if !done {
            self.encoding = Some(encoding);
            return;
        }
        match encoding.deferred() {
            None => self.ledger.seal(origin.delivery, now, out),
            Some(rest) => self.defer(&origin, rest, now, out),
        }
        // All of it may have been settled before: then no reply comes that would lead here again.
        self.load(out);
        if !self.queue.is_empty() {
            return;
        }
        let awaited = origin.chunk.is_none() && self.options.acknowledge == Acknowledge::Delivered;
        if self.stopping.is_some() || self.closing.is_some() || awaited && self.all_are_here() {
            self.lanes.close_batches();
        } else {
            self.lanes.linger_until(now + self.linger(awaited));
        }
    }

    /// How long a batch that is not full waits for more records.
    fn linger(&self, awaited: bool) -> Duration {
        match (self.record.pack.aggregate, awaited) {
            // A flush must not give up meanwhile.
            (true, _) => LINGER_JOINED.min(self.options.flush_timeout / 2),
            (false, true) => LINGER_AWAITED,
            (false, false) => LINGER,
        }
    }

    /// Keeps a chunk of which all is encoded but events for full lanes: in the spool or in memory, or else with the host.
    fn defer(&mut self, origin: &Arc<Origin>, Rest { bytes, done, lanes }: Rest, now: Instant, out: &mut Vec<Action>) {
        let source = match self.ledger.kept(origin.delivery) {
            Kept::Stored(_) => Source::Disk(bytes.len()),
            Kept::Storing(_) => Source::Memory(bytes),
            Kept::No if self.ledger.is_acknowledged(origin.delivery) => Source::Memory(bytes),
            Kept::No => return self.ledger.seal_incomplete(origin.delivery, done, now, out),
        };
        self.deferred
            .push_back(Deferred { queued: Queued { origin: origin.clone(), source, done, resumed: true }, lanes });
    }

    /// Flushes that wait for an answer.
    fn waiting_flushes(&self) -> usize {
        self.ledger.flushes() + self.parked.len()
    }

    /// Whether no more chunks can come before a flush is answered.
    fn all_are_here(&mut self) -> bool {
        let here = self.waiting_flushes();
        self.together = self.together.max(here);
        self.parked.is_empty() && here == self.together
    }

    /// Counts and logs the results of a slice.
    fn note_slice(&mut self, origin: &Arc<Origin>, slice: Slice, now: Instant, out: &mut Vec<Action>) {
        let tag = &origin.tag;
        self.ledger.add(origin.delivery, slice.records + slice.rejected.len() as u64);
        for rejected in slice.rejected {
            self.dead_letter(rejected.lane, origin.clone(), rejected.events, rejected.reason, rejected.bytes, out);
        }
        for text in slice.errors {
            out.push(Action::Log { level: Level::Error, text });
        }
        if slice.without_name > 0 {
            self.counts.default_stream.add(slice.without_name);
            let all = self.counts.default_stream.get();
            let text = format!(
                "an event with tag {tag} has no value for 'delivery_stream', or one that is no stream's name; it goes to default_delivery_stream ({all} so far)"
            );
            self.log_sometimes("no name", Level::Warn, &text, now, out);
        }
        if slice.too_many > 0 {
            self.counts.default_stream.add(slice.too_many);
            let all = self.counts.default_stream.get();
            let text = format!(
                "as many streams as max_streams allows are in use; an event with tag {tag} goes to default_delivery_stream ({all} so far)"
            );
            self.log_sometimes("too many streams", Level::Warn, &text, now, out);
        }
        if slice.truncated > 0 {
            self.counts.records_truncated.add(slice.truncated);
            let all = self.counts.records_truncated.get();
            let text = format!(
                "a record with tag {tag} was cut: over {MAX_RECORD} bytes, or nested deeper than {MAX_DEPTH} ({all} so far)"
            );
            self.log_sometimes("truncated", Level::Warn, &text, now, out);
        }
        if slice.empty > 0 {
            self.counts.records_empty.add(slice.empty);
            let all = self.counts.records_empty.get();
            let text = format!("an event with tag {tag} is empty, and so there is no record of it ({all} so far)");
            self.log_sometimes("empty", Level::Info, &text, now, out);
        }
        if slice.undecodable > 0 {
            self.counts.undecodable.add(slice.undecodable);
            let text = format!("{} parts of a chunk with tag {tag} are not events, and are skipped", slice.undecodable);
            self.log_sometimes("undecodable", Level::Warn, &text, now, out);
        }
    }

    fn call(&mut self, lane: LaneId, job: Job, out: &mut Vec<Action>) {
        let records = job.batch.places().len();
        if job.attempts.any() || job.suspect_since.is_some() {
            self.counts.records_resent.add(records as u64);
        }
        if job.ambiguous {
            self.counts.records_possibly_duplicate.add(records as u64);
        }
        self.next_call += 1;
        let call = CallId(self.next_call);
        out.push(Action::Call { call, stream: self.lanes.stream(lane), body: job.batch.body(), records });
        self.lanes.called(lane, call, job);
        self.counts.in_flight.add(1);
    }

    fn answered(&mut self, call: CallId, outcome: Result<firehose::Reply, Fault>, now: Instant, out: &mut Vec<Action>) {
        let Some((lane, mut job, in_demand)) = self.lanes.ended(call) else { return };
        self.counts.in_flight.sub(1);
        match outcome {
            Ok(answer) => {
                job.ambiguous = false;
                self.accepted(lane, job, &answer, in_demand, now, out);
            }
            Err(fault) => {
                self.counts.error(fault.class);
                job.ambiguous = fault.ambiguous;
                match fault.class {
                    Class::Poison => self.poisoned(lane, job, &fault, now, out),
                    class => self.failed(lane, job, class, &fault, now, out),
                }
            }
        }
    }

    /// Handles a reply: settles what was accepted, and sends the rest again.
    fn accepted(
        &mut self,
        id: LaneId,
        job: Job,
        answer: &firehose::Reply,
        in_demand: bool,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let of_stream = self.of_stream(id);
        let Some(lane) = self.lanes.get(id) else { return };
        let cost = job.cost();
        let Job { owners, batch, mut attempts, .. } = job;
        let records = batch.places().len();
        let accepted = records - answer.refused.len();
        if accepted > 0 {
            self.counts.batches.add(1);
            lane.went_well(now, in_demand);
            if let Some((since, _)) = lane.trouble.take() {
                let text =
                    format!("records are accepted again{of_stream} after {:.0?}", now.saturating_duration_since(since));
                out.push(Action::Log { level: Level::Info, text });
            }
        }
        let mut refused = answer.refused.iter().map(|refused| refused.index).peekable();
        let mut places = batch.places().iter().enumerate();
        let (mut settled, mut remaining) = (Vec::with_capacity(owners.len()), Vec::new());
        for Owner { origin, records } in owners {
            let mut events: Vec<Range<u32>> = Vec::new();
            let mut accepted = 0;
            for (index, place) in places.by_ref().take(records) {
                if refused.next_if_eq(&index).is_some() {
                    continue;
                }
                accepted += 1;
                self.counts.bytes.add(place.bytes.into());
                self.counts.billed_bytes.add(billed(place.bytes.into()));
                for stretch in place.events.stretches().iter().filter(|_| origin.chunk.is_some()) {
                    match events.last_mut() {
                        Some(last) if last.end == stretch.start => last.end = stretch.end,
                        _ => events.push(stretch.clone()),
                    }
                }
            }
            if let Some(chunk) = origin.chunk.filter(|_| !events.is_empty()) {
                self.note(chunk, origin.delivery, events, out);
            }
            settled.push((origin.delivery, accepted as u64));
            if accepted < records {
                remaining.push(Owner { origin, records: records - accepted });
            }
        }
        self.counts.records_accepted.add(accepted as u64);
        let rest = match answer.refused.as_slice() {
            [] => None,
            [first, ..] => {
                let refused = &answer.refused;
                let throttled = refused.iter().filter(|refused| refused.code == "ServiceUnavailableException").count();
                if throttled > 0 {
                    self.counts.throttled.add(throttled as u64);
                    if let Some(lane) = self.lanes.get(id) {
                        lane.limit.throttled(now);
                    }
                }
                let text = format!(
                    "{}: {} of {records} records were not accepted{of_stream}; they are sent again",
                    first.code,
                    refused.len()
                );
                self.log_sometimes("refused", Level::Warn, &text, now, out);
                let Some(lane) = self.lanes.get(id) else { return };
                let mut indices = refused.iter().map(|refused| refused.index).peekable();
                lane.part(&batch, |index| indices.next_if_eq(&index).is_some())
            }
        };
        self.lanes.release(id, batch, cost);
        for (delivery, records) in settled {
            self.ledger.settle(delivery, records, now, out);
        }
        if let Some(batch) = rest
            && let Some(lane) = self.lanes.get(id)
        {
            if accepted > 0 {
                // Earlier failures of the whole call do not count against these records.
                attempts = attempts.of_kind(Kind::Record);
            }
            let job = lane.job(remaining, batch, attempts, None);
            lane.delay(job, Kind::Record, retry::RECORD, now, &mut self.random);
        }
        self.log_bill(out);
    }

    /// Logs once what the rounding to 5 KB costs, if that is a multiple.
    fn log_bill(&mut self, out: &mut Vec<Action>) {
        let (records, bytes) = (self.counts.records_accepted.get(), self.counts.bytes.get());
        if self.bill_logged || records < BILL_AFTER || self.record.pack.aggregate {
            return;
        }
        self.bill_logged = true;
        let times = self.counts.billed_bytes.get() as f64 / bytes.max(1) as f64;
        if times >= 2.0 {
            let mean = bytes / records;
            let text = format!(
                "records of {mean} bytes on average are billed as {times:.0} times their size (steps of 5 KB); \
                 simple_aggregation avoids that where the destination splits lines (S3, OpenSearch)"
            );
            out.push(Action::Log { level: Level::Info, text });
        }
    }

    /// Handles a call that failed whole: the same batch is sent again, later.
    fn failed(&mut self, id: LaneId, job: Job, class: Class, fault: &Fault, now: Instant, out: &mut Vec<Action>) {
        let of_stream = self.of_stream(id);
        let (kind, limits) = match class {
            Class::Setup(setup) => {
                if matches!(setup, Setup::Credentials | Setup::Refused | Setup::Denied) {
                    out.push(Action::RenewCredentials);
                }
                if let Some(lane) = self.lanes.get(id) {
                    lane.trouble.get_or_insert((now, setup));
                }
                if let Some(more) = self.is_due(class.name(), Some(id), now) {
                    let stream = self.lanes.stream(id);
                    out.push(Action::CannotDeliver { setup, stream, text: with_more(&fault.text, more) });
                }
                (Kind::Setup, retry::SETUP)
            }
            Class::Throttled | Class::Service | Class::Poison => {
                let text = format!("PutRecordBatch failed{of_stream}: {fault}; its records are sent again");
                self.log_sometimes(class.name(), Level::Warn, &text, now, out);
                (Kind::Call, retry::CALL)
            }
        };
        let Some(lane) = self.lanes.get(id) else { return };
        if class == Class::Throttled {
            self.counts.throttled.add(1);
            lane.limit.throttled(now);
        }
        lane.went_wrong(now, limits, kind == Kind::Setup, &mut self.random);
        lane.delay(job, kind, limits, now, &mut self.random);
    }

    /// Handles a batch that the service never accepts: halves it, until the bad record is alone.
    fn poisoned(&mut self, id: LaneId, mut job: Job, fault: &Fault, now: Instant, out: &mut Vec<Action>) {
        let of_stream = self.of_stream(id);
        let Some(lane) = self.lanes.get(id) else { return };
        lane.probed();
        let since = *job.suspect_since.get_or_insert(now);
        let records = job.batch.places().len();
        if records > 1 {
            let cost = job.cost();
            let halves = [
                lane.part(&job.batch, |index| index < records / 2),
                lane.part(&job.batch, |index| index >= records / 2),
            ];
            let Job { owners, batch, attempts, .. } = job;
            self.lanes.release(id, batch, cost);
            let Some(lane) = self.lanes.get(id) else { return };
            for (owners, batch) in split(owners, records / 2).into_iter().zip(halves) {
                let Some(batch) = batch else { continue };
                let half = lane.job(owners, batch, attempts, Some(since));
                lane.probe(half, now);
            }
            return;
        }
        // Is it the record, or does the service refuse any? If it has accepted another since, it is the record.
        let another = lane.last_accepted.is_some_and(|accepted| accepted >= since);
        if another || job.attempts.count_of(Kind::Poison) >= BLAME_AFTER {
            let cost = job.cost();
            let Job { owners, batch, .. } = job;
            for (Owner { origin, .. }, place) in owners.iter().zip(batch.places()) {
                let record = batch.record(place);
                self.dead_letter(id, origin.clone(), place.events.clone(), fault.text.clone(), record, out);
            }
            self.lanes.release(id, batch, cost);
        } else {
            let text =
                format!("a record is refused{of_stream}, and no other was accepted since: {fault}; it is tried again");
            self.log_sometimes("poison", Level::Warn, &text, now, out);
            if let Some(lane) = self.lanes.get(id) {
                lane.delay(job, Kind::Poison, retry::SETUP, now, &mut self.random);
            }
        }
    }

    /// Dead-letters a record. It is settled once it is written.
    fn dead_letter(
        &mut self,
        lane: LaneId,
        origin: Arc<Origin>,
        events: Events,
        reason: String,
        record: Vec<u8>,
        out: &mut Vec<Action>,
    ) {
        self.counts.records_dead_lettered.add(1);
        self.next_letter += 1;
        let letter = LetterId(self.next_letter);
        let bytes = record.capacity();
        self.room.add(bytes);
        out.push(Action::DeadLetter {
            letter,
            tag: origin.tag.clone(),
            stream: self.lanes.stream(lane),
            reason: reason.clone(),
            record,
        });
        self.letters.insert(letter, Letter { origin, events, bytes, reason });
    }

    fn lettered(&mut self, letter: LetterId, outcome: Result<(), String>, now: Instant, out: &mut Vec<Action>) {
        let Some(Letter { origin, events, bytes, reason }) = self.letters.remove(&letter) else { return };
        self.room.sub(bytes);
        if let Some((_, wrote)) = &mut self.gave_up {
            *wrote = now;
        }
        let Origin { tag, chunk, delivery, .. } = &*origin;
        let all = self.counts.records_dead_lettered.get();
        let about = format!("a record with tag {tag} cannot be delivered: {reason}");
        match outcome {
            Ok(()) => {
                let text = format!("{about}; it is in the dead_letter_file ({all} so far)");
                self.log_sometimes("dead letter", Level::Warn, &text, now, out);
            }
            Err(error) => {
                self.counts.records_dropped.add(1);
                let text = format!("{about}; it is lost: {error} ({} so far)", self.counts.records_dropped.get());
                self.log_sometimes("lost", Level::Error, &text, now, out);
            }
        }
        if let Some(chunk) = chunk {
            self.note(*chunk, *delivery, events.stretches().to_vec(), out);
        }
        self.ledger.settle(*delivery, 1, now, out);
    }

    /// Counts and logs older dead letters that were deleted.
    fn discarded(&mut self, letters: u64, now: Instant, out: &mut Vec<Action>) {
        if letters == 0 {
            return;
        }
        self.counts.dead_letters_discarded.add(letters);
        let all = self.counts.dead_letters_discarded.get();
        let text = format!(
            "the oldest dead letters were deleted to stay within dead_letter_limit, and are lost ({all} so far); raise it, or move the files away in time"
        );
        self.log_sometimes("discarded", Level::Error, &text, now, out);
    }

    /// Notes in the spool that these events are settled, if their chunk is there or being written.
    fn note(&mut self, chunk: ChunkId, delivery: DeliveryId, events: Vec<Range<u32>>, out: &mut Vec<Action>) {
        if self.ledger.kept(delivery) != Kept::No {
            out.push(Action::Note { chunk, events });
        }
    }

    /// At the exit, dead-letters what was not sent in time and is not in the spool.
    fn give_up(&mut self, out: &mut Vec<Action>) {
        let (calls, jobs) = self.lanes.give_up();
        self.counts.in_flight.sub(calls.len() as u64);
        out.extend(calls.into_iter().map(|call| Action::CancelCall { call }));
        for (lane, job, in_flight) in jobs {
            let cost = job.cost();
            let ambiguous = in_flight || job.ambiguous;
            let Job { owners, batch, .. } = job;
            let mut places = batch.places().iter();
            for Owner { origin, records } in &owners {
                let places = places.by_ref().take(*records);
                if matches!(self.ledger.kept(origin.delivery), Kept::Stored(_)) {
                    self.given_up.1 += places.count() as u64;
                    continue;
                }
                for place in places {
                    let reason = match ambiguous {
                        true => "the exit came before the reply to its call, which may have been accepted",
                        false => "the exit came before it could be sent",
                    };
                    self.given_up.0 += 1;
                    let record = batch.record(place);
                    self.dead_letter(lane, origin.clone(), place.events.clone(), reason.to_owned(), record, out);
                }
            }
            self.lanes.release(lane, batch, cost);
        }
    }

    /// The stream, for log lines, if there are several.
    fn of_stream(&self, lane: LaneId) -> String {
        match self.lanes.template() {
            true => format!(" (stream {})", self.lanes.stream(lane)),
            false => String::new(),
        }
    }

    /// If a line of this kind is due (of one lane, or of all), how many were left out since the last one.
    fn is_due(&mut self, kind: &'static str, lane: Option<LaneId>, now: Instant) -> Option<u64> {
        match self.logged.get_mut(&(kind, lane)) {
            Some((last, more)) if now.saturating_duration_since(*last) < LOG_EVERY => {
                *more += 1;
                None
            }
            Some((last, more)) => {
                *last = now;
                Some(std::mem::take(more))
            }
            None => {
                // Some are of lanes that no longer exist.
                if self.logged.len() >= LOGGED {
                    self.logged.retain(|_, (last, _)| now.saturating_duration_since(*last) < LOG_EVERY);
                }
                self.logged.insert((kind, lane), (now, 0));
                Some(0)
            }
        }
    }

    /// Logs at most one line of each kind a minute, with how many were left out.
    fn log_sometimes(&mut self, kind: &'static str, level: Level, text: &str, now: Instant, out: &mut Vec<Action>) {
        if let Some(more) = self.is_due(kind, None, now) {
            out.push(Action::Log { level, text: with_more(text, more) });
        }
    }

    /// What the core holds besides copies of chunks, counted anew, for tests.
    #[doc(hidden)]
    pub fn measure(&self) -> usize {
        self.lanes.measure() + self.letters.values().map(|letter| letter.bytes).sum::<usize>()
    }

    /// Records that are not settled, for tests.
    #[doc(hidden)]
    pub fn unsettled(&self) -> u64 {
        self.ledger.unsettled()
    }

    /// Whether nothing is held or owed any more.
    pub fn is_idle(&self) -> bool {
        self.lanes.are_empty()
            && !self.lanes.have_open()
            && self.deferred.is_empty()
            && self.queue.is_empty()
            && self.unreadable.is_empty()
            && self.encoding.is_none()
            && self.parked.is_empty()
            && self.letters.is_empty()
            && self.storing.is_empty()
            && self.ledger.unended() == 0
    }
}

fn with_more(text: &str, more: u64) -> String {
    match more {
        0 => text.to_owned(),
        more => format!("{text} ({more} more of the kind since the last line)"),
    }
}
