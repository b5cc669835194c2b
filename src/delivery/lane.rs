//! One stream: its open batch, what is ready, delayed or in flight, how many calls it may have, and its trouble.
//!
//! A batch is *open*, *ready*, *in flight*, or *delayed* until its backoff is over; of a batch that was accepted in part only the rest
//! goes on.

use crate::delivery::batch::{Batch, Batcher, Opening};
use crate::delivery::buffers::Buffers;
use crate::delivery::encode::own;
use crate::delivery::pace::{Limit, Quota};
use crate::delivery::retry::{self, Attempts, Backoff, Kind};
use crate::delivery::room::Room;
use crate::delivery::{CallId, DeliveryOptions, Origin};
use crate::firehose::Setup;
use crate::record::pack::Events;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A chunk and how many records of a batch, one after the other, are its own.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The chunk.
    pub origin: Arc<Origin>,
    /// The number of its records.
    pub records: usize,
}

/// The owners of the first `records`, and of the rest.
pub fn split(owners: Vec<Owner>, records: usize) -> [Vec<Owner>; 2] {
    let (mut first, mut rest, mut room) = (Vec::new(), Vec::new(), records);
    for Owner { origin, records } in owners {
        let before = records.min(room);
        room -= before;
        if before > 0 {
            first.push(Owner { origin: origin.clone(), records: before });
        }
        if records > before {
            rest.push(Owner { origin, records: records - before });
        }
    }
    [first, rest]
}

/// A batch with what is known of it.
#[derive(Debug)]
pub struct Job {
    /// Whose records these are, in their order.
    pub owners: Vec<Owner>,
    /// The records.
    pub batch: Batch,
    /// How often it has failed.
    pub attempts: Attempts,
    /// An earlier call may have been accepted, so that to send it again may repeat it.
    pub ambiguous: bool,
    /// When its records were first refused as invalid.
    pub suspect_since: Option<Instant>,
    /// What of the room it takes.
    cost: usize,
}

/// What is on its way to one stream.
pub struct Lane {
    /// The stream's name.
    pub stream: Arc<str>,
    opening: Opening,
    room: Arc<Room>,
    batcher: Batcher,
    owners: Vec<Owner>,
    /// Until when the open batch waits for more records.
    pub linger: Option<Instant>,
    /// The size of the last body that was full: the next one's is about that.
    body_size: usize,
    /// What of the room the open batch takes.
    counted: usize,
    /// What of the room its other batches take.
    jobs: usize,
    /// Since when it holds more than its share.
    full_since: Option<Instant>,
    /// Since when there has been something to send.
    busy_since: Option<Instant>,
    /// How long it last was until records were accepted, though there was something to send.
    gap: Duration,
    ready: VecDeque<Job>,
    delayed: BTreeMap<(Instant, u64), Job>,
    delays: u64,
    /// What of the room the delayed ones take.
    delayed_cost: usize,
    in_flight: BTreeMap<CallId, Job>,
    /// How many calls it may have.
    pub limit: Limit,
    records: Quota,
    bytes: Quota,
    /// Calls that failed whole since the last one that did not.
    failures: u32,
    /// Calls that looked for a bad record and were refused, since the last that was accepted.
    probes: u32,
    /// No call before this.
    resume: Option<Instant>,
    /// Since when, and what somebody has to fix.
    pub trouble: Option<(Instant, Setup)>,
    /// When records were last accepted.
    pub last_accepted: Option<Instant>,
}

impl Lane {
    /// A lane to the stream of this name.
    pub fn new(stream: Arc<str>, options: &DeliveryOptions, room: Arc<Room>) -> Lane {
        let opening = Opening::new(&stream);
        Lane {
            stream,
            batcher: Batcher::new(&opening),
            opening,
            room,
            owners: Vec::new(),
            linger: None,
            body_size: 0,
            counted: 0,
            jobs: 0,
            full_since: None,
            busy_since: None,
            gap: Duration::ZERO,
            ready: VecDeque::new(),
            delayed: BTreeMap::new(),
            delays: 0,
            delayed_cost: 0,
            in_flight: BTreeMap::new(),
            limit: Limit::new(options.concurrency),
            records: Quota::new(options.records_per_second),
            bytes: Quota::new(options.bytes_per_second),
            failures: 0,
            probes: 0,
            resume: None,
            trouble: None,
            last_accepted: None,
        }
    }

    /// Adds a record, which holds these events of `origin`.
    pub fn add(&mut self, record: &[u8], events: Events, origin: &Arc<Origin>, buffers: &mut Buffers) {
        let size = self.body_size;
        if let Some(full) = self.batcher.push(record, events, || buffers.take(size)) {
            self.body_size = full.bytes_held() + full.bytes_held() / 16;
            self.push_ready(full);
        }
        own(&mut self.owners, origin);
    }

    /// The size of the largest record that the open batch still takes, in bytes.
    pub fn batch_room(&self) -> usize {
        self.batcher.room()
    }

    fn push_ready(&mut self, batch: Batch) {
        self.linger = None;
        let owners = std::mem::take(&mut self.owners);
        let job = self.job(owners, batch, Attempts::default(), None);
        self.ready.push_back(job);
    }

    /// Counts a batch in the room.
    pub fn job(
        &mut self,
        mut owners: Vec<Owner>,
        batch: Batch,
        attempts: Attempts,
        suspect_since: Option<Instant>,
    ) -> Job {
        owners.shrink_to_fit();
        let cost = batch.held() + owners.capacity() * size_of::<Owner>();
        self.room.add(cost);
        self.jobs += cost;
        Job { owners, batch, attempts, ambiguous: false, suspect_since, cost }
    }

    /// Counts the open batch in the room as it is now.
    pub fn count(&mut self) {
        let now = self.batcher.capacity() + self.owners.capacity() * size_of::<Owner>();
        self.room.add(now);
        self.room.sub(self.counted);
        self.counted = now;
    }

    /// Closes the open batch.
    pub fn close_batch(&mut self) {
        self.linger = None;
        if let Some(batch) = self.batcher.finish() {
            self.push_ready(batch);
        }
    }

    /// Forgets what a panic left of a record that was not added to its end.
    pub fn discard_partial_record(&mut self) {
        self.batcher.discard_partial_record();
    }

    /// Whether records wait in the open batch.
    pub fn has_open(&self) -> bool {
        !self.batcher.is_empty()
    }

    /// Whether a batch more would be sent soon: fewer are ready than may be called, and what was throttled leaves room for copies of
    /// chunks, which take less memory than their records and can be left to the spool.
    pub fn wants_more(&self) -> bool {
        self.ready.len() < self.limit.calls().saturating_sub(self.in_flight.len()).max(2)
            && self.delayed_cost <= self.room.limit() / 4
    }

    /// What of the room its records take, in bytes.
    pub fn held(&self) -> usize {
        self.jobs + self.batcher.capacity()
    }

    /// Looks whether it holds more than its share, and since when it has something to send.
    pub fn look(&mut self, share: usize, now: Instant) {
        match self.held() > share {
            true => _ = self.full_since.get_or_insert(now),
            false => self.full_since = None,
        }
        match self.is_empty() {
            true => self.busy_since = None,
            false => _ = self.busy_since.get_or_insert(now),
        }
    }

    /// Whether its last calls have failed.
    pub fn in_trouble(&self) -> bool {
        self.trouble.is_some() || self.failures > 0
    }

    /// How long it last was until records were accepted, though there was something to send.
    pub fn gap(&self) -> Duration {
        self.gap
    }

    /// Since when it has held more than its share, or nothing has been accepted though there was something to send.
    pub fn waiting_since(&self) -> Option<Instant> {
        [self.full_since, self.unaccepted_since()].into_iter().flatten().min()
    }

    fn unaccepted_since(&self) -> Option<Instant> {
        self.busy_since.map(|busy| self.last_accepted.map_or(busy, |accepted| accepted.max(busy)))
    }

    /// For how long that is so.
    pub fn waits_for(&self, now: Instant) -> Duration {
        self.waiting_since().map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// The owners of all that is in it.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        let jobs = self.ready.iter().chain(self.delayed.values()).chain(self.in_flight.values());
        jobs.flat_map(|job| &job.owners).chain(&self.owners)
    }

    /// Whether there is nothing but the open batch.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.delayed.is_empty() && self.in_flight.is_empty()
    }

    /// Whether as many calls are in flight as may be, so that more are worth a try.
    pub fn in_demand(&self) -> bool {
        !self.ready.is_empty() || self.in_flight.len() + 1 >= self.limit.calls()
    }

    /// The next batch that may be called now.
    pub fn next_call(&mut self, now: Instant) -> Option<Job> {
        while let Some(entry) = self.delayed.first_entry()
            && entry.key().0 <= now
        {
            // What has waited goes before what has not been sent yet.
            let job = entry.remove();
            self.delayed_cost -= job.cost;
            self.ready.push_front(job);
        }
        if self.ready.is_empty() || !self.may_call() || self.starts_at().is_some_and(|start| start > now) {
            return None;
        }
        let job = self.ready.pop_front()?;
        self.records.spend(job.batch.places().len() as u64, now);
        self.bytes.spend(job.batch.bytes(), now);
        Some(job)
    }

    fn may_call(&self) -> bool {
        // While something has to be fixed, one call at a time asks whether it has been.
        let limit = if self.trouble.is_some() { 1 } else { self.limit.calls() };
        self.in_flight.len() < limit
    }

    fn starts_at(&self) -> Option<Instant> {
        [self.resume, self.records.ready(), self.bytes.ready()].into_iter().flatten().max()
    }

    /// When there may be something to call, if nothing else happens.
    pub fn wake_at(&self) -> Option<Instant> {
        let ready = (!self.ready.is_empty() && self.may_call()).then(|| self.starts_at()).flatten();
        let delayed = self.delayed.first_key_value().map(|((due, _), _)| *due);
        [ready, delayed, self.linger].into_iter().flatten().min()
    }

    /// A call was made.
    pub fn called(&mut self, call: CallId, job: Job) {
        self.in_flight.insert(call, job);
    }

    /// A call has ended; none if it is not one of ours.
    pub fn ended(&mut self, call: CallId) -> Option<Job> {
        self.in_flight.remove(&call)
    }

    /// A call was answered and at least one record accepted.
    pub fn went_well(&mut self, now: Instant, in_demand: bool) {
        self.gap = self.unaccepted_since().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.last_accepted = Some(now);
        self.failures = 0;
        self.probes = 0;
        self.resume = None;
        self.limit.accepted(in_demand);
    }

    /// A call failed whole: when a run of them did, or somebody has to fix something, all others wait, too.
    pub fn went_wrong(&mut self, now: Instant, limits: Backoff, setup: bool, random: &mut fastrand::Rng) {
        self.failures = self.failures.saturating_add(1);
        if setup || self.failures >= 3 {
            self.resume = Some(now + retry::backoff(limits, self.failures, random).max(limits.0));
        }
    }

    /// Tries a batch again after a backoff of its own.
    pub fn delay(&mut self, mut job: Job, kind: Kind, limits: Backoff, now: Instant, random: &mut fastrand::Rng) {
        let attempt = job.attempts.failed(kind);
        self.delay_until(job, now + retry::backoff(limits, attempt, random));
    }

    /// Tries a part of a batch in which a bad record is looked for: the more were refused in a row, the slower.
    pub fn probe(&mut self, job: Job, now: Instant) {
        let (first, longest) = retry::PROBE;
        let wait = first.saturating_mul(self.probes).min(longest);
        self.delay_until(job, now + wait);
    }

    /// One more call was refused for what is in it.
    pub fn probed(&mut self) {
        self.probes = self.probes.saturating_add(1);
    }

    fn delay_until(&mut self, job: Job, due: Instant) {
        self.delays += 1;
        self.delayed_cost += job.cost;
        self.delayed.insert((due, self.delays), job);
    }

    /// A part of a job's batch that `keep` names by index, without encoding anything again.
    pub fn part(&self, batch: &Batch, keep: impl FnMut(usize) -> bool) -> Option<Batch> {
        batch.part(&self.opening, keep)
    }

    /// Counts a batch in the room no longer.
    pub fn release(&mut self, cost: usize) {
        self.room.sub(cost);
        self.jobs = self.jobs.saturating_sub(cost);
    }

    /// Lets unused memory go once nothing is left to do.
    pub fn rest(&mut self) {
        if self.is_empty() && !self.has_open() {
            self.owners = Vec::new();
            self.batcher.rest();
            self.count();
        }
    }

    /// Gives up everything: the numbers of the calls in flight, and each batch, with whether a call of it is in flight.
    pub fn give_up(&mut self) -> (Vec<CallId>, Vec<(Job, bool)>) {
        self.close_batch();
        let calls = self.in_flight.keys().copied().collect();
        let in_flight = std::mem::take(&mut self.in_flight).into_values().map(|job| (job, true));
        self.delayed_cost = 0;
        let delayed = std::mem::take(&mut self.delayed).into_values();
        let rest = self.ready.drain(..).chain(delayed).map(|job| (job, false));
        (calls, in_flight.chain(rest).collect())
    }

    /// What of the room the lane takes, counted anew.
    #[doc(hidden)]
    pub fn measure(&self) -> usize {
        let jobs = self.ready.iter().chain(self.delayed.values()).chain(self.in_flight.values());
        let jobs: usize = jobs.map(|job| job.batch.held() + job.owners.capacity() * size_of::<Owner>()).sum();
        jobs + self.batcher.capacity() + self.owners.capacity() * size_of::<Owner>()
    }
}

impl Job {
    /// What of the room it takes.
    pub fn cost(&self) -> usize {
        self.cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Identity;
    use crate::delivery::ledger::Ledger;
    use crate::options::Config;

    #[test]
    fn what_was_throttled_takes_a_quarter_of_the_memory_and_then_no_more_is_encoded() {
        let get = |name: &str| ["region", "delivery_stream"].contains(&name).then(|| "eu-west-1".to_owned());
        let config = Config::read(&get, &|_| None).unwrap();
        let (room, now) = (Arc::new(Room::new(8 << 20)), Instant::now());
        let mut lane = Lane::new("s".into(), &config.delivery, room.clone());
        let identity = Identity::of(b"", b"");
        let delivery = Ledger::default().begin_acknowledged(identity);
        let origin = Arc::new(Origin { delivery, identity, tag: "t".into(), chunk: None });
        let (mut random, mut buffers) = (fastrand::Rng::with_seed(1), Buffers::new(room.clone()));
        let mut delayed = 0;
        while lane.wants_more() {
            assert!(delayed < 10);
            lane.add(&[b'x'; 300_000], Events::One(0..1), &origin, &mut buffers);
            lane.close_batch();
            let job = lane.next_call(now).unwrap();
            lane.delay(job, Kind::Record, retry::RECORD, now, &mut random);
            delayed += 1;
        }
        assert!(room.held() > 2 << 20 && room.held() < 3 << 20, "{}", room.held());
        // Once they have been sent there is room again.
        while let Some(job) = lane.next_call(now + retry::RECORD.1 * 2) {
            let cost = job.cost();
            lane.release(cost);
            delayed -= 1;
        }
        assert!(lane.wants_more() && delayed == 0);
    }
}
