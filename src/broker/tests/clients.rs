//! Heartbeats, membership, notices, expiry, and what shards see of it.

use super::*;
use ringmq_protocol::bodies::{ConsumeType, MessageModel};
use ringmq_protocol::codes::request as code;
use ringmq_protocol::flags::RPC_ONEWAY;
use std::sync::Arc;

/// A subscription: topic, version, tag.
type Wanted<'a> = (&'a str, i64, &'a str);

fn beat(client: &str, group: &str, model: &str, wanted: &[Wanted<'_>], extra: &str) -> Command {
    let list: Vec<String> = wanted
        .iter()
        .map(|(topic, version, tag)| {
            let codes = super::super::filter::java_hash(tag);
            format!(
                r#"{{"classFilterMode":false,"codeSet":[{codes}],"expressionType":"TAG","subString":"{tag}","subVersion":{version},"tagsSet":["{tag}"],"topic":"{topic}"}}"#
            )
        })
        .collect();
    let body = format!(
        r#"{{"clientID":"{client}","consumerDataSet":[{{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"{group}","messageModel":"{model}","subscriptionDataSet":[{}],"unitMode":false}}],"producerDataSet":[{{"groupName":"pg"}}]{extra}}}"#,
        list.join(",")
    );
    Command { version: 479, ..Command::request(code::HEART_BEAT) }.with_body(body.into_bytes())
}

fn send(control: &mut Control, request: &Command, from: u16, now_ms: u64) -> (Command, Vec<Effect>) {
    let mut effects = Vec::new();
    let answer = ask_with(control, request, from, now_ms, &FakeStore::default(), &mut effects);
    (answer, effects)
}

/// Connections that are told of a change of group `g`.
fn notified(effects: &[Effect]) -> Vec<u64> {
    let notice = |effect: &Effect| match effect {
        Effect::Send { connection, command } => {
            assert_eq!((command.code, command.flag), (code::NOTIFY_CONSUMER_IDS_CHANGED, RPC_ONEWAY));
            assert_eq!(command.ext("consumerGroup"), Some("g"));
            Some(connection.0)
        }
        _ => None,
    };
    effects.iter().filter_map(notice).collect()
}

const SAME: &[Wanted<'_>] = &[("T", 1, "A")];

/// Goal: the published heartbeat registers group, retry topic, subscription and producer. Method: send it, look around.
#[test]
fn first_heartbeat() {
    let mut control = control();
    let body = r#"{"clientID":"127.0.0.1@1234#1","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"g1","messageModel":"CLUSTERING","subscriptionDataSet":[{"classFilterMode":false,"codeSet":[2598919,2598920],"expressionType":"TAG","subString":"TagA || TagB","subVersion":1700000000000,"tagsSet":["TagA","TagB"],"topic":"TopicTest"}],"unitMode":false}],"heartbeatFingerprint":0,"producerDataSet":[{"groupName":"pg1"}],"withoutSub":false}"#;
    let request = Command::request(code::HEART_BEAT).with_body(body.as_bytes().to_vec());
    let (answer, effects) = send(&mut control, &request, 1, 1_000);
    assert_eq!(answer.code, 0);
    assert_eq!(answer.ext("IS_SUPPORT_HEART_BEAT_V2"), Some("true"));
    assert_eq!(answer.ext("IS_SUB_CHANGE"), Some("true"));
    assert!(effects.contains(&Effect::GroupsChanged));
    assert!(effects.contains(&Effect::RegisterTopics(vec!["%RETRY%g1".to_owned()])));
    assert!(effects.contains(&Effect::SubscriptionsChanged { group: "g1".to_owned() }));
    assert_eq!(control.topics.get("%RETRY%g1").map(|topic| (topic.read_queue_nums, topic.perm)), Some((1, 6)));
    let snapshot = control.snapshot();
    let live = snapshot.groups["g1"].live.as_ref().unwrap();
    assert_eq!(live.consume_type, Some(ConsumeType::Passively));
    assert_eq!(live.message_model, Some(MessageModel::Clustering));
    let filter = &live.subscriptions["TopicTest"].filter;
    assert!(filter.matches(2_598_919) && filter.matches(2_598_920) && !filter.matches(0));
    assert!(control.clients.producer_group("pg1").is_some());
}

/// Goal: a C++ client's heartbeat is understood. Method: ordinals for enums, a text for the version, members missing.
#[test]
fn heartbeat_of_other_languages() {
    let mut control = control();
    let body = r#"{"clientID":"c","consumerDataSet":[{"consumeFromWhere":0,"consumeType":1,"groupName":"g","messageModel":1,"subscriptionDataSet":[{"subString":"*","subVersion":"1700","topic":"T"}]}],"producerDataSet":[]}
"#;
    let (answer, _) =
        send(&mut control, &Command::request(code::HEART_BEAT).with_body(body.as_bytes().to_vec()), 1, 1_000);
    assert_eq!(answer.code, 0);
    let live = control.snapshot().groups["g"].live.clone().unwrap();
    assert_eq!(live.message_model, Some(MessageModel::Clustering));
    assert_eq!(live.subscriptions["T"].data.sub_version, 1_700);
    assert!(live.subscriptions["T"].filter.takes_everything());
}

/// Goal: a body that is missing or no JSON gives code 1. Method: both.
#[test]
fn bad_heartbeats() {
    let mut control = control();
    assert_eq!(send(&mut control, &Command::request(code::HEART_BEAT), 1, 1_000).0.code, 1);
    assert_eq!(ask_body(&mut control, code::HEART_BEAT, "{{").code, 1);
}

/// Goal: members are told of new connections and of topics that come or go, not of renewed or newer subscriptions.
/// Method: a sequence of heartbeats, each with the expected notices.
#[test]
fn notices() {
    let mut control = control();
    let clustering = "CLUSTERING";
    let mut step = |from: u16, client: &str, wanted: &[Wanted<'_>], expected: &[u64]| {
        let (_, effects) = send(&mut control, &beat(client, "g", clustering, wanted, ""), from, 1_000);
        assert_eq!(notified(&effects), expected, "{client} {wanted:?}");
        control.snapshot()
    };
    let first = step(1, "c1", SAME, &[1]);
    let second = step(1, "c1", SAME, &[]);
    assert!(Arc::ptr_eq(&first, &second), "nothing changed, so there is no new snapshot");
    step(2, "c2", SAME, &[1, 2]);
    let newer = step(2, "c2", &[("T", 2, "B")], &[]);
    assert_eq!(newer.groups["g"].live.as_ref().unwrap().subscriptions["T"].data.sub_string, "B");
    let older = step(1, "c1", &[("T", 1, "A")], &[]);
    assert_eq!(older.groups["g"].live.as_ref().unwrap().subscriptions["T"].data.sub_string, "B");
    step(1, "c1", &[("T", 2, "B"), ("U", 1, "A")], &[1, 2]);
    let removed = step(1, "c1", &[("U", 1, "A")], &[1, 2]);
    assert!(!removed.groups["g"].live.as_ref().unwrap().subscriptions.contains_key("T"));
    step(1, "renamed", &[("U", 1, "A")], &[]);
    let list = ask(&mut control, code::GET_CONSUMER_LIST_BY_GROUP, &[("consumerGroup", "g")]);
    assert_eq!(text(&list), r#"{"consumerIdList":["renamed","c2"]}"#);
}

/// Goal: nobody is told in broadcast groups, in groups that do not want it, or when the broker does not.
/// Method: one new member under each of the three settings.
#[test]
fn no_notices() {
    let mut control = control();
    let (_, effects) = send(&mut control, &beat("c", "g", "BROADCASTING", SAME, ""), 1, 1_000);
    assert!(notified(&effects).is_empty());
    let answer = ask_body(
        &mut control,
        code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP,
        r#"{"groupName":"g","notifyConsumerIdsChangedEnable":false}"#,
    );
    assert_eq!(answer.code, 0);
    let (_, effects) = send(&mut control, &beat("c", "g", "CLUSTERING", SAME, ""), 2, 1_000);
    assert!(notified(&effects).is_empty());
    ask_body(&mut control, code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, r#"{"groupName":"g"}"#);
    control.config.notify_consumers = false;
    let (_, effects) = send(&mut control, &beat("c", "g", "CLUSTERING", SAME, ""), 3, 1_000);
    assert!(notified(&effects).is_empty());
}

/// Goal: the second form of heartbeats reports changed fingerprints and may leave subscriptions out.
/// Method: a sequence of fingerprints; a member without subscriptions; a group that the broker has never seen.
#[test]
fn second_form() {
    let mut control = control();
    let with =
        |fingerprint: i32, without: bool| format!(r#","heartbeatFingerprint":{fingerprint},"withoutSub":{without}"#);
    let mut step = |from: u16, wanted: &[Wanted<'_>], fingerprint: i32, without: bool| {
        let request = beat("c", "g", "CLUSTERING", wanted, &with(fingerprint, without));
        let (answer, effects) = send(&mut control, &request, from, 1_000);
        let subscriptions = control.clients.subscription_count("g");
        (answer.ext("IS_SUB_CHANGE").unwrap() == "true", notified(&effects), subscriptions)
    };
    assert_eq!(step(1, SAME, 5, false), (false, vec![1], 1));
    assert_eq!(step(1, &[], 5, true), (false, vec![], 1));
    assert_eq!(step(2, &[], 5, true), (false, vec![1, 2], 1));
    assert_eq!(step(1, SAME, 6, false), (true, vec![], 1));
    assert_eq!(step(1, SAME, 0, false), (true, vec![], 1));
    assert_eq!(step(1, SAME, 6, false), (true, vec![], 1));
    let request = beat("c", "unseen", "CLUSTERING", &[], &with(9, true));
    let (answer, _) = send(&mut control, &request, 1, 1_000);
    assert_eq!(answer.ext("IS_SUB_CHANGE"), Some("true"), "the broker lacks the subscriptions and must get them");
}

/// Goal: groups that may not be created, and rejected pull consumers, are skipped without an error.
/// Method: both settings, then the state of the group.
#[test]
fn skipped_groups() {
    let mut control = control();
    control.config.auto_create_group = false;
    let (answer, _) = send(&mut control, &beat("c", "g", "CLUSTERING", SAME, ""), 1, 1_000);
    assert_eq!(answer.code, 0);
    assert!(control.clients.consumer_group("g").is_none() && !control.topics.contains("%RETRY%g"));
    control.config.auto_create_group = true;
    control.config.reject_pull_consumers = true;
    let body = r#"{"clientID":"c","consumerDataSet":[{"consumeType":"CONSUME_ACTIVELY","groupName":"g"}]}"#;
    assert_eq!(ask_body(&mut control, code::HEART_BEAT, body).code, 0);
    assert!(!control.groups.contains("g"));
    control.config.reject_pull_consumers = false;
    control.config.max_topics = 0;
    assert_eq!(ask_body(&mut control, code::HEART_BEAT, body).code, 0);
    assert!(control.clients.consumer_group("g").is_some(), "a missing retry topic does not keep a consumer out");
}

/// Goal: a retry topic takes the order mark of subscribed topics. Method: an ordered topic, then a heartbeat.
#[test]
fn order_mark() {
    let mut control = control();
    let fields = [("topic", "T"), ("readQueueNums", "1"), ("writeQueueNums", "1"), ("perm", "6"), ("order", "true")];
    let fields = [&fields[..], &[("topicFilterType", "SINGLE_TAG"), ("defaultTopic", "TBW102")]].concat();
    assert_eq!(ask(&mut control, code::UPDATE_AND_CREATE_TOPIC, &fields).code, 0);
    send(&mut control, &beat("c", "g", "CLUSTERING", SAME, ""), 1, 1_000);
    assert!(control.topics.is_order("%RETRY%g"));
    send(&mut control, &beat("c", "g", "CLUSTERING", &[("U", 1, "*")], ""), 1, 1_000);
    assert!(!control.topics.is_order("%RETRY%g"));
}

/// Goal: leaving and losing a connection have the same effect and tell the others. Method: three members go one by one.
#[test]
fn departures() {
    let mut control = control();
    for from in 1..=3 {
        send(&mut control, &beat(&format!("c{from}"), "g", "CLUSTERING", SAME, ""), from, 1_000);
    }
    let leave =
        request(code::UNREGISTER_CLIENT, &[("clientID", "whatever"), ("consumerGroup", "g"), ("producerGroup", "")]);
    let (answer, effects) = send(&mut control, &leave, 2, 1_000);
    assert_eq!((answer.code, answer.ext_fields.map(|fields| fields.len())), (0, Some(0)));
    assert_eq!(notified(&effects), [1, 3]);
    let (_, effects) = send(&mut control, &leave, 2, 1_000);
    assert_eq!(effects, []);
    let mut effects = Vec::new();
    control.connection_closed(ConnectionId(1), &mut effects);
    assert_eq!(notified(&effects), [3]);
    assert_eq!(control.clients.producer_group("pg").map(BTreeMap::len), Some(2));
    control.connection_closed(ConnectionId(3), &mut effects);
    control.connection_closed(ConnectionId(2), &mut effects);
    assert!(control.clients.consumer_group("g").is_none() && control.clients.producer_group("pg").is_none());
    assert!(control.snapshot().groups["g"].live.is_none());
    let answer = ask(&mut control, code::GET_CONSUMER_LIST_BY_GROUP, &[("consumerGroup", "g")]);
    assert_eq!(outcome(&answer), (1, "no consumer for this group, g"));
}

/// Goal: silent clients are removed after 120 s, their connections closed, their locks kept. Method: ticks around it.
#[test]
fn silent_clients() {
    let mut control = control();
    send(&mut control, &beat("c1", "g", "CLUSTERING", SAME, ""), 1, 1_000);
    send(&mut control, &beat("c2", "g", "CLUSTERING", SAME, ""), 2, 100_000);
    let mut effects = Vec::new();
    control.tick(at(121_000), &mut effects);
    assert_eq!(effects, [Effect::RegisterAll]);
    effects.clear();
    control.tick(at(131_000), &mut effects);
    assert_eq!(effects[0], Effect::CloseConnection(ConnectionId(1)));
    assert_eq!(notified(&effects), [2]);
    let members = &control.clients.consumer_group("g").unwrap().members;
    assert_eq!(members.values().map(|client| client.client_id.as_str()).collect::<Vec<_>>(), ["c2"]);
}

/// Goal: a subscription is checked by type only. Method: tags, another type, no body.
#[test]
fn client_check() {
    let mut control = control();
    assert_eq!(ask(&mut control, code::CHECK_CLIENT_CONFIG, &[]).code, 0);
    let tags =
        r#"{"clientId":"c","group":"g","subscriptionData":{"expressionType":"TAG","subString":"||","topic":"T"}}"#;
    assert_eq!(ask_body(&mut control, code::CHECK_CLIENT_CONFIG, tags).code, 0);
    let answer = ask_body(&mut control, code::CHECK_CLIENT_CONFIG, &tags.replace("TAG", "SQL92"));
    assert_eq!(outcome(&answer), (1, "The broker does not support consumer to filter message by SQL92"));
}

/// Goal: the views of tools show members and subscriptions. Method: one consumer and producer, every view, and offline.
#[test]
fn views_of_connections() {
    let mut control = control();
    send(&mut control, &beat("c1", "g", "CLUSTERING", SAME, ""), 1, 1_000);
    let connection = r#"{"clientAddr":"127.0.0.1:50001","clientId":"c1","language":"JAVA","version":479}"#;
    let subscription = r#"{"classFilterMode":false,"codeSet":[65],"expressionType":"TAG","subString":"A","subVersion":1,"tagsSet":["A"],"topic":"T"}"#;
    let answer = ask(&mut control, code::GET_CONSUMER_CONNECTION_LIST, &[("consumerGroup", "g")]);
    assert_eq!(
        text(&answer),
        format!(
            r#"{{"connectionSet":[{connection}],"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","subscriptionTable":{{"T":{subscription}}}}}"#
        )
    );
    let answer = ask(&mut control, code::GET_PRODUCER_CONNECTION_LIST, &[("producerGroup", "pg")]);
    assert_eq!(text(&answer), format!(r#"{{"connectionSet":[{connection}]}}"#));
    let answer = ask(&mut control, code::GET_ALL_PRODUCER_INFO, &[]);
    let info =
        r#"{"clientId":"c1","language":"JAVA","lastUpdateTimestamp":1000,"remoteIP":"/127.0.0.1:50001","version":479}"#;
    assert_eq!(text(&answer), format!(r#"{{"data":{{"pg":[{info}]}}}}"#));
    control.offsets.commit("h", "T", 0, 1, 500, 1);
    assert_eq!(
        text(&ask(&mut control, code::QUERY_TOPIC_CONSUME_BY_WHO, &[("topic", "T")])),
        r#"{"groupList":["g","h"]}"#
    );
    assert_eq!(
        text(&ask(&mut control, code::QUERY_TOPICS_BY_CONSUMER, &[("group", "h")])),
        r#"{"brokerAddr":"127.0.0.1:10911","topicList":["T"]}"#
    );
    let answer = ask(&mut control, code::QUERY_SUBSCRIPTION_BY_CONSUMER, &[("group", "g"), ("topic", "T")]);
    assert_eq!(text(&answer), format!(r#"{{"group":"g","subscriptionData":{subscription},"topic":"T"}}"#));
    let answer = ask(&mut control, code::QUERY_SUBSCRIPTION_BY_CONSUMER, &[("group", "g"), ("topic", "U")]);
    assert_eq!(text(&answer), r#"{"group":"g","topic":"U"}"#);
    let answer = ask(&mut control, code::GET_CONSUMER_CONNECTION_LIST, &[("consumerGroup", "x")]);
    assert_eq!(outcome(&answer), (206, "the consumer group[x] not online"));
    let answer = ask(&mut control, code::GET_PRODUCER_CONNECTION_LIST, &[("producerGroup", "x")]);
    assert_eq!(outcome(&answer), (1, "the producer group[x] not exist"));
}

/// Goal: entries that did not change are shared between snapshots. Method: a heartbeat of another group in between.
#[test]
fn snapshots_share_entries() {
    let mut control = control();
    send(&mut control, &beat("c1", "g", "CLUSTERING", SAME, ""), 1, 1_000);
    let before = control.snapshot();
    send(&mut control, &beat("c1", "h", "CLUSTERING", SAME, ""), 1, 1_000);
    let after = control.snapshot();
    assert!(Arc::ptr_eq(&before.groups["g"], &after.groups["g"]));
    assert!(Arc::ptr_eq(&before.topics["TBW102"], &after.topics["TBW102"]));
    assert!(!before.groups.contains_key("h") && after.groups.contains_key("h"));
    assert!(!before.topics.contains_key("%RETRY%h") && after.topics.contains_key("%RETRY%h"));
    let queue = ringmq_protocol::bodies::MessageQueue::new("T", "broker-a", 0);
    control.locks.lock("g", "c1", vec![queue], 2_000);
    assert!(before.groups["g"].holds_locks(62_000) && !before.groups["g"].holds_locks(62_001));
}

/// Goal: a connection cannot join more groups than the bound. Method: one heartbeat with one group too many.
#[test]
fn bound_on_groups_per_connection() {
    let mut control = control();
    let bound = super::super::limits::MAX_GROUPS_PER_CONNECTION;
    let groups: Vec<String> = (0..=bound).map(|number| format!(r#"{{"groupName":"p{number}"}}"#)).collect();
    let body = format!(r#"{{"clientID":"c","producerDataSet":[{}]}}"#, groups.join(","));
    assert_eq!(ask_body(&mut control, code::HEART_BEAT, &body).code, 0);
    assert_eq!(control.clients.producer_groups().len(), bound);
}

/// Goal: steps of the wall clock neither remove clients nor move locks, and what is stored or shown follows it. Method: a client
/// that beats and locks, then the wall clock a day ahead, then behind.
#[test]
fn steps_of_the_wall_clock() {
    const DAY_MS: u64 = 86_400_000;
    let mut control = control();
    let store = FakeStore::default();
    let ask = |control: &mut Control, request: &Command, now| match control.handle(
        request,
        &peer(1),
        now,
        &store,
        &mut Vec::new(),
    ) {
        Answer::Now(answer) => answer,
        Answer::LookUp(look_up) => look_up(&store),
        Answer::Nothing => panic!("no answer"),
    };
    let beaten = Now { steady_ms: 5_000, wall_ms: 10 * DAY_MS };
    ask(&mut control, &beat("c1", "g", "CLUSTERING", SAME, ""), beaten);
    assert_eq!(control.topics.version().timestamp, beaten.wall_ms as i64);
    let lock = r#"{"clientId":"c1","consumerGroup":"g","mqSet":[{"brokerName":"broker-a","queueId":0,"topic":"T"}]}"#;
    ask(&mut control, &Command::request(code::LOCK_BATCH_MQ).with_body(lock.as_bytes().to_vec()), beaten);
    let group = Arc::clone(&control.snapshot().groups["g"]);
    assert!(group.holds_locks(65_000) && !group.holds_locks(65_001));
    for (steady_ms, wall_ms) in [(6_000, 11 * DAY_MS), (64_000, 9 * DAY_MS)] {
        let now = Now { steady_ms, wall_ms };
        let mut effects = Vec::new();
        control.tick(now, &mut effects);
        assert!(effects.iter().all(|effect| matches!(effect, Effect::RegisterAll)), "{effects:?}");
        assert!(group.holds_locks(65_000));
        let shown = ask(&mut control, &Command::request(code::GET_ALL_PRODUCER_INFO), now);
        let beaten_at = format!("\"lastUpdateTimestamp\":{}", wall_ms + 5_000 - steady_ms);
        assert!(text(&shown).contains(&beaten_at), "{}", text(&shown));
        let shown = ask(&mut control, &Command::request(code::GET_BROKER_RUNTIME_INFO), now);
        assert!(text(&shown).contains(&format!("\"currentTimeMillis\":\"{wall_ms}\"")), "{}", text(&shown));
    }
}
