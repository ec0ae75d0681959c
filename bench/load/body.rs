//! The body of a message: 40 bytes that say what it is, then filler.
//!
//! ```text
//!  0  u32  magic "RMQB"          24  u64  intended time, CLOCK_MONOTONIC ns
//!  4  u64  run id                32  u32  distance to the first message that could still overtake this one
//! 12  u32  producer              36  u32  CRC32C of the filler, then of bytes 0 to 35
//! 16  u64  sequence              40       filler
//! ```
//! All big-endian. The checksum starts with the filler, whose part is computed once, so that a message costs 36 bytes of it.

/// Bytes of the header, and so the shortest body.
pub const BODY_HEADER_BYTES: usize = 40;

const MAGIC: u32 = 0x524d_5142;

/// What a body says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyHeader {
    /// Which run it belongs to.
    pub run_id: u64,
    /// Connection that sent it.
    pub producer: u32,
    /// Number of the message in the run, in sending order over all producers.
    pub sequence: u64,
    /// When it was meant to be sent.
    pub intended_ns: u64,
    /// `sequence` minus this is the first message of the same producer and queue that was perhaps not acknowledged when
    /// this one was sent. All before it must be delivered before this one.
    pub open_distance: u32,
}

/// What is behind the header, the same in every message of a run.
#[derive(Debug, Clone)]
pub struct Filler {
    bytes: Vec<u8>,
    crc: u32,
}

impl Filler {
    /// Filler for bodies of `body_bytes`, printable and without long repeats.
    ///
    /// # Panics
    /// The body is shorter than its header.
    pub fn new(body_bytes: usize) -> Filler {
        assert!(body_bytes >= BODY_HEADER_BYTES, "a body has at least {BODY_HEADER_BYTES} bytes");
        let mut random = crate::plan::Random::new(0x5eed);
        let bytes: Vec<u8> = (BODY_HEADER_BYTES..body_bytes)
            .map(|_| {
                b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[(random.bits() >> 58) as usize]
            })
            .collect();
        Filler { crc: crc32c::crc32c(&bytes), bytes }
    }

    /// Bytes of a body.
    pub fn body_bytes(&self) -> usize {
        BODY_HEADER_BYTES + self.bytes.len()
    }

    /// Appends a body. Does not allocate if there is room.
    pub fn write(&self, header: &BodyHeader, out: &mut Vec<u8>) {
        out.extend_from_slice(&header_bytes(header, self.crc));
        out.extend_from_slice(&self.bytes);
    }

    /// Writes a body of which everything but the header is in place already.
    ///
    /// # Panics
    /// `body` is shorter than a header.
    pub fn rewrite_header(&self, header: &BodyHeader, body: &mut [u8]) {
        body[..BODY_HEADER_BYTES].copy_from_slice(&header_bytes(header, self.crc));
    }
}

fn header_bytes(header: &BodyHeader, filler_crc: u32) -> [u8; BODY_HEADER_BYTES] {
    let mut bytes = [0; BODY_HEADER_BYTES];
    bytes[0..4].copy_from_slice(&MAGIC.to_be_bytes());
    bytes[4..12].copy_from_slice(&header.run_id.to_be_bytes());
    bytes[12..16].copy_from_slice(&header.producer.to_be_bytes());
    bytes[16..24].copy_from_slice(&header.sequence.to_be_bytes());
    bytes[24..32].copy_from_slice(&header.intended_ns.to_be_bytes());
    bytes[32..36].copy_from_slice(&header.open_distance.to_be_bytes());
    let crc = crc32c::crc32c_append(filler_crc, &bytes[..36]);
    bytes[36..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Reads a body and checks all of it. `None`: it is not what any generator wrote.
pub fn read_body(body: &[u8]) -> Option<BodyHeader> {
    let (head, filler) = body.split_first_chunk::<BODY_HEADER_BYTES>()?;
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
    let crc = crc32c::crc32c_append(crc32c::crc32c(filler), &head[..36]);
    if word(0) != MAGIC || word(36) != crc {
        return None;
    }
    Some(BodyHeader {
        run_id: long(4),
        producer: word(12),
        sequence: long(16),
        intended_ns: long(24),
        open_distance: word(32),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a body comes back, and any changed byte is noticed. Method: bodies of the shortest and a usual length, each
    /// byte flipped in turn.
    #[test]
    fn every_byte_is_covered() {
        let header = BodyHeader {
            run_id: 0x0102_0304_0506_0708,
            producer: 9,
            sequence: 1 << 40,
            intended_ns: 5,
            open_distance: 3,
        };
        for length in [BODY_HEADER_BYTES, 41, 200] {
            let filler = Filler::new(length);
            let mut body = Vec::new();
            filler.write(&header, &mut body);
            assert_eq!((body.len(), filler.body_bytes()), (length, length));
            assert_eq!(read_body(&body), Some(header));
            for at in 0..length {
                body[at] ^= 0x10;
                assert_eq!(read_body(&body), None, "byte {at}");
                body[at] ^= 0x10;
            }
            assert_eq!(read_body(&body[..length - 1]), None);
        }
    }
}
