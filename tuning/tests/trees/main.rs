//! The engine on folders that look like machines: what it finds, what it changes, and that everything comes back.

mod choosing;
mod exporting;
mod generated;
mod kernel;
mod machine;
mod reverting;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use kernel::{FakeKernel, bash_kernel};
use machine::Machine;
use ringmq_tuning::catalogue::{Catalogue, Class};
use ringmq_tuning::executor::{self, Outcome, Reverting, Step};
use ringmq_tuning::export;
use ringmq_tuning::journal::{self, Journal, JournalError};
use ringmq_tuning::plan::{self, Choices, Plan, State};
use ringmq_tuning::probe::{Host, Selection, System};
use ringmq_tuning::report::{self, Style};

const PROFILES: [&str; 3] = ["latency", "throughput", "dev-vm"];

fn everything() -> Choices {
    Choices { allow: [Class::Jitter, Class::Reboot].into(), ..Choices::default() }
}

fn plan_of(machine: &Machine, system: &dyn System, profile: &str, choices: &Choices) -> Plan {
    let catalogue = Catalogue::embedded().expect("sound");
    let selection = Selection {
        directories: vec![machine.directory.into()],
        listen: Some(machine.listen.parse().expect("an address")),
        ..Selection::default()
    };
    let host = Host::probe(system, &selection).expect("a host");
    plan::make(system, &catalogue, &host, catalogue.profile(profile).expect("exists"), choices).expect("a plan")
}

fn system(machine: &Machine) -> FakeKernel<'_> {
    FakeKernel::new(machine.root(), &machine.rules)
}

fn boot_id(system: &dyn System) -> String {
    system.read("/proc/sys/kernel/random/boot_id").expect("exists").trim().into()
}

/// The second look, when the cards have their queues.
fn settled() -> Choices {
    Choices { queues_are_settled: true, ..everything() }
}

fn apply(machine: &Machine, profile: &str) -> Vec<Step> {
    let system = system(machine);
    let plan = plan_of(machine, &system, profile, &everything());
    let again = || Ok::<Plan, JournalError>(plan_of(machine, &system, profile, &settled()));
    executor::apply_in_order(&system, plan, again).expect("applies").1
}

fn revert(machine: &Machine) -> Vec<Step> {
    let system = system(machine);
    executor::revert(&system, &boot_id(&system), &Reverting::default()).expect("reverts")
}

fn run_script(machine: &Machine, text: &str, what: &str) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let (script, kernel) = (folder.path().join("script"), folder.path().join("kernel"));
    std::fs::write(&script, text).expect("a script");
    std::fs::write(&kernel, bash_kernel(machine.root(), &machine.rules)).expect("a kernel");
    Command::new("bash").arg(&script).arg(what).env("BASH_ENV", &kernel).output().expect("bash runs")
}

#[test]
fn checks_match_the_golden_files() {
    // Goal: what the engine finds on each kind of machine is what a person has read and approved. Method: the text of
    // check for each machine and profile against a file; RINGMQ_TUNING_WRITE=1 writes them anew.
    for machine in Machine::all() {
        for profile in PROFILES {
            let system = system(&machine);
            let plan = plan_of(&machine, &system, profile, &Choices::default());
            let silent = plan.lines.iter().find(|line| line.state == State::Unsupported && line.note.is_empty());
            assert!(silent.is_none(), "{}: unsupported without a reason: {silent:?}", machine.name);
            let text = report::check_text(&plan, Style { colour: false });
            assert!(text.lines().all(|line| line.chars().count() <= 100), "{}: 100 columns", machine.name);
            generated::compare(&format!("tests/trees/golden/{}-{profile}.txt", machine.name), &text);
        }
    }
}

#[test]
fn plans_say_everything_in_a_hundred_columns() {
    // Goal: a plan shows old value, new value, reason and undo of each change, and so does its script, and both can be read
    // (T1). Method: each change of each machine and profile is looked for in the texts.
    for machine in Machine::all() {
        for profile in PROFILES {
            let system = system(&machine);
            let plan = plan_of(&machine, &system, profile, &everything());
            let (text, script) =
                (report::plan_text(&plan, Style { colour: false }), executor::script(&plan, machine.root()));
            for line in text.lines().chain(script.lines()) {
                let is_long = line.chars().count() > 100 && line.split_whitespace().count() > 2;
                assert!(!is_long, "{} {profile}: {line}", machine.name);
            }
            let plain = |text: &str| text.split_whitespace().filter(|word| *word != "#").collect::<Vec<_>>().join(" ");
            let (shown, script) = (plain(&text), plain(&script));
            for (change, why) in plan.lines.iter().filter_map(|line| Some((line.change.as_ref()?, line.why.as_str()))) {
                let (old, new) = (plain(&change.old), plain(&change.new));
                let name = &change.name;
                assert!(shown.contains(&format!("{name} {old} -> {new}")), "{name}: {text}");
                assert!(shown.contains(&plain(why)) && script.contains(&plain(why)), "{name}");
                let undo = format!("undo: {} = {}", change.undo.target.name(), plain(&change.undo.value));
                assert!(shown.contains(&undo), "{undo}: {text}");
                assert!(script.contains(&format!("Now: {old}")), "{name}");
            }
            assert_eq!(text.matches("undo: ").count(), plan.changes().count());
        }
    }
}

#[test]
fn looking_writes_nothing() {
    // Goal: check and plan only look. Method: count changes, compare snapshots.
    for machine in Machine::all() {
        let before = machine.snapshot();
        let system = system(&machine);
        let plan = plan_of(&machine, &system, "latency", &everything());
        let _ = (report::plan_text(&plan, Style { colour: true }), executor::script(&plan, machine.root()));
        assert_eq!(system.changes.get(), 0, "{}", machine.name);
        assert_eq!(machine.snapshot(), before, "{}", machine.name);
    }
}

#[test]
fn apply_then_revert_leaves_every_byte() {
    // Goal: revert is complete. Method: all classes of each profile on each machine, a snapshot before and after.
    for machine in Machine::all() {
        for profile in PROFILES {
            let before = machine.snapshot();
            let steps = apply(&machine, profile);
            if machine.name == "large" && profile == "latency" {
                assert!(steps.len() > 60 && steps.iter().all(Step::is_good), "{steps:?}");
            }
            if machine.name == "container" || profile == "dev-vm" {
                assert_eq!(steps, [], "{}", machine.name);
                assert_eq!(machine.snapshot(), before, "{}: nothing was written", machine.name);
            }
            assert!(revert(&machine).iter().all(Step::is_good), "{} {profile}", machine.name);
            assert_eq!(machine.snapshot(), before, "{} {profile}", machine.name);
        }
    }
}

#[test]
fn a_second_apply_writes_nothing() {
    // Goal: apply is idempotent (T3), also where the kernel does not do as told. Method: count changes of a second run.
    for machine in Machine::all() {
        apply(&machine, "latency");
        let after_first = machine.snapshot();
        let system = system(&machine);
        let plan = plan_of(&machine, &system, "latency", &everything());
        executor::apply(&system, &plan).expect("applies");
        // A refused write is tried again: the reason may be gone.
        let expected = if machine.name == "ignoring" { 3 } else { 0 };
        assert_eq!(system.changes.get(), expected, "{}", machine.name);
        if expected == 0 {
            assert_eq!(machine.snapshot(), after_first, "{}", machine.name);
        }
    }
}

#[test]
fn what_is_applied_checks_as_ok() {
    // Goal: after apply nothing of what was written drifts. Method: check again on the machines that obey.
    for machine in [Machine::small_virtual(), Machine::large(), Machine::arm()] {
        apply(&machine, "latency");
        let plan = plan_of(&machine, &system(&machine), "latency", &everything());
        let drift: Vec<String> =
            plan.lines.iter().filter(|line| line.state == State::Drift).map(|line| line.name()).collect();
        assert_eq!(drift, [""; 0], "{}", machine.name);
    }
}

#[test]
fn clamped_ignored_and_refused_writes_are_told() {
    // Goal: a write that the kernel did not take as it was is no success (T4). Method: the two kernels that do so.
    let steps = apply(&Machine::clamping(), "latency");
    let of = |steps: &[Step], name: &str| steps.iter().find(|step| step.name == name).map(|step| step.outcome.clone());
    assert_eq!(of(&steps, "vm.watermark_scale_factor"), Some(Outcome::Clamped("100".into())));
    assert_eq!(of(&steps, "vm.stat_interval"), Some(Outcome::Clamped("5".into())));
    let steps = apply(&Machine::ignoring(), "latency");
    assert_eq!(of(&steps, "vm.swappiness"), Some(Outcome::Ignored));
    assert!(matches!(of(&steps, "nic.irq_affinity[eth0/41]"), Some(Outcome::Failed(_))), "{steps:?}");
    assert_eq!(of(&steps, "vm.page-cluster"), Some(Outcome::Done), "the rest goes on");
}

#[test]
fn script_and_direct_leave_identical_trees() {
    // Goal: both executors do the same, journal included. Method: each on its own copy of a machine, after apply and
    // after revert; and each undoes the other.
    for (direct, scripted) in Machine::all().into_iter().zip(Machine::all()) {
        let profiles: &[&str] = if direct.name == "arm" { &PROFILES } else { &PROFILES[..1] };
        for profile in profiles {
            let before = scripted.snapshot();
            let plan = plan_of(&scripted, &system(&scripted), profile, &everything());
            let text = executor::script(&plan, scripted.root());
            let steps = apply(&direct, profile);
            let mut output = run_script(&scripted, &text, "apply");
            if plan.postponed_count() > 0 {
                let plan = plan_of(&scripted, &system(&scripted), profile, &settled());
                output = run_script(&scripted, &executor::script(&plan, scripted.root()), "apply");
            }
            let told = String::from_utf8_lossy(&output.stderr);
            let all_good = steps.iter().all(Step::is_good);
            assert_eq!(output.status.code(), Some(i32::from(!all_good)), "{} {profile}: {told}", direct.name);
            assert_eq!(scripted.snapshot(), direct.snapshot(), "{} {profile}", direct.name);

            // Thousands of processes: where the kernel does as told, one machine is enough.
            if matches!(direct.name, "clamping" | "ignoring" | "arm") {
                let again = run_script(&scripted, &text, "apply");
                assert_eq!(again.status.code(), output.status.code(), "{} {profile}", direct.name);
                if direct.name != "ignoring" {
                    assert_eq!(scripted.snapshot(), direct.snapshot(), "{} {profile}: a second run", direct.name);
                }
            }

            let undone = run_script(&direct, &text.replace(&root_of(&scripted), &root_of(&direct)), "revert");
            assert!(undone.status.success(), "{}: {}", direct.name, String::from_utf8_lossy(&undone.stderr));
            revert(&scripted);
            assert_eq!(direct.snapshot(), before, "{} {profile}: the script undoes the direct way", direct.name);
            assert_eq!(scripted.snapshot(), before, "{} {profile}: and the other way round", direct.name);
        }
    }
}

fn root_of(machine: &Machine) -> String {
    machine.root().display().to_string()
}

#[test]
fn scripts_are_plain_bash() {
    // Goal: a script parses, stops at errors, and refuses what it does not know. Method: bash -n; a wrong argument.
    let machine = Machine::large();
    let text = executor::script(&plan_of(&machine, &system(&machine), "latency", &everything()), Path::new("/"));
    assert!(text.contains("\nset -eu\n") && text.contains("root=''\n"));
    assert!(text.contains("card_set") && text.contains("ethtool -G \"$nic\" rx \"$2\""));
    let folder = tempfile::tempdir().expect("a folder");
    let script: PathBuf = folder.path().join("script");
    std::fs::write(&script, &text).expect("a script");
    assert!(Command::new("bash").arg("-n").arg(&script).status().expect("bash runs").success());
    let text = executor::script(&plan_of(&machine, &system(&machine), "latency", &everything()), machine.root());
    assert_eq!(run_script(&machine, &text, "destroy").status.code(), Some(2));
}

#[test]
fn a_crash_at_any_change_can_be_reverted() {
    // Goal: a SIGKILL at any moment of apply loses nothing (T15). Method: die at each change, appends in their middle,
    // then revert; on machines that obey and that do not.
    for build in [Machine::small_virtual, Machine::clamping, Machine::ignoring] {
        let machine = build();
        let before = machine.snapshot();
        let counted = system(&machine);
        executor::apply(&counted, &plan_of(&machine, &counted, "latency", &everything())).expect("applies");
        let total = counted.changes.get();
        revert(&machine);
        assert!(total > 60, "{total} changes");
        for dies_at in 0..total {
            let mut dying = system(&machine);
            let plan = plan_of(&machine, &dying, "latency", &everything());
            dying.dies_at = Some(dies_at);
            // A refused journal ends the run; a refused value would be followed by an append that is refused too.
            assert!(executor::apply(&dying, &plan).is_err(), "{} at {dies_at}", machine.name);
            revert(&machine);
            assert_eq!(machine.snapshot(), before, "{} at {dies_at} of {total}", machine.name);
        }
    }
}

#[test]
fn a_crash_within_revert_can_be_reverted() {
    // Goal: revert itself may be killed. Method: die at each of its changes, then run it again.
    let machine = Machine::small_virtual();
    let before = machine.snapshot();
    let mut dies_at = 0;
    loop {
        apply(&machine, "latency");
        let mut dying = system(&machine);
        dying.dies_at = Some(dies_at);
        let _ = executor::revert(&dying, &boot_id(&dying), &Reverting::default());
        let finished = dying.changes.get() <= dies_at;
        revert(&machine);
        assert_eq!(machine.snapshot(), before, "at {dies_at}");
        if finished {
            break;
        }
        dies_at += 1;
    }
    assert!(dies_at > 20, "{dies_at} changes");
}

#[test]
fn apply_goes_on_after_a_crash() {
    // Goal: after a crash apply completes, and revert still finds the first values. Method: die in the middle, apply.
    let machine = Machine::small_virtual();
    let before = machine.snapshot();
    for dies_at in [1, 2, 7, 20] {
        let mut dying = system(&machine);
        let plan = plan_of(&machine, &dying, "latency", &everything());
        dying.dies_at = Some(dies_at);
        assert!(executor::apply(&dying, &plan).is_err());
        apply(&machine, "latency");
        let plan = plan_of(&machine, &system(&machine), "latency", &everything());
        assert_eq!(plan.changes().count(), 0, "at {dies_at}: complete");
        revert(&machine);
        assert_eq!(machine.snapshot(), before, "at {dies_at}");
    }
}

#[test]
fn two_profiles_revert_to_the_first_values() {
    // Goal: the journal goes back over several applies. Method: three of them, then one revert.
    let machine = Machine::large();
    let before = machine.snapshot();
    for profile in ["latency", "throughput", "latency"] {
        apply(&machine, profile);
    }
    let system = system(&machine);
    assert_eq!(Journal::read(&system).expect("sound").expect("exists").profile(), Some("latency"));
    revert(&machine);
    assert_eq!(machine.snapshot(), before);
}

#[test]
fn what_others_changed_stays_unless_forced() {
    // Goal: revert overwrites nobody (T2). Method: change one value after apply; revert, revert again, revert by force.
    let machine = Machine::small_virtual();
    let before = machine.snapshot();
    apply(&machine, "latency");
    machine.put("/proc/sys/vm/swappiness", "33");
    for _ in 0..2 {
        let steps = revert(&machine);
        let bad: Vec<&Step> = steps.iter().filter(|step| !step.is_good()).collect();
        assert_eq!(bad.len(), 1);
        assert_eq!((bad[0].name.as_str(), &bad[0].outcome), ("vm.swappiness", &Outcome::Conflict("33".into())));
    }
    let system = system(&machine);
    assert_eq!(system.read("/proc/sys/vm/swappiness").expect("exists"), "33\n");
    assert!(
        executor::revert(&system, &boot_id(&system), &Reverting { force: true, ..Reverting::default() })
            .expect("reverts")
            .iter()
            .all(Step::is_good)
    );
    assert_eq!(machine.snapshot(), before);
}

#[test]
fn a_reboot_voids_the_journal_but_not_files() {
    // Goal: values of another boot are not "brought back". Method: apply with a persistent unit, change the boot id and
    // the values as a reboot does, revert.
    let machine = Machine::small_virtual();
    let before = machine.snapshot();
    let kernel = system(&machine);
    let plan = plan_of(&machine, &kernel, "latency", &Choices::default());
    executor::apply(&kernel, &plan).expect("applies");
    let unit = export::TUNE_UNIT;
    for path in [unit, export::TUNE_DROP_IN, unit] {
        assert!(executor::make_file(&kernel, &plan, path, "[Unit]\n").expect("made").is_good());
    }
    revert(&machine);
    assert_eq!(machine.snapshot(), before, "revert removes the unit, and the folder that was made for the other");

    executor::make_file(&kernel, &plan, unit, "[Unit]\n").expect("made");
    executor::make_file(&kernel, &plan, export::TUNE_DROP_IN, "[Unit]\n").expect("made");
    let text = executor::script(&plan, machine.root());
    assert!(run_script(&machine, &text, "revert").status.success());
    assert_eq!(machine.snapshot(), before, "so does a script");

    executor::apply(&kernel, &plan).expect("applies");
    executor::make_file(&kernel, &plan, unit, "[Unit]\n").expect("made");
    machine.put("/proc/sys/kernel/random/boot_id", "another");
    machine.put("/proc/sys/vm/swappiness", "45");
    let names: Vec<String> = revert(&machine).into_iter().map(|step| step.name).collect();
    assert_eq!(names, [unit], "only the file outlived the reboot");
    assert_eq!(kernel.read("/proc/sys/vm/swappiness").expect("exists"), "45\n");
    assert!(!kernel.exists(journal::PATH));
}

#[test]
fn a_file_of_somebody_else_stays() {
    // Goal: persisting overwrites no unit of the operator's. Method: one that exists already.
    let machine = Machine::small_virtual();
    machine.put("/etc/systemd/system/ringmq-tune.service", "[Unit]");
    let before = machine.snapshot();
    let kernel = system(&machine);
    let plan = plan_of(&machine, &kernel, "dev-vm", &Choices::default());
    let step = executor::make_file(&kernel, &plan, "/etc/systemd/system/ringmq-tune.service", "x").expect("answers");
    assert!(matches!(step.outcome, Outcome::Failed(_)));
    assert_eq!(machine.snapshot(), before);
}

#[test]
fn classes_and_proof_are_respected() {
    // Goal: only safe entries by default, none unproven with --proven-only (T8, T13). Method: plans with each choice.
    let planned = |machine: &Machine, choices: &Choices| {
        let plan = plan_of(machine, &system(machine), "latency", choices);
        let lines = plan.lines.into_iter().filter(|line| line.change.is_some());
        lines.map(|line| (line.id, line.class)).collect::<Vec<_>>()
    };
    let large = Machine::large();
    assert!(planned(&large, &Choices::default()).iter().all(|(_, class)| *class == Class::Safe));
    assert!(planned(&large, &everything()).iter().any(|(id, _)| id == "nic.rx_ring"));
    let catalogue = Catalogue::embedded().expect("sound");
    let is_proven = |(id, _): &(String, Class)| catalogue.tunable(id).expect("exists").evidence.is_proven();
    let proven = planned(&Machine::small_virtual(), &Choices { proven_only: true, ..everything() });
    assert!(proven.contains(&("cpu.guest_halt_poll_ns".to_string(), Class::Safe)));
    let mut all = planned(&Machine::small_virtual(), &everything());
    assert!(all.len() > proven.len());
    all.retain(is_proven);
    assert_eq!(proven, all);
    let only = planned(&large, &Choices { only: vec!["vm.swappiness".into()], ..Choices::default() });
    assert_eq!(only, [("vm.swappiness".to_string(), Class::Safe)]);
}

#[test]
fn polling_guests_are_known_by_governor_and_file() {
    // Goal: the time to poll is set only where the kernel heeds it, is never lowered, and is named at the start once a
    // measurement speaks for it. Method: the virtual machine with another governor, with none, without the file, and with
    // longer times; the profiles that only look.
    let machine = Machine::small_virtual();
    let (file, governor) =
        ("/sys/module/haltpoll/parameters/guest_halt_poll_ns", "/sys/devices/system/cpu/cpuidle/current_governor");
    let line = |profile: &str| {
        let choices = Choices { only: vec!["cpu.guest_halt_poll_ns".into()], ..Choices::default() };
        plan_of(&machine, &system(&machine), profile, &choices).lines.remove(0)
    };
    let found = line("latency");
    let change = found.change.expect("a change");
    assert_eq!((found.state, change.old.as_str(), change.new.as_str()), (State::Drift, "0", "200000"));
    for profile in ["throughput", "dev-vm"] {
        assert_eq!((line(profile).state, line(profile).change), (State::Ok, None), "{profile}");
    }
    for enough in ["200000", "400000"] {
        machine.put(file, enough);
        assert_eq!(line("latency").state, State::Ok, "{enough}");
    }
    machine.put(file, "0");
    machine.put(governor, "menu");
    let found = line("latency");
    assert_eq!((found.state, found.note.as_str()), (State::Unsupported, "the idle governor is menu, not haltpoll"));
    std::fs::remove_file(machine.root().join(&governor[1..])).expect("was there");
    assert_eq!((line("latency").state, line("latency").note.as_str()), (State::Unsupported, "no idle governor"));
    machine.put(governor, "haltpoll");
    std::fs::remove_file(machine.root().join(&file[1..])).expect("was there");
    assert_eq!(line("latency").state, State::Unsupported);
    assert!(line("latency").note.contains("does not have it"));
}

#[test]
fn what_is_proven_comes_first_among_the_worst() {
    // Goal: the few deviations that a start names are those that matter. Method: a proven one behind unproven ones, and a
    // worse one that nobody measured.
    let machine = Machine::small_virtual();
    let mut plan = plan_of(&machine, &system(&machine), "latency", &Choices::default());
    plan.lines.iter_mut().for_each(|line| line.unproven = true);
    let proven = plan.lines.iter_mut().rfind(|line| line.id == "cpu.guest_halt_poll_ns").expect("there");
    proven.unproven = false;
    assert_eq!(plan.worst(3)[0].id, "cpu.guest_halt_poll_ns");
    let fatal = plan.lines.iter_mut().find(|line| line.state == State::Drift).expect("there");
    fatal.severity = ringmq_tuning::catalogue::Severity::Fatal;
    let fatal = fatal.id.clone();
    let names: Vec<&str> = plan.worst(2).iter().map(|line| line.id.as_str()).collect();
    assert_eq!(names, [fatal.as_str(), "cpu.guest_halt_poll_ns"]);
}

#[test]
fn unknown_devices_and_names_are_errors() {
    // Goal: nothing unknown is silently skipped (T5). Method: a card, a directory and an id that do not exist.
    let machine = Machine::small_virtual();
    let system = system(&machine);
    let selection = Selection { nics: Some(vec!["eth7".into()]), ..Selection::default() };
    let error = Host::probe(&system, &selection).expect_err("refused").to_string();
    assert!(error.contains("eth7") && error.contains("eth0"), "{error}");
    let selection = Selection { directories: vec!["relative".into()], ..Selection::default() };
    let error = Host::probe(&system, &selection).expect_err("refused").to_string();
    assert!(error.contains("/data"), "{error}");
    let host = Host::probe(&system, &Selection::default()).expect("a host");
    let catalogue = Catalogue::embedded().expect("sound");
    let profile = catalogue.profile("dev-vm").expect("exists");
    let choices = Choices { only: vec!["vm.swappiness".into()], ..Choices::default() };
    let error = plan::make(&system, &catalogue, &host, profile, &choices).expect_err("refused").to_string();
    assert!(error.contains("dev-vm") && error.contains("fs.free_space"), "{error}");
}

#[test]
fn a_value_that_another_write_moves_comes_back() {
    // Goal: a revert is complete where the kernel moves what is back already. Method: such a kernel, both executors.
    let (direct, scripted) = (Machine::moving(), Machine::moving());
    let before = direct.snapshot();
    assert!(apply(&direct, "latency").iter().all(Step::is_good));
    assert_eq!(plan_of(&direct, &system(&direct), "latency", &everything()).changes().count(), 0, "nothing was moved");
    assert!(revert(&direct).iter().all(Step::is_good));
    assert_eq!(direct.snapshot(), before);
    let text = executor::script(&plan_of(&scripted, &system(&scripted), "latency", &everything()), scripted.root());
    for what in ["apply", "revert"] {
        let output = run_script(&scripted, &text, what);
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(scripted.snapshot(), before);
}

/// A kernel that moves the read-ahead with add_random: with a value that the plan changes, and with one that it leaves alone.
fn moving_machines() -> [Machine; 2] {
    let (planned, left_alone) = (Machine::moving(), Machine::moving());
    left_alone.put("/sys/block/vda/queue/read_ahead_kb", "128");
    [planned, left_alone]
}

#[test]
fn a_crash_beside_a_moved_value_loses_nothing() {
    // Goal: the old value of what a write moves is in the journal before that write. Method: die at each change, with the
    // whole profile and with the one entry that moves another's value; then revert, by both executors.
    for choices in [everything(), Choices { only: vec!["block.add_random".into()], ..everything() }] {
        for machine in moving_machines() {
            let before = machine.snapshot();
            let plan = plan_of(&machine, &system(&machine), "latency", &choices);
            let script = executor::script(&plan, machine.root());
            let counted = system(&machine);
            executor::apply(&counted, &plan).expect("applies");
            let total = counted.changes.get();
            revert(&machine);
            assert_eq!(machine.snapshot(), before);
            for dies_at in 0..total {
                let mut dying = system(&machine);
                dying.dies_at = Some(dies_at);
                assert!(executor::apply(&dying, &plan).is_err(), "at {dies_at}");
                if dies_at % 2 == 0 || total > 20 && dies_at % 10 != 1 {
                    revert(&machine);
                } else {
                    assert!(run_script(&machine, &script, "revert").status.success(), "at {dies_at}");
                }
                assert_eq!(machine.snapshot(), before, "at {dies_at} of {total}");
            }
        }
    }
}

#[test]
fn what_the_plan_leaves_alone_is_not_moved() {
    // Goal: apply changes what it says and nothing else, and both executors leave the same tree and journal. Method: a
    // profile and a single entry, where a write moves a value that the plan does not change, and one that it does.
    let read_ahead = "/sys/block/vda/queue/read_ahead_kb";
    for only in [vec![], vec!["block.add_random".to_string()]] {
        let choices = Choices { only, ..everything() };
        for (direct, scripted) in moving_machines().into_iter().zip(moving_machines()) {
            let before = direct.snapshot();
            let kernel = system(&direct);
            let old = kernel.read(read_ahead).expect("exists");
            let plan = plan_of(&direct, &kernel, "latency", &choices);
            let is_planned = plan.changes().any(|change| change.target.name() == read_ahead);
            let steps = executor::apply(&kernel, &plan).expect("applies");
            assert!(steps.iter().all(Step::is_good), "{steps:?}");
            assert_eq!(steps.len(), plan.changes().count(), "what is kept is no step");
            let now = kernel.read(read_ahead).expect("exists");
            assert_eq!(now, if is_planned { "128\n".to_string() } else { old });

            let text = executor::script(&plan_of(&scripted, &system(&scripted), "latency", &choices), scripted.root());
            let output = run_script(&scripted, &text, "apply");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(scripted.snapshot(), direct.snapshot());
            assert!(run_script(&scripted, &text, "revert").status.success());
            assert!(revert(&direct).iter().all(Step::is_good));
            assert_eq!((direct.snapshot(), scripted.snapshot()), (before.clone(), before));
        }
    }
}

#[test]
fn what_others_changed_is_not_moved_by_a_revert() {
    // Goal: a value of somebody else's stays also where bringing back another one moves it. Method: change the read-ahead
    // after apply; revert by each executor.
    let read_ahead = "/sys/block/vda/queue/read_ahead_kb";
    for by_script in [false, true] {
        let machine = Machine::moving();
        let before = machine.snapshot();
        let kernel = system(&machine);
        let plan = plan_of(&machine, &kernel, "latency", &everything());
        executor::apply(&kernel, &plan).expect("applies");
        machine.put(read_ahead, "999");
        if by_script {
            let output = run_script(&machine, &executor::script(&plan, machine.root()), "revert");
            assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        } else {
            let steps = revert(&machine);
            let bad: Vec<&Step> = steps.iter().filter(|step| !step.is_good()).collect();
            assert_eq!(bad.len(), 1, "{bad:?}");
            assert_eq!(bad[0].outcome, Outcome::Conflict("999".into()));
        }
        assert_eq!(kernel.read(read_ahead).expect("exists"), "999\n");
        assert_eq!(kernel.read("/sys/block/vda/queue/add_random").expect("exists"), "1\n");
        executor::revert(&kernel, &boot_id(&kernel), &Reverting { force: true, ..Reverting::default() })
            .expect("reverts");
        assert_eq!(machine.snapshot(), before, "by force it comes back");
    }
}

#[test]
fn of_two_at_once_one_is_refused() {
    // Goal: no two processes change a host at the same time. Method: hold the lock, and let both executors try both
    // ways; then let them.
    let machine = Machine::small_virtual();
    let before = machine.snapshot();
    let kernel = system(&machine);
    let plan = plan_of(&machine, &kernel, "latency", &everything());
    let script = executor::script(&plan, machine.root());
    let refused = |result: Result<Vec<Step>, JournalError>| assert!(matches!(result, Err(JournalError::Busy)));
    let script_is_refused = |what: &str| {
        let output = run_script(&machine, &script, what);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{what}: {told}");
        assert!(told.contains("another `ringmq tune`"), "{told}");
    };
    let lock = journal::lock(&kernel).expect("free");
    refused(executor::apply(&kernel, &plan));
    script_is_refused("apply");
    assert!(executor::make_file(&kernel, &plan, export::TUNE_UNIT, "[Unit]\n").is_err());
    assert_eq!(kernel.changes.get(), 0);
    drop(lock);
    assert_eq!(machine.snapshot(), before, "the lock leaves nothing behind");

    executor::apply(&kernel, &plan).expect("applies");
    let applied = machine.snapshot();
    let lock = journal::lock(&kernel).expect("free");
    refused(executor::revert(&kernel, &boot_id(&kernel), &Reverting { force: true, ..Reverting::default() }));
    script_is_refused("revert");
    drop(lock);
    assert_eq!(machine.snapshot(), applied);
    revert(&machine);
    assert_eq!(machine.snapshot(), before);
}

#[test]
fn many_at_once_leave_one_journal() {
    // Goal: the lock holds although its folder comes and goes. Method: threads that apply and revert at random moments,
    // each with a root of its own; whoever is not refused finds all as wanted; a last revert brings every byte back.
    let machine = Machine::arm();
    let before = machine.snapshot();
    let (done, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (machine, done, refused) = (&machine, &done, &refused);
            scope.spawn(move || {
                for round in 0..12 {
                    let kernel = system(machine);
                    let result = match (thread + round) % 2 {
                        0 => executor::apply(&kernel, &plan_of(machine, &kernel, "latency", &everything())),
                        _ => executor::revert(&kernel, &boot_id(&kernel), &Reverting::default()),
                    };
                    match result {
                        Ok(steps) => {
                            assert!(steps.iter().all(Step::is_good), "{steps:?}");
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(JournalError::Busy) => _ = refused.fetch_add(1, Ordering::Relaxed),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert!(done.into_inner() >= 4, "{refused:?} refused");
    assert!(revert(&machine).iter().all(Step::is_good));
    assert_eq!(machine.snapshot(), before);
}
