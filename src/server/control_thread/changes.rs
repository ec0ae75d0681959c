//! Requests that change topics or groups, while the tables are being written.
//!
//! A change is carried out on the tables, put aside, and written by the persister. Once it is on disk it is in force: shards get their
//! picture, name servers are told, and the answer leaves. Meanwhile the tables before are in force, and everybody else is served from
//! them. There is one change at a time; requests that would change tables too wait for it, and then make one change together. A
//! deletion is in force at once, but nobody is told so before it is on disk.
//!
//! Who asked waits for [`PATIENCE_MS`]. Then the disk is said not to answer; a change that is being written may still come into force.

use super::files::Needs;
use super::*;
use crate::broker::control::TablesAside;
use crate::server::persister::Written;

/// How long a request waits for the disk. RocketMQ's clients give a send or a heartbeat up after 3 s, and tools theirs after 5 s: they
/// are to read the reason.
const PATIENCE_MS: u64 = 2_000;

/// What is on its way to the tables.
#[derive(Default)]
pub(super) struct Changes {
    /// The change that is being written.
    current: Option<Change>,
    /// Those that are carried out together, for the next one.
    gathering: Option<Vec<Waiter>>,
    /// Requests that wait until there is none.
    parked: VecDeque<Parked>,
    parked_bytes: usize,
    /// Answers that wait for other files.
    awaiting: Vec<Awaiting>,
}

struct Change {
    needs: Needs,
    /// What comes into force when that is written; nothing for deletions.
    aside: Option<TablesAside>,
    waiters: Vec<Waiter>,
}

/// A request whose change is being written.
struct Waiter {
    until_ms: u64,
    /// Nothing once it was told that the disk does not answer.
    reply: Option<Reply>,
    effects: Vec<Effect>,
    /// Why it is not carried out, whatever becomes of the others.
    refusal: Option<String>,
}

struct Parked {
    until_ms: u64,
    request: ControlRequest,
    deletes: bool,
}

struct Awaiting {
    needs: Needs,
    until_ms: u64,
    round: Option<Arc<HeldAnswer>>,
    connection: u64,
    patience_ms: u64,
    message: ShardMessage,
    /// The answer if that cannot be.
    command: Command,
    answers: Charge,
}

/// What a request has come to, and the request itself: it may have to wait and be carried out again.
pub(super) enum Reply {
    /// The answer to a command, which is kept without its body.
    Command { connection: u64, frame: Vec<u8>, at_ns: u64, command: Command, answer: Answer, answers: Charge },
    /// A send, with its topic, or a pull. It is to be executed again.
    Again { connection: u64, frame: Vec<u8>, answers: usize, topic: Option<String>, outcome: Result<(), Refusal> },
}

impl Reply {
    fn into_request(self) -> ControlRequest {
        match self {
            Self::Command { connection, frame, at_ns, answers, .. } => {
                ControlRequest::Command { connection, frame, answers, at_ns }
            }
            Self::Again { connection, frame, answers, topic: Some(_), .. } => {
                ControlRequest::CreateTopic { connection, frame, answers }
            }
            Self::Again { connection, frame, answers, topic: None, .. } => {
                ControlRequest::CreateGroup { connection, frame, answers }
            }
        }
    }
}

/// Why a topic cannot be made.
const UNFENCED: &str =
    "the topic was just deleted and that is not on disk: the log is stuck, or there is no room; try again later";

impl Changes {
    /// Whether tables that are on their way to the disk are newer than those in force.
    pub(super) fn is_busy(&self) -> bool {
        self.current.is_some() || self.gathering.is_some()
    }
}

impl Parked {
    fn bytes(&self) -> usize {
        match &self.request {
            ControlRequest::Command { frame, .. }
            | ControlRequest::CreateTopic { frame, .. }
            | ControlRequest::CreateGroup { frame, .. } => frame.len(),
            _ => 0,
        }
    }
}

/// Whether a command ends topics: it cannot be undone, and waits for its turn before anything is done.
pub(super) fn deletes(code: i32) -> bool {
    matches!(code, request::DELETE_TOPIC_IN_BROKER | request::CLEAN_UNUSED_TOPIC)
}

fn retires(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::RetireQueues { .. } | Effect::RetireUnknownTopics))
}

/// What a request has caused besides the change of its tables.
fn besides_tables(mut effects: Vec<Effect>) -> Vec<Effect> {
    effects.retain(|effect| {
        !matches!(
            effect,
            Effect::TopicsChanged | Effect::RegisterTopics(_) | Effect::GroupsChanged | Effect::ForgetOffsets { .. }
        )
    });
    effects
}

impl ControlThread {
    pub(super) fn until_ms(&self) -> u64 {
        self.now().steady_ms + PATIENCE_MS
    }

    /// Lets a request wait until no other change is under way.
    pub(super) fn park(&mut self, request: ControlRequest, deletes: bool, until_ms: u64) {
        let parked = Parked { until_ms, request, deletes };
        let bytes = self.changes.parked_bytes + parked.bytes();
        if self.changes.parked.len() >= limits::PARKED_REQUESTS || bytes > limits::PARKED_BYTES {
            let remark = "too many requests wait for the disk; try again";
            self.refuse_parked(parked.request, response::SYSTEM_BUSY, remark);
            return;
        }
        self.changes.parked_bytes = bytes;
        self.changes.parked.push_back(parked);
        self.publish_parked();
    }

    /// Shows how much waits.
    fn publish_parked(&self) {
        self.shared.control.parked_requests.set(self.changes.parked.len() as u64);
        self.shared.control.parked_bytes.set(self.changes.parked_bytes as u64);
    }

    /// Whether this connection has a command that waits, and is not carried out just now.
    pub(super) fn has_parked(&self, connection: u64) -> bool {
        self.changes.gathering.is_none()
            && self.changes.parked.iter().any(|parked| match &parked.request {
                ControlRequest::Command { connection: of, .. } => *of == connection,
                _ => false,
            })
    }

    /// Goes on with a request that was carried out on the tables of `before`: with its answer, or with the writing of what it changed.
    pub(super) fn carry_out(
        &mut self,
        before: Option<TablesBefore>,
        reply: Reply,
        effects: Vec<Effect>,
        until_ms: u64,
    ) {
        if retires(&effects) {
            return self.begin_deletion(reply, effects, until_ms);
        }
        let mut waiter = Waiter { until_ms, reply: Some(reply), effects, refusal: None };
        let (Some(before), Some(broker)) = (before, &mut self.broker) else { return self.end_waiter(waiter, None) };
        let mut changed = broker.control.differs_from(&before).then_some(before);
        if let Some(before) = changed.take_if(|_| self.changes.current.is_some()) {
            broker.control.undo(before);
            self.finish(None, besides_tables(waiter.effects), None);
            if let Some(reply) = waiter.reply {
                self.park(reply.into_request(), false, until_ms);
            }
            return;
        }
        let is_unfenced = |topic| broker.control.topics.contains(topic);
        if let Some(before) = changed.take_if(|_| self.unfenced.iter().flat_map(Unfenced::topics).any(is_unfenced)) {
            broker.control.undo(before);
            waiter.effects = besides_tables(waiter.effects);
            waiter.refusal = Some(UNFENCED.to_owned());
        }
        match (&mut self.changes.gathering, changed) {
            (Some(gathering), _) => gathering.push(waiter),
            (None, Some(before)) => self.begin_change(before, vec![waiter]),
            (None, None) => self.end_waiter(waiter, None),
        }
    }

    /// Has the tables written, and puts them aside until they are.
    fn begin_change(&mut self, before: TablesBefore, waiters: Vec<Waiter>) {
        let Some(broker) = &mut self.broker else { return };
        let mut needs = Needs::default();
        for (name, bytes) in broker.control.dirty_tables() {
            let path = broker.state_directory.join(name);
            let ticket = self.files.order(&path, Content::Bytes(bytes));
            needs.add(path, ticket);
        }
        let aside = Some(broker.control.set_aside(before));
        self.changes.current = Some(Change { needs, aside, waiters });
    }

    /// Ends topics; that is confirmed when the barriers and the table are on disk.
    fn begin_deletion(&mut self, reply: Reply, effects: Vec<Effect>, until_ms: u64) {
        self.files.try_again();
        self.apply(effects);
        let Some(broker) = &self.broker else { return };
        let mut needs = Needs::default();
        for path in [broker.paths.queue_offsets(), broker.state_directory.join(TOPICS_FILE)] {
            if let Some(ticket) = self.files.outstanding(&path) {
                needs.add(path, ticket);
            }
        }
        let waiters = vec![Waiter { until_ms, reply: Some(reply), effects: Vec::new(), refusal: None }];
        let change = Change { needs, aside: None, waiters };
        // What is over at once must not begin the next one from here: as many as may wait would be as deep on the stack.
        if change.needs.are_met() { self.end_change(change) } else { self.changes.current = Some(change) }
    }

    /// Lets changes wait for a barrier that is late and on its way to the disk: no topic of its name can be made before.
    pub(super) fn wait_for_barrier(&mut self) {
        let Some(broker) = self.broker.as_ref().filter(|_| !self.changes.is_busy()) else { return };
        let path = broker.paths.queue_offsets();
        if let Some(ticket) = self.files.outstanding(&path) {
            let mut needs = Needs::default();
            needs.add(path, ticket);
            self.changes.current = Some(Change { needs, aside: None, waiters: Vec::new() });
        }
    }

    /// Takes note of what was written; if that was all for the change under way, it is over, and the next one begins.
    pub(super) fn go_on_with_changes(&mut self, batch: &[Written]) {
        if let Some(change) = &mut self.changes.current {
            change.needs.note(batch);
        }
        loop {
            if let Some(change) = self.changes.current.take_if(|change| change.needs.are_met()) {
                self.end_change(change);
            }
            if self.changes.is_busy() || self.changes.parked.is_empty() {
                return;
            }
            self.begin_next_change();
        }
    }

    fn end_change(&mut self, Change { needs, aside, waiters }: Change) {
        let wall_ms = self.clock.now_ms();
        let is_deletion = aside.is_none();
        if let (Some(broker), Some(aside)) = (&mut self.broker, aside) {
            match needs.failure {
                None => broker.control.put_in_force(aside, wall_ms),
                Some(_) => broker.control.give_up(&aside, wall_ms),
            }
        }
        // What failed may be in its file all the same: the tables that are in force replace it.
        self.write_state(false);
        let remark = needs.failure.map(|(path, error)| match is_deletion {
            true => format!(
                "the topic is not served any more, but a crash would bring it back: {error}; its deletion goes on when there is room"
            ),
            false => {
                let table = if path.ends_with(GROUPS_FILE) { "groups" } else { "topics" };
                format!("the table of {table} cannot be changed: {error}; try again later")
            }
        });
        for waiter in waiters {
            self.end_waiter(waiter, remark.clone());
        }
    }

    fn end_waiter(&mut self, Waiter { reply, effects, refusal, .. }: Waiter, failure: Option<String>) {
        let effects = if failure.is_some() { besides_tables(effects) } else { effects };
        self.finish(reply, effects, refusal.or(failure));
    }

    /// Carries out what has waited, together as far as that can be undone.
    fn begin_next_change(&mut self) {
        let Some(first) = self.changes.parked.pop_front() else { return };
        let is_alone = first.deletes;
        let mut requests = vec![first];
        while !is_alone && let Some(parked) = self.changes.parked.pop_front_if(|parked| !parked.deletes) {
            requests.push(parked);
        }
        self.changes.parked_bytes -= requests.iter().map(Parked::bytes).sum::<usize>();
        self.publish_parked();
        let before = self.broker.as_ref().filter(|_| !is_alone).map(|broker| broker.control.remember());
        self.changes.gathering = before.is_some().then(Vec::new);
        for Parked { until_ms, request, .. } in requests {
            self.serve(request, until_ms);
        }
        let Some((before, waiters)) = before.zip(self.changes.gathering.take()) else { return };
        if self.broker.as_ref().is_some_and(|broker| broker.control.differs_from(&before)) {
            self.begin_change(before, waiters);
            return;
        }
        for waiter in waiters {
            self.end_waiter(waiter, None);
        }
    }

    /// Carries out the effects of a request, and answers it; with an error if its change could not be made.
    fn finish(&mut self, reply: Option<Reply>, effects: Vec<Effect>, failure: Option<String>) {
        self.round = None;
        self.awaited = Needs::default();
        self.apply(effects);
        match reply {
            Some(Reply::Command { connection, command, answer, answers, .. }) => {
                self.answer(connection, command, answer, answers, failure);
            }
            Some(Reply::Again { connection, frame, answers, outcome, topic }) => {
                // Executed again, a send to a topic whose queues cannot be made would come back here, for ever.
                let is_served = topic.as_ref().is_none_or(|topic| self.topics.contains_key(topic.as_str()));
                let code = if topic.is_some() { response::SERVICE_NOT_AVAILABLE } else { response::SYSTEM_ERROR };
                let outcome = match (outcome, failure) {
                    (Ok(()), Some(remark)) => Err(Refusal::new(code, remark)),
                    (Ok(()), None) if !is_served => {
                        Err(Refusal::new(response::SYSTEM_ERROR, "the queues of the topic cannot be made; see the log"))
                    }
                    (outcome, _) => outcome,
                };
                self.again_or_refuse(connection, frame, answers, outcome);
            }
            None => {}
        }
    }

    pub(super) fn answer(
        &mut self,
        connection: u64,
        command: Command,
        answer: Answer,
        answers: Charge,
        failure: Option<String>,
    ) {
        let answer = match (answer, failure) {
            (Answer::Now(_), Some(remark)) => Answer::Now(error_answer(&command, response::SYSTEM_ERROR, &remark)),
            (answer, _) => answer,
        };
        match answer {
            Answer::Now(answer) => {
                let message = self.frame(connection, Some(&answer), answers);
                let patience_ms = self.register_patience_ms(command.code);
                if command.code == request::UPDATE_BROKER_CONFIG {
                    self.await_settings();
                }
                let needs = std::mem::take(&mut self.awaited);
                if needs.are_met() {
                    self.send_when_registered(connection, message, patience_ms);
                } else {
                    let (until_ms, round) = (self.until_ms(), self.round.take());
                    let awaiting =
                        Awaiting { needs, until_ms, round, connection, patience_ms, message, command, answers };
                    self.changes.awaiting.push(awaiting);
                }
            }
            Answer::Nothing => self.reply(connection, None, answers),
            Answer::LookUp(look_up) => self.look_up(connection, &command, look_up, answers),
        }
    }

    /// Who asks again for a setting that is in force is told so when it is on disk, too.
    fn await_settings(&mut self) {
        let Some(path) = self.broker.as_ref().map(BrokerParts::settings_path) else { return };
        if let Some(ticket) = self.files.outstanding(&path) {
            self.awaited.add(path, ticket);
        }
    }

    /// Sends the answers that waited for files which are written now.
    pub(super) fn answer_awaited(&mut self, batch: &[Written]) {
        let mut waiting = Vec::new();
        for mut awaiting in std::mem::take(&mut self.changes.awaiting) {
            awaiting.needs.note(batch);
            if !awaiting.needs.are_met() {
                waiting.push(awaiting);
            } else if let Some((_, error)) = awaiting.needs.failure.take() {
                self.answer_late(awaiting, &format!("it is in force, but not on disk: {error}; that is tried again"));
            } else {
                self.round = awaiting.round;
                self.send_when_registered(awaiting.connection, awaiting.message, awaiting.patience_ms);
            }
        }
        self.changes.awaiting = waiting;
    }

    fn answer_late(&mut self, awaiting: Awaiting, remark: &str) {
        let Awaiting { connection, command, answers, message, .. } = awaiting;
        if let ShardMessage::Frame { frame, .. } = message {
            // It counted when it was made.
            self.shared.buffers.publish(frame.len() as u64, 0);
        }
        self.reply(connection, Some(&error_answer(&command, response::SYSTEM_ERROR, remark)), answers);
    }

    /// Tells those that the disk does not answer who have waited long enough.
    pub(super) fn expire_changes(&mut self, now_ms: u64) {
        const UNKNOWN: &str =
            "the disk does not answer: the change is not on disk yet, and may still come into force; try again later";
        const NOT_BEGUN: &str =
            "the disk does not answer: others wait before this request, and it was not carried out; try again later";
        let waiters = self.changes.current.iter_mut().flat_map(|change| &mut change.waiters);
        let late: Vec<Reply> =
            waiters.filter(|waiter| waiter.until_ms <= now_ms).filter_map(|waiter| waiter.reply.take()).collect();
        for reply in late {
            self.finish(Some(reply), Vec::new(), Some(UNKNOWN.to_owned()));
        }
        let parked = std::mem::take(&mut self.changes.parked);
        let (late, waiting): (VecDeque<_>, VecDeque<_>) =
            parked.into_iter().partition(|parked| parked.until_ms <= now_ms);
        self.changes.parked = waiting;
        for parked in late {
            self.changes.parked_bytes -= parked.bytes();
            self.refuse_parked(parked.request, response::SYSTEM_ERROR, NOT_BEGUN);
        }
        self.publish_parked();
        let awaiting = std::mem::take(&mut self.changes.awaiting);
        let (late, waiting) = awaiting.into_iter().partition::<Vec<_>, _>(|awaiting| awaiting.until_ms <= now_ms);
        self.changes.awaiting = waiting;
        for awaiting in late {
            self.answer_late(awaiting, "the disk does not answer: the change is in force, but not on disk yet");
        }
    }

    /// Answers a request that is not carried out.
    fn refuse_parked(&mut self, request: ControlRequest, code: i32, remark: &str) {
        match request {
            ControlRequest::Command { connection, frame, answers, .. } => {
                let view = split_frame(&frame, frame.len());
                if let Ok(Split::Frame { frame: view, .. }) = view
                    && let Ok(command) = Command::decode(view)
                {
                    let answer = error_answer(&command, code, remark);
                    self.reply(connection, (!command.is_oneway()).then_some(&answer), answers);
                }
            }
            ControlRequest::CreateTopic { connection, frame, answers } => {
                let code = if code == response::SYSTEM_ERROR { response::SERVICE_NOT_AVAILABLE } else { code };
                self.again_or_refuse(connection, frame, answers, Err(Refusal::new(code, remark)));
            }
            ControlRequest::CreateGroup { connection, frame, answers } => {
                self.again_or_refuse(connection, frame, answers, Err(Refusal::new(code, remark)));
            }
            ControlRequest::Opened { .. } | ControlRequest::Closed { .. } | ControlRequest::Written => {}
        }
    }

    /// Executes a send or a pull again, or refuses it.
    fn again_or_refuse(&mut self, connection: u64, frame: Vec<u8>, answers: usize, outcome: Result<(), Refusal>) {
        match outcome {
            Ok(()) => {
                let again = ShardMessage::Again { connection, frame, answers };
                self.send_when_registered(connection, again, registering::SIDE_PATIENCE_MS);
            }
            Err(refusal) => {
                let mut decoder = HeaderDecoder::new();
                if let Ok(Split::Frame { frame: view, .. }) = split_frame(&frame, frame.len())
                    && let Ok(header) = decoder.decode_frame(&view)
                {
                    let mut answer = refusal.into_command();
                    if let Some(broker) = self.broker.as_ref().filter(|_| {
                        matches!(
                            header.code,
                            request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE
                        )
                    }) {
                        answer = answer
                            .with_ext("MSG_REGION", &broker.identity.region_id)
                            .with_ext("TRACE_ON", broker.identity.trace_on);
                    }
                    answer.opaque = header.opaque;
                    answer.serialize_type = header.serialize_type;
                    self.reply(connection, (!header.is_oneway()).then_some(&answer), Charge::from(answers));
                }
                self.send(connection, ShardMessage::Again { connection, frame: Vec::new(), answers: 0 });
            }
        }
    }
}
