//! Histogram logs: interval histograms as compressed V2 text lines, which the standard HdrHistogram tools read.
//!
//! Each line has a tag `op=OPERATION;metric=METRIC`, and `;phase=PHASE` behind it outside of the measured phase; tags cannot hold
//! blanks or commas.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hdrhistogram::{Counter, Histogram};

/// Shortest latency that is told from zero.
pub const LOWEST_NS: u64 = 100;
/// Longest latency that is told from a longer one: an hour.
pub const HIGHEST_NS: u64 = 3_600_000_000_000;
/// Significant decimal digits.
pub const DIGITS: u8 = 3;

/// An empty histogram of the one kind that is used everywhere, so that any two can be merged.
///
/// # Panics
/// Never: the bounds are valid.
pub fn histogram<C: Counter>() -> Histogram<C> {
    Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, DIGITS).expect("the bounds are valid")
}

/// One line of a log.
#[derive(Debug)]
pub struct Line<'a, C: Counter> {
    /// Since the start of the log.
    pub start: Duration,
    /// Length of the interval.
    pub length: Duration,
    /// `send`, `receive` …
    pub operation: &'a str,
    /// `response`, `service`, `lag`, `error`.
    pub metric: &'a str,
    /// Phase of the run, for those that are not measured; empty: the measured one, which has no such part in its tag.
    pub phase: &'a str,
    /// The samples.
    pub histogram: &'a Histogram<C>,
}

/// Writes a log. Empty histograms are left out.
///
/// # Errors
/// `out` cannot be written.
pub fn write<'a, C: Counter + 'a>(
    out: &mut impl Write,
    started_ms: u64,
    title: &str,
    lines: impl IntoIterator<Item = Line<'a, C>>,
) -> io::Result<()> {
    let started: SystemTime = UNIX_EPOCH + Duration::from_millis(started_ms);
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(&format!("[{title}; values in nanoseconds]"))
        .with_start_time(started)
        .with_base_time(started)
        .with_max_value_divisor(1e6)
        .begin_log_with(out, &mut serializer)?;
    for line in lines.into_iter().filter(|line| !line.histogram.is_empty()) {
        let mut tag = format!("op={};metric={}", line.operation, line.metric);
        if !line.phase.is_empty() {
            tag += &format!(";phase={}", line.phase);
        }
        log.write_histogram(line.histogram, line.start, line.length, Tag::new(&tag))
            .map_err(|error| io::Error::other(error.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use base64::Engine as _;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    /// Reads a log and merges all intervals of one operation and metric.
    pub fn read_merged(log: &[u8], operation: &str, metric: &str) -> Histogram<u64> {
        read_tag(log, &format!("op={operation};metric={metric}"))
    }

    /// The same of a phase outside of the measured one.
    pub fn read_phase(log: &[u8], operation: &str, metric: &str, phase: &str) -> Histogram<u64> {
        read_tag(log, &format!("op={operation};metric={metric};phase={phase}"))
    }

    fn read_tag(log: &[u8], wanted: &str) -> Histogram<u64> {
        let mut merged = histogram::<u64>();
        let mut deserializer = Deserializer::new();
        for entry in IntervalLogIterator::new(log) {
            let LogEntry::Interval(interval) = entry.unwrap() else { continue };
            if interval.tag().is_some_and(|tag| tag.as_str() == wanted) {
                let bytes = base64::prelude::BASE64_STANDARD.decode(interval.encoded_histogram()).unwrap();
                merged.add(deserializer.deserialize::<u64, _>(&mut bytes.as_slice()).unwrap()).unwrap();
            }
        }
        merged
    }

    /// Goal: what is written is read back, merged by tag. Method: two intervals of two metrics.
    #[test]
    fn round_trip() {
        let mut first = histogram::<u32>();
        let mut second = histogram::<u32>();
        (1..1000).for_each(|value| first.record(value * 977).unwrap());
        second.record_n(5_000_000_000, 7).unwrap();
        let line = |start, metric, histogram| Line {
            start: Duration::from_secs(start),
            length: Duration::from_secs(1),
            operation: "send",
            metric,
            phase: "",
            histogram,
        };
        let mut out = Vec::new();
        let lines = [line(0, "response", &first), line(1, "response", &second), line(1, "lag", &second)];
        write(&mut out, 1_795_239_000_123, "test", lines).unwrap();
        let text = String::from_utf8(out.clone()).unwrap();
        assert!(text.contains("#[StartTime: 1795239000.123 (seconds since epoch)]"), "{text}");
        assert!(text.contains("Tag=op=send;metric=response,0.000,1.000,"), "{text}");
        let merged = read_merged(&out, "send", "response");
        assert_eq!(merged.len(), 999 + 7);
        assert_eq!(merged.value_at_quantile(0.5), first.value_at_quantile(0.5035));
        assert_eq!(read_merged(&out, "send", "lag").len(), 7);
        assert_eq!(read_merged(&out, "pull", "lag").len(), 0);
    }
}
