//! What is kept on disk: chunks until they are delivered, and records that could not be.

pub mod dead_letters;
pub mod spool;
