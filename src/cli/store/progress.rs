//! A progress bar on standard error, if that is a terminal; otherwise silence.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ringmq_shards::recovery::audit::Progress;

/// One bar that is used for step after step.
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar that shows nothing until a step begins.
    pub fn new() -> Self {
        let target = match std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        let style =
            ProgressStyle::with_template("{msg:8} [{bar:40}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    /// Takes the bar away.
    pub fn finish(self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn step(&mut self, name: &str, total_bytes: u64) {
        self.0.reset();
        self.0.set_length(total_bytes);
        self.0.set_message(name.to_owned());
    }

    fn reached(&mut self, bytes: u64) {
        self.0.set_position(bytes);
    }
}
