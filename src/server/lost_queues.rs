//! Queues that a start finds without their files, or with less in them than there was: they are made anew from the whole log.
//!
//! Usually a start reads the end of the log alone and believes the queue files about the rest, so a queue whose files are gone would
//! seem to begin where the end of the log does, or to be shorter than it is: messages that are in the log would be shown to nobody,
//! and offsets would be given twice. `ringmq/queue-offsets` says how far each queue had come. What contradicts it leads to a second
//! start, which takes no queue file for complete, and which may be interrupted: the next one does the same.

use std::io;
use std::sync::Arc;

use ringmq_protocol::json::{Value, parse};
use ringmq_shards::disk::{Disk, StateFile};
use ringmq_shards::queue::{Queue, QueueEntry, QueueError, QueueStore};
use ringmq_shards::recovery::process_lock::ProcessLock;
use ringmq_shards::recovery::queue_offsets::QueueOffsets;
use ringmq_shards::recovery::{RecoveryError, StorePaths, queue_flushed};
use ringmq_shards::types::{PhysicalOffset, QueueId};

use super::storage::StorageError;
use crate::broker::state::TOPICS_FILE;

/// Queues that seem to lack something.
#[derive(Debug, Default)]
pub struct LostQueues {
    queues: Vec<(String, QueueId)>,
    /// From here on the log was read already.
    read_from: PhysicalOffset,
}

fn has_entries(queue: Option<&Arc<Queue>>) -> bool {
    queue.is_some_and(|queue| queue.bounds().0 < queue.published())
}

/// Whether a recovery ended because a queue lacks what lies between its end and a record of the log.
pub fn is_gap(error: &RecoveryError) -> bool {
    let RecoveryError::Dispatch { source, .. } = error else { return false };
    let cause = source.get_ref().and_then(|cause| cause.downcast_ref::<QueueError>());
    matches!(cause, Some(QueueError::Gap { .. }))
}

impl LostQueues {
    /// Compares what was loaded from files with what was noted. After a clean stop both agree. After a crash the last entries may be
    /// missing, so only queues count that have nothing at all.
    pub fn suspected(queues: &QueueStore, noted: &QueueOffsets, was_clean: bool) -> Self {
        let lacks = |topic: &str, queue_id, next| {
            let queue = queues.get(topic, queue_id);
            match was_clean {
                true => queue.is_none_or(|queue| queue.published() < next),
                false => !has_entries(queue.as_ref()),
            }
        };
        let lacking = noted.filled().filter(|(topic, queue_id, next)| lacks(topic, *queue_id, *next));
        Self { queues: lacking.map(|(topic, queue_id, _)| (topic.to_owned(), queue_id)).collect(), ..Self::default() }
    }

    /// After a crash: leaves those out whose first message is among what the log gave again from `read_from` on.
    pub fn without_new(mut self, queues: &QueueStore, read_from: PhysicalOffset) -> Self {
        self.queues.retain(|(topic, queue_id)| {
            let queue = queues.get(topic, *queue_id);
            !has_entries(queue.as_ref()) || queue.is_some_and(|queue| queue.bounds().0.0 > 0)
        });
        Self { read_from, ..self }
    }

    /// After a clean stop: leaves those out whose topic another broker may have deleted since, which writes nothing to the log.
    pub fn of_known_topics(mut self, disk: &dyn Disk, paths: &StorePaths, read_from: PhysicalOffset) -> Self {
        let file = StateFile::new(paths.config().join(TOPICS_FILE));
        // A table that cannot be read ends the start later, and with its own words.
        let loaded = file.load(disk, |bytes| parse(bytes).map_err(|error| error.to_string())).ok().flatten();
        let table = loaded.as_ref().and_then(|loaded| loaded.value.get("topicConfigTable").and_then(Value::as_object));
        self.queues.retain(|(topic, _)| table.is_some_and(|table| table.contains_key(topic)));
        Self { read_from, ..self }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Sees to it that no start takes queue files for complete until all of the log was read.
    pub fn distrust_files(
        &self,
        disk: &dyn Disk,
        paths: &StorePaths,
        lock: &ProcessLock,
        was_clean: bool,
        noted: &QueueOffsets,
    ) -> Result<(), StorageError> {
        let (topic, queue_id) = &self.queues[0];
        tracing::info!(
            queues = self.queues.len(),
            first = %format!("{topic}/{}", queue_id.0),
            "queues seem to lack files: the whole log is read"
        );
        QueueOffsets { log_offset: PhysicalOffset(0), ..noted.clone() }.persist(disk, paths)?;
        let io_error = |action, path| move |source: io::Error| StorageError::Io { action, path, source };
        queue_flushed::distrust(disk, paths).map_err(io_error("write queue-flushed", paths.queue_flushed()))?;
        if was_clean {
            let marked = lock.mark_running(disk, paths, std::process::id());
            marked.map_err(io_error("write abort", paths.abort()))?;
        }
        Ok(())
    }

    /// Once the whole log was read: says which queues have got back what they had lost.
    pub fn report(&self, queues: &QueueStore) -> Result<(), QueueError> {
        let mut found = Vec::new();
        for (topic, queue_id) in &self.queues {
            let Some(queue) = queues.get(topic, *queue_id).filter(|queue| has_entries(Some(queue))) else { continue };
            let mut first = [QueueEntry::default()];
            if queues.read_entries(&queue, queue.bounds().0, &mut first)? == 1 && first[0].physical < self.read_from {
                found.push(format!("{topic}/{}", queue_id.0));
            }
        }
        if let Some(first) = found.first() {
            let count = found.len();
            tracing::warn!(
                "files of {count} queues were missing or too short, such as those of {first}: they were made anew from the log"
            );
        }
        Ok(())
    }
}
