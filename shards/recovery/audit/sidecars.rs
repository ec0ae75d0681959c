//! The small files beside the log: checkpoint, durable point, next offsets of queues, the mark of a running broker.

use std::sync::Arc;

use super::log::Walked;
use super::{Audit, AuditError, AuditOptions, Scene, Severity, readable};
use crate::disk::{Disk, read_file};
use crate::recovery::checkpoint::{CHECKPOINT_BYTES, Checkpoint};
use crate::recovery::durable_point::{DurablePointFile, StoredPoint};
use crate::recovery::paths::StorePaths;
use crate::recovery::queue_offsets::QueueOffsets;

/// Reads what all other parts of the audit ask for.
pub(crate) fn scene<'a>(
    disk: Arc<dyn Disk>,
    paths: &'a StorePaths,
    options: AuditOptions,
    audit: &mut Audit,
) -> Result<Scene<'a>, AuditError> {
    let was_clean = !disk.exists(&paths.abort()).map_err(AuditError::io("look for", &paths.abort()))?;
    if !was_clean {
        audit.findings.note("start", &paths.abort(), "the last broker did not stop in order; the next start recovers");
    }
    let path = paths.durable_point();
    let stored = DurablePointFile::load(&*disk, paths).map_err(AuditError::io("read", &path))?;
    match stored {
        StoredPoint::Damaged => {
            audit.findings.at(
                Severity::Derived,
                "durable point",
                &path,
                "no slot can be read; a start follows RocketMQ's rules",
            );
        }
        StoredPoint::Missing => audit.findings.note("durable point", &path, "there is none: only RocketMQ wrote here"),
        StoredPoint::Valid(_) => {}
    }
    let path = paths.queue_offsets();
    let (mut barriers, noted_offset) = match QueueOffsets::load(&*disk, paths) {
        Ok(Some(loaded)) => {
            if let Some(problem) = loaded.backup_used {
                audit.findings.note("queue offsets", &path, format!("the backup has to be used: {problem}"));
            }
            let noted = loaded.value.log_offset;
            (loaded.value, Some(noted))
        }
        Ok(None) => (QueueOffsets::default(), None),
        Err(error) => {
            audit.findings.at(Severity::Damage, "queue offsets", &path, error.to_string());
            (QueueOffsets::default(), None)
        }
    };
    barriers.foresee_start(&*disk, paths).map_err(AuditError::io("read what a start goes by in", &paths.root))?;
    let durable = readable(stored);
    audit.figures.was_clean = was_clean;
    audit.figures.durable_point = durable.map(|point| point.offset.0);
    Ok(Scene { disk, paths, options, was_clean, durable, noted_offset, barriers })
}

/// Compares the checkpoint with the log.
pub(crate) fn check_times(scene: &Scene<'_>, walked: &Walked, audit: &mut Audit) -> Result<(), AuditError> {
    let path = scene.paths.checkpoint();
    let Some(bytes) = read_file(&*scene.disk, &path).map_err(AuditError::io("read", &path))? else {
        if walked.records > 0 {
            audit.findings.note("checkpoint", &path, "there is none; RocketMQ would read the whole log after a crash");
        }
        return Ok(());
    };
    if bytes.len() != CHECKPOINT_BYTES {
        let text = format!("the file has {} bytes instead of {CHECKPOINT_BYTES}", bytes.len());
        audit.findings.note("checkpoint", &path, text);
    }
    let checkpoint = Checkpoint::decode(&bytes);
    let last_ms = walked.last_store_timestamp_ms;
    for (name, time_ms) in [
        ("the log", checkpoint.physic_timestamp_ms),
        ("the queues", checkpoint.logics_timestamp_ms),
        ("the index", checkpoint.index_timestamp_ms),
    ] {
        if time_ms > last_ms || time_ms < 0 {
            let text = format!("its time of {name} is {time_ms} although the last record is from {last_ms}");
            audit.findings.at(Severity::Derived, "checkpoint", &path, text);
        }
    }
    if let Some(noted) = scene.noted_offset.filter(|noted| noted.0 > walked.end.0) {
        let text = format!("it speaks of offset {noted} although the log ends at {}", walked.end);
        let severity = if audit.first_damage.is_some() { Severity::Note } else { Severity::Derived };
        audit.findings.at(severity, "queue offsets", &scene.paths.queue_offsets(), text);
    }
    Ok(())
}
