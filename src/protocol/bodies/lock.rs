//! Locks of orderly consumers.

use super::MessageQueue;
use serde::{Deserialize, Serialize};

/// Body of LOCK_BATCH_MQ (41). Source: LockBatchRequestBody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LockBatchRequestBody {
    /// Who wants the locks.
    pub client_id: String,
    /// Group.
    pub consumer_group: String,
    /// Queues; a set.
    pub mq_set: Vec<MessageQueue>,
    /// Whether other replicas are to be left alone.
    pub only_this_broker: bool,
}

/// Answer of 41. Source: LockBatchResponseBody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockBatchResponseBody {
    /// Queues that the client now holds; a set.
    #[serde(rename = "lockOKMQSet")]
    pub lock_ok_mq_set: Vec<MessageQueue>,
}
