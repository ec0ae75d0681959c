//! Looks at a whole store and says what is wrong with it, without changing anything.
//!
//! - [`segments`]: which files of the log there are, and how they should be
//! - [`log`]: walks every record, and finds its way again behind damage
//! - [`queues`]: compares queue files with the records; [`index`]: the same for index files
//! - [`sidecars`]: checkpoint, durable point and our other small files
//!
//! One pass over the log feeds queues and index. Memory is bounded by the numbers of queues and of reported findings, not by the
//! size of the store.

pub mod index;
pub mod log;
pub mod queues;
pub mod segments;
pub mod sidecars;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::durable_point::{DurablePoint, StoredPoint};
use super::paths::StorePaths;
use crate::disk::{Disk, ReadOnlyDisk};
use crate::index::IndexGeometry;
use crate::types::PhysicalOffset;

/// Findings that are kept; the rest is only counted, so that a ruined disk does not become a ruined memory.
pub const FINDINGS_MAX: usize = 1000;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know: nothing is wrong, or the next start puts it right.
    Note,
    /// A file that follows from the log is wrong: a repair makes it anew.
    Derived,
    /// Something that nothing else in the store can replace is damaged or missing.
    Damage,
}

impl Severity {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Derived => "derived",
            Self::Damage => "damage",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The part of the store, such as `log` or `queues`.
    pub area: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// Byte of the file, where one can be named.
    pub position: Option<u64>,
    /// Offset in the log, where one can be named.
    pub offset: Option<u64>,
    /// What it is, as a sentence without a full stop.
    pub text: String,
    /// Whether a start refuses the store because of it.
    pub refuses_start: bool,
}

/// Findings, bounded in number.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// In the order in which they were found; at most [`FINDINGS_MAX`].
    pub kept: Vec<Finding>,
    /// How many more there were.
    pub dropped: u64,
    /// How many of those dropped make a start refuse the store.
    pub dropped_refusals: u64,
    worst: Option<Severity>,
}

impl Findings {
    /// Adds one.
    pub fn add(&mut self, finding: Finding) {
        self.worst = self.worst.max(Some(finding.severity));
        if self.kept.len() < FINDINGS_MAX {
            self.kept.push(finding);
        } else {
            self.dropped += 1;
            self.dropped_refusals += u64::from(finding.refuses_start);
        }
    }

    pub(crate) fn note(&mut self, area: &'static str, path: &Path, text: impl Into<String>) {
        self.at(Severity::Note, area, path, text);
    }

    pub(crate) fn at(&mut self, severity: Severity, area: &'static str, path: &Path, text: impl Into<String>) {
        let (path, refuses_start) = (path.to_path_buf(), severity == Severity::Damage);
        self.add(Finding { severity, area, path, position: None, offset: None, text: text.into(), refuses_start });
    }

    /// A file that follows from the log, but without which a start refuses the store.
    pub(crate) fn refused(&mut self, area: &'static str, path: &Path, text: impl Into<String>) {
        let (severity, path, text) = (Severity::Derived, path.to_path_buf(), text.into());
        self.add(Finding { severity, area, path, position: None, offset: None, text, refuses_start: true });
    }

    /// The worst severity, the dropped ones included; `None` when nothing was found.
    pub fn worst(&self) -> Option<Severity> {
        self.worst
    }
}

/// Hears how far the work has come.
pub trait Progress {
    /// A step of `total_bytes` begins.
    fn step(&mut self, name: &str, total_bytes: u64);
    /// Bytes of the step that are done.
    fn reached(&mut self, bytes: u64);
}

/// For callers who do not want to know.
pub struct NoProgress;

impl Progress for NoProgress {
    fn step(&mut self, _: &str, _: u64) {}
    fn reached(&mut self, _: u64) {}
}

/// What a store looks like where its files do not tell.
#[derive(Debug, Clone, Copy)]
pub struct AuditOptions {
    /// Configured size of the log's files; what the files themselves say wins.
    pub segment_bytes: u64,
    /// Entries of a queue file.
    pub queue_file_entries: u64,
    /// Slots and entries of an index file.
    pub index: IndexGeometry,
    /// Whether sends wait for syncs where the store is used; `None` if nobody knows.
    pub is_sync: Option<bool>,
    /// The most bytes that one group of sends can have in flight there.
    pub group_bytes: u64,
    /// Whether no other broker has begun to work here since one of ours stopped in order.
    pub is_signed: bool,
}

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Files of the log.
    pub segments: u64,
    /// Their size in bytes.
    pub segment_bytes: u64,
    /// First byte that the log holds.
    pub log_min: u64,
    /// End of the last valid record.
    pub log_end: u64,
    /// Valid records.
    pub records: u64,
    /// Records behind damage, which a start would not reach.
    pub records_behind_damage: u64,
    /// Bytes between records that are no records.
    pub damaged_bytes: u64,
    /// Store time of the last record, ms since 1970.
    pub last_store_timestamp_ms: i64,
    /// Queues that have files, or records in the log.
    pub queues: u64,
    /// Length of most files of queues; 0 when there are none.
    pub queue_file_bytes: u64,
    /// Queue entries that point to their record.
    pub queue_entries: u64,
    /// Index files.
    pub index_files: u64,
    /// Index entries that point to their record.
    pub index_entries: u64,
    /// Whether the last stop was clean.
    pub was_clean: bool,
    /// The durable point, if there is a readable one.
    pub durable_point: Option<u64>,
}

/// The result of an audit.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    /// What was found.
    pub findings: Findings,
    /// What was counted.
    pub figures: Figures,
    /// Where the first damage of the log begins; `None` when the log is whole up to its end.
    pub first_damage: Option<PhysicalOffset>,
    /// Bytes behind the end of the log that belong to no valid record.
    pub tail_bytes: u64,
    /// Whether a start would refuse the log's files for their lengths or names.
    pub is_log_refused: bool,
}

/// The store cannot even be looked at.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct AuditError {
    /// What was being done.
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

impl AuditError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self { action, path, source }
    }
}

/// Everything that all parts of an audit look at.
pub(crate) struct Scene<'a> {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) paths: &'a StorePaths,
    pub(crate) options: AuditOptions,
    pub(crate) was_clean: bool,
    pub(crate) durable: Option<DurablePoint>,
    /// Below this every queue file was complete when it was last noted; `None` for a store that has no note.
    pub(crate) noted_offset: Option<PhysicalOffset>,
    pub(crate) barriers: super::queue_offsets::QueueOffsets,
}

/// Looks at a whole store. The caller keeps brokers away from it.
///
/// # Errors
/// The file system refuses to show something. Damage is no error, it is what the audit is for.
pub fn audit(
    disk: &Arc<dyn Disk>,
    paths: &StorePaths,
    options: AuditOptions,
    progress: &mut dyn Progress,
) -> Result<Audit, AuditError> {
    let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk::new(Arc::clone(disk)));
    let mut audit = Audit::default();
    let scene = sidecars::scene(disk, paths, options, &mut audit)?;
    let survey = segments::survey(&*scene.disk, paths, options.segment_bytes, &mut audit.findings)?;
    audit.is_log_refused = survey.is_refused;
    audit.figures.segments = survey.files;
    audit.figures.segment_bytes = survey.size.bytes();
    let mut queues = queues::QueueAudit::load(&scene, &mut audit.findings)?;
    audit.figures.queue_file_bytes = queues.usual_file_bytes();
    let mut index = index::IndexAudit::load(&scene, &mut audit.findings, progress)?;
    let known_end = scene.durable.map_or(queues.physical_end().min(survey.limit()), |point| point.offset);
    let walked = log::walk(&scene, &survey, known_end, progress, &mut |view, place| {
        queues.record(view, place)?;
        index.record(view, place)
    })?;
    log::report(&scene, &survey, &walked, known_end, &mut audit);
    queues.finish(&walked, &mut audit)?;
    index.finish(&walked, &mut audit)?;
    sidecars::check_times(&scene, &walked, &mut audit)?;
    Ok(audit)
}

/// Whether a stored durable point can be used.
pub(crate) fn readable(point: StoredPoint) -> Option<DurablePoint> {
    match point {
        StoredPoint::Valid(point) => Some(point),
        StoredPoint::Missing | StoredPoint::Damaged => None,
    }
}
