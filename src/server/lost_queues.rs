//! Queues whose files are missing, shorter than they were, or damaged, at a start after a stop in order.
//!
//! Such a start reads the end of the log alone and believes the queue files about the rest. Where they lack messages, these would be
//! shown to nobody, and their offsets would be given a second time. So what can be told without reading more is compared, and a queue
//! that is found to lack messages is made anew from the whole log:
//!
//! - `ringmq/queue-offsets` says how far each queue had come;
//! - a record that the start reads anyway has to have its entry;
//! - a store whose queues have no message at all has lost them, unless that file says otherwise.
//!
//! Not everything that is missing was lost: a topic that another broker deleted leaves its records in the log. Those of a topic that
//! is not in the table count no more. If it was made again since, it is in the table; then its queues are made anew only if it is
//! certain that it was not deleted after the messages in question: nobody else has worked here since the file was written, or an entry
//! of an older message is left, of whatever queue, for a deletion takes all queues of a topic.
//!
//! What this does not see is a hole in the middle of a queue, and of a store that only RocketMQ wrote what lies below the file of the
//! log that the start reads: `ringmq store verify` does.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ringmq_protocol::json::{Value, parse};
use ringmq_shards::disk::{Disk, StateFile};
use ringmq_shards::queue::{QueueError, QueueStore, ShortFiles};
use ringmq_shards::recovery::StorePaths;
use ringmq_shards::recovery::audit::Progress;
use ringmq_shards::recovery::queue_offsets::QueueOffsets;
use ringmq_shards::recovery::queue_place::QueuePlace;
use ringmq_shards::recovery::repair::QueueScope;
use ringmq_shards::types::{PhysicalOffset, QueueId, QueueOffset};

use crate::broker::state::TOPICS_FILE;

/// Names of all topics in the broker's table; `None` without a table that can be read.
pub fn known_topics(disk: &dyn Disk, paths: &StorePaths) -> Option<BTreeSet<String>> {
    let file = StateFile::new(paths.config().join(TOPICS_FILE));
    // A table that cannot be read ends the start later, and with its own words.
    let loaded = file.load(disk, |bytes| parse(bytes).map_err(|error| error.to_string())).ok().flatten()?;
    let table = loaded.value.get("topicConfigTable").and_then(Value::as_object)?;
    Some(table.keys().cloned().collect())
}

/// What is found while a store is opened.
pub struct LostQueues<'a> {
    known: &'a BTreeSet<String>,
    found: BTreeMap<String, BTreeSet<QueueId>>,
    has_nothing: bool,
    /// Whether the note says all of the queues.
    is_noted: bool,
    /// By queue: the last record that it does not have, so far the only one. It may be a bit that names another queue.
    suspected: HashMap<(String, QueueId), QueueOffset>,
    begins: TopicBegins,
}

/// By topic: the first message that any of its queues has an entry of, as it was when that was first asked for.
#[derive(Default)]
pub struct TopicBegins(HashMap<String, Option<PhysicalOffset>>);

impl TopicBegins {
    /// Whether a topic has an entry of a message before an offset, and so was not deleted after the message there was stored.
    pub fn has_entry_before(
        &mut self,
        queues: &QueueStore,
        topic: &str,
        offset: PhysicalOffset,
    ) -> Result<bool, QueueError> {
        let begin = match self.0.get(topic) {
            Some(begin) => *begin,
            None => {
                let firsts = queues.topic_queues(topic).into_iter().map(|queue| queues.first_entry(&queue));
                let firsts: Vec<_> = firsts.collect::<Result<_, _>>()?;
                let begin = firsts.into_iter().flatten().map(|entry| entry.physical).min();
                self.0.insert(topic.to_owned(), begin);
                begin
            }
        };
        Ok(begin.is_some_and(|begin| begin < offset))
    }
}

impl<'a> LostQueues<'a> {
    /// Compares the queues as they were loaded with what was noted at the last stop; `is_ours` if nobody else has worked here since.
    ///
    /// # Errors
    /// Files of a queue are missing or too short, and nothing tells what was in them; or they cannot be read.
    pub fn compare(
        known: &'a BTreeSet<String>,
        queues: &QueueStore,
        short: &[ShortFiles],
        noted: Option<&QueueOffsets>,
        is_ours: bool,
    ) -> Result<Self, QueueError> {
        let is_noted = is_ours && noted.is_some();
        let mut lost = Self {
            known,
            found: BTreeMap::new(),
            has_nothing: queues.maximum_physical_end().0 == 0 && !is_noted,
            is_noted,
            suspected: HashMap::new(),
            begins: TopicBegins::default(),
        };
        let with_messages = noted.into_iter().flat_map(|noted| noted.with_messages().map(move |queue| (noted, queue)));
        for (noted, (topic, queue_id, next)) in with_messages.filter(|(_, (topic, ..))| known.contains(*topic)) {
            let has_less = queues.get(topic, queue_id).is_none_or(|queue| queue.published() < next);
            // The note of a start like this one that did not come to replace files: it has looked at the whole log.
            let is_sure = is_ours || noted.log_offset.0 == 0;
            if has_less && (is_sure || lost.begins.has_entry_before(queues, topic, noted.log_offset)?) {
                lost.add(topic, queue_id);
            }
        }
        for files in short {
            // With files of another size than the configured one it might be whole.
            let is_short = noted.is_some_and(|noted| noted.reaches_beyond(&files.topic, files.queue_id, files.reach));
            if !is_short || !lost.has(&files.topic, files.queue_id) {
                return Err(files.clone().into());
            }
        }
        Ok(lost)
    }

    fn add(&mut self, topic: &str, queue_id: QueueId) {
        self.found.entry(topic.to_owned()).or_default().insert(queue_id);
    }

    fn has(&self, topic: &str, queue_id: QueueId) -> bool {
        self.found.get(topic).is_some_and(|ids| ids.contains(&queue_id))
    }

    /// Looks at a record of the log that counts and should have its entry.
    pub fn look_at(&mut self, queues: &QueueStore, place: &QueuePlace<'_>) -> Result<(), QueueError> {
        let (topic, queue_id) = (place.topic, place.queue_id);
        let end = queues.get(topic, queue_id).map_or(QueueOffset(0), |queue| queue.published());
        if self.is_noted || place.offset < end || self.has(topic, queue_id) {
            return Ok(());
        }
        if !self.begins.has_entry_before(queues, topic, place.entry.physical)? {
            return Ok(());
        }
        let before = self.suspected.insert((topic.to_owned(), queue_id), place.offset);
        if place.offset == end || before.is_some_and(|before| before.0 + 1 == place.offset.0) {
            self.add(topic, queue_id);
        }
        Ok(())
    }

    /// Takes note of a record that cannot be added to its queue, because there is none for the offset before.
    pub fn note_gap(&mut self, place: &QueuePlace<'_>) {
        self.add(place.topic, place.queue_id);
    }

    /// What has to be made anew of a log with messages.
    pub fn scope(self) -> Option<QueueScope> {
        match self {
            Self { has_nothing: true, known, .. } => Some(QueueScope::Topics(known.clone())),
            Self { found, .. } => (!found.is_empty()).then_some(QueueScope::Queues(found)),
        }
    }
}

/// Says which queues were made anew.
pub fn tell(scope: &QueueScope) {
    match scope {
        QueueScope::Topics(_) => {
            tracing::warn!("queue files are missing: no queue had any message; all were made anew from the log");
        }
        QueueScope::Queues(queues) => {
            let count: usize = queues.values().map(BTreeSet::len).sum();
            let first = queues.iter().find_map(|(topic, ids)| Some(format!("{topic}/{}", ids.first()?)));
            let first = first.unwrap_or_default();
            tracing::warn!(
                "queue files are missing or damaged: {count} queues, such as {first}, lacked messages and were made anew from \
                 the log"
            );
        }
    }
}

/// Tells the log in tenths how far that is.
#[derive(Default)]
pub struct ToldProgress {
    total_bytes: u64,
    told: u64,
}

impl Progress for ToldProgress {
    fn step(&mut self, _: &str, total_bytes: u64) {
        *self = Self { total_bytes, told: 0 };
    }

    fn reached(&mut self, bytes: u64) {
        let tenths = bytes * 10 / self.total_bytes.max(1);
        if tenths > self.told {
            self.told = tenths;
            let (percent, total) = (tenths * 10, self.total_bytes);
            tracing::info!("making queues anew: {percent} % of {total} bytes of the log are read");
        }
    }
}
