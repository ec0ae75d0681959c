//! Runs that are repeats of each other, and their figures as median and range. Pure.
//!
//! Invariants: a group has one durability class; invalid and unfinished runs are counted and named but are in no figure;
//! a figure is a median over runs with its smallest and largest value, never the best run.

use std::collections::BTreeMap;

use crate::judge::{is_usable, target_failures};
use crate::result::{Durability, OperationRecord, ResultSet, RunRecord, RunRole, RunStatus};
use crate::units::{count, percent};

/// What makes two runs repeats of each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKey {
    /// Class; `None` keeps nothing.
    pub durability: Option<Durability>,
    /// Workload.
    pub workload: String,
    /// Target rate in thousandths per second; `None` for closed loops.
    pub rate_milli: Option<u64>,
    /// System.
    pub system: String,
}

/// Repeats.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    /// What they share.
    pub key: GroupKey,
    /// All of them, in the order of the set.
    pub runs: Vec<&'a RunRecord>,
}

/// Median and range over runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// Middle value, or the mean of the two middle ones.
    pub median: f64,
    /// Smallest value.
    pub low: f64,
    /// Largest value.
    pub high: f64,
    /// Runs in it.
    pub runs: usize,
}

impl Figure {
    /// The figure of some values; `None` if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Figure> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        Some(Figure { median: median(&values)?, low: *values.first()?, high: *values.last()?, runs: values.len() })
    }
}

/// The median of sorted values.
pub fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        Some((sorted.get(middle.checked_sub(1)?)? + sorted.get(middle)?) / 2.0)
    } else {
        sorted.get(middle).copied()
    }
}

/// Items by class, what keeps nothing first and the strongest promise last; within a class as they came. Tables have one class each.
pub fn by_class<T>(
    items: impl IntoIterator<Item = T>,
    class: impl Fn(&T) -> Option<Durability>,
) -> BTreeMap<Option<Durability>, Vec<T>> {
    let mut classes: BTreeMap<Option<Durability>, Vec<T>> = BTreeMap::new();
    for item in items {
        classes.entry(class(&item)).or_default().push(item);
    }
    classes
}

/// The heading of a table of one class.
pub fn class_heading(class: Option<Durability>) -> String {
    class.map_or_else(|| "keeps nothing".to_owned(), |class| format!("{}: {}", class.name(), class.promise()))
}

/// What is wrong with a run, one sentence each; empty if nothing is.
pub fn complaints(run: &RunRecord) -> Vec<String> {
    let mut complaints = Vec::new();
    if let RunStatus::Partial { reason } = &run.status {
        complaints.push(format!("unfinished: {reason}"));
    }
    complaints.extend(run.validity.invalid.iter().map(|reason| format!("invalid: {reason}")));
    complaints.extend(run.integrity.violations().into_iter().map(|what| format!("integrity: {what}")));
    complaints
}

/// Whether a run looks for a rate, or confirms one, or shows the generator's limit: it belongs to a curve and is no repeat of
/// runs that were made in turn, each on a fresh store.
fn is_of_a_search(run: &RunRecord) -> bool {
    match run.role {
        RunRole::SweepStep | RunRole::ConfirmFull | RunRole::ConfirmEighty | RunRole::Headroom | RunRole::Counting => {
            true
        }
        RunRole::Measured | RunRole::Floor => false,
    }
}

/// The groups of a set without the runs of sweeps, sorted by class, workload, rate and the order of systems.
pub fn groups(set: &ResultSet) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for run in set.runs.iter().filter(|run| !is_of_a_search(run)) {
        let key = key(run);
        match groups.iter_mut().find(|group| group.key == key) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { key, runs: vec![run] }),
        }
    }
    let place = |name: &str| set.systems.iter().position(|system| system.name == name).unwrap_or(usize::MAX);
    groups.sort_by_key(|group| {
        let GroupKey { durability, workload, rate_milli, system } = &group.key;
        (*durability, workload.clone(), *rate_milli, place(system), system.clone())
    });
    groups
}

/// What a run is a repeat by.
pub fn key(run: &RunRecord) -> GroupKey {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are positive and below 2^53")]
    let rate_milli = run.parameters.target_rate_per_s.map(|rate| (rate * 1000.0).round() as u64);
    GroupKey { durability: run.durability, workload: run.workload.clone(), rate_milli, system: run.system.clone() }
}

/// Operations that were refused or given up, for people: percentiles are those of answers, so this belongs beside them. Over all
/// `runs`, those that do not count too.
pub fn errors_text(runs: &[&RunRecord]) -> String {
    let operations = || runs.iter().filter_map(|run| run.primary());
    let sum = |of: fn(&OperationRecord) -> u64| operations().map(of).sum::<u64>();
    let (planned, errors) = (sum(|operation| operation.planned), sum(|operation| operation.errors));
    let kinds = || operations().flat_map(|operation| &operation.error_kinds);
    // Kinds are counted in all phases.
    let elsewhere = kinds().map(|kind| kind.count).sum::<u64>().saturating_sub(errors);
    let mut parts = Vec::new();
    if errors > 0 {
        #[expect(clippy::cast_precision_loss, reason = "counts of runs are below 2^53")]
        let (errors, planned) = (errors as f64, planned as f64);
        parts.push(format!("{} of {} ({})", count(errors), count(planned), percent(errors / planned.max(1.0))));
    }
    if elsewhere > 0 {
        parts.push(format!("{elsewhere} outside of the measured phase"));
    }
    parts.extend(kinds().max_by_key(|kind| kind.count).map(|kind| format!("most: {}", kind.kind)));
    if parts.is_empty() { "0".to_owned() } else { parts.join("; ") }
}

/// System calls per message of a load, of a group's own runs and of those that were made for counting alone; the latter count whenever
/// they came to their end, for what makes times unusable does not change a count. If there are none: why.
///
/// # Errors
/// Nobody counted them, or the machine does not tell.
pub fn syscalls(set: &ResultSet, key: &GroupKey, runs: &[&RunRecord]) -> Result<Figure, String> {
    let counting = set.runs.iter().filter(|run| run.role == RunRole::Counting && self::key(run) == *key);
    let counting = counting.filter(|run| run.status == RunStatus::Complete && !run.integrity.is_violated());
    let all: Vec<&RunRecord> = runs.iter().copied().filter(|run| is_usable(run)).chain(counting).collect();
    Figure::of(all.iter().filter_map(|run| run.cost.syscalls_per_message)).ok_or_else(|| {
        let absent = all.iter().map(|run| run.cost.syscalls_absent.as_str()).find(|reason| !reason.is_empty());
        absent.unwrap_or("they were not counted").to_owned()
    })
}

impl<'a> Group<'a> {
    /// How many runs the system itself failed.
    pub fn failed_by_itself(&self) -> usize {
        self.runs.iter().filter(|run| !target_failures(run).is_empty()).count()
    }

    /// How many runs count, and how many of the others the system itself failed, for people.
    pub fn counting_text(&self) -> String {
        let failed = self.failed_by_itself();
        let note = if failed > 0 { format!(" ({failed} failed by itself)") } else { String::new() };
        format!("{} of {}{note}", self.usable().count(), self.runs.len())
    }

    /// Runs whose figures count.
    pub fn usable(&self) -> impl Iterator<Item = &'a RunRecord> {
        self.runs.iter().copied().filter(|run| is_usable(run))
    }

    /// A figure over usable runs.
    pub fn figure(&self, value: impl Fn(&RunRecord) -> Option<f64>) -> Option<Figure> {
        Figure::of(self.usable().filter_map(value))
    }

    /// A figure of the first operation.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of hours are below 2^53")]
    pub fn of_operation(&self, value: impl Fn(&OperationRecord) -> u64) -> Option<Figure> {
        self.figure(|run| run.primary().filter(|operation| operation.acknowledged > 0).map(|first| value(first) as f64))
    }

    /// The run that stands for the group in plots: the usable one with the middle 99 % response time; without a usable one
    /// the first.
    pub fn representative(&self) -> Option<&'a RunRecord> {
        let mut usable: Vec<&RunRecord> = self.usable().collect();
        usable.sort_by_key(|run| run.primary().map(|operation| operation.response.p99_ns));
        usable.get(usable.len().saturating_sub(1) / 2).or(self.runs.first()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    /// Goal: runs that confirm a knee are not repeats of measured ones, even at the same rate. Method: three of them, made after each
    /// other on one start, beside the example's runs at that rate.
    #[test]
    fn confirming_runs_are_no_repeats() {
        let mut set = example::result_set();
        for role in [RunRole::ConfirmFull, RunRole::ConfirmEighty] {
            set.runs.extend((1..=3).map(|round| example::run("java", round, role, 10_000.0, 1_000)));
        }
        let groups = groups(&set);
        let java = groups.iter().find(|group| group.key.system == "java").unwrap();
        assert_eq!((java.runs.len(), java.usable().count()), (4, 3));
        assert!(java.of_operation(|operation| operation.response.p50_ns).unwrap().low > 100_000.0);
    }

    /// Goal: errors are told with their number, share and kind, also those outside of the measured phase and of runs that do not count.
    /// Method: the example without errors, then with some.
    #[test]
    fn errors_are_told() {
        let mut run = example::run("ringmq", 1, RunRole::Measured, 10_000.0, 60_000);
        let sound = run.clone();
        assert_eq!(errors_text(&[&sound]), "0");
        run.operations[0].errors = 200;
        let kind =
            |kind: &str, count| crate::result::ErrorCount { kind: kind.to_owned(), count, example: String::new() };
        run.operations[0].error_kinds = vec![kind("2 SYSTEM_BUSY", 190), kind("timeout", 15)];
        run.validity.invalid.push("200 of 20000 operations failed".to_owned());
        let text = errors_text(&[&sound, &run]);
        assert_eq!(text, "200 of 40,000 (0.50 %); 5 outside of the measured phase; most: 2 SYSTEM_BUSY");
        let group = Group { key: key(&run), runs: vec![&sound, &run] };
        assert_eq!(group.counting_text(), "1 of 2 (1 failed by itself)");
    }

    /// Goal: system calls come from runs that were made for counting them, which are in no other figure; what the machine does not tell is
    /// said. Method: the example's load with a counting run of another time, without a figure, and with one.
    #[test]
    fn system_calls_are_counted_apart() {
        let mut set = example::result_set();
        let find = |set: &ResultSet| {
            let groups = groups(set);
            let group = groups.iter().find(|group| group.key.system == "ringmq").unwrap();
            (syscalls(set, &group.key, &group.runs).map(|figure| figure.median), group.runs.len())
        };
        assert_eq!(find(&set), (Err("they were not counted".to_owned()), 3));
        let mut counting = example::run("ringmq", 1, RunRole::Counting, 10_000.0, 1);
        counting.cost.syscalls_absent = "no permission".to_owned();
        set.runs.push(counting.clone());
        assert_eq!(find(&set), (Err("no permission".to_owned()), 3));
        counting.cost.syscalls_per_message = Some(0.25);
        counting.validity.invalid.push("the hypervisor took 2.0 % of the CPU time".to_owned());
        set.runs.push(counting);
        assert_eq!(find(&set), (Ok(0.25), 3));
    }

    /// Goal: repeats meet in one group, bad runs are in no figure, and medians are medians. Method: the example set.
    #[test]
    fn grouping() {
        let set = example::result_set();
        let groups = groups(&set);
        assert!(groups.iter().all(|group| group.runs.iter().all(|run| run.role != RunRole::SweepStep)));
        let java = groups.iter().find(|group| group.key.system == "java").unwrap();
        assert_eq!(java.runs.len(), 4);
        assert_eq!(java.usable().count(), 3);
        let p50 = java.of_operation(|operation| operation.response.p50_ns).unwrap();
        assert_eq!(p50.runs, 3);
        assert!(p50.low < p50.median && p50.median < p50.high);
        assert_eq!(java.representative().unwrap().round, 2);
        assert_eq!(complaints(java.runs[3]).len(), 2);
        assert_eq!(median(&[1.0, 2.0, 3.0, 10.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
