//! Brings back what the journal says was there before, newest change first.

use crate::journal::{self, Entry, FILE_MARK, FOLDER, Journal, JournalError, PATH};
use crate::plan::{Plan, Target};
use crate::probe::System;

use super::{Outcome, Step};

/// What a revert was told.
#[derive(Debug, Clone, Default)]
pub struct Reverting {
    /// Also overwrites what somebody else changed since.
    pub force: bool,
    /// Leaves the files that were made, and the journal's lines about them: values go, the next boot brings them again.
    pub keep_files: bool,
    /// Leaves these as they are, and in the journal.
    pub keep: Vec<Target>,
}

/// Before a plan of another profile is applied: brings back what the profile before it set and this one says nothing of, so that
/// no mixture is left. Files stay.
pub fn leave(system: &dyn System, plan: &Plan) -> Result<Vec<Step>, JournalError> {
    if plan.left_behind.is_empty() {
        return Ok(Vec::new());
    }
    let told = Reverting { keep_files: true, keep: plan.targets().cloned().collect(), ..Reverting::default() };
    revert(system, &plan.boot_id, &told)
}

/// Reverts everything that was applied. A value that somebody else changed since stays, and stays in the journal, unless
/// forced. Settings of another boot are forgotten: the reboot undid them. Without a journal there is nothing to do.
pub fn revert(system: &dyn System, boot_id: &str, told: &Reverting) -> Result<Vec<Step>, JournalError> {
    if !system.exists(FOLDER) {
        return Ok(Vec::new());
    }
    // The folder goes with the lock, if nothing is left in it.
    let _lock = journal::lock(system)?;
    let Some(journal) = Journal::read(system)? else {
        // A journal that is too torn to have led to a change.
        if system.exists(PATH) {
            system.remove(PATH)?;
        }
        return Ok(Vec::new());
    };
    let same_boot = journal.boot_id == boot_id;
    let mut steps = Vec::new();
    let mut kept: Vec<Entry> = Vec::new();
    // The values before the first write of this revert, or what it brought back: one write may move another value, which then
    // is not somebody else's doing.
    let mut seen = match same_boot {
        true => values_now(system, &journal),
        false => Vec::new(),
    };
    // What stays although another write may move it: what somebody else changed, and what is to be left alone.
    let mut staying: Vec<(&Target, String)> =
        seen.iter().filter(|(place, _)| told.keep.contains(place)).cloned().collect();
    // Looking backwards, what a change was found to have become is met before the change.
    let mut became: Vec<(Target, Option<String>)> = Vec::new();
    for entry in journal.entries.iter().rev() {
        match entry {
            Entry::Done { target, read_back, .. } => became.push((target.clone(), Some(read_back.clone()))),
            Entry::Failed { target } => became.push((target.clone(), None)),
            Entry::Set { name, target, old, new, undo_target, undo_value } if same_boot => {
                let place = became.iter().position(|(place, _)| place == target);
                let ending = place.map(|place| became.remove(place).1);
                if told.keep.contains(target) {
                    keep(&mut kept, entry, target, new, ending);
                    continue;
                }
                let at_start = seen.iter().find(|(place, _)| *place == target).map(|(_, value)| value.clone());
                let undo = (undo_target, undo_value.as_str());
                let change = Past { name, target, old, new, undo, ending: &ending, seen: at_start.as_deref() };
                let step = bring_back(system, &change, told.force);
                let is_kept_value = old == new;
                if is_kept_value && step.outcome == Outcome::Gone && goes_with(system, target, &kept) {
                    keep(&mut kept, entry, target, new, ending);
                    continue;
                }
                match &step.outcome {
                    Outcome::Conflict(value) => staying.push((target, value.clone())),
                    _ if step.is_good() => {
                        seen.iter_mut().filter(|(place, _)| *place == target).for_each(|one| one.1.clone_from(old))
                    }
                    _ => {}
                }
                if is_kept_value && !told.keep.is_empty() {
                    // What stays by now may move it once more when it comes back.
                    keep(&mut kept, entry, target, new, ending);
                    steps.extend(Some(step).filter(|step| step.outcome == Outcome::Done));
                    continue;
                }
                if !step.is_good() {
                    keep(&mut kept, entry, target, new, ending);
                }
                steps.push(step);
            }
            Entry::Made { .. } if told.keep_files => kept.push(entry.clone()),
            Entry::Made { path } => {
                let step = unmake(system, path, told.force);
                if !step.is_good() {
                    kept.push(entry.clone());
                }
                steps.push(step);
            }
            Entry::Set { .. } | Entry::Profile(_) => {}
        }
    }
    if same_boot {
        steps.extend(bring_back_again(system, &journal, &mut kept));
        for (target, value) in staying {
            if target.read(system).is_ok_and(|now| !target.same(&now, &value)) {
                // It stays in the journal either way.
                let _ = target.write(system, &value);
            }
        }
    }
    if kept.is_empty() {
        system.remove(PATH)?;
    } else {
        // A profile of which nothing but files is left is not applied.
        let is_applied = kept.iter().any(|entry| matches!(entry, Entry::Set { .. }));
        kept.extend(journal.profile().filter(|_| is_applied).map(|name| Entry::Profile(name.into())));
        kept.reverse();
        let rest = Journal { boot_id: journal.boot_id.clone(), entries: kept, torn: false };
        system.replace_synced(PATH, &rest.text())?;
    }
    Ok(steps)
}

/// Keeps an entry for the next revert, with what the kernel made of it. The list is backwards.
fn keep(kept: &mut Vec<Entry>, entry: &Entry, target: &Target, new: &str, ending: Option<Option<String>>) {
    let target = target.clone();
    kept.extend(ending.map(|read_back| match read_back {
        Some(read_back) => Entry::Done { target, new: new.into(), read_back },
        None => Entry::Failed { target },
    }));
    kept.push(entry.clone());
}

/// Whether a place that is gone went with a value that stays, as a scheduler's settings do: it may come back with it.
fn goes_with(system: &dyn System, gone: &Target, kept: &[Entry]) -> bool {
    let Target::File(gone) = gone else { return false };
    kept.iter().any(|entry| match entry {
        Entry::Set { target: Target::File(path), .. } => {
            let inside = path.rsplit_once('/').and_then(|(folder, _)| gone.strip_prefix(folder)?.strip_prefix('/'));
            inside.is_some_and(|rest| rest.contains('/')) && system.exists(path)
        }
        _ => false,
    })
}

/// Every target of the journal with the value that it has.
fn values_now<'journal>(system: &dyn System, journal: &'journal Journal) -> Vec<(&'journal Target, String)> {
    let mut values: Vec<(&Target, String)> = Vec::new();
    for entry in &journal.entries {
        let Entry::Set { target, .. } = entry else { continue };
        if values.iter().all(|(known, _)| *known != target)
            && let Ok(now) = target.read(system)
        {
            values.push((target, now));
        }
    }
    values
}

/// A value that was back may have been moved when the next one was: Linux sets `read_ahead_kb` when `add_random` is
/// written. Looks once more at every target, and answers with what still is not as it was.
fn bring_back_again(system: &dyn System, journal: &Journal, kept: &mut Vec<Entry>) -> Vec<Step> {
    let is_kept =
        |place: &Target| kept.iter().any(|entry| matches!(entry, Entry::Set { target, .. } if target == place));
    let mut first: Vec<&Entry> = Vec::new();
    for entry in &journal.entries {
        let Entry::Set { target, .. } = entry else { continue };
        let known = first.iter().any(|earlier| matches!(earlier, Entry::Set { target: place, .. } if place == target));
        if !known && !is_kept(target) {
            first.push(entry);
        }
    }
    let mut bad = Vec::new();
    for entry in first.into_iter().rev() {
        let Entry::Set { name, target, old, new, undo_target, undo_value } = entry else { continue };
        let change = Past { name, target, old, new, undo: (undo_target, undo_value), ending: &None, seen: None };
        let step = bring_back(system, &change, true);
        if !step.is_good() {
            kept.insert(0, entry.clone());
            bad.push(step);
        }
    }
    bad
}

/// A change that was begun. `ending`: `None` if nothing is known, so it was interrupted; `Some(None)` if the kernel
/// refused it; else what the kernel made of it.
struct Past<'journal> {
    name: &'journal str,
    target: &'journal Target,
    old: &'journal str,
    new: &'journal str,
    undo: (&'journal Target, &'journal str),
    ending: &'journal Option<Option<String>>,
    /// The value before this revert wrote anything that may move it; `None` if that was not looked at.
    seen: Option<&'journal str>,
}

fn bring_back(system: &dyn System, past: &Past<'_>, force: bool) -> Step {
    let Past { name, target, old, new, undo, ending, seen } = past;
    let step =
        |from: &str, outcome: Outcome| Step { name: (*name).into(), from: from.into(), to: (*old).into(), outcome };
    let now = match target.read(system) {
        Ok(now) => now,
        Err(_) if target.is_gone(system) => return step("", Outcome::Gone),
        Err(error) => return step("", Outcome::Failed(format!("cannot be read: {error}"))),
    };
    if target.same(&now, old) {
        return step(&now, Outcome::AlreadyBack);
    }
    let seen = seen.unwrap_or(&now);
    let is_ours = match ending {
        None => true,
        Some(None) => false,
        Some(Some(read_back)) => target.same(seen, read_back),
    };
    if !(force || is_ours || target.same(seen, new) || target.same(seen, old)) {
        return step(seen, Outcome::Conflict(seen.into()));
    }
    if let Err(error) = undo.0.write(system, undo.1) {
        return step(&now, Outcome::Failed(error.to_string()));
    }
    match target.read(system) {
        Ok(back) if target.same(&back, old) => step(&now, Outcome::Done),
        Ok(back) if target.same(&back, &now) => step(&now, Outcome::Ignored),
        Ok(back) => step(&now, Outcome::Clamped(back)),
        Err(error) => step(&now, Outcome::Failed(format!("cannot be read back: {error}"))),
    }
}

fn unmake(system: &dyn System, path: &str, force: bool) -> Step {
    let step = |outcome: Outcome| Step { name: path.into(), from: "present".into(), to: "absent".into(), outcome };
    if path.ends_with('/') {
        // A folder that somebody else uses by now stays, and is no longer ours.
        let _ = system.remove(path);
        return step(Outcome::Done);
    }
    match system.read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => step(Outcome::AlreadyBack),
        Err(error) => step(Outcome::Failed(error.to_string())),
        Ok(text) if !force && !text.starts_with(FILE_MARK) => {
            step(Outcome::Conflict("a file that somebody else made".into()))
        }
        Ok(_) => match system.remove(path) {
            Ok(()) => step(Outcome::Done),
            Err(error) => step(Outcome::Failed(error.to_string())),
        },
    }
}
