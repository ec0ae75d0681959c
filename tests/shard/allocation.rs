//! The path of a message through a shard and the log's writer does not touch the heap once it has warmed up.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ringmq_protocol::command::Command;
use ringmq_shards::log::AppendError;

use super::pair::Pair;
use super::world::*;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// Counts what the current thread asks for; growing counts, giving back does not.
struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Rounds before the count begins, and rounds that are counted. One round of the busiest case below appends 64 messages, so a
/// queue's chunk of 128 entries is passed many times in both.
const WARM_UP: usize = 100;
const COUNTED: usize = 100;

/// Sends the frames once each round, one turn for all of them, and counts.
fn count(mode: Mode, prepare: &[Command], round: &[Command]) -> usize {
    let mut world = World::new(Shape { segment_bytes: 16 << 20, ring_bytes: 64 << 20, ..Shape::new(mode) });
    let client = world.connect();
    for command in prepare {
        world.request(client, command);
    }
    world.run();
    world.keep_received = false;
    let frames: Vec<Vec<u8>> = round.iter().map(Command::encode).collect();
    let mut before = 0;
    for number in 0..WARM_UP + COUNTED {
        if number == WARM_UP {
            before = ALLOCATIONS.with(Cell::get);
        }
        let sent = world.sent_bytes;
        for frame in &frames {
            assert!(world.core.received(client, frame));
        }
        // A write that is not inline completes in the turn after, a separate sync in the one after that.
        for _ in 0..4 {
            assert!(world.turn().is_empty());
        }
        assert!(world.sent_bytes > sent + 100 * frames.len() as u64, "every request is answered");
        assert_eq!(world.core.gauges(), (1, 0, 0));
    }
    assert!(before > 0, "the counter counts");
    assert_eq!(world.core.counters().sends_refused + world.core.counters().pulls_cold, 0);
    ALLOCATIONS.with(Cell::get) - before
}

const PROPERTIES: &str =
    "KEYS\x01k\x02UNIQ_KEY\x017F0000010001AABBCCDD000000010000\x02WAIT\x01true\x02TAGS\x01TagA\x02";

/// Memory of queue tails is taken in slabs of 64 chunks of 128 entries until the pool is warm: less than one allocation per
/// 8,192 messages, and none when a chunk comes back from the flush. Everything else must be nothing.
fn tail_slabs(messages: usize) -> usize {
    messages / 8_192 + 2
}

/// Goal: sends and pulls allocate nothing per message, in each mode and both codings. Method: rounds of 16 sends, or 16 pulls that
/// find 32 messages each, under count.
#[test]
fn messages_do_not_allocate() {
    let body = [7; 200];
    let single: Vec<_> = (0..16).map(|number| send(number, number as u32 % QUEUES, &body, PROPERTIES)).collect();
    let keyless: Vec<_> =
        (0..16).map(|number| send(number, number as u32 % QUEUES, &body, "TAGS\x01TagA\x02")).collect();
    let batch: Vec<_> =
        (0..16).map(|number| send_batch(number, number as u32 % QUEUES, &[&body, &body, &body, &body])).collect();
    let pulls: Vec<_> = (0..16).map(|number| pull(number, "g", number as u32 % QUEUES, 0, 15_000)).collect();
    let tagged: Vec<_> = (0..16).map(|number| pull(number, "tagged", number as u32 % QUEUES, 0, 15_000)).collect();
    let stored: Vec<_> = (0..256).map(|number| send(number, number as u32 % QUEUES, &body, PROPERTIES)).collect();
    let sent = 16 * (WARM_UP + COUNTED);
    for mode in Mode::ALL {
        for binary in [false, true] {
            let coded = |commands: &[Command]| -> Vec<Command> {
                commands
                    .iter()
                    .map(|command| if binary { as_binary(command.clone()) } else { command.clone() })
                    .collect()
            };
            for (name, round, prepare, allowed) in [
                ("single", &single, &[][..], tail_slabs(sent)),
                ("keyless", &keyless, &[][..], tail_slabs(sent)),
                ("batch", &batch, &[][..], tail_slabs(4 * sent)),
                ("pull", &pulls, &stored[..], 0),
                ("tagged pull", &tagged, &stored[..], 0),
            ] {
                let allocations = count(mode, prepare, &coded(round));
                assert!(allocations <= allowed, "{name}, {mode:?}, binary {binary}: {allocations} allocations");
            }
        }
    }
}

/// Goal: sends that cross to the writer's shard allocate nothing per message either, on both sides together. Method: rounds of
/// single messages, large ones and batches over two shards, under count.
#[test]
fn messages_between_shards_do_not_allocate() {
    let body = [7; 200];
    let large = vec![7; 100_000];
    let single: Vec<_> = (0..16).map(|number| send(number, number as u32 % QUEUES, &body, PROPERTIES)).collect();
    let big: Vec<_> = (0..4).map(|number| send(number, number as u32 % QUEUES, &large, PROPERTIES)).collect();
    let batch: Vec<_> =
        (0..16).map(|number| send_batch(number, number as u32 % QUEUES, &[&body, &body, &body, &body])).collect();
    for mode in Mode::ALL {
        for (name, round, messages) in [("single", &single, 16), ("large", &big, 4), ("batch", &batch, 64)] {
            // The image of the disk grows by a segment at a time, which must not happen while allocations are counted.
            let shape = Shape { segment_bytes: 128 << 20, ring_bytes: 64 << 20, ..Shape::new(mode) };
            let mut pair = Pair::new(Shape { in_flight_bytes: 4 << 20, ..shape });
            let remote = pair.connect();
            pair.keep_received = false;
            let frames: Vec<Vec<u8>> = round.iter().map(Command::encode).collect();
            let mut before = 0;
            for number in 0..WARM_UP + COUNTED {
                if number == WARM_UP {
                    before = ALLOCATIONS.with(Cell::get);
                }
                let sent = pair.sent_bytes;
                for frame in &frames {
                    assert!(pair.core.received(remote, frame));
                }
                (0..6).for_each(|_| pair.turn());
                assert!(pair.sent_bytes > sent + 100 * frames.len() as u64, "every request is answered");
                assert_eq!(pair.core.gauges(), (1, 0, 0));
            }
            let counters = pair.core.counters();
            assert_eq!((counters.remote_sends, counters.sends_refused), (200 * frames.len() as u64, 0));
            assert_eq!(counters.send_hops, 2 * counters.remote_sends);
            let allocations = ALLOCATIONS.with(Cell::get) - before;
            let allowed = tail_slabs(messages * (WARM_UP + COUNTED));
            assert!(allocations <= allowed, "{name}, {mode:?}: {allocations} allocations");
        }
    }
}

/// Goal: waiting for room costs no memory either. Method: a ring that is full for many turns, with a request that waits in it.
#[test]
fn waiting_does_not_allocate() {
    let mut world =
        World::new(Shape { ring_bytes: 32 << 10, segment_bytes: 16 << 10, ..Shape::new(Mode::AsyncDirect) });
    let (producer, other) = (world.connect(), world.connect());
    world.hold_writes = true;
    for number in 0..20 {
        world.request(producer, &send(number, 0, &[1; 3_000], PROPERTIES));
        world.request(other, &send_batch(number, 0, &[&[1; 2_000], &[2; 2_000]]));
    }
    (0..50).for_each(|_| assert!(world.turn().is_empty()));
    assert!(world.core.has_blocked() && AppendError::RingFull.is_temporary());
    let before = ALLOCATIONS.with(Cell::get);
    (0..50).for_each(|_| assert!(world.turn().is_empty()));
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
    world.hold_writes = false;
    (0..60).for_each(|_| assert!(world.turn().is_empty()));
    assert_eq!((world.answers(producer).len(), world.answers(other).len()), (20, 20));
}
