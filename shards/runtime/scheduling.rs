//! How the kernel shares a processor between a shard and the threads beside it.

use std::io;
use std::time::Duration;

/// Layout of the kernel's `struct sched_attr`, first version (48 bytes).
#[repr(C)]
#[derive(Default)]
struct SchedulingAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

/// Sets niceness and time slice of the calling thread; no slice: the kernel's own (some milliseconds). A thread that has the
/// processor keeps it for the rest of its slice even when another one wakes up, so whoever shares a processor with a shard
/// takes a short one. Kernels before 6.12 ignore slices. `EPERM` where the process already stands farther back.
/// Source: sched_setattr(2).
pub fn set_scheduling(niceness: i32, slice: Option<Duration>) -> io::Result<()> {
    let attributes = SchedulingAttributes {
        size: size_of::<SchedulingAttributes>() as u32,
        policy: libc::SCHED_OTHER as u32,
        nice: niceness,
        runtime_ns: slice.map_or(0, |slice| slice.as_nanos() as u64),
        ..SchedulingAttributes::default()
    };
    // SAFETY: the kernel reads `size` bytes of the structure, which lives until the call returns; 0 is the calling thread.
    let status = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
