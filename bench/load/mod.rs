//! What passes through a run: bodies, the books about them, and the histograms.

pub mod body;
pub mod hlog;
pub mod ledger;
pub mod recorder;
