//! Which formats of our own files this version knows, and files that a newer one has written.
//!
//! A newer file must be told from a damaged one: damage makes a start fall back to the generation before, or to RocketMQ's rules,
//! and write over it. So every format of a file keeps its beginning: the name and the number. A file counts as newer only if it is
//! whole as far as that can be known: a flipped bit in the number is damage. Only in `queue-offsets` nothing covers the number, and
//! there a higher one is believed.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::paths::StorePaths;
use super::{durable_point, queue_flushed, queue_offsets};
use crate::disk::{Disk, read_file};

/// A file that a newer version has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewerFormat {
    /// The file.
    pub path: PathBuf,
    /// The number of its format.
    pub found: u32,
    /// The newest that this version knows.
    pub known: u32,
}

impl NewerFormat {
    /// What is to be said of the file, without its name.
    pub fn text(&self) -> String {
        let Self { found, known, .. } = self;
        format!(
            "it has format {found}, this version of RingMQ knows format {known}: a newer version wrote it, use that one"
        )
    }
}

impl fmt::Display for NewerFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path.display(), self.text())
    }
}

/// The files of a store whose formats are newer than what this version knows. Nothing is changed.
///
/// # Errors
/// The file system does not answer.
pub fn newer(disk: &dyn Disk, paths: &StorePaths) -> io::Result<Vec<NewerFormat>> {
    let mut found = Vec::new();
    let path = paths.durable_point();
    let bytes = read_file(disk, &path)?.unwrap_or_default();
    found.extend(durable_point::newer_format(&bytes).map(|found| (path, found, durable_point::FORMAT)));
    let path = paths.queue_flushed();
    let bytes = read_file(disk, &path)?.unwrap_or_default();
    found.extend(queue_flushed::newer_format(&bytes).map(|found| (path, found, queue_flushed::FORMAT)));
    let newer = queue_offsets::newer_format(disk, paths)?;
    found.extend(newer.map(|(path, found)| (path, found, queue_offsets::FORMAT)));
    Ok(found.into_iter().map(|(path, found, known)| NewerFormat { path, found, known }).collect())
}

/// The number of a format behind a file's name and a space, if it is above `known`.
pub(super) fn number_above(text: &[u8], name: &str, known: u32) -> Option<u32> {
    let rest = text.strip_prefix(name.as_bytes())?.strip_prefix(b" ")?;
    let digits = rest.split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|found| *found > known)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::{create_directories_durably, write_file};
    use crate::recovery::adopt;
    use crate::recovery::durable_point::{DurablePoint, DurablePointFile};
    use crate::recovery::queue_flushed::QueueFlushedFile;
    use crate::recovery::queue_offsets::QueueOffsets;
    use crate::sim::SimDisk;
    use crate::types::PhysicalOffset;

    /// A store with all of our files, the sidecar in two generations.
    fn store() -> (SimDisk, StorePaths) {
        let (disk, paths) = (SimDisk::new(), StorePaths::new("/store"));
        create_directories_durably(&disk, &paths.own()).unwrap();
        let mut file = DurablePointFile::open(&disk, &paths).unwrap();
        for offset in 1..4 {
            file.advance(DurablePoint { offset: PhysicalOffset(offset), last_record: None }).unwrap();
            QueueOffsets { log_offset: PhysicalOffset(offset), ..QueueOffsets::default() }
                .persist(&disk, &paths)
                .unwrap();
        }
        QueueFlushedFile::open(&disk, &paths, Some("a-boot".to_owned())).unwrap().note(PhysicalOffset(3)).unwrap();
        (disk, paths)
    }

    /// What the files would be if a newer version had written them: the number is another one, and whatever covers it fits.
    fn queue_flushed_of(format: u32) -> Vec<u8> {
        let content = format!("ringmq-queue-flushed {format} a-boot 3 and-more");
        format!("{content} {:08x}     \n", crc32fast::hash(content.as_bytes())).into_bytes()
    }

    fn queue_offsets_of(format: u32) -> Vec<u8> {
        let content = "{\"newer\":true}";
        let head =
            format!("ringmq-queue-offsets {format} {:08x} {}", crc32fast::hash(content.as_bytes()), content.len());
        format!("{head}\n{content}").into_bytes()
    }

    fn found(disk: &SimDisk, paths: &StorePaths) -> Vec<(PathBuf, u32, u32)> {
        let newer = newer(disk, paths).unwrap();
        let blockers = adopt::blockers(disk, paths).unwrap();
        let texts: Vec<_> = newer.iter().map(|newer| (newer.path.clone(), newer.text())).collect();
        let blocking: Vec<_> = blockers.into_iter().map(|blocker| (blocker.path, blocker.text)).collect();
        assert_eq!(texts, blocking, "each of them speaks against a start");
        newer.into_iter().map(|newer| (newer.path, newer.found, newer.known)).collect()
    }

    #[test]
    fn newer_files_are_found_in_every_place() {
        // Goal: a file of a newer version is named wherever it is, and what this version wrote is not. Method: a store of our own; then
        // each file in a newer format: both slots of the durable point, the sidecar, its backup with the sidecar missing or damaged.
        let (disk, paths) = store();
        assert_eq!(found(&disk, &paths), []);
        for (slot, digits, number) in [(0, b"02", 2), (4096, b"17", 17)] {
            let (disk, paths) = store();
            // The slot's own check covers the number: here it does not fit either form.
            disk.damage(&paths.durable_point(), slot + 6, digits).unwrap();
            disk.damage(&paths.durable_point(), slot + 30, b"other").unwrap();
            assert_eq!(found(&disk, &paths), [(paths.durable_point(), number, 1)]);
        }
        write_file(&disk, &paths.queue_flushed(), &queue_flushed_of(2)).unwrap();
        assert_eq!(found(&disk, &paths), [(paths.queue_flushed(), 2, 1)]);
        let (disk, paths) = store();
        write_file(&disk, &paths.queue_offsets(), &queue_offsets_of(3)).unwrap();
        assert_eq!(found(&disk, &paths), [(paths.queue_offsets(), 3, 2)]);
        let (disk, paths) = store();
        let backup = Path::new("/store/ringmq/queue-offsets.bak");
        write_file(&disk, backup, &queue_offsets_of(4)).unwrap();
        assert_eq!(found(&disk, &paths), [], "nobody asks the backup of a file that is whole");
        for content in [&b"damaged"[..], b""] {
            write_file(&disk, &paths.queue_offsets(), content).unwrap();
            assert_eq!(found(&disk, &paths), [(backup.to_path_buf(), 4, 2)]);
        }
    }

    #[test]
    fn damage_is_not_taken_for_a_newer_format() {
        // Goal: a start goes on with the generation before, as it does with any damage. Method: flip each bit of each file.
        let (_, paths) = store();
        let flip = |path: &Path| {
            let (disk, paths) = store();
            let bytes = read_file(&disk, path).unwrap().unwrap();
            let meaning = bytes.len().min(48);
            let mut believed: Vec<u32> = Vec::new();
            for (at, bit) in (0..meaning).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                disk.damage(path, at as u64, &[bytes[at] ^ 1 << bit]).unwrap();
                believed.extend(found(&disk, &paths).into_iter().map(|(_, found, _)| found));
                disk.damage(path, at as u64, &[bytes[at]]).unwrap();
            }
            believed
        };
        assert!(flip(&paths.durable_point()).is_empty());
        assert!(flip(&paths.queue_flushed()).is_empty());
        assert_eq!(flip(&paths.queue_offsets()), [3, 5, 9], "nothing covers the number");
    }
}
