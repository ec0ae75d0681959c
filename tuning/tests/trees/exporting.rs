//! The files for operators: what they say on a host and on any.

use ringmq_tuning::catalogue::Catalogue;
use ringmq_tuning::export::{self, Exporting, Service};
use ringmq_tuning::plan::Choices;
use ringmq_tuning::probe::{Host, Selection};

use crate::machine::Machine;
use crate::{plan_of, system};

/// All files in one text, for the machine if there is one.
fn files(profile: &str, machine: Option<&Machine>, choices: &Choices) -> String {
    let catalogue = Catalogue::embedded().expect("sound");
    let service = Service {
        start: vec!["--data".into(), "/data/with blank".into()],
        tune: vec!["--data".into(), "/data/with blank".into()],
        writable: vec!["/data/with blank".into()],
        ..Service::standard("/usr/bin/ringmq")
    };
    let host = machine.map(|machine| {
        let directories = vec![machine.directory.into()];
        let listen = Some(machine.listen.parse().expect("an address"));
        let selection = Selection { directories, listen, ..Selection::default() };
        Host::probe(&system(machine), &selection).expect("a host")
    });
    let plan = machine.map(|machine| plan_of(machine, &system(machine), profile, choices));
    let profile = catalogue.profile(profile).expect("exists");
    let on = host.as_ref().zip(plan.as_ref());
    let exporting = Exporting { catalogue: &catalogue, profile, choices, on, service: &service };
    export::files(&exporting).into_iter().map(|file| format!("[[{}]]\n{}", file.path, file.text)).collect()
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
    let here = files("latency", Some(&machine), &Choices::default());
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
    let anywhere = files("latency", None, &Choices::default());
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

#[test]
fn files_find_the_card_before_it_has_its_name() {
    // Goal: udev reads the files while the card is still called as the kernel called it. Method: a card that knows the address
    // it was made with, one that knows its present one only, one without any; two cards have a file each.
    let machine = Machine::large();
    let matched = |machine: &Machine| {
        let text = files("latency", Some(machine), &Choices::default());
        let lines = text.lines().filter(|line| line.contains("rx-0/rps_cpus") || line.contains("[[systemd/network"));
        let after_match = text.split("[Match]\n").skip(1).map(|rest| rest.split("\n\n").next().unwrap_or_default());
        lines.chain(after_match).map(String::from).collect::<Vec<_>>().join("\n")
    };
    assert!(matched(&machine).contains("OriginalName=ens1"), "better than nothing");
    machine.put("/sys/class/net/ens1/address", "02:00:00:00:00:07");
    let text = matched(&machine);
    assert!(text.contains("\nMACAddress=02:00:00:00:00:07") || text.contains("ens1\nMACAddress="), "{text}");
    assert!(text.contains("\"net\", ATTR{address}==\"02:00:00:00:00:07\", ATTR{queues/rx-0/rps_cpus}"), "{text}");
    machine.put("/fake-root/cards/ens1/permanent-address", "52:54:00:00:00:01");
    let text = matched(&machine);
    assert!(text.contains("PermanentMACAddress=52:54:00:00:00:01") && !text.contains("OriginalName"), "{text}");
    assert!(text.contains("DRIVERS==\"?*\", ATTR{address}==\"52:54:00:00:00:01\""), "{text}");
    assert!(!text.contains("KERNEL==\"ens1\""), "{text}");
    machine.second_card("ens2");
    let text = matched(&machine);
    assert!(text.contains("60-ringmq-ens1.link") && text.contains("60-ringmq-ens2.link"), "{text}");
}

#[test]
fn files_hold_what_was_chosen() {
    // Goal: --only and --proven-only mean the same for files as for apply. Method: one entry; the proven ones.
    for machine in [None, Some(Machine::small_virtual())] {
        let settings = |choices: &Choices| {
            let text = files("latency", machine.as_ref(), choices);
            let is_setting =
                |line: &&str| line.starts_with("vm.") || line.starts_with("net.") || line.contains("ATTR{queue");
            (text.lines().filter(is_setting).count(), text.contains("guest_halt_poll_ns"), text.contains("Offload="))
        };
        let only = Choices { only: vec!["vm.swappiness".into()], ..Choices::default() };
        assert_eq!(settings(&only), (1, false, false));
        let proven = settings(&Choices { proven_only: true, ..Choices::default() });
        let catalogue = Catalogue::embedded().expect("sound");
        let most = catalogue.tunables().iter().filter(|tunable| tunable.evidence.is_proven()).count();
        assert!(proven.0 < most && proven.1, "{proven:?} of {most}");
        assert!(settings(&Choices::default()).0 > 10 + most);
    }
}

#[test]
fn the_boot_line_is_written_where_it_is_allowed() {
    // Goal: what needs a reboot is a file of its own, and only by choice. Method: without and with the class, and in the profile
    // that wants nothing of it; bash reads the file as update-grub does.
    let with = Choices { allow: [ringmq_tuning::catalogue::Class::Reboot].into(), ..Choices::default() };
    assert!(!files("latency", None, &Choices::default()).contains("grub.d"));
    assert!(!files("throughput", None, &with).contains("grub.d"));
    assert!(
        !files("latency", None, &Choices { only: vec!["vm.swappiness".into()], ..with.clone() }).contains("grub.d")
    );
    let all = files("latency", Some(&Machine::small_virtual()), &with);
    let text =
        all.split("[[default/grub.d/60-ringmq.cfg]]\n").nth(1).expect("a file").split("[[").next().expect("text");
    let script = format!("GRUB_CMDLINE_LINUX_DEFAULT=quiet\n{text}printf '%s' \"$GRUB_CMDLINE_LINUX_DEFAULT\"");
    let output = std::process::Command::new("bash").args(["-euc", &script]).output().expect("bash runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "quiet skew_tick=1", "{text}");
}

#[test]
fn units_are_for_the_directory_that_was_named() {
    // Goal: the broker starts on the data that was tuned for, whatever its path holds, and its user comes into being. Method:
    // a directory with a blank in its name.
    let text = files("latency", None, &Choices::default());
    for line in [
        "ExecStart=/usr/bin/ringmq start --data \"/data/with blank\"",
        "ExecStart=/usr/bin/ringmq tune apply --profile latency --data \"/data/with blank\"",
        "ReadWritePaths=\"-/data/with blank\"",
        "After=systemd-sysctl.service systemd-tmpfiles-setup.service network-online.target",
        "u ringmq - \"RingMQ message broker\" /var/lib/ringmq",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
    }
}
