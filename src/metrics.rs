//! The counts of one output, in one place.

use crate::firehose::{Class, Fault, Label, Reply};
use crate::host::{Described, Numbers, Series};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub use crate::service::billed;

macro_rules! counts {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The counts of an output since its start; any thread may count.
        #[derive(Debug, Default)]
        pub struct Counts {
            $($(#[doc = $doc])+ pub $name: Count,)+
            errors: [Count; Label::ALL.len()],
            /// How long PutRecordBatch calls took, those that failed included.
            pub call_seconds: Histogram,
        }

        /// The counts at one moment.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Snapshot {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Calls that failed as a whole, by [`Label::name`].
            pub errors: Vec<(&'static str, u64)>,
        }

        impl Counts {
            /// The counts now.
            pub fn snapshot(&self) -> Snapshot {
                Snapshot {
                    $($name: self.$name.get(),)+
                    errors: Label::ALL.iter().zip(&self.errors).map(|(label, count)| (label.name(), count.get())).collect(),
                }
            }
        }
    };
}

counts! {
    /// Events decoded.
    events,
    /// Parts of chunks that could not be decoded as an event.
    undecodable,
    /// Records that Firehose has accepted.
    records_accepted,
    /// Records sent again after Firehose refused them or their call.
    records_resent,
    /// Records sent again although Firehose may have accepted them before.
    records_possibly_duplicate,
    /// Records that could not be delivered: too large, refused for good, or not sent before the exit.
    records_dead_lettered,
    /// Records that could not be delivered and that no dead-letter file holds.
    records_dropped,
    /// Dead letters that were deleted to stay within `dead_letter_limit`.
    dead_letters_discarded,
    /// Files of the spool that were damaged.
    chunks_damaged,
    /// Records cut to fit Firehose's limit.
    records_truncated,
    /// Events that made no record, because they or their `log_key` were empty.
    records_empty,
    /// Events that went to `default_delivery_stream`, because they named no stream or too many streams were in use.
    default_stream,
    /// Bytes of accepted records, before base64.
    bytes,
    /// Bytes that Firehose bills for accepted records.
    billed_bytes,
    /// PutRecordBatch calls of which at least one record was accepted.
    batches,
    /// Calls and records that were throttled.
    throttled,
    /// Chunks answered RETRY because `max_buffer` was full.
    chunks_refused,
    /// Values dropped because `replace_dots` gave two keys the same name.
    key_collisions,
    /// Calls in flight now.
    in_flight,
    /// Streams whose last call failed whole.
    streams_failing,
    /// Bytes held in memory now, encoded.
    held,
    /// The most that may be held: `max_buffer`.
    held_limit,
}

impl Counts {
    /// Counts a call that failed as a whole.
    pub fn error(&self, class: Class) {
        self.errors[class.label() as usize].add(1);
    }

    /// What the host's metrics endpoint shows now.
    pub fn numbers(&self) -> Numbers {
        let snapshot = self.snapshot();
        let (buckets, sum) = self.call_seconds.read();
        Numbers {
            counters: COUNTERS.iter().map(|(.., read)| read(&snapshot)).collect(),
            gauges: GAUGES.iter().map(|(.., read)| read(&snapshot)).collect(),
            by_class: snapshot.errors,
            buckets: buckets.to_vec(),
            sum,
        }
    }
}

/// The series that [`Counts::numbers`] gives the numbers of.
pub fn described() -> Described {
    Described {
        counters: COUNTERS.map(|(name, help, _)| (name, help)).to_vec(),
        gauges: GAUGES.map(|(name, help, _)| (name, help)).to_vec(),
        by_class: ERRORS,
        histogram: SECONDS,
        bounds: &CALL_SECONDS,
    }
}

/// One number that any thread may change.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Subtracts `n`; for gauges.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Relaxed);
    }

    /// Sets it to `n`; for gauges.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the buckets of [`Counts::call_seconds`].
pub const CALL_SECONDS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// How long calls took.
#[derive(Debug, Default)]
pub struct Histogram {
    /// How many calls took no longer than each bound; the last is the number of calls.
    buckets: [Count; CALL_SECONDS.len() + 1],
    nanos: Count,
}

impl Histogram {
    /// Counts one call.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        for (bound, bucket) in CALL_SECONDS.iter().chain([&f64::INFINITY]).zip(&self.buckets) {
            if seconds <= *bound {
                bucket.add(1);
            }
        }
        self.nanos.add(u64::try_from(took.as_nanos()).unwrap_or(0));
    }

    /// The buckets, of which the last is the number of calls, and the sum in seconds.
    pub fn read(&self) -> ([u64; CALL_SECONDS.len() + 1], f64) {
        (std::array::from_fn(|at| self.buckets[at].get()), self.nanos.get() as f64 / 1e9)
    }
}

/// A metric of the host's endpoint: its name after `kubehose_`, its help, and its number.
pub type Exported = (&'static CStr, &'static CStr, fn(&Snapshot) -> u64);

/// The counters.
pub const COUNTERS: [Exported; 16] = [
    (c"events_total", c"Events decoded.", |s| s.events),
    (c"records_accepted_total", c"Records that Firehose has accepted.", |s| s.records_accepted),
    (c"records_resent_total", c"Records sent again.", |s| s.records_resent),
    (c"records_dead_lettered_total", c"Records that could not be delivered.", |s| s.records_dead_lettered),
    (c"records_dropped_total", c"Records that could not be delivered, and that no dead-letter file holds.", |s| {
        s.records_dropped
    }),
    (c"dead_letters_discarded_total", c"Dead letters deleted to stay within dead_letter_limit.", |s| {
        s.dead_letters_discarded
    }),
    (c"chunks_damaged_total", c"Files of the spool that were damaged.", |s| s.chunks_damaged),
    (
        c"records_possibly_duplicate_total",
        c"Records sent again although Firehose may have accepted them before.",
        |s| s.records_possibly_duplicate,
    ),
    (c"records_truncated_total", c"Records cut to fit Firehose's limit, or nested too deep.", |s| s.records_truncated),
    (c"records_empty_total", c"Events that made no record, because they were empty.", |s| s.records_empty),
    (
        c"default_stream_total",
        c"Events that went to default_delivery_stream, because they named no stream or because of max_streams.",
        |s| s.default_stream,
    ),
    (c"bytes_total", c"Bytes of accepted records, before base64.", |s| s.bytes),
    (c"billed_bytes_total", c"Bytes that Firehose bills for accepted records.", |s| s.billed_bytes),
    (c"batches_total", c"PutRecordBatch calls of which at least one record was accepted.", |s| s.batches),
    (c"throttled_total", c"Calls and records that were throttled.", |s| s.throttled),
    (c"undecodable_total", c"Parts of chunks that could not be decoded as an event.", |s| s.undecodable),
];

/// The gauges.
pub const GAUGES: [Exported; 4] = [
    (c"in_flight", c"PutRecordBatch calls in flight.", |s| s.in_flight),
    (c"streams_failing", c"Streams whose last call failed whole; the log names them.", |s| s.streams_failing),
    (c"held_bytes", c"Bytes held in memory, encoded.", |s| s.held),
    (c"held_bytes_limit", c"The most bytes that may be held: max_buffer.", |s| s.held_limit),
];

/// The counter of [`Snapshot::errors`], with the label `class`.
pub const ERRORS: Series = (c"errors_total", c"Calls that failed as a whole.");

/// The histogram of [`Counts::call_seconds`].
pub const SECONDS: Series = (c"put_record_batch_seconds", c"How long PutRecordBatch calls took.");

/// Stands for the streams beyond those that are counted each by itself; no stream may have such a name.
pub const OTHER_STREAMS: &str = "(others)";

/// How long after its last call a stream still counts as failing. While records wait for it calls go out more often than that.
const FAILING: Duration = Duration::from_secs(120);

/// The most streams that have a line of their own at the end.
const LINES: usize = 20;

/// What came of the records of each delivery stream, where there may be several. The host's metrics have no label for it: a series can
/// only be made at Init, when no name is known yet, since later the host's own thread reads them.
#[derive(Debug)]
pub struct ByStream {
    most: usize,
    streams: BTreeMap<Box<str>, OfStream>,
}

/// The counts of one delivery stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfStream {
    /// Records that Firehose has accepted.
    pub accepted: u64,
    /// Records that it has not, as often as they were sent in vain.
    pub not_accepted: u64,
    /// Records that could not be delivered.
    pub dead_lettered: u64,
    /// When its last call failed, if it did.
    failed: Option<Instant>,
}

impl ByStream {
    /// Counts `most` streams each by itself, and the others together.
    pub fn new(most: usize) -> ByStream {
        ByStream { most, streams: BTreeMap::new() }
    }

    fn of(&mut self, stream: &str) -> &mut OfStream {
        let known = self.streams.contains_key(stream) || self.streams.len() < self.most;
        self.streams.entry(if known { stream } else { OTHER_STREAMS }.into()).or_default()
    }

    /// Counts what came of a call with so many records.
    pub fn answered(&mut self, stream: &str, records: usize, outcome: &Result<Reply, Fault>, now: Instant) {
        let counts = self.of(stream);
        let refused = match outcome {
            Ok(reply) => reply.refused.len(),
            Err(_) => records,
        };
        counts.accepted += records.saturating_sub(refused) as u64;
        counts.not_accepted += refused as u64;
        // A record that is refused for good is not the stream's fault.
        counts.failed = outcome.as_ref().is_err_and(|fault| fault.class != Class::Poison).then_some(now);
    }

    /// Counts a record that could not be delivered.
    pub fn dead_lettered(&mut self, stream: &str) {
        self.of(stream).dead_lettered += 1;
    }

    /// How many streams fail now.
    pub fn failing(&self, now: Instant) -> u64 {
        let fails = |counts: &&OfStream| counts.failed.is_some_and(|at| now.saturating_duration_since(at) < FAILING);
        self.streams.values().filter(fails).count() as u64
    }

    /// A line for each stream, those first that lost or refused the most; those beyond 20 in one.
    pub fn lines(&self) -> Vec<String> {
        let mut streams: Vec<(&str, OfStream)> = self.streams.iter().map(|(name, counts)| (&**name, *counts)).collect();
        streams
            .sort_by_key(|(_, counts)| std::cmp::Reverse((counts.dead_lettered, counts.not_accepted, counts.accepted)));
        let line = |what: String, counts: OfStream| {
            let OfStream { accepted, not_accepted, dead_lettered, .. } = counts;
            format!("{what}: accepted={accepted} not_accepted={not_accepted} dead_lettered={dead_lettered}")
        };
        let rest = streams.split_off(streams.len().min(LINES));
        let mut lines: Vec<String> =
            streams.into_iter().map(|(name, counts)| line(format!("stream {name}"), counts)).collect();
        if !rest.is_empty() {
            let mut all = OfStream::default();
            for (_, counts) in &rest {
                all.accepted += counts.accepted;
                all.not_accepted += counts.not_accepted;
                all.dead_lettered += counts.dead_lettered;
            }
            lines.push(line(format!("{} more streams", rest.len()), all));
        }
        lines
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "events={} accepted={} resent={} possibly_duplicate={} dead_lettered={} dropped={} truncated={} empty={} bytes={} billed_bytes={} \
             batches={} throttled={} chunks_refused={} undecodable={} key_collisions={} held={} discarded={} chunks_damaged={}",
            self.events,
            self.records_accepted,
            self.records_resent,
            self.records_possibly_duplicate,
            self.records_dead_lettered,
            self.records_dropped,
            self.records_truncated,
            self.records_empty,
            self.bytes,
            self.billed_bytes,
            self.batches,
            self.throttled,
            self.chunks_refused,
            self.undecodable,
            self.key_collisions,
            self.held,
            self.dead_letters_discarded,
            self.chunks_damaged,
        )?;
        for (class, count) in self.errors.iter().filter(|(_, count)| *count > 0) {
            write!(out, " errors.{class}={count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firehose::Setup;
    use crate::firehose::reply::Refused;

    fn fault(class: Class) -> Result<Reply, Fault> {
        Err(Fault { class, ambiguous: false, text: String::new() })
    }

    fn refused(count: usize) -> Result<Reply, Fault> {
        let one = |index| Refused { index, code: "ServiceUnavailableException".to_owned() };
        Ok(Reply { refused: (0..count).map(one).collect() })
    }

    #[test]
    fn each_stream_has_its_counts_and_what_fails_is_told_apart() {
        let (mut streams, now) = (ByStream::new(4), Instant::now());
        streams.answered("well", 10, &refused(0), now);
        streams.answered("part", 10, &refused(4), now);
        streams.answered("missing", 5, &fault(Class::Setup(Setup::Stream)), now);
        streams.answered("poison", 1, &fault(Class::Poison), now);
        streams.dead_lettered("poison");
        assert_eq!(streams.failing(now), 1);
        assert_eq!(
            streams.lines(),
            [
                "stream poison: accepted=0 not_accepted=1 dead_lettered=1",
                "stream missing: accepted=0 not_accepted=5 dead_lettered=0",
                "stream part: accepted=6 not_accepted=4 dead_lettered=0",
                "stream well: accepted=10 not_accepted=0 dead_lettered=0",
            ]
        );
        streams.answered("well", 1, &fault(Class::Service), now);
        assert_eq!(streams.failing(now), 2);
        // What nobody sends to any more fails no more; what is accepted does not.
        assert_eq!(streams.failing(now + FAILING), 0);
        streams.answered("missing", 5, &refused(0), now);
        streams.answered("well", 5, &refused(0), now);
        assert_eq!(streams.failing(now), 0);
    }

    #[test]
    fn names_beyond_the_bound_are_counted_together_and_lines_have_one_too() {
        let (mut streams, now) = (ByStream::new(64), Instant::now());
        for n in 0..10_000 {
            streams.answered(&format!("stream-{n}"), 1, &refused(0), now);
        }
        assert_eq!(streams.streams.len(), 65);
        let lines = streams.lines();
        assert_eq!(lines.len(), LINES + 1);
        assert_eq!(lines[0], format!("stream {OTHER_STREAMS}: accepted=9936 not_accepted=0 dead_lettered=0"));
        assert_eq!(lines[LINES], "45 more streams: accepted=45 not_accepted=0 dead_lettered=0");
    }
}
