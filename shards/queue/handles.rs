//! Open queue files: a bounded cache, least recently used first out.
//!
//! Shared by the threads that may block (flush, store, recovery). A handle that somebody still uses stays open after its
//! eviction until the last reference goes, so reads in flight keep their descriptor.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::QueueError;
use crate::disk::{Disk, DiskFile, OpenOptions};

/// Identity of the queue and first byte of the file.
pub(crate) type FileKey = (u64, u64);

pub(crate) struct HandleCache {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tick: u64,
    files: HashMap<FileKey, (u64, Arc<dyn DiskFile>)>,
    /// Keys by the tick of their last use.
    by_use: BTreeMap<u64, FileKey>,
}

impl State {
    fn touch(&mut self, key: FileKey) -> Option<Arc<dyn DiskFile>> {
        let (used, file) = self.files.get_mut(&key)?;
        self.by_use.remove(used);
        self.tick += 1;
        *used = self.tick;
        self.by_use.insert(self.tick, key);
        Some(Arc::clone(file))
    }
}

impl HandleCache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), state: Mutex::new(State::default()) }
    }

    /// The file, opened if it is not; it must exist.
    pub(crate) fn open(&self, disk: &dyn Disk, key: FileKey, path: &Path) -> Result<Arc<dyn DiskFile>, QueueError> {
        if let Some(file) = self.cached(key) {
            return Ok(file);
        }
        let options = OpenOptions { write: true, ..OpenOptions::default() };
        let file = disk.open(path, options).map_err(QueueError::io("open queue file", path))?;
        Ok(self.insert(key, Arc::from(file)))
    }

    /// The file if it is open.
    pub(crate) fn cached(&self, key: FileKey) -> Option<Arc<dyn DiskFile>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).touch(key)
    }

    pub(crate) fn insert(&self, key: FileKey, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        // As for the log's files: one look at old entries would fetch as much as the device is set to, 8 MiB on some.
        let _ = file.expect_scattered_reads();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(present) = state.touch(key) {
            return present;
        }
        while state.files.len() >= self.capacity {
            let Some((_, oldest)) = state.by_use.pop_first() else { break };
            state.files.remove(&oldest);
        }
        state.tick += 1;
        let tick = state.tick;
        state.by_use.insert(tick, key);
        state.files.insert(key, (tick, Arc::clone(&file)));
        file
    }

    /// Closes one file, before or after its removal.
    pub(crate) fn forget(&self, key: FileKey) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((used, _)) = state.files.remove(&key) {
            state.by_use.remove(&used);
        }
    }

    /// Closes all files of one queue.
    pub(crate) fn forget_queue(&self, identity: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.by_use.retain(|_, key| key.0 != identity);
        state.files.retain(|key, _| key.0 != identity);
    }

    /// Files that are open now.
    pub(crate) fn open_count(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).files.len()
    }
}
