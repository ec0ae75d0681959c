//! The servers: shards with their sockets, and the three threads that may block.

pub mod boot;
pub mod cold;
pub mod cold_blocks;
pub mod connection;
pub mod control_thread;
pub mod core;
pub mod event_loop;
pub mod flush_thread;
pub mod hold;
pub mod limits;
pub mod log_shell;
pub mod messages;
pub mod metrics;
pub mod metrics_page;
pub mod outbox;
pub mod reader_thread;
pub mod registrar;
pub mod remote;
pub mod retention;
pub mod served;
pub mod serving;
pub mod shared;
pub mod signals;
pub mod slab;
pub mod storage;
pub mod store_thread;
