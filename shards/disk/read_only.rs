//! A view of a file system through which nothing can be changed, for tools that only look.
//!
//! Files of one folder can be shown longer than they are, with zeros behind their end: a scanner of whole segments can then
//! read what is left of one that was cut short.

use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DirectoryEntry, Disk, DiskFile, DiskSpace, LockOutcome, OpenOptions};

/// Looks through to another disk and refuses every change with `ReadOnlyFilesystem`.
#[derive(Clone)]
pub struct ReadOnlyDisk {
    inner: Arc<dyn Disk>,
    padded: Option<(PathBuf, u64)>,
}

struct ReadOnlyFile {
    inner: Box<dyn DiskFile>,
    least_length: u64,
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl ReadOnlyDisk {
    /// A view of a disk.
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self { inner, padded: None }
    }

    /// The same view, in which every file directly in `directory` has at least `bytes`.
    pub fn padded(&self, directory: impl Into<PathBuf>, bytes: u64) -> Self {
        Self { inner: Arc::clone(&self.inner), padded: Some((directory.into(), bytes)) }
    }
}

impl Disk for ReadOnlyDisk {
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Box<dyn DiskFile>> {
        if options.create && !self.inner.exists(path)? {
            return refused();
        }
        let inner = self.inner.open(path, OpenOptions { direct: options.direct, ..OpenOptions::default() })?;
        let padded = self.padded.as_ref().filter(|(directory, _)| path.parent() == Some(directory));
        Ok(Box::new(ReadOnlyFile { inner, least_length: padded.map_or(0, |(_, bytes)| *bytes) }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        self.inner.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn create_directories(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove_directory(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn sync_file_system(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        self.inner.space(path)
    }
}

impl DiskFile for ReadOnlyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.inner.read_at(buffer, offset)?;
        let shown = self.least_length.saturating_sub(offset).min(buffer.len() as u64);
        let shown = usize::try_from(shown).unwrap_or(usize::MAX);
        if shown > read {
            buffer[read..shown].fill(0);
            return Ok(shown);
        }
        Ok(read)
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        refused()
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        refused()
    }

    fn set_length(&self, _: u64) -> io::Result<()> {
        refused()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.inner.length()?.max(self.least_length))
    }

    fn sync_data(&self) -> io::Result<()> {
        refused()
    }

    fn start_write_back(&self, _: u64, _: u64) -> io::Result<()> {
        refused()
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<u64>> {
        self.inner.data_from(offset)
    }

    fn try_lock(&self) -> io::Result<LockOutcome> {
        refused()
    }

    fn drop_cached(&self, offset: u64, length: u64) -> io::Result<()> {
        self.inner.drop_cached(offset, length)
    }

    fn expect_scattered_reads(&self) -> io::Result<()> {
        self.inner.expect_scattered_reads()
    }

    fn is_cached(&self, offset: u64, length: u64) -> io::Result<bool> {
        self.inner.is_cached(offset, length)
    }

    fn raw_fd(&self) -> Option<RawFd> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::{create_directories_durably, write_file};
    use super::*;
    use crate::sim::SimDisk;

    /// Goal: nothing can be changed, and short files look whole where that was asked for. Method: every kind of change on a
    /// view of a disk with one file; reads around its end; the disk's count of changes stays.
    #[test]
    fn looks_and_changes_nothing() {
        let disk = SimDisk::new();
        create_directories_durably(&disk, Path::new("/a")).unwrap();
        write_file(&disk, Path::new("/a/f"), b"abc").unwrap();
        let before = disk.mutations();
        let plain = ReadOnlyDisk::new(Arc::new(disk.clone()));
        let padded = plain.padded("/a", 8);
        let file = padded.open(Path::new("/a/f"), OpenOptions { write: true, ..OpenOptions::default() }).unwrap();
        let mut buffer = [9; 10];
        assert_eq!((file.length().unwrap(), file.read_at(&mut buffer, 1).unwrap()), (8, 7));
        assert_eq!(buffer, [b'b', b'c', 0, 0, 0, 0, 0, 9, 9, 9]);
        assert_eq!(plain.open(Path::new("/a/f"), OpenOptions::default()).unwrap().length().unwrap(), 3);
        assert!(file.write_all_at(b"x", 0).is_err() && file.set_length(0).is_err() && file.allocate(9).is_err());
        assert!(file.sync_data().is_err() && file.try_lock().is_err());
        let path = Path::new("/a/f");
        let create = OpenOptions { create: true, ..OpenOptions::default() };
        assert!(plain.open(Path::new("/a/g"), create).is_err() && plain.open(path, create).is_ok());
        assert!(plain.remove_file(path).is_err() && plain.rename(path, Path::new("/a/g")).is_err());
        assert!(plain.create_directories(Path::new("/b")).is_err() && plain.remove_directory(Path::new("/a")).is_err());
        assert!(plain.sync_directory(Path::new("/a")).is_err() && plain.sync_file_system(path).is_err());
        assert_eq!(disk.mutations(), before);
    }
}
