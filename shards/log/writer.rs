//! The single writer of the log, as a state machine without I/O.
//!
//! It owns the end of the log and every queue's next offset. Callers reserve room in the ring ([`Writer::admit`]),
//! encode into it ([`Writer::slot`]), and bind ([`Writer::bind`]). Once a turn the shell takes what has gathered as one
//! [`WriteOperation`], performs it, and reports back; [`Writer::settle`] then confirms, fills the queue tails and hands
//! out the verdicts.
//!
//! Invariants:
//! - log order and queue order agree: both offsets are bound together, here;
//! - `confirmed <= synced` in sync mode and `confirmed <= written` in every mode; nothing is published above it;
//! - a write covers whole pages; bytes behind the end in the last page are zero or belong to unconfirmed records;
//! - at most one write and one sync are in flight, because two writes could share a page and land in either order;
//! - after a failed write or sync no verdict other than [`Verdict::Failed`] is ever given, and nothing is retried.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use ringmq_protocol::record;

use super::limits::{PAGE_BYTES, PENDING_RECORDS_MAX, TURN_HEADROOM_BYTES};
use super::view::LogView;
use crate::clock::Now;
use crate::queue::{ChunkPool, PrefetchStep, Queue, QueueEntry};
use crate::sync::{Ordering, fence};
use crate::types::{PhysicalOffset, QueueOffset, StoreTimestamp};

/// When an acknowledgement may be given (RocketMQ `flushDiskType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushMode {
    /// `ASYNC_FLUSH`: the bytes survive the death of the process.
    Async,
    /// `SYNC_FLUSH`: a completed sync, submitted after the write, covers them.
    Sync,
}

/// What a completed write means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteKind {
    /// The data is in the page cache (or on a device without a barrier): it survives the process.
    Volatile,
    /// The data is on stable storage (`O_DSYNC`).
    Durable,
}

/// Room reserved in the ring. It must be bound or abandoned before the next is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Physical offset of the first byte.
    pub physical: u64,
    /// Bytes reserved.
    pub length: usize,
}

/// Why a record cannot be taken now, or at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The ring is full of records that are being written, or pinned by readers. Ask again next turn.
    #[error("waiting for room in the log ring")]
    RingFull,
    /// The next segment is not ready yet. Ask again when it is.
    #[error("waiting for the next log segment")]
    SegmentPending,
    /// The next segment cannot be made: no space on the disk. Not final.
    #[error("no space left for the next log segment")]
    DiskFull,
    /// The queue's tail in memory is full because its file is not written fast enough. Ask again next turn.
    #[error("waiting for the consume queue of the message to be written")]
    QueueFull,
    /// Larger than a segment or than the largest request of a turn.
    #[error("the stored form of the request exceeds {0} bytes")]
    TooLarge(u64),
    /// The queue's topic was deleted while the request was on its way.
    #[error("the topic was just deleted")]
    Retired,
    /// The log failed; the process is about to exit.
    #[error("the log failed")]
    Failed,
}

impl AppendError {
    /// Whether the same request may succeed when it is tried again in a later turn.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::RingFull | Self::SegmentPending | Self::QueueFull)
    }
}

/// What the sender of a record is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Stored as safely as the flush mode promises.
    Stored,
    /// Its write, or in sync mode its sync, did not complete in time: unknown (RocketMQ code 10).
    FlushTimeout,
    /// The log failed.
    Failed,
    /// It was not taken: what [`Writer::admit`] said to a request of another shard.
    Refused(AppendError),
}

/// Which answer a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Shard whose connection asked.
    pub shard: u16,
    /// Slot of the request on that shard.
    pub slot: u32,
}

/// A record that has its offsets and waits for its write or sync.
pub struct Bound {
    queue: Arc<Queue>,
    physical: u64,
    queue_offset: u64,
    tags_code: i64,
    store_timestamp: u64,
    /// By the steady clock.
    bound_at_ms: u64,
    size: u32,
    /// The first record of the request, for the answer.
    first_physical: u64,
    first_queue_offset: u64,
    ticket: Option<Ticket>,
    wait: bool,
}

/// What a shard learns about one of its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The request.
    pub ticket: Ticket,
    /// What became of it.
    pub verdict: Verdict,
    /// Physical offset of its first record.
    pub physical: u64,
    /// Queue offset of its first record.
    pub queue_offset: u64,
}

/// One record of a request that is being bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Length in stored form.
    pub size: u32,
    /// Queue entry's tags code.
    pub tags_code: i64,
}

/// One write of the log: whole pages of one segment, from ring memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOperation {
    /// Start offset of the segment (its file name).
    pub segment: u64,
    /// Where in the file, a multiple of the page.
    pub file_offset: u64,
    /// Bytes, a multiple of the page.
    pub length: usize,
    /// Physical offset of the first byte, for the address in the ring.
    pub physical: u64,
    /// The log is written up to here once this completes.
    pub end: u64,
    /// Requests that were bound since the write before.
    pub requests: u32,
}

/// One sync of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncOperation {
    /// Everything from here may be unsynced.
    pub from: u64,
    /// The log is synced up to here once this completes.
    pub end: u64,
}

/// Who is told about settled records. Called on the writer's thread.
pub trait SettleSink {
    /// A request has its verdict.
    fn settled(&mut self, settled: Settled);
    /// A queue has new messages and these shards, a bit each, hold requests that wait for them.
    fn wake(&mut self, queue: &Arc<Queue>, shards: u64);
}

/// Settings of the writer.
#[derive(Debug, Clone, Copy)]
pub struct WriterOptions {
    /// Size of a segment in bytes, a multiple of the page.
    pub segment_bytes: u64,
    /// When to acknowledge.
    pub flush_mode: FlushMode,
    /// What a completed write means.
    pub write_kind: WriteKind,
    /// `syncFlushTimeout`: after this many milliseconds a message that is not yet safe is answered with code 10.
    pub sync_flush_timeout_ms: u64,
}

/// How many records before its turn each step towards a record's queue is asked of the memory. A step takes about as long as a
/// few records do.
const PREFETCH_AHEAD: [(usize, PrefetchStep); 3] =
    [(18, PrefetchStep::Queue), (12, PrefetchStep::Tail), (6, PrefetchStep::Entry)];

/// A mistake that a test plants to show that its checks would notice.
#[cfg(any(test, feature = "sim"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedBug {
    /// Confirms what was handed out for writing, without the completion.
    AcknowledgeUnwritten,
    /// In sync mode, confirms what was written, without the sync.
    AcknowledgeUnsynced,
    /// A sync also claims the write that is still in flight.
    SyncClaimsWriteInFlight,
    /// Queue entries are published, and their waiters woken, before the record is confirmed.
    PublishUnconfirmed,
    /// Ring memory is reused although readers pin it.
    IgnorePins,
    /// The rest of a write's last page is left as it is.
    LeaveRestOfPage,
    /// A record is bound to the queue offset that the record before it in its queue has.
    BindOffsetTwice,
}

/// State of a planted mistake.
#[cfg(any(test, feature = "sim"))]
#[derive(Debug, Default)]
struct Planted {
    bug: Option<PlantedBug>,
    /// Records at the front of `pending` whose entries were published too early.
    published: usize,
}

/// The single writer. See the module's text.
pub struct Writer {
    view: Arc<LogView>,
    pub(super) pool: ChunkPool,
    options: WriterOptions,
    /// End of the last bound record.
    end: u64,
    /// Everything below was handed out for writing.
    write_started: u64,
    written: u64,
    synced: u64,
    sync_in_flight: Option<SyncOperation>,
    write_in_flight: Option<WriteOperation>,
    /// Ends of data in segments that are full, with the start of the next: `(data_end, next_segment)`.
    rolls: VecDeque<(u64, u64)>,
    /// Segments exist up to here.
    ready_end: u64,
    disk_full: bool,
    pending: VecDeque<Bound>,
    /// How many of `pending` are below `written` and were looked at for an early answer.
    early: usize,
    last_store_timestamp: u64,
    /// Requests that were bound since the start, and since the last write was taken.
    requests: u64,
    unwritten_requests: u32,
    /// Bytes appended since the turn began; the headroom bounds them.
    turn_budget: u64,
    /// [`TURN_HEADROOM_BYTES`], or half of a smaller ring.
    headroom_bytes: u64,
    failed: bool,
    #[cfg(any(test, feature = "sim"))]
    planted: Planted,
}

fn page_floor(offset: u64) -> u64 {
    offset & !(PAGE_BYTES - 1)
}

fn page_ceil(offset: u64) -> u64 {
    page_floor(offset + PAGE_BYTES - 1)
}

impl Writer {
    /// Changes how long an acknowledgement waits for its sync, milliseconds.
    pub fn set_sync_flush_timeout_ms(&mut self, sync_flush_timeout_ms: u64) {
        self.options.sync_flush_timeout_ms = sync_flush_timeout_ms;
    }

    /// A writer that continues at `end`, the recovered end of the log, whose segment is ready up to `ready_end`.
    /// `tail_page` holds the bytes of the page that `end` lies in, from its start up to `end`.
    pub fn new(
        view: Arc<LogView>,
        pool: ChunkPool,
        options: WriterOptions,
        end: u64,
        ready_end: u64,
        last_store_timestamp: u64,
        tail_page: &[u8],
    ) -> Self {
        assert!(options.segment_bytes.is_multiple_of(PAGE_BYTES), "segments are whole pages");
        assert_eq!(tail_page.len() as u64, end - page_floor(end), "the tail page reaches exactly to the end");
        let ring_bytes = view.ring_bytes() as u64;
        assert!(ring_bytes >= 4 * PAGE_BYTES, "the ring holds two headrooms of at least two pages");
        // SAFETY: nobody else knows the ring yet; the range is behind the end or part of its last page.
        unsafe { view.ring.slice_mut(page_floor(end), tail_page.len()) }.copy_from_slice(tail_page);
        // Below the floor files are read: not the page that is written again.
        view.floor.store(page_floor(end), Ordering::Release);
        Self {
            view,
            pool,
            options,
            end,
            write_started: end,
            written: end,
            synced: end,
            sync_in_flight: None,
            write_in_flight: None,
            rolls: VecDeque::with_capacity(4),
            ready_end,
            disk_full: false,
            pending: VecDeque::with_capacity(4096),
            early: 0,
            last_store_timestamp,
            requests: 0,
            unwritten_requests: 0,
            turn_budget: 0,
            headroom_bytes: TURN_HEADROOM_BYTES.min(ring_bytes / 2),
            failed: false,
            #[cfg(any(test, feature = "sim"))]
            planted: Planted::default(),
        }
    }

    /// The published side of the log.
    pub fn view(&self) -> &Arc<LogView> {
        &self.view
    }

    /// End of the last bound record.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Records that wait for their write or sync.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether anything was bound that no write operation has covered yet.
    pub fn has_unwritten(&self) -> bool {
        self.write_started < self.end
    }

    /// Requests that were bound since the start.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Requests that were bound and that no write operation has covered yet.
    pub fn unwritten_requests(&self) -> u32 {
        self.unwritten_requests
    }

    /// Segments exist up to here.
    pub fn ready_end(&self) -> u64 {
        self.ready_end
    }

    /// A further segment is ready: it begins where the last one ends.
    pub fn segment_ready(&mut self, segment: u64) {
        assert_eq!(segment, self.ready_end, "segments become ready in order");
        self.ready_end += self.options.segment_bytes;
        self.disk_full = false;
    }

    /// Whether the next segment could not be made for want of space. Cleared by [`Writer::segment_ready`].
    pub fn set_disk_full(&mut self, disk_full: bool) {
        self.disk_full = disk_full;
    }

    /// Begins a turn: frees as much of the ring as pins and unwritten pages allow, up to the headroom.
    pub fn begin_turn(&mut self) {
        let ring_bytes = self.view.ring_bytes() as u64;
        let wanted = (self.end + self.headroom_bytes + PAGE_BYTES).saturating_sub(ring_bytes);
        // The page that holds `written` will be written again from the ring.
        let floor = wanted.min(page_floor(self.written));
        let unpinned = self.view.raise_floor(floor);
        #[cfg(any(test, feature = "sim"))]
        let unpinned = if self.has_bug(PlantedBug::IgnorePins) { self.view.floor() } else { unpinned };
        let held = unpinned.min(page_floor(self.written));
        self.turn_budget = (held + ring_bytes).saturating_sub(self.end + PAGE_BYTES).min(self.headroom_bytes);
    }

    /// Reserves `length` contiguous bytes for `records` records of one queue. Rolls to the next segment when the current
    /// one cannot hold them all (RocketMQ `CommitLog`: all or nothing, at least 8 bytes left for the end mark).
    pub fn admit(&mut self, length: usize, records: usize, queue: &Queue) -> Result<Admission, AppendError> {
        if self.failed {
            return Err(AppendError::Failed);
        }
        let needed = length as u64 + record::BLANK_BYTES as u64;
        let largest = self.headroom_bytes.min(self.options.segment_bytes);
        if needed > largest || records > PENDING_RECORDS_MAX {
            return Err(AppendError::TooLarge(largest));
        }
        if self.pending.len() + records > PENDING_RECORDS_MAX {
            return Err(AppendError::RingFull);
        }
        // Whatever is bound lies below the barrier of its topic's deletion: see `Queue::retire`.
        if queue.is_retired() {
            return Err(AppendError::Retired);
        }
        if !queue.can_append(&self.pool, records as u64) {
            return Err(AppendError::QueueFull);
        }
        let segment_end = self.segment_of(self.end) + self.options.segment_bytes;
        let rolls = needed > segment_end - self.end;
        let wanted_end = if rolls { segment_end + self.options.segment_bytes } else { segment_end };
        if wanted_end > self.ready_end {
            return Err(if self.disk_full { AppendError::DiskFull } else { AppendError::SegmentPending });
        }
        if rolls {
            // What is skipped is shorter than the request, so a whole headroom always suffices for it; the request
            // itself may have to wait for the next turn's headroom.
            if segment_end - self.end > self.turn_budget {
                return Err(AppendError::RingFull);
            }
            self.roll(segment_end);
        }
        if needed > self.turn_budget {
            return Err(AppendError::RingFull);
        }
        Ok(Admission { physical: self.end, length })
    }

    fn roll(&mut self, segment_end: u64) {
        let remaining = segment_end - self.end;
        // SAFETY: writer's thread; the range is free, within the budget checked by `admit` or the spare page.
        let blank = unsafe { self.view.ring.slice_mut(self.end, record::BLANK_BYTES) };
        record::write_blank(blank, u32::try_from(remaining).unwrap_or(u32::MAX));
        self.rolls.push_back((self.end + record::BLANK_BYTES as u64, segment_end));
        self.end = segment_end;
        self.turn_budget -= remaining;
    }

    fn segment_of(&self, physical: u64) -> u64 {
        physical - physical % self.options.segment_bytes
    }

    /// The reserved memory. Its contents are whatever lay there before.
    pub fn slot(&mut self, admission: Admission) -> &mut [u8] {
        assert_eq!(admission.physical, self.end, "an admission is used before the next is asked for");
        // SAFETY: writer's thread; the range begins at the end and was checked to be free by `admit`.
        unsafe { self.view.ring.slice_mut(admission.physical, admission.length) }
    }

    /// Gives the records in the reserved memory their offsets and store time. `wait` is the message's `WAIT` property.
    /// The answer goes to `ticket` once the last of them is safe.
    pub fn bind(
        &mut self,
        admission: Admission,
        queue: &Arc<Queue>,
        pieces: &[Piece],
        ticket: Option<Ticket>,
        wait: bool,
        now: Now,
    ) {
        assert_eq!(admission.physical, self.end, "an admission is bound once");
        let total: u64 = pieces.iter().map(|piece| u64::from(piece.size)).sum();
        assert!(total == admission.length as u64 && !pieces.is_empty(), "the pieces fill the reservation");
        let store_timestamp = now.wall_ms.max(self.last_store_timestamp);
        let first_physical = self.end;
        let first_queue_offset = queue.take_offsets(pieces.len() as u64).0;
        for (queue_offset, piece) in (first_queue_offset..).zip(pieces) {
            // SAFETY: writer's thread; the range lies inside the reservation.
            let bytes = unsafe { self.view.ring.slice_mut(self.end, piece.size as usize) };
            let named_offset = queue_offset;
            #[cfg(any(test, feature = "sim"))]
            let named_offset = named_offset - u64::from(named_offset > 0 && self.has_bug(PlantedBug::BindOffsetTwice));
            record::bind_record(bytes, named_offset as i64, self.end as i64, store_timestamp as i64);
            let is_last = queue_offset + 1 == first_queue_offset + pieces.len() as u64;
            self.pending.push_back(Bound {
                queue: Arc::clone(queue),
                physical: self.end,
                queue_offset,
                tags_code: piece.tags_code,
                store_timestamp,
                bound_at_ms: now.steady_ms,
                size: piece.size,
                first_physical,
                first_queue_offset,
                ticket: if is_last { ticket } else { None },
                wait,
            });
            self.end += u64::from(piece.size);
        }
        self.last_store_timestamp = store_timestamp;
        self.turn_budget -= total;
        self.requests += 1;
        self.unwritten_requests = self.unwritten_requests.saturating_add(1);
    }

    /// What has gathered, as one write of whole pages; `None` while a write is in flight or nothing is new.
    pub fn next_write(&mut self) -> Option<WriteOperation> {
        if self.failed || self.write_in_flight.is_some() || self.write_started >= self.end {
            return None;
        }
        let end = self.rolls.front().map_or(self.end, |&(data_end, _)| data_end);
        let first_page = page_floor(self.write_started);
        let last_page_end = page_ceil(end);
        // SAFETY: writer's thread; the rest of the last page is behind the end of data and inside the free headroom.
        let rest = unsafe { self.view.ring.slice_mut(end, (last_page_end - end) as usize) };
        #[cfg(any(test, feature = "sim"))]
        let rest = if self.has_bug(PlantedBug::LeaveRestOfPage) { &mut [] } else { rest };
        rest.fill(0);
        let segment = self.segment_of(self.write_started);
        let operation = WriteOperation {
            segment,
            file_offset: first_page - segment,
            length: (last_page_end - first_page) as usize,
            physical: first_page,
            end,
            requests: std::mem::take(&mut self.unwritten_requests),
        };
        self.write_started = end;
        if let Some(&(data_end, next_segment)) = self.rolls.front()
            && data_end == end
        {
            self.write_started = next_segment;
            self.rolls.pop_front();
        }
        self.write_in_flight = Some(operation);
        Some(operation)
    }

    /// The memory of a write operation. The kernel may read it until the operation is reported complete.
    pub fn write_source(&self, operation: &WriteOperation) -> *const u8 {
        self.view.ring.at(operation.physical)
    }

    /// The write in flight has completed with all its bytes.
    pub fn write_completed(&mut self) {
        let operation = self.write_in_flight.take().expect("a write was in flight");
        self.written = operation.end;
        if self.options.write_kind == WriteKind::Durable && !self.failed {
            self.synced = operation.end;
            self.view.publish_synced(operation.end);
        }
    }

    /// A sync that is due: sync mode, something written and not synced, none in flight.
    pub fn next_sync(&mut self) -> Option<SyncOperation> {
        let due = self.options.flush_mode == FlushMode::Sync
            && self.options.write_kind == WriteKind::Volatile
            && !self.failed
            && self.sync_in_flight.is_none()
            && self.synced < self.sync_end();
        due.then(|| {
            let operation = SyncOperation { from: self.synced, end: self.sync_end() };
            self.sync_in_flight = Some(operation);
            operation
        })
    }

    /// What a sync that is submitted now covers: only writes that have completed.
    fn sync_end(&self) -> u64 {
        #[cfg(any(test, feature = "sim"))]
        if self.has_bug(PlantedBug::SyncClaimsWriteInFlight) {
            return self.write_in_flight.map_or(self.written, |operation| operation.end);
        }
        self.written
    }

    /// The sync in flight has completed.
    pub fn sync_completed(&mut self) {
        let operation = self.sync_in_flight.take().expect("a sync was in flight");
        // After a failure success proves nothing: the kernel reports a lost page only once.
        if !self.failed {
            self.synced = operation.end;
            self.view.publish_synced(operation.end);
        }
    }

    /// The offset below which everything is as safe as the flush mode promises.
    fn safe_end(&self) -> u64 {
        #[cfg(any(test, feature = "sim"))]
        match self.planted.bug {
            Some(PlantedBug::AcknowledgeUnwritten) => return self.write_started,
            Some(PlantedBug::AcknowledgeUnsynced) => return self.written,
            Some(PlantedBug::SyncClaimsWriteInFlight) => return self.synced,
            _ => {}
        }
        match self.options.flush_mode {
            FlushMode::Async => self.written,
            FlushMode::Sync => self.synced.min(self.written),
        }
    }

    /// Confirms what has become safe: publishes the confirmed offset, fills the queue tails, then gives the verdicts.
    /// `steady_ms` is the steady clock of [`Self::bind`].
    pub fn settle(&mut self, steady_ms: u64, sink: &mut impl SettleSink) {
        if self.failed {
            return;
        }
        #[cfg(any(test, feature = "sim"))]
        self.publish_too_early(sink);
        let safe = self.safe_end();
        let safe_count = self.pending.partition_point(|bound| bound.physical + u64::from(bound.size) <= safe);
        if safe_count > 0 {
            let last = &self.pending[safe_count - 1];
            self.view.confirm(last.physical, last.physical + u64::from(last.size), last.store_timestamp);
        }
        #[cfg(any(test, feature = "sim"))]
        let already_shown = self.planted.published;
        #[cfg(not(any(test, feature = "sim")))]
        let already_shown = 0;
        // Without room in the tail the rest waits for the flush thread; it is safe, but neither visible nor answered.
        let fresh = already_shown.min(safe_count)..safe_count;
        let is_hidden = |&index: &usize| {
            for (distance, step) in PREFETCH_AHEAD {
                if let Some(bound) = self.pending.get(index + distance) {
                    bound.queue.prefetch(step);
                }
            }
            !self.show(&self.pending[index])
        };
        let shown = fresh.into_iter().find(is_hidden).unwrap_or(safe_count);
        let last_shown = shown.checked_sub(1).map(|index| &self.pending[index]);
        let last_shown = last_shown.map(|last| (last.physical + u64::from(last.size), last.store_timestamp));
        // One fence for all: see `Queue::publish_in_group`.
        fence(Ordering::SeqCst);
        for bound in self.pending.drain(..shown) {
            announce(&bound, sink);
            if let Some(ticket) = bound.ticket {
                sink.settled(settled(&bound, ticket, Verdict::Stored));
            }
        }
        self.pool.arena().note_appended(shown.saturating_sub(already_shown) as u64);
        // The flush thread finds the queues by the marks that were just made: a flush after this writes all of them.
        if let Some((end, store_timestamp)) = last_shown {
            self.view.shown.store(end, Ordering::Release);
            self.view.shown_store_timestamp.store(store_timestamp, Ordering::Release);
        }
        self.early = self.early.saturating_sub(shown);
        #[cfg(any(test, feature = "sim"))]
        {
            self.planted.published = self.planted.published.saturating_sub(shown);
        }
        if self.options.flush_mode == FlushMode::Sync {
            self.answer_written(sink);
        }
        self.answer_late(steady_ms, sink);
    }

    /// Makes a record visible in its queue; false when the tail has no room.
    fn show(&self, bound: &Bound) -> bool {
        let physical = PhysicalOffset(bound.physical);
        let entry = QueueEntry { physical, size: bound.size, tags_code: bound.tags_code };
        if bound.queue.append(&self.pool, entry).is_err() {
            return false;
        }
        bound.queue.publish_in_group(QueueOffset(bound.queue_offset + 1), StoreTimestamp(bound.store_timestamp));
        true
    }

    #[cfg(any(test, feature = "sim"))]
    fn has_bug(&self, bug: PlantedBug) -> bool {
        self.planted.bug == Some(bug)
    }

    /// Makes a mistake on purpose from now on.
    #[cfg(any(test, feature = "sim"))]
    pub fn plant(&mut self, bug: PlantedBug) {
        self.planted.bug = Some(bug);
    }

    #[cfg(any(test, feature = "sim"))]
    fn publish_too_early(&mut self, sink: &mut impl SettleSink) {
        if !self.has_bug(PlantedBug::PublishUnconfirmed) {
            return;
        }
        for bound in self.pending.iter().skip(self.planted.published) {
            if !self.show(bound) {
                return;
            }
            fence(Ordering::SeqCst);
            announce(bound, sink);
            self.planted.published += 1;
        }
    }

    /// In sync mode messages that do not wait are answered at the write.
    fn answer_written(&mut self, sink: &mut impl SettleSink) {
        while self.early < self.pending.len() {
            let bound = &mut self.pending[self.early];
            if bound.physical + u64::from(bound.size) > self.written {
                break;
            }
            if !bound.wait
                && let Some(ticket) = bound.ticket.take()
            {
                sink.settled(settled(bound, ticket, Verdict::Stored));
            }
            self.early += 1;
        }
    }

    /// Messages that the disk keeps waiting are answered when their time is up.
    fn answer_late(&mut self, steady_ms: u64, sink: &mut impl SettleSink) {
        let limit_ms = self.options.sync_flush_timeout_ms;
        for bound in &mut self.pending {
            if steady_ms.saturating_sub(bound.bound_at_ms) < limit_ms {
                break;
            }
            if let Some(ticket) = bound.ticket.take() {
                sink.settled(settled(bound, ticket, Verdict::FlushTimeout));
            }
        }
    }

    /// A write or sync failed. Every waiting request is told so; nothing is confirmed any more.
    pub fn fail(&mut self, sink: &mut impl SettleSink) {
        self.failed = true;
        for bound in self.pending.drain(..) {
            if let Some(ticket) = bound.ticket {
                sink.settled(settled(&bound, ticket, Verdict::Failed));
            }
        }
        self.early = 0;
    }

    /// Segments that end at or below this need neither a write nor a sync of this writer any more.
    pub fn needed_from(&self) -> u64 {
        match (self.options.flush_mode, self.options.write_kind) {
            (FlushMode::Sync, WriteKind::Volatile) => self.synced,
            _ => self.written,
        }
    }

    /// Whether a write or sync failed.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether everything that was bound has been confirmed.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.write_in_flight.is_none() && self.sync_in_flight.is_none()
    }
}

/// Tells the flush thread and the shards that wait. After the fence that follows the publication.
fn announce(bound: &Bound, sink: &mut impl SettleSink) {
    let waiting_shards = bound.queue.announce();
    if waiting_shards != 0 {
        sink.wake(&bound.queue, waiting_shards);
    }
}

fn settled(bound: &Bound, ticket: Ticket, verdict: Verdict) -> Settled {
    Settled { ticket, verdict, physical: bound.first_physical, queue_offset: bound.first_queue_offset }
}

/// Turns a kernel error into the text of the one ERROR line of a final failure.
pub fn describe_failure(action: &str, file: &Path, offset: u64, error: &io::Error) -> String {
    format!("{action} {} at offset {offset}: {error}", file.display())
}
