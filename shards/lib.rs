//! The engine of RingMQ: executors and sockets, the log and its single writer, queues, index and recovery.
//!
//! It knows records, queues and bytes. It knows nothing of topics' configuration, consumer groups or request codes:
//! those live in the crate `ringmq`.

pub mod clock;
pub mod disk;
pub mod index;
pub mod log;
#[cfg(all(test, ringmq_loom))]
mod models;
pub mod planted;
pub mod probe;
pub mod queue;
pub mod recovery;
pub mod runtime;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod sync;
pub mod types;
