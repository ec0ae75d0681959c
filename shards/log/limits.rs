//! Bounds of the log writer, each in one place with its reason.

/// Default size of the log ring. It holds what tail readers want and one second of a busy broker's writes.
pub const RING_BYTES_DEFAULT: usize = 64 << 20;

/// Smallest ring: room for the headroom of one turn and as much recent past.
pub const RING_BYTES_MIN: usize = 32 << 20;

/// How far past the end the ring is kept free for appends of one turn; also the largest batch in stored form.
/// Above the 4 MiB message limit, so that every legal request fits.
pub const TURN_HEADROOM_BYTES: u64 = 16 << 20;

/// Records that wait for their write or sync. A 16 MiB batch of tiny messages makes about 170,000.
pub const PENDING_RECORDS_MAX: usize = 262_144;

/// Unit of file writes: the page of the page cache and the block of `O_DIRECT`.
pub const PAGE_BYTES: u64 = 4096;

/// Bytes written before write-back of them is started, so that dirty pages never pile up into one long stall.
pub const WRITE_BACK_BYTES_DEFAULT: u64 = 8 << 20;
