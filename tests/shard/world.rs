//! One shard with its writer, a disk of byte arrays whose completions a test holds or releases, and clients that are numbers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, sync_channel};

use ringmq::broker::FastMap;
use ringmq::broker::pull::TransferLimits;
use ringmq::broker::send::SendState;
use ringmq::broker::snapshot::{GroupEntry, LiveGroup, Subscription};
use ringmq::config::Layers;
use ringmq::server::connection::Listener;
use ringmq::server::core::{LogPort, ShardCore, ShardSettings};
use ringmq::server::messages::{ColdPull, ControlRequest};
use ringmq::server::outbox::Part;
use ringmq::server::remote::WriterPeer;
use ringmq::server::serving::{Serving, ServingIdentity, ServingTopic};
use ringmq::server::shared::Shared;
use ringmq::server::slab::SlotId;
use ringmq_protocol::batch::{BatchEntry, write_batch_entry};
use ringmq_protocol::bodies::{MessageModel, SubscriptionData, SubscriptionGroupConfig};
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{MAX_FRAME_BYTES, SerializeType, Split, split_frame};
use ringmq_protocol::hash::tags_code;
use ringmq_protocol::record::{CrcCheck, RecordError, RecordView, Records};
use ringmq_shards::log::writer::{SettleSink, SyncOperation, WriterOptions};
use ringmq_shards::log::{FlushMode, LogRing, LogView, Settled, WriteKind, WriteOperation, Writer};
use ringmq_shards::probe::Registry;
use ringmq_shards::queue::{Queue, QueueStore, QueueStoreConfig};
use ringmq_shards::sim::SimDisk;
use ringmq_shards::types::QueueId;

/// Queues of the one topic.
pub const QUEUES: u32 = 4;

/// How the log acknowledges, and how its operations end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Page cache: a write ends in the turn that began it, unless it is held.
    AsyncPageCache,
    /// Direct writes that end in a later turn.
    AsyncDirect,
    /// `O_DSYNC` writes.
    SyncDurable,
    /// Writes, then separate syncs.
    SyncSeparate,
}

impl Mode {
    pub const ALL: [Self; 4] = [Self::AsyncPageCache, Self::AsyncDirect, Self::SyncDurable, Self::SyncSeparate];

    fn flush_mode(self) -> FlushMode {
        if matches!(self, Self::AsyncPageCache | Self::AsyncDirect) { FlushMode::Async } else { FlushMode::Sync }
    }

    fn write_kind(self) -> WriteKind {
        if self == Self::SyncDurable { WriteKind::Durable } else { WriteKind::Volatile }
    }
}

/// Shape of a world.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub mode: Mode,
    pub segment_bytes: u64,
    pub ring_bytes: usize,
    pub in_flight_bytes: usize,
}

impl Shape {
    pub fn new(mode: Mode) -> Self {
        Self { mode, segment_bytes: 64 << 10, ring_bytes: 256 << 10, in_flight_bytes: 1 << 20 }
    }
}

#[derive(Default)]
struct Sink {
    settled: Vec<Settled>,
    woken: Vec<(Arc<Queue>, u64)>,
}

impl SettleSink for Sink {
    fn settled(&mut self, settled: Settled) {
        self.settled.push(settled);
    }

    fn wake(&mut self, queue: &Arc<Queue>, shards: u64) {
        self.woken.push((Arc::clone(queue), shards));
    }
}

/// What the disk really holds.
#[derive(Default)]
struct HeldDisk {
    image: Vec<u8>,
    write: Option<WriteOperation>,
    sync: Option<(SyncOperation, u64)>,
    /// Completed writes end here.
    written: u64,
    /// What a completed sync covers: writes that had completed when it was submitted.
    synced: u64,
}

/// See the module's text.
pub struct World {
    pub core: ShardCore,
    pub view: Arc<LogView>,
    pub queues: Vec<Arc<Queue>>,
    pub store: QueueStore,
    pub control: Receiver<ControlRequest>,
    pub cold: Receiver<ColdPull>,
    /// The steady clock.
    pub now_ms: u64,
    /// How far the wall clock is ahead of it.
    pub wall_ahead_ms: u64,
    pub hold_writes: bool,
    pub hold_syncs: bool,
    /// No further segment can be made.
    pub no_space: bool,
    /// No further segment becomes ready.
    pub hold_segments: bool,
    pub shared: Arc<Shared>,
    shape: Shape,
    disk: HeldDisk,
    sink: Sink,
    /// Bytes that each connection was sent, by slot.
    received: BTreeMap<u32, Vec<u8>>,
    /// Clients that read nothing are only counted.
    pub keep_received: bool,
    pub sent_bytes: u64,
    /// To whom bytes were given, in this order.
    pub sent_to: Vec<SlotId>,
    clients: Vec<SlotId>,
    /// Clients that take no bytes.
    deaf: Vec<SlotId>,
    dirty: Vec<SlotId>,
    relieved: Vec<SlotId>,
    broken: Vec<SlotId>,
}

/// What both shards of a pair serve.
pub fn serving(queues: &[Arc<Queue>]) -> Arc<Serving> {
    let topic = Arc::new(ServingTopic {
        name: Arc::from("T"),
        queues: queues.to_vec(),
        read_queues: QUEUES,
        write_queues: QUEUES,
        permission: 6,
        sys_flag: 0,
        is_ordered: false,
        is_multi_tag: false,
        unserved: None,
        not_sendable: false,
    });
    let subscription = SubscriptionData {
        topic: "T".to_owned(),
        sub_string: "TagA".to_owned(),
        code_set: vec![tags_code(b"TagA") as i32],
        tags_set: vec!["TagA".to_owned()],
        ..SubscriptionData::default()
    };
    let live = LiveGroup {
        consume_type: None,
        message_model: Some(MessageModel::Clustering),
        subscriptions: BTreeMap::from([("T".to_owned(), Arc::new(Subscription::new(subscription)))]),
        connections: Vec::new(),
    };
    let group = |live| {
        Arc::new(GroupEntry {
            config: Arc::new(SubscriptionGroupConfig::new("g")),
            forbidden: BTreeMap::new(),
            live,
            locked_until_ms: Arc::new(AtomicU64::new(0)),
        })
    };
    let identity = ServingIdentity::new(
        "DefaultCluster".to_owned(),
        "DefaultRegion".to_owned(),
        true,
        "127.0.0.1:10911".parse().unwrap(),
    );
    Arc::new(Serving {
        identity: Arc::new(identity),
        topics: FastMap::from_iter([(Arc::from("T"), topic)]),
        groups: Arc::new(FastMap::from_iter([(Arc::from("g"), group(None)), (Arc::from("tagged"), group(Some(live)))])),
        broker_permission: 6,
        max_message_bytes: 4 << 20,
        long_polling: true,
        short_polling_ms: 1_000,
        lite_pull: true,
        accept_sends_from_ms: 0,
        reject_pull_consumers: false,
        transfer: TransferLimits::default(),
    })
}

impl World {
    pub fn new(shape: Shape) -> Self {
        Self::with_peers(shape, Vec::new())
    }

    /// The writer's shard of a process that has others.
    pub fn with_peers(shape: Shape, peers: Vec<WriterPeer>) -> Self {
        let (store, pool) =
            QueueStore::new(Arc::new(SimDisk::new()), Path::new("/queues"), QueueStoreConfig::default());
        let queues: Vec<_> = (0..QUEUES).map(|id| store.get_or_create("T", QueueId(id)).unwrap()).collect();
        let view = LogView::new(LogRing::new(shape.ring_bytes).unwrap(), 2, 0, 0, 0);
        let options = WriterOptions {
            segment_bytes: shape.segment_bytes,
            flush_mode: shape.mode.flush_mode(),
            write_kind: shape.mode.write_kind(),
            sync_flush_timeout_ms: 5_000,
        };
        let writer = Writer::new(Arc::clone(&view), pool, options, 0, shape.segment_bytes, 0, &[]);
        let settings = ShardSettings {
            index: 0,
            max_frame_bytes: MAX_FRAME_BYTES,
            connection_in_flight_bytes: shape.in_flight_bytes,
            memory_window_bytes: 1 << 30,
        };
        let (control_sender, control) = sync_channel(4_096);
        let (cold_sender, cold) = sync_channel(4_096);
        let state = SendState::new("127.0.0.1".parse().unwrap(), 7);
        let config = Layers::default().build().expect("the defaults are a configuration");
        let shared = Arc::new(Shared::new(&config, 1 + peers.len(), 4 << 30, shape.ring_bytes as u64, 64 << 20));
        let core = ShardCore::new(
            settings,
            Arc::clone(&shared),
            Registry::new().probe("shard-0"),
            LogPort::Local(Box::new(writer)),
            Some(Arc::clone(&view)),
            Some(serving(&queues)),
            control_sender,
            cold_sender,
            peers,
            state,
        );
        let image = vec![0; shape.segment_bytes as usize];
        let mut world = Self {
            core,
            view,
            queues,
            store,
            control,
            cold,
            now_ms: 1_000_000,
            wall_ahead_ms: 0,
            hold_writes: false,
            hold_syncs: false,
            no_space: false,
            hold_segments: false,
            shared,
            shape,
            disk: HeldDisk { image, ..HeldDisk::default() },
            sink: Sink::default(),
            received: BTreeMap::new(),
            keep_received: true,
            sent_bytes: 0,
            sent_to: Vec::new(),
            clients: Vec::new(),
            deaf: Vec::new(),
            dirty: Vec::new(),
            relieved: Vec::new(),
            broken: Vec::new(),
        };
        world.core.begin_turn(world.now_ms, world.now_ms * 1_000_000);
        world
    }

    pub fn writer(&mut self) -> &mut Writer {
        self.core.writer_mut().expect("this shard has the writer")
    }

    /// A new connection.
    pub fn connect(&mut self) -> SlotId {
        let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
        let id = self.core.open(None, Listener::Broker, peer).expect("there is room");
        self.received.insert(id.slot, Vec::new());
        self.clients.push(id);
        id
    }

    pub fn close(&mut self, id: SlotId) {
        assert!(self.core.begin_close(id));
        self.clients.retain(|client| *client != id);
        assert!(self.core.finish_close(id));
    }

    /// Sends one frame to the shard.
    pub fn request(&mut self, id: SlotId, command: &Command) {
        self.request_bytes(id, &command.encode());
    }

    /// The same with bytes.
    pub fn request_bytes(&mut self, id: SlotId, bytes: &[u8]) {
        assert!(self.core.received(id, bytes));
        self.regulate(id);
    }

    /// As the event loop does: who is at its limit is not looked at before the shard says so.
    fn regulate(&mut self, id: SlotId) {
        self.core.account(id);
        if self.core.is_over_limit(id)
            && let Some(connection) = self.core.connection_mut(id)
        {
            connection.paused = true;
        }
    }

    /// From now on a client takes nothing that it is sent, or everything.
    pub fn set_deaf(&mut self, id: SlotId, is_deaf: bool) {
        self.deaf.retain(|deaf| *deaf != id);
        if is_deaf {
            self.deaf.push(id);
        }
        self.core.mark_dirty(id);
    }

    /// One turn of the loop, as the event loop makes it. Returns connections that must be closed.
    pub fn turn(&mut self) -> Vec<SlotId> {
        self.now_ms += 1;
        let wall_ms = self.now_ms + self.wall_ahead_ms;
        self.core.begin_turn(wall_ms, self.now_ms * 1_000_000);
        self.finish_operations();
        self.core.take_remote(|| wall_ms);
        self.core.retry_blocked(&mut self.broken);
        self.core.go_on_with_pulls();
        self.write_log();
        self.core.publish_remote();
        self.send_output();
        std::mem::take(&mut self.broken)
    }

    /// Completions of what is not held.
    fn finish_operations(&mut self) {
        if !self.hold_writes && self.disk.write.is_some() {
            self.finish_write();
            self.settle();
        }
        if !self.hold_syncs && self.disk.sync.is_some() {
            self.finish_sync();
            self.settle();
        }
    }

    fn finish_write(&mut self) {
        let Some(operation) = self.disk.write.take() else { return };
        let Some(writer) = self.core.writer_mut() else { return };
        let start = (operation.segment + operation.file_offset) as usize;
        // SAFETY: the writer keeps the memory of a write in place until its completion, and this is the only thread.
        let bytes = unsafe { std::slice::from_raw_parts(writer.write_source(&operation), operation.length) };
        self.disk.image[start..start + operation.length].copy_from_slice(bytes);
        self.disk.written = operation.end;
        writer.write_completed();
    }

    fn finish_sync(&mut self) {
        let Some((_, covers)) = self.disk.sync.take() else { return };
        self.disk.synced = covers;
        self.writer().sync_completed();
    }

    fn write_log(&mut self) {
        loop {
            let inline = self.shape.mode == Mode::AsyncPageCache && !self.hold_writes;
            let Some(writer) = self.core.writer_mut() else { return };
            if self.disk.write.is_none() {
                self.disk.write = writer.next_write();
            }
            if !inline || self.disk.write.is_none() {
                break;
            }
            self.finish_write();
            self.settle();
        }
        self.settle();
        let written = self.disk.written;
        if self.disk.sync.is_none()
            && let Some(sync) = self.writer().next_sync()
        {
            self.disk.sync = Some((sync, written));
        }
        let (end, ready_end) = (self.writer().end(), self.writer().ready_end());
        if self.no_space {
            self.writer().set_disk_full(true);
        } else if end + self.shape.segment_bytes > ready_end && !self.hold_segments {
            self.disk.image.resize((ready_end + self.shape.segment_bytes) as usize, 0);
            self.writer().segment_ready(ready_end);
        }
    }

    fn settle(&mut self) {
        let now_ms = self.now_ms;
        let mut sink = std::mem::take(&mut self.sink);
        self.writer().settle(now_ms, &mut sink);
        for settled in sink.settled.drain(..) {
            self.core.route_settled(settled);
        }
        for (queue, shards) in sink.woken.drain(..) {
            self.core.route_wake(&queue, shards);
        }
        self.sink = sink;
    }

    /// The log fails: what the event loop does then.
    pub fn fail_log(&mut self) {
        let mut sink = std::mem::take(&mut self.sink);
        self.writer().fail(&mut sink);
        for settled in sink.settled.drain(..) {
            self.core.route_settled(settled);
        }
        self.sink = sink;
        self.send_output();
    }

    fn send_output(&mut self) {
        let (received, sent_bytes, sent_to) = (&mut self.received, &mut self.sent_bytes, &mut self.sent_to);
        let keep = self.keep_received;
        self.core.take_dirty(&mut self.dirty);
        let (deaf, view, core) = (&self.deaf, &self.view, &mut self.core);
        self.dirty.retain(|id| {
            if !deaf.contains(id) {
                return true;
            }
            if let Some(connection) = core.connection_mut(*id) {
                connection.outbox.materialize(|physical, length, out| {
                    // SAFETY: the shard pinned the range in this turn.
                    out.extend_from_slice(unsafe { std::slice::from_raw_parts(view.address(physical), length) });
                });
            }
            core.account(*id);
            false
        });
        give_output(&mut self.core, &self.view, &mut self.dirty, |id, bytes| {
            *sent_bytes += bytes.len() as u64;
            let received = received.entry(id.slot).or_default();
            if keep {
                sent_to.push(id);
                received.extend_from_slice(bytes);
            }
        });
        self.view.unpin(0);
        let mut relieved = std::mem::take(&mut self.relieved);
        self.core.take_relieved(&mut relieved);
        for id in relieved.drain(..) {
            match self.core.relieve(id) {
                Some(true) => self.regulate(id),
                Some(false) => self.broken.push(id),
                None => {}
            }
        }
        self.relieved = relieved;
    }

    /// Turns until nothing moves.
    pub fn run(&mut self) {
        for _ in 0..6 {
            let broken = self.turn();
            assert!(broken.is_empty());
        }
    }

    /// Bytes that a client has not looked at yet.
    pub fn has_received(&self, id: SlotId) -> usize {
        self.received.get(&id.slot).map_or(0, Vec::len)
    }

    /// Takes the answers that a client has received.
    pub fn answers(&mut self, id: SlotId) -> Vec<Command> {
        decode_answers(&std::mem::take(self.received.entry(id.slot).or_default()))
    }

    /// Below this everything is as safe as the mode promises, by what the disk did and not by what the writer believes.
    pub fn safe(&self) -> u64 {
        match self.shape.mode {
            Mode::SyncSeparate => self.disk.synced,
            _ => self.disk.written,
        }
    }

    /// The records on the disk below the safe offset: offset, queue, queue offset.
    pub fn stored(&self) -> Vec<(u64, i32, i64)> {
        let mut stored = Vec::new();
        let (mut at, safe) = (0, self.safe());
        while at < safe {
            match RecordView::parse(&self.disk.image[at as usize..safe as usize], CrcCheck::Verify) {
                Ok(record) => {
                    assert_eq!(record.physical_offset() as u64, at);
                    stored.push((at, record.queue_id(), record.queue_offset()));
                    at += record.total_size() as u64;
                }
                Err(RecordError::Blank { remaining }) => at += u64::from(remaining),
                Err(error) => panic!("the disk holds rubbish at {at} below {safe}: {error}"),
            }
        }
        stored
    }

    /// The first thing that readers or clients are shown although the disk does not hold it. `answers` are the answers that have
    /// just come; `None` when all is well.
    pub fn broken_promise(&self, answers: &[Command]) -> Option<String> {
        let (stored, safe) = (self.stored(), self.safe());
        let count = |queue_id: i32| stored.iter().filter(|(_, queue, _)| *queue == queue_id).count() as u64;
        if self.view.confirmed() > safe {
            return Some(format!("confirmed {} of {safe}", self.view.confirmed()));
        }
        for (queue_id, queue) in self.queues.iter().enumerate() {
            let shown = queue.bounds().1.0;
            if shown > count(queue_id as i32) {
                return Some(format!("queue {queue_id} shows {shown} messages, {} are safe", count(queue_id as i32)));
            }
        }
        for answer in answers {
            let ids = answer.ext("msgId").filter(|_| answer.code == 0).unwrap_or_default();
            for id in ids.split(',').filter(|id| !id.is_empty()) {
                let physical = u64::from_str_radix(&id[id.len() - 16..], 16).expect("an id ends with an offset");
                if !stored.iter().any(|(at, ..)| *at == physical) {
                    return Some(format!("the message at {physical} was acknowledged, safe is {safe}"));
                }
            }
            let body = answer.body.as_deref().filter(|_| answer.code == 0).unwrap_or_default();
            for record in Records::new(body, CrcCheck::Verify) {
                let record = record.expect("a pull yields whole records");
                let key = (record.physical_offset() as u64, record.queue_id(), record.queue_offset());
                if !stored.contains(&key) {
                    return Some(format!("the message {key:?} was delivered, safe is {safe}"));
                }
            }
        }
        None
    }
}

/// What a connection was sent, as answers.
pub fn decode_answers(bytes: &[u8]) -> Vec<Command> {
    let mut answers = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match split_frame(&bytes[at..], MAX_FRAME_BYTES) {
            Ok(Split::Frame { frame, length }) => {
                answers.push(Command::decode(frame).expect("an answer can be read"));
                at += length;
            }
            other => panic!("the shard sent no whole frame: {other:?}"),
        }
    }
    answers
}

/// Takes all output of a shard's connections, as if their sockets took everything.
pub fn give_output(core: &mut ShardCore, view: &LogView, dirty: &mut Vec<SlotId>, mut take: impl FnMut(SlotId, &[u8])) {
    core.take_dirty(dirty);
    for id in dirty.drain(..) {
        let Some(connection) = core.connection_mut(id) else { continue };
        if !connection.outbox.has_ring_parts() {
            if let Some((bytes, length)) = connection.outbox.begin_bytes() {
                // SAFETY: the outbox keeps the bytes in place until `finish_bytes`.
                take(id, unsafe { std::slice::from_raw_parts(bytes, length as usize) });
                assert!(connection.outbox.finish_bytes(length as usize, 256 << 10));
                core.account(id);
            }
            continue;
        }
        let (parts, bytes) = connection.outbox.gather();
        for part in parts {
            match *part {
                Part::Bytes { start, end } => take(id, &bytes[start..end]),
                Part::Ring { physical, length } => {
                    // SAFETY: the shard pinned the range in this turn.
                    take(id, unsafe { std::slice::from_raw_parts(view.address(physical), length) })
                }
            }
        }
        connection.outbox.begin_gathered();
        let rest = connection.outbox.finish_gathered(usize::MAX, |_, _, _| panic!("everything was taken"));
        assert!(!rest);
        core.account(id);
    }
}

/// A send of one message.
pub fn send(opaque: i32, queue_id: u32, body: &[u8], properties: &str) -> Command {
    let fields =
        [("a", "pg"), ("b", "T"), ("c", "TBW102"), ("d", "4"), ("f", "0"), ("g", "1"), ("h", "0"), ("i", properties)];
    let command = Command::request(310).with_body(body.to_vec()).with_ext("e", queue_id);
    let mut command = fields.iter().fold(command, |command, (key, value)| command.with_ext(key, value));
    command.opaque = opaque;
    command
}

/// A send of a batch.
pub fn send_batch(opaque: i32, queue_id: u32, bodies: &[&[u8]]) -> Command {
    let mut body = Vec::new();
    for message in bodies {
        write_batch_entry(&mut body, &BatchEntry { flag: 0, body: message, properties: b"TAGS\x01TagA\x02" });
    }
    send(opaque, queue_id, &body, "").with_ext("m", "true")
}

/// A pull; `hold_ms` of 0 asks not to be held.
pub fn pull(opaque: i32, group: &str, queue_id: u32, offset: i64, hold_ms: u64) -> Command {
    let is_tagged = group == "tagged";
    let sys_flag = if hold_ms > 0 { 2 } else { 0 } + if is_tagged { 0 } else { 4 };
    let fields = [("consumerGroup", group), ("topic", "T"), ("subscription", "*"), ("expressionType", "TAG")];
    let command = fields.iter().fold(Command::request(11), |command, (key, value)| command.with_ext(key, value));
    let mut command = command
        .with_ext("queueId", queue_id)
        .with_ext("queueOffset", offset)
        .with_ext("maxMsgNums", 32)
        .with_ext("sysFlag", sys_flag)
        .with_ext("commitOffset", 0)
        .with_ext("suspendTimeoutMillis", hold_ms)
        .with_ext("subVersion", 0);
    command.opaque = opaque;
    command
}

/// The same request in the other coding.
pub fn as_binary(mut command: Command) -> Command {
    command.serialize_type = SerializeType::RocketMq;
    command
}
