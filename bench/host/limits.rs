//! The most files that this process may have open: each connection is one, and the usual soft limit of 1024 is below what workloads with
//! thousands of connections need.

fn limits() -> libc::rlimit {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is alive. If the call fails it stays as it is.
    let _ = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limits) };
    limits
}

/// The most files that may be open now; 0 if the kernel does not say.
pub fn open_files() -> u64 {
    limits().rlim_cur
}

/// Raises the soft limit to the hard one, for this process and the brokers that it starts.
pub fn raise_open_files() {
    let mut limits = limits();
    if limits.rlim_cur < limits.rlim_max {
        limits.rlim_cur = limits.rlim_max;
        // SAFETY: the structure is alive. Where it is refused the limit stays, and a message names it when it is met.
        let _ = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limits) };
    }
}
