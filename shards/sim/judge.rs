//! What a start has to decide about a damaged log, worked out beside recovery and without its code: from the bytes of the files and
//! the rules alone.
//!
//! Below the durable point nothing may be missing: the start refuses and says where; told to salvage it cuts there. At and above
//! it the log is cut at the first byte that belongs to no valid record, and at no other. These are all the exceptions:
//!
//! - A file of the log that has not the length of all others is refused by its name, also when salvaging: nobody knows what was
//!   in it. Only a last file without any byte is removed, for that is how a file begins.
//! - Without a durable point (only RocketMQ wrote here, or both slots of the file are damaged, also if only zeros are left of them) there is nothing to refuse by, and
//!   RocketMQ's rules hold: the log is read from the newest file that its time stamps vouch for, and cut at the first invalid byte.
//! - With one slot damaged the point is the one before: what lies between the two counts as above it.
//! - A start reads from the last file boundary below the point, or from where queues lack entries; while the kernel has not been
//!   restarted from the last record below the point. Damage farther down stays unseen until somebody reads there: nothing is cut,
//!   all other messages are served, and the damaged ones are not.
//! - Nothing covers a record's topic, properties, times and addresses: a record that differs only there is taken as it is.
//! - After a stop in order the queues that are known to lack messages are made anew, from the whole log. If that is damaged, the start
//!   is refused, wherever the damage is.
//! - A log that was synced by groups is refused as well if a valid record follows an invalid one farther behind than a group can be.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use ringmq_protocol::record::{BLANK_BYTES, CrcCheck, RecordError, RecordView};

use crate::disk::{Disk, read_file};
use crate::log::segment_table::{file_name, parse_file_name};
use crate::recovery::StorePaths;
use crate::recovery::audit::Finding;
use crate::recovery::queue_flushed::{self, boot_id};
use crate::recovery::queue_offsets::QueueOffsets;
use crate::types::PhysicalOffset;

const SECTOR_BYTES: u64 = 512;
/// The two slots of the file `durable-point`.
const SLOTS: [usize; 2] = [0, 4096];
const SLOT_BYTES: usize = 40;
/// What RocketMQ subtracts from the older time stamp of its checkpoint, in ms.
const MARGIN_MS: i64 = 3000;

/// A store before anything happened to it.
#[derive(Debug, Clone, Default)]
pub struct Before {
    /// Size of the log's files.
    pub segment_bytes: u64,
    /// Every record by its offset.
    pub records: BTreeMap<u64, Vec<u8>>,
    /// The bytes of the file `durable-point`; empty where there is none.
    pub durable_point: Vec<u8>,
}

/// What a start knows to be synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing: there is no durable point, and none was ever written.
    Nothing,
    /// Nothing, because neither slot is as it was written.
    Lost,
    /// Everything below an offset.
    Below {
        /// The offset.
        offset: u64,
        /// Where the last record below it begins, if there is one.
        last: Option<u64>,
        /// Whether it is the older of the two that the file once held.
        is_older: bool,
    },
}

/// How a store is started.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Whether damage is to be cut.
    pub salvage: bool,
    /// With acknowledged syncs: the most bytes of a group.
    pub group_bytes: Option<u64>,
}

/// What a start has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Refuse: a file has another length than it must have.
    RefuseLength {
        /// The file.
        path: PathBuf,
    },
    /// Refuse: nothing but zeros follows an end below the durable point.
    RefuseShort {
        /// The file of the end; the folder if not even the file is there.
        path: PathBuf,
        /// The end.
        end: u64,
        /// The durable point.
        durable: u64,
    },
    /// Refuse: something else than a record is below the durable point.
    RefuseDamage {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        position: u64,
        /// Where in the log.
        offset: u64,
        /// The durable point.
        durable: u64,
    },
    /// Refuse: a valid record lies too far behind an invalid place.
    RefuseFarBehind {
        /// The file of the invalid place.
        path: PathBuf,
        /// Where in the file.
        position: u64,
        /// Where in the log.
        offset: u64,
        /// The valid record.
        valid_at: u64,
    },
    /// Open with this end.
    Open {
        /// Where the log ends.
        end: u64,
        /// What is cut off, up to the last byte that is not zero. Saved aside.
        tail: Vec<u8>,
        /// What would have refused the start, had it not been told to salvage.
        salvaged: Option<Box<Decision>>,
    },
}

impl Decision {
    /// A name for counting.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RefuseLength { .. } => "refused_length",
            Self::RefuseShort { .. } => "refused_short",
            Self::RefuseDamage { .. } => "refused_damage",
            Self::RefuseFarBehind { .. } => "refused_far_behind",
            Self::Open { salvaged: Some(_), .. } => "salvaged",
            Self::Open { tail, .. } if tail.is_empty() => "kept",
            Self::Open { .. } => "cut",
        }
    }

    /// Whether an audit that knows how the store is started says of the tail what the start does with it.
    pub fn is_foreseen(&self, findings: &[Finding]) -> bool {
        let tail = findings.iter().find(|finding| finding.text.contains("the log ends here ("));
        match self {
            Self::RefuseFarBehind { valid_at, offset, .. } => tail.is_some_and(|finding| {
                let word = format!("refuses it, since the valid record at {valid_at} ");
                finding.refuses_start && finding.offset == Some(*offset) && finding.text.contains(&word)
            }),
            Self::Open { .. } => tail.is_none_or(|finding| !finding.refuses_start),
            _ => true,
        }
    }

    /// What the message of a refusal must say: file, place, and how far the log was known to be synced.
    pub fn words(&self) -> Vec<String> {
        let place = |path: &PathBuf, position: &u64, offset: &u64| {
            vec![path.display().to_string(), format!("at byte {position} "), format!("log offset {offset}")]
        };
        match self {
            Self::RefuseLength { path } => vec![path.display().to_string(), "bytes where".to_owned()],
            Self::RefuseShort { path, end, durable } => {
                vec![path.display().to_string(), format!("ends at {end} "), format!("up to {durable}")]
            }
            Self::RefuseDamage { path, position, offset, durable } => {
                let mut words = place(path, position, offset);
                words.push(format!("synced up to {durable}"));
                words
            }
            Self::RefuseFarBehind { path, position, offset, valid_at } => {
                let mut words = place(path, position, offset);
                words.push(format!("valid record at {valid_at}"));
                words
            }
            Self::Open { salvaged, .. } => salvaged.as_ref().map_or_else(Vec::new, |refusal| refusal.words()),
        }
    }
}

/// A decision and what it rests on.
#[derive(Debug, Clone)]
pub struct Judgement {
    /// What the start has to do.
    pub decision: Decision,
    /// What it knows to be synced.
    pub known: Known,
    /// Where it begins to read.
    pub from: u64,
    /// Where the log's files begin.
    pub min: u64,
    /// Records that are as they were written, by offset, with their lengths.
    pub intact: BTreeMap<u64, u64>,
    /// Records that are valid although a byte of theirs is another one.
    pub changed: Vec<u64>,
    /// Queues that a stop in order left with messages that their files do not have any more, by topic and number.
    pub lost: BTreeSet<(String, u32)>,
    /// The first place of the log that is none of a valid record.
    pub whole_below: u64,
}

/// The log's files as they lie there.
struct Log {
    segment_bytes: u64,
    files: BTreeMap<u64, Vec<u8>>,
}

/// What is at a place.
enum Place {
    Record(u64),
    Blank,
    End,
    Invalid,
}

impl Log {
    fn min(&self) -> u64 {
        self.files.keys().next().copied().unwrap_or(0)
    }

    fn limit(&self) -> u64 {
        self.files.keys().next_back().map_or(0, |start| start + self.segment_bytes)
    }

    /// The bytes from an offset to the end of its file.
    fn rest(&self, offset: u64) -> &[u8] {
        let (start, bytes) = self.files.range(..=offset).next_back().expect("the offset lies in a file");
        &bytes[(offset - start) as usize..]
    }

    fn view(&self, offset: u64) -> Result<RecordView<'_>, RecordError> {
        RecordView::parse(self.rest(offset), CrcCheck::Verify)
    }

    /// Looks at a place. From `torn_from` on a sector of zeros in topic or properties makes a record invalid.
    fn look(&self, offset: u64, torn_from: Option<u64>) -> Place {
        if offset < self.min() || offset >= self.limit() {
            return Place::End;
        }
        let left = self.rest(offset).len() as u64;
        match self.view(offset) {
            Ok(view) => {
                let bytes = view.total_size() as u64;
                let is_here = u64::try_from(view.physical_offset()) == Ok(offset);
                let has_room = bytes + BLANK_BYTES as u64 <= left;
                let is_torn = torn_from.is_some_and(|from| offset >= from) && lacks_sector(&view, offset);
                if is_here && has_room && !is_torn { Place::Record(bytes) } else { Place::Invalid }
            }
            Err(RecordError::Blank { remaining }) if u64::from(remaining) == left => Place::Blank,
            Err(RecordError::EndOfData { needed: 0 }) => Place::End,
            Err(_) => Place::Invalid,
        }
    }

    /// The first place from an offset on where no valid record begins.
    fn first_gap(&self, mut offset: u64, torn_from: Option<u64>) -> u64 {
        loop {
            match self.look(offset, torn_from) {
                Place::Record(bytes) => offset += bytes,
                Place::Blank => offset = offset - offset % self.segment_bytes + self.segment_bytes,
                Place::End | Place::Invalid => return offset,
            }
        }
    }

    /// Everything from an offset on, up to the last byte that is not zero.
    fn tail(&self, offset: u64) -> Vec<u8> {
        let mut tail = Vec::new();
        for (start, bytes) in &self.files {
            let from = offset.saturating_sub(*start).min(bytes.len() as u64);
            tail.extend_from_slice(&bytes[from as usize..]);
        }
        let used = tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        tail.truncate(used);
        tail
    }
}

fn lacks_sector(view: &RecordView<'_>, offset: u64) -> bool {
    let record = view.bytes();
    // Topic, then the properties behind their length, which end the record. An empty end may be all zeros by itself.
    let topic = record.len() - view.properties().len() - 2 - view.topic().len();
    let end = if view.properties().is_empty() { topic + view.topic().len() } else { record.len() };
    (topic..end).filter(|at| (offset + *at as u64).is_multiple_of(SECTOR_BYTES)).any(|at| {
        let sector = &record[at..record.len().min(at + SECTOR_BYTES as usize)];
        sector.iter().all(|byte| *byte == 0)
    })
}

/// What the slots of the file say that are still as they were written.
fn known(bytes: &[u8], before: &[u8]) -> Known {
    let slot = |bytes: &[u8], at: usize| bytes.get(at..at + SLOT_BYTES).map(<[u8]>::to_vec);
    let number = |slot: &[u8], at: usize| u64::from_be_bytes(slot[at..at + 8].try_into().expect("eight bytes"));
    let mut written: Vec<Vec<u8>> = SLOTS.iter().filter_map(|at| slot(before, *at)).collect();
    written.retain(|slot| crc32fast::hash(&slot[..36]).to_be_bytes() == slot[36..]);
    written.sort_by_key(|slot| number(slot, 8));
    let found = SLOTS.iter().filter_map(|at| slot(bytes, *at)).filter(|slot| written.contains(slot));
    let Some(newest) = found.max_by_key(|slot| number(slot, 8)) else {
        return if written.is_empty() { Known::Nothing } else { Known::Lost };
    };
    let last = Some(number(&newest, 24)).filter(|start| *start != u64::MAX);
    Known::Below { offset: number(&newest, 16), last, is_older: written.last() != Some(&newest) }
}

/// From where on the queues ask for the log again, and whether the kernel is the one that wrote it. `None` when a file that says so
/// cannot be read in either generation, which refuses a start before it looks at the log.
fn wanted(
    disk: &dyn Disk,
    paths: &StorePaths,
    was_clean: bool,
    is_ours: bool,
) -> io::Result<Option<(Option<u64>, bool)>> {
    let Ok(noted) = QueueOffsets::load(disk, paths) else { return Ok(None) };
    if was_clean {
        return Ok(Some((None, false)));
    }
    let noted = noted.map(|noted| noted.value.log_offset.0);
    let flushed = queue_flushed::load(disk, paths, boot_id(disk).as_deref())?.map(|offset| offset.0);
    Ok(Some(match flushed {
        Some(flushed) => (Some(flushed.max(noted.unwrap_or(0))), true),
        None => (noted.or(is_ours.then_some(0)), false),
    }))
}

/// Says what a start has to do; `None` when it does not come to look at the log. Changes nothing.
///
/// # Errors
/// The file system does not answer.
///
/// # Panics
/// When a valid record differs from what was written in a byte that its CRC or its place covers.
pub fn judge(disk: &dyn Disk, paths: &StorePaths, before: &Before, start: Start) -> io::Result<Option<Judgement>> {
    let mut log = Log { segment_bytes: before.segment_bytes, files: BTreeMap::new() };
    let mut wrong_length = None;
    let mut entries = disk.list(&paths.commit_log)?;
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    let is_empty = entries.last().is_some_and(|last| last.length == 0);
    entries.truncate(entries.len() - usize::from(is_empty));
    for (first, entry) in entries.iter().filter_map(|entry| Some((parse_file_name(&entry.name)?, entry))) {
        let path = paths.commit_log.join(&entry.name);
        if entry.length != before.segment_bytes {
            wrong_length = wrong_length.or(Some(path));
            continue;
        }
        log.files.insert(first.0, read_file(disk, &path)?.unwrap_or_default());
    }
    let was_clean = !disk.exists(&paths.abort())?;
    let known = known(&read_file(disk, &paths.durable_point())?.unwrap_or_default(), &before.durable_point);
    let Some((wanted, is_same_kernel)) = wanted(disk, paths, was_clean, known != Known::Nothing)? else {
        return Ok(None);
    };
    let (intact, changed) = compare(&log, before);
    let min = log.min();
    let lost = if was_clean { lost(disk, paths)? } else { BTreeSet::new() };
    let whole_below = log.first_gap(min, None);
    let judgement =
        |decision, from| Ok(Some(Judgement { decision, known, from, min, intact, changed, lost, whole_below }));
    if let Some(path) = wrong_length {
        return judgement(Decision::RefuseLength { path }, min);
    }
    let mut point = match known {
        Known::Below { offset, last, .. } => Some((offset, last)),
        Known::Nothing | Known::Lost => None,
    };
    let mut salvaged = None;
    if let Some((durable, _)) = point.filter(|(durable, _)| *durable > log.limit()) {
        let refusal = Decision::RefuseShort { path: paths.commit_log.clone(), end: log.limit(), durable };
        if !start.salvage {
            return judgement(refusal, min);
        }
        salvaged = Some(Box::new(refusal));
        point = None;
    }
    let torn_from = point.map(|(durable, _)| durable);
    let from = match point {
        Some((_, Some(last))) if is_same_kernel => from_record(&log, before, last, wanted),
        _ => None,
    };
    let from = match from {
        Some(from) => from,
        None => {
            let boundary = |offset: u64| offset - offset % log.segment_bytes;
            let first = match point {
                Some((durable, last)) => boundary(last.unwrap_or(durable.saturating_sub(1))),
                None => by_rocketmq(disk, paths, &log, was_clean, wanted)?,
            };
            first.min(wanted.map_or(first, boundary)).max(min)
        }
    };
    let end = log.first_gap(from, torn_from);
    let tail = log.tail(end);
    let file = end - end % log.segment_bytes;
    let (path, position) = (paths.commit_log.join(file_name(PhysicalOffset(file))), end - file);
    let refusal = match point {
        Some((durable, _)) if end < durable && tail.is_empty() => Some(Decision::RefuseShort { path, end, durable }),
        Some((durable, _)) if end < durable => Some(Decision::RefuseDamage { path, position, offset: end, durable }),
        Some(_) => start.group_bytes.and_then(|bytes| {
            let until = end + tail.len() as u64;
            let valid = |offset: &u64| matches!(log.look(*offset, torn_from), Place::Record(_));
            let valid_at = (end + bytes..until).filter(|offset| states_itself(&log, *offset)).find(valid)?;
            Some(Decision::RefuseFarBehind { path, position, offset: end, valid_at })
        }),
        None => None,
    };
    match refusal {
        Some(refusal) if !start.salvage => judgement(refusal, from),
        refusal => {
            let salvaged = refusal.map(Box::new).or(salvaged);
            judgement(Decision::Open { end, tail, salvaged }, from)
        }
    }
}

/// Queues of which the entry of the last message is not there, if nobody else was here since it was.
fn lost(disk: &dyn Disk, paths: &StorePaths) -> io::Result<BTreeSet<(String, u32)>> {
    let mut lost = BTreeSet::new();
    let is_ours = read_file(disk, &paths.lock())?.is_some_and(|text| text.starts_with(b"ringmq"));
    let noted = QueueOffsets::load(disk, paths).ok().flatten().filter(|_| is_ours);
    for (topic, queue, next) in noted.iter().flat_map(|noted| noted.value.with_messages()) {
        let directory = paths.consume_queue().join(topic).join(queue.to_string());
        let files = disk.list(&directory).unwrap_or_default();
        let place = (next.0 - 1) * 20;
        let starts = files.iter().filter_map(|file| file.name.parse::<u64>().ok()).filter(|start| *start <= place);
        let mut entry = [0; 20];
        if let Some(start) = starts.max() {
            let bytes = read_file(disk, &directory.join(format!("{start:020}")))?.unwrap_or_default();
            let found = usize::try_from(place - start).ok().and_then(|at| bytes.get(at..at + 20));
            entry.copy_from_slice(found.unwrap_or(&[0; 20]));
        }
        let is_entry = entry[0] < 128 && entry[8] < 128 && entry[8..12] != [0; 4];
        if !is_entry {
            lost.insert((topic.to_owned(), queue.0));
        }
    }
    Ok(lost)
}

/// While the kernel runs: the last record below the point if it is as it was, or the record farther down that queues want.
fn from_record(log: &Log, before: &Before, last: u64, wanted: Option<u64>) -> Option<u64> {
    let is_unchanged =
        |start: u64| before.records.get(&start).is_some_and(|written| log.rest(start).starts_with(written));
    if last < log.min() || !is_unchanged(last) {
        return None;
    }
    match wanted.filter(|wanted| *wanted < last) {
        None => Some(last),
        Some(wanted) if wanted < log.min() => None,
        Some(wanted) => matches!(log.look(wanted, None), Place::Record(_) | Place::Blank).then_some(wanted),
    }
}

/// The newest file whose first record is valid and old enough for the time stamps; the first one if there is none.
fn by_rocketmq(
    disk: &dyn Disk,
    paths: &StorePaths,
    log: &Log,
    was_clean: bool,
    wanted: Option<u64>,
) -> io::Result<u64> {
    let checkpoint = read_file(disk, &paths.checkpoint())?.unwrap_or_default();
    let field =
        |at: usize| checkpoint.get(at..at + 8).map_or(0, |bytes| i64::from_be_bytes(bytes.try_into().expect("8")));
    let vouched = if was_clean { i64::MAX } else { field(0).min(field(8)).saturating_sub(MARGIN_MS).max(0) };
    let is_vouched = |start: &&u64| {
        let time_ms = log.view(**start).map_or(0, |view| view.store_timestamp());
        matches!(log.look(**start, None), Place::Record(_))
            && time_ms != 0
            && time_ms <= vouched
            && wanted.is_none_or(|wanted| **start <= wanted)
    };
    Ok(log.files.keys().skip(1).rev().find(is_vouched).copied().unwrap_or(log.min()))
}

/// Whether what begins there states this place as its own.
fn states_itself(log: &Log, offset: u64) -> bool {
    let stated = log.rest(offset).get(28..36);
    stated.is_some_and(|bytes| bytes == offset.to_be_bytes())
}

/// Which of the written records are as they were, and which are valid and different.
fn compare(log: &Log, before: &Before) -> (BTreeMap<u64, u64>, Vec<u64>) {
    let (mut intact, mut changed) = (BTreeMap::new(), Vec::new());
    let is_held = |offset: &u64| log.files.contains_key(&(offset - offset % before.segment_bytes));
    for (offset, written) in before.records.iter().filter(|(offset, _)| is_held(offset)) {
        if log.rest(*offset).starts_with(written) {
            intact.insert(*offset, written.len() as u64);
        } else if matches!(log.look(*offset, None), Place::Record(_)) {
            let (found, original) = (log.view(*offset), RecordView::parse(written, CrcCheck::Verify));
            let covered = |view: &RecordView<'_>| (view.total_size(), view.body().to_vec(), view.physical_offset());
            let is_covered = found.map(|view| covered(&view)).ok() == original.map(|view| covered(&view)).ok();
            assert!(is_covered, "the record at {offset} is another one and counts as valid");
            changed.push(*offset);
        }
    }
    (intact, changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the slots of a durable point are told by their bytes: the newest that is left, the one before, or none. Method: two slots;
    /// harm to one, to both, to none, and a file of zeros.
    #[test]
    fn slots_are_told_by_their_bytes() {
        let slot = |sequence: u8, offset: u8, last: u8| {
            let mut slot = [7; SLOT_BYTES];
            for (at, value) in [(8, sequence), (16, offset), (24, last)] {
                slot[at..at + 8].copy_from_slice(&u64::from(value).to_be_bytes());
            }
            let check = crc32fast::hash(&slot[..36]);
            slot[36..].copy_from_slice(&check.to_be_bytes());
            slot
        };
        let mut before = vec![0; 8192];
        before[..SLOT_BYTES].copy_from_slice(&slot(4, 40, 30));
        before[4096..4096 + SLOT_BYTES].copy_from_slice(&slot(3, 20, 10));
        let harmed = |places: &[usize]| {
            let mut bytes = before.clone();
            places.iter().for_each(|at| bytes[*at] ^= 1);
            known(&bytes, &before)
        };
        let older = Known::Below { offset: 20, last: Some(10), is_older: true };
        assert_eq!(harmed(&[]), Known::Below { offset: 40, last: Some(30), is_older: false });
        assert_eq!(harmed(&[4096]), Known::Below { offset: 40, last: Some(30), is_older: false });
        assert_eq!(harmed(&[39]), older);
        assert_eq!(harmed(&[0, 4096]), Known::Lost);
        assert_eq!(known(&[0; 8192], &before), Known::Lost);
        assert_eq!(known(&[0; 8192], &[0; 8192]), Known::Nothing);
        assert_eq!(known(&before[..100], &before), Known::Below { offset: 40, last: Some(30), is_older: false });
    }
}
