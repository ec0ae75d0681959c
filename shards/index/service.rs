//! All index files: putting records in log order, queries from the newest file to the oldest, deletion.
//!
//! Owned by one thread (the store thread). Works off the path of acknowledgements and may lag behind the log: it knows the
//! last record that it has seen, and after a restart the caller offers every record from there again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringmq_protocol::flags::message;
use ringmq_protocol::hash::index_key_hash;
use ringmq_protocol::properties::key_words;
use ringmq_protocol::record::RecordView;

use super::error::IndexError;
use super::file::{IndexFile, Search};
use super::layout::{Header, IndexGeometry};
use super::limits::{MAXIMUM_RESULTS, QUERY_STEPS};
use super::name::{is_index_name, next_name};
use super::sync::{FileSync, IndexSync};
use crate::clock::Clock;
use crate::disk::{Disk, create_directories_durably};
use crate::types::{PhysicalOffset, StoreTimestamp};

/// The last record in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Indexed {
    /// Where the record begins in the log.
    pub physical: PhysicalOffset,
    /// When it was stored.
    pub store_timestamp: StoreTimestamp,
}

/// How the store was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastStop {
    /// Everything was flushed.
    Clean,
    /// Something may be missing. Files whose last record is newer than the checkpoint's index time, in ms, are deleted.
    Crash {
        /// `indexMsgTimestamp` of the checkpoint.
        checkpoint_ms: i64,
    },
}

/// Index files that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// What is wrong with the first of them.
    pub reason: String,
    /// How many they are.
    pub files: usize,
    /// The folder they are in now.
    pub to: PathBuf,
}

/// Moves the file `first` and all behind it to a folder of their own below `room`, durably. The newest goes first, so that a
/// crash in between leaves no gap: the next start finds the same file again.
fn move_aside(
    disk: &dyn Disk,
    directory: &Path,
    first: &str,
    room: &Path,
    reason: String,
) -> Result<SetAside, IndexError> {
    let mut number = 1;
    let to = loop {
        let to = room.join(format!("index-aside-{number}"));
        let exists = disk.exists(&to).map_err(IndexError::io("look for", &to))?;
        // An empty one is from a try that came no further.
        if !exists || disk.list(&to).map_err(IndexError::io("list", &to))?.is_empty() {
            break to;
        }
        number += 1;
    };
    create_directories_durably(disk, &to).map_err(IndexError::io("create", &to))?;
    let entries = disk.list(directory).map_err(IndexError::io("list", directory))?;
    let is_behind = |name: &str| is_index_name(name) && name >= first;
    let mut names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).filter(|name| is_behind(name)).collect();
    names.sort_unstable();
    for name in names.iter().rev() {
        let from = directory.join(name);
        disk.rename(&from, &to.join(name)).map_err(IndexError::io("set aside index file", &from))?;
        for changed in [&to, directory] {
            disk.sync_directory(changed).map_err(IndexError::io("sync", changed))?;
        }
    }
    Ok(SetAside { reason, files: names.len(), to })
}

/// The message index of one store.
pub struct IndexService {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    directory: PathBuf,
    geometry: IndexGeometry,
    /// Oldest first. Puts go to the last one; full ones in front of it are live until they are written.
    files: Vec<IndexFile>,
    last: Option<Indexed>,
    /// Whether all keys of that record are there. The last record of a full file may have some in a file that is gone.
    is_last_whole: bool,
    /// What is written of files that are full, and not synced yet; oldest first.
    sealed: Vec<FileSync>,
    directory_changed: bool,
    /// A flush that has written a part.
    flush: Option<Flush>,
}

/// A flush that was begun.
struct Flush {
    /// The last record that was put before.
    last: Option<Indexed>,
    /// What is to be true of the newest file: `None` when nothing is behind.
    newest: Option<Header>,
}

impl IndexService {
    /// Opens all files below `directory` (`{store}/index`), which need not exist. After a crash the newest file's slots
    /// are made anew from its entries: up to 400 MB are read. Source: RocketMQ `IndexService.load`.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        directory: &Path,
        geometry: IndexGeometry,
        last_stop: LastStop,
    ) -> Result<Self, IndexError> {
        assert!(geometry.slots > 0 && geometry.entries > 1, "an index file has a slot and room for an entry");
        let mut service = Self {
            disk,
            clock,
            directory: directory.to_path_buf(),
            geometry,
            files: Vec::new(),
            last: None,
            is_last_whole: true,
            sealed: Vec::new(),
            directory_changed: false,
            flush: None,
        };
        service.load(last_stop)?;
        Ok(service)
    }

    /// As [`Self::open`], but files that cannot be used are no reason to go without an index: the first of them and all behind it
    /// move to a folder of their own below `room`, and [`Self::last`] says from where their records must be offered again.
    pub fn open_or_set_aside(
        disk: &Arc<dyn Disk>,
        clock: &Arc<dyn Clock>,
        directory: &Path,
        geometry: IndexGeometry,
        last_stop: LastStop,
        room: &Path,
    ) -> Result<(Self, Vec<SetAside>), IndexError> {
        let mut set_aside = Vec::new();
        loop {
            let error = match Self::open(Arc::clone(disk), Arc::clone(clock), directory, geometry, last_stop) {
                Ok(service) => return Ok((service, set_aside)),
                Err(error) => error,
            };
            let name = error.unusable_file().filter(|path| path.parent() == Some(directory)).and_then(Path::file_name);
            match name.and_then(|name| name.to_str()).filter(|name| is_index_name(name)) {
                // There is one file less each time.
                Some(name) => set_aside.push(move_aside(&**disk, directory, name, room, error.to_string())?),
                None => return Err(error),
            }
        }
    }

    fn load(&mut self, last_stop: LastStop) -> Result<(), IndexError> {
        let directory = &self.directory;
        if !self.disk.exists(directory).map_err(IndexError::io("look up", directory))? {
            return Ok(());
        }
        let (mut doomed, mut is_too_new) = (Vec::new(), false);
        for entry in self.disk.list(directory).map_err(IndexError::io("list", directory))? {
            if entry.is_directory || !is_index_name(&entry.name) {
                continue;
            }
            if entry.length == 0 {
                // A crash between creation and extension.
                doomed.push(directory.join(&entry.name));
                continue;
            }
            let file = match IndexFile::open(&*self.disk, directory, entry.name, self.geometry) {
                // As below, with a length that did not become durable either.
                Err(IndexError::WrongLength { path, promised: 0, found, wanted })
                    if last_stop != LastStop::Clean && found < wanted =>
                {
                    doomed.push(path);
                    continue;
                }
                outcome => outcome?,
            };
            let header = file.header();
            match last_stop {
                // Cut off before its first sync: then the file before it is the one that goes on.
                LastStop::Crash { .. } if header.promised() == 0 => doomed.push(file.path().to_path_buf()),
                // Too new; and all behind it, whatever their times say, or nobody would fill the gap.
                LastStop::Crash { checkpoint_ms } if is_too_new || header.end_time > checkpoint_ms => {
                    is_too_new = true;
                    doomed.push(file.path().to_path_buf());
                }
                _ => self.files.push(file),
            }
        }
        for (number, file) in self.files.iter().enumerate() {
            file.check(number + 1 == self.files.len())?;
        }
        for path in doomed {
            self.remove(&path)?;
        }
        if let Some(newest) = self.files.last_mut() {
            newest.make_live(last_stop != LastStop::Clean)?;
        }
        self.go_on_from_files();
        Ok(())
    }

    /// Goes on with the last record that the files' headers know.
    fn go_on_from_files(&mut self) {
        let of_header = |header: &Header| {
            let physical = PhysicalOffset(u64::try_from(header.end_position).ok()?);
            let store_timestamp = StoreTimestamp(u64::try_from(header.end_time).ok()?);
            Some(Indexed { physical, store_timestamp })
        };
        let headers = self.files.iter().rev().map(IndexFile::header);
        self.last = headers.filter(|header| header.end_time > 0).find_map(of_header);
        self.is_last_whole = self.files.last().is_none_or(|newest| newest.header().promised() > 0 && !newest.is_full());
    }

    fn remove(&mut self, path: &Path) -> Result<(), IndexError> {
        self.directory_changed = true;
        self.sealed.retain(|sync| sync.path != path);
        self.disk.remove_file(path).map_err(IndexError::io("remove index file", path))
    }

    /// The last record that is in the index, `None` for an empty one. Indexing continues with this record, of which keys may be
    /// missing; offering earlier ones again does no harm.
    pub fn last(&self) -> Option<Indexed> {
        self.last
    }

    /// Number of files.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// Adds all keys of a record: its unique key, then each word of its keys. Records come in log order; one that is in
    /// the index already, or rolls a transaction back, is skipped. An error leaves the record half added at worst: offered
    /// again, its keys are added once more, which queries bear. Source: RocketMQ `IndexService.buildIndex`.
    pub fn put_record(
        &mut self,
        record: &RecordView<'_>,
        physical: PhysicalOffset,
        store_timestamp: StoreTimestamp,
    ) -> Result<(), IndexError> {
        let outcome = self.gather_record(record, physical, store_timestamp);
        self.link();
        outcome
    }

    /// As [`Self::put_record`], but queries need not find the last few keys before [`Self::link`]: the slots of many records
    /// are scattered over memory and come faster when they are asked for ahead.
    pub fn gather_record(
        &mut self,
        record: &RecordView<'_>,
        physical: PhysicalOffset,
        store_timestamp: StoreTimestamp,
    ) -> Result<(), IndexError> {
        if message::transaction_type(record.sys_flag()) == message::TRANSACTION_ROLLBACK {
            return Ok(());
        }
        let (topic, at) = (record.topic(), Indexed { physical, store_timestamp });
        let (unique_key, keys) = record.index_keys();
        self.gather_keys(topic, unique_key, keys.unwrap_or_default(), at)
    }

    /// As [`Self::put_record`], from the parts of a record: `keys` is a list with single spaces in between.
    pub fn put_keys(
        &mut self,
        topic: &str,
        unique_key: Option<&[u8]>,
        keys: &[u8],
        at: Indexed,
    ) -> Result<(), IndexError> {
        let outcome = self.gather_keys(topic, unique_key, keys, at);
        self.link();
        outcome
    }

    /// After the last of many [`Self::gather_record`]: queries find all that was put.
    pub fn link(&mut self) {
        if let Some(newest) = self.files.last_mut() {
            newest.link();
        }
    }

    /// As [`Self::put_keys`] without [`Self::link`].
    pub(crate) fn gather_keys(
        &mut self,
        topic: &str,
        unique_key: Option<&[u8]>,
        keys: &[u8],
        at: Indexed,
    ) -> Result<(), IndexError> {
        let is_known =
            |last: Indexed| at.physical < last.physical || at.physical == last.physical && self.is_last_whole;
        if self.last.is_some_and(is_known) {
            return Ok(());
        }
        for key in unique_key.into_iter().chain(key_words(keys)) {
            self.put(index_key_hash(topic, key), at)?;
        }
        (self.last, self.is_last_whole) = (Some(at), true);
        Ok(())
    }

    fn put(&mut self, hash: u32, at: Indexed) -> Result<(), IndexError> {
        let position = i64::try_from(at.physical.0).unwrap_or(i64::MAX);
        let store_time = i64::try_from(at.store_timestamp.0).unwrap_or(i64::MAX);
        if let Some(newest) = self.files.last_mut()
            && newest.put(hash, position, store_time)?
        {
            return Ok(());
        }
        self.roll()?;
        if let Some(newest) = self.files.last_mut() {
            newest.put(hash, position, store_time)?;
        }
        Ok(())
    }

    /// Makes the next file. The one before it is written by the next flush, and one that was begun begins again.
    fn roll(&mut self) -> Result<(), IndexError> {
        let previous = match self.files.last_mut() {
            Some(newest) => {
                newest.link();
                Some((*newest.header(), newest.name().to_owned()))
            }
            None => {
                let directory = &self.directory;
                self.disk.create_directories(directory).map_err(IndexError::io("create", directory))?;
                None
            }
        };
        let name = next_name(self.clock.now_ms(), previous.as_ref().map(|(_, name)| name.as_str()));
        let header = previous.as_ref().map(|(header, _)| header);
        let file = IndexFile::create(&*self.disk, &self.directory, name, self.geometry, header)?;
        self.directory_changed = true;
        self.flush = None;
        self.files.push(file);
        Ok(())
    }

    /// Makes the index durable and returns its last record: its time may then become the checkpoint's `indexMsgTimestamp`.
    /// Writes every page of slots that changed, up to 20 MB: every few seconds is often enough. When a sync fails, the files
    /// that it was about go, as [`Self::discard`] has it.
    pub fn flush(&mut self) -> Result<Option<Indexed>, IndexError> {
        let sync = self.begin_flush()?;
        let outcome = sync.complete();
        if outcome.is_err() {
            self.discard(&sync)?;
        }
        outcome
    }

    /// The first half of [`Self::flush`]: writes what was put. The other half, [`IndexSync::complete`], waits for the disk
    /// and may be done elsewhere; begin no other flush until it has ended.
    pub fn begin_flush(&mut self) -> Result<IndexSync, IndexError> {
        self.flush = None;
        loop {
            if let Some(sync) = self.flush_portion(usize::MAX)? {
                return Ok(sync);
            }
        }
    }

    /// A portion of [`Self::begin_flush`], for who has better to do than write 20 MB at once: at most `most_pages` pages of
    /// slots. Keys may be put in between; the flush is about what was put before its first portion. Gives the other half
    /// after the last portion; after an error the next one is a first.
    pub fn flush_portion(&mut self, most_pages: usize) -> Result<Option<IndexSync>, IndexError> {
        let outcome = self.try_flush_portion(most_pages);
        if !matches!(outcome, Ok(None)) {
            self.flush = None;
        }
        outcome
    }

    fn try_flush_portion(&mut self, most_pages: usize) -> Result<Option<IndexSync>, IndexError> {
        if self.flush.is_none() {
            // Full ones are in front of the newest.
            let mut newest = None;
            for file in self.files.iter_mut().filter(|file| file.is_live()) {
                newest = file.begin_write()?;
            }
            self.flush = Some(Flush { last: self.last, newest });
        }
        let Some(flush) = &self.flush else { return Ok(None) };
        if let Some((newest, full)) = self.files.split_last_mut() {
            if let Some(file) = full.iter_mut().find(|file| file.is_live()) {
                if file.write_pages(most_pages)? {
                    let header = *file.header();
                    self.sealed.extend(file.end_write(&header));
                    file.seal();
                }
                return Ok(None);
            }
            if !newest.write_pages(most_pages)? {
                return Ok(None);
            }
            self.sealed.extend(flush.newest.and_then(|header| newest.end_write(&header)));
        }
        let last = flush.last;
        let changed = std::mem::take(&mut self.directory_changed);
        let directory = changed.then(|| (Arc::clone(&self.disk), self.directory.clone()));
        Ok(Some(IndexSync { files: self.sealed.drain(..).collect(), directory, last }))
    }

    /// After a failed sync: what was written is gone from the cache and may not be on the disk, and a second sync would not
    /// tell. So the files that it was about go, and all behind them; their records must be offered again, from
    /// [`Self::last`] on. Returns how many files went. An error leaves the rest to another call with the same sync.
    pub fn discard(&mut self, sync: &IndexSync) -> Result<usize, IndexError> {
        self.directory_changed |= sync.directory.is_some();
        match self.files.iter().position(|file| sync.covers(file.path())) {
            Some(first) => self.remove_from(first),
            None => Ok(0),
        }
    }

    /// Positions of records of `topic` that carry `key` and were stored in `[begin_ms, end_ms]`, in log order: the newest
    /// `maximum` of them (64 at most). Other keys with the same hash are among them; times are exact to a second.
    /// Source: RocketMQ `IndexService.queryOffset`.
    pub fn query(
        &self,
        topic: &str,
        key: &str,
        maximum: usize,
        begin_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<PhysicalOffset>, IndexError> {
        let mut search = Search {
            hash: index_key_hash(topic, key.as_bytes()),
            begin: begin_ms,
            end: end_ms,
            maximum: maximum.min(MAXIMUM_RESULTS),
            steps_left: QUERY_STEPS,
            found: Vec::new(),
        };
        for file in self.files.iter().rev() {
            if file.header().overlaps(begin_ms, end_ms) {
                file.search(&mut search)?;
            }
            if file.header().begin_time < begin_ms || search.found.len() >= search.maximum {
                break;
            }
        }
        let mut found: Vec<_> =
            search.found.into_iter().filter_map(|position| u64::try_from(position).ok().map(PhysicalOffset)).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Deletes files whose last record lies in front of the log, except the newest. Returns how many.
    /// Source: RocketMQ `IndexService.deleteExpiredFile`.
    pub fn remove_expired(&mut self, log_minimum: PhysicalOffset) -> Result<usize, IndexError> {
        let mut removed = 0;
        while self.files.len() > 1 {
            let end = u64::try_from(self.files[0].header().end_position).unwrap_or(0);
            if end >= log_minimum.0 {
                break;
            }
            let path = self.files[0].path().to_path_buf();
            self.remove(&path)?;
            self.files.remove(0);
            removed += 1;
        }
        Ok(removed)
    }

    /// Deletes files with records at or behind the end of the log, which may have lost them in a power cut or been cut at
    /// damage: new records there would be taken for known ones. What remains of these files' records must be offered again,
    /// from [`Self::last`] on. Returns how many files went.
    pub fn cut(&mut self, log_end: PhysicalOffset) -> Result<usize, IndexError> {
        let is_behind = |file: &IndexFile| {
            let header = file.header();
            header.next_entry > 1 && u64::try_from(header.end_position).is_ok_and(|end| end >= log_end.0)
        };
        let Some(first) = self.files.iter().position(is_behind) else { return Ok(0) };
        self.remove_from(first)
    }

    /// Deletes the file at index `first` and all behind it; the one in front of it goes on.
    fn remove_from(&mut self, first: usize) -> Result<usize, IndexError> {
        let removed = self.files.len() - first;
        while self.files.len() > first {
            let path = self.files[self.files.len() - 1].path().to_path_buf();
            self.remove(&path)?;
            self.files.pop();
        }
        self.flush = None;
        if let Some(newest) = self.files.last_mut().filter(|newest| !newest.is_live()) {
            newest.make_live(false)?;
        }
        self.go_on_from_files();
        Ok(removed)
    }

    /// Deletes the whole index, for a store whose log begins anew.
    pub fn clear(&mut self) -> Result<(), IndexError> {
        while let Some(file) = self.files.pop() {
            self.remove(file.path())?;
        }
        self.flush = None;
        self.last = None;
        Ok(())
    }
}
