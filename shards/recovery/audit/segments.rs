//! Which files of the log there are, without touching any: unlike a start, which removes an empty last one and refuses the
//! rest, this says what is wrong with each and goes on with what can be read.

use std::io;
use std::path::PathBuf;

use super::{AuditError, Findings, Severity};
use crate::disk::{DirectoryEntry, Disk};
use crate::log::segment_table::{DEFAULT_SEGMENT_BYTES, SegmentSize, SegmentTable, file_name, parse_file_name};
use crate::recovery::paths::StorePaths;
use crate::types::PhysicalOffset;

const AREA: &str = "log";

/// The files of a log.
#[derive(Debug, Clone)]
pub struct Survey {
    /// The size that most files have.
    pub size: SegmentSize,
    /// Files with the name of a segment.
    pub files: u64,
    /// Files without gaps in between, oldest first. A whole log has one such run.
    pub runs: Vec<SegmentTable>,
    /// Whether a start would refuse these files.
    pub is_refused: bool,
}

impl Survey {
    /// First byte that any file holds.
    pub fn min(&self) -> PhysicalOffset {
        self.runs.first().and_then(SegmentTable::min).unwrap_or_default()
    }

    /// Offset behind the last file.
    pub fn limit(&self) -> PhysicalOffset {
        self.runs.last().and_then(SegmentTable::limit).unwrap_or_default()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.starts.len() as u64 * self.size.bytes()).sum()
    }
}

/// Lists a folder; nothing when it is missing.
pub(crate) fn list(disk: &dyn Disk, path: &std::path::Path) -> Result<Vec<DirectoryEntry>, AuditError> {
    match disk.list(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(AuditError::io("list", path)),
    }
}

/// Finds out the size of the files: the length that most have, if all names fit it; else the distance of the names; else what is
/// configured. A single file of an odd length is taken for one that was cut short.
fn size_of(segments: &[(PhysicalOffset, DirectoryEntry)], configured: u64) -> SegmentSize {
    let fits = |size: u64| {
        SegmentSize::new(size).is_ok()
            && segments.iter().all(|(start, entry)| start.0 % size == 0 && entry.length <= size)
    };
    let count = |length: u64| segments.iter().filter(|(_, entry)| entry.length == length).count();
    let usual = segments.iter().map(|(_, entry)| entry.length).max_by_key(|length| (count(*length), *length));
    let usual = usual.filter(|length| segments.len() > 1 || length.is_power_of_two());
    let distance = segments.windows(2).map(|pair| pair[1].0.0 - pair[0].0.0).min();
    let chosen = [usual, distance, Some(configured)].into_iter().flatten().find(|size| fits(*size));
    SegmentSize::new(chosen.unwrap_or(configured))
        .or_else(|_| SegmentSize::new(DEFAULT_SEGMENT_BYTES))
        .expect("the default is a size")
}

/// Looks at the folder of the log.
///
/// # Errors
/// The folder cannot be listed.
pub fn survey(
    disk: &dyn Disk,
    paths: &StorePaths,
    configured: u64,
    findings: &mut Findings,
) -> Result<Survey, AuditError> {
    let directory = &paths.commit_log;
    let mut segments = Vec::new();
    for entry in list(disk, directory)?.into_iter().filter(|entry| !entry.is_directory) {
        match parse_file_name(&entry.name) {
            Some(start) => segments.push((start, entry)),
            None => findings.note(AREA, &directory.join(&entry.name), "no file of the log, it is left alone"),
        }
    }
    segments.sort_by_key(|(start, _)| *start);
    if let Some((_, last)) = segments.pop_if(|(_, last)| last.length == 0) {
        let path = directory.join(&last.name);
        findings.note(AREA, &path, "an empty last file, which the next start removes");
    }
    let size = size_of(&segments, configured);
    let files = segments.len() as u64;
    let mut runs: Vec<SegmentTable> = Vec::new();
    let mut is_refused = false;
    if files > 0 && size.bytes() != configured {
        let text = format!("files have {} bytes, the configured size is {configured}", size.bytes());
        findings.note(AREA, directory, text);
    }
    for (start, entry) in segments {
        let path: PathBuf = directory.join(&entry.name);
        if size.position_in_file(start) != 0 {
            let text = format!("the file does not start at a multiple of {} bytes", size.bytes());
            findings.at(Severity::Damage, AREA, &path, text);
            is_refused = true;
            continue;
        }
        if entry.length != size.bytes() {
            let text = format!("the file has {} bytes instead of {}", entry.length, size.bytes());
            findings.at(Severity::Damage, AREA, &path, text);
            is_refused = true;
        }
        match runs.last_mut() {
            Some(run) if run.limit() == Some(start) => run.starts.push(start),
            other => {
                if let Some(limit) = other.and_then(|run| run.limit()) {
                    let text = format!("files are missing between offsets {limit} and {start}");
                    findings.at(Severity::Damage, AREA, &directory.join(file_name(limit)), text);
                    is_refused = true;
                }
                runs.push(SegmentTable { size, starts: vec![start], warnings: Vec::new() });
            }
        }
    }
    Ok(Survey { size, files, runs, is_refused })
}
