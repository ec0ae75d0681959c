//! What can be measured, behind one trait: `remoting` (any RocketMQ broker), `null` (a server that only answers: the floor
//! of the network), `file` (append and sync: the floor of the disk), `storm` (connections instead of messages).
//!
//! A driver is owned by the generator's thread. Between the start of the measured phase and its end it does not allocate.

pub mod file;
pub mod null;
pub mod remoting;
pub mod storm;

use std::io;

use thiserror::Error;

use crate::load::ledger::Ledger;
use crate::load::recorder::Recorder;

/// What drivers write into.
#[derive(Debug)]
pub struct Books {
    /// Times and counts.
    pub recorder: Recorder,
    /// Messages.
    pub ledger: Ledger,
}

/// Why a driver cannot go on.
#[derive(Debug, Error)]
pub enum DriverError {
    /// Nobody listens there.
    #[error("connect to {address}: {source}; is the broker running, and is this its port?")]
    Connect {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// This process has as many files open as it may.
    #[error(
        "connect to {address}: this process may have no more than {most} files open; raise the hard limit (ulimit -Hn)"
    )]
    TooManyFiles {
        /// Where.
        address: String,
        /// The limit.
        most: u64,
    },
    /// A connection that was open ended.
    #[error("the broker at {address} closed the connection{}", detail(.source.as_ref()))]
    Closed {
        /// Where.
        address: String,
        /// What the operating system says, if anything.
        source: Option<io::Error>,
    },
    /// The peer is no broker.
    #[error("{address} does not answer like a RocketMQ broker: {reason}")]
    Protocol {
        /// Where.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// A request without which the run makes no sense was refused.
    #[error("{address} refuses to {action}: code {code} {remark}")]
    Refused {
        /// Where.
        address: String,
        /// What was asked for.
        action: &'static str,
        /// Response code.
        code: i32,
        /// What it said.
        remark: String,
    },
    /// The operating system refuses something on this side.
    #[error("{action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

fn detail(source: Option<&io::Error>) -> String {
    source.map(|error| format!(": {error}")).unwrap_or_default()
}

/// A way to carry out operations.
pub trait Driver {
    /// Name of the operation: `send`, `append`, `connect`.
    fn operation(&self) -> &'static str;

    /// Starts the next operation. False: all places are taken, nothing was started.
    ///
    /// # Errors
    /// The driver cannot go on.
    fn start(&mut self, intended_ns: u64, books: &mut Books) -> Result<bool, DriverError>;

    /// Gives what was started to the kernel and books what has come. True if anything happened.
    ///
    /// # Errors
    /// The driver cannot go on; what was under way is still to be failed with [`Driver::fail_older`].
    fn turn(&mut self, books: &mut Books) -> Result<bool, DriverError>;

    /// Operations under way.
    fn in_flight(&self) -> u64;

    /// Gives up operations that were started before `started_before_ns`; their late answers are ignored.
    fn fail_older(&mut self, started_before_ns: u64, is_broken: bool, books: &mut Books);

    /// Whether consumers read while the load runs.
    fn has_consumers(&self) -> bool {
        false
    }

    /// Keeps consumers from reading, or lets them.
    fn hold_consumers(&mut self, _is_held: bool) {}

    /// Prepares to read everything back. False: this driver keeps nothing that could be read.
    ///
    /// # Errors
    /// The driver cannot go on.
    fn begin_verify(&mut self) -> Result<bool, DriverError> {
        Ok(false)
    }

    /// Whether everything has been read back (by further turns).
    fn is_verified(&self) -> bool {
        true
    }
}
