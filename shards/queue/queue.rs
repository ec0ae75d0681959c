//! One consume queue: its identity, offsets, tail in memory and what is known of its files.
//!
//! | state | written by |
//! |---|---|
//! | next offset, appended and published length, physical end, last store time | the log writer (recovery before it) |
//! | flushed and minimum offset, file span | the flush thread (recovery before it) |
//! | `waiting_shards` | a bit is set by the shard that holds requests for the queue, taken by the log writer |
//! | retired | whoever deletes the topic |
//!
//! Everything else only reads. No method here touches a file or takes a lock, but for the flush thread's own span.

use std::fmt;
use std::sync::{Arc, Mutex};

use ringmq_protocol::prefetch::prefetch_whole;

use super::chunk::{ChunkArena, ChunkPool};
use super::dirty::{DirtySet, QueueNumber};
use super::entry::QueueEntry;
use super::files::FileSpan;
use super::limits::{CHUNK_ENTRIES, MAXIMUM_SHARDS, POOL_RESERVE_CHUNKS};
use super::tail::{Tail, TailFull, TailRead};
use crate::sync::{AtomicBool, AtomicU64, Ordering, fence};
use crate::types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp};

/// A consume queue. Shared as `Arc<Queue>` between the writer, the shards and the flush thread.
pub struct Queue {
    topic: Arc<str>,
    queue_id: QueueId,
    number: QueueNumber,
    /// Differs from every other queue of this process, also from one of the same name before it.
    identity: u64,
    dirty: Arc<DirtySet>,
    tail: Arc<Tail>,
    next_offset: AtomicU64,
    /// Log writer only: no entry below this needs more room than was found for it, see [`Self::can_append`].
    room_until: AtomicU64,
    minimum: AtomicU64,
    physical_end: AtomicU64,
    last_store_timestamp: AtomicU64,
    waiting_shards: AtomicU64,
    /// As the tail knows it too, for the pool.
    retired: AtomicBool,
    pub(crate) files: Mutex<FileSpan>,
}

/// How deep [`Queue::prefetch`] goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefetchStep {
    /// The queue itself.
    Queue,
    /// Its tail's counters.
    Tail,
    /// The place of the next entry.
    Entry,
}

impl fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (minimum, maximum) = self.bounds();
        write!(formatter, "{}/{} [{minimum}, {maximum})", self.topic, self.queue_id)
    }
}

impl Queue {
    pub(crate) fn new(
        topic: Arc<str>,
        queue_id: QueueId,
        number: QueueNumber,
        identity: u64,
        dirty: Arc<DirtySet>,
        arena: Arc<ChunkArena>,
    ) -> Self {
        Self {
            topic,
            queue_id,
            number,
            identity,
            dirty,
            tail: Arc::new(Tail::new(arena)),
            next_offset: AtomicU64::new(0),
            room_until: AtomicU64::new(0),
            minimum: AtomicU64::new(0),
            physical_end: AtomicU64::new(0),
            last_store_timestamp: AtomicU64::new(0),
            waiting_shards: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            files: Mutex::new(FileSpan::default()),
        }
    }

    /// Name of the topic.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// Number inside the topic.
    pub fn queue_id(&self) -> QueueId {
        self.queue_id
    }

    pub(crate) fn number(&self) -> QueueNumber {
        self.number
    }

    pub(crate) fn identity(&self) -> u64 {
        self.identity
    }

    // The log writer's side.

    /// Offset that the next bound message gets. Log writer only: at least the published length.
    pub fn next_offset(&self) -> QueueOffset {
        QueueOffset(self.next_offset.load(Ordering::Relaxed))
    }

    /// Takes `count` offsets for messages that are being bound and returns the first. Log writer only.
    pub fn take_offsets(&self, count: u64) -> QueueOffset {
        let first = self.next_offset.load(Ordering::Relaxed);
        self.next_offset.store(first + count, Ordering::Relaxed);
        QueueOffset(first)
    }

    /// Whether `count` more messages may be bound: their entries, after those bound but not appended yet, will find
    /// room before anything else is flushed. Log writer only. Queues admitted in the same turn share a small reserve, so
    /// [`Self::append`] may still refuse in rare cases and must be retried.
    pub fn can_append(&self, pool: &ChunkPool, count: u64) -> bool {
        let end = self.next_offset.load(Ordering::Relaxed) + count;
        // As a rule the entries go to a chunk in which others have room already. That is known without the tail's memory.
        if end <= self.room_until.load(Ordering::Relaxed) {
            return pool.has_room_for(POOL_RESERVE_CHUNKS);
        }
        let has_room = self.tail.has_room_until(pool, end, POOL_RESERVE_CHUNKS);
        if has_room {
            self.room_until.store(end.next_multiple_of(CHUNK_ENTRIES), Ordering::Relaxed);
        }
        has_room
    }

    /// Asks the processor for what [`Self::append`] needs, in three steps of which each follows the pointers that the
    /// one before brought near: with thousands of queues a message otherwise waits for memory ten times. Log writer only.
    #[inline]
    pub fn prefetch(&self, step: PrefetchStep) {
        match step {
            PrefetchStep::Queue => prefetch_whole(self),
            PrefetchStep::Tail => self.tail.prefetch(),
            PrefetchStep::Entry => self.tail.prefetch_entry(),
        }
    }

    /// Adds the entry of the message at [`Self::appended_end`]; nobody sees it before [`Self::publish`]. Log writer
    /// only, in the order of the log. Reuses memory whose entries are in a file: this queue's own oldest chunk when its
    /// directory is full, the oldest of any queue when the pool is. On [`TailFull`] nothing has changed; the caller keeps
    /// the entry and tries again after the flush thread's next round.
    pub fn append(&self, pool: &ChunkPool, entry: QueueEntry) -> Result<(), TailFull> {
        debug_assert!(entry.size > 0, "an entry of size 0 would end the queue file");
        self.tail.append(pool, entry)?;
        let end = self.tail.appended();
        if self.next_offset.load(Ordering::Relaxed) < end {
            self.next_offset.store(end, Ordering::Relaxed);
        }
        self.physical_end.store(entry.physical_end().0, Ordering::Release);
        Ok(())
    }

    /// Offset of the next entry that is appended. Log writer only.
    pub fn appended_end(&self) -> QueueOffset {
        QueueOffset(self.tail.appended())
    }

    /// Shows the entries below `length` to readers and puts the queue on the flush thread's list. Log writer only.
    ///
    /// Returns which shards hold requests that wait for the queue, a bit each; the bits are taken, so one wake-up is
    /// enough until a shard arms its bit again. The protocol (after Dekker): the writer stores the length, passes a
    /// sequentially consistent fence and reads the bits; a shard sets its bit, passes such a fence and reads the length.
    /// Whichever fence comes first, at least one of the two sees the other's store, so no message is slept through.
    #[must_use = "a bit means that somebody waits"]
    pub fn publish(&self, length: QueueOffset, last_store_timestamp: StoreTimestamp) -> u64 {
        self.publish_in_group(length, last_store_timestamp);
        fence(Ordering::SeqCst);
        self.announce()
    }

    /// The first half of [`Self::publish`], for many messages at once: after the last of them the caller passes one
    /// sequentially consistent fence and then calls [`Self::announce`] for each.
    pub fn publish_in_group(&self, length: QueueOffset, last_store_timestamp: StoreTimestamp) {
        self.last_store_timestamp.store(last_store_timestamp.0, Ordering::Relaxed);
        self.tail.publish(length.0);
    }

    /// The second half of [`Self::publish`]: puts the queue on the flush thread's list and takes the bits of the shards that
    /// wait.
    #[must_use = "a bit means that somebody waits"]
    pub fn announce(&self) -> u64 {
        self.dirty.mark(self.number);
        match self.waiting_shards.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.waiting_shards.swap(0, Ordering::Relaxed),
        }
    }

    // The owner's side.

    /// Announces that requests of shard `shard` (below [`MAXIMUM_SHARDS`]) wait for entries at or above `seen`. Call it after parking them.
    /// Returns the published length if it already lies above `seen`: then the writer may have missed the bit and the shard
    /// serves them itself.
    pub fn arm_waiters(&self, shard: usize, seen: QueueOffset) -> Option<QueueOffset> {
        assert!(shard < MAXIMUM_SHARDS, "one bit per shard");
        self.waiting_shards.fetch_or(1 << shard, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let published = self.tail.published();
        (published > seen.0).then_some(QueueOffset(published))
    }

    // Any thread.

    /// Smallest and one past the greatest offset that a consumer may read.
    pub fn bounds(&self) -> (QueueOffset, QueueOffset) {
        let minimum = self.minimum.load(Ordering::Acquire);
        (QueueOffset(minimum), QueueOffset(self.tail.published().max(minimum)))
    }

    /// One past the greatest readable offset.
    pub fn published(&self) -> QueueOffset {
        QueueOffset(self.tail.published())
    }

    /// Entries below this offset are in files.
    pub fn flushed(&self) -> QueueOffset {
        QueueOffset(self.tail.flushed())
    }

    /// Reads consecutive entries from `from` out of memory. The caller checks `from` against [`Self::bounds`]. Takes no
    /// lock and never blocks.
    pub fn read(&self, from: QueueOffset, out: &mut [QueueEntry]) -> TailRead {
        self.tail.read(from, out)
    }

    /// End in the log of the last appended record; 0 while no message of the queue is known.
    pub fn physical_end(&self) -> PhysicalOffset {
        PhysicalOffset(self.physical_end.load(Ordering::Acquire))
    }

    /// Store time of the last record published since the start; 0 before.
    pub fn last_store_timestamp(&self) -> StoreTimestamp {
        StoreTimestamp(self.last_store_timestamp.load(Ordering::Relaxed))
    }

    /// Share of the largest possible tail that waits to be flushed, in percent. Past 50 a flush before the next
    /// second is worth its wake-up.
    pub fn unflushed_percent(&self) -> u64 {
        self.tail.unflushed_percent()
    }

    /// Whether the queue's topic was deleted: its files go away, its memory is taken for others, nothing is flushed.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Ends the queue. Called by the log writer's thread for a topic that is being deleted: from then on it binds nothing
    /// more to the queue, so that its end of the log is the barrier below which the queue's records count no more.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.tail.retire();
    }

    // The flush thread's side, and recovery's.

    pub(crate) fn set_flushed(&self, length: u64) {
        self.tail.set_flushed(length);
    }

    pub(crate) fn raise_minimum(&self, minimum: u64) {
        self.minimum.fetch_max(minimum, Ordering::Release);
    }

    pub(crate) fn mark_dirty(&self) {
        self.dirty.mark(self.number);
    }

    /// Sets all offsets while neither writer nor readers exist.
    pub(crate) fn reset(&self, minimum: u64, length: u64, physical_end: PhysicalOffset) {
        self.tail.reset(length);
        self.minimum.store(minimum, Ordering::Release);
        self.next_offset.store(length, Ordering::Release);
        self.room_until.store(0, Ordering::Release);
        self.physical_end.store(physical_end.0, Ordering::Release);
    }
}
