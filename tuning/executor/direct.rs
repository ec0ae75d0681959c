//! Writes the changes of a plan, one by one, each after its old value is in the journal and on disk, and so is the value of
//! whatever the kernel moves with it.

use crate::journal::{self, Entry, FILE_MARK, JournalError, Recorder};
use crate::plan::{Change, Plan, Target, Undo, undo_of};
use crate::probe::System;

use super::{Outcome, Step};

/// Applies a plan. Fails when the journal cannot be written, then nothing more is changed; or when another process is at
/// it, then nothing is. A plan without changes writes nothing and asks nobody, but that a host which is as wanted already is
/// noted to have the profile, and one that had another has this one.
pub fn apply(system: &dyn System, plan: &Plan) -> Result<Vec<Step>, JournalError> {
    if plan.changes().next().is_none() {
        let open = || Recorder::open(system, &plan.profile, &plan.boot_id);
        let takes_over = plan.is_whole && plan.targets().next().is_some() && open()?.earlier().is_some();
        if (plan.is_fulfilled() || takes_over) && !open()?.is_of_profile() {
            let _lock = journal::lock(system)?;
            open()?.begin()?;
        }
        return Ok(Vec::new());
    }
    let _lock = journal::lock(system)?;
    let mut recorder = Recorder::open(system, &plan.profile, &plan.boot_id)?;
    // All old values before the first write: one write may move another value, and the plan may be older than the lock.
    let mut pending: Vec<Pending> = plan.changes().map(|change| Pending::of(system, change)).collect();
    // What a write may move although the plan leaves it alone comes last, and gets the value that it has.
    for target in plan.changes().flat_map(|change| &change.moves) {
        if pending.iter().all(|other| other.change.target != *target) {
            pending.extend(Pending::keeping(system, target));
        }
    }
    let mut steps = Vec::new();
    let mut rest = pending.as_mut_slice();
    while let Some((this, later)) = std::mem::take(&mut rest).split_first_mut() {
        steps.extend(apply_one(system, &mut recorder, this, later)?);
        rest = later;
    }
    Ok(steps)
}

/// Applies a plan; if it changes the number of queues, on which much else depends, then `again` looks at the host anew, takes
/// its queues as they are, and the rest is applied. Answers with the last plan and all steps.
pub fn apply_in_order<Failure: From<JournalError>>(
    system: &dyn System,
    plan: Plan,
    again: impl FnOnce() -> Result<Plan, Failure>,
) -> Result<(Plan, Vec<Step>), Failure> {
    let mut steps = apply(system, &plan)?;
    if plan.postponed_count() == 0 {
        return Ok((plan, steps));
    }
    let rest = again()?;
    let more = apply(system, &rest)?;
    // What the host did not take as it was is told once.
    steps.retain(|step| more.iter().all(|other| other.name != step.name));
    steps.extend(more);
    Ok((rest, steps))
}

/// A change with the value that was there before the first write of all.
struct Pending {
    change: Change,
    /// Whether the journal has it already, because an earlier write may have moved it.
    is_recorded: bool,
    /// Whether it only keeps a value where it is.
    is_keeping: bool,
}

impl Pending {
    fn of(system: &dyn System, planned: &Change) -> Pending {
        let old = planned.target.read(system).unwrap_or_else(|_| planned.old.clone());
        Pending { change: Change { old, ..planned.clone() }, is_recorded: false, is_keeping: false }
    }

    /// None if it cannot be read: then it is nothing that could be kept.
    fn keeping(system: &dyn System, target: &Target) -> Option<Pending> {
        let old = target.read(system).ok()?;
        let undo = Undo { target: target.clone(), value: old.clone() };
        let (name, new, target) = (target.name(), old.clone(), target.clone());
        let change = Change { name, target, counterpart: None, moves: Vec::new(), old, new, undo };
        Some(Pending { change, is_recorded: false, is_keeping: true })
    }

    fn record(&mut self, system: &dyn System, recorder: &mut Recorder<'_>) -> Result<(), JournalError> {
        if !self.is_recorded {
            let Change { target, old, counterpart, .. } = &self.change;
            self.change.undo = undo_of(system, target, old, counterpart.as_ref());
            recorder.record(&Entry::of_change(&self.change))?;
            self.is_recorded = true;
        }
        Ok(())
    }
}

/// Brings a value back that an earlier write moved. Where the kernel refuses, it has no meaning beside the new value of the other:
/// a disk without a scheduler takes fewer requests. What it is by then is written down, so that a revert knows it as its own.
fn keep(system: &dyn System, recorder: &mut Recorder<'_>, this: &Pending) -> Result<(), JournalError> {
    let Change { target, new, .. } = &this.change;
    if !this.is_recorded {
        return Ok(());
    }
    let Ok(now) = target.read(system) else { return Ok(()) };
    if !target.same(&now, new) {
        // Refused or not, it is looked at.
        let _ = target.write(system, new);
    }
    let read_back = target.read(system).unwrap_or(now);
    recorder.record(&Entry::Done { target: target.clone(), new: new.clone(), read_back })
}

/// None where there is nothing to tell: a value was to be kept.
fn apply_one(
    system: &dyn System,
    recorder: &mut Recorder<'_>,
    this: &mut Pending,
    later: &mut [Pending],
) -> Result<Option<Step>, JournalError> {
    if this.is_keeping {
        return keep(system, recorder, this).map(|()| None);
    }
    let is_recorded = this.is_recorded;
    let Change { name, target, moves, old, new, .. } = this.change.clone();
    let step = |outcome: Outcome| Ok(Some(Step { name: name.clone(), from: old.clone(), to: new.clone(), outcome }));
    let done = |read_back: &str| Entry::Done { target: target.clone(), new: new.clone(), read_back: read_back.into() };
    let now = target.read(system).unwrap_or_else(|_| old.clone());
    let is_there = target.same(&now, &new);
    if is_there && !is_recorded && target.same(&old, &new) {
        return step(Outcome::Done);
    }
    let is_known = recorder.earlier().is_some_and(|journal| journal.knows(&target, &new, &now));
    if is_recorded && (is_there || is_known) {
        recorder.record(&done(&now))?;
    }
    if is_known {
        return step(if is_there { Outcome::Done } else { Outcome::Clamped(now) });
    }
    if is_recorded && is_there {
        return step(Outcome::Done);
    }
    for target in &moves {
        if let Some(moved) = later.iter_mut().find(|other| other.change.target == *target) {
            moved.record(system, recorder)?;
        }
    }
    this.record(system, recorder)?;
    if let Err(error) = target.write(system, &new) {
        recorder.record(&Entry::Failed { target: target.clone() })?;
        return step(Outcome::Failed(error.to_string()));
    }
    let read_back = match target.read(system) {
        Ok(value) => value,
        Err(error) => return step(Outcome::Failed(format!("cannot be read back: {error}"))),
    };
    recorder.record(&done(&read_back))?;
    step(if target.same(&read_back, &new) {
        Outcome::Done
    } else if target.same(&read_back, &old) {
        Outcome::Ignored
    } else {
        Outcome::Clamped(read_back)
    })
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
