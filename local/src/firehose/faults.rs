//! The faults that a server simulates, and the state that decides which request or record fails.

use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The faults of the endpoint. They combine; 0, empty and false mean "never". The JSON form has the same names, all of them
/// optional.
///
/// *Every Nth* counts over the server's life, and means the Nth, the 2Nth, … Durations that begin with a request
/// begin with the first one after the faults were set; a refusal without delay begins at once.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Every Nth record fails in the reply; the others of its batch are accepted.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub fail_every_record: u64,
    /// The code of a record that `fail_every_record` fails.
    #[arg(long, value_name = "CODE", value_enum, default_value_t)]
    pub record_error: RecordError,
    /// Every Nth request is refused as a whole.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub fail_every_request: u64,
    /// What `fail_every_request` answers: 500, 503, or STATUS:CODE.
    #[arg(long, value_name = "STATUS[:CODE]", default_value_t)]
    pub request_error: RequestError,
    /// The first N requests after the faults were set get ServiceUnavailableException (503).
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub fail_first_requests: u64,
    /// Out of reach: `reset` cuts each connection before a request is read, `refuse` closes the listener as well.
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub down: Down,
    /// How long after the first request `down` begins, in ms.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub down_after_ms: u64,
    /// How long `down` lasts, in ms; 0 means for ever.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub down_for_ms: u64,
    /// Delay of each reply, in ms.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub latency_ms: u64,
    /// The most random delay in addition, in ms.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub jitter_ms: u64,
    /// Records accepted per second; those over it fail one by one with "Slow down.", as the service's do.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub quota_records_per_second: u64,
    /// Bytes accepted per second, before base64; records over it fail one by one with "Slow down.".
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub quota_bytes_per_second: u64,
    /// Requests accepted per second; those over it get ServiceUnavailableException (503).
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub quota_requests_per_second: u64,
    /// Every Nth request's connection is reset before its body is read.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub cut_before_every: u64,
    /// Every Nth request's records are ACCEPTED and its connection closed without a reply.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub cut_after_every: u64,
    /// Every Nth PutRecordBatch reply contradicts itself, each time another way; its records are all accepted, or all refused.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub contradict: u64,
    /// Every Nth request waits for `stall_ms` before it is processed.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub stall_every: u64,
    /// How long a stall is, in ms; 0 is a minute.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub stall_ms: u64,
    /// A batch with a record that contains this text is refused as a whole with InvalidArgumentException.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub poison: String,
    /// Every request gets AccessDeniedException.
    #[arg(long)]
    pub access_denied: bool,
    /// How far the service's clock is ahead of this machine's, in seconds; signatures are checked by it.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, allow_negative_numbers = true)]
    pub clock_ahead_s: i64,
}

/// How a server is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Down {
    /// In reach.
    #[default]
    Off,
    /// Connections are accepted and reset before a request is read.
    Reset,
    /// The listener is closed, connecting is refused.
    Refuse,
}

/// Why a record fails within a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
pub enum RecordError {
    /// `ServiceUnavailableException`, "Slow down.": throttled.
    #[default]
    #[value(name = "ServiceUnavailableException")]
    #[serde(rename = "ServiceUnavailableException")]
    ServiceUnavailable,
    /// `InternalFailure`, "Internal service failure."
    #[value(name = "InternalFailure")]
    InternalFailure,
}

impl RecordError {
    /// Code and message, as a person reads them.
    pub(super) const fn text(self) -> &'static str {
        match self {
            RecordError::ServiceUnavailable => "ServiceUnavailableException, Slow down.",
            RecordError::InternalFailure => "InternalFailure, Internal service failure.",
        }
    }

    /// Its entry in `RequestResponses`.
    pub(super) const fn entry(self) -> &'static str {
        match self {
            RecordError::ServiceUnavailable => {
                r#"{"ErrorCode":"ServiceUnavailableException","ErrorMessage":"Slow down."}"#
            }
            RecordError::InternalFailure => {
                r#"{"ErrorCode":"InternalFailure","ErrorMessage":"Internal service failure."}"#
            }
        }
    }
}

/// An error for a whole request: an HTTP status and the service's code, written `STATUS` or `STATUS:CODE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestError {
    /// The HTTP status, 400 to 599.
    pub status: u16,
    /// The code, such as `InternalFailure`.
    pub code: String,
}

impl Default for RequestError {
    fn default() -> Self {
        RequestError { status: 500, code: "InternalFailure".to_owned() }
    }
}

impl FromStr for RequestError {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (status, code) = match text.split_once(':') {
            Some((status, code)) => (status, Some(code)),
            None => (text, None),
        };
        let status =
            status.parse::<u16>().ok().filter(|status| (400..600).contains(status)).ok_or_else(|| {
                format!("{text:?} is no error: give 500, 503, or STATUS:CODE as 400:ThrottlingException")
            })?;
        let code = match (code, status) {
            (Some(code), _) if !code.is_empty() && code.bytes().all(|b| b.is_ascii_alphanumeric()) => code,
            (Some(_), _) => return Err(format!("{text:?}: the code may have letters and digits only")),
            (None, 500) => "InternalFailure",
            (None, 503) => "ServiceUnavailableException",
            (None, 400) => "InvalidArgumentException",
            (None, _) => return Err(format!("{text:?} needs a code: {status}:CODE")),
        };
        Ok(RequestError { status, code: code.to_owned() })
    }
}

impl TryFrom<String> for RequestError {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<RequestError> for String {
    fn from(error: RequestError) -> String {
        error.to_string()
    }
}

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.status, self.code)
    }
}

/// How a reply contradicts itself, or the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contradiction {
    /// FailedPutCount is the number of records, but no entry has a code.
    FailedWithoutCodes,
    /// FailedPutCount is 0, but each entry has a code.
    CodesWithoutFailed,
    /// There is one entry fewer than there were records.
    FewerEntries,
}

impl Contradiction {
    /// The `turn`th contradiction, and whether its records are all accepted: each kind occurs with both.
    const fn of(turn: u64) -> (Contradiction, bool) {
        let way = match turn % 3 {
            0 => Contradiction::FailedWithoutCodes,
            1 => Contradiction::CodesWithoutFailed,
            _ => Contradiction::FewerEntries,
        };
        (way, turn.is_multiple_of(2))
    }
}

/// The active faults, and the state of their counters and buckets.
#[derive(Debug)]
pub(super) struct FaultState {
    faults: Faults,
    /// Requests and records over the server's life.
    requests: u64,
    records: u64,
    /// Batches examined so far, and replies that contradicted themselves.
    batches: u64,
    contradictions: u64,
    /// Requests since the faults were set.
    requests_since_set: u64,
    first_request: Option<Instant>,
    record_bucket: Bucket,
    byte_bucket: Bucket,
    request_bucket: Bucket,
}

/// The fault of a request, decided when its head has been read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fate {
    pub down: bool,
    pub cut_before: bool,
    pub cut_after: bool,
    pub delay: Duration,
    pub stall: Duration,
    pub unavailable: bool,
    pub over_quota: bool,
    pub error: Option<RequestError>,
    pub access_denied: bool,
    pub poison: String,
}

/// The fault of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordFate {
    Accepted,
    Failed(RecordError),
    Throttled,
    /// Rejected in a batch whose reply contradicts itself.
    Contradicted,
}

impl FaultState {
    pub fn new(faults: Faults) -> Self {
        let mut state = FaultState {
            faults: Faults::default(),
            requests: 0,
            records: 0,
            batches: 0,
            contradictions: 0,
            requests_since_set: 0,
            first_request: None,
            record_bucket: Bucket::default(),
            byte_bucket: Bucket::default(),
            request_bucket: Bucket::default(),
        };
        state.set(faults);
        state
    }

    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Replaces the faults. The counters of "every Nth" continue, and the buckets start full.
    pub fn set(&mut self, faults: Faults) {
        self.record_bucket = Bucket::new(faults.quota_records_per_second);
        self.byte_bucket = Bucket::new(faults.quota_bytes_per_second);
        self.request_bucket = Bucket::new(faults.quota_requests_per_second);
        self.requests_since_set = 0;
        // While connections are refused no request arrives, so the time starts now.
        self.first_request = (faults.down == Down::Refuse && faults.down_after_ms == 0).then(Instant::now);
        self.faults = faults;
    }

    /// Whether the server is down at `now`, and how.
    pub fn down(&self, now: Instant) -> Down {
        let Faults { down, down_after_ms: after, down_for_ms: lasts, .. } = self.faults;
        if down == Down::Off || (after == 0 && lasts == 0) {
            return down;
        }
        let since = match self.first_request {
            Some(first) => now.saturating_duration_since(first),
            // The first request starts the delay, so the server must be up until then.
            None if after > 0 => return Down::Off,
            None => return down,
        };
        let begin = Duration::from_millis(after);
        let end = begin.saturating_add(Duration::from_millis(lasts));
        if since >= begin && (lasts == 0 || since < end) { down } else { Down::Off }
    }

    /// A connection attempt starts the durations, even while the server is down.
    pub fn attempt(&mut self, now: Instant) {
        self.first_request.get_or_insert(now);
    }

    /// Counts a request and returns its fault.
    pub fn request(&mut self, now: Instant) -> Fate {
        self.attempt(now);
        let down = self.down(now) != Down::Off;
        if !down {
            self.requests += 1;
            self.requests_since_set += 1;
        }
        let number = self.requests;
        let every = |n: u64| n > 0 && !down && number.is_multiple_of(n);
        let faults = &self.faults;
        let jitter = if faults.jitter_ms > 0 { fastrand::u64(0..=faults.jitter_ms) } else { 0 };
        Fate {
            down,
            cut_before: every(faults.cut_before_every),
            cut_after: every(faults.cut_after_every),
            delay: Duration::from_millis(faults.latency_ms.saturating_add(jitter)),
            stall: match faults.stall_ms {
                _ if !every(faults.stall_every) => Duration::ZERO,
                0 => Duration::from_secs(60),
                ms => Duration::from_millis(ms),
            },
            unavailable: self.requests_since_set <= faults.fail_first_requests,
            over_quota: !self.request_bucket.take(1, now),
            error: every(faults.fail_every_request).then(|| faults.request_error.clone()),
            access_denied: faults.access_denied,
            poison: faults.poison.clone(),
        }
    }

    /// Counts a batch; if its reply contradicts itself, returns how, and whether its records are accepted.
    pub fn batch(&mut self) -> Option<(Contradiction, bool)> {
        self.batches += 1;
        let every = self.faults.contradict;
        if every == 0 || !self.batches.is_multiple_of(every) {
            return None;
        }
        self.contradictions += 1;
        Some(Contradiction::of(self.contradictions - 1))
    }

    /// Counts a record of `len` bytes and returns its fault.
    pub fn record(&mut self, len: usize, now: Instant) -> RecordFate {
        self.records += 1;
        let every = self.faults.fail_every_record;
        if every > 0 && self.records.is_multiple_of(every) {
            return RecordFate::Failed(self.faults.record_error);
        }
        let len = len as u64;
        // Check both before using either: a record that fails on bytes does not use up the other quota.
        if self.record_bucket.has(1, now) && self.byte_bucket.has(len, now) {
            self.record_bucket.take(1, now);
            self.byte_bucket.take(len, now);
            RecordFate::Accepted
        } else {
            RecordFate::Throttled
        }
    }
}

/// A token bucket that holds one second's worth. A rate of 0 means no limit.
#[derive(Debug, Default)]
struct Bucket {
    rate: f64,
    tokens: f64,
    filled: Option<Instant>,
}

impl Bucket {
    fn new(rate: u64) -> Self {
        Bucket { rate: rate as f64, tokens: rate as f64, filled: None }
    }

    /// Whether `n` tokens are available. A full bucket also grants more than one second's worth, which could
    /// otherwise never be granted.
    fn has(&mut self, n: u64, now: Instant) -> bool {
        if self.rate == 0.0 {
            return true;
        }
        if let Some(filled) = self.filled {
            let since = now.saturating_duration_since(filled).as_secs_f64();
            self.tokens = (self.tokens + since * self.rate).min(self.rate);
        }
        self.filled = Some(now);
        self.tokens >= (n as f64).min(self.rate)
    }

    fn take(&mut self, n: u64, now: Instant) -> bool {
        let has = self.has(n, now);
        if has && self.rate > 0.0 {
            self.tokens -= n as f64;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_errors_are_read_and_written() {
        for (text, status, code) in [
            ("500", 500, "InternalFailure"),
            ("503", 503, "ServiceUnavailableException"),
            ("400:ThrottlingException", 400, "ThrottlingException"),
        ] {
            let error: RequestError = text.parse().unwrap();
            assert_eq!((error.status, error.code.as_str()), (status, code));
            assert_eq!(error.to_string().parse::<RequestError>().unwrap(), error);
        }
        for text in ["", "200", "500:", "500:a b", "418", "x"] {
            assert!(text.parse::<RequestError>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_bucket_grants_its_rate_and_no_more() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100);
        let taken =
            |bucket: &mut Bucket, ms| (0..1000).filter(|_| bucket.take(1, start + Duration::from_millis(ms))).count();
        assert_eq!(taken(&mut bucket, 0), 100);
        assert_eq!(taken(&mut bucket, 500), 50);
        assert_eq!(taken(&mut bucket, 10_000), 100);
    }

    #[test]
    fn a_record_larger_than_the_quota_is_granted_by_a_full_bucket() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10);
        assert!(bucket.take(25, start));
        assert!(!bucket.take(1, start + Duration::from_secs(1)));
        assert!(bucket.take(1, start + Duration::from_secs(2)));
    }

    #[test]
    fn down_has_a_beginning_and_an_end() {
        let faults = Faults { down: Down::Reset, down_after_ms: 100, down_for_ms: 200, ..Faults::default() };
        let mut state = FaultState::new(faults);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(state.down(at(500)), Down::Off);
        assert!(!state.request(start).down);
        assert_eq!(state.down(at(99)), Down::Off);
        assert_eq!(state.down(at(100)), Down::Reset);
        assert_eq!(state.down(at(299)), Down::Reset);
        assert_eq!(state.down(at(300)), Down::Off);
    }

    #[test]
    fn a_refusal_that_starts_immediately_ends_without_any_request() {
        let faults = Faults { down: Down::Refuse, down_for_ms: 200, ..Faults::default() };
        let state = FaultState::new(faults);
        let now = Instant::now();
        assert_eq!(state.down(now), Down::Refuse);
        assert_eq!(state.down(now + Duration::from_millis(200)), Down::Off);
    }

    #[test]
    fn each_contradiction_comes_with_records_accepted_and_with_records_refused() {
        let mut state = FaultState::new(Faults { contradict: 3, ..Faults::default() });
        let met: Vec<_> = (0..18).map(|_| state.batch()).collect();
        assert!(met.iter().enumerate().all(|(n, met)| met.is_some() == (n % 3 == 2)), "{met:?}");
        let met: Vec<_> = met.into_iter().flatten().collect();
        for way in [Contradiction::FailedWithoutCodes, Contradiction::CodesWithoutFailed, Contradiction::FewerEntries] {
            assert!(met.contains(&(way, true)) && met.contains(&(way, false)), "{met:?}");
        }
    }

    #[test]
    fn faults_are_read_from_json_with_defaults_and_unknown_names_are_reported() {
        let faults: Faults = serde_json::from_str(r#"{"fail_every_record":3,"request_error":"503"}"#).unwrap();
        assert_eq!(faults.fail_every_record, 3);
        assert_eq!(faults.request_error.code, "ServiceUnavailableException");
        let error = serde_json::from_str::<Faults>(r#"{"fail_evry_record":3}"#).unwrap_err().to_string();
        assert!(error.contains("fail_evry_record"), "{error}");
    }
}
