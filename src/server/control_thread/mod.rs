//! The control thread: everything that is neither a send nor a pull.
//!
//! One thread owns topics, groups, clients, offsets, locks and the name server's tables, so none of them needs a lock. It makes
//! the serving picture that shards use, and it writes a changed topic or group to disk before anybody can use it.
//!
//! Order inside one request: state changes, its files are written, shards get the new picture, then the answer leaves. If it
//! concerns what is registered it leaves when the name servers that can be reached have heard of it, within bounds.

mod changes;
mod commits;
mod deletion;
mod files;
mod registering;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::time::Duration;

use ringmq_protocol::bodies::TopicFilterType;
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::flags::RPC_ONEWAY;
use ringmq_protocol::frame::{Split, split_frame};
use ringmq_protocol::header::HeaderDecoder;
use ringmq_protocol::pull::PullHeader;
use ringmq_shards::clock::{Clock, Now};
use ringmq_shards::probe::{Counter, Histogram, Probe};
use ringmq_shards::queue::{Queue, QueueStore};
use ringmq_shards::recovery::StorePaths;
use ringmq_shards::runtime::MailboxSender;
use ringmq_shards::types::QueueId;

use self::changes::{Changes, Reply, deletes};
use self::commits::Carried;
use self::deletion::{Unfenced, unfenced};
use self::files::{Needs, StateFiles};
pub use self::registering::namesrv_addresses;
use super::connection::{Listener, connection_slot};
use super::held_answers::{HeldAnswer, HeldAnswers};
use super::limits;
use super::messages::{CarriedCommit, Charge, ControlRequest, ShardMessage, frame_for};
use super::metrics::StoreFigures;
use super::persister::{Content, Persister};
use super::registrar::{Delivery, Notices, Outcome, Registrar};
use super::serving::{Serving, ServingIdentity, ServingTopic};
use super::shared::{Shared, monotonic_ns};
use super::storage;
use super::store_thread::StoreJob;
use crate::broker::attributes;
use crate::broker::control::TablesBefore;
use crate::broker::names::{self, RETRY_PREFIX};
use crate::broker::offset_requests;
use crate::broker::offsets::OffsetCommit;
use crate::broker::pull::TransferLimits;
use crate::broker::send;
use crate::broker::snapshot::TopicEntry;
use crate::broker::state::{GROUPS_FILE, TOPICS_FILE};
use crate::broker::{Answer, ConnectionId, Control, Effect, FastMap, Peer, Refusal, StoreReader};
use crate::config::Config;
use crate::namesrv::{self, NameServer};
use crate::process::logging;

/// How often time passes for the tables.
const TICK: Duration = Duration::from_millis(500);

/// How long a stop waits for name servers to take the broker out.
const UNREGISTER_PATIENCE_MS: u64 = 1_000;

/// How long the deletion of a topic waits for the log's writer, which answers in its next turn unless the disk hangs.
const BARRIER_PATIENCE: Duration = Duration::from_millis(1_000);

/// How often the wait looks for answers.
const STOP_BEAT: Duration = Duration::from_millis(10);

/// What the broker's part of the control thread works with.
pub struct BrokerParts {
    /// The tables.
    pub control: Control,
    /// Answers that need no disk, and what look-ups use.
    pub store: Arc<dyn StoreReader>,
    /// Queues are made here, before shards learn of their topic.
    pub queues: Arc<QueueStore>,
    /// Where the store's files lie.
    pub paths: StorePaths,
    /// What the log cannot tell about queues.
    pub queue_offsets: Arc<storage::Sidecar>,
    /// Identity for records and answers.
    pub identity: Arc<ServingIdentity>,
    /// Values of live keys that the serving picture shows.
    pub pictured: Pictured,
    /// `registerBrokerTimeoutMills`.
    pub register_timeout: Duration,
    /// The name server in the same process, which no live change takes away.
    pub own_namesrv: Option<String>,
    /// Rates for tools.
    pub figures: Arc<StoreFigures>,
    /// Folder of Java's state files.
    pub state_directory: PathBuf,
    /// One per name server.
    pub registrars: Vec<Registrar>,
    /// Look-ups.
    pub jobs: SyncSender<StoreJob>,
}

impl BrokerParts {
    /// The file of settings that were changed by requests.
    fn settings_path(&self) -> PathBuf {
        self.paths.own().join(crate::config::live::FILE_NAME)
    }
}

/// Values of live keys that the serving picture shows.
#[derive(Debug, Clone)]
pub struct Pictured {
    /// `maxMessageSize`.
    pub max_message_bytes: usize,
    /// `longPollingEnable`.
    pub long_polling: bool,
    /// `shortPollingTimeMills`.
    pub short_polling_ms: u64,
    /// `litePullMessageEnable`.
    pub lite_pull: bool,
    /// Bounds of one answer to a pull.
    pub transfer: TransferLimits,
}

impl From<&Config> for Pictured {
    fn from(config: &Config) -> Self {
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        Self {
            max_message_bytes: size(config.max_message_size),
            long_polling: config.long_polling_enable,
            short_polling_ms: config.short_polling_time_mills,
            lite_pull: config.lite_pull_message_enable,
            transfer: TransferLimits {
                memory_messages: config.max_transfer_count_on_message_in_memory as usize,
                memory_bytes: size(config.max_transfer_bytes_on_message_in_memory),
                disk_messages: config.max_transfer_count_on_message_in_disk as usize,
                disk_bytes: size(config.max_transfer_bytes_on_message_in_disk),
                batch_messages: config.pull_batch_max_message_count as usize,
            },
        }
    }
}

/// The control thread's state.
pub struct ControlThread {
    /// Requests of all shards.
    pub requests: Receiver<ControlRequest>,
    /// All shards.
    pub shards: Vec<MailboxSender<ShardMessage>>,
    /// The wall clock, for what is stored and shown.
    pub clock: Arc<dyn Clock>,
    /// The broker, if this process is one.
    pub broker: Option<BrokerParts>,
    /// The name server, if this process is one.
    pub namesrv: Option<NameServer>,
    /// Where the name server's key-value file and configuration are kept.
    pub namesrv_files: (PathBuf, PathBuf),
    /// Told for each name server once the first registration with it was answered or given up.
    pub registered: Option<Sender<Outcome>>,
    /// Set when the process stops.
    pub stopping: Arc<AtomicBool>,
    shared: Arc<Shared>,
    probe: Probe,
    notices: Option<Notices>,
    connections: HashMap<u64, (Listener, SocketAddr)>,
    topics: FastMap<Arc<str>, (Arc<TopicEntry>, Arc<ServingTopic>)>,
    /// Deletions whose barrier is not on disk yet. No topic of these names is served, and each name is here once.
    unfenced: Vec<Unfenced>,
    carried: Carried,
    files: StateFiles,
    /// Files that the answer to the request at hand waits for.
    awaited: Needs,
    changes: Changes,
    /// The newest order of barriers that was carried out.
    barriers_written: u64,
    /// The registrations that the request at hand has caused.
    round: Option<Arc<HeldAnswer>>,
    held_answers: HeldAnswers,
}

impl ControlThread {
    /// Puts the parts together.
    #[allow(clippy::too_many_arguments, reason = "everything that the thread is wired to, once")]
    pub fn new(
        requests: Receiver<ControlRequest>,
        shards: Vec<MailboxSender<ShardMessage>>,
        persister: Persister,
        clock: Arc<dyn Clock>,
        broker: Option<BrokerParts>,
        namesrv: Option<NameServer>,
        namesrv_files: (PathBuf, PathBuf),
        registered: Option<Sender<Outcome>>,
        stopping: Arc<AtomicBool>,
        shared: Arc<Shared>,
        probe: Probe,
    ) -> Self {
        Self {
            shared,
            probe,
            notices: None,
            requests,
            shards,
            clock,
            broker,
            namesrv,
            namesrv_files,
            registered,
            stopping,
            connections: HashMap::new(),
            topics: FastMap::default(),
            unfenced: Vec::new(),
            carried: Carried::default(),
            files: StateFiles::new(persister),
            awaited: Needs::default(),
            changes: Changes::default(),
            barriers_written: 0,
            round: None,
            held_answers: HeldAnswers::default(),
        }
    }

    /// The picture for the shards' start.
    pub fn first_serving(&mut self) -> Option<Arc<Serving>> {
        self.files.look_after_reserve();
        self.write_state(false);
        self.settle();
        self.make_serving()
    }

    /// Runs until the process stops. False if state is lost that was confirmed.
    pub fn run(mut self) -> bool {
        let mut next_tick_ms = 0;
        loop {
            // At once when it begins: a start waits for the first registration.
            let now = self.now();
            if now.steady_ms >= next_tick_ms {
                next_tick_ms = now.steady_ms + TICK.as_millis() as u64;
                self.tick(now);
            }
            if self.stopping.load(Ordering::Acquire) {
                break;
            }
            match self.requests.recv_timeout(TICK) {
                Ok(request) => self.request(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.stop()
    }

    /// Unregisters and writes what is left; false if that failed. The name server may be this very thread, so requests are served
    /// meanwhile.
    fn stop(&mut self) -> bool {
        // Shards that wait no longer for this thread would take theirs along.
        self.collect_commits(monotonic_ns());
        self.held_answers.release_all();
        let (done, unregistered) = channel();
        let mut outstanding = 0;
        if let Some(broker) = &mut self.broker {
            for registrar in &broker.registrars {
                let command = broker.control.unregistration();
                registrar.deliver(Delivery { command, done: Some(done.clone()), held: None });
                outstanding += 1;
            }
        }
        let deadline_ms = self.now().steady_ms + UNREGISTER_PATIENCE_MS;
        while outstanding > 0 && self.now().steady_ms < deadline_ms {
            if let Ok(request) = self.requests.recv_timeout(STOP_BEAT) {
                self.request(request);
            }
            outstanding -= unregistered.try_iter().count().min(outstanding);
        }
        while self.now().steady_ms < deadline_ms
            && let Ok(request) = self.requests.try_recv()
        {
            self.request(request);
        }
        self.collect_last_commits();
        let is_written = self.write_last();
        // Nobody looks after those either that were held meanwhile, and shards may leave as soon as this thread has ended.
        self.held_answers.release_all();
        is_written
    }

    /// The present time. What waits does so by the shards' clock: they compare with times that are published here.
    fn now(&self) -> Now {
        Now { steady_ms: monotonic_ns() / 1_000_000, wall_ms: self.clock.now_ms() }
    }

    fn tick(&mut self, now: Now) {
        self.held_answers.expire(now.steady_ms);
        self.collect_commits(monotonic_ns());
        self.take_written();
        self.expire_changes(now.steady_ms);
        self.files.try_again();
        self.files.look_after_reserve();
        self.go_on_with_deletions();
        let mut effects = Vec::new();
        if let Some(broker) = &mut self.broker {
            broker.control.tick(now, &mut effects);
            let stored = |queues: &[Arc<Queue>]| queues.iter().map(|queue| queue.bounds().1.0).sum();
            let topics = self.topics.iter().map(|(name, (_, topic))| (name.as_ref(), stored(&topic.queues)));
            broker.control.sample_statistics(now.steady_ms, topics);
        }
        self.apply(effects);
        let mut effects = Vec::new();
        if let Some(namesrv) = &mut self.namesrv {
            namesrv.tick(now.steady_ms, &mut effects);
        }
        self.apply_namesrv(effects);
        self.write_state(false);
        self.publish_figures(now.wall_ms);
    }

    fn publish_figures(&self, wall_ms: u64) {
        let figures = &self.shared.control;
        if let Some(namesrv) = &self.namesrv {
            figures.namesrv_brokers.set(namesrv.routes().broker_count() as u64);
            figures.namesrv_routes.set(namesrv.routes().route_count() as u64);
            figures.namesrv_keys.set(namesrv.kv_count() as u64);
        }
        let Some(broker) = &self.broker else { return };
        figures.offset_keys.set(broker.control.offsets.keys() as u64);
        figures.connection_groups.set(broker.control.clients.most_groups() as u64);
        figures.locked_groups.set(broker.control.locks.groups() as u64);
        figures.topics.set(broker.control.topics.len() as u64);
        figures.groups.set(broker.control.groups.len() as u64);
        figures.queues.set(self.topics.values().map(|(_, topic)| topic.queues.len() as u64).sum());
        figures.max_topics.set(broker.control.config.max_topics as u64);
        figures.max_groups.set(broker.control.config.max_groups as u64);
        figures.max_queues.set(broker.control.config.max_queues);
        broker.figures.sample(wall_ms);
    }

    fn request(&mut self, request: ControlRequest) {
        self.take_written();
        if matches!(request, ControlRequest::Written) {
            return;
        }
        self.shared.control.control_taken.add(1);
        self.go_on_with_deletions();
        self.round = None;
        let until_ms = self.until_ms();
        let at_ns = if let ControlRequest::Command { at_ns, .. } = request { Some(at_ns) } else { None };
        self.serve(request, until_ms);
        if let Some(at_ns) = at_ns {
            self.probe.count(Counter::RequestsControl);
            self.probe.record(Histogram::ControlLatency, monotonic_ns().saturating_sub(at_ns));
        }
    }

    /// Carries a request out, if not now then before this time.
    fn serve(&mut self, request: ControlRequest, until_ms: u64) {
        match request {
            ControlRequest::Command { connection, frame, answers, at_ns } => {
                self.command(connection, frame, answers, at_ns, until_ms);
            }
            ControlRequest::CreateTopic { connection, frame, answers } => {
                self.create_topic(connection, frame, answers, until_ms);
            }
            ControlRequest::CreateGroup { connection, frame, answers } => {
                self.create_group(connection, frame, answers, until_ms);
            }
            ControlRequest::Opened { connection, listener, peer } => {
                self.connections.insert(connection, (listener, peer));
            }
            ControlRequest::Closed { connection } => self.closed(connection),
            ControlRequest::Written => {}
        }
    }

    fn closed(&mut self, connection: u64) {
        let Some((listener, _)) = self.connections.remove(&connection) else { return };
        match listener {
            Listener::Broker => {
                let mut effects = Vec::new();
                if let Some(broker) = &mut self.broker {
                    broker.control.connection_closed(ConnectionId(connection), &mut effects);
                }
                self.apply(effects);
            }
            Listener::Namesrv => {
                let mut effects = Vec::new();
                let now_ms = self.now().steady_ms;
                if let Some(namesrv) = &mut self.namesrv {
                    namesrv.connection_closed(namesrv::ConnectionId(connection), now_ms, &mut effects);
                }
                self.apply_namesrv(effects);
            }
        }
    }

    fn command(&mut self, connection: u64, frame: Vec<u8>, answers: Charge, at_ns: u64, until_ms: u64) {
        let Some((listener, address)) = self.connections.get(&connection).copied() else { return };
        // Whoever hands frames over has cut them.
        let Ok(Split::Frame { frame: view, .. }) = split_frame(&frame, frame.len()) else {
            self.send(connection, ShardMessage::Close(connection));
            return;
        };
        let Ok(mut command) = Command::decode(view) else {
            self.send(connection, ShardMessage::Close(connection));
            return;
        };
        if command.is_response() {
            // Nothing is asked of clients yet, so an answer is of no use; only its bytes must not count any more.
            self.reply(connection, None, answers);
            return;
        }
        let now = self.now();
        match listener {
            Listener::Namesrv => {
                let mut effects = Vec::new();
                let answer = self.namesrv.as_mut().and_then(|namesrv| {
                    namesrv.handle(&command, namesrv::ConnectionId(connection), now.steady_ms, &mut effects)
                });
                self.awaited = Needs::default();
                self.apply_namesrv(effects);
                let answer = answer.unwrap_or_else(|| NameServer::not_supported(&command));
                let answer = if command.is_oneway() { Answer::Nothing } else { Answer::Now(answer) };
                self.answer(connection, command, answer, answers, None);
            }
            Listener::Broker => {
                let ends_topics = deletes(command.code);
                if ends_topics && self.changes.is_busy() {
                    self.park(ControlRequest::Command { connection, frame, answers, at_ns }, true, until_ms);
                    return;
                }
                if command.code == request::UNREGISTER_CLIENT && self.has_parked(connection) {
                    // A heartbeat that waits brings its members back when it is carried out: behind it they leave once more.
                    let mut again = command.clone();
                    again.flag |= RPC_ONEWAY;
                    let (frame, answers) = (again.encode(), Charge::default());
                    self.park(ControlRequest::Command { connection, frame, answers, at_ns }, false, until_ms);
                }
                if offset_requests::concerns_offsets(command.code) {
                    self.collect_commits(at_ns);
                }
                let Some(broker) = &mut self.broker else { return };
                let peer = Peer { connection: ConnectionId(connection), address };
                let before = broker.control.remember();
                let mut effects = Vec::new();
                let answer = broker.control.handle(&command, &peer, now, broker.store.as_ref(), &mut effects);
                command.body = None;
                let reply = Reply::Command { connection, frame, at_ns, command, answer, answers };
                self.carry_out(Some(before), reply, effects, until_ms);
            }
        }
    }

    fn look_up(&mut self, connection: u64, command: &Command, look_up: crate::broker::LookUp, answers: Charge) {
        let Some(broker) = &self.broker else { return };
        let job = StoreJob::LookUp { connection, answers, look_up };
        if broker.jobs.try_send(job).is_ok() {
            self.shared.control.jobs_asked.add(1);
        } else {
            let remark = "too many requests that read from disk are waiting; try again";
            self.reply(connection, Some(&error_answer(command, response::SYSTEM_BUSY, remark)), answers);
        }
    }

    fn create_topic(&mut self, connection: u64, frame: Vec<u8>, answers: usize, until_ms: u64) {
        let Now { steady_ms, wall_ms } = self.now();
        let before = self.broker.as_ref().map(|broker| broker.control.remember());
        let mut effects = Vec::new();
        let mut wanted = String::new();
        let outcome = self.with_header(&frame, |this, header| {
            let request = send::decode_header(header).map_err(Refusal::from)?;
            request.topic.clone_into(&mut wanted);
            let Some(broker) = &mut this.broker else { return Ok(()) };
            broker.control.create_topic_for_send(
                request.topic,
                request.default_topic,
                request.default_topic_queue_nums,
                request.unit_mode,
                wall_ms,
                &mut effects,
            )?;
            let Some(group) = request.topic.strip_prefix(RETRY_PREFIX).filter(|_| !request.batch) else {
                return Ok(());
            };
            broker.control.ensure_group(group, wall_ms, &mut effects)?;
            // By the picture that shards have, or they would ask again.
            let groups = Arc::clone(&broker.control.snapshot().groups);
            if groups.get(group).is_some_and(|entry| send::is_dead_letter(entry, &request, steady_ms)) {
                wanted = names::dead_letter_topic(group);
                broker.control.ensure_derived_topic(&wanted, 1, false, false, wall_ms, &mut effects)?;
            }
            Ok(())
        });
        let topic = self.broker.is_some().then_some(wanted);
        self.carry_out(before, Reply::Again { connection, frame, answers, topic, outcome }, effects, until_ms);
    }

    fn create_group(&mut self, connection: u64, frame: Vec<u8>, answers: usize, until_ms: u64) {
        let wall_ms = self.clock.now_ms();
        let before = self.broker.as_ref().map(|broker| broker.control.remember());
        let mut effects = Vec::new();
        let outcome = self.with_header(&frame, |this, header| {
            let request = PullHeader::decode(header).map_err(Refusal::from)?;
            let Some(broker) = &mut this.broker else { return Ok(()) };
            broker.control.ensure_group(request.consumer_group, wall_ms, &mut effects)
        });
        self.carry_out(before, Reply::Again { connection, frame, answers, topic: None, outcome }, effects, until_ms);
    }

    fn with_header(
        &mut self,
        frame: &[u8],
        work: impl FnOnce(&mut Self, &ringmq_protocol::header::Header<'_>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let broken = |text: String| Refusal::new(response::SYSTEM_ERROR, text);
        let mut decoder = HeaderDecoder::new();
        match split_frame(frame, frame.len()) {
            Ok(Split::Frame { frame, .. }) => {
                let header = decoder.decode_frame(&frame).map_err(|error| broken(error.to_string()))?;
                work(self, &header)
            }
            Ok(Split::NeedMore { .. }) => Err(broken("the frame is not complete".to_owned())),
            Err(error) => Err(broken(error.to_string())),
        }
    }

    fn send(&self, connection: u64, message: ShardMessage) {
        let (shard, _) = connection_slot(connection);
        if let Some(mailbox) = self.shards.get(shard)
            && !mailbox.send_blocking(message)
        {
            tracing::debug!(shard, "a shard is gone; its answer is dropped");
        }
    }

    fn reply(&self, connection: u64, answer: Option<&Command>, answers: Charge) {
        self.send(connection, self.frame(connection, answer, answers));
    }

    fn frame(&self, connection: u64, answer: Option<&Command>, answers: Charge) -> ShardMessage {
        if answer.is_some_and(|answer| answer.code == response::REQUEST_CODE_NOT_SUPPORTED && answer.is_response()) {
            self.probe.count(Counter::RequestsUnknown);
        }
        frame_for(connection, answer, answers, &self.shared.buffers)
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        if effects.is_empty() {
            return;
        }
        let publishes = effects.iter().any(|effect| {
            matches!(effect, Effect::TopicsChanged | Effect::GroupsChanged | Effect::SubscriptionsChanged { .. })
                || matches!(effect, Effect::ConfigChanged(_) | Effect::RetireQueues { .. })
        });
        if effects.iter().any(|effect| matches!(effect, Effect::ConfigChanged(_)))
            && let Some(broker) = &self.broker
            && let Some(content) = broker.control.config_file()
        {
            let path = broker.settings_path();
            self.persist(&path, content.as_bytes());
            self.adopt_config();
        }
        let retired = effects.iter().filter_map(|effect| match effect {
            Effect::RetireQueues { topic } => Some(topic.clone()),
            _ => None,
        });
        // All at once: each deletion asks the writer and writes the barriers.
        self.retire_topics(retired.collect());
        for effect in &effects {
            match effect {
                Effect::RetireUnknownTopics => self.retire_unknown_topics(),
                Effect::RemoveExpired => self.shared.retention.ask(),
                Effect::CleanQueues => self.shared.retention.ask_for_queues(),
                Effect::ForgetOffsets { group } => {
                    if let Some(broker) = &mut self.broker {
                        broker.control.forget_offsets(group);
                    }
                }
                _ => {}
            }
        }
        if publishes {
            self.write_state(false);
            self.publish_serving();
        }
        for effect in effects {
            match effect {
                Effect::Send { connection, command } => self.reply(connection.0, Some(&command), Charge::default()),
                Effect::CloseConnection(connection) => self.send(connection.0, ShardMessage::Close(connection.0)),
                Effect::RegisterTopics(topics) => self.register(Some(&topics)),
                Effect::RegisterAll => self.register(None),
                Effect::TopicsChanged
                | Effect::GroupsChanged
                | Effect::SubscriptionsChanged { .. }
                | Effect::RetireQueues { .. }
                | Effect::RetireUnknownTopics
                | Effect::RemoveExpired
                | Effect::CleanQueues
                | Effect::ForgetOffsets { .. }
                | Effect::ConfigChanged(_) => {}
            }
        }
    }

    fn publish_serving(&mut self) {
        if let Some(serving) = self.make_serving() {
            for shard in &self.shards {
                shard.send_blocking(ShardMessage::Serving(Arc::clone(&serving)));
            }
        }
    }

    /// Hands live values to whoever uses them; shards see the rest in the next picture.
    fn adopt_config(&mut self) {
        let Some(broker) = &mut self.broker else { return };
        let Some(config) = broker.control.current_config() else { return };
        self.shared.live.adopt(config);
        self.shared.retention.adopt(config);
        logging::set_level(config.log_level);
        broker.pictured = Pictured::from(config);
        if broker.identity.trace_on != config.trace_on {
            let changed = ServingIdentity { trace_on: config.trace_on, ..broker.identity.as_ref().clone() };
            broker.identity = Arc::new(changed);
        }
        let wanted = namesrv_addresses(config, broker.own_namesrv.as_ref());
        broker.registrars.retain(|registrar| wanted.iter().any(|address| address == registrar.address()));
        let mut is_new = false;
        for address in wanted {
            if broker.registrars.iter().any(|registrar| registrar.address() == address) {
                continue;
            }
            match Registrar::start(address.clone(), broker.register_timeout) {
                Ok(registrar) => broker.registrars.push(registrar),
                Err(error) => tracing::error!(address, %error, "a name server is not registered with"),
            }
            is_new = true;
        }
        if is_new {
            self.register(None);
        }
    }

    fn apply_namesrv(&mut self, effects: Vec<namesrv::Effect>) {
        for effect in effects {
            match effect {
                namesrv::Effect::Send { address, command, .. } => {
                    self.notices.get_or_insert_with(Notices::start).send(address, command);
                }
                namesrv::Effect::CloseConnection(connection) => {
                    self.send(connection.0, ShardMessage::Close(connection.0));
                }
                namesrv::Effect::PersistKvConfig(bytes) => self.persist(&self.namesrv_files.0.clone(), &bytes),
                namesrv::Effect::PersistConfig(bytes) => self.persist(&self.namesrv_files.1.clone(), &bytes),
            }
        }
    }

    fn make_serving(&mut self) -> Option<Arc<Serving>> {
        let broker = self.broker.as_mut()?;
        let snapshot = broker.control.snapshot();
        let mut topics: FastMap<Arc<str>, Arc<ServingTopic>> = FastMap::default();
        topics.reserve(snapshot.topics.len());
        for (name, entry) in snapshot.topics.iter() {
            if unfenced(&self.unfenced, name) {
                continue;
            }
            let known = self.topics.get(name).filter(|(known, _)| Arc::ptr_eq(known, entry));
            let topic = match known {
                Some((_, topic)) => Arc::clone(topic),
                None => match serving_topic(&broker.queues, name, entry) {
                    Ok(topic) => {
                        let topic = Arc::new(topic);
                        self.topics.insert(Arc::clone(name), (Arc::clone(entry), Arc::clone(&topic)));
                        topic
                    }
                    Err(error) => {
                        tracing::error!(topic = &**name, %error, "a topic cannot be served: its queues cannot be made");
                        continue;
                    }
                },
            };
            topics.insert(Arc::clone(name), topic);
        }
        self.topics.retain(|name, _| topics.contains_key(name));
        Some(Arc::new(Serving {
            identity: Arc::clone(&broker.identity),
            topics,
            groups: Arc::clone(&snapshot.groups),
            broker_permission: snapshot.flags.permission,
            max_message_bytes: broker.pictured.max_message_bytes,
            long_polling: broker.pictured.long_polling,
            short_polling_ms: broker.pictured.short_polling_ms,
            lite_pull: broker.pictured.lite_pull,
            reject_pull_consumers: snapshot.flags.reject_pull_consumers,
            accept_sends_from_ms: snapshot.flags.accept_sends_from_ms,
            transfer: broker.pictured.transfer,
        }))
    }
}

fn error_answer(command: &Command, code: i32, remark: &str) -> Command {
    let mut answer = Command::error(code, remark);
    answer.opaque = command.opaque;
    answer.serialize_type = command.serialize_type;
    answer
}

fn serving_topic(
    queues: &QueueStore,
    name: &Arc<str>,
    entry: &TopicEntry,
) -> Result<ServingTopic, ringmq_shards::queue::QueueError> {
    let config = &entry.config;
    let count = |number: i32| u32::try_from(number).unwrap_or(0);
    let (read_queues, write_queues) = (count(config.read_queue_nums), count(config.write_queue_nums));
    let open = (0..read_queues.max(write_queues)).map(|number| queues.get_or_create(name, QueueId(number)));
    Ok(ServingTopic {
        name: Arc::clone(name),
        queues: open.collect::<Result<_, _>>()?,
        read_queues,
        write_queues,
        permission: config.perm,
        sys_flag: config.topic_sys_flag,
        is_ordered: config.order,
        is_multi_tag: config.topic_filter_type == TopicFilterType::MultiTag,
        not_sendable: !names::is_sendable(name),
        unserved: attributes::unserved(&config.attributes),
    })
}
