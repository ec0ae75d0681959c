//! The commit log: the ring in memory, its single writer, and the files behind them.
//!
//! Lives on shard 0, the writer shard. Other threads see the log only through [`LogView`]: published offsets and ring
//! memory that is read under a pin.

pub mod commit_delay;
pub mod huge_pages;
pub mod limits;
pub mod path_chooser;
pub mod retention;
pub mod ring;
pub mod segment_table;
pub mod segments;
pub mod view;
pub mod writer;
#[cfg(test)]
mod writer_tests;
pub mod zero_frontier;

pub use ring::LogRing;
pub use view::{LogView, PinSlot};
pub use writer::{Admission, AppendError, Bound, FlushMode, Settled, Verdict, WriteKind, WriteOperation, Writer};
