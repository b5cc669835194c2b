//! What is owed to the host: which chunks are being delivered, and which flush waits for which of them.
//!
//! A delivery outlives its flush. One whose flush was answered RETRY is *detached*: it goes on, and the chunk's next flush is attached
//! to it instead of starting another. Invariants: a delivery has at most one flush; a flush is answered exactly once; what was
//! answered OK is forgotten, so that an equal chunk that comes later is a delivery of its own.

use crate::delivery::{Action, ChunkId, FlushId, Identity};
use crate::host::Status;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

/// How long an ended delivery is remembered if the host may still bring its chunk again. By default the host waits at most 2,000 s
/// between retries (`scheduler.cap`).
const REMEMBER: Duration = Duration::from_secs(3600);

/// How many of those are remembered at most.
const REMEMBER_AT_MOST: usize = 10_000;

/// A delivery's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(u64);

/// A flush that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush {
    /// The host's flush.
    pub id: FlushId,
    /// When it stops waiting.
    pub deadline: Instant,
    /// The size of its chunk, in bytes.
    pub size: usize,
}

/// What the host knows of a delivery.
#[derive(Debug)]
enum Owed {
    /// A flush waits for its end, or for its chunk to be in the spool.
    Flush(Flush),
    /// Its flush was answered RETRY.
    Detached,
    /// Its flush was answered OK before its end.
    Acknowledged,
}

/// Where else the chunk of a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nowhere.
    No,
    /// It is being written into the spool.
    Storing(ChunkId),
    /// It is in the spool.
    Stored(ChunkId),
}

#[derive(Debug)]
struct Delivery {
    identity: Identity,
    /// Records that are not settled.
    unsettled: u64,
    owed: Owed,
    /// Whether all its records have been added.
    sealed: bool,
    ended: bool,
    kept: Kept,
    /// If only some events were added and the chunk is not held, those events: the host must bring it again for the rest.
    incomplete: Option<Vec<Range<u32>>>,
}

/// The deliveries of one output.
#[derive(Default)]
pub struct Ledger {
    next: u64,
    by_id: BTreeMap<DeliveryId, Delivery>,
    detached: HashMap<Identity, Vec<DeliveryId>>,
    deadlines: BTreeSet<(Instant, DeliveryId)>,
    /// Ended and detached, the oldest first.
    remembered: VecDeque<(Instant, DeliveryId)>,
    /// Events of chunks that are settled, where the chunk must come again for the others, the oldest first.
    resume: VecDeque<(Instant, Identity, Vec<Range<u32>>)>,
    unended: usize,
}

impl Ledger {
    fn begin(&mut self, identity: Identity, owed: Owed, kept: Kept) -> DeliveryId {
        self.next += 1;
        let id = DeliveryId(self.next);
        if let Owed::Flush(flush) = &owed {
            self.deadlines.insert((flush.deadline, id));
        }
        if let Owed::Detached = owed {
            self.detached.entry(identity).or_default().push(id);
        }
        self.by_id
            .insert(id, Delivery { identity, unsettled: 0, owed, sealed: false, ended: false, kept, incomplete: None });
        self.unended += 1;
        id
    }

    /// Begins a delivery whose flush waits for its end, or until the chunk is stored if it is being stored.
    pub fn begin_awaited(&mut self, identity: Identity, flush: Flush, storing: Option<ChunkId>) -> DeliveryId {
        self.begin(identity, Owed::Flush(flush), storing.map_or(Kept::No, Kept::Storing))
    }

    /// Begins a delivery whose flush has been answered OK.
    pub fn begin_acknowledged(&mut self, identity: Identity) -> DeliveryId {
        self.begin(identity, Owed::Acknowledged, Kept::No)
    }

    /// Begins a delivery whose chunk an earlier process left in the spool. That process may have ended before it answered the flush:
    /// then the host brings the chunk again, and it must be found here.
    pub fn begin_recovered(&mut self, identity: Identity, chunk: ChunkId) -> DeliveryId {
        self.begin(identity, Owed::Detached, Kept::Stored(chunk))
    }

    /// Attaches `flush` to a detached delivery of its chunk, or answers it at once if that has ended or is in the spool. False if there
    /// is none, or if it needs the chunk's bytes: see [`Ledger::reopen`].
    pub fn attach(&mut self, identity: Identity, flush: Flush, out: &mut Vec<Action>) -> bool {
        let Some(id) = self.detached.get(&identity).and_then(|ids| ids.first()).copied() else { return false };
        let Some(delivery) = self.by_id.get_mut(&id).filter(|delivery| delivery.incomplete.is_none()) else {
            return false;
        };
        if delivery.ended || matches!(delivery.kept, Kept::Stored(_)) {
            delivery.owed = Owed::Acknowledged;
            out.push(Action::Reply { flush: flush.id, status: Status::Ok });
            if delivery.ended {
                self.by_id.remove(&id);
            }
        } else {
            delivery.owed = Owed::Flush(flush);
            self.deadlines.insert((flush.deadline, id));
        }
        self.forget_detached(identity, id);
        true
    }

    /// Attaches `flush`, whose chunk is here, to a detached delivery with events that were left out, which may be added now. Returns the
    /// delivery and the events that were not left out.
    pub fn reopen(&mut self, identity: Identity, flush: Flush) -> Option<(DeliveryId, Vec<Range<u32>>)> {
        let id = self.detached.get(&identity)?.first().copied()?;
        let delivery = self.by_id.get_mut(&id)?;
        let done = delivery.incomplete.take()?;
        delivery.sealed = false;
        delivery.owed = Owed::Flush(flush);
        self.deadlines.insert((flush.deadline, id));
        self.forget_detached(identity, id);
        Some((id, done))
    }

    /// Adds records that must be settled before the delivery ends.
    pub fn add(&mut self, id: DeliveryId, records: u64) {
        if let Some(delivery) = self.by_id.get_mut(&id) {
            delivery.unsettled += records;
        }
    }

    /// Marks that all records of the delivery have been added.
    pub fn seal(&mut self, id: DeliveryId, now: Instant, out: &mut Vec<Action>) {
        if let Some(delivery) = self.by_id.get_mut(&id) {
            delivery.sealed = true;
        }
        self.end_if_settled(id, now, out);
    }

    /// Marks that only the events `done` have been added, and that the chunk is not kept: once these are settled the flush is answered
    /// RETRY, and [`Ledger::resume`] returns them to the next one.
    pub fn seal_incomplete(&mut self, id: DeliveryId, done: Vec<Range<u32>>, now: Instant, out: &mut Vec<Action>) {
        if let Some(delivery) = self.by_id.get_mut(&id) {
            delivery.incomplete = Some(done);
        }
        self.seal(id, now, out);
    }

    /// The settled events of a chunk that the host had to bring again for the others.
    pub fn resume(&mut self, identity: Identity) -> Vec<Range<u32>> {
        let at = self.resume.iter().position(|(_, other, _)| *other == identity);
        at.and_then(|at| self.resume.remove(at)).map(|(_, _, done)| done).unwrap_or_default()
    }

    /// Whether the host was answered OK.
    pub fn is_acknowledged(&self, id: DeliveryId) -> bool {
        self.by_id.get(&id).is_some_and(|delivery| matches!(delivery.owed, Owed::Acknowledged))
    }

    /// Answers RETRY to the flushes that wait only for records in stuck lanes; `stuck` has the number of those.
    pub fn retry_stuck(&mut self, stuck: &HashMap<DeliveryId, u64>, out: &mut Vec<Action>) {
        for (id, records) in stuck {
            let Some(delivery) = self.by_id.get_mut(id) else { continue };
            if delivery.sealed
                && delivery.kept == Kept::No
                && delivery.unsettled == *records
                && let Owed::Flush(flush) = delivery.owed
            {
                delivery.owed = Owed::Detached;
                self.deadlines.remove(&(flush.deadline, *id));
                self.detached.entry(delivery.identity).or_default().push(*id);
                out.push(Action::Reply { flush: flush.id, status: Status::Retry });
            }
        }
    }

    /// Settles records of the delivery: they were accepted, or dead-lettered.
    pub fn settle(&mut self, id: DeliveryId, records: u64, now: Instant, out: &mut Vec<Action>) {
        let Some(delivery) = self.by_id.get_mut(&id) else { return };
        debug_assert!(delivery.unsettled >= records, "more records are settled than there were");
        delivery.unsettled = delivery.unsettled.saturating_sub(records);
        self.end_if_settled(id, now, out);
    }

    /// The delivery's chunk is in the spool: the host is answered OK.
    pub fn stored(&mut self, id: DeliveryId, now: Instant, out: &mut Vec<Action>) {
        let Some(delivery) = self.by_id.get_mut(&id) else { return };
        if let Kept::Storing(chunk) = delivery.kept {
            delivery.kept = Kept::Stored(chunk);
        }
        self.answer_ok(id, out);
        self.end_if_settled(id, now, out);
    }

    /// The spool could not store the delivery's chunk: its flush now waits for the delivery's end.
    pub fn not_stored(&mut self, id: DeliveryId, now: Instant, out: &mut Vec<Action>) {
        if let Some(delivery) = self.by_id.get_mut(&id) {
            delivery.kept = Kept::No;
        }
        self.end_if_settled(id, now, out);
    }

    /// Answers the flush that waits for it, if one does.
    fn answer_ok(&mut self, id: DeliveryId, out: &mut Vec<Action>) {
        if let Some(delivery) = self.by_id.get_mut(&id)
            && let Owed::Flush(flush) = delivery.owed
        {
            delivery.owed = Owed::Acknowledged;
            self.deadlines.remove(&(flush.deadline, id));
            out.push(Action::Reply { flush: flush.id, status: Status::Ok });
        }
    }

    /// Where the delivery's chunk is kept.
    pub fn kept(&self, id: DeliveryId) -> Kept {
        self.by_id.get(&id).map_or(Kept::No, |delivery| delivery.kept)
    }

    /// Answers RETRY to flushes past their deadline, or to all from `limit` on, and forgets what need not be remembered. Calls `late` with
    /// the size of each one's chunk.
    pub fn expire(&mut self, now: Instant, limit: Option<Instant>, out: &mut Vec<Action>, mut late: impl FnMut(usize)) {
        let all = limit.is_some_and(|limit| limit <= now);
        while let Some((deadline, id)) = self.deadlines.first().copied()
            && (deadline <= now || all)
        {
            self.deadlines.pop_first();
            let Some(delivery) = self.by_id.get_mut(&id) else { continue };
            if let Owed::Flush(flush) = std::mem::replace(&mut delivery.owed, Owed::Detached) {
                self.detached.entry(delivery.identity).or_default().push(id);
                out.push(Action::Reply { flush: flush.id, status: Status::Retry });
                late(flush.size);
            }
        }
        while self.resume.front().is_some_and(|(since, ..)| {
            self.resume.len() > REMEMBER_AT_MOST || now.saturating_duration_since(*since) >= REMEMBER
        }) {
            self.resume.pop_front();
        }
        while let Some((since, id)) = self.remembered.front().copied()
            && (self.remembered.len() > REMEMBER_AT_MOST || now.saturating_duration_since(since) >= REMEMBER)
        {
            self.remembered.pop_front();
            // A flush may have found it, so that it is no longer here.
            if let Some(delivery) = self.by_id.remove(&id) {
                self.forget_detached(delivery.identity, id);
            }
        }
    }

    /// When [`Ledger::expire`] has something to do next.
    pub fn expires_at(&self) -> Option<Instant> {
        let flush = self.deadlines.first().map(|(deadline, _)| *deadline);
        let remembered = self.remembered.front().map(|(since, _)| *since + REMEMBER);
        let resume = self.resume.front().map(|(since, ..)| *since + REMEMBER);
        [flush, remembered, resume].into_iter().flatten().min()
    }

    /// Flushes that wait for an answer.
    pub fn flushes(&self) -> usize {
        self.deadlines.len()
    }

    /// Deliveries that have not ended.
    pub fn unended(&self) -> usize {
        self.unended
    }

    /// Records that are not settled, of all deliveries.
    pub fn unsettled(&self) -> u64 {
        self.by_id.values().map(|delivery| delivery.unsettled).sum()
    }

    /// Ends a delivery if all of it is settled.
    fn end_if_settled(&mut self, id: DeliveryId, now: Instant, out: &mut Vec<Action>) {
        let Some(delivery) = self.by_id.get(&id) else { return };
        if delivery.unsettled > 0 || !delivery.sealed || delivery.ended {
            return;
        }
        if let Some(delivery) = self.by_id.get_mut(&id)
            && let Some(done) = delivery.incomplete.take()
        {
            let (identity, owed) = (delivery.identity, std::mem::replace(&mut delivery.owed, Owed::Acknowledged));
            match owed {
                Owed::Flush(flush) => {
                    self.deadlines.remove(&(flush.deadline, id));
                    out.push(Action::Reply { flush: flush.id, status: Status::Retry });
                }
                Owed::Detached => self.forget_detached(identity, id),
                Owed::Acknowledged => {}
            }
            self.by_id.remove(&id);
            self.unended -= 1;
            self.resume.push_back((now, identity, done));
            return;
        }
        self.answer_ok(id, out);
        let Some(delivery) = self.by_id.get_mut(&id) else { return };
        match delivery.kept {
            // Its file must be removed once it is written.
            Kept::Storing(_) => return,
            Kept::Stored(chunk) => out.push(Action::Remove { chunk }),
            Kept::No => {}
        }
        delivery.kept = Kept::No;
        self.unended -= 1;
        if let Owed::Detached = delivery.owed {
            delivery.ended = true;
            self.remembered.push_back((now, id));
        } else {
            self.by_id.remove(&id);
        }
    }

    fn forget_detached(&mut self, identity: Identity, id: DeliveryId) {
        if let Some(ids) = self.detached.get_mut(&identity) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.detached.remove(&identity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    struct Host {
        ledger: Ledger,
        out: Vec<Action>,
        now: Instant,
        flushes: u64,
    }

    impl Host {
        fn new() -> Host {
            Host { ledger: Ledger::default(), out: Vec::new(), now: Instant::now(), flushes: 0 }
        }

        fn flush(&mut self, wait: Duration) -> Flush {
            self.flushes += 1;
            Flush { id: FlushId(self.flushes), deadline: self.now + wait, size: 7 }
        }

        fn started(&mut self, identity: Identity, wait: Duration) -> (DeliveryId, FlushId) {
            let flush = self.flush(wait);
            assert!(!self.ledger.attach(identity, flush, &mut self.out));
            let id = self.ledger.begin_awaited(identity, flush, None);
            self.ledger.add(id, 3);
            self.ledger.seal(id, self.now, &mut self.out);
            (id, flush.id)
        }

        fn attached(&mut self, identity: Identity) -> FlushId {
            let flush = self.flush(LONG);
            assert!(self.ledger.attach(identity, flush, &mut self.out));
            flush.id
        }

        fn settle(&mut self, id: DeliveryId, records: u64) {
            self.ledger.settle(id, records, self.now, &mut self.out);
        }

        fn expire(&mut self) {
            self.ledger.expire(self.now, None, &mut self.out, |_| {});
        }

        fn replies(&mut self) -> Vec<(FlushId, Status)> {
            let reply = |action| match action {
                Action::Reply { flush, status } => Some((flush, status)),
                _ => None,
            };
            self.out.drain(..).filter_map(reply).collect()
        }
    }

    #[test]
    fn a_flush_is_answered_when_every_record_is_settled() {
        let mut host = Host::new();
        let (id, flush) = host.started(Identity::of(b"t", b"x"), LONG);
        host.settle(id, 2);
        assert!(host.replies().is_empty());
        assert_eq!(host.ledger.flushes(), 1);
        host.settle(id, 1);
        assert_eq!(host.replies(), [(flush, Status::Ok)]);
        assert_eq!((host.ledger.unended(), host.ledger.flushes()), (0, 0));
    }

    #[test]
    fn the_next_flush_is_attached_to_what_the_first_left_behind() {
        let mut host = Host::new();
        let identity = Identity::of(b"t", b"x");
        let (id, first) = host.started(identity, Duration::ZERO);
        host.expire();
        assert_eq!(host.replies(), [(first, Status::Retry)]);
        let second = host.attached(identity);
        // No other can be attached to it now: an equal chunk is a delivery of its own.
        let third = host.flush(LONG);
        assert!(!host.ledger.attach(identity, third, &mut Vec::new()));
        host.settle(id, 3);
        assert_eq!(host.replies(), [(second, Status::Ok)]);
        assert_eq!(host.ledger.unended(), 0);
    }

    #[test]
    fn one_that_has_ended_meanwhile_answers_at_once_and_only_once() {
        let mut host = Host::new();
        let identity = Identity::of(b"t", b"x");
        let (id, first) = host.started(identity, Duration::ZERO);
        host.expire();
        host.settle(id, 3);
        let second = host.attached(identity);
        assert_eq!(host.replies(), [(first, Status::Retry), (second, Status::Ok)]);
        let third = host.flush(LONG);
        assert!(!host.ledger.attach(identity, third, &mut Vec::new()));
    }

    #[test]
    fn two_equal_chunks_are_two_deliveries() {
        let mut host = Host::new();
        let identity = Identity::of(b"t", b"x");
        let (one, _) = host.started(identity, Duration::ZERO);
        let (two, _) = host.started(identity, Duration::ZERO);
        host.expire();
        host.replies();
        let (first, second) = (host.attached(identity), host.attached(identity));
        host.settle(one, 3);
        assert_eq!(host.replies(), [(first, Status::Ok)]);
        host.settle(two, 3);
        assert_eq!(host.replies(), [(second, Status::Ok)]);
    }

    #[test]
    fn a_chunk_that_is_being_stored_answers_once_it_is_and_is_removed_once_settled() {
        let mut host = Host::new();
        let identity = Identity::of(b"t", b"x");
        let flush = host.flush(LONG);
        let id = host.ledger.begin_awaited(identity, flush, Some(ChunkId(5)));
        host.ledger.stored(id, host.now, &mut host.out);
        assert_eq!(host.replies(), [(flush.id, Status::Ok)]);
        host.ledger.add(id, 1);
        host.ledger.seal(id, host.now, &mut host.out);
        host.settle(id, 1);
        assert!(matches!(host.out[..], [Action::Remove { chunk: ChunkId(5) }]));
        // Left by an earlier process: found by the chunk's next flush, before its end and after it.
        for before in [true, false] {
            let mut host = Host::new();
            let id = host.ledger.begin_recovered(identity, ChunkId(6));
            host.ledger.add(id, 1);
            host.ledger.seal(id, host.now, &mut host.out);
            if before {
                host.attached(identity);
                host.settle(id, 1);
            } else {
                host.settle(id, 1);
                host.attached(identity);
            }
            assert!(host.out.iter().any(|action| matches!(action, Action::Remove { chunk: ChunkId(6) })));
            assert_eq!(host.replies().len(), 1);
            assert_eq!(host.ledger.by_id.len(), 0);
        }
    }

    #[test]
    fn what_ended_detached_is_remembered_for_an_hour() {
        let mut host = Host::new();
        let identity = Identity::of(b"t", b"x");
        let (id, _) = host.started(identity, Duration::ZERO);
        host.expire();
        host.settle(id, 3);
        assert_eq!(host.ledger.expires_at(), Some(host.now + REMEMBER));
        host.now += REMEMBER;
        host.expire();
        assert!(host.ledger.by_id.is_empty() && host.ledger.detached.is_empty() && host.ledger.remembered.is_empty());
        for n in 0..REMEMBER_AT_MOST as u32 + 5 {
            let (id, _) = host.started(Identity::of(b"t", &n.to_le_bytes()), Duration::ZERO);
            host.expire();
            host.settle(id, 3);
        }
        host.expire();
        assert_eq!(host.ledger.remembered.len(), REMEMBER_AT_MOST);
    }
}
