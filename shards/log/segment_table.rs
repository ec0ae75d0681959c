//! Names, sizes and load rules of the commit log's files (RocketMQ `MappedFileQueue`, `UtilAll.offset2FileName`).
//!
//! Everything here is arithmetic and one directory listing; nobody keeps state. A file is named after the physical
//! offset of its first byte, in 20 digits, and all files have one size.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{DIRECT_ALIGNMENT, Disk};
use crate::types::PhysicalOffset;

/// RocketMQ's `mappedFileSizeCommitLog`: 1 GiB.
pub const DEFAULT_SEGMENT_BYTES: u64 = 1 << 30;
/// The largest size that Java can map: its sizes are signed 32-bit integers, ours also multiples of 4,096.
pub const MAX_SEGMENT_BYTES: u64 = (1 << 31) - DIRECT_ALIGNMENT;
/// Digits of a file name.
const NAME_DIGITS: usize = 20;

/// Why the files of the log cannot be used, or a change of them failed.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The configured size cannot be used.
    #[error("segment size {bytes} is not a multiple of 4096 between 4096 and {MAX_SEGMENT_BYTES}")]
    SizeInvalid {
        /// What was configured.
        bytes: u64,
    },
    /// A file has another length than configured.
    #[error("{path} has {length} bytes where the configured segment size is {expected}; refusing to touch the log")]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// Its length.
        length: u64,
        /// The configured size.
        expected: u64,
    },
    /// A file's name is no multiple of the size.
    #[error("{path} does not start at a multiple of the configured segment size {size}")]
    Misaligned {
        /// The file.
        path: PathBuf,
        /// The configured size.
        size: u64,
    },
    /// Files are missing between two others.
    #[error("the log has a gap: {path} is missing between {before} and {after}")]
    Gap {
        /// The first missing file.
        path: PathBuf,
        /// Name of the file before the gap.
        before: String,
        /// Name of the file after the gap.
        after: String,
    },
    /// There is no room. Nothing was left behind; trying again later is right.
    #[error("no space to prepare {path}: {source}")]
    NoSpace {
        /// The segment that was to be made.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl SegmentError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

/// The size of each file of a log, in bytes; checked once, then trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSize(u64);

impl SegmentSize {
    /// Checks a configured size.
    pub fn new(bytes: u64) -> Result<Self, SegmentError> {
        if bytes.is_multiple_of(DIRECT_ALIGNMENT) && (DIRECT_ALIGNMENT..=MAX_SEGMENT_BYTES).contains(&bytes) {
            return Ok(Self(bytes));
        }
        Err(SegmentError::SizeInvalid { bytes })
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// Start of the segment that holds a byte.
    pub fn start_of(self, offset: PhysicalOffset) -> PhysicalOffset {
        PhysicalOffset(offset.0 - offset.0 % self.0)
    }

    /// Position of a byte within its file.
    pub fn position_in_file(self, offset: PhysicalOffset) -> u64 {
        offset.0 % self.0
    }

    /// Bytes from `offset` to the end of its segment; the whole size at a boundary.
    pub fn bytes_left(self, offset: PhysicalOffset) -> u64 {
        self.0 - self.position_in_file(offset)
    }

    /// Start of the segment after the one that holds `offset`.
    pub fn next_start(self, offset: PhysicalOffset) -> PhysicalOffset {
        PhysicalOffset(self.start_of(offset).0 + self.0)
    }

    /// Start of the segment that holds the byte before `offset`: at a boundary the segment that ends there.
    pub fn start_of_byte_before(self, offset: PhysicalOffset) -> PhysicalOffset {
        self.start_of(PhysicalOffset(offset.0.saturating_sub(1)))
    }
}

/// The name of the file that starts at an offset: 20 digits.
pub fn file_name(start: PhysicalOffset) -> String {
    format!("{:0NAME_DIGITS$}", start.0)
}

/// The start offset that a file name stands for; `None` when it is no segment's name.
pub fn parse_file_name(name: &str) -> Option<PhysicalOffset> {
    let digits = name.len() == NAME_DIGITS && name.bytes().all(|byte| byte.is_ascii_digit());
    let start = digits.then(|| name.parse::<u64>().ok()).flatten()?;
    (start <= i64::MAX as u64).then_some(PhysicalOffset(start))
}

/// The segments that exist, oldest first, without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentTable {
    /// The size of each.
    pub size: SegmentSize,
    /// Where each starts.
    pub starts: Vec<PhysicalOffset>,
    /// What an operator should know, as sentences.
    pub warnings: Vec<String>,
}

impl SegmentTable {
    /// Lowest offset that the files hold.
    pub fn min(&self) -> Option<PhysicalOffset> {
        self.starts.first().copied()
    }

    /// Offset behind the last file.
    pub fn limit(&self) -> Option<PhysicalOffset> {
        self.starts.last().map(|start| PhysicalOffset(start.0 + self.size.bytes()))
    }
}

/// Lists the log's files under the rules of RocketMQ: a last file of length zero is removed, any other length than the
/// configured one refuses, so does a gap. Files with other names are left alone and reported. A missing directory is an
/// empty log.
pub fn load_table(disk: &dyn Disk, directory: &Path, size: SegmentSize) -> Result<SegmentTable, SegmentError> {
    let entries = match disk.list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(SegmentError::io("list", directory))?,
    };
    let (mut segments, mut foreign) = (Vec::new(), Vec::new());
    for entry in entries.into_iter().filter(|entry| !entry.is_directory) {
        match parse_file_name(&entry.name) {
            Some(start) => segments.push((start, entry)),
            None => foreign.push(entry.name),
        }
    }
    segments.sort_by_key(|(start, _)| *start);
    let mut warnings = Vec::new();
    if !foreign.is_empty() {
        warnings.push(format!(
            "{} holds files that are no log segments, ignored: {}",
            directory.display(),
            foreign.join(", ")
        ));
    }
    if let Some((_, last)) = segments.last().filter(|(_, last)| last.length == 0) {
        let path = directory.join(&last.name);
        disk.remove_file(&path).map_err(SegmentError::io("remove the empty file", &path))?;
        disk.sync_directory(directory).map_err(SegmentError::io("sync directory", directory))?;
        warnings.push(format!("removed {}, which was created but never allocated", path.display()));
        segments.pop();
    }
    for (start, entry) in &segments {
        let path = directory.join(&entry.name);
        if entry.length != size.bytes() {
            return Err(SegmentError::WrongLength { path, length: entry.length, expected: size.bytes() });
        }
        if size.position_in_file(*start) != 0 {
            return Err(SegmentError::Misaligned { path, size: size.bytes() });
        }
    }
    let starts: Vec<PhysicalOffset> = segments.iter().map(|(start, _)| *start).collect();
    for pair in starts.windows(2) {
        let expected = size.next_start(pair[0]);
        if pair[1] != expected {
            let path = directory.join(file_name(expected));
            return Err(SegmentError::Gap { path, before: file_name(pair[0]), after: file_name(pair[1]) });
        }
    }
    Ok(SegmentTable { size, starts, warnings })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::{OpenOptions, create_directories_durably};
    use crate::sim::SimDisk;

    const SIZE: u64 = 8192;

    fn disk_with(files: &[(&str, u64)]) -> SimDisk {
        let disk = SimDisk::new();
        create_directories_durably(&disk, Path::new("/log")).unwrap();
        for (name, length) in files {
            let path = Path::new("/log").join(name);
            let file = disk.open(&path, OpenOptions { create: true, ..OpenOptions::default() }).unwrap();
            file.set_length(*length).unwrap();
        }
        disk
    }

    fn load(files: &[(&str, u64)]) -> Result<SegmentTable, String> {
        load_table(&disk_with(files), Path::new("/log"), SegmentSize::new(SIZE).unwrap())
            .map_err(|error| error.to_string())
    }

    const FIRST: &str = "00000000000000008192";
    const SECOND: &str = "00000000000000016384";
    const THIRD: &str = "00000000000000024576";

    /// Each load rule, one row: what lies in the directory, and what comes out of it.
    #[test]
    fn load_rules() {
        assert_eq!(load(&[]).unwrap().starts, []);
        let whole = load(&[(SECOND, SIZE), (FIRST, SIZE)]).unwrap();
        assert_eq!(whole.starts, [PhysicalOffset(8192), PhysicalOffset(16384)]);
        assert_eq!((whole.min(), whole.limit()), (Some(PhysicalOffset(8192)), Some(PhysicalOffset(24576))));
        let short = load(&[(FIRST, 100), (SECOND, SIZE)]).unwrap_err();
        assert!(short.contains(FIRST) && short.contains("100 bytes"), "{short}");
        assert!(load(&[(FIRST, SIZE), (SECOND, 1)]).unwrap_err().contains(SECOND));
        assert!(load(&[(FIRST, 0), (SECOND, SIZE)]).unwrap_err().contains("0 bytes"));
        let gap = load(&[(FIRST, SIZE), (THIRD, SIZE)]).unwrap_err();
        assert!(gap.contains("gap") && gap.contains(SECOND), "{gap}");
        assert!(load(&[("00000000000000000001", SIZE)]).unwrap_err().contains("multiple"));
        let foreign = load(&[(FIRST, SIZE), ("notes.txt", 3), ("123", 3)]).unwrap();
        assert_eq!(foreign.starts.len(), 1);
        assert!(foreign.warnings[0].contains("123, notes.txt"));
        let missing = load_table(&SimDisk::new(), Path::new("/none"), SegmentSize::new(SIZE).unwrap()).unwrap();
        assert!(missing.starts.is_empty());
    }

    /// An empty last file is removed durably and reported; the log is what remains.
    #[test]
    fn an_empty_last_file_is_removed() {
        let disk = disk_with(&[(FIRST, SIZE), (SECOND, 0)]);
        let table = load_table(&disk, Path::new("/log"), SegmentSize::new(SIZE).unwrap()).unwrap();
        assert_eq!(table.starts, [PhysicalOffset(8192)]);
        assert!(table.warnings[0].contains(SECOND));
        let after = disk.crash(0, crate::sim::CrashPattern::KeepNone);
        assert!(!after.exists(&Path::new("/log").join(SECOND)).unwrap());
    }

    /// Only sizes that direct I/O and Java can both use are accepted.
    #[test]
    fn sizes_are_checked() {
        for bytes in [0, 1, 4095, 4097, 1 << 31, u64::MAX] {
            assert!(SegmentSize::new(bytes).is_err(), "{bytes}");
        }
        for bytes in [4096, DEFAULT_SEGMENT_BYTES, MAX_SEGMENT_BYTES] {
            assert_eq!(SegmentSize::new(bytes).unwrap().bytes(), bytes);
        }
    }

    proptest! {
        /// The arithmetic is a bijection: segment start plus position gives the offset back, and names round-trip.
        #[test]
        fn arithmetic_agrees_with_itself(pages in 1u64..1000, offset in 0u64..(1 << 60)) {
            let size = SegmentSize::new(pages * 4096).unwrap();
            let offset = PhysicalOffset(offset);
            prop_assert_eq!(size.start_of(offset).0 + size.position_in_file(offset), offset.0);
            prop_assert_eq!(offset.0 + size.bytes_left(offset), size.next_start(offset).0);
            prop_assert!(size.start_of_byte_before(offset) <= size.start_of(offset));
            prop_assert_eq!(parse_file_name(&file_name(offset)), Some(offset));
        }
    }
}
