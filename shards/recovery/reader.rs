//! Reads records and queue entries of a store that no broker uses, for tools. Changes nothing.

use std::ops::ControlFlow;
use std::sync::Arc;

use ringmq_protocol::record::RecordView;

use super::audit::log::{Hole, scan_error};
use super::audit::segments::{Survey, survey};
use super::audit::{AuditError, AuditOptions, Findings};
use super::paths::StorePaths;
use super::scan::{Found, LogScanner, ScanChecks};
use crate::disk::{Disk, OpenOptions, ReadOnlyDisk};
use crate::log::segment_table::SegmentTable;
use crate::queue::QueueEntry;
use crate::queue::limits::ENTRY_BYTES;
use crate::types::{PhysicalOffset, QueueId, QueueOffset};

/// What lies in the log.
#[derive(Debug)]
pub enum Item<'a> {
    /// A valid record.
    Record(&'a RecordView<'a>, PhysicalOffset),
    /// The blank at the end of a file; it ends with the file.
    Blank(PhysicalOffset, PhysicalOffset),
    /// Bytes that are no record, with a valid one behind them.
    Hole(&'a Hole),
    /// The end, and what is there if it is not just the end.
    End(PhysicalOffset, Option<&'a str>),
}

/// A store that is only read.
pub struct StoreReader<'a> {
    disk: ReadOnlyDisk,
    paths: &'a StorePaths,
    options: AuditOptions,
    survey: Survey,
}

impl<'a> StoreReader<'a> {
    /// Looks at the files of the log.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn open(disk: &Arc<dyn Disk>, paths: &'a StorePaths, options: AuditOptions) -> Result<Self, AuditError> {
        let survey = survey(&**disk, paths, options.segment_bytes, &mut Findings::default())?;
        let disk = ReadOnlyDisk::new(Arc::clone(disk)).padded(&paths.commit_log, survey.size.bytes());
        Ok(Self { disk, paths, options, survey })
    }

    /// The files of the log.
    pub fn survey(&self) -> &Survey {
        &self.survey
    }

    /// Gives everything from the start of the file that holds `from` on, in order, until `visit` breaks off or the log ends.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn each(
        &self,
        from: PhysicalOffset,
        visit: &mut dyn FnMut(Item<'_>) -> ControlFlow<()>,
    ) -> Result<(), AuditError> {
        for run in &self.survey.runs {
            let Some(limit) = run.limit().filter(|limit| *limit > from) else { continue };
            let start = run.starts.iter().rev().find(|start| **start <= from).or(run.starts.first()).copied();
            let Some(start) = start else { continue };
            if self.each_in(run, start, limit, visit)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn each_in(
        &self,
        run: &SegmentTable,
        start: PhysicalOffset,
        limit: PhysicalOffset,
        visit: &mut dyn FnMut(Item<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, AuditError> {
        let mut scanner = LogScanner::new(&self.disk, &self.paths.commit_log, run, ScanChecks::default());
        let mut position = start;
        while position < limit {
            let (problem, is_plain) = match scanner.at(position).map_err(scan_error)? {
                Found::Record(view) => {
                    let at = position;
                    position = PhysicalOffset(position.0 + view.total_size() as u64);
                    if visit(Item::Record(&view, at)).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    continue;
                }
                Found::Blank => {
                    let next = run.size.next_start(position);
                    if visit(Item::Blank(position, next)).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    position = next;
                    continue;
                }
                Found::End => ("zeros where a record should be".to_string(), true),
                Found::Invalid(reason) => (reason, false),
            };
            let next = scanner.find_record_from(PhysicalOffset(position.0 + 1)).map_err(scan_error)?;
            let flow = match next {
                Some(to) => {
                    let hole = Hole { from: position, to, reason: problem };
                    position = to;
                    visit(Item::Hole(&hole))
                }
                None => {
                    let flow = visit(Item::End(position, (!is_plain).then_some(problem.as_str())));
                    position = limit;
                    flow
                }
            };
            if flow.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The entry of a queue, `None` when no file has a valid one there.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn queue_entry(
        &self,
        topic: &str,
        queue_id: QueueId,
        offset: QueueOffset,
    ) -> Result<Option<QueueEntry>, AuditError> {
        let file_bytes = self.options.queue_file_entries * ENTRY_BYTES;
        let Some(position) = offset.0.checked_mul(ENTRY_BYTES) else { return Ok(None) };
        let start = position - position % file_bytes;
        let directory = self.paths.consume_queue().join(topic).join(queue_id.to_string());
        let path = directory.join(format!("{start:020}"));
        let file = match self.disk.open(&path, OpenOptions::default()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(AuditError::io("open", &path))?,
        };
        let mut bytes = [0; ENTRY_BYTES as usize];
        let read = file.read_at(&mut bytes, position - start).map_err(AuditError::io("read", &path))?;
        Ok((read == bytes.len()).then(|| QueueEntry::from_bytes(&bytes)).flatten())
    }
}
