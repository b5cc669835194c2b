//! One `[OUTPUT]`: its start, its flushes, its end, and its thread, which executes the delivery core's actions and returns their outcomes.
//!
//! Only the host's own thread reads the host's memory: it copies the chunk. Every wait of a thread of the host is bounded, even if
//! our thread never answers. A thread of ours that does not end in time is left behind, and no longer touches anything of the host.

use crate::delivery::room::{Reservation, Room};
use crate::delivery::{Acknowledge, Action, CallId, DISK_AT_EXIT, Delivery, FlushId, Identity, Input, Now, Parts};
use crate::error::Error;
use crate::event::chunk::Time;
use crate::firehose::{self, Fault, Firehose};
use crate::host::{self, FlushData, Gate, Handle, Level, Log, Metrics, Output, Property, Status};
use crate::metrics::{self, ByStream, Counts, Snapshot};
use crate::options::{Config, OPTIONS, OptionSpec};
use crate::storage::chunks::Revoker;
use crate::storage::hang::{Busy, Said, Watch};
use crate::storage::letters::DeadLetter;
use crate::storage::{AtStart, Storage, Task};
use crate::told::{Teller, Told, Waiter};
use crate::turns::{Ready, SMALL, Turns};
use crate::{REVISION, VERSION};
use crossbeam_channel::RecvTimeoutError;
use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Abortable};
use futures_util::stream::FuturesUnordered;
use once_cell::sync::Lazy;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How long a flush waits on the engine's own thread, which does nothing else meanwhile.
pub const ENGINE_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// How much longer than its deadline a flush waits for its answer, in case our thread is stuck.
const MARGIN: Duration = Duration::from_secs(2);

/// How long the exit waits for the runtime's remaining work (a name look-up cannot be cancelled).
const RUNTIME_SHUTDOWN: Duration = Duration::from_millis(200);

/// How often the metrics are published while something happens; twice as long at most while flushes or calls are always under way.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);

/// How often memory that nothing has used meanwhile is given back: more than the host's usual second between flushes.
const TRIM_EVERY: Duration = Duration::from_secs(2);

/// How long a log line waits for a thread of the host before it is shown without one.
const SHOW_ALONE: Duration = Duration::from_secs(5);

/// How often, while flushes wait, the thread checks whether the host has been asked to end.
const LOOK: Duration = Duration::from_millis(100);

static INSTANCES: Lazy<Mutex<HashMap<Handle, Arc<Instance>>>> = Lazy::new(Mutex::default);
static NEXT: AtomicUsize = AtomicUsize::new(1);

fn instances() -> MutexGuard<'static, HashMap<Handle, Arc<Instance>>> {
    INSTANCES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One output with its thread.
pub struct Instance {
    log: Arc<Log>,
    driver: Driver,
    gate: Option<Gate>,
    /// Whether the host's threads answer OK by themselves: [`crate::delivery::DeliveryOptions::acknowledges_all`].
    acknowledges_all: bool,
    /// Whether a flush waits until its chunk is delivered.
    waits_for_delivery: bool,
    flush_timeout: Duration,
    shutdown_timeout: Duration,
    next_flush: AtomicU64,
}

/// Every option, as the host shows it.
pub fn properties() -> Vec<Property> {
    let shown = |option: &OptionSpec| Property {
        name: option.name,
        default: option.default,
        help: format!("{} Accepted: {}.", option.help, option.accepted),
    };
    OPTIONS.iter().map(shown).collect()
}

/// Starts the output that the host describes, and sets its handle. If it fails, the log says why.
pub fn start(output: &Output<'_>) -> bool {
    // The default hook would print to file descriptor 2; whoever catches a panic logs it.
    std::panic::set_hook(Box::new(|_| {}));
    let log = Arc::new(output.log());
    let started = Config::of_section(&|name| output.property(name), &|name| std::env::var(name).ok())
        .and_then(|config| Instance::start(config, log.clone(), output.metrics(&metrics::described())));
    match started {
        Ok(instance) => {
            let handle = Handle::new(NEXT.fetch_add(1, Ordering::Relaxed));
            instances().insert(handle, Arc::new(instance));
            output.set_handle(handle);
            log.emit();
            true
        }
        Err(error) => {
            log.line(Level::Error, &error.to_string());
            log.emit();
            false
        }
    }
}

/// Delivers a chunk, and waits for the answer.
pub fn flush(handle: Handle, data: &FlushData) -> Status {
    let Some(instance) = instances().get(&handle).cloned() else {
        return Status::Retry;
    };
    let status = instance.flush(data);
    instance.log.emit();
    status
}

/// Ends an output. Does nothing for a handle that is unknown, or no longer known.
pub fn exit(handle: Handle) {
    let Some(instance) = instances().remove(&handle) else { return };
    let mut ending = vec![instance];
    if !host::can_reload() {
        // The host will not pass the others' handles: 1.9 does not even survive its own second call with two outputs.
        ending.extend(instances().drain().map(|(_, instance)| instance));
    }
    for instance in ending {
        instance.drain();
        instance.log.emit();
    }
}

impl Instance {
    /// Starts the threads of an output, and publishes its counts to `metrics`.
    ///
    /// # Errors
    /// When the system refuses a thread or a socket, the spool cannot be used, or TLS cannot be set up.
    pub fn start(config: Config, log: Arc<Log>, metrics: Option<Metrics>) -> Result<Instance, Error> {
        let (flush_timeout, shutdown_timeout) = (config.delivery.flush_timeout, config.delivery.shutdown_timeout);
        let gate = metrics.as_ref().map(Metrics::gate);
        log.line(
            Level::Info,
            &format!(
                "kubehose {VERSION} ({REVISION}) delivers to {} in {}{}{}",
                config.firehose.delivery_stream,
                config.firehose.region,
                config.firehose.endpoint.as_ref().map(|endpoint| format!(" at {endpoint}")).unwrap_or_default(),
                match config.record.pack.aggregate {
                    true => "",
                    false => "; Firehose bills each record as a multiple of 5 KB, and simple_aggregation is off",
                }
            ),
        );
        let acknowledges_all = config.delivery.acknowledges_all(&config.streams);
        let waits_for_delivery = config.delivery.acknowledge == Acknowledge::Delivered && !config.delivery.spool;
        let driver = Driver::start(config, log.clone(), metrics)?;
        Ok(Instance {
            log,
            driver,
            gate,
            acknowledges_all,
            waits_for_delivery,
            flush_timeout,
            shutdown_timeout,
            next_flush: AtomicU64::new(0),
        })
    }

    /// Copies a chunk and waits for the answer. This runs on the small stack, but for what [`Turns::wait`] runs on another.
    pub fn flush(&self, data: &FlushData) -> Status {
        let now = Instant::now();
        // A host that has been asked to end still flushes what is queued, one chunk after the other.
        if host::ending_since().is_some_and(|since| now >= since + self.shutdown_timeout) {
            return Status::Retry;
        }
        let wait = match host::on_worker_thread() {
            true => self.flush_timeout,
            false => self.flush_timeout.min(ENGINE_FLUSH_TIMEOUT),
        };
        let deadline = now + wait;
        let (bytes, tag) = (data.bytes(), data.tag());
        let identity = Identity::of(tag, bytes);
        let reserved = self.driver.room.reserve(bytes.len());
        // Without the way there and back: with Workers 0 the host's pipeline waits here.
        let reserved = match reserved {
            Some(reservation) if self.acknowledges_all => {
                let bytes = reservation.copy(bytes);
                let input = Input::Acknowledged { tag: tag.to_vec(), identity, bytes };
                return match self.driver.tell(Event::Input(input)) {
                    true => Status::Ok,
                    false => Status::Retry,
                };
            }
            reserved => reserved,
        };
        let flush = FlushId(self.next_flush.fetch_add(1, Ordering::Relaxed));
        let small = self.waits_for_delivery && bytes.len() <= SMALL;
        let talk = async {
            let waiter = Waiter::default();
            let chunk = |reservation: Reservation| Input::Chunk {
                flush,
                deadline,
                tag: tag.to_vec(),
                identity,
                bytes: reservation.copy(bytes),
            };
            let mut input = match reserved {
                Some(reservation) => chunk(reservation),
                None => Input::Waiting { flush, deadline, identity, size: bytes.len() },
            };
            loop {
                if !self.driver.tell(Event::Flush { flush, teller: waiter.teller(), input }) {
                    return Status::Retry;
                }
                input = match waiter.told().await {
                    Some(Told::Admitted(reservation)) => chunk(reservation),
                    Some(Told::Answer(status)) => return status,
                    None => return Status::Retry,
                }
            }
        };
        self.driver.turns.wait(small, deadline + MARGIN, talk).unwrap_or(Status::Retry)
    }

    /// Finishes deliveries within `shutdown_timeout`, counted from the signal that ends the host if there was one, ends
    /// the thread, and logs the counts.
    pub fn drain(&self) -> Snapshot {
        let from = host::ending_since().unwrap_or_else(Instant::now);
        let deadline = (from + self.shutdown_timeout).max(Instant::now()) + DISK_AT_EXIT.1 + MARGIN / 2;
        if !self.driver.end(Event::Input(Input::Close), deadline) {
            self.log.line(
                Level::Error,
                "the thread of this output did not end in time; the records that it holds are lost",
            );
        }
        if let Some(gate) = &self.gate {
            gate.close();
        }
        let counts = self.driver.counts.snapshot();
        self.log.line(Level::Info, &format!("ended: {counts}"));
        counts
    }

    /// The counts of this output.
    pub fn counts(&self) -> &Counts {
        &self.driver.counts
    }
}

/// What the driver receives.
pub(crate) enum Event {
    /// An input of a flush, and where its answer goes.
    Flush { flush: FlushId, teller: Teller, input: Input },
    /// Any other input.
    Input(Input),
}

/// The thread of one output.
pub(crate) struct Driver {
    events: UnboundedSender<Event>,
    /// Disconnects when the thread ends; nothing is ever sent.
    ended: crossbeam_channel::Receiver<()>,
    /// Release the spool's folder and the dead-letter file.
    revokers: Vec<Revoker>,
    /// Who runs the tasks.
    pub turns: Arc<Turns>,
    /// The memory that `max_buffer` allows.
    pub room: Arc<Room>,
    /// The counts.
    pub counts: Arc<Counts>,
}

/// The time now.
fn present() -> Now {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let wall = Time { seconds: i64::try_from(since.as_secs()).unwrap_or(0), nanos: since.subsec_nanos() };
    Now { at: Instant::now(), wall }
}

/// Logs what was found on the disk.
fn log_start(at_start: &AtStart, stream: &str, counts: &Counts, log: &Log) {
    if !at_start.recovered.is_empty() {
        log.line(
            Level::Info,
            &format!("{} chunks were left in spool_dir; they are sent first", at_start.recovered.len()),
        );
    }
    if let Some((chunks, other)) = &at_start.for_another_stream {
        let text = format!(
            "{chunks} chunks in spool_dir were for another stream ({other}); they are sent to delivery_stream {stream}"
        );
        log.line(Level::Warn, &text);
    }
    counts.chunks_damaged.add(at_start.damaged.len() as u64);
    for damaged in &at_start.damaged {
        let text = format!(
            "spool_dir: {} ({} bytes) is not used: {}; the file is kept",
            damaged.file.display(),
            damaged.size,
            damaged.reason
        );
        log.line(Level::Error, &text);
    }
}

impl Driver {
    /// Starts the thread.
    ///
    /// # Errors
    /// See [`Instance::start`].
    pub(crate) fn start(config: Config, log: Arc<Log>, metrics: Option<Metrics>) -> Result<Driver, Error> {
        let counts = Arc::new(Counts::default());
        counts.held_limit.add(config.delivery.max_buffer as u64);
        if let Some(metrics) = &metrics {
            metrics.publish(&counts.numbers());
        }
        let room = Arc::new(Room::new(config.delivery.max_buffer));
        let (events, inbox) = unbounded_channel();
        let stream = &config.firehose.delivery_stream;
        let (storage, at_start) = Storage::open(stream, &config.storage)?;
        let revokers = storage.revokers();
        log_start(&at_start, stream, &counts, &log);
        let (tasks, task_queue) = crossbeam_channel::unbounded();
        let done = events.clone();
        let runtime = runtime().map_err(Error::Runtime)?;
        let (firehose, credentials) =
            Firehose::new(config.firehose.clone()).map_err(|error| Error::Tls(error.into()))?;
        runtime.spawn(credentials);
        let ready = Arc::<Ready>::default();
        let turns = Arc::new(Turns::new(runtime, ready.clone()));
        let (running, ended) = crossbeam_channel::bounded(0);
        let loop_ = Loop {
            ready,
            firehose: Arc::new(firehose),
            by_stream: ByStream::new(config.streams.most),
            config,
            log,
            metrics,
            room: room.clone(),
            counts: counts.clone(),
            events: inbox,
            tasks,
            disk: Busy::default(),
            at_start,
        };
        let (busy, turning) = (loop_.disk.clone(), turns.clone());
        host::without_signals(|| {
            let disk_ended = storage.start(task_queue, busy, move |input| {
                // The receiver is gone only at the very end.
                let _ = done.send(Event::Input(input));
            })?;
            thread::Builder::new().name("kubehose".to_owned()).spawn(move || {
                // Dropped last, when everything is done.
                let _running = running;
                run(&turning, loop_);
                // The disk's thread ends once its channel is disconnected; if the disk hangs, it is left behind.
                let _ = disk_ended.recv_timeout(MARGIN);
            })
        })
        .map_err(Error::Thread)?;
        Ok(Driver { events, ended, revokers, turns, room, counts })
    }

    /// One without a thread: a test that holds the receiver and the end can act as a thread that is dead or stuck.
    #[cfg(test)]
    pub(crate) fn without_thread(limit: usize) -> (Driver, UnboundedReceiver<Event>, crossbeam_channel::Sender<()>) {
        let (events, inbox) = unbounded_channel();
        let (running, ended) = crossbeam_channel::bounded(0);
        let room = Arc::new(Room::new(limit));
        let turns = Arc::new(Turns::new(runtime().unwrap(), Arc::default()));
        let driver = Driver { events, ended, revokers: Vec::new(), turns, room, counts: Arc::default() };
        (driver, inbox, running)
    }

    /// Sends it an event; false if it has ended.
    pub(crate) fn tell(&self, event: Event) -> bool {
        self.events.send(event).is_ok()
    }

    /// Sends it the event that ends it, and waits; false if it has not ended by the deadline.
    pub(crate) fn end(&self, event: Event, deadline: Instant) -> bool {
        self.tell(event);
        self.turns.call_back();
        let ended = self.ended.recv_deadline(deadline) == Err(RecvTimeoutError::Disconnected);
        // Even if the disk hangs, the output of a reloaded configuration must find its folder and file free.
        self.revokers.iter().for_each(Revoker::revoke);
        ended
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.events.is_closed()
    }
}

/// A runtime for one thread. tokio panics where it gets no socket for its signals; that becomes an error, so that the start does not fail silently.
fn runtime() -> io::Result<Runtime> {
    let build = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .on_thread_start(host::block_signals)
            .build()
    };
    std::panic::catch_unwind(build).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        // Dropping a panic's payload may panic again.
        std::mem::forget(panic);
        Err(io::Error::other(text.unwrap_or_else(|| "the runtime cannot be made".to_owned())))
    })
}

fn run(turns: &Turns, loop_: Loop) {
    let log = loop_.log.clone();
    if let Err(panic) = turns.run(loop_.run()) {
        log.line(Level::Error, &format!("a defect in kubehose: {panic}; please report it"));
        // Dropping a panic's payload may panic again.
        std::mem::forget(panic);
    }
    turns.end(RUNTIME_SHUTDOWN);
}

/// A call in flight.
struct Called {
    stream: Arc<str>,
    records: usize,
    abort: AbortHandle,
}

type Call = Pin<Box<dyn Future<Output = (CallId, Option<Result<firehose::Reply, Fault>>)> + Send>>;

/// The loop of one output's thread, and what it needs.
struct Loop {
    /// Set while calls are answered: after one that failed, credentials may be looked for, which reads files.
    ready: Arc<Ready>,
    firehose: Arc<Firehose>,
    config: Config,
    log: Arc<Log>,
    metrics: Option<Metrics>,
    room: Arc<Room>,
    counts: Arc<Counts>,
    by_stream: ByStream,
    events: UnboundedReceiver<Event>,
    tasks: crossbeam_channel::Sender<Task>,
    disk: Busy,
    at_start: AtStart,
}

impl Loop {
    /// Runs until the core is done. No branch of the select waits for something that needs another branch to be polled.
    async fn run(mut self) {
        let config = self.config.clone();
        let mut delivery = Delivery::new(Parts {
            options: &config.delivery,
            record: &config.record,
            streams: &config.streams,
            room: self.room.clone(),
            counts: self.counts.clone(),
            random: fastrand::Rng::new(),
            recovered: std::mem::take(&mut self.at_start.recovered),
            next_chunk: self.at_start.next_chunk,
        });
        let mut calls: FuturesUnordered<Call> = FuturesUnordered::new();
        let mut called: HashMap<CallId, Called> = HashMap::new();
        let mut flushes: HashMap<FlushId, Teller> = HashMap::new();
        let mut out = Vec::new();
        let (mut published, mut unpublished, mut stopping) = (Instant::now(), true, false);
        let (mut due, mut unshown, mut look_at, mut trim_at, mut watch) = (None, None, None, None, Watch::default());
        delivery.handle(Input::Tick, present(), &mut out);
        loop {
            // A flush that is answered shows the lines that wait.
            if out.iter().any(|action| matches!(action, Action::Reply { .. })) {
                unshown = None;
            }
            for action in out.drain(..) {
                self.act(action, &mut calls, &mut called, &mut flushes);
            }
            if delivery.is_done() {
                break;
            }
            let now = Instant::now();
            if trim_at.is_none_or(|at| at <= now) {
                trim_at = self.room.trim().then(|| now + TRIM_EVERY);
            }
            let disk = self.look_at_disk(now, &mut watch);
            let unshown_since = self.log.waits().then(|| *unshown.get_or_insert(now));
            match unshown_since {
                None => unshown = None,
                Some(since) if now >= since + SHOW_ALONE => {
                    self.log.emit_alone();
                    unshown = None;
                }
                Some(_) => {}
            }
            let show = unshown.map(|since: Instant| since + SHOW_ALONE);
            if !flushes.is_empty() && !stopping && look_at.is_none_or(|at| at <= now) {
                look_at = Some(now + LOOK);
            }
            // Kept while no flush waits: a timer that ends before the one that the thread last slept for costs a system call.
            let look = look_at.filter(|at| *at > now);
            let core = delivery.wake_at();
            let idle = flushes.is_empty() && calls.is_empty() && delivery.is_idle();
            if unpublished && now >= published + PUBLISH_EVERY {
                // Often nothing happens from one flush to the next: then the gauges are to show that, not the middle of a flush.
                let due: Instant = *due.get_or_insert(now);
                if idle || now >= due + PUBLISH_EVERY {
                    self.publish();
                    (published, unpublished) = (now, false);
                }
            }
            if !unpublished {
                due = None;
            }
            let publish = unpublished.then(|| due.unwrap_or(published) + PUBLISH_EVERY);
            let wake = [core, publish, look, show, disk, trim_at].into_iter().flatten().min();
            let looks_up = self.firehose.looks_up_credentials();
            self.ready.rest(idle && unshown.is_none() && disk.is_none() && !looks_up);
            if core.is_some_and(|core| core <= now) || !self.events.is_empty() {
                // The connections are tasks of their own, and run only while this one yields.
                tokio::task::yield_now().await;
            }
            let input = tokio::select! {
                biased;
                Some((call, outcome)) = calls.next(), if !calls.is_empty() => {
                    let of = called.remove(&call);
                    unpublished = true;
                    match outcome {
                        Some(outcome) => {
                            self.ready.set(outcome.is_ok());
                            if let Some(Called { stream, records, .. }) = of {
                                self.by_stream.answered(&stream, records, &outcome, Instant::now());
                            }
                            Input::Answered { call, outcome }
                        }
                        None => Input::Tick,
                    }
                }
                Some(event) = self.events.recv() => {
                    unpublished = true;
                    match event {
                        Event::Flush { flush, teller, input } => {
                            flushes.insert(flush, teller);
                            input
                        }
                        Event::Input(input) => input,
                    }
                }
                () = sleep_until(wake) => Input::Tick,
            };
            let now = present();
            if !stopping && let Some(since) = host::ending_since() {
                stopping = true;
                delivery.handle(Input::HostStopping { since }, now, &mut out);
            }
            delivery.handle(input, now, &mut out);
        }
        lose_late_chunks(&mut self.events, &self.log);
        delivery.last_words(&mut out);
        for action in out.drain(..) {
            self.act(action, &mut calls, &mut called, &mut flushes);
        }
        self.publish();
        if config.streams.template.is_some() {
            self.by_stream.lines().iter().for_each(|line| self.log.line(Level::Info, line));
        }
    }

    /// Logs that the disk hangs, and that it does no more. Returns when to look again.
    fn look_at_disk(&self, now: Instant, watch: &mut Watch) -> Option<Instant> {
        let (said, again) = watch.look(self.disk.since(), now);
        match said {
            Some(Said::Hangs(since)) => {
                let seconds = since.as_secs();
                let line = format!(
                    "the disk of spool_dir or dead_letter_file has not answered for {seconds} s; events are delivered meanwhile, but \
                     chunks are acknowledged only once they are stored or delivered"
                );
                self.log.line(Level::Warn, &line);
            }
            Some(Said::AnswersAgain) => {
                self.log.line(Level::Info, "the disk of spool_dir or dead_letter_file answers again");
            }
            None => {}
        }
        again
    }

    /// Executes an action of the core.
    fn act(
        &mut self,
        action: Action,
        calls: &mut FuturesUnordered<Call>,
        called: &mut HashMap<CallId, Called>,
        flushes: &mut HashMap<FlushId, Teller>,
    ) {
        match action {
            Action::Reply { flush, status } => {
                if let Some(teller) = flushes.remove(&flush) {
                    teller.answer(status);
                }
            }
            Action::Admit { flush, reservation } => {
                if let Some(teller) = flushes.get(&flush) {
                    teller.admit(reservation);
                }
            }
            Action::Call { call, stream, body, records } => {
                let (firehose, counts, since) = (self.firehose.clone(), self.counts.clone(), Instant::now());
                let (abort, registration) = AbortHandle::new_pair();
                called.insert(call, Called { stream, records, abort });
                let put = Abortable::new(async move { firehose.put(body, records).await }, registration);
                calls.push(Box::pin(async move {
                    let outcome = put.await.ok();
                    counts.call_seconds.observe(since.elapsed());
                    (call, outcome)
                }));
            }
            Action::CancelCall { call } => {
                if let Some(called) = called.remove(&call) {
                    called.abort.abort();
                }
            }
            Action::RenewCredentials => self.firehose.forget_credentials(),
            Action::Store { chunk, identity, tag, bytes } => self.store(Task::Store(chunk, identity, tag, bytes)),
            Action::Note { chunk, events } => self.store(Task::Note(chunk, events)),
            Action::Load { chunk } => self.store(Task::Load(chunk)),
            Action::Remove { chunk } => self.store(Task::Remove(chunk)),
            Action::DeadLetter { letter, tag, stream, reason, record } => {
                self.by_stream.dead_lettered(&stream);
                self.store(Task::DeadLetter(letter, DeadLetter::new(&tag, &stream, &reason, record)));
            }
            Action::Log { level, text } => self.log.line(level, &text),
            Action::CannotDeliver { setup, stream, text } => {
                let fix = setup.fix(&stream, &self.config.firehose);
                let line = format!("cannot deliver: {text}; the records are kept. To fix it: {fix}");
                self.log.line(Level::Error, &line);
            }
        }
    }

    fn store(&self, task: Task) {
        // The disk's thread ends only after this one.
        let _ = self.tasks.send(task);
    }

    fn publish(&self) {
        self.counts.held.set(self.room.held() as u64);
        self.counts.streams_failing.set(self.by_stream.failing(Instant::now()));
        if let Some(metrics) = &self.metrics {
            metrics.publish(&self.counts.numbers());
        }
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

/// Closes the channel, and logs how many chunks in it were answered OK. There are none unless the host flushes after its exit callback.
fn lose_late_chunks(events: &mut UnboundedReceiver<Event>, log: &Log) {
    events.close();
    let late = std::iter::from_fn(|| events.try_recv().ok());
    let sizes = late.filter_map(|event| match event {
        Event::Input(Input::Acknowledged { bytes, .. }) => Some(bytes.len()),
        _ => None,
    });
    let (chunks, bytes) = sizes.fold((0, 0), |(chunks, bytes), size| (chunks + 1, bytes + size));
    if chunks > 0 {
        let text = format!("{chunks} chunks ({bytes} bytes) came while the output ended, and are lost");
        log.line(Level::Error, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_that_comes_while_the_output_ends_is_refused_or_reported_as_lost() {
        for before in 0..4_usize {
            let (driver, mut inbox, _running) = Driver::without_thread(1 << 20);
            let chunk = |size: usize| {
                let bytes = driver.room.reserve(size).unwrap().fill(vec![b'x'; size]);
                let identity = Identity::of(b"tag", &[]);
                driver.tell(Event::Input(Input::Acknowledged { tag: b"tag".to_vec(), identity, bytes }))
            };
            for size in 1..=before {
                assert!(chunk(size));
            }
            // A flush that waits is answered RETRY when the channel to it closes: nothing is lost.
            let waiter = Waiter::default();
            let deadline = Instant::now();
            let (flush, identity) = (FlushId(1), Identity::of(b"tag", &[]));
            let input = Input::Waiting { flush, deadline, identity, size: 100 };
            assert!(driver.tell(Event::Flush { flush, teller: waiter.teller(), input }));
            let log = Log::detached();
            lose_late_chunks(&mut inbox, &log);
            assert!(!chunk(1), "after it the host's thread answers RETRY");
            assert!(
                crate::told::sleep_on(waiter.told(), deadline + Duration::from_secs(60)).flatten().is_none()
                    && deadline.elapsed() < Duration::from_secs(60)
            );
            let bytes = before * (before + 1) / 2;
            let line = format!("{before} chunks ({bytes} bytes) came while the output ended, and are lost");
            assert_eq!(log.take(), (before > 0).then_some((Level::Error, line)));
            assert_eq!(driver.room.held(), 0, "their memory is free again");
        }
    }
}
