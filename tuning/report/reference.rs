//! The catalogue's reference page, generated so that it cannot tell anything else than the program does.

use std::fmt::Write;

use super::text::{evidence_words, value_of};
use crate::catalogue::{Catalogue, Tunable};

/// The page, as Markdown.
pub fn reference(catalogue: &Catalogue) -> String {
    let mut page = String::from(
        "# Catalogue of tunables\n\n\
         Generated from `tuning/catalogue/*.toml` and `tuning/profiles/*.toml`; a test fails when it is stale \
         (`RINGMQ_TUNING_WRITE=1 cargo test -p ringmq-tuning --test trees generated` writes it anew).\n\n\
         Classes: *safe* is undone by writing the old value; *jitter* interrupts the network or the clock for a moment; \
         *reboot* needs one; *data-risk* is checked and never written. In the columns of the profiles, \"check\" and \
         \"report\" only look, and \"-\" leaves it alone. What no test has shown on real hardware is listed in \
         [README.md](README.md#proof-and-what-is-not-proven).\n\n",
    );
    for profile in catalogue.profiles() {
        let _ = writeln!(page, "- **{}**: {}", profile.name, profile.summary);
    }
    let mut group = "";
    for tunable in catalogue.tunables() {
        if tunable.group != group {
            group = tunable.group;
            let _ = writeln!(page, "\n## {}\n", title(group));
            let names: Vec<&str> = catalogue.profiles().iter().map(|profile| profile.name.as_str()).collect();
            let _ = writeln!(page, "| tunable | class | usual | {} |", names.join(" | "));
            let _ = writeln!(page, "|---|---|---|{}", "---|".repeat(names.len()));
            for other in catalogue.tunables().iter().filter(|other| other.group == group) {
                page += &row(catalogue, other);
            }
            for other in catalogue.tunables().iter().filter(|other| other.group == group) {
                page += &explanation(other);
            }
        }
    }
    page
}

fn title(group: &str) -> &str {
    match group {
        "memory" => "Memory",
        "network" => "Network stack",
        "nic" => "Network cards",
        "block" => "Disks and file systems",
        "process" => "Limits and control groups",
        "cpu" => "Processors, clocks and isolation",
        other => other,
    }
}

fn row(catalogue: &Catalogue, tunable: &Tunable) -> String {
    let value = |name: &str| value_of(catalogue, tunable, name).unwrap_or_else(|| "-".into());
    let values: Vec<String> = catalogue.profiles().iter().map(|profile| value(&profile.name)).collect();
    format!("| `{}` | {} | {} | {} |\n", tunable.id, tunable.class.name(), tunable.default, values.join(" | "))
}

fn explanation(tunable: &Tunable) -> String {
    let mut text = format!("\n**`{}`** {}", tunable.id, tunable.why);
    let _ = write!(text, " *Harmful when:* {}", tunable.harmful_when);
    let _ = write!(text, " *Evidence:* {}.", evidence_words(&tunable.evidence));
    if !tunable.path.is_empty() {
        let _ = write!(text, " `{}`", tunable.path);
    }
    if let Some(directive) = &tunable.directive {
        let _ = write!(text, " `{directive}`");
    }
    if let Some(parameter) = &tunable.parameter {
        let _ = write!(text, " `{parameter}`");
    }
    text + "\n"
}
