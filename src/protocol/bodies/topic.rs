//! Topics: their configuration and the tables of it.

use super::DataVersion;
use crate::json::{Value, lenient_enum};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Permission bit: consumers may read.
pub const PERM_READ: i32 = 4;
/// Permission bit: producers may write.
pub const PERM_WRITE: i32 = 2;
/// Permission bit: other topics may be created from this one.
pub const PERM_INHERIT: i32 = 1;

/// Topic system flag: a unit topic. Source: TopicSysFlag.
pub const TOPIC_FLAG_UNIT: i32 = 1;
/// Topic system flag: a topic that a unit subscribes to. Source: TopicSysFlag.
pub const TOPIC_FLAG_UNIT_SUB: i32 = 2;

crate::json_enum! {
    /// How many tags a message of the topic may carry; unused by brokers. Source: TopicFilterType.
    #[derive(Default)]
    pub enum TopicFilterType {
        /// One tag.
        #[default]
        SingleTag = "SINGLE_TAG",
        /// Several tags.
        MultiTag = "MULTI_TAG",
    }
}

/// Configuration of one topic. Source: TopicConfig.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicConfig {
    /// Attributes, without the `+` of requests.
    pub attributes: BTreeMap<String, String>,
    /// Whether queues of this topic are used in a global order.
    pub order: bool,
    /// Permission bits.
    pub perm: i32,
    /// Number of queues that consumers see.
    pub read_queue_nums: i32,
    /// Tag rule.
    #[serde(deserialize_with = "lenient_enum")]
    pub topic_filter_type: TopicFilterType,
    /// Name.
    pub topic_name: String,
    /// Flag bits.
    pub topic_sys_flag: i32,
    /// Number of queues that producers see.
    pub write_queue_nums: i32,
    /// Members that this version does not know, kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

impl Default for TopicConfig {
    /// The Java class: 16 queues, readable and writable.
    fn default() -> Self {
        TopicConfig {
            attributes: BTreeMap::new(),
            order: false,
            perm: PERM_READ | PERM_WRITE,
            read_queue_nums: 16,
            topic_filter_type: TopicFilterType::SingleTag,
            topic_name: String::new(),
            topic_sys_flag: 0,
            write_queue_nums: 16,
            unknown: BTreeMap::new(),
        }
    }
}

impl TopicConfig {
    /// A topic with this name and the class defaults.
    pub fn new(topic_name: impl Into<String>) -> Self {
        TopicConfig { topic_name: topic_name.into(), ..TopicConfig::default() }
    }

    /// Whether consumers may read.
    pub fn is_readable(&self) -> bool {
        self.perm & PERM_READ != 0
    }

    /// Whether producers may write.
    pub fn is_writable(&self) -> bool {
        self.perm & PERM_WRITE != 0
    }
}

/// All topics with their static-topic mappings: answer of 21, part of a registration. The mappings are opaque here.
/// Source: TopicConfigAndMappingSerializeWrapper.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicConfigAndMapping {
    /// Version of the topic table.
    pub data_version: DataVersion,
    /// Version of the mappings.
    pub mapping_data_version: DataVersion,
    /// Topic name to configuration.
    pub topic_config_table: BTreeMap<String, TopicConfig>,
    /// Topic to the detailed mapping.
    pub topic_queue_mapping_detail_map: BTreeMap<String, Value>,
    /// Topic to the mapping as the name server keeps it.
    pub topic_queue_mapping_info_map: BTreeMap<String, Value>,
}
