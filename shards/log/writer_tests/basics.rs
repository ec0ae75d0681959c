//! Binding, pages, rolls.

use ringmq_protocol::record::{BLANK_BYTES, RecordError};

use super::*;

/// The mark at `physical`, as recovery reads it from the file.
fn blank_at(rig: &Rig, physical: u64) -> Option<u32> {
    match RecordView::parse(rig.in_file(physical, BLANK_BYTES), CrcCheck::Verify) {
        Err(RecordError::Blank { remaining }) => Some(remaining),
        _ => None,
    }
}

/// Goal: log order and queue order agree, for singles and batches of several queues. Method: bind a mixture; the rig reads each
/// record back; then write and compare the answers' offsets and the queues.
#[test]
fn offsets_are_bound_in_order() {
    let mut rig = Rig::new(Shape::default());
    let sizes = [&[300][..], &[200, 150, 170], &[400], &[120, 120]];
    for (number, sizes) in sizes.iter().enumerate() {
        rig.offer(number % 2, sizes, true).unwrap();
    }
    rig.run();
    let first: Vec<_> = rig.heard.settled.iter().map(|settled| (settled.physical, settled.queue_offset)).collect();
    assert_eq!(first, [(0, 0), (300, 0), (820, 1), (1220, 3)]);
    assert_eq!(rig.queues[0].published(), QueueOffset(2));
    assert_eq!(rig.queues[1].published(), QueueOffset(5));
    assert_eq!(rig.view.confirmed_record(), Some((1460, 1340)));
    assert!(rig.writer.is_idle());
}

/// Goal: store times never fall along the log, whatever the clock does. Method: step it back between two records.
#[test]
fn the_clock_may_step_back() {
    let mut rig = Rig::new(Shape::default());
    for now_ms in [5_000, 7_000, 3_000, 6_999, 7_001] {
        rig.now.wall_ms = now_ms;
        rig.offer(0, &[200], true).unwrap();
    }
    let times: Vec<_> = rig.records.values().map(|record| record_time(&record.bytes)).collect();
    assert_eq!(times, [5_000, 7_000, 7_000, 7_000, 7_001]);
    rig.run();
    assert_eq!(rig.view.confirmed_store_timestamp(), 7_001);
}

fn record_time(bytes: &[u8]) -> i64 {
    RecordView::parse(bytes, CrcCheck::Skip).unwrap().store_timestamp()
}

/// Goal: writes cover whole pages, the last page is written again when it grows, and its rest is zero. Method: two small groups in
/// one page, then one that crosses it; the ring is full of rubbish before.
#[test]
fn the_last_page_is_written_again() {
    let mut rig = Rig::new(Shape::default());
    // SAFETY: nothing was admitted yet.
    unsafe { rig.view.ring.slice_mut(0, 64 << 10) }.fill(0xEE);
    rig.offer(0, &[500], true).unwrap();
    let first = rig.begin_write().unwrap();
    assert_eq!((first.file_offset, first.length, first.end), (0, 4096, 500));
    rig.finish_write();
    rig.settle();
    rig.offer(0, &[600], true).unwrap();
    let second = rig.begin_write().unwrap();
    assert_eq!((second.file_offset, second.length, second.end), (0, 4096, 1100));
    rig.finish_write();
    assert!(rig.in_file(1100, 2996).iter().all(|byte| *byte == 0));
    rig.settle();
    rig.offer(0, &[2996], true).unwrap();
    let full = rig.begin_write().unwrap();
    assert_eq!((full.length, full.end), (4096, 4096));
    rig.finish_write();
    rig.settle();
    rig.offer(0, &[100], true).unwrap();
    let next = rig.begin_write().unwrap();
    assert_eq!((next.file_offset, next.length), (4096, 4096), "a full page is not written again");
    rig.finish_write();
    rig.settle();
}

/// Goal: the check above notices when the rest is not zeroed. Method: plant that.
#[test]
#[should_panic(expected = "zeros follow the data")]
fn a_dirty_rest_is_noticed() {
    let mut rig = Rig::new(Shape::default());
    rig.writer.plant(PlantedBug::LeaveRestOfPage);
    // SAFETY: nothing was admitted yet.
    unsafe { rig.view.ring.slice_mut(0, 8192) }.fill(0xEE);
    rig.offer(0, &[500], true).unwrap();
    rig.begin_write();
}

/// Goal: after a restart in the middle of a page the bytes before the end survive the rewriting of the page. Method: start there.
#[test]
fn a_restart_keeps_the_tail_page() {
    let mut rig = Rig::new(Shape { start: (16 << 10) + 5000, ..Shape::default() });
    assert_eq!(rig.offer(1, &[200], true), Ok(21_384));
    let operation = rig.begin_write().unwrap();
    assert_eq!((operation.segment, operation.file_offset, operation.end), (16 << 10, 4096, 21_584));
    rig.finish_write();
    rig.settle();
    assert!(rig.in_file(20_480, 904).iter().all(|byte| *byte == 0xA5));
    assert_eq!(rig.answers(0), [Verdict::Stored]);
    assert!(!rig.view.pin(0, 20_479), "what was there before the page of the start is not in the ring");
    assert!(rig.view.pin(0, 20_480), "nobody needs to read the page that is written again");
}

/// Goal: the end of a segment. Method: leave exactly 8 bytes (a record fits exactly), 9 to 40 bytes, and roll; look at the mark in
/// the file, at the rest of the segment, and at where the next record lies.
#[test]
fn rolls_leave_a_mark() {
    for left in [8, 9, 11, 40, 4095, 4096, 5000] {
        let mut rig = Rig::new(Shape::default());
        rig.add_segment();
        let segment = 16 << 10;
        rig.offer(0, &[segment - left], true).unwrap();
        let tight = left - 8;
        if tight >= overhead() {
            let mut fitting = Rig::new(Shape::default());
            fitting.offer(0, &[segment - left], true).unwrap();
            assert_eq!(fitting.offer(0, &[tight], true), Ok((segment - left) as u64), "fits exactly");
            assert_eq!(fitting.offer(0, &[overhead()], true), Err(AppendError::SegmentPending));
        }
        let next = (tight + 1).max(overhead());
        assert_eq!(rig.offer(0, &[next], true), Ok(segment as u64), "one byte too many goes to the next segment");
        rig.run();
        assert_eq!(blank_at(&rig, (segment - left) as u64), Some(left as u32));
        let rest = rig.in_file((segment - left + 8) as u64, left - 8);
        assert!(rest.iter().all(|byte| *byte == 0));
        assert_eq!(rig.answers(1), [Verdict::Stored]);
        assert_eq!(rig.view.confirmed(), (segment + next) as u64);
    }
}

/// Goal: a batch goes into one segment or into the next, never into both. Method: a batch whose first record would still fit.
#[test]
fn batches_are_not_split() {
    let mut rig = Rig::new(Shape::default());
    rig.offer(0, &[(16 << 10) - 1000], true).unwrap();
    assert_eq!(rig.offer(0, &[500, 500], true), Err(AppendError::SegmentPending));
    assert_eq!(rig.next_offsets[0], rig.queues[0].next_offset().0, "a refusal takes no offsets");
    rig.add_segment();
    assert_eq!(rig.offer(0, &[500, 500], true), Ok(16 << 10));
    rig.run();
    assert_eq!(blank_at(&rig, (16 << 10) - 1000), Some(1000));
}

/// Goal: several rolls wait in one turn and become one write per segment, in order. Method: fill three segments while nothing is
/// written.
#[test]
fn several_rolls_before_a_write() {
    let mut rig = Rig::new(Shape { ring_bytes: 256 << 10, ..Shape::default() });
    (0..4).for_each(|_| rig.add_segment());
    for _ in 0..4 {
        rig.offer(1, &[9_000], true).unwrap();
        rig.offer(2, &[5_000], true).unwrap();
    }
    let mut ends = Vec::new();
    while let Some(operation) = rig.begin_write() {
        ends.push((operation.segment, operation.end));
        assert!(rig.writer.next_write().is_none(), "one write in flight");
        rig.finish_write();
        rig.settle();
    }
    let segment = 16 << 10;
    let mark = 14_008;
    let expected: Vec<_> =
        (0..4).map(|number| (number * segment, number * segment + if number < 3 { mark } else { 14_000 })).collect();
    assert_eq!(ends, expected);
    assert_eq!(rig.heard.settled.len(), 8);
    assert_eq!(rig.writer.needed_from(), 3 * segment + 14_000);
}

/// Goal: a roll whose record has to wait for the next turn's headroom. Method: use the headroom up to just before the segment's
/// end; the roll happens, the record waits, the mark is written meanwhile, and a smaller record may go first.
#[test]
fn a_roll_may_precede_its_record() {
    let mut rig = Rig::new(Shape { ring_bytes: 32 << 10, ..Shape::default() });
    rig.add_segment();
    rig.offer(0, &[10_000], true).unwrap();
    assert_eq!(rig.offer(0, &[7_000], true), Err(AppendError::RingFull), "the headroom of this turn is used up");
    assert_eq!(rig.writer.end(), 16 << 10, "the segment is closed already");
    assert_eq!(rig.offer(1, &[200], true), Err(AppendError::RingFull));
    rig.run();
    assert_eq!(blank_at(&rig, 10_000), Some(6_384));
    // The mark was a part of the write, and the writer is idle after it.
    assert_eq!((rig.written, rig.view.confirmed()), (10_008, 10_000));
    assert!(rig.begin_write().is_none() && rig.writer.is_idle() && !rig.writer.has_unwritten());
    assert_eq!(rig.offer(1, &[200], true), Ok(16 << 10));
    assert_eq!(rig.offer(0, &[7_000], true), Ok((16 << 10) + 200));
    rig.run();
    assert!(rig.requests.iter().all(|request| request.answers == [Verdict::Stored]));

    // The mark may also be a write of its own.
    rig.add_segment();
    assert_eq!(rig.offer(0, &[9_500], true), Err(AppendError::RingFull), "this turn's headroom ends before it");
    let mark = rig.begin_write().map(|operation| operation.end);
    assert_eq!((mark, rig.writer.end()), (Some((16 << 10) + 7_208), 32 << 10));
    rig.finish_write();
    rig.settle();
    rig.writer.begin_turn();
    assert_eq!(rig.offer(0, &[9_500], true), Ok(32 << 10));
    rig.run();
    assert_eq!(blank_at(&rig, (16 << 10) + 7_200), Some(9_184));
}

/// Goal: what can never be stored is refused for good, and what can, is not. Method: the largest request and one byte more.
#[test]
fn the_largest_request() {
    let mut rig = Rig::new(Shape::default());
    let largest = (16 << 10) - 8;
    assert_eq!(rig.offer(0, &[largest + 1], true), Err(AppendError::TooLarge(16 << 10)));
    assert_eq!(rig.offer(0, &[largest], true), Ok(0));
    rig.run();
    rig.add_segment();
    assert_eq!(rig.offer(0, &[largest], true), Ok(16 << 10));
    rig.run();
    assert_eq!(blank_at(&rig, largest as u64), Some(8));
}

/// Goal: a missing segment is temporary, a full disk is told, and both end with the next segment. Method: the steps in turn.
#[test]
fn segments_that_are_not_ready() {
    let mut rig = Rig::new(Shape::default());
    rig.offer(0, &[16_000], true).unwrap();
    rig.run();
    let refusal = rig.offer(0, &[2_000], true).unwrap_err();
    assert!(refusal == AppendError::SegmentPending && refusal.is_temporary());
    rig.writer.set_disk_full(true);
    let refusal = rig.offer(0, &[2_000], true).unwrap_err();
    assert!(refusal == AppendError::DiskFull && !refusal.is_temporary());
    assert_eq!(rig.offer(0, &[300], true), Ok(16_000), "what fits is still taken");
    rig.add_segment();
    assert_eq!(rig.offer(0, &[2_000], true), Ok(16 << 10));
    rig.run();
    assert_eq!(rig.heard.settled.len(), 3);
}
