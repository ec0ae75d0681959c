//! The servers: shards with their sockets, and the threads that may block.

pub mod background;
pub mod boot;
pub mod cold;
pub mod cold_blocks;
pub mod connection;
pub mod control_thread;
pub mod core;
pub mod deletion;
pub mod disk_watch;
pub mod event_loop;
pub mod flush_thread;
pub mod held_answers;
pub mod hold;
pub mod limits;
pub mod log_shell;
pub mod lost_queues;
pub mod messages;
pub mod metrics;
pub mod metrics_page;
pub mod outbox;
pub mod persister;
pub mod reader_thread;
pub mod registrar;
pub mod remote;
pub mod retention;
pub mod served;
pub mod serving;
pub mod shared;
pub mod slab;
pub mod storage;
pub mod store_thread;
pub mod trouble;

use crate::config::Config;

/// What a server process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Serves as a broker.
    pub broker: bool,
    /// Serves as a name server.
    pub namesrv: bool,
}

/// What `start`, `broker` and `namesrv` hand to the server.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Which servers run in the process.
    pub roles: Roles,
    /// Checked settings. The log is already running with them.
    pub config: Config,
    /// Cut the log at damage instead of refusing to start; what is cut is saved aside.
    pub salvage: bool,
}
