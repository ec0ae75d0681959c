//! What the machine says about itself: name, memory, processors, addresses. Reading is separate from understanding,
//! so that the latter is tested without a machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;

/// Host name, or nothing.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_string()
}

/// Processors that the process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Numbers of the processors that the process may use; empty if the machine does not say.
pub fn processor_numbers() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect()
}

/// Bytes of memory that the machine has and the process's control groups allow, whichever is less.
pub fn memory_bytes() -> u64 {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let machine = read(Path::new("/proc/meminfo")).as_deref().and_then(total_of_meminfo).unwrap_or(FALLBACK_MEMORY);
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = limit_files(&groups);
    limits
        .iter()
        .filter_map(|path| read(Path::new(path)))
        .filter_map(|text| text.trim().parse().ok())
        .fold(machine, u64::min)
}

/// Assumed when the machine does not say.
const FALLBACK_MEMORY: u64 = 1 << 30;

fn total_of_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Files that may hold a limit for the groups of `/proc/self/cgroup`: version 2 for each level up to the root,
/// version 1.
fn limit_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|name| name == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        files.extend(Path::new(path).ancestors().filter_map(|level| {
            let level = level.to_str()?.trim_end_matches('/');
            Some(format!("{root}{level}/{file}"))
        }));
    }
    files
}

/// An address of this machine that others can reach: the one it would use towards the outside. Nothing is sent.
pub fn outward_address(like: IpAddr) -> Option<IpAddr> {
    let (any, outside): (SocketAddr, SocketAddr) = match like {
        IpAddr::V4(_) => ((Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::new(192, 0, 2, 1), 9).into()),
        IpAddr::V6(_) => {
            ((Ipv6Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into())
        }
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(outside).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

/// First address of a host name, IPv4 before IPv6. Blocks on the system's resolver.
pub fn resolve(host: &str) -> Option<IpAddr> {
    let found: Vec<IpAddr> = (host, 0).to_socket_addrs().ok()?.map(|address| address.ip()).collect();
    found.iter().find(|ip| ip.is_ipv4()).or(found.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_limits_are_found_on_every_level() {
        // Goal: a container's limit counts wherever it is set. Method: texts of both cgroup versions and of meminfo.
        assert_eq!(
            limit_files("0::/a/b\n"),
            ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"]
        );
        assert_eq!(
            limit_files("5:cpu:/x\n4:memory:/x"),
            ["/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        );
        assert_eq!(total_of_meminfo("MemTotal:       2048 kB\nMemFree: 1 kB"), Some(2 << 20));
        assert_eq!(total_of_meminfo("nothing"), None);
    }

    #[test]
    fn this_machine_answers() {
        // Goal: the shell around the parsers works. Method: ask this machine.
        assert!(memory_bytes() > 1 << 20);
        assert!(processors() > 0);
        assert_eq!(resolve("127.0.0.1"), Some(Ipv4Addr::LOCALHOST.into()));
    }
}
