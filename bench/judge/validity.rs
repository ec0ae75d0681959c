//! Whether a run's figures may be used, and the exit code that follows.

use super::knee::confirmed_rate;
use super::slo::check_slo;
use crate::result::{Curve, LoopKind, ResultSet, RunRecord, RunRole, RunStatus, SetKind, SetStatus, Slo, Validity};
use crate::units::nanoseconds;

/// Whether the figures of a run may be used.
pub fn is_usable(run: &RunRecord) -> bool {
    run.status == RunStatus::Complete && run.validity.invalid.is_empty() && !run.integrity.is_violated()
}

/// Most share of the target rate that may be missing.
const MOST_SHORTFALL: f64 = 0.001;
/// What that is in a run of a minute. In a shorter one the last answer may be as late: 2 ms of 2 s say nothing about a broker.
const MOST_LATE_END_NS: f64 = 60e6;
/// Lag that is always accepted.
const ACCEPTED_LAG_NS: u64 = 20_000;
/// Share of a response time that may be lag of the generator.
const MOST_LAG_SHARE: u64 = 10;
/// Most share of CPU time taken by the hypervisor.
const MOST_STEAL_SHARE: f64 = 0.01;
/// Most share of the target rate that a host which takes CPU time away is believed to have cost.
const MOST_SHORTFALL_BY_HOST: f64 = 0.05;
/// Most share of operations that may fail: as much as of the rate may be missing.
const MOST_ERROR_SHARE: f64 = 0.001;
const NOTHING_ANSWERED: &str = "nothing was answered";
/// Most share of the generator that still leaves it a quarter free.
pub const MOST_BUSY_SHARE: f64 = 0.75;
/// Share of a plan that the generator reaches without a broker if it keeps up: one that does not falls behind ever farther. A hiccup at
/// the end of a run of seconds is below the rest.
pub const KEPT_UP_SHARE: f64 = 0.99;
/// The p99.9 that hiccups are judged by when nothing is asked for.
const DEFAULT_GOAL_NS: u64 = 1_000_000;
/// What hiccups at p99.9 may be then.
pub const DEFAULT_NOISE_NS: u64 = DEFAULT_GOAL_NS / 2;

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
    if let Some(shortfall) = shortfall(run) {
        let target = run.parameters.target_rate_per_s.unwrap_or_default();
        invalid(format!("it reached {:.1} % of the target rate of {target:.0}/s", (1.0 - shortfall) * 100.0));
    }
    match run.primary() {
        None => invalid("it measured nothing".to_owned()),
        Some(operation) => {
            for late in lateness(run).filter(|late| late.is_coloured) {
                let sentence = late.sentence(run);
                if late.invalidates { invalid(sentence) } else { warnings.push(sentence) }
            }
            if operation.planned != operation.acknowledged + operation.errors {
                invalid(format!(
                    "the books do not balance: {} planned, {} answered, {} failed",
                    operation.planned, operation.acknowledged, operation.errors
                ));
            }
            if operation.acknowledged == 0 {
                invalid(NOTHING_ANSWERED.to_owned());
            } else if let Some(sentence) = too_many_errors(run) {
                invalid(sentence);
            }
        }
    }
    if let Some(negative) = run.end_to_end.as_ref().map(|end_to_end| end_to_end.negative).filter(|count| *count > 0) {
        invalid(format!("{negative} messages were received before they were sent: the clocks disagree"));
    }
    if let Some(steal) = steal(run) {
        invalid(stolen(steal));
    }
    // A driver that breaks makes its message, and its run is invalid for that anyway.
    if run.generator.allocations > 0 && !run.status.is_ended_by_target() {
        invalid(format!("the generator allocated {} times while measuring", run.generator.allocations));
    }
    verdict.warnings = warnings;
    let of_slo = |slo: &Slo| slo.p999_ns.or(slo.p99_ns).or(slo.e2e_p999_ns).or(slo.e2e_p99_ns);
    let goal_ns = slo.and_then(of_slo).unwrap_or(DEFAULT_GOAL_NS);
    let worst = run.hiccups.iter().max_by_key(|hiccup| hiccup.distribution.p999_ns);
    if let Some(worst) = worst.filter(|hiccup| hiccup.distribution.p999_ns > goal_ns / 2) {
        verdict.noisy = true;
        let (p999, max) = (nanoseconds(worst.distribution.p999_ns), nanoseconds(worst.distribution.max_ns));
        verdict.warnings.push(format!(
            "noisy: a thread on the {}'s core {} woke up late, p99.9 {p999}, max {max}",
            worst.role, worst.core
        ));
    }
    if run.generator.busy_share > MOST_BUSY_SHARE && run.parameters.loop_kind == LoopKind::Open {
        let share = run.generator.busy_share * 100.0;
        verdict.warnings.push(format!("the generator was {share:.0} % busy"));
    }
    if run.generator.shares_cores {
        verdict.warnings.push("generator and broker may meet on one core".to_owned());
    }
    verdict
}

fn stolen(share: f64) -> String {
    format!("the hypervisor took {:.1} % of the CPU time", share * 100.0)
}

/// Whether what spoils a run can only have made its response times longer: a late generator, whose lag is in them, as they count from
/// the planned start, or a host that took time away. Its percentiles are no figures of the target then, but bounds of them: a
/// condition that such a run meets is met.
pub fn is_merely_pessimistic(run: &RunRecord) -> bool {
    let late = lateness(run).filter(|late| late.is_coloured && late.invalidates).map(|late| late.sentence(run));
    let harmless: Vec<String> = late.chain(steal(run).map(stolen)).collect();
    run.validity.invalid.iter().all(|reason| harmless.contains(reason))
}

/// What a run failed by, as far as the target did it, one sentence each; empty: nothing, or the host, the generator or the user
/// spoiled the run. A figure of such a run is not a figure that is missing: it is a bad one.
pub fn target_failures(run: &RunRecord) -> Vec<String> {
    let mut failures = run.integrity.violations();
    if let RunStatus::Partial { reason } = &run.status
        && run.status.is_ended_by_target()
    {
        failures.push(format!("it did not get to its end ({reason})"));
    }
    if let Some(shortfall) = shortfall(run)
        && run.status == RunStatus::Complete
    {
        let is_generators = lateness(run).any(|late| late.is_coloured && late.invalidates);
        let by_generator = if is_generators { shortfall_by_lag(run) } else { 0.0 };
        let by_host = if steal(run).is_some() { MOST_SHORTFALL_BY_HOST } else { 0.0 };
        if shortfall > by_generator + by_host {
            failures.push(format!("it reached {:.1} % of the target rate", (1.0 - shortfall) * 100.0));
        }
    }
    if run.primary().is_some_and(|operation| operation.planned > 0 && operation.acknowledged == 0) {
        failures.push(NOTHING_ANSWERED.to_owned());
    } else if run.status == RunStatus::Complete {
        failures.extend(too_many_errors(run));
    }
    failures
}

/// What share of operations failed, in a sentence, if it is more than is accepted. Percentiles are those of answers, so a target that
/// refuses what it is too slow for would look fast.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are below 2^53")]
fn too_many_errors(run: &RunRecord) -> Option<String> {
    let operation = run.primary().filter(|operation| operation.planned > 0)?;
    let share = operation.errors as f64 / operation.planned as f64;
    let kind = operation.error_kinds.first().map(|kind| format!(", most of them {}", kind.kind)).unwrap_or_default();
    (share > MOST_ERROR_SHARE).then(|| format!("{} of {} operations failed{kind}", operation.errors, operation.planned))
}

/// The largest share of the rate that late starts can have cost: the last operation was late by no more than the longest lag.
#[expect(clippy::cast_precision_loss, reason = "times of a run are below 2^53 ns")]
fn shortfall_by_lag(run: &RunRecord) -> f64 {
    let longest_ns = run.generator.own_lag.max_ns as f64;
    longest_ns / (run.measured_ns as f64 + longest_ns).max(1.0)
}

/// By which share an open loop missed its rate, if by more than is accepted.
#[expect(clippy::cast_precision_loss, reason = "times of a run are below 2^53 ns")]
fn shortfall(run: &RunRecord) -> Option<f64> {
    let is_open = run.parameters.loop_kind == LoopKind::Open;
    let target = run.parameters.target_rate_per_s.filter(|target| is_open && *target > 0.0)?;
    let shortfall = 1.0 - run.achieved_rate_per_s / target;
    let measured_ns = (run.measured_ns as f64).max(1.0);
    let accepted = MOST_SHORTFALL.max(MOST_LATE_END_NS / (measured_ns + MOST_LATE_END_NS));
    (shortfall > accepted).then_some(shortfall)
}

/// What the hypervisor took, if it is more than is accepted.
fn steal(run: &RunRecord) -> Option<f64> {
    run.steal_share.filter(|share| *share > MOST_STEAL_SHARE)
}

/// Lag beside a response time.
struct Late {
    lag_name: &'static str,
    lag_ns: u64,
    response_name: &'static str,
    response_ns: u64,
    /// Whether the one is a good part of the other.
    is_coloured: bool,
    /// Whether that makes the run invalid.
    invalidates: bool,
}

impl Late {
    fn new(lag: (&'static str, u64), response: (&'static str, u64), invalidates: bool) -> Late {
        let is_coloured = lag.1 > ACCEPTED_LAG_NS.max(response.1 / MOST_LAG_SHARE);
        Late {
            lag_name: lag.0,
            lag_ns: lag.1,
            response_name: response.0,
            response_ns: response.1,
            is_coloured,
            invalidates,
        }
    }

    fn sentence(&self, run: &RunRecord) -> String {
        let hiccup = run.hiccups.iter().find(|hiccup| hiccup.role == "generator");
        let cause = hiccup.map_or_else(String::new, |hiccup| {
            format!("; its core's hiccup p99.9 was {}", nanoseconds(hiccup.distribution.p999_ns))
        });
        let (lag, response) = (nanoseconds(self.lag_ns), nanoseconds(self.response_ns));
        let (lag_name, response_name) = (self.lag_name, self.response_name);
        format!("the generator started late: lag {lag_name} {lag} of a response {response_name} {response}{cause}")
    }
}

/// Response times count from the plan, so lag never flatters them; but a figure that is mostly lag says nothing of the broker.
///
/// The strict rule sets the lag's p99 against a tenth of the *median* response. A generator with a core of its own keeps it, so
/// there a breach makes the run invalid. A virtual machine's host takes the core away for milliseconds when both cores are
/// busy: there the strict rule would throw out every run of a broker that uses its core up and none of one that does not.
/// So there it is a remark ([`breaks_strict_lag`] counts them), and like is compared with like: a late start in one of a
/// hundred cannot move the median, and p50 and p99 must each be the broker's. p99.9 is a remark everywhere.
fn lateness(run: &RunRecord) -> impl Iterator<Item = Late> {
    let is_strict = run.generator.virtual_machine == Some(false);
    let lag = &run.generator.own_lag;
    let response = run.primary().filter(|_| run.parameters.loop_kind == LoopKind::Open).map(|first| &first.response);
    let lates = response.map(|response| {
        let alike = [
            Late::new(("p50", lag.p50_ns), ("p50", response.p50_ns), true),
            Late::new(("p99", lag.p99_ns), ("p99", response.p99_ns), true),
            Late::new(("p99.9", lag.p999_ns), ("p99.9", response.p999_ns), false),
        ];
        // What breaks a rule for like and like breaks the strict one too: it is said once.
        let is_told = alike.iter().any(|late| late.is_coloured && late.invalidates);
        let strict = Late::new(("p99", lag.p99_ns), ("p50", response.p50_ns), is_strict);
        alike.into_iter().chain((!is_told).then_some(strict))
    });
    lates.into_iter().flatten()
}

/// Whether the generator's lag p99 is above 20 µs and a tenth of the median response: the strict rule for lag.
pub fn breaks_strict_lag(run: &RunRecord) -> bool {
    lateness(run).any(|late| late.is_coloured && late.lag_name == "p99" && late.response_name == "p50")
}

/// Exit code for a set: 4 integrity, 3 invalid, 1 a condition missed, 0.
pub fn exit_code(set: &ResultSet) -> u8 {
    if set.runs.iter().any(|run| run.integrity.is_violated()) {
        return 4;
    }
    // A sweep goes to where it fails, so its steps may be invalid; what confirms a rate may be too pessimistic.
    let counts = |run: &&RunRecord| match run.role {
        RunRole::SweepStep | RunRole::Counting => false,
        // Those with a plan ask whether the generator keeps up with it.
        RunRole::Headroom => run.parameters.loop_kind == LoopKind::Closed,
        RunRole::ConfirmFull | RunRole::ConfirmEighty => !is_merely_pessimistic(run),
        _ => true,
    };
    let is_partial = matches!(set.status, SetStatus::Partial { .. });
    if is_partial || set.runs.iter().filter(counts).any(|run| !run.validity.invalid.is_empty()) {
        return 3;
    }
    let measured = set.runs.iter().filter(|run| run.role == RunRole::Measured);
    let misses = |slo: &Slo| measured.clone().any(|run| !check_slo(run, slo).is_empty());
    let is_missed = set.curves.is_empty() && set.slo.as_ref().is_some_and(misses);
    // Comparisons tell which of two brokers holds more; a sweep asks whether there is a rate at all.
    let is_unborne = set.kind == SetKind::Sweep && set.curves.iter().any(|curve| !has_rate(set, curve));
    u8::from(is_missed || is_unborne)
}

/// Whether a curve has a rate that counts: one that its repeats bear out, or the knee itself if none was asked to be repeated.
fn has_rate(set: &ResultSet, curve: &Curve) -> bool {
    let is_repeat = |run: &RunRecord| matches!(run.role, RunRole::ConfirmFull | RunRole::ConfirmEighty);
    let is_repeated = curve.points.iter().any(|point| set.run(&point.run).is_some_and(is_repeat));
    if is_repeated { confirmed_rate(set, curve).is_some() } else { curve.knee_rate_per_s.is_some() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{BOOKS_FULL, Distribution, EndToEnd, INTERRUPTED, example};

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

    /// Goal: what can only have made times longer is told from what may hide them, so that a rate which holds with a late generator
    /// holds. Method: a late generator, stolen time, both; with operations that failed, or a rate that was not reached, as well.
    #[test]
    fn pessimistic_runs_bear_rates_out() {
        let judged = |change: &dyn Fn(&mut RunRecord)| {
            let mut run = good();
            change(&mut run);
            judge(&mut run, None);
            (run.validity.invalid.len(), is_merely_pessimistic(&run))
        };
        let late = |run: &mut RunRecord| run.generator.own_lag.p99_ns = run.operations[0].response.p99_ns;
        let robbed = |run: &mut RunRecord| run.steal_share = Some(0.02);
        assert_eq!(judged(&|_| {}), (0, true));
        assert_eq!(judged(&late), (1, true));
        assert_eq!(
            judged(&|run| {
                late(run);
                robbed(run)
            }),
            (2, true)
        );
        assert_eq!(
            judged(&|run| {
                late(run);
                run.achieved_rate_per_s = 9_000.0
            }),
            (2, false)
        );
        assert_eq!(
            judged(&|run| {
                robbed(run);
                run.operations[0].errors = 1
            }),
            (2, false)
        );
    }

    /// Goal: a good run is valid, each rule finds its breach and only that. Method: one change at a time.
    #[test]
    fn rules() {
        assert_eq!(validity(&good(), None), Validity::default());
        let only = |found: Vec<String>, part: &str| assert!(found.len() == 1 && found[0].contains(part), "{found:?}");
        let of_rate = |seconds: u64, rate: f64| {
            reasons(move |run| (run.measured_ns, run.achieved_rate_per_s) = (seconds * 1_000_000_000, rate))
        };
        only(of_rate(60, 9_989.0), "99.9 % of the target rate");
        assert!(of_rate(60, 9_991.0).is_empty());
        only(of_rate(2, 9_700.0), "97.0 % of the target rate");
        assert!(of_rate(2, 10_000.0 * 2.0 / 2.05).is_empty(), "the last answer came 50 ms after the end");
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
        let refused = |share: u64| {
            move |run: &mut RunRecord| {
                let operation = &mut run.operations[0];
                operation.errors = operation.planned * share / 10_000;
                operation.acknowledged = operation.planned - operation.errors;
            }
        };
        assert!(reasons(refused(10)).is_empty(), "one in a thousand is accepted");
        only(reasons(refused(11)), "22 of 20000 operations failed");
        let closed_and_refused = |run: &mut RunRecord| {
            run.parameters.loop_kind = LoopKind::Closed;
            refused(9000)(run);
        };
        only(reasons(closed_and_refused), "18000 of 20000 operations failed");
        let broken = |run: &mut RunRecord| {
            run.generator.allocations = 1;
            run.status = RunStatus::Partial { reason: "measure: the broker closed the connection".to_owned() };
        };
        only(reasons(broken), "did not get to its end");
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

    /// Goal: a lag whose p99 is above a tenth of the median response makes a run invalid on hardware of its own, and is a remark
    /// on virtual machines and where nothing is known; a lag within it is neither. Method: one run with 21 µs of lag in a
    /// hundredth of its starts, one with 20 µs.
    #[test]
    fn strict_lag() {
        let run = |virtual_machine, p99_ns| {
            let mut run = good();
            run.operations[0].response.p50_ns = 60_000;
            run.operations[0].response.p99_ns = 1_000_000;
            run.generator.own_lag = Distribution { p50_ns: 0, p99_ns, p999_ns: p99_ns, ..Distribution::default() };
            run.generator.virtual_machine = virtual_machine;
            run
        };
        let hardware = validity(&run(Some(false), 20_001), None);
        assert!(hardware.invalid.len() == 1 && hardware.warnings.is_empty(), "{hardware:?}");
        assert!(hardware.invalid[0].contains("lag p99 20.0 µs of a response p50 60.0 µs"), "{hardware:?}");
        for virtual_machine in [Some(true), None] {
            let verdict = validity(&run(virtual_machine, 20_001), None);
            assert!(verdict.invalid.is_empty() && verdict.warnings.len() == 1, "{verdict:?}");
            assert!(breaks_strict_lag(&run(virtual_machine, 20_001)));
        }
        assert_eq!(validity(&run(Some(false), 20_000), None), Validity::default());
        assert!(!breaks_strict_lag(&run(None, 20_000)));
        let twice = validity(&run(Some(false), 200_000), None);
        assert_eq!(twice.invalid.len(), 1, "one lag is told once: {twice:?}");
    }

    /// Goal: what the target did is told from what host, generator and user did. Method: one change at a time.
    #[test]
    fn failures_of_the_target() {
        let failures = |change: &dyn Fn(&mut RunRecord)| {
            let mut run = good();
            change(&mut run);
            target_failures(&run)
        };
        let ended = |reason: &str| RunStatus::Partial { reason: format!("measure: {reason}") };
        assert!(failures(&|_| ()).is_empty());
        assert_eq!(failures(&|run| run.integrity.lost = 2), ["2 messages lost"]);
        assert_eq!(failures(&|run| run.achieved_rate_per_s = 8_000.0), ["it reached 80.0 % of the target rate"]);
        assert_eq!(failures(&|run| run.status = ended("the broker closed the connection")).len(), 1);
        assert!(failures(&|run| run.status = ended(INTERRUPTED)).is_empty());
        assert!(failures(&|run| run.status = ended(BOOKS_FULL)).is_empty());
        assert!(failures(&|run| run.steal_share = Some(0.5)).is_empty());
        let disturbed = |rate: f64| {
            move |run: &mut RunRecord| {
                run.steal_share = Some(0.02);
                run.achieved_rate_per_s = rate;
            }
        };
        assert!(failures(&disturbed(9_900.0)).is_empty(), "the host may have cost 1 %");
        assert_eq!(failures(&disturbed(8_000.0)).len(), 1, "the host did not cost 20 %");
        let slow_generator = |rate: f64| {
            move |run: &mut RunRecord| {
                run.achieved_rate_per_s = rate;
                run.generator.own_lag.p50_ns = 1_000_000_000;
                run.generator.own_lag.max_ns = run.measured_ns;
            }
        };
        assert!(failures(&slow_generator(5_000.0)).is_empty(), "half of the time was the generator's");
        assert_eq!(failures(&slow_generator(4_900.0)), ["it reached 49.0 % of the target rate"]);
        let refusing = |loop_kind: LoopKind| {
            move |run: &mut RunRecord| {
                run.parameters.loop_kind = loop_kind;
                run.operations[0].errors = 15_000;
                run.operations[0].acknowledged = 5_000;
                run.achieved_rate_per_s = 2_500.0;
                run.generator.own_lag.p50_ns = 20_000_000;
                run.generator.own_lag.max_ns = 20_000_000;
            }
        };
        assert_eq!(failures(&refusing(LoopKind::Closed)), ["15000 of 20000 operations failed"]);
        let found = failures(&refusing(LoopKind::Open));
        assert!(found.len() == 2 && found[1] == "15000 of 20000 operations failed", "{found:?}");
        let given_up = |run: &mut RunRecord| {
            refusing(LoopKind::Closed)(run);
            run.status = ended(INTERRUPTED);
        };
        assert!(failures(&given_up).is_empty(), "what the user cut off is no failure");
        let mute = |run: &mut RunRecord| {
            run.operations[0].errors = run.operations[0].planned;
            run.operations[0].acknowledged = 0;
            run.parameters.loop_kind = LoopKind::Closed;
        };
        assert_eq!(failures(&mute), ["nothing was answered"]);
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

    /// Goal: a sweep fails if nothing held and if the repeats refuted what held, not if nothing was to be repeated. Method: the
    /// example's curve, changed step by step.
    #[test]
    fn exit_codes_of_sweeps() {
        let mut set = example::result_set();
        (set.kind, set.slo) = (SetKind::Sweep, None);
        set.curves.truncate(1);
        set.runs.retain(|run| run.role == RunRole::SweepStep);
        assert_eq!(exit_code(&set), 0);
        set.curves[0].confirmed = false;
        assert_eq!(exit_code(&set), 0, "--confirm 0");
        let mut repeat = example::run("ringmq", 1, RunRole::ConfirmFull, 80_000.0, 60_000);
        repeat.integrity = Default::default();
        let point = crate::result::CurvePoint {
            rate_per_s: 80_000.0,
            run: repeat.id.clone(),
            held: false,
            reason: "p99 24 ms > 1 ms".to_owned(),
        };
        set.runs.push(repeat);
        set.curves[0].points.push(point);
        assert_eq!(exit_code(&set), 1, "refuted");
        set.kind = SetKind::Versus;
        assert_eq!(exit_code(&set), 0);
        set.kind = SetKind::Sweep;
        set.curves[0].points.pop();
        set.curves[0].knee_rate_per_s = None;
        assert_eq!(exit_code(&set), 1, "nothing held");
    }
}
