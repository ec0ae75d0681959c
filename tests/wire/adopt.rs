//! What `store adopt --check` says beforehand, and what the start then does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringmq::client::Message;

use super::broker::{SMALL_FILES, Store, copy_tree};

/// Three files of fifty entries.
const MESSAGES: u64 = 140;

/// Whether the check finds nothing against a start, and what it says.
fn check(data: &Path, sets: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
    command.args(["store", "adopt", "--check"]).arg(data);
    sets.iter().for_each(|set| _ = command.args(["--set", set]));
    let output = command.output().expect("the binary runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let is_adoptable = match output.status.code() {
        Some(0) => true,
        Some(10) => false,
        other => panic!("{other:?}: {text}"),
    };
    assert_eq!(is_adoptable, text.contains("RingMQ can open this store"), "{text}");
    (is_adoptable, text)
}

fn file(data: &Path, number: u64) -> PathBuf {
    data.join(format!("consumequeue/T/0/{:020}", number * 1000))
}

fn set_length(path: &Path, bytes: u64) {
    fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(bytes)).expect("its length is set");
}

fn index_file(data: &Path) -> PathBuf {
    fs::read_dir(data.join("index")).expect("an index").next().expect("a file").expect("an entry").path()
}

#[test]
fn the_check_says_what_the_start_does() {
    // Goal: a store that the check finds fit is not refused by the start, and the other way round. Method: one store, stopped in
    // order; on a copy of it one thing after the other is done to files of queues and index; then the check and the start.
    type Harm = fn(&Path);
    let rows: [(&str, Harm, bool); 14] = [
        ("nothing", |_| (), true),
        ("a last file cut", |data| set_length(&file(data, 2), 400), true),
        ("a last file cut behind its entries", |data| set_length(&file(data, 2), 900), false),
        ("a first file cut", |data| set_length(&file(data, 0), 500), false),
        ("a file too long", |data| set_length(&file(data, 1), 1020), false),
        (
            "a last file cut by a crash",
            |data| {
                set_length(&file(data, 2), 900);
                fs::write(data.join("abort"), b"1").expect("written");
            },
            true,
        ),
        ("an empty last file", |data| fs::write(file(data, 3), b"").expect("written"), true),
        ("a file missing", |data| fs::remove_file(file(data, 1)).expect("removed"), true),
        (
            "a wrong number",
            |data| fs::write(data.join("consumequeue/T/0/00000000000000000001"), [0; 1000]).expect("written"),
            false,
        ),
        ("a foreign file", |data| fs::write(data.join("consumequeue/T/0/notes"), b"mine").expect("written"), true),
        ("a folder", |data| fs::create_dir(data.join("consumequeue/T/0/00000000000000003000")).expect("made"), true),
        ("no queue", |data| fs::create_dir(data.join("consumequeue/T/notes")).expect("made"), true),
        ("no topic", |data| fs::write(data.join("consumequeue/notes"), b"mine").expect("written"), true),
        ("an index file cut", |data| set_length(&index_file(data), 1000), true),
    ];
    let mut base = Store::new();
    let broker = base.start(&SMALL_FILES);
    broker.topic("T", 1);
    let (mut client, queue) = (broker.client(), broker.queue("T", 0));
    for number in 0..MESSAGES {
        let message = Message::new(format!("body {number}")).with_key(format!("k{number}"));
        client.send_to(&queue, &message).expect("stored");
    }
    drop(client);
    broker.stop(&[]);
    for (name, harm, is_fit) in rows {
        let mut store = Store::new();
        copy_tree(&base.path(), &store.path());
        harm(&store.path());
        let (is_adoptable, text) = check(&store.path(), &SMALL_FILES);
        assert_eq!(is_adoptable, is_fit, "{name}: {text}");
        match store.try_start(&SMALL_FILES) {
            Ok(broker) => {
                assert!(is_fit, "{name}: it starts; {text}");
                broker.kill(&[
                    "belongs to no queue",
                    "index files were set aside",
                    "was not stopped in order",
                    "lacked messages and were made anew",
                ]);
            }
            Err(ended) => {
                assert!(!is_fit && ended.status.code() == Some(6), "{name}: {}; {text}", ended.log);
            }
        }
    }

    // Files of another size than the configured one are a matter of the configuration, which the check names.
    let other: Vec<&str> = SMALL_FILES[1..].to_vec();
    let (is_adoptable, text) = check(&base.path(), &other);
    assert!(!is_adoptable && text.contains("look again with --set mappedFileSizeConsumeQueue=1000"), "{text}");
    let refused = base.try_start(&other).err().expect("refused");
    assert_eq!(refused.status.code(), Some(6), "{}", refused.log);
    let (_, text) = check(&base.path(), &SMALL_FILES);
    assert!(text.contains("start it with mappedFileSizeCommitLog=65536 and mappedFileSizeConsumeQueue=1000"), "{text}");
}
