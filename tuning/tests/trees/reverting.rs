//! What comes back, when, and what stays.

use ringmq_tuning::executor::{self, Reverting, Step};
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
    assert!(export::tune_unit("latency", "ringmq", "").contains("\nExecStop=ringmq tune revert --keep-files\n"));
}

/// A kernel that gives a disk its default depth when the scheduler changes, and itself a reserve when huge pages do.
fn resetting() -> Machine {
    let mut machine = Machine::small_virtual();
    let (queue, reserve) = ("/sys/block/vda/queue", "/proc/sys/vm/min_free_kbytes");
    let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
    let thp = "/sys/kernel/mm/transparent_hugepage/enabled";
    let set = |other: &str, value: &str, choice: &str| Rule::MovesBesides(other.into(), value.into(), words(choice));
    let depth = set(&format!("{queue}/nr_requests"), "256", "none mq-deadline kyber bfq");
    machine.rules.insert(format!("{queue}/scheduler"), depth);
    machine.rules.insert(thp.into(), set(reserve, "90112", "always madvise never"));
    machine.put(&format!("{queue}/nr_requests"), "1024");
    machine.put(thp, "always madvise [never]");
    machine
}

#[test]
fn what_a_scheduler_takes_with_it_comes_back() {
    // Goal: apply and revert keep the depth of a queue and the reserve of memory, which Linux sets beside other values. Method:
    // such a kernel, with values of somebody's own; both executors, with the whole profile and with one entry.
    for only in [vec![], vec!["block.scheduler".to_string(), "thp.enabled".to_string()]] {
        let (direct, scripted) = (resetting(), resetting());
        let before = direct.snapshot();
        let choices = Choices { only: only.clone(), ..settled() };
        let (kernel, other) = (system(&direct), system(&scripted));
        let plan = plan_of(&direct, &kernel, "latency", &choices);
        assert!(executor::apply(&kernel, &plan).expect("applies").iter().all(Step::is_good));
        assert_eq!(direct.text("/sys/block/vda/queue/nr_requests"), "1024\n");
        let reserve = if only.is_empty() { "131072\n" } else { "67584\n" };
        assert_eq!(direct.text("/proc/sys/vm/min_free_kbytes"), reserve);
        let script = executor::script(&plan_of(&scripted, &other, "latency", &choices), scripted.root());
        assert!(run_script(&scripted, &script, "apply").status.success());
        assert_eq!(scripted.snapshot(), direct.snapshot());
        assert!(revert(&direct).iter().all(Step::is_good));
        assert!(run_script(&scripted, &script, "revert").status.success());
        assert_eq!((direct.snapshot(), scripted.snapshot()), (before.clone(), before));
    }
    assert!(apply(&resetting(), "throughput").iter().all(Step::is_good));
}
