//! The same for programs. Field names never change meaning.

use serde_json::{Value, json};

use super::text::value_of;
use super::totals;
use crate::catalogue::{Catalogue, Evidence, Tunable};
use crate::executor::{Outcome, Step};
use crate::placement::Placement;
use crate::plan::{Line, Plan, Target};

/// A check or plan.
pub fn plan_json(plan: &Plan) -> Value {
    let left = plan.left_behind.iter().map(|undo| json!({ "target": undo.target.name(), "value": undo.value }));
    let left_behind: Vec<Value> = left.collect();
    json!({
        "profile": plan.profile,
        "host": plan.host,
        "boot_id": plan.boot_id,
        "totals": totals(plan),
        "placement": placement_json(&plan.placement),
        "left_behind": left_behind,
        "lines": plan.lines.iter().map(line_json).collect::<Vec<_>>(),
    })
}

fn line_json(line: &Line) -> Value {
    let change = line.change.as_ref().map(|change| {
        json!({
            "target": change.target.name(),
            "old": change.old,
            "new": change.new,
            "undo": { "target": change.undo.target.name(), "value": change.undo.value },
            "moves": change.moves.iter().map(Target::name).collect::<Vec<_>>(),
        })
    });
    json!({
        "id": line.id,
        "device": line.device,
        "want": line.want,
        "have": line.have,
        "severity": line.severity.name(),
        "state": line.state.name(),
        "note": line.note,
        "class": line.class.name(),
        "unproven": line.unproven,
        "why": line.why,
        "change": change,
    })
}

/// What became of steps.
pub fn steps_json(steps: &[Step]) -> Value {
    let one = |step: &Step| {
        let (outcome, detail) = match &step.outcome {
            Outcome::Done => ("done", ""),
            Outcome::AlreadyBack => ("already_back", ""),
            Outcome::Gone => ("gone", ""),
            Outcome::Clamped(value) => ("clamped", value.as_str()),
            Outcome::Ignored => ("ignored", ""),
            Outcome::Failed(error) => ("failed", error.as_str()),
            Outcome::Conflict(value) => ("conflict", value.as_str()),
        };
        json!({ "name": step.name, "from": step.from, "to": step.to, "outcome": outcome, "detail": detail })
    };
    json!({ "steps": steps.iter().map(one).collect::<Vec<_>>() })
}

/// A decision about cores.
pub fn placement_json(placement: &Placement) -> Value {
    json!({
        "interrupts": placement.interrupts,
        "shards": placement.shards,
        "node": placement.node,
        "shared": placement.is_shared(),
        "reasons": placement.reasons,
    })
}

/// Entries of the catalogue.
pub fn catalogue_json<'all>(catalogue: &Catalogue, tunables: impl Iterator<Item = &'all Tunable>) -> Value {
    let one = |tunable: &Tunable| {
        let values: serde_json::Map<String, Value> = catalogue
            .profiles()
            .iter()
            .filter_map(|profile| Some((profile.name.clone(), value_of(catalogue, tunable, &profile.name)?.into())))
            .collect();
        let file = match &tunable.evidence {
            Evidence::Measured { file, .. } | Evidence::NoGain { file, .. } => Some(file),
            Evidence::Unproven | Evidence::NothingToProve => None,
        };
        json!({
            "id": tunable.id,
            "group": tunable.group,
            "path": tunable.path,
            "class": tunable.class.name(),
            "severity": tunable.severity.name(),
            "usual": tunable.default,
            "reboot": tunable.reboot,
            "why": tunable.why,
            "harmful_when": tunable.harmful_when,
            "proven": tunable.evidence.is_proven(),
            "evidence": file,
            "values": values,
        })
    };
    json!({ "tunables": tunables.map(one).collect::<Vec<_>>() })
}
