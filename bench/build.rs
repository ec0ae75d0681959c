//! Notes from what this program is built: it may be run anywhere and long afterwards.

use std::process::Command;

/// What decides the program, relative to this folder.
const SOURCES: [&str; 3] = [".", "../src/protocol", "../Cargo.lock"];

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn note(name: &str, value: Option<String>) {
    let value = value.filter(|value| !value.is_empty());
    println!("cargo:rustc-env=RINGMQ_BENCH_{name}={}", value.unwrap_or_else(|| "unknown".to_owned()));
}

fn main() {
    for source in SOURCES {
        println!("cargo:rerun-if-changed={source}");
    }
    // The last commit that changed the sources: later ones are not in the program.
    let sources = |words: &[&'static str]| [words, &["--"], &SOURCES].concat();
    note("COMMIT", output("git", &sources(&["log", "-1", "--format=%h", "--abbrev=12"])));
    let changed = output("git", &sources(&["status", "--porcelain", "--untracked-files=no"]));
    note("TREE", changed.map(|text| if text.is_empty() { "clean" } else { "changed" }.to_owned()));
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    note("RUSTC", output(&compiler, &["--version"]));
}
