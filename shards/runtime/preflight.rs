//! Finds out before the start whether this host lets us use io_uring, and says what to do when it does not.

use std::fs;
use std::io;

/// Why io_uring cannot be used here, with the cure.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// `ENOSYS`: no such system call.
    #[error("the kernel has no io_uring ({0}); RingMQ needs Linux 6.0 or newer with CONFIG_IO_URING")]
    Missing(io::Error),
    /// Too old for what is used.
    #[error("the kernel's io_uring is too old ({0}); RingMQ needs Linux 6.0 or newer")]
    TooOld(io::Error),
    /// `kernel.io_uring_disabled` forbids it.
    #[error(
        "kernel.io_uring_disabled is {0}; allow io_uring with `sysctl kernel.io_uring_disabled=0` (with 1, put the user into the \
         group of kernel.io_uring_group)"
    )]
    Disabled(String),
    /// A seccomp filter forbids it, as containers do by default.
    #[error(
        "io_uring is refused ({0}), most likely by the container's seccomp profile; allow io_uring_setup, io_uring_enter and \
         io_uring_register in it (Docker: --security-opt seccomp=PROFILE.json, Kubernetes: a Localhost seccompProfile)"
    )]
    Refused(io::Error),
    /// Not enough locked memory.
    #[error("not enough locked memory for io_uring ({0}); raise it to 8 MiB: `ulimit -l 8192` or LimitMEMLOCK=8M")]
    LockedMemory(io::Error),
    /// Something else.
    #[error("io_uring does not work here: {0}")]
    Other(io::Error),
}

impl PreflightError {
    /// What it means that a ring could not be made.
    pub fn of(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS) => Self::Missing(error),
            Some(libc::EINVAL) => Self::TooOld(error),
            Some(libc::EPERM | libc::EACCES) => match fs::read_to_string("/proc/sys/kernel/io_uring_disabled") {
                Ok(level) if level.trim() != "0" => Self::Disabled(level.trim().to_owned()),
                _ => Self::Refused(error),
            },
            Some(libc::ENOMEM) => Self::LockedMemory(error),
            _ => Self::Other(error),
        }
    }
}

/// glommio refuses to make an executor below this limit of locked memory, whether the kernel would count it or not.
const EXECUTOR_LOCKED_BYTES: u64 = 512 << 10;

/// What is asked for; with it an ordinary user can run a shard per core on common machines.
const WANTED_LOCKED_BYTES: u64 = 8 << 20;

/// Raises the limit of locked memory to what is wanted, or as far as this process may, and gives what it is then.
fn raise_locked_memory() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a pointer to a local structure.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur >= WANTED_LOCKED_BYTES {
        return Ok(limit.rlim_cur);
    }
    // The second only where this process may not go above its own hard limit.
    for hard in [limit.rlim_max.max(WANTED_LOCKED_BYTES), limit.rlim_max] {
        let raised = libc::rlimit { rlim_cur: hard.min(WANTED_LOCKED_BYTES), rlim_max: hard };
        // SAFETY: as above.
        if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raised) } == 0 {
            return Ok(raised.rlim_cur);
        }
    }
    Ok(limit.rlim_cur)
}

/// Raises the limit of locked memory if need be, then creates and drops a ring like those of the shards.
pub fn check_io_uring() -> Result<(), PreflightError> {
    let locked = raise_locked_memory().map_err(PreflightError::Other)?;
    if locked < EXECUTOR_LOCKED_BYTES {
        return Err(PreflightError::LockedMemory(io::Error::other(format!("the limit is {locked} bytes"))));
    }
    let options = super::RingOptions { entries: 8, receive_buffers: 1, receive_buffer_bytes: 4096 };
    super::Ring::new(options).map(drop).map_err(PreflightError::of)
}
