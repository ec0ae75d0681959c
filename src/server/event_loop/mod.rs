//! The loop of a shard: completions in, state forward, one log write, one send per connection, sleep.
//!
//! Runs as the root task of the shard's executor. One turn takes all completions and messages, lets the core work, writes what
//! has gathered as one group, and sends each connection's output in one operation. Writing or answering per completion costs a
//! third of the throughput (measured), hence the strict order of a turn.

mod output;
mod regulate;
mod spin;

pub use spin::SpinWindow;

use std::fmt::Display;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringmq_shards::clock::Clock;
use ringmq_shards::log::writer::SettleSink;
use ringmq_shards::log::{LogView, Settled};
use ringmq_shards::probe::Counter;
use ringmq_shards::queue::Queue;
use ringmq_shards::runtime::{Completion, CountedSender, Mailbox, MailboxSender, Ring, Token, WakeHandle, socket};

use super::background;
use super::connection::{Listener, connection_slot};
use super::core::ShardCore;
use super::flush_thread::FlushRequest;
use super::limits;
use super::log_shell::{LogShell, Pushed};
use super::messages::{SegmentNews, ShardMessage};
use super::metrics;
use super::outbox::Part;
use super::shared::monotonic_ns;
use super::slab::SlotId;

use self::regulate::{HUNGER_DELAY, Hunger};

/// Kinds of ring operations.
pub mod kind {
    /// Accept; the slot is the listener's number.
    pub const ACCEPT: u8 = 1;
    /// Receive of a connection.
    pub const RECEIVE: u8 = 2;
    /// Send of plain bytes of a connection.
    pub const SEND: u8 = 3;
    /// Gathered send of a connection.
    pub const GATHER: u8 = 4;
    /// Write of the log.
    pub const WRITE: u8 = 5;
    /// Sync of the log.
    pub const SYNC: u8 = 6;
    /// Read of the wake event.
    pub const WAKE: u8 = 7;
    /// A cancellation, whose result nobody needs.
    pub const CANCEL: u8 = 8;
    /// A socket that was full takes bytes again.
    pub const WRITABLE: u8 = 9;
}

/// Messages from other threads that one turn takes.
const MESSAGES_PER_TURN: usize = 1_024;

/// How often connections are looked over for idleness.
const HOUSEKEEPING_MS: u64 = 1_000;

/// Refused connections are logged at most this often.
const REFUSAL_WARNING_MS: u64 = 10_000;

/// How soon connections are accepted again after that failed: the cause, such as too many open files, may last.
const ACCEPT_RETRY_MS: u64 = 100;

/// How often a busy shard lets others have their share of its processor. It costs a system call.
const GIVE_WAY_PERIOD_NS: u64 = 200_000;

/// Looks of a spinning shard between two looks at the clock.
const LOOKS_PER_CLOCK: u32 = 8;

/// How soon a turn follows when requests wait for something that no completion announces.
const BLOCKED_DELAY: Duration = Duration::from_millis(1);

/// How long a stop waits for answers that are still on their way out.
const STOP_PATIENCE_MS: u64 = 3_000;

/// A listening socket of shard 0.
pub struct ListenerSlot {
    /// The socket.
    pub socket: TcpListener,
    /// What it is for.
    pub listener: Listener,
}

/// What all shards share about the life of the process.
#[derive(Debug, Default)]
pub struct Lifecycle {
    /// Set once: finish what is there and leave.
    pub stopping: AtomicBool,
    /// Final failure: leave at once. Set by [`Lifecycle::fail`].
    pub failed: AtomicBool,
}

impl Lifecycle {
    /// What was being done has failed for good: nothing is acknowledged from now on. One line says so; what fails as well does so
    /// because of the same disk, or of the end that follows.
    pub fn fail(&self, action: &str, error: &dyn Display) {
        if self.failed.swap(true, Ordering::AcqRel) {
            tracing::info!(%error, "{action} failed as well");
        } else {
            tracing::error!(%error, "{action} failed: no message is accepted any more and the process ends");
        }
    }
}

/// A shard with its kernel.
///
/// The kernel writes to memory of the loop and reads from memory of the core as long as the ring lives: it goes first.
pub struct EventLoop {
    /// Kernel.
    pub ring: Ring,
    /// State.
    pub core: ShardCore,
    /// The writer's shell, on its shard.
    pub shell: Option<LogShell>,
    /// The flush thread, for requests of the writer's shard.
    pub flush: CountedSender<FlushRequest>,
    /// Messages.
    pub mailbox: Mailbox<ShardMessage>,
    /// How others wake us.
    pub wake: WakeHandle,
    /// All shards' mailboxes, by number.
    pub peers: Vec<MailboxSender<ShardMessage>>,
    /// Listening sockets (shard 0 only).
    pub listeners: Vec<ListenerSlot>,
    /// The log.
    pub view: Option<Arc<LogView>>,
    /// Clock.
    pub clock: Arc<dyn Clock>,
    /// Life of the process.
    pub lifecycle: Arc<Lifecycle>,
    /// How long to look for work before sleeping.
    pub spin: SpinWindow,
    /// When others were last let go first.
    pub gave_way_ns: u64,
    /// `serverChannelMaxIdleTimeSeconds`, milliseconds.
    pub idle_connection_ms: u64,
}

struct TurnSink {
    settled: Vec<Settled>,
    woken: Vec<(Arc<Queue>, u64)>,
}

impl SettleSink for TurnSink {
    fn settled(&mut self, settled: Settled) {
        self.settled.push(settled);
    }

    fn wake(&mut self, queue: &Arc<Queue>, shards: u64) {
        self.woken.push((Arc::clone(queue), shards));
    }
}

/// Scratch memory of the loop.
#[derive(Default)]
struct Scratch {
    completions: Vec<Completion>,
    /// Completions that came during the turn, or that are beyond its share.
    carried: Vec<Completion>,
    /// Always empty between turns.
    later: Vec<Completion>,
    dirty: Vec<SlotId>,
    gathers: Vec<Gather>,
    slices: Vec<libc::iovec>,
    headers: Vec<libc::msghdr>,
    closing: Vec<SlotId>,
    /// Connections below their own limit again.
    relieved: Vec<SlotId>,
    /// Closed connections with operations in flight.
    lingering: Vec<SlotId>,
    hunger: Hunger,
    wake_value: Box<[u8; 8]>,
    wake_armed: bool,
    next_shard: usize,
    next_housekeeping_ms: u64,
    next_refusal_warning_ms: u64,
    /// Numbers of the listeners at which accepting failed, and when it is tried again.
    accept_again: Vec<usize>,
    accept_again_ms: u64,
    stop_at_ms: Option<u64>,
}

struct Gather {
    connection: SlotId,
    first_slice: usize,
    slices: usize,
}

impl EventLoop {
    /// Runs until the process stops.
    pub async fn run(mut self) {
        let mut scratch = Scratch::default();
        let mut sink = TurnSink { settled: Vec::with_capacity(4096), woken: Vec::new() };
        for number in 0..self.listeners.len() {
            let token = Token::new(kind::ACCEPT, number as u32, 0);
            if let Err(error) = self.ring.accept(self.listeners[number].socket.as_raw_fd(), token) {
                self.lifecycle.fail("listening to connections", &error);
                return;
            }
        }
        loop {
            match self.turn(&mut scratch, &mut sink) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.lifecycle.fail("the shard's io_uring", &error);
                    break;
                }
            }
        }
        // The ring before the value that it reads to, which the scratch memory holds.
        drop(self);
        drop(scratch);
    }

    fn turn(&mut self, scratch: &mut Scratch, sink: &mut TurnSink) -> io::Result<bool> {
        let mut completions = std::mem::take(&mut scratch.completions);
        self.ring.completions(&mut completions);
        self.core.begin_turn(self.clock.now_ms(), monotonic_ns());
        self.complete_all(&mut completions, scratch, sink)?;
        scratch.completions = completions;
        self.take_messages(scratch)?;
        let mut broken = std::mem::take(&mut scratch.closing);
        self.core.retry_blocked(&mut broken);
        scratch.closing = broken;
        self.core.go_on_with_pulls();
        self.core.publish_remote();
        self.write_log(sink)?;
        self.housekeeping(scratch);
        self.accept_again(scratch)?;
        self.close_broken(scratch)?;
        self.send_output(scratch)?;
        let end_ns = monotonic_ns();
        self.core.end_turn(end_ns);
        self.publish_figures();
        if self.is_done(scratch) {
            // What those are told who waited for a log that has failed.
            self.ring.submit()?;
            return Ok(false);
        }
        if end_ns.saturating_sub(self.gave_way_ns) >= GIVE_WAY_PERIOD_NS {
            background::give_way();
            self.gave_way_ns = end_ns;
        }
        self.sleep(scratch, end_ns)?;
        Ok(true)
    }

    // ------------------------------------------------------------------------------------------ completions

    /// Takes what an earlier turn left and what has come now. Input beyond a turn's share waits for the next turn: a write begins, and
    /// the answers of the one before go out, before hundreds of connections have been heard.
    fn complete_all(
        &mut self,
        completions: &mut Vec<Completion>,
        scratch: &mut Scratch,
        sink: &mut TurnSink,
    ) -> io::Result<()> {
        let mut carried = std::mem::take(&mut scratch.carried);
        let mut later = std::mem::take(&mut scratch.later);
        let mut input = 0;
        for completion in carried.drain(..).chain(completions.drain(..)) {
            if completion.token.kind == kind::RECEIVE {
                if input >= limits::RECEIVED_BYTES_PER_TURN {
                    later.push(completion);
                    continue;
                }
                input += completion.outcome().unwrap_or(0);
            }
            self.complete(completion, scratch, sink)?;
        }
        scratch.later = carried;
        scratch.carried = later;
        Ok(())
    }

    fn complete(&mut self, completion: Completion, scratch: &mut Scratch, sink: &mut TurnSink) -> io::Result<()> {
        let token = completion.token;
        let id = SlotId { slot: token.slot, generation: token.generation };
        match token.kind {
            kind::ACCEPT => self.accepted(completion, scratch),
            kind::RECEIVE => self.received(id, completion, scratch),
            kind::SEND => {
                self.sent(id, completion.outcome(), scratch);
                Ok(())
            }
            kind::WRITABLE => {
                if let Some(connection) = self.core.connection_mut(id) {
                    connection.outbox.end_wait();
                    self.core.mark_dirty(id);
                }
                Ok(())
            }
            kind::WRITE => {
                if let (Some(shell), Some(writer)) = (self.shell.as_mut(), self.core.writer_mut())
                    && shell.write_finished(writer, completion.outcome())
                {
                    self.settle(sink);
                }
                Ok(())
            }
            kind::SYNC => {
                if let (Some(shell), Some(writer)) = (self.shell.as_mut(), self.core.writer_mut())
                    && shell.sync_finished(writer, completion.outcome())
                {
                    self.settle(sink);
                }
                Ok(())
            }
            kind::WAKE => {
                scratch.wake_armed = false;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn accepted(&mut self, completion: Completion, scratch: &mut Scratch) -> io::Result<()> {
        let number = completion.token.slot as usize;
        let Some(listener) = self.listeners.get(number).map(|slot| slot.listener) else {
            // Accepted while the listeners were being closed: the process stops.
            if let Ok(descriptor) = completion.outcome() {
                // SAFETY: the descriptor comes from this accept and nobody else knows it; it is closed here.
                drop(unsafe { socket::adopt(descriptor as i32) });
            }
            return Ok(());
        };
        match completion.outcome() {
            Ok(descriptor) => {
                // SAFETY: the descriptor comes from this accept and nobody else knows it.
                match unsafe { socket::adopt(descriptor as i32) } {
                    Ok((socket, peer)) if !self.core.shared().admit_connection(descriptor as u64) => {
                        self.core.probe().count(Counter::ConnectionsRefused);
                        let now_ms = self.core.steady_ms();
                        if now_ms >= scratch.next_refusal_warning_ms {
                            scratch.next_refusal_warning_ms = now_ms + REFUSAL_WARNING_MS;
                            let shared = self.core.shared();
                            let most = shared.live.max_connections.load(Ordering::Relaxed);
                            let files = shared.descriptors;
                            let why = "there are max_connections, or half of the files that may be open are";
                            tracing::warn!(%peer, most, files, "connections are refused: {why}");
                        }
                        drop(socket);
                    }
                    Ok((socket, peer)) => {
                        let shard = scratch.next_shard % self.peers.len();
                        scratch.next_shard += 1;
                        if shard == self.core.index() {
                            self.open(socket, listener, peer, scratch)?;
                        } else if self.peers[shard].send(ShardMessage::Adopt(socket, listener, peer)).is_err() {
                            self.core.shared().forget_connection();
                            tracing::warn!(shard, "the mailbox of a shard is full; a new connection is refused");
                        }
                    }
                    Err(error) => tracing::debug!(%error, "a new connection was gone before it was taken"),
                }
            }
            Err(error) => {
                let now_ms = self.core.steady_ms();
                if now_ms >= scratch.next_refusal_warning_ms {
                    scratch.next_refusal_warning_ms = now_ms + REFUSAL_WARNING_MS;
                    tracing::warn!(%error, "accepting a connection failed");
                }
                if !completion.more {
                    scratch.accept_again.push(number);
                    scratch.accept_again_ms = now_ms + ACCEPT_RETRY_MS;
                }
                return Ok(());
            }
        }
        if !completion.more {
            self.ring.accept(self.listeners[number].socket.as_raw_fd(), completion.token)?;
        }
        Ok(())
    }

    /// Listens again where accepting failed a while ago.
    fn accept_again(&mut self, scratch: &mut Scratch) -> io::Result<()> {
        if scratch.accept_again.is_empty() || self.core.steady_ms() < scratch.accept_again_ms {
            return Ok(());
        }
        for number in scratch.accept_again.drain(..) {
            if let Some(slot) = self.listeners.get(number) {
                self.ring.accept(slot.socket.as_raw_fd(), Token::new(kind::ACCEPT, number as u32, 0))?;
            }
        }
        Ok(())
    }

    fn open(
        &mut self,
        socket: OwnedFd,
        listener: Listener,
        peer: std::net::SocketAddr,
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        let Some(id) = self.core.open(Some(socket), listener, peer) else {
            self.core.shared().forget_connection();
            self.core.probe().count(Counter::ConnectionsRefused);
            return Ok(());
        };
        self.regulate(id, scratch)
    }

    fn received(&mut self, id: SlotId, completion: Completion, scratch: &mut Scratch) -> io::Result<()> {
        let mut is_alive = true;
        match completion.outcome() {
            Ok(0) => is_alive = false,
            Ok(length) => {
                if let Some(buffer) = completion.buffer {
                    // SAFETY: buffer and length are of this completion; the buffer is given back below.
                    let bytes = unsafe { self.ring.received(buffer, length) };
                    is_alive = self.core.received(id, bytes);
                }
            }
            Err(error) => match error.raw_os_error() {
                // No buffer was free, or a pause cancelled the receive.
                Some(libc::ENOBUFS | libc::ECANCELED) => {}
                _ => is_alive = false,
            },
        }
        if let Some(buffer) = completion.buffer {
            self.ring.give_back(buffer);
        }
        if !completion.more
            && let Some(connection) = self.core.connection_mut(id)
        {
            connection.receiving = false;
        }
        if !is_alive {
            scratch.closing.push(id);
            return Ok(());
        }
        self.regulate(id, scratch)
    }

    fn sent(&mut self, id: SlotId, outcome: io::Result<usize>, scratch: &mut Scratch) {
        let now_ms = self.core.steady_ms();
        let Some(connection) = self.core.connection_mut(id) else { return };
        let taken = outcome.unwrap_or(0);
        let is_complete = connection.outbox.finish_bytes(taken, limits::KEEP_BUFFER_BYTES);
        connection.last_active_ms = now_ms;
        if !is_complete {
            scratch.closing.push(id);
        } else if connection.outbox.has_new() {
            self.core.mark_dirty(id);
        }
        self.core.counters_mut().network_out += taken as u64;
        self.core.account(id);
    }

    // ------------------------------------------------------------------------------------------ messages

    fn take_messages(&mut self, scratch: &mut Scratch) -> io::Result<()> {
        if self.has_failed() {
            return Ok(());
        }
        let clock = Arc::clone(&self.clock);
        self.core.take_remote(|| clock.now_ms());
        let mut bytes = 0;
        for _ in 0..MESSAGES_PER_TURN {
            let Some(message) = self.mailbox.receive() else { break };
            bytes += message.answer_bytes();
            self.message(message, scratch)?;
            if bytes >= limits::ANSWER_BYTES_PER_TURN {
                break;
            }
        }
        Ok(())
    }

    fn message(&mut self, message: ShardMessage, scratch: &mut Scratch) -> io::Result<()> {
        match message {
            ShardMessage::Adopt(socket, listener, peer) => self.open(socket, listener, peer, scratch)?,
            ShardMessage::Frame { connection, frame, answers } => {
                let (_, id) = connection_slot(connection);
                let bytes = frame.len() as u64;
                let copy = self.ring_copier();
                self.core.deliver(id, frame, answers, copy);
                self.core.shared().buffers.publish(bytes, 0);
            }
            ShardMessage::ColdAnswer { connection, answer, answers } => {
                let (_, id) = connection_slot(connection);
                let bytes = answer.frame.len() as u64;
                let copy = self.ring_copier();
                self.core.deliver_cold(id, answer, answers, copy);
                self.core.shared().cold.release(bytes);
            }
            ShardMessage::Again { connection, frame, answers } => {
                let (_, id) = connection_slot(connection);
                if !self.core.again(id, &frame, answers) {
                    scratch.closing.push(id);
                }
            }
            ShardMessage::Close(connection) => scratch.closing.push(connection_slot(connection).1),
            ShardMessage::Serving(serving) => self.core.set_serving(serving),
            ShardMessage::Segment(SegmentNews::Ready(segment)) => {
                if let Some(writer) = self.core.writer_mut() {
                    writer.segment_ready(segment.start().0);
                }
                if let Some(shell) = self.shell.as_mut() {
                    shell.add_segment(segment);
                }
                self.ask_for_segments();
            }
            ShardMessage::Segment(SegmentNews::DiskFull) => {
                if let Some(writer) = self.core.writer_mut() {
                    writer.set_disk_full(true);
                }
            }
            ShardMessage::Retire(queues, done) => {
                queues.iter().for_each(|queue| queue.retire());
                if let Some(writer) = self.core.writer_mut()
                    && done.send(writer.end()).is_err()
                {
                    tracing::debug!("nobody waits for a barrier any more");
                }
            }
            ShardMessage::HandOver(taken) => {
                if taken.send(self.core.take_commits()).is_err() {
                    tracing::debug!("nobody waits for carried offsets any more");
                }
            }
            ShardMessage::Stop => {
                if scratch.stop_at_ms.is_none() {
                    scratch.stop_at_ms = Some(self.core.steady_ms() + STOP_PATIENCE_MS);
                    self.listeners.clear();
                    self.core.begin_stop();
                }
            }
        }
        Ok(())
    }

    /// Tells the flush thread how far the log has come, so that segments are ready before they are needed.
    fn ask_for_segments(&mut self) {
        if let Some(writer) = self.core.writer_mut() {
            let request = FlushRequest::Segments { end: writer.end(), ready_end: writer.ready_end() };
            // A full mailbox means that an earlier request of the same kind is still to be read.
            let _already_asked = self.flush.try_send(request);
        }
    }

    // ------------------------------------------------------------------------------------------ log

    /// Whether some thread has found that the log, or its queue files, cannot be written: then nothing is acknowledged any more,
    /// and who waits is told.
    fn has_failed(&mut self) -> bool {
        let has_failed = self.lifecycle.failed.load(Ordering::Acquire);
        if has_failed {
            self.core.fail_sends();
        }
        has_failed
    }

    fn write_log(&mut self, sink: &mut TurnSink) -> io::Result<()> {
        if self.has_failed() || self.shell.is_none() {
            return Ok(());
        }
        let mut goes_to_disk = false;
        let steady_ms = self.core.steady_ms();
        loop {
            let (Some(shell), Some(writer)) = (self.shell.as_mut(), self.core.writer_mut()) else { return Ok(()) };
            let segment_before = writer.needed_from() / shell.segment_bytes();
            let pushed = shell.push(writer, &mut self.ring, steady_ms);
            if let Some(failure) = shell.failure() {
                self.lifecycle.fail("the log", &failure);
                writer.fail(sink);
                self.finish_settle(sink);
                return Ok(());
            }
            let rolled = pushed == Pushed::Written && writer.needed_from() / shell.segment_bytes() != segment_before;
            if pushed == Pushed::Written {
                self.settle(sink);
            }
            if rolled {
                self.core.probe().count(Counter::LogSegmentRolls);
                self.ask_for_segments();
            }
            goes_to_disk |= pushed == Pushed::InFlight;
            if pushed != Pushed::Written {
                break;
            }
        }
        // Sync mode, and records that waited for room in a tail.
        self.settle(sink);
        if let (Some(shell), Some(writer)) = (self.shell.as_mut(), self.core.writer_mut()) {
            goes_to_disk |= shell.push_sync(writer, &mut self.ring);
        }
        if goes_to_disk && self.core.has_dirty() {
            // The kernel gives the disk what one call submits when all of it is submitted: behind answers that would be when
            // the last of them has gone through the network. The disk works meanwhile.
            self.ring.submit()?;
        }
        Ok(())
    }

    fn settle(&mut self, sink: &mut TurnSink) {
        if self.has_failed() {
            return;
        }
        let steady_ms = self.core.steady_ms();
        if self.core.writer_mut().is_some_and(|writer| writer.pending() > 0) {
            self.core.set_now_ns(monotonic_ns());
        }
        if let Some(writer) = self.core.writer_mut() {
            writer.settle(steady_ms, sink);
        }
        self.finish_settle(sink);
    }

    fn finish_settle(&mut self, sink: &mut TurnSink) {
        for settled in sink.settled.drain(..) {
            self.core.route_settled(settled);
        }
        for (queue, shards) in sink.woken.drain(..) {
            self.core.route_wake(&queue, shards);
        }
        self.core.publish_remote();
    }

    // ------------------------------------------------------------------------------------------ closing, idleness

    fn close_broken(&mut self, scratch: &mut Scratch) -> io::Result<()> {
        let mut closing = std::mem::take(&mut scratch.closing);
        for id in closing.drain(..) {
            self.core.begin_close(id);
            let Some(connection) = self.core.connection_mut(id) else { continue };
            if let Some(descriptor) = connection.raw_fd()
                && (connection.receiving || connection.outbox.is_in_flight())
            {
                // Ends what is in flight; its completions bring us back here.
                socket::shut_down(descriptor);
                scratch.lingering.push(id);
                continue;
            }
            if !self.core.finish_close(id) {
                scratch.lingering.push(id);
            }
        }
        scratch.closing = std::mem::replace(&mut scratch.lingering, closing);
        Ok(())
    }

    fn housekeeping(&mut self, scratch: &mut Scratch) {
        let now_ms = self.core.steady_ms();
        if now_ms < scratch.next_housekeeping_ms {
            return;
        }
        scratch.next_housekeeping_ms = now_ms + HOUSEKEEPING_MS;
        self.core.release_spares();
        self.time_out(scratch);
    }

    fn is_done(&mut self, scratch: &Scratch) -> bool {
        if self.lifecycle.failed.load(Ordering::Acquire) {
            return true;
        }
        let Some(stop_at_ms) = scratch.stop_at_ms else { return false };
        let writer_idle = self.core.writer_mut().is_none_or(|writer| writer.is_idle());
        let quiet =
            writer_idle && !self.core.has_remote_news() && !self.core.has_remote_waits() && self.core.is_quiet();
        quiet && self.lifecycle.stopping.load(Ordering::Acquire) || self.core.steady_ms() >= stop_at_ms
    }

    // ------------------------------------------------------------------------------------------ sleep

    fn publish_figures(&mut self) {
        let counters = self.core.counters();
        metrics::publish_turn(self.core.probe(), &counters, self.ring.counters(), self.wake.wakes(), self.spin.hits());
    }

    /// Sleeps until there is something to do. `now_ns` is the present time: a turn may take long, and what is due does not wait for
    /// that.
    fn sleep(&mut self, scratch: &mut Scratch, now_ns: u64) -> io::Result<()> {
        let now_ms = now_ns / 1_000_000;
        let mut timeout: Option<Duration> = None;
        let mut at_most = |limit: Duration| timeout = Some(timeout.map_or(limit, |timeout| timeout.min(limit)));
        if let Some(deadline_ms) = self.core.next_deadline_ms() {
            at_most(Duration::from_millis(deadline_ms.saturating_sub(now_ms)));
        }
        if !scratch.accept_again.is_empty() {
            at_most(Duration::from_millis(scratch.accept_again_ms.saturating_sub(now_ms)));
        }
        let waits = self.core.has_blocked()
            || self.core.has_remote_waits()
            || !scratch.closing.is_empty()
            || scratch.stop_at_ms.is_some()
            || self.shell.as_ref().is_some_and(LogShell::awaits_zeroing)
            || self.core.writer_mut().is_some_and(|writer| writer.pending() > 0);
        if waits {
            at_most(BLOCKED_DELAY);
        }
        if let Some(until_ns) = self.shell.as_ref().and_then(LogShell::delayed_until_ns) {
            at_most(Duration::from_nanos(until_ns.saturating_sub(now_ns)));
        }
        if !scratch.hunger.is_empty() {
            at_most(HUNGER_DELAY);
        }
        if self.core.gauges().0 > 0 || self.core.has_spares() {
            at_most(Duration::from_millis(HOUSEKEEPING_MS));
        }
        let has_work = self.core.has_held_work() || self.core.has_relieved() || self.core.goes_on();
        if !scratch.carried.is_empty() || self.core.has_dirty() || has_work {
            at_most(Duration::ZERO);
        }
        if timeout == Some(Duration::ZERO) {
            return self.ring.wait(timeout);
        }
        // Readers share the shards' processors and stand back for them: looking for work would take a reader's time from the very
        // pulls that wait for it, whose answers wake this shard up.
        if !self.spin.is_on() || self.core.awaits_readers() {
            return self.rest(timeout, scratch);
        }
        let started = Instant::now();
        let found = self.finds_work(started, timeout, scratch)?;
        let rest = timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
        let result = if found { self.ring.wait(Some(Duration::ZERO)) } else { self.rest(rest, scratch) };
        self.spin.ended(started.elapsed(), !found);
        result
    }

    /// Sleeps until there is something to do, at most `timeout`.
    fn rest(&mut self, timeout: Option<Duration>, scratch: &mut Scratch) -> io::Result<()> {
        if !scratch.wake_armed {
            let value = scratch.wake_value.as_mut_ptr();
            // SAFETY: the box lives as long as the loop, and only the kernel writes it.
            unsafe { self.ring.read(self.wake.raw_fd(), value, 8, 0, Token::new(kind::WAKE, 0, 0))? };
            scratch.wake_armed = true;
        }
        self.wake.announce_sleep();
        let message = self.mailbox.receive();
        if message.is_some() || self.core.has_remote_news() {
            self.wake.announce_awake();
            if let Some(message) = message {
                self.message(message, scratch)?;
            }
            return self.ring.wait(Some(Duration::ZERO));
        }
        let result = self.ring.wait(timeout);
        self.wake.announce_awake();
        result
    }

    /// Looks for work as long as the window says. True when there is some. Looking costs no system call.
    fn finds_work(&mut self, started: Instant, timeout: Option<Duration>, scratch: &mut Scratch) -> io::Result<bool> {
        let window = timeout.map_or(self.spin.window(), |timeout| timeout.min(self.spin.window()));
        if window.is_zero() {
            return Ok(false);
        }
        if self.ring.has_queued() {
            self.ring.submit()?;
        }
        while started.elapsed() < window {
            for _ in 0..LOOKS_PER_CLOCK {
                if self.ring.is_due() || self.core.has_remote_news() {
                    return Ok(true);
                }
                if let Some(message) = self.mailbox.receive() {
                    self.message(message, scratch)?;
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
        }
        Ok(false)
    }
}
