//! The tail of a queue in memory: one writing thread, any number of readers, no lock.
//!
//! Entry `n` lives in chunk `n / CHUNK_ENTRIES`; a ring of slots (the directory) maps chunk indexes to claims. Invariants:
//!
//! 1. `flushed ≤ published ≤ appended`; `appended` and `published` are written by the log writer, `flushed` by the flush
//!    thread.
//! 2. A chunk with an entry at or above `flushed` is never reclaimed: [`TailRead::NotInMemory`] therefore means "in the
//!    file".
//! 3. Readers load `published` first (acquire): whatever lies below it, its chunk, its slot and the directory that holds
//!    the slot were stored before.

use std::sync::{Arc, OnceLock};

use ringmq_protocol::prefetch::prefetch;

use super::chunk::{ChunkArena, ChunkPool, Claim};
use super::entry::QueueEntry;
use super::limits::{CHUNK_ENTRIES, DIRECTORY_SLOTS};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::types::QueueOffset;

/// Nothing can be appended until the flush thread has made progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue's tail is full of entries that are in no file yet")]
pub struct TailFull;

/// Answer of a read from the tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailRead {
    /// This many entries were stored at the start of the buffer; at least one unless the buffer is empty.
    Read(usize),
    /// The entry was published and flushed, and its memory serves another purpose: read the file.
    NotInMemory,
    /// Nothing is published at this offset yet.
    AtEnd,
}

/// What an append needs lies in the first cache line: with many queues each of them costs a walk through cold memory.
#[repr(C, align(64))]
pub(crate) struct Tail {
    appended: AtomicU64,
    published: AtomicU64,
    /// Claim of the chunk that the last entry went to; none once it was taken. Writer's thread only.
    current: AtomicU64,
    arena: Arc<ChunkArena>,
    flushed: AtomicU64,
    retired: AtomicBool,
    directories: [OnceLock<Box<[AtomicU64]>>; DIRECTORY_SLOTS.len()],
}

fn slot(directory: &[AtomicU64], chunk_index: u64) -> &AtomicU64 {
    &directory[(chunk_index % directory.len() as u64) as usize]
}

impl Tail {
    pub(crate) fn new(arena: Arc<ChunkArena>) -> Self {
        Self {
            appended: AtomicU64::new(0),
            published: AtomicU64::new(0),
            current: AtomicU64::new(Claim::NONE.raw()),
            arena,
            flushed: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            directories: [const { OnceLock::new() }; DIRECTORY_SLOTS.len()],
        }
    }

    pub(crate) fn appended(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    pub(crate) fn flushed(&self) -> u64 {
        self.flushed.load(Ordering::Acquire)
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.arena.note_progress();
    }

    /// Flush thread only. Release: the entries were read before the writer may overwrite them.
    pub(crate) fn set_flushed(&self, length: u64) {
        assert!(length <= self.published.load(Ordering::Relaxed), "only published entries reach a file");
        self.flushed.store(length, Ordering::Release);
        self.arena.note_progress();
    }

    /// Writer only.
    pub(crate) fn publish(&self, length: u64) {
        assert!(length <= self.appended(), "only appended entries are published");
        assert!(length >= self.published.load(Ordering::Relaxed), "a published length never falls");
        self.published.store(length, Ordering::Release);
    }

    /// Recovery only, without readers: forgets the memory; all entries below `length` are in files.
    pub(crate) fn reset(&self, length: u64) {
        for slot in self.directories.iter().filter_map(OnceLock::get).flatten() {
            slot.store(Claim::NONE.raw(), Ordering::Release);
        }
        self.current.store(Claim::NONE.raw(), Ordering::Release);
        self.appended.store(length, Ordering::Release);
        self.published.store(length, Ordering::Release);
        self.flushed.store(length, Ordering::Release);
        self.arena.note_progress();
    }

    fn directory(&self) -> Option<&[AtomicU64]> {
        self.directories.iter().rev().find_map(OnceLock::get).map(AsRef::as_ref)
    }

    /// Whether the pool may take this chunk for somebody else. Writer's thread only.
    pub(crate) fn is_reclaimable(&self, chunk_index: u64, claim: Claim) -> bool {
        let orphan =
            || self.directory().is_none_or(|slots| slot(slots, chunk_index).load(Ordering::Relaxed) != claim.raw());
        let end = ((chunk_index + 1) * CHUNK_ENTRIES).min(self.appended());
        self.flushed() >= end || self.is_retired() || orphan()
    }

    /// Clears the slot of a chunk that the pool takes. Writer's thread only.
    pub(crate) fn forget(&self, chunk_index: u64, claim: Claim) {
        if self.current.load(Ordering::Relaxed) == claim.raw() {
            self.current.store(Claim::NONE.raw(), Ordering::Relaxed);
        }
        // Older, smaller directories keep the claim: it no longer matches its chunk, which is all that counts.
        if let Some(slot) = self.directory().map(|slots| slot(slots, chunk_index))
            && slot.load(Ordering::Relaxed) == claim.raw()
        {
            slot.store(Claim::NONE.raw(), Ordering::Release);
        }
    }

    /// Asks for the part of the tail that appends use.
    #[inline]
    pub(crate) fn prefetch(&self) {
        prefetch(self);
    }

    /// Asks for the memory of the next entry, unless that is in a new chunk. The tail's own memory should be near.
    #[inline]
    pub(crate) fn prefetch_entry(&self) {
        let current = Claim::from_raw(self.current.load(Ordering::Relaxed));
        if let Some(chunk) = self.arena.chunk(current) {
            chunk.prefetch((self.appended() % CHUNK_ENTRIES) as usize);
        }
    }

    /// Writer only.
    pub(crate) fn append(self: &Arc<Self>, pool: &ChunkPool, entry: QueueEntry) -> Result<(), TailFull> {
        let position = self.appended();
        let (chunk_index, index) = (position / CHUNK_ENTRIES, (position % CHUNK_ENTRIES) as usize);
        let current = Claim::from_raw(self.current.load(Ordering::Relaxed));
        let claim = if index > 0 && current != Claim::NONE {
            current
        } else {
            let claim = self.claim_for(pool, chunk_index, position)?;
            self.current.store(claim.raw(), Ordering::Relaxed);
            claim
        };
        let chunk = self.arena.chunk(claim).ok_or(TailFull)?;
        chunk.write(index, entry);
        self.appended.store(position + 1, Ordering::Relaxed);
        Ok(())
    }

    /// The claim that the next entry goes to, taking a new chunk where the current one is full or was reclaimed.
    fn claim_for(self: &Arc<Self>, pool: &ChunkPool, chunk_index: u64, position: u64) -> Result<Claim, TailFull> {
        debug_assert!(Arc::ptr_eq(&self.arena, pool.arena()), "a queue takes chunks from the pool of its store");
        let slots = self.slots_for(pool, chunk_index)?;
        let current = Claim::from_raw(slot(slots, chunk_index).load(Ordering::Relaxed));
        if current != Claim::NONE {
            // `slots_for` left here either nothing or this very chunk, and the pool clears slots that it empties.
            return Ok(current);
        }
        let claim = pool.claim(self, chunk_index, position).ok_or(TailFull)?;
        slot(slots, chunk_index).store(claim.raw(), Ordering::Release);
        Ok(claim)
    }

    /// A directory whose slot for `chunk_index` is free or already belongs to it: makes room by giving back the flushed
    /// chunk of the last round, or grows.
    fn slots_for(&self, pool: &ChunkPool, chunk_index: u64) -> Result<&[AtomicU64], TailFull> {
        let mut slots = match self.directory() {
            Some(slots) => slots,
            None => self.grow_directory().ok_or(TailFull)?,
        };
        loop {
            let slot = slot(slots, chunk_index);
            let claim = Claim::from_raw(slot.load(Ordering::Relaxed));
            let Some(chunk) = self.arena.chunk(claim).filter(|_| claim != Claim::NONE) else { return Ok(slots) };
            let occupant = chunk.start() / CHUNK_ENTRIES;
            if occupant == chunk_index {
                return Ok(slots);
            }
            if (occupant + 1) * CHUNK_ENTRIES <= self.flushed() {
                slot.store(Claim::NONE.raw(), Ordering::Release);
                self.current.store(Claim::NONE.raw(), Ordering::Relaxed);
                pool.release(claim);
                return Ok(slots);
            }
            slots = self.grow_directory().ok_or(TailFull)?;
        }
    }

    /// Installs the next larger directory with the slots of the present one.
    fn grow_directory(&self) -> Option<&[AtomicU64]> {
        let level = self.directories.iter().position(|directory| directory.get().is_none())?;
        let slots: Box<[AtomicU64]> = (0..DIRECTORY_SLOTS[level]).map(|_| AtomicU64::new(0)).collect();
        for old in self.directory().unwrap_or_default() {
            let claim = Claim::from_raw(old.load(Ordering::Relaxed));
            if let Some(chunk) = self.arena.chunk(claim).filter(|_| claim != Claim::NONE) {
                slot(&slots, chunk.start() / CHUNK_ENTRIES).store(claim.raw(), Ordering::Relaxed);
            }
        }
        Some(self.directories[level].get_or_init(|| slots))
    }

    /// Whether entries up to `end` can be appended before anything more is flushed. Writer only.
    pub(crate) fn has_room_until(&self, pool: &ChunkPool, end: u64, reserve: u64) -> bool {
        let oldest_unflushed = self.flushed() / CHUNK_ENTRIES;
        let last = end.saturating_sub(1) / CHUNK_ENTRIES;
        let largest = DIRECTORY_SLOTS[DIRECTORY_SLOTS.len() - 1];
        if last.saturating_sub(oldest_unflushed) >= largest {
            pool.arena().note_full();
            return false;
        }
        // The current chunk counts as present even if the pool took it: the reserve covers one more.
        let present = self.appended().saturating_sub(1) / CHUNK_ENTRIES;
        pool.has_room_for(last.saturating_sub(present) + reserve)
    }

    /// How full the largest directory would be with what is not flushed yet: 0 to 100.
    pub(crate) fn unflushed_percent(&self) -> u64 {
        let unflushed = self.published().saturating_sub(self.flushed());
        unflushed * 100 / (DIRECTORY_SLOTS[DIRECTORY_SLOTS.len() - 1] * CHUNK_ENTRIES)
    }

    pub(crate) fn read(&self, from: QueueOffset, out: &mut [QueueEntry]) -> TailRead {
        let published = self.published();
        if from.0 >= published {
            return TailRead::AtEnd;
        }
        let Some(slots) = self.directory() else { return TailRead::NotInMemory };
        let mut filled = 0;
        while filled < out.len() {
            let position = from.0 + filled as u64;
            if position >= published {
                break;
            }
            let (chunk_index, index) = (position / CHUNK_ENTRIES, (position % CHUNK_ENTRIES) as usize);
            let claim = Claim::from_raw(slot(slots, chunk_index).load(Ordering::Acquire));
            if claim == Claim::NONE {
                break;
            }
            let Some(chunk) = self.arena.chunk(claim).filter(|chunk| chunk.holds(claim)) else { break };
            let start = chunk.start();
            if start > position || start / CHUNK_ENTRIES != chunk_index {
                break;
            }
            let count = (CHUNK_ENTRIES as usize - index).min(out.len() - filled);
            let count = count.min(usize::try_from(published - position).unwrap_or(usize::MAX));
            for (offset, entry) in out[filled..filled + count].iter_mut().enumerate() {
                *entry = chunk.read(index + offset);
            }
            if !chunk.still_holds(claim) {
                break;
            }
            filled += count;
        }
        if filled == 0 && !out.is_empty() { TailRead::NotInMemory } else { TailRead::Read(filled) }
    }
}
