//! Old files of the log go while the broker serves, and what clients hear of it; topics are deleted and made again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ringmq::client::{Client, ClientError, Connection, Message, PullStatus, Queue};
use ringmq_protocol::codes::request;
use ringmq_protocol::command::Command;
use ringmq_shards::disk::RealDisk;
use ringmq_shards::recovery::StorePaths;
use ringmq_shards::recovery::durable_point::{DurablePointFile, StoredPoint};
use ringmq_shards::recovery::queue_offsets::QueueOffsets;

use super::broker::{Broker, Store, wait_for};
use super::random::Random;

/// Bytes of a file of the log.
const FILE_BYTES: u64 = 64 << 10;

/// Small files that expire at once, looked at ten times a second.
const SHORT: [&str; 9] = [
    "mappedFileSizeCommitLog=64 KiB",
    "maxMessageSize=8 KiB",
    "mappedFileSizeConsumeQueue=2000",
    "fileReservedTime=0",
    "deleteWhen=00;01;02;03;04;05;06;07;08;09;10;11;12;13;14;15;16;17;18;19;20;21;22;23",
    "cleanResourceInterval=100",
    "deleteCommitLogFilesInterval=0",
    "deleteConsumeQueueFilesInterval=0",
    "flushIntervalConsumeQueue=100",
];
/// Lines that a start after a crash may log.
const AFTER_A_CRASH: [&str; 3] = ["was not stopped in order", "discarded", "cut queue entries"];

fn body(number: i64) -> Vec<u8> {
    format!("{number:08}").repeat(250).into_bytes()
}

fn files(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Reads a queue from its minimum to its end; every message must be the one of its offset.
fn read_all(client: &mut Client, queue: &Queue) -> i64 {
    let mut count = 0;
    let mut next = client.min_offset(queue).expect("an answer");
    loop {
        let pulled = client.pull(queue, next, 32, 0).expect("an answer");
        match pulled.status {
            PullStatus::Found => {
                for message in pulled.messages() {
                    let message = message.expect("whole");
                    assert_eq!(message.body(), body(message.queue_offset()));
                    count += 1;
                }
            }
            PullStatus::NothingNew => return count,
            // Retention was faster: the answer says where to go on.
            PullStatus::OffsetMoved | PullStatus::NothingMatched => assert!(pulled.next_offset >= next),
        }
        next = pulled.next_offset;
    }
}

#[test]
fn old_files_go_and_readers_are_told() {
    // Goal: expired files go under load; minimum offsets of log and queues follow, queue files go; a reader of a deleted
    // offset gets RocketMQ's answer and never wrong bytes; a queue whose messages are all gone keeps its place; a kill
    // and a start change nothing of it. Method: send many times what may stay, look at files and answers, kill, look again.
    let mut store = Store::new();
    let broker = store.start(&SHORT);
    broker.topic("short", 2);
    let mut client = broker.client();
    let (queue, rare) = (broker.queue("short", 0), broker.queue("short", 1));
    client.send_to(&rare, &Message::new(body(0))).expect("stored");
    for number in 0..800 {
        assert_eq!(client.send_to(&queue, &Message::new(body(number))).expect("stored").queue_offset, number);
    }
    let minimum = wait_for("retention", || {
        let minimum = client.min_offset(&queue).expect("an answer");
        (minimum > 700 && client.min_offset(&rare).expect("an answer") == 1).then_some(minimum)
    });
    assert!(minimum < 800, "the file that is being written stays");
    let first = client.pull(&queue, 0, 32, 0).expect("an answer");
    // Retention may have gone on by another file meanwhile.
    assert_eq!((first.status, first.next_offset), (PullStatus::OffsetMoved, first.min_offset));
    assert!((minimum..800).contains(&first.min_offset), "{} after {minimum}", first.min_offset);
    assert!(read_all(&mut client, &queue) > 0);
    let gone = client.pull(&rare, 0, 32, 0).expect("an answer");
    assert_eq!((gone.status, gone.next_offset), (PullStatus::OffsetMoved, 1));
    // Two files are ready ahead of the one in use.
    wait_for("few log files", || (files(&store.path().join("commitlog")).len() <= 5).then_some(()));
    wait_for("few queue files", || (files(&store.path().join("consumequeue/short/0")).len() <= 2).then_some(()));
    wait_for("their space", || {
        let left = files(&store.path().join("ringmq"));
        left.iter().all(|name| !name.ends_with(".removed")).then_some(())
    });
    drop(client);
    broker.kill(&[]);
    let mut broker = store.start(&SHORT);
    let mut client = broker.client();
    let (queue, rare) = (broker.queue("short", 0), broker.queue("short", 1));
    assert!(client.min_offset(&queue).expect("an answer") >= minimum);
    assert_eq!(client.max_offset(&queue).expect("an answer"), 800);
    assert_eq!(client.max_offset(&rare).expect("an answer"), 1);
    assert_eq!(client.send_to(&rare, &Message::new(body(1))).expect("stored").queue_offset, 1);
    assert_eq!(client.send_to(&queue, &Message::new(body(800))).expect("stored").queue_offset, 800);
    assert!(read_all(&mut client, &queue) > 0);
    broker.assert_quiet(&AFTER_A_CRASH);
}

#[test]
fn readers_and_retention_at_once() {
    // Goal: no reader sees wrong bytes or an error while files go under it, and senders go on. Method: a sender, and
    // readers that begin at the front again and again, while every full file goes at once.
    let mut store = Store::new();
    let broker = store.start(&SHORT);
    broker.topic("race", 1);
    let queue = broker.queue("race", 0);
    let sent = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = broker.client();
            (0..1_500).for_each(|number| {
                client.send_to(&queue, &Message::new(body(number))).expect("stored");
            });
            sent.store(true, Ordering::Relaxed);
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = broker.client();
                while !sent.load(Ordering::Relaxed) {
                    read_all(&mut client, &queue);
                }
            });
        }
    });
    wait_for("retention", || (broker.client().min_offset(&queue).expect("an answer") > 1_000).then_some(()));
    assert_eq!(broker.stop(&[]).code(), Some(0));
}

#[test]
fn tools_delete_on_request() {
    // Goal: requests 329, 306 and 316 do what they are for. Method: expired files outside their hour stay until 329 comes;
    // queues of a topic that is in no table stay until 316 comes.
    let mut store = Store::new();
    let sets: Vec<&str> = SHORT.iter().filter(|set| !set.starts_with("deleteWhen")).copied().collect();
    let never = ["deleteWhen=", "diskMaxUsedSpaceRatio=95", "cleanFileForciblyEnable=false"];
    let metrics = format!("metrics_listen={}", store.metrics_address());
    let sets: Vec<&str> = sets.into_iter().chain(never).chain([metrics.as_str()]).collect();
    let broker = store.start(&sets);
    broker.topic("asked", 1);
    let queue = broker.queue("asked", 0);
    let mut client = broker.client();
    (0..200).for_each(|number| {
        client.send_to(&queue, &Message::new(body(number))).expect("stored");
    });
    // The first files could go now, and rounds that know it pass. The first to be counted may have begun before.
    let paths = StorePaths::new(store.path());
    wait_for("a recovery that needs them no more", || {
        let offsets = QueueOffsets::load(&RealDisk, &paths).expect("it can be read")?.value;
        let StoredPoint::Valid(point) = DurablePointFile::load(&RealDisk, &paths).expect("it can be read") else {
            return None;
        };
        (offsets.log_offset.0.min(point.offset.0) > 2 * FILE_BYTES).then_some(())
    });
    let rounds = || broker.metric(&store, "ringmq_retention_rounds_total");
    let before = rounds();
    wait_for("rounds of retention", || (rounds() >= before + 3).then_some(()));
    assert_eq!(client.min_offset(&queue).expect("an answer"), 0, "nothing goes unasked");
    assert!(files(&store.path().join("commitlog"))[0].bytes().all(|digit| digit == b'0'));
    let mut connection = broker.connection();
    for code in [request::DELETE_EXPIRED_COMMITLOG, request::CLEAN_EXPIRED_CONSUMEQUEUE, request::CLEAN_UNUSED_TOPIC] {
        assert_eq!(connection.call(Command::request(code)).expect("an answer").code, 0, "{code}");
    }
    wait_for("the deletion", || (client.min_offset(&queue).expect("an answer") > 100).then_some(()));
    assert_eq!(client.max_offset(&queue).expect("an answer"), 200);
    drop((client, connection));
    broker.stop(&[]);
    // A topic that no table has: its queue files are left over from elsewhere.
    let stray = store.path().join("consumequeue/stray/0");
    fs::create_dir_all(&stray).expect("a directory");
    let from = store.path().join("consumequeue/asked/0");
    let last = files(&from).pop().expect("a queue file");
    fs::copy(from.join(&last), stray.join(&last)).expect("copied");
    let broker = store.start(&sets);
    assert!(stray.exists());
    let answer = broker.connection().call(Command::request(request::CLEAN_UNUSED_TOPIC)).expect("an answer");
    assert_eq!(answer.code, 0);
    wait_for("the stray queue's end", || (!stray.exists()).then_some(()));
    assert!(from.exists());
    assert_eq!(broker.stop(&["does not exist"]).code(), Some(0));
}

fn delete_topic(connection: &mut Connection, topic: &str) -> Result<(), ClientError> {
    let command = Command::request(request::DELETE_TOPIC_IN_BROKER).with_ext("topic", topic);
    connection.call_ok(command).map(|_| ())
}

/// One life of a topic that is deleted and made again under load: what was confirmed since it was last made, by queue
/// and offset.
fn live_and_delete(broker: &Broker, random: &mut Random, generation: u64) -> BTreeMap<(i32, i64), String> {
    let address = broker.address();
    let stop = AtomicBool::new(false);
    let mut confirmed = BTreeMap::new();
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (address, stop) = (&address, &stop);
            scope.spawn(move || {
                // Load that neither waits for the deletion nor for the new topic: what it is told may be a refusal.
                let Ok(mut client) = Client::connect(&[broker.name_server()]) else { return };
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let queue = Queue {
                        topic: "again".into(),
                        broker_name: String::new(),
                        address: address.clone(),
                        queue_id: worker,
                    };
                    match client.send_to(&queue, &Message::new(format!("load-{generation}-{number}"))) {
                        Err(error) if error.code().is_none() => return,
                        _ => number += 1,
                    }
                }
            });
        }
        let mut connection = broker.connection();
        std::thread::sleep(std::time::Duration::from_millis(random.below(40)));
        let deleted = delete_topic(&mut connection, "again");
        // First, or a failure would leave the load running for ever.
        stop.store(true, Ordering::Relaxed);
        deleted.expect("deleted");
    });
    // The load may have made the topic again by itself: the next deletion begins with none of it.
    let mut connection = broker.connection();
    delete_topic(&mut connection, "again").expect("deleted");
    // A log that waits for the disk has not ended the deletion yet, and the topic cannot be made before.
    wait_for("the end of the deletion", || match broker.client().create_topic("again", 2) {
        Err(ClientError::Refused { remark, .. }) if remark.contains("the log is stuck") => None,
        made => {
            made.expect("the topic is created");
            Some(())
        }
    });
    let mut client = broker.client();
    for number in 0..20 {
        let queue = broker.queue("again", (number % 2) as i32);
        let text = format!("kept-{generation}-{number}");
        let receipt = client.send_to(&queue, &Message::new(text.clone())).expect("stored");
        assert_eq!(receipt.queue_offset, number / 2, "a topic that is made again begins at 0");
        confirmed.insert((queue.queue_id, receipt.queue_offset), text);
    }
    confirmed
}

fn check_generation(broker: &Broker, confirmed: &BTreeMap<(i32, i64), String>) {
    let mut client = broker.client();
    for queue_id in 0..2 {
        let queue = broker.queue("again", queue_id);
        let expected: Vec<&String> =
            confirmed.iter().filter(|((id, _), _)| *id == queue_id).map(|(_, text)| text).collect();
        assert_eq!(client.max_offset(&queue).expect("an answer"), expected.len() as i64);
        let pulled = client.pull(&queue, 0, 32, 0).expect("an answer");
        assert_eq!(pulled.status, PullStatus::Found);
        let bodies: Vec<String> = pulled
            .messages()
            .map(|message| String::from_utf8_lossy(message.expect("whole").body()).into_owned())
            .collect();
        assert_eq!(bodies.iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn topics_are_deleted_and_made_again_under_load_with_kills() {
    // Goal: nothing of a deleted topic comes back, and nothing that was confirmed after it was made again is lost or
    // moved. Method: load, deletion in the middle of it, a new topic of the same name, a few messages, a kill; compare.
    // A write that waits for a busy disk is no reason to fail.
    let expected: Vec<&str> = AFTER_A_CRASH.iter().copied().chain(["the log is stuck"]).collect();
    for sets in [&["flushDiskType=ASYNC_FLUSH", "shards=2"], &["flushDiskType=SYNC_FLUSH", "shards=2"]] {
        let mut store = Store::new();
        let mut random = Random::new(7);
        let mut broker = store.start(sets);
        broker.topic("again", 2);
        for generation in 0..6 {
            let confirmed = live_and_delete(&broker, &mut random, generation);
            check_generation(&broker, &confirmed);
            if random.below(4) == 0 {
                assert_eq!(broker.stop(&expected).code(), Some(0));
            } else {
                broker.kill(&expected);
            }
            broker = store.start(sets);
            check_generation(&broker, &confirmed);
            broker.assert_quiet(&expected);
        }
    }
}
