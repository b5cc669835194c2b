//! The counts of a server.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Each record is billed as a multiple of this many bytes
/// ([pricing](https://aws.amazon.com/firehose/pricing/): "rounded up to the nearest 5KB").
pub const BILLING_INCREMENT_BYTES: u64 = 5 * 1024;

/// A snapshot of the counts since the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Requests whose head was read, including those that a fault then cut off.
    pub requests: u64,
    /// Requests by HTTP status; those that were cut off have none.
    pub statuses: BTreeMap<u16, u64>,
    /// Error replies by the service's code.
    pub errors: BTreeMap<String, u64>,
    /// Records in requests that were valid.
    pub records_offered: u64,
    /// Records accepted.
    pub records_accepted: u64,
    /// Records that failed in a reply.
    pub records_failed: u64,
    /// Bytes of the accepted records, before base64.
    pub bytes_accepted: u64,
    /// Bytes of all request bodies, as received.
    pub bytes_encoded: u64,
    /// Bytes that the service would bill: each accepted record rounded up to 5 KB.
    pub bytes_billed: u64,
    /// PutRecordBatch calls that were valid, and the records of the largest and the average one.
    pub batches: u64,
    /// See `batches`.
    pub batch_records_max: u64,
    /// See `batches`.
    pub batch_records_mean: f64,
    /// The largest request body, in bytes.
    pub body_bytes_max: u64,
    /// Distinct accepted records, by a 64-bit hash; 0 unless counted.
    pub unique: u64,
    /// Accepted records that were accepted before; 0 unless counted.
    pub duplicates: u64,
    /// Records that were accepted by requests whose reply was then cut off.
    pub records_accepted_then_cut: u64,
    /// Requests over one of the service's limits.
    pub limit_violations: u64,
    /// Requests whose signature was rejected.
    pub signature_failures: u64,
    /// Requests with a valid signature, by the id of their access key.
    pub signed_by: BTreeMap<String, u64>,
    /// The counts for each delivery stream, by name; the streams beyond [`STREAMS_COUNTED`] are counted together as
    /// [`OTHER_STREAMS`].
    pub streams: BTreeMap<String, StreamStats>,
    /// Faults that occurred, by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// Connections accepted, and those open now.
    pub connections: u64,
    /// See `connections`.
    pub connections_open: u64,
    /// Requests being answered now, and the maximum at a time.
    pub in_flight: u64,
    /// See `in_flight`.
    pub in_flight_peak: u64,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
}

/// The maximum number of delivery streams with counts of their own.
pub const STREAMS_COUNTED: usize = 256;

/// The name under which all other streams are counted; no stream can have this name.
pub const OTHER_STREAMS: &str = "(others)";

/// The counts for one delivery stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StreamStats {
    /// Calls with records that were answered, or cut off after their records were accepted.
    pub calls: u64,
    /// Calls with records that were rejected as a whole.
    pub calls_refused: u64,
    /// See [`Stats::records_accepted`].
    pub records_accepted: u64,
    /// See [`Stats::records_failed`].
    pub records_failed: u64,
    /// See [`Stats::bytes_accepted`].
    pub bytes_accepted: u64,
    /// See [`Stats::bytes_billed`].
    pub bytes_billed: u64,
}

impl StreamStats {
    pub(super) fn add(&mut self, more: &StreamStats) {
        self.calls += more.calls;
        self.calls_refused += more.calls_refused;
        self.records_accepted += more.records_accepted;
        self.records_failed += more.records_failed;
        self.bytes_accepted += more.bytes_accepted;
        self.bytes_billed += more.bytes_billed;
    }
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    counts: Mutex<Counts>,
    pub connections_open: AtomicU64,
    in_flight: AtomicU64,
    in_flight_peak: AtomicU64,
}

/// Counts behind one lock, which is taken once or twice per request.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub stats: Stats,
    /// Records in valid batches, for the average.
    pub batch_records: u64,
    pub seen: HashSet<u64>,
}

impl Counters {
    pub fn lock(&self) -> MutexGuard<'_, Counts> {
        // After a panic while counting, the numbers are still useful.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn fault(&self, name: &'static str) {
        *self.lock().stats.faults.entry(name).or_default() += 1;
    }

    pub fn snapshot(&self) -> Stats {
        let counts = self.lock();
        let mut stats = counts.stats.clone();
        stats.batch_records_mean =
            if stats.batches == 0 { 0.0 } else { counts.batch_records as f64 / stats.batches as f64 };
        stats.unique = counts.seen.len() as u64;
        stats.connections_open = self.connections_open.load(Ordering::Relaxed);
        stats.in_flight = self.in_flight.load(Ordering::Relaxed);
        stats.in_flight_peak = self.in_flight_peak.load(Ordering::Relaxed);
        stats
    }

    /// Counts a request as in flight until the guard is dropped.
    pub fn begin(&self) -> InFlight<'_> {
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.in_flight_peak.fetch_max(now, Ordering::Relaxed);
        InFlight(self)
    }
}

pub(super) struct InFlight<'a>(&'a Counters);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stats {
    /// The counts for a stream.
    pub(super) fn stream(&mut self, name: &str) -> &mut StreamStats {
        let known = self.streams.contains_key(name) || self.streams.len() < STREAMS_COUNTED;
        let name = if known { name } else { OTHER_STREAMS };
        self.streams.entry(name.to_owned()).or_default()
    }

    /// The most important counts in one line.
    pub fn summary(&self) -> String {
        let mut line = format!(
            "{} requests, {} records accepted ({} bytes, billed as {}), {} failed",
            self.requests, self.records_accepted, self.bytes_accepted, self.bytes_billed, self.records_failed
        );
        if self.unique > 0 {
            line.push_str(&format!(", {} unique, {} duplicates", self.unique, self.duplicates));
        }
        if self.limit_violations > 0 {
            line.push_str(&format!(", {} over a limit", self.limit_violations));
        }
        for (code, count) in &self.errors {
            line.push_str(&format!(", {count} {code}"));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_beyond_the_limit_are_counted_together() {
        let mut stats = Stats::default();
        for turn in 0..2 {
            for n in 0..STREAMS_COUNTED + 100 {
                stats.stream(&format!("stream-{n}")).add(&StreamStats { calls: 1, ..StreamStats::default() });
            }
            assert_eq!(stats.streams.len(), STREAMS_COUNTED + 1);
            assert_eq!(stats.streams["stream-0"].calls, turn + 1);
            assert_eq!(stats.streams[OTHER_STREAMS].calls, (turn + 1) * 100);
        }
    }
}
