//! The message index: which records of a topic carry a key. Source: RocketMQ `IndexService`, `IndexFile`.
//!
//! Files are Java's, byte for byte: `index/yyyyMMddHHmmssSSS`, a hash table with chains from new to old. The index is
//! derived from the log, has one owner (the store thread) and lags a little; nothing that is acknowledged waits for it.

mod error;
mod file;
pub(crate) mod layout;
pub mod limits;
pub(crate) mod name;
mod service;
mod sync;
#[cfg(test)]
mod tests;

pub use error::IndexError;
pub use layout::IndexGeometry;
pub use service::{IndexService, Indexed, LastStop, SetAside};
pub use sync::IndexSync;
