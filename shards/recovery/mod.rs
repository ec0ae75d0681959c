//! What the store knows about itself across restarts, and how it finds its end again.
//!
//! - [`paths`]: where everything lies; [`process_lock`]: who may touch it, and whether the last stop was clean
//! - [`checkpoint`]: RocketMQ's time stamps; [`durable_point`]: our own offset that is known synced
//! - [`queue_offsets`]: what the log alone cannot tell about queues; [`queue_flushed`]: how far their files are complete
//!   as long as the kernel runs
//! - [`formats`]: which formats of these files are known, and files of a newer version
//! - [`queue_place`]: which queue entry belongs to a record
//! - [`audit`], [`reader`], [`repair`] and [`adopt`]: what the store doctor knows, over the same pieces
//! - [`recover`]: verify, cut, and feed the records to whoever rebuilds queues and index; [`CatchUp`]: what may be synced
//!   while the store already serves
//!
//! All of it runs on ordinary threads over the [`Disk`](crate::disk::Disk) seam, before the first append.

pub mod adopt;
pub mod audit;
pub mod checkpoint;
pub mod durable_point;
pub mod formats;
pub mod paths;
pub mod process_lock;
pub mod queue_flushed;
pub mod queue_offsets;
pub mod queue_place;
pub mod reader;
pub mod repair;
pub mod scan;

mod catch_up;
mod cut;
mod decide;
#[cfg(test)]
mod tests;

pub use catch_up::{CatchUp, CatchUpError};
pub use decide::{Discarded, DispatchSink, KernelRun, Recovered, RecoveryError, RecoveryOptions, recover};
pub use paths::StorePaths;
