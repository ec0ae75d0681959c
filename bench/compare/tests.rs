//! The comparison against made-up sets.

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
    assert!(differences(std::slice::from_ref(&left), std::slice::from_ref(&right)).is_empty());
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
    assert_eq!(compare(&[few], &[set_with(100)], Thresholds::default()).failures.len(), 0, "too few to be a figure");
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
