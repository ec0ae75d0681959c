//! Bounds of the runtime, each with its reason.

/// Submission entries of a shard's ring: one turn of a busy shard (a send per connection, re-arms, a write).
pub const RING_ENTRIES: u32 = 1024;

/// Completion entries: multishot operations post many per submission.
pub const COMPLETION_ENTRIES: u32 = 8192;

/// Receive buffers per shard. The kernel takes one per receive; they go back at the end of the completion's handling.
pub const RECEIVE_BUFFERS: u16 = 64;

/// Size of a receive buffer: large enough for dozens of pipelined sends, small enough to stay in the second-level cache.
pub const RECEIVE_BUFFER_BYTES: usize = 64 << 10;

/// Memory that glommio pins per executor. Its files are not used on the data path, so the least it accepts; ordinary
/// users may lock 8 MiB in all.
pub const EXECUTOR_IO_MEMORY_BYTES: usize = 64 << 10;

/// Depth of glommio's own rings, which only carry its timers here.
pub const EXECUTOR_RING_DEPTH: usize = 16;
