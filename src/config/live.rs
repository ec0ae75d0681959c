//! Changes while running (codes 25 and 318) and their file, `live-config` in our folder of the data directory.
//!
//! Invariants: a text is applied whole or not at all; typed fields change only for live keys; what was changed is in
//! [`Config::live_text`] and so survives a restart. The caller writes that text, because only one thread writes files.

use super::error::{ConfigError, Source};
use super::keys::{self, Change, Entry, Service};
use super::{Config, check, properties, settings};

/// File name in our folder of the data directory.
pub const FILE_NAME: &str = "live-config";

/// Keys that are never changed from outside, as in RocketMQ; the value of `configBlackList` adds to them.
const BROKER_BLACK_LIST: &[&str] = &["brokerConfigPath", "rocketmqHome", "configBlackList"];
/// The same for a name server.
const NAMESRV_BLACK_LIST: &[&str] = &["configStorePath", "kvConfigPath", "rocketmqHome", "configBlackList"];

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// In use.
    Live,
    /// Stored, in use after a restart.
    NeedsRestart,
    /// Stored and shown to tools, but the key means nothing here, for this reason.
    Meaningless(&'static str),
}

/// One key that got another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedChange {
    /// RocketMQ's spelling, or ours if there is none.
    pub key: &'static str,
    /// Value before.
    pub old: String,
    /// Value now.
    pub new: String,
    /// What became of it.
    pub effect: Effect,
}

impl Config {
    /// Applies a properties text sent to the broker (code 25). Unknown keys are passed over, as in RocketMQ.
    pub fn apply_live(&mut self, properties_text: &str) -> Result<Vec<AppliedChange>, ConfigError> {
        self.apply_live_to(Service::Broker, properties_text)
    }

    /// Applies a properties text sent to either server (codes 25 and 318).
    pub fn apply_live_to(&mut self, service: Service, text: &str) -> Result<Vec<AppliedChange>, ConfigError> {
        let pairs = settings::parse_properties(text, &Source::Live)?;
        let black_list = self.black_list(service);
        if let Some(pair) = pairs.iter().find(|pair| black_list.contains(&folded(service, &pair.key))) {
            return Err(ConfigError::NoPermission { key: pair.key.clone() });
        }
        let mut next = self.settings.clone();
        let mut changes = Vec::new();
        for properties::Pair { key: name, value, .. } in &pairs {
            let Some(entry) = keys::find(service, name) else { continue };
            let old = current(&next, entry);
            let mut trial = next.clone();
            trial.set(service, name, value, &Source::Live)?;
            let new = current(&trial, entry);
            if new == old {
                continue;
            }
            let effect = match entry {
                Entry::Used(key) => match key.change {
                    Change::Live => Effect::Live,
                    Change::Restart => Effect::NeedsRestart,
                    Change::Fixed => return Err(ConfigError::Fixed { key: key.public_name() }),
                },
                Entry::Ignored(key) => Effect::Meaningless(key.reason.text()),
            };
            next = trial;
            changes.push((entry, AppliedChange { key: entry.public_name(), old, new, effect }));
        }
        let wanted = check::build(next)?;
        for (entry, change) in &changes {
            if let (Entry::Used(key), Effect::Live) = (entry, change.effect) {
                self.take(key.name, &wanted);
            }
        }
        self.settings = wanted.settings;
        Ok(changes.into_iter().map(|(_, change)| change).collect())
    }

    /// Contents of the file of live changes: every value that was changed while running, now or before.
    pub fn live_text(&self) -> String {
        let used = self.settings.all_used().filter_map(|(name, setting)| {
            let key = keys::used().iter().find(|key| key.name == name)?;
            Some((key.name, setting))
        });
        let live = used.chain(self.settings.all_ignored()).filter(|(_, setting)| setting.source == Source::Live);
        let mut lines: Vec<String> = live.map(|(name, setting)| properties::line(name, &setting.text)).collect();
        lines.sort_unstable();
        lines.insert(
            0,
            "# Changes made while running. They win over file and command line; delete a line to undo it.".into(),
        );
        lines.join("\n") + "\n"
    }

    fn black_list(&self, service: Service) -> Vec<String> {
        let fixed = match service {
            Service::Broker => BROKER_BLACK_LIST,
            Service::Namesrv => NAMESRV_BLACK_LIST,
        };
        let configured = self.settings.text("config_black_list").split(';').map(str::trim);
        let listed = fixed.iter().copied().chain(configured).filter(|name| !name.is_empty());
        listed.map(|name| folded(service, name)).collect()
    }
}

/// One spelling per key, so that a black list cannot be passed by the other one.
fn folded(service: Service, name: &str) -> String {
    keys::find(service, name).map_or_else(|| name.into(), |entry| entry.public_name().to_string())
}

fn current(settings: &settings::Settings, entry: Entry) -> String {
    match entry {
        Entry::Used(key) => settings.text(key.name).to_string(),
        Entry::Ignored(key) => {
            let set = settings.ignored(key.java).map(|setting| setting.text.clone());
            set.or_else(|| key.default.map(str::to_string)).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn config() -> Config {
        Layers::default().build().expect("defaults")
    }

    #[test]
    fn live_keys_change_at_once_and_others_wait() {
        // Goal: each change says what became of it. Method: a live, a restart, a meaningless, an unknown and an equal
        // value.
        let mut config = config();
        let text =
            "autoCreateTopicEnable=false\nlistenPort=12000\nsendMessageThreadPoolNums=9\nnoSuchKey=1\ndeleteWhen=04\n";
        let changes = config.apply_live(text).expect("applies");
        let seen: Vec<_> = changes.iter().map(|change| (change.key, change.new.as_str(), change.effect)).collect();
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[0], ("autoCreateTopicEnable", "false", Effect::Live));
        assert_eq!(seen[1], ("listenPort", "12000", Effect::NeedsRestart));
        assert!(matches!(seen[2], ("sendMessageThreadPoolNums", "9", Effect::Meaningless(_))));
        assert!(!config.auto_create_topic_enable);
        assert_eq!(config.broker_port, 10_911, "in use until the restart");
        let again = Layers { live: Some(config.live_text()), ..Layers::default() }.build().expect("own file");
        assert_eq!(again.broker_port, 12_000);
        assert!(!again.auto_create_topic_enable);
        assert_eq!(again.live_text(), config.live_text());
    }

    #[test]
    fn refused_texts_change_nothing() {
        // Goal: a text is applied whole or not at all. Method: a good line together with each kind of bad one.
        let mut config = config();
        for bad in ["listenPort=x", "aclEnable=true", "storePathRootDir=/elsewhere", "maxMessageSize=100 MiB", "a=\\u1"]
        {
            let text = format!("autoCreateTopicEnable=false\n{bad}");
            assert!(config.apply_live(&text).is_err(), "{bad}");
            assert!(config.auto_create_topic_enable, "{bad}");
        }
        assert!(!config.live_text().contains('='));
    }

    #[test]
    fn black_list_holds_in_both_spellings() {
        // Goal: listed keys are refused as "no permission". Method: built-in ones, a configured one spelled our way.
        let sets = vec!["configBlackList=configBlackList;brokerConfigPath;maxMessageSize".to_string()];
        let mut config = Layers { sets, ..Layers::default() }.build().expect("valid");
        for text in
            ["brokerConfigPath=/x", "rocketmqHome=/x", "configBlackList=", "config_black_list=", "max_message_size=1"]
        {
            assert!(matches!(config.apply_live(text), Err(ConfigError::NoPermission { .. })), "{text}");
        }
        let namesrv = config.apply_live_to(Service::Namesrv, "kvConfigPath=/x");
        assert!(matches!(namesrv, Err(ConfigError::NoPermission { .. })));
        let changes = config.apply_live_to(Service::Namesrv, "listenPort=9999").expect("not listed");
        assert_eq!(changes[0].key, "namesrv_port");
    }
}
