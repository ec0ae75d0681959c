//! The open files of the commit log, and how the next one comes and the oldest goes.
//!
//! [`Segments`] belongs to the flush thread, which alone changes the set. Readers take a [`SegmentList`], an immutable
//! snapshot: ordinary threads through [`Segments::snapshot`], shards by being handed the new `Arc` when it changes, so
//! that no shard takes a lock. A removed segment stays readable for whoever still holds a snapshot.
//!
//! Invariants: a file under its final name has its full length in allocated blocks and is durable; the set has no gap.

use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use super::segment_table::{SegmentError, SegmentSize, SegmentTable, file_name, load_table, parse_file_name};
use super::zero_frontier::ZeroFrontier;
use crate::disk::{
    AlignedBuffer, Disk, DiskFile, OpenOptions, create_directories_durably, is_no_space, remove_if_present,
};
use crate::types::PhysicalOffset;

/// Bytes per write when zeroing ahead; one claim of the frontier, so an append waits at most this long.
const ZERO_CHUNK_BYTES: u64 = 1 << 20;
/// How the name of a segment under construction ends, in the folder `ringmq/`.
const PREPARING_SUFFIX: &str = ".preparing";
/// How the name of a segment ends that retention has taken out of the log, in the same folder.
const REMOVED_SUFFIX: &str = ".removed";

/// The ways to reach a segment's bytes; each is a descriptor of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WritePath {
    /// Through the page cache.
    PageCache,
    /// `O_DIRECT`, to be followed by `fdatasync`.
    Direct,
    /// `O_DIRECT | O_DSYNC`: durable when the write returns.
    DirectSync,
}

impl WritePath {
    fn options(self) -> OpenOptions {
        let direct = self != Self::PageCache;
        OpenOptions { write: true, create: false, direct, data_sync: self == Self::DirectSync }
    }
}

/// How segments are made and opened.
#[derive(Debug, Clone)]
pub struct SegmentOptions {
    /// Folder of the log's files.
    pub directory: PathBuf,
    /// Folder for files under construction; on the same file system.
    pub scratch_directory: PathBuf,
    /// Size of each file.
    pub size: SegmentSize,
    /// Which write path the log writer uses besides the page cache.
    pub write_path: WritePath,
    /// How far to write zeros ahead of writes around the page cache, in bytes; 0 leaves blocks allocated but unwritten. A write into
    /// unwritten blocks waits for another thread to begin it and for a third to note that they are written (ext4).
    pub zero_ahead_bytes: u64,
}

/// One open file of the log.
pub struct Segment {
    start: PhysicalOffset,
    path: PathBuf,
    page_cache: Box<dyn DiskFile>,
    direct: Option<(WritePath, Box<dyn DiskFile>)>,
    /// Opened with the first direct read.
    direct_reads: OnceLock<Option<Box<dyn DiskFile>>>,
    frontier: ZeroFrontier,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Segment").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Segment {
    fn open(
        disk: &dyn Disk,
        path: PathBuf,
        start: PhysicalOffset,
        write_path: WritePath,
        zeroed: u64,
    ) -> Result<Self, SegmentError> {
        let open = |way: WritePath| disk.open(&path, way.options()).map_err(SegmentError::io("open", &path));
        let page_cache = open(WritePath::PageCache)?;
        // Otherwise one read of a backlog fetches as much as the device is set to, 8 MiB on some, in one piece of kernel work that
        // no shard of the same processor can interrupt. Who reads on does so past the page cache.
        let _ = page_cache.expect_scattered_reads();
        let direct = match write_path {
            WritePath::PageCache => None,
            way => Some((way, open(way)?)),
        };
        let (direct_reads, frontier) = (OnceLock::new(), ZeroFrontier::new(zeroed));
        Ok(Self { start, page_cache, direct, direct_reads, frontier, path })
    }

    /// Physical offset of the first byte.
    pub fn start(&self) -> PhysicalOffset {
        self.start
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file of a write path; `None` when it was not asked for at opening.
    pub fn file(&self, way: WritePath) -> Option<&dyn DiskFile> {
        match &self.direct {
            _ if way == WritePath::PageCache => Some(self.page_cache.as_ref()),
            Some((opened, file)) if *opened == way => Some(file.as_ref()),
            _ => None,
        }
    }

    /// The file through the page cache.
    pub fn page_cache(&self) -> &dyn DiskFile {
        self.page_cache.as_ref()
    }

    /// The file past the page cache, for aligned reads. `None` where the file system has no such thing, or the file has gone.
    pub fn direct_reads(&self, disk: &dyn Disk) -> Option<&dyn DiskFile> {
        if let Some((_, file)) = &self.direct {
            return Some(file.as_ref());
        }
        if let Some(known) = self.direct_reads.get() {
            return known.as_deref();
        }
        let file = match disk.open(&self.path, OpenOptions { direct: true, ..OpenOptions::default() }) {
            Ok(file) => Some(file),
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => None,
            // Such as too many open files: another time.
            Err(_) => return None,
        };
        self.direct_reads.get_or_init(|| file).as_deref()
    }

    /// The kernel's descriptor of a write path.
    pub fn raw_fd(&self, way: WritePath) -> Option<RawFd> {
        self.file(way).and_then(DiskFile::raw_fd)
    }

    /// Guards appends against zeroing: the writer asks it before each write when zeroing ahead is on.
    pub fn frontier(&self) -> &ZeroFrontier {
        &self.frontier
    }
}

/// An immutable view of the segments, oldest first.
#[derive(Debug)]
pub struct SegmentList {
    segments: Vec<Arc<Segment>>,
    size: SegmentSize,
}

impl SegmentList {
    /// The segments, oldest first.
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// The size of each.
    pub fn size(&self) -> SegmentSize {
        self.size
    }

    /// Lowest offset held.
    pub fn min(&self) -> Option<PhysicalOffset> {
        self.segments.first().map(|segment| segment.start)
    }

    /// Offset behind the last segment: appends must stay below it.
    pub fn limit(&self) -> Option<PhysicalOffset> {
        self.segments.last().map(|segment| self.size.next_start(segment.start))
    }

    /// The segment that holds a byte, and its position in the file.
    pub fn locate(&self, offset: PhysicalOffset) -> Option<(&Arc<Segment>, u64)> {
        let index = offset.0.checked_sub(self.min()?.0)? / self.size.bytes();
        let segment = self.segments.get(usize::try_from(index).ok()?)?;
        Some((segment, self.size.position_in_file(offset)))
    }

    /// Fills `buffer` from an offset, across segments. Fewer bytes only at the end of the last segment; `NotFound` when
    /// the offset is not held. Knows nothing of how far the log is written: callers stay below the confirmed offset.
    pub fn read_at(&self, offset: PhysicalOffset, buffer: &mut [u8]) -> io::Result<usize> {
        if self.locate(offset).is_none() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("the log does not hold offset {offset}")));
        }
        let mut filled = 0;
        while filled < buffer.len() {
            let position = PhysicalOffset(offset.0 + filled as u64);
            let Some((segment, in_file)) = self.locate(position) else { break };
            let left = usize::try_from(self.size.bytes_left(position)).unwrap_or(usize::MAX);
            let end = filled + left.min(buffer.len() - filled);
            let count = segment.page_cache.read_at(&mut buffer[filled..end], in_file)?;
            if filled + count < end {
                let message = format!("{} is shorter than its segment", segment.path.display());
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            filled = end;
        }
        Ok(filled)
    }
}

/// All segments of a log. See the module's description.
pub struct Segments {
    disk: Arc<dyn Disk>,
    options: SegmentOptions,
    published: RwLock<Arc<SegmentList>>,
    changes: Mutex<()>,
}

impl Segments {
    /// Opens the segments as they are on disk; recovery has run before. `end` is where the next record goes: segments
    /// that end at or below it are opened for reading through the page cache only. Removes what an interrupted
    /// preparation left. Returns warnings for the operator.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: SegmentOptions,
        end: PhysicalOffset,
    ) -> Result<(Self, Vec<String>), SegmentError> {
        for directory in [&options.directory, &options.scratch_directory] {
            create_directories_durably(disk.as_ref(), directory)
                .map_err(SegmentError::io("create directory", directory))?;
        }
        let leftovers = disk.list(&options.scratch_directory);
        let leftovers = leftovers.map_err(SegmentError::io("list", &options.scratch_directory))?;
        let is_leftover = |name: &str| name.ends_with(PREPARING_SUFFIX) || name.ends_with(REMOVED_SUFFIX);
        for entry in leftovers.iter().filter(|entry| is_leftover(&entry.name)) {
            let path = options.scratch_directory.join(&entry.name);
            disk.remove_file(&path).map_err(SegmentError::io("remove", &path))?;
        }
        let SegmentTable { size, starts, warnings } = load_table(disk.as_ref(), &options.directory, options.size)?;
        let open_one = |start: PhysicalOffset| {
            let is_written = size.next_start(start) > end;
            let way = if is_written { options.write_path } else { WritePath::PageCache };
            let used = end.0.saturating_sub(start.0).min(size.bytes());
            Segment::open(disk.as_ref(), options.directory.join(file_name(start)), start, way, used).map(Arc::new)
        };
        let segments = starts.into_iter().map(open_one).collect::<Result<Vec<_>, _>>()?;
        let published = RwLock::new(Arc::new(SegmentList { segments, size }));
        Ok((Self { disk, options, published, changes: Mutex::new(()) }, warnings))
    }

    /// The segments as of now. Takes a read lock: not for shards, which are handed the list.
    pub fn snapshot(&self) -> Arc<SegmentList> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn publish(&self, segments: Vec<Arc<Segment>>) -> Arc<SegmentList> {
        let list = Arc::new(SegmentList { segments, size: self.options.size });
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = list.clone();
        list
    }

    /// Creates the segment behind the last one (or at `start_if_empty`, rounded down to a boundary), durably, and
    /// returns the new list. `NoSpace` leaves nothing behind and may be tried again.
    pub fn prepare_next(&self, start_if_empty: PhysicalOffset) -> Result<Arc<SegmentList>, SegmentError> {
        let _changing = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.snapshot();
        let start = current.limit().unwrap_or_else(|| self.options.size.start_of(start_if_empty));
        let name = file_name(start);
        let temporary = self.options.scratch_directory.join(format!("{name}{PREPARING_SUFFIX}"));
        let path = self.options.directory.join(&name);
        let zeroed = match self.fill_new_file(&temporary) {
            Ok(zeroed) => zeroed,
            Err(source) => {
                // The file is useless; if even its removal fails, the next start removes it.
                let _ = remove_if_present(self.disk.as_ref(), &temporary);
                return Err(if is_no_space(&source) {
                    SegmentError::NoSpace { path, source }
                } else {
                    SegmentError::Io { action: "prepare", path, source }
                });
            }
        };
        self.disk.rename(&temporary, &path).map_err(SegmentError::io("rename into place", &path))?;
        for directory in [&self.options.directory, &self.options.scratch_directory] {
            self.disk.sync_directory(directory).map_err(SegmentError::io("sync directory", directory))?;
        }
        let segment = Segment::open(self.disk.as_ref(), path, start, self.options.write_path, zeroed)?;
        let mut segments = current.segments.clone();
        segments.push(Arc::new(segment));
        Ok(self.publish(segments))
    }

    /// Allocates a whole segment under a temporary name, zeroes its beginning if asked to, and syncs it.
    fn fill_new_file(&self, temporary: &Path) -> io::Result<u64> {
        let size = self.options.size.bytes();
        remove_if_present(self.disk.as_ref(), temporary)?;
        let file = self.disk.open(temporary, OpenOptions { create: true, ..OpenOptions::default() })?;
        // Synchronous writes would find nothing zeroed at their start; others begin in the page cache.
        let is_sync = self.options.write_path == WritePath::DirectSync;
        let mut zeroed = if is_sync { self.options.zero_ahead_bytes.min(size) } else { 0 };
        match file.allocate(size) {
            // File systems without fallocate: writing every byte is the way to own the blocks.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                file.set_length(size)?;
                zeroed = size;
            }
            allocated => allocated?,
        }
        if zeroed > 0 {
            zeroed = zeroed.next_multiple_of(4096);
            let direct = OpenOptions { write: true, direct: true, ..OpenOptions::default() };
            match self.disk.open(temporary, direct) {
                Ok(direct) => write_zeros(direct.as_ref(), 0, zeroed)?,
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => write_zeros(file.as_ref(), 0, zeroed)?,
                Err(error) => return Err(error),
            }
        }
        file.sync_data()?;
        Ok(zeroed)
    }

    /// Zeroes ahead of the writer, whose next byte goes to `end`: afterwards `zero_ahead_bytes` behind it are written,
    /// as far as the segments go. Returns how many bytes were zeroed. An error is an error of the log: final.
    pub fn zero_ahead(&self, end: PhysicalOffset) -> io::Result<u64> {
        let list = self.snapshot();
        let target = PhysicalOffset(end.0 + self.options.zero_ahead_bytes);
        let mut total = 0;
        for segment in list.segments.iter().filter(|segment| list.size.next_start(segment.start) > end) {
            let wanted = target.0.saturating_sub(segment.start.0).min(list.size.bytes());
            let Some((_, file)) = &segment.direct else { continue };
            while segment.frontier.position() < wanted {
                let from = segment.frontier.claim();
                let until = (from + ZERO_CHUNK_BYTES).min(list.size.bytes());
                let written = write_zeros(file.as_ref(), from, until.saturating_sub(from));
                segment.frontier.release(if written.is_ok() { until.max(from) } else { from });
                written?;
                total += until.saturating_sub(from);
            }
        }
        Ok(total)
    }

    /// Takes the oldest segment out of the log, for retention; `None` when it is the only one, which stays. It is under
    /// another name when this returns, and no longer found by anybody; whoever holds an older list can still read it. Its
    /// blocks are freed by [`RemovedSegment::shrink`] and [`RemovedSegment::remove`], or at the next start. After an error
    /// nothing has changed.
    pub fn take_oldest(&self) -> Result<Option<RemovedSegment>, SegmentError> {
        let changing = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.snapshot();
        let [oldest, rest @ ..] = current.segments.as_slice() else { return Ok(None) };
        if rest.is_empty() {
            return Ok(None);
        }
        let name = format!("{}{REMOVED_SUFFIX}", file_name(oldest.start));
        let path = self.options.scratch_directory.join(name);
        self.disk.rename(&oldest.path, &path).map_err(SegmentError::io("rename", &oldest.path))?;
        self.publish(rest.to_vec());
        drop(changing);
        let sync = |directory: &PathBuf| {
            self.disk.sync_directory(directory).map_err(SegmentError::io("sync directory", directory))
        };
        let synced = sync(&self.options.scratch_directory).and_then(|()| sync(&self.options.directory));
        let (disk, segment, length) = (Arc::clone(&self.disk), Arc::clone(oldest), self.options.size.bytes());
        Ok(Some(RemovedSegment { disk, segment, path, length, unsynced: synced.err() }))
    }

    /// When each segment was last written, by start offset. Reads the directory.
    pub fn modified(&self) -> io::Result<Vec<(PhysicalOffset, Option<u64>)>> {
        let entries = self.disk.list(&self.options.directory)?;
        let time = |entry: &crate::disk::DirectoryEntry| Some((parse_file_name(&entry.name)?, entry.modified_ms));
        Ok(entries.iter().filter_map(time).collect())
    }

    /// How the segments are made.
    pub fn options(&self) -> &SegmentOptions {
        &self.options
    }
}

/// A segment that is no longer part of the log, and whose file is still to go.
pub struct RemovedSegment {
    disk: Arc<dyn Disk>,
    segment: Arc<Segment>,
    path: PathBuf,
    length: u64,
    unsynced: Option<SegmentError>,
}

impl RemovedSegment {
    /// Where it began.
    pub fn start(&self) -> PhysicalOffset {
        self.segment.start
    }

    /// Why a power cut may bring the file back into the log, if it may.
    pub fn unsynced(&self) -> Option<&SegmentError> {
        self.unsynced.as_ref()
    }

    /// Whether somebody may still be reading it.
    pub fn is_read(&self) -> bool {
        Arc::strong_count(&self.segment) > 1
    }

    /// Gives back up to `bytes` of the file's end, and has the file system finish with them: on one that discards free blocks,
    /// the discards of all that became free since its last commit go to the device at once, and everybody's writes wait
    /// for them. False when nothing is left, or when the file must go as a whole because it may come back. Not for a file that
    /// is read.
    pub fn shrink(&mut self, bytes: u64) -> io::Result<bool> {
        if self.unsynced.is_some() {
            return Ok(false);
        }
        self.length = self.length.saturating_sub(bytes);
        self.segment.page_cache.set_length(self.length)?;
        self.segment.page_cache.sync_data()?;
        Ok(self.length > 0)
    }

    /// Removes the file. Readers keep what they have open. May be tried again after an error.
    pub fn remove(&self) -> io::Result<()> {
        self.disk.remove_file(&self.path)
    }
}

/// Reads the log from any thread that may block.
#[derive(Clone)]
pub struct SegmentReader {
    segments: Arc<Segments>,
}

impl SegmentReader {
    /// A reader of these segments.
    pub fn new(segments: Arc<Segments>) -> Self {
        Self { segments }
    }

    /// As [`SegmentList::read_at`], on the segments as of now.
    pub fn read_at(&self, offset: PhysicalOffset, buffer: &mut [u8]) -> io::Result<usize> {
        self.segments.snapshot().read_at(offset, buffer)
    }
}

/// Writes zeros to a range whose ends are multiples of 4,096.
fn write_zeros(file: &dyn DiskFile, from: u64, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    // Kept: making it takes longer than writing it.
    static ZEROS: OnceLock<AlignedBuffer> = OnceLock::new();
    let zeros = ZEROS.get_or_init(|| AlignedBuffer::zeroed(ZERO_CHUNK_BYTES as usize));
    let mut written = 0;
    while written < length {
        let count = (length - written).min(ZERO_CHUNK_BYTES);
        file.write_all_at(&zeros[..count as usize], from + written)?;
        written += count;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
