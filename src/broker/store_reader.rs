//! What the control plane may ask of the store. The engine implements it; tests use an in-memory one.
//!
//! The first group of questions is answered from memory at once and may be asked on the control thread. The second may
//! touch the disk: it is asked only inside a look-up ([`super::Answer::LookUp`]), which runs on the store thread.

/// Which of several messages at a point in time is meant (`BoundaryType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// The first at or after the time.
    Lower,
    /// The last at or before the time.
    Upper,
}

/// What was found under a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryAnswer {
    /// Stored records, one behind the other; empty if nothing was found.
    pub records: Vec<u8>,
    /// Store time of the newest indexed record, milliseconds; 0 if there is none.
    pub index_last_timestamp: i64,
    /// Physical offset of the newest indexed record; 0 if there is none.
    pub index_last_physical: i64,
}

/// Messages per second over the last ten seconds, minute and ten minutes.
pub type Rates = [f64; 3];

/// Buckets of the distribution of put times: up to 0 ms, 10, 50, 100, 200, 500 ms, 1, 2, 3, 4, 5, 10 s, longer.
pub const PUT_TIME_BUCKETS: usize = 13;

/// Counters of the store since the process started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoreTotals {
    /// When the store was opened, milliseconds since the epoch.
    pub boot_ms: u64,
    /// Messages stored.
    pub put_messages: u64,
    /// Messages refused by the store.
    pub put_failures: u64,
    /// Bytes stored.
    pub put_bytes: u64,
    /// Longest put, milliseconds.
    pub put_max_ms: u64,
    /// Puts by duration, in the order of [`PUT_TIME_BUCKETS`].
    pub put_times: [u64; PUT_TIME_BUCKETS],
    /// 99th percentile of the put time, milliseconds.
    pub put_p99_ms: f64,
    /// 99.9th percentile of the put time, milliseconds.
    pub put_p999_ms: f64,
    /// Messages handed to consumers.
    pub get_messages: u64,
    /// Longest get, milliseconds.
    pub get_max_ms: u64,
    /// Messages stored per second.
    pub put_rates: Rates,
    /// Pulls that found something, per second.
    pub get_found_rates: Rates,
    /// Pulls that found nothing, per second.
    pub get_miss_rates: Rates,
    /// Messages handed over, per second.
    pub transferred_rates: Rates,
    /// Messages stored before today 00:00 and before yesterday 00:00 (local time).
    pub put_before_today: u64,
    /// See [`StoreTotals::put_before_today`].
    pub put_before_yesterday: u64,
    /// Messages handed over before today 00:00.
    pub get_before_today: u64,
    /// Messages handed over before yesterday 00:00.
    pub get_before_yesterday: u64,
    /// Bytes of the log that are confirmed but not yet in the queues.
    pub dispatch_behind_bytes: u64,
    /// Bytes of the log that are written but not yet synced.
    pub unflushed_bytes: u64,
    /// How long the current log write has been running, milliseconds; 0 if none is.
    pub write_in_flight_ms: u64,
    /// Sends waiting for the log.
    pub waiting_sends: u64,
    /// Pulls that are being worked on.
    pub waiting_pulls: u64,
}

/// One file system that holds store files.
#[derive(Debug, Clone, PartialEq)]
pub struct DiskUsage {
    /// Directory of the log.
    pub log_path: String,
    /// Size of the file system, bytes.
    pub total_bytes: u64,
    /// Free bytes for this process.
    pub free_bytes: u64,
    /// Used part of the file system of the log, 0 to 1; -1 if unknown.
    pub log_ratio: f64,
    /// Used part of the file system of the queue files, 0 to 1; -1 if unknown.
    pub queue_ratio: f64,
}

/// The store as the control plane sees it.
pub trait StoreReader: Send + Sync {
    /// Smallest and next queue offset; `None` for a queue without files. Answers from memory.
    fn queue_bounds(&self, topic: &str, queue_id: i32) -> Option<(i64, i64)>;

    /// First and next physical offset of the log. Answers from memory.
    fn log_bounds(&self) -> (i64, i64);

    /// Whether the message is within the recent part of the log that counts as being in memory
    /// (`accessMessageInMemoryMaxRatio`); `false` if it does not exist. Answers from memory.
    fn in_memory(&self, topic: &str, queue_id: i32, offset: i64) -> bool;

    /// Counters. Answers from memory.
    fn totals(&self) -> StoreTotals;

    /// Store time of a message in milliseconds; `None` if it is not there. May block.
    fn store_time(&self, topic: &str, queue_id: i32, offset: i64) -> Option<i64>;

    /// Queue offset for a store time, within the queue's bounds; 0 for an empty or unknown queue. May block.
    fn offset_by_time(&self, topic: &str, queue_id: i32, timestamp: i64, boundary: Boundary) -> i64;

    /// The record that starts at a physical offset; `None` if none does. May block.
    fn record_at(&self, physical: i64) -> Option<Vec<u8>>;

    /// Records under `topic#key` whose store time is in the range (milliseconds, both ends included). May block. The error, a text
    /// for the client, says why nobody can know what there is: an answer without records means that there are none.
    fn query(&self, topic: &str, key: &str, max: i32, begin: i64, end: i64) -> Result<QueryAnswer, String>;

    /// Store time of the first message of a queue; `None` for an empty or unknown queue. May block.
    fn earliest_store_time(&self, topic: &str, queue_id: i32) -> Option<i64>;

    /// Store time of the first message of the log; `None` for an empty log. May block.
    fn earliest_log_time(&self) -> Option<i64>;

    /// Space on the disks. May block.
    fn disk_usage(&self) -> DiskUsage;
}
