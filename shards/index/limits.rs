//! Bounds of the index room, each with its reason.

/// Hash slots of one file. Source: RocketMQ `MessageStoreConfig.maxHashSlotNum`.
pub const DEFAULT_SLOTS: u32 = 5_000_000;

/// Entries of one file, of which the first is never used. Source: RocketMQ `MessageStoreConfig.maxIndexNum`.
pub const DEFAULT_ENTRIES: u32 = 20_000_000;

/// Entries that gather in memory before they are written: 160 KiB per write.
pub const ENTRY_BUFFER: usize = 8192;

/// Entries whose slots are on their way from memory: see `IndexFile::put`. About as many as fit into the time of one load.
pub const LINKS_BEHIND: u32 = 8;

/// Slots of one page: what is written when any of them changed.
pub const PAGE_SLOTS: usize = 1024;

/// Pages of slots that one write carries at most (256 KiB).
pub const PAGES_PER_WRITE: usize = 64;

/// Entries that are read at once when slots are made anew (1.3 MiB).
pub const REBUILD_BATCH: u32 = 65_536;

/// Chain steps of one query over all files. A chain holds every message with the same key and everything that shares
/// the slot; past this many the query answers with what it has, instead of keeping the store thread busy.
pub const QUERY_STEPS: u32 = 262_144;

/// Messages that one query returns at most. Source: RocketMQ `MessageStoreConfig.maxMsgsNumBatch`.
pub const MAXIMUM_RESULTS: usize = 64;
