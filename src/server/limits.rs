//! Bounds of the server, each in one place with its reason. Those with a configuration key are defaults.

/// Connections that a shard has slots for, whatever `max_connections` says: the largest value of that key.
pub const MAX_CONNECTIONS: usize = 1_000_000;

/// Held pulls that a shard has slots for, whatever `max_held_pulls` says: the largest value of that key.
pub const MAX_HELD_PULLS: usize = 100_000_000;

/// Sends that wait for their group, per shard.
pub const MAX_PENDING_SENDS: usize = 65_536;

/// Batches of prepared records between a shard and the writer: a turn fills one, the writer empties it a turn later, and a writer
/// that is held up by a long write finds some more.
pub const REMOTE_BATCHES: usize = 32;

/// A batch that has reached this is sent on before its turn ends, so that the writer's shard has something to do meanwhile.
pub const REMOTE_BATCH_BYTES: usize = 64 << 10;

/// Record bytes of one shard on the way to the writer, and memory that their batches keep: enough for several groups, small
/// beside the log ring. A single larger request is admitted when nothing else is on its way.
pub const REMOTE_BYTES: usize = 4 << 20;

/// Verdicts and wake-ups that a shard has not looked at yet; more wait on the writer's shard.
pub const REMOTE_ANSWERS: usize = 4_096;

/// Messages from other threads that a shard has not looked at yet.
pub const MAILBOX_MESSAGES: usize = 65_536;

/// Requests waiting for the control thread; above it they are refused with `SYSTEM_BUSY`.
pub const CONTROL_REQUESTS: usize = 65_536;

/// Cold reads waiting for the store thread; above it pulls are refused with `SYSTEM_BUSY`.
pub const COLD_READS: usize = 4_096;

/// Slices of one gathered send: below the kernel's `IOV_MAX` of 1,024.
pub const GATHERED_SLICES: usize = 1_000;

/// The most time that a frame has to arrive when buffers exceed their budget by a quarter: then half frames are what memory is
/// needed for.
pub const EXHAUSTED_FRAME_MS: u64 = 5_000;

/// Bytes of one receive when memory is short: most requests fit, and a thousand half ones stay small.
pub const SHORT_RECEIVE_BYTES: u32 = 16 << 10;

/// A connection that may finish its frame although memory is short, and from which nothing arrives for this long, lets the next
/// one try. Honest peers have their bytes ready in the socket.
pub const FINISHER_IDLE_MS: u64 = 50;

/// The same for one from which a little arrives again and again: 16 MiB pass in a second on any network that matters.
pub const FINISHER_MS: u64 = 1_000;

/// A buffer that has grown beyond this is given back once it is empty.
pub const KEEP_BUFFER_BYTES: usize = 256 << 10;

/// Requests waiting for the flush thread. They are small; when they pile up the disk is stuck anyway.
pub const FLUSH_REQUESTS: usize = 4_096;

/// Look-ups waiting for the store thread; above it they are refused with `SYSTEM_BUSY`.
pub const STORE_JOBS: usize = 4_096;
