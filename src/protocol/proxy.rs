//! The header by which a proxy tells whose connection it passes on (PROXY protocol, versions 1 and 2). Source: the specification
//! that HAProxy publishes, `NettyRemotingServer.HandshakeHandler`, netty's `HAProxyMessageDecoder`.
//!
//! It may stand once in front of the first frame. No frame begins like it that is shorter than 200 MiB. Nothing is copied, and a
//! header is judged as soon as the bytes have arrived that prove it wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// How a text header begins.
const TEXT_MARK: &[u8] = b"PROXY ";
/// Longest text header, its line end included.
pub const MAX_TEXT_BYTES: usize = 107;
/// How a binary header begins.
const BINARY_MARK: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What every binary header has: the mark, version and command, family, length.
const BINARY_PREFIX_BYTES: usize = 16;
/// Longest binary header.
pub const MAX_BINARY_BYTES: usize = BINARY_PREFIX_BYTES + u16::MAX as usize;

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// No such header: frames.
    Frames,
    /// That is not known yet, or the header is not complete. `total` is its whole length in bytes once that is known.
    NeedMore {
        /// Bytes of the whole header, if they are known.
        total: Option<usize>,
    },
    /// A whole header.
    Header {
        /// Its length in bytes.
        length: usize,
        /// Whose connection it is; `None` when the proxy speaks for itself, or the address is not one of the internet.
        source: Option<SocketAddr>,
    },
}

/// Why a header cannot be understood. What follows it cannot either: the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// A text header without an end.
    #[error("a header line exceeds {MAX_TEXT_BYTES} bytes")]
    TooLong,
    /// A text header that is not of the form `PROXY TCP4 source destination port port`.
    #[error("a header line is malformed")]
    BadLine,
    /// A version other than 2 in a binary header, or a command other than LOCAL and PROXY.
    #[error("version and command {0:#04x} are unknown")]
    UnknownCommand(u8),
    /// An unknown family or transport.
    #[error("address family {0:#04x} is unknown")]
    UnknownFamily(u8),
    /// A binary header that is shorter than the addresses of its family.
    #[error("{0} bytes are too few for the addresses")]
    TooShort(usize),
}

/// Whether a connection that begins with this byte may begin with a header.
pub fn may_begin_with(first: u8) -> bool {
    first == TEXT_MARK[0] || first == BINARY_MARK[0]
}

/// Looks at the first bytes of a connection.
///
/// # Errors
/// A header that cannot be understood.
pub fn read_start(bytes: &[u8]) -> Result<Start, ProxyError> {
    let begins_like = |mark: &[u8]| bytes.iter().zip(mark).all(|(byte, wanted)| byte == wanted);
    if begins_like(TEXT_MARK) {
        if bytes.len() < TEXT_MARK.len() { Ok(Start::NeedMore { total: None }) } else { read_text(bytes) }
    } else if begins_like(BINARY_MARK) {
        read_binary(bytes)
    } else {
        Ok(Start::Frames)
    }
}

fn read_text(bytes: &[u8]) -> Result<Start, ProxyError> {
    let seen = &bytes[..bytes.len().min(MAX_TEXT_BYTES)];
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return if seen.len() == MAX_TEXT_BYTES {
            Err(ProxyError::TooLong)
        } else {
            Ok(Start::NeedMore { total: None })
        };
    };
    let line = std::str::from_utf8(&seen[TEXT_MARK.len()..end]).map_err(|_| ProxyError::BadLine)?;
    let length = end + 2;
    let mut words = line.split(' ');
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(Start::Header { length, source: None });
    }
    let mut address = || words.next().and_then(|word| word.parse::<IpAddr>().ok()).ok_or(ProxyError::BadLine);
    let (source, destination) = (address()?, address()?);
    let mut port = || words.next().and_then(|word| word.parse::<u16>().ok()).ok_or(ProxyError::BadLine);
    let (source_port, _) = (port()?, port()?);
    let is_sound = match family {
        Some("TCP4") => source.is_ipv4() && destination.is_ipv4(),
        Some("TCP6") => source.is_ipv6() && destination.is_ipv6(),
        _ => false,
    };
    if !is_sound || words.next().is_some() {
        return Err(ProxyError::BadLine);
    }
    Ok(Start::Header { length, source: known(source, source_port) })
}

fn read_binary(bytes: &[u8]) -> Result<Start, ProxyError> {
    let is_local = match bytes.get(BINARY_MARK.len()) {
        None => return Ok(Start::NeedMore { total: None }),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(&other) => return Err(ProxyError::UnknownCommand(other)),
    };
    let Some(&[family, high, low]) = bytes.get(BINARY_MARK.len() + 1..BINARY_PREFIX_BYTES) else {
        return Ok(Start::NeedMore { total: None });
    };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    let length = BINARY_PREFIX_BYTES + rest;
    // Both addresses, then both ports; those of unix sockets are two paths.
    let needed = match family {
        0x00 => 0,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        other => return Err(ProxyError::UnknownFamily(other)),
    };
    if !is_local && rest < needed {
        return Err(ProxyError::TooShort(rest));
    }
    let Some(content) = bytes.get(BINARY_PREFIX_BYTES..length) else {
        return Ok(Start::NeedMore { total: Some(length) });
    };
    if is_local {
        return Ok(Start::Header { length, source: None });
    }
    let port = |at: usize| content.get(at..at + 2).map_or(0, |port| u16::from_be_bytes([port[0], port[1]]));
    let source = match family {
        0x11 | 0x12 => content.first_chunk::<4>().and_then(|ip| known(Ipv4Addr::from(*ip).into(), port(8))),
        0x21 | 0x22 => content.first_chunk::<16>().and_then(|ip| known(Ipv6Addr::from(*ip).into(), port(32))),
        _ => None,
    };
    Ok(Start::Header { length, source })
}

/// An address without a port tells nobody's (`RemotingHelper.getProxyProtocolAddress`).
fn known(ip: IpAddr, port: u16) -> Option<SocketAddr> {
    (port > 0).then(|| SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).expect("short");
        [&BINARY_MARK[..], &[command, family], &length.to_be_bytes(), content].concat()
    }

    /// Goal: whole headers are understood, and what follows them is not touched. Method: each kind with bytes behind it, and all of
    /// its prefixes.
    #[test]
    fn headers_are_read() {
        let v6 = "2001:db8::7".parse::<Ipv6Addr>().expect("an address").octets();
        let six = [&v6[..], &[0; 16], &[0x1f, 0x90, 0, 80], b"\x04\x00\x01x"].concat();
        let four = [10, 1, 2, 3, 10, 0, 0, 1, 0xc3, 0x50, 0x2a, 0x9f];
        let cases: [(Vec<u8>, Option<&str>); 10] = [
            (b"PROXY TCP4 10.1.2.3 10.0.0.1 50000 10911\r\n".to_vec(), Some("10.1.2.3:50000")),
            (b"PROXY TCP6 2001:db8::7 ::1 8080 10911\r\n".to_vec(), Some("[2001:db8::7]:8080")),
            (b"PROXY TCP6 ::ffff:10.1.2.3 ::1 8080 10911\r\n".to_vec(), Some("10.1.2.3:8080")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN what ever\xc3\xa9 1 2 3 4 5\r\n".to_vec(), None),
            (binary(0x21, 0x11, &four), Some("10.1.2.3:50000")),
            (binary(0x21, 0x22, &six), Some("[2001:db8::7]:8080")),
            (binary(0x20, 0x11, b""), None),
            (binary(0x21, 0x00, b"anything"), None),
            (binary(0x21, 0x31, &[b'/'; 216]), None),
        ];
        for (header, source) in cases {
            let source = source.map(|text| text.parse().expect("an address"));
            let expected = Ok(Start::Header { length: header.len(), source });
            assert_eq!(read_start(&header), expected);
            assert_eq!(read_start(&[&header[..], b"\0\0\0\x04more"].concat()), expected);
            for end in 0..header.len() {
                let start = read_start(&header[..end]);
                let Ok(Start::NeedMore { total }) = start else { panic!("{start:?} after {end} bytes") };
                assert!(total.is_none_or(|total| total == header.len()));
            }
            assert!(may_begin_with(header[0]));
        }
    }

    /// Goal: what is no header begins a frame, and a broken header is refused at once. Method: beginnings of both kinds.
    #[test]
    fn what_is_no_header_is_told() {
        for frames in [&b"\0\0\0\x10"[..], b"PROXX", b"\r\n\r\nQUIT", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"proxy "]
        {
            assert_eq!(read_start(frames), Ok(Start::Frames), "{frames:?}");
        }
        let lines = [
            "TCP4 10.1.2.3 10.0.0.1 50000\r\n",
            "TCP4 10.1.2.3 10.0.0.1 50000 10911 1\r\n",
            "TCP4 10.1.2.3 10.0.0.1 50000 65536\r\n",
            "TCP4 ::1 ::1 50000 10911\r\n",
            "TCP6 10.1.2.3 10.0.0.1 50000 10911\r\n",
            "UDP4 10.1.2.3 10.0.0.1 50000 10911\r\n",
            "TCP4  10.1.2.3 10.0.0.1 50000 10911\r\n",
            "\r\n",
        ];
        for line in lines {
            assert_eq!(read_start(format!("PROXY {line}").as_bytes()), Err(ProxyError::BadLine), "{line:?}");
        }
        let endless = [&b"PROXY UNKNOWN"[..], &[b'x'; MAX_TEXT_BYTES]].concat();
        assert_eq!(read_start(&endless), Err(ProxyError::TooLong));
        assert_eq!(read_start(&binary(0x11, 0x11, b"")), Err(ProxyError::UnknownCommand(0x11)));
        assert_eq!(read_start(&binary(0x21, 0x13, b"")), Err(ProxyError::UnknownFamily(0x13)));
        assert_eq!(read_start(&binary(0x21, 0x11, &[0; 11])), Err(ProxyError::TooShort(11)));
    }
}
