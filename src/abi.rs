//! The functions that the host looks up in `libkubehose.so`: each catches panics, turns its arguments into the types of
//! [`crate::host`], and makes one safe call.
//!
//! DESIGN.md lists the host's calls in their order, and the releases that make them.
#![allow(unsafe_code)]

use crate::host::{self, FlushData, Handle, Output, Status};
use crate::output;
use fluent_bit_sys as ffi;
use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs an entry point. A panic, which would abort the host, becomes the answer `otherwise`.
fn guard(otherwise: c_int, run: impl FnOnce() -> c_int) -> c_int {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(answer) => answer,
        Err(panic) => {
            // Dropping a panic's payload may panic again.
            std::mem::forget(panic);
            otherwise
        }
    }
}

/// Registers the output. Called on the main thread, before the host forks: no thread, socket or file is opened here.
///
/// # Safety
/// `definition` is the host's, as [`host::define`] says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn FLBPluginRegister(definition: *mut ffi::flb_plugin_proxy_def) -> c_int {
    // SAFETY: the caller's promise.
    guard(-1, || if unsafe { host::define(definition, &output::properties()) } { 0 } else { -1 })
}

/// Starts one `[OUTPUT]`. 0 and less is failure.
///
/// # Safety
/// `plugin` is the host's, as [`Output::new`] says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn FLBPluginInit(plugin: *mut ffi::flbgo_output_plugin) -> c_int {
    // SAFETY: the caller's promise; the view ends with this call.
    guard(-1, || match unsafe { Output::new(plugin) } {
        Some(output) if output::start(&output) => 1,
        _ => -1,
    })
}

/// Flushes one chunk. Runs on a coroutine's stack of 24 KiB or little more, without a guard page: it copies the chunk
/// and waits, nothing else.
///
/// # Safety
/// `data` points to `length` bytes and `tag` to a text that ends with a NUL, both valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn FLBPluginFlushCtx(
    context: *mut c_void,
    data: *const c_void,
    length: usize,
    tag: *const c_char,
) -> c_int {
    guard(Status::Retry.code(), || {
        // SAFETY: the caller's promise; the data is read during this call only.
        let data = unsafe { FlushData::new(data, length, tag) };
        output::flush(Handle::from_context(context), &data).code()
    })
}

/// The host is about to end the output. Deliveries go on until [`FLBPluginExitCtx`].
#[unsafe(no_mangle)]
pub extern "C" fn FLBPluginOutputPreExit(_: c_int) -> c_int {
    0
}

/// Ends one `[OUTPUT]`: drains it and joins its threads. Null, unknown and repeated contexts are no-ops: the host sends
/// null for instances that were never initialised, and up to 2.0.6 the last one's context once for each.
#[unsafe(no_mangle)]
pub extern "C" fn FLBPluginExitCtx(context: *mut c_void) -> c_int {
    guard(Status::Ok.code(), || {
        output::exit(Handle::from_context(context));
        Status::Ok.code()
    })
}

/// The host is about to free the definition, which is its own.
#[unsafe(no_mangle)]
pub extern "C" fn FLBPluginUnregister(_: *mut ffi::flb_plugin_proxy_def) -> c_int {
    0
}
