//! Nothing is answered, delivered or shown before the disk holds it as safely as the mode promises.

use ringmq_protocol::codes::response;
use ringmq_shards::log::writer::PlantedBug;

use super::world::*;

fn ensure(condition: bool, what: &str) -> Result<(), String> {
    if condition { Ok(()) } else { Err(what.to_owned()) }
}

/// Two producers, one consumer that waits, one that asks again and again; the write is held, then the sync behind it. The first
/// broken promise ends it.
fn scenario(mode: Mode, bug: Option<PlantedBug>) -> Result<(), String> {
    let mut world = World::new(Shape::new(mode));
    if let Some(bug) = bug {
        world.writer().plant(bug);
    }
    let (first, second, waiting, asking) = (world.connect(), world.connect(), world.connect(), world.connect());
    world.request(waiting, &pull(100, "g", 0, 0, 60_000));
    world.run();
    ensure(world.core.gauges().1 == 1, "the pull is held")?;

    world.hold_writes = true;
    world.hold_syncs = mode == Mode::SyncSeparate;
    world.request(first, &send(1, 0, b"one", "TAGS\x01TagA\x02"));
    world.request(second, &as_binary(send(2, 1, b"two", "")));
    world.request(first, &send_batch(3, 0, &[b"three", b"four"]));
    // Nothing moves, however often the loop turns.
    let silence = |world: &mut World| -> Result<(), String> {
        for _ in 0..3 {
            ensure(world.turn().is_empty(), "a connection broke")?;
            for client in [first, second, waiting, asking] {
                let answers = world.answers(client);
                if let Some(broken) = world.broken_promise(&answers) {
                    return Err(broken);
                }
                ensure(answers.is_empty(), "an answer came too early")?;
            }
            ensure(world.core.gauges().1 == 1, "the held pull was woken too early")?;
            for queue in &world.queues {
                ensure(queue.bounds().1.0 == 0, "a queue has grown too early")?;
            }
        }
        world.request(asking, &pull(7, "g", 0, 0, 0));
        world.turn();
        let answers = world.answers(asking);
        ensure(answers.len() == 1, "a pull that does not wait is answered")?;
        let seen = (answers[0].code, answers[0].ext("maxOffset"), answers[0].body.is_none());
        ensure(seen == (response::PULL_NOT_FOUND, Some("0"), true), "a pull saw too much")
    };
    silence(&mut world)?;
    // A second group gathers behind the one in flight.
    world.request(second, &send(4, 0, b"five", ""));
    silence(&mut world)?;
    world.hold_writes = false;
    if mode == Mode::SyncSeparate {
        // The writes complete now; the sync, submitted after the first of them, is held.
        silence(&mut world)?;
        world.hold_syncs = false;
    }
    let mut seen: Vec<(usize, i32, i32)> = Vec::new();
    let mut delivered = 0;
    for _ in 0..8 {
        ensure(world.turn().is_empty(), "a connection broke")?;
        for (number, client) in [first, second, waiting].into_iter().enumerate() {
            let answers = world.answers(client);
            if let Some(broken) = world.broken_promise(&answers) {
                return Err(broken);
            }
            for answer in answers {
                delivered += answer.body.as_ref().map_or(0, Vec::len);
                seen.push((number, answer.opaque, answer.code));
            }
        }
    }
    let of = |number: usize| {
        seen.iter()
            .filter(move |(who, ..)| *who == number)
            .map(|(_, opaque, code)| (*opaque, *code))
            .collect::<Vec<_>>()
    };
    ensure(of(0) == [(1, 0), (3, 0)], "the first producer is answered once, in order")?;
    ensure(of(1) == [(2, 0), (4, 0)], "the second producer is answered once, in order")?;
    ensure(of(2) == [(100, 0)], "the waiting pull is answered once, with messages")?;
    ensure(delivered > 0 && world.core.gauges() == (4, 0, 0), "nothing is left over")?;
    ensure(world.queues[0].bounds().1.0 == 4 && world.queues[1].bounds().1.0 == 1, "all messages are shown")
}

/// Goal: the rule, in each mode. Method: the scenario.
#[test]
fn nothing_is_promised_before_it_is_safe() {
    for mode in Mode::ALL {
        scenario(mode, None).unwrap_or_else(|broken| panic!("{mode:?}: {broken}"));
    }
}

/// Goal: the scenario notices an acknowledgement before the completion. Method: plant it, in each mode.
#[test]
fn an_acknowledgement_before_the_write_is_noticed() {
    for mode in Mode::ALL {
        let broken = scenario(mode, Some(PlantedBug::AcknowledgeUnwritten)).unwrap_err();
        assert!(broken.contains("confirmed"), "{mode:?}: {broken}");
    }
}

/// Goal: the scenario notices an acknowledgement without the sync. Method: plant it.
#[test]
fn an_acknowledgement_before_the_sync_is_noticed() {
    let broken = scenario(Mode::SyncSeparate, Some(PlantedBug::AcknowledgeUnsynced)).unwrap_err();
    assert!(broken.contains("confirmed"), "{broken}");
}

/// Goal: the scenario notices a sync that was submitted before the write had completed. Method: plant it.
#[test]
fn a_sync_before_the_write_is_noticed() {
    let broken = scenario(Mode::SyncSeparate, Some(PlantedBug::SyncClaimsWriteInFlight)).unwrap_err();
    assert!(broken.contains("confirmed") || broken.contains("too early"), "{broken}");
}

/// Goal: the scenario notices a wake-up (and a queue that grows) before the message is confirmed. Method: plant it, in each mode.
#[test]
fn a_wake_up_before_the_confirmation_is_noticed() {
    for mode in Mode::ALL {
        let broken = scenario(mode, Some(PlantedBug::PublishUnconfirmed)).unwrap_err();
        assert!(broken.contains("queue 0 shows"), "{mode:?}: {broken}");
    }
}

/// Goal: a message that does not wait for the sync is answered at the write, and nobody sees it before the sync. Method: `WAIT`.
#[test]
fn a_message_that_does_not_wait() {
    let mut world = World::new(Shape::new(Mode::SyncSeparate));
    let (producer, consumer) = (world.connect(), world.connect());
    world.request(consumer, &pull(9, "g", 2, 0, 60_000));
    (world.hold_writes, world.hold_syncs) = (true, true);
    world.request(producer, &send(1, 2, b"quick", "WAIT\x01false\x02"));
    world.request(producer, &send(2, 2, b"slow", ""));
    world.run();
    assert_eq!(world.has_received(producer), 0);
    world.hold_writes = false;
    world.run();
    let answers = world.answers(producer);
    assert_eq!(answers.iter().map(|answer| (answer.opaque, answer.code)).collect::<Vec<_>>(), [(1, 0)]);
    assert_eq!((world.queues[2].bounds().1.0, world.core.gauges().1), (0, 1));
    world.hold_syncs = false;
    world.run();
    assert_eq!(world.answers(producer).len(), 1);
    let pulled = world.answers(consumer);
    assert_eq!(world.broken_promise(&pulled), None);
    assert_eq!((pulled.len(), world.queues[2].bounds().1.0), (1, 2));
}

/// Goal: a sync that is late is told with code 10, once; what comes later is not a second answer. Method: hold it past the limit.
#[test]
fn a_late_sync_is_answered_once() {
    let mut world = World::new(Shape::new(Mode::SyncSeparate));
    let producer = world.connect();
    world.hold_syncs = true;
    world.request(producer, &send(1, 0, b"late", ""));
    world.run();
    assert_eq!(world.has_received(producer), 0);
    world.now_ms += 5_000;
    world.run();
    let answers = world.answers(producer);
    assert_eq!((answers.len(), answers[0].code), (1, response::FLUSH_DISK_TIMEOUT));
    // The slot of the first request is free again; its late confirmation must not reach the new occupant.
    world.request(producer, &send(2, 0, b"next", ""));
    world.run();
    assert_eq!(world.has_received(producer), 0);
    world.hold_syncs = false;
    world.run();
    let answers = world.answers(producer);
    assert_eq!(answers.iter().map(|answer| (answer.opaque, answer.code)).collect::<Vec<_>>(), [(2, 0)]);
    assert_eq!(world.queues[0].bounds().1.0, 2);
}

/// Goal: when the log fails every sender hears of it and nothing unconfirmed is shown; new sends are refused; reads go on. Method:
/// fail with one group confirmed and one in flight.
#[test]
fn a_failed_log_answers_everybody() {
    let mut world = World::new(Shape::new(Mode::SyncSeparate));
    let producer = world.connect();
    world.request(producer, &send(1, 0, b"safe", ""));
    world.run();
    world.hold_syncs = true;
    world.request(producer, &send(2, 0, b"lost", ""));
    world.request(producer, &send(3, 1, b"lost", ""));
    world.run();
    world.fail_log();
    world.request(producer, &send(4, 0, b"late", ""));
    world.request(producer, &pull(5, "g", 0, 0, 0));
    world.run();
    let answers = world.answers(producer);
    assert_eq!(world.broken_promise(&answers), None);
    let codes: Vec<_> = answers.iter().map(|answer| (answer.opaque, answer.code)).collect();
    let error = response::SYSTEM_ERROR;
    assert_eq!(codes, [(1, 0), (2, error), (3, error), (4, error), (5, 0)]);
    assert_eq!(answers[4].ext("maxOffset"), Some("1"));
}

/// Goal: a held pull with a tag filter is woken by the first message that passes, even behind more others than one read looks at,
/// all confirmed at once. Method: 1,000 messages with another tag, then one with the right one, in one held group.
#[test]
fn a_match_behind_many_others_wakes_a_held_pull() {
    let mut world = World::new(Shape { segment_bytes: 1 << 20, ring_bytes: 4 << 20, ..Shape::new(Mode::AsyncDirect) });
    let (producer, consumer) = (world.connect(), world.connect());
    world.request(consumer, &pull(1, "tagged", 0, 0, 60_000));
    world.run();
    world.hold_writes = true;
    for number in 0..1_000 {
        world.request(producer, &send(number, 0, b"x", "TAGS\x01Other\x02"));
    }
    world.request(producer, &send(1_000, 0, b"match", "TAGS\x01TagA\x02"));
    world.run();
    assert_eq!(world.has_received(consumer), 0);
    world.hold_writes = false;
    world.run();
    let answers = world.answers(consumer);
    assert_eq!((answers.len(), answers[0].code, answers[0].ext("nextBeginOffset")), (1, 0, Some("1001")));
}

/// Goal: while memory is short, who has not taken an answer gets no second one: pulls wait in their connection's input, held ones are
/// told to come again, and a long message is refused; nothing is lost. Method: others use up the budget; two held pulls and two
/// others of one connection, a message each, and a long one.
#[test]
fn answers_wait_for_memory() {
    let mut world = World::new(Shape::new(Mode::ALL[0]));
    let (sender, consumer) = (world.connect(), world.connect());
    for opaque in 1..=2 {
        world.request(consumer, &pull(opaque, "g", 0, 0, 60_000));
    }
    world.run();
    let budget = world.shared.buffers.limit();
    world.shared.buffers.publish(0, budget);
    let codes = |world: &mut World| -> Vec<(i32, i32)> {
        world.answers(consumer).iter().map(|answer| (answer.opaque, answer.code)).collect()
    };
    world.request(sender, &send(9, 0, b"body", ""));
    world.run();
    let (found, come_again) = (0, response::PULL_RETRY_IMMEDIATELY);
    assert_eq!(codes(&mut world), [(1, found), (2, come_again)]);

    let both = [pull(3, "g", 0, 0, 0).encode(), pull(4, "g", 0, 0, 0).encode()].concat();
    assert!(world.core.received(consumer, &both));
    assert_eq!(world.core.counters().pulls_found, 2, "the second one waits until the first answer is taken");
    world.run();
    assert_eq!(codes(&mut world), [(3, found), (4, found)]);

    world.request(sender, &send(9, 1, &[b'x'; 40_000], ""));
    world.run();
    world.request(consumer, &pull(5, "g", 1, 0, 0));
    world.run();
    assert_eq!(codes(&mut world), [(5, response::SYSTEM_BUSY)]);
    world.shared.buffers.publish(budget, 0);
    world.run();
    world.request(consumer, &pull(6, "g", 1, 0, 0));
    world.run();
    assert_eq!(codes(&mut world), [(6, found)]);
}
