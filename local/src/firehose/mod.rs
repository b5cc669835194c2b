//! A local Amazon Data Firehose endpoint: the service's protocol, limits and signature check, and faults on request.
//!
//! It replaces the service in tests, benchmarks and demonstrations. Accepted records can be read back from memory
//! ([`Server::records`]) or from a file in the form of the service's S3 objects ([`Options::output`]).
//!
//! Based on these pages:
//! [PutRecordBatch](https://docs.aws.amazon.com/firehose/latest/APIReference/API_PutRecordBatch.html),
//! [common errors](https://docs.aws.amazon.com/firehose/latest/APIReference/CommonErrors.html),
//! [limits](https://docs.aws.amazon.com/firehose/latest/dev/limits.html),
//! [Signature Version 4](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).

mod bench;
mod command;
mod connection;
mod faults;
mod options;
mod output;
mod reply;
mod request;
mod server;
mod service;
mod signature;
mod stats;
mod tls;

pub use command::{Args, run};
pub use faults::{Down, Faults, RecordError, RequestError};
pub use options::{AccessKey, Keep, Options};
pub use output::AcceptedRecord;
pub use request::{MAX_BATCH_BYTES, MAX_RECORD_BYTES, MAX_RECORDS};
pub use server::{Error, Server};
pub use stats::{BILLING_INCREMENT_BYTES, OTHER_STREAMS, STREAMS_COUNTED, Stats, StreamStats};
