//! What the harness was built from, as it was noted then, which programs are measured, and what is around them.

use std::path::Path;
use std::process::Command;

use super::Facts;

/// Name of the fact that tells which build of RingMQ is measured.
pub const BROKER_FACT: &str = "SHA-256 of ringmq";
/// Characters of a program's first line that are kept.
const LONGEST_LINE: usize = 200;

pub fn capture(facts: &mut Facts<'_>, broker: Option<&Path>) {
    facts.add("build", "ringmq-bench", Some(env!("CARGO_PKG_VERSION").to_owned()), "");
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    facts.add("build", "profile", Some(profile.to_owned()), "");
    facts.add("build", "target", Some(format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)), "");
    let flags = option_env!("CARGO_ENCODED_RUSTFLAGS").or(option_env!("RUSTFLAGS")).map(str::to_owned);
    facts.add("build", "RUSTFLAGS", Some(flags.unwrap_or_default()), "when it was built");
    let when_built = "when it was built";
    for (name, value) in [
        ("rustc", env!("RINGMQ_BENCH_RUSTC")),
        ("commit", env!("RINGMQ_BENCH_COMMIT")),
        ("working tree", env!("RINGMQ_BENCH_TREE")),
    ] {
        facts.add("build", name, Some(value.to_owned()).filter(|value| value != "unknown"), when_built);
    }
    let lock = crate::result::sha256_hex(include_bytes!("../../Cargo.lock"));
    facts.add("build", "SHA-256 of Cargo.lock", Some(lock), when_built);
    add_binary(facts, "SHA-256 of ringmq-bench", std::env::current_exe().ok().as_deref());
    add_binary(facts, BROKER_FACT, broker);
    add_output(facts, "java", "java", &["--version"]);
}

/// Which program it is, whatever it says of itself.
fn add_binary(facts: &mut Facts<'_>, name: &str, path: Option<&Path>) {
    let Some(path) = path else { return facts.add("build", name, None, "there is none") };
    match std::fs::read(path) {
        Ok(bytes) => facts.add("build", name, Some(crate::result::sha256_hex(&bytes)), ""),
        Err(error) => facts.add("build", name, None, &error.kind().to_string()),
    }
}

fn add(facts: &mut Facts<'_>, name: &str, value: Result<String, String>) {
    match value {
        Ok(value) => facts.add("build", name, Some(value), "of the path"),
        Err(reason) => facts.add("build", name, None, &reason),
    }
}

fn add_output(facts: &mut Facts<'_>, name: &str, program: &str, arguments: &[&str]) {
    let line = output(program, arguments).map(|text| text.lines().next().unwrap_or_default().to_owned());
    add(facts, name, line);
}

/// What a program prints; the reason if it cannot be run or fails.
fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().chars().take(LONGEST_LINE).collect())
        }
        Ok(output) => Err(format!("{program} ended with {}", output.status)),
        Err(error) => Err(format!("{program}: {}", error.kind())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the facts of the build are those of this program wherever it is run, and the broker is told by its content. Method: as
    /// this is run in the sources, what `git` says here and now is not asked; a file stands in for the broker.
    #[test]
    fn facts_of_the_build() {
        let folder = tempfile::tempdir().unwrap();
        let broker = folder.path().join("ringmq");
        std::fs::write(&broker, b"a program").unwrap();
        let mut facts = Facts { root: Path::new("/"), facts: Vec::new() };
        capture(&mut facts, Some(&broker));
        let value = |name: &str| facts.facts.iter().find(|fact| fact.name == name).unwrap().clone();
        assert_eq!(value(BROKER_FACT).value, Some(crate::result::sha256_hex(b"a program")));
        assert_eq!(value("commit").note, "when it was built");
        assert!(value("rustc").value.unwrap().starts_with("rustc "));
        assert_eq!(value("SHA-256 of Cargo.lock").value.unwrap().len(), 64);
    }
}
