//! Whether a run's figures may be used, and the exit code that follows.

use super::slo::{check_slo, format_ns};
use crate::result::{LoopKind, ResultSet, RunRecord, RunRole, RunStatus, SetStatus, Slo, Validity};

/// Least share of the target rate.
const LEAST_RATE_SHARE: f64 = 0.999;
/// Lag of 99 % that is always accepted.
const ACCEPTED_LAG_NS: u64 = 20_000;
/// Most share of CPU time taken by the hypervisor.
const MOST_STEAL_SHARE: f64 = 0.01;
/// Most share of the generator's core that still leaves it a quarter free.
const MOST_BUSY_SHARE: f64 = 0.75;
/// The p99.9 that hiccups are judged by when nothing is asked for.
const DEFAULT_GOAL_NS: u64 = 1_000_000;

/// Fills in [`RunRecord::validity`].
pub fn judge(run: &mut RunRecord, slo: Option<&Slo>) {
    run.validity = validity(run, slo);
}

/// Judges a run.
pub fn validity(run: &RunRecord, slo: Option<&Slo>) -> Validity {
    let mut verdict = Validity::default();
    let mut invalid = |reason: String| verdict.invalid.push(reason);
    if let RunStatus::Partial { reason } = &run.status {
        invalid(format!("it did not get to its end ({reason})"));
    }
    let is_open = run.parameters.loop_kind == LoopKind::Open;
    if let Some(target) = run.parameters.target_rate_per_s.filter(|_| is_open)
        && run.achieved_rate_per_s < target * LEAST_RATE_SHARE
    {
        let share = run.achieved_rate_per_s / target * 100.0;
        invalid(format!("it reached {share:.1} % of the target rate of {target:.0}/s"));
    }
    match run.primary() {
        None => invalid("it measured nothing".to_owned()),
        Some(operation) => {
            let most_lag_ns = ACCEPTED_LAG_NS.max(operation.response.p50_ns / 10);
            if is_open && operation.lag.p99_ns > most_lag_ns {
                let (lag, most) = (format_ns(operation.lag.p99_ns), format_ns(most_lag_ns));
                invalid(format!("operations started late: lag p99 {lag} > {most}"));
            }
            if operation.planned != operation.acknowledged + operation.errors {
                invalid(format!(
                    "the books do not balance: {} planned, {} answered, {} failed",
                    operation.planned, operation.acknowledged, operation.errors
                ));
            }
            if operation.acknowledged == 0 {
                invalid("nothing was answered".to_owned());
            }
        }
    }
    if let Some(negative) = run.end_to_end.as_ref().map(|end_to_end| end_to_end.negative).filter(|count| *count > 0) {
        invalid(format!("{negative} messages were received before they were sent: the clocks disagree"));
    }
    if let Some(steal) = run.steal_share.filter(|share| *share > MOST_STEAL_SHARE) {
        invalid(format!("the hypervisor took {:.1} % of the CPU time", steal * 100.0));
    }
    if run.generator.allocations > 0 {
        invalid(format!("the generator allocated {} times while measuring", run.generator.allocations));
    }
    let goal_ns = slo.and_then(|slo| slo.p999_ns.or(slo.p99_ns)).unwrap_or(DEFAULT_GOAL_NS);
    let worst = run.hiccups.iter().max_by_key(|hiccup| hiccup.distribution.p999_ns);
    if let Some(worst) = worst.filter(|hiccup| hiccup.distribution.p999_ns > goal_ns / 2) {
        verdict.noisy = true;
        let (p999, max) = (format_ns(worst.distribution.p999_ns), format_ns(worst.distribution.max_ns));
        verdict.warnings.push(format!("noisy: core {} woke up late, p99.9 {p999}, max {max}", worst.core));
    }
    if run.generator.busy_share > MOST_BUSY_SHARE && is_open {
        let share = run.generator.busy_share * 100.0;
        verdict.warnings.push(format!("the generator was {share:.0} % busy: its own limit colours the figures"));
    }
    if run.generator.shares_cores {
        verdict.warnings.push("generator and broker may meet on one core".to_owned());
    }
    verdict
}

/// Exit code for a set: 4 integrity, 3 invalid, 1 a condition missed, 0.
pub fn exit_code(set: &ResultSet) -> u8 {
    if set.runs.iter().any(|run| run.integrity.is_violated()) {
        return 4;
    }
    // A sweep goes to where it fails, so its steps may be invalid.
    let counts = |run: &&RunRecord| run.role != RunRole::SweepStep;
    let is_partial = matches!(set.status, SetStatus::Partial { .. });
    if is_partial || set.runs.iter().filter(counts).any(|run| !run.validity.invalid.is_empty()) {
        return 3;
    }
    let measured = set.runs.iter().filter(|run| run.role == RunRole::Measured);
    let misses = |slo: &Slo| measured.clone().any(|run| !check_slo(run, slo).is_empty());
    u8::from(set.curves.is_empty() && set.slo.as_ref().is_some_and(misses))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{EndToEnd, example};

    fn good() -> RunRecord {
        let mut run = example::run("ringmq", 1, RunRole::Measured, 10_000.0, 60_000);
        run.hiccups.clear();
        run
    }

    fn reasons(change: impl FnOnce(&mut RunRecord)) -> Vec<String> {
        let mut run = good();
        change(&mut run);
        validity(&run, None).invalid
    }

    /// Goal: a good run is valid, each rule finds its breach and only that. Method: one change at a time.
    #[test]
    fn rules() {
        assert_eq!(validity(&good(), None), Validity::default());
        let only = |found: Vec<String>, part: &str| assert!(found.len() == 1 && found[0].contains(part), "{found:?}");
        only(reasons(|run| run.achieved_rate_per_s = 9_989.0), "99.9 % of the target rate");
        assert!(reasons(|run| run.achieved_rate_per_s = 9_991.0).is_empty());
        only(reasons(|run| run.operations[0].lag.p99_ns = 20_001), "started late");
        assert!(
            reasons(|run| {
                run.operations[0].lag.p99_ns = 99_000;
                run.operations[0].response.p50_ns = 1_000_000;
            })
            .is_empty(),
            "a tenth of the median response is accepted"
        );
        only(reasons(|run| run.operations[0].errors = 1), "do not balance");
        only(reasons(|run| run.steal_share = Some(0.011)), "hypervisor took 1.1 %");
        only(reasons(|run| run.generator.allocations = 2), "allocated 2 times");
        let clock = EndToEnd { distribution: Default::default(), negative: 3 };
        only(reasons(|run| run.end_to_end = Some(clock)), "3 messages were received before");
        only(reasons(|run| run.status = RunStatus::Partial { reason: "x".to_owned() }), "did not get to its end (x)");
        only(reasons(|run| run.operations.clear()), "measured nothing");
        let mut closed = good();
        closed.parameters.loop_kind = LoopKind::Closed;
        closed.operations[0].lag.p99_ns = 1_000_000;
        closed.achieved_rate_per_s = 1.0;
        assert!(validity(&closed, None).invalid.is_empty());
    }

    /// Goal: noise is flagged against half of what is asked for. Method: one hiccup distribution, two conditions.
    #[test]
    fn noise() {
        let mut run = example::run("ringmq", 1, RunRole::Measured, 10_000.0, 60_000);
        let worst_ns = run.hiccups.iter().map(|hiccup| hiccup.distribution.p999_ns).max().unwrap();
        let slo = |p99_ns| Slo { p99_ns: Some(p99_ns), ..Slo::default() };
        judge(&mut run, Some(&slo(worst_ns)));
        assert!(run.validity.noisy && run.validity.invalid.is_empty());
        judge(&mut run, Some(&slo(worst_ns * 3)));
        assert!(!run.validity.noisy);
    }

    /// Goal: exit codes are by rank. Method: one set, made worse step by step.
    #[test]
    fn exit_codes() {
        let mut set = example::result_set();
        set.curves.clear();
        set.runs = vec![good()];
        set.slo = None;
        assert_eq!(exit_code(&set), 0);
        set.slo = Some(Slo { p50_ns: Some(1), ..Slo::default() });
        assert_eq!(exit_code(&set), 1);
        set.runs[0].validity.invalid.push("x".to_owned());
        assert_eq!(exit_code(&set), 3);
        set.runs[0].integrity.lost = 1;
        assert_eq!(exit_code(&set), 4);
    }
}
