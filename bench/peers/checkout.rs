//! The broker of the sources that this program was started from: `cargo run` builds only the program that it runs, so what lies beside
//! it may be older than what is checked out, or missing.

use std::env;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::{PeerError, find_ringmq, system};

/// What cargo says of a workspace, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Workspace {
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

/// Cargo and the package that it started this program from; `None`: something else started it.
fn starting_cargo() -> Option<(PathBuf, PathBuf)> {
    Some((env::var_os("CARGO")?.into(), env::var_os("CARGO_MANIFEST_DIR")?.into()))
}

/// Makes sure that there is a broker to start, before anything is measured: where it was said to be, or beside this program. If cargo
/// started this program, it builds that broker first.
///
/// # Errors
/// There is none, or it cannot be built.
pub fn ready_ringmq(binary: Option<&Path>) -> Result<(), PeerError> {
    if binary.is_none()
        && let Some((cargo, package)) = starting_cargo()
    {
        build(&cargo, &package)?;
    }
    find_ringmq(binary).map(drop)
}

/// Builds the broker as this program was built, if this program was built there.
fn build(cargo: &Path, package: &Path) -> Result<(), PeerError> {
    let asked = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"])
        .current_dir(package)
        .stderr(Stdio::inherit())
        .output()
        .map_err(system(format!("start {}", cargo.display())))?;
    let failed = |what: String| PeerError::Missing(format!("RingMQ cannot be built: {what}"));
    if !asked.status.success() {
        return Err(failed(format!("`cargo metadata` ended with {}", asked.status)));
    }
    let workspace: Workspace = serde_json::from_slice(&asked.stdout)
        .map_err(|error| failed(format!("what `cargo metadata` says cannot be read: {error}")))?;
    let own = env::current_exe().map_err(system("find this program's folder"))?;
    let Some(form) = form(&own, &workspace.target_directory) else { return Ok(()) };
    let errors = io::stderr().as_fd().try_clone_to_owned().map_err(system("share standard error"))?;
    let status = Command::new(cargo)
        .arg("build")
        .args(form)
        .args(["--locked", "--bin", "ringmq"])
        .current_dir(&workspace.workspace_root)
        .stdin(Stdio::null())
        // Standard output is for the result.
        .stdout(errors)
        .status()
        .map_err(system(format!("start {}", cargo.display())))?;
    if status.success() { Ok(()) } else { Err(failed(format!("`cargo build` ended with {status}"))) }
}

/// The arguments of a build whose programs lie beside this one: `TARGET/PROFILE/ringmq-bench`, or `TARGET/TRIPLE/PROFILE/ringmq-bench`.
/// `None`: it lies elsewhere.
fn form(program: &Path, target: &Path) -> Option<Vec<String>> {
    let real = |path: &Path| fs::canonicalize(path).ok();
    let (program, target) = (real(program)?, real(target)?);
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let folder = program.parent()?;
    let above = folder.parent()?;
    let mut arguments = match name(folder)?.as_str() {
        "debug" => Vec::new(),
        "release" => vec!["--release".to_owned()],
        other => vec!["--profile".to_owned(), other.to_owned()],
    };
    if above != target {
        (above.parent()? == target).then_some(())?;
        arguments.extend(["--target".to_owned(), name(above)?]);
    }
    Some(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the broker is built in this program's profile and for its machine, and not for a program that lies elsewhere. Method: a
    /// program in each place of a target folder, and beside it.
    #[test]
    fn the_form_follows_from_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        fs::create_dir(&target).unwrap();
        let of = |place: &str| {
            let program = folder.path().join(place).join("ringmq-bench");
            fs::create_dir_all(program.parent().unwrap()).unwrap();
            fs::write(&program, "").unwrap();
            form(&program, &target).map(|arguments| arguments.join(" "))
        };
        assert_eq!(of("target/debug").as_deref(), Some(""));
        assert_eq!(of("target/release").as_deref(), Some("--release"));
        assert_eq!(of("target/profiling").as_deref(), Some("--profile profiling"));
        assert_eq!(of("target/x86-any/release").as_deref(), Some("--release --target x86-any"));
        for elsewhere in ["bin", "other/release", "target/a/b/release", "target"] {
            assert_eq!(of(elsewhere), None, "{elsewhere}");
        }
    }
}
