//! Damaged stores on a real disk: the real binary is started on images of a store whose files were cut, zeroed, flipped, swapped or
//! duplicated. It refuses, or it serves; what it serves is what was written.
//!
//! `RINGMQ_IMAGES` sets the number of images (16). `RINGMQ_IMAGES_ROOM` names an empty folder that gets a copy of each image, what was
//! once written (`written.txt`) and where the broker ended (`ringmq.txt`), for a comparison with RocketMQ.

#[allow(dead_code, reason = "the other tests need more of it")]
mod broker;
mod random;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use broker::{Broker, Store, copy_tree};
use random::Random;
use ringmq::client::{Message, PullStatus};
use ringmq_shards::disk::RealDisk;
use ringmq_shards::sim::SimRandom;
use ringmq_shards::sim::damage::{Damage, Target};

const TOPIC: &str = "image";
const QUEUES: i32 = 4;
const MESSAGES: u64 = 400;
/// Small files, so that an image has several of each kind.
const SETS: [&str; 6] = [
    "mappedFileSizeCommitLog=64 KiB",
    "maxMessageSize=8 KiB",
    "mappedFileSizeConsumeQueue=1000",
    "maxHashSlotNum=100",
    "maxIndexNum=300",
    "maxTransferCountOnMessageInMemory=32",
];

/// What a message was: offset in the log, CRC and length of its body.
type Written = BTreeMap<(i32, i64), (i64, u32, usize)>;

/// What came of one image.
struct Outcome {
    what: &'static str,
    served: usize,
    wrong: usize,
    /// End of the last message that was served.
    end: i64,
}

/// Every file that may be damaged, with how many of its bytes mean anything.
fn targets(folder: &Path, found: &mut Vec<(Target, u64)>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).expect("listed").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if !path.ends_with("namesrv") {
                targets(&path, found);
            }
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_string();
        if ["lock", "abort", "direct-probe"].contains(&name.as_str()) {
            continue;
        }
        let content = fs::read(&path).expect("read");
        let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        if used == 0 {
            continue;
        }
        let is_log = path.parent().is_some_and(|parent| parent.ends_with("commitlog"));
        let target = Target { length: content.len() as u64, path };
        found.extend(std::iter::repeat_n((target, used), if is_log { 4 } else { 1 }));
    }
}

/// Fills a store and ends its broker; returns what was written.
fn fill(store: &mut Store, was_clean: bool) -> Written {
    let broker = store.start(&SETS);
    broker.topic(TOPIC, QUEUES as u32);
    let mut client = broker.client();
    let mut random = Random::new(11);
    let mut written = Written::new();
    for number in 0..MESSAGES {
        let body: Vec<u8> = (0..1 + random.below(1_200)).map(|_| random.next() as u8).collect();
        let queue = broker.queue(TOPIC, (number % QUEUES as u64) as i32);
        let mut message = Message::new(body.clone());
        message.keys = vec![format!("key{number}")];
        let receipt = client.send_to(&queue, &message).expect("stored");
        let crc = crc32fast::hash(&body) & 0x7FFF_FFFF;
        written.insert((queue.queue_id, receipt.queue_offset), (0, crc, body.len()));
    }
    pull_everything(&broker, |place, physical, _, _| {
        written.get_mut(&place).expect("it was sent").0 = physical;
    });
    drop(client);
    if was_clean {
        assert_eq!(broker.stop(&[]).code(), Some(0));
    } else {
        broker.kill(&[]);
    }
    written
}

/// Gives every message that the broker serves: place, offset in the log, body, length of the record.
fn pull_everything(broker: &Broker, mut take: impl FnMut((i32, i64), i64, &[u8], usize)) {
    let mut client = broker.client();
    for queue_id in 0..QUEUES {
        let queue = broker.queue(TOPIC, queue_id);
        let Ok(end) = client.max_offset(&queue) else { continue };
        let mut next = 0;
        while next < end {
            let Ok(pulled) = client.pull(&queue, next, 32, 0) else {
                next += 1;
                continue;
            };
            if pulled.status == PullStatus::Found {
                for record in pulled.messages() {
                    let record = record.expect("a pull gives whole records");
                    let place = (record.queue_id(), record.queue_offset());
                    take(place, record.physical_offset(), record.body(), record.total_size());
                }
            }
            next = pulled.next_offset.max(next + 1);
        }
    }
}

fn try_image(store: &mut Store, written: &Written) -> Outcome {
    let mut outcome = Outcome { what: "served", served: 0, wrong: 0, end: 0 };
    match store.try_start(&SETS) {
        Ok(broker) => {
            pull_everything(&broker, |place, physical, body, size| {
                outcome.served += 1;
                let crc = crc32fast::hash(body) & 0x7FFF_FFFF;
                outcome.wrong += usize::from(written.get(&place) != Some(&(physical, crc, body.len())));
                outcome.end = outcome.end.max(physical + size as i64);
            });
            let log = broker.log_text();
            assert!(!log.contains("panicked"), "{log}");
            // It may complain of the damage; an error would be one that it went on with.
            broker.kill(&[" WARN ", "messages behind damage cannot be served", "index files were set aside"]);
        }
        Err(ended) => {
            assert!(!ended.log.contains("panicked"), "{}", ended.log);
            assert_eq!(ended.status.code(), Some(6), "{}", ended.log);
            outcome.what = "refused";
        }
    }
    outcome
}

#[test]
fn damaged_images_on_disk() {
    // Goal: whatever happened to its files, the broker serves no wrong byte and does not panic. Method: images of two stores, one
    // stopped in order and one killed; each is damaged once or twice, started on, read whole and compared.
    let images: u64 = std::env::var("RINGMQ_IMAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(16);
    let room = std::env::var_os("RINGMQ_IMAGES_ROOM").map(PathBuf::from);
    let mut report = String::new();
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    // Of the stores that opened: messages served, and written.
    let mut messages = (0, 0);
    for was_clean in [true, false] {
        let mut base = Store::new();
        let written = fill(&mut base, was_clean);
        if let Some(room) = &room {
            let mut text = String::new();
            for ((queue, offset), (physical, crc, length)) in &written {
                let _ = writeln!(text, "{queue} {offset} {physical} {crc} {length}");
            }
            fs::write(room.join(format!("written-{was_clean}.txt")), text).expect("written");
        }
        let mut store = Store::new();
        let _ = fs::remove_dir_all(store.path());
        copy_tree(&base.path(), &store.path());
        let undamaged = try_image(&mut store, &written);
        assert_eq!((undamaged.served, undamaged.wrong), (written.len(), 0), "a store without damage is served whole");
        for image in (0..images).filter(|image| (image % 2 == 0) == was_clean) {
            let _ = fs::remove_dir_all(store.path());
            copy_tree(&base.path(), &store.path());
            let mut random = SimRandom::new(image);
            let mut found = Vec::new();
            targets(&store.path(), &mut found);
            let mut done = Vec::new();
            for _ in 0..=random.below(5) / 4 {
                let (target, used) = &found[random.below(found.len() as u64) as usize];
                let damage = Damage::choose(&mut random, target, *used);
                damage.apply(&RealDisk).expect("damaged");
                done.push(damage);
            }
            if let Some(room) = &room {
                copy_tree(&store.path(), &room.join(format!("image-{image}")));
            }
            let what: Vec<String> = done.iter().map(ToString::to_string).collect();
            let what = what.join(", ").replace(&format!("{}/", store.path().display()), "");
            let outcome = try_image(&mut store, &written);
            assert_eq!(outcome.wrong, 0, "image {image}: {what}");
            messages.0 += outcome.served;
            messages.1 += if outcome.what == "served" { written.len() } else { 0 };
            *counts.entry((done[0].kind(), outcome.what)).or_default() += 1;
            let Outcome { what: ended, served, wrong, end } = outcome;
            let all = if served == written.len() { "all" } else { "fewer" };
            let _ = writeln!(report, "{image}\t{was_clean}\t{ended}\t{all}\t{served}\t{wrong}\t{end}\t{what}");
        }
    }
    println!("{counts:?}");
    assert!(messages.0 * 2 > messages.1, "most of a damaged store is served: {messages:?}");
    let refused: u64 = counts.iter().filter(|((_, what), _)| *what != "served").map(|(_, count)| count).sum();
    let served = counts.values().sum::<u64>() - refused;
    println!("figures: images={images} served={served} refused={refused} wrong_messages=0 panics=0");
    if let Some(room) = &room {
        fs::write(room.join("ringmq.txt"), report).expect("written");
    }
}
