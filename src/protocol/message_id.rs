//! Message ids: the offset id that leads back into the commit log (`MessageDecoder.createMessageId`), and the unique key
//! that producers make (`MessageClientIDSetter`).

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::text::{hex_upper, hex_upper_of, hex_value, write_hex_upper};

/// Characters of an offset id with an IPv4 host; 56 with an IPv6 host.
pub const MESSAGE_ID_V4_CHARACTERS: usize = 32;
/// Characters of an offset id with an IPv6 host.
pub const MESSAGE_ID_V6_CHARACTERS: usize = 56;

/// A text that is no offset message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MessageIdError {
    /// Neither 32 nor 56 characters.
    #[error("a message id has 32 or 56 characters, not {0}")]
    Length(usize),
    /// Something that is no hexadecimal digit.
    #[error("a message id consists of hexadecimal digits")]
    Digit,
    /// The port is above 65535.
    #[error("the port {0} of the message id is out of range")]
    Port(u32),
}

/// What all offset ids of a broker begin with, in digits: made once, because every answer to a send has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageIdPrefix {
    digits: [u8; MESSAGE_ID_V6_CHARACTERS],
    length: usize,
}

impl MessageIdPrefix {
    /// The prefix of a broker with this advertised address. IPv4 addresses inside IPv6 ones count as IPv4.
    pub fn of(store_host: SocketAddr) -> MessageIdPrefix {
        let port = u32::from(store_host.port()).to_be_bytes();
        let mut digits = [0; MESSAGE_ID_V6_CHARACTERS];
        let mut length = 0;
        let mut put = |bytes: &[u8]| {
            for byte in bytes {
                digits[length..length + 2].copy_from_slice(&hex_upper(*byte));
                length += 2;
            }
        };
        match store_host.ip().to_canonical() {
            IpAddr::V4(address) => put(&address.octets()),
            IpAddr::V6(address) => put(&address.octets()),
        }
        put(&port);
        MessageIdPrefix { digits, length }
    }

    /// Its digits.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.digits[..self.length]
    }
}

/// Appends the offset ids of records, joined by commas.
pub fn write_message_ids(out: &mut Vec<u8>, prefix: &MessageIdPrefix, physical_offsets: &[i64]) {
    let prefix = prefix.as_bytes();
    out.reserve(physical_offsets.len() * (prefix.len() + 17));
    for (index, offset) in physical_offsets.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(prefix);
        out.extend_from_slice(&hex_upper_of(*offset));
    }
}

/// The offset id of one record.
pub fn encode_message_id(store_host: SocketAddr, physical_offset: i64) -> String {
    let mut out = Vec::with_capacity(MESSAGE_ID_V6_CHARACTERS);
    write_message_ids(&mut out, &MessageIdPrefix::of(store_host), &[physical_offset]);
    out.into_iter().map(char::from).collect()
}

/// Host and physical offset of an offset id; digits of either case.
///
/// # Errors
/// The text is none. Java decodes any length but 32 as IPv6 and fails later; here the length must be right.
pub fn decode_message_id(id: &str) -> Result<(SocketAddr, i64), MessageIdError> {
    let digits = id.as_bytes();
    if digits.len() != MESSAGE_ID_V4_CHARACTERS && digits.len() != MESSAGE_ID_V6_CHARACTERS {
        return Err(MessageIdError::Length(digits.len()));
    }
    let mut bytes = [0u8; MESSAGE_ID_V6_CHARACTERS / 2];
    let count = digits.len() / 2;
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = [hex_value(pair[0]), hex_value(pair[1])].map(|digit| digit.ok_or(MessageIdError::Digit));
        *byte = high? << 4 | low?;
    }
    let (address, rest) = bytes[..count].split_at(count - 12);
    let ip = match (<[u8; 4]>::try_from(address), <[u8; 16]>::try_from(address)) {
        (Ok(octets), _) => IpAddr::from(octets),
        (_, Ok(octets)) => IpAddr::from(octets),
        _ => return Err(MessageIdError::Length(digits.len())),
    };
    let mut port = [0u8; 4];
    let mut offset = [0u8; 8];
    port.copy_from_slice(&rest[..4]);
    offset.copy_from_slice(&rest[4..]);
    let port = u32::from_be_bytes(port);
    let short_port = u16::try_from(port).map_err(|_| MessageIdError::Port(port))?;
    Ok((SocketAddr::new(ip, short_port), i64::from_be_bytes(offset)))
}

/// What a unique key is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniqueKeyParts {
    /// Address of the maker.
    pub ip: IpAddr,
    /// Low 16 bits of the process id.
    pub process_id: u16,
    /// Any constant of the process (Java: hash of the class loader).
    pub process_constant: u32,
    /// Milliseconds since the first day of the current month, 00:00 local time.
    pub month_ms: u32,
    /// Counts messages, wraps.
    pub counter: u16,
}

/// Appends a unique key: 32 characters with an IPv4 address, 56 with an IPv6 one.
pub fn write_unique_key(out: &mut Vec<u8>, parts: &UniqueKeyParts) {
    match parts.ip.to_canonical() {
        IpAddr::V4(address) => write_hex_upper(out, &address.octets()),
        IpAddr::V6(address) => write_hex_upper(out, &address.octets()),
    }
    write_hex_upper(out, &parts.process_id.to_be_bytes());
    write_hex_upper(out, &parts.process_constant.to_be_bytes());
    write_hex_upper(out, &parts.month_ms.to_be_bytes());
    write_hex_upper(out, &parts.counter.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: ids lead back to host and offset. Method: known ids of both address families, and damaged ones.
    #[test]
    fn offset_ids_round_trip() {
        let v4: SocketAddr = "127.0.0.1:10911".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:10911".parse().unwrap();
        assert_eq!(encode_message_id(v4, 4096), "7F00000100002A9F0000000000001000");
        assert_eq!(encode_message_id(v6, 2), "20010DB800000000000000000000000100002A9F0000000000000002");
        assert_eq!(decode_message_id("7f00000100002a9f0000000000001000"), Ok((v4, 4096)));
        assert_eq!(decode_message_id(&encode_message_id(v6, -5)), Ok((v6, -5)));
        assert_eq!(decode_message_id("7F"), Err(MessageIdError::Length(2)));
        assert_eq!(decode_message_id(&"G".repeat(32)), Err(MessageIdError::Digit));
        assert_eq!(decode_message_id(&"F".repeat(32)), Err(MessageIdError::Port(u32::MAX)));
        let mut joined = Vec::new();
        write_message_ids(&mut joined, &MessageIdPrefix::of(v4), &[4096, 1]);
        assert_eq!(joined, b"7F00000100002A9F0000000000001000,7F00000100002A9F0000000000000001");
    }

    /// Goal: unique keys have Java's shape. Method: one of each address family, from known parts.
    #[test]
    fn unique_keys_have_the_right_shape() {
        let mut parts = UniqueKeyParts {
            ip: "127.0.0.1".parse().unwrap(),
            process_id: 0x1234,
            process_constant: 0xaabb_ccdd,
            month_ms: 1,
            counter: 0xffff,
        };
        let mut out = Vec::new();
        write_unique_key(&mut out, &parts);
        assert_eq!(out, b"7F0000011234AABBCCDD00000001FFFF");
        parts.ip = "::1".parse().unwrap();
        out.clear();
        write_unique_key(&mut out, &parts);
        assert_eq!(out.len(), 56);
    }
}
