//! Pulls that wait for messages (long polling, RocketMQ `PullRequestHoldService`).
//!
//! A pull is held by the shard of its connection. The queue knows which shards hold pulls for it; its writer wakes them.
//! Invariants: a held pull is listed under its queue exactly once; deadlines fire within a millisecond of the shard's clock;
//! pulls of one queue are woken in the order in which they came; what topics, groups and subscriptions were when a pull came
//! counts only until there is a new picture of them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use ringmq_protocol::frame::SerializeType;
use ringmq_shards::queue::Queue;

use super::serving::Serving;
use super::slab::{Slab, SlotId};
use crate::broker::filter::TagFilter;
use crate::broker::pull::{self, HeldRequest, PullCheck, PullRefusal};

/// Deadlines of pulls that were answered early stay in the heap; it is swept when they outnumber the held ones.
const STALE_FACTOR: usize = 4;
const STALE_SLACK: usize = 1024;

/// A pull request that can be executed (again).
pub struct PullJob {
    /// Connection of the shard.
    pub connection: SlotId,
    /// Bytes of the request, for the connection's accounting.
    pub request_bytes: usize,
    /// Request id.
    pub opaque: i32,
    /// Coding of the answer.
    pub serialize_type: SerializeType,
    /// The queue.
    pub queue: Arc<Queue>,
    /// First wanted offset.
    pub offset: i64,
    /// First offset that was not looked at yet; beyond `offset` when messages came that the filter rejects.
    pub scanned_to: i64,
    /// Most messages wanted.
    pub max_messages: usize,
    /// Which messages.
    pub filter: TagFilter,
    /// `topicSysFlag` of the answer.
    pub topic_sys_flag: i32,
    /// `groupSysFlag` of the answer.
    pub group_sys_flag: i32,
    /// When it is answered whatever has come.
    pub deadline_ms: u64,
    /// Clock of the turn that took the request; `None` once it has waited for messages.
    pub received_ns: Option<u64>,
    /// Number of the serving picture that it was checked against; see [`HeldPulls::check_again`].
    pub picture: u64,
}

struct HeldPull {
    job: PullJob,
    request: HeldRequest,
}

/// What a held pull may do after topics, groups or subscriptions have changed.
pub enum Standing {
    /// It may read.
    Goes,
    /// Its queue is another one now.
    Moved(Arc<Queue>),
    /// It may not.
    Refused(PullRefusal),
    /// Its group does not exist any more; a new request would create it.
    WithoutGroup,
}

impl HeldPull {
    fn check_again(&mut self, serving: &Serving, connection: u64) -> Standing {
        let Self { job, request } = self;
        let own_filter = job.filter.clone();
        let (topic, group, queue_id, filter) = match pull::check_again(serving, request, &own_filter, connection) {
            PullCheck::Go { topic, group, queue_id, filter, .. } => (topic, group, queue_id, filter),
            PullCheck::CreateGroup => return Standing::WithoutGroup,
            PullCheck::Refused(refusal) => return Standing::Refused(refusal),
        };
        let Some(queue) = topic.queues.get(queue_id as usize) else {
            return Standing::Refused(pull::queue_not_open());
        };
        job.topic_sys_flag = topic.sys_flag;
        job.group_sys_flag = group.config.group_sys_flag;
        if *filter != job.filter {
            job.filter = filter.into_owned();
            job.scanned_to = job.offset;
        }
        if Arc::ptr_eq(queue, &job.queue) { Standing::Goes } else { Standing::Moved(Arc::clone(queue)) }
    }
}

/// The table of held pulls of one shard.
pub struct HeldPulls {
    pulls: Slab<HeldPull>,
    by_queue: HashMap<usize, VecDeque<SlotId>>,
    deadlines: BinaryHeap<Reverse<(u64, u32, u32)>>,
    /// Emptied lists for reuse.
    spare: Vec<VecDeque<SlotId>>,
}

fn key(queue: &Arc<Queue>) -> usize {
    Arc::as_ptr(queue) as usize
}

impl HeldPulls {
    /// An empty table of at most `bound` pulls.
    pub fn new(bound: usize) -> Self {
        Self { pulls: Slab::new(bound), by_queue: HashMap::new(), deadlines: BinaryHeap::new(), spare: Vec::new() }
    }

    /// How many pulls are held.
    pub fn len(&self) -> usize {
        self.pulls.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.pulls.is_empty()
    }

    /// Whether the bound is reached.
    pub fn is_full(&self) -> bool {
        self.pulls.is_full()
    }

    /// Holds a pull. Gives it back when the bound is reached.
    pub fn hold(&mut self, job: PullJob, request: HeldRequest) -> Result<SlotId, PullJob> {
        if self.pulls.is_full() {
            return Err(job);
        }
        let (queue, deadline_ms) = (key(&job.queue), job.deadline_ms);
        let Some(id) = self.pulls.insert(HeldPull { job, request }) else {
            unreachable!("the bound was checked above")
        };
        let spare = &mut self.spare;
        self.by_queue.entry(queue).or_insert_with(|| spare.pop().unwrap_or_default()).push_back(id);
        self.deadlines.push(Reverse((deadline_ms, id.slot, id.generation)));
        if self.deadlines.len() > STALE_FACTOR * self.pulls.len() + STALE_SLACK {
            let pulls = &self.pulls;
            self.deadlines.retain(|Reverse((_, slot, generation))| {
                pulls.get(SlotId { slot: *slot, generation: *generation }).is_some()
            });
        }
        Ok(id)
    }

    /// Takes one pull out of the table.
    pub fn remove(&mut self, id: SlotId) -> Option<PullJob> {
        let HeldPull { job, .. } = self.pulls.remove(id)?;
        let queue = key(&job.queue);
        if let Some(list) = self.by_queue.get_mut(&queue) {
            if list.front() == Some(&id) {
                list.pop_front();
            } else {
                list.retain(|other| *other != id);
            }
            if list.is_empty()
                && let Some(list) = self.by_queue.remove(&queue)
            {
                self.spare.push(list);
            }
        }
        Some(job)
    }

    /// Moves the names of all pulls of a queue to `out`, in the order in which they came. They stay held.
    pub fn of_queue(&self, queue: &Arc<Queue>, out: &mut Vec<SlotId>) {
        if let Some(list) = self.by_queue.get(&key(queue)) {
            out.extend(list.iter().copied());
        }
    }

    /// Moves the names of all pulls of retired queues to `out`. They stay held.
    pub fn of_retired_queues(&self, out: &mut Vec<SlotId>) {
        for list in self.by_queue.values() {
            let first = list.front().and_then(|id| self.pulls.get(*id));
            if first.is_some_and(|held| held.job.queue.is_retired()) {
                out.extend(list.iter().copied());
            }
        }
    }

    /// A held pull.
    pub fn get_mut(&mut self, id: SlotId) -> Option<&mut PullJob> {
        self.pulls.get_mut(id).map(|held| &mut held.job)
    }

    /// Checks a held pull as if it came now, and notes what it may read. With another subscription it begins again where its
    /// request said. It stays held. `connection` is the number of the client's connection.
    pub fn check_again(&mut self, id: SlotId, serving: &Serving, connection: u64) -> Option<Standing> {
        self.pulls.get_mut(id).map(|held| held.check_again(serving, connection))
    }

    /// Earliest deadline of a pull that is still held.
    pub fn next_deadline_ms(&mut self) -> Option<u64> {
        while let Some(Reverse((deadline_ms, slot, generation))) = self.deadlines.peek().copied() {
            if self.pulls.get(SlotId { slot, generation }).is_some_and(|held| held.job.deadline_ms == deadline_ms) {
                return Some(deadline_ms);
            }
            self.deadlines.pop();
        }
        None
    }

    /// The next pull whose deadline has come; it stays held until removed.
    pub fn expired(&mut self, now_ms: u64) -> Option<SlotId> {
        if self.next_deadline_ms()? > now_ms {
            return None;
        }
        let Reverse((_, slot, generation)) = self.deadlines.pop()?;
        Some(SlotId { slot, generation })
    }

    /// All pulls of a connection.
    pub fn of_connection(&self, connection: SlotId, out: &mut Vec<SlotId>) {
        out.extend(self.pulls.iter().filter(|(_, held)| held.job.connection == connection).map(|(id, _)| id));
    }

    /// Names of all held pulls.
    pub fn all(&self, out: &mut Vec<SlotId>) {
        out.extend(self.pulls.iter().map(|(id, _)| id));
    }
}
