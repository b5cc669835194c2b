//! `max_buffer`: how many bytes an output holds, and whether there is room for a chunk. Host threads reserve; the core counts.

use memmap2::{MmapMut, MmapOptions};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Copies of at least this size have pages of their own, which the system gets back at once: in the host's allocator each of its
/// threads has an arena, which keeps what is freed there.
const OWN_PAGES: usize = 256 << 10;

/// As much as keeps the encoder busy until the next flush is told to copy its chunk: two chunks of the host's usual size.
const ENOUGH_TO_ENCODE: usize = 4 << 20;

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
    /// The same, but for a chunk alone; see [`Room::copy_only_enough`].
    enough: AtomicUsize,
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
            enough: AtomicUsize::new(usize::MAX),
        }
    }

    /// Copies may use half of the memory, so that there is always some for the bodies made from them; three quarters if calls are throttled,
    /// since copies hold the same records in less memory than bodies.
    pub fn share_copies(&self, throttled: bool) {
        let limit = if throttled { self.limit / 4 * 3 } else { self.limit / 2 };
        self.copies_limit.store(limit, Relaxed);
    }

    /// Whether only as much is copied as keeps the encoder busy. A chunk that waits for nothing else may as well wait in the host's memory.
    pub fn copy_only_enough(&self, only_enough: bool) {
        self.enough.store(if only_enough { ENOUGH_TO_ENCODE } else { usize::MAX }, Relaxed);
    }

    /// Reserves `bytes` for the copy of a chunk, if that leaves room for bodies. Streams that fail may hold a quarter for long, and chunks
    /// with events for them another one: beside these a chunk of any size is let in.
    pub fn reserve(self: &Arc<Room>, bytes: usize) -> Option<Reservation> {
        let (limit, excess) = (self.limit, self.excess.load(Relaxed));
        let fits = |held: usize| {
            let (held, copies) = (held.saturating_sub(excess), self.copies.load(Relaxed));
            let fits = held + bytes <= limit && copies + bytes <= self.copies_limit.load(Relaxed);
            (fits || held <= limit / 2 && copies <= limit / 4)
                && (copies == 0 || copies + bytes <= self.enough.load(Relaxed))
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
    /// Fills it with a copy of a chunk, made by the host's thread.
    pub fn copy(mut self, chunk: &[u8]) -> Copied {
        let mapped = || MmapOptions::new().len(chunk.len()).populate().map_anon().ok();
        match (chunk.len() >= OWN_PAGES).then(mapped).flatten() {
            Some(mut pages) => {
                pages.copy_from_slice(chunk);
                self.count(pages.len());
                Copied { memory: Memory::Pages(pages), _reservation: self }
            }
            None => self.fill(chunk.to_vec()),
        }
    }

    /// Fills it with a chunk that was read from the spool.
    pub fn fill(mut self, bytes: Vec<u8>) -> Copied {
        self.count(bytes.capacity());
        Copied { memory: Memory::Heap(bytes), _reservation: self }
    }

    /// What was allocated is what counts.
    fn count(&mut self, has: usize) {
        let had = std::mem::replace(&mut self.bytes, has);
        self.room.add(has);
        self.room.copies.fetch_add(has, Relaxed);
        self.room.copies.fetch_sub(had, Relaxed);
        self.room.sub(had);
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
    memory: Memory,
    _reservation: Reservation,
}

#[derive(Debug)]
enum Memory {
    Heap(Vec<u8>),
    Pages(MmapMut),
}

impl Deref for Copied {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Heap(bytes) => bytes,
            Memory::Pages(pages) => pages,
        }
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

    #[test]
    fn a_copy_of_any_size_is_the_chunk_and_is_counted() {
        let room = Arc::new(Room::new(64 << 20));
        for length in [0, 1, OWN_PAGES - 1, OWN_PAGES, OWN_PAGES + 1, 3 << 20] {
            let chunk: Vec<u8> = (0..length).map(|at| (at * 31) as u8).collect();
            let copied = room.reserve(length).unwrap().copy(&chunk);
            assert_eq!(matches!(copied.memory, Memory::Pages(_)), length >= OWN_PAGES);
            assert!(*copied == *chunk && room.copies() == length && room.held() == length);
            drop(copied);
            assert_eq!((room.copies(), room.held()), (0, 0));
        }
    }

    #[test]
    fn only_enough_is_copied_but_a_chunk_alone_always() {
        let room = Arc::new(Room::new(64 << 20));
        room.copy_only_enough(true);
        let two: Vec<_> = (0..2).map(|_| room.reserve(2 << 20).unwrap()).collect();
        assert!(room.reserve(1 << 20).is_none());
        room.copy_only_enough(false);
        drop(room.reserve(1 << 20).unwrap());
        drop(two);
        room.copy_only_enough(true);
        drop(room.reserve(32 << 20).unwrap());
        // As much as without it, too.
        room.add(40 << 20);
        drop(room.reserve(24 << 20).unwrap());
        assert!(room.reserve(25 << 20).is_none());
    }
}
