//! Whatever bytes come in whatever pieces: no panic, nobody else is disturbed, and the counters of memory return to zero.

use ringmq::server::messages::{Charge, ControlRequest};
use ringmq::server::slab::SlotId;
use ringmq_protocol::codes::request;
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{Split, split_frame};
use ringmq_shards::sim::SimRandom;

use super::world::*;

/// A frame that makes sense, or nearly.
fn some_frame(random: &mut SimRandom, opaque: i32) -> Command {
    let queue_id = random.below(u64::from(QUEUES) + 2) as u32;
    let body = vec![b'x'; random.below(3_000) as usize];
    let command = match random.below(8) {
        0..=2 => send(opaque, queue_id, &body, "TAGS\x01TagA\x02"),
        3 => send_batch(opaque, queue_id, &[&body, b"y", &body]),
        4 => pull(opaque, "g", queue_id, random.below(50) as i64 - 3, random.below(2) * 500),
        5 => pull(opaque, "tagged", queue_id, random.below(50) as i64, random.below(2) * 500),
        6 => pull(opaque, "unknown", queue_id, 0, 0),
        _ => {
            let mut command = Command::request(random.below(400) as i32);
            command.opaque = opaque;
            command
        }
    };
    let command = if random.chance(1, 20) { command.with_ext("b", "Unknown") } else { command };
    if random.chance(1, 2) { as_binary(command) } else { command }
}

/// Breaks some bytes.
fn damage(random: &mut SimRandom, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(5) {
            0 => bytes[at] = random.next_u64() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => _ = bytes.remove(at),
            3 => bytes.insert(at, random.next_u64() as u8),
            _ => bytes.truncate(at),
        }
    }
}

/// The control thread's answers: some requests are executed again, some get a frame, all give back what they hold.
fn play_control(world: &mut World, random: &mut SimRandom, broken: &mut Vec<SlotId>) {
    while let Ok(request) = world.control.try_recv() {
        let (connection, answers, is_long, frame, again) = match request {
            ControlRequest::Command { connection, frame, answers, .. } => {
                (connection, answers.bytes, answers.is_long, frame, false)
            }
            ControlRequest::CreateTopic { connection, frame, answers }
            | ControlRequest::CreateGroup { connection, frame, answers } => {
                (connection, answers, false, frame, random.chance(1, 4))
            }
            _ => continue,
        };
        let (_, id) = ringmq::server::connection::connection_slot(connection);
        if again {
            if !world.core.again(id, &frame, answers) {
                broken.push(id);
            }
        } else {
            let answer = Command::response(1, 77).encode();
            world.core.deliver(id, answer, Charge { bytes: answers, is_long }, |_, _, _| ());
        }
    }
    while let Ok(pull) = world.cold.try_recv() {
        let (_, id) = ringmq::server::connection::connection_slot(pull.connection);
        let answer = Command::response(19, pull.opaque).encode();
        world.core.deliver(id, answer, Charge::from(pull.answers), |_, _, _| ());
    }
}

/// Goal: the property in the module's text. Method: a mad client sends damaged frames in random pieces, a good one sends frames in
/// random pieces among them and must get every answer; held writes, small rings, closing and reconnecting come in between.
#[test]
fn mad_bytes_disturb_nobody() {
    let (mut broken_connections, mut good_answers) = (0, 0);
    for seed in 0..60 {
        let mut random = SimRandom::new(seed);
        let mode = Mode::ALL[(seed % 4) as usize];
        let mut world = World::new(Shape { ring_bytes: 64 << 10, segment_bytes: 32 << 10, ..Shape::new(mode) });
        let good = world.connect();
        let mut mad = world.connect();
        let mut good_bytes: Vec<u8> = Vec::new();
        let (mut asked, mut answered) = (0, 0);
        for _ in 0..150 {
            if random.chance(1, 2) {
                asked += 1;
                good_bytes.extend(send(asked, 1, &vec![b'g'; random.below(2_000) as usize + 1], "").encode());
            }
            let piece = random.below(good_bytes.len() as u64 + 1) as usize;
            assert!(world.core.received(good, &good_bytes[..piece]), "seed {seed}: the good connection broke");
            good_bytes.drain(..piece);
            let mut bytes: Vec<u8> =
                (0..random.below(4)).flat_map(|number| some_frame(&mut random, number as i32).encode()).collect();
            if random.chance(1, 3) {
                damage(&mut random, &mut bytes);
            }
            let mut broken = Vec::new();
            while !bytes.is_empty() && broken.is_empty() {
                let piece = 1 + random.below(bytes.len() as u64) as usize;
                if !world.core.received(mad, &bytes[..piece]) {
                    broken.push(mad);
                }
                bytes.drain(..piece);
            }
            play_control(&mut world, &mut random, &mut broken);
            world.hold_writes = random.chance(1, 3);
            world.hold_syncs = random.chance(1, 3);
            broken.extend(world.turn());
            if !broken.is_empty() || random.chance(1, 30) {
                assert!(!broken.contains(&good), "seed {seed}: the good connection broke");
                broken_connections += 1;
                world.close(mad);
                mad = world.connect();
            }
            let answers = world.answers(good);
            assert_eq!(world.broken_promise(&answers), None, "seed {seed}");
            for answer in answers {
                answered += 1;
                assert_eq!((answer.opaque, answer.code), (answered, 0), "seed {seed}: in order, and all stored");
            }
            if random.chance(1, 10) {
                world.store.flush_dirty().unwrap();
            }
        }
        (world.hold_writes, world.hold_syncs) = (false, false);
        assert!(world.core.received(good, &good_bytes));
        let mut broken = Vec::new();
        for _ in 0..100 {
            play_control(&mut world, &mut random, &mut broken);
            broken.extend(world.turn());
            answered += world.answers(good).len() as i32;
            if broken.contains(&mad) {
                world.close(mad);
                mad = world.connect();
            }
            broken.clear();
        }
        assert_eq!(answered, asked, "seed {seed}: every request of the good client is answered");
        good_answers += answered;
        let connection = world.core.connection_mut(good).unwrap();
        assert_eq!((connection.unanswered_bytes, connection.in_flight_bytes()), (0, 0), "seed {seed}");
        world.core.begin_close(mad);
        world.core.finish_close(mad);
        assert_eq!(
            (world.core.gauges(), world.core.input_bytes()),
            ((1, 0, 0), 0),
            "seed {seed}: nothing is left over"
        );
    }
    assert!(broken_connections > 500 && good_answers > 3_000, "{broken_connections} {good_answers}");
}

/// Goal: a request that waited for its topic and then for room in the log does not break the frame that is being received. Method:
/// hold the log full, receive half a frame, let the control thread send the request back, then go on.
#[test]
fn a_returned_request_does_not_cut_into_a_frame() {
    let mut world =
        World::new(Shape { ring_bytes: 32 << 10, segment_bytes: 16 << 10, ..Shape::new(Mode::AsyncDirect) });
    let (filling, client) = (world.connect(), world.connect());
    let returned = send(1, 0, &[b'r'; 3_000], "").encode();
    world.hold_writes = true;
    for number in 0..12 {
        world.request(filling, &send(number, 1, &[b'f'; 3_000], ""));
    }
    world.run();
    assert!(world.core.has_blocked());
    let halved = send(2, 0, b"halved", "").encode();
    assert!(world.core.received(client, &halved[..30]));
    assert!(world.core.again(client, &returned, returned.len()));
    assert!(world.core.connection_mut(client).unwrap().is_blocked);
    assert!(world.core.received(client, &halved[30..]));
    world.run();
    world.hold_writes = false;
    (0..4).for_each(|_| world.run());
    let answers: Vec<_> = world.answers(client).iter().map(|answer| (answer.opaque, answer.code)).collect();
    assert_eq!(answers, [(1, 0), (2, 0)]);
    assert_eq!(world.answers(filling).len(), 12);
}

/// Goal: of requests whose answers may be long one is under way per connection, the others keep their order, short ones in front of
/// them go on, other connections too, and a peer over its bound gets no notices. Method: the control thread's part is played here.
#[test]
fn long_answers_are_asked_for_one_at_a_time() {
    let mut world = World::new(Shape::new(Mode::ALL[0]));
    let (greedy, other) = (world.connect(), world.connect());
    let _opened: Vec<ControlRequest> = world.control.try_iter().collect();
    let command = |code: i32, opaque: i32| {
        let mut command = Command::request(code);
        command.opaque = opaque;
        command.encode()
    };
    let asked = |world: &mut World| -> Vec<(i32, Charge)> {
        let requests = world.control.try_iter().filter_map(|request| match request {
            ControlRequest::Command { frame, answers, .. } => {
                let Ok(Split::Frame { frame, .. }) = split_frame(&frame, frame.len()) else { panic!("no frame") };
                Some((Command::decode(frame).expect("a command").opaque, answers))
            }
            _ => None,
        });
        requests.collect()
    };
    let opaques = |asked: &[(i32, Charge)]| asked.iter().map(|(opaque, _)| *opaque).collect::<Vec<_>>();
    let codes = [request::GET_BROKER_CONFIG, request::HEART_BEAT, request::VIEW_MESSAGE_BY_ID, request::HEART_BEAT];
    let bytes: Vec<u8> = codes.iter().zip(1..).flat_map(|(code, opaque)| command(*code, opaque)).collect();
    assert!(world.core.received(greedy, &bytes));
    assert!(world.core.received(other, &command(request::GET_BROKER_CONFIG, 9)));
    let first = asked(&mut world);
    assert_eq!(opaques(&first), [1, 2, 9], "the second long one waits, and what is behind it");
    assert!(world.core.is_over_limit(greedy) && !world.core.is_over_limit(other));
    assert!(!world.core.has_blocked(), "nobody looks again and again");
    world.core.deliver(greedy, Command::response(0, 2).encode(), first[1].1, |_, _, _| ());
    assert!(world.turn().is_empty());
    assert_eq!(opaques(&asked(&mut world)), [0; 0], "a short answer changes nothing");
    let mut long = Command::response(0, 1);
    long.body = Some(vec![0; 100_000]);
    world.core.deliver(greedy, long.encode(), first[0].1, |_, _, _| ());
    assert!(world.turn().is_empty());
    let second = asked(&mut world);
    assert_eq!(opaques(&second), [3, 4]);
    assert!(!world.core.is_over_limit(greedy));
    let answers = world.answers(greedy);
    assert_eq!(
        answers.iter().map(|answer| answer.opaque).collect::<Vec<_>>(),
        [2, 1],
        "whole, in the order of their making"
    );
    let mut huge = Command::response(0, 3);
    huge.body = Some(vec![0; 12 << 20]);
    world.core.deliver(greedy, huge.encode(), second[0].1, |_, _, _| ());
    assert!(world.core.is_full(greedy) && !world.core.is_full(other));
    for id in [greedy, other] {
        world.core.deliver(id, Command::request(request::HEART_BEAT).encode(), Charge::default(), |_, _, _| ());
    }
    assert!(world.turn().is_empty());
    assert_eq!((world.answers(greedy).len(), world.answers(other).len()), (1, 1), "no notice for who takes nothing");
}

/// Goal: what could never be stored is refused for what it is, also on a full disk; what could be stored with room is told to come
/// again, before its size is looked at. Method: one send per check, by its place in RocketMQ's order, while the disk counts as full.
#[test]
fn a_full_disk_is_told_in_its_turn() {
    let mut world = World::new(Shape::new(Mode::ALL[0]));
    world.shared.retention.set_full(true);
    let id = world.connect();
    let single = |properties: &str| send(1, 0, b"body", properties);
    let batch = |properties: &str| send_batch(1, 0, &[b"one", b"two"]).with_ext("i", properties);
    let to = |command: Command, topic: &str| command.with_ext("b", topic);
    let cases = [
        ("a name with a bad character", to(single(""), "a b"), 29),
        ("a system topic", to(single(""), "SCHEDULE_TOPIC_XXXX"), 16),
        ("a queue that does not exist", send(1, QUEUES, b"body", ""), 29),
        ("a batch to such a queue", send_batch(1, QUEUES, &[b"one"]), 29),
        ("no body", send(1, 0, b"", ""), 1),
        ("a delayed message", single("DELAY\x013\x02"), 13),
        ("a transactional batch", batch("TRAN_MSG\x01true\x02"), 13),
        ("a bad number", single("").with_ext("e", "four"), 1),
        ("a message that is too large", send(1, 0, &vec![0; (4 << 20) + 1], ""), 14),
        ("an ordinary message", single(""), 14),
        ("an ordinary batch", batch(""), 14),
    ];
    for (what, command, code) in cases {
        world.request(id, &command);
        world.run();
        let answers = world.answers(id);
        let codes: Vec<i32> = answers.iter().map(|answer| answer.code).collect();
        assert_eq!(codes, [code], "{what}");
    }
    let other = world.connect();
    world.request(other, &to(single(""), "new"));
    assert!(
        matches!(world.control.try_iter().last(), Some(ControlRequest::CreateTopic { .. })),
        "it is made all the same"
    );
    world.shared.retention.set_full(false);
    world.request(id, &single(""));
    world.run();
    assert_eq!(world.answers(id).iter().map(|answer| answer.code).collect::<Vec<_>>(), [0]);
    assert_eq!(world.stored().len(), 1);
}
