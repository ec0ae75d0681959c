//! Where all threads' cells meet: totals, and the Prometheus text.
//!
//! A thread that counts gets its own [`Probe`]; the registry only reads. Rendering takes a lock that no hot thread takes.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::histogram::{Buckets, HistogramSnapshot, add_own};
use super::table::{Counter, Gauge, Histogram, Limit, MetricRow};

/// The cells of one thread.
struct Cells {
    thread: String,
    counters: [AtomicU64; Counter::ALL.len()],
    histograms: Vec<Buckets>,
}

/// A thread's own cells. Can be sent to its thread but not shared: that is what makes counting a plain add.
pub struct Probe {
    cells: Arc<Cells>,
    not_sync: PhantomData<Cell<()>>,
}

impl Probe {
    /// Adds one.
    pub fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Adds an amount.
    pub fn add(&self, counter: Counter, amount: u64) {
        add_own(&self.cells.counters[counter as usize], amount);
    }

    /// Sets a counter that its thread keeps elsewhere and hands over now and then. It must not fall.
    pub fn set(&self, counter: Counter, value: u64) {
        self.cells.counters[counter as usize].store(value, Ordering::Relaxed);
    }

    /// Records a duration in nanoseconds, or a size.
    pub fn record(&self, histogram: Histogram, value: u64) {
        self.record_many(histogram, value, 1);
    }

    /// Records the same value `count` times.
    pub fn record_many(&self, histogram: Histogram, value: u64, count: u64) {
        self.cells.histograms[histogram as usize].record(value, count);
    }
}

type Read = Box<dyn Fn() -> u64 + Send + Sync>;

#[derive(Default)]
struct Sources {
    cells: Vec<Arc<Cells>>,
    gauges: Vec<(Gauge, String, Read)>,
    limits: Vec<(Limit, Read, Read)>,
}

/// All metrics of a process.
#[derive(Default)]
pub struct Registry {
    sources: Mutex<Sources>,
}

impl Registry {
    /// A registry without threads.
    pub fn new() -> Self {
        Self::default()
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cells for a thread. They are kept when the thread ends, so that totals never fall.
    pub fn probe(&self, thread: &str) -> Probe {
        let cells = Arc::new(Cells {
            thread: thread.to_owned(),
            counters: [const { AtomicU64::new(0) }; Counter::ALL.len()],
            histograms: Histogram::ALL.iter().map(|_| Buckets::new()).collect(),
        });
        self.sources().cells.push(Arc::clone(&cells));
        Probe { cells, not_sync: PhantomData }
    }

    /// A value to ask at each rendering, with labels such as `path="/data"` or none. It must not block.
    pub fn gauge(&self, gauge: Gauge, labels: &[(&str, &str)], read: impl Fn() -> u64 + Send + Sync + 'static) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        self.sources().gauges.push((gauge, labels.join(","), Box::new(read)));
    }

    /// A bound and its use.
    pub fn limit(
        &self,
        limit: Limit,
        bound: impl Fn() -> u64 + Send + Sync + 'static,
        used: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.sources().limits.push((limit, Box::new(bound), Box::new(used)));
    }

    /// A counter over all threads.
    pub fn total(&self, counter: Counter) -> u64 {
        let cell = |cells: &Arc<Cells>| cells.counters[counter as usize].load(Ordering::Relaxed);
        self.sources().cells.iter().map(cell).fold(0, u64::wrapping_add)
    }

    /// A histogram over all threads.
    pub fn histogram(&self, histogram: Histogram) -> HistogramSnapshot {
        snapshot(&self.sources(), histogram)
    }

    /// The page for Prometheus, text format 0.0.4. Counters are shown per thread.
    pub fn render(&self) -> String {
        let sources = self.sources();
        let mut page = Page::default();
        for &counter in Counter::ALL {
            page.header(counter.row(), "counter", "");
            // Several parts of a thread may have cells of their own.
            let mut by_thread: BTreeMap<&str, u64> = BTreeMap::new();
            for cells in &sources.cells {
                let value = cells.counters[counter as usize].load(Ordering::Relaxed);
                let total = by_thread.entry(&cells.thread).or_default();
                *total = total.wrapping_add(value);
            }
            for (thread, value) in by_thread {
                let labels = format!("thread=\"{}\"", escape(thread));
                page.sample(counter.row().name, "", &labels, value);
            }
        }
        for &histogram in Histogram::ALL {
            page.histogram(histogram.row(), &snapshot(&sources, histogram));
        }
        for &gauge in Gauge::ALL {
            let mut values = sources.gauges.iter().filter(|(kind, ..)| *kind == gauge).peekable();
            if values.peek().is_some() {
                page.header(gauge.row(), "gauge", "");
            }
            values.for_each(|(_, labels, read)| page.sample(gauge.row().name, "", labels, read()));
        }
        for (limit, bound, used) in &sources.limits {
            page.header(limit.row(), "gauge", "");
            page.sample(limit.row().name, "", "", bound());
            page.header(limit.row(), "gauge", "_used");
            page.sample(limit.row().name, "_used", "", used());
        }
        page.text
    }
}

fn snapshot(sources: &Sources, histogram: Histogram) -> HistogramSnapshot {
    let mut snapshot = HistogramSnapshot::default();
    sources.cells.iter().for_each(|cells| cells.histograms[histogram as usize].add_to(&mut snapshot));
    snapshot
}

/// A label's value as the format wants it.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Buckets that are shown: powers of two. Nanoseconds from 1 us to 69 s, bytes from 64 to 1 GiB.
const SECONDS_POWERS: std::ops::RangeInclusive<u32> = 10..=36;
const SIZE_POWERS: std::ops::RangeInclusive<u32> = 6..=30;

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn header(&mut self, row: MetricRow, kind: &str, suffix: &str) {
        let about = if suffix.is_empty() { "" } else { "In use now: " };
        let MetricRow { name, help, unit } = row;
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name}{suffix} {about}{help} Unit: {unit}.\n# TYPE {name}{suffix} {kind}");
    }

    fn sample(&mut self, name: &str, suffix: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = if labels.is_empty() {
            writeln!(self.text, "{name}{suffix} {value}")
        } else {
            writeln!(self.text, "{name}{suffix}{{{labels}}} {value}")
        };
    }

    fn histogram(&mut self, row: MetricRow, snapshot: &HistogramSnapshot) {
        let is_time = row.unit == "seconds";
        let scale = if is_time { 1e-9 } else { 1.0 };
        self.header(row, "histogram", "");
        for power in if is_time { SECONDS_POWERS } else { SIZE_POWERS } {
            let bound = (1u64 << power) as f64 * scale;
            self.sample(row.name, "_bucket", &format!("le=\"{bound}\""), snapshot.count_below_power(power));
        }
        self.sample(row.name, "_bucket", "le=\"+Inf\"", snapshot.count());
        self.sample(row.name, "_sum", "", snapshot.sum() as f64 * scale);
        self.sample(row.name, "_count", "", snapshot.count());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn totals_over_threads() {
        // Goal: no event is lost and none counted twice. Method: two threads with their own probes.
        let registry = Registry::new();
        std::thread::scope(|scope| {
            for name in ["shard-0", "shard-1"] {
                let probe = registry.probe(name);
                scope.spawn(move || {
                    for value in 0..10_000 {
                        probe.count(Counter::SendMessages);
                        probe.record(Histogram::SendLatency, value);
                    }
                });
            }
        });
        assert_eq!(registry.total(Counter::SendMessages), 20_000);
        assert_eq!(registry.histogram(Histogram::SendLatency).count(), 20_000);
        assert_eq!(registry.total(Counter::SendBytes), 0);
    }

    #[test]
    fn page_is_well_formed() {
        // Goal: what Prometheus parses. Method: samples of each kind by their exact lines, then the form of all lines.
        let registry = Registry::new();
        let probe = registry.probe("shard-0");
        probe.add(Counter::SendBytes, 7);
        probe.record(Histogram::SendLatency, 1_500);
        registry.gauge(Gauge::DiskAvailable, &[("path", "/a\"b")], || 5);
        registry.limit(Limit::QueueTails, || 100, || 42);
        let page = registry.render();
        for line in [
            "# TYPE ringmq_send_bytes_total counter",
            "ringmq_send_bytes_total{thread=\"shard-0\"} 7",
            "ringmq_send_latency_seconds_bucket{le=\"0.000001024\"} 0",
            "ringmq_send_latency_seconds_bucket{le=\"0.000002048\"} 1",
            "ringmq_send_latency_seconds_bucket{le=\"+Inf\"} 1",
            "ringmq_send_latency_seconds_count 1",
            "ringmq_disk_available_bytes{path=\"/a\\\"b\"} 5",
            "ringmq_limit_queue_tail_bytes 100",
            "ringmq_limit_queue_tail_bytes_used 42",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        let mut types = HashSet::new();
        for line in page.lines() {
            assert!(line.starts_with("# ") || line.rsplit_once(' ').is_some_and(|(_, v)| v.parse::<f64>().is_ok()));
            if let Some(name) = line.strip_prefix("# TYPE ") {
                assert!(types.insert(name.to_owned()), "one TYPE per metric: {line}");
            }
        }
    }

    #[test]
    fn table_is_sound() {
        // Goal: names are unique and say their unit. Method: all rows.
        let counters = Counter::ALL.iter().map(|metric| metric.row());
        let gauges = Gauge::ALL.iter().map(|metric| metric.row());
        let histograms = Histogram::ALL.iter().map(|metric| metric.row());
        let limits = Limit::ALL.iter().map(|metric| metric.row());
        let mut names = HashSet::new();
        for row in counters.clone().chain(gauges).chain(histograms.clone()).chain(limits.clone()) {
            assert!(names.insert(row.name) && row.name.starts_with("ringmq_") && row.help.ends_with('.'), "{row:?}");
            assert!(!matches!(row.unit, "bytes" | "seconds") || row.name.contains(row.unit), "{row:?}");
        }
        assert!(counters.into_iter().all(|row| row.name.ends_with("_total")));
        assert!(histograms.into_iter().all(|row| row.name.ends_with(row.unit)));
        assert!(limits.into_iter().all(|row| row.name.starts_with("ringmq_limit_")));
    }
}
