//! One glommio executor per shard, pinned to its core.

use std::future::Future;
use std::io;
use std::time::Duration;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use super::limits::{EXECUTOR_IO_MEMORY_BYTES, EXECUTOR_RING_DEPTH};

/// Where and how a shard's executor runs.
#[derive(Debug, Clone)]
pub struct ShardPlan {
    /// Thread name, `shard-N`.
    pub name: String,
    /// CPU to pin to; `None` leaves the thread to the scheduler.
    pub core: Option<usize>,
}

/// A running shard.
pub struct ShardHandle(ExecutorJoinHandle<()>);

impl ShardHandle {
    /// Waits until the shard's loop has returned.
    pub fn join(self) -> io::Result<()> {
        self.0.join().map_err(|error| io::Error::other(format!("join a shard: {error}")))
    }
}

/// Starts a shard: `start` runs on the new thread and gives the loop that the executor drives until it returns.
pub fn spawn_shard<Start, Loop>(plan: ShardPlan, start: Start) -> io::Result<ShardHandle>
where
    Start: FnOnce() -> Loop + Send + 'static,
    Loop: Future<Output = ()> + 'static,
{
    let placement = plan.core.map_or(Placement::Unbound, Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .name(&plan.name)
        .spin_before_park(Duration::ZERO)
        .io_memory(EXECUTOR_IO_MEMORY_BYTES)
        .ring_depth(EXECUTOR_RING_DEPTH)
        .spawn(start)
        .map(ShardHandle)
        .map_err(|error| io::Error::other(format!("start the executor of {}: {error}", plan.name)))
}
