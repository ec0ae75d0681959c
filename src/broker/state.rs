//! The state files `topics.json`, `subscriptionGroup.json` and `consumerOffset.json`, in the forms of the Java broker.
//! Source: ConfigManager, TopicConfigManager, SubscriptionGroupManager, ConsumerOffsetManager.
//!
//! Invariants: this file makes and reads bytes; reading, renaming and syncing files is the caller's. Data versions
//! continue from the files. Members that this version does not know are written back. A file that cannot be read leaves
//! its table as it was, so that the caller can go on with the backup.

use std::collections::{BTreeMap, BTreeSet};

use ringmq_protocol::bodies::{DataVersion, SubscriptionGroupConfig, TopicConfig};
use ringmq_protocol::json::{JsonError, Value, from_slice, to_fastjson_pretty};
use serde::{Deserialize, Serialize};

use super::Control;

/// Topics.
pub const TOPICS_FILE: &str = "topics.json";
/// Subscription groups.
pub const GROUPS_FILE: &str = "subscriptionGroup.json";
/// Committed offsets.
pub const OFFSETS_FILE: &str = "consumerOffset.json";

/// A state file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read {file}: {source}")]
pub struct StateError {
    /// Which file.
    pub file: &'static str,
    /// Why.
    pub source: JsonError,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TopicsOut<'a> {
    data_version: &'a DataVersion,
    topic_config_table: BTreeMap<&'a str, &'a TopicConfig>,
    #[serde(flatten)]
    unknown: &'a BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TopicsIn {
    data_version: DataVersion,
    topic_config_table: BTreeMap<String, TopicConfig>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupsOut<'a> {
    data_version: &'a DataVersion,
    forbidden_table: &'a BTreeMap<String, BTreeMap<String, i32>>,
    subscription_group_table: BTreeMap<&'a str, &'a SubscriptionGroupConfig>,
    #[serde(flatten)]
    unknown: &'a BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct GroupsIn {
    data_version: DataVersion,
    forbidden_table: BTreeMap<String, BTreeMap<String, i32>>,
    subscription_group_table: BTreeMap<String, SubscriptionGroupConfig>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

/// The form of the offsets, in the file and in the answer to 43.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OffsetsOut<'a> {
    data_version: &'a DataVersion,
    group_topic_map: BTreeMap<&'a str, &'a BTreeSet<String>>,
    offset_table: &'a BTreeMap<String, BTreeMap<i32, i64>>,
    #[serde(flatten)]
    unknown: &'a BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OffsetsIn {
    data_version: DataVersion,
    offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

fn read<T: serde::de::DeserializeOwned>(file: &'static str, bytes: &[u8]) -> Result<T, StateError> {
    from_slice(bytes).map_err(|source| StateError { file, source })
}

/// Whether a state file has its form; other names are fine as they are.
///
/// # Errors
/// What is wrong with it.
pub fn check(name: &str, bytes: &[u8]) -> Result<(), StateError> {
    match name {
        TOPICS_FILE => read::<TopicsIn>(TOPICS_FILE, bytes).map(drop),
        GROUPS_FILE => read::<GroupsIn>(GROUPS_FILE, bytes).map(drop),
        OFFSETS_FILE => read::<OffsetsIn>(OFFSETS_FILE, bytes).map(drop),
        _ => Ok(()),
    }
}

impl Control {
    /// Takes over state files, given as names and contents; other names are skipped. Meant for the start, before the
    /// first request. Files before one that fails stay taken over.
    ///
    /// # Errors
    /// A file that is not of its form; its table is unchanged.
    pub fn load_state<'a>(&mut self, files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<(), StateError> {
        for (name, bytes) in files {
            match name {
                TOPICS_FILE => {
                    let file: TopicsIn = read(TOPICS_FILE, bytes)?;
                    self.topics.load(file.data_version, file.topic_config_table, file.unknown);
                }
                GROUPS_FILE => {
                    let file: GroupsIn = read(GROUPS_FILE, bytes)?;
                    let (groups, forbidden) = (file.subscription_group_table, file.forbidden_table);
                    groups.keys().for_each(|group| self.stale_group(group));
                    self.groups.load(file.data_version, groups, forbidden, file.unknown);
                }
                OFFSETS_FILE => {
                    let mut file: OffsetsIn = read(OFFSETS_FILE, bytes)?;
                    // Derived from the table, and made anew for each write.
                    file.unknown.remove("groupTopicMap");
                    self.offsets.load(file.data_version, file.offset_table);
                    self.unknown_offset_members = file.unknown;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// State files that must be written now: topics and groups after each change, offsets once per period. Each is
    /// returned once per change; a caller that fails to write one must keep and retry it.
    pub fn dirty_files(&mut self, steady_ms: u64) -> Vec<(&'static str, Vec<u8>)> {
        let mut files = self.dirty_tables();
        files.extend(self.dirty_offsets(steady_ms));
        files
    }

    /// Those of topics and groups.
    pub fn dirty_tables(&mut self) -> Vec<(&'static str, Vec<u8>)> {
        let mut files = Vec::new();
        if self.topics.take_dirty() {
            let out = TopicsOut {
                data_version: self.topics.version(),
                topic_config_table: self.topics.sorted(),
                unknown: &self.topics.unknown,
            };
            files.push((TOPICS_FILE, to_fastjson_pretty(&out)));
        }
        if self.groups.take_dirty() {
            let groups = self.groups.sorted().iter();
            let out = GroupsOut {
                data_version: self.groups.version(),
                forbidden_table: self.groups.forbidden_table(),
                subscription_group_table: groups.map(|(name, config)| (name.as_str(), &**config)).collect(),
                unknown: &self.groups.unknown,
            };
            files.push((GROUPS_FILE, to_fastjson_pretty(&out)));
        }
        files
    }

    /// That of the offsets.
    pub fn dirty_offsets(&mut self, steady_ms: u64) -> Option<(&'static str, Vec<u8>)> {
        let period_ms = self.config.offset_write_period.as_millis().try_into().unwrap_or(u64::MAX);
        let is_due = self.offsets.take_due(steady_ms, period_ms);
        is_due.then(|| (OFFSETS_FILE, to_fastjson_pretty(&self.offsets_file())))
    }

    /// Everything that has changed since it was last written, whatever the periods: for the shut-down.
    pub fn last_files(&mut self) -> Vec<(&'static str, Vec<u8>)> {
        self.dirty_files(u64::MAX)
    }

    pub(crate) fn offsets_file(&self) -> OffsetsOut<'_> {
        OffsetsOut {
            data_version: self.offsets.version(),
            group_topic_map: self.offsets.topics_by_group(),
            offset_table: self.offsets.rows(),
            unknown: &self.unknown_offset_members,
        }
    }
}
