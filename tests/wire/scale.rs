//! Many queues with few descriptors.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ringmq::client::requests::{self, SendTarget};
use ringmq::client::{Message, PullStatus};
use ringmq_protocol::codes::request;
use ringmq_protocol::command::Command;

use super::broker::{Broker, PATIENCE, Prepare, Store, wait_for};

const TOPICS: usize = 1_000;
const QUEUES: i32 = 10;
/// Files that the broker may open: the soft and the hard limit.
const DESCRIPTORS: u64 = 20_000;
/// Bytes of blocks that a queue file with one entry may take: one page, and what file systems add.
const FILE_BYTES: u64 = 16 << 10;
/// Requests under way on one connection.
const WINDOW: usize = 500;

fn limit_descriptors() -> Prepare {
    Box::new(|| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the struct lives through both calls.
        unsafe {
            if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
                return Err(io::Error::last_os_error());
            }
            limit.rlim_max = limit.rlim_max.min(DESCRIPTORS);
            limit.rlim_cur = limit.rlim_max;
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    })
}

fn name(topic: usize) -> String {
    format!("scale-{topic:04}")
}

/// All queues, in the order in which they are filled.
fn queues() -> impl Iterator<Item = (usize, i32)> {
    (0..QUEUES).flat_map(|queue| (0..TOPICS).map(move |topic| (topic, queue)))
}

/// Asks once per queue, many at a time; all must succeed. Gives the answers in the order of [`queues`].
fn ask_all(broker: &Broker, make: impl Fn(&str, i32) -> Command) -> Vec<Command> {
    let mut connection = broker.connection();
    let all: Vec<_> = queues().collect();
    let mut answers = Vec::with_capacity(all.len());
    for part in all.chunks(WINDOW) {
        let commands: Vec<Command> = part.iter().map(|(topic, queue)| make(&name(*topic), *queue)).collect();
        for ticket in connection.submit_all(commands).expect("written") {
            let answer = connection.wait(ticket, PATIENCE).expect("an answer");
            assert_eq!(answer.code, 0, "{:?}", answer.remark);
            answers.push(answer);
        }
    }
    answers
}

/// Number of files below a directory, and the bytes of their blocks.
fn occupied(directory: &Path) -> (usize, u64) {
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            let (below, blocks) = occupied(&entry.path());
            (files, bytes) = (files + below, bytes + blocks);
        } else {
            (files, bytes) = (files + 1, bytes + metadata.blocks() * 512);
        }
    }
    (files, bytes)
}

fn descriptors(broker: &Broker) -> u64 {
    fs::read_dir(format!("/proc/{}/fd", broker.process())).expect("the process runs").count() as u64
}

/// Reads the message of some queues, the first and the last among them.
fn read_some(broker: &Broker) {
    let mut client = broker.client();
    for (number, (topic, queue)) in queues().enumerate().filter(|(number, _)| number % 97 == 0 || *number == 9_999) {
        let pulled = client.pull(&broker.queue(&name(topic), queue), 0, 32, 0).expect("an answer");
        assert_eq!(pulled.status, PullStatus::Found);
        let bodies: Vec<Vec<u8>> = pulled.messages().map(|message| message.expect("whole").body().to_vec()).collect();
        assert_eq!(bodies, [format!("{}-{queue}", name(topic)).into_bytes()], "queue {number}");
    }
}

#[test]
fn ten_thousand_queues_need_few_descriptors_and_blocks() {
    // Goal: 1,000 topics of 10 queues work within 20,000 open files, also while all are written, without a preallocated file for
    // each, and are there after a restart. Method: a message to each queue by a broker under that limit; count what is open until
    // each queue has its file, and the blocks of the files; read some, from memory and after a restart.
    let mut store = Store::new();
    let broker = store.try_start_prepared(limit_descriptors(), &[]).expect("started");
    let topic = |topic: usize| {
        let numbers = format!(r#""readQueueNums":{QUEUES},"writeQueueNums":{QUEUES}"#);
        format!(r#"{{"topicName":"{}",{numbers},"perm":6,"topicFilterType":"SINGLE_TAG"}}"#, name(topic))
    };
    let list = (0..TOPICS).map(topic).collect::<Vec<_>>().join(",");
    let body = format!(r#"{{"topicConfigList":[{list}]}}"#);
    let create = Command::request(request::UPDATE_AND_CREATE_TOPIC_LIST).with_body(body.into_bytes());
    broker.connection().call_ok(create).expect("made");
    let sent = ask_all(&broker, |topic, queue_id| {
        let target = SendTarget { group: "wire", topic, queue_id, now_ms: 1 };
        requests::send(&target, &Message::new(format!("{topic}-{queue_id}")), "U").expect("valid")
    });
    assert!(sent.iter().all(|answer| answer.ext("queueOffset") == Some("0")));
    read_some(&broker);
    let directory = store.path().join("consumequeue");
    let mut most_open = 0;
    let (files, bytes) = wait_for("a file of each queue", || {
        most_open = most_open.max(descriptors(&broker));
        let (files, bytes) = occupied(&directory);
        (files >= TOPICS * QUEUES as usize).then_some((files, bytes))
    });
    most_open = most_open.max(descriptors(&broker));
    assert!(most_open < DESCRIPTORS / 2, "{most_open} descriptors: half of them at least are for connections");
    assert_eq!(files, TOPICS * QUEUES as usize);
    assert!(bytes <= files as u64 * FILE_BYTES, "{bytes} bytes for {files} files");
    assert_eq!(broker.stop(&[]).code(), Some(0));

    let broker = store.try_start_prepared(limit_descriptors(), &[]).expect("started");
    let ends = ask_all(&broker, requests::max_offset);
    assert!(ends.iter().all(|answer| answer.ext("offset") == Some("1")));
    read_some(&broker);
    assert!(descriptors(&broker) < DESCRIPTORS / 2);
    assert_eq!(broker.stop(&[]).code(), Some(0));
}
