//! One `[OUTPUT]`: its registry, its threads, the hand-over of a chunk, start and drain.

use crate::delivery::batch::Opening;
use crate::delivery::encode::HandOver;
use crate::delivery::ledger::{Flush, Identity, Ledger};
use crate::delivery::{Command, Courier, CourierParts};
use crate::error::Error;
use crate::host::{self, FlushData, Handle, Level, Log, Metrics, Output, Status};
use crate::metrics::{Counts, Snapshot};
use crate::options::Config;
use crate::storage::dead_letters::Aside;
use crate::storage::spool::Spool;
use crate::{REVISION, VERSION};
use once_cell::sync::Lazy;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// How long a flush waits on the engine's own thread, where nothing else happens meanwhile.
pub const ENGINE_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the exit waits for what the runtime has left behind (a name look-up cannot be called off).
const RUNTIME_SHUTDOWN: Duration = Duration::from_millis(200);

static INSTANCES: Lazy<Mutex<HashMap<Handle, Arc<Instance>>>> = Lazy::new(Mutex::default);
static NEXT: AtomicUsize = AtomicUsize::new(1);

fn instances() -> MutexGuard<'static, HashMap<Handle, Arc<Instance>>> {
    INSTANCES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One output with its thread.
pub struct Instance {
    log: Arc<Log>,
    counts: Arc<Counts>,
    flush_timeout: Duration,
    shutdown_timeout: Duration,
    /// Taken at the exit, which has the courier drain.
    commands: Mutex<Option<UnboundedSender<Command>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Starts the output that the host describes, and gives it its handle. What went wrong is in the log.
pub fn start(output: &Output<'_>) -> bool {
    // The default hook would print to file descriptor 2; what panics is told by whoever catches it.
    std::panic::set_hook(Box::new(|_| {}));
    let log = Arc::new(output.log());
    let started = Config::of_section(&|name| output.property(name), &|name| std::env::var(name).ok())
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
        let (commands, orders) = tokio::sync::mpsc::unbounded_channel();
        let (flush_timeout, shutdown_timeout) = (config.delivery.flush_timeout, config.delivery.shutdown_timeout);
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
        let left = left
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
        let parts =
            CourierParts { config, opening, ledger, aside, log: log.clone(), spool, left, commands: orders, metrics };
        let thread = host::without_signals(|| start_courier(parts)).map_err(Error::Thread)?;
        Ok(Instance {
            log,
            counts,
            flush_timeout,
            shutdown_timeout,
            commands: Mutex::new(Some(commands)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Hands a chunk over and waits. This runs on the small stack.
    pub fn flush(&self, data: FlushData) -> Status {
        let wait = match host::on_worker_thread() {
            true => self.flush_timeout,
            false => self.flush_timeout.min(ENGINE_FLUSH_TIMEOUT),
        };
        let now = Instant::now();
        // A host that has been asked to end still flushes whatever is queued, one chunk after the other.
        if host::ending_since().is_some_and(|since| now >= since + self.shutdown_timeout) {
            return Status::Retry;
        }
        let (reply, answer) = oneshot::channel();
        let hand_over = HandOver { data, since: now, flush: Flush { reply, deadline: now + wait } };
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let handed_over = commands.is_some_and(|commands| commands.send(Command::Take(hand_over)).is_ok());
        // Whoever has the chunk answers in time, or drops it and with it the way to answer.
        if handed_over { answer.blocking_recv().unwrap_or(Status::Retry) } else { Status::Retry }
    }

    /// Lets what is on its way arrive within `shutdown_timeout`, counted from the signal that has the host end if there was one, joins the thread, and logs the counts.
    pub fn drain(&self) -> Snapshot {
        drop(self.commands.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(panic)) = thread.map(JoinHandle::join) {
            std::mem::forget(panic);
            self.log.line(Level::Error, "a defect in kubehose: its thread has panicked; please report it");
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
    thread::Builder::new().name("kubehose".to_owned()).spawn(move || deliver(parts))
}

/// The courier's thread. One is enough: it encodes, signs and encrypts some 400 MB of JSON a second, several times what the
/// host can bring; and each thread more that a chunk is handed to costs a small one as much as its encoding.
fn deliver(parts: CourierParts) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    match runtime {
        Ok(runtime) => {
            let log = parts.log.clone();
            match runtime.block_on(async { Courier::new(parts) }) {
                // A task, since what `block_on` itself runs is woken by way of the kernel even from its own thread.
                Ok(courier) => match runtime.block_on(runtime.spawn(courier.run())) {
                    Ok(()) => {}
                    Err(panic) => {
                        log.line(Level::Error, &format!("a defect in kubehose: {panic}; please report it"));
                        // Dropping what a panic carries may panic once more.
                        std::mem::forget(panic);
                    }
                },
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
