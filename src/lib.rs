//! kubehose: Kubernetes logs, out of Fluent Bit, into Amazon Data Firehose, named the way Datadog knows them.
//!
//! The files stand in the order in which data meets them; `DESIGN.md` tells the whole way.

pub mod batch;
pub mod chunk;
pub mod json;
pub mod record;
pub mod remap;

/// The version of kubehose.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The revision that it was built from, or `unknown`.
pub const REVISION: &str = env!("KUBEHOSE_REVISION");
