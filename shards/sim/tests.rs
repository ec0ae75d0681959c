use std::path::Path;

use super::*;
use crate::disk::{AlignedBuffer, Disk, DiskFile, LockOutcome, OpenOptions, create_directories_durably, read_file};

const WRITE: OpenOptions = OpenOptions { write: true, create: true, direct: false, data_sync: false };

fn disk_with_file(name: &str) -> (SimDisk, Box<dyn DiskFile>) {
    let disk = SimDisk::new();
    create_directories_durably(&disk, Path::new("/d")).unwrap();
    let file = disk.open(Path::new(name), WRITE).unwrap();
    disk.sync_directory(Path::new("/d")).unwrap();
    (disk, file)
}

/// Only what was synced is sure to survive: write, sync, write again, and look at the disk after each kind of end.
#[test]
fn synced_bytes_survive_and_others_may_not() {
    let (disk, file) = disk_with_file("/d/a");
    let path = Path::new("/d/a");
    file.write_all_at(b"first", 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(b"other", 0).unwrap();
    file.write_all_at(&[7; 2000], 1024).unwrap();
    assert_eq!(read_file(&disk.crash(1, CrashPattern::KeepNone), path).unwrap().unwrap(), b"first");
    let all = read_file(&disk.crash(1, CrashPattern::KeepAll), path).unwrap().unwrap();
    assert_eq!((all.len(), &all[..5], all[3023]), (3024, &b"other"[..], 7));
    let killed = disk.kill();
    assert_eq!(read_file(&killed, path).unwrap().unwrap(), all);
    assert_eq!(read_file(&killed.crash(1, CrashPattern::KeepNone), path).unwrap().unwrap(), b"first");
}

/// Torn writes tear at sectors: a last write of four sectors leaves between none and three of them, in order, and the
/// random patterns reach every combination of two writes.
#[test]
fn writes_tear_at_sectors() {
    let path = Path::new("/d/a");
    let mut prefixes = std::collections::BTreeSet::new();
    let mut pairs = std::collections::BTreeSet::new();
    let mut holes = 0;
    for seed in 0..200 {
        let (disk, file) = disk_with_file("/d/a");
        file.write_all_at(&[1; 4096], 0).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(&[2; 512], 4096).unwrap();
        file.write_all_at(&[3; 2048], 0).unwrap();
        let torn = read_file(&disk.crash(seed, CrashPattern::TornLastWrite), path).unwrap().unwrap();
        assert_eq!(torn[4096], 2);
        let sectors: Vec<u8> = torn.chunks(512).map(|sector| sector[0]).take(4).collect();
        let kept = sectors.iter().take_while(|byte| **byte == 3).count();
        assert!(sectors[kept..].iter().all(|byte| *byte == 1));
        prefixes.insert(kept);
        let some = read_file(&disk.crash(seed, CrashPattern::SomeWrites), path).unwrap().unwrap();
        assert!(some[..2048].iter().all(|byte| *byte == some[0]));
        pairs.insert((some[0], some.len() > 4096));
        let sectors = read_file(&disk.crash(seed, CrashPattern::SomeSectors), path).unwrap().unwrap();
        holes += u32::from(sectors[0] == 1 && sectors[512] == 3);
    }
    assert_eq!(prefixes.len(), 4);
    assert_eq!(pairs.len(), 4);
    assert!(holes > 0);
}

/// Two writes into one sector are one page in memory: whatever survives of the later one contains the earlier one.
#[test]
fn a_sector_holds_a_prefix_of_its_writes() {
    for seed in 0..100 {
        let (disk, file) = disk_with_file("/d/a");
        file.write_all_at(b"aa", 0).unwrap();
        file.write_all_at(b"bb", 2).unwrap();
        let after = read_file(&disk.crash(seed, CrashPattern::SomeWrites), Path::new("/d/a")).unwrap().unwrap();
        assert!([&b""[..], b"aa", b"aabb"].contains(&after.as_slice()), "{after:?}");
    }
}

/// Names are durable only after their directory was synced: create, rename and remove, and cut the power before and
/// after the sync.
#[test]
fn names_need_a_directory_sync() {
    let (disk, file) = disk_with_file("/d/a");
    file.write_all_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    disk.open(Path::new("/d/new"), WRITE).unwrap().sync_data().unwrap();
    disk.rename(Path::new("/d/a"), Path::new("/d/b")).unwrap();
    let before = disk.crash(0, CrashPattern::KeepNone);
    assert_eq!(before.paths(), [Path::new("/d"), Path::new("/d/a")]);
    disk.sync_directory(Path::new("/d")).unwrap();
    disk.remove_file(Path::new("/d/b")).unwrap();
    let after = disk.crash(0, CrashPattern::KeepNone);
    assert_eq!(after.paths(), [Path::new("/d"), Path::new("/d/b"), Path::new("/d/new")]);
    assert_eq!(read_file(&after, Path::new("/d/b")).unwrap().unwrap(), b"x");
    assert_eq!(disk.paths(), [Path::new("/d"), Path::new("/d/new")]);
    disk.create_directories(Path::new("/e/f")).unwrap();
    assert!(!disk.crash(0, CrashPattern::KeepNone).exists(Path::new("/e")).unwrap());
}

/// A rename is never half done: with every seed either the old or the new name exists, never none.
#[test]
fn a_rename_is_atomic() {
    for seed in 0..50 {
        let (disk, file) = disk_with_file("/d/a");
        file.sync_data().unwrap();
        disk.rename(Path::new("/d/a"), Path::new("/d/b")).unwrap();
        disk.rename(Path::new("/d/b"), Path::new("/d/c")).unwrap();
        assert_eq!(disk.crash(seed, CrashPattern::SomeWrites).paths().len(), 2);
    }
}

/// O_DSYNC makes each write durable on return, also over older unsynced bytes of the same sector.
#[test]
fn data_sync_writes_are_durable_on_return() {
    let (disk, file) = disk_with_file("/d/a");
    let path = Path::new("/d/a");
    file.write_all_at(b"old", 0).unwrap();
    let synced = disk.open(path, OpenOptions { data_sync: true, ..WRITE }).unwrap();
    synced.write_all_at(b"new", 0).unwrap();
    for pattern in CrashPattern::ALL {
        assert_eq!(read_file(&disk.crash(3, pattern), path).unwrap().unwrap(), b"new");
    }
}

/// A direct file accepts aligned access and stops the test at anything else.
#[test]
fn direct_access_must_be_aligned() {
    let (disk, _) = disk_with_file("/d/a");
    let direct = disk.open(Path::new("/d/a"), OpenOptions { direct: true, ..WRITE }).unwrap();
    let buffer = AlignedBuffer::zeroed(8192);
    direct.write_all_at(&buffer, 4096).unwrap();
    let attempt = |length: usize, offset: u64| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| direct.write_all_at(&buffer[..length], offset)))
            .is_err()
    };
    assert!(attempt(4096, 512));
    assert!(attempt(512, 4096));
}

/// Faults strike exactly the operation they are told to, and a failed sync loses its bytes while the next one succeeds.
#[test]
fn faults_strike_where_ordered() {
    let (disk, file) = disk_with_file("/d/a");
    disk.inject(Fault::once(OperationKind::Write, 1, libc::ENOSPC));
    file.write_all_at(b"one", 0).unwrap();
    assert_eq!(file.write_all_at(b"two", 3).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    file.write_all_at(b"six", 3).unwrap();
    disk.inject(Fault::once(OperationKind::Sync, 0, libc::EIO));
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(libc::EIO));
    file.sync_data().unwrap();
    assert_eq!(read_file(&disk, Path::new("/d/a")).unwrap().unwrap(), b"onesix");
    assert_eq!(read_file(&disk.crash(0, CrashPattern::KeepAll), Path::new("/d/a")).unwrap().unwrap(), b"");
    disk.inject(Fault {
        action: FaultAction::ShortWrite { bytes: 2, errno: libc::EIO },
        ..Fault::once(OperationKind::Write, 0, 0)
    });
    assert!(file.write_all_at(b"abcd", 0).is_err());
    assert_eq!(read_file(&disk, Path::new("/d/a")).unwrap().unwrap(), b"abesix");
    assert_eq!(disk.count(OperationKind::Write), 4);
    assert_eq!(disk.operations().last().unwrap().kind, OperationKind::Read);
}

/// After the power is gone nothing works any more, and the operation under way may or may not have arrived.
#[test]
fn halting_freezes_the_disk() {
    let (disk, file) = disk_with_file("/d/a");
    disk.halt_after(1);
    file.write_all_at(b"one", 0).unwrap();
    assert!(file.write_all_at(b"two", 0).is_err());
    assert!(file.write_all_at(b"three", 0).is_err());
    assert!(read_file(&disk, Path::new("/d/a")).is_err());
    let content = |pattern| read_file(&disk.crash(0, pattern), Path::new("/d/a")).unwrap().unwrap();
    assert_eq!(content(CrashPattern::KeepNone), b"");
    assert_eq!(content(CrashPattern::KeepAll), b"two");
}

/// Allocation meets the limit of the disk and leaves no trace of the attempt; removal gives the room back.
#[test]
fn allocation_meets_the_limit() {
    let (disk, file) = disk_with_file("/d/a");
    disk.set_capacity(Some(8192));
    file.allocate(8192).unwrap();
    let other = disk.open(Path::new("/d/b"), WRITE).unwrap();
    assert!(crate::disk::is_no_space(&other.allocate(4096).unwrap_err()));
    assert_eq!(other.length().unwrap(), 0);
    disk.remove_file(Path::new("/d/a")).unwrap();
    other.allocate(4096).unwrap();
    assert_eq!(disk.space(Path::new("/d")).unwrap().available, 4096);
}

/// A lock excludes a second opener until its holder closes, and does not outlive the process.
#[test]
fn locks_exclude_and_end() {
    let (disk, file) = disk_with_file("/d/lock");
    let other = disk.open(Path::new("/d/lock"), WRITE).unwrap();
    assert_eq!(file.try_lock().unwrap(), LockOutcome::Acquired);
    assert_eq!(other.try_lock().unwrap(), LockOutcome::HeldBy(None));
    let killed = disk.kill();
    let reborn = killed.open(Path::new("/d/lock"), WRITE).unwrap();
    assert_eq!(reborn.try_lock().unwrap(), LockOutcome::Acquired);
    drop(file);
    assert_eq!(other.try_lock().unwrap(), LockOutcome::Acquired);
}

/// Holes are told from data, and truncated bytes come back as zeros.
#[test]
fn holes_and_truncation_read_as_zero() {
    let (_, file) = disk_with_file("/d/a");
    file.allocate(1 << 20).unwrap();
    assert_eq!(file.data_from(0).unwrap(), None);
    file.write_all_at(b"x", 9000).unwrap();
    assert_eq!(file.data_from(0).unwrap(), Some(8192));
    file.set_length(9000).unwrap();
    file.set_length(9001).unwrap();
    let mut byte = [9];
    assert_eq!(file.read_at(&mut byte, 9000).unwrap(), 1);
    assert_eq!(byte, [0]);
}

/// The clock moves only when told, and clones agree.
#[test]
fn the_manual_clock_moves_on_demand() {
    let clock = ManualClock::new(5);
    let twin = clock.clone();
    clock.advance_ms(10);
    assert_eq!(twin.now_ms(), 15);
    twin.set_ms(3);
    assert_eq!(clock.now_ms(), 3);
}

/// Goal: a lying disk answers success, shows what was written, and has lost it after a power cut whatever was synced later. Method: a sync
/// and a synced write that lie, each between honest ones.
#[test]
fn a_lying_sync_loses_what_it_was_asked_for() {
    let path = Path::new("/d/a");
    let read = |disk: &SimDisk| read_file(disk, path).unwrap().unwrap();
    for data_sync in [false, true] {
        let (disk, file) = disk_with_file("/d/a");
        file.write_all_at(&[1; 1536], 0).unwrap();
        file.sync_data().unwrap();
        let kind = if data_sync { OperationKind::Write } else { OperationKind::Sync };
        disk.inject(Fault { kind, path_contains: String::new(), after: 0, times: 1, action: FaultAction::Lie });
        let file = disk.open(path, OpenOptions { data_sync, ..WRITE }).unwrap();
        file.write_all_at(&[2; 512], 512).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(&[3; 512], 1024).unwrap();
        file.sync_data().unwrap();
        assert_eq!(read(&disk), [[1; 512], [2; 512], [3; 512]].concat());
        assert_eq!(read(&disk.crash(1, CrashPattern::KeepAll)), [[1; 512], [1; 512], [3; 512]].concat());
    }
}
