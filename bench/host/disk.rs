//! How full the disk of a folder is, as RocketMQ counts it: brokers remove messages from a full one, whether or not they were read.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// From this share on brokers remove the oldest files of their log at once (`diskSpaceCleanForciblyRatio`).
pub const CLEANED_SHARE: f64 = 0.85;
/// From this share on the stores of a measurement may bring the disk there.
pub const FULL_SHARE: f64 = 0.80;

/// Share of the disk that is in use, of what users may use; `None`: the folder is not there.
#[expect(clippy::cast_precision_loss, reason = "blocks of a disk are below 2^53")]
pub fn used_share(folder: &Path) -> Option<f64> {
    let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
    // SAFETY: an all-zero statvfs is a valid value, which the call fills.
    let mut status: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a zero byte and the structure is alive.
    let code = unsafe { libc::statvfs(path.as_ptr(), &raw mut status) };
    let used = status.f_blocks.saturating_sub(status.f_bfree);
    (code == 0).then(|| used as f64 / (used + status.f_bavail).max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a share for what is there, none for what is not. Method: the folder for temporary files, and a path below a file.
    #[test]
    fn shares() {
        let share = used_share(&std::env::temp_dir()).unwrap();
        assert!((0.0..=1.0).contains(&share), "{share}");
        assert_eq!(used_share(Path::new("/proc/self/status/nothing")), None);
    }
}
