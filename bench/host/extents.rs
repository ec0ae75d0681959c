//! Into how many pieces the file system has put a file (`FS_IOC_FIEMAP`): a fragmented log is a slower one.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;

/// `struct fiemap` without room for extents: the kernel only counts them.
#[repr(C)]
#[derive(Default)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<Request>() == 32);

/// `_IOWR('f', 11, struct fiemap)`.
const FS_IOC_FIEMAP: libc::c_ulong = 0xC020_660B;

/// Extents of a file; `None`: the file system does not say.
pub fn extents(path: &Path) -> Option<u32> {
    let file = File::open(path).ok()?;
    let mut request = Request { length: u64::MAX, ..Request::default() };
    // SAFETY: the request is alive and as large as the number of the call says; without room the kernel writes no extents.
    let code = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, &raw mut request) };
    (code == 0).then_some(request.mapped_extents)
}

/// One line per file of a folder, sorted: name, bytes, extents. Empty if there is no such folder.
pub fn describe(folder: &Path) -> String {
    let mut lines: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let bytes = entry.metadata().ok().filter(fs::Metadata::is_file)?.len();
            let extents = extents(&entry.path()).map_or_else(|| "unknown".to_owned(), |count| count.to_string());
            Some(format!("{} {bytes} bytes, extents: {extents}\n", entry.file_name().to_string_lossy()))
        })
        .collect();
    lines.sort();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a file is described, whether or not its file system counts extents. Method: a file of some blocks, and no folder.
    #[test]
    fn describes_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, vec![7; 10_000]).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        assert!(extents(&path).is_none_or(|count| count >= 1));
        assert!(describe(folder.path()).starts_with("a 10000 bytes, extents: "));
        assert_eq!(describe(&folder.path().join("none")), "");
    }
}
