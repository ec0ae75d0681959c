//! SIGINT and SIGTERM as an ordinary event of a command.
//!
//! Invariant: called before the command starts its threads, so that they inherit the blocked signals and only the
//! waiting thread takes them.

use std::io;
use std::mem::MaybeUninit;

use crate::cli::ExitStatus;

/// Blocks both signals and starts a thread that calls `first` at the first one. A second one ends the process at once.
///
/// # Errors
/// The thread cannot be started.
pub fn on_stop(first: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let set = blocked_set();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            wait_for(&set);
            first();
            wait_for(&set);
            std::process::exit(i32::from(ExitStatus::Interrupted as u8));
        })
        .map(drop)
}

fn blocked_set() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set before anything reads it; the pointers are valid for the calls, and a null
    // old mask is allowed. None of the calls can fail with these arguments.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        set.assume_init()
    }
}

fn wait_for(set: &libc::sigset_t) {
    let mut signal = 0;
    // SAFETY: both pointers are valid for the call; the set is initialised. The only error is an invalid set.
    unsafe {
        libc::sigwait(set, &raw mut signal);
    }
}
