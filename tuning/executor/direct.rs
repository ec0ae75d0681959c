//! Writes the changes of a plan, one by one, each after its old value is in the journal and on disk.

use crate::journal::{self, Entry, FILE_MARK, JournalError, Recorder};
use crate::plan::{Change, Plan, undo_of};
use crate::probe::System;

use super::{Outcome, Step};

/// Applies a plan. Fails when the journal cannot be written, then nothing more is changed; or when another process is at
/// it, then nothing is. A plan without changes writes nothing and asks nobody.
pub fn apply(system: &dyn System, plan: &Plan) -> Result<Vec<Step>, JournalError> {
    if plan.changes().next().is_none() {
        return Ok(Vec::new());
    }
    let _lock = journal::lock(system)?;
    let mut recorder = Recorder::open(system, &plan.profile, &plan.boot_id)?;
    // All old values before the first write: one write may move another value, and the plan may be older than the lock.
    let read = |change: &Change| change.target.read(system).unwrap_or_else(|_| change.old.clone());
    let changes: Vec<(&Change, String)> = plan.changes().map(|change| (change, read(change))).collect();
    let mut steps = Vec::new();
    for (change, old) in changes {
        steps.push(apply_one(system, &mut recorder, change, old)?);
    }
    Ok(steps)
}

fn apply_one(
    system: &dyn System,
    recorder: &mut Recorder<'_>,
    planned: &Change,
    old: String,
) -> Result<Step, JournalError> {
    let target = &planned.target;
    let now = target.read(system).unwrap_or_else(|_| old.clone());
    let undo = undo_of(system, target, &old, planned.counterpart.as_ref());
    let change = Change { old, undo, ..planned.clone() };
    let step = |outcome: Outcome| Step {
        name: change.name.clone(),
        from: change.old.clone(),
        to: change.new.clone(),
        outcome,
    };
    if target.same(&change.old, &change.new) && target.same(&now, &change.new) {
        return Ok(step(Outcome::Done));
    }
    if recorder.earlier().is_some_and(|journal| journal.knows(target, &change.new, &now)) {
        return Ok(step(Outcome::Clamped(now)));
    }
    recorder.record(&Entry::of_change(&change))?;
    if let Err(error) = target.write(system, &change.new) {
        recorder.record(&Entry::Failed { target: target.clone() })?;
        return Ok(step(Outcome::Failed(error.to_string())));
    }
    let read_back = match target.read(system) {
        Ok(value) => value,
        Err(error) => return Ok(step(Outcome::Failed(format!("cannot be read back: {error}")))),
    };
    let done = Entry::Done { target: target.clone(), new: change.new.clone(), read_back: read_back.clone() };
    recorder.record(&done)?;
    if target.same(&read_back, &change.new) {
        return Ok(step(Outcome::Done));
    }
    Ok(step(if target.same(&read_back, &change.old) { Outcome::Ignored } else { Outcome::Clamped(read_back) }))
}

/// Makes a file below `/etc`, or replaces one that this tool made before. The text gets a first line that says so.
pub fn make_file(system: &dyn System, plan: &Plan, path: &str, text: &str) -> Result<Step, JournalError> {
    let text = format!("{FILE_MARK}\n{text}");
    let step = |outcome: Outcome| Step { name: path.into(), from: "absent".into(), to: "present".into(), outcome };
    let present = system.read(path).ok();
    if present.as_ref() == Some(&text) {
        return Ok(step(Outcome::Done));
    }
    if present.as_ref().is_some_and(|other| !other.starts_with(FILE_MARK)) {
        return Ok(step(Outcome::Failed("somebody else made this file; it stays".into())));
    }
    let _lock = journal::lock(system)?;
    if present.is_none() {
        let mut recorder = Recorder::open(system, &plan.profile, &plan.boot_id)?;
        if let Some((folder, _)) = path.rsplit_once('/').filter(|(folder, _)| !system.exists(folder)) {
            recorder.record(&Entry::Made { path: format!("{folder}/") })?;
        }
        recorder.record(&Entry::Made { path: path.into() })?;
    }
    match system.replace_synced(path, &text) {
        Ok(()) => Ok(step(Outcome::Done)),
        Err(error) => Ok(step(Outcome::Failed(error.to_string()))),
    }
}
