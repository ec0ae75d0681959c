//! The seam between RingMQ and the file system.
//!
//! Everything that blocks on files goes through [`Disk`]: recovery, segment preparation, consume-queue and index
//! files, state files. Production uses `RealDisk`; tests use the in-memory disk of `sim`, which can fail, tear, delay
//! and forget. None of these calls may be made on a shard thread, with one exception that has its own metric: the log
//! writer's page-cache write (see `log`).

use std::io;
use std::os::fd::RawFd;
use std::path::Path;

pub mod aligned;
pub mod read_only;
pub mod real;
pub mod reserve;
pub mod state_file;

pub use aligned::AlignedBuffer;
pub use read_only::ReadOnlyDisk;
pub use real::RealDisk;
pub use reserve::Reserve;
pub use state_file::{LoadedState, StateFile, StateFileError};

/// Alignment of offsets, lengths and memory that every direct access keeps, in bytes.
pub const DIRECT_ALIGNMENT: u64 = 4096;

/// How a file is opened. All flags default to false.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Open for writing as well as reading.
    pub write: bool,
    /// Create the file if it is missing (implies `write`).
    pub create: bool,
    /// Bypass the page cache (`O_DIRECT`): offsets, lengths and memory must be multiples of 4,096.
    pub direct: bool,
    /// Each write returns only when its data is durable (`O_DSYNC`).
    pub data_sync: bool,
}

/// What became of an attempt to lock a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockOutcome {
    /// The lock is ours until the file is closed or the process ends.
    Acquired,
    /// Another process holds it; its id where the system can tell.
    HeldBy(Option<u32>),
}

/// What a directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// File name without its directory.
    pub name: String,
    /// Length in bytes; 0 for directories.
    pub length: u64,
    /// Whether the entry is a directory.
    pub is_directory: bool,
    /// When its content last changed, milliseconds since the epoch; `None` when that cannot be told.
    pub modified_ms: Option<u64>,
}

/// Free and total room of the file system that holds a path, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Size of the file system.
    pub total: u64,
    /// Bytes that an ordinary user can still allocate.
    pub available: u64,
    /// Bytes in use. With what is available less than the total where the system keeps a reserve for itself.
    pub used: u64,
}

impl DiskSpace {
    /// Used part of what ordinary users could ever use, in whole percent, rounded up. Source: RocketMQ
    /// `UtilAll.getDiskPartitionSpaceUsedPercent`.
    pub fn used_percent(&self) -> u8 {
        let (used, usable) = (u128::from(self.used), u128::from(self.used) + u128::from(self.available));
        u8::try_from((used * 100).div_ceil(usable.max(1))).unwrap_or(100)
    }
}

/// A file system. Paths are absolute or relative to the process, as with `std::fs`.
pub trait Disk: Send + Sync {
    /// Opens a file. `NotFound` when it is missing and `create` is not set.
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Box<dyn DiskFile>>;
    /// The entries of a directory in name order. `NotFound` when it is missing.
    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>>;
    /// Whether a file or directory exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Creates a directory and its parents; no error if it exists.
    fn create_directories(&self, path: &Path) -> io::Result<()>;
    /// Removes a file. `NotFound` when it is missing.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_directory(&self, path: &Path) -> io::Result<()>;
    /// Renames a file within one file system, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes creations, removals and renames inside a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Makes everything on the file system that holds `path` durable (`syncfs`): cheaper than many single syncs.
    fn sync_file_system(&self, path: &Path) -> io::Result<()>;
    /// Room on the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<DiskSpace>;
}

/// An open file. All offsets and lengths are bytes.
pub trait DiskFile: Send + Sync {
    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `data`. After an error the state of the range is unknown.
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Allocates real blocks for `[0, length)` and extends the file to it. `StorageFull` when they are not there.
    fn allocate(&self, length: u64) -> io::Result<()>;
    /// Truncates or (sparsely) extends.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Current length.
    fn length(&self) -> io::Result<u64>;
    /// Makes everything written durable (`fdatasync`). An error is final: never retry it, never trust the file again.
    fn sync_data(&self) -> io::Result<()>;
    /// Starts write-back of a range without waiting for it (`sync_file_range`); a hint, no durability.
    fn start_write_back(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Where data begins at or after `offset`; `None` when only a hole or unwritten blocks follow. May answer `offset`
    /// itself when it cannot tell: bytes before the answer are certainly zero, bytes behind it are unknown.
    fn data_from(&self, offset: u64) -> io::Result<Option<u64>>;
    /// Takes an exclusive record lock (`fcntl` `F_SETLK`) on byte 0, the one that a Java broker takes. A process
    /// excludes only other processes, and loses the lock when it closes any descriptor of the file.
    fn try_lock(&self) -> io::Result<LockOutcome>;
    /// Tells the kernel that the cached pages of a range are not needed any more (`POSIX_FADV_DONTNEED`); a hint.
    fn drop_cached(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Tells the kernel to read no more than it is asked for (`POSIX_FADV_RANDOM`); a hint.
    fn expect_scattered_reads(&self) -> io::Result<()>;
    /// Whether all pages of a range are cached, so that reading them waits for no disk (`cachestat`). They may go at any
    /// time. `Unsupported` on kernels before 6.5.
    fn is_cached(&self, offset: u64, length: u64) -> io::Result<bool>;
    /// The kernel's descriptor, for io_uring, cachestat and sendfile. `None` in memory.
    fn raw_fd(&self) -> Option<RawFd>;
}

/// The errors of the system among an error and its causes.
pub fn io_causes<'a>(error: &'a (dyn std::error::Error + 'static)) -> impl Iterator<Item = &'a io::Error> {
    std::iter::successors(Some(error), |error| error.source()).filter_map(|error| error.downcast_ref())
}

/// Whether an error says that the file system, the quota or the file-size limit is exhausted. Such an error is not
/// final: service returns when there is room again.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Creates a directory and its parents and makes the new names durable.
pub fn create_directories_durably(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let mut parents = Vec::new();
    let mut current = path;
    while !disk.exists(current)? {
        let Some(parent) = current.parent() else { break };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        parents.push(parent);
        current = parent;
    }
    disk.create_directories(path)?;
    parents.into_iter().rev().try_for_each(|parent| disk.sync_directory(parent))
}

/// Reads a whole file; `None` when it is missing. For small files only.
pub fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path, OpenOptions::default()) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = usize::try_from(file.length()?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut content = vec![0; length];
    let filled = file.read_at(&mut content, 0)?;
    content.truncate(filled);
    Ok(Some(content))
}

/// Writes a file whole and syncs its content; the name is not made durable.
pub fn write_file(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let file = disk.open(path, OpenOptions { create: true, ..OpenOptions::default() })?;
    file.set_length(0)?;
    file.write_all_at(content, 0)?;
    file.sync_data()
}

/// Removes a file; no error when it is missing already.
pub fn remove_if_present(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
