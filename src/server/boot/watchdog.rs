//! A bound for the time that something may take, kept by a thread of its own.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::super::limits;
use super::super::shared::{Shared, monotonic_ns};
use crate::process::{ExitStatus, logging};

/// Service managers and operators expect a stop to end within five seconds, on any disk.
const STOP_PATIENCE: Duration = Duration::from_millis(4_500);

/// Runs something when it is not dropped in time.
pub struct Watchdog {
    _watched: Sender<()>,
}

impl Watchdog {
    /// From now on `late` runs after `patience`, on a thread of its own, unless the watchdog is dropped before.
    pub fn start(patience: Duration, late: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (watched, gone) = channel();
        std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            if gone.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                late();
            }
        })?;
        Ok(Self { _watched: watched })
    }

    /// Bounds a stop: one that takes too long ends the process, and the next start checks the log.
    pub fn of_stop(shared: Arc<Shared>) -> Option<Self> {
        let watchdog = Self::start(STOP_PATIENCE, move || {
            let disk_silent_ms = shared.disk_watch.silent_ms(monotonic_ns() / 1_000_000);
            let why = if disk_silent_ms >= limits::DISK_BUSY_MS { ": the disk does not answer" } else { "" };
            tracing::error!(
                disk_silent_ms,
                "the stop takes too long and is broken off{why}; the next start checks the log"
            );
            logging::flush(Duration::from_millis(200));
            // SAFETY: it ends the process; nobody's destructors may run while other threads still work. `abort` stays.
            unsafe { libc::_exit(ExitStatus::StopTimedOut as i32) };
        });
        watchdog.inspect_err(|error| tracing::warn!(%error, "nothing bounds the time of this stop")).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_acts_unless_it_is_dropped() {
        // Goal: what takes too long is ended, what is done is not. Method: one that is kept beyond no time at all, and one with
        // all the time of the world that is dropped; its closure goes without a word.
        let (acts, acted) = channel();
        let kept = Watchdog::start(Duration::ZERO, move || acts.send(()).expect("somebody waits")).expect("a thread");
        assert_eq!(acted.recv(), Ok(()));
        drop(kept);
        let (acts, acted) = channel::<()>();
        let late = move || acts.send(()).expect("somebody waits");
        drop(Watchdog::start(Duration::from_secs(100_000_000), late).expect("a thread"));
        assert!(acted.recv().is_err());
    }
}
