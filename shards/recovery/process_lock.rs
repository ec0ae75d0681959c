//! Who may touch the store, and whether the last one stopped cleanly (RocketMQ `lock` and `abort`).
//!
//! The lock is taken before anything is read, unlike in Java, whose recovery truncates files first. `abort` is created
//! only by a holder of the lock and removed only after everything is durable. Its text begins with the process id, as Java's, and
//! goes on with a sign that Java does not write: so a start knows whether another broker worked here since. After a stop in order
//! `lock` tells the same: it begins with a sign of ours then, over which a starting Java broker writes its own word.

use std::io;
use std::path::PathBuf;

use super::paths::StorePaths;
use crate::disk::{
    Disk, DiskFile, LockOutcome, OpenOptions, create_directories_durably, read_file, remove_if_present, write_file,
};

/// Behind the process id in `abort`.
const SIGN: &str = " ringmq\n";
/// What `lock` begins with since a broker of ours stopped in order.
const STOPPED: &[u8] = b"ringmq";
/// What a Java broker writes into `lock` at each start, over the beginning of what is there.
const STARTED: &[u8] = b"lock";

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process, of ours or Java's, holds it.
    #[error("{path} is locked by {}: another process uses this store; stop it first, or choose another --data", holder(.pid))]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The holder, where the system can tell.
        pid: Option<u32>,
    },
    /// The file system refused.
    #[error("cannot lock {path}: {source}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_string(), |pid| format!("process {pid}"))
}

/// The text of `abort`, always of one length: it is replaced in place.
fn mark(pid: u32) -> String {
    format!("{pid:<10}{SIGN}")
}

/// Whether no other broker can have worked here since one of ours did: `abort` is there and bears our sign.
pub fn is_ours(disk: &dyn Disk, paths: &StorePaths) -> io::Result<bool> {
    Ok(read_file(disk, &paths.abort())?.is_some_and(|text| text.ends_with(SIGN.as_bytes())))
}

/// Whether the file `lock` says that no other broker has begun to work here since one of ours stopped in order. By the handle that holds
/// the lock.
pub fn is_signed(file: &dyn DiskFile) -> io::Result<bool> {
    let mut start = [0; STOPPED.len()];
    let read = file.read_at(&mut start, 0)?;
    Ok(start[..read] == *STOPPED)
}

/// The right to change the store, for as long as it lives.
pub struct ProcessLock {
    file: Box<dyn DiskFile>,
    is_signed: bool,
}

impl std::fmt::Debug for ProcessLock {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ProcessLock")
    }
}

impl ProcessLock {
    /// Takes the lock of a store, creating its root. The file must not be opened again by this process: closing that
    /// second descriptor would release the lock.
    pub fn acquire(disk: &dyn Disk, paths: &StorePaths) -> Result<Self, LockError> {
        let path = paths.lock();
        let failed = |source| LockError::Io { path: path.clone(), source };
        create_directories_durably(disk, &paths.root).map_err(failed)?;
        let file = disk.open(&path, OpenOptions { create: true, ..OpenOptions::default() }).map_err(failed)?;
        match file.try_lock().map_err(failed)? {
            LockOutcome::Acquired => {}
            LockOutcome::HeldBy(pid) => return Err(LockError::Held { path, pid }),
        }
        let is_signed = is_signed(&*file).map_err(failed)?;
        if !is_signed {
            file.write_all_at(STARTED, 0).map_err(failed)?;
        }
        Ok(Self { file, is_signed })
    }

    /// Whether no other broker has begun to work here since one of ours stopped in order.
    pub fn is_signed(&self) -> bool {
        self.is_signed
    }

    /// Whether the last broker on this store stopped cleanly: `abort` does not exist. Ask before [`Self::mark_running`].
    pub fn was_clean(&self, disk: &dyn Disk, paths: &StorePaths) -> io::Result<bool> {
        Ok(!disk.exists(&paths.abort())?)
    }

    /// Creates `abort` durably. Call before the first append, and when everything in our own files suits the log.
    pub fn mark_running(&self, disk: &dyn Disk, paths: &StorePaths, pid: u32) -> io::Result<()> {
        write_file(disk, &paths.abort(), mark(pid).as_bytes())?;
        disk.sync_directory(&paths.root)
    }

    /// As [`Self::mark_running`] where the process before has done that and nobody has stopped cleanly since: only the process
    /// id changes, and nothing waits for the disk.
    pub fn mark_running_again(&self, disk: &dyn Disk, paths: &StorePaths, pid: u32) -> io::Result<()> {
        let text = mark(pid);
        let file = disk.open(&paths.abort(), OpenOptions { write: true, ..OpenOptions::default() })?;
        file.write_all_at(text.as_bytes(), 0)?;
        file.set_length(text.len() as u64)
    }

    /// Removes `abort`. Call only when log, queues, index and checkpoint are durable and complete.
    pub fn mark_clean(&self, disk: &dyn Disk, paths: &StorePaths) -> io::Result<()> {
        self.file.write_all_at(STOPPED, 0)?;
        self.file.sync_data()?;
        remove_if_present(disk, &paths.abort())?;
        disk.sync_directory(&paths.root)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Read};
    use std::os::fd::AsRawFd;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::disk::RealDisk;
    use crate::sim::{CrashPattern, SimDisk};

    /// One holder at a time; the mark of a running broker is durable when made and gone when removed.
    #[test]
    fn one_broker_at_a_time_and_its_mark() {
        let (disk, paths) = (SimDisk::new(), StorePaths::new("/store"));
        let lock = ProcessLock::acquire(&disk, &paths).unwrap();
        assert!(matches!(ProcessLock::acquire(&disk, &paths), Err(LockError::Held { .. })));
        assert!(lock.was_clean(&disk, &paths).unwrap());
        lock.mark_running(&disk, &paths, 4711).unwrap();
        let crashed = disk.crash(0, CrashPattern::KeepNone);
        assert_eq!(read_file(&crashed, &paths.abort()).unwrap().unwrap(), b"4711       ringmq\n");
        let next = ProcessLock::acquire(&crashed, &paths).unwrap();
        assert!(!next.was_clean(&crashed, &paths).unwrap());
        next.mark_running_again(&crashed, &paths, 12).unwrap();
        assert_eq!(read_file(&crashed, &paths.abort()).unwrap().unwrap(), b"12         ringmq\n");
        assert!(is_ours(&crashed, &paths).unwrap());
        write_file(&crashed, &paths.abort(), b"4711").unwrap();
        next.mark_running_again(&crashed, &paths, 12).unwrap();
        assert!(is_ours(&crashed, &paths).unwrap(), "Java's was replaced");
        write_file(&crashed, &paths.abort(), b"12").unwrap();
        assert!(!is_ours(&crashed, &paths).unwrap(), "it is Java's");
        lock.mark_clean(&disk, &paths).unwrap();
        let stopped = disk.crash(0, CrashPattern::KeepNone);
        assert!(lock.was_clean(&stopped, &paths).unwrap() && !is_ours(&stopped, &paths).unwrap());
    }

    /// Goal: a start knows whether another broker has worked here since ours stopped in order. Method: the sign appears with a stop,
    /// outlives starts of ours, also such that came to nothing, and goes with what Java writes at its start.
    #[test]
    fn who_was_here_last() {
        let (disk, paths) = (SimDisk::new(), StorePaths::new("/store"));
        let acquire = |disk: &SimDisk| ProcessLock::acquire(disk, &paths).unwrap();
        assert!(!acquire(&disk).is_signed() && !acquire(&disk).is_signed(), "nobody has stopped");
        let lock = acquire(&disk);
        lock.mark_running(&disk, &paths, 1).unwrap();
        lock.mark_clean(&disk, &paths).unwrap();
        drop(lock);
        let disk = disk.crash(0, CrashPattern::KeepNone);
        assert!(acquire(&disk).is_signed() && acquire(&disk).is_signed(), "no stop follows");
        let java = disk.open(&paths.lock(), OpenOptions { write: true, ..OpenOptions::default() }).unwrap();
        java.write_all_at(b"lock", 0).unwrap();
        drop(java);
        assert!(!acquire(&disk).is_signed() && !acquire(&disk).is_signed(), "Java was here");
    }

    /// Where the helper process below finds the file to lock.
    const FILE_TO_HOLD: &str = "RINGMQ_TEST_LOCK_TO_HOLD";

    /// On the host the lock is a POSIX record lock, as Java's: a process that holds it is named, and excludes us while it lives. The
    /// process is this program again, running the helper below.
    #[test]
    fn the_holder_is_named_on_the_host() {
        let directory = tempfile::tempdir().unwrap();
        let paths = StorePaths::new(directory.path());
        std::fs::write(paths.lock(), b"lock").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["recovery::process_lock::tests::holds_a_lock", "--exact", "--ignored", "--nocapture"])
            .env(FILE_TO_HOLD, paths.lock())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = io::BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("the lock is held")));
        let error = ProcessLock::acquire(&RealDisk, &paths).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", child.id())), "{error}");
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        ProcessLock::acquire(&RealDisk, &paths).unwrap();
    }

    /// Locks the first byte of a file by the system's own call until its input ends.
    #[test]
    #[ignore = "a helper process of the test above"]
    fn holds_a_lock() {
        let Some(path) = std::env::var_os(FILE_TO_HOLD) else { return };
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        // SAFETY: a structure of numbers; all zeros is one.
        let mut request: libc::flock = unsafe { std::mem::zeroed() };
        request.l_type = libc::F_WRLCK as i16;
        request.l_len = 1;
        // SAFETY: an open file, and a structure that outlives the call.
        assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const request) }, 0);
        println!("the lock is held");
        io::stdin().read_to_end(&mut Vec::new()).unwrap();
    }
}
