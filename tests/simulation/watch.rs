//! Invariants between the core's inputs and actions, checked one by one: notes, counts, acknowledgements, pace.

use crate::disk::Stored;
use crate::host::{EventId, Tally, is_streamed, said_of};
use crate::service::{ids_of, is_poison};
use kubehose::delivery::{Acknowledge, Action, Input, LetterId};
use kubehose::firehose::{Class, Fault, Reply};
use kubehose::metrics::Counts;
use kubehose::options::Config;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// This many rounds of throttling reduce any number of calls in flight to one. Includes one spare round, because two
/// may count as one.
const ROUNDS: u32 = 8;

/// Throttled replies closer together than this count as one round.
const ROUND: Duration = Duration::from_millis(200);

/// The maximum of calls a minute while an operator must fix something: two per second, and those already in flight.
const CALLS_IN_OUTAGE: u32 = 200;

/// How often a lone record must be rejected before it counts as invalid, unless another record is accepted.
const BLAME_AFTER: u32 = 8;

/// A chunk that is in the spool, or is being stored.
#[derive(Debug)]
struct Spooled {
    events: Vec<EventId>,
    /// Which of them the core has noted as settled.
    noted: Vec<bool>,
}

/// A valid record that was rejected as invalid.
#[derive(Debug)]
struct Suspect {
    since: Instant,
    alone: u32,
}

/// One run of the core, as its inputs and actions show it.
#[derive(Debug, Default)]
pub struct Watch {
    spool: bool,
    /// Whether a flush is acknowledged only once its records are settled.
    delivered: bool,
    records_per_second: Option<u64>,
    /// Whether a record may hold several events.
    joined: bool,
    spooled: BTreeMap<u64, Spooled>,
    /// How often the core learned that an event is settled.
    told: Tally,
    /// How often it noted the event as settled.
    noted: Tally,
    /// How often it acknowledged an event.
    acknowledged: Tally,
    /// Events of chunks that the disk did not store: they need no notes.
    unspooled: BTreeSet<EventId>,
    /// Events that an earlier run noted as settled.
    settled_before: BTreeSet<EventId>,
    /// Events that the last input settled.
    touched: Vec<EventId>,
    /// The events of each dead letter that is being written.
    letters: BTreeMap<LetterId, Vec<EventId>>,
    /// Records that were accepted, and their events.
    accepted: u64,
    accepted_events: u64,
    dead_lettered: u64,
    /// Events whose dead letters are written or lost.
    lettered: u64,
    dropped: u64,
    /// Events that were already settled when their chunk was read back.
    skipped: u64,
    last_accepted: Option<Instant>,
    /// Chunks of the spool that were stored or read in this run.
    read: BTreeSet<u64>,
    suspects: BTreeMap<EventId, Suspect>,
    throttled: (u32, Option<Instant>),
    outage: (Option<Instant>, u32),
    quota: (Option<Instant>, u64),
}

type Checked = Result<(), String>;

impl Watch {
    /// A run begins with these chunks in the spool.
    pub fn begin(&mut self, config: &Config, chunks: &BTreeMap<u64, Stored>) {
        let options = &config.delivery;
        *self = Watch {
            spool: options.spool,
            delivered: !options.spool && options.acknowledge == Acknowledge::Delivered,
            records_per_second: options.records_per_second,
            joined: config.record.pack.aggregate,
            ..Watch::default()
        };
        for (chunk, stored) in chunks {
            let events = events_of(&stored.bytes);
            let mut noted = vec![false; events.len()];
            for range in &stored.settled {
                let range = range.start as usize..range.end as usize;
                noted[range.clone()].fill(true);
                self.settled_before.extend(&events[range]);
            }
            self.spooled.insert(*chunk, Spooled { events, noted });
        }
    }

    /// Events in the spool that are not noted as settled.
    pub fn owed_by_spool(&self) -> impl Iterator<Item = EventId> {
        let chunks = self.spooled.values();
        chunks.flat_map(|chunk| chunk.events.iter().zip(&chunk.noted).filter(|(_, noted)| !**noted).map(|(id, _)| *id))
    }

    /// A call with these records has its reply.
    pub fn answered(&mut self, records: &[Vec<EventId>], outcome: &Result<Reply, Fault>, now: Instant) -> Checked {
        match outcome {
            Ok(reply) => {
                let mut refused = reply.refused.iter().map(|refused| refused.index).peekable();
                let mut accepted = 0;
                for (index, events) in records.iter().enumerate() {
                    if refused.next_if_eq(&index).is_none() {
                        // They stay suspect: copies of them may be in a batch that has been rejected since.
                        events.iter().for_each(|id| self.settled(*id));
                        self.accepted_events += events.len() as u64;
                        accepted += 1;
                    }
                }
                self.accepted += accepted;
                if accepted > 0 {
                    (self.last_accepted, self.throttled, self.outage) = (Some(now), (0, None), (None, 0));
                }
            }
            Err(fault) => match fault.class {
                Class::Throttled => {
                    if self.throttled.1.is_none_or(|last| now - last >= ROUND) {
                        self.throttled = (self.throttled.0 + 1, Some(now));
                    }
                }
                Class::Poison => {
                    for id in records.iter().filter(|events| !has_poison(events)).flatten() {
                        let suspect = self.suspects.entry(*id).or_insert(Suspect { since: now, alone: 0 });
                        suspect.alone += u32::from(records.len() == 1);
                    }
                }
                Class::Setup(_) => {
                    if self.outage.0.is_none_or(|since| now - since > Duration::from_secs(60)) {
                        self.outage = (Some(now), 0);
                    }
                    self.outage.1 += 1;
                    // Each stream makes its own calls.
                    let streams = if is_streamed() { 7 } else { 1 };
                    if self.outage.1 > CALLS_IN_OUTAGE * streams {
                        return Err(format!("more than {CALLS_IN_OUTAGE} calls in a minute of outage"));
                    }
                }
                Class::Service => {}
            },
        }
        Ok(())
    }

    fn settled(&mut self, id: EventId) {
        self.told.add(id);
        if self.spool {
            self.touched.push(id);
        }
    }

    /// Called before the core handles this input.
    pub fn input(&mut self, input: &Input) {
        match input {
            Input::NotStored { chunk, .. } => {
                if let Some(chunk) = self.spooled.get(&chunk.0) {
                    self.unspooled.extend(&chunk.events);
                    // Its notes are lost with it, so the same events may be noted again when the host sends the chunk
                    // again.
                    for (id, _) in chunk.events.iter().zip(&chunk.noted).filter(|(_, noted)| **noted) {
                        self.noted.sub(*id);
                    }
                }
            }
            // Counted at the first read only: a chunk read again in this run skips events that this run settled.
            Input::Loaded { chunk, loaded: Ok(loaded) } if self.read.insert(chunk.0) => {
                self.skipped += loaded.settled.iter().map(|range| u64::from(range.end - range.start)).sum::<u64>();
            }
            Input::Lettered { letter, outcome, .. } => {
                if let Some(events) = self.letters.remove(letter) {
                    events.iter().for_each(|id| self.settled(*id));
                    self.lettered += events.len() as u64;
                    self.dropped += u64::from(outcome.is_err());
                }
            }
            _ => {}
        }
    }

    /// The core has emitted this action.
    pub fn action(&mut self, action: &Action) -> Checked {
        match action {
            Action::Store { chunk, bytes, .. } => {
                let events = events_of(bytes);
                let noted = vec![false; events.len()];
                self.spooled.insert(chunk.0, Spooled { events, noted });
                self.read.insert(chunk.0);
            }
            Action::Note { chunk, events } => {
                let Some(spooled) = self.spooled.get_mut(&chunk.0) else {
                    return Err(format!("a note on chunk {}, which is not in the spool", chunk.0));
                };
                for event in events.iter().cloned().flatten() {
                    let Some(id) = spooled.events.get(event as usize).copied() else {
                        return Err(format!("a note on event {event} of {}", spooled.events.len()));
                    };
                    if std::mem::replace(&mut spooled.noted[event as usize], true) {
                        return Err(format!("event {id} of chunk {} is noted twice", chunk.0));
                    }
                    self.noted.add(id);
                    if self.noted.get(id) > self.told.get(id) {
                        return Err(format!("event {id} is noted, but not settled"));
                    }
                }
            }
            Action::Remove { chunk } => {
                let spooled = self.spooled.remove(&chunk.0);
                if spooled.is_none_or(|chunk| chunk.noted.iter().any(|noted| !noted)) {
                    return Err(format!("chunk {} is removed before it is settled", chunk.0));
                }
            }
            Action::DeadLetter { letter, record, reason, .. } => {
                let events = ids_of(record)?;
                self.dead_lettered += 1;
                let blamed = reason == "Poison" && !has_poison(&events);
                for id in events.iter().filter(|_| blamed) {
                    if let Some(Suspect { since, alone }) = self.suspects.get(id)
                        && *alone < BLAME_AFTER
                        && self.last_accepted.is_none_or(|accepted| accepted < *since)
                    {
                        return Err(format!(
                            "event {id} is treated as invalid after {alone} calls, although no other was accepted either"
                        ));
                    }
                }
                self.letters.insert(*letter, events);
            }
            _ => {}
        }
        Ok(())
    }

    /// A call is made while this many others are in flight.
    pub fn call(&mut self, records: usize, others: usize, now: Instant) -> Checked {
        if self.throttled.0 >= ROUNDS && others > 0 && !is_streamed() {
            return Err(format!(
                "{others} calls are in flight beside a new one after {} rounds of throttling",
                self.throttled.0
            ));
        }
        if let Some(rate) = self.records_per_second {
            let since = *self.quota.0.get_or_insert(now);
            let may = rate as f64 * (now - since).as_secs_f64() + 1.0;
            if self.quota.1 as f64 > may {
                return Err(format!("{} records were sent, but records_per_second allows {may:.0}", self.quota.1));
            }
            self.quota.1 += records as u64;
        }
        Ok(())
    }

    /// A flush with these events is answered OK; `stored` if its chunk is in the spool.
    pub fn acknowledged(&mut self, events: &[EventId], stored: bool) -> Checked {
        if self.spool && !stored {
            // If not stored, each event must be settled, in this run or, by its notes, in an earlier one.
            let owed = events.iter().find(|id| self.told.get(**id) == 0 && !self.settled_before.contains(id));
            return owed.map_or(Ok(()), |id| Err(format!("event {id} is acknowledged, not stored and not settled")));
        }
        if !self.delivered {
            return Ok(());
        }
        for id in events {
            self.acknowledged.add(*id);
            if self.acknowledged.get(*id) > self.told.get(*id) {
                return Err(format!("event {id} is acknowledged, but not settled"));
            }
        }
        Ok(())
    }

    /// The core has handled an input: everything it settled is noted, and all counts are right.
    pub fn handled(&mut self, counts: &Counts, unsettled: u64) -> Checked {
        for id in self.touched.drain(..) {
            if self.noted.get(id) != self.told.get(id) && !self.unspooled.contains(&id) {
                return Err(format!("event {id} is settled, but not noted"));
            }
        }
        for (what, counted, seen) in [
            ("accepted", &counts.records_accepted, self.accepted),
            ("dead-lettered", &counts.records_dead_lettered, self.dead_lettered),
            ("dropped", &counts.records_dropped, self.dropped),
        ] {
            if counted.get() != seen {
                return Err(format!("{} records are counted as {what}, but {seen} were", counted.get()));
            }
        }
        // While a chunk is being encoded, not all skipped events are counted yet. With aggregation, `unsettled`
        // counts records, not events.
        let settled = self.accepted_events + self.lettered + counts.records_empty.get();
        let events = counts.events.get();
        if events < settled + unsettled || events > settled + unsettled + self.skipped && !self.joined {
            return Err(format!("{events} events, {settled} settled, {unsettled} held, {} skipped", self.skipped));
        }
        Ok(())
    }

    /// The core holds nothing any more.
    pub fn idle(&self, counts: &Counts) -> Checked {
        let settled = self.accepted_events + self.lettered + counts.records_empty.get() + self.skipped;
        if counts.events.get() != settled {
            return Err(format!("{} events, {settled} settled or skipped", counts.events.get()));
        }
        Ok(())
    }
}

/// Whether the service rejects a record with these events.
fn has_poison(events: &[EventId]) -> bool {
    events.iter().any(|id| is_poison(*id))
}

/// The events of a chunk in the spool.
pub fn events_of(bytes: &[u8]) -> Vec<EventId> {
    let mut ids = Vec::new();
    let mut rest = bytes;
    while rest.len() >= 34 {
        // The format of host::encode: 16 bytes of head, a number, optionally a stream, a pad.
        let id = u64::from_be_bytes(rest[17..25].try_into().unwrap_or_default());
        let more = if is_streamed() { 3 + said_of(id).len() } else { 0 };
        let pad = u32::from_be_bytes(rest[30 + more..34 + more].try_into().unwrap_or_default()) as usize;
        ids.push(id);
        rest = &rest[34 + more + pad..];
    }
    ids
}
