//! The wall clock behind a trait, so that tests decide what time it is, and a time by two clocks.

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

/// A point in time, by two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// For everything that waits: milliseconds of a clock that no step of the wall clock moves, the same one for all threads.
    pub steady_ms: u64,
    /// For what is stored or shown: milliseconds since the epoch.
    pub wall_ms: u64,
}

/// A time in the local zone.
fn local_time(now_ms: u64) -> libc::tm {
    let seconds = libc::time_t::try_from(now_ms / 1_000).unwrap_or(libc::time_t::MAX);
    let mut time = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; an all-zero tm is a value that may be read if the call fails.
    unsafe {
        libc::localtime_r(&seconds, time.as_mut_ptr());
        time.assume_init()
    }
}

/// The hour of a time in the local zone, 0 to 23.
pub fn local_hour(now_ms: u64) -> u32 {
    u32::try_from(local_time(now_ms).tm_hour).unwrap_or(0)
}

/// A number of the local day that `now_ms` falls into: the same all day long, and another on any other day.
pub fn local_day(now_ms: u64) -> i64 {
    let time = local_time(now_ms);
    i64::from(time.tm_year) * 1_000 + i64::from(time.tm_yday)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_change_once_in_a_day() {
        // Goal: one change within any 24 hours of ordinary days, in any zone. Method: count it over two days of a winter.
        const HOUR_MS: u64 = 3_600_000;
        let start_ms = 1_705_000_000_000;
        let days: Vec<i64> = (0..=48).map(|hour| local_day(start_ms + hour * HOUR_MS)).collect();
        assert_eq!(days.windows(2).filter(|pair| pair[0] != pair[1]).count(), 2);
        assert_ne!(local_day(start_ms), local_day(start_ms + 366 * 24 * HOUR_MS));
    }
}
