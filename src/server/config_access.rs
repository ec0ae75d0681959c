//! The live configuration as the control plane sees it (codes 25 and 26).

use std::path::PathBuf;
use std::sync::Arc;

use ringmq_shards::disk::{Disk, StateFile};

use crate::broker::settings::{ConfigAccess, ConfigError};
use crate::cli::logging;
use crate::config::{self, Config, live, machine};

/// Keeps the configuration and its file of live changes.
pub struct LiveConfig {
    config: Config,
    path: PathBuf,
    disk: Arc<dyn Disk>,
}

impl LiveConfig {
    /// Wraps the configuration of the start.
    pub fn new(config: Config, disk: Arc<dyn Disk>) -> Self {
        let path = config.own_dir().join(live::FILE_NAME);
        Self { config, path, disk }
    }
}

impl ConfigAccess for LiveConfig {
    fn render(&self) -> String {
        let home = std::env::var("HOME").unwrap_or_default();
        self.config.broker_config_text(machine::processors() as u64, &home)
    }

    fn apply(&mut self, text: &str) -> Result<Vec<(String, String)>, ConfigError> {
        let mut next = self.config.clone();
        let changes = next.apply_live(text).map_err(|error| match error {
            config::ConfigError::NoPermission { .. } => ConfigError::Blacklisted,
            error => ConfigError::Refused(error.to_string()),
        })?;
        let content = next.live_text();
        StateFile::new(&self.path)
            .persist(self.disk.as_ref(), content.as_bytes(), |_| true)
            .map_err(|error| ConfigError::Refused(format!("the change could not be kept: {error}")))?;
        self.config = next;
        logging::set_level(self.config.log_level);
        for change in &changes {
            tracing::info!(key = change.key, old = change.old, new = change.new, "configuration changed by request");
        }
        Ok(changes.into_iter().map(|change| (change.key.to_string(), change.new)).collect())
    }
}
