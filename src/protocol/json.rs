//! The JSON dialect of RocketMQ bodies and state files: what the Java library fastjson 1.x writes and accepts.
//!
//! Invariants:
//! * Reading never panics, whatever the bytes. Depth, node count and the growth by back references are bounded
//!   ([`limits`]), so the memory that a body can take is a small multiple of its length.
//! * Writing is deterministic: object members are sorted by key, members that are null are left out, and there is no
//!   white space in the compact forms.
//! * No state: every function here is pure.
//!
//! The dialect, where it leaves the JSON standard: member names may be unquoted, single-quoted or numbers; a map whose
//! key is an object is written `{{"queueId":0,..}:5}`; a repeated object is a back reference `{"$ref":"$.a.b[0]"}`;
//! numbers and booleans may be strings; enums are names or ordinals; member names match whatever their case.

mod enums;
pub mod fuzz;
pub mod limits;
mod parse;
mod read;
mod refs;
mod write;

#[cfg(test)]
mod tests;

pub use enums::{JsonEnum, lenient_enum, lenient_enum_option};
pub use parse::parse;
pub use read::{from_slice, from_value};
pub use serde_json::Value;
pub use write::{to_fastjson, to_fastjson_pretty, to_standard};

/// Why bytes are not a value of the dialect, or not a value of the wanted type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The bytes end inside a value.
    #[error("JSON ends early at byte {at}")]
    UnexpectedEnd {
        /// Byte position.
        at: usize,
    },
    /// A byte that cannot stand at its position.
    #[error("unexpected byte 0x{byte:02x} in JSON at byte {at}")]
    UnexpectedByte {
        /// The byte.
        byte: u8,
        /// Its position.
        at: usize,
    },
    /// A string that is not UTF-8, or an escape that is malformed.
    #[error("malformed JSON string at byte {at}")]
    BadString {
        /// Position of the string or of the escape.
        at: usize,
    },
    /// A number that does not parse.
    #[error("malformed JSON number at byte {at}")]
    BadNumber {
        /// Position of the number.
        at: usize,
    },
    /// Deeper than [`limits::MAX_DEPTH`].
    #[error("JSON is nested deeper than {} levels", limits::MAX_DEPTH)]
    TooDeep,
    /// More values than [`limits::MAX_NODES`].
    #[error("JSON holds more than {} values", limits::MAX_NODES)]
    TooLarge,
    /// A `$ref` that names nothing, or contains itself.
    #[error("back reference {path:?} in JSON does not resolve")]
    BadReference {
        /// The reference as written.
        path: String,
    },
    /// Valid JSON, but not of the wanted type.
    #[error("JSON does not have the expected form: {0}")]
    Type(String),
}

impl serde::de::Error for JsonError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        JsonError::Type(message.to_string())
    }
}

impl serde::ser::Error for JsonError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        JsonError::Type(message.to_string())
    }
}
