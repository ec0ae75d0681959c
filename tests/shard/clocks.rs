//! A wall clock that steps: whatever waits does not notice.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringmq::server::serving::ServingTopic;

use super::world::*;

const STEP_MS: u64 = 3_600_000;

/// Goal: while a group holds orderly locks, what it gives up goes to its dead-letter topic, whatever the wall clock shows; afterwards
/// it is to be consumed again. Method: a lock of a minute, the wall clock in step and ahead, then the minute passes.
#[test]
fn orderly_locks_hold_when_the_wall_clock_steps() {
    const LOCKED_MS: u64 = 60_000;
    let mut world = World::new(Shape::new(Mode::AsyncPageCache));
    let mut serving = Arc::into_inner(serving(&world.queues)).expect("nobody else has it");
    let mut retry = serving.topics.remove("T").and_then(Arc::into_inner).expect("nobody else has it");
    retry.name = Arc::from("%RETRY%g");
    serving.topics.insert(Arc::clone(&retry.name), Arc::new(retry));
    let dead = ServingTopic {
        name: Arc::from("%DLQ%g"),
        queues: vec![Arc::clone(&world.queues[3])],
        read_queues: 1,
        write_queues: 1,
        permission: 6,
        sys_flag: 0,
        is_ordered: false,
        is_multi_tag: false,
        not_sendable: false,
        unserved: None,
    };
    serving.topics.insert(Arc::clone(&dead.name), Arc::new(dead));
    serving.groups["g"].locked_until_ms.store(world.now_ms + LOCKED_MS, Ordering::Relaxed);
    world.core.set_serving(Arc::new(serving));
    let client = world.connect();
    let outcome = |world: &mut World, opaque| {
        // The clocks are read when a turn begins.
        world.run();
        world.request(client, &send(opaque, 0, b"again", "").with_ext("b", "%RETRY%g"));
        world.run();
        let answer = world.answers(client).remove(0);
        let stored = |number: usize| world.queues[number].bounds().1.0;
        (answer.code, stored(0), stored(3))
    };
    assert_eq!(outcome(&mut world, 1), (0, 0, 1));
    world.wall_ahead_ms = STEP_MS;
    assert_eq!(outcome(&mut world, 2), (0, 0, 2));
    world.now_ms += LOCKED_MS;
    world.wall_ahead_ms = 0;
    assert_eq!(outcome(&mut world, 3), (0, 1, 2));
}

/// Goal: acknowledgements that wait for a sync time out when their time has passed, and not because the wall clock stepped. Method:
/// hold the sync while sends are bound before and after a step, then let the time pass.
#[test]
fn syncs_do_not_time_out_when_the_wall_clock_steps() {
    const TIMEOUT_MS: u64 = 5_000;
    for mode in [Mode::SyncDurable, Mode::SyncSeparate] {
        let mut world = World::new(Shape::new(mode));
        let client = world.connect();
        (world.hold_writes, world.hold_syncs) = (mode == Mode::SyncDurable, true);
        for number in 0..3 {
            world.request(client, &send(number, 0, b"waits", ""));
            world.run();
            world.wall_ahead_ms += STEP_MS;
        }
        world.run();
        assert!(world.answers(client).is_empty(), "{mode:?}");
        world.now_ms += TIMEOUT_MS;
        world.run();
        let codes: Vec<i32> = world.answers(client).iter().map(|answer| answer.code).collect();
        assert_eq!(codes, [10; 3], "{mode:?}");
        (world.hold_writes, world.hold_syncs) = (false, false);
        world.run();
        assert_eq!(world.stored().len(), 3);
    }
}
