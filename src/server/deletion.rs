//! The steps in which topics end, without threads: what each does to queues and barriers, and what must be on disk before the next.
//!
//! 1. [`Deletion::begin`]: the names are taken, and all records of these topics count as deleted for whoever writes the sidecar.
//! 2. The log's writer retires the queues, and its end is the barrier.
//! 3. [`Deletion::fence`]: only records below the barrier count as deleted. The sidecar is written.
//! 4. [`Deletion::end`], once it is: the files of the queues may go, and topics of these names be made.
//!
//! Whoever cannot wait for 2 may write the sidecar before: then the deletion survives a crash, and the names stay taken.

use std::sync::Arc;

use ringmq_shards::queue::{Queue, QueueStore};

use super::storage::{Sidecar, note_barrier};

/// Topics that are about to end together.
pub struct Deletion {
    topics: Vec<String>,
}

impl Deletion {
    /// Begins with topics of which none is being deleted. Returns the queues that the writer has to retire.
    pub fn begin(topics: Vec<String>, queues: &QueueStore, offsets: &Sidecar) -> (Self, Vec<Arc<Queue>>) {
        let deletion = Self { topics };
        deletion.fence(offsets, u64::MAX);
        queues.begin_deletion();
        let retiring = deletion.topics.iter().flat_map(|topic| queues.topic_queues(topic)).collect();
        (deletion, retiring)
    }

    /// The writer binds nothing to the queues any more, and its end is `barrier`. In memory only.
    pub fn fence(&self, offsets: &Sidecar, barrier: u64) {
        for topic in &self.topics {
            note_barrier(offsets, topic, barrier);
        }
    }

    /// The barrier is on disk. From here on the flush thread removes the files: without the barrier a crash would leave the
    /// topics without their messages, though their end was not confirmed.
    pub fn end(self, queues: &QueueStore) {
        for topic in &self.topics {
            queues.remove_topic(topic);
        }
        queues.end_deletion();
    }

    /// Names of the topics; there is at least one.
    pub fn topics(&self) -> &[String] {
        &self.topics
    }
}
