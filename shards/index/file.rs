//! One index file: the live one, which is written, and older ones, which are only read.
//!
//! The live file keeps its slots in memory (4 B each, 20 MB by default, untouched parts cost nothing) and gathers new
//! entries (at most `ENTRY_BUFFER`, 160 KiB): putting a key is one random access to memory. A full file keeps its slots until
//! they are written. That is all the memory the index uses; older files are read with one small read per chain step.
//!
//! Order of writing: entries and changed pages of slots, sync, header, sync; the last three steps may be another thread's
//! (`sync.rs`). So the header never promises what is not there. Pages are written in portions, between which keys are put: the
//! header is the one of before the first portion. Slots may be ahead of the header after a crash; entries below the header's
//! count are right, and the slots are made anew from them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringmq_protocol::prefetch::prefetch;

use super::error::IndexError;
use super::layout::{ENTRY_LENGTH, HEADER_LENGTH, Header, IndexEntry, IndexGeometry, SLOT_BYTES};
use super::limits::{ENTRY_BUFFER, LINKS_BEHIND, PAGE_SLOTS, PAGES_PER_WRITE, REBUILD_BATCH};
use super::sync::FileSync;
use crate::disk::{Disk, DiskFile, OpenOptions};

/// Room for the slots of all entries that no slot leads to: one more than [`LINKS_BEHIND`] while an entry is added.
const WAITING_SLOTS: usize = (LINKS_BEHIND as usize + 1).next_power_of_two();

/// Where a query looks, and what it found.
pub(crate) struct Search {
    pub(crate) hash: u32,
    pub(crate) begin: i64,
    pub(crate) end: i64,
    pub(crate) maximum: usize,
    pub(crate) steps_left: u32,
    pub(crate) found: Vec<i64>,
}

pub(crate) struct IndexFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    name: String,
    geometry: IndexGeometry,
    header: Header,
    live: Option<Live>,
}

/// What only the newest file has, and full ones until they are written.
struct Live {
    slots: Vec<u32>,
    dirty_pages: Vec<bool>,
    /// The page at which the writing of dirty ones goes on.
    next_page: usize,
    /// Entries that are not written yet: the last ones before `header.next_entry`.
    pending: Vec<u8>,
    /// How many of the last pending entries no slot leads to yet: see [`IndexFile::put`].
    unlinked: u32,
    /// The slots of those entries, each at the entry's number modulo the length.
    waiting_slots: [u32; WAITING_SLOTS],
    /// Whether the header on disk is behind, and nobody is told to write it.
    is_behind: bool,
}

impl Live {
    fn new(slots: Vec<u32>) -> Self {
        let pages = slots.len().div_ceil(PAGE_SLOTS);
        Self {
            slots,
            dirty_pages: vec![false; pages],
            next_page: 0,
            pending: Vec::new(),
            unlinked: 0,
            waiting_slots: [0; WAITING_SLOTS],
            is_behind: false,
        }
    }

    fn pending_entries(&self) -> u32 {
        u32::try_from(self.pending.len() / ENTRY_LENGTH).unwrap_or(u32::MAX)
    }
}

impl IndexFile {
    /// Makes a new live file. `previous` is the header of the file before: Java seeds the new one with its end, so
    /// that the first entry's time counts from there.
    pub(crate) fn create(
        disk: &dyn Disk,
        directory: &Path,
        name: String,
        geometry: IndexGeometry,
        previous: Option<&Header>,
    ) -> Result<Self, IndexError> {
        let path = directory.join(&name);
        let options = OpenOptions { create: true, ..OpenOptions::default() };
        let file = disk.open(&path, options).map_err(IndexError::io("create index file", &path))?;
        let mut header = Header { next_entry: 1, ..Header::default() };
        if let Some(previous) = previous {
            (header.begin_time, header.end_time) = (previous.end_time, previous.end_time);
            (header.begin_position, header.end_position) = (previous.end_position, previous.end_position);
        }
        if let Err(source) =
            file.set_length(geometry.file_bytes()).and_then(|()| file.write_all_at(&header.to_bytes(), 0))
        {
            drop(file);
            // Best effort: an empty file left behind is deleted at the next start.
            let _ = disk.remove_file(&path);
            return Err(IndexError::Io { action: "extend index file", path, source });
        }
        let live = Some(Live::new(vec![0; geometry.slots as usize]));
        Ok(Self { file: file.into(), path, name, geometry, header, live })
    }

    /// Opens an existing file for reading.
    pub(crate) fn open(
        disk: &dyn Disk,
        directory: &Path,
        name: String,
        geometry: IndexGeometry,
    ) -> Result<Self, IndexError> {
        let path = directory.join(&name);
        let options = OpenOptions { write: true, ..OpenOptions::default() };
        let file = disk.open(&path, options).map_err(IndexError::io("open index file", &path))?;
        let found = file.length().map_err(IndexError::io("measure index file", &path))?;
        let mut bytes = [0; HEADER_LENGTH];
        file.read_at(&mut bytes, 0).map_err(IndexError::io("read index file", &path))?;
        let header = Header::from_bytes(&bytes);
        let wanted = geometry.file_bytes();
        if found != wanted {
            return Err(IndexError::WrongLength { path, found, wanted, promised: header.promised() });
        }
        Ok(Self { file: file.into(), path, name, geometry, header, live: None })
    }

    /// Refuses a file whose header cannot be right.
    pub(crate) fn check(&self, is_newest: bool) -> Result<(), IndexError> {
        match self.header.flaw(self.geometry, is_newest) {
            Some(reason) => Err(IndexError::Damaged { path: self.path.clone(), reason }),
            None => Ok(()),
        }
    }

    /// Prepares an opened file for writing: loads its slots, or makes them anew from the entries after a crash, and when there
    /// should be none.
    pub(crate) fn make_live(&mut self, after_crash: bool) -> Result<(), IndexError> {
        let mut live = Live::new(vec![0; self.geometry.slots as usize]);
        if after_crash || self.header.promised() == 0 {
            self.header.used_slots = self.rebuild_slots(&mut live)?;
        } else {
            self.load_slots(&mut live)?;
        }
        self.live = Some(live);
        Ok(())
    }

    fn load_slots(&self, live: &mut Live) -> Result<(), IndexError> {
        let mut bytes = vec![0; PAGE_SLOTS * PAGES_PER_WRITE * SLOT_BYTES as usize];
        let mut slot = 0;
        for slots in live.slots.chunks_mut(PAGE_SLOTS * PAGES_PER_WRITE) {
            let bytes = &mut bytes[..size_of_val(slots)];
            self.read(bytes, self.geometry.slot_position(slot))?;
            for (value, bytes) in slots.iter_mut().zip(bytes.as_chunks::<4>().0) {
                // Only what changes anything is stored, so that untouched memory stays unallocated.
                if let found @ 1.. = i32::from_be_bytes(*bytes) {
                    *value = found.cast_unsigned();
                }
                slot += 1;
            }
        }
        Ok(())
    }

    /// Walks all entries in order: the last one of each slot is its newest. Returns the number of used slots.
    fn rebuild_slots(&self, live: &mut Live) -> Result<u32, IndexError> {
        let mut bytes = vec![0; (REBUILD_BATCH.min(self.geometry.entries) as usize) * ENTRY_LENGTH];
        let (mut number, mut used) = (1, 0);
        while number < self.header.next_entry {
            let count = (self.header.next_entry - number).min(REBUILD_BATCH);
            let bytes = &mut bytes[..count as usize * ENTRY_LENGTH];
            self.read(bytes, self.geometry.entry_position(number))?;
            for bytes in bytes.as_chunks::<ENTRY_LENGTH>().0 {
                let slot = &mut live.slots[self.geometry.slot_of(IndexEntry::from_bytes(bytes).hash) as usize];
                used += u32::from(*slot == 0);
                *slot = number;
                number += 1;
            }
        }
        // What is on disk may differ anywhere.
        live.dirty_pages.fill(true);
        live.is_behind = true;
        Ok(used)
    }

    fn read(&self, bytes: &mut [u8], position: u64) -> Result<(), IndexError> {
        let read = self.file.read_at(bytes, position).map_err(IndexError::io("read index file", &self.path))?;
        bytes[read..].fill(0);
        Ok(())
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_full(&self) -> bool {
        self.header.next_entry >= self.geometry.entries
    }

    /// Adds a key, which searches find after [`Self::link`]. An entry is linked to its slot a few puts later: a slot may be
    /// anywhere in 20 MB of memory, and until then the processor has brought it. False if the file is full or not the live one. An error may come from writing gathered entries:
    /// then nothing was added and the same call can be tried again.
    pub(crate) fn put(&mut self, hash: u32, position: i64, store_time: i64) -> Result<bool, IndexError> {
        if self.is_full() || self.live.is_none() {
            return Ok(false);
        }
        if self.live.as_ref().is_some_and(|live| live.pending.len() >= ENTRY_BUFFER * ENTRY_LENGTH) {
            self.write_entries()?;
        }
        let Some(live) = &mut self.live else { return Ok(false) };
        let header = &mut self.header;
        let slot = self.geometry.slot_of(hash);
        prefetch(&live.slots[slot as usize]);
        live.waiting_slots[header.next_entry as usize % WAITING_SLOTS] = slot;
        let seconds = header.seconds_since_begin(store_time);
        let entry = IndexEntry { hash, position, seconds, older: 0 };
        live.pending.extend_from_slice(&entry.to_bytes());
        live.unlinked += 1;
        live.is_behind = true;
        if header.next_entry <= 1 {
            (header.begin_position, header.begin_time) = (position, store_time);
        }
        header.next_entry += 1;
        (header.end_position, header.end_time) = (position, store_time);
        if live.unlinked > LINKS_BEHIND {
            self.link_to(LINKS_BEHIND);
        }
        Ok(true)
    }

    /// Lets slots lead to all entries. Before searches and writes.
    pub(crate) fn link(&mut self) {
        self.link_to(0);
    }

    /// Links the oldest entries without a slot, until `rest` are left.
    fn link_to(&mut self, rest: u32) {
        let Some(live) = &mut self.live else { return };
        let header = &mut self.header;
        while live.unlinked > rest {
            let number = header.next_entry - live.unlinked;
            let index = live.pending_entries() - live.unlinked;
            live.unlinked -= 1;
            let Some(bytes) = live.pending.as_chunks_mut::<ENTRY_LENGTH>().0.get_mut(index as usize) else { return };
            let slot = live.waiting_slots[number as usize % WAITING_SLOTS] as usize;
            let newest = &mut live.slots[slot];
            // A slot that points past the last entry is left over from before a crash.
            let older = if *newest >= number { 0 } else { *newest };
            *newest = number;
            IndexEntry::write_older(bytes, older.cast_signed());
            live.dirty_pages[slot / PAGE_SLOTS] = true;
            header.used_slots += u32::from(older == 0);
        }
    }

    fn write_entries(&mut self) -> Result<(), IndexError> {
        self.link();
        let Some(live) = &mut self.live else { return Ok(()) };
        if live.pending.is_empty() {
            return Ok(());
        }
        let first = self.header.next_entry - live.pending_entries();
        self.file
            .write_all_at(&live.pending, self.geometry.entry_position(first))
            .map_err(IndexError::io("write index file", &self.path))?;
        live.pending.clear();
        Ok(())
    }

    /// Begins to write what was put: the entries. Gives the header that may say so once [`Self::write_pages`] has come to its
    /// end, or nothing when nothing is behind.
    pub(crate) fn begin_write(&mut self) -> Result<Option<Header>, IndexError> {
        self.write_entries()?;
        let Some(live) = &mut self.live else { return Ok(None) };
        live.next_page = 0;
        Ok(live.is_behind.then_some(self.header))
    }

    /// Writes pages of slots that changed since they were written last, at most `most` of them. True once all are that had
    /// changed when the writing began.
    pub(crate) fn write_pages(&mut self, most: usize) -> Result<bool, IndexError> {
        let Some(live) = &mut self.live else { return Ok(true) };
        let mut bytes = Vec::with_capacity(PAGE_SLOTS * PAGES_PER_WRITE.min(most) * SLOT_BYTES as usize);
        let mut left = most;
        while let Some(clean) = live.dirty_pages[live.next_page..].iter().position(|&dirty| dirty) {
            if left == 0 {
                return Ok(false);
            }
            let page = live.next_page + clean;
            let run =
                live.dirty_pages[page..].iter().take(PAGES_PER_WRITE.min(left)).take_while(|&&dirty| dirty).count();
            let first = page * PAGE_SLOTS;
            let last = (first + run * PAGE_SLOTS).min(live.slots.len());
            bytes.clear();
            bytes.extend(live.slots[first..last].iter().flat_map(|slot| slot.to_be_bytes()));
            let position = self.geometry.slot_position(0) + first as u64 * SLOT_BYTES;
            self.file.write_all_at(&bytes, position).map_err(IndexError::io("write index file", &self.path))?;
            live.dirty_pages[page..page + run].fill(false);
            live.next_page = page + run;
            left -= run;
        }
        Ok(true)
    }

    /// After the last of [`Self::write_pages`]: what has to be synced so that `header` holds, which [`Self::begin_write`] gave.
    pub(crate) fn end_write(&mut self, header: &Header) -> Option<FileSync> {
        let live = self.live.as_mut().filter(|live| live.is_behind)?;
        live.is_behind = self.header != *header;
        Some(FileSync { file: Arc::clone(&self.file), path: self.path.clone(), header: header.to_bytes() })
    }

    /// Whether there is something in memory that only this value has.
    pub(crate) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Once everything is written: gives the memory back; the file is read-only from here.
    pub(crate) fn seal(&mut self) {
        self.live = None;
    }

    fn slot(&self, slot: u32) -> Result<i32, IndexError> {
        if let Some(live) = &self.live {
            return Ok(live.slots[slot as usize].cast_signed());
        }
        let mut bytes = [0; 4];
        self.read(&mut bytes, self.geometry.slot_position(slot))?;
        Ok(i32::from_be_bytes(bytes))
    }

    fn entry(&self, number: u32) -> Result<IndexEntry, IndexError> {
        if let Some(live) = &self.live
            && let first = self.header.next_entry - live.pending_entries()
            && number >= first
        {
            let index = (number - first) as usize;
            let bytes = live.pending.as_chunks::<ENTRY_LENGTH>().0.get(index).copied();
            return Ok(IndexEntry::from_bytes(&bytes.unwrap_or_default()));
        }
        let mut bytes = [0; ENTRY_LENGTH];
        self.read(&mut bytes, self.geometry.entry_position(number))?;
        Ok(IndexEntry::from_bytes(&bytes))
    }

    /// Walks the chain of a hash from its newest entry. Source: RocketMQ `IndexFile.selectPhyOffset`.
    pub(crate) fn search(&self, search: &mut Search) -> Result<(), IndexError> {
        let mut number = self.slot(self.geometry.slot_of(search.hash))?;
        while let Some(current) =
            u32::try_from(number).ok().filter(|&current| current > 0 && current < self.header.next_entry)
        {
            if search.found.len() >= search.maximum || search.steps_left == 0 {
                break;
            }
            search.steps_left -= 1;
            let entry = self.entry(current)?;
            if entry.seconds < 0 {
                break;
            }
            let time = self.header.begin_time.saturating_add(i64::from(entry.seconds) * 1000);
            if entry.hash == search.hash && time >= search.begin && time <= search.end {
                search.found.push(entry.position);
            }
            // Chains lead to older entries only: anything else is damage, and would be a loop.
            if time < search.begin || entry.older >= number {
                break;
            }
            number = entry.older;
        }
        Ok(())
    }
}
