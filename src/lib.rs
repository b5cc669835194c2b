//! kubehose: Kubernetes logs, out of Fluent Bit, into Amazon Data Firehose, named the way Datadog knows them.
//!
//! The files stand in the order in which data meets them; `DESIGN.md` tells the whole way.

mod abi;
mod access;
mod alloc;
pub mod batch;
pub mod chunk;
pub mod config;
pub mod dead_letter;
pub mod delivery;
pub mod encode;
pub mod error;
mod firehose;
pub mod host;
mod http;
pub mod instance;
pub mod json;
pub mod ledger;
pub mod metrics;
mod one_pass;
pub mod pack;
pub mod path;
pub mod record;
pub mod remap;
pub mod replay;
pub mod spool;

/// The version of kubehose.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The revision that it was built from, or `unknown`.
pub const REVISION: &str = env!("KUBEHOSE_REVISION");
