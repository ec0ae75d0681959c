//! Executors, sockets and the rings of the kernel: the only room that names glommio or opens sockets.
//!
//! Each shard is one pinned thread with one glommio executor, which gives placement, task queues and a place for
//! background work. Sockets and log writes use a raw io_uring nested in it ([`Ring`]): the executor's root task is the
//! shard's loop, and when it has nothing to do it sleeps inside the nested ring itself, so that a wake-up costs one system
//! call and not a round through a second reactor.

pub mod buffers;
pub mod channel;
pub mod executor;
pub mod lane;
pub mod limits;
pub mod mailbox;
#[cfg(ringmq_loom)]
mod model_queue;
pub mod pipe;
pub mod preflight;
pub mod ring;
pub mod socket;

pub use channel::{CountedReceiver, CountedSender, counted_channel};
pub use executor::{ShardHandle, ShardPlan, spawn_shard};
pub use lane::{LaneReceiver, LaneSender, lane};
pub use mailbox::{Mailbox, MailboxSender, WakeHandle};
pub use pipe::{FilledPipe, PipePool};
pub use preflight::{PreflightError, check_io_uring};
pub use ring::{Completion, Ring, RingOptions, Token};
