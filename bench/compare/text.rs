//! A comparison as a table for terminals.

use super::{Comparison, Verdict};
use crate::report::class_name;
use crate::text::wrapped;
use crate::units;

/// Column widths follow their contents; columns are two blanks apart.
pub fn table(comparison: &Comparison) -> String {
    let mut lines: Vec<[String; 9]> = vec![
        [
            "class",
            "workload",
            "rate/s",
            "figure",
            &comparison.baseline,
            &comparison.candidate,
            "ratio",
            "interval",
            "verdict",
        ]
        .map(str::to_owned),
    ];
    for row in &comparison.rows {
        let verdict = match row.verdict {
            Verdict::Better => "better",
            Verdict::Undecided => "undecided",
            Verdict::Worse => "worse",
            Verdict::Regression => "REGRESSION",
        };
        lines.push([
            class_name(row.durability),
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
    let widths: Vec<usize> = (0..9).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}", width = *width)).collect();
        text.push_str(cells.join("  ").trim_end());
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
