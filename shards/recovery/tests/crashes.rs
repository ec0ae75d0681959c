//! Power cuts everywhere: during recovery, during ordinary work, and in images with random damage.

use super::*;
use crate::planted::{PlantedMistake, plant};
use crate::sim::{CrashPattern, Fault, OperationKind};

/// A crash at any operation of a recovery, in any pattern, is recovered by the next one: same end, same log bytes, and what
/// was discarded is still in some file. And recovering a second time changes nothing.
#[test]
fn a_crash_during_recovery_is_recovered() {
    let log = three_segments();
    let torn = *log.records.range(SIZE + 4000..).next().unwrap().0;
    log.disk.damage(&log.path(torn), torn % SIZE + 100, b"damage").unwrap();
    let start = log.disk.crash(0, CrashPattern::KeepAll);
    let whole = start.kill();
    let expected = recover_on(&whole, &options()).unwrap().0;
    let files = log_files(&whole);
    let saved = read_file(&whole, &expected.discarded.as_ref().unwrap().saved_to).unwrap().unwrap();
    let again = recover_on(&whole, &options()).unwrap().0;
    assert_eq!((again.end, again.discarded, log_files(&whole)), (expected.end, None, files.clone()));
    let steps = whole.mutations() - start.kill().mutations();
    assert!(steps > 12, "{steps}");
    for cut in 0..steps {
        for pattern in CrashPattern::ALL {
            for seed in 0..6 {
                let disk = start.kill();
                disk.halt_after(cut);
                let _ = recover_on(&disk, &options());
                let disk = disk.crash(seed, pattern);
                let after = recover_on(&disk, &options()).unwrap().0;
                let context = format!("cut {cut} {pattern:?} seed {seed}");
                assert_eq!(after.end, expected.end, "{context}");
                let files_after = log_files(&disk);
                for (path, bytes) in &files {
                    assert!(files_after.get(path) == Some(bytes), "{context}: {}", path.display());
                }
                let later = files_after.iter().filter(|(path, _)| !files.contains_key(*path));
                assert!(later.into_iter().all(|(_, bytes)| bytes.iter().all(|byte| *byte == 0)), "{context}");
                let kept = disk.paths().into_iter().filter(|path| path.to_string_lossy().contains("discarded-"));
                let kept: Vec<Vec<u8>> = kept.map(|path| read_file(&disk, &path).unwrap().unwrap()).collect();
                assert!(kept.contains(&saved), "{context}");
            }
        }
    }
}

/// Zeroing cannot repair the record that it cuts off: its body is all zeros but for one stale sector, so a torn zeroing that
/// hits only that sector would make it whole. Crash at each operation, in many ways.
#[test]
fn zeroing_does_not_revive_the_torn_record() {
    for body_bytes in [700, 3000] {
        let mut log = TestLog::new();
        log.append(300);
        log.sync_and_point().unwrap();
        let torn = log.try_append(&vec![0; body_bytes], b"KEYS\x01k1\x02").unwrap();
        log.sync().unwrap();
        log.disk.damage(&log.path(0), torn.next_multiple_of(512) + 100, b"stale").unwrap();
        let start = log.disk.crash(0, CrashPattern::KeepAll);
        for cut in 0..20 {
            for seed in 0..40 {
                let disk = start.kill();
                disk.halt_after(cut);
                let _ = recover_on(&disk, &options());
                let disk = disk.crash(seed, CrashPattern::SomeSectors);
                let end = recover_on(&disk, &options()).unwrap().0.end.0;
                assert_eq!(end, torn, "cut {cut} seed {seed}");
            }
        }
    }
}

/// Tears the first of two records, recovers, writes another of the same length in its place, and recovers again. Gives the end
/// where it should be, and where it is.
fn recover_over_a_ghost() -> (u64, u64) {
    let mut log = TestLog::new();
    log.append(400);
    log.sync_and_point().unwrap();
    let (torn, ghost) = (log.append(400), log.append(400));
    log.sync().unwrap();
    log.disk.damage(&log.path(torn), torn + 120, b"damage").unwrap();
    assert_eq!(log.recover().unwrap().0.end.0, torn);
    log.end = torn;
    assert_eq!(log.append(400), torn);
    assert_eq!(log.end, ghost);
    (ghost, log.recover().unwrap().0.end.0)
}

/// A stale record behind the cut never comes back. Without the zeroing the second record would be taken for new.
#[test]
fn ghosts_stay_away() {
    let (expected, end) = recover_over_a_ghost();
    assert_eq!(end, expected);
}

/// The test before this one fails without the zeroing: plant that.
#[test]
fn a_missing_zeroing_is_noticed() {
    let _planting = plant(PlantedMistake::NoZeroing);
    let (expected, end) = recover_over_a_ghost();
    assert!(end > expected, "the ghost is not seen");
}

/// Ordinary life: random appends, syncs, durable points and power cuts, recovered and continued again and again. Each
/// recovery yields exactly a prefix of what was written, with everything that was synced, and takes no ghosts.
#[test]
fn a_life_of_power_cuts() {
    for seed in 0..250 {
        let mut random = SimRandom::new(seed);
        let mut log = TestLog::new();
        log.recover().unwrap();
        for round in 0..5 {
            let mut synced = 0;
            log.disk.halt_after(random.below(60));
            let mut life = || -> io::Result<()> {
                let before = log.end;
                synced = before;
                loop {
                    let body_bytes = random.below(2000) as usize;
                    let mut body = vec![0; body_bytes];
                    random.fill(&mut body);
                    let value = "p".repeat(random.below(1500) as usize);
                    let properties = format!("KEYS\u{1}{value}k\u{2}");
                    let position = (log.end, log.records.clone());
                    if !log.disk.exists(&log.path(log.end))? {
                        // The next segment comes whole and durable, as the flush thread prepares it.
                        let temporary = log.paths.own().join("next");
                        let file = log.disk.open(&temporary, WRITE)?;
                        file.allocate(SIZE)?;
                        file.sync_data()?;
                        log.disk.rename(&temporary, &log.path(log.end))?;
                        log.disk.sync_directory(&log.paths.commit_log)?;
                    }
                    if SIZE - log.end % SIZE < 4500 {
                        let left = SIZE - log.end % SIZE;
                        let mut blank = [0; 8];
                        write_blank(&mut blank, left as u32);
                        log.write(log.end, &blank)?;
                        log.end += left;
                        continue;
                    }
                    if let Err(error) = log.try_append(&body, properties.as_bytes()) {
                        log.end = position.0;
                        return Err(error);
                    }
                    match random.below(4) {
                        0 => {
                            log.sync()?;
                            synced = log.end;
                        }
                        1 => {
                            log.sync()?;
                            synced = log.end;
                            log.sync_and_point()?;
                        }
                        _ => {}
                    }
                }
            };
            life().unwrap_err();
            let pattern = CrashPattern::ALL[random.below(5) as usize];
            log.disk = log.disk.crash(random.next_u64(), pattern);
            let context = format!("seed {seed} round {round} {pattern:?}");
            let (recovered, records) = log.recover().unwrap_or_else(|error| panic!("{context}: {error}"));
            let end = recovered.end.0;
            assert!(end >= synced, "{context}: ends at {end}, synced up to {synced}");
            let expected: Vec<_> = log.records_from(recovered.verified_from.0);
            let expected: Vec<_> = expected.into_iter().filter(|(start, _)| *start < end).collect();
            assert!(records == expected, "{context}: other records than those written");
            log.end = end;
            log.records.split_off(&end);
            let again = log.recover().unwrap().0;
            assert_eq!((again.end.0, again.discarded), (end, None), "{context}");
        }
    }
}

/// 2,000 images with random damage, with and without a durable point: recovery never panics and never hands out a record
/// that was not written. The records carry RocketMQ's appended CRC, as the body's CRC alone cannot promise that.
#[test]
fn damaged_images_yield_no_false_records() {
    let mut log = TestLog::new();
    log.property_crc = true;
    log.append_to(SIZE + 2000);
    log.sync_and_point().unwrap();
    log.append_to(2 * SIZE + 2000);
    log.sync().unwrap();
    let written = log.records_from(0);
    let files = log_files(&log.disk);
    let mut refused = 0;
    for seed in 0..2000 {
        let mut random = SimRandom::new(seed);
        let disk = log.disk.kill();
        if random.chance(1, 2) {
            disk.remove_file(&log.paths.durable_point()).unwrap();
        }
        for _ in 0..=random.below(4) {
            let (path, bytes) = files.iter().nth(random.below(files.len() as u64) as usize).unwrap();
            let at = random.below(SIZE);
            let count = [1, 4, 512, 3000][random.below(4) as usize].min(SIZE - at);
            let mut damage = vec![0; count as usize];
            match random.below(3) {
                0 => random.fill(&mut damage),
                1 => {}
                _ => {
                    let from = random.below(SIZE - count + 1) as usize;
                    damage.copy_from_slice(&bytes[from..from + count as usize]);
                }
            }
            disk.damage(path, at, &damage).unwrap();
        }
        let salvage = random.chance(1, 2);
        let max_unsynced_bytes = random.chance(1, 2).then_some(1000);
        let options = RecoveryOptions { salvage, max_unsynced_bytes, verify_property_crc: true, ..options() };
        let mut notes = Notes { from: Some(PhysicalOffset(random.below(3 * SIZE))), ..Notes::default() };
        match recover(&disk, &log.paths, &options, &mut notes) {
            Ok(recovered) => assert!(notes.records.iter().all(|(start, _)| *start < recovered.end.0)),
            Err(error) => {
                assert!(!salvage, "seed {seed}: {error}");
                refused += 1;
            }
        }
        assert!(notes.records.iter().all(|record| written.contains(record)), "seed {seed}");
    }
    assert!((100..1500).contains(&refused), "{refused}");
}

/// A failed sync loses pages that the page cache still shows as good. Recovery must not take such records for durable: it
/// reads what lies above the durable point from the disk itself. Fail a sync, let the process die, recover, cut the power.
#[test]
fn a_failed_sync_is_not_believed_after_a_restart() {
    let mut log = TestLog::new();
    log.append(300);
    log.sync_and_point().unwrap();
    let end = log.end;
    log.append(300);
    log.disk.inject(Fault::once(OperationKind::Sync, 0, libc::EIO));
    assert!(log.sync().is_err());
    let disk = log.disk.kill();
    assert_eq!(recover_on(&disk, &options()).unwrap().0.end.0, end);
    assert_eq!(recover_on(&disk.crash(0, CrashPattern::KeepNone), &options()).unwrap().0.end.0, end);
}

/// The same with a start that believes the page cache: catching up finds out that the disk lost what it showed, and names
/// the place. Nothing of it was ever claimed.
#[test]
fn catching_up_notices_a_failed_sync_of_the_last_run() {
    let mut log = TestLog::new();
    log.append(300);
    log.sync_and_point().unwrap();
    let end = log.end;
    log.append(300);
    log.disk.inject(Fault::once(OperationKind::Sync, 0, libc::EIO));
    assert!(log.sync().is_err());
    let disk = log.disk.kill();
    let options = RecoveryOptions { kernel: KernelRun::SameWithoutSync, ..options() };
    let recovered = recover_on(&disk, &options).unwrap().0;
    assert_eq!((recovered.end.0, recovered.durable_point.offset.0), (log.end, end));
    let error = recovered.catch_up.unwrap().run(&disk).unwrap_err();
    assert!(matches!(error, CatchUpError::Lost { at, .. } if at.0 == end), "{error}");
}

/// Records that a failed sync lost stay in the page cache, clean. The next start reads the disk, finds the end before them, and
/// appends there; the one after it may read through the page cache, and must not find them again behind the new record. All
/// records have one length, so that the next stale one begins where the new one ends. With and without a kernel that
/// is known to be the same.
#[test]
fn what_a_failed_sync_left_in_the_page_cache_does_not_come_back() {
    for kernel in [KernelRun::Restarted, KernelRun::Same] {
        let mut log = TestLog::new();
        log.append(300);
        log.sync_and_point().unwrap();
        let end = log.end;
        while log.end < SIZE - 1000 {
            log.append(300);
        }
        log.disk.inject(Fault::once(OperationKind::Sync, 0, libc::EIO));
        assert!(log.sync().is_err());
        log.disk = log.disk.kill();
        assert_eq!(log.recover_with(&RecoveryOptions { kernel, ..options() }).unwrap().0.end.0, end);
        log.end = end;
        log.append(300);
        log.disk = log.disk.kill();
        let options = RecoveryOptions { kernel: KernelRun::SameWithoutSync, ..options() };
        let (recovered, _) = log.recover_with(&options).unwrap();
        assert_eq!(recovered.end.0, log.end, "{kernel:?}");
        recovered.catch_up.unwrap().run(&log.disk).unwrap();
    }
}
