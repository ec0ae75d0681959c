//! Values that are right by themselves and wrong together.

use ringmq_protocol::record::MAX_RECORD_OVERHEAD_BYTES;

use super::Config;
use super::error::ConfigError;
use super::settings::Settings;
use super::values::show_size;

/// What must fit beside the largest record: the mark behind it in a segment, or what a request's header says beside topic and
/// properties.
const BESIDE_RECORD_BYTES: u64 = 2 * 1024;

/// Builds the typed configuration and refuses combinations that cannot work.
pub(super) fn build(settings: Settings) -> Result<Config, ConfigError> {
    let internal = |name| ConfigError::Conflict(format!("{name} has a value that is not of its type"));
    let config = Config::from_settings(settings).map_err(internal)?;
    let conflict = |text: String| Err(ConfigError::Conflict(text));
    let largest_record = config.max_message_size.saturating_add(MAX_RECORD_OVERHEAD_BYTES as u64 + BESIDE_RECORD_BYTES);
    for (name, bytes) in [
        ("max_frame_bytes", config.max_frame_bytes),
        ("mappedFileSizeCommitLog", config.mapped_file_size_commit_log),
        ("log_ring_bytes", config.log_ring_bytes),
    ] {
        if bytes < largest_record {
            return conflict(format!(
                "{name} is too small for maxMessageSize = {}: a message of that size with its properties would not fit",
                show_size(config.max_message_size)
            ));
        }
    }
    let reserved = config.log_ring_bytes.saturating_add(config.cold_read_bytes);
    if let Some(memory) = config.memory.filter(|memory| *memory < reserved) {
        return conflict(format!(
            "memory = {} is less than log_ring_bytes and cold_read_bytes together ({})",
            show_size(memory),
            show_size(reserved)
        ));
    }
    if config.broker_id != 0 {
        return conflict(format!("brokerId = {}: slaves are not served yet, only 0 is possible", config.broker_id));
    }
    let fast = config.fast_port_enable.then(|| config.broker_port.saturating_sub(2));
    if config.namesrv_port == config.broker_port {
        return conflict(format!("namesrv_port = {} is also the broker's port", config.namesrv_port));
    }
    if Some(config.namesrv_port) == fast {
        return conflict(format!(
            "namesrv_port = {} is also the broker's fast port, which is broker_port - 2 (fast_port_enable = false goes without)",
            config.namesrv_port
        ));
    }
    if config.broker_name.contains('/') || config.broker_name.contains('\\') {
        return conflict("brokerName must not contain a slash".into());
    }
    if config.store_path_commit_log.contains(',') {
        return conflict("storePathCommitLog must be one directory".into());
    }
    if let Err(reason) = ringmq_shards::log::retention::parse_hours(&config.delete_when) {
        return conflict(format!("deleteWhen: {reason}"));
    }
    if config.data_dir.is_empty() {
        return conflict("storePathRootDir must not be empty".into());
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use crate::config::Layers;

    #[test]
    fn impossible_combinations_are_refused_by_name() {
        // Goal: what cannot work does not start, and the message names a key to change. Method: one combination each.
        for (sets, named) in [
            (&["maxMessageSize=20 MiB"][..], "max_frame_bytes"),
            (&["mappedFileSizeCommitLog=64 KiB"], "mappedFileSizeCommitLog"),
            (&["memory=64 MiB"], "log_ring_bytes"),
            (&["brokerId=1"], "brokerId"),
            (&["namesrv_port=10909"], "namesrv_port"),
            (&["brokerName=a/b"], "brokerName"),
            (&["storePathRootDir="], "storePathRootDir"),
            (&["deleteWhen=25"], "deleteWhen"),
        ] {
            let sets = sets.iter().map(|text| (*text).to_string()).collect();
            let refused = Layers { sets, ..Layers::default() }.build().expect_err(named).to_string();
            assert!(refused.contains(named), "{refused}");
        }
        let small = ["mappedFileSizeCommitLog=1 MiB", "maxMessageSize=512 KiB"].map(str::to_string).to_vec();
        Layers { sets: small, ..Layers::default() }.build().expect("a small store with small messages");
    }
}
