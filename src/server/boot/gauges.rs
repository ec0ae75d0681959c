//! Bounds and gauges of what a broker opens: log, queues, index.

use super::*;

pub(super) fn add_gauges(
    registry: &Registry,
    shared: &Arc<Shared>,
    view: &Arc<LogView>,
    queues: &Arc<ringmq_shards::queue::QueueStore>,
    config: &Config,
    indexed: Option<Arc<AtomicU64>>,
) {
    let ring = ring_bytes(config) as u64;
    let log = Arc::clone(view);
    let ring_used = move || log.confirmed().saturating_sub(log.minimum()).min(ring);
    let (all, budget, tails) = (Arc::clone(shared), shared.memory_bytes, Arc::clone(queues.arena()));
    registry.limit(
        Limit::Memory,
        move || budget,
        move || ring + tails.allocated_bytes() + all.buffers.used() + all.cold.used(),
    );
    registry.limit(Limit::LogRing, move || ring, ring_used);
    let lag = Arc::clone(queues);
    registry.gauge(Gauge::QueueLag, &[], move || lag.unflushed_percent());
    if let Some(indexed) = indexed {
        let log = Arc::clone(view);
        registry.gauge(Gauge::IndexLag, &[], move || {
            log.confirmed().saturating_sub(indexed.load(Ordering::Relaxed).max(log.minimum()))
        });
    }
    let log = Arc::clone(view);
    registry.gauge(Gauge::LogConfirmed, &[], move || log.confirmed());
    let log = Arc::clone(view);
    registry.gauge(Gauge::LogSynced, &[], move || log.synced());
    let log = Arc::clone(view);
    registry.gauge(Gauge::LogMinimum, &[], move || log.minimum());
    let (arena, limit) = (Arc::clone(queues.arena()), Arc::clone(queues.arena()));
    registry.limit(Limit::QueueTails, move || limit.limit_bytes(), move || arena.used_bytes());
    let (open, most) = (Arc::clone(queues), Arc::clone(queues));
    registry.limit(Limit::QueueOpenFiles, move || most.open_files().1 as u64, move || open.open_files().0 as u64);
}
