//! Walks every record of the log. Behind something that is no record it searches for the next valid one, so that one damaged
//! block is one finding and everything behind it is still looked at.

use ringmq_protocol::record::RecordView;

use super::segments::Survey;
use super::{Audit, AuditError, Finding, Progress, Scene, Severity};
use crate::disk::ReadOnlyDisk;
use crate::log::segment_table::{SegmentError, file_name};
use crate::recovery::cut::Tail;
use crate::recovery::decide::valid_far_behind;
use crate::recovery::durable_point::LastRecord;
use crate::recovery::queue_place::{QueuePlace, queue_place};
use crate::recovery::scan::{Found, LogScanner, ScanChecks};
use crate::types::PhysicalOffset;

const AREA: &str = "log";
/// Bytes between two reports of progress.
const PROGRESS_BYTES: u64 = 16 << 20;

/// Takes a record and its place in its queue.
pub(crate) type Visit<'a> = dyn FnMut(&RecordView<'_>, Option<&QueuePlace<'_>>) -> Result<(), AuditError> + 'a;

/// Where records should be and are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    /// First byte.
    pub from: PhysicalOffset,
    /// The next valid record, or the start of the file behind a missing one.
    pub to: PhysicalOffset,
    /// What is there instead.
    pub reason: String,
}

/// What a walk found.
#[derive(Debug, Clone, Default)]
pub struct Walked {
    /// Damage with valid records behind it, in order.
    pub holes: Vec<Hole>,
    /// End of the last valid record that was visited.
    pub end: PhysicalOffset,
    /// What is at the end, if it is not just the end.
    pub at_end: Option<String>,
    /// Bytes that are not zero behind the end.
    pub tail_bytes: u64,
    /// Records visited, and how many of them lie behind a hole.
    pub records: u64,
    /// Records behind the first hole.
    pub behind_holes: u64,
    /// Store time of the last record.
    pub last_store_timestamp_ms: i64,
    /// Records older than the one before them.
    pub clock_steps: u64,
    /// Whether the last record below the durable point was met unchanged; `None` when there was nothing to compare.
    pub fits: Option<bool>,
    /// The valid record behind the end because of which a start is refused where sends wait for syncs.
    pub valid_far_behind: Option<PhysicalOffset>,
}

impl Walked {
    /// Whether an offset lies where records are damaged or missing.
    pub fn is_in_hole(&self, offset: PhysicalOffset) -> bool {
        let index = self.holes.partition_point(|hole| hole.to <= offset);
        self.holes.get(index).is_some_and(|hole| hole.from <= offset)
    }
}

pub(crate) fn scan_error(error: SegmentError) -> AuditError {
    match error {
        SegmentError::Io { action, path, source } => AuditError { action, path, source },
        other => {
            AuditError { action: "read", path: "the log".into(), source: std::io::Error::other(other.to_string()) }
        }
    }
}

/// Gives every valid record to `visit`, in log order, with its place in its queue. `known_end` says how far records are known
/// to have been written: an invalid one at or behind it is the end, whatever follows.
///
/// # Errors
/// A file cannot be read, or `visit` fails.
pub(crate) fn walk(
    scene: &Scene<'_>,
    survey: &Survey,
    known_end: PhysicalOffset,
    progress: &mut dyn Progress,
    visit: &mut Visit<'_>,
) -> Result<Walked, AuditError> {
    let disk = ReadOnlyDisk::new(scene.disk.clone()).padded(&scene.paths.commit_log, survey.size.bytes());
    progress.step("log", survey.bytes());
    let mut walked = Walked { end: survey.min(), ..Walked::default() };
    let expected = scene.durable.and_then(|point| point.last_record);
    let durable = scene.durable.map(|point| point.offset).filter(|durable| *durable >= survey.min());
    let checks = ScanChecks { torn_sectors_from: durable, ..ScanChecks::default() };
    let (mut done, mut told) = (0, 0);
    for run in &survey.runs {
        let (Some(min), Some(limit)) = (run.min(), run.limit()) else { continue };
        if min > survey.min() {
            let reason = "files are missing".to_string();
            walked.holes.push(Hole { from: walked.end, to: min, reason });
            walked.at_end = None;
        }
        let mut scanner = LogScanner::new(&disk, &scene.paths.commit_log, run, checks);
        let mut position = min;
        while position < limit {
            let reached = done + (position.0 - min.0);
            if reached >= told + PROGRESS_BYTES {
                told = reached;
                progress.reached(reached);
            }
            let problem = match scanner.at(position).map_err(scan_error)? {
                Found::Record(view) => {
                    let next = PhysicalOffset(position.0 + view.total_size() as u64);
                    if expected.is_some_and(|expected| expected.start == position) {
                        walked.fits = Some(expected == Some(LastRecord::of(position, view.bytes())));
                    }
                    walked.records += 1;
                    walked.behind_holes += u64::from(!walked.holes.is_empty());
                    walked.clock_steps += u64::from(view.store_timestamp() < walked.last_store_timestamp_ms);
                    walked.last_store_timestamp_ms = view.store_timestamp();
                    visit(&view, queue_place(&view, position).as_ref())?;
                    position = next;
                    walked.end = next;
                    continue;
                }
                Found::Blank => {
                    position = run.size.next_start(position);
                    continue;
                }
                Found::End => "zeros where a record should be".to_string(),
                Found::Invalid(reason) => reason,
            };
            let is_invalid = !problem.starts_with("zeros");
            let next = match position < known_end {
                true => scanner.find_record_from(PhysicalOffset(position.0 + 1)).map_err(scan_error)?,
                false => None,
            };
            match next {
                Some(next) => {
                    walked.holes.push(Hole { from: position, to: next, reason: problem });
                    position = next;
                }
                None => {
                    walked.end = position;
                    walked.at_end = (is_invalid || position < known_end).then_some(problem);
                    break;
                }
            }
        }
        if position >= limit {
            walked.end = limit;
            walked.at_end = None;
        }
        done += limit.0 - min.0;
    }
    if let Some(run) = survey.runs.last() {
        let tail = Tail { disk: &disk, paths: scene.paths, table: run, end: walked.end };
        let data_end = tail.data_end().map_err(scan_error)?;
        walked.tail_bytes = data_end.map_or(0, |end| end.0 - walked.end.0);
        let fits = expected.is_none_or(|expected| expected.start < survey.min()) || walked.fits == Some(true);
        if fits && durable.is_some_and(|durable| durable <= walked.end) {
            let mut scanner = LogScanner::new(&disk, &scene.paths.commit_log, run, checks);
            let found = valid_far_behind(&mut scanner, walked.end, data_end, scene.options.group_bytes);
            walked.valid_far_behind = found.map_err(scan_error)?;
        }
    }
    progress.reached(done);
    Ok(walked)
}

/// Turns a walk into findings and figures.
pub(crate) fn report(
    scene: &Scene<'_>,
    survey: &Survey,
    walked: &Walked,
    known_end: PhysicalOffset,
    audit: &mut Audit,
) {
    let log = &scene.paths.commit_log;
    let file = |offset: PhysicalOffset| log.join(file_name(survey.size.start_of(offset)));
    for hole in &walked.holes {
        audit.findings.add(Finding {
            severity: Severity::Damage,
            area: AREA,
            path: file(hole.from),
            position: Some(survey.size.position_in_file(hole.from)),
            offset: Some(hole.from.0),
            text: format!("{}; the next valid record is at {}", hole.reason, hole.to),
            refuses_start: true,
        });
    }
    let at_end = |severity, text| Finding {
        severity,
        area: AREA,
        path: file(walked.end),
        position: Some(survey.size.position_in_file(walked.end)),
        offset: Some(walked.end.0),
        text,
        refuses_start: severity == Severity::Damage,
    };
    let reason = walked.at_end.as_deref();
    let is_short = walked.end < known_end && (scene.durable.is_some() || scene.was_clean);
    if walked.end < known_end {
        let what = if scene.durable.is_some() { "was known to be synced" } else { "is known to the queues" };
        let reason = reason.unwrap_or("nothing follows");
        let text = format!("the log ends here although it {what} up to {known_end}: {reason}");
        // Without a durable point and after a crash this is how RocketMQ leaves a store, and where it cuts the queues.
        audit.findings.add(at_end(if is_short { Severity::Damage } else { Severity::Note }, text));
    } else if walked.tail_bytes > 0 {
        let reason = reason.unwrap_or("zeros where a record should be");
        let cuts = format!("the next start saves the {} bytes behind it aside and cuts them off", walked.tail_bytes);
        let refuses = |at| format!("refuses it, since the valid record at {at} shows that it was synced");
        let (severity, then) = match (walked.valid_far_behind, scene.options.is_sync) {
            (None, _) | (Some(_), Some(false)) => (Severity::Note, cuts),
            (Some(at), Some(true)) => (Severity::Damage, format!("the next start {}", refuses(at))),
            (Some(at), None) => {
                let then =
                    format!("{cuts}; with flushDiskType=SYNC_FLUSH, which is not known here, it {}", refuses(at));
                (Severity::Note, then)
            }
        };
        audit.findings.add(at_end(severity, format!("the log ends here ({reason}); {then}")));
    }
    if walked.fits == Some(false) {
        let text = "the last record below the durable point is another one than was noted: another program worked here";
        audit.findings.note(AREA, log, text);
    }
    if walked.clock_steps > 0 {
        let text = format!("{} records have an earlier store time than the one before them", walked.clock_steps);
        audit.findings.note(AREA, log, text);
    }
    audit.first_damage = match walked.holes.first() {
        Some(hole) => Some(hole.from),
        None => is_short.then_some(walked.end),
    };
    audit.tail_bytes = walked.tail_bytes;
    let figures = &mut audit.figures;
    figures.log_min = survey.min().0;
    figures.log_end = walked.end.0;
    figures.records = walked.records;
    figures.records_behind_damage = walked.behind_holes;
    figures.damaged_bytes = walked.holes.iter().map(|hole| hole.to.0 - hole.from.0).sum();
    figures.last_store_timestamp_ms = walked.last_store_timestamp_ms;
}
