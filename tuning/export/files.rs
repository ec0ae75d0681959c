//! Files that the system reads by itself at boot or when a device appears.

use std::fmt::Write;

use super::Exporting;
use crate::catalogue::{CardSetting, Class, Computation, Kind, Need, Rule, Tunable};
use crate::plan::{Line, Plan, State};
use crate::probe::Nic;

/// What a file says of an entry.
enum Said {
    /// This value.
    Value(String),
    /// This value, but only where the host has less or more: a file can only set it, so it is not set.
    Bound(String),
    /// Nothing but these words.
    Words(String),
}

/// On a host what the plan found, whether it is to be written or there already; on any host what the rule says.
fn said(plan: Option<&Plan>, nic: Option<&str>, tunable: &Tunable, rule: &Rule) -> Said {
    if let Some(plan) = plan {
        let is_of = |line: &&Line| nic.is_none_or(|nic| line.device == nic);
        let line = on_host(plan, &tunable.id).find(is_of);
        let unsupported = || plan.lines.iter().find(|line| line.id == tunable.id).map(|line| line.note.clone());
        return match line {
            Some(line) => Said::Value(written(line)),
            None => Said::Words(format!("not on this host: {}", unsupported().unwrap_or_default())),
        };
    }
    match rule {
        Rule::Set(value) => Said::Value(value.text()),
        Rule::AtLeast(number) | Rule::AtMost(number) => Said::Bound(number.to_string()),
        _ => Said::Words(format!("{}; `ringmq tune plan` says the value", rule.words())),
    }
}

/// The words before a value that a file must not set.
fn only_if(rule: &Rule) -> &'static str {
    if matches!(rule, Rule::AtLeast(_)) { "Only if the host has less: " } else { "Only if the host has more: " }
}

/// Lines of an entry on the plan's host that have a value to write, or have it already.
fn on_host<'plan>(plan: &'plan Plan, id: &'plan str) -> impl Iterator<Item = &'plan Line> {
    let can_be =
        |line: &&Line| line.state != State::Unsupported && (line.to_write.is_some() || line.state == State::Ok);
    plan.lines.iter().filter(move |line| line.id == id).filter(can_be)
}

/// The chosen entries of the profile that write.
fn writing<'all>(exporting: &Exporting<'all>) -> Vec<(&'all Tunable, &'all Rule)> {
    let Exporting { catalogue, profile, choices, .. } = *exporting;
    let mut chosen = catalogue.chosen(profile);
    chosen.retain(|(tunable, rule)| rule.writes() && choices.includes(tunable));
    chosen
}

fn safe<'all>(exporting: &Exporting<'all>, kind: Kind) -> Vec<(&'all Tunable, &'all Rule)> {
    let mut chosen = writing(exporting);
    chosen.retain(|(tunable, _)| tunable.kind == kind && tunable.class == Class::Safe);
    chosen
}

/// The words of the kernel's command line that the profile wants, for GRUB; `None` unless class reboot is allowed and there are any.
pub fn boot_line(exporting: &Exporting<'_>) -> Option<String> {
    let Exporting { catalogue, profile, choices, .. } = *exporting;
    let mut chosen = catalogue.chosen(profile);
    let is_allowed = |tunable: &Tunable| choices.allow.contains(&Class::Reboot) && choices.includes(tunable);
    chosen.retain(|(tunable, rule)| {
        matches!(rule, Rule::Check(_)) && tunable.class == Class::Reboot && is_allowed(tunable)
    });
    let words: Vec<&str> = chosen.iter().filter_map(|(tunable, _)| tunable.parameter.as_deref()).collect();
    if words.is_empty() {
        return None;
    }
    let comments: String = chosen.iter().map(|(tunable, _)| comment(tunable)).collect();
    let words = words.join(" ");
    Some(format!(
        "# Read by update-grub; in force after a reboot.\n\
         {comments}GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT {words}\"\n"
    ))
}

fn comment(tunable: &Tunable) -> String {
    let proof = if tunable.evidence.is_proven() { "" } else { " (unproven)" };
    format!("# {}{proof}\n", tunable.why)
}

/// sysctl.d.
pub fn sysctl(exporting: &Exporting<'_>) -> String {
    let (profile, plan) = (&exporting.profile.name, exporting.on.map(|(_, plan)| plan));
    let mut text = format!("# Profile {profile}. Read by systemd-sysctl, or by `sysctl -p FILE`.\n");
    for (tunable, rule) in safe(exporting, Kind::Sysctl) {
        text.push('\n');
        text += &comment(tunable);
        let _ = match said(plan, None, tunable, rule) {
            Said::Value(value) => writeln!(text, "{} = {value}", tunable.id),
            Said::Bound(value) => writeln!(text, "# {}{} = {value}", only_if(rule), tunable.id),
            Said::Words(words) => writeln!(text, "# {}: {words}", tunable.id),
        };
    }
    text
}

/// tmpfiles.d, for settings below `/sys` that belong to no device.
pub fn tmpfiles(exporting: &Exporting<'_>) -> String {
    let (profile, plan) = (&exporting.profile.name, exporting.on.map(|(_, plan)| plan));
    let mut text = format!("# Profile {profile}. Read by systemd-tmpfiles at boot.\n");
    for (tunable, rule) in safe(exporting, Kind::Sysfs) {
        if tunable.path.contains('{') {
            continue;
        }
        text.push('\n');
        text += &comment(tunable);
        let _ = match said(plan, None, tunable, rule) {
            Said::Value(value) => writeln!(text, "w {} - - - - {value}", tunable.path),
            Said::Bound(value) => writeln!(text, "# {}w {} - - - - {value}", only_if(rule), tunable.path),
            Said::Words(words) => writeln!(text, "# {}: {words}", tunable.path),
        };
    }
    text
}

/// sysusers.d: the user of the broker's unit.
pub fn sysusers() -> String {
    "# The user of ringmq.service. Read by systemd-sysusers at boot, and when it is called.\n\
     u ringmq - \"RingMQ message broker\" /var/lib/ringmq\n"
        .into()
}

/// limits.d, for brokers that no unit starts.
pub fn limits() -> String {
    "# For a broker that is started by hand; a unit sets its own limits.\n\
     ringmq  -  nofile   1048576\n\
     ringmq  -  memlock  unlimited\n"
        .into()
}

/// udev rules for disks, and for the queues of this host's cards.
pub fn udev(exporting: &Exporting<'_>) -> String {
    let (profile, plan) = (&exporting.profile.name, exporting.on.map(|(_, plan)| plan));
    let mut text = format!("# Profile {profile}. Read by udev whenever a device appears.\n");
    for (tunable, rule) in safe(exporting, Kind::Sysfs) {
        let of_device = ["/sys/block/{disk}/", "/sys/block/{volume}/"];
        let Some(attribute) = of_device.iter().find_map(|folder| tunable.path.strip_prefix(folder)) else { continue };
        text.push('\n');
        text += &comment(tunable);
        let lines = match plan {
            Some(plan) => on_host(plan, &tunable.id).map(|line| (line.device.clone(), "", written(line))).collect(),
            None => on_any_disk(tunable, rule),
        };
        for (kernel, only, value) in lines {
            let _ = writeln!(
                text,
                "ACTION==\"add|change\", SUBSYSTEM==\"block\", ENV{{DEVTYPE}}==\"disk\", KERNEL==\"{kernel}\"{only}, \
                 ATTR{{{attribute}}}=\"{value}\""
            );
        }
    }
    for (tunable, _) in safe(exporting, Kind::Sysfs) {
        let Some(rest) = tunable.path.strip_prefix("/sys/class/net/{nic}/") else { continue };
        for line in plan.into_iter().flat_map(|plan| on_host(plan, &tunable.id)) {
            let (nic, queue) = line.device.split_once('/').unwrap_or((line.device.as_str(), ""));
            let attribute = rest.replace("{rx}", queue).replace("{tx}", queue);
            let value = written(line);
            let host = exporting.on.map(|(host, _)| host);
            let known = host.and_then(|host| host.nic(nic)).and_then(|nic| nic.address.as_ref());
            // Rules run before the card has its name. A bridge or a VLAN may have the same address, but no driver.
            let matched = match known {
                Some((address, true)) => format!("DRIVERS==\"?*\", ATTR{{address}}==\"{address}\""),
                Some((address, false)) => format!("ATTR{{address}}==\"{address}\""),
                None => format!("KERNEL==\"{nic}\""),
            };
            let _ = writeln!(
                text,
                "ACTION==\"add|change\", SUBSYSTEM==\"net\", {matched}, ATTR{{{attribute}}}=\"{value}\""
            );
        }
    }
    if plan.is_none() {
        text += "\n# Queues of cards (RPS, XPS) depend on the host: `ringmq tune export` on it writes them here.\n";
    }
    if profile == "latency" {
        text += "\n# The broker keeps the processors from deep sleep while this profile is applied; it needs the device for it.\n\
                 KERNEL==\"cpu_dma_latency\", GROUP=\"ringmq\", MODE=\"0660\"\n\n";
    }
    text += "# Interrupts cannot be placed from here: ringmq-tune.service does it.\n";
    text
}

/// The value that a line of the plan wants on its device.
fn written(line: &Line) -> String {
    line.to_write.clone().unwrap_or_else(|| line.have.replace('\t', " "))
}

/// Kernel names, a further condition, and the value, for disks that nobody has seen yet. As for the tool itself, a
/// virtual disk never seeks, whatever it claims.
fn on_any_disk(tunable: &Tunable, rule: &Rule) -> Vec<(String, &'static str, String)> {
    const REAL: &str = "sd*[!0-9]|nvme*n*";
    const VIRTUAL: &str = "vd*[!0-9]|xvd*[!0-9]";
    const STILL: &str = ", ATTR{queue/rotational}==\"0\"";
    const ROTATING: &str = ", ATTR{queue/rotational}==\"1\"";
    match rule {
        Rule::Set(value) if tunable.needs.contains(&Need::SolidState) => {
            vec![(REAL.into(), STILL, value.text()), (VIRTUAL.into(), "", value.text())]
        }
        Rule::Set(value) => vec![(format!("{REAL}|{VIRTUAL}"), "", value.text())],
        Rule::Computed(Computation::DiskScheduler) => vec![
            (REAL.into(), STILL, "none".into()),
            (REAL.into(), ROTATING, "mq-deadline".into()),
            (VIRTUAL.into(), "", "none".into()),
        ],
        Rule::Computed(Computation::DiskSchedulerBySata) => vec![
            (REAL.into(), STILL, "none".into()),
            (REAL.into(), ROTATING, "mq-deadline".into()),
            ("sd*[!0-9]".into(), ", DEVPATH==\"*/ata[0-9]*\"", "mq-deadline".into()),
            (VIRTUAL.into(), "", "none".into()),
        ],
        _ => Vec::new(),
    }
}

/// Link files of systemd-networkd, one per card of the host: the profile's settings that interrupt the link for a moment, applied
/// when the card appears, when nobody is connected yet. Paths and texts.
pub fn links(exporting: &Exporting<'_>) -> Vec<(String, String)> {
    let path = |name: &str| format!("systemd/network/60-ringmq{name}.link");
    match exporting.on.map_or(&[][..], |(host, _)| host.nics.as_slice()) {
        [] => vec![(path(""), link(exporting, None))],
        [one] => vec![(path(""), link(exporting, Some(one)))],
        several => several.iter().map(|nic| (path(&format!("-{}", nic.name)), link(exporting, Some(nic)))).collect(),
    }
}

fn link(exporting: &Exporting<'_>, nic: Option<&Nic>) -> String {
    let (profile, plan) = (&exporting.profile.name, exporting.on.map(|(_, plan)| plan));
    // A name that udev itself gave matches nothing.
    let matched = match nic.map(|nic| (&nic.name, &nic.address)) {
        None => {
            "# Give the card's address: `ringmq tune export` on the host does it.\nPermanentMACAddress=CARD\n".into()
        }
        Some((name, Some((address, true)))) => format!("# {name}\nPermanentMACAddress={address}\n"),
        Some((name, Some((address, false)))) => format!("# {name}\nMACAddress={address}\n"),
        Some((name, None)) => format!("OriginalName={name}\n"),
    };
    let mut text = format!(
        "# Profile {profile}. Read by udev when the card appears, before anybody is connected.\n\
         [Match]\n{matched}\n[Link]\n\
         # As in systemd's own default file, which this one replaces for the card.\n\
         NamePolicy=keep kernel database onboard slot path\n\
         MACAddressPolicy=persistent\n"
    );
    for (tunable, rule) in writing(exporting) {
        let Some(setting) = tunable.setting else { continue };
        let value = match said(plan, nic.map(|nic| nic.name.as_str()), tunable, rule) {
            Said::Value(value) => value,
            Said::Bound(value) => {
                let _ = writeln!(text, "# {}{} {value}", only_if(rule), tunable.id);
                continue;
            }
            Said::Words(words) => {
                let _ = writeln!(text, "# {}: {words}", tunable.id);
                continue;
            }
        };
        text += &comment(tunable);
        let yes = if value == "on" { "yes" } else { "no" };
        let _ = match setting {
            CardSetting::CombinedChannels => writeln!(text, "CombinedChannels={value}"),
            CardSetting::RxRing => writeln!(text, "RxBufferSize={value}"),
            CardSetting::TxRing => writeln!(text, "TxBufferSize={value}"),
            CardSetting::AdaptiveRx => writeln!(text, "UseAdaptiveRxCoalesce={yes}"),
            CardSetting::RxUsecs => writeln!(text, "RxCoalesceSec={value}us"),
            CardSetting::Gro => writeln!(text, "GenericReceiveOffload={yes}"),
            CardSetting::Tso => writeln!(text, "TCPSegmentationOffload={yes}"),
            CardSetting::Gso => writeln!(text, "GenericSegmentationOffload={yes}"),
            CardSetting::Lro => writeln!(text, "LargeReceiveOffload={yes}"),
            CardSetting::PauseRx => writeln!(text, "RxFlowControl={yes}"),
            CardSetting::PauseTx => writeln!(text, "TxFlowControl={yes}"),
            CardSetting::Eee => writeln!(text, "# ethtool --set-eee CARD eee {value} (no key of this file)"),
            CardSetting::Ntuple => writeln!(text, "NTupleFilter={yes}"),
        };
    }
    text
}
