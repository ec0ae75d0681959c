//! The progress line: one line on the terminal that is written again and again, or nothing if there is no terminal.

use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::monotonic_ns;
use crate::engine::{PHASES, Progress};

/// How often the line is written.
const PERIOD: Duration = Duration::from_millis(500);
/// How often the end of the run is looked for.
const POLL: Duration = Duration::from_millis(20);

/// Where progress goes.
#[derive(Debug, Clone, Copy)]
pub struct ProgressLine {
    is_shown: bool,
    is_quiet: bool,
}

impl ProgressLine {
    /// Shows progress on standard error if it is a terminal, and `is_quiet` is false.
    pub fn new(is_quiet: bool) -> ProgressLine {
        ProgressLine { is_shown: !is_quiet && std::io::stderr().is_terminal(), is_quiet }
    }

    /// Writes the line until `is_finished`. It is done by a thread that is not the generator's, twice a second.
    pub fn follow(&self, title: &str, measure_s: f64, progress: &Progress, is_finished: impl Fn() -> bool) {
        let began_ns = monotonic_ns();
        let mut phase_began = (0, began_ns);
        let mut next_ns = began_ns;
        while !is_finished() {
            std::thread::sleep(POLL);
            let now_ns = monotonic_ns();
            if !self.is_shown || now_ns < next_ns {
                continue;
            }
            next_ns = now_ns + u64::try_from(PERIOD.as_nanos()).unwrap_or(u64::MAX);
            let phase = progress.phase.load(Ordering::Relaxed);
            if phase != phase_began.0 {
                phase_began = (phase, now_ns);
            }
            let name = PHASES.get(usize::from(phase)).copied().unwrap_or_default();
            let elapsed_s = (now_ns - phase_began.1) / 1_000_000_000;
            let of = if name == "measure" { format!(" of {measure_s:.0}") } else { String::new() };
            let answered = progress.answered.load(Ordering::Relaxed);
            let failed = progress.failed.load(Ordering::Relaxed);
            let errors = if failed > 0 { format!(", {failed} errors") } else { String::new() };
            let line = format!("{title}: {name} {elapsed_s}{of} s, {answered} answered{errors}");
            // A terminal that is gone does not end a measurement.
            let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
        }
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    /// Says something once.
    pub fn say(&self, text: &str) {
        if !self.is_quiet {
            note(text);
        }
    }
}

/// Writes a line to standard error.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
