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
    local_time_at(libc::time_t::try_from(now_ms / 1_000).unwrap_or(libc::time_t::MAX))
}

/// The same of seconds since the epoch, which may be before it.
fn local_time_at(seconds: libc::time_t) -> libc::tm {
    let mut time = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; an all-zero tm is a value that may be read if the call fails.
    unsafe {
        libc::localtime_r(&seconds, time.as_mut_ptr());
        time.assume_init()
    }
}

/// A time as text in the local zone, `yyyy-MM-dd#HH:mm:ss:SSS`. Source: UtilAll.YYYY_MM_DD_HH_MM_SS_SSS.
pub fn local_time_text(milliseconds: i64) -> String {
    let time = local_time_at(milliseconds.div_euclid(1_000));
    let (year, month, day) = (time.tm_year + 1_900, time.tm_mon + 1, time.tm_mday);
    let (hour, minute, second, rest) = (time.tm_hour, time.tm_min, time.tm_sec, milliseconds.rem_euclid(1_000));
    format!("{year:04}-{month:02}-{day:02}#{hour:02}:{minute:02}:{second:02}:{rest:03}")
}

/// The hour of a time in the local zone, 0 to 23.
pub fn local_hour(now_ms: u64) -> u32 {
    u32::try_from(local_time(now_ms).tm_hour).unwrap_or(0)
}

/// When the month of a time began in the local zone, milliseconds since the epoch; the time itself if the calendar is no help.
pub fn local_month_start(now_ms: u64) -> u64 {
    let mut time = local_time(now_ms);
    (time.tm_mday, time.tm_hour, time.tm_min, time.tm_sec) = (1, 0, 0, 0);
    // Whether summer time is in force there is for the library to find out.
    time.tm_isdst = -1;
    // SAFETY: the pointer is valid for the call, which reads and normalizes the value.
    let seconds = unsafe { libc::mktime(&raw mut time) };
    u64::try_from(seconds).map_or(now_ms, |seconds| seconds.saturating_mul(1_000))
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
    fn times_are_shown_as_rocketmq_does() {
        // Goal: form and parts of a shown time, also before the epoch. Method: the begin of a month, which is the same text in any
        // zone but for the month itself, and a time before 1970.
        let start_ms = local_month_start(1_700_000_000_123);
        let shown = local_time_text(i64::try_from(start_ms).expect("small") + 7_384_005);
        assert_eq!(shown, "2023-11-01#02:03:04:005");
        let early = local_time_text(-1);
        assert!(early.ends_with(":59:999") && early.len() == shown.len(), "{early}");
    }

    #[test]
    fn months_begin_on_the_first() {
        // Goal: the begin of the month, in any zone and in summer and winter. Method: times in each month; their month's begin is
        // the first at 00:00, and not later than they are.
        for day in 0..366 {
            let now_ms = 1_705_000_000_123 + day * 86_400_000;
            let start_ms = local_month_start(now_ms);
            assert!(start_ms <= now_ms && now_ms - start_ms < 32 * 86_400_000, "{now_ms}");
            let (start, now) = (local_time(start_ms), local_time(now_ms));
            assert_eq!(
                (start.tm_mon, start.tm_mday, start.tm_hour, start.tm_min, start.tm_sec),
                (now.tm_mon, 1, 0, 0, 0)
            );
            assert_eq!(start_ms % 1_000, 0);
        }
    }

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
