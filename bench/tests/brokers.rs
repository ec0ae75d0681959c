//! The program against brokers that it starts itself and that fail: what they leave behind, and what is said of them.
//!
//! The broker is this very test program: a script stands in for `ringmq` and starts it with [`fake_broker`] alone.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringmq_bench::result::{Durability, ResultDirectory, ResultSet, RunStatus, SetStatus};
use ringmq_protocol::codes::request::{
    DELETE_TOPIC_IN_BROKER, GET_BROKER_CONFIG, SEND_MESSAGE, SEND_MESSAGE_V2, UPDATE_AND_CREATE_TOPIC,
};
use ringmq_protocol::codes::response::REQUEST_CODE_NOT_SUPPORTED;
use ringmq_protocol::command::Command as Remoting;
use ringmq_protocol::frame::{MAX_FRAME_BYTES, Split, split_frame};

/// Arguments of the broker.
const ARGUMENTS: &str = "FAKE_BROKER_ARGUMENTS";
/// Sends after which it ends.
const DIES_AFTER: &str = "FAKE_BROKER_DIES_AFTER";
/// It refuses all sends but each n-th.
const SERVES_EACH: &str = "FAKE_BROKER_SERVES_EACH";
/// What it says of its first send, before its process id.
const FIRST_SEND: &str = "the first send came to ";
/// Exit status of one that ends by itself.
const DIED: i32 = 7;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

extern "C" fn end_in_order(_: libc::c_int) {
    // SAFETY: _exit may be called from a signal handler.
    unsafe { libc::_exit(0) };
}

/// What a broker keeps and says.
#[derive(Default)]
struct Broker {
    sends: AtomicU64,
    topics: AtomicU64,
    /// `None`: it does not tell.
    configuration: Option<&'static str>,
}

/// Serves each connection in a thread of its own, until the process ends.
fn listen(listener: &TcpListener, broker: &Arc<Broker>) {
    for stream in listener.incoming().flatten() {
        let broker = Arc::clone(broker);
        std::thread::spawn(move || serve(stream, &broker));
    }
}

fn serve(mut stream: TcpStream, broker: &Broker) {
    let (mut received, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        while let Ok(Split::Frame { frame, length }) = split_frame(&received, MAX_FRAME_BYTES) {
            let Ok(request) = Remoting::decode(frame) else { return };
            let mut code = 0;
            if [SEND_MESSAGE, SEND_MESSAGE_V2].contains(&request.code) {
                let count = broker.sends.fetch_add(1, Ordering::Relaxed) + 1;
                if count == 1 {
                    println!("{FIRST_SEND}{}", std::process::id());
                }
                if number(DIES_AFTER).is_some_and(|most| count > most) {
                    println!("the fake broker dies");
                    std::process::exit(DIED);
                }
                code = i32::from(number(SERVES_EACH).is_some_and(|each| !count.is_multiple_of(each)));
            }
            match request.code {
                UPDATE_AND_CREATE_TOPIC => drop(broker.topics.fetch_add(1, Ordering::Relaxed)),
                DELETE_TOPIC_IN_BROKER => drop(broker.topics.fetch_sub(1, Ordering::Relaxed)),
                _ => {}
            }
            let is_question = request.code == GET_BROKER_CONFIG;
            if is_question && broker.configuration.is_none() {
                code = REQUEST_CODE_NOT_SUPPORTED;
            }
            let mut answer = Remoting::response(code, request.opaque)
                .with_ext("msgId", "0")
                .with_ext("queueId", 0)
                .with_ext("queueOffset", 0)
                .with_ext("offset", 0);
            answer.body = broker.configuration.filter(|_| is_question).map(|text| text.as_bytes().to_vec());
            if stream.write_all(&answer.encode()).is_err() {
                return;
            }
            received.drain(..length);
        }
        match stream.read(&mut piece) {
            Ok(count) if count > 0 => received.extend_from_slice(&piece[..count]),
            _ => return,
        }
    }
}

#[test]
fn fake_broker() {
    // Goal: none by itself; see the head of this file. Method: serves until it is told to end, if it was started as a broker.
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    let mut words = arguments.split(' ').skip_while(|word| *word != "--broker-port");
    let port: u16 = words.nth(1).and_then(|word| word.parse().ok()).expect("a port");
    // SAFETY: the handler only ends the process.
    unsafe { libc::signal(libc::SIGTERM, end_in_order as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    listen(&listener, &Arc::default());
}

/// The script that stands in for `ringmq`.
fn script(folder: &Path) -> PathBuf {
    let path = folder.join("ringmq");
    let program = std::env::current_exe().expect("this program");
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then echo ringmq 0; exit 0; fi\n{ARGUMENTS}=\"$*\" exec '{}' --exact \
         fake_broker --nocapture --test-threads 1\n",
        program.display()
    );
    // A file that this process has open for writing cannot be started: neither while another thread's child still has its copy.
    let write = r#"printf %s "$1" >"$0" && chmod 755 "$0""#;
    assert!(Command::new("sh").args(["-c", write]).arg(&path).arg(text).status().expect("a shell").success());
    path
}

struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Case {
        Case { folder: tempfile::tempdir().expect("a folder") }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("r")
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn start(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Child {
        std::fs::create_dir_all(self.store()).expect("a folder");
        Command::new(env!("CARGO_BIN_EXE_ringmq-bench"))
            .args(arguments)
            .args(["--allow-shared-cores", "--broker-binary"])
            .arg(script(self.folder.path()))
            .arg("--store")
            .arg(self.store())
            .arg("--out")
            .arg(self.out())
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts")
    }

    /// Exit code and what was said.
    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
        let output = self.start(arguments, environment).wait_with_output().expect("it ends");
        (output.status.code().expect("an exit code"), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn result(&self) -> ResultSet {
        ResultDirectory::open(self.out()).read_result().expect("a result")
    }

    fn store_is_empty(&self) -> bool {
        std::fs::read_dir(self.store()).expect("the folder").next().is_none()
    }
}

#[test]
fn a_broker_that_dies_leaves_log_and_status() {
    // Goal: when a broker dies in a sweep, its log, its exit status and the curve so far are in the result, and the reason names
    // them. Method: one that ends with status 7 in the second step.
    let case = Case::new();
    let sweep = ["sweep", "steady-1k-1k", "--target", "ringmq", "--slo", "p99<=10s,errors=0", "--from", "400"];
    let more = ["--seconds", "1", "--warm-up", "0", "--no-verify"];
    let (code, text) = case.run(&[&sweep[..], &more].concat(), &[(DIES_AFTER, "600")]);
    assert_eq!(code, 3, "{text}");
    let set = case.result();
    let SetStatus::Partial { reason } = &set.status else { panic!("it is partial") };
    assert!(reason.contains("it ended before it was told to, with exit status: 7"), "{reason}");
    let system = set.systems.iter().find(|system| system.name == "ringmq").expect("the broker");
    assert_eq!(system.exits.len(), 1);
    let log = std::fs::read_to_string(case.out().join("brokers/ringmq.log")).expect("its log");
    assert!(log.contains("the fake broker dies"), "{log}");
    assert_eq!(set.curves.len(), 1);
    assert!(set.curves[0].is_cut_short && !set.curves[0].confirmed && set.curves[0].points.len() >= 2);
    assert!(case.store_is_empty());
}

#[test]
fn a_broker_that_refuses_is_not_fast() {
    // Goal: a broker that refuses most sends and is quick with the others has no valid run, in either loop. Method: one that
    // serves each tenth.
    for workload in ["rtt-1k", "steady-1k-1k"] {
        let case = Case::new();
        let arguments = ["run", workload, "--target", "ringmq", "--seconds", "0.5", "--warm-up", "0", "--no-verify"];
        let (code, text) = case.run(&arguments, &[(SERVES_EACH, "10")]);
        assert_eq!(code, 3, "{workload}: {text}");
        let set = case.result();
        let reasons = &set.runs[0].validity.invalid;
        // On a slow machine there may be too few sends for one that is served.
        let is_told = |reason: &String| reason.contains("operations failed") || reason == "nothing was answered";
        assert!(reasons.iter().any(is_told), "{workload}: {reasons:?}");
        assert_eq!(set.runs[0].status, RunStatus::Complete);
    }
}

#[test]
fn an_interrupt_leaves_no_broker() {
    // Goal: Ctrl-C ends a run and its broker in order, with a marked partial run, the broker's exit, and no store. Method: an
    // interrupt while the broker is measured; then its process is looked for.
    let case = Case::new();
    let arguments = ["run", "rtt-1k", "--target", "ringmq", "--seconds", "60", "--warm-up", "0", "--no-verify"];
    let mut child = case.start(&arguments, &[]);
    let broker = loop {
        assert!(child.try_wait().expect("its state").is_none(), "it runs");
        let stores = std::fs::read_dir(case.store()).expect("the folder").flatten();
        let logs = stores.filter_map(|store| std::fs::read_to_string(store.path().join("output.log")).ok());
        let found = logs.filter_map(|log| log.split_once(FIRST_SEND)?.1.split_once('\n')?.0.parse::<u32>().ok()).next();
        if let Some(pid) = found {
            break PathBuf::from(format!("/proc/{pid}"));
        }
        std::thread::yield_now();
    };
    assert!(broker.exists());
    let ended = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(ended.success());
    assert_eq!(child.wait().expect("it ends").code(), Some(3));
    let set = case.result();
    assert_eq!(set.status, SetStatus::Partial { reason: "interrupted".to_owned() });
    let [run] = &set.runs[..] else { panic!("one run: {}", set.runs.len()) };
    assert!(
        matches!(&run.status, RunStatus::Partial { reason } if reason.ends_with("interrupted")),
        "{:?}",
        run.status
    );
    assert!(!broker.exists() && case.store_is_empty());
    let exits: Vec<_> = set.systems.iter().flat_map(|system| &system.exits).collect();
    assert!(exits.len() == 1 && exits[0].is_in_order, "{exits:?}");
}

#[test]
fn a_running_broker_is_left_as_it_was() {
    // Goal: a run against a broker that goes on deletes the topics that it made, and keeps them when asked to. Method: a broker in
    // this process counts them.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = format!("remoting://{}", listener.local_addr().expect("an address"));
    let broker = Arc::new(Broker::default());
    let served = Arc::clone(&broker);
    std::thread::spawn(move || listen(&listener, &served));
    let arguments = [
        "run",
        "topics-1000",
        "--rate",
        "100",
        "--target",
        &target,
        "--seconds",
        "0.3",
        "--warm-up",
        "0",
        "--no-verify",
    ];
    for (more, left) in [(&[][..], 0), (&["--keep-topics"], 1000)] {
        let (code, text) = Case::new().run(&[&arguments[..], more].concat(), &[]);
        assert!([0, 3].contains(&code), "{text}");
        assert_eq!(broker.topics.load(Ordering::Relaxed), left, "{more:?}: {text}");
    }
}

#[test]
fn a_running_broker_is_asked_for_its_class() {
    // Goal: a running broker has the class that follows from its own configuration, which is kept, unless it is called otherwise; where it
    // does not tell, the class is said to be assumed. Method: brokers in this process that say one thing each.
    let pool = "storePathRootDir=/home/x\nflushDiskType=ASYNC_FLUSH\ntransientStorePoolEnable=true\n";
    for (said, more, class, is_assumed) in [
        (Some("flushDiskType=SYNC_FLUSH\nbrokerIP1=10.1.2.3\n"), &[][..], Durability::D2, false),
        (Some("flushDiskType=ASYNC_FLUSH\ntransientStorePoolEnable=false\n"), &[], Durability::D1, false),
        (Some(pool), &[], Durability::D0, false),
        (Some("flushDiskType=SYNC_FLUSH\n"), &["--flush", "async"], Durability::D1, false),
        (Some("brokerName=x\n"), &[], Durability::D1, true),
        (None, &[], Durability::D1, true),
        (None, &["--flush", "sync"], Durability::D2, false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = format!("remoting://{}", listener.local_addr().expect("an address"));
        let broker = Arc::new(Broker { configuration: said, ..Broker::default() });
        std::thread::spawn(move || listen(&listener, &broker));
        let case = Case::new();
        let arguments = ["run", "rtt-1k", "--target", &target, "--seconds", "0.1", "--warm-up", "0", "--no-verify"];
        let (code, text) = case.run(&[&arguments[..], &["--keep-topics"], more].concat(), &[]);
        // A busy machine may make it invalid, which is 3.
        assert!([0, 3].contains(&code), "{text}");
        let set = case.result();
        let [system] = &set.systems[..] else { panic!("one system: {:?}", set.systems) };
        assert_eq!((set.runs[0].durability, system.durability), (Some(class), Some(class)), "{said:?}");
        assert_eq!(system.title.contains("D1 assumed"), is_assumed, "{}", system.title);
        assert_eq!(text.contains("D1 is assumed"), is_assumed, "{text}");
        let wanted: Vec<&str> = said
            .unwrap_or_default()
            .lines()
            .filter(|line| line.contains("flushDiskType") || line.contains("Pool"))
            .collect();
        let kept: Vec<String> = system.configuration.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(kept, wanted);
    }
}
