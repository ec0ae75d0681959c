//! Pulls take no more memory and no more of a turn than they may, however many are held, and whatever they ask for.

use ringmq::server::cold::{BufferPool, ColdAnswer};
use ringmq::server::connection::connection_slot;
use ringmq::server::limits;
use ringmq::server::shared::PUBLISH_STEP_BYTES;
use ringmq::server::slab::SlotId;
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;

use super::world::*;

/// Most answers to held pulls in one turn.
const ANSWERS_PER_TURN: usize = limits::HELD_ENTRIES_PER_TURN / limits::ENTRIES_PER_PULL;

fn large(in_flight_bytes: usize) -> World {
    let shape = Shape::new(Mode::AsyncPageCache);
    World::new(Shape { segment_bytes: 16 << 20, ring_bytes: 16 << 20, in_flight_bytes, ..shape })
}

/// Pulls with ascending numbers that wait for the first message of a queue.
fn hold(world: &mut World, consumer: SlotId, group: &str, queue_id: u32, count: usize) {
    for number in 0..count {
        world.request(consumer, &pull(number as i32, group, queue_id, 0, 60_000));
    }
    world.turn();
}

/// Puts messages into queue 0.
fn fill(world: &mut World, producer: SlotId, count: usize, properties: &str) {
    for number in 0..count {
        world.request(producer, &send(number as i32, 0, b"x", properties));
        if number % 500 == 0 {
            world.turn();
        }
    }
    world.run();
    assert_eq!(world.answers(producer).len(), count);
}

fn opaques(answers: &[Command]) -> Vec<i32> {
    answers.iter().map(|answer| answer.opaque).collect()
}

/// Goal: answers to held pulls come to no more than the connection's bound and one answer while its peer reads nothing, and all
/// come, once and in order, when it reads again. Method: 400 pulls of one queue, a message whose copies make 8 MB, a deaf client.
#[test]
fn a_full_connection_keeps_its_pulls_held() {
    const BOUND: usize = 256 << 10;
    let mut world = large(BOUND);
    let (producer, consumer) = (world.connect(), world.connect());
    hold(&mut world, consumer, "g", 0, 400);
    assert_eq!(world.core.gauges().1, 400);
    world.set_deaf(consumer, true);
    world.request(producer, &send(1, 0, &[1; 20_000], ""));
    world.run();
    let outbox = &world.core.connection_mut(consumer).expect("it is open").outbox;
    let queued = outbox.queued_bytes();
    assert!((BOUND / 2..BOUND + 21_000).contains(&queued), "{queued} bytes are queued");
    let held = world.core.gauges().1;
    assert!(held > 380, "{held} pulls are held");
    // More messages for the same queue change nothing, and time does not either.
    world.request(producer, &send(2, 0, &[1; 20_000], ""));
    world.now_ms += 120_000;
    world.run();
    assert_eq!(world.core.gauges().1, held);
    assert!(!world.core.has_held_work(), "nobody looks at them meanwhile");

    world.set_deaf(consumer, false);
    let mut seen = Vec::new();
    for _ in 0..400 {
        assert!(world.turn().is_empty());
        let answers = world.answers(consumer);
        assert!(answers.iter().all(|answer| answer.code == response::SUCCESS));
        seen.extend(opaques(&answers));
    }
    assert_eq!(seen, (0..400).collect::<Vec<_>>());
    assert_eq!(world.core.gauges().1, 0);
}

/// Goal: pulls whose requests alone reach the connection's limit are answered all the same, and what has arrived behind them is
/// executed then. Method: twice as many pulls as the limit takes, then a message.
#[test]
fn held_requests_do_not_lock_their_connection() {
    let mut world = large(64 << 10);
    let (producer, consumer) = (world.connect(), world.connect());
    hold(&mut world, consumer, "g", 0, 400);
    let held = world.core.gauges().1;
    assert!((50..400).contains(&held), "{held} pulls are held");
    world.request(producer, &send(1, 0, &[1; 10_000], ""));
    let mut seen = Vec::new();
    for _ in 0..100 {
        world.turn();
        seen.extend(opaques(&world.answers(consumer)));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..400).collect::<Vec<_>>());
}

/// Goal: pulls with the same filter share one look at the entries of a queue. Method: 500 pulls, 500 messages with other tags that
/// become visible at once; entries are counted.
#[test]
fn pulls_with_one_filter_share_a_look() {
    let mut world = large(4 << 20);
    let (producer, consumer) = (world.connect(), world.connect());
    hold(&mut world, consumer, "tagged", 0, 500);
    world.hold_writes = true;
    for number in 0..500 {
        world.request(producer, &send(number, 0, b"x", "TAGS\x01Other\x02"));
    }
    world.run();
    let before = world.core.counters().pull_entries;
    world.hold_writes = false;
    world.run();
    assert_eq!(world.queues[0].bounds().1.0, 500);
    let looked_at = world.core.counters().pull_entries - before;
    assert!((500..=1_000).contains(&looked_at), "{looked_at} entries were looked at");
    // They still wait, and are woken.
    world.request(producer, &send(500, 0, b"match", "TAGS\x01TagA\x02"));
    world.run();
    assert_eq!(opaques(&world.answers(consumer)), (0..500).collect::<Vec<_>>());
}

/// Goal: a consumer whose held pull has passed over messages learns within five seconds of the first how far to go on, and a pull
/// that has seen none waits as long as it wanted to. Method: a pull that filters and one of another queue, both for a minute; two
/// messages with another tag, the second later; the clock stands before and at the time.
#[test]
fn filtered_messages_advance_a_consumer_that_waits() {
    let mut world = large(4 << 20);
    let (producer, consumer, other) = (world.connect(), world.connect(), world.connect());
    world.request(consumer, &pull(1, "tagged", 0, 0, 60_000));
    world.request(other, &pull(2, "tagged", 1, 0, 60_000));
    world.run();
    world.request(producer, &send(3, 0, b"x", "TAGS\x01Other\x02"));
    world.run();
    let first_ms = world.now_ms;
    world.now_ms += limits::FILTERED_PULL_MS / 2;
    world.request(producer, &send(4, 0, b"x", "TAGS\x01Other\x02"));
    world.run();
    world.now_ms = first_ms + limits::FILTERED_PULL_MS - 100;
    world.run();
    assert!(world.answers(consumer).is_empty() && world.core.gauges().1 == 2);
    world.now_ms = first_ms + limits::FILTERED_PULL_MS;
    world.run();
    let answers = world.answers(consumer);
    let seen = (answers.len(), answers[0].code, answers[0].ext("nextBeginOffset"), answers[0].body.is_none());
    assert_eq!(seen, (1, response::PULL_RETRY_IMMEDIATELY, Some("2"), true));
    assert!(world.answers(other).is_empty() && world.core.gauges().1 == 1);
    world.now_ms = first_ms + 61_000;
    world.run();
    assert_eq!(world.answers(other)[0].code, response::PULL_NOT_FOUND);
}

/// Goal: looking at held pulls ends with a turn's share of entries, and goes on in the next turn until all have been looked at.
/// Method: pulls with filters of their own, so that none shares a look, and messages that none of them wants; then one for all.
#[test]
fn looks_at_held_pulls_are_spread_over_turns() {
    let mut world = large(4 << 20);
    let (producer, consumer) = (world.connect(), world.connect());
    for number in 0..60 {
        let tags = format!("wanted || {number}");
        world.request(consumer, &pull(number, "g", 0, 0, 60_000).with_ext("subscription", tags));
    }
    world.turn();
    assert_eq!(world.core.gauges().1, 60);
    world.hold_writes = true;
    for number in 0..2_000 {
        world.request(producer, &send(number, 0, b"x", "TAGS\x01Other\x02"));
    }
    world.run();
    world.hold_writes = false;
    let most = (limits::HELD_ENTRIES_PER_TURN + 1_600) as u64;
    let mut turns = 0;
    loop {
        let before = world.core.counters().pull_entries;
        world.turn();
        let looked_at = world.core.counters().pull_entries - before;
        assert!(looked_at <= most, "{looked_at} entries in one turn");
        turns += u64::from(looked_at > 0);
        if looked_at == 0 && turns > 0 {
            break;
        }
    }
    assert!(turns >= 60 * 2_000 / most, "{turns} turns");
    assert_eq!(world.core.gauges().1, 60);
    world.request(producer, &send(2_000, 0, b"match", "TAGS\x01wanted\x02"));
    world.run();
    assert_eq!(opaques(&world.answers(consumer)), (0..60).collect::<Vec<_>>());
}

/// Goal: wakes that take a turn's share of looks leave deadlines theirs. Method: a pull of another queue whose time is up while looks
/// go on for many turns.
#[test]
fn deadlines_hold_beside_wakes() {
    let mut world = large(4 << 20);
    let (producer, consumer, other) = (world.connect(), world.connect(), world.connect());
    for number in 0..60 {
        let tags = format!("wanted || {number}");
        world.request(consumer, &pull(number, "g", 0, 0, 60_000).with_ext("subscription", tags));
    }
    world.request(other, &pull(0, "g", 1, 0, 1_000));
    world.turn();
    assert_eq!(world.core.gauges().1, 61);
    world.hold_writes = true;
    for number in 0..2_000 {
        world.request(producer, &send(number, 0, b"x", "TAGS\x01Other\x02"));
    }
    world.run();
    world.hold_writes = false;
    world.now_ms += 2_000;
    let mut turns = 0;
    while world.answers(other).is_empty() {
        world.turn();
        turns += 1;
        assert!(turns <= 2, "the looks have taken its turn");
    }
    assert!(world.core.has_held_work(), "they go on");
}

/// Goal: one read looks at as many entries as RocketMQ does for what its clients can ask for, and at a bounded number whatever
/// is asked for. Method: a queue of other tags, pulls with several `maxMsgNums`.
#[test]
fn one_read_is_bounded() {
    let mut world = large(1 << 20);
    let (producer, consumer) = (world.connect(), world.connect());
    fill(&mut world, producer, 20_000, "TAGS\x01Other\x02");
    for (most, next) in [(32, "800"), (800, "800"), (1_024, "1024"), (i32::MAX, "16384")] {
        world.request(consumer, &pull(1, "tagged", 0, 0, 0).with_ext("maxMsgNums", most));
        world.run();
        let answers = world.answers(consumer);
        let seen = (answers.len(), answers[0].code, answers[0].ext("nextBeginOffset"));
        assert_eq!(seen, (1, response::PULL_RETRY_IMMEDIATELY, Some(next)), "maxMsgNums {most}");
    }
}

/// Goal: one connection's expensive pulls take a share of a turn, are all answered, in order, and do not keep another
/// connection's pull waiting. Method: 20 of them in one burst, and one pull behind it; entries are counted for each turn.
#[test]
fn expensive_pulls_leave_turns_to_others() {
    let mut world = large(1 << 20);
    let (producer, greedy, modest) = (world.connect(), world.connect(), world.connect());
    fill(&mut world, producer, 20_000, "TAGS\x01Other\x02");
    let burst: Vec<u8> = (0..20)
        .flat_map(|number| pull(number, "tagged", 0, 0, 0).with_ext("maxMsgNums", i32::MAX).encode().to_vec())
        .collect();
    let mut before = world.core.counters().pull_entries;
    world.request_bytes(greedy, &burst);
    world.request(modest, &pull(7, "tagged", 0, 0, 0));
    let mut seen = Vec::new();
    for turn in 0..20 {
        world.turn();
        let entries = world.core.counters().pull_entries - before;
        before += entries;
        assert!(entries <= 2 * limits::ENTRIES_PER_TURN as u64 + 1_600, "{entries} entries in turn {turn}");
        if turn == 0 {
            assert_eq!(opaques(&world.answers(modest)), [7]);
        }
        seen.extend(opaques(&world.answers(greedy)));
    }
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
}

/// Goal: deadlines that come together, and a stop, are spread over turns, and the shard is not quiet before. Method: 3,000 held
/// pulls, answers counted for each turn.
#[test]
fn expiry_and_stop_are_spread_over_turns() {
    for stops in [false, true] {
        let mut world = large(4 << 20);
        let consumer = world.connect();
        hold(&mut world, consumer, "g", 0, 3_000);
        assert_eq!(world.core.gauges().1, 3_000);
        if stops {
            world.core.begin_stop();
        } else {
            world.now_ms += 60_000;
        }
        let mut seen = Vec::new();
        while seen.len() < 3_000 {
            assert!(!stops || !world.core.is_quiet());
            world.turn();
            let answers = world.answers(consumer);
            assert!(!answers.is_empty() && answers.len() <= 2 * ANSWERS_PER_TURN, "{} in one turn", answers.len());
            assert!(answers.iter().all(|answer| answer.code == response::PULL_NOT_FOUND));
            seen.extend(opaques(&answers));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..3_000).collect::<Vec<_>>());
        if stops {
            // Consumers ask again at once: that must not keep the shard.
            world.request(consumer, &pull(3_000, "g", 0, 0, 60_000));
            world.turn();
            let answers = world.answers(consumer);
            assert_eq!(answers.iter().map(|answer| answer.code).collect::<Vec<_>>(), [response::SYSTEM_BUSY]);
        }
        assert!(world.core.is_quiet() && world.core.gauges().1 == 0);
    }
}

/// Goal: closing a connection takes its pulls, stalled ones too, and those of no other; others are still woken in order. Method:
/// two connections whose pulls alternate, one of which goes while its answers are stalled.
#[test]
fn a_closed_connection_takes_its_own_pulls() {
    let mut world = large(64 << 10);
    let (producer, first, second) = (world.connect(), world.connect(), world.connect());
    for number in 0..50 {
        world.request(first, &pull(number, "g", 0, 0, 60_000));
        world.request(second, &pull(number, "g", 0, 0, 60_000));
        world.request(first, &pull(100 + number, "g", 1, 0, 60_000));
    }
    world.set_deaf(first, true);
    world.request(producer, &send(1, 0, &[1; 20_000], ""));
    for _ in 0..50 {
        world.turn();
    }
    assert_eq!(opaques(&world.answers(second)), (0..50).collect::<Vec<_>>());
    let held = world.core.gauges().1;
    assert!(held > 90, "{held} pulls are held");
    world.close(first);
    assert_eq!(world.core.gauges(), (2, 0, 0));
    world.request(second, &pull(9, "g", 1, 0, 60_000));
    world.request(producer, &send(2, 1, b"one", ""));
    world.run();
    assert_eq!(opaques(&world.answers(second)), [9]);
}

/// Goal: held pulls count in the budget of memory, and are given back. Method: what a turn publishes with 2,000 of them, and after.
#[test]
fn held_pulls_count_as_memory() {
    let mut world = large(4 << 20);
    let consumer = world.connect();
    let end = |world: &mut World| {
        let now_ns = world.now_ms * 1_000_000;
        world.core.end_turn(now_ns);
        world.shared.buffers.used()
    };
    hold(&mut world, consumer, "g", 0, 2_000);
    let used = end(&mut world);
    assert!(used >= 2_000 * 250, "{used} bytes");
    world.now_ms += 60_000;
    world.run();
    world.run();
    // Small changes are not published.
    assert_eq!(world.core.gauges().1, 0);
    assert!(end(&mut world) < PUBLISH_STEP_BYTES);
}

/// Goal: who has little to send gets room in a full log although others have much. Method: a deep pipeliner is first in line, two
/// with one request each are behind it; the order of answers.
#[test]
fn a_deep_pipeline_does_not_take_all_room() {
    let shape = Shape { ring_bytes: 32 << 10, segment_bytes: 16 << 10, ..Shape::new(Mode::AsyncDirect) };
    let mut world = World::new(shape);
    let (deep, second, third) = (world.connect(), world.connect(), world.connect());
    world.hold_writes = true;
    for number in 0..100 {
        world.request(deep, &send(number, 0, &[1; 3_000], ""));
    }
    world.request(second, &send(1, 0, &[1; 3_000], ""));
    world.request(third, &send(1, 0, &[1; 3_000], ""));
    world.run();
    assert!(world.core.has_blocked());
    world.hold_writes = false;
    let mut turns = 0;
    while world.has_received(second) == 0 || world.has_received(third) == 0 {
        assert!(world.turn().is_empty());
        turns += 1;
        assert!(turns < 1_000);
    }
    let before = world.answers(deep).len();
    assert!(before < 60, "{before} answers of the deep pipeline came first");
    for _ in 0..200 {
        world.turn();
    }
    assert_eq!(before + world.answers(deep).len(), 100);
}

/// Goal: a shard knows while readers work for it, because it must not look for work on their processor then, and knows that they are
/// done also when nobody takes the answers any more. Method: pulls of messages that the ring has and has not, answered by the
/// test in place of a reader, one of them after its connection has gone.
#[test]
fn a_shard_knows_whether_readers_work_for_it() {
    let mut world =
        World::new(Shape { ring_bytes: 64 << 10, segment_bytes: 32 << 10, ..Shape::new(Mode::AsyncPageCache) });
    let (producer, consumer, leaving) = (world.connect(), world.connect(), world.connect());
    for number in 0..100 {
        world.request(producer, &send(number, 0, &[1; 3_000], ""));
        world.run();
    }
    world.request(consumer, &pull(1, "g", 0, 99, 0));
    world.turn();
    assert_eq!(opaques(&world.answers(consumer)), [1]);
    assert!(!world.core.awaits_readers(), "the ring has the last message");
    for (connection, number) in [(consumer, 2), (leaving, 3)] {
        world.request(connection, &pull(number, "g", 0, 0, 0));
    }
    world.turn();
    world.close(leaving);
    let buffers = BufferPool::default();
    for expected in [2, 3] {
        assert!(world.core.awaits_readers(), "before {expected}");
        let cold = world.cold.try_recv().expect("a pull for the readers");
        assert_eq!(cold.opaque, expected);
        let bytes = Command::response(response::PULL_NOT_FOUND, cold.opaque).encode();
        let mut frame = buffers.take(bytes.len());
        frame.bytes_mut().copy_from_slice(&bytes);
        let (_, id) = connection_slot(cold.connection);
        world.core.deliver_cold(id, ColdAnswer { frame, pipes: Vec::new() }, cold.answers, |_, _, _| ());
    }
    assert!(!world.core.awaits_readers());
    world.turn();
    assert_eq!(opaques(&world.answers(consumer)), [2]);
}
