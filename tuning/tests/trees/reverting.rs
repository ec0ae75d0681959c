//! What comes back, when, and what stays.

use ringmq_tuning::executor::{self, Outcome, Reverting, Step};
use ringmq_tuning::export;
use ringmq_tuning::journal::{self, Journal};
use ringmq_tuning::plan::Choices;
use ringmq_tuning::probe::System;

use crate::kernel::Rule;
use crate::machine::Machine;
use crate::{apply, boot_id, plan_of, revert, run_script, settled, system};

#[test]
fn a_persisted_profile_outlives_its_shutdowns() {
    // Goal: a profile that is applied at every boot still is after a clean shutdown, which stops the unit. Method: persist;
    // then twice a boot, an apply and the unit's stop; in the end a whole revert.
    let machine = Machine::small_virtual();
    let before = machine.snapshot();
    let kernel = system(&machine);
    let persisted = || {
        let plan = plan_of(&machine, &kernel, "latency", &Choices::default());
        assert!(executor::apply(&kernel, &plan).expect("applies").iter().all(Step::is_good));
        for path in [export::TUNE_UNIT, export::TUNE_DROP_IN] {
            assert!(executor::make_file(&kernel, &plan, path, "[Unit]\n").expect("made").is_good());
        }
    };
    persisted();
    for boot in ["boot-2", "boot-3"] {
        let stop = Reverting { keep_files: true, ..Reverting::default() };
        let steps = executor::revert(&kernel, &boot_id(&kernel), &stop).expect("reverts");
        assert!(steps.iter().all(Step::is_good), "{steps:?}");
        assert_eq!(kernel.read("/proc/sys/vm/swappiness").expect("exists"), "60\n");
        assert!(kernel.exists(export::TUNE_UNIT) && kernel.exists(export::TUNE_DROP_IN), "{boot} will want it");
        let journal = Journal::read(&kernel).expect("sound").expect("still knows the files");
        assert_eq!(journal.profile(), None, "nothing of the profile holds");
        machine.put("/proc/sys/kernel/random/boot_id", boot);
        let plan = plan_of(&machine, &kernel, "latency", &Choices::default());
        executor::apply(&kernel, &plan).expect("applies");
        assert_eq!(kernel.read("/proc/sys/vm/swappiness").expect("exists"), "1\n");
    }
    assert!(revert(&machine).iter().all(Step::is_good));
    assert!(!kernel.exists(journal::PATH) && !kernel.exists(export::TUNE_UNIT));
    machine.put("/proc/sys/kernel/random/boot_id", before["proc/sys/kernel/random/boot_id"][5..].trim());
    assert_eq!(machine.snapshot(), before);
    assert!(
        export::tune_unit("latency", &export::Service::standard("ringmq"))
            .contains("\nExecStop=ringmq tune revert --keep-files\n")
    );
}

/// A kernel that gives a disk its default depth when the scheduler changes, and itself a reserve when huge pages do.
/// With `none_is_small` the disk alone takes no more than that.
fn resetting(none_is_small: bool) -> Machine {
    let mut machine = Machine::small_virtual();
    let (queue, reserve) = ("/sys/block/vda/queue", "/proc/sys/vm/min_free_kbytes");
    let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
    let thp = "/sys/kernel/mm/transparent_hugepage/enabled";
    let set = |other: &str, value: &str, choice: &str| Rule::MovesBesides(other.into(), value.into(), words(choice));
    let depth = set(&format!("{queue}/nr_requests"), "256", "none mq-deadline kyber bfq");
    machine.rules.insert(format!("{queue}/scheduler"), depth);
    if none_is_small {
        let scheduler = format!("{queue}/scheduler");
        machine
            .rules
            .insert(format!("{queue}/nr_requests"), Rule::RefusesWhile(scheduler, "none".into(), "256".into()));
    }
    machine.rules.insert(thp.into(), set(reserve, "90112", "always madvise never"));
    machine.put(&format!("{queue}/nr_requests"), "1024");
    machine.put(thp, "always madvise [never]");
    machine
}

#[test]
fn what_a_scheduler_takes_with_it_comes_back() {
    // Goal: apply and revert keep the depth of a queue and the reserve of memory, which Linux sets beside other values. Method:
    // such a kernel, with values of somebody's own; both executors, with the whole profile and with one entry; a disk that
    // cannot keep the depth until its scheduler is back.
    let two = vec!["block.scheduler".to_string(), "thp.enabled".to_string()];
    for (only, none_is_small) in [(vec![], false), (two.clone(), false), (vec![], true), (two, true)] {
        let (direct, scripted) = (resetting(none_is_small), resetting(none_is_small));
        let before = direct.snapshot();
        let choices = Choices { only: only.clone(), ..settled() };
        let (kernel, other) = (system(&direct), system(&scripted));
        let plan = plan_of(&direct, &kernel, "latency", &choices);
        assert!(executor::apply(&kernel, &plan).expect("applies").iter().all(Step::is_good));
        let depth = if none_is_small { "256\n" } else { "1024\n" };
        assert_eq!(direct.text("/sys/block/vda/queue/nr_requests"), depth);
        let reserve = if only.is_empty() { "131072\n" } else { "67584\n" };
        assert_eq!(direct.text("/proc/sys/vm/min_free_kbytes"), reserve);
        let script = executor::script(&plan_of(&scripted, &other, "latency", &choices), scripted.root());
        assert!(run_script(&scripted, &script, "apply").status.success());
        assert_eq!(scripted.snapshot(), direct.snapshot());
        assert!(revert(&direct).iter().all(Step::is_good));
        assert!(run_script(&scripted, &script, "revert").status.success());
        assert_eq!((direct.snapshot(), scripted.snapshot()), (before.clone(), before));
    }
    assert!(apply(&resetting(true), "throughput").iter().all(Step::is_good));
}

/// A disk under mq-deadline with settings of somebody's own, of the queue and of the scheduler.
fn scheduled() -> Machine {
    let mut machine = Machine::small_virtual();
    let queue = "/sys/block/vda/queue";
    let words = ["none", "mq-deadline", "kyber", "bfq"].map(String::from).to_vec();
    machine.rules.insert(format!("{queue}/scheduler"), Rule::Scheduler(queue.into(), words));
    for (file, value) in [("iosched/fifo_batch", "4"), ("iosched/read_expire", "500"), ("nr_requests", "1024")] {
        machine.put(&format!("{queue}/{file}"), value);
    }
    machine
}

#[test]
fn settings_of_a_scheduler_come_back_with_it() {
    // Goal: a revert brings back what a change of the scheduler took away. Method: such a kernel; both executors, with the whole
    // profile and with one entry; each undoes the other; a second apply after somebody set the scheduler back.
    for only in [vec![], vec!["block.scheduler".to_string()]] {
        let (direct, scripted) = (scheduled(), scheduled());
        let before = direct.snapshot();
        let choices = Choices { only: only.clone(), ..settled() };
        let (kernel, other) = (system(&direct), system(&scripted));
        let plan = plan_of(&direct, &kernel, "latency", &choices);
        assert!(executor::apply(&kernel, &plan).expect("applies").iter().all(Step::is_good));
        assert!(!kernel.exists("/sys/block/vda/queue/iosched/fifo_batch"));
        let script = executor::script(&plan_of(&scripted, &other, "latency", &choices), scripted.root());
        let output = run_script(&scripted, &script, "apply");
        assert!(output.status.success() && !String::from_utf8_lossy(&output.stderr).contains("No such"), "{output:?}");
        assert_eq!(scripted.snapshot(), direct.snapshot());
        for (file, value) in [("scheduler", "mq-deadline"), ("nr_requests", "1024")] {
            kernel.write(&format!("/sys/block/vda/queue/{file}"), value).expect("writes");
        }
        let again = plan_of(&direct, &kernel, "latency", &choices);
        assert_eq!(executor::apply(&kernel, &again).expect("applies").len(), 1);
        let script = script.replace(&crate::root_of(&scripted), &crate::root_of(&direct));
        assert!(run_script(&direct, &script, "revert").status.success());
        assert!(revert(&scripted).iter().all(Step::is_good));
        assert_eq!((direct.snapshot(), scripted.snapshot()), (before.clone(), before));
    }
}

#[test]
fn a_crash_beside_a_scheduler_loses_nothing() {
    // Goal: T15 holds for what a scheduler takes away. Method: die at each change of an apply, then revert by either executor.
    let machine = scheduled();
    let before = machine.snapshot();
    let choices = Choices { only: vec!["block.scheduler".into()], ..settled() };
    let plan = plan_of(&machine, &system(&machine), "latency", &choices);
    let script = executor::script(&plan, machine.root());
    let counted = system(&machine);
    executor::apply(&counted, &plan).expect("applies");
    revert(&machine);
    let total = counted.changes.get();
    assert!(total > 5, "{total}");
    for (dies_at, by_script) in (0..total).flat_map(|at| [(at, false), (at, true)]) {
        let mut dying = system(&machine);
        dying.dies_at = Some(dies_at);
        assert!(executor::apply(&dying, &plan).is_err(), "at {dies_at}");
        if by_script {
            assert!(run_script(&machine, &script, "revert").status.success(), "at {dies_at}");
        } else {
            assert!(revert(&machine).iter().all(Step::is_good), "at {dies_at}");
        }
        assert_eq!(machine.snapshot(), before, "at {dies_at} of {total}");
    }
}

#[test]
fn a_scheduler_that_stays_keeps_what_goes_with_it() {
    // Goal: where a scheduler does not come back at once, its settings still do when it does. Method: another profile that wants
    // the same scheduler, then a revert; a scheduler that somebody else chose since, which stays, then a revert by force.
    let machine = scheduled();
    let before = machine.snapshot();
    let kernel = system(&machine);
    apply(&machine, "latency");
    let plan = plan_of(&machine, &kernel, "throughput", &settled());
    assert!(!plan.left_behind.iter().any(|undo| undo.target.name().contains("/queue/iosched/")), "{plan:?}");
    assert!(executor::leave(&kernel, &plan).expect("reverts").iter().all(Step::is_good));
    assert_eq!(plan_of(&machine, &kernel, "throughput", &settled()).left_behind, []);
    apply(&machine, "throughput");
    assert!(revert(&machine).iter().all(Step::is_good));
    assert_eq!(machine.snapshot(), before);
    for by_script in [false, true] {
        apply(&machine, "latency");
        let script = executor::script(&plan_of(&machine, &kernel, "latency", &settled()), machine.root());
        kernel.write("/sys/block/vda/queue/scheduler", "kyber").expect("writes");
        if by_script {
            assert_eq!(run_script(&machine, &script, "revert").status.code(), Some(1));
        } else {
            let bad: Vec<String> =
                revert(&machine).into_iter().filter(|step| !step.is_good()).map(|step| step.name).collect();
            assert_eq!(bad, ["block.scheduler[vda]", "/sys/block/vda/queue/nr_requests"], "the depth moved with it");
        }
        assert!(machine.text("/sys/block/vda/queue/scheduler").contains("[kyber]"));
        let force = Reverting { force: true, ..Reverting::default() };
        let steps = executor::revert(&kernel, &boot_id(&kernel), &force).expect("reverts");
        assert!(steps.iter().all(Step::is_good), "{steps:?}");
        assert_eq!(machine.snapshot(), before, "by script: {by_script}");
    }
}

#[test]
fn a_device_that_is_gone_ends_a_revert() {
    // Goal: what was taken away since leaves no journal that nobody can empty. Method: an interrupt with another number, a
    // card that was unplugged; both executors.
    for by_script in [false, true] {
        let machine = Machine::small_virtual();
        let kernel = system(&machine);
        let plan = plan_of(&machine, &kernel, "latency", &settled());
        executor::apply(&kernel, &plan).expect("applies");
        let gone = |path: &str| std::fs::remove_file(machine.root().join(path)).expect("was there");
        gone("proc/irq/41/smp_affinity_list");
        gone("sys/class/net/eth0");
        std::fs::remove_dir_all(machine.root().join("fake-root/cards")).expect("were there");
        if by_script {
            let output = run_script(&machine, &executor::script(&plan, machine.root()), "revert");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        } else {
            let steps = revert(&machine);
            assert!(steps.iter().all(Step::is_good), "{steps:?}");
            let gone: Vec<&str> =
                steps.iter().filter(|step| step.outcome == Outcome::Gone).map(|step| step.name.as_str()).collect();
            assert_eq!(gone, ["nic.irq_affinity[eth0/41]", "nic.lro[eth0]"]);
        }
        assert!(!kernel.exists(journal::PATH), "nothing is left to do");
    }
}

#[test]
fn another_profile_leaves_no_mixture() {
    // Goal: after a change of profiles nothing of the first holds that the second says nothing of, and one revert still
    // brings back the first values. Method: latency, then throughput, on a kernel that moves values besides; compare with
    // throughput alone.
    let (changed, alone) = (Machine::moving(), Machine::moving());
    let before = changed.snapshot();
    apply(&changed, "latency");
    let kernel = system(&changed);
    let plan = plan_of(&changed, &kernel, "throughput", &settled());
    let names: Vec<String> = plan.left_behind.iter().map(|undo| undo.target.name()).collect();
    assert!(names.contains(&"/proc/sys/vm/page-cluster".to_string()), "{names:?}");
    assert!(!names.contains(&"/proc/sys/vm/swappiness".to_string()), "{names:?}");
    let text = ringmq_tuning::report::plan_text(&plan, ringmq_tuning::report::Style { colour: false });
    assert!(text.contains("/proc/sys/vm/page-cluster -> 3\n"), "{text}");
    assert!(executor::leave(&kernel, &plan).expect("reverts").iter().all(Step::is_good));
    apply(&changed, "throughput");
    apply(&alone, "throughput");
    let without_journal = |machine: &Machine| {
        let mut tree = machine.snapshot();
        assert!(tree.remove(&journal::PATH[1..]).is_some());
        tree
    };
    assert_eq!(without_journal(&changed), without_journal(&alone));
    assert_eq!(plan_of(&changed, &kernel, "throughput", &settled()).left_behind, []);
    assert!(revert(&changed).iter().all(Step::is_good));
    assert_eq!(changed.snapshot(), before);
}

#[test]
fn a_host_that_is_as_wanted_has_the_profile() {
    // Goal: who set everything otherwise, by files for example, has the profile too. Method: take the journal away after an
    // apply, apply again, by each executor; a third time nothing is written. A host that cannot be written has none.
    for by_script in [false, true] {
        let machine = Machine::small_virtual();
        let kernel = system(&machine);
        apply(&machine, "latency");
        std::fs::remove_dir_all(machine.root().join("var/lib/ringmq-tune")).expect("was there");
        for round in 0..2 {
            let plan = plan_of(&machine, &kernel, "latency", &settled());
            let changes = kernel.changes.get();
            if by_script {
                assert!(run_script(&machine, &executor::script(&plan, machine.root()), "apply").status.success());
            } else {
                assert_eq!(executor::apply(&kernel, &plan).expect("applies"), []);
                assert_eq!(kernel.changes.get() - changes, 1 - round);
            }
            assert_eq!(Journal::read(&kernel).expect("sound").expect("noted").profile(), Some("latency"));
        }
        assert_eq!(revert(&machine), []);
        assert!(!kernel.exists(journal::FOLDER));
    }
    let container = Machine::container();
    let plan = plan_of(&container, &system(&container), "latency", &settled());
    assert!(plan.changes().next().is_none() && !plan.is_fulfilled());
}

#[test]
fn the_last_profile_is_the_one_that_holds() {
    // Goal: the journal names the profile that was applied last, also where that had nothing to write. Method: a journal of
    // another profile, and a host on which the second can write nothing but is not as it wants; both executors.
    for by_script in [false, true] {
        let machine = Machine::small_virtual();
        let kernel = system(&machine);
        apply(&machine, "latency");
        let plan = plan_of(&machine, &kernel, "throughput", &settled());
        executor::leave(&kernel, &plan).expect("reverts");
        let mut plan = plan_of(&machine, &kernel, "throughput", &settled());
        plan.lines.iter_mut().for_each(|line| line.change = None);
        assert!(!plan.is_fulfilled());
        if by_script {
            assert!(run_script(&machine, &executor::script(&plan, machine.root()), "apply").status.success());
        } else {
            executor::apply(&kernel, &plan).expect("applies");
        }
        assert_eq!(Journal::read(&kernel).expect("sound").expect("exists").profile(), Some("throughput"));
    }
}
