//! The seam between RingMQ and the file system.
//!
//! Everything that blocks on files goes through [`Disk`]: recovery, segment preparation, consume-queue and index
//! files, state files. Production uses `RealDisk`; tests use the in-memory disk of `sim`, which can fail, tear, delay
//! and forget. None of these calls may be made on a shard thread, with one exception that has its own metric: the log
//! writer's page-cache write (see `log`).

use std::io;
use std::os::fd::RawFd;
use std::path::Path;

pub mod real;

pub use real::RealDisk;

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

/// What a directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// File name without its directory.
    pub name: String,
    /// Length in bytes; 0 for directories.
    pub length: u64,
    /// Whether the entry is a directory.
    pub is_directory: bool,
}

/// Free and total room of the file system that holds a path, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Size of the file system.
    pub total: u64,
    /// Bytes that an ordinary user can still allocate.
    pub available: u64,
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
    /// The kernel's descriptor, for io_uring, cachestat and sendfile. `None` in memory.
    fn raw_fd(&self) -> Option<RawFd>;
}
