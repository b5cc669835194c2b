//! Batches on their way: in flight, backoff, retry of what is left.
//!
//! One task owns all of it, the encoder too. A batch is *ready*, *in flight*, or *delayed* until its backoff is over; of a batch that was
//! taken in part only the rest goes on. Each record ends settled in the ledger exactly once: accepted, or put aside.

pub mod batch;
pub mod encode;
pub mod ledger;

use crate::delivery::batch::{Batch, Opening};
use crate::delivery::encode::{Encoder, EncoderParts, HandOver};
use crate::delivery::ledger::{DeliveryId, Ledger};
use crate::firehose::http::TlsError;
use crate::firehose::{Answer, Class, Fault, Firehose, Setup};
use crate::host::{self, Level, Log, Metrics};
use crate::metrics::{Counts, billed};
use crate::options::{Config, DeliveryConfig};
use crate::record::RecordWriter;
use crate::storage::dead_letters::Aside;
use crate::storage::spool::{Spool, Spooled};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;

/// What the task is told. When nobody can tell it anything any more, it drains.
pub enum Command {
    /// Deliver this chunk.
    Take(HandOver),
    /// Send these records of no chunk.
    Send(ChunkOf, Batch),
    /// Put aside what is left.
    End,
}

/// Backoff of records that were refused one by one: first and longest.
const RECORD_BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));
/// Backoff of calls that failed as a whole.
const BATCH_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Backoff while something has to be mended.
const SETUP_BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// One log line for each kind of fault in this time.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// After so many records, their mean size is known well enough to speak of the bill.
const BILL_AFTER: u64 = 1000;
/// How often the counts are shown while something happens.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);
/// The calls in flight are not halved more often than this: replies to calls made before the last time say nothing new.
const HALVE_EVERY: Duration = Duration::from_millis(200);
/// A lone record that is refused as invalid while nothing else is accepted either is tried so often before it is blamed.
const BLAME_AFTER: u32 = 8;

/// A batch on its way.
pub struct Job {
    /// Whose records these are, in their order.
    owners: Vec<Owner>,
    batch: Batch,
    attempt: u32,
    /// The last call's outcome is unclear: to send it again may repeat it.
    unclear: bool,
    /// When its records were first refused as invalid.
    suspect_since: Option<Instant>,
}

impl Job {
    /// One that has not been sent yet.
    pub fn new(owners: Vec<Owner>, batch: Batch) -> Job {
        Job { owners, batch, attempt: 0, unclear: false, suspect_since: None }
    }
}

/// A chunk and how many records of a batch, one after the other, are its own.
pub struct Owner {
    /// The chunk.
    pub chunk: ChunkOf,
    /// The number of its records.
    pub records: usize,
}

/// The owners of the first `records`, and of the rest.
fn split(owners: Vec<Owner>, records: usize) -> [Vec<Owner>; 2] {
    let (mut first, mut rest, mut room) = (Vec::new(), Vec::new(), records);
    for Owner { chunk, records } in owners {
        let before = records.min(room);
        room -= before;
        if before > 0 {
            first.push(Owner { chunk: chunk.clone(), records: before });
        }
        if records > before {
            rest.push(Owner { chunk, records: records - before });
        }
    }
    [first, rest]
}

/// What a batch's records have in common.
#[derive(Clone)]
pub struct ChunkOf {
    /// Their delivery.
    pub delivery: DeliveryId,
    /// The tag of their chunk, for dead letters.
    pub tag: Arc<str>,
    /// Where their chunk is kept, if it is.
    pub spooled: Option<Arc<Spooled>>,
}

impl ChunkOf {
    /// Of the chunk with this tag.
    pub fn new(delivery: DeliveryId, tag: &[u8], spooled: Option<Arc<Spooled>>) -> ChunkOf {
        ChunkOf { delivery, tag: String::from_utf8_lossy(tag).into(), spooled }
    }
}

struct Delayed {
    due: Instant,
    number: u64,
    job: Job,
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Delayed {}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Delayed {
    /// The one that is due first is the greatest, for the heap's sake.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

type Call = Pin<Box<dyn Future<Output = (u64, Result<Answer, Fault>)> + Send>>;

/// The task that delivers one output's batches.
pub struct Courier {
    firehose: Arc<Firehose>,
    config: Config,
    opening: Arc<Opening>,
    ledger: Arc<Ledger>,
    counts: Arc<Counts>,
    aside: Arc<Aside>,
    log: Arc<Log>,
    encoder: Encoder,
    commands: UnboundedReceiver<Command>,
    metrics: Option<Metrics>,
    published: Instant,
    /// Something may have happened since.
    unpublished: bool,

    ready: VecDeque<Job>,
    delayed: BinaryHeap<Delayed>,
    in_flight: HashMap<u64, Job>,
    calls: FuturesUnordered<Call>,
    number: u64,
    pressure: Pressure,
    records_pace: Pace,
    bytes_pace: Pace,
    last_accepted: Option<Instant>,
    trouble: Option<(Instant, Setup)>,
    logged: HashMap<&'static str, (Instant, u64)>,
    drain: Option<Instant>,
    bill_told: bool,
}

/// What a courier needs from outside.
pub struct CourierParts {
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
    /// What is to be sent.
    pub commands: UnboundedReceiver<Command>,
    /// Where the counts are shown, if the host has such a place.
    pub metrics: Option<Metrics>,
}

impl Courier {
    /// A courier with nothing to do yet.
    ///
    /// # Errors
    /// See [`Firehose::new`].
    pub fn new(parts: CourierParts) -> Result<Courier, TlsError> {
        let DeliveryConfig { concurrency, records_per_second, bytes_per_second, .. } = parts.config.delivery;
        let encoder = Encoder::new(EncoderParts {
            config: parts.config.clone(),
            opening: parts.opening.clone(),
            ledger: parts.ledger.clone(),
            aside: parts.aside.clone(),
            log: parts.log.clone(),
            spool: parts.spool,
            left: parts.left,
        });
        Ok(Courier {
            firehose: Arc::new(Firehose::new(parts.config.firehose.clone())?),
            counts: parts.ledger.counts().clone(),
            config: parts.config,
            opening: parts.opening,
            ledger: parts.ledger,
            aside: parts.aside,
            log: parts.log,
            encoder,
            commands: parts.commands,
            metrics: parts.metrics,
            published: Instant::now(),
            unpublished: false,
            ready: VecDeque::new(),
            delayed: BinaryHeap::new(),
            in_flight: HashMap::new(),
            calls: FuturesUnordered::new(),
            number: 0,
            pressure: Pressure::new(concurrency),
            records_pace: Pace::new(records_per_second),
            bytes_pace: Pace::new(bytes_per_second),
            last_accepted: None,
            trouble: None,
            logged: HashMap::new(),
            drain: None,
            bill_told: false,
        })
    }

    /// Delivers until nobody can hand anything over any more and nothing is left, or no time.
    pub async fn run(mut self) {
        let options = self.config.record.clone();
        let mut texts = RecordWriter::new(&options);
        loop {
            let expiry = self.encoder.work(&mut texts, &mut self.ready);
            let wake = self.launch(Instant::now());
            if self.unpublished && self.published.elapsed() >= PUBLISH_EVERY {
                self.publish();
            }
            if let Some(deadline) = self.drain {
                let left = self.ready.len() + self.delayed.len() + self.calls.len() + self.encoder.waiting();
                if left == 0 || Instant::now() >= deadline {
                    break;
                }
            }
            let publish = self.unpublished.then(|| self.published + PUBLISH_EVERY);
            let wake = [expiry, wake, self.drain, publish].into_iter().flatten().min();
            tokio::select! {
                biased;
                Some((number, result)) = self.calls.next(), if !self.calls.is_empty() => self.finished(number, result),
                command = self.commands.recv(), if self.drain.is_none() => self.accept(command),
                () = sleep_until(wake) => {}
            }
            if !self.commands.is_empty() {
                // The connections are tasks of their own, and write only while this one rests.
                tokio::task::yield_now().await;
            }
        }
        self.give_up();
        self.publish();
    }

    fn publish(&mut self) {
        self.published = Instant::now();
        self.unpublished = false;
        if let Some(metrics) = &self.metrics {
            metrics.publish(&self.counts);
        }
    }

    fn accept(&mut self, command: Option<Command>) {
        self.unpublished = true;
        match command {
            Some(Command::Take(hand_over)) => self.encoder.take(hand_over),
            Some(Command::Send(chunk, batch)) => {
                let records = batch.places().len();
                self.ready.push_back(Job::new(vec![Owner { chunk, records }], batch));
            }
            Some(Command::End) => self.drain = Some(Instant::now()),
            None => {
                self.encoder.close();
                // Flushes may have used up that time while the host ended, and other outputs, which end one after the other.
                let since = host::ending_since().unwrap_or_else(Instant::now);
                self.drain = Some(since + self.config.delivery.shutdown_timeout);
            }
        }
    }

    /// Makes the calls that may be made now; says when to look again.
    fn launch(&mut self, now: Instant) -> Option<Instant> {
        while self.delayed.peek().is_some_and(|next| next.due <= now) {
            // What has waited goes before what has not been sent yet.
            if let Some(next) = self.delayed.pop() {
                self.ready.push_front(next.job);
            }
        }
        let mut wake = self.delayed.peek().map(|next| next.due);
        while self.in_flight.len() < self.pressure.limit() && !self.ready.is_empty() {
            let start =
                [self.pressure.resume, self.records_pace.ready, self.bytes_pace.ready].into_iter().flatten().max();
            if let Some(start) = start.filter(|start| *start > now) {
                wake = Some(wake.map_or(start, |wake| wake.min(start)));
                break;
            }
            if let Some(job) = self.ready.pop_front() {
                self.call(job, now);
            }
        }
        wake
    }

    fn call(&mut self, job: Job, now: Instant) {
        let records = job.batch.places().len() as u64;
        self.records_pace.spend(records, now);
        self.bytes_pace.spend(job.batch.bytes(), now);
        if job.attempt > 0 || job.suspect_since.is_some() {
            self.counts.records_resent.add(records);
        }
        if job.unclear {
            self.counts.records_possibly_duplicate.add(records);
        }
        self.number += 1;
        let (number, firehose, body) = (self.number, self.firehose.clone(), job.batch.body());
        self.in_flight.insert(number, job);
        self.counts.in_flight.add(1);
        let counts = self.counts.clone();
        self.calls.push(Box::pin(async move {
            let result = firehose.put(body, records as usize).await;
            counts.call_seconds.observe(now.elapsed());
            (number, result)
        }));
    }

    fn finished(&mut self, number: u64, result: Result<Answer, Fault>) {
        self.unpublished = true;
        self.counts.in_flight.sub(1);
        let Some(mut job) = self.in_flight.remove(&number) else { return };
        match result {
            Ok(answer) => {
                job.unclear = false;
                self.answered(job, &answer);
            }
            Err(fault) => {
                self.counts.error(fault.class);
                job.unclear = fault.unclear;
                match fault.class {
                    Class::Poison => self.poisoned(job, &fault),
                    class => self.failed(job, class, &fault),
                }
            }
        }
    }

    fn answered(&mut self, job: Job, answer: &Answer) {
        let now = Instant::now();
        let records = job.batch.places().len();
        let taken = records - answer.refused.len();
        if taken > 0 {
            self.last_accepted = Some(now);
            self.counts.batches.add(1);
            self.pressure.went_well();
            if let Some((since, _)) = self.trouble.take() {
                self.log.line(Level::Info, &format!("records are taken again after {:.0?}", now - since));
            }
        }
        let Job { owners, batch, attempt, .. } = job;
        let mut refused = answer.refused.iter().map(|refused| refused.index).peekable();
        let mut places = batch.places().iter().enumerate();
        let (mut settled, mut left) = (Vec::with_capacity(owners.len()), Vec::new());
        for Owner { chunk, records } in owners {
            let mut events = Vec::new();
            let mut accepted = 0;
            for (index, place) in places.by_ref().take(records) {
                if refused.next_if_eq(&index).is_some() {
                    continue;
                }
                accepted += 1;
                self.counts.bytes.add(place.bytes.into());
                self.counts.billed_bytes.add(billed(place.bytes.into()));
                if chunk.spooled.is_some() {
                    events.push(place.events.clone());
                }
            }
            self.note(&chunk, &events);
            settled.push((chunk.delivery, accepted as u64));
            if accepted < records {
                left.push(Owner { chunk, records: records - accepted });
            }
        }
        self.counts.records_accepted.add(taken as u64);
        self.tell_the_bill();
        let rest = match answer.refused.as_slice() {
            [] => None,
            refused => {
                let mut indices = refused.iter().map(|refused| refused.index).peekable();
                let throttled = refused.iter().filter(|refused| refused.code == "ServiceUnavailableException").count();
                if throttled > 0 {
                    self.counts.throttled.add(throttled as u64);
                    self.pressure.throttled(now);
                }
                let text = format!("{}: {} of {records} records", refused[0].code, refused.len());
                self.log_now_and_then("refused", Level::Warn, &format!("{text} were not taken; they are sent again"));
                batch.part(&self.opening, |index| indices.next_if_eq(&index).is_some())
            }
        };
        self.release(batch);
        for (delivery, records) in settled {
            self.ledger.settle(delivery, records);
        }
        if let Some(batch) = rest {
            self.counts.held.add(batch.held() as u64);
            let attempt = attempt + 1;
            let job = Job { owners: left, batch, attempt, unclear: false, suspect_since: None };
            self.delay(job, backoff(RECORD_BACKOFF, attempt));
        }
    }

    /// Says once what the rounding to 5 KB costs, when it costs a multiple.
    fn tell_the_bill(&mut self) {
        let (records, bytes) = (self.counts.records_accepted.get(), self.counts.bytes.get());
        if self.bill_told || records < BILL_AFTER || self.config.record.pack.aggregate {
            return;
        }
        self.bill_told = true;
        let times = self.counts.billed_bytes.get() as f64 / bytes.max(1) as f64;
        if times >= 2.0 {
            let mean = bytes / records;
            let line = format!(
                "records of {mean} bytes on average are billed as {times:.0} times their size (steps of 5 KB); \
                 simple_aggregation avoids that where the destination splits lines (S3, OpenSearch)"
            );
            self.log.line(Level::Info, &line);
        }
    }

    /// The call came to nothing: the same batch again, later.
    fn failed(&mut self, mut job: Job, class: Class, fault: &Fault) {
        let now = Instant::now();
        job.attempt += 1;
        let limits = match class {
            Class::Setup(setup) => {
                if matches!(setup, Setup::Credentials | Setup::Refused | Setup::Denied) {
                    // They may have been mended where the SDK looks only once.
                    self.firehose.forget_credentials();
                }
                self.trouble.get_or_insert((now, setup));
                let cure = setup.cure(&self.config.firehose);
                let line = format!("cannot deliver: {fault}; the records are kept. To mend it: {cure}");
                self.log_now_and_then(class.name(), Level::Error, &line);
                SETUP_BACKOFF
            }
            Class::Throttled | Class::Service | Class::Poison => {
                let line = format!("PutRecordBatch failed: {fault}; its records are sent again");
                self.log_now_and_then(class.name(), Level::Warn, &line);
                BATCH_BACKOFF
            }
        };
        if class == Class::Throttled {
            self.counts.throttled.add(1);
            self.pressure.throttled(now);
        }
        let wait = backoff(limits, job.attempt);
        self.pressure.went_wrong(now, limits, matches!(class, Class::Setup(_)));
        self.delay(job, wait);
    }

    /// The service will never take this batch: halve it, until the offender stands alone.
    fn poisoned(&mut self, mut job: Job, fault: &Fault) {
        let now = Instant::now();
        let since = *job.suspect_since.get_or_insert(now);
        let records = job.batch.places().len();
        if records > 1 {
            let halves = [
                job.batch.part(&self.opening, |index| index < records / 2),
                job.batch.part(&self.opening, |index| index >= records / 2),
            ];
            let Job { owners, batch, attempt, .. } = job;
            self.release(batch);
            for (owners, batch) in split(owners, records / 2).into_iter().zip(halves) {
                let Some(batch) = batch else { continue };
                self.counts.held.add(batch.held() as u64);
                self.ready.push_front(Job { owners, batch, attempt, unclear: false, suspect_since: Some(since) });
            }
            return;
        }
        // Is it the record, or would the service refuse any? Another one's acceptance since tells.
        if self.last_accepted.is_some_and(|accepted| accepted >= since) || job.attempt >= BLAME_AFTER {
            let Job { owners, batch, .. } = job;
            for (Owner { chunk, .. }, place) in owners.iter().zip(batch.places()) {
                self.aside.record(&chunk.tag, &fault.text, batch.record(place));
                self.note(chunk, std::slice::from_ref(&place.events));
            }
            self.release(batch);
            for Owner { chunk, .. } in owners {
                self.ledger.settle(chunk.delivery, 1);
            }
        } else {
            job.attempt += 1;
            let line = format!("a record is refused, and no other was taken since: {fault}; it is tried again");
            self.log_now_and_then("poison", Level::Warn, &line);
            let wait = backoff(SETUP_BACKOFF, job.attempt);
            self.delay(job, wait);
        }
    }

    /// Notes in the spool that these events are settled.
    fn note(&mut self, chunk: &ChunkOf, events: &[Range<u32>]) {
        if let Some(spooled) = &chunk.spooled
            && let Err(error) = spooled.note(events)
        {
            let file = spooled.file();
            let line = format!(
                "cannot note beside {} what was delivered: {error}; after a crash it would be sent again. Free space in spool_dir",
                file.display()
            );
            self.log_now_and_then("spool", Level::Error, &line);
        }
    }

    fn delay(&mut self, job: Job, wait: Duration) {
        self.number += 1;
        self.delayed.push(Delayed { due: Instant::now() + wait, number: self.number, job });
    }

    /// Gives a batch's memory back.
    fn release(&mut self, batch: Batch) {
        self.counts.held.sub(batch.held() as u64);
        if let Some(buffer) = batch.into_buffer() {
            self.encoder.reuse(buffer);
        }
    }

    /// At the exit: puts aside what could not be sent in time.
    fn give_up(&mut self) {
        self.calls.clear();
        let unclear = self.in_flight.drain().map(|(_, job)| (job, "the exit came before the reply to its call"));
        let rest = self.ready.drain(..).chain(std::mem::take(&mut self.delayed).into_iter().map(|delayed| delayed.job));
        let left: Vec<_> = unclear.chain(rest.map(|job| (job, "the exit came before it could be sent"))).collect();
        let (mut records, mut spooled) = (0, 0);
        for (job, reason) in left {
            let mut places = job.batch.places().iter();
            for owner in &job.owners {
                let places = places.by_ref().take(owner.records);
                if owner.chunk.spooled.is_some() {
                    spooled += places.count();
                    continue;
                }
                for place in places {
                    self.aside.record(&owner.chunk.tag, reason, job.batch.record(place));
                    records += 1;
                }
            }
            self.release(job.batch);
        }
        if self.encoder.waiting() > 0 {
            let line = format!("{} chunks stay in spool_dir for the next start", self.encoder.waiting());
            self.log.line(Level::Info, &line);
        }
        if spooled > 0 {
            self.log.line(Level::Info, &format!("{spooled} records stay in spool_dir for the next start"));
        }
        if records > 0 {
            let timeout = self.config.delivery.shutdown_timeout;
            let line = format!("{records} records could not be delivered within shutdown_timeout ({timeout:?})");
            self.log.line(Level::Error, &line);
        }
    }

    /// One line for each kind of fault a minute, with how many there were.
    fn log_now_and_then(&mut self, kind: &'static str, level: Level, text: &str) {
        let now = Instant::now();
        let (last, more) = self.logged.entry(kind).or_insert((now, 0));
        if *last != now && now - *last < LOG_EVERY {
            *more += 1;
            return;
        }
        let more = std::mem::replace(more, 0);
        *last = now;
        match more {
            0 => self.log.line(level, text),
            more => self.log.line(level, &format!("{text} ({more} more of the kind since the last line)")),
        }
    }
}

/// Full jitter: anything up to the bound, which doubles with each attempt.
/// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
fn backoff((first, longest): (Duration, Duration), attempt: u32) -> Duration {
    let bound = first.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(longest);
    bound.mul_f64(fastrand::f64())
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

/// How many calls may be in flight: halved under throttling, and grown back by what goes well.
struct Pressure {
    most: f64,
    limit: f64,
    halved: Option<Instant>,
    /// Calls that failed as a whole since the last one that did not.
    failures: u32,
    setup: bool,
    /// No call before this.
    resume: Option<Instant>,
}

impl Pressure {
    fn new(most: usize) -> Pressure {
        Pressure { most: most as f64, limit: most as f64, halved: None, failures: 0, setup: false, resume: None }
    }

    fn limit(&self) -> usize {
        // While something has to be mended, one call at a time asks whether it has been.
        if self.setup { 1 } else { self.limit as usize }
    }

    fn went_well(&mut self) {
        self.failures = 0;
        self.setup = false;
        self.resume = None;
        self.limit = (self.limit + 0.25).min(self.most);
    }

    fn throttled(&mut self, now: Instant) {
        if self.halved.is_none_or(|halved| now - halved >= HALVE_EVERY) {
            self.halved = Some(now);
            self.limit = (self.limit / 2.0).max(1.0);
        }
    }

    fn went_wrong(&mut self, now: Instant, limits: (Duration, Duration), setup: bool) {
        self.failures += 1;
        self.setup |= setup;
        // A single failure holds up its own batch only; a run of them, everything.
        if setup || self.failures >= 3 {
            self.resume = Some(now + backoff(limits, self.failures).max(limits.0));
        }
    }
}

/// Keeps under a quota: the next call may be made when the last one's share of a second is over.
struct Pace {
    per_second: Option<f64>,
    ready: Option<Instant>,
}

impl Pace {
    fn new(per_second: Option<u64>) -> Pace {
        Pace { per_second: per_second.map(|rate| rate as f64), ready: None }
    }

    fn spend(&mut self, amount: u64, now: Instant) {
        if let Some(rate) = self.per_second {
            let from = self.ready.map_or(now, |ready| ready.max(now));
            self.ready = Some(from + Duration::from_secs_f64(amount as f64 / rate));
        }
    }
}
