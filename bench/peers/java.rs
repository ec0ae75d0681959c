//! How Apache RocketMQ is started: its broker's published artifacts, fetched once with Maven into the user's cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Launch, PeerError, PeerOptions, free_port, system};

/// Version of the artifacts.
pub const JAVA_VERSION: &str = "5.3.3";
const POM: &str = include_str!("java/pom.xml");

pub(super) fn cache_folder() -> PathBuf {
    let home = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into())).join(".cache"));
    home.join("ringmq-bench").join(format!("rocketmq-{JAVA_VERSION}"))
}

/// The folder with the jars, fetched if they are not there.
fn jars() -> Result<PathBuf, PeerError> {
    let folder = cache_folder();
    let jars = folder.join("lib");
    let is_complete = folder.join("complete");
    if is_complete.is_file() {
        return Ok(jars);
    }
    fs::create_dir_all(&jars).map_err(system(format!("make {}", jars.display())))?;
    let pom = folder.join("pom.xml");
    fs::write(&pom, POM).map_err(system(format!("write {}", pom.display())))?;
    crate::runner::note(&format!("fetching Apache RocketMQ {JAVA_VERSION} with Maven into {}", folder.display()));
    let output = Command::new("mvn")
        .args(["-B", "-q", "-f"])
        .arg(&pom)
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .output()
        .map_err(system("run mvn to fetch Apache RocketMQ; Maven and a JDK 17 are needed for this peer"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let first = said.lines().find(|line| line.contains("ERROR")).unwrap_or("no reason given").to_owned();
        return Err(PeerError::Missing(format!("Maven cannot fetch Apache RocketMQ {JAVA_VERSION}: {first}")));
    }
    fs::write(&is_complete, "").map_err(system(format!("write {}", is_complete.display())))?;
    Ok(jars)
}

fn java_version() -> Result<String, PeerError> {
    let output = Command::new("java").arg("-version").output().map_err(system("run java; a JDK 17 is needed"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(said.lines().collect::<Vec<_>>().join("; "))
}

pub(super) fn launch(options: &PeerOptions<'_>, folder: &Path) -> Result<Launch, PeerError> {
    let jars = jars()?;
    let runtime = java_version()?;
    let port = free_port()?;
    let home = folder.join("home");
    fs::create_dir_all(home.join("conf")).map_err(system(format!("make {}", home.display())))?;
    let store = folder.join("store");
    let own = [
        ("brokerClusterName", "bench".to_owned()),
        ("brokerName", "bench".to_owned()),
        ("brokerId", "0".to_owned()),
        ("brokerIP1", "127.0.0.1".to_owned()),
        ("bindAddress", "127.0.0.1".to_owned()),
        ("listenPort", port.to_string()),
        ("storePathRootDir", store.display().to_string()),
        ("storePathCommitLog", store.join("commitlog").display().to_string()),
        ("diskMaxUsedSpaceRatio", "95".to_owned()),
        ("flushDiskType", options.flush.value().to_owned()),
    ];
    let mut configuration: Vec<(String, String)> =
        own.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    configuration.extend(options.settings.iter().cloned());
    let file = folder.join("broker.conf");
    let text: String = configuration.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
    fs::write(&file, text).map_err(system("write broker.conf"))?;
    let heap = options.heap_mib;
    let mut arguments = vec![
        format!("-Xms{heap}m"),
        format!("-Xmx{heap}m"),
        format!("-XX:MaxDirectMemorySize={heap}m"),
        "-XX:+UseG1GC".to_owned(),
        "-XX:G1HeapRegionSize=8m".to_owned(),
        "-XX:+AlwaysPreTouch".to_owned(),
        format!("-Duser.home={}", home.display()),
        format!("-Drocketmq.home.dir={}", home.display()),
        "-Drmq.logback.configurationFile=rmq.broker.logback.xml".to_owned(),
        "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED".to_owned(),
        "--add-opens=java.base/java.nio=ALL-UNNAMED".to_owned(),
        "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED".to_owned(),
    ];
    let start =
        ["-cp".to_owned(), format!("{}/*", jars.display()), "org.apache.rocketmq.broker.BrokerStartup".to_owned()];
    arguments.extend(start);
    arguments.extend(["-c".to_owned(), file.display().to_string()]);
    Ok(Launch {
        program: PathBuf::from("java"),
        arguments,
        environment: Vec::new(),
        configuration,
        port,
        metrics: None,
        title: format!("Apache RocketMQ {JAVA_VERSION}"),
        runtime,
    })
}
