//! What was changed on a host, with the old values: a text file of tabulated lines, appended and synced before each
//! change, so that a crash at any point leaves enough to bring everything back.
//!
//! Format, version 1. A line is complete when its line end is there; anything behind the last line end was never acted
//! on. Tabs within values are written `\t`; values hold no backslash and no line end.
//!
//! ```text
//! ringmq-tune 1
//! boot     ID                                             the kernel's identity of the boot that the values belong to
//! profile  NAME                                           changes below were made for this profile
//! set      NAME TARGET OLD NEW UNDO-TARGET UNDO-VALUE     about to write NEW into TARGET
//! done     TARGET NEW READ-BACK                           written; this is what the kernel made of it
//! failed   TARGET                                         the kernel refused
//! made     PATH                                           about to make this file, or folder if it ends with /
//! ```
//!
//! Invariants: it is written under the lock of its folder only ([`lock`]). Lines are only appended, but for a revert, which replaces the file by what it could not bring back, or
//! removes it. Settings of another boot are void: the reboot undid them. Files outlive a reboot.

use std::io;

use crate::plan::{Change, Target};
use crate::probe::{FolderLock, System};

/// Where the journal is.
pub const PATH: &str = "/var/lib/ringmq-tune/journal";
/// The folder that it is in, which is this tool's own.
pub const FOLDER: &str = "/var/lib/ringmq-tune/";
/// Its first line.
pub const HEADER: &str = "ringmq-tune 1";
/// First line of every file that is made; a file without it is not ours to remove.
pub const FILE_MARK: &str = "# Made by ringmq tune.";

/// Why a journal could not be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It could not be read or written.
    #[error("journal {PATH}: {0}")]
    Io(#[from] io::Error),
    /// Another process changes this host.
    #[error("another `ringmq tune` or script of it is changing this host; try again when it has ended")]
    Busy,
    /// It is of another version, or damaged.
    #[error("journal {PATH}, line {number}: {problem}")]
    Damaged {
        /// Line number, from 1.
        number: usize,
        /// What is wrong.
        problem: String,
    },
}

/// Keeps every other process from journal and host until it is dropped. Taken before the journal is read.
pub fn lock(system: &dyn System) -> Result<FolderLock, JournalError> {
    system.lock(FOLDER).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => JournalError::Busy,
        _ => error.into(),
    })
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// About to write.
    Set {
        /// The entry on its device.
        name: String,
        /// Where.
        target: Target,
        /// The value before.
        old: String,
        /// The value to be written.
        new: String,
        /// Where to write to bring it back.
        undo_target: Target,
        /// What to write to bring it back.
        undo_value: String,
    },
    /// Written.
    Done {
        /// Where.
        target: Target,
        /// The value that was written.
        new: String,
        /// The value that was read afterwards.
        read_back: String,
    },
    /// Refused by the kernel.
    Failed {
        /// Where.
        target: Target,
    },
    /// About to make a file.
    Made {
        /// Its path; a folder's ends with `/`.
        path: String,
    },
    /// The profile of the lines below.
    Profile(String),
}

/// A journal in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Journal {
    /// The boot that the settings belong to.
    pub boot_id: String,
    /// Its lines, but for the first two.
    pub entries: Vec<Entry>,
    /// Whether an incomplete line at the end was left out.
    pub torn: bool,
}

fn encode(value: &str) -> String {
    value.replace('\t', "\\t")
}

fn decode(value: &str) -> String {
    value.replace("\\t", "\t")
}

impl Entry {
    /// The line, with its end.
    pub fn line(&self) -> String {
        let fields = match self {
            Entry::Set { name, target, old, new, undo_target, undo_value } => vec![
                "set".into(),
                name.clone(),
                target.name(),
                encode(old),
                encode(new),
                undo_target.name(),
                encode(undo_value),
            ],
            Entry::Done { target, new, read_back } => {
                vec!["done".into(), target.name(), encode(new), encode(read_back)]
            }
            Entry::Failed { target } => vec!["failed".into(), target.name()],
            Entry::Made { path } => vec!["made".into(), path.clone()],
            Entry::Profile(name) => vec!["profile".into(), name.clone()],
        };
        fields.join("\t") + "\n"
    }

    fn parse(line: &str) -> Option<Entry> {
        let fields: Vec<&str> = line.split('\t').collect();
        Some(match fields.as_slice() {
            ["set", name, target, old, new, undo_target, undo_value] => Entry::Set {
                name: (*name).into(),
                target: Target::of_name(target)?,
                old: decode(old),
                new: decode(new),
                undo_target: Target::of_name(undo_target)?,
                undo_value: decode(undo_value),
            },
            ["done", target, new, read_back] => {
                Entry::Done { target: Target::of_name(target)?, new: decode(new), read_back: decode(read_back) }
            }
            ["failed", target] => Entry::Failed { target: Target::of_name(target)? },
            ["made", path] if path.starts_with("/etc/") && !path.split('/').any(|part| part == "..") => {
                Entry::Made { path: (*path).into() }
            }
            ["profile", name] => Entry::Profile((*name).into()),
            _ => return None,
        })
    }

    /// The line that precedes a change.
    pub fn of_change(change: &Change) -> Entry {
        Entry::Set {
            name: change.name.clone(),
            target: change.target.clone(),
            old: change.old.clone(),
            new: change.new.clone(),
            undo_target: change.undo.target.clone(),
            undo_value: change.undo.value.clone(),
        }
    }
}

impl Journal {
    /// The journal of a host; `None` if nothing was changed.
    pub fn read(system: &dyn System) -> Result<Option<Journal>, JournalError> {
        let text = match system.read(PATH) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Journal::parse(&text)
    }

    /// A journal from its text; `None` if it is so torn that nothing can have been changed.
    pub fn parse(text: &str) -> Result<Option<Journal>, JournalError> {
        let complete = text.rfind('\n').map_or("", |end| &text[..=end]);
        let mut journal = Journal { torn: complete.len() < text.len(), ..Journal::default() };
        let mut lines = complete.lines().enumerate().map(|(index, line)| (index + 1, line));
        let damaged = |number: usize, problem: &str| JournalError::Damaged { number, problem: problem.into() };
        match lines.next() {
            None => return Ok(None),
            Some((_, HEADER)) => {}
            Some((number, _)) => return Err(damaged(number, "not a journal of this version")),
        }
        match lines.next().map(|(number, line)| (number, line.strip_prefix("boot\t"))) {
            None => return Ok(None),
            Some((_, Some(boot_id))) => journal.boot_id = boot_id.into(),
            Some((number, None)) => return Err(damaged(number, "no boot")),
        }
        for (number, line) in lines {
            journal.entries.push(Entry::parse(line).ok_or_else(|| damaged(number, "not understood"))?);
        }
        Ok(Some(journal))
    }

    /// The whole file.
    pub fn text(&self) -> String {
        let lines: String = self.entries.iter().map(Entry::line).collect();
        format!("{HEADER}\nboot\t{}\n{lines}", self.boot_id)
    }

    /// The profile that was applied last, if anything of it may still hold.
    pub fn profile(&self) -> Option<&str> {
        self.entries.iter().rev().find_map(|entry| match entry {
            Entry::Profile(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether this value was written before and the kernel made this of it.
    pub fn knows(&self, target: &Target, new: &str, read_back: &str) -> bool {
        self.entries.iter().any(|entry| {
            matches!(entry, Entry::Done { target: place, new: value, read_back: made }
                if place == target && value == new && made == read_back)
        })
    }

    /// What outlives a reboot.
    pub fn files(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| matches!(entry, Entry::Made { .. }))
    }
}

/// The journal while changes are made: opened at the first one, so that a run without changes writes nothing.
pub struct Recorder<'system> {
    system: &'system dyn System,
    profile: String,
    boot_id: String,
    journal: Option<Journal>,
    begun: bool,
}

impl<'system> Recorder<'system> {
    /// Reads what is there. Settings of another boot are forgotten at the first change.
    pub fn open(system: &'system dyn System, profile: &str, boot_id: &str) -> Result<Self, JournalError> {
        let journal = Journal::read(system)?;
        Ok(Recorder { system, profile: profile.into(), boot_id: boot_id.into(), journal, begun: false })
    }

    /// What earlier changes of this boot left.
    pub fn earlier(&self) -> Option<&Journal> {
        self.journal.as_ref().filter(|journal| journal.boot_id == self.boot_id)
    }

    /// Appends a line and syncs it.
    pub fn record(&mut self, entry: &Entry) -> Result<(), JournalError> {
        if !self.begun {
            self.begin()?;
            self.begun = true;
        }
        Ok(self.system.append_synced(PATH, &entry.line())?)
    }

    /// Whether the journal is of this boot and says that this profile is applied.
    pub fn is_of_profile(&self) -> bool {
        self.earlier().is_some_and(|journal| journal.profile() == Some(self.profile.as_str()))
    }

    /// Writes down the profile, if nothing else is to be.
    pub fn begin(&mut self) -> Result<(), JournalError> {
        let usable = self.journal.as_ref().filter(|journal| journal.boot_id == self.boot_id && !journal.torn);
        if let Some(journal) = usable {
            if journal.profile() != Some(self.profile.as_str()) {
                self.system.append_synced(PATH, &Entry::Profile(self.profile.clone()).line())?;
            }
            return Ok(());
        }
        // None, one that ends within a line, or one of another boot.
        let kept = match &self.journal {
            Some(journal) if journal.boot_id == self.boot_id => journal.entries.clone(),
            Some(journal) => journal.files().cloned().collect(),
            None => Vec::new(),
        };
        let mut fresh = Journal { boot_id: self.boot_id.clone(), entries: kept, torn: false };
        if fresh.profile() != Some(self.profile.as_str()) {
            fresh.entries.push(Entry::Profile(self.profile.clone()));
        }
        Ok(self.system.replace_synced(PATH, &fresh.text())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swappiness() -> Entry {
        let target = Target::File("/proc/sys/vm/swappiness".into());
        Entry::Set {
            name: "vm.swappiness".into(),
            undo_target: target.clone(),
            target,
            old: "4096\t1\t2".into(),
            new: "1".into(),
            undo_value: "4096\t1\t2".into(),
        }
    }

    #[test]
    fn a_journal_round_trips() {
        // Goal: what is written is what is read, tabs included. Method: one entry of each kind.
        let target = Target::File("/proc/sys/vm/swappiness".into());
        let entries = vec![
            Entry::Profile("latency".into()),
            swappiness(),
            Entry::Done { target: target.clone(), new: "1".into(), read_back: "1\t1".into() },
            Entry::Failed { target },
            Entry::Made { path: "/etc/systemd/system/ringmq-tune.service".into() },
        ];
        let journal = Journal { boot_id: "b".into(), entries, torn: false };
        assert_eq!(Journal::parse(&journal.text()).expect("sound"), Some(journal.clone()));
        assert_eq!(journal.profile(), Some("latency"));
    }

    #[test]
    fn a_torn_end_is_left_out() {
        // Goal: a crash within an append costs that line only. Method: cut the text at every byte.
        let journal =
            Journal { boot_id: "b".into(), entries: vec![Entry::Profile("p".into()), swappiness()], torn: false };
        let text = journal.text();
        for cut in 0..text.len() {
            let parsed = Journal::parse(&text[..cut]).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
            let entries = parsed.map_or(0, |journal| journal.entries.len());
            assert!(entries < 2, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        // Goal: a forged or newer journal changes nothing. Method: one bad line each.
        for (text, line) in [
            ("ringmq-tune 2\n", 1),
            ("ringmq-tune 1\nset\n", 2),
            ("ringmq-tune 1\nboot\tb\nmade\t/usr/bin/sh\n", 3),
            ("ringmq-tune 1\nboot\tb\nset\tn\t/etc/passwd\ta\tb\t/etc/passwd\ta\n", 3),
        ] {
            match Journal::parse(text) {
                Err(JournalError::Damaged { number, .. }) => assert_eq!(number, line, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
