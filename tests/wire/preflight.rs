//! Hosts that do not give what a shard needs: the start ends, and says what to do.

use std::fs;
use std::io;

use super::broker::{NotStarted, Prepare, Store};

/// What a broker asks of io_uring to find out whether it may use it; every ring of a shard is larger.
const PREFLIGHT_ENTRIES: u32 = 8;
/// Ring of a shard's loop.
const SHARD_ENTRIES: u32 = 1024;

/// Less locked memory than an executor needs, for ever.
const LOCKED_BYTES: u64 = 64 << 10;

/// The capability that raises hard limits, of linux/capability.h.
const CAP_SYS_RESOURCE: u32 = 24;

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn limit_locked_memory() -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: LOCKED_BYTES, rlim_max: LOCKED_BYTES };
    // SAFETY: a pointer to a local structure.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) })
}

/// Whether this process, and what it starts, may raise hard limits.
fn may_raise_limits() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("its capabilities");
    u64::from_str_radix(mask.trim(), 16).expect("a mask") & 1 << CAP_SYS_RESOURCE != 0
}

/// Refuses, with this error, to make rings whose entries are compared with `entries` by this jump and found so.
fn refuse_rings(errno: libc::c_int, compare: u32, entries: u32) -> Prepare {
    let (load, jump, answer) = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP, libc::BPF_RET);
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    // `struct seccomp_data`: the number of the call at 0, its first argument, little end first, at 16.
    let filter = [
        step(load, 0, 0, 0),
        step(jump | libc::BPF_JEQ, libc::SYS_io_uring_setup as u32, 0, 3),
        step(load, 16, 0, 0),
        step(jump | compare, entries, 0, 1),
        step(answer, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0),
        step(answer, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    Box::new(move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the kernel copies the program, which outlives the call.
        unsafe {
            checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            checked(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program))
        }
    })
}

fn refused(store: &mut Store, prepare: Prepare) -> NotStarted {
    match store.try_start_prepared(prepare, &["shards=2"]) {
        Ok(_) => panic!("a broker said that it is ready, and cannot be"),
        Err(refused) => refused,
    }
}

#[test]
fn too_few_files_are_told() {
    // Goal: a hard limit of open files that the shards do not fit in is told with its cure, before anything is touched, whatever
    // its place between two descriptors of a start; the least one that is allowed serves. Method: limits around what is asked for.
    let limit = |files: u64| -> Prepare {
        Box::new(move || {
            let limit = libc::rlimit { rlim_cur: files, rlim_max: files };
            // SAFETY: the struct lives through the call.
            checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })
        })
    };
    let mut store = Store::new();
    for files in [40, 60, 79] {
        let refused = refused(&mut store, limit(files));
        assert_eq!(refused.status.code(), Some(1), "{}", refused.log);
        refused.assert_reason("2 shards need at least 80");
    }
    match store.try_start_prepared(limit(80), &["shards=2"]) {
        Ok(broker) => assert_eq!(broker.stop(&[]).code(), Some(0)),
        Err(refused) => panic!("{}", refused.log),
    }
}

#[test]
fn too_little_locked_memory_is_told() {
    // Goal: a user whose hard limit of locked memory is too low for a shard hears so, and how to raise it; who may raise it is
    // served. Method: a low hard limit, without the right to raise it, and with it if the tests have it.
    let mut store = Store::new();
    let without_right = Box::new(|| {
        // SAFETY: plain values.
        let (dropped, user) =
            unsafe { (libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_RESOURCE, 0, 0, 0), libc::geteuid()) };
        // Nobody but root has it after the exec, and nobody but root may drop it.
        checked(if user == 0 { dropped } else { 0 })?;
        limit_locked_memory()
    });
    let refused = refused(&mut store, without_right);
    assert_eq!(refused.status.code(), Some(4), "{}", refused.log);
    refused.assert_reason("ulimit -l 8192");
    assert!(refused.log.contains(&format!("the limit is {LOCKED_BYTES} bytes")), "{}", refused.log);
    let with_right = store.try_start_prepared(Box::new(limit_locked_memory), &["shards=2"]);
    match with_right {
        Ok(broker) => assert_eq!(broker.stop(&[]).code(), Some(0)),
        Err(refused) => assert!(!may_raise_limits() && refused.status.code() == Some(4), "{}", refused.log),
    }
}

#[test]
fn a_host_without_io_uring_is_told() {
    // Goal: where io_uring is refused the start ends at once with its code, the reason and the cure, and touches nothing. Method: the
    // kernel answers as an old one, one without io_uring, a container's filter, and one that counts locked memory do.
    let filtered = match fs::read_to_string("/proc/sys/kernel/io_uring_disabled") {
        Ok(level) if level.trim() != "0" => "sysctl kernel.io_uring_disabled=0",
        _ => "seccomp",
    };
    for (errno, cure) in [
        (libc::ENOSYS, "RingMQ needs Linux 6.0 or newer with CONFIG_IO_URING"),
        (libc::EINVAL, "RingMQ needs Linux 6.0 or newer"),
        (libc::EPERM, filtered),
        (libc::ENOMEM, "ulimit -l 8192"),
    ] {
        let mut store = Store::new();
        let refused = refused(&mut store, refuse_rings(errno, libc::BPF_JGE, 0));
        assert_eq!(refused.status.code(), Some(4), "{}", refused.log);
        refused.assert_reason(cure);
        assert!(!store.path().exists(), "the data directory");
    }
}

#[test]
fn a_shard_that_cannot_start_ends_the_start() {
    // Goal: a broker is not ready when a shard could not get its ring, or its executor its own, and the reason is told. Method: a
    // filter of system calls that lets the look before the start pass, and refuses the rings of shards.
    for (compare, entries, code) in [(libc::BPF_JEQ, SHARD_ENTRIES, 4), (libc::BPF_JGT, PREFLIGHT_ENTRIES, 1)] {
        let mut store = Store::new();
        let refused = refused(&mut store, refuse_rings(libc::EPERM, compare, entries));
        assert_eq!(refused.status.code(), Some(code), "{}", refused.log);
        refused.assert_reason("Operation not permitted");
        let broker = store.start(&["shards=2"]);
        assert_eq!(broker.stop(&["was not stopped in order"]).code(), Some(0));
    }
}
