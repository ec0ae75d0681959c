//! What other threads may know of the log: published offsets, and ring memory under a pin.
//!
//! Protocol of a pin (Dekker): a reader stores the lowest offset it is about to use into its slot, fences, and only
//! then checks that the offset is at or above the floor. The writer raises the floor, fences, and only then looks at
//! the slots before it reuses memory below the floor. Whichever order the two take, either the reader sees the raised
//! floor and lets go, or the writer sees the pin and waits for a later turn.

use std::sync::Arc;

use super::ring::LogRing;
use crate::planted::{PlantedMistake, is_planted};
use crate::sync::{AtomicU64, Ordering, fence};

/// Value of a slot that pins nothing.
const UNPINNED: u64 = u64::MAX;

/// The pin of one reading thread. One cache line each, so that shards do not disturb each other.
#[repr(align(64))]
#[derive(Debug)]
pub struct PinSlot(AtomicU64);

/// The log as all threads see it.
pub struct LogView {
    pub(super) ring: LogRing,
    /// Everything below is confirmed: readers may see it.
    pub(super) confirmed: AtomicU64,
    /// Start of the last confirmed record; stored before `confirmed`. `u64::MAX` until there is one.
    last_record: AtomicU64,
    /// Ring memory holds `[floor, end)`; below it, read the files.
    pub(super) floor: AtomicU64,
    /// Everything below is known to be synced.
    pub(super) synced: AtomicU64,
    /// Start of the oldest segment that still exists.
    minimum: AtomicU64,
    /// Store time of the newest confirmed record, milliseconds since the epoch.
    confirmed_store_timestamp: AtomicU64,
    /// Everything below is confirmed and in the tails of its queues.
    pub(super) shown: AtomicU64,
    /// Store time of the newest such record; stored after `shown`, so it never claims more.
    pub(super) shown_store_timestamp: AtomicU64,
    pins: Box<[PinSlot]>,
}

impl LogView {
    /// A view with one pin slot per reading thread. All offsets start at `end`, the recovered end of the log.
    pub fn new(ring: LogRing, readers: usize, minimum: u64, end: u64, store_timestamp: u64) -> Arc<Self> {
        Arc::new(Self {
            ring,
            confirmed: AtomicU64::new(end),
            last_record: AtomicU64::new(u64::MAX),
            floor: AtomicU64::new(end),
            synced: AtomicU64::new(end),
            minimum: AtomicU64::new(minimum),
            confirmed_store_timestamp: AtomicU64::new(store_timestamp),
            shown: AtomicU64::new(end),
            shown_store_timestamp: AtomicU64::new(store_timestamp),
            pins: (0..readers).map(|_| PinSlot(AtomicU64::new(UNPINNED))).collect(),
        })
    }

    /// Takes back the claim of [`Self::new`] that everything is synced: only what is below `offset` is. For a start, before
    /// any other thread knows the view.
    pub fn begin_synced_at(&self, offset: u64) {
        assert!(offset <= self.confirmed(), "what is synced is confirmed");
        self.synced.store(offset, Ordering::Release);
    }

    /// Offset below which everything may be read.
    pub fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Acquire)
    }

    /// The confirmed offset with the start of the record that ends there; `None` when nothing was confirmed since the
    /// start, or the writer is just about to confirm more.
    pub fn confirmed_record(&self) -> Option<(u64, u64)> {
        let confirmed = self.confirmed();
        let last_record = self.last_record.load(Ordering::Acquire);
        // The record of a later confirmation begins at or behind the confirmed offset.
        (last_record < confirmed).then_some((confirmed, last_record))
    }

    /// Offset below which everything is known to be on stable storage.
    pub fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Whether everything below `offset` is known to be on stable storage: only then may the durable point say so.
    pub fn is_synced(&self, offset: u64) -> bool {
        offset <= self.synced() || is_planted(PlantedMistake::DurablePointAhead)
    }

    /// Publishes what a completed sync, submitted after the write, covers. Called by the thread that synced.
    pub fn publish_synced(&self, offset: u64) {
        self.synced.fetch_max(offset, Ordering::AcqRel);
    }

    /// Lowest offset that the ring still holds.
    pub fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    /// Start of the oldest segment.
    pub fn minimum(&self) -> u64 {
        self.minimum.load(Ordering::Acquire)
    }

    /// Records that older segments were removed.
    pub fn set_minimum(&self, offset: u64) {
        self.minimum.store(offset, Ordering::Release);
    }

    /// Store time of the newest confirmed record.
    pub fn confirmed_store_timestamp(&self) -> u64 {
        self.confirmed_store_timestamp.load(Ordering::Relaxed)
    }

    /// Offset below which every record is in the tail of its queue, and a store time that is no later than that of the next
    /// one. A flush of the queues that begins afterwards writes them all; the confirmed offset says nothing of that, as records
    /// may wait for room in a tail after they were confirmed.
    pub fn shown(&self) -> (u64, u64) {
        // The time first: a later one than the offset's would claim too much.
        let store_timestamp = self.shown_store_timestamp.load(Ordering::Acquire);
        (self.shown.load(Ordering::Acquire), store_timestamp)
    }

    /// Size of the ring in bytes.
    pub fn ring_bytes(&self) -> usize {
        self.ring.size()
    }

    /// Pins everything from `physical` upwards for reader `slot` and says whether the ring holds it. A slot keeps the
    /// lowest of its pins; when this returns false the slot is as it was before.
    pub fn pin(&self, slot: usize, physical: u64) -> bool {
        let pin = &self.pins[slot].0;
        let before = pin.load(Ordering::Relaxed);
        if physical < before {
            pin.store(physical, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        if physical >= self.floor.load(Ordering::Acquire) {
            return true;
        }
        pin.store(before, Ordering::Release);
        false
    }

    /// Whether reader `slot` pins anything.
    pub fn is_pinned(&self, slot: usize) -> bool {
        self.pins[slot].0.load(Ordering::Relaxed) != UNPINNED
    }

    /// Lets go of everything reader `slot` pinned. No pointer from [`LogView::address`] may be used afterwards.
    pub fn unpin(&self, slot: usize) {
        self.pins[slot].0.store(UNPINNED, Ordering::Release);
    }

    /// Address of ring memory for gathered writes. Valid while the caller's pin covers `physical` and the range is
    /// confirmed.
    pub fn address(&self, physical: u64) -> *const u8 {
        self.ring.at(physical)
    }

    /// Copies `[physical, physical + out.len())` from the ring under the pin of reader `slot`. False when the ring no
    /// longer holds it, or when it is not confirmed yet.
    pub fn copy(&self, slot: usize, physical: u64, out: &mut [u8]) -> bool {
        self.inspect(slot, physical, out.len(), |bytes| out.copy_from_slice(bytes)).is_some()
    }

    /// Shows `[physical, physical + length)` in place, under the pin of reader `slot`. `None` when the ring no longer holds
    /// it, or when it is not confirmed yet. The writer may have to wait for as long as `look` takes: keep it short.
    pub fn inspect<T>(&self, slot: usize, physical: u64, length: usize, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let before = self.pins[slot].0.load(Ordering::Relaxed);
        if physical + length as u64 > self.confirmed() || !self.pin(slot, physical) {
            return None;
        }
        // SAFETY: confirmed bytes are never written again while pinned, and the pin above covers the range.
        let seen = look(unsafe { self.ring.slice(physical, length) });
        self.pins[slot].0.store(before, Ordering::Release);
        Some(seen)
    }

    /// Appends `[physical, physical + length)` to `out`. The pin of reader `slot` must already cover it, and it must be
    /// confirmed: anything else is a mistake of the caller, and panics rather than reads what the writer may overwrite.
    pub fn append_pinned(&self, slot: usize, physical: u64, length: usize, out: &mut Vec<u8>) {
        assert!(self.pins[slot].0.load(Ordering::Relaxed) <= physical, "ring memory that is not pinned");
        assert!(physical + length as u64 <= self.confirmed(), "ring memory that is not confirmed");
        // SAFETY: confirmed bytes are never written again while pinned, and both was just checked.
        out.extend_from_slice(unsafe { self.ring.slice(physical, length) });
    }

    /// Publishes that everything up to `end` is confirmed, where the record at `start` ends. Writer only.
    pub(crate) fn confirm(&self, start: u64, end: u64, store_timestamp: u64) {
        self.confirmed_store_timestamp.store(store_timestamp, Ordering::Relaxed);
        self.last_record.store(start, Ordering::Release);
        self.confirmed.store(end, Ordering::Release);
    }

    /// Raises the floor, unless it is higher, and returns the offset below which nobody reads ring memory any more.
    /// Writer only.
    pub(crate) fn raise_floor(&self, floor: u64) -> u64 {
        if floor > self.floor.load(Ordering::Relaxed) {
            self.floor.store(floor, Ordering::Release);
        }
        fence(Ordering::SeqCst);
        self.lowest_pin().min(self.floor.load(Ordering::Relaxed))
    }

    /// Lowest offset that any reader pins.
    pub(super) fn lowest_pin(&self) -> u64 {
        self.pins.iter().map(|slot| slot.0.load(Ordering::Acquire)).min().unwrap_or(UNPINNED)
    }
}
