//! Files for operators who want no tool: sysctl.d, tmpfiles.d, limits, udev rules, network links, and units. Generated
//! from the same catalogue.
//!
//! Invariant: the same host and profile give the same bytes. Without a host only what holds on every one is written.

mod files;
mod units;

pub use units::{CONFIG, DATA_DIR, Service, TUNE_DROP_IN, TUNE_UNIT, broker_unit, tune_drop_in, tune_unit};

use crate::catalogue::{Catalogue, Profile};
use crate::plan::{Choices, Plan};
use crate::probe::Host;

/// A file to write, below the directory that the operator names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedFile {
    /// Path below that directory, laid out as below `/etc`.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// What is exported.
#[derive(Debug, Clone, Copy)]
pub struct Exporting<'all> {
    /// Where the profile is from.
    pub catalogue: &'all Catalogue,
    /// The profile.
    pub profile: &'all Profile,
    /// Which of its entries. Of the classes only reboot matters, which adds a file for the boot loader: the others act before
    /// anybody is connected.
    pub choices: &'all Choices,
    /// The host that the files are for; `None`: any.
    pub on: Option<(&'all Host, &'all Plan)>,
    /// How the units call the program.
    pub service: &'all Service,
}

/// All files of a profile.
pub fn files(exporting: &Exporting<'_>) -> Vec<ExportedFile> {
    let Exporting { catalogue, profile, on, service, .. } = exporting;
    let placement = on.map(|(_, plan)| &plan.placement);
    let file = |path: &str, text: String| ExportedFile { path: path.into(), text };
    let mut all = vec![
        file("sysctl.d/60-ringmq.conf", files::sysctl(exporting)),
        file("tmpfiles.d/60-ringmq.conf", files::tmpfiles(exporting)),
        file("sysusers.d/60-ringmq.conf", files::sysusers()),
        file("security/limits.d/60-ringmq.conf", files::limits()),
        file("udev/rules.d/60-ringmq.rules", files::udev(exporting)),
    ];
    all.extend(files::boot_line(exporting).map(|text| file("default/grub.d/60-ringmq.cfg", text)));
    all.extend(files::links(exporting).into_iter().map(|(path, text)| file(&path, text)));
    all.push(file("systemd/system/ringmq.service", broker_unit(catalogue, placement, service)));
    all.push(file("systemd/system/ringmq-tune.service", tune_unit(&profile.name, service)));
    if let Some(placement) = placement.filter(|placement| !placement.is_shared()) {
        all.push(file("systemd/system/irqbalance.service.d/60-ringmq.conf", units::irqbalance(placement)));
    }
    all
}
