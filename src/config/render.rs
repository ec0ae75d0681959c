//! Texts made from the table: the annotated `ringmq.toml`, the reference, the answer to code 26, the ignored keys.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Config;
use super::keys::{self, Change, Key, Origin};
use super::values::{Kind, show_size};

/// Width of generated comments.
const WIDTH: usize = 110;

impl Config {
    /// The broker's configuration as a Java broker prints it (code 26): `key=value` lines in the order of their
    /// names. All of RocketMQ's keys are there, those that mean nothing here with what was set or RocketMQ's default,
    /// and ours.
    pub fn broker_config_text(&self, processors: u64, home: &str) -> String {
        let origins = |origin: Origin| origin.is_listed_by_broker() || origin == Origin::Ringmq;
        lines(self.public_values(origins, processors, home))
    }

    /// The name server's configuration (code 319), in the same form.
    pub fn namesrv_config_text(&self, processors: u64, home: &str) -> String {
        let mut values = self.public_values(|origin| origin == Origin::Netty, processors, home);
        values.retain(|name, _| is_of_servers(name));
        values.append(&mut self.public_values(|origin| origin == Origin::Namesrv, processors, home));
        values.insert("listenPort", self.settings.text("namesrv_port").to_string());
        lines(values)
    }

    fn public_values(
        &self,
        wanted: impl Fn(Origin) -> bool,
        processors: u64,
        home: &str,
    ) -> BTreeMap<&'static str, String> {
        let mut values = BTreeMap::new();
        for key in keys::ignored().filter(|key| !key.is_secret()) {
            let set = self.settings.ignored(key.java).map(|setting| setting.text.clone());
            let default = if wanted(key.origin) { key.default_on(processors, home) } else { None };
            if let Some(text) = set.filter(|_| wanted(key.origin)).or(default) {
                values.insert(key.java, text);
            }
        }
        for key in keys::used().iter().filter(|key| wanted(key.origin)) {
            let text = self.effective(key);
            if !text.is_empty() {
                values.insert(key.public_name(), text);
            }
        }
        values
    }

    /// Text of a used key; where the default stands for something that depends on other keys, that.
    fn effective(&self, key: &Key) -> String {
        let text = self.settings.text(key.name);
        match key.name {
            "ha_listen_port" if text == "0" => self.ha_port().to_string(),
            "store_path_commit_log" if text.is_empty() => self.commit_log_dir().display().to_string(),
            "kv_config_path" if text.is_empty() => self.kv_config_file().display().to_string(),
            _ => text.to_string(),
        }
    }

    /// One line for each key that was set and means nothing here, with the reason; for the log at start. Keys with a
    /// value that says what is done anyway are left out.
    pub fn ignored_report(&self) -> Vec<String> {
        let set = self.settings.all_ignored();
        set.filter_map(|(name, setting)| {
            let key = keys::ignored().find(|key| key.java == name && key.only.is_none())?;
            let value = if key.is_secret() { "(hidden)" } else { setting.text.as_str() };
            Some(format!("{name} = {value} ({}) is ignored: {}", setting.source, key.reason.text()))
        })
        .collect()
    }

    /// All used keys with their values and where they came from.
    pub fn listing(&self) -> String {
        let mut text = String::new();
        for key in keys::used() {
            let value = toml_value(key, self.settings.text(key.name));
            let _ = writeln!(text, "{} = {value}  # {}", key.name, self.settings.source(key.name));
        }
        for line in self.ignored_report() {
            let _ = writeln!(text, "# {line}");
        }
        text
    }
}

/// Whether a key of [`Origin::Netty`] is one of `NettyServerConfig`: the name server has no other.
fn is_of_servers(name: &str) -> bool {
    const OTHERS: [&str; 6] = [
        "bindAddress",
        "enableShutdownGracefully",
        "shutdownWaitTimeSeconds",
        "useEpollNativeSelector",
        "writeBufferHighWaterMark",
        "writeBufferLowWaterMark",
    ];
    name.starts_with("server") || OTHERS.contains(&name)
}

fn lines(values: BTreeMap<&'static str, String>) -> String {
    values.into_iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name}={value}");
        text
    })
}

/// The annotated configuration file: every key that is used, at its default, commented out.
pub fn example_toml() -> String {
    let mut text = String::from(
        "# RingMQ configuration. Every key is here with its default; take away the # of a line to change it.\n\
         # Keys may also be written as RocketMQ spells them. An unknown key refuses the start.\n\
         # This file is generated: `ringmq config toml`.\n",
    );
    let mut section = "";
    for key in keys::used() {
        if key.section != section {
            section = key.section;
            let _ = write!(text, "\n# ---- {section} ----\n");
        }
        let _ = writeln!(text);
        for line in wrap(key.doc, WIDTH - 2) {
            let _ = writeln!(text, "# {line}");
        }
        for line in wrap(&facts(key), WIDTH - 2) {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "#{} = {}", key.name, toml_value(key, key.default));
    }
    text
}

/// The reference of all keys, for people: used ones by section, ignored ones by reason.
pub fn reference() -> String {
    let mut text = String::from("Keys that RingMQ uses\n");
    let mut section = "";
    for key in keys::used() {
        if key.section != section {
            section = key.section;
            let _ = write!(text, "\n{section}\n");
        }
        let java = key.java.map_or(String::new(), |java| format!(" ({java})"));
        let _ = write!(text, "\n  {}{java} = {}\n", key.name, toml_value(key, key.default));
        for line in wrap(key.doc, WIDTH - 6).into_iter().chain(wrap(&facts(key), WIDTH - 6)) {
            let _ = writeln!(text, "      {line}");
        }
    }
    let mut by_reason: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for key in keys::ignored() {
        by_reason.entry(key.reason).or_default().push(key.java);
    }
    text.push_str("\nKeys of RocketMQ that are accepted, reported and ignored\n");
    for (reason, mut names) in by_reason {
        names.sort_unstable();
        let _ = write!(text, "\n  Because {}:\n", reason.text());
        for line in wrap(&names.join(" "), WIDTH - 6) {
            let _ = writeln!(text, "      {line}");
        }
    }
    text.push_str("\nOf these, some refuse the start unless they have one of these values\n\n");
    for key in keys::ignored() {
        if let Some(only) = key.only {
            let words: Vec<&str> = only.iter().map(|word| if word.is_empty() { "(empty)" } else { word }).collect();
            let _ = writeln!(text, "      {}: {}", key.java, words.join(", "));
        }
    }
    text
}

fn facts(key: &Key) -> String {
    let change = match key.change {
        Change::Live => "can be changed while running",
        Change::Restart => "a change needs a restart",
        Change::Fixed => "cannot be changed while running",
    };
    let java = key.java.map_or(String::new(), |java| format!(" RocketMQ: {java}."));
    format!("Value: {}; {change}.{java}", key.kind.describe())
}

fn toml_value(key: &Key, text: &str) -> String {
    match key.kind {
        Kind::Bool | Kind::Integer { .. } | Kind::Duration { .. } => text.into(),
        Kind::Size { .. } | Kind::AutoSize { .. } => match text.parse::<u64>() {
            Ok(bytes) if bytes >= 1024 && bytes.is_multiple_of(1024) => format!("\"{}\"", show_size(bytes)),
            Ok(bytes) => bytes.to_string(),
            Err(_) => format!("\"{text}\""),
        },
        Kind::Addresses => {
            let list: Vec<String> = text.split(';').filter(|part| !part.is_empty()).map(quoted).collect();
            format!("[{}]", list.join(", "))
        }
        _ => quoted(text),
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}

/// Lines of at most `width` characters, broken at blanks.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    #[test]
    fn shipped_file_is_not_stale() {
        // Goal: the committed ringmq.toml says what the table says. Method: compare; `config toml` writes it anew.
        let committed = include_str!("../../ringmq.toml");
        assert!(committed == example_toml(), "ringmq.toml is stale: run `ringmq config toml > ringmq.toml`");
    }

    #[test]
    fn shipped_file_holds_the_defaults() {
        // Goal: taking away the marks changes nothing. Method: do so with every key and compare with the defaults.
        let uncommented: Vec<&str> = example_toml()
            .leak()
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .filter(|line| !line.starts_with(' '))
            .collect();
        assert_eq!(uncommented.len(), keys::used().len());
        let config_file = Some(("ringmq.toml".into(), uncommented.join("\n")));
        let config = Layers { config_file, ..Layers::default() }.build().expect("the shipped file is valid");
        for key in keys::used() {
            assert_eq!(config.settings.text(key.name), key.default, "{}", key.name);
        }
    }

    #[test]
    fn code_26_lists_all_java_keys_in_order() {
        // Goal: tools find what they look for. Method: every broker key of RocketMQ 5.3.3's own listing is there,
        // sorted.
        let mut config = Layers::default().build().expect("defaults");
        config.apply_live("sendMessageThreadPoolNums=9\nmaxMessageSize=1024").expect("known keys");
        let text = config.broker_config_text(8, "/home/user");
        let names: Vec<&str> = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        assert_eq!(names.len(), text.lines().count());
        assert!(names.is_sorted());
        for line in include_str!("java-5.3.3.properties").lines() {
            let name = line.split('=').next().unwrap_or_default();
            let entry = keys::find(keys::Service::Broker, name).expect("known");
            let origin = match entry {
                keys::Entry::Used(key) => key.origin,
                keys::Entry::Ignored(key) => key.origin,
            };
            assert_eq!(names.contains(&name), origin != Origin::Namesrv, "{name}");
        }
        for line in
            ["sendMessageThreadPoolNums=9", "maxMessageSize=1024", "pullMessageThreadPoolNums=32", "listenPort=10911"]
        {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
        let namesrv = config.namesrv_config_text(8, "/home/user");
        assert!(
            namesrv.contains("listenPort=9876\n")
                && namesrv.contains("kvConfigPath=./ringmq-data/namesrv/kvConfig.json\n")
        );
        assert!(namesrv.contains("bindAddress=127.0.0.1\n") && namesrv.contains("defaultThreadPoolNums=16\n"));
        assert!(!namesrv.contains("brokerName"));
    }

    #[test]
    fn secrets_are_not_shown() {
        // Goal: a credential in a broker.conf reaches neither log nor tools. Method: set one and look at every text.
        let sets = vec!["innerClientAuthenticationCredentials={\"secretKey\":\"hush\"}".to_string()];
        let config = Layers { sets, ..Layers::default() }.build().expect("a known key");
        let report = config.ignored_report();
        assert!(report.len() == 1 && report[0].contains("(hidden)"));
        for text in [report.concat(), config.listing(), config.broker_config_text(1, "/")] {
            assert!(!text.contains("hush"), "{text}");
        }
    }

    #[test]
    fn reference_names_every_key() {
        // Goal: the reference is complete. Method: look for every name.
        let text = reference();
        for name in keys::used().iter().map(|key| key.name).chain(keys::ignored().map(|key| key.java)) {
            assert!(text.contains(name), "{name}");
        }
    }
}
