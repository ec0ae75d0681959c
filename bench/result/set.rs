//! A result set: everything that one command measured.

use serde::{Deserialize, Serialize};

use super::{Durability, LoopKind, RunRecord, RunRole, RunStatus};

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
    /// Configuration as given to it, key and value; of a broker that ran already, what it says of it, as far as that matters.
    pub configuration: Vec<(String, String)>,
    /// Command line it was started with; empty if it ran already.
    pub command: Vec<String>,
    /// JVM version and the like.
    pub runtime: String,
    /// Tuning profile of the host.
    pub profile: String,
    /// Copies of its configuration and log in the result directory.
    pub files: Vec<String>,
    /// How each start of it ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exits: Vec<ExitRecord>,
}

/// How a broker that was started here ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitRecord {
    /// Which start: the name of its files.
    pub start: String,
    /// Its status, or what else happened.
    pub status: String,
    /// Whether it ended as it should: when it was told to, with the status of success.
    pub is_in_order: bool,
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
    /// Most of the median time from the planned start of a send to the receipt.
    #[serde(default)]
    pub e2e_p50_ns: Option<u64>,
    /// Of its 99 %.
    #[serde(default)]
    pub e2e_p99_ns: Option<u64>,
    /// Of its 99.9 %.
    #[serde(default)]
    pub e2e_p999_ns: Option<u64>,
    /// Of its 99.99 %.
    #[serde(default)]
    pub e2e_p9999_ns: Option<u64>,
    /// Of the longest one.
    #[serde(default)]
    pub e2e_max_ns: Option<u64>,
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
    /// Highest rate that held when it was searched for; `None` if not even the first step did. It is borne out only if
    /// [`Curve::confirmed`]; see [`crate::judge::confirmed_rate`].
    pub knee_rate_per_s: Option<f64>,
    /// Whether all repeats at the knee and at the lower rate beside it held.
    pub confirmed: bool,
    /// Whether the search ended before its end: it was interrupted, or the system died.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut_short: bool,
}

/// One step of a curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurvePoint {
    /// Target rate.
    pub rate_per_s: f64,
    /// [`RunRecord::id`].
    pub run: String,
    /// Whether the SLO held, in a valid run or in one whose response times can only be too long.
    pub held: bool,
    /// Why not, or what else is to be said of the run.
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
    /// The highest rate of single messages that the set needed from it: the highest of the three below; 0: none.
    pub highest_used_rate_per_s: f64,
    /// The highest fixed rate of a measured run.
    #[serde(default)]
    pub highest_fixed_rate_per_s: f64,
    /// What the fastest measured closed loop reached.
    #[serde(default)]
    pub fastest_closed_loop_per_s: f64,
    /// The highest knee of a curve, confirmed or not.
    #[serde(default)]
    pub highest_knee_per_s: f64,
}

impl Headroom {
    /// What it was needed for, the rate, and how many times that the generator can do. Without what the set does not have.
    pub fn uses(&self) -> impl Iterator<Item = (&'static str, f64, f64)> {
        let uses = [
            ("the highest fixed rate", self.highest_fixed_rate_per_s),
            ("the fastest closed loop", self.fastest_closed_loop_per_s),
            ("the highest knee", self.highest_knee_per_s),
        ];
        let limit = self.null_rate_per_s;
        uses.into_iter().filter(|(_, rate)| *rate > 0.0).map(move |(name, rate)| (name, rate, limit / rate))
    }
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
    /// Value that was measured, in the same unit; `None`: the runs failed so early that there is none.
    pub measured: Option<f64>,
    /// Unit of both.
    pub unit: String,
    /// Whether more is better.
    #[serde(default)]
    pub at_least: bool,
    /// Why it was missed whatever the value: what the system failed by. Empty: the value decides.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure: String,
    /// Why it is missed, with evidence, as far as it is known. Empty where it is not, and where the goal is reached.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cause: String,
}

impl Goal {
    /// Whether it was reached.
    pub fn is_met(&self) -> bool {
        let is_enough = |measured| if self.at_least { measured >= self.wanted } else { measured <= self.wanted };
        self.failure.is_empty() && self.measured.is_some_and(is_enough)
    }
}

/// How far a figure of RingMQ is from what network, generator and disk cost by themselves, measured in the same set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distance {
    /// Load, class and figure, such as `steady-1k-10k at 10,000/s, D1, p99`.
    pub row: String,
    /// Id of the goal that judges this figure; empty: none does.
    pub goal: String,
    /// What that goal wants, in the same unit.
    pub wanted: Option<f64>,
    /// Median over the runs that count.
    pub measured: f64,
    /// The floor, in the same unit.
    pub floor: f64,
    /// What the floor consists of.
    pub floor_is: String,
    /// Unit of all three.
    pub unit: String,
    /// How many times as good the floor is; above 1: RingMQ is behind it.
    pub ratio: f64,
    /// Why, as far as it is known; empty: not yet explained.
    pub cause: String,
}

impl Distance {
    /// The class of its row: the part before the figure.
    pub fn class(&self) -> Option<Durability> {
        self.row.rsplit(", ").nth(1).and_then(Durability::find)
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
    /// Distances to the floors, the largest first, one per load and class.
    #[serde(default)]
    pub distances: Vec<Distance>,
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

    /// The curve with the highest knee.
    pub fn highest_curve(&self) -> Option<&Curve> {
        let knees = self.curves.iter().filter_map(|curve| Some((curve, curve.knee_rate_per_s?)));
        knees.max_by(|left, right| left.1.total_cmp(&right.1)).map(|(curve, _)| curve)
    }

    /// How the generator keeps up, without a broker, with the plan of a curve at a rate of which the curve's knee is at most `share`: the
    /// rate, and the part of it that was reached, the best of several runs, for what the host takes is not the generator's. `None`:
    /// there is no such run.
    pub fn kept_up_above(&self, curve: &Curve, share: f64) -> Option<(f64, f64)> {
        let knee = curve.knee_rate_per_s?;
        let is_alone = |run: &&RunRecord| {
            run.role == RunRole::Headroom && run.workload == curve.workload && run.status == RunStatus::Complete
        };
        let shares = self.runs.iter().filter(is_alone).filter_map(|run| {
            let target = run.parameters.target_rate_per_s?;
            // Rates have three digits.
            (target * share >= knee * 0.99).then(|| (target, run.achieved_rate_per_s / target))
        });
        shares.max_by(|left, right| left.1.total_cmp(&right.1))
    }

    /// The highest rate of a curve that held in a run in which the generator had work in at most `most` of its time.
    pub fn rate_with_busy_share(&self, curve: &Curve, most: f64) -> Option<f64> {
        let is_free = |run: &RunRecord| run.generator.busy_share <= most;
        let held = curve.points.iter().filter(|point| point.held && self.run(&point.run).is_some_and(is_free));
        held.map(|point| point.rate_per_s).reduce(f64::max)
    }

    /// Notes what the set needed from the generator.
    pub fn note_used_rates(&mut self) {
        let is_single = |run: &&RunRecord| {
            run.role == RunRole::Measured
                && run.parameters.batch == 1
                && run.operations.iter().any(|operation| operation.name == "send")
        };
        let most = |rates: &mut dyn Iterator<Item = f64>| rates.fold(0.0, f64::max);
        let runs = || self.runs.iter().filter(is_single);
        let fixed = most(&mut runs().filter_map(|run| run.parameters.target_rate_per_s));
        let closed = runs().filter(|run| run.parameters.loop_kind == LoopKind::Closed);
        let closed = most(&mut closed.map(|run| run.achieved_rate_per_s));
        let knee = most(&mut self.curves.iter().filter_map(|curve| curve.knee_rate_per_s));
        for headroom in &mut self.headroom {
            headroom.highest_fixed_rate_per_s = fixed;
            headroom.fastest_closed_loop_per_s = closed;
            headroom.highest_knee_per_s = knee;
            headroom.highest_used_rate_per_s = fixed.max(closed).max(knee);
        }
    }

    /// A broker that did not end as it should, in one sentence: what it had acknowledged by then may not be what it kept.
    pub fn broken_exit(&self) -> Option<String> {
        let exits = self.systems.iter().flat_map(|system| &system.exits);
        let broken =
            exits.filter(|exit| !exit.is_in_order).map(|exit| format!("broker {}: {}", exit.start, exit.status));
        broken.reduce(|all, more| format!("{all}; {more}"))
    }

    /// The run with this id.
    pub fn run(&self, id: &str) -> Option<&RunRecord> {
        self.runs.iter().find(|run| run.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    /// Goal: the generator's limit is set against everything that was needed of it, and against nothing where nothing was.
    /// Method: the example with a fast closed loop, and a set without runs.
    #[test]
    fn every_use_of_the_generator_counts() {
        let mut set = example::result_set();
        let mut closed = example::run("ringmq", 1, RunRole::Measured, 160_000.0, 60_000);
        closed.parameters.loop_kind = LoopKind::Closed;
        closed.parameters.target_rate_per_s = None;
        set.runs.push(closed);
        set.note_used_rates();
        let uses: Vec<_> = set.headroom[0].uses().collect();
        assert_eq!(
            uses,
            [
                ("the highest fixed rate", 10_000.0, 64.0),
                ("the fastest closed loop", 160_000.0, 4.0),
                ("the highest knee", 80_000.0, 8.0)
            ]
        );
        assert_eq!(set.headroom[0].highest_used_rate_per_s, 160_000.0);
        (set.runs, set.curves) = (Vec::new(), Vec::new());
        set.note_used_rates();
        assert_eq!(set.headroom[0].uses().count(), 0);
    }

    /// Goal: a rate that took the generator's whole core is none that leaves it free, and one that failed is none either. Method: the
    /// example's curve, its knee made busy, then all of it.
    #[test]
    fn rates_that_leave_the_generator_free() {
        let mut set = example::result_set();
        set.runs.iter_mut().for_each(|run| run.generator.busy_share = 0.5);
        let curve = set.curves[0].clone();
        let knee = curve.knee_rate_per_s.unwrap();
        assert_eq!(set.rate_with_busy_share(&curve, 0.75), Some(knee));
        let at = |rate: f64| curve.points.iter().filter(move |point| point.rate_per_s == rate);
        for point in at(knee) {
            set.runs.iter_mut().filter(|run| run.id == point.run).for_each(|run| run.generator.busy_share = 0.9);
        }
        let free = set.rate_with_busy_share(&curve, 0.75).unwrap();
        assert!(free < knee && at(free).any(|point| point.held), "{free}");
        set.runs.iter_mut().for_each(|run| run.generator.busy_share = 1.0);
        assert_eq!(set.rate_with_busy_share(&curve, 0.75), None);
    }

    /// Goal: one start that ended badly is enough. Method: exits in order, and one more.
    #[test]
    fn broken_exits_are_found() {
        let mut set = example::result_set();
        assert_eq!(set.broken_exit(), None);
        let exit = |status: &str, is_in_order| ExitRecord {
            start: "ringmq-D1-1".to_owned(),
            status: status.to_owned(),
            is_in_order,
        };
        set.systems[2].exits.push(exit("exit status: 0", true));
        assert_eq!(set.broken_exit(), None);
        set.systems[2].exits.push(exit("exit status: 5", false));
        assert_eq!(set.broken_exit().as_deref(), Some("broker ringmq-D1-1: exit status: 5"));
    }
}
