//! What is kept on disk: chunks until they are delivered, and records that could not be.

mod chunk_file;
pub mod chunks;
pub mod dead_letters;
mod files;
pub mod letters;
mod notes;
pub mod spool;
