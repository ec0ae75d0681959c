//! Room that is kept back for small state files, so that what must not be forgotten can be written on a full disk.
//!
//! A file of allocated blocks that holds nothing. Whoever finds no room for a state file gives it up and tries again; as a
//! state file replaces one of about its size, most of the room is there again afterwards, and is taken back at once. The
//! rest comes back when the disk has room ([`Reserve::refill`]). One thread owns it.

use std::io;
use std::path::PathBuf;

use super::{Disk, OpenOptions, StateFileError, is_no_space, remove_if_present};

/// What is kept back: enough for the queue offsets of 50,000 queues.
pub const RESERVE_BYTES: u64 = 1 << 20;
/// Less than this is not worth a file.
const LEAST_BYTES: u64 = 64 << 10;

/// See the module's text.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    is_full: bool,
}

impl Reserve {
    /// A reserve at `path`, which is not looked at before the first [`Self::refill`].
    pub fn new(path: PathBuf) -> Self {
        Self { path, is_full: false }
    }

    /// Takes as much room as there is, up to the whole. To be called now and then; does nothing while nothing is missing.
    /// True when all of it is there.
    pub fn refill(&mut self, disk: &dyn Disk) -> io::Result<bool> {
        if self.is_full {
            return Ok(true);
        }
        let file = disk.open(&self.path, OpenOptions { create: true, ..OpenOptions::default() })?;
        let held = file.length()?;
        let mut wanted = RESERVE_BYTES;
        while wanted > held && wanted >= LEAST_BYTES {
            match file.allocate(wanted) {
                Ok(()) => break,
                Err(error) if is_no_space(&error) => wanted /= 2,
                Err(error) => return Err(error),
            }
        }
        self.is_full = held.max(wanted) >= RESERVE_BYTES;
        Ok(self.is_full)
    }

    /// Writes a state file; without room for it, once more without the reserve.
    pub fn write(
        &mut self,
        disk: &dyn Disk,
        mut write: impl FnMut() -> Result<(), StateFileError>,
    ) -> Result<(), StateFileError> {
        match write() {
            Err(StateFileError::Io { source, .. }) if is_no_space(&source) => {}
            outcome => return outcome,
        }
        self.is_full = false;
        remove_if_present(disk, &self.path).map_err(|source| StateFileError::Io {
            action: "give up",
            path: self.path.clone(),
            source,
        })?;
        let outcome = write();
        // What cannot be had now is asked for again with the next refill.
        let _ = self.refill(disk);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::{StateFile, create_directories_durably, write_file};
    use crate::sim::SimDisk;

    fn content(disk: &SimDisk, path: &str) -> usize {
        crate::disk::read_file(disk, Path::new(path)).unwrap().map_or(0, |bytes| bytes.len())
    }

    /// On a disk that others have filled, state files are written with the room of the reserve, again and again as long as they
    /// keep their size; one that is larger than all the room is refused, and the one before it stays. When there is room again
    /// the reserve is whole again.
    #[test]
    fn state_files_are_written_on_a_full_disk() {
        let disk = SimDisk::new();
        create_directories_durably(&disk, Path::new("/store/ringmq")).unwrap();
        disk.set_capacity(Some(4 << 20));
        let mut reserve = Reserve::new("/store/ringmq/reserve".into());
        assert!(reserve.refill(&disk).unwrap());
        let file = StateFile::new("/store/ringmq/queue-offsets");
        let write = |bytes: usize| file.persist(&disk, &vec![b'x'; bytes], |_| true);
        reserve.write(&disk, || write(100_000)).unwrap();
        // Somebody else takes all that is left.
        let filler = |number: u32| {
            let path = format!("/store/filler-{number}");
            let page = vec![0; 4096];
            let file = disk.open(Path::new(&path), OpenOptions { create: true, ..OpenOptions::default() }).unwrap();
            (0..).take_while(|index| file.write_all_at(&page, index * 4096).is_ok()).count()
        };
        assert!(filler(0) > 500);
        assert!(is_no_space(&write_file(&disk, Path::new("/store/more"), &[1; 9000]).unwrap_err()));
        for round in 1..20 {
            reserve.write(&disk, || write(100_000 + round)).unwrap();
            assert_eq!(content(&disk, "/store/ringmq/queue-offsets"), 100_000 + round);
            filler(round as u32);
        }
        let error = reserve.write(&disk, || write(3 << 20)).unwrap_err();
        assert!(matches!(error, StateFileError::Io { source, .. } if is_no_space(&source)));
        assert_eq!(content(&disk, "/store/ringmq/queue-offsets"), 100_019);
        disk.remove_file(Path::new("/store/filler-0")).unwrap();
        assert!(reserve.refill(&disk).unwrap());
        assert_eq!(content(&disk, "/store/ringmq/reserve") as u64, RESERVE_BYTES);
    }

    /// An error that is not for want of room is passed on, and the reserve stays.
    #[test]
    fn other_errors_do_not_cost_the_reserve() {
        let disk = SimDisk::new();
        create_directories_durably(&disk, Path::new("/store/ringmq")).unwrap();
        let mut reserve = Reserve::new("/store/ringmq/reserve".into());
        assert!(reserve.refill(&disk).unwrap());
        let mut tries = 0;
        let outcome = reserve.write(&disk, || {
            tries += 1;
            Err(StateFileError::Unreadable { path: "/x".into(), reason: "no".to_owned() })
        });
        assert!(outcome.is_err() && tries == 1);
        assert_eq!(content(&disk, "/store/ringmq/reserve") as u64, RESERVE_BYTES);
    }
}
