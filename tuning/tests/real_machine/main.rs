//! Tests on the machine that they run on, as root and on purpose: `cargo run -p ringmq-tuning --example real-machine`.
//!
//! - `rounds N`: applies the safe part of `latency` and reverts it, N times; all values equal afterwards.
//! - `kill`: kills the applying process (SIGKILL) before every one of its changes; `revert` restores all values.
//! - `namespace`: network settings, RPS, XPS and a card's switches on a veth pair, in a network namespace of its own.
//! - `disk`: the settings of a disk and of each of its schedulers, with values of its own, on a loop device in a mount namespace.
//! - `all`: all four, with 100 rounds.
//!
//! It changes the machine while it runs, and nothing afterwards: what fails is reverted before it is reported. After a signal
//! `ringmq tune revert` does it. It refuses to run where a profile is applied.

use std::collections::BTreeMap;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode};

use ringmq_tuning::catalogue::{CardSetting, Catalogue, Class, Severity};
use ringmq_tuning::executor::{self, Reverting, Step};
use ringmq_tuning::journal;
use ringmq_tuning::plan::{self, Change, Choices, Line, Plan, State, Target, Undo};
use ringmq_tuning::probe::{Access, FolderLock, Host, RootSystem, Selection, System};

type Failure = Box<dyn std::error::Error>;

/// The machine's root, which kills its own process before a change.
struct Killing {
    inner: RootSystem,
    left: std::cell::Cell<usize>,
}

impl Killing {
    fn count(&self) {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => {
                // SAFETY: a signal to this process itself; it does not return.
                unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            }
        }
    }
}

impl System for Killing {
    fn read(&self, path: &str) -> std::io::Result<String> {
        self.inner.read(path)
    }
    fn list(&self, path: &str) -> Vec<String> {
        self.inner.list(path)
    }
    fn exists(&self, path: &str) -> bool {
        self.inner.exists(path)
    }
    fn resolve(&self, path: &str) -> Option<String> {
        self.inner.resolve(path)
    }
    fn access(&self, path: &str) -> Access {
        self.inner.access(path)
    }
    fn card(&self, nic: &str, setting: CardSetting) -> std::io::Result<(String, Option<u64>)> {
        self.inner.card(nic, setting)
    }
    fn card_is_fixed(&self, nic: &str, setting: CardSetting) -> bool {
        self.inner.card_is_fixed(nic, setting)
    }
    fn free_bytes(&self, directory: &str) -> Option<u64> {
        self.inner.free_bytes(directory)
    }
    fn is_live(&self) -> bool {
        true
    }
    fn write(&self, path: &str, value: &str) -> std::io::Result<()> {
        self.count();
        self.inner.write(path, value)
    }
    fn set_card(&self, nic: &str, setting: CardSetting, value: &str) -> std::io::Result<()> {
        self.count();
        self.inner.set_card(nic, setting, value)
    }
    fn append_synced(&self, path: &str, text: &str) -> std::io::Result<()> {
        self.count();
        self.inner.append_synced(path, text)
    }
    fn replace_synced(&self, path: &str, text: &str) -> std::io::Result<()> {
        self.count();
        self.inner.replace_synced(path, text)
    }
    fn remove(&self, path: &str) -> std::io::Result<()> {
        self.count();
        self.inner.remove(path)
    }
    fn lock(&self, folder: &str) -> std::io::Result<FolderLock> {
        self.inner.lock(folder)
    }
}

fn live() -> Result<RootSystem, Failure> {
    Ok(RootSystem::new(Path::new("/"))?)
}

fn plan_of(system: &dyn System, profile: &str, nics: Option<Vec<String>>, choices: &Choices) -> Result<Plan, Failure> {
    let catalogue = Catalogue::embedded()?;
    let selection = Selection {
        directories: vec!["/var/lib/ringmq".into()],
        listen: Some(std::net::Ipv4Addr::UNSPECIFIED.into()),
        nics,
        ..Selection::default()
    };
    let host = Host::probe(system, &selection)?;
    Ok(plan::make(system, &catalogue, &host, catalogue.profile(profile)?, choices)?)
}

fn boot_id(system: &dyn System) -> String {
    system.read("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().into()
}

/// All values that any profile could write, of all classes, with the files that the kernel changes along with them.
fn snapshot(system: &dyn System, nics: Option<Vec<String>>) -> Result<BTreeMap<String, String>, Failure> {
    let mut values = BTreeMap::new();
    for profile in ["latency", "throughput"] {
        for line in plan_of(system, profile, nics.clone(), &Choices::default())?.lines {
            values.insert(line.name(), line.have);
        }
    }
    for name in ["dirty_ratio", "dirty_background_ratio", "min_free_kbytes"] {
        let path = format!("/proc/sys/vm/{name}");
        let value = system.read(&path)?;
        values.insert(path, value);
    }
    for disk in system.list("/sys/block") {
        values.extend(queue_of(system, &disk));
    }
    // What is counted, not set, differs from moment to moment; so do the brokers that others run here, and their limits.
    let counted = ["fs.free_space", "memory.map_count", "limit.", "cgroup."];
    values.retain(|name, _| !counted.iter().any(|prefix| name.starts_with(prefix)));
    Ok(values)
}

/// All that there is of a disk's queue, its scheduler's settings included.
fn queue_of(system: &dyn System, disk: &str) -> BTreeMap<String, String> {
    let below = |folder: String| system.list(&folder).into_iter().map(move |name| format!("{folder}/{name}"));
    let queue = format!("/sys/block/{disk}/queue");
    let paths = below(queue.clone()).chain(below(format!("{queue}/iosched")));
    paths.filter_map(|path| system.read(&path).ok().map(|value| (path, value))).collect()
}

fn differences(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differs = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    differs.map(|name| format!("{name}: {:?} -> {:?}", before.get(name), after.get(name))).collect()
}

fn expect_equal(before: &BTreeMap<String, String>, system: &dyn System, when: &str) -> Result<(), Failure> {
    let found = differences(before, &snapshot(system, None)?);
    if found.is_empty() { Ok(()) } else { Err(format!("{when}: {}", found.join("; ")).into()) }
}

/// Settings that some kernels do not take as they are written, and why: nothing else may drift after an apply.
const NOT_TAKEN: &[(&str, &str)] = &[
    ("net.core.netdev_budget_usecs", "kernels with slow ticks refuse less than two of them"),
    ("nic.irq_affinity", "interrupts that the kernel manages stay where it put them"),
];

fn may_be_refused(name: &str) -> bool {
    NOT_TAKEN.iter().any(|(id, _)| name == *id || name.starts_with(&format!("{id}[")))
}

/// Every step did what it was to do, but for the exceptions; the names of those that did not.
fn expect_taken(steps: &[Step], when: &str) -> Result<Vec<String>, Failure> {
    let (bad, excused): (Vec<&Step>, Vec<&Step>) =
        steps.iter().filter(|step| !step.is_good()).partition(|step| !may_be_refused(&step.name));
    match bad.first() {
        Some(step) => Err(format!("{when}: not taken: {step:?}").into()),
        None => Ok(excused.into_iter().map(|step| step.name.clone()).collect()),
    }
}

fn expect_good(steps: &[Step], when: &str) -> Result<(), Failure> {
    match steps.iter().find(|step| !step.is_good()) {
        None => Ok(()),
        Some(step) => Err(format!("{when}: {step:?}").into()),
    }
}

fn refuse_if_applied(system: &dyn System) -> Result<(), Failure> {
    if system.exists(journal::PATH) {
        return Err(format!("{} exists: revert what is applied first", journal::PATH).into());
    }
    Ok(())
}

/// Does something that applies and reverts. If it fails in between, what is applied is reverted all the same.
fn reverted_at_the_end<Outcome>(
    system: &dyn System,
    work: impl FnOnce() -> Result<Outcome, Failure>,
) -> Result<Outcome, Failure> {
    work().map_err(|failure| {
        let left = match executor::revert(system, &boot_id(system), &Reverting::default()) {
            Ok(steps) => steps.iter().filter(|step| !step.is_good()).map(|step| format!("{step:?}")).collect(),
            Err(error) => vec![error.to_string()],
        };
        if left.is_empty() { failure } else { format!("{failure}; and not brought back: {}", left.join(", ")).into() }
    })
}

fn rounds(count: usize) -> Result<(), Failure> {
    let system = live()?;
    refuse_if_applied(&system)?;
    reverted_at_the_end(&system, || apply_and_revert(&system, count))
}

fn apply_and_revert(system: &RootSystem, count: usize) -> Result<(), Failure> {
    let before = snapshot(system, None)?;
    let steps = executor::apply(system, &plan_of(system, "dev-vm", None, &Choices::default())?)?;
    if !steps.is_empty() || system.exists(journal::PATH) {
        return Err(format!("dev-vm is to change nothing: {steps:?}").into());
    }
    expect_equal(&before, system, "after dev-vm")?;
    let mut written = 0;
    let mut excused = Vec::new();
    for round in 1..=count {
        let plan = plan_of(system, "latency", None, &Choices::default())?;
        let steps = executor::apply(system, &plan)?;
        written = steps.len();
        if written == 0 {
            return Err("this host is as wanted already: nothing can be shown on it".into());
        }
        excused = expect_taken(&steps, &format!("apply of round {round}"))?;
        let after = plan_of(system, "latency", None, &Choices::default())?;
        let drift: Vec<String> = after.lines.iter().filter(|line| line.state == State::Drift).map(Line::name).collect();
        if drift != excused {
            return Err(format!("round {round}: apply told of {excused:?}, a check finds {drift:?} adrift").into());
        }
        let again = executor::apply(system, &after)?;
        if again.iter().any(|step| !excused.contains(&step.name)) {
            return Err(format!("round {round}: a second apply had something to do: {again:?}").into());
        }
        let back = executor::revert(system, &boot_id(system), &Reverting::default())?;
        expect_good(&back, &format!("revert of round {round}"))?;
        expect_equal(&before, system, &format!("after round {round}"))?;
    }
    println!("rounds: dev-vm changed nothing");
    println!("rounds: {count} times {written} settings applied and reverted, {} values equal", before.len());
    let names = if excused.is_empty() { "none".into() } else { excused.join(", ") };
    println!("rounds: not taken by this kernel, as may be: {names}");
    Ok(())
}

fn apply_and_die(changes: usize) -> Result<(), Failure> {
    let system = Killing { inner: live()?, left: changes.into() };
    let plan = plan_of(&system, "latency", None, &Choices::default())?;
    executor::apply(&system, &plan)?;
    println!("{}", changes - system.left.get());
    Ok(())
}

fn kill() -> Result<(), Failure> {
    let system = live()?;
    refuse_if_applied(&system)?;
    reverted_at_the_end(&system, || kill_before_each_change(&system))
}

fn kill_before_each_change(system: &RootSystem) -> Result<(), Failure> {
    let before = snapshot(system, None)?;
    let program = std::env::current_exe()?;
    let run = |changes: usize| Command::new(&program).args(["apply-and-die", &changes.to_string()]).output();
    // One run that is not killed tells how many changes there are.
    let whole = run(usize::MAX / 2)?;
    let total: usize = String::from_utf8(whole.stdout)?.trim().parse()?;
    expect_good(&executor::revert(system, &boot_id(system), &Reverting::default())?, "revert of the whole run")?;
    expect_equal(&before, system, "after the whole run")?;
    for changes in 0..total {
        let status = run(changes)?.status;
        if status.signal() != Some(libc::SIGKILL) {
            return Err(format!("before change {changes}: the process ended with {status}").into());
        }
        expect_good(
            &executor::revert(system, &boot_id(system), &Reverting::default())?,
            &format!("revert after {changes}"),
        )?;
        expect_equal(&before, system, &format!("killed before change {changes}"))?;
    }
    println!("kill: SIGKILL before each of {total} changes, then revert: {} values equal each time", before.len());
    Ok(())
}

fn shell(text: &str) -> Result<(), Failure> {
    let status = Command::new("sh").args(["-ec", text]).status()?;
    if status.success() { Ok(()) } else { Err(format!("{text}: {status}").into()) }
}

/// Starts this program again in namespaces of its own.
fn namespace(part: &str, kinds: libc::c_int) -> Result<(), Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(part);
    // SAFETY: unshare changes the new process only, which has one thread.
    unsafe {
        command.pre_exec(move || match libc::unshare(kinds) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("inside the namespace: {status}").into()) }
}

fn network() -> Result<(), Failure> {
    namespace("inside-namespace", libc::CLONE_NEWNET | libc::CLONE_NEWNS)
}

fn disk() -> Result<(), Failure> {
    namespace("inside-disk", libc::CLONE_NEWNS)
}

fn inside_namespace() -> Result<(), Failure> {
    // A sysfs of this network namespace, and a journal that the host does not see.
    shell("mount --make-rprivate / && mount -t sysfs sysfs /sys && mount -t tmpfs tmpfs /var/lib")?;
    shell(
        "ip link add v0 numrxqueues 4 numtxqueues 4 type veth peer name v1 numrxqueues 4 numtxqueues 4 && \
         ip link set v0 up && ip link set v1 up",
    )?;
    let system = live()?;
    reverted_at_the_end(&system, || apply_to_the_pair(&system))
}

fn apply_to_the_pair(system: &RootSystem) -> Result<(), Failure> {
    let cards = Some(vec!["v0".to_string()]);
    let choices = Choices { allow: [Class::Jitter].into(), ..Choices::default() };
    let before = snapshot(system, cards.clone())?;
    let mut shown = std::collections::BTreeSet::new();
    for profile in ["latency", "throughput"] {
        let mut plan = plan_of(system, profile, cards.clone(), &choices)?;
        plan.lines.retain(|line| line.id.starts_with("net.") || line.id.starts_with("nic."));
        // Other namespaces' values are not this test's to change.
        plan.lines.retain(|line| !line.id.starts_with("net.core.netdev_"));
        // The rules leave RPS off on a machine with two processors: the files are tried all the same.
        for (id, file, value) in [("net.rps_cpus", "rx-0/rps_cpus", "1"), ("net.xps_cpus", "tx-0/xps_cpus", "1")] {
            plan.lines.push(by_hand(system, id, &format!("/sys/class/net/v0/queues/{file}"), value)?);
        }
        for (setting, value) in [(CardSetting::Gro, "off"), (CardSetting::Tso, "off")] {
            let target = Target::Card("v0".into(), setting);
            plan.lines.push(by_hand_at(system, &format!("nic.{}", setting.name()), target, value)?);
        }
        let steps = executor::apply(system, &plan)?;
        let excused = expect_taken(&steps, &format!("apply of {profile} to the pair"))?;
        let tried = ["net.rps_cpus", "net.xps_cpus", "nic.gro", "nic.tso"].map(|id| format!("{id}[by hand]"));
        if let Some(name) = tried.iter().find(|name| steps.iter().all(|step| step.name != **name)) {
            return Err(format!("{profile}: {name} was not tried").into());
        }
        for step in &steps {
            let verdict = if excused.contains(&step.name) { "not taken" } else { "ok" };
            shown.insert(format!("{} {verdict}", step.name));
        }
        expect_good(&executor::revert(system, &boot_id(system), &Reverting::default())?, "revert")?;
        let found = differences(&before, &snapshot(system, cards.clone())?);
        if !found.is_empty() {
            return Err(found.join("; ").into());
        }
    }
    println!("namespace: both profiles on a veth applied and reverted, {} values equal", before.len());
    println!("namespace: {}", shown.into_iter().collect::<Vec<_>>().join(", "));
    Ok(())
}

/// Values of somebody's own for each scheduler that a disk may have.
const SCHEDULERS: [(&str, &[(&str, &str)]); 3] = [
    ("mq-deadline", &[("fifo_batch", "4"), ("read_expire", "250"), ("async_depth", "40")]),
    ("kyber", &[("read_lat_nsec", "1000000")]),
    ("bfq", &[("slice_idle", "3"), ("low_latency", "0")]),
];

fn inside_disk() -> Result<(), Failure> {
    // The device goes with its mount, and that with this namespace. The journal is one that the host does not see.
    shell(
        "mount --make-rprivate / && mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/ringmq && \
         truncate -s 64M /var/lib/image && mkfs.ext4 -q /var/lib/image && mount -o loop /var/lib/image /var/lib/ringmq",
    )?;
    let system = live()?;
    let plan = plan_of(&system, "latency", None, &Choices::default())?;
    let disks: Vec<&str> =
        plan.lines.iter().filter(|line| line.id == "block.scheduler").map(|line| line.device.as_str()).collect();
    let [disk] = disks.as_slice() else { return Err(format!("one loop device was expected, not {disks:?}").into()) };
    if !disk.starts_with("loop") {
        return Err(format!("a loop device was expected, not {disk}").into());
    }
    let first = queue_of(&system, disk);
    let result = reverted_at_the_end(&system, || apply_to_the_disk(&system, disk));
    let queue = format!("/sys/block/{disk}/queue");
    for name in ["scheduler", "nr_requests", "read_ahead_kb"] {
        let path = format!("{queue}/{name}");
        Target::File(path.clone()).write(&system, &chosen_word(&first[&path]))?;
    }
    result?;
    match differences(&first, &queue_of(&system, disk)) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("the loop device is not as it was: {}", left.join("; ")).into()),
    }
}

/// The word in brackets, or the only one.
fn chosen_word(text: &str) -> String {
    let bare = |(_, rest): (&str, &str)| rest.split(']').next().unwrap_or_default().to_string();
    text.split_once('[').map_or_else(|| text.trim().into(), bare)
}

fn apply_to_the_disk(system: &RootSystem, disk: &str) -> Result<(), Failure> {
    let queue = format!("/sys/block/{disk}/queue");
    let offered = system.read(&format!("{queue}/scheduler"))?;
    let mut shown = Vec::new();
    for (scheduler, own) in SCHEDULERS.iter().filter(|(name, _)| offered.contains(name)) {
        system.write(&format!("{queue}/scheduler"), scheduler)?;
        for (name, value) in [("nr_requests", "64"), ("read_ahead_kb", "4096")] {
            system.write(&format!("{queue}/{name}"), value)?;
        }
        for (name, value) in *own {
            system.write(&format!("{queue}/iosched/{name}"), value)?;
        }
        let before = queue_of(system, disk);
        for profile in ["latency", "throughput"] {
            let mut plan = plan_of(system, profile, None, &Choices::default())?;
            plan.lines.retain(|line| line.id.starts_with("block."));
            let steps = executor::apply(system, &plan)?;
            expect_taken(&steps, &format!("apply of {profile} to {disk} under {scheduler}"))?;
            for id in ["block.scheduler", "block.read_ahead_kb"] {
                if !steps.iter().any(|step| step.name.starts_with(id)) {
                    return Err(format!("{profile}: {id} was not tried").into());
                }
            }
            let back = executor::revert(system, &boot_id(system), &Reverting::default())?;
            expect_good(&back, &format!("revert of {profile} under {scheduler}"))?;
            let found = differences(&before, &queue_of(system, disk));
            if !found.is_empty() {
                return Err(format!("{profile} under {scheduler}: {}", found.join("; ")).into());
            }
        }
        shown.push(format!("{scheduler} ({} values equal)", before.len()));
    }
    if shown.is_empty() {
        return Err("this kernel has no scheduler for disks: nothing can be shown on it".into());
    }
    println!("disk: both profiles on a loop device applied and reverted under {}", shown.join(", "));
    Ok(())
}

fn by_hand(system: &dyn System, id: &str, path: &str, new: &str) -> Result<Line, Failure> {
    by_hand_at(system, id, Target::File(path.into()), new)
}

fn by_hand_at(system: &dyn System, id: &str, target: Target, new: &str) -> Result<Line, Failure> {
    let old = target.read(system)?;
    let undo = Undo { target: target.clone(), value: old.clone() };
    let name = format!("{id}[by hand]");
    Ok(Line {
        id: id.into(),
        device: "by hand".into(),
        want: new.into(),
        have: old.clone(),
        severity: Severity::Info,
        state: State::Drift,
        note: String::new(),
        class: Class::Safe,
        unproven: true,
        why: "The files are tried.".into(),
        target: Some(target.clone()),
        to_write: Some(new.into()),
        change: Some(Change { name, target, counterpart: None, moves: Vec::new(), old, new: new.into(), undo }),
    })
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // SAFETY: no arguments, cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("this needs root");
        return ExitCode::from(2);
    }
    let number = |text: &str| text.parse::<usize>().map_err(Failure::from);
    let result = match words.as_slice() {
        ["all"] => rounds(100).and_then(|()| kill()).and_then(|()| network()).and_then(|()| disk()),
        ["rounds", count] => number(count).and_then(rounds),
        ["kill"] => kill(),
        ["namespace"] => network(),
        ["disk"] => disk(),
        ["inside-disk"] => inside_disk(),
        ["apply-and-die", changes] => number(changes).and_then(apply_and_die),
        ["inside-namespace"] => inside_namespace(),
        _ => {
            eprintln!("usage: real-machine all | rounds N | kill | namespace | disk");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error}");
            ExitCode::from(1)
        }
    }
}
