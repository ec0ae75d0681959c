//! What lies around a store: files of others, a directory that cannot be written, another name and address of the broker.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use ringmq::client::{Message, PullStatus};

use super::broker::{Store, free_ports, wait_for};

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
        .args(["start", "--set", "metrics_listen=off"])
        .args(ports(free_ports()))
        .arg("--data")
        .arg(&data)
        .output()
        .expect("the binary runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_some_and(|code| code != 0), "{text}");
    assert!(text.contains("cannot create") || text.contains("cannot lock"), "{text}");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("changed");
}

/// Makes a process, also one of root, obey the rights of files.
fn obey_rights() -> io::Result<()> {
    const OVERRIDES: [libc::c_ulong; 2] = [1, 2];
    for capability in OVERRIDES {
        // SAFETY: plain system calls.
        let is_dropped =
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) == 0 || libc::geteuid() != 0 };
        if !is_dropped {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Sets the rights of a folder, of all folders in it, and of all files.
fn set_rights(path: &Path, of_folders: u32, of_files: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("changed");
    for entry in fs::read_dir(path).expect("listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            set_rights(&path, of_folders, of_files);
        } else {
            fs::set_permissions(&path, fs::Permissions::from_mode(of_files)).expect("changed");
        }
    }
    fs::set_permissions(path, fs::Permissions::from_mode(of_folders)).expect("changed");
}

#[test]
fn a_store_of_somebody_else_is_told_and_not_touched() {
    // Goal: a start by a user who may not read the store, or not write it, ends with a message that says what it may not, and
    // changes nothing. Method: a store with a message whose rights are taken away; both, then with its rights again.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("mine", 1);
    broker.client().send_to(&broker.queue("mine", 0), &Message::new("kept")).expect("stored");
    assert_eq!(broker.stop(&[]).code(), Some(0));
    for (of_folders, of_files) in [(0o000, 0o000), (0o555, 0o444)] {
        set_rights(&store.path(), of_folders, of_files);
        let started = store.try_start_prepared(Box::new(obey_rights), &[]);
        set_rights(&store.path(), 0o700, 0o600);
        let refused = started.err().expect("a broker started on a store that is not its own");
        assert!(refused.status.code().is_some_and(|code| code != 0), "{}", refused.log);
        let names_it = refused.log.contains(&store.path().display().to_string());
        assert!(names_it && refused.log.contains("Permission denied"), "{}", refused.log);
        assert!(!store.path().join("abort").exists(), "it was not opened");
    }
    let broker = store.start(&[]);
    assert_eq!(broker.client().max_offset(&broker.queue("mine", 0)).expect("an answer"), 1);
    assert_eq!(broker.stop(&[]).code(), Some(0));
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
        .args(["start", "--set", "metrics_listen=off", "--cores", "1023"])
        .args(ports(free_ports()))
        .arg("--data")
        .arg(&data)
        .output()
        .expect("the binary runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("processor 1023"), "{text}");
    assert!(!data.exists());
}

fn ports(broker: u16) -> [String; 4] {
    ["--broker-port".to_owned(), broker.to_string(), "--namesrv-port".to_owned(), (broker + 2).to_string()]
}

#[test]
fn a_log_file_can_be_moved_away() {
    // Goal: SIGHUP makes the broker go on in a new log file, as after a rotation, and nothing else happens. Method: move the file
    // away, send the signal, look for the new one; send and stop.
    let mut store = Store::new();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let (log, moved) = (folder.path().join("broker.log"), folder.path().join("broker.log.1"));
    let broker = store.start(&[&format!("log_target={}", log.display())]);
    fs::rename(&log, &moved).expect("moved");
    broker.signal(libc::SIGHUP);
    wait_for("the new log file", || fs::read_to_string(&log).ok().filter(|text| text.contains("opened anew")));
    broker.topic("kept", 1);
    broker.client().send_to(&broker.queue("kept", 0), &Message::new("served")).expect("stored");
    assert_eq!(broker.stop(&[]).code(), Some(0));
    assert!(fs::read_to_string(&moved).expect("readable").contains("listening on"));
}

#[test]
fn a_terminal_that_goes_away_stops_the_broker_in_order() {
    // Goal: without a log file SIGHUP is an orderly stop, unless it is ignored as by nohup. Method: the signal, to both.
    let mut store = Store::new();
    let mut broker = store.start(&[]);
    broker.signal(libc::SIGHUP);
    assert_eq!(broker.wait_for_end().code(), Some(0));
    assert!(!store.path().join("abort").exists());
    let ignores = || {
        // SAFETY: a plain system call.
        let before = unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
        if before == libc::SIG_ERR { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    let broker = store.try_start_prepared(Box::new(ignores), &[]).expect("started");
    broker.signal(libc::SIGHUP);
    broker.topic("kept", 1);
    broker.client().send_to(&broker.queue("kept", 0), &Message::new("served")).expect("stored");
    assert_eq!(broker.stop(&[]).code(), Some(0));
}

#[test]
fn a_full_output_is_no_reason_not_to_serve() {
    // Goal: a broker whose first line cannot be written serves and says so in its log. Method: an output that is always full.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let log = folder.path().join("broker.log");
    let mut broker = Command::new(env!("CARGO_BIN_EXE_ringmq"))
        .args(["start", "--set", "metrics_listen=off", "--set", "mappedFileSizeCommitLog=16 MiB"])
        .args(ports(free_ports()))
        .arg("--data")
        .arg(folder.path().join("data"))
        .stdout(fs::File::options().write(true).open("/dev/full").expect("a device"))
        .stderr(fs::File::create(&log).expect("a file"))
        .spawn()
        .expect("the binary runs");
    wait_for("the line in the log", || {
        assert!(broker.try_wait().expect("a child").is_none(), "it goes on");
        fs::read_to_string(&log).ok().filter(|text| text.contains("could not be written to the standard output"))
    });
    // SAFETY: a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(broker.id() as i32, libc::SIGTERM) }, 0);
    assert_eq!(broker.wait().expect("it ends").code(), Some(0));
}
