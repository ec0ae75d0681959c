//! The floor of the disk: appends of the same size to one file, with or without a sync after each.
//!
//! Two ways of syncing, as servers do: `write` and `fdatasync` through the page cache, or a direct write with `O_DSYNC`. The
//! file is allocated and zeroed before, so that no append changes its metadata; it is written round and round. An append
//! is carried out on the spot by the generator's thread, so at most one is under way.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Books, Driver, DriverError};
use crate::clock::monotonic_ns;
use crate::load::recorder::Failure;

/// Bytes of the file: large enough that a device does not see one block again and again.
const FILE_BYTES: u64 = 128 << 20;
/// What direct writes must be aligned to.
const BLOCK_BYTES: usize = 4096;

/// How an append becomes safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendMode {
    /// Into the page cache: D1.
    PageCache,
    /// Into the page cache, then `fdatasync`: D2.
    Fdatasync,
    /// Past the page cache with `O_DIRECT` and `O_DSYNC`: D2.
    DirectSync,
    /// No append at all: reads what is there, in order, from the page cache. The floor of whoever catches up on what was sent a moment
    /// ago.
    Read,
    /// The same from the disk, past the page cache with `O_DIRECT`. The floor of whoever catches up on more than memory holds.
    ReadDirect,
}

impl AppendMode {
    fn reads(self) -> bool {
        matches!(self, AppendMode::Read | AppendMode::ReadDirect)
    }
}

/// A file that is there only as long as this value.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing more can be done about a file that cannot be removed.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The driver.
#[derive(Debug)]
pub struct FileAppend {
    file: File,
    _path: Temporary,
    mode: AppendMode,
    buffer: Vec<u8>,
    buffer_start: usize,
    append_bytes: usize,
    file_bytes: u64,
    at: u64,
}

impl FileAppend {
    /// Makes a file of its own in `folder`. Blocks while it is zeroed.
    ///
    /// # Errors
    /// There is no room, or the file system refuses; nothing is left behind.
    pub fn open(folder: &Path, mode: AppendMode, append_bytes: usize) -> Result<FileAppend, DriverError> {
        FileAppend::open_of(folder, mode, append_bytes, FILE_BYTES)
    }

    fn open_of(
        folder: &Path,
        mode: AppendMode,
        append_bytes: usize,
        file_bytes: u64,
    ) -> Result<FileAppend, DriverError> {
        let failed = |action: &'static str| move |source: io::Error| DriverError::System { action, source };
        let path = folder.join(format!("append-floor-{}-{}", std::process::id(), monotonic_ns()));
        let zeros = vec![0; 1 << 20];
        let mut options = OpenOptions::new();
        // Only a new file: the folder may be everybody's, and what is there already belongs to somebody else.
        options.read(true).write(true).create_new(true);
        let plain = options.open(&path).map_err(failed("create the file of the append floor"))?;
        let path = Temporary(path);
        for piece in 0..file_bytes >> 20 {
            plain.write_all_at(&zeros, piece << 20).map_err(failed("zero the file of the append floor"))?;
        }
        plain.sync_all().map_err(failed("sync the file of the append floor"))?;
        let direct = |flags| {
            let mut options = OpenOptions::new();
            options.read(mode.reads()).write(!mode.reads()).custom_flags(libc::O_DIRECT | flags);
            options.open(&path.0)
        };
        let (file, append_bytes) = match mode {
            AppendMode::DirectSync => {
                let file = direct(libc::O_DSYNC).map_err(failed("open a file for direct writes"))?;
                (file, append_bytes.next_multiple_of(BLOCK_BYTES))
            }
            AppendMode::ReadDirect => {
                let file = direct(0).map_err(failed("open a file for direct reads"))?;
                (file, append_bytes.next_multiple_of(BLOCK_BYTES))
            }
            AppendMode::PageCache | AppendMode::Fdatasync | AppendMode::Read => (plain, append_bytes),
        };
        let buffer = vec![0x5a; append_bytes + BLOCK_BYTES];
        let buffer_start = buffer.as_ptr().align_offset(BLOCK_BYTES);
        Ok(FileAppend { file, _path: path, mode, buffer, buffer_start, append_bytes, file_bytes, at: 0 })
    }

    fn append(&mut self) -> io::Result<()> {
        if self.at + self.append_bytes as u64 > self.file_bytes {
            self.at = 0;
        }
        let bytes = &mut self.buffer[self.buffer_start..self.buffer_start + self.append_bytes];
        if self.mode.reads() {
            self.file.read_exact_at(bytes, self.at)?;
        } else {
            self.file.write_all_at(bytes, self.at)?;
        }
        self.at += self.append_bytes as u64;
        if self.mode == AppendMode::Fdatasync {
            // SAFETY: the descriptor is open; no memory is passed.
            let code = unsafe { libc::fdatasync(self.file.as_raw_fd()) };
            if code != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

impl Driver for FileAppend {
    fn operation(&self) -> &'static str {
        if self.mode.reads() { "read" } else { "append" }
    }

    fn start(&mut self, intended_ns: u64, books: &mut Books) -> Result<bool, DriverError> {
        let (first, _) = books.ledger.send_request(0);
        let actual_ns = monotonic_ns();
        let result = self.append();
        let now_ns = monotonic_ns();
        books.ledger.answer(0, first, result.is_ok());
        match result {
            Ok(()) => books.recorder.answer(intended_ns, actual_ns, now_ns),
            Err(error) => {
                books.recorder.fail(intended_ns, now_ns, Failure::System(error.raw_os_error().unwrap_or(0)));
                return Err(DriverError::System { action: "append to the file of the floor", source: error });
            }
        }
        Ok(true)
    }

    fn turn(&mut self, _: &mut Books) -> Result<bool, DriverError> {
        Ok(false)
    }

    fn in_flight(&self) -> u64 {
        0
    }

    fn fail_older(&mut self, _: u64, _: bool, _: &mut Books) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: two floors in one folder do not meet, what is there under the former name is not touched, and nothing is left, also
    /// not by one that could not be opened. Method: two at once beside a link of that name, then a folder that refuses
    /// direct writes.
    #[test]
    fn files_are_their_own_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("precious");
        std::fs::write(&precious, "kept").unwrap();
        std::os::unix::fs::symlink(&precious, folder.path().join("append-floor")).unwrap();
        let files = || std::fs::read_dir(folder.path()).unwrap().count();
        let open = |folder: &Path, mode| FileAppend::open_of(folder, mode, 1024, 1 << 20);
        let mut first = open(folder.path(), AppendMode::PageCache).unwrap();
        let second = open(folder.path(), AppendMode::PageCache).unwrap();
        assert_eq!(files(), 4);
        drop(second);
        assert_eq!(files(), 3);
        first.append().unwrap();
        drop(first);
        assert_eq!((files(), std::fs::read_to_string(&precious).unwrap().as_str()), (2, "kept"));
        // The proc file system takes no new files, and shared memory no direct writes on many kernels.
        for mode in [AppendMode::Read, AppendMode::ReadDirect] {
            let mut reading = match open(folder.path(), mode) {
                Ok(reading) => reading,
                // Some file systems know no direct reads.
                Err(error) if mode == AppendMode::ReadDirect => {
                    assert!(error.to_string().contains("direct reads"), "{error}");
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            // To the end and from the beginning again.
            for _ in 0..2 * reading.file_bytes / reading.append_bytes as u64 {
                reading.append().unwrap();
                let start = reading.buffer_start;
                let bytes = &mut reading.buffer[start..start + 1024];
                assert!(bytes.iter().all(|byte| *byte == 0), "what was zeroed is read: {mode:?}");
                bytes.fill(1);
            }
        }
        assert!(open(Path::new("/proc"), AppendMode::PageCache).is_err());
        let memory = Path::new("/dev/shm");
        let own = format!("append-floor-{}-", std::process::id());
        if memory.is_dir() {
            drop(open(memory, AppendMode::DirectSync));
            let is_own = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&own);
            assert!(!std::fs::read_dir(memory).unwrap().flatten().any(|entry| is_own(&entry)));
        }
    }
}
