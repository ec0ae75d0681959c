//! Which directories, disks, cards and processors a plan is about.

use ringmq_tuning::catalogue::Catalogue;
use ringmq_tuning::plan::{self, Choices, Line, Plan, State};
use ringmq_tuning::probe::{Host, Selection};

use crate::machine::Machine;
use crate::system;

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
