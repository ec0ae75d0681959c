//! Disks that are full, fail or hang: what clients are told meanwhile, and what is there afterwards.

use ringmq_shards::log::Verdict;
use ringmq_shards::queue::QueueEntry;
use ringmq_shards::sim::{CrashPattern, Fault, FaultAction, OperationKind, SimDisk};
use ringmq_shards::types::{PhysicalOffset, QueueId, QueueOffset};

use super::crash::{Life, Past, begin, open, promised};
use super::pair::Pair;
use super::world::{Mode, Shape, World, pull, send};

const NO_SPACE: i32 = 14;

fn codes(world: &mut World, id: ringmq::server::slab::SlotId) -> Vec<(i32, i32)> {
    world.answers(id).iter().map(|answer| (answer.opaque, answer.code)).collect()
}

/// Goal: without room for the next segment sends are refused with the reason, one by one and not half, pulls go on, and the
/// first send after room has come is stored. Method: let the segments run out, in each mode, and give another.
#[test]
fn without_a_segment_sends_are_refused_and_reads_go_on() {
    for mode in Mode::ALL {
        let mut world = World::new(Shape { segment_bytes: 16 << 10, ..Shape::new(mode) });
        let client = world.connect();
        world.request(client, &send(0, 0, b"first", ""));
        world.run();
        world.no_space = true;
        for number in 1..100 {
            world.request(client, &send(number, 0, &[b'x'; 1_000], ""));
            world.run();
        }
        let answers = world.answers(client);
        assert_eq!(answers.len(), 100, "{mode:?}: everybody is told");
        assert_eq!(world.broken_promise(&answers), None);
        let refused: Vec<_> = answers.iter().filter(|answer| answer.code != 0).collect();
        assert!(refused.len() > 50 && refused.iter().all(|answer| answer.code == NO_SPACE), "{mode:?}");
        assert!(refused[0].remark.as_ref().is_some_and(|remark| remark.contains("space")), "{:?}", refused[0].remark);
        let stored = world.queues[0].bounds().1.0;
        assert_eq!(stored as usize, 100 - refused.len(), "{mode:?}: what was refused is not there");
        world.request(client, &pull(200, "g", 0, 0, 0));
        world.run();
        assert_eq!(codes(&mut world, client), [(200, 0)]);
        world.no_space = false;
        world.run();
        world.request(client, &send(201, 0, &[b'y'; 1_000], ""));
        world.run();
        assert_eq!(codes(&mut world, client), [(201, 0)], "{mode:?}");
        assert_eq!(world.queues[0].bounds().1.0, stored + 1);
    }
}

/// Goal: above the warning level sends get code 14 with the ratios, pulls are answered, and both go on when it is over.
/// Method: set the flag that the retention thread keeps.
#[test]
fn above_the_warning_level_sends_are_refused() {
    let mut world = World::new(Shape::new(Mode::AsyncPageCache));
    let client = world.connect();
    world.request(client, &send(1, 0, b"before", ""));
    world.core.shared().retention.set_full(true);
    world.request(client, &send(2, 0, b"meanwhile", ""));
    world.request(client, &pull(3, "g", 0, 1, 0));
    world.run();
    let answers = world.answers(client);
    let mut codes: Vec<_> = answers.iter().map(|answer| (answer.opaque, answer.code)).collect();
    codes.sort_unstable();
    assert_eq!(codes[..2], [(1, 0), (2, NO_SPACE)]);
    let remark = answers.iter().find(|answer| answer.opaque == 2).and_then(|answer| answer.remark.clone());
    assert!(remark.is_some_and(|remark| remark.contains("disk is full") && remark.contains("90 %")));
    world.core.shared().retention.set_full(false);
    world.request(client, &send(4, 0, b"after", ""));
    world.run();
    assert_eq!(world.answers(client).iter().map(|answer| answer.code).collect::<Vec<_>>(), [0]);
    assert_eq!(world.queues[0].bounds().1.0, 2);
}

/// Goal: a disk that hangs holds up nobody but its senders, and those not without bound. Method: hold every completion, send
/// until nothing is taken any more, read what was there before, let time pass, and release.
#[test]
fn a_hanging_disk_is_bounded() {
    for mode in [Mode::AsyncDirect, Mode::SyncDurable, Mode::SyncSeparate] {
        let mut world = World::new(Shape { in_flight_bytes: 64 << 10, ..Shape::new(mode) });
        let (sender, reader) = (world.connect(), world.connect());
        world.request(sender, &send(0, 0, b"before", ""));
        world.run();
        assert_eq!(codes(&mut world, sender), [(0, 0)]);
        (world.hold_writes, world.hold_syncs) = (true, true);
        let mut taken = 0;
        while taken < 1_000 && !world.core.is_over_limit(sender) {
            taken += 1;
            world.request(sender, &send(taken, 0, &[b'x'; 2_000], ""));
            world.run();
        }
        assert!(taken < 200, "{mode:?}: a connection is read no further ({taken})");
        world.request(reader, &pull(1, "g", 0, 0, 0));
        world.run();
        assert_eq!(codes(&mut world, reader), [(1, 0)], "{mode:?}: readers are served");
        assert!(world.answers(sender).is_empty(), "{mode:?}: nothing is promised");
        world.now_ms += 6_000;
        world.run();
        let late = codes(&mut world, sender);
        assert!(!late.is_empty() && late.iter().all(|(_, code)| *code == 10), "{mode:?}: senders are told {late:?}");
        (world.hold_writes, world.hold_syncs) = (false, false);
        (0..200).for_each(|_| world.run());
        let answered = late.len() + codes(&mut world, sender).len();
        assert_eq!(answered as i32, taken, "{mode:?}: everybody has an answer");
        world.request(sender, &send(5_000, 0, b"after", ""));
        world.run();
        assert_eq!(codes(&mut world, sender), [(5_000, 0)]);
    }
}

/// Goal: whoever waits on a disk that hangs is told in time, by 10 whom the log has taken in, by 2 and the reason whom it had no
/// room for; of the latter nothing is stored, of the former everything once the disk goes on, and then sends are taken at once.
/// Method: more sends than the ring holds, on the writer's shard and on another, with every completion held, and time.
#[test]
fn senders_are_told_when_a_hanging_disk_leaves_no_room() {
    for mode in [Mode::AsyncDirect, Mode::SyncDurable, Mode::SyncSeparate] {
        let shape =
            Shape { segment_bytes: 4 << 20, ring_bytes: 1 << 20, in_flight_bytes: 16 << 20, ..Shape::new(mode) };
        let mut pair = Pair::new(shape);
        let (local, remote) = (pair.world.connect(), pair.connect());
        (pair.world.hold_writes, pair.world.hold_syncs) = (true, true);
        let all = 200;
        for number in 0..all {
            pair.world.request(local, &send(number, 0, &[7; 40_000], ""));
            pair.request(remote, &send(number, 1, &[7; 40_000], ""));
            pair.turn();
        }
        assert!(pair.core.has_blocked() && pair.world.core.has_blocked(), "{mode:?}");
        let wait = |pair: &mut Pair, steps: u64| {
            for _ in 0..steps {
                // Who waits asks again each turn, so time passes in steps.
                pair.world.now_ms += 900;
                (0..20).for_each(|_| pair.turn());
            }
        };
        wait(&mut pair, 4);
        assert!(pair.answers().is_empty() && pair.world.answers(local).is_empty(), "{mode:?}: not yet");
        // A turn takes a bounded share of what a connection has sent, also for refusing it.
        wait(&mut pair, 4);
        let answers = [pair.world.answers(local), pair.answers()];
        for answers in &answers {
            let numbers: Vec<_> = answers.iter().map(|answer| answer.opaque).collect();
            assert_eq!(numbers.len(), all as usize, "{mode:?}: everybody is told");
            let (late, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.code == 10);
            assert!(!late.is_empty() && refused.len() > 100, "{mode:?}: {} and {}", late.len(), refused.len());
            let is_reason = |remark: &str| remark.contains("not stored") && remark.contains("room in the log ring");
            assert!(refused.iter().all(|answer| answer.code == 2 && answer.remark.as_deref().is_some_and(is_reason)));
        }
        (pair.world.hold_writes, pair.world.hold_syncs) = (false, false);
        (0..50).for_each(|_| pair.turn());
        for (queue, answers) in answers.iter().enumerate() {
            let late = answers.iter().filter(|answer| answer.code == 10).count();
            assert_eq!(pair.world.queues[queue].bounds().1.0 as usize, late, "{mode:?}: what was refused is not there");
        }
        pair.world.request(local, &send(5_000, 0, b"after", ""));
        pair.request(remote, &send(5_000, 1, b"after", ""));
        (0..4).for_each(|_| pair.turn());
        assert_eq!((codes(&mut pair.world, local), pair.answers()[0].code), (vec![(5_000, 0)], 0), "{mode:?}");
    }
}

/// Goal: while the disk is known not to answer, whom the log has no room for is told so at once, by 2: it can send elsewhere before its
/// own time is up. On a disk that answers, if slowly, it waits as before. Method: more sends than the ring holds, on the writer's shard
/// and on another, with every completion held; the disk's signs of life end, or go on.
#[test]
fn a_silent_disk_refuses_at_once_what_has_no_room() {
    for is_silent in [true, false] {
        let shape = Shape {
            segment_bytes: 4 << 20,
            ring_bytes: 1 << 20,
            in_flight_bytes: 16 << 20,
            ..Shape::new(Mode::AsyncDirect)
        };
        let mut pair = Pair::new(shape);
        let (local, remote) = (pair.world.connect(), pair.connect());
        (pair.world.hold_writes, pair.world.hold_syncs) = (true, true);
        pair.world.shared.disk_watch.sign_at(pair.world.now_ms);
        let all = 200;
        for number in 0..all {
            pair.world.request(local, &send(number, 0, &[7; 40_000], ""));
            pair.request(remote, &send(number, 1, &[7; 40_000], ""));
            pair.turn();
        }
        let wait_until = |pair: &mut Pair, time_ms: u64| {
            while pair.world.now_ms < time_ms {
                pair.world.now_ms += 50;
                if !is_silent {
                    pair.world.shared.disk_watch.sign_at(pair.world.now_ms);
                }
                pair.turn();
            }
        };
        let began_ms = 1_000_000;
        wait_until(&mut pair, began_ms + 800);
        assert!(pair.answers().is_empty() && pair.world.answers(local).is_empty(), "not yet");
        wait_until(&mut pair, began_ms + 3_000);
        for answers in [pair.world.answers(local), pair.answers()] {
            assert!(answers.iter().all(|answer| answer.code == 2), "nobody else is told before its time");
            assert_eq!(answers.len() > 100, is_silent, "{}", answers.len());
            assert!(is_silent || answers.is_empty());
        }
    }
}

/// Works with a failing disk until an error, then fails the log as the broker does; what was promised stays as it was.
fn work_until_failure(life: &mut Life, past: &mut Past) -> bool {
    for step in 0..200 {
        life.append(past);
        let written = life.write();
        if written.is_err() || step % 10 == 9 && life.flush().is_err() {
            let promised = past.acknowledged;
            let mut verdicts = Counted::default();
            life.writer.fail(&mut verdicts);
            assert!(verdicts.0.iter().all(|verdict| *verdict == Verdict::Failed));
            life.settle(past);
            assert_eq!(past.acknowledged, promised, "nothing is promised after a failure");
            assert!(life.writer.next_write().is_none() && life.writer.next_sync().is_none(), "nothing is tried again");
            return true;
        }
        life.settle(past);
        life.writer.begin_turn();
        let ready_end = life.writer.ready_end();
        if ready_end - life.writer.end() < 16 << 10 {
            if life.storage.segments.prepare_next(PhysicalOffset(life.writer.end())).is_err() {
                return true;
            }
            life.writer.segment_ready(ready_end);
        }
    }
    false
}

#[derive(Default)]
struct Counted(Vec<Verdict>);

impl ringmq_shards::log::writer::SettleSink for Counted {
    fn settled(&mut self, settled: ringmq_shards::log::Settled) {
        self.0.push(settled.verdict);
    }

    fn wake(&mut self, _: &std::sync::Arc<ringmq_shards::queue::Queue>, _: u64) {}
}

fn fault(kind: OperationKind, after: u64, action: FaultAction) -> Fault {
    Fault { kind, path_contains: "commitlog".to_owned(), after, times: u64::MAX, action }
}

/// Goal: after an error of the log (EIO, a short write, a file system that turned read-only) nothing is acknowledged, and the
/// next start has all that was, or refuses and says so. Method: fail the k-th operation of each kind for good, then kill, and
/// cut the power.
#[test]
fn failing_disks_lose_nothing_acknowledged() {
    let actions = [
        (OperationKind::Write, FaultAction::Fail(libc::EIO)),
        (OperationKind::Write, FaultAction::Fail(libc::EROFS)),
        (OperationKind::Write, FaultAction::ShortWrite { bytes: 700, errno: libc::EIO }),
        (OperationKind::Sync, FaultAction::Fail(libc::EIO)),
        (OperationKind::Sync, FaultAction::Fail(libc::EROFS)),
    ];
    let mut failures = 0;
    for mode in Mode::ALL {
        for (kind, action) in actions {
            for after in 0..12 {
                let context = format!("{mode:?}, {kind:?} {after}, {action:?}");
                let (disk, mut past) = begin(mode, after + 1);
                let mut life = open(&disk, mode, after + 2).unwrap_or_else(|error| panic!("{context}: {error}"));
                let at_kill = promised(mode, &past, true);
                life.check(&mut past, at_kill).unwrap_or_else(|error| panic!("{context}: {error}"));
                disk.inject(fault(kind, after, action));
                failures += u32::from(work_until_failure(&mut life, &mut past));
                drop(life);
                // After a failed sync cache and disk differ until the machine is started again: what the cache shows proves nothing.
                let cut = (disk.crash(after, CrashPattern::SomeSectors), false);
                let ends: Vec<(SimDisk, bool)> = match kind {
                    OperationKind::Sync => vec![cut],
                    _ => vec![(disk.kill(), true), cut],
                };
                for (end, is_kill) in ends {
                    let mut past = past.clone();
                    let least = promised(mode, &past, is_kill);
                    let life = open(&end, mode, 0).unwrap_or_else(|error| panic!("{context}, kill {is_kill}: {error}"));
                    life.check(&mut past, least).unwrap_or_else(|error| panic!("{context}, kill {is_kill}: {error}"));
                }
            }
        }
    }
    assert!(failures > 150, "the faults strike: {failures}");
}

/// Goal: store times never fall, whatever the clock does between two lives, and time-outs of the next life do not depend on it.
/// Method: lives with the clock set back and forth; every record's store time against the one before it.
#[test]
fn store_times_never_fall_across_restarts() {
    for mode in Mode::ALL {
        let (mut disk, mut past) = begin(mode, 3);
        for now_ms in [9_000_000, 1_000, 86_400_000, 5, 9_000_000] {
            let mut life = open(&disk, mode, now_ms).expect("it opens");
            life.now_ms = now_ms;
            for _ in 0..10 {
                life.append(&mut past);
                life.write().expect("written");
                life.settle(&mut past);
                life.writer.begin_turn();
                let ready_end = life.writer.ready_end();
                if ready_end - life.writer.end() < 16 << 10 {
                    life.storage.segments.prepare_next(PhysicalOffset(life.writer.end())).expect("there is room");
                    life.writer.segment_ready(ready_end);
                }
            }
            drop(life);
            disk = disk.kill();
        }
        let times = past.store_times();
        assert!(times.len() > 40 && times.is_sorted(), "{mode:?}: {times:?}");
        assert!(times.iter().any(|time| *time >= 86_400_000));
    }
}

/// Goal: after the oldest files went, a crash at any moment finds a log that begins later, with queues that agree: what is left
/// is all there, minimum offsets lie at the first record that is left, and next offsets go on. Method: take files at random
/// places of a life, cut the power after every operation around it, open, compare.
#[test]
fn crashes_around_retention() {
    for mode in Mode::ALL {
        for cut in 0..40 {
            let (disk, mut past) = begin(mode, 5);
            let mut life = open(&disk, mode, 6).expect("it opens");
            assert!(!work_until_failure(&mut life, &mut past));
            life.write_all(&mut past);
            life.flush().expect("flushed");
            life.flush_durably();
            disk.halt_after(cut);
            for _ in 0..3 {
                let list = life.storage.segments.snapshot();
                let is_removable = list.size().next_start(list.min().expect("files")).0 <= life.view.confirmed();
                drop(list);
                let Ok(Some(taken)) = (if is_removable { life.storage.segments.take_oldest() } else { Ok(None) })
                else {
                    break;
                };
                let minimum = life.storage.segments.snapshot().min().expect("one is left");
                life.view.set_minimum(minimum.0);
                for queue in life.storage.queues.queues() {
                    let _ = life.storage.queues.remove_expired_files(&queue, minimum);
                }
                let mut taken = taken;
                let _ = taken.shrink(4 << 10);
                let _ = taken.remove();
            }
            drop(life);
            for pattern in CrashPattern::ALL {
                let context = format!("{mode:?}, cut {cut}, {pattern:?}");
                let life =
                    open(&disk.crash(cut, pattern), mode, 0).unwrap_or_else(|error| panic!("{context}: {error}"));
                let minimum = life.storage.recovered.min;
                for queue_id in 0..3 {
                    let queue = life.storage.queues.get("T", QueueId(queue_id)).expect("a queue");
                    let (low, high) = queue.bounds();
                    assert_eq!(high.0, past.next_offset(queue_id), "{context}: the next offset of {queue_id}");
                    assert_eq!(
                        low.0,
                        past.first_offset_from(queue_id, minimum.0),
                        "{context}: the minimum of {queue_id}"
                    );
                    let mut entry = [QueueEntry::default()];
                    for offset in low.0..high.0 {
                        let read = life.storage.queues.read_entries(&queue, QueueOffset(offset), &mut entry);
                        assert_eq!(read.ok(), Some(1), "{context}: {queue:?} at {offset}");
                        assert!(entry[0].physical >= minimum, "{context}");
                    }
                }
            }
        }
    }
}

/// Goal: once the writer has retired the queues of a deleted topic, nothing more is bound to them, so that the end of the log is
/// their barrier; what was bound before is answered. Method: retire a queue between two sends while writes are held.
#[test]
fn a_retired_queue_binds_nothing() {
    for mode in Mode::ALL {
        let mut world = World::new(Shape::new(mode));
        let client = world.connect();
        world.hold_writes = true;
        world.request(client, &send(1, 0, b"before", ""));
        world.run();
        world.queues[0].retire();
        let barrier = world.writer().end();
        world.request(client, &send(2, 0, b"too late", ""));
        world.request(client, &send(3, 1, b"another queue", ""));
        world.run();
        assert!(world.writer().end() > barrier);
        world.hold_writes = false;
        (0..4).for_each(|_| world.run());
        let mut answers = codes(&mut world, client);
        answers.sort_unstable();
        assert_eq!(answers, [(1, 0), (2, 17), (3, 0)], "{mode:?}");
        assert!(world.stored().iter().all(|(at, queue, _)| *queue != 0 || *at < barrier), "{mode:?}");
    }
}

/// Goal: held pulls neither end early nor stay when the wall clock is set. Method: hold one, set the clock a day forward and an
/// hour back while little time passes, then let its time pass with the clock an hour behind.
#[test]
fn held_pulls_do_not_follow_the_wall_clock() {
    const HOUR_MS: u64 = 3_600_000;
    let mut world = World::new(Shape::new(Mode::AsyncPageCache));
    world.now_ms += 2 * HOUR_MS;
    world.run();
    let client = world.connect();
    world.request(client, &pull(1, "g", 0, 0, 1_000));
    world.run();
    assert_eq!(world.core.gauges().1, 1);
    let start_ms = world.now_ms;
    for (wall_ms, passed_ms, held) in
        [(start_ms + 24 * HOUR_MS, 100, 1), (start_ms - HOUR_MS, 200, 1), (start_ms - HOUR_MS, 1_100, 0)]
    {
        world.core.begin_turn(wall_ms, (start_ms + passed_ms) * 1_000_000);
        world.core.go_on_with_pulls();
        assert_eq!(world.core.gauges().1, held, "after {passed_ms} ms");
    }
}
