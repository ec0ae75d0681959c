//! What comes back, when, and what stays.

use ringmq_tuning::executor::{self, Reverting, Step};
use ringmq_tuning::export;
use ringmq_tuning::journal::{self, Journal};
use ringmq_tuning::plan::Choices;
use ringmq_tuning::probe::System;

use crate::machine::Machine;
use crate::{boot_id, plan_of, revert, system};

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
