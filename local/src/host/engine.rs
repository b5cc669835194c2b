//! The pipeline: inputs, chunks, flushes, retries, and the exit.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use regex::Regex;

use super::abi::{Context, Instance, Library};
use super::chunk::{Chunk, Chunks};
use super::configuration::{self, Error, Section};
use super::event::EventForm;
use super::input::{self, Input, Progress};
use super::log::{self, Level, log};
use super::memory::CoroutineStack;
use super::parser::Parser;

/// Properties reserved for the host; a plugin that reads them gets NULL.
const CORE_PROPERTIES: &[&str] = &[
    "name",
    "match",
    "match_regex",
    "alias",
    "log_level",
    "log_suppress_interval",
    "host",
    "port",
    "retry_limit",
    "workers",
    "storage.total_limit_size",
];
const CORE_PREFIXES: &[&str] = &["net.", "tls", "oauth2"];

/// Inputs pause while chunks hold more than this; the stand-in has no `storage.path`.
const MAX_HELD_BYTES: usize = 512 << 20;

/// `[SERVICE]`.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub flush: Duration,
    /// None waits until everything is flushed.
    pub grace: Option<Duration>,
    pub scheduler_base: u64,
    pub scheduler_cap: u64,
    pub stack_size: usize,
    pub log_level: Level,
    pub plugins: Vec<PathBuf>,
    pub parsers: Vec<PathBuf>,
}

impl Service {
    /// Reads `[SERVICE]`, or uses the defaults. Files are relative to the configuration's directory.
    pub fn read(sections: &[Section], directory: &std::path::Path) -> Result<Service, Error> {
        let none = Section { name: "SERVICE".to_owned(), properties: Vec::new(), place: String::new() };
        let section = sections.iter().find(|section| section.name == "SERVICE").unwrap_or(&none);
        section.only(&[
            "flush",
            "grace",
            "daemon",
            "log_level",
            "plugins_file",
            "parsers_file",
            "scheduler.base",
            "scheduler.cap",
            "coro_stack_size",
            "http_server",
            "hot_reload",
            "storage.metrics",
        ])?;
        for name in ["daemon", "http_server"] {
            if section.switch(name, false)? {
                return Err(section.error(format!("{name} on: the stand-in cannot do that; leave it off")));
            }
        }
        let flush: f64 = section.number("flush", 1.0)?;
        if !(0.001..=3600.0).contains(&flush) {
            return Err(section.error(format!("Flush {flush} is not between 0.001 and 3600 seconds")));
        }
        let grace: i64 = section.number("grace", 5)?;
        let scheduler_base = section.number("scheduler.base", 5)?;
        let scheduler_cap = section.number("scheduler.cap", 2000)?;
        if scheduler_base == 0 || scheduler_cap < scheduler_base {
            return Err(section.error("scheduler.cap must not be below scheduler.base, nor that below 1".to_owned()));
        }
        let level = section.get("log_level").unwrap_or("info");
        Ok(Service {
            flush: Duration::from_secs_f64(flush),
            grace: u64::try_from(grace).ok().map(Duration::from_secs),
            scheduler_base,
            scheduler_cap,
            stack_size: section.number("coro_stack_size", 24 * 1024)?,
            log_level: Level::named(level).ok_or_else(|| section.error(format!("log_level {level:?} is none")))?,
            plugins: section.all("plugins_file").map(|file| configuration::beside(directory, file)).collect(),
            parsers: section.all("parsers_file").map(|file| configuration::beside(directory, file)).collect(),
        })
    }

    /// The parsers in all `parsers_file`s.
    fn read_parsers(&self, sections: &[Section]) -> Result<HashMap<String, Parser>, Error> {
        let mut read: Vec<Section> = sections.to_vec();
        for file in &self.parsers {
            read.extend(configuration::read(file)?);
        }
        read.iter().filter(|section| section.name == "PARSER").map(Parser::from_section).collect()
    }
}

/// Counts of one engine's run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub chunks: u64,
    pub events: u64,
    pub ok: u64,
    pub ok_events: u64,
    pub errors: u64,
    pub retries: u64,
    pub dropped: u64,
    pub dropped_events: u64,
    pub left: u64,
}

impl Totals {
    pub fn line(&self, deepest: usize, stack_size: usize) -> String {
        format!(
            "{} chunks, {} events: {} ok ({} events), {} errors, {} retries, {} dropped ({} events), {} left; the \
             deepest flush took {deepest} of {stack_size} bytes of stack",
            self.chunks,
            self.events,
            self.ok,
            self.ok_events,
            self.errors,
            self.retries,
            self.dropped,
            self.dropped_events,
            self.left
        )
    }
}

/// The outputs of a chunk.
enum Route {
    Wildcard(String),
    Regex(Regex),
    Nowhere,
}

impl Route {
    fn from_section(section: &Section) -> Result<Route, Error> {
        match (section.get("match"), section.get("match_regex")) {
            (Some(pattern), _) => Ok(Route::Wildcard(pattern.to_owned())),
            (None, Some(text)) => {
                let regex = Regex::new(text);
                Ok(Route::Regex(regex.map_err(|error| section.error(format!("Match_Regex {text:?}: {error}")))?))
            }
            (None, None) => Ok(Route::Nowhere),
        }
    }

    fn matches(&self, tag: &str) -> bool {
        match self {
            Route::Wildcard(pattern) => wildcard(pattern.as_bytes(), tag.as_bytes()),
            Route::Regex(regex) => regex.is_match(tag),
            Route::Nowhere => false,
        }
    }
}

/// Whether `text` matches a pattern whose `*` stands for any bytes.
fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skip| wildcard(rest, &text[skip..])),
        Some((byte, rest)) => text.first() == Some(byte) && wildcard(rest, &text[1..]),
    }
}

/// An `[OUTPUT]`.
struct Output {
    instance: Arc<Instance>,
    library: Arc<Library>,
    context: Arc<Context>,
    route: Route,
    /// None for no limit.
    retry_limit: Option<u32>,
    wanted_workers: usize,
    workers: Vec<(Sender<Task>, JoinHandle<()>)>,
    next_worker: usize,
}

impl Output {
    fn name(&self) -> String {
        self.instance.name.to_string_lossy().into_owned()
    }
}

/// A chunk on its way to one output.
#[derive(Clone)]
struct Task {
    number: u64,
    chunk: Arc<Chunk>,
    output: usize,
    attempts: u32,
}

/// Messages to the engine while it runs.
pub(super) enum Notice {
    /// A worker's flush has returned.
    Flushed(FlushedTask),
    /// The service must stop; `true` for a hot reload.
    Stop(bool),
}

/// A task and the result of its flush.
pub(super) struct FlushedTask {
    task: Task,
    answer: i32,
}

/// One run of a configuration.
pub(super) struct Engine {
    service: Service,
    inputs: Vec<Box<dyn Input>>,
    outputs: Vec<Output>,
    chunks: Chunks,
    retries: Vec<(Instant, Task)>,
    running: usize,
    totals: Totals,
    notices: Receiver<Notice>,
    sender: Sender<Notice>,
    /// The stack for flushes on this thread.
    stack: Option<CoroutineStack>,
    deepest: Arc<AtomicUsize>,
    libraries: Vec<Arc<Library>>,
}

impl Engine {
    /// Creates the instances of a configuration, without initialising them.
    pub fn new(
        sections: &[Section],
        service: Service,
        libraries: Vec<Library>,
        form: EventForm,
    ) -> Result<Engine, Error> {
        let parsers = service.read_parsers(sections)?;
        let libraries: Vec<Arc<Library>> = libraries.into_iter().map(Arc::new).collect();
        let mut inputs = Vec::new();
        let mut outputs: Vec<Output> = Vec::new();
        for section in sections {
            match section.name.as_str() {
                "INPUT" => {
                    let kind = section.get("name").unwrap_or_default();
                    let same = |other: &&Section| other.name == "INPUT" && other.get("name") == Some(kind);
                    let number =
                        sections.iter().take_while(|other| !std::ptr::eq(*other, section)).filter(same).count();
                    inputs.push(input::from_section(section, number, &parsers)?);
                }
                "OUTPUT" => outputs.push(output(section, outputs.len(), &libraries, service.log_level)?),
                "SERVICE" | "PARSER" => {}
                other => {
                    return Err(section.error(format!(
                        "the stand-in has no [{other}], only SERVICE, PARSER, INPUT and OUTPUT; run Fluent Bit for it"
                    )));
                }
            }
        }
        let (sender, notices) = unbounded();
        Ok(Engine {
            service,
            inputs,
            outputs,
            chunks: Chunks::new(form),
            retries: Vec::new(),
            running: 0,
            totals: Totals::default(),
            notices,
            sender,
            stack: None,
            deepest: Arc::default(),
            libraries,
        })
    }

    /// A sender of messages to the engine.
    pub fn sender(&self) -> Sender<Notice> {
        self.sender.clone()
    }

    /// The line of totals.
    pub fn summary(&self) -> String {
        self.totals.line(self.deepest.load(Ordering::Relaxed), self.service.stack_size)
    }

    /// Initialises every output and starts its workers. If one fails, the caller still calls [`Engine::exit`].
    pub fn initialize(&mut self, hot_reload: bool) -> Result<(), ()> {
        for at in 0..self.outputs.len() {
            let output = &self.outputs[at];
            if output.library.init(&output.instance, &output.context).is_err() {
                log!(Error, "[output] failed to initialize '{}' plugin", output.library.name());
                log!(Error, "[engine] output initialization failed");
                // The failed one is removed before the others' exit is called.
                self.outputs.remove(at);
                return Err(());
            }
        }
        for at in 0..self.outputs.len() {
            let output = &self.outputs[at];
            output.library.pre_run(hot_reload);
            for number in 0..output.wanted_workers {
                match self.start_worker(at, number) {
                    Ok(worker) => self.outputs[at].workers.push(worker),
                    Err(error) => {
                        log!(Error, "[output] could not start thread pool for '{}': {error}", self.outputs[at].name());
                        return Err(());
                    }
                }
            }
        }
        Ok(())
    }

    fn start_worker(&self, at: usize, number: usize) -> std::io::Result<(Sender<Task>, JoinHandle<()>)> {
        let output = &self.outputs[at];
        let (library, context) = (Arc::clone(&output.library), Arc::clone(&output.context));
        let (sender, tasks) = unbounded::<Task>();
        let (notices, deepest) = (self.sender.clone(), Arc::clone(&self.deepest));
        let mut stack = CoroutineStack::new(self.service.stack_size)?;
        let name = output.name();
        let thread = std::thread::Builder::new().name(format!("flb-out-{name}-w{number}"));
        let thread = thread.spawn(move || {
            log!(Info, "[output:{}:{name}] worker #{number} started", library.name());
            for task in tasks {
                let answer = flush(&library, &context, &task, &mut stack, &deepest);
                if notices.send(Notice::Flushed(FlushedTask { task, answer })).is_err() {
                    break;
                }
            }
            log!(Info, "[output:{}:{name}] thread worker #{number} stopped", library.name());
        })?;
        Ok((sender, thread))
    }

    /// Runs until it is asked to stop, an input has ended, or nothing remains to do; then flushes the remaining chunks within
    /// the grace period. Returns whether it stops for a hot reload.
    pub fn run(&mut self) -> std::io::Result<bool> {
        self.stack = Some(CoroutineStack::new(self.service.stack_size)?);
        log!(Info, "[engine] started (pid={})", std::process::id());
        let mut next_flush = Instant::now() + self.service.flush;
        let mut stopping: Option<(Instant, bool)> = None;
        loop {
            let mut more = false;
            let mut stop = None;
            if stopping.is_none() && self.chunks.held_bytes() < MAX_HELD_BYTES {
                for input in &mut self.inputs {
                    match input.collect(&mut self.chunks) {
                        Progress::More => more = true,
                        Progress::Idle => {}
                        Progress::Done => stop = Some(false),
                    }
                }
            }
            for notice in self.notices.try_iter().collect::<Vec<_>>() {
                match notice {
                    Notice::Flushed(FlushedTask { task, answer }) => {
                        self.running -= 1;
                        self.flushed(task, answer, stopping.is_some());
                    }
                    Notice::Stop(reload) => stop = Some(reload),
                }
            }
            if let (Some(reload), None) = (stop, stopping) {
                match self.service.grace {
                    Some(grace) => log!(Warn, "[engine] service will shutdown in max {} seconds", grace.as_secs()),
                    None => log!(Warn, "[engine] service will shutdown when all remaining tasks are flushed"),
                }
                let now = Instant::now();
                stopping = Some((now, reload));
                next_flush = now;
                self.retries.iter_mut().for_each(|(due, _)| *due = now);
            }
            if Instant::now() >= next_flush {
                for chunk in self.chunks.take() {
                    self.dispatch(chunk, stopping.is_some());
                }
                next_flush = Instant::now() + self.service.flush;
            }
            self.retry_what_is_due(stopping.is_some());
            if let Some((since, reload)) = stopping {
                let idle = self.chunks.is_empty() && self.retries.is_empty() && self.running == 0;
                if idle || self.service.grace.is_some_and(|grace| since.elapsed() >= grace) {
                    let pending = self.running + self.retries.len();
                    log!(Info, "[engine] service has stopped ({pending} pending tasks)");
                    return Ok(reload);
                }
            }
            if !more {
                let next = self.retries.iter().map(|(due, _)| *due).fold(next_flush, Instant::min);
                let wait = next.saturating_duration_since(Instant::now()).min(Duration::from_millis(20));
                if let Ok(notice) = self.notices.recv_timeout(wait) {
                    // Put back into the queue, so that it is handled in one place.
                    let _ = self.sender.send(notice);
                }
            }
        }
    }

    /// Sends a chunk to every output whose `Match` fits.
    fn dispatch(&mut self, chunk: Chunk, stopping: bool) {
        let chunk = Arc::new(chunk);
        let number = self.totals.chunks;
        self.totals.chunks += 1;
        self.totals.events += chunk.events;
        for output in 0..self.outputs.len() {
            if self.outputs[output].route.matches(&chunk.tag) {
                self.start(Task { number, chunk: Arc::clone(&chunk), output, attempts: 0 }, stopping);
            }
        }
    }

    /// Flushes a task: on this thread if there are no workers, otherwise on the next worker.
    fn start(&mut self, task: Task, stopping: bool) {
        let output = &mut self.outputs[task.output];
        if output.workers.is_empty() {
            let Some(stack) = &mut self.stack else { return };
            let answer = flush(&output.library, &output.context, &task, stack, &self.deepest);
            self.flushed(task, answer, stopping);
        } else {
            let at = output.next_worker % output.workers.len();
            output.next_worker += 1;
            self.running += 1;
            if let Err(crossbeam_channel::SendError(task)) = output.workers[at].0.send(task) {
                log!(Error, "[output:{}] worker #{at} is gone", output.name());
                self.running -= 1;
                self.flushed(task, 0, stopping);
            }
        }
    }

    fn retry_what_is_due(&mut self, stopping: bool) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.retries).into_iter().partition(|(due, _)| *due <= now);
        self.retries = later;
        let due: Vec<(Instant, Task)> = due;
        for (_, task) in due {
            self.start(task, stopping);
        }
    }

    /// Handles the result of a flush: OK, ERROR or RETRY.
    fn flushed(&mut self, mut task: Task, answer: i32, stopping: bool) {
        let output = &self.outputs[task.output];
        let chunk = &task.chunk;
        let place = format!("task_id={}, input={} > output={}", task.number, chunk.input, output.name());
        let out_id = task.output;
        match answer {
            1 => {
                self.totals.ok += 1;
                self.totals.ok_events += chunk.events;
                if task.attempts > 0 {
                    log!(
                        Info,
                        "[engine] flush chunk '{}' succeeded at retry {}: {place} (out_id={out_id})",
                        chunk.name,
                        task.attempts
                    );
                }
            }
            2 if output.retry_limit.is_none_or(|limit| task.attempts < limit) => {
                task.attempts += 1;
                self.totals.retries += 1;
                let seconds = if stopping { 1 } else { self.backoff(task.attempts) + 1 };
                log!(
                    Warn,
                    "[engine] failed to flush chunk '{}', retry in {seconds} seconds: {place} (out_id={out_id})",
                    chunk.name
                );
                self.retries.push((Instant::now() + Duration::from_secs(seconds), task));
            }
            2 => {
                self.totals.dropped += 1;
                self.totals.dropped_events += chunk.events;
                match output.retry_limit {
                    Some(0) => {
                        log!(
                            Info,
                            "[engine] chunk '{}' is not retried (no retry config): {place} (out_id={out_id})",
                            chunk.name
                        );
                    }
                    _ => log!(Error, "[engine] chunk '{}' cannot be retried: {place}", chunk.name),
                }
            }
            other => {
                self.totals.errors += 1;
                self.totals.dropped += 1;
                self.totals.dropped_events += chunk.events;
                log!(Error, "[engine] chunk '{}' is dropped, the flush answered {other}: {place}", chunk.name);
            }
        }
    }

    /// A random wait in seconds between the base and a bound that doubles with each attempt.
    fn backoff(&self, attempts: u32) -> u64 {
        let Service { scheduler_base: base, scheduler_cap: cap, .. } = self.service;
        let highest = base.saturating_mul(2u64.saturating_pow(attempts)).min(cap);
        fastrand::u64(base..=highest.max(base))
    }

    /// Ends every instance: joins its workers, then calls PreExit and ExitCtx.
    pub fn exit(&mut self, hot_reload: bool) {
        self.totals.left = (self.running + self.retries.len()) as u64;
        for mut output in std::mem::take(&mut self.outputs) {
            for (sender, thread) in output.workers.drain(..) {
                drop(sender);
                let _ = thread.join();
            }
            output.library.exit(&output.context, hot_reload);
        }
        // Flushes that workers finished while being joined.
        for notice in self.notices.try_iter() {
            if let Notice::Flushed(FlushedTask { task, answer: 1 }) = notice {
                self.totals.ok += 1;
                self.totals.ok_events += task.chunk.events;
                self.totals.left -= 1;
            }
        }
    }

    /// Unregisters and closes the libraries, after [`Engine::exit`].
    pub fn close(&mut self) {
        for library in self.libraries.drain(..) {
            match Arc::try_unwrap(library) {
                Ok(library) => library.close(),
                Err(library) => log!(Error, "{} is still in use and stays loaded", library.name()),
            }
        }
    }
}

/// Calls the plugin.
fn flush(library: &Library, context: &Context, task: &Task, stack: &mut CoroutineStack, deepest: &AtomicUsize) -> i32 {
    let answer = library.flush(context, &task.chunk.data, &task.chunk.tag, stack).unwrap_or_else(|error| {
        log!(Error, "cannot map a chunk's memory: {error}");
        2
    });
    deepest.fetch_max(stack.deepest(), Ordering::Relaxed);
    answer
}

/// Creates the output of an `[OUTPUT]`.
fn output(section: &Section, number: usize, libraries: &[Arc<Library>], service_level: Level) -> Result<Output, Error> {
    let kind = section.get("name").ok_or_else(|| section.error("[OUTPUT] needs a Name".to_owned()))?;
    let library = libraries.iter().find(|library| library.name().eq_ignore_ascii_case(kind)).ok_or_else(|| {
        let loaded: Vec<&str> = libraries.iter().map(|library| library.name()).collect();
        let loaded = if loaded.is_empty() { "none".to_owned() } else { loaded.join(", ") };
        section.error(format!("there is no output {kind:?}; loaded with -e or plugins_file: {loaded}"))
    })?;
    let retry_limit = match section.get("retry_limit").map(str::to_ascii_lowercase).as_deref() {
        None => Some(1),
        Some("no_limits" | "false" | "off") => None,
        Some("no_retries") => Some(0),
        Some(text) => Some(text.parse().map_err(|_| {
            section.error(format!("Retry_Limit {text:?} is neither a number, no_limits nor no_retries"))
        })?),
    };
    let level = section.get("log_level");
    let log_level = match level {
        None => service_level,
        Some(name) => Level::named(name).ok_or_else(|| section.error(format!("log_level {name:?} is none")))?,
    };
    let c_string =
        |text: &str| std::ffi::CString::new(text).map_err(|_| section.error(format!("{text:?} contains a NUL")));
    let mut properties = Vec::new();
    for (key, value) in &section.properties {
        let lower = key.to_ascii_lowercase();
        if lower == "tls" && matches!(value.to_ascii_lowercase().as_str(), "on" | "true" | "yes") {
            return Err(section.error("tls on: the host refuses it for plugins that do not ask for it".to_owned()));
        }
        let core =
            CORE_PROPERTIES.contains(&lower.as_str()) || CORE_PREFIXES.iter().any(|prefix| lower.starts_with(prefix));
        if !core {
            let value = if value.is_empty() { None } else { Some(c_string(value)?) };
            properties.push((key.clone(), value));
        }
    }
    let name = section.get("alias").map_or_else(|| format!("{}.{number}", library.name()), str::to_owned);
    Ok(Output {
        instance: Arc::new(Instance { name: c_string(&name)?, properties, log_level }),
        library: Arc::clone(library),
        context: Arc::new(Context::new()),
        route: Route::from_section(section)?,
        retry_limit,
        wanted_workers: section.number("workers", 0)?,
        workers: Vec::new(),
        next_worker: 0,
    })
}

/// Sets the level of the host's own log lines.
pub(super) fn set_log_level(service: &Service, verbose: bool) {
    log::set_level(if verbose { service.log_level.max(Level::Debug) } else { service.log_level });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_in_the_host() {
        for (pattern, tag, expected) in [
            ("*", "", true),
            ("*", "kube.a", true),
            ("kube.*", "kube.a.b", true),
            ("kube.*", "kub.a", false),
            ("*.log", "kube.a.log", true),
            ("*.log", "kube.a.log2", false),
            ("a*b*c", "a-b-b-c", true),
            ("a", "a", true),
            ("a", "ab", false),
        ] {
            assert_eq!(wildcard(pattern.as_bytes(), tag.as_bytes()), expected, "{pattern} {tag}");
        }
    }
}
