//! Bounds of the server, each in one place with its reason. Those with a configuration key are defaults.

/// Connections that a shard has slots for, whatever `max_connections` says: the largest value of that key.
pub const MAX_CONNECTIONS: usize = 1_000_000;

/// Bytes of unparsed input over all connections of a shard; frames that would exceed it close their connection.
pub const INPUT_BYTES: usize = 256 << 20;

/// Held pulls that a shard has slots for, whatever `max_held_pulls` says: the largest value of that key.
pub const MAX_HELD_PULLS: usize = 100_000_000;

/// Sends that wait for their group, per shard.
pub const MAX_PENDING_SENDS: usize = 65_536;

/// Messages from other threads that a shard has not looked at yet.
pub const MAILBOX_MESSAGES: usize = 65_536;

/// Requests waiting for the control thread; above it they are refused with `SYSTEM_BUSY`.
pub const CONTROL_REQUESTS: usize = 65_536;

/// Cold reads waiting for the store thread; above it pulls are refused with `SYSTEM_BUSY`.
pub const COLD_READS: usize = 4_096;

/// Slices of one gathered send: below the kernel's `IOV_MAX` of 1,024.
pub const GATHERED_SLICES: usize = 1_000;

/// A frame that has begun must be complete within this time: a peer that drips bytes holds memory.
pub const FRAME_ASSEMBLY_MS: u64 = 30_000;

/// A buffer that has grown beyond this is given back once it is empty.
pub const KEEP_BUFFER_BYTES: usize = 256 << 10;

/// Requests waiting for the flush thread. They are small; when they pile up the disk is stuck anyway.
pub const FLUSH_REQUESTS: usize = 4_096;

/// Look-ups waiting for the store thread; above it they are refused with `SYSTEM_BUSY`.
pub const STORE_JOBS: usize = 4_096;

/// Largest record that is believed when its length is read from a file: far above what `maxMessageSize` can be set to, and
/// small enough to be read at once.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
