//! Search for the end of a JSON string: the one inner loop of header decoding that is worth vector instructions.

/// Index of the first `"` or `\` at or after `from`, or `bytes.len()` if there is none.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn string_end(bytes: &[u8], from: usize) -> usize {
    use std::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8};
    let mut at = from;
    while let Some(block) = bytes.get(at..at + 16) {
        // SAFETY: `block` is 16 readable bytes, the load needs no alignment, and SSE2 is part of every x86-64.
        let found = unsafe {
            let loaded = _mm_loadu_si128(block.as_ptr().cast::<__m128i>());
            let quotes = _mm_cmpeq_epi8(loaded, _mm_set1_epi8(0x22));
            let backslashes = _mm_cmpeq_epi8(loaded, _mm_set1_epi8(0x5c));
            _mm_movemask_epi8(_mm_or_si128(quotes, backslashes))
        };
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
        at += 16;
    }
    tail_end(bytes, at)
}

/// Index of the first `"` or `\` at or after `from`, or `bytes.len()` if there is none.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn string_end(bytes: &[u8], from: usize) -> usize {
    match bytes.get(from..) {
        Some(rest) => memchr::memchr2(b'"', b'\\', rest).map_or(bytes.len(), |index| from + index),
        None => bytes.len(),
    }
}

#[cfg(target_arch = "x86_64")]
fn tail_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\') {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::string_end;

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
}
