//! From data directories to disks, and from a listen address to network cards and their interrupts.

use std::net::{IpAddr, Ipv4Addr};

use super::{DataDirectory, ProbeError, Selection, System};

/// Levels of stacked devices (partition, LUKS, LVM, RAID) that are followed.
const MAX_STACK: usize = 8;

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: String,
    /// Major and minor number of the device, such as `259:1`.
    pub device: String,
    /// Type of the file system.
    pub file_system: String,
    /// What is mounted, such as `/dev/vda1`.
    pub source: String,
    /// Options of the mount and of the file system.
    pub options: Vec<String>,
}

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Name below `/sys/block`.
    pub name: String,
    /// Whether the kernel believes that it rotates.
    pub rotational: bool,
    /// Whether it is a virtual machine's (its claim to rotate means nothing).
    pub is_virtual: bool,
    /// Whether it is behind an ATA port: it takes few requests at a time.
    pub is_sata: bool,
}

impl Disk {
    /// Whether requests to it cost a movement of a head.
    pub fn seeks(&self) -> bool {
        self.rotational && !self.is_virtual
    }
}

/// An interrupt of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number.
    pub number: usize,
    /// The driver's name for it.
    pub name: String,
    /// The queue's number, from the name, or else its place among the card's interrupts.
    pub queue: usize,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Its name.
    pub name: String,
    /// Receive queues, such as `rx-0`.
    pub rx: Vec<String>,
    /// Send queues, such as `tx-0`.
    pub tx: Vec<String>,
    /// Interrupts of queues.
    pub interrupts: Vec<Interrupt>,
    /// The node that it is attached to.
    pub node: Option<usize>,
    /// Its address, the one that it was made with if it says so, and whether it does.
    pub address: Option<(String, bool)>,
}

/// Reads the mounts of the process.
pub fn mounts(system: &dyn System) -> Vec<Mount> {
    let text = system.read("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(parse_mount).collect()
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let mut right = right.split(' ');
    let (file_system, source) = (right.next()?, right.next()?);
    let options = left.get(5)?.split(',').chain(right.next().unwrap_or_default().split(','));
    Some(Mount {
        point: unescape(left.get(4)?),
        device: (*left.get(2)?).into(),
        file_system: file_system.into(),
        source: source.into(),
        options: options.map(String::from).collect(),
    })
}

/// The kernel writes blanks and backslashes of paths as three octal digits.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_string();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(char::from(byte));
                plain.push_str(&part[3..]);
            }
            None => plain.push_str(part),
        }
    }
    plain
}

/// The mount that an absolute path is on: the longest one, and the last of equals, which covers the others.
pub fn mount_of<'mounts>(mounts: &'mounts [Mount], path: &str) -> Option<&'mounts Mount> {
    let covers = |mount: &&Mount| {
        let point = mount.point.trim_end_matches('/');
        path.starts_with('/') && path.strip_prefix(point).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    mounts.iter().filter(covers).max_by_key(|mount| mount.point.trim_end_matches('/').len())
}

/// Whole disks below the directories, and why there is none; and the devices that the file systems are on as a whole, such as
/// `dm-0`, or the disk itself.
pub fn disks(system: &dyn System, directories: &[DataDirectory]) -> (Vec<Disk>, String, Vec<String>) {
    let (mut names, mut volumes): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let mut reason = String::from("no data directory was named");
    for directory in directories {
        let mount = &directory.mount;
        let device = device_of(system, mount);
        let mut found = Vec::new();
        if let Some(device) = &device {
            follow(system, device, MAX_STACK, &mut found);
            volumes.extend(whole_device(system, device).rsplit('/').next().map(String::from));
        }
        if found.is_empty() {
            reason = format!("{} is on {} ({}), which is no disk", directory.path, mount.source, mount.file_system);
        }
        names.extend(found);
    }
    for list in [&mut names, &mut volumes] {
        list.sort();
        list.dedup();
    }
    let disks = names.into_iter().map(|name| {
        let rotational = system.read(&format!("/sys/block/{name}/queue/rotational"));
        let is_virtual = name.starts_with("vd") || name.starts_with("xvd");
        let place = system.resolve(&format!("/sys/block/{name}")).unwrap_or_default();
        // ATA ports are numbered; the same disk behind another controller is none of them.
        let is_port = |part: &str| part.strip_prefix("ata").is_some_and(|rest| rest.parse::<u32>().is_ok());
        let is_sata = place.split('/').any(is_port);
        Disk { rotational: rotational.is_ok_and(|text| text.trim() == "1"), is_virtual, is_sata, name }
    });
    (disks.collect(), reason, volumes)
}

/// The block device that is mounted, as a path below `/sys/devices`.
fn device_of(system: &dyn System, mount: &Mount) -> Option<String> {
    let by_number = system.resolve(&format!("/sys/dev/block/{}", mount.device));
    // Btrfs and others have a number of their own; their source names the device.
    let by_name = || {
        let name = mount.source.strip_prefix("/dev/")?.rsplit('/').next()?;
        system.resolve(&format!("/sys/class/block/{name}"))
    };
    by_number.or_else(by_name)
}

/// The device itself, or the disk of a partition.
fn whole_device(system: &dyn System, device: &str) -> String {
    let parent = device.rsplit_once('/').map(|(parent, _)| parent);
    parent.filter(|_| system.exists(&format!("{device}/partition"))).unwrap_or(device).into()
}

/// Goes from a device to the disks that it is made of: up from partitions, down through `slaves`.
fn follow(system: &dyn System, device: &str, depth: usize, found: &mut Vec<String>) {
    let whole = whole_device(system, device);
    if whole != device && depth > 0 {
        return follow(system, &whole, depth - 1, found);
    }
    let slaves = system.list(&format!("{device}/slaves"));
    if slaves.is_empty() || depth == 0 {
        found.extend(device.rsplit('/').next().map(String::from));
        return;
    }
    for slave in slaves {
        if let Some(below) = system.resolve(&format!("{device}/slaves/{slave}")) {
            follow(system, &below, depth - 1, found);
        }
    }
}

/// Cards to tune, and why there is none.
pub fn nics(system: &dyn System, selection: &Selection) -> Result<(Vec<Nic>, String), ProbeError> {
    let all = system.list("/sys/class/net");
    let (names, reason) = match (&selection.nics, selection.listen) {
        (Some(names), _) => {
            for name in names {
                if !all.contains(name) {
                    return Err(ProbeError::UnknownNic { name: name.clone(), valid: all.join(", ") });
                }
            }
            (names.clone(), "no card was named".to_string())
        }
        (None, None) => (Vec::new(), "no listen address is known".into()),
        (None, Some(address)) if address.is_loopback() => {
            (Vec::new(), format!("the broker listens on {address}, which no card serves"))
        }
        (None, Some(address)) => {
            let found = if address.is_unspecified() { all.clone() } else { interface_of(system, address) };
            (found, format!("no card carries {address}"))
        }
    };
    let chosen_by_hand = selection.nics.is_some();
    let mut nics: Vec<Nic> = Vec::new();
    for name in names.iter().flat_map(|name| lower_devices(system, name, MAX_STACK)) {
        let is_card = chosen_by_hand || system.exists(&format!("/sys/class/net/{name}/device"));
        if is_card && !nics.iter().any(|nic| nic.name == name) {
            nics.push(describe(system, &name));
        }
    }
    Ok((nics, reason))
}

/// The interface that has the address. Where nobody can be asked for addresses, as below a root that is not the kernel's:
/// the one that has the subnet of it (version 4).
fn interface_of(system: &dyn System, address: IpAddr) -> Vec<String> {
    let known = system.addresses();
    if !known.is_empty() {
        let named = known.into_iter().find(|(_, own)| *own == address);
        return named.map(|(name, _)| name).into_iter().collect();
    }
    match address {
        IpAddr::V6(address) => {
            let wanted: String = address.octets().iter().map(|byte| format!("{byte:02x}")).collect();
            let text = system.read("/proc/net/if_inet6").unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(&wanted));
            line.and_then(|line| line.split_whitespace().last()).map(String::from).into_iter().collect()
        }
        IpAddr::V4(address) => {
            let text = system.read("/proc/net/route").unwrap_or_default();
            let routes = text.lines().skip(1).filter_map(parse_route);
            let matching = routes.filter(|(_, network, mask)| u32::from(address) & mask == *network);
            // The default route says nothing about an address of this machine.
            let best = matching.filter(|(_, _, mask)| *mask != 0).max_by_key(|(_, _, mask)| mask.count_ones());
            best.map(|(name, _, _)| name).into_iter().collect()
        }
    }
}

/// Interface, network and mask of a line of `/proc/net/route`, which has them in the order of the machine's bytes.
fn parse_route(line: &str) -> Option<(String, u32, u32)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |text: &str| {
        let bytes = u32::from_str_radix(text, 16).ok()?.to_ne_bytes();
        Some(u32::from(Ipv4Addr::from(bytes)))
    };
    Some(((*fields.first()?).into(), number(fields.get(1)?)?, number(fields.get(7)?)?))
}

/// The cards below a bond, bridge or VLAN, or the name itself.
fn lower_devices(system: &dyn System, name: &str, depth: usize) -> Vec<String> {
    let entries = system.list(&format!("/sys/class/net/{name}"));
    let lower: Vec<&str> = entries.iter().filter_map(|entry| entry.strip_prefix("lower_")).collect();
    if lower.is_empty() || depth == 0 {
        return vec![name.into()];
    }
    lower.into_iter().flat_map(|below| lower_devices(system, below, depth - 1)).collect()
}

fn describe(system: &dyn System, name: &str) -> Nic {
    let folder = format!("/sys/class/net/{name}");
    let queues = system.list(&format!("{folder}/queues"));
    let of_kind = |prefix: &str| {
        let mut found: Vec<String> = queues.iter().filter(|queue| queue.starts_with(prefix)).cloned().collect();
        found.sort_by_key(|queue| trailing_number(queue));
        found
    };
    let device = system.resolve(&format!("{folder}/device"));
    // A virtio card is a child of the PCI device that has the interrupts and the node.
    let parent = device.as_deref().and_then(|device| device.rsplit_once('/')).map(|(parent, _)| parent.to_string());
    let places: Vec<String> = device.into_iter().chain(parent).collect();
    let node = places.iter().find_map(|place| {
        let text = system.read(&format!("{place}/numa_node")).ok()?;
        text.trim().parse::<usize>().ok()
    });
    let vectors = places.iter().map(|place| system.list(&format!("{place}/msi_irqs"))).find(|list| !list.is_empty());
    let interrupts = interrupts(system, &vectors.unwrap_or_default());
    let given = || system.read(&format!("{folder}/address")).ok().map(|text| (text.trim().to_string(), false));
    let address = system.permanent_address(name).map(|address| (address, true)).or_else(given);
    Nic { name: name.into(), rx: of_kind("rx-"), tx: of_kind("tx-"), interrupts, node, address }
}

/// Interrupts that belong to queues: those whose name is not one of the card's management.
fn interrupts(system: &dyn System, vectors: &[String]) -> Vec<Interrupt> {
    const MANAGEMENT: &[&str] = &[
        "config", "control", "ctrl", "async", "event", "mgmt", "mgmnt", "admin", "cmd", "link", "fw", "misc", "pages",
    ];
    let table = system.read("/proc/interrupts").unwrap_or_default();
    let name_of = |number: usize| {
        let line = table.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{number}:")))?;
        line.split_whitespace().last().map(String::from)
    };
    let mut numbers: Vec<usize> = vectors.iter().filter_map(|vector| vector.parse().ok()).collect();
    numbers.sort_unstable();
    let mut found: Vec<Interrupt> = Vec::new();
    for number in numbers {
        let Some(name) = name_of(number) else { continue };
        let lower = name.to_ascii_lowercase();
        if MANAGEMENT.iter().any(|word| lower.contains(word)) {
            continue;
        }
        let queue = trailing_number(name.split('@').next().unwrap_or_default()).unwrap_or(found.len());
        found.push(Interrupt { number, name, queue });
    }
    found
}

fn trailing_number(text: &str) -> Option<usize> {
    let digits = text.bytes().rev().take_while(u8::is_ascii_digit).count();
    text[text.len() - digits..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_lines() {
        // Goal: a directory is found on the right mount. Method: nested mounts, a name with a blank, a path that only
        // begins alike, and a mount that covers another.
        let lines = [
            "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard",
            "30 27 259:1 / /data rw,noatime - xfs /dev/nvme0n1p1 rw",
            "31 27 259:2 / /with\\040blank rw - ext4 /dev/sdb rw",
            "32 27 259:3 / /data rw - ext4 /dev/sdc rw",
        ];
        let mounts: Vec<Mount> = lines.iter().filter_map(|line| parse_mount(line)).collect();
        let device = |path: &str| mount_of(&mounts, path).map(|mount| mount.device.as_str());
        assert_eq!(device("/data/ringmq"), Some("259:3"));
        assert_eq!(device("/database"), Some("254:0"));
        assert_eq!(device("/with blank/x"), Some("259:2"));
        assert_eq!(device("relative"), None);
        assert!(mounts[0].options.contains(&"discard".to_string()));
    }

    #[test]
    fn routes_and_queue_numbers() {
        // Goal: the table of routes and the drivers' names are understood. Method: lines of real machines.
        let line = "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0";
        if cfg!(target_endian = "little") {
            assert_eq!(parse_route(line), Some(("eth0".into(), 0xC000_0200, 0xFFFF_FF00)));
        }
        assert_eq!(trailing_number("eth0-TxRx-13"), Some(13));
        assert_eq!(trailing_number("virtio3-rx"), None);
    }
}
