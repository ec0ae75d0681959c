//! Looks once a second at a broker's Prometheus page and turns its counters into events of the time series.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::monotonic_ns;
use crate::result::{BrokerEvent, BrokerEventKind};

/// Longest page that is read.
const LONGEST_PAGE: u64 = 4 << 20;

/// Counters of one page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Times that the log went on in a new file.
    pub segment_rolls: u64,
    /// Completed syncs of the log.
    pub syncs: u64,
    /// Groups written to the log.
    pub groups: u64,
    /// First byte of the log; it rises when files are deleted.
    pub first_byte: u64,
}

/// One look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at_ns: u64,
    /// What.
    pub counters: Counters,
}

/// Reads the page of a broker.
///
/// # Errors
/// It cannot be read, or is not one.
pub fn read(address: SocketAddr) -> std::io::Result<Counters> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: broker\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.take(LONGEST_PAGE).read_to_string(&mut page)?;
    Ok(parse(&page))
}

fn parse(page: &str) -> Counters {
    let total = |name: &str| -> u64 {
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let is_whole_name = rest.starts_with(['{', ' ']);
            let value = rest.rsplit(' ').next()?.parse::<f64>().ok()?;
            is_whole_name.then_some(value)
        });
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counters are small and not negative"
        )]
        let sum = values.sum::<f64>() as u64;
        sum
    };
    Counters {
        segment_rolls: total("ringmq_log_segment_rolls_total"),
        syncs: total("ringmq_log_syncs_total"),
        groups: total("ringmq_log_groups_total"),
        first_byte: total("ringmq_log_minimum_offset_bytes"),
    }
}

/// A thread that looks once a second.
#[derive(Debug)]
pub struct MetricsWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Sample>>>,
}

impl MetricsWatch {
    /// Starts it on the broker's cores, away from the generator. `None`: there is no such page.
    pub fn start(address: SocketAddr, cores: Vec<u32>) -> Option<MetricsWatch> {
        read(address).ok()?;
        let stop = Arc::new(AtomicBool::new(false));
        let should_stop = Arc::clone(&stop);
        let body = move || {
            // If it fails the thread stays where its parent may run.
            let _ = super::pinning::pin_this_thread(&cores);
            let mut samples = Vec::new();
            while !should_stop.load(Ordering::Relaxed) {
                if let Ok(counters) = read(address) {
                    samples.push(Sample { at_ns: monotonic_ns(), counters });
                }
                for _ in 0..20 {
                    if !should_stop.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                }
            }
            samples
        };
        let thread = std::thread::Builder::new().name("metrics".to_owned()).spawn(body).ok()?;
        Some(MetricsWatch { stop, thread: Some(thread) })
    }

    /// Ends it.
    pub fn finish(mut self) -> Vec<Sample> {
        self.end().unwrap_or_default()
    }

    fn end(&mut self) -> Option<Vec<Sample>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take()?.join().ok()
    }
}

impl Drop for MetricsWatch {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Events between samples inside a measured phase. Syncs count as events only if they are rare: with one per group they are
/// no event.
pub fn events(samples: &[Sample], start_ns: u64, end_ns: u64) -> Vec<BrokerEvent> {
    const RARE_SYNCS_PER_S: u64 = 20;
    let mut events = Vec::new();
    for pair in samples.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        if after.at_ns <= start_ns || before.at_ns >= end_ns {
            continue;
        }
        let second = u32::try_from((after.at_ns - start_ns) / 1_000_000_000).unwrap_or(u32::MAX);
        let mut add = |kind, count: u64| {
            if count > 0 {
                events.push(BrokerEvent { second, kind, count });
            }
        };
        let (old, new) = (before.counters, after.counters);
        add(BrokerEventKind::SegmentRoll, new.segment_rolls.saturating_sub(old.segment_rolls));
        add(BrokerEventKind::Retention, u64::from(new.first_byte > old.first_byte));
        let syncs = new.syncs.saturating_sub(old.syncs);
        if syncs <= RARE_SYNCS_PER_S {
            add(BrokerEventKind::Sync, syncs);
        }
    }
    events
}

/// Syncs per second over a measured phase, if there are samples around it. Where each group is synced (`SYNC_FLUSH`) and no
/// sync is counted, the write itself was synchronous, and a group is a sync.
pub fn syncs_per_s(samples: &[Sample], start_ns: u64, end_ns: u64, syncs_each_group: bool) -> Option<f64> {
    let inside: Vec<&Sample> = samples.iter().filter(|sample| (start_ns..=end_ns).contains(&sample.at_ns)).collect();
    let (first, last) = (inside.first()?, inside.last()?);
    let elapsed_ns = last.at_ns - first.at_ns;
    #[expect(clippy::cast_precision_loss, reason = "counts and times of a run are far below 2^53")]
    let rate = match last.counters.syncs.saturating_sub(first.counters.syncs) {
        0 if syncs_each_group => last.counters.groups.saturating_sub(first.counters.groups),
        syncs => syncs,
    } as f64
        * 1e9
        / elapsed_ns as f64;
    (elapsed_ns > 0).then_some(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: counters are summed over shards and not confused with longer names. Method: a page with such traps.
    #[test]
    fn reads_pages() {
        let page = "# HELP ringmq_log_syncs_total x\nringmq_log_syncs_total{shard=\"0\"} 3\nringmq_log_syncs_total{shard=\"1\"} 4\n\
                    ringmq_log_syncs_total_old 90\nringmq_log_groups_total 11\nringmq_log_segment_rolls_total 2\nringmq_log_minimum_offset_bytes 1e3\n";
        assert_eq!(parse(page), Counters { segment_rolls: 2, syncs: 7, groups: 11, first_byte: 1000 });
        assert_eq!(parse("no page"), Counters::default());
    }

    /// Goal: events lie in the second in which they were seen, and only inside the phase. Method: made-up samples.
    #[test]
    fn finds_events() {
        let sample = |second: u64, segment_rolls, syncs, first_byte| Sample {
            at_ns: second * 1_000_000_000,
            counters: Counters { segment_rolls, syncs, groups: second * 30, first_byte },
        };
        let samples =
            [sample(8, 0, 0, 0), sample(9, 5, 2, 0), sample(11, 6, 4, 0), sample(12, 6, 400, 7), sample(13, 7, 400, 7)];
        let found = events(&samples, 10_000_000_000, 12_000_000_000);
        let event = |second, kind, count| BrokerEvent { second, kind, count };
        assert_eq!(
            found,
            [
                event(1, BrokerEventKind::SegmentRoll, 1),
                event(1, BrokerEventKind::Sync, 2),
                event(2, BrokerEventKind::Retention, 1),
            ]
        );
        assert_eq!(syncs_per_s(&samples, 10_000_000_000, 13_000_000_000, true), Some(198.0));
        assert_eq!(syncs_per_s(&samples[3..], 10_000_000_000, 13_000_000_000, false), Some(0.0));
        assert_eq!(syncs_per_s(&samples[3..], 10_000_000_000, 13_000_000_000, true), Some(30.0));
    }
}
