//! A safe view of the host: its definition of the plugin, an output's properties, log and metrics.
//!
//! Functions that some release of Fluent Bit lacks are looked up by name with the dynamic linker, and are optional here. A log line
//! of one of our threads waits in a queue for a thread of the host: the host writes a foreign thread's lines to
//! file descriptor 2, not to its `log_file`, and after a fork into the background that descriptor may be anything. If no
//! thread of the host comes for long, the line goes to the standard error, provided that it is still the one from when the plugin was loaded.
#![allow(unsafe_code)]

mod alloc;
mod table;

pub use self::table::Property;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use fluent_bit_sys as ffi;
use once_cell::sync::{Lazy, OnceCell};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The plugin's name in an `[OUTPUT]` section. It must differ from the host's own `firehose` and `kinesis_firehose`.
pub const NAME: &CStr = c"kubehose";
const DESCRIPTION: &CStr = c"kubehose: Kubernetes logs to Amazon Data Firehose";

/// What a flush answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The chunk is done.
    Ok,
    /// The host brings the chunk again, if its `Retry_Limit` allows.
    Retry,
    /// The chunk is dropped.
    Error,
}

impl Status {
    /// The host's number.
    pub fn code(self) -> c_int {
        (match self {
            Status::Ok => ffi::FLB_OK,
            Status::Retry => ffi::FLB_RETRY,
            Status::Error => ffi::FLB_ERROR,
        }) as c_int
    }
}

/// How severe a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something is lost or cannot work.
    Error,
    /// Something needs attention.
    Warn,
    /// Good to know once.
    Info,
    /// Helps to find a fault.
    Debug,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }

    fn code(self) -> c_int {
        (match self {
            Level::Error => ffi::FLB_LOG_ERROR,
            Level::Warn => ffi::FLB_LOG_WARN,
            Level::Info => ffi::FLB_LOG_INFO,
            Level::Debug => ffi::FLB_LOG_DEBUG,
        }) as c_int
    }
}

/// Fills in the host's definition of the plugin: these five fields and not one byte more, because older hosts allocate
/// no more; and the table of its options, if the host is one that reads it.
///
/// # Safety
/// `definition` is null, or what the host passes to FLBPluginRegister.
pub unsafe fn define(definition: *mut ffi::flb_plugin_proxy_def, options: &[Property]) -> bool {
    if definition.is_null() {
        return false;
    }
    Lazy::force(&STDERR);
    // SAFETY: the host allocated at least these five fields (see include/kubehose_host.h). They are written one by one,
    // through the pointer, without a reference to memory that may be uninitialised. The host never writes to or frees
    // the two texts.
    unsafe {
        (&raw mut (*definition).type_).write(ffi::FLB_PROXY_OUTPUT_PLUGIN as c_int);
        (&raw mut (*definition).proxy).write(ffi::FLB_PROXY_GOLANG as c_int);
        (&raw mut (*definition).flags).write(0);
        (&raw mut (*definition).name).write(NAME.as_ptr().cast_mut());
        (&raw mut (*definition).description).write(DESCRIPTION.as_ptr().cast_mut());
        table::offer(definition, options);
    }
    true
}

/// Looks up a symbol of the host's executable.
fn symbol(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: the name ends with a NUL; RTLD_DEFAULT needs no handle.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) })
}

/// The loaded object (the executable, a library) that an address lies in, by its base.
fn object(address: *const c_void) -> Option<usize> {
    // SAFETY: the result is plain data that dladdr fills; it takes any address.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    (unsafe { libc::dladdr(address, &mut found) } != 0).then(|| found.dli_fbase.addr())
}

/// The object of the host's executable.
fn executable() -> Option<usize> {
    // SAFETY: getauxval takes any number.
    object(std::ptr::without_provenance(unsafe { libc::getauxval(libc::AT_ENTRY) } as usize))
}

/// The host's flag that a signal has asked it to end (`volatile sig_atomic_t exit_signal`, src/fluent-bit.c, exported in every
/// release since 1.8.0). A hot reload does not set it.
static EXIT_SIGNAL: Lazy<Option<&'static AtomicI32>> = Lazy::new(|| {
    let flag = symbol(c"exit_signal")?;
    // Another library may have a variable of that name.
    // SAFETY: the executable's `sig_atomic_t` is a C int, aligned, and there as long as the process is; everybody reads and writes it as
    // one word.
    (object(flag.as_ptr())? == executable()?).then(|| unsafe { AtomicI32::from_ptr(flag.as_ptr().cast()) })
});

/// When we first saw that a signal (SIGTERM, SIGINT) has asked the host to end: the same moment for all outputs of the process.
pub fn ending_since() -> Option<Instant> {
    static SINCE: OnceCell<Instant> = OnceCell::new();
    let flag = (*EXIT_SIGNAL)?;
    match flag.load(Ordering::Relaxed) {
        0 => None,
        _ => Some(*SINCE.get_or_init(Instant::now)),
    }
}

/// Whether the host can be reloaded while it runs (2.1 and later). A host that cannot ends its outputs only when the
/// process ends and, up to 2.0.6, passes the last output's handle for each of them.
pub fn can_reload() -> bool {
    symbol(c"flb_reload").is_some()
}

/// The host's functions that we use; `None` where it lacks them.
#[derive(Clone, Copy)]
struct Functions {
    log_print: ffi::flb_log_print_fn,
    log_check: ffi::flb_output_log_check_fn,
    name: ffi::flb_output_name_fn,
}

impl Functions {
    fn find() -> Functions {
        // SAFETY: each symbol, where the host has it, is the function that include/kubehose_host.h declares; a pointer
        // to a function has the size of any other here, and null is the Option's None.
        unsafe {
            Functions {
                log_print: std::mem::transmute::<Option<NonNull<c_void>>, ffi::flb_log_print_fn>(symbol(
                    c"flb_log_print",
                )),
                log_check: std::mem::transmute::<Option<NonNull<c_void>>, ffi::flb_output_log_check_fn>(symbol(
                    c"flb_output_log_check",
                )),
                name: std::mem::transmute::<Option<NonNull<c_void>>, ffi::flb_output_name_fn>(symbol(
                    c"flb_output_name",
                )),
            }
        }
    }
}

/// One `[OUTPUT]` as the host sees it, while Init runs.
pub struct Output<'init> {
    plugin: &'init ffi::flbgo_output_plugin,
}

impl Output<'_> {
    /// # Safety
    /// `plugin` is null, or what the host passes to FLBPluginInit, and the result is used during that call only.
    pub unsafe fn new<'init>(plugin: *mut ffi::flbgo_output_plugin) -> Option<Output<'init>> {
        // SAFETY: the host keeps the struct alive and untouched during Init.
        let plugin = unsafe { plugin.as_ref() }?;
        (!plugin.api.is_null() && !plugin.o_ins.is_null() && !plugin.context.is_null()).then_some(Output { plugin })
    }

    /// A property's value as the host has it: `${ENV}` expanded, `None` when empty.
    pub fn property(&self, name: &str) -> Option<String> {
        let name = CString::new(name).ok()?;
        // SAFETY: every release has the first entry of the table; name and instance are valid during the call. The text
        // belongs to the host and is copied before anything else happens.
        unsafe {
            let get = (*self.plugin.api).output_get_property?;
            let value = get(name.as_ptr(), self.plugin.o_ins);
            (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
        }
    }

    /// Sets the handle that the host passes in later calls for this output.
    pub fn set_handle(&self, handle: Handle) {
        // SAFETY: the context belongs to this instance, and this field of it to the plugin.
        unsafe { (&raw mut (*self.plugin.context).remote_context).write(handle.0 as *mut c_void) };
    }

    /// The instance's alias, or its name with a number: `kubehose.0`.
    fn name(&self) -> String {
        let own = || NAME.to_string_lossy().into_owned();
        let Some(name) = Functions::find().name else { return own() };
        // SAFETY: the instance is valid during Init; the text is copied.
        unsafe {
            let text = name(self.plugin.o_ins);
            if text.is_null() { own() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        }
    }

    /// The instance's log.
    pub fn log(&self) -> Log {
        let (functions, name) = (Functions::find(), self.name());
        let (queue, waiting) = crossbeam_channel::bounded(QUEUED_LINES);
        let shown = |level: &Level| match functions.log_check {
            // SAFETY: the instance is valid during Init; the function only compares a number of it.
            Some(check) => unsafe { check(self.plugin.o_ins, level.code()) != 0 },
            None => *level != Level::Debug,
        };
        let levels = [Level::Debug, Level::Info, Level::Warn];
        Log {
            print: functions.log_print,
            level: levels.into_iter().find(shown).unwrap_or(Level::Error),
            prefix: format!("[output:{}:{name}] ", NAME.to_string_lossy()),
            queue,
            waiting,
            lost: AtomicU64::new(0),
        }
    }
}

impl Output<'_> {
    /// The instance's metrics on the host's own endpoint, where the host has them (2.0 and later).
    pub fn metrics(&self, described: &Described) -> Option<Metrics> {
        let functions = MetricFunctions::find();
        let name = CString::new(self.name()).ok()?;
        // SAFETY: the instance is valid during Init; its context lives until its ExitCtx has returned.
        let context = unsafe { functions.context?(self.plugin.o_ins) };
        if context.is_null() {
            return None;
        }
        let (create_counter, create_gauge) = (functions.create_counter?, functions.create_gauge?);
        let mut keys = [c"name".as_ptr().cast_mut(), c"class".as_ptr().cast_mut()];
        let (ns, empty) = (c"kubehose".as_ptr().cast_mut(), c"".as_ptr().cast_mut());
        let mut bounds = described.bounds.to_vec();
        // SAFETY: the functions are the host's own (see include/kubehose_host.h); all texts end with a NUL and are
        // copied; the label keys are as many as the counts say; Init runs on the thread that owns the context.
        let metrics = unsafe {
            let counter = |(metric, help): &Series| {
                create_counter(
                    context,
                    ns,
                    empty,
                    metric.as_ptr().cast_mut(),
                    help.as_ptr().cast_mut(),
                    1,
                    keys.as_mut_ptr(),
                )
            };
            let counters: Vec<_> = described.counters.iter().map(counter).collect();
            let gauge = |(metric, help): &Series| {
                create_gauge(
                    context,
                    ns,
                    empty,
                    metric.as_ptr().cast_mut(),
                    help.as_ptr().cast_mut(),
                    1,
                    keys.as_mut_ptr(),
                )
            };
            let gauges: Vec<_> = described.gauges.iter().map(gauge).collect();
            let by_class = create_counter(
                context,
                ns,
                empty,
                described.by_class.0.as_ptr().cast_mut(),
                described.by_class.1.as_ptr().cast_mut(),
                2,
                keys.as_mut_ptr(),
            );
            let buckets = functions.create_buckets?(bounds.as_mut_ptr(), bounds.len() as _);
            let histogram = functions.create_histogram?(
                context,
                ns,
                empty,
                described.histogram.0.as_ptr().cast_mut(),
                described.histogram.1.as_ptr().cast_mut(),
                buckets,
                1,
                keys.as_mut_ptr(),
            );
            let (buckets, gate) = (bounds.len() + 1, Gate(Arc::new(Mutex::new(true))));
            Metrics { functions, name, counters, gauges, by_class, histogram, buckets, gate }
        };
        let made = metrics.counters.iter().all(|counter| !counter.is_null())
            && metrics.gauges.iter().all(|gauge| !gauge.is_null())
            && !metrics.by_class.is_null()
            && !metrics.histogram.is_null();
        made.then_some(metrics)
    }
}

/// The functions of the host's metrics library; `None` where it lacks them.
#[derive(Clone, Copy)]
struct MetricFunctions {
    context: ffi::flb_output_get_cmt_instance_fn,
    create_counter: ffi::cmt_counter_create_fn,
    set_counter: ffi::cmt_counter_set_fn,
    create_gauge: ffi::cmt_gauge_create_fn,
    set_gauge: ffi::cmt_gauge_set_fn,
    create_buckets: ffi::cmt_histogram_buckets_create_size_fn,
    create_histogram: ffi::cmt_histogram_create_fn,
    set_histogram: ffi::cmt_histogram_set_default_fn,
}

impl MetricFunctions {
    fn find() -> MetricFunctions {
        type Pointer = Option<NonNull<c_void>>;
        // SAFETY: as in `Functions::find`.
        unsafe {
            MetricFunctions {
                context: std::mem::transmute::<Pointer, ffi::flb_output_get_cmt_instance_fn>(symbol(
                    c"flb_output_get_cmt_instance",
                )),
                create_counter: std::mem::transmute::<Pointer, ffi::cmt_counter_create_fn>(symbol(
                    c"cmt_counter_create",
                )),
                set_counter: std::mem::transmute::<Pointer, ffi::cmt_counter_set_fn>(symbol(c"cmt_counter_set")),
                create_gauge: std::mem::transmute::<Pointer, ffi::cmt_gauge_create_fn>(symbol(c"cmt_gauge_create")),
                set_gauge: std::mem::transmute::<Pointer, ffi::cmt_gauge_set_fn>(symbol(c"cmt_gauge_set")),
                create_buckets: std::mem::transmute::<Pointer, ffi::cmt_histogram_buckets_create_size_fn>(symbol(
                    c"cmt_histogram_buckets_create_size",
                )),
                create_histogram: std::mem::transmute::<Pointer, ffi::cmt_histogram_create_fn>(symbol(
                    c"cmt_histogram_create",
                )),
                set_histogram: std::mem::transmute::<Pointer, ffi::cmt_histogram_set_default_fn>(symbol(
                    c"cmt_histogram_set_default",
                )),
            }
        }
    }
}

/// One series of an output on the host's endpoint: its name after `kubehose_`, and its help.
pub type Series = (&'static CStr, &'static CStr);

/// The series of an output.
#[derive(Clone, Debug)]
pub struct Described {
    /// Numbers that only grow.
    pub counters: Vec<Series>,
    /// Numbers that go up and down.
    pub gauges: Vec<Series>,
    /// A counter with one more label, `class`.
    pub by_class: Series,
    /// A histogram.
    pub histogram: Series,
    /// Upper bounds of the histogram's buckets, ascending.
    pub bounds: &'static [f64],
}

/// The numbers of the series of a [`Described`] at one moment, in the same order.
#[derive(Clone, Debug)]
pub struct Numbers {
    /// Of the counters.
    pub counters: Vec<u64>,
    /// Of the gauges.
    pub gauges: Vec<u64>,
    /// Each class with its number; always the same classes.
    pub by_class: Vec<(&'static str, u64)>,
    /// How many values are not above each bound, and, as the last, how many there are.
    pub buckets: Vec<u64>,
    /// The sum of the histogram's values.
    pub sum: f64,
}

/// An output's metrics on the host's own endpoint.
pub struct Metrics {
    functions: MetricFunctions,
    name: CString,
    counters: Vec<*mut ffi::cmt_counter>,
    gauges: Vec<*mut ffi::cmt_gauge>,
    by_class: *mut ffi::cmt_counter,
    histogram: *mut ffi::cmt_histogram,
    /// How many buckets the histogram has.
    buckets: usize,
    gate: Gate,
}

/// Guards the host's metrics. It is closed before ExitCtx returns, so that no thread that is left behind touches them.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Mutex<bool>>);

impl Gate {
    /// Closes it for good, after waiting for a `publish` that is running.
    pub fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

// SAFETY: the host's objects live until the output's ExitCtx has returned, and the gate is closed before that. The first
// `publish`, at Init on the host's thread, makes every series; later ones, from one other thread, find them and store
// numbers atomically, which is how the host itself counts from several threads.
unsafe impl Send for Metrics {}

impl Metrics {
    /// What must be closed before the host frees the metrics.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Shows these numbers.
    pub fn publish(&self, numbers: &Numbers) {
        let open = self.gate.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !*open {
            return;
        }
        let MetricFunctions {
            set_counter: Some(set_counter),
            set_gauge: Some(set_gauge),
            set_histogram: Some(set_histogram),
            ..
        } = self.functions
        else {
            return;
        };
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let mut labels = [self.name.as_ptr().cast_mut(), std::ptr::null_mut()];
        let mut buckets = numbers.buckets.clone();
        buckets.resize(self.buckets, 0);
        let values = buckets.last().copied().unwrap_or_default();
        // SAFETY: the objects are what `Output::metrics` made, the functions the host's own; label values are as many as
        // the counts say, and the buckets one more than the bounds.
        unsafe {
            for (counter, number) in self.counters.iter().zip(&numbers.counters) {
                set_counter(*counter, now, *number as f64, 1, labels.as_mut_ptr());
            }
            for (gauge, number) in self.gauges.iter().zip(&numbers.gauges) {
                set_gauge(*gauge, now, *number as f64, 1, labels.as_mut_ptr());
            }
            for (class, number) in &numbers.by_class {
                let Ok(class) = CString::new(*class) else { continue };
                labels[1] = class.as_ptr().cast_mut();
                set_counter(self.by_class, now, *number as f64, 2, labels.as_mut_ptr());
            }
            set_histogram(self.histogram, now, buckets.as_mut_ptr(), numbers.sum, values, 1, labels.as_mut_ptr());
        }
    }
}

/// The number by which the host names one of our instances. It is never a pointer, so that a wrong one does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(usize);

impl Handle {
    /// The handle with this number, which is not 0.
    pub fn new(number: usize) -> Handle {
        Handle(number)
    }

    /// What the host passes back.
    pub fn from_context(context: *mut c_void) -> Handle {
        Handle(context as usize)
    }
}

/// How many lines may wait for a thread of the host. Only a serious fault produces more.
const QUEUED_LINES: usize = 256;

/// Device and inode of the standard error when the plugin was loaded, before the host may go into the background.
static STDERR: Lazy<Option<(u64, u64)>> = Lazy::new(stderr_identity);

fn stderr_identity() -> Option<(u64, u64)> {
    let file = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?);
    let metadata = file.metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// A pipe that can be written to takes so many bytes at once: pipe(7), POSIX.1's PIPE_BUF.
const PAGE: usize = 4096;

/// Whether a page can be written without waiting for whoever reads it.
fn takes_a_page(file: BorrowedFd<'_>) -> bool {
    let mut asked = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: it is one entry, which lives during the call, and whose descriptor is open.
    unsafe { libc::poll(&raw mut asked, 1, 0) == 1 && asked.revents & libc::POLLOUT != 0 }
}

/// An output's log: lines from any thread, in the host's own format, at the output's `log_level`.
pub struct Log {
    print: ffi::flb_log_print_fn,
    /// The least severe level that is shown, as it was at Init: a thread that is left behind at the exit may still log, and must not
    /// ask the host.
    level: Level,
    prefix: String,
    queue: Sender<(Level, CString)>,
    waiting: Receiver<(Level, CString)>,
    lost: AtomicU64,
}

impl Log {
    /// A log without a host, whose lines can be read with [`Log::take`]: for the command line and the tests.
    pub fn detached() -> Log {
        let (queue, waiting) = crossbeam_channel::bounded(QUEUED_LINES);
        Log { print: None, level: Level::Info, prefix: String::new(), queue, waiting, lost: AtomicU64::new(0) }
    }

    /// Whether a line of this level is shown.
    pub fn shows(&self, level: Level) -> bool {
        level.code() <= self.level.code()
    }

    /// Queues a line; [`Log::emit`] shows it.
    pub fn line(&self, level: Level, text: &str) {
        if !self.shows(level) {
            return;
        }
        let mut line = self.prefix.clone();
        // An error message from outside may hold newlines.
        line.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
        let Ok(line) = CString::new(line) else { return };
        if let Err(TrySendError::Full(_)) = self.queue.try_send((level, line)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Shows the queued lines. Only threads of the host call this. That it also runs on the small stack of a flush is safe:
    /// the host's own outputs log there, and of ours only this frame is on it.
    pub fn emit(&self) {
        let Some(print) = self.print else { return };
        while let Ok((level, line)) = self.waiting.try_recv() {
            // SAFETY: the format takes one string; both texts end with a NUL and live during the call; a null file name
            // is what the host's own macros pass.
            unsafe { print(level.code(), std::ptr::null(), 0, c"%s".as_ptr(), line.as_ptr()) };
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            self.line(Level::Warn, &format!("{lost} log lines of kubehose were lost"));
        }
    }

    /// Whether lines wait for a thread of the host.
    pub fn waits(&self) -> bool {
        self.print.is_some() && !self.waiting.is_empty()
    }

    /// Shows the queued lines without a thread of the host: on the standard error, in the host's format, without touching
    /// the host. After a fork into the background there is no standard error, and the lines keep waiting.
    pub fn emit_alone(&self) {
        if self.print.is_none() || STDERR.is_none() || stderr_identity() != *STDERR {
            return;
        }
        let mut stderr = io::stderr().lock();
        // Nobody may read the pipe that it is: then the lines wait on.
        while takes_a_page(stderr.as_fd())
            && let Some((level, line)) = self.take()
        {
            let time = jiff::Zoned::now().strftime("%Y/%m/%d %H:%M:%S.%9f").to_string();
            let mut text = format!("[{time}] [{:>5}] {line}", level.name()).into_bytes();
            text.truncate(PAGE - 1);
            text.push(b'\n');
            // A failure cannot be reported anywhere.
            let _ = stderr.write_all(&text);
        }
    }

    /// Removes the next queued line and returns it, instead of showing it.
    pub fn take(&self) -> Option<(Level, String)> {
        let (level, line) = self.waiting.try_recv().ok()?;
        Some((level, line.to_string_lossy().into_owned()))
    }
}

/// A chunk that the host flushes: memory that is valid until the flush answers. It is not `Send`: only the host's thread reads it.
pub struct FlushData {
    data: NonNull<u8>,
    length: usize,
    tag: NonNull<c_char>,
}

impl FlushData {
    /// # Safety
    /// `data` points to `length` readable bytes and `tag` to a text that ends with a NUL (either may be null), and both
    /// stay valid until the FlushData is dropped: the caller must not return to the host before.
    pub unsafe fn new(data: *const c_void, length: usize, tag: *const c_char) -> FlushData {
        match NonNull::new(data.cast_mut().cast()) {
            Some(data) => FlushData { data, length, tag: non_null_text(tag) },
            None => FlushData { data: NonNull::dangling(), length: 0, tag: non_null_text(tag) },
        }
    }

    /// The chunk: concatenated msgpack.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: as promised to `new`.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.length) }
    }

    /// Its tag.
    pub fn tag(&self) -> &[u8] {
        // SAFETY: as promised to `new`.
        unsafe { CStr::from_ptr(self.tag.as_ptr()) }.to_bytes()
    }
}

fn non_null_text(text: *const c_char) -> NonNull<c_char> {
    NonNull::new(text.cast_mut()).unwrap_or_else(|| {
        let empty: &'static CStr = c"";
        NonNull::from(empty).cast()
    })
}

/// Whether the calling thread is one of the host's output workers (`Workers` above 0), named `flb-out-…`; otherwise it
/// is the engine's own, which no flush may block for long.
pub fn on_worker_thread() -> bool {
    // Asked at each flush, and a thread keeps its name.
    thread_local!(static KNOWN: std::cell::OnceCell<bool> = const { std::cell::OnceCell::new() });
    KNOWN.with(|known| *known.get_or_init(is_named_as_worker))
}

fn is_named_as_worker() -> bool {
    let mut name = [0 as c_char; 16];
    // SAFETY: the buffer is as long as a thread's name can be, with its NUL.
    let failed = unsafe { libc::pthread_getname_np(libc::pthread_self(), name.as_mut_ptr(), name.len()) } != 0;
    !failed && name.iter().zip(b"flb-out-").all(|(have, want)| *have as u8 == *want)
}

/// Runs `start`, which starts threads, with all signals blocked, so that these threads never receive one: SIGTERM, SIGHUP and the
/// others belong to the host's threads.
pub fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    let before = block_all_signals();
    let result = start();
    if let Some(before) = before {
        // SAFETY: the set is the mask that this thread had; nothing is written.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    }
    result
}

/// Blocks all signals on this thread, which is ours. A thread that starts while a flush runs the tasks has the mask of the host's.
pub fn block_signals() {
    block_all_signals();
}

/// Returns the mask that this thread had.
fn block_all_signals() -> Option<libc::sigset_t> {
    // SAFETY: both sets are plain data; the first is filled, and the second written, before they are read.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        (libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before) == 0).then_some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_full_pipe_is_not_waited_for() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let mut written = 0;
        while takes_a_page(writer.as_fd()) {
            writer.write_all(&[0; PAGE]).unwrap();
            written += PAGE;
            assert!(written <= 1 << 30, "it never was full");
        }
        assert!(written > 0);
        reader.read_exact(&mut [0; PAGE]).unwrap();
        assert!(takes_a_page(writer.as_fd()));
    }
}
