//! A stand-in for Fluent Bit: loads an output plugin through the Go-style ABI and drives it as the real host does.
//!
//! It accepts the same command line and classic configuration, as far as tests and demonstrations need them, so that
//! a configuration runs in both. It is stricter where that reveals faults that the real host hides: the coroutine's
//! stack ends in a guard page, and a chunk's bytes are read-only during the flush and inaccessible afterwards.
//!
//! The order of the calls, the log lines and the timing follow Fluent Bit 5.1
//! ([`src/flb_plugin_proxy.c`, `src/flb_engine.c`](https://github.com/fluent/fluent-bit/tree/v5.1.1/src)).

mod abi;
mod chunk;
mod command;
mod configuration;
mod engine;
mod event;
mod input;
mod log;
mod memory;
mod parser;

pub use command::{Args, main};
