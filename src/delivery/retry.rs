//! When to try again after a fault: exponential backoff, with jitter from a given source.

use std::time::Duration;

/// First and longest backoff.
pub type Backoff = (Duration, Duration);

/// For records that were refused one by one.
pub const RECORD: Backoff = (Duration::from_millis(50), Duration::from_secs(3));
/// For calls that failed whole.
pub const CALL: Backoff = (Duration::from_millis(100), Duration::from_secs(5));
/// While somebody has to fix something, and while it is not known whether a record or the stream is at fault.
pub const SETUP: Backoff = (Duration::from_millis(500), Duration::from_secs(10));
/// Between calls that search for a record that the service refuses.
pub const PROBE: Backoff = (Duration::from_millis(20), Duration::from_millis(500));

/// Full jitter: a random wait up to a bound that doubles with each attempt, counted from 1.
/// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
pub fn backoff(limits: Backoff, attempt: u32, random: &mut fastrand::Rng) -> Duration {
    bound(limits, attempt).mul_f64(random.f64())
}

/// The longest that [`backoff`] may be.
fn bound((first, longest): Backoff, attempt: u32) -> Duration {
    first.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(longest)
}

/// How often a batch has failed in a row, by kind: an attempt that failed for one reason says nothing about another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    kind: Option<Kind>,
    count: u32,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Records of a batch.
    Record,
    /// A call, for the service's reasons.
    Call,
    /// A call, because of something that somebody must fix.
    Setup,
    /// A call, because of what is in it.
    Poison,
}

impl Attempts {
    /// Counts a failure; returns how many of its kind there were in a row.
    pub fn failed(&mut self, kind: Kind) -> u32 {
        if self.kind != Some(kind) {
            *self = Attempts { kind: Some(kind), count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count
    }

    /// The same if they are of this kind, and none otherwise.
    pub fn of_kind(self, kind: Kind) -> Attempts {
        if self.kind == Some(kind) { self } else { Attempts::default() }
    }

    /// How many there were in a row of this kind.
    pub fn count_of(self, kind: Kind) -> u32 {
        self.of_kind(kind).count
    }

    /// Whether there were any.
    pub fn any(self) -> bool {
        self.count > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_longest() {
        let bounds: Vec<u128> = (1..9).map(|attempt| bound(CALL, attempt).as_millis()).collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(bound(CALL, u32::MAX), CALL.1);
        let mut random = fastrand::Rng::with_seed(1);
        assert!((1..100).all(|attempt| backoff(RECORD, attempt, &mut random) <= RECORD.1));
    }

    #[test]
    fn attempts_of_another_kind_begin_anew() {
        let mut attempts = Attempts::default();
        for expected in 1..20 {
            assert_eq!(attempts.failed(Kind::Call), expected);
        }
        assert_eq!(attempts.failed(Kind::Poison), 1);
        assert_eq!(attempts.failed(Kind::Call), 1);
    }
}
