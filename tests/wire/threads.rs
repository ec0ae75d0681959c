//! A running broker seen from outside, thread by thread: stopping single threads, and what each has read from the disk.

use std::fs;
use std::io;

/// Threads of a process that are stopped until this value is dropped. Only its own thread may drop it.
pub struct Stopped {
    threads: Vec<libc::pid_t>,
}

fn trace(request: libc::c_uint, thread: libc::pid_t) -> io::Result<()> {
    // SAFETY: these requests take no memory of ours.
    match unsafe { libc::ptrace(request, thread, 0_usize, 0_usize) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Numbers of the threads whose names begin like this.
pub fn threads(process: u32, name: &str) -> Vec<libc::pid_t> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("the process runs");
    tasks
        .map(|task| task.expect("an entry").path())
        .filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.starts_with(name)))
        .map(|task| task.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("a number"))
        .collect()
}

impl Stopped {
    /// Stops threads of a child process. All have stopped when this returns.
    ///
    /// # Errors
    /// The system forbids it.
    pub fn new(threads: Vec<libc::pid_t>) -> io::Result<Stopped> {
        let mut stopped = Stopped { threads: Vec::new() };
        for thread in threads {
            trace(libc::PTRACE_SEIZE, thread)?;
            stopped.threads.push(thread);
            trace(libc::PTRACE_INTERRUPT, thread)?;
            let mut status = 0;
            // SAFETY: a valid place for the status.
            let waited = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) };
            assert!(waited == thread && libc::WIFSTOPPED(status), "thread {thread} stops: {status:#x}");
        }
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for thread in &self.threads {
            // It may have ended with its process.
            let _ = trace(libc::PTRACE_DETACH, *thread);
        }
    }
}

/// Bytes that threads have fetched from disks so far, by reading files or by page faults. 0 where the kernel does not count, or
/// the files are in memory.
pub fn bytes_from_disk(process: u32, threads: &[libc::pid_t]) -> u64 {
    let of = |thread: &libc::pid_t| {
        let text = fs::read_to_string(format!("/proc/{process}/task/{thread}/io")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("read_bytes: ").map(str::to_owned));
        line.and_then(|line| line.parse::<u64>().ok()).unwrap_or(0)
    };
    threads.iter().map(of).sum()
}
