//! The entry of a consume queue: where a message is in the log, and the hash of its tag.
//!
//! Bytes in the file, big-endian: `i64 physical offset, i32 size, i64 tags code`.

use super::limits::ENTRY_BYTES;
use crate::types::PhysicalOffset;

/// Length of an entry as an array length.
pub(crate) const ENTRY_LENGTH: usize = 20;
const _: () = assert!(ENTRY_LENGTH as u64 == ENTRY_BYTES);

/// One message of a queue. Source: RocketMQ `ConsumeQueue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueEntry {
    /// Start of the record in the log.
    pub physical: PhysicalOffset,
    /// Length of the record in bytes; positive in every valid entry.
    pub size: u32,
    /// Hash of the message's tag, sign-extended; 0 without a tag.
    pub tags_code: i64,
}

impl QueueEntry {
    /// What fills the first file of a queue that does not begin at its file's start. Source: `ConsumeQueue.fillPreBlank`.
    pub const BLANK: Self = Self { physical: PhysicalOffset(0), size: 0x7FFF_FFFF, tags_code: 0 };

    /// First byte of the log behind the record.
    pub fn physical_end(&self) -> PhysicalOffset {
        PhysicalOffset(self.physical.0.saturating_add(u64::from(self.size)))
    }

    /// Whether this is filling and no message.
    pub fn is_blank(&self) -> bool {
        *self == Self::BLANK
    }

    /// The file's form.
    pub fn to_bytes(self) -> [u8; ENTRY_LENGTH] {
        let mut bytes = [0; ENTRY_LENGTH];
        bytes[..8].copy_from_slice(&self.physical.0.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.size.to_be_bytes());
        bytes[12..].copy_from_slice(&self.tags_code.to_be_bytes());
        bytes
    }

    /// Reads the file's form. `None` for what ends a queue: a negative offset, or a size of zero or less.
    pub fn from_bytes(bytes: &[u8; ENTRY_LENGTH]) -> Option<Self> {
        let [p0, p1, p2, p3, p4, p5, p6, p7, s0, s1, s2, s3, tags @ ..] = *bytes;
        let physical = i64::from_be_bytes([p0, p1, p2, p3, p4, p5, p6, p7]);
        let size = i32::from_be_bytes([s0, s1, s2, s3]);
        let (physical, size) = (u64::try_from(physical).ok()?, u32::try_from(size).ok()?);
        (size > 0).then(|| Self { physical: PhysicalOffset(physical), size, tags_code: i64::from_be_bytes(tags) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_entry() {
        // Goal: the bytes Java writes. Method: an entry whose bytes were decoded by Java's own classes.
        let entry = QueueEntry { physical: PhysicalOffset(1024), size: 165, tags_code: 2_598_919 };
        let bytes = [0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0xa5, 0, 0, 0, 0, 0, 0x27, 0xa8, 0x07];
        assert_eq!(entry.to_bytes(), bytes);
        assert_eq!(QueueEntry::from_bytes(&bytes), Some(entry));
        let negative = QueueEntry { tags_code: -2, ..entry };
        assert_eq!(QueueEntry::from_bytes(&negative.to_bytes()), Some(negative));
    }

    #[test]
    fn invalid_entries() {
        // Goal: what ends a queue is recognised. Method: zeros, a negative offset, a negative size; a blank is valid.
        assert_eq!(QueueEntry::from_bytes(&[0; 20]), None);
        let mut bytes = QueueEntry::BLANK.to_bytes();
        assert!(QueueEntry::from_bytes(&bytes).is_some_and(|entry| entry.is_blank()));
        bytes[0] = 0x80;
        assert_eq!(QueueEntry::from_bytes(&bytes), None);
        let mut bytes = QueueEntry::BLANK.to_bytes();
        bytes[8] = 0xff;
        assert_eq!(QueueEntry::from_bytes(&bytes), None);
    }
}
