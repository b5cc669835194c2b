//! A plugin for the tests of the host: records each call in `$RECORDING/calls`, writes the data it receives, and
//! misbehaves on request.
//!
//! Its properties: `file` receives the data of all flushes; `behaviour` is `ok`, `retry` (answers RETRY except to
//! every third flush), `error`, `overflow`, `write`, `past`, `late`, `log`, or `refuse` (Init fails).
#![allow(unsafe_code, missing_docs, clippy::missing_safety_doc, clippy::unwrap_used)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use fluent_bit_sys::{
    FLB_ERROR, FLB_OK, FLB_PROXY_GOLANG, FLB_PROXY_OUTPUT_PLUGIN, FLB_RETRY, flb_output_log_check_fn,
    flb_plugin_proxy_def, flbgo_output_plugin,
};

struct Instance {
    number: usize,
    file: Option<File>,
    behaviour: String,
    flushes: AtomicUsize,
}

static INSTANCES: AtomicUsize = AtomicUsize::new(0);
/// The address of a finished flush's data, for `late`.
static LATE: AtomicUsize = AtomicUsize::new(0);

fn note(line: &str) {
    let Some(directory) = std::env::var_os("RECORDING") else {
        return;
    };
    let thread = std::fs::read_to_string("/proc/thread-self/comm").unwrap_or_default();
    let path = std::path::Path::new(&directory).join("calls");
    let mut calls = File::options().create(true).append(true).open(path).unwrap();
    calls.write_all(format!("{line} @{}\n", thread.trim()).as_bytes()).unwrap();
}

#[unsafe(no_mangle)]
pub extern "C" fn FLBPluginPreRegister(hot_reload: c_int) -> c_int {
    note(&format!("PreRegister({hot_reload})"));
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn FLBPluginRegister(def: *mut flb_plugin_proxy_def) -> c_int {
    note("Register");
    // SAFETY: the host passes a definition to be filled in.
    unsafe {
        (*def).type_ = FLB_PROXY_OUTPUT_PLUGIN as c_int;
        (*def).proxy = FLB_PROXY_GOLANG as c_int;
        (*def).flags = 0;
        (*def).name = c"recording".as_ptr().cast_mut();
        (*def).description = c"Records what the host does".as_ptr().cast_mut();
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn FLBPluginInit(plugin: *mut flbgo_output_plugin) -> c_int {
    // SAFETY: the host passes a struct whose fields are all set.
    let plugin = unsafe { &*plugin };
    let property = |name: &CStr| {
        // SAFETY: every host has the table's first function, which returns NULL or a C string.
        unsafe {
            let value = (*plugin.api).output_get_property.unwrap()(name.as_ptr(), plugin.o_ins);
            (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
        }
    };
    let number = INSTANCES.fetch_add(1, Ordering::Relaxed);
    let behaviour = property(c"BEHAVIOUR").unwrap_or_default();
    note(&format!("Init({number}, behaviour={behaviour}, match={:?})", property(c"match")));
    if behaviour == "refuse" {
        return -1;
    }
    if behaviour == "log" {
        // SAFETY: the function has this type on every host that has it.
        unsafe {
            let check: flb_output_log_check_fn =
                std::mem::transmute(libc::dlsym(libc::RTLD_DEFAULT, c"flb_output_log_check".as_ptr()));
            let print: unsafe extern "C" fn(c_int, *const c_char, c_int, *const c_char, ...) =
                std::mem::transmute(libc::dlsym(libc::RTLD_DEFAULT, c"flb_log_print".as_ptr()));
            for (level, name) in [(1, "error"), (2, "warn"), (3, "info"), (4, "debug")] {
                if check.unwrap()(plugin.o_ins, level) != 0 {
                    let text = CString::new(format!("a line at {name}")).unwrap();
                    print(level, std::ptr::null(), 0, c"%s".as_ptr(), text.as_ptr());
                }
            }
        }
    }
    let file = property(c"file").map(|path| File::options().create(true).append(true).open(path).unwrap());
    let instance = Box::new(Instance { number, file, behaviour, flushes: AtomicUsize::new(0) });
    // SAFETY: the context is the instance's own.
    unsafe { (*plugin.context).remote_context = Box::into_raw(instance).cast() };
    1
}

#[unsafe(no_mangle)]
pub extern "C" fn FLBPluginOutputPreRun(hot_reload: c_int) -> c_int {
    note(&format!("PreRun({hot_reload})"));
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn FLBPluginFlushCtx(
    context: *mut c_void,
    data: *const c_void,
    len: usize,
    tag: *const c_char,
) -> c_int {
    // SAFETY: the handle is the one that Init stored; the data and the tag are valid until we return.
    let (instance, bytes, tag) = unsafe {
        (&*context.cast::<Instance>(), std::slice::from_raw_parts(data.cast::<u8>(), len), CStr::from_ptr(tag))
    };
    let count = instance.flushes.fetch_add(1, Ordering::Relaxed) + 1;
    note(&format!("Flush({}, {})", instance.number, tag.to_string_lossy()));
    match instance.behaviour.as_str() {
        "retry" if !count.is_multiple_of(3) => return FLB_RETRY as c_int,
        "error" => return FLB_ERROR as c_int,
        "overflow" => {
            std::hint::black_box(overflow(1_000_000));
        }
        // SAFETY: none; the host must detect these faults.
        "write" => unsafe { data.cast_mut().cast::<u8>().write_volatile(0) },
        // SAFETY: as above.
        "past" => unsafe {
            std::hint::black_box(data.cast::<u8>().add(len).read_volatile());
        },
        "late" => {
            let last = LATE.swap(data as usize, Ordering::Relaxed);
            if last != 0 {
                // SAFETY: as above.
                unsafe { std::hint::black_box((last as *const u8).read_volatile()) };
            }
        }
        _ => {}
    }
    if let Some(mut file) = instance.file.as_ref() {
        file.write_all(bytes).unwrap();
    }
    FLB_OK as c_int
}

/// Uses up the stack in a way that the compiler cannot turn into a loop.
#[inline(never)]
fn overflow(depth: u64) -> u64 {
    let local = std::hint::black_box([depth; 64]);
    if depth == 0 { 0 } else { overflow(depth - 1) + local[7] }
}

#[unsafe(no_mangle)]
pub extern "C" fn FLBPluginOutputPreExit(hot_reload: c_int) -> c_int {
    note(&format!("PreExit({hot_reload})"));
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn FLBPluginExitCtx(context: *mut c_void) -> c_int {
    if context.is_null() {
        note("Exit(NULL)");
    } else {
        // SAFETY: the handle is the one that Init stored, and this is its last use.
        let instance = unsafe { Box::from_raw(context.cast::<Instance>()) };
        note(&format!("Exit({})", instance.number));
    }
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn FLBPluginUnregister(_def: *mut flb_plugin_proxy_def) -> c_int {
    note("Unregister");
    0
}
