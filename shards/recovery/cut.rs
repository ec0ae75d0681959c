//! Cuts the log at its end so that nothing behind it can come back.
//!
//! Steps, each durable before the next, so that a crash between any two leaves a log that ends at the same place:
//! what is behind the end is saved aside; the head behind the end is zeroed; later segments go, newest first; the rest of
//! the segment is zeroed. Zeros are written around the page cache and durable one by one, because syncing the file would
//! also wait for all that a killed process has left to be written.

use std::io;
use std::path::{Path, PathBuf};

use super::paths::StorePaths;
use crate::disk::{AlignedBuffer, DIRECT_ALIGNMENT, Disk, DiskFile, OpenOptions, create_directories_durably};
use crate::log::segment_table::{SegmentError, SegmentTable, file_name};
use crate::planted::{PlantedMistake, is_planted};
use crate::types::PhysicalOffset;

/// Bytes per read and write.
const CHUNK_BYTES: u64 = 4 << 20;
/// The head is zeroed first, up to the end of its sector, which a disk writes whole or not at all. Zeroing the rest could
/// otherwise, when torn, make the record at the end whole again: stale bytes where zeros belong are what broke it.
const SECTOR_BYTES: u64 = 512;

/// Bytes that were behind the end of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discarded {
    /// Where they began: the end of the log.
    pub from: PhysicalOffset,
    /// How many, up to the last one that was not zero.
    pub bytes: u64,
    /// The file that holds them now.
    pub saved_to: PathBuf,
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// Visits the chunks of `[from, to)` of a file that hold anything but zeros, in order. The file may be open for direct access:
/// whole blocks are read. `to` is a multiple of the block.
fn visit_data(
    file: &dyn DiskFile,
    from: u64,
    to: u64,
    visit: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let block_of = |position: u64| position - position % DIRECT_ALIGNMENT;
    let mut position = block_of(from);
    let mut buffer = AlignedBuffer::zeroed(CHUNK_BYTES.min(to - position).max(DIRECT_ALIGNMENT) as usize);
    while position < to {
        match file.data_from(position)? {
            Some(data) if data < to => position = block_of(data).max(position),
            _ => return Ok(()),
        }
        let chunk = (to - position).min(CHUNK_BYTES) as usize;
        let count = file.read_at(&mut buffer[..chunk], position)?;
        if count < chunk {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = from.saturating_sub(position) as usize;
        if !is_zero(&buffer[before..chunk]) {
            visit(position + before as u64, &buffer[before..chunk])?;
        }
        position += chunk as u64;
    }
    Ok(())
}

/// The log's files behind its end.
pub(super) struct Tail<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) paths: &'a StorePaths,
    pub(super) table: &'a SegmentTable,
    /// Where the log ends.
    pub(super) end: PhysicalOffset,
}

impl Tail<'_> {
    fn path(&self, start: PhysicalOffset) -> PathBuf {
        self.paths.commit_log.join(file_name(start))
    }

    /// Segments that hold bytes at or behind the end, oldest first.
    fn segments(&self) -> impl DoubleEndedIterator<Item = PhysicalOffset> {
        self.table.starts.iter().copied().filter(|start| self.table.size.next_start(*start) > self.end)
    }

    /// Around the page cache where that works: pages that are read ahead into it count as data, and then all of a segment
    /// that was only allocated would be read.
    fn open(&self, path: &Path) -> Result<Box<dyn DiskFile>, SegmentError> {
        let opened = match self.disk.open(path, OpenOptions { direct: true, ..OpenOptions::default() }) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.disk.open(path, OpenOptions::default()),
            opened => opened,
        };
        opened.map_err(SegmentError::io("open", path))
    }

    fn visit(&self, visit: &mut dyn FnMut(PhysicalOffset, &[u8]) -> io::Result<()>) -> Result<(), SegmentError> {
        for start in self.segments() {
            let path = self.path(start);
            let file = self.open(&path)?;
            let from = self.end.0.saturating_sub(start.0);
            let mut visit_here = |at: u64, data: &[u8]| visit(PhysicalOffset(start.0 + at), data);
            visit_data(file.as_ref(), from, self.table.size.bytes(), &mut visit_here)
                .map_err(SegmentError::io("save or check the tail of", &path))?;
        }
        Ok(())
    }

    /// Offset behind the last byte that is not zero; `None` when nothing but zeros follows the end.
    pub(super) fn data_end(&self) -> Result<Option<PhysicalOffset>, SegmentError> {
        let mut end = None;
        self.visit(&mut |at, data| {
            let last = data.iter().rposition(|byte| *byte != 0);
            end = last.map(|last| PhysicalOffset(at.0 + last as u64 + 1)).or(end);
            Ok(())
        })?;
        Ok(end)
    }

    /// Cuts, if there is anything to cut, which is what [`Tail::data_end`] said. On return nothing but durable zeros follows the
    /// end.
    pub(super) fn cut(&self, data_end: Option<PhysicalOffset>) -> Result<Option<Discarded>, SegmentError> {
        let Some(data_end) = data_end else { return Ok(None) };
        let saved_to = self.save(data_end)?;
        let mut segments = self.segments();
        if let Some(first) = segments.next() {
            let path = self.path(first);
            let segment =
                CutSegment::open(self.disk, &path, self.end.0.saturating_sub(first.0), self.table.size.bytes())
                    .map_err(SegmentError::io("open", &path))?;
            let zeroes = !is_planted(PlantedMistake::NoZeroing);
            if zeroes {
                segment.zero_head().map_err(SegmentError::io("zero the head behind the end of", &path))?;
            }
            let log = &self.paths.commit_log;
            for later in segments.rev() {
                let path = self.path(later);
                self.disk.remove_file(&path).map_err(SegmentError::io("remove", &path))?;
                self.disk.sync_directory(log).map_err(SegmentError::io("sync directory", log))?;
            }
            if zeroes {
                segment.zero_rest().map_err(SegmentError::io("zero the tail of", &path))?;
            }
        }
        Ok(Some(Discarded { from: self.end, bytes: data_end.0 - self.end.0, saved_to }))
    }

    /// Lets the page cache forget what it holds from the page of the end on. Pages that a failed sync lost stay there, clean and
    /// with records that the disk does not have; the next start may read through the cache and would find them behind the
    /// records that are appended here meanwhile.
    pub(super) fn forget_cached(&self) -> Result<(), SegmentError> {
        for start in self.segments() {
            let path = self.path(start);
            let file = match self.disk.open(&path, OpenOptions::default()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(SegmentError::io("open", &path))?,
            };
            let end = self.end.0.saturating_sub(start.0);
            let from = end - end % DIRECT_ALIGNMENT;
            file.drop_cached(from, self.table.size.bytes() - from)
                .map_err(SegmentError::io("drop from the page cache", &path))?;
        }
        Ok(())
    }

    /// Copies what is behind the end to a file of its own, sparse where it is zero. Never replaces an earlier one: after
    /// a crash in the middle of a cut the second look sees less than the first.
    fn save(&self, data_end: PhysicalOffset) -> Result<PathBuf, SegmentError> {
        let own = self.paths.own();
        create_directories_durably(self.disk, &own).map_err(SegmentError::io("create directory", &own))?;
        let base = own.join(format!("discarded-{}", self.end.0));
        let mut path = base.clone();
        let mut number = 1;
        while self.disk.exists(&path).map_err(SegmentError::io("look for", &path))? {
            number += 1;
            path = own.join(format!("discarded-{}-{number}", self.end.0));
        }
        let temporary = own.join("discarded.tmp");
        let failed = |action: &'static str| SegmentError::io(action, &path);
        let create = OpenOptions { create: true, ..OpenOptions::default() };
        let file = self.disk.open(&temporary, create).map_err(failed("create"))?;
        file.set_length(0).map_err(failed("create"))?;
        file.set_length(data_end.0 - self.end.0).map_err(failed("create"))?;
        self.visit(&mut |at, data| {
            let wanted = usize::try_from(data_end.0.saturating_sub(at.0)).unwrap_or(usize::MAX).min(data.len());
            file.write_all_at(&data[..wanted], at.0 - self.end.0)
        })?;
        file.sync_data().map_err(failed("sync"))?;
        self.disk.rename(&temporary, &path).map_err(failed("rename"))?;
        self.disk.sync_directory(&own).map_err(SegmentError::io("sync directory", &own))?;
        Ok(path)
    }
}

/// The segment that the log is cut in.
struct CutSegment {
    /// Through the page cache, which is what the end was found by.
    file: Box<dyn DiskFile>,
    /// Around it, durable with each write; `None` on file systems without that.
    direct: Option<Box<dyn DiskFile>>,
    /// Position of the end.
    end: u64,
    bytes: u64,
}

impl CutSegment {
    fn open(disk: &dyn Disk, path: &Path, end: u64, bytes: u64) -> io::Result<Self> {
        let write = OpenOptions { write: true, ..OpenOptions::default() };
        let direct = match disk.open(path, OpenOptions { direct: true, data_sync: true, ..write }) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => None,
            opened => Some(opened?),
        };
        Ok(Self { file: disk.open(path, write)?, direct, end, bytes })
    }

    /// Writes whole blocks.
    fn write(&self, blocks: &[u8], position: u64) -> io::Result<()> {
        self.direct.as_ref().unwrap_or(&self.file).write_all_at(blocks, position)
    }

    /// Makes what was written durable.
    fn finish(&self) -> io::Result<()> {
        if self.direct.is_some() { Ok(()) } else { self.file.sync_data() }
    }

    /// Rewrites the block of the end with zeros from the end up to `zero_until`.
    fn zero_in_block(&self, zero_until: u64) -> io::Result<()> {
        let start = self.end - self.end % DIRECT_ALIGNMENT;
        let mut block = AlignedBuffer::zeroed(DIRECT_ALIGNMENT as usize);
        if self.file.read_at(&mut block, start)? < block.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        block[(self.end - start) as usize..(zero_until - start) as usize].fill(0);
        self.write(&block, start)
    }

    fn zero_head(&self) -> io::Result<()> {
        self.zero_in_block((self.end + 1).next_multiple_of(SECTOR_BYTES))?;
        self.finish()
    }

    fn zero_rest(&self) -> io::Result<()> {
        let next_block = self.end - self.end % DIRECT_ALIGNMENT + DIRECT_ALIGNMENT;
        self.zero_in_block(next_block)?;
        let zeros = AlignedBuffer::zeroed(CHUNK_BYTES.min(self.bytes) as usize);
        let file = self.direct.as_ref().unwrap_or(&self.file);
        visit_data(file.as_ref(), next_block, self.bytes, &mut |at, data| self.write(&zeros[..data.len()], at))?;
        self.finish()
    }
}
