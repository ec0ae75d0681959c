//! The JSON files of topics, groups and offsets, as the broker would read them.

use std::collections::BTreeSet;
use std::io;

use ringmq_protocol::json::{Value, parse};
use ringmq_shards::disk::{Disk, StateFile, StateFileError, read_file};
use ringmq_shards::recovery::StorePaths;
use ringmq_shards::recovery::audit::{Finding, Findings, Severity};

use super::Failure;
use crate::broker::state::{self, GROUPS_FILE, OFFSETS_FILE, TOPICS_FILE};
use crate::process::ExitStatus;
use crate::server::lost_queues;

/// The files that a broker cannot do without when they exist.
pub const FILES: [&str; 3] = [TOPICS_FILE, GROUPS_FILE, OFFSETS_FILE];

/// Checks that each file, or its backup, can be read.
pub fn check(disk: &dyn Disk, paths: &StorePaths, findings: &mut Findings) -> Result<(), Failure> {
    for name in FILES {
        let path = paths.config().join(name);
        let decode = |bytes: &[u8]| state::check(name, bytes).map_err(|error| error.to_string());
        let (severity, text) = match StateFile::new(&path).load(disk, decode) {
            Ok(Some(loaded)) => match loaded.backup_used {
                Some(problem) => (Severity::Note, format!("the backup has to be used: {problem}")),
                None => continue,
            },
            Ok(None) => continue,
            Err(error @ StateFileError::Unreadable { .. }) => (Severity::Damage, error.to_string()),
            Err(error) => return Err(Failure(ExitStatus::Failure, error.to_string())),
        };
        let refuses_start = severity == Severity::Damage;
        findings.add(Finding { severity, area: "state", path, position: None, offset: None, text, refuses_start });
    }
    Ok(())
}

/// A state file as JSON, or its backup; `None` when neither can be read.
pub fn json(disk: &dyn Disk, paths: &StorePaths, name: &str) -> io::Result<Option<Value>> {
    for name in [name.to_string(), format!("{name}.bak")] {
        let bytes = read_file(disk, &paths.config().join(name))?;
        if let Some(value) = bytes.and_then(|bytes| parse(&bytes).ok()) {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// Names of all topics in the broker's table.
pub fn topics(disk: &dyn Disk, paths: &StorePaths) -> io::Result<BTreeSet<String>> {
    Ok(lost_queues::known_topics(disk, paths).unwrap_or_default())
}
