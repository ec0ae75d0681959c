//! The one table of exit codes. Supervisors restart on some and page a human on others, so numbers never change
//! meaning.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// The command did what it was asked for; a server was stopped in order.
    Ok = 0,
    /// Something failed that has no code of its own.
    Failure = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// Another process uses the data directory.
    StoreLocked = 3,
    /// The kernel or a sandbox does not let the process use io_uring.
    IoUringUnavailable = 4,
    /// The log, or its queue files, could not be written or synced. Nothing was acknowledged since; look at the disk before
    /// starting again.
    LogWriteFailed = 5,
    /// The store is damaged: below what was known to be on disk, and a start was refused, or anywhere, and a check found it.
    RecoveryRefused = 6,
    /// An address or port to listen on is taken or not allowed.
    AddressUnavailable = 7,
    /// A server did not answer a client command, or refused it.
    ServerRefused = 8,
    /// The log is sound, but queue files, index or checkpoint do not fit it.
    NeedsRepair = 9,
    /// A store holds what RingMQ, or this version of it, cannot read.
    NotAdoptable = 10,
    /// A stop was broken off because it took too long: everything acknowledged is where it was promised to be, and the next start
    /// checks the log.
    StopTimedOut = 11,
    /// Stopped before everything was in order: by a second signal, or by one during the start.
    Interrupted = 130,
}

/// All codes with what they mean, in order.
pub const TABLE: &[(ExitStatus, &str)] = &[
    (ExitStatus::Ok, "done, or stopped in order"),
    (ExitStatus::Failure, "an error without a code of its own"),
    (ExitStatus::Usage, "wrong command line or configuration"),
    (ExitStatus::StoreLocked, "another process uses the data directory"),
    (ExitStatus::IoUringUnavailable, "io_uring is not available"),
    (ExitStatus::LogWriteFailed, "log or queue files could not be written or synced: look at the disk first"),
    (ExitStatus::RecoveryRefused, "the store is damaged: a start was refused, or a check found it"),
    (ExitStatus::AddressUnavailable, "an address or port cannot be listened on"),
    (ExitStatus::ServerRefused, "produce, consume: the server did not answer or refused"),
    (ExitStatus::NeedsRepair, "store verify, explain: files that follow from the log do not fit it"),
    (
        ExitStatus::NotAdoptable,
        "this store cannot be opened: another kind of broker, or a newer version of RingMQ, wrote it",
    ),
    (ExitStatus::StopTimedOut, "a stop took too long and was broken off: the next start checks the log"),
    (ExitStatus::Interrupted, "stopped by a second signal, or during the start"),
];

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> ExitCode {
        ExitCode::from(status as u8)
    }
}

/// The table for the help text.
pub fn help() -> String {
    let rows = TABLE.iter().map(|(status, meaning)| format!("  {:>3}  {meaning}", *status as u8));
    format!("Exit codes:\n{}", rows.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_documented() {
        // Goal: one meaning per number, and the README says the same. Method: order of the table, lines of the README.
        assert!(TABLE.is_sorted_by(|left, right| (left.0 as u8) < right.0 as u8));
        let readme = include_str!("../../README.md");
        for (status, meaning) in TABLE {
            assert!(readme.contains(&format!("| {} | {meaning} |", *status as u8)), "{status:?}");
        }
    }
}
