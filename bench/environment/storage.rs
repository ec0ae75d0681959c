//! The disk and the file system below a store.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Facts;

/// Files of a block device's queue.
const QUEUE_FILES: &[&str] = &[
    "scheduler",
    "nr_requests",
    "write_cache",
    "fua",
    "wbt_lat_usec",
    "discard_max_bytes",
    "read_ahead_kb",
    "nomerges",
    "rq_affinity",
    "rotational",
    "logical_block_size",
    "physical_block_size",
    "io_poll",
];

pub fn capture(facts: &mut Facts<'_>, data: &Path) {
    let data = existing(data);
    mount(facts, &data);
    space(facts, &data);
    let Ok(metadata) = std::fs::metadata(&data) else {
        facts.add("block", "device", None, "the data directory cannot be looked at");
        return;
    };
    let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    let base = format!("/sys/dev/block/{major}:{minor}");
    facts.add("block", "device", Some(format!("{major}:{minor}")), "");
    // A partition has no queue of its own: its disk is one folder up.
    let is_partition = facts.read(&format!("{base}/partition")).is_ok();
    let disk = if is_partition { format!("{base}/..") } else { base };
    facts.add_file("block", "model", &format!("{disk}/device/model"));
    facts.add_file("block", "size in 512-byte sectors", &format!("{disk}/size"));
    for file in QUEUE_FILES {
        facts.add_file("block", file, &format!("{disk}/queue/{file}"));
    }
}

/// The directory itself, or the nearest one above it that exists.
fn existing(data: &Path) -> PathBuf {
    let absolute = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    absolute.ancestors().find(|path| path.exists()).map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

/// The mount with the longest path that `data` lies below (`proc_pid_mountinfo(5)`). The path itself is not told.
fn mount(facts: &mut Facts<'_>, data: &Path) {
    let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    let best = facts
        .lines("/proc/self/mountinfo")
        .into_iter()
        .filter_map(|line| {
            let (mount, source) = line.split_once(" - ")?;
            let fields: Vec<&str> = mount.split(' ').collect();
            let place = PathBuf::from(*fields.get(4)?);
            let kind = source.split(' ').next()?.to_owned();
            let super_options = source.split(' ').nth(2).unwrap_or_default().to_owned();
            let options = format!("{},{super_options}", fields.get(5)?);
            data.starts_with(&place).then_some((place.components().count(), kind, options))
        })
        .max_by_key(|(length, _, _)| *length);
    let note = "not in /proc/self/mountinfo";
    facts.add("filesystem", "type", best.as_ref().map(|(_, kind, _)| kind.clone()), note);
    facts.add("filesystem", "mount options", best.map(|(_, _, options)| options), note);
}

fn space(facts: &mut Facts<'_>, data: &Path) {
    let mut status = MaybeUninit::<libc::statvfs>::zeroed();
    let path = CString::new(data.as_os_str().as_bytes()).unwrap_or_default();
    // SAFETY: the path is a C string and the structure is large enough; it is read only after success.
    let is_known = unsafe { libc::statvfs(path.as_ptr(), status.as_mut_ptr()) } == 0;
    // SAFETY: zeroed is a valid value of this plain structure, whether the call filled it or not.
    let status = unsafe { status.assume_init() };
    let bytes = |blocks: u64| is_known.then(|| (blocks * status.f_frsize).to_string());
    facts.add("filesystem", "size bytes", bytes(status.f_blocks), "statvfs");
    facts.add("filesystem", "available bytes", bytes(status.f_bavail), "statvfs");
}
