//! Java's string hash, and what the store derives from it.

/// `String.hashCode`: over UTF-16 units, wrapping.
pub fn java_hash(text: &str) -> i32 {
    continue_hash(0, text)
}

/// [`java_hash`] of bytes that should be UTF-8; malformed parts count as U+FFFD, as in a decoded Java string.
pub fn java_hash_bytes(bytes: &[u8]) -> i32 {
    continue_hash_bytes(0, bytes)
}

fn step(hash: i32, unit: i32) -> i32 {
    hash.wrapping_mul(31).wrapping_add(unit)
}

/// 31 to the power of 8.
const EIGHTH_POWER: u32 = 31_u32.wrapping_pow(8);

/// The hash of eight bytes alone, which are units below 256. Neighbours are joined in the lanes of one word, first to pairs,
/// then to fours: three multiplications instead of eight.
#[inline]
fn hash_of_eight(bytes: [u8; 8]) -> u32 {
    let word = u64::from_le_bytes(bytes);
    let lanes = 0x00ff_00ff_00ff_00ff;
    // At most 255 * 32 in 16 bits, and 255 * 32 * 962 in 32 bits: no lane runs into the next one.
    let pairs = (word & lanes) * 31 + (word >> 8 & lanes);
    let lanes = 0x0000_ffff_0000_ffff;
    let fours = (pairs & lanes) * (31 * 31) + (pairs >> 16 & lanes);
    let [a, b, c, d, e, f, g, h] = fours.to_le_bytes();
    let (first, second) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    first.wrapping_mul(31_u32.pow(4)).wrapping_add(second)
}

/// The hash goes on over ASCII bytes, eight at a time.
fn continue_ascii(start: i32, bytes: &[u8]) -> i32 {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let hash = chunks
        .iter()
        .fold(start.cast_unsigned(), |hash, chunk| hash.wrapping_mul(EIGHTH_POWER).wrapping_add(hash_of_eight(*chunk)));
    rest.iter().fold(hash.cast_signed(), |hash, byte| step(hash, i32::from(*byte)))
}

fn continue_hash(start: i32, text: &str) -> i32 {
    if text.is_ascii() {
        continue_ascii(start, text.as_bytes())
    } else {
        text.encode_utf16().fold(start, |hash, unit| step(hash, i32::from(unit)))
    }
}

fn continue_hash_bytes(start: i32, bytes: &[u8]) -> i32 {
    if bytes.is_ascii() {
        return continue_ascii(start, bytes);
    }
    bytes.utf8_chunks().fold(start, |hash, chunk| {
        let hash = continue_hash(hash, chunk.valid());
        if chunk.invalid().is_empty() { hash } else { continue_hash(hash, "\u{fffd}") }
    })
}

/// The tags code of a queue entry: the hash of the TAGS value, sign-extended; 0 without tags
/// (`MessageExtBrokerInner.tagsString2tagsCode`).
pub fn tags_code(tags: &[u8]) -> i64 {
    i64::from(java_hash_bytes(tags))
}

/// Hash of an index key, `topic#key`, made non-negative (`IndexFile.indexKeyHashMethod`). Malformed parts of the key count as
/// U+FFFD.
pub fn index_key_hash(topic: &str, key: &[u8]) -> u32 {
    let hash = continue_hash_bytes(step(continue_hash(0, topic), i32::from(b'#')), key);
    if hash == i32::MIN { 0 } else { hash.unsigned_abs() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: hashes are Java's. Method: values computed by Java, among them a surrogate pair and the minimum.
    #[test]
    fn known_hashes() {
        assert_eq!(java_hash("TagA"), 2_598_919);
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
        assert_eq!(java_hash("\u{1f600}"), 0xd83d * 31 + 0xde00);
        assert_eq!(tags_code("标签".as_bytes()), 857_175);
        assert_eq!(tags_code(b""), 0);
        assert_eq!(index_key_hash("TopicTest", b"k1"), 2_746_024);
        assert_eq!(index_key_hash("TopicTest", b"7F0000010001AABBCCDD000000010000"), 1_308_905_972);
    }

    /// Goal: hashing eight bytes together changes nothing, for no byte. Method: the extremes and pseudo-random texts of all
    /// short lengths, compared with one step per byte.
    #[test]
    fn eight_bytes_hash_as_one_by_one() {
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        let mut texts = vec![vec![0; 24], vec![127; 24], vec![255; 24]];
        texts.extend((0..100).map(|length| (0..length).map(|_| random()).collect()));
        for text in texts {
            let expected = text.iter().fold(17, |hash, byte| step(hash, i32::from(*byte)));
            assert_eq!(continue_ascii(17, &text), expected, "{text:?}");
        }
    }
}
