//! Files of the operating system.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::{DirectoryEntry, Disk, DiskFile, DiskSpace, LockOutcome, OpenOptions};

/// The file system of the host.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

type Hook = Box<dyn Fn()>;

thread_local! {
    static AFTER_OPERATIONS: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// From now on `hook` is called after each operation of this thread that may have waited for the disk, also within long steps.
pub fn call_after_operations(hook: impl Fn() + 'static) {
    AFTER_OPERATIONS.set(Some(Box::new(hook)));
}

/// Passes the outcome of an operation on.
fn done<T>(outcome: T) -> T {
    AFTER_OPERATIONS.with_borrow(|hook| {
        if let Some(hook) = hook {
            hook();
        }
    });
    outcome
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Box<dyn DiskFile>> {
        let mut flags = libc::O_CLOEXEC;
        if options.direct {
            flags |= libc::O_DIRECT;
        }
        if options.data_sync {
            flags |= libc::O_DSYNC;
        }
        let file = fs::OpenOptions::new()
            .read(true)
            .write(options.write || options.create)
            .create(options.create)
            .truncate(false)
            .custom_flags(flags)
            .open(path);
        Ok(Box::new(RealFile(done(file)?)))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let is_directory = metadata.is_dir();
            entries.push(DirectoryEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                length: if is_directory { 0 } else { metadata.len() },
                is_directory,
                modified_ms: metadata
                    .modified()
                    .ok()
                    .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
                    .and_then(|time| u64::try_from(time.as_millis()).ok()),
            });
        }
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        done(path.try_exists())
    }

    fn create_directories(&self, path: &Path) -> io::Result<()> {
        done(fs::create_dir_all(path))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        done(fs::remove_file(path))
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        done(fs::remove_dir(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        done(fs::rename(from, to))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        done(File::open(path)?.sync_all())
    }

    fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        let directory = File::open(path)?;
        // SAFETY: an open descriptor.
        done(match unsafe { libc::syncfs(directory.as_raw_fd()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        })
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
        // SAFETY: an all-zero statvfs is a valid value for the kernel to overwrite.
        let mut status: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: `path` is NUL-terminated and `status` is writable; both outlive the call.
        if unsafe { libc::statvfs(path.as_ptr(), &mut status) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let bytes = |blocks: u64| blocks * status.f_frsize;
        let (total, used) = (bytes(status.f_blocks), bytes(status.f_blocks.saturating_sub(status.f_bfree)));
        Ok(DiskSpace { total, available: bytes(status.f_bavail), used })
    }
}

struct RealFile(File);

/// Turns a length or offset into the kernel's signed form.
fn kernel_offset(value: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
}

/// Number of the system call cachestat(2), the same on all processors; `libc` does not name it everywhere.
const SYS_CACHESTAT: libc::c_long = 451;

/// The kernel's `struct cachestat`: numbers of pages.
#[repr(C)]
#[derive(Default)]
struct CacheCounts {
    cached: u64,
    dirty: u64,
    written_back: u64,
    evicted: u64,
    recently_evicted: u64,
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done(filled))
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        done(self.0.write_all_at(data, offset))
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let length = kernel_offset(length)?;
        loop {
            // SAFETY: fallocate takes plain integers and a descriptor that `self` keeps open.
            if unsafe { libc::fallocate(self.0.as_raw_fd(), 0, 0, length) } == 0 {
                return done(Ok(()));
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return done(Err(error));
            }
        }
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        done(self.0.set_len(length))
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        done(self.0.sync_data())
    }

    fn drop_cached(&self, offset: u64, length: u64) -> io::Result<()> {
        self.advise(offset, length, libc::POSIX_FADV_DONTNEED)
    }

    fn expect_scattered_reads(&self) -> io::Result<()> {
        self.advise(0, 0, libc::POSIX_FADV_RANDOM)
    }

    fn is_cached(&self, offset: u64, length: u64) -> io::Result<bool> {
        // SAFETY: sysconf takes a plain integer. The page size is known on every Linux.
        let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4_096).max(1);
        let first = offset - offset % page;
        let pages = (offset + length).div_ceil(page) - first / page;
        let range = [first, pages * page];
        let mut counts = CacheCounts::default();
        // SAFETY: the kernel reads `range` and writes `counts`, both of its layout, and keeps neither.
        let status = unsafe { libc::syscall(SYS_CACHESTAT, self.0.as_raw_fd(), range.as_ptr(), &raw mut counts, 0) };
        match status {
            0 => Ok(counts.cached >= pages),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn start_write_back(&self, offset: u64, length: u64) -> io::Result<()> {
        let (offset, length) = (kernel_offset(offset)?, kernel_offset(length)?);
        // SAFETY: sync_file_range takes plain integers and a descriptor that `self` keeps open.
        match unsafe { libc::sync_file_range(self.0.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<u64>> {
        // SAFETY: lseek takes plain integers; the file position it moves is used by nobody (all access is positional).
        let found = unsafe { libc::lseek(self.0.as_raw_fd(), kernel_offset(offset)?, libc::SEEK_DATA) };
        if let Ok(found) = u64::try_from(found) {
            return Ok(Some(found));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENXIO) => Ok(None),
            Some(libc::EINVAL | libc::EOPNOTSUPP) => Ok(Some(offset)),
            _ => Err(error),
        }
    }

    fn try_lock(&self) -> io::Result<LockOutcome> {
        let mut request = first_byte_lock();
        // SAFETY: F_SETLK reads the flock structure, which outlives the call.
        if unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_SETLK, &request) } == 0 {
            return Ok(LockOutcome::Acquired);
        }
        let error = io::Error::last_os_error();
        if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) {
            return Err(error);
        }
        // SAFETY: F_GETLK overwrites the flock structure, which is writable and outlives the call.
        let answered = unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_GETLK, &mut request) } == 0;
        let known = answered && i32::from(request.l_type) != libc::F_UNLCK;
        Ok(LockOutcome::HeldBy(u32::try_from(request.l_pid).ok().filter(|pid| known && *pid > 0)))
    }

    fn raw_fd(&self) -> Option<RawFd> {
        Some(self.0.as_raw_fd())
    }
}

impl RealFile {
    fn advise(&self, offset: u64, length: u64, advice: i32) -> io::Result<()> {
        let (offset, length) = (kernel_offset(offset)?, kernel_offset(length)?);
        // SAFETY: posix_fadvise takes plain integers and a descriptor that `self` keeps open.
        match unsafe { libc::posix_fadvise(self.0.as_raw_fd(), offset, length, advice) } {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// A request for an exclusive lock of the byte range [0, 1).
fn first_byte_lock() -> libc::flock {
    // SAFETY: flock is a plain structure of integers for which all zeros are valid.
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = libc::F_WRLCK as libc::c_short;
    request.l_whence = libc::SEEK_SET as libc::c_short;
    request.l_len = 1;
    request
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::super::StateFile;
    use super::*;

    /// Goal: a step of many operations is not taken for one that does not return. Method: a hook that counts, a
    /// state file that is replaced, and one operation of each kind.
    #[test]
    fn each_operation_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("store");
        RealDisk.create_directories(&directory).unwrap();
        let file = StateFile::new(directory.join("state.json"));
        file.persist(&RealDisk, b"{}", |_| true).unwrap();
        let calls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&calls);
        call_after_operations(move || counted.set(counted.get() + 1));
        file.persist(&RealDisk, b"{1}", |_| true).unwrap();
        let of_file = calls.take();
        RealDisk.rename(&directory.join("state.json"), &directory.join("other")).unwrap();
        RealDisk.sync_directory(&directory).unwrap();
        RealDisk.sync_file_system(&directory).unwrap();
        let opened = RealDisk.open(&directory.join("other"), OpenOptions { write: true, ..OpenOptions::default() });
        let opened = opened.unwrap();
        opened.allocate(4_096).unwrap();
        opened.set_length(0).unwrap();
        opened.write_all_at(b"x", 0).unwrap();
        opened.read_at(&mut [0], 0).unwrap();
        opened.sync_data().unwrap();
        RealDisk.remove_file(&directory.join("other")).unwrap();
        let single = calls.take();
        assert!(of_file >= 9, "{of_file}");
        assert_eq!(single, 10);
    }
}
