//! Who is answered when, and what failure means.

use super::*;

const DURABLE: Shape = Shape { write_kind: WriteKind::Durable, ..SYNC };

/// Goal: in each mode nothing is confirmed, shown or answered before its time. Method: hold the write, then the sync.
#[test]
fn each_mode_waits_for_its_completion() {
    for shape in [Shape::default(), SYNC, DURABLE] {
        let mut rig = Rig::new(shape);
        let waiting = rig.queues[0].arm_waiters(3, QueueOffset(0));
        assert_eq!(waiting, None);
        rig.offer(0, &[300], true).unwrap();
        rig.offer(0, &[200, 200], true).unwrap();
        let quiet = |rig: &mut Rig| {
            rig.settle();
            assert!(rig.heard.settled.is_empty() && rig.heard.woken.is_empty());
            assert_eq!((rig.view.confirmed(), rig.queues[0].bounds().1), (0, QueueOffset(0)));
            assert_eq!(rig.view.confirmed_record(), None);
        };
        quiet(&mut rig);
        assert!(rig.begin_sync().is_none(), "nothing is written yet");
        rig.begin_write().unwrap();
        quiet(&mut rig);
        assert!(rig.begin_sync().is_none(), "the write is in flight");
        rig.finish_write();
        if shape.flush_mode == FlushMode::Sync && shape.write_kind == WriteKind::Volatile {
            quiet(&mut rig);
            let sync = rig.begin_sync().unwrap();
            assert_eq!((sync.from, sync.end), (0, 700));
            quiet(&mut rig);
            rig.finish_sync();
        } else {
            assert!(rig.begin_sync().is_none(), "no sync is due in this mode");
        }
        rig.settle();
        let slots: Vec<_> = rig.heard.settled.iter().map(|settled| (settled.ticket.slot, settled.verdict)).collect();
        assert_eq!(slots, [(0, Verdict::Stored), (1, Verdict::Stored)]);
        assert_eq!(rig.heard.woken, [(0, 1 << 3)], "woken once");
        assert_eq!(rig.view.confirmed_record(), Some((700, 500)));
        let synced = if shape.flush_mode == FlushMode::Sync { 700 } else { 0 };
        assert_eq!(rig.view.synced(), synced);
    }
}

/// Goal: the rules that the rig checks after each step notice each planted mistake. Method: hold a write (or its sync) and settle.
#[test]
fn planted_mistakes_are_noticed() {
    let notices = |shape: Shape, bug: PlantedBug, words: &str| {
        let mut rig = Rig::new(shape);
        rig.writer.plant(bug);
        rig.offer(0, &[300], true).unwrap();
        rig.begin_write().unwrap();
        if matches!(bug, PlantedBug::AcknowledgeUnsynced) {
            rig.finish_write();
        }
        if matches!(bug, PlantedBug::SyncClaimsWriteInFlight) {
            let sync = rig.writer.next_sync().unwrap();
            rig.sync = Some(sync);
            rig.writer.sync_completed();
        }
        rig.writer.settle(rig.now.steady_ms, &mut rig.heard);
        let broken = rig.broken_rule().unwrap_or_default();
        assert!(broken.contains(words), "{bug:?}: {broken:?}");
    };
    for shape in [Shape::default(), SYNC, DURABLE] {
        notices(shape, PlantedBug::AcknowledgeUnwritten, "confirmed 300 although only 0");
        notices(shape, PlantedBug::PublishUnconfirmed, "shows 1 entries when 0");
    }
    notices(SYNC, PlantedBug::AcknowledgeUnsynced, "confirmed 300 although only 0");
    notices(SYNC, PlantedBug::SyncClaimsWriteInFlight, "confirmed 300 although only 0");
}

/// Goal: a write and a sync may be in flight together, and each completion confirms exactly its part. Method: three groups that
/// overlap in one page.
#[test]
fn groups_overlap() {
    let mut rig = Rig::new(SYNC);
    rig.offer(0, &[300], true).unwrap();
    rig.begin_write().unwrap();
    rig.offer(1, &[300], true).unwrap();
    rig.finish_write();
    assert_eq!(rig.begin_sync().unwrap().end, 300);
    assert_eq!(rig.begin_write().unwrap().end, 600);
    rig.offer(2, &[300], true).unwrap();
    rig.finish_write();
    assert!(rig.begin_sync().is_none(), "one sync in flight");
    assert_eq!(rig.begin_write().unwrap().end, 900);
    rig.settle();
    assert_eq!(rig.view.confirmed(), 0);
    rig.finish_sync();
    rig.settle();
    assert_eq!((rig.view.confirmed(), rig.view.synced()), (300, 300));
    assert_eq!(rig.begin_sync().map(|sync| (sync.from, sync.end)), Some((300, 600)));
    rig.finish_write();
    rig.finish_sync();
    rig.settle();
    assert_eq!(rig.view.confirmed(), 600);
    assert_eq!(rig.writer.needed_from(), 600);
    rig.begin_sync().unwrap();
    rig.finish_sync();
    rig.settle();
    assert_eq!((rig.view.confirmed(), rig.heard.settled.len()), (900, 3));
    assert!(rig.writer.is_idle());
}

/// Goal: `WAIT=false` is answered at the write in sync mode, once, while nobody sees the message before the sync. Method: such a
/// message between two that wait.
#[test]
fn messages_that_do_not_wait() {
    let mut rig = Rig::new(SYNC);
    rig.offer(0, &[300], true).unwrap();
    rig.offer(0, &[300, 200], false).unwrap();
    rig.offer(0, &[300], true).unwrap();
    rig.settle();
    assert!(rig.heard.settled.is_empty(), "not before the write");
    rig.write_all();
    rig.settle();
    assert_eq!(rig.answers(1), [Verdict::Stored]);
    assert_eq!((rig.heard.settled.len(), rig.queues[0].published(), rig.view.confirmed()), (1, QueueOffset(0), 0));
    rig.offer(0, &[300], false).unwrap();
    rig.begin_sync().unwrap();
    rig.finish_sync();
    rig.settle();
    assert_eq!(
        (rig.answers(0), rig.answers(1), rig.answers(2)),
        (&[Verdict::Stored][..], &[Verdict::Stored][..], &[Verdict::Stored][..])
    );
    assert_eq!(rig.answers(3), [], "bound behind the write");
    rig.write_all();
    rig.settle();
    assert_eq!((rig.answers(3), rig.queues[0].published()), (&[Verdict::Stored][..], QueueOffset(4)));
    rig.run();
    assert_eq!((rig.heard.settled.len(), rig.queues[0].published()), (4, QueueOffset(5)));
}

/// Goal: after `syncFlushTimeout` a waiting message is answered once with the time-out, and never again, neither when the sync
/// completes nor when the log fails. Method: let the time pass with the sync held.
#[test]
fn a_late_sync_is_told_once() {
    for fails in [false, true] {
        let mut rig = Rig::new(SYNC);
        rig.offer(0, &[300], true).unwrap();
        rig.now.steady_ms += 10;
        rig.offer(0, &[300], true).unwrap();
        rig.write_all();
        rig.begin_sync().unwrap();
        rig.now.steady_ms += TIMEOUT_MS - 11;
        rig.settle();
        assert!(rig.heard.settled.is_empty());
        rig.now.steady_ms += 1;
        rig.settle();
        assert_eq!((rig.answers(0), rig.answers(1)), (&[Verdict::FlushTimeout][..], &[][..]));
        rig.now.steady_ms += 10;
        rig.settle();
        rig.settle();
        assert_eq!(rig.answers(1), [Verdict::FlushTimeout]);
        if fails {
            rig.writer.fail(&mut rig.heard);
        } else {
            rig.finish_sync();
        }
        rig.settle();
        assert_eq!(rig.heard.settled.len(), 2, "nobody is answered twice");
        assert_eq!(rig.queues[0].published().0, if fails { 0 } else { 2 }, "late is not lost");
    }
}

/// Goal: in async mode a write that takes too long, around the page cache on a disk that hangs, is told like a late sync: once, in
/// time, and the message is there when the disk has gone on. Method: let the time pass with the write held.
#[test]
fn a_late_write_is_told_once() {
    let mut rig = Rig::new(Shape::default());
    rig.offer(0, &[300], true).unwrap();
    rig.begin_write().unwrap();
    rig.offer(0, &[300], false).unwrap();
    rig.now.steady_ms += TIMEOUT_MS - 1;
    rig.settle();
    assert!(rig.heard.settled.is_empty());
    rig.now.steady_ms += 1;
    rig.settle();
    rig.settle();
    assert_eq!((rig.answers(0), rig.answers(1)), (&[Verdict::FlushTimeout][..], &[Verdict::FlushTimeout][..]));
    rig.finish_write();
    rig.settle();
    assert_eq!(rig.queues[0].published(), QueueOffset(1), "late is not lost");
    rig.write_all();
    rig.settle();
    assert_eq!((rig.heard.settled.len(), rig.queues[0].published()), (2, QueueOffset(2)), "nobody is answered twice");
}

/// Goal: steps of the wall clock neither hasten nor delay a time-out. Method: bind before and after steps forwards and back, hold the
/// sync, let the time pass.
#[test]
fn time_outs_ignore_the_wall_clock() {
    let mut rig = Rig::new(SYNC);
    let start_ms = rig.now.wall_ms;
    for wall_ms in [start_ms, start_ms + 10 * TIMEOUT_MS, start_ms - 600_000] {
        rig.now.wall_ms = wall_ms;
        rig.offer(0, &[300], true).unwrap();
    }
    rig.write_all();
    rig.begin_sync().unwrap();
    rig.now.steady_ms += TIMEOUT_MS - 1;
    rig.settle();
    assert!(rig.heard.settled.is_empty());
    rig.now.steady_ms += 1;
    rig.settle();
    assert!((0..3).all(|request| rig.answers(request) == [Verdict::FlushTimeout]));
}

/// Goal: after a failure every waiting request hears of it once, new ones are refused, and completions that still arrive confirm
/// nothing and claim nothing synced. Method: fail with a write and a sync in flight, then complete both.
#[test]
fn failure_is_final() {
    for shape in [Shape::default(), SYNC, DURABLE] {
        let mut rig = Rig::new(shape);
        rig.offer(0, &[300], true).unwrap();
        rig.write_all();
        let has_sync = rig.begin_sync().is_some();
        rig.offer(1, &[300], true).unwrap();
        rig.begin_write().unwrap();
        rig.offer(2, &[300], false).unwrap();
        let synced = rig.view.synced();
        rig.writer.fail(&mut rig.heard);
        assert!(rig.writer.has_failed());
        assert!(rig.heard.settled.iter().all(|settled| settled.verdict == Verdict::Failed));
        assert_eq!(rig.heard.settled.len(), 3, "{shape:?}");
        assert_eq!(rig.writer.admit(300, 1, &rig.queues[0]), Err(AppendError::Failed));
        assert!(!AppendError::Failed.is_temporary());
        rig.finish_write();
        if has_sync {
            rig.finish_sync();
        }
        assert!(rig.writer.next_write().is_none() && rig.writer.next_sync().is_none());
        rig.writer.settle(rig.now.steady_ms + 10 * TIMEOUT_MS, &mut rig.heard);
        rig.writer.fail(&mut rig.heard);
        assert_eq!((rig.heard.settled.len(), rig.view.confirmed()), (3, 0));
        assert_eq!(rig.view.synced(), synced, "what completes after a failure proves nothing");
        assert!(rig.queues.iter().all(|queue| queue.published() == QueueOffset(0)));
    }
}

/// Goal: records whose queue tail is full are safe but wait, in order, and nobody behind them is shown or answered first. Method:
/// admit records, then use up the pool behind the writer's back by another queue's entries, then flush those.
#[test]
fn a_full_tail_keeps_records_pending() {
    let mut rig = Rig::new(Shape::default());
    for number in 0..150 {
        rig.offer(0, &[overhead()], true).unwrap();
        if number % 10 == 0 {
            rig.offer(1, &[overhead()], true).unwrap();
        }
        if number == 20 {
            rig.run();
        }
    }
    let other = rig.store.get_or_create("other", QueueId(0)).unwrap();
    let mut used = 0;
    let entry = QueueEntry { physical: crate::types::PhysicalOffset(1), size: 1, tags_code: 0 };
    while other.append(&rig.writer.pool, entry).is_ok() {
        used += 1;
        assert!(used < 1_000_000);
    }
    rig.run();
    let waiting = rig.writer.pending();
    let published: u64 = rig.queues.iter().map(|queue| queue.published().0).sum();
    assert_eq!(published + waiting as u64, rig.records.len() as u64);
    assert!(waiting > 0);
    let first_waiting = *rig.records.keys().nth(published as usize).unwrap();
    assert_eq!(rig.view.confirmed(), rig.writer.end());
    assert!(rig.view.shown().0 <= first_waiting, "what waits is not in a tail, and a flush would not write it");
    let _ = other.publish(QueueOffset(used), crate::types::StoreTimestamp(1));
    rig.store.flush_dirty().unwrap();
    rig.settle();
    assert_eq!((rig.writer.pending(), rig.heard.settled.len()), (0, rig.requests.len()));
    assert_eq!(rig.view.shown(), (rig.view.confirmed(), rig.view.confirmed_store_timestamp()));
    let order: Vec<_> = rig.heard.settled.iter().map(|settled| settled.ticket.slot).collect();
    assert!(order.is_sorted(), "answers come in the order of the log");
}

/// Goal: what `needed_from` lets go is never written or synced again. Method: random groups with rolls in both sync ways; each
/// operation is compared with the value before it.
#[test]
fn needed_from_is_a_promise() {
    for shape in [Shape::default(), SYNC, DURABLE] {
        let mut rig = Rig::new(shape);
        let mut random = SimRandom::new(5);
        let mut promised = 0;
        for _ in 0..400 {
            match rig.offer(0, &[overhead() + random.below(6_000) as usize], true) {
                Err(AppendError::SegmentPending) => rig.add_segment(),
                outcome => assert!(outcome.is_ok() || outcome == Err(AppendError::RingFull)),
            }
            if let Some(operation) = rig.begin_write() {
                assert!(operation.segment + shape.segment_bytes > promised);
            }
            if random.chance(1, 2) {
                rig.finish_write();
            }
            if let Some(sync) = rig.begin_sync() {
                assert!(sync.from >= promised);
            }
            if random.chance(1, 2) {
                rig.finish_sync();
            }
            rig.settle();
            assert!(rig.writer.needed_from() >= promised);
            promised = rig.writer.needed_from();
            rig.writer.begin_turn();
        }
        assert!(promised > 10 * shape.segment_bytes);
    }
}
