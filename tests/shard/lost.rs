//! Stores whose queue files are gone, in part or all: a start makes them anew, and may be interrupted.

use std::path::Path;

use ringmq_shards::disk::{Disk, create_directories_durably, write_file};
use ringmq_shards::recovery::StorePaths;
use ringmq_shards::sim::{CrashPattern, SimDisk, SimRandom};

use super::crash::{Past, ROOT, SEGMENT_BYTES, TOPICS, open, power_on};
use super::hands::{append_some, check_interrupted_starts, check_served};
use super::world::Mode;

const MODE: Mode = Mode::AsyncPageCache;

/// A store of two topics, all of it synced, that was stopped in order or killed.
fn filled(seed: u64, is_clean: bool) -> (SimDisk, Past) {
    let (disk, paths, mut past) = (SimDisk::new(), StorePaths::new(ROOT), Past::default());
    power_on(&disk, &mut SimRandom::new(seed));
    create_directories_durably(&disk, &paths.config()).expect("created");
    let topics = format!(r#"{{"topicConfigTable":{{"{}":{{}},"{}":{{}}}}}}"#, TOPICS[0], TOPICS[1]);
    write_file(&disk, &paths.config().join("topics.json"), topics.as_bytes()).expect("written");
    disk.sync_directory(&paths.config()).expect("synced");
    let mut life = open(&disk, MODE, seed).expect("an empty store opens");
    append_some(&mut life, &mut past, TOPICS[1], 8);
    append_some(&mut life, &mut past, TOPICS[0], 60);
    assert!(life.writer.end() > 2 * SEGMENT_BYTES, "the first messages are not where a start looks");
    life.flush_durably();
    if is_clean {
        life.storage.lock.mark_clean(&disk, &paths).expect("marked");
    }
    drop(life);
    (disk, past)
}

/// Removes all queue files below a folder, durably.
fn lose(disk: &SimDisk, folder: &Path) -> usize {
    let files: Vec<_> = disk.paths().into_iter().filter(|path| path.starts_with(folder)).collect();
    let mut removed = 0;
    for path in files.iter().filter(|path| disk.remove_file(path).is_ok()) {
        disk.sync_directory(path.parent().expect("it lies in a folder")).expect("synced");
        removed += 1;
    }
    removed
}

/// Goal: every message is in its queue after a start that finds no files of it, wherever that start or the next is interrupted.
/// Method: stores that were stopped in order, killed, or lost their power; the files of one topic go, or all; a start ends after each
/// of its changes, by a kill or a power cut.
#[test]
fn lost_queue_files_are_made_anew_by_an_interrupted_start() {
    for (seed, is_clean) in [(1, true), (2, true), (3, false), (4, false)] {
        for is_cut in [false, true] {
            for all in [false, true] {
                let (disk, past) = filled(seed, is_clean);
                let left = if is_cut { disk.crash(seed, CrashPattern::KeepNone) } else { disk.kill() };
                if is_cut {
                    power_on(&left, &mut SimRandom::new(seed + 10));
                }
                let folder = StorePaths::new(ROOT).consume_queue();
                let removed = lose(&left, &if all { folder } else { folder.join(TOPICS[1]) });
                let context = format!("seed {seed}, clean {is_clean}, cut {is_cut}, all {all}");
                assert!(removed > 0, "{context}");
                check_interrupted_starts(&left, &past, 0, &context);
                let life = open(&left, MODE, seed).unwrap_or_else(|broken| panic!("{context}: {broken}"));
                let found = check_served(&life, &past, 0).unwrap_or_else(|broken| panic!("{context}: {broken}"));
                assert!(found >= 68, "{context}");
            }
        }
    }
}
