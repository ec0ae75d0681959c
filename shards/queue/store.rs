//! All consume queues of a broker: the registry, the flush round, retention and removal.
//!
//! Threads: `get` and `get_or_create` take a short lock and are for control threads and recovery, not for the path of a
//! message (shards keep the `Arc<Queue>`). Everything that touches files belongs to the flush thread, reads apart.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::chunk::{ChunkArena, ChunkPool};
use super::dirty::{DirtySet, QueueNumber};
use super::durable::Durable;
use super::entry::QueueEntry;
use super::error::QueueError;
use super::files::FlushBuffers;
use super::handles::HandleCache;
use super::limits::{DEFAULT_FILE_ENTRIES, DEFAULT_OPEN_FILES, DEFAULT_POOL_BYTES, ENTRY_BYTES, MAXIMUM_TOPIC_BYTES};
use super::queue::Queue;
use crate::disk::Disk;
use crate::types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp};

/// Sizes of the queue room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueStoreConfig {
    /// Entries of one file. Java must be told when it differs (`mappedFileSizeConsumeQueue` / 20).
    pub file_entries: u64,
    /// Files that are kept open.
    pub open_files: usize,
    /// Memory of all tails together.
    pub pool_bytes: u64,
}

impl Default for QueueStoreConfig {
    fn default() -> Self {
        Self { file_entries: DEFAULT_FILE_ENTRIES, open_files: DEFAULT_OPEN_FILES, pool_bytes: DEFAULT_POOL_BYTES }
    }
}

/// What a log had to show when a round began: everything below `end` is published in its queue, and no later message was stored before
/// `store_timestamp`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shown {
    /// A place in the log.
    pub end: PhysicalOffset,
    /// A store time.
    pub store_timestamp: StoreTimestamp,
}

/// What one flush round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlushReport {
    /// Queues that had something to write.
    pub queues: u64,
    /// Entries written.
    pub entries: u64,
    /// Queue directories of deleted topics that were removed.
    pub removed_queues: u64,
    /// What the round began with, if all of that is in files now.
    pub complete: Option<Shown>,
}

/// A flush round: the queues that were marked when it began, less those that had their turn.
struct Round {
    /// Last first.
    waiting: Vec<Arc<Queue>>,
    shown: Shown,
    /// Entries that had been appended before the marks were read.
    appended: u64,
    has_failed: bool,
}

/// The consume queues of one store.
pub struct QueueStore {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) root: PathBuf,
    pub(crate) config: QueueStoreConfig,
    pub(crate) handles: HandleCache,
    arena: Arc<ChunkArena>,
    dirty: Arc<DirtySet>,
    registry: RwLock<Registry>,
    next_identity: AtomicU64,
    /// Retired queues whose files are still there.
    removals: Mutex<Vec<Arc<Queue>>>,
    /// The round that a call of [`Self::flush_some`] left unfinished.
    unfinished: Mutex<Option<Round>>,
    /// Deletions of topics under way: see [`Self::begin_deletion`].
    deletions: AtomicU64,
    pub(crate) durable: Durable,
}

#[derive(Default)]
struct Registry {
    topics: HashMap<Arc<str>, BTreeMap<u32, Arc<Queue>>>,
    by_number: Vec<Option<Arc<Queue>>>,
    free_numbers: Vec<QueueNumber>,
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl QueueStore {
    /// A store without queues on `root` (`{store}/consumequeue`), and the pool for the log writer. Nothing is read: see
    /// [`Self::load`].
    pub fn new(disk: Arc<dyn Disk>, root: &Path, config: QueueStoreConfig) -> (Self, ChunkPool) {
        assert!(config.file_entries > 0, "a queue file holds entries");
        let pool = ChunkPool::new(config.pool_bytes);
        let store = Self {
            disk,
            root: root.to_path_buf(),
            config,
            handles: HandleCache::new(config.open_files),
            arena: Arc::clone(pool.arena()),
            dirty: Arc::new(DirtySet::new()),
            registry: RwLock::new(Registry::default()),
            next_identity: AtomicU64::new(1),
            removals: Mutex::new(Vec::new()),
            unfinished: Mutex::new(None),
            deletions: AtomicU64::new(0),
            durable: Durable::default(),
        };
        (store, pool)
    }

    /// Length of each file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.config.file_entries * ENTRY_BYTES
    }

    /// Figures of the memory that the tails use.
    pub fn arena(&self) -> &Arc<ChunkArena> {
        &self.arena
    }

    /// Whether the tails fill, so that [`Self::flush_dirty`] should not wait for its time.
    pub fn is_filling(&self) -> bool {
        self.arena.is_filling()
    }

    /// Queue files open now, and how many may be.
    pub fn open_files(&self) -> (usize, usize) {
        (self.handles.open_count(), self.config.open_files)
    }

    pub(crate) fn topic_directory(&self, topic: &str) -> PathBuf {
        self.root.join(topic)
    }

    /// The queue, if it exists.
    pub fn get(&self, topic: &str, queue_id: QueueId) -> Option<Arc<Queue>> {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        registry.topics.get(topic)?.get(&queue_id.0).cloned()
    }

    /// The queue, made if it does not exist. Touches no file: its directory appears with its first flush.
    pub fn get_or_create(&self, topic: &str, queue_id: QueueId) -> Result<Arc<Queue>, QueueError> {
        if let Some(queue) = self.get(topic, queue_id) {
            return Ok(queue);
        }
        let usable = !topic.is_empty() && topic.len() <= MAXIMUM_TOPIC_BYTES && topic != "." && topic != "..";
        if !usable || topic.contains(['/', '\0']) {
            return Err(QueueError::TopicName(topic.to_owned()));
        }
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = registry.topics.get(topic).and_then(|queues| queues.get(&queue_id.0)) {
            return Ok(Arc::clone(queue));
        }
        let number = match registry.free_numbers.pop() {
            Some(number) => number,
            None if registry.by_number.len() < DirtySet::CAPACITY => QueueNumber(registry.by_number.len()),
            None => return Err(QueueError::TooManyQueues(DirtySet::CAPACITY)),
        };
        self.dirty.prepare(number);
        let topic = registry.topics.get_key_value(topic).map_or_else(|| Arc::from(topic), |(name, _)| Arc::clone(name));
        let identity = self.next_identity.fetch_add(1, Ordering::Relaxed);
        let (dirty, arena) = (Arc::clone(&self.dirty), Arc::clone(&self.arena));
        let queue = Arc::new(Queue::new(Arc::clone(&topic), queue_id, number, identity, dirty, arena));
        if number.0 == registry.by_number.len() {
            registry.by_number.push(None);
        }
        registry.by_number[number.0] = Some(Arc::clone(&queue));
        registry.topics.entry(topic).or_default().insert(queue_id.0, Arc::clone(&queue));
        Ok(queue)
    }

    /// All queues, in no particular order.
    pub fn queues(&self) -> Vec<Arc<Queue>> {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        registry.by_number.iter().flatten().cloned().collect()
    }

    /// The queues of one topic, by number.
    pub fn topic_queues(&self, topic: &str) -> Vec<Arc<Queue>> {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        registry.topics.get(topic).map_or_else(Vec::new, |queues| queues.values().cloned().collect())
    }

    /// Names of all topics that have queues, in order.
    pub fn topics(&self) -> Vec<Arc<str>> {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        let mut topics: Vec<_> = registry.topics.keys().cloned().collect();
        topics.sort_unstable();
        topics
    }

    /// Queues are about to be retired whose removal is not on disk yet. A retired queue is no longer written, and a crash may bring
    /// it back: until [`Self::end_deletion`] no round of flushing makes all queue files complete.
    pub fn begin_deletion(&self) {
        self.deletions.fetch_add(1, Ordering::SeqCst);
    }

    /// The queues of a deletion are gone for good.
    pub fn end_deletion(&self) {
        self.deletions.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether a crash may bring back queues that are no longer written.
    pub fn has_open_deletion(&self) -> bool {
        self.deletions.load(Ordering::SeqCst) > 0
    }

    /// Forgets a topic's queues: they are retired at once, and the next flush round removes their files. A topic of the
    /// same name that is made afterwards begins with new queues; its files are written after the old ones are gone.
    /// Returns how many queues there were.
    pub fn remove_topic(&self, topic: &str) -> usize {
        self.remove_queues(topic, |_| true)
    }

    /// As [`Self::remove_topic`], for those of a topic's queues that `is_gone` names.
    pub fn remove_queues(&self, topic: &str, is_gone: impl Fn(&Queue) -> bool) -> usize {
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        let Some((name, queues)) = registry.topics.remove_entry(topic) else { return 0 };
        let (gone, kept): (BTreeMap<_, _>, BTreeMap<_, _>) = queues.into_iter().partition(|(_, queue)| is_gone(queue));
        if !kept.is_empty() {
            registry.topics.insert(name, kept);
        }
        let count = gone.len();
        for queue in gone.into_values() {
            queue.retire();
            registry.by_number[queue.number().0] = None;
            registry.free_numbers.push(queue.number());
            // Under the registry's lock: whoever finds a successor in the registry finds this in the list.
            locked(&self.removals).push(queue);
        }
        count
    }

    /// Largest end in the log over all queues; 0 without messages.
    pub fn maximum_physical_end(&self) -> PhysicalOffset {
        self.queues().iter().map(|queue| queue.physical_end()).max().unwrap_or_default()
    }

    /// The largest `Queue::unflushed_percent` of all queues, for metrics.
    pub fn unflushed_percent(&self) -> u64 {
        self.queues().iter().map(|queue| queue.unflushed_percent()).max().unwrap_or_default()
    }

    /// Writes the entries of all queues that were published since the last round, and removes files of deleted topics.
    /// Flush thread only. One queue's error does not keep the others from their turn: it comes back at the end and the queue
    /// stays on the list.
    pub fn flush_dirty(&self) -> Result<FlushReport, QueueError> {
        self.flush_all(Shown::default())
    }

    /// The same. `shown` is for the report.
    pub fn flush_all(&self, shown: Shown) -> Result<FlushReport, QueueError> {
        let round = || self.flush_some(shown, &|| true);
        // What was marked after an unfinished round began belongs to the next one.
        let rest = if self.has_unfinished_round() { round() } else { Ok(FlushReport::default()) };
        let (mut report, rest) = (round()?, rest?);
        report.queues += rest.queues;
        report.entries += rest.entries;
        report.removed_queues += rest.removed_queues;
        Ok(report)
    }

    /// Begins such a round, or goes on with the one that is unfinished, until `goes_on` says no: it is asked after each queue.
    pub fn flush_some(&self, shown: Shown, goes_on: &dyn Fn() -> bool) -> Result<FlushReport, QueueError> {
        let unfinished = locked(&self.unfinished).take();
        let mut round = unfinished.unwrap_or_else(|| self.begin_round(shown));
        let mut report = FlushReport::default();
        // After the queues were collected and before any of them is written: see `remove_topic`.
        if let Err(error) = self.flush_removals(&mut report) {
            // A successor must not write into a directory that is still to go.
            *locked(&self.unfinished) = Some(round);
            return Err(error);
        }
        let mut buffers = FlushBuffers::default();
        let mut failure = None;
        while let Some(queue) = round.waiting.pop() {
            match self.flush_queue_with(&queue, &mut buffers) {
                Ok(0) => {}
                Ok(entries) => {
                    report.queues += 1;
                    report.entries += entries;
                }
                Err(error) => {
                    queue.mark_dirty();
                    failure.get_or_insert(error);
                }
            }
            if !goes_on() {
                break;
            }
        }
        round.has_failed |= failure.is_some();
        let is_complete = round.waiting.is_empty() && !round.has_failed;
        report.complete = is_complete.then_some(round.shown);
        self.arena.note_flushed(report.entries, if is_complete { round.appended } else { 0 });
        if !round.waiting.is_empty() {
            *locked(&self.unfinished) = Some(round);
        }
        failure.map_or(Ok(report), Err)
    }

    fn begin_round(&self, shown: Shown) -> Round {
        let appended = self.arena.appended_entries();
        let numbers = self.dirty.drain();
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        let queue_of = |number: QueueNumber| registry.by_number.get(number.0).cloned().flatten();
        let waiting = numbers.into_iter().rev().filter_map(queue_of).collect();
        Round { waiting, shown, appended, has_failed: false }
    }

    /// Removes the files of all retired queues, however long it takes: a successor of any may be among the queues that are written next.
    /// Those that cannot be removed stay on the list.
    fn flush_removals(&self, report: &mut FlushReport) -> Result<(), QueueError> {
        // A list of its own, or the lock would be held while what fails is put back.
        let removals = std::mem::take(&mut *locked(&self.removals));
        let mut failure = None;
        for queue in removals {
            match self.remove_files(&queue) {
                Ok(()) => report.removed_queues += 1,
                Err(error) => {
                    locked(&self.removals).push(queue);
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Whether the last round still has queues that wait for their turn.
    pub fn has_unfinished_round(&self) -> bool {
        locked(&self.unfinished).is_some()
    }

    pub(crate) fn exists(&self, path: &Path) -> Result<bool, QueueError> {
        self.disk.exists(path).map_err(QueueError::io("look up", path))
    }

    /// Removes the files and the directory of a retired queue, and the topic's directory when it is empty.
    fn remove_files(&self, queue: &Queue) -> Result<(), QueueError> {
        // Taking the span waits for a flush of this queue that began before it was retired.
        let _span = self.span(queue);
        let directory = self.queue_directory(queue);
        self.handles.forget_queue(queue.identity());
        self.forget_unsynced(queue.identity());
        if !self.exists(&directory)? {
            return Ok(());
        }
        for entry in self.disk.list(&directory).map_err(QueueError::io("list", &directory))? {
            let path = directory.join(&entry.name);
            if !entry.is_directory {
                self.disk.remove_file(&path).map_err(QueueError::io("remove queue file", &path))?;
            }
        }
        match self.disk.remove_directory(&directory) {
            // It holds what belongs to no queue, and stays for whoever put it there: the other queues must go on.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            removed => removed.map_err(QueueError::io("remove queue directory", &directory))?,
        }
        let parent = self.topic_directory(queue.topic());
        if self.disk.list(&parent).map_err(QueueError::io("list", &parent))?.is_empty() {
            self.disk.remove_directory(&parent).map_err(QueueError::io("remove topic directory", &parent))?;
        }
        self.note_new_directory_entry(parent);
        Ok(())
    }

    /// Raises the minimum offset to the first entry at or behind the log's first byte. If every message is gone the queue
    /// is empty but keeps its offsets. Source: RocketMQ `ConsumeQueue.correctMinOffset`.
    pub fn correct_minimum(&self, queue: &Queue, log_minimum: PhysicalOffset) -> Result<(), QueueError> {
        let (minimum, maximum) = queue.bounds();
        if minimum >= maximum {
            return Ok(());
        }
        let first = self.partition(queue, minimum.0, maximum.0, |entry| {
            entry.is_some_and(|entry| entry.is_blank() || entry.physical < log_minimum)
        })?;
        queue.raise_minimum(first);
        Ok(())
    }

    /// Corrects the minimum, then removes the files below it, except the last. One thread at a time. Returns how many were
    /// removed. Source: RocketMQ `CleanConsumeQueueService`.
    pub fn remove_expired_files(&self, queue: &Queue, log_minimum: PhysicalOffset) -> Result<u64, QueueError> {
        self.correct_minimum(queue, log_minimum)?;
        let minimum = queue.bounds().0.0 * ENTRY_BYTES;
        let mut span = self.span(queue);
        let mut removed = 0;
        while !queue.is_retired() && span.first + self.file_bytes() < span.end {
            if span.first + self.file_bytes() > minimum {
                break;
            }
            self.remove_file(queue, span.first)?;
            span.first += self.file_bytes();
            removed += 1;
        }
        Ok(removed)
    }

    /// First offset of `[low, high)` for which `belongs_left` is false, by bisection. `None` stands for a lost entry.
    pub(crate) fn partition(
        &self,
        queue: &Queue,
        mut low: u64,
        mut high: u64,
        belongs_left: impl Fn(Option<QueueEntry>) -> bool,
    ) -> Result<u64, QueueError> {
        while low < high {
            let middle = low + (high - low) / 2;
            let mut entry = [QueueEntry::default()];
            let found = self.read_entries(queue, QueueOffset(middle), &mut entry)? == 1;
            if belongs_left(found.then_some(entry[0])) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}
