//! The store doctor at work: what `store verify`, `dump`, `explain` and `repair` say and do about stores of the real binary, and what
//! a start with `--salvage` does.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringmq::client::{Client, Message, PullStatus, Queue};
use serde_json::Value;

use super::broker::{SMALL_FILES, Store, copy_tree};

pub const MESSAGES: usize = 230;
/// The log has three files, and this message lies in the last.
const HARMED: usize = 210;

/// Where a message is.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub physical: u64,
    pub bytes: u64,
}

pub fn body(number: usize) -> String {
    format!("body {number} ").repeat(60)
}

/// A store that was stopped in order, and where its messages lie.
pub fn filled() -> (Store, Vec<Place>) {
    let mut store = Store::new();
    let broker = store.start(&SMALL_FILES);
    broker.topic("T", 1);
    let (mut client, queue) = (broker.client(), broker.queue("T", 0));
    for number in 0..MESSAGES {
        let message = Message::new(body(number)).with_key(format!("k{number}"));
        client.send_to(&queue, &message).expect("stored");
    }
    let places = served(&mut client, &queue);
    assert_eq!(places.len(), MESSAGES);
    drop(client);
    assert_eq!(broker.stop(&[]).code(), Some(0));
    (store, places)
}

/// Reads the queue from its beginning, and checks what it gets.
pub fn served(client: &mut Client, queue: &Queue) -> Vec<Place> {
    let mut places = Vec::new();
    while let pulled = client.pull(queue, places.len() as i64, 32, 0).expect("an answer")
        && pulled.status == PullStatus::Found
    {
        for record in pulled.messages() {
            let record = record.expect("whole");
            assert_eq!(record.queue_offset(), places.len() as i64, "no gap");
            assert_eq!(record.body(), body(places.len()).as_bytes());
            places.push(Place { physical: record.physical_offset() as u64, bytes: record.total_size() as u64 });
        }
    }
    places
}

/// Runs a command of `store`: its exit code and what it printed.
pub fn store_command(data: &Path, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
    command.arg("store").args(words).arg("--data").arg(data);
    SMALL_FILES.iter().for_each(|set| _ = command.args(["--set", set]));
    let output = command.output().expect("the binary runs");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!complaint.contains("panicked"), "{complaint}");
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

fn store_json(data: &Path, words: &[&str]) -> (Option<i32>, Value) {
    let words: Vec<&str> = words.iter().copied().chain(["--format", "json"]).collect();
    let (code, text) = store_command(data, &words);
    (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// Every file of a folder, with its content.
pub fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(content(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).expect("read"));
        }
    }
    found
}

/// Flips a bit of a file.
pub fn flip(path: &Path, position: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).expect("read");
    file.write_all_at(&[byte[0] ^ 4], position).expect("written");
}

pub fn segment(data: &Path, number: u64) -> PathBuf {
    data.join(format!("commitlog/{:020}", number << 16))
}

#[test]
fn a_sound_store_is_told_of() {
    // Goal: the doctor says of a store what is in it, in text and JSON, and changes nothing. Method: a store stopped in order; all
    // commands that only look; its files before and after.
    let (store, places) = filled();
    let data = store.path();
    let before = content(&data);
    let (code, verified) = store_json(&data, &["verify"]);
    assert_eq!((code, &verified["verdict"]), (Some(0), &"sound".into()), "{verified}");
    let figures = &verified["figures"];
    assert_eq!(figures["records"], MESSAGES);
    assert_eq!(figures["queueEntries"], MESSAGES);
    assert_eq!(figures["segments"].as_u64().map(|count| count >= 3), Some(true), "{figures}");

    let (code, dump) = store_command(&data, &["dump", "--topic", "T", "--body", "--format", "json"]);
    assert_eq!((code, dump.lines().count()), (Some(0), MESSAGES));
    for (number, (line, place)) in dump.lines().zip(&places).enumerate() {
        let record: Value = serde_json::from_str(line).expect("a value on each line");
        assert_eq!((&record["offset"], &record["size"]), (&place.physical.into(), &place.bytes.into()));
        assert_eq!((&record["queueOffset"], &record["body"]), (&number.into(), &body(number).into()));
        assert_eq!(record["properties"]["KEYS"], format!("k{number}"));
    }
    let (code, found) = store_command(&data, &["dump", "--key", "k77"]);
    assert_eq!(code, Some(0));
    assert!(found.lines().count() == 1 && found.contains(" T/0/77 "), "{found}");

    let by_queue = store_command(&data, &["explain", "T/0/77"]);
    let by_log = store_command(&data, &["explain", &places[77].physical.to_string()]);
    for (code, told) in [by_queue, by_log] {
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains("T/0/77") && told.contains(&places[77].physical.to_string()), "{told}");
    }
    assert_eq!(store_command(&data, &["explain", "T/0/5000"]).0, Some(1));

    let (code, plan) = store_json(&data, &["repair"]);
    assert_eq!((code, &plan["written"]), (Some(0), &false.into()), "{plan}");
    assert!(content(&data) == before, "looking changes nothing");
}

#[test]
fn what_follows_from_the_log_is_made_anew() {
    // Goal: damaged queue and index files are named, and a repair that is told to write makes them anew and keeps what it replaces.
    // Method: a bit of each is flipped; verify, a repair without --write, one with it; a start, its messages, keys and log.
    let (mut store, _) = filled();
    let data = store.path();
    let queue_file = data.join(format!("consumequeue/T/0/{:020}", 1000));
    let index_file = fs::read_dir(data.join("index")).expect("listed").next().expect("one").expect("an entry").path();
    flip(&queue_file, 407);
    flip(&index_file, 40 + 4 * 100 + 20 * 5 + 8);
    let before = content(&data);
    let (code, verified) = store_json(&data, &["verify"]);
    assert_eq!((code, &verified["verdict"]), (Some(9), &"needs repair".into()), "{verified}");
    let named = |path: &Path| {
        let findings = verified["findings"].as_array().expect("a list");
        findings.iter().any(|finding| finding["path"] == path.to_str().expect("text"))
    };
    assert!(named(&queue_file) && named(&index_file), "{verified}");
    assert_eq!(store_command(&data, &["explain", "T/0/70"]).0, Some(9));
    let (code, plan) = store_json(&data, &["repair"]);
    assert_eq!((code, plan["steps"].as_array().map(Vec::len)), (Some(9), Some(2)), "{plan}");
    assert!(content(&data) == before, "without --write nothing is changed");

    let (code, repaired) = store_json(&data, &["repair", "--write"]);
    assert_eq!((code, &repaired["verdict"]), (Some(0), &"sound".into()), "{repaired}");
    let after = content(&data);
    for harmed in [&queue_file, &index_file] {
        let name = harmed.file_name();
        let is_kept = after.iter().any(|(path, bytes)| {
            path.starts_with(data.join("ringmq")) && path.file_name() == name && *bytes == before[harmed]
        });
        assert!(is_kept, "{harmed:?} is saved aside: {repaired}");
        assert!(after.get(harmed) != Some(&before[harmed]), "{harmed:?} is new");
    }
    assert_eq!(store_command(&data, &["verify"]).0, Some(0));

    let broker = store.start(&SMALL_FILES);
    let (mut client, queue) = (broker.client(), broker.queue("T", 0));
    assert_eq!(served(&mut client, &queue).len(), MESSAGES);
    drop(client);
    assert_eq!(broker.stop(&[]).code(), Some(0));
}

#[test]
fn a_damaged_log_is_served_only_when_told() {
    // Goal: damage below what was synced refuses the start with the place, and `--salvage` or `repair --cut-log` cut there and save what
    // follows. Method: a flipped bit in a body near the end of the log; a start, the doctor, and then each of the two ways on a copy.
    let (mut store, places) = filled();
    let data = store.path();
    let harmed = places[HARMED].physical;
    let file = segment(&data, harmed >> 16);
    assert!(
        harmed >> 16 >= 2 && places[MESSAGES - 1].physical >> 16 == harmed >> 16,
        "in the last file, and not last there"
    );
    flip(&file, harmed % (1 << 16) + 100);
    let behind = fs::read(&file).expect("read").split_off((harmed % (1 << 16)) as usize);

    let refused = store.try_start(&SMALL_FILES).err().expect("the start is refused");
    assert_eq!(refused.status.code(), Some(6));
    let position = harmed % (1 << 16);
    refused.assert_reason(&format!("{} is damaged at byte {position} (log offset {harmed}", file.display()));
    let before = content(&data);
    let (code, verified) = store_json(&data, &["verify"]);
    assert_eq!((code, &verified["verdict"]), (Some(6), &"damaged".into()), "{verified}");
    assert_eq!(verified["figures"]["firstDamage"], harmed);
    let (code, plan) = store_json(&data, &["repair"]);
    assert_eq!(code, Some(6), "{plan}");
    assert_eq!(store_command(&data, &["repair", "--write"]).0, Some(6), "the log is cut only when that is allowed");
    let (code, _) = store_command(&data, &["dump"]);
    assert_eq!(code, Some(6), "a hole in the log is told");
    assert!(content(&data) == before, "refusals change nothing");

    for is_salvaged in [true, false] {
        let mut copy = Store::new();
        copy_tree(&data, &copy.path());
        let mut expected = vec![];
        let broker = if is_salvaged {
            expected.extend(["salvage: ", "cut the log at", "cut queue entries", "index files anew"]);
            copy.try_start_with(&["--salvage"], &SMALL_FILES).unwrap_or_else(|ended| panic!("{}", ended.log))
        } else {
            let (code, repaired) = store_json(&copy.path(), &["repair", "--write", "--cut-log"]);
            assert_eq!((code, &repaired["cut"]["offset"]), (Some(0), &harmed.into()), "{repaired}");
            copy.start(&SMALL_FILES)
        };
        let (mut client, queue) = (broker.client(), broker.queue("T", 0));
        assert_eq!(served(&mut client, &queue).len(), HARMED, "everything in front of the damage");
        let receipt = client.send_to(&queue, &Message::new(body(HARMED))).expect("stored");
        assert_eq!(receipt.queue_offset, HARMED as i64);
        drop(client);
        assert_eq!(broker.stop(&expected).code(), Some(0));
        let kept = content(&copy.path().join("ringmq"));
        let is_saved = |bytes: &Vec<u8>| bytes.starts_with(&behind[..1000]);
        assert!(kept.values().any(is_saved), "what was behind is saved: {:?}", kept.keys());
        assert_eq!(store_command(&copy.path(), &["verify"]).0, Some(0));
    }
}
