//! The real binary on free ports and a store of its own.
//!
//! A [`Store`] owns the directory and the ports, so that a broker can be started on it again and again. A [`Broker`] owns
//! the process and ends it when it is dropped. When a test fails, the end of the broker's log is shown.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use ringmq::client::{Client, Connection, Queue, Route};
use ringmq_protocol::codes::request;
use ringmq_protocol::command::Command as Remoting;
use tempfile::TempDir;

/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Ports below the range from which systems take ports for outgoing connections.
const FIRST_PORT: u16 = 12_000;
const LAST_PORT: u16 = 31_000;
/// A broker listens on its port and 2 below, announces 1 above, and the name server gets 2 above.
const PORTS_PER_STORE: u16 = 5;
/// Lines of the log that a failed test shows.
const SHOWN_LINES: usize = 40;

/// Small files, so that a few hundred messages fill several of each kind.
pub const SMALL_FILES: [&str; 5] = [
    "mappedFileSizeConsumeQueue=1000",
    "maxHashSlotNum=100",
    "maxIndexNum=300",
    "mappedFileSizeCommitLog=64 KiB",
    "maxMessageSize=8 KiB",
];

/// Settings that make a broker small: the tests run many at once.
const SMALL: [&str; 5] = [
    "mappedFileSizeCommitLog=16 MiB",
    "log_ring_bytes=16 MiB",
    "zero_ahead_bytes=0",
    "metrics_listen=off",
    // However full the disk of the tests is.
    "cleanFileForciblyEnable=false",
];

/// A data directory and ports.
pub struct Store {
    directory: TempDir,
    port: u16,
    starts: u32,
    /// For the next start.
    prepare: Option<Prepare>,
    /// Words of the command line for the next start, besides the usual ones.
    words: &'static [&'static str],
}

/// What a process does before it becomes a broker. Runs between fork and exec, so it may only make system calls.
pub type Prepare = Box<dyn Fn() -> io::Result<()> + Send + Sync>;

/// A running broker with a name server in the same process.
pub struct Broker {
    child: Child,
    log: PathBuf,
    port: u16,
    is_checked: bool,
}

/// A process that ended before it was ready.
#[derive(Debug)]
pub struct NotStarted {
    /// How it ended.
    pub status: ExitStatus,
    /// What it said.
    pub log: String,
}

impl NotStarted {
    /// Fails unless it gave one reason, with this text, and no warning.
    pub fn assert_reason(&self, text: &str) {
        assert_quiet(&self.log, &[text]);
        let errors = self.log.lines().filter(|line| line.contains(" ERROR ")).count();
        assert_eq!(errors, 1, "{}", self.log);
    }
}

impl Store {
    /// A fresh directory and free ports.
    pub fn new() -> Store {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        Store { directory, port: free_ports(), starts: 0, prepare: None, words: &[] }
    }

    /// The data directory.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Where a broker of this store may show its figures.
    pub fn metrics_address(&self) -> String {
        format!("127.0.0.1:{}", self.port - 1)
    }

    /// Uses the ports of another store from now on.
    pub fn share_ports(&mut self, other: &Store) {
        self.port = other.port;
    }

    /// Starts a broker and waits until it is ready. `sets` are `key=value`.
    pub fn start(&mut self, sets: &[&str]) -> Broker {
        loop {
            match self.try_start(sets) {
                Ok(broker) => return broker,
                // Somebody else took a port in between.
                Err(ended) if ended.status.code() == Some(7) && self.starts == 1 => {
                    self.port = free_ports();
                    self.starts = 0;
                }
                Err(ended) => panic!("the broker ended with {}:\n{}", ended.status, ended.log),
            }
        }
    }

    /// Starts a broker and waits until it is ready or has ended.
    pub fn try_start(&mut self, sets: &[&str]) -> Result<Broker, NotStarted> {
        self.try_start_on(self.port, sets)
    }

    /// Starts another broker on the same directory but on other ports.
    pub fn try_start_second(&mut self, sets: &[&str]) -> Result<Broker, NotStarted> {
        self.try_start_on(free_ports(), sets)
    }

    /// Starts a broker whose files cannot become larger than `file_bytes`, which for the start is as good as a full disk.
    pub fn try_start_without_room(&mut self, file_bytes: u64, sets: &[&str]) -> Result<Broker, NotStarted> {
        self.try_start_prepared(Box::new(move || limit_files(file_bytes)), sets)
    }

    /// Starts a broker in a process that was prepared.
    pub fn try_start_prepared(&mut self, prepare: Prepare, sets: &[&str]) -> Result<Broker, NotStarted> {
        self.prepare = Some(prepare);
        self.try_start_on(self.port, sets)
    }

    /// Starts a broker with further words on its command line and waits until it is ready or has ended.
    pub fn try_start_with(&mut self, words: &'static [&'static str], sets: &[&str]) -> Result<Broker, NotStarted> {
        self.words = words;
        self.try_start_on(self.port, sets)
    }

    /// Starts a broker and waits for nothing.
    pub fn spawn(&mut self, sets: &[&str]) -> Broker {
        self.spawn_on(self.port, sets)
    }

    fn try_start_on(&mut self, port: u16, sets: &[&str]) -> Result<Broker, NotStarted> {
        let mut broker = self.spawn_on(port, sets);
        if wait_for_ready(&mut broker.child) {
            return Ok(broker);
        }
        broker.is_checked = true;
        let status = broker.wait_for_end();
        Err(NotStarted { status, log: broker.log_text() })
    }

    fn spawn_on(&mut self, port: u16, sets: &[&str]) -> Broker {
        self.starts += 1;
        let log = self.directory.path().join(format!("broker-{}.log", self.starts));
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
        command.arg("start").arg("--data").arg(self.path());
        command.args(["--broker-port", &port.to_string(), "--namesrv-port", &(port + 2).to_string()]);
        command.args(std::mem::take(&mut self.words));
        for set in SMALL.iter().chain(sets) {
            command.args(["--set", set]);
        }
        if let Some(prepare) = self.prepare.take() {
            // SAFETY: between fork and exec only system calls are made.
            unsafe { command.pre_exec(prepare) };
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a log file"))
            .spawn()
            .expect("the binary runs");
        Broker { child, log, port, is_checked: false }
    }
}

/// Larger files are refused with an error instead of a signal.
fn limit_files(file_bytes: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: file_bytes, rlim_max: file_bytes };
    // SAFETY: plain values, and a structure that outlives the call.
    let is_set = unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN) != libc::SIG_ERR && libc::setrlimit(libc::RLIMIT_FSIZE, &limit) == 0
    };
    if is_set { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits for the line that a broker prints when it serves; `false` if it ends before that.
fn wait_for_ready(child: &mut Child) -> bool {
    let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let (sender, lines) = channel();
    // The thread ends with the process, whose end of the pipe it reads.
    thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let deadline = Instant::now() + PATIENCE;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line.starts_with("ringmq ready:") => return true,
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                panic!("the broker is not ready after {PATIENCE:?}");
            }
        }
    }
}

/// What the broker sends until it closes the connection.
pub fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        // Closed with our bytes still unread.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection stays open: {error}"),
    }
    answer
}

/// A port whose neighbours are free as well.
pub fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let blocks = (LAST_PORT - FIRST_PORT) / PORTS_PER_STORE;
    // Test processes that run at the same time begin at different places.
    let start = u16::try_from(std::process::id() * 37 % u32::from(blocks)).expect("below a u16");
    for _ in 0..blocks {
        let block = (start + NEXT.fetch_add(1, Ordering::Relaxed)) % blocks;
        let port = FIRST_PORT + block * PORTS_PER_STORE + 2;
        let is_free = |offset: u16| TcpListener::bind(("127.0.0.1", port - 2 + offset)).is_ok();
        if (0..PORTS_PER_STORE).all(is_free) {
            return port;
        }
    }
    panic!("no free ports");
}

impl Broker {
    /// `host:port` of the broker.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `host:port` of the name server.
    pub fn name_server(&self) -> String {
        format!("127.0.0.1:{}", self.port + 2)
    }

    /// `host:port` of the broker's second port.
    pub fn fast_address(&self) -> String {
        format!("127.0.0.1:{}", self.port - 2)
    }

    /// A client.
    pub fn client(&self) -> Client {
        Client::connect(&[self.name_server()]).expect("the name server listens").with_timeout(PATIENCE)
    }

    /// A bare connection to the broker.
    pub fn connection(&self) -> Connection {
        Connection::open(&self.address()).expect("the broker listens").with_timeout(PATIENCE)
    }

    /// Creates a topic and waits until its route is known.
    pub fn topic(&self, topic: &str, queues: u32) -> Route {
        let mut client = self.client();
        client.create_topic(topic, queues).expect("the topic is created");
        wait_for("the route", || client.route(topic).ok())
    }

    /// Creates a consumer group.
    pub fn group(&self, group: &str) {
        let config = format!(
            r#"{{"groupName":"{group}","consumeEnable":true,"brokerId":0,"retryQueueNums":1,"retryMaxTimes":16}}"#
        );
        let request = Remoting::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(config.into_bytes());
        self.connection().call_ok(request).expect("the group is created");
    }

    /// One queue of a topic of this broker, without asking the name server.
    pub fn queue(&self, topic: &str, queue_id: i32) -> Queue {
        Queue { topic: topic.into(), broker_name: String::new(), address: self.address(), queue_id }
    }

    /// Resident memory of the process, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Number of the process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// The figures of a broker that shows them at [`Store::metrics_address`].
    pub fn metrics_page(&self, store: &Store) -> String {
        let mut stream = TcpStream::connect(store.metrics_address()).expect("the metrics port listens");
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("written");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("a page");
        text.split_once("\r\n\r\n").expect("a body").1.to_owned()
    }

    /// One of these figures; all threads' cells added up.
    pub fn metric(&self, store: &Store, name: &str) -> u64 {
        let page = self.metrics_page(store);
        let of_line = |line: &str| -> Option<u64> {
            let rest = line.strip_prefix(name)?;
            if !rest.starts_with([' ', '{']) {
                return None;
            }
            rest.rsplit(' ').next()?.parse().ok()
        };
        let values: Vec<u64> = page.lines().filter_map(of_line).collect();
        assert!(!values.is_empty(), "{name} is on the page");
        values.iter().sum()
    }

    /// What the process has logged.
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Fails if the log has a warning or an error without one of these texts.
    pub fn assert_quiet(&mut self, expected: &[&str]) {
        self.is_checked = true;
        assert_quiet(&self.log_text(), expected);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: kill has no memory effects; the child has not been waited for, so the id is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "the process can be signalled");
    }

    /// Waits until the process has ended.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        wait_for("the end of the broker", || self.child.try_wait().expect("a child"))
    }

    /// Stops it in order and checks its log for lines that are not `expected`.
    pub fn stop(self, expected: &[&str]) -> ExitStatus {
        self.stop_by(libc::SIGTERM, expected)
    }

    /// The same by a signal of choice.
    pub fn stop_by(mut self, signal: i32, expected: &[&str]) -> ExitStatus {
        self.signal(signal);
        let status = self.wait_for_end();
        self.assert_quiet(expected);
        status
    }

    /// Ends it at once, as a crash would, and checks its log for lines that are not `expected`.
    pub fn kill(mut self, expected: &[&str]) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("a child");
        self.assert_quiet(expected);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log_text();
            let lines: Vec<&str> = log.lines().collect();
            let mut shown = String::new();
            for line in lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)) {
                let _ = writeln!(shown, "  {line}");
            }
            eprintln!("end of {}:\n{shown}", self.log.display());
        } else if !self.is_checked {
            self.assert_quiet(&[]);
        }
    }
}

/// Fails if a log has a warning or an error without one of these texts.
fn assert_quiet(log: &str, expected: &[&str]) {
    let loud = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ") || line.contains("panicked");
    let unexpected: Vec<&str> =
        log.lines().filter(loud).filter(|line| !expected.iter().any(|text| line.contains(text))).collect();
    assert!(unexpected.is_empty(), "unexpected lines in the log:\n{}", unexpected.join("\n"));
}

/// Asks again and again until there is an answer.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} did not come within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Bytes of the commit log: reads across its files.
pub fn commit_log_bytes(store: &Path, offset: u64, length: usize) -> Vec<u8> {
    let directory = store.join("commitlog");
    let mut names: Vec<u64> = fs::read_dir(&directory)
        .expect("a commit log")
        .filter_map(|entry| entry.expect("an entry").file_name().to_str()?.parse().ok())
        .collect();
    names.sort_unstable();
    let start = names.into_iter().rfind(|start| *start <= offset).expect("a file that begins before the offset");
    let bytes = fs::read(directory.join(format!("{start:020}"))).expect("a readable file");
    let at = usize::try_from(offset - start).expect("inside the file");
    bytes[at..at + length].to_vec()
}

/// Copies a folder with everything in it.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy_tree(&from, &to) } else { fs::copy(&from, &to).map(drop).expect("copied") }
    }
}
