//! Finds the end of the log and decides between going on, cutting and refusing.
//!
//! Below the durable point nothing may be missing: a gap or damage there refuses the start and names file and offset.
//! Above it an invalid record is a torn tail, which is cut. A store without a durable point follows RocketMQ's rules
//! (`CommitLog.recoverNormally`, `recoverAbnormally`). A crash at any moment of a recovery is recovered by the next, and
//! recovering twice equals recovering once.
//!
//! The limit: all this rests on syncs that did what they said. A disk that lies about one loses messages under any program. What it
//! loses below the durable point is found as damage, if the start reads there; what it loses above, acknowledged or not, looks like
//! any torn tail and is cut.

use std::io;
use std::path::PathBuf;

use ringmq_protocol::record::RecordView;

use super::catch_up::{CatchUp, sync_segments};
use super::checkpoint::Checkpoint;
pub use super::cut::Discarded;
use super::cut::Tail;
use super::durable_point::{DurablePoint, DurablePointFile, LastRecord, StoredPoint};
use super::paths::StorePaths;
use super::scan::{Found, LogScanner, ScanChecks};
use crate::disk::{Disk, create_directories_durably};
use crate::log::segment_table::{SegmentError, SegmentSize, SegmentTable, load_table};
use crate::types::{PhysicalOffset, StoreTimestamp};

/// Whoever rebuilds something from the log: queues, index.
pub trait DispatchSink {
    /// From where on this sink has to see the log again, a record boundary; `None` when what the scan reads anyway is enough.
    /// It may get more, so it must drop what it knows already.
    fn dispatch_from(&self) -> Option<PhysicalOffset>;
    /// Takes the next valid record, in log order.
    fn record(&mut self, view: &RecordView<'_>, physical_offset: PhysicalOffset) -> io::Result<()>;
}

/// What became of the kernel since the log was written. By its boot id; only a caller who is sure says that it survived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KernelRun {
    /// It started anew, or nobody knows: only what was synced is certain.
    #[default]
    Restarted,
    /// The same one runs: reads see every completed write, so what lies below the durable point needs no look.
    Same,
    /// As [`Self::Same`]; besides, the page cache is believed and nothing waits for the disk. The caller claims nothing above
    /// the durable point before [`Recovered::catch_up`] has run. Not for a store that acknowledges syncs.
    SameWithoutSync,
}

/// How to recover.
#[derive(Debug, Clone, Copy)]
pub struct RecoveryOptions {
    /// Size of the log's files.
    pub segment_size: SegmentSize,
    /// Cut at damage below the durable point instead of refusing; what follows it is saved aside.
    pub salvage: bool,
    /// In SYNC_FLUSH the most bytes that one group can have had in flight: a valid record farther behind an invalid one
    /// means damage. `None` in ASYNC_FLUSH, where pages reach the disk in any order.
    pub max_unsynced_bytes: Option<u64>,
    /// RocketMQ's `messageIndexEnable && messageIndexSafe`: its rules then also ask the index's time stamp.
    pub index_is_safe: bool,
    /// Refuse records whose appended CRC property is missing or wrong (`forceVerifyPropCRC`). For stores in which every
    /// record has one.
    pub verify_property_crc: bool,
    /// Whether the page cache still holds what the last process wrote.
    pub kernel: KernelRun,
}

/// What recovery found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Where the next record goes; everything below is valid and, unless there is something to catch up with, synced;
    /// nothing but zeros follows.
    pub end: PhysicalOffset,
    /// Start of the first segment; equals `end` in an empty log.
    pub min: PhysicalOffset,
    /// Store time of the last record; 0 when there is none.
    pub last_store_timestamp: StoreTimestamp,
    /// The durable point in force; its offset is `end`, unless there is something to catch up with.
    pub durable_point: DurablePoint,
    /// What has to run before anything above the durable point may be called durable.
    pub catch_up: Option<CatchUp>,
    /// Whether the last stop was clean.
    pub was_clean: bool,
    /// What was cut off.
    pub discarded: Option<Discarded>,
    /// Where the verification began.
    pub verified_from: PhysicalOffset,
    /// What an operator should read, as sentences.
    pub messages: Vec<String>,
}

/// Why the store must not be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The log's files cannot be used.
    #[error(transparent)]
    Segments(#[from] SegmentError),
    /// A file beside the log cannot be used.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Bytes that were known to be on disk are not valid any more.
    #[error("{path} is damaged at byte {position} (log offset {offset}, which was synced up to {durable}): {reason}")]
    Damage {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        position: u64,
        /// Where in the log.
        offset: PhysicalOffset,
        /// How far the log was known synced.
        durable: PhysicalOffset,
        /// What is wrong there.
        reason: String,
    },
    /// The log is shorter than what was known to be on disk.
    #[error(
        "the log ends at {end} ({path}) although it was synced up to {durable}: files are missing or were replaced"
    )]
    EndsBelowDurablePoint {
        /// The file, or the folder when no file is left.
        path: PathBuf,
        /// Where the log ends.
        end: PhysicalOffset,
        /// How far it was known synced.
        durable: PhysicalOffset,
    },
    /// More valid records follow an invalid one than one group can hold.
    #[error(
        "{path} is damaged at byte {position} (log offset {offset}): {reason}; a valid record at {valid_at} shows that it was synced"
    )]
    ValidBehindInvalid {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        position: u64,
        /// Where in the log.
        offset: PhysicalOffset,
        /// What is wrong there.
        reason: String,
        /// The first valid record too far behind.
        valid_at: PhysicalOffset,
    },
    /// There are queues but no log.
    #[error("{path} holds no log although the store has queues; refusing, as starting would delete them")]
    LogMissing {
        /// The folder of the log.
        path: PathBuf,
    },
    /// A sink could not take a record.
    #[error("cannot rebuild queues or index from the record at {offset}: {source}")]
    Dispatch {
        /// The record.
        offset: PhysicalOffset,
        /// The cause.
        source: io::Error,
    },
}

fn io_error(action: &'static str) -> impl FnOnce(io::Error) -> RecoveryError {
    move |source| RecoveryError::Io { action, source }
}

/// Recovers the log of a store. The process lock is held and nothing else has the files open.
pub fn recover(
    disk: &dyn Disk,
    paths: &StorePaths,
    options: &RecoveryOptions,
    sink: &mut dyn DispatchSink,
) -> Result<Recovered, RecoveryError> {
    let table = load_table(disk, &paths.commit_log, options.segment_size)?;
    let was_clean = !disk.exists(&paths.abort()).map_err(io_error("look for abort"))?;
    let stored = DurablePointFile::load(disk, paths).map_err(io_error("read the durable point"))?;
    let recovery = Recovery { disk, paths, options, table: &table, was_clean, stored };
    match (table.min(), table.limit()) {
        (Some(min), Some(limit)) => recovery.recover_log(min, limit, sink),
        _ => recovery.recover_nothing(),
    }
}

/// Where sends wait for syncs at most one group of them is unsynced: the first valid record farther behind an invalid place, which no
/// torn tail has there. To be asked about an end at or above a durable point that fits the log.
pub(super) fn valid_far_behind(
    scanner: &mut LogScanner<'_>,
    end: PhysicalOffset,
    data_end: Option<PhysicalOffset>,
    group_bytes: u64,
) -> Result<Option<PhysicalOffset>, SegmentError> {
    // Behind the last data there are files that were only prepared, gigabytes of zeros: they are not looked at.
    scanner.find_record_in(PhysicalOffset(end.0.saturating_add(group_bytes)), data_end.unwrap_or(end))
}

struct Recovery<'a> {
    disk: &'a dyn Disk,
    paths: &'a StorePaths,
    options: &'a RecoveryOptions,
    table: &'a SegmentTable,
    was_clean: bool,
    stored: StoredPoint,
}

/// Where a scan stopped, and what it saw.
struct Scanned {
    end: PhysicalOffset,
    last: Option<LastRecord>,
    last_store_timestamp: StoreTimestamp,
    /// What is at the end if it is not just the end.
    invalid: Option<String>,
    /// Whether the last record below the durable point was met unchanged.
    fits: bool,
}

impl Recovery<'_> {
    fn recover_nothing(&self) -> Result<Recovered, RecoveryError> {
        let mut messages = self.table.warnings.clone();
        let mut end = PhysicalOffset(0);
        match self.stored {
            // An empty log that recovery has opened before.
            StoredPoint::Valid(DurablePoint { offset, last_record: None }) => end = offset,
            StoredPoint::Valid(point) if !self.options.salvage => {
                let path = self.paths.commit_log.clone();
                return Err(RecoveryError::EndsBelowDurablePoint { path, end, durable: point.offset });
            }
            StoredPoint::Valid(point) => {
                // Offsets never fall back: queues and index of the lost log may still point below.
                end = self.options.segment_size.next_start(point.offset);
                messages.push(format!("salvage: no log is left, a new one begins at {end}"));
            }
            StoredPoint::Missing | StoredPoint::Damaged => {}
        }
        if end.0 == 0 && !self.options.salvage && self.has_queues()? {
            return Err(RecoveryError::LogMissing { path: self.paths.commit_log.clone() });
        }
        let durable = DurablePoint { offset: end, last_record: None };
        self.write_point(durable)?;
        Ok(Recovered {
            end,
            min: end,
            last_store_timestamp: StoreTimestamp(0),
            durable_point: durable,
            catch_up: None,
            was_clean: self.was_clean,
            discarded: None,
            verified_from: end,
            messages,
        })
    }

    /// Writes the durable point, so that from now on this log is known to be ours.
    fn write_point(&self, point: DurablePoint) -> Result<(), RecoveryError> {
        create_directories_durably(self.disk, &self.paths.own()).map_err(io_error("create the folder ringmq"))?;
        let mut file = DurablePointFile::open(self.disk, self.paths).map_err(io_error("open the durable point"))?;
        if file.current() != StoredPoint::Valid(point) {
            file.replace(point).map_err(io_error("write the durable point"))?;
        }
        Ok(())
    }

    /// Whether any queue has a file with something in it.
    fn has_queues(&self) -> Result<bool, RecoveryError> {
        let list = |path: &PathBuf| match self.disk.list(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map_err(io_error("list the queues")),
        };
        let root = self.paths.consume_queue();
        for topic in list(&root)?.into_iter().filter(|entry| entry.is_directory) {
            let topic = root.join(topic.name);
            for queue in list(&topic)?.into_iter().filter(|entry| entry.is_directory) {
                if list(&topic.join(queue.name))?.iter().any(|file| file.length > 0) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn recover_log(
        &self,
        min: PhysicalOffset,
        limit: PhysicalOffset,
        sink: &mut dyn DispatchSink,
    ) -> Result<Recovered, RecoveryError> {
        let mut messages = self.table.warnings.clone();
        let point = self.usable_point(min, limit, &mut messages)?;
        let torn_sectors_from = point.map(|point| point.offset);
        // The point that stays in force until the rest has been caught up with.
        let kept_point = point.filter(|_| !self.was_clean && self.options.kernel == KernelRun::SameWithoutSync);
        let direct_from = torn_sectors_from.filter(|_| !self.was_clean && kept_point.is_none());
        let checks = ScanChecks { property_crc: self.options.verify_property_crc, torn_sectors_from, direct_from };
        let mut scanner = LogScanner::new(self.disk, &self.paths.commit_log, self.table, checks);
        let verified_from = match self.start_at_record(point, min, sink, &mut scanner)? {
            Some(start) => start,
            None => self.start(point, min, sink)?,
        };
        let scanned = self.scan(&mut scanner, verified_from, point, sink)?;
        let tail = Tail { disk: self.disk, paths: self.paths, table: self.table, end: scanned.end };
        let data_end = tail.data_end()?;
        if let Some(point) = point {
            self.check_against(point, &scanned, data_end, &mut scanner, &mut messages)?;
        }
        let discarded = tail.cut(data_end)?;
        if let Some(Discarded { from, bytes, saved_to }) = &discarded {
            let why = scanned.invalid.as_deref().unwrap_or("the log ends there");
            let saved = saved_to.display();
            messages.push(format!("cut the log at {from}: {why}; the {bytes} bytes behind it are in {saved}"));
        }
        tail.forget_cached()?;
        let reached = DurablePoint { offset: scanned.end, last_record: scanned.last };
        let (commit_log, table) = (&self.paths.commit_log, self.table);
        let catch_up = kept_point.filter(|kept| scanned.fits && kept.offset <= scanned.end).map(|kept| {
            let (commit_log, table) = (commit_log.clone(), table.clone());
            CatchUp { commit_log, table, from: kept.offset, point: reached, checks }
        });
        if catch_up.is_none() {
            sync_segments(self.disk, commit_log, table, verified_from, scanned.end)?;
            self.write_point(reached)?;
        }
        Ok(Recovered {
            end: scanned.end,
            min,
            last_store_timestamp: scanned.last_store_timestamp,
            durable_point: catch_up.as_ref().and(kept_point).unwrap_or(reached),
            catch_up,
            was_clean: self.was_clean,
            discarded,
            verified_from,
            messages,
        })
    }

    /// The durable point, if it says something about this log.
    fn usable_point(
        &self,
        min: PhysicalOffset,
        limit: PhysicalOffset,
        messages: &mut Vec<String>,
    ) -> Result<Option<DurablePoint>, RecoveryError> {
        let point = match self.stored {
            StoredPoint::Missing => return Ok(None),
            StoredPoint::Damaged => {
                messages.push("the durable point cannot be read; following RocketMQ's rules instead".to_string());
                return Ok(None);
            }
            StoredPoint::Valid(point) => point,
        };
        if point.offset > limit {
            if !self.options.salvage {
                let path = self.paths.commit_log.clone();
                return Err(RecoveryError::EndsBelowDurablePoint { path, end: limit, durable: point.offset });
            }
            messages
                .push(format!("salvage: the log ends before {limit} although it was synced up to {}", point.offset));
            return Ok(None);
        }
        if point.offset < min {
            messages.push(format!(
                "the durable point {} lies below the log, which begins at {min}: another program worked here; following RocketMQ's rules",
                point.offset
            ));
            return Ok(None);
        }
        Ok(Some(point))
    }

    /// With the kernel still the same: the last record below the durable point, which is exactly as it was noted, or the
    /// record farther down that the sink wants to begin with. `None` when that is not so.
    fn start_at_record(
        &self,
        point: Option<DurablePoint>,
        min: PhysicalOffset,
        sink: &dyn DispatchSink,
        scanner: &mut LogScanner<'_>,
    ) -> Result<Option<PhysicalOffset>, RecoveryError> {
        let Some(last) = point.and_then(|point| point.last_record) else { return Ok(None) };
        if self.was_clean || self.options.kernel == KernelRun::Restarted || last.start < min {
            return Ok(None);
        }
        let is_unchanged = match scanner.at(last.start)? {
            Found::Record(view) => LastRecord::of(last.start, view.bytes()) == last,
            _ => false,
        };
        let wanted = sink.dispatch_from().filter(|wanted| *wanted < last.start);
        Ok(match wanted {
            _ if !is_unchanged => None,
            None => Some(last.start),
            Some(wanted) if wanted < min => None,
            Some(wanted) => matches!(scanner.at(wanted)?, Found::Record(_) | Found::Blank).then_some(wanted),
        })
    }

    /// Where verification begins otherwise: always a segment's start.
    fn start(
        &self,
        point: Option<DurablePoint>,
        min: PhysicalOffset,
        sink: &dyn DispatchSink,
    ) -> Result<PhysicalOffset, RecoveryError> {
        let size = self.table.size;
        let start = match point {
            // The segment of the last record below the point, so that the point can be checked and its time is known.
            Some(DurablePoint { last_record: Some(last), .. }) => size.start_of(last.start),
            Some(point) => size.start_of_byte_before(point.offset),
            None => self.start_by_rocketmq(min, sink)?,
        };
        let wanted = sink.dispatch_from().map_or(start, |from| size.start_of(from));
        Ok(start.min(wanted).max(min))
    }

    /// RocketMQ's choice: the newest segment whose first record is valid and old enough to be in queues and index.
    fn start_by_rocketmq(&self, min: PhysicalOffset, sink: &dyn DispatchSink) -> Result<PhysicalOffset, RecoveryError> {
        let checkpoint = Checkpoint::load(self.disk, self.paths).map_err(io_error("read the checkpoint"))?;
        let checkpoint = checkpoint.unwrap_or_default();
        let oldest_needed_ms = match (self.was_clean, self.options.index_is_safe) {
            (true, true) => checkpoint.index_timestamp_ms,
            (true, false) => i64::MAX,
            (false, true) => checkpoint.min_timestamp_with_index_ms(),
            (false, false) => checkpoint.min_timestamp_ms(),
        };
        let dispatched = sink.dispatch_from().unwrap_or(PhysicalOffset(u64::MAX));
        let mut scanner = LogScanner::new(self.disk, &self.paths.commit_log, self.table, ScanChecks::default());
        for start in self.table.starts.iter().skip(1).rev() {
            if let Found::Record(view) = scanner.at(*start)? {
                let time_ms = view.store_timestamp();
                if time_ms != 0 && time_ms <= oldest_needed_ms && *start <= dispatched {
                    return Ok(*start);
                }
            }
        }
        Ok(min)
    }

    fn scan(
        &self,
        scanner: &mut LogScanner<'_>,
        from: PhysicalOffset,
        point: Option<DurablePoint>,
        sink: &mut dyn DispatchSink,
    ) -> Result<Scanned, RecoveryError> {
        let mut position = from;
        let mut last: Option<(PhysicalOffset, StoreTimestamp)> = None;
        // A last record that retention has removed since can no longer be compared.
        let expected = point.and_then(|point| point.last_record).filter(|last| last.start >= from);
        let mut met_record = expected.is_none();
        let invalid = loop {
            match scanner.at(position)? {
                Found::Record(view) => {
                    if expected.is_some_and(|expected| expected.start == position) {
                        met_record = expected == Some(LastRecord::of(position, view.bytes()));
                    }
                    let source = sink.record(&view, position);
                    source.map_err(|source| RecoveryError::Dispatch { offset: position, source })?;
                    let time_ms = u64::try_from(view.store_timestamp()).unwrap_or_default();
                    last = Some((position, StoreTimestamp(time_ms)));
                    position = PhysicalOffset(position.0 + view.total_size() as u64);
                }
                Found::Blank => position = self.table.size.next_start(position),
                Found::End => break None,
                Found::Invalid(reason) => break Some(reason),
            }
        };
        let last_record = match last {
            Some((start, _)) => match scanner.at(start)? {
                Found::Record(view) => Some(LastRecord::of(start, view.bytes())),
                _ => None,
            },
            None => None,
        };
        Ok(Scanned {
            end: position,
            last: last_record,
            last_store_timestamp: last.map_or(StoreTimestamp(0), |(_, time)| time),
            invalid,
            fits: met_record,
        })
    }

    /// Refuses what the durable point says cannot be, unless it is to be salvaged.
    fn check_against(
        &self,
        point: DurablePoint,
        scanned: &Scanned,
        data_end: Option<PhysicalOffset>,
        scanner: &mut LogScanner<'_>,
        messages: &mut Vec<String>,
    ) -> Result<(), RecoveryError> {
        let offset = scanned.end;
        let path = scanner.path_of(offset);
        let position = self.table.size.position_in_file(offset);
        let reason = scanned.invalid.clone().unwrap_or_else(|| "zeros where a record should be".to_string());
        let refusal = if offset < point.offset {
            if data_end.is_none() {
                Some(RecoveryError::EndsBelowDurablePoint { path, end: offset, durable: point.offset })
            } else {
                Some(RecoveryError::Damage { path, position, offset, durable: point.offset, reason })
            }
        } else if !scanned.fits {
            messages.push(format!(
                "the durable point {} does not fit the log, which is valid up to {offset}: another program worked here; taking the log as it is",
                point.offset
            ));
            None
        } else {
            let far_behind = match self.options.max_unsynced_bytes {
                Some(bytes) => valid_far_behind(scanner, offset, data_end, bytes)?,
                None => None,
            };
            far_behind.map(|valid_at| RecoveryError::ValidBehindInvalid { path, position, offset, reason, valid_at })
        };
        match refusal {
            Some(refusal) if !self.options.salvage => Err(refusal),
            Some(refusal) => {
                messages.push(format!("salvage: {refusal}"));
                Ok(())
            }
            None => Ok(()),
        }
    }
}
