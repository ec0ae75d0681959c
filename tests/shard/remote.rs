//! Sends that cross from one shard to the writer's.

use ringmq_protocol::codes::response;

use super::pair::Pair;
use super::world::*;

const PROPERTIES: &str = "TAGS\x01TagA\x02";

/// The answer without what differs between two requests.
fn outcome(answers: &[ringmq_protocol::command::Command]) -> (i32, Option<String>, Vec<(String, String)>) {
    let [answer] = answers else { panic!("one answer, not {}", answers.len()) };
    let fields = answer.ext_fields.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    (answer.code, answer.remark.clone().map(|remark| remark.to_string()), fields)
}

/// Goal: both shards' messages are stored and answered, two hops for each remote one, in the order of their connection. Method:
/// single messages and batches from both, in each mode.
#[test]
fn both_shards_store() {
    for mode in Mode::ALL {
        let mut pair = Pair::new(Shape::new(mode));
        let (local, remote) = (pair.world.connect(), pair.connect());
        for number in 0..20 {
            pair.request(remote, &send(number, 0, b"remote", PROPERTIES));
            pair.request(remote, &send_batch(100 + number, 1, &[b"a", b"b", b"c"]));
            pair.world.request(local, &send(number, 0, b"local", PROPERTIES));
            pair.turn();
        }
        (0..8).for_each(|_| pair.turn());
        let answers = pair.answers();
        assert_eq!(answers.len(), 40, "{mode:?}");
        assert!(answers.iter().all(|answer| answer.code == response::SUCCESS), "{mode:?}");
        let offsets = |parity: usize| -> Vec<i64> {
            let own = answers.iter().filter(|answer| usize::from(answer.opaque >= 100) == parity);
            own.map(|answer| answer.ext("queueOffset").unwrap().parse().unwrap()).collect()
        };
        assert!(offsets(0).is_sorted() && offsets(1) == (0..20).map(|number| 3 * number).collect::<Vec<_>>());
        assert_eq!(pair.world.answers(local).len(), 20);
        assert_eq!(pair.world.broken_promise(&answers), None, "{mode:?}");
        assert_eq!(pair.core.counters().remote_sends, 40);
        assert_eq!(pair.core.counters().send_hops, 80, "one there, one back");
        assert_eq!(pair.world.core.counters().send_hops, 0);
        assert!(!pair.world.core.has_remote_waits() && !pair.core.has_remote_news());
    }
}

/// Goal: when the log has no room, remote sends wait in their connection's input, which then is not read; all are stored in the
/// end. Method: writes that are held, far more bytes than may be on the way.
#[test]
fn a_full_way_holds_the_connection() {
    let shape = Shape { segment_bytes: 4 << 20, ring_bytes: 1 << 20, ..Shape::new(Mode::AsyncDirect) };
    let mut pair = Pair::new(Shape { in_flight_bytes: 8 << 20, ..shape });
    let remote = pair.connect();
    pair.world.hold_writes = true;
    let sent = 400;
    for number in 0..sent {
        pair.request(remote, &send(number, number as u32 % QUEUES, &[7; 50_000], PROPERTIES));
        pair.turn();
    }
    assert!(pair.core.has_blocked(), "what does not fit waits");
    let on_the_way = pair.core.gauges().2;
    assert!(on_the_way < 200, "{on_the_way} requests are on the way");
    let waiting = sent as usize - on_the_way;
    assert!((waiting * 50_000..waiting * 51_000).contains(&pair.core.input_bytes()), "the rest is input");
    assert!(pair.core.is_over_limit(remote), "which is not read any more");
    pair.world.hold_writes = false;
    for _ in 0..2_000 {
        pair.turn();
    }
    let answers = pair.answers();
    assert_eq!(answers.len(), sent as usize);
    assert!(answers.iter().all(|answer| answer.code == response::SUCCESS));
    assert!(answers.iter().map(|answer| answer.opaque).is_sorted(), "in order");
    assert_eq!((pair.core.input_bytes(), pair.core.has_blocked()), (0, false));
}

/// Goal: verdicts and wake-ups that do not fit into their lane are late, not lost. Method: more sends than the lane holds, to a
/// shard that makes no turn meanwhile.
#[test]
fn a_full_answer_lane_loses_nothing() {
    let shape = Shape { segment_bytes: 4 << 20, ring_bytes: 8 << 20, ..Shape::new(Mode::AsyncPageCache) };
    let mut pair = Pair::new(Shape { in_flight_bytes: 64 << 20, ..shape });
    let remote = pair.connect();
    let mut sent = 0;
    while pair.core.gauges().2 < 6_000 {
        for _ in 0..100 {
            pair.request(remote, &send(sent, 0, b"x", PROPERTIES));
            sent += 1;
        }
        // Batches go out and are bound, but no verdict is taken.
        pair.core.publish_remote();
        assert!(pair.world.turn().is_empty());
    }
    assert!(pair.world.core.has_remote_waits(), "verdicts wait for room");
    (0..10).for_each(|_| pair.turn());
    assert!(!pair.world.core.has_remote_waits());
    assert_eq!(pair.answers().len(), sent as usize);
}

/// Goal: a pull that waits on the other shard is woken. Method: a held pull there, a send on the writer's shard.
#[test]
fn a_held_pull_of_the_other_shard_is_woken() {
    let mut pair = Pair::new(Shape::new(Mode::AsyncPageCache));
    let (local, remote) = (pair.world.connect(), pair.connect());
    pair.request(remote, &pull(7, "g", 2, 0, 15_000));
    pair.turn();
    assert_eq!((pair.core.gauges().1, pair.answers().len()), (1, 0));
    pair.world.request(local, &send(1, 2, b"x", PROPERTIES));
    (0..2).for_each(|_| pair.turn());
    let answers = pair.answers();
    assert_eq!((answers.len(), answers[0].code, pair.core.gauges().1), (1, response::SUCCESS, 0));
}

/// Goal: what the log refuses is told to the sender as on the writer's shard: 14 for a full disk, 13 for a record that no segment
/// holds. Method: the same requests to both shards.
#[test]
fn refusals_are_the_same_on_both_shards() {
    let shape = Shape { segment_bytes: 16 << 10, ring_bytes: 64 << 10, ..Shape::new(Mode::AsyncPageCache) };
    let mut pair = Pair::new(shape);
    let (local, remote) = (pair.world.connect(), pair.connect());
    let both = |pair: &mut Pair, command: ringmq_protocol::command::Command| {
        pair.world.request(local, &command);
        pair.request(remote, &command);
        (0..4).for_each(|_| pair.turn());
        let outcomes = (outcome(&pair.world.answers(local)), outcome(&pair.answers()));
        assert_eq!(outcomes.0, outcomes.1);
        outcomes.1
    };
    let (code, remark, _) = both(&mut pair, send(1, 0, &[1; 40_000], PROPERTIES));
    assert_eq!(code, response::MESSAGE_ILLEGAL, "{remark:?}");
    let (code, ..) = both(&mut pair, send_batch(2, 0, &[&[1; 20_000], &[2; 20_000]]));
    assert_eq!(code, response::MESSAGE_ILLEGAL);
    pair.world.hold_segments = true;
    pair.world.writer().set_disk_full(true);
    for number in 0..3 {
        let filler = pair.world.connect();
        pair.world.request(filler, &send(number, 0, &[3; 9_000], PROPERTIES));
        (0..3).for_each(|_| pair.turn());
    }
    let (code, remark, fields) = both(&mut pair, send(9, 0, &[3; 9_000], PROPERTIES));
    assert_eq!(code, response::SERVICE_NOT_AVAILABLE);
    assert!(remark.expect("a reason").contains("no space left"));
    assert!(fields.iter().any(|(key, _)| key == "MSG_REGION"));
    assert_eq!(pair.core.counters().sends_refused, 3);
    // Oneway requests have no answer, and leave nothing behind.
    let mut oneway = send(10, 0, &[3; 9_000], PROPERTIES);
    oneway.flag |= 2;
    pair.request(remote, &oneway);
    (0..4).for_each(|_| pair.turn());
    assert_eq!((pair.answers().len(), pair.core.gauges().2), (0, 0));
}

/// Goal: when another thread finds that the log has failed, sends that wait are told so on each shard, once, and what the writer
/// says later is not said to anybody. Method: a send of each shard behind a held write; the failure; the write's completion.
#[test]
fn a_failure_elsewhere_is_told_and_not_taken_back() {
    let mut pair = Pair::new(Shape::new(Mode::AsyncDirect));
    let (local, remote) = (pair.world.connect(), pair.connect());
    pair.world.hold_writes = true;
    pair.world.request(local, &send(1, 0, b"local", PROPERTIES));
    pair.request(remote, &send(2, 0, b"remote", PROPERTIES));
    (0..4).for_each(|_| pair.turn());
    assert_eq!((pair.world.core.gauges().2, pair.core.gauges().2), (1, 1));
    pair.world.core.fail_sends();
    pair.core.fail_sends();
    pair.world.hold_writes = false;
    (0..6).for_each(|_| pair.turn());
    let told = |answers: &[ringmq_protocol::command::Command]| -> Vec<(i32, i32)> {
        answers.iter().map(|answer| (answer.opaque, answer.code)).collect()
    };
    assert_eq!(told(&pair.world.answers(local)), [(1, response::SYSTEM_ERROR)]);
    assert_eq!(told(&pair.answers()), [(2, response::SYSTEM_ERROR)]);
    assert_eq!((pair.world.core.gauges().2, pair.core.gauges().2), (0, 0));
}
