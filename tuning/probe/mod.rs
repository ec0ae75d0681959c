//! What a host is: processors, disks, network cards, mounts, virtualisation. Reads through [`System`] only, so that a
//! directory can stand for a machine.
//!
//! Invariant: probing never writes. A [`Host`] is a picture of one moment and belongs to the command that took it.

pub mod card;
mod cpu_list;
mod devices;
mod inquiries;
mod live;
pub mod system;
mod topology;

use std::net::IpAddr;

pub use cpu_list::{format_list, format_mask, parse_list, parse_mask};
pub use devices::{Disk, Interrupt, Mount, Nic};
pub use inquiries::{Answer, ask};
pub use system::{Access, FolderLock, RootSystem, System};
pub use topology::{Cpu, Topology};

/// Bytes of memory that are assumed when `/proc/meminfo` does not say.
const FALLBACK_MEMORY_BYTES: u64 = 1 << 30;

/// Which devices matter.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Data directories: their disks are tuned.
    pub directories: Vec<String>,
    /// The address that the broker listens on: its cards are tuned. `None`: no card, unless `nics` names some.
    pub listen: Option<IpAddr>,
    /// Cards by name, in place of those of `listen`.
    pub nics: Option<Vec<String>>,
    /// The file of `tune cpus`, absolute below the root, whether it exists or not.
    pub cores_file: Option<String>,
    /// Whether all processors count that are online, not those alone that this process may use: a broker whose service
    /// keeps it off the interrupts' cores is to see those as well.
    pub all_processors: bool,
    /// Whether this process is the broker whose limits and control group matter. Else a broker that runs is looked for.
    pub is_broker: bool,
}

/// Why a host could not be described.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A card was named that does not exist.
    #[error("unknown network card \"{name}\"; valid are: {valid}")]
    UnknownNic {
        /// What was asked for.
        name: String,
        /// What there is.
        valid: String,
    },
    /// A directory is on no mount, so it cannot exist.
    #[error("directory \"{directory}\" is not an absolute path on a mounted file system; mounted are: {valid}")]
    UnknownDirectory {
        /// What was asked for.
        directory: String,
        /// What there is.
        valid: String,
    },
    /// Not even the processors can be listed.
    #[error("this root has no {path}: it is not the root of a Linux host")]
    NotAHost {
        /// What was looked for.
        path: &'static str,
    },
}

/// A data directory and what is below it.
#[derive(Debug, Clone)]
pub struct DataDirectory {
    /// Absolute path.
    pub path: String,
    /// The mount that it is on.
    pub mount: Mount,
}

/// A picture of a host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Processors.
    pub topology: Topology,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// What virtualises the host, if anything.
    pub virtualisation: Option<String>,
    /// Whether the process runs in a container.
    pub container: bool,
    /// The kernel's identity of this boot; empty if it has none.
    pub boot_id: String,
    /// Data directories.
    pub directories: Vec<DataDirectory>,
    /// Disks below the data directories.
    pub disks: Vec<Disk>,
    /// Why there is no disk, if there is none.
    pub no_disk_because: String,
    /// What the file systems of the data directories are on: their disks, or what is made of those, such as `dm-0`.
    pub volumes: Vec<String>,
    /// Cards of the listen address.
    pub nics: Vec<Nic>,
    /// Why there is no card, if there is none.
    pub no_nic_because: String,
    /// What the file of `tune cpus` says, if there is one.
    pub cores_file: Option<String>,
    /// Folder below `/proc` of the broker that runs; `None`: none does, and limits are those of whoever asks.
    pub broker: Option<String>,
}

/// The folder of whoever asks.
const ASKING: &str = "/proc/self";

impl Host {
    /// Looks at a host.
    pub fn probe(system: &dyn System, selection: &Selection) -> Result<Host, ProbeError> {
        let topology = topology::probe(system, selection.all_processors)?;
        let mounts = devices::mounts(system);
        let mut directories = Vec::new();
        for directory in &selection.directories {
            let mount = devices::mount_of(&mounts, directory).ok_or_else(|| ProbeError::UnknownDirectory {
                directory: directory.clone(),
                valid: mounts.iter().map(|mount| mount.point.as_str()).collect::<Vec<_>>().join(", "),
            })?;
            directories.push(DataDirectory { path: directory.clone(), mount: mount.clone() });
        }
        let (disks, no_disk_because, volumes) = devices::disks(system, &directories);
        let (nics, no_nic_because) = devices::nics(system, selection)?;
        let memory = system.read("/proc/meminfo").unwrap_or_default();
        Ok(Host {
            topology,
            memory_bytes: total_memory(&memory).unwrap_or(FALLBACK_MEMORY_BYTES),
            virtualisation: virtualisation(system),
            container: is_container(system),
            boot_id: system.read("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string(),
            directories,
            disks,
            no_disk_because,
            volumes,
            nics,
            no_nic_because,
            broker: match selection.is_broker {
                true => Some(ASKING.into()),
                false => inquiries::brokers(system).first().map(|id| format!("/proc/{id}")),
            },
            cores_file: selection.cores_file.as_ref().and_then(|path| system.read(path).ok()),
        })
    }

    /// The folder below `/proc` of the process whose limits and control group are looked at.
    pub fn subject(&self) -> &str {
        self.broker.as_deref().unwrap_or(ASKING)
    }

    /// The card of this name.
    pub fn nic(&self, name: &str) -> Option<&Nic> {
        self.nics.iter().find(|nic| nic.name == name)
    }

    /// The disk of this name.
    pub fn disk(&self, name: &str) -> Option<&Disk> {
        self.disks.iter().find(|disk| disk.name == name)
    }

    /// The host in one line, for the head of reports.
    pub fn summary(&self) -> String {
        let place = match (&self.virtualisation, self.container) {
            (Some(what), true) => format!("{what}, container"),
            (Some(what), false) => what.clone(),
            (None, true) => "container".into(),
            (None, false) => "bare metal".into(),
        };
        let names = |names: Vec<&str>, none: &str| if names.is_empty() { none.into() } else { names.join(" ") };
        format!(
            "{} processors on {} cores, {} node{}, {} MiB, {place}; disks: {}; cards: {}",
            self.topology.cpus.len(),
            self.topology.core_count(),
            self.topology.nodes().len(),
            if self.topology.nodes().len() == 1 { "" } else { "s" },
            self.memory_bytes >> 20,
            names(self.disks.iter().map(|disk| disk.name.as_str()).collect(), "none"),
            names(self.nics.iter().map(|nic| nic.name.as_str()).collect(), "none"),
        )
    }
}

fn total_memory(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Names the hypervisor as far as files tell: the firmware's tables, Xen's folder, the processor's flag.
fn virtualisation(system: &dyn System) -> Option<String> {
    let vendor = system.read("/sys/class/dmi/id/sys_vendor").unwrap_or_default();
    let product = system.read("/sys/class/dmi/id/product_name").unwrap_or_default();
    let firmware = format!("{} {}", vendor.trim(), product.trim());
    let known = [
        ("QEMU", "QEMU/KVM guest"),
        ("KVM", "KVM guest"),
        ("Amazon EC2", "EC2 guest"),
        ("Google Compute", "Google Compute guest"),
        ("VMware", "VMware guest"),
        ("Virtual Machine", "Hyper-V guest"),
        ("Xen", "Xen guest"),
        ("Alibaba Cloud", "Alibaba Cloud guest"),
    ];
    if let Some((_, name)) = known.iter().find(|(mark, _)| firmware.contains(mark)) {
        // EC2 says so on its bare-metal instances too.
        let metal = product.contains(".metal");
        return (!metal).then(|| (*name).into());
    }
    if let Ok(kind) = system.read("/sys/hypervisor/type") {
        return Some(format!("{} guest", kind.trim()));
    }
    let processors = system.read("/proc/cpuinfo").unwrap_or_default();
    let flags = processors.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "hypervisor").then(|| "virtual machine".into())
}

fn is_container(system: &dyn System) -> bool {
    ["/.dockerenv", "/run/.containerenv", "/run/systemd/container"].iter().any(|path| system.exists(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_its_line() {
        // Goal: the total is found. Method: a short meminfo, and none.
        assert_eq!(total_memory("MemFree: 1 kB\nMemTotal:       2048 kB\n"), Some(2 << 20));
        assert_eq!(total_memory(""), None);
    }
}
