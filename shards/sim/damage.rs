//! Damage as disks and copies that went wrong make it: files cut short, tails of zeros, flipped bits, blocks of 4 KiB that
//! changed places or came twice. Chosen by a seed, so that an image can be made again; works on any [`Disk`].

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::SimRandom;
use crate::disk::{Disk, OpenOptions};

/// Bytes of a block that is swapped or duplicated; smaller in files that do not have two of them.
const BLOCK_BYTES: u64 = 4096;

/// A file that can be damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub length: u64,
}

/// One thing that happened to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// Everything from a length on is gone.
    Truncated(PathBuf, u64),
    /// Everything from a position on is zero.
    ZeroedTail(PathBuf, u64),
    /// One bit of a byte is the other one.
    FlippedBit(PathBuf, u64, u8),
    /// Two blocks changed places: positions and length.
    Swapped(PathBuf, u64, u64, u64),
    /// A block also stands where another one was: from, to, length.
    Duplicated(PathBuf, u64, u64, u64),
}

impl Damage {
    /// The name of the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Truncated(..) => "truncated",
            Self::ZeroedTail(..) => "zeroed tail",
            Self::FlippedBit(..) => "flipped bit",
            Self::Swapped(..) => "swapped blocks",
            Self::Duplicated(..) => "duplicated block",
        }
    }

    /// The damaged file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Truncated(path, ..)
            | Self::ZeroedTail(path, ..)
            | Self::FlippedBit(path, ..)
            | Self::Swapped(path, ..)
            | Self::Duplicated(path, ..) => path,
        }
    }

    /// Chooses what happens to a file. `used` says how many bytes of it mean anything: nothing happens behind them, but for a
    /// truncation.
    pub fn choose(random: &mut SimRandom, target: &Target, used: u64) -> Self {
        let path = target.path.clone();
        let used = used.clamp(1, target.length.max(1));
        let block = BLOCK_BYTES.min((used / 2).max(1));
        let blocks = (used / block).max(1);
        match random.below(6) {
            0 => Self::Truncated(path, random.below(target.length.max(1))),
            1 => Self::ZeroedTail(path, random.below(used)),
            2 | 3 => Self::FlippedBit(path, random.below(used), random.below(8) as u8),
            4 => Self::Swapped(path, random.below(blocks) * block, random.below(blocks) * block, block),
            _ => Self::Duplicated(path, random.below(blocks) * block, random.below(blocks) * block, block),
        }
    }

    /// Does it to the file.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn apply(&self, disk: &dyn Disk) -> io::Result<()> {
        let file = disk.open(self.path(), OpenOptions { write: true, ..OpenOptions::default() })?;
        let length = file.length()?;
        let read = |at: u64, bytes: u64| -> io::Result<Vec<u8>> {
            let mut buffer = vec![0; usize::try_from(bytes.min(length.saturating_sub(at))).unwrap_or(usize::MAX)];
            let count = file.read_at(&mut buffer, at)?;
            buffer.truncate(count);
            Ok(buffer)
        };
        match *self {
            Self::Truncated(_, to) => file.set_length(to.min(length)),
            Self::ZeroedTail(_, from) => {
                file.set_length(from.min(length))?;
                file.set_length(length)
            }
            Self::FlippedBit(_, at, bit) => {
                let byte = read(at, 1)?.first().map_or(0, |byte| byte ^ (1 << bit));
                file.write_all_at(&[byte], at)
            }
            Self::Swapped(_, first, second, bytes) => {
                let (one, other) = (read(first, bytes)?, read(second, bytes)?);
                file.write_all_at(&other, first)?;
                file.write_all_at(&one, second)
            }
            Self::Duplicated(_, from, to, bytes) => file.write_all_at(&read(from, bytes)?, to),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.path().display();
        match self {
            Self::Truncated(_, to) => write!(formatter, "{name}: truncated to {to} bytes"),
            Self::ZeroedTail(_, from) => write!(formatter, "{name}: zeros from byte {from} on"),
            Self::FlippedBit(_, at, bit) => write!(formatter, "{name}: bit {bit} of byte {at} flipped"),
            Self::Swapped(_, one, other, bytes) => {
                write!(formatter, "{name}: {bytes} bytes at {one} and {other} changed places")
            }
            Self::Duplicated(_, from, to, bytes) => {
                write!(formatter, "{name}: {bytes} bytes at {from} also stand at {to}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{create_directories_durably, read_file, write_file};
    use crate::sim::SimDisk;

    /// Goal: each kind does what it says. Method: a file of two different blocks and each kind of damage once.
    #[test]
    fn every_kind_of_damage() {
        let path = PathBuf::from("/d/f");
        let content: Vec<u8> = (0..8192u32).map(|at| (at / 4096 + 1) as u8).collect();
        let after = |damage: Damage| {
            let disk = SimDisk::new();
            create_directories_durably(&disk, Path::new("/d")).unwrap();
            write_file(&disk, &path, &content).unwrap();
            damage.apply(&disk).unwrap();
            read_file(&disk, &path).unwrap().unwrap()
        };
        assert_eq!(after(Damage::Truncated(path.clone(), 100)), content[..100]);
        let zeroed = after(Damage::ZeroedTail(path.clone(), 100));
        assert!(zeroed.len() == 8192 && zeroed[..100] == content[..100] && zeroed[100..].iter().all(|byte| *byte == 0));
        assert_eq!(after(Damage::FlippedBit(path.clone(), 5, 3))[5], 1 ^ 8);
        let swapped = after(Damage::Swapped(path.clone(), 0, 4096, 4096));
        assert_eq!((swapped[0], swapped[8191]), (2, 1));
        assert!(after(Damage::Duplicated(path.clone(), 4096, 0, 4096)).iter().all(|byte| *byte == 2));
    }
}
