//! Messages that are no longer in memory: equal bytes, and nobody on the same shard waits for a disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use ringmq::client::requests::{self, PullRequest};
use ringmq::client::{Client, Connection, Message, PullAnswer, PullStatus};

use super::broker::{Broker, PATIENCE, Store, wait_for};
use super::threads::{Stopped, bytes_from_disk, threads};

/// Body of a long message: an answer of 256 KiB has several, one behind the other in the log.
const LONG_BYTES: usize = 16 << 10;
/// Long messages: three times the ring and some segments.
const LONG_MESSAGES: usize = 3_200;
/// Messages per batch.
const BATCH: usize = 100;
/// Bytes that a shard may fetch from the disk while tens of MiB are read: pages of its own program, on a machine in need.
const SHARD_BYTES: u64 = 256 << 10;

fn body(number: usize, length: usize) -> String {
    let mut body = format!("{number:08} ");
    while body.len() < length {
        body.push(char::from(b'a' + ((number * 7 + body.len() * 13 / 11) % 26) as u8));
    }
    body
}

/// One shard, a small ring, its figures readable.
fn start(store: &mut Store, sets: &[&str]) -> Broker {
    let metrics = format!("metrics_listen={}", store.metrics_address());
    let sets: Vec<&str> = sets.iter().copied().chain(["shards=1", &metrics]).collect();
    store.start(&sets)
}

/// Fills a queue with long messages that lie one behind the other.
fn send_long(broker: &Broker, topic: &str) {
    broker.topic(topic, 1);
    let mut client = broker.client();
    for first in (0..LONG_MESSAGES).step_by(BATCH) {
        let messages: Vec<Message> =
            (first..first + BATCH).map(|number| Message::new(body(number, LONG_BYTES))).collect();
        client.send_batch(topic, &messages).expect("stored");
    }
}

/// Makes the kernel forget the log's pages, so that the next read needs the disk.
fn forget_pages(store: &Path) {
    for entry in fs::read_dir(store.join("commitlog")).expect("a commit log") {
        let file = File::open(entry.expect("an entry").path()).expect("readable");
        file.sync_all().expect("clean pages can be dropped");
        // SAFETY: an open file and plain integers.
        assert_eq!(unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
    }
}

/// Reads the log, so that the kernel has all its pages.
fn remember_pages(store: &Path) {
    for entry in fs::read_dir(store.join("commitlog")).expect("a commit log") {
        io::copy(&mut File::open(entry.expect("an entry").path()).expect("readable"), &mut io::sink()).expect("read");
    }
}

fn wanted(topic: &str, offset: i64, hold_ms: u64) -> PullRequest<'_> {
    PullRequest { hold_ms, ..PullRequest::new("cold", topic, 0, offset) }
}

/// Checks an answer to a pull at `offset`; gives the next offset.
fn check_long(answer: &PullAnswer, offset: i64) -> i64 {
    assert_eq!(answer.status, PullStatus::Found, "at {offset}");
    let mut next = offset;
    for message in answer.messages() {
        let message = message.expect("whole");
        assert_eq!(message.queue_offset(), next);
        let expected = body(usize::try_from(next).expect("not negative"), LONG_BYTES);
        assert!(message.body() == expected.as_bytes(), "message {next} differs");
        next += 1;
    }
    assert_eq!(answer.next_offset, next);
    next
}

fn read_long(client: &mut Client, broker: &Broker, topic: &str) {
    let queue = broker.queue(topic, 0);
    let mut next = 0;
    while next < LONG_MESSAGES as i64 {
        next = check_long(&client.pull(&queue, next, 32, 0).expect("an answer"), next);
    }
}

/// Many pulls at once on one connection, each at an offset of its own; gives the tickets' offsets.
fn submit_many(connection: &mut Connection, topic: &str, count: usize) -> BTreeMap<String, i64> {
    let offsets = (0..count as i64).map(|number| number * 10);
    let mut expected = BTreeMap::new();
    for offset in offsets {
        let ticket = connection.submit(requests::pull(&wanted(topic, offset, 0))).expect("written");
        expected.insert(format!("{ticket:?}"), offset);
    }
    expected
}

fn take_many(connection: &mut Connection, mut expected: BTreeMap<String, i64>) {
    while !expected.is_empty() {
        let (ticket, answer) = connection.wait_any(PATIENCE).expect("connected").expect("an answer in time");
        let offset = expected.remove(&format!("{ticket:?}")).expect("asked once");
        check_long(&PullAnswer::decode(answer).expect("complete").expect("no refusal"), offset);
    }
}

#[test]
fn cold_messages_are_equal_and_no_shard_reads_the_disk() {
    // Goal: long and short ranges from files are what was sent, across segments and through all write paths, and only reader
    // threads fetch anything from the disk. Method: a log three times the ring, short messages of other queues in between;
    // drop its pages; read all of it one pull at a time, past the page cache; with its pages cached again, then many at once.
    for path in ["async_write_path=page_cache", "async_write_path=direct"] {
        let mut store = Store::new();
        let broker = start(&mut store, &[path]);
        broker.topic("short", 2);
        let mut client = broker.client();
        for number in 0..200 {
            let queue = broker.queue("short", number % 2);
            client.send_to(&queue, &Message::new(body(number as usize, 300))).expect("stored");
        }
        send_long(&broker, "long");
        forget_pages(&store.path());
        let (shard, readers) = (threads(broker.process(), "shard-0"), threads(broker.process(), "reader"));
        assert!(!shard.is_empty() && readers.len() == 2, "{shard:?} {readers:?}");
        let before = bytes_from_disk(broker.process(), &shard);
        read_long(&mut client, &broker, "long");
        for queue_id in 0..2 {
            let mut next = 0;
            while next < 100 {
                let answer = client.pull(&broker.queue("short", queue_id), next, 32, 0).expect("an answer");
                for message in answer.messages() {
                    let number = usize::try_from(next * 2 + i64::from(queue_id)).expect("small");
                    assert!(message.expect("whole").body() == body(number, 300).as_bytes(), "message {number}");
                    next += 1;
                }
            }
        }
        let of_shard = bytes_from_disk(broker.process(), &shard) - before;
        let of_readers = bytes_from_disk(broker.process(), &readers);
        // A store in memory has no disk to wait for.
        assert!(of_readers == 0 || of_readers >= 20 << 20, "{path}: readers fetched {of_readers} bytes");
        assert!(of_shard <= SHARD_BYTES, "{path}: the shard fetched {of_shard} bytes itself");
        let metric = |name: &str| broker.metric(&store, name);
        let fetched = metric("ringmq_pull_fetched_bytes_total");
        assert!(of_readers == 0 || fetched >= 10 << 20, "{path}: {fetched} bytes came past the page cache");
        remember_pages(&store.path());
        // One at a time: then there is always a free pipe.
        read_long(&mut client, &broker, "long");
        let mut connection = broker.connection();
        let expected = submit_many(&mut connection, "long", 60);
        take_many(&mut connection, expected);
        assert!(metric("ringmq_pull_disk_total") > 0);
        assert!(metric("ringmq_pull_spliced_bytes_total") >= 10 << 20, "long ranges are passed on as pages");
        assert!(metric("ringmq_pull_copied_bytes_total") > 0, "short ones are copied");
        wait_for("empty pipes", || (metric("ringmq_limit_splice_pipes_used") == 0).then_some(()));
        wait_for("free budget", || (metric("ringmq_limit_cold_read_bytes_used") == 0).then_some(()));
    }
}

#[test]
fn the_file_that_is_written_is_read_in_blocks() {
    // Goal: a backlog in the file that is still written does not come page by page, which took a disk's whole latency each. Method: a
    // log three times the ring in one file; drop its pages, read it, and see how much of what came from the disk came in blocks.
    for path in ["async_write_path=page_cache", "async_write_path=direct"] {
        let mut store = Store::new();
        let broker = start(&mut store, &[path, "mappedFileSizeCommitLog=134217728"]);
        let mut client = broker.client();
        send_long(&broker, "long");
        forget_pages(&store.path());
        let readers = threads(broker.process(), "reader");
        read_long(&mut client, &broker, "long");
        let of_readers = bytes_from_disk(broker.process(), &readers);
        let fetched = broker.metric(&store, "ringmq_pull_fetched_bytes_total");
        assert!(of_readers == 0 || fetched >= 20 << 20, "{path}: {fetched} of {of_readers} bytes came in blocks");
    }
}

#[test]
fn scattered_messages_come_in_blocks_that_queues_share() {
    // Goal: messages of queues that take turns in the log are right, cost no call of the kernel each although the page cache has
    // them, and what was fetched for one queue serves the other. Method: two queues in a log three times the ring, its pages
    // cached; read both side by side; see how much came in blocks: most of the log, and that once.
    let mut store = Store::new();
    let broker = start(&mut store, &["async_write_path=page_cache"]);
    broker.topic("scattered", 2);
    let mut client = broker.client();
    let queues = [0, 1].map(|queue_id| broker.queue("scattered", queue_id));
    for number in 0..LONG_MESSAGES {
        client.send_to(&queues[number % 2], &Message::new(body(number, LONG_BYTES))).expect("stored");
    }
    remember_pages(&store.path());
    let mut next = [0, 0];
    while next.iter().any(|next| *next < LONG_MESSAGES / 2) {
        for (parity, next) in next.iter_mut().enumerate() {
            let answer = client.pull(&queues[parity], *next as i64, 32, 0).expect("an answer");
            for message in answer.messages() {
                assert!(message.expect("whole").body() == body(*next * 2 + parity, LONG_BYTES).as_bytes(), "{next}");
                *next += 1;
            }
        }
    }
    let fetched = broker.metric(&store, "ringmq_pull_fetched_bytes_total");
    let log = (LONG_MESSAGES * LONG_BYTES) as u64;
    assert!(fetched >= log / 2 && fetched <= log + (1 << 20), "{fetched} of {log} bytes came in blocks");
}

#[test]
fn a_tail_reader_goes_on_while_cold_reads_are_held() {
    // Goal: a shard never waits for a read from the log's files. Method: stop both reader threads, as a disk that does not
    // answer would; with cold pulls waiting, send and receive on the same shard; then let go and compare the cold answers.
    let mut store = Store::new();
    let broker = start(&mut store, &[]);
    send_long(&broker, "history");
    broker.topic("tail", 1);
    forget_pages(&store.path());
    let stopped =
        Stopped::new(threads(broker.process(), "reader")).expect("a parent may stop the threads of its child");
    let mut cold = broker.connection();
    let expected = submit_many(&mut cold, "history", 10);
    // An answered request behind them shows that the pulls have been taken.
    cold.call_ok(requests::max_offset("history", 0)).expect("an answer");
    wait_for("the cold pulls", || (broker.metric(&store, "ringmq_limit_cold_queue_used") >= 10).then_some(()));
    let mut consumer = broker.connection();
    let mut client = broker.client();
    let queue = broker.queue("tail", 0);
    let held_ms = 2 * u64::try_from(PATIENCE.as_millis()).expect("small");
    for number in 0..500 {
        let ticket = consumer.submit(requests::pull(&wanted("tail", number, held_ms))).expect("written");
        client.send_to(&queue, &Message::new(format!("{number}"))).expect("stored");
        let answer = consumer.wait(ticket, PATIENCE).expect("the shard goes on");
        let answer = PullAnswer::decode(answer).expect("complete").expect("no refusal");
        let bodies: Vec<Vec<u8>> = answer.messages().map(|message| message.expect("whole").body().to_vec()).collect();
        assert_eq!(bodies, [format!("{number}").into_bytes()]);
    }
    assert_eq!(broker.metric(&store, "ringmq_pull_disk_total"), 0, "no cold read has even begun");
    drop(stopped);
    take_many(&mut cold, expected);
}

#[test]
fn connections_that_stall_or_close_give_their_pipes_back() {
    // Goal: a peer that does not read holds no pipe for long, and loses nothing; one that goes away neither. Method: more
    // answers than sockets take, unread until the pipes are free; the same, then closed; other readers go on meanwhile.
    let mut store = Store::new();
    let broker = start(&mut store, &[]);
    send_long(&broker, "history");
    let pipes = || broker.metric(&store, "ringmq_limit_splice_pipes_used");
    let mut stalled = broker.connection();
    let expected = submit_many(&mut stalled, "history", 150);
    // A pipe that waits for its peer does so for a second, which may be over before anybody looks.
    let spliced = || broker.metric(&store, "ringmq_pull_spliced_bytes_total");
    wait_for("pages in pipes", || (spliced() > 0).then_some(()));
    wait_for("its return", || (pipes() == 0).then_some(()));
    read_long(&mut broker.client(), &broker, "history");
    let before = spliced();
    let mut closed: Vec<Connection> = (0..4).map(|_| broker.connection()).collect();
    closed.iter_mut().for_each(|connection| drop(submit_many(connection, "history", 60)));
    wait_for("more pages in pipes", || (spliced() > before).then_some(()));
    drop(closed);
    take_many(&mut stalled, expected);
    wait_for("empty pipes", || (pipes() == 0).then_some(()));
    let used = |name: &str| broker.metric(&store, name) == 0;
    wait_for("free budget", || used("ringmq_limit_cold_read_bytes_used").then_some(()));
    read_long(&mut broker.client(), &broker, "history");
}

#[test]
fn a_stop_that_takes_too_long_is_broken_off() {
    // Goal: a stop ends although a thread never does, says so, and leaves the mark by which the next start checks the log.
    // Method: stop the reader threads, as a disk that does not answer would, then ask the broker to stop; start it again.
    let mut store = Store::new();
    let broker = start(&mut store, &[]);
    broker.topic("kept", 1);
    broker.client().send_to(&broker.queue("kept", 0), &Message::new("kept")).expect("stored");
    let stopped =
        Stopped::new(threads(broker.process(), "reader")).expect("a parent may stop the threads of its child");
    let process = i32::try_from(broker.process()).expect("a process id");
    // SAFETY: kill has no memory effects; the child was not waited for, so the id is its own.
    assert_eq!(unsafe { libc::kill(process, libc::SIGTERM) }, 0);
    let stat = format!("/proc/{process}/stat");
    wait_for("its end", || std::fs::read_to_string(&stat).ok()?.contains(") Z ").then_some(()));
    drop(stopped);
    let status = broker.stop(&["the stop takes too long"]);
    assert_eq!(status.code(), Some(11));
    assert!(store.path().join("abort").exists());
    let broker = start(&mut store, &[]);
    let answer = broker.connection().call(requests::max_offset("kept", 0)).expect("an answer");
    assert_eq!(answer.ext("offset"), Some("1"));
    broker.stop(&["the last run did not end in order", "abort"]);
}
