//! Highest rates: the README's tables of them, whether they were borne out, and what the generator had left.

use std::fmt::Write as _;

use super::groups::{by_class, class_heading, key, syscalls};
use super::section::line;
use crate::judge::{confirmed_rate, doubts, is_usable, slo_text};
use crate::result::{Curve, Durability, Headroom, ResultSet, RunRecord, RunRole};
use crate::units;

/// The README's tables of highest rates, one per class.
pub fn knees(text: &mut String, set: &ResultSet) {
    if set.curves.is_empty() {
        return;
    }
    for (class, curves) in by_class(&set.curves, |curve| curve.durability) {
        rates(text, set, class, &curves);
    }
    for line in &set.headroom {
        let _ = writeln!(text, "The generator does {}.", headroom(line));
    }
    text.push('\n');
}

fn rates(text: &mut String, set: &ResultSet, class: Option<Durability>, curves: &[&Curve]) {
    let _ = writeln!(text, "**Highest rates of single messages of 1 KiB, {}**\n", class_heading(class));
    line(
        text,
        "| system | held | what was to hold | confirmed | generator there | held with a quarter of its core free | system calls per \
         message there |",
    );
    line(text, "|---|---|---|---|---|---|---|");
    for curve in curves {
        let knee = curve.knee_rate_per_s.map_or_else(|| "none".to_owned(), |rate| format!("{}/s", units::count(rate)));
        let _ = writeln!(
            text,
            "| {} | {knee} | {} | {} | {} | {} | {} |",
            super::plots::title(set, &curve.system),
            slo_text(&curve.slo),
            confirmation(set, curve),
            super::tables::share_at_knee(set, curve),
            super::tables::unhurried(set, curve),
            syscalls_at_knee(set, curve).map_or_else(|| "–".to_owned(), units::significant),
        );
    }
    text.push('\n');
}

/// System calls per message at the highest rate that held.
pub fn syscalls_at_knee(set: &ResultSet, curve: &Curve) -> Option<f64> {
    let knee = curve.knee_rate_per_s?;
    let is_there = |run: &&RunRecord| {
        run.role == RunRole::Counting
            && run.system == curve.system
            && run.workload == curve.workload
            && run.durability == curve.durability
            && run.parameters.target_rate_per_s.is_some_and(|rate| (rate - knee).abs() <= knee * 1e-6)
    };
    let run = set.runs.iter().find(is_there)?;
    syscalls(set, &key(run), &[]).ok().map(|figure| figure.median)
}

/// What the generator can do, and how many times that is what was needed of it.
pub fn headroom(headroom: &Headroom) -> String {
    let limit = format!("{}/s against the echo", units::count(headroom.null_rate_per_s));
    let uses: Vec<String> = headroom
        .uses()
        .map(|(name, rate, factor)| format!("{} {name} ({}/s)", units::ratio(factor), units::count(rate)))
        .collect();
    if uses.is_empty() { limit } else { format!("{limit}: {}", uses.join(", ")) }
}

/// Whether the repeats bore a knee out; if not, what they missed and which rate they did bear out. A repeat that held although the host
/// disturbed it is told apart: its times can only have been too long, see [`crate::judge::is_merely_pessimistic`].
pub fn confirmation(set: &ResultSet, curve: &Curve) -> String {
    let disturbed = |role| {
        let held = curve.points.iter().filter(|point| point.held).filter_map(|point| set.run(&point.run));
        held.filter(|run| run.role == role && !is_usable(run)).count()
    };
    let by = |role| match disturbed(role) {
        0 => None,
        1 => Some("by a run that the host disturbed".to_owned()),
        runs => Some(format!("by {runs} runs that the host disturbed")),
    };
    if curve.confirmed {
        let full = by(RunRole::ConfirmFull).map(|by| format!("100 %: {by}"));
        let notes: Vec<String> =
            full.into_iter().chain(by(RunRole::ConfirmEighty).map(|by| format!("80 %: {by}"))).collect();
        return if notes.is_empty() { "yes".to_owned() } else { format!("yes ({})", notes.join("; ")) };
    }
    let confirmed = confirmed_rate(set, curve).map(|rate| {
        let note = by(RunRole::ConfirmEighty).map(|by| format!(", {by}")).unwrap_or_default();
        format!("{}/s is{note}", units::count(rate))
    });
    let parts = doubts(set, curve).into_iter().chain(confirmed).collect::<Vec<_>>().join("; ");
    if parts.is_empty() { "no".to_owned() } else { format!("no: {parts}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{CurvePoint, example};

    /// Goal: a rate that was borne out by a run that the host disturbed says so, at the share at which it was; one that was not needed is
    /// not told. Method: the example's knee with repeats that are sound, disturbed, and failed.
    #[test]
    fn disturbed_repeats_are_told() {
        let mut set = example::result_set();
        set.curves.truncate(1);
        let add = |set: &mut ResultSet, role, rate, held, is_disturbed| {
            let mut run = example::run("ringmq", set.runs.len() as u32, role, rate, 50_000);
            if is_disturbed {
                run.validity.invalid.push("the hypervisor took 1.5 % of the CPU time".to_owned());
            }
            let reason = run.validity.invalid.join("; ");
            set.curves[0].points.push(CurvePoint { rate_per_s: rate, run: run.id.clone(), held, reason });
            set.runs.push(run);
            confirmation(set, &set.curves[0])
        };
        assert_eq!(add(&mut set, RunRole::ConfirmFull, 80_000.0, true, false), "yes");
        assert_eq!(add(&mut set, RunRole::ConfirmEighty, 64_000.0, false, true), "yes", "it was made up for");
        let told = add(&mut set, RunRole::ConfirmEighty, 64_000.0, true, true);
        assert_eq!(told, "yes (80 %: by a run that the host disturbed)");
        let told = add(&mut set, RunRole::ConfirmFull, 80_000.0, true, true);
        assert_eq!(told, "yes (100 %: by a run that the host disturbed; 80 %: by a run that the host disturbed)");
        set.curves[0].confirmed = false;
        let told = add(&mut set, RunRole::ConfirmEighty, 64_000.0, true, true);
        assert!(told.ends_with("; 64,000/s is, by 2 runs that the host disturbed"), "{told}");
    }
}
