//! The process's configuration as the control plane sees it: its settings at the start, and codes 25 and 26.

use std::time::Duration;

use super::settings::{ChangedKey, ConfigAccess, ConfigError, ControlConfig};
use crate::config::{self, Config, Effect};

impl From<&Config> for ControlConfig {
    /// The settings of a broker with this configuration: at its start, and after each live change.
    fn from(config: &Config) -> ControlConfig {
        ControlConfig {
            auto_create_topic: config.auto_create_topic_enable,
            auto_create_group: config.auto_create_subscription_group,
            default_topic_queues: int(config.default_topic_queue_nums.into()),
            cluster_topic: config.cluster_topic_enable,
            broker_topic: config.broker_topic_enable,
            trace_topic: config.trace_topic_enable,
            trace_topic_name: config.msg_trace_topic_name.clone(),
            protect_system_topics: config.validate_system_topic_when_update_topic,
            clear_retry_topics: config.clear_retry_topic_when_delete_topic,
            notify_consumers: config.notify_consumer_ids_changed_enable,
            reject_pull_consumers: config.reject_pull_consumer_enable,
            server_side_reset: config.use_server_side_reset_offset,
            broker_permission: int(config.broker_permission.into()),
            client_timeout: Duration::from_millis(config.channel_expired_timeout),
            register_period: Duration::from_millis(config.register_name_server_period),
            offset_write_period: Duration::from_millis(config.flush_consumer_offset_interval),
            accept_sends_from_ms: super::java_millis(config.start_accept_send_request_time_stamp),
            default_query_messages: int(config.default_query_max_num.into()),
            max_query_messages: int(config.max_msgs_num_batch.into()),
            max_topics: usize::try_from(config.max_topics).unwrap_or(usize::MAX),
            max_queues: config.max_queues,
            max_groups: usize::try_from(config.max_groups).unwrap_or(usize::MAX),
        }
    }
}

fn int(value: u64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// The configuration in use, owned by the control thread.
#[derive(Debug)]
pub struct LiveConfig {
    config: Config,
    processors: u64,
    home: String,
}

impl LiveConfig {
    /// `processors` and `home` fill in defaults that RocketMQ derives from the machine.
    pub fn new(config: Config, processors: u64, home: impl Into<String>) -> LiveConfig {
        LiveConfig { config, processors, home: home.into() }
    }
}

impl ConfigAccess for LiveConfig {
    fn render(&self) -> String {
        self.config.broker_config_text(self.processors, &self.home)
    }

    fn apply(&mut self, text: &str) -> Result<Vec<ChangedKey>, ConfigError> {
        let changes = self.config.apply_live(text).map_err(|error| match error {
            config::ConfigError::NoPermission { .. } => ConfigError::Blacklisted,
            config::ConfigError::Syntax { .. } => ConfigError::Malformed,
            other => ConfigError::Refused(other.to_string()),
        })?;
        let changed = changes.into_iter().map(|change| ChangedKey {
            note: match change.effect {
                Effect::Live => None,
                Effect::NeedsRestart => Some(format!("{} is kept and takes effect after a restart", change.key)),
                Effect::Meaningless(reason) => Some(format!("{} is kept but has no effect: {reason}", change.key)),
            },
            key: change.key.to_owned(),
            value: change.new,
            in_use: change.effect == Effect::Live,
        });
        Ok(changed.collect())
    }

    fn file(&self) -> Option<String> {
        Some(self.config.live_text())
    }

    fn current(&self) -> Option<&Config> {
        Some(&self.config)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ask_body, control, outcome};
    use super::*;
    use crate::config::Layers;
    use ringmq_protocol::codes::request;

    /// Goal: a change by code 25 reaches the tables if its key is live, and the file in any case; the black list holds.
    /// Method: a live key, one that needs a restart, a forbidden and a bad one, against the real configuration.
    #[test]
    fn changes_reach_the_tables() {
        let config = Layers::default().build().unwrap();
        let mut control = control().with_config_access(Box::new(LiveConfig::new(config, 2, "/home")));
        let text = "autoCreateTopicEnable=false\nflushConsumerOffsetInterval=1000\nmax_groups=9\n";
        assert_eq!(ask_body(&mut control, request::UPDATE_BROKER_CONFIG, text).code, 0);
        assert!(!control.config.auto_create_topic);
        assert_eq!((control.config.max_groups, control.config.offset_write_period), (9, Duration::from_secs(5)));
        let file = control.config_file().unwrap();
        assert!(file.contains("auto_create_topic_enable=false\n"), "{file}");
        assert!(file.contains("flush_consumer_offset_interval=1000\n"), "{file}");
        // RocketMQ answers 0 without a word; here the remark says what did not change at once.
        let text = "autoCreateTopicEnable=true\nlistenPort=12000\nsendMessageThreadPoolNums=9\n";
        let answer = ask_body(&mut control, request::UPDATE_BROKER_CONFIG, text);
        let remark = answer.remark.as_deref().unwrap();
        assert_eq!(answer.code, 0);
        assert!(remark.starts_with("listenPort is kept and takes effect after a restart; "), "{remark}");
        assert!(remark.contains("sendMessageThreadPoolNums is kept but has no effect: "), "{remark}");
        let answer = ask_body(&mut control, request::UPDATE_BROKER_CONFIG, "brokerConfigPath=/x");
        assert_eq!(outcome(&answer), (16, "Can not update config in black list."));
        assert_eq!(ask_body(&mut control, request::UPDATE_BROKER_CONFIG, "autoCreateTopicEnable=perhaps").code, 1);
    }

    /// Goal: what the control plane takes for defaults are the configuration's. Method: both compared.
    #[test]
    fn defaults_agree() {
        let config = Layers::default().build().unwrap();
        assert_eq!(ControlConfig::from(&config), ControlConfig::default());
    }
}
