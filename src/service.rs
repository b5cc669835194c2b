//! What Amazon Data Firehose is called, accepts and bills.

/// The SDK's rules of the service's endpoints: regions, FIPS, dual stack, partitions.
pub use aws_sdk_firehose::config::endpoint::{
    DefaultResolver as EndpointRules, Params as EndpointParams, ResolveEndpoint,
};

/// The service's name in the SDK: it is part of the settings of its endpoint, such as `AWS_ENDPOINT_URL_FIREHOSE`.
/// <https://docs.aws.amazon.com/sdkref/latest/guide/ss-endpoints-table.html>
pub const ID: &str = "Firehose";

/// The service's name in a signature.
pub const NAME: &str = "firehose";

/// The call, as its header names it.
/// <https://docs.aws.amazon.com/firehose/latest/APIReference/API_PutRecordBatch.html>
pub const TARGET: &str = "Firehose_20150804.PutRecordBatch";

/// The type of the call's body.
pub const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// The most bytes of one record, before base64: 1,000 KiB.
/// <https://docs.aws.amazon.com/firehose/latest/dev/limits.html>
pub const MAX_RECORD: usize = 1_024_000;

/// The most records of one call. <https://docs.aws.amazon.com/firehose/latest/APIReference/API_PutRecordBatch.html>
pub const MAX_RECORDS: usize = 500;

/// The most bytes of one call: 4 MiB. Whether the service counts them before or after base64 is not said, so the whole
/// encoded body stays below it.
pub const MAX_BODY: usize = 4 * 1024 * 1024;

/// The body of a call, up to the stream's name, which follows as a JSON string.
pub const BODY_STREAM: &[u8] = b"{\"DeliveryStreamName\":";

/// From there up to the first record's base64.
pub const BODY_RECORDS: &[u8] = b",\"Records\":[{\"Data\":\"";

/// What stands between two records: the end of one and the beginning of the next.
pub const BODY_BETWEEN: &[u8] = b"\"},{\"Data\":\"";

/// What follows the last record.
pub const BODY_END: &[u8] = b"\"}]}";

/// Each record is billed as a multiple of this many bytes.
/// <https://aws.amazon.com/firehose/pricing/>
pub const BILLING_STEP: u64 = 5 * 1024;

/// The longest name of a delivery stream, in bytes.
/// <https://docs.aws.amazon.com/firehose/latest/APIReference/API_CreateDeliveryStream.html>
const LONGEST_NAME: usize = 64;

/// What a record of this size is billed as, in bytes.
pub fn billed(bytes: u64) -> u64 {
    bytes.div_ceil(BILLING_STEP).max(1) * BILLING_STEP
}

/// Whether a delivery stream can have this name.
pub fn is_stream_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(allowed)
}
