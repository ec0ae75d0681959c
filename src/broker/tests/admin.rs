//! Topics, groups, offsets, queries, statistics, configuration and registration as tools and clients see them.

use super::super::dispatch::HANDLERS;
use super::super::live_config::LiveConfig;
use super::*;
use crate::config::Layers;
use ringmq_protocol::bodies::{JsonBody, RegisterBrokerBody};
use ringmq_protocol::codes::request as code;
use ringmq_protocol::command::SerializeType;

fn topic_fields<'a>(topic: &'a str, attributes: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("topic", topic),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", "4"),
        ("writeQueueNums", "4"),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
        ("topicSysFlag", "0"),
        ("order", "false"),
        ("attributes", attributes),
    ]
}

fn create(control: &mut Control, topic: &str) {
    assert_eq!(ask(control, code::UPDATE_AND_CREATE_TOPIC, &topic_fields(topic, "")).code, 0);
}

/// Goal: every code that this broker must serve has a handler, once, and no code of the data path has one.
/// Method: the list of the contract against the table.
#[test]
fn dispatch_table_is_complete() {
    let served = [
        12, 14, 15, 17, 18, 21, 25, 26, 28, 29, 30, 31, 32, 33, 34, 35, 38, 41, 42, 43, 46, 200, 201, 202, 203, 204,
        207, 208, 215, 225, 300, 303, 305, 306, 314, 315, 316, 317, 328, 329, 343, 345, 351, 352,
    ];
    let mut table: Vec<i32> = HANDLERS.iter().map(|(code, _)| *code).collect();
    table.sort_unstable();
    assert_eq!(table, served);
    let mut control = control();
    for unserved in [10, 11, 310, 320, 361, 307, 309, 13, 22, 27, 513, -1] {
        let answer = ask(&mut control, unserved, &[]);
        assert_eq!(outcome(&answer), (3, format!(" request type {unserved} not supported").as_str()));
    }
}

/// Goal: an answer carries the request's opaque and header form, and a oneway request gets none.
/// Method: an immediate answer, a look-up and a refusal, then the same oneway.
#[test]
fn envelopes() {
    let mut control = control();
    let store = FakeStore::default();
    let max_offset = request(code::GET_MAX_OFFSET, &[("topic", "T"), ("queueId", "0")]);
    let earliest = request(code::GET_EARLIEST_MSG_STORETIME, &[("topic", "T"), ("queueId", "0")]);
    for request in [max_offset, earliest, request(9_999, &[])] {
        let request = Command { opaque: 77, serialize_type: SerializeType::RocketMq, ..request };
        let answer = ask_with(&mut control, &request, 1, 1_000, &store, &mut Vec::new());
        assert_eq!((answer.opaque, answer.serialize_type), (77, SerializeType::RocketMq));
        assert!(answer.is_response());
        let oneway = Command { flag: 2, ..request };
        assert!(matches!(control.handle(&oneway, &peer(1), at(1_000), &store, &mut Vec::new()), Answer::Nothing));
    }
}

/// Goal: a missing or bad field gives code 1 and its name. Method: one of each.
#[test]
fn field_errors() {
    let mut control = control();
    let answer = ask(&mut control, code::GET_MAX_OFFSET, &[("topic", "T")]);
    assert_eq!(outcome(&answer), (1, "the field queueId is missing"));
    let answer = ask(&mut control, code::GET_MAX_OFFSET, &[("topic", "T"), ("queueId", "x")]);
    assert_eq!(outcome(&answer), (1, "the field queueId is not a valid number"));
    let without_topic = &topic_fields("T", "")[1..];
    for (code, fields) in [
        (code::SEARCH_OFFSET_BY_TIMESTAMP, &[("queueId", "0"), ("timestamp", "1")][..]),
        (code::UPDATE_AND_CREATE_TOPIC, without_topic),
        (code::DELETE_TOPIC_IN_BROKER, &[]),
        (code::GET_TOPIC_CONFIG, &[]),
    ] {
        assert_eq!(outcome(&ask(&mut control, code, fields)), (1, "the field topic is missing"), "{code}");
    }
}

/// Goal: code 17 creates, changes, leaves alone and refuses as it should. Method: each rule with code and remark.
#[test]
fn create_and_change_topics() {
    let mut control = control();
    let mut effects = Vec::new();
    let wanted = request(code::UPDATE_AND_CREATE_TOPIC, &topic_fields("T", ""));
    let store = FakeStore::default();
    assert_eq!(ask_with(&mut control, &wanted, 1, 1_000, &store, &mut effects).code, 0);
    assert_eq!(effects, [Effect::TopicsChanged, Effect::RegisterTopics(vec!["T".to_owned()])]);
    assert_eq!(ask_with(&mut control, &wanted, 1, 2_000, &store, &mut effects).code, 0);
    assert_eq!((control.topics.version().counter, effects.len()), (1, 2), "unchanged topics are left alone");
    let answer = ask(&mut control, code::UPDATE_AND_CREATE_TOPIC, &topic_fields("T", "+message.type=FIFO"));
    assert_eq!(answer.code, 0);
    assert_eq!(
        text(&ask(&mut control, code::GET_TOPIC_CONFIG, &[("topic", "T")])),
        r#"{"attributes":{"message.type":"FIFO"},"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"T","topicSysFlag":0,"writeQueueNums":4}"#
    );
    let mut refused = |topic: &str, attributes: &str, expected: (i32, &str)| {
        let answer = ask(&mut control, code::UPDATE_AND_CREATE_TOPIC, &topic_fields(topic, attributes));
        assert_eq!(outcome(&answer), expected);
    };
    refused("", "", (29, "The specified topic is blank."));
    refused("TBW102", "", (29, "The topic[TBW102] is conflict with system topic."));
    refused("rmq_sys_x", "", (29, "The topic[rmq_sys_x] is conflict with system topic."));
    refused("N", "+message.type=MIXED", (29, "MIXED message type is not supported."));
    refused("N", "+queue.type=BatchCQ", (13, "topics with queue.type=BatchCQ are not served yet by this broker"));
    let compaction = "topics with cleanup.policy=COMPACTION are not served yet by this broker";
    refused("N", "+cleanup.policy=COMPACTION", (13, compaction));
    refused("N", "-message.type", (1, "only add attribute is supported while creating topic. key: message.type"));
    refused("T", "+queue.type=SimpleCQ", (1, "attempt to update an unchangeable attribute. key: queue.type"));
    let mut fields = topic_fields("N", "");
    fields[5].1 = "single_tag";
    let answer = ask(&mut control, code::UPDATE_AND_CREATE_TOPIC, &fields);
    assert_eq!(outcome(&answer), (1, "topicFilterType = [single_tag] value invalid"));
    fields[5].1 = "MULTI_TAG";
    fields[2].1 = "5000";
    assert_eq!(ask(&mut control, code::UPDATE_AND_CREATE_TOPIC, &fields).code, 29);
    fields[2].1 = "4";
    control.config.max_topics = control.topics.len();
    assert_eq!(ask(&mut control, code::UPDATE_AND_CREATE_TOPIC, &fields).code, 1);
    let answer = ask(&mut control, code::GET_TOPIC_CONFIG, &[("topic", "N")]);
    assert_eq!(outcome(&answer), (17, "No topic in this broker. topic: N"));
}

/// Goal: code 18 applies all topics or none. Method: a good list, one with a bad name, one with an unchanged topic.
#[test]
fn create_topics_by_list() {
    let mut control = control();
    let body = |names: &[&str]| {
        let list: Vec<String> =
            names.iter().map(|name| format!(r#"{{"topicName":"{name}","readQueueNums":2}}"#)).collect();
        format!(r#"{{"topicConfigList":[{}]}}"#, list.join(","))
    };
    assert_eq!(ask_body(&mut control, code::UPDATE_AND_CREATE_TOPIC_LIST, &body(&["A", "B"])).code, 0);
    assert_eq!(control.topics.get("A").map(|topic| (topic.read_queue_nums, topic.write_queue_nums)), Some((2, 16)));
    assert_eq!(ask_body(&mut control, code::UPDATE_AND_CREATE_TOPIC_LIST, &body(&["C", "D d"])).code, 29);
    assert_eq!(ask_body(&mut control, code::UPDATE_AND_CREATE_TOPIC_LIST, &body(&["C", "A"])).code, 0);
    assert!(!control.topics.contains("C"));
}

/// Goal: deleting a topic removes its offsets and POP retry topics, and retires its queues. Method: with and without.
#[test]
fn delete_topics() {
    let mut control = control();
    create(&mut control, "T");
    create(&mut control, "%RETRY%g_T");
    control.offsets.commit("g", "T", 0, 5, 500, 1);
    let mut effects = Vec::new();
    let delete = request(code::DELETE_TOPIC_IN_BROKER, &[("topic", "T")]);
    assert_eq!(ask_with(&mut control, &delete, 1, 1_000, &FakeStore::default(), &mut effects).code, 0);
    let retired = |topic: &str| Effect::RetireQueues { topic: topic.to_owned() };
    assert_eq!(effects, [Effect::TopicsChanged, retired("T"), Effect::TopicsChanged, retired("%RETRY%g_T")]);
    assert!(!control.topics.contains("T") && !control.topics.contains("%RETRY%g_T"));
    assert_eq!(control.offsets.committed("g", "T", 0, true), None);
    assert_eq!(ask(&mut control, code::DELETE_TOPIC_IN_BROKER, &[("topic", "T")]).code, 0);
    let answer = ask(&mut control, code::DELETE_TOPIC_IN_BROKER, &[("topic", " ")]);
    assert_eq!(outcome(&answer), (29, "The specified topic is blank."));
    assert_eq!(ask(&mut control, code::DELETE_TOPIC_IN_BROKER, &[("topic", "SELF_TEST_TOPIC")]).code, 29);
}

/// Goal: the tables of topics and groups come whole or by pages. Method: no paging, two pages, a foreign version.
#[test]
fn paging() {
    let mut control = control();
    create(&mut control, "T");
    let total = control.topics.len();
    let count = |answer: &Command| {
        assert_eq!(answer.ext("totalTopicNum"), Some(total.to_string().as_str()));
        let body: serde_json::Value = serde_json::from_str(text(answer)).unwrap();
        let table = body["topicConfigTable"].as_object().unwrap();
        (table.len(), table.keys().next().cloned().unwrap_or_default())
    };
    let whole = count(&ask(&mut control, code::GET_ALL_TOPIC_CONFIG, &[]));
    assert_eq!(whole, (total, "BenchmarkTest".to_owned()));
    let version = String::from_utf8(control.topics.version().encode()).unwrap();
    let page = [("topicSeq", "2"), ("maxTopicNum", "3"), ("dataVersion", version.as_str())];
    assert_eq!(
        count(&ask(&mut control, code::GET_ALL_TOPIC_CONFIG, &page)),
        (3, "DefaultCluster_REPLY_TOPIC".to_owned())
    );
    let page = [("topicSeq", "2"), ("maxTopicNum", "3"), ("dataVersion", "")];
    assert_eq!(count(&ask(&mut control, code::GET_ALL_TOPIC_CONFIG, &page)), (3, "BenchmarkTest".to_owned()));
    let page = [("topicSeq", "999"), ("maxTopicNum", "-1"), ("dataVersion", version.as_str())];
    assert_eq!(count(&ask(&mut control, code::GET_ALL_TOPIC_CONFIG, &page)).0, 0);
    let answer = ask(&mut control, code::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, &[("groupSeq", "0"), ("maxGroupNum", "2")]);
    assert_eq!(answer.ext("totalGroupNum"), Some("8"));
    let body: serde_json::Value = serde_json::from_str(text(&answer)).unwrap();
    assert_eq!(body["subscriptionGroupTable"].as_object().unwrap().len(), 2);
    let answer = ask(&mut control, code::GET_SYSTEM_TOPIC_LIST_FROM_BROKER, &[]);
    assert!(text(&answer).contains(r#""CHECKPOINT_TOPIC","DefaultCluster""#));
}

/// Goal: a group of a RocketMQ store can be changed although its name could not be made here, and no such group is made. Method: a
/// table with two such names; 200 for one of them and for another.
#[test]
fn groups_of_a_store_keep_their_names() {
    let mut control = control();
    let long = "g".repeat(255);
    let table =
        format!(r#"{{"subscriptionGroupTable":{{"a b":{{"groupName":"a b"}},"{long}":{{"groupName":"{long}"}}}}}}"#);
    control.load_state([(crate::broker::state::GROUPS_FILE, table.as_bytes())]).unwrap();
    let update = code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
    for name in ["a b", &long] {
        let body = format!(r#"{{"groupName":"{name}","retryMaxTimes":3}}"#);
        assert_eq!(ask_body(&mut control, update, &body).code, 0);
        assert_eq!(control.groups.get(name).unwrap().retry_max_times, 3);
    }
    assert_eq!(ask_body(&mut control, update, r#"{"groupName":"a c"}"#).code, 29);
}

/// Goal: groups are made, changed, shown and deleted. Method: 200, 225, 352, 207 with good and bad input.
#[test]
fn groups() {
    let mut control = control();
    let update = code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
    assert_eq!(ask_body(&mut control, update, r#"{"groupName":"g","retryMaxTimes":3,"later":{"x":1}}"#).code, 0);
    let shown = ask(&mut control, code::GET_SUBSCRIPTIONGROUP_CONFIG, &[("group", "g")]);
    assert_eq!(
        text(&shown),
        r#"{"attributes":{},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"g","groupRetryPolicy":{"type":"CUSTOMIZED"},"groupSysFlag":0,"later":{"x":1},"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":3,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}"#
    );
    assert_eq!(ask(&mut control, update, &[]).code, 0);
    assert_eq!(outcome(&ask_body(&mut control, update, r#"{"groupName":""}"#)), (29, "The specified group is blank."));
    let answer = ask_body(&mut control, update, r#"{"groupName":"g","attributes":{"+a":"b"}}"#);
    assert_eq!(outcome(&answer), (1, "unsupported key: a"));
    let list = code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST;
    let body = r#"{"groupConfigList":[{"groupName":"h"},{"groupName":"a b"}]}"#;
    assert_eq!(ask_body(&mut control, list, body).code, 29);
    assert!(!control.groups.contains("h"));
    assert_eq!(ask_body(&mut control, list, &body.replace("a b", "i")).code, 0);
    assert!(control.groups.contains("h") && control.groups.contains("i"));
    control.offsets.commit("g", "T", 0, 5, 500, 1);
    let delete = code::DELETE_SUBSCRIPTIONGROUP;
    assert_eq!(ask(&mut control, delete, &[("groupName", "g")]).code, 0);
    assert!(!control.groups.contains("g") && control.offsets.committed("g", "T", 0, true).is_some());
    assert!(!control.snapshot().groups.contains_key("g"));
    let mut effects = Vec::new();
    let and_offsets = request(delete, &[("groupName", "g"), ("cleanOffset", "true")]);
    assert_eq!(ask_with(&mut control, &and_offsets, 1, 1_000, &FakeStore::default(), &mut effects).code, 0);
    assert_eq!(effects, [Effect::ForgetOffsets { group: "g".to_owned() }]);
    control.forget_offsets("g");
    assert_eq!(control.offsets.committed("g", "T", 0, true), None);
    control.config.auto_create_group = false;
    let answer = ask(&mut control, code::GET_SUBSCRIPTIONGROUP_CONFIG, &[("group", "g")]);
    assert_eq!(outcome(&answer), (26, "No group in this broker"));
}

/// Goal: commits are checked and queries follow their order of rules. Method: each rule of 14 and 15, with remarks.
#[test]
fn consumer_offsets() {
    let mut control = control();
    let fields = [("consumerGroup", "g"), ("topic", "T"), ("queueId", "0"), ("commitOffset", "5")];
    let update = |control: &mut Control, fields: &[(&str, &str)]| {
        let answer = ask(control, code::UPDATE_CONSUMER_OFFSET, fields);
        (answer.code, answer.remark.unwrap_or_default())
    };
    assert_eq!(update(&mut control, &fields), (26, "Group g not exist!".to_owned()));
    control.ensure_group("g", 1, &mut Vec::new()).unwrap();
    assert_eq!(update(&mut control, &fields), (17, "Topic T not exist!".to_owned()));
    create(&mut control, "T");
    assert_eq!(update(&mut control, &fields[..2]), (29, "QueueId is null, topic is T".to_owned()));
    assert_eq!(update(&mut control, &fields[..3]), (29, "Offset is null, topic is T".to_owned()));
    let query = |control: &mut Control, store: &FakeStore, extra: &[(&str, &str)]| {
        let request = request(code::QUERY_CONSUMER_OFFSET, &[&fields[..3], extra].concat());
        let answer = ask_with(control, &request, 1, 1_000, store, &mut Vec::new());
        (answer.code, answer.ext("offset").unwrap_or_default().to_owned())
    };
    let young = FakeStore { in_memory: true, ..FakeStore::default() }.with_queue("T", 0, 0, 3);
    let old = FakeStore { in_memory: true, ..FakeStore::default() }.with_queue("T", 0, 1, 3);
    assert_eq!(query(&mut control, &young, &[]), (0, "0".to_owned()));
    assert_eq!(query(&mut control, &young, &[("setZeroIfNotFound", "false")]), (22, String::new()));
    assert_eq!(query(&mut control, &old, &[]), (22, String::new()));
    assert_eq!(query(&mut control, &FakeStore::default(), &[]), (22, String::new()));
    assert_eq!(update(&mut control, &fields), (0, String::new()));
    assert_eq!(query(&mut control, &old, &[]), (0, "5".to_owned()));
    control.offsets.reset("g", "T", 0, 2, 500, 1);
    assert_eq!(update(&mut control, &fields), (0, "Offset has been previously reset".to_owned()));
    assert_eq!(query(&mut control, &old, &[]), (0, "2".to_owned()));
    assert_eq!(control.offsets.take_reset("g", "T", 0), Some(2));
    assert_eq!(query(&mut control, &old, &[]), (0, "2".to_owned()), "the reset has overwritten the commit");
    let answer = ask(&mut control, code::GET_ALL_CONSUMER_OFFSET, &[]);
    assert_eq!(
        text(&answer),
        r#"{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":0},"groupTopicMap":{"g":["T"]},"offsetTable":{"T@g":{0:2}}}"#
    );
    let fields = [("srcGroup", "g"), ("destGroup", "h"), ("topic", "T")];
    assert_eq!(ask(&mut control, code::CLONE_GROUP_OFFSET, &fields).code, 0);
    assert_eq!(control.offsets.committed("h", "T", 0, true), Some(2));
}

/// Goal: what is not kept is not confirmed. Method: as many queues of a pair as there may be, one more, and an old one.
#[test]
fn offsets_beyond_the_bound_are_refused() {
    let mut control = control();
    control.ensure_group("g", 1, &mut Vec::new()).unwrap();
    create(&mut control, "T");
    let most = i32::try_from(crate::broker::limits::MAX_OFFSETS_PER_SUBSCRIPTION).unwrap();
    assert!((0..most).all(|queue_id| control.offsets.commit("g", "T", queue_id, 1, 500, 1)));
    for (queue_id, code) in [(most, 1), (most - 1, 0)] {
        let queue_id = queue_id.to_string();
        let fields = [("consumerGroup", "g"), ("topic", "T"), ("queueId", queue_id.as_str()), ("commitOffset", "5")];
        assert_eq!(ask(&mut control, code::UPDATE_CONSUMER_OFFSET, &fields).code, code);
    }
    assert_eq!(control.offsets.committed("g", "T", most - 1, true), Some(5));
    assert_eq!(control.offsets.committed("g", "T", most, true), None);
}

/// Goal: commits that come with pulls move offsets and pull positions. Method: both kinds in one batch.
#[test]
fn offsets_from_pulls() {
    use super::super::offsets::OffsetCommit;
    let mut control = control();
    let commit = |queue_id, commit, pulled| OffsetCommit {
        group: "g".to_owned(),
        topic: "T".to_owned(),
        queue_id,
        commit,
        pulled,
    };
    control.commit_offsets([commit(0, Some(4), Some(9)), commit(1, None, Some(7))], 1_000);
    assert_eq!(control.offsets.committed("g", "T", 0, true), Some(4));
    assert_eq!(control.offsets.pulled("g", "T", 0, true), Some(9));
    assert_eq!(control.offsets.committed("g", "T", 1, true), None);
    assert_eq!(control.offsets.pulled("g", "T", 1, true), Some(7));
}

/// Goal: the extent of a queue and the times in it are answered from the store. Method: known bounds, unknown queue.
#[test]
fn queue_offsets() {
    let mut control = control();
    let store = FakeStore::default().with_queue("T", 0, 3, 9);
    let mut ext = |code, fields: &[(&str, &str)], key: &str| {
        let answer = ask_with(&mut control, &request(code, fields), 1, 1_000, &store, &mut Vec::new());
        assert_eq!(answer.code, 0);
        answer.ext(key).unwrap().to_owned()
    };
    let known = [("topic", "T"), ("queueId", "0"), ("timestamp", "1004")];
    let unknown = [("topic", "T"), ("queueId", "1"), ("timestamp", "1004")];
    assert_eq!(ext(code::GET_MAX_OFFSET, &known, "offset"), "9");
    assert_eq!(ext(code::GET_MIN_OFFSET, &known, "offset"), "3");
    assert_eq!(ext(code::GET_MAX_OFFSET, &unknown, "offset"), "0");
    assert_eq!(ext(code::GET_EARLIEST_MSG_STORETIME, &known, "timestamp"), "1003");
    assert_eq!(ext(code::GET_EARLIEST_MSG_STORETIME, &unknown, "timestamp"), "-1");
    assert_eq!(ext(code::SEARCH_OFFSET_BY_TIMESTAMP, &known, "offset"), "4");
    let mut newest = known.to_vec();
    newest[2].1 = "9999";
    assert_eq!(ext(code::SEARCH_OFFSET_BY_TIMESTAMP, &newest, "offset"), "9");
    newest.push(("boundaryType", "upper"));
    assert_eq!(ext(code::SEARCH_OFFSET_BY_TIMESTAMP, &newest, "offset"), "8");
}

/// Goal: messages are found by key and by offset. Method: hits, misses, both limits on the number of results.
#[test]
fn queries() {
    let mut control = control();
    let mut store = FakeStore::default();
    store.records.insert(4_096, b"record".to_vec());
    let mut send = |code, fields: &[(&str, &str)]| {
        ask_with(&mut control, &request(code, fields), 1, 1_000, &store, &mut Vec::new())
    };
    let fields = [("topic", "T"), ("key", "K"), ("maxNum", "100"), ("beginTimestamp", "0"), ("endTimestamp", "2000")];
    let answer = send(code::QUERY_MESSAGE, &fields);
    assert_eq!((answer.code, text(&answer), answer.ext("indexLastUpdatePhyoffset")), (0, "64", Some("8")));
    let answer = send(code::QUERY_MESSAGE, &[&fields[..], &[("_UNIQUE_KEY_QUERY", "true")]].concat());
    assert_eq!(text(&answer), "32");
    let mut late = fields;
    late[3].1 = "1500";
    let answer = send(code::QUERY_MESSAGE, &late);
    assert_eq!(outcome(&answer), (22, "can not find message, maybe time range not correct"));
    assert_eq!(answer.ext("indexLastUpdateTimestamp"), Some("7"));
    let mut unreadable = fields;
    unreadable[1].1 = "unreadable";
    assert_eq!(outcome(&send(code::QUERY_MESSAGE, &unreadable)), (1, "the index cannot be read"));
    let answer = send(code::VIEW_MESSAGE_BY_ID, &[("offset", "4096")]);
    assert_eq!((answer.code, text(&answer)), (0, "record"));
    let answer = send(code::VIEW_MESSAGE_BY_ID, &[("offset", "1")]);
    assert_eq!(outcome(&answer), (1, "can not find message by the offset, 1"));
}

/// Goal: statistics combine memory and store. Method: one topic of two queues, a group with an offset on one.
#[test]
fn statistics() {
    let mut control = control();
    let mut fields = topic_fields("T", "");
    (fields[2].1, fields[3].1) = ("1", "2");
    ask(&mut control, code::UPDATE_AND_CREATE_TOPIC, &fields);
    control.ensure_group("g", 1, &mut Vec::new()).unwrap();
    control.offsets.commit("g", "T", 0, 5, 500, 1);
    control.offsets.record_pull("g", "T", 0, 7);
    let store = FakeStore::default().with_queue("T", 0, 3, 9);
    let mut send = |code, fields: &[(&str, &str)]| {
        ask_with(&mut control, &request(code, fields), 1, 2_000, &store, &mut Vec::new())
    };
    let queue = |number: i32| format!(r#"{{"brokerName":"broker-a","queueId":{number},"topic":"T"}}"#);
    assert_eq!(
        text(&send(code::GET_TOPIC_STATS_INFO, &[("topic", "T")])),
        format!(
            r#"{{"offsetTable":{{{}:{{"lastUpdateTimestamp":1008,"maxOffset":9,"minOffset":3}},{}:{{"lastUpdateTimestamp":0,"maxOffset":0,"minOffset":0}}}},"topicPutTps":0.0}}"#,
            queue(0),
            queue(1)
        )
    );
    let progress = r#"{"brokerOffset":9,"consumerOffset":5,"lastTimestamp":1004,"pullOffset":7}"#;
    let group_progress = format!(r#"{{"consumeTps":0.0,"offsetTable":{{{}:{progress}}}}}"#, queue(0));
    assert_eq!(text(&send(code::GET_CONSUME_STATS, &[("consumerGroup", "g")])), group_progress);
    let listed = [("consumerGroup", "g"), ("topicList", "T;nothing;")];
    assert_eq!(text(&send(code::GET_CONSUME_STATS, &listed)), group_progress);
    let answer = send(code::GET_BROKER_CONSUME_STATS, &[("isOrder", "false")]);
    let zero = r#"{"brokerOffset":0,"consumerOffset":0,"lastTimestamp":0,"pullOffset":0}"#;
    let both = format!(r#"{{"consumeTps":0.0,"offsetTable":{{{}:{progress},{}:{zero}}}}}"#, queue(0), queue(1));
    assert!(text(&answer).starts_with(r#"{"brokerAddr":"127.0.0.1:10911","consumeStatsList":["#));
    assert!(text(&answer).contains(&format!(r#"{{"g":[{both}]}}"#)));
    assert!(text(&answer).ends_with(r#""totalDiff":4,"totalInflightDiff":2}"#));
    assert!(text(&send(code::GET_BROKER_CONSUME_STATS, &[("isOrder", "true")])).contains(r#"{"g":[]}"#));
    let answer = send(code::QUERY_CONSUME_TIME_SPAN, &[("topic", "T"), ("group", "g")]);
    let shown = ringmq_shards::clock::local_time_text(1_004);
    let expected = format!(
        r#"{{"consumeTimeSpanSet":[{{"consumeTimeStamp":1004,"consumeTimeStampStr":"{shown}","delayTime":995,"maxTimeStamp":1008,"#
    );
    assert!(text(&answer).starts_with(&expected));
    let answer = send(code::VIEW_BROKER_STATS_DATA, &[("statsName", "TOPIC_PUT_NUMS"), ("statsKey", "T")]);
    assert_eq!(outcome(&answer), (1, "The stats <TOPIC_PUT_NUMS> <T> not exist"));
    assert_eq!(outcome(&send(code::GET_TOPIC_STATS_INFO, &[("topic", "X")])), (17, "topic[X] not exist"));
    let answer = send(code::GET_BROKER_RUNTIME_INFO, &[]);
    assert!(text(&answer).starts_with(r#"{"table":{"EndTransactionQueueSize":"0","#));
}

/// Goal: a group that is online is counted only on what it subscribes to. Method: a member for another topic.
#[test]
fn statistics_follow_subscriptions() {
    let mut control = control();
    create(&mut control, "T");
    control.offsets.commit("g", "T", 0, 5, 500, 1);
    let body = r#"{"clientID":"c","consumerDataSet":[{"groupName":"g","subscriptionDataSet":[{"topic":"U"}]}]}"#;
    ask_body(&mut control, code::HEART_BEAT, body);
    let answer = ask(&mut control, code::GET_CONSUME_STATS, &[("consumerGroup", "g")]);
    assert_eq!(text(&answer), r#"{"consumeTps":0.0,"offsetTable":{}}"#);
    ask(&mut control, code::CLONE_GROUP_OFFSET, &[("srcGroup", "g"), ("destGroup", "h")]);
    assert_eq!(control.offsets.committed("h", "T", 0, true), None);
    ask(&mut control, code::CLONE_GROUP_OFFSET, &[("srcGroup", "g"), ("destGroup", "h"), ("offline", "true")]);
    assert_eq!(control.offsets.committed("h", "T", 0, true), Some(5));
}

/// Goal: the configuration is shown and changed, and a new permission is registered. Method: 26, 25, the refusals.
#[test]
fn configuration() {
    let config = LiveConfig::new(Layers::default().build().unwrap(), 2, "/home");
    let mut control = control().with_config_access(Box::new(config));
    let answer = ask(&mut control, code::GET_BROKER_CONFIG, &[]);
    assert!(text(&answer).contains("brokerPermission=6\n"));
    assert_eq!(answer.ext("version"), Some(r#"{"counter":0,"stateVersion":0,"timestamp":0}"#));
    let mut effects = Vec::new();
    let update = Command::request(code::UPDATE_BROKER_CONFIG).with_body(b"brokerPermission=4".to_vec());
    assert_eq!(ask_with(&mut control, &update, 1, 1_000, &FakeStore::default(), &mut effects).code, 0);
    let changed = vec![("brokerPermission".to_owned(), "4".to_owned())];
    assert_eq!(effects, [Effect::TopicsChanged, Effect::RegisterAll, Effect::ConfigChanged(changed)]);
    assert_eq!((control.snapshot().flags.permission, control.topics.version().counter), (4, 1));
    assert!(control.config_file().unwrap().ends_with("\nbroker_permission=4\n"));
    let answer = ask_body(&mut control, code::UPDATE_BROKER_CONFIG, "rocketmqHome=x");
    assert_eq!(outcome(&answer), (16, "Can not update config in black list."));
    let answer = ask_body(&mut control, code::UPDATE_BROKER_CONFIG, "brokerPermission=\\u00");
    assert_eq!(outcome(&answer), (1, "string2Properties error"));
}

/// Goal: the first registration is full, later ones may be partial; permissions are masked. Method: header and body of
/// each, the checksum recomputed.
#[test]
fn registration() {
    let mut control = control();
    create(&mut control, "T");
    let body = |command: &Command| RegisterBrokerBody::decode(command.body.as_deref().unwrap()).unwrap();
    let one = ["T".to_owned()];
    let first = control.registration(Some(&one));
    assert_eq!(first.code, code::REGISTER_BROKER);
    let expected = [
        ("brokerAddr", "127.0.0.1:10911"),
        ("brokerId", "0"),
        ("brokerName", "broker-a"),
        ("clusterName", "DefaultCluster"),
        ("compressed", "false"),
        ("enableActingMaster", "false"),
        ("haServerAddr", "127.0.0.1:10912"),
    ];
    for (key, value) in expected {
        assert_eq!(first.ext(key), Some(value));
    }
    let checksum = crc32fast::hash(first.body.as_deref().unwrap()) & 0x7FFF_FFFF;
    assert_eq!(first.ext("bodyCrc32"), Some(checksum.to_string().as_str()));
    let table = body(&first).topic_config_serialize_wrapper;
    assert_eq!(table.topic_config_table.len(), control.topics.len());
    assert_eq!(&table.data_version, control.topics.version());
    assert_eq!(table.topic_config_table["T"].perm, 6);
    control.config.broker_permission = 4;
    let partial = body(&control.registration(Some(&one))).topic_config_serialize_wrapper;
    assert_eq!(partial.topic_config_table.keys().collect::<Vec<_>>(), ["T"]);
    assert_eq!(partial.topic_config_table["T"].perm, 4);
    let gone = control.unregistration();
    assert_eq!((gone.code, gone.ext("brokerId"), gone.body.as_ref()), (code::UNREGISTER_BROKER, Some("0"), None));
}

/// Goal: the broker registers at its start and once per period. Method: ticks over a minute.
#[test]
fn registration_period() {
    let mut control = control();
    let mut registered_at = Vec::new();
    control.dirty_files(0);
    for now_ms in (1_000..=70_000).step_by(1_000) {
        let mut effects = Vec::new();
        control.tick(at(now_ms), &mut effects);
        registered_at.extend(effects.contains(&Effect::RegisterAll).then_some(now_ms));
    }
    assert_eq!(registered_at, [1_000, 31_000, 61_000]);
    assert_eq!(control.topics.version().timestamp, 1_000);
    let files = control.dirty_files(70_000);
    let topics = files.iter().find(|(name, _)| *name == "topics.json").expect("a set version is written");
    assert!(String::from_utf8_lossy(&topics.1).contains("\"timestamp\":1000"));
}
