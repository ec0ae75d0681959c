//! Bounds of the log writer, each in one place with its reason.

/// Smallest ring: room for the headroom of one turn and as much recent past.
pub const RING_BYTES_MIN: usize = 32 << 20;

/// How far past the end the ring is kept free for appends of one turn; also the largest batch in stored form.
/// Above the 4 MiB message limit, so that every legal request fits.
pub const TURN_HEADROOM_BYTES: u64 = 16 << 20;

/// Records that wait for their write or sync. A 16 MiB batch of tiny messages makes about 170,000.
pub const PENDING_RECORDS_MAX: usize = 262_144;

/// Unit of file writes: the page of the page cache and the block of `O_DIRECT`.
pub const PAGE_BYTES: u64 = 4096;
