//! The sending half of a turn: a connection is sent to once, whatever happened to it in the turn.

use super::world::*;

/// Goal: a connection is listed once as having output, although two things in one turn give it some: were it listed twice, its
/// ring memory would be turned to bytes while the kernel reads from it. Method: an answer is on its way when a pull adds ring
/// memory; its send completes in the same turn, before the pull or after it.
#[test]
fn a_connection_is_listed_once_per_turn() {
    for completes_first in [false, true] {
        let mut world = World::new(Shape::new(Mode::AsyncPageCache));
        let (producer, consumer) = (world.connect(), world.connect());
        world.request(producer, &send(1, 0, b"one", ""));
        world.run();

        // This queue is empty, and the pull does not wait.
        world.request(consumer, &pull(2, "g", 1, 0, 0));
        let mut listed = Vec::new();
        world.core.take_dirty(&mut listed);
        assert_eq!(listed, [consumer]);
        let connection = world.core.connection_mut(consumer).expect("it is open");
        let (_, length) = connection.outbox.begin_bytes().expect("there is an answer");

        world.now_ms += 1;
        world.core.begin_turn(world.now_ms, world.now_ms * 1_000_000);
        let complete = |world: &mut World| {
            let connection = world.core.connection_mut(consumer).expect("it is open");
            assert!(connection.outbox.finish_bytes(length as usize, 256 << 10));
            // As after the completion of a send, with or without more to send.
            world.core.mark_dirty(consumer);
        };
        if completes_first {
            complete(&mut world);
        }
        world.request(consumer, &pull(3, "g", 0, 0, 0));
        if !completes_first {
            complete(&mut world);
        }
        world.core.take_dirty(&mut listed);
        assert_eq!(listed, [consumer, consumer], "the list of the turn before, and once more");
        assert!(world.core.connection_mut(consumer).expect("it is open").outbox.has_ring_parts());

        // Taken from the list it can be listed again, and the message is sent once.
        world.core.mark_dirty(consumer);
        world.run();
        let answers = world.answers(consumer);
        assert_eq!(answers.iter().map(|answer| (answer.opaque, answer.code)).collect::<Vec<_>>(), [(3, 0)]);
    }
}
