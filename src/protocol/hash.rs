//! Java's string hash, and what the store derives from it.

/// `String.hashCode`: over UTF-16 units, wrapping.
pub fn java_hash(text: &str) -> i32 {
    continue_hash(0, text)
}

/// [`java_hash`] of bytes that should be UTF-8; malformed parts count as U+FFFD, as in a decoded Java string.
pub fn java_hash_bytes(bytes: &[u8]) -> i32 {
    bytes.utf8_chunks().fold(0, |hash, chunk| {
        let hash = continue_hash(hash, chunk.valid());
        if chunk.invalid().is_empty() { hash } else { continue_hash(hash, "\u{fffd}") }
    })
}

fn continue_hash(start: i32, text: &str) -> i32 {
    let step = |hash: i32, unit: i32| hash.wrapping_mul(31).wrapping_add(unit);
    if text.is_ascii() {
        text.bytes().fold(start, |hash, byte| step(hash, i32::from(byte)))
    } else {
        text.encode_utf16().fold(start, |hash, unit| step(hash, i32::from(unit)))
    }
}

/// The tags code of a queue entry: the hash of the TAGS value, sign-extended; 0 without tags
/// (`MessageExtBrokerInner.tagsString2tagsCode`).
pub fn tags_code(tags: &[u8]) -> i64 {
    i64::from(java_hash_bytes(tags))
}

/// Hash of an index key, `topic#key`, made non-negative (`IndexFile.indexKeyHashMethod`).
pub fn index_key_hash(topic: &str, key: &str) -> u32 {
    let hash = continue_hash(continue_hash(continue_hash(0, topic), "#"), key);
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
        assert_eq!(index_key_hash("TopicTest", "k1"), 2_746_024);
        assert_eq!(index_key_hash("TopicTest", "7F0000010001AABBCCDD000000010000"), 1_308_905_972);
    }
}
