//! What every command of the program shares, below all of them: how a process ends, where its lines go, which signals it hears.

pub mod exit_codes;
pub mod logging;
pub mod signals;

use std::io::Write;

pub use exit_codes::ExitStatus;

/// Prints an error the way all commands do.
pub fn complain(error: &dyn std::fmt::Display) {
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(std::io::stderr(), "ringmq: {error}");
}
