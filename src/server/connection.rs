//! One client connection of a shard.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::outbox::Outbox;
use super::slab::SlotId;

/// A connection's name across threads: shard, slot and generation in one number.
pub fn connection_number(shard: usize, id: SlotId) -> u64 {
    (shard as u64) << 56 | u64::from(id.generation) << 32 | u64::from(id.slot)
}

/// The shard and slot that a connection number names.
pub fn connection_slot(number: u64) -> (usize, SlotId) {
    let generation = (number >> 32) as u32 & ringmq_shards::runtime::ring::GENERATION_MASK;
    ((number >> 56) as usize, SlotId { slot: number as u32, generation })
}

/// The ports of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// Broker port and fast port: everything is served on both.
    Broker,
    /// Name server port.
    Namesrv,
}

/// State of a connection. Owned by its shard.
#[derive(Debug)]
pub struct Connection {
    /// The socket; `None` in tests without a kernel.
    socket: Option<OwnedFd>,
    /// Which port it came through.
    pub listener: Listener,
    /// Address of the peer, IPv4 where it can be.
    pub peer: SocketAddr,
    /// Bytes that do not make a whole frame yet, or that wait for room in the log.
    pub input: Vec<u8>,
    /// Bytes that `input` must reach before it is worth looking at again.
    pub wanted_input: usize,
    /// What has to be sent.
    pub outbox: Outbox,
    /// Bytes of requests that have no answer yet.
    pub unanswered_bytes: usize,
    /// A request whose answer may be long is with another thread.
    pub awaits_long: bool,
    /// The next request waits for that answer. Nothing more is read: what has arrived is moved each time that one is taken.
    pub waits_for_long: bool,
    /// Requests that the control thread has, to be executed again. Sends behind them wait, or they would overtake them.
    pub executed_again: u32,
    /// Pulls that a reader thread has.
    pub cold_pulls: u32,
    /// The next request is a pull that waits for memory.
    pub waits_for_memory: bool,
    /// Bytes of its buffers that the shard has counted.
    pub accounted_bytes: usize,
    /// Listed among the connections with new output.
    pub is_dirty: bool,
    /// Listed among the connections whose input waits for the log.
    pub is_blocked: bool,
    /// Direct calls on the socket return instead of waiting; set before the first pipe.
    pub is_nonblocking: bool,
    /// The multishot receive is armed.
    pub receiving: bool,
    /// Listed among the connections that are not read because their own limit is reached.
    pub paused: bool,
    /// Listed among those that are not read because memory is short.
    pub starves: bool,
    /// It was allowed to finish its frame although memory is short, and did not.
    pub had_its_chance: bool,
    /// The connection is being closed; it is freed when no operation is in flight.
    pub closing: bool,
    /// Last time anything was received or sent.
    pub last_active_ms: u64,
    /// When the frame in `input` began; 0 when there is none.
    pub frame_began_ms: u64,
}

impl Connection {
    /// A fresh connection.
    pub fn new(socket: Option<OwnedFd>, listener: Listener, peer: SocketAddr, now_ms: u64) -> Self {
        Self {
            socket,
            listener,
            peer,
            input: Vec::new(),
            wanted_input: 0,
            outbox: Outbox::default(),
            unanswered_bytes: 0,
            awaits_long: false,
            waits_for_long: false,
            executed_again: 0,
            cold_pulls: 0,
            waits_for_memory: false,
            accounted_bytes: 0,
            is_dirty: false,
            is_blocked: false,
            is_nonblocking: false,
            receiving: false,
            paused: false,
            starves: false,
            had_its_chance: false,
            closing: false,
            last_active_ms: now_ms,
            frame_began_ms: 0,
        }
    }

    /// Descriptor of the socket.
    pub fn raw_fd(&self) -> Option<RawFd> {
        self.socket.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Whether part of a frame is there, and more must come from the peer.
    pub fn is_mid_frame(&self) -> bool {
        !self.input.is_empty() && !self.is_blocked
    }

    /// Bytes that count against the connection's limit.
    pub fn in_flight_bytes(&self) -> usize {
        // A frame that is still arriving does not count: one request is always admitted, whatever its size.
        let is_arriving = self.input.len() < self.wanted_input;
        let input_bytes = if is_arriving { 0 } else { self.input.len() };
        self.unanswered_bytes + self.outbox.queued_bytes() + input_bytes
    }
}
