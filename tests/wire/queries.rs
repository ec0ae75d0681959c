//! Look-ups of messages by their keys.

use std::fs;
use std::os::unix::fs::FileExt;

use ringmq::client::Message;
use ringmq_protocol::codes::request;
use ringmq_protocol::command::Command;
use ringmq_protocol::record::{CrcCheck, RecordView};

use super::broker::Store;

fn question(key: &str) -> Command {
    Command::request(request::QUERY_MESSAGE)
        .with_ext("topic", "T")
        .with_ext("key", key)
        .with_ext("maxNum", 32)
        .with_ext("beginTimestamp", 0)
        .with_ext("endTimestamp", i64::MAX)
}

#[test]
fn a_key_is_found_right_after_its_send() {
    // Goal: the index has what was acknowledged before the question came. Method: many times over a send, and once its answer is
    // there a single question for its key, which is not asked again.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("T", 1);
    let (mut client, mut connection, queue) = (broker.client(), broker.connection(), broker.queue("T", 0));
    for number in 0..100 {
        let body = format!("body {number}");
        client.send_to(&queue, &Message::new(body.clone()).with_key(format!("key-{number}"))).expect("stored");
        let answer = connection.call(question(&format!("key-{number}"))).expect("an answer");
        assert_eq!(answer.code, 0, "key {number}: {:?}", answer.remark);
        let found = RecordView::parse(answer.body.as_deref().expect("a body"), CrcCheck::Verify).expect("a record");
        assert_eq!(found.body(), body.as_bytes());
    }
    broker.stop(&[]);
}

#[test]
fn a_damaged_index_is_made_anew_while_serving() {
    // Goal: a start with index files that cannot be used serves, sets them aside, and finds every key again by itself. Method: a
    // store with several index files, stopped in order; one of them too short, too long, or without its header; then a start,
    // a question for each key, and a look at the stopped store by the doctor.
    const SETS: [&str; 2] = ["maxHashSlotNum=50", "maxIndexNum=100"];
    const MESSAGES: u64 = 300;
    type Harm = fn(&fs::File);
    let harms: [(usize, Harm); 3] = [
        (0, |file| file.set_len(1000).expect("its length is set")),
        (2, |file| file.set_len(1 << 20).expect("its length is set")),
        (1, |file| file.write_all_at(&[0; 40], 0).expect("written")),
    ];
    let mut store = Store::new();
    let broker = store.start(&SETS);
    broker.topic("T", 1);
    let (mut client, queue) = (broker.client(), broker.queue("T", 0));
    for number in 0..MESSAGES {
        client.send_to(&queue, &Message::new("body").with_key(format!("key-{number}"))).expect("stored");
    }
    drop(client);
    broker.stop(&[]);
    for (round, (number, harm)) in harms.into_iter().enumerate() {
        let mut names: Vec<_> = fs::read_dir(store.path().join("index")).expect("an index").flatten().collect();
        names.sort_by_key(fs::DirEntry::file_name);
        assert!(names.len() > 3);
        let harmed = names[number].path();
        harm(&fs::OpenOptions::new().write(true).open(&harmed).expect("opened"));
        let broker = store.start(&SETS);
        let mut connection = broker.connection();
        for number in 0..MESSAGES {
            let answer = connection.call(question(&format!("key-{number}"))).expect("an answer");
            assert_eq!(answer.code, 0, "round {round} key {number}: {:?}", answer.remark);
        }
        let aside = store.path().join(format!("ringmq/index-aside-{}", round + 1));
        assert!(aside.join(harmed.file_name().expect("a name")).exists());
        let log = broker.log_text();
        let told: Vec<_> = log.lines().filter(|line| line.contains("index files were set aside")).collect();
        assert!(told.len() == 1 && told[0].contains(&*harmed.to_string_lossy()), "{log}");
        broker.stop(&["index files were set aside"]);
        let mut doctor = std::process::Command::new(env!("CARGO_BIN_EXE_ringmq"));
        doctor.args(["store", "verify", "--data"]).arg(store.path());
        SETS.iter().for_each(|set| _ = doctor.args(["--set", set]));
        let output = doctor.output().expect("the binary runs");
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{}", said.join("\n"));
    }
}
