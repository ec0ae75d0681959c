//! Values as text, with where each came from. Later layers overwrite earlier ones:
//! defaults < environment < configuration file < `broker.conf` < `--set` < options of their own < live changes.
//!
//! Invariant: every stored text of a used key is canonical for its kind.

use std::collections::BTreeMap;

use toml::de::DeTable;

use super::error::{ConfigError, Mistakes, Place, Source};
use super::keys::{self, Entry, JavaKey, Key, Service};
use super::properties;
use super::values::Kind;

/// A text and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Canonical for used keys, as written for ignored ones.
    pub text: String,
    /// The layer that set it.
    pub source: Source,
}

/// All values that differ from the defaults.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    used: BTreeMap<&'static str, Setting>,
    ignored: BTreeMap<&'static str, Setting>,
}

impl Settings {
    /// Text of a used key: what was set, or its default. Empty for a name that is not a used key.
    pub fn text(&self, name: &str) -> &str {
        let default = || keys::used().iter().find(|key| key.name == name).map_or("", |key| key.default);
        self.used.get(name).map_or_else(default, |setting| setting.text.as_str())
    }

    /// Where a used key's value came from.
    pub fn source(&self, name: &str) -> &Source {
        self.used.get(name).map_or(&Source::Default, |setting| &setting.source)
    }

    /// What was set for a key of RocketMQ's that means nothing here.
    pub fn ignored(&self, java: &str) -> Option<&Setting> {
        self.ignored.get(java)
    }

    /// All ignored keys that were set.
    pub fn all_ignored(&self) -> impl Iterator<Item = (&'static str, &Setting)> {
        self.ignored.iter().map(|(name, setting)| (*name, setting))
    }

    /// All used keys that were set.
    pub fn all_used(&self) -> impl Iterator<Item = (&'static str, &Setting)> {
        self.used.iter().map(|(name, setting)| (*name, setting))
    }

    /// Sets one key by either spelling.
    pub fn set(&mut self, service: Service, name: &str, value: &str, source: &Source) -> Result<Entry, ConfigError> {
        self.set_at(service, name, value, &Place::from(source))
    }

    fn set_at(&mut self, service: Service, name: &str, value: &str, place: &Place) -> Result<Entry, ConfigError> {
        let name = name.trim();
        let unknown =
            || ConfigError::UnknownKey { key: name.into(), nearest: keys::nearest(name), origin: place.clone() };
        let entry = keys::find(service, name).ok_or_else(unknown)?;
        match entry {
            Entry::Used(key) => {
                let text = key.kind.canonical(value).map_err(|problem| ConfigError::BadValue {
                    key: name.into(),
                    value: value.into(),
                    origin: place.clone(),
                    problem,
                })?;
                self.set_used(key, text, place.source.clone());
            }
            Entry::Ignored(key) => {
                let value = Kind::Text.canonical(value).map_err(|problem| ConfigError::BadValue {
                    key: name.into(),
                    value: value.into(),
                    origin: place.clone(),
                    problem,
                })?;
                check_guard(key, &value, place)?;
                self.ignored.insert(key.java, Setting { text: value, source: place.source.clone() });
            }
        }
        Ok(entry)
    }

    /// Sets a used key to text that is known to be canonical.
    pub(super) fn set_used(&mut self, key: &'static Key, text: String, source: Source) {
        self.used.insert(key.name, Setting { text, source });
    }

    /// Sets every pair of a Java properties text. The last of repeated keys counts, as in Java.
    pub fn set_properties(&mut self, service: Service, text: &str, source: &Source) -> Result<(), ConfigError> {
        let mut mistakes = Mistakes::default();
        for pair in parse_properties(text, source)? {
            mistakes.note(self.set_at(service, &pair.key, &pair.value, &Place::at(source, pair.line)));
        }
        mistakes.unless_any(())
    }

    /// Sets every key of a TOML text. A key that appears in both spellings is refused: one of them would be lost.
    pub fn set_toml(&mut self, text: &str, source: &Source) -> Result<(), ConfigError> {
        let syntax = |origin: Place, problem: String| ConfigError::Syntax { origin, problem };
        let unreadable = |error: toml::de::Error| syntax(Place::from(source), error.to_string());
        let mut table: toml::Table = text.parse().map_err(unreadable)?;
        // The same text again, for what a table of values has lost: the places of its keys.
        let mut keys: Vec<(usize, String)> = DeTable::parse(text)
            .map_err(unreadable)?
            .into_inner()
            .into_iter()
            .map(|(key, _)| (line_of(text, key.span().start), key.into_inner().into_owned()))
            .collect();
        keys.sort_unstable();
        let mut seen: BTreeMap<&'static str, String> = BTreeMap::new();
        let mut mistakes = Mistakes::default();
        for (line, name) in keys {
            let place = Place::at(source, line);
            let value = table.remove(&name).as_ref().and_then(toml_text).ok_or_else(|| {
                let problem = format!("\"{name}\" is not a key with a plain value; keys are flat, without [sections]");
                syntax(place.clone(), problem)
            });
            let entry = value.and_then(|value| self.set_at(Service::Broker, &name, &value, &place));
            if let Some(entry) = mistakes.note(entry)
                && let Some(first) = seen.insert(entry.public_name(), name.clone())
            {
                mistakes.note::<()>(Err(syntax(place, format!("{first} and {name} are the same key"))));
            }
        }
        mistakes.unless_any(())
    }
}

/// The line, from 1, of a byte of a text.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// Reads a properties text and says which source it came from when it cannot.
pub(super) fn parse_properties(text: &str, source: &Source) -> Result<Vec<properties::Pair>, ConfigError> {
    properties::parse_lines(text).map_err(|error| ConfigError::Syntax {
        origin: Place::at(source, error.line),
        problem: error.problem.to_owned(),
    })
}

/// Refuses a value that asks for something RingMQ does not do.
fn check_guard(key: &'static JavaKey, value: &str, place: &Place) -> Result<(), ConfigError> {
    let Some(only) = key.only else { return Ok(()) };
    if only.iter().any(|allowed| allowed.eq_ignore_ascii_case(value.trim())) {
        return Ok(());
    }
    Err(ConfigError::Unserved {
        key: key.java,
        value: value.into(),
        origin: place.clone(),
        reason: key.reason.text(),
        allowed: only.iter().map(|word| if word.is_empty() { "empty" } else { word }).collect::<Vec<_>>().join(", "),
    })
}

fn toml_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Array(list) => list.iter().map(toml_text).collect::<Option<Vec<_>>>().map(|list| list.join(";")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(result: Result<impl std::fmt::Debug, ConfigError>) -> String {
        result.expect_err("refused").to_string()
    }

    #[test]
    fn both_spellings_and_ignored_keys() {
        // Goal: either spelling sets a key; keys without meaning are kept for the report. Method: one of each.
        let mut settings = Settings::default();
        settings.set(Service::Broker, "flushDiskType", "SYNC_FLUSH", &Source::Set).expect("Java's spelling");
        assert_eq!(settings.text("flush_disk_type"), "SYNC_FLUSH");
        settings.set(Service::Broker, "flush_disk_type", "async_flush", &Source::Set).expect("our spelling");
        assert_eq!(settings.text("flush_disk_type"), "ASYNC_FLUSH");
        settings.set(Service::Broker, "sendMessageThreadPoolNums", "16", &Source::Set).expect("known to RocketMQ");
        assert_eq!(settings.ignored("sendMessageThreadPoolNums").map(|setting| setting.text.as_str()), Some("16"));
    }

    #[test]
    fn refusals_say_what_to_change() {
        // Goal: each refusal names key, place and remedy. Method: an unknown key, a bad value, an unserved feature.
        let mut settings = Settings::default();
        let unknown = error(settings.set(Service::Broker, "flushDiskTyp", "x", &Source::Set));
        assert_eq!(unknown, "unknown key \"flushDiskTyp\" in --set; the nearest known key is \"flushDiskType\"");
        let bad = error(settings.set(Service::Broker, "listenPort", "many", &Source::File("a.toml".into())));
        assert_eq!(bad, "listenPort = \"many\" in a.toml: expected a whole number from 3 to 65535");
        let unserved = error(settings.set(Service::Broker, "brokerRole", "SLAVE", &Source::Set));
        assert!(unserved.contains("replication") && unserved.contains("ASYNC_MASTER"), "{unserved}");
        settings.set(Service::Broker, "brokerRole", "ASYNC_MASTER", &Source::Set).expect("harmless");
        settings.set(Service::Broker, "aclEnable", "false", &Source::Set).expect("harmless");
    }

    #[test]
    fn toml_values_and_mistakes() {
        // Goal: TOML takes numbers, flags, texts and lists, and nothing nested or doubled. Method: one text of each.
        let source = Source::File("r.toml".into());
        let mut settings = Settings::default();
        let text = "broker_port = 7000\nnamesrv_addr = [\"a:1\", \"b:2\"]\nautoCreateTopicEnable = false\n\
                    log_ring_bytes = \"32 MiB\"";
        settings.set_toml(text, &source).expect("plain values");
        assert_eq!(settings.text("namesrv_addr"), "a:1;b:2");
        assert_eq!(settings.text("log_ring_bytes"), "33554432");
        assert_eq!(settings.source("broker_port"), &source);
        assert!(error(settings.set_toml("[broker]\nlisten = \"::1\"", &source)).contains("without [sections]"));
        assert!(error(settings.set_toml("broker_port = 1000\nlistenPort = 1001", &source)).contains("same key"));
        assert!(error(settings.set_toml("broker_port =", &source)).contains("r.toml"));
    }
}
