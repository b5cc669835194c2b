//! The host's side of the plugin ABI: loads a library, calls its functions, and exports those that plugins look up.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::AtomicI32;

use fluent_bit_sys::{
    FLB_PROXY_GOLANG, FLB_PROXY_OUTPUT_PLUGIN, flb_api, flb_output_instance, flb_plugin_proxy_context,
    flb_plugin_proxy_def, flbgo_output_plugin,
};

use super::log::{self, Level, log};
use super::memory::{CoroutineStack, Exposed};

/// An `[OUTPUT]`, which a plugin sees as an opaque `flb_output_instance`.
#[derive(Debug)]
pub(super) struct Instance {
    /// Its name in log lines: the alias, or the plugin's name and a number.
    pub name: CString,
    /// Its properties; if a name is repeated, the first one is used.
    pub properties: Vec<(String, Option<CString>)>,
    /// The level of `flb_output_log_check`.
    pub log_level: Level,
}

/// The proxy's context of an instance, in which the plugin stores its handle. Freed when dropped.
#[derive(Debug)]
pub(super) struct Context(*mut flb_plugin_proxy_context);

// SAFETY: `remote_context` is written during Init only, before the context is shared with workers.
unsafe impl Send for Context {}
// SAFETY: as above; afterwards it is only read.
unsafe impl Sync for Context {}

impl Context {
    pub fn new() -> Self {
        let empty = flb_plugin_proxy_context { remote_context: ptr::null_mut(), proxy: ptr::null_mut() };
        Context(Box::into_raw(Box::new(empty)))
    }

    fn remote(&self) -> *mut c_void {
        // SAFETY: the box lives until this is dropped.
        unsafe { (*self.0).remote_context }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: created by Box::into_raw in `new`, and freed once.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

type PreRegister = unsafe extern "C" fn(c_int) -> c_int;
type Register = unsafe extern "C" fn(*mut flb_plugin_proxy_def) -> c_int;
type Init = unsafe extern "C" fn(*mut flbgo_output_plugin) -> c_int;
type FlushCtx = unsafe extern "C" fn(*mut c_void, *const c_void, usize, *const c_char) -> c_int;
type Flush = unsafe extern "C" fn(*const c_void, usize, *const c_char) -> c_int;
type ExitCtx = unsafe extern "C" fn(*mut c_void) -> c_int;
type Exit = unsafe extern "C" fn() -> c_int;

/// A plugin's library, loaded and registered.
pub(super) struct Library {
    handle: *mut c_void,
    path: PathBuf,
    name: String,
    def: Definition,
    /// The one struct that is passed to every Init of this library.
    plugin: Mutex<PluginStruct>,
    init: Init,
    pre_run: Option<PreRegister>,
    flush_ctx: Option<FlushCtx>,
    flush: Option<Flush>,
    pre_exit: Option<PreRegister>,
    exit_ctx: Option<ExitCtx>,
    exit: Option<Exit>,
    unregister: Option<Register>,
}

// SAFETY: the handle and the functions may be used from any thread; the engine serialises the calls that need it.
unsafe impl Send for Library {}
// SAFETY: as above; the struct that Init writes over is behind a lock.
unsafe impl Sync for Library {}

/// `struct flbgo_output_plugin` with its five callbacks, as the host allocates it.
struct PluginStruct(*mut flbgo_output_plugin);

/// Bytes of `struct flbgo_output_plugin`: nine pointers.
const PLUGIN_BYTES: usize = 9 * size_of::<usize>();

impl Drop for PluginStruct {
    fn drop(&mut self) {
        // SAFETY: from calloc in `Library::load`, freed once.
        unsafe { libc::free(self.0.cast()) };
    }
}

/// `struct flb_plugin_proxy_def` as an old host allocates it: 32 bytes of garbage, followed by other memory.
struct Definition(*mut u8);

const DEFINITION_BYTES: usize = 32;
const AFTER_BYTES: usize = 64;
const GARBAGE: u8 = 0xcd;

impl Definition {
    fn new() -> Self {
        // SAFETY: malloc has no preconditions; the bytes are written before they are read.
        let bytes = unsafe { libc::malloc(DEFINITION_BYTES + AFTER_BYTES) }.cast::<u8>();
        assert!(!bytes.is_null(), "out of memory");
        // SAFETY: that many bytes have just been allocated.
        unsafe { ptr::write_bytes(bytes, GARBAGE, DEFINITION_BYTES + AFTER_BYTES) };
        Definition(bytes)
    }

    fn as_ptr(&self) -> *mut flb_plugin_proxy_def {
        self.0.cast()
    }

    /// Whether the bytes after the definition are unchanged.
    fn is_whole(&self) -> bool {
        // SAFETY: the allocation has these bytes, and all are initialised.
        let after = unsafe { std::slice::from_raw_parts(self.0.add(DEFINITION_BYTES), AFTER_BYTES) };
        after.iter().all(|byte| *byte == GARBAGE)
    }
}

impl Drop for Definition {
    fn drop(&mut self) {
        // SAFETY: from malloc in `new`, freed once.
        unsafe { libc::free(self.0.cast()) };
    }
}

impl Library {
    /// Loads and registers a plugin. `hot_reload` says whether another set of plugins is running.
    ///
    /// Returns None if the plugin refuses to be registered, which the real host ignores silently.
    pub fn load(path: &Path, hot_reload: bool) -> Result<Option<Library>, String> {
        let file = path.file_name().unwrap_or_default();
        if file.as_bytes().starts_with(b"flb-") {
            return Err(format!("{}: the host's C loader takes names that begin with flb-; rename it", path.display()));
        }
        let handle = open(path)?;
        let named = |name: &CStr| {
            let found = symbol(handle, name);
            found.ok_or_else(|| format!("{} is no plugin: it has no {}", path.display(), name.to_string_lossy()))
        };
        // SAFETY: here and below, the ABI defines the type of the function of this name.
        let register: Register = unsafe { std::mem::transmute(named(c"FLBPluginRegister")?) };
        // SAFETY: as above.
        let init: Init = unsafe { std::mem::transmute(named(c"FLBPluginInit")?) };
        // SAFETY: as above; an absent function is None, which is the null pointer of Option<fn>.
        let mut library = unsafe {
            Library {
                handle,
                path: path.to_owned(),
                name: String::new(),
                def: Definition::new(),
                plugin: Mutex::new(PluginStruct(libc::calloc(1, PLUGIN_BYTES).cast())),
                init,
                pre_run: symbol(handle, c"FLBPluginOutputPreRun").map(|f| std::mem::transmute(f)),
                flush_ctx: symbol(handle, c"FLBPluginFlushCtx").map(|f| std::mem::transmute(f)),
                flush: symbol(handle, c"FLBPluginFlush").map(|f| std::mem::transmute(f)),
                pre_exit: symbol(handle, c"FLBPluginOutputPreExit").map(|f| std::mem::transmute(f)),
                exit_ctx: symbol(handle, c"FLBPluginExitCtx").map(|f| std::mem::transmute(f)),
                exit: symbol(handle, c"FLBPluginExit").map(|f| std::mem::transmute(f)),
                unregister: symbol(handle, c"FLBPluginUnregister").map(|f| std::mem::transmute(f)),
            }
        };
        if library.flush_ctx.is_none() && library.flush.is_none() {
            return Err(format!(
                "{} is no output: it has neither FLBPluginFlushCtx nor FLBPluginFlush",
                path.display()
            ));
        }
        if let Some(pre_register) = symbol(handle, c"FLBPluginPreRegister") {
            // SAFETY: the ABI defines this type.
            let pre_register: PreRegister = unsafe { std::mem::transmute(pre_register) };
            // SAFETY: called as the ABI says, before Register.
            if unsafe { pre_register(c_int::from(hot_reload)) } == -1 {
                return Err(format!("{}: FLBPluginPreRegister answered -1", path.display()));
            }
        }
        // SAFETY: the definition has the 32 bytes that the plugin may write.
        if unsafe { register(library.def.as_ptr()) } == -1 {
            return Ok(None);
        }
        library.name = library.definition()?;
        Ok(Some(library))
    }

    /// Checks what Register wrote, and returns the plugin's name.
    fn definition(&self) -> Result<String, String> {
        let path = self.path.display();
        if !self.def.is_whole() {
            return Err(format!("{path}: FLBPluginRegister wrote beyond the 32 bytes that hosts up to 4.2.2 allocate"));
        }
        let garbage = i32::from_ne_bytes([GARBAGE; 4]);
        // SAFETY: the allocation is initialised, if only with garbage, and large enough.
        let def = unsafe { &*self.def.as_ptr() };
        if i64::from(def.type_) != i64::from(FLB_PROXY_OUTPUT_PLUGIN) {
            return Err(format!("{path}: type {} is no output ({FLB_PROXY_OUTPUT_PLUGIN})", def.type_));
        }
        if i64::from(def.proxy) != i64::from(FLB_PROXY_GOLANG) {
            return Err(format!("{path}: proxy {} is not the Go one ({FLB_PROXY_GOLANG})", def.proxy));
        }
        if def.flags == garbage {
            return Err(format!("{path}: FLBPluginRegister did not write flags, which hold garbage up to 4.2.2"));
        }
        let garbage = usize::from_ne_bytes([GARBAGE; 8]);
        if def.name.is_null() || def.name as usize == garbage || def.description as usize == garbage {
            return Err(format!("{path}: FLBPluginRegister did not write name and description"));
        }
        // SAFETY: the plugin has written a C string; the host has no way to check it.
        Ok(unsafe { CStr::from_ptr(def.name) }.to_string_lossy().into_owned())
    }

    /// The plugin's name, as in the `Name` of an `[OUTPUT]`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Initialises an instance. All instances share one struct, which each Init overwrites.
    pub fn init(&self, instance: &Instance, context: &Context) -> Result<(), ()> {
        let mut plugin = self.plugin.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // SAFETY: the struct was allocated in `load`, `api` points to a static, the engine keeps the instance until
        // after the exit calls, and the plugin writes only its own fields.
        let result = unsafe {
            (*plugin.0).name = (*self.def.as_ptr()).name;
            (*plugin.0).api = (&raw const API).cast_mut().cast();
            (*plugin.0).o_ins = ptr::from_ref(instance).cast_mut().cast();
            (*plugin.0).context = context.0;
            (self.init)(plugin.0)
        };
        if result <= 0 {
            log!(Error, "[go proxy]: plugin '{}' failed to initialize", self.name);
            return Err(());
        }
        Ok(())
    }

    /// Calls the plugin's PreRun.
    pub fn pre_run(&self, hot_reload: bool) {
        if let Some(pre_run) = self.pre_run {
            // SAFETY: called as the ABI says; the host ignores the result.
            unsafe { pre_run(c_int::from(hot_reload)) };
        }
    }

    /// Flushes on the coroutine's stack, with data that becomes inaccessible afterwards. Returns the plugin's result.
    pub fn flush(
        &self,
        context: &Context,
        data: &[u8],
        tag: &str,
        stack: &mut CoroutineStack,
    ) -> std::io::Result<c_int> {
        let exposed = Exposed::new(data, tag)?;
        let ((data, len), tag) = (exposed.data(), exposed.tag());
        let (flush_ctx, flush, remote) = (self.flush_ctx, self.flush, context.remote());
        // Data and tag are readable until `exposed` is dropped, and the handle is the one that Init stored.
        Ok(stack.run(|| match (flush_ctx, flush) {
            // SAFETY: called as the ABI says, with memory that outlives the call.
            (Some(flush), _) => unsafe { flush(remote, data, len, tag) },
            // SAFETY: as above.
            (None, Some(flush)) => unsafe { flush(data, len, tag) },
            (None, None) => 0,
        }))
    }

    /// Calls the exit of one instance, even of one that was never initialised, whose handle is NULL.
    pub fn exit(&self, context: &Context, hot_reload: bool) {
        // SAFETY: called as the ABI says, once per instance and after its last flush.
        unsafe {
            if let Some(pre_exit) = self.pre_exit {
                pre_exit(c_int::from(hot_reload));
            }
            match (self.exit_ctx, self.exit) {
                (Some(exit), _) => exit(context.remote()),
                (None, Some(exit)) => exit(),
                (None, None) => 0,
            };
        }
    }

    /// Unregisters and closes the library.
    pub fn close(self) {
        if let Some(unregister) = self.unregister {
            // SAFETY: the definition is the one that was registered.
            unsafe { unregister(self.def.as_ptr()) };
        }
        if !self.def.is_whole() {
            log!(Error, "{}: the plugin has written behind its definition", self.path.display());
        }
        // SAFETY: the handle is from dlopen, and no function of the library is called after this.
        if unsafe { libc::dlclose(self.handle) } != 0 {
            log!(Error, "{}: {}", self.path.display(), last_error());
        }
    }
}

fn open(path: &Path) -> Result<*mut c_void, String> {
    let file = CString::new(OsStr::as_bytes(path.as_os_str()))
        .map_err(|_| format!("{}: a path cannot contain a NUL", path.display()))?;
    // SAFETY: the name is a C string, and the caller wants the library's initialisers to run.
    let handle = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_LAZY) };
    match handle.is_null() {
        true => Err(format!("cannot load the plugin: {}; give its path with a slash, as ./plugin.so", last_error())),
        false => Ok(handle),
    }
}

fn symbol(handle: *mut c_void, name: &CStr) -> Option<ptr::NonNull<c_void>> {
    // SAFETY: the handle is from dlopen, the name is a C string.
    ptr::NonNull::new(unsafe { libc::dlsym(handle, name.as_ptr()) })
}

fn last_error() -> String {
    // SAFETY: dlerror returns NULL or a C string that is valid until this thread's next dl call.
    let error = unsafe { libc::dlerror() };
    match error.is_null() {
        true => "no reason given".to_owned(),
        // SAFETY: as above.
        false => unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned(),
    }
}

/// `struct flb_api` of 2.0 and later, without the entries that no output uses.
#[repr(C)]
struct Api {
    output_get_property: unsafe extern "C" fn(*const c_char, *mut flb_output_instance) -> *const c_char,
    input_get_property: usize,
    output_get_cmt_instance: usize,
    input_get_cmt_instance: usize,
    log_print: unsafe extern "C" fn(c_int, *const c_char, c_int, *const c_char, *const c_char),
    input_log_check: usize,
    output_log_check: unsafe extern "C" fn(*mut flb_output_instance, c_int) -> c_int,
}

static API: Api = Api {
    output_get_property,
    input_get_property: 0,
    output_get_cmt_instance: 0,
    input_get_cmt_instance: 0,
    log_print: flb_log_print,
    input_log_check: 0,
    output_log_check: flb_output_log_check,
};
// The plugin uses only the entry at offset 0.
const _: () =
    assert!(std::mem::offset_of!(Api, output_get_property) == std::mem::offset_of!(flb_api, output_get_property));

/// Returns a property of an output, or NULL if there is none or it is empty.
unsafe extern "C" fn output_get_property(key: *const c_char, ins: *mut flb_output_instance) -> *const c_char {
    if key.is_null() || ins.is_null() {
        return ptr::null();
    }
    // SAFETY: the plugin passes a C string, and the instance that it was given.
    let (key, instance) = unsafe { (CStr::from_ptr(key), &*ins.cast::<Instance>()) };
    let key = key.to_string_lossy();
    let found = instance.properties.iter().find(|(name, _)| name.eq_ignore_ascii_case(&key));
    found.and_then(|(_, value)| value.as_ref()).map_or(ptr::null(), |value| value.as_ptr())
}

/// The number of the signal that asked the host to stop (src/fluent-bit.c); plugins read it.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static exit_signal: AtomicI32 = AtomicI32::new(0);

/// Whether an output's lines of this level are logged.
///
/// # Safety
/// `ins` is an instance that a plugin was given at Init, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flb_output_log_check(ins: *mut flb_output_instance, level: c_int) -> c_int {
    if ins.is_null() {
        return 0;
    }
    // SAFETY: the caller passes the instance that it was given.
    let instance = unsafe { &*ins.cast::<Instance>() };
    c_int::from(level <= instance.log_level as c_int)
}

/// The name of an output in log lines.
///
/// # Safety
/// As [`flb_output_log_check`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flb_output_name(ins: *mut flb_output_instance) -> *const c_char {
    if ins.is_null() {
        return ptr::null();
    }
    // SAFETY: the caller passes the instance that it was given.
    unsafe { &*ins.cast::<Instance>() }.name.as_ptr()
}

/// Logs a plugin's line.
///
/// In C it takes any number of arguments. A variadic function cannot be defined in stable Rust; one with five fixed
/// arguments can be called as if it were variadic on x86-64 System V and on Linux's AArch64, where the first arguments
/// are passed in the same registers either way. kubehose always passes `"%s"` and one string; any other format is written
/// unchanged.
///
/// # Safety
/// `fmt` is a C string, and so is `arg` if `fmt` is `"%s"`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flb_log_print(
    kind: c_int,
    _file: *const c_char,
    _line: c_int,
    fmt: *const c_char,
    arg: *const c_char,
) {
    // The real function has a line buffer of this size on the caller's stack, so a plugin that logs on a coroutine's
    // stack overflows it here, too.
    std::hint::black_box(&mut [0u8; 8 * 1024]);
    if fmt.is_null() {
        return;
    }
    // SAFETY: promised by the caller.
    let fmt = unsafe { CStr::from_ptr(fmt) };
    let text = match fmt.to_bytes() {
        // SAFETY: promised by the caller.
        b"%s" if !arg.is_null() => unsafe { CStr::from_ptr(arg) },
        _ => fmt,
    };
    log::write(kind, &text.to_string_lossy());
}

/// Keeps the exported functions in the executable, which calls none of them itself.
#[used]
static EXPORTED: (
    unsafe extern "C" fn(*mut flb_output_instance, c_int) -> c_int,
    unsafe extern "C" fn(*mut flb_output_instance) -> *const c_char,
) = (flb_output_log_check, flb_output_name);
