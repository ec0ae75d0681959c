//! Conditions on a run: `p99<=1ms,e2e.p99<=2ms,errors=0,backlog<=1s`, on the command line or in a file.

use thiserror::Error;

use crate::plan::parse_duration_ns;
use crate::result::{RunRecord, Slo};
use crate::units::nanoseconds;

/// How conditions are written, for people.
pub const SLO_GRAMMAR: &str = "\
Conditions, with commas or line ends between them; # begins a comment; a file serves as well:
  NAME<=TIME       response time, from the planned start to the answer:
                   p50, p99, p999 (or p99.9), p9999 (or p99.99), max
  e2e.NAME<=TIME   the same names, from the planned start of the send to the receipt by a consumer;
                   for workloads with consumers
  backlog<=TIME    how long answers and receipts may be behind the plan at its end
  errors<=N        operations that are refused or given up; without it none may be
TIME is a number with ns, us, ms or s. = means <=.
Example: p99<=1ms,p999<=5ms,e2e.p99<=2ms,errors=0,backlog<=1s";

/// What may stand before `<=`.
const NAMES: &str = "p50, p99, p999, p9999, max, each of them with e2e. before it, backlog, errors";

/// Why conditions cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SloError {
    /// There is none.
    #[error("there is no condition in {0:?}; one looks like p99<=1ms")]
    Empty(String),
    /// One of them is none.
    #[error("the condition {condition:?}: {reason}")]
    Bad {
        /// As it was written.
        condition: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It asks for receipts where nothing is received.
    #[error("the condition e2e.{name} needs consumers, and the workload {workload} has none")]
    NothingReceived {
        /// What is asked for.
        name: &'static str,
        /// Of which workload.
        workload: String,
    },
}

/// The place of a condition on a time.
fn place<'a>(slo: &'a mut Slo, name: &str) -> Option<&'a mut Option<u64>> {
    Some(match name {
        "p50" => &mut slo.p50_ns,
        "p99" => &mut slo.p99_ns,
        "p999" | "p99.9" => &mut slo.p999_ns,
        "p9999" | "p99.99" => &mut slo.p9999_ns,
        "max" => &mut slo.max_ns,
        "e2e.p50" => &mut slo.e2e_p50_ns,
        "e2e.p99" => &mut slo.e2e_p99_ns,
        "e2e.p999" | "e2e.p99.9" => &mut slo.e2e_p999_ns,
        "e2e.p9999" | "e2e.p99.99" => &mut slo.e2e_p9999_ns,
        "e2e.max" => &mut slo.e2e_max_ns,
        "backlog" => &mut slo.backlog_ns,
        _ => return None,
    })
}

/// Reads one condition into `slo`; otherwise says what is wrong.
fn read(slo: &mut Slo, condition: &str) -> Result<(), String> {
    let (name, value) =
        condition.split_once("<=").or_else(|| condition.split_once('=')).ok_or("it has no <=".to_owned())?;
    let (name, value) = (name.trim(), value.trim());
    let (known, value) = if name == "errors" {
        let count = value.parse().map_err(|_| format!("{value:?} is no number of errors"))?;
        (&mut slo.errors, count)
    } else {
        let known = place(slo, name).ok_or_else(|| format!("there is no {name:?}; there are {NAMES}"))?;
        let time = parse_duration_ns(value).ok_or_else(|| format!("{value:?} is no time such as 500us, 2ms or 1s"))?;
        (known, time)
    };
    if known.replace(value).is_some() {
        return Err(format!("{name} has a condition already"));
    }
    Ok(())
}

/// Reads conditions as in [`SLO_GRAMMAR`].
///
/// # Errors
/// One of them is none, or there is none at all.
pub fn parse_slo(text: &str) -> Result<Slo, SloError> {
    let mut slo = Slo::default();
    let parts = text.lines().flat_map(|line| line.split('#').next().unwrap_or_default().split(','));
    for condition in parts.map(str::trim).filter(|part| !part.is_empty()) {
        read(&mut slo, condition).map_err(|reason| SloError::Bad { condition: condition.to_owned(), reason })?;
    }
    if slo == Slo::default() { Err(SloError::Empty(text.to_owned())) } else { Ok(slo) }
}

/// Conditions on receipts, with their names.
fn receipt_limits(slo: &Slo) -> [(&'static str, Option<u64>); 5] {
    [
        ("p50", slo.e2e_p50_ns),
        ("p99", slo.e2e_p99_ns),
        ("p99.9", slo.e2e_p999_ns),
        ("p99.99", slo.e2e_p9999_ns),
        ("max", slo.e2e_max_ns),
    ]
}

/// Refuses conditions on receipts for a workload without consumers: nobody could meet them.
///
/// # Errors
/// There is such a condition.
pub fn check_receivable(slo: &Slo, workload: &str, has_consumers: bool) -> Result<(), SloError> {
    let asked = receipt_limits(slo).into_iter().find(|(_, limit)| limit.is_some() && !has_consumers);
    asked.map_or(Ok(()), |(name, _)| Err(SloError::NothingReceived { name, workload: workload.to_owned() }))
}

/// Conditions in the form in which they are asked for.
pub fn slo_text(slo: &Slo) -> String {
    let times = [
        ("p50", slo.p50_ns),
        ("p99", slo.p99_ns),
        ("p999", slo.p999_ns),
        ("p9999", slo.p9999_ns),
        ("max", slo.max_ns),
        ("e2e.p50", slo.e2e_p50_ns),
        ("e2e.p99", slo.e2e_p99_ns),
        ("e2e.p999", slo.e2e_p999_ns),
        ("e2e.p9999", slo.e2e_p9999_ns),
        ("e2e.max", slo.e2e_max_ns),
        ("backlog", slo.backlog_ns),
    ];
    let mut parts: Vec<String> =
        times.into_iter().filter_map(|(name, limit)| Some(format!("{name} ≤ {}", nanoseconds(limit?)))).collect();
    parts.extend(slo.errors.map(|errors| format!("errors ≤ {errors}")));
    parts.join(", ")
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
    let receipts = run.end_to_end.as_ref().map(|end| &end.distribution).filter(|receipts| receipts.count > 0);
    let measured =
        receipts.map(|all| [all.p50_ns, all.p99_ns, all.p999_ns, all.p9999_ns, all.max_ns]).unwrap_or([u64::MAX; 5]);
    for ((name, most), measured) in receipt_limits(slo).into_iter().zip(measured) {
        if let Some(most) = most.filter(|most| measured > *most) {
            // Where nothing was received there is no good receipt.
            let measured = receipts.map_or_else(|| "of no receipt".to_owned(), |_| nanoseconds(measured));
            misses.push(format!("e2e {name} {measured} > {}", nanoseconds(most)));
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
        for (text, told) in [
            ("", "no condition"),
            ("p99", "no <="),
            ("p99<=5", "\"5\" is no time"),
            ("p50<=1ms,p98<=1ms", "\"p98<=1ms\": there is no \"p98\""),
            ("e2e.p98<=1ms", "e2e.p98"),
            ("errors=x", "\"x\" is no number"),
            ("p99<=1ms,what", "\"what\": it has no"),
            ("p99<=1ms,p99<=9ms", "\"p99<=9ms\": p99 has a condition already"),
        ] {
            let error = parse_slo(text).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
        assert!(parse_slo(SLO_GRAMMAR.rsplit("Example: ").next().unwrap()).is_ok());
    }

    /// Goal: conditions on receipts are read, told, missed where receipts are slow or absent, met otherwise, and refused where there are no
    /// consumers. Method: the example's run, whose receipts take half as long again as its answers.
    #[test]
    fn conditions_on_receipts() {
        let slo = parse_slo("e2e.p50<=70us,e2e.p99.9<=1s,e2e.max<=1s").unwrap();
        assert_eq!((slo.e2e_p50_ns, slo.e2e_p999_ns, slo.p50_ns), (Some(70_000), Some(1_000_000_000), None));
        assert_eq!(slo_text(&slo), "e2e.p50 ≤ 70.0 µs, e2e.p999 ≤ 1.00 s, e2e.max ≤ 1.00 s");
        let mut run = example::run("ringmq", 1, RunRole::Measured, 10_000.0, 60_000);
        let misses = check_slo(&run, &slo);
        assert!(
            misses.len() == 1 && misses[0].starts_with("e2e p50 ") && misses[0].ends_with("> 70.0 µs"),
            "{misses:?}"
        );
        assert!(check_slo(&run, &parse_slo("e2e.p50<=1ms").unwrap()).is_empty());
        run.end_to_end = None;
        assert_eq!(check_slo(&run, &parse_slo("e2e.p99<=1s").unwrap()), ["e2e p99 of no receipt > 1.00 s"]);
        assert_eq!(check_receivable(&slo, "end-to-end", true), Ok(()));
        let refused = check_receivable(&slo, "rtt-1k", false).unwrap_err().to_string();
        assert!(refused.contains("e2e.p50") && refused.contains("rtt-1k"), "{refused}");
        assert_eq!(check_receivable(&parse_slo("p99<=1ms").unwrap(), "rtt-1k", false), Ok(()));
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
