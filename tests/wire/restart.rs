//! Stopping and starting: what is kept, who may start.

use std::ffi::CString;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ringmq::client::{Message, PullStatus};
use ringmq_protocol::bodies::{ConsumerData, HeartbeatData, SubscriptionData};
use ringmq_protocol::message_id::decode_message_id;

use super::broker::{Store, wait_for};

#[test]
fn a_restart_keeps_everything() {
    // Goal: messages, topics, groups and offsets outlive an orderly stop. Method: make some of each, stop, start, compare;
    // twice, with several small log files, and new messages continue the offsets.
    let sets = ["mappedFileSizeCommitLog=64 KiB", "maxMessageSize=8 KiB", "mappedFileSizeConsumeQueue=2000"];
    let mut store = Store::new();
    let mut records: Vec<Vec<u8>> = Vec::new();
    for round in 0..3 {
        let broker = store.start(&sets);
        let mut client = broker.client();
        if round == 0 {
            broker.topic("kept", 1);
            let subscription = SubscriptionData { topic: "kept".into(), ..SubscriptionData::default() };
            let group = ConsumerData {
                group_name: "wire".into(),
                subscription_data_set: vec![subscription],
                ..ConsumerData::default()
            };
            let data = HeartbeatData { consumer_data_set: vec![group], ..HeartbeatData::default() };
            client.heartbeat(&broker.address(), &data).expect("accepted");
        }
        let queue = client.route("kept").expect("the topic is kept").to_read.remove(0);
        let mut next = 0;
        let kept = i64::try_from(records.len()).expect("few");
        assert_eq!(client.max_offset(&queue).expect("an answer"), kept);
        let committed = (round > 0).then_some(kept);
        assert_eq!(client.query_offset("wire", &queue).expect("an answer"), committed);
        for number in 0..300 {
            let receipt =
                client.send_to(&queue, &Message::new(format!("{round}-{number}").repeat(20))).expect("stored");
            assert_eq!(receipt.queue_offset, kept + number);
            // The first picture of a start knows the topic already.
            let (host, _) = decode_message_id(&receipt.message_id).expect("an offset id");
            assert_eq!(host.to_string(), broker.address());
        }
        let mut all = Vec::new();
        while next < kept + 300 {
            let pulled = client.pull(&queue, next, 32, 0).expect("an answer");
            assert_eq!(pulled.status, PullStatus::Found);
            all.extend(pulled.messages().map(|message| message.expect("whole").bytes().to_vec()));
            next = pulled.next_offset;
        }
        assert!(all.starts_with(&records), "the old records are unchanged");
        records = all;
        client.commit_offset("wire", &queue, next).expect("committed");
        assert!(is_in_use(&store.path()));
        drop(client);
        let status = broker.stop(&[]);
        assert_eq!(status.code(), Some(0));
        assert!(!is_in_use(&store.path()), "an orderly stop removes the mark");
    }
}

#[test]
fn a_signal_ends_a_start() {
    // Goal: a start that takes long ends soon after a stop signal, with a code of its own, and the next one finds the store as after
    // a kill. Method: a state file that recovery reads is a pipe without a writer, so that the start never ends by itself; signals
    // once it holds the store's lock.
    const CODE: i32 = 130;
    const SOON: Duration = Duration::from_secs(5);
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("kept", 1);
    broker.client().send_to(&broker.queue("kept", 0), &Message::new("body")).expect("stored");
    broker.kill(&[]);
    let (file, aside) = (store.path().join("ringmq/queue-offsets"), store.path().join("aside"));
    fs::rename(&file, &aside).expect("renamed");
    let name = CString::new(file.as_os_str().as_bytes()).expect("a path");
    // SAFETY: the name ends with a zero byte and lives through the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let broker = store.spawn(&[]);
        let (open_files, lock) = (format!("/proc/{}/fd", broker.process()), store.path().join("lock"));
        wait_for("the lock", || {
            let links = fs::read_dir(&open_files).ok()?.flatten();
            links.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| target == lock).then_some(())
        });
        let signalled = Instant::now();
        let status = broker.stop_by(signal, &["stopped before the store was open"]);
        assert_eq!(status.code(), Some(CODE));
        assert!(signalled.elapsed() < SOON, "{:?}", signalled.elapsed());
        assert!(is_in_use(&store.path()));
    }
    fs::remove_file(&file).expect("removed");
    fs::rename(&aside, &file).expect("renamed");
    let broker = store.start(&[]);
    assert_eq!(broker.client().max_offset(&broker.queue("kept", 0)).expect("an answer"), 1);
    broker.stop(&["was not stopped in order"]);
}

/// RocketMQ's mark of a store that is in use or was not closed in order.
fn is_in_use(store: &Path) -> bool {
    store.join("abort").exists()
}

#[test]
fn a_store_has_one_broker() {
    // Goal: two processes never write one store. Method: a second start on it, and every tool that looks at stores, is refused with
    // its own code while the first goes on; after a stop it may start.
    let mut store = Store::new();
    let broker = store.start(&[]);
    let refused = match store.try_start_second(&[]) {
        Ok(_) => panic!("a second broker started on the store"),
        Err(refused) => refused,
    };
    assert_eq!(refused.status.code(), Some(3), "{}", refused.log);
    refused.assert_reason("is locked by");
    let directory = store.path().display().to_string();
    let tool = |line: &str| {
        let arguments = line.split(' ').map(|word| if word == "DIR" { directory.as_str() } else { word });
        Command::new(env!("CARGO_BIN_EXE_ringmq")).args(arguments).output().expect("it runs").status.code()
    };
    let tools = [
        "store verify --data DIR",
        "store dump --data DIR",
        "store explain --data DIR 0",
        "store repair --write --data DIR",
        "store adopt --check DIR",
    ];
    for line in tools {
        assert_eq!(tool(line), Some(3), "{line}");
    }
    broker.topic("alone", 1);
    broker.client().send_to(&broker.queue("alone", 0), &Message::new("still serving")).expect("stored");
    broker.stop(&[]);
    assert_eq!(tool(tools[0]), Some(0));
    let again = store.start(&[]);
    assert_eq!(again.client().max_offset(&again.queue("alone", 0)).expect("an answer"), 1);
}

#[test]
fn a_taken_port_is_told() {
    // Goal: a start that cannot listen ends with its code and names the address. Method: start a second store on the ports
    // of the first.
    let mut store = Store::new();
    let broker = store.start(&[]);
    let mut other = Store::new();
    other.share_ports(&store);
    let refused = match other.try_start(&[]) {
        Ok(_) => panic!("two brokers listen at one port"),
        Err(refused) => refused,
    };
    assert_eq!(refused.status.code(), Some(7), "{}", refused.log);
    refused.assert_reason(&broker.address());
}

#[test]
fn a_taken_port_of_the_metrics_is_told() {
    // Goal: who says where metrics are to be served gets them there, or no start. Method: the port of somebody else.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let mut store = Store::new();
    let Err(refused) = store.try_start(&[&format!("metrics_listen={address}")]) else {
        panic!("a broker said that it is ready, and its metrics are nowhere")
    };
    assert_eq!(refused.status.code(), Some(7), "{}", refused.log);
    refused.assert_reason(&format!("cannot listen on {address}"));
    refused.assert_reason("choose another with metrics_listen");
    assert_eq!(store.start(&[]).stop(&[]).code(), Some(0));
}

#[test]
fn a_start_without_room_is_told_and_harms_nothing() {
    // Goal: a start that finds no room for the log ends with its code and the reason, also the second time; with room it
    // starts and serves. Method: a limit on the size of files below that of a segment.
    let mut store = Store::new();
    for _ in 0..2 {
        let refused = match store.try_start_without_room(1 << 20, &[]) {
            Ok(_) => panic!("a broker started without room for a segment"),
            Err(refused) => refused,
        };
        assert_eq!(refused.status.code(), Some(1), "{}", refused.log);
        refused.assert_reason("File too large");
        assert!(refused.log.contains("commitlog/00000000000000000000"), "{}", refused.log);
    }
    let broker = store.start(&[]);
    broker.topic("room", 1);
    broker.client().send_to(&broker.queue("room", 0), &Message::new("there is")).expect("stored");
    assert_eq!(broker.stop(&[]).code(), Some(0));
}

#[test]
fn a_kill_leaves_the_mark_and_the_next_start_recovers() {
    // Goal: after a crash the confirmed messages are there. Method: send, kill, look at the mark, start, read.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("killed", 1);
    let mut client = broker.client();
    for number in 0..100 {
        client.send_to(&broker.queue("killed", 0), &Message::new(format!("{number}"))).expect("stored");
    }
    broker.kill(&[]);
    assert!(is_in_use(&store.path()), "a crash leaves the mark");
    let mut broker = store.start(&[]);
    let mut client = broker.client();
    let mut next = 0;
    while next < 100 {
        let pulled = client.pull(&broker.queue("killed", 0), next, 32, 0).expect("an answer");
        for message in pulled.messages() {
            let message = message.expect("whole");
            assert_eq!(message.body(), next.to_string().as_bytes());
            next += 1;
        }
    }
    assert_eq!(client.max_offset(&broker.queue("killed", 0)).expect("an answer"), 100);
    // It says that it was not stopped in order.
    broker.assert_quiet(&["recover", "stopped", "log", "abort"]);
}
