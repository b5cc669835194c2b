//! What is owed to the host: which chunks are on their way, and which flush waits for which of them.
//!
//! A delivery outlives its flush. One whose flush was answered RETRY is *detached*: it goes on, and the chunk's next flush
//! is attached to it instead of starting another. Invariants: a delivery has at most one flush; a flush is answered
//! exactly once; what was answered OK is forgotten, so that an equal chunk that comes later is a delivery of its own.

use crate::host::Status;
use crate::metrics::Counts;
use crate::storage::spool::Spooled;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// How long an ended delivery is remembered whose chunk the host may still bring again. The host's scheduler waits at
/// most 2,000 s between retries by default (`scheduler.cap`).
const REMEMBER: Duration = Duration::from_secs(3600);

/// How many of those are remembered at most.
const REMEMBER_AT_MOST: usize = 10_000;

/// What makes a chunk the same chunk when it comes again: its tag and a 128-bit hash of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(u128);

impl Identity {
    /// Of these bytes under this tag.
    pub fn of(tag: &[u8], bytes: &[u8]) -> Identity {
        Identity(xxh3_128_with_seed(bytes, xxh3_64(tag)))
    }

    /// As it is written into files.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// As it was written.
    pub fn from_bytes(bytes: [u8; 16]) -> Identity {
        Identity(u128::from_le_bytes(bytes))
    }
}

/// A flush that waits for its answer.
#[derive(Debug)]
pub struct Flush {
    /// Where the answer goes.
    pub reply: oneshot::Sender<Status>,
    /// Until when it waits.
    pub deadline: Instant,
}

impl Flush {
    /// Answers it. It may have gone only with the process.
    pub fn answer(self, status: Status) {
        let _ = self.reply.send(status);
    }
}

/// A delivery's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(u64);

/// What the host knows of a delivery.
#[derive(Debug)]
enum Owed {
    /// Nothing yet: its flush is still with the encoder.
    Nothing,
    /// A flush waits for its end.
    Flush(Flush),
    /// Its flush was answered RETRY.
    Detached,
    /// Its flush was answered OK before its end.
    Acknowledged,
}

#[derive(Debug)]
struct Delivery {
    identity: Identity,
    /// Records that are not settled.
    unsettled: u64,
    owed: Owed,
    /// All its records have been added.
    sealed: bool,
    ended: bool,
    /// Where its chunk is kept until it ends.
    spooled: Option<Arc<Spooled>>,
}

#[derive(Default)]
struct Deliveries {
    next: u64,
    by_id: HashMap<DeliveryId, Delivery>,
    detached: HashMap<Identity, Vec<DeliveryId>>,
    /// Flushes that wait.
    flushes: usize,
    /// Ended and detached, the oldest first.
    remembered: VecDeque<(Instant, DeliveryId)>,
}

/// The deliveries of one output.
pub struct Ledger {
    deliveries: Mutex<Deliveries>,
    counts: Arc<Counts>,
}

impl Ledger {
    /// An empty one, which keeps `counts.held`.
    pub fn new(counts: Arc<Counts>) -> Ledger {
        Ledger { deliveries: Mutex::default(), counts }
    }

    fn lock(&self) -> MutexGuard<'_, Deliveries> {
        // No panic can leave it half changed: nothing below can panic between two changes that belong together.
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A delivery whose flush was answered RETRY and whose chunk this is.
    pub fn detached(&self, identity: Identity) -> Option<DeliveryId> {
        self.lock().detached.get(&identity)?.first().copied()
    }

    /// Lets `flush` wait for a detached delivery, or answers it at once if that has ended or stands in the spool.
    pub fn attach(&self, id: DeliveryId, flush: Flush) {
        let mut deliveries = self.lock();
        let Some(delivery) = deliveries.by_id.get_mut(&id) else {
            // Only the encoder attaches and forgets; should it ever be, the chunk just comes again.
            return flush.answer(Status::Retry);
        };
        let identity = delivery.identity;
        let done = delivery.ended || delivery.spooled.is_some();
        if delivery.ended {
            deliveries.by_id.remove(&id);
        } else if done {
            delivery.owed = Owed::Acknowledged;
        } else {
            delivery.owed = Owed::Flush(flush);
            deliveries.flushes += 1;
            return deliveries.forget_detached(identity, id);
        }
        deliveries.forget_detached(identity, id);
        drop(deliveries);
        flush.answer(Status::Ok);
    }

    /// Begins a delivery.
    pub fn begin(&self, identity: Identity) -> DeliveryId {
        self.lock().begin(identity, Owed::Nothing, None)
    }

    /// Begins a delivery whose chunk is in the spool, which is as good as done for the host.
    pub fn begin_spooled(&self, identity: Identity, spooled: Arc<Spooled>) -> DeliveryId {
        self.lock().begin(identity, Owed::Acknowledged, Some(spooled))
    }

    /// Begins a delivery whose chunk an earlier process left in the spool. It may have ended before its flush was
    /// answered: then the host brings the chunk again, and must find it here.
    pub fn begin_left(&self, identity: Identity, spooled: Arc<Spooled>) -> DeliveryId {
        let mut deliveries = self.lock();
        let id = deliveries.begin(identity, Owed::Detached, Some(spooled));
        deliveries.detached.entry(identity).or_default().push(id);
        id
    }

    /// More records of a delivery are on their way.
    pub fn add(&self, id: DeliveryId, records: u64) {
        if let Some(delivery) = self.lock().by_id.get_mut(&id) {
            delivery.unsettled += records;
        }
    }

    /// All records of the delivery have been added, and `flush` waits for its end.
    pub fn seal(&self, id: DeliveryId, flush: Flush) {
        self.seal_as(id, Some(Owed::Flush(flush)));
    }

    /// All records of the delivery have been added, and its flush was answered OK.
    pub fn seal_acknowledged(&self, id: DeliveryId) {
        self.seal_as(id, Some(Owed::Acknowledged));
    }

    /// All records of a delivery from the spool have been added.
    pub fn seal_spooled(&self, id: DeliveryId) {
        self.seal_as(id, None);
    }

    fn seal_as(&self, id: DeliveryId, owed: Option<Owed>) {
        let mut deliveries = self.lock();
        let Some(delivery) = deliveries.by_id.get_mut(&id) else { return };
        delivery.sealed = true;
        if let Some(owed) = owed {
            let waits = matches!(owed, Owed::Flush(_));
            delivery.owed = owed;
            deliveries.flushes += usize::from(waits);
        }
        let ended = deliveries.end_if_settled(id);
        drop(deliveries);
        remove(ended);
    }

    /// So many records of the delivery are settled: accepted, or put aside.
    pub fn settle(&self, id: DeliveryId, records: u64) {
        let mut deliveries = self.lock();
        let Some(delivery) = deliveries.by_id.get_mut(&id) else { return };
        delivery.unsettled = delivery.unsettled.saturating_sub(records);
        let ended = deliveries.end_if_settled(id);
        drop(deliveries);
        remove(ended);
    }

    /// Answers RETRY to the flushes whose time is over, which it is at `limit` for all, forgets what need not be remembered, and says
    /// when to come again.
    pub fn expire(&self, now: Instant, limit: Option<Instant>) -> Option<Instant> {
        let mut deliveries = self.lock();
        let mut next: Option<Instant> = None;
        let mut late = Vec::new();
        for (id, delivery) in &mut deliveries.by_id {
            let Owed::Flush(flush) = &delivery.owed else { continue };
            let deadline = limit.map_or(flush.deadline, |limit| limit.min(flush.deadline));
            if deadline > now {
                next = Some(next.map_or(deadline, |earliest| earliest.min(deadline)));
            } else if let Owed::Flush(flush) = std::mem::replace(&mut delivery.owed, Owed::Detached) {
                late.push((*id, delivery.identity));
                flush.answer(Status::Retry);
            }
        }
        deliveries.flushes -= late.len();
        // The one that began first is joined first.
        late.sort_unstable_by_key(|(id, _)| *id);
        for (id, identity) in late {
            deliveries.detached.entry(identity).or_default().push(id);
        }
        while let Some((since, id)) = deliveries.remembered.front().copied() {
            if deliveries.remembered.len() <= REMEMBER_AT_MOST && now.duration_since(since) < REMEMBER {
                break;
            }
            deliveries.remembered.pop_front();
            // It may have been joined, and forgotten, since.
            if let Some(delivery) = deliveries.by_id.remove(&id) {
                deliveries.forget_detached(delivery.identity, id);
            }
        }
        next
    }

    /// Flushes that wait for the end of their deliveries.
    pub fn flushes(&self) -> usize {
        self.lock().flushes
    }

    /// Deliveries that have not ended.
    pub fn unended(&self) -> usize {
        self.lock().by_id.values().filter(|delivery| !delivery.ended).count()
    }

    /// The counts that the ledger's output keeps.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }
}

/// Removes an ended delivery's chunk from the spool, outside the lock. If the file cannot be removed now, the next start
/// finds in its notes that all of it is settled, and removes it then.
fn remove(ended: Option<Arc<Spooled>>) {
    if let Some(spooled) = ended {
        let _ = spooled.remove();
    }
}

impl Deliveries {
    fn begin(&mut self, identity: Identity, owed: Owed, spooled: Option<Arc<Spooled>>) -> DeliveryId {
        self.next += 1;
        let id = DeliveryId(self.next);
        self.by_id.insert(id, Delivery { identity, unsettled: 0, owed, sealed: false, ended: false, spooled });
        id
    }

    /// Ends a delivery if nothing of it is left to be settled; gives back where its chunk was kept.
    fn end_if_settled(&mut self, id: DeliveryId) -> Option<Arc<Spooled>> {
        let delivery = self.by_id.get_mut(&id)?;
        if delivery.unsettled > 0 || !delivery.sealed {
            return None;
        }
        if matches!(delivery.owed, Owed::Detached) {
            if !std::mem::replace(&mut delivery.ended, true) {
                self.remembered.push_back((Instant::now(), id));
            }
            return delivery.spooled.take();
        }
        let Delivery { owed, spooled, .. } = self.by_id.remove(&id)?;
        if let Owed::Flush(flush) = owed {
            self.flushes -= 1;
            flush.answer(Status::Ok);
        }
        spooled
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
    use tokio::sync::oneshot::Receiver;

    fn flush(wait: Duration) -> (Flush, Receiver<Status>) {
        let (reply, answer) = oneshot::channel();
        (Flush { reply, deadline: Instant::now() + wait }, answer)
    }

    const LONG: Duration = Duration::from_secs(60);

    fn started(ledger: &Ledger, identity: Identity, wait: Duration) -> (DeliveryId, Receiver<Status>) {
        assert_eq!(ledger.detached(identity), None);
        let id = ledger.begin(identity);
        ledger.add(id, 3);
        let (flush, answer) = flush(wait);
        ledger.seal(id, flush);
        (id, answer)
    }

    #[test]
    fn a_flush_is_answered_when_every_record_is_settled() {
        let ledger = Ledger::new(Arc::default());
        let (id, mut answer) = started(&ledger, Identity::of(b"t", b"x"), LONG);
        ledger.settle(id, 2);
        assert!(answer.try_recv().is_err());
        assert_eq!(ledger.flushes(), 1);
        ledger.settle(id, 1);
        assert_eq!(answer.try_recv(), Ok(Status::Ok));
        assert_eq!((ledger.unended(), ledger.flushes()), (0, 0));
    }

    #[test]
    fn the_next_flush_joins_what_the_first_left_behind() {
        let ledger = Ledger::new(Arc::default());
        let identity = Identity::of(b"t", b"x");
        let (id, mut first) = started(&ledger, identity, Duration::ZERO);
        ledger.expire(Instant::now(), None);
        assert_eq!(first.try_recv(), Ok(Status::Retry));
        assert_eq!(ledger.flushes(), 0);
        assert_eq!(ledger.detached(Identity::of(b"u", b"x")), None);
        let joined = ledger.detached(identity).unwrap();
        assert_eq!(joined, id);
        let (second, mut answer) = flush(LONG);
        ledger.attach(joined, second);
        assert_eq!(ledger.flushes(), 1);
        // Nobody else can join it now: an equal chunk is a delivery of its own.
        assert_eq!(ledger.detached(identity), None);
        ledger.settle(id, 3);
        assert_eq!(answer.try_recv(), Ok(Status::Ok));
        assert_eq!(ledger.detached(identity), None);
    }

    #[test]
    fn one_that_has_ended_meanwhile_answers_at_once_and_only_once() {
        let ledger = Ledger::new(Arc::default());
        let identity = Identity::of(b"t", b"x");
        let (id, _) = started(&ledger, identity, Duration::ZERO);
        ledger.expire(Instant::now(), None);
        ledger.settle(id, 3);
        assert_eq!(ledger.unended(), 0);
        let (second, mut answer) = flush(LONG);
        ledger.attach(ledger.detached(identity).unwrap(), second);
        assert_eq!(answer.try_recv(), Ok(Status::Ok));
        assert_eq!(ledger.detached(identity), None);
    }

    #[test]
    fn two_equal_chunks_are_two_deliveries() {
        let ledger = Ledger::new(Arc::default());
        let identity = Identity::of(b"t", b"x");
        let (one, _a) = started(&ledger, identity, Duration::ZERO);
        let (two, _b) = started(&ledger, identity, Duration::ZERO);
        ledger.expire(Instant::now(), None);
        let (flush_one, mut answer_one) = flush(LONG);
        let (flush_two, mut answer_two) = flush(LONG);
        ledger.attach(ledger.detached(identity).unwrap(), flush_one);
        ledger.attach(ledger.detached(identity).unwrap(), flush_two);
        assert_eq!(ledger.detached(identity), None);
        ledger.settle(one, 3);
        assert_eq!((answer_one.try_recv().is_ok(), answer_two.try_recv().is_ok()), (true, false));
        ledger.settle(two, 3);
        assert_eq!(answer_two.try_recv(), Ok(Status::Ok));
    }

    #[test]
    fn a_chunk_that_was_left_in_the_spool_is_found_again_and_removed_once_settled() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, _) = crate::storage::spool::Spool::open(folder.path(), 1 << 20).unwrap();
        let identity = Identity::of(b"t", b"x");
        for joined_before_its_end in [true, false] {
            let ledger = Ledger::new(Arc::default());
            let spooled = Arc::new(spool.add(identity, b"t", b"x").unwrap());
            let id = ledger.begin_left(identity, spooled.clone());
            ledger.add(id, 3);
            let join = || {
                let (flush, mut answer) = flush(LONG);
                ledger.attach(ledger.detached(identity).unwrap(), flush);
                assert_eq!(answer.try_recv(), Ok(Status::Ok));
            };
            if joined_before_its_end {
                join();
            }
            ledger.seal_spooled(id);
            assert!(spooled.file().exists());
            ledger.settle(id, 3);
            assert!(!spooled.file().exists());
            if !joined_before_its_end {
                join();
            }
            assert_eq!((ledger.detached(identity), ledger.unended()), (None, 0));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_in_time_and_number() {
        let ledger = Ledger::new(Arc::default());
        let now = Instant::now();
        for number in 0..REMEMBER_AT_MOST + 5 {
            let (id, _) = started(&ledger, Identity::of(b"t", &number.to_le_bytes()), Duration::ZERO);
            ledger.expire(now + Duration::from_secs(1), None);
            ledger.settle(id, 3);
        }
        ledger.expire(now, None);
        assert_eq!(ledger.detached(Identity::of(b"t", &0usize.to_le_bytes())), None);
        assert!(ledger.detached(Identity::of(b"t", &REMEMBER_AT_MOST.to_le_bytes())).is_some());
        assert_eq!(ledger.lock().by_id.len(), REMEMBER_AT_MOST);
        ledger.expire(Instant::now() + REMEMBER, None);
        let deliveries = ledger.lock();
        assert_eq!((deliveries.by_id.len(), deliveries.detached.len(), deliveries.remembered.len()), (0, 0, 0));
    }
}
