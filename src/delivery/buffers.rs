//! Used bodies' memory, kept for new ones: a few for all lanes together, so that no stream keeps it from the others.

use crate::delivery::batch::Batch;
use crate::delivery::room::Room;
use std::sync::Arc;

/// How many are kept.
const KEPT: usize = 4;

/// The part of the memory that they take at most: with a small `max_buffer` it is needed for chunks.
const SHARE: usize = 16;

/// Buffers to be filled anew.
pub struct Buffers {
    room: Arc<Room>,
    kept: Vec<Vec<u8>>,
}

impl Buffers {
    /// None yet.
    pub fn new(room: Arc<Room>) -> Buffers {
        Buffers { room, kept: Vec::new() }
    }

    /// One for a body of about this many bytes.
    pub fn take(&mut self, size: usize) -> Vec<u8> {
        let Some(buffer) = self.kept.pop() else { return Vec::with_capacity(size) };
        self.room.sub(buffer.capacity());
        buffer
    }

    /// Keeps the memory of a batch that is no longer needed, if there is room for it.
    pub fn keep(&mut self, batch: Batch) {
        if self.kept.len() < KEPT
            && let Some(buffer) = batch.into_buffer()
            // A body of large records is larger than the next may need.
            && self.room.fits(buffer.capacity())
            && self.held() + buffer.capacity() <= self.room.limit() / SHARE
        {
            self.room.add(buffer.capacity());
            self.kept.push(buffer);
        }
    }

    /// Frees them.
    pub fn free(&mut self) {
        self.room.sub(self.held());
        self.kept = Vec::new();
    }

    /// How much memory they take, in bytes.
    pub fn held(&self) -> usize {
        self.kept.iter().map(Vec::capacity).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::batch::{Batcher, Opening};
    use crate::record::pack::Events;

    fn batch(bytes: usize) -> Batch {
        let mut batcher = Batcher::new(&Opening::new("s"));
        batcher.push(&vec![b'x'; bytes], Events::One(0..1), || Vec::with_capacity(bytes * 2));
        batcher.finish().unwrap()
    }

    #[test]
    fn four_are_kept_and_at_most_a_sixteenth_of_the_memory() {
        for (limit, bytes, kept) in
            [(64 << 20, 500_000, 4), (64 << 20, 1_000_000, 2), (4 << 20, 500_000, 0), (1 << 20, 30_000, 1)]
        {
            let room = Arc::new(Room::new(limit));
            let mut buffers = Buffers::new(room.clone());
            (0..8).for_each(|_| buffers.keep(batch(bytes)));
            assert_eq!((buffers.kept.len(), room.held()), (kept, buffers.held()), "{limit} {bytes}");
            let taken = buffers.take(10);
            assert_eq!(taken.capacity() > bytes, kept > 0);
            assert_eq!(room.held(), buffers.held());
            buffers.free();
            assert_eq!(room.held(), 0);
            // What chunks need is not taken by what may be needed.
            room.add(limit - 10);
            buffers.keep(batch(40_000));
            assert_eq!(buffers.held(), 0);
        }
    }
}
