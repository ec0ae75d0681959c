//! Brokers that the harness starts itself: on fresh stores, on their own cores, and never left behind.
//!
//! A broker is in a process group of its own, so that Ctrl-C reaches the harness alone, and dies with the harness even if
//! that is killed.

mod checkout;
mod java;
mod ringmq;

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringmq_protocol::codes::request::GET_MAX_OFFSET;
use ringmq_protocol::command::Command as Remoting;
use thiserror::Error;

pub use checkout::ready_ringmq;
pub use java::JAVA_VERSION;
pub use ringmq::find_ringmq;

use crate::drivers::remoting::{ask, connect};
use crate::host::{extents, pinning};
use crate::result::{Durability, ExitRecord, ResultDirectory, SystemRecord};

/// How long a broker may take to serve.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a broker may take to stop in order.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Exit code of a Java machine that was stopped by SIGTERM.
const JAVA_TERMINATED: i32 = 143;
/// File in a store's folder that is locked while the store is in use.
const LOCK_NAME: &str = "in-use";
/// Lines of a broker's log that are shown when it does not start.
const SHOWN_LOG_LINES: usize = 12;

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// This project's.
    RingMq,
    /// Apache RocketMQ.
    Java,
}

impl Peer {
    /// Name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Peer::RingMq => "ringmq",
            Peer::Java => "java",
        }
    }

    /// The peer of a name.
    pub fn of(name: &str) -> Option<Peer> {
        [Peer::RingMq, Peer::Java].into_iter().find(|peer| peer.name() == name)
    }
}

/// When an acknowledgement is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Flush {
    /// ASYNC_FLUSH: the kernel has the bytes.
    Async,
    /// SYNC_FLUSH: the disk has them.
    Sync,
}

impl Flush {
    /// RocketMQ's value.
    pub fn value(self) -> &'static str {
        match self {
            Flush::Async => "ASYNC_FLUSH",
            Flush::Sync => "SYNC_FLUSH",
        }
    }

    /// The class that follows.
    pub fn durability(self) -> Durability {
        match self {
            Flush::Async => Durability::D1,
            Flush::Sync => Durability::D2,
        }
    }
}

/// How to start a broker.
#[derive(Debug, Clone)]
pub struct PeerOptions<'a> {
    /// Which.
    pub peer: Peer,
    /// When it acknowledges.
    pub flush: Flush,
    /// Its cores; empty: all.
    pub cores: &'a [u32],
    /// Further settings, as RocketMQ spells them.
    pub settings: Vec<(String, String)>,
    /// RingMQ's binary; `None`: looked for.
    pub binary: Option<&'a Path>,
    /// Folder for stores.
    pub folder: &'a Path,
    /// Heap of a Java broker in MiB.
    pub heap_mib: u32,
}

/// Why a broker does not run.
#[derive(Debug, Error)]
pub enum PeerError {
    /// There is no program.
    #[error("{0}")]
    Missing(String),
    /// The operating system refuses.
    #[error("{action}: {source}")]
    System {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
    /// It ended while starting.
    #[error("{name} ended with {status} while it started; the end of its log:\n{log}")]
    Ended {
        /// Which.
        name: &'static str,
        /// How.
        status: String,
        /// What it said.
        log: String,
    },
    /// It does not answer.
    #[error("{name} does not answer {limit} s after its start; the end of its log:\n{log}")]
    Mute {
        /// Which.
        name: &'static str,
        /// How long it was waited for.
        limit: u64,
        /// What it said.
        log: String,
    },
    /// The user gave up.
    #[error("interrupted")]
    Interrupted,
}

fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> PeerError {
    let action = action.into();
    move |source| PeerError::System { action, source }
}

/// A text without this host's folders: results are handed on.
fn public(text: &str, folder: &Path) -> String {
    let text = text.replace(&*folder.to_string_lossy(), "TEMPORARY");
    text.replace(&*java::cache_folder().to_string_lossy(), "CACHE")
}

/// What a peer wants to have started.
struct Launch {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// As written into the result.
    configuration: Vec<(String, String)>,
    port: u16,
    metrics: Option<SocketAddr>,
    title: String,
    runtime: String,
}

/// A running broker. Dropping it kills it and removes its store.
#[derive(Debug)]
pub struct Broker {
    peer: Peer,
    child: Child,
    folder: PathBuf,
    /// Held as long as the folder is in use.
    _lock: File,
    log: PathBuf,
    address: SocketAddr,
    metrics: Option<SocketAddr>,
    record: SystemRecord,
}

impl Broker {
    /// Starts a broker on a fresh store and waits until it answers.
    ///
    /// # Errors
    /// It cannot be started or does not answer; nothing is left behind.
    pub fn start(options: &PeerOptions<'_>, stop: &AtomicBool) -> Result<Broker, PeerError> {
        let stamp = crate::clock::monotonic_ns();
        let folder = options.folder.join(format!("{}-{}-{stamp}", options.peer.name(), std::process::id()));
        remove_orphans(options.folder);
        fs::create_dir_all(&folder).map_err(system(format!("make {}", folder.display())))?;
        let lock = File::create(folder.join(LOCK_NAME)).map_err(system("make the store's lock"))?;
        lock.lock().map_err(system("lock the store"))?;
        let guard = RemoveFolder(Some(folder.clone()));
        let launch = match options.peer {
            Peer::RingMq => ringmq::launch(options, &folder)?,
            Peer::Java => java::launch(options, &folder)?,
        };
        let log = folder.join("output.log");
        let out = File::create(&log).map_err(system("make the broker's log"))?;
        let errors = out.try_clone().map_err(system("share the broker's log"))?;
        let mut command = Command::new(&launch.program);
        command.args(&launch.arguments).envs(launch.environment.iter().cloned()).current_dir(&folder);
        command.stdin(Stdio::null()).stdout(out).stderr(errors).process_group(0);
        let cores = options.cores.to_vec();
        // SAFETY: between fork and exec only system calls are made, nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                if cores.is_empty() { Ok(()) } else { pinning::pin(0, &cores) }
            });
        }
        let child = command.spawn().map_err(system(format!("start {}", launch.program.display())))?;
        let mut guard = guard;
        let folder = guard.0.take().unwrap_or(folder);
        let program = launch.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let line = std::iter::once(program).chain(launch.arguments.iter().map(|text| public(text, &folder))).collect();
        let configuration =
            launch.configuration.into_iter().map(|(key, value)| (key, public(&value, &folder))).collect();
        let mut broker = Broker {
            peer: options.peer,
            child,
            folder,
            _lock: lock,
            log,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, launch.port)),
            metrics: launch.metrics,
            record: SystemRecord {
                name: options.peer.name().to_owned(),
                title: launch.title,
                durability: Some(options.flush.durability()),
                configuration,
                command: line,
                runtime: launch.runtime,
                profile: "none".to_owned(),
                files: Vec::new(),
                exits: Vec::new(),
            },
        };
        broker.wait_until_it_answers(stop)?;
        Ok(broker)
    }

    fn wait_until_it_answers(&mut self, stop: &AtomicBool) -> Result<(), PeerError> {
        let began = Instant::now();
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(PeerError::Interrupted);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(PeerError::Ended {
                    name: self.peer.name(),
                    status: status.to_string(),
                    log: self.log_end(),
                });
            }
            let question = Remoting { opaque: 1, ..Remoting::request(GET_MAX_OFFSET) }
                .with_ext("topic", "TBW102")
                .with_ext("queueId", 0);
            let answered = connect(self.address).and_then(|mut stream| ask(&mut stream, self.address, &question));
            if answered.is_ok() {
                return Ok(());
            }
            if began.elapsed() > START_LIMIT {
                let limit = START_LIMIT.as_secs();
                return Err(PeerError::Mute { name: self.peer.name(), limit, log: self.log_end() });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn log_end(&self) -> String {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LOG_LINES)..].join("\n")
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its metrics page, if it has one.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// For the result.
    pub fn record(&self) -> &SystemRecord {
        &self.record
    }

    /// Stops it, copies configuration, log and a list of the files of its store's log into a result under `name`, and removes the
    /// store. Returns the names of the copies, and how it ended.
    pub fn finish(mut self, directory: &ResultDirectory, name: &str) -> (Vec<String>, ExitRecord) {
        let exit = self.stop().record(self.peer, name);
        let mut files = Vec::new();
        let configuration: String =
            self.record.configuration.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        let log = fs::read(&self.log).unwrap_or_default();
        let log_files = extents::describe(&self.folder.join("store/commitlog"));
        let log = public(&String::from_utf8_lossy(&log), &self.folder);
        for (file, content) in [
            (format!("brokers/{name}.conf"), configuration.as_bytes()),
            (format!("brokers/{name}.log"), log.as_bytes()),
            (format!("brokers/{name}.files"), log_files.as_bytes()),
        ] {
            // A result without these copies is still a result.
            if directory.write(&file, content).is_ok() {
                files.push(file);
            }
        }
        (files, exit)
    }

    fn stop(&mut self) -> Ending {
        match self.child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return Ending::Early(status),
            Err(error) => return Ending::Unknown(error),
        }
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // SAFETY: plain call; the child has not been waited for, so the number is still its.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let began = Instant::now();
        while began.elapsed() < STOP_LIMIT {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                Ok(Some(status)) => return Ending::Told(status),
                Err(error) => return Ending::Unknown(error),
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        Ending::Killed
    }
}

/// How a broker came to its end.
#[derive(Debug)]
enum Ending {
    /// When it was told to.
    Told(ExitStatus),
    /// Before that.
    Early(ExitStatus),
    /// It did not in [`STOP_LIMIT`].
    Killed,
    /// The operating system does not say.
    Unknown(io::Error),
}

impl Ending {
    fn record(&self, peer: Peer, name: &str) -> ExitRecord {
        let is_success = |status: &ExitStatus| {
            // A Java machine that ends by SIGTERM has run its hooks and says 128 + 15.
            status.success() || peer == Peer::Java && status.code() == Some(JAVA_TERMINATED)
        };
        let (status, is_in_order) = match self {
            Ending::Told(status) => (status.to_string(), is_success(status)),
            Ending::Early(status) => (format!("it ended before it was told to, with {status}"), false),
            Ending::Killed => (format!("killed: it did not stop within {} s", STOP_LIMIT.as_secs()), false),
            Ending::Unknown(error) => (format!("how it ended is not known: {error}"), false),
        };
        ExitRecord { start: name.to_owned(), status, is_in_order }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Removes stores whose harness was killed: nobody holds their lock any more. What cannot be removed stays.
fn remove_orphans(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_ours = [Peer::RingMq, Peer::Java].iter().any(|peer| name.starts_with(&format!("{}-", peer.name())));
        let lock = File::open(path.join(LOCK_NAME)).ok().filter(|_| is_ours);
        // The lock is held until the folder is gone, so that nobody begins to use it meanwhile.
        if let Some(lock) = lock.filter(|lock| lock.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(&path);
            drop(lock);
        }
    }
}

struct RemoveFolder(Option<PathBuf>);

impl Drop for RemoveFolder {
    fn drop(&mut self) {
        if let Some(folder) = &self.0 {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// A free port of this host, so that `port - 2` and `port + 1` are free too: brokers take them as well.
fn free_port() -> Result<u16, PeerError> {
    let failed = || system("find a free port");
    for _ in 0..64 {
        let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed())?;
        let port = probe.local_addr().map_err(failed())?.port();
        let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if port > 1024 && port < 65_500 && is_free(port - 2) && is_free(port + 1) {
            return Ok(port);
        }
    }
    Err(PeerError::Missing("there are no three free ports beside each other".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// Goal: stores of a harness that was killed are removed, those in use and the folders of others are not. Method: one of each.
    #[test]
    fn orphans_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["ringmq-1-2", "java-3-4", "ringmq-5-6", "mine-7-8"] {
            fs::create_dir(path(name)).unwrap();
            File::create(path(name).join(LOCK_NAME)).unwrap();
        }
        fs::create_dir(path("ringmq-data")).unwrap();
        let in_use = File::open(path("ringmq-5-6").join(LOCK_NAME)).unwrap();
        in_use.lock().unwrap();
        remove_orphans(folder.path());
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["mine-7-8", "ringmq-5-6", "ringmq-data"]);
    }

    /// Goal: only a broker that stopped when it was told to, with success, ended in order; 143 is success for Java alone. Method:
    /// statuses as the kernel gives them.
    #[test]
    fn endings() {
        let code = |code: i32| ExitStatus::from_raw(code << 8);
        let is_in_order = |ending: Ending, peer| ending.record(peer, "x").is_in_order;
        assert!(is_in_order(Ending::Told(code(0)), Peer::RingMq));
        assert!(is_in_order(Ending::Told(code(143)), Peer::Java));
        assert!(!is_in_order(Ending::Told(code(143)), Peer::RingMq));
        assert!(!is_in_order(Ending::Early(code(0)), Peer::RingMq));
        assert!(!is_in_order(Ending::Killed, Peer::Java));
        let failed = Ending::Told(code(5)).record(Peer::RingMq, "ringmq-D2-1");
        assert_eq!((failed.start.as_str(), failed.status.as_str()), ("ringmq-D2-1", "exit status: 5"));
        assert!(!failed.is_in_order);
        let aborted = Ending::Told(ExitStatus::from_raw(libc::SIGABRT)).record(Peer::RingMq, "x");
        assert!(!aborted.is_in_order && aborted.status.contains("SIGABRT"), "{aborted:?}");
    }
}
