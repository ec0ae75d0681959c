//! What the control plane needs to know of the broker's configuration: plain data with RocketMQ's defaults, and the seam
//! through which codes 25 and 26 reach the configuration files.

use std::time::Duration;

use super::limits;

/// Who this broker is. Fixed for the life of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerIdentity {
    /// `brokerClusterName`.
    pub cluster: String,
    /// `brokerName`.
    pub name: String,
    /// `brokerId`; 0 is the master.
    pub id: i64,
    /// `brokerIP1:listenPort`: where clients connect.
    pub address: String,
    /// `brokerIP2:haListenPort`: where replicas connect.
    pub ha_address: String,
}

/// Settings of the control plane. Names follow RocketMQ's keys, given in brackets; defaults are RocketMQ's.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlConfig {
    /// `autoCreateTopicEnable`.
    pub auto_create_topic: bool,
    /// `autoCreateSubscriptionGroup`.
    pub auto_create_group: bool,
    /// `defaultTopicQueueNums`: queues of the template `TBW102`.
    pub default_topic_queues: i32,
    /// `clusterTopicEnable`.
    pub cluster_topic: bool,
    /// `brokerTopicEnable`.
    pub broker_topic: bool,
    /// `traceTopicEnable`.
    pub trace_topic: bool,
    /// `msgTraceTopicName`.
    pub trace_topic_name: String,
    /// `validateSystemTopicWhenUpdateTopic`.
    pub protect_system_topics: bool,
    /// `clearRetryTopicWhenDeleteTopic`.
    pub clear_retry_topics: bool,
    /// `notifyConsumerIdsChangedEnable`.
    pub notify_consumers: bool,
    /// `rejectPullConsumerEnable`.
    pub reject_pull_consumers: bool,
    /// `useServerSideResetOffset`.
    pub server_side_reset: bool,
    /// `brokerPermission`.
    pub broker_permission: i32,
    /// `channelExpiredTimeout`: a client without heartbeat for this long is removed.
    pub client_timeout: Duration,
    /// `registerNameServerPeriod`, between 10 and 60 s.
    pub register_period: Duration,
    /// `flushConsumerOffsetInterval`.
    pub offset_write_period: Duration,
    /// `startAcceptSendRequestTimeStamp`, milliseconds.
    pub accept_sends_from_ms: i64,
    /// `defaultQueryMaxNum`: messages that a look-up by unique key returns at most.
    pub default_query_messages: i32,
    /// `maxMsgsNumBatch`: messages that a look-up by key returns at most.
    pub max_query_messages: i32,
    /// `max_topics`: see [`limits::DEFAULT_MAX_TOPICS`].
    pub max_topics: usize,
    /// `max_queues`: see [`limits::DEFAULT_MAX_QUEUES`].
    pub max_queues: u64,
    /// `max_groups`: see [`limits::DEFAULT_MAX_GROUPS`].
    pub max_groups: usize,
}

impl Default for ControlConfig {
    fn default() -> ControlConfig {
        ControlConfig {
            auto_create_topic: true,
            auto_create_group: true,
            default_topic_queues: 8,
            cluster_topic: true,
            broker_topic: true,
            trace_topic: false,
            trace_topic_name: super::names::TRACE_TOPIC.to_owned(),
            protect_system_topics: true,
            clear_retry_topics: true,
            notify_consumers: true,
            reject_pull_consumers: false,
            server_side_reset: true,
            broker_permission: 6,
            client_timeout: Duration::from_secs(120),
            register_period: Duration::from_secs(30),
            offset_write_period: Duration::from_secs(5),
            accept_sends_from_ms: 0,
            default_query_messages: limits::UNIQUE_KEY_QUERY_MESSAGES,
            max_query_messages: limits::MAX_QUERY_MESSAGES,
            max_topics: limits::DEFAULT_MAX_TOPICS,
            max_queues: limits::DEFAULT_MAX_QUEUES,
            max_groups: limits::DEFAULT_MAX_GROUPS,
        }
    }
}

impl ControlConfig {
    /// Period of the full registration: RocketMQ keeps it between 10 and 60 s.
    pub fn register_period_clamped(&self) -> Duration {
        self.register_period.clamp(Duration::from_secs(10), Duration::from_secs(60))
    }
}

/// Why a change of the configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A key that requests may not change.
    #[error("Can not update config in black list.")]
    Blacklisted,
    /// The text is no list of `key=value` lines.
    #[error("string2Properties error")]
    Malformed,
    /// A value that its key does not accept, or the change could not be kept.
    #[error("{0}")]
    Refused(String),
}

/// A key that got another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedKey {
    /// RocketMQ's spelling, or ours if there is none.
    pub key: String,
    /// The new value.
    pub value: String,
    /// Whether the value is in use at once; otherwise it waits for a restart, or means nothing here.
    pub in_use: bool,
    /// What the requester must know of a value that is not in use.
    pub note: Option<String>,
}

/// The configuration behind codes 25 and 26.
pub trait ConfigAccess: Send {
    /// Every key with its value as `key=value\n` lines, sorted by key.
    fn render(&self) -> String;

    /// Applies properties text; unknown keys are skipped, all others apply or none does. Returns the keys that changed.
    ///
    /// # Errors
    /// A black-listed key, malformed text, or a value that is not accepted.
    fn apply(&mut self, text: &str) -> Result<Vec<ChangedKey>, ConfigError>;

    /// Content of the file that keeps changes over a restart; `None` if there is none.
    fn file(&self) -> Option<String>;

    /// The configuration in use, for the parts of the process that live changes reach; `None` if there is none.
    fn current(&self) -> Option<&crate::config::Config> {
        None
    }
}

/// A configuration that cannot be seen or changed: the default until one is attached.
#[derive(Debug, Clone, Copy, Default)]
pub struct SealedConfig;

impl ConfigAccess for SealedConfig {
    fn render(&self) -> String {
        String::new()
    }

    fn apply(&mut self, _text: &str) -> Result<Vec<ChangedKey>, ConfigError> {
        Err(ConfigError::Refused("the configuration of this broker cannot be changed by requests".to_owned()))
    }

    fn file(&self) -> Option<String> {
        None
    }
}
