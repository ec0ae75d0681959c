//! The store's reading side for threads that may block: look-ups by id, key and time, and the index.
//!
//! The `store` thread owns the index: it follows the log off the path of acknowledgements and answers look-ups in between.
//! The `index-sync` thread waits for the disk in its place: a sync takes as long as the log ring lasts at full rate, and an
//! index that has lost the ring copies the whole log out of the files.

use std::cell::RefCell;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringmq_protocol::command::Command;
use ringmq_protocol::record::{CrcCheck, RecordError, RecordScout, RecordView};
use ringmq_shards::disk::Disk;
use ringmq_shards::index::{IndexError, IndexService, IndexSync, Indexed};
use ringmq_shards::log::LogView;
use ringmq_shards::log::segments::Segments;
use ringmq_shards::probe::{Counter, Histogram, Probe};
use ringmq_shards::queue::{self, QueueEntry, QueueError, QueueStore};
use ringmq_shards::runtime::MailboxSender;
use ringmq_shards::types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp};

use super::background;
use super::connection::connection_slot;
use super::event_loop::Lifecycle;
use super::limits::{self, QUERY_ANSWER_BYTES, RECORD_BYTES_MAX};
use super::messages::{Charge, ShardMessage, frame_for};
use super::metrics::StoreFigures;
use super::shared::{Shared, monotonic_ns};
use super::storage::IndexOpening;
use super::trouble::Trouble;
use crate::broker::LookUp;
use crate::broker::store_reader::{Boundary, DiskUsage, QueryAnswer, StoreReader, StoreTotals};

/// How often the index looks for new messages while there are none. At full rate the log ring lasts for about 100 ms, and a
/// disk that pauses for a moment looks like an end of the load: an index that sleeps as long has lost the ring.
const INDEX_PERIOD: Duration = Duration::from_millis(40);

/// And while there are: often enough to find them in the log ring, and in small portions.
const INDEX_BUSY_PERIOD: Duration = Duration::from_millis(10);

/// Log bytes that one round of the index reads before it looks for requests again.
const INDEX_ROUND_BYTES: u64 = 32 << 20;

/// And before it answers one: about half a second. What is behind that is found later, and the lag is a figure.
const INDEX_JOB_BYTES: u64 = 512 << 20;

/// Bytes of log that a stop still puts into the index. What remains is indexed after the next start.
const INDEX_STOP_BYTES: u64 = 128 << 20;

/// Log bytes that the index reads at once; grows for a longer record.
const INDEX_READ_BYTES: usize = 1 << 20;

/// Pages of index slots (of 4 KiB) that are written before the log is followed again: half a millisecond's work. Writing all
/// 20 MB at once takes longer than the log ring lasts at full rate.
const INDEX_FLUSH_PAGES: usize = 64;

/// How often the index is flushed to its file.
const INDEX_FLUSH_PERIOD: Duration = Duration::from_secs(5);

/// How long the index rests after a failed sync, before it is made anew from where it is safe.
const INDEX_RETRY_PERIOD: Duration = Duration::from_secs(60);

/// A job of the store thread.
pub enum StoreJob {
    /// Answer a request.
    LookUp {
        /// The connection's number.
        connection: u64,
        /// What the connection was charged for the request.
        answers: Charge,
        /// What to do.
        look_up: LookUp,
    },
    /// The log's minimum has risen: index files that lie before it can go.
    RemoveExpired,
}

/// Everything that can be read from the store by a thread that may block.
pub struct StoreAccess {
    view: Arc<LogView>,
    segments: Arc<Segments>,
    queues: Arc<QueueStore>,
    /// Only the store thread's has one, from when it has opened it.
    index: Mutex<Option<IndexService>>,
    disk: Arc<dyn Disk>,
    /// Pin slot of whoever reads through this value; one value per thread.
    pin_slot: usize,
    memory_window_bytes: u64,
    boot_ms: u64,
    figures: Arc<StoreFigures>,
    /// Whether there is to be an index.
    has_index: bool,
    query_trouble: Mutex<Trouble>,
    failed_queries: AtomicU64,
}

/// Why nobody can know what there is under a key.
#[derive(Debug, thiserror::Error)]
enum QueryError {
    #[error("the index could not be opened")]
    NoIndex,
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("the log could not be read: {0}")]
    Log(#[from] io::Error),
}

impl StoreAccess {
    /// Access for one thread, without an index.
    #[allow(clippy::too_many_arguments, reason = "everything that the store is made of, once")]
    pub fn new(
        view: Arc<LogView>,
        segments: Arc<Segments>,
        queues: Arc<QueueStore>,
        disk: Arc<dyn Disk>,
        pin_slot: usize,
        memory_window_bytes: u64,
        boot_ms: u64,
        figures: Arc<StoreFigures>,
    ) -> Self {
        Self {
            view,
            segments,
            queues,
            index: Mutex::new(None),
            disk,
            pin_slot,
            memory_window_bytes,
            boot_ms,
            figures,
            has_index: false,
            query_trouble: Mutex::new(Trouble::new(
                "queries by key are answered with an error",
                "queries by key are answered again",
            )),
            failed_queries: AtomicU64::new(0),
        }
    }

    /// The same for the thread that keeps the index: until it could be opened, queries are answered with an error.
    pub fn with_index(self, has_index: bool) -> Self {
        Self { has_index, ..self }
    }

    fn index(&self) -> MutexGuard<'_, Option<IndexService>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, topic: &str, queue_id: i32) -> Option<Arc<queue::Queue>> {
        self.queues.get(topic, QueueId(u32::try_from(queue_id).ok()?))
    }

    /// What is published of the log.
    pub fn view(&self) -> &LogView {
        &self.view
    }

    /// The log's files.
    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    /// The disk that everything is on.
    pub fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// From where on messages count as being in memory, as the machine has it.
    pub fn memory_from(&self) -> u64 {
        self.view.confirmed().saturating_sub(self.memory_window_bytes)
    }

    /// Entries of a queue, from memory or from its files.
    pub fn read_entries(
        &self,
        queue: &queue::Queue,
        from: QueueOffset,
        entries: &mut [QueueEntry],
    ) -> Result<usize, QueueError> {
        self.queues.read_entries(queue, from, entries)
    }

    /// Reads confirmed bytes of the log: from memory at and above the ring's floor, from the files below it. The page that the
    /// writer will write again is above. False when they are gone or not confirmed.
    pub fn read(&self, physical: u64, out: &mut [u8]) -> bool {
        self.try_read(physical, out).unwrap_or(false)
    }

    /// As [`Self::read`], but an error when the disk fails.
    fn try_read(&self, physical: u64, out: &mut [u8]) -> Result<bool, io::Error> {
        if physical + out.len() as u64 > self.view.confirmed() {
            return Ok(false);
        }
        while !self.view.copy(self.pin_slot, physical, out) {
            let floor = self.view.floor();
            let in_files = usize::try_from(floor.saturating_sub(physical)).unwrap_or(usize::MAX).min(out.len());
            let (below, above) = out.split_at_mut(in_files);
            // When the floor has risen meanwhile, more of it is in the files.
            if above.is_empty() || self.view.copy(self.pin_slot, floor, above) {
                return self.read_files(physical, below);
            }
        }
        Ok(true)
    }

    fn read_files(&self, physical: u64, out: &mut [u8]) -> Result<bool, io::Error> {
        match self.segments.snapshot().read_at(PhysicalOffset(physical), out) {
            Ok(length) => Ok(length == out.len()),
            // Retention was faster.
            Err(_) if physical < self.view.minimum() => Ok(false),
            Err(error) => {
                tracing::warn!(%error, physical, "the log could not be read");
                Err(error)
            }
        }
    }

    /// [`StoreReader::record_at`], but an error when the disk fails.
    fn try_record_at(&self, physical: u64) -> Result<Option<Vec<u8>>, io::Error> {
        let mut length = [0; 4];
        if physical < self.view.minimum() || !self.try_read(physical, &mut length)? {
            return Ok(None);
        }
        let size = usize::try_from(i32::from_be_bytes(length)).ok().filter(|size| *size <= RECORD_BYTES_MAX);
        let Some(mut record) = size.map(|size| vec![0; size]) else { return Ok(None) };
        if !self.try_read(physical, &mut record)? {
            return Ok(None);
        }
        let is_whole = RecordView::parse(&record, CrcCheck::Verify)
            .is_ok_and(|view| u64::try_from(view.physical_offset()) == Ok(physical));
        Ok(is_whole.then_some(record))
    }

    /// [`StoreReader::query`] with the errors as they are.
    fn find(&self, topic: &str, key: &str, max: i32, begin: i64, end: i64) -> Result<QueryAnswer, QueryError> {
        let index = self.index();
        let Some(index) = index.as_ref() else {
            return if self.has_index { Err(QueryError::NoIndex) } else { Ok(QueryAnswer::default()) };
        };
        let found = index.query(topic, key, usize::try_from(max).unwrap_or(0), begin, end)?;
        let mut answer = QueryAnswer::default();
        if let Some(last) = index.last() {
            answer.index_last_timestamp = last.store_timestamp.0 as i64;
            answer.index_last_physical = last.physical.0 as i64;
        }
        for physical in found {
            if let Some(record) = self.try_record_at(physical.0)? {
                if !answer.records.is_empty() && answer.records.len() + record.len() > QUERY_ANSWER_BYTES {
                    break;
                }
                answer.records.extend_from_slice(&record);
            }
        }
        Ok(answer)
    }

    fn record_bytes(&self, physical: u64, size: usize) -> Option<Vec<u8>> {
        let mut record = vec![0; size];
        self.read(physical, &mut record).then_some(record)
    }

    fn store_time_of(&self, entry: &QueueEntry) -> Option<StoreTimestamp> {
        // The fixed part with IPv6 hosts is below 120 bytes; short records end earlier.
        let record = self.record_bytes(entry.physical.0, (entry.size as usize).min(RECORD_BYTES_MAX))?;
        let view = RecordView::parse(&record, CrcCheck::Skip).ok()?;
        u64::try_from(view.store_timestamp()).ok().map(StoreTimestamp)
    }

    fn entry(&self, queue: &queue::Queue, offset: QueueOffset) -> Result<Option<QueueEntry>, QueueError> {
        let mut entry = [QueueEntry::default()];
        Ok((self.queues.read_entries(queue, offset, &mut entry)? == 1).then_some(entry[0]))
    }
}

impl StoreReader for StoreAccess {
    fn queue_bounds(&self, topic: &str, queue_id: i32) -> Option<(i64, i64)> {
        let (min, max) = self.queue(topic, queue_id)?.bounds();
        Some((min.0 as i64, max.0 as i64))
    }

    fn log_bounds(&self) -> (i64, i64) {
        (self.view.minimum() as i64, self.view.confirmed() as i64)
    }

    fn in_memory(&self, topic: &str, queue_id: i32, offset: i64) -> bool {
        let Some(queue) = self.queue(topic, queue_id) else { return false };
        let Ok(offset) = u64::try_from(offset) else { return false };
        let mut entry = [QueueEntry::default()];
        let from = self.view.confirmed().saturating_sub(self.memory_window_bytes);
        match queue.read(QueueOffset(offset), &mut entry) {
            queue::TailRead::Read(1) => entry[0].physical.0 >= from,
            // The entry is in a file. As long as the whole log fits into the window, so does its message.
            queue::TailRead::NotInMemory => from <= self.view.minimum(),
            _ => false,
        }
    }

    fn totals(&self) -> StoreTotals {
        StoreTotals {
            boot_ms: self.boot_ms,
            unflushed_bytes: self.view.confirmed().saturating_sub(self.view.synced()),
            ..self.figures.totals()
        }
    }

    fn store_time(&self, topic: &str, queue_id: i32, offset: i64) -> Option<i64> {
        let queue = self.queue(topic, queue_id)?;
        let entry = self.entry(&queue, QueueOffset(u64::try_from(offset).ok()?)).ok()??;
        self.store_time_of(&entry).map(|time| time.0 as i64)
    }

    fn offset_by_time(&self, topic: &str, queue_id: i32, timestamp: i64, boundary: Boundary) -> i64 {
        let Some(queue) = self.queue(topic, queue_id) else { return 0 };
        let boundary = match boundary {
            Boundary::Lower => queue::Boundary::Lower,
            Boundary::Upper => queue::Boundary::Upper,
        };
        let found = queue::offset_by_time(
            queue.bounds(),
            timestamp,
            boundary,
            |offset| self.entry(&queue, offset),
            |entry| Ok(self.store_time_of(entry)),
        );
        match found {
            Ok(offset) => offset.0 as i64,
            Err(error) => {
                tracing::warn!(%error, "an offset could not be found by time");
                0
            }
        }
    }

    fn record_at(&self, physical: i64) -> Option<Vec<u8>> {
        self.try_record_at(u64::try_from(physical).ok()?).ok()?
    }

    fn query(&self, topic: &str, key: &str, max: i32, begin: i64, end: i64) -> Result<QueryAnswer, String> {
        let found = self.find(topic, key, max, begin, end);
        let outcome = found.as_ref().map(|_| ());
        self.query_trouble.lock().unwrap_or_else(PoisonError::into_inner).note(outcome);
        // Paths and numbers of errors are for the log.
        found.map_err(|error| {
            self.failed_queries.fetch_add(1, Ordering::Relaxed);
            match error {
                QueryError::NoIndex => "the index cannot be opened; see the broker's log".to_owned(),
                QueryError::Index(_) => "the index cannot be read; see the broker's log".to_owned(),
                QueryError::Log(_) => "the log cannot be read; see the broker's log".to_owned(),
            }
        })
    }

    fn earliest_store_time(&self, topic: &str, queue_id: i32) -> Option<i64> {
        let (min, _) = self.queue_bounds(topic, queue_id)?;
        self.store_time(topic, queue_id, min)
    }

    fn earliest_log_time(&self) -> Option<i64> {
        let record = self.record_at(i64::try_from(self.view.minimum()).ok()?)?;
        RecordView::parse(&record, CrcCheck::Skip).ok().map(|view| view.store_timestamp())
    }

    fn disk_usage(&self) -> DiskUsage {
        let path = &self.segments.options().directory;
        let log_path = path.display().to_string();
        let mut usage = DiskUsage { log_path, total_bytes: 0, free_bytes: 0, log_ratio: -1.0, queue_ratio: -1.0 };
        match self.disk.space(path) {
            Ok(space) => {
                usage.total_bytes = space.total;
                usage.free_bytes = space.available;
                let used = f64::from(space.used_percent()) / 100.0;
                usage.log_ratio = used;
                usage.queue_ratio = used;
            }
            Err(error) => tracing::debug!(%error, "the disk's room cannot be read"),
        }
        usage
    }
}

/// The store thread.
pub struct StoreThread {
    /// Jobs.
    pub jobs: Receiver<StoreJob>,
    /// How to open the index, if there is to be one.
    pub opening: Option<IndexOpening>,
    /// The store.
    pub access: Arc<StoreAccess>,
    /// All shards.
    pub shards: Vec<MailboxSender<ShardMessage>>,
    /// Physical offset up to which everything is indexed.
    pub indexed: Arc<AtomicU64>,
    /// Store time up to which the index is safe, for the checkpoint.
    pub index_timestamp_ms: Arc<AtomicU64>,
    /// Figures of jobs.
    pub shared: Arc<Shared>,
    /// Whether the process stops.
    pub lifecycle: Arc<Lifecycle>,
    /// Set after a failed sync of the index, and after a message that it could not take.
    pub pause: RefCell<Option<IndexPause>>,
    /// What of the index fails for a while.
    pub troubles: RefCell<IndexTroubles>,
    /// Figures.
    pub probe: Probe,
}

/// What of the index may fail for a while, for want of room as a rule.
pub struct IndexTroubles {
    putting: Trouble,
    flushing: Trouble,
}

impl Default for IndexTroubles {
    fn default() -> Self {
        Self {
            putting: Trouble::new("a message could not be indexed; it is tried again", "messages are indexed again"),
            flushing: Trouble::new("the index could not be flushed; it is tried again", "the index is flushed again"),
        }
    }
}

impl StoreThread {
    /// Runs until nobody can send jobs any more.
    pub fn run(self) {
        background::step_back(limits::STORE_NICENESS);
        self.open_index();
        std::thread::scope(|scope| {
            let (syncs, work) = channel();
            let (done, outcomes) = channel();
            let worker = std::thread::Builder::new().name("index-sync".to_owned());
            if let Err(error) = worker.spawn_scoped(scope, move || sync_index(&work, &done)) {
                tracing::warn!(%error, "no thread of its own to sync the index: the store thread does it");
            }
            // The thread ends when `syncs` goes.
            self.follow(&syncs, &outcomes);
        });
        if let Some(IndexPause { unsafe_files: Some(sync), .. }) = self.pause.take() {
            self.discard(sync);
        }
        self.flush_index();
    }

    /// Opens the index, if there is to be one, it is not open yet, and the last try was long enough ago.
    fn open_index(&self) {
        let Some(opening) = &self.opening else { return };
        if self.access.index().is_some() || !self.index_goes_on() {
            return;
        }
        match opening.open() {
            Ok(index) => {
                let last = index.last().map_or(0, |last| last.physical.0);
                self.indexed.store(last, Ordering::Relaxed);
                *self.access.index() = Some(index);
                let lag_bytes = self.access.view.confirmed().saturating_sub(last.max(self.access.view.minimum()));
                if lag_bytes >= INDEX_ROUND_BYTES {
                    tracing::info!(lag_bytes, "the index is made anew for a part of the log while serving");
                }
            }
            Err(error) => {
                tracing::error!(%error, "the index cannot be opened: queries by key are refused until it can");
                self.pause.replace(Some(IndexPause { until: Instant::now() + INDEX_RETRY_PERIOD, unsafe_files: None }));
            }
        }
    }

    /// Follows the log and does jobs until nobody can send any more.
    fn follow(&self, syncs: &Sender<IndexSync>, outcomes: &Receiver<SyncOutcome>) {
        let mut buffer = Vec::new();
        let mut flushed = Instant::now();
        let mut flush = IndexFlush::None;
        let mut pause = INDEX_PERIOD;
        loop {
            self.open_index();
            match self.jobs.recv_timeout(pause) {
                // The shards that would take the answers are leaving.
                Ok(_) if self.lifecycle.stopping.load(Ordering::Acquire) => continue,
                Ok(job) => {
                    // A key that was just sent must be found: the index catches up first, unless it is far behind.
                    self.catch_up(&mut buffer, INDEX_JOB_BYTES);
                    self.job(job);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let before = self.indexed.load(Ordering::Relaxed);
                    self.catch_up(&mut buffer, INDEX_ROUND_BYTES);
                    let after = self.indexed.load(Ordering::Relaxed);
                    let lag = self.access.view.confirmed().saturating_sub(after);
                    pause = index_pause(pause, after > before, lag);
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if let Ok(outcome) = outcomes.try_recv() {
                flush = IndexFlush::None;
                self.index_synced(outcome);
            }
            if flushed.elapsed() >= INDEX_FLUSH_PERIOD && flush == IndexFlush::None {
                flushed = Instant::now();
                flush = IndexFlush::Writing;
            }
            if flush == IndexFlush::Writing {
                pause = pause.min(INDEX_BUSY_PERIOD);
                flush = match self.write_index(|index| index.flush_portion(INDEX_FLUSH_PAGES)) {
                    ControlFlow::Continue(()) => IndexFlush::Writing,
                    ControlFlow::Break(None) => IndexFlush::None,
                    ControlFlow::Break(Some(sync)) => match syncs.send(sync) {
                        Ok(()) => IndexFlush::Syncing,
                        Err(SendError(sync)) => {
                            self.index_synced(sync_now(sync));
                            IndexFlush::None
                        }
                    },
                };
            }
        }
        self.catch_up(&mut buffer, INDEX_STOP_BYTES);
        if flush == IndexFlush::Syncing
            && let Ok(outcome) = outcomes.recv()
        {
            self.index_synced(outcome);
        }
    }

    fn job(&self, job: StoreJob) {
        let (connection, answers, look_up) = match job {
            StoreJob::LookUp { connection, answers, look_up } => (connection, answers, look_up),
            StoreJob::RemoveExpired => return self.remove_expired(),
        };
        self.probe.count(Counter::StoreLookUps);
        let answer = look_up(self.access.as_ref());
        self.probe.set(Counter::QueriesFailed, self.access.failed_queries.load(Ordering::Relaxed));
        self.deliver(connection, &answer, answers);
        self.shared.control.jobs_done.fetch_add(1, Ordering::Relaxed);
    }

    fn deliver(&self, connection: u64, answer: &Command, answers: Charge) {
        let (shard, _) = connection_slot(connection);
        if let Some(mailbox) = self.shards.get(shard)
            && !mailbox.send_blocking(frame_for(connection, Some(answer), answers, &self.shared.buffers))
        {
            tracing::debug!(shard, "a shard is gone; its answer is dropped");
        }
    }

    fn remove_expired(&self) {
        let minimum = PhysicalOffset(self.access.view.minimum());
        match self.access.index().as_mut().map(|index| index.remove_expired(minimum)) {
            Some(Ok(files)) => self.probe.add(Counter::IndexFilesRemoved, files as u64),
            Some(Err(error)) => tracing::warn!(%error, "index files could not be removed"),
            None => {}
        }
    }

    /// Writes what was put into the index, or a part of it: whatever `write` does. After the last part, gives what has to be
    /// synced, if anything could be written.
    fn write_index(
        &self,
        write: impl FnOnce(&mut IndexService) -> Result<Option<IndexSync>, IndexError>,
    ) -> ControlFlow<Option<IndexSync>> {
        if self.pause.borrow().as_ref().is_some_and(|pause| pause.unsafe_files.is_some()) {
            // What is there cannot be trusted, whatever a sync says.
            return ControlFlow::Break(None);
        }
        let mut index = self.access.index();
        let Some(index) = index.as_mut() else { return ControlFlow::Break(None) };
        let mut trouble = self.troubles.borrow_mut();
        match write(index) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(sync)) => {
                trouble.flushing.note(Ok::<_, IndexError>(()));
                ControlFlow::Break(Some(sync))
            }
            Err(error) => {
                trouble.flushing.note(Err(error));
                ControlFlow::Break(None)
            }
        }
    }

    fn index_synced(&self, outcome: SyncOutcome) {
        self.probe.record(Histogram::IndexFlushTime, outcome.took_ns);
        match outcome.result {
            Ok(Some(last)) => self.index_timestamp_ms.store(last.store_timestamp.0, Ordering::Relaxed),
            Ok(None) => {}
            Err(error) => {
                // Service goes on. If the whole disk fails, the ERROR is the log's.
                tracing::warn!(%error, "the index could not be synced; what is not safe of it is made anew from the log");
                self.discard(outcome.sync);
            }
        }
    }

    /// Lets go of what a failed sync was about, and of indexing for a while.
    fn discard(&self, sync: IndexSync) {
        let mut index = self.access.index();
        let Some(index) = index.as_mut() else { return };
        let unsafe_files = match index.discard(&sync) {
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(%error, "index files that are not safe could not be removed; it is tried again");
                Some(sync)
            }
        };
        let last = index.last();
        self.indexed.store(last.map_or(0, |last| last.physical.0), Ordering::Relaxed);
        // The checkpoint must not say that more is safe. With files that could not be removed nothing is.
        let safe = last.filter(|_| unsafe_files.is_none());
        self.index_timestamp_ms.store(safe.map_or(0, |last| last.store_timestamp.0), Ordering::Relaxed);
        self.pause.replace(Some(IndexPause { until: Instant::now() + INDEX_RETRY_PERIOD, unsafe_files }));
    }

    /// Whether the index goes on: not soon after a failed sync, and not before its files are gone.
    fn index_goes_on(&self) -> bool {
        match self.pause.take() {
            None => true,
            Some(pause) if Instant::now() < pause.until => {
                self.pause.replace(Some(pause));
                false
            }
            Some(IndexPause { unsafe_files: None, .. }) => true,
            Some(IndexPause { unsafe_files: Some(sync), .. }) => {
                self.discard(sync);
                false
            }
        }
    }

    /// The whole flush, on this thread.
    fn flush_index(&self) {
        if let ControlFlow::Break(Some(sync)) = self.write_index(|index| index.begin_flush().map(Some)) {
            self.index_synced(sync_now(sync));
        }
    }

    /// Indexes the whole records at the front of `bytes`, which lie at `at`; gives how far it came, and what ended it.
    fn index_records(&self, index: &mut IndexService, at: u64, bytes: &[u8]) -> (usize, IndexStop) {
        let (mut used, mut messages) = (0, 0);
        let mut scout = RecordScout::new(bytes);
        let stop = loop {
            let record = match RecordView::parse(&bytes[used..], CrcCheck::Skip) {
                Ok(record) => record,
                Err(error) => break IndexStop::Log(error),
            };
            scout.pass_record(record.tail_bytes());
            let physical = PhysicalOffset(at + used as u64);
            let time = StoreTimestamp(u64::try_from(record.store_timestamp()).unwrap_or(0));
            if let Err(error) = index.gather_record(&record, physical, time) {
                self.troubles.borrow_mut().putting.note(Err(error));
                break IndexStop::Index;
            }
            messages += 1;
            used += record.total_size();
        };
        index.link();
        self.probe.add(Counter::IndexMessages, messages);
        if used > 0 && matches!(stop, IndexStop::Log(_)) {
            self.troubles.borrow_mut().putting.note(Ok::<_, IndexError>(()));
        }
        (used, stop)
    }

    /// Puts what the log has confirmed into the index, at most `most_bytes` of it.
    fn catch_up(&self, buffer: &mut Vec<u8>, most_bytes: u64) {
        if !self.index_goes_on() {
            return;
        }
        let mut index = self.access.index();
        let Some(index) = index.as_mut() else { return };
        let end = self.access.view.confirmed();
        let mut at = self.indexed.load(Ordering::Relaxed).max(self.access.view.minimum());
        let until = end.min(at.saturating_add(most_bytes));
        let segment_bytes = self.access.segments.options().size.bytes();
        let mut wanted = INDEX_READ_BYTES;
        while at < until {
            let segment_end = at - at % segment_bytes + segment_bytes;
            let length = (wanted as u64).min(end - at).min(segment_end - at) as usize;
            let mut put = |bytes: &[u8]| self.index_records(index, at, bytes);
            let in_place = self.access.view.inspect(self.access.pin_slot, at, length, &mut put);
            let (used, stop) = match in_place {
                Some(outcome) => outcome,
                None => {
                    buffer.resize(length, 0);
                    if !self.access.read(at, buffer) {
                        break;
                    }
                    put(buffer)
                }
            };
            at += used as u64;
            let stop = match stop {
                IndexStop::Log(stop) => stop,
                IndexStop::Index => {
                    let until = Instant::now() + INDEX_FLUSH_PERIOD;
                    self.pause.replace(Some(IndexPause { until, unsafe_files: None }));
                    break;
                }
            };
            match stop {
                RecordError::Blank { .. } => at = segment_end,
                // A record that the buffer cuts off: from its start next time, with a larger buffer if it was the first.
                RecordError::EndOfData { needed } if used > 0 || needed as usize > length => {
                    wanted = INDEX_READ_BYTES.max((needed as usize).min(RECORD_BYTES_MAX));
                    if used == 0 && length < wanted && length as u64 == end.min(segment_end) - at {
                        break;
                    }
                }
                RecordError::EndOfData { .. } | RecordError::Corrupt(_) => {
                    tracing::warn!(offset = at, error = %stop, "the index stops at bytes that are no record");
                    break;
                }
            }
        }
        self.indexed.store(at, Ordering::Relaxed);
    }
}

/// What ended a run of records.
enum IndexStop {
    /// The bytes.
    Log(RecordError),
    /// The record there could not be put, for want of room as a rule.
    Index,
}

/// How long the index rests after a round that came forward or not, and left `lag` bytes, when the rest before was `pause`. Far
/// behind, it goes on at once: what leaves the ring has to be read from the files.
fn index_pause(pause: Duration, came_forward: bool, lag: u64) -> Duration {
    match came_forward {
        true if lag >= INDEX_ROUND_BYTES / 2 => Duration::ZERO,
        true => INDEX_BUSY_PERIOD,
        false => (pause * 2).clamp(INDEX_BUSY_PERIOD, INDEX_PERIOD),
    }
}

/// How far a flush of the index has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IndexFlush {
    /// There is none.
    None,
    /// A part is written.
    Writing,
    /// Everything is, and another thread waits for the disk.
    Syncing,
}

/// Why the index does not go on.
pub struct IndexPause {
    until: Instant,
    /// What could not be removed yet.
    unsafe_files: Option<IndexSync>,
}

/// How a sync of the index ended.
struct SyncOutcome {
    sync: IndexSync,
    result: Result<Option<Indexed>, IndexError>,
    took_ns: u64,
}

fn sync_now(sync: IndexSync) -> SyncOutcome {
    let started_ns = monotonic_ns();
    let result = sync.complete();
    SyncOutcome { result, took_ns: monotonic_ns() - started_ns, sync }
}

/// The `index-sync` thread: one sync at a time, until nobody asks any more.
fn sync_index(work: &Receiver<IndexSync>, done: &Sender<SyncOutcome>) {
    while let Ok(sync) = work.recv() {
        if done.send(sync_now(sync)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
