//! The figures of one shard, published each turn for other threads to read.

use std::sync::atomic::{AtomicU64, Ordering};

use ringmq_shards::runtime::ring::RingCounters;

use super::core::ShardCounters;

/// A number with one writing thread.
#[derive(Debug, Default)]
pub struct Figure(AtomicU64);

impl Figure {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds to it.
    pub fn add(&self, value: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + value, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! figures {
    ($($(#[doc = $help:literal])* $name:ident: $kind:literal,)*) => {
        /// Figures of one shard; one writer, any reader.
        #[derive(Debug, Default)]
        #[repr(align(64))]
        pub struct ShardProbe {
            $($(#[doc = $help])* pub $name: Figure,)*
        }

        impl ShardProbe {
            /// Name, kind, help and value of each figure, for the metrics page.
            pub fn rows(&self) -> Vec<(&'static str, &'static str, &'static str, u64)> {
                vec![$((stringify!($name), $kind, concat!($($help),*), self.$name.get()),)*]
            }
        }
    };
}

figures! {
    /// Turns of the shard's loop.
    turns: "counter",
    /// Requests received.
    requests: "counter",
    /// Messages accepted from producers.
    messages_in: "counter",
    /// Bytes of accepted send requests.
    bytes_in: "counter",
    /// Sends refused with any code.
    sends_refused: "counter",
    /// Pulls answered with messages from memory.
    pulls_found: "counter",
    /// Record bytes sent from memory.
    bytes_out: "counter",
    /// Pulls handed to the store thread because their messages are not in memory.
    pulls_cold: "counter",
    /// Connections closed because their bytes are no frame.
    protocol_errors: "counter",
    /// Times that a request waited for room in the log.
    blocked: "counter",
    /// Sends whose record was bound by another shard.
    remote_sends: "counter",
    /// Messages between cores that such sends took.
    send_hops: "counter",
    /// Connections refused because there are too many.
    connections_refused: "counter",
    /// Open connections.
    connections: "gauge",
    /// Pulls that wait for messages.
    held_pulls: "gauge",
    /// Sends that wait for their write or sync.
    pending_sends: "gauge",
    /// Calls of io_uring_enter.
    ring_enters: "counter",
    /// Of these, calls that could sleep.
    ring_sleeps: "counter",
    /// Receives that found no free buffer.
    receive_buffers_exhausted: "counter",
    /// Times that another thread woke the shard from sleep.
    wakes: "counter",
    /// Groups written to the log.
    groups: "counter",
    /// Bytes of these writes.
    group_bytes: "counter",
    /// Syncs of the log that acknowledgements waited for.
    syncs: "counter",
}

impl ShardProbe {
    /// Takes over a turn's figures.
    pub fn publish(
        &self,
        counters: &ShardCounters,
        (connections, held_pulls, pending_sends): (usize, usize, usize),
        ring: RingCounters,
        log: Option<(u64, u64, u64)>,
        wakes: u64,
    ) {
        self.turns.set(counters.turns);
        self.requests.set(counters.requests);
        self.messages_in.set(counters.messages_in);
        self.bytes_in.set(counters.bytes_in);
        self.sends_refused.set(counters.sends_refused);
        self.pulls_found.set(counters.pulls_found);
        self.bytes_out.set(counters.bytes_out);
        self.pulls_cold.set(counters.pulls_cold);
        self.protocol_errors.set(counters.protocol_errors);
        self.blocked.set(counters.blocked);
        self.remote_sends.set(counters.remote_sends);
        self.send_hops.set(counters.send_hops);
        self.connections.set(connections as u64);
        self.held_pulls.set(held_pulls as u64);
        self.pending_sends.set(pending_sends as u64);
        self.ring_enters.set(ring.enters);
        self.ring_sleeps.set(ring.sleeps);
        self.receive_buffers_exhausted.set(ring.receive_buffers_exhausted);
        self.wakes.set(wakes);
        if let Some((groups, group_bytes, syncs)) = log {
            self.groups.set(groups);
            self.group_bytes.set(group_bytes);
            self.syncs.set(syncs);
        }
    }
}
