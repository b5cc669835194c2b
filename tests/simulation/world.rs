//! One world: the real core between models of its host, its service and its disk. Every step is checked, and the end
//! of each run.
//!
//! `watch.rs` checks single actions and inputs against earlier ones.

use crate::disk::{Disk, Trouble};
use crate::host::{self, Chunk, EventId, Fate, Tally, Worker, pad_of};
use crate::service::{Service, WEATHERS, Weather, is_poison};
use crate::watch::Watch;
use kubehose::delivery::room::Room;
use kubehose::delivery::{Action, CallId, Delivery, FlushId, Identity, Input, Now, Parts};
use kubehose::event::chunk::Time;
use kubehose::host::Status;
use kubehose::metrics::Counts;
use kubehose::options::Config;
use kubehose::record::MAX_RECORD;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest time from a host thread's admission to its copy, plus a margin.
const COPY: Duration = Duration::from_micros(2300);

/// How much longer than its deadline a flush's thread waits: src/output.rs.
const MARGIN: Duration = Duration::from_secs(2);

/// The faults that last in a world where some streams fail to the end.
const LASTING: [Weather; 6] =
    [Weather::Throttled, Weather::Silent, Weather::Unreachable, Weather::Credentials, Weather::Missing, Weather::Quota];

/// The longest time for the events of healthy streams after the last chunk: a chunk answered RETRY is flushed again
/// within 20 s.
const WELL: Duration = Duration::from_secs(120);

/// Counts of what has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    events: u64,
    calls: u64,
    steps: u64,
    simulated: Duration,
    lives: u64,
    crashes: u64,
    signals: u64,
    reloads: u64,
    ambiguous: u64,
    partial: u64,
    poisoned: u64,
    retries: u64,
    host_dropped: u64,
    dead_lettered: u64,
    disk_refused: u64,
    parked: u64,
    attached: u64,
    /// Chunks that the host's threads answered OK by themselves.
    acknowledged_at_once: u64,
    stalls: u64,
    /// The longest time that a healthy stream waited for its last event while others failed.
    pub waited: Duration,
}

impl Summary {
    pub fn add(&mut self, other: &Summary) {
        let Summary {
            events,
            calls,
            steps,
            simulated,
            lives,
            crashes,
            signals,
            reloads,
            ambiguous,
            partial,
            poisoned,
            retries,
            host_dropped,
            dead_lettered,
            disk_refused,
            parked,
            attached,
            acknowledged_at_once,
            stalls,
            waited,
        } = other;
        self.waited = self.waited.max(*waited);
        self.events += events;
        self.calls += calls;
        self.steps += steps;
        self.simulated += *simulated;
        self.lives += lives;
        self.crashes += crashes;
        self.signals += signals;
        self.reloads += reloads;
        self.ambiguous += ambiguous;
        self.partial += partial;
        self.poisoned += poisoned;
        self.retries += retries;
        self.host_dropped += host_dropped;
        self.dead_lettered += dead_lettered;
        self.disk_refused += disk_refused;
        self.parked += parked;
        self.attached += attached;
        self.acknowledged_at_once += acknowledged_at_once;
        self.stalls += stalls;
    }

    /// Whether each kind of fault, and of answer, has happened.
    pub fn every_fault_fired(&self) -> bool {
        [
            self.crashes,
            self.signals,
            self.reloads,
            self.ambiguous,
            self.partial,
            self.poisoned,
            self.retries,
            self.host_dropped,
            self.dead_lettered,
            self.disk_refused,
            self.parked,
            self.attached,
            self.acknowledged_at_once,
            self.stalls,
        ]
        .iter()
        .all(|count| *count > 0)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} events, {} calls, {} steps, {:.0} simulated hours, {} lives ({} crashes, {} signals, {} reloads), {} ambiguous \
             outcomes, {} partial, {} poisoned calls, {} RETRY, {} attached, {} acknowledged at once, {} chunks dropped by the host, {} dead letters, {} times \
             refused by the disk, {} flushes parked, {} stalls",
            self.events,
            self.calls,
            self.steps,
            self.simulated.as_secs_f64() / 3600.0,
            self.lives,
            self.crashes,
            self.signals,
            self.reloads,
            self.ambiguous,
            self.partial,
            self.poisoned,
            self.retries,
            self.attached,
            self.acknowledged_at_once,
            self.host_dropped,
            self.dead_lettered,
            self.disk_refused,
            self.parked,
            self.stalls
        )
    }
}

/// An event of the simulation, due at a time.
#[derive(Debug)]
enum Happening {
    NewChunk,
    /// The host flushes a chunk again.
    Again(usize),
    /// A call's outcome reaches the client.
    Answer(CallId),
    /// The disk does its next task.
    Disk,
    /// The flush's thread has copied its chunk.
    Copied(u64, kubehose::delivery::room::Reservation),
    Weather,
    DiskTrouble,
    /// A signal, a reload, or `kill -9`.
    End(Ending),
    /// The engine stops waiting for its tasks.
    GraceOver,
    /// The core's thread does not run for this long.
    Stall(Duration),
    /// A flush's thread stops waiting for an answer.
    GivesUp(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Signal,
    Reload,
    Crash,
}

struct Entry {
    at: Instant,
    number: u64,
    life: u32,
    happening: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// The whole state of a simulation.
struct World<'o> {
    config: &'o Config,
    host: host::Options,
    random: fastrand::Rng,
    begin: Instant,
    now: Instant,
    agenda: BinaryHeap<Entry>,
    number: u64,
    trace: bool,

    life: u32,
    core: Option<Delivery<'o>>,
    room: Arc<Room>,
    counts: Arc<Counts>,
    workers: Vec<Worker>,
    chunks: Vec<Chunk>,
    /// Chunks that were flushed in this run.
    flushed: BTreeSet<usize>,
    next_flush: u64,
    next_event: EventId,
    /// The events of each record of each call, and its outcome.
    open_calls: BTreeMap<CallId, (Vec<Vec<EventId>>, Outcome)>,
    watch: Watch,
    service: Service,
    disk: Disk,
    disk_busy: bool,
    weather: Weather,
    trouble: Trouble,
    /// The weather stays as it is until all events of healthy streams have arrived. When the last chunk came, and
    /// when to check next.
    lasting: Option<(Instant, Instant)>,
    /// From here on no fault happens.
    calm: bool,
    chunks_to_come: u32,
    ending: Option<(Ending, Instant)>,
    grace_over: bool,
    closed: Option<Instant>,
    /// How often each event may be accepted in this run if no outcome is ambiguous.
    allowed: Tally,
    /// Chunks of the spool that the host may flush again in this run.
    left_behind: Vec<Identity>,
    log_lines: (u64, u64),
    summary: Summary,
    largest_chunk: usize,
    /// Whether the core's thread stalls at times.
    stalls: bool,
    /// When the last stall ends or ended.
    stall_end: Instant,
    /// Flushes whose threads gave up, and which the core has not answered since.
    gave_up: BTreeSet<u64>,
    /// Inputs for the core that arrived during a stall.
    backlog: VecDeque<Input>,
}

type Checked = Result<(), String>;

type Outcome = Result<kubehose::firehose::Reply, kubehose::firehose::Fault>;

/// Runs the world of a seed to its end; the error is the first invariant that is broken.
pub fn run(seed: u64, trace: bool) -> Result<Summary, String> {
    run_world(seed, trace, false)
}

/// Runs a world in which half of the streams fail until all events of the others have arrived, which must happen
/// soon.
pub fn run_lasting(seed: u64, trace: bool) -> Result<Summary, String> {
    run_world(seed, trace, true)
}

fn run_world(seed: u64, trace: bool, lasting: bool) -> Result<Summary, String> {
    let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mode = random.u8(..3);
    let workers = [0usize, 1, 2, 8][random.usize(..4)];
    let max_buffer = ["1M", "4M", "64M"][random.usize(..3)];
    let concurrency = ["auto", "1", "8"][random.usize(..3)];
    let flush_timeout = ["1s", "10s", "60s"][random.usize(..3)];
    let quota = ["100", "100000"][random.usize(..2)];
    let streamed = lasting || seed % 3 == 1 && seed % 11 != 3;
    host::set_streamed(streamed);
    let aggregated = seed % 5 == 2;
    let max_streams = ["2", "4", "64"][if lasting { 2 } else { (seed / 3 % 3) as usize }];
    let properties = |name: &str| {
        let value = match name {
            "delivery_stream" if streamed => "x-$s",
            "default_delivery_stream" if streamed => "logs",
            "max_streams" if streamed => max_streams,
            "region" => "eu-west-1",
            "simple_aggregation" if aggregated => "on",
            "delivery_stream" => "logs",
            "oversize" => "drop",
            "spool_dir" if mode == 2 => "/simulated",
            "acknowledge" if mode == 1 => "buffered",
            "max_buffer" => max_buffer,
            "concurrency" => concurrency,
            "flush_timeout" => flush_timeout,
            "shutdown_timeout" => "5s",
            "records_per_second" if seed % 11 == 3 && !lasting => quota,
            _ => return None,
        };
        Some(value.to_owned())
    };
    let config = Config::read(&properties, &|_| None).map_err(|error| error.to_string())?;
    let flush_timeout = match workers {
        0 => config.delivery.flush_timeout.min(Duration::from_millis(500)),
        _ => config.delivery.flush_timeout,
    };
    let host = host::Options {
        workers: workers.max(1),
        flush_timeout,
        retry_limit: if lasting { u32::MAX } else { [1, 1, 3, u32::MAX][random.usize(..4)] },
        filesystem: random.bool(),
        grace: Duration::from_secs([1, 5, 30][random.usize(..3)]),
    };
    if trace {
        println!("{host:?}\nmode {mode}, max_buffer {max_buffer}, concurrency {concurrency}");
    }
    let begin = Instant::now();
    let chunks_to_come = random.u32(1..120);
    let mut world = World {
        config: &config,
        host,
        random,
        begin,
        now: begin,
        agenda: BinaryHeap::new(),
        number: 0,
        trace,
        life: 0,
        core: None,
        room: Arc::new(Room::new(config.delivery.max_buffer)),
        counts: Arc::default(),
        workers: Vec::new(),
        chunks: Vec::new(),
        flushed: BTreeSet::new(),
        next_flush: 0,
        next_event: 0,
        open_calls: BTreeMap::new(),
        watch: Watch::default(),
        service: Service {
            throttles_whole: lasting || seed % 7 == 5,
            refuses_all: seed % 13 == 4,
            turn: seed % 2,
            max_streams: config.streams.most,
            ..Service::default()
        },
        disk: Disk::default(),
        disk_busy: false,
        weather: if lasting { LASTING[(seed / 2 % 6) as usize] } else { Weather::Fine },
        trouble: Trouble::None,
        lasting: lasting.then_some((begin, begin)),
        calm: false,
        chunks_to_come,
        ending: None,
        grace_over: false,
        closed: None,
        allowed: Tally::default(),
        left_behind: Vec::new(),
        log_lines: (0, 0),
        summary: Summary::default(),
        largest_chunk: 0,
        stalls: seed % 9 == 5 && !lasting,
        stall_end: begin,
        gave_up: BTreeSet::new(),
        backlog: VecDeque::new(),
    };
    world.whole_life().map_err(|what| format!("at {:?} in life {}: {what}", world.now - world.begin, world.life))?;
    world.summary.simulated = world.now - world.begin;
    world.summary.calls = world.service.calls;
    world.summary.ambiguous = world.service.ambiguous;
    world.summary.partial = world.service.partial;
    world.summary.poisoned = world.service.poisoned;
    world.summary.disk_refused = world.disk.refused;
    Ok(world.summary)
}

impl World<'_> {
    fn whole_life(&mut self) -> Checked {
        self.boot()?;
        self.later(Duration::ZERO, Happening::NewChunk);
        if self.lasting.is_none() {
            self.later(Duration::ZERO, Happening::Weather);
            self.later(Duration::ZERO, Happening::DiskTrouble);
        }
        let mut calm_since = None;
        loop {
            if self.chunks_to_come == 0 && !self.calm && self.ending.is_none() && self.well_streams_have_theirs()? {
                // The faults end; all remaining events must be delivered within a bounded time.
                self.calm = true;
                (self.weather, self.trouble) = (Weather::Fine, Trouble::None);
                calm_since = Some(self.now);
                self.trace("calm");
            }
            if let Some(since) = calm_since {
                let idle = self.core.as_ref().is_some_and(Delivery::is_idle)
                    && self.chunks.iter().all(|chunk| chunk.fate != Fate::Host)
                    && self.disk.queue.is_empty()
                    && self.backlog.is_empty()
                    && self.ending.is_none();
                if idle {
                    self.check_idle()?;
                    return self.check_end_of_life(false, true);
                }
                if self.now - since > Duration::from_secs(1800) {
                    return Err(format!(
                        "half an hour without faults, and events are still undelivered: {}",
                        self.owed()
                    ));
                }
            }
            self.step()?;
        }
    }

    /// With lasting weather: whether all events of healthy streams have arrived. It is an error if that takes too
    /// long.
    fn well_streams_have_theirs(&mut self) -> Result<bool, String> {
        let Some((since, look)) = self.lasting else { return Ok(true) };
        if self.now < look && !self.agenda.is_empty() {
            return Ok(false);
        }
        self.lasting = Some((since, self.now + Duration::from_secs(1)));
        let service = &self.service;
        let arrives =
            |id: &EventId| !is_poison(*id) && pad_of(*id) <= MAX_RECORD && service.is_well(&host::stream_of(*id));
        let events = self.chunks.iter().flat_map(|chunk| chunk.events.iter());
        // A record is dead-lettered with all the events in it.
        let lettered = |id: &EventId| self.disk.letters.contains_key(id) || self.disk.lost.contains_key(id);
        let missing = events.filter(|id| arrives(id) && service.accepted.get(**id) == 0 && !lettered(id));
        let missing: Vec<_> = missing.collect();
        let (missing, first) = (missing.len(), missing.first());
        self.summary.waited = self.now - since;
        match missing {
            0 => Ok(true),
            _ if self.now - since < WELL => Ok(false),
            _ => Err(format!(
                "{missing} events of healthy streams are waiting, such as {first:?}, while others have {:?}: {}",
                self.weather,
                self.owed()
            )),
        }
    }

    fn owed(&self) -> String {
        let hosts = self.chunks.iter().filter(|chunk| chunk.fate == Fate::Host).count();
        let core = self.core.as_ref().map(Delivery::is_idle);
        format!(
            "{hosts} chunks of the host, {} bytes held of which {} are copies and {} excess, core idle: {core:?}, disk {} busy {} {:?}, wakes {:?}",
            self.room.held(),
            self.room.copies(),
            self.room.excess(),
            self.disk.queue.len(),
            self.disk_busy,
            self.trouble,
            self.core.as_ref().and_then(Delivery::wake_at).map(|at| at - self.begin)
        )
    }

    fn trace(&self, what: impl fmt::Display) {
        if self.trace {
            println!("{:>12.6} {what}", (self.now - self.begin).as_secs_f64());
        }
    }

    fn later(&mut self, after: Duration, happening: Happening) {
        self.number += 1;
        self.agenda.push(Entry { at: self.now + after, number: self.number, life: self.life, happening });
    }

    /// A process starts.
    fn boot(&mut self) -> Checked {
        self.life += 1;
        self.summary.lives += 1;
        self.trace(format_args!("life {}", self.life));
        self.room = Arc::new(Room::new(self.config.delivery.max_buffer));
        self.counts = Arc::default();
        self.open_calls.clear();
        self.backlog.clear();
        self.gave_up.clear();
        self.stall_end = self.now;
        self.service.in_life.clear();
        self.service.untold.clear();
        self.allowed.clear();
        self.disk.queue.clear();
        (self.disk_busy, self.ending, self.closed, self.grace_over) = (false, None, None, false);
        self.workers = (0..self.host.workers).map(|_| Worker::default()).collect();
        self.flushed.clear();
        let recovered = self.disk.recovered();
        self.watch.begin(self.config, &self.disk.chunks);
        // Events in the spool that are not noted as settled are sent in this run.
        for id in self.watch.owed_by_spool() {
            self.allowed.add(id);
        }
        self.left_behind = recovered.iter().map(|found| found.identity).collect();
        let next_chunk = self.disk.chunks.keys().last().map_or(1, |last| last + 1);
        self.core = Some(Delivery::new(Parts {
            options: &self.config.delivery,
            record: &self.config.record,
            streams: &self.config.streams,
            room: self.room.clone(),
            counts: self.counts.clone(),
            random: fastrand::Rng::with_seed(self.random.u64(..)),
            recovered,
            next_chunk,
        }));
        // The chunks that the host still has.
        for index in 0..self.chunks.len() {
            if self.chunks[index].fate == Fate::Host {
                self.chunks[index].retries = 0;
                self.later(Duration::from_millis(10), Happening::Again(index));
            }
        }
        self.feed(Input::Tick)
    }

    fn step(&mut self) -> Checked {
        self.summary.steps += 1;
        if self.summary.steps > 2_000_000 {
            return Err("not finished after two million steps".to_owned());
        }
        let stalled = (self.stall_end > self.now).then_some(self.stall_end);
        let wake = self.core.as_ref().and_then(Delivery::wake_at).map(|wake| wake.max(self.now));
        let wake = stalled.or(wake);
        // Like the output's loop, handles what became due while the core was encoding before it goes on.
        let next = self.agenda.peek().map(|entry| entry.at);
        match (wake, next) {
            (Some(wake), next) if next.is_none_or(|next| wake <= next) => {
                if wake == self.now {
                    // Encoding takes time.
                    self.now += Duration::from_micros(300);
                } else {
                    self.now = wake;
                }
                self.feed(Input::Tick)?;
            }
            (_, Some(_)) => {
                if let Some(Entry { at, life, happening, .. }) = self.agenda.pop() {
                    self.now = self.now.max(at);
                    let ours = matches!(happening, Happening::NewChunk | Happening::Weather | Happening::DiskTrouble);
                    if ours || life == self.life {
                        self.happen(happening)?;
                    }
                }
            }
            (None, None) => return Err(format!("nothing is scheduled any more: {}", self.owed())),
            (Some(_), None) => unreachable!("covered above"),
        }
        self.check_step()
    }

    fn happen(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::NewChunk => {
                if self.chunks_to_come > 0 {
                    self.chunks_to_come -= 1;
                    self.lasting = self.lasting.map(|_| (self.now, self.now));
                    let chunk = self.new_chunk();
                    if self.stalls && self.random.u8(..10) == 0 {
                        let (after, long) = (self.random.u64(0..2000), self.random.u64(10..15_000));
                        self.later(Duration::from_millis(after), Happening::Stall(Duration::from_millis(long)));
                    }
                    let wait = Duration::from_millis(self.random.u64(0..4000) * u64::from(self.random.bool()));
                    self.later(wait, Happening::NewChunk);
                    self.queue(chunk);
                    if self.lasting.is_none() && self.random.u8(..40) == 0 && self.ending.is_none() {
                        let ending = [Ending::Signal, Ending::Reload, Ending::Crash][self.random.usize(..3)];
                        let after = Duration::from_millis(self.random.u64(0..5000));
                        self.later(after, Happening::End(ending));
                    }
                }
                self.start_flushes()
            }
            Happening::Again(chunk) => {
                self.queue(chunk);
                self.start_flushes()
            }
            Happening::Answer(call) if self.stall_end > self.now => {
                self.later(self.stall_end - self.now, Happening::Answer(call));
                Ok(())
            }
            Happening::Answer(call) => match self.open_calls.remove(&call) {
                Some((records, outcome)) => {
                    self.watch.answered(&records, &outcome, self.now)?;
                    self.feed(Input::Answered { call, outcome })
                }
                None => Ok(()),
            },
            Happening::Copied(flush, reservation) => {
                let Some((_, chunk, deadline)) =
                    self.workers.iter().find_map(|worker| worker.flush.filter(|(id, _, _)| *id == flush))
                else {
                    return Ok(());
                };
                let Chunk { tag, bytes, .. } = self.chunks[chunk].clone();
                let input = Input::Chunk {
                    flush: FlushId(flush),
                    deadline,
                    tag: tag.as_bytes().to_vec(),
                    identity: Identity::of(tag.as_bytes(), &bytes),
                    bytes: reservation.copy(&bytes),
                };
                self.feed(input)
            }
            Happening::Stall(long) => {
                if !self.calm && self.stall_end <= self.now {
                    self.trace(format_args!("no time for the core for {long:?}"));
                    self.stall_end = self.now + long;
                    self.summary.stalls += 1;
                }
                Ok(())
            }
            Happening::GivesUp(flush) => {
                let waits = |worker: &Worker| worker.flush.is_some_and(|(id, _, _)| id == flush);
                if let Some(worker) = self.workers.iter().position(waits)
                    && let Some((_, chunk, _)) = self.workers[worker].flush.take()
                {
                    self.trace(format_args!("flush {flush} of chunk {chunk} has waited in vain"));
                    self.gave_up.insert(flush);
                    self.replied(worker, chunk, Status::Retry);
                    self.start_flushes()?;
                    self.close_if_joined()?;
                }
                Ok(())
            }
            Happening::Disk => {
                self.trace(format_args!("disk: {:?}", self.disk.queue.front()));
                self.disk_busy = false;
                if self.trouble == Trouble::Hangs {
                    self.disk_busy = true;
                    self.later(Duration::from_millis(500), Happening::Disk);
                    return Ok(());
                }
                let input = self.disk.step(self.trouble, &mut self.random)?;
                self.disk_goes_on();
                match input {
                    Some(input) => self.feed(input),
                    None => Ok(()),
                }
            }
            Happening::Weather => {
                if !self.calm {
                    let failed = matches!(self.weather, Weather::Throttled | Weather::Broken | Weather::Unreachable);
                    self.weather = match self.random.bool() {
                        // After an outage of another kind, calls are rejected as invalid.
                        _ if self.service.refuses_all && failed => Weather::Missing,
                        true => Weather::Fine,
                        false => WEATHERS[self.random.usize(..WEATHERS.len())],
                    };
                    self.service.turn += 1;
                    self.trace(format_args!("{:?}", self.weather));
                    let wait = Duration::from_millis(self.random.u64(100..60_000));
                    self.later(wait, Happening::Weather);
                }
                Ok(())
            }
            Happening::DiskTrouble => {
                if !self.calm {
                    let troubles =
                        [Trouble::None, Trouble::None, Trouble::None, Trouble::Full, Trouble::Hangs, Trouble::Fails];
                    self.trouble = troubles[self.random.usize(..troubles.len())];
                    let wait = Duration::from_millis(self.random.u64(100..60_000));
                    self.later(wait, Happening::DiskTrouble);
                }
                Ok(())
            }
            Happening::End(ending) => self.end(ending),
            Happening::GraceOver => {
                self.grace_over = true;
                // The engine sends no more chunks, but the workers run their queues.
                self.start_flushes()?;
                self.close_if_joined()
            }
        }
    }

    fn new_chunk(&mut self) -> usize {
        // At times the same chunk again, as an input with repeated data may produce it.
        let chunk = if self.random.u8(..30) == 0 && !self.chunks.is_empty() {
            let earlier = self.chunks[self.random.usize(..self.chunks.len())].clone();
            Chunk { retries: 0, fate: Fate::Host, ..earlier }
        } else {
            let count = [1, 3, 40, 700, 2500][self.random.usize(..5)];
            let (mut bytes, mut events) = (Vec::new(), Vec::new());
            for _ in 0..self.random.usize(1..=count) {
                self.next_event += 1;
                // Few chunks contain large events.
                let id = match self.next_event % 1000 {
                    990.. if self.random.u8(..4) > 0 => {
                        self.next_event += 20;
                        self.next_event
                    }
                    _ => self.next_event,
                };
                host::encode(id, pad_of(id), &mut bytes);
                events.push(id);
            }
            let tag = ["kube.a", "kube.b", "kube.c"][self.random.usize(..3)];
            Chunk {
                tag,
                bytes: Arc::new(bytes),
                events: Arc::new(events),
                on_disk: self.host.filesystem,
                retries: 0,
                fate: Fate::Host,
            }
        };
        self.summary.events += chunk.events.len() as u64;
        self.largest_chunk = self.largest_chunk.max(chunk.bytes.len());
        self.chunks.push(chunk);
        self.chunks.len() - 1
    }

    fn queue(&mut self, chunk: usize) {
        if self.ending.is_some() && self.grace_over {
            return;
        }
        let worker = self.random.usize(..self.workers.len());
        self.workers[worker].queue.push_back(chunk);
    }

    /// Idle workers flush their next chunk.
    fn start_flushes(&mut self) -> Checked {
        if self.closed.is_some() {
            return Ok(());
        }
        for worker in 0..self.workers.len() {
            while self.workers[worker].flush.is_none() {
                let Some(chunk) = self.workers[worker].queue.pop_front() else { break };
                // Past the limit the plugin answers without asking the core: src/output.rs.
                let shutdown = self.config.delivery.shutdown_timeout;
                if self.ending.is_some_and(|(ending, since)| ending == Ending::Signal && self.now >= since + shutdown) {
                    self.replied(worker, chunk, Status::Retry);
                    self.workers[worker].queue.clear();
                    continue;
                }
                self.next_flush += 1;
                let (flush, deadline) = (self.next_flush, self.now + self.host.flush_timeout);
                self.workers[worker].flush = Some((flush, chunk, deadline));
                if self.stalls {
                    self.later(self.host.flush_timeout + MARGIN, Happening::GivesUp(flush));
                }
                let Chunk { tag, bytes, events, .. } = self.chunks[chunk].clone();
                let identity = Identity::of(tag.as_bytes(), &bytes);
                if self.flushed.insert(chunk) {
                    match self.left_behind.iter().position(|left| *left == identity) {
                        // The core takes it for the chunk in the spool: see Ledger.
                        Some(at) => {
                            self.left_behind.remove(at);
                        }
                        None => events.iter().for_each(|id| self.allowed.add(*id)),
                    }
                }
                self.trace(format_args!("flush {flush} of chunk {chunk}, {} events", events.len()));
                if self.chunks[chunk].retries > 0 {
                    self.summary.attached += 1;
                }
                let reserved = self.room.reserve(bytes.len());
                let reserved = match reserved {
                    Some(reservation) if self.config.delivery.acknowledges_all(&self.config.streams) => {
                        // The host's thread answers by itself: src/output.rs.
                        self.summary.acknowledged_at_once += 1;
                        self.workers[worker].flush = None;
                        self.replied(worker, chunk, Status::Ok);
                        let bytes = reservation.copy(&bytes);
                        self.feed(Input::Acknowledged { tag: tag.as_bytes().to_vec(), identity, bytes })?;
                        self.close_if_joined()?;
                        continue;
                    }
                    reserved => reserved,
                };
                let input = match reserved {
                    Some(reservation) => Input::Chunk {
                        flush: FlushId(flush),
                        deadline,
                        tag: tag.as_bytes().to_vec(),
                        identity,
                        bytes: reservation.copy(&bytes),
                    },
                    None => {
                        self.summary.parked += 1;
                        Input::Waiting { flush: FlushId(flush), deadline, identity, size: bytes.len() }
                    }
                };
                self.feed(input)?;
                break;
            }
        }
        Ok(())
    }

    /// The host handles an answer.
    fn replied(&mut self, _worker: usize, chunk: usize, status: Status) {
        // After Grace the host ignores the answer: a chunk in memory is lost, one on disk is flushed again.
        if self.grace_over {
            match status {
                Status::Ok if !self.chunks[chunk].on_disk => self.chunks[chunk].fate = Fate::Acknowledged(self.life),
                Status::Ok => {}
                _ if !self.chunks[chunk].on_disk => self.chunks[chunk].fate = Fate::Dropped,
                _ => {}
            }
            return;
        }
        match status {
            Status::Ok => self.chunks[chunk].fate = Fate::Acknowledged(self.life),
            Status::Retry => {
                self.summary.retries += 1;
                self.chunks[chunk].retries += 1;
                if self.chunks[chunk].retries > self.host.retry_limit {
                    self.chunks[chunk].fate = Fate::Dropped;
                    self.summary.host_dropped += 1;
                } else {
                    let wait = match self.ending {
                        Some(_) => Duration::from_secs(1),
                        None => Duration::from_millis(self.random.u64(1000..20_000)),
                    };
                    self.later(wait, Happening::Again(chunk));
                }
            }
            Status::Error => self.chunks[chunk].fate = Fate::Dropped,
        }
    }

    fn disk_goes_on(&mut self) {
        if !self.disk_busy && !self.disk.queue.is_empty() {
            self.disk_busy = true;
            let wait = Duration::from_micros(self.random.u64(50..5000));
            self.later(wait, Happening::Disk);
        }
    }

    /// Passes an input to the core, and does its actions.
    fn feed(&mut self, input: Input) -> Checked {
        if self.stall_end > self.now {
            self.backlog.push_back(input);
            return Ok(());
        }
        while let Some(earlier) = self.backlog.pop_front() {
            self.tell(earlier)?;
        }
        self.tell(input)
    }

    fn tell(&mut self, input: Input) -> Checked {
        let mut out = Vec::new();
        let Some(core) = &mut self.core else { return Ok(()) };
        self.watch.input(&input);
        core.handle(input, Now { at: self.now, wall: Time { seconds: 1_700_000_000, nanos: 0 } }, &mut out);
        for action in &out {
            self.watch.action(action)?;
        }
        self.watch.handled(&self.counts, core.unsettled())?;
        self.perform(out)
    }

    fn perform(&mut self, out: Vec<Action>) -> Checked {
        let mut freed = false;
        for action in out {
            let Some(action) = self.disk.take(action) else { continue };
            match action {
                Action::Reply { flush, status } => {
                    let worker =
                        self.workers.iter().position(|worker| worker.flush.is_some_and(|(id, _, _)| id == flush.0));
                    if self.gave_up.remove(&flush.0) {
                        // The host has taken its chunk back: the core's answer reaches no thread.
                        match status {
                            Status::Ok => return Err(format!("{flush:?} is answered OK after its thread gave up")),
                            _ => continue,
                        }
                    }
                    let Some(worker) = worker else {
                        return Err(format!("{flush:?} is answered twice, or is unknown"));
                    };
                    let Some((_, chunk, deadline)) = self.workers[worker].flush.take() else { continue };
                    self.trace(format_args!("{flush:?} of chunk {chunk}: {status:?}"));
                    // Copying its chunk may take this much longer.
                    if self.now > deadline + COPY && self.stall_end < deadline {
                        return Err(format!("{flush:?} is answered {:?} late", self.now - deadline));
                    }
                    if status == Status::Error {
                        return Err("a flush is answered ERROR".to_owned());
                    }
                    if status == Status::Ok {
                        let Chunk { tag, bytes, events, .. } = &self.chunks[chunk];
                        let identity = Identity::of(tag.as_bytes(), bytes);
                        self.watch.acknowledged(events, self.disk.holds(identity))?;
                    }
                    self.replied(worker, chunk, status);
                    freed = true;
                }
                Action::Admit { flush, reservation } => {
                    let wait = self.random.u64(10..COPY.as_micros() as u64);
                    let wait = Duration::from_micros(wait);
                    self.later(wait, Happening::Copied(flush.0, reservation));
                }
                Action::Call { call, body, records, .. } => {
                    let second = (self.now - self.begin).as_secs();
                    let outcome = self.service.call(&body, records, self.weather, second, &mut self.random)?;
                    self.trace(format_args!(
                        "{call:?}: {records} records, {:?} after {:?}",
                        outcome.outcome.as_ref().map(|answer| answer.refused.len()),
                        outcome.after
                    ));
                    self.watch.call(records, self.open_calls.len(), self.now)?;
                    self.open_calls.insert(call, (outcome.records, outcome.outcome));
                    self.later(outcome.after, Happening::Answer(call));
                }
                Action::CancelCall { call } => {
                    self.open_calls.remove(&call);
                }
                Action::Log { level, text } => {
                    self.trace(format_args!("{level:?}: {text}"));
                    self.log(&text)?;
                }
                Action::CannotDeliver { text, .. } => self.log(&text)?,
                Action::RenewCredentials => {}
                other => return Err(format!("{other:?} was not expected")),
            }
        }
        self.disk_goes_on();
        if freed {
            self.start_flushes()?;
            self.close_if_joined()?;
        }
        self.finish_if_done()
    }

    /// The number of log lines a minute is bounded.
    fn log(&mut self, text: &str) -> Checked {
        let minute = (self.now - self.begin).as_secs() / 60;
        if self.log_lines.0 != minute {
            self.log_lines = (minute, 0);
        }
        self.log_lines.1 += 1;
        let most = if host::is_streamed() { 240 } else { 60 };
        if self.log_lines.1 > most {
            return Err(format!("more than {most} lines in a minute, such as: {text}"));
        }
        Ok(())
    }

    /// A signal, a reload, or a crash.
    fn end(&mut self, ending: Ending) -> Checked {
        if self.ending.is_some() {
            return Ok(());
        }
        self.trace(format_args!("{ending:?}"));
        match ending {
            Ending::Crash => {
                self.summary.crashes += 1;
                self.life_is_over(true)
            }
            Ending::Signal => {
                self.summary.signals += 1;
                self.ending = Some((ending, self.now));
                self.later(self.host.grace, Happening::GraceOver);
                self.feed(Input::HostStopping { since: self.now })
            }
            Ending::Reload => {
                self.summary.reloads += 1;
                self.ending = Some((ending, self.now));
                self.close_if_joined()
            }
        }
    }

    /// The outputs close once their workers have emptied their queues.
    fn close_if_joined(&mut self) -> Checked {
        let Some((ending, _)) = self.ending else { return Ok(()) };
        let busy = self.workers.iter().any(|worker| worker.flush.is_some() || !worker.queue.is_empty());
        let waits = match ending {
            Ending::Signal => !self.grace_over && self.chunks.iter().any(|chunk| chunk.fate == Fate::Host),
            // A reload waits for every chunk.
            _ => self.chunks.iter().any(|chunk| chunk.fate == Fate::Host),
        };
        if busy || waits || self.closed.is_some() {
            return Ok(());
        }
        self.trace("close");
        self.grace_over = true;
        self.closed = Some(self.now);
        self.feed(Input::Close)
    }

    fn finish_if_done(&mut self) -> Checked {
        let Some(closed) = self.closed else { return Ok(()) };
        let Some((ending, since)) = self.ending else { return Ok(()) };
        // The core's thread learns of it only after a stall.
        let from = if ending == Ending::Signal { since } else { closed.max(self.stall_end) };
        let bound = (from + self.config.delivery.shutdown_timeout).max(closed).max(self.stall_end)
            + Duration::from_millis(3500);
        if self.core.as_ref().is_some_and(Delivery::is_done) {
            return self.life_is_over(false);
        }
        if self.now > bound {
            return Err(format!("the exit is {:?} late", self.now - bound));
        }
        Ok(())
    }

    fn life_is_over(&mut self, crash: bool) -> Checked {
        let mut out = Vec::new();
        if let Some(core) = &self.core
            && !crash
        {
            core.last_words(&mut out);
        }
        self.check_end_of_life(crash, false)?;
        // The chunks in the host's memory are lost with it.
        for chunk in &mut self.chunks {
            if chunk.fate == Fate::Host && !chunk.on_disk {
                chunk.fate = Fate::Dropped;
                self.summary.host_dropped += 1;
            }
        }
        if !crash {
            // The disk's thread finishes its tasks before it ends.
            while !self.disk.queue.is_empty() && self.trouble != Trouble::Hangs {
                self.disk.step(Trouble::None, &mut self.random)?;
            }
        }
        self.core = None;
        self.boot()
    }

    fn check_step(&mut self) -> Checked {
        let Some(core) = &self.core else { return Ok(()) };
        let (held, measured) = (self.room.held(), core.measure() + self.room.copies());
        // Reservations already granted count as copies.
        if held != measured {
            return Err(format!("{held} bytes are counted, but {measured} are held"));
        }
        // max_buffer may be exceeded by one slice, a body begun for it, and a chunk that is let in alone.
        let most = self.config.delivery.max_buffer + 6 * 1024 * 1024 + self.largest_chunk + self.room.excess();
        if held > most {
            return Err(format!("{held} bytes are held, but {most} are allowed"));
        }
        for worker in &self.workers {
            if let Some((flush, _, deadline)) = worker.flush
                && self.now > deadline + Duration::from_secs(1)
                && self.stall_end < deadline
            {
                return Err(format!("flush {flush} was not answered by its deadline"));
            }
        }
        Ok(())
    }

    /// The core holds nothing any more, and all events are accounted for.
    fn check_idle(&mut self) -> Checked {
        if self.room.held() != 0 {
            return Err(format!("{} bytes are still counted as held", self.room.held()));
        }
        self.watch.idle(&self.counts)
    }

    /// No acknowledged event is lost, and repeats are explained by a fault.
    fn check_end_of_life(&mut self, crash: bool, world: bool) -> Checked {
        let counts = self.counts.snapshot();
        self.summary.dead_lettered += counts.records_dead_lettered;
        // Repeated within this run: only records whose acceptance the core did not learn, and all are counted.
        let mut repeated = 0;
        for (id, times) in self.service.in_life.iter() {
            let more = times.saturating_sub(self.allowed.get(id));
            let untold = self.service.untold.get(id);
            if more > untold {
                return Err(format!(
                    "event {id} was accepted {more} times too often, of which {untold} are explained by missing replies"
                ));
            }
            repeated += u64::from(more);
            if is_poison(id) {
                return Err(format!("poison {id} was accepted"));
            }
        }
        // With aggregation the count is of records, not of events.
        let joined = self.config.record.pack.aggregate;
        if repeated > counts.records_possibly_duplicate && !(joined && counts.records_possibly_duplicate > 0) {
            return Err(format!(
                "{repeated} records were repeated, but {} are counted",
                counts.records_possibly_duplicate
            ));
        }
        if !world {
            return Ok(());
        }
        let _ = crash;
        let mut owed: BTreeMap<EventId, u32> = BTreeMap::new();
        for chunk in &self.chunks {
            if let Fate::Acknowledged(life) = chunk.fate {
                // In memory alone, events may be lost with the process.
                let in_memory = !self.config.delivery.spool
                    && self.config.delivery.acknowledge == kubehose::delivery::Acknowledge::Buffered;
                if in_memory && life != self.life {
                    continue;
                }
                for id in chunk.events.iter() {
                    *owed.entry(*id).or_default() += 1;
                }
            }
        }
        // If a process starts with one of two equal chunks in the spool, the core takes the other for that one: see
        // Ledger.
        let believed = self.config.delivery.spool && self.life > 1;
        for (id, times) in owed {
            let times = if believed { 1 } else { times };
            let has = |counts: &BTreeMap<EventId, u32>| counts.get(&id).copied().unwrap_or(0);
            let settled = self.service.accepted.get(id) + has(&self.disk.letters) + has(&self.disk.lost);
            if settled < times {
                return Err(format!("event {id} was acknowledged {times} times and settled {settled} times"));
            }
        }
        Ok(())
    }
}
