//! `ringmq/queue-flushed`: up to where the queue files are complete as long as this kernel runs.
//!
//! Syncing thousands of queue files each second is out of the question, and after the mere death of the process it is not
//! needed: what was written is still in the page cache. So the flush thread notes, without a sync, the log offset up to which
//! every queue entry has been written, together with the kernel's boot id. A recovery under the same boot id believes it;
//! after a power cut or a reboot the id differs, and the synced offset of [`QueueOffsets`](super::queue_offsets) counts. A failed
//! write or sync of log or queue files takes the note back, since a page that could not be written looks as good as any
//! other. If the process dies before it can do so, the proof catches it that the next one owes
//! ([`QueueStore::owe_proof`](crate::queue::QueueStore::owe_proof)).
//!
//! Form: one line, `ringmq-queue-flushed 1 {boot id} {offset} {crc32 of what is before, 8 hex digits}\n`, padded with spaces to
//! a fixed length, so that it is replaced by a single write inside one page. Every format is one such line: name and number at its
//! beginning, at its end the check of all before.

use std::io;

use super::StorePaths;
use super::formats::number_above;
use crate::disk::{Disk, DiskFile, OpenOptions, read_file};
use crate::types::PhysicalOffset;

const NAME: &str = "ringmq-queue-flushed";
/// The number behind it.
pub(super) const FORMAT: u32 = 1;

/// Where the kernel says which run of it this is.
pub const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Longest id that is believed; Linux has 36 bytes.
const MAXIMUM_ID_BYTES: usize = 64;

/// Length of the file in bytes.
const FILE_BYTES: usize = 128;

/// What identifies this run of the kernel; `None` where it cannot be told, and then nothing is ever believed.
pub fn boot_id(disk: &dyn Disk) -> Option<String> {
    // The kernel says that the file has no bytes, so its length is not asked.
    let file = disk.open(BOOT_ID_FILE.as_ref(), OpenOptions::default()).ok()?;
    let mut text = [0; 2 * MAXIMUM_ID_BYTES];
    let length = file.read_at(&mut text, 0).ok()?;
    let id = std::str::from_utf8(&text[..length]).ok()?.trim().to_owned();
    (!id.is_empty() && id.len() <= MAXIMUM_ID_BYTES && !id.contains(char::is_whitespace)).then_some(id)
}

/// The file, open for being replaced.
pub struct QueueFlushedFile {
    file: Box<dyn DiskFile>,
    boot_id: Option<String>,
}

impl QueueFlushedFile {
    /// Opens or creates the file.
    pub fn open(disk: &dyn Disk, paths: &StorePaths, boot_id: Option<String>) -> io::Result<Self> {
        let options = OpenOptions { create: true, ..OpenOptions::default() };
        Ok(Self::of_file(disk.open(&paths.queue_flushed(), options)?, boot_id))
    }

    /// A file that is open already.
    pub fn of_file(file: Box<dyn DiskFile>, boot_id: Option<String>) -> Self {
        Self { file, boot_id }
    }

    /// Notes that every queue entry of a record below `offset` has been written to its file.
    pub fn note(&self, offset: PhysicalOffset) -> io::Result<()> {
        let Some(boot_id) = &self.boot_id else { return Ok(()) };
        self.file.write_all_at(&encode(boot_id, offset), 0)
    }

    /// Takes everything back: after an error of the log the page cache may show what the disk does not have, and the next
    /// start must not believe it.
    pub fn distrust(&self) -> io::Result<()> {
        self.file.write_all_at(&[b' '; FILE_BYTES], 0)
    }
}

/// Takes back what the file says, if there is one: for a start that failed before it could open it for itself.
pub fn distrust(disk: &dyn Disk, paths: &StorePaths) -> io::Result<()> {
    match disk.open(&paths.queue_flushed(), OpenOptions { write: true, ..OpenOptions::default() }) {
        Ok(file) => QueueFlushedFile { file, boot_id: None }.distrust(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn encode(boot_id: &str, offset: PhysicalOffset) -> [u8; FILE_BYTES] {
    let content = format!("{NAME} {FORMAT} {boot_id} {offset}");
    let line = format!("{content} {:08x}", crc32fast::hash(content.as_bytes()));
    let mut bytes = [b' '; FILE_BYTES];
    bytes[..line.len()].copy_from_slice(line.as_bytes());
    bytes[FILE_BYTES - 1] = b'\n';
    bytes
}

/// The line without its check, if that fits.
fn checked(bytes: &[u8]) -> Option<&str> {
    let (content, crc) = std::str::from_utf8(bytes).ok()?.trim_end().rsplit_once(' ')?;
    (u32::from_str_radix(crc, 16).ok()? == crc32fast::hash(content.as_bytes())).then_some(content)
}

fn decode(bytes: &[u8], boot_id: &str) -> Option<PhysicalOffset> {
    let rest = checked(bytes)?.strip_prefix(NAME)?.trim_start();
    let (id, offset) = rest.strip_prefix(&format!("{FORMAT} "))?.split_once(' ')?;
    if id != boot_id {
        return None;
    }
    offset.parse().ok().map(PhysicalOffset)
}

/// The format, if a newer version has written the file.
pub(super) fn newer_format(bytes: &[u8]) -> Option<u32> {
    number_above(checked(bytes)?.as_bytes(), NAME, FORMAT)
}

/// The offset that was noted under `boot_id`; `None` if there is none, or it belongs to another run of the kernel.
pub fn load(disk: &dyn Disk, paths: &StorePaths, boot_id: Option<&str>) -> io::Result<Option<PhysicalOffset>> {
    let Some(boot_id) = boot_id else { return Ok(None) };
    let bytes = read_file(disk, &paths.queue_flushed())?;
    Ok(bytes.and_then(|bytes| decode(&bytes, boot_id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    /// The running kernel has an id, and it is the same when asked again.
    #[test]
    fn this_kernel_has_an_id() {
        let id = boot_id(&RealDisk);
        assert!(id.as_ref().is_some_and(|id| id.len() >= 32), "{id:?}");
        assert_eq!(boot_id(&RealDisk), id);
    }

    /// Only what was noted under this boot id may be believed: another id, a torn or a changed line count as nothing.
    #[test]
    fn believes_only_its_own_boot() {
        let bytes = encode("0f1e2d3c-aaaa", PhysicalOffset(123_456));
        assert_eq!(decode(&bytes, "0f1e2d3c-aaaa"), Some(PhysicalOffset(123_456)));
        assert_eq!(decode(&bytes, "another"), None);
        for index in 0..bytes.len() - 1 {
            if bytes[index] != b' ' {
                let mut changed = bytes;
                changed[index] ^= 1;
                assert_eq!(decode(&changed, "0f1e2d3c-aaaa"), None, "byte {index}");
            }
        }
        assert_eq!(decode(&[b' '; FILE_BYTES], "0f1e2d3c-aaaa"), None);
        for length in 0..40 {
            assert_eq!(decode(&bytes[..length], "0f1e2d3c-aaaa"), None);
        }
    }
}
