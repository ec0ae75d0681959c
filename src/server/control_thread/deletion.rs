//! The end of topics: the barrier below which their records count no more, and its way to the disk.
//!
//! Order: the writer binds nothing to the topic's queues any more and gives the barrier; that goes to the disk, before any file of
//! the queues is removed. If the writer does not answer soon, all records of the topic count as deleted instead, on disk, and
//! the barrier follows. A deletion is confirmed only when all this, and the table of topics, is written, by the persister: with the
//! room of the reserve if there is no other. Until its barrier is on disk no topic of its name is made: what that acknowledged would count as
//! deleted after a crash. Each write costs two syncs, which take seconds on a busy disk: there are no more than needed.

use std::sync::mpsc::{RecvTimeoutError, channel};

use super::*;
use crate::server::deletion::Deletion;
use crate::server::persister::Written;

/// Deleted topics whose barrier is not on disk yet.
pub(super) struct Unfenced {
    deletion: Deletion,
    stage: Stage,
}

/// How far a deletion has come.
enum Stage {
    /// The writer was asked for the barrier.
    Asked(Receiver<u64>),
    /// The barrier was given, the files of the queues are as they were, and this order writes it.
    Given(u64),
}

impl Unfenced {
    /// Their names.
    pub(super) fn topics(&self) -> impl Iterator<Item = &str> {
        self.deletion.topics().iter().map(String::as_str)
    }
}

impl ControlThread {
    /// Ends the queues of topics. From here to the answer of the writer, which binds nothing to them afterwards, all records of
    /// these topics count as deleted for whoever writes the barriers' file; then those below the barrier do, and topics of the
    /// same names may be made.
    pub(super) fn retire_topics(&mut self, mut topics: Vec<String>) {
        // Nothing is bound to what is not served: the barrier to come holds for these as well.
        topics.retain(|topic| !unfenced(&self.unfenced, topic));
        if topics.is_empty() {
            return;
        }
        for topic in &topics {
            self.topics.remove(topic.as_str());
        }
        let Some(broker) = &self.broker else { return };
        let (deletion, queues) = Deletion::begin(topics, &broker.queues, &broker.queue_offsets);
        let (done, barrier) = channel();
        if !self.shards.first().is_some_and(|writer| writer.send_blocking(ShardMessage::Retire(queues, done))) {
            return;
        }
        self.go_on_with(Unfenced { deletion, stage: Stage::Asked(barrier) }, BARRIER_PATIENCE);
    }

    /// Takes a deletion as far as it goes; `patience` is for the writer.
    fn go_on_with(&mut self, Unfenced { deletion, stage }: Unfenced, patience: Duration) {
        let stage = match stage {
            Stage::Asked(barrier) => match barrier.recv_timeout(patience) {
                Ok(offset) => {
                    if let Some(broker) = &self.broker {
                        deletion.fence(&broker.queue_offsets, offset);
                    }
                    Stage::Given(self.order_barriers())
                }
                Err(RecvTimeoutError::Timeout) => {
                    if !patience.is_zero() {
                        tracing::warn!(
                            topic = deletion.topics()[0],
                            others = deletion.topics().len() - 1,
                            "the log is stuck: topics of these names are served again when their deletion is complete"
                        );
                        self.order_barriers();
                    }
                    Stage::Asked(barrier)
                }
                Err(RecvTimeoutError::Disconnected) => return,
            },
            Stage::Given(ticket) if ticket <= self.barriers_written => {
                if let Some(broker) = &self.broker {
                    deletion.end(&broker.queues);
                }
                return;
            }
            given @ Stage::Given(_) => given,
        };
        self.unfenced.push(Unfenced { deletion, stage });
    }

    /// Has the barriers written that are known now.
    fn order_barriers(&mut self) -> u64 {
        let Some(broker) = &self.broker else { return 0 };
        self.files.order(&broker.paths.queue_offsets(), Content::Barriers)
    }

    /// Takes note of the barriers among what was written.
    pub(super) fn note_barriers(&mut self, batch: &[Written]) {
        for Written { order, outcome } in batch {
            if matches!(order.content, Content::Barriers) && outcome.is_ok() {
                self.barriers_written = order.ticket;
            }
        }
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

    /// Goes on with deletions whose barrier the writer has given in the meantime, or the disk has taken.
    pub(super) fn go_on_with_deletions(&mut self) {
        let before = self.unfenced.len();
        for deletion in std::mem::take(&mut self.unfenced) {
            self.go_on_with(deletion, Duration::ZERO);
        }
        if self.unfenced.len() < before {
            self.publish_serving();
        }
        if self.unfenced.iter().any(|unfenced| matches!(unfenced.stage, Stage::Given(_))) {
            self.wait_for_barrier();
        }
    }
}

/// Whether the topic's barrier is not on disk yet.
pub(super) fn unfenced(deletions: &[Unfenced], topic: &str) -> bool {
    deletions.iter().flat_map(Unfenced::topics).any(|unfenced| unfenced == topic)
}
