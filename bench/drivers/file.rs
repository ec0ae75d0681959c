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
}

/// The driver.
#[derive(Debug)]
pub struct FileAppend {
    file: File,
    path: PathBuf,
    mode: AppendMode,
    buffer: Vec<u8>,
    buffer_start: usize,
    append_bytes: usize,
    at: u64,
}

impl FileAppend {
    /// Makes the file in `folder`. Blocks while it is zeroed.
    ///
    /// # Errors
    /// There is no room, or the file system refuses.
    pub fn open(folder: &Path, mode: AppendMode, append_bytes: usize) -> Result<FileAppend, DriverError> {
        let failed = |action: &'static str| move |source: io::Error| DriverError::System { action, source };
        let path = folder.join("append-floor");
        let zeros = vec![0; 1 << 20];
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let plain = options.open(&path).map_err(failed("create the file of the append floor"))?;
        for piece in 0..FILE_BYTES >> 20 {
            plain.write_all_at(&zeros, piece << 20).map_err(failed("zero the file of the append floor"))?;
        }
        plain.sync_all().map_err(failed("sync the file of the append floor"))?;
        let (file, append_bytes) = if mode == AppendMode::DirectSync {
            let mut options = OpenOptions::new();
            options.write(true).custom_flags(libc::O_DIRECT | libc::O_DSYNC);
            let file = options.open(&path).map_err(failed("open a file for direct writes"))?;
            (file, append_bytes.next_multiple_of(BLOCK_BYTES))
        } else {
            (plain, append_bytes)
        };
        let buffer = vec![0x5a; append_bytes + BLOCK_BYTES];
        let buffer_start = buffer.as_ptr().align_offset(BLOCK_BYTES);
        Ok(FileAppend { file, path, mode, buffer, buffer_start, append_bytes, at: 0 })
    }

    fn append(&mut self) -> io::Result<()> {
        if self.at + self.append_bytes as u64 > FILE_BYTES {
            self.at = 0;
        }
        let bytes = &self.buffer[self.buffer_start..self.buffer_start + self.append_bytes];
        self.file.write_all_at(bytes, self.at)?;
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
        "append"
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

impl Drop for FileAppend {
    fn drop(&mut self) {
        // The folder is temporary and will be removed with the file if this fails.
        let _ = std::fs::remove_file(&self.path);
    }
}
