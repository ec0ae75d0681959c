//! What every shard needs to know to serve sends and pulls: an immutable picture of topics, groups and subscriptions, made by
//! the control thread and replaced as a whole.

use std::net::SocketAddr;
use std::sync::Arc;

use ringmq_protocol::message_id::MessageIdPrefix;
use ringmq_shards::queue::Queue;

use crate::broker::FastMap;
use crate::broker::pull::TransferLimits;
use crate::broker::snapshot::GroupEntry;

/// Who this broker is, as messages and answers say it.
#[derive(Debug, Clone)]
pub struct ServingIdentity {
    /// `brokerClusterName`, stored with every single message as property `CLUSTER`.
    pub cluster_name: String,
    /// `regionId`, property `MSG_REGION`.
    pub region_id: String,
    /// `traceOn`, property `TRACE_ON`.
    pub trace_on: bool,
    /// Advertised address: the store host of records.
    pub store_host: SocketAddr,
    /// What message ids with this store host begin with.
    pub message_id_prefix: MessageIdPrefix,
}

impl ServingIdentity {
    /// The identity that these settings make.
    pub fn new(cluster_name: String, region_id: String, trace_on: bool, store_host: SocketAddr) -> Self {
        Self { cluster_name, region_id, trace_on, store_host, message_id_prefix: MessageIdPrefix::of(store_host) }
    }
}

/// A topic with its queues.
pub struct ServingTopic {
    /// Name.
    pub name: Arc<str>,
    /// One per readable or writable queue, by queue id.
    pub queues: Vec<Arc<Queue>>,
    /// `readQueueNums`.
    pub read_queues: u32,
    /// `writeQueueNums`.
    pub write_queues: u32,
    /// Permission bits.
    pub permission: i32,
    /// `topicSysFlag`.
    pub sys_flag: i32,
    /// `order`: strictly ordered topic.
    pub is_ordered: bool,
    /// `topicFilterType` is `MULTI_TAG`.
    pub is_multi_tag: bool,
    /// Why clients may not send to it, for topics of the not-sendable set.
    pub not_sendable: bool,
    /// The attribute of its configuration that is not served: nothing is stored.
    pub unserved: Option<&'static str>,
}

/// The picture.
pub struct Serving {
    /// Identity.
    pub identity: Arc<ServingIdentity>,
    /// By name.
    pub topics: FastMap<Arc<str>, Arc<ServingTopic>>,
    /// By name.
    pub groups: Arc<FastMap<Arc<str>, Arc<GroupEntry>>>,
    /// `brokerPermission`.
    pub broker_permission: i32,
    /// `maxMessageSize`, bytes.
    pub max_message_bytes: usize,
    /// `longPollingEnable`; without it requests are held for `short_polling_ms`.
    pub long_polling: bool,
    /// `shortPollingTimeMills`.
    pub short_polling_ms: u64,
    /// `litePullMessageEnable`.
    pub lite_pull: bool,
    /// `rejectPullConsumerEnable`.
    pub reject_pull_consumers: bool,
    /// `startAcceptSendRequestTimeStamp`, milliseconds since the epoch.
    pub accept_sends_from_ms: i64,
    /// Bounds of one answer to a pull.
    pub transfer: TransferLimits,
}
