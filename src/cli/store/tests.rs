//! The commands on real files: exit codes, the lock, and what a person can name.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use ringmq_shards::disk::{Disk, RealDisk};

use super::explain::Place;
use crate::cli::run;
use crate::process::ExitStatus;

fn code(line: &str, directory: &Path) -> ExitCode {
    let line = line.replace("DIR", &directory.display().to_string());
    run(line.split(' ').map(OsString::from))
}

fn files(directory: &Path) -> Vec<String> {
    RealDisk.list(directory).expect("listed").into_iter().map(|entry| entry.name).collect()
}

#[test]
fn exit_codes_of_an_empty_a_foreign_and_a_damaged_store() {
    // Goal: scripts can tell the cases apart, and looking changes nothing. Method: folders made by hand.
    let room = tempfile::tempdir().expect("a directory");
    let path = room.path();
    let usage = ExitCode::from(ExitStatus::Usage);
    let commands = [
        "verify --data DIR",
        "dump --data DIR",
        "adopt --check DIR",
        "adopt --check --data DIR",
        "repair --data DIR",
        "verify --format json --data DIR",
    ];
    for command in commands {
        assert_eq!(code(&format!("ringmq store {command}"), path), usage, "no store: {command}");
    }
    assert!(files(path).is_empty(), "not even a lock file");
    std::fs::create_dir(path.join("commitlog")).expect("made");
    for command in commands {
        assert_eq!(code(&format!("ringmq store {command}"), path), ExitCode::SUCCESS, "{command}");
    }
    assert_eq!(files(path), ["commitlog"], "not even a lock file");
    for command in
        ["verify --data DIR/none", "explain --data DIR nonsense", "adopt DIR", "verify --data DIR --set nonsense=1"]
    {
        assert_eq!(code(&format!("ringmq store {command}"), path), usage, "{command}");
    }
    std::fs::create_dir_all(path.join("dledger-n0")).expect("made");
    assert_eq!(code("ringmq store adopt --check DIR", path), ExitCode::from(ExitStatus::NotAdoptable));
    std::fs::remove_dir(path.join("dledger-n0")).expect("removed");
    std::fs::create_dir_all(path.join("config")).expect("made");
    std::fs::write(path.join("config/topics.json"), b"{broken").expect("written");
    assert_eq!(code("ringmq store verify --data DIR", path), ExitCode::from(ExitStatus::RecoveryRefused));
    std::fs::write(path.join("config/topics.json"), b"{}").expect("written");
    std::fs::create_dir_all(path.join("consumequeue/T/nonumber")).expect("made");
    assert_eq!(code("ringmq store verify --data DIR", path), ExitCode::from(ExitStatus::NeedsRepair));
    assert_eq!(code("ringmq store repair --write --data DIR", path), ExitCode::SUCCESS);
    assert_eq!(code("ringmq store verify --data DIR", path), ExitCode::SUCCESS);
    assert!(path.join("ringmq/repair-1/consumequeue/T/nonumber").is_dir(), "what was there is still somewhere");
    let no_such_place = ExitCode::from(ExitStatus::Failure);
    assert_eq!(code("ringmq store explain --data DIR T/0/5", path), no_such_place);
    assert_eq!(code("ringmq store explain --data DIR 99999999", path), no_such_place);
}

#[test]
fn places_are_understood() {
    // Goal: what tools and people call a place. Method: each form, topics with slashes never occur, and nonsense.
    assert_eq!(Place::parse("1234"), Some(Place::Log(1234)));
    assert_eq!(Place::parse("%RETRY%g/0/7"), Some(Place::Queue("%RETRY%g".into(), 0, 7)));
    assert_eq!(Place::parse("7F00000100002A9F0000000000000400"), Some(Place::Log(1024)));
    for nonsense in ["", "x", "-1", "T/0", "T/x/1", "/0/1", "7F00000100002A9F000000000000040Z"] {
        assert_eq!(Place::parse(nonsense), None, "{nonsense}");
    }
}
