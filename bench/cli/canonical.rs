//! No arguments: one canonical run of less than 90 seconds against a RingMQ that is started for it, beside the floors of
//! the same minutes. Building that broker, where cargo has to, is not among them.

use super::options::Common;
use super::session::{Request, Session};
use super::{CliError, floors};
use crate::peers::{Flush, Peer};
use crate::result::{RunRole, SetKind};
use crate::workload::Workload;

/// One workload of the canonical run: name, seconds of warm-up and of measuring.
type Part = (&'static str, f64, f64);

const ASYNC_PARTS: [Part; 3] = [("rtt-1k", 2.0, 5.0), ("steady-1k-10k", 3.0, 15.0), ("end-to-end", 2.0, 5.0)];
const FLOOR_PARTS: [Part; 3] = [("rtt-1k", 0.5, 2.5), ("steady-1k-10k", 1.0, 5.0), ("end-to-end", 0.5, 2.0)];
const HEADROOM_PART: Part = ("steady-1k-10k", 0.5, 2.5);
const APPEND_PART: Part = ("rtt-1k", 0.5, 1.5);
const SYNC_PARTS: [Part; 2] = [("rtt-1k", 2.0, 5.0), ("steady-1k-10k", 2.0, 8.0)];

fn part(session: &mut Session<'_>, (name, warm_up_s, measure_s): Part) -> Result<Workload, CliError> {
    let (mut workload, definition) = Workload::find(name)?;
    session.add_workload(&workload, &definition);
    workload.load.warm_up_min_s = warm_up_s;
    workload.load.warm_up_max_s = warm_up_s;
    workload.load.measure_s = measure_s;
    Ok(workload)
}

/// Carries out the command.
pub fn carry_out(common: &Common) -> Result<u8, CliError> {
    common.ready_broker()?;
    let mut session = Session::begin(common, SetKind::Canonical, "canonical", true)?;
    let failure = measure(&mut session).err();
    session.finish(failure)
}

fn measure(session: &mut Session<'_>) -> Result<(), CliError> {
    let shapes = FLOOR_PARTS.into_iter().map(|shape| part(session, shape)).collect::<Result<Vec<_>, _>>()?;
    floors::echo(session, &shapes)?;
    let steady = part(session, HEADROOM_PART)?;
    session.headroom(&steady, steady.load.measure_s)?;
    let append = part(session, APPEND_PART)?;
    floors::append(session, &append)?;
    for (flush, parts) in [(Flush::Async, &ASYNC_PARTS[..]), (Flush::Sync, &SYNC_PARTS[..])] {
        if session.is_stopped() {
            return Ok(());
        }
        let settings = session.common.settings(&steady)?;
        let name = format!("ringmq-{}", flush.durability().name());
        session.with_broker((Peer::RingMq, flush), settings, &name, |session, broker| {
            for &shape in parts {
                if session.is_stopped() {
                    break;
                }
                let workload = part(session, shape)?;
                session.run(&Request::of_broker(broker, Peer::RingMq, flush, &workload, RunRole::Measured))?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::LoopKind;

    /// Goal: the canonical run is below 90 seconds with what starting and reading back take. Method: add up its parts.
    #[test]
    fn is_short() {
        let parts = ASYNC_PARTS.iter().chain(&SYNC_PARTS).map(|(_, warm_up_s, measure_s)| warm_up_s + measure_s);
        let floors =
            FLOOR_PARTS.iter().chain([&FLOOR_PARTS[0], &HEADROOM_PART, &APPEND_PART, &APPEND_PART, &APPEND_PART]);
        let floors = floors.map(|(_, warm_up_s, measure_s)| warm_up_s + measure_s);
        assert!(parts.sum::<f64>() + floors.sum::<f64>() < 75.0);
        for (name, _, _) in ASYNC_PARTS.iter().chain(&SYNC_PARTS) {
            let (workload, _) = Workload::find(name).unwrap();
            assert!(workload.load.loop_kind == LoopKind::Closed || workload.load.rate_per_s > 0.0);
        }
    }
}
