//! What the server tells the registry: a shard's counters once per turn, and the sources of gauges and limits.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use ringmq_shards::clock::local_day;
use ringmq_shards::probe::{Counter, Gauge, Histogram, Limit, Probe, Registry};
use ringmq_shards::runtime::ring::RingCounters;

use super::core::ShardCounters;
use super::limits;
use super::shared::{Shared, monotonic_ns};
use crate::broker::store_reader::{PUT_TIME_BUCKETS, Rates, StoreTotals};

/// Writes a turn's counters to the shard's cells.
pub fn publish_turn(probe: &Probe, counters: &ShardCounters, ring: RingCounters, wakes: u64, spins: u64) {
    for (counter, value) in [
        (Counter::ShardTurns, counters.turns),
        (Counter::ShardEnters, ring.enters),
        (Counter::ShardSleeps, ring.sleeps),
        (Counter::ShardSpins, spins),
        (Counter::ShardWakes, wakes),
        (Counter::ShardHops, counters.send_hops),
        (Counter::ReceiveBuffersExhausted, ring.receive_buffers_exhausted),
        (Counter::SendMessages, counters.messages_in),
        (Counter::SendBytes, counters.bytes_in),
        (Counter::SendRefused, counters.sends_refused),
        (Counter::SendRemote, counters.remote_sends),
        (Counter::LogWaits, counters.blocked),
        (Counter::QueueTailFull, counters.queue_full),
        (Counter::PullRequests, counters.pull_requests),
        (Counter::PullMessages, counters.pull_messages),
        (Counter::PullBytes, counters.bytes_out),
        (Counter::PullFromRing, counters.pulls_found),
        (Counter::PullParked, counters.pulls_parked),
        (Counter::PullWakeUps, counters.pull_wakes),
        (Counter::Requests, counters.requests),
        (Counter::FramesRefused, counters.protocol_errors),
        (Counter::ConnectionsOpened, counters.opened),
        (Counter::ConnectionsClosed, counters.closed),
        (Counter::NetworkReadBytes, counters.network_in),
        (Counter::NetworkWrittenBytes, counters.network_out),
        (Counter::ReadPauses, counters.pauses),
        (Counter::MemoryPauses, counters.memory_pauses),
    ] {
        probe.set(counter, value);
    }
}

/// A source that reads one figure when the page is made.
fn figure(shared: &Arc<Shared>, read: fn(&Shared) -> u64) -> impl Fn() -> u64 + Send + Sync + 'static {
    let shared = Arc::clone(shared);
    move || read(&shared)
}

/// Registers bounds and gauges that every process has.
pub fn add_shared(registry: &Registry, shared: &Arc<Shared>, boot_ms: u64) {
    let of = |read: fn(&Shared) -> u64| figure(shared, read);
    registry.gauge(Gauge::StartTime, &[], move || boot_ms / 1_000);
    registry.gauge(Gauge::DroppedLogLines, &[], crate::process::logging::dropped_lines);
    registry.limit(
        Limit::Connections,
        of(|shared| shared.live.max_connections.load(Ordering::Relaxed)),
        of(|shared| shared.connections.load(Ordering::Relaxed)),
    );
    registry.gauge(Gauge::StarvedConnections, &[], of(|shared| shared.sum(|figures| &figures.starved)));
    registry.limit(Limit::Buffers, of(|shared| shared.buffers.limit()), of(|shared| shared.buffers.used()));
    registry.limit(
        Limit::ControlQueue,
        || limits::CONTROL_REQUESTS as u64,
        of(|shared| {
            let taken = shared.control.control_taken.get();
            shared.sum(|figures| &figures.control_asked).saturating_sub(taken)
        }),
    );
    registry.limit(Limit::Descriptors, of(|shared| shared.descriptors), || {
        std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64)
    });
}

/// Registers the bounds of a broker.
pub fn add_broker(registry: &Registry, shared: &Arc<Shared>) {
    let of = |read: fn(&Shared) -> u64| figure(shared, read);
    registry.limit(
        Limit::WaitingPulls,
        of(|shared| shared.live.max_held_pulls.load(Ordering::Relaxed)),
        of(|shared| shared.sum(|figures| &figures.held_pulls)),
    );
    registry.limit(
        Limit::PendingSends,
        of(|shared| (limits::MAX_PENDING_SENDS * shared.shards.len()) as u64),
        of(|shared| shared.sum(|figures| &figures.pending_sends)),
    );
    registry.limit(
        Limit::RemoteBytes,
        of(|shared| (limits::REMOTE_BYTES * (shared.shards.len() - 1)) as u64),
        of(|shared| shared.sum(|figures| &figures.remote_bytes)),
    );
    registry.limit(Limit::ColdReads, of(|shared| shared.cold.limit()), of(|shared| shared.cold.used()));
    registry.limit(
        Limit::SplicePipes,
        || (limits::READERS * limits::READER_PIPES) as u64,
        of(|shared| shared.pipes_in_use.load(Ordering::Relaxed)),
    );
    registry.limit(
        Limit::ColdQueue,
        || limits::COLD_READS as u64,
        of(|shared| {
            let done = shared.cold_done.load(Ordering::Relaxed);
            shared.sum(|figures| &figures.cold_asked).saturating_sub(done)
        }),
    );
    registry.limit(
        Limit::StoreQueue,
        || limits::STORE_JOBS as u64,
        of(|shared| {
            let done = shared.control.jobs_done.load(Ordering::Relaxed);
            shared.control.jobs_asked.get().saturating_sub(done)
        }),
    );
    registry.limit(
        Limit::Topics,
        of(|shared| shared.control.max_topics.get()),
        of(|shared| shared.control.topics.get()),
    );
    registry.limit(
        Limit::Queues,
        of(|shared| shared.control.max_queues.get()),
        of(|shared| shared.control.queues.get()),
    );
    registry.limit(
        Limit::Groups,
        of(|shared| shared.control.max_groups.get()),
        of(|shared| shared.control.groups.get()),
    );
    registry.limit(
        Limit::ConnectionGroups,
        || crate::broker::limits::MAX_GROUPS_PER_CONNECTION as u64,
        of(|shared| shared.control.connection_groups.get()),
    );
    registry.limit(
        Limit::OffsetKeys,
        || crate::broker::limits::MAX_OFFSET_KEYS as u64,
        of(|shared| shared.control.offset_keys.get()),
    );
    registry.limit(
        Limit::LockedGroups,
        || crate::broker::limits::MAX_LOCKED_GROUPS as u64,
        of(|shared| shared.control.locked_groups.get()),
    );
    registry.limit(
        Limit::ParkedRequests,
        || limits::PARKED_REQUESTS as u64,
        of(|shared| shared.control.parked_requests.get()),
    );
    registry.limit(Limit::ParkedBytes, || limits::PARKED_BYTES as u64, of(|shared| shared.control.parked_bytes.get()));
    registry.gauge(Gauge::DiskUsed, &[], of(|shared| shared.retention.used_percent()));
    registry.gauge(Gauge::DiskFull, &[], of(|shared| shared.retention.is_full().into()));
    registry.gauge(Gauge::LogRingHuge, &[], of(|shared| shared.control.log_ring_huge_bytes.load(Ordering::Relaxed)));
    registry.gauge(Gauge::DiskAvailable, &[], of(|shared| shared.control.disk_available.load(Ordering::Relaxed)));
}

/// Registers the bounds of a name server.
pub fn add_namesrv(registry: &Registry, shared: &Arc<Shared>) {
    use crate::namesrv::limits::{MAX_BROKER_ADDRESSES, MAX_KV_ENTRIES, MAX_ROUTES};
    let of = |read: fn(&Shared) -> u64| figure(shared, read);
    let [brokers, routes, keys] = [MAX_BROKER_ADDRESSES, MAX_ROUTES, MAX_KV_ENTRIES].map(|most| move || most as u64);
    registry.limit(Limit::NamesrvBrokers, brokers, of(|shared| shared.control.namesrv_brokers.get()));
    registry.limit(Limit::NamesrvRoutes, routes, of(|shared| shared.control.namesrv_routes.get()));
    registry.limit(Limit::NamesrvKeys, keys, of(|shared| shared.control.namesrv_keys.get()));
}

/// Counters at one time.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    at_ns: u64,
    put: u64,
    found: u64,
    missed: u64,
    transferred: u64,
}

/// Totals at the last two midnights, local time.
#[derive(Debug, Clone, Copy, Default)]
struct Mornings {
    /// The day that it is, by [`local_day`].
    today: Option<i64>,
    put: [u64; 2],
    transferred: [u64; 2],
}

impl Mornings {
    /// A new day has begun: what was counted so far was before today. Source: BrokerStats.record, which runs at midnight.
    fn turn(&mut self, day: i64, now: &Sample) {
        if self.today.replace(day).is_some_and(|today| today != day) {
            self.put = [now.put, self.put[0]];
            self.transferred = [now.transferred, self.transferred[0]];
        }
    }
}

/// How often counters are sampled, and how many samples the longest window needs.
const SAMPLE_NS: u64 = 1_000_000_000;
const WINDOWS_SECONDS: [u64; 3] = [10, 60, 600];

/// Ends of the put-time buckets that tools show, milliseconds; the last has none.
const PUT_TIME_ENDS_MS: [u64; PUT_TIME_BUCKETS - 1] =
    [0, 10, 50, 100, 200, 500, 1_000, 2_000, 3_000, 4_000, 5_000, 10_000];

/// The store's totals and rates for tools (code 28), from the registry. The control thread samples it.
pub struct StoreFigures {
    registry: Arc<Registry>,
    shared: Arc<Shared>,
    samples: Mutex<VecDeque<Sample>>,
    mornings: Mutex<Mornings>,
}

impl StoreFigures {
    /// Figures without samples.
    pub fn new(registry: Arc<Registry>, shared: Arc<Shared>) -> Self {
        Self { registry, shared, samples: Mutex::default(), mornings: Mutex::default() }
    }

    fn now(&self) -> Sample {
        let found = self.registry.total(Counter::PullFromRing) + self.registry.total(Counter::PullFromDisk);
        Sample {
            at_ns: monotonic_ns(),
            put: self.registry.total(Counter::SendMessages),
            found,
            missed: self.registry.total(Counter::PullRequests).saturating_sub(found),
            transferred: self.registry.total(Counter::PullMessages),
        }
    }

    /// Takes a sample if the last one is old enough; `wall_ms` is the time since the epoch.
    pub fn sample(&self, wall_ms: u64) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ns = monotonic_ns();
        if samples.back().is_some_and(|last| now_ns - last.at_ns < SAMPLE_NS) {
            return;
        }
        let now = self.now();
        self.mornings.lock().unwrap_or_else(PoisonError::into_inner).turn(local_day(wall_ms), &now);
        samples.push_back(now);
        while samples.len() > WINDOWS_SECONDS[2] as usize + 1 {
            samples.pop_front();
        }
    }

    /// Totals since the start, rates over the windows.
    pub fn totals(&self) -> StoreTotals {
        let now = self.now();
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = |read: fn(&Sample) -> u64| -> Rates {
            WINDOWS_SECONDS.map(|seconds| {
                let from_ns = now.at_ns.saturating_sub(seconds * 1_000_000_000);
                let Some(first) = samples.iter().find(|sample| sample.at_ns >= from_ns) else { return 0.0 };
                let passed = (now.at_ns - first.at_ns) as f64 / 1e9;
                if passed > 0.0 { read(&now).saturating_sub(read(first)) as f64 / passed } else { 0.0 }
            })
        };
        let mornings = *self.mornings.lock().unwrap_or_else(PoisonError::into_inner);
        let latency = self.registry.histogram(Histogram::SendLatency);
        let below = PUT_TIME_ENDS_MS.map(|end_ms| latency.count_below((end_ms + 1) * 1_000_000));
        let mut put_times = [0; PUT_TIME_BUCKETS];
        let mut before = 0;
        for (bucket, end) in put_times.iter_mut().zip(below.into_iter().chain([latency.count()])) {
            *bucket = end.saturating_sub(before);
            before = end;
        }
        StoreTotals {
            put_messages: now.put,
            put_failures: self.registry.total(Counter::SendRefused),
            put_bytes: self.registry.total(Counter::SendBytes),
            put_max_ms: latency.quantile(1_000) / 1_000_000,
            put_times,
            put_p99_ms: latency.quantile(990) as f64 / 1e6,
            put_p999_ms: latency.quantile(999) as f64 / 1e6,
            get_messages: now.transferred,
            put_before_today: mornings.put[0],
            put_before_yesterday: mornings.put[1],
            get_before_today: mornings.transferred[0],
            get_before_yesterday: mornings.transferred[1],
            put_rates: rate(|sample| sample.put),
            get_found_rates: rate(|sample| sample.found),
            get_miss_rates: rate(|sample| sample.missed),
            transferred_rates: rate(|sample| sample.transferred),
            waiting_sends: self.shared.sum(|figures| &figures.pending_sends),
            waiting_pulls: self.shared.sum(|figures| &figures.cold_asked)
                - self.shared.cold_done.load(Ordering::Relaxed).min(self.shared.sum(|figures| &figures.cold_asked)),
            ..StoreTotals::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_kept_at_midnight() {
        // Goal: what tools show of today and yesterday. Method: three days with known totals, looked at twice each.
        let mut mornings = Mornings::default();
        let sample = |put| Sample { put, transferred: 2 * put, ..Sample::default() };
        for (day, put, expected) in
            [(7, 5, [0, 0]), (7, 9, [0, 0]), (8, 10, [10, 0]), (8, 30, [10, 0]), (9, 40, [40, 10])]
        {
            mornings.turn(day, &sample(put));
            assert_eq!(mornings.put, expected);
            assert_eq!(mornings.transferred, expected.map(|put| 2 * put));
        }
    }
}
