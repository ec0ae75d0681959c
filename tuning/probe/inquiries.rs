//! Questions about a host whose answer is not simply the content of one file.

use super::{DataDirectory, Host, System, format_list};
use crate::catalogue::Inquiry;

/// What a ballast file must really take.
const BALLAST_BYTES: u64 = 1 << 30;

/// What came out of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The state, in the words that the catalogue compares with.
    Is(String),
    /// The question means nothing here, and why.
    Unsupported(String),
}

fn is(text: impl Into<String>) -> Answer {
    Answer::Is(text.into())
}

fn unsupported(reason: impl Into<String>) -> Answer {
    Answer::Unsupported(reason.into())
}

/// Asks one question; one about a data directory needs one ([`Inquiry::is_of_directory`]).
pub fn ask(system: &dyn System, host: &Host, directory: Option<&DataDirectory>, inquiry: Inquiry) -> Answer {
    let of_directory = |answer: &dyn Fn(&DataDirectory) -> Answer| {
        directory.map_or_else(|| unsupported("no data directory was named"), answer)
    };
    match inquiry {
        Inquiry::Swap => swap(system),
        Inquiry::NumaPlacement => match system.read(&format!("{}/status", host.subject())) {
            Ok(text) => {
                is(status_field(&text, "Mems_allowed_list").map_or("all nodes".into(), |list| format!("nodes {list}")))
            }
            Err(_) => unsupported("the kernel does not say"),
        },
        Inquiry::Irqbalance => is(if is_running(system, "irqbalance") { "running" } else { "not running" }),
        Inquiry::DiskIrqs => match host.disks.iter().find(|disk| disk.name.starts_with("nvme")) {
            Some(disk) => is(format!("managed ({})", disk.name)),
            None => unsupported("no NVMe disk"),
        },
        Inquiry::MountDiscard => of_directory(&|directory| {
            let options = &directory.mount.options;
            is(if options.iter().any(|option| option == "discard" || option == "discard=async") { "on" } else { "off" })
        }),
        Inquiry::MountAtime => of_directory(&|directory| {
            let known = ["noatime", "relatime", "strictatime"];
            let has = |name: &&str| directory.mount.options.iter().any(|option| option == name);
            is(known.into_iter().find(has).unwrap_or("strictatime"))
        }),
        Inquiry::FileSystem => of_directory(&|directory| is(directory.mount.file_system.clone())),
        Inquiry::Ballast => of_directory(&|directory| {
            let path = format!("{}/ballast", directory.path.trim_end_matches('/'));
            is(ballast(system.exists(&path).then(|| system.size_of(&path).unwrap_or_default())))
        }),
        Inquiry::FreeSpaceGib => of_directory(&|directory| match system.free_bytes(&directory.path) {
            Some(bytes) => is((bytes >> 30).to_string()),
            None => unsupported("the file system does not say"),
        }),
        Inquiry::DataDirectory => of_directory(&|directory| data_directory(system, &directory.path)),
        Inquiry::OpenFilesLimit => limit(system, host, "Max open files"),
        Inquiry::LockedMemoryLimit => limit(system, host, "Max locked memory"),
        Inquiry::OomScoreAdjust => file(system, &format!("{}/oom_score_adj", host.subject())),
        Inquiry::CpuQuota => cpu_quota(system, host),
        Inquiry::MemoryHigh => memory_bound(system, host, "memory.high"),
        Inquiry::MemoryMax => memory_bound(system, host, "memory.max"),
        Inquiry::Cpuset => is(format_list(&host.topology.allowed)),
        Inquiry::IoMax => match group_file(system, host, "io.max") {
            Some(text) if !text.trim().is_empty() => is(text.trim().replace('\n', "; ")),
            Some(_) => is("none"),
            None => unsupported("no control group of version 2 with the io controller"),
        },
        Inquiry::IoWeight => match group_file(system, host, "io.weight") {
            Some(text) => is(text.trim().replace('\n', "; ")),
            None => unsupported("no control group of version 2 with the io controller"),
        },
        Inquiry::IoUring => match system.try_io_uring() {
            Ok(()) => is("available"),
            Err(error) => is(match error.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => "forbidden".into(),
                Some(libc::ENOSYS) => "not in this kernel".into(),
                _ => format!("refused: {error}"),
            }),
        },
        Inquiry::MapCount => map_count(system),
        Inquiry::DmaLatencyDevice => {
            if system.list("/sys/devices/system/cpu/cpu0/cpuidle").is_empty() {
                return unsupported("the processors have no idle states to forbid");
            }
            is(if system.exists("/dev/cpu_dma_latency") { "available" } else { "absent" })
        }
        Inquiry::Smt => is(if host.topology.has_siblings() { "on" } else { "off" }),
        Inquiry::IsolatedCpus => match system.read("/sys/devices/system/cpu/isolated") {
            Ok(text) if !text.trim().is_empty() => is(text.trim()),
            Ok(_) => is("none"),
            Err(_) => unsupported("the kernel does not say"),
        },
        Inquiry::Mitigations => mitigations(system),
        Inquiry::TimeSynchronised => {
            if system.exists("/run/systemd/timesync/synchronized") {
                return is("yes");
            }
            let daemons = ["chronyd", "ntpd", "systemd-timesyn", "ptp4l"];
            is(if daemons.iter().any(|name| is_running(system, name)) { "yes" } else { "no" })
        }
    }
}

fn file(system: &dyn System, path: &str) -> Answer {
    system.read(path).map_or_else(|_| unsupported(format!("{path} does not exist")), |text| is(text.trim()))
}

fn swap(system: &dyn System) -> Answer {
    let text = system.read("/proc/swaps").unwrap_or_default();
    let areas: Vec<&str> = text.lines().skip(1).filter(|line| !line.trim().is_empty()).collect();
    let kib: u64 = areas.iter().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum();
    if areas.is_empty() { is("none") } else { is(format!("{} MiB", kib / 1024)) }
}

fn status_field<'text>(text: &'text str, name: &str) -> Option<&'text str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Whether a process has this name, by the kernel's 15 bytes of it.
fn is_running(system: &dyn System, name: &str) -> bool {
    let processes = system.list("/proc").into_iter().filter(|entry| entry.bytes().all(|byte| byte.is_ascii_digit()));
    processes.into_iter().any(|id| system.read(&format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim() == name))
}

/// A file that takes no room gives none back: length and allocated bytes, if there is one.
fn ballast(found: Option<(u64, u64)>) -> String {
    match found {
        None => "absent".into(),
        Some((length, allocated)) if length.min(allocated) >= BALLAST_BYTES => "present".into(),
        Some((_, allocated)) => format!("{} MiB only", allocated >> 20),
    }
}

fn data_directory(system: &dyn System, path: &str) -> Answer {
    let existing = std::path::Path::new(path).ancestors().find_map(|level| {
        let level = level.to_str()?;
        system.exists(level).then(|| level.to_string())
    });
    match existing.map(|level| system.access(&level)) {
        Some(super::Access::Writable) => is("writable"),
        Some(super::Access::ReadOnly) => is("read-only"),
        Some(super::Access::Forbidden) => is("not writable for this user"),
        Some(super::Access::Missing) | None => is("missing"),
    }
}

/// The hard limit, which the broker raises its own to.
fn limit(system: &dyn System, host: &Host, name: &str) -> Answer {
    let text = system.read(&format!("{}/limits", host.subject())).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    match line.and_then(|rest| rest.split_whitespace().nth(1)) {
        Some(hard) => is(hard),
        None => unsupported(format!("{}/limits does not say", host.subject())),
    }
}

/// Folders of the broker's control group of version 2, from its own up to the root.
fn groups(system: &dyn System, host: &Host) -> Vec<String> {
    let text = system.read(&format!("{}/cgroup", host.subject())).unwrap_or_default();
    let Some(own) = text.lines().find_map(|line| line.strip_prefix("0::")) else { return Vec::new() };
    let mounted = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .find(|root| system.exists(&format!("{root}/cgroup.controllers")));
    let Some(root) = mounted else { return Vec::new() };
    let levels = std::path::Path::new(own).ancestors().filter_map(|level| level.to_str());
    levels.map(|level| format!("{root}{}", level.trim_end_matches('/'))).collect()
}

fn group_file(system: &dyn System, host: &Host, name: &str) -> Option<String> {
    groups(system, host).iter().find_map(|group| system.read(&format!("{group}/{name}")).ok())
}

/// The tightest quota of all levels, of either version of control groups.
fn cpu_quota(system: &dyn System, host: &Host) -> Answer {
    for group in groups(system, host) {
        if let Ok(text) = system.read(&format!("{group}/cpu.max"))
            && let Some((quota, period)) = text.trim().split_once(' ')
            && quota != "max"
        {
            return is(format!("{quota} of {period} us"));
        }
    }
    match system.read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") {
        Ok(text) if text.trim() != "-1" => is(format!("{} us", text.trim())),
        _ => is("none"),
    }
}

fn memory_bound(system: &dyn System, host: &Host, name: &str) -> Answer {
    let own = groups(system, host);
    let values = own.iter().filter_map(|group| system.read(&format!("{group}/{name}")).ok());
    let least = values.filter_map(|text| text.trim().parse::<u64>().ok()).min();
    is(least.map_or("none".into(), |bytes| format!("{} MiB", bytes >> 20)))
}

/// How much of the allowed mappings the broker that uses most of them has.
fn map_count(system: &dyn System) -> Answer {
    let limit = system.read("/proc/sys/vm/max_map_count").ok().and_then(|text| text.trim().parse::<usize>().ok());
    let Some(limit) = limit.filter(|limit| *limit > 0) else { return unsupported("the kernel does not say") };
    let brokers = brokers(system);
    let count = |id: &usize| Some(system.read(&format!("/proc/{id}/maps")).ok()?.lines().count());
    match brokers.iter().filter_map(count).max() {
        Some(most) => is(format!("{} %", most.saturating_mul(100).div_ceil(limit))),
        None if brokers.is_empty() => unsupported("no broker is running"),
        None => unsupported("only root may count a broker's mappings"),
    }
}

/// Numbers of the processes that are brokers.
pub fn brokers(system: &dyn System) -> Vec<usize> {
    let is_broker = |id: &usize| {
        let read = |file: &str| system.read(&format!("/proc/{id}/{file}")).unwrap_or_default();
        read("comm").trim() == "ringmq" && read("cmdline").split('\0').nth(1) == Some("start")
    };
    system.list("/proc").iter().filter_map(|entry| entry.parse().ok()).filter(is_broker).collect()
}

fn mitigations(system: &dyn System) -> Answer {
    let command_line = system.read("/proc/cmdline").unwrap_or_default();
    if command_line.split_whitespace().any(|word| word == "mitigations=off") {
        return is("off");
    }
    let folder = "/sys/devices/system/cpu/vulnerabilities";
    let states: Vec<String> =
        system.list(folder).iter().filter_map(|name| system.read(&format!("{folder}/{name}")).ok()).collect();
    if states.is_empty() {
        return unsupported("the kernel does not say");
    }
    let open = states.iter().filter(|state| state.starts_with("Vulnerable")).count();
    let closed = states.iter().filter(|state| state.starts_with("Mitigation")).count();
    is(format!("{closed} on, {open} open"))
}
