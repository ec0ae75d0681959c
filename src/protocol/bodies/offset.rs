//! Offsets: committed ones, statistics.

use super::{DataVersion, MessageQueue};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Committed offsets: `consumerOffset.json`, answer of 43. Source: ConsumerOffsetManager, ConsumerOffsetSerializeWrapper.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerOffsetWrapper {
    /// Version of the table.
    pub data_version: DataVersion,
    /// `topic@group` to queue id to the next offset to consume.
    pub offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// Progress on one queue. Source: OffsetWrapper.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OffsetWrapper {
    /// Maximum offset of the queue.
    pub broker_offset: i64,
    /// Committed offset.
    pub consumer_offset: i64,
    /// Store time of the last consumed message, in milliseconds.
    pub last_timestamp: i64,
    /// Greatest offset pulled.
    pub pull_offset: i64,
}

/// Answer of 208. Source: ConsumeStats.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumeStats {
    /// Messages per second.
    pub consume_tps: f64,
    /// Progress by queue.
    pub offset_table: BTreeMap<MessageQueue, OffsetWrapper>,
}

/// Extent of one queue. Source: TopicOffset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicOffset {
    /// Store time of the last message, in milliseconds; 0 if there is none.
    pub last_update_timestamp: i64,
    /// Offset of the next message.
    pub max_offset: i64,
    /// Offset of the oldest message.
    pub min_offset: i64,
}

/// Answer of 202. Source: TopicStatsTable.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicStatsTable {
    /// Extent by queue.
    pub offset_table: BTreeMap<MessageQueue, TopicOffset>,
    /// Messages per second.
    pub topic_put_tps: f64,
}
