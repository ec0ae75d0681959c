//! A shard without its kernel: connections, requests and answers as plain state.
//!
//! The event loop feeds it bytes and completions and carries out what it asks for; tests do the same with neither sockets nor
//! files. All state here belongs to the shard's thread.
//!
//! Invariants:
//! - no answer to a send is encoded before the writer has settled its record;
//! - a request that cannot go on for want of room in the log stays in its connection's input, in order;
//! - ring memory is referenced only in the turn that pinned it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::FieldError;
use ringmq_protocol::frame::{Frame, SerializeType, Split, split_frame};
use ringmq_protocol::header::{Header, HeaderDecoder};
use ringmq_protocol::pull::{PullHeader, PullResult, write_pull_response_head};
use ringmq_protocol::response::write_error;
use ringmq_protocol::send::{MessageIds, SendHeader, SendResult, write_send_response};
use ringmq_shards::log::writer::{Piece, Ticket};
use ringmq_shards::log::{AppendError, LogView, Settled, Verdict, Writer};
use ringmq_shards::queue::Queue;
use ringmq_shards::runtime::MailboxSender;
use ringmq_shards::types::QueueOffset;

use super::connection::{Connection, Listener, connection_number};
use super::hold::{HeldPulls, PullJob};
use super::limits;
use super::messages::{CarriedCommit, ColdPull, ControlRequest, RemoteAppend, ShardMessage};
use super::serving::Serving;
use super::slab::{Slab, SlotId};
use crate::broker::pull::{self, PullCheck, Range, ReadLimits, Reading, Status};
use crate::broker::send::{self, NotNow, Refusal, SendState};

/// Longest unique key that a pending send keeps in place; longer ones (none are known) are boxed.
const KEY_BYTES: usize = 64;

/// A message's unique key, kept for its answer.
enum UniqueKey {
    None,
    Short([u8; KEY_BYTES], u8),
    Long(Box<[u8]>),
}

impl UniqueKey {
    fn new(key: &[u8]) -> Self {
        if key.is_empty() {
            return Self::None;
        }
        if key.len() > KEY_BYTES {
            return Self::Long(key.into());
        }
        let mut bytes = [0; KEY_BYTES];
        bytes[..key.len()].copy_from_slice(key);
        Self::Short(bytes, key.len() as u8)
    }

    fn as_text(&self) -> Option<&str> {
        let bytes = match self {
            Self::None => return None,
            Self::Short(bytes, length) => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        };
        std::str::from_utf8(bytes).ok()
    }
}

/// A send whose record is on its way.
struct PendingSend {
    connection: SlotId,
    opaque: i32,
    serialize_type: SerializeType,
    queue_id: i32,
    request_bytes: usize,
    unique_key: UniqueKey,
    /// Sizes of the records of a batch; empty for a single message.
    sizes: Vec<u32>,
}

/// How the shard's records reach the writer.
pub enum LogPort {
    /// This is the writer's shard.
    Local(Box<Writer>),
    /// The writer is elsewhere.
    Remote(MailboxSender<ShardMessage>),
    /// This process has no broker.
    None,
}

/// What a shard is told at its start.
#[derive(Debug, Clone)]
pub struct ShardSettings {
    /// Number of this shard, also its pin slot in the log view.
    pub index: usize,
    /// Largest frame, its length field included.
    pub max_frame_bytes: usize,
    /// See [`limits::CONNECTION_IN_FLIGHT_BYTES`].
    pub connection_in_flight_bytes: usize,
    /// Connections of this shard.
    pub max_connections: usize,
    /// Held pulls of this shard.
    pub max_held_pulls: usize,
    /// Messages within this many bytes of the log's end count as being in memory (`accessMessageInMemoryMaxRatio`).
    pub memory_window_bytes: u64,
}

/// Counters of one shard, read by the metrics endpoint through a snapshot.
#[derive(Debug, Clone, Copy, Default)]
pub struct ShardCounters {
    /// Turns of the loop.
    pub turns: u64,
    /// Frames received.
    pub requests: u64,
    /// Messages accepted by sends.
    pub messages_in: u64,
    /// Body bytes accepted by sends, frames included.
    pub bytes_in: u64,
    /// Sends refused, by any code.
    pub sends_refused: u64,
    /// Pulls answered with messages.
    pub pulls_found: u64,
    /// Record bytes of pulls.
    pub bytes_out: u64,
    /// Pulls that were handed to the store thread.
    pub pulls_cold: u64,
    /// Connections closed because of bytes that are no frame.
    pub protocol_errors: u64,
    /// Times a request waited for room in the log.
    pub blocked: u64,
    /// Cross-core messages that sends of this shard needed.
    pub send_hops: u64,
    /// Sends that needed them.
    pub remote_sends: u64,
}

/// What became of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Taken; go on with the next.
    Done,
    /// Waits for room; it stays in the input.
    Blocked,
    /// The connection cannot be understood any more.
    Broken,
}

/// The shard.
pub struct ShardCore {
    settings: ShardSettings,
    serving: Option<Arc<Serving>>,
    view: Option<Arc<LogView>>,
    log: LogPort,
    control: SyncSender<ControlRequest>,
    cold: SyncSender<ColdPull>,
    peers: Vec<MailboxSender<ShardMessage>>,
    connections: Slab<Connection>,
    pending: Slab<PendingSend>,
    held: HeldPulls,
    decoder: HeaderDecoder,
    send_state: SendState,
    dirty: Vec<SlotId>,
    blocked: Vec<SlotId>,
    /// The empty list that `blocked` changes places with.
    spare_blocked: Vec<SlotId>,
    ranges: Vec<Range>,
    offsets: Vec<i64>,
    woken: Vec<SlotId>,
    commits: HashMap<(usize, usize), CarriedCommit>,
    spare_sizes: Vec<Vec<u32>>,
    input_bytes: usize,
    now_ms: u64,
    stopping: bool,
    counters: ShardCounters,
}

impl ShardCore {
    /// A shard without connections. `view` is the log's, `serving` comes later by message.
    #[allow(clippy::too_many_arguments, reason = "everything that a shard is wired to, once")]
    pub fn new(
        settings: ShardSettings,
        log: LogPort,
        view: Option<Arc<LogView>>,
        serving: Option<Arc<Serving>>,
        control: SyncSender<ControlRequest>,
        cold: SyncSender<ColdPull>,
        peers: Vec<MailboxSender<ShardMessage>>,
        send_state: SendState,
    ) -> Self {
        Self {
            connections: Slab::new(settings.max_connections),
            pending: Slab::new(limits::MAX_PENDING_SENDS),
            held: HeldPulls::new(settings.max_held_pulls),
            settings,
            serving,
            view,
            log,
            control,
            cold,
            peers,
            decoder: HeaderDecoder::new(),
            send_state,
            dirty: Vec::new(),
            blocked: Vec::new(),
            spare_blocked: Vec::new(),
            ranges: Vec::new(),
            offsets: Vec::new(),
            woken: Vec::new(),
            commits: HashMap::new(),
            spare_sizes: Vec::new(),
            input_bytes: 0,
            now_ms: 0,
            stopping: false,
            counters: ShardCounters::default(),
        }
    }

    /// Number of this shard.
    pub fn index(&self) -> usize {
        self.settings.index
    }

    /// Counters so far.
    pub fn counters(&self) -> ShardCounters {
        self.counters
    }

    /// Connections, held pulls and pending sends now.
    pub fn gauges(&self) -> (usize, usize, usize) {
        (self.connections.len(), self.held.len(), self.pending.len())
    }

    /// Bytes of all connections that make no whole frame yet, or wait for room in the log.
    pub fn input_bytes(&self) -> usize {
        self.input_bytes
    }

    /// The writer, on its shard.
    pub fn writer_mut(&mut self) -> Option<&mut Writer> {
        match &mut self.log {
            LogPort::Local(writer) => Some(writer),
            LogPort::Remote(_) | LogPort::None => None,
        }
    }

    /// Begins a turn at `now_ms` (milliseconds since the epoch).
    pub fn begin_turn(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.counters.turns += 1;
        if let LogPort::Local(writer) = &mut self.log {
            writer.begin_turn();
        }
    }

    /// The clock of this turn.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    // ------------------------------------------------------------------------------------------ connections

    /// Takes a connection in. `None` when there are too many: the caller closes the socket.
    pub fn open(&mut self, socket: Option<OwnedFd>, listener: Listener, peer: SocketAddr) -> Option<SlotId> {
        if self.connections.is_full() {
            return None;
        }
        let id = self.connections.insert(Connection::new(socket, listener, peer, self.now_ms))?;
        let connection = connection_number(self.settings.index, id);
        if self.control.try_send(ControlRequest::Opened { connection, listener, peer }).is_err() {
            self.connections.remove(id);
            return None;
        }
        Some(id)
    }

    /// A connection.
    pub fn connection_mut(&mut self, id: SlotId) -> Option<&mut Connection> {
        self.connections.get_mut(id)
    }

    /// All connections' names.
    pub fn connection_ids(&self) -> Vec<SlotId> {
        self.connections.iter().map(|(id, _)| id).collect()
    }

    /// Marks a connection as closing: nothing more is read from it or sent to it. True the first time.
    pub fn begin_close(&mut self, id: SlotId) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        if connection.closing {
            return false;
        }
        connection.closing = true;
        self.input_bytes -= connection.input.len();
        connection.input = Vec::new();
        let mut held = std::mem::take(&mut self.woken);
        held.clear();
        self.held.of_connection(id, &mut held);
        for job in held.drain(..) {
            self.held.remove(job);
        }
        self.woken = held;
        true
    }

    /// Frees a closed connection, when no operation is in flight for it. The control thread must hear of it even when its
    /// mailbox is full: the caller repeats until this returns true.
    pub fn finish_close(&mut self, id: SlotId) -> bool {
        let connection = connection_number(self.settings.index, id);
        match self.control.try_send(ControlRequest::Closed { connection }) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {
                self.connections.remove(id);
                true
            }
            Err(TrySendError::Full(_)) => false,
        }
    }

    fn mark_dirty(&mut self, id: SlotId) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.is_dirty
            && !connection.closing
        {
            connection.is_dirty = true;
            self.dirty.push(id);
        }
    }

    /// Moves the names of connections with new output to `out`.
    pub fn take_dirty(&mut self, out: &mut Vec<SlotId>) {
        out.append(&mut self.dirty);
        for id in out.iter() {
            if let Some(connection) = self.connections.get_mut(*id) {
                connection.is_dirty = false;
            }
        }
    }

    /// Whether a connection has reached its limit and should not be read. A frame that is not complete is read on, however
    /// long it is: one request is always admitted.
    pub fn is_over_limit(&self, id: SlotId) -> bool {
        self.is_full(id)
            || self.connections.get(id).is_some_and(|connection| {
                let input = connection.input.len();
                input > self.settings.connection_in_flight_bytes && input >= connection.wanted_input
            })
    }

    /// Whether requests without an answer and answers that are not taken reach a connection's limit: then none of its
    /// requests is executed, also not one that has arrived.
    pub fn is_full(&self, id: SlotId) -> bool {
        self.connections.get(id).is_some_and(|connection| {
            connection.unanswered_bytes + connection.outbox.queued_bytes() > self.settings.connection_in_flight_bytes
        })
    }

    // ------------------------------------------------------------------------------------------ input

    /// Bytes have arrived. False when the connection must be closed.
    pub fn received(&mut self, id: SlotId, bytes: &[u8]) -> bool {
        let is_full = self.is_full(id);
        let Some(connection) = self.connections.get_mut(id) else { return true };
        if connection.closing {
            return true;
        }
        connection.last_active_ms = self.now_ms;
        if !connection.input.is_empty() || connection.is_blocked || is_full {
            connection.input.extend_from_slice(bytes);
            self.input_bytes += bytes.len();
            return self.continue_input(id);
        }
        let Some(used) = self.parse(id, bytes) else { return false };
        if used < bytes.len() {
            return self.keep(id, &bytes[used..]);
        }
        true
    }

    /// Keeps what does not make a frame yet.
    fn keep(&mut self, id: SlotId, rest: &[u8]) -> bool {
        if self.input_bytes + rest.len() > limits::INPUT_BYTES {
            return false;
        }
        let Some(connection) = self.connections.get_mut(id) else { return true };
        connection.input.extend_from_slice(rest);
        connection.frame_began_ms = self.now_ms;
        self.input_bytes += rest.len();
        true
    }

    /// Looks at kept input again. False when the connection must be closed.
    pub fn continue_input(&mut self, id: SlotId) -> bool {
        if self.input_bytes > limits::INPUT_BYTES {
            return false;
        }
        if self.is_full(id) {
            return true;
        }
        let Some(connection) = self.connections.get_mut(id) else { return true };
        if connection.closing || connection.input.len() < connection.wanted_input || connection.is_blocked {
            return true;
        }
        let mut input = std::mem::take(&mut connection.input);
        self.input_bytes -= input.len();
        let used = self.parse(id, &input);
        let Some(used) = used else { return false };
        let Some(connection) = self.connections.get_mut(id) else { return true };
        input.drain(..used);
        if used > 0 {
            connection.frame_began_ms = self.now_ms;
        }
        if input.is_empty() {
            input.shrink_to(limits::KEEP_BUFFER_BYTES);
        }
        self.input_bytes += input.len();
        connection.input = input;
        true
    }

    /// Requests that waited for the log are tried again.
    pub fn retry_blocked(&mut self, broken: &mut Vec<SlotId>) {
        if self.blocked.is_empty() {
            return;
        }
        let mut blocked = std::mem::replace(&mut self.blocked, std::mem::take(&mut self.spare_blocked));
        for id in blocked.drain(..) {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.is_blocked = false;
                connection.wanted_input = 0;
                if !self.continue_input(id) {
                    broken.push(id);
                } else if self.is_full(id) {
                    // What has arrived already is looked at again when answers have been taken.
                    self.block(id);
                }
            }
        }
        self.spare_blocked = blocked;
    }

    /// Whether requests wait for room in the log.
    pub fn has_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Cuts frames off the front of `bytes` and executes them; gives the number of bytes used, `None` when the connection
    /// is broken.
    fn parse(&mut self, id: SlotId, bytes: &[u8]) -> Option<usize> {
        let mut decoder = std::mem::take(&mut self.decoder);
        let serving = self.serving.take();
        let mut used = 0;
        let mut wanted = 0;
        let mut broken = false;
        while used < bytes.len() {
            match split_frame(&bytes[used..], self.settings.max_frame_bytes) {
                Ok(Split::NeedMore { total }) => {
                    wanted = total.unwrap_or(0);
                    break;
                }
                Ok(Split::Frame { frame, length }) => {
                    let whole = &bytes[used..used + length];
                    match self.frame(id, &mut decoder, serving.as_deref(), frame, whole) {
                        Progress::Done => used += length,
                        Progress::Blocked => {
                            self.block(id);
                            break;
                        }
                        Progress::Broken => {
                            broken = true;
                            break;
                        }
                    }
                    if self.is_full(id) {
                        break;
                    }
                }
                Err(error) => {
                    tracing::info!(%error, "close a connection whose bytes are no frame");
                    broken = true;
                    break;
                }
            }
        }
        self.decoder = decoder;
        self.serving = serving;
        if broken {
            self.counters.protocol_errors += 1;
            return None;
        }
        if let Some(connection) = self.connections.get_mut(id) {
            connection.wanted_input = wanted;
        }
        Some(used)
    }

    fn block(&mut self, id: SlotId) {
        self.counters.blocked += 1;
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.is_blocked
        {
            connection.is_blocked = true;
            self.blocked.push(id);
        }
    }

    fn frame(
        &mut self,
        id: SlotId,
        decoder: &mut HeaderDecoder,
        serving: Option<&Serving>,
        frame: Frame<'_>,
        whole: &[u8],
    ) -> Progress {
        let header = match decoder.decode_frame(&frame) {
            Ok(header) => header,
            Err(error) => {
                tracing::info!(%error, "close a connection whose header cannot be read");
                return Progress::Broken;
            }
        };
        if header.is_response() {
            return self.hand_to_control(id, &header, whole);
        }
        let is_broker = self.connections.get(id).is_some_and(|connection| connection.listener == Listener::Broker);
        let progress = match header.code {
            request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE if is_broker => {
                self.send(id, serving, &header, frame.body, whole)
            }
            request::PULL_MESSAGE | request::LITE_PULL_MESSAGE if is_broker => self.pull(id, serving, &header, whole),
            _ => self.hand_to_control(id, &header, whole),
        };
        if progress == Progress::Done {
            self.counters.requests += 1;
        }
        progress
    }

    fn hand_to_control(&mut self, id: SlotId, header: &Header<'_>, whole: &[u8]) -> Progress {
        self.flush_commits();
        let connection = connection_number(self.settings.index, id);
        let message = ControlRequest::Command { connection, frame: whole.to_vec() };
        self.ask_control(id, header, whole.len(), message)
    }

    fn ask_control(&mut self, id: SlotId, header: &Header<'_>, bytes: usize, message: ControlRequest) -> Progress {
        match self.control.try_send(message) {
            Ok(()) => self.charge(id, bytes),
            Err(_) => self.refuse(
                id,
                header,
                &Refusal::new(
                    response::SYSTEM_BUSY,
                    "too many requests wait for the broker's control thread; try again",
                ),
            ),
        }
        Progress::Done
    }

    fn charge(&mut self, id: SlotId, bytes: usize) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.unanswered_bytes += bytes;
        }
    }

    fn discharge(&mut self, id: SlotId, bytes: usize) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.unanswered_bytes = connection.unanswered_bytes.saturating_sub(bytes);
        }
    }

    fn refuse(&mut self, id: SlotId, header: &Header<'_>, refusal: &Refusal) {
        self.refuse_with(id, header, refusal, &[]);
    }

    fn refuse_with(&mut self, id: SlotId, header: &Header<'_>, refusal: &Refusal, ext: &[(&str, &str)]) {
        if header.is_oneway() {
            return;
        }
        if let Some(connection) = self.connections.get_mut(id) {
            let out = connection.outbox.buffer();
            write_error(out, header.serialize_type, header.opaque, refusal.code, &refusal.remark, ext);
            self.mark_dirty(id);
        }
    }

    // ------------------------------------------------------------------------------------------ sends

    fn refuse_send(&mut self, id: SlotId, header: &Header<'_>, serving: &Serving, refusal: &Refusal) -> Progress {
        self.counters.sends_refused += 1;
        let trace_on = if serving.identity.trace_on { "true" } else { "false" };
        let ext = [("MSG_REGION", serving.identity.region_id.as_str()), ("TRACE_ON", trace_on)];
        self.refuse_with(id, header, refusal, &ext);
        Progress::Done
    }

    fn field_error(&mut self, id: SlotId, header: &Header<'_>, error: FieldError) -> Progress {
        self.refuse(id, header, &Refusal::new(response::SYSTEM_ERROR, error.to_string()));
        Progress::Done
    }

    fn send(
        &mut self,
        id: SlotId,
        serving: Option<&Serving>,
        header: &Header<'_>,
        body: &[u8],
        whole: &[u8],
    ) -> Progress {
        let Some(serving) = serving else {
            let refusal = Refusal::new(response::SERVICE_NOT_AVAILABLE, "the broker is starting");
            self.refuse(id, header, &refusal);
            return Progress::Done;
        };
        if self.stopping {
            let refusal = Refusal::new(response::SERVICE_NOT_AVAILABLE, "the broker is shutting down");
            return self.refuse_send(id, header, serving, &refusal);
        }
        if self.pending.is_full() {
            return Progress::Blocked;
        }
        let request = match SendHeader::decode(header.code, header) {
            Ok(request) => request,
            Err(error) => return self.field_error(id, header, error),
        };
        let Some(peer) = self.connections.get(id).map(|connection| connection.peer) else { return Progress::Done };
        let target = match send::check_target(&mut self.send_state, serving, &request) {
            Ok(target) => target,
            Err(NotNow::Refused(refusal)) => return self.refuse_send(id, header, serving, &refusal),
            Err(NotNow::CreateTopic) => {
                let connection = connection_number(self.settings.index, id);
                let answers = whole.len();
                let message = ControlRequest::CreateTopic { connection, frame: whole.to_vec(), answers };
                return self.ask_control(id, header, answers, message);
            }
        };
        let Some(queue) = target.topic.queues.get(target.queue_id as usize) else {
            let refusal = Refusal::new(response::SYSTEM_ERROR, "the queue is not open yet");
            return self.refuse_send(id, header, serving, &refusal);
        };
        let outcome = if request.batch {
            match send::prepare_batch(&mut self.send_state, serving, &target, &request, body, peer) {
                Ok(mut batch) => {
                    let sizes = self.spare_sizes.pop().unwrap_or_default();
                    let summary = ringmq_protocol::properties::scan_properties(request.properties.as_bytes());
                    let key = summary.unique_key.map_or(&[][..], |range| range.of(request.properties.as_bytes()));
                    let mut pending = self.pending_send(id, header, target.queue_id, whole.len(), key);
                    pending.sizes = sizes;
                    pending.sizes.extend(self.send_state.pieces().iter().map(|piece| piece.size));
                    let pieces = self.send_state.pieces();
                    let (mut kept, mut none) = (Some(pending), None);
                    let outcome = append(
                        &mut self.log,
                        &mut self.pending,
                        &mut self.counters,
                        self.settings.index,
                        Append {
                            queue,
                            length: batch.length,
                            pieces,
                            wait: batch.wait,
                            pending: if header.is_oneway() { &mut none } else { &mut kept },
                            now_ms: self.now_ms,
                        },
                        |out| batch.encode(out),
                    );
                    self.send_state.give_back(batch);
                    if let Some(pending) = kept {
                        self.keep_sizes(pending.sizes);
                    }
                    outcome
                }
                Err(refusal) => return self.refuse_send(id, header, serving, &refusal),
            }
        } else {
            let prepared =
                send::prepare_single(&mut self.send_state, serving, &target, &request, body, peer, self.now_ms);
            match prepared {
                Ok(single) => {
                    let pending = PendingSend {
                        connection: id,
                        opaque: header.opaque,
                        serialize_type: header.serialize_type,
                        queue_id: target.queue_id as i32,
                        request_bytes: whole.len(),
                        unique_key: UniqueKey::new(single.unique_key()),
                        sizes: Vec::new(),
                    };
                    let piece = Piece { size: single.length as u32, tags_code: single.tags_code };
                    append(
                        &mut self.log,
                        &mut self.pending,
                        &mut self.counters,
                        self.settings.index,
                        Append {
                            queue,
                            length: single.length,
                            pieces: &[piece],
                            wait: single.wait,
                            pending: &mut (!header.is_oneway()).then_some(pending),
                            now_ms: self.now_ms,
                        },
                        |out| single.encode(out),
                    )
                }
                Err(refusal) => return self.refuse_send(id, header, serving, &refusal),
            }
        };
        match outcome {
            Ok(messages) => {
                self.counters.messages_in += messages as u64;
                self.counters.bytes_in += whole.len() as u64;
                if !header.is_oneway() {
                    self.charge(id, whole.len());
                }
                Progress::Done
            }
            Err(error) if error.is_temporary() => Progress::Blocked,
            Err(error) => {
                let code = match error {
                    AppendError::TooLarge(_) => response::MESSAGE_ILLEGAL,
                    AppendError::DiskFull => response::SERVICE_NOT_AVAILABLE,
                    _ => response::SYSTEM_ERROR,
                };
                self.refuse_send(id, header, serving, &Refusal::new(code, error.to_string()))
            }
        }
    }

    fn pending_send(
        &self,
        connection: SlotId,
        header: &Header<'_>,
        queue_id: u32,
        request_bytes: usize,
        unique_key: &[u8],
    ) -> PendingSend {
        PendingSend {
            connection,
            opaque: header.opaque,
            serialize_type: header.serialize_type,
            queue_id: queue_id as i32,
            request_bytes,
            unique_key: UniqueKey::new(unique_key),
            sizes: Vec::new(),
        }
    }

    /// A record of another shard reaches the writer. False when it must be offered again next turn.
    pub fn remote_append(&mut self, append: &RemoteAppend) -> bool {
        let LogPort::Local(writer) = &mut self.log else { return true };
        let now_ms = self.now_ms;
        match writer.admit(append.bytes.len(), append.pieces.len(), &append.queue) {
            Ok(admission) => {
                writer.slot(admission).copy_from_slice(&append.bytes);
                writer.bind(admission, &append.queue, &append.pieces, append.ticket, append.wait, now_ms);
                true
            }
            Err(error) if error.is_temporary() => false,
            Err(_) => {
                // The shard checked what it could; what is left is a failed or full disk.
                if let Some(ticket) = append.ticket {
                    let settled = Settled { ticket, verdict: Verdict::Failed, physical: 0, queue_offset: 0 };
                    self.route_settled(settled);
                }
                true
            }
        }
    }

    /// A verdict of the writer goes to the shard that asked.
    pub fn route_settled(&mut self, settled: Settled) {
        let shard = usize::from(settled.ticket.shard);
        if shard == self.settings.index {
            self.settled(settled);
        } else if self.peers[shard].send(ShardMessage::Settled(settled)).is_err() {
            tracing::error!(shard, "the mailbox of a shard is full; an answer is lost and its client will time out");
        }
    }

    /// A send of this shard has its verdict: encode the answer.
    pub fn settled(&mut self, settled: Settled) {
        let Some(slot) = self.pending.id_of(settled.ticket.slot) else { return };
        let Some(mut pending) = self.pending.remove(slot) else { return };
        let id = pending.connection;
        self.discharge(id, pending.request_bytes);
        let store_host = self.serving.as_ref().map(|serving| serving.identity.clone());
        if let (Some(connection), Some(identity)) = (self.connections.get_mut(id), store_host) {
            if settled.verdict == Verdict::Failed {
                let out = connection.outbox.buffer();
                let remark = "the log could not be written; nothing more is stored until the broker is restarted";
                write_error(out, pending.serialize_type, pending.opaque, response::SYSTEM_ERROR, remark, &[]);
            } else {
                self.offsets.clear();
                let mut physical = settled.physical;
                self.offsets.push(physical as i64);
                for size in pending.sizes.iter().take(pending.sizes.len().saturating_sub(1)) {
                    physical += u64::from(*size);
                    self.offsets.push(physical as i64);
                }
                let (code, remark) = match settled.verdict {
                    Verdict::FlushTimeout => (response::FLUSH_DISK_TIMEOUT, Some("FLUSH_DISK_TIMEOUT")),
                    Verdict::Stored | Verdict::Failed => (response::SUCCESS, None),
                };
                let result = SendResult {
                    message_ids: MessageIds { store_host: identity.store_host, physical_offsets: &self.offsets },
                    queue_id: pending.queue_id,
                    queue_offset: settled.queue_offset as i64,
                    transaction_id: pending.unique_key.as_text(),
                    region_id: &identity.region_id,
                    trace_on: identity.trace_on,
                };
                let out = connection.outbox.buffer();
                write_send_response(out, pending.serialize_type, pending.opaque, code, remark, &result);
            }
            self.mark_dirty(id);
        }
        self.keep_sizes(std::mem::take(&mut pending.sizes));
    }

    /// Keeps the memory of a batch's sizes for the next one.
    fn keep_sizes(&mut self, mut sizes: Vec<u32>) {
        if sizes.capacity() > 0 {
            sizes.clear();
            self.spare_sizes.push(sizes);
        }
    }

    // ------------------------------------------------------------------------------------------ pulls

    fn pull(&mut self, id: SlotId, serving: Option<&Serving>, header: &Header<'_>, whole: &[u8]) -> Progress {
        let Some(serving) = serving else {
            self.refuse(id, header, &Refusal::new(response::SYSTEM_ERROR, "the broker is starting"));
            return Progress::Done;
        };
        let request = match PullHeader::decode(header) {
            Ok(request) => request,
            Err(error) => return self.field_error(id, header, error),
        };
        let (topic, group, group_name, queue_id, filter) = match pull::check(serving, header.code, &request) {
            PullCheck::Go { topic, group, group_name, queue_id, filter } => {
                (topic, group, group_name, queue_id, filter)
            }
            PullCheck::CreateGroup => {
                let connection = connection_number(self.settings.index, id);
                let answers = whole.len() + pull::MEMORY_BYTES;
                let message = ControlRequest::CreateGroup { connection, frame: whole.to_vec(), answers };
                // Its answer counts from now on, so that a peer cannot pile up such pulls.
                return self.ask_control(id, header, answers, message);
            }
            PullCheck::Refused(refusal) => {
                let forbidden = refusal.forbidden_type.map(|number| number.to_string());
                let ext: &[(&str, &str)] = match &forbidden {
                    Some(number) => &[("forbiddenType", number.as_str())],
                    None => &[],
                };
                self.refuse_with(id, header, &Refusal { code: refusal.code, remark: refusal.remark }, ext);
                return Progress::Done;
            }
        };
        let Some(queue) = topic.queues.get(queue_id as usize) else {
            self.refuse(id, header, &Refusal::new(response::SYSTEM_ERROR, "the queue is not open yet"));
            return Progress::Done;
        };
        if request.sys_flag & ringmq_protocol::flags::pull::COMMIT_OFFSET != 0 {
            let key = (Arc::as_ptr(group_name).cast::<u8>() as usize, Arc::as_ptr(queue) as usize);
            let commit = self.commits.entry(key).or_insert_with(|| CarriedCommit {
                group: Arc::clone(group_name),
                queue: Arc::clone(queue),
                offset: 0,
            });
            commit.offset = request.commit_offset;
        }
        let may_hold = request.sys_flag & ringmq_protocol::flags::pull::SUSPEND != 0 && !self.stopping;
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
            deadline_ms: self.now_ms.saturating_add(hold_ms),
        };
        self.charge(id, whole.len());
        self.execute_pull(job, may_hold);
        Progress::Done
    }

    fn read_limits(&self, max_messages: usize) -> ReadLimits {
        let end = self.view.as_ref().map_or(0, |view| view.confirmed());
        ReadLimits { max_messages, memory_from: end.saturating_sub(self.settings.memory_window_bytes) }
    }

    /// Answers a pull, holds it, or hands it to the store thread.
    fn execute_pull(&mut self, job: PullJob, may_hold: bool) {
        let mut ranges = std::mem::take(&mut self.ranges);
        let limits = self.read_limits(job.max_messages);
        let reading = pull::read_tail(&job.queue, job.offset, limits, &job.filter, &mut ranges);
        match reading {
            Some(reading) if reading.status == Status::Found => {
                let first = ranges.first().map_or(0, |range| range.physical);
                let in_ring = self.view.as_ref().is_some_and(|view| view.pin(self.settings.index, first));
                if in_ring {
                    self.answer_pull(&job, &reading, Some(&ranges));
                } else {
                    self.cold_pull(job);
                }
            }
            Some(reading) if may_hold && reading.status.code(job.offset) == response::PULL_NOT_FOUND => {
                self.hold_pull(job, &reading);
            }
            Some(reading) => self.answer_pull(&job, &reading, None),
            None => self.cold_pull(job),
        }
        self.ranges = ranges;
    }

    fn hold_pull(&mut self, job: PullJob, reading: &Reading) {
        let queue = Arc::clone(&job.queue);
        match self.held.hold(job) {
            Err(job) => self.answer_pull(&job, reading, None),
            Ok(id) => {
                // A message that was published between the read and the announcement wakes nobody: serve it here.
                let seen = QueueOffset(reading.max as u64);
                if queue.arm_waiters(self.settings.index, seen).is_some()
                    && let Some(job) = self.held.remove(id)
                {
                    self.execute_pull(job, true);
                }
            }
        }
    }

    fn answer_pull(&mut self, job: &PullJob, reading: &Reading, ranges: Option<&[Range]>) {
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
        if ranges.is_some() {
            self.counters.pulls_found += 1;
            self.counters.bytes_out += reading.bytes as u64;
        }
        self.mark_dirty(job.connection);
    }

    fn cold_pull(&mut self, job: PullJob) {
        self.counters.pulls_cold += 1;
        self.charge(job.connection, pull::MEMORY_BYTES);
        let cold = ColdPull {
            connection: connection_number(self.settings.index, job.connection),
            answers: job.request_bytes + pull::MEMORY_BYTES,
            opaque: job.opaque,
            serialize_type: job.serialize_type,
            queue: Arc::clone(&job.queue),
            offset: u64::try_from(job.offset).unwrap_or(0),
            max_messages: job.max_messages,
            filter: job.filter,
            topic_sys_flag: job.topic_sys_flag,
            group_sys_flag: job.group_sys_flag,
        };
        if self.cold.try_send(cold).is_err() {
            self.discharge(job.connection, job.request_bytes + pull::MEMORY_BYTES);
            if let Some(connection) = self.connections.get_mut(job.connection) {
                let remark = "too many reads from disk are waiting (cold reads); try again";
                let out = connection.outbox.buffer();
                write_error(out, job.serialize_type, job.opaque, response::SYSTEM_BUSY, remark, &[]);
                self.mark_dirty(job.connection);
            }
        }
    }

    /// A queue with pulls of this shard has new messages.
    pub fn wake(&mut self, queue: &Arc<Queue>) {
        let mut woken = std::mem::take(&mut self.woken);
        woken.clear();
        self.held.of_queue(queue, &mut woken);
        let (_, max) = queue.bounds();
        let mut still_waiting = false;
        for id in woken.drain(..) {
            let Some(job) = self.held.get_mut(id) else { continue };
            if max.0 as i64 <= job.scanned_to {
                still_waiting = true;
                continue;
            }
            let limits = self.read_limits(1);
            let Some(job) = self.held.get_mut(id) else { continue };
            let mut ranges = std::mem::take(&mut self.ranges);
            // One read looks at a bounded number of entries: go on to the end, or nobody looks at the rest before the next message.
            let passes = loop {
                let probe = pull::read_tail(queue, job.scanned_to, limits, &job.filter, &mut ranges);
                match probe {
                    Some(reading) if reading.status == Status::NoMatchedMessage => {
                        job.scanned_to = reading.next;
                        if job.scanned_to >= max.0 as i64 {
                            break false;
                        }
                    }
                    _ => break true,
                }
            };
            self.ranges = ranges;
            if !passes {
                still_waiting = true;
            } else if let Some(mut job) = self.held.remove(id) {
                // What was looked at already is not looked at again: a read from the start may not reach the message.
                job.offset = job.scanned_to;
                self.execute_pull(job, false);
            }
        }
        self.woken = woken;
        if still_waiting && queue.arm_waiters(self.settings.index, max).is_some() {
            self.wake(queue);
        }
    }

    /// Answers pulls whose time is up.
    pub fn expire_pulls(&mut self) {
        while let Some(id) = self.held.expired(self.now_ms) {
            self.release_pull(id);
        }
    }

    fn release_pull(&mut self, id: SlotId) {
        let Some(job) = self.held.remove(id) else { return };
        if job.scanned_to > job.offset {
            let (min, max) = job.queue.bounds();
            let reading = Reading {
                status: Status::NoMatchedMessage,
                next: job.scanned_to,
                min: min.0 as i64,
                max: max.0 as i64,
                bytes: 0,
            };
            self.answer_pull(&job, &reading, None);
        } else {
            self.execute_pull(job, false);
        }
    }

    /// When the next held pull must be answered.
    pub fn next_deadline_ms(&mut self) -> Option<u64> {
        self.held.next_deadline_ms()
    }

    /// Whether offsets that pulls carried wait to be handed on.
    pub fn has_commits(&self) -> bool {
        !self.commits.is_empty()
    }

    /// Hands the offsets that pulls carried to the control thread.
    pub fn flush_commits(&mut self) {
        if self.commits.is_empty() {
            return;
        }
        let commits: Vec<CarriedCommit> = self.commits.values().cloned().collect();
        if self.control.try_send(ControlRequest::Commit(commits)).is_ok() {
            self.commits.clear();
        }
    }

    // ------------------------------------------------------------------------------------------ messages, stop

    /// A new serving picture.
    pub fn set_serving(&mut self, serving: Arc<Serving>) {
        self.serving = Some(serving);
    }

    /// A frame for a connection, from another thread.
    pub fn deliver(&mut self, id: SlotId, frame: &[u8], answers: usize) {
        self.discharge(id, answers);
        if let Some(connection) = self.connections.get_mut(id)
            && !frame.is_empty()
            && !connection.closing
        {
            connection.outbox.buffer().extend_from_slice(frame);
            self.mark_dirty(id);
        }
    }

    /// A request that waited for a topic or a group is executed again. False when the connection must be closed.
    pub fn again(&mut self, id: SlotId, frame: &[u8], answers: usize) -> bool {
        self.discharge(id, answers);
        let Some(connection) = self.connections.get(id) else { return true };
        if connection.closing {
            return true;
        }
        if self.is_full(id) {
            // Its connection does not take its answers: wait, like everything else that has arrived.
            self.block(id);
            return self.keep_in_front(id, frame);
        }
        let Some(used) = self.parse_again(id, frame) else { return false };
        used == frame.len() || self.keep_in_front(id, &frame[used..])
    }

    /// Keeps a whole frame that waits for room. What is in the input already may be the beginning of a frame, so it goes in
    /// front of it.
    fn keep_in_front(&mut self, id: SlotId, frame: &[u8]) -> bool {
        if self.input_bytes + frame.len() > limits::INPUT_BYTES {
            return false;
        }
        let Some(connection) = self.connections.get_mut(id) else { return true };
        connection.input.splice(..0, frame.iter().copied());
        connection.wanted_input = 0;
        self.input_bytes += frame.len();
        true
    }

    fn parse_again(&mut self, id: SlotId, frame: &[u8]) -> Option<usize> {
        let wanted = self.connections.get(id).map_or(0, |connection| connection.wanted_input);
        let used = self.parse(id, frame);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.wanted_input = wanted;
        }
        used
    }

    /// The process stops: held pulls are answered, sends are refused from now on.
    pub fn begin_stop(&mut self) {
        self.stopping = true;
        let mut all = std::mem::take(&mut self.woken);
        all.clear();
        self.held.all(&mut all);
        for id in all.drain(..) {
            self.release_pull(id);
        }
        self.woken = all;
        self.flush_commits();
    }

    /// Whether no send waits for the log and nothing waits to be sent.
    pub fn is_quiet(&self) -> bool {
        self.pending.is_empty()
            && self.connections.iter().all(|(_, connection)| {
                connection.closing || (!connection.outbox.has_new() && !connection.outbox.is_in_flight())
            })
    }
}

/// One request for the log.
struct Append<'a> {
    queue: &'a Arc<Queue>,
    length: usize,
    pieces: &'a [Piece],
    wait: bool,
    /// Taken when the request is in the log; left where it is when not.
    pending: &'a mut Option<PendingSend>,
    now_ms: u64,
}

/// Puts a prepared request into the log, here or on the writer's shard. Gives the number of messages.
fn append(
    log: &mut LogPort,
    pending: &mut Slab<PendingSend>,
    counters: &mut ShardCounters,
    shard: usize,
    append: Append<'_>,
    encode: impl FnOnce(&mut [u8]),
) -> Result<usize, AppendError> {
    let messages = append.pieces.len();
    match log {
        LogPort::Local(writer) => {
            let admission = writer.admit(append.length, messages, append.queue)?;
            encode(writer.slot(admission));
            let ticket = take_ticket(pending, shard, append.pending)?;
            writer.bind(admission, append.queue, append.pieces, ticket, append.wait, append.now_ms);
            Ok(messages)
        }
        LogPort::Remote(mailbox) => {
            let mut bytes = vec![0; append.length];
            encode(&mut bytes);
            let ticket = take_ticket(pending, shard, append.pending)?;
            let message = ShardMessage::Append(RemoteAppend {
                bytes,
                pieces: append.pieces.to_vec(),
                queue: Arc::clone(append.queue),
                ticket,
                wait: append.wait,
            });
            if mailbox.send(message).is_err() {
                if let Some(ticket) = ticket
                    && let Some(id) = pending.id_of(ticket.slot)
                {
                    pending.remove(id);
                }
                return Err(AppendError::RingFull);
            }
            counters.remote_sends += 1;
            counters.send_hops += 2;
            Ok(messages)
        }
        LogPort::None => Err(AppendError::Failed),
    }
}

/// Puts the request into the table of pending sends. The table's bound was checked before.
fn take_ticket(
    table: &mut Slab<PendingSend>,
    shard: usize,
    pending: &mut Option<PendingSend>,
) -> Result<Option<Ticket>, AppendError> {
    if table.is_full() {
        return Err(AppendError::RingFull);
    }
    let Some(pending) = pending.take() else { return Ok(None) };
    let id = table.insert(pending).ok_or(AppendError::RingFull)?;
    Ok(Some(Ticket { shard: shard as u16, slot: id.slot }))
}
