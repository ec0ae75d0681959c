//! Time-outs, live settings, bounds of what clients may create, and the figures of tools, over sockets.

use std::io::Write;
use std::net::TcpStream;

use ringmq::client::{Connection, Message};
use ringmq_protocol::bodies::{ConsumerData, HeartbeatData};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;

use super::broker::{Broker, PATIENCE, Store, until_closed, wait_for};

fn change(connection: &mut Connection, text: &str) -> Command {
    let update = Command::request(request::UPDATE_BROKER_CONFIG).with_body(text.as_bytes().to_vec());
    connection.call(update).expect("an answer")
}

/// Code and remark of an answer.
fn outcome(answer: &Command) -> (i32, &str) {
    (answer.code, answer.remark.as_deref().unwrap_or_default())
}

fn text(answer: &Command) -> String {
    String::from_utf8(answer.body.clone().unwrap_or_default().to_vec()).expect("text")
}

/// A pull of group `g` of queue 0.
fn pull(topic: &str, offset: i64, most: u32, hold_ms: u64) -> Command {
    Command::request(request::PULL_MESSAGE)
        .with_ext("consumerGroup", "g")
        .with_ext("topic", topic)
        .with_ext("queueId", 0)
        .with_ext("queueOffset", offset)
        .with_ext("maxMsgNums", most)
        .with_ext("sysFlag", if hold_ms > 0 { 6 } else { 4 })
        .with_ext("commitOffset", 0)
        .with_ext("suspendTimeoutMillis", hold_ms)
        .with_ext("subscription", "*")
        .with_ext("subVersion", 0)
        .with_ext("expressionType", "TAG")
}

fn create_topic(topic: &str, queues: u32) -> Command {
    Command::request(request::UPDATE_AND_CREATE_TOPIC)
        .with_ext("topic", topic)
        .with_ext("defaultTopic", "TBW102")
        .with_ext("readQueueNums", queues)
        .with_ext("writeQueueNums", queues)
        .with_ext("perm", 6)
        .with_ext("topicFilterType", "SINGLE_TAG")
        .with_ext("topicSysFlag", 0)
        .with_ext("order", "false")
}

fn create_group(group: &str) -> Command {
    let body = format!(r#"{{"groupName":"{group}","consumeEnable":true}}"#);
    Command::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(body.into_bytes())
}

#[test]
fn a_frame_that_does_not_arrive_ends_its_connection() {
    // Goal: half a request is closed by its time-out, however it drips, on broker and name server; whole ones are served on the
    // same broker and an idle connection stays. Method: a short time-out; a half frame that is silent, and one that drips.
    let mut store = Store::new();
    let broker = store.start(&["frame_timeout=500", "shards=2"]);
    let mut idle = broker.connection();
    for address in [broker.address(), broker.name_server()] {
        let mut silent = TcpStream::connect(&address).expect("it listens");
        silent.write_all(&[0, 0, 4, 0, 0, 0]).expect("written");
        until_closed(&mut silent);
        let mut dripping = TcpStream::connect(&address).expect("it listens");
        dripping.write_all(&[0, 1, 0, 0, 0]).expect("written");
        wait_for("the end of a dripping frame", || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            dripping.write_all(&[0]).is_err().then_some(())
        });
    }
    assert_eq!(idle.call(create_topic("afterwards", 1)).expect("an idle connection stays").code, response::SUCCESS);
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    // Goal: serverChannelMaxIdleTimeSeconds holds; a pull that waits does not keep its connection alive, requests do. Method: a few
    // seconds; a silent connection ends while another asks on.
    let mut store = Store::new();
    let broker = store.start(&["serverChannelMaxIdleTimeSeconds=5"]);
    broker.topic("idle", 1);
    let mut silent = TcpStream::connect(broker.address()).expect("it listens");
    let mut waiting = TcpStream::connect(broker.address()).expect("it listens");
    waiting.write_all(&pull("idle", 0, 1, 60_000).encode()).expect("written");
    let mut busy = broker.connection();
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| {
            until_closed(&mut silent);
            until_closed(&mut waiting);
        });
        while !closing.is_finished() {
            assert_eq!(busy.call(pull("idle", 0, 1, 0)).expect("served").code, response::PULL_NOT_FOUND);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    assert_eq!(busy.call(pull("idle", 0, 1, 0)).expect("served").code, response::PULL_NOT_FOUND);
}

#[test]
fn live_keys_act_at_once() {
    // Goal: what is said to be live is live, for sends, pulls, tools and name servers. Method: for each key, behaviour before and
    // after its change.
    let mut store = Store::new();
    let broker = store.start(&["shards=2"]);
    broker.topic("live", 1);
    let mut client = broker.client();
    let queue = broker.queue("live", 0);
    for number in 0..40 {
        client.send_to(&queue, &Message::new(format!("{number}"))).expect("stored");
    }
    let mut tool = broker.connection();
    let mut live = |text: &str| assert_eq!(outcome(&change(&mut tool, text)), (0, ""), "{text}");
    let mut other = broker.connection();
    let pulled = |other: &mut Connection| {
        let answer = other.call(pull("live", 0, 40, 0)).expect("an answer");
        assert_eq!(answer.code, response::SUCCESS);
        answer.ext("nextBeginOffset").and_then(|next| next.parse::<u32>().ok()).expect("a number")
    };
    assert_eq!(pulled(&mut other), 32);
    live("maxTransferCountOnMessageInMemory=5");
    assert_eq!(pulled(&mut other), 5);
    live("maxTransferCountOnMessageInMemory=100\npullBatchMaxMessageCount=7");
    assert_eq!(pulled(&mut other), 7);
    live("maxTransferBytesOnMessageInMemory=1\npullBatchMaxMessageCount=100");
    assert_eq!(pulled(&mut other), 1);
    live("maxTransferBytesOnMessageInMemory=262144");

    live("autoCreateTopicEnable=false");
    client.send_to(&broker.queue("unborn", 0), &Message::new("x")).expect_err("no topic");
    live("autoCreateTopicEnable=true");
    live("autoCreateSubscriptionGroup=false");
    let unknown = other.call(pull("live", 0, 1, 0).with_ext("consumerGroup", "unborn")).expect("an answer");
    assert_eq!(unknown.code, response::SUBSCRIPTION_GROUP_NOT_EXIST);
    live("autoCreateSubscriptionGroup=true");
    assert_eq!(other.call(pull("live", 0, 1, 0).with_ext("consumerGroup", "unborn")).expect("an answer").code, 0);

    // As in RocketMQ, writing is only refused for ordered topics: others are kept away by the route.
    let ordered = create_topic("ordered", 1).with_ext("order", "true");
    assert_eq!(other.call(ordered).expect("an answer").code, response::SUCCESS);
    client.send_to(&broker.queue("ordered", 0), &Message::new("x")).expect("writable");
    live("brokerPermission=4");
    client.send_to(&broker.queue("ordered", 0), &Message::new("x")).expect_err("not writable");
    live("brokerPermission=2");
    assert_eq!(other.call(pull("live", 0, 1, 0)).expect("an answer").code, response::NO_PERMISSION);
    live("brokerPermission=6");
    client.send_to(&queue, &Message::new("x")).expect("writable");

    // A request that would wait for a minute is answered after a moment.
    live("longPollingEnable=false\nshortPollingTimeMills=1");
    let answer = other.call_within(pull("live", 41, 1, 60_000), PATIENCE / 2).expect("answered soon");
    assert_eq!(answer.code, response::PULL_NOT_FOUND);
    live("longPollingEnable=true");

    live("startAcceptSendRequestTimeStamp=32503680000000");
    client.send_to(&queue, &Message::new("x")).expect_err("not before the year 3000");
    live("startAcceptSendRequestTimeStamp=0");
    live("traceOn=false");
    client.send_to(&queue, &Message::new("x")).expect("stored");
    live("rejectPullConsumerEnable=true");
    let refused = other.call(pull("live", 0, 1, 0)).expect("an answer");
    assert_ne!(refused.code, response::SUCCESS, "{:?}", refused.remark);
    let of_tools = pull("live", 0, 1, 0).with_ext("consumerGroup", "TOOLS_CONSUMER");
    assert_eq!(other.call(of_tools).expect("an answer").code, response::SUCCESS);
    live("rejectPullConsumerEnable=false");
    assert_eq!(other.call(pull("live", 0, 1, 0)).expect("an answer").code, response::SUCCESS);

    let lite = || Command { code: request::LITE_PULL_MESSAGE, ..pull("live", 0, 1, 0) };
    live("litePullMessageEnable=false");
    let refused = other.call(lite()).expect("an answer");
    assert_eq!((refused.code, refused.ext("forbiddenType")), (response::NO_PERMISSION, Some("1")));
    assert_eq!(other.call(pull("live", 0, 1, 0)).expect("an answer").code, response::SUCCESS);
    live("litePullMessageEnable=true");
    assert_eq!(other.call(lite()).expect("an answer").code, response::SUCCESS);

    live("max_connections=1");
    let mut refused = TcpStream::connect(broker.address()).expect("accepted by the kernel");
    until_closed(&mut refused);
    live("max_connections=1000");
    let mut again = wait_for("room again", || Connection::open(&broker.address()).ok());
    let shown = text(&again.call(Command::request(request::GET_BROKER_CONFIG)).expect("an answer"));
    for line in ["pullBatchMaxMessageCount=100\n", "traceOn=false\n", "shortPollingTimeMills=1\n"] {
        assert!(shown.contains(line), "{line}");
    }
    broker.stop(&["connections are refused"]);
}

/// The region that the answer to a send names.
fn region(connection: &mut Connection) -> Option<String> {
    let fields =
        [("a", "pg"), ("b", "regional"), ("c", "TBW102"), ("d", "4"), ("e", "0"), ("f", "0"), ("g", "1"), ("h", "0")];
    let send = Command::request(request::SEND_MESSAGE_V2).with_body(b"x".to_vec());
    let send = fields.iter().fold(send, |send, (key, value)| send.with_ext(key, value)).with_ext("i", "");
    connection.call(send).expect("an answer").ext("MSG_REGION").map(str::to_owned)
}

#[test]
fn other_keys_say_when_they_act() {
    // Goal: a change that does not act at once says so, survives the restart and acts then; wrong or forbidden ones change nothing.
    // Method: one of each kind.
    let mut store = Store::new();
    let broker = store.start(&[]);
    let mut tool = broker.connection();
    let answer = change(&mut tool, "regionId=elsewhere\nsendMessageThreadPoolNums=9\nmax_topics=20");
    assert_eq!(answer.code, response::SUCCESS);
    let remark = answer.remark.clone().unwrap_or_default();
    assert!(remark.contains("regionId is kept and takes effect after a restart"), "{remark}");
    assert!(remark.contains("sendMessageThreadPoolNums is kept but has no effect"), "{remark}");
    assert!(!remark.contains("max_topics"), "{remark}");
    for (wrong, code) in [
        ("traceOn=false\nbrokerConfigPath=/x", response::NO_PERMISSION),
        ("traceOn=false\nstorePathRootDir=/elsewhere", response::SYSTEM_ERROR),
        ("traceOn=false\nmaxMessageSize=huge", response::SYSTEM_ERROR),
    ] {
        let answer = change(&mut tool, wrong);
        assert_eq!(answer.code, code, "{wrong}: {:?}", answer.remark);
        assert!(answer.remark.is_some_and(|remark| !remark.is_empty()), "{wrong}");
    }
    let config = |connection: &mut Connection| text(&connection.call(Command::request(26)).expect("an answer"));
    let shown = config(&mut tool);
    assert!(shown.contains("traceOn=true\n") && shown.contains("regionId=elsewhere\n"));
    assert_eq!(region(&mut tool).as_deref(), Some("DefaultRegion"));
    broker.stop(&[]);
    let broker = store.start(&[]);
    let mut tool = broker.connection();
    assert!(config(&mut tool).contains("regionId=elsewhere\n"));
    assert_eq!(region(&mut tool).as_deref(), Some("elsewhere"));
    broker.stop(&["sendMessageThreadPoolNums"]);
}

/// Names of everything that a table of the broker holds.
fn count_of(broker: &Broker, code: i32, table: &str) -> u64 {
    let body = text(&broker.connection().call(Command::request(code)).expect("an answer"));
    let table = body.split_once(&format!("\"{table}\":{{")).expect("a table").1;
    table.matches("\"perm\":").count().max(table.matches("\"consumeEnable\":").count()) as u64
}

#[test]
fn topics_queues_and_groups_are_bounded() {
    // Goal: past max_topics, max_queues and max_groups nothing is created, by tools or by use; the answer names the bound, and what
    // exists goes on. Method: bounds just above what a fresh broker has.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("first", 1);
    let topics = count_of(&broker, request::GET_ALL_TOPIC_CONFIG, "topicConfigTable");
    let groups = count_of(&broker, request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, "subscriptionGroupTable");
    let mut tool = broker.connection();
    let bounds = format!("max_topics={}\nmax_groups={}", topics + 1, groups + 1);
    assert_eq!(outcome(&change(&mut tool, &bounds)), (0, ""));
    assert_eq!(tool.call(create_topic("second", 1)).expect("an answer").code, response::SUCCESS);
    let refused = tool.call(create_topic("third", 1)).expect("an answer");
    assert!(refused.code != 0 && outcome(&refused).1.contains("max_topics"), "{:?}", outcome(&refused));
    let mut client = broker.client();
    client.send_to(&broker.queue("fourth", 0), &Message::new("x")).expect_err("no room for a topic");
    assert_eq!(tool.call(create_group("one")).expect("an answer").code, response::SUCCESS);
    let refused = tool.call(create_group("two")).expect("an answer");
    assert!(refused.code != 0 && outcome(&refused).1.contains("max_groups"), "{:?}", outcome(&refused));
    let refused = tool.call(pull("first", 0, 1, 0).with_ext("consumerGroup", "three")).expect("an answer");
    assert_eq!(refused.code, response::SUBSCRIPTION_GROUP_NOT_EXIST, "{:?}", refused.remark);
    assert_eq!(tool.call(create_topic("second", 2)).expect("an answer").code, response::SUCCESS, "it exists");
    client.send_to(&broker.queue("first", 0), &Message::new("x")).expect("stored");

    assert_eq!(outcome(&change(&mut tool, "max_topics=1000\nmax_queues=1")), (0, ""));
    let refused = tool.call(create_topic("third", 1)).expect("an answer");
    assert!(refused.code != 0 && outcome(&refused).1.contains("max_queues"), "{:?}", outcome(&refused));
    assert_eq!(outcome(&change(&mut tool, "max_queues=100000")), (0, ""));
    assert_eq!(tool.call(create_topic("third", 1)).expect("an answer").code, response::SUCCESS);
}

#[test]
fn the_progress_of_a_group_shows_what_it_has_pulled() {
    // Goal: 208 shows both positions: what is committed, and where the last answer ended. Method: pulls ahead of the commit.
    let mut store = Store::new();
    let broker = store.start(&["shards=2"]);
    broker.topic("progress", 1);
    let mut client = broker.client();
    for number in 0..10 {
        client.send_to(&broker.queue("progress", 0), &Message::new(format!("{number}"))).expect("stored");
    }
    let mut connection = broker.connection();
    let stats =
        || Command::request(request::GET_CONSUME_STATS).with_ext("consumerGroup", "g").with_ext("topic", "progress");
    for (offset, commit) in [(0, 0), (4, 2), (8, 2)] {
        let with_commit = pull("progress", offset, 4, 0).with_ext("commitOffset", commit).with_ext("sysFlag", 5);
        assert_eq!(connection.call(with_commit).expect("an answer").code, response::SUCCESS);
        let expected = format!(r#""brokerOffset":10,"consumerOffset":{commit}"#);
        let pulled = format!(r#""pullOffset":{}"#, (offset + 4).min(10));
        wait_for("the positions", || {
            let shown = text(&connection.call(stats()).expect("an answer"));
            (shown.contains(&expected) && shown.contains(&pulled)).then_some(())
        });
    }
}

#[test]
fn tools_see_how_fast_topics_and_groups_are() {
    // Goal: rates of a topic and a group are above 0 while they are used, in each answer that shows them. Method: send and pull
    // until the samples have them.
    let mut store = Store::new();
    let broker = store.start(&["shards=2"]);
    broker.topic("fast", 1);
    let mut client = broker.client();
    let mut connection = broker.connection();
    let mut offset = 0;
    wait_for("rates", || {
        client.send_to(&broker.queue("fast", 0), &Message::new("x")).expect("stored");
        offset += 1;
        assert_eq!(connection.call(pull("fast", offset - 1, 1, 0)).expect("an answer").code, response::SUCCESS);
        let stats =
            Command::request(request::GET_CONSUME_STATS).with_ext("consumerGroup", "g").with_ext("topic", "fast");
        let group = text(&connection.call(stats).expect("an answer"));
        let stats = Command::request(request::GET_TOPIC_STATS_INFO).with_ext("topic", "fast");
        let topic = text(&connection.call(stats).expect("an answer"));
        std::thread::sleep(std::time::Duration::from_millis(20));
        (!group.contains(r#""consumeTps":0.0"#) && !topic.contains(r#""topicPutTps":0.0"#)).then_some(())
    });
    for (name, key) in [("TOPIC_PUT_NUMS", "fast"), ("GROUP_GET_NUMS", "fast@g")] {
        let view =
            Command::request(request::VIEW_BROKER_STATS_DATA).with_ext("statsName", name).with_ext("statsKey", key);
        let shown = text(&connection.call(view).expect("an answer"));
        assert!(shown.contains(r#""statsMinute":{"avgpt":1.0,"sum":"#), "{shown}");
    }
    let table = text(&connection.call(Command::request(request::GET_BROKER_RUNTIME_INFO)).expect("an answer"));
    for text in [r#""msgPutTotalTodayMorning":"#, r#""msgPutTotalYesterdayMorning":"0""#] {
        assert!(table.contains(text), "{table}");
    }
    assert!(!table.contains(r#""putTps":"0.0 "#) && !table.contains(r#""getTransferredTps":"0.0 "#), "{table}");
}

#[test]
fn bounds_of_tables_show_their_use() {
    // Goal: who watches the metrics sees the tables of broker and name server fill. Method: one entry of each kind that a client
    // makes.
    let mut store = Store::new();
    let listen = format!("metrics_listen={}", store.metrics_address());
    let broker = store.start(&[&listen]);
    broker.topic("T", 1);
    broker.group("g");
    broker.client().commit_offset("g", &broker.queue("T", 0), 0).expect("accepted");
    let lock = br#"{"clientId":"c","consumerGroup":"g","mqSet":[{"brokerName":"b","queueId":0,"topic":"T"}]}"#;
    broker.connection().call_ok(Command::request(41).with_body(lock.to_vec())).expect("locked");
    let mut member = broker.client();
    let in_group = |group: &str| ConsumerData { group_name: group.into(), ..ConsumerData::default() };
    let data = HeartbeatData { consumer_data_set: vec![in_group("g"), in_group("h")], ..HeartbeatData::default() };
    member.heartbeat(&broker.address(), &data).expect("accepted");
    for (name, least) in [
        ("ringmq_limit_connection_groups", 2),
        ("ringmq_limit_offset_keys", 1),
        ("ringmq_limit_locked_groups", 1),
        ("ringmq_limit_namesrv_brokers", 1),
        ("ringmq_limit_namesrv_routes", 1),
    ] {
        let used = format!("{name}_used");
        wait_for(name, || (broker.metric(&store, &used) >= least).then_some(()));
        assert!(broker.metric(&store, name) > least, "{name}");
    }
    assert_eq!(broker.metric(&store, "ringmq_limit_namesrv_keys_used"), 0);
    let mostly_unused = ["flush_queue", "mailbox", "parked_requests", "parked_bytes"];
    for name in mostly_unused.map(|bound| format!("ringmq_limit_{bound}")) {
        wait_for(&name, || (broker.metric(&store, &format!("{name}_used")) == 0).then_some(()));
        assert!(broker.metric(&store, &name) > 0, "{name}");
    }
    assert_eq!(broker.stop(&[]).code(), Some(0));
}
