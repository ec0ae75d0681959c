//! Settings of the name server, under the keys of `namesrv.conf`. Source: NamesrvConfig.

use std::collections::BTreeMap;

/// Keys that cannot be changed by request 318, beside whatever `configBlackList` adds.
const FIXED_BLACK_LIST: [&str; 4] = ["configBlackList", "configStorePath", "kvConfigPath", "rocketmqHome"];

/// Why a change of settings (318) was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigUpdateError {
    /// The text is not `key=value` lines.
    #[error("string2Properties error")]
    Malformed,
    /// A key that may not be changed.
    #[error("Can not update config in black list.")]
    BlackListed,
}

macro_rules! namesrv_config {
    ($($(#[$doc:meta])* $field:ident $key:literal: $type:ty = $default:expr;)+) => {
        /// Settings of the name server.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct NamesrvConfig {
            $($(#[$doc])* pub $field: $type,)+
        }

        impl Default for NamesrvConfig {
            fn default() -> Self {
                NamesrvConfig { $($field: $default,)+ }
            }
        }

        impl NamesrvConfig {
            /// Sets one key from its text. False if the key is unknown or the text does not parse: Java skips both.
            pub fn set(&mut self, key: &str, text: &str) -> bool {
                match key {
                    $($key => match text.parse() {
                        Ok(value) => {
                            self.$field = value;
                            true
                        }
                        Err(_) => false,
                    },)+
                    _ => false,
                }
            }

            /// All settings as `key=value` lines, in key order, and what `others` has beside them.
            pub fn to_properties(&self, others: &BTreeMap<String, String>) -> String {
                let mut values = others.clone();
                $(values.insert($key.to_owned(), self.$field.to_string());)+
                values.iter().fold(String::new(), |text, (key, value)| text + key + "=" + value + "\n")
            }
        }
    };
}

namesrv_config! {
    /// More keys that request 318 may not change, separated by `;`.
    config_black_list "configBlackList": String = "configBlackList;configStorePath;kvConfigPath".to_owned();
    /// File that keeps the settings.
    config_store_path "configStorePath": String = String::new();
    /// Whether a full registration removes topics that it does not name.
    delete_topic_with_broker_registration "deleteTopicWithBrokerRegistration": bool = false;
    /// Whether 206 is answered.
    enable_all_topic_list "enableAllTopicList": bool = true;
    /// Whether 224, 304 and 311 to 313 are answered.
    enable_topic_list "enableTopicList": bool = true;
    /// File that keeps the KV configuration.
    kv_config_path "kvConfigPath": String = String::new();
    /// Whether routes are refused for a while after the start.
    need_wait_for_service "needWaitForService": bool = false;
    /// Whether brokers are told when the smallest id of their group changes (905).
    notify_min_broker_id_changed "notifyMinBrokerIdChanged": bool = false;
    /// Whether routes carry the order configuration of their topic.
    order_message_enable "orderMessageEnable": bool = false;
    /// Whether a registration is answered with the order configuration.
    return_order_topic_config_to_broker "returnOrderTopicConfigToBroker": bool = true;
    /// Time between two scans for dead brokers, in milliseconds.
    scan_not_active_broker_interval_ms "scanNotActiveBrokerInterval": u64 = 5_000;
    /// Whether routes show the smallest slave as master when the master is gone.
    support_acting_master "supportActingMaster": bool = false;
    /// How long routes are refused after the start, in seconds.
    wait_seconds_for_service "waitSecondsForService": u64 = 45;
}

impl NamesrvConfig {
    /// Applies the body of request 318. Unknown keys and values that do not parse are skipped, as in Java. Returns what was set.
    pub fn update<'a>(&mut self, text: &'a str) -> Result<Vec<(&'a str, &'a str)>, ConfigUpdateError> {
        let mut changes = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            let (key, value) = line.split_once('=').ok_or(ConfigUpdateError::Malformed)?;
            changes.push((key.trim(), value.trim()));
        }
        if changes.iter().any(|(key, _)| self.is_black_listed(key)) {
            return Err(ConfigUpdateError::BlackListed);
        }
        changes.retain(|(key, value)| self.set(key, value));
        Ok(changes)
    }

    fn is_black_listed(&self, key: &str) -> bool {
        FIXED_BLACK_LIST.contains(&key) || self.config_black_list.split(';').any(|listed| listed.trim() == key)
    }
}
