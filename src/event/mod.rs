//! Events, as the host hands them over: msgpack → events, and paths into them.

pub mod chunk;
pub mod known;
pub mod path;
pub mod raw;
