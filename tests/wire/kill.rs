//! Crashes: the real binary is killed at random moments under load, started again, and what it serves must agree with everything that
//! producers and consumers have seen ([`history`]). At the end it is stopped in order under load, which must lose nothing either.
//!
//! One test per way of writing the log. `RINGMQ_KILLS` sets the number of kills of each (6 in SYNC_FLUSH and 5 in ASYNC_FLUSH),
//! `RINGMQ_KILL_SEED` repeats a run's choices. A process that is killed loses no page cache: power cuts are not what this tests.

#[allow(dead_code, reason = "the other tests need more of it")]
mod broker;
mod history;
mod random;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use broker::{Broker, PATIENCE, Store, wait_for};
use history::{Commit, Ending, History, MessageName, NEVER_STORED, Place, Reading, Seen, Stored, body_of};
use random::Random;
use ringmq::client::message::batch_body;
use ringmq::client::requests::{self, PullRequest, SendTarget};
use ringmq::client::{ClientError, Connection, Message, PullAnswer, PullStatus, SendReceipt};
use ringmq_protocol::bodies::{ConsumerOffsetWrapper, JsonBody};
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;
use ringmq_protocol::exchange::Ticket;
use ringmq_protocol::message_id::decode_message_id;
use ringmq_shards::disk::{RealDisk, StateFile};
use ringmq_shards::recovery::StorePaths;
use ringmq_shards::recovery::durable_point::{DurablePointFile, StoredPoint};

const TOPIC: &str = "crash";
const QUEUES: i32 = 4;
/// Connections with many requests under way.
const PIPELINED: u64 = 3;
/// Requests under way on each of them.
const WINDOW: usize = 32;
const CONSUMERS: usize = 2;
/// Groups that commit offsets: the one by requests, the other along with its pulls.
const REQUESTING: &str = "commits-by-request";
const CARRYING: &str = "commits-by-pull";
/// How long these rest after each look at all queues: they are not to be the load.
const COMMIT_PAUSE: Duration = Duration::from_millis(5);
/// After so many looks nobody asks about offsets in a life that ends by a stop: each such request fetches what shards have from pulls,
/// and some of that is to be left for the stop.
const LOOKS_BEFORE_STOP: usize = 3;
/// Small files, so that a short run crosses many of them, and offsets that are written whenever it is time for anything.
const SETS: [&str; 4] = [
    "mappedFileSizeCommitLog=1 MiB",
    "maxMessageSize=128 KiB",
    "mappedFileSizeConsumeQueue=20000",
    "flushConsumerOffsetInterval=100",
];
const MAX_MESSAGE_BYTES: usize = 128 << 10;
/// Lines that a start after a crash may log. The last: between the two renames of a new state file its name is free.
const AFTER_A_CRASH: [&str; 4] =
    ["was not stopped in order", "discarded", "cut queue entries", "a state file cannot be used, its backup is"];
/// Which of four rounds has one request at a time and nothing else.
const LONE_ROUND: u64 = 2;
/// Time under load before the end: at least, and how much more.
const LOAD_MS: u64 = 50;
const MORE_LOAD_MS: u64 = 350;
/// Kills of one store: each start reads all of it.
const KILLS_PER_STORE: u64 = 25;

/// Why a message must be refused before it is written.
#[derive(Debug, Clone, Copy)]
enum Fault {
    NoSuchQueue,
    NoSuchTopic,
    SystemTopic,
    TooLarge,
    Delayed,
    Transactional,
    ZeroInProperties,
    BatchCutShort,
}

/// Every so many messages one has a fault; which one goes round.
const FAULT_EVERY: u64 = 16;
const FAULTS: [Fault; 8] = [
    Fault::NoSuchQueue,
    Fault::Delayed,
    Fault::NoSuchTopic,
    Fault::BatchCutShort,
    Fault::SystemTopic,
    Fault::Transactional,
    Fault::TooLarge,
    Fault::ZeroInProperties,
];
const NO_TOPIC: &str = "crash-unknown";
const SYSTEM_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";

impl Fault {
    /// That of a message with this number.
    fn of(number: u64) -> Option<Fault> {
        let kind = usize::try_from(number / FAULT_EVERY).expect("small") % FAULTS.len();
        (number % FAULT_EVERY == FAULT_EVERY - 1).then_some(FAULTS[kind])
    }

    /// The code of the refusal.
    fn code(self) -> i32 {
        match self {
            Fault::NoSuchQueue => response::INVALID_PARAMETER,
            Fault::NoSuchTopic => response::TOPIC_NOT_EXIST,
            Fault::SystemTopic => response::NO_PERMISSION,
            Fault::BatchCutShort => response::SYSTEM_ERROR,
            Fault::TooLarge | Fault::Delayed | Fault::Transactional | Fault::ZeroInProperties => {
                response::MESSAGE_ILLEGAL
            }
        }
    }

    /// A send with this fault.
    fn send(self, name: MessageName, queue_id: i32) -> Command {
        let target = target(name, queue_id);
        let mut message = Message::new([NEVER_STORED, &body_of(name)].concat());
        match self {
            Fault::NoSuchQueue => send(&SendTarget { queue_id: QUEUES, ..target }, &message),
            Fault::NoSuchTopic => {
                send(&SendTarget { topic: NO_TOPIC, ..target }, &message).with_ext("c", "no-such-template")
            }
            Fault::SystemTopic => send(&SendTarget { topic: SYSTEM_TOPIC, queue_id: 0, ..target }, &message),
            Fault::TooLarge => {
                message.body.resize(MAX_MESSAGE_BYTES + 1, 0);
                send(&target, &message)
            }
            Fault::Delayed => send(&target, &message.with_property("DELAY", "3")),
            Fault::Transactional => send(&target, &message.with_property("TRAN_MSG", "true")),
            Fault::ZeroInProperties => send(&target, &message).with_ext("i", "KEYS\u{1}a\u{0}b\u{2}"),
            Fault::BatchCutShort => {
                let two = [&message, &message].map(|message| (message, String::new()));
                let mut body = batch_body(two).expect("valid");
                body.pop();
                requests::send_batch(&target, body, "U")
            }
        }
    }
}

fn target(name: MessageName, queue_id: i32) -> SendTarget<'static> {
    SendTarget { group: "crash", topic: TOPIC, queue_id, now_ms: name.number }
}

fn send(target: &SendTarget<'_>, message: &Message) -> Command {
    requests::send(target, message, "U").expect("valid")
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

/// Whether this is what a broker that stops says instead of an answer.
fn is_last_word(answer: &Command, ending: Ending) -> bool {
    let says = |text| answer.remark.as_deref().is_some_and(|remark| remark.contains(text));
    ending == Ending::Stopped && answer.code == response::SYSTEM_BUSY && (says("is stopping") || says("shutting down"))
}

/// A life of the broker under load, and how it ends.
#[derive(Debug, Clone, Copy)]
struct Round {
    number: u64,
    producers: Producers,
    ending: Ending,
}

/// Who sends in a round. Many requests under way may hide an acknowledgement that comes before the write: the next group's write
/// makes up for it. So there are rounds with one request at a time and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Producers {
    ManyAndOne,
    OneRequestAtATime,
}

/// A send whose answer is awaited.
struct UnderWay {
    queue_id: i32,
    name: MessageName,
    fault: Option<Fault>,
}

struct Producer {
    round: Round,
    number: u64,
    window: usize,
    /// Sent first: nobody knows what became of them in the round before.
    again: Vec<(i32, MessageName)>,
    under_way: HashMap<Ticket, UnderWay>,
    seen: Seen,
}

impl Producer {
    fn new(round: Round, number: u64, window: usize, again: Vec<(i32, MessageName)>) -> Producer {
        Producer { round, number, window, again, under_way: HashMap::new(), seen: Seen::default() }
    }

    /// Sends with a window of requests under way until the broker is gone.
    fn run(mut self, address: &str) -> Seen {
        let mut random = Random::new(self.round.number << 8 ^ self.number);
        let mut next = 0;
        let Some(mut connection) = until_gone(Connection::open(address)) else { return self.seen };
        'gone: loop {
            while self.under_way.len() < self.window {
                let again = self.again.pop();
                let (queue_id, name) = again.unwrap_or_else(|| {
                    next += 1;
                    let name = MessageName { round: self.round.number, producer: self.number, number: next - 1 };
                    (i32::try_from(random.below(4)).expect("small"), name)
                });
                let fault = if again.is_some() { None } else { Fault::of(name.number) };
                let request = match fault {
                    Some(fault) => fault.send(name, queue_id),
                    None => {
                        self.seen.sent.push(name);
                        send(&target(name, queue_id), &Message::new(body_of(name)))
                    }
                };
                let ticket = until_gone(connection.submit(request));
                let sent = UnderWay { queue_id, name, fault };
                let Some(ticket) = ticket else {
                    self.note_unknown(sent);
                    break 'gone;
                };
                self.under_way.insert(ticket, sent);
            }
            let Some(answer) = until_gone(connection.wait_any(PATIENCE)) else { break };
            let (ticket, answer) = answer.expect("an answer while the broker runs");
            self.note_answer(ticket, &answer);
        }
        // Answers that were received before the connection broke count like all others.
        while let Some(Some((ticket, answer))) = until_gone(connection.wait_any(PATIENCE)) {
            self.note_answer(ticket, &answer);
        }
        for (_, sent) in std::mem::take(&mut self.under_way) {
            self.note_unknown(sent);
        }
        self.seen
    }

    fn note_unknown(&mut self, sent: UnderWay) {
        if sent.fault.is_none() {
            self.seen.unknown.push((sent.queue_id, sent.name));
        }
    }

    fn note_answer(&mut self, ticket: Ticket, answer: &Command) {
        let sent = self.under_way.remove(&ticket).expect("a request that is under way");
        let stops = self.round.ending == Ending::Stopped && answer.code == response::SERVICE_NOT_AVAILABLE;
        if let Some(fault) = sent.fault {
            assert!(answer.code == fault.code() || stops, "{fault:?}: {} {:?}", answer.code, answer.remark);
            self.seen.faults_refused += 1;
            return;
        }
        match SendReceipt::decode(answer).expect("complete") {
            Some(receipt) if receipt.is_settled() => {
                assert_eq!(receipt.queue_id, sent.queue_id);
                let (_, physical) = decode_message_id(&receipt.message_id).expect("an offset id");
                let stored = Stored { name: sent.name, physical, digest: None };
                self.seen.confirmed.push(((sent.queue_id, receipt.queue_offset), stored));
            }
            // 10: it may be stored, but whether it is synced nobody knows; a busy disk does that.
            Some(receipt) => {
                assert_eq!(receipt.code, response::FLUSH_DISK_TIMEOUT);
                self.note_unknown(sent);
            }
            None => {
                let remark = answer.remark.as_deref().unwrap_or_default();
                let is_slow = answer.code == response::SYSTEM_BUSY && remark.contains("the broker's disk is slow");
                assert!(stops || is_slow, "code {}: {:?}", answer.code, answer.remark);
                self.seen.refused.push(sent.name);
            }
        }
    }
}

/// Reads all queues from `from` on with held pulls, until the broker is gone.
fn consume(address: &str, from: &BTreeMap<i32, i64>, ending: Ending) -> Seen {
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
        if is_last_word(&answer, ending) {
            continue;
        }
        let offset = next.get_mut(&queue_id).expect("a known queue");
        note_pulled(answer, queue_id, offset, |place, stored| seen.shown.push((place, stored)));
        let Some(ticket) = ask(&mut connection, queue_id, *offset) else { return seen };
        under_way.insert(ticket, queue_id);
    }
    seen
}

/// Checks that the answer continues at `offset` without a gap, and moves it.
fn note_pulled(answer: Command, queue_id: i32, offset: &mut i64, mut note: impl FnMut(Place, Stored)) {
    let pulled = PullAnswer::decode(answer).expect("complete").expect("no refusal");
    assert!(matches!(pulled.status, PullStatus::Found | PullStatus::NothingNew), "{:?}", pulled.status);
    for message in pulled.messages() {
        let message = message.expect("whole");
        assert_eq!((message.queue_id(), message.queue_offset()), (queue_id, *offset), "no gap");
        note((queue_id, *offset), Stored::of(&message).expect("a message that may be there"));
        *offset += 1;
    }
    assert_eq!(pulled.next_offset, *offset);
}

/// A group that reads on from where the broker says it was and commits what it has read, until the broker is gone. It commits
/// alone, so each confirmed commit is what is told next.
struct Committer {
    group: &'static str,
    ending: Ending,
    connection: Connection,
    seen: Seen,
}

impl Committer {
    fn run(address: &str, group: &'static str, told: &BTreeMap<i32, Option<i64>>, ending: Ending) -> Seen {
        let Some(connection) = until_gone(Connection::open(address)) else { return Seen::default() };
        let mut committer = Committer { group, ending, connection, seen: Seen::default() };
        let mut next = BTreeMap::new();
        for (queue_id, told) in told {
            let Some(offset) = committer.query(*queue_id) else { return committer.seen };
            assert_eq!(offset, *told, "{group} in queue {queue_id}, whose offset nobody has changed");
            next.insert(*queue_id, offset.unwrap_or(0));
        }
        let looks = if ending == Ending::Stopped && group == REQUESTING { LOOKS_BEFORE_STOP } else { usize::MAX };
        for _ in 0..looks {
            if !next.iter_mut().all(|(queue_id, next)| committer.go_on(*queue_id, next).is_some()) {
                break;
            }
            thread::sleep(COMMIT_PAUSE);
        }
        committer.seen
    }

    /// The answer to a request; nothing when the broker is gone.
    fn ask(&mut self, request: Command) -> Option<Command> {
        let ticket = until_gone(self.connection.submit(request))?;
        let answer = until_gone(self.connection.wait(ticket, PATIENCE))?;
        (!is_last_word(&answer, self.ending)).then_some(answer)
    }

    fn query(&mut self, queue_id: i32) -> Option<Option<i64>> {
        let answer = self.ask(requests::query_offset(self.group, TOPIC, queue_id))?;
        assert!([0, response::QUERY_NOT_FOUND].contains(&answer.code), "{answer:?}");
        Some((answer.code == 0).then(|| answer.ext_i64("offset").expect("an offset")))
    }

    /// One pull and the commit that goes with it.
    fn go_on(&mut self, queue_id: i32, next: &mut i64) -> Option<()> {
        let carries = self.group == CARRYING;
        let before = *next;
        let wanted = PullRequest {
            commit_offset: carries.then_some(before),
            ..PullRequest::new(self.group, TOPIC, queue_id, before)
        };
        let pull = requests::pull(&wanted);
        let answer = if carries { self.commit(queue_id, before, pull)? } else { self.ask(pull)? };
        note_pulled(answer, queue_id, next, |place, stored| self.seen.shown.push((place, stored)));
        if !carries {
            if *next == before {
                return Some(());
            }
            let answer = self.commit(queue_id, *next, requests::commit_offset(self.group, TOPIC, queue_id, *next))?;
            assert_eq!(answer.code, 0, "{answer:?}");
        }
        if carries && self.ending == Ending::Stopped {
            return Some(());
        }
        let expected = if carries { before } else { *next };
        assert_eq!(self.query(queue_id)?, Some(expected), "{} in queue {queue_id}", self.group);
        Some(())
    }

    /// Makes a request that commits this offset.
    fn commit(&mut self, queue_id: i32, offset: i64, request: Command) -> Option<Command> {
        let commit = |is_confirmed| Commit { group: self.group, queue_id, offset, is_confirmed };
        let (under_way, confirmed) = (commit(false), commit(true));
        self.seen.commits.push(under_way);
        let answer = self.ask(request)?;
        self.seen.commits.push(confirmed);
        Some(answer)
    }
}

/// Asks for all committed offsets again and again, on a connection of its own: within a life none moves back.
fn watch(address: &str, told: &BTreeMap<&'static str, BTreeMap<i32, Option<i64>>>) -> Seen {
    let mut last = told.clone();
    let Some(mut connection) = until_gone(Connection::open(address)) else { return Seen::default() };
    loop {
        for (group, offsets) in &mut last {
            for (queue_id, last) in offsets {
                let ticket = until_gone(connection.submit(requests::query_offset(group, TOPIC, *queue_id)));
                let answer = ticket.and_then(|ticket| until_gone(connection.wait(ticket, PATIENCE)));
                let Some(answer) = answer else {
                    return Seen::default();
                };
                let now = answer.ext_i64("offset").ok();
                assert!(now >= *last, "{group} in queue {queue_id} fell from {last:?} to {now:?}: {answer:?}");
                *last = now;
            }
        }
        thread::sleep(COMMIT_PAUSE);
    }
}

/// A store, and all that was seen of it.
#[derive(Default)]
struct Trial {
    history: History,
    ends: BTreeMap<i32, i64>,
    /// Offsets of the groups that commit, as the last start has told them.
    told: BTreeMap<&'static str, BTreeMap<i32, Option<i64>>>,
    /// Sends of the producer that waits for each answer, of which nobody knows.
    unknown: Vec<(i32, MessageName)>,
    figures: Figures,
}

#[derive(Default)]
struct Figures {
    confirmed: usize,
    /// Those of the producer that waits for each answer.
    confirmed_singly: usize,
    sent_again: usize,
    refused: usize,
    shown: usize,
    commits: usize,
    stored: i64,
}

impl Trial {
    /// A broker on a new store.
    fn begin(&mut self, store: &mut Store, sets: &[&str]) -> Broker {
        let queues = || 0..QUEUES;
        self.history = History::default();
        self.unknown.clear();
        self.ends = queues().map(|queue_id| (queue_id, 0)).collect();
        let untold = || queues().map(|queue_id| (queue_id, None)).collect();
        self.told = [REQUESTING, CARRYING].into_iter().map(|group| (group, untold())).collect();
        let broker = store.start(sets);
        broker.topic(TOPIC, u32::try_from(QUEUES).expect("small"));
        [REQUESTING, CARRYING].into_iter().for_each(|group| broker.group(group));
        broker
    }

    /// Load while `wait` waits, then the end.
    fn live(&mut self, broker: Broker, round: Round, wait: impl FnOnce(&Broker)) {
        let address = broker.address();
        let again = std::mem::take(&mut self.unknown);
        self.figures.sent_again += again.len();
        let (ends, told) = (&self.ends, &self.told);
        let seen: Vec<Seen> = thread::scope(|scope| {
            let address = address.as_str();
            let mut threads = Vec::new();
            let pipelined = if round.producers == Producers::ManyAndOne { PIPELINED } else { 0 };
            for number in 0..pipelined {
                let producer = Producer::new(round, number, WINDOW, Vec::new());
                threads.push(scope.spawn(move || producer.run(address)));
            }
            let single = Producer::new(round, PIPELINED, 1, again);
            threads.push(scope.spawn(move || single.run(address)));
            for consumer in 0..CONSUMERS {
                // One reads from the start, through all files; the others follow the end.
                let from =
                    if consumer == 0 { (0..QUEUES).map(|queue_id| (queue_id, 0)).collect() } else { ends.clone() };
                threads.push(scope.spawn(move || consume(address, &from, round.ending)));
            }
            for (group, told) in told {
                threads.push(scope.spawn(move || Committer::run(address, group, told, round.ending)));
            }
            if round.ending == Ending::Killed {
                threads.push(scope.spawn(move || watch(address, told)));
            }
            wait(&broker);
            match round.ending {
                Ending::Killed => broker.kill(&AFTER_A_CRASH),
                Ending::Stopped => assert_eq!(broker.stop(&AFTER_A_CRASH).code(), Some(0)),
            }
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        seen.into_iter().for_each(|seen| self.note(seen));
    }

    fn note(&mut self, seen: Seen) {
        let is_single = |name: &MessageName| name.producer == PIPELINED;
        self.figures.confirmed += seen.confirmed.len();
        self.figures.confirmed_singly += seen.confirmed.iter().filter(|(_, stored)| is_single(&stored.name)).count();
        self.figures.refused += seen.faults_refused + seen.refused.len();
        self.figures.shown += seen.shown.len();
        self.figures.commits += seen.commits.iter().filter(|commit| commit.is_confirmed).count();
        self.unknown.extend(seen.unknown.iter().filter(|(_, name)| is_single(name)));
        self.history.note(seen).expect("what clients saw agrees");
    }

    /// Reads everything that the broker serves, and judges it.
    fn verify(&mut self, broker: &Broker, ending: Ending) {
        let mut client = broker.client();
        let mut reading = Reading::default();
        for (queue_id, end) in &mut self.ends {
            let queue = broker.queue(TOPIC, *queue_id);
            assert_eq!(client.min_offset(&queue).expect("an answer"), 0);
            *end = client.max_offset(&queue).expect("an answer");
            let (mut connection, mut next) = (broker.connection(), 0);
            while next < *end {
                let wanted = PullRequest::new("crash", TOPIC, *queue_id, next);
                let answer = connection.call(requests::pull(&wanted)).expect("an answer");
                assert_eq!(answer.code, 0, "queue {queue_id} at {next} of {end}");
                note_pulled(answer, *queue_id, &mut next, |place, stored| {
                    self.history.read(&mut reading, place, stored).expect("what was promised");
                });
            }
        }
        self.history.check_ends(&self.ends).expect("nothing is lost");
        for (topic, queue_id) in [(TOPIC, QUEUES), (NO_TOPIC, 0), (SYSTEM_TOPIC, 0)] {
            let end = client.max_offset(&broker.queue(topic, queue_id)).expect("an answer");
            assert_eq!(end, 0, "sends to queue {queue_id} of {topic} were refused");
        }
        for (group, offsets) in &mut self.told {
            for (queue_id, told) in offsets {
                *told = client.query_offset(group, &broker.queue(TOPIC, *queue_id)).expect("an answer");
                let end = self.ends[queue_id];
                self.history.start_tells(group, *queue_id, *told, end, ending).expect("the offset of a group");
            }
        }
    }

    /// No file of the log holds a message that had to be refused. For the time after the end.
    fn assert_never_written(store: &Store) {
        for entry in fs::read_dir(store.path().join("commitlog")).expect("a commit log") {
            let path = entry.expect("an entry").path();
            let bytes = fs::read(&path).expect("readable");
            let found = bytes.windows(NEVER_STORED.len()).position(|window| window == NEVER_STORED);
            assert_eq!(found, None, "{} holds a message that had to be refused", path.display());
        }
    }
}

/// Kills on new stores, each of which is stopped in order at last.
fn kill_repeatedly(name: &str, sets: &[&str]) {
    let number = |variable: &str| std::env::var(variable).ok().and_then(|text| text.parse::<u64>().ok());
    let is_sync = sets.contains(&"flushDiskType=SYNC_FLUSH");
    let kills = number("RINGMQ_KILLS").unwrap_or(if is_sync { 6 } else { 5 });
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").subsec_nanos();
    let seed = number("RINGMQ_KILL_SEED").unwrap_or(u64::from(clock));
    println!("{name}: RINGMQ_KILL_SEED={seed} RINGMQ_KILLS={kills}");
    let mut random = Random::new(seed);
    let sets: Vec<&str> = SETS.iter().chain(sets).copied().collect();
    let mut trial = Trial::default();
    for first in (0..kills).step_by(KILLS_PER_STORE as usize) {
        let last = kills.min(first + KILLS_PER_STORE);
        let mut store = Store::new();
        let mut running = trial.begin(&mut store, &sets);
        for number in first..=last {
            let ending = if number == last { Ending::Stopped } else { Ending::Killed };
            let is_lone = ending == Ending::Killed && number % 4 == LONE_ROUND;
            let producers = if is_lone { Producers::OneRequestAtATime } else { Producers::ManyAndOne };
            let load = Duration::from_millis(LOAD_MS + random.below(MORE_LOAD_MS));
            trial.live(running, Round { number, producers, ending }, |_| thread::sleep(load));
            running = store.start(&sets);
            trial.verify(&running, ending);
            // After a stop in order there is nothing to repair.
            running.assert_quiet(if ending == Ending::Killed { &AFTER_A_CRASH } else { &[] });
        }
        running.kill(&[]);
        Trial::assert_never_written(&store);
        trial.figures.stored += trial.ends.values().sum::<i64>();
    }
    let Figures { confirmed, confirmed_singly, sent_again, refused, shown, commits, stored } = trial.figures;
    println!(
        "figures: way={name} kills={kills} acknowledged={confirmed} refused={refused} sent_again={sent_again} shown={shown} \
         commits={commits} stored={stored} lost=0"
    );
    assert!(confirmed > confirmed_singly, "the producers that pipeline were confirmed something");
    assert!(confirmed_singly > 0, "the producer that waits for each answer was confirmed something");
    assert!(refused > 0, "messages that have to be refused were");
    assert!(shown > 0, "consumers were shown something");
    assert!(commits > 0, "offsets were committed");
}

const LONG_ROUND: Round = Round { number: 0, producers: Producers::ManyAndOne, ending: Ending::Killed };

/// Goal: the log's durable point keeps up while the log never rests, or a restart would have to read all of it. Method: note
/// under load where the log ends and wait until the file says more, three times.
#[test]
fn the_durable_point_follows_a_busy_log() {
    let mut store = Store::new();
    let metrics = format!("metrics_listen={}", store.metrics_address());
    let sets: Vec<&str> = SETS.iter().copied().chain(["flushDiskType=ASYNC_FLUSH", &metrics]).collect();
    let mut trial = Trial::default();
    let running = trial.begin(&mut store, &sets);
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
    trial.live(running, LONG_ROUND, follow);
}

/// The offsets of a group in the state file, whose two names are free for a moment in turn.
fn offsets_on_disk(paths: &StorePaths, group: &str) -> Option<BTreeMap<i32, i64>> {
    let file = StateFile::new(paths.config().join("consumerOffset.json"));
    let decode = |bytes: &[u8]| ConsumerOffsetWrapper::decode(bytes).map_err(|error| error.to_string());
    let mut table = file.load(&RealDisk, decode).ok()??.value;
    table.offset_table.remove(&format!("{TOPIC}@{group}"))
}

/// Goal: what a kill takes back of committed offsets is no more than the last moment: each is in its file within
/// `flushConsumerOffsetInterval` (100 ms), a beat (500 ms), and what the disk takes. Method: under load, ask three times for all
/// offsets and wait until the file has them or later ones; kill, start: none lies behind what the file had.
#[test]
fn committed_offsets_reach_their_file() {
    /// For the file, on a busy machine.
    const DISK: Duration = Duration::from_secs(20);
    let within = Duration::from_millis(100 + 500) + DISK;
    let mut store = Store::new();
    let sets: Vec<&str> = SETS.iter().copied().chain(["flushDiskType=SYNC_FLUSH", "shards=2"]).collect();
    let mut trial = Trial::default();
    let running = trial.begin(&mut store, &sets);
    let paths = StorePaths::new(store.path());
    let mut kept = BTreeMap::new();
    let follow = |running: &Broker| {
        for _ in 0..3 {
            for group in [REQUESTING, CARRYING] {
                let mut client = running.client();
                let told = |queue_id| client.query_offset(group, &running.queue(TOPIC, queue_id)).expect("an answer");
                let told: Vec<Option<i64>> = (0..QUEUES).map(told).collect();
                let asked = Instant::now();
                let on_disk = wait_for("the offsets in their file", || {
                    let on_disk = offsets_on_disk(&paths, group)?;
                    let has = |(queue_id, told): (i32, &Option<i64>)| on_disk.get(&queue_id).copied() >= *told;
                    (0..QUEUES).zip(&told).all(has).then_some(on_disk)
                });
                assert!(asked.elapsed() < within, "they came after {:?}", asked.elapsed());
                kept.insert(group, on_disk);
            }
        }
    };
    trial.live(running, LONG_ROUND, follow);
    let running = store.start(&sets);
    trial.verify(&running, Ending::Killed);
    for (group, offsets) in kept {
        for (queue_id, offset) in offsets {
            let told = trial.told[group][&queue_id];
            assert!(told >= Some(offset), "{group} in queue {queue_id} is told {told:?}; {offset} was on disk");
            assert!(told > Some(0), "{group} has committed something in queue {queue_id}");
        }
    }
    running.kill(&AFTER_A_CRASH);
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
