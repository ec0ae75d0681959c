//! Queues at the start: finding their ends, cutting them to the log, and adding what the log has and they lack.
//!
//! Order at a start: [`QueueStore::load`], then [`QueueStore::truncate`] of all queues to what is certain, then
//! [`QueueStore::rebuild_append`] of each record from there, then [`QueueStore::correct_minimum`]. One thread does all this
//! before the writer, the flush thread and any reader exist; it may hand the chunk pool to the writer afterwards.
//!
//! Entries are written in order, so a file is a row of valid entries and then zeros, and its end is found by bisection;
//! the entries before it are then checked one by one. After a power cut this may be untrue above the last sync: pages can
//! be missing in between. Cutting every queue at the log offset up to which queue files were synced removes such places,
//! since bisection for "invalid, or at or behind that offset" does not care what lies behind the first of them. What is
//! behind an end becomes zeros, so that no later start takes it for entries again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chunk::ChunkPool;
use super::entry::{ENTRY_LENGTH, QueueEntry};
use super::error::QueueError;
use super::files::{FileSpan, file_name};
use super::limits::{ENTRY_BYTES, VERIFIED_ENTRIES};
use super::queue::Queue;
use super::store::QueueStore;
use crate::disk::{DiskFile, OpenOptions};
use crate::types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp};

/// What a load found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Queues with a directory.
    pub queues: u64,
    /// Files of all queues.
    pub files: u64,
    /// Entries that were cut because something in front of them was invalid.
    pub cut_entries: u64,
    /// What lies there and is neither queue nor queue file. It is left alone.
    pub foreign: Vec<PathBuf>,
    /// Queues that were not loaded because of this.
    pub short: Vec<ShortFiles>,
}

/// Files of a queue that were whole and are not any more: there is a gap between them, or the last one is too short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortFiles {
    /// Topic of the queue.
    pub topic: String,
    /// Its number.
    pub queue_id: QueueId,
    /// The files that come first have room for no entry from here on.
    pub reach: QueueOffset,
    /// Where something is missing.
    pub path: PathBuf,
    /// What is wrong there.
    pub reason: String,
}

impl From<ShortFiles> for QueueError {
    fn from(short: ShortFiles) -> Self {
        Self::Damaged { path: short.path, reason: short.reason }
    }
}

/// How the last process left the queue files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilesLeft {
    /// A clean stop: they are whole.
    Whole,
    /// The process died, the machine did not: what was written is there, the last file of a queue may be short.
    Written,
    /// The machine may have died: what was not synced may be missing in any part.
    Uncertain,
}

/// The files in the folder of a queue.
enum Listed {
    Whole(FileSpan),
    /// As in [`ShortFiles`]; the reach in bytes.
    Short {
        reach: u64,
        path: PathBuf,
        reason: String,
    },
}

/// What became of a record's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebuilt {
    /// It was added.
    Appended,
    /// The queue already had it.
    Present,
}

impl QueueStore {
    /// Loads every queue below the root. What is behind each end is wiped when it is uncertain. Refuses files of a wrong length,
    /// foreign names and gaps between files, and names them; where the files should be whole it leaves queues out that lack only
    /// parts of them, and reports these.
    /// Source: RocketMQ `MappedFileQueue.load`, `ConsumeQueue.recover`.
    pub fn load(&self, left: FilesLeft) -> Result<LoadReport, QueueError> {
        let mut report = LoadReport::default();
        if !self.exists(&self.root)? {
            return Ok(report);
        }
        for topic in self.disk.list(&self.root).map_err(QueueError::io("list", &self.root))? {
            if !topic.is_directory {
                continue;
            }
            let directory = self.topic_directory(&topic.name);
            for entry in self.disk.list(&directory).map_err(QueueError::io("list", &directory))? {
                let path = directory.join(&entry.name);
                let number = entry.name.parse::<u32>().ok().filter(|number| number.to_string() == entry.name);
                let Some(number) = number.filter(|_| entry.is_directory) else {
                    report.foreign.push(path);
                    continue;
                };
                self.load_queue(&topic.name, QueueId(number), &path, left, &mut report)?;
            }
        }
        Ok(report)
    }

    fn load_queue(
        &self,
        topic: &str,
        queue_id: QueueId,
        directory: &Path,
        left: FilesLeft,
        report: &mut LoadReport,
    ) -> Result<(), QueueError> {
        let mut span = match self.list_files(directory, left, &mut report.foreign)? {
            Listed::Whole(span) => span,
            Listed::Short { reach, path, reason } if left == FilesLeft::Whole => {
                let (topic, reach) = (topic.to_owned(), QueueOffset(reach / ENTRY_BYTES));
                report.short.push(ShortFiles { topic, queue_id, reach, path, reason });
                return Ok(());
            }
            Listed::Short { path, reason, .. } => return Err(QueueError::Damaged { path, reason }),
        };
        let queue = self.get_or_create(topic, queue_id)?;
        report.queues += 1;
        report.files += (span.end - span.first) / self.file_bytes();
        if span.is_empty() {
            return Ok(());
        }
        *self.span(&queue) = span;
        let minimum = span.first / ENTRY_BYTES;
        // Until its end is known the queue counts as full, so that entries can be read.
        queue.reset(minimum, span.end / ENTRY_BYTES, PhysicalOffset(0));
        let mut length = minimum;
        while span.end > span.first {
            let start = span.end - self.file_bytes();
            length = self.end_in_file(&queue, start)?;
            if length > start / ENTRY_BYTES || start == span.first {
                break;
            }
            // Created for an entry that was not written: the queue ends in the file before.
            self.remove_file(&queue, start)?;
            span.end = start;
        }
        span.filled = length * ENTRY_BYTES;
        *self.span(&queue) = span;
        let verified = self.verify(&queue, minimum, length)?;
        report.cut_entries += length - verified;
        let end = self.physical_end_at(&queue, minimum, verified)?;
        queue.reset(minimum, verified, end);
        if left == FilesLeft::Uncertain || verified < length {
            self.cut_files(&queue, verified)?;
        }
        Ok(())
    }

    /// The span of a queue directory. An empty last file is deleted; unless the files are whole a short last one is
    /// extended: its length was never made durable, or the process died while it cut the file.
    fn list_files(&self, directory: &Path, left: FilesLeft, foreign: &mut Vec<PathBuf>) -> Result<Listed, QueueError> {
        let entries = self.disk.list(directory).map_err(QueueError::io("list", directory))?;
        let mut span = FileSpan::default();
        let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        let (files, others): (Vec<_>, Vec<_>) =
            entries.iter().filter(|entry| !entry.is_directory).partition(|entry| is_number(&entry.name));
        foreign.extend(others.iter().map(|entry| directory.join(&entry.name)));
        let mut files = files.into_iter().peekable();
        while let Some(entry) = files.next() {
            let path = directory.join(&entry.name);
            let start = entry.name.parse::<u64>().ok().filter(|&start| file_name(start) == entry.name);
            let Some(start) = start.filter(|start| start % self.file_bytes() == 0) else {
                let bytes = self.file_bytes();
                return Err(damaged(path, &format!("its name is not a multiple of {bytes} in 20 digits")));
            };
            if entry.length == 0 && files.peek().is_none() {
                self.disk.remove_file(&path).map_err(QueueError::io("remove empty queue file", &path))?;
                break;
            }
            if left != FilesLeft::Whole && entry.length < self.file_bytes() && files.peek().is_none() {
                let options = OpenOptions { write: true, ..OpenOptions::default() };
                let file = self.disk.open(&path, options).map_err(QueueError::io("open queue file", &path))?;
                file.set_length(self.file_bytes()).map_err(QueueError::io("extend queue file", &path))?;
            } else if entry.length != self.file_bytes() {
                let (found, wanted) = (entry.length, self.file_bytes());
                let reason = format!("it has {found} bytes instead of {wanted}");
                if found < wanted && files.peek().is_none() {
                    return Ok(Listed::Short { reach: start.saturating_add(found), path, reason });
                }
                return Err(damaged(path, &reason));
            }
            if span.is_empty() {
                span = FileSpan { first: start, end: start, filled: start };
            } else if span.end != start {
                let (path, reason) =
                    (directory.join(file_name(span.end)), "it is missing between two others".to_owned());
                return Ok(Listed::Short { reach: span.end, path, reason });
            }
            span.end = start.checked_add(self.file_bytes()).ok_or_else(|| damaged(path, "its name is too large"))?;
        }
        Ok(Listed::Whole(span))
    }

    /// The first entry that a queue's files hold of a message.
    pub fn first_entry(&self, queue: &Queue) -> Result<Option<QueueEntry>, QueueError> {
        let (minimum, end) = queue.bounds();
        let first = self.partition(queue, minimum.0, end.0, |entry| entry.is_none_or(|entry| entry.is_blank()))?;
        let mut entry = [QueueEntry::BLANK];
        let has_one = first < end.0 && self.read_entries(queue, QueueOffset(first), &mut entry)? == 1;
        Ok(has_one.then_some(entry[0]))
    }

    /// Offset of the first invalid entry of a file, by bisection; the file's end if there is none.
    fn end_in_file(&self, queue: &Queue, start: u64) -> Result<u64, QueueError> {
        let path = self.file_path(queue, start);
        let file = self.handles.open(&*self.disk, (queue.identity(), start), &path)?;
        let (mut low, mut high) = (0, self.config.file_entries);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut bytes = [0; ENTRY_LENGTH];
            read_exactly(&*file, &mut bytes, middle * ENTRY_BYTES, &path)?;
            if QueueEntry::from_bytes(&bytes).is_some() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(start / ENTRY_BYTES + low)
    }

    /// Checks the last entries below `length`: valid, and in the order of the log. Returns where the queue really ends.
    fn verify(&self, queue: &Queue, minimum: u64, length: u64) -> Result<u64, QueueError> {
        let mut offset = length.saturating_sub(VERIFIED_ENTRIES).max(minimum);
        let mut least = PhysicalOffset(0);
        let mut entries = vec![QueueEntry::default(); VERIFIED_ENTRIES as usize];
        while offset < length {
            let wanted = (length - offset).min(VERIFIED_ENTRIES) as usize;
            let count = match self.read_entries(queue, QueueOffset(offset), &mut entries[..wanted]) {
                Ok(count) => count,
                Err(QueueError::Missing { .. }) => return Ok(offset),
                Err(error) => return Err(error),
            };
            for entry in &entries[..count] {
                if entry.is_blank() && least == PhysicalOffset(0) {
                    offset += 1;
                    continue;
                }
                if entry.physical < least {
                    return Ok(offset);
                }
                least = entry.physical;
                offset += 1;
            }
        }
        Ok(length)
    }

    /// End in the log of the last entry below `length`; 0 if there is none or only blanks.
    fn physical_end_at(&self, queue: &Queue, minimum: u64, length: u64) -> Result<PhysicalOffset, QueueError> {
        let mut last = [QueueEntry::BLANK];
        if length > minimum {
            self.read_entries(queue, QueueOffset(length - 1), &mut last)?;
        }
        Ok(if last[0].is_blank() { PhysicalOffset(0) } else { last[0].physical_end() })
    }

    /// Ends the files at entry `kept`: removes those behind it, newest first, and makes the rest of the last one zeros by
    /// cutting it short and extending it again. A death in between leaves a short last file, which the next load
    /// extends. The first file always stays: its name carries the queue's place.
    fn cut_files(&self, queue: &Queue, kept: u64) -> Result<(), QueueError> {
        let kept = kept * ENTRY_BYTES;
        let mut span = *self.span(queue);
        while span.end > span.first + self.file_bytes() && span.end - self.file_bytes() >= kept {
            self.remove_file(queue, span.end - self.file_bytes())?;
            span.end -= self.file_bytes();
        }
        span.filled = kept;
        *self.span(queue) = span;
        if kept >= span.end {
            return Ok(());
        }
        let start = span.end - self.file_bytes();
        let path = self.file_path(queue, start);
        let file = self.handles.open(&*self.disk, (queue.identity(), start), &path)?;
        let mut length = kept - start;
        if length == 0 {
            // An empty last file would be deleted by a load.
            file.write_all_at(&[0; ENTRY_LENGTH], 0).map_err(QueueError::io("wipe queue file", &path))?;
            length = ENTRY_BYTES;
        }
        file.set_length(length)
            .and_then(|()| file.set_length(self.file_bytes()))
            .map_err(QueueError::io("wipe queue file", &path))?;
        self.note_unsynced((queue.identity(), start), || path.clone());
        Ok(())
    }

    /// Makes what was removed of queues and topics durable: after a power cut none of it comes back.
    ///
    /// # Errors
    /// A directory cannot be listed or synced.
    pub fn sync_removals(&self) -> Result<(), QueueError> {
        if !self.exists(&self.root)? {
            return Ok(());
        }
        let topics = self.disk.list(&self.root).map_err(QueueError::io("list", &self.root))?;
        let topics = topics.iter().filter(|entry| entry.is_directory).map(|entry| self.topic_directory(&entry.name));
        for directory in topics.chain([self.root.clone()]) {
            self.sync_directory(&directory)?;
        }
        Ok(())
    }

    /// Durably, so that of several files that go from one end none can come back without those next to it: that would leave a
    /// gap.
    pub(super) fn remove_file(&self, queue: &Queue, start: u64) -> Result<(), QueueError> {
        let (path, directory) = (self.file_path(queue, start), self.queue_directory(queue));
        let key = (queue.identity(), start);
        self.handles.forget(key);
        self.disk.remove_file(&path).map_err(QueueError::io("remove queue file", &path))?;
        // A reader may have opened it in between.
        self.handles.forget(key);
        self.forget_unsynced_file(key);
        self.sync_directory(&directory)
    }

    fn sync_directory(&self, directory: &Path) -> Result<(), QueueError> {
        self.check_sync(|| {
            let synced = self.disk.sync_directory(directory);
            synced.map_err(QueueError::sync("sync queue directory", directory))
        })
    }

    /// Cuts the entries of records at or behind `log_end`. Flushes the queue first if it holds entries in memory. Returns
    /// how many entries were cut. Source: RocketMQ `ConsumeQueue.truncateDirtyLogicFiles`.
    pub fn truncate(&self, queue: &Queue, log_end: PhysicalOffset) -> Result<u64, QueueError> {
        self.flush_queue(queue)?;
        let (minimum, length) = (queue.bounds().0.0, queue.published().0);
        let kept = self.truncation_point(queue, minimum, length, log_end)?;
        if kept == length {
            return Ok(0);
        }
        let end = self.physical_end_at(queue, minimum, kept)?;
        self.cut_files(queue, kept)?;
        queue.reset(minimum, kept, end);
        Ok(length - kept)
    }

    pub(super) fn truncation_point(
        &self,
        queue: &Queue,
        mut low: u64,
        mut high: u64,
        log_end: PhysicalOffset,
    ) -> Result<u64, QueueError> {
        while low < high {
            let middle = low + (high - low) / 2;
            let mut entry = [QueueEntry::default()];
            let stays = match self.read_entries(queue, QueueOffset(middle), &mut entry) {
                Ok(count) => count == 1 && (entry[0].is_blank() || entry[0].physical < log_end),
                Err(QueueError::Missing { .. }) => false,
                Err(error) => return Err(error),
            };
            if stays {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// [`Self::truncate`] of every queue; the number of entries cut.
    pub fn truncate_all(&self, log_end: PhysicalOffset) -> Result<u64, QueueError> {
        self.queues().iter().try_fold(0, |sum, queue| Ok(sum + self.truncate(queue, log_end)?))
    }

    /// Lets a queue without messages begin at `offset`: the next message gets it. Removes files that hold only blanks.
    /// Recovery only. Panics if the queue has messages.
    pub fn start_at(&self, queue: &Queue, offset: QueueOffset) -> Result<(), QueueError> {
        assert!(queue.physical_end() == PhysicalOffset(0), "a queue with messages keeps its offsets");
        let mut span = *self.span(queue);
        while span.end > span.first {
            span.end -= self.file_bytes();
            self.remove_file(queue, span.end)?;
        }
        *self.span(queue) = FileSpan::default();
        queue.reset(offset.0, offset.0, PhysicalOffset(0));
        Ok(())
    }

    /// As [`Self::start_at`] for a queue all of whose messages have gone from the log, so that it need not keep their entries.
    pub fn skip_to(&self, queue: &Queue, offset: QueueOffset) -> Result<(), QueueError> {
        let (minimum, end) = (queue.bounds().0.0, queue.appended_end().0);
        queue.reset(minimum, end, PhysicalOffset(0));
        self.start_at(queue, offset)
    }

    /// Adds the entry of a record that the log holds at queue offset `offset`, if the queue lacks it; it is published at
    /// once. May be called for the same record any number of times. A queue without messages begins wherever its first
    /// record says. Recovery only: flushes by itself when memory runs out.
    ///
    /// Source: RocketMQ `ConsumeQueue.putMessagePositionInfo`; unlike it, an offset above the queue's end is an error.
    pub fn rebuild_append(
        &self,
        pool: &ChunkPool,
        queue: &Queue,
        offset: QueueOffset,
        entry: QueueEntry,
        store_timestamp: StoreTimestamp,
    ) -> Result<Rebuilt, QueueError> {
        if entry.physical_end() <= queue.physical_end() {
            return Ok(Rebuilt::Present);
        }
        let end = queue.appended_end();
        if queue.physical_end() == PhysicalOffset(0) && offset != end {
            self.start_at(queue, offset)?;
        } else if offset < end {
            return Ok(Rebuilt::Present);
        } else if offset > end {
            let (topic, queue_id) = (queue.topic().to_string(), queue.queue_id().0);
            return Err(QueueError::Gap { topic, queue_id, end, found: offset });
        }
        if queue.append(pool, entry).is_err() {
            self.flush_dirty()?;
            queue.append(pool, entry)?;
        }
        // Nobody waits during recovery.
        let _ = queue.publish(queue.appended_end(), store_timestamp);
        Ok(Rebuilt::Appended)
    }

    /// Published bounds of all queues: topic, number, minimum, maximum. Those of retired queues are nobody's any more.
    pub fn all_bounds(&self) -> Vec<(Arc<str>, QueueId, QueueOffset, QueueOffset)> {
        let bounds = |queue: &Arc<Queue>| {
            let (minimum, maximum) = queue.bounds();
            (Arc::clone(queue.topic()), queue.queue_id(), minimum, maximum)
        };
        self.queues().iter().filter(|queue| !queue.is_retired()).map(bounds).collect()
    }
}

fn damaged(path: PathBuf, reason: &str) -> QueueError {
    QueueError::Damaged { path, reason: reason.to_owned() }
}

fn read_exactly(file: &dyn DiskFile, buffer: &mut [u8], offset: u64, path: &Path) -> Result<(), QueueError> {
    let read = file.read_at(buffer, offset).map_err(QueueError::io("read queue file", path))?;
    if read == buffer.len() { Ok(()) } else { Err(damaged(path.to_path_buf(), "it became shorter while it was read")) }
}
