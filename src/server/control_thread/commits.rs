//! Offsets that pulls carry, on their way from the shards to the table.
//!
//! A shard keeps what its pulls carried until this thread asks for it: in each tick, before a request that looks at offsets or
//! changes them, and at the end. What is promised is RocketMQ's order, whose pulls commit before they are answered:
//!
//! - what a pull carried is in the table before any such request that was sent after the pull's answer, from whatever connection;
//! - so what such a request changed is not overwritten by a pull that was answered before the request was sent;
//! - of two pulls, the later one counts;
//! - a request and a pull that were under way at the same time may count in either order;
//! - what was carried for a topic or a group that is deleted counts no more, also when one of that name is made anew.
//!
//! A shard that does not answer in [`HAND_OVER_PATIENCE`], because its disk hangs, is not waited for until it does; what it carries
//! counts late.

use std::collections::HashMap;
use std::sync::mpsc::TryRecvError;

use super::*;

/// How long a shard may take to hand over what it carries. It answers in its next turn unless it waits for the disk.
const HAND_OVER_PATIENCE: Duration = Duration::from_millis(1_000);

/// What is known of the offsets that shards carry.
#[derive(Default)]
pub(super) struct Carried {
    /// Everything that was carried before this instant is in the table, nanoseconds of the monotonic clock.
    collected_ns: u64,
    /// Shards that have not answered in time, and where their answers will be.
    late: Vec<(usize, Receiver<Vec<CarriedCommit>>)>,
    /// When what is in the table was carried, as far as another shard may still carry something older.
    newest: HashMap<(Arc<str>, Arc<str>, u32), u64>,
}

impl ControlThread {
    /// Takes what all shards carry, unless everything carried before `asked_ns` was taken already: so requests that have
    /// gathered are served by one look at the shards.
    pub(super) fn collect_commits(&mut self, asked_ns: u64) {
        if asked_ns > self.carried.collected_ns {
            self.collect(false);
        }
    }

    /// Takes what all shards carry, for the last time. Each is asked, also one that seems to carry nothing: it may be taking an offset
    /// from a pull at this moment. What it takes before it knows of the stop it hands over, because it is asked after that.
    pub(super) fn collect_last_commits(&mut self) {
        self.collect(true);
    }

    fn collect(&mut self, asks_all: bool) {
        let begun_ns = monotonic_ns();
        let mut taken = self.take_late_commits();
        let mut asked = Vec::new();
        for (index, shard) in self.shards.iter().enumerate() {
            let carries =
                self.shared.shards.get(index).is_some_and(|figures| figures.carries_commits.load(Ordering::Acquire));
            if !(carries || asks_all) || self.carried.late.iter().any(|(late, _)| *late == index) {
                continue;
            }
            let (hand_over, commits) = channel();
            if shard.send_blocking(ShardMessage::HandOver(hand_over)) {
                asked.push((index, commits));
            } else if carries {
                tracing::warn!(shard = index, "a shard is gone with consumer offsets that its pulls carried");
            }
        }
        for (index, commits) in asked {
            match commits.recv_timeout(HAND_OVER_PATIENCE) {
                Ok(commits) => taken.extend(commits),
                Err(RecvTimeoutError::Timeout) => {
                    tracing::warn!(
                        shard = index,
                        "a shard is stuck: consumer offsets that its pulls carried count late"
                    );
                    self.carried.late.push((index, commits));
                }
                Err(RecvTimeoutError::Disconnected) => {}
            }
        }
        self.commit(taken);
        self.carried.collected_ns = begun_ns;
        self.carried.newest.retain(|_, at_ns| *at_ns >= begun_ns);
    }

    fn take_late_commits(&mut self) -> Vec<CarriedCommit> {
        let mut taken = Vec::new();
        self.carried.late.retain(|(_, commits)| match commits.try_recv() {
            Ok(commits) => {
                taken.extend(commits);
                false
            }
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Disconnected) => false,
        });
        taken
    }

    /// Puts what was carried into the table, in the order in which the pulls came.
    fn commit(&mut self, mut commits: Vec<CarriedCommit>) {
        let wall_ms = self.clock.now_ms();
        let Some(broker) = &mut self.broker else { return };
        commits.sort_by_key(|carried| carried.at_ns);
        for carried in commits {
            let CarriedCommit { group, queue, commit, pulled, at_ns } = carried;
            let exists = broker.control.topics.contains(queue.topic()) && broker.control.groups.contains(&group);
            if queue.is_retired() || !exists {
                continue;
            }
            let queue_id = queue.queue_id().0;
            let newest =
                self.carried.newest.entry((Arc::clone(&group), Arc::clone(queue.topic()), queue_id)).or_default();
            if at_ns < *newest {
                continue;
            }
            *newest = at_ns;
            let commit = OffsetCommit {
                group: group.to_string(),
                topic: queue.topic().to_string(),
                queue_id: queue_id as i32,
                commit,
                pulled: Some(pulled),
            };
            broker.control.commit_offsets([commit], wall_ms);
        }
    }
}
