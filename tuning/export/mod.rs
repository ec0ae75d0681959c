//! Files for operators who want no tool: sysctl.d, tmpfiles.d, limits, udev rules, network links, and units. Generated
//! from the same catalogue.
//!
//! Invariant: the same host and profile give the same bytes. Without a host only what holds on every one is written.

mod files;
mod units;

pub use units::{TUNE_DROP_IN, TUNE_UNIT, broker_unit, tune_drop_in, tune_unit};

use crate::catalogue::{Catalogue, Profile};
use crate::plan::Plan;

/// A file to write, below the directory that the operator names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedFile {
    /// Path below that directory, laid out as below `/etc`.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// All files of a profile, for the host of the plan if there is one. `program` and `arguments` are those of the tool in
/// the boot-time unit.
pub fn files(
    catalogue: &Catalogue,
    profile: &Profile,
    plan: Option<&Plan>,
    program: &str,
    arguments: &str,
) -> Vec<ExportedFile> {
    let placement = plan.map(|plan| &plan.placement);
    let file = |path: &str, text: String| ExportedFile { path: path.into(), text };
    let mut all = vec![
        file("sysctl.d/60-ringmq.conf", files::sysctl(catalogue, profile, plan)),
        file("tmpfiles.d/60-ringmq.conf", files::tmpfiles(catalogue, profile, plan)),
        file("security/limits.d/60-ringmq.conf", files::limits()),
        file("udev/rules.d/60-ringmq.rules", files::udev(catalogue, profile, plan)),
        file("systemd/network/60-ringmq.link", files::link(catalogue, profile, plan)),
        file("systemd/system/ringmq.service", broker_unit(catalogue, placement, program)),
        file("systemd/system/ringmq-tune.service", tune_unit(&profile.name, program, arguments)),
    ];
    if let Some(placement) = placement.filter(|placement| !placement.is_shared()) {
        all.push(file("systemd/system/irqbalance.service.d/60-ringmq.conf", units::irqbalance(placement)));
    }
    all
}
