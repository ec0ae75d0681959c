//! The page: one HTML file without references to anything outside it.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{self, Chart};
use super::command;
use super::conditions;
use super::groups::{by_class, class_heading, groups};
use super::tables;
use crate::judge::slo_text;
use crate::result::{EnvironmentRecord, ResultSet, RunRecord, SetKind, SetStatus};
use crate::units;

const STYLE: &str = include_str!("page.css");

/// The page of a set.
pub fn page(set: &ResultSet, environment: &EnvironmentRecord, charts: &[Chart]) -> String {
    let heading = format!("ringmq-bench: {}", name(set.kind));
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (heading) }
                style { (PreEscaped(STYLE)) (PreEscaped(chart::STYLE)) }
            }
            body {
                h1 { (heading) }
                (summary(set))
                @if !set.goals.is_empty() { h2 { "Goals" } (goals(set)) }
                @if !set.distances.is_empty() { h2 { "The largest distances to the floor" } (tables::distances(set)) }
                h2 { "Figures" }
                p { "Response time counts from the moment an operation was meant to start, not from when it could. Classes of durability are never mixed in a table. " em { (conditions::SHAPE_TITLE) } " is the size of a message's body, the connections that send, and the most requests that each has under way; " em { (conditions::NOISE_TITLE) } " counts the runs in which a core was noisy, and those with a plan in which the generator's lag p99 was above 20 µs and a tenth of the median response." }
                p { (conditions::lengths_and_steps(set, &groups(set))) }
                @for heap in set.systems.iter().filter_map(conditions::heap) { p { (heap) } }
                (tables::classes(set))
                (tables::curves(set))
                (tables::versus(set))
                h2 { "Runs that do not count" }
                (tables::losing_runs(set))
                h2 { "Plots" }
                @for chart in charts { figure id=(chart.name) { div.wide { (chart.markup()) } } }
                h2 { "Generator" }
                (headroom(set))
                h2 { "Workloads" }
                (workloads(set, environment))
                h2 { "Systems" }
                (systems(set))
                h2 { "Repeat it" }
                p { "In the source tree, after " code { "cargo build --release -p ringmq -p ringmq-bench" } ":" }
                pre { (command::lines(&set.command, &set.tool.profile)) }
                p { "Program: ringmq-bench " (set.tool.version) ", " (set.tool.profile) " build. Files beside this page: " code { "result.json" } ", " code { "env.json" } ", " (logs(set)) " (HdrHistogram interval logs), with warm-up and drain in " code { ".phases.hlog" } " where they are kept, " code { "SHA256SUMS" } "." }
                h2 { "Runs" }
                (runs(set))
                h2 { "Environment" }
                (facts(set, environment))
            }
        }
    };
    markup.into_string() + "\n"
}

/// Which histogram logs are beside the page: a published copy keeps some.
fn logs(set: &ResultSet) -> Markup {
    let kept = set.runs.iter().filter(|run| !run.hlog.is_empty()).count();
    html! {
        @if kept == set.runs.len() { "one " code { ".hlog" } " per run" }
        @else { code { ".hlog" } " of " (kept) " of " (set.runs.len()) " runs" }
    }
}

fn name(kind: SetKind) -> &'static str {
    match kind {
        SetKind::Canonical => "canonical run",
        SetKind::Run => "run",
        SetKind::Sweep => "sweep",
        SetKind::Versus => "versus",
        SetKind::Publish => "published set",
    }
}

fn summary(set: &ResultSet) -> Markup {
    html! {
        p.lead { "Made " (set.created) ", " (set.runs.len()) " runs." @if let Some(slo) = &set.slo { " SLO: " (slo_text(slo)) "." } }
        @if let SetStatus::Partial { reason } = &set.status { p.warning { "This result is not complete: " (reason) } }
        @if set.tool.profile != "release" { p.warning { "Made with a " (set.tool.profile) " build of the harness: the figures are not worth showing." } }
        @if set.runs.iter().any(|run| run.validity.noisy) { p.warning { "During some runs a core was noisy: a thread there woke up later than the SLO allows, for the host's other work or for the broker's own." } }
    }
}

/// One list for all classes: each goal is a sentence of its own about one class, and no row is compared with another.
fn goals(set: &ResultSet) -> Markup {
    html! {
        div.wide { table {
            thead { tr { th { "goal" } th { "" } th { "rule" } th { "wanted" } th { "measured" } } }
            tbody { @for goal in &set.goals { tr {
                th scope="row" { (goal.id) }
                // First, where a narrow screen shows it.
                td.prose {
                    @if goal.is_met() { span.good { "reached" } } @else { span.bad { "missed" } }
                    @if !goal.failure.is_empty() { br; small { (goal.failure) } }
                }
                td.prose {
                    (goal.rule)
                    @if !goal.cause.is_empty() { br; small { "Known cause: " (goal.cause) } }
                }
                td { (tables::quantity(goal.wanted, &goal.unit)) }
                td { @match goal.measured { Some(measured) => (tables::quantity(measured, &goal.unit)), None => "–" } }
            } } }
        } }
    }
}

fn headroom(set: &ResultSet) -> Markup {
    html! {
        @if set.headroom.is_empty() { p { "Its limit was not measured in this set." } }
        @else { ul { @for line in &set.headroom { li {
            (line.workload) ": " (super::rates::headroom(line))
        } } } }
    }
}

fn workloads(set: &ResultSet, environment: &EnvironmentRecord) -> Markup {
    html! {
        @for workload in &set.workloads {
            h3 { (workload.name) }
            p { "Models: " (workload.models) }
            p { "Hides: " (workload.hides) }
            @for remark in conditions::backlog_remarks(set, environment, Some(&workload.name)) { p.warning { (remark) "." } }
            details { summary { "definition" } pre { (workload.definition) } }
        }
    }
}

fn systems(set: &ResultSet) -> Markup {
    html! {
        @for system in &set.systems {
            h3 { (system.title) }
            ul {
                li { "name in files: " code { (system.name) } }
                @if !system.runtime.is_empty() { li { (system.runtime) } }
                @if !system.profile.is_empty() { li { "tuning profile of the host: " (system.profile) } }
                @if !system.command.is_empty() { li { "started as " code { (system.command.join(" ")) } } }
                @for exit in system.exits.iter().filter(|exit| !exit.is_in_order) { li.bad { (exit.start) ": " (exit.status) } }
                @if !system.files.is_empty() { li { "files: " (system.files.join(", ")) } }
            }
            @if !system.configuration.is_empty() {
                details { summary { "configuration" } div.wide { table { tbody {
                    @for (key, value) in &system.configuration { tr { th scope="row" { (key) } td { (value) } } }
                } } } }
            }
        }
    }
}

fn runs(set: &ResultSet) -> Markup {
    html! {
        @for (class, runs) in &by_class(&set.runs, |run| run.durability) { details {
            summary { (class_heading(*class)) ": " (runs.len()) " runs in the order they were made" }
            div.wide { table {
                thead { tr { th { "run" } th { "started" } th { "arrivals" } th { "achieved/s" } th { "planned" } th { "errors" } th { "connections × depth" } th { "body" } th { "beside it" } th { "header" } th { "lag p99" } th { "generator busy" } th { "steal" } th { "phases" } } }
                tbody { @for run in runs { (run_row(run)) } }
            } }
        } }
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn run_row(run: &RunRecord) -> Markup {
    let first = run.primary();
    let phases: Vec<String> = run
        .phases
        .iter()
        .map(|phase| {
            let note = if phase.note.is_empty() { String::new() } else { format!(" ({})", phase.note) };
            format!("{} {}{note}", phase.name, units::nanoseconds(phase.duration_ns))
        })
        .collect();
    let kinds: Vec<String> = first
        .map(|operation| operation.error_kinds.as_slice())
        .unwrap_or_default()
        .iter()
        .map(|kind| format!("{}: {} ({})", kind.kind, kind.count, kind.example))
        .collect();
    html! { tr {
        th scope="row" { code { (run.id) } }
        td { (run.started) }
        td { (run.parameters.arrivals) ", seed " (run.parameters.seed) }
        td { (units::count(run.achieved_rate_per_s)) }
        td { (first.map_or(0, |operation| operation.planned)) }
        td { (first.map_or(0, |operation| operation.errors)) @if !kinds.is_empty() { br; small { (kinds.join("; ")) } } }
        td { (run.parameters.connections) " × " (run.parameters.depth) }
        td { (units::bytes(run.parameters.message_bytes as f64)) @if run.parameters.batch > 1 { " × " (run.parameters.batch) } }
        td { @let beside = conditions::beside(&run.parameters); @if beside.is_empty() { "–" } @else { (beside) } }
        td { (run.parameters.header) }
        td { (first.map_or_else(|| "–".to_owned(), |operation| units::nanoseconds(operation.lag.p99_ns))) }
        td { (units::percent(run.generator.busy_share)) }
        td { (run.steal_share.map_or_else(|| "–".to_owned(), units::percent)) }
        td { small { (phases.join(", ")) } }
    } }
}

fn facts(set: &ResultSet, environment: &EnvironmentRecord) -> Markup {
    let mut sections: Vec<&str> = environment.facts.iter().map(|fact| fact.section.as_str()).collect();
    sections.dedup();
    html! {
        p { "Captured " (environment.captured) ", host " code { (environment.host_hash) } ", SHA-256 of env.json " code { (set.environment_sha256) } "." }
        @for section in sections {
            details { summary { (section) }
                div.wide { table { tbody {
                    @for fact in environment.facts.iter().filter(|fact| fact.section == section) {
                        tr {
                            th scope="row" { (fact.name) }
                            td { @match &fact.value { Some(value) => (value), None => "unknown" } }
                            td { small { (fact.note) } }
                        }
                    }
                } } }
            }
        }
    }
}
