//! How long an idle shard looks for work before it sleeps: the window follows what spinning would have saved. Pure; the loop
//! owns one and tells it how long each idleness took.
//!
//! A sleep costs the next request a wake-up, on a virtual machine also two exits to the host, tens of microseconds in all.
//! Spinning through a short idleness saves that; spinning into a long one burns the processor for nothing. So the window
//! doubles after each idleness that the limit would have covered, and halves after each that it would not (the rule of
//! KVM's `halt_poll_ns` and of the Linux `haltpoll` governor). A shard with nothing to do sleeps at once.

use std::time::Duration;

/// First window after none.
const FIRST: Duration = Duration::from_micros(10);

/// The window of one shard.
#[derive(Debug)]
pub struct SpinWindow {
    limit: Duration,
    window: Duration,
    hits: u64,
}

impl SpinWindow {
    /// No window yet; `limit` bounds it, zero for never.
    pub fn new(limit: Duration) -> Self {
        Self { limit, window: Duration::ZERO, hits: 0 }
    }

    /// Whether it may ever spin.
    pub fn is_on(&self) -> bool {
        !self.limit.is_zero()
    }

    /// How long to look for work now.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// How often spinning saved a sleep.
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// An idleness ended that took this long, spinning and sleeping together; `slept`: spinning did not do.
    pub fn ended(&mut self, idle: Duration, slept: bool) {
        self.hits += u64::from(!slept);
        if idle > self.limit {
            self.window /= 2;
            if self.window < FIRST {
                self.window = Duration::ZERO;
            }
        } else if idle > self.window {
            self.window = (self.window * 2).max(FIRST).min(self.limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(200);

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn short_idleness_opens_the_window_and_long_closes_it() {
        // Goal: a busy shard spins as long as its pauses take, an idle one never. Method: pauses below and above the limit.
        let mut window = SpinWindow::new(LIMIT);
        assert_eq!(window.window(), Duration::ZERO);
        for expected in [10, 20, 40, 80, 160] {
            window.ended(micros(150), true);
            assert_eq!(window.window(), micros(expected));
        }
        window.ended(micros(150), true);
        assert_eq!(window.window(), micros(160), "it covers these pauses");
        window.ended(micros(170), true);
        assert_eq!(window.window(), LIMIT, "never beyond the limit");
        for expected in [100, 50, 25, 12, 0, 0] {
            window.ended(micros(201), true);
            assert_eq!(window.window().as_micros(), expected);
        }
    }

    #[test]
    fn nothing_without_a_limit() {
        // Goal: a limit of zero never spins. Method: pauses of all lengths, none included.
        let mut window = SpinWindow::new(Duration::ZERO);
        for idle in [0, 1, 1_000_000] {
            window.ended(micros(idle), true);
            assert_eq!(window.window(), Duration::ZERO);
        }
        assert!(!window.is_on());
    }
}
