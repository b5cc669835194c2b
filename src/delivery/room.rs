//! `max_buffer`: how many bytes an output holds, and whether there is room for a chunk. Host threads reserve; the core counts.

use memmap2::{MmapMut, MmapOptions};
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Copies of at least this size have pages of their own, which go back to the system when nothing uses them: in the host's allocator each of its
/// threads has an arena, which keeps what is freed there.
const OWN_PAGES: usize = 256 << 10;

/// The part of the memory that pages without a copy take at most: four chunks of the host's usual size by default.
const SPARE_SHARE: usize = 8;

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
    spare: Mutex<Spare>,
}

/// Pages whose copy is gone, for the next ones: getting new ones from the system was an eighth of what the output cost.
/// They are not held. After each step of the core, held and spare together are within the limit, if what is held is.
#[derive(Debug, Default)]
struct Spare {
    pages: Vec<MmapMut>,
    bytes: usize,
    /// The fewest bytes since the last [`Room::trim`].
    least: usize,
}

impl Spare {
    /// Pages for so many bytes, of which no more than `waste` are left over.
    fn take(&mut self, bytes: usize, waste: usize) -> Option<MmapMut> {
        let fits = |pages: &MmapMut| pages.len().checked_sub(bytes).is_some_and(|more| more <= waste);
        let smallest = |wanted: &dyn Fn(&MmapMut) -> bool| {
            let wanted = self.pages.iter().enumerate().filter(|(_, pages)| wanted(pages));
            wanted.min_by_key(|(_, pages)| pages.len()).map(|(at, _)| at)
        };
        let found = smallest(&fits);
        // If chunks have become larger, pages that are too small now make way one by one.
        let at = found.or_else(|| smallest(&|pages| pages.len() < bytes))?;
        let pages = self.pages.swap_remove(at);
        self.bytes -= pages.len();
        self.least = self.least.min(self.bytes);
        found.map(|_| pages)
    }

    /// Gives pages back to the system until `bytes` are left at most.
    fn shrink(&mut self, bytes: usize) {
        while self.bytes > bytes
            && let Some(pages) = self.pages.pop()
        {
            self.bytes -= pages.len();
        }
        self.least = self.least.min(self.bytes);
    }
}

impl Room {
    /// Room for `limit` bytes.
    pub fn new(limit: usize) -> Room {
        Room {
            limit,
            held: AtomicUsize::new(0),
            excess: AtomicUsize::new(0),
            copies: AtomicUsize::new(0),
            copies_limit: AtomicUsize::new(limit / 4),
            enough: AtomicUsize::new(usize::MAX),
            spare: Mutex::default(),
        }
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pages for the copy of a chunk. Only its bytes have been reserved: larger pages are taken if there is room for them.
    fn pages(&self, bytes: usize) -> Option<MmapMut> {
        let waste = self.limit.saturating_sub(self.held()).min(bytes);
        let spare = self.spare().take(bytes, waste);
        spare.or_else(|| MmapOptions::new().len(bytes).populate().map_anon().ok())
    }

    /// Keeps the pages of a copy that is no longer needed. They still count as held.
    fn keep(&self, pages: MmapMut) {
        let mut spare = self.spare();
        let bytes = spare.bytes + pages.len();
        if bytes <= self.limit / SPARE_SHARE && self.held() + spare.bytes <= self.limit {
            spare.bytes = bytes;
            spare.pages.push(pages);
        }
    }

    /// Gives pages without a copy back to the system where what is held needs their room.
    pub fn yield_spare(&self) {
        let mut spare = self.spare();
        if self.held() + spare.bytes > self.limit {
            spare.shrink(self.limit.saturating_sub(self.held()));
        }
    }

    /// Gives those back that have not been used since the last time; true if some are left.
    pub fn trim(&self) -> bool {
        let mut spare = self.spare();
        let used = spare.bytes - spare.least;
        spare.shrink(used);
        spare.least = spare.bytes;
        spare.bytes > 0
    }

    /// Bytes of pages without a copy.
    pub fn spare_bytes(&self) -> usize {
        self.spare().bytes
    }

    /// Copies may use so many quarters of the memory; the rest is for the bodies made from them.
    pub fn share_copies(&self, quarters: usize) {
        self.copies_limit.store(self.limit / 4 * quarters, Relaxed);
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
        let pages = (chunk.len() >= OWN_PAGES).then(|| self.room.pages(chunk.len())).flatten();
        match pages {
            Some(mut pages) => {
                pages[..chunk.len()].copy_from_slice(chunk);
                self.count(pages.len());
                Copied { memory: Memory::Pages(pages, chunk.len()), reservation: self }
            }
            None => self.fill(chunk.to_vec()),
        }
    }

    /// Fills it with a chunk that was read from the spool.
    pub fn fill(mut self, bytes: Vec<u8>) -> Copied {
        self.count(bytes.capacity());
        Copied { memory: Memory::Heap(bytes), reservation: self }
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
    reservation: Reservation,
}

#[derive(Debug)]
enum Memory {
    Heap(Vec<u8>),
    /// The copy is so many bytes of them.
    Pages(MmapMut, usize),
}

impl Deref for Copied {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Heap(bytes) => bytes,
            Memory::Pages(pages, length) => pages.get(..*length).unwrap_or_default(),
        }
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        if let Memory::Pages(pages, _) = std::mem::replace(&mut self.memory, Memory::Heap(Vec::new())) {
            self.reservation.room.keep(pages);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_take_their_quarters_of_the_room_and_a_single_chunk_always_fits() {
        let room = Arc::new(Room::new(100));
        room.share_copies(2);
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
        room.share_copies(3);
        let first = room.reserve(75).unwrap();
        assert!(room.reserve(1).is_none());
        drop(first);
        room.share_copies(2);
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
            assert_eq!(matches!(copied.memory, Memory::Pages(..)), length >= OWN_PAGES);
            assert!(*copied == *chunk && room.copies() == length && room.held() == length);
            drop(copied);
            assert_eq!((room.copies(), room.held()), (0, 0));
        }
    }

    #[test]
    fn only_enough_is_copied_but_a_chunk_alone_always() {
        let room = Arc::new(Room::new(64 << 20));
        room.share_copies(2);
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

    #[test]
    fn pages_are_used_again_and_given_back_when_nothing_has_used_them() {
        let room = Arc::new(Room::new(64 << 20));
        let copy = |bytes: usize| room.reserve(bytes).unwrap().copy(&vec![7; bytes]);
        drop(copy(2 << 20));
        assert_eq!((room.held(), room.spare_bytes()), (0, 2 << 20));
        let smaller = copy(3 << 19);
        assert_eq!((smaller.len(), room.copies(), room.spare_bytes()), (3 << 19, 2 << 20, 0));
        drop(smaller);
        // Half of them would be wasted.
        drop(copy((1 << 20) - 1));
        assert_eq!(room.spare_bytes(), (3 << 20) - 1);
        // Both are too small: the smaller one makes way.
        drop(copy(3 << 20));
        assert_eq!(room.spare_bytes(), 5 << 20);
        let many: Vec<_> = (0..8).map(|_| copy(2 << 20)).collect();
        drop(many);
        assert_eq!(room.spare_bytes(), 7 << 20, "no more than an eighth is kept, in two of 2 MB and one of 3");
        assert!(room.trim(), "all have been used since the start");
        drop(copy(2 << 20));
        assert!(room.trim());
        assert_eq!(room.spare_bytes(), 2 << 20);
        assert!(!room.trim());
        assert_eq!((room.held(), room.spare_bytes()), (0, 0));
    }

    #[test]
    fn pages_without_a_copy_take_no_room_from_what_is_held() {
        let room = Arc::new(Room::new(16 << 20));
        drop(room.reserve(2 << 20).unwrap().copy(&vec![7; 2 << 20]));
        room.add(15 << 20);
        room.yield_spare();
        assert_eq!(room.spare_bytes(), 0);
        room.sub(15 << 20);
        let copy = room.reserve(2 << 20).unwrap().copy(&vec![7; 2 << 20]);
        room.add(15 << 20);
        drop(copy);
        assert_eq!(room.spare_bytes(), 0, "there was no room to keep them");
        room.sub(15 << 20);
        // Pages that are larger than the chunk are used only if there is room for all of them.
        drop(room.reserve(2 << 20).unwrap().copy(&vec![7; 2 << 20]));
        room.add((16 << 20) - (3 << 19));
        let copy = room.reserve(3 << 19).unwrap().copy(&vec![7; 3 << 19]);
        assert_eq!((room.held(), copy.len()), (16 << 20, 3 << 19));
    }
}
