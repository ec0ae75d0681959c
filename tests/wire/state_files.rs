//! State files that cannot be written for a while.

use std::fs;
use std::path::PathBuf;

use ringmq::client::Message;

use super::broker::{Store, wait_for};

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
