//! Notes from what this program is built: it may be run anywhere and long afterwards.

#[path = "../build_notes.rs"]
mod build_notes;

use build_notes::Notes;

/// What decides the program, relative to this folder.
const SOURCES: [&str; 4] = [".", "../src/protocol", "../Cargo.lock", "../build_notes.rs"];

fn main() {
    let notes = Notes::take(&SOURCES);
    let tree = match notes.is_changed {
        Some(true) => "changed",
        Some(false) => "clean",
        None => "unknown",
    };
    for (name, value) in [("COMMIT", notes.commit.as_str()), ("TREE", tree), ("RUSTC", &notes.compiler)] {
        println!("cargo:rustc-env=RINGMQ_BENCH_{name}={value}");
    }
}
