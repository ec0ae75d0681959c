//! Settings of a Linux host for a message broker: checks, explains, plans, applies and reverts them.
//!
//! Invariants: this crate knows nothing of the broker. All logic runs on any root directory through
//! [`probe::System`]. Nothing is written before its old value is in the journal and on disk.

pub mod catalogue;
pub mod executor;
pub mod export;
pub mod journal;
pub mod placement;
pub mod plan;
pub mod probe;
pub mod report;
