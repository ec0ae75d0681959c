//! Carries out a plan and takes it back: directly ([`apply`], [`revert`]), or as a script for others to read and run
//! ([`script`]).
//!
//! Invariants: both ways leave identical trees, journals included, so either can undo the other. Every written value is
//! read back, and what the kernel made of it is reported. A second run writes nothing. Of two at the same time one is
//! refused before it has changed anything.

mod direct;
mod revert;
mod script;

pub use direct::{apply, apply_in_order, make_file};
pub use revert::{Reverting, leave, revert};
pub use script::script;

/// What became of one change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The value is as wanted, or back.
    Done,
    /// The kernel took another value than the one written.
    Clamped(String),
    /// The kernel took the write and kept its value.
    Ignored,
    /// The write was refused.
    Failed(String),
    /// Revert: somebody else changed it since, to this.
    Conflict(String),
    /// Revert: it already was as it was before.
    AlreadyBack,
    /// Revert: the device or interrupt is gone, and its value with it.
    Gone,
}

/// One change and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The entry on its device, or a path.
    pub name: String,
    /// The value before the step.
    pub from: String,
    /// The value that was wanted.
    pub to: String,
    /// What came out.
    pub outcome: Outcome,
}

impl Step {
    /// Whether the host is now as the step wanted it.
    pub fn is_good(&self) -> bool {
        matches!(self.outcome, Outcome::Done | Outcome::AlreadyBack | Outcome::Gone)
    }
}
