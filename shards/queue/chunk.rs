//! The memory of all queue tails: a bounded, type-stable pool of fixed chunks.
//!
//! Chunks are plain arrays of atomics that live as long as the arena and are never given back to the allocator, so a
//! reader that follows a stale number reads wrong values but never freed memory. What makes stale reads visible is the
//! **claim**: a number that is never used twice, stored in the chunk and in the slot of the queue's directory that points
//! to it. A reader compares both before and after reading (a seqlock whose sequence is the claim).
//!
//! Fences: whoever takes a chunk stores claim 0, then a release fence, then overwrites. A reader that saw one
//! overwritten value and then passes its acquire fence must see claim 0 or a later claim, never the old one.
//!
//! Ownership: [`ChunkPool`] belongs to the log writer's thread (it is `Send`, not `Sync`); [`ChunkArena`] is shared.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use ringmq_protocol::prefetch::prefetch;

use super::entry::QueueEntry;
use super::limits::{CHUNK_ENTRIES, MAXIMUM_POOL_CHUNKS, SLAB_CHUNKS, UNFLUSHED_SHARE};
use super::tail::Tail;
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};
use crate::types::PhysicalOffset;

const ENTRIES: usize = CHUNK_ENTRIES as usize;
const NUMBER_BITS: u32 = MAXIMUM_POOL_CHUNKS.trailing_zeros();
/// A count of progress that is never reached.
const NEVER: u64 = u64::MAX;

/// Names one use of one chunk: a number that never repeats, and the chunk's number. Zero is "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim(u64);

impl Claim {
    pub(crate) const NONE: Self = Self(0);

    fn new(sequence: u64, chunk: u32) -> Self {
        assert!(sequence > 0 && sequence < 1 << (64 - NUMBER_BITS) && chunk < MAXIMUM_POOL_CHUNKS);
        Self(sequence << NUMBER_BITS | u64::from(chunk))
    }

    pub(crate) fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(crate) fn raw(self) -> u64 {
        self.0
    }

    fn chunk(self) -> u32 {
        // The mask leaves 24 bits.
        (self.0 & u64::from(MAXIMUM_POOL_CHUNKS - 1)) as u32
    }
}

/// `CHUNK_ENTRIES` consecutive entries of one queue.
pub(crate) struct Chunk {
    claim: AtomicU64,
    /// Queue offset of the first entry that was written under this claim; data guarded by the claim.
    start: AtomicU64,
    entries: [Entry; ENTRIES],
}

/// One entry. Its parts lie side by side: with many queues each append is a walk through cold memory.
struct Entry {
    physical: AtomicU64,
    tags_code: AtomicU64,
    size: AtomicU32,
}

impl Chunk {
    fn new() -> Self {
        Self {
            claim: AtomicU64::new(0),
            start: AtomicU64::new(0),
            entries: std::array::from_fn(|_| Entry {
                physical: AtomicU64::new(0),
                tags_code: AtomicU64::new(0),
                size: AtomicU32::new(0),
            }),
        }
    }

    /// Writer only: stores an entry. It becomes readable through the queue's published length, not here.
    pub(crate) fn write(&self, index: usize, entry: QueueEntry) {
        let place = &self.entries[index];
        place.physical.store(entry.physical.0, Ordering::Relaxed);
        place.tags_code.store(entry.tags_code.cast_unsigned(), Ordering::Relaxed);
        place.size.store(entry.size, Ordering::Relaxed);
    }

    /// Asks for the memory that [`Self::write`] needs.
    pub(crate) fn prefetch(&self, index: usize) {
        prefetch(&self.entries[index]);
        // An entry may lie across two lines.
        prefetch(&self.entries[index].size);
    }

    /// Reads an entry; the value means something only if the claim still holds afterwards.
    pub(crate) fn read(&self, index: usize) -> QueueEntry {
        let place = &self.entries[index];
        QueueEntry {
            physical: PhysicalOffset(place.physical.load(Ordering::Relaxed)),
            size: place.size.load(Ordering::Relaxed),
            tags_code: place.tags_code.load(Ordering::Relaxed).cast_signed(),
        }
    }

    /// Queue offset of the first entry under the current claim.
    pub(crate) fn start(&self) -> u64 {
        self.start.load(Ordering::Relaxed)
    }

    /// First half of the seqlock: whether the chunk is in use under this claim.
    pub(crate) fn holds(&self, claim: Claim) -> bool {
        self.claim.load(Ordering::Acquire) == claim.0
    }

    /// Second half of the seqlock: whether everything read since [`Self::holds`] belonged to the claim.
    pub(crate) fn still_holds(&self, claim: Claim) -> bool {
        fence(Ordering::Acquire);
        self.claim.load(Ordering::Acquire) == claim.0
    }
}

/// The chunks themselves and the figures about them; shared by all queues and readers.
pub struct ChunkArena {
    slabs: Box<[OnceLock<Box<[Chunk]>>]>,
    limit: u32,
    allocated: AtomicU32,
    in_use: AtomicU32,
    /// Counts flushes and retirements: without a change, another search for free chunks would find nothing.
    progress: AtomicU64,
    /// `progress` at which the writer's last search found too few; [`NEVER`] before the first.
    exhausted_at: AtomicU64,
    /// `progress` at which one queue's tail was last found to hold as much as a tail can; [`NEVER`] before.
    full_at: AtomicU64,
    /// Entries appended and flushed since the start. Each is written by one thread.
    appended: AtomicU64,
    flushed: AtomicU64,
}

impl ChunkArena {
    /// Bytes of one chunk.
    pub const CHUNK_BYTES: u64 = size_of::<Chunk>() as u64;

    pub(crate) fn chunk(&self, claim: Claim) -> Option<&Chunk> {
        let (slab, index) = (claim.chunk() / SLAB_CHUNKS, claim.chunk() % SLAB_CHUNKS);
        self.slabs.get(slab as usize)?.get()?.get(index as usize)
    }

    /// Most bytes that the pool may take.
    pub fn limit_bytes(&self) -> u64 {
        u64::from(self.limit) * Self::CHUNK_BYTES
    }

    /// Bytes taken from the allocator; never falls.
    pub fn allocated_bytes(&self) -> u64 {
        u64::from(self.allocated.load(Ordering::Relaxed)) * Self::CHUNK_BYTES
    }

    /// Bytes of chunks that hold entries, flushed or not. A full pool is normal: flushed chunks are a cache.
    pub fn used_bytes(&self) -> u64 {
        u64::from(self.in_use.load(Ordering::Relaxed)) * Self::CHUNK_BYTES
    }

    /// Whether a flush round is due because the tails fill: a part of all entries are in no file yet, chunks are used up, as
    /// with very many queues that each need one for a few entries, or one queue's tail takes no more.
    pub fn is_filling(&self) -> bool {
        self.unflushed_entries() >= u64::from(self.limit) * CHUNK_ENTRIES / UNFLUSHED_SHARE
            || [&self.exhausted_at, &self.full_at]
                .iter()
                .any(|at| at.load(Ordering::Relaxed) == self.progress.load(Ordering::Relaxed))
    }

    /// Writer only: a queue's tail takes no more until a flush.
    pub(crate) fn note_full(&self) {
        self.full_at.store(self.progress.load(Ordering::Acquire), Ordering::Relaxed);
    }

    /// Entries that are in no file yet. Those of deleted topics count until the next round of flushing.
    pub fn unflushed_entries(&self) -> u64 {
        self.appended.load(Ordering::Relaxed).saturating_sub(self.flushed.load(Ordering::Relaxed))
    }

    /// Log writer only.
    pub(crate) fn note_appended(&self, entries: u64) {
        self.appended.store(self.appended.load(Ordering::Relaxed) + entries, Ordering::Relaxed);
    }

    /// Flush thread only, before it looks for what there is to flush.
    pub(crate) fn appended_entries(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    /// Flush thread only: so many more entries are in files, and everything that was appended up to `appended` is, or its queue is
    /// gone.
    pub(crate) fn note_flushed(&self, entries: u64, appended: u64) {
        let flushed = self.flushed.load(Ordering::Relaxed) + entries;
        // Entries that recovery makes anew are flushed without having been appended.
        self.flushed.store(flushed.max(appended).min(self.appended_entries()), Ordering::Relaxed);
    }

    pub(crate) fn note_progress(&self) {
        self.progress.fetch_add(1, Ordering::Release);
    }
}

/// Hands out chunks; owned by the log writer's thread.
pub struct ChunkPool {
    arena: Arc<ChunkArena>,
    state: RefCell<PoolState>,
}

struct PoolState {
    free: Vec<u32>,
    /// By chunk number: who uses it.
    owners: Vec<Option<Owner>>,
    /// Where the search for flushed chunks goes on, so that the oldest claims go first.
    hand: usize,
    next_sequence: u64,
}

struct Owner {
    tail: Arc<Tail>,
    chunk_index: u64,
    claim: Claim,
}

impl ChunkPool {
    /// A pool that takes at most `limit_bytes`, rounded up to one slab.
    pub fn new(limit_bytes: u64) -> Self {
        let chunks = (limit_bytes / ChunkArena::CHUNK_BYTES).min(u64::from(MAXIMUM_POOL_CHUNKS));
        let slabs = u32::try_from(chunks).unwrap_or(MAXIMUM_POOL_CHUNKS).div_ceil(SLAB_CHUNKS).max(1);
        let arena = ChunkArena {
            slabs: (0..slabs).map(|_| OnceLock::new()).collect(),
            limit: slabs * SLAB_CHUNKS,
            allocated: AtomicU32::new(0),
            in_use: AtomicU32::new(0),
            progress: AtomicU64::new(0),
            exhausted_at: AtomicU64::new(NEVER),
            full_at: AtomicU64::new(NEVER),
            appended: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
        };
        let state = PoolState { free: Vec::new(), owners: Vec::new(), hand: 0, next_sequence: 1 };
        Self { arena: Arc::new(arena), state: RefCell::new(state) }
    }

    /// The shared part.
    pub fn arena(&self) -> &Arc<ChunkArena> {
        &self.arena
    }

    /// Takes a chunk for `chunk_index` of a tail whose first entry there will be `start`. `None` when every chunk holds
    /// entries that are in no file yet.
    pub(crate) fn claim(&self, tail: &Arc<Tail>, chunk_index: u64, start: u64) -> Option<Claim> {
        let state = &mut *self.state.borrow_mut();
        if !self.gather(state, 1) {
            return None;
        }
        let number = state.free.pop()?;
        let claim = Claim::new(state.next_sequence, number);
        state.next_sequence += 1;
        let chunk = self.arena.chunk(claim)?;
        // The chunk may have been free or not: claim 0, then the fence, before anything in it changes.
        chunk.claim.store(0, Ordering::Release);
        fence(Ordering::Release);
        chunk.start.store(start, Ordering::Relaxed);
        chunk.claim.store(claim.0, Ordering::Release);
        state.owners[number as usize] = Some(Owner { tail: Arc::clone(tail), chunk_index, claim });
        self.arena.in_use.fetch_add(1, Ordering::Relaxed);
        Some(claim)
    }

    /// Gives back a chunk that its owner no longer points to.
    pub(crate) fn release(&self, claim: Claim) {
        let state = &mut *self.state.borrow_mut();
        let number = claim.chunk();
        if state.owners[number as usize].as_ref().is_some_and(|owner| owner.claim == claim) {
            state.owners[number as usize] = None;
            self.retire_claim(claim);
            state.free.push(number);
        }
    }

    /// Whether `count` chunks can be claimed now; searches for flushed ones if need be.
    pub(crate) fn has_room_for(&self, count: u64) -> bool {
        self.gather(&mut self.state.borrow_mut(), count)
    }

    fn retire_claim(&self, claim: Claim) {
        if let Some(chunk) = self.arena.chunk(claim) {
            chunk.claim.store(0, Ordering::Release);
        }
        self.arena.in_use.fetch_sub(1, Ordering::Relaxed);
    }

    /// Brings the free list to `count` chunks: new slabs first, then chunks whose entries are in files.
    fn gather(&self, state: &mut PoolState, count: u64) -> bool {
        while (state.free.len() as u64) < count && self.grow(state) {}
        if state.free.len() as u64 >= count {
            return true;
        }
        let progress = self.arena.progress.load(Ordering::Acquire);
        if self.arena.exhausted_at.load(Ordering::Relaxed) == progress {
            return false;
        }
        for _ in 0..state.owners.len() {
            let number = state.hand;
            state.hand = (state.hand + 1) % state.owners.len();
            let Some(owner) = &state.owners[number] else { continue };
            if !owner.tail.is_reclaimable(owner.chunk_index, owner.claim) {
                continue;
            }
            owner.tail.forget(owner.chunk_index, owner.claim);
            self.retire_claim(owner.claim);
            state.free.push(owner.claim.chunk());
            state.owners[number] = None;
            if state.free.len() as u64 >= count {
                return true;
            }
        }
        self.arena.exhausted_at.store(progress, Ordering::Relaxed);
        false
    }

    fn grow(&self, state: &mut PoolState) -> bool {
        let allocated = self.arena.allocated.load(Ordering::Relaxed);
        let Some(slab) = self.arena.slabs.get((allocated / SLAB_CHUNKS) as usize) else { return false };
        slab.get_or_init(|| (0..SLAB_CHUNKS).map(|_| Chunk::new()).collect());
        // Reversed, so that chunks are first handed out in ascending order and the hand meets the oldest first.
        state.free.splice(0..0, (allocated..allocated + SLAB_CHUNKS).rev());
        state.owners.resize_with((allocated + SLAB_CHUNKS) as usize, || None);
        self.arena.allocated.store(allocated + SLAB_CHUNKS, Ordering::Relaxed);
        true
    }
}
