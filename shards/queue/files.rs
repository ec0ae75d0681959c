//! Queue files: writing what the tail holds, and reading what it no longer holds.
//!
//! `consumequeue/{topic}/{queue id}/{20 digits}`: the name is the first byte of the file in its queue, the length is
//! always the full file size. A file is created and at once extended, sparsely, to that size. A temporary name with a
//! rename is avoided on purpose: a crash could leave the temporary name behind, and Java refuses to start on a name that
//! is no number; whereas the only thing that a crash between the two calls can leave is an empty last file, which both
//! brokers delete at the next start.
//!
//! Writers are the flush thread and, before it runs, recovery; both hold the queue's [`FileSpan`]. Readers take no lock
//! but the handle cache's.

use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};

use super::entry::{ENTRY_LENGTH, QueueEntry};
use super::error::QueueError;
use super::limits::{ENTRY_BYTES, FLUSH_BATCH_ENTRIES};
use super::queue::Queue;
use super::store::QueueStore;
use super::tail::TailRead;
use crate::disk::{DiskFile, OpenOptions};
use crate::types::QueueOffset;

/// Which files of a queue exist, in bytes of the queue; files are contiguous.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FileSpan {
    /// First byte of the first file.
    pub(crate) first: u64,
    /// One past the last byte of the last file; equal to `first` when there is no file.
    pub(crate) end: u64,
    /// Up to where entries or blanks were written.
    pub(crate) filled: u64,
}

impl FileSpan {
    pub(crate) fn is_empty(&self) -> bool {
        self.first == self.end
    }
}

/// Where an entry is on disk.
pub struct EntryLocation {
    /// The open file; keeps its descriptor valid while it is held.
    pub file: Arc<dyn DiskFile>,
    /// Position of the entry in the file, in bytes.
    pub file_offset: u64,
    /// Entries that can be read from there: up to the end of the file, or of what was flushed.
    pub available_entries: u64,
}

/// Name of the file that begins at a byte of its queue. Source: RocketMQ `UtilAll.offset2FileName`.
pub(crate) fn file_name(start: u64) -> String {
    format!("{start:020}")
}

fn entry_bytes(offset: u64) -> u64 {
    offset * ENTRY_BYTES
}

/// What one round of flushing reads entries into and writes from.
#[derive(Default)]
pub(crate) struct FlushBuffers {
    entries: Vec<QueueEntry>,
    bytes: Vec<u8>,
}

impl QueueStore {
    pub(crate) fn queue_directory(&self, queue: &Queue) -> PathBuf {
        self.topic_directory(queue.topic()).join(queue.queue_id().to_string())
    }

    pub(crate) fn file_path(&self, queue: &Queue, start: u64) -> PathBuf {
        self.queue_directory(queue).join(file_name(start))
    }

    /// First byte of the file that holds an entry.
    pub(crate) fn file_start(&self, offset: u64) -> u64 {
        let position = entry_bytes(offset);
        position - position % self.file_bytes()
    }

    pub(crate) fn span<'a>(&self, queue: &'a Queue) -> MutexGuard<'a, FileSpan> {
        queue.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the queue's published entries that are in no file yet, and returns their number. Flush thread only. After
    /// an error what was written before it stays flushed and the rest can be tried again.
    pub fn flush_queue(&self, queue: &Queue) -> Result<u64, QueueError> {
        self.flush_queue_with(queue, &mut FlushBuffers::default())
    }

    /// As [`Self::flush_queue`], with memory that serves for many queues.
    pub(crate) fn flush_queue_with(&self, queue: &Queue, buffers: &mut FlushBuffers) -> Result<u64, QueueError> {
        if queue.is_retired() {
            return Ok(0);
        }
        let mut span = self.span(queue);
        let published = queue.published().0;
        let begin = queue.flushed().0;
        let mut from = begin;
        let FlushBuffers { entries, bytes } = buffers;
        let batch = FLUSH_BATCH_ENTRIES.min(published - from) as usize;
        if entries.len() < batch {
            entries.resize(batch, QueueEntry::default());
        }
        while from < published {
            let file_start = self.file_start(from);
            let room = (file_start + self.file_bytes() - entry_bytes(from)) / ENTRY_BYTES;
            let wanted = room.min(published - from).min(batch as u64) as usize;
            let TailRead::Read(count) = queue.read(QueueOffset(from), &mut entries[..wanted]) else {
                return Err(self.missing(queue, from));
            };
            bytes.clear();
            bytes.extend(entries[..count].iter().flat_map(|entry| entry.to_bytes()));
            let file = self.prepare_file(queue, &mut span, from)?;
            let path = || self.file_path(queue, file_start);
            file.write_all_at(bytes, entry_bytes(from) - file_start).map_err(|source| QueueError::Io {
                action: "write queue file",
                path: path(),
                source,
            })?;
            self.note_unsynced((queue.identity(), file_start), path);
            from += count as u64;
            span.filled = entry_bytes(from);
            queue.set_flushed(from);
        }
        Ok(from - begin)
    }

    /// The file that entry `offset` goes to, created if need be, with blanks up to the entry if it is the queue's first.
    fn prepare_file(&self, queue: &Queue, span: &mut FileSpan, offset: u64) -> Result<Arc<dyn DiskFile>, QueueError> {
        let start = self.file_start(offset);
        let key = (queue.identity(), start);
        if start >= span.first && start < span.end {
            let file = self.handles.open(&*self.disk, key, &self.file_path(queue, start))?;
            if span.filled < entry_bytes(offset) {
                self.fill_blanks(&*file, &self.file_path(queue, start), span.filled.max(start) - start, offset)?;
            }
            return Ok(file);
        }
        assert!(span.is_empty() || start == span.end, "queue files follow each other");
        let directory = self.queue_directory(queue);
        if span.is_empty() {
            self.disk.create_directories(&directory).map_err(QueueError::io("create queue directory", &directory))?;
        } else {
            self.sync_previous(queue, start - self.file_bytes(), &directory)?;
        }
        let path = directory.join(file_name(start));
        let options = OpenOptions { create: true, ..OpenOptions::default() };
        let file = self.disk.open(&path, options).map_err(QueueError::io("create queue file", &path))?;
        if let Err(source) = file.set_length(self.file_bytes()) {
            drop(file);
            // Best effort: an empty file left behind is deleted at the next start.
            let _ = self.disk.remove_file(&path);
            return Err(QueueError::Io { action: "extend queue file", path, source });
        }
        self.note_new_directory_entry(directory);
        let file = self.handles.insert(key, Arc::from(file));
        if span.is_empty() {
            span.first = start;
            span.filled = start;
        }
        span.end = start + self.file_bytes();
        if span.filled < entry_bytes(offset) {
            self.fill_blanks(&*file, &path, 0, offset)?;
        }
        Ok(file)
    }

    /// Before a queue gets another file its last one must be durable, with name and length: then a power cut leaves
    /// neither a gap between files nor a short one before the last. Once per full file.
    fn sync_previous(&self, queue: &Queue, start: u64, directory: &Path) -> Result<(), QueueError> {
        let key = (queue.identity(), start);
        if !self.is_unsynced(key) {
            return Ok(());
        }
        let path = self.file_path(queue, start);
        let file = self.handles.open(&*self.disk, key, &path)?;
        self.check_sync(|| {
            file.sync_data().map_err(QueueError::sync("sync queue file", &path))?;
            self.disk.sync_directory(directory).map_err(QueueError::sync("sync queue directory", directory))
        })
    }

    /// Writes blanks from a byte of the file up to the place of entry `offset`.
    fn fill_blanks(&self, file: &dyn DiskFile, path: &Path, from: u64, offset: u64) -> Result<(), QueueError> {
        let blanks = QueueEntry::BLANK.to_bytes().repeat(FLUSH_BATCH_ENTRIES as usize);
        let end = entry_bytes(offset) - self.file_start(offset);
        let mut position = from;
        while position < end {
            let length = (end - position).min(blanks.len() as u64);
            file.write_all_at(&blanks[..length as usize], position).map_err(QueueError::io("fill queue file", path))?;
            position += length;
        }
        Ok(())
    }

    /// Reads consecutive entries from `from`, out of memory or the file. Blocks: not for shard threads. Returns how many
    /// were stored in `out`: 0 at the queue's end and below its minimum.
    pub fn read_entries(&self, queue: &Queue, from: QueueOffset, out: &mut [QueueEntry]) -> Result<usize, QueueError> {
        match queue.read(from, out) {
            TailRead::Read(count) => return Ok(count),
            TailRead::AtEnd => return Ok(0),
            TailRead::NotInMemory => {}
        }
        if from < queue.bounds().0 {
            return Ok(0);
        }
        match self.read_file(queue, from, out) {
            // The oldest files may have gone while we were looking.
            Err(_) if from < queue.bounds().0 || queue.is_retired() => Ok(0),
            answer => answer,
        }
    }

    /// Reads flushed entries from their file only.
    fn read_file(&self, queue: &Queue, from: QueueOffset, out: &mut [QueueEntry]) -> Result<usize, QueueError> {
        let location = self.locate(queue, from)?;
        let wanted = location.available_entries.min(out.len() as u64) as usize;
        let mut bytes = vec![0; wanted * ENTRY_LENGTH];
        let read = location.file.read_at(&mut bytes, location.file_offset).map_err(|source| QueueError::Io {
            action: "read queue file",
            path: self.file_path(queue, self.file_start(from.0)),
            source,
        })?;
        let mut count = 0;
        for (entry, bytes) in out.iter_mut().zip(bytes[..read].as_chunks::<ENTRY_LENGTH>().0) {
            let Some(found) = QueueEntry::from_bytes(bytes) else { break };
            *entry = found;
            count += 1;
        }
        if count == 0 && wanted > 0 { Err(self.missing(queue, from.0)) } else { Ok(count) }
    }

    /// The file and position of a flushed entry, opening the file if need be: may block.
    pub fn locate(&self, queue: &Queue, offset: QueueOffset) -> Result<EntryLocation, QueueError> {
        let start = self.file_start(offset.0);
        let key = (queue.identity(), start);
        let file = match self.handles.cached(key) {
            Some(file) => file,
            None => self.handles.open(&*self.disk, key, &self.file_path(queue, start))?,
        };
        self.location(queue, offset, file).ok_or_else(|| self.missing(queue, offset.0))
    }

    fn location(&self, queue: &Queue, offset: QueueOffset, file: Arc<dyn DiskFile>) -> Option<EntryLocation> {
        let start = self.file_start(offset.0);
        let file_offset = entry_bytes(offset.0) - start;
        let in_file = (self.file_bytes() - file_offset) / ENTRY_BYTES;
        let flushed = queue.flushed().0.checked_sub(offset.0).filter(|&count| count > 0)?;
        Some(EntryLocation { file, file_offset, available_entries: in_file.min(flushed) })
    }

    pub(crate) fn missing(&self, queue: &Queue, offset: u64) -> QueueError {
        QueueError::Missing {
            topic: queue.topic().to_string(),
            queue_id: queue.queue_id().0,
            offset: QueueOffset(offset),
        }
    }
}
