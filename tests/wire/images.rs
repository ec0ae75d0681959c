//! Damaged stores on a real disk: the real binary is started on images of a store whose files were cut, zeroed, flipped, swapped or
//! duplicated. It refuses, or it serves; what it serves is what was written. Which of the two it has to be, and where the log has to
//! end, says the judge (`ringmq_shards::sim::judge`). Where it has to refuse, it is also told to salvage.
//!
//! `RINGMQ_IMAGES` sets the number of images (16). `RINGMQ_IMAGES_ROOM` names an empty folder that gets a copy of each image, what was
//! once written (`written.txt`) and where the broker ended (`ringmq.txt`), for a comparison with RocketMQ.

#[allow(dead_code, reason = "the other tests need more of it")]
mod broker;
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use broker::{Broker, NotStarted, Store, commit_log_bytes, copy_tree};
use random::Random;
use ringmq::client::{Message, PullStatus};
use ringmq_shards::disk::RealDisk;
use ringmq_shards::recovery::StorePaths;
use ringmq_shards::sim::SimRandom;
use ringmq_shards::sim::damage::{Damage, Target};
use ringmq_shards::sim::judge::{Before, Decision, Judgement, Start, judge};

const TOPIC: &str = "image";
const QUEUES: i32 = 4;
const MESSAGES: u64 = 400;
const SEGMENT_BYTES: u64 = 64 << 10;
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
    /// Where the messages that were served lie in the log.
    places: BTreeSet<u64>,
    log: String,
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

fn try_image(started: Result<Broker, NotStarted>, written: &Written) -> Outcome {
    let mut outcome =
        Outcome { what: "served", served: 0, wrong: 0, end: 0, places: BTreeSet::new(), log: String::new() };
    match started {
        Ok(broker) => {
            pull_everything(&broker, |place, physical, body, size| {
                outcome.served += 1;
                let crc = crc32fast::hash(body) & 0x7FFF_FFFF;
                outcome.wrong += usize::from(written.get(&place) != Some(&(physical, crc, body.len())));
                outcome.end = outcome.end.max(physical + size as i64);
                outcome.places.insert(physical as u64);
            });
            outcome.log = broker.log_text();
            assert!(!outcome.log.contains("panicked"), "{}", outcome.log);
            // It may complain of the damage; an error would be one that it went on with.
            broker.kill(&[" WARN ", "messages behind damage cannot be served", "index files were set aside"]);
        }
        Err(ended) => {
            assert!(!ended.log.contains("panicked"), "{}", ended.log);
            outcome.what = if ended.status.code() == Some(6) { "refused" } else { "not opened" };
            outcome.log = ended.log;
        }
    }
    outcome
}

fn judged(store: &Store, before: &Before, salvage: bool) -> Option<Judgement> {
    let start = Start { salvage, group_bytes: None };
    judge(&RealDisk, &StorePaths::new(store.path()), before, start).expect("the disk can be read")
}

/// What the broker did is what it had to do. Returns a name for it.
fn check(store: &Store, judgement: Option<&Judgement>, outcome: &Outcome, done: &[Damage]) -> &'static str {
    let log = &outcome.log;
    let hurts = |part: &str| {
        let part = store.path().join(part);
        done.iter().any(|damage| damage.path().starts_with(&part))
    };
    let decision = judgement.map(|judgement| &judgement.decision);
    if outcome.what != "served" {
        if let Some(decision) = decision.filter(|decision| !matches!(decision, Decision::Open { .. }))
            && decision.words().iter().all(|word| log.contains(word))
        {
            assert_eq!(outcome.what, "refused", "{log}");
            return decision.name();
        }
        // Files beside the log that cannot do without their bytes are named; the log may contradict what damaged queue files say.
        let is_changed = judgement.is_some_and(|judgement| !judgement.changed.is_empty());
        let named = |damage: &&Damage| log.contains(&damage.path().display().to_string());
        let beside = done.iter().filter(|damage| !damage.path().starts_with(store.path().join("commitlog")));
        let is_told = ["cannot rebuild queues", "cannot be made anew"].iter().any(|text| log.contains(text));
        let contradicts = is_told && (hurts("consumequeue") || is_changed);
        assert!(contradicts || beside.filter(named).count() > 0, "it had to do {decision:?}: {log}");
        assert!(outcome.what == "refused" || log.contains("it has format"), "{log}");
        return "refused_beside_the_log";
    }
    let Some(judgement) = judgement else { panic!("it could not be opened: {log}") };
    let Decision::Open { end, tail, salvaged } = &judgement.decision else {
        panic!("it was opened, and had to do {decision:?}: {log}");
    };
    assert_eq!(log.contains(&format!("cut the log at {end}: ")), !tail.is_empty(), "it had to do {decision:?}: {log}");
    assert_eq!(log.contains("cut the log at"), !tail.is_empty(), "it had to do {decision:?}: {log}");
    assert!(outcome.end as u64 <= *end, "a message ends at {}: {log}", outcome.end);
    if !tail.is_empty() {
        let saved = fs::read(store.path().join(format!("ringmq/discarded-{end}"))).expect("it was saved");
        assert!(saved == *tail, "what was cut is not what was saved");
    }
    assert_eq!(log.contains("salvage: "), salvaged.is_some(), "{log}");
    if salvaged.is_some() {
        assert!(judgement.decision.words().iter().all(|word| log.contains(word)), "{decision:?}: {log}");
    }
    if !hurts("consumequeue") && !hurts("config") && judgement.changed.is_empty() {
        let whole: Vec<_> = judgement.intact.range(..end).map(|(start, _)| *start).collect();
        let missing: Vec<_> = whole.iter().filter(|start| !outcome.places.contains(start)).collect();
        assert!(missing.is_empty(), "below {end} not served: {missing:?}: {log}");
    }
    judgement.decision.name()
}

/// Damages an image: in a way chosen by its number, or for the first ones in such that every start has to notice.
fn damage_of(image: u64, before: &Before, store: &Store) -> Vec<Damage> {
    let in_log = |offset: u64, bit| {
        let name = format!("commitlog/{:020}", offset - offset % SEGMENT_BYTES);
        Damage::FlippedBit(store.path().join(name), offset % SEGMENT_BYTES, bit)
    };
    let (last, bytes) = before.records.last_key_value().expect("a record");
    let sure = match image {
        // The first byte of the last record's body, which begins behind 88 bytes.
        0 | 1 => Some(in_log(last + 88, 3)),
        // The first byte behind the log.
        2 | 3 => Some(in_log(last + bytes.len() as u64, 1)),
        _ => None,
    };
    if let Some(damage) = sure {
        damage.apply(&RealDisk).expect("damaged");
        return vec![damage];
    }
    let mut random = SimRandom::new(image);
    let mut found = Vec::new();
    targets(&store.path(), &mut found);
    (0..=random.below(5) / 4)
        .map(|_| {
            let (target, used) = &found[random.below(found.len() as u64) as usize];
            let damage = Damage::choose(&mut random, target, *used);
            damage.apply(&RealDisk).expect("damaged");
            damage
        })
        .collect()
}

#[test]
fn damaged_images_on_disk() {
    // Goal: whatever happened to its files, the broker serves no wrong byte, does not panic, and refuses or cuts where it has to and
    // nowhere else. Method: images of two stores, one stopped in order and one killed; each is damaged once or twice, started on, read
    // whole, compared with what was written, and judged; what was refused for its log is salvaged from a second copy.
    let images: u64 = std::env::var("RINGMQ_IMAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(16);
    let room = std::env::var_os("RINGMQ_IMAGES_ROOM").map(PathBuf::from);
    let mut report = String::new();
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut decisions: BTreeMap<&str, u64> = BTreeMap::new();
    // Of the stores that opened: messages served, and written.
    let mut messages = (0, 0);
    for was_clean in [true, false] {
        let mut base = Store::new();
        let written = fill(&mut base, was_clean);
        let mut before = Before { segment_bytes: SEGMENT_BYTES, ..Before::default() };
        before.durable_point = fs::read(base.path().join("ringmq/durable-point")).expect("read");
        for (physical, _, _) in written.values() {
            let head = commit_log_bytes(&base.path(), *physical as u64, 4);
            let length = u32::from_be_bytes(head.try_into().expect("four bytes")) as usize;
            before.records.insert(*physical as u64, commit_log_bytes(&base.path(), *physical as u64, length));
        }
        if let Some(room) = &room {
            let mut text = String::new();
            for ((queue, offset), (physical, crc, length)) in &written {
                let _ = writeln!(text, "{queue} {offset} {physical} {crc} {length}");
            }
            fs::write(room.join(format!("written-{was_clean}.txt")), text).expect("written");
        }
        let mut store = Store::new();
        let renew = |store: &Store| {
            let _ = fs::remove_dir_all(store.path());
            copy_tree(&base.path(), &store.path());
        };
        renew(&store);
        let judgement = judged(&store, &before, false);
        let undamaged = try_image(store.try_start(&SETS), &written);
        assert_eq!((undamaged.served, undamaged.wrong), (written.len(), 0), "a store without damage is served whole");
        assert_eq!(check(&store, judgement.as_ref(), &undamaged, &[]), "kept");
        for image in (0..images).filter(|image| (image % 2 == 0) == was_clean) {
            renew(&store);
            let done = damage_of(image, &before, &store);
            if let Some(room) = &room {
                copy_tree(&store.path(), &room.join(format!("image-{image}")));
            }
            let what: Vec<String> = done.iter().map(ToString::to_string).collect();
            let what = what.join(", ").replace(&format!("{}/", store.path().display()), "");
            println!("image {image}, stopped in order {was_clean}: {what}");
            let judgement = judged(&store, &before, false);
            let outcome = try_image(store.try_start(&SETS), &written);
            assert_eq!(outcome.wrong, 0, "image {image}: {what}");
            let decision = check(&store, judgement.as_ref(), &outcome, &done);
            *decisions.entry(decision).or_default() += 1;
            if decision.starts_with("refused_") && decision != "refused_beside_the_log" {
                renew(&store);
                done.iter().for_each(|damage| damage.apply(&RealDisk).expect("damaged"));
                let judgement = judged(&store, &before, true);
                let salvaged = try_image(store.try_start_with(&["--salvage"], &SETS), &written);
                assert_eq!(salvaged.wrong, 0, "image {image}, salvaged: {what}");
                // A file of a wrong length is refused all the same.
                let expected = if decision == "refused_length" { decision } else { "salvaged" };
                assert_eq!(check(&store, judgement.as_ref(), &salvaged, &done), expected, "image {image}: {what}");
                *decisions.entry("salvaged").or_default() += u64::from(expected == "salvaged");
            }
            messages.0 += outcome.served;
            messages.1 += if outcome.what == "served" { written.len() } else { 0 };
            *counts.entry((done[0].kind(), outcome.what)).or_default() += 1;
            let Outcome { what: ended, served, wrong, end, .. } = outcome;
            let all = if served == written.len() { "all" } else { "fewer" };
            let _ = writeln!(report, "{image}\t{was_clean}\t{ended}\t{all}\t{served}\t{wrong}\t{end}\t{what}");
        }
    }
    println!("{counts:?}");
    assert!(messages.0 * 2 > messages.1, "most of a damaged store is served: {messages:?}");
    let refused: u64 = counts.iter().filter(|((_, what), _)| *what != "served").map(|(_, count)| count).sum();
    let served = counts.values().sum::<u64>() - refused;
    let met: Vec<String> = decisions.iter().map(|(name, count)| format!("{name}={count}")).collect();
    println!(
        "figures: images={images} served={served} refused={refused} wrong_messages=0 panics=0 wrong_decisions=0 {}",
        met.join(" ")
    );
    for decision in ["kept", "cut", "refused_damage", "salvaged"] {
        assert!(decisions.contains_key(decision), "no image was {decision}: {decisions:?}");
    }
    if let Some(room) = &room {
        fs::write(room.join("ringmq.txt"), report).expect("written");
    }
}
