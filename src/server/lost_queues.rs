//! Queues whose files are missing, or shorter than they were, at a start after a stop in order.
//!
//! Such a start reads the end of the log alone and believes the queue files about the rest, so messages of these queues would be
//! in the log and shown to nobody. `ringmq/queue-offsets` says how far each queue had come; what contradicts it is named. A start
//! does not make them anew: records of topics that another broker deleted lie in the log as well, and only a look at the whole
//! store, as the doctor has it, tells them apart.

use ringmq_protocol::json::{Value, parse};
use ringmq_shards::disk::{Disk, StateFile};
use ringmq_shards::queue::QueueStore;
use ringmq_shards::recovery::StorePaths;
use ringmq_shards::recovery::queue_offsets::QueueOffsets;
use ringmq_shards::types::PhysicalOffset;

use crate::broker::state::TOPICS_FILE;

/// Queues that had come further than their files reach, as `topic/queue`. To be asked before the log gives anything again.
pub fn lacking(queues: &QueueStore, noted: &QueueOffsets) -> Vec<String> {
    let mut lacking = Vec::new();
    for (topic, offsets) in &noted.next {
        for (queue_id, next) in offsets {
            let reached = queues.get(topic, *queue_id).map_or(0, |queue| queue.published().0);
            if reached < next.0 {
                lacking.push(format!("{topic}/{}", queue_id.0));
            }
        }
    }
    lacking
}

/// Warns of those whose topic is still known, if nobody else has worked on the log since they were noted.
pub fn warn(lacking: &[String], disk: &dyn Disk, paths: &StorePaths, noted: &QueueOffsets, end: PhysicalOffset) {
    if lacking.is_empty() || noted.log_offset != end {
        return;
    }
    let file = StateFile::new(paths.config().join(TOPICS_FILE));
    // A table that cannot be read ends the start later, and with its own words.
    let loaded = file.load(disk, |bytes| parse(bytes).map_err(|error| error.to_string())).ok().flatten();
    let table = loaded.as_ref().and_then(|loaded| loaded.value.get("topicConfigTable").and_then(Value::as_object));
    let is_known = |name: &&String| {
        let topic = name.rsplit_once('/').map_or(name.as_str(), |(topic, _)| topic);
        table.is_some_and(|table| table.contains_key(topic))
    };
    let known: Vec<&str> = lacking.iter().filter(is_known).map(String::as_str).collect();
    if let Some(first) = known.first() {
        tracing::warn!(
            "files of {} queues are missing or too short, such as those of {first}: messages that the log still has are not \
             shown; to make the queues anew, stop and run ringmq store repair --write",
            known.len()
        );
    }
}
