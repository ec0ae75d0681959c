//! The floors of a set: what network, generator and disk cost by themselves, in the same minutes.

use super::CliError;
use super::session::{Request, Session};
use crate::drivers::file::AppendMode;
use crate::drivers::null::{Behaviour, Idle};
use crate::report::groups::is_usable;
use crate::result::{Durability, SetKind};
use crate::runner::Target;
use crate::workload::Workload;

/// A floor that the host spoiled is measured once more, for without it no goal can be judged; the canonical run has no time.
fn measure(session: &mut Session<'_>, request: &Request<'_>) -> Result<(), CliError> {
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

/// Name and title of an append.
pub fn names(mode: AppendMode) -> (&'static str, &'static str) {
    match mode {
        AppendMode::PageCache => ("file", "append floor, page cache"),
        AppendMode::Fdatasync => ("file-fdatasync", "append floor, fdatasync"),
        AppendMode::DirectSync => ("file-direct", "append floor, O_DIRECT and O_DSYNC"),
    }
}
