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

/// Creates and drops a ring like those of the shards.
pub fn check_io_uring() -> Result<(), PreflightError> {
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").map(|text| text.trim().to_owned());
    match super::Ring::new(super::RingOptions { entries: 8, receive_buffers: 1, receive_buffer_bytes: 4096 }) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.raw_os_error() {
            Some(libc::ENOSYS) => PreflightError::Missing(error),
            Some(libc::EINVAL) => PreflightError::TooOld(error),
            Some(libc::EPERM | libc::EACCES) => match disabled {
                Ok(level) if level != "0" => PreflightError::Disabled(level),
                _ => PreflightError::Refused(error),
            },
            Some(libc::ENOMEM) => PreflightError::LockedMemory(error),
            _ => PreflightError::Other(error),
        }),
    }
}
