//! What the harness does with the machine it runs on: cores, other processes, and how undisturbed it was.

pub mod broker_metrics;
pub mod disk;
pub mod extents;
pub mod hiccup;
pub mod limits;
pub mod pinning;
pub mod process;
