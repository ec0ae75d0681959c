//! Which directories, disks, cards and processors a plan is about.

use ringmq_tuning::catalogue::Catalogue;
use ringmq_tuning::executor::Step;
use ringmq_tuning::placement::Placement;
use ringmq_tuning::plan::{self, Choices, Line, Plan, State};
use ringmq_tuning::probe::{Host, Selection};

use crate::machine::Machine;
use crate::{apply, everything, plan_of, settled, system};

fn plan_with(machine: &Machine, profile: &str, selection: &Selection, choices: &Choices) -> Plan {
    let (catalogue, system) = (Catalogue::embedded().expect("sound"), system(machine));
    let host = Host::probe(&system, selection).expect("a host");
    plan::make(&system, &catalogue, &host, catalogue.profile(profile).expect("exists"), choices).expect("a plan")
}

fn lines<'plan>(plan: &'plan Plan, id: &str) -> Vec<&'plan Line> {
    plan.lines.iter().filter(|line| line.id == id).collect()
}

#[test]
fn each_data_directory_is_judged_by_itself() {
    // Goal: a full or unfit directory is not hidden by another. Method: two on different mounts, one of them full and on a
    // file system in memory; then two that are alike.
    let machine = Machine::small_virtual();
    let mounts = machine.text("/proc/self/mountinfo");
    machine.put("/proc/self/mountinfo", &format!("{}\n9 1 0:9 / /shm rw,noatime - tmpfs shm rw", mounts.trim_end()));
    machine.put("/fake-root/free-bytes-shm", "1073741824");
    machine.put("/shm/kept", "");
    let two = Selection { directories: vec!["/data/ringmq".into(), "/shm".into()], ..Selection::default() };
    let plan = plan_with(&machine, "latency", &two, &Choices::default());
    let told: Vec<_> = lines(&plan, "fs.free_space").iter().map(|line| (line.name(), line.state)).collect();
    let name = |path: &str| format!("fs.free_space[{path}]");
    assert_eq!(told, [(name("/data/ringmq"), State::Ok), (name("/shm"), State::Drift)]);
    assert_eq!(plan.fatal_count(), 1);
    let kinds: Vec<_> = lines(&plan, "fs.type").iter().map(|line| line.state).collect();
    assert_eq!(kinds, [State::Ok, State::Advice]);
    let alike = Selection { directories: vec!["/data/ringmq".into(), "/data".into()], ..Selection::default() };
    let plan = plan_with(&machine, "latency", &alike, &Choices::default());
    assert_eq!(lines(&plan, "fs.free_space").iter().map(|line| line.name()).collect::<Vec<_>>(), ["fs.free_space"]);
}

#[test]
fn queues_come_before_what_depends_on_them() {
    // Goal: what follows from the number of queues is decided for those that the card gets, not for those it had. Method: a
    // card that grows from one queue to eight on eight cores; apply once, look again with and without the class.
    for profile in ["latency", "throughput"] {
        let machine = Machine::growing();
        let planned = plan_of(&machine, &system(&machine), profile, &everything());
        assert!(planned.postponed_count() > 2, "{profile}");
        assert!(planned.lines.iter().all(|line| line.change.is_none() || !line.id.contains("rps")), "{profile}");
        let steps = apply(&machine, profile);
        assert!(steps.iter().all(Step::is_good), "{steps:?}");
        assert!(steps.iter().any(|step| step.name == "nic.irq_affinity[eth0/46]"), "the new queues as well: {steps:?}");
        for choices in [everything(), settled(), Choices::default()] {
            let plan = plan_of(&machine, &system(&machine), profile, &choices);
            let drift: Vec<String> =
                plan.lines.iter().filter(|line| line.state == State::Drift).map(Line::name).collect();
            assert_eq!(drift, [""; 0], "{profile}");
            assert_eq!(plan.placement, planned.placement, "{profile}: cores are where they were decided to be");
        }
    }
}

#[test]
fn a_plan_follows_the_cores_that_the_broker_runs_on() {
    // Goal: a broker that its service keeps to the shards' cores finds a well tuned host well tuned. Method: apply as the
    // operator does; then look as that broker does, with the file of `tune cpus` and without.
    let machine = Machine::growing();
    let placement: Placement = plan_of(&machine, &system(&machine), "latency", &Choices::default()).placement;
    assert!(apply(&machine, "latency").iter().all(Step::is_good));
    machine.put("/proc/self/status", "Cpus_allowed_list:\t1-7\nMems_allowed_list:\t0");
    let drift = |selection: &Selection| {
        let plan = plan_with(&machine, "latency", selection, &settled());
        plan.lines.iter().filter(|line| line.state == State::Drift).count()
    };
    let operators = Selection {
        directories: vec!["/data/ringmq".into()],
        listen: Some(machine.listen.parse().expect("an address")),
        ..Selection::default()
    };
    assert!(drift(&operators) > 0, "seen from within, other cores would be chosen");
    assert_eq!(drift(&Selection { all_processors: true, ..operators.clone() }), 0);
    machine.put("/data/ringmq/ringmq/cpus.toml", &placement.file_text("latency"));
    let with_file = Selection { cores_file: Some("/data/ringmq/ringmq/cpus.toml".into()), ..operators };
    assert_eq!(drift(&with_file), 0);
}

#[test]
fn what_resets_a_card_is_not_done_by_default() {
    // Goal: no link goes down unless that was allowed. Method: a card whose switches of that kind are not as wanted, with
    // fewer queues than shards and with as many; by default, and with the class.
    let machine = Machine::large();
    std::fs::remove_file(machine.root().join("fake-root/cards/ens1/ntuple.fixed")).expect("was there");
    machine.put("/fake-root/cards/ens1/lro", "on");
    let changes = |machine: &Machine, choices: &Choices| {
        let plan = plan_of(machine, &system(machine), "latency", choices);
        let names = plan.changes().map(|change| change.name.clone()).filter(|name| name.starts_with("nic."));
        names.filter(|name| !name.starts_with("nic.irq")).collect::<Vec<_>>()
    };
    assert_eq!(changes(&machine, &Choices::default()), [""; 0]);
    let allowed = changes(&machine, &settled());
    assert!(
        ["nic.lro[ens1]", "nic.ntuple[ens1]"].iter().all(|name| allowed.contains(&name.to_string())),
        "{allowed:?}"
    );
    let machine = Machine::growing();
    assert!(apply(&machine, "latency").iter().all(Step::is_good));
    machine.put("/fake-root/cards/eth0/ntuple", "off");
    assert_eq!(changes(&machine, &everything()), [""; 0], "without RFS nobody fills the filters");
}

#[test]
fn a_share_of_flows_is_a_power_of_two() {
    // Goal: what is wanted is what the kernel keeps, so that it does not drift for ever. Method: a card with six queues.
    let machine = Machine::growing();
    machine.put("/fake-root/cards/eth0/combined-channels.max", "6");
    apply(&machine, "latency");
    let plan = plan_of(&machine, &system(&machine), "latency", &settled());
    let shares = lines(&plan, "net.rps_flow_cnt");
    assert_eq!(shares.len(), 6);
    assert!(shares.iter().all(|line| (line.want.as_str(), line.state) == ("8192", State::Ok)), "{shares:?}");
}

#[test]
fn one_queue_keeps_its_moderation() {
    // Goal: no storm of interrupts. Method: a card with one queue that adapts and has no fixed delay; the same with more.
    let machine = Machine::growing();
    machine.put("/fake-root/cards/eth0/adaptive-rx", "on");
    machine.put("/fake-root/cards/eth0/combined-channels.max", "1");
    let planned = |profile: &str| {
        let plan = plan_of(&machine, &system(&machine), profile, &everything());
        plan.changes().any(|change| change.name == "nic.adaptive_rx[eth0]")
    };
    assert!(!planned("latency"));
    machine.put("/fake-root/cards/eth0/adaptive-rx", "off");
    assert!(planned("throughput"), "turning it on harms nobody");
    machine.put("/fake-root/cards/eth0/adaptive-rx", "on");
    machine.put("/fake-root/cards/eth0/combined-channels.max", "8");
    apply(&machine, "latency");
    assert_eq!(machine.text("/fake-root/cards/eth0/adaptive-rx"), "off\n");
}

fn states(plan: &Plan, id: &str) -> Vec<(String, String, State)> {
    lines(plan, id).iter().map(|line| (line.device.clone(), line.have.clone(), line.state)).collect()
}

#[test]
fn an_address_without_a_subnet_has_its_card() {
    // Goal: clouds that give a machine one address and no network are no reason to leave its card alone. Method: an address
    // that no route leads to, with the list of addresses; one that is not this machine's; the list is believed above routes.
    let machine = Machine::arm();
    let cards = |listen: &str| {
        let listen = Some(listen.parse().expect("an address"));
        let host = Host::probe(&system(&machine), &Selection { listen, ..Selection::default() }).expect("a host");
        (host.nics.into_iter().map(|nic| nic.name).collect::<Vec<_>>(), host.no_nic_because)
    };
    assert_eq!(cards("10.10.0.7"), (vec![], "no card carries 10.10.0.7".to_string()));
    machine.put("/fake-root/addresses", "lo 127.0.0.1\neth0 10.10.0.7\neth0 fe80::7");
    for listen in ["10.10.0.7", "fe80::7"] {
        assert_eq!(cards(listen).0, ["eth0"], "{listen}");
    }
    assert_eq!(cards("192.0.2.7").0, [""; 0], "in the subnet, and somebody else's");
}

#[test]
fn read_ahead_is_that_of_the_mounted_device() {
    // Goal: with LVM, LUKS or RAID the setting goes where the kernel looks. Method: a logical volume on a disk.
    let machine = Machine::stacked();
    let before = machine.snapshot();
    assert!(apply(&machine, "latency").iter().all(Step::is_good));
    assert_eq!(machine.text("/sys/block/dm-0/queue/read_ahead_kb"), "128\n");
    assert_eq!(machine.text("/sys/block/vda/queue/read_ahead_kb"), "8192\n");
    assert!(machine.text("/sys/block/vda/queue/scheduler").contains("[none]"), "the rest is the disk's");
    assert!(crate::revert(&machine).iter().all(Step::is_good));
    assert_eq!(machine.snapshot(), before);
}

#[test]
fn io_uring_is_tried() {
    // Goal: a filter of system calls is found although the kernel's own switch is open. Method: a host that refuses.
    let machine = Machine::container();
    let check = || plan_of(&machine, &system(&machine), "dev-vm", &Choices::default());
    assert_eq!(check().fatal_count(), 0);
    for (code, have) in [(libc::EPERM, "forbidden"), (libc::ENOSYS, "not in this kernel")] {
        machine.put("/fake-root/io-uring-error", &code.to_string());
        let plan = check();
        assert_eq!(states(&plan, "kernel.io_uring"), [(String::new(), have.into(), State::Drift)]);
        assert_eq!(states(&plan, "kernel.io_uring_disabled")[0].2, State::Ok);
        assert_eq!(plan.fatal_count(), 1);
    }
}

#[test]
fn a_ballast_takes_room() {
    // Goal: a file that gives nothing back when it is deleted is no ballast. Method: none, an empty one, one with a hole, one
    // that is really allocated.
    let machine = Machine::small_virtual();
    let have =
        || states(&plan_of(&machine, &system(&machine), "latency", &Choices::default()), "fs.ballast")[0].clone();
    assert_eq!((have().1.as_str(), have().2), ("absent", State::Advice));
    machine.put("/data/ringmq/ballast", "");
    let size = "/fake-root/sizes-data-ringmq-ballast";
    for (sizes, told, state) in [
        ("0 0", "0 MiB only", State::Advice),
        ("1073741824 4096", "0 MiB only", State::Advice),
        ("1073741824 1073745920", "present", State::Ok),
    ] {
        machine.put(size, sizes);
        assert_eq!((have().1.as_str(), have().2), (told, state), "{sizes}");
    }
}

#[test]
fn sata_gets_a_scheduler_for_throughput() {
    // Goal: a disk that takes few requests at a time has them sorted where throughput counts. Method: one behind an ATA port
    // that does not rotate, under both profiles.
    let machine = Machine::arm();
    machine.put("/sys/block/sda/queue/rotational", "0");
    let want = |profile: &str| {
        let plan = plan_of(&machine, &system(&machine), profile, &Choices::default());
        lines(&plan, "block.scheduler")[0].want.clone()
    };
    assert_eq!((want("latency").as_str(), want("throughput").as_str()), ("none", "mq-deadline"));
}

#[test]
fn mappings_of_a_running_broker_are_counted() {
    // Goal: the limit of mappings is worth a word only where a broker comes near it. Method: no broker, one with few, one
    // with most of them; a program of the same name that is none.
    let machine = Machine::small_virtual();
    machine.put("/proc/sys/vm/max_map_count", "10");
    let found =
        || states(&plan_of(&machine, &system(&machine), "latency", &Choices::default()), "memory.map_count")[0].2;
    machine.put("/proc/70/comm", "ringmq");
    machine.put("/proc/70/cmdline", "ringmq\0tune\0check");
    assert_eq!(found(), State::Unsupported);
    machine.put("/proc/71/comm", "ringmq");
    machine.put("/proc/71/cmdline", "ringmq\0start\0");
    assert_eq!(found(), State::Unsupported, "a broker whose mappings nobody may read");
    for (count, state) in [(2, State::Ok), (5, State::Ok), (6, State::Advice)] {
        machine.put("/proc/71/maps", &vec!["7f0-7f1 r--p"; count].join("\n"));
        assert_eq!(found(), state, "{count}");
    }
}

#[test]
fn limits_are_those_of_the_broker() {
    // Goal: what a shell may do says nothing of a service. Method: the limits of who asks; then a broker with others, in a
    // control group of its own.
    let machine = Machine::small_virtual();
    let found = |id: &str| {
        let plan = plan_of(&machine, &system(&machine), "latency", &Choices::default());
        let line = lines(&plan, id)[0];
        (line.have.clone(), line.note.clone())
    };
    let of_shell = "of this shell, no broker runs; set by the unit".to_string();
    assert_eq!(found("limit.nofile"), ("524288".into(), of_shell));
    machine.put("/proc/71/comm", "ringmq");
    machine.put("/proc/71/cmdline", "ringmq\0start\0");
    machine.put("/proc/71/limits", "Max open files  1024  4096  files\nMax locked memory  8388608  unlimited  bytes");
    machine.put("/proc/71/oom_score_adj", "-800");
    machine.put("/proc/71/cgroup", "0::/system.slice/other.service");
    machine.put("/sys/fs/cgroup/system.slice/other.service/cpu.max", "50000 100000");
    assert_eq!(found("limit.nofile"), ("4096".into(), "set by the unit".into()));
    assert_eq!((found("limit.memlock").0.as_str(), found("limit.oom_score_adjust").0.as_str()), ("unlimited", "-800"));
    assert_eq!(found("cgroup.cpu_quota"), ("50000 of 100000 us".into(), "change by hand".into()));
}
