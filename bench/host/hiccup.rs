//! How late a thread on a core is woken: what any thread there has to expect, whatever it does.
//!
//! Both meters book the lateness of every point of a grid of one millisecond. A gap of five milliseconds makes five late
//! points, so that long gaps weigh as much as they last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use hdrhistogram::Histogram;

use crate::clock::monotonic_ns;
use crate::load::hlog::histogram;

/// Distance of the grid's points.
pub const GRID_NS: u64 = 1_000_000;
/// Points of one gap that are booked; a longer one is a suspended machine.
const MOST_POINTS: u64 = 60_000;

/// Lateness against the grid, fed by whoever looks at the clock.
#[derive(Debug)]
pub struct Grid {
    next_ns: u64,
    lateness: Histogram<u64>,
}

impl Grid {
    /// A grid that begins at `start_ns`.
    pub fn new(start_ns: u64) -> Grid {
        Grid { next_ns: start_ns, lateness: histogram() }
    }

    /// Forgets everything and begins anew.
    pub fn restart(&mut self, start_ns: u64) {
        self.next_ns = start_ns;
        self.lateness.reset();
    }

    /// The clock shows `now_ns`.
    #[inline]
    pub fn see(&mut self, now_ns: u64) {
        if now_ns >= self.next_ns {
            self.book(now_ns);
        }
    }

    fn book(&mut self, now_ns: u64) {
        if now_ns - self.next_ns > MOST_POINTS * GRID_NS {
            self.next_ns = now_ns - MOST_POINTS * GRID_NS;
        }
        while self.next_ns <= now_ns {
            self.lateness.saturating_record(now_ns - self.next_ns);
            self.next_ns += GRID_NS;
        }
    }

    /// What was seen.
    pub fn lateness(&self) -> &Histogram<u64> {
        &self.lateness
    }
}

/// A thread that sleeps from point to point on one core.
#[derive(Debug)]
pub struct HiccupMeter {
    core: u32,
    stop: Arc<AtomicBool>,
    is_measuring: Arc<AtomicBool>,
    thread: Option<JoinHandle<Histogram<u64>>>,
}

impl HiccupMeter {
    /// Starts a meter; it books nothing before [`HiccupMeter::measure`]. `None`: the thread cannot be had.
    pub fn start(core: u32) -> Option<HiccupMeter> {
        let stop = Arc::new(AtomicBool::new(false));
        let is_measuring = Arc::new(AtomicBool::new(false));
        let (should_stop, should_measure) = (Arc::clone(&stop), Arc::clone(&is_measuring));
        let body = move || {
            // Without its core it would measure another one.
            if super::pinning::pin_this_thread(&[core]).is_err() {
                return histogram();
            }
            // SAFETY: plain call; a timer slack of 1 ns keeps the kernel from joining wake-ups.
            let _ = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0) };
            let mut grid = Grid::new(monotonic_ns() + GRID_NS);
            let mut was_measuring = false;
            while !should_stop.load(Ordering::Relaxed) {
                sleep_until(grid.next_ns);
                // The time first: what passes until the flag is read may be after the end.
                let now_ns = monotonic_ns();
                let is_measuring = should_measure.load(Ordering::Acquire);
                if is_measuring && !was_measuring {
                    grid.restart(monotonic_ns() + GRID_NS);
                } else if was_measuring && !is_measuring {
                    break;
                } else {
                    grid.see(now_ns);
                }
                was_measuring = is_measuring;
            }
            if was_measuring { grid.lateness } else { histogram() }
        };
        let thread = std::thread::Builder::new().name(format!("hiccup-{core}")).spawn(body).ok()?;
        Some(HiccupMeter { core, stop, is_measuring, thread: Some(thread) })
    }

    /// Its core.
    pub fn core(&self) -> u32 {
        self.core
    }

    /// Begins or ends booking.
    pub fn measure(&self, is_on: bool) {
        self.is_measuring.store(is_on, Ordering::Release);
    }

    /// Ends the thread and returns what it booked between the two calls of [`HiccupMeter::measure`].
    pub fn finish(mut self) -> Histogram<u64> {
        self.end().unwrap_or_else(histogram)
    }

    fn end(&mut self) -> Option<Histogram<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take()?.join().ok()
    }
}

impl Drop for HiccupMeter {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn sleep_until(at_ns: u64) {
    let time = libc::timespec {
        tv_sec: i64::try_from(at_ns / 1_000_000_000).unwrap_or(0),
        tv_nsec: i64::try_from(at_ns % 1_000_000_000).unwrap_or(0),
    };
    // SAFETY: the time is alive during the call; no remainder is asked for.
    let _ = unsafe {
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &raw const time, std::ptr::null_mut())
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a gap weighs as much as it lasts. Method: looks at made-up times, one of them 5 ms late.
    #[test]
    fn gaps_are_booked_whole() {
        let mut grid = Grid::new(0);
        for point in 0..100 {
            grid.see(point * GRID_NS);
            grid.see(point * GRID_NS + 10);
        }
        assert_eq!((grid.lateness().len(), grid.lateness().max()), (100, 0));
        grid.see(105 * GRID_NS);
        assert_eq!(grid.lateness().len(), 106);
        assert!(grid.lateness().max() >= 5 * GRID_NS);
        assert_eq!(grid.lateness().count_between(GRID_NS / 2, 10 * GRID_NS), 5);
        grid.see(u64::MAX / 2);
        assert!(grid.lateness().len() < 106 + MOST_POINTS + 2);
    }

    /// Goal: the thread measures and ends. Method: run it for some points of the grid.
    #[test]
    fn meter_thread() {
        let core = super::super::pinning::allowed_cores(0)[0];
        let meter = HiccupMeter::start(core).unwrap();
        let began_ns = monotonic_ns();
        meter.measure(true);
        sleep_until(began_ns + 50 * GRID_NS);
        assert_eq!(meter.core(), core);
        meter.measure(false);
        let measured_ns = monotonic_ns() - began_ns;
        // What came after the end is not booked. On a busy machine the thread may have had no turn near either end.
        sleep_until(monotonic_ns() + 50 * GRID_NS);
        let points = meter.finish().len();
        assert!(points <= measured_ns / GRID_NS + 2, "{points} points in {measured_ns} ns");
        let idle = HiccupMeter::start(core).unwrap();
        sleep_until(monotonic_ns() + 20 * GRID_NS);
        assert_eq!(idle.finish().len(), 0, "nothing is booked before it is asked for");
    }
}
