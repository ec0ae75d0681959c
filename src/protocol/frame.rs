//! Cuts a byte stream into frames (`NettyDecoder`, `RemotingCommand`).
//!
//! A frame is `i32 length, u8 serialize type, u24 header length, header, body`; `length` counts what follows it. Nothing
//! is copied: a [`Frame`] borrows the receive buffer. Every rule that can be judged from the first eight bytes is judged
//! from them, so that a peer cannot make us gather bytes of a frame that will be refused.

use thiserror::Error;

/// Largest frame, including its length field (`com.rocketmq.remoting.frameMaxLength`).
pub const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// Bytes before the header: the length, the serialize type and the header length.
pub const FRAME_PREFIX_BYTES: usize = 8;

/// How a header is written (`SerializeType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum SerializeType {
    /// A JSON object.
    #[default]
    Json = 0,
    /// The binary form that Java calls ROCKETMQ.
    RocketMq = 1,
}

impl SerializeType {
    /// The type of a frame's fifth byte.
    pub const fn from_byte(byte: u8) -> Option<SerializeType> {
        match byte {
            0 => Some(SerializeType::Json),
            1 => Some(SerializeType::RocketMq),
            _ => None,
        }
    }
}

/// One frame inside a receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// How `header` is written.
    pub serialize_type: SerializeType,
    /// The header, undecoded.
    pub header: &'a [u8],
    /// The body; empty means absent.
    pub body: &'a [u8],
}

/// What the front of a buffer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split<'a> {
    /// The frame is not complete. `total` is its whole length in bytes once that is known.
    NeedMore {
        /// Bytes of the whole frame, if its length field has arrived.
        total: Option<usize>,
    },
    /// A complete frame, `length` bytes long.
    Frame {
        /// The frame.
        frame: Frame<'a>,
        /// Bytes to remove from the front of the buffer.
        length: usize,
    },
}

/// Why a stream cannot be continued. There is no response to such a frame: the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length field is negative.
    #[error("frame length {0} is negative")]
    NegativeLength(i32),
    /// The length field has no room for the header length.
    #[error("frame length {0} is below 4")]
    TooShort(i32),
    /// The frame is longer than allowed.
    #[error("a frame of {total} bytes exceeds the limit of {max}")]
    TooLong {
        /// Bytes of the frame.
        total: usize,
        /// The limit.
        max: usize,
    },
    /// The header does not fit into the frame.
    #[error("a header of {header} bytes does not fit into a frame of {total}")]
    HeaderTooLong {
        /// Bytes of the header.
        header: usize,
        /// Bytes of the frame.
        total: usize,
    },
    /// The serialize type is neither JSON nor ROCKETMQ.
    #[error("serialize type {0} is unknown")]
    UnknownSerializeType(u8),
}

/// Looks at the front of `buffer` for a frame of at most `max` bytes, its length field included.
///
/// # Errors
/// Any violation of the frame rules, as soon as the bytes that prove it have arrived.
pub fn split_frame(buffer: &[u8], max: usize) -> Result<Split<'_>, FrameError> {
    let Some((length_bytes, rest)) = buffer.split_first_chunk::<4>() else {
        return Ok(Split::NeedMore { total: None });
    };
    let length = i32::from_be_bytes(*length_bytes);
    let after = usize::try_from(length).map_err(|_| FrameError::NegativeLength(length))?;
    if after < 4 {
        return Err(FrameError::TooShort(length));
    }
    let total = after + 4;
    if total > max {
        return Err(FrameError::TooLong { total, max });
    }
    let Some((mark, content)) = rest.split_first_chunk::<4>() else {
        return Ok(Split::NeedMore { total: Some(total) });
    };
    let header_length = usize::from(mark[1]) << 16 | usize::from(mark[2]) << 8 | usize::from(mark[3]);
    if header_length > after - 4 {
        return Err(FrameError::HeaderTooLong { header: header_length, total });
    }
    let serialize_type = SerializeType::from_byte(mark[0]).ok_or(FrameError::UnknownSerializeType(mark[0]))?;
    let Some(content) = content.get(..after - 4) else {
        return Ok(Split::NeedMore { total: Some(total) });
    };
    let (header, body) = content.split_at(header_length);
    Ok(Split::Frame { frame: Frame { serialize_type, header, body }, length: total })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame_bytes(serialize_type: u8, header: &[u8], body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(4 + header.len() + body.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(&u32::try_from(header.len()).unwrap().to_be_bytes());
        bytes[4] = serialize_type;
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(body);
        bytes
    }

    /// Goal: a frame is found only when it is whole, and never swallows its successor. Method: every prefix of a frame
    /// followed by other bytes is split.
    #[test]
    fn every_prefix_needs_more() {
        let whole = frame_bytes(1, b"head", b"body!");
        for end in 0..whole.len() {
            let total = (end >= 4).then_some(whole.len());
            assert_eq!(split_frame(&whole[..end], MAX_FRAME_BYTES), Ok(Split::NeedMore { total }));
        }
        let mut stream = whole.clone();
        stream.extend_from_slice(b"next");
        let Ok(Split::Frame { frame, length }) = split_frame(&stream, MAX_FRAME_BYTES) else { panic!("no frame") };
        assert_eq!((frame.header, frame.body, length), (&b"head"[..], &b"body!"[..], whole.len()));
    }

    /// Goal: refused frames are refused early. Method: only the first four or eight bytes of bad frames are shown.
    #[test]
    fn bad_frames_are_refused_from_their_first_bytes() {
        let refuse = |bytes: &[u8]| split_frame(bytes, MAX_FRAME_BYTES).unwrap_err();
        assert_eq!(refuse(&[0xff, 0xff, 0xff, 0xff]), FrameError::NegativeLength(-1));
        assert_eq!(refuse(&[0x80, 0, 0, 0]), FrameError::NegativeLength(i32::MIN));
        assert_eq!(refuse(&[0, 0, 0, 3]), FrameError::TooShort(3));
        let max = MAX_FRAME_BYTES;
        assert_eq!(refuse(&[0, 0xff, 0xff, 0xfd]), FrameError::TooLong { total: max + 1, max });
        assert!(split_frame(&[0, 0xff, 0xff, 0xfc], max).is_ok());
        assert_eq!(refuse(&[0, 0, 0, 8, 0, 0, 0, 5]), FrameError::HeaderTooLong { header: 5, total: 12 });
        assert_eq!(refuse(&[0, 0, 0, 8, 2, 0, 0, 4]), FrameError::UnknownSerializeType(2));
    }
}
