//! The tables of a report, one per durability class. Every figure is a median over repeats with its range.

use maud::{Markup, html};

use super::conditions::{NOISE_TITLE, SHAPE_TITLE, label, noise, shape_of};
use super::groups::{Figure, Group, by_class, class_heading, complaints, errors_text, groups, syscalls};
use super::plots::{class_name, title};
use crate::compare::{self, Comparison, Verdict};
use crate::judge::{KEPT_UP_SHARE, MOST_BUSY_SHARE, is_usable, slo_text};
use crate::result::{Curve, Distance, Durability, ResultSet, RunRecord, RunRole};
use crate::units;

fn duration_cell(figure: Option<Figure>) -> Markup {
    cell(figure, units::duration)
}

fn cell(figure: Option<Figure>, text: impl Fn(f64) -> String) -> Markup {
    html! {
        td {
            @match figure {
                Some(figure) => {
                    (text(figure.median))
                    @if figure.runs > 1 { br; small { (text(figure.low)) " – " (text(figure.high)) } }
                },
                None => { "–" },
            }
        }
    }
}

/// One table per class, the strongest promise last; floors that keep nothing come first.
pub fn classes(set: &ResultSet) -> Markup {
    let groups = groups(set);
    let mut classes: Vec<Option<Durability>> = groups.iter().map(|group| group.key.durability).collect();
    classes.dedup();
    html! {
        @for class in classes {
            @let rows: Vec<&Group<'_>> = groups.iter().filter(|group| group.key.durability == class).collect();
            @match class {
                Some(class) => { h3 { (class.name()) ": " (class.promise()) } },
                None => { h3 { "Floor: an echo that keeps nothing" } },
            }
            div.wide { table {
                caption { (class_name(class)) ": response times, median over repeats, smallest and largest below" }
                thead { tr {
                    th { "workload" } th { "system" } th { (SHAPE_TITLE) } th { "runs" } th { (NOISE_TITLE) } th { "target/s" } th { "messages/s" } th { "errors, all runs" } th { "p50" } th { "p99" }
                    th { "p99.9" } th { "p99.99" } th { "longest" } th { "p50 / echo" } th { "end to end p50" } th { "end to end p99" }
                    th { "core hiccups p99.9, longest" } th { "generator's schedule error p99" }
                } }
                tbody { @for group in &rows { (latency_row(set, &groups, group)) } }
            } }
            @if class.is_some() { div.wide { table {
                caption { (class_name(class)) ": what it cost the broker, and the host" }
                thead { tr {
                    th { "workload" } th { "system" } th { "target/s" } th { "CPU per message" } th { "system calls per message" }
                    th { "switches per message" } th { "disk bytes per body byte" } th { "syncs/s" } th { "resident" } th { "generator busy" } th { "remarks" }
                } }
                tbody { @for group in &rows { (cost_row(set, group)) } }
            } } }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds are below 2^53")]
fn latency_row(set: &ResultSet, all: &[Group<'_>], group: &Group<'_>) -> Markup {
    let usable = group.usable().count();
    let p50 = group.of_operation(|operation| operation.response.p50_ns);
    let echo = all
        .iter()
        .find(|floor| {
            floor.key.system == "null"
                && floor.key.workload == group.key.workload
                && floor.key.rate_milli == group.key.rate_milli
                && floor.runs.iter().all(|run| run.role == RunRole::Floor)
        })
        .filter(|floor| floor.key != group.key)
        .and_then(|floor| floor.of_operation(|operation| operation.response.p50_ns));
    let against_echo = p50.zip(echo).map(|(ours, floor)| units::ratio(ours.median / floor.median));
    html! {
        tr {
            th scope="row" { (label(group)) }
            td { (title(set, &group.key.system)) }
            td { (shape_of(group)) }
            td { @if usable < group.runs.len() { (group.counting_text()) } @else { (usable) } }
            td { (noise(group)) }
            (target_cell(group))
            (cell(group.figure(|run| Some(run.messages_per_s)), units::count))
            @let errors = errors_text(&group.runs);
            td class=(if errors == "0" { "" } else { "bad" }) { (errors) }
            (duration_cell(p50))
            (duration_cell(group.of_operation(|operation| operation.response.p99_ns)))
            (duration_cell(group.of_operation(|operation| operation.response.p999_ns)))
            (duration_cell(group.of_operation(|operation| operation.response.p9999_ns)))
            (duration_cell(group.of_operation(|operation| operation.response.max_ns)))
            td { (against_echo.unwrap_or_else(|| "–".to_owned())) }
            (duration_cell(group.figure(|run| run.end_to_end.as_ref().map(|end| end.distribution.p50_ns as f64))))
            (duration_cell(group.figure(|run| run.end_to_end.as_ref().map(|end| end.distribution.p99_ns as f64))))
            (hiccup_cell(group))
            (duration_cell(group.figure(|run| Some(run.generator.own_lag.p99_ns as f64).filter(|_| group.key.rate_milli.is_some()))))
        }
    }
}

/// The worst core of the worst run: noise that any figure of the row may contain.
fn hiccup_cell(group: &Group<'_>) -> Markup {
    let all = || group.runs.iter().flat_map(|run| &run.hiccups);
    let p999 = all().map(|hiccup| hiccup.distribution.p999_ns).max();
    let longest = all().map(|hiccup| hiccup.distribution.max_ns).max();
    html! { td { @match p999.zip(longest) {
        Some((p999, longest)) => { (units::nanoseconds(p999)) ", " (units::nanoseconds(longest)) },
        None => "–",
    } } }
}

#[expect(clippy::cast_precision_loss, reason = "rates are below 2^53")]
fn target_cell(group: &Group<'_>) -> Markup {
    html! { td { @match group.key.rate_milli { Some(rate) => (units::count(rate as f64 / 1000.0)), None => "closed loop" } } }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds and bytes are below 2^53")]
fn cost_row(set: &ResultSet, group: &Group<'_>) -> Markup {
    let switches = group.figure(|run| {
        Some(run.cost.voluntary_switches_per_message? + run.cost.involuntary_switches_per_message.unwrap_or(0.0))
    });
    html! {
        tr {
            th scope="row" { (label(group)) }
            td { (title(set, &group.key.system)) }
            (target_cell(group))
            (duration_cell(group.figure(|run| run.cost.cpu_ns_per_message)))
            @match syscalls(set, &group.key, &group.runs) {
                Ok(figure) => (cell(Some(figure), units::significant)),
                Err(reason) => { td.prose { "–" br; small { (reason) } } },
            }
            (cell(switches, units::significant))
            (cell(group.figure(|run| run.cost.write_amplification), units::significant))
            (cell(group.figure(|run| run.cost.syncs_per_s), units::count))
            (cell(group.figure(|run| run.cost.resident_bytes.map(|bytes| bytes as f64)), units::bytes))
            (cell(group.figure(|run| Some(run.generator.busy_share)), units::percent))
            td { (remarks(group)) }
        }
    }
}

fn remarks(group: &Group<'_>) -> Markup {
    let noisy = group.usable().filter(|run| run.validity.noisy).count();
    html! {
        @if noisy > 0 { span.flag { "noisy host in " (noisy) " of " (group.usable().count()) " runs" } " " }
        @if group.usable().any(|run| run.generator.shares_cores) { span.flag { "generator shares cores with the broker" } }
    }
}

/// Runs that are in no figure, and why; and warnings about those that are.
pub fn losing_runs(set: &ResultSet) -> Markup {
    let bad: Vec<_> = set.runs.iter().filter(|run| !is_usable(run)).collect();
    let warned: Vec<_> = set.runs.iter().filter(|run| is_usable(run) && !run.validity.warnings.is_empty()).collect();
    html! {
        @if bad.is_empty() { p { "Every run is valid and complete." } }
        @else {
            p { "These runs are in no table above. They are kept: " (bad.len()) " of " (set.runs.len()) "." }
            ul { @for run in bad { li { code { (run.id) } ": " (complaints(run).join("; ")) (figures_of(run)) } } }
        }
        @if !warned.is_empty() {
            p { "Remarks on valid runs:" }
            ul { @for run in warned { li { code { (run.id) } ": " (run.validity.warnings.join("; ")) } } }
        }
    }
}

/// What a run that does not count showed: left out of the medians, it must not be hidden.
fn figures_of(run: &RunRecord) -> String {
    let Some(operation) = run.primary().filter(|operation| operation.acknowledged > 0) else { return String::new() };
    let response = &operation.response;
    format!(
        " (it showed {}/s, p50 {}, p99 {}, p99.9 {}, errors {})",
        units::count(run.achieved_rate_per_s),
        units::nanoseconds(response.p50_ns),
        units::nanoseconds(response.p99_ns),
        units::nanoseconds(response.p999_ns),
        errors_text(&[run])
    )
}

/// Distances to the floors, one table per class.
pub fn distances(set: &ResultSet) -> Markup {
    let classes = by_class(&set.distances, |distance| distance.class());
    html! {
        @for (class, distances) in &classes { div.wide { table {
            caption { (class_heading(*class)) ": one row per load, its worst figure of p50 and p99, of a closed loop with several requests under way its rate; the largest first" }
            thead { tr { th { "load, class, figure" } th { "goal" } th { "wanted" } th { "measured" } th { "floor" } th { "distance" } th { "known cause" } } }
            tbody { @for distance in distances { tr {
                th.prose scope="row" { (distance.row) }
                td { (if distance.goal.is_empty() { "–" } else { distance.goal.as_str() }) }
                td { (distance.wanted.map_or_else(|| "–".to_owned(), |wanted| quantity(wanted, &distance.unit))) }
                td { (quantity(distance.measured, &distance.unit)) }
                td { (quantity(distance.floor, &distance.unit)) br; small { (distance.floor_is) } }
                td { (units::ratio(distance.ratio)) }
                td.prose.cause { (cause(distance)) }
            } } }
        } } }
    }
}

/// A number of a distance.
pub fn quantity(value: f64, unit: &str) -> String {
    let number = if unit == "/s" { units::count(value) } else { units::significant(value) };
    if unit == "/s" { number + unit } else { format!("{number} {unit}") }
}

/// What is known of a distance.
pub fn cause(distance: &Distance) -> &str {
    if distance.cause.is_empty() { "not yet explained" } else { &distance.cause }
}

/// Curves in figures, one table per class.
pub fn curves(set: &ResultSet) -> Markup {
    html! {
        @if !set.curves.is_empty() {
            h3 { "Highest rates" }
            @for (class, curves) in &by_class(&set.curves, |curve| curve.durability) { div.wide { table {
                caption { (class_heading(*class)) }
                thead { tr { th { "workload" } th { "system" } th { "highest rate that held" } th { "confirmed" } th { "generator there" } th { "SLO" } th { "why not more" } } }
                tbody { @for curve in curves {
                    @let reason = why_not_more(curve);
                    tr {
                        th scope="row" { (curve.workload) }
                        td { (title(set, &curve.system)) }
                        td { (curve.knee_rate_per_s.map_or_else(|| "none".to_owned(), |rate| units::count(rate) + "/s")) }
                        td.prose { (super::rates::confirmation(set, curve)) }
                        td.prose { (busy_at_knee(set, curve)) }
                        td.prose { (slo_text(&curve.slo)) }
                        td.prose { (reason) }
                    }
                } }
            } } }
        }
    }
}

/// What the lowest rate that failed above the knee failed by: below it a rate may have failed once and held when it was made again.
fn why_not_more(curve: &Curve) -> &str {
    let knee = curve.knee_rate_per_s.unwrap_or(0.0);
    let above = curve.points.iter().filter(|point| !point.held && point.rate_per_s > knee * (1.0 + 1e-6));
    above.min_by(|left, right| left.rate_per_s.total_cmp(&right.rate_per_s)).map_or("", |point| point.reason.as_str())
}

/// A generator without a quarter of its core to spare may be what ended the curve.
fn busy_at_knee(set: &ResultSet, curve: &Curve) -> Markup {
    let is_spent = match set.kept_up_above(curve, MOST_BUSY_SHARE) {
        Some((_, reached)) => reached < KEPT_UP_SHARE,
        None => {
            let share = set.used_share_at_knee(curve).or(set.busy_share_at_knee(curve));
            share.is_some_and(|share| share > MOST_BUSY_SHARE)
        }
    };
    html! {
        (share_at_knee(set, curve)) "; with a quarter of its core free held " (unhurried(set, curve))
        @if is_spent { " " span.flag { "its limit, perhaps not the broker's" } }
    }
}

/// How much of the generator the knee of a curve took.
pub fn share_at_knee(set: &ResultSet, curve: &Curve) -> String {
    let Some(busy) = set.busy_share_at_knee(curve) else { return "–".to_owned() };
    let used = set.used_share_at_knee(curve).map(|used| format!(", at {} of its limit", units::percent(used)));
    let alone = set.kept_up_above(curve, MOST_BUSY_SHARE).map(|(rate, reached)| {
        let rate = units::count(rate);
        if reached >= KEPT_UP_SHARE {
            format!(", alone it keeps up with {rate}/s")
        } else {
            format!(", alone it does {} of {rate}/s", units::percent(reached))
        }
    });
    format!("{} busy{}{}", units::percent(busy), used.unwrap_or_default(), alone.unwrap_or_default())
}

/// The highest rate that held while the generator had a quarter of its core to spare, by the time in which it had work: there is more,
/// see [`ResultSet::kept_up_above`].
pub fn unhurried(set: &ResultSet, curve: &Curve) -> String {
    let rate = set.rate_with_busy_share(curve, MOST_BUSY_SHARE);
    rate.map_or_else(|| "none".to_owned(), |rate| format!("{}/s", units::count(rate)))
}

/// Systems against each other inside one set: the first that is no floor against the others.
pub fn versus(set: &ResultSet) -> Markup {
    let comparisons = compare::inside(set);
    html! {
        @for Comparison { baseline, candidate, rows, skipped, failures, violations, errors, .. } in &comparisons {
            h3 { (title(set, candidate)) " against " (title(set, baseline)) }
            @for failure in failures { p.warning { "Failed: " (failure) } }
            @for violation in violations { p.warning { "Integrity: " (violation) } }
            @for error in errors { p { "Errors: " (error) } }
            @if rows.is_empty() { p { "Not compared: " (skipped.join("; ")) } }
            @for (class, rows) in &by_class(rows, |row| row.durability) { div.wide { table {
                @let fewest = rows.iter().map(|row| row.baseline_runs.min(row.candidate_runs)).min().unwrap_or(0);
                caption { (class_heading(*class)) ". Ratio of medians with its bootstrap interval, which is made for 95 % and holds the true ratio in " (compare::hold(fewest)) " of cases with so few runs; below 1 is better for times and costs, above 1 for rates" }
                thead { tr { th { "workload" } th { "rate/s" } th { "figure" } th { (title(set, baseline)) } th { (title(set, candidate)) } th { "ratio" } th { "interval" } th { "runs" } } }
                tbody { @for row in rows {
                    tr {
                        th scope="row" { (row.workload) }
                        td { (row.rate_text()) }
                        td { (row.metric.title()) }
                        td { (row.metric.text(row.baseline)) }
                        td { (row.metric.text(row.candidate)) }
                        td { (units::ratio(row.ratio)) }
                        td class=(match row.verdict { Verdict::Better => "good", Verdict::Worse | Verdict::Regression => "bad", Verdict::Undecided => "" }) {
                            (units::significant(row.low)) " – " (units::significant(row.high))
                        }
                        td { (row.baseline_runs) " / " (row.candidate_runs) }
                    }
                } }
            } } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{CurvePoint, example};

    /// Goal: the figures of runs that do not count are on the page, errors too. Method: the example's run that lost messages, with errors.
    #[test]
    fn losing_runs_show_their_figures() {
        let mut set = example::result_set();
        let lossy = set.runs.iter_mut().find(|run| run.integrity.is_violated()).unwrap();
        lossy.operations[0].errors = 5;
        let (id, p99) = (lossy.id.clone(), units::nanoseconds(lossy.operations[0].response.p99_ns));
        let page = losing_runs(&set).into_string();
        let item = page.split("<li>").find(|item| item.contains(&id)).unwrap();
        assert!(item.contains(&format!("p99 {p99}")) && item.contains("errors 5 of 20,000"), "{item}");
    }

    /// Goal: why a system does no more than its knee is never told from a rate that it held, nor from its repeats. Method: a curve whose
    /// lower rate failed once before it held, whose repeat at the knee failed, and with two rates above.
    #[test]
    fn reasons_are_above_the_knee() {
        let mut curve = example::result_set().curves.remove(0);
        let point = |rate_per_s, held, reason: &str| CurvePoint {
            rate_per_s,
            run: "x".to_owned(),
            held,
            reason: reason.to_owned(),
        };
        curve.knee_rate_per_s = Some(100.0);
        curve.points = vec![
            point(90.0, false, "once"),
            point(90.0, true, ""),
            point(100.0, true, ""),
            point(100.0, false, "repeat"),
            point(120.0, false, "far above"),
            point(110.0, false, "above"),
        ];
        assert_eq!(why_not_more(&curve), "above");
        curve.points.truncate(4);
        assert_eq!(why_not_more(&curve), "");
        curve.knee_rate_per_s = None;
        curve.points = vec![point(50.0, false, "lower"), point(90.0, false, "higher")];
        assert_eq!(why_not_more(&curve), "lower");
    }
}
