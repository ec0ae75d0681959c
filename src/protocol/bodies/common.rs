//! Forms that many bodies share.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of a table, compared by equality of all three members. Source: DataVersion.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DataVersion {
    /// Bumped at each change.
    pub counter: i64,
    /// Epoch of the master in controller mode, else 0.
    pub state_version: i64,
    /// Time of the last change, in milliseconds since the Unix epoch.
    pub timestamp: i64,
}

impl DataVersion {
    /// Records a change at `now_ms`. Source: DataVersion.nextVersion.
    pub fn bump(&mut self, now_ms: i64) {
        self.counter = self.counter.wrapping_add(1);
        self.timestamp = now_ms;
    }
}

/// One queue of one broker. Ordered by topic, broker name, queue id, as in Java. Source: MessageQueue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MessageQueue {
    /// Name of the broker group.
    pub broker_name: String,
    /// Number of the queue within the topic on that broker.
    pub queue_id: i32,
    /// Topic.
    pub topic: String,
}

impl MessageQueue {
    /// A queue.
    pub fn new(topic: impl Into<String>, broker_name: impl Into<String>, queue_id: i32) -> Self {
        MessageQueue { broker_name: broker_name.into(), queue_id, topic: topic.into() }
    }
}

impl Ord for MessageQueue {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.topic, &self.broker_name, self.queue_id).cmp(&(&other.topic, &other.broker_name, other.queue_id))
    }
}

impl PartialOrd for MessageQueue {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// String to string: KV configuration of the name server (219), runtime information of a broker (28). Source: KVTable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvTable {
    /// The pairs.
    pub table: BTreeMap<String, String>,
}

/// Topic names. Source: TopicList.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicList {
    /// Address of some broker; only in answers about system topics.
    pub broker_addr: Option<String>,
    /// The names; a set in Java.
    pub topic_list: Vec<String>,
}

/// A connected client. Source: Connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Connection {
    /// `ip:port` of the client's end.
    pub client_addr: String,
    /// Client id.
    pub client_id: String,
    /// Java name of the client's language (LanguageCode).
    pub language: Option<String>,
    /// Version ordinal that the client sent.
    pub version: i32,
}
