//! Pulls that wait for messages (long polling, RocketMQ `PullRequestHoldService`).
//!
//! A pull is held by the shard of its connection. The queue knows which shards hold pulls for it; its writer wakes them.
//! Invariants: a held pull stands in exactly one line, that of its queue, or that of stalled pulls of its connection, which are
//! due but whose peer does not take answers; deadlines fire within a millisecond of the shard's clock; pulls of one queue are
//! looked at in the order in which they came; what topics, groups and subscriptions were when a pull came counts only until
//! there is a new picture of them. Taking a pull out costs the same however many there are.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use ringmq_protocol::frame::SerializeType;
use ringmq_shards::queue::Queue;
use ringmq_shards::types::QueueOffset;

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
    /// When it is answered whatever has come; see [`HeldPulls::hasten`].
    pub deadline_ms: u64,
    /// Clock of the turn that took the request; `None` once it has waited for messages.
    pub received_ns: Option<u64>,
    /// Number of the serving picture that it was checked against; see [`HeldPulls::check_again`].
    pub picture: u64,
}

/// A place in a line of pulls.
#[derive(Debug, Clone, Copy, Default)]
struct Links {
    before: Option<u32>,
    after: Option<u32>,
}

/// The ends of a line.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    first: Option<u32>,
    last: Option<u32>,
}

/// The two kinds of lines that a pull stands in.
#[derive(Debug, Clone, Copy)]
enum Chain {
    /// That of its queue, or of its connection's stalled pulls.
    Turn = 0,
    /// All pulls of its connection.
    Connection = 1,
}

struct HeldPull {
    job: PullJob,
    request: HeldRequest,
    links: [Links; 2],
    is_stalled: bool,
}

/// What a held pull counts in the budget of memory: its entry, its deadlines, and what the table's reserves add.
pub const HELD_PULL_BYTES: usize = size_of::<HeldPull>() + 2 * size_of::<Reverse<(u64, u32, u32)>>() + 64;

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
        let Self { job, request, .. } = self;
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

/// The pulls of one queue, and how far the shard has come in looking at them.
struct QueueLine {
    queue: Arc<Queue>,
    line: Line,
    /// Listed among the woken ones.
    is_woken: bool,
    /// They are answered, whatever has come.
    releases: bool,
    pass: Option<Pass>,
}

/// One look at all pulls of a queue, which may take several turns.
#[derive(Clone, Copy)]
struct Pass {
    /// Who comes next.
    next: Option<u32>,
    /// The queue's end when it began.
    max: QueueOffset,
}

/// What is to be done about woken queues next.
pub enum WakeStep {
    /// Look whether this pull finds something below `max`, or answer it whatever it finds.
    Look {
        /// The pull.
        id: SlotId,
        /// End of its queue when the pass began.
        max: QueueOffset,
        /// Answer it.
        releases: bool,
    },
    /// All were looked at, and some go on waiting.
    Ended {
        /// Their queue.
        queue: Arc<Queue>,
        /// Its end when the pass began.
        max: QueueOffset,
    },
}

/// The pulls of one connection.
#[derive(Default)]
struct ConnectionLine {
    all: Line,
    stalled: Line,
    count: usize,
    request_bytes: usize,
}

/// The table of held pulls of one shard.
pub struct HeldPulls {
    pulls: Slab<HeldPull>,
    by_queue: HashMap<usize, QueueLine>,
    /// Queues whose pulls are to be looked at.
    woken: VecDeque<Arc<Queue>>,
    /// By the connection's slot.
    by_connection: Vec<ConnectionLine>,
    deadlines: BinaryHeap<Reverse<(u64, u32, u32)>>,
}

fn key(queue: &Arc<Queue>) -> usize {
    Arc::as_ptr(queue) as usize
}

fn links(pulls: &mut Slab<HeldPull>, slot: u32, chain: Chain) -> Option<&mut Links> {
    let id = pulls.id_of(slot)?;
    pulls.get_mut(id).map(|held| &mut held.links[chain as usize])
}

fn append(pulls: &mut Slab<HeldPull>, line: &mut Line, slot: u32, chain: Chain) {
    if let Some(own) = links(pulls, slot, chain) {
        *own = Links { before: line.last, after: None };
    }
    match line.last.and_then(|last| links(pulls, last, chain)) {
        Some(last) => last.after = Some(slot),
        None => line.first = Some(slot),
    }
    line.last = Some(slot);
}

/// Takes a pull out of a line and gives the one behind it.
fn unlink(pulls: &mut Slab<HeldPull>, line: &mut Line, slot: u32, chain: Chain) -> Option<u32> {
    let Links { before, after } = links(pulls, slot, chain).copied()?;
    match before.and_then(|before| links(pulls, before, chain)) {
        Some(before) => before.after = after,
        None => line.first = after,
    }
    match after.and_then(|after| links(pulls, after, chain)) {
        Some(after) => after.before = before,
        None => line.last = before,
    }
    after
}

impl HeldPulls {
    /// An empty table of at most `bound` pulls.
    pub fn new(bound: usize) -> Self {
        Self {
            pulls: Slab::new(bound),
            by_queue: HashMap::new(),
            woken: VecDeque::new(),
            by_connection: Vec::new(),
            deadlines: BinaryHeap::new(),
        }
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
        let (queue, deadline_ms, connection) = (Arc::clone(&job.queue), job.deadline_ms, job.connection.slot as usize);
        let request_bytes = job.request_bytes;
        let held = HeldPull { job, request, links: [Links::default(); 2], is_stalled: false };
        let Some(id) = self.pulls.insert(held) else { unreachable!("the bound was checked above") };
        let line = self.by_queue.entry(key(&queue)).or_insert_with(|| QueueLine {
            queue,
            line: Line::default(),
            is_woken: false,
            releases: false,
            pass: None,
        });
        append(&mut self.pulls, &mut line.line, id.slot, Chain::Turn);
        if self.by_connection.len() <= connection {
            self.by_connection.resize_with(connection + 1, ConnectionLine::default);
        }
        let owner = &mut self.by_connection[connection];
        owner.count += 1;
        owner.request_bytes += request_bytes;
        append(&mut self.pulls, &mut owner.all, id.slot, Chain::Connection);
        self.push_deadline(id, deadline_ms);
        Ok(id)
    }

    fn push_deadline(&mut self, id: SlotId, deadline_ms: u64) {
        self.deadlines.push(Reverse((deadline_ms, id.slot, id.generation)));
        if self.deadlines.len() > STALE_FACTOR * self.pulls.len() + STALE_SLACK {
            let pulls = &self.pulls;
            self.deadlines.retain(|Reverse((deadline_ms, slot, generation))| {
                let held = pulls.get(SlotId { slot: *slot, generation: *generation });
                held.is_some_and(|held| held.job.deadline_ms == *deadline_ms)
            });
        }
    }

    /// A held pull is answered at this time at the latest, whatever has come.
    pub fn hasten(&mut self, id: SlotId, deadline_ms: u64) {
        let Some(held) = self.pulls.get_mut(id) else { return };
        if deadline_ms < held.job.deadline_ms {
            held.job.deadline_ms = deadline_ms;
            self.push_deadline(id, deadline_ms);
        }
    }

    /// Takes one pull out of the table.
    pub fn remove(&mut self, id: SlotId) -> Option<PullJob> {
        self.leave_line(id)?;
        let connection = self.pulls.get(id)?.job.connection.slot as usize;
        if let Some(owner) = self.by_connection.get_mut(connection) {
            unlink(&mut self.pulls, &mut owner.all, id.slot, Chain::Connection);
            owner.count -= 1;
            owner.request_bytes -= self.pulls.get(id)?.job.request_bytes;
        }
        self.pulls.remove(id).map(|held| held.job)
    }

    /// Takes a pull out of the line of its queue, or of that of stalled ones.
    fn leave_line(&mut self, id: SlotId) -> Option<()> {
        let HeldPull { job, is_stalled, .. } = self.pulls.get(id)?;
        let (queue, connection, is_stalled) = (key(&job.queue), job.connection.slot as usize, *is_stalled);
        if is_stalled {
            let owner = self.by_connection.get_mut(connection)?;
            unlink(&mut self.pulls, &mut owner.stalled, id.slot, Chain::Turn);
            return Some(());
        }
        let line = self.by_queue.get_mut(&queue)?;
        let after = unlink(&mut self.pulls, &mut line.line, id.slot, Chain::Turn);
        if let Some(pass) = &mut line.pass
            && pass.next == Some(id.slot)
        {
            pass.next = after;
        }
        if line.line.first.is_none() {
            self.by_queue.remove(&queue);
        }
        Some(())
    }

    /// A pull is due, but its connection does not take answers: it waits for that, and no longer for its queue.
    pub fn stall(&mut self, id: SlotId) {
        if self.is_stalled(id) || self.leave_line(id).is_none() {
            return;
        }
        let Some(held) = self.pulls.get_mut(id) else { return };
        held.is_stalled = true;
        let connection = held.job.connection.slot as usize;
        if let Some(owner) = self.by_connection.get_mut(connection) {
            append(&mut self.pulls, &mut owner.stalled, id.slot, Chain::Turn);
        }
    }

    /// Whether a pull waits for its connection.
    pub fn is_stalled(&self, id: SlotId) -> bool {
        self.pulls.get(id).is_some_and(|held| held.is_stalled)
    }

    /// The pull of a connection that has been stalled longest.
    pub fn first_stalled(&self, connection: SlotId) -> Option<SlotId> {
        let owner = self.by_connection.get(connection.slot as usize)?;
        owner.stalled.first.and_then(|slot| self.pulls.id_of(slot))
    }

    /// Any pull of a connection.
    pub fn first_of(&self, connection: SlotId) -> Option<SlotId> {
        let owner = self.by_connection.get(connection.slot as usize)?;
        owner.all.first.and_then(|slot| self.pulls.id_of(slot))
    }

    /// How many pulls a connection has, and how many bytes their requests had.
    pub fn of_connection(&self, connection: SlotId) -> (usize, usize) {
        let owner = self.by_connection.get(connection.slot as usize);
        owner.map_or((0, 0), |owner| (owner.count, owner.request_bytes))
    }

    /// The pulls of a queue are to be looked at.
    pub fn wake(&mut self, queue: &Arc<Queue>) {
        if let Some(line) = self.by_queue.get_mut(&key(queue))
            && !line.is_woken
        {
            line.is_woken = true;
            self.woken.push_back(Arc::clone(queue));
        }
    }

    /// The pulls of all queues that `is_over` names are to be answered, whatever has come.
    pub fn release(&mut self, is_over: impl Fn(&Queue) -> bool) {
        for line in self.by_queue.values_mut().filter(|line| is_over(&line.queue)) {
            line.releases = true;
            line.pass = None;
            if !line.is_woken {
                line.is_woken = true;
                self.woken.push_back(Arc::clone(&line.queue));
            }
        }
    }

    /// Whether queues were woken whose pulls were not all looked at.
    pub fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    /// What is to be done next about woken queues.
    pub fn next_step(&mut self) -> Option<WakeStep> {
        while let Some(queue) = self.woken.front() {
            // The line may have gone, and may have begun anew without being woken.
            let Some(line) = self.by_queue.get_mut(&key(queue)).filter(|line| line.is_woken) else {
                self.woken.pop_front();
                continue;
            };
            let begun = Pass { next: line.line.first, max: line.queue.bounds().1 };
            let pass = line.pass.get_or_insert(begun);
            let max = pass.max;
            if let Some(id) = pass.next.and_then(|slot| self.pulls.id_of(slot)) {
                pass.next = self.pulls.get(id).and_then(|held| held.links[Chain::Turn as usize].after);
                return Some(WakeStep::Look { id, max, releases: line.releases });
            }
            line.pass = None;
            line.is_woken = false;
            return self.woken.pop_front().map(|queue| WakeStep::Ended { queue, max });
        }
        None
    }

    /// The look at a pull was broken off: it comes next again.
    pub fn look_again(&mut self, id: SlotId) {
        let Some(queue) = self.pulls.get(id).map(|held| key(&held.job.queue)) else { return };
        if let Some(pass) = self.by_queue.get_mut(&queue).and_then(|line| line.pass.as_mut()) {
            pass.next = Some(id.slot);
        }
    }

    /// A held pull.
    pub fn get(&self, id: SlotId) -> Option<&PullJob> {
        self.pulls.get(id).map(|held| &held.job)
    }

    /// A held pull, for changing. Its queue and its connection stay.
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
}
