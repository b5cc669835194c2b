//! How many calls may be in flight, and when the next one may be made, from the service's answers and from quotas.

use std::time::{Duration, Instant};

/// The most calls in flight that `concurrency auto` tries.
pub const MOST: usize = 64;

/// Calls in flight at the start of `concurrency auto`. With 64 a backlog at 300 ms a call was gone 0.3 s earlier, but a small quota would refuse twice as many.
const START: f64 = 32.0;

/// The limit is not lowered more often than this: replies to calls that were made before the last time say nothing new.
const LOWER_EVERY: Duration = Duration::from_millis(200);

/// The option `concurrency`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    /// Adapts by itself, up to [`MOST`].
    Auto,
    /// A fixed number.
    Fixed(usize),
}

/// How many calls may be in flight: one more for each success while something waits, until the first throttling; then one more for each
/// round of successes, and half of them when throttled (slow start, then additive increase and multiplicative decrease, as TCP's).
#[derive(Debug)]
pub struct Limit {
    most: f64,
    limit: f64,
    /// Whether nothing has been throttled yet.
    slow_start: bool,
    lowered: Option<Instant>,
}

impl Limit {
    /// For the option.
    pub fn new(option: Concurrency) -> Limit {
        let (most, limit) = match option {
            Concurrency::Auto => (MOST as f64, START),
            Concurrency::Fixed(most) => (most as f64, most as f64),
        };
        Limit { most, limit, slow_start: true, lowered: None }
    }

    /// The limit now, at least 1.
    pub fn calls(&self) -> usize {
        self.limit as usize
    }

    /// Whether calls have been throttled.
    pub fn is_throttled(&self) -> bool {
        !self.slow_start
    }

    /// A call was accepted; `in_demand` if as many were in flight as may be.
    pub fn accepted(&mut self, in_demand: bool) {
        if in_demand {
            self.limit += if self.slow_start { 1.0 } else { 1.0 / self.limit };
            self.limit = self.limit.min(self.most);
        }
    }

    /// A call, or records of it, were throttled.
    pub fn throttled(&mut self, now: Instant) {
        self.slow_start = false;
        if self.lowered.is_none_or(|lowered| now.saturating_duration_since(lowered) >= LOWER_EVERY) {
            self.lowered = Some(now);
            self.limit = (self.limit / 2.0).max(1.0);
        }
    }
}

/// Keeps under a quota: the next call may be made once the last one's share of a second is over.
#[derive(Debug)]
pub struct Quota {
    per_second: Option<f64>,
    ready: Option<Instant>,
}

impl Quota {
    /// So many of something a second, or any number.
    pub fn new(per_second: Option<u64>) -> Quota {
        Quota { per_second: per_second.map(|rate| rate as f64), ready: None }
    }

    /// Uses `amount` of it.
    pub fn spend(&mut self, amount: u64, now: Instant) {
        if let Some(rate) = self.per_second {
            let from = self.ready.map_or(now, |ready| ready.max(now));
            self.ready = Some(from + Duration::from_secs_f64(amount as f64 / rate));
        }
    }

    /// When the next call may be made.
    pub fn ready(&self) -> Option<Instant> {
        self.ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_doubles_each_round_until_the_first_throttling_and_then_creeps() {
        let mut limit = Limit::new(Concurrency::Auto);
        let start = limit.calls();
        for _ in 0..start {
            limit.accepted(true);
        }
        assert_eq!(limit.calls(), 2 * start);
        for _ in 0..100 {
            limit.accepted(true);
        }
        assert_eq!(limit.calls(), MOST);
        let now = Instant::now();
        limit.throttled(now);
        limit.throttled(now + Duration::from_millis(1));
        assert_eq!(limit.calls(), 32);
        for _ in 0..33 {
            limit.accepted(true);
        }
        assert_eq!(limit.calls(), 33);
        limit.accepted(false);
        for n in 1..20 {
            limit.throttled(now + n * LOWER_EVERY);
        }
        assert_eq!(limit.calls(), 1);
    }

    #[test]
    fn a_number_pins_it_from_above() {
        let mut limit = Limit::new(Concurrency::Fixed(8));
        limit.accepted(true);
        assert_eq!(limit.calls(), 8);
    }
}
