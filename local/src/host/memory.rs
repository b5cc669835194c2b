//! Memory that detects misuse: coroutine stacks with guard pages, and chunks that are read-only during a flush and inaccessible after it.
//!
//! The real host gives a plugin a small stack without a guard page, and a buffer that it frees after the flush: an
//! overflow or a late access silently corrupts the heap. Here it ends the process, with a message that explains what
//! happened.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use corosensei::stack::{Stack, StackPointer};

/// What an access to a watched range means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Watch {
    StackGuard = 1,
    ChunkReadOnly = 2,
    ChunkEnd = 3,
    ChunkGone = 4,
}

/// The ranges that the fault handler recognises. Fixed and atomic, because a signal handler may neither lock nor
/// allocate.
static WATCHED: [Watched; 1024] = [const { Watched::new() }; 1024];

struct Watched {
    start: AtomicUsize,
    end: AtomicUsize,
    watch: AtomicU8,
}

impl Watched {
    const fn new() -> Self {
        Watched { start: AtomicUsize::new(0), end: AtomicUsize::new(0), watch: AtomicU8::new(0) }
    }
}

/// Watches a range. If the table is full, a fault in it still ends the process, but without the message.
fn watch(start: usize, end: usize, watch: Watch) -> Option<usize> {
    WATCHED.iter().position(|place| {
        let free = place.start.compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if free {
            place.watch.store(watch as u8, Ordering::Release);
            place.end.store(end, Ordering::Release);
        }
        free
    })
}

fn unwatch(place: Option<usize>) {
    if let Some(place) = place.and_then(|at| WATCHED.get(at)) {
        place.end.store(0, Ordering::Release);
        place.start.store(0, Ordering::Release);
    }
}

/// The signal action before this one.
static FORMER: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler that explains faults in watched ranges on stderr before the process ends.
pub(super) fn explain_faults() {
    FORMER.get_or_init(|| {
        // SAFETY: a sigaction of zeros is a valid value of that plain C struct.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_fault as *const () as usize;
        // Runs on the alternative stack that the standard library gives each thread, because the thread's own may
        // have overflowed.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: as above.
        let mut former: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live structs, and the handler has the signature that SA_SIGINFO asks for.
        unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, &raw mut former) };
        former
    });
}

/// Explains a fault, then lets it occur again without a handler. Does only what a signal handler may do.
extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo to a SA_SIGINFO handler, and SIGSEGV fills the address in.
    let address = unsafe { (*info).si_addr() } as usize;
    let within = |place: &&Watched| {
        let start = place.start.load(Ordering::Acquire);
        start != 0 && start <= address && address < place.end.load(Ordering::Acquire)
    };
    let message: &[u8] = match WATCHED.iter().find(within).map(|place| place.watch.load(Ordering::Acquire)) {
        Some(w) if w == Watch::StackGuard as u8 => {
            b"\nkubehose-host: STACK OVERFLOW: FLBPluginFlushCtx needed more than the coroutine's stack \
              (coro_stack_size, 24 KiB unless set). Fluent Bit has no guard page there: it would corrupt its heap.\n"
        }
        Some(w) if w == Watch::ChunkReadOnly as u8 => {
            b"\nkubehose-host: WRITE TO A CHUNK: the plugin wrote to the data of a flush, which is read-only.\n"
        }
        Some(w) if w == Watch::ChunkEnd as u8 => {
            b"\nkubehose-host: READ PAST A CHUNK: the plugin read beyond the length that a flush was given.\n"
        }
        Some(w) if w == Watch::ChunkGone as u8 => {
            b"\nkubehose-host: USE AFTER RETURN: the plugin used a chunk's data or tag after the flush had returned.\n"
        }
        _ => {
            // Not in a watched range: the previous handler gets it when the instruction runs again.
            if let Some(former) = FORMER.get() {
                // SAFETY: the struct came from sigaction and is valid until the process ends.
                unsafe { libc::sigaction(signal, former, ptr::null_mut()) };
            }
            return;
        }
    };
    // SAFETY: write and signal are async-signal-safe, and the message is a live slice. The default action then ends the
    // process when the instruction runs again.
    unsafe {
        libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len());
        libc::signal(signal, libc::SIG_DFL);
    }
}

fn page() -> usize {
    // SAFETY: sysconf has no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Anonymous memory in whole pages, unmapped when dropped.
struct Mapping {
    start: usize,
    len: usize,
}

impl Mapping {
    /// Reserves inaccessible memory.
    fn reserve(len: usize) -> io::Result<Self> {
        let len = len.next_multiple_of(page());
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory that exists.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { start: start as usize, len })
    }

    /// Changes the protection of a part of it.
    fn protect(&self, offset: usize, len: usize, protection: c_int) -> io::Result<()> {
        assert!(offset + len <= self.len, "the part must be within the mapping");
        // SAFETY: the part is within our own mapping, and there are no references into it.
        match unsafe { libc::mprotect((self.start + offset) as *mut c_void, len, protection) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the whole mapping is ours, and none of its addresses is in use any more.
        unsafe { libc::munmap(self.start as *mut c_void, self.len) };
    }
}

/// A coroutine's stack, with inaccessible memory below it.
pub(super) struct CoroutineStack {
    mapping: Mapping,
    size: usize,
    watched: Option<usize>,
}

/// Far more than a page: a function with large locals would step over a single one.
const STACK_GUARD_BYTES: usize = 1 << 20;
/// Fills the unused part of a stack, to measure how deeply it was used.
const UNUSED: u8 = 0xa5;

impl CoroutineStack {
    /// A stack of `size` bytes, rounded up to whole pages.
    pub fn new(size: usize) -> io::Result<Self> {
        let size = size.next_multiple_of(page());
        let mapping = Mapping::reserve(STACK_GUARD_BYTES + size)?;
        mapping.protect(STACK_GUARD_BYTES, size, libc::PROT_READ | libc::PROT_WRITE)?;
        // SAFETY: the part has just been made writable, and nothing else uses it yet.
        unsafe { ptr::write_bytes((mapping.start + STACK_GUARD_BYTES) as *mut u8, UNUSED, size) };
        let watched = watch(mapping.start, mapping.start + STACK_GUARD_BYTES, Watch::StackGuard);
        Ok(CoroutineStack { mapping, size, watched })
    }

    /// The most bytes in use at a time since it was created.
    pub fn deepest(&self) -> usize {
        let start = (self.mapping.start + STACK_GUARD_BYTES) as *const u8;
        // SAFETY: the stack is mapped and initialised; no code runs on it while it is borrowed here by its only owner.
        let bytes = unsafe { std::slice::from_raw_parts(start, self.size) };
        bytes.iter().position(|byte| *byte != UNUSED).map_or(0, |unused| self.size - unused)
    }

    /// Runs `f` on this stack.
    pub fn run<R>(&mut self, f: impl FnOnce() -> R) -> R {
        let bounds = Bounds { base: self.mapping.start + STACK_GUARD_BYTES + self.size, limit: self.mapping.start };
        corosensei::on_stack(bounds, f)
    }
}

impl Drop for CoroutineStack {
    fn drop(&mut self) {
        unwatch(self.watched.take());
    }
}

/// The ends of a [`CoroutineStack`], which is borrowed exclusively while code runs on it.
struct Bounds {
    base: usize,
    limit: usize,
}

// SAFETY: the bounds are those of a mapped, page-aligned region that outlives the run, with guard pages at its low end.
unsafe impl Stack for Bounds {
    fn base(&self) -> StackPointer {
        // A mapping's address is never zero; the alternative cannot happen, and would fault at once.
        StackPointer::new(self.base).unwrap_or(StackPointer::MIN)
    }

    fn limit(&self) -> StackPointer {
        StackPointer::new(self.limit).unwrap_or(StackPointer::MIN)
    }
}

/// A chunk's bytes and tag as a plugin sees them: read-only, followed by a guard page, and inaccessible once dropped.
pub(super) struct Exposed {
    /// Moved out when dropped.
    mapping: Option<Mapping>,
    tag: usize,
    data: usize,
    len: usize,
    readable: usize,
    watched: [Option<usize>; 2],
}

impl Exposed {
    /// Copies `data` and `tag` into their own memory.
    pub fn new(data: &[u8], tag: &str) -> io::Result<Self> {
        let needed = data.len() + tag.len() + 1;
        let readable = needed.next_multiple_of(page());
        let mapping = Mapping::reserve(readable + page())?;
        mapping.protect(0, readable, libc::PROT_READ | libc::PROT_WRITE)?;
        let end = mapping.start + readable;
        let (tag_at, data_at) = (end - needed, end - data.len());
        // SAFETY: the tag, its NUL and the data are adjacent at the end of the writable part, which is ours.
        unsafe {
            ptr::copy_nonoverlapping(tag.as_ptr(), tag_at as *mut u8, tag.len());
            ptr::copy_nonoverlapping(data.as_ptr(), data_at as *mut u8, data.len());
        }
        mapping.protect(0, readable, libc::PROT_READ)?;
        let watched = [watch(mapping.start, end, Watch::ChunkReadOnly), watch(end, end + page(), Watch::ChunkEnd)];
        Ok(Exposed { mapping: Some(mapping), tag: tag_at, data: data_at, len: data.len(), readable, watched })
    }

    /// The data and its length.
    pub fn data(&self) -> (*const c_void, usize) {
        (self.data as *const c_void, self.len)
    }

    /// The tag, which ends with a NUL.
    pub fn tag(&self) -> *const std::ffi::c_char {
        self.tag as *const std::ffi::c_char
    }
}

/// Dropped chunks whose addresses stay reserved for a while, so that a late access is recognised.
static GONE: Mutex<VecDeque<(Mapping, [Option<usize>; 2])>> = Mutex::new(VecDeque::new());
const GONE_KEPT: usize = 64;

impl Drop for Exposed {
    fn drop(&mut self) {
        let Some(mapping) = self.mapping.take() else { return };
        if let Some(place) = self.watched[0].and_then(|at| WATCHED.get(at)) {
            place.watch.store(Watch::ChunkGone as u8, Ordering::Release);
        }
        // Mapped again without access, not only protected: this returns the memory to the system.
        // SAFETY: the range is the readable part of our own mapping, and the flush that used it has returned.
        let replaced = unsafe {
            libc::mmap(
                mapping.start as *mut c_void,
                self.readable,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        debug_assert!(replaced != libc::MAP_FAILED);
        let mut gone = GONE.lock().unwrap_or_else(PoisonError::into_inner);
        gone.push_back((mapping, self.watched));
        if gone.len() > GONE_KEPT
            && let Some((mapping, watched)) = gone.pop_front()
        {
            watched.into_iter().for_each(unwatch);
            drop(mapping);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_runs_on_its_own_stack_and_its_depth_is_measured() {
        let mut stack = CoroutineStack::new(24 * 1024).unwrap();
        assert_eq!(stack.deepest(), 0);
        let here = &raw const stack as usize;
        let there = stack.run(|| {
            let local = std::hint::black_box([1u8; 4096]);
            &raw const local as usize
        });
        assert!(here.abs_diff(there) > 24 * 1024);
        assert!((4096..24 * 1024).contains(&stack.deepest()), "{}", stack.deepest());
    }

    #[test]
    fn exposed_data_equals_the_original() {
        for len in [0, 1, 4095, 4096, 100_000] {
            let given: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let exposed = Exposed::new(&given, "kube.a").unwrap();
            let (data, len) = exposed.data();
            // SAFETY: as long as `exposed` lives, its data may be read.
            assert_eq!(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) }, given);
            // SAFETY: the tag ends with a NUL.
            let tag = unsafe { std::ffi::CStr::from_ptr(exposed.tag()) };
            assert_eq!(tag, c"kube.a");
        }
    }
}
