//! Groups: heartbeats, members, notices, committed offsets.

use ringmq::client::requests::{self, PullRequest};
use ringmq::client::{Client, Connection, Message};
use ringmq_protocol::bodies::{
    ConsumeFromWhere, ConsumeType, ConsumerData, GetConsumerListByGroupResponseBody, HeartbeatData, JsonBody,
    MessageModel, SubscriptionData,
};
use ringmq_protocol::codes::request::NOTIFY_CONSUMER_IDS_CHANGED;
use ringmq_protocol::codes::response;
use ringmq_protocol::hash::java_hash;

use super::broker::{PATIENCE, Store, wait_for};

/// `tag` is one tag, or `*`.
pub(super) fn heartbeat(client_id: &str, group: &str, topic: &str, tag: &str) -> HeartbeatData {
    let tags: Vec<String> = Some(tag.to_owned()).filter(|tag| tag != "*").into_iter().collect();
    let subscription = SubscriptionData {
        topic: topic.into(),
        sub_string: tag.into(),
        code_set: tags.iter().map(|tag| java_hash(tag)).collect(),
        tags_set: tags,
        sub_version: 1,
        ..SubscriptionData::default()
    };
    HeartbeatData {
        client_id: client_id.into(),
        consumer_data_set: vec![ConsumerData {
            consume_from_where: Some(ConsumeFromWhere::FirstOffset),
            consume_type: Some(ConsumeType::Passively),
            group_name: group.into(),
            message_model: Some(MessageModel::Clustering),
            subscription_data_set: vec![subscription],
            unit_mode: false,
        }],
        ..HeartbeatData::default()
    }
}

fn members(connection: &mut Connection, group: &str) -> Option<Vec<String>> {
    let answer = connection.call(requests::consumer_list(group)).expect("an answer");
    let body = answer.body?;
    let mut ids = GetConsumerListByGroupResponseBody::decode(&body).expect("a list").consumer_id_list;
    ids.sort_unstable();
    Some(ids)
}

#[test]
fn members_come_and_go() {
    // Goal: a group's list follows heartbeats, leaving and lost connections, and members are told. Method: two
    // connections join; the first is told; one leaves by request, the other by closing.
    let mut store = Store::new();
    let broker = store.start(&["shards=2"]);
    broker.topic("members", 1);
    let mut watcher = broker.connection();
    assert_eq!(members(&mut watcher, "wire"), None);
    let mut first = broker.connection();
    let answer = first.call_ok(requests::heartbeat(&heartbeat("first", "wire", "members", "*"))).expect("accepted");
    assert_eq!(answer.ext("IS_SUPPORT_HEART_BEAT_V2"), Some("true"));
    assert!(answer.version >= 232, "clients look at the version");
    assert_eq!(members(&mut watcher, "wire"), Some(vec!["first".into()]));
    first.take_peer_requests();
    let mut second = broker.connection();
    second.call_ok(requests::heartbeat(&heartbeat("second", "wire", "members", "*"))).expect("accepted");
    assert_eq!(members(&mut watcher, "wire"), Some(vec!["first".into(), "second".into()]));
    wait_for("the notice", || {
        first.call_ok(requests::max_offset("members", 0)).expect("an answer");
        let notices = first.take_peer_requests();
        notices
            .iter()
            .any(|notice| {
                notice.code == NOTIFY_CONSUMER_IDS_CHANGED
                    && notice.ext("consumerGroup") == Some("wire")
                    && notice.is_oneway()
            })
            .then_some(())
    });
    first.call_ok(requests::unregister("first", "wire")).expect("accepted");
    assert_eq!(members(&mut watcher, "wire"), Some(vec!["second".into()]));
    drop(second);
    wait_for("the empty group", || members(&mut watcher, "wire").is_none().then_some(()));
}

#[test]
fn a_heartbeat_brings_its_subscription() {
    // Goal: a pull without an expression uses the one of the heartbeat. Method: subscribe to one tag, then pull without
    // saying it.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("subscribed", 1);
    let mut client = broker.client();
    let queue = broker.queue("subscribed", 0);
    for tag in ["red", "green"] {
        client.send_to(&queue, &Message::new(tag).with_tag(tag)).expect("stored");
    }
    let mut connection = broker.connection();
    connection.call_ok(requests::heartbeat(&heartbeat("c", "wire", "subscribed", "green"))).expect("accepted");
    let wanted = PullRequest::new("wire", "subscribed", 0, 0);
    let pull = |version: i64| requests::pull(&wanted).with_ext("sysFlag", 0).with_ext("subVersion", version);
    let answer = connection.call_ok(pull(1)).expect("found");
    let pulled = ringmq::client::PullAnswer::decode(answer).expect("complete").expect("no refusal");
    let bodies: Vec<_> = pulled.messages().map(|message| message.expect("whole").body().to_vec()).collect();
    assert_eq!(bodies, [b"green"]);
    let newer = connection.call(pull(2)).expect("an answer");
    assert_eq!(newer.code, response::SUBSCRIPTION_NOT_LATEST);
}

#[test]
fn a_held_pull_follows_the_subscription_of_its_group() {
    // Goal: a consumer that changes its tags while it waits gets what it wants now, also what came before the change. Method:
    // a message with the new tag, the heartbeat that asks for it, and one more message.
    let mut store = Store::new();
    let broker = store.start(&["shards=2"]);
    broker.topic("changed", 1);
    let mut client = broker.client();
    let queue = broker.queue("changed", 0);
    let mut connection = broker.connection();
    let mut data = heartbeat("c", "wire", "changed", "green");
    connection.call_ok(requests::heartbeat(&data)).expect("accepted");
    let hold_ms = 2 * u64::try_from(PATIENCE.as_millis()).expect("small");
    let wanted = PullRequest { hold_ms, ..PullRequest::new("wire", "changed", 0, 0) };
    // Held, with the version of the first heartbeat and without an expression.
    let pull = requests::pull(&wanted).with_ext("sysFlag", 2).with_ext("subVersion", 1);
    let ticket = connection.submit(pull).expect("written");
    connection.call_ok(requests::max_offset("changed", 0)).expect("an answer");
    client.send_to(&queue, &Message::new("early").with_tag("red")).expect("stored");
    data.consumer_data_set[0].subscription_data_set =
        heartbeat("c", "wire", "changed", "red").consumer_data_set.remove(0).subscription_data_set;
    data.consumer_data_set[0].subscription_data_set[0].sub_version = 2;
    connection.call_ok(requests::heartbeat(&data)).expect("accepted");
    client.send_to(&queue, &Message::new("late").with_tag("red")).expect("stored");
    let answer = connection.wait(ticket, PATIENCE).expect("woken in time");
    let pulled = ringmq::client::PullAnswer::decode(answer).expect("complete").expect("no refusal");
    let bodies: Vec<_> = pulled.messages().map(|message| message.expect("whole").body().to_vec()).collect();
    assert_eq!((bodies, pulled.next_offset), (vec![b"early".to_vec(), b"late".to_vec()], 2));
}

#[test]
fn offsets_are_committed_and_found_again() {
    // Goal: a group's offsets are kept, per queue and group. Method: commit by request and along with a pull; ask, also
    // for groups and queues without any.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("offsets", 2);
    let mut client: Client = broker.client();
    let queue = broker.queue("offsets", 0);
    for number in 0..5 {
        client.send_to(&queue, &Message::new(format!("{number}"))).expect("stored");
    }
    let unknown = client.commit_offset("wire", &queue, 3).expect_err("no such group yet");
    assert_eq!(unknown.code(), Some(response::SUBSCRIPTION_GROUP_NOT_EXIST), "{unknown}");
    client.heartbeat(&broker.address(), &heartbeat("", "wire", "offsets", "*")).expect("accepted");
    assert_eq!(client.query_offset("wire", &queue).expect("an answer"), None);
    client.commit_offset("wire", &queue, 3).expect("committed");
    assert_eq!(client.query_offset("wire", &queue).expect("an answer"), Some(3));
    client.commit_offset("wire", &queue, 2).expect("an earlier one is taken as well");
    assert_eq!(client.query_offset("wire", &queue).expect("an answer"), Some(2));
    let wanted = PullRequest { max_messages: 1, commit_offset: Some(4), ..PullRequest::new("wire", "offsets", 0, 4) };
    client.pull_with(&broker.address(), &wanted).expect("an answer");
    wait_for("the offset that came with a pull", || {
        (client.query_offset("wire", &queue).expect("an answer") == Some(4)).then_some(())
    });
    assert_eq!(client.query_offset("wire", &broker.queue("offsets", 1)).expect("an answer"), None);
    assert_eq!(client.query_offset("other", &queue).expect("an answer"), None);
    let nowhere = client.commit_offset("wire", &broker.queue("nowhere", 0), 1).expect_err("no such topic");
    assert_eq!(nowhere.code(), Some(response::TOPIC_NOT_EXIST), "{nowhere}");
}

#[test]
fn groups_may_have_long_names() {
    // Goal: a group with the longest name that its retry topic allows consumes and keeps its offsets, also after a restart. Method: a
    // heartbeat, a pull and a commit; ask on both sides of a restart.
    let group = "g".repeat(248);
    let mut store = Store::new();
    let mut broker = store.start(&[]);
    broker.topic("long", 1);
    broker.client().send_to(&broker.queue("long", 0), &Message::new("first")).expect("stored");
    for round in 0..2 {
        let mut client = broker.client();
        client.heartbeat(&broker.address(), &heartbeat("", &group, "long", "*")).expect("accepted");
        let queue = broker.queue("long", 0);
        let expected = (round > 0).then_some(1);
        assert_eq!(client.query_offset(&group, &queue).expect("an answer"), expected);
        let wanted = PullRequest { max_messages: 1, ..PullRequest::new(&group, "long", 0, 0) };
        assert_eq!(client.pull_with(&broker.address(), &wanted).expect("found").messages().count(), 1);
        client.commit_offset(&group, &queue, 1).expect("committed");
        broker.stop(&[]);
        broker = store.start(&[]);
    }
}
