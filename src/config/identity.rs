//! The broker's name across restarts. Containers change their host name; a broker that changed its name would lose its
//! queues to a broker that nobody knows. Pure over the contents of the file `identity` in our folder.

use super::properties;

/// File name in our folder of the data directory.
pub const FILE_NAME: &str = "identity";

const KEY: &str = "brokerName";
/// Name when neither configuration, file nor machine gives one. RocketMQ uses the same.
const FALLBACK: &str = "DEFAULT_BROKER";

/// A broker's name and what has to be written so that it stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// In use from now on.
    pub broker_name: String,
    /// New contents of the file, if it does not say this already.
    pub contents_to_write: Option<String>,
}

/// The name that the file holds, if it holds one.
///
/// # Errors
/// Bytes that are no properties file.
pub fn kept_name(contents: &[u8]) -> Result<Option<String>, String> {
    let text = std::str::from_utf8(contents).map_err(|error| error.to_string())?;
    let pairs = properties::parse(text).map_err(|error| error.to_string())?;
    Ok(pairs.into_iter().rev().find(|(key, value)| key == KEY && !value.is_empty()).map(|(_, value)| value))
}

/// Chooses the name: the configured one, else the kept one of the first start, else the host name.
pub fn choose(kept: Option<&str>, configured: &str, host_name: &str) -> Identity {
    let chosen = [configured, kept.unwrap_or_default(), host_name, FALLBACK];
    let broker_name = chosen.into_iter().find(|name| !name.is_empty()).unwrap_or(FALLBACK).to_string();
    let contents_to_write = (kept != Some(&*broker_name))
        .then(|| format!("# The name this broker registered with first.\n{}\n", properties::line(KEY, &broker_name)));
    Identity { broker_name, contents_to_write }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_host_name_stays_until_configured_otherwise() {
        // Goal: a new host name does not rename the broker. Method: start, move to another host, configure a name.
        let first = choose(None, "", "host-a");
        assert_eq!(first.broker_name, "host-a");
        let contents = first.contents_to_write.expect("the first start writes");
        let kept = kept_name(contents.as_bytes()).expect("own contents");
        let second = choose(kept.as_deref(), "", "host-b");
        assert_eq!(second, Identity { broker_name: "host-a".into(), contents_to_write: None });
        let third = choose(kept.as_deref(), "broker-x", "host-b");
        assert_eq!(third.broker_name, "broker-x");
        assert!(third.contents_to_write.is_some());
        assert_eq!(choose(None, "", "").broker_name, "DEFAULT_BROKER");
        assert!(kept_name(b"\xff").is_err() && kept_name(b"\\u12").is_err(), "a damaged file is told");
    }
}
