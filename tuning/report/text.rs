//! Tables for people.

use std::fmt::Write;

use anstyle::{AnsiColor, Style as Ansi};

use super::{groups, totals};
use crate::catalogue::{Catalogue, Evidence, Severity, Tunable};
use crate::executor::{Outcome, Step};
use crate::placement::Placement;
use crate::plan::{Plan, State};
use crate::probe::format_list;

/// Columns that a report may have.
const COLUMNS: usize = 100;

/// How a report looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether colours help; they do on a terminal.
    pub colour: bool,
}

impl Style {
    fn paint(self, text: &str, ansi: Ansi) -> String {
        if self.colour { format!("{ansi}{text}{ansi:#}") } else { text.into() }
    }

    fn state(self, text: &str, state: State, fatal: bool) -> String {
        let colour = match state {
            _ if fatal => AnsiColor::Red,
            State::Ok => AnsiColor::Green,
            State::Drift => AnsiColor::Yellow,
            State::Advice => AnsiColor::Cyan,
            State::Unsupported => AnsiColor::BrightBlack,
        };
        self.paint(text, colour.on_default())
    }

    fn bold(self, text: &str) -> String {
        self.paint(text, Ansi::new().bold())
    }
}

/// Cuts to a number of characters, with a mark where something is missing.
fn cut(text: &str, columns: usize) -> String {
    let text = text.replace('\t', " ");
    if text.chars().count() <= columns {
        return text;
    }
    text.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
}

/// Breaks at blanks into lines of at most so many columns.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let word = cut(word, columns);
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > columns {
            lines.push(word);
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&word);
        }
    }
    lines
}

/// A sentence for a person in lines of at most 100 columns, the first of which begins after so many.
pub fn wrapped(text: &str, indent: usize) -> String {
    let lines: Vec<String> = text.lines().flat_map(|line| wrap(line, COLUMNS - indent)).collect();
    lines.join(&format!("\n{}", " ".repeat(indent)))
}

fn indented(text: &str, indent: usize) -> String {
    let blank = " ".repeat(indent);
    wrap(text, COLUMNS - indent).iter().map(|line| format!("{blank}{line}\n")).collect()
}

fn head(plan: &Plan, style: Style) -> String {
    let mut text = indented(&format!("Profile {}. Host: {}.", plan.profile, plan.host), 0);
    text = style.bold(text.trim_end()) + "\n\n";
    text
}

/// The table of `check`: what means something here line by line, then the rest by its reasons.
pub fn check_text(plan: &Plan, style: Style) -> String {
    let mut text = head(plan, style);
    let title = format!("{:<34}  {:<15}  {:<15}  {:<5}  {:<6}  NOTE", "TUNABLE", "WANT", "HAVE", "SEV", "STATE");
    text += &style.bold(&title);
    text.push('\n');
    let mut unsupported: Vec<(&str, Vec<String>)> = Vec::new();
    for group in groups(&plan.lines) {
        let line = group.first;
        if line.state == State::Unsupported {
            match unsupported.iter_mut().find(|(reason, _)| *reason == line.note) {
                Some((_, names)) => names.push(group.name()),
                None => unsupported.push((line.note.as_str(), vec![group.name()])),
            }
            continue;
        }
        let have = if line.have.is_empty() { "n/a" } else { line.have.as_str() };
        let row = format!(
            "{:<34}  {:<15}  {:<15}  {:<5}  ",
            cut(&group.name(), 34),
            cut(&line.want, 15),
            cut(have, 15),
            line.severity.name()
        );
        let state = style.state(&format!("{:<6}", line.state.name()), line.state, line.is_fatal());
        let mut notes: Vec<&str> = Vec::new();
        if line.unproven {
            notes.push("unproven");
        }
        if !line.note.is_empty() {
            notes.push(&line.note);
        }
        let note = notes.join("; ");
        // 83 columns stand before the note.
        if note.chars().count() <= COLUMNS - 85 {
            text += format!("{row}{state}  {note}").trim_end();
            text.push('\n');
        } else {
            text += &format!("{row}{state}\n");
            text += &indented(&note, 4);
        }
    }
    if !unsupported.is_empty() {
        let _ = write!(text, "\n{}\n", style.bold("NOT ON THIS HOST"));
    }
    for (reason, names) in unsupported {
        text += &indented(reason, 2);
        text += &style.paint(&indented(&names.join(", "), 6), AnsiColor::BrightBlack.on_default());
    }
    let _ = write!(text, "\n{}\n", totals(plan));
    text
}

/// The list of `plan` and of `apply --dry-run`.
pub fn plan_text(plan: &Plan, style: Style) -> String {
    let mut text = head(plan, style);
    let mut count = plan.left_behind.len();
    for undo in &plan.left_behind {
        let first = format!("{} -> {}", undo.target.name(), undo.value.replace('\t', " "));
        text += &format!("{}\n", style.bold(&cut(&first, COLUMNS)));
        text +=
            &indented("Set by the profile before, and nothing that this one says anything of: brought back first.", 4);
    }
    for line in &plan.lines {
        let Some(change) = &line.change else { continue };
        count += 1;
        let proof = if line.unproven { "  (unproven)" } else { "" };
        let arrow = format!("{} -> {}", change.old.replace('\t', " "), change.new);
        let name = cut(&change.name, 60);
        // Twelve columns for the word about proof.
        let room = COLUMNS - 14 - name.chars().count().max(34);
        let first = format!("{name:<34}  {}", cut(&arrow, room));
        text += &format!("{}{proof}\n", style.bold(&first));
        text += &indented(&line.why, 4);
        let undo = format!("undo: {} = {}", change.undo.target.name(), change.undo.value);
        text += &indented(&undo, 4);
    }
    let _ = match count {
        0 => writeln!(text, "nothing to change"),
        1 => writeln!(text, "\n1 change"),
        _ => writeln!(text, "\n{count} changes"),
    };
    if plan.postponed_count() > 0 {
        let more = "What depends on the number of queues is decided when that is written: apply does it in the same run; after a \
                    script, plan again.";
        text += &indented(more, 0);
    }
    text
}

/// What became of the steps of `apply` or `revert`.
pub fn steps_text(steps: &[Step], style: Style) -> String {
    let mut text = String::new();
    for step in steps {
        let (word, colour, more) = match &step.outcome {
            Outcome::Done => ("ok", AnsiColor::Green, String::new()),
            Outcome::AlreadyBack => ("as before", AnsiColor::Green, String::new()),
            Outcome::Gone => ("gone", AnsiColor::Green, "there is no such device any more".into()),
            Outcome::Clamped(value) => ("drift", AnsiColor::Yellow, format!("the kernel made it {value}")),
            Outcome::Ignored => ("drift", AnsiColor::Yellow, "the kernel ignored it".into()),
            Outcome::Failed(error) => ("failed", AnsiColor::Red, error.clone()),
            Outcome::Conflict(value) => {
                ("conflict", AnsiColor::Red, format!("somebody changed it to {value}; --force overwrites"))
            }
        };
        let word = style.paint(&format!("{word:<9}"), colour.on_default());
        let arrow = format!("{} -> {}", step.from, step.to);
        let _ = writeln!(text, "{word}  {:<34}  {}", cut(&step.name, 45), cut(&arrow, 42));
        if !more.is_empty() {
            text += &indented(&more, 11);
        }
    }
    let good = steps.iter().filter(|step| step.is_good()).count();
    let _ = match steps.len() {
        0 => writeln!(text, "nothing to do"),
        all => writeln!(text, "\n{good} of {all} as wanted"),
    };
    text
}

/// The table of `list`.
pub fn list_text(catalogue: &Catalogue, style: Style) -> String {
    let names: Vec<&str> = catalogue.profiles().iter().map(|profile| profile.name.as_str()).collect();
    let mut title = format!("{:<34}  {:<9}  {:<8}", "TUNABLE", "CLASS", "PROOF");
    for name in &names {
        let _ = write!(title, "  {:<13}", name.to_uppercase());
    }
    let mut text = style.bold(title.trim_end()) + "\n";
    for tunable in catalogue.tunables() {
        let proof = match &tunable.evidence {
            Evidence::Measured { .. } => "proven",
            Evidence::Unproven | Evidence::NoGain { .. } => "unproven",
            Evidence::NothingToProve => "-",
        };
        let mut row = format!("{:<34}  {:<9}  {proof:<8}", tunable.id, tunable.class.name());
        for name in &names {
            let value = value_of(catalogue, tunable, name).unwrap_or_else(|| "-".into());
            let _ = write!(row, "  {:<13}", cut(&value, 13));
        }
        text += row.trim_end();
        text.push('\n');
    }
    let _ = writeln!(text, "\n{} tunables; `ringmq tune explain ID` says more", catalogue.tunables().len());
    text
}

/// The value of an entry in a profile, inherited ones included.
pub(super) fn value_of(catalogue: &Catalogue, tunable: &Tunable, profile: &str) -> Option<String> {
    let profile = catalogue.profile(profile).ok()?;
    let chosen = catalogue.chosen(profile);
    chosen.iter().find(|(found, _)| found.id == tunable.id).map(|(_, rule)| rule.words())
}

/// What is known of the use of an entry, in one sentence.
pub(super) fn evidence_words(evidence: &Evidence) -> String {
    match evidence {
        Evidence::Unproven => "unproven: nobody has measured it with this broker".into(),
        Evidence::Measured { file, result } => format!("proven: {result} (evidence/{file})"),
        Evidence::NoGain { file, result } => format!("unproven: {result} (evidence/{file})"),
        Evidence::NothingToProve => "nothing to prove: no profile changes it".into(),
    }
}

/// The answer of `explain`.
pub fn explain_text(catalogue: &Catalogue, tunable: &Tunable, style: Style) -> String {
    let mut text = style.bold(&tunable.id) + "\n";
    text += &indented(&tunable.why, 2);
    text.push('\n');
    let mut row = |name: &str, value: &str| {
        let lines = wrap(value, COLUMNS - 18);
        for (index, line) in lines.iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            let _ = writeln!(text, "  {name:<14}  {line}");
        }
    };
    row("harmful when", &tunable.harmful_when);
    row("usual value", &tunable.default);
    let place = match (&tunable.setting, &tunable.parameter, &tunable.directive) {
        (Some(setting), _, _) => format!("ethtool, {}", setting.name()),
        (_, Some(parameter), _) => format!("kernel command line, {parameter}"),
        (_, _, Some(directive)) => format!("unit of the broker, {directive}"),
        _ if tunable.path.is_empty() => "not a file".into(),
        _ => tunable.path.clone(),
    };
    row("where", &place);
    let severity = match tunable.severity {
        Severity::Fatal => "; the broker cannot do without",
        Severity::Warn | Severity::Info => "",
    };
    row("class", &format!("{}{severity}", tunable.class.name()));
    row("evidence", &evidence_words(&tunable.evidence));
    for profile in catalogue.profiles() {
        let value = value_of(catalogue, tunable, &profile.name);
        row(&profile.name, value.as_deref().unwrap_or("left alone"));
    }
    text
}

/// The decision of `cpus`.
pub fn placement_text(placement: &Placement, style: Style) -> String {
    let mut text = format!(
        "{} {}\n{} {}\n",
        style.bold("interrupts"),
        format_list(&placement.interrupts),
        style.bold("shards    "),
        format_list(&placement.shards)
    );
    for reason in &placement.reasons {
        text += &indented(reason, 2);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_wrapped() {
        // Goal: an error with all names in it can be read. Method: a long one behind a mark, and a short one of two lines.
        let names = vec!["net.core.somaxconn"; 115].join(", ");
        let text = format!("ringmq: {}", wrapped(&format!("unknown; valid are: {names}"), 8));
        assert!(text.lines().count() > 20 && text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("        net.")), "{text}");
        assert_eq!(wrapped("one\ntwo", 2), "one\n  two");
    }
}
