//! What shards and threads share about bounds: live values, budgets of bytes, and each shard's figures.
//!
//! Invariants: nothing here is locked on the way of a message. A figure has one writing thread. The use of the buffer budget is
//! exact to [`PUBLISH_STEP_BYTES`] per shard, because shards publish only larger changes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::disk_watch::DiskWatch;
use super::limits::{self, COLD_BLOCK_BYTES, COLD_BLOCKS};
use super::retention::RetentionState;
use crate::config::Config;

/// Changes of a shard's buffers below this are not published: it would be a contended instruction per turn.
pub const PUBLISH_STEP_BYTES: u64 = 64 << 10;

/// Smallest budget for connection buffers, whatever `memory` leaves: one largest message must fit.
const BUFFER_BYTES_MIN: u64 = 32 << 20;

/// How often a waiting reader looks whether the process stops.
const STOP_BEAT: Duration = Duration::from_millis(50);

/// Values of live keys that are not part of the serving picture.
#[derive(Debug, Default)]
pub struct LiveValues {
    /// `max_connections`, all shards together.
    pub max_connections: AtomicU64,
    /// `max_held_pulls`, all shards together.
    pub max_held_pulls: AtomicU64,
    /// `flushIntervalCommitLog`, milliseconds.
    pub log_sync_interval_ms: AtomicU64,
    /// `flushIntervalConsumeQueue`, milliseconds.
    pub queue_sync_interval_ms: AtomicU64,
    /// `syncFlushTimeout`, milliseconds.
    pub sync_flush_timeout_ms: AtomicU64,
    /// `frame_timeout`, milliseconds.
    pub frame_timeout_ms: AtomicU64,
}

impl LiveValues {
    /// Takes over a configuration.
    pub fn adopt(&self, config: &Config) {
        self.max_connections.store(config.max_connections, Ordering::Relaxed);
        self.max_held_pulls.store(config.max_held_pulls, Ordering::Relaxed);
        self.log_sync_interval_ms.store(config.flush_interval_commit_log, Ordering::Relaxed);
        self.queue_sync_interval_ms.store(config.flush_interval_consume_queue, Ordering::Relaxed);
        self.sync_flush_timeout_ms.store(config.sync_flush_timeout, Ordering::Relaxed);
        self.frame_timeout_ms.store(config.frame_timeout, Ordering::Relaxed);
    }
}

/// Bytes in the input and output buffers of all connections.
///
/// Who holds more than what is left of the budget is not read. So those that hold most stop first; however many connections fill
/// their buffers, each comes to the same share and as much stays free, and one that holds nothing is read on.
#[derive(Debug)]
pub struct BufferBudget {
    limit: u64,
    used: AtomicU64,
}

/// How much of the buffer budget is left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pressure {
    /// Enough.
    #[default]
    None,
    /// Three quarters are used: connections that hold much may not be read.
    Short,
    /// The budget is exceeded by a quarter: who holds anything is not read, and half frames have less time to arrive.
    Exhausted,
}

impl BufferBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    /// Bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A shard's part was `before` and is `now`.
    pub fn publish(&self, before: u64, now: u64) {
        if now >= before {
            self.used.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    /// Whether a connection that holds this much must not be read while `used` bytes are in use. Beyond twice the budget, which
    /// only very many connections with a receive buffer's worth each can reach, nobody is read.
    pub fn starves(&self, used: u64, held: u64) -> bool {
        held > self.limit.saturating_sub(used) || used > self.limit * 2
    }

    /// Whether a long answer may be made. A quarter stays for requests, and for answers that are short.
    pub fn has_room_for_answer(&self, bytes: u64) -> bool {
        self.leaves_a_quarter(self.used().saturating_add(bytes))
    }

    /// Whether a quarter is left when `used` bytes are in use.
    pub fn leaves_a_quarter(&self, used: u64) -> bool {
        used <= self.limit / 4 * 3
    }

    /// What shards do about it.
    pub fn pressure(&self) -> Pressure {
        let used = self.used();
        if used <= self.limit / 4 * 3 {
            Pressure::None
        } else if used <= self.limit + self.limit / 4 {
            Pressure::Short
        } else {
            Pressure::Exhausted
        }
    }
}

/// Bytes of cold answers between the reader threads and the shards, or in pipes (`cold_read_bytes`).
#[derive(Debug)]
pub struct ColdBudget {
    limit: u64,
    used: AtomicU64,
    gate: Mutex<()>,
    freed: Condvar,
}

impl ColdBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0), gate: Mutex::new(()), freed: Condvar::new() }
    }

    /// Bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes on their way to shards, and in pipes that are not emptied.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A reader is about to read: waits while the budget is used up, or until `stopping` is set.
    pub fn wait_for_room(&self, stopping: &AtomicBool) {
        if self.used.load(Ordering::Acquire) < self.limit {
            return;
        }
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        while self.used.load(Ordering::Acquire) >= self.limit && !stopping.load(Ordering::Acquire) {
            gate = self.freed.wait_timeout(gate, STOP_BEAT).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A frame of this size was read.
    pub fn take(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    /// A frame of this size is in its connection's buffer, or a pipe is empty, or they are dropped.
    pub fn release(&self, bytes: u64) {
        if self.used.fetch_sub(bytes, Ordering::AcqRel) >= self.limit {
            // Through the gate, so that a reader that has just looked is already waiting.
            drop(self.gate.lock().unwrap_or_else(PoisonError::into_inner));
            self.freed.notify_all();
        }
    }
}

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
        self.set(self.get() + value);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Figures of one shard for others, as of its last turn.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct ShardFigures {
    /// Pulls that wait for messages.
    pub held_pulls: Figure,
    /// Sends that wait for their write or sync.
    pub pending_sends: Figure,
    /// Connections that are not read until memory returns.
    pub starved: Figure,
    /// Record bytes on their way to the writer's shard.
    pub remote_bytes: Figure,
    /// Requests handed to the control thread since the start.
    pub control_asked: Figure,
    /// Pulls handed to the reader threads since the start.
    pub cold_asked: Figure,
    /// Whether it keeps offsets that its pulls carried. Set before the pull is answered.
    pub carries_commits: AtomicBool,
}

/// Figures of the control plane.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct ControlFigures {
    /// Requests that the control thread has taken since the start.
    pub control_taken: Figure,
    /// Jobs handed to the store thread since the start.
    pub jobs_asked: Figure,
    /// Jobs that the store thread has finished.
    pub jobs_done: AtomicU64,
    /// Topics.
    pub topics: Figure,
    /// `max_topics`.
    pub max_topics: Figure,
    /// Queues.
    pub queues: Figure,
    /// `max_queues`.
    pub max_queues: Figure,
    /// Groups.
    pub groups: Figure,
    /// `max_groups`.
    pub max_groups: Figure,
    /// Pairs of topic and group with committed offsets.
    pub offset_keys: Figure,
    /// Groups of the connection that is a member of most.
    pub connection_groups: Figure,
    /// Groups with orderly locks.
    pub locked_groups: Figure,
    /// Requests that wait for a table to be written.
    pub parked_requests: Figure,
    /// Their bytes.
    pub parked_bytes: Figure,
    /// Registered addresses of brokers.
    pub namesrv_brokers: Figure,
    /// Routes of the name server.
    pub namesrv_routes: Figure,
    /// Entries of the KV configuration.
    pub namesrv_keys: Figure,
    /// Bytes available on the file system of the log.
    pub disk_available: AtomicU64,
    /// Bytes of the log ring on huge pages; written by the flush thread.
    pub log_ring_huge_bytes: AtomicU64,
}

/// Everything shared.
#[derive(Debug)]
pub struct Shared {
    /// Live values.
    pub live: LiveValues,
    /// Buffers of connections.
    pub buffers: BufferBudget,
    /// Cold reads.
    pub cold: ColdBudget,
    /// Pipes that hold answers from the log's files.
    pub pipes_in_use: AtomicU64,
    /// Bytes that were put into them; part of `cold`.
    pub piped_bytes: AtomicU64,
    /// Connections, all shards together: counted by whoever accepts, uncounted by whoever closes.
    pub connections: AtomicU64,
    /// By shard.
    pub shards: Vec<ShardFigures>,
    /// Control plane and store thread.
    pub control: ControlFigures,
    /// Cold pulls that were answered since the start.
    pub cold_done: AtomicU64,
    /// Retention: its settings, and whether there is room for messages.
    pub retention: RetentionState,
    /// Whether the disk answers.
    pub disk_watch: DiskWatch,
    /// The whole memory budget, bytes.
    pub memory_bytes: u64,
    /// Files that the process may have open, connections among them. `launch` says how many.
    pub descriptors: u64,
}

impl Shared {
    /// Splits the memory budget: what ring, tails and cold reads leave is for connection buffers.
    pub fn new(config: &Config, shards: usize, memory_bytes: u64, ring_bytes: u64, tail_bytes: u64) -> Self {
        let blocks = (COLD_BLOCKS * COLD_BLOCK_BYTES) as u64;
        let reserved =
            [ring_bytes, tail_bytes, config.cold_read_bytes, blocks].into_iter().fold(0, u64::saturating_add);
        let least = BUFFER_BYTES_MIN.max(config.max_frame_bytes.saturating_mul(2));
        let live = LiveValues::default();
        live.adopt(config);
        Self {
            live,
            buffers: BufferBudget::new(memory_bytes.saturating_sub(reserved).max(least)),
            cold: ColdBudget::new(config.cold_read_bytes),
            pipes_in_use: AtomicU64::new(0),
            piped_bytes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            shards: (0..shards).map(|_| ShardFigures::default()).collect(),
            control: ControlFigures::default(),
            cold_done: AtomicU64::new(0),
            retention: RetentionState::new(config),
            disk_watch: DiskWatch::default(),
            memory_bytes,
            descriptors: u64::MAX,
        }
    }

    /// Whether a pull's answer from the log's files may be this long. Those on their way to shards become buffers of connections.
    pub fn has_room_for_cold(&self, bytes: usize) -> bool {
        let copied = self.cold.used().saturating_sub(self.piped_bytes.load(Ordering::Relaxed));
        self.buffers.has_room_for_answer(copied.saturating_add(bytes as u64))
    }

    /// Whether one connection more is allowed, with this descriptor; then it is counted.
    ///
    /// A new descriptor has the lowest free number, so a high one tells that as many are in use. Connections get the lower ones:
    /// files of log and queues must always be had, or the broker could not go on.
    pub fn admit_connection(&self, descriptor: u64) -> bool {
        let most = self.live.max_connections.load(Ordering::Relaxed);
        let is_there_room = descriptor < limits::descriptors_for_connections(self.descriptors);
        let admitted = self.connections.fetch_add(1, Ordering::Relaxed) < most && is_there_room;
        if !admitted {
            self.forget_connection();
        }
        admitted
    }

    /// A counted connection is gone.
    pub fn forget_connection(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Pulls held by all shards but `shard`, as of their last turns.
    pub fn held_elsewhere(&self, shard: usize) -> u64 {
        let others = self.shards.iter().enumerate().filter(|(index, _)| *index != shard);
        others.map(|(_, figures)| figures.held_pulls.get()).sum()
    }

    /// A figure over all shards.
    pub fn sum(&self, read: impl Fn(&ShardFigures) -> &Figure) -> u64 {
        self.shards.iter().map(|figures| read(figures).get()).sum()
    }
}

/// Nanoseconds of a clock that never steps back; only differences mean anything.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the result; this clock always exists on Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;
    use std::sync::Arc;

    fn shared(sets: &[&str]) -> Shared {
        let sets = sets.iter().map(|set| (*set).to_owned()).collect();
        let config = Layers { sets, ..Layers::default() }.build().expect("valid");
        Shared::new(&config, 2, 272 << 20, 64 << 20, 64 << 20)
    }

    #[test]
    fn the_budget_is_split_and_watched() {
        // Goal: buffers get what the rest leaves, and pressure follows use. Method: one budget, its two thresholds.
        let budget = shared(&[]).buffers;
        assert_eq!(budget.limit(), 64 << 20);
        budget.publish(0, 48 << 20);
        assert_eq!(budget.pressure(), Pressure::None);
        budget.publish(0, 1);
        assert_eq!(budget.pressure(), Pressure::Short);
        budget.publish(1, 32 << 20);
        assert_eq!(budget.pressure(), Pressure::Short);
        budget.publish(32 << 20, 33 << 20);
        assert_eq!(budget.pressure(), Pressure::Exhausted);
        budget.publish(33 << 20, 0);
        assert_eq!((budget.pressure(), budget.used()), (Pressure::None, 48 << 20));
        assert!(budget.has_room_for_answer(0) && !budget.has_room_for_answer(1));
    }

    #[test]
    fn those_that_hold_most_starve_first() {
        // Goal: greedy connections come to equal shares and leave as much free. Method: let each take 4 KiB in turn while it may.
        let budget = shared(&[]).buffers;
        let mut held = [0_u64; 1_000];
        for _ in 0..1_000 {
            for index in 0..held.len() {
                let used: u64 = held.iter().sum();
                held[index] += if budget.starves(used, held[index]) { 0 } else { 4_096 };
            }
        }
        let used: u64 = held.iter().sum();
        let share = budget.limit() / 1_001;
        assert!(held.iter().all(|held| held.abs_diff(share) <= 8_192), "{held:?}");
        assert!(!budget.starves(used, 0) && !budget.starves(used, 32 << 10));
        assert!(!budget.starves(budget.limit() * 2, 0) && budget.starves(budget.limit() * 2, 1));
        assert!(budget.starves(budget.limit() * 2 + 1, 0));
    }

    #[test]
    fn connections_are_counted_up_to_the_live_bound() {
        // Goal: the bound holds, and a change acts at once. Method: fill it, raise it, give one back.
        let shared = shared(&["max_connections=2"]);
        assert!(shared.admit_connection(7) && shared.admit_connection(7) && !shared.admit_connection(7));
        shared.live.max_connections.store(3, Ordering::Relaxed);
        assert!(shared.admit_connection(7) && !shared.admit_connection(7));
        shared.forget_connection();
        assert!(shared.admit_connection(7));
    }

    #[test]
    fn connections_leave_descriptors_for_files() {
        // Goal: what log and queues need stays free of connections, and a refused one is not counted. Method: ask at the border of a
        // small process, and of one that is to take 10,000 connections.
        for (descriptors, connections) in [(1_024, 512), (20_000, 10_904), (1 << 20, (1 << 20) - 16_384 - 4_096)] {
            let mut shared = shared(&[]);
            shared.descriptors = descriptors;
            assert!(shared.admit_connection(connections - 1) && !shared.admit_connection(connections));
            assert_eq!(shared.connections.load(Ordering::Relaxed), 1);
        }
    }

    #[test]
    fn cold_readers_wait_for_room() {
        // Goal: a reader goes on when a frame was taken over, and at a stop. Method: a thread that waits, twice.
        let budget = Arc::new(ColdBudget::new(100));
        let stopping = Arc::new(AtomicBool::new(false));
        budget.take(150);
        let waiter = || {
            let (budget, stopping) = (Arc::clone(&budget), Arc::clone(&stopping));
            std::thread::spawn(move || budget.wait_for_room(&stopping))
        };
        let first = waiter();
        budget.release(150);
        first.join().expect("goes on");
        budget.take(100);
        let second = waiter();
        stopping.store(true, Ordering::Release);
        second.join().expect("goes on");
        assert_eq!(budget.used(), 100);
    }
}
