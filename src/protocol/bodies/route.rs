//! Routes and clusters, as the name server answers them.

use crate::json::{Value, to_fastjson, to_standard};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Queues of a topic on one broker group. Source: QueueData.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueueData {
    /// Broker group.
    pub broker_name: String,
    /// Permission bits.
    pub perm: i32,
    /// Queues for consumers.
    pub read_queue_nums: i32,
    /// Flag bits of the topic.
    pub topic_sys_flag: i32,
    /// Queues for producers.
    pub write_queue_nums: i32,
}

/// Addresses of one broker group. Source: BrokerData.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerData {
    /// Broker id (0 = master) to `ip:port`.
    pub broker_addrs: BTreeMap<i64, String>,
    /// Name of the group.
    pub broker_name: String,
    /// Cluster.
    pub cluster: String,
    /// Whether the slave with the smallest id may stand in for a lost master.
    pub enable_acting_master: bool,
    /// Zone, if the broker names one.
    pub zone_name: Option<String>,
}

/// Answer of GET_ROUTEINFO_BY_TOPIC (105). Source: TopicRouteData.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicRouteData {
    /// Broker groups that serve the topic.
    pub broker_datas: Vec<BrokerData>,
    /// Broker address to filter servers; a relic.
    pub filter_server_table: BTreeMap<String, Vec<String>>,
    /// `broker-a:4;broker-b:4` for globally ordered topics.
    pub order_topic_conf: Option<String>,
    /// Queues by broker group.
    pub queue_datas: Vec<QueueData>,
    /// Static topics only; opaque here.
    pub topic_queue_mapping_by_broker: Option<BTreeMap<String, Value>>,
}

impl TopicRouteData {
    /// The form for clients before 4.9.4: ids unquoted.
    pub fn encode_legacy(&self) -> Vec<u8> {
        to_fastjson(self)
    }

    /// The standard JSON form for later clients. Without white space: Go clients split `brokerAddrs` by hand.
    pub fn encode_standard(&self) -> Vec<u8> {
        to_standard(self)
    }
}

/// Answer of GET_BROKER_CLUSTER_INFO (106). Source: ClusterInfo.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterInfo {
    /// Broker group to its addresses.
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    /// Cluster to broker groups; a set.
    pub cluster_addr_table: BTreeMap<String, Vec<String>>,
}

/// Members of one broker group. Source: BrokerMemberGroup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerMemberGroup {
    /// Broker id to `ip:port`.
    pub broker_addrs: BTreeMap<i64, String>,
    /// Name of the group.
    pub broker_name: String,
    /// Cluster.
    pub cluster: String,
}

/// Answer of GET_BROKER_MEMBER_GROUP (901). Source: GetBrokerMemberGroupResponseBody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetBrokerMemberGroupResponseBody {
    /// The group.
    pub broker_member_group: BrokerMemberGroup,
}
