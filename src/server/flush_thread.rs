//! The flush thread: everything about files that may wait.
//!
//! It syncs the log in the background, starts write-back early, prepares segments, writes queue files, and keeps checkpoint and
//! durable point. An error of a sync of the log or of queue files is final; no space for segments, queue or state files
//! is not.
//!
//! After a start that believed the page cache it first lets a thread of its own catch up ([`CatchUp`]). Until that is done
//! the log has a part that nobody has synced, so nothing behind it is synced or claimed either.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringmq_protocol::record::{CrcCheck, RecordView};
use ringmq_shards::disk::real::call_after_operations;
use ringmq_shards::disk::{Disk, io_causes};
use ringmq_shards::log::LogView;
use ringmq_shards::log::huge_pages::HugePages;
use ringmq_shards::log::segment_table::SegmentError;
use ringmq_shards::log::segments::Segments;
use ringmq_shards::log::writer::describe_failure;
use ringmq_shards::probe::{Counter, Histogram, Probe};
use ringmq_shards::queue::{QueueError, QueueStore, Shown};
use ringmq_shards::recovery::checkpoint::{Checkpoint, CheckpointFile};
use ringmq_shards::recovery::durable_point::{DurablePoint, DurablePointFile, LastRecord};
use ringmq_shards::recovery::queue_flushed::QueueFlushedFile;
use ringmq_shards::recovery::{CatchUp, CatchUpError, StorePaths};
use ringmq_shards::runtime::{CountedReceiver, MailboxSender};
use ringmq_shards::types::{PhysicalOffset, StoreTimestamp};

use super::background;
use super::event_loop::Lifecycle;
use super::messages::{SegmentNews, ShardMessage};
use super::shared::Shared;
use super::storage;
use super::trouble::Trouble;

/// How often the thread looks for work by itself.
const BEAT: Duration = Duration::from_millis(50);

/// Queue files are written this often. A tail holds a million entries, so that one period fits into memory at any rate that
/// the log can take.
const QUEUE_PERIOD: Duration = Duration::from_millis(1_000);

/// With thousands of queues a round is mostly the price of a write per file. So it comes less often, up to this period, when
/// the last one took more than a part in `QUEUE_ROUND_SHARE` of the time; and sooner when the tails fill.
const QUEUE_PERIOD_MAX: Duration = Duration::from_millis(2_000);
const QUEUE_ROUND_SHARE: u32 = 32;

/// A round that takes longer is done in turns of this length, so that the log is synced and segments are made in time meanwhile. Making
/// the files of 10,000 new queues takes a second of processor time, and on some file systems several.
const QUEUE_TURN: Duration = Duration::from_millis(20);

/// From the end of a turn to the next one's start: a shard on the same core keeps four fifths of it.
const QUEUE_PAUSE: Duration = Duration::from_millis(80);

/// A turn while the tails fill. There is no pause then.
const QUEUE_TURN_FILLING: Duration = Duration::from_millis(200);

/// However long `flushIntervalConsumeQueue` is, queue files are synced after so many bytes of log: after a power cut recovery
/// reads the log from there. With many files a sync takes long, so it comes less often.
const QUEUE_SYNC_BYTES: u64 = 512 << 20;
const FEW_FILES: usize = 512;
const MANY_FILES_FACTOR: u32 = 30;

/// However long the periods are, the log is synced, queue files are written and the durable point moves after so many bytes of log: a start
/// after a kill reads what lies behind them, and at full speed a second's worth takes a disk a second. Rounds over queue files stay
/// within `QUEUE_ROUND_SHARE` all the same.
const RECOVERY_BYTES: u64 = 256 << 20;

/// Checkpoint and durable point are at most this old.
const POINT_PERIOD: Duration = Duration::from_millis(1_000);

/// How often the last confirmed record is asked for while the writer is between its two stores.
const CONFIRMED_RECORD_TRIES: usize = 64;

/// How long after a failed attempt the next segment is tried again.
const SEGMENT_RETRY: Duration = Duration::from_millis(500);

/// The newest part of the log that stays in the page cache while pages are recycled: as much as the log ring holds, and enough
/// for pages to be written back before they would be given back. The less it is, the sooner no new pages are needed.
const CACHED_LOG_BYTES: u64 = 64 << 20;

/// Segments that are ready behind the one in use, as in Java.
const SEGMENTS_AHEAD: u64 = 2;

/// What the flush thread is asked.
pub enum FlushRequest {
    /// The log has come this far; segments exist up to `ready_end`.
    Segments {
        /// End of the log.
        end: u64,
        /// End of the last segment that exists.
        ready_end: u64,
    },
    /// Start write-back of a range of a segment.
    WriteBack {
        /// Start of the segment.
        segment: u64,
        /// First physical offset.
        from: u64,
        /// Behind the last.
        end: u64,
    },
    /// New pages are dear on this machine: from now on give old ones of the log back for reuse.
    RecyclePages,
    /// Write and sync everything, then say whether all of it worked.
    Stop(Sender<bool>),
}

/// The flush thread's state.
pub struct FlushThread {
    /// What is asked of it.
    pub requests: CountedReceiver<FlushRequest>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// The log in memory.
    pub view: Arc<LogView>,
    /// Its pin slot there.
    pub pin_slot: usize,
    /// The log's files.
    pub segments: Arc<Segments>,
    /// Whether segments are zeroed ahead of the writer.
    pub zeroes_ahead: bool,
    /// Set by the writer with each write around the page cache: without them nothing needs zeros.
    pub wrote_directly: Arc<AtomicBool>,
    /// Which parts of the log ring are on huge pages.
    pub huge_pages: HugePages,
    /// Queues.
    pub queues: Arc<QueueStore>,
    /// Where everything lies.
    pub paths: StorePaths,
    /// What the log cannot tell about queues.
    pub queue_offsets: Arc<storage::Sidecar>,
    /// How far the queue files are complete as long as this kernel runs.
    pub queue_flushed: QueueFlushedFile,
    /// The writer's shard.
    pub writer: MailboxSender<ShardMessage>,
    /// Checkpoint.
    pub checkpoint_file: CheckpointFile,
    /// Its values.
    pub checkpoint: Checkpoint,
    /// Durable point.
    pub durable_point: DurablePointFile,
    /// What the start left to be synced.
    pub catch_up: Option<CatchUp>,
    /// Store time up to which the index is safe, milliseconds; written by the store thread.
    pub index_timestamp_ms: Arc<std::sync::atomic::AtomicU64>,
    /// Live values, and the disk's room for the metrics.
    pub shared: Arc<Shared>,
    /// Life of the process.
    pub lifecycle: Arc<Lifecycle>,
    /// Figures.
    pub probe: Probe,
    /// End of the log at the start.
    pub end: u64,
    /// End of the last segment at the start.
    pub ready_end: u64,
}

struct Schedule {
    next_sync: Instant,
    next_queues: Instant,
    /// When queue files may be written for the bytes of log behind the last round, before `next_queues`.
    earliest_queues: Instant,
    last_queue_sync: Instant,
    next_point: Instant,
    next_segment: Instant,
    /// What the last complete round of writing queue files began with, and what that of the last sync did.
    queue_written: Shown,
    queue_synced: u64,
    queue_noted: u64,
    /// What the round that is under way has taken so far.
    queue_round: Duration,
    pointed: u64,
    catching_up: Option<CatchingUp>,
    /// The last record that the newest background sync covered.
    synced_record: Option<ConfirmedRecord>,
    /// With recycling, up to where pages of the log were given back.
    recycled: Option<u64>,
    troubles: Troubles,
}

/// What may fail for a while without an end to the process.
struct Troubles {
    segments: Trouble,
    descriptors: Trouble,
    queues: Trouble,
    queue_sync: Trouble,
    queue_flushed: Trouble,
    queue_offsets: Trouble,
    durable_point: Trouble,
    checkpoint: Trouble,
}

impl Troubles {
    const NONE: Self = Self {
        segments: Trouble::new(
            "no space for the next log segment: sends will be refused until there is",
            "there is space for the next log segment again",
        ),
        descriptors: Trouble::new(
            "too many open files for the next log segment: it is tried again",
            "the next log segment could be opened",
        ),
        queues: Trouble::new(
            "queue files cannot be written; their entries stay in memory and are tried again",
            "queue files are written again",
        ),
        queue_sync: Trouble::new(
            "queue files cannot be synced; recovery will read more of the log",
            "queue files are synced again",
        ),
        queue_flushed: Trouble::new(
            "queue-flushed cannot be written; recovery will read more of the log",
            "queue-flushed is written again",
        ),
        queue_offsets: Trouble::new(
            "queue offsets cannot be written; recovery will read more of the log",
            "queue offsets are written again",
        ),
        durable_point: Trouble::new(
            "the durable point cannot be written; recovery will read more",
            "the durable point is written again",
        ),
        checkpoint: Trouble::new(
            "the checkpoint cannot be written; recovery will read more of the log",
            "the checkpoint is written again",
        ),
    };
}

/// A record that was the last confirmed one at some time.
#[derive(Clone, Copy)]
struct ConfirmedRecord {
    start: u64,
    end: u64,
}

/// The thread that syncs and checks what a start took from the page cache.
struct CatchingUp {
    point: DurablePoint,
    thread: JoinHandle<Result<(), CatchUpError>>,
}

/// Whether it failed because the process, or the system, has as many open files as it may.
fn lacks_descriptors(error: &SegmentError) -> bool {
    io_causes(error).any(|error| matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)))
}

impl FlushThread {
    /// Runs until told to stop.
    pub fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        call_after_operations(move || shared.disk_watch.sign());
        let now = Instant::now();
        let mut schedule = Schedule {
            next_sync: now + self.sync_period(),
            next_queues: now + QUEUE_PERIOD,
            earliest_queues: now,
            last_queue_sync: now,
            next_point: now + POINT_PERIOD,
            next_segment: now,
            queue_written: Shown::default(),
            queue_synced: self.end,
            queue_noted: self.end,
            queue_round: Duration::ZERO,
            pointed: self.view.synced(),
            catching_up: None,
            synced_record: None,
            recycled: None,
            troubles: Troubles::NONE,
        };
        if let Some(catch_up) = self.catch_up.take()
            && !self.begin_catch_up(catch_up, &mut schedule)
        {
            return;
        }
        loop {
            match self.requests.recv_timeout(self.beat_length()) {
                Ok(FlushRequest::Segments { end, ready_end }) => {
                    self.end = self.end.max(end);
                    self.ready_end = self.ready_end.max(ready_end);
                }
                Ok(FlushRequest::WriteBack { segment, from, end }) => {
                    self.write_back(segment, from, end);
                    self.recycle_pages(&mut schedule, end);
                }
                Ok(FlushRequest::RecyclePages) => {
                    tracing::info!("new memory pages are dear here: old pages of the log are given back for reuse");
                    // What was written while this was found out lies in the last segment, or in the one before.
                    let size = self.segments.options().size.bytes();
                    schedule.recycled = Some(self.end.saturating_sub(size).max(self.view.minimum()));
                }
                Ok(FlushRequest::Stop(done)) => {
                    let is_complete = self.stop(&mut schedule);
                    if done.send(is_complete).is_err() {
                        tracing::debug!("nobody waits for the last flush");
                    }
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if !self.beat(&mut schedule) {
                return;
            }
        }
    }

    /// `flushIntervalCommitLog`.
    fn sync_period(&self) -> Duration {
        Duration::from_millis(self.shared.live.log_sync_interval_ms.load(Ordering::Relaxed))
    }

    /// `flushIntervalConsumeQueue`.
    fn queue_sync_period(&self) -> Duration {
        Duration::from_millis(self.shared.live.queue_sync_interval_ms.load(Ordering::Relaxed))
    }

    /// The next wait: no longer than the shortest period.
    fn beat_length(&self) -> Duration {
        BEAT.min(self.sync_period()).min(self.queue_sync_period())
    }

    /// Says that the thread waits for no disk just now: between steps. Within them each operation on a file says so by itself.
    fn sign(&self) {
        self.shared.disk_watch.sign();
    }

    /// Does what is due. False after a final failure.
    fn beat(&mut self, schedule: &mut Schedule) -> bool {
        self.sign();
        if self.lifecycle.failed.load(Ordering::Acquire) {
            self.distrust();
            return false;
        }
        let now = Instant::now();
        self.end = self.end.max(self.view.confirmed());
        if schedule.catching_up.as_ref().is_some_and(|catching_up| catching_up.thread.is_finished())
            && !self.finish_catch_up(schedule)
        {
            return false;
        }
        if now >= schedule.next_segment && !self.prepare_segments(schedule, now) {
            return false;
        }
        if self.zeroes_ahead
            && self.wrote_directly.swap(false, Ordering::Relaxed)
            && let Err(error) = self.segments.zero_ahead(PhysicalOffset(self.end))
        {
            return self.fail("zero ahead in the log", &error);
        }
        self.use_huge_pages();
        self.sign();
        let is_long = |from: u64, to: u64| to.saturating_sub(from) >= RECOVERY_BYTES;
        // Before the log is synced, which may take a second: what is not in queue files by then a start reads.
        let is_writable = !schedule.troubles.queues.lasts();
        let is_filling = is_writable && self.queues.is_filling();
        let turn = if is_filling { QUEUE_TURN_FILLING } else { QUEUE_TURN };
        let may_hurry = is_writable && now >= schedule.earliest_queues;
        let is_far_behind = may_hurry && is_long(schedule.queue_noted, self.view.confirmed());
        if (now >= schedule.next_queues || is_filling || is_far_behind) && !self.flush_queues(schedule, Some(turn)) {
            return false;
        }
        self.sign();
        let is_long_unsynced = schedule.catching_up.is_none() && is_long(self.view.synced(), self.view.confirmed());
        if now >= schedule.next_sync || is_long_unsynced {
            schedule.next_sync = now + self.sync_period();
            if schedule.catching_up.is_none() && !self.sync_log(schedule) {
                return false;
            }
            self.recycle_pages(schedule, self.end);
        }
        self.sign();
        let grown = schedule.queue_written.end.0.saturating_sub(schedule.queue_synced);
        let files = self.queues.unsynced_files();
        let factor = if files <= FEW_FILES { 1 } else { MANY_FILES_FACTOR };
        let waited = now.saturating_duration_since(schedule.last_queue_sync);
        if grown > 0 && (waited >= self.queue_sync_period() * factor || grown >= QUEUE_SYNC_BYTES * u64::from(factor)) {
            schedule.last_queue_sync = now;
            if !self.sync_queues(schedule) {
                return false;
            }
        }
        self.sign();
        let is_point_old = is_long(schedule.pointed, self.view.synced()) && !schedule.troubles.durable_point.lasts();
        if now >= schedule.next_point || is_point_old {
            schedule.next_point = now + POINT_PERIOD;
            if let Ok(space) = self.disk.space(&self.paths.commit_log) {
                self.shared.control.disk_available.store(space.available, Ordering::Relaxed);
            }
            self.write_points(schedule);
        }
        true
    }

    /// Lets the kernel move a few pieces of the log ring to huge pages, if any are due.
    fn use_huge_pages(&mut self) {
        if let Err(error) = self.huge_pages.advance(&self.view, self.end) {
            tracing::info!(%error, "the kernel gives no huge pages for the log ring: it stays on small ones");
        }
        self.shared.control.log_ring_huge_bytes.store(self.huge_pages.bytes(), Ordering::Relaxed);
    }

    fn fail(&self, action: &str, error: &dyn std::fmt::Display) -> bool {
        // First of all: shards acknowledge until they see it, and what follows may wait for the very disk that has failed.
        self.lifecycle.fail(action, error);
        self.distrust();
        false
    }

    /// The next start must ask the disk, not the page cache.
    fn distrust(&self) {
        if let Err(error) = self.queue_flushed.distrust() {
            tracing::warn!(%error, "queue-flushed cannot be taken back");
        }
    }

    fn begin_catch_up(&self, catch_up: CatchUp, schedule: &mut Schedule) -> bool {
        let (point, disk) = (catch_up.point(), Arc::clone(&self.disk));
        let bytes = point.offset.0.saturating_sub(self.view.synced());
        tracing::info!(bytes, "the log of the last run is synced while serving");
        match std::thread::Builder::new().name("catch-up".to_owned()).spawn(move || catch_up.run(disk.as_ref())) {
            Ok(thread) => {
                schedule.catching_up = Some(CatchingUp { point, thread });
                true
            }
            Err(error) => self.fail("start of the thread that syncs the log of the last run", &error),
        }
    }

    /// Waits for the catching up, and claims what it made durable. False after a final failure.
    fn finish_catch_up(&mut self, schedule: &mut Schedule) -> bool {
        let Some(CatchingUp { point, thread }) = schedule.catching_up.take() else { return true };
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return self.fail("sync of the log of the last run", &error),
            Err(_) => return self.fail("sync of the log of the last run", &"its thread panicked"),
        }
        self.view.publish_synced(point.offset.0);
        self.advance_durable_point(point, schedule);
        true
    }

    /// Background sync: bounds what a power cut can take in ASYNC_FLUSH, and lets old page-cache writes go in any mode.
    fn sync_log(&mut self, schedule: &mut Schedule) -> bool {
        // Before the sync: under load the log is always ahead of it.
        let record = self.confirmed_record();
        let confirmed = record.map_or_else(|| self.view.confirmed(), |record| record.end);
        let synced = self.view.synced();
        if synced >= confirmed {
            return true;
        }
        let started = Instant::now();
        let list = self.segments.snapshot();
        let size = list.size().bytes();
        for segment in list.segments() {
            let start = segment.start().0;
            if start + size <= synced || start >= confirmed {
                continue;
            }
            if let Err(error) = segment.page_cache().sync_data() {
                let from = synced.saturating_sub(start);
                return self.fail("the log", &describe_failure("sync", segment.path(), from, &error));
            }
        }
        self.probe.count(Counter::LogSyncs);
        self.probe.record(Histogram::LogSyncTime, started.elapsed().as_nanos() as u64);
        self.view.publish_synced(confirmed);
        schedule.synced_record = record.or(schedule.synced_record);
        true
    }

    fn confirmed_record(&self) -> Option<ConfirmedRecord> {
        let of_pair = |(end, start)| ConfirmedRecord { start, end };
        (0..CONFIRMED_RECORD_TRIES).find_map(|_| self.view.confirmed_record()).map(of_pair)
    }

    /// Gives pages of the log back that lie behind the part that is kept cached before `end`, if they have been written back.
    /// The kernel reuses them for the pages to come, which then need not be made.
    fn recycle_pages(&self, schedule: &mut Schedule, end: u64) {
        let Some(from) = schedule.recycled else { return };
        let until = end.saturating_sub(CACHED_LOG_BYTES);
        if until <= from {
            return;
        }
        let list = self.segments.snapshot();
        let size = list.size().bytes();
        for segment in list.segments() {
            let start = segment.start().0;
            let (first, last) = (from.max(start), until.min(start + size));
            if first < last
                && let Err(error) = segment.page_cache().drop_cached(first - start, last - first)
            {
                tracing::debug!(%error, "pages of the log could not be given back");
            }
        }
        schedule.recycled = Some(until);
    }

    fn write_back(&self, segment: u64, from: u64, end: u64) {
        let list = self.segments.snapshot();
        if let Some(found) = list.segments().iter().find(|found| found.start().0 == segment)
            && let Err(error) = found.page_cache().start_write_back(from - segment, end - from)
        {
            // Only a hint; a real write error comes back from the sync.
            tracing::debug!(%error, segment, "write-back could not be started early");
        }
    }

    /// False after a final failure.
    fn prepare_segments(&mut self, schedule: &mut Schedule, now: Instant) -> bool {
        let size = self.segments.options().size.bytes();
        loop {
            let current_end = self.end - self.end % size + size;
            if self.ready_end >= current_end + SEGMENTS_AHEAD * size {
                return true;
            }
            match self.segments.prepare_next(PhysicalOffset(self.end)) {
                Ok(list) => {
                    schedule.troubles.segments.note(Ok::<_, SegmentError>(()));
                    schedule.troubles.descriptors.note(Ok::<_, SegmentError>(()));
                    let Some(segment) = list.segments().last() else { return true };
                    self.ready_end = segment.start().0 + size;
                    let news = SegmentNews::Ready(Arc::clone(segment));
                    self.writer.send_blocking(ShardMessage::Segment(news));
                }
                Err(error @ SegmentError::NoSpace { .. }) => {
                    schedule.troubles.segments.note(Err(error));
                    schedule.next_segment = now + SEGMENT_RETRY;
                    self.writer.send_blocking(ShardMessage::Segment(SegmentNews::DiskFull));
                    return true;
                }
                // A flood of connections takes them all until it is turned away. Nothing is lost with this, and sends wait meanwhile.
                Err(error) if lacks_descriptors(&error) => {
                    schedule.troubles.descriptors.note(Err(error));
                    schedule.next_segment = now + SEGMENT_RETRY;
                    return true;
                }
                Err(error) => return self.fail("prepare the next log segment", &error),
            }
        }
    }

    /// A whole round, or what of one can be done in a turn. False after a final failure.
    fn flush_queues(&self, schedule: &mut Schedule, turn: Option<Duration>) -> bool {
        let started = Instant::now();
        let (end, store_timestamp) = self.view.shown();
        let shown = Shown { end: PhysicalOffset(end), store_timestamp: StoreTimestamp(store_timestamp) };
        let report = match turn {
            Some(turn) => self.queues.flush_some(shown, &|| {
                background::give_way();
                started.elapsed() < turn
            }),
            None => self.queues.flush_all(shown),
        };
        let ended = Instant::now();
        schedule.queue_round += ended - started;
        if self.queues.has_unfinished_round() {
            schedule.next_queues = ended + QUEUE_PAUSE;
            schedule.earliest_queues = schedule.next_queues;
        } else {
            let round = std::mem::take(&mut schedule.queue_round);
            schedule.earliest_queues = started + round * QUEUE_ROUND_SHARE;
            schedule.next_queues = started + (round * QUEUE_ROUND_SHARE).clamp(QUEUE_PERIOD, QUEUE_PERIOD_MAX);
        }
        match report {
            Ok(report) => {
                if let Some(written) = report.complete {
                    schedule.troubles.queues.note(Ok::<_, QueueError>(()));
                    schedule.queue_written = written;
                    // Asked after the round: what is retired from here on was written in it.
                    if written.end.0 > schedule.queue_noted && !self.queues.has_open_deletion() {
                        schedule.queue_noted = written.end.0;
                        schedule.troubles.queue_flushed.note(self.queue_flushed.note(written.end));
                    }
                }
                if report.entries > 0 {
                    self.probe.add(Counter::QueueEntriesFlushed, report.entries);
                    self.probe.record(Histogram::QueueFlushTime, started.elapsed().as_nanos() as u64);
                }
            }
            Err(error) if error.is_final() => return self.fail("sync of queue files", &error),
            Err(error) => {
                schedule.troubles.queues.note(Err(error));
            }
        }
        true
    }

    /// Makes durable what the last complete round wrote into queue files, which recovery may then rely on. False after a final
    /// failure.
    fn sync_queues(&mut self, schedule: &mut Schedule) -> bool {
        let Shown { end: written, store_timestamp } = schedule.queue_written;
        if schedule.troubles.queues.lasts() {
            return true;
        }
        match self.queues.sync() {
            Ok(_) => {
                schedule.troubles.queue_sync.note(Ok::<_, QueueError>(()));
                schedule.queue_synced = written.0;
                self.checkpoint.logics_timestamp_ms = store_timestamp.0 as i64;
                let minimum = self.view.minimum();
                let noted = storage::note_queue_offsets(
                    self.disk.as_ref(),
                    &self.paths,
                    &self.queues,
                    &self.queue_offsets,
                    written.0,
                    minimum,
                );
                schedule.troubles.queue_offsets.note(noted);
            }
            Err(error) if error.is_final() => return self.fail("sync of queue files", &error),
            Err(error) => {
                schedule.troubles.queue_sync.note(Err(error));
            }
        }
        true
    }

    fn advance_durable_point(&mut self, point: DurablePoint, schedule: &mut Schedule) {
        if schedule.troubles.durable_point.note(self.durable_point.advance(point)) {
            schedule.pointed = point.offset.0;
            self.shared.retention.note_durable_point(point.offset.0);
        }
    }

    fn write_points(&mut self, schedule: &mut Schedule) {
        let newest = self.confirmed_record().filter(|record| self.view.is_synced(record.end));
        if let Some(ConfirmedRecord { start, end }) = newest.or(schedule.synced_record)
            && end > schedule.pointed
            && let Some(record) = self.read_record(start, end)
        {
            let last_record = Some(LastRecord::of(PhysicalOffset(start), &record));
            let point = DurablePoint { offset: PhysicalOffset(end), last_record };
            self.advance_durable_point(point, schedule);
            if let Ok(view) = RecordView::parse(&record, CrcCheck::Skip) {
                self.checkpoint.physic_timestamp_ms = view.store_timestamp();
            }
        }
        self.checkpoint.index_timestamp_ms = self.index_timestamp_ms.load(Ordering::Relaxed) as i64;
        schedule.troubles.checkpoint.note(self.checkpoint_file.store(&self.checkpoint));
    }

    fn read_record(&self, start: u64, end: u64) -> Option<Vec<u8>> {
        let mut record = vec![0; usize::try_from(end - start).ok()?];
        if self.view.copy(self.pin_slot, start, &mut record) {
            return Some(record);
        }
        let list = self.segments.snapshot();
        match list.read_at(PhysicalOffset(start), &mut record) {
            Ok(length) if length == record.len() => Some(record),
            _ => None,
        }
    }

    /// The last round: everything written, synced and recorded. True when all of it worked, so that `abort` may go.
    fn stop(&mut self, schedule: &mut Schedule) -> bool {
        let is_synced = self.finish_catch_up(schedule)
            && self.sync_log(schedule)
            && self.flush_queues(schedule, None)
            && self.sync_queues(schedule);
        if is_synced {
            self.write_points(schedule);
        }
        // Entries of a topic whose deletion is not on disk are in no file, and the next start must look for them.
        let is_complete = !schedule.troubles.queues.lasts() && !self.queues.has_open_deletion();
        // After a clean stop a start takes what the durable point does not cover for the work of another broker.
        let is_pointed = !schedule.troubles.durable_point.lasts() && schedule.pointed == self.view.confirmed();
        is_synced && is_complete && is_pointed && schedule.queue_synced == self.view.confirmed()
    }
}
