//! What `versus` and `publish` share: brokers in turn on fresh stores, and the knee of each.

use ringmq_protocol::frame::SerializeType;

use super::CliError;
use super::search::round;
use super::session::{Request, Session};
use super::sweep::{SweepPlan, sweep};
use crate::judge::is_spoiled_by_host;
use crate::peers::{Flush, Peer};
use crate::result::{Curve, Durability, ResultSet, RunRole, Slo};
use crate::workload::Workload;

/// Load before measuring for a broker without a compiler at run time: pages and caches, no more.
const NATIVE_CONDITIONING_S: f64 = 3.0;
/// Length of a run that counts system calls, and of its warm-up.
pub const COUNTING_S: (f64, f64) = (1.0, 0.3);
/// Warm-ups shorter than this cannot be judged as steady, so they have one length.
const JUDGED_WARM_UP_S: f64 = 10.0;

/// One broker in one durability class.
pub struct Side<'s> {
    pub peer: Peer,
    pub flush: Flush,
    pub header: SerializeType,
    /// Load before the first measured run of each start, for compilers that work at run time.
    pub conditioning_s: f64,
    pub settings: &'s [(String, String)],
}

impl Side<'_> {
    fn conditioning_s(&self) -> f64 {
        match self.peer {
            Peer::Java => self.conditioning_s,
            Peer::RingMq => self.conditioning_s.min(NATIVE_CONDITIONING_S),
        }
    }

    fn durability(&self) -> Durability {
        self.flush.durability()
    }
}

/// A workload with other times.
pub fn timed(workload: &Workload, measure_s: f64, warm_up_s: f64) -> Workload {
    let mut workload = workload.clone();
    workload.load.measure_s = measure_s;
    workload.load.warm_up_min_s = warm_up_s;
    workload.load.warm_up_max_s = if warm_up_s < JUDGED_WARM_UP_S { warm_up_s } else { warm_up_s * 2.0 };
    workload
}

/// The rate at which brokers are compared: half of the slower one's highest.
pub fn half(slower_knee_per_s: f64) -> f64 {
    round(slower_knee_per_s / 2.0)
}

/// Who goes first in a round: each in turn, for what a disk, a cache or a host's budget keeps of the one before is not the same for the
/// second.
pub fn in_turn<const N: usize>(mut peers: [Peer; N], round: u32) -> [Peer; N] {
    if round.is_multiple_of(2) {
        peers.reverse();
    }
    peers
}

/// The shapes of runs that count system calls: nothing is read back, for their times are in no figure.
pub fn counting(shapes: &[Workload]) -> Vec<Workload> {
    let counting = |shape: &Workload| {
        let mut shape = timed(shape, COUNTING_S.0, COUNTING_S.1);
        shape.load.verify = false;
        shape
    };
    shapes.iter().map(counting).collect()
}

fn is_done(session: &Session<'_>, side: &Side<'_>, (number, role): (u32, RunRole), shape: &Workload) -> bool {
    let rate = shape.load.rate_per_s;
    session.set.runs.iter().any(|run| {
        let is_rate = run.parameters.target_rate_per_s.is_none_or(|target| (target - rate).abs() <= rate * 1e-6);
        run.system == side.peer.name()
            && run.workload == shape.name
            && run.durability == Some(side.durability())
            && run.round == number
            && is_rate
            && run.role == role
    })
}

/// One broker on a fresh store under each shape that the set does not have yet; then once more under those whose runs the host spoiled, as
/// long as the session has second tries; after those, under the ones for which its system calls are counted: that slows them down, so
/// it is no part of a measured run.
///
/// # Errors
/// It does not start, or a run never began.
pub fn turn(
    session: &mut Session<'_>,
    side: &Side<'_>,
    number: u32,
    shapes: &[Workload],
    counted: &[Workload],
) -> Result<(), CliError> {
    let all = shapes.iter().map(|shape| (shape, RunRole::Measured));
    let all = all.chain(counted.iter().map(|shape| (shape, RunRole::Counting)));
    let missing: Vec<(&Workload, RunRole)> =
        all.filter(|(shape, role)| !is_done(session, side, (number, *role), shape)).collect();
    let Some(&(first, _)) = missing.first().filter(|_| !session.is_stopped()) else { return Ok(()) };
    let name = format!("{}-{}-{number}", side.peer.name(), side.durability().name());
    session.with_broker((side.peer, side.flush), side.settings.to_vec(), &name, |session, broker| {
        let base = Request {
            round: number,
            header: side.header,
            ..Request::of_broker(broker, side.peer, side.flush, first, RunRole::Measured)
        };
        session.condition(&base, side.conditioning_s())?;
        let (measured, counted): (Vec<_>, Vec<_>) = missing.iter().partition(|(_, role)| *role == RunRole::Measured);
        let mut spoiled = Vec::new();
        for &(shape, role) in &measured {
            if session.is_stopped() {
                return Ok(());
            }
            let run = session.run(&Request { workload: shape, role, target: base.target.clone(), ..base })?;
            if is_spoiled_by_host(run) {
                spoiled.push((shape, role));
            }
        }
        spoiled.truncate(session.second_tries);
        session.second_tries -= spoiled.len();
        for (shape, role) in spoiled.into_iter().chain(counted) {
            if session.is_stopped() {
                return Ok(());
            }
            session.run(&Request { workload: shape, role, target: base.target.clone(), ..base })?;
        }
        Ok(())
    })
}

/// The curve of one broker, if the set has it: of the same class and workload, under the same conditions.
fn known<'s>(set: &'s ResultSet, side: &Side<'_>, shape: &Workload, slo: &Slo) -> Option<&'s Curve> {
    let class = Some(side.durability());
    set.curves.iter().find(|curve| {
        curve.system == side.peer.name()
            && curve.durability == class
            && curve.workload == shape.name
            && curve.slo == *slo
            && !curve.is_cut_short
    })
}

/// The knee of one broker on a fresh store; the known one if the set has a curve already.
///
/// # Errors
/// It does not start, or a run never began.
pub fn knee(
    session: &mut Session<'_>,
    side: &Side<'_>,
    shape: &Workload,
    plan: &SweepPlan<'_>,
) -> Result<Option<f64>, CliError> {
    if let Some(curve) = known(&session.set, side, shape, plan.slo) {
        return Ok(curve.knee_rate_per_s);
    }
    if session.is_stopped() {
        return Ok(None);
    }
    let name = format!("{}-{}-knee-{}", side.peer.name(), side.durability().name(), session.set.curves.len() + 1);
    session.with_broker((side.peer, side.flush), side.settings.to_vec(), &name, |session, broker| {
        let request = Request {
            header: side.header,
            ..Request::of_broker(broker, side.peer, side.flush, shape, RunRole::SweepStep)
        };
        session.condition(&request, side.conditioning_s())?;
        sweep(session, &request, plan)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{RunRecord, example};

    /// Goal: what is made again is what the host spoiled, and only that: a broker gets no second try. Method: a sound run,
    /// one with steal, one that missed its rate, one that lost a message.
    #[test]
    fn only_the_host_gets_a_second_try() {
        let run = |change: fn(&mut RunRecord)| {
            let mut run = example::run("ringmq", 1, RunRole::Measured, 50_000.0, 60_000);
            run.hiccups.clear();
            change(&mut run);
            crate::judge::judge(&mut run, None);
            is_spoiled_by_host(&run)
        };
        assert!(!run(|_| ()));
        assert!(run(|run| run.steal_share = Some(0.02)));
        assert!(!run(|run| run.achieved_rate_per_s = 40_000.0));
        assert!(!run(|run| run.integrity.lost = 1));
        assert!(!run(|run| (run.steal_share, run.achieved_rate_per_s) = (Some(0.02), 40_000.0)));
    }

    /// Goal: neither of two brokers always goes first, and both have each round. Method: four rounds.
    #[test]
    fn brokers_go_first_in_turn() {
        let peers = [Peer::RingMq, Peer::Java];
        let first: Vec<Peer> = (1..=4).map(|round| in_turn(peers, round)[0]).collect();
        assert_eq!(first, [Peer::RingMq, Peer::Java, Peer::RingMq, Peer::Java]);
        assert!((1..=4).all(|round| peers.iter().all(|peer| in_turn(peers, round).contains(peer))));
    }

    /// Goal: a plan that is resumed takes a curve only for its own workload, class and conditions. Method: the example's curve asked
    /// for with one thing changed at a time.
    #[test]
    fn known_curves() {
        let set = example::result_set();
        let (shape, _) = Workload::find("steady-1k-10k").unwrap();
        let (other, _) = Workload::find("steady-1k-50k").unwrap();
        let side =
            |flush| Side { peer: Peer::RingMq, flush, header: SerializeType::Json, conditioning_s: 0.0, settings: &[] };
        let slo = &set.curves[0].slo;
        assert!(known(&set, &side(Flush::Async), &shape, slo).is_some());
        assert!(known(&set, &side(Flush::Async), &other, slo).is_none());
        assert!(known(&set, &side(Flush::Sync), &shape, slo).is_none());
        let mut cut = set.clone();
        cut.curves.iter_mut().for_each(|curve| curve.is_cut_short = true);
        assert!(known(&cut, &side(Flush::Async), &shape, slo).is_none());
        let looser = Slo { p99_ns: Some(50_000_000), ..slo.clone() };
        assert!(known(&set, &side(Flush::Async), &shape, &looser).is_none());
    }
}
