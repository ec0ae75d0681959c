//! RocketMQ's `checkpoint` (`StoreCheckpoint`): time stamps up to which log, queues and index are flushed.
//!
//! The flush thread owns the file. Java reads it after our crash, so it is written at least every second: its abnormal
//! recovery starts from these times, and zeros make it scan the whole log.

use std::io;

use super::paths::StorePaths;
use crate::disk::{Disk, DiskFile, OpenOptions, read_file};

/// Length of the file in bytes.
pub const CHECKPOINT_BYTES: usize = 4096;
/// What RocketMQ subtracts from the smaller time stamp, in ms.
const MARGIN_MS: i64 = 3000;

/// The fields; times are store timestamps in ms since the Unix epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Of the last record known synced.
    pub physic_timestamp_ms: i64,
    /// Of the last record whose queue entry is known synced.
    pub logics_timestamp_ms: i64,
    /// End time of the last index file known synced.
    pub index_timestamp_ms: i64,
    /// Replication: how far the master had flushed.
    pub master_flushed_offset: i64,
    /// Replication: the confirmed offset.
    pub confirm_offset: i64,
}

impl Checkpoint {
    /// The bytes of the file.
    pub fn encode(&self) -> [u8; CHECKPOINT_BYTES] {
        let mut bytes = [0; CHECKPOINT_BYTES];
        let fields = [
            self.physic_timestamp_ms,
            self.logics_timestamp_ms,
            self.index_timestamp_ms,
            self.master_flushed_offset,
            self.confirm_offset,
        ];
        for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }

    /// Reads the fields; what is missing at the end of a short file is zero, as Java's mapping makes it.
    pub fn decode(bytes: &[u8]) -> Self {
        let field = |index: usize| {
            let place = bytes.get(index * 8..index * 8 + 8);
            place.and_then(|place| place.try_into().ok()).map_or(0, i64::from_be_bytes)
        };
        Self {
            physic_timestamp_ms: field(0),
            logics_timestamp_ms: field(1),
            index_timestamp_ms: field(2),
            master_flushed_offset: field(3),
            confirm_offset: field(4),
        }
    }

    /// `getMinTimestamp`: everything stored up to this time is in the log and in the queues.
    pub fn min_timestamp_ms(&self) -> i64 {
        (self.physic_timestamp_ms.min(self.logics_timestamp_ms).saturating_sub(MARGIN_MS)).max(0)
    }

    /// `getMinTimestampIndex`: as above, and in the index.
    pub fn min_timestamp_with_index_ms(&self) -> i64 {
        self.min_timestamp_ms().min(self.index_timestamp_ms)
    }

    /// The checkpoint of a store; `None` when there is no file.
    pub fn load(disk: &dyn Disk, paths: &StorePaths) -> io::Result<Option<Self>> {
        Ok(read_file(disk, &paths.checkpoint())?.map(|bytes| Self::decode(&bytes)))
    }
}

/// The open file.
pub struct CheckpointFile {
    file: Box<dyn DiskFile>,
}

impl CheckpointFile {
    /// Opens the file, creating it durably when it is missing. Returns what it says.
    pub fn open(disk: &dyn Disk, paths: &StorePaths) -> io::Result<(Self, Checkpoint)> {
        let existing = Checkpoint::load(disk, paths)?;
        let file = disk.open(&paths.checkpoint(), OpenOptions { create: true, ..OpenOptions::default() })?;
        let mut this = Self { file };
        let checkpoint = existing.unwrap_or_default();
        if existing.is_none() || this.file.length()? != CHECKPOINT_BYTES as u64 {
            this.store(&checkpoint)?;
            this.file.set_length(CHECKPOINT_BYTES as u64)?;
            this.file.sync_data()?;
            disk.sync_directory(&paths.root)?;
        }
        Ok((this, checkpoint))
    }

    /// Writes and syncs the fields. They share one sector, so a power cut leaves the old or the new ones.
    pub fn store(&mut self, checkpoint: &Checkpoint) -> io::Result<()> {
        self.file.write_all_at(&checkpoint.encode(), 0)?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::create_directories_durably;
    use crate::sim::{CrashPattern, SimDisk};

    /// The layout of `StoreCheckpoint`: five big-endian fields from 0, 4,096 bytes, and its two minimum rules.
    #[test]
    fn layout_and_minimum_rules() {
        let checkpoint = Checkpoint {
            physic_timestamp_ms: 10_000,
            logics_timestamp_ms: 9_000,
            index_timestamp_ms: 5_000,
            master_flushed_offset: 4,
            confirm_offset: 5,
        };
        let bytes = checkpoint.encode();
        assert_eq!((bytes.len(), bytes[6..8].to_vec(), bytes[39]), (4096, vec![0x27, 0x10], 5));
        assert_eq!(Checkpoint::decode(&bytes), checkpoint);
        assert_eq!(Checkpoint::decode(&bytes[..12]).logics_timestamp_ms, 0);
        assert_eq!(checkpoint.min_timestamp_ms(), 6_000);
        assert_eq!(checkpoint.min_timestamp_with_index_ms(), 5_000);
        assert_eq!(Checkpoint::default().min_timestamp_ms(), 0);
    }

    /// A power cut during an update leaves the old or the new fields, whatever tears.
    #[test]
    fn an_update_is_atomic() {
        let paths = StorePaths::new("/store");
        for pattern in CrashPattern::ALL {
            for seed in 0..20 {
                let disk = SimDisk::new();
                create_directories_durably(&disk, &paths.root).unwrap();
                let (mut file, first) = CheckpointFile::open(&disk, &paths).unwrap();
                assert_eq!(first, Checkpoint::default());
                let new = Checkpoint { physic_timestamp_ms: 1, logics_timestamp_ms: 2, ..first };
                disk.halt_after(seed % 3);
                let stored = file.store(&new).is_ok();
                let disk = disk.crash(seed, pattern);
                let (_, read) = CheckpointFile::open(&disk, &paths).unwrap();
                assert!(read == new || (!stored && read == first));
            }
        }
    }
}
