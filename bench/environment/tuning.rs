//! What `ringmq tune check` says about the host: every tunable of its catalogue, cards and disks included.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use super::Facts;

/// The part of the report that is kept.
#[derive(Debug, Deserialize)]
struct Report {
    profile: String,
    totals: String,
    lines: Vec<Line>,
}

#[derive(Debug, Deserialize)]
struct Line {
    id: String,
    #[serde(default)]
    device: String,
    state: String,
    #[serde(default)]
    have: String,
    #[serde(default)]
    want: String,
}

/// Asks the broker's binary; without one, or with one that cannot answer, a fact says so.
pub fn capture(facts: &mut Facts<'_>, broker: Option<&Path>, data: &Path) {
    match check(broker, data) {
        Ok(report) => {
            facts.add("tuning", "compared with profile", Some(report.profile), "ringmq tune check");
            facts.add("tuning", "result", Some(report.totals), "ringmq tune check");
            let mut seen = std::collections::BTreeSet::new();
            for line in report.lines {
                let name = if line.device.is_empty() { line.id } else { format!("{} of {}", line.id, line.device) };
                let wanted = if line.want.is_empty() { String::new() } else { format!(", wanted {}", line.want) };
                if seen.insert(name.clone()) {
                    facts.add("tuning", &name, Some(line.have), &format!("{}{wanted}", line.state));
                }
            }
        }
        Err(reason) => facts.add("tuning", "result", None, &reason),
    }
}

fn check(broker: Option<&Path>, data: &Path) -> Result<Report, String> {
    let broker = broker.ok_or("there is no ringmq to ask")?;
    let output = Command::new(broker)
        .args(["tune", "check", "--format", "json", "--dirs"])
        .arg(data)
        .output()
        .map_err(|error| error.kind().to_string())?;
    // Its exit code says how well the host fits; the report is there in any case.
    serde_json::from_slice(&output.stdout).map_err(|error| format!("ringmq tune check: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a report becomes one fact per tunable, and none becomes a fact with the reason. Method: a broker that is a script,
    /// and none.
    #[test]
    fn reports_become_facts() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("ringmq");
        let report = r#"{"profile":"latency","totals":"1 ok, 1 drift","host":"x","lines":[
            {"id":"vm.swappiness","device":"","state":"drift","have":"60","want":"1"},
            {"id":"block.scheduler","device":"vda","state":"ok","have":"none","want":"none"}]}"#;
        // A file that this process has open for writing cannot be started: neither while another thread's child still has its copy.
        let (text, write) =
            (format!("#!/bin/sh\ncat <<'X'\n{report}\nX\nexit 1\n"), r#"printf %s "$1" >"$0" && chmod 755 "$0""#);
        assert!(Command::new("sh").args(["-c", write]).arg(&script).arg(text).status().unwrap().success());
        let mut facts = Facts { root: Path::new("/"), facts: Vec::new() };
        capture(&mut facts, Some(&script), folder.path());
        let names: Vec<&str> = facts.facts.iter().map(|fact| fact.name.as_str()).collect();
        assert_eq!(names, ["compared with profile", "result", "vm.swappiness", "block.scheduler of vda"]);
        assert_eq!(facts.facts[2].note, "drift, wanted 1");
        facts.facts.clear();
        capture(&mut facts, None, folder.path());
        assert!(facts.facts[0].value.is_none() && !facts.facts[0].note.is_empty());
    }
}
