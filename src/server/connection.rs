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

/// Bytes that have arrived. What was used stays in front until it is half of them: requests that are executed one by one must
/// not move all that is behind them each time.
#[derive(Debug, Default)]
pub struct Input {
    bytes: Vec<u8>,
    used: usize,
}

impl From<Vec<u8>> for Input {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, used: 0 }
    }
}

impl Input {
    /// Bytes that were not used.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.used
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of its memory.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives memory back, but for `keep_bytes`, when there are no bytes.
    pub fn shrink(&mut self, keep_bytes: usize) {
        if self.is_empty() {
            self.bytes.clear();
            self.used = 0;
            self.bytes.shrink_to(keep_bytes);
        }
    }

    /// Gives the memory away.
    pub fn into_memory(self) -> Vec<u8> {
        self.bytes
    }

    /// Adds bytes behind the others.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.bytes.len() + bytes.len() > self.bytes.capacity() {
            self.compact();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds bytes in front of the others.
    pub fn push_in_front(&mut self, bytes: &[u8]) {
        self.bytes.splice(..self.used, bytes.iter().copied());
        self.used = 0;
    }

    /// The first `count` bytes were used.
    pub fn consume(&mut self, count: usize) {
        self.used += count;
        assert!(self.used <= self.bytes.len(), "only what is there can be used");
        if self.used * 2 >= self.bytes.len() {
            self.compact();
        }
    }

    fn compact(&mut self) {
        self.bytes.drain(..self.used);
        self.used = 0;
    }
}

/// State of a connection. Owned by its shard.
#[derive(Debug)]
pub struct Connection {
    /// The socket; `None` in tests without a kernel.
    socket: Option<OwnedFd>,
    /// Which port it came through.
    pub listener: Listener,
    /// Address of the socket's peer, IPv4 where it can be. Records carry it, also when a proxy says for whom it speaks
    /// (`SendMessageProcessor` takes the channel's).
    pub peer: SocketAddr,
    /// Bytes that do not make a whole frame yet, or that wait for room in the log.
    pub input: Input,
    /// No header of a proxy may come any more.
    pub has_begun: bool,
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
    /// Its input is looked at again when answers were taken, or the long one has come.
    pub is_parked: bool,
    /// Listed among those that may not have to be kept from being read any longer.
    pub is_relieved: bool,
    /// Listed among those that take answers again and have pulls that wait for that.
    pub is_resumable: bool,
    /// Direct calls on the socket return instead of waiting; set before the first pipe.
    pub is_nonblocking: bool,
    /// The multishot receive is armed.
    pub receiving: bool,
    /// Not read because its own limit is reached.
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
            input: Input::default(),
            has_begun: false,
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
            is_parked: false,
            is_relieved: false,
            is_resumable: false,
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
        !self.input.is_empty() && !self.is_blocked && !self.is_parked
    }

    /// Bytes that count against the connection's limit.
    pub fn in_flight_bytes(&self) -> usize {
        // A frame that is still arriving does not count: one request is always admitted, whatever its size.
        let is_arriving = self.input.len() < self.wanted_input;
        let input_bytes = if is_arriving { 0 } else { self.input.len() };
        self.unanswered_bytes + self.outbox.queued_bytes() + input_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_used_from_the_front() {
        // Goal: what is read is what was added and not used, however it is cut. Method: a model of bytes beside it.
        let mut input = Input::default();
        let mut model: Vec<u8> = Vec::new();
        let mut number = 0_u8;
        for (add, front, consumed) in [(10, 0, 3), (5, 0, 4), (0, 4, 1), (7, 2, 11), (1, 0, 9), (3, 1, 4), (20, 0, 19)]
        {
            let mut fresh = |count: usize| -> Vec<u8> {
                (0..count)
                    .map(|_| {
                        number = number.wrapping_add(1);
                        number
                    })
                    .collect()
            };
            let (behind, before) = (fresh(add), fresh(front));
            input.push(&behind);
            model.extend_from_slice(&behind);
            input.push_in_front(&before);
            model.splice(..0, before);
            let consumed = consumed.min(model.len());
            input.consume(consumed);
            model.drain(..consumed);
            assert_eq!((input.as_slice(), input.len(), input.is_empty()), (&model[..], model.len(), model.is_empty()));
        }
    }

    #[test]
    fn used_input_is_moved_seldom() {
        // Goal: using up a long input in small steps moves each byte a bounded number of times. Method: count the moves.
        let mut input = Input::from(vec![7; 1 << 20]);
        let mut moves = 0;
        while !input.is_empty() {
            let before = input.as_slice().as_ptr();
            let count = input.len().min(100);
            input.consume(count);
            moves += usize::from(!input.is_empty() && input.as_slice().as_ptr() < before);
        }
        assert!(moves <= 20, "{moves} moves");
    }
}
