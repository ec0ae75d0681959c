//! SIGINT and SIGTERM as an ordinary event of a command.
//!
//! Invariant: called before the command starts its threads, so that they inherit the blocked signals and only the
//! waiting thread takes them.

use std::io;
use std::time::Duration;

use crate::process::ExitStatus;
use crate::process::signals;

/// How long one wait takes; it is repeated.
const WAIT: Duration = Duration::from_secs(3600);

/// Blocks both signals and starts a thread that calls `first` at the first one. A second one ends the process at once.
///
/// # Errors
/// The signals cannot be blocked, or the thread cannot be started.
pub fn on_stop(first: impl FnOnce() + Send + 'static) -> io::Result<()> {
    signals::block()?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            // An error cannot be told apart from a stop: the command ends either way.
            while let Ok(None) = signals::wait(WAIT) {}
            signals::exit_on_second_signal(i32::from(ExitStatus::Interrupted as u8));
            first();
            // The handler of the second signal runs in this thread, the only one that does not block it.
            loop {
                std::thread::park();
            }
        })
        .map(drop)
}
