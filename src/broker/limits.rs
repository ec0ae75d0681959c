//! Bounds of the control plane: how much state clients and tools may make the broker hold. Each is a named number with
//! its reason; the ones that can be reached from outside have the remark that the refused requester reads.

/// Topics on one broker, system and retry topics included. A topic costs about 1 KiB here and one line in every
/// registration; name servers and routes become slow long before this.
pub const DEFAULT_MAX_TOPICS: usize = 50_000;

/// Queues of all topics together. A queue costs a tail in memory and files on disk.
pub const DEFAULT_MAX_QUEUES: u64 = 200_000;

/// Queues of one topic, reading or writing. RocketMQ checks nothing, so that a mistyped number can fill a disk with queue
/// files. `BenchmarkTest` needs 1,024.
pub const MAX_QUEUES_PER_TOPIC: i32 = 4_096;

/// Subscription groups on one broker. Groups are created by whoever pulls or sends a heartbeat.
pub const DEFAULT_MAX_GROUPS: usize = 50_000;

/// Connections of one consumer group. Every change is announced to all members, so the work of a rolling restart grows
/// with the square of this number.
pub const MAX_CONNECTIONS_PER_GROUP: usize = 20_000;

/// Groups that one connection may register as producer or consumer.
pub const MAX_GROUPS_PER_CONNECTION: usize = 10_000;

/// Subscriptions that one heartbeat may carry for one group.
pub const MAX_SUBSCRIPTIONS_PER_GROUP: usize = 10_000;

/// Committed queues per (topic, group). Far above the queue bound, because offsets are accepted for any queue number.
pub const MAX_OFFSETS_PER_SUBSCRIPTION: usize = 65_536;

/// (topic, group) pairs with committed offsets; past it new pairs are not recorded. A pair costs about 300 bytes.
pub const MAX_OFFSET_KEYS: usize = 2_000_000;

/// Orderly locks of one group. Queues are not checked for existence, so the bound is what keeps a client from filling
/// the memory.
pub const MAX_LOCKS_PER_GROUP: usize = 65_536;

/// Groups that hold orderly locks at once.
pub const MAX_LOCKED_GROUPS: usize = 100_000;

/// Messages that one query by key may return (`maxMsgsNumBatch`).
pub const MAX_QUERY_MESSAGES: i32 = 64;

/// Messages that a query by unique key returns (`defaultQueryMaxNum`).
pub const UNIQUE_KEY_QUERY_MESSAGES: i32 = 32;

/// Entries of one page of topics or groups (`splitMetadataSize`).
pub const METADATA_PAGE: usize = 2_000;

/// Queues whose numbers one statistics answer may contain. A frame has 16 MiB and one entry about 150 bytes.
pub const MAX_STATISTICS_QUEUES: usize = 100_000;

/// Remark for a topic beyond [`DEFAULT_MAX_TOPICS`] or its configured value.
pub fn too_many_topics(limit: usize) -> String {
    format!("the broker already holds {limit} topics, its limit; delete unused topics or raise max_topics")
}

/// Remark for a topic with more queues than allowed.
pub fn bad_queue_number(queues: i32) -> String {
    format!("{queues} queues per topic are outside 0..={MAX_QUEUES_PER_TOPIC}, what this broker allows")
}

/// Remark for a topic whose queues would be too many together with those of all others.
pub fn too_many_queues(limit: u64) -> String {
    format!("the broker's topics would have more than {limit} queues, its limit; delete topics or raise max_queues")
}

/// Remark for a group beyond [`DEFAULT_MAX_GROUPS`] or its configured value.
pub fn too_many_groups(limit: usize) -> String {
    format!("the broker already holds {limit} subscription groups, its limit; delete unused groups or raise max_groups")
}
