//! The seam between this crate and a host: reading and writing its files below a root directory, which is `/` or, in
//! tests, a folder that looks like one.
//!
//! Invariant: everything that changes a host goes through one of the five methods that are marked as changes; a test
//! can count them, or stop at any of them. Only the lock, which leaves nothing behind, does not count.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{card, live};
use crate::catalogue::CardSetting;

/// Folder of a fake root for what a real host does not keep in files.
pub const FAKE_FOLDER: &str = "/fake-root";

/// How often a folder may vanish between being opened and being locked before that counts as somebody else's lock.
const LOCK_ATTEMPTS: usize = 16;

/// Whether a file can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It can.
    Writable,
    /// Nobody can: the file or its file system is read-only.
    ReadOnly,
    /// This user cannot.
    Forbidden,
    /// It does not exist.
    Missing,
}

/// A host, as far as this crate touches it. Paths begin with `/` and are meant below the root.
pub trait System {
    /// Content of a file, as text.
    fn read(&self, path: &str) -> io::Result<String>;
    /// Names in a folder, sorted; none if there is no such folder.
    fn list(&self, path: &str) -> Vec<String>;
    /// Whether something is there.
    fn exists(&self, path: &str) -> bool;
    /// Where links lead, as a path below the root.
    fn resolve(&self, path: &str) -> Option<String>;
    /// Whether a file can be written.
    fn access(&self, path: &str) -> Access;
    /// Setting of a card and its greatest value, if it has one.
    fn card(&self, nic: &str, setting: CardSetting) -> io::Result<(String, Option<u64>)>;
    /// Whether a card's driver decided a setting for good.
    fn card_is_fixed(&self, nic: &str, setting: CardSetting) -> bool;
    /// Bytes that a directory's file system has free.
    fn free_bytes(&self, directory: &str) -> Option<u64>;
    /// Whether the root is that of the running kernel.
    fn is_live(&self) -> bool;
    /// Addresses of this host with their interfaces; none if nobody can be asked.
    fn addresses(&self) -> Vec<(String, IpAddr)> {
        if self.is_live() {
            return live::addresses();
        }
        let text = self.read(&format!("{FAKE_FOLDER}/addresses")).unwrap_or_default();
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        pairs.filter_map(|(name, address)| Some((name.into(), address.parse().ok()?))).collect()
    }
    /// The address that a card was made with, whatever it has been given since; `None` if it does not say.
    fn permanent_address(&self, nic: &str) -> Option<String> {
        if self.is_live() {
            return card::permanent_address(nic);
        }
        self.read(&format!("{FAKE_FOLDER}/cards/{nic}/permanent-address")).ok().map(|text| text.trim().into())
    }
    /// Bytes of a file and those that are really allocated to it.
    fn size_of(&self, path: &str) -> Option<(u64, u64)> {
        if self.is_live() {
            let attributes = fs::metadata(path).ok()?;
            return Some((attributes.len(), attributes.blocks() * 512));
        }
        let text = self.read(&format!("{FAKE_FOLDER}/sizes{}", path.replace('/', "-"))).ok()?;
        let (length, allocated) = text.trim().split_once(' ')?;
        Some((length.parse().ok()?, allocated.parse().ok()?))
    }
    /// Whether io_uring works for this process: `Ok`, or what the kernel says.
    fn try_io_uring(&self) -> io::Result<()> {
        if self.is_live() {
            return live::try_io_uring();
        }
        match self.read(&format!("{FAKE_FOLDER}/io-uring-error")) {
            Ok(code) => Err(io::Error::from_raw_os_error(code.trim().parse().unwrap_or(libc::ENOSYS))),
            Err(_) => Ok(()),
        }
    }

    /// Change: writes a value into an existing file, with a line end.
    fn write(&self, path: &str, value: &str) -> io::Result<()>;
    /// Change: sets a card.
    fn set_card(&self, nic: &str, setting: CardSetting, value: &str) -> io::Result<()>;
    /// Change: appends to a file, which is made if needed, folders included, and syncs it.
    fn append_synced(&self, path: &str, text: &str) -> io::Result<()>;
    /// Change: replaces a file as a whole, or makes it, folders included, and syncs it.
    fn replace_synced(&self, path: &str, text: &str) -> io::Result<()>;
    /// Change: removes a file, or, with `/` at the end, an empty folder.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Keeps all other processes from this folder's lock until the answer is dropped. The folder is made if needed, and
    /// removed at the end if it is empty then. Fails with [`io::ErrorKind::WouldBlock`] if somebody has the lock.
    fn lock(&self, folder: &str) -> io::Result<FolderLock>;
}

/// Whoever has this has the folder to itself, as far as others ask. The kernel lets go when a process dies.
#[derive(Debug)]
pub struct FolderLock {
    folder: PathBuf,
    held: File,
}

impl FolderLock {
    fn take(folder: PathBuf) -> io::Result<FolderLock> {
        for _ in 0..LOCK_ATTEMPTS {
            match fs::create_dir_all(&folder) {
                // Somebody removed it between two looks at it: it was there, and then it was not.
                Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
                    continue;
                }
                made => made?,
            }
            let held = match File::open(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            held.try_lock().map_err(io::Error::from)?;
            // Its last user may have removed the folder before this process had the lock: then it is a lock on nothing.
            let (mine, present) = (held.metadata()?, fs::metadata(&folder));
            if present.is_ok_and(|present| present.ino() == mine.ino() && present.dev() == mine.dev()) {
                return Ok(FolderLock { folder, held });
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // One that holds something stays. It goes while nobody else can have it.
        let _ = fs::remove_dir(&self.folder);
        // A process that another thread is just starting has a copy of the file, which would hold on to the lock.
        let _ = self.held.unlock();
    }
}

/// A root directory.
#[derive(Debug, Clone)]
pub struct RootSystem {
    root: PathBuf,
    live: bool,
}

impl RootSystem {
    /// A host below this directory. Fails if it does not exist.
    pub fn new(root: &Path) -> io::Result<RootSystem> {
        let root = root.canonicalize()?;
        let live = root == Path::new("/");
        Ok(RootSystem { root, live })
    }

    fn below(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn card_file(&self, nic: &str, setting: CardSetting) -> String {
        format!("{FAKE_FOLDER}/cards/{nic}/{}", setting.name())
    }

    fn sync_folder(path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

impl System for RootSystem {
    fn read(&self, path: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.below(path))?).into_owned())
    }

    fn list(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.below(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    fn exists(&self, path: &str) -> bool {
        self.below(path).exists()
    }

    fn resolve(&self, path: &str) -> Option<String> {
        let found = self.below(path).canonicalize().ok()?;
        let inside = found.strip_prefix(&self.root).ok()?;
        Some(format!("/{}", inside.to_str()?))
    }

    fn access(&self, path: &str) -> Access {
        let path = self.below(path);
        let Ok(attributes) = fs::metadata(&path) else { return Access::Missing };
        // Root passes every check of permissions, but the kernel refuses to write what nobody may write.
        if attributes.permissions().mode() & 0o222 == 0 {
            return Access::ReadOnly;
        }
        let Ok(name) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return Access::Missing };
        // SAFETY: the name ends with a zero byte and lives until the call returns.
        if unsafe { libc::access(name.as_ptr(), libc::W_OK) } == 0 {
            return Access::Writable;
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EROFS) => Access::ReadOnly,
            _ => Access::Forbidden,
        }
    }

    fn card(&self, nic: &str, setting: CardSetting) -> io::Result<(String, Option<u64>)> {
        if self.live {
            return card::get(nic, setting);
        }
        let file = self.card_file(nic, setting);
        let value = self.read(&file).map_err(|_| io::Error::from_raw_os_error(libc::EOPNOTSUPP))?;
        let maximum = self.read(&format!("{file}.max")).ok().and_then(|text| text.trim().parse().ok());
        Ok((value.trim().into(), maximum))
    }

    fn card_is_fixed(&self, nic: &str, setting: CardSetting) -> bool {
        if self.live {
            return card::is_fixed(nic, setting);
        }
        self.exists(&format!("{}.fixed", self.card_file(nic, setting)))
    }

    fn free_bytes(&self, directory: &str) -> Option<u64> {
        if !self.live {
            // A mount of its own has its own number.
            let own = self.read(&format!("{FAKE_FOLDER}/free-bytes{}", directory.replace('/', "-")));
            let text = own.or_else(|_| self.read(&format!("{FAKE_FOLDER}/free-bytes")));
            return text.ok()?.trim().parse().ok();
        }
        let existing = Path::new(directory).ancestors().find(|path| path.exists())?;
        let name = std::ffi::CString::new(existing.as_os_str().as_bytes()).ok()?;
        // SAFETY: statvfs is plain numbers, for which zero is a value.
        let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: the name ends with a zero byte, and both arguments live until the call returns.
        if unsafe { libc::statvfs(name.as_ptr(), &raw mut answer) } != 0 {
            return None;
        }
        answer.f_bavail.checked_mul(answer.f_frsize)
    }

    fn is_live(&self) -> bool {
        self.live
    }

    fn write(&self, path: &str, value: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).truncate(true).open(self.below(path))?;
        // One call: the kernel takes each write as a whole value.
        file.write_all(format!("{value}\n").as_bytes())
    }

    fn set_card(&self, nic: &str, setting: CardSetting, value: &str) -> io::Result<()> {
        if self.live {
            return card::set(nic, setting, value);
        }
        self.write(&self.card_file(nic, setting), value)
    }

    fn append_synced(&self, path: &str, text: &str) -> io::Result<()> {
        let path = self.below(path);
        let is_new = !path.exists();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        if is_new { RootSystem::sync_folder(&path) } else { Ok(()) }
    }

    fn replace_synced(&self, path: &str, text: &str) -> io::Result<()> {
        let path = self.below(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        RootSystem::sync_folder(&path)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        if let Some(folder) = path.strip_suffix('/') {
            return fs::remove_dir(self.below(folder));
        }
        let path = self.below(path);
        fs::remove_file(&path)?;
        // What a process that was killed within `replace_synced` may have left.
        let _ = fs::remove_file(path.with_extension("new"));
        RootSystem::sync_folder(&path)
    }
    fn lock(&self, folder: &str) -> io::Result<FolderLock> {
        FolderLock::take(self.below(folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_file_holds_no_lock() {
        // Goal: the lock ends when it is dropped, whoever has inherited the file. Method: a copy of it, as a fork makes.
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("own");
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("kept"), "").expect("a file");
        let lock = FolderLock::take(folder.clone()).expect("free");
        let copy = lock.held.try_clone().expect("a copy");
        assert_eq!(FolderLock::take(folder.clone()).expect_err("held").kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        drop(FolderLock::take(folder).expect("free again"));
        drop(copy);
    }

    #[test]
    fn a_folder_that_comes_and_goes_is_no_error() {
        // Goal: whoever asks for a lock gets it or hears that another has it, also while that one makes or removes the
        // folder. Method: threads that take and drop it in turn, as fast as they can.
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("var/lib/own");
        fs::create_dir_all(root.path().join("var/lib")).expect("folders");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        match FolderLock::take(folder.clone()) {
                            Ok(lock) => drop(lock),
                            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
                        }
                    }
                });
            }
        });
        assert!(!folder.exists(), "nothing is left behind");
    }
}
