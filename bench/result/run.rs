//! One run: one workload against one system at one rate, from connecting to verifying.

use serde::{Deserialize, Serialize};

use super::{BrokerEvent, Distribution, SecondPoint};

/// What an acknowledgement promises. Runs of different classes never share a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Durability {
    /// In process memory; lost by kill -9.
    D0,
    /// Survives kill -9 on one node (page cache, or a completed direct write).
    D1,
    /// On stable media of one node.
    D2,
    /// In memory or page cache of a quorum.
    D3,
    /// On stable media of a quorum.
    D4,
}

impl Durability {
    /// `D1`.
    pub fn name(self) -> &'static str {
        match self {
            Durability::D0 => "D0",
            Durability::D1 => "D1",
            Durability::D2 => "D2",
            Durability::D3 => "D3",
            Durability::D4 => "D4",
        }
    }

    /// The class of this name.
    pub fn find(name: &str) -> Option<Durability> {
        let all = [Durability::D0, Durability::D1, Durability::D2, Durability::D3, Durability::D4];
        all.into_iter().find(|class| class.name() == name)
    }

    /// The promise in one line, for the first line of a table.
    pub fn promise(self) -> &'static str {
        match self {
            Durability::D0 => "acknowledged from process memory; lost by kill -9",
            Durability::D1 => "acknowledged messages survive kill -9, not a power cut",
            Durability::D2 => "acknowledged messages are on stable media of one node",
            Durability::D3 => "acknowledged messages are in the memory of a quorum",
            Durability::D4 => "acknowledged messages are on stable media of a quorum",
        }
    }
}

/// Why a run was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunRole {
    /// The run that was asked for.
    Measured,
    /// Floor: `null` (echo) or `file` (append), the same shape as a measured run.
    Floor,
    /// A step of a sweep.
    SweepStep,
    /// Confirms the knee at 100 %.
    ConfirmFull,
    /// Confirms the knee at 80 %, and where that does not hold, lower rates by the same factor until one does.
    ConfirmEighty,
    /// Shows what the generator can do (`null`, as fast as it goes).
    Headroom,
    /// Counts system calls, which slows them down: its cost per message is used, its times are in no figure.
    Counting,
}

/// How operations are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoopKind {
    /// On a schedule that never waits for an answer. Latency counts from the schedule.
    Open,
    /// The next one when an answer has come. Hides what a stall does to others; response equals service time.
    Closed,
}

/// Whether a run got to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state", deny_unknown_fields)]
pub enum RunStatus {
    /// All phases were done.
    Complete,
    /// It ended early; the figures are what there is.
    Partial {
        /// In which phase and why, in one sentence.
        reason: String,
    },
}

/// [`RunStatus::Partial`] of a run that the user ended.
pub const INTERRUPTED: &str = "interrupted";
/// [`RunStatus::Partial`] of a closed loop that was faster than its books had room for.
pub const BOOKS_FULL: &str =
    "the books are full: it answers faster than a closed loop has room for; take a shorter run or a fixed rate";

impl RunStatus {
    /// Whether the run ended early for what the target did: neither the user nor the harness ended it.
    pub fn is_ended_by_target(&self) -> bool {
        match self {
            RunStatus::Complete => false,
            RunStatus::Partial { reason } => !reason.ends_with(INTERRUPTED) && !reason.ends_with(BOOKS_FULL),
        }
    }
}

/// Everything that shapes the load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunParameters {
    /// Open or closed.
    pub loop_kind: LoopKind,
    /// Arrival process as written in the workload, such as `uniform` or `burst(100, 10ms)`.
    pub arrivals: String,
    /// Intended operations per second; `None` for closed loops.
    pub target_rate_per_s: Option<f64>,
    /// Seed of the plan.
    pub seed: u64,
    /// SHA-256 of the plan of the measured phase (hex); empty for closed loops.
    pub plan_sha256: String,
    /// Body bytes of a message.
    pub message_bytes: u64,
    /// Messages per send request.
    pub batch: u32,
    /// Producing connections.
    pub connections: u32,
    /// Most requests in flight per connection.
    pub depth: u32,
    /// Topics.
    pub topics: u32,
    /// Queues per topic.
    pub queues: u32,
    /// Consumer groups that read everything.
    pub consumer_groups: u32,
    /// Connections that do nothing.
    #[serde(default)]
    pub idle_connections: u32,
    /// Bytes of messages that waited for the consumers when the run began.
    #[serde(default)]
    pub preload_bytes: u64,
    /// Header form on the wire: `json`, `rocketmq` or `none`.
    pub header: String,
    /// Intended length of the measured phase in seconds.
    pub measure_s: f64,
    /// Factor by which sizes of the workload were multiplied (backlog, connections, time).
    pub scale: f64,
}

/// One phase of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseRecord {
    /// `connect`, `probe`, `preload`, `warm-up`, `measure`, `drain` or `verify`.
    pub name: String,
    /// Since the run began.
    pub start_ns: u64,
    /// How long it took.
    pub duration_ns: u64,
    /// Why it ended, if that says something (`steady`, `time limit`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// Failures of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorCount {
    /// Response code with its RocketMQ name, `timeout`, or `connection`.
    pub kind: String,
    /// How many.
    pub count: u64,
    /// The first remark of the broker or the operating system.
    pub example: String,
}

/// One operation: the three histograms, and the fourth for errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationRecord {
    /// `send`, `pull`, `connect`, `append` …
    pub name: String,
    /// Operations planned in the measured phase (closed loop: started).
    pub planned: u64,
    /// Answered without an error.
    pub acknowledged: u64,
    /// Failed, all kinds.
    pub errors: u64,
    /// Failures by kind.
    pub error_kinds: Vec<ErrorCount>,
    /// Intended time to answer.
    pub response: Distribution,
    /// Actual time to answer.
    pub service: Distribution,
    /// Intended to actual time.
    pub lag: Distribution,
    /// Errors and timeouts at their elapsed time since the intended one.
    pub error: Distribution,
}

/// From intended send to receipt by a consumer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndToEnd {
    /// Samples, each message once per consumer group.
    pub distribution: Distribution,
    /// Messages received before they were sent: clock errors. Any makes the run invalid.
    pub negative: u64,
}

/// What became of the messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntegrityRecord {
    /// Whether messages were read back at all.
    pub checked: bool,
    /// Messages sent, warm-up included.
    pub sent: u64,
    /// Of those, acknowledged.
    pub acknowledged: u64,
    /// Deliveries, all groups together.
    pub received: u64,
    /// Acknowledged and not delivered, summed over groups.
    pub lost: u64,
    /// Delivered again to the same group.
    pub duplicated: u64,
    /// Delivered before a message that had been acknowledged when this one was sent.
    pub reordered: u64,
    /// Checksum or length does not fit.
    pub corrupt: u64,
    /// Of another run, of no producer, or never sent.
    pub phantom: u64,
    /// Delivered out of sending order while both were in flight. Allowed.
    pub overtaken: u64,
    /// Delivered although the send failed or timed out. Allowed: the outcome was unknown.
    pub unacknowledged_delivered: u64,
}

impl IntegrityRecord {
    /// Whether anything happened that a broker must not do.
    pub fn is_violated(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.corrupt + self.phantom > 0
    }

    /// What happened of it, one phrase each.
    pub fn violations(&self) -> Vec<String> {
        let kinds = [
            (self.lost, "lost"),
            (self.duplicated, "duplicated"),
            (self.reordered, "reordered"),
            (self.corrupt, "corrupt"),
            (self.phantom, "phantom"),
        ];
        kinds
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} messages {what}"))
            .collect()
    }
}

/// How late things are on a core, against a grid of 1 ms. On the broker's cores: when a thread that sleeps from point to point
/// wakes up, so whatever holds it up is in it, the broker's own threads included. On the generator's: gaps of its loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HiccupRecord {
    /// Core.
    pub core: u32,
    /// `broker` or `generator`.
    pub role: String,
    /// Delay of each point of the grid; a gap of 5 ms makes five late points.
    pub distribution: Distribution,
}

/// How the generator did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorRecord {
    /// The one core that it was bound to, as the kernel says; `None`: it could run on several.
    pub core: Option<u32>,
    /// Cores of the broker, as a list such as `0,2-3`; empty if unknown.
    pub broker_cores: String,
    /// Whether the two could meet on one core.
    pub shares_cores: bool,
    /// Share of the measured phase in which it had something to do. Above 0.75 its limits colour the result.
    pub busy_share: f64,
    /// Whether the host is a virtual machine, which decides how lag is judged; `None`: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_machine: Option<bool>,
    /// Lag of open loops that the generator or its core caused: without operations that waited for a free place.
    #[serde(default)]
    pub own_lag: Distribution,
    /// Heap allocations in the measured phase. Must be 0.
    pub allocations: u64,
}

/// Cost of the broker process per message of the measured phase. `None`: not permitted or not available.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceCost {
    /// CPU time of all threads.
    pub cpu_ns_per_message: Option<f64>,
    /// CPU time of all threads as a number of cores.
    pub cpu_cores: Option<f64>,
    /// Instructions in user space.
    pub instructions_per_message: Option<f64>,
    /// System calls.
    pub syscalls_per_message: Option<f64>,
    /// Why there is no figure for system calls; empty if there is one, or nobody asked for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub syscalls_absent: String,
    /// Voluntary context switches.
    pub voluntary_switches_per_message: Option<f64>,
    /// Involuntary context switches.
    pub involuntary_switches_per_message: Option<f64>,
    /// Bytes sent to the block layer per byte of body.
    pub write_amplification: Option<f64>,
    /// Syncs of the log per second, from the broker's metrics; a synchronous direct write counts as one.
    pub syncs_per_s: Option<f64>,
    /// Resident memory at the end.
    pub resident_bytes: Option<u64>,
    /// Of those, anonymous.
    pub resident_anonymous_bytes: Option<u64>,
}

/// Whether the figures may be used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validity {
    /// Why the run is invalid, one sentence each; empty: valid.
    pub invalid: Vec<String>,
    /// Whether a watched core was noisy: hiccup p99.9 above half of the SLO's. A broker that keeps its core busy is enough.
    pub noisy: bool,
    /// What a reader should know, one sentence each.
    pub warnings: Vec<String>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    /// Unique in the set and usable as a file name; names the run's `.hlog` file.
    pub id: String,
    /// [`super::SystemRecord::name`].
    pub system: String,
    /// [`super::WorkloadRecord::name`].
    pub workload: String,
    /// `None` for the echo floor, which keeps nothing.
    pub durability: Option<Durability>,
    /// Why it was made.
    pub role: RunRole,
    /// Number of the repeat, from 1; runs of different systems with the same number belong to one pair.
    pub round: u32,
    /// RFC 3339, UTC.
    pub started: String,
    /// To the end, or not.
    pub status: RunStatus,
    /// The load.
    pub parameters: RunParameters,
    /// In order.
    pub phases: Vec<PhaseRecord>,
    /// Length of the measured phase: from its start to its last scheduled operation.
    pub measured_ns: u64,
    /// Acknowledged operations per second of the measured phase.
    pub achieved_rate_per_s: f64,
    /// Acknowledged messages per second (operations times batch).
    pub messages_per_s: f64,
    /// The first is the one that series and summaries are about.
    pub operations: Vec<OperationRecord>,
    /// `None` without consumers.
    pub end_to_end: Option<EndToEnd>,
    /// What became of the messages.
    pub integrity: IntegrityRecord,
    /// One per watched core.
    pub hiccups: Vec<HiccupRecord>,
    /// Share of CPU time that the hypervisor took in the measured phase.
    pub steal_share: Option<f64>,
    /// The generator.
    pub generator: GeneratorRecord,
    /// The broker's cost.
    pub cost: ResourceCost,
    /// Whether to use it.
    pub validity: Validity,
    /// One point per second.
    pub series: Vec<SecondPoint>,
    /// What the broker did, if it says.
    pub events: Vec<BrokerEvent>,
    /// File with the interval histograms, in the result directory; empty in a published copy that does not keep it.
    pub hlog: String,
    /// File with the histograms of what is in no figure (preload, warm-up) and of what was answered after the plan (drain); empty
    /// in a published copy.
    #[serde(default)]
    pub phases_hlog: String,
}

impl RunRecord {
    /// The operation that summaries are about.
    pub fn primary(&self) -> Option<&OperationRecord> {
        self.operations.first()
    }
}
