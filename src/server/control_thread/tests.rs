//! Topics and consumer offsets on disks that are full or fail, and deletions with a log that is stuck.

mod hanging;

use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};

use ringmq_protocol::frame::MAX_FRAME_BYTES;
use ringmq_shards::clock::Clock;
use ringmq_shards::disk::{Disk, OpenOptions, StateFile, create_directories_durably, read_file};
use ringmq_shards::probe::Registry;
use ringmq_shards::queue::QueueStoreConfig;
use ringmq_shards::recovery::queue_offsets::QueueOffsets;
use ringmq_shards::runtime::{Mailbox, WakeHandle};
use ringmq_shards::sim::{Fault, FaultAction, ManualClock, Operation, OperationKind, SimDisk};
use ringmq_shards::types::PhysicalOffset;

use super::*;
use crate::broker::tests::{FakeStore, control};
use crate::config::Layers;

/// Where the log ends when topics are deleted.
const BARRIER: u64 = 4_711;
const CONNECTION: u64 = 1 << 32;

/// A control thread whose tests are its loop, with a writer's shard beside it.
struct Rig {
    control: ControlThread,
    disk: SimDisk,
    answers: Receiver<Command>,
    held: Receiver<Sender<u64>>,
    /// What the shard carries.
    carried: Arc<Mutex<Vec<CarriedCommit>>>,
    shard: Option<JoinHandle<()>>,
    opaque: i32,
}

/// What shard 0 does with messages. Barriers are given at once, or handed to the test.
fn shard(
    mailbox: &Mailbox<ShardMessage>,
    answers: &Sender<Command>,
    held: Option<&Sender<Sender<u64>>>,
    carried: &Mutex<Vec<CarriedCommit>>,
) {
    loop {
        match mailbox.receive() {
            // A request ends without an answer.
            Some(ShardMessage::Frame { frame, .. }) if frame.is_empty() => {}
            Some(ShardMessage::Frame { frame, .. }) => {
                let Ok(Split::Frame { frame, .. }) = split_frame(&frame, MAX_FRAME_BYTES) else { panic!("no frame") };
                answers.send(Command::decode(frame).expect("an answer")).expect("the test waits");
            }
            Some(ShardMessage::Retire(queues, done)) => {
                queues.iter().for_each(|queue| queue.retire());
                match held {
                    Some(held) => held.send(done).expect("the test waits"),
                    None => done.send(BARRIER).expect("the control thread waits"),
                }
            }
            Some(ShardMessage::HandOver(taken)) => {
                let commits = std::mem::take(&mut *carried.lock().expect("no panic"));
                taken.send(commits).expect("the control thread waits");
            }
            Some(ShardMessage::Stop) => return,
            Some(_) => {}
            None => thread::yield_now(),
        }
    }
}

impl Rig {
    fn new(holds_barriers: bool) -> Rig {
        let disk = SimDisk::new();
        let paths = StorePaths::new("/store");
        for directory in [paths.own(), paths.config(), paths.consume_queue()] {
            create_directories_durably(&disk, &directory).expect("created");
        }
        let config = Layers::default().build().expect("the defaults are a configuration");
        let shared = Arc::new(Shared::new(&config, 1, 4 << 30, 1 << 20, 64 << 20));
        let registry = Arc::new(Registry::new());
        let (queues, _pool) =
            QueueStore::new(Arc::new(disk.clone()), &paths.consume_queue(), QueueStoreConfig::default());
        let parts = BrokerParts {
            control: control(),
            store: Arc::new(FakeStore::default()),
            queues: Arc::new(queues),
            queue_offsets: Arc::new(storage::Sidecar::default()),
            identity: Arc::new(ServingIdentity::new(
                "c".to_owned(),
                "r".to_owned(),
                true,
                SocketAddr::from(([127, 0, 0, 1], 10_911)),
            )),
            pictured: Pictured::from(&config),
            register_timeout: Duration::from_secs(1),
            own_namesrv: None,
            figures: Arc::new(StoreFigures::new(Arc::clone(&registry), Arc::clone(&shared))),
            state_directory: paths.config(),
            registrars: Vec::new(),
            jobs: sync_channel(4).0,
            paths,
        };
        let (sender, mailbox) = Mailbox::new(64, WakeHandle::new().expect("an eventfd"));
        let (answer, answers) = channel();
        let (hold, held) = channel();
        let carried = Arc::new(Mutex::new(Vec::new()));
        let shard = thread::spawn({
            let carried = Arc::clone(&carried);
            move || shard(&mailbox, &answer, holds_barriers.then_some(&hold), &carried)
        });
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1_000_000));
        let (wake, requests) = sync_channel(4);
        let kept = Some((parts.paths.clone(), Arc::clone(&parts.queue_offsets)));
        let persister = Persister::start(Arc::new(disk.clone()), kept, wake).expect("a thread");
        let mut control = ControlThread::new(
            requests,
            vec![sender],
            persister,
            clock,
            Some(parts),
            None,
            (PathBuf::from("/store/kv"), PathBuf::from("/store/namesrv")),
            None,
            Arc::new(AtomicBool::new(false)),
            shared,
            registry.probe("control"),
        );
        assert!(control.first_serving().is_some());
        let peer = SocketAddr::from(([127, 0, 0, 1], 50_000));
        control.request(ControlRequest::Opened { connection: CONNECTION, listener: Listener::Broker, peer });
        Rig { control, disk, answers, held, carried, shard: Some(shard), opaque: 0 }
    }

    /// Asks; gives the code and the remark.
    fn ask(&mut self, code: i32, fields: &[(&str, &str)]) -> (i32, String) {
        self.ask_body(code, fields, b"")
    }

    fn ask_body(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) -> (i32, String) {
        self.opaque += 1;
        let request = Command::request(code).with_body(body.to_vec());
        let command = fields.iter().fold(request, |command, (key, value)| command.with_ext(key, *value));
        let command = Command { opaque: self.opaque, ..command };
        self.control.request(ControlRequest::Command {
            connection: CONNECTION,
            frame: command.encode(),
            answers: Charge::default(),
            at_ns: 0,
        });
        self.control.settle();
        // Notices may come first.
        let answer = loop {
            let frame = self.answers.recv_timeout(Duration::from_secs(30)).expect("an answer");
            if frame.is_response() {
                break frame;
            }
        };
        assert_eq!(answer.opaque, self.opaque);
        (answer.code, answer.remark.unwrap_or_default())
    }

    fn create(&mut self, topic: &str) {
        assert_eq!(self.try_create(topic), (0, String::new()));
        assert!(self.has_topic_on_disk(topic));
    }

    fn try_create(&mut self, topic: &str) -> (i32, String) {
        let fields = [
            ("topic", topic),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", "2"),
            ("writeQueueNums", "2"),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
            ("topicSysFlag", "0"),
            ("order", "false"),
        ];
        self.ask(17, &fields)
    }

    /// A send to a topic that may not exist: the code and remark of its answer, or nothing when it may try again.
    fn send_to(&mut self, topic: &str) -> Option<(i32, String)> {
        let fields = [
            ("producerGroup", "p"),
            ("topic", topic),
            ("defaultTopic", "TBW102"),
            ("defaultTopicQueueNums", "4"),
            ("queueId", "0"),
            ("sysFlag", "0"),
            ("bornTimestamp", "1"),
            ("flag", "0"),
        ];
        let request = fields.iter().fold(Command::request(10), |command, (key, value)| command.with_ext(key, *value));
        let frame = Command { opaque: 77, ..request.with_body(b"body".to_vec()) }.encode();
        self.control.request(ControlRequest::CreateTopic { connection: CONNECTION, frame, answers: 0 });
        self.control.settle();
        self.refusal()
    }

    /// The refusal of request 77, if it has one.
    fn refusal(&mut self) -> Option<(i32, String)> {
        // Answers keep their order: a refusal comes before this one.
        self.opaque += 1;
        let next = Command { opaque: self.opaque, ..Command::request(305) };
        self.control.request(ControlRequest::Command {
            connection: CONNECTION,
            frame: next.encode(),
            answers: Charge::default(),
            at_ns: 0,
        });
        let mut refusal = None;
        loop {
            let answer = self.answers.recv_timeout(Duration::from_secs(30)).expect("an answer");
            if answer.opaque == self.opaque {
                return refusal;
            }
            assert_eq!(answer.opaque, 77);
            refusal = Some((answer.code, answer.remark.unwrap_or_default()));
        }
    }

    fn is_served(&mut self, topic: &str) -> bool {
        self.control.make_serving().expect("a picture").topics.contains_key(topic)
    }

    fn delete(&mut self, topic: &str) -> (i32, String) {
        self.ask(215, &[("topic", topic)])
    }

    fn tick(&mut self) {
        self.control.tick(self.control.now());
        self.control.settle();
    }

    /// A pull by a group that may not exist: the code and remark of its answer, or nothing when it may try again.
    fn pull_as(&mut self, group: &str) -> Option<(i32, String)> {
        let fields = [
            ("consumerGroup", group),
            ("topic", "T"),
            ("queueId", "0"),
            ("queueOffset", "0"),
            ("maxMsgNums", "1"),
            ("sysFlag", "0"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "0"),
            ("subVersion", "0"),
        ];
        let request = fields.iter().fold(Command::request(11), |command, (key, value)| command.with_ext(key, *value));
        let frame = Command { opaque: 77, ..request }.encode();
        self.control.request(ControlRequest::CreateGroup { connection: CONNECTION, frame, answers: 0 });
        self.control.settle();
        self.refusal()
    }

    /// What the next process would find after a kill.
    fn barrier_on_disk(&self, topic: &str) -> Option<PhysicalOffset> {
        let loaded = QueueOffsets::load(&self.disk.kill(), &StorePaths::new("/store")).expect("it can be read");
        loaded.and_then(|loaded| loaded.value.barriers.get(topic).copied())
    }

    fn has_topic_on_disk(&self, topic: &str) -> bool {
        self.has_on_disk("topics.json", topic)
    }

    fn has_group_on_disk(&self, group: &str) -> bool {
        self.has_on_disk("subscriptionGroup.json", group)
    }

    /// Whether the next process would know this name: while a table is replaced it has its backup only.
    fn has_on_disk(&self, file: &str, name: &str) -> bool {
        let file = StateFile::new(Path::new("/store/config").join(file));
        let decode = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string());
        let loaded = file.load(&self.disk.kill(), decode).expect("it can be read").expect("it is there");
        loaded.value.contains(&format!("\"{name}\""))
    }

    fn has_group(&mut self, group: &str) -> bool {
        self.control.make_serving().expect("a picture").groups.contains_key(group)
    }

    fn heartbeat(&mut self, group: &str) -> (i32, String) {
        let consumer = format!(r#"{{"groupName":"{group}","subscriptionDataSet":[{{"topic":"T","subString":"*"}}]}}"#);
        self.ask_body(34, &[], format!(r#"{{"clientID":"c","consumerDataSet":[{consumer}]}}"#).as_bytes())
    }

    fn make_group(&mut self) {
        let group = [("group", "g"), ("consumeEnable", "true")];
        let body = br#"{"groupName":"g","consumeEnable":true,"brokerId":0,"retryQueueNums":1,"retryMaxTimes":16}"#;
        assert_eq!(self.ask_body(200, &group, body).0, 0);
    }

    /// A commit of which nobody waits for an answer.
    fn commit_to_table(&mut self, offset: i64) {
        let commit = OffsetCommit {
            group: "g".to_owned(),
            topic: "T".to_owned(),
            queue_id: 0,
            commit: Some(offset),
            pulled: None,
        };
        let control = &mut self.control.broker.as_mut().expect("a broker").control;
        control.commit_offsets([commit], 1_000_000);
        control.offsets.make_due();
    }

    fn commit(&mut self, offset: i64) {
        self.make_group();
        let offset = offset.to_string();
        let fields = [("consumerGroup", "g"), ("topic", "T"), ("queueId", "0"), ("commitOffset", offset.as_str())];
        assert_eq!(self.ask(15, &fields), (0, String::new()));
        // As if a period had passed.
        self.control.broker.as_mut().expect("a broker").control.offsets.make_due();
    }

    /// The offset that the next process would start from.
    fn offset_on_disk(&self) -> Option<i64> {
        let bytes = read_file(&self.disk.kill(), Path::new("/store/config/consumerOffset.json")).expect("readable");
        let mut next = control();
        next.load_state([("consumerOffset.json", bytes?.as_slice())]).expect("it is whole");
        next.offsets.committed("g", "T", 0, false)
    }

    fn fail_writes_of(&self, name: &str) {
        let (path_contains, action) = (name.to_owned(), FaultAction::Fail(libc::EIO));
        self.disk.inject(Fault { kind: OperationKind::Write, path_contains, after: 0, times: u64::MAX, action });
    }

    /// Somebody else takes all the room that is left.
    fn fill(&self, name: &str) {
        self.disk.set_capacity(Some(8 << 20));
        let options = OpenOptions { create: true, ..OpenOptions::default() };
        let file = self.disk.open(&Path::new("/").join(name), options).expect("created");
        let pages = (0..).take_while(|page| file.write_all_at(&[1; 4096], page * 4096).is_ok()).count();
        assert!(pages < 4096);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Whoever waits for it still would do so for ever.
        self.disk.go_on();
        self.control.shards[0].send_blocking(ShardMessage::Stop);
        let ended = self.shard.take().map(JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}

/// Goal: a deletion whose barrier cannot be written is not confirmed, the barrier is written as soon as that works, and the
/// deletion can then be asked for again. Method: fail each write of the file, then no more.
#[test]
fn a_barrier_is_written_again_until_it_is() {
    let mut rig = Rig::new(false);
    rig.create("gone");
    let action = FaultAction::Fail(libc::EIO);
    let path_contains = "queue-offsets".to_owned();
    rig.disk.inject(Fault { kind: OperationKind::Write, path_contains, after: 0, times: u64::MAX, action });
    let (code, remark) = rig.delete("gone");
    assert!(code == response::SYSTEM_ERROR && remark.contains("a crash would bring it back"), "{code} {remark}");
    rig.tick();
    assert_eq!(rig.barrier_on_disk("gone"), None);
    rig.disk.clear_faults();
    rig.tick();
    assert_eq!(rig.barrier_on_disk("gone"), Some(PhysicalOffset(BARRIER)));
    assert_eq!(rig.delete("gone"), (0, String::new()));
    assert!(!rig.has_topic_on_disk("gone"));
}

/// Goal: a deletion that a crash would undo leaves the queues' files alone, so that what comes back is whole, and nothing is taken
/// for a topic of that name meanwhile: it would count as part of the old one. Method: fail the write of the barrier; ask for the
/// topic by request and by a send; the queues are still there, and go when it can be written.
#[test]
fn a_deletion_that_cannot_be_noted_destroys_nothing() {
    let mut rig = Rig::new(false);
    rig.create("gone");
    let queues = Arc::clone(&rig.control.broker.as_ref().expect("a broker").queues);
    let count = queues.topic_queues("gone").len();
    assert!(count > 0);
    rig.fail_writes_of("queue-offsets");
    assert_eq!(rig.delete("gone").0, response::SYSTEM_ERROR);
    let (code, remark) = rig.try_create("gone");
    assert!(code == response::SYSTEM_ERROR && remark.contains("not on disk"), "{code} {remark}");
    let (code, remark) = rig.send_to("gone").expect("a refusal");
    assert!(code == response::SERVICE_NOT_AVAILABLE && remark.contains("not on disk"), "{code} {remark}");
    rig.tick();
    assert!(!rig.is_served("gone") && queues.topic_queues("gone").len() == count);
    rig.disk.clear_faults();
    assert_eq!(rig.delete("gone"), (0, String::new()));
    assert!(queues.topic_queues("gone").is_empty());
    rig.create("gone");
    assert_eq!(rig.send_to("gone"), None);
}

/// Goal: nothing is taken for a topic that was made again while a crash would count it as deleted. Method: a writer that answers
/// late, so that the disk says that all records of the topic are deleted, and a disk that does not take the barrier then.
#[test]
fn a_name_is_free_once_its_barrier_is_on_disk() {
    let mut rig = Rig::new(true);
    rig.create("gone");
    assert_eq!(rig.delete("gone"), (0, String::new()), "a crash leaves it deleted");
    assert_eq!(rig.barrier_on_disk("gone"), Some(PhysicalOffset(u64::MAX)));
    rig.fail_writes_of("queue-offsets");
    rig.held.try_recv().expect("the writer was asked").send(BARRIER).expect("it is waited for");
    for _ in 0..2 {
        let (code, remark) = rig.send_to("gone").expect("a refusal");
        assert!(code == response::SERVICE_NOT_AVAILABLE && remark.contains("not on disk"), "{code} {remark}");
        assert_eq!(rig.try_create("gone").0, response::SYSTEM_ERROR);
        rig.tick();
    }
    assert_eq!(rig.barrier_on_disk("gone"), Some(PhysicalOffset(u64::MAX)));
    rig.disk.clear_faults();
    rig.tick();
    assert_eq!(rig.barrier_on_disk("gone"), Some(PhysicalOffset(BARRIER)));
    rig.create("gone");
    assert!(rig.is_served("gone"));
    assert_eq!(rig.send_to("gone"), None);
}

/// Goal: a deletion whose topic is still in the table on disk is not confirmed. Method: fail the writes of that file.
#[test]
fn a_topic_that_stays_in_the_table_is_not_confirmed_as_deleted() {
    let mut rig = Rig::new(false);
    rig.create("gone");
    let action = FaultAction::Fail(libc::EIO);
    let path_contains = "topics.json".to_owned();
    rig.disk.inject(Fault { kind: OperationKind::Write, path_contains, after: 0, times: u64::MAX, action });
    assert_eq!(rig.delete("gone").0, response::SYSTEM_ERROR);
    assert!(rig.has_topic_on_disk("gone"));
    rig.disk.clear_faults();
    rig.tick();
    assert!(!rig.has_topic_on_disk("gone"));
    assert_eq!(rig.delete("gone"), (0, String::new()));
}

/// Goal: on a full disk a deletion is confirmed and survives a crash, thanks to the room that is kept back; with that gone too
/// it is not confirmed; with room again everything is as before. Method: fill the disk, delete, fill again.
#[test]
fn deletions_on_a_full_disk_use_the_reserve() {
    let mut rig = Rig::new(false);
    for topic in ["first", "second", "third"] {
        rig.create(topic);
    }
    rig.fill("filler");
    assert_eq!(rig.delete("first"), (0, String::new()));
    assert_eq!(rig.barrier_on_disk("first"), Some(PhysicalOffset(BARRIER)));
    assert!(!rig.has_topic_on_disk("first"));
    // The room is there again for the next one, whoever asks for more in between.
    rig.fill("more");
    rig.tick();
    assert_eq!(rig.delete("second"), (0, String::new()));
    assert_eq!(rig.barrier_on_disk("second"), Some(PhysicalOffset(BARRIER)));

    rig.disk.remove_file(Path::new("/store/ringmq/reserve")).expect("it is there");
    rig.fill("most");
    let (code, remark) = rig.delete("third");
    assert!(code == response::SYSTEM_ERROR && remark.contains("os error 28"), "{code} {remark}");
    assert_eq!(rig.barrier_on_disk("third"), None);
    rig.disk.remove_file(Path::new("/filler")).expect("it is there");
    rig.tick();
    assert_eq!(rig.barrier_on_disk("third"), Some(PhysicalOffset(BARRIER)));
    assert!(!rig.has_topic_on_disk("third"));
    assert_eq!(rig.delete("third"), (0, String::new()));
    assert!(read_file(&rig.disk, Path::new("/store/ringmq/reserve")).expect("readable").is_some());
}

/// Goal: when the log is stuck, a deletion is confirmed once all records of the topic count as deleted on disk; its name is not
/// made before the barrier is there, and the late barrier reaches the disk. Method: a writer that answers later.
#[test]
fn a_late_barrier_ends_the_deletion() {
    let mut rig = Rig::new(true);
    rig.create("gone");
    assert_eq!(rig.delete("gone"), (0, String::new()));
    assert_eq!(rig.barrier_on_disk("gone"), Some(PhysicalOffset(u64::MAX)));
    let (code, remark) = rig.try_create("gone");
    assert!(code == response::SYSTEM_ERROR && remark.contains("the log is stuck"), "{code} {remark}");
    rig.tick();
    assert!(!rig.is_served("gone") && !rig.has_topic_on_disk("gone"));
    rig.held.try_recv().expect("the writer was asked").send(BARRIER).expect("it is waited for");
    // Without a tick in between: a request finds the answer too.
    rig.create("gone");
    assert_eq!(rig.barrier_on_disk("gone"), Some(PhysicalOffset(BARRIER)));
    assert!(rig.is_served("gone"));
}

/// Goal: queues without a topic go as safely as a deletion: not confirmed before their barriers are on disk, and however many
/// there are, with one wait for the writer and one write. Method: a hundred of them, first with a file that cannot be written.
#[test]
fn unknown_topics_are_retired_as_one() {
    let mut rig = Rig::new(false);
    rig.create("kept");
    let names: Vec<String> = (0..100).map(|number| format!("unknown-{number}")).collect();
    let queues = Arc::clone(&rig.control.broker.as_ref().expect("a broker").queues);
    for name in &names {
        queues.get_or_create(name, QueueId(0)).expect("made");
    }
    let action = FaultAction::Fail(libc::EIO);
    let path_contains = "queue-offsets".to_owned();
    rig.disk.inject(Fault { kind: OperationKind::Write, path_contains, after: 0, times: u64::MAX, action });
    let (code, remark) = rig.ask(316, &[]);
    assert!(code == response::SYSTEM_ERROR && remark.contains("a crash would bring it back"), "{code} {remark}");
    assert!(names.iter().all(|name| queues.get(name, QueueId(0)).is_some() && rig.barrier_on_disk(name).is_none()));
    rig.disk.clear_faults();
    let renames = |rig: &Rig| {
        let renamed = |operation: &&Operation| {
            operation.kind == OperationKind::Rename && operation.path.to_string_lossy().contains("queue-offsets")
        };
        rig.disk.operations().iter().filter(renamed).count()
    };
    let before = renames(&rig);
    assert_eq!(rig.ask(316, &[]), (0, String::new()));
    let per_write = renames(&rig) - before;
    assert!((1..=2).contains(&per_write), "{per_write}");
    assert!(names.iter().all(|name| rig.barrier_on_disk(name) == Some(PhysicalOffset(BARRIER))));
    assert!(names.iter().all(|name| queues.get(name, QueueId(0)).is_none()));
    assert!(queues.get("kept", QueueId(0)).is_some());
}

/// Goal: with a stuck log nothing piles up, however often the same is asked. Method: delete and make again, and clean up, while the
/// writer keeps the barriers to itself.
#[test]
fn a_stuck_log_is_waited_for_once_per_name() {
    let mut rig = Rig::new(true);
    rig.create("gone");
    let queues = Arc::clone(&rig.control.broker.as_ref().expect("a broker").queues);
    queues.get_or_create("unknown", QueueId(0)).expect("made");
    for _ in 0..3 {
        assert_eq!(rig.delete("gone"), (0, String::new()));
        assert_eq!(rig.ask(316, &[]), (0, String::new()));
        assert_eq!(rig.try_create("gone").0, response::SYSTEM_ERROR);
    }
    assert_eq!(rig.control.unfenced.len(), 2);
    assert_eq!(rig.held.try_iter().map(|done| done.send(BARRIER).expect("it is waited for")).count(), 2);
    rig.tick();
    assert!(rig.control.unfenced.is_empty());
    for name in ["gone", "unknown"] {
        assert_eq!(rig.barrier_on_disk(name), Some(PhysicalOffset(BARRIER)));
    }
}

/// Goal: shards can compare the time up to which a group holds locks with their own clock. Method: lock at a wall clock that is
/// far off.
#[test]
fn locks_are_published_by_the_shards_clock() {
    const LOCKED_MS: u64 = 60_000;
    let mut rig = Rig::new(false);
    rig.make_group();
    let before_ms = monotonic_ns() / 1_000_000;
    let body = br#"{"clientId":"c","consumerGroup":"g","mqSet":[{"brokerName":"broker-a","queueId":0,"topic":"T"}]}"#;
    assert_eq!(rig.ask_body(41, &[], body).0, 0);
    let after_ms = monotonic_ns() / 1_000_000;
    let groups = &rig.control.make_serving().expect("a picture").groups;
    assert!(groups["g"].holds_locks(before_ms + LOCKED_MS) && !groups["g"].holds_locks(after_ms + LOCKED_MS + 1));
}

/// Goal: a commit that could not be written reaches the disk all the same, without another one. Method: one commit while the file
/// cannot be written, ticks, then a disk that works, and a tick; and the same with a stop instead of the ticks.
#[test]
fn a_failed_write_of_offsets_is_made_good() {
    for stops in [false, true] {
        let mut rig = Rig::new(false);
        rig.create("T");
        rig.commit(5);
        rig.tick();
        assert_eq!(rig.offset_on_disk(), Some(5));
        rig.fail_writes_of("consumerOffset.json");
        rig.commit(10);
        rig.tick();
        if !stops {
            rig.tick();
        }
        assert_eq!(rig.offset_on_disk(), Some(5));
        rig.disk.clear_faults();
        if stops {
            assert!(rig.control.write_last());
        } else {
            rig.tick();
        }
        assert_eq!(rig.offset_on_disk(), Some(10));
    }
}

/// Goal: offsets that are being written do not replace newer ones, and a stop waits for both. Method: a stop while a disk that hangs has
/// the older ones.
#[test]
fn a_stop_waits_for_offsets_that_are_being_written() {
    let mut rig = Rig::new(false);
    rig.create("T");
    rig.commit(5);
    rig.disk.hang("consumerOffset.json");
    rig.control.tick(rig.control.now());
    rig.commit_to_table(6);
    let disk = rig.disk.clone();
    thread::scope(|scope| {
        let control = &mut rig.control;
        let stop = scope.spawn(move || control.write_last());
        disk.go_on();
        assert!(stop.join().expect("it ends"));
    });
    assert_eq!(rig.offset_on_disk(), Some(6));
}

/// Goal: no topic is served, shown or promised whose table is not on disk, and what is refused does not come up later. Method: make
/// topics by request and by sends while the file fails; then with a disk that works.
#[test]
fn topics_that_cannot_be_written_are_not_made() {
    let mut rig = Rig::new(false);
    rig.create("kept");
    rig.fail_writes_of("topics.json");
    for _ in 0..2 {
        let (code, remark) = rig.try_create("new");
        assert!(code == response::SYSTEM_ERROR && remark.contains("cannot be changed"), "{code} {remark}");
        let (code, remark) = rig.send_to("sent").expect("a refusal");
        assert!(code == response::SERVICE_NOT_AVAILABLE && remark.contains("cannot be changed"), "{code} {remark}");
        assert!(rig.is_served("kept") && !rig.is_served("new") && !rig.is_served("sent"));
        assert_eq!(rig.ask(351, &[("topic", "new")]).0, response::TOPIC_NOT_EXIST);
        rig.tick();
    }
    assert_eq!(rig.send_to("kept"), None, "topics that exist need no table");
    rig.disk.clear_faults();
    rig.tick();
    assert!(!rig.has_topic_on_disk("new") && !rig.has_topic_on_disk("sent") && rig.has_topic_on_disk("kept"));
    assert_eq!(rig.send_to("sent"), None);
    rig.create("new");
    assert!(rig.is_served("new") && rig.is_served("sent") && rig.has_topic_on_disk("sent"));
}

/// Goal: no group is confirmed, used or shown whose table is not on disk, and what is refused does not come up later. Method: make,
/// change and delete groups in each way there is while the file fails; then with a disk that works.
#[test]
fn groups_that_cannot_be_written_are_not_changed() {
    let mut rig = Rig::new(false);
    rig.create("T");
    rig.commit(5);
    rig.fail_writes_of("subscriptionGroup.json");
    let is_refused = |(code, remark): (i32, String), expected: i32| {
        assert!(code == expected && remark.contains("the table of groups cannot be changed"), "{code} {remark}");
    };
    let (changed, made) = (r#"{"groupName":"g","consumeEnable":false}"#, r#"{"groupName":"made"}"#);
    let list = format!(r#"{{"groupConfigList":[{made},{changed}]}}"#);
    for _ in 0..2 {
        is_refused(rig.ask_body(200, &[], made.as_bytes()), response::SYSTEM_ERROR);
        is_refused(rig.ask_body(200, &[], changed.as_bytes()), response::SYSTEM_ERROR);
        is_refused(rig.ask_body(225, &[], list.as_bytes()), response::SYSTEM_ERROR);
        is_refused(rig.ask(352, &[("group", "shown")]), response::SYSTEM_ERROR);
        is_refused(rig.ask(207, &[("groupName", "g"), ("cleanOffset", "true")]), response::SYSTEM_ERROR);
        is_refused(rig.heartbeat("beats"), response::SYSTEM_ERROR);
        is_refused(rig.pull_as("pulls").expect("a refusal"), response::SYSTEM_ERROR);
        is_refused(rig.send_to("%RETRY%sends").expect("a refusal"), response::SERVICE_NOT_AVAILABLE);
        rig.tick();
        let control = &rig.control.broker.as_ref().expect("a broker").control;
        assert_eq!(control.offsets.committed("g", "T", 0, false), Some(5), "they go with the group only");
        assert!(control.groups.get("g").is_some_and(|group| group.consume_enable));
        assert!(rig.has_group("g") && rig.has_group_on_disk("g"));
        for group in ["made", "shown", "beats", "pulls", "sends"] {
            assert!(!rig.has_group(group), "{group}");
        }
    }
    assert_eq!(rig.pull_as("g"), None, "groups that exist need no table");
    rig.disk.clear_faults();
    rig.tick();
    assert!(!rig.has_group_on_disk("made") && !rig.has_group_on_disk("beats") && rig.has_group_on_disk("g"));
    assert_eq!(rig.heartbeat("beats"), (0, String::new()));
    assert_eq!(rig.pull_as("pulls"), None);
    assert_eq!(rig.send_to("%RETRY%sends"), None);
    assert_eq!(rig.ask_body(225, &[], list.as_bytes()).0, 0);
    for group in ["made", "beats", "pulls", "sends"] {
        assert!(rig.has_group(group) && rig.has_group_on_disk(group), "{group}");
    }
    assert_eq!(rig.ask(207, &[("groupName", "g"), ("cleanOffset", "true")]), (0, String::new()));
    assert!(!rig.has_group("g") && !rig.has_group_on_disk("g"));
    let control = &rig.control.broker.as_ref().expect("a broker").control;
    assert_eq!(control.offsets.committed("g", "T", 0, false), None);
}

/// Goal: a send to a topic whose queues cannot be made ends with an answer: tried again it would come back for ever. Method: a table
/// from elsewhere with a name that no folder can have, a send to it; and one to a topic beside it.
#[test]
fn a_topic_without_queues_refuses_sends() {
    let mut rig = Rig::new(false);
    let table = br#"{"topicConfigTable":{"a/b":{"topicName":"a/b","readQueueNums":1,"writeQueueNums":1,"perm":6}}}"#;
    let broker = rig.control.broker.as_mut().expect("a broker");
    broker.control.load_state([("topics.json", table.as_slice())]).expect("it is of its form");
    rig.control.publish_serving();
    for _ in 0..2 {
        let (code, remark) = rig.send_to("a/b").expect("a refusal");
        assert!(code == response::SYSTEM_ERROR && remark.contains("cannot be made"), "{code} {remark}");
    }
    assert_eq!(rig.send_to("beside"), None);
    assert!(rig.is_served("beside") && !rig.is_served("a/b"));
}

/// A name server that takes connections and answers nothing.
fn register_with_a_silent_one(rig: &mut Rig) -> std::net::TcpListener {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    let registrar = Registrar::start(address, Duration::from_secs(600)).expect("started");
    rig.control.broker.as_mut().expect("a broker").registrars.push(registrar);
    silent
}

/// The request that makes a topic.
fn creation(topic: &str, opaque: i32) -> ControlRequest {
    let fields = [("topic", topic), ("readQueueNums", "1"), ("writeQueueNums", "1"), ("perm", "6")];
    let create = fields.iter().fold(Command::request(17), |command, (key, value)| command.with_ext(key, *value));
    let create = Command { opaque, ..create.with_ext("topicFilterType", "SINGLE_TAG") };
    let answers = Charge::default();
    ControlRequest::Command { connection: CONNECTION, frame: create.encode(), answers, at_ns: 0 }
}

#[test]
fn a_stop_keeps_no_answers() {
    // Goal: what a stop still carries out is answered, although name servers are silent. Method: a topic made before it and one
    // during it; the name server has answered neither when the control thread has ended.
    let mut rig = Rig::new(false);
    let _silent = register_with_a_silent_one(&mut rig);
    let (requests, receiver) = sync_channel(4);
    rig.control.requests = receiver;
    rig.control.request(creation("before", 71));
    requests.send(creation("during", 72)).expect("there is room");
    assert!(rig.control.stop());
    let answered: Vec<_> = (0..2).map(|_| rig.answers.recv_timeout(Duration::from_secs(30))).collect();
    let answered: Vec<_> = answered.into_iter().map(|answer| answer.map(|answer| answer.opaque)).collect();
    assert_eq!(answered, [Ok(71), Ok(72)]);
}

/// Goal: a change that comes into force while the process stops does not make the broker known again that has said goodbye. Method: a
/// registration before and after the word to stop.
#[test]
fn who_stops_does_not_register() {
    let mut rig = Rig::new(false);
    let _silent = register_with_a_silent_one(&mut rig);
    rig.control.register(None);
    assert!(rig.control.round.take().is_some());
    rig.control.stopping.store(true, Ordering::Release);
    rig.control.register(None);
    assert!(rig.control.round.is_none());
}

#[test]
fn a_silent_name_server_holds_an_answer_for_a_while() {
    // Goal: a changed topic is answered when name servers have heard of it, and one that is silent holds neither that answer for
    // ever nor those to other requests. Method: one that takes connections and answers nothing; another request; then ticks.
    let mut rig = Rig::new(false);
    let _silent = register_with_a_silent_one(&mut rig);
    let asked_ms = rig.control.now().steady_ms;
    rig.control.request(creation("t", 71));
    rig.control.settle();
    // An answer that was not held would come first.
    assert_eq!(rig.ask(351, &[("topic", "t")]).0, response::SUCCESS);
    let answer = loop {
        if let Ok(answer) = rig.answers.recv_timeout(STOP_BEAT) {
            break answer;
        }
        rig.tick();
    };
    assert_eq!((answer.opaque, answer.code), (71, response::SUCCESS));
    // `register_timeout` of the rig.
    assert!(rig.control.now().steady_ms - asked_ms >= 1_000);
}

/// Goal: a stop keeps an offset that a shard takes from a pull while the control thread asks what it carries. Method: a shard that has
/// one and has not said so yet, a stop, the file.
#[test]
fn a_stop_asks_every_shard_what_it_carries() {
    let mut rig = Rig::new(false);
    rig.create("T");
    rig.make_group();
    let queue = Arc::clone(&rig.control.topics["T"].1.queues[0]);
    let carried = CarriedCommit { group: "g".into(), queue, commit: Some(7), pulled: 7, at_ns: monotonic_ns() };
    rig.carried.lock().expect("no panic").push(carried);
    assert!(rig.control.stop());
    assert_eq!(rig.offset_on_disk(), Some(7));
}
