//! Under which conditions the rows of a set were measured: lengths, repeats, searches, sizes of loads, memory that is taken beforehand.
//! Pure; everything is read from the set and its environment.

use super::groups::{Figure, Group};
use crate::judge::breaks_strict_lag;
use crate::result::{EnvironmentRecord, LoopKind, ResultSet, RunParameters, RunRecord, RunRole, SystemRecord};
use crate::units;

/// Column of [`shape`].
pub const SHAPE_TITLE: &str = "body × connections × depth";
/// Column of [`noise`].
pub const NOISE_TITLE: &str = "noisy; late";

#[expect(clippy::cast_precision_loss, reason = "sizes are below 2^53")]
fn body(bytes: u64) -> String {
    let is_whole = bytes >= 1024 && bytes.is_multiple_of(1024);
    if is_whole && bytes < 1 << 20 { format!("{} KiB", bytes / 1024) } else { units::bytes(bytes as f64) }
}

/// Body bytes, connections and the most requests that each has under way; a batch says how many messages a request has.
pub fn shape(parameters: &RunParameters) -> String {
    let batch = if parameters.batch > 1 { format!("{} of ", parameters.batch) } else { String::new() };
    format!("{batch}{} × {} × {}", body(parameters.message_bytes), parameters.connections, parameters.depth)
}

/// [`shape`] of a row.
pub fn shape_of(group: &Group<'_>) -> String {
    distinct(group, |run| Some(shape(&run.parameters)))
}

/// What waits or idles beside the load, and the factor if it is another size than the definition says; empty: nothing does.
#[expect(clippy::cast_precision_loss, reason = "sizes are below 2^53")]
pub fn beside(parameters: &RunParameters) -> String {
    let backlog = parameters.preload_bytes as f64;
    let mut parts = Vec::new();
    if is_scaled(parameters) {
        parts.push(format!("scale {}", parameters.scale));
    }
    if parameters.preload_bytes > 0 {
        parts.push(format!("backlog of {}", units::decimal_bytes(backlog)));
    }
    if parameters.idle_connections > 0 {
        parts.push(format!("{} idle connections", units::count(f64::from(parameters.idle_connections))));
    }
    parts.join(", ")
}

fn is_scaled(parameters: &RunParameters) -> bool {
    (parameters.scale - 1.0).abs() > 1e-9
}

/// The workload of a row, with the real sizes where they are not those of its definition.
pub fn label(group: &Group<'_>) -> String {
    let sizes = distinct(group, |run| Some(beside(&run.parameters)).filter(|_| is_scaled(&run.parameters)));
    if sizes.is_empty() { group.key.workload.clone() } else { format!("{} ({sizes})", group.key.workload) }
}

fn distinct(group: &Group<'_>, text: impl Fn(&RunRecord) -> Option<String>) -> String {
    let mut texts: Vec<String> = group.runs.iter().filter_map(|run| text(run)).collect();
    texts.sort();
    texts.dedup();
    texts.join(" or ")
}

/// In how many of a row's runs a core was noisy, and in how many of those with a plan the generator was late by the rule for hardware
/// of its own: of those that count.
pub fn noise(group: &Group<'_>) -> String {
    let runs: Vec<&RunRecord> = group.usable().collect();
    if runs.is_empty() {
        return "–".to_owned();
    }
    let count = |is: &dyn Fn(&RunRecord) -> bool| runs.iter().filter(|run| is(run)).count();
    let late = match count(&|run| run.parameters.loop_kind == LoopKind::Open) {
        0 => "–".to_owned(),
        _ => count(&breaks_strict_lag).to_string(),
    };
    let shares = count(&|run| run.generator.shares_cores);
    let shared = if shares > 0 { format!("; {shares} on a shared core") } else { String::new() };
    format!("{}; {late}{shared}", count(&|run| run.validity.noisy))
}

/// Memory of the machine, as the environment has it.
fn memory_bytes(environment: &EnvironmentRecord) -> Option<u64> {
    let fact = environment.facts.iter().find(|fact| fact.section == "memory" && fact.name == "MemTotal")?;
    fact.value.as_deref()?.strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// What is to be known of the backlogs of `workload`, or of all: how large they were, and that they fit into memory. Empty if there
/// are none that need it.
#[expect(clippy::cast_precision_loss, reason = "sizes are below 2^53")]
pub fn backlog_remarks(set: &ResultSet, environment: &EnvironmentRecord, workload: Option<&str>) -> Vec<String> {
    let runs = set.runs.iter().filter(|run| workload.is_none_or(|workload| run.workload == workload));
    let mut remarks = Vec::new();
    for run in runs {
        let parameters = &run.parameters;
        let beside = beside(parameters);
        if is_scaled(parameters) {
            remarks.push(format!("{}: {beside} instead of what its definition says", run.workload));
        }
        let memory = memory_bytes(environment).filter(|memory| (1..*memory).contains(&parameters.preload_bytes));
        if let Some(memory) = memory {
            remarks.push(format!(
                "{}: a backlog of {} is smaller than the machine's memory ({}), so it can be read from the page cache: its figures \
                 do not show what reading from a disk costs",
                run.workload,
                units::decimal_bytes(parameters.preload_bytes as f64),
                units::decimal_bytes(memory as f64)
            ));
        }
    }
    remarks.sort();
    remarks.dedup();
    remarks
}

/// `2.40 s`, or `2.40 to 6.00 s`.
fn seconds(values: impl IntoIterator<Item = f64>) -> Option<String> {
    let figure = Figure::of(values)?;
    let (low, high) = (units::significant(figure.low), units::significant(figure.high));
    Some(if low == high { format!("{low} s") } else { format!("{low} to {high} s") })
}

fn lengths<'a>(runs: impl Iterator<Item = &'a RunRecord> + Clone) -> Option<String> {
    let measured = seconds(runs.clone().map(|run| run.parameters.measure_s))?;
    let phases = runs.flat_map(|run| &run.phases).filter(|phase| phase.name == "warm-up");
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds are below 2^53")]
    // Those that wait for a disk end a few milliseconds late.
    let warm_up = Figure::of(phases.map(|phase| phase.duration_ns as f64 / 1e9))
        .map(|figure| units::significant(figure.median) + " s");
    Some(warm_up.map_or_else(|| measured.clone(), |warm_up| format!("{measured} after {warm_up} of warm-up")))
}

/// Lengths and repeats of the rows, and the rules of the searches, in sentences.
pub fn lengths_and_steps(set: &ResultSet, groups: &[Group<'_>]) -> String {
    let of = |roles: &'static [RunRole]| set.runs.iter().filter(move |run| roles.contains(&run.role));
    let mut sentences = Vec::new();
    if let Some(lengths) = lengths(of(&[RunRole::Measured])) {
        let rows = groups.iter().filter(|group| group.runs.iter().any(|run| run.role == RunRole::Measured));
        let mut rounds: Vec<u32> = rows.filter_map(|group| group.runs.iter().map(|run| run.round).max()).collect();
        rounds.sort_unstable();
        rounds.dedup();
        let rounds: Vec<String> = rounds.iter().rev().map(u32::to_string).collect();
        let floors = self::lengths(of(&[RunRole::Floor])).map(|lengths| format!(", floors {lengths}"));
        sentences.push(format!(
            "Runs are {lengths}{}; a row has {} of them, and one more for each that the host spoiled, as its last column says.",
            floors.unwrap_or_default(),
            rounds.join(" or ")
        ));
    }
    if let Some(lengths) = lengths(of(&[RunRole::SweepStep])) {
        let gaps = set.curves.iter().filter_map(|curve| {
            let knee = curve.knee_rate_per_s?;
            let failed = curve.points.iter().filter(|point| !point.held && point.rate_per_s > knee * (1.0 + 1e-6));
            failed.map(|point| point.rate_per_s / knee - 1.0).min_by(f64::total_cmp)
        });
        let gap = Figure::of(gaps).map(|figure| {
            format!(
                ", bisected until the lowest rate above that failed was {} higher at most",
                units::percent(figure.high)
            )
        });
        sentences.push(format!(
            "Steps of a search for a highest rate are {lengths}{}; then the highest rate that held and 80 % of it are run again, and where those 80 % do not hold, 64, 51 and 41 % until one does.",
            gap.unwrap_or_default(),
        ));
    }
    sentences.join(" ")
}

/// The heap of a system that runs on a virtual machine, from its command line; `None`: there is none.
pub fn heap(system: &SystemRecord) -> Option<String> {
    let flag = |start: &str| system.command.iter().find_map(|word| word.strip_prefix(start));
    let size = flag("-Xms")?;
    let (number, unit) = size.split_at_checked(size.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    let mib = match unit {
        "k" | "K" => number / 1024,
        "m" | "M" => number,
        "g" | "G" => number * 1024,
        _ => return None,
    };
    let touched = if flag("-XX:+AlwaysPreTouch").is_some() { ", all of which it touches at its start" } else { "" };
    let flags: Vec<&str> = system.command.iter().filter(|word| word.starts_with("-X")).map(String::as_str).collect();
    Some(format!("The memory of {} is mostly its heap of {mib} MiB{touched} (`{}`).", system.title, flags.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::super::groups::groups;
    use super::*;
    use crate::result::{EnvironmentFact, example};

    /// Goal: a load that was made smaller shows its real size in its row, beside its definition, in the list of runs and in the README, and
    /// that it fits into memory. Method: the example with a backlog of a fiftieth on machines with and without room for it.
    #[test]
    fn real_sizes_are_told() {
        let mut set = example::result_set();
        let mut environment = example::environment();
        assert_eq!(backlog_remarks(&set, &environment, None), Vec::<String>::new());
        assert!(groups(&set).iter().all(|group| label(group) == group.key.workload));
        for run in &mut set.runs {
            (run.parameters.scale, run.parameters.preload_bytes) = (0.02, 1_000_000_000);
        }
        assert_eq!(label(&groups(&set)[0]), "steady-1k-10k (scale 0.02, backlog of 1.00 GB)");
        let scaled = "steady-1k-10k: scale 0.02, backlog of 1.00 GB instead of what its definition says";
        assert_eq!(backlog_remarks(&set, &environment, None), [scaled]);
        let memory = |kib: u64| EnvironmentFact {
            section: "memory".to_owned(),
            name: "MemTotal".to_owned(),
            value: Some(format!("{kib} kB")),
            note: String::new(),
        };
        environment.facts.push(memory(976_562));
        assert_eq!(backlog_remarks(&set, &environment, None).len(), 1, "it has no room");
        environment.facts.pop();
        environment.facts.push(memory(2_000_000));
        let cached = "a backlog of 1.00 GB is smaller than the machine's memory (2.05 GB), so it can be read from the page cache";
        assert!(backlog_remarks(&set, &environment, Some("steady-1k-10k")).iter().any(|line| line.contains(cached)));
        assert!(backlog_remarks(&set, &environment, Some("rtt-1k")).is_empty());
        let page = super::super::page_text(&set, &environment);
        let readme = super::super::section::text(Some((&set, &environment)));
        for text in [&page, &readme] {
            assert!(text.contains("steady-1k-10k (scale 0.02, backlog of 1.00 GB)") && text.contains(cached), "{text}");
        }
        let workload = page.split("<h3>steady-1k-10k</h3>").nth(1).unwrap().split("</details>").next().unwrap();
        assert!(
            workload.contains("scale 0.02, backlog of 1.00 GB instead of") && workload.contains(cached),
            "{workload}"
        );
        assert!(page.contains("<td>scale 0.02, backlog of 1.00 GB</td>"), "the list of runs");
    }

    /// Goal: rows say how large, how many and how deep, and how noisy. Method: loads of several forms; the example with a noisy run, a
    /// late one, and closed loops.
    #[test]
    fn rows_have_their_conditions() {
        let mut run = example::run("ringmq", 1, RunRole::Measured, 10_000.0, 60_000);
        assert_eq!(shape(&run.parameters), "1 KiB × 4 × 256");
        (run.parameters.batch, run.parameters.message_bytes) = (32, 128);
        assert_eq!(shape(&run.parameters), "32 of 128 B × 4 × 256");
        run.parameters.idle_connections = 10_000;
        assert_eq!(beside(&run.parameters), "10,000 idle connections");
        let mut set = example::result_set();
        let of = |set: &ResultSet| noise(groups(set).iter().find(|group| group.key.system == "ringmq").unwrap());
        assert_eq!(of(&set), "0; 0");
        let ours = |set: &ResultSet| set.runs.iter().position(|run| run.system == "ringmq").unwrap();
        let first = ours(&set);
        set.runs[first].validity.noisy = true;
        // A late start that is in the median, and not in the p99.
        set.runs[first].generator.own_lag.p99_ns = 25_000;
        assert_eq!(of(&set), "1; 1");
        set.runs.iter_mut().for_each(|run| run.parameters.loop_kind = LoopKind::Closed);
        assert_eq!(of(&set), "1; –");
        set.runs[first].generator.shares_cores = true;
        assert_eq!(of(&set), "1; –; 1 on a shared core");
        set.runs.iter_mut().for_each(|run| run.validity.invalid.push("the hypervisor took 2.0 % of it".to_owned()));
        assert_eq!(of(&set), "–");
    }

    /// Goal: lengths, repeats and the rule of a search are those of the set. Method: the example, then with other lengths.
    #[test]
    fn lengths_are_those_of_the_set() {
        let mut set = example::result_set();
        let text = lengths_and_steps(&set, &groups(&set));
        assert!(text.starts_with("Runs are 10.0 s after 10.0 s of warm-up, floors 10.0 s"), "{text}");
        assert!(text.contains("; a row has 4 or 3 of them") && text.contains("25.0 % higher at most"), "{text}");
        for run in set.runs.iter_mut().filter(|run| run.role == RunRole::SweepStep) {
            run.parameters.measure_s = 2.0;
            run.phases.retain(|phase| phase.name != "warm-up");
        }
        let text = lengths_and_steps(&set, &groups(&set));
        assert!(text.contains("Steps of a search for a highest rate are 2.00 s, bisected"), "{text}");
        set.runs.clear();
        assert_eq!(lengths_and_steps(&set, &[]), "");
    }

    /// Goal: a heap that is taken beforehand is told with its flags. Method: command lines with and without one.
    #[test]
    fn heaps_are_told() {
        let mut system = example::result_set().systems.remove(3);
        assert_eq!(heap(&system), None);
        let command = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
        system.command = command("java -Xms2g -Xmx2g -XX:+AlwaysPreTouch -cp x Main");
        let told = heap(&system).unwrap();
        assert!(
            told.contains("heap of 2048 MiB, all of which it touches at its start (`-Xms2g -Xmx2g -XX:+Always"),
            "{told}"
        );
        system.command = command("java -Xms64m -cp x Main");
        assert!(heap(&system).unwrap().ends_with("heap of 64 MiB (`-Xms64m`)."));
        system.command = command("java -Xms");
        assert_eq!(heap(&system), None);
    }
}
