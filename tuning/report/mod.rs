//! What people and programs see: tables of at most 100 columns, JSON, and the catalogue's reference page.
//!
//! Invariant: both forms show the same facts; colour never carries one alone.

mod json;
mod reference;
mod text;

pub use json::{catalogue_json, placement_json, plan_json, steps_json};
pub use reference::reference;
pub(crate) use text::wrap;
pub use text::{Style, check_text, explain_text, list_text, placement_text, plan_text, steps_text, wrapped};

use crate::plan::{Line, State};

/// Lines that differ in nothing but the device, shown as one.
struct Group<'plan> {
    first: &'plan Line,
    devices: usize,
}

impl Group<'_> {
    fn name(&self) -> String {
        match self.devices {
            1 => self.first.name(),
            more => format!("{}[{} +{}]", self.first.id, self.first.device, more - 1),
        }
    }
}

fn groups(lines: &[Line]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for line in lines {
        let alike = |other: &Line| {
            other.id == line.id
                && other.want == line.want
                && other.have == line.have
                && other.state == line.state
                && other.note == line.note
        };
        match groups.last_mut() {
            Some(group) if alike(group.first) => group.devices += 1,
            _ => groups.push(Group { first: line, devices: 1 }),
        }
    }
    groups
}

/// The last line of a check.
fn totals(plan: &crate::plan::Plan) -> String {
    format!(
        "{} ok, {} drift, {} advice, {} unsupported, {} fatal",
        plan.count(State::Ok),
        plan.count(State::Drift),
        plan.count(State::Advice),
        plan.count(State::Unsupported),
        plan.fatal_count()
    )
}
