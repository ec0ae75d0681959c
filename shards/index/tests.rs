//! The index against a plain list, its bytes, and restarts.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use ringmq_protocol::hash::index_key_hash;
use ringmq_protocol::record::{CrcCheck, RecordView};

use super::{IndexError, IndexGeometry, IndexService, Indexed, LastStop};
use crate::clock::Clock;
use crate::disk::{Disk, OpenOptions, RealDisk, io_causes, is_no_space};
use crate::sim::{CrashPattern, Fault, FaultAction, ManualClock, OperationKind, SimDisk};
use crate::types::{PhysicalOffset, StoreTimestamp};

const DIRECTORY: &str = "/store/index";
const NOW_MS: u64 = 1_700_000_000_123;

fn open(disk: &Arc<dyn Disk>, slots: u32, entries: u32, last_stop: LastStop) -> Result<IndexService, IndexError> {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    IndexService::open(Arc::clone(disk), clock, Path::new(DIRECTORY), IndexGeometry { slots, entries }, last_stop)
}

fn at(physical: u64, store_ms: u64) -> Indexed {
    Indexed { physical: PhysicalOffset(physical), store_timestamp: StoreTimestamp(store_ms) }
}

fn sim() -> Arc<dyn Disk> {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    disk.create_directories(Path::new(DIRECTORY)).unwrap();
    for parent in ["/", "/store"] {
        disk.sync_directory(Path::new(parent)).unwrap();
    }
    disk
}

fn files(disk: &Arc<dyn Disk>) -> Vec<(String, Vec<u8>)> {
    let read = |name: &str| {
        let file = disk.open(&Path::new(DIRECTORY).join(name), OpenOptions::default()).unwrap();
        let mut bytes = vec![0; file.length().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        bytes
    };
    let entries = disk.list(Path::new(DIRECTORY)).unwrap();
    entries.into_iter().map(|entry| (entry.name.clone(), read(&entry.name))).collect()
}

fn set_length(disk: &SimDisk, path: &Path, bytes: u64) {
    disk.open(path, OpenOptions { write: true, ..OpenOptions::default() }).unwrap().set_length(bytes).unwrap();
}

fn query(service: &IndexService, key: &str, maximum: usize) -> Vec<u64> {
    service.query("T", key, maximum, 0, i64::MAX).unwrap().into_iter().map(|offset| offset.0).collect()
}

#[test]
fn bytes_are_javas() {
    // Goal: the file byte for byte. Method: three records (five keys, one of them twice) in a file of 7 slots and 10
    // entries, built here by hand from the format's description.
    let disk = sim();
    let mut service = open(&disk, 7, 10, LastStop::Clean).unwrap();
    service.put_keys("TopicTest", Some(b"u1"), b"k1  k2", at(1000, 50_000)).unwrap();
    service.put_keys("TopicTest", None, b"k1", at(1100, 52_999)).unwrap();
    service.put_keys("TopicTest", Some(b"u3"), b"", at(1200, 61_000)).unwrap();
    assert_eq!(service.flush().unwrap(), Some(at(1200, 61_000)));

    let mut slots = [0u32; 7];
    let mut entries = vec![[0u8; 20]];
    for (key, physical, seconds) in
        [("u1", 1000u64, 0u32), ("k1", 1000, 0), ("k2", 1000, 0), ("k1", 1100, 2), ("u3", 1200, 11)]
    {
        let hash = index_key_hash("TopicTest", key.as_bytes());
        let slot = &mut slots[(hash % 7) as usize];
        let mut entry = Vec::new();
        entry.extend(hash.to_be_bytes());
        entry.extend(physical.to_be_bytes());
        entry.extend(seconds.to_be_bytes());
        entry.extend(slot.to_be_bytes());
        *slot = entries.len() as u32;
        entries.push(entry.try_into().unwrap());
    }
    let used = slots.iter().filter(|&&slot| slot > 0).count() as u32;
    let mut wanted = Vec::new();
    [50_000u64, 61_000, 1000, 1200].iter().for_each(|value| wanted.extend(value.to_be_bytes()));
    [used, 6].iter().for_each(|value| wanted.extend(value.to_be_bytes()));
    slots.iter().for_each(|value| wanted.extend(value.to_be_bytes()));
    entries.iter().for_each(|entry| wanted.extend(entry));
    wanted.resize(40 + 28 + 200, 0);
    let found = files(&disk);
    assert_eq!(found.len(), 1);
    assert!(found[0].0.len() == 17 && found[0].0.ends_with("20123"), "{}", found[0].0);
    assert_eq!(found[0].1, wanted);
}

#[test]
fn rolls_with_the_previous_end() {
    // Goal: a full file is followed by one that is seeded with its end, and the first entry's time counts from there.
    // Method: files of three keys (the first entry is never used), seven records ten seconds apart.
    let disk = sim();
    let mut service = open(&disk, 7, 4, LastStop::Clean).unwrap();
    for number in 0..7 {
        service.put_keys("T", Some(b"k"), b"", at(100 + number, 10_000 * (number + 1))).unwrap();
    }
    service.flush().unwrap();
    let found = files(&disk);
    let long = |bytes: &[u8], at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let times: Vec<_> = found.iter().map(|(_, bytes)| (long(bytes, 0), long(bytes, 8))).collect();
    assert_eq!(times, [(10_000, 30_000), (40_000, 60_000), (70_000, 70_000)]);
    // Second file, first entry: 10 s after the end of the first file.
    let first_entry = 40 + 28 + 20;
    assert_eq!(found[1].1[first_entry + 12..first_entry + 16], 10u32.to_be_bytes());
    assert_eq!(query(&service, "k", 64), (100..107).collect::<Vec<_>>());
    assert_eq!(query(&service, "k", 2), [105, 106]);
    assert_eq!(service.remove_expired(PhysicalOffset(103)).unwrap(), 1);
    assert_eq!(service.remove_expired(PhysicalOffset(9999)).unwrap(), 1);
    assert_eq!(query(&service, "k", 64), [106]);
}

#[test]
fn keys_and_times() {
    // Goal: which messages a query returns. Method: a shared key over ten seconds, other topics, empty words, bounds.
    let disk = sim();
    let mut service = open(&disk, 1009, 1000, LastStop::Clean).unwrap();
    for number in 0..10 {
        service
            .put_keys("T", Some(format!("u{number}").as_bytes()), b" a  b ", at(number, 1000 * (number + 1)))
            .unwrap();
    }
    service.put_keys("U", None, b"a", at(50, 11_000)).unwrap();
    let span = |begin, end| service.query("T", "a", 64, begin, end).unwrap().iter().map(|at| at.0).collect::<Vec<_>>();
    assert_eq!(span(0, 20_000), (0..10).collect::<Vec<_>>());
    assert_eq!(span(3000, 5000), [2, 3, 4]);
    assert!(span(10_001, 20_000).is_empty());
    assert!(span(30_000, 40_000).is_empty());
    assert_eq!(query(&service, "u7", 64), [7]);
    assert_eq!(query(&service, "b", 3), [7, 8, 9]);
    assert!(query(&service, "", 64).is_empty());
    assert_eq!(service.query("U", "a", 64, 0, i64::MAX).unwrap(), [PhysicalOffset(50)]);
}

#[test]
fn gathered_keys_make_the_same_files() {
    // Goal: keys that are linked later are found after it, and the files do not differ by a byte. Method: many keys that
    // share few slots over several files, put one by one and gathered in groups of all sizes.
    let (plain, gathering) = (sim(), sim());
    let mut one = open(&plain, 7, 40, LastStop::Clean).unwrap();
    let mut other = open(&gathering, 7, 40, LastStop::Clean).unwrap();
    let mut number = 0;
    for group in 1..20 {
        for _ in 0..group {
            let key = format!("k{}", number % 23);
            one.put_keys("T", None, key.as_bytes(), at(number, 1000 + number)).unwrap();
            other.gather_keys("T", None, key.as_bytes(), at(number, 1000 + number)).unwrap();
            number += 1;
        }
        other.link();
        for key in 0..23 {
            let key = format!("k{key}");
            assert_eq!(query(&other, &key, 64), query(&one, &key, 64), "{key} after {number}");
        }
    }
    one.flush().unwrap();
    other.flush().unwrap();
    let bytes = |disk| files(disk).into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>();
    assert_eq!(bytes(&gathering), bytes(&plain));
}

#[test]
fn records_put_their_keys() {
    // Goal: the keys of a real record, and none of one that rolls a transaction back. Method: a record that Java decoded,
    // then the same with the rollback bits in its sysFlag.
    let hex = "000000a5daa320a73610a686000000030000000000000000000000070000000000000400000000000000018bcfe56800\
               7f0000010000c3500000018bcfe5687b7f00000100002a9f0000000000000000000000000000000568656c6c6f09546f\
               70696354657374003c4b455953016b3102554e49515f4b45590137463030303030313030303141414242434344443030\
               303030303031303030300254414753015461674102";
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
    let mut bytes: Vec<u8> = hex.as_bytes().chunks(2).map(|two| digit(two[0]) << 4 | digit(two[1])).collect();
    let disk = sim();
    let mut service = open(&disk, 1009, 10, LastStop::Clean).unwrap();
    let mut put = |bytes: &[u8], position: u64| {
        let record = RecordView::parse(bytes, CrcCheck::Verify).unwrap();
        let timestamp = StoreTimestamp(record.store_timestamp() as u64);
        service.put_record(&record, PhysicalOffset(position), timestamp).unwrap();
    };
    put(&bytes, 1024);
    bytes[39] = 0xc;
    put(&bytes, 2048);
    for key in ["k1", "7F0000010001AABBCCDD000000010000"] {
        assert_eq!(service.query("TopicTest", key, 64, 0, i64::MAX).unwrap(), [PhysicalOffset(1024)]);
    }
    assert_eq!(service.last(), Some(at(1024, 1_700_000_000_123)));
}

#[test]
fn equal_hashes_are_returned_too() {
    // Goal: as in Java, keys with one hash are one key to the index. Method: two words with the same Java hash.
    let disk = sim();
    let mut service = open(&disk, 1009, 10, LastStop::Clean).unwrap();
    assert_eq!(index_key_hash("T", b"Aa"), index_key_hash("T", b"BB"));
    service.put_keys("T", None, b"Aa", at(0, 1000)).unwrap();
    service.put_keys("T", None, b"BB", at(10, 1000)).unwrap();
    assert_eq!(query(&service, "Aa", 64), [0, 10]);
}

#[test]
fn records_are_indexed_once() {
    // Goal: offering records again changes nothing, across a restart. Method: offer, flush, reopen, offer from the start.
    let disk = sim();
    for start in [LastStop::Clean, LastStop::Crash { checkpoint_ms: 10_000 }] {
        let mut service = open(&disk, 7, 100, start).unwrap();
        for number in 0..10 {
            service.put_keys("T", None, b"x y", at(number * 10, 1000 + number)).unwrap();
        }
        assert_eq!(service.last(), Some(at(90, 1009)));
        assert_eq!(query(&service, "x", 64).len(), 10);
        service.flush().unwrap();
    }
    let mut service = open(&disk, 7, 100, LastStop::Clean).unwrap();
    service.clear().unwrap();
    assert!(service.last().is_none() && files(&disk).is_empty());
}

#[test]
fn newer_than_the_checkpoint_is_deleted_after_a_crash() {
    // Goal: Java's load rule. Method: two files; the checkpoint covers the first only.
    let disk = sim();
    let mut service = open(&disk, 7, 4, LastStop::Clean).unwrap();
    for number in 0..5 {
        service.put_keys("T", Some(b"k"), b"", at(100 + number, 1000 + number)).unwrap();
    }
    service.flush().unwrap();
    let service = open(&disk, 7, 4, LastStop::Crash { checkpoint_ms: 1002 }).unwrap();
    assert_eq!((service.file_count(), service.last()), (1, Some(at(102, 1002))));
    assert_eq!(files(&disk).len(), 1);
    let service = open(&disk, 7, 4, LastStop::Crash { checkpoint_ms: 1001 }).unwrap();
    assert_eq!((service.file_count(), service.last()), (0, None));
}

#[test]
fn power_cuts_lose_nothing_that_was_flushed() {
    // Goal: after any power cut the flushed keys are found, and indexing again from there finds all. Method: flush at 40,
    // write on (with another flush that the power cut hits), cut with many seeds and patterns, reopen, offer all.
    for (seed, pattern) in (0..40).flat_map(|seed| CrashPattern::ALL.map(|pattern| (seed, pattern))) {
        let sim = Arc::new(SimDisk::new());
        let disk: Arc<dyn Disk> = Arc::clone(&sim) as _;
        disk.create_directories(Path::new(DIRECTORY)).unwrap();
        disk.sync_directory(Path::new("/")).unwrap();
        disk.sync_directory(Path::new("/store")).unwrap();
        let key = |number: u64| format!("k{}", number % 5);
        let mut service = open(&disk, 11, 2000, LastStop::Clean).unwrap();
        let mut checkpoint_ms = 0;
        for number in 0..100 {
            service.put_keys("T", None, key(number).as_bytes(), at(number, 1000 + number)).unwrap();
            if number == 40 {
                checkpoint_ms = service.flush().unwrap().unwrap().store_timestamp.0 as i64;
                sim.halt_after(seed % 6);
            }
        }
        // The power may go at any step of it.
        let flushed = service.flush().is_ok();
        let disk: Arc<dyn Disk> = Arc::new(sim.crash(seed, pattern));
        let mut service = open(&disk, 11, 2000, LastStop::Crash { checkpoint_ms }).unwrap();
        assert!(!flushed || service.last().is_none(), "a flush that nobody noted makes the file too new");
        if let Some(last) = service.last() {
            assert_eq!(last, at(40, 1040), "seed {seed} {pattern:?}");
        }
        for number in 0..100 {
            service.put_keys("T", None, key(number).as_bytes(), at(number, 1000 + number)).unwrap();
        }
        for residue in 0..5 {
            let wanted: Vec<_> = (0..100).filter(|number| number % 5 == residue).collect();
            assert_eq!(query(&service, &key(residue), 64), wanted, "seed {seed} {pattern:?}");
        }
    }
}

#[test]
fn keys_put_during_a_sync_are_not_promised_and_not_lost() {
    // Goal: a flush in two halves promises what was put before it, whatever comes in between: more keys, full files.
    // Method: begin a flush, fill the file and the next, fail or complete the sync, cut the power, reopen, offer all.
    for (seed, pattern, fails) in
        (0..20).flat_map(|seed| CrashPattern::ALL.into_iter().flat_map(move |p| [(seed, p, false), (seed, p, true)]))
    {
        let sim = Arc::new(SimDisk::new());
        let disk: Arc<dyn Disk> = Arc::clone(&sim) as _;
        disk.create_directories(Path::new(DIRECTORY)).unwrap();
        disk.sync_directory(Path::new("/")).unwrap();
        disk.sync_directory(Path::new("/store")).unwrap();
        let key = |number: u64| format!("k{}", number % 3);
        let mut service = open(&disk, 11, 40, LastStop::Clean).unwrap();
        let put = |service: &mut IndexService, numbers: std::ops::Range<u64>| {
            for number in numbers {
                service.put_keys("T", None, key(number).as_bytes(), at(number, 1000 + number)).unwrap();
            }
        };
        put(&mut service, 0..50);
        let sync = service.begin_flush().unwrap();
        put(&mut service, 50..90);
        let mut promised = if fails {
            sim.inject(Fault::once(OperationKind::Sync, seed % 4, libc::EIO));
            let outcome = sync.complete();
            assert!(outcome.is_err());
            service.discard(&sync).unwrap();
            // From the last record on that is still there, as after a start.
            let from = service.last().map_or(0, |last| last.physical.0 + 1);
            put(&mut service, from..90);
            None
        } else {
            Some(sync.complete().unwrap().unwrap())
        };
        if seed % 2 == 0 {
            promised = service.flush().unwrap();
            assert_eq!(promised, Some(at(89, 1089)));
        }
        let disk: Arc<dyn Disk> = Arc::new(sim.crash(seed, pattern));
        let checkpoint_ms = promised.map_or(0, |last| last.store_timestamp.0 as i64);
        let mut service = open(&disk, 11, 40, LastStop::Crash { checkpoint_ms }).unwrap();
        // A file that went on is too new for the checkpoint; all before it is there.
        let whole = promised.map_or(0, |last| if last == at(89, 1089) { 90 } else { 39 });
        assert!(service.last().map_or(0, |last| last.physical.0 + 1) >= whole, "seed {seed} {pattern:?} {fails}");
        put(&mut service, 0..90);
        for residue in 0..3 {
            let wanted: Vec<_> = (0..90).filter(|number| number % 3 == residue).collect();
            assert_eq!(query(&service, &key(residue), 64), wanted, "seed {seed} {pattern:?} {fails}");
        }
    }
}

#[test]
fn a_flush_in_portions_promises_what_was_put_before_it() {
    // Goal: keys that are put between the portions of a flush, full files too, are neither promised nor lost, and the file says
    // in the end what memory said. Method: puts and portions of a page in random order, each sync completed; after one that
    // keys came in between of, a clean stop or a power cut, and a start that trusts the file's slots or makes them anew.
    const SLOTS: u32 = 5_000;
    const ENTRIES: u32 = 40;
    let key = |number: u64| format!("key-{}", number % 90);
    let put = |service: &mut IndexService, number: u64| {
        service.put_keys("T", None, key(number).as_bytes(), at(number, 1000 + number)).unwrap();
    };
    let mut full_files = 0;
    for (seed, pattern) in (0..60).flat_map(|seed| CrashPattern::ALL.map(|pattern| (seed, pattern))) {
        let sim = Arc::new(SimDisk::new());
        let mut disk: Arc<dyn Disk> = Arc::clone(&sim) as _;
        disk.create_directories(Path::new(DIRECTORY)).unwrap();
        disk.sync_directory(Path::new("/")).unwrap();
        disk.sync_directory(Path::new("/store")).unwrap();
        let mut service = open(&disk, SLOTS, ENTRIES, LastStop::Clean).unwrap();
        // What the flush under way is about, and how many files there were.
        let mut flush = None;
        let mut random = seed * 7919 + 1;
        let (end, promised) = (0..)
            .find_map(|number| {
                put(&mut service, number);
                random = random * 48_271 % 2_147_483_647;
                if random % 4 > 0 {
                    return None;
                }
                if flush.is_some_and(|(_, files)| files != service.file_count()) {
                    (flush, full_files) = (None, full_files + 1);
                }
                let (about, _) = *flush.get_or_insert((service.last(), service.file_count()));
                let sync = service.flush_portion(1).unwrap()?;
                assert_eq!(sync.complete().unwrap(), about, "seed {seed}");
                flush = None;
                (number > 100 && about != service.last()).then_some((number + 1, about.unwrap()))
            })
            .unwrap();
        let wanted = |residue: u64| (0..end).filter(|number| number % 90 == residue).collect::<Vec<_>>();
        for residue in 0..90 {
            assert_eq!(query(&service, &key(residue), 64), wanted(residue), "seed {seed}");
        }
        if seed % 2 == 0 {
            service.flush().unwrap();
            service = open(&disk, SLOTS, ENTRIES, LastStop::Clean).unwrap();
            assert_eq!(service.last().unwrap().physical.0, end - 1, "seed {seed}");
        } else {
            let checkpoint_ms = promised.store_timestamp.0 as i64;
            disk = Arc::new(sim.crash(seed, pattern));
            service = open(&disk, SLOTS, ENTRIES, LastStop::Crash { checkpoint_ms }).unwrap();
            assert_eq!(service.last(), Some(promised), "seed {seed} {pattern:?}");
            (0..end).for_each(|number| put(&mut service, number));
        }
        for residue in 0..90 {
            assert_eq!(query(&service, &key(residue), 64), wanted(residue), "seed {seed} {pattern:?}");
        }
    }
    assert!(full_files > 10, "{full_files} files were full before a flush had ended");
}

#[test]
fn a_full_disk_only_delays() {
    // Goal: no space while a file is made or written is not final. Method: each kind of call fails once; try again.
    for kind in [OperationKind::Open, OperationKind::SetLength, OperationKind::Write] {
        let sim = Arc::new(SimDisk::new());
        let disk: Arc<dyn Disk> = Arc::clone(&sim) as _;
        let mut service = open(&disk, 7, 10, LastStop::Clean).unwrap();
        sim.inject(Fault::once(kind, 0, libc::ENOSPC));
        let error = service.put_keys("T", Some(b"k"), b"", at(1, 1)).unwrap_err();
        assert!(io_causes(&error).any(is_no_space), "{error}");
        service.put_keys("T", Some(b"k"), b"", at(1, 1)).unwrap();
        sim.inject(Fault::once(OperationKind::Write, 0, libc::ENOSPC));
        assert!(service.flush().is_err());
        service.flush().unwrap();
        assert_eq!(query(&open(&disk, 7, 10, LastStop::Clean).unwrap(), "k", 64), [1]);
    }
}

#[test]
fn foreign_files() {
    // Goal: a wrong length is refused by name, an empty file goes, other names are left alone. Method: one each.
    let disk = sim();
    let put = |name: &str, length: u64| {
        let path = Path::new(DIRECTORY).join(name);
        let options = OpenOptions { create: true, ..OpenOptions::default() };
        disk.open(&path, options).unwrap().set_length(length).unwrap();
    };
    put("README", 5);
    put("20200101000000000", 0);
    assert_eq!(open(&disk, 7, 10, LastStop::Clean).unwrap().file_count(), 0);
    assert_eq!(files(&disk).len(), 1);
    put("20200101000000000", 267);
    let error = open(&disk, 7, 10, LastStop::Clean).err().unwrap().to_string();
    assert!(error.contains("20200101000000000 has 267 bytes instead of 268"), "{error}");
}

#[test]
fn real_files() {
    // Goal: Java's geometry on a real file system stays sparse and loads. Method: 30,000 keys, reopened both ways.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    let clock: Arc<ManualClock> = Arc::new(ManualClock::new(NOW_MS));
    let open = |last_stop| {
        IndexService::open(Arc::new(RealDisk), clock.clone(), &path, IndexGeometry::default(), last_stop).unwrap()
    };
    let mut service = open(LastStop::Clean);
    for number in 0..30_000 {
        let key = format!("{:032X}", number * 0x9E37_79B9);
        service.put_keys("T", Some(key.as_bytes()), b"", at(number, 5000)).unwrap();
    }
    service.flush().unwrap();
    for last_stop in [LastStop::Clean, LastStop::Crash { checkpoint_ms: 5000 }] {
        let service = open(last_stop);
        for number in (0..30_000).step_by(997) {
            assert!(query(&service, &format!("{:032X}", number * 0x9E37_79B9), 64).contains(&number));
        }
    }
    let name = std::fs::read_dir(&path).unwrap().next().unwrap().unwrap();
    assert_eq!(name.metadata().unwrap().len(), 420_000_040);
}

#[test]
fn unusable_files_are_set_aside_and_made_again() {
    // Goal: whatever is wrong with one file, nothing is deleted and every key is found again once the records from the last one of
    // the file in front of it were offered again. Method: five files, of which each ends within a record; each kind of harm
    // to the first, one in the middle and the last.
    type Harm = fn(&SimDisk, &Path);
    let harms: [(&str, Harm); 7] = [
        ("short", |disk, path| set_length(disk, path, 100)),
        ("long", |disk, path| set_length(disk, path, 10_000)),
        ("no header", |disk, path| disk.damage(path, 0, &[0; 40]).unwrap()),
        ("too many entries", |disk, path| disk.damage(path, 36, &[0x7F; 4]).unwrap()),
        ("a place below zero", |disk, path| disk.damage(path, 16, &[0xFF; 8]).unwrap()),
        ("a bad sector", |disk, path| {
            let path_contains = path.to_string_lossy().into_owned();
            let action = FaultAction::Fail(libc::EIO);
            disk.inject(Fault { kind: OperationKind::Read, path_contains, after: 0, times: u64::MAX, action });
        }),
        ("no permission", |disk, path| {
            let path_contains = path.to_string_lossy().into_owned();
            let action = FaultAction::Fail(libc::EACCES);
            disk.inject(Fault { kind: OperationKind::Open, path_contains, after: 0, times: u64::MAX, action });
        }),
    ];
    for (what, harm) in harms {
        for harmed in [0, 2, 4] {
            let sim = SimDisk::new();
            let disk: Arc<dyn Disk> = Arc::new(sim.clone());
            let mut service = open(&disk, 7, 10, LastStop::Clean).unwrap();
            let put = |service: &mut IndexService, numbers: std::ops::Range<u64>| {
                for number in numbers {
                    let key = format!("k{number}");
                    let unique = format!("u{number}");
                    service.put_keys("T", Some(unique.as_bytes()), key.as_bytes(), at(number, 1000 + number)).unwrap();
                }
            };
            put(&mut service, 0..20);
            service.flush().unwrap();
            drop(service);
            let before = files(&disk);
            let path = Path::new(DIRECTORY).join(&before[harmed].0);
            harm(&sim, &path);
            let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(NOW_MS));
            let geometry = IndexGeometry { slots: 7, entries: 10 };
            let open_again = || {
                let (directory, room) = (Path::new(DIRECTORY), Path::new("/store/ringmq"));
                IndexService::open_or_set_aside(&disk, &clock, directory, geometry, LastStop::Clean, room).unwrap()
            };
            let (mut service, set_aside) = open_again();
            if (what, harmed) == ("no header", 4) {
                // Nothing tells it from one that is new.
                assert_eq!((set_aside.len(), service.file_count()), (0, 5));
            } else {
                assert_eq!(set_aside.len(), 1, "{what} {harmed}: {set_aside:?}");
                assert_eq!((set_aside[0].files, service.file_count()), (5 - harmed, harmed), "{what} {harmed}");
                assert!(set_aside[0].reason.contains(&before[harmed].0), "{set_aside:?}");
                let saved: Vec<_> = disk.list(&set_aside[0].to).unwrap().into_iter().map(|entry| entry.name).collect();
                let names: Vec<_> = before[harmed..].iter().map(|(name, _)| name.clone()).collect();
                assert_eq!(saved, names, "{what} {harmed}");
            }
            sim.clear_faults();
            let from = service.last().map_or(0, |last| last.physical.0);
            put(&mut service, from..20);
            service.flush().unwrap();
            drop(service);
            let (service, set_aside) = open_again();
            assert_eq!((set_aside, service.last()), (Vec::new(), Some(at(19, 1019))), "{what} {harmed}");
            for (number, letter) in (0..20).flat_map(|number| ["k", "u"].map(|letter| (number, letter))) {
                let mut found = query(&service, &format!("{letter}{number}"), 64);
                // The record at the seam is there twice.
                found.dedup();
                assert_eq!(found, [number], "{what} {harmed} {letter}");
            }
        }
    }

    // A file that cannot be had for want of something else stays where it is.
    let sim = SimDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let mut service = open(&disk, 7, 10, LastStop::Clean).unwrap();
    service.put_keys("T", None, b"k", at(1, 1)).unwrap();
    service.flush().unwrap();
    sim.inject(Fault::once(OperationKind::Open, 0, libc::EMFILE));
    let (clock, room): (Arc<dyn Clock>, _) = (Arc::new(ManualClock::new(NOW_MS)), Path::new("/store/ringmq"));
    let geometry = IndexGeometry { slots: 7, entries: 10 };
    let again =
        || IndexService::open_or_set_aside(&disk, &clock, Path::new(DIRECTORY), geometry, LastStop::Clean, room);
    assert!(again().is_err());
    assert_eq!(query(&again().unwrap().0, "k", 64), [1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64 * ProptestConfig::default().cases.div_ceil(256)))]

    #[test]
    fn agrees_with_a_list(
        records in prop::collection::vec((0..12u32, 0..12u32, 0..3000u64, prop::bool::weighted(0.05)), 1..200),
        slots in 1..5u32,
        entries in 5..60u32,
        maximum in 1..64usize,
    ) {
        // Goal: a query finds the newest messages of its hash. Method: few slots, so that every chain mixes keys; small
        // files, so that it crosses many; restarts in between; the model is a list of (hash, position).
        let disk = sim();
        let mut service = open(&disk, slots, entries, LastStop::Clean).unwrap();
        let mut model = Vec::new();
        let mut time = 1000;
        for (position, (first, second, pause, restart)) in records.into_iter().enumerate() {
            time += pause;
            let keys = format!("k{first} k{second}");
            service.put_keys("T", None, keys.as_bytes(), at(position as u64, time)).unwrap();
            model.extend([first, second].map(|key| (key, position as u64)));
            if restart {
                service.flush().unwrap();
                let stop = if pause % 2 == 0 { LastStop::Clean } else {
                    LastStop::Crash { checkpoint_ms: i64::try_from(time).unwrap() }
                };
                service = open(&disk, slots, entries, stop).unwrap();
            }
        }
        for key in 0..12 {
            let mut wanted: Vec<_> =
                model.iter().rev().filter(|(found, _)| *found == key).map(|(_, at)| *at).take(maximum).collect();
            wanted.reverse();
            prop_assert_eq!(query(&service, &format!("k{key}"), maximum), wanted);
        }
    }
}

#[test]
fn files_behind_the_end_of_the_log_are_dropped_and_made_again() {
    // Goal: after a power cut took the end of the log, records that are written there anew are found, and none that is gone.
    // Method: twelve records over several files; the log loses the last five; they are written again with other keys.
    let disk = sim();
    let mut service = open(&disk, 4, 5, LastStop::Clean).unwrap();
    for number in 0..12 {
        service.put_keys("T", None, format!("old{number}").as_bytes(), at(number * 100, 50_000 + number)).unwrap();
    }
    service.flush().unwrap();
    let end = PhysicalOffset(700);
    assert_eq!(service.cut(PhysicalOffset(5000)).unwrap(), 0, "nothing lies behind that");
    assert!(service.cut(end).unwrap() > 0);
    let from = service.last().map_or(0, |last| last.physical.0 / 100);
    assert!(from < 7);
    for number in from..7 {
        service.put_keys("T", None, format!("old{number}").as_bytes(), at(number * 100, 50_000 + number)).unwrap();
    }
    for number in 7..12 {
        service.put_keys("T", None, format!("new{number}").as_bytes(), at(number * 100, 60_000 + number)).unwrap();
    }
    for number in 0..12 {
        let (kept, made) = (query(&service, &format!("old{number}"), 8), query(&service, &format!("new{number}"), 8));
        let here = number * 100;
        assert_eq!((kept.contains(&here), made.contains(&here)), (number < 7, number >= 7), "{number}");
    }
    service.flush().unwrap();
    let mut again = open(&disk, 4, 5, LastStop::Clean).unwrap();
    assert_eq!((again.cut(end).unwrap() > 0, again.cut(PhysicalOffset(0)).unwrap() > 0), (true, true));
    assert_eq!((again.last(), again.file_count()), (None, 0));
}
