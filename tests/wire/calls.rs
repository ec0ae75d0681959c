//! Which system calls shards make while messages come and go.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use ringmq::client::{Client, Message, PullStatus, Queue};

use super::broker::Store;
use super::threads::{ThreadFigures, threads};

/// Calls by number.
type Calls = BTreeMap<i64, u64>;

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Waits until a traced thread stops; gives what for.
fn wait_for_stop(thread: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: a valid place for the status.
    let waited = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) };
    assert!(waited == thread && libc::WIFSTOPPED(status), "thread {thread} stops: {status:#x}");
    libc::WSTOPSIG(status)
}

/// The number of the call that a stopped thread is about to make; `None` when it comes out of one.
fn entered_call(thread: libc::pid_t) -> io::Result<Option<i64>> {
    // SAFETY: a structure of numbers; all zeros is one.
    let mut info: libc::ptrace_syscall_info = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes no more than the size that it is told.
    checked(unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, mem::size_of_val(&info), &raw mut info) })?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return Ok(None);
    }
    // SAFETY: the kind says that this is the member that was written.
    Ok(i64::try_from(unsafe { info.u.entry.nr }).ok())
}

/// Counts the system calls of a thread of a child process, from when `begun` is called to the first call after `stop` is set.
fn count_calls(thread: libc::pid_t, begun: impl FnOnce(), stop: &AtomicBool) -> io::Result<Calls> {
    // SAFETY: these requests take no memory of ours.
    let trace = |request, data: libc::c_int| checked(unsafe { libc::ptrace(request, thread, 0_usize, data as usize) });
    trace(libc::PTRACE_SEIZE, libc::PTRACE_O_TRACESYSGOOD)?;
    trace(libc::PTRACE_INTERRUPT, 0)?;
    wait_for_stop(thread);
    begun();
    let mut calls = Calls::new();
    while !stop.load(Ordering::Acquire) {
        trace(libc::PTRACE_SYSCALL, 0)?;
        let is_call = wait_for_stop(thread) == libc::SIGTRAP | 0x80;
        if is_call && let Some(number) = entered_call(thread)? {
            *calls.entry(number).or_default() += 1;
        }
    }
    trace(libc::PTRACE_DETACH, 0)?;
    Ok(calls)
}

/// One message there and back.
fn exchange(client: &mut Client, queue: &Queue) {
    let receipt = client.send_to(queue, &Message::new("body")).expect("stored");
    let pulled = client.pull(queue, receipt.queue_offset, 1, 0).expect("an answer");
    assert_eq!(pulled.status, PullStatus::Found);
}

/// The threads of shards that did something while `work` ran; executors have helpers of the same name, which sleep.
fn busy_shards(process: u32, work: impl FnOnce()) -> Vec<libc::pid_t> {
    let switches = |thread: libc::pid_t| ThreadFigures::of(process, &[thread]).own_switches;
    let before: Vec<(libc::pid_t, u64)> =
        threads(process, "shard-").into_iter().map(|thread| (thread, switches(thread))).collect();
    work();
    before.into_iter().filter(|(thread, before)| switches(*thread) > *before).map(|(thread, _)| thread).collect()
}

/// Counts what the shards call while every client sends and pulls `rounds` messages.
fn calls_of_shards(shards: Vec<libc::pid_t>, clients: &mut [(Client, Queue)], rounds: usize) -> Calls {
    let count = shards.len();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (begun, begins) = std::sync::mpsc::channel();
        let tracers: Vec<_> = shards
            .into_iter()
            .map(|shard| {
                let (begun, stop) = (begun.clone(), &stop);
                scope.spawn(move || count_calls(shard, move || begun.send(()).expect("it is waited for"), stop))
            })
            .collect();
        drop(begun);
        assert_eq!(begins.iter().count(), count, "the system lets a process trace its children");
        for _ in 0..rounds {
            clients.iter_mut().for_each(|(client, queue)| exchange(client, queue));
        }
        stop.store(true, Ordering::Release);
        // A shard that sleeps makes no call: wake it.
        while !tracers.iter().all(|tracer| tracer.is_finished()) {
            clients.iter_mut().for_each(|(client, queue)| exchange(client, queue));
        }
        let mut sum = Calls::new();
        for tracer in tracers {
            for (number, count) in tracer.join().expect("no panic").expect("traced") {
                *sum.entry(number).or_default() += count;
            }
        }
        sum
    })
}

#[test]
fn steady_sends_and_pulls_wait_for_no_lock() {
    // Goal: shards that send and deliver messages meet no lock that anybody holds, and wake nobody by one. Method: trace the calls of
    // both shards while two connections of each send and pull, after a warm-up; calls of futex must be few beside the messages. A
    // thread without a contended lock makes none; those that are left belong to what happens now and then, such as handing
    // committed offsets to the control thread. A lock that is free whenever it is taken makes no call, so it is not seen here; nor is
    // one that is only ever spun on.
    const WARM_UP: usize = 200;
    const ROUNDS: usize = 1_000;
    const MESSAGES_PER_CALL: u64 = 50;
    // Offsets that pulls carry are handed on five times a second by each shard.
    const CALLS_PER_SECOND: u64 = 20;
    for mode in ["ASYNC_FLUSH", "SYNC_FLUSH"] {
        let mut store = Store::new();
        let broker = store.start(&["shards=2", &format!("flushDiskType={mode}")]);
        broker.topic("steady", 4);
        let mut clients: Vec<(Client, Queue)> =
            (0..4).map(|number| (broker.client(), broker.queue("steady", number))).collect();
        let shards = busy_shards(broker.process(), || {
            for _ in 0..WARM_UP {
                clients.iter_mut().for_each(|(client, queue)| exchange(client, queue));
            }
        });
        assert_eq!(shards.len(), 2);
        let begun = Instant::now();
        let calls = calls_of_shards(shards, &mut clients, ROUNDS);
        let of = |number: libc::c_long| calls.get(&number).copied().unwrap_or(0);
        let messages = (ROUNDS * clients.len()) as u64;
        assert!(of(libc::SYS_io_uring_enter) > 0, "the shards are at work: {calls:?}");
        let futex = of(libc::SYS_futex) + of(libc::SYS_futex_waitv);
        let most = messages / MESSAGES_PER_CALL + begun.elapsed().as_secs() * CALLS_PER_SECOND;
        assert!(futex <= most, "{mode}: {futex} calls of futex for {messages} messages: {calls:?}");
    }
}
