//! Compares index files with the records of the log, and their chains with themselves.
//!
//! Entries are in the order of the log, so they are read along with it: those that point to a record must be its keys, those
//! that point in between belong to nothing.

use std::path::PathBuf;

use ringmq_protocol::flags::message;
use ringmq_protocol::hash::index_key_hash;
use ringmq_protocol::record::RecordView;

use super::log::Walked;
use super::segments::list;
use super::{Audit, AuditError, Finding, Findings, Progress, Scene, Severity};
use crate::disk::{DiskFile, OpenOptions};
use crate::index::IndexGeometry;
use crate::index::layout::{ENTRY_LENGTH, HEADER_LENGTH, Header, IndexEntry, SLOT_BYTES};
use crate::index::name::is_index_name;
use crate::recovery::checkpoint::Checkpoint;
use crate::recovery::queue_place::QueuePlace;
use crate::types::PhysicalOffset;

const AREA: &str = "index";
/// Entries that are read at once.
const BATCH_ENTRIES: u32 = 8192;
/// Slots that are read at once.
const BATCH_SLOTS: u32 = 65_536;

/// What the next start does with a file that it cannot use.
const SET_ASIDE: &str =
    "the next start sets it and all behind it aside and indexes their part of the log anew while serving";

struct IndexFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    header: Header,
}

/// Finds the headers that a start would not take, among the first `kept` files: those that it does not drop anyway.
fn check_headers(files: &mut [IndexFile], kept: usize, geometry: IndexGeometry, findings: &mut Findings) {
    for (number, IndexFile { path, header, .. }) in files.iter_mut().enumerate() {
        if let Some(reason) = header.flaw(geometry, number + 1 >= kept) {
            findings.at(Severity::Derived, AREA, path, format!("{reason}; {SET_ASIDE}"));
        }
        header.next_entry = header.next_entry.min(geometry.entries);
    }
}

#[derive(Default)]
struct Tally {
    count: u64,
    first: u64,
}

impl Tally {
    fn add(&mut self, at: u64) {
        if self.count == 0 {
            self.first = at;
        }
        self.count += 1;
    }
}

/// The index of a store under audit.
pub(crate) struct IndexAudit<'a> {
    scene: &'a Scene<'a>,
    files: Vec<IndexFile>,
    /// Where reading has come: file, number of the next entry.
    at: (usize, u32),
    batch: Vec<IndexEntry>,
    batch_first: u32,
    /// Log position of the first entry; records before it have been removed from the index.
    covered_from: Option<u64>,
    matched: u64,
    missing: Tally,
    extra: Tally,
    lagging: u64,
}

impl<'a> IndexAudit<'a> {
    /// Opens all files and checks each for itself.
    pub(crate) fn load(
        scene: &'a Scene<'a>,
        findings: &mut Findings,
        progress: &mut dyn Progress,
    ) -> Result<Self, AuditError> {
        let directory = scene.paths.index();
        let geometry = scene.options.index;
        let mut files = Vec::new();
        for entry in list(&*scene.disk, &directory)? {
            let path = directory.join(&entry.name);
            if entry.is_directory || !is_index_name(&entry.name) {
                findings.note(AREA, &path, "no index file, it is left alone");
                continue;
            }
            if entry.length == 0 {
                findings.note(AREA, &path, "an empty file, which the next start removes");
                continue;
            }
            let file = scene.disk.open(&path, OpenOptions::default()).map_err(AuditError::io("open", &path))?;
            let mut bytes = [0; HEADER_LENGTH];
            file.read_at(&mut bytes, 0).map_err(AuditError::io("read", &path))?;
            let header = Header::from_bytes(&bytes);
            if entry.length != geometry.file_bytes() {
                let wanted = geometry.file_bytes();
                if !scene.was_clean && header.promised() == 0 && entry.length < wanted {
                    findings.note(AREA, &path, "a file from just before a crash, which the next start removes");
                    continue;
                }
                let text = format!("the file has {} bytes instead of {wanted}; {SET_ASIDE}", entry.length);
                findings.at(Severity::Derived, AREA, &path, text);
                continue;
            }
            files.push(IndexFile { file, path, header });
        }
        let checkpoint =
            Checkpoint::load(&*scene.disk, scene.paths).map_err(AuditError::io("read", &scene.paths.root))?;
        let indexed_ms = checkpoint.unwrap_or_default().index_timestamp_ms;
        if !scene.was_clean {
            let is_doomed = |header: &Header| header.end_time > indexed_ms || header.promised() == 0;
            let doomed = files.iter().filter(|file| is_doomed(&file.header)).count();
            let kept = files.iter().filter(|file| !is_doomed(&file.header)).count();
            check_headers(&mut files, kept, geometry, findings);
            if doomed > 0 {
                let text = format!(
                    "{doomed} files are empty or newer than the checkpoint says; the next start makes them anew"
                );
                findings.note(AREA, &directory, text);
            }
        } else {
            let count = files.len();
            check_headers(&mut files, count, geometry, findings);
        }
        let mut this = Self {
            scene,
            files,
            at: (0, 1),
            batch: Vec::new(),
            batch_first: 1,
            covered_from: None,
            matched: 0,
            missing: Tally::default(),
            extra: Tally::default(),
            lagging: 0,
        };
        let bytes = this.files.iter().map(|file| u64::from(file.header.next_entry) * ENTRY_LENGTH as u64).sum();
        progress.step("index", bytes);
        let mut done = 0;
        for number in 0..this.files.len() {
            this.check_chains(number, findings, progress, &mut done)?;
        }
        this.covered_from = this.peek()?.map(|entry| u64::try_from(entry.position).unwrap_or(0));
        Ok(this)
    }

    fn read_entries(&self, file: usize, first: u32) -> Result<Vec<IndexEntry>, AuditError> {
        let file = &self.files[file];
        let count = file.header.next_entry.saturating_sub(first).min(BATCH_ENTRIES);
        let mut bytes = vec![0; count as usize * ENTRY_LENGTH];
        let position = self.scene.options.index.entry_position(first);
        file.file.read_at(&mut bytes, position).map_err(AuditError::io("read", &file.path))?;
        Ok(bytes.as_chunks::<ENTRY_LENGTH>().0.iter().map(IndexEntry::from_bytes).collect())
    }

    /// Follows the entries of a file in order and compares each with the newest one before it in the same chain, and the slots
    /// with what remains.
    fn check_chains(
        &self,
        number: usize,
        findings: &mut Findings,
        progress: &mut dyn Progress,
        done: &mut u64,
    ) -> Result<(), AuditError> {
        let geometry = self.scene.options.index;
        let file = &self.files[number];
        let mut newest = vec![0u32; geometry.slots as usize];
        let (mut chains, mut order, mut slots) = (Tally::default(), Tally::default(), Tally::default());
        let (mut entry_number, mut last_position) = (1, i64::MIN);
        while entry_number < file.header.next_entry {
            let entries = self.read_entries(number, entry_number)?;
            for entry in &entries {
                let slot = &mut newest[geometry.slot_of(entry.hash) as usize];
                if u32::try_from(entry.older).unwrap_or(0) != *slot {
                    chains.add(u64::from(entry_number));
                }
                if entry.position < last_position {
                    order.add(u64::from(entry_number));
                }
                last_position = entry.position;
                *slot = entry_number;
                entry_number += 1;
            }
            *done += (entries.len() * ENTRY_LENGTH) as u64;
            progress.reached(*done);
        }
        let mut slot = 0;
        let mut bytes = vec![0; BATCH_SLOTS as usize * SLOT_BYTES as usize];
        while slot < geometry.slots {
            let count = BATCH_SLOTS.min(geometry.slots - slot);
            let bytes = &mut bytes[..count as usize * SLOT_BYTES as usize];
            let read = file.file.read_at(bytes, geometry.slot_position(slot));
            read.map_err(AuditError::io("read", &file.path))?;
            for bytes in bytes.as_chunks::<4>().0 {
                let stored = u32::try_from(i32::from_be_bytes(*bytes)).unwrap_or(0);
                // A slot may be ahead of the header after a crash; a start makes the slots of the newest file anew then.
                let counted = if stored >= file.header.next_entry { 0 } else { stored };
                if counted != newest[slot as usize] {
                    slots.add(u64::from(slot));
                }
                slot += 1;
            }
        }
        let is_remade = !self.scene.was_clean && number + 1 == self.files.len();
        let mut add = |tally: &Tally, severity, position, text: String| {
            if tally.count > 0 {
                let (path, refuses_start) = (file.path.clone(), false);
                findings.add(Finding { severity, area: AREA, path, position, offset: None, text, refuses_start });
            }
        };
        let entry_at = |tally: &Tally| Some(geometry.entry_position(tally.first as u32));
        let text = format!("{} entries lead to a wrong older one, the first is entry {}", chains.count, chains.first);
        add(&chains, Severity::Derived, entry_at(&chains), text);
        let text =
            format!("{} entries are not in the order of the log, the first is entry {}", order.count, order.first);
        add(&order, Severity::Derived, entry_at(&order), text);
        let severity = if is_remade { Severity::Note } else { Severity::Derived };
        let text =
            format!("{} slots do not lead to their newest entry, the first is slot {}", slots.count, slots.first);
        add(&slots, severity, Some(geometry.slot_position(slots.first as u32)), text);
        Ok(())
    }

    /// The next entry in the order of the log.
    fn peek(&mut self) -> Result<Option<IndexEntry>, AuditError> {
        loop {
            let (file, number) = self.at;
            let Some(current) = self.files.get(file) else { return Ok(None) };
            if number >= current.header.next_entry {
                self.at = (file + 1, 1);
                self.batch.clear();
                continue;
            }
            let in_batch = number.checked_sub(self.batch_first).filter(|index| (*index as usize) < self.batch.len());
            match in_batch {
                Some(index) => return Ok(Some(self.batch[index as usize])),
                None => {
                    self.batch = self.read_entries(file, number)?;
                    self.batch_first = number;
                    if self.batch.is_empty() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn advance(&mut self) {
        self.at.1 += 1;
    }

    /// Compares the next record.
    pub(crate) fn record(&mut self, view: &RecordView<'_>, _: Option<&QueuePlace<'_>>) -> Result<(), AuditError> {
        let Ok(physical) = u64::try_from(view.physical_offset()) else { return Ok(()) };
        let mut found = Vec::new();
        while let Some(entry) = self.peek()? {
            match u64::try_from(entry.position) {
                Ok(position) if position > physical => break,
                Ok(position) if position == physical => found.push(entry.hash),
                Ok(position) => self.extra.add(position),
                Err(_) => self.extra.add(0),
            }
            self.advance();
        }
        if message::transaction_type(view.sys_flag()) == message::TRANSACTION_ROLLBACK {
            return Ok(());
        }
        let Some(from) = self.covered_from else {
            self.lagging += 1;
            return Ok(());
        };
        if physical < from {
            return Ok(());
        }
        let mut is_missing = false;
        for key in view.unique_key().into_iter().chain(view.key_words()) {
            let hash = index_key_hash(view.topic(), key);
            match found.iter().position(|have| *have == hash) {
                Some(index) => {
                    // A record that was offered twice has its keys twice; queries bear it.
                    found.swap_remove(index);
                    self.matched += 1;
                }
                None => is_missing = true,
            }
        }
        if is_missing && self.files.get(self.at.0).is_none() {
            self.lagging += 1;
        } else if is_missing {
            self.missing.add(physical);
        }
        Ok(())
    }

    /// Looks at what no record came for, and reports.
    pub(crate) fn finish(mut self, walked: &Walked, audit: &mut Audit) -> Result<(), AuditError> {
        let mut behind = Tally::default();
        while let Some(entry) = self.peek()? {
            behind.add(u64::try_from(entry.position).unwrap_or(0));
            self.advance();
        }
        let directory = self.scene.paths.index();
        let mut add = |tally: &Tally, severity, text: String| {
            if tally.count > 0 {
                let (path, offset) = (directory.clone(), Some(tally.first));
                let refuses_start = false;
                audit.findings.add(Finding { severity, area: AREA, path, position: None, offset, text, refuses_start });
            }
        };
        let min = audit.figures.log_min;
        let in_hole = walked.is_in_hole(PhysicalOffset(self.extra.first));
        let severity = if in_hole || self.extra.first < min { Severity::Note } else { Severity::Derived };
        add(&self.extra, severity, format!("{} entries point to no record", self.extra.count));
        add(
            &behind,
            Severity::Note,
            format!("{} entries point behind the log; the next start drops their files", behind.count),
        );
        add(&self.missing, Severity::Derived, format!("{} records lack a key in the index", self.missing.count));
        if self.lagging > 0 && !self.files.is_empty() {
            let text = format!("the newest {} records are not indexed yet; a start goes on with them", self.lagging);
            audit.findings.note(AREA, &directory, text);
        }
        audit.figures.index_files = self.files.len() as u64;
        audit.figures.index_entries = self.matched;
        Ok(())
    }
}
