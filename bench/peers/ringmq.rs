//! How RingMQ is started.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Launch, PeerError, PeerOptions, free_port};
use crate::host::pinning::format_cores;

/// Looks for the broker: where it was said to be, beside this program, in the release folder beside this one's.
///
/// # Errors
/// It is in none of these places.
pub fn find_ringmq(binary: Option<&Path>) -> Result<PathBuf, PeerError> {
    if let Some(binary) = binary {
        return std::path::absolute(binary)
            .ok()
            .filter(|path| path.is_file())
            .ok_or_else(|| PeerError::Missing(format!("there is no broker at {}", binary.display())));
    }
    let own = std::env::current_exe().map_err(super::system("find this program's folder"))?;
    let folder = own.parent().unwrap_or(Path::new("."));
    let places = [folder.join("ringmq"), folder.join("../release/ringmq"), folder.join("../ringmq")];
    places.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        PeerError::Missing(
            "there is no `ringmq` beside this program; build it with `cargo build --release`, or name it with \
             --broker-binary"
                .to_owned(),
        )
    })
}

pub(super) fn launch(options: &PeerOptions<'_>, folder: &Path) -> Result<Launch, PeerError> {
    let program = find_ringmq(options.binary)?;
    let version = Command::new(&program)
        .arg("--version")
        .output()
        .map_err(super::system(format!("start {}", program.display())))?;
    let (title, runtime) = told(&String::from_utf8_lossy(&version.stdout));
    let (port, name_server, metrics) = (free_port()?, free_port()?, free_port()?);
    let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, metrics));
    let mut configuration = vec![
        ("flushDiskType".to_owned(), options.flush.value().to_owned()),
        ("metrics_listen".to_owned(), metrics.to_string()),
    ];
    configuration.extend(options.settings.iter().cloned());
    let mut arguments = vec!["start".to_owned()];
    let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    add("--data", folder.join("store").display().to_string());
    add("--broker-port", port.to_string());
    add("--namesrv-port", name_server.to_string());
    if !options.cores.is_empty() {
        add("--cores", format_cores(options.cores));
    }
    for (key, value) in &configuration {
        add("--set", format!("{key}={value}"));
    }
    Ok(Launch {
        program,
        arguments,
        environment: Vec::new(),
        configuration,
        port,
        metrics: Some(metrics),
        title,
        runtime,
    })
}

/// What `ringmq --version` tells: name and number for titles, and from what it was built, which says which broker a result is of.
fn told(version: &str) -> (String, String) {
    let version = version.trim();
    let (title, build) = version.split_once(" (").unwrap_or((version, ""));
    (title.replace("ringmq", "RingMQ"), build.strip_suffix(')').unwrap_or(build).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: titles stay short, and the build is recorded whole. Method: versions with and without one.
    #[test]
    fn versions_are_taken_apart() {
        let pair = |title: &str, build: &str| (title.to_owned(), build.to_owned());
        let line = "ringmq 0.1.0 (commit 0123456789ab-dirty, release build, rustc 1.95.0 (59807616e 2026-04-14))\n";
        let build = "commit 0123456789ab-dirty, release build, rustc 1.95.0 (59807616e 2026-04-14)";
        assert_eq!(told(line), pair("RingMQ 0.1.0", build));
        assert_eq!(told("ringmq 0\n"), pair("RingMQ 0", ""));
    }
}
