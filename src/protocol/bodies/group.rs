//! Consumer groups: their configuration and the table of it.

use super::DataVersion;
use crate::json::{Value, lenient_enum};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

crate::json_enum! {
    /// Which retry policy counts. Source: GroupRetryPolicyType.
    #[derive(Default)]
    pub enum GroupRetryPolicyType {
        /// Delays that grow by a factor.
        Exponential = "EXPONENTIAL",
        /// A list of delays.
        #[default]
        Customized = "CUSTOMIZED",
    }
}

/// Delays between redeliveries. Source: GroupRetryPolicy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupRetryPolicy {
    /// The list of delays, if it differs from the default.
    pub customized_retry_policy: Option<CustomizedRetryPolicy>,
    /// The growing delays.
    pub exponential_retry_policy: Option<ExponentialRetryPolicy>,
    /// Which of the two counts.
    #[serde(rename = "type", deserialize_with = "lenient_enum")]
    pub policy_type: GroupRetryPolicyType,
}

/// Delays by attempt, in milliseconds; the last one repeats. Source: CustomizedRetryPolicy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CustomizedRetryPolicy {
    /// Delay before each attempt.
    pub next: Vec<i64>,
}

impl Default for CustomizedRetryPolicy {
    fn default() -> Self {
        const SECOND: i64 = 1000;
        const MINUTE: i64 = 60 * SECOND;
        let seconds = [1, 5, 10, 30].map(|count| count * SECOND);
        let minutes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30, 60, 120].map(|count| count * MINUTE);
        CustomizedRetryPolicy { next: seconds.into_iter().chain(minutes).collect() }
    }
}

/// Delays `initial * multiplier^n` up to `max`, in milliseconds. Source: ExponentialRetryPolicy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExponentialRetryPolicy {
    /// First delay.
    pub initial: i64,
    /// Longest delay.
    pub max: i64,
    /// Factor.
    pub multiplier: i64,
}

impl Default for ExponentialRetryPolicy {
    fn default() -> Self {
        ExponentialRetryPolicy { initial: 5_000, max: 7_200_000, multiplier: 2 }
    }
}

/// A subscription that is part of a group's configuration. Source: SimpleSubscriptionData.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SimpleSubscriptionData {
    /// Filter expression.
    pub expression: Option<String>,
    /// `TAG` or `SQL92`.
    pub expression_type: Option<String>,
    /// Topic.
    pub topic: Option<String>,
    /// Version, a time in milliseconds.
    pub version: i64,
}

/// Configuration of one consumer group. Source: SubscriptionGroupConfig.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionGroupConfig {
    /// Attributes.
    pub attributes: BTreeMap<String, String>,
    /// Broker id to read from.
    pub broker_id: i64,
    /// Whether broadcast consumption is allowed.
    pub consume_broadcast_enable: bool,
    /// Whether the group may consume at all.
    pub consume_enable: bool,
    /// Whether a new group may start at the minimum offset.
    pub consume_from_min_enable: bool,
    /// Whether POP consumption of this group is orderly.
    pub consume_message_orderly: bool,
    /// Minutes after which a message counts as not consumed.
    pub consume_timeout_minute: i32,
    /// Name.
    pub group_name: String,
    /// Delays between redeliveries.
    pub group_retry_policy: GroupRetryPolicy,
    /// Flag bits.
    pub group_sys_flag: i32,
    /// Whether members are told when others come and go (code 40).
    pub notify_consumer_ids_changed_enable: bool,
    /// Redeliveries before the dead-letter queue.
    pub retry_max_times: i32,
    /// Queues of the retry topic.
    pub retry_queue_nums: i32,
    /// Subscriptions fixed by the operator.
    pub subscription_data_set: Option<Vec<SimpleSubscriptionData>>,
    /// Broker id suggested to a consumer that reads old messages.
    pub which_broker_when_consume_slowly: i64,
    /// Members that this version does not know, kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

impl Default for SubscriptionGroupConfig {
    fn default() -> Self {
        SubscriptionGroupConfig {
            attributes: BTreeMap::new(),
            broker_id: 0,
            consume_broadcast_enable: true,
            consume_enable: true,
            consume_from_min_enable: true,
            consume_message_orderly: false,
            consume_timeout_minute: 15,
            group_name: String::new(),
            group_retry_policy: GroupRetryPolicy::default(),
            group_sys_flag: 0,
            notify_consumer_ids_changed_enable: true,
            retry_max_times: 16,
            retry_queue_nums: 1,
            subscription_data_set: None,
            which_broker_when_consume_slowly: 1,
            unknown: BTreeMap::new(),
        }
    }
}

impl SubscriptionGroupConfig {
    /// A group with this name and the class defaults.
    pub fn new(group_name: impl Into<String>) -> Self {
        SubscriptionGroupConfig { group_name: group_name.into(), ..SubscriptionGroupConfig::default() }
    }
}

/// All groups of a broker: `subscriptionGroup.json`, answer of 201. Source: SubscriptionGroupWrapper.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionGroupWrapper {
    /// Version of the table.
    pub data_version: DataVersion,
    /// Group to topic to bit set; bit 2 (value 4) forbids reading the topic.
    pub forbidden_table: BTreeMap<String, BTreeMap<String, i32>>,
    /// Group name to configuration.
    pub subscription_group_table: BTreeMap<String, SubscriptionGroupConfig>,
}

/// Body of 225. Source: SubscriptionGroupList.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionGroupList {
    /// The groups to create or change.
    pub group_config_list: Vec<SubscriptionGroupConfig>,
}
