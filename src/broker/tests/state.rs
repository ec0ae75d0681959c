//! The state files: Java's forms, what survives reading and writing, and when they are written.

use super::super::state::{GROUPS_FILE, OFFSETS_FILE, TOPICS_FILE};
use super::*;
use ringmq_protocol::bodies::TopicConfig;
use ringmq_protocol::codes::request as code;

fn file(files: &[(&'static str, Vec<u8>)], name: &str) -> String {
    let (_, bytes) = files.iter().find(|(found, _)| *found == name).unwrap_or_else(|| panic!("no {name}"));
    String::from_utf8(bytes.clone()).unwrap()
}

/// Lines without their indentation, joined: what the file says, whatever its white space.
fn compact(text: &str) -> String {
    text.lines().map(str::trim_start).collect()
}

/// Goal: the files have Java's members, order and unquoted numbers. Method: the published examples, one row each.
#[test]
fn forms() {
    let mut control = control();
    assert_eq!(control.dirty_files(1_000).len(), 2, "a first start writes topics and groups");
    let fields = [
        ("topic", "TopicA"),
        ("readQueueNums", "8"),
        ("writeQueueNums", "8"),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
    ];
    assert_eq!(ask(&mut control, code::UPDATE_AND_CREATE_TOPIC, &fields).code, 0);
    control.ensure_group("g", 1_000, &mut Vec::new()).unwrap();
    control.offsets.commit("g", "TopicA", 0, 123, 500, 1_000);
    control.offsets.commit("g", "TopicA", 1, 45, 500, 1_000);
    let files = control.dirty_files(10_000);
    let topics = file(&files, TOPICS_FILE);
    assert!(topics.starts_with(
        "{\n\t\"dataVersion\":{\n\t\t\"counter\":1,\n\t\t\"stateVersion\":0,\n\t\t\"timestamp\":1000\n\t},"
    ));
    assert!(compact(&topics).contains(
        r#""TopicA":{"attributes":{},"order":false,"perm":6,"readQueueNums":8,"topicFilterType":"SINGLE_TAG","topicName":"TopicA","topicSysFlag":0,"writeQueueNums":8}"#
    ));
    let groups = compact(&file(&files, GROUPS_FILE));
    assert!(groups.starts_with(r#"{"dataVersion":{"counter":1,"stateVersion":0,"timestamp":1000},"forbiddenTable":{},"subscriptionGroupTable":{"CID_ONS-HTTP-PROXY":{"#));
    assert!(groups.contains(
        r#""g":{"attributes":{},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"g","groupRetryPolicy":{"type":"CUSTOMIZED"},"groupSysFlag":0,"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":16,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}"#
    ));
    let offsets = compact(&file(&files, OFFSETS_FILE));
    assert_eq!(
        offsets,
        r#"{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":0},"groupTopicMap":{"g":["TopicA"]},"offsetTable":{"TopicA@g":{0:123,1:45}}}"#
    );
    assert_eq!(control.dirty_files(99_000), []);
}

/// Goal: what Java wrote is taken over, versions continue, unknown members come back. Method: load, change, write.
#[test]
fn continue_from_files() {
    let mut control = control();
    let topics = r#"{"dataVersion":{"counter":41,"stateVersion":0,"timestamp":5},"future":[1],"topicConfigTable":{"TBW102":{"perm":7,"readQueueNums":3,"topicName":"TBW102","writeQueueNums":3},"T":{"attributes":{"message.type":"FIFO"},"order":false,"perm":6,"readQueueNums":2,"new":true,"topicFilterType":"MULTI_TAG","topicName":"T","topicSysFlag":0,"writeQueueNums":2}}}"#;
    let groups = r#"{"dataVersion":{"counter":7,"stateVersion":0,"timestamp":6},"forbiddenTable":{"g":{"T":4}},"subscriptionGroupTable":{"g":{"groupName":"g","retryMaxTimes":2}},"more":"x"}"#;
    let offsets = r#"{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":9},"groupTopicMap":{"stale":["S"]},"offsetTable":{"T@g":{0:5,"1":6}},"extra":null,"other":1}"#;
    let files = [(TOPICS_FILE, topics), (GROUPS_FILE, groups), (OFFSETS_FILE, offsets), ("delayOffset.json", "??")];
    control.load_state(files.map(|(name, text)| (name, text.as_bytes()))).unwrap();
    assert_eq!(control.topics.get("TBW102").map(|topic| topic.read_queue_nums), Some(3));
    assert!(control.topics.contains("SELF_TEST_TOPIC"), "system topics that the file lacks stay");
    assert!(control.snapshot().groups["g"].is_read_forbidden("T"));
    assert_eq!(control.offsets.committed("g", "T", 1, true), Some(6));
    assert_eq!(control.offsets.groups_of("T").collect::<Vec<_>>(), ["g"]);
    control.create_topic_for_send("N", "TBW102", 4, false, 1_000, &mut Vec::new()).unwrap();
    control.ensure_group("h", 1_000, &mut Vec::new()).unwrap();
    control.offsets.commit("g", "T", 0, 8, 500, 1_000);
    let files = control.last_files();
    let topics = compact(&file(&files, TOPICS_FILE));
    assert!(
        topics.starts_with(r#"{"dataVersion":{"counter":42,"stateVersion":0,"timestamp":1000},"future":[1],"#),
        "{topics}"
    );
    assert!(topics.contains(r#""new":true,"order":false"#));
    let groups = compact(&file(&files, GROUPS_FILE));
    assert!(groups.starts_with(
        r#"{"dataVersion":{"counter":8,"stateVersion":0,"timestamp":1000},"forbiddenTable":{"g":{"T":4}},"more":"x","#
    ));
    assert_eq!(
        compact(&file(&files, OFFSETS_FILE)),
        r#"{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":9},"groupTopicMap":{"g":["T"]},"offsetTable":{"T@g":{0:8,1:6}},"other":1}"#
    );
}

/// Goal: writing and reading again loses nothing. Method: every file of one broker into a second one.
#[test]
fn round_trip() {
    let mut first = control();
    first.create_topic_for_send("T", "TBW102", 4, false, 1_000, &mut Vec::new()).unwrap();
    first.ensure_group("g", 1_000, &mut Vec::new()).unwrap();
    first.offsets.commit("g", "T", 3, 99, 1, 1_000);
    let files = first.last_files();
    let mut second = control();
    second.load_state(files.iter().map(|(name, bytes)| (*name, bytes.as_slice()))).unwrap();
    assert_eq!(second.last_files(), [], "nothing is left to write");
    let topics = |control: &Control| -> Vec<TopicConfig> { control.topics.sorted().into_values().cloned().collect() };
    assert_eq!(topics(&first), topics(&second));
    assert_eq!(first.topics.version(), second.topics.version());
    assert_eq!(first.groups.sorted(), second.groups.sorted());
    assert_eq!(first.offsets.rows(), second.offsets.rows());
}

/// Goal: a damaged file is named and leaves its table alone. Method: a cut file; then a good one.
#[test]
fn damaged_file() {
    let mut control = control();
    let before = control.topics.len();
    let error = control.load_state([(TOPICS_FILE, b"{\"topicConfigTable\":{".as_slice())]).unwrap_err();
    assert_eq!(error.file, TOPICS_FILE);
    assert_eq!(control.topics.len(), before);
}
