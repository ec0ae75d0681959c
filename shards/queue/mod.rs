//! Consume queues: per queue, where its messages are in the log. Source: RocketMQ `ConsumeQueue`.
//!
//! A queue has a **tail in memory** (written by the log writer, read by any thread without a lock) and **files** in Java's
//! form (written by the flush thread about once a second). Every entry is in at least one of the two:
//!
//! ```text
//!  minimum            flushed          published   appended        next offset
//!     │ files, on disk   │  memory only     │ memory,  │ bound,        │
//!     ├──────────────────┼──────────────────┤ unseen   ┤ not confirmed ┤
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `entry` | the 20 bytes of an entry |
//! | `chunk` | the bounded pool of memory for all tails |
//! | `tail` | append, publish and read of one tail |
//! | `queue` | one queue: offsets, waiters, identity |
//! | `dirty` | the list of queues to flush |
//! | `files`, `handles` | queue files, open descriptors |
//! | `store` | all queues: registry, flush round, retention |
//! | `durable` | which files are not synced, and what a failed sync means |
//! | `recovery` | load, cut, rebuild |
//! | `time_search` | offset by store time |

mod chunk;
mod dirty;
mod durable;
mod entry;
mod error;
mod files;
mod handles;
pub mod limits;
#[allow(clippy::module_inception)]
mod queue;
mod recovery;
mod store;
mod tail;
#[cfg(test)]
mod tests;
mod time_search;

#[cfg(all(test, ringmq_loom))]
pub(crate) use dirty::{DirtySet, QueueNumber};
#[cfg(all(test, ringmq_loom))]
pub(crate) use tail::Tail;

pub use chunk::{ChunkArena, ChunkPool};
pub use entry::QueueEntry;
pub use error::QueueError;
pub use files::EntryLocation;
pub use queue::{PrefetchStep, Queue};
pub use recovery::{FilesLeft, LoadReport, Rebuilt, ShortFiles};
pub use store::{FlushReport, QueueStore, QueueStoreConfig, Shown};
pub use tail::{TailFull, TailRead};
pub use time_search::{Boundary, offset_by_time};
