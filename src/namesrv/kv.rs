//! The KV configuration: namespace to key to value, the only state of a name server that outlives it.
//! Source: KVConfigManager, KVConfigSerializeWrapper.

use super::limits::{MAX_KV_ENTRIES, MAX_KV_TEXT_LENGTH};
use ringmq_protocol::json::{self, JsonError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Namespace whose keys are topics and whose values list brokers and queue counts (`broker-a:4;broker-b:4`).
pub const NAMESPACE_ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

/// The tables; also the form of `kvConfig.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KvConfig {
    config_table: BTreeMap<String, BTreeMap<String, String>>,
}

/// A pair that cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The table is full.
    #[error("the KV configuration holds {MAX_KV_ENTRIES} keys already")]
    Full,
    /// Namespace, key or value is too long.
    #[error("namespaces, keys and values end at {MAX_KV_TEXT_LENGTH} bytes")]
    TooLong,
}

impl KvConfig {
    /// Reads `kvConfig.json`.
    pub fn from_file(bytes: &[u8]) -> Result<Self, JsonError> {
        json::from_slice(bytes)
    }

    /// The content of `kvConfig.json`.
    pub fn to_file(&self) -> Vec<u8> {
        json::to_fastjson(self)
    }

    /// Entries, a namespace without any counting as one.
    pub fn count(&self) -> usize {
        self.config_table.values().map(|table| table.len().max(1)).sum()
    }

    /// Stores a pair.
    pub fn put(&mut self, namespace: &str, key: &str, value: &str) -> Result<(), KvError> {
        if [namespace, key, value].iter().any(|text| text.len() > MAX_KV_TEXT_LENGTH) {
            return Err(KvError::TooLong);
        }
        if self.count() >= MAX_KV_ENTRIES && self.get(namespace, key).is_none() {
            return Err(KvError::Full);
        }
        self.config_table.entry(namespace.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// The value of a key.
    pub fn get(&self, namespace: &str, key: &str) -> Option<&str> {
        self.config_table.get(namespace)?.get(key).map(String::as_str)
    }

    /// Removes a key; its namespace stays, as in Java.
    pub fn delete(&mut self, namespace: &str, key: &str) {
        if let Some(table) = self.config_table.get_mut(namespace) {
            table.remove(key);
        }
    }

    /// All pairs of a namespace.
    pub fn namespace(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.config_table.get(namespace)
    }
}
