//! Two sets of runs against each other: ratios of medians with bootstrap intervals, and a verdict per figure. Pure.
//!
//! Invariants: only runs of the same workload, load and durability class meet, and only knees of the same conditions; invalid,
//! unfinished and lossy runs are left out; fewer than [`LEAST_RUNS`] usable runs on a side are not compared at all, and the
//! reader is told. A candidate that has too few because it failed itself (it lost messages, died, or missed the rate) is
//! worse than any figure: that is a failure of the comparison, not a gap in it. So is a candidate without runs where the baseline has
//! figures, and one that did not get to its end. The intervals come from a fixed seed, so the
//! same files give the same table.

mod bootstrap;
mod text;

use std::fmt::Write as _;

use serde::Serialize;

use crate::environment::HALT_POLL_FACT;
use crate::judge::{confirmed_rate, doubts, is_refuted, target_failures};
use crate::report::groups::{Figure, Group, groups};
use crate::result::{Curve, Durability, EnvironmentRecord, ResultSet, RunRecord, RunRole, SetStatus, Slo};
use crate::units;

pub use text::table;

/// Usable runs that each side needs.
pub const LEAST_RUNS: usize = 3;

/// A figure that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Median response time.
    P50,
    /// 99 % response time.
    P99,
    /// 99.9 % response time.
    P999,
    /// Longest response time.
    Longest,
    /// Acknowledged messages per second.
    Rate,
    /// Highest rate that held the SLO and did so again when it was repeated.
    Knee,
    /// CPU time of the broker per message.
    CpuPerMessage,
    /// Resident memory of the broker.
    Resident,
}

impl Metric {
    /// Those that belong to a run.
    pub const OF_RUNS: [Metric; 7] = [
        Metric::P50,
        Metric::P99,
        Metric::P999,
        Metric::Longest,
        Metric::Rate,
        Metric::CpuPerMessage,
        Metric::Resident,
    ];

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Metric::P50 => "p50",
            Metric::P99 => "p99",
            Metric::P999 => "p99.9",
            Metric::Longest => "longest",
            Metric::Rate => "messages/s",
            Metric::Knee => "knee/s",
            Metric::CpuPerMessage => "CPU/message",
            Metric::Resident => "resident",
        }
    }

    /// A value with its unit.
    pub fn text(self, value: f64) -> String {
        match self {
            Metric::Rate | Metric::Knee => units::count(value),
            Metric::Resident => units::bytes(value),
            _ => units::duration(value),
        }
    }

    fn is_better_when_larger(self) -> bool {
        matches!(self, Metric::Rate | Metric::Knee)
    }

    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of hours and bytes are below 2^53")]
    fn of(self, run: &RunRecord) -> Option<f64> {
        let first = run.primary().filter(|operation| operation.acknowledged > 0);
        match self {
            Metric::P50 => first.map(|operation| operation.response.p50_ns as f64),
            Metric::P99 => first.map(|operation| operation.response.p99_ns as f64),
            Metric::P999 => first.map(|operation| operation.response.p999_ns as f64),
            Metric::Longest => first.map(|operation| operation.response.max_ns as f64),
            Metric::Rate => Some(run.messages_per_s),
            Metric::Knee => None,
            Metric::CpuPerMessage => run.cost.cpu_ns_per_message,
            Metric::Resident => run.cost.resident_bytes.map(|bytes| bytes as f64),
        }
    }
}

/// By how much the candidate may be worse, as shares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Of the 99 % response time.
    pub p99: f64,
    /// Of the CPU time per message.
    pub cpu_per_message: f64,
    /// Of messages per second and of the knee.
    pub rate: f64,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds { p99: 0.10, cpu_per_message: 0.05, rate: 0.05 }
    }
}

impl Thresholds {
    /// The share for a metric; `None` where a difference is shown but not judged.
    fn of(self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::P99 => Some(self.p99),
            Metric::CpuPerMessage => Some(self.cpu_per_message),
            Metric::Rate | Metric::Knee => Some(self.rate),
            Metric::P50 | Metric::P999 | Metric::Longest | Metric::Resident => None,
        }
    }
}

/// What the interval says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The whole interval is on the good side of 1.
    Better,
    /// The interval contains 1.
    Undecided,
    /// The whole interval is on the bad side of 1, within the threshold or without one.
    Worse,
    /// As `Worse`, and the ratio of medians is beyond the threshold.
    Regression,
}

/// One figure of one workload.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Class of both sides.
    pub durability: Option<Durability>,
    /// Workload of both sides.
    pub workload: String,
    /// Target rate; `None` for closed loops and knees.
    pub rate_per_s: Option<f64>,
    /// Which figure.
    pub metric: Metric,
    /// Median of the baseline.
    pub baseline: f64,
    /// Median of the candidate.
    pub candidate: f64,
    /// Candidate divided by baseline.
    pub ratio: f64,
    /// Lower end of the 95 % interval of the ratio.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Usable runs of the baseline.
    pub baseline_runs: usize,
    /// Usable runs of the candidate.
    pub candidate_runs: usize,
    /// The judgement.
    pub verdict: Verdict,
}

impl Row {
    /// The target rate for people.
    pub fn rate_text(&self) -> String {
        self.rate_per_s.map_or_else(|| "–".to_owned(), units::count)
    }
}

/// A comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Name of the baseline.
    pub baseline: String,
    /// Name of the candidate.
    pub candidate: String,
    /// By class, workload, rate and figure.
    pub rows: Vec<Row>,
    /// What was not compared, and why.
    pub skipped: Vec<String>,
    /// In what the machines of the two sides differ.
    pub notes: Vec<String>,
    /// What could not be compared because the candidate failed where the baseline did not.
    pub failures: Vec<String>,
    /// Runs of the candidate in which messages were lost, doubled, reordered, damaged or invented.
    pub violations: Vec<String>,
}

impl Comparison {
    fn new(baseline: &str, candidate: &str) -> Comparison {
        Comparison {
            baseline: baseline.to_owned(),
            candidate: candidate.to_owned(),
            rows: Vec::new(),
            skipped: Vec::new(),
            notes: Vec::new(),
            failures: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// Whether any figure is a regression, or is missing because the candidate failed.
    pub fn has_regression(&self) -> bool {
        !self.failures.is_empty() || self.rows.iter().any(|row| row.verdict == Verdict::Regression)
    }

    /// Whether there is nothing to say: no row, and nothing that the candidate did wrong.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.failures.is_empty() && self.violations.is_empty()
    }

    /// 4 integrity, 1 a regression, 0.
    pub fn exit_code(&self) -> u8 {
        if self.violations.is_empty() { u8::from(self.has_regression()) } else { 4 }
    }

    fn note_violations<'a>(&mut self, runs: impl Iterator<Item = &'a RunRecord>) {
        let lossy = runs.filter(|run| run.integrity.is_violated());
        self.violations.extend(lossy.map(|run| format!("{}: {}", run.id, run.integrity.violations().join(", "))));
    }
}

/// Compares two sets (`compare A B`): A is the baseline. Each may consist of several results.
pub fn compare(baseline: &[ResultSet], candidate: &[ResultSet], thresholds: Thresholds) -> Comparison {
    let mut comparison = Comparison::new("A", "B");
    comparison.note_violations(candidate.iter().flat_map(|set| &set.runs));
    for set in candidate {
        let partial = if let SetStatus::Partial { reason } = &set.status { Some(reason.clone()) } else { None };
        // The status of a set is its first trouble; a broker that ended badly is told in any case.
        let exit = set.broken_exit().filter(|exit| partial.as_ref().is_none_or(|reason| !reason.contains(exit)));
        comparison
            .failures
            .extend(partial.map(|reason| format!("the set of B made {} is partial: {reason}", set.created)));
        comparison.failures.extend(exit);
    }
    let left = cells(baseline, None);
    let right = cells(candidate, None);
    pair(&left, &right, thresholds, &mut comparison);
    for cell in right.iter().filter(|cell| !left.iter().any(|other| other.is_same(cell))) {
        comparison.skipped.push(format!("{}: only in B", cell.name()));
    }
    comparison
}

/// Facts of a machine without which times of two sides are not comparable.
const TELLING_FACTS: [(&str, &str); 5] =
    [("cpu", HALT_POLL_FACT), ("cpu", "model"), ("cpu", "virtual machine"), ("kernel", "release"), ("cpu", "governor")];

/// In what the machines differ, one sentence each.
pub fn differences(baseline: &[EnvironmentRecord], candidate: &[EnvironmentRecord]) -> Vec<String> {
    let values = |side: &[EnvironmentRecord], section: &str, name: &str| {
        let fact = |environment: &EnvironmentRecord| {
            let found = environment.facts.iter().find(|fact| fact.section == section && fact.name == name);
            found.and_then(|fact| fact.value.clone()).unwrap_or_else(|| "unknown".to_owned())
        };
        let mut values: Vec<String> = side.iter().map(fact).collect();
        values.sort();
        values.dedup();
        values.join(" and ")
    };
    let facts = TELLING_FACTS.into_iter().filter_map(|(section, name)| {
        let (left, right) = (values(baseline, section, name), values(candidate, section, name));
        (left != right).then(|| format!("{section}, {name}: A {left}, B {right}"))
    });
    facts.collect()
}

/// Compares the systems of one set: each further one is the baseline of the first, so that a `versus ringmq java` says what
/// RingMQ is against Java.
pub fn inside(set: &ResultSet) -> Vec<Comparison> {
    let measured = |name: &str| {
        set.runs.iter().any(|run| run.system == name && !matches!(run.role, RunRole::Floor | RunRole::Headroom))
    };
    let mut systems = set.systems.iter().map(|system| system.name.as_str()).filter(|name| measured(name));
    let Some(first) = systems.next() else { return Vec::new() };
    let sets = std::slice::from_ref(set);
    systems
        .map(|other| {
            let mut comparison = Comparison::new(other, first);
            comparison.note_violations(set.runs.iter().filter(|run| run.system == first));
            let exits = set.systems.iter().filter(|system| system.name == first).flat_map(|system| &system.exits);
            let broken = exits.filter(|exit| !exit.is_in_order);
            comparison.failures.extend(broken.map(|exit| format!("broker {}: {}", exit.start, exit.status)));
            pair(&cells(sets, Some(other)), &cells(sets, Some(first)), Thresholds::default(), &mut comparison);
            comparison
        })
        .collect()
}

/// Values of one workload at one rate.
struct Cell {
    durability: Option<Durability>,
    workload: String,
    rate_milli: Option<u64>,
    /// Named only when several systems of one side would meet.
    system: Option<String>,
    /// What a knee had to hold.
    slo: Option<Slo>,
    /// What else shapes the load, by name; `None`: unknown.
    shape: Option<Vec<(&'static str, String)>>,
    runs: usize,
    /// Runs that the system itself failed, with what they failed by.
    failed: Vec<String>,
    values: Vec<(Metric, Vec<f64>)>,
}

/// Everything that shapes a load beside its rate: runs that differ in it are no repeats of each other.
fn shape_of(run: &RunRecord) -> Vec<(&'static str, String)> {
    let all = &run.parameters;
    vec![
        ("arrivals", all.arrivals.clone()),
        ("header", all.header.clone()),
        ("body", all.message_bytes.to_string()),
        ("batch", all.batch.to_string()),
        ("connections", all.connections.to_string()),
        ("depth", all.depth.to_string()),
        ("topics", all.topics.to_string()),
        ("queues", all.queues.to_string()),
        ("consumer groups", all.consumer_groups.to_string()),
        ("idle connections", all.idle_connections.to_string()),
        ("backlog", all.preload_bytes.to_string()),
    ]
}

impl Cell {
    /// Its key alone.
    fn key(&self) -> Cell {
        Cell {
            durability: self.durability,
            workload: self.workload.clone(),
            rate_milli: self.rate_milli,
            system: self.system.clone(),
            slo: self.slo.clone(),
            shape: self.shape.clone(),
            runs: 0,
            failed: Vec::new(),
            values: Vec::new(),
        }
    }

    fn is_same(&self, other: &Cell) -> bool {
        self.durability == other.durability
            && self.workload == other.workload
            && self.rate_milli == other.rate_milli
            && self.system == other.system
            && self.slo == other.slo
            && self.shape == other.shape
    }

    fn name(&self) -> String {
        let mut name = self.workload.clone();
        if let Some(rate) = self.rate_milli {
            // Writing to a string cannot fail.
            let _ = write!(name, " at {}/s", units::count(rate as f64 / 1000.0));
        }
        if let Some(slo) = &self.slo {
            let _ = write!(name, ", highest rate with {}", slo_text(slo));
        }
        if let Some(class) = self.durability {
            let _ = write!(name, " ({})", class.name());
        }
        if let Some(system) = &self.system {
            let _ = write!(name, " of {system}");
        }
        name
    }
}

/// The cells of some sets. With `system` only its runs and without its name; otherwise each system has cells of its own.
fn cells(sets: &[ResultSet], system: Option<&str>) -> Vec<Cell> {
    let mut cells: Vec<Cell> = Vec::new();
    for set in sets {
        for group in groups(set) {
            if system.is_some_and(|wanted| wanted != group.key.system)
                || group.runs.iter().all(|run| run.role == RunRole::Floor)
            {
                continue;
            }
            add(&mut cells, cell_of(&group, system.is_none()));
        }
        for curve in set.curves.iter().filter(|curve| system.is_none_or(|wanted| wanted == curve.system)) {
            let knee = confirmed_rate(set, curve);
            let failed = (knee.is_none() && is_refuted(set, curve)).then(|| {
                let doubts = doubts(set, curve).join(", ");
                if doubts.is_empty() { "no rate held".to_owned() } else { format!("not confirmed, {doubts}") }
            });
            add(
                &mut cells,
                Cell {
                    durability: curve.durability,
                    workload: curve.workload.clone(),
                    rate_milli: None,
                    system: system.is_none().then(|| curve.system.clone()),
                    slo: Some(curve.slo.clone()),
                    shape: knee_shape(set, curve),
                    runs: usize::from(knee.is_some()),
                    failed: failed.into_iter().collect(),
                    values: vec![(Metric::Knee, knee.into_iter().collect())],
                },
            );
        }
    }
    cells
}

/// The shape of the runs of a curve.
fn knee_shape(set: &ResultSet, curve: &Curve) -> Option<Vec<(&'static str, String)>> {
    curve.points.iter().find_map(|point| set.run(&point.run)).map(shape_of)
}

fn cell_of(group: &Group<'_>, with_system: bool) -> Cell {
    let values =
        Metric::OF_RUNS.map(|metric| (metric, group.usable().filter_map(|run| metric.of(run)).collect())).to_vec();
    let failed = group.runs.iter().filter_map(|run| {
        let failures = target_failures(run);
        (!failures.is_empty()).then(|| format!("{}: {}", run.id, failures.join(", ")))
    });
    Cell {
        durability: group.key.durability,
        workload: group.key.workload.clone(),
        rate_milli: group.key.rate_milli,
        system: with_system.then(|| group.key.system.clone()),
        slo: None,
        shape: group.runs.first().map(|run| shape_of(run)),
        runs: group.usable().count(),
        failed: failed.collect(),
        values,
    }
}

fn add(cells: &mut Vec<Cell>, cell: Cell) {
    let Some(known) = cells.iter_mut().find(|known| known.is_same(&cell)) else {
        cells.push(cell);
        return;
    };
    known.runs += cell.runs;
    known.failed.extend(cell.failed);
    for (metric, values) in cell.values {
        match known.values.iter_mut().find(|(other, _)| *other == metric) {
            Some((_, all)) => all.extend(values),
            None => known.values.push((metric, values)),
        }
    }
}

fn pair(baseline: &[Cell], candidate: &[Cell], thresholds: Thresholds, comparison: &mut Comparison) {
    for left in baseline {
        let Some(right) = candidate.iter().find(|right| right.is_same(left)) else {
            let text = format!("{}: {}", left.name(), absence(left, candidate, &comparison.baseline));
            // Where the baseline has figures, a candidate without any must not pass.
            let failed = left.runs >= LEAST_RUNS;
            if failed {
                comparison.failures.push(text)
            } else {
                comparison.skipped.push(text)
            }
            continue;
        };
        if !right.failed.is_empty() {
            let (name, failed) = (left.name(), right.failed.join("; "));
            if left.runs >= LEAST_RUNS && right.runs < LEAST_RUNS {
                comparison.failures.push(format!(
                    "{name}: {} has {} usable runs, {} has {} because it failed: {failed}",
                    comparison.baseline, left.runs, comparison.candidate, right.runs
                ));
                continue;
            }
            let candidate = &comparison.candidate;
            comparison.skipped.push(format!("{name}: runs that {candidate} failed are in no row: {failed}"));
        }
        for (metric, old) in &left.values {
            let Some((_, new)) = right.values.iter().find(|(other, _)| other == metric) else { continue };
            if old.is_empty() && new.is_empty() {
                continue;
            }
            if old.len() < LEAST_RUNS || new.len() < LEAST_RUNS {
                comparison.skipped.push(format!(
                    "{}, {}: {} and {} usable runs, each side needs {LEAST_RUNS}",
                    left.name(),
                    metric.title(),
                    old.len(),
                    new.len()
                ));
                continue;
            }
            comparison.rows.extend(row(left, *metric, old, new, thresholds));
        }
    }
}

/// Why a cell of the baseline has no match.
fn absence(left: &Cell, candidate: &[Cell], baseline: &str) -> String {
    let is_alike = |right: &&Cell| Cell { shape: left.shape.clone(), ..right.key() }.is_same(left);
    match candidate.iter().find(is_alike).zip(left.shape.as_ref()) {
        Some((right, ours)) => {
            let theirs = right.shape.as_ref();
            let differences: Vec<String> = ours
                .iter()
                .filter_map(|(name, value)| {
                    let other = theirs?.iter().find(|(other, _)| other == name).map(|(_, value)| value)?;
                    (other != value).then(|| format!("{name} {value} and {other}"))
                })
                .collect();
            format!("not the same load: {}", differences.join(", "))
        }
        None => format!("only in {baseline}"),
    }
}

fn row(cell: &Cell, metric: Metric, old: &[f64], new: &[f64], thresholds: Thresholds) -> Option<Row> {
    let baseline = Figure::of(old.iter().copied())?.median;
    let candidate = Figure::of(new.iter().copied())?.median;
    if baseline <= 0.0 {
        return None;
    }
    let ratio = candidate / baseline;
    let (low, high) = bootstrap::interval_of_ratio(old, new)?;
    // From here on, "worse" is above 1 whatever the figure.
    let (is_worse, is_better, loss) = if metric.is_better_when_larger() {
        (high < 1.0, low > 1.0, 1.0 - ratio)
    } else {
        (low > 1.0, high < 1.0, ratio - 1.0)
    };
    let verdict = match thresholds.of(metric) {
        Some(threshold) if is_worse && loss > threshold => Verdict::Regression,
        _ if is_worse => Verdict::Worse,
        _ if is_better => Verdict::Better,
        _ => Verdict::Undecided,
    };
    Some(Row {
        durability: cell.durability,
        workload: cell.workload.clone(),
        #[expect(clippy::cast_precision_loss, reason = "rates are below 2^53")]
        rate_per_s: cell.rate_milli.map(|rate| rate as f64 / 1000.0),
        metric,
        baseline,
        candidate,
        ratio,
        low,
        high,
        baseline_runs: old.len(),
        candidate_runs: new.len(),
        verdict,
    })
}

/// An SLO in the form in which it is asked for.
pub fn slo_text(slo: &Slo) -> String {
    let times = [
        ("p50", slo.p50_ns),
        ("p99", slo.p99_ns),
        ("p999", slo.p999_ns),
        ("p9999", slo.p9999_ns),
        ("max", slo.max_ns),
        ("backlog", slo.backlog_ns),
    ];
    let mut parts: Vec<String> = times
        .into_iter()
        .filter_map(|(name, limit)| Some(format!("{name} ≤ {}", units::nanoseconds(limit?))))
        .collect();
    parts.extend(slo.errors.map(|errors| format!("errors ≤ {errors}")));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    fn set_with(factor: u64) -> ResultSet {
        let mut set = example::result_set();
        set.curves.clear();
        set.runs = (1..=5)
            .map(|round| {
                let median_ns = 60_000 * factor / 100 + u64::from(round) * 500;
                example::run("ringmq", round, RunRole::Measured, 10_000.0, median_ns)
            })
            .collect();
        set
    }

    fn find(comparison: &Comparison, metric: Metric) -> &Row {
        comparison.rows.iter().find(|row| row.metric == metric).unwrap()
    }

    /// Goal: equal sets are undecided, a slower one is a regression beyond the threshold and merely worse within it, a faster
    /// one is better. Method: the example's runs with medians of 100, 105, 130 and 70 %.
    #[test]
    fn verdicts() {
        let base = [set_with(100)];
        let against = |factor| compare(&base, &[set_with(factor)], Thresholds::default());
        let same = against(100);
        assert_eq!(find(&same, Metric::P99).verdict, Verdict::Undecided);
        assert!(!same.has_regression());
        let slower = against(130);
        let row = find(&slower, Metric::P99);
        assert_eq!(row.verdict, Verdict::Regression, "{row:?}");
        assert!(row.low <= row.ratio && row.ratio <= row.high);
        assert_eq!(find(&slower, Metric::P50).verdict, Verdict::Worse);
        assert!(slower.has_regression());
        let a_little = compare(&base, &[set_with(107)], Thresholds { cpu_per_message: 0.5, ..Thresholds::default() });
        assert_eq!(find(&a_little, Metric::P99).verdict, Verdict::Worse);
        assert!(!a_little.has_regression());
        assert_eq!(find(&against(70), Metric::P99).verdict, Verdict::Better);
    }

    /// Goal: too few runs are refused by name, and nothing of another class is compared. Method: two usable runs of five, and
    /// a candidate in another class.
    #[test]
    fn refusals() {
        let base = [set_with(100)];
        let mut few = set_with(100);
        for run in &mut few.runs[..3] {
            run.validity.invalid.push("reached 80 %".to_owned());
        }
        let refused = compare(&base, &[few], Thresholds::default());
        assert!(refused.rows.is_empty());
        assert!(refused.skipped.iter().any(|line| line.contains("each side needs 3")), "{:?}", refused.skipped);
        let mut other = set_with(100);
        for run in &mut other.runs {
            run.durability = Some(Durability::D2);
        }
        let refused = compare(&base, &[other], Thresholds::default());
        assert!(refused.rows.is_empty());
        assert_eq!((refused.skipped.len(), refused.failures.len()), (1, 1), "{refused:?}");
    }

    /// Goal: runs under another load do not meet, by any of its parameters, and the difference is told; the seed and the length are no
    /// part of it. Method: the same set with one parameter changed at a time.
    #[test]
    fn unlike_loads_do_not_meet() {
        let base = [set_with(100)];
        let against = |change: &dyn Fn(&mut crate::result::RunParameters)| {
            let mut set = set_with(100);
            set.runs.iter_mut().for_each(|run| change(&mut run.parameters));
            compare(&base, &[set], Thresholds::default())
        };
        let same = against(&|all| (all.seed, all.measure_s, all.plan_sha256) = (9, 99.0, String::new()));
        assert!(!same.rows.is_empty() && same.exit_code() == 0, "{same:?}");
        let refused = |change: &dyn Fn(&mut crate::result::RunParameters), part: &str| {
            let found = against(change);
            let told = found.failures.iter().any(|failure| failure.contains(part));
            assert!(found.rows.is_empty() && found.exit_code() == 1 && told, "{part}: {found:?}");
        };
        refused(&|all| all.header = "rocketmq".to_owned(), "header json and rocketmq");
        refused(&|all| all.arrivals = "poisson".to_owned(), "arrivals uniform and poisson");
        refused(&|all| all.message_bytes = 16, "body 1024 and 16");
        refused(&|all| all.batch = 32, "batch 1 and 32");
        refused(&|all| all.connections = 99, "connections 4 and 99");
        refused(&|all| all.preload_bytes = 1, "backlog 0 and 1");
        refused(&|all| all.idle_connections = 1, "idle connections 0 and 1");
    }

    /// Goal: machines that differ in what decides times are told. Method: the example's environment, and one with another kernel and
    /// another halt polling.
    #[test]
    fn unlike_machines_are_told() {
        let left = example::environment();
        let mut right = left.clone();
        assert!(differences(&[left.clone()], &[right.clone()]).is_empty());
        right.facts.iter_mut().filter(|fact| fact.name == "release").for_each(|fact| fact.value = Some("7".to_owned()));
        let poll = crate::result::EnvironmentFact {
            section: "cpu".to_owned(),
            name: HALT_POLL_FACT.to_owned(),
            value: Some("0".to_owned()),
            note: String::new(),
        };
        right.facts.push(poll);
        let told = differences(&[left], &[right]);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].ends_with("A unknown, B 0") && told[1].ends_with("A 6.18.0, B 7"), "{told:?}");
    }

    /// Goal: a candidate that is not there at all, that is partial, or whose broker ended badly cannot pass beside runs that
    /// compare. Method: two rates on the baseline's side, and each trouble in turn.
    #[test]
    fn dead_candidates_fail() {
        let two = || {
            let mut set = set_with(100);
            set.runs.extend((1..=3).map(|round| example::run("ringmq", round, RunRole::Measured, 20_000.0, 60_000)));
            set
        };
        let against = |candidate: ResultSet| compare(&[two()], &[candidate], Thresholds::default());
        assert_eq!(against(two()).exit_code(), 0);
        let absent = against(set_with(100));
        assert!(absent.exit_code() == 1 && !absent.rows.is_empty(), "{absent:?}");
        assert!(absent.failures[0].ends_with("only in A"), "{absent:?}");
        let mut partial = two();
        partial.status = SetStatus::Partial { reason: "connection refused".to_owned() };
        let found = against(partial);
        assert!(found.exit_code() == 1 && found.failures[0].contains("is partial: connection refused"), "{found:?}");
        let mut killed = two();
        killed.systems[2].exits.push(crate::result::ExitRecord {
            start: "ringmq-1".to_owned(),
            status: "signal: 9".to_owned(),
            is_in_order: false,
        });
        let found = against(killed.clone());
        assert_eq!((found.exit_code(), found.failures.len()), (1, 1), "{found:?}");
        assert!(found.failures[0].contains("signal: 9"), "{found:?}");
        assert_eq!(
            compare(&[killed], &[two()], Thresholds::default()).exit_code(),
            0,
            "the baseline's exit is not its fault"
        );
        let little = [two()];
        let mut few = little[0].clone();
        few.runs.retain(|run| run.round <= 2);
        assert_eq!(
            compare(&[few], &[set_with(100)], Thresholds::default()).failures.len(),
            0,
            "too few to be a figure"
        );
    }

    /// Goal: a candidate that lost messages, died or missed its rate cannot pass, whatever else there is to compare; one that the
    /// host spoiled is merely not compared, and a baseline that failed is no fault of the candidate. Method: a second rate
    /// that is sound on both sides, and the first spoiled in each way.
    #[test]
    fn failures_of_the_candidate() {
        let with_second_rate = || {
            let mut set = set_with(100);
            set.runs.extend((1..=5).map(|round| example::run("ringmq", round, RunRole::Measured, 20_000.0, 60_000)));
            set
        };
        let base = [with_second_rate()];
        let spoiled = |spoil: &dyn Fn(&mut RunRecord)| {
            let mut set = with_second_rate();
            set.runs.iter_mut().take(3).for_each(spoil);
            [set]
        };
        let against = |candidate: &[ResultSet]| compare(&base, candidate, Thresholds::default());
        let missed = |run: &mut RunRecord| {
            run.achieved_rate_per_s = 8_000.0;
            run.validity.invalid.push("it reached 80.0 % of the target rate of 10000/s".to_owned());
        };
        let slow = spoiled(&missed);
        let found = against(&slow);
        assert_eq!((found.exit_code(), found.failures.len()), (1, 1), "{found:?}");
        assert!(found.failures[0].contains("reached 80.0 %") && !found.rows.is_empty(), "{found:?}");
        let died = |run: &mut RunRecord| {
            run.status = crate::result::RunStatus::Partial { reason: "measure: no answer for 10 s".to_owned() };
        };
        assert_eq!(against(&spoiled(&died)).exit_code(), 1);
        assert_eq!(against(&spoiled(&|run| run.integrity.lost = 1)).exit_code(), 4);
        let mut once = with_second_rate();
        once.runs[0].integrity.duplicated = 1;
        let found = against(&[once]);
        assert_eq!((found.exit_code(), found.violations.len(), found.failures.len()), (4, 1, 0), "{found:?}");
        let stolen = |run: &mut RunRecord| {
            run.steal_share = Some(0.02);
            run.validity.invalid.push("the hypervisor took 2.0 % of the CPU time".to_owned());
        };
        assert_eq!(against(&spoiled(&stolen)).exit_code(), 0);
        assert_eq!(compare(&slow, &base, Thresholds::default()).exit_code(), 0);
        let nothing = compare(
            &[set_with(100)],
            &[{
                let mut set = set_with(100);
                set.runs.iter_mut().for_each(missed);
                set
            }],
            Thresholds::default(),
        );
        assert!(nothing.rows.is_empty() && !nothing.is_empty() && nothing.exit_code() == 1, "{nothing:?}");
    }

    /// Goal: knees meet only under the same conditions, and one that its repeats refuted is a failure. Method: three results with
    /// a curve each against the same, under other conditions, and unconfirmed.
    #[test]
    fn knees() {
        let sets = |change: &dyn Fn(&mut crate::result::Curve)| {
            let mut set = example::result_set();
            set.runs.retain(|run| run.role == RunRole::SweepStep);
            set.curves.truncate(1);
            change(&mut set.curves[0]);
            vec![set; 3]
        };
        let against = |candidate: &[ResultSet]| compare(&sets(&|_| ()), candidate, Thresholds::default());
        assert_eq!(find(&against(&sets(&|_| ())), Metric::Knee).verdict, Verdict::Undecided);
        assert!(against(&sets(&|curve| curve.slo.p99_ns = Some(50_000_000))).rows.is_empty());
        let refuted = against(&sets(&|curve| (curve.knee_rate_per_s, curve.confirmed) = (None, false)));
        assert_eq!(refuted.exit_code(), 1, "{refuted:?}");
        let untried = against(&sets(&|curve| curve.confirmed = false));
        assert!(untried.is_empty(), "nothing was repeated, so nothing is known: {untried:?}");
    }

    /// Goal: a versus set compares the first system against the other. Method: the example set.
    #[test]
    fn systems_of_one_set() {
        let comparisons = inside(&example::result_set());
        assert_eq!(comparisons.len(), 1);
        assert_eq!((comparisons[0].candidate.as_str(), comparisons[0].baseline.as_str()), ("ringmq", "java"));
        assert!(find(&comparisons[0], Metric::P50).ratio < 0.3);
        assert!(comparisons[0].skipped.iter().any(|line| line.contains("knee")));
    }
}
