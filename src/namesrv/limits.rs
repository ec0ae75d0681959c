//! Bounds of the name server's tables. All of them are far above what a working cluster needs; they exist so that a
//! faulty or hostile peer cannot make the tables grow without end.

/// Broker addresses that may be registered at the same time.
pub const MAX_BROKER_ADDRESSES: usize = 10_000;

/// (topic, broker group) pairs in the route table: for example 50,000 topics on 20 groups.
pub const MAX_ROUTES: usize = 1_000_000;

/// Static-topic mappings, counted like routes. Each is a tree of JSON values, hence the smaller number.
pub const MAX_QUEUE_MAPPINGS: usize = 20_000;

/// Longest static-topic mapping, in bytes of JSON.
pub const MAX_QUEUE_MAPPING_LENGTH: usize = 16_384;

/// Keys in the KV configuration, over all namespaces.
pub const MAX_KV_ENTRIES: usize = 100_000;

/// Longest namespace, key or value of the KV configuration, in bytes.
pub const MAX_KV_TEXT_LENGTH: usize = 65_536;

/// Longest name of a cluster, broker, topic or zone, and longest address, in bytes. Topic names end at 127 characters.
pub const MAX_NAME_LENGTH: usize = 1024;
