//! Kernel, processors, memory and network.

use super::Facts;
use crate::host::process::is_virtual;

/// Settings below `/proc/sys` that change latency; the tuning catalogue explains them.
const SYSCTLS: &[&str] = &[
    "vm.swappiness",
    "vm.dirty_background_ratio",
    "vm.dirty_background_bytes",
    "vm.dirty_ratio",
    "vm.dirty_bytes",
    "vm.dirty_writeback_centisecs",
    "vm.dirty_expire_centisecs",
    "vm.max_map_count",
    "vm.min_free_kbytes",
    "vm.watermark_scale_factor",
    "vm.zone_reclaim_mode",
    "vm.overcommit_memory",
    "vm.page-cluster",
    "vm.compaction_proactiveness",
    "vm.stat_interval",
    "kernel.numa_balancing",
    "kernel.timer_migration",
    "kernel.nmi_watchdog",
    "kernel.watchdog",
    "kernel.sched_autogroup_enabled",
    "kernel.io_uring_disabled",
    "net.core.somaxconn",
    "net.core.netdev_max_backlog",
    "net.core.netdev_budget",
    "net.core.netdev_budget_usecs",
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.core.busy_poll",
    "net.core.busy_read",
    "net.core.rps_sock_flow_entries",
    "net.core.default_qdisc",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_autocorking",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_fastopen",
    "fs.file-max",
    "fs.aio-max-nr",
];

/// Where a guest's kernel keeps for how long it polls before it halts.
const HALT_POLL: &str = "/sys/module/haltpoll/parameters/guest_halt_poll_ns";
/// Name of that fact in the section `cpu`.
pub const HALT_POLL_FACT: &str = "guest_halt_poll_ns";

/// Most interfaces that are described.
const MOST_INTERFACES: usize = 8;

pub fn capture(facts: &mut Facts<'_>) {
    kernel(facts);
    processors(facts);
    memory(facts);
    for name in SYSCTLS {
        facts.add_file("sysctl", name, &format!("/proc/sys/{}", name.replace('.', "/")));
    }
    network(facts);
    limits(facts);
}

fn kernel(facts: &mut Facts<'_>) {
    facts.add_file("kernel", "release", "/proc/sys/kernel/osrelease");
    facts.add_file("kernel", "version", "/proc/sys/kernel/version");
    facts.add_file("kernel", "command line", "/proc/cmdline");
    facts.add_file("kernel", "load average", "/proc/loadavg");
    facts.add_file("kernel", "clock source", "/sys/devices/system/clocksource/clocksource0/current_clocksource");
    facts.add_file("kernel", "clock sources", "/sys/devices/system/clocksource/clocksource0/available_clocksource");
}

fn processors(facts: &mut Facts<'_>) {
    let info = facts.lines("/proc/cpuinfo");
    let field = |name: &str| {
        info.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    let note = "not in /proc/cpuinfo";
    facts.add("cpu", "model", field("model name"), note);
    facts.add("cpu", "microcode", field("microcode"), note);
    facts.add_file("cpu", "online", "/sys/devices/system/cpu/online");
    facts.add_file("cpu", "isolated", "/sys/devices/system/cpu/isolated");
    facts.add_file("cpu", "SMT", "/sys/devices/system/cpu/smt/active");
    let kind = is_virtual(&info.join("\n")).map(|is_virtual| if is_virtual { "yes" } else { "no" }.to_owned());
    facts.add("cpu", "virtual machine", kind, "from the processor's flags");
    facts.add_file("cpu", "hypervisor", "/sys/class/dmi/id/sys_vendor");
    facts.add_file("cpu", "governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    facts.add_file("cpu", "boost", "/sys/devices/system/cpu/cpufreq/boost");
    facts.add_file("cpu", "idle driver", "/sys/devices/system/cpu/cpuidle/current_driver");
    facts.add_file("cpu", "idle governor", "/sys/devices/system/cpu/cpuidle/current_governor");
    // How long an idle guest spins before it gives its core back. Waking up again takes the host tens of microseconds, so
    // this halves or doubles every latency on a virtual machine.
    match facts.read(HALT_POLL) {
        Ok(value) => facts.add(
            "cpu",
            HALT_POLL_FACT,
            Some(value),
            "polled before the core is given back; with 0 every idle moment ends with a wake-up by the host",
        ),
        Err(reason) => facts.add("cpu", HALT_POLL_FACT, None, &format!("no haltpoll in this kernel: {reason}")),
    }
    for name in facts.names("/sys/devices/system/cpu/vulnerabilities") {
        facts.add_file("mitigation", &name, &format!("/sys/devices/system/cpu/vulnerabilities/{name}"));
    }
    facts.add_file("numa", "nodes", "/sys/devices/system/node/online");
}

fn memory(facts: &mut Facts<'_>) {
    let info = facts.lines("/proc/meminfo");
    for name in ["MemTotal", "MemAvailable", "SwapTotal", "HugePages_Total", "Dirty"] {
        let value = info.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key == name).then(|| value.trim().to_owned())
        });
        facts.add("memory", name, value, "from /proc/meminfo");
    }
    for (name, path) in [
        ("THP enabled", "/sys/kernel/mm/transparent_hugepage/enabled"),
        ("THP defrag", "/sys/kernel/mm/transparent_hugepage/defrag"),
        ("khugepaged defrag", "/sys/kernel/mm/transparent_hugepage/khugepaged/defrag"),
        ("KSM", "/sys/kernel/mm/ksm/run"),
        ("free page reporting order", "/sys/module/page_reporting/parameters/page_reporting_order"),
    ] {
        facts.add_file("memory", name, path);
    }
}

fn network(facts: &mut Facts<'_>) {
    for name in facts.names("/sys/class/net").into_iter().take(MOST_INTERFACES) {
        let base = format!("/sys/class/net/{name}");
        for file in ["operstate", "mtu", "speed", "tx_queue_len"] {
            facts.add_file("network", &format!("{name} {file}"), &format!("{base}/{file}"));
        }
        let queues = facts.names(&format!("{base}/queues"));
        let count = |kind: &str| queues.iter().filter(|queue| queue.starts_with(kind)).count();
        let text = format!("{} receive, {} send", count("rx"), count("tx"));
        facts.add("network", &format!("{name} queues"), Some(text), "");
        let link = std::fs::read_link(facts.root.join(base.trim_start_matches('/')).join("device/driver"));
        let driver = link.ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
        facts.add("network", &format!("{name} driver"), driver, "no device behind it");
        for file in ["rx-0/rps_cpus", "tx-0/xps_cpus"] {
            facts.add_file("network", &format!("{name} {file}"), &format!("{base}/queues/{file}"));
        }
    }
}

fn limits(facts: &mut Facts<'_>) {
    for line in facts.lines("/proc/self/limits").into_iter().skip(1) {
        // Columns are separated by two blanks or more.
        let columns: Vec<&str> = line.split("  ").map(str::trim).filter(|column| !column.is_empty()).collect();
        if let [name, soft, hard, unit @ ..] = columns.as_slice() {
            let unit = unit.first().copied().unwrap_or_default();
            facts.add("limits", name, Some(format!("{soft} soft, {hard} hard")), unit);
        }
    }
    facts.add_file("cgroup", "of this process", "/proc/self/cgroup");
    for file in ["cpu.max", "cpuset.cpus.effective", "memory.max", "memory.high", "io.max"] {
        facts.add_file("cgroup", file, &format!("/sys/fs/cgroup/{file}"));
    }
    facts.add_file("pressure", "cpu", "/proc/pressure/cpu");
    facts.add_file("pressure", "io", "/proc/pressure/io");
    facts.add_file("pressure", "memory", "/proc/pressure/memory");
}
