//! The files for operators: what they say on a host and on any.

use ringmq_tuning::catalogue::Catalogue;
use ringmq_tuning::export;
use ringmq_tuning::plan::{Choices, Plan};

use crate::machine::Machine;
use crate::{plan_of, system};

fn files(profile: &str, plan: Option<&Plan>) -> String {
    let catalogue = Catalogue::embedded().expect("sound");
    let files = export::files(&catalogue, catalogue.profile(profile).expect("exists"), plan, "ringmq", "");
    files.into_iter().map(|file| format!("[[{}]]\n{}", file.path, file.text)).collect()
}

#[test]
fn a_bound_lowers_no_good_value() {
    // Goal: files that can only set a value never make a good one worse. Method: a host that has more than every least
    // value and less than every greatest one; and the files for any host.
    let machine = Machine::large();
    for (path, value) in [
        ("net/core/somaxconn", "65535"),
        ("net/core/rmem_max", "33554432"),
        ("net/core/netdev_budget_usecs", "2000"),
        ("net/ipv4/tcp_max_syn_backlog", "1024"),
    ] {
        machine.put(&format!("/proc/sys/{path}"), value);
    }
    machine.put("/fake-root/cards/ens1/rx-usecs", "4");
    let here = files("latency", Some(&plan_of(&machine, &system(&machine), "latency", &Choices::default())));
    for line in [
        "net.core.somaxconn = 65535",
        "net.core.rmem_max = 33554432",
        "net.core.netdev_budget_usecs = 2000",
        "net.ipv4.tcp_max_syn_backlog = 4096",
        "RxCoalesceSec=4us",
        "CombinedChannels=30",
    ] {
        assert!(here.contains(&format!("\n{line}\n")), "{line}: {here}");
    }
    let anywhere = files("latency", None);
    for line in [
        "# Only if the host has less: net.core.somaxconn = 4096",
        "# Only if the host has more: net.core.netdev_budget_usecs = 8000",
        "# Only if the host has more: nic.rx_usecs 8",
        "# Only if the host has less: w /sys/module/haltpoll/parameters/guest_halt_poll_ns - - - - 200000",
    ] {
        assert!(anywhere.contains(&format!("\n{line}\n")), "{line}: {anywhere}");
    }
    assert!(!anywhere.contains("\nnet.core.somaxconn") && !anywhere.contains("\nRxCoalesceSec"));
}
