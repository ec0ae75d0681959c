//! Bounds of the queue room, each with its reason.

/// Models of the protocols run with the smallest sizes: they try every order of all loads and stores.
const MODEL: bool = cfg!(ringmq_loom);

/// Entries in one chunk of a queue's tail. Small, because with ten thousand queues each keeps at least one: 3 KiB.
pub const CHUNK_ENTRIES: u64 = if MODEL { 1 } else { 128 };

/// Chunks that the pool asks the allocator for at a time (193 KiB): growth stays cheap for the writer.
pub const SLAB_CHUNKS: u32 = if MODEL { 1 } else { 64 };

/// Most chunks of one pool. A claim packs the chunk's number into 24 bits.
pub const MAXIMUM_POOL_CHUNKS: u32 = 1 << 24;

/// Sizes of a queue's chunk directory. It starts with the first (8,192 entries, 512 B) and grows only when a full
/// round of chunks waits for the flush thread; the last holds 1,048,576 entries that are not in a file yet, one second
/// of a million messages to one queue.
pub const DIRECTORY_SLOTS: [u64; 3] = if MODEL { [1, 2, 4] } else { [64, 1024, 8192] };

/// Default bound of all tails together: 2.8 million entries.
pub const DEFAULT_POOL_BYTES: u64 = 64 << 20;

/// Part of all entries that may be in no file yet, one in so many, before the flush thread comes early.
pub const UNFLUSHED_SHARE: u64 = 2;

/// Chunks that `Queue::can_append` leaves free for queues that are admitted in the same turn.
pub const POOL_RESERVE_CHUNKS: u64 = 32;

/// Bytes of one entry in a queue file. Source: RocketMQ `ConsumeQueue.CQ_STORE_UNIT_SIZE`.
pub const ENTRY_BYTES: u64 = 20;

/// Shards that a queue can tell of new entries: each has one bit of a word.
pub const MAXIMUM_SHARDS: usize = u64::BITS as usize;

/// Entries of one queue file; 6,000,000 bytes. Source: RocketMQ `MessageStoreConfig.mappedFileSizeConsumeQueue`.
pub const DEFAULT_FILE_ENTRIES: u64 = 300_000;

/// Open queue files unless a store says otherwise.
pub const DEFAULT_OPEN_FILES: usize = 1024;

/// Most open queue files of a broker. Each round the flush thread writes to every queue that got messages; opening and closing
/// the file for that costs ten times the write, half of a core with 10,000 queues. More would only cost kernel memory.
pub const MAXIMUM_OPEN_FILES: usize = 16_384;

/// Entries that one write to a queue file carries (20 KiB): bounds the flush thread's buffer.
pub const FLUSH_BATCH_ENTRIES: u64 = 1024;

/// Entries before a queue's end that are read and checked when it is loaded.
pub const VERIFIED_ENTRIES: u64 = 256;

/// Words of 64 queues in one segment of the dirty set.
pub const DIRTY_SEGMENT_WORDS: usize = if MODEL { 1 } else { 1024 };

/// Segments of the dirty set: 4,194,304 queues at most.
pub const DIRTY_SEGMENTS: usize = 64;

/// Longest topic name that becomes a directory. Source: Linux `NAME_MAX`.
pub const MAXIMUM_TOPIC_BYTES: usize = 255;

/// Files that are synced one by one; with more, one sync of the file system is cheaper (10,000 single ones take seconds).
pub const SINGLE_SYNCS: usize = 256;
