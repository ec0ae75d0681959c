//! What is refused, with which code, and that nothing of it is stored.

use ringmq::client::message::batch_body;
use ringmq::client::requests::{self, PullRequest, SendTarget};
use ringmq::client::{Client, Connection, Message};
use ringmq_protocol::codes::request;
use ringmq_protocol::command::Command;
use ringmq_shards::clock::{Clock, SystemClock, local_month_start};

use super::broker::{Broker, Store, wait_for};

const TARGET: SendTarget<'_> = SendTarget { group: "wire", topic: "refusals", queue_id: 0, now_ms: 1 };

fn send(target: &SendTarget<'_>, message: &Message) -> Command {
    requests::send(target, message, "U").expect("valid")
}

/// The code of the answer; a refusal says why.
fn code_of(connection: &mut Connection, request: Command) -> i32 {
    let answer = connection.call(request).expect("an answer");
    assert!(
        answer.code == 0 || answer.remark.is_some_and(|remark| !remark.is_empty()),
        "code {} says why",
        answer.code
    );
    answer.code
}

fn stored(client: &mut Client, broker: &Broker, topic: &str) -> i64 {
    client.max_offset(&broker.queue(topic, 0)).expect("an answer")
}

#[test]
fn bad_sends_are_refused_and_not_stored() {
    // Goal: each mistake has RocketMQ's code. Method: one send per mistake, then look that the queue is empty.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("refusals", 1);
    let mut connection = broker.connection();
    let message = Message::new("body");
    let too_long = "x".repeat(128);
    let to = |topic| SendTarget { topic, ..TARGET };
    let long_name = send(&to(&too_long), &message);
    let no_body = Command { body: None, ..send(&TARGET, &message) };
    let too_large = send(&TARGET, &Message::new(vec![0; 4 * 1024 * 1024 + 1]));
    let far_too_large = send(&TARGET, &Message::new(vec![0; 12 * 1024 * 1024]));
    let no_template = send(&to("new-topic"), &message).with_ext("c", "no-such-template");
    let no_fields = Command { ext_fields: None, ..send(&TARGET, &message) };
    let bad_number = send(&TARGET, &message).with_ext("e", "four");
    let cases = [
        ("a queue that does not exist", send(&SendTarget { queue_id: 1, ..TARGET }, &message), 29),
        ("a topic with a bad character", send(&to("a b"), &message), 29),
        ("an empty topic", send(&to(""), &message), 29),
        ("a topic that is too long", long_name, 29),
        ("a system topic", send(&to("SCHEDULE_TOPIC_XXXX"), &message), 16),
        ("a system topic", send(&to("RMQ_SYS_TRANS_HALF_TOPIC"), &message), 16),
        ("a system topic that comes when it is needed", send(&to("TRANS_CHECK_MAX_TIME_TOPIC"), &message), 16),
        ("an unknown template", no_template, 17),
        ("no body", no_body, 1),
        ("a body that is too large", too_large, 13),
        ("a body near the largest frame", far_too_large, 13),
        ("no fields", no_fields, 1),
        ("a bad number", bad_number, 1),
    ];
    for (what, request, code) in cases {
        assert_eq!(code_of(&mut connection, request), code, "{what}");
    }
    let mut client = broker.client();
    assert_eq!(stored(&mut client, &broker, "refusals"), 0);
    assert_eq!(stored(&mut client, &broker, "SCHEDULE_TOPIC_XXXX"), 0);
}

#[test]
fn properties_of_features_that_are_not_served_are_refused() {
    // Goal: a delayed or transactional message is not delivered as an ordinary one. Method: one send per property, then
    // look that nothing is stored; harmless values of the same properties are taken.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("refusals", 1);
    let mut connection = broker.connection();
    for (name, value) in [
        ("DELAY", "3"),
        ("TIMER_DELAY_SEC", "10"),
        ("TIMER_DELAY_MS", "10000"),
        ("TIMER_DELIVER_MS", "4102444800000"),
        ("TRAN_MSG", "true"),
    ] {
        let request = send(&TARGET, &Message::new("b").with_property(name, value));
        assert_eq!(code_of(&mut connection, request), 13, "{name}");
    }
    let mut client = broker.client();
    assert_eq!(stored(&mut client, &broker, "refusals"), 0);
    for (name, value) in [("DELAY", "0"), ("TRAN_MSG", "false")] {
        let request = send(&TARGET, &Message::new("b").with_property(name, value));
        assert_eq!(code_of(&mut connection, request), 0, "{name}={value}");
    }
    assert_eq!(stored(&mut client, &broker, "refusals"), 2);
}

#[test]
fn bad_batches_are_refused_whole() {
    // Goal: a batch is stored whole or not at all. Method: a batch that is cut off, one that is too large, one to a retry
    // topic, one with transaction bits; the queue stays empty and the connection stays open.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("refusals", 1);
    let mut connection = broker.connection();
    let messages = [Message::new("one"), Message::new("two")];
    let body = batch_body(messages.iter().map(|message| (message, String::new()))).expect("valid");
    let cut = body[..body.len() - 1].to_vec();
    let large = Message::new(vec![0; 3 * 1024 * 1024]);
    let too_large = batch_body([(&large, String::new()), (&large, String::new())]).expect("valid");
    let retry = SendTarget { topic: "%RETRY%wire", ..TARGET };
    for (what, request, code) in [
        ("a cut batch", requests::send_batch(&TARGET, cut, "U"), 1),
        ("a batch that is too large", requests::send_batch(&TARGET, too_large, "U"), 1),
        ("a batch to a retry topic", requests::send_batch(&retry, body.clone(), "U"), 13),
        ("a batch in a transaction", requests::send_batch(&TARGET, body.clone(), "U").with_ext("f", 4), 13),
    ] {
        assert_eq!(code_of(&mut connection, request), code, "{what}");
    }
    let mut client = broker.client();
    assert_eq!(stored(&mut client, &broker, "refusals"), 0);
    assert_eq!(code_of(&mut connection, requests::send_batch(&TARGET, body, "U")), 0);
    assert_eq!(stored(&mut client, &broker, "refusals"), 2);
}

#[test]
fn bad_pulls_are_refused() {
    // Goal: each mistake has RocketMQ's code. Method: one pull per mistake.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("refusals", 1);
    let mut connection = broker.connection();
    let good = PullRequest::new("wire", "refusals", 0, 0);
    let without_subscription = requests::pull(&good).with_ext("sysFlag", 0);
    let sql = requests::pull(&good).with_ext("expressionType", "SQL92");
    let mut no_offset = requests::pull(&good);
    no_offset.ext_fields.get_or_insert_default().remove("queueOffset");
    for (what, request, code) in [
        ("a topic that does not exist", requests::pull(&PullRequest { topic: "nowhere", ..good }), 17),
        ("a queue that does not exist", requests::pull(&PullRequest { queue_id: 1, ..good }), 29),
        ("a negative queue", requests::pull(&PullRequest { queue_id: -1, ..good }), 29),
        ("a bad group", requests::pull(&PullRequest { group: "a b", ..good }), 26),
        ("a bad expression", requests::pull(&PullRequest { subscription: "||", ..good }), 23),
        ("a group without consumers", without_subscription, 24),
        ("SQL", sql, 1),
        ("no offset", no_offset, 1),
    ] {
        assert_eq!(code_of(&mut connection, request), code, "{what}");
    }
    // A pull never creates its topic.
    assert_eq!(code_of(&mut connection, requests::pull(&PullRequest { topic: "nowhere", ..good })), 17);
}

#[test]
fn permissions_of_topics_are_kept() {
    // Goal: a topic that may not be read is not, and one that may not be written is not in the route of producers.
    // Method: change the permission of a topic and ask.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("refusals", 1);
    let mut client = broker.client();
    let queue = broker.queue("refusals", 0);
    let with_permission = |permission: i32| requests::create_topic("refusals", 1).with_ext("perm", permission);
    client.call_ok(&broker.address(), with_permission(2)).expect("changed");
    let refused = client.pull(&queue, 0, 1, 0).expect_err("not readable");
    assert_eq!(refused.code(), Some(16), "{refused}");
    client.call_ok(&broker.address(), with_permission(4)).expect("changed");
    assert!(client.pull(&queue, 0, 1, 0).is_ok());
    let route = super::broker::wait_for("the route without queues to write", || {
        client.route("refusals").ok().filter(|route| route.to_write.is_empty())
    });
    assert_eq!(route.to_read.len(), 1);
}

#[test]
fn unknown_requests_are_answered_as_such() {
    // Goal: both servers answer a code that they do not know, and the connection goes on. Method: unknown codes to each,
    // in both header codings, then a known one.
    let mut store = Store::new();
    let broker = store.start(&[]);
    for address in [broker.address(), broker.name_server()] {
        let mut connection = Connection::open(&address).expect("it listens");
        for serialize_type in
            [ringmq_protocol::command::SerializeType::Json, ringmq_protocol::command::SerializeType::RocketMq]
        {
            let request = Command { serialize_type, ..Command::request(9_999) };
            let answer = connection.call(request).expect("an answer");
            assert_eq!(answer.code, 3);
            assert_eq!(answer.remark.as_deref(), Some(" request type 9999 not supported"));
        }
    }
    let mut client = broker.client();
    assert!(client.route("TBW102").is_ok());
    let missing = client.route("no-such-topic").expect_err("no topic");
    assert_eq!(missing.to_string(), "there is no topic no-such-topic");
}

#[test]
fn messages_to_be_consumed_again() {
    // Goal: a retry topic takes what belongs to a group, and what is given up goes to the group's dead-letter topic, not delayed.
    // Method: a group that comes with its first message; attempts around the group's limit and the client's own, which old clients
    // do not have; an orderly consumer that gives up.
    let mut store = Store::new();
    let broker = store.start(&[]);
    let mut connection = broker.connection();
    let retry = |group: &str, attempts: i32| {
        let topic = format!("%RETRY%{group}");
        send(&SendTarget { topic: &topic, ..TARGET }, &Message::new("again")).with_ext("j", attempts)
    };
    assert_eq!(code_of(&mut connection, retry("fresh", 0)), 0);
    let group = Command::request(request::GET_SUBSCRIPTIONGROUP_CONFIG).with_ext("group", "fresh");
    assert_eq!(code_of(&mut connection, group), 0, "the group was created");
    assert_eq!(code_of(&mut connection, retry("fresh", 16)), 0);
    let mut client = broker.client();
    assert_eq!(stored(&mut client, &broker, "%DLQ%fresh"), 0);
    let given_up = connection.call_ok(retry("fresh", 17)).expect("stored");
    assert_eq!((given_up.ext("queueId"), given_up.ext("queueOffset")), (Some("0"), Some("0")));
    assert_eq!(code_of(&mut connection, retry("fresh", 17).with_ext("l", 20)), 0);
    let old = Command { version: 120, ..retry("fresh", 17).with_ext("l", 20) };
    assert_eq!(code_of(&mut connection, old), 0);
    let queue = r#"{"brokerName":"b","queueId":0,"topic":"T"}"#;
    let lock = format!(r#"{{"clientId":"c","consumerGroup":"orderly","mqSet":[{queue}],"onlyThisBroker":false}}"#);
    assert_eq!(code_of(&mut connection, retry("orderly", 0)), 0);
    assert_eq!(code_of(&mut connection, Command::request(request::LOCK_BATCH_MQ).with_body(lock.into_bytes())), 0);
    let delayed = Message::new("again").with_property("DELAY", "3");
    let delayed = send(&SendTarget { topic: "%RETRY%orderly", ..TARGET }, &delayed);
    assert_eq!(code_of(&mut connection, delayed), 0);
    let dead = client.pull(&broker.queue("%DLQ%orderly", 0), 0, 1, 0).expect("found");
    let dead = dead.messages().next().expect("one").expect("whole");
    assert_eq!((dead.topic(), dead.body()), ("%DLQ%orderly", &b"again"[..]));
    assert!(dead.properties().windows(8).any(|pair| pair == b"DELAY\x01-1"), "{dead:?}");
    let topic = connection.call_ok(Command::request(request::GET_TOPIC_CONFIG).with_ext("topic", "%DLQ%fresh"));
    let topic: serde_json::Value =
        serde_json::from_slice(&topic.expect("it exists").body.expect("its configuration")).expect("JSON");
    assert_eq!((&topic["perm"], &topic["readQueueNums"], &topic["writeQueueNums"]), (&6.into(), &1.into(), &1.into()));
    assert_eq!(stored(&mut client, &broker, "%DLQ%fresh"), 2);
    assert_eq!(stored(&mut client, &broker, "%DLQ%orderly"), 1);
    assert_eq!(stored(&mut client, &broker, "%RETRY%fresh"), 3);
    assert_eq!(stored(&mut client, &broker, "%RETRY%orderly"), 1);
}

#[test]
fn keys_tell_when_they_were_made() {
    // Goal: a key that the broker makes holds the time since the month began in the local zone, from which tools search on.
    // Method: a message without a key between two looks at the clock.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("refusals", 1);
    let since_month_began = || {
        let now_ms = SystemClock.now_ms();
        now_ms - local_month_start(now_ms)
    };
    let before_ms = since_month_began();
    let answer =
        broker.connection().call_ok(send(&TARGET, &Message::new("body")).with_ext("i", "a\u{1}b")).expect("stored");
    let after_ms = since_month_began();
    let key = answer.ext("transactionId").expect("the key").to_owned();
    let made_ms = u64::from_str_radix(&key[20..28], 16).expect("a number");
    // The month may end in between.
    assert!((before_ms..=after_ms).contains(&made_ms) || after_ms < before_ms, "{before_ms} {made_ms} {after_ms}");
}

#[test]
fn refusals_of_sends_say_where_they_come_from() {
    // Goal: each answer to a send has region and trace switch, whoever makes it. Method: refusals of a shard and of the control thread.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("refusals", 1);
    let unknown = send(&SendTarget { topic: "unknown", ..TARGET }, &Message::new("body"));
    let wrong_queue = send(&SendTarget { queue_id: 9, ..TARGET }, &Message::new("body"));
    for (request, code) in [(unknown.with_ext("c", "no-such-template"), 17), (wrong_queue, 29)] {
        let answer = broker.connection().call(request).expect("an answer");
        let told = (answer.ext("MSG_REGION"), answer.ext("TRACE_ON"));
        assert_eq!((answer.code, told), (code, (Some("DefaultRegion"), Some("true"))));
    }
}

#[test]
fn topics_of_kinds_that_are_not_served_take_nothing() {
    // Goal: a compacted topic, which only a RocketMQ broker can have made, takes no message. Method: write one into the topics
    // of a stopped broker.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("refusals", 1);
    broker.stop(&[]);
    let file = store.path().join("config/topics.json");
    let text = std::fs::read_to_string(&file).expect("topics");
    let mut topics: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    topics["topicConfigTable"]["refusals"]["attributes"] = serde_json::json!({"cleanup.policy": "COMPACTION"});
    std::fs::write(&file, topics.to_string()).expect("written");
    let broker = store.start(&[]);
    let refused = code_of(&mut broker.connection(), send(&TARGET, &Message::new("body").with_key("k")));
    assert_eq!((refused, stored(&mut broker.client(), &broker, "refusals")), (13, 0));
}

#[test]
fn pulls_tell_how_far_their_group_has_read() {
    // Goal: tools see what was handed out and is not consumed yet. Method: pull three messages, commit none, ask for the progress.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("refusals", 1);
    let mut client = broker.client().with_group("readers");
    let queue = broker.queue("refusals", 0);
    for _ in 0..3 {
        client.send_to(&queue, &Message::new("body")).expect("stored");
    }
    client.pull(&queue, 0, 32, 0).expect("an answer");
    wait_for("the position of the pull", || {
        let request = Command::request(request::GET_CONSUME_STATS).with_ext("consumerGroup", "readers");
        let request = request.with_ext("topic", "refusals");
        let answer = client.call_ok(&broker.address(), request).expect("an answer");
        let text = String::from_utf8(answer.body.expect("a table")).expect("text");
        text.contains(r#""brokerOffset":3,"consumerOffset":0,"#).then_some(())?;
        text.contains(r#""pullOffset":3"#).then_some(())
    });
}
