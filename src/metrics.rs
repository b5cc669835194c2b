//! The counts of one output, in one place.

use crate::firehose::{Class, Setup};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Firehose bills each record as a multiple of this many bytes.
/// <https://aws.amazon.com/firehose/pricing/>
pub const BILLING_STEP: u64 = 5 * 1024;

macro_rules! counts {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What an output has done so far; any thread may count.
        #[derive(Debug, Default)]
        pub struct Counts {
            $($(#[doc = $doc])+ pub $name: Count,)+
            errors: [Count; CLASSES.len()],
        }

        /// The counts at one moment.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Snapshot {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Calls that came to nothing, by [`Class::name`].
            pub errors: Vec<(&'static str, u64)>,
        }

        impl Counts {
            /// The counts now.
            pub fn snapshot(&self) -> Snapshot {
                Snapshot {
                    $($name: self.$name.get(),)+
                    errors: CLASSES.iter().zip(&self.errors).map(|(class, count)| (class.name(), count.get())).collect(),
                }
            }
        }
    };
}

counts! {
    /// Events decoded.
    events,
    /// Stretches of chunks that were no event.
    undecodable,
    /// Records that Firehose has taken.
    records_accepted,
    /// Records sent once more, after they or their call were refused.
    records_resent,
    /// Records sent once more although the first call may have been taken.
    records_possibly_duplicate,
    /// Records put aside: too large, or refused for good, or left over at the exit.
    records_put_aside,
    /// Of those, the ones that no dead-letter file holds.
    records_dropped,
    /// Bytes of accepted records, before base64.
    bytes,
    /// Bytes that Firehose bills for them.
    billed_bytes,
    /// PutRecordBatch calls that were answered with at least one record taken.
    batches,
    /// Calls and records refused because there were too many.
    throttled,
    /// Chunks refused with RETRY because `max_buffer` was full.
    chunks_refused,
    /// Values left out because `replace_dots` made two keys one.
    key_collisions,
    /// Calls in flight now.
    in_flight,
    /// Bytes held in memory now, encoded.
    held,
}

const CLASSES: [Class; 8] = [
    Class::Throttled,
    Class::Service,
    Class::Poison,
    Class::Setup(Setup::Refused),
    Class::Setup(Setup::Denied),
    Class::Setup(Setup::Stream),
    Class::Setup(Setup::Unreachable),
    Class::Setup(Setup::Other),
];

impl Counts {
    /// Counts a call that came to nothing.
    pub fn error(&self, class: Class) {
        if let Some(at) = CLASSES.iter().position(|known| known.name() == class.name())
            && let Some(count) = self.errors.get(at)
        {
            count.add(1);
        }
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

    /// Takes `n` away, of a count that goes up and down.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What Firehose bills for a record of this size, in bytes.
pub fn billed(bytes: u64) -> u64 {
    bytes.div_ceil(BILLING_STEP).max(1) * BILLING_STEP
}

impl fmt::Display for Snapshot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "events={} accepted={} resent={} possibly_duplicate={} put_aside={} dropped={} bytes={} billed_bytes={} \
             batches={} throttled={} chunks_refused={} undecodable={} key_collisions={} held={}",
            self.events,
            self.records_accepted,
            self.records_resent,
            self.records_possibly_duplicate,
            self.records_put_aside,
            self.records_dropped,
            self.bytes,
            self.billed_bytes,
            self.batches,
            self.throttled,
            self.chunks_refused,
            self.undecodable,
            self.key_collisions,
            self.held,
        )?;
        for (class, count) in self.errors.iter().filter(|(_, count)| *count > 0) {
            write!(out, " errors.{class}={count}")?;
        }
        Ok(())
    }
}
