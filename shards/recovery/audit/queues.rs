//! Compares queue files with the records of the log: each record must have its entry, each entry its record.
//!
//! The records of a queue come in the order of its entries, so a window of entries per queue moves along with the log, and
//! what it passes over without a record is an entry that should not be there. A record with offset 0 behind others begins the
//! queue anew: its topic was deleted and made again, and only what follows counts.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use ringmq_protocol::record::RecordView;

use super::log::Walked;
use super::segments::list;
use super::{Audit, AuditError, Finding, Findings, Scene, Severity};
use crate::disk::{DirectoryEntry, OpenOptions};
use crate::queue::QueueEntry;
use crate::queue::limits::ENTRY_BYTES;
use crate::recovery::queue_place::{QueuePlace, SCHEDULE_TOPIC};
use crate::types::{PhysicalOffset, QueueId, QueueOffset};

const AREA: &str = "queues";
/// Entries of a queue that are read at once: 1.3 KB for each of ten thousand queues.
const WINDOW_ENTRIES: u64 = 64;
/// Tags codes below this are addresses of RocketMQ's `consumequeue_ext`.
const EXTENSION_ADDRESS: i64 = -2_147_483_649;
/// Queues of the light kind get entries of records that name another topic, which this audit does not follow.
const LIGHT_PREFIX: &str = "%LMQ%";

/// Kinds of disagreement, each with how often and where it was met first.
#[derive(Default)]
struct Tally {
    count: u64,
    first: Option<(u64, u64)>,
}

impl Tally {
    fn add(&mut self, entry: u64, physical: u64) {
        self.count += 1;
        self.first.get_or_insert((entry, physical));
    }
}

#[derive(Default)]
struct QueueState {
    directory: PathBuf,
    /// Starts of the files, in bytes of the queue.
    files: Vec<u64>,
    /// Offset behind the last valid entry of the last file.
    end: u64,
    next: Option<u64>,
    window: Vec<u8>,
    window_start: u64,
    matched: u64,
    earlier: u64,
    missing: Tally,
    wrong: Tally,
    extra: Tally,
    repeated: Tally,
    last_physical: u64,
}

/// The queues of a store under audit.
pub(crate) struct QueueAudit<'a> {
    scene: &'a Scene<'a>,
    file_bytes: u64,
    queues: HashMap<String, HashMap<u32, QueueState>>,
    physical_end: PhysicalOffset,
    without_files: HashMap<String, u64>,
    /// How many files have each length.
    lengths: BTreeMap<u64, u64>,
}

impl QueueState {
    fn path(&self, file: u64) -> PathBuf {
        self.directory.join(format!("{file:020}"))
    }

    /// Reads the entry at an offset; `None` when no file has a valid one there.
    fn entry(&mut self, scene: &Scene<'_>, file_bytes: u64, offset: u64) -> Result<Option<QueueEntry>, AuditError> {
        let held = self.window.len() as u64 / ENTRY_BYTES;
        if offset < self.window_start || offset >= self.window_start + held {
            self.load(scene, file_bytes, offset)?;
        }
        let at = offset.checked_sub(self.window_start).and_then(|index| usize::try_from(index * ENTRY_BYTES).ok());
        let bytes = at.and_then(|at| self.window.get(at..at + ENTRY_BYTES as usize));
        Ok(bytes.and_then(|bytes| bytes.try_into().ok()).and_then(QueueEntry::from_bytes))
    }

    fn load(&mut self, scene: &Scene<'_>, file_bytes: u64, offset: u64) -> Result<(), AuditError> {
        self.window.clear();
        self.window_start = offset;
        let Some(position) = offset.checked_mul(ENTRY_BYTES) else { return Ok(()) };
        let start = position - position % file_bytes;
        if self.files.binary_search(&start).is_err() {
            return Ok(());
        }
        let path = self.path(start);
        let file = scene.disk.open(&path, OpenOptions::default()).map_err(AuditError::io("open", &path))?;
        let wanted = (WINDOW_ENTRIES * ENTRY_BYTES).min(start + file_bytes - position);
        self.window.resize(usize::try_from(wanted).unwrap_or_default(), 0);
        let read = file.read_at(&mut self.window, position - start).map_err(AuditError::io("read", &path))?;
        self.window.truncate(read);
        Ok(())
    }

    /// Offset of the first invalid entry of a file, by bisection, as a start finds it.
    fn end_in(&mut self, scene: &Scene<'_>, file_bytes: u64, start: u64) -> Result<u64, AuditError> {
        let path = self.path(start);
        let file = scene.disk.open(&path, OpenOptions::default()).map_err(AuditError::io("open", &path))?;
        let (mut low, mut high) = (0, file_bytes / ENTRY_BYTES);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut bytes = [0; ENTRY_BYTES as usize];
            let read = file.read_at(&mut bytes, middle * ENTRY_BYTES).map_err(AuditError::io("read", &path))?;
            if read == bytes.len() && QueueEntry::from_bytes(&bytes).is_some() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(start / ENTRY_BYTES + low)
    }
}

/// Whether an entry is the one of a record.
fn agrees(found: &QueueEntry, place: &QueuePlace<'_>) -> bool {
    let same_place = found.physical == place.entry.physical && found.size == place.entry.size;
    // Delivery times follow from a configured table, and an address leads to a bit map and the code beside it.
    let any_code = place.topic == SCHEDULE_TOPIC || found.tags_code <= EXTENSION_ADDRESS;
    same_place && (any_code || found.tags_code == place.entry.tags_code)
}

impl<'a> QueueAudit<'a> {
    /// Lists all queues and finds their ends.
    pub(crate) fn load(scene: &'a Scene<'a>, findings: &mut Findings) -> Result<Self, AuditError> {
        let file_bytes = scene.options.queue_file_entries * ENTRY_BYTES;
        let mut audit = Self {
            scene,
            file_bytes,
            queues: HashMap::new(),
            physical_end: PhysicalOffset(0),
            without_files: HashMap::new(),
            lengths: BTreeMap::new(),
        };
        let root = scene.paths.consume_queue();
        for topic in list(&*scene.disk, &root)? {
            let directory = root.join(&topic.name);
            if !topic.is_directory {
                findings.note(AREA, &directory, "a file among the folders of topics, it is left alone");
                continue;
            }
            for entry in list(&*scene.disk, &directory)? {
                let path = directory.join(&entry.name);
                let number = entry.name.parse::<u32>().ok().filter(|number| number.to_string() == entry.name);
                match number.filter(|_| entry.is_directory) {
                    Some(number) => audit.load_queue(&topic.name, number, path, findings)?,
                    None => {
                        findings.at(Severity::Derived, AREA, &path, "no queue's folder; a start leaves it alone");
                    }
                }
            }
        }
        Ok(audit)
    }

    fn load_queue(
        &mut self,
        topic: &str,
        number: u32,
        directory: PathBuf,
        findings: &mut Findings,
    ) -> Result<(), AuditError> {
        let mut state = QueueState { directory, ..QueueState::default() };
        let is_file =
            |entry: &DirectoryEntry| !entry.is_directory && entry.name.bytes().all(|byte| byte.is_ascii_digit());
        let entries = list(&*self.scene.disk, &state.directory)?;
        let (files, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_file);
        for other in others {
            let path = state.directory.join(&other.name);
            findings.at(Severity::Derived, AREA, &path, "no queue file; a start leaves it alone");
        }
        let count = files.len();
        for (index, entry) in files.into_iter().enumerate() {
            let path = state.directory.join(&entry.name);
            *self.lengths.entry(entry.length).or_default() += 1;
            let start = entry.name.parse::<u64>().ok().filter(|start| format!("{start:020}") == entry.name);
            let Some(start) = start.filter(|start| start % self.file_bytes == 0) else {
                let text = format!("the name of no queue file of {} bytes; a start refuses it", self.file_bytes);
                findings.refused(AREA, &path, text);
                continue;
            };
            let is_last = index + 1 == count;
            if entry.length == 0 && is_last {
                findings.note(AREA, &path, "an empty last file, which the next start removes");
                continue;
            }
            if entry.length != self.file_bytes {
                let text = format!("the file has {} bytes instead of {}", entry.length, self.file_bytes);
                let is_short = is_last && entry.length < self.file_bytes;
                match is_short {
                    true if !self.scene.was_clean => findings.note(AREA, &path, text + "; the next start extends it"),
                    true if self.is_made_anew(topic, number, start.saturating_add(entry.length)) => {
                        findings.at(Severity::Derived, AREA, &path, text + "; a start makes the queue anew");
                    }
                    _ => findings.refused(AREA, &path, text + "; a start refuses it"),
                }
            }
            if let Some(end) = state.files.last().map(|last| last + self.file_bytes).filter(|end| *end != start) {
                let text = "the file before this one is missing; a start";
                match self.is_made_anew(topic, number, end) {
                    true => findings.at(Severity::Derived, AREA, &path, format!("{text} makes the queue anew")),
                    false => findings.refused(AREA, &path, format!("{text} refuses that")),
                }
            }
            state.files.push(start);
        }
        for start in state.files.clone().into_iter().rev() {
            state.end = state.end_in(self.scene, self.file_bytes, start)?;
            if state.end > start / ENTRY_BYTES {
                break;
            }
        }
        if let Some(last) = state.end.checked_sub(1)
            && let Some(entry) = state.entry(self.scene, self.file_bytes, last)?
            && !entry.is_blank()
        {
            self.physical_end = self.physical_end.max(entry.physical_end());
        }
        self.queues.entry(topic.to_owned()).or_default().insert(number, state);
        Ok(())
    }

    /// Whether a start takes it for a loss that a queue's files end at a byte of the queue.
    fn is_made_anew(&self, topic: &str, number: u32, end: u64) -> bool {
        let (scene, reach) = (self.scene, QueueOffset(end / ENTRY_BYTES));
        scene.was_clean && scene.options.is_signed && scene.barriers.reaches_beyond(topic, QueueId(number), reach)
    }

    /// The length of most files, of those that can be the size of queue files; 0 without any.
    pub(crate) fn usual_file_bytes(&self) -> u64 {
        let possible = self.lengths.iter().filter(|(length, _)| **length > 0 && length.is_multiple_of(ENTRY_BYTES));
        possible.max_by_key(|(_, count)| **count).map_or(0, |(length, _)| *length)
    }

    /// Largest end in the log over the last entries of all queues.
    pub(crate) fn physical_end(&self) -> PhysicalOffset {
        self.physical_end
    }

    /// Topic, number and end of each queue that has files, as the files say.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (&str, u32, u64)> {
        self.queues
            .iter()
            .flat_map(|(topic, queues)| queues.iter().map(|(number, state)| (topic.as_str(), *number, state.end)))
    }

    /// Compares the next record.
    pub(crate) fn record(&mut self, _: &RecordView<'_>, place: Option<&QueuePlace<'_>>) -> Result<(), AuditError> {
        let Some(place) = place else { return Ok(()) };
        let physical = place.entry.physical;
        if !self.scene.barriers.counts(place.topic, physical) {
            return Ok(());
        }
        let Some(queues) = self.queues.get_mut(place.topic) else {
            *self.without_files.entry(place.topic.to_owned()).or_default() += 1;
            return Ok(());
        };
        let state = queues.entry(place.queue_id.0).or_insert_with(|| QueueState {
            directory: self.scene.paths.consume_queue().join(place.topic).join(place.queue_id.to_string()),
            ..QueueState::default()
        });
        let offset = place.offset.0;
        match state.next {
            Some(next) if offset == 0 && next > 0 => {
                let earlier = state.earlier + state.matched + state.missing.count + state.wrong.count;
                let (directory, files) = (std::mem::take(&mut state.directory), std::mem::take(&mut state.files));
                *state = QueueState { directory, files, end: state.end, earlier, ..QueueState::default() };
            }
            Some(next) if offset < next => {
                state.repeated.add(offset, physical.0);
                return Ok(());
            }
            _ => {}
        }
        // What is passed over belongs to no record. Below the first record of a queue entries point in front of the log.
        if let Some(next) = state.next {
            for passed in next..offset {
                if let Some(entry) = state.entry(self.scene, self.file_bytes, passed)? {
                    state.extra.add(passed, entry.physical.0);
                }
                if passed - next > WINDOW_ENTRIES * 1024 {
                    break;
                }
            }
        }
        match state.entry(self.scene, self.file_bytes, offset)? {
            Some(found) if agrees(&found, place) => state.matched += 1,
            Some(found) => state.wrong.add(offset, found.physical.0),
            None => state.missing.add(offset, physical.0),
        }
        state.next = Some(offset + 1);
        state.last_physical = physical.0;
        Ok(())
    }

    /// Looks at what no record came for, and reports.
    pub(crate) fn finish(mut self, walked: &Walked, audit: &mut Audit) -> Result<(), AuditError> {
        let mut topics: Vec<_> = std::mem::take(&mut self.queues).into_iter().collect();
        topics.sort_by(|left, right| left.0.cmp(&right.0));
        let min = audit.figures.log_min;
        for (topic, queues) in topics {
            let mut queues: Vec<_> = queues.into_iter().collect();
            queues.sort_by_key(|(number, _)| *number);
            for (number, mut state) in queues {
                let from = state.next.or_else(|| Some(state.files.first()? / ENTRY_BYTES)).unwrap_or(0);
                for offset in from..state.end {
                    match state.entry(self.scene, self.file_bytes, offset)? {
                        Some(entry) if !entry.is_blank() && entry.physical.0 >= min => {
                            state.extra.add(offset, entry.physical.0);
                        }
                        _ => {}
                    }
                }
                audit.figures.queues += 1;
                audit.figures.queue_entries += state.matched;
                self.report(&format!("{topic}/{number}"), &state, walked, &mut audit.findings);
            }
        }
        let root = self.scene.paths.consume_queue();
        let mut without_files: Vec<_> = self.without_files.into_iter().collect();
        without_files.sort();
        for (topic, count) in without_files {
            let text = format!("topic {topic} has no folder, but the log holds {count} records of it: was it deleted?");
            audit.findings.note(AREA, &root.join(topic), text);
        }
        Ok(())
    }

    fn report(&self, name: &str, state: &QueueState, walked: &Walked, findings: &mut Findings) {
        let directory: &Path = &state.directory;
        let mut add = |severity, (entry, physical): (u64, u64), text: String| {
            findings.add(Finding {
                severity,
                area: AREA,
                path: state.path(entry * ENTRY_BYTES - entry * ENTRY_BYTES % self.file_bytes),
                position: Some(entry * ENTRY_BYTES % self.file_bytes),
                offset: Some(physical),
                text,
                refuses_start: false,
            });
        };
        if let Some(first) = state.missing.first {
            // After a crash a start adds what lies behind the place that was noted last.
            let is_added = !self.scene.was_clean && self.scene.noted_offset.is_none_or(|noted| first.1 >= noted.0);
            let severity = if is_added { Severity::Note } else { Severity::Derived };
            let added = if is_added { "; the next start adds them" } else { "" };
            let count = state.missing.count;
            add(severity, first, format!("queue {name} lacks {count} entries from offset {} on{added}", first.0));
        }
        if let Some(first) = state.wrong.first {
            let count = state.wrong.count;
            add(
                Severity::Derived,
                first,
                format!("queue {name} has {count} entries that do not point to their record, the first at {}", first.0),
            );
        }
        if let Some(first) = state.extra.first.filter(|_| !name.starts_with(LIGHT_PREFIX)) {
            let count = state.extra.count;
            let in_hole = walked.is_in_hole(PhysicalOffset(first.1));
            let behind = first.1 >= walked.end.0;
            let (severity, why) = match (in_hole, behind, self.scene.was_clean) {
                (true, ..) => (Severity::Note, "their records are damaged"),
                (false, true, false) => (Severity::Note, "they point behind the log; the next start cuts them"),
                (false, true, true) => (Severity::Derived, "they point behind the log"),
                (false, false, _) => (Severity::Derived, "no record belongs to them"),
            };
            add(
                severity,
                first,
                format!("queue {name} has {count} entries too many from offset {} on: {why}", first.0),
            );
        }
        if let Some(first) = state.repeated.first {
            let count = state.repeated.count;
            let text = format!("the log gives {count} offsets of queue {name} twice, the first is {}", first.0);
            add(Severity::Note, first, text);
        }
        if state.earlier > 0 {
            let text = format!("{} records of queue {name} are from before its topic was made again", state.earlier);
            findings.note(AREA, directory, text);
        }
    }
}
