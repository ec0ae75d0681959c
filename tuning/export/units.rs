//! Units of the service manager.

use std::fmt::Write;
use std::path::Path;

use crate::catalogue::{Catalogue, Kind};
use crate::placement::Placement;
use crate::probe::format_list;

/// Where the boot-time unit is installed.
pub const TUNE_UNIT: &str = "/etc/systemd/system/ringmq-tune.service";
/// Where the file is that makes a boot want it.
pub const TUNE_DROP_IN: &str = "/etc/systemd/system/multi-user.target.d/60-ringmq-tune.conf";

/// How the units call the program.
#[derive(Debug, Clone)]
pub struct Service {
    /// Absolute path of the program.
    pub program: String,
    /// Options of `start`: configuration and data directory.
    pub start: Vec<String>,
    /// Options of `tune apply`, which choose the same devices.
    pub tune: Vec<String>,
    /// Directories outside of the unit's own that the broker writes to.
    pub writable: Vec<String>,
}

/// The data directory of the unit, where none is named.
pub const DATA_DIR: &str = "/var/lib/ringmq";
/// The configuration of the unit, where none is named.
pub const CONFIG: &str = "/etc/ringmq/ringmq.toml";

impl Service {
    /// For any host.
    pub fn standard(program: &str) -> Service {
        let options: Vec<String> = ["--config", CONFIG, "--data", DATA_DIR].map(String::from).into();
        Service { program: program.into(), start: options.clone(), tune: options, writable: Vec::new() }
    }
}

/// A word of a unit's command line that means exactly this text (systemd.service(5), "Command lines").
pub fn word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-,:=+@".contains(&byte) || byte >= 0x80;
    let text = text.replace('%', "%%").replace('$', "$$");
    if !text.is_empty() && text.bytes().all(|byte| plain(byte) || b"%$".contains(&byte)) {
        return text;
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn words(texts: &[String]) -> String {
    texts.iter().map(|text| format!(" {}", word(text))).collect()
}

/// A path of a setting that is a list of paths: `%` stands for itself, and blanks do not part it.
fn listed_path(path: &str) -> String {
    format!("\"-{}\"", path.replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\""))
}

/// The unit that runs the broker.
pub fn broker_unit(catalogue: &Catalogue, placement: Option<&Placement>, service: &Service) -> String {
    let mut limits = String::new();
    for tunable in catalogue.tunables().iter().filter(|tunable| tunable.kind == Kind::Limit) {
        if let Some(directive) = &tunable.directive {
            let _ = write!(limits, "# {}\n{directive}\n", tunable.why);
        }
    }
    let cpus = match placement {
        Some(placement) if !placement.is_shared() => format!(
            "# The shards' cores and none of those that handle interrupts: `ringmq tune cpus`. Widen it for more threads.\n\
             AllowedCPUs={}\n",
            format_list(&placement.shards)
        ),
        _ => "# `ringmq tune cpus` says which cores; without AllowedCPUs the broker may use all.\n".into(),
    };
    let (program, start) = (word(&service.program), words(&service.start));
    let mut writable: String = service
        .writable
        .iter()
        .map(|path| format!("# Must exist and belong to the user.\nReadWritePaths={}\n", listed_path(path)))
        .collect();
    let in_home = |path: &String| ["/home", "/root", "/run/user"].iter().any(|home| Path::new(path).starts_with(home));
    writable += match service.writable.iter().any(in_home) {
        true => "# The data is in a home.\nProtectHome=no\n",
        false => "ProtectHome=yes\n",
    };
    format!(
        "# The broker as a service. Place it in /etc/systemd/system.\n\
         [Unit]\n\
         Description=RingMQ message broker\n\
         Documentation=man:systemd.exec(5)\n\
         Wants=network-online.target\n\
         After=network-online.target ringmq-tune.service\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={program} start{start}\n\
         User=ringmq\n\
         Group=ringmq\n\
         StateDirectory=ringmq\n\
         WorkingDirectory=/var/lib/ringmq\n\
         Restart=on-failure\n\
         RestartSec=2\n\
         # A damaged store, a lost disk, a wrong configuration: a restart would not help, a person must look.\n\
         RestartPreventExitStatus=2 4 5 6\n\
         TimeoutStopSec=60\n\
         \n\
         {limits}\
         {cpus}\
         # No CPUQuota: it freezes pinned threads for up to 100 ms. No MemoryHigh: it slows every allocation.\n\
         \n\
         # A sandbox that still lets io_uring work.\n\
         NoNewPrivileges=yes\n\
         ProtectSystem=strict\n\
         {writable}\
         PrivateTmp=yes\n\
         ProtectKernelTunables=yes\n\
         ProtectKernelModules=yes\n\
         ProtectKernelLogs=yes\n\
         ProtectControlGroups=yes\n\
         ProtectClock=yes\n\
         ProtectHostname=yes\n\
         CapabilityBoundingSet=\n\
         UMask=0027\n\
         # Among the devices only the one against deep sleep, beside those that every program needs.\n\
         DevicePolicy=closed\n\
         DeviceAllow=/dev/cpu_dma_latency rw\n\
         RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\n\
         RestrictNamespaces=yes\n\
         LockPersonality=yes\n\
         RestrictRealtime=yes\n\
         RestrictSUIDSGID=yes\n\
         MemoryDenyWriteExecute=yes\n\
         SystemCallArchitectures=native\n\
         SystemCallFilter=@system-service @io-event io_uring_setup io_uring_enter io_uring_register\n\
         SystemCallErrorNumber=EPERM\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

/// The unit that applies a profile at every boot, before the broker.
pub fn tune_unit(profile: &str, service: &Service) -> String {
    let (program, arguments) = (word(&service.program), words(&service.tune));
    format!(
        "# Applies profile {profile} at every boot: settings below /proc and /sys do not survive one.\n\
         [Unit]\n\
         Description=Host settings for RingMQ, profile {profile}\n\
         DefaultDependencies=yes\n\
         # The listen address chooses the card, and may come late.\n\
         Wants=network-online.target\n\
         After=systemd-sysctl.service systemd-tmpfiles-setup.service network-online.target\n\
         Before=ringmq.service\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart={program} tune apply --profile {profile}{arguments}\n\
         # The files stay: a shutdown stops the unit too, and the next boot is to apply the profile again.\n\
         ExecStop={program} tune revert --keep-files\n\
         # Something that is not as wanted is said, and does not keep the broker from starting.\n\
         SuccessExitStatus=1\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

/// The file that makes a boot want the unit, so that no link is needed.
pub fn tune_drop_in() -> String {
    "[Unit]\nWants=ringmq-tune.service\n".into()
}

/// Keeps irqbalance off the shards' cores.
pub fn irqbalance(placement: &Placement) -> String {
    format!(
        "# irqbalance moves interrupts, but never to the shards' cores.\n\
         [Service]\n\
         Environment=IRQBALANCE_BANNED_CPULIST={}\n",
        format_list(&placement.shards)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_in_a_home_is_seen() {
        // Goal: the sandbox hides no data. Method: a directory in a home, and one elsewhere.
        let catalogue = Catalogue::embedded().expect("sound");
        let unit = |path: &str| {
            let service = Service { writable: vec![path.into()], ..Service::standard("ringmq") };
            broker_unit(&catalogue, None, &service)
        };
        assert!(unit("/home/data").contains("\nProtectHome=no\n"));
        let elsewhere = unit("/data");
        assert!(elsewhere.contains("\nProtectHome=yes\n") && elsewhere.contains("\nReadWritePaths=\"-/data\"\n"));
    }

    #[test]
    fn words_of_a_unit() {
        // Goal: a path is one argument, whatever it holds. Method: each kind of character that systemd takes for its own.
        for (text, quoted) in [
            ("/var/lib/ringmq", "/var/lib/ringmq"),
            ("/data/with blank", "\"/data/with blank\""),
            ("/data/100%", "/data/100%%"),
            ("/data/$HOME", "/data/$$HOME"),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
            ("/data;x", "\"/data;x\""),
            ("", "\"\""),
        ] {
            assert_eq!(word(text), quoted, "{text}");
        }
    }
}
