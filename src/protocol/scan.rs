//! Search for the end of a JSON string and copying up to it: the inner loops of header decoding that are worth vector
//! instructions.

/// Bytes looked at together.
const BLOCK_BYTES: usize = 16;

/// Bit `n` is set if byte `n` is `"` or `\`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn marks(block: &[u8; BLOCK_BYTES]) -> u32 {
    use std::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8};
    // SAFETY: `block` is 16 readable bytes, the load needs no alignment, and SSE2 is part of every x86-64.
    let found = unsafe {
        let loaded = _mm_loadu_si128(block.as_ptr().cast::<__m128i>());
        let quotes = _mm_cmpeq_epi8(loaded, _mm_set1_epi8(0x22));
        let backslashes = _mm_cmpeq_epi8(loaded, _mm_set1_epi8(0x5c));
        _mm_movemask_epi8(_mm_or_si128(quotes, backslashes))
    };
    found.cast_unsigned()
}

/// Bit `n` is set if byte `n` is `"` or `\`.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn marks(block: &[u8; BLOCK_BYTES]) -> u32 {
    let bit = |(index, byte): (usize, &u8)| u32::from(matches!(byte, b'"' | b'\\')) << index;
    block.iter().enumerate().map(bit).sum()
}

#[inline(always)]
fn block_at(bytes: &[u8], at: usize) -> Option<&[u8; BLOCK_BYTES]> {
    bytes.get(at..)?.first_chunk()
}

/// Index of the first `"` or `\` at or after `from`, or `bytes.len()` if there is none.
#[inline(always)]
pub(crate) fn string_end(bytes: &[u8], from: usize) -> usize {
    // Most strings end within the first block; only that look is worth copying into the callers.
    match block_at(bytes, from).map(marks) {
        Some(found) if found != 0 => from + found.trailing_zeros() as usize,
        _ => string_end_far(bytes, from),
    }
}

fn string_end_far(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(block) = block_at(bytes, at) {
        let found = marks(block);
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
        at += BLOCK_BYTES;
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\') {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

/// Text that is gathered from pieces and reused; always UTF-8. Grows in zeroed steps, so that copying can overshoot.
#[derive(Debug, Default)]
pub(crate) struct Text {
    /// The text, then space whose content means nothing.
    bytes: Vec<u8>,
    length: usize,
}

/// Space that survives from one header to the next; more is given back.
const KEPT_BYTES: usize = 64 * 1024;

impl Text {
    /// Empties the text and makes room for `bytes` more without growing.
    pub(crate) fn reset(&mut self, bytes: usize) {
        if self.bytes.len() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        self.length = 0;
        self.reserve(bytes);
    }

    fn reserve(&mut self, more: usize) {
        let needed = self.length + more + BLOCK_BYTES;
        if self.bytes.len() < needed {
            self.bytes.resize(needed.next_power_of_two(), 0);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Drops everything behind `length`, which [`Text::len`] said earlier.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    pub(crate) fn as_str(&self) -> &str {
        // Checked again rather than trusted: a few nanoseconds, and no unsafe code.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or("")
    }

    /// A piece of the text, which is checked alone.
    pub(crate) fn piece(&self, start: usize, end: usize) -> &str {
        let piece = self.bytes[..self.length].get(start..end).unwrap_or_default();
        std::str::from_utf8(piece).unwrap_or("")
    }

    pub(crate) fn push_str(&mut self, piece: &str) {
        self.reserve(piece.len());
        self.bytes[self.length..self.length + piece.len()].copy_from_slice(piece.as_bytes());
        self.length += piece.len();
    }

    pub(crate) fn push(&mut self, letter: char) {
        self.push_str(letter.encode_utf8(&mut [0; 4]));
    }

    /// Appends one ASCII byte.
    #[inline]
    pub(crate) fn push_ascii(&mut self, byte: u8) {
        if self.length == self.bytes.len() {
            self.reserve(1);
        }
        self.bytes[self.length] = byte & 0x7f;
        self.length += 1;
    }

    /// Appends `source` from `from`, a character boundary, up to the first `"` or `\`, and returns where that is; the end of
    /// `source` if there is none.
    #[inline]
    pub(crate) fn copy_to_mark(&mut self, source: &str, from: usize) -> usize {
        let bytes = source.as_bytes();
        let mut at = from;
        while let Some(block) = block_at(bytes, at) {
            let Some(space) = self.bytes.get_mut(self.length..).and_then(|space| space.first_chunk_mut()) else {
                break;
            };
            *space = *block;
            let found = marks(block);
            if found != 0 {
                let count = found.trailing_zeros() as usize;
                self.length += count;
                return at + count;
            }
            at += BLOCK_BYTES;
            self.length += BLOCK_BYTES;
        }
        let end = string_end(bytes, at);
        // Not `push_str`: a block may have ended inside a character, whose rest follows here.
        let rest = &bytes[at.min(end)..end];
        self.reserve(rest.len());
        self.bytes[self.length..self.length + rest.len()].copy_from_slice(rest);
        self.length += rest.len();
        end
    }
}

#[cfg(test)]
mod tests {
    use super::{Text, string_end};

    /// Goal: the vector search equals a plain one at every length and position. Method: one mark of each kind at each
    /// position of buffers around the vector width, searched from each start.
    #[test]
    fn finds_the_first_mark_everywhere() {
        for length in 0..70 {
            for position in 0..=length {
                for mark in [b'"', b'\\'] {
                    let mut bytes = vec![b'a'; length];
                    if let Some(byte) = bytes.get_mut(position) {
                        *byte = mark;
                    }
                    for from in 0..=length {
                        let expected = if from <= position { position } else { length };
                        assert_eq!(string_end(&bytes, from), expected);
                    }
                }
            }
        }
        assert_eq!(string_end(b"abc", 9), 3);
    }

    /// Goal: copying takes exactly what lies before the mark, at every alignment, without room and with it. Method: strings
    /// of wide characters with a mark at each boundary.
    #[test]
    fn copies_up_to_the_mark() {
        for length in 0..40 {
            for mark in ["\"", "\\", ""] {
                let before = "é中😀a".chars().cycle().take(length).collect::<String>();
                let source = format!("{before}{mark}tail of more than a block");
                for room in [0, 500] {
                    let mut text = Text::default();
                    text.reset(room);
                    text.push_str("x");
                    let end = text.copy_to_mark(&source, 0);
                    let expected = if mark.is_empty() { source.as_str() } else { before.as_str() };
                    assert_eq!((end, text.as_str()), (expected.len(), format!("x{expected}").as_str()));
                    text.truncate(1);
                    text.push_ascii(b'y');
                    text.push('中');
                    assert_eq!((text.as_str(), text.len()), ("xy中", 5));
                }
            }
        }
    }
}
