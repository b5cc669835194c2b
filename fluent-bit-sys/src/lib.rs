//! Raw types of Fluent Bit's Go-style plugin ABI, generated from `include/kubehose_host.h`; nothing else.
//!
//! The declarations, and the releases of the host for which each holds, are documented in that header.
#![allow(non_camel_case_types, non_upper_case_globals, missing_docs)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
