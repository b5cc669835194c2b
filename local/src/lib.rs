//! Stand-ins that run on one machine: an Amazon Data Firehose endpoint, and a host that loads the plugin as Fluent Bit does.

pub mod firehose;
pub mod host;
