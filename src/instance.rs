//! One `[OUTPUT]`: its registry, its threads, the hand-over of a chunk, start and drain.

use crate::batch::Opening;
use crate::config::Config;
use crate::dead_letter::Aside;
use crate::delivery::{Courier, CourierParts};
use crate::encode::{Encoder, HandOver};
use crate::error::Error;
use crate::host::{self, FlushData, Handle, Level, Log, Metrics, Output, Status};
use crate::ledger::{Flush, Identity, Ledger};
use crate::metrics::{Counts, Snapshot};
use crate::spool::Spool;
use crate::{REVISION, VERSION};
use crossbeam_channel::{Sender, bounded, unbounded};
use once_cell::sync::Lazy;
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a flush waits on the engine's own thread, where nothing else happens meanwhile.
pub const ENGINE_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the exit waits for what the runtime has left behind (a name look-up cannot be called off).
const RUNTIME_SHUTDOWN: Duration = Duration::from_millis(200);

static INSTANCES: Lazy<Mutex<HashMap<Handle, Arc<Instance>>>> = Lazy::new(Mutex::default);
static NEXT: AtomicUsize = AtomicUsize::new(1);

fn instances() -> MutexGuard<'static, HashMap<Handle, Arc<Instance>>> {
    INSTANCES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One output with its two threads.
pub struct Instance {
    log: Arc<Log>,
    counts: Arc<Counts>,
    flush_timeout: Duration,
    /// Taken at the exit, which ends the encoder, which ends the courier.
    hand_overs: Mutex<Option<Sender<HandOver>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Starts the output that the host describes, and gives it its handle. What went wrong is in the log.
pub fn start(output: &Output<'_>) -> bool {
    // The default hook would print to file descriptor 2; what panics is told by whoever catches it.
    std::panic::set_hook(Box::new(|_| {}));
    let log = Arc::new(output.log());
    let started = Config::read(&|name| output.property(name), &|name| std::env::var(name).ok())
        .and_then(|config| Instance::start(config, log.clone(), output.metrics()));
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

/// Hands a chunk over and waits for the answer. Returns only after `data` has been dropped.
pub fn flush(handle: Handle, data: FlushData) -> Status {
    let Some(instance) = instances().get(&handle).cloned() else {
        return Status::Retry;
    };
    let status = instance.flush(data);
    instance.log.emit();
    status
}

/// Ends an output; a handle that is not (any more) known is none of ours.
pub fn exit(handle: Handle) {
    let Some(instance) = instances().remove(&handle) else { return };
    let mut ending = vec![instance];
    if !host::can_reload() {
        // The host will not name the others: 1.9 does not even survive its own second call with two outputs.
        ending.extend(instances().drain().map(|(_, instance)| instance));
    }
    for instance in ending {
        instance.drain();
        instance.log.emit();
    }
}

impl Instance {
    /// Starts the threads of an output, whose counts are shown in `metrics`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(config: Config, log: Arc<Log>, metrics: Option<Metrics>) -> Result<Instance, Error> {
        let counts = Arc::new(Counts::default());
        counts.held_limit.add(config.delivery.max_buffer as u64);
        if let Some(metrics) = &metrics {
            metrics.publish(&counts);
        }
        let ledger = Arc::new(Ledger::new(counts.clone()));
        let opening = Arc::new(Opening::new(&config.firehose.delivery_stream));
        let dead_letters =
            config.delivery.dead_letter_file.as_deref().map(|file| (file, config.delivery.dead_letter_limit));
        let aside = Arc::new(Aside::new(&config.firehose.delivery_stream, dead_letters, counts.clone(), log.clone()));
        let (hand_overs, handed_over) = unbounded();
        let (release, released) = bounded(1);
        let waits = Arc::new(AtomicBool::new(false));
        let (give_back, buffers) = bounded(config.delivery.concurrency);
        let (commands, orders) = tokio::sync::mpsc::unbounded_channel();
        let flush_timeout = config.delivery.flush_timeout;
        let (spool, left) = match &config.delivery.spool {
            Some((folder, limit)) => {
                let (spool, left) = Spool::open(folder, *limit)?;
                if !left.is_empty() {
                    let line =
                        format!("{} chunks were left in spool_dir {}; they go out first", left.len(), folder.display());
                    log.line(Level::Info, &line);
                }
                (Some(spool), left)
            }
            None => (None, Vec::new()),
        };
        let waiting = left
            .into_iter()
            .map(|spooled| {
                let spooled = Arc::new(spooled);
                // One that is torn has an identity that no chunk will ask for.
                let identity = spooled.identity().unwrap_or(Identity::of(b"", b""));
                (ledger.begin_left(identity, spooled.clone()), spooled)
            })
            .collect();
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
        let parts = CourierParts {
            config: config.clone(),
            opening: opening.clone(),
            ledger: ledger.clone(),
            aside: aside.clone(),
            log: log.clone(),
            buffers: give_back,
            released: release,
            encoder_waits: waits.clone(),
            commands: orders,
            metrics,
        };
        let encoder = Encoder {
            config,
            opening,
            ledger,
            aside,
            log: log.clone(),
            hand_overs: handed_over,
            released,
            waits,
            buffers,
            commands,
            spool,
            waiting,
            parked: VecDeque::new(),
            spool_logged: None,
            file: Cell::default(),
            body_size: Cell::new(0),
            truncated_logged: Cell::new(None),
            empty_logged: Cell::new(None),
        };
        let threads = host::without_signals(|| {
            let courier = start_courier(parts)?;
            let encoder = named("kubehose-encode", move || encoder.run());
            // Without an encoder the courier's orders have ended already, and so does it.
            encoder.map(|encoder| vec![encoder, courier])
        })
        .map_err(Error::Thread)?;
        Ok(Instance {
            log,
            counts,
            flush_timeout,
            hand_overs: Mutex::new(Some(hand_overs)),
            threads: Mutex::new(threads),
        })
    }

    /// Hands a chunk over and waits. This runs on the small stack.
    pub fn flush(&self, data: FlushData) -> Status {
        let wait = match host::on_worker_thread() {
            true => self.flush_timeout,
            false => self.flush_timeout.min(ENGINE_FLUSH_TIMEOUT),
        };
        let (reply, answer) = bounded(1);
        let now = Instant::now();
        let hand_over = HandOver { data, since: now, flush: Flush { reply, deadline: now + wait } };
        let hand_overs = self.hand_overs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let handed_over = hand_overs.is_some_and(|hand_overs| hand_overs.send(hand_over).is_ok());
        // Whoever has the chunk answers in time, or drops it and with it the way to answer.
        if handed_over { answer.recv().unwrap_or(Status::Retry) } else { Status::Retry }
    }

    /// Lets what is on its way arrive within `shutdown_timeout`, joins the threads, and logs the counts.
    pub fn drain(&self) -> Snapshot {
        drop(self.hand_overs.lock().unwrap_or_else(PoisonError::into_inner).take());
        for thread in std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner)) {
            if let Err(panic) = thread.join() {
                std::mem::forget(panic);
                self.log.line(Level::Error, "a defect in kubehose: one of its threads has panicked; please report it");
            }
        }
        let counts = self.counts.snapshot();
        self.log.line(Level::Info, &format!("ended: {counts}"));
        counts
    }

    /// What the output has done so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// Starts a courier on a thread of its own.
pub(crate) fn start_courier(parts: CourierParts) -> std::io::Result<JoinHandle<()>> {
    named("kubehose-send", move || deliver(parts))
}

fn named(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// The courier's thread. One thread is enough: it signs and encrypts about 500 MB a second.
fn deliver(parts: CourierParts) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    match runtime {
        Ok(runtime) => {
            let log = parts.log.clone();
            match runtime.block_on(async { Courier::new(parts) }) {
                Ok(courier) => runtime.block_on(courier.run()),
                Err(error) => log.line(Level::Error, &error.to_string()),
            }
            runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
        }
        Err(error) => {
            let line = format!("cannot watch sockets: {error}; raise the limit of open files (ulimit -n)");
            parts.log.line(Level::Error, &line);
        }
    }
}
