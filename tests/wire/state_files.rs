//! State files that cannot be written for a while, and such that a newer version has written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringmq::client::Message;

use super::broker::{Store, copy_tree, wait_for};
use super::threads::{Stopped, threads};

/// In the way of the temporary file that becomes the state file.
fn obstacle(store: &Store, name: &str) -> PathBuf {
    store.path().join("config").join(format!("{name}.tmp"))
}

#[test]
fn offsets_that_could_not_be_written_are_written_later() {
    // Goal: a committed offset is in the file after an orderly stop, although its first write failed and nothing was committed
    // afterwards. Method: a folder in the place of the temporary file; once with ticks after it is gone, once with a stop at once.
    const SETS: [&str; 1] = ["flushConsumerOffsetInterval=1000"];
    let mut store = Store::new();
    let mut broker = store.start(&SETS);
    broker.topic("T", 1);
    broker.topic("%RETRY%g", 1);
    broker.group("g");
    for (number, stops_at_once) in [(1, false), (2, true)] {
        let (mut client, queue) = (broker.client(), broker.queue("T", 0));
        fs::create_dir(obstacle(&store, "consumerOffset.json")).expect("made");
        client.commit_offset("g", &queue, number).expect("accepted");
        wait_for("the failure", || broker.log_text().contains("a state file could not be written").then_some(()));
        fs::remove_dir(obstacle(&store, "consumerOffset.json")).expect("removed");
        if !stops_at_once {
            let file = store.path().join("config/consumerOffset.json");
            let is_written = || fs::read_to_string(&file).is_ok_and(|text| text.contains("T@g")).then_some(());
            wait_for("the file", is_written);
        }
        drop(client);
        assert_eq!(broker.stop(&["a state file could not be written"]).code(), Some(0));
        broker = store.start(&SETS);
        let committed = broker.client().query_offset("g", &broker.queue("T", 0)).expect("an answer");
        assert_eq!(committed, Some(number));
    }
    // What cannot be written even then is told, by the log and by the exit code.
    fs::create_dir(obstacle(&store, "consumerOffset.json")).expect("made");
    broker.client().commit_offset("g", &broker.queue("T", 0), 3).expect("accepted");
    let stopped = broker.stop(&["a state file could not be written", "its last changes are lost"]);
    assert_eq!(stopped.code(), Some(1));
}

#[test]
fn a_topic_that_cannot_be_written_takes_no_messages() {
    // Goal: what was acknowledged is there after a kill, so nothing is acknowledged for a topic that would not be. Method: a folder
    // in the place of the temporary file of the table of topics; sends to a new and to an old topic; a kill.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("old", 1);
    let mut client = broker.client();
    fs::create_dir(obstacle(&store, "topics.json")).expect("made");
    client.send_to(&broker.queue("old", 0), &Message::new("kept")).expect("stored");
    let refused = client.send_to(&broker.queue("new", 0), &Message::new("lost")).expect_err("refused").to_string();
    assert!(refused.contains("the table of topics cannot be changed"), "{refused}");
    client.create_topic("new", 1).expect_err("refused");
    fs::remove_dir(obstacle(&store, "topics.json")).expect("removed");
    client.send_to(&broker.queue("new", 0), &Message::new("kept")).expect("stored");
    drop(client);
    broker.kill(&["a state file could not be written"]);
    let broker = store.start(&[]);
    for topic in ["old", "new"] {
        assert_eq!(broker.client().max_offset(&broker.queue(topic, 0)).expect("an answer"), 1);
    }
    broker.stop(&["was not stopped in order"]);
}

#[test]
fn only_changes_wait_for_state_files() {
    // Goal: while the disk does not take state files, changes are told so, nothing of them is used, and everybody else is served; what
    // is confirmed afterwards is there after a kill. Method: stop the thread that writes them, as a disk that hangs would; changes beside
    // sends, commits and look-ups of others; then let it go on.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("old", 1);
    broker.group("g");
    let (mut client, old) = (broker.client(), broker.queue("old", 0));
    let stopped = Stopped::new(threads(broker.process(), "persister")).expect("a parent may stop its child's threads");
    let told = std::thread::scope(|scope| {
        let made = scope.spawn(|| broker.client().create_topic("made", 1).expect_err("no disk").to_string());
        let sent = scope.spawn(|| {
            let refused = broker.client().send_to(&broker.queue("new", 0), &Message::new("lost"));
            refused.expect_err("no disk").to_string()
        });
        for number in 1..=20 {
            client.send_to(&old, &Message::new("kept")).expect("stored");
            client.commit_offset("g", &old, number).expect("accepted");
            assert_eq!(client.max_offset(&old).expect("an answer"), number);
            assert_eq!(client.query_offset("g", &old).expect("an answer"), Some(number));
        }
        [made, sent].map(|told| told.join().expect("no panic"))
    });
    assert!(told.iter().all(|told| told.contains("the disk does not answer")), "{told:?}");
    drop(stopped);
    client.create_topic("new", 1).expect("made");
    client.send_to(&broker.queue("new", 0), &Message::new("kept")).expect("stored");
    drop(client);
    broker.kill(&[]);
    let broker = store.start(&[]);
    for (topic, messages) in [("old", 20), ("new", 1)] {
        assert_eq!(broker.client().max_offset(&broker.queue(topic, 0)).expect("an answer"), messages);
    }
    broker.stop(&["was not stopped in order"]);
}

/// Every file below a folder with its bytes, but for the lock's.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("listed") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(content(&path)),
            false if path.ends_with("lock") => {}
            false => _ = found.insert(path.clone(), fs::read(&path).expect("read")),
        }
    }
    found
}

/// Our files as a newer version might write them: another number, and checks that fit.
fn of_newer_version(name: &str, bytes: &[u8]) -> Vec<u8> {
    let crc = crc32fast::hash;
    match name {
        "durable-point" => {
            let mut slots = bytes.to_vec();
            for slot in slots.chunks_mut(4096).filter(|slot| slot.starts_with(b"RMQDPT01")) {
                slot[6..8].copy_from_slice(b"02");
                let check = crc(&slot[..36]);
                slot[36..40].copy_from_slice(&check.to_be_bytes());
            }
            slots
        }
        "queue-flushed" => {
            let line = "ringmq-queue-flushed 2 some-boot 1 2 3";
            format!("{line} {:08x}\n", crc(line.as_bytes())).into_bytes()
        }
        _ => {
            let json = "{\"queues\":[]}";
            format!("ringmq-queue-offsets 3 {:08x} {}\n{json}", crc(json.as_bytes()), json.len()).into_bytes()
        }
    }
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    // Goal: a store that a newer version has written is neither served nor changed, and the message says which file it is and what would
    // open it; nothing falls back to a backup or to other rules. Method: stores that were stopped in order and killed, one file of
    // theirs in a newer format; a start, with salvage too, and the commands that judge a store or repair it. With the old file back
    // it starts.
    for was_clean in [true, false] {
        let mut filled = Store::new();
        let broker = filled.start(&[]);
        broker.topic("T", 1);
        let mut client = broker.client();
        client.send_to(&broker.queue("T", 0), &Message::new("kept")).expect("stored");
        let own = filled.path().join("ringmq");
        let is_noted = |name: &str| fs::read(own.join(name)).is_ok_and(|bytes| bytes.iter().any(|byte| *byte > b' '));
        // Between the two renames that replace a file it has its backup only.
        let both = || is_noted("queue-offsets.bak") && is_noted("queue-offsets");
        wait_for("a second generation", || both().then_some(()));
        drop(client);
        if was_clean {
            assert_eq!(broker.stop(&[]).code(), Some(0));
        } else {
            broker.kill(&[]);
        }
        for name in ["durable-point", "queue-flushed", "queue-offsets"] {
            let mut store = Store::new();
            copy_tree(&filled.path(), &store.path());
            let path = store.path().join("ringmq").join(name);
            let old = fs::read(&path).expect("read");
            fs::write(&path, of_newer_version(name, &old)).expect("written");
            let before = content(&store.path());
            let known = if name == "queue-offsets" { 2 } else { 1 };
            let reason = format!("it has format {}, this version of RingMQ knows format {known}", known + 1);
            for words in [&[][..], &["--salvage"]] {
                let refused = store.try_start_with(words, &[]).err().expect("it is refused");
                assert_eq!(refused.status.code(), Some(10), "{name}: {}", refused.log);
                refused.assert_reason(&format!("{}: {reason}", path.display()));
            }
            for words in [&["verify"][..], &["adopt", "--check"], &["repair", "--write"]] {
                let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
                command.arg("store").args(words).arg("--data").arg(store.path());
                let output = command.args(["--set", "mappedFileSizeCommitLog=16 MiB"]).output().expect("it runs");
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.code() == Some(10) && said.contains(&reason), "{name}, {words:?}: {said}");
            }
            let changed: Vec<PathBuf> = content(&store.path())
                .into_iter()
                .filter(|(path, bytes)| before.get(path) != Some(bytes))
                .map(|(path, _)| path)
                .collect();
            assert!(changed.is_empty(), "{name}: {changed:?}");
            fs::write(&path, old).expect("written");
            let broker = store.start(&[]);
            assert_eq!(broker.client().max_offset(&broker.queue("T", 0)).expect("an answer"), 1);
            broker.stop(&["was not stopped in order"]);
        }
    }
}

#[test]
fn a_zeroed_durable_point_is_named() {
    // Goal: a page of zeros where the durable point was is damage that a start names, not a store that never had one; it serves what the
    // log has, and the next start has nothing to say. Method: stores that were stopped in order and killed.
    const NAMED: &str = "the durable point cannot be read";
    for was_clean in [true, false] {
        let mut store = Store::new();
        let broker = store.start(&[]);
        broker.topic("T", 1);
        broker.client().send_to(&broker.queue("T", 0), &Message::new("kept")).expect("stored");
        match was_clean {
            true => assert_eq!(broker.stop(&[]).code(), Some(0)),
            false => broker.kill(&[]),
        }
        let path = store.path().join("ringmq/durable-point");
        let length = fs::metadata(&path).expect("it is there").len();
        fs::write(&path, vec![0; length as usize]).expect("written");
        let broker = store.start(&[]);
        assert!(broker.log_text().contains(NAMED), "{}", broker.log_text());
        assert_eq!(broker.client().max_offset(&broker.queue("T", 0)).expect("an answer"), 1);
        assert_eq!(broker.stop(&[NAMED, "was not stopped in order"]).code(), Some(0));
        assert_eq!(store.start(&[]).stop(&[]).code(), Some(0));
    }
}
