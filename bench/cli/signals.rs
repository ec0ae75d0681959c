//! Ctrl-C: the first one ends the run in order, the second one ends the process. Brokers die with it either way.

use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn take(_: libc::c_int) {
    if STOP.swap(true, Ordering::Relaxed) {
        // SAFETY: _exit may be called from a signal handler.
        unsafe { libc::_exit(130) };
    }
}

/// Catches interrupts from now on. The flag becomes true with the first one.
pub fn catch() -> &'static AtomicBool {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only swaps an atomic and may end the process.
        unsafe { libc::signal(signal, take as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    }
    &STOP
}
