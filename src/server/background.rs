//! Threads that stand back for the shards of the same processors.

/// Lets the shards of the same processors go before the calling thread: otherwise it takes their processor away in the middle of a
/// turn, or between the end of a write and the shard that waits for it, and every client waits with them. A refusal is harmless; it
/// comes when the whole process stands back farther already.
pub fn step_back(niceness: i32) {
    // SAFETY: no memory is involved. For the number of a thread, Linux changes that thread only.
    let status = unsafe { libc::setpriority(libc::PRIO_PROCESS, libc::gettid().unsigned_abs(), niceness) };
    if status != 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "a background thread keeps its priority");
    }
}
