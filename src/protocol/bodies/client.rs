//! Clients: heart-beats, subscriptions, connections.

use super::Connection;
use crate::json::lenient_enum_option;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

crate::json_enum! {
    /// How a consumer gets its messages. Source: ConsumeType.
    pub enum ConsumeType {
        /// Pull, driven by the application.
        Actively = "CONSUME_ACTIVELY",
        /// Push (long polling).
        Passively = "CONSUME_PASSIVELY",
        /// POP.
        Pop = "CONSUME_POP",
    }
}

crate::json_enum! {
    /// Whether each member of a group gets all messages or its share. Source: MessageModel.
    pub enum MessageModel {
        /// Every member gets every message.
        Broadcasting = "BROADCASTING",
        /// Queues are divided among the members.
        Clustering = "CLUSTERING",
    }
}

crate::json_enum! {
    /// Where a new group begins. Source: ConsumeFromWhere.
    pub enum ConsumeFromWhere {
        /// At the end.
        LastOffset = "CONSUME_FROM_LAST_OFFSET",
        /// Deprecated.
        LastOffsetAndFromMinWhenBootFirst = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        /// Deprecated.
        MinOffset = "CONSUME_FROM_MIN_OFFSET",
        /// Deprecated.
        MaxOffset = "CONSUME_FROM_MAX_OFFSET",
        /// At the beginning.
        FirstOffset = "CONSUME_FROM_FIRST_OFFSET",
        /// At a point in time.
        Timestamp = "CONSUME_FROM_TIMESTAMP",
    }
}

/// What a group wants of one topic. Source: SubscriptionData.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionData {
    /// Filter class mode; never used any more.
    pub class_filter_mode: bool,
    /// Java hash codes of the tags; a set.
    pub code_set: Vec<i32>,
    /// `TAG` or `SQL92`.
    pub expression_type: String,
    /// The expression, `*` for everything.
    pub sub_string: String,
    /// Version, a time in milliseconds; a greater one replaces a smaller one.
    pub sub_version: i64,
    /// The tags; a set.
    pub tags_set: Vec<String>,
    /// Topic.
    pub topic: String,
}

impl Default for SubscriptionData {
    fn default() -> Self {
        SubscriptionData {
            class_filter_mode: false,
            code_set: Vec::new(),
            expression_type: "TAG".to_owned(),
            sub_string: String::new(),
            sub_version: 0,
            tags_set: Vec::new(),
            topic: String::new(),
        }
    }
}

/// One consumer group of a heart-beat. An enum that is absent or unknown is `None`. Source: ConsumerData.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerData {
    /// Where a new group begins.
    #[serde(deserialize_with = "lenient_enum_option")]
    pub consume_from_where: Option<ConsumeFromWhere>,
    /// How messages are got.
    #[serde(deserialize_with = "lenient_enum_option")]
    pub consume_type: Option<ConsumeType>,
    /// Group.
    pub group_name: String,
    /// Sharing of messages.
    #[serde(deserialize_with = "lenient_enum_option")]
    pub message_model: Option<MessageModel>,
    /// Subscriptions; a set.
    pub subscription_data_set: Vec<SubscriptionData>,
    /// Unit mode.
    pub unit_mode: bool,
}

/// One producer group of a heart-beat. Source: ProducerData.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProducerData {
    /// Group.
    pub group_name: String,
}

/// Body of HEART_BEAT (34). Source: HeartbeatData.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HeartbeatData {
    /// Client id.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Consumer groups; a set.
    pub consumer_data_set: Vec<ConsumerData>,
    /// 0 for a version 1 heart-beat.
    pub heartbeat_fingerprint: i32,
    /// Producer groups; a set.
    pub producer_data_set: Vec<ProducerData>,
    /// Whether subscriptions were left out because they have not changed.
    pub without_sub: bool,
}

/// Answer of 38. Source: GetConsumerListByGroupResponseBody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetConsumerListByGroupResponseBody {
    /// One client id per connection.
    pub consumer_id_list: Vec<String>,
}

/// Body of CHECK_CLIENT_CONFIG (46). Source: CheckClientRequestBody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CheckClientRequestBody {
    /// Client id.
    pub client_id: String,
    /// Group.
    pub group: String,
    /// Namespace.
    pub namespace: Option<String>,
    /// The subscription to check.
    pub subscription_data: Option<SubscriptionData>,
}

/// Answer of 203. Source: ConsumerConnection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerConnection {
    /// Members; a set.
    pub connection_set: Vec<Connection>,
    /// Where a new group begins.
    #[serde(deserialize_with = "lenient_enum_option")]
    pub consume_from_where: Option<ConsumeFromWhere>,
    /// How messages are got.
    #[serde(deserialize_with = "lenient_enum_option")]
    pub consume_type: Option<ConsumeType>,
    /// Sharing of messages.
    #[serde(deserialize_with = "lenient_enum_option")]
    pub message_model: Option<MessageModel>,
    /// Topic to subscription.
    pub subscription_table: BTreeMap<String, SubscriptionData>,
}

/// Answer of 204. Source: ProducerConnection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProducerConnection {
    /// Members; a set.
    pub connection_set: Vec<Connection>,
}
