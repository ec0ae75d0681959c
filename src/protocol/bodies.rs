//! JSON bodies of requests and answers, and the state files that share their forms.
//!
//! Each type mirrors a Java class of RocketMQ: same members, same defaults, same JSON keys. Reading is lenient
//! ([`crate::json`]); writing gives the bytes that Java would write. Fields are declared in the order of their JSON keys,
//! so that the writer has nothing to sort. Numbers keep Java's signed types.

mod client;
mod common;
mod group;
pub mod limits;
mod lock;
mod offset;
mod register;
mod route;
mod topic;

#[cfg(test)]
mod tests;

pub use client::*;
pub use common::*;
pub use group::*;
pub use lock::*;
pub use offset::*;
pub use register::*;
pub use route::*;
pub use topic::*;

use crate::json::{JsonError, from_slice, to_fastjson};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A body that is a JSON object.
pub trait JsonBody: Serialize + DeserializeOwned {
    /// Reads a body; anything but an object of this form is an error.
    fn decode(body: &[u8]) -> Result<Self, JsonError> {
        from_slice(body)
    }

    /// The bytes that the Java class would send.
    fn encode(&self) -> Vec<u8> {
        to_fastjson(self)
    }
}

impl<T: Serialize + DeserializeOwned> JsonBody for T {}
