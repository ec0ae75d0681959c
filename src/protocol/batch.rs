//! Bodies of batch sends (`MessageDecoder.encodeMessages`): entries one after another, without a count.

use thiserror::Error;

/// Bytes of an entry without body and properties: five integers, the body length among them, and a short.
pub const BATCH_ENTRY_OVERHEAD_BYTES: usize = 22;

/// Why a batch body cannot be read further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BatchError {
    /// The body ends inside an entry.
    #[error("the batch ends inside the entry at byte {0}")]
    Truncated(usize),
    /// A length is negative.
    #[error("the entry at byte {0} has a negative length")]
    NegativeLength(usize),
}

/// One message of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchEntry<'a> {
    /// Application flag.
    pub flag: i32,
    /// Body, uncompressed.
    pub body: &'a [u8],
    /// Property string, unchecked.
    pub properties: &'a [u8],
}

/// Reads a batch body. Trusts only the sequential lengths, as Java does: total size, magic and CRC of an entry are ignored.
/// Ends after the first error.
#[derive(Debug, Clone)]
pub struct BatchReader<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> BatchReader<'a> {
    /// Reads `body` from its start.
    pub fn new(body: &'a [u8]) -> BatchReader<'a> {
        BatchReader { body, at: 0 }
    }

    fn entry(&self) -> Result<(BatchEntry<'a>, usize), BatchError> {
        let start = self.at;
        let truncated = BatchError::Truncated(start);
        let negative = BatchError::NegativeLength(start);
        let rest = self.body.get(start..).ok_or(truncated)?;
        let (head, rest) = rest.split_first_chunk::<20>().ok_or(truncated)?;
        let int = |at: usize| i32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let body_length = usize::try_from(int(16)).map_err(|_| negative)?;
        let (body, rest) = rest.split_at_checked(body_length).ok_or(truncated)?;
        let (properties_length, rest) = rest.split_first_chunk::<2>().ok_or(truncated)?;
        let properties_length = usize::try_from(i16::from_be_bytes(*properties_length)).map_err(|_| negative)?;
        let properties = rest.get(..properties_length).ok_or(truncated)?;
        let length = BATCH_ENTRY_OVERHEAD_BYTES + body_length + properties_length;
        Ok((BatchEntry { flag: int(12), body, properties }, start + length))
    }
}

impl<'a> Iterator for BatchReader<'a> {
    type Item = Result<BatchEntry<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.body.len() {
            return None;
        }
        match self.entry() {
            Ok((entry, next)) => {
                self.at = next;
                Some(Ok(entry))
            }
            Err(error) => {
                self.at = self.body.len();
                Some(Err(error))
            }
        }
    }
}

/// Appends one entry of a batch.
///
/// # Panics
/// Body or properties exceed what the length fields hold: 2 GiB, 32767 bytes.
pub fn write_batch_entry(out: &mut Vec<u8>, entry: &BatchEntry<'_>) {
    let total = BATCH_ENTRY_OVERHEAD_BYTES + entry.body.len() + entry.properties.len();
    let total = i32::try_from(total).expect("a batch entry is shorter than 2 GiB");
    let properties_length = i16::try_from(entry.properties.len()).expect("properties have at most 32767 bytes");
    out.extend_from_slice(&total.to_be_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&entry.flag.to_be_bytes());
    out.extend_from_slice(&u32::try_from(entry.body.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(entry.body);
    out.extend_from_slice(&properties_length.to_be_bytes());
    out.extend_from_slice(entry.properties);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: entries come back, and damage is named without a panic. Method: a batch of two, each of its prefixes, and
    /// negative lengths.
    #[test]
    fn reads_entries_and_names_damage() {
        let entries = [
            BatchEntry { flag: 7, body: b"ab", properties: b"KEYS\x01K1\x02" },
            BatchEntry { flag: -1, body: b"", properties: b"" },
        ];
        let mut body = Vec::new();
        for entry in &entries {
            write_batch_entry(&mut body, entry);
        }
        let read: Vec<_> = BatchReader::new(&body).collect::<Result<_, _>>().unwrap();
        assert_eq!(read, entries);
        let first = BATCH_ENTRY_OVERHEAD_BYTES + 2 + 8;
        for end in 1..body.len() {
            let last = BatchReader::new(&body[..end]).last().unwrap();
            let expected = if end < first { Err(BatchError::Truncated(0)) } else { Err(BatchError::Truncated(first)) };
            assert!(last == expected || end == first && last == Ok(entries[0]), "{end}: {last:?}");
        }
        body[16] = 0x80;
        assert_eq!(BatchReader::new(&body).next(), Some(Err(BatchError::NegativeLength(0))));
    }
}
