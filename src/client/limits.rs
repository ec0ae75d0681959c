//! Bounds of the client, each in one place with its reason.

/// How long a connection may take to open, in milliseconds (RocketMQ `connectTimeoutMillis`).
pub const CONNECT_TIMEOUT_MS: u64 = 3_000;

/// How long a request may take, in milliseconds: twice what a broker waits for a synced write.
pub const REQUEST_TIMEOUT_MS: u64 = 10_000;

/// How long a broker holds a pull that finds nothing, in milliseconds (RocketMQ `brokerSuspendMaxTimeMillis`).
pub const HOLD_MS: u64 = 15_000;

/// How much later than asked for a held pull may be answered, in milliseconds: RocketMQ looks for expired ones every
/// 5 s.
pub const HOLD_GRACE_MS: u64 = 15_000;

/// Attempts of a send: the first and two more, as RocketMQ's producers do.
pub const SEND_ATTEMPTS: u32 = 3;

/// Most messages asked for with one pull (RocketMQ `pullBatchSize`).
pub const PULL_MESSAGES: i32 = 32;

/// Queues that a producer makes use of in a topic that it creates (RocketMQ `defaultTopicQueueNums`).
pub const NEW_TOPIC_QUEUES: i32 = 4;

/// Requests of the peer that nobody has looked at. The oldest goes first: they are notices that may be missed.
pub const KEPT_PEER_REQUESTS: usize = 64;

/// Largest body after decompression, in bytes. A broker stores 4 MiB by default, and a body of zeros grows a
/// thousandfold.
pub const MAX_UNPACKED_BYTES: usize = 64 << 20;

/// Bytes read from a socket at once.
pub const READ_BYTES: usize = 64 << 10;

/// Longest line that becomes a message, in bytes: the largest frame leaves no room for more.
pub const MAX_LINE_BYTES: usize = 16 << 20;

/// How often a consumer tells brokers that it is there (RocketMQ `heartbeatBrokerInterval`), in milliseconds.
pub const HEARTBEAT_INTERVAL_MS: u64 = 30_000;

/// How often a consumer commits its offsets (RocketMQ `persistConsumerOffsetInterval`), in milliseconds.
pub const COMMIT_INTERVAL_MS: u64 = 5_000;

/// How often a consumer looks for new queues (RocketMQ `pollNameServerInterval`), in milliseconds.
pub const ROUTE_INTERVAL_MS: u64 = 30_000;

/// Pause before a lost broker or one that refuses for a while is asked again, in milliseconds.
pub const RETRY_PAUSE_MS: u64 = 1_000;

/// Answers that wait to be printed, each of at most one frame.
pub const WAITING_ANSWERS: usize = 8;
