//! Notes for `ringmq --version` from what the broker is built.

#[path = "build_notes.rs"]
mod build_notes;

use build_notes::Notes;

/// What decides the program.
const SOURCES: [&str; 7] = ["src", "shards", "tuning", "Cargo.toml", "Cargo.lock", "build.rs", "build_notes.rs"];

fn main() {
    let notes = Notes::take(&SOURCES);
    let changed = if notes.is_changed == Some(true) { "-dirty" } else { "" };
    let profile = std::env::var("PROFILE").unwrap_or_else(|_| "unknown".to_owned());
    // One line: the harness records it with a result.
    println!("cargo:rustc-env=RINGMQ_BUILD=commit {}{changed}, {profile} build, {}", notes.commit, notes.compiler);
}
