//! A result set: everything that one command measured.

use serde::{Deserialize, Serialize};

use super::{Durability, RunRecord};

/// Which command made a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetKind {
    /// The canonical run (no arguments).
    Canonical,
    /// `run`.
    Run,
    /// `sweep`.
    Sweep,
    /// `versus`.
    Versus,
    /// `publish`.
    Publish,
}

/// Whether a command got to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state", deny_unknown_fields)]
pub enum SetStatus {
    /// Everything that was planned is there.
    Complete,
    /// It was interrupted or failed.
    Partial {
        /// Why, in one sentence.
        reason: String,
    },
}

/// The harness itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolRecord {
    /// Version of `ringmq-bench`.
    pub version: String,
    /// `release` or `debug`. Figures of a debug build are not worth showing.
    pub profile: String,
}

/// A broker or floor under test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemRecord {
    /// `ringmq`, `java`, `null`, `file`, or the target's address.
    pub name: String,
    /// For people: `RingMQ 0.1.0`, `Apache RocketMQ 5.3.3`.
    pub title: String,
    /// Class of its acknowledgements as configured; `None` if unknown or nothing is kept.
    pub durability: Option<Durability>,
    /// Configuration as given to it, key and value.
    pub configuration: Vec<(String, String)>,
    /// Command line it was started with; empty if it ran already.
    pub command: Vec<String>,
    /// JVM version and the like.
    pub runtime: String,
    /// Tuning profile of the host.
    pub profile: String,
    /// Copies of its configuration and log in the result directory.
    pub files: Vec<String>,
}

/// A workload as it was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadRecord {
    /// Stable name.
    pub name: String,
    /// What it models.
    pub models: String,
    /// What it hides.
    pub hides: String,
    /// Its file, whole.
    pub definition: String,
}

/// Conditions on a run. A member that is `None` is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slo {
    /// Most of the median response time.
    pub p50_ns: Option<u64>,
    /// Most of the 99 % response time.
    pub p99_ns: Option<u64>,
    /// Most of the 99.9 % response time.
    pub p999_ns: Option<u64>,
    /// Most of the 99.99 % response time.
    pub p9999_ns: Option<u64>,
    /// Most of the longest response time.
    pub max_ns: Option<u64>,
    /// Most errors; without it none is allowed.
    pub errors: Option<u64>,
    /// Most time by which answers may be behind the schedule at its end.
    pub backlog_ns: Option<u64>,
}

/// Rate against latency for one system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// [`SystemRecord::name`].
    pub system: String,
    /// [`WorkloadRecord::name`].
    pub workload: String,
    /// Class.
    pub durability: Option<Durability>,
    /// Number of the repeat, from 1.
    pub round: u32,
    /// What a step had to hold.
    pub slo: Slo,
    /// By rising rate.
    pub points: Vec<CurvePoint>,
    /// Highest rate that held, confirmed by repeats; `None` if not even the first step did.
    pub knee_rate_per_s: Option<f64>,
    /// Whether all repeats at the knee held.
    pub confirmed: bool,
}

/// One step of a curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurvePoint {
    /// Target rate.
    pub rate_per_s: f64,
    /// [`RunRecord::id`].
    pub run: String,
    /// Whether the SLO held and the run was valid.
    pub held: bool,
    /// Why not.
    pub reason: String,
}

/// What the generator can do against `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Headroom {
    /// [`WorkloadRecord::name`] whose shape was used.
    pub workload: String,
    /// Operations per second reached.
    pub null_rate_per_s: f64,
    /// The highest fixed rate of single messages in this set. Closed loops and knees go to a limit instead: what the
    /// generator had to spare there is in their runs.
    pub highest_used_rate_per_s: f64,
}

/// A goal and what was reached, for canonical and published sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// Such as `P1`.
    pub id: String,
    /// The rule in words.
    pub rule: String,
    /// Value that was to be reached.
    pub wanted: f64,
    /// Value that was measured, in the same unit.
    pub measured: f64,
    /// Unit of both.
    pub unit: String,
    /// Whether more is better.
    #[serde(default)]
    pub at_least: bool,
}

impl Goal {
    /// Whether it was reached.
    pub fn is_met(&self) -> bool {
        if self.at_least { self.measured >= self.wanted } else { self.measured <= self.wanted }
    }
}

/// `result.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultSet {
    /// [`super::RESULT_SCHEMA`].
    pub schema: String,
    /// Which command.
    pub kind: SetKind,
    /// RFC 3339, UTC, of the start.
    pub created: String,
    /// Complete or not.
    pub status: SetStatus,
    /// The harness.
    pub tool: ToolRecord,
    /// The command line that repeats it.
    pub command: Vec<String>,
    /// SHA-256 of `env.json` (hex).
    pub environment_sha256: String,
    /// Systems under test, floors included.
    pub systems: Vec<SystemRecord>,
    /// Workloads in use.
    pub workloads: Vec<WorkloadRecord>,
    /// What the sweep or the run was judged by.
    pub slo: Option<Slo>,
    /// All runs in the order they were made, floors and failures included.
    pub runs: Vec<RunRecord>,
    /// Rate-latency curves; empty if nothing was swept.
    pub curves: Vec<Curve>,
    /// What the generator can do.
    pub headroom: Vec<Headroom>,
    /// Goals and results.
    pub goals: Vec<Goal>,
}

impl ResultSet {
    /// Share of what the generator can do, as shown against the echo, that the knee of a curve uses.
    pub fn used_share_at_knee(&self, curve: &Curve) -> Option<f64> {
        Some(curve.knee_rate_per_s? / self.headroom.first()?.null_rate_per_s)
    }

    /// The largest share of its time in which the generator had work at the knee of a curve. It handles what has gathered, so
    /// this nears 1 long before its limit, which is [`ResultSet::used_share_at_knee`].
    pub fn busy_share_at_knee(&self, curve: &Curve) -> Option<f64> {
        let knee = curve.knee_rate_per_s?;
        let at_knee = curve.points.iter().filter(|point| (point.rate_per_s - knee).abs() <= knee * 1e-6);
        at_knee.filter_map(|point| Some(self.run(&point.run)?.generator.busy_share)).reduce(f64::max)
    }

    /// The run with this id.
    pub fn run(&self, id: &str) -> Option<&RunRecord> {
        self.runs.iter().find(|run| run.id == id)
    }
}
