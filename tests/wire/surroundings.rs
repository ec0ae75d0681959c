//! What lies around a store: files of others, a directory that cannot be written, another name and address of the broker.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use ringmq::client::{Message, PullStatus};

use super::broker::Store;

#[test]
fn foreign_files_are_left_alone() {
    // Goal: files that are no part of a store neither stop a start nor vanish, and are named. Method: put one in each
    // folder of a store with messages, start, read, stop, look.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("mine", 1);
    broker.client().send_to(&broker.queue("mine", 0), &Message::new("kept")).expect("stored");
    assert_eq!(broker.stop(&[]).code(), Some(0));
    let folders =
        ["", "commitlog", "consumequeue", "consumequeue/mine", "consumequeue/mine/0", "config", "index", "ringmq"];
    let path = |folder: &str| store.path().join(folder).join("notes.txt");
    for folder in folders {
        fs::create_dir_all(store.path().join(folder)).expect("a folder");
        fs::write(path(folder), "not ours").expect("written");
    }
    let paths: Vec<_> = folders.iter().map(|folder| path(folder)).collect();
    let broker = store.start(&[]);
    let pulled = broker.client().pull(&broker.queue("mine", 0), 0, 32, 0).expect("an answer");
    assert_eq!(pulled.status, PullStatus::Found);
    let log = broker.log_text();
    for named in ["commitlog holds files that are no log segments", "mine/notes.txt", "mine/0/notes.txt"] {
        assert!(log.contains(named), "{named}: {log}");
    }
    let expected = ["holds files that are no log segments", "holds what belongs to no queue"];
    assert_eq!(broker.stop(&expected).code(), Some(0));
    for path in paths {
        assert_eq!(fs::read(&path).expect("still there"), b"not ours");
    }
}

#[test]
fn damaged_state_files_fall_back_or_refuse() {
    // Goal: a state file that cannot be understood gives way to its backup, with a warning; without one the start is refused
    // as for any other damage, and names the file. Method: damage each file of a stopped store, once beside a backup.
    let mut store = Store::new();
    assert_eq!(store.start(&[]).stop(&[]).code(), Some(0));
    for name in ["config/topics.json", "config/subscriptionGroup.json", "config/consumerOffset.json"] {
        let path = store.path().join(name);
        let backup = path.with_extension("json.bak");
        let good = fs::read(&path).unwrap_or_else(|_| b"{}".to_vec());
        fs::write(&backup, &good).expect("written");
        fs::write(&path, &good[..good.len() / 2]).expect("written");
        let expected = "a state file cannot be used, its backup is";
        let broker = store.start(&[]);
        assert!(broker.log_text().contains(expected), "{name}");
        assert_eq!(broker.stop(&[expected]).code(), Some(0));
        for damaged in [&path, &backup] {
            fs::write(damaged, "\u{0}").expect("written");
        }
        let refused = store.try_start(&[]).err().expect("no generation is good");
        assert_eq!(refused.status.code(), Some(6), "{}", refused.log);
        refused.assert_reason(path.file_name().and_then(|name| name.to_str()).unwrap_or_default());
        fs::write(&path, &good).expect("written");
    }
    assert_eq!(store.start(&[]).stop(&[]).code(), Some(0));
}

#[test]
fn a_directory_that_cannot_be_written_is_told() {
    // Goal: a start that cannot write its store ends with a message that names the place. Method: a folder without the
    // right to write; for root, whom rights do not bind, a folder below /proc.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).expect("changed");
    let is_bound = fs::write(folder.path().join("probe"), "").is_err();
    let data = if is_bound { folder.path().join("data") } else { "/proc/ringmq-data".into() };
    let output = Command::new(env!("CARGO_BIN_EXE_ringmq"))
        .args(["start", "--broker-port", "11990", "--namesrv-port", "11992", "--set", "metrics_listen=off", "--data"])
        .arg(&data)
        .output()
        .expect("the binary runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_some_and(|code| code != 0), "{text}");
    assert!(text.contains("cannot create") || text.contains("cannot lock"), "{text}");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("changed");
}

#[test]
fn another_name_and_address() {
    // Goal: a broker that is renamed or moves keeps its messages and goes on, and clients hear of the new name and address.
    // Method: three starts on one store, each with another name and advertised address.
    let mut store = Store::new();
    for (number, (name, address)) in
        [("first", "127.0.0.1"), ("second", "127.0.0.2"), ("third", "127.0.0.1")].iter().enumerate()
    {
        let sets = [format!("brokerName={name}"), format!("advertise={address}"), "listen=0.0.0.0".to_owned()];
        let broker = store.start(&sets.each_ref().map(String::as_str));
        let mut client = broker.client();
        let route = if number == 0 { broker.topic("moved", 1) } else { client.route("moved").expect("kept") };
        let queue = &route.to_read[0];
        assert_eq!(queue.broker_name, *name);
        assert!(queue.address.starts_with(address), "{}", queue.address);
        let receipt = client.send_to(queue, &Message::new(*name)).expect("stored");
        assert_eq!(receipt.queue_offset, number as i64);
        let pulled = client.pull(queue, 0, 32, 0).expect("an answer");
        let bodies: Vec<Vec<u8>> = pulled.messages().map(|message| message.expect("whole").body().to_vec()).collect();
        assert_eq!(bodies.len(), number + 1);
        assert_eq!(bodies[number], name.as_bytes());
        drop(client);
        assert_eq!(broker.stop(&[]).code(), Some(0));
    }
}

#[test]
fn processors_of_another_machine_are_told() {
    // Goal: a processor that is not there refuses the start before the store is touched. Method: the largest number.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let data = folder.path().join("data");
    let output = Command::new(env!("CARGO_BIN_EXE_ringmq"))
        .args(["start", "--broker-port", "11995", "--namesrv-port", "11997", "--set", "metrics_listen=off"])
        .args(["--cores", "1023", "--data"])
        .arg(&data)
        .output()
        .expect("the binary runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("processor 1023"), "{text}");
    assert!(!data.exists());
}
