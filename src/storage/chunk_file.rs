//! The format of a chunk's file: a head, the chunk's bytes, the head again.
//!
//! All numbers are little-endian. The head: magic (8 bytes, the last is the format's version), number of the chunk (u64),
//! size of its bytes (u64), their XXH3 (u64), identity (16 bytes), salt (u64), lengths of tag and delivery stream (u32 each),
//! both texts, XXH3 of all of that (u64). The head's copy at the end is followed by the head's length (u32), so that a
//! chunk survives damage to either.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use xxhash_rust::xxh3::xxh3_64;

/// The first bytes of the file; the last one is the format's version.
pub const MAGIC: &[u8; 8] = b"kubehos2";

/// Size of a head without its texts and its checksum, in bytes.
const FIXED: usize = 64;

/// Maximal size of a head, in bytes; a greater length is damage.
const LONGEST: usize = 1 << 20;

/// The head of a chunk's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The chunk's number.
    pub id: u64,
    /// Size of its bytes.
    pub size: u64,
    /// Their XXH3.
    pub sum: u64,
    /// Its identity.
    pub identity: [u8; 16],
    /// Random, so that notes on another chunk with the same number and bytes do not fit.
    pub salt: u64,
    /// Its tag.
    pub tag: Vec<u8>,
    /// The stream that it is for.
    pub delivery_stream: String,
}

impl Head {
    /// The head as it is written. The last eight bytes are its checksum.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when the texts are too long.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let size = FIXED + self.tag.len() + self.delivery_stream.len() + 8;
        if size > LONGEST {
            let text = format!("a tag of {} bytes is too long for the spool", self.tag.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut head = Vec::with_capacity(size);
        head.extend_from_slice(MAGIC);
        for number in [self.id, self.size, self.sum] {
            head.extend_from_slice(&number.to_le_bytes());
        }
        head.extend_from_slice(&self.identity);
        head.extend_from_slice(&self.salt.to_le_bytes());
        head.extend_from_slice(&(self.tag.len() as u32).to_le_bytes());
        head.extend_from_slice(&(self.delivery_stream.len() as u32).to_le_bytes());
        head.extend_from_slice(&self.tag);
        head.extend_from_slice(self.delivery_stream.as_bytes());
        head.extend_from_slice(&xxh3_64(&head).to_le_bytes());
        Ok(head)
    }

    /// The head that `bytes` begins with, if it is undamaged.
    fn decode(bytes: &[u8]) -> Option<(Head, Place)> {
        let size = encoded_size(bytes)?;
        let (content, sum) = bytes.get(..size)?.split_last_chunk::<8>()?;
        let sum = u64::from_le_bytes(*sum);
        if content.first_chunk() != Some(MAGIC) || xxh3_64(content) != sum {
            return None;
        }
        let tag_size = number32(content, 56)? as usize;
        let (tag, delivery_stream) = content.get(FIXED..)?.split_at_checked(tag_size)?;
        let head = Head {
            id: number64(content, 8)?,
            size: number64(content, 16)?,
            sum: number64(content, 24)?,
            identity: *content.get(32..48)?.first_chunk()?,
            salt: number64(content, 48)?,
            tag: tag.to_vec(),
            delivery_stream: String::from_utf8(delivery_stream.to_vec()).ok()?,
        };
        Some((head, Place { offset: size as u64, sum }))
    }
}

/// The head of a file, and what head and size show about the file.
#[derive(Debug)]
pub struct Opened {
    /// The head, from either of its two places.
    pub head: Head,
    /// Where the chunk's bytes begin.
    pub offset: u64,
    /// The head's checksum, with which notes on this chunk are seeded.
    pub seed: u64,
    /// What is wrong, if anything is.
    pub damage: Option<String>,
}

struct Place {
    offset: u64,
    sum: u64,
}

/// What follows the chunk's bytes: the head again, and its length.
pub fn trailer(head: &[u8]) -> Vec<u8> {
    let mut trailer = Vec::with_capacity(head.len() + 4);
    trailer.extend_from_slice(head);
    trailer.extend_from_slice(&(head.len() as u32).to_le_bytes());
    trailer
}

/// The checksum that an encoded head ends with.
pub fn seed(head: &[u8]) -> u64 {
    head.last_chunk().copied().map_or(0, u64::from_le_bytes)
}

/// Reads the head of a file, from its end if necessary; `Err(text)` if neither place holds one.
///
/// # Errors
/// What the system says.
pub fn read_head(file: &File) -> io::Result<Result<Opened, String>> {
    let size = file.metadata()?.len();
    let front = read_at(file, 0, FIXED, size)?;
    let front = match encoded_size(&front) {
        Some(encoded) => read_at(file, 0, encoded, size)?,
        None => front,
    };
    if let Some((head, Place { offset, sum })) = Head::decode(&front) {
        let whole = (offset + 4).saturating_add(offset).saturating_add(head.size);
        let damage = if size < whole {
            Some(format!("{} of its {whole} bytes are missing", whole - size))
        } else if size > whole {
            Some(format!("it has {} bytes more than it should", size - whole))
        } else if read_at(file, offset.saturating_add(head.size), front.len() + 4, size)? != trailer(&front) {
            Some("the copy of its head has changed".to_owned())
        } else {
            None
        };
        return Ok(Ok(Opened { head, offset, seed: sum, damage }));
    }
    if let Some(from_end) = read_trailer(file, size)? {
        return Ok(Ok(from_end));
    }
    Ok(Err(match front.get(..8) {
        None => format!("it ends within its head, after {size} bytes"),
        Some(magic) if magic == MAGIC => "its head has changed".to_owned(),
        Some([b'k', b'u', b'b', b'e', b'h', b'o', b's', version]) => {
            format!("its format is version '{}', and this kubehose reads version '2'", version.escape_ascii())
        }
        Some(_) => "it does not begin like a chunk of kubehose".to_owned(),
    }))
}

fn read_trailer(file: &File, size: u64) -> io::Result<Option<Opened>> {
    let Some(end) = size.checked_sub(4) else { return Ok(None) };
    let length = read_at(file, end, 4, size)?;
    let Some(length) = number32(&length, 0).filter(|length| *length as usize <= LONGEST) else { return Ok(None) };
    let Some(start) = end.checked_sub(u64::from(length)) else { return Ok(None) };
    let Some((head, Place { offset, sum })) = Head::decode(&read_at(file, start, length as usize, size)?) else {
        return Ok(None);
    };
    // Otherwise a part in the middle is missing, and it is not known where the bytes begin.
    if offset != u64::from(length) || offset.checked_add(head.size) != Some(start) {
        return Ok(None);
    }
    Ok(Some(Opened { head, offset, seed: sum, damage: Some("its head has changed; a copy was read".to_owned()) }))
}

/// Reads the chunk's bytes into `buffer`: all of them, or those that remain. Returns what is wrong with them.
///
/// # Errors
/// What the system says.
pub fn read_body(mut file: &File, opened: &Opened, buffer: &mut Vec<u8>) -> io::Result<Option<String>> {
    buffer.clear();
    let there = file.metadata()?.len().saturating_sub(opened.offset).min(opened.head.size);
    buffer.reserve_exact(usize::try_from(there).unwrap_or(0));
    file.seek(io::SeekFrom::Start(opened.offset))?;
    if let Err(error) = file.take(there).read_to_end(buffer) {
        let read = buffer.len();
        return Ok(Some(format!("only {read} of its {} bytes of events can be read: {error}", opened.head.size)));
    }
    if (buffer.len() as u64) < opened.head.size {
        return Ok(Some(format!("{} of its {} bytes of events are there", buffer.len(), opened.head.size)));
    }
    Ok((xxh3_64(buffer) != opened.head.sum).then(|| "some of its bytes have changed".to_owned()))
}

/// Size of the head that these bytes begin with, if it is possible.
fn encoded_size(bytes: &[u8]) -> Option<usize> {
    let texts = u64::from(number32(bytes, 56)?) + u64::from(number32(bytes, 60)?);
    let size = usize::try_from(texts).ok()?.checked_add(FIXED + 8)?;
    (size <= LONGEST).then_some(size)
}

/// `length` bytes, or as many as the file has.
fn read_at(file: &File, offset: u64, length: usize, size: u64) -> io::Result<Vec<u8>> {
    let length = length.min(usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX));
    let mut bytes = vec![0; length];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(bytes),
        // The file was cut since its size was read.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn number64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}
