//! The wall clock behind a trait, so that tests decide what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time in milliseconds since the Unix epoch. It may step backwards; whoever needs order takes a maximum.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
}

/// The clock of the host.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The hour of a time in the local zone, 0 to 23.
pub fn local_hour(now_ms: u64) -> u32 {
    let seconds = libc::time_t::try_from(now_ms / 1000).unwrap_or(libc::time_t::MAX);
    let mut time = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; an all-zero tm is a value that may be read if the call fails.
    let time = unsafe {
        libc::localtime_r(&seconds, time.as_mut_ptr());
        time.assume_init()
    };
    u32::try_from(time.tm_hour).unwrap_or(0)
}

/// A clock that starts at the wall clock's time and then only passes: no step of the wall clock moves it.
#[derive(Debug, Clone)]
pub struct SteadyClock {
    start_ms: u64,
    started: std::time::Instant,
}

impl SteadyClock {
    /// Starts at the present time of another clock.
    pub fn new(clock: &dyn Clock) -> Self {
        Self { start_ms: clock.now_ms(), started: std::time::Instant::now() }
    }
}

impl Clock for SteadyClock {
    fn now_ms(&self) -> u64 {
        self.start_ms + u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
