//! Answers requests: the service's operations, and the administration under `/_kubehose/`.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::{Method, Request};
use ring::digest;
use xxhash_rust::xxh3::xxh3_64;

use super::bench::{self, Bench, Call, Events};
use super::connection::Breaker;
use super::faults::{Contradiction, Down, Fate, FaultState, Faults, RecordError, RecordFate};
use super::options::{AccessKey, Options};
use super::output::{Output, needs_hashes};
use super::reply::{self, Reply, ServiceError};
use super::request::{ACCOUNT, MAX_BODY_BYTES, Records, Refusal, Rules};
use super::signature;
use super::stats::{BILLING_INCREMENT_BYTES, Counters, Stats, StreamStats};

/// The state that all connections of a server share.
pub(super) struct Service {
    options: Options,
    pub counters: Counters,
    faults: Mutex<FaultState>,
    output: Mutex<Output>,
    keys: RwLock<Vec<AccessKey>>,
    /// Buffers of finished requests, for reuse.
    buffers: Mutex<Vec<Buffers>>,
    started: Instant,
    /// Notified when the faults change, so that the listener opens or closes.
    pub faults_changed: tokio::sync::Notify,
    output_errors: AtomicU64,
    /// The page's data, if the page is enabled.
    pub bench: Option<Bench>,
    calls: AtomicU64,
}

#[derive(Default)]
struct Buffers {
    /// The number of the call that uses these buffers.
    call: u64,
    body: Vec<u8>,
    records: Records,
    fates: Vec<RecordFate>,
    hashes: Vec<u64>,
}

/// The supported operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    PutRecordBatch,
    PutRecord,
    DescribeDeliveryStream,
    ListDeliveryStreams,
}

impl Operation {
    fn of(request: &hyper::http::request::Parts) -> Result<Self, ServiceError> {
        let target = request.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
        match target.strip_prefix("Firehose_20150804.") {
            Some("PutRecordBatch") => Ok(Operation::PutRecordBatch),
            Some("PutRecord") => Ok(Operation::PutRecord),
            Some("DescribeDeliveryStream") => Ok(Operation::DescribeDeliveryStream),
            Some("ListDeliveryStreams") => Ok(Operation::ListDeliveryStreams),
            _ => Err(ServiceError::bad(
                "UnknownOperationException",
                format!("{target:?} is not an operation of this endpoint"),
            )),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Operation::PutRecordBatch => "PutRecordBatch",
            Operation::PutRecord => "PutRecord",
            Operation::DescribeDeliveryStream => "DescribeDeliveryStream",
            Operation::ListDeliveryStreams => "ListDeliveryStreams",
        }
    }
}

impl Service {
    pub fn new(options: Options) -> io::Result<Self> {
        let output = Output::open(options.keep, options.output.as_deref())?;
        Ok(Service {
            counters: Counters::default(),
            faults: Mutex::new(FaultState::new(options.faults.clone())),
            output: Mutex::new(output),
            keys: RwLock::new(options.access_keys.clone()),
            buffers: Mutex::default(),
            started: Instant::now(),
            faults_changed: tokio::sync::Notify::new(),
            output_errors: AtomicU64::new(0),
            bench: options.ui.then(Bench::default),
            calls: AtomicU64::new(0),
            options,
        })
    }

    /// A snapshot of the counts.
    pub fn stats(&self) -> Stats {
        let uptime_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Stats { uptime_ms, ..self.counters.snapshot() }
    }

    pub fn faults(&self) -> Faults {
        self.fault_state().faults().clone()
    }

    pub fn set_faults(&self, faults: Faults) {
        self.fault_state().set(faults);
        self.faults_changed.notify_one();
    }

    pub fn set_access_keys(&self, keys: Vec<AccessKey>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    pub fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether and how the server is down; `attempt` counts this as a connection attempt.
    pub fn down(&self, attempt: bool) -> Down {
        let now = Instant::now();
        let mut faults = self.fault_state();
        let down = faults.down(now);
        if attempt && down != Down::Off {
            faults.attempt(now);
        }
        down
    }

    fn fault_state(&self) -> MutexGuard<'_, FaultState> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request. `breaker` breaks its connection, and then the reply does not matter.
    pub async fn answer(self: &Arc<Self>, request: Request<Incoming>, breaker: &Breaker) -> Reply {
        if request.uri().path().starts_with("/_kubehose/") {
            return self.administrate(request).await;
        }
        let _in_flight = self.counters.begin();
        let fate = self.fault_state().request(Instant::now());
        if fate.down {
            self.counters.fault("down");
            breaker.reset();
            return std::future::pending().await;
        }
        self.counters.lock().stats.requests += 1;
        if fate.cut_before {
            self.counters.fault("cut_before");
            self.show("cut before it was read", None);
            breaker.reset();
            return std::future::pending().await;
        }
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let reply = self.serve(request, &fate, &mut buffers, breaker).await;
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(buffers);
        reply
    }

    async fn serve(&self, request: Request<Incoming>, fate: &Fate, buffers: &mut Buffers, breaker: &Breaker) -> Reply {
        buffers.call = self.calls.fetch_add(1, Ordering::Relaxed);
        buffers.fates.clear();
        let (head, body) = request.into_parts();
        let read = read_body(body, &mut buffers.body).await;
        {
            let mut counts = self.counters.lock();
            counts.stats.bytes_encoded += buffers.body.len() as u64;
            counts.stats.body_bytes_max = counts.stats.body_bytes_max.max(buffers.body.len() as u64);
        }
        if !fate.stall.is_zero() {
            self.counters.fault("stall");
            tokio::time::sleep(fate.stall).await;
        }
        if !fate.delay.is_zero() {
            tokio::time::sleep(fate.delay).await;
        }
        let answer = match read {
            Ok(payload) => self.perform(&head, payload.as_ref(), fate, buffers),
            Err(ReadError::TooLarge) => Err(Refusal {
                error: ServiceError {
                    status: 413,
                    code: "RequestEntityTooLargeException".to_owned(),
                    message: format!("The request body is larger than {MAX_BODY_BYTES} bytes"),
                },
                over_limit: true,
            }),
            Err(ReadError::Broken(error)) => {
                Err(ServiceError::bad("SerializationException", format!("the request body ended early: {error}"))
                    .into())
            }
        };
        let accepted = buffers.fates.iter().filter(|fate| **fate == RecordFate::Accepted).count() as u64;
        if answer.is_ok() && fate.cut_after {
            self.counters.lock().stats.records_accepted_then_cut += accepted;
            self.counters.fault("cut_after");
            self.show("cut after it was accepted", Some(buffers));
            breaker.close();
            return std::future::pending().await;
        }
        match &answer {
            Ok(_) if buffers.fates.is_empty() => {}
            Ok(_) => self.show("200", Some(buffers)),
            Err(refusal) => {
                self.show(&refusal.error.code, Some(buffers));
                self.refused(&refusal.error.code, &head, buffers);
            }
        }
        let reply = answer.unwrap_or_else(|refusal| {
            let mut counts = self.counters.lock();
            counts.stats.limit_violations += u64::from(refusal.over_limit);
            *counts.stats.errors.entry(refusal.error.code.clone()).or_default() += 1;
            reply::error(&refusal.error)
        });
        *self.counters.lock().stats.statuses.entry(reply.status().as_u16()).or_default() += 1;
        reply::dated(reply, self.now())
    }

    /// The simulated service's time.
    fn now(&self) -> SystemTime {
        let ahead = self.fault_state().faults().clock_ahead_s;
        let apart = Duration::from_secs(ahead.unsigned_abs());
        if ahead < 0 { SystemTime::now() - apart } else { SystemTime::now() + apart }
    }

    /// Shows a call that ended with `outcome` on the page. Its records count only if the call got as far as deciding
    /// their outcomes.
    fn show(&self, outcome: &str, buffers: Option<&Buffers>) {
        let Some(bench) = &self.bench else { return };
        let mut call = Call { outcome: outcome.to_owned(), ..Call::default() };
        match buffers {
            None => call.id = self.calls.fetch_add(1, Ordering::Relaxed),
            Some(Buffers { call: id, records, fates, .. }) => {
                call.id = *id;
                if !fates.is_empty() {
                    call.stream.clone_from(&records.stream);
                }
                for (span, fate) in records.spans.iter().zip(fates) {
                    call.records += 1;
                    match fate {
                        RecordFate::Accepted => {
                            call.bytes += span.len() as u64;
                            call.billed += bench::billed(span.len() as u64);
                        }
                        _ => call.failed += 1,
                    }
                }
            }
        }
        bench.call(call);
    }

    /// Counts a call that was rejected under its stream, and lists its records on the page, if they can be decoded.
    fn refused(&self, code: &str, head: &hyper::http::request::Parts, buffers: &mut Buffers) {
        // Records whose outcomes were decided are counted and listed with those.
        if !buffers.fates.is_empty() {
            return;
        }
        let rules = Rules { streams: &[], validation_error: &self.options.validation_error };
        let Buffers { call, body, records, .. } = buffers;
        let read = match Operation::of(head) {
            Ok(Operation::PutRecordBatch) => rules.put_record_batch(body, records),
            Ok(Operation::PutRecord) => rules.put_record(body, records),
            _ => return,
        };
        if read.is_ok() {
            self.counters.lock().stats.stream(&records.stream).calls_refused += 1;
            if let Some(bench) = &self.bench {
                bench.refused(*call, records, code);
            }
        }
    }

    /// Handles a request, apart from reading it and sending the reply.
    fn perform(
        &self,
        head: &hyper::http::request::Parts,
        payload: &[u8],
        fate: &Fate,
        buffers: &mut Buffers,
    ) -> Result<Reply, Refusal> {
        if head.method != Method::POST || head.uri.path() != "/" {
            let message = format!("{} {} is nothing here: the service takes POST /", head.method, head.uri.path());
            return Err(ServiceError::bad("UnknownOperationException", message).into());
        }
        let operation = Operation::of(head)?;
        self.check_signature(head, payload)?;
        if fate.unavailable {
            self.counters.fault("fail_first_requests");
            return Err(ServiceError::unavailable().into());
        }
        if let Some(error) = &fate.error {
            self.counters.fault("fail_every_request");
            return Err(ServiceError::from(error.clone()).into());
        }
        if fate.over_quota {
            self.counters.fault("quota_requests");
            return Err(ServiceError::unavailable().into());
        }
        let rules = Rules { streams: &self.options.streams, validation_error: &self.options.validation_error };
        let Buffers { body, records, .. } = buffers;
        match operation {
            Operation::PutRecordBatch => rules.put_record_batch(body, records)?,
            Operation::PutRecord => rules.put_record(body, records)?,
            Operation::DescribeDeliveryStream => records.stream = rules.describe(body)?,
            Operation::ListDeliveryStreams => records.stream = "*".to_owned(),
        }
        if fate.access_denied {
            self.counters.fault("access_denied");
            return Err(self.denied(operation, &buffers.records.stream).into());
        }
        match operation {
            Operation::DescribeDeliveryStream => return Ok(self.describe(&buffers.records.stream)),
            Operation::ListDeliveryStreams => {
                let body = serde_json::json!({
                    "DeliveryStreamNames": self.options.streams, "HasMoreDeliveryStreams": false
                });
                return Ok(reply::with_body(200, reply::CONTENT, body.to_string()));
            }
            Operation::PutRecordBatch | Operation::PutRecord => {}
        }
        if !fate.poison.is_empty() && buffers.records.iter().any(|record| contains(record, fate.poison.as_bytes())) {
            self.counters.fault("poison");
            return Err(
                ServiceError::bad("InvalidArgumentException", "A record of the batch is not acceptable.").into()
            );
        }
        let contradiction = self.take(operation, buffers)?;
        match (operation, buffers.fates.first()) {
            (Operation::PutRecord, Some(RecordFate::Failed(RecordError::InternalFailure))) => Err(ServiceError {
                status: 500,
                code: "InternalFailure".to_owned(),
                message: "Internal service failure.".to_owned(),
            }
            .into()),
            (Operation::PutRecord, Some(RecordFate::Failed(_) | RecordFate::Throttled | RecordFate::Contradicted)) => {
                Err(ServiceError { message: "Slow down.".to_owned(), ..ServiceError::unavailable() }.into())
            }
            (Operation::PutRecord, _) => Ok(reply::put_record()),
            _ => Ok(reply::put_record_batch(&buffers.fates, contradiction)),
        }
    }

    /// Decides the outcome of each record, keeps the accepted ones, and counts them all. Returns how the reply
    /// contradicts itself, if it does.
    fn take(&self, operation: Operation, buffers: &mut Buffers) -> Result<Option<Contradiction>, Refusal> {
        let Buffers { call, records, fates, hashes, .. } = buffers;
        let now = Instant::now();
        let contradiction = {
            let mut faults = self.fault_state();
            let met = if operation == Operation::PutRecordBatch { faults.batch() } else { None };
            fates.extend(records.iter().map(|record| match met {
                None => faults.record(record.len(), now),
                Some((_, true)) => RecordFate::Accepted,
                Some((_, false)) => RecordFate::Contradicted,
            }));
            met.map(|(way, _)| way)
        };
        hashes.clear();
        if needs_hashes(self.options.keep, self.options.count_unique) {
            hashes.extend(records.iter().map(xxh3_64));
        }
        let accepted = |at: usize| fates.get(at) == Some(&RecordFate::Accepted);
        let mut counts = self.counters.lock();
        let counts = &mut *counts;
        let stats = &mut counts.stats;
        let offered = records.spans.len() as u64;
        if operation == Operation::PutRecordBatch {
            stats.batches += 1;
            counts.batch_records += offered;
            stats.batch_records_max = stats.batch_records_max.max(offered);
        }
        if contradiction.is_some() {
            *stats.faults.entry("contradict").or_default() += 1;
        }
        stats.records_offered += offered;
        let before = (stats.records_accepted, stats.records_failed, stats.bytes_accepted, stats.bytes_billed);
        for (at, span) in records.spans.iter().enumerate() {
            let len = span.len() as u64;
            match fates.get(at) {
                Some(RecordFate::Accepted) => {
                    stats.records_accepted += 1;
                    stats.bytes_accepted += len;
                    stats.bytes_billed += len.div_ceil(BILLING_INCREMENT_BYTES) * BILLING_INCREMENT_BYTES;
                }
                Some(RecordFate::Throttled) => {
                    stats.records_failed += 1;
                    *stats.faults.entry("quota_records").or_default() += 1;
                }
                Some(RecordFate::Contradicted) => stats.records_failed += 1,
                _ => {
                    stats.records_failed += 1;
                    *stats.faults.entry("fail_every_record").or_default() += 1;
                }
            }
        }
        let (accepted_before, failed_before, bytes_before, billed_before) = before;
        let came = StreamStats {
            calls: 1,
            calls_refused: 0,
            records_accepted: stats.records_accepted - accepted_before,
            records_failed: stats.records_failed - failed_before,
            bytes_accepted: stats.bytes_accepted - bytes_before,
            bytes_billed: stats.bytes_billed - billed_before,
        };
        stats.stream(&records.stream).add(&came);
        if self.options.count_unique {
            for (_, hash) in hashes.iter().enumerate().filter(|(at, _)| accepted(*at)) {
                stats.duplicates += u64::from(!counts.seen.insert(*hash));
            }
        }
        if let Some(bench) = &self.bench {
            bench.records(*call, records, fates);
        }
        self.output().take(records, accepted, hashes).map_err(|error| {
            // Logged only once: a full disk fails every later request.
            if self.output_errors.fetch_add(1, Ordering::Relaxed) == 0 {
                eprintln!("kubehose firehose: cannot write the output: {error}");
            }
            let message = format!("output: {error}");
            ServiceError { status: 500, code: "InternalFailure".to_owned(), message }
        })?;
        Ok(contradiction)
    }

    fn check_signature(&self, head: &hyper::http::request::Parts, payload: &[u8]) -> Result<(), ServiceError> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        if keys.is_empty() {
            return Ok(());
        }
        let checked = signature::verify(head, payload, &keys, self.options.region.as_deref(), self.now());
        let mut counts = self.counters.lock();
        match checked {
            Ok(key) => *counts.stats.signed_by.entry(key.id.clone()).or_default() += 1,
            Err(_) => counts.stats.signature_failures += 1,
        }
        checked.map(|_| ())
    }

    fn arn(&self, stream: &str) -> String {
        let region = self.options.region.as_deref().unwrap_or("us-east-1");
        format!("arn:aws:firehose:{region}:{ACCOUNT}:deliverystream/{stream}")
    }

    fn denied(&self, operation: Operation, stream: &str) -> ServiceError {
        let (operation, arn) = (operation.name(), self.arn(stream));
        ServiceError::bad(
            "AccessDeniedException",
            format!(
                "User: arn:aws:iam::{ACCOUNT}:user/kubehose is not authorized to perform: firehose:{operation} on \
                 resource: {arn} because no identity-based policy allows the firehose:{operation} action"
            ),
        )
    }

    fn describe(&self, stream: &str) -> Reply {
        let body = serde_json::json!({ "DeliveryStreamDescription": {
            "DeliveryStreamName": stream,
            "DeliveryStreamARN": self.arn(stream),
            "DeliveryStreamStatus": "ACTIVE",
            "DeliveryStreamType": "DirectPut",
            "VersionId": "1",
            "Destinations": [],
            "HasMoreDestinations": false,
        }});
        reply::with_body(200, reply::CONTENT, body.to_string())
    }

    /// The administration: `GET`/`PUT /_kubehose/faults`, `PUT /_kubehose/access-keys`, `GET /_kubehose/stats`, and
    /// the page with its events. Pages of other sites cannot use it.
    pub async fn administrate(self: &Arc<Self>, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let mut bytes = Vec::new();
        let _ = read_body(body, &mut bytes).await;
        if let Some(why) = bench::foreign(&head) {
            return plain(403, &why);
        }
        let json = |status, body: Result<String, serde_json::Error>| match body {
            Ok(body) => reply::with_body(status, "application/json", body),
            Err(error) => plain(500, &error.to_string()),
        };
        if head.method == Method::GET
            && let Some(reply) = self.page(&head)
        {
            return reply;
        }
        match (&head.method, head.uri.path()) {
            (&Method::GET, "/_kubehose/stats") => json(200, serde_json::to_string_pretty(&self.stats())),
            (&Method::GET, "/_kubehose/faults") => json(200, serde_json::to_string_pretty(&self.faults())),
            (&Method::PUT, "/_kubehose/faults") => match serde_json::from_slice::<Faults>(&bytes) {
                Ok(faults) => {
                    self.set_faults(faults);
                    json(200, serde_json::to_string_pretty(&self.faults()))
                }
                Err(error) => plain(400, &format!("these are no faults: {error}")),
            },
            (&Method::PUT, "/_kubehose/access-keys") => match serde_json::from_slice::<Vec<AccessKey>>(&bytes) {
                Ok(keys) => {
                    self.set_access_keys(keys);
                    json(200, Ok("{}".to_owned()))
                }
                Err(error) => plain(400, &format!("these are no access keys: {error}")),
            },
            (method, path) => plain(
                404,
                &format!(
                    "{method} {path} is nothing here; there are GET and PUT /_kubehose/faults, GET /_kubehose/stats, \
                     PUT /_kubehose/access-keys, and with --ui a page at /_kubehose/"
                ),
            ),
        }
    }

    /// A file of the page, or its event stream, if `head` requests one.
    fn page(self: &Arc<Self>, head: &hyper::http::request::Parts) -> Option<Reply> {
        self.bench.as_ref()?;
        let path = head.uri.path();
        let file = bench::file(path);
        if file.is_none() && path != EVENTS {
            return None;
        }
        Some(match file {
            Some((content_type, text)) => reply::file(content_type, text),
            None => reply::events(Events::new(Arc::clone(self))),
        })
    }
}

/// The path of the page's event stream.
const EVENTS: &str = "/_kubehose/events";

fn plain(status: u16, message: &str) -> Reply {
    reply::with_body(status, "text/plain; charset=utf-8", format!("{message}\n"))
}

enum ReadError {
    TooLarge,
    Broken(hyper::Error),
}

/// Reads a body into `into` and returns its SHA-256, computed while it arrives.
async fn read_body(mut body: Incoming, into: &mut Vec<u8>) -> Result<digest::Digest, ReadError> {
    into.clear();
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    into.reserve(expected.min(MAX_BODY_BYTES));
    let mut sha256 = digest::Context::new(&digest::SHA256);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(ReadError::Broken)?;
        let Some(data) = frame.data_ref() else { continue };
        if into.len() + data.len() > MAX_BODY_BYTES {
            return Err(ReadError::TooLarge);
        }
        sha256.update(data);
        into.extend_from_slice(data);
    }
    Ok(sha256.finish())
}

/// Whether `record` contains `text`.
fn contains(record: &[u8], text: &[u8]) -> bool {
    record.windows(text.len()).any(|window| window == text)
}
