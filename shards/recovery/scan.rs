//! Reads the log record by record, in large pieces, and says where and why it stops.
//!
//! A record counts only if it is whole, its body's CRC fits, it lies inside one segment with room for the blank behind
//! it, and the physical offset that it states is its position: a stale record elsewhere is a ghost.
//!
//! The body's CRC does not cover topic and properties, so a sector that a power cut lost there goes unnoticed by it. Above
//! the durable point a scan therefore also refuses records in whose topic or properties a whole sector (or the part of it that
//! the record covers) is zero, which is what a lost sector of a prepared segment reads as.

use std::io;
use std::path::PathBuf;

use ringmq_protocol::record::{BLANK_BYTES, CrcCheck, MAGIC_V1, MAGIC_V2, MIN_RECORD_BYTES, RecordError, RecordView};

use crate::disk::{AlignedBuffer, DIRECT_ALIGNMENT, Disk, DiskFile, OpenOptions};
use crate::log::segment_table::{SegmentError, SegmentTable, file_name};
use crate::types::PhysicalOffset;

/// Bytes per read; larger records are read whole.
const READ_BYTES: usize = 4 << 20;
/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;
/// Bytes of the appended property `__CRC32#`, with its separators.
const PROPERTY_CRC_BYTES: usize = 20;
const PROPERTY_CRC_NAME: &[u8] = b"__CRC32#\x01";

/// What a scan checks beyond RocketMQ's rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanChecks {
    /// Refuse records whose appended CRC property is missing or wrong (`forceVerifyPropCRC`).
    pub property_crc: bool,
    /// From here on a zero sector in topic or properties is a torn write.
    pub torn_sectors_from: Option<PhysicalOffset>,
    /// From here on read past the page cache, which after a failed sync shows bytes that the disk does not have.
    pub direct_from: Option<PhysicalOffset>,
}

/// What lies at a position.
#[derive(Debug)]
pub enum Found<'a> {
    /// A valid record.
    Record(RecordView<'a>),
    /// The blank at the end of a segment: go on at its limit.
    Blank,
    /// The log ends here: zeros, or the end of the last segment.
    End,
    /// Something that is no valid record; the text says what.
    Invalid(String),
}

struct OpenFile {
    start: PhysicalOffset,
    direct: bool,
    file: Box<dyn DiskFile>,
}

/// Reads records of the segments of a table.
pub struct LogScanner<'a> {
    disk: &'a dyn Disk,
    directory: PathBuf,
    table: &'a SegmentTable,
    checks: ScanChecks,
    file: Option<OpenFile>,
    buffer: AlignedBuffer,
    window_start: PhysicalOffset,
    window_bytes: usize,
}

impl<'a> LogScanner<'a> {
    /// A scanner; nothing is opened yet.
    pub fn new(disk: &'a dyn Disk, directory: impl Into<PathBuf>, table: &'a SegmentTable, checks: ScanChecks) -> Self {
        let buffer = AlignedBuffer::zeroed(READ_BYTES.min(usize::try_from(table.size.bytes()).unwrap_or(READ_BYTES)));
        let (directory, window_start) = (directory.into(), PhysicalOffset(0));
        Self { disk, directory, table, checks, file: None, buffer, window_start, window_bytes: 0 }
    }

    /// The file that holds an offset.
    pub fn path_of(&self, offset: PhysicalOffset) -> PathBuf {
        self.directory.join(file_name(self.table.size.start_of(offset)))
    }

    /// Opens the file of an offset unless it is open in the right way. File systems without direct access are read
    /// through the page cache.
    fn open(&mut self, offset: PhysicalOffset, direct: bool) -> Result<(), SegmentError> {
        let start = self.table.size.start_of(offset);
        if self.file.as_ref().is_some_and(|open| open.start == start && open.direct == direct) {
            return Ok(());
        }
        let path = self.path_of(offset);
        let file = match self.disk.open(&path, OpenOptions { direct, ..OpenOptions::default() }) {
            Err(error) if direct && error.kind() == io::ErrorKind::InvalidInput => {
                self.disk.open(&path, OpenOptions::default())
            }
            opened => opened,
        };
        let file = file.map_err(SegmentError::io("open", &path))?;
        self.file = Some(OpenFile { start, direct, file });
        Ok(())
    }

    /// Makes the window hold `needed` bytes from `position`, all of them in one segment. Reads whole blocks.
    fn fill(&mut self, position: PhysicalOffset, needed: usize) -> Result<(), SegmentError> {
        let window_end = self.window_start.0 + self.window_bytes as u64;
        if position >= self.window_start && position.0 + needed as u64 <= window_end {
            return Ok(());
        }
        let direct = self.checks.direct_from.is_some_and(|from| position >= from);
        let from = PhysicalOffset(position.0 - position.0 % DIRECT_ALIGNMENT);
        let needed = needed as u64 + (position.0 - from.0);
        let mut wanted = needed.max(READ_BYTES as u64).next_multiple_of(DIRECT_ALIGNMENT);
        wanted = wanted.min(self.table.size.bytes_left(from));
        let wanted_bytes = usize::try_from(wanted).unwrap_or(usize::MAX);
        if self.buffer.len() < wanted_bytes {
            self.buffer = AlignedBuffer::zeroed(wanted_bytes);
        }
        self.window_bytes = 0;
        self.open(position, direct)?;
        let in_file = self.table.size.position_in_file(from);
        let read = match &self.file {
            Some(open) => open.file.read_at(&mut self.buffer[..wanted_bytes], in_file),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let count = read.map_err(SegmentError::io("read", &self.path_of(position)))?;
        if count != wanted_bytes {
            return Err(SegmentError::io("read all of", &self.path_of(position))(io::ErrorKind::UnexpectedEof.into()));
        }
        self.window_start = from;
        // What the page cache says must not serve positions that are to be read directly.
        let limit = self.checks.direct_from.filter(|_| !direct).map_or(wanted, |limit| (limit.0 - from.0).max(needed));
        self.window_bytes = usize::try_from(wanted.min(limit)).unwrap_or(usize::MAX);
        Ok(())
    }

    fn window(&self, position: PhysicalOffset) -> &[u8] {
        let from = usize::try_from(position.0 - self.window_start.0).unwrap_or(usize::MAX);
        &self.buffer[from.min(self.window_bytes)..self.window_bytes]
    }

    /// Looks at a position, which is a record boundary or a guess.
    pub fn at(&mut self, position: PhysicalOffset) -> Result<Found<'_>, SegmentError> {
        let held = self.table.min().is_some_and(|min| position >= min);
        if !held || self.table.limit().is_none_or(|limit| position >= limit) {
            return Ok(Found::End);
        }
        let left = usize::try_from(self.table.size.bytes_left(position)).unwrap_or(usize::MAX);
        self.fill(position, left.min(BLANK_BYTES))?;
        if let Some(total) = plausible_total(self.window(position)).filter(|total| *total <= left) {
            self.fill(position, total)?;
        }
        let checks = self.checks;
        let view = match RecordView::parse(self.window(position), CrcCheck::Verify) {
            Ok(view) => view,
            Err(RecordError::Blank { remaining }) if remaining as usize == left => return Ok(Found::Blank),
            Err(RecordError::Blank { remaining }) => {
                return Ok(Found::Invalid(format!("a blank of {remaining} bytes where {left} are left")));
            }
            Err(RecordError::EndOfData { needed: 0 }) => return Ok(Found::End),
            Err(RecordError::EndOfData { needed }) => {
                return Ok(Found::Invalid(format!("a record of {needed} bytes where {left} are left")));
            }
            Err(RecordError::Corrupt(corruption)) => return Ok(Found::Invalid(corruption.to_string())),
        };
        if let Some(problem) = problem_of(&view, position, left, checks) {
            return Ok(Found::Invalid(problem));
        }
        Ok(Found::Record(view))
    }

    /// Searches `[from, limit of the log)` for a valid record that states its own position.
    pub fn find_record_from(&mut self, from: PhysicalOffset) -> Result<Option<PhysicalOffset>, SegmentError> {
        self.find_record_in(from, PhysicalOffset(u64::MAX))
    }

    /// The same for records that begin in `[from, until)`, as far as the log goes.
    pub fn find_record_in(
        &mut self,
        from: PhysicalOffset,
        until: PhysicalOffset,
    ) -> Result<Option<PhysicalOffset>, SegmentError> {
        let until = self.table.limit().map_or(PhysicalOffset(0), |limit| limit.min(until));
        let finder = memchr::memmem::Finder::new(&[0xDA, 0xA3, 0x20]);
        let mut position = from;
        while position < until {
            let left = usize::try_from(self.table.size.bytes_left(position)).unwrap_or(usize::MAX);
            self.window_bytes = 0;
            self.fill(position, left.min(READ_BYTES))?;
            let window = self.window(position);
            let window_bytes = window.len();
            let candidates: Vec<PhysicalOffset> = finder
                .find_iter(window)
                .filter_map(|magic| magic.checked_sub(4))
                .filter(|start| {
                    let stated = window.get(start + 28..start + 36).and_then(|bytes| bytes.try_into().ok());
                    stated.map(u64::from_be_bytes) == Some(position.0 + *start as u64)
                })
                .map(|start| PhysicalOffset(position.0 + start as u64))
                .collect();
            for candidate in candidates {
                if matches!(self.at(candidate)?, Found::Record(_)) {
                    return Ok(Some(candidate));
                }
            }
            // The next window overlaps by the head of a record, so that none is missed at the seam.
            let step = if window_bytes >= left { left } else { window_bytes.saturating_sub(MIN_RECORD_BYTES).max(1) };
            position = PhysicalOffset(position.0 + step as u64);
        }
        Ok(None)
    }
}

/// The total size at the head of what has a record's magic.
fn plausible_total(window: &[u8]) -> Option<usize> {
    let (total, rest) = window.split_first_chunk::<4>()?;
    let magic = u32::from_be_bytes(*rest.first_chunk::<4>()?);
    let total = usize::try_from(i32::from_be_bytes(*total)).ok()?;
    (magic == MAGIC_V1 || magic == MAGIC_V2).then_some(total)
}

/// What speaks against a record whose own structure and body are right.
fn problem_of(view: &RecordView<'_>, position: PhysicalOffset, left: usize, checks: ScanChecks) -> Option<String> {
    if u64::try_from(view.physical_offset()).ok() != Some(position.0) {
        return Some(format!("a stale record, which says that it lies at {}", view.physical_offset()));
    }
    if view.total_size() + BLANK_BYTES > left {
        return Some("a record that leaves no room for the end of its file".to_string());
    }
    if checks.property_crc && !property_crc_fits(view.bytes()) {
        return Some("the appended CRC does not fit the record".to_string());
    }
    if checks.torn_sectors_from.is_some_and(|from| position >= from) && has_torn_sector(view, position) {
        return Some("a torn write: a sector of its topic or properties is missing".to_string());
    }
    None
}

/// Checks the CRC that RocketMQ appends to the properties on request: ten decimal digits, the lowest first. As there, a
/// record without one does not fit.
fn property_crc_fits(record: &[u8]) -> bool {
    let Some((covered, tail)) = record.split_last_chunk::<PROPERTY_CRC_BYTES>() else { return false };
    let Some(digits) = tail.strip_prefix(PROPERTY_CRC_NAME).and_then(|rest| rest.strip_suffix(b"\x02")) else {
        return false;
    };
    let mut rest = crc32fast::hash(covered) & 0x7FFF_FFFF;
    digits.iter().all(|digit| {
        let expected = b'0' + (rest % 10) as u8;
        rest /= 10;
        *digit == expected
    })
}

fn has_torn_sector(view: &RecordView<'_>, position: PhysicalOffset) -> bool {
    let record = view.bytes();
    let topic_end = record.len() - view.properties().len() - 2;
    let topic_start = topic_end - view.topic().len();
    let meaningful_end = if view.properties().is_empty() { topic_end } else { record.len() };
    let mut sector = (position.0 + topic_start as u64).next_multiple_of(SECTOR_BYTES);
    while let Some(from) = usize::try_from(sector - position.0).ok().filter(|from| *from < meaningful_end) {
        let to = (from + SECTOR_BYTES as usize).min(record.len());
        if record[from..to].iter().all(|byte| *byte == 0) {
            return true;
        }
        sector += SECTOR_BYTES;
    }
    false
}
