//! What was made of a value before, found again by the value's bytes.
//!
//! All lines of a container have the same `kubernetes` map, and it is more than half of most events: what is made of it once
//! serves for the next.

use xxhash_rust::xxh3::xxh3_64;

/// How many values are kept: about as many as a node has pods.
const KNOWN: usize = 128;

/// Larger values are not kept.
const KNOWN_BYTES: usize = 4096;

/// How many of its first bytes decide the place of a value: enough for the pod's name, which comes first in a `kubernetes` map.
const TELLING: usize = 128;

/// Values with what was made of each. Each is kept at a place that depends on its first bytes, and takes the place of the one before.
#[derive(Clone, Debug, Default)]
pub struct Known<T> {
    places: Vec<(Vec<u8>, T)>,
}

impl<T: Default> Known<T> {
    /// How many bytes the value has that begins `data`, and what was made of it; if it is not known, its place for
    /// [`Known::keep`].
    ///
    /// # Errors
    /// The place.
    pub fn find(&self, data: &[u8]) -> Result<(usize, &T), usize> {
        let place = xxh3_64(data.get(..TELLING).unwrap_or(data)) as usize % KNOWN;
        match self.places.get(place) {
            // Data that begins with all bytes of a value begins with that value.
            Some((bytes, made)) if !bytes.is_empty() && data.starts_with(bytes) => Ok((bytes.len(), made)),
            _ => Err(place),
        }
    }

    /// A place for what is made of this value, with what was made of the value before it; none if the value is too large.
    pub fn keep(&mut self, place: usize, value: &[u8]) -> Option<&mut T> {
        if value.len() > KNOWN_BYTES {
            return None;
        }
        self.places.resize_with(KNOWN, Default::default);
        let (bytes, made) = self.places.get_mut(place)?;
        bytes.clear();
        bytes.extend_from_slice(value);
        Some(made)
    }
}
