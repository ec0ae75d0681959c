//! The end of topics: the barrier below which their records count no more, and its way to the disk.
//!
//! Order, each step on disk before the next: all records of the topic count as deleted; the writer binds nothing to its queues any
//! more and gives the barrier, and the queues go; from the barrier on records count again. A deletion is confirmed when the first
//! of these, and the table of topics, is written: with the room of the reserve if there is no other. Until the last is
//! written no topic of its name is served: what it acknowledged would count as deleted after a crash.

use std::sync::mpsc::{RecvTimeoutError, channel};

use super::*;

/// Deleted topics whose names are not free yet.
pub(super) struct Unfenced {
    topics: Vec<String>,
    stage: Stage,
}

/// How far a deletion has come.
enum Stage {
    /// That all their records count as deleted is in memory only. Nothing has been done to their queues, so that a crash brings
    /// the topics back whole.
    Announced,
    /// The writer was asked to let go of their queues, and sends the barrier.
    Asked(Receiver<u64>),
    /// The barrier is in memory only.
    Given,
}

impl ControlThread {
    /// Ends the queues of topics, as far as that can be done at once; the rest is done by [`Self::go_on_with_deletions`].
    pub(super) fn retire_topics(&mut self, mut topics: Vec<String>) {
        // Nothing is bound to what is not served: the barrier to come holds for these as well.
        topics.retain(|topic| !unfenced(&self.unfenced, topic));
        if topics.is_empty() {
            return;
        }
        for topic in &topics {
            self.topics.remove(topic.as_str());
        }
        self.note_barriers(&topics, u64::MAX);
        self.go_on_with(Unfenced { topics, stage: Stage::Announced }, BARRIER_PATIENCE);
    }

    /// Goes on with deletions that could not be completed: the disk takes their barriers by now, or the writer has answered.
    pub(super) fn go_on_with_deletions(&mut self) {
        self.write_barriers();
        let before = self.unfenced.len();
        for deletion in std::mem::take(&mut self.unfenced) {
            let patience = match deletion.stage {
                Stage::Announced => BARRIER_PATIENCE,
                Stage::Asked(_) | Stage::Given => Duration::ZERO,
            };
            self.go_on_with(deletion, patience);
        }
        if self.unfenced.len() < before {
            self.publish_serving();
        }
    }

    /// Takes a deletion as far as it goes; `patience` is for the writer.
    fn go_on_with(&mut self, mut deletion: Unfenced, patience: Duration) {
        while let Some(broker) = &self.broker {
            deletion.stage = match deletion.stage {
                Stage::Announced | Stage::Given if self.barrier_error.is_some() => break,
                Stage::Given => return,
                Stage::Announced => {
                    let (done, barrier) = channel();
                    let queues = deletion.topics.iter().flat_map(|topic| broker.queues.topic_queues(topic)).collect();
                    if !self
                        .shards
                        .first()
                        .is_some_and(|writer| writer.send_blocking(ShardMessage::Retire(queues, done)))
                    {
                        return;
                    }
                    Stage::Asked(barrier)
                }
                Stage::Asked(barrier) => match barrier.recv_timeout(patience) {
                    Ok(offset) => {
                        for topic in &deletion.topics {
                            broker.queues.remove_topic(topic);
                        }
                        self.note_barriers(&deletion.topics, offset);
                        Stage::Given
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        if !patience.is_zero() {
                            tracing::warn!(
                                topic = deletion.topics[0],
                                others = deletion.topics.len() - 1,
                                "the log is stuck: topics of these names are served again when their deletion is complete"
                            );
                        }
                        deletion.stage = Stage::Asked(barrier);
                        break;
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                },
            };
        }
        self.unfenced.push(deletion);
    }

    fn note_barriers(&mut self, topics: &[String], barrier: u64) {
        let Some(broker) = &self.broker else { return };
        for topic in topics {
            storage::note_barrier(&broker.queue_offsets, topic, barrier);
        }
        let was_written = self.barrier_error.replace(String::new()).is_none();
        self.write_barriers();
        if was_written && let Some(error) = &self.barrier_error {
            tracing::warn!(
                error,
                topic = topics[0],
                others = topics.len() - 1,
                "the deletion of topics is not complete, and none of these names is served, until this can be written"
            );
        }
    }

    /// Writes the barriers that are in memory only. On a full disk nothing else writes their file.
    pub(super) fn write_barriers(&mut self) {
        let Some(broker) = self.broker.as_mut().filter(|_| self.barrier_error.is_some()) else { return };
        let disk = self.disk.as_ref();
        let written =
            broker.reserve.write(disk, || storage::write_queue_offsets(disk, &broker.paths, &broker.queue_offsets));
        self.barrier_error = written.err().map(|error| error.to_string());
    }

    /// Why a deletion must not be confirmed: what a crash would bring back.
    pub(super) fn unwritten_deletion(&self) -> Option<String> {
        let is_announced = self.unfenced.iter().any(|deletion| matches!(deletion.stage, Stage::Announced));
        if let Some(error) = self.barrier_error.as_ref().filter(|_| is_announced) {
            return Some(format!(
                "the topic is not served any more, but nothing of it is deleted before this can be written, and a crash would \
                 bring it back: {error}; delete it again when there is room"
            ));
        }
        let topics = self.broker.as_ref()?.state_directory.join(TOPICS_FILE);
        let error = &self.unwritten.get(&topics)?.error;
        Some(format!(
            "the topic is deleted, but a crash would bring it back without its messages: {error}; delete it again when there \
             is room"
        ))
    }

    /// Queues that recovery found and no topic claims.
    pub(super) fn retire_unknown_topics(&mut self) {
        let Some(broker) = &self.broker else { return };
        let is_unknown = |topic: &Arc<str>| !broker.control.topics.contains(topic) && !names::is_system_topic(topic);
        let unknown = broker.queues.topics().into_iter().filter(is_unknown).map(|topic| topic.to_string());
        let unknown: Vec<String> = unknown.filter(|topic| !unfenced(&self.unfenced, topic)).collect();
        if !unknown.is_empty() {
            tracing::info!(
                topic = unknown[0],
                others = unknown.len() - 1,
                "the queues of topics that do not exist are removed"
            );
            self.retire_topics(unknown);
        }
    }
}

/// Whether the topic's deletion is not complete.
pub(super) fn unfenced(deletions: &[Unfenced], topic: &str) -> bool {
    deletions.iter().any(|deletion| deletion.topics.iter().any(|unfenced| unfenced == topic))
}
