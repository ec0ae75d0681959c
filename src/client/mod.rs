//! Our own small client, for the command-line tools and the tests.
//!
//! The core is pure: [`ringmq_protocol::exchange`] (bytes to frames, answers to requests), [`requests`], [`answers`], [`route`],
//! [`message`] and [`retry`] take bytes and times as arguments. [`connection`] and [`blocking`] are the shell: standard
//! library sockets, one thread per client, every wait bounded.

pub mod answers;
pub mod blocking;
pub mod connection;
mod consume;
pub mod error;
pub mod limits;
pub mod message;
mod output;
mod produce;
mod reader;
pub mod requests;
pub mod retry;
pub mod route;
mod signals;
#[cfg(test)]
mod test_records;

pub use answers::{PullAnswer, PullStatus, SendReceipt};
pub use blocking::Client;
pub use connection::Connection;
pub use consume::consume;
pub use error::ClientError;
pub use message::Message;
pub use produce::produce;
pub use route::{Queue, Route};
