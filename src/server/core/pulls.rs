//! Pulls of a shard: answered from the ring, held, or handed to the reader threads.

use super::*;
use crate::broker::filter::TagFilter;
use crate::broker::pull::{HeldRequest, PullRefusal};
use crate::server::hold::{Standing, WakeStep};

/// Entries of a queue that nothing with this filter was found among.
struct FruitlessLook {
    queue: Arc<Queue>,
    filter: TagFilter,
    begin: i64,
    end: i64,
}

impl ShardCore {
    pub(super) fn pull(
        &mut self,
        id: SlotId,
        serving: Option<&Serving>,
        header: &Header<'_>,
        whole: &[u8],
    ) -> Progress {
        let Some(serving) = serving else {
            self.refuse(id, header, &Refusal::new(response::SYSTEM_ERROR, "the broker is starting"));
            return Progress::Done;
        };
        if self.stopping {
            // Consumers whose held pulls were answered ask again at once: served, they would keep the shard from leaving.
            self.refuse(id, header, &Refusal::new(response::SYSTEM_BUSY, "the broker is stopping"));
            return Progress::Done;
        }
        let waits = self.waits_for_memory(id);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.waits_for_memory = waits;
        }
        if waits {
            return Progress::Blocked;
        }
        let request = match PullHeader::decode(header) {
            Ok(request) => request,
            Err(error) => return self.field_error(id, header, error),
        };
        let connection = connection_number(self.settings.index, id);
        let checked = pull::check(serving, header.code, &request, connection);
        let (topic, group, group_name, queue_id, filter) = match checked {
            PullCheck::Go { topic, group, group_name, queue_id, filter } => {
                (topic, group, group_name, queue_id, filter)
            }
            PullCheck::CreateGroup => return self.ask_for_picture(id, header, whole),
            // What a client was told is done may not have come here yet.
            PullCheck::Refused(refusal) if refusal.may_be_outdated() && !self.executes_again && !header.is_oneway() => {
                return self.ask_for_picture(id, header, whole);
            }
            PullCheck::Refused(refusal) => {
                if !header.is_oneway() {
                    self.refuse_pull(id, header.serialize_type, header.opaque, &refusal);
                }
                return Progress::Done;
            }
        };
        let Some(queue) = topic.queues.get(queue_id as usize) else {
            self.refuse_pull(id, header.serialize_type, header.opaque, &pull::queue_not_open());
            return Progress::Done;
        };
        self.counters.pull_requests += 1;
        if self.commits.is_empty() {
            self.shared.shards[self.settings.index].carries_commits.store(true, Ordering::Release);
        }
        let key = (Arc::as_ptr(group_name).cast::<u8>() as usize, Arc::as_ptr(queue) as usize);
        let carried = self.commits.entry(key).or_insert_with(|| CarriedCommit {
            group: Arc::clone(group_name),
            queue: Arc::clone(queue),
            commit: None,
            pulled: 0,
            at_ns: 0,
        });
        carried.at_ns = self.now_ns;
        // Where the answer ends, if it comes at once; else the next pull of the consumer says so.
        carried.pulled = request.queue_offset;
        if request.sys_flag & ringmq_protocol::flags::pull::COMMIT_OFFSET != 0 {
            carried.commit = Some(request.commit_offset);
        }
        if header.is_oneway() {
            // Nobody waits for messages, but what it carried counts.
            return Progress::Done;
        }
        let may_hold = request.sys_flag & ringmq_protocol::flags::pull::SUSPEND != 0;
        let hold_ms = if serving.long_polling {
            u64::try_from(request.suspend_timeout_ms).unwrap_or(0)
        } else {
            serving.short_polling_ms
        };
        let job = PullJob {
            connection: id,
            request_bytes: whole.len(),
            opaque: header.opaque,
            serialize_type: header.serialize_type,
            queue: Arc::clone(queue),
            offset: request.queue_offset,
            scanned_to: request.queue_offset,
            max_messages: usize::try_from(request.max_msg_nums).unwrap_or(0),
            filter: filter.into_owned(),
            topic_sys_flag: topic.sys_flag,
            group_sys_flag: group.config.group_sys_flag,
            deadline_ms: self.steady_ms().saturating_add(hold_ms),
            received_ns: Some(self.now_ns),
            picture: self.picture,
        };
        self.charge(id, whole.len());
        let carries_filter = request.sys_flag & ringmq_protocol::flags::pull::SUBSCRIPTION != 0;
        let held_request = || HeldRequest {
            code: header.code,
            group: Arc::clone(group_name),
            topic: Arc::clone(&topic.name),
            queue_id: request.queue_id,
            sub_version: (!carries_filter).then_some(request.sub_version),
        };
        if let Some(next) = self.execute_pull(job, may_hold.then_some(&held_request))
            && let Some(carried) = self.commits.get_mut(&key)
        {
            carried.pulled = next;
        }
        Progress::Done
    }

    /// Hands a pull to the control thread, which makes its group if that is missing. It comes back behind the newest picture.
    fn ask_for_picture(&mut self, id: SlotId, header: &Header<'_>, whole: &[u8]) -> Progress {
        let connection = connection_number(self.settings.index, id);
        let answers = whole.len() + self.transfer.memory_bytes;
        let message = ControlRequest::CreateGroup { connection, frame: whole.to_vec(), answers };
        // Its answer counts from now on, so that a peer cannot pile up such pulls.
        self.ask_control(id, header, answers, message)
    }

    pub(super) fn read_limits(&self, max_messages: usize) -> ReadLimits {
        let end = self.view.as_ref().map_or(0, |view| view.confirmed());
        let memory_from = end.saturating_sub(self.settings.memory_window_bytes);
        ReadLimits { max_messages, memory_from, transfer: self.transfer }
    }

    /// Answers a pull, holds it, or hands it to a reader thread. Gives where the next pull begins, if that is known. `hold`
    /// makes what is kept of the request; without it the pull is answered.
    pub(super) fn execute_pull(&mut self, job: PullJob, hold: Option<&dyn Fn() -> HeldRequest>) -> Option<i64> {
        let was_held = job.received_ns.is_none();
        if was_held && self.waits_for_memory(job.connection) {
            // It cannot wait with the connection's input any more: told to come again at once, it does so there.
            let next = job.offset;
            self.answer_without_match(&job, next);
            return None;
        }
        let mut ranges = std::mem::take(&mut self.ranges);
        let read_limits = self.read_limits(job.max_messages);
        let mut reading = pull::read_tail(&job.queue, job.offset, read_limits, &job.filter, &mut ranges);
        let mut scanned = 0;
        let is_long = |reading: &Option<Reading>| reading.is_some_and(|read| read.bytes > limits::SHORT_PULL_BYTES);
        if is_long(&reading) && !self.has_room_for(reading.map_or(0, |reading| reading.bytes)) {
            let transfer = read_limits.transfer.shortened(limits::SHORT_PULL_BYTES);
            let short = ReadLimits { transfer, ..read_limits };
            scanned += reading.map_or(0, |reading| reading.scanned);
            reading = pull::read_tail(&job.queue, job.offset, short, &job.filter, &mut ranges);
            if is_long(&reading) {
                self.turn_entries += scanned;
                self.ranges = ranges;
                // A single message that is longer than what may be given now.
                self.refuse_busy(&job, pull::MEMORY_IS_SHORT);
                return None;
            }
        }
        scanned += reading.map_or(0, |reading| reading.scanned);
        self.turn_entries += scanned;
        self.counters.pull_entries += scanned as u64;
        match reading {
            Some(reading) if reading.status == Status::Found => {
                let first = ranges.first().map_or(0, |range| range.physical);
                let in_ring = self.view.as_ref().is_some_and(|view| view.pin(self.settings.index, first));
                if in_ring {
                    self.answer_pull(&job, &reading, Some(&ranges));
                } else {
                    self.cold_pull(&job);
                }
            }
            Some(reading) => match hold {
                Some(hold) if reading.status.code(job.offset) == response::PULL_NOT_FOUND => {
                    self.hold_pull(job, &reading, hold);
                }
                _ => self.answer_pull(&job, &reading, None),
            },
            None => self.cold_pull(&job),
        }
        self.ranges = ranges;
        reading.map(|reading| reading.next)
    }

    pub(super) fn hold_pull(&mut self, mut job: PullJob, reading: &Reading, hold: &dyn Fn() -> HeldRequest) {
        let held = self.held.len() as u64 + self.shared.held_elsewhere(self.settings.index);
        if held >= self.shared.live.max_held_pulls.load(Ordering::Relaxed) {
            self.answer_pull(&job, reading, None);
            return;
        }
        let queue = Arc::clone(&job.queue);
        let received_ns = job.received_ns.take();
        match self.held.hold(job, hold()) {
            Err(mut job) => {
                job.received_ns = received_ns;
                self.answer_pull(&job, reading, None);
            }
            Ok(id) => {
                self.counters.pulls_parked += 1;
                // A message that was published between the read and the announcement wakes nobody: serve it here.
                let seen = QueueOffset(reading.max as u64);
                if queue.arm_waiters(self.settings.index, seen).is_some()
                    && let Some(job) = self.held.remove(id)
                {
                    self.execute_pull(job, Some(hold));
                }
            }
        }
    }

    fn refuse_pull(&mut self, id: SlotId, serialize_type: SerializeType, opaque: i32, refusal: &PullRefusal) {
        let forbidden = refusal.forbidden_type.map(|number| number.to_string());
        let ext: &[(&str, &str)] = match &forbidden {
            Some(number) => &[("forbiddenType", number.as_str())],
            None => &[],
        };
        self.write_refusal(id, serialize_type, opaque, refusal.code, &refusal.remark, ext);
    }

    /// Ends a pull that cannot be served now.
    fn refuse_busy(&mut self, job: &PullJob, remark: &str) {
        self.discharge(job.connection, job.request_bytes);
        self.write_refusal(job.connection, job.serialize_type, job.opaque, response::SYSTEM_BUSY, remark, &[]);
    }

    pub(super) fn answer_pull(&mut self, job: &PullJob, reading: &Reading, ranges: Option<&[Range]>) {
        self.discharge(job.connection, job.request_bytes);
        let Some(connection) = self.connections.get_mut(job.connection) else { return };
        let result = PullResult {
            suggest_which_broker_id: 0,
            next_begin_offset: reading.next,
            min_offset: reading.min,
            max_offset: reading.max,
            topic_sys_flag: job.topic_sys_flag,
            group_sys_flag: job.group_sys_flag,
            forbidden_type: None,
        };
        let code = reading.status.code(job.offset);
        let out = connection.outbox.buffer();
        let remark = Some(reading.status.name());
        let body_length = if ranges.is_some() { reading.bytes } else { 0 };
        write_pull_response_head(out, job.serialize_type, job.opaque, code, remark, &result, body_length);
        for range in ranges.unwrap_or_default() {
            connection.outbox.push_ring(range.physical, range.length);
        }
        self.turn_pulls += u64::from(job.received_ns.is_some());
        if ranges.is_some() {
            self.counters.pulls_found += 1;
            self.counters.pull_messages += reading.messages as u64;
            self.counters.bytes_out += reading.bytes as u64;
        }
        self.mark_dirty(job.connection);
        // What the socket does not take is copied at the end of the turn: it counts before the next answer is made.
        self.account(job.connection);
        self.publish_buffers();
    }

    /// The answer's size counts against the connection from now on, so that one connection cannot have any number of cold
    /// reads under way.
    pub(super) fn cold_pull(&mut self, job: &PullJob) {
        let answers = job.request_bytes + self.transfer.memory_bytes;
        let cold = ColdPull {
            connection: connection_number(self.settings.index, job.connection),
            answers,
            transfer: self.transfer,
            received_ns: job.received_ns,
            opaque: job.opaque,
            serialize_type: job.serialize_type,
            queue: Arc::clone(&job.queue),
            offset: u64::try_from(job.offset).unwrap_or(0),
            max_messages: job.max_messages,
            filter: job.filter.clone(),
            topic_sys_flag: job.topic_sys_flag,
            group_sys_flag: job.group_sys_flag,
        };
        if self.cold.try_send(cold).is_ok() {
            self.counters.pulls_cold += 1;
            self.reads_awaited += 1;
            self.charge(job.connection, self.transfer.memory_bytes);
            if let Some(connection) = self.connections.get_mut(job.connection) {
                connection.cold_pulls += 1;
            }
        } else {
            self.refuse_busy(job, "too many reads from disk are waiting (cold reads); try again");
        }
    }

    /// Whether reader threads work for this shard.
    pub fn awaits_readers(&self) -> bool {
        self.reads_awaited > 0
    }

    /// A queue with pulls of this shard has new messages.
    pub fn wake(&mut self, queue: &Arc<Queue>) {
        self.counters.pull_wakes += 1;
        self.held.wake(queue);
        self.within_budget(|shard| shard.look_at_woken());
    }

    /// Goes on with held pulls: those whose time is up, those whose connections take answers again, and those of woken queues.
    /// What is more than a turn's work is left for the next one; see [`ShardCore::has_held_work`].
    pub fn go_on_with_pulls(&mut self) {
        self.within_budget(|shard| {
            // Wakes of this turn have had their share already, and must not take that of the others.
            let begun = shard.turn_entries;
            shard.expire_pulls(begun + limits::HELD_ENTRIES_PER_TURN / 4);
            shard.resume_pulls(begun + limits::HELD_ENTRIES_PER_TURN / 2);
            shard.look_at_woken();
        });
    }

    /// Whether held pulls are due that the turn has left for the next one.
    pub fn has_held_work(&self) -> bool {
        self.held.has_woken() || !self.resumable.is_empty()
    }

    /// Counts queue entries for held pulls, and not for requests: neither takes the other's share of a turn.
    fn within_budget(&mut self, work: impl FnOnce(&mut Self)) {
        std::mem::swap(&mut self.turn_entries, &mut self.held_entries);
        work(self);
        std::mem::swap(&mut self.turn_entries, &mut self.held_entries);
    }

    fn look_at_woken(&mut self) {
        let mut last = None;
        while self.turn_entries < limits::HELD_ENTRIES_PER_TURN {
            let Some(step) = self.held.next_step() else { return };
            self.turn_entries += limits::ENTRIES_PER_PULL;
            match step {
                WakeStep::Look { id, releases: true, .. } => self.release_pull(id),
                WakeStep::Look { id, max, .. } => self.look(id, max.0 as i64, &mut last),
                WakeStep::Ended { queue, max } => {
                    // A message that was published meanwhile wakes nobody.
                    if queue.arm_waiters(self.settings.index, max).is_some() {
                        self.held.wake(&queue);
                    }
                }
            }
        }
    }

    /// Looks whether a held pull finds a message, and then answers it. `last` is the last look that found nothing: others with the
    /// same filter need not look at the same entries.
    fn look(&mut self, id: SlotId, max: i64, last: &mut Option<FruitlessLook>) {
        let Some(connection) = self.held.get(id).map(|job| job.connection) else { return };
        let takes_answers = self.takes_answers(connection);
        // Of a stalled connection nothing is said before it takes answers again.
        if takes_answers && !self.may_still_read(id) {
            return;
        }
        let limits = self.read_limits(1);
        let Some(job) = self.held.get_mut(id) else { return };
        let begin = job.scanned_to;
        if let Some(last) = last
            && Arc::ptr_eq(&last.queue, &job.queue)
            && (last.begin..last.end).contains(&begin)
            && last.filter == job.filter
        {
            job.scanned_to = last.end;
        }
        let mut ranges = std::mem::take(&mut self.ranges);
        // One read looks at a bounded number of entries: go on to the end, or nobody looks at the rest before the next message.
        let passes = loop {
            if job.scanned_to >= max {
                break Some(false);
            }
            if self.turn_entries >= limits::HELD_ENTRIES_PER_TURN {
                break None;
            }
            match pull::read_tail(&job.queue, job.scanned_to, limits, &job.filter, &mut ranges) {
                Some(reading) if reading.status == Status::NoMatchedMessage => {
                    self.turn_entries += reading.scanned;
                    self.counters.pull_entries += reading.scanned as u64;
                    job.scanned_to = reading.next;
                }
                _ => break Some(true),
            }
        };
        self.ranges = ranges;
        if passes != Some(true) && job.scanned_to > begin && last.as_ref().is_none_or(|last| last.end != job.scanned_to)
        {
            let (queue, filter) = (Arc::clone(&job.queue), job.filter.clone());
            *last = Some(FruitlessLook { queue, filter, begin, end: job.scanned_to });
        }
        // The consumer shall learn that these are not for it: what it commits follows, and nobody filters them again.
        if passes != Some(true) && begin == job.offset && job.scanned_to > begin {
            let at_ms = self.now_ns / 1_000_000 + limits::FILTERED_PULL_MS;
            self.held.hasten(id, at_ms);
        }
        match passes {
            None => self.held.look_again(id),
            Some(false) => {}
            Some(true) if !takes_answers => self.held.stall(id),
            Some(true) => {
                if let Some(mut job) = self.held.remove(id) {
                    // What was looked at already is not looked at again: a read from the start may not reach the message.
                    job.offset = job.scanned_to;
                    self.execute_pull(job, None);
                }
            }
        }
    }

    /// Whether a held pull may go on, by the present picture: what has changed since it came counts as if it came now (RocketMQ
    /// executes the whole request again). If not, it has been answered. Without a new picture there is nothing to do.
    fn may_still_read(&mut self, id: SlotId) -> bool {
        let Some(job) = self.held.get_mut(id) else { return false };
        if job.picture == self.picture {
            return true;
        }
        job.picture = self.picture;
        let Some(serving) = &self.serving else { return true };
        let connection = connection_number(self.settings.index, job.connection);
        let Some(standing) = self.held.check_again(id, serving, connection) else { return false };
        if matches!(standing, Standing::Goes) {
            return true;
        }
        let Some(mut job) = self.held.remove(id) else { return false };
        match standing {
            Standing::Goes => {}
            Standing::Moved(queue) => {
                job.queue = queue;
                job.scanned_to = job.offset;
                self.execute_pull(job, None);
            }
            Standing::Refused(refusal) => {
                self.discharge(job.connection, job.request_bytes);
                self.refuse_pull(job.connection, job.serialize_type, job.opaque, &refusal);
            }
            // Told to come again at once, the consumer sends a request that creates the group.
            Standing::WithoutGroup => {
                let next = job.offset;
                self.answer_without_match(&job, next);
            }
        }
        false
    }

    fn answer_without_match(&mut self, job: &PullJob, next: i64) {
        let (min, max) = job.queue.bounds();
        let (min, max) = (min.0 as i64, max.0 as i64);
        let reading = Reading { status: Status::NoMatchedMessage, next, min, max, bytes: 0, messages: 0, scanned: 0 };
        self.answer_pull(job, &reading, None);
    }

    /// Answers the pulls of deleted topics, as if they came now. To be called when there is a new picture: a topic is not in it
    /// any more when its queues are retired.
    pub(super) fn release_retired(&mut self) {
        self.held.release(Queue::is_retired);
        self.within_budget(|shard| shard.look_at_woken());
    }

    /// Answers pulls whose time is up, while this turn has looked at less than `most` entries.
    fn expire_pulls(&mut self, most: usize) {
        while self.turn_entries < most
            && let Some(id) = self.held.expired(self.steady_ms())
        {
            self.turn_entries += limits::ENTRIES_PER_PULL;
            self.release_pull(id);
        }
    }

    /// Answers stalled pulls of connections that take answers again, a few of each in turn.
    fn resume_pulls(&mut self, most: usize) {
        while self.turn_entries < most
            && let Some(connection) = self.resumable.pop_front()
        {
            for _ in 0..limits::RESUMED_PULLS {
                if !self.takes_answers(connection) {
                    break;
                }
                let Some(id) = self.held.first_stalled(connection) else { break };
                self.turn_entries += limits::ENTRIES_PER_PULL;
                self.answer_due(id);
            }
            let goes_on = self.takes_answers(connection) && self.held.first_stalled(connection).is_some();
            if goes_on {
                self.resumable.push_back(connection);
            } else if let Some(connection) = self.connections.get_mut(connection) {
                connection.is_resumable = false;
            }
        }
    }

    /// Answers a pull whatever it finds, once its connection takes answers.
    fn release_pull(&mut self, id: SlotId) {
        let Some(connection) = self.held.get(id).map(|job| job.connection) else { return };
        if self.takes_answers(connection) {
            self.answer_due(id);
        } else {
            self.held.stall(id);
        }
    }

    fn answer_due(&mut self, id: SlotId) {
        if !self.may_still_read(id) {
            return;
        }
        let Some(mut job) = self.held.remove(id) else { return };
        if job.scanned_to > job.offset && job.queue.bounds().1.0 as i64 <= job.scanned_to {
            self.answer_without_match(&job, job.scanned_to);
        } else {
            job.offset = job.scanned_to;
            self.execute_pull(job, None);
        }
    }

    /// When the next held pull must be answered.
    pub fn next_deadline_ms(&mut self) -> Option<u64> {
        self.held.next_deadline_ms()
    }

    /// Hands over what pulls have carried.
    pub fn take_commits(&mut self) -> Vec<CarriedCommit> {
        self.shared.shards[self.settings.index].carries_commits.store(false, Ordering::Release);
        self.commits.drain().map(|(_, carried)| carried).collect()
    }
}
