//! The page of the local bench and its data: the last records and calls, and counts for each second.
//!
//! A page gets everything as one stream of server-sent events: the first has the data kept so far, each later one
//! what is new. The page loads nothing from other sites, and without `--ui` no data is kept.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use serde::Serialize;
use tokio::time::{Interval, MissedTickBehavior};

use super::faults::{Faults, RecordError, RecordFate};
use super::output::compression;
use super::request::Records;
use super::service::Service;
use super::stats::{BILLING_INCREMENT_BYTES, Stats};

/// The page's files, by path.
pub(super) fn file(path: &str) -> Option<(&'static str, &'static str)> {
    Some(match path {
        "/_kubehose/" => ("text/html; charset=utf-8", include_str!("bench/page.html")),
        "/_kubehose/page.css" => ("text/css; charset=utf-8", include_str!("bench/page.css")),
        "/_kubehose/page.js" => ("text/javascript; charset=utf-8", include_str!("bench/page.js")),
        _ => return None,
    })
}

/// What a browser may load for the page: only its own files.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whether a `Host` header names this machine or one in the local network. A foreign site could resolve its own name
/// to this address (DNS rebinding) to read the records through a browser; such a name has a dot, local names have
/// none.
fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(ipv6) => ipv6.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.parse::<IpAddr>().is_ok() || name.ends_with(".localhost") || (!name.is_empty() && !name.contains('.'))
}

/// Why a request to the administration is refused: another site's page may be behind it. The request must name this
/// machine, and its `Origin`, which only browsers send, must be this page's.
pub(super) fn foreign(head: &hyper::http::request::Parts) -> Option<String> {
    let header = |name| head.headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default());
    // HTTP/2 has the name in the URI, as HTTP/1.1 may.
    let names: Vec<&str> = head.uri.authority().map(|name| name.as_str()).into_iter().chain(header("host")).collect();
    if names.is_empty() || !names.iter().all(|name| is_local_name(name)) {
        let name = names.first().copied().unwrap_or_default();
        return Some(format!(
            "the administration is not answered under the name {name:?}: use localhost or an address"
        ));
    }
    let same = |origin: &str| {
        let site = origin.split_once("://").map(|(_, site)| site);
        site.is_some_and(|site| names.iter().all(|name| name.eq_ignore_ascii_case(site)))
    };
    let origin = header("origin").find(|origin| !same(origin))?;
    Some(format!("the administration is not answered to a page of {origin:?}"))
}

/// Records and calls kept for a page that opens later.
const RECORDS_KEPT: usize = 500;
const FAILED_KEPT: usize = 200;
const CALLS_KEPT: usize = 200;
/// Seconds shown in the plot.
const SECONDS_KEPT: usize = 300;
/// How many bytes of a record are shown.
const TEXT_BYTES: usize = 16 * 1024;
/// The maximum of records in one event; under load the page shows the newest.
const RECORDS_PER_EVENT: u64 = 60;
const TICK: Duration = Duration::from_millis(250);

/// The data that the page shows.
#[derive(Debug, Default)]
pub(super) struct Bench(Mutex<Shown>);

#[derive(Debug, Default)]
struct Shown {
    records: Recent<Record>,
    /// Records that were refused; one that fails again after a resend is listed again.
    failed: Recent<Record>,
    calls: Recent<Call>,
    seconds: VecDeque<Second>,
}

/// The last items of a sequence, and the number of earlier ones.
#[derive(Debug)]
struct Recent<T> {
    items: VecDeque<T>,
    total: u64,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Recent { items: VecDeque::new(), total: 0 }
    }
}

impl<T> Recent<T> {
    fn push(&mut self, item: T, keep: usize) {
        if self.items.len() == keep {
            self.items.pop_front();
        }
        self.items.push_back(item);
        self.total += 1;
    }

    /// The items after the first `seen`, at most `limit`, the newest last.
    fn since(&self, seen: u64, limit: u64) -> impl Iterator<Item = &T> {
        let new = self.total.saturating_sub(seen).min(limit);
        let new = usize::try_from(new).unwrap_or(usize::MAX).min(self.items.len());
        self.items.range(self.items.len() - new..)
    }
}

/// A record of a call.
#[derive(Debug, Clone, Serialize)]
struct Record {
    id: u64,
    call: u64,
    at_ms: u64,
    stream: String,
    bytes: u64,
    billed: u64,
    /// Only the beginning of a long record.
    text: String,
    whole: bool,
    /// Why it was refused.
    reason: Option<String>,
}

impl Record {
    fn new(id: u64, call: u64, at_ms: u64, stream: &str, record: &[u8], reason: Option<String>) -> Record {
        let bytes = record.len() as u64;
        let compressed = compression(record);
        let text = match compressed {
            Some(how) => format!("(compressed with {how})"),
            None => String::from_utf8_lossy(&record[..record.len().min(TEXT_BYTES)]).into_owned(),
        };
        let billed = if reason.is_none() { billed(bytes) } else { 0 };
        let whole = compressed.is_some() || record.len() <= TEXT_BYTES;
        Record { id, call, at_ms, stream: stream.to_owned(), bytes, billed, text, whole, reason }
    }
}

/// One finished call.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Call {
    pub id: u64,
    pub at_ms: u64,
    pub stream: String,
    /// `200`, the error's code, or how the connection was cut.
    pub outcome: String,
    pub records: u64,
    pub failed: u64,
    pub bytes: u64,
    pub billed: u64,
}

/// The counts of one second.
#[derive(Debug, Clone, Default, Serialize)]
struct Second {
    at: u64,
    accepted: u64,
    failed: u64,
    bytes: u64,
    calls: u64,
    refused: u64,
}

impl Bench {
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the records of a call, both accepted and failed.
    pub fn records(&self, call: u64, records: &Records, fates: &[RecordFate]) {
        let at_ms = now_ms();
        let mut shown = self.shown();
        for (record, fate) in records.iter().zip(fates) {
            let reason = reason(*fate);
            let (list, keep) = match reason {
                None => (&mut shown.records, RECORDS_KEPT),
                Some(_) => (&mut shown.failed, FAILED_KEPT),
            };
            let id = list.total;
            list.push(Record::new(id, call, at_ms, &records.stream, record, reason), keep);
        }
    }

    /// Keeps the records of a call that was rejected as a whole.
    pub fn refused(&self, call: u64, records: &Records, code: &str) {
        let at_ms = now_ms();
        let mut shown = self.shown();
        for record in records.iter() {
            let id = shown.failed.total;
            let reason = Some(format!("the whole call failed: {code}"));
            shown.failed.push(Record::new(id, call, at_ms, &records.stream, record, reason), FAILED_KEPT);
        }
    }

    /// Keeps a finished call.
    pub fn call(&self, mut call: Call) {
        call.at_ms = now_ms();
        let at = call.at_ms / 1000;
        let refused = u64::from(call.outcome != "200");
        let accepted = call.records - call.failed;
        let mut shown = self.shown();
        if shown.seconds.back().is_none_or(|last| last.at < at) {
            if shown.seconds.len() == SECONDS_KEPT {
                shown.seconds.pop_front();
            }
            shown.seconds.push_back(Second { at, ..Second::default() });
        }
        if let Some(second) = shown.seconds.back_mut() {
            second.accepted += accepted;
            second.failed += call.failed;
            second.bytes += call.bytes;
            second.calls += 1;
            second.refused += refused;
        }
        shown.calls.push(call, CALLS_KEPT);
    }
}

/// Why a record was not accepted, as in its entry of the reply.
fn reason(fate: RecordFate) -> Option<String> {
    match fate {
        RecordFate::Accepted => None,
        RecordFate::Failed(error) => Some(error.text().to_owned()),
        RecordFate::Throttled => Some(format!("{} (over the quota)", RecordError::ServiceUnavailable.text())),
        RecordFate::Contradicted => Some("not accepted, in a reply that contradicts itself".to_owned()),
    }
}

/// What the service bills for a record.
pub(super) fn billed(bytes: u64) -> u64 {
    bytes.div_ceil(BILLING_INCREMENT_BYTES) * BILLING_INCREMENT_BYTES
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The events for one page: a reply body that does not end.
pub(super) struct Events {
    service: Arc<Service>,
    tick: Interval,
    records_seen: u64,
    failed_seen: u64,
    calls_seen: u64,
    faults: Option<Faults>,
}

#[derive(Serialize)]
struct Event<'a> {
    now_ms: u64,
    stats: Stats,
    records_total: u64,
    records: Vec<&'a Record>,
    failed_total: u64,
    failed: Vec<&'a Record>,
    calls: Vec<&'a Call>,
    seconds: Vec<&'a Second>,
    /// Sent only if they differ from the last event's.
    faults: Option<Faults>,
}

impl Events {
    pub fn new(service: Arc<Service>) -> Self {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Events { service, tick, records_seen: 0, failed_seen: 0, calls_seen: 0, faults: None }
    }

    fn next(&mut self, bench: &Bench) -> Result<Bytes, serde_json::Error> {
        let faults = self.service.faults();
        let changed = self.faults.as_ref() != Some(&faults);
        let stats = self.service.stats();
        let first = self.faults.is_none();
        let shown = bench.shown();
        let most = if first { u64::MAX } else { RECORDS_PER_EVENT };
        let event = Event {
            now_ms: now_ms(),
            stats,
            records_total: shown.records.total,
            records: shown.records.since(self.records_seen, most).collect(),
            failed_total: shown.failed.total,
            failed: shown.failed.since(self.failed_seen, most).collect(),
            calls: shown.calls.since(self.calls_seen, u64::MAX).collect(),
            // The last two seconds may have changed since they were sent.
            seconds: shown.seconds.iter().rev().take(if first { SECONDS_KEPT } else { 2 }).rev().collect(),
            faults: changed.then(|| faults.clone()),
        };
        let mut text = b"data: ".to_vec();
        serde_json::to_writer(&mut text, &event)?;
        text.extend_from_slice(b"\n\n");
        (self.records_seen, self.failed_seen) = (shown.records.total, shown.failed.total);
        self.calls_seen = shown.calls.total;
        drop(shown);
        self.faults = Some(faults);
        Ok(text.into())
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        ready!(self.tick.poll_tick(cx));
        let service = Arc::clone(&self.service);
        let next = service.bench.as_ref().and_then(|bench| self.next(bench).ok());
        Poll::Ready(next.map(|data| Ok(Frame::data(data))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_are_distinguished_from_foreign_ones() {
        for name in ["localhost", "localhost:4574", "127.0.0.1:4574", "[::1]:4574", "bench:80", "a.localhost:1"] {
            assert!(is_local_name(name), "{name}");
        }
        for name in ["", "evil.example", "evil.example:4574", "localhost.evil.example", ":80"] {
            assert!(!is_local_name(name), "{name}");
        }
    }

    #[test]
    fn the_newest_items_are_kept_and_sent_once() {
        let mut recent = Recent::default();
        (0..10).for_each(|n| recent.push(n, 4));
        assert_eq!(recent.since(0, 99).copied().collect::<Vec<_>>(), [6, 7, 8, 9]);
        assert_eq!(recent.since(8, 99).copied().collect::<Vec<_>>(), [8, 9]);
        assert_eq!(recent.since(0, 1).copied().collect::<Vec<_>>(), [9]);
        assert_eq!(recent.since(10, 99).count(), 0);
    }
}
