//! `versus`: two brokers in turn, A B B A, each on a fresh store, under the same load from the same generator.

use std::collections::BTreeMap;

use super::options::{Common, HeaderForm, PlanKind, VersusOptions, read_slo};
use super::rounds::{Side, counting, in_turn, knee, timed, turn};
use super::search::round;
use super::session::Session;
use super::sweep::SweepPlan;
use super::{CliError, floors};
use crate::peers::{Flush, Peer};
use crate::result::{LoopKind, ResultSet, RunRecord, RunRole, SetKind, Slo};
use crate::workload::Workload;

/// Shares of the slower one's knee in the full plan.
const SHARES: [f64; 3] = [0.2, 0.5, 0.8];
/// First step of the search for a knee.
const FIRST_STEP_PER_S: f64 = 4000.0;
/// Length of a floor's run.
const FLOOR_SECONDS: f64 = 5.0;
/// Length of an append floor's run.
const APPEND_SECONDS: f64 = 1.5;

/// A plan in numbers.
struct Scope {
    flushes: &'static [Flush],
    pairs: u32,
    measure_s: f64,
    warm_up_s: f64,
    step_s: f64,
    step_warm_up_s: f64,
    precision: f64,
    confirm: u32,
    /// Of each search.
    second_tries: u32,
    conditioning_s: f64,
}

impl Scope {
    fn of(options: &VersusOptions) -> Scope {
        let mut scope = match options.plan {
            PlanKind::Quick => Scope {
                flushes: &[Flush::Async],
                pairs: 3,
                measure_s: 20.0,
                warm_up_s: 5.0,
                step_s: 8.0,
                step_warm_up_s: 2.0,
                precision: 0.10,
                confirm: 1,
                second_tries: 4,
                conditioning_s: 40.0,
            },
            PlanKind::Full => Scope {
                flushes: &[Flush::Async, Flush::Sync],
                pairs: 5,
                measure_s: 60.0,
                warm_up_s: 10.0,
                step_s: 60.0,
                step_warm_up_s: 10.0,
                precision: 0.02,
                confirm: 3,
                second_tries: u32::MAX,
                conditioning_s: 120.0,
            },
        };
        scope.pairs = options.pairs.unwrap_or(scope.pairs);
        scope.conditioning_s = options.conditioning.unwrap_or(scope.conditioning_s);
        if let Some(seconds) = options.seconds {
            scope.measure_s = seconds;
            scope.step_s = seconds;
            scope.warm_up_s = scope.warm_up_s.min(seconds);
            scope.step_warm_up_s = scope.step_warm_up_s.min(seconds);
        }
        scope
    }
}

/// Carries out the command.
pub fn carry_out(common: &Common, options: &VersusOptions) -> Result<u8, CliError> {
    let peers: Vec<Peer> = options
        .peers
        .iter()
        .map(|name| Peer::of(name).ok_or_else(|| CliError::Usage(format!("{name:?} is neither ringmq nor java"))))
        .collect::<Result<_, _>>()?;
    let peers = [peers[0], peers[1]];
    if peers[0] == peers[1] {
        return Err(CliError::Usage("versus compares two different brokers".to_owned()));
    }
    let (workload, definition) = Workload::find(&options.workload)?;
    if workload.load.loop_kind == LoopKind::Closed {
        return Err(CliError::Usage(format!("{} is a closed loop; versus needs rates", workload.name)));
    }
    let slo = read_slo(&options.slo, &workload)?;
    let scope = Scope::of(options);
    if let Some(path) = &options.resume {
        super::existing(path)?;
    }
    common.ready_broker()?;
    let mut session = match &options.resume {
        Some(path) => Session::resume(common, path.clone())?,
        None => Session::begin(common, SetKind::Versus, "versus", true)?,
    };
    if options.resume.is_some() {
        check_same_plan(&session.set, &workload, options.header, &slo, &scope)?;
    }
    session.add_workload(&workload, &definition);
    let settings = common.settings(&workload)?;
    let failure = (|| {
        measure_floors(&mut session, &workload, options, &scope)?;
        for (number, &flush) in (1..).zip(scope.flushes) {
            let side = |peer| Side {
                peer,
                flush,
                header: options.header.into(),
                conditioning_s: scope.conditioning_s,
                settings: &settings,
            };
            let step = timed(&workload, scope.step_s, scope.step_warm_up_s);
            let plan = SweepPlan {
                from: FIRST_STEP_PER_S,
                precision: scope.precision,
                confirm: scope.confirm,
                second_tries: scope.second_tries,
                slo: &slo,
            };
            let mut knees = BTreeMap::new();
            for peer in in_turn(peers, number) {
                if let Some(knee) = knee(&mut session, &side(peer), &step, &plan)? {
                    knees.insert(peer.name(), knee);
                }
            }
            let rates = match options.plan {
                PlanKind::Quick => options.rates.clone(),
                PlanKind::Full => match knees.values().copied().reduce(f64::min).filter(|_| knees.len() == peers.len())
                {
                    Some(slower) => SHARES.iter().map(|share| round(slower * share)).collect(),
                    None => options.rates.clone(),
                },
            };
            let mut shapes: Vec<Workload> =
                rates.iter().map(|_| timed(&workload, scope.measure_s, scope.warm_up_s)).collect();
            shapes.iter_mut().zip(&rates).for_each(|(shape, rate)| shape.load.rate_per_s = *rate);
            for pair in 1..=scope.pairs {
                let counted = if pair == scope.pairs { counting(&shapes) } else { Vec::new() };
                for peer in in_turn(peers, pair) {
                    turn(&mut session, &side(peer), pair, &shapes, &counted)?;
                }
            }
        }
        session.headroom_at_knee(&workload)
    })();
    session.finish(failure.err())
}

/// Refuses to go on with a set under other options: its rounds would be called repeats of each other and be none.
fn check_same_plan(
    set: &ResultSet,
    workload: &Workload,
    header: HeaderForm,
    slo: &Slo,
    scope: &Scope,
) -> Result<(), CliError> {
    let other = |what: &str| Err(CliError::Usage(format!("the plan in this directory was begun with another {what}")));
    if set.kind != SetKind::Versus {
        return other("command than versus");
    }
    let header = match header {
        HeaderForm::Json => "json",
        HeaderForm::Rocketmq => "rocketmq",
    };
    let mut measured = set.runs.iter().filter(|run| !matches!(run.role, RunRole::Floor | RunRole::Headroom));
    if measured.clone().any(|run| run.workload != workload.name) {
        return other("--workload");
    }
    if measured.clone().any(|run| run.parameters.header != header) {
        return other("--header");
    }
    if set.curves.iter().any(|curve| curve.slo != *slo) {
        return other("--slo");
    }
    let is_other_length =
        |run: &RunRecord| run.role == RunRole::Measured && (run.parameters.measure_s - scope.measure_s).abs() > 1e-6;
    if measured.any(is_other_length) {
        return other("--plan or --seconds");
    }
    Ok(())
}

fn measure_floors(
    session: &mut Session<'_>,
    workload: &Workload,
    options: &VersusOptions,
    scope: &Scope,
) -> Result<(), CliError> {
    session.headroom(workload, 2.0)?;
    let shapes: Vec<Workload> = options
        .rates
        .iter()
        .map(|rate| {
            let mut shape = timed(workload, FLOOR_SECONDS.min(scope.measure_s), 1.0);
            shape.load.rate_per_s = *rate;
            shape
        })
        .collect();
    floors::echo(session, &shapes)?;
    let (trip, definition) = Workload::find("rtt-1k")?;
    session.add_workload(&trip, &definition);
    floors::append(session, &timed(&trip, APPEND_SECONDS, 0.5))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::session::{KNEE_HEADROOM_S, KNEE_HEADROOM_TRIES};
    use super::*;
    use crate::result::example;

    fn options(plan: PlanKind) -> VersusOptions {
        VersusOptions {
            peers: vec!["ringmq".to_owned(), "java".to_owned()],
            plan,
            workload: "steady-1k-10k".to_owned(),
            rates: vec![1000.0, 5000.0],
            slo: String::new(),
            resume: None,
            pairs: None,
            seconds: None,
            conditioning: None,
            header: HeaderForm::Json,
        }
    }

    /// Goal: the quick plan stays within its promise of 25 minutes. Method: adds up its parts, with what starting, stopping and
    /// reading back take on a machine of two cores, searches up to the generator's own limit for one broker and up to 100,000/s for
    /// the other, all steps that may be made once more, and all tries of the generator alone.
    #[test]
    fn the_quick_plan_is_bounded() {
        let options = options(PlanKind::Quick);
        let scope = Scope::of(&options);
        assert_eq!((scope.flushes.len(), scope.pairs, scope.confirm), (1, 3, 1));
        // A start and stop of each broker; the other's conditioning.
        let restarts_s = 26.0 + scope.conditioning_s + NATIVE_S;
        // Reading back takes about as long as measuring where rates are high.
        let step_s = scope.step_s + scope.step_warm_up_s + scope.step_s;
        let run_s = scope.measure_s + scope.warm_up_s + 2.0;
        let steps = |capacity: f64| {
            let mut search = super::super::search::Search::new(FIRST_STEP_PER_S, scope.precision);
            let mut steps = 2 * scope.confirm + scope.second_tries;
            while let Some(rate) = search.next_rate() {
                search.report(rate, rate <= capacity);
                steps += 1;
            }
            f64::from(steps)
        };
        let alone_s = f64::from(KNEE_HEADROOM_TRIES) * (KNEE_HEADROOM_S.0 + KNEE_HEADROOM_S.1);
        let knees_s = (steps(1_200_000.0) + steps(100_000.0)) * step_s + restarts_s + alone_s;
        let pairs_s = f64::from(scope.pairs) * (2.0 * options.rates.len() as f64 * run_s + restarts_s);
        let floors_s = 2.0 * (options.rates.len() as f64 * (FLOOR_SECONDS + 1.0) + 3.0 * (APPEND_SECONDS + 0.5) + 3.0);
        let all_s = knees_s + pairs_s + floors_s;
        assert!(all_s < 1500.0, "{all_s}");
    }

    /// Seconds of conditioning of a broker without a compiler at run time.
    const NATIVE_S: f64 = 3.0;

    /// Goal: a plan goes on only as it was begun. Method: the example as a begun plan, and one option changed at a time.
    #[test]
    fn a_plan_is_resumed_as_it_was_begun() {
        let mut set = example::result_set();
        set.kind = SetKind::Versus;
        let (workload, _) = Workload::find("steady-1k-10k").unwrap();
        let (other, _) = Workload::find("steady-1k-50k").unwrap();
        let slo = set.curves[0].slo.clone();
        for curve in &mut set.curves {
            curve.slo = slo.clone();
        }
        let scope = Scope { measure_s: 10.0, ..Scope::of(&options(PlanKind::Quick)) };
        let check = |set: &ResultSet, workload, header, slo: &Slo, scope: &Scope| {
            check_same_plan(set, workload, header, slo, scope).map_err(|error| error.to_string())
        };
        assert_eq!(check(&set, &workload, HeaderForm::Json, &slo, &scope), Ok(()));
        let refused = |found: Result<(), String>, what: &str| {
            assert!(found.as_ref().is_err_and(|text| text.contains(what)), "{found:?}")
        };
        refused(check(&set, &other, HeaderForm::Json, &slo, &scope), "--workload");
        refused(check(&set, &workload, HeaderForm::Rocketmq, &slo, &scope), "--header");
        let looser = Slo { p99_ns: Some(1 << 40), ..slo.clone() };
        refused(check(&set, &workload, HeaderForm::Json, &looser, &scope), "--slo");
        let longer = Scope { measure_s: 20.0, ..scope };
        refused(check(&set, &workload, HeaderForm::Json, &slo, &longer), "--seconds");
        set.kind = SetKind::Run;
        refused(check(&set, &workload, HeaderForm::Json, &slo, &longer), "command");
    }
}
