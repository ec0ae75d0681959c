//! The offset below which the log is known to be synced: file `ringmq/durable-point`.
//!
//! Two slots, each in a block of its own, are written in turn and synced, so a torn update leaves the one before. The
//! point may lag (at most a second) and is never ahead. The flush thread owns the file.
//!
//! A slot, big-endian: `magic 8 | sequence u64 | offset u64 | start of the last record u64 (all ones: none) | CRC-32 of
//! that whole record u32 | CRC-32 of the 36 bytes before u32`.

use std::io;

use super::paths::StorePaths;
use crate::disk::{Disk, DiskFile, OpenOptions, read_file};
use crate::types::PhysicalOffset;

const MAGIC: [u8; 8] = *b"RMQDPT01";
/// What all formats begin with; two digits follow.
const FAMILY_BYTES: usize = 6;
/// The number in [`MAGIC`].
pub(super) const FORMAT: u32 = 1;
const SLOT_BYTES: usize = 40;
/// Distance of the slots; also half the length of the file.
const SLOT_DISTANCE: u64 = 4096;
const NO_RECORD: u64 = u64::MAX;

/// The last record below a durable point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRecord {
    /// Where it starts.
    pub start: PhysicalOffset,
    /// CRC-32 of all its bytes as they are in the log.
    pub crc: u32,
}

impl LastRecord {
    /// Describes a bound record.
    pub fn of(start: PhysicalOffset, record: &[u8]) -> Self {
        Self { start, crc: crc32fast::hash(record) }
    }
}

/// A log offset that is known synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurablePoint {
    /// Everything below is on disk. A record boundary.
    pub offset: PhysicalOffset,
    /// The last record that ends at or below `offset`; `None` when the log holds none.
    pub last_record: Option<LastRecord>,
}

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredPoint {
    /// There is none: a new store, or one that only Java wrote.
    Missing,
    /// There is something, but no slot can be trusted. Or there are only zeros: the file begins like that, but in a store with the note
    /// that a start makes after its first point they were something else.
    Damaged,
    /// The newest point.
    Valid(DurablePoint),
}

fn encode(sequence: u64, point: &DurablePoint) -> [u8; SLOT_BYTES] {
    let (start, crc) = point.last_record.map_or((NO_RECORD, 0), |last| (last.start.0, last.crc));
    let mut bytes = [0; SLOT_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&sequence.to_be_bytes());
    bytes[16..24].copy_from_slice(&point.offset.0.to_be_bytes());
    bytes[24..32].copy_from_slice(&start.to_be_bytes());
    bytes[32..36].copy_from_slice(&crc.to_be_bytes());
    let check = crc32fast::hash(&bytes[..36]);
    bytes[36..].copy_from_slice(&check.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, DurablePoint)> {
    let slot: &[u8; SLOT_BYTES] = bytes.get(..SLOT_BYTES)?.try_into().ok()?;
    let long = |at: usize| slot[at..at + 8].try_into().map_or(0, u64::from_be_bytes);
    let int = |at: usize| slot[at..at + 4].try_into().map_or(0, u32::from_be_bytes);
    if slot[..8] != MAGIC || crc32fast::hash(&slot[..36]) != int(36) {
        return None;
    }
    let start = long(24);
    let last_record = (start != NO_RECORD).then(|| LastRecord { start: PhysicalOffset(start), crc: int(32) });
    Some((long(8), DurablePoint { offset: PhysicalOffset(long(16)), last_record }))
}

/// Reads both slots of a file's bytes; returns the newest sequence too.
fn newest(disk: &dyn Disk, paths: &StorePaths, bytes: &[u8]) -> io::Result<(u64, StoredPoint)> {
    let slots = [bytes, bytes.get(SLOT_DISTANCE as usize..).unwrap_or_default()];
    Ok(match slots.into_iter().filter_map(decode).max_by_key(|(sequence, _)| *sequence) {
        Some((sequence, point)) => (sequence, StoredPoint::Valid(point)),
        None if bytes.iter().all(|byte| *byte == 0) && !disk.exists(&paths.queue_offsets())? => {
            (0, StoredPoint::Missing)
        }
        None => (0, StoredPoint::Damaged),
    })
}

/// The format of a slot that a newer version has written. With our own magic put back the check of such a slot does not fit; it
/// does where only a bit of the number was flipped.
pub(super) fn newer_format(bytes: &[u8]) -> Option<u32> {
    let slots = [bytes, bytes.get(SLOT_DISTANCE as usize..).unwrap_or_default()];
    slots.into_iter().find_map(|slot| {
        let digits = slot.strip_prefix(&MAGIC[..FAMILY_BYTES])?.get(..MAGIC.len() - FAMILY_BYTES)?;
        let is_number = digits.iter().all(u8::is_ascii_digit);
        let number: u32 = std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()?;
        let ours = [&MAGIC[..], slot.get(MAGIC.len()..SLOT_BYTES).unwrap_or_default()].concat();
        (number > FORMAT && decode(&ours).is_none()).then_some(number)
    })
}

/// Refuses what a newer version has written: taking it for damage, this one would claim less and write over it.
fn check_format(bytes: &[u8]) -> io::Result<()> {
    let Some(number) = newer_format(bytes) else { return Ok(()) };
    let text = format!("a newer version of RingMQ wrote it (format {number}): use that one");
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

/// The open file.
pub struct DurablePointFile {
    file: Box<dyn DiskFile>,
    sequence: u64,
    current: StoredPoint,
}

impl DurablePointFile {
    /// What the file of a store says, without touching it.
    pub fn load(disk: &dyn Disk, paths: &StorePaths) -> io::Result<StoredPoint> {
        let Some(bytes) = read_file(disk, &paths.durable_point())? else { return Ok(StoredPoint::Missing) };
        check_format(&bytes)?;
        Ok(newest(disk, paths, &bytes)?.1)
    }

    /// Opens the file, creating it durably when it is missing; its folder exists.
    pub fn open(disk: &dyn Disk, paths: &StorePaths) -> io::Result<Self> {
        let path = paths.durable_point();
        let existing = read_file(disk, &path)?;
        check_format(existing.as_deref().unwrap_or_default())?;
        let file = disk.open(&path, OpenOptions { create: true, ..OpenOptions::default() })?;
        if existing.is_none() {
            file.set_length(2 * SLOT_DISTANCE)?;
            file.sync_data()?;
            disk.sync_directory(&paths.own())?;
        }
        let (sequence, current) = match existing {
            Some(bytes) => newest(disk, paths, &bytes)?,
            None => (0, StoredPoint::Missing),
        };
        Ok(Self { file, sequence, current })
    }

    /// The point in force.
    pub fn current(&self) -> StoredPoint {
        self.current
    }

    /// Moves the point forward, durably. The caller has synced the log up to it.
    ///
    /// # Panics
    /// When the point would move backwards: only recovery may do that, by [`Self::replace`].
    pub fn advance(&mut self, point: DurablePoint) -> io::Result<()> {
        if let StoredPoint::Valid(current) = self.current {
            assert!(
                point.offset >= current.offset,
                "the durable point moves from {} to {}",
                current.offset,
                point.offset
            );
            if current == point {
                return Ok(());
            }
        }
        self.replace(point)
    }

    /// Sets the point to whatever recovery has found, durably.
    pub fn replace(&mut self, point: DurablePoint) -> io::Result<()> {
        let sequence = self.sequence + 1;
        self.file.write_all_at(&encode(sequence, &point), (sequence % 2) * SLOT_DISTANCE)?;
        self.file.sync_data()?;
        self.sequence = sequence;
        self.current = StoredPoint::Valid(point);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::create_directories_durably;
    use crate::sim::{CrashPattern, SimDisk};

    fn point(offset: u64) -> DurablePoint {
        let last_record = (offset > 0).then(|| LastRecord::of(PhysicalOffset(offset - 1), b"record"));
        DurablePoint { offset: PhysicalOffset(offset), last_record }
    }

    fn new_disk() -> (SimDisk, StorePaths) {
        let (disk, paths) = (SimDisk::new(), StorePaths::new("/store"));
        create_directories_durably(&disk, &paths.own()).unwrap();
        (disk, paths)
    }

    #[test]
    fn a_newer_format_is_refused() {
        // Goal: a store of a newer version is neither taken for a damaged one nor written to. Method: a higher number in either slot;
        // damage that is no number.
        for (at, digits, is_refused) in [(0, b"02", true), (SLOT_DISTANCE, b"10", true), (0, b"x2", false)] {
            let (disk, paths) = new_disk();
            let mut file = DurablePointFile::open(&disk, &paths).unwrap();
            (0..3).for_each(|offset| file.advance(point(offset)).unwrap());
            drop(file);
            disk.damage(&paths.durable_point(), at + FAMILY_BYTES as u64, digits).unwrap();
            // What the other format means by these bytes, its check included, is not known.
            disk.damage(&paths.durable_point(), at + 30, b"other").unwrap();
            let (loaded, opened) = (DurablePointFile::load(&disk, &paths), DurablePointFile::open(&disk, &paths));
            assert_eq!((loaded.is_err(), opened.is_err()), (is_refused, is_refused), "{digits:?} at {at}");
            if let Err(error) = loaded {
                assert!(error.to_string().contains("newer version"), "{error}");
            }
        }
    }

    /// A power cut at any operation of an update, in any pattern, leaves the point before or the new one.
    #[test]
    fn updates_are_atomic_and_never_ahead() {
        for pattern in CrashPattern::ALL {
            for cut in 0..5 {
                for seed in 0..10 {
                    let (disk, paths) = new_disk();
                    let mut file = DurablePointFile::open(&disk, &paths).unwrap();
                    assert_eq!(file.current(), StoredPoint::Missing);
                    (0..3).for_each(|offset| file.advance(point(offset)).unwrap());
                    disk.halt_after(cut);
                    let stored = file.advance(point(3)).is_ok();
                    let disk = disk.crash(seed, pattern);
                    let read = DurablePointFile::load(&disk, &paths).unwrap();
                    let old = StoredPoint::Valid(point(2));
                    assert!(read == StoredPoint::Valid(point(3)) || (!stored && read == old), "{read:?}");
                }
            }
        }
    }

    /// One damaged slot costs one update; two are reported as damage, not as a new store.
    #[test]
    fn damaged_slots_are_told_from_missing_ones() {
        let (disk, paths) = new_disk();
        let mut file = DurablePointFile::open(&disk, &paths).unwrap();
        file.advance(point(7)).unwrap();
        file.advance(point(8)).unwrap();
        disk.damage(&paths.durable_point(), 20, &[0xFF]).unwrap();
        assert_eq!(DurablePointFile::load(&disk, &paths).unwrap(), StoredPoint::Valid(point(7)));
        disk.damage(&paths.durable_point(), SLOT_DISTANCE + 30, &[0xFF]).unwrap();
        assert_eq!(DurablePointFile::load(&disk, &paths).unwrap(), StoredPoint::Damaged);
    }

    /// Goal: a point that was lost is not taken for one that never was. Method: a file of zeros, and one without bytes, before and after a
    /// start has noted how far its queues are, which it does behind the first point.
    #[test]
    fn zeros_in_a_store_of_ours_are_damage() {
        for length in [0, 100, 2 * SLOT_DISTANCE] {
            let (disk, paths) = new_disk();
            crate::disk::write_file(&disk, &paths.durable_point(), &vec![0; length as usize]).unwrap();
            let stored = || {
                let opened = DurablePointFile::open(&disk, &paths).unwrap().current();
                assert_eq!(DurablePointFile::load(&disk, &paths).unwrap(), opened);
                opened
            };
            assert_eq!(stored(), StoredPoint::Missing);
            crate::recovery::queue_offsets::QueueOffsets::default().persist(&disk, &paths).unwrap();
            assert_eq!(stored(), StoredPoint::Damaged);
            DurablePointFile::open(&disk, &paths).unwrap().advance(point(9)).unwrap();
            assert_eq!(stored(), StoredPoint::Valid(point(9)));
        }
    }

    /// The writer can never take the point back by mistake.
    #[test]
    #[should_panic(expected = "the durable point moves")]
    fn the_point_never_moves_back() {
        let (disk, paths) = new_disk();
        let mut file = DurablePointFile::open(&disk, &paths).unwrap();
        file.advance(point(8)).unwrap();
        let _ = file.advance(point(7));
    }
}
