//! The floors of a set: what network, generator and disk cost by themselves, in the same minutes.

use super::CliError;
use super::session::{Request, Session};
use crate::drivers::file::AppendMode;
use crate::drivers::null::{Behaviour, Idle};
use crate::judge::is_usable;
use crate::result::{Durability, LoopKind, ResultSet, RunRole, SetKind};
use crate::runner::Target;
use crate::workload::Workload;

/// Whether a set has this floor: of the same system, load and class.
fn is_there(set: &ResultSet, request: &Request<'_>) -> bool {
    let load = &request.workload.load;
    let rate = (load.loop_kind == LoopKind::Open).then_some(load.rate_per_s);
    set.runs.iter().any(|run| {
        run.role == RunRole::Floor
            && run.system == request.system
            && run.workload == request.workload.name
            && run.durability == request.durability
            && rate
                .zip(run.parameters.target_rate_per_s)
                .is_none_or(|(wanted, has)| (wanted - has).abs() <= wanted * 1e-6)
    })
}

/// Measures a floor that the set does not have yet. One that the host spoiled is measured once more, for without it no goal can be
/// judged; the canonical run has no time.
fn measure(session: &mut Session<'_>, request: &Request<'_>) -> Result<(), CliError> {
    if session.is_stopped() || is_there(&session.set, request) {
        return Ok(());
    }
    let tries = if session.set.kind == SetKind::Canonical { 1 } else { 2 };
    for _ in 0..tries {
        if is_usable(session.run(request)?) || session.is_stopped() {
            break;
        }
    }
    Ok(())
}

/// Each shape against an echo server, which a lone caller finds spinning. That one also meets a server that sleeps at once:
/// waking up is what most brokers do, and is no cost of the network.
///
/// # Errors
/// A run never began.
pub fn echo(session: &mut Session<'_>, shapes: &[Workload]) -> Result<(), CliError> {
    session.add_plain_system("null", "echo floor", None);
    for shape in shapes {
        measure(session, &Request::of_floor("null", Target::Null(Behaviour::default()), shape, None))?;
        if shape.name == "rtt-1k" {
            session.add_plain_system("null-sleep", "echo floor, sleeping", None);
            let sleeping = Target::Null(Behaviour { idle: Idle::Sleep, ..Behaviour::default() });
            measure(session, &Request::of_floor("null-sleep", sleeping, shape, None))?;
        }
    }
    Ok(())
}

/// Appends to the page cache, and the two ways of making them durable.
///
/// # Errors
/// A run never began.
pub fn append(session: &mut Session<'_>, shape: &Workload) -> Result<(), CliError> {
    let folder = session.common.store_folder();
    for (mode, durability) in [
        (AppendMode::PageCache, Durability::D1),
        (AppendMode::Fdatasync, Durability::D2),
        (AppendMode::DirectSync, Durability::D2),
    ] {
        let (name, title) = names(mode);
        session.add_plain_system(name, title, Some(durability));
        let target = Target::File(folder.clone(), mode);
        measure(session, &Request::of_floor(name, target, shape, Some(durability)))?;
    }
    Ok(())
}

/// Reading back in pieces, from the page cache or past it.
///
/// # Errors
/// A run never began.
pub fn read(session: &mut Session<'_>, shape: &Workload, mode: AppendMode) -> Result<(), CliError> {
    let (name, title) = names(mode);
    session.add_plain_system(name, title, None);
    let target = Target::File(session.common.store_folder(), mode);
    measure(session, &Request::of_floor(name, target, shape, None))
}

/// Name and title of an append, or of reading.
pub fn names(mode: AppendMode) -> (&'static str, &'static str) {
    match mode {
        AppendMode::PageCache => ("file", "append floor, page cache"),
        AppendMode::Fdatasync => ("file-fdatasync", "append floor, fdatasync"),
        AppendMode::Read => ("file-read", "reading floor, page cache"),
        AppendMode::ReadDirect => ("file-read-direct", "reading floor, O_DIRECT"),
        AppendMode::DirectSync => ("file-direct", "append floor, O_DIRECT and O_DSYNC"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    /// Goal: a plan that is resumed makes the floors that are missing, and only those. Method: a set with one floor, asked for it and
    /// for floors of another rate, workload, system and class.
    #[test]
    fn floors_are_known_by_name() {
        let mut set = example::result_set();
        set.runs = vec![example::run("null", 1, RunRole::Floor, 10_000.0, 30_000)];
        let (shape, _) = Workload::find("steady-1k-10k").unwrap();
        let (other, _) = Workload::find("rtt-1k").unwrap();
        let mut faster = shape.clone();
        faster.load.rate_per_s = 20_000.0;
        let request =
            |system, shape, class| Request::of_floor(system, Target::Null(Behaviour::default()), shape, class);
        assert!(is_there(&set, &request("null", &shape, None)));
        assert!(!is_there(&set, &request("null", &faster, None)));
        assert!(!is_there(&set, &request("null", &other, None)));
        assert!(!is_there(&set, &request("null-sleep", &shape, None)));
        assert!(!is_there(&set, &request("null", &shape, Some(Durability::D2))));
    }
}
