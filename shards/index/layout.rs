//! The bytes of an index file. All numbers are big-endian. Source: RocketMQ `IndexHeader`, `IndexFile`.
//!
//! ```text
//! 0      header: i64 begin time, i64 end time, i64 begin position, i64 end position, i32 used slots, i32 next entry
//! 40     slots:   i32 number of the newest entry of the chain, 0 = none
//! 40+4s  entries: i32 key hash, i64 position, i32 seconds since begin time, i32 older entry of the chain
//! ```
//!
//! Entry 0 is never used, so that 0 can mean "none"; the next entry's number starts at 1.

/// Bytes of the header.
pub(crate) const HEADER_LENGTH: usize = 40;
/// Bytes of a slot.
pub(crate) const SLOT_BYTES: u64 = 4;
/// Bytes of an entry.
pub(crate) const ENTRY_LENGTH: usize = 20;

/// Numbers of slots and entries of every file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexGeometry {
    /// Hash slots; at least 1.
    pub slots: u32,
    /// Entries with the unused first one; at least 2.
    pub entries: u32,
}

impl Default for IndexGeometry {
    fn default() -> Self {
        Self { slots: super::limits::DEFAULT_SLOTS, entries: super::limits::DEFAULT_ENTRIES }
    }
}

impl IndexGeometry {
    /// Length of a file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.entry_position(self.entries)
    }

    pub(crate) fn slot_of(&self, hash: u32) -> u32 {
        hash % self.slots
    }

    pub(crate) fn slot_position(&self, slot: u32) -> u64 {
        HEADER_LENGTH as u64 + u64::from(slot) * SLOT_BYTES
    }

    pub(crate) fn entry_position(&self, number: u32) -> u64 {
        self.slot_position(self.slots) + u64::from(number) * ENTRY_LENGTH as u64
    }
}

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Header {
    /// Store time of the first record in ms, or of the previous file's last.
    pub(crate) begin_time: i64,
    /// Store time of the last record in ms.
    pub(crate) end_time: i64,
    /// Log position of the first record.
    pub(crate) begin_position: i64,
    /// Log position of the last record.
    pub(crate) end_position: i64,
    /// Slots that are not empty.
    pub(crate) used_slots: u32,
    /// Number of the next entry; at least 1.
    pub(crate) next_entry: u32,
}

impl Header {
    pub(crate) fn from_bytes(bytes: &[u8; HEADER_LENGTH]) -> Self {
        let long = |at: usize| i64::from_be_bytes(std::array::from_fn(|index| bytes[at + index]));
        let int = |at: usize| i32::from_be_bytes(std::array::from_fn(|index| bytes[at + index]));
        Self {
            begin_time: long(0),
            end_time: long(8),
            begin_position: long(16),
            end_position: long(24),
            used_slots: u32::try_from(int(32)).unwrap_or(0),
            next_entry: u32::try_from(int(36)).unwrap_or(1).max(1),
        }
    }

    /// How many entries it says are there. Those are, on a disk too.
    pub(crate) fn promised(&self) -> u32 {
        self.next_entry.saturating_sub(1)
    }

    /// What cannot be right about it, if anything. A file gets a successor only when it is full: one that is not, and is not the
    /// newest, lacks records that nobody would offer again.
    pub(crate) fn flaw(&self, geometry: IndexGeometry, is_newest: bool) -> Option<&'static str> {
        if self.next_entry > geometry.entries {
            return Some("its header counts more entries than there is room for");
        }
        if self.promised() > 0 && !(0..=self.end_position).contains(&self.begin_position) {
            return Some("its header names places in the log that cannot be");
        }
        (!is_newest && self.next_entry < geometry.entries).then_some("it is not full, and there is a newer one")
    }

    pub(crate) fn to_bytes(self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[..8].copy_from_slice(&self.begin_time.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.end_time.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.begin_position.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.end_position.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.used_slots.to_be_bytes());
        bytes[36..].copy_from_slice(&self.next_entry.to_be_bytes());
        bytes
    }

    /// Whether a time span may hold messages of this file. Source: RocketMQ `IndexFile.isTimeMatched`.
    pub(crate) fn overlaps(&self, begin: i64, end: i64) -> bool {
        let within = |time: i64| time >= self.begin_time && time <= self.end_time;
        (begin < self.begin_time && end > self.end_time) || within(begin) || within(end)
    }

    /// Seconds since the begin time as an entry stores them.
    pub(crate) fn seconds_since_begin(&self, store_time: i64) -> i32 {
        if self.begin_time <= 0 {
            return 0;
        }
        let seconds = store_time.saturating_sub(self.begin_time) / 1000;
        i32::try_from(seconds.max(0)).unwrap_or(i32::MAX)
    }
}

/// One key of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct IndexEntry {
    pub(crate) hash: u32,
    pub(crate) position: i64,
    pub(crate) seconds: i32,
    /// Number of the next older entry of the chain as stored; anything below 1 ends it.
    pub(crate) older: i32,
}

impl IndexEntry {
    pub(crate) fn from_bytes(bytes: &[u8; ENTRY_LENGTH]) -> Self {
        let int = |at: usize| i32::from_be_bytes(std::array::from_fn(|index| bytes[at + index]));
        let position = i64::from_be_bytes(std::array::from_fn(|index| bytes[4 + index]));
        // A hash is never negative; the cast keeps what a foreign writer may have stored comparable.
        Self { hash: int(0).cast_unsigned(), position, seconds: int(12), older: int(16) }
    }

    /// Changes where the chain goes on in the bytes of an entry.
    pub(crate) fn write_older(bytes: &mut [u8; ENTRY_LENGTH], older: i32) {
        bytes[16..].copy_from_slice(&older.to_be_bytes());
    }

    pub(crate) fn to_bytes(self) -> [u8; ENTRY_LENGTH] {
        let mut bytes = [0; ENTRY_LENGTH];
        bytes[..4].copy_from_slice(&self.hash.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.position.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.seconds.to_be_bytes());
        bytes[16..].copy_from_slice(&self.older.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_size_is_javas() {
        // Goal: files fit Java's. Method: the length that Java maps, and the place of the first entry.
        let geometry = IndexGeometry::default();
        assert_eq!(geometry.file_bytes(), 420_000_040);
        assert_eq!(geometry.entry_position(0), 40 + 20_000_000);
        assert_eq!(geometry.slot_of(1_308_905_972), 3_905_972);
        assert_eq!(geometry.slot_of(2_746_024), 2_746_024);
    }

    #[test]
    fn header_and_entry_bytes() {
        // Goal: fields at Java's places. Method: distinct values, checked at their offsets and read back.
        let header =
            Header { begin_time: 1, end_time: 2, begin_position: 3, end_position: 4, used_slots: 5, next_entry: 6 };
        let bytes = header.to_bytes();
        assert_eq!([bytes[7], bytes[15], bytes[23], bytes[31], bytes[35], bytes[39]], [1, 2, 3, 4, 5, 6]);
        assert_eq!(Header::from_bytes(&bytes), header);
        assert_eq!(Header::from_bytes(&[0; HEADER_LENGTH]).next_entry, 1);
        let entry = IndexEntry { hash: 1, position: 2, seconds: 3, older: 4 };
        let bytes = entry.to_bytes();
        assert_eq!([bytes[3], bytes[11], bytes[15], bytes[19]], [1, 2, 3, 4]);
        assert_eq!(IndexEntry::from_bytes(&bytes), entry);
    }

    #[test]
    fn seconds_are_clamped() {
        // Goal: Java's clamping. Method: before the begin time, no begin time, far future.
        let header = Header { begin_time: 10_000, ..Header::default() };
        assert_eq!(header.seconds_since_begin(9_000), 0);
        assert_eq!(header.seconds_since_begin(12_999), 2);
        assert_eq!(header.seconds_since_begin(i64::MAX), i32::MAX);
        assert_eq!(Header::default().seconds_since_begin(12_999), 0);
    }
}
