//! Notes from what a program is built, for build scripts: it may be run anywhere and long afterwards.
//!
//! Invariant: what git or the compiler do not tell is `unknown`; a build never fails for it.

use std::process::Command;

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What a program is built from.
pub struct Notes {
    /// The last commit that changed the sources, 12 digits: later ones are not in the program.
    pub commit: String,
    /// Whether the sources differ from that commit; `None`: unknown.
    pub is_changed: Option<bool>,
    /// The compiler with its version.
    pub compiler: String,
}

impl Notes {
    /// Of a package whose program is decided by `sources`, relative to the package's folder. Asks to be run again when they change.
    pub fn take(sources: &[&str]) -> Notes {
        for source in sources {
            println!("cargo:rerun-if-changed={source}");
        }
        let asked = |words: &[&'static str]| output("git", &[words, &["--"], sources].concat());
        let known = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned());
        let is_changed = asked(&["status", "--porcelain", "--untracked-files=no"]).map(|text| !text.is_empty());
        // What is committed afterwards does not change the sources.
        if is_changed == Some(true)
            && let Some(log) = output("git", &["rev-parse", "--git-path", "logs/HEAD"])
        {
            println!("cargo:rerun-if-changed={log}");
        }
        let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
        Notes {
            commit: known(asked(&["log", "-1", "--format=%h", "--abbrev=12"])),
            is_changed,
            compiler: known(output(&compiler, &["--version"])),
        }
    }
}
