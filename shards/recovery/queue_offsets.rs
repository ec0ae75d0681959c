//! What the log alone cannot tell about queues: file `ringmq/queue-offsets`.
//!
//! A queue whose records have all expired must not start at 0 again, and records of a topic that was deleted and made
//! again must not come back. The file keeps the next offset of each queue, and for each deleted topic a barrier: the
//! physical offset below which its records count no more. It is a snapshot as of a log offset; what the log holds
//! behind that is newer. The flush thread owns it.
//!
//! Another broker that works on the store knows nothing of the file ([`QueueOffsets::heed_others`]).
//!
//! Format: the line `ringmq-queue-offsets 1 <CRC-32 of the JSON, 8 hex digits> <length of the JSON>`, then JSON. Every format begins
//! with such a line about whatever follows it. Format 2 has `empty` besides; a file without it is written as format 1.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::durable_point::{DurablePointFile, StoredPoint};
use super::formats::number_above;
use super::paths::StorePaths;
use super::process_lock::is_ours;
use super::queue_flushed;
use crate::disk::state_file::LoadedState;
use crate::disk::{Disk, StateFile, StateFileError, read_file};
use crate::planted::{PlantedMistake, is_planted};
use crate::types::{PhysicalOffset, QueueId, QueueOffset};

const NAME: &str = "ringmq-queue-offsets";
/// The number behind it.
pub(super) const FORMAT: u32 = 2;

/// The content of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueOffsets {
    /// The log offset up to which `next` counts.
    pub log_offset: PhysicalOffset,
    /// Next offset by topic and queue.
    pub next: BTreeMap<String, BTreeMap<QueueId, QueueOffset>>,
    /// By deleted topic: its records below this offset count no more.
    pub barriers: BTreeMap<String, PhysicalOffset>,
    /// Which queues of `next` have no message: what they had is gone from the log, and their files may be gone as well.
    pub empty: BTreeMap<String, BTreeSet<QueueId>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stored {
    log_offset: u64,
    next: BTreeMap<String, BTreeMap<u32, u64>>,
    barriers: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    empty: BTreeMap<String, BTreeSet<u32>>,
}

/// The first line of a file with this content.
fn head(format: u32, content: &[u8]) -> String {
    format!("{NAME} {format} {:08x} {}", crc32fast::hash(content), content.len())
}

/// Whether this is the first line of a file with this content, in a format that is known.
fn is_head(line: &[u8], content: &[u8]) -> bool {
    (1..=FORMAT).any(|format| line == head(format, content).as_bytes())
}

/// The generation that a start would go by and its format, if a newer version has written it.
pub(super) fn newer_format(disk: &dyn Disk, paths: &StorePaths) -> io::Result<Option<(PathBuf, u32)>> {
    for path in [paths.queue_offsets(), paths.queue_offsets().with_extension("bak")] {
        let bytes = read_file(disk, &path)?.unwrap_or_default();
        let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
        let (line, content) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        match number_above(line, NAME, FORMAT) {
            Some(found) if line == head(found, content).as_bytes() => return Ok(Some((path, found))),
            _ if is_head(line, content) => return Ok(None),
            _ => {}
        }
    }
    Ok(None)
}

impl QueueOffsets {
    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let queues = |queues: &BTreeMap<QueueId, QueueOffset>| queues.iter().map(|(id, next)| (id.0, next.0)).collect();
        let stored = Stored {
            log_offset: self.log_offset.0,
            next: self.next.iter().map(|(topic, map)| (topic.clone(), queues(map))).collect(),
            barriers: self.barriers.iter().map(|(topic, offset)| (topic.clone(), offset.0)).collect(),
            empty: self.empty.iter().map(|(topic, ids)| (topic.clone(), ids.iter().map(|id| id.0).collect())).collect(),
        };
        let json = serde_json::to_string(&stored).expect("maps with string and integer keys are JSON");
        let format = if self.empty.is_empty() { 1 } else { FORMAT };
        format!("{}\n{json}", head(format, json.as_bytes())).into_bytes()
    }

    /// Reads the bytes of the file; the error says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let (head, json) = text.split_once('\n').ok_or("the head line is missing")?;
        let stored: Stored = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let expected = self::head(if stored.empty.is_empty() { 1 } else { FORMAT }, json.as_bytes());
        if head != expected {
            return Err(format!("the head line is '{head}' where '{expected}' would fit the content"));
        }
        let queues =
            |map: BTreeMap<u32, u64>| map.into_iter().map(|(id, next)| (QueueId(id), QueueOffset(next))).collect();
        Ok(Self {
            log_offset: PhysicalOffset(stored.log_offset),
            next: stored.next.into_iter().map(|(topic, map)| (topic, queues(map))).collect(),
            barriers: stored.barriers.into_iter().map(|(topic, offset)| (topic, PhysicalOffset(offset))).collect(),
            empty: stored
                .empty
                .into_iter()
                .map(|(topic, ids)| (topic, ids.into_iter().map(QueueId).collect()))
                .collect(),
        })
    }

    /// Where each queue stood that had messages.
    pub fn with_messages(&self) -> impl Iterator<Item = (&str, QueueId, QueueOffset)> {
        let all = self.next.iter().flat_map(|(topic, next)| next.iter().map(|(id, next)| (topic.as_str(), *id, *next)));
        all.filter(|(topic, id, _)| !self.empty.get(*topic).is_some_and(|ids| ids.contains(id)))
    }

    /// Whether a queue had messages from an offset on, so that files which end there are not all of its files.
    pub fn reaches_beyond(&self, topic: &str, queue_id: QueueId, offset: QueueOffset) -> bool {
        self.with_messages().any(|(of, id, next)| of == topic && id == queue_id && next > offset)
    }

    /// Whether a topic's record at an offset still counts.
    pub fn counts(&self, topic: &str, offset: PhysicalOffset) -> bool {
        self.barriers.get(topic).is_none_or(|barrier| offset >= *barrier)
    }

    /// Lowers barriers that lie behind the end of the log to it; says whether there was one.
    pub fn lower_barriers_to(&mut self, end: PhysicalOffset) -> bool {
        let mut lowered = false;
        for barrier in self.barriers.values_mut().filter(|barrier| **barrier > end) {
            *barrier = end;
            lowered = true;
        }
        lowered
    }

    /// Takes back what another broker may have made untrue that worked here since this was written. If the machine died in
    /// between (`flushed`, the note of this run of the kernel, is `None`) the log had lost what was not durable, and what the other one
    /// stored in its place is new: what this says of the log behind the durable point counts no more. Otherwise the log was
    /// whole, and only barriers are lowered that the writer never gave. Says whether anything changed.
    pub fn heed_others(
        &mut self,
        disk: &dyn Disk,
        paths: &StorePaths,
        durable: StoredPoint,
        flushed: Option<PhysicalOffset>,
    ) -> io::Result<bool> {
        if is_ours(disk, paths)? {
            return Ok(false);
        }
        let synced = match durable {
            StoredPoint::Valid(point) => point.offset,
            StoredPoint::Missing | StoredPoint::Damaged => PhysicalOffset(0),
        };
        // The note is of our own last run, so all below it was there before anybody else came.
        let certain = flushed.unwrap_or_default().max(synced);
        let mut changed = false;
        for barrier in self.barriers.values_mut().filter(|barrier| **barrier > certain) {
            if flushed.is_none() || barrier.0 == u64::MAX {
                *barrier = certain;
                changed = true;
            }
        }
        if flushed.is_none() && self.log_offset > certain {
            self.log_offset = certain;
            changed = true;
        }
        Ok(changed)
    }

    /// As [`Self::heed_others`], with all that it asks for read from the disk: what a start at this moment would go by.
    pub fn foresee_start(&mut self, disk: &dyn Disk, paths: &StorePaths) -> io::Result<bool> {
        let flushed = match disk.exists(&paths.abort())? {
            true => queue_flushed::load(disk, paths, queue_flushed::boot_id(disk).as_deref())?,
            false => None,
        };
        self.heed_others(disk, paths, DurablePointFile::load(disk, paths)?, flushed)
    }

    /// Forgets barriers that lie below everything the log still holds.
    pub fn forget_barriers_below(&mut self, min: PhysicalOffset) {
        self.barriers.retain(|_, barrier| *barrier > min);
    }

    /// Loads the newest readable generation.
    pub fn load(disk: &dyn Disk, paths: &StorePaths) -> Result<Option<LoadedState<Self>>, StateFileError> {
        if is_planted(PlantedMistake::SidecarIgnored) {
            return Ok(None);
        }
        StateFile::new(paths.queue_offsets()).load(disk, Self::decode)
    }

    /// Replaces the file durably, keeping the generation before.
    pub fn persist(&self, disk: &dyn Disk, paths: &StorePaths) -> Result<(), StateFileError> {
        StateFile::new(paths.queue_offsets()).persist(disk, &self.encode(), |bytes| Self::decode(bytes).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::create_directories_durably;
    use crate::sim::SimDisk;

    fn sample() -> QueueOffsets {
        let mut offsets = QueueOffsets { log_offset: PhysicalOffset(900), ..QueueOffsets::default() };
        offsets.next.entry("orders".into()).or_default().insert(QueueId(3), QueueOffset(17));
        offsets.barriers.insert("gone \"quoted\"".into(), PhysicalOffset(500));
        offsets
    }

    fn sample_with_empty() -> QueueOffsets {
        let mut offsets = sample();
        offsets.next.entry("orders".into()).or_default().insert(QueueId(5), QueueOffset(57));
        offsets.empty.entry("orders".into()).or_default().insert(QueueId(5));
        offsets
    }

    /// Goal: versions that know format 1 alone read whatever they could have written. Method: the number with and without empty queues.
    #[test]
    fn the_format_is_the_least_that_holds_the_content() {
        for (offsets, format) in [(sample(), 1), (sample_with_empty(), 2)] {
            let bytes = offsets.encode();
            assert!(bytes.starts_with(format!("{NAME} {format} ").as_bytes()));
            assert_eq!(QueueOffsets::decode(&bytes).unwrap(), offsets);
            assert_eq!(offsets.with_messages().collect::<Vec<_>>(), [("orders", QueueId(3), QueueOffset(17))]);
        }
    }

    /// What is persisted is loaded, barriers apply to older records only, and they are forgotten with the log.
    #[test]
    fn round_trip_and_barriers() {
        let (disk, paths) = (SimDisk::new(), StorePaths::new("/store"));
        create_directories_durably(&disk, &paths.own()).unwrap();
        assert!(QueueOffsets::load(&disk, &paths).unwrap().is_none());
        sample().persist(&disk, &paths).unwrap();
        let mut loaded = QueueOffsets::load(&disk, &paths).unwrap().unwrap().value;
        assert_eq!(loaded, sample());
        assert!(!loaded.counts("gone \"quoted\"", PhysicalOffset(499)));
        assert!(loaded.counts("gone \"quoted\"", PhysicalOffset(500)) && loaded.counts("orders", PhysicalOffset(0)));
        loaded.forget_barriers_below(PhysicalOffset(500));
        assert!(loaded.barriers.is_empty());
    }

    proptest! {
        /// No damaged byte is taken for content: flip any byte of the file, or cut it anywhere.
        #[test]
        fn damage_is_noticed(position in 0usize..1000, flip in 1u8..=255, has_empty: bool) {
            let mut bytes = if has_empty { sample_with_empty() } else { sample() }.encode();
            let position = position % bytes.len();
            prop_assert!(QueueOffsets::decode(&bytes[..position]).is_err());
            bytes[position] ^= flip;
            prop_assert!(QueueOffsets::decode(&bytes).is_err());
        }
    }
}
