//! What a start that believed the page cache still owes: the sync, and the proof from the disk itself.
//!
//! After the mere death of the process the kernel still holds every completed write, so a start may read the log through
//! the page cache and serve at once, while gigabytes are still on their way to the disk. Until [`CatchUp::run`] has
//! returned nothing of that part is durable, so nobody may claim it: the durable point stays where it was, the synced
//! offset starts there, and no acknowledgement that promises a sync is given. A power cut in between is an ordinary torn
//! tail above the old durable point: what was appended meanwhile continues the same history, and what was cut off was
//! zeroed durably before, so no stale record can follow.
//!
//! The sync alone proves too little. If an earlier one failed while the process died, the kernel has told nobody else, and the
//! lost pages look clean and right until they are dropped. So the part is read once more past the page cache.

use std::io;
use std::path::PathBuf;

use super::durable_point::DurablePoint;
use super::scan::{Found, LogScanner, ScanChecks};
use crate::disk::{Disk, OpenOptions};
use crate::log::segment_table::{SegmentError, SegmentTable, file_name};
use crate::types::PhysicalOffset;

/// Why the part that was taken from the page cache cannot become durable. Final.
#[derive(Debug, thiserror::Error)]
pub enum CatchUpError {
    /// A file could not be synced or read.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The page cache showed a record that the disk does not have.
    #[error("the disk lost what was written before the restart, from log offset {at} ({path}): {reason}")]
    Lost {
        /// The first record that is not there.
        at: PhysicalOffset,
        /// Its file.
        path: PathBuf,
        /// What is there instead.
        reason: String,
    },
}

/// See the module's text. Made by [`recover`](super::recover), run by a thread that may block, beside everything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatchUp {
    pub(super) commit_log: PathBuf,
    pub(super) table: SegmentTable,
    /// Where the part begins: the durable point of the last run.
    pub(super) from: PhysicalOffset,
    pub(super) point: DurablePoint,
    pub(super) checks: ScanChecks,
}

impl CatchUp {
    /// What may be claimed, and becomes the durable point, once [`Self::run`] has succeeded.
    pub fn point(&self) -> DurablePoint {
        self.point
    }

    /// Syncs files and names, then reads everything back from the disk. Takes as long as the disk needs for what
    /// the last process left unwritten. Segments that retention removes meanwhile are passed over.
    pub fn run(&self, disk: &dyn Disk) -> Result<(), CatchUpError> {
        sync_segments(disk, &self.commit_log, &self.table, self.from, self.point.offset)?;
        let checks = ScanChecks { direct_from: Some(self.from), ..self.checks };
        let mut scanner = LogScanner::new(disk, &self.commit_log, &self.table, checks);
        let mut position = self.from;
        while position < self.point.offset {
            let reason = match scanner.at(position) {
                Ok(Found::Record(view)) => {
                    position = PhysicalOffset(position.0 + view.total_size() as u64);
                    continue;
                }
                Ok(Found::Blank) => {
                    position = self.table.size.next_start(position);
                    continue;
                }
                Err(SegmentError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    position = self.table.size.next_start(position);
                    continue;
                }
                Ok(Found::End) => "zeros where a record should be".to_owned(),
                Ok(Found::Invalid(reason)) => reason,
                Err(error) => return Err(error.into()),
            };
            return Err(CatchUpError::Lost { at: position, path: scanner.path_of(position), reason });
        }
        Ok(())
    }
}

/// Makes the log's bytes in `[from, end)` durable, and the names of its files.
pub(super) fn sync_segments(
    disk: &dyn Disk,
    commit_log: &std::path::Path,
    table: &SegmentTable,
    from: PhysicalOffset,
    end: PhysicalOffset,
) -> Result<(), SegmentError> {
    let holds_some = |start: &&PhysicalOffset| **start <= end && table.size.next_start(**start) > from;
    for start in table.starts.iter().filter(holds_some) {
        let path = commit_log.join(file_name(*start));
        let write = OpenOptions { write: true, ..OpenOptions::default() };
        let file = match disk.open(&path, write) {
            // Removed by the cut, or by retention since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(SegmentError::io("open", &path))?,
        };
        file.sync_data().map_err(SegmentError::io("sync", &path))?;
    }
    disk.sync_directory(commit_log).map_err(SegmentError::io("sync directory", commit_log))
}
