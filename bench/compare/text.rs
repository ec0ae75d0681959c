//! A comparison as tables for terminals, one per durability class.

use super::{Comparison, Row, Verdict};
use crate::report::groups::{by_class, class_heading};
use crate::text::wrapped;
use crate::units;

/// Column widths follow their contents; columns are two blanks apart.
fn of_class(comparison: &Comparison, rows: &[&Row]) -> String {
    let mut lines: Vec<[String; 8]> = vec![
        ["workload", "rate/s", "figure", &comparison.baseline, &comparison.candidate, "ratio", "interval", "verdict"]
            .map(str::to_owned),
    ];
    for row in rows {
        let verdict = match row.verdict {
            Verdict::Better => "better",
            Verdict::Undecided if row.is_beyond_threshold => "undecided, beyond the threshold",
            Verdict::Undecided => "undecided",
            Verdict::Worse => "worse",
            Verdict::Regression => "REGRESSION",
        };
        lines.push([
            row.workload.clone(),
            row.rate_text(),
            row.metric.title().to_owned(),
            row.metric.text(row.baseline),
            row.metric.text(row.candidate),
            units::ratio(row.ratio),
            format!("{}–{}", units::significant(row.low), units::significant(row.high)),
            verdict.to_owned(),
        ]);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..8).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}", width = *width)).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// How many figures have which verdict.
fn verdicts(comparison: &Comparison) -> String {
    let count = |verdict| comparison.rows.iter().filter(|row| row.verdict == verdict).count();
    let beyond = comparison.beyond_and_undecided();
    let note = if beyond > 0 {
        format!(" ({beyond} of them beyond the threshold, but with 1 in the interval: more runs would decide)")
    } else {
        String::new()
    };
    format!(
        "{} better, {} worse, {} regressions, {} undecided{note}",
        count(Verdict::Better),
        count(Verdict::Worse),
        count(Verdict::Regression),
        count(Verdict::Undecided),
    )
}

/// One table per class, then what else is to be said.
pub fn table(comparison: &Comparison) -> String {
    let mut text = String::new();
    for (class, rows) in by_class(&comparison.rows, |row| row.durability) {
        text.push_str(&format!("{}\n{}\n", class_heading(class), of_class(comparison, &rows)));
    }
    if !comparison.rows.is_empty() {
        text.push_str(&wrapped("", &verdicts(comparison)));
        text.push('\n');
    }
    if let Some(fewest) = comparison.rows.iter().map(|row| row.baseline_runs.min(row.candidate_runs)).min() {
        let hold = super::hold(fewest);
        text.push_str(&format!(
            "intervals are made for 95 %; with {fewest} runs on a side they hold in {hold} of cases\n"
        ));
    }
    let remarks = [
        ("FAILED: ", &comparison.failures),
        ("INTEGRITY: ", &comparison.violations),
        ("errors: ", &comparison.errors),
        ("other machine: ", &comparison.notes),
        ("not compared: ", &comparison.skipped),
    ];
    for (head, remark) in remarks.into_iter().flat_map(|(head, all)| all.iter().map(move |remark| (head, remark))) {
        text.push_str(&wrapped(head, remark));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::inside;
    use super::*;
    use crate::result::example;

    /// Goal: refusals that are few enough for a run to count are told beside its times. Method: the example, one run with three errors.
    #[test]
    fn errors_are_told() {
        let mut set = example::result_set();
        set.runs.iter_mut().find(|run| run.system == "ringmq").unwrap().operations[0].errors = 3;
        let text = table(&inside(&set)[0]);
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("0 of 60000 operations of java and 3 of 60000 of ringmq failed"), "{text}");
    }

    /// Goal: classes do not meet in a table, and a figure beyond its threshold that is not decided is counted. Method: the example's
    /// systems in two classes, in one of them with p99 that are worse on the whole and overlap.
    #[test]
    fn one_table_per_class() {
        let mut set = example::result_set();
        let in_d2 =
            set.runs.iter().filter(|run| run.role == crate::result::RunRole::Measured).cloned().map(|mut run| {
                run.durability = Some(crate::result::Durability::D2);
                run.operations[0].response.p99_ns = match (run.system.as_str(), run.round) {
                    ("ringmq", 1) => 700_000,
                    ("ringmq", _) => 1_500_000,
                    _ => 1_000_000,
                };
                run
            });
        let in_d2: Vec<_> = in_d2.collect();
        set.runs.extend(in_d2);
        let comparison = inside(&set).remove(0);
        assert!(comparison.beyond_and_undecided() == 1 && !comparison.has_regression(), "{comparison:?}");
        let text = table(&comparison);
        let (first, second) = text.split_once("\nD2: ").unwrap();
        assert!(first.starts_with("D1: acknowledged messages survive kill -9"), "{text}");
        assert_eq!([first, second].map(|part| part.matches("steady-1k-10k  10,000  p99 ").count()), [1, 1], "{text}");
        assert!(second.contains("undecided, beyond the threshold") && !first.contains("beyond"), "{text}");
        assert!(second.contains("(1 of them beyond the threshold"), "{text}");
    }

    /// Goal: the table is the committed one. Method: the example set's systems against each other.
    #[test]
    fn golden_table() {
        let text = table(&inside(&example::result_set())[0]);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/compare/testdata/example.txt");
        if std::env::var_os("RINGMQ_BENCH_WRITE_EXAMPLE").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/compare/testdata")).unwrap();
            std::fs::write(path, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(path).unwrap());
    }
}
