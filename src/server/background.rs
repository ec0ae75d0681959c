//! Who goes first on a processor: threads that stand back for the shards of the same processors, and shards that come first.

/// Length of a shard's turn of the processor while others want it too. The kernel takes no less.
const TURN_NS: u64 = 100_000;

/// Linux `sched_attr`, as long as kernels since 5.3 have it.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
struct Scheduling {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
    utilization_min: u32,
    utilization_max: u32,
}

const SCHEDULING_BYTES: u32 = size_of::<Scheduling>() as u32;
const _: () = assert!(SCHEDULING_BYTES == 56);

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

/// Lets others who want the calling thread's processor go first, if their share is due; returns at once when there is nobody. Among
/// threads that have been at work for a while Linux changes at a tick of its clock only, which comes every 4 ms or so: a
/// background thread in the middle of something long would keep a shard waiting until then, and afterwards the shard that thread.
/// A shard calls this several times in a millisecond, and so does who has long work, so that they take turns: what has to be
/// done in the background costs many requests a little instead of a few of them milliseconds.
pub fn give_way() {
    std::thread::yield_now();
}

/// Lets the calling thread run as soon as there is something for it: Linux, from 6.12 on, lets a thread whose turns are shorter go
/// before the one that runs. Without it that one, although it stands back, keeps the processor until its own turn is over, which
/// is up to three milliseconds. Earlier kernels take no notice; a refusal is harmless.
pub fn come_first() {
    let changed = scheduling().map(|present| Scheduling { runtime_ns: TURN_NS, ..present });
    // Another policy is the operator's choice.
    let Some(changed) = changed.filter(|changed| changed.policy == libc::SCHED_OTHER.unsigned_abs()) else { return };
    // SAFETY: the kernel reads as many bytes as the structure says it has.
    let status = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const changed, 0) };
    if status != 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "a shard keeps turns of the usual length");
    }
}

/// How the calling thread is scheduled; `None` where the kernel does not tell.
fn scheduling() -> Option<Scheduling> {
    let mut found = Scheduling::default();
    // SAFETY: the kernel writes at most as many bytes as it is told that there are.
    let status = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut found, SCHEDULING_BYTES, 0) };
    (status == 0).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_gets_short_turns_and_nothing_else_changes() {
        // Goal: the thread has short turns, its policy and niceness stay, and other threads are not touched. Method: what the kernel
        // says before and after, here and on another thread. Kernels before 6.12 tell no length of turns.
        let other = scheduling().expect("the kernel tells");
        std::thread::spawn(move || {
            step_back(3);
            let before = scheduling().expect("the kernel tells");
            come_first();
            let after = scheduling().expect("the kernel tells");
            assert_eq!((after.policy, after.nice, after.priority), (before.policy, 3, before.priority));
            if before.runtime_ns > 0 {
                assert_eq!(after.runtime_ns, TURN_NS);
                assert_ne!(before.runtime_ns, TURN_NS);
            }
        })
        .join()
        .expect("it holds");
        assert_eq!(scheduling().map(|now| (now.nice, now.runtime_ns)), Some((other.nice, other.runtime_ns)));
    }
}
