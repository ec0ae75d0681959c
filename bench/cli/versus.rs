//! `versus`: two brokers in turn, A B A B, each on a fresh store, under the same load from the same generator.

use std::collections::BTreeMap;

use super::CliError;
use super::options::{Common, PlanKind, VersusOptions, read_slo};
use super::search::round;
use super::session::{Request, Session};
use super::sweep::{SweepPlan, sweep};
use crate::drivers::file::AppendMode;
use crate::drivers::null::Behaviour;
use crate::peers::{Flush, Peer};
use crate::result::{Durability, LoopKind, RunRole, SetKind};
use crate::runner::Target;
use crate::workload::Workload;

/// Shares of the slower one's knee in the full plan.
const SHARES: [f64; 3] = [0.2, 0.5, 0.8];
/// Rates of floors are at most this, so that they are floors and not limits.
const FLOOR_SECONDS: f64 = 5.0;

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
                conditioning_s: 120.0,
            },
        };
        scope.pairs = options.pairs.unwrap_or(scope.pairs);
        scope.conditioning_s = options.conditioning.unwrap_or(scope.conditioning_s);
        if let Some(seconds) = options.seconds {
            scope.measure_s = seconds;
            scope.step_s = seconds;
        }
        scope
    }
}

fn timed(workload: &Workload, measure_s: f64, warm_up_s: f64) -> Workload {
    let mut workload = workload.clone();
    workload.load.measure_s = measure_s;
    workload.load.warm_up_min_s = warm_up_s;
    workload.load.warm_up_max_s = warm_up_s * 2.0;
    workload
}

/// Carries out the command.
pub fn carry_out(common: &Common, options: &VersusOptions) -> Result<u8, CliError> {
    let peers: Vec<Peer> = options
        .peers
        .iter()
        .map(|name| Peer::of(name).ok_or_else(|| CliError::Usage(format!("{name:?} is neither ringmq nor java"))))
        .collect::<Result<_, _>>()?;
    if peers[0] == peers[1] {
        return Err(CliError::Usage("versus compares two different brokers".to_owned()));
    }
    let (workload, definition) = Workload::find(&options.workload)?;
    if workload.load.loop_kind == LoopKind::Closed {
        return Err(CliError::Usage(format!("{} is a closed loop; versus needs rates", workload.name)));
    }
    let slo = read_slo(&options.slo)?;
    let scope = Scope::of(options);
    let mut session = match &options.resume {
        Some(path) => Session::resume(common, path.clone())?,
        None => Session::begin(common, SetKind::Versus, "versus", true)?,
    };
    session.add_workload(&workload, &definition);
    let settings = common.settings(&workload)?;
    let failure = (|| {
        floors(&mut session, &workload, options, &scope)?;
        for &flush in scope.flushes {
            let mut knees = BTreeMap::new();
            for &peer in &peers {
                if let Some(knee) = knee(&mut session, peer, flush, &workload, options, &scope, &slo, &settings)? {
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
            for pair in 1..=scope.pairs {
                for &peer in &peers {
                    if session.is_stopped() {
                        return Ok(());
                    }
                    turn(&mut session, peer, flush, pair, &workload, &rates, options, &scope, &settings)?;
                }
            }
        }
        Ok(())
    })();
    session.finish(failure.err())
}

fn is_done(session: &Session<'_>, peer: &str, durability: Durability, rate: f64, pair: u32) -> bool {
    session.set.runs.iter().any(|run| {
        let is_rate = run.parameters.target_rate_per_s.is_some_and(|target| (target - rate).abs() < rate * 1e-6);
        let is_place = run.system == peer && run.durability == Some(durability) && run.round == pair;
        is_rate && is_place && run.role == RunRole::Measured
    })
}

fn floors(
    session: &mut Session<'_>,
    workload: &Workload,
    options: &VersusOptions,
    scope: &Scope,
) -> Result<(), CliError> {
    if session.set.runs.iter().any(|run| run.role == RunRole::Floor) {
        return Ok(());
    }
    session.headroom(workload, 2.0)?;
    session.add_plain_system("null", "echo floor", None);
    let mut shape = timed(workload, FLOOR_SECONDS, 1.0);
    shape.load.rate_per_s = options.rates.first().copied().unwrap_or(1000.0);
    session.run(&Request::of_floor("null", Target::Null(Behaviour::default()), &shape, None))?;
    let folder = session.common.store_folder();
    for &flush in scope.flushes {
        let (mode, title) = match flush {
            Flush::Async => (AppendMode::PageCache, "append floor"),
            Flush::Sync => (AppendMode::Fdatasync, "append and fdatasync floor"),
        };
        session.add_plain_system("file", title, Some(flush.durability()));
        let target = Target::File(folder.clone(), mode);
        session.run(&Request::of_floor("file", target, &shape, Some(flush.durability())))?;
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "one step of one plan, called from one place")]
fn knee(
    session: &mut Session<'_>,
    peer: Peer,
    flush: Flush,
    workload: &Workload,
    options: &VersusOptions,
    scope: &Scope,
    slo: &crate::result::Slo,
    settings: &[(String, String)],
) -> Result<Option<f64>, CliError> {
    let durability = Some(flush.durability());
    let known = session.set.curves.iter().find(|curve| curve.system == peer.name() && curve.durability == durability);
    if let Some(curve) = known {
        return Ok(curve.knee_rate_per_s);
    }
    if session.is_stopped() {
        return Ok(None);
    }
    let shape = timed(workload, scope.step_s, scope.step_warm_up_s);
    let broker = session.start(peer, flush, settings.to_vec())?;
    let request = Request {
        header: options.header.into(),
        ..Request::of_broker(&broker, peer, flush, &shape, RunRole::SweepStep)
    };
    session.condition(&request, scope.conditioning_s)?;
    let from = options.rates.first().copied().unwrap_or(1000.0);
    let plan = SweepPlan { from, precision: scope.precision, confirm: scope.confirm, slo };
    let knee = sweep(session, &request, &plan)?;
    if session.is_stopped() {
        // A curve that was cut short would be taken for a whole one when the plan is resumed.
        session.set.curves.pop();
    }
    session.stop_broker(broker, &format!("{}-{}-knee", peer.name(), flush.durability().name()));
    Ok(knee)
}

#[expect(clippy::too_many_arguments, reason = "one step of one plan, called from one place")]
fn turn(
    session: &mut Session<'_>,
    peer: Peer,
    flush: Flush,
    pair: u32,
    workload: &Workload,
    rates: &[f64],
    options: &VersusOptions,
    scope: &Scope,
    settings: &[(String, String)],
) -> Result<(), CliError> {
    let durability = flush.durability();
    let missing: Vec<f64> =
        rates.iter().copied().filter(|rate| !is_done(session, peer.name(), durability, *rate, pair)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let broker = session.start(peer, flush, settings.to_vec())?;
    let shape = timed(workload, scope.measure_s, scope.warm_up_s);
    let base = Request {
        round: pair,
        header: options.header.into(),
        ..Request::of_broker(&broker, peer, flush, &shape, RunRole::Measured)
    };
    session.condition(&base, scope.conditioning_s)?;
    for rate in missing {
        if session.is_stopped() {
            break;
        }
        let mut shape = shape.clone();
        shape.load.rate_per_s = rate;
        session.run(&Request { workload: &shape, target: base.target.clone(), ..base })?;
    }
    session.stop_broker(broker, &format!("{}-{}-{pair}", peer.name(), durability.name()));
    Ok(())
}
