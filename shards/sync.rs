//! The atomics that the protocols between threads are made of. Under `--cfg ringmq_loom` they are loom's, so that the models in
//! `models.rs` try every order of their loads and stores.
//!
//! Only files whose protocols have a model use them; counters elsewhere take those of the standard library.

#[cfg(ringmq_loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(ringmq_loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
