//! A shard without its kernel: connections, requests and answers as plain state.
//!
//! The event loop feeds it bytes and completions and carries out what it asks for; tests do the same with neither sockets nor
//! files. All state here belongs to the shard's thread.
//!
//! Invariants:
//! - no answer to a send is encoded before the writer has settled its record;
//! - a request that cannot go on for want of room in the log stays in its connection's input, in order;
//! - ring memory is referenced only in the turn that pinned it.

mod control;
mod memory;
mod pending;
mod proxy;
mod pulls;
mod remote;
mod sends;
mod spare_inputs;
mod waits;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError};

use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::FieldError;
use ringmq_protocol::frame::{Frame, SerializeType, Split, split_frame};
use ringmq_protocol::header::{Header, HeaderDecoder};
use ringmq_protocol::proxy::may_begin_with;
use ringmq_protocol::pull::{PullHeader, PullResult, write_pull_response_head};
use ringmq_protocol::response::write_error;
use ringmq_protocol::send::{MessageIds, SendResult, write_send_response};
use ringmq_shards::clock::Now;
use ringmq_shards::log::writer::{Piece, Ticket};
use ringmq_shards::log::{AppendError, LogView, Settled, Verdict, Writer};
use ringmq_shards::probe::{Histogram, Probe};
use ringmq_shards::queue::{PrefetchStep, Queue};
use ringmq_shards::types::QueueOffset;

use super::cold::ColdAnswer;
use super::connection::{Connection, Input, Listener, connection_number};
use super::hold::{HeldPulls, PullJob};
use super::limits;
use super::messages::{CarriedCommit, Charge, ColdPull, ControlRequest};
use super::remote::{FromWriter, NoRoom, RemoteAppend, RemoteLog, WriterPeer};
use super::serving::Serving;
use super::shared::{PUBLISH_STEP_BYTES, Pressure, Shared};
use super::slab::{Slab, SlotId};
use crate::broker::pull::{self, PullCheck, Range, ReadLimits, Reading, Status, TransferLimits};
use crate::broker::send::{self, Circumstances, NotNow, Refusal, SendState};

use self::pending::PendingSends;
use self::spare_inputs::SpareInputs;

/// How the shard's records reach the writer.
pub enum LogPort {
    /// This is the writer's shard.
    Local(Box<Writer>),
    /// The writer is elsewhere.
    Remote(Box<RemoteLog>),
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
    /// `connection_in_flight_bytes`.
    pub connection_in_flight_bytes: usize,
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
    /// Pulls that were handed to a reader thread.
    pub pulls_cold: u64,
    /// Connections closed because of bytes that are no frame.
    pub protocol_errors: u64,
    /// Times a request waited for room in the log.
    pub blocked: u64,
    /// Cross-core messages that sends of this shard needed.
    pub send_hops: u64,
    /// Sends that needed them.
    pub remote_sends: u64,
    /// Requests that waited for a queue's tail.
    pub queue_full: u64,
    /// Pull requests taken.
    pub pull_requests: u64,
    /// Messages handed to consumers from memory.
    pub pull_messages: u64,
    /// Pulls that were made to wait.
    pub pulls_parked: u64,
    /// Queue entries that pulls have looked at, held ones included.
    pub pull_entries: u64,
    /// Wake-ups of queues with waiting pulls.
    pub pull_wakes: u64,
    /// Connections taken in.
    pub opened: u64,
    /// Connections closed.
    pub closed: u64,
    /// Bytes received.
    pub network_in: u64,
    /// Bytes given to the kernel.
    pub network_out: u64,
    /// Times that a connection was not read because of its own bytes in flight.
    pub pauses: u64,
    /// Times that a connection was not read because memory was short.
    pub memory_pauses: u64,
    /// Requests handed to the control thread.
    pub control_asked: u64,
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
    shared: Arc<Shared>,
    probe: Probe,
    serving: Option<Arc<Serving>>,
    /// Counts the serving pictures.
    picture: u64,
    /// Those of the serving picture, which is not at hand while input is parsed.
    transfer: TransferLimits,
    view: Option<Arc<LogView>>,
    log: LogPort,
    control: SyncSender<ControlRequest>,
    cold: SyncSender<ColdPull>,
    /// Pulls that the readers have not answered yet.
    reads_awaited: u64,
    /// On the writer's shard: the others, from shard 1 on.
    peers: Vec<WriterPeer>,
    connections: Slab<Connection>,
    pending: PendingSends,
    held: HeldPulls,
    decoder: HeaderDecoder,
    send_state: SendState,
    dirty: Vec<SlotId>,
    blocked: Vec<SlotId>,
    /// The empty list that `blocked` changes places with.
    spare_blocked: Vec<SlotId>,
    ranges: Vec<Range>,
    offsets: Vec<i64>,
    /// Connections that take answers again and have pulls that wait for that.
    resumable: VecDeque<SlotId>,
    /// Connections that need not be kept from being read any longer.
    relieved: Vec<SlotId>,
    commits: HashMap<(usize, usize), CarriedCommit>,
    spare_sizes: Vec<Vec<u32>>,
    /// Since when the log has taken no send of this shard.
    no_room: NoRoom,
    spare_inputs: SpareInputs,
    input_bytes: usize,
    /// Bytes in the buffers of all connections, and what others know of them.
    buffer_bytes: u64,
    published_bytes: u64,
    /// The same of the other shards, as of the begin of the turn.
    others_bytes: u64,
    pressure: Pressure,
    /// When this turn began.
    now: Now,
    /// Clock of this turn, and when it began; see [`super::shared::monotonic_ns`].
    now_ns: u64,
    turn_ns: u64,
    /// Pulls of this turn that were answered at once.
    turn_pulls: u64,
    /// Queue entries that this turn has looked at for requests, and for held pulls.
    turn_entries: usize,
    held_entries: usize,
    /// Requests have arrived that this turn leaves for the next one.
    goes_on: bool,
    next_malformed_line_ms: u64,
    stopping: bool,
    /// The request at hand was with the control thread: the picture is not older than that.
    executes_again: bool,
    counters: ShardCounters,
}

impl ShardCore {
    /// A shard without connections. `view` is the log's, `serving` comes later by message.
    #[allow(clippy::too_many_arguments, reason = "everything that a shard is wired to, once")]
    pub fn new(
        settings: ShardSettings,
        shared: Arc<Shared>,
        probe: Probe,
        log: LogPort,
        view: Option<Arc<LogView>>,
        serving: Option<Arc<Serving>>,
        control: SyncSender<ControlRequest>,
        cold: SyncSender<ColdPull>,
        peers: Vec<WriterPeer>,
        send_state: SendState,
    ) -> Self {
        Self {
            connections: Slab::new(limits::MAX_CONNECTIONS),
            pending: PendingSends::new(limits::MAX_PENDING_SENDS),
            held: HeldPulls::new(limits::MAX_HELD_PULLS),
            settings,
            shared,
            probe,
            transfer: serving.as_ref().map_or_else(TransferLimits::default, |serving| serving.transfer),
            serving,
            picture: 0,
            view,
            log,
            control,
            cold,
            reads_awaited: 0,
            peers,
            decoder: HeaderDecoder::new(),
            send_state,
            dirty: Vec::new(),
            blocked: Vec::new(),
            spare_blocked: Vec::new(),
            ranges: Vec::new(),
            offsets: Vec::new(),
            resumable: VecDeque::new(),
            relieved: Vec::new(),
            commits: HashMap::new(),
            spare_sizes: Vec::new(),
            no_room: NoRoom::default(),
            spare_inputs: SpareInputs::default(),
            input_bytes: 0,
            buffer_bytes: 0,
            published_bytes: 0,
            others_bytes: 0,
            pressure: Pressure::None,
            now: Now::default(),
            now_ns: 0,
            turn_ns: 0,
            turn_pulls: 0,
            turn_entries: 0,
            held_entries: 0,
            goes_on: false,
            next_malformed_line_ms: 0,
            stopping: false,
            executes_again: false,
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

    /// What is shared with other shards and threads.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The shard's cells.
    pub fn probe(&self) -> &Probe {
        &self.probe
    }

    /// The counters, for what the event loop sees.
    pub fn counters_mut(&mut self) -> &mut ShardCounters {
        &mut self.counters
    }

    /// The monotonic clock goes on within a turn: after the log was written.
    pub fn set_now_ns(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// Ends a turn: what it took, and what others may know.
    pub fn end_turn(&mut self, now_ns: u64) {
        let took_ns = now_ns.saturating_sub(self.turn_ns);
        self.probe.record(Histogram::ShardTurnTime, took_ns);
        if self.turn_pulls > 0 {
            self.probe.record_many(Histogram::PullLatency, took_ns, self.turn_pulls);
            self.turn_pulls = 0;
        }
        self.publish_buffers();
        let figures = &self.shared.shards[self.settings.index];
        figures.held_pulls.set(self.held.len() as u64);
        figures.pending_sends.set(self.pending.len() as u64);
        figures.control_asked.set(self.counters.control_asked);
        figures.remote_bytes.set(self.remote_bytes() as u64);
        figures.cold_asked.set(self.counters.pulls_cold);
    }

    /// Begins a turn at `now_ms` (milliseconds since the epoch) and `now_ns` (monotonic).
    pub fn begin_turn(&mut self, now_ms: u64, now_ns: u64) {
        self.now = Now { steady_ms: now_ns / 1_000_000, wall_ms: now_ms };
        self.now_ns = now_ns;
        self.turn_ns = now_ns;
        self.turn_entries = 0;
        self.held_entries = 0;
        self.pressure = self.shared.buffers.pressure();
        self.others_bytes = self.shared.buffers.used().saturating_sub(self.published_bytes);
        self.counters.turns += 1;
        if let LogPort::Local(writer) = &mut self.log {
            writer.begin_turn();
        }
    }

    /// Milliseconds of a clock that no step of the wall clock moves, as of this turn: for everything that waits.
    pub fn steady_ms(&self) -> u64 {
        self.now_ns / 1_000_000
    }

    // ------------------------------------------------------------------------------------------ connections

    /// Takes a connection in. `None` when there are too many: the caller closes the socket.
    pub fn open(&mut self, socket: Option<OwnedFd>, listener: Listener, peer: SocketAddr) -> Option<SlotId> {
        if self.connections.is_full() {
            return None;
        }
        let id = self.connections.insert(Connection::new(socket, listener, peer, self.steady_ms()))?;
        let connection = connection_number(self.settings.index, id);
        if self.control.try_send(ControlRequest::Opened { connection, listener, peer }).is_err() {
            self.connections.remove(id);
            return None;
        }
        self.counters.control_asked += 1;
        self.counters.opened += 1;
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
        connection.input = Input::default();
        while let Some(pull) = self.held.first_of(id) {
            self.held.remove(pull);
        }
        true
    }

    /// Frees a closed connection, when no operation is in flight for it. The control thread must hear of it even when its
    /// mailbox is full: the caller repeats until this returns true.
    pub fn finish_close(&mut self, id: SlotId) -> bool {
        let connection = connection_number(self.settings.index, id);
        match self.control.try_send(ControlRequest::Closed { connection }) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {
                if let Some(connection) = self.connections.remove(id) {
                    self.buffer_bytes -= connection.accounted_bytes as u64;
                    self.shared.forget_connection();
                }
                self.counters.control_asked += 1;
                self.counters.closed += 1;
                true
            }
            Err(TrySendError::Full(_)) => false,
        }
    }

    /// Notes a connection whose output is to be looked at. Each is noted once per turn: a second look in the same turn would
    /// find its gathered send under way and move the bytes that the kernel is about to read.
    pub fn mark_dirty(&mut self, id: SlotId) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.is_dirty
            && !connection.closing
        {
            connection.is_dirty = true;
            self.dirty.push(id);
        }
    }

    /// Whether output waits to be looked at.
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
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

    // ------------------------------------------------------------------------------------------ input

    /// Bytes have arrived. False when the connection must be closed.
    pub fn received(&mut self, id: SlotId, bytes: &[u8]) -> bool {
        let is_full = self.is_full(id);
        let Some(connection) = self.connections.get_mut(id) else { return true };
        if connection.closing {
            return true;
        }
        connection.last_active_ms = self.now_ns / 1_000_000;
        self.counters.network_in += bytes.len() as u64;
        if !connection.has_begun && connection.input.is_empty() {
            connection.has_begun = !bytes.first().copied().is_some_and(may_begin_with);
        }
        if !connection.input.is_empty() || connection.is_blocked || is_full || !connection.has_begun {
            if connection.input.is_empty() {
                connection.frame_began_ms = self.now_ns / 1_000_000;
            }
            connection.input.push(bytes);
            self.input_bytes += bytes.len();
            return self.continue_input(id);
        }
        let Some(used) = self.parse(id, bytes, usize::MAX) else { return false };
        if used < bytes.len()
            && let Some(connection) = self.connections.get_mut(id)
        {
            let rest = &bytes[used..];
            if connection.input.capacity() == 0 && connection.wanted_input > limits::KEEP_BUFFER_BYTES {
                connection.input = Input::from(self.spare_inputs.take());
            }
            connection.input.push(rest);
            connection.frame_began_ms = self.now_ns / 1_000_000;
            self.input_bytes += rest.len();
        }
        true
    }

    /// Looks at kept input again. False when the connection must be closed.
    pub fn continue_input(&mut self, id: SlotId) -> bool {
        if self.is_full(id) {
            return true;
        }
        let Some(connection) = self.connections.get_mut(id) else { return true };
        if connection.closing || connection.input.len() < connection.wanted_input || connection.is_blocked {
            return true;
        }
        if !connection.has_begun
            && let Some(may_stay) = self.begin_input(id)
        {
            return may_stay;
        }
        let Some(connection) = self.connections.get_mut(id) else { return true };
        let mut input = std::mem::take(&mut connection.input);
        self.input_bytes -= input.len();
        let used = self.parse(id, input.as_slice(), limits::INPUT_BYTES_PER_TURN);
        let Some(used) = used else { return false };
        let Some(connection) = self.connections.get_mut(id) else { return true };
        input.consume(used);
        if used > 0 {
            connection.frame_began_ms = self.now_ns / 1_000_000;
        }
        if input.is_empty() && self.pressure != Pressure::None {
            input = Input::default();
        } else if input.is_empty() && input.capacity() > limits::KEEP_BUFFER_BYTES {
            self.spare_inputs.keep(std::mem::take(&mut input).into_memory());
        }
        self.input_bytes += input.len();
        connection.input = input;
        true
    }

    /// Gives the memory of large frames back when none has come since the last call.
    pub fn release_spares(&mut self) {
        self.spare_inputs.release();
    }

    /// Whether there is memory to give back.
    pub fn has_spares(&self) -> bool {
        !self.spare_inputs.is_empty()
    }

    /// Cuts frames off the front of `bytes` and executes them; gives the number of bytes used, `None` when the connection
    /// is broken. It ends behind the frame with which it has executed `most` bytes, or the turn has looked at enough queue entries.
    fn parse(&mut self, id: SlotId, bytes: &[u8], most: usize) -> Option<usize> {
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
                    if used < bytes.len() && (used >= most || self.turn_entries >= limits::ENTRIES_PER_TURN) {
                        self.postpone(id);
                        break;
                    }
                }
                Err(error) => {
                    self.log_malformed("bytes are no frame", &error);
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

    /// Any number of peers may send rubbish: their connections are counted, and one of them is described now and then.
    fn log_malformed(&mut self, what: &str, error: &dyn std::fmt::Display) {
        let now_ms = self.steady_ms();
        if now_ms >= self.next_malformed_line_ms {
            self.next_malformed_line_ms = now_ms + limits::MALFORMED_LINE_MS;
            let closed = self.counters.protocol_errors + 1;
            tracing::info!(%error, closed, "close a connection whose {what}");
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
                self.log_malformed("header cannot be read", &error);
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

    fn charge(&mut self, id: SlotId, bytes: usize) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.unanswered_bytes += bytes;
        }
    }

    fn discharge(&mut self, id: SlotId, bytes: usize) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.unanswered_bytes = connection.unanswered_bytes.saturating_sub(bytes);
            self.note_relief(id);
        }
    }

    fn refuse(&mut self, id: SlotId, header: &Header<'_>, refusal: &Refusal) {
        self.refuse_with(id, header, refusal, &[]);
    }

    fn refuse_with(&mut self, id: SlotId, header: &Header<'_>, refusal: &Refusal, ext: &[(&str, &str)]) {
        if header.is_oneway() {
            return;
        }
        self.write_refusal(id, header.serialize_type, header.opaque, refusal.code, &refusal.remark, ext);
    }

    /// Answers with an error, if the connection is still there.
    fn write_refusal(
        &mut self,
        id: SlotId,
        serialize_type: SerializeType,
        opaque: i32,
        code: i32,
        remark: &str,
        ext: &[(&str, &str)],
    ) {
        if let Some(connection) = self.connections.get_mut(id) {
            write_error(connection.outbox.buffer(), serialize_type, opaque, code, remark, ext);
            self.mark_dirty(id);
        }
    }

    // ------------------------------------------------------------------------------------------ messages, stop

    /// A new serving picture.
    pub fn set_serving(&mut self, serving: Arc<Serving>) {
        self.transfer = serving.transfer;
        if let LogPort::Local(writer) = &mut self.log {
            writer.set_sync_flush_timeout_ms(self.shared.live.sync_flush_timeout_ms.load(Ordering::Relaxed));
        }
        self.serving = Some(serving);
        self.picture += 1;
        self.release_retired();
    }

    /// An answer from the log's files, from a reader thread. `copy_ring` copies ring memory that was added in this turn.
    pub fn deliver_cold(
        &mut self,
        id: SlotId,
        answer: ColdAnswer,
        answers: usize,
        copy_ring: impl FnMut(u64, usize, &mut Vec<u8>),
    ) {
        self.reads_awaited = self.reads_awaited.saturating_sub(1);
        self.discharge(id, answers);
        let now_ms = self.steady_ms();
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.closing
        {
            connection.cold_pulls = connection.cold_pulls.saturating_sub(1);
            connection.outbox.push_cold(answer, now_ms, copy_ring);
            self.mark_dirty(id);
            self.account(id);
        }
    }

    /// A request that waited for a topic or a group is executed again; an empty one was refused. False when the connection must
    /// be closed.
    pub fn again(&mut self, id: SlotId, frame: &[u8], answers: usize) -> bool {
        self.discharge(id, answers);
        let Some(connection) = self.connections.get_mut(id) else { return true };
        connection.executed_again = connection.executed_again.saturating_sub(1);
        if connection.closing || frame.is_empty() {
            return true;
        }
        if self.is_full(id) {
            // Its connection does not take its answers: wait, like everything else that has arrived.
            self.park(id);
            self.keep_in_front(id, frame);
            return true;
        }
        let Some(used) = self.parse_again(id, frame) else { return false };
        if used < frame.len() {
            self.keep_in_front(id, &frame[used..]);
        }
        true
    }

    /// Keeps a whole frame that waits for room. What is in the input already may be the beginning of a frame, so it goes in
    /// front of it.
    fn keep_in_front(&mut self, id: SlotId, frame: &[u8]) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.input.push_in_front(frame);
        connection.wanted_input = 0;
        self.input_bytes += frame.len();
    }

    fn parse_again(&mut self, id: SlotId, frame: &[u8]) -> Option<usize> {
        let wanted = self.connections.get(id).map_or(0, |connection| connection.wanted_input);
        self.executes_again = true;
        let used = self.parse(id, frame, usize::MAX);
        self.executes_again = false;
        if let Some(connection) = self.connections.get_mut(id) {
            connection.wanted_input = wanted;
        }
        used
    }

    /// The process stops: held pulls are answered, sends are refused from now on.
    pub fn begin_stop(&mut self) {
        self.stopping = true;
        self.held.release(|_| true);
        self.go_on_with_pulls();
    }

    /// Whether no send waits for the log and nothing waits to be sent.
    pub fn is_quiet(&self) -> bool {
        self.pending.is_empty()
            && !self.has_held_work()
            && self.connections.iter().all(|(_, connection)| {
                connection.closing || (!connection.outbox.has_new() && !connection.outbox.is_in_flight())
            })
    }
}
