//! What a process costs, from `/proc` and, where the kernel permits it, from its performance counters.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Counters of a process at one moment. `None`: not readable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all threads that live.
    pub cpu_ns: Option<u64>,
    /// Voluntary context switches of all threads.
    pub voluntary_switches: Option<u64>,
    /// Involuntary ones.
    pub involuntary_switches: Option<u64>,
    /// Bytes sent to the block layer.
    pub written_bytes: Option<u64>,
    /// Instructions in user space since the counters were attached.
    pub instructions: Option<u64>,
    /// System calls since the counters were attached.
    pub syscalls: Option<u64>,
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// Of those, anonymous.
    pub resident_anonymous_bytes: Option<u64>,
}

/// Watches one process.
#[derive(Debug)]
pub struct ProcessMeter {
    pid: u32,
    instructions: Vec<OwnedFd>,
    syscalls: Vec<OwnedFd>,
    syscalls_absent: String,
}

/// `perf_event_attr` up to the fields in use, as `PERF_ATTR_SIZE_VER0` defines it.
#[repr(C)]
#[derive(Default)]
struct PerfAttributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    breakpoint_kind: u32,
    config1: u64,
}

const PERF_HARDWARE: u32 = 0;
const PERF_TRACEPOINT: u32 = 2;
const PERF_COUNT_INSTRUCTIONS: u64 = 1;
/// Bits of `flags`: count children too; not the kernel; not the hypervisor.
const PERF_INHERIT: u64 = 1 << 1;
const PERF_EXCLUDE_KERNEL: u64 = 1 << 5;
const PERF_EXCLUDE_HYPERVISOR: u64 = 1 << 6;
const PERF_CLOSE_ON_EXEC: u64 = 8;

fn open_counter(thread: i32, kind: u32, config: u64, flags: u64) -> io::Result<OwnedFd> {
    let size = u32::try_from(size_of::<PerfAttributes>()).unwrap_or(0);
    let attributes = PerfAttributes { kind, size, config, flags, ..PerfAttributes::default() };
    // SAFETY: the attributes are alive and say their own size; the other arguments are plain numbers.
    let raw = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attributes, thread, -1_i32, -1_i32, PERF_CLOSE_ON_EXEC)
    };
    let raw = i32::try_from(raw).unwrap_or(-1);
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn read_counter(descriptor: &OwnedFd) -> Option<u64> {
    let mut bytes = [0_u8; 8];
    // SAFETY: the kernel writes at most 8 bytes into the array.
    let count = unsafe { libc::read(descriptor.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
    (count == 8).then(|| u64::from_ne_bytes(bytes))
}

fn sum(counters: &[OwnedFd]) -> Option<u64> {
    if counters.is_empty() { None } else { counters.iter().map(read_counter).sum() }
}

fn threads(pid: u32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Where the kernel shows its tracepoints.
const TRACE_FOLDERS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Counters of the system calls of some threads; otherwise why there are none.
fn count_syscalls(threads: &[i32], folders: &[&str]) -> Result<Vec<OwnedFd>, String> {
    const NAME: &str = "events/raw_syscalls/sys_enter/id";
    let texts = folders.iter().filter_map(|folder| fs::read_to_string(format!("{folder}/{NAME}")).ok());
    let number = texts.filter_map(|text| text.trim().parse::<u64>().ok()).next();
    let number = number.ok_or(
        "the tracepoint raw_syscalls/sys_enter cannot be read (is tracefs mounted, and may this user read it?)",
    )?;
    if threads.is_empty() {
        return Err("the broker's threads cannot be seen".to_owned());
    }
    let counters = threads.iter().map(|thread| open_counter(*thread, PERF_TRACEPOINT, number, PERF_INHERIT));
    counters
        .collect::<io::Result<_>>()
        .map_err(|error| format!("the kernel does not let this user count the broker's system calls: {error}"))
}

impl ProcessMeter {
    /// Attaches to a process. Counting system calls slows each of them down a little, so it is asked for.
    pub fn attach(pid: u32, with_syscalls: bool) -> ProcessMeter {
        let mut meter =
            ProcessMeter { pid, instructions: Vec::new(), syscalls: Vec::new(), syscalls_absent: String::new() };
        let threads = threads(pid);
        let user_only = PERF_INHERIT | PERF_EXCLUDE_KERNEL | PERF_EXCLUDE_HYPERVISOR;
        let instructions =
            threads.iter().map(|thread| open_counter(*thread, PERF_HARDWARE, PERF_COUNT_INSTRUCTIONS, user_only));
        meter.instructions = instructions.collect::<io::Result<_>>().unwrap_or_default();
        if with_syscalls {
            match count_syscalls(&threads, &TRACE_FOLDERS) {
                Ok(counters) => meter.syscalls = counters,
                Err(reason) => meter.syscalls_absent = reason,
            }
        }
        meter
    }

    /// Why system calls are not counted although that was asked for; empty: they are.
    pub fn syscalls_absent(&self) -> &str {
        &self.syscalls_absent
    }

    /// Which process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where the counters stand.
    pub fn read(&self) -> Usage {
        let mut usage =
            Usage { instructions: sum(&self.instructions), syscalls: sum(&self.syscalls), ..Usage::default() };
        let mut add = |name: fn(&mut Usage) -> &mut Option<u64>, value: Option<u64>| {
            if let Some(value) = value {
                *name(&mut usage).get_or_insert(0) += value;
            }
        };
        for thread in threads(self.pid) {
            let folder = format!("/proc/{}/task/{thread}", self.pid);
            let schedule = fs::read_to_string(format!("{folder}/schedstat")).unwrap_or_default();
            let cpu_ns = schedule.split_whitespace().next().and_then(|text| text.parse().ok());
            add(|usage| &mut usage.cpu_ns, cpu_ns);
            let status = fs::read_to_string(format!("{folder}/status")).unwrap_or_default();
            add(|usage| &mut usage.voluntary_switches, field(&status, "voluntary_ctxt_switches:"));
            add(|usage| &mut usage.involuntary_switches, field(&status, "nonvoluntary_ctxt_switches:"));
        }
        let io = fs::read_to_string(format!("/proc/{}/io", self.pid)).unwrap_or_default();
        usage.written_bytes = field(&io, "write_bytes:");
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        usage.resident_bytes = field(&status, "VmRSS:").map(|kib| kib * 1024);
        usage.resident_anonymous_bytes = field(&status, "RssAnon:").map(|kib| kib * 1024);
        usage
    }
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// CPU time of the whole machine in ticks: all of it, and what the hypervisor took.
pub fn steal_ticks() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    // user, nice, system, idle, iowait, irq, softirq, steal; guest times are contained in the first two.
    let ticks: Vec<u64> = line.split_whitespace().take(8).filter_map(|text| text.parse().ok()).collect();
    Some((ticks.iter().sum(), *ticks.get(7)?))
}

/// Whether this is a virtual machine, as its processor says; `None`: it does not say.
pub fn is_virtual_machine() -> Option<bool> {
    is_virtual(&fs::read_to_string("/proc/cpuinfo").ok()?)
}

/// The same from the text of `/proc/cpuinfo`: the `hypervisor` flag of x86.
pub fn is_virtual(cpuinfo: &str) -> Option<bool> {
    let (_, flags) = cpuinfo.lines().find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == "flags"))?;
    Some(flags.split_whitespace().any(|flag| flag == "hypervisor"))
}

/// The process that listens on a port of this host.
pub fn listener_of(port: u16) -> Option<u32> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, state, _, _, _, _, _, inode, ..] = fields[..] else { continue };
            let is_port = local.rsplit(':').next().and_then(|text| u16::from_str_radix(text, 16).ok()) == Some(port);
            if is_port && state == "0A" {
                inodes.push(format!("socket:[{inode}]"));
            }
        }
    }
    if inodes.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        descriptors.flatten().any(|entry| {
            fs::read_link(entry.path())
                .is_ok_and(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: figures of a live process are found, those of none are not. Method: this process, and a pid that cannot be.
    #[test]
    fn reads_this_process() {
        let meter = ProcessMeter::attach(std::process::id(), false);
        let usage = meter.read();
        assert!(usage.cpu_ns.is_some_and(|cpu| cpu > 0), "{usage:?}");
        assert!(usage.resident_bytes > usage.resident_anonymous_bytes, "{usage:?}");
        assert!(usage.voluntary_switches.is_some());
        let nobody = ProcessMeter::attach(u32::MAX - 1, false).read();
        assert_eq!(nobody, Usage::default());
        assert!(steal_ticks().is_some_and(|(total, steal)| total > steal));
    }

    /// Goal: system calls are counted, or it is said why not. Method: a thousand of them between two readings where the kernel lets us;
    /// folders without tracepoints, a process that is not there.
    #[test]
    fn system_calls() {
        let meter = ProcessMeter::attach(std::process::id(), true);
        let before = meter.read().syscalls;
        for _ in 0..1000 {
            // SAFETY: plain call.
            unsafe { libc::getppid() };
        }
        match meter.read().syscalls.zip(before) {
            Some((after, before)) => assert!(after - before >= 1000 && meter.syscalls_absent().is_empty()),
            None => assert!(!meter.syscalls_absent().is_empty()),
        }
        assert!(ProcessMeter::attach(std::process::id(), false).syscalls_absent().is_empty(), "nobody asked");
        assert!(count_syscalls(&[1], &["/nowhere"]).unwrap_err().contains("raw_syscalls"));
        assert!(!ProcessMeter::attach(u32::MAX - 1, true).syscalls_absent().is_empty());
    }

    /// Goal: virtual machines are told from hardware, and neither is claimed where the processor does not say. Method: three texts.
    #[test]
    fn tells_virtual_machines() {
        assert_eq!(is_virtual("model name\t: X\nflags\t\t: fpu hypervisor sse\n"), Some(true));
        assert_eq!(is_virtual("flags\t\t: fpu sse\nvmx flags\t: hypervisor\n"), Some(false));
        assert_eq!(is_virtual("Features\t: fp asimd\n"), None);
    }

    /// Goal: the owner of a port is found. Method: listen here; ask for it, and for a port that is closed again.
    #[test]
    fn finds_listeners() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listener_of(port), Some(std::process::id()));
        drop(listener);
        assert_ne!(listener_of(port), Some(std::process::id()));
    }
}
