//! kubehose: Kubernetes logs from Fluent Bit to Amazon Data Firehose, named as Datadog expects them.
//!
//! `DESIGN.md` follows a chunk through these files.

mod abi;
pub mod delivery;
pub mod error;
pub mod event;
pub mod firehose;
pub mod host;
pub mod metrics;
pub mod options;
pub mod output;
pub mod record;
pub mod replay;
pub mod service;
pub mod storage;
mod told;
mod turns;

/// The version of kubehose.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The git revision that it was built from, or `unknown`.
pub const REVISION: &str = env!("KUBEHOSE_REVISION");
