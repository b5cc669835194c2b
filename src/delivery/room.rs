//! `max_buffer`: how many bytes an output holds, and whether there is room for a chunk. Host threads reserve; the core counts.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The memory of one output. Counts allocated capacity, not lengths.
#[derive(Debug)]
pub struct Room {
    limit: usize,
    held: AtomicUsize,
    /// The part of `held` that lanes hold beyond their shares. It keeps no chunk out.
    excess: AtomicUsize,
    /// The part of `held` that is copies of chunks that are not encoded yet.
    copies: AtomicUsize,
    /// The most that these may be.
    copies_limit: AtomicUsize,
}

impl Room {
    /// Room for `limit` bytes.
    pub fn new(limit: usize) -> Room {
        Room {
            limit,
            held: AtomicUsize::new(0),
            excess: AtomicUsize::new(0),
            copies: AtomicUsize::new(0),
            copies_limit: AtomicUsize::new(limit / 2),
        }
    }

    /// Copies may use half of the memory, so that there is always some for the bodies made from them; three quarters if calls are throttled,
    /// since copies hold the same records in less memory than bodies.
    pub fn share_copies(&self, throttled: bool) {
        let limit = if throttled { self.limit / 4 * 3 } else { self.limit / 2 };
        self.copies_limit.store(limit, Relaxed);
    }

    /// Reserves `bytes` for the copy of a chunk, if that leaves room for bodies. Streams that fail may hold a quarter for long, and chunks
    /// with events for them another one: beside these a chunk of any size is let in.
    pub fn reserve(self: &Arc<Room>, bytes: usize) -> Option<Reservation> {
        let (limit, excess) = (self.limit, self.excess.load(Relaxed));
        let fits = |held: usize| {
            let (held, copies) = (held.saturating_sub(excess), self.copies.load(Relaxed));
            let fits = held + bytes <= limit && copies + bytes <= self.copies_limit.load(Relaxed);
            fits || held <= limit / 2 && copies <= limit / 4
        };
        // Two threads may pass the check for copies at once; the check for all is exact.
        self.held.fetch_update(Relaxed, Relaxed, |held| fits(held).then(|| held + bytes)).ok()?;
        self.copies.fetch_add(bytes, Relaxed);
        Some(Reservation { room: self.clone(), bytes })
    }

    /// Counts a chunk read from the spool, even if there is no room.
    pub fn count_copy(self: &Arc<Room>, bytes: Vec<u8>) -> Copied {
        Reservation { room: self.clone(), bytes: 0 }.fill(bytes)
    }

    /// Bytes of chunks that have not been encoded.
    pub fn copies(&self) -> usize {
        self.copies.load(Relaxed)
    }

    /// Adds bytes that are held.
    pub fn add(&self, bytes: usize) {
        self.held.fetch_add(bytes, Relaxed);
    }

    /// Subtracts bytes that are no longer held.
    pub fn sub(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
    }

    /// Whether `bytes` more stay within the limit.
    pub fn fits(&self, bytes: usize) -> bool {
        self.held().saturating_sub(self.excess.load(Relaxed)) + bytes <= self.limit
    }

    /// Sets how many bytes lanes hold beyond their shares.
    pub fn set_excess(&self, bytes: usize) {
        self.excess.store(bytes, Relaxed);
    }

    /// How many bytes lanes hold beyond their shares.
    pub fn excess(&self) -> usize {
        self.excess.load(Relaxed)
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// The most bytes that may be held.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

/// A part of the room, until it is dropped.
#[derive(Debug)]
pub struct Reservation {
    room: Arc<Room>,
    bytes: usize,
}

impl Reservation {
    /// Fills it: a copy of a chunk, made by the host's thread, or read from the spool.
    pub fn fill(mut self, bytes: Vec<u8>) -> Copied {
        // What was allocated is what counts.
        let (had, has) = (self.bytes, bytes.capacity());
        self.room.add(has);
        self.room.copies.fetch_add(has, Relaxed);
        self.room.copies.fetch_sub(had, Relaxed);
        self.room.sub(had);
        self.bytes = has;
        Copied { bytes, _reservation: self }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.room.copies.fetch_sub(self.bytes, Relaxed);
        self.room.sub(self.bytes);
    }
}

/// A chunk in our own memory, counted in the room until it is dropped.
#[derive(Debug)]
pub struct Copied {
    bytes: Vec<u8>,
    _reservation: Reservation,
}

impl Deref for Copied {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_take_half_of_the_room_and_a_single_chunk_always_fits() {
        let room = Arc::new(Room::new(100));
        let alone = room.reserve(500).unwrap();
        assert!(room.reserve(1).is_none());
        drop(alone);
        // What streams that are out of order hold, and chunks of theirs.
        room.add(25);
        let chunks = room.reserve(25).unwrap();
        drop(room.reserve(500).unwrap());
        drop(chunks);
        room.sub(25);
        room.add(51);
        assert!(room.reserve(500).is_none());
        room.set_excess(1);
        assert!(room.reserve(500).is_some());
        room.set_excess(0);
        room.sub(1);
        assert!(room.reserve(500).is_some());
        room.sub(50);
        let first = room.reserve(40).unwrap();
        assert!(room.reserve(20).is_none());
        let second = room.reserve(10).unwrap();
        drop(room.reserve(0));
        room.add(45);
        assert!(room.reserve(6).is_none());
        room.sub(45);
        drop(first);
        let copied = second.fill(Vec::with_capacity(30));
        assert_eq!((room.held(), room.copies(), copied.len()), (30, 30, 0));
        drop(copied);
        assert_eq!((room.held(), room.copies()), (0, 0));
        room.share_copies(true);
        let first = room.reserve(75).unwrap();
        assert!(room.reserve(1).is_none());
        drop(first);
        room.share_copies(false);
        drop(room.reserve(1).unwrap());
        let _first = room.reserve(50).unwrap();
        assert!(room.reserve(1).is_none());
    }
}
