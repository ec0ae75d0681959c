//! What a client was told is done holds for requests on connections of other shards.

use ringmq::client::requests::{self, PullRequest};
use ringmq::client::{Connection, Message};
use ringmq_protocol::codes::request::{DELETE_SUBSCRIPTIONGROUP, DELETE_TOPIC_IN_BROKER};
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;

use super::broker::{Broker, Store};
use super::consumers::heartbeat;

/// Connections are dealt to the two shards in turn.
fn connections(broker: &Broker) -> [Connection; 2] {
    [broker.connection(), broker.connection()]
}

fn commit_by_pull(connection: &mut Connection, topic: &str, offset: i64) {
    let wanted = PullRequest { max_messages: 1, commit_offset: Some(offset), ..PullRequest::new("wire", topic, 0, 1) };
    connection.call(requests::pull(&wanted)).expect("an answer");
}

fn committed(connection: &mut Connection, topic: &str) -> Option<String> {
    let query = requests::query_offset("wire", topic, 0).with_ext("setZeroIfNotFound", false);
    let answer = connection.call(query).expect("an answer");
    assert!([0, response::QUERY_NOT_FOUND].contains(&answer.code), "{answer:?}");
    answer.ext("offset").map(str::to_owned)
}

#[test]
fn what_a_pull_carried_counts_before_later_requests() {
    // Goal: an offset that came with a pull is seen as soon as the pull is answered, overwrites nothing that was confirmed
    // later, and does not outlive its topic and group. Method: pulls on each shard; commits, queries and deletions on the other
    // right after; queries at once and after another pull of the group has passed the same way.
    let mut store = Store::new();
    let broker = store.start(&["shards=2"]);
    broker.topic("carried", 1);
    broker.topic("passing", 1);
    broker.client().send_to(&broker.queue("carried", 0), &Message::new("first")).expect("stored");
    let [mut one, mut two] = connections(&broker);
    for round in 1..=20 {
        let (pulling, asking) = if round % 2 == 0 { (&mut one, &mut two) } else { (&mut two, &mut one) };
        let (old, new) = (round * 10, round * 10 + 5);
        commit_by_pull(pulling, "carried", old);
        assert_eq!(committed(asking, "carried"), Some(old.to_string()), "round {round}");
        commit_by_pull(pulling, "carried", old + 1);
        asking.call_ok(requests::commit_offset("wire", "carried", 0, new)).expect("committed");
        // Were the carried offset still on its way, it would come with this one.
        commit_by_pull(pulling, "passing", round);
        assert_eq!(committed(asking, "passing"), Some(round.to_string()));
        assert_eq!(committed(asking, "carried"), Some(new.to_string()), "round {round}");
        // Of pulls on two connections the later one counts.
        commit_by_pull(pulling, "carried", old + 6);
        commit_by_pull(asking, "carried", old + 7);
        assert_eq!(committed(pulling, "carried"), Some((old + 7).to_string()), "round {round}");

        commit_by_pull(pulling, "carried", 9);
        let delete =
            Command::request(DELETE_SUBSCRIPTIONGROUP).with_ext("groupName", "wire").with_ext("cleanOffset", true);
        asking.call_ok(delete).expect("deleted");
        assert_eq!(committed(asking, "carried"), None);
        commit_by_pull(pulling, "passing", round);
        assert_eq!(committed(asking, "passing"), Some(round.to_string()));
        assert_eq!(committed(asking, "carried"), None, "round {round}");

        commit_by_pull(pulling, "carried", 9);
        asking.call_ok(Command::request(DELETE_TOPIC_IN_BROKER).with_ext("topic", "carried")).expect("deleted");
        asking.call_ok(requests::create_topic("carried", 1)).expect("made anew");
        commit_by_pull(pulling, "passing", round + 1);
        assert_eq!(committed(asking, "passing"), Some((round + 1).to_string()));
        assert_eq!(committed(asking, "carried"), None, "round {round}");
    }
}

#[test]
fn a_heartbeat_counts_for_pulls_of_other_shards() {
    // Goal: once a heartbeat is answered, a pull with its subscription is served whatever connection it comes on; likewise a new
    // topic. Method: many new subscriptions, each with a pull on the other shard right after.
    let mut store = Store::new();
    let broker = store.start(&["shards=2"]);
    broker.topic("heard", 1);
    let [mut one, mut two] = connections(&broker);
    let wanted = PullRequest { max_messages: 1, ..PullRequest::new("wire", "heard", 0, 0) };
    for version in 1..=1_500 {
        let (told, pulling) = if version % 2 == 0 { (&mut one, &mut two) } else { (&mut two, &mut one) };
        let mut data = heartbeat("c", "wire", "heard", "*");
        data.consumer_data_set[0].subscription_data_set[0].sub_version = version;
        told.call_ok(requests::heartbeat(&data)).expect("accepted");
        let pull = requests::pull(&wanted).with_ext("sysFlag", 0).with_ext("subVersion", version);
        let answer = pulling.call(pull).expect("an answer");
        assert_eq!(answer.code, response::PULL_NOT_FOUND, "version {version}: {:?}", answer.remark);
    }
    // What really does not exist is refused.
    for (topic, version, code) in [
        ("heard", 1_501, response::SUBSCRIPTION_NOT_LATEST),
        ("unheard", 1, response::TOPIC_NOT_EXIST),
        ("passing", 1, response::SUBSCRIPTION_NOT_EXIST),
    ] {
        if code == response::SUBSCRIPTION_NOT_EXIST {
            one.call_ok(requests::create_topic(topic, 1)).expect("made");
        }
        let pull = PullRequest { topic, ..wanted };
        let pull = requests::pull(&pull).with_ext("sysFlag", 0).with_ext("subVersion", version);
        assert_eq!(two.call(pull).expect("an answer").code, code);
    }
}

#[test]
fn a_oneway_pull_commits_and_gets_no_answer() {
    // Goal: nothing is sent for a oneway pull, found or not, and what it carried counts. Method: oneway pulls, then requests whose
    // answers are the next that come.
    let mut store = Store::new();
    let broker = store.start(&["shards=2"]);
    broker.topic("oneway", 1);
    broker.client().send_to(&broker.queue("oneway", 0), &Message::new("first")).expect("stored");
    let mut connection = broker.connection();
    // The group comes with its first pull.
    commit_by_pull(&mut connection, "oneway", 1);
    for offset in [0, 1] {
        let wanted = PullRequest {
            max_messages: 1,
            commit_offset: Some(7 + offset),
            ..PullRequest::new("wire", "oneway", 0, offset)
        };
        connection.oneway(requests::pull(&wanted)).expect("written");
    }
    // One request sent behind them is answered by the shard itself, so the shard has dealt with them.
    commit_by_pull(&mut connection, "passing", 1);
    assert_eq!(committed(&mut connection, "oneway").as_deref(), Some("8"));
    assert_eq!(connection.stray_answers(), 0);
}
