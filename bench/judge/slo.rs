//! Conditions on a run: `p99<=1ms,p999<=5ms,errors=0,backlog<=1s`, on the command line or in a file.

use thiserror::Error;

use crate::plan::parse_duration_ns;
use crate::result::{RunRecord, Slo};
use crate::units::nanoseconds;

/// Why conditions cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("read the condition {0:?}: write it like p50, p99, p999, p9999, max or backlog<=TIME, or errors<=N")]
pub struct SloError(String);

/// Reads conditions. Separated by commas or line ends; `#` begins a comment.
///
/// # Errors
/// One of them is none.
pub fn parse_slo(text: &str) -> Result<Slo, SloError> {
    let mut slo = Slo::default();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        for part in line.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let bad = || SloError(part.to_owned());
            let (name, value) = part.split_once("<=").or_else(|| part.split_once('=')).ok_or_else(bad)?;
            let (name, value) = (name.trim(), value.trim());
            if name == "errors" {
                slo.errors = Some(value.parse().map_err(|_| bad())?);
                continue;
            }
            let time = Some(parse_duration_ns(value).ok_or_else(bad)?);
            match name {
                "p50" => slo.p50_ns = time,
                "p99" => slo.p99_ns = time,
                "p999" | "p99.9" => slo.p999_ns = time,
                "p9999" | "p99.99" => slo.p9999_ns = time,
                "max" => slo.max_ns = time,
                "backlog" => slo.backlog_ns = time,
                _ => return Err(bad()),
            }
        }
    }
    if slo == Slo::default() { Err(SloError(text.to_owned())) } else { Ok(slo) }
}

/// What a run misses, one phrase each; empty: it meets all conditions.
pub fn check_slo(run: &RunRecord, slo: &Slo) -> Vec<String> {
    let mut misses = Vec::new();
    let Some(operation) = run.primary() else { return vec!["it measured nothing".to_owned()] };
    let response = &operation.response;
    let backlog_ns = run.phases.iter().find(|phase| phase.name == "drain").map_or(0, |phase| phase.duration_ns);
    let times = [
        ("p50", response.p50_ns, slo.p50_ns),
        ("p99", response.p99_ns, slo.p99_ns),
        ("p99.9", response.p999_ns, slo.p999_ns),
        ("p99.99", response.p9999_ns, slo.p9999_ns),
        ("max", response.max_ns, slo.max_ns),
        ("backlog", backlog_ns, slo.backlog_ns),
    ];
    for (name, measured, most) in times {
        if let Some(most) = most.filter(|most| measured > *most) {
            misses.push(format!("{name} {} > {}", nanoseconds(measured), nanoseconds(most)));
        }
    }
    // Percentiles are those of answers, so conditions that say nothing of errors allow none.
    let most_errors = slo.errors.unwrap_or(0);
    if operation.errors > most_errors {
        misses.push(format!("{} errors > {most_errors}", operation.errors));
    }
    misses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::RunRole;
    use crate::result::example;

    /// Goal: conditions are read, mistakes named. Method: all names, a file's form, nonsense.
    #[test]
    fn reads_conditions() {
        let slo = parse_slo("p99<=1ms, p99.9<=5ms,errors=0,backlog<=1s").unwrap();
        assert_eq!((slo.p99_ns, slo.p999_ns, slo.errors), (Some(1_000_000), Some(5_000_000), Some(0)));
        assert_eq!(slo.backlog_ns, Some(1_000_000_000));
        assert_eq!(
            parse_slo("# for small machines\np99 <= 1ms # or so\nerrors <= 0\n").unwrap().p99_ns,
            Some(1_000_000)
        );
        for text in ["", "p99", "p99<=5", "p98<=1ms", "errors=x", "p99<=1ms,what"] {
            assert!(parse_slo(text).is_err(), "{text}");
        }
    }

    /// Goal: misses are named with both figures. Method: a run of 60 us against several conditions.
    #[test]
    fn names_misses() {
        let run = example::run("ringmq", 1, RunRole::Measured, 10_000.0, 60_000);
        assert!(check_slo(&run, &parse_slo("p50<=1ms,errors=0,backlog<=10ms").unwrap()).is_empty());
        let mut failing = run.clone();
        failing.operations[0].errors = 3;
        assert_eq!(check_slo(&failing, &parse_slo("p50<=1ms").unwrap()), ["3 errors > 0"]);
        assert!(check_slo(&failing, &parse_slo("p50<=1ms,errors<=3").unwrap()).is_empty());
        let misses = check_slo(&run, &parse_slo("p50<=10us,backlog<=1ms,p99<=1s").unwrap());
        assert_eq!(misses.len(), 2);
        assert!(misses[0].starts_with("p50 ") && misses[0].ends_with("> 10.0 µs"), "{misses:?}");
    }
}
