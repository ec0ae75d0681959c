//! Which rate of a curve its confirming runs bear out.

use super::validity::is_usable;
use super::{check_slo, target_failures};
use crate::result::{Curve, CurvePoint, ResultSet, RunRecord, RunRole};

/// The confirming runs of one role, in the order in which they were made.
fn confirming<'a>(set: &'a ResultSet, curve: &'a Curve, role: RunRole) -> Vec<(&'a CurvePoint, &'a RunRecord)> {
    let points = curve.points.iter().filter_map(|point| Some((point, set.run(&point.run)?)));
    points.filter(|(_, run)| run.role == role).collect()
}

/// Whether a run does not count for what host, generator or user did to it.
pub fn is_spoiled_by_host(run: &RunRecord) -> bool {
    !is_usable(run) && target_failures(run).is_empty()
}

/// Whether all of these runs of one rate held. A run that met the conditions but is invalid, or that the host spoiled, may be made up for by the one made
/// in its place.
fn held(curve: &Curve, points: &[(&CurvePoint, &RunRecord)]) -> bool {
    let mut rest = points.iter();
    while let Some((point, run)) = rest.next() {
        let is_made_up_for = || {
            let is_open = check_slo(run, &curve.slo).is_empty() || is_spoiled_by_host(run);
            is_open && rest.clone().next().is_some_and(|(next, _)| next.held)
        };
        if !point.held && !is_made_up_for() {
            return false;
        }
    }
    !points.is_empty()
}

/// The highest rate that held when it was repeated: the knee if it is confirmed, else the highest of the lower rates of which all
/// confirming runs held, else none.
pub fn confirmed_rate(set: &ResultSet, curve: &Curve) -> Option<f64> {
    if curve.confirmed {
        return curve.knee_rate_per_s;
    }
    let mut lower = confirming(set, curve, RunRole::ConfirmEighty);
    // Stable: runs of one rate stay in the order in which they were made.
    lower.sort_by(|(left, _), (right, _)| right.rate_per_s.total_cmp(&left.rate_per_s));
    let rates = lower.chunk_by(|(left, _), (right, _)| left.rate_per_s.total_cmp(&right.rate_per_s).is_eq());
    rates.filter(|runs| held(curve, runs)).find_map(|runs| Some(runs.first()?.0.rate_per_s))
}

/// Why confirming runs did not hold, with their rates; empty if all did.
pub fn doubts(set: &ResultSet, curve: &Curve) -> Vec<String> {
    let roles = [RunRole::ConfirmFull, RunRole::ConfirmEighty];
    let failed = roles.iter().flat_map(|role| confirming(set, curve, *role)).filter(|(point, _)| !point.held);
    failed.map(|(point, _)| format!("at {}/s {}", crate::units::count(point.rate_per_s), point.reason)).collect()
}

/// Whether the target itself did not bear its knee out: it held no rate, or a confirming run missed the conditions.
pub fn is_refuted(set: &ResultSet, curve: &Curve) -> bool {
    let failed = |(_, run): &(&CurvePoint, &RunRecord)| {
        !check_slo(run, &curve.slo).is_empty() && !is_spoiled_by_host(run) || !target_failures(run).is_empty()
    };
    let roles = [RunRole::ConfirmFull, RunRole::ConfirmEighty];
    curve.knee_rate_per_s.is_none() || roles.iter().flat_map(|role| confirming(set, curve, *role)).any(|at| failed(&at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    /// Goal: a knee whose repeat failed does not count, the repeated 80 % do if all of them held, and the reason is told; a
    /// run that only the host spoiled may be made up for. Method: the example's first curve with confirming runs.
    #[test]
    fn only_what_was_confirmed() {
        let mut set = example::result_set();
        set.curves.truncate(1);
        assert_eq!(confirmed_rate(&set, &set.curves[0]), Some(80_000.0));
        set.curves[0].confirmed = false;
        assert_eq!(confirmed_rate(&set, &set.curves[0]), None, "there are no confirming runs");
        let mut add = |role, rate, median_ns, held, number: u32| {
            let mut run = example::run("ringmq", number, role, rate, median_ns);
            run.id = format!("{}-{number}", run.id);
            let reason = if held { String::new() } else { "p99 24 ms > 1 ms".to_owned() };
            set.curves[0].points.push(CurvePoint { rate_per_s: rate, run: run.id.clone(), held, reason });
            set.runs.push(run);
            (confirmed_rate(&set, &set.curves[0]), doubts(&set, &set.curves[0]))
        };
        assert_eq!(
            add(RunRole::ConfirmFull, 80_000.0, 900_000, false, 1),
            (None, vec!["at 80,000/s p99 24 ms > 1 ms".to_owned()])
        );
        assert_eq!(add(RunRole::ConfirmEighty, 64_000.0, 50_000, true, 2).0, Some(64_000.0));
        assert_eq!(add(RunRole::ConfirmEighty, 64_000.0, 50_000, false, 3).0, None, "only the host spoiled it, so far");
        assert_eq!(add(RunRole::ConfirmEighty, 64_000.0, 50_000, true, 4).0, Some(64_000.0), "it was made up for");
        assert_eq!(add(RunRole::ConfirmEighty, 64_000.0, 900_000, false, 5).0, None, "one of them failed");
        assert_eq!(add(RunRole::ConfirmEighty, 51_200.0, 900_000, false, 6).0, None, "the next lower one failed too");
        assert_eq!(add(RunRole::ConfirmEighty, 41_000.0, 50_000, true, 7).0, Some(41_000.0), "the one below held");
        assert!(is_refuted(&set, &set.curves[0]));
        set.curves[0].points.retain(|point| point.rate_per_s > 60_000.0);
        // The host spoiled the two that missed the conditions; what was made in place of the last one held.
        let is_slow = |run: &&mut RunRecord| !check_slo(run, &set.curves[0].slo).is_empty();
        let is_repeat = |run: &&mut RunRecord| matches!(run.role, RunRole::ConfirmFull | RunRole::ConfirmEighty);
        for run in set.runs.iter_mut().filter(is_repeat).filter(is_slow) {
            run.validity.invalid.push("the hypervisor took 2.0 % of the CPU time".to_owned());
        }
        assert_eq!(confirmed_rate(&set, &set.curves[0]), None, "nothing was made in its place");
        assert!(!is_refuted(&set, &set.curves[0]));
        let again = set.curves[0].points.iter().rev().find(|point| point.held).cloned();
        set.curves[0].points.extend(again);
        assert_eq!(confirmed_rate(&set, &set.curves[0]), Some(64_000.0));
    }
}
