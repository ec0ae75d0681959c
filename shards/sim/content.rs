//! What is in one simulated file: sparse pages that are shared between copies until one of them writes.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes per page of the sparse content.
const PAGE_BYTES: u64 = 4096;
/// Bytes that a disk writes in one piece, whole or not at all.
pub(super) const SECTOR_BYTES: u64 = 512;

type Page = [u8; PAGE_BYTES as usize];

/// The bytes of a file. Pages that were never written are zero and take no memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pages: BTreeMap<u64, Arc<Page>>,
    length: u64,
}

impl Content {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Fills `buffer` from `offset`, with zeros behind the end.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) {
        let mut position = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let start = (position % PAGE_BYTES) as usize;
            let count = rest.len().min(PAGE_BYTES as usize - start);
            let (part, remaining) = rest.split_at_mut(count);
            match self.pages.get(&(position / PAGE_BYTES)) {
                Some(page) => part.copy_from_slice(&page[start..start + count]),
                None => part.fill(0),
            }
            position += count as u64;
            rest = remaining;
        }
    }

    /// Writes `data` at `offset` and extends the file to hold it.
    pub(super) fn write(&mut self, data: &[u8], offset: u64) {
        self.place(data, offset);
        self.length = self.length.max(offset + data.len() as u64);
    }

    /// Writes bytes without touching the length.
    pub(super) fn place(&mut self, data: &[u8], offset: u64) {
        let mut position = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let start = (position % PAGE_BYTES) as usize;
            let count = rest.len().min(PAGE_BYTES as usize - start);
            let page = self.pages.entry(position / PAGE_BYTES).or_insert_with(|| Arc::new([0; PAGE_BYTES as usize]));
            Arc::make_mut(page)[start..start + count].copy_from_slice(&rest[..count]);
            position += count as u64;
            rest = &rest[count..];
        }
    }

    /// Extends the file to `length` if it is shorter.
    pub(super) fn extend_to(&mut self, length: u64) {
        self.length = self.length.max(length);
    }

    /// Truncates or extends; what is cut off reads as zero when it comes back.
    pub(super) fn set_length(&mut self, length: u64) {
        if length < self.length {
            self.pages.split_off(&length.div_ceil(PAGE_BYTES));
            if let Some(page) = self.pages.get_mut(&(length / PAGE_BYTES)) {
                Arc::make_mut(page)[(length % PAGE_BYTES) as usize..].fill(0);
            }
        }
        self.length = length;
    }

    /// Bytes of the written pages that begin in `[start, end)`.
    pub(super) fn page_bytes_from(&self, start: u64, end: u64) -> u64 {
        self.pages.range(start.div_ceil(PAGE_BYTES)..end.div_ceil(PAGE_BYTES)).count() as u64 * PAGE_BYTES
    }

    /// Start of the first written page that ends behind `offset`, but not less than `offset`.
    pub(super) fn data_from(&self, offset: u64) -> Option<u64> {
        let (page, _) = self.pages.range(offset / PAGE_BYTES..).next()?;
        Some((page * PAGE_BYTES).max(offset)).filter(|start| *start < self.length)
    }
}

/// A change that a power cut may still undo, as images of whole sectors after it.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// Sectors from `offset` (a multiple of the sector size), and the length of the file after the write.
    Write { sequence: u64, offset: u64, sectors: Vec<u8>, length_after: u64 },
    /// A new length.
    SetLength(u64),
}

impl Change {
    /// Applies the sectors for which `keep` says yes; `keep` gets the sector's index within the write.
    pub(super) fn apply(&self, content: &mut Content, mut keep: impl FnMut(usize) -> bool) {
        match self {
            Self::SetLength(length) => content.set_length(*length),
            Self::Write { offset, sectors, length_after, .. } => {
                let mut any = false;
                for (index, sector) in sectors.chunks(SECTOR_BYTES as usize).enumerate() {
                    if keep(index) {
                        content.place(sector, offset + index as u64 * SECTOR_BYTES);
                        any = true;
                    }
                }
                if any {
                    content.extend_to(*length_after);
                }
            }
        }
    }

    /// Applies the sectors in `[start, end)`.
    pub(super) fn apply_within(&self, content: &mut Content, start: u64, end: u64) {
        let Self::Write { offset, .. } = self else { return };
        let is_inside = |sector: usize| (start..end).contains(&(offset + sector as u64 * SECTOR_BYTES));
        self.apply(content, is_inside);
    }

    pub(super) fn overlaps(&self, start: u64, end: u64) -> bool {
        match self {
            Self::SetLength(_) => true,
            Self::Write { offset, sectors, .. } => *offset < end && start < offset + sectors.len() as u64,
        }
    }

    /// What is left of a write without its sectors in `[start, end)`, whose ends are multiples of the sector size.
    pub(super) fn outside(&self, start: u64, end: u64) -> Vec<Self> {
        let Self::Write { sequence, offset, sectors, length_after } = self else { return Vec::new() };
        let change_end = offset + sectors.len() as u64;
        let part = |from: u64, to: u64| Self::Write {
            sequence: *sequence,
            offset: from,
            sectors: sectors[(from - offset) as usize..(to - offset) as usize].to_vec(),
            length_after: *length_after,
        };
        let parts = [(*offset, start.min(change_end)), (end.max(*offset), change_end)];
        parts.into_iter().filter(|(from, to)| from < to).map(|(from, to)| part(from, to)).collect()
    }

    pub(super) fn sequence(&self) -> Option<u64> {
        match self {
            Self::Write { sequence, .. } => Some(*sequence),
            Self::SetLength(_) => None,
        }
    }

    pub(super) fn sector_count(&self) -> usize {
        match self {
            Self::Write { sectors, .. } => sectors.len() / SECTOR_BYTES as usize,
            Self::SetLength(_) => 1,
        }
    }
}
