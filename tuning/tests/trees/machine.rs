//! Builds folders that look like machines to the engine.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::kernel::Rule;

/// A folder that stands for a machine, and how its kernel takes writes.
pub struct Machine {
    pub name: &'static str,
    folder: TempDir,
    pub rules: BTreeMap<String, Rule>,
    pub listen: &'static str,
    pub directory: &'static str,
}

/// Shape of a processor.
struct Shape {
    nodes: usize,
    cores_per_node: usize,
    threads: usize,
}

const SYSCTLS: &[(&str, &str)] = &[
    ("vm/swappiness", "60"),
    ("vm/dirty_background_bytes", "0"),
    ("vm/dirty_background_ratio", "10"),
    ("vm/dirty_bytes", "0"),
    ("vm/dirty_ratio", "20"),
    ("vm/dirty_writeback_centisecs", "500"),
    ("vm/dirty_expire_centisecs", "3000"),
    ("vm/max_map_count", "65530"),
    ("vm/min_free_kbytes", "67584"),
    ("vm/watermark_scale_factor", "10"),
    ("vm/zone_reclaim_mode", "0"),
    ("vm/overcommit_memory", "0"),
    ("vm/page-cluster", "3"),
    ("vm/compaction_proactiveness", "20"),
    ("vm/stat_interval", "1"),
    ("kernel/numa_balancing", "1"),
    ("kernel/timer_migration", "1"),
    ("kernel/watchdog", "1"),
    ("kernel/nmi_watchdog", "1"),
    ("kernel/sched_autogroup_enabled", "1"),
    ("kernel/io_uring_disabled", "0"),
    ("kernel/random/boot_id", "11111111-2222-3333-4444-555555555555"),
    ("net/core/somaxconn", "4096"),
    ("net/core/netdev_max_backlog", "1000"),
    ("net/core/netdev_budget", "300"),
    ("net/core/netdev_budget_usecs", "8000"),
    ("net/core/rmem_max", "212992"),
    ("net/core/wmem_max", "212992"),
    ("net/core/default_qdisc", "pfifo_fast"),
    ("net/core/busy_poll", "0"),
    ("net/core/busy_read", "0"),
    ("net/core/rps_sock_flow_entries", "0"),
    ("net/ipv4/tcp_max_syn_backlog", "1024"),
    ("net/ipv4/tcp_rmem", "4096\t131072\t6291456"),
    ("net/ipv4/tcp_wmem", "4096\t16384\t4194304"),
    ("net/ipv4/tcp_notsent_lowat", "4294967295"),
    ("net/ipv4/tcp_mem", "190000\t250000\t380000"),
    ("net/ipv4/tcp_autocorking", "1"),
    ("net/ipv4/tcp_slow_start_after_idle", "1"),
    ("net/ipv4/tcp_congestion_control", "cubic"),
    ("fs/file-max", "9223372036854775807"),
];

impl Machine {
    fn new(name: &'static str, shape: &Shape, memory_gib: u64) -> Machine {
        // Memory, where there is some: thousands of synced lines are no load for a disk to carry.
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("ringmq-tune-").tempdir_in(place).expect("a folder");
        let mut machine =
            Machine { name, folder, rules: BTreeMap::new(), listen: "0.0.0.0", directory: "/data/ringmq" };
        for (path, value) in SYSCTLS {
            machine.put(&format!("/proc/sys/{path}"), value);
        }
        for (bytes, ratio) in [("dirty_bytes", "dirty_ratio"), ("dirty_background_bytes", "dirty_background_ratio")] {
            let path = |name: &str| format!("/proc/sys/vm/{name}");
            machine.rules.insert(path(bytes), Rule::ZeroesOther(path(ratio)));
            machine.rules.insert(path(ratio), Rule::ZeroesOther(path(bytes)));
        }
        machine.put("/proc/meminfo", &format!("MemTotal:       {} kB", memory_gib << 20));
        machine.put("/proc/cmdline", "root=/dev/x quiet");
        machine.put("/proc/swaps", "Filename Type Size Used Priority");
        machine.put("/proc/self/cgroup", "0::/system.slice/ringmq.service");
        machine.put("/proc/self/oom_score_adj", "0");
        let limits = "Limit  Soft  Hard  Units\nMax open files  1024  524288  files\n\
                      Max locked memory  8388608  8388608  bytes";
        machine.put("/proc/self/limits", limits);
        machine.put("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids");
        machine.put("/sys/fs/cgroup/system.slice/ringmq.service/cpu.max", "max 100000");
        machine.put("/sys/fs/cgroup/system.slice/ringmq.service/memory.max", "max");
        machine.put("/sys/fs/cgroup/system.slice/ringmq.service/memory.high", "max");
        machine.put("/sys/fs/cgroup/system.slice/ringmq.service/io.max", "");
        machine.choice("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never");
        machine.choice("/sys/kernel/mm/transparent_hugepage/defrag", "always defer defer+madvise [madvise] never");
        machine.put("/sys/kernel/mm/transparent_hugepage/khugepaged/defrag", "1");
        machine.put("/sys/kernel/mm/ksm/run", "0");
        machine.put("/sys/devices/system/cpu/isolated", "");
        machine.put("/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc");
        machine.put("/sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet acpi_pm");
        machine.put("/fake-root/free-bytes", "107374182400");
        machine.folder_at("/var/lib");
        machine.folder_at("/etc/systemd/system");
        machine.folder_at("/data/ringmq");
        machine.processors(shape);
        machine
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    fn below(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    pub fn put(&self, path: &str, text: &str) {
        let path = self.below(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("folders");
        fs::write(path, format!("{text}\n")).expect("a file");
    }

    pub fn text(&self, path: &str) -> String {
        fs::read_to_string(self.below(path)).expect("text")
    }

    fn folder_at(&self, path: &str) {
        fs::create_dir_all(self.below(path)).expect("folders");
    }

    fn link(&self, path: &str, target: &str) {
        let depth = path.trim_matches('/').split('/').count() - 1;
        let path = self.below(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("folders");
        symlink(format!("{}{}", "../".repeat(depth), target.trim_start_matches('/')), path).expect("a link");
    }

    /// A file that shows all words with the chosen one in brackets.
    fn choice(&mut self, path: &str, text: &str) {
        self.put(path, text);
        let words = text.split(' ').map(|word| word.trim_matches(['[', ']']).to_string()).collect();
        self.rules.insert(path.into(), Rule::Choice(words));
    }

    fn processors(&self, shape: &Shape) {
        let cores = shape.nodes * shape.cores_per_node;
        let total = cores * shape.threads;
        self.put("/sys/devices/system/cpu/online", &format!("0-{}", total - 1));
        self.put("/proc/self/status", &format!("Cpus_allowed_list:\t0-{}\nMems_allowed_list:\t0", total - 1));
        for id in 0..total {
            let siblings: Vec<String> =
                (0..shape.threads).map(|thread| (id % cores + thread * cores).to_string()).collect();
            self.put(&format!("/sys/devices/system/cpu/cpu{id}/topology/thread_siblings_list"), &siblings.join(","));
        }
        for node in 0..shape.nodes {
            let first = node * shape.cores_per_node;
            let parts: Vec<String> = (0..shape.threads)
                .map(|thread| first + thread * cores)
                .map(|start| format!("{start}-{}", start + shape.cores_per_node - 1))
                .collect();
            self.put(&format!("/sys/devices/system/node/node{node}/cpulist"), &parts.join(","));
        }
    }

    fn governors(&self, count: usize) {
        for id in 0..count {
            self.put(&format!("/sys/devices/system/cpu/cpu{id}/cpufreq/scaling_governor"), "schedutil");
        }
    }

    /// A disk with one partition that carries the data directory.
    fn disk(&mut self, name: &str, device: &str, partition: &str, numbers: &str, queue: &[(&str, &str)]) {
        let folder = format!("{device}/block/{name}");
        self.put(&format!("{folder}/{partition}/partition"), "1");
        for (file, value) in [("nr_requests", "256"), ("add_random", "0"), ("iostats", "1"), ("io_poll", "0")] {
            self.put(&format!("{folder}/queue/{file}"), value);
        }
        for (file, value) in queue {
            self.put(&format!("{folder}/queue/{file}"), value);
        }
        self.link(&format!("/sys/block/{name}"), &folder);
        self.link(&format!("/sys/dev/block/{numbers}"), &format!("{folder}/{partition}"));
        let line = |number: usize, numbers: &str, point: &str, kind: &str, source: &str| {
            format!("{number} 1 {numbers} / {point} rw,relatime - {kind} {source} rw")
        };
        let mounts =
            [line(1, "0:1", "/", "overlay", "overlay"), line(2, numbers, "/data", "xfs", &format!("/dev/{partition}"))];
        self.put("/proc/self/mountinfo", &mounts.join("\n"));
        // The engine names the file by its place below /sys/block; a choice is known by where the link leads.
        if let Some((_, text)) = queue.iter().find(|(file, _)| *file == "scheduler") {
            let path = format!("/sys/block/{name}/queue/scheduler");
            let words = text.split(' ').map(|word| word.trim_matches(['[', ']']).to_string()).collect();
            self.rules.insert(path, Rule::Choice(words));
        }
    }

    /// A card with queues; `vector` names the interrupt of a queue.
    fn card(&self, name: &str, device: &str, vectors_at: &str, queues: usize, vectors: &[String], masks: &str) {
        let folder = format!("{device}/net/{name}");
        for queue in 0..queues {
            self.put(&format!("{folder}/queues/rx-{queue}/rps_cpus"), masks);
            self.put(&format!("{folder}/queues/rx-{queue}/rps_flow_cnt"), "0");
            self.put(&format!("{folder}/queues/tx-{queue}/xps_cpus"), masks);
        }
        self.put(&format!("{folder}/napi_defer_hard_irqs"), "0");
        self.put(&format!("{folder}/gro_flush_timeout"), "0");
        self.link(&format!("/sys/class/net/{name}"), &folder);
        self.link(&format!("{folder}/device"), device);
        let mut table = String::from("           CPU0\n");
        for (index, vector) in vectors.iter().enumerate() {
            let number = 40 + index;
            self.put(&format!("{vectors_at}/msi_irqs/{number}"), "msix");
            self.put(&format!("/proc/irq/{number}/smp_affinity_list"), "0-1");
            let _ = writeln!(table, " {number}:   1   PCI-MSIX  {index}-edge  {vector}");
        }
        self.put("/proc/interrupts", table.trim_end());
    }

    fn card_setting(&self, card: &str, setting: &str, value: &str) {
        self.put(&format!("/fake-root/cards/{card}/{setting}"), value);
    }

    /// Two processors, virtio disk and card with one queue, 4 GiB.
    pub fn small_virtual() -> Machine {
        let mut machine = Machine::new("small-virtual", &Shape { nodes: 1, cores_per_node: 2, threads: 1 }, 4);
        machine.put("/proc/cpuinfo", "flags\t\t: fpu hypervisor");
        machine.disk(
            "vda",
            "/sys/devices/pci0000:00/0000:00:02.0/virtio1",
            "vda1",
            "254:1",
            &[
                ("scheduler", "none [mq-deadline] kyber bfq"),
                ("rotational", "1"),
                ("nomerges", "0"),
                ("read_ahead_kb", "8192"),
                ("write_cache", "write back"),
                ("wbt_lat_usec", "75000"),
                ("rq_affinity", "1"),
                ("fua", "0"),
            ],
        );
        let vectors = ["virtio0-config", "virtio0-input.0", "virtio0-output.0"].map(String::from);
        let device = "/sys/devices/pci0000:00/0000:00:03.0";
        machine.card("eth0", &format!("{device}/virtio0"), device, 1, &vectors, "0");
        for (setting, value) in
            [("combined-channels", "1"), ("combined-channels.max", "1"), ("gro", "on"), ("lro", "on")]
        {
            machine.card_setting("eth0", setting, value);
        }
        machine.put("/sys/devices/system/cpu/cpuidle/current_governor", "haltpoll");
        machine.put("/sys/module/haltpoll/parameters/guest_halt_poll_ns", "0");
        machine
    }

    /// Two sockets of 32 cores, NVMe, a card with 16 queues on the second socket, 256 GiB.
    pub fn large() -> Machine {
        let mut machine = Machine::new("large", &Shape { nodes: 2, cores_per_node: 32, threads: 1 }, 256);
        machine.put("/sys/class/dmi/id/sys_vendor", "Example Servers");
        machine.put("/proc/4242/comm", "irqbalance");
        machine.governors(64);
        machine.put("/sys/devices/system/cpu/cpufreq/boost", "1");
        machine.disk(
            "nvme0n1",
            "/sys/devices/pci0000:10/0000:10:00.0/nvme/nvme0",
            "nvme0n1p1",
            "259:1",
            &[
                ("scheduler", "[none] mq-deadline kyber"),
                ("rotational", "0"),
                ("nomerges", "0"),
                ("read_ahead_kb", "128"),
                ("write_cache", "write back"),
                ("wbt_lat_usec", "2000"),
                ("rq_affinity", "1"),
                ("fua", "1"),
            ],
        );
        let mut vectors: Vec<String> = vec!["mlx5_async0@pci:0000:81:00.0".into()];
        vectors.extend((0..16).map(|queue| format!("mlx5_comp{queue}@pci:0000:81:00.0")));
        let device = "/sys/devices/pci0000:80/0000:81:00.0";
        machine.card("ens1", device, device, 16, &vectors, "00000000,00000000");
        machine.put(&format!("{device}/numa_node"), "1");
        for (setting, value) in [
            ("combined-channels", "16"),
            ("combined-channels.max", "63"),
            ("rx-ring", "4096"),
            ("rx-ring.max", "8192"),
            ("tx-ring", "1024"),
            ("tx-ring.max", "8192"),
            ("adaptive-rx", "on"),
            ("rx-usecs", "32"),
            ("gro", "on"),
            ("tso", "on"),
            ("gso", "on"),
            ("lro", "off"),
            ("pause-rx", "on"),
            ("pause-tx", "on"),
            ("ntuple", "off"),
            ("ntuple.fixed", ""),
        ] {
            machine.card_setting("ens1", setting, value);
        }
        machine
    }

    /// One more card, with nothing but a place.
    pub fn second_card(&self, name: &str) {
        let device = "/sys/devices/pci0000:80/0000:82:00.0";
        self.put(&format!("{device}/net/{name}/queues/rx-0/rps_cpus"), "0");
        self.link(&format!("/sys/class/net/{name}"), &format!("{device}/net/{name}"));
        self.link(&format!("{device}/net/{name}/device"), device);
    }

    /// Eight cores and a card with one queue that can have eight, and gets them when it is told.
    pub fn growing() -> Machine {
        let mut machine = Machine::new("growing", &Shape { nodes: 1, cores_per_node: 8, threads: 1 }, 16);
        let queue =
            [("scheduler", "[none] mq-deadline"), ("rotational", "0"), ("nomerges", "0"), ("read_ahead_kb", "128")];
        machine.disk("nvme0n1", "/sys/devices/pci0000:10/0000:10:00.0/nvme/nvme0", "nvme0n1p1", "259:1", &queue);
        let device = "/sys/devices/pci0000:00/0000:00:05.0";
        machine.card("eth0", device, device, 1, &["eth0-TxRx-0".to_string()], "0");
        for (setting, value) in [("combined-channels", "1"), ("combined-channels.max", "8"), ("rx-usecs", "0")] {
            machine.card_setting("eth0", setting, value);
        }
        machine.rules.insert("card:eth0".into(), Rule::Queues);
        machine
    }

    /// The small machine with its data on a logical volume of the disk.
    pub fn stacked() -> Machine {
        let mut machine = Machine::small_virtual();
        machine.name = "stacked";
        let volume = "/sys/devices/virtual/block/dm-0";
        machine.put(&format!("{volume}/queue/read_ahead_kb"), "8192");
        machine.put(&format!("{volume}/queue/rotational"), "1");
        machine.link(&format!("{volume}/slaves/vda1"), "/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/vda1");
        machine.link("/sys/block/dm-0", volume);
        machine.link("/sys/dev/block/252:0", volume);
        machine.put("/proc/self/mountinfo", "2 1 252:0 / /data rw,relatime - xfs /dev/mapper/data rw");
        machine
    }

    /// Four ARM cores, an SSD behind SATA, one card with four queues.
    pub fn arm() -> Machine {
        let mut machine = Machine::new("arm", &Shape { nodes: 1, cores_per_node: 4, threads: 1 }, 8);
        machine.put("/proc/cpuinfo", "Features\t: fp asimd evtstrm aes");
        machine.put("/sys/devices/system/clocksource/clocksource0/current_clocksource", "arch_sys_counter");
        machine.put("/sys/devices/system/clocksource/clocksource0/available_clocksource", "arch_sys_counter");
        machine.governors(4);
        machine.disk(
            "sda",
            "/sys/devices/platform/soc/ata1/host0",
            "sda1",
            "8:1",
            &[
                ("scheduler", "none [mq-deadline]"),
                ("rotational", "1"),
                ("nomerges", "0"),
                ("read_ahead_kb", "128"),
                ("write_cache", "write back"),
                ("rq_affinity", "1"),
                ("fua", "0"),
            ],
        );
        let vectors: Vec<String> = (0..4).map(|queue| format!("eth0-TxRx-{queue}")).collect();
        let device = "/sys/devices/platform/soc/30be0000.ethernet";
        machine.card("eth0", device, device, 4, &vectors, "0");
        machine.listen = "192.0.2.7";
        let route = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                     eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF";
        machine.put("/proc/net/route", route);
        machine
    }

    /// A container on the small machine: what the kernel shows there is read-only, half of it is missing.
    pub fn container() -> Machine {
        let mut machine = Machine::small_virtual();
        machine.name = "container";
        machine.put("/.dockerenv", "");
        machine.put("/sys/fs/cgroup/system.slice/ringmq.service/cpu.max", "150000 100000");
        fs::remove_dir_all(machine.below("/proc/sys/net/core")).expect("was there");
        machine.put("/proc/sys/net/core/somaxconn", "4096");
        fs::remove_dir_all(machine.below("/fake-root/cards")).expect("was there");
        machine.lock(&machine.below("/proc/sys"));
        machine.lock(&machine.below("/sys"));
        machine.lock(&machine.below("/proc/irq"));
        machine
    }

    fn lock(&self, folder: &Path) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                self.lock(&path);
            } else {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("a mode");
            }
        }
    }

    /// A kernel that takes less than it is told.
    pub fn clamping() -> Machine {
        let mut machine = Machine::small_virtual();
        machine.name = "clamping";
        machine.rules.insert("/proc/sys/vm/watermark_scale_factor".into(), Rule::AtMost(100));
        machine.rules.insert("/proc/sys/vm/stat_interval".into(), Rule::AtMost(5));
        machine
    }

    /// A kernel that sets one value when another is written, as Linux 6.18 does: whatever is written to add_random, the
    /// read-ahead is the default one again.
    pub fn moving() -> Machine {
        let mut machine = Machine::small_virtual();
        machine.name = "moving";
        let queue = |file: &str| format!("/sys/block/vda/queue/{file}");
        machine.put(&queue("add_random"), "1");
        machine.put(&queue("read_ahead_kb"), "512");
        machine.rules.insert(queue("add_random"), Rule::Moves(queue("read_ahead_kb"), "8192".into()));
        machine
    }

    /// A kernel that takes writes without an error and does nothing, and one setting that it refuses.
    pub fn ignoring() -> Machine {
        let mut machine = Machine::small_virtual();
        machine.name = "ignoring";
        machine.rules.insert("/proc/sys/vm/swappiness".into(), Rule::Ignores("60".into()));
        machine.rules.insert("/proc/irq/41/smp_affinity_list".into(), Rule::Refuses("0-1".into()));
        machine
    }

    /// All of them.
    pub fn all() -> Vec<Machine> {
        vec![
            Machine::small_virtual(),
            Machine::large(),
            Machine::arm(),
            Machine::container(),
            Machine::clamping(),
            Machine::ignoring(),
        ]
    }

    /// Every path below the root with what is there: a folder, a link's target, or content.
    pub fn snapshot(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        collect(self.root(), self.root(), &mut found);
        found
    }
}

fn collect(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.strip_prefix(root).expect("below").display().to_string();
        if path.is_symlink() {
            found.insert(name, format!("link {}", fs::read_link(&path).expect("a link").display()));
        } else if path.is_dir() {
            found.insert(name, "folder".into());
            collect(root, &path, found);
        } else {
            found.insert(name, format!("file {}", fs::read_to_string(&path).expect("text")));
        }
    }
}
