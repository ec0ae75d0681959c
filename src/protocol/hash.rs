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

/// 31 to the power of 7, 6, …, 0, and to the power of 8.
const POWERS: [i32; 8] = [1_742_810_335, 887_503_681, 28_629_151, 923_521, 29_791, 961, 31, 1];
const EIGHTH_POWER: i32 = -1_807_454_463;

/// The hash goes on over ASCII bytes. Eight at a time: their products do not wait for one another.
fn continue_ascii(start: i32, bytes: &[u8]) -> i32 {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let hash = chunks.iter().fold(start, |hash, chunk| {
        let products = chunk.iter().zip(POWERS).map(|(byte, power)| i32::from(*byte).wrapping_mul(power));
        hash.wrapping_mul(EIGHTH_POWER).wrapping_add(products.fold(0, i32::wrapping_add))
    });
    rest.iter().fold(hash, |hash, byte| step(hash, i32::from(*byte)))
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
}
