//! The lanes of one output, one per stream: which one an event goes to, which one calls next, and how much memory each may hold.
//!
//! A stream that is missing, denied, throttled or slow must not hold up the others. A lane that holds more than its share of the memory
//! gets no more; if its calls fail or it stays full, its events are left for later and the others go on.

use crate::delivery::batch::Batch;
use crate::delivery::buffers::Buffers;
use crate::delivery::lane::{Job, Lane};
use crate::delivery::room::Room;
use crate::delivery::{Acknowledge, CallId, DeliveryOptions, Origin};
use crate::event::chunk::Chunk;
use crate::record::pack::Events;
use crate::record::remap::TagFields;
use crate::record::stream::{Scratch, Template};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long events wait for a full lane before they are left for later; [`SLOW`] if only the host can keep them.
pub const PATIENCE: Duration = Duration::from_millis(300);

/// How long until a flush that waits only for slow streams is answered RETRY; [`PATIENCE`] if their calls fail.
const SLOW: Duration = Duration::from_secs(1);

/// A lane with nothing to do is forgotten after this.
const FORGET: Duration = Duration::from_secs(60);

/// Which streams records go to.
#[derive(Clone, Debug)]
pub struct Streams {
    /// How each event's stream is named; none if there is one stream.
    pub template: Option<Template>,
    /// The only stream, or the one for events that the template has no name for.
    pub default: Arc<str>,
    /// How many streams may be in use at a time.
    pub most: usize,
}

/// A lane's number: the default stream's is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(u32);

/// The default stream's lane.
pub const DEFAULT: LaneId = LaneId(0);

/// Why an event goes to the default stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The template makes no valid name of it.
    NoName,
    /// `max_streams` are in use.
    TooMany,
}

/// Whether a lane takes an event now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Yes.
    Yes,
    /// Not yet: it is full, for a moment.
    Soon,
    /// No, and others must not wait for it.
    Later,
}

/// The lanes.
pub struct Lanes<'o> {
    streams: &'o Streams,
    options: &'o DeliveryOptions,
    room: Arc<Room>,
    lanes: BTreeMap<LaneId, Entry>,
    by_name: HashMap<Arc<str>, LaneId>,
    calls: BTreeMap<CallId, LaneId>,
    buffers: Buffers,
    next: u32,
    /// Who was called last.
    turn: LaneId,
    scratch: Scratch,
    /// What each may hold.
    share: usize,
    unbounded: bool,
    now: Option<Instant>,
}

struct Entry {
    lane: Lane,
    /// When something was last added.
    used: Option<Instant>,
}

impl<'o> Lanes<'o> {
    /// Begins with the default stream's lane only.
    pub fn new(streams: &'o Streams, options: &'o DeliveryOptions, room: Arc<Room>) -> Lanes<'o> {
        let lane = Lane::new(streams.default.clone(), options, room.clone());
        let mut lanes = Lanes {
            lanes: BTreeMap::from([(DEFAULT, Entry { lane, used: None })]),
            by_name: HashMap::from([(streams.default.clone(), DEFAULT)]),
            calls: BTreeMap::new(),
            buffers: Buffers::new(room.clone()),
            next: 1,
            turn: DEFAULT,
            scratch: Scratch::default(),
            share: usize::MAX,
            unbounded: false,
            now: None,
            streams,
            options,
            room,
        };
        lanes.share_out();
        lanes
    }

    /// Sets the time.
    pub fn begin(&mut self, now: Instant) {
        self.now = Some(now);
    }

    /// How many bytes a lane may hold before it gets no more.
    pub fn share(&self) -> usize {
        self.share
    }

    /// Whether events go to more streams than one.
    pub fn template(&self) -> bool {
        self.streams.template.is_some()
    }

    /// Whether an event's stream depends on its `kubernetes` map and the tag alone.
    pub fn go_by_kubernetes_alone(&self) -> bool {
        self.streams.template.as_ref().is_some_and(Template::reads_kubernetes_alone)
    }

    /// Whether the lane is there: idle ones go.
    pub fn exists(&self, lane: LaneId) -> bool {
        self.lanes.contains_key(&lane)
    }

    /// The lane for the next event of a chunk, which is moved past it, and why if it is the default one in place of another; `None` at
    /// the chunk's end, and without a template.
    pub fn choose(
        &mut self,
        chunk: &mut Chunk<'_>,
        tag: &str,
        fields: Option<&TagFields>,
    ) -> Option<(LaneId, Option<Fallback>)> {
        let template = self.streams.template.as_ref()?;
        let mut scratch = std::mem::take(&mut self.scratch);
        let chosen = template.next(chunk, tag, fields, &mut scratch).map(|name| match name {
            Some(name) => self.named(name),
            None => (DEFAULT, Some(Fallback::NoName)),
        });
        self.scratch = scratch;
        chosen
    }

    /// The lane of the stream of this name.
    pub fn named(&mut self, name: &str) -> (LaneId, Option<Fallback>) {
        if let Some(lane) = self.by_name.get(name) {
            return (*lane, None);
        }
        if self.lanes.len() >= self.streams.most {
            return (DEFAULT, Some(Fallback::TooMany));
        }
        let (lane, name) = (LaneId(self.next), Arc::<str>::from(name));
        self.next += 1;
        let entry = Entry { lane: Lane::new(name.clone(), self.options, self.room.clone()), used: self.now };
        self.lanes.insert(lane, entry);
        self.by_name.insert(name, lane);
        self.share_out();
        (lane, None)
    }

    /// Adds a record, which holds these events of `origin`, to a lane; false if there is no such lane.
    pub fn add(&mut self, lane: LaneId, record: &[u8], events: Events, origin: &Arc<Origin>) -> bool {
        let Some(entry) = self.lanes.get_mut(&lane) else { return false };
        entry.used = self.now;
        entry.lane.add(record, events, origin, &mut self.buffers);
        true
    }

    /// Gives a batch's memory back.
    pub fn release(&mut self, lane: LaneId, batch: Batch, cost: usize) {
        if let Some(entry) = self.lanes.get_mut(&lane) {
            entry.lane.release(cost);
            self.buffers.keep(batch);
        }
    }

    /// A lane.
    pub fn get(&mut self, lane: LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(&lane).map(|entry| &mut entry.lane)
    }

    /// Each lane.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.values_mut().map(|entry| &mut entry.lane)
    }

    /// Each lane.
    pub fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.values().map(|entry| &entry.lane)
    }

    /// Whether the lane takes an event now.
    pub fn takes(&mut self, lane: LaneId) -> Takes {
        let (share, now) = (self.share, self.now);
        // Leaving events to the host costs one of its retries.
        let keeps = self.options.spool || self.options.acknowledge == Acknowledge::Buffered;
        let patience = if keeps { PATIENCE } else { SLOW };
        let Some((lane, now)) = self.get(lane).zip(now) else { return Takes::Yes };
        if lane.held() <= share {
            return Takes::Yes;
        }
        lane.look(share, now);
        // Only the open batch is there: it would wait for more records, which will not come.
        if lane.is_empty() {
            lane.close_batch();
        }
        // A lane that is known to fail, or to be slow, is not waited for.
        match lane.in_trouble() || lane.gap() >= patience || lane.waits_for(now) >= patience {
            true => Takes::Later,
            false => Takes::Soon,
        }
    }

    /// Whether more batches would be sent soon, by a lane in use or by a new one.
    pub fn want_more(&self) -> bool {
        let mut used =
            self.lanes.values().filter(|entry| entry.used.is_some() && !self.holds_up(&entry.lane)).peekable();
        used.peek().is_none() || used.any(|entry| entry.lane.wants_more())
    }

    /// Whether others must not wait for this lane.
    fn holds_up(&self, lane: &Lane) -> bool {
        let waits = || self.now.is_some_and(|now| lane.waits_for(now) >= patience(lane));
        self.template() && (lane.in_trouble() || waits())
    }

    /// Lanes that others must not wait for: full, or without an accepted call, for long.
    pub fn stuck(&self, now: Instant) -> impl Iterator<Item = &Lane> {
        let several = self.template();
        self.iter().filter(move |lane| several && lane.waits_for(now) >= patience(lane))
    }

    /// Whether a lane has room again.
    pub fn has_room(&self, lane: LaneId) -> bool {
        self.lanes.get(&lane).is_none_or(|entry| entry.lane.held() <= self.share)
    }

    /// Whether the service has throttled each that is in use.
    pub fn are_throttled(&self) -> bool {
        let mut used = self.lanes.values().filter(|entry| entry.used.is_some()).peekable();
        used.peek().is_some() && used.all(|entry| entry.lane.limit.is_throttled())
    }

    /// Whether there are only open batches.
    pub fn are_empty(&self) -> bool {
        self.iter().all(Lane::is_empty)
    }

    /// Whether records wait in an open batch.
    pub fn have_open(&self) -> bool {
        self.iter().any(Lane::has_open)
    }

    /// Closes the open batches.
    pub fn close_batches(&mut self) {
        self.all().for_each(Lane::close_batch);
    }

    /// Closes the open batches that have waited long enough; true if there were any.
    pub fn close_lingering(&mut self, now: Instant) -> bool {
        let mut any = false;
        for lane in self.all().filter(|lane| lane.linger.is_some_and(|until| until <= now)) {
            lane.close_batch();
            any = true;
        }
        any
    }

    /// Lets open batches wait no longer than this.
    pub fn linger_until(&mut self, until: Instant) {
        for lane in self.all().filter(|lane| lane.has_open()) {
            lane.linger = Some(lane.linger.map_or(until, |earlier| earlier.min(until)));
        }
    }

    /// The next batch to call now; lanes take turns.
    pub fn next_call(&mut self, now: Instant) -> Option<(LaneId, Job)> {
        let after = (std::ops::Bound::Excluded(self.turn), std::ops::Bound::Unbounded);
        let first = self.lanes.range_mut(after).find_map(|(id, entry)| Some((*id, entry.lane.next_call(now)?)));
        let again = |lanes: &mut BTreeMap<LaneId, Entry>| {
            lanes.range_mut(..=self.turn).find_map(|(id, entry)| Some((*id, entry.lane.next_call(now)?)))
        };
        let (id, job) = first.or_else(|| again(&mut self.lanes))?;
        self.turn = id;
        Some((id, job))
    }

    /// Records that a call was made.
    pub fn called(&mut self, lane: LaneId, call: CallId, job: Job) {
        self.calls.insert(call, lane);
        if let Some(lane) = self.get(lane) {
            lane.called(call, job);
        }
    }

    /// Ends a call. Returns its lane and batch, and whether more calls are worth a try there; none if the call is unknown.
    pub fn ended(&mut self, call: CallId) -> Option<(LaneId, Job, bool)> {
        let id = self.calls.remove(&call)?;
        let lane = self.get(id)?;
        let in_demand = lane.in_demand();
        Some((id, lane.ended(call)?, in_demand))
    }

    /// When the next call may be due, if nothing else happens.
    pub fn wake_at(&self) -> Option<Instant> {
        self.iter().filter_map(Lane::wake_at).min()
    }

    /// When the next lane becomes stuck.
    pub fn patience_ends(&self, now: Instant) -> Option<Instant> {
        if !self.template() {
            return None;
        }
        let ends = |lane: &Lane| lane.waiting_since().map(|since| [since + PATIENCE, since + patience(lane)]);
        self.iter().filter_map(ends).flatten().filter(|ends| *ends > now).min()
    }

    /// Gives up everything. Returns the calls in flight, and each batch with its lane and whether a call of it is in flight.
    pub fn give_up(&mut self) -> (Vec<CallId>, Vec<(LaneId, Job, bool)>) {
        let (mut calls, mut jobs) = (Vec::new(), Vec::new());
        for (id, entry) in &mut self.lanes {
            let (more, of_lane) = entry.lane.give_up();
            calls.extend(more);
            jobs.extend(of_lane.into_iter().map(|(job, in_flight)| (*id, job, in_flight)));
        }
        self.calls.clear();
        (calls, jobs)
    }

    /// A stream's name.
    pub fn stream(&self, lane: LaneId) -> Arc<str> {
        self.lanes.get(&lane).map_or_else(|| self.streams.default.clone(), |entry| entry.lane.stream.clone())
    }

    /// Memory that they hold, counted anew.
    pub fn measure(&self) -> usize {
        self.iter().map(Lane::measure).sum::<usize>() + self.buffers.held()
    }

    /// Counts what each holds, frees unused memory, and forgets lanes that have been idle for long.
    pub fn rest(&mut self, now: Instant, may_forget: bool) {
        let share = self.share;
        for lane in self.all() {
            lane.rest();
            lane.count();
            lane.look(share, now);
        }
        if self.are_empty() && !self.have_open() {
            self.buffers.free();
        }
        let excess = self.iter().map(|lane| lane.held().saturating_sub(share)).sum();
        self.room.set_excess(excess);
        if !may_forget || self.lanes.len() == 1 {
            return;
        }
        let before = self.lanes.len();
        let by_name = &mut self.by_name;
        self.lanes.retain(|id, Entry { lane, used }| {
            let idle = lane.is_empty() && !lane.has_open() && used.is_none_or(|used| now - used >= FORGET);
            if idle && *id != DEFAULT {
                by_name.remove(&lane.stream);
                return false;
            }
            true
        });
        if self.lanes.len() < before {
            self.share_out();
        }
    }

    /// Lifts the shares, at the exit.
    pub fn unbound(&mut self) {
        self.unbounded = true;
        self.share_out();
    }

    /// A single stream may hold all of the memory. Of several each has its share of a quarter, so that there is always room for copies of
    /// chunks.
    fn share_out(&mut self) {
        self.share = match self.template() && !self.unbounded {
            true => self.room.limit() / 4 / self.lanes.len(),
            false => usize::MAX,
        };
    }
}

/// How long others wait for a lane without an accepted call.
fn patience(lane: &Lane) -> Duration {
    if lane.in_trouble() || lane.gap() >= SLOW { PATIENCE } else { SLOW }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Config;

    #[test]
    fn the_only_lane_in_use_may_hold_all_of_the_memory_only_if_there_can_be_no_other() {
        for (stream, share) in [("logs", usize::MAX), ("logs-$a", 1 << 20)] {
            let get = |name: &str| match name {
                "region" => Some("eu-west-1".to_owned()),
                "delivery_stream" => Some(stream.to_owned()),
                "default_delivery_stream" if stream != "logs" => Some("rest".to_owned()),
                _ => None,
            };
            let config = Config::read(&get, &|_| None).unwrap();
            let mut lanes = Lanes::new(&config.streams, &config.delivery, Arc::new(Room::new(4 << 20)));
            assert_eq!(lanes.share(), share);
            lanes.named("logs-b");
            assert_eq!(lanes.share() < share, stream != "logs");
            lanes.unbound();
            assert_eq!(lanes.share(), usize::MAX);
        }
    }
}
