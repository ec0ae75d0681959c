//! Whether a run's figures may be used, and the exit code that follows.

use super::slo::check_slo;
use crate::result::{Distribution, LoopKind, ResultSet, RunRecord, RunRole, RunStatus, SetStatus, Slo, Validity};
use crate::units::nanoseconds;

/// Least share of the target rate.
const LEAST_RATE_SHARE: f64 = 0.999;
/// Lag that is always accepted.
const ACCEPTED_LAG_NS: u64 = 20_000;
/// Share of a response time that may be lag of the generator.
const MOST_LAG_SHARE: u64 = 10;
/// Most share of CPU time taken by the hypervisor.
const MOST_STEAL_SHARE: f64 = 0.01;
/// Most share of the generator that still leaves it a quarter free.
pub const MOST_BUSY_SHARE: f64 = 0.75;
/// The p99.9 that hiccups are judged by when nothing is asked for.
const DEFAULT_GOAL_NS: u64 = 1_000_000;

/// Fills in [`RunRecord::validity`].
pub fn judge(run: &mut RunRecord, slo: Option<&Slo>) {
    run.validity = validity(run, slo);
}

/// Judges a run.
pub fn validity(run: &RunRecord, slo: Option<&Slo>) -> Validity {
    let mut verdict = Validity::default();
    let mut warnings = Vec::new();
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
            for late in lateness(&run.generator.own_lag, &operation.response).filter(|_| is_open) {
                if late.is_coloured {
                    let hiccup = run.hiccups.iter().find(|hiccup| hiccup.role == "generator");
                    let cause = hiccup.map_or_else(String::new, |hiccup| {
                        format!("; its core's hiccup p99.9 was {}", nanoseconds(hiccup.distribution.p999_ns))
                    });
                    let (name, lag, response) = (late.name, nanoseconds(late.lag_ns), nanoseconds(late.response_ns));
                    let sentence =
                        format!("the generator started late: lag {name} {lag} of a response {name} {response}{cause}");
                    if late.invalidates { invalid(sentence) } else { warnings.push(sentence) }
                }
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
    verdict.warnings = warnings;
    let goal_ns = slo.and_then(|slo| slo.p999_ns.or(slo.p99_ns)).unwrap_or(DEFAULT_GOAL_NS);
    let worst = run.hiccups.iter().max_by_key(|hiccup| hiccup.distribution.p999_ns);
    if let Some(worst) = worst.filter(|hiccup| hiccup.distribution.p999_ns > goal_ns / 2) {
        verdict.noisy = true;
        let (p999, max) = (nanoseconds(worst.distribution.p999_ns), nanoseconds(worst.distribution.max_ns));
        verdict.warnings.push(format!("noisy: core {} woke up late, p99.9 {p999}, max {max}", worst.core));
    }
    if run.generator.busy_share > MOST_BUSY_SHARE && is_open {
        let share = run.generator.busy_share * 100.0;
        verdict.warnings.push(format!("the generator was {share:.0} % busy"));
    }
    if run.generator.shares_cores {
        verdict.warnings.push("generator and broker may meet on one core".to_owned());
    }
    verdict
}

/// Lag beside the response time of the same quantile.
struct Late {
    name: &'static str,
    lag_ns: u64,
    response_ns: u64,
    /// Whether the one is a good part of the other.
    is_coloured: bool,
    /// Whether that makes the run invalid.
    invalidates: bool,
}

/// Response times count from the plan, so lag never flatters them; but a figure that is mostly lag says nothing of the broker.
/// Like is compared with like: a late start in one of a hundred cannot move the median. Beyond p99 it is a warning.
fn lateness(lag: &Distribution, response: &Distribution) -> impl Iterator<Item = Late> {
    let quantiles = [
        ("p50", lag.p50_ns, response.p50_ns, true),
        ("p99", lag.p99_ns, response.p99_ns, true),
        ("p99.9", lag.p999_ns, response.p999_ns, false),
    ];
    quantiles.into_iter().map(|(name, lag_ns, response_ns, invalidates)| {
        let is_coloured = lag_ns > ACCEPTED_LAG_NS.max(response_ns / MOST_LAG_SHARE);
        Late { name, lag_ns, response_ns, is_coloured, invalidates }
    })
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
        let slow = |run: &mut RunRecord| {
            run.operations[0].response.p50_ns = 100_000;
            run.operations[0].response.p99_ns = 1_000_000;
            run.operations[0].response.p999_ns = 2_000_000;
        };
        let late = |p50_ns, p99_ns, p999_ns| {
            move |run: &mut RunRecord| {
                slow(run);
                run.generator.own_lag = Distribution { p50_ns, p99_ns, p999_ns, ..run.generator.own_lag.clone() };
            }
        };
        only(reasons(late(20_001, 20_001, 20_001)), "lag p50 20.0 µs of a response p50 100 µs");
        only(reasons(late(900, 100_001, 100_001)), "lag p99 100 µs of a response p99 1.00 ms");
        assert!(reasons(late(20_000, 100_000, 100_000)).is_empty(), "a tenth of the same quantile is accepted");
        let mut tail = good();
        late(900, 900, 200_001)(&mut tail);
        let verdict = validity(&tail, None);
        assert!(verdict.invalid.is_empty() && verdict.warnings[0].contains("p99.9"), "{verdict:?}");
        let held = |run: &mut RunRecord| run.operations[0].lag.p99_ns = 5_000_000_000;
        assert!(reasons(held).is_empty(), "waiting for a free place is the broker's");
        only(reasons(|run| run.operations[0].errors = 1), "do not balance");
        only(reasons(|run| run.steal_share = Some(0.011)), "hypervisor took 1.1 %");
        only(reasons(|run| run.generator.allocations = 2), "allocated 2 times");
        let clock = EndToEnd { distribution: Default::default(), negative: 3 };
        only(reasons(|run| run.end_to_end = Some(clock)), "3 messages were received before");
        only(reasons(|run| run.status = RunStatus::Partial { reason: "x".to_owned() }), "did not get to its end (x)");
        only(reasons(|run| run.operations.clear()), "measured nothing");
        let mut closed = good();
        closed.parameters.loop_kind = LoopKind::Closed;
        closed.generator.own_lag.p99_ns = 1_000_000_000;
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
