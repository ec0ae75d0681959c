//! Queue files that are gone or damaged after a stop in order: the real binary makes them anew, gives no offset twice and brings nothing
//! back that was deleted.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ringmq::client::Message;
use serde_json::Value;

use super::broker::{Broker, SMALL_FILES, Store, copy_tree};
use super::doctor::{MESSAGES, body, content, filled, flip, segment, served, store_command};

const NAMED: &str = "queue files are missing or damaged: 1 queues, such as T/0, lacked messages";
const ALL_NAMED: &str = "queue files are missing: no queue had any message";

type Harm = fn(&Path);

fn file(data: &Path, entries: usize) -> std::path::PathBuf {
    data.join(format!("consumequeue/T/0/{:020}", 20 * entries))
}

fn no_queues(data: &Path) {
    fs::remove_dir_all(data.join("consumequeue")).expect("removed");
}

fn no_topic(data: &Path) {
    fs::remove_dir_all(data.join("consumequeue/T")).expect("removed");
}

fn no_last_files(data: &Path) {
    [100, 150, 200].iter().for_each(|entries| fs::remove_file(file(data, *entries)).expect("removed"));
}

fn zeroed_tail(data: &Path) {
    for (entries, from) in [(150, 100), (200, 0)] {
        let file = fs::OpenOptions::new().write(true).open(file(data, entries)).expect("opened");
        file.write_all_at(&vec![0; 1000 - from], from as u64).expect("written");
    }
}

fn short_last_file(data: &Path) {
    fs::OpenOptions::new().write(true).open(file(data, 200)).expect("opened").set_len(123).expect("cut");
}

/// Every message is at its offset, and the next one gets the next.
fn assert_whole(broker: &Broker, sent_before: usize, context: &str) {
    let (mut client, queue) = (broker.client(), broker.queue("T", 0));
    assert_eq!(served(&mut client, &queue).len(), sent_before, "{context}: {}", broker.log_text());
    let receipt = client.send_to(&queue, &Message::new(body(sent_before))).expect("stored");
    assert_eq!(receipt.queue_offset, sent_before as i64, "{context}");
    assert_eq!(served(&mut client, &queue).len(), sent_before + 1, "{context}");
}

/// Another broker has started and stopped here.
fn visit(data: &Path) {
    let lock = fs::OpenOptions::new().write(true).open(data.join("lock")).expect("opened");
    lock.write_all_at(b"lock", 0).expect("written");
}

#[test]
fn lost_queue_files_are_named_and_made_anew() {
    // Goal: a start that lacks queue files says so, brings every message back and gives no offset twice; what was left is kept, and there
    // is nothing to say the next time. Method: a store that was stopped in order loses all queue files, those of one queue, some of
    // them, or parts of the last one; of our own and as one that only RocketMQ knows.
    let (stopped, _) = filled();
    let harms: [(&str, Harm, &str); 5] = [
        ("all", no_queues, NAMED),
        ("one", no_topic, NAMED),
        ("its last files", no_last_files, NAMED),
        ("zeroed tail", zeroed_tail, NAMED),
        ("short last file", short_last_file, NAMED),
    ];
    for (name, harm, named) in harms {
        for is_ours in [true, false] {
            let context = format!("{name}, ours {is_ours}");
            let mut store = Store::new();
            copy_tree(&stopped.path(), &store.path());
            harm(&store.path());
            let mut named = named;
            if !is_ours {
                fs::remove_dir_all(store.path().join("ringmq")).expect("removed");
                visit(&store.path());
                // Only one queue was there.
                if ["all", "one"].contains(&name) {
                    named = ALL_NAMED;
                }
            }
            match store.try_start(&SMALL_FILES) {
                Ok(broker) => {
                    assert!(broker.log_text().contains(named), "{context}: {}", broker.log_text());
                    assert_whole(&broker, MESSAGES, &context);
                    assert_eq!(broker.stop(&[named]).code(), Some(0), "{context}");
                }
                Err(refused) => {
                    // Nothing tells that the last file has not the size that files have here.
                    assert!(!is_ours && name == "short last file", "{context}: {}", refused.log);
                    refused.assert_reason("it has 123 bytes instead of 1000");
                    continue;
                }
            }
            let broker = store.start(&SMALL_FILES);
            assert_whole(&broker, MESSAGES + 1, &context);
            assert_eq!(broker.stop(&[]).code(), Some(0), "{context}");
            let (code, told) = store_command(&store.path(), &["verify"]);
            assert_eq!(code, Some(0), "{context}: {told}");
            assert!(store.path().join("ringmq/repair-1").exists() || name == "all" || name == "one", "{context}");
        }
    }
}

#[test]
fn lost_queues_of_a_damaged_log_refuse_the_start() {
    // Goal: no start goes on with a queue that it can only make in part. Method: a lost queue and a flipped bit in the first file of the
    // log, which a start after a stop in order does not read by itself; nothing of log or queues is changed.
    let (mut store, places) = filled();
    let broker_sets = &SMALL_FILES;
    no_last_files(&store.path());
    flip(&segment(&store.path(), 0), places[3].physical + 150);
    let kept = |data: &Path| (content(&data.join("commitlog")), content(&data.join("consumequeue")));
    let before = kept(&store.path());
    for _ in 0..2 {
        let refused = store.try_start(broker_sets).err().expect("it is refused");
        assert_eq!(refused.status.code(), Some(6), "{}", refused.log);
        refused.assert_reason(&format!("cannot be made anew: the log is damaged at offset {}", places[3].physical));
    }
    assert!(kept(&store.path()) == before, "nothing has changed");
}

#[test]
fn what_another_broker_deleted_stays_deleted() {
    // Goal: a start that makes lost queues anew does not bring back what RocketMQ deleted, whose messages are still in the log; nor does
    // a later one, after the topic was made again here. Method: a second topic; its folder and its entry in the table go, or only the
    // folder, as if it had been made again; T loses a tail. With a message of T behind those of the other topic, and without.
    for (is_made_again, is_last) in [(true, false), (false, false), (false, true)] {
        let context = format!("made again {is_made_again}, last in the log {is_last}");
        let (mut store, _) = filled();
        let broker = store.start(&SMALL_FILES);
        broker.topic("Gone", 1);
        let mut client = broker.client();
        for number in 0..5 {
            client.send_to(&broker.queue("Gone", 0), &Message::new(format!("gone {number}"))).expect("stored");
        }
        // RocketMQ itself gives messages behind all others their entries at its next start, if their topic is there again.
        let expected = MESSAGES + usize::from(!is_last);
        if !is_last {
            client.send_to(&broker.queue("T", 0), &Message::new(body(MESSAGES))).expect("stored");
        }
        drop(client);
        assert_eq!(broker.stop(&[]).code(), Some(0));
        let data = store.path();
        visit(&data);
        fs::remove_dir_all(data.join("consumequeue/Gone")).expect("removed");
        if !is_made_again {
            let path = data.join("config/topics.json");
            let mut table: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
            table["topicConfigTable"].as_object_mut().expect("a table").remove("Gone").expect("it was there");
            fs::write(&path, table.to_string()).expect("written");
        }
        zeroed_tail(&data);
        for named in [&[NAMED][..], &[], &[]] {
            let broker = store.start(&SMALL_FILES);
            broker.topic("Gone", 1);
            let mut client = broker.client();
            let gone = broker.queue("Gone", 0);
            let (min, max) = (client.min_offset(&gone).expect("told"), client.max_offset(&gone).expect("told"));
            assert_eq!(min, max, "{context}: {}", broker.log_text());
            assert_eq!(served(&mut client, &broker.queue("T", 0)).len(), expected, "{context}");
            drop(client);
            assert_eq!(broker.stop(named).code(), Some(0), "{context}");
        }
    }
}
