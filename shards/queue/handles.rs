//! Open queue files: a bounded cache, least recently used first out, unless all of them are in use.
//!
//! A flush round writes to every queue that got messages. With more of them than the cache holds, "least recently used" would close
//! each file shortly before its turn comes. So a file stays while it is used now and then, and what finds no place is opened for one
//! use: then as large a part as fits stays open.
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

/// A file stays until so many uses of other files per place in the cache have passed it by. With more files in turn than that the
/// cache would hold hardly any of them, whichever stay.
const USES_PER_PLACE: u64 = 4;

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
        state.tick += 1;
        let tick = state.tick;
        if state.files.len() >= self.capacity {
            let kept_since = tick.saturating_sub(USES_PER_PLACE * self.capacity as u64);
            if state.by_use.first_key_value().is_some_and(|(used, _)| *used >= kept_since) {
                return file;
            }
            if let Some((_, oldest)) = state.by_use.pop_first() {
                state.files.remove(&oldest);
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    const CAPACITY: usize = 8;

    fn used(cache: &HandleCache, disk: &SimDisk, number: u64) -> bool {
        let was_open = cache.state.lock().expect("sound").files.contains_key(&(number, 0));
        let path = Path::new("/").join(number.to_string());
        let create = OpenOptions { create: true, ..OpenOptions::default() };
        drop(disk.open(&path, create).expect("made"));
        cache.open(disk, (number, 0), &path).expect("opened");
        was_open
    }

    /// Goal: of more files in turn than have a place as many stay open as have one, and files that nobody uses any more give theirs
    /// to others. Method: rounds over twice the capacity, then over as many other files as have a place.
    #[test]
    fn a_round_over_more_files_than_fit_keeps_those_that_fit() {
        let (cache, disk) = (HandleCache::new(CAPACITY), SimDisk::new());
        for round in 0..10 {
            let open = (0..2 * CAPACITY as u64).filter(|number| used(&cache, &disk, *number)).count();
            assert_eq!(open, if round == 0 { 0 } else { CAPACITY });
            assert_eq!(cache.open_count(), CAPACITY);
        }
        let others = 100..100 + CAPACITY as u64;
        let rounds =
            (0..100).find(|_| others.clone().filter(|number| used(&cache, &disk, *number)).count() == CAPACITY);
        assert!(rounds.is_some_and(|rounds| rounds <= 2 * USES_PER_PLACE as usize), "{rounds:?}");
        assert_eq!(cache.open_count(), CAPACITY);
    }
}
