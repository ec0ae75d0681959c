//! Search for the end of a JSON string and copying up to it, and for the separators of a property string: the inner loops that
//! are worth vector instructions.

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

/// Bytes of which [`Separators`] knows the marks.
const WINDOW_BYTES: usize = 64;

/// Finds two kinds of separators in a text. Looks at each byte once, [`WINDOW_BYTES`] together, however close the separators
/// are: property strings have one every few bytes.
pub(crate) struct Separators<'a> {
    input: &'a [u8],
    first: u8,
    second: u8,
    /// Where the window begins.
    base: usize,
    /// Bit `n` is set if byte `n` of the window is a separator of the kind that was not passed yet.
    firsts: u64,
    seconds: u64,
}

/// Bit `n` is set if byte `n` equals `wanted`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn equal(block: &[u8; BLOCK_BYTES], wanted: u8) -> u64 {
    use std::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};
    // SAFETY: `block` is 16 readable bytes, the load needs no alignment, and SSE2 is part of every x86-64.
    let found = unsafe {
        let loaded = _mm_loadu_si128(block.as_ptr().cast::<__m128i>());
        _mm_movemask_epi8(_mm_cmpeq_epi8(loaded, _mm_set1_epi8(wanted.cast_signed())))
    };
    u64::from(found.cast_unsigned())
}

/// Bit `n` is set if byte `n` equals `wanted`.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn equal(block: &[u8; BLOCK_BYTES], wanted: u8) -> u64 {
    block.iter().enumerate().map(|(index, byte)| u64::from(*byte == wanted) << index).sum()
}

/// Bit `n` is set if byte `n` equals `wanted`.
#[inline(always)]
fn equal_in_window(window: &[u8; WINDOW_BYTES], wanted: u8) -> u64 {
    let blocks = window.as_chunks::<BLOCK_BYTES>().0.iter().enumerate();
    blocks.fold(0, |found, (index, block)| found | equal(block, wanted) << (index * BLOCK_BYTES))
}

/// Bits of `mask` above `index`, which is below 64.
#[inline(always)]
fn above(mask: u64, index: u32) -> u64 {
    mask & (!1 << index)
}

impl<'a> Separators<'a> {
    /// Begins at the start of `input`. Neither separator is zero.
    #[inline]
    pub(crate) fn new(input: &'a [u8], first: u8, second: u8) -> Separators<'a> {
        let mut separators = Separators { input, first, second, base: 0, firsts: 0, seconds: 0 };
        separators.look();
        separators
    }

    /// Finds the marks of the window at `base`.
    #[inline]
    fn look(&mut self) {
        let rest = self.input.get(self.base..).unwrap_or_default();
        let mut last = [0; WINDOW_BYTES];
        let window = match rest.first_chunk::<WINDOW_BYTES>() {
            Some(window) => window,
            None => {
                last[..rest.len()].copy_from_slice(rest);
                &last
            }
        };
        self.firsts = equal_in_window(window, self.first);
        self.seconds = equal_in_window(window, self.second);
    }

    /// Goes to the next window; false at the end of the text.
    #[inline]
    fn advance(&mut self) -> bool {
        if self.base + WINDOW_BYTES >= self.input.len() {
            (self.firsts, self.seconds) = (0, 0);
            return false;
        }
        self.base += WINDOW_BYTES;
        self.look();
        true
    }

    /// Passes the next separator of either kind: where it is, and whether it is one of the second kind.
    #[inline]
    pub(crate) fn next_of_either(&mut self) -> Option<(usize, bool)> {
        while self.firsts | self.seconds == 0 {
            if !self.advance() {
                return None;
            }
        }
        let index = (self.firsts | self.seconds).trailing_zeros();
        let is_second = self.seconds >> index & 1 == 1;
        (self.firsts, self.seconds) = (above(self.firsts, index), above(self.seconds, index));
        Some((self.base + index as usize, is_second))
    }

    /// Passes the next separator of the second kind, and all of the first kind before it.
    #[inline]
    pub(crate) fn next_second(&mut self) -> Option<usize> {
        while self.seconds == 0 {
            if !self.advance() {
                return None;
            }
        }
        let index = self.seconds.trailing_zeros();
        (self.firsts, self.seconds) = (above(self.firsts, index), above(self.seconds, index));
        Some(self.base + index as usize)
    }
}

/// Calls `piece` with where each piece of `input` begins and ends, in order: what lies between its separators, and before the
/// first and behind the last one. Cheaper than [`Separators`] for who looks at few pieces only.
#[inline(always)]
pub(crate) fn for_each_piece(input: &[u8], separator: u8, mut piece: impl FnMut(usize, usize)) {
    let (mut start, mut base) = (0, 0);
    while base < input.len() {
        let rest = &input[base..];
        let mut found = if let Some(window) = rest.first_chunk() {
            equal_in_window(window, separator)
        } else if let Some(window) = input.last_chunk() {
            // The window that ends with the text, without what was seen before.
            equal_in_window(window, separator) >> (WINDOW_BYTES - rest.len())
        } else {
            // No byte of the room behind a short text is taken for a separator.
            let mut window = [!separator; WINDOW_BYTES];
            window[..rest.len()].copy_from_slice(rest);
            equal_in_window(&window, separator)
        };
        while found != 0 {
            let end = base + found.trailing_zeros() as usize;
            piece(start, end);
            start = end + 1;
            found &= found - 1;
        }
        base += WINDOW_BYTES;
    }
    piece(start, input.len());
}

#[cfg(test)]
mod tests {
    use super::{Separators, Text, for_each_piece, string_end};

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

    /// Pseudo-random bytes, the same ones each time.
    fn random_bytes() -> impl FnMut() -> u32 {
        let mut state = 7_u32;
        move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 24
        }
    }

    /// Goal: separators come in order and none is missed, whatever window they fall into. Method: texts of many lengths with
    /// separators at pseudo-random places, compared with a plain search, in both ways of asking.
    #[test]
    fn finds_all_separators() {
        let mut random = random_bytes();
        for length in 0..300 {
            let text: Vec<u8> = (0..length).map(|_| if random() < 40 { (random() % 3) as u8 } else { b'x' }).collect();
            let mut separators = Separators::new(&text, 1, 2);
            let mut at = 0;
            loop {
                let only_second = random().is_multiple_of(2);
                let expected = text[at..].iter().position(|byte| *byte == 2 || *byte == 1 && !only_second);
                let expected = expected.map(|index| (at + index, text[at + index] == 2));
                let found = if only_second {
                    separators.next_second().map(|index| (index, true))
                } else {
                    separators.next_of_either()
                };
                assert_eq!(found, expected, "{length}");
                let Some((index, _)) = found else { break };
                at = index + 1;
            }
        }
    }

    /// Goal: the pieces of a text are those of a plain split. Method: texts of many lengths with separators at pseudo-random
    /// places, at each end, everywhere and nowhere.
    #[test]
    fn pieces_are_those_of_a_split() {
        let mut random = random_bytes();
        for length in 0..300 {
            for share in [0, 20, 128, 256] {
                let text: Vec<u8> = (0..length).map(|_| if random() < share { 2 } else { b'x' }).collect();
                let mut pieces = Vec::new();
                for_each_piece(&text, 2, |start, end| pieces.push((start, end)));
                let mut start = 0;
                let expected = text.split(|byte| *byte == 2).map(|piece| {
                    let piece = (start, start + piece.len());
                    start = piece.1 + 1;
                    piece
                });
                assert_eq!(pieces, expected.collect::<Vec<_>>(), "{text:?}");
            }
        }
    }
}
