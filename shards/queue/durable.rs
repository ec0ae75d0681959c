//! Which queue files are not synced, and what a failed sync means.
//!
//! A sync that fails loses what it should have written, and the next one succeeds although that is still missing; the pages
//! look right until the kernel drops them. So a failed sync is final: nothing is forgotten, nothing is claimed any more
//! ([`QueueError::is_final`]), and the next start makes the entries anew from the log.
//!
//! A start that believed the page cache ([`QueueStore::owe_proof`]) may have inherited such pages from a process that died
//! with the error. After its first sync it therefore compares the entries that nobody had synced with the disk itself.
//!
//! Owner: the flush thread, and before it runs, recovery.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::error::QueueError;
use super::handles::FileKey;
use super::limits::{ENTRY_BYTES, SINGLE_SYNCS};
use super::queue::Queue;
use super::store::{QueueStore, locked};
use crate::disk::{AlignedBuffer, DIRECT_ALIGNMENT, OpenOptions};
use crate::types::PhysicalOffset;

/// Bytes per read when files are compared with the disk.
const PROOF_BYTES: u64 = 1 << 20;

/// What is known of the durability of queue files.
#[derive(Default)]
pub(crate) struct Durable {
    unsynced: Mutex<Unsynced>,
    failed: AtomicBool,
    owed: Mutex<Vec<Owed>>,
}

#[derive(Default)]
struct Unsynced {
    files: HashMap<FileKey, PathBuf>,
    directories: BTreeSet<PathBuf>,
}

/// Entries of a queue that came from the page cache, in bytes of the queue.
struct Owed {
    queue: Arc<Queue>,
    from: u64,
    end: u64,
}

impl QueueStore {
    /// After an unclean stop: whatever the last process wrote, names included, may not be durable, so the next sync covers
    /// every file.
    pub fn mark_all_unsynced(&self) {
        for queue in self.queues() {
            let span = *self.span(&queue);
            let mut start = span.first;
            while start < span.end {
                self.note_unsynced((queue.identity(), start), || self.file_path(&queue, start));
                start += self.file_bytes();
            }
            if !span.is_empty() {
                self.note_new_directory_entry(self.queue_directory(&queue));
            }
        }
    }

    /// The entries of records at or behind `durable`, a log offset, were only in the page cache when this process began: the
    /// first sync must be followed by a look at the disk. Recovery only.
    pub fn owe_proof(&self, durable: PhysicalOffset) -> Result<(), QueueError> {
        for queue in self.queues().into_iter().filter(|queue| queue.physical_end() > durable) {
            let (minimum, end) = (queue.bounds().0.0, queue.flushed().0);
            let from = self.truncation_point(&queue, minimum, end, durable)?;
            let owed = Owed { queue, from: from * ENTRY_BYTES, end: end * ENTRY_BYTES };
            locked(&self.durable.owed).push(owed);
        }
        Ok(())
    }

    /// Files that were written since they were last synced.
    pub fn unsynced_files(&self) -> usize {
        locked(&self.durable.unsynced).files.len()
    }

    /// Makes everything that was flushed durable. The checkpoint's time of the queues may then become the store time of
    /// the log's confirmed end as read before the preceding [`Self::flush_dirty`]. Returns the number of files synced. After
    /// an error everything is as unsynced as before; after a final one no later call succeeds.
    pub fn sync(&self) -> Result<usize, QueueError> {
        let taken = std::mem::take(&mut *locked(&self.durable.unsynced));
        let count = taken.files.len();
        match self.check_sync(|| self.sync_all(&taken).and_then(|()| self.prove())) {
            Ok(()) => Ok(count),
            Err(error) => {
                let mut unsynced = locked(&self.durable.unsynced);
                unsynced.files.extend(taken.files);
                unsynced.directories.extend(taken.directories);
                Err(error)
            }
        }
    }

    /// Runs what syncs, unless a sync has failed before; remembers for ever when this one does.
    pub(crate) fn check_sync(&self, sync: impl FnOnce() -> Result<(), QueueError>) -> Result<(), QueueError> {
        if self.durable.failed.load(Ordering::Acquire) {
            return Err(QueueError::SyncedNoMore);
        }
        let result = sync();
        if result.as_ref().is_err_and(QueueError::is_final) {
            self.durable.failed.store(true, Ordering::Release);
        }
        result
    }

    fn sync_all(&self, unsynced: &Unsynced) -> Result<(), QueueError> {
        if unsynced.files.len() + unsynced.directories.len() > SINGLE_SYNCS {
            let synced = self.disk.sync_file_system(&self.root);
            return synced.map_err(QueueError::sync("sync the file system of", &self.root));
        }
        for (key, path) in &unsynced.files {
            // A descriptor opened only now still reports write-back errors that nobody has seen.
            let file = match self.handles.cached(*key) {
                Some(file) => file,
                None => {
                    let options = OpenOptions { write: true, ..OpenOptions::default() };
                    match self.disk.open(path, options) {
                        Ok(file) => Arc::from(file),
                        // Retention or the deletion of a topic has removed it.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                        Err(error) => return Err(QueueError::io("open queue file", path)(error)),
                    }
                }
            };
            file.sync_data().map_err(QueueError::sync("sync queue file", path))?;
        }
        for directory in &unsynced.directories {
            match self.disk.sync_directory(directory) {
                // The deletion of a topic has removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                synced => synced.map_err(QueueError::sync("sync queue directory", directory))?,
            }
        }
        Ok(())
    }

    /// Compares what is owed with the disk. Everything is synced, so the page cache and the disk agree unless pages were lost.
    fn prove(&self) -> Result<(), QueueError> {
        let mut owed = locked(&self.durable.owed);
        while let Some(next) = owed.last() {
            self.prove_entries(next)?;
            owed.pop();
        }
        Ok(())
    }

    fn prove_entries(&self, owed: &Owed) -> Result<(), QueueError> {
        let mut position = owed.from;
        while position < owed.end {
            let start = position - position % self.file_bytes();
            let end = owed.end.min(start + self.file_bytes());
            self.prove_file(&owed.queue, start, position - start, end - start)?;
            position = end;
        }
        Ok(())
    }

    /// Compares bytes `[from, end)` of a file.
    fn prove_file(&self, queue: &Queue, start: u64, from: u64, end: u64) -> Result<(), QueueError> {
        let path = self.file_path(queue, start);
        let open = |direct| self.disk.open(&path, OpenOptions { direct, ..OpenOptions::default() });
        let opened = open(false).and_then(|cached| match open(true) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok((cached, None)),
            direct => Ok((cached, Some(direct?))),
        });
        let (cached, direct) = match opened {
            // Retention or the deletion of a topic has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(QueueError::io("open queue file", &path))?,
        };
        let mut position = from - from % DIRECT_ALIGNMENT;
        let length = PROOF_BYTES.min((end - position).next_multiple_of(DIRECT_ALIGNMENT)) as usize;
        let (mut shown, mut stored) = (AlignedBuffer::zeroed(length), AlignedBuffer::zeroed(length));
        while position < end {
            let failed = || QueueError::io("read queue file", &path);
            let of_cache = cached.read_at(&mut shown, position).map_err(failed())?;
            let of_disk = match &direct {
                Some(direct) => direct.read_at(&mut stored, position),
                // Without direct access the way to the disk is to make the cache forget.
                None => {
                    cached.drop_cached(position, length as u64).and_then(|()| cached.read_at(&mut stored, position))
                }
            };
            let of_disk = of_disk.map_err(failed())?;
            let (first, last) = (from.saturating_sub(position) as usize, (end - position).min(length as u64) as usize);
            if of_cache < last || of_disk < last || shown[first..last] != stored[first..last] {
                return Err(QueueError::Lost { path });
            }
            position += length as u64;
        }
        Ok(())
    }

    pub(crate) fn note_unsynced(&self, key: FileKey, path: impl FnOnce() -> PathBuf) {
        locked(&self.durable.unsynced).files.entry(key).or_insert_with(path);
    }

    pub(crate) fn is_unsynced(&self, key: FileKey) -> bool {
        locked(&self.durable.unsynced).files.contains_key(&key)
    }

    /// A new file: its directory, and those above that may be new up to the store's, need a sync.
    pub(crate) fn note_new_directory_entry(&self, directory: PathBuf) {
        let unsynced = &mut *locked(&self.durable.unsynced);
        let top = self.root.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(&self.root);
        for directory in directory.ancestors().take_while(|path| path.starts_with(top)) {
            if !unsynced.directories.insert(directory.to_path_buf()) {
                break;
            }
        }
    }

    pub(crate) fn forget_unsynced(&self, identity: u64) {
        locked(&self.durable.unsynced).files.retain(|key, _| key.0 != identity);
    }

    pub(crate) fn forget_unsynced_file(&self, key: FileKey) {
        locked(&self.durable.unsynced).files.remove(&key);
    }
}
