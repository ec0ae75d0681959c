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
    let version = String::from_utf8_lossy(&version.stdout).trim().replace("ringmq", "RingMQ");
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
        title: version,
        runtime: String::new(),
    })
}
