//! What was made of a value before, found again by the value's bytes.
//!
//! All lines of a container have the same `kubernetes` map, and it is more than half of most events: what is made of it once
//! serves for the next.

use xxhash_rust::xxh3::xxh3_64;

/// How many values are kept: about as many as a node has pods.
const KNOWN: usize = SETS * WAYS;

/// A value has its place in one of so many sets, by its first bytes.
const SETS: usize = 16;

/// How many values a set holds. With one each, a third of 50 pods would take each other's place, line by line.
const WAYS: usize = 8;

/// Larger values are not kept.
const KNOWN_BYTES: usize = 4096;

/// How many of its first bytes decide the place of a value: enough for the pod's name, which comes first in a `kubernetes` map.
/// Shorter values are not kept, since what follows them differs from event to event; they cost little to read again.
const TELLING: usize = 128;

/// Values with what was made of each. In a full set a new value takes the place of the oldest.
#[derive(Clone, Debug, Default)]
pub struct Known<T> {
    /// The hash of each value's first bytes, set by set; 0 if there is none.
    hashes: Vec<u64>,
    values: Vec<(Vec<u8>, T)>,
    /// Which place of each set is next.
    next: [usize; SETS],
}

/// The hash of the first bytes of a value that is not known.
#[derive(Clone, Copy, Debug)]
pub struct Unknown(u64);

impl<T: Default> Known<T> {
    /// How many bytes the value has that begins `data`, and what was made of it.
    ///
    /// # Errors
    /// It is not known. With this [`Known::keep`] takes it.
    pub fn find(&self, data: &[u8]) -> Result<(usize, &T), Unknown> {
        let hash = xxh3_64(data.get(..TELLING).unwrap_or(data)).max(1);
        let first = first_of_set(hash);
        let hashes = self.hashes.get(first..first + WAYS).unwrap_or_default();
        for (place, _) in hashes.iter().enumerate().filter(|(_, kept)| **kept == hash) {
            // Data that begins with all bytes of a value begins with that value.
            if let Some((bytes, made)) = self.values.get(first + place)
                && data.starts_with(bytes)
            {
                return Ok((bytes.len(), made));
            }
        }
        Err(Unknown(hash))
    }

    /// A place for what is made of this value, with what was made of the value before it; none if the value is not to be kept.
    pub fn keep(&mut self, Unknown(hash): Unknown, value: &[u8]) -> Option<&mut T> {
        if !(TELLING..=KNOWN_BYTES).contains(&value.len()) {
            return None;
        }
        self.hashes.resize(KNOWN, 0);
        self.values.resize_with(KNOWN, Default::default);
        let first = first_of_set(hash);
        let next = self.next.get_mut(first / WAYS)?;
        let place = first + *next;
        *next = (*next + 1) % WAYS;
        *self.hashes.get_mut(place)? = hash;
        let (bytes, made) = self.values.get_mut(place)?;
        bytes.clear();
        bytes.extend_from_slice(value);
        Some(made)
    }
}

const fn first_of_set(hash: u64) -> usize {
    hash as usize % SETS * WAYS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a pod, and what follows it in an event.
    fn event(pod: usize, bytes: usize, line: usize) -> (Vec<u8>, usize) {
        let mut data = format!("{pod:04}").repeat(bytes / 4).into_bytes();
        let value = data.len();
        data.extend_from_slice(format!("line {line} of a log").as_bytes());
        (data, value)
    }

    /// How many events of `lines` rounds over all pods found what was made of their value before.
    fn found(pods: usize, bytes: usize, lines: usize) -> usize {
        let mut known = Known::<usize>::default();
        let mut found = 0;
        for line in 0..lines {
            for pod in 0..pods {
                let (data, value) = event(pod, bytes, line);
                match known.find(&data) {
                    Ok((length, made)) => {
                        assert_eq!((length, *made), (value, pod));
                        found += 1;
                    }
                    Err(unknown) => {
                        if let Some(made) = known.keep(unknown, data.get(..value).unwrap()) {
                            *made = pod;
                        }
                    }
                }
            }
        }
        found
    }

    #[test]
    fn the_values_of_a_nodes_pods_are_all_found_again() {
        for pods in [1, 20, 50] {
            assert_eq!(found(pods, 600, 10), pods * 9, "of {pods} pods");
        }
        assert!(found(100, 600, 10) > 100 * 9 * 8 / 10, "of more than fit well");
    }

    #[test]
    fn values_that_are_too_short_or_too_long_take_no_place() {
        assert_eq!((found(5, 124, 3), found(5, 4100, 3)), (0, 0));
        assert_eq!((found(5, 128, 3), found(5, 4096, 3)), (10, 10));
    }

    #[test]
    fn values_with_the_same_beginning_are_told_apart() {
        let mut known = Known::<u8>::default();
        let values = [1, 2, 3].map(|last| [vec![b'a'; 200], vec![last]].concat());
        for (number, value) in (0..).zip(&values) {
            let unknown = known.find(value).unwrap_err();
            *known.keep(unknown, value).unwrap() = number;
        }
        for (number, value) in (0..).zip(&values) {
            assert_eq!(known.find(value).map(|(length, made)| (length, *made)).ok(), Some((201, number)));
        }
    }
}
