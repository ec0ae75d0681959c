//! One point per second of a run, with what the broker did in that second.

use serde::{Deserialize, Serialize};

/// One second of a run. Latencies are of the first operation (sends; pulls where nothing is sent) and belong to the
/// second in which the answer came.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondPoint {
    /// Second since the start of the measured phase.
    pub second: u32,
    /// Operations answered without an error.
    pub acknowledged: u64,
    /// Operations refused, broken or timed out.
    pub errors: u64,
    /// Messages received by consumers.
    pub received: u64,
    /// Median response time; 0 without samples, like those below.
    pub response_p50_ns: u64,
    /// 99 % response time.
    pub response_p99_ns: u64,
    /// Longest response time.
    pub response_max_ns: u64,
    /// Longest lag of the generator.
    pub lag_max_ns: u64,
    /// 99 % of the time from intended send to receipt.
    pub end_to_end_p99_ns: u64,
    /// Longest time from intended send to receipt.
    pub end_to_end_max_ns: u64,
}

/// Something the broker did, from its metrics page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerEvent {
    /// Second since the start of the measured phase; the event lies between the second before and this one.
    pub second: u32,
    /// What happened.
    pub kind: BrokerEventKind,
    /// How often in that second.
    pub count: u64,
}

/// Kinds of events that explain a time series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BrokerEventKind {
    /// The log went on in a new file.
    SegmentRoll,
    /// The log was synced in the background (in SYNC_FLUSH each group is, and these are not listed).
    Sync,
    /// A file was deleted by retention.
    Retention,
}
