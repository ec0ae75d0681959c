//! The decision table: one test for each rule.

use super::*;
use crate::recovery::checkpoint::{Checkpoint, CheckpointFile};
use crate::sim::{CrashPattern, Fault, OperationKind};

/// A clean store is taken as it is: verification starts at the segment of the last record, the time is the last one's,
/// nothing is cut, and a second recovery says the same.
#[test]
fn a_clean_store_is_taken_as_it_is() {
    let mut log = three_segments();
    log.append(100);
    log.stop_cleanly();
    let (recovered, records) = log.recover().unwrap();
    assert_eq!((recovered.end, recovered.min), (PhysicalOffset(log.end), PhysicalOffset(0)));
    assert_eq!(recovered.verified_from, PhysicalOffset(2 * SIZE));
    assert_eq!(recovered.last_store_timestamp.0, log.time_ms as u64);
    assert_eq!(recovered.durable_point, log.point_at(log.end));
    assert!(recovered.was_clean && recovered.discarded.is_none() && recovered.messages.is_empty());
    assert_eq!(records, log.records_from(2 * SIZE));
    assert_eq!(log.recover().unwrap().0, recovered);
}

/// Behind the durable point an invalid record is a torn tail: it is cut with all that follows, saved aside, zeroed, and
/// later segments go.
#[test]
fn a_torn_tail_is_cut() {
    let log = three_segments();
    let torn = *log.records.range(SIZE + 4000..).next().unwrap().0;
    log.disk.damage(&log.path(torn), torn % SIZE + 100, b"damage").unwrap();
    let before = log_files(&log.disk);
    let (recovered, records) = log.recover().unwrap();
    assert_eq!(recovered.end, PhysicalOffset(torn));
    assert_eq!(recovered.verified_from, PhysicalOffset(SIZE));
    assert_eq!(records.last().unwrap().0, *log.records.range(..torn).next_back().unwrap().0);
    let discarded = recovered.discarded.unwrap();
    let saved = read_file(&log.disk, &discarded.saved_to).unwrap().unwrap();
    let tail: Vec<u8> = before.into_values().flatten().skip(torn as usize).collect();
    assert_eq!((discarded.from.0, discarded.bytes), (torn, saved.len() as u64));
    assert_eq!(saved, tail[..saved.len()]);
    assert!(tail[saved.len()..].iter().all(|byte| *byte == 0));
    let after = log_files(&log.disk);
    assert_eq!(after.len(), 2);
    assert!(after.values().next_back().unwrap()[(torn % SIZE) as usize..].iter().all(|byte| *byte == 0));
    assert!(recovered.messages.iter().any(|message| message.contains(&format!("cut the log at {torn}"))));
}

/// The same below the durable point is damage: refused with file, position and offset, and nothing is touched; salvage
/// cuts there and the next start is content.
#[test]
fn damage_below_the_durable_point_refuses() {
    let log = three_segments();
    let broken = *log.records.range(SIZE + 1000..).next().unwrap().0;
    log.disk.damage(&log.path(broken), broken % SIZE + 100, b"damage").unwrap();
    let before = log_files(&log.disk);
    let error = log.recover().unwrap_err();
    let RecoveryError::Damage { path, position, offset, .. } = &error else { panic!("{error}") };
    assert_eq!((path, *position, offset.0), (&log.path(broken), broken % SIZE, broken));
    assert!(error.to_string().contains("00000000000000008192"), "{error}");
    assert_eq!(log_files(&log.disk), before);
    let salvaged = log.recover_with(&RecoveryOptions { salvage: true, ..options() }).unwrap().0;
    assert_eq!(salvaged.end, PhysicalOffset(broken));
    assert!(salvaged.discarded.is_some() && salvaged.messages.iter().any(|message| message.starts_with("salvage")));
    assert_eq!(log.recover().unwrap().0.end, PhysicalOffset(broken));
}

/// A log that ends below its durable point refuses: by zeros, by a missing segment, and when all of it is gone.
#[test]
fn a_log_that_ends_below_the_durable_point_refuses() {
    let log = three_segments();
    let cut = *log.records.range(SIZE + 1000..).next().unwrap().0;
    log.disk.remove_file(&log.path(2 * SIZE)).unwrap();
    log.disk.damage(&log.path(cut), cut % SIZE, &vec![0; (SIZE - cut % SIZE) as usize]).unwrap();
    let ends = |log: &TestLog| match log.recover().unwrap_err() {
        RecoveryError::EndsBelowDurablePoint { end, durable, .. } => {
            assert!(durable > end);
            end.0
        }
        other => panic!("{other}"),
    };
    assert_eq!(ends(&log), cut);
    log.disk.remove_file(&log.path(SIZE)).unwrap();
    assert_eq!(ends(&log), SIZE);
    log.disk.remove_file(&log.path(0)).unwrap();
    assert_eq!(ends(&log), 0);
    let salvaged = log.recover_with(&RecoveryOptions { salvage: true, ..options() }).unwrap().0;
    assert_eq!((salvaged.end, salvaged.min), (PhysicalOffset(2 * SIZE), PhysicalOffset(2 * SIZE)));
    assert_eq!(log.recover().unwrap().0.end, salvaged.end);
}

/// A valid log that the durable point does not fit was continued by another program: a warning, and a new point. Tried
/// with other records from before the point on, of other and of the same lengths.
#[test]
fn a_point_that_does_not_fit_is_derived_anew() {
    for body_bytes in [650, 700] {
        let mut log = three_segments();
        let point = DurablePointFile::load(&log.disk, &log.paths).unwrap();
        let from = *log.records.range(SIZE + 1000..).next().unwrap().0;
        log.disk.remove_file(&log.path(2 * SIZE)).unwrap();
        log.disk.damage(&log.path(from), from % SIZE, &vec![0; (SIZE - from % SIZE) as usize]).unwrap();
        log.end = from;
        while log.end < SIZE + 5000 {
            let body = vec![9; body_bytes];
            log.try_append(&body, b"KEYS\x01k1\x02TAGS\x01TagA\x02").unwrap();
        }
        let (recovered, records) = log.recover().unwrap();
        assert_eq!(recovered.end, PhysicalOffset(log.end));
        assert_eq!(records, log.records_from(SIZE));
        assert!(recovered.messages.iter().any(|message| message.contains("does not fit")), "{:?}", recovered.messages);
        let new = DurablePointFile::load(&log.disk, &log.paths).unwrap();
        assert_eq!(new, StoredPoint::Valid(log.point_at(log.end)));
        assert_ne!(new, point);
        assert!(log.recover().unwrap().0.messages.is_empty());
    }
}

/// A point below a log whose beginning has gone says nothing; one at its very beginning fits.
#[test]
fn retention_does_not_upset_the_point() {
    let log = three_segments();
    DurablePointFile::open(&log.disk, &log.paths).unwrap().replace(log.point_at(SIZE)).unwrap();
    log.disk.remove_file(&log.path(0)).unwrap();
    let recovered = log.recover().unwrap().0;
    assert!(recovered.messages.is_empty(), "{:?}", recovered.messages);
    assert_eq!((recovered.min, recovered.end), (PhysicalOffset(SIZE), PhysicalOffset(log.end)));
    DurablePointFile::open(&log.disk, &log.paths).unwrap().replace(log.point_at(SIZE)).unwrap();
    log.disk.remove_file(&log.path(SIZE)).unwrap();
    let recovered = log.recover().unwrap().0;
    assert!(recovered.messages[0].contains("lies below the log"));
    assert_eq!((recovered.min, recovered.end), (PhysicalOffset(2 * SIZE), PhysicalOffset(log.end)));
}

/// Without a durable point RocketMQ's rules choose the start: after a clean stop the newest segment, otherwise the newest
/// one whose first record is older than the checkpoint, and the first one when the checkpoint is zero.
#[test]
fn a_store_of_java_follows_its_rules() {
    let log = three_segments();
    log.disk.remove_file(&log.paths.durable_point()).unwrap();
    let verified_from = || {
        let recovered = log.recover().unwrap().0;
        log.disk.remove_file(&log.paths.durable_point()).unwrap();
        assert_eq!(recovered.end, PhysicalOffset(log.end));
        recovered.verified_from.0
    };
    assert_eq!(verified_from(), 0);
    let time_of = |offset: u64| {
        let (_, bytes) = log.records.range(offset..).next().unwrap();
        RecordView::parse(bytes, ringmq_protocol::record::CrcCheck::Skip).unwrap().store_timestamp()
    };
    let (mut checkpoint, _) = CheckpointFile::open(&log.disk, &log.paths).unwrap();
    let mut set = |physic: i64, logics: i64| {
        let fields = Checkpoint { physic_timestamp_ms: physic, logics_timestamp_ms: logics, ..Checkpoint::default() };
        checkpoint.store(&fields).unwrap();
    };
    set(time_of(SIZE) + 3000, i64::MAX);
    assert_eq!(verified_from(), SIZE);
    set(i64::MAX, time_of(SIZE) + 2999);
    assert_eq!(verified_from(), 0);
    set(time_of(2 * SIZE) + 3000, time_of(2 * SIZE) + 3000);
    assert_eq!(verified_from(), 2 * SIZE);
    let indexed = log.recover_with(&RecoveryOptions { index_is_safe: true, ..options() }).unwrap().0;
    assert_eq!(indexed.verified_from, PhysicalOffset(0));
    log.disk.remove_file(&log.paths.durable_point()).unwrap();
    set(0, 0);
    log.disk.remove_file(&log.paths.abort()).unwrap();
    assert_eq!(verified_from(), 2 * SIZE);
    let newest = log.path(2 * SIZE);
    log.disk.damage(&newest, 20, &[0xFF; 20]).unwrap();
    let recovered = log.recover().unwrap().0;
    assert_eq!((recovered.verified_from.0, recovered.end.0), (SIZE, 2 * SIZE));
}

/// In SYNC_FLUSH a valid record more than one group behind an invalid one shows damage; within one group it is a torn
/// tail, and in ASYNC_FLUSH always.
#[test]
fn valid_records_far_behind_mean_damage_when_syncing() {
    let log = three_segments();
    let torn = *log.records.range(SIZE + 4000..).next().unwrap().0;
    let last = *log.records.last_key_value().unwrap().0;
    log.disk.damage(&log.path(torn), torn % SIZE + 100, b"damage").unwrap();
    let with = |bytes: u64, salvage: bool| {
        let disk = log.disk.kill();
        recover_on(&disk, &RecoveryOptions { max_unsynced_bytes: Some(bytes), salvage, ..options() })
    };
    match with(last - torn, false).unwrap_err() {
        RecoveryError::ValidBehindInvalid { offset, valid_at, .. } => assert_eq!((offset.0, valid_at.0), (torn, last)),
        other => panic!("{other}"),
    }
    assert_eq!(with(last - torn, true).unwrap().0.end.0, torn);
    assert_eq!(with(last - torn + 1, false).unwrap().0.end.0, torn);
    assert_eq!(log.recover().unwrap().0.end.0, torn);
}

/// Files that were only prepared are not read, in either flush mode and after either stop: there are gigabytes of them.
#[test]
fn prepared_segments_are_not_read() {
    for (is_sync, was_clean) in [(false, false), (false, true), (true, false), (true, true)] {
        let log = three_segments();
        let prepared: Vec<PathBuf> = (3..7).map(|number| log.path(number * SIZE)).collect();
        for path in &prepared {
            log.disk.open(path, WRITE).unwrap().set_length(SIZE).unwrap();
        }
        if was_clean {
            log.stop_cleanly();
        }
        let disk = log.disk.kill();
        let before = disk.operations().len();
        let options = RecoveryOptions { max_unsynced_bytes: is_sync.then_some(512), ..options() };
        assert_eq!(recover_on(&disk, &options).unwrap().0.end.0, log.end);
        let operations = disk.operations().split_off(before);
        let reads = operations.iter().filter(|operation| operation.kind == OperationKind::Read);
        let (of_prepared, others): (Vec<_>, Vec<_>) = reads.partition(|read| prepared.contains(&read.path));
        assert!(of_prepared.is_empty() && !others.is_empty(), "{is_sync} {was_clean}: {of_prepared:?}");
    }
}

/// A sink that lags gets older segments too, from the boundary at or below what it asks for; damage found there refuses.
#[test]
fn a_sink_may_ask_for_an_earlier_start() {
    let log = three_segments();
    let mut notes = Notes { from: Some(PhysicalOffset(5000)), ..Notes::default() };
    let recovered = recover(&log.disk, &log.paths, &options(), &mut notes).unwrap();
    assert_eq!(recovered.verified_from, PhysicalOffset(0));
    assert_eq!(notes.records, log.records_from(0));
    log.disk.damage(&log.path(0), 100, b"damage").unwrap();
    assert_eq!(recover_on(&log.disk, &options()).unwrap().0.end.0, log.end);
    let mut notes = Notes { from: Some(PhysicalOffset(5000)), ..Notes::default() };
    let error = recover(&log.disk, &log.paths, &options(), &mut notes).unwrap_err();
    assert!(matches!(error, RecoveryError::Damage { offset: PhysicalOffset(0), .. }), "{error}");
}

/// An empty store begins at 0; queues without a log are refused, as Java would delete them.
#[test]
fn nothing_is_a_new_store_unless_there_are_queues() {
    let log = TestLog::new();
    let recovered = log.recover().unwrap().0;
    assert_eq!((recovered.end.0, recovered.min.0, recovered.durable_point), (0, 0, log.point_at(0)));
    log.disk.remove_file(&log.paths.durable_point()).unwrap();
    let queue = log.paths.consume_queue().join("TopicTest/0");
    log.disk.create_directories(&queue).unwrap();
    assert!(log.recover().is_ok());
    log.disk.remove_file(&log.paths.durable_point()).unwrap();
    log.disk.open(&queue.join(file_name(PhysicalOffset(0))), WRITE).unwrap().set_length(20).unwrap();
    assert!(matches!(log.recover().unwrap_err(), RecoveryError::LogMissing { .. }));
}

/// After the death of the process records may be valid in the page cache only. Recovery takes them, so it must make them
/// durable: kill, recover, and cut the power.
#[test]
fn recovery_makes_durable_what_it_takes() {
    let mut log = three_segments();
    log.append(300);
    log.append(300);
    let disk = log.disk.kill();
    assert_eq!(recover_on(&disk, &options()).unwrap().0.end.0, log.end);
    for pattern in CrashPattern::ALL {
        let after = recover_on(&disk.crash(1, pattern), &options()).unwrap().0;
        assert_eq!((after.end.0, after.messages), (log.end, Vec::new()));
    }
}

/// While the kernel runs, the scan begins at the last record below the durable point, or where the sink wants it to. If
/// the record there is not the noted one, or the sink's place is no record, it begins at the segment as ever.
#[test]
fn the_same_kernel_needs_no_look_below_the_point() {
    let log = three_segments();
    let point = match DurablePointFile::load(&log.disk, &log.paths).unwrap() {
        StoredPoint::Valid(point) => point.last_record.unwrap().start,
        other => panic!("{other:?}"),
    };
    let options = RecoveryOptions { kernel: KernelRun::Same, ..options() };
    let from = |disk: &SimDisk, wanted: Option<u64>| {
        let mut notes = Notes { from: wanted.map(PhysicalOffset), ..Notes::default() };
        let recovered = recover(disk, &log.paths, &options, &mut notes).unwrap();
        assert_eq!((recovered.end.0, recovered.catch_up), (log.end, None));
        assert_eq!(notes.records, log.records_from(recovered.verified_from.0));
        recovered.verified_from.0
    };
    let second = *log.records.keys().nth(1).unwrap();
    assert_eq!(from(&log.disk.kill(), None), point.0);
    assert_eq!(from(&log.disk.kill(), Some(point.0 + 1)), point.0);
    assert_eq!(from(&log.disk.kill(), Some(second)), second);
    assert_eq!(from(&log.disk.kill(), Some(second + 1)), 0);
    let disk = log.disk.kill();
    let other =
        DurablePoint { offset: PhysicalOffset(log.end), last_record: Some(LastRecord { start: point, crc: 1 }) };
    DurablePointFile::open(&disk, &log.paths).unwrap().replace(other).unwrap();
    assert_eq!(from(&disk, None), SIZE);
}

/// A start that believes the page cache changes nothing that is durable and waits for nothing; the catching up makes all
/// of it durable, and then the new point holds.
#[test]
fn catching_up_makes_durable_what_was_believed() {
    let mut log = three_segments();
    // More than the block of the end, which is read around the page cache and thereby written.
    for _ in 0..6 {
        log.append(1000);
    }
    let disk = log.disk.kill();
    let before = DurablePointFile::load(&disk, &log.paths).unwrap();
    let mutations = disk.mutations();
    let options = RecoveryOptions { kernel: KernelRun::SameWithoutSync, ..options() };
    let recovered = recover_on(&disk, &options).unwrap().0;
    assert_eq!((recovered.end.0, disk.mutations()), (log.end, mutations));
    assert_eq!(StoredPoint::Valid(recovered.durable_point), before);
    let lost = recover_on(&disk.crash(1, CrashPattern::KeepNone), &super::options()).unwrap().0;
    assert!(lost.end.0 < log.end);
    let catch_up = recovered.catch_up.unwrap();
    assert_eq!(catch_up.point().offset.0, log.end);
    catch_up.run(&disk).unwrap();
    DurablePointFile::open(&disk, &log.paths).unwrap().advance(catch_up.point()).unwrap();
    for pattern in CrashPattern::ALL {
        let after = recover_on(&disk.crash(1, pattern), &super::options()).unwrap().0;
        assert_eq!((after.end.0, after.messages), (log.end, Vec::new()));
    }
}

/// A record that is whole but says that it lies elsewhere is stale: the log ends before it.
#[test]
fn a_stale_record_ends_the_log() {
    let mut log = TestLog::new();
    log.append(500);
    log.sync_and_point().unwrap();
    let stale = log.records[&0].clone();
    log.write(log.end, &stale).unwrap();
    let recovered = log.recover().unwrap().0;
    assert_eq!(recovered.end.0, log.end);
    assert!(recovered.messages[0].contains("stale"), "{:?}", recovered.messages);
}

/// The search for lost sectors takes no whole record for torn: records with empty and with zero bodies, with and without
/// properties, at every position relative to the sectors, all above the durable point.
#[test]
fn whole_records_are_never_taken_for_torn() {
    let mut log = TestLog::new();
    log.recover().unwrap();
    for (index, body_bytes) in (0..1100).step_by(7).enumerate() {
        let properties: &[u8] = if index % 2 == 0 { b"" } else { b"K\x01v\x02" };
        log.try_append(&vec![0; body_bytes], properties).unwrap();
    }
    let (recovered, records) = log.recover().unwrap();
    assert_eq!((recovered.end.0, recovered.discarded), (log.end, None));
    assert_eq!(records, log.records_from(0));
    let sectors =
        |edge: u64| log.records.iter().any(|(start, bytes)| (start + bytes.len() as u64 - edge).is_multiple_of(512));
    assert!(sectors(0) || sectors(1) || sectors(2), "some record ends at a sector's edge");
}

/// A blank is believed only if its length leads exactly to the end of the file.
#[test]
fn a_blank_must_lead_to_the_end_of_its_file() {
    let mut log = TestLog::new();
    log.append_to(SIZE);
    log.sync_and_point().unwrap();
    let recovered = log.recover().unwrap().0;
    assert_eq!(recovered.end.0, log.end);
    let blank = log.records.range(..SIZE).next_back().map(|(start, bytes)| start + bytes.len() as u64).unwrap();
    log.disk.damage(&log.path(blank), blank + 3, &[0x55]).unwrap();
    let error = log.recover_with(&RecoveryOptions { ..options() });
    assert_eq!(error.unwrap().0.end.0, log.end, "the segment before the point's is not read");
    let mut notes = Notes { from: Some(PhysicalOffset(0)), ..Notes::default() };
    let error = recover(&log.disk, &log.paths, &options(), &mut notes).unwrap_err();
    assert!(matches!(error, RecoveryError::Damage { offset, .. } if offset.0 == blank), "{error}");
}

/// When the tail cannot be saved aside the log stays as it is, and a later start succeeds.
#[test]
fn no_room_for_the_tail_changes_nothing() {
    let log = three_segments();
    let torn = *log.records.range(SIZE + 4000..).next().unwrap().0;
    log.disk.damage(&log.path(torn), torn % SIZE + 100, b"damage").unwrap();
    let before = log_files(&log.disk);
    log.disk.inject(Fault { path_contains: "discarded".into(), ..Fault::once(OperationKind::Write, 0, libc::ENOSPC) });
    assert!(log.recover().is_err());
    assert_eq!(log_files(&log.disk), before);
    assert_eq!(log.recover().unwrap().0.end.0, torn);
}

/// A full log: its end is the limit of the last segment, behind a blank, where the next segment is still to come.
#[test]
fn the_end_may_be_behind_the_last_segment() {
    let mut log = TestLog::new();
    log.append_to(7500);
    let mut blank = [0; 8];
    write_blank(&mut blank, (SIZE - log.end) as u32);
    log.write(log.end, &blank).unwrap();
    log.sync().unwrap();
    let recovered = log.recover().unwrap().0;
    assert_eq!((recovered.end.0, recovered.discarded), (SIZE, None));
    assert_eq!(log.recover().unwrap().0.end.0, SIZE);
}

/// The same on the file system of the host, with its direct reads, holes and syncs: copy a torn log there and compare with
/// what the simulated disk makes of it.
#[test]
fn the_host_agrees_with_the_simulated_disk() {
    let log = three_segments();
    let torn = *log.records.range(SIZE + 4000..).next().unwrap().0;
    log.disk.damage(&log.path(torn), torn % SIZE + 100, b"damage").unwrap();
    // A folder of a real disk that every user may write to: memory file systems know no direct access.
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let paths = StorePaths::new(directory.path());
    for path in log.disk.paths() {
        let target = directory.path().join(path.strip_prefix("/store").unwrap());
        match read_file(&log.disk, &path) {
            Ok(content) => std::fs::write(target, content.unwrap()).unwrap(),
            Err(_) => std::fs::create_dir_all(target).unwrap(),
        }
    }
    let expected = log.recover().unwrap().0;
    let recovered = recover(&crate::disk::RealDisk, &paths, &options(), &mut Notes::default()).unwrap();
    assert_eq!((recovered.end, recovered.durable_point), (expected.end, expected.durable_point));
    assert_eq!(
        recovered.discarded.map(|discarded| discarded.bytes),
        expected.discarded.map(|discarded| discarded.bytes)
    );
    for (path, bytes) in log_files(&log.disk) {
        assert_eq!(std::fs::read(paths.commit_log.join(path.file_name().unwrap())).unwrap(), bytes);
    }
    assert_eq!(recover(&crate::disk::RealDisk, &paths, &options(), &mut Notes::default()).unwrap().end, expected.end);
}
