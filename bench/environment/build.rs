//! What the harness was built from, and what is around it: compiler, sources, Java.

use std::process::Command;

use super::Facts;

/// Characters of a program's first line that are kept.
const LONGEST_LINE: usize = 200;

pub fn capture(facts: &mut Facts<'_>) {
    facts.add("build", "ringmq-bench", Some(env!("CARGO_PKG_VERSION").to_owned()), "");
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    facts.add("build", "profile", Some(profile.to_owned()), "");
    facts.add("build", "target", Some(format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)), "");
    let flags = option_env!("CARGO_ENCODED_RUSTFLAGS").or(option_env!("RUSTFLAGS")).map(str::to_owned);
    facts.add("build", "RUSTFLAGS", Some(flags.unwrap_or_default()), "when it was built");
    add_output(facts, "rustc", "rustc", &["--version"]);
    add_output(facts, "commit", "git", &["rev-parse", "--short=12", "HEAD"]);
    let changed = output("git", &["status", "--porcelain", "--untracked-files=no"]);
    let state = changed.map(|text| if text.is_empty() { "clean" } else { "changed" }.to_owned());
    add(facts, "working tree", state);
    let lock = std::fs::read("Cargo.lock").map(|bytes| crate::result::sha256_hex(&bytes));
    add(facts, "SHA-256 of Cargo.lock", lock.map_err(|error| error.kind().to_string()));
    add_output(facts, "java", "java", &["--version"]);
}

fn add(facts: &mut Facts<'_>, name: &str, value: Result<String, String>) {
    match value {
        Ok(value) => facts.add("build", name, Some(value), "of the current directory or path"),
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
