//! A running broker seen from outside, thread by thread: stopping single threads, and what each has read from the disk and
//! waited for.

use std::fs;
use std::io;
use std::ops::{AddAssign, Sub};
use std::time::Instant;

use crate::broker::PATIENCE;

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
    /// Stops threads of a child process, each while it waits for something: anywhere else it may hold what all threads need, such as
    /// the allocator's lock, and then nobody would go on. All have stopped when this returns.
    ///
    /// # Errors
    /// The system forbids it, or a thread never waits.
    pub fn new(threads: Vec<libc::pid_t>) -> io::Result<Stopped> {
        let mut stopped = Stopped { threads: Vec::new() };
        for thread in threads {
            trace(libc::PTRACE_SEIZE, thread)?;
            stopped.threads.push(thread);
            let begun = Instant::now();
            loop {
                trace(libc::PTRACE_INTERRUPT, thread)?;
                let mut status = 0;
                // SAFETY: a valid place for the status.
                let waited = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) };
                assert!(waited == thread && libc::WIFSTOPPED(status), "thread {thread} stops: {status:#x}");
                if waits_for_a_thread(thread)? {
                    break;
                }
                if begun.elapsed() > PATIENCE {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, format!("thread {thread} never waits")));
                }
                trace(libc::PTRACE_CONT, thread)?;
                std::thread::yield_now();
            }
        }
        Ok(stopped)
    }
}

/// Whether a stopped thread was waiting for another one, as the standard library does: such a thread holds no lock.
fn waits_for_a_thread(thread: libc::pid_t) -> io::Result<bool> {
    // Its number, then its arguments in hexadecimal; -1 outside of system calls.
    let call = fs::read_to_string(format!("/proc/{thread}/syscall"))?;
    let mut words = call.split_whitespace();
    let number = words.next().and_then(|number| number.parse().ok());
    let operation = words.nth(1).and_then(|word| i32::from_str_radix(word.trim_start_matches("0x"), 16).ok());
    Ok(number == Some(libc::SYS_futex)
        && operation.is_some_and(|what| what & libc::FUTEX_CMD_MASK == libc::FUTEX_WAIT_BITSET))
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for thread in &self.threads {
            if trace(libc::PTRACE_DETACH, *thread).is_err() {
                // It has ended with its process, which is only gone when its threads are.
                // SAFETY: nobody wants its status.
                unsafe { libc::waitpid(*thread, std::ptr::null_mut(), libc::__WALL) };
            }
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

/// What the kernel has counted for some threads.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThreadFigures {
    /// Page faults that needed a disk.
    pub major_faults: u64,
    /// Bytes fetched from disks.
    pub read_bytes: u64,
    /// Time on a processor.
    pub run_ns: u64,
    /// Time ready to run without a processor.
    pub waited_ns: u64,
    /// Times a thread went to sleep.
    pub own_switches: u64,
    /// Times a thread lost its processor.
    pub forced_switches: u64,
}

impl ThreadFigures {
    /// Of these threads of a process, added up.
    pub fn of(process: u32, threads: &[libc::pid_t]) -> ThreadFigures {
        let mut sum = ThreadFigures { read_bytes: bytes_from_disk(process, threads), ..ThreadFigures::default() };
        for thread in threads {
            let file =
                |name: &str| fs::read_to_string(format!("/proc/{process}/task/{thread}/{name}")).unwrap_or_default();
            let times = file("schedstat");
            let mut times = times.split_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
            let status = file("status");
            let switches = |name: &str| -> u64 {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
            };
            let stat = file("stat");
            sum += ThreadFigures {
                major_faults: stat_field(&stat, 12).parse().unwrap_or(0),
                read_bytes: 0,
                run_ns: times.next().unwrap_or(0),
                waited_ns: times.next().unwrap_or(0),
                own_switches: switches("voluntary_ctxt_switches:"),
                forced_switches: switches("nonvoluntary_ctxt_switches:"),
            };
        }
        sum
    }

    fn zip(self, other: ThreadFigures, with: impl Fn(u64, u64) -> u64) -> ThreadFigures {
        ThreadFigures {
            major_faults: with(self.major_faults, other.major_faults),
            read_bytes: with(self.read_bytes, other.read_bytes),
            run_ns: with(self.run_ns, other.run_ns),
            waited_ns: with(self.waited_ns, other.waited_ns),
            own_switches: with(self.own_switches, other.own_switches),
            forced_switches: with(self.forced_switches, other.forced_switches),
        }
    }
}

impl AddAssign for ThreadFigures {
    fn add_assign(&mut self, other: ThreadFigures) {
        *self = self.zip(other, |a, b| a + b);
    }
}

impl Sub for ThreadFigures {
    type Output = ThreadFigures;

    fn sub(self, before: ThreadFigures) -> ThreadFigures {
        self.zip(before, |a, b| a - b)
    }
}

/// A field of `/proc/PID/stat` by its number in proc(5), from 3 on.
fn stat_field(stat: &str, number: usize) -> &str {
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    behind_name.split_whitespace().nth(number - 3).unwrap_or("")
}

/// Whether a thread waits for a disk at this moment, or for something else that cannot be interrupted.
pub fn is_in_disk_wait(process: u32, thread: libc::pid_t) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/task/{thread}/stat")).unwrap_or_default();
    stat_field(&stat, 3) == "D"
}
