//! Held pulls while topics, groups and subscriptions change: on wake and at their time they are what a new request would be.

use std::sync::Arc;

use ringmq::broker::FastMap;
use ringmq::broker::snapshot::{GroupEntry, Subscription};
use ringmq::server::messages::ControlRequest;
use ringmq::server::serving::{Serving, ServingTopic};
use ringmq::server::slab::SlotId;
use ringmq_protocol::bodies::SubscriptionData;
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;
use ringmq_protocol::hash::tags_code;
use ringmq_shards::queue::Queue;
use ringmq_shards::types::QueueId;

use super::world::*;

const HOLD_MS: u64 = 60_000;

/// Gives the shard another picture.
fn change(world: &mut World, queues: &[Arc<Queue>], change: impl FnOnce(&mut Serving)) {
    let mut picture = serving(queues);
    change(Arc::get_mut(&mut picture).expect("nobody else has it"));
    world.core.set_serving(picture);
}

fn topic(serving: &mut Serving) -> &mut ServingTopic {
    serving.topics.get_mut("T").and_then(Arc::get_mut).expect("nobody else has it")
}

fn groups(serving: &mut Serving) -> &mut FastMap<Arc<str>, Arc<GroupEntry>> {
    Arc::get_mut(&mut serving.groups).expect("nobody else has it")
}

fn group<'a>(serving: &'a mut Serving, name: &str) -> &'a mut GroupEntry {
    groups(serving).get_mut(name).and_then(Arc::get_mut).expect("nobody else has it")
}

/// The group `tagged` wants TagB from now on.
fn subscribe_to_tag_b(serving: &mut Serving) {
    let data = SubscriptionData {
        topic: "T".to_owned(),
        sub_string: "TagB".to_owned(),
        code_set: vec![tags_code(b"TagB") as i32],
        tags_set: vec!["TagB".to_owned()],
        sub_version: 1,
        ..SubscriptionData::default()
    };
    let live = group(serving, "tagged").live.as_mut().expect("it is online");
    live.subscriptions.insert("T".to_owned(), Arc::new(Subscription::new(data)));
}

/// A world with one held pull from offset 0 of queue 0.
fn holding(group: &str) -> (World, SlotId, SlotId) {
    let mut world = World::new(Shape::new(Mode::AsyncPageCache));
    let (producer, consumer) = (world.connect(), world.connect());
    world.request(consumer, &pull(7, group, 0, 0, HOLD_MS));
    world.run();
    assert_eq!(world.core.gauges().1, 1, "it is held");
    (world, producer, consumer)
}

fn send_message(world: &mut World, producer: SlotId, body: &[u8], properties: &str) {
    world.request(producer, &send(1, 0, body, properties));
    world.run();
    let answers = world.answers(producer);
    assert_eq!(answers.iter().map(|answer| answer.code).collect::<Vec<_>>(), [response::SUCCESS]);
}

/// The one answer, after which nothing is held.
fn answer(world: &mut World, consumer: SlotId) -> Command {
    let mut answers = world.answers(consumer);
    assert_eq!((answers.len(), world.core.gauges().1), (1, 0), "answered, once");
    let answer = answers.remove(0);
    assert_eq!(answer.opaque, 7);
    answer
}

fn expire(world: &mut World) {
    world.now_ms += HOLD_MS;
    world.run();
}

fn assert_message(answer: &Command, body: &[u8], next: &str) {
    assert_eq!((answer.code, answer.ext("nextBeginOffset")), (response::SUCCESS, Some(next)), "{:?}", answer.remark);
    let records = answer.body.as_deref().expect("a message");
    assert!(records.windows(body.len()).any(|window| window == body));
}

/// Goal: a held pull follows the subscription of its group. Method: TagA becomes TagB; a message with TagB wakes it, one with
/// TagA does not.
#[test]
fn a_wake_sees_the_present_subscription() {
    let (mut world, producer, consumer) = holding("tagged");
    let queues = world.queues.clone();
    change(&mut world, &queues, subscribe_to_tag_b);
    send_message(&mut world, producer, b"old", "TAGS\x01TagA\x02");
    assert!(world.answers(consumer).is_empty());
    send_message(&mut world, producer, b"new", "TAGS\x01TagB\x02");
    assert_message(&answer(&mut world, consumer), b"new", "2");
}

/// Goal: a message that the earlier subscription rejected is not skipped when the present one wants it. Method: it comes before
/// the change; the pull's time runs out.
#[test]
fn an_expiry_reads_again_from_the_start_with_another_subscription() {
    let (mut world, producer, consumer) = holding("tagged");
    send_message(&mut world, producer, b"new", "TAGS\x01TagB\x02");
    assert!(world.answers(consumer).is_empty());
    let queues = world.queues.clone();
    change(&mut world, &queues, subscribe_to_tag_b);
    expire(&mut world);
    assert_message(&answer(&mut world, consumer), b"new", "1");
}

/// Goal: a filter that came with the request stays, and what was looked at is not looked at again. Method: a new picture in which
/// nothing of the pull has changed, before and after a message that it does not want.
#[test]
fn a_picture_without_change_changes_nothing() {
    let (mut world, producer, consumer) = holding("g");
    let by_tag = pull(8, "g", 0, 0, HOLD_MS).with_ext("subscription", "TagA");
    world.request(consumer, &by_tag);
    world.run();
    let queues = world.queues.clone();
    change(&mut world, &queues, subscribe_to_tag_b);
    send_message(&mut world, producer, b"other", "TAGS\x01TagB\x02");
    assert_eq!(world.core.gauges().1, 1, "the one with the filter is still held");
    assert_message(&world.answers(consumer)[0], b"other", "1");
    change(&mut world, &queues, |_| ());
    expire(&mut world);
    let answers = world.answers(consumer);
    assert_eq!((answers.len(), answers[0].opaque, answers[0].code), (1, 8, response::PULL_RETRY_IMMEDIATELY));
    assert_eq!(answers[0].ext("nextBeginOffset"), Some("1"));
}

/// Goal: consumers of a deleted topic hear of it at once. Method: its queues are retired and it is not in the picture.
#[test]
fn a_deleted_topic_releases_its_pulls() {
    let (mut world, _, consumer) = holding("g");
    world.store.remove_topic("T");
    change(&mut world, &[], |serving| serving.topics.clear());
    world.turn();
    assert_eq!(answer(&mut world, consumer).code, response::TOPIC_NOT_EXIST);
}

/// Goal: a topic whose deletion is not complete is none at the pull's time. Method: it is not in the picture, its queues live.
#[test]
fn an_expiry_sees_that_the_topic_is_gone() {
    let (mut world, _, consumer) = holding("g");
    change(&mut world, &[], |serving| serving.topics.clear());
    world.run();
    assert!(world.answers(consumer).is_empty());
    expire(&mut world);
    assert_eq!(answer(&mut world, consumer).code, response::TOPIC_NOT_EXIST);
}

/// A world with one held pull behind the only message of queue 0.
fn holding_at_the_end() -> (World, SlotId, SlotId) {
    let (mut world, producer, consumer) = holding("g");
    send_message(&mut world, producer, b"first", "");
    assert_message(&answer(&mut world, consumer), b"first", "1");
    world.request(consumer, &pull(7, "g", 0, 1, HOLD_MS));
    world.run();
    assert_eq!(world.core.gauges().1, 1, "it is held");
    (world, producer, consumer)
}

/// Goal: a pull that was held on the queue of a deleted topic sees the one of its successor at once. Method: both changes in one
/// picture, so that the topic is never missing; then the consumer waits for the successor's first message.
#[test]
fn a_recreated_topic_releases_its_pulls() {
    let (mut world, producer, consumer) = holding_at_the_end();
    world.store.remove_topic("T");
    let create = |id| world.store.get_or_create("T", QueueId(id)).expect("made");
    let queues: Vec<_> = (0..QUEUES).map(create).collect();
    change(&mut world, &queues, |_| ());
    world.turn();
    let moved = answer(&mut world, consumer);
    assert_eq!((moved.code, moved.ext("maxOffset")), (response::PULL_OFFSET_MOVED, Some("0")));
    world.request(consumer, &pull(7, "g", 0, 0, HOLD_MS));
    world.run();
    send_message(&mut world, producer, b"successor", "");
    assert_message(&answer(&mut world, consumer), b"successor", "1");
}

/// Goal: a pull reads the queue that its topic has at the end of its time. Method: a picture with other queues, while nobody has
/// retired the former ones.
#[test]
fn an_expiry_reads_the_present_queue() {
    let (mut world, _, consumer) = holding_at_the_end();
    let others = World::new(Shape::new(Mode::AsyncPageCache)).queues;
    change(&mut world, &others, |_| ());
    world.run();
    assert!(world.answers(consumer).is_empty());
    expire(&mut world);
    let moved = answer(&mut world, consumer);
    assert_eq!((moved.code, moved.ext("maxOffset")), (response::PULL_OFFSET_MOVED, Some("0")));
}

/// Goal: who may not read any more gets nothing more, and hears what a new request would. Method: permissions of the broker, the
/// topic and the group, the number of queues, the subscription; on wake and at the pull's time.
#[test]
fn lost_permissions_count_for_held_pulls() {
    type Change = fn(&mut Serving);
    let changes: [(&str, Change, i32, Option<&str>); 6] = [
        ("g", |serving| serving.broker_permission = 2, response::NO_PERMISSION, Some("1")),
        ("g", |serving| topic(serving).permission = 2, response::NO_PERMISSION, Some("3")),
        ("g", |serving| topic(serving).read_queues = 0, response::INVALID_PARAMETER, None),
        (
            "g",
            |serving| {
                let group = group(serving, "g");
                Arc::make_mut(&mut group.config).consume_enable = false;
            },
            response::NO_PERMISSION,
            Some("2"),
        ),
        ("tagged", |serving| group(serving, "tagged").live = None, response::SUBSCRIPTION_NOT_EXIST, None),
        // Its next request makes the group again.
        ("g", |serving| drop(groups(serving).remove("g")), response::PULL_RETRY_IMMEDIATELY, None),
    ];
    for (name, lose, code, forbidden_type) in changes {
        for by_wake in [true, false] {
            let (mut world, producer, consumer) = holding(name);
            let queues = world.queues.clone();
            change(&mut world, &queues, |serving| {
                lose(serving);
                // Sends go on.
                serving.broker_permission |= 2;
            });
            world.run();
            if by_wake {
                send_message(&mut world, producer, b"secret", "TAGS\x01TagA\x02");
            } else {
                expire(&mut world);
            }
            let refused = answer(&mut world, consumer);
            assert_eq!((refused.code, refused.ext("forbiddenType")), (code, forbidden_type), "{:?}", refused.remark);
            assert!(refused.body.is_none());
            if code == response::PULL_RETRY_IMMEDIATELY {
                assert_eq!(refused.ext("nextBeginOffset"), Some("0"));
            }
        }
    }
}

/// Goal: who waited longest is answered first. Method: pulls of several connections on one queue, in an order that is not that of
/// the connections; one goes away; a message wakes the others.
#[test]
fn held_pulls_are_answered_in_the_order_in_which_they_came() {
    let mut world = World::new(Shape::new(Mode::AsyncPageCache));
    let producer = world.connect();
    let consumers: Vec<SlotId> = (0..6).map(|_| world.connect()).collect();
    let order = [3, 0, 5, 1, 4, 2];
    for (number, consumer) in order.into_iter().enumerate() {
        world.request(consumers[consumer], &pull(number as i32, "g", 0, 0, HOLD_MS));
        world.turn();
    }
    // A second one of a connection that came early, behind all others.
    world.request(consumers[3], &pull(6, "g", 0, 0, HOLD_MS));
    world.turn();
    world.close(consumers[5]);
    world.sent_to.clear();
    world.request(producer, &send(1, 0, b"for all", ""));
    world.run();
    let mut sent_to = world.sent_to.clone();
    sent_to.retain(|client| *client != producer);
    sent_to.dedup();
    assert_eq!(sent_to, [3, 0, 1, 4, 2].map(|consumer| consumers[consumer]));
    let answers = world.answers(consumers[3]);
    assert_eq!(answers.iter().map(|answer| (answer.opaque, answer.code)).collect::<Vec<_>>(), [(0, 0), (6, 0)]);
}

/// Goal: a pull that lacks a topic or a newer subscription is refused only after the control thread has seen it, behind which the
/// newest picture comes. Method: the control thread's part is played here, without a new picture.
#[test]
fn a_pull_is_not_refused_by_an_old_picture() {
    let mut world = World::new(Shape::new(Mode::ALL[0]));
    let client = world.connect();
    let newer = pull(1, "tagged", 0, 0, 0).with_ext("sysFlag", 0).with_ext("subVersion", 5);
    let nowhere = pull(2, "tagged", 0, 0, 0).with_ext("topic", "nowhere");
    for (request, code) in [(newer, response::SUBSCRIPTION_NOT_LATEST), (nowhere, response::TOPIC_NOT_EXIST)] {
        let _others: Vec<ControlRequest> = world.control.try_iter().collect();
        world.request(client, &request);
        world.run();
        assert!(world.answers(client).is_empty());
        let asked: Vec<ControlRequest> = world.control.try_iter().collect();
        let [ControlRequest::CreateGroup { frame, answers, .. }] = asked.as_slice() else { panic!("not asked once") };
        assert!(world.core.again(client, frame, *answers));
        world.run();
        assert_eq!(world.answers(client).iter().map(|answer| answer.code).collect::<Vec<_>>(), [code]);
        assert!(world.control.try_recv().is_err(), "asked again");
    }
}
