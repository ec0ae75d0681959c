//! What a result must say about the machine, as named facts: kernel, processors, memory, network, disk, limits, build, tunables,
//! interrupts.
//!
//! Invariants: it only reads, it never fails (what cannot be read is a fact without a value and with the reason), and it
//! names no host and no user: hosts are told apart by a hash.

mod build;
mod machine;
mod storage;
mod tuning;

use std::path::Path;

pub use build::BROKER_FACT;
pub use machine::HALT_POLL_FACT;

use crate::clock::{rfc3339, wall_ms};
use crate::result::{ENVIRONMENT_SCHEMA, EnvironmentFact, EnvironmentRecord};

/// Section of the interrupts that were counted when a set came to its end.
const INTERRUPTS_AFTER: &str = "interrupts after";

/// Captures the machine as it is now. `data` is where a broker keeps its store; its disk and file system are described.
/// `broker` is RingMQ's binary, which knows all tunables.
pub fn capture(data: &Path, broker: Option<&Path>) -> EnvironmentRecord {
    capture_below(Path::new("/"), data, broker)
}

/// Adds what can only be known when all runs are over: interrupts to compare with those before.
pub fn capture_after(record: &mut EnvironmentRecord) {
    record.facts.retain(|fact| fact.section != INTERRUPTS_AFTER);
    let mut facts = Facts { root: Path::new("/"), facts: Vec::new() };
    interrupts(&mut facts, INTERRUPTS_AFTER);
    record.facts.append(&mut facts.facts);
}

/// Counts per interrupt and core, and the cores that may take it.
fn interrupts(facts: &mut Facts<'_>, section: &str) {
    let lines = facts.lines("/proc/interrupts");
    if lines.is_empty() {
        facts.add(section, "all", None, "not in /proc/interrupts");
    }
    for line in lines.iter().skip(1) {
        let Some((number, rest)) = line.split_once(':') else { continue };
        let text = rest.split_whitespace().collect::<Vec<_>>().join(" ");
        let number = number.trim();
        let cores = facts.read(&format!("/proc/irq/{number}/smp_affinity_list"));
        let note = cores.map(|cores| format!("may run on {cores}")).unwrap_or_default();
        facts.add(section, number, Some(text), &note);
    }
}

fn capture_below(root: &Path, data: &Path, broker: Option<&Path>) -> EnvironmentRecord {
    let mut facts = Facts { root, facts: Vec::new() };
    machine::capture(&mut facts);
    storage::capture(&mut facts, data);
    build::capture(&mut facts, broker);
    tuning::capture(&mut facts, broker, data);
    interrupts(&mut facts, "interrupts");
    EnvironmentRecord {
        schema: ENVIRONMENT_SCHEMA.to_owned(),
        captured: rfc3339(wall_ms()),
        host_hash: host_hash(root),
        facts: facts.facts,
    }
}

/// Facts in the making, and the root that they are read below.
struct Facts<'a> {
    root: &'a Path,
    facts: Vec<EnvironmentFact>,
}

impl Facts<'_> {
    fn add(&mut self, section: &str, name: &str, value: Option<String>, note: &str) {
        self.facts.push(EnvironmentFact {
            section: section.to_owned(),
            name: name.to_owned(),
            value,
            note: note.to_owned(),
        });
    }

    /// A small text file below the root, trimmed, with its blanks reduced to one.
    fn read(&self, path: &str) -> Result<String, String> {
        let path = self.root.join(path.trim_start_matches('/'));
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.split_whitespace().collect::<Vec<_>>().join(" ")),
            Err(error) => Err(error.kind().to_string()),
        }
    }

    /// Lines of a file below the root; none if it cannot be read.
    fn lines(&self, path: &str) -> Vec<String> {
        let path = self.root.join(path.trim_start_matches('/'));
        std::fs::read_to_string(path).map(|text| text.lines().map(str::to_owned).collect()).unwrap_or_default()
    }

    /// The names in a folder below the root, sorted; none if it cannot be read.
    fn names(&self, path: &str) -> Vec<String> {
        let path = self.root.join(path.trim_start_matches('/'));
        let mut names: Vec<String> = std::fs::read_dir(path)
            .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }

    /// A file's content as a fact.
    fn add_file(&mut self, section: &str, name: &str, path: &str) {
        match self.read(path) {
            Ok(value) => self.add(section, name, Some(value), ""),
            Err(reason) => self.add(section, name, None, &reason),
        }
    }
}

/// The first half of the SHA-256 of the machine id, or of the boot's random id where there is none.
fn host_hash(root: &Path) -> String {
    let id = ["etc/machine-id", "proc/sys/kernel/random/boot_id"]
        .into_iter()
        .find_map(|path| std::fs::read_to_string(root.join(path)).ok().filter(|text| !text.trim().is_empty()));
    let mut hash = crate::result::sha256_hex(id.unwrap_or_default().trim().as_bytes());
    hash.truncate(16);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: for how long a guest polls before it halts is in the record, or why not. Method: a root with and without the file.
    #[test]
    fn knows_how_long_a_guest_polls() {
        let root = tempfile::tempdir().unwrap();
        let fact = || {
            let facts = capture_below(root.path(), root.path(), None).facts;
            facts.into_iter().find(|fact| fact.section == "cpu" && fact.name == HALT_POLL_FACT).unwrap()
        };
        assert!(fact().value.is_none() && fact().note.contains("no haltpoll"), "{:?}", fact());
        let folder = root.path().join("sys/module/haltpoll/parameters");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("guest_halt_poll_ns"), "200000\n").unwrap();
        assert_eq!(fact().value.as_deref(), Some("200000"));
    }

    /// Goal: a machine that shows nothing gives facts with reasons instead of failing, and names stay unique. Method: an empty
    /// root, then this machine.
    #[test]
    fn capture_never_fails() {
        let empty = tempfile::tempdir().unwrap();
        for mut record in [capture_below(empty.path(), empty.path(), None), capture(empty.path(), None)] {
            capture_after(&mut record);
            capture_after(&mut record);
            assert!(record.facts.len() > 60, "{}", record.facts.len());
            assert!(record.facts.iter().all(|fact| fact.value.is_some() || !fact.note.is_empty()));
            let mut names: Vec<_> = record.facts.iter().map(|fact| (&fact.section, &fact.name)).collect();
            let mut sections: Vec<_> = names.iter().map(|name| name.0).collect();
            names.sort();
            let count = names.len();
            names.dedup();
            assert_eq!(names.len(), count, "section and name are unique");
            sections.dedup();
            let runs = sections.len();
            sections.sort();
            sections.dedup();
            assert_eq!(sections.len(), runs, "a section is captured in one go");
        }
    }
}
