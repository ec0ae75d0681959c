//! Crashes: the real binary is killed at random moments under load, started again, and must still have every message
//! that it confirmed and every message that it showed to a consumer, at its queue offset and byte for byte.
//!
//! One test per way of writing the log. `RINGMQ_KILLS` sets the number of kills of each (4), `RINGMQ_KILL_SEED` repeats
//! a run's choices. A process that is killed loses no page cache: power cuts are not what this tests.

#[allow(dead_code, reason = "the other tests need more of it")]
mod broker;
mod random;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broker::{Broker, PATIENCE, Store, wait_for};
use random::Random;
use ringmq::client::requests::{self, PullRequest, SendTarget};
use ringmq::client::{Client, ClientError, Connection, Message, PullAnswer, PullStatus, Queue, SendReceipt};
use ringmq_protocol::exchange::Ticket;
use ringmq_shards::disk::RealDisk;
use ringmq_shards::recovery::StorePaths;
use ringmq_shards::recovery::durable_point::{DurablePointFile, StoredPoint};

const TOPIC: &str = "crash";
const QUEUES: i32 = 4;
/// Connections with many requests under way.
const PIPELINED: u64 = 3;
/// Requests under way on each of them.
const WINDOW: usize = 32;
const CONSUMERS: usize = 2;
/// Small files, so that a short run crosses many of them.
const SMALL_FILES: [&str; 3] =
    ["mappedFileSizeCommitLog=1 MiB", "maxMessageSize=128 KiB", "mappedFileSizeConsumeQueue=20000"];
/// Lines that a start after a crash may log.
const AFTER_A_CRASH: [&str; 3] = ["was not stopped in order", "discarded", "cut queue entries"];
/// Which of four rounds has one request at a time and nothing else.
const LONE_ROUND: u64 = 2;
/// Longest time under load before a kill.
const LOAD_MS: u64 = 700;

/// Which message: unique over all rounds of a test. It determines the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct MessageName {
    round: u64,
    producer: u64,
    number: u64,
}

/// A queue and an offset in it.
type Place = (i32, i64);

/// The body of a message: its name, then bytes that follow from it. Mostly small, now and then large.
fn body_of(name: MessageName) -> Vec<u8> {
    let MessageName { round, producer, number } = name;
    let mut random = Random::new(round << 40 ^ producer << 32 ^ number);
    let length = match random.below(20) {
        0 => random.below(100_000),
        1..5 => random.below(4_000),
        _ => random.below(200),
    };
    let mut body = Vec::new();
    for part in [round, producer, number] {
        body.extend_from_slice(&part.to_be_bytes());
    }
    let filler = (0..length.div_ceil(8)).flat_map(|_| random.next().to_be_bytes());
    body.extend(filler);
    body
}

/// The name that a body begins with, if the whole body is the one that belongs to it.
fn name_of(body: &[u8]) -> Option<MessageName> {
    let part = |at: usize| body.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
    let name = MessageName { round: part(0)?, producer: part(8)?, number: part(16)? };
    (body_of(name) == body).then_some(name)
}

/// Everything that the broker has promised so far.
#[derive(Default)]
struct Promises {
    places: BTreeMap<Place, MessageName>,
    confirmed: usize,
    /// Those of the producer that waits for each answer.
    confirmed_singly: usize,
    shown: usize,
}

impl Promises {
    fn note(&mut self, place: Place, name: MessageName) {
        let before = self.places.insert(place, name);
        assert!(before.is_none_or(|before| before == name), "{place:?} held {before:?} and now {name:?}");
    }
}

/// What one thread saw during a round.
#[derive(Default)]
struct Seen {
    confirmed: Vec<(Place, MessageName)>,
    shown: Vec<(Place, MessageName)>,
}

fn send_of(name: MessageName, queue_id: i32) -> ringmq_protocol::command::Command {
    let target = SendTarget { group: "crash", topic: TOPIC, queue_id, now_ms: name.number };
    requests::send(&target, &Message::new(body_of(name)), "U").expect("valid")
}

/// Whether the other side is gone, which a kill brings about. Everything else is a failure.
fn is_gone(error: &ClientError) -> bool {
    matches!(error, ClientError::Broken { .. } | ClientError::NothingListens { .. } | ClientError::Connect { .. })
}

fn until_gone<T>(result: Result<T, ClientError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if is_gone(&error) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Sends with a window of requests under way, until the broker is gone.
fn produce(address: &str, round: u64, producer: u64, window: usize) -> Seen {
    let mut seen = Seen::default();
    let mut random = Random::new(round << 8 ^ producer);
    let Some(mut connection) = until_gone(Connection::open(address)) else { return seen };
    let mut under_way: HashMap<Ticket, (i32, MessageName)> = HashMap::new();
    let mut number = 0;
    loop {
        while under_way.len() < window {
            let name = MessageName { round, producer, number };
            let queue_id = i32::try_from(random.below(4)).expect("small");
            let Some(ticket) = until_gone(connection.submit(send_of(name, queue_id))) else {
                return take_last_answers(connection, under_way, seen);
            };
            under_way.insert(ticket, (queue_id, name));
            number += 1;
        }
        let Some(answer) = until_gone(connection.wait_any(PATIENCE)) else { return seen };
        let (ticket, answer) = answer.expect("an answer while the broker runs");
        note_receipt(&mut under_way, ticket, &answer, &mut seen);
    }
}

/// Answers that were received before the connection broke are confirmations like all others.
fn take_last_answers(
    mut connection: Connection,
    mut under_way: HashMap<Ticket, (i32, MessageName)>,
    mut seen: Seen,
) -> Seen {
    while let Some(Some((ticket, answer))) = until_gone(connection.wait_any(PATIENCE)) {
        note_receipt(&mut under_way, ticket, &answer, &mut seen);
    }
    seen
}

fn note_receipt(
    under_way: &mut HashMap<Ticket, (i32, MessageName)>,
    ticket: Ticket,
    answer: &ringmq_protocol::command::Command,
    seen: &mut Seen,
) {
    let (queue_id, name) = under_way.remove(&ticket).expect("a request that is under way");
    let receipt = SendReceipt::decode(answer).expect("complete");
    // 10: stored, but whether it is synced is unknown; a busy disk does that. It is no confirmation.
    if let Some(receipt) = receipt.filter(SendReceipt::is_settled) {
        assert_eq!(receipt.queue_id, queue_id);
        seen.confirmed.push(((queue_id, receipt.queue_offset), name));
    } else {
        assert!([2, 10, 14].contains(&answer.code), "code {}: {:?}", answer.code, answer.remark);
    }
}

/// Reads all queues from `from` on with held pulls, until the broker is gone.
fn consume(address: &str, from: &BTreeMap<i32, i64>) -> Seen {
    let mut seen = Seen::default();
    let Some(mut connection) = until_gone(Connection::open(address)) else { return seen };
    let mut next = from.clone();
    let mut under_way = HashMap::new();
    let ask = |connection: &mut Connection, queue_id: i32, offset: i64| {
        let wanted = PullRequest { hold_ms: 30_000, ..PullRequest::new("crash", TOPIC, queue_id, offset) };
        until_gone(connection.submit(requests::pull(&wanted)))
    };
    for (queue_id, offset) in from {
        let Some(ticket) = ask(&mut connection, *queue_id, *offset) else { return seen };
        under_way.insert(ticket, *queue_id);
    }
    while let Some(Some((ticket, answer))) = until_gone(connection.wait_any(PATIENCE)) {
        let queue_id = under_way.remove(&ticket).expect("a pull that is under way");
        let pulled = PullAnswer::decode(answer).expect("complete").expect("no refusal");
        assert!(matches!(pulled.status, PullStatus::Found | PullStatus::NothingNew), "{:?}", pulled.status);
        let offset = next.get_mut(&queue_id).expect("a known queue");
        note_pulled(&pulled, queue_id, offset, |place, name| seen.shown.push((place, name)));
        let Some(ticket) = ask(&mut connection, queue_id, *offset) else { return seen };
        under_way.insert(ticket, queue_id);
    }
    seen
}

/// Checks that the answer continues at `offset` without a gap, and moves it.
fn note_pulled(pulled: &PullAnswer, queue_id: i32, offset: &mut i64, mut note: impl FnMut(Place, MessageName)) {
    for message in pulled.messages() {
        let message = message.expect("whole");
        assert_eq!((message.queue_id(), message.queue_offset()), (queue_id, *offset), "no gap");
        let name = name_of(message.body()).expect("a body that was sent");
        note((queue_id, *offset), name);
        *offset += 1;
    }
    assert_eq!(pulled.next_offset, *offset);
}

/// Who sends in a round. Many requests under way may hide an acknowledgement that comes before the write: the next group's write
/// makes up for it. So there are rounds with one request at a time and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Producers {
    ManyAndOne,
    OneRequestAtATime,
}

/// Load while `wait` waits, then a kill.
fn load_and_kill(
    broker: Broker,
    round: u64,
    producers: Producers,
    wait: impl FnOnce(&Broker),
    ends: &BTreeMap<i32, i64>,
    promises: &mut Promises,
) {
    let address = broker.address();
    let seen: Vec<Seen> = thread::scope(|scope| {
        let mut threads = Vec::new();
        let pipelined = if producers == Producers::ManyAndOne { PIPELINED } else { 0 };
        for producer in 0..pipelined {
            threads.push(scope.spawn({
                let address = &address;
                move || produce(address, round, producer, WINDOW)
            }));
        }
        threads.push(scope.spawn(|| produce(&address, round, PIPELINED, 1)));
        for consumer in 0..CONSUMERS {
            // One reads from the start, through all files; the others follow the end.
            let from = if consumer == 0 { ends.keys().map(|queue_id| (*queue_id, 0)).collect() } else { ends.clone() };
            threads.push(scope.spawn({
                let address = &address;
                move || consume(address, &from)
            }));
        }
        wait(&broker);
        broker.kill(&AFTER_A_CRASH);
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    for one in seen {
        promises.confirmed += one.confirmed.len();
        promises.confirmed_singly += one.confirmed.iter().filter(|(_, name)| name.producer == PIPELINED).count();
        promises.shown += one.shown.len();
        for (place, name) in one.confirmed.into_iter().chain(one.shown) {
            promises.note(place, name);
        }
    }
}

/// Reads everything and compares it with the promises. Gives the end of each queue.
fn verify(client: &mut Client, broker: &Broker, promises: &mut Promises) -> BTreeMap<i32, i64> {
    let mut ends = BTreeMap::new();
    let mut names = BTreeSet::new();
    // The single-request producer sends in order, so its messages of one queue lie in order.
    let mut last_single: BTreeMap<i32, MessageName> = BTreeMap::new();
    for queue_id in 0..QUEUES {
        let queue: Queue = broker.queue(TOPIC, queue_id);
        assert_eq!(client.min_offset(&queue).expect("an answer"), 0);
        let end = client.max_offset(&queue).expect("an answer");
        let mut next = 0;
        while next < end {
            let pulled = client.pull(&queue, next, 32, 0).expect("an answer");
            assert_eq!(pulled.status, PullStatus::Found, "queue {queue_id} at {next} of {end}");
            note_pulled(&pulled, queue_id, &mut next, |place, name| {
                assert!(names.insert(name), "{name:?} is there twice");
                promises.note(place, name);
                if name.producer == PIPELINED {
                    let before = last_single.insert(queue_id, name);
                    assert!(before < Some(name), "{name:?} comes after {before:?}");
                }
            });
        }
        ends.insert(queue_id, end);
    }
    for ((queue_id, offset), name) in &promises.places {
        assert!(
            *offset < ends[queue_id],
            "{name:?} at {offset} of queue {queue_id} is lost: it ends at {}",
            ends[queue_id]
        );
    }
    ends
}

fn kill_repeatedly(name: &str, sets: &[&str]) {
    let number = |variable: &str| std::env::var(variable).ok().and_then(|text| text.parse::<u64>().ok());
    let kills = number("RINGMQ_KILLS").unwrap_or(4);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").subsec_nanos();
    let seed = number("RINGMQ_KILL_SEED").unwrap_or(u64::from(clock));
    println!("{name}: RINGMQ_KILL_SEED={seed} RINGMQ_KILLS={kills}");
    let mut random = Random::new(seed);
    let sets: Vec<&str> = SMALL_FILES.iter().chain(sets).copied().collect();
    let mut store = Store::new();
    let mut promises = Promises::default();
    let first = store.start(&sets);
    first.topic(TOPIC, u32::try_from(QUEUES).expect("small"));
    let mut running = first;
    let mut ends: BTreeMap<i32, i64> = (0..QUEUES).map(|queue_id| (queue_id, 0)).collect();
    for round in 0..kills {
        let load = Duration::from_millis(20 + random.below(LOAD_MS));
        let producers = if round % 4 == LONE_ROUND { Producers::OneRequestAtATime } else { Producers::ManyAndOne };
        load_and_kill(running, round, producers, |_| thread::sleep(load), &ends, &mut promises);
        running = store.start(&sets);
        let mut client = running.client();
        ends = verify(&mut client, &running, &mut promises);
        running.assert_quiet(&AFTER_A_CRASH);
    }
    let total: i64 = ends.values().sum();
    let Promises { confirmed, confirmed_singly, shown, .. } = promises;
    println!("figures: way={name} kills={kills} acknowledged={confirmed} shown={shown} stored={total} lost=0");
    assert!(confirmed > confirmed_singly, "the producers that pipeline were confirmed something");
    assert!(confirmed_singly > 0, "the producer that waits for each answer was confirmed something");
    assert!(shown > 0, "consumers were shown something");
    assert_eq!(running.stop(&AFTER_A_CRASH).code(), Some(0));
}

/// Goal: the log's durable point keeps up while the log never rests, or a restart would have to read all of it. Method: note
/// under load where the log ends and wait until the file says more, three times.
#[test]
fn the_durable_point_follows_a_busy_log() {
    let mut store = Store::new();
    let metrics = format!("metrics_listen={}", store.metrics_address());
    let sets: Vec<&str> = SMALL_FILES.iter().copied().chain(["flushDiskType=ASYNC_FLUSH", &metrics]).collect();
    let running = store.start(&sets);
    running.topic(TOPIC, u32::try_from(QUEUES).expect("small"));
    let ends = (0..QUEUES).map(|queue_id| (queue_id, 0)).collect();
    let paths = StorePaths::new(store.path());
    let follow = |running: &Broker| {
        for _ in 0..3 {
            let end = running.metric(&store, "ringmq_log_confirmed_offset_bytes");
            wait_for("the durable point", || {
                let point = DurablePointFile::load(&RealDisk, &paths).expect("it can be read");
                matches!(point, StoredPoint::Valid(point) if point.offset.0 > end).then_some(())
            });
        }
    };
    load_and_kill(running, 0, Producers::ManyAndOne, follow, &ends, &mut Promises::default());
}

/// Goal: more shards than processors lose nothing either, and none of them starves. Method: three on one processor.
#[test]
fn more_shards_than_processors() {
    let processor = ringmq::config::machine::processor_numbers().first().copied().unwrap_or(0);
    kill_repeatedly(
        "more_shards_than_processors",
        &["flushDiskType=SYNC_FLUSH", "shards=3", &format!("cores={processor}")],
    );
}

macro_rules! kill_tests {
    ($($name:ident: $($set:literal),+;)+) => {$(
        #[test]
        fn $name() {
            // Goal: no confirmed and no shown message is lost or changed by a crash. Method: kill under load, start, read
            // everything, compare; repeated on one store.
            kill_repeatedly(stringify!($name), &[$($set),+]);
        }
    )+};
}

kill_tests! {
    async_page_cache_one_shard: "flushDiskType=ASYNC_FLUSH", "async_write_path=page_cache", "shards=1";
    async_page_cache_two_shards: "flushDiskType=ASYNC_FLUSH", "async_write_path=page_cache", "shards=2";
    async_direct_one_shard: "flushDiskType=ASYNC_FLUSH", "async_write_path=direct", "shards=1";
    async_direct_two_shards: "flushDiskType=ASYNC_FLUSH", "async_write_path=direct", "shards=2";
    sync_page_cache_one_shard: "flushDiskType=SYNC_FLUSH", "sync_write_path=page_cache", "shards=1";
    sync_page_cache_two_shards: "flushDiskType=SYNC_FLUSH", "sync_write_path=page_cache", "shards=2";
    sync_direct_one_shard: "flushDiskType=SYNC_FLUSH", "sync_write_path=direct", "shards=1";
    sync_direct_two_shards: "flushDiskType=SYNC_FLUSH", "sync_write_path=direct", "shards=2";
    sync_direct_zeroing_ahead: "flushDiskType=SYNC_FLUSH", "sync_write_path=direct", "shards=2", "zero_ahead_bytes=256 KiB";
}
