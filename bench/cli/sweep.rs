//! `sweep`: the rate-latency curve of a workload and its knee, confirmed by repeats.

use super::CliError;
use super::options::{Common, NamedTarget, SweepOptions, parse_address, parse_target, read_slo};
use super::search::{Search, round};
use super::session::{Request, Session};
use super::single::{check_served, check_there, describe};
use crate::judge::{check_slo, is_merely_pessimistic, is_spoiled_by_host};
use crate::result::{Curve, CurvePoint, LoopKind, RunRecord, RunRole, SetKind, Slo};
use crate::workload::Workload;

/// Gap at which a search ends.
const PRECISION: f64 = 0.02;
/// Share of the knee at which a second set of confirming runs is made; where that does not hold, the same share of it, and so on.
const SECOND_SHARE: f64 = 0.8;
/// How many rates below the second are asked for one that holds: the last is 41 % of the knee.
const LOWER_RATES: usize = 3;

/// Runs of one rate if the first says nothing of the broker.
const TRIES: u32 = 2;

/// How a sweep is done.
pub struct SweepPlan<'s> {
    pub from: f64,
    pub precision: f64,
    pub confirm: u32,
    /// How many runs of the whole sweep may be made once more for what the host may have done, or at lower rates for what the second
    /// share of the knee did not bear out: a plan that promises its length has a bound. Beyond it such a rate counts as one that did
    /// not hold.
    pub second_tries: u32,
    pub slo: &'s Slo,
}

/// Whether the rate held, and why not, or in spite of what: a run whose percentiles can only be too long bears a rate out.
fn verdict(run: &RunRecord, slo: &Slo) -> (bool, String) {
    let missed = check_slo(run, slo);
    let held = missed.is_empty() && is_merely_pessimistic(run);
    let reasons: Vec<String> = missed.into_iter().chain(run.validity.invalid.iter().cloned()).collect();
    (held, reasons.join("; "))
}

/// Whether the broker missed the conditions: a run that meets them but is invalid does not say so, and neither does one that the host
/// spoiled.
fn is_missed(run: &RunRecord, slo: &Slo) -> bool {
    !check_slo(run, slo).is_empty() && !is_spoiled_by_host(run)
}

/// Sweeps one target and adds the curve to the set.
///
/// # Errors
/// A run never began.
pub fn sweep(session: &mut Session<'_>, request: &Request<'_>, plan: &SweepPlan<'_>) -> Result<Option<f64>, CliError> {
    let mut curve = Curve {
        system: request.system.to_owned(),
        workload: request.workload.name.clone(),
        durability: request.durability,
        round: request.round,
        slo: plan.slo.clone(),
        points: Vec::new(),
        knee_rate_per_s: None,
        confirmed: false,
        is_cut_short: false,
    };
    let searched = search(session, request, plan, &mut curve);
    curve.is_cut_short = searched.is_err() || session.is_stopped();
    curve.confirmed &= !curve.is_cut_short;
    curve.points.sort_by(|left, right| left.rate_per_s.total_cmp(&right.rate_per_s));
    let knee = curve.knee_rate_per_s;
    session.set.curves.push(curve);
    session.directory.write_result(&session.set)?;
    searched.map(|()| knee)
}

/// Fills a curve; on an error it has what was found until then.
fn search(
    session: &mut Session<'_>,
    request: &Request<'_>,
    plan: &SweepPlan<'_>,
    curve: &mut Curve,
) -> Result<(), CliError> {
    let mut search = Search::new(plan.from, plan.precision);
    let mut second_tries = plan.second_tries;
    while let Some(rate) = search.next_rate().filter(|_| !session.is_stopped()) {
        let held = try_rate(session, request, (RunRole::SweepStep, rate), &mut second_tries, curve)?;
        search.report(rate, held);
        curve.knee_rate_per_s = search.knee();
    }
    let Some(knee) = curve.knee_rate_per_s else { return Ok(()) };
    if plan.confirm == 0 {
        return Ok(());
    }
    let mut confirms = |role, rate, second_tries: &mut u32| -> Result<bool, CliError> {
        let mut all_held = true;
        for _ in 0..plan.confirm {
            if !session.is_stopped() {
                all_held &= try_rate(session, request, (role, rate), second_tries, curve)?;
            }
        }
        Ok(all_held || session.is_stopped())
    };
    let is_knee_held = confirms(RunRole::ConfirmFull, round(knee), &mut second_tries)?;
    let is_second_held = confirms(RunRole::ConfirmEighty, round(knee * SECOND_SHARE), &mut second_tries)?;
    if !is_second_held {
        for rate in lower_rates(knee) {
            let Some(left) = second_tries.checked_sub(plan.confirm) else { break };
            second_tries = left;
            if confirms(RunRole::ConfirmEighty, rate, &mut second_tries)? {
                break;
            }
        }
    }
    curve.confirmed = is_knee_held && is_second_held;
    Ok(())
}

/// The rates below the second share of a knee, from the highest on.
fn lower_rates(knee: f64) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(knee * SECOND_SHARE), |rate| Some(rate * SECOND_SHARE))
        .skip(1)
        .take(LOWER_RATES)
        .map(round)
}

fn try_rate(
    session: &mut Session<'_>,
    request: &Request<'_>,
    (role, rate): (RunRole, f64),
    second_tries: &mut u32,
    curve: &mut Curve,
) -> Result<bool, CliError> {
    let slo = &curve.slo.clone();
    let mut workload = request.workload.clone();
    workload.load.rate_per_s = rate;
    for attempt in 1..=TRIES {
        let run = session.run(&Request { workload: &workload, role, target: request.target.clone(), ..*request })?;
        let (held, reason) = verdict(run, slo);
        let is_clear = held || is_missed(run, slo);
        curve.points.push(CurvePoint { rate_per_s: rate, run: run.id.clone(), held, reason });
        if is_clear || session.is_stopped() {
            return Ok(held);
        }
        if attempt < TRIES {
            match second_tries.checked_sub(1) {
                Some(left) => *second_tries = left,
                None => break,
            }
        }
    }
    Ok(false)
}

/// Carries out the command.
pub fn carry_out(common: &Common, options: &SweepOptions) -> Result<u8, CliError> {
    let (mut workload, definition) = Workload::find(&options.workload)?;
    options.changes.apply(&mut workload)?;
    if workload.load.loop_kind == LoopKind::Closed {
        return Err(CliError::Usage(format!("{} is a closed loop: there is no rate to sweep", workload.name)));
    }
    if !(options.from.is_finite() && options.from > 0.0) {
        return Err(CliError::Usage(format!("--from {} is no rate above 0", options.from)));
    }
    let target = parse_target(&options.target.target, &common.store_folder())?;
    check_served(&workload, &target)?;
    let slo = read_slo(&options.slo, &workload)?;
    let metrics = options.target.metrics.as_deref().map(parse_address).transpose()?;
    check_there(common, &target)?;
    let starts = matches!(target, NamedTarget::Start(_));
    let mut session = Session::begin(common, SetKind::Sweep, &format!("sweep-{}", workload.name), starts)?;
    session.set.slo = Some(slo.clone());
    session.add_workload(&workload, &definition);
    let (precision, second_tries) = (PRECISION, u32::MAX);
    let plan = SweepPlan { from: options.from, precision, confirm: options.confirm, second_tries, slo: &slo };
    let (header, scale) = (options.changes.header.into(), options.changes.scale);
    let failure = (|| {
        session.headroom(&workload, 2.0)?;
        session.add_plain_system("null", "echo floor", None);
        match &target {
            NamedTarget::Start(peer) => {
                let settings = common.settings(&workload)?;
                let flush = options.target.flush();
                session.with_broker((*peer, flush), settings, peer.name(), |session, broker| {
                    let request = Request::of_broker(broker, *peer, flush, &workload, RunRole::SweepStep);
                    sweep(session, &Request { header, scale, ..request }, &plan)
                })?;
            }
            NamedTarget::Ready(target) => {
                let ready = describe(&mut session, target, &options.target)?;
                session.add_ready_system(&ready);
                let request = Request::of_floor(&ready.system, target.clone(), &workload, ready.durability);
                let broker_pid = ready.pid;
                let deletes_topics = options.target.deletes_topics(target);
                let request = Request { header, scale, broker_pid, metrics, deletes_topics, ..request };
                sweep(&mut session, &request, &plan)?;
            }
        }
        session.headroom_at_knee(&workload)
    })();
    session.finish(failure.err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    /// Goal: what a knee does not bear out is looked for below it, and not for ever. Method: the rates below a knee.
    #[test]
    fn lower_rates_end() {
        assert_eq!(lower_rates(286_000.0).collect::<Vec<_>>(), [183_000.0, 146_000.0, 117_000.0]);
    }

    /// Goal: a step is decided by what the broker did, and made once more where that cannot be told. Method: runs that meet the conditions
    /// or miss them, each valid, spoiled by the host, and failed by the broker.
    #[test]
    fn what_the_host_spoiled_decides_nothing() {
        let slo = example::result_set().curves[0].slo.clone();
        let run = |median_ns| example::run("ringmq", 1, RunRole::SweepStep, 80_000.0, median_ns);
        let spoiled = |mut run: RunRecord| {
            run.validity.invalid.push("the generator was late".to_owned());
            run
        };
        let lost = |mut run: RunRecord| {
            run.validity.invalid.push("it lost messages".to_owned());
            run.integrity.lost += 1;
            run
        };
        let (fast, slow) = (run(50_000), run(900_000));
        let decided = |run: &RunRecord| (verdict(run, &slo).0, is_missed(run, &slo));
        assert_eq!([decided(&fast), decided(&slow)], [(true, false), (false, true)]);
        assert_eq!([decided(&spoiled(fast.clone())), decided(&spoiled(slow.clone()))], [(false, false); 2]);
        assert!(decided(&lost(slow)).1 && !decided(&lost(fast)).0);
    }
}
