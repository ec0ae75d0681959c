//! The command on small folders that look like machines: exit codes, options, files.

use super::*;
use crate::cli::options::{Command, CommandLine};
use clap::Parser;

/// A folder with what a check needs, and a kernel that has one setting to change.
fn machine() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, text) in [
        ("sys/devices/system/cpu/online", "0-1"),
        ("proc/self/mountinfo", "1 1 0:1 / / rw,relatime - ext4 /dev/x rw"),
        ("proc/sys/kernel/random/boot_id", "boot"),
        ("proc/sys/kernel/io_uring_disabled", "0"),
        ("proc/sys/vm/swappiness", "60"),
        ("data/kept", ""),
        ("var/lib/kept", ""),
    ] {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("below")).expect("folders");
        std::fs::write(path, format!("{text}\n")).expect("a file");
    }
    folder
}

fn run(root: &Path, line: &str) -> TuneStatus {
    let line = format!("ringmq tune {line} --root {}", root.display());
    let Ok(Command::Tune(arguments)) = CommandLine::try_parse_from(line.split(' ')).map(|parsed| parsed.command) else {
        panic!("{line}");
    };
    carry_out(arguments.what).unwrap_or_else(|Failure(status, _)| status)
}

#[test]
fn exit_codes() {
    // Goal: each code means what the help says. Method: one small machine on its way through all of them.
    let machine = machine();
    let root = machine.path();
    let put = |path: &str, text: &str| std::fs::write(root.join(path), text).expect("a file");
    assert_eq!(run(root, "check --profile dev-vm --data /data"), TuneStatus::AllOk);
    assert_eq!(run(root, "check --data /data"), TuneStatus::Drift);
    assert_eq!(run(root, "plan --format json --data /data"), TuneStatus::Drift);
    assert_eq!(run(root, "plan --json --data /data"), TuneStatus::Drift);
    assert_eq!(run(root, "apply --dry-run --format script --data /data"), TuneStatus::Drift);
    assert_eq!(std::fs::read_to_string(root.join("proc/sys/vm/swappiness")).expect("a file"), "60\n");
    let system = open_root(root).unwrap_or_else(|Failure(_, message)| panic!("{message}"));
    let lock = ringmq_tuning::journal::lock(&system).expect("free");
    assert_eq!(run(root, "apply --data /data"), TuneStatus::Internal, "another process is at it");
    drop(lock);
    assert_eq!(run(root, "apply --data /data"), TuneStatus::AllOk);
    assert_eq!(std::fs::read_to_string(root.join("proc/sys/vm/swappiness")).expect("a file"), "1\n");
    assert_eq!(run(root, "check --data /data"), TuneStatus::AllOk);
    put("proc/sys/vm/swappiness", "7");
    assert_eq!(run(root, "revert"), TuneStatus::Drift);
    assert_eq!(run(root, "revert --force"), TuneStatus::AllOk);
    put("proc/sys/kernel/io_uring_disabled", "2");
    assert_eq!(run(root, "check --data /data"), TuneStatus::Fatal);
    for wrong in ["check --profile fast", "check --only vm.speed", "check --nic eth9", "check --format script"] {
        assert_eq!(run(root, &format!("{wrong} --data /data")), TuneStatus::Usage, "{wrong}");
    }
    assert_eq!(run(&root.join("nowhere"), "check --data /data"), TuneStatus::Usage);
    std::fs::create_dir_all(root.join("var/lib/ringmq-tune")).expect("folders");
    put("var/lib/ringmq-tune/journal", "something else\n");
    assert_eq!(run(root, "revert"), TuneStatus::Internal);
}

#[test]
fn json_is_short_for_its_format() {
    // Goal: --json is taken wherever --format is, and means the same. Method: each command with it; both at once.
    let of = |line: &str| {
        let words = format!("ringmq tune {line}");
        let parsed = CommandLine::try_parse_from(words.split(' ')).map(|parsed| parsed.command);
        let Ok(Command::Tune(arguments)) = parsed else { return None };
        Some(match arguments.what {
            TuneCommand::List(format) | TuneCommand::Explain { format, .. } | TuneCommand::Revert { format, .. } => {
                format.chosen()
            }
            TuneCommand::Check(host) | TuneCommand::Plan(host) => host.format.chosen(),
            TuneCommand::Apply { host, .. } | TuneCommand::Export { host, .. } | TuneCommand::Cpus { host, .. } => {
                host.format.chosen()
            }
        })
    };
    for command in ["list", "explain vm.swappiness", "check", "plan", "apply", "revert", "export", "cpus"] {
        assert_eq!(of(command), Some(Format::Text), "{command}");
        assert_eq!(of(&format!("{command} --json")), Some(Format::Json), "{command}");
        assert_eq!(of(&format!("{command} --format json")), Some(Format::Json), "{command}");
        assert_eq!(of(&format!("{command} --json --format text")), None, "{command}: contradiction");
    }
}

#[test]
fn persisting_is_undone() {
    // Goal: apply --persist installs a unit with the same choices, and revert removes it. Method: look at the files.
    let machine = machine();
    let unit = machine.path().join("etc/systemd/system/ringmq-tune.service");
    std::fs::create_dir_all(unit.parent().expect("below")).expect("folders");
    assert_eq!(run(machine.path(), "apply --persist --data /data --only vm.swappiness"), TuneStatus::AllOk);
    let text = std::fs::read_to_string(&unit).expect("made");
    assert!(text.contains(" tune apply --profile latency --data /data --only vm.swappiness\n"), "{text}");
    assert_eq!(run(machine.path(), "revert --keep-files"), TuneStatus::AllOk);
    assert!(unit.exists(), "the unit's own stop leaves it for the next boot");
    assert_eq!(run(machine.path(), "revert"), TuneStatus::AllOk);
    assert!(!unit.exists() && !unit.with_file_name("multi-user.target.d").exists());
}

#[test]
fn start_reads_what_cpus_wrote() {
    // Goal: tool and broker share one file. Method: write it for this machine, load a configuration with it,
    // with cores of its own, and with a file of another machine.
    let data = tempfile::tempdir().expect("a folder");
    let line = format!("ringmq tune cpus --data {}", data.path().display());
    let Ok(Command::Tune(arguments)) = CommandLine::try_parse_from(line.split(' ')).map(|parsed| parsed.command) else {
        panic!("{line}");
    };
    assert!(matches!(carry_out(arguments.what), Ok(TuneStatus::AllOk)));
    let load = |cores: Option<&str>| {
        let mut options = vec![("data_dir", data.path().display().to_string())];
        options.extend(cores.map(|cores| ("cores", cores.to_string())));
        config::load(Sources { options, ..Sources::default() })
    };
    let chosen = load(None).expect("loads").cores;
    assert!(!chosen.is_empty());
    assert_eq!(load(Some("0")).expect("loads").cores, [0]);
    let file = data.path().join(config::OWN_FOLDER).join(config::CPUS_FILE);
    std::fs::write(&file, "shards = \"1000-1001\"\n").expect("a file");
    let error = load(None).expect_err("refused").to_string();
    assert!(error.contains("cpus.toml") && error.contains("1000") && error.contains("tune cpus"), "{error}");
    std::fs::write(&file, "interrupts = \"0\"\n").expect("a file");
    assert!(load(None).expect_err("refused").to_string().contains("names no shards"));
}

#[test]
fn the_wish_for_wakefulness_is_a_number_of_four_bytes() {
    // Goal: the kernel's device gets what it documents. Method: a file in its place; one that is missing.
    let folder = tempfile::tempdir().expect("a folder");
    let device = folder.path().join("device");
    assert!(ask_for_wakefulness(&device).is_err());
    std::fs::write(&device, "").expect("a file");
    drop(ask_for_wakefulness(&device).expect("written"));
    assert_eq!(std::fs::read(&device).expect("a file"), [0; 4]);
}

#[test]
fn the_start_has_one_line() {
    // Goal: a starting broker says how the host stands, whatever the host. Method: the line on this machine.
    let config = config::Layers::default().build().expect("defaults");
    let line = at_start(&config).line;
    assert!(line.starts_with("tuning: ") && !line.contains('\n'), "{line}");
    assert!(line.matches("ringmq tune explain").count() <= WORST_AT_START, "{line}");
}

fn session_of(root: &Path, line: &str) -> Session {
    let line = format!("ringmq tune check {line} --root {}", root.display());
    match CommandLine::try_parse_from(line.split(' ')).map(|parsed| parsed.command) {
        Ok(Command::Tune(TuneArguments { what: TuneCommand::Check(arguments) })) => {
            session(&arguments).unwrap_or_else(|Failure(_, message)| panic!("{message}"))
        }
        _ => panic!("{line}"),
    }
}

#[test]
fn a_named_directory_must_exist() {
    // Goal: a misspelt directory is not taken for one on the disk of its parent. Method: one of two; the data directory of the
    // configuration, which the broker makes itself, may be missing.
    let machine = machine();
    assert_eq!(run(machine.path(), "check --profile dev-vm --dirs /data"), TuneStatus::AllOk);
    for dirs in ["/dtaa/nowhere", "/data,/dtaa"] {
        assert_eq!(run(machine.path(), &format!("check --profile dev-vm --dirs {dirs}")), TuneStatus::Usage, "{dirs}");
    }
    assert_eq!(run(machine.path(), "check --profile dev-vm --data /data/to/come"), TuneStatus::AllOk);
}

#[test]
fn changing_the_profile_leaves_nothing_of_the_first() {
    // Goal: apply of another profile is the same as that profile alone, and exits so. Method: one setting that both have, one
    // that only the first has.
    let machine = machine();
    let put = |path: &str, text: &str| std::fs::write(machine.path().join(path), text).expect("a file");
    let read = |path: &str| std::fs::read_to_string(machine.path().join(path)).expect("a file");
    put("proc/sys/vm/page-cluster", "3\n");
    assert_eq!(run(machine.path(), "apply --profile latency --data /data"), TuneStatus::AllOk);
    assert_eq!(read("proc/sys/vm/page-cluster"), "0\n");
    assert_eq!(run(machine.path(), "apply --profile throughput --data /data"), TuneStatus::AllOk);
    assert_eq!((read("proc/sys/vm/page-cluster"), read("proc/sys/vm/swappiness")), ("3\n".into(), "1\n".into()));
    assert_eq!(run(machine.path(), "revert"), TuneStatus::AllOk);
    assert_eq!(read("proc/sys/vm/swappiness"), "60\n");
}

#[test]
fn a_host_that_is_as_wanted_counts_as_tuned() {
    // Goal: who tuned by files has the profile at the start, with what it brings. Method: a host that drifts, the same as
    // wanted without a journal, and with the journal of another profile.
    let machine = machine();
    let start = || session_at_start(&session_of(machine.path(), "--data /data"));
    assert!(start().line.contains("no profile is applied") && !start().is_for_latency, "{}", start().line);
    std::fs::write(machine.path().join("proc/sys/vm/swappiness"), "1\n").expect("a file");
    assert!(start().line.contains("the host is as profile latency wants it") && start().is_for_latency);
    assert_eq!(run(machine.path(), "apply --data /data"), TuneStatus::AllOk);
    assert!(start().line.contains("profile latency is applied") && start().is_for_latency);
    assert_eq!(run(machine.path(), "apply --profile throughput --data /data"), TuneStatus::AllOk);
    assert!(start().line.contains("profile throughput is applied") && !start().is_for_latency);
}

#[test]
fn units_repeat_what_was_told() {
    // Goal: every boot, and the broker, see the same directories and choices. Method: words of the units for a few lines.
    let machine = machine();
    std::fs::create_dir_all(machine.path().join("data/with blank")).expect("a folder");
    let of = |line: &[&str]| {
        let root = machine.path().display().to_string();
        let words = ["ringmq", "tune", "check", "--root", &root].into_iter().chain(line.iter().copied());
        let Ok(Command::Tune(TuneArguments { what: TuneCommand::Check(arguments) })) =
            CommandLine::try_parse_from(words).map(|parsed| parsed.command)
        else {
            panic!("{line:?}");
        };
        let session = session(&arguments).unwrap_or_else(|Failure(_, message)| panic!("{message}"));
        service(&session, &arguments).unwrap_or_else(|Failure(_, message)| panic!("{message}"))
    };
    let service = of(&["--data", "/data/with blank", "--proven-only", "--allow", "jitter"]);
    assert_eq!(service.start, ["--config", export::CONFIG, "--data", "/data/with blank"]);
    assert_eq!(service.tune, ["--data", "/data/with blank", "--allow", "jitter", "--proven-only"]);
    assert_eq!(service.writable, ["/data/with blank"]);
    let service = of(&["--data", "/var/lib/ringmq", "--dirs", "/data"]);
    assert_eq!(
        (service.tune, service.start[3].as_str()),
        (vec!["--dirs".into(), "/data".to_string()], "/var/lib/ringmq")
    );
}
