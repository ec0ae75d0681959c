//! Property strings: `name 0x01 value 0x02 …` (`MessageDecoder.string2messageProperties`), and the names in them
//! (`MessageConst`).
//!
//! Pieces without a separator, with an empty name or with an empty value do not exist. Of duplicates the later one counts.
//! Works on bytes, because batch entries are stored as they came.

use std::collections::HashMap;
use std::ops::Range;

use crate::scan::{Separators, for_each_piece};

/// Between a name and its value. Further ones belong to the value.
pub const NAME_VALUE_SEPARATOR: u8 = 1;
/// Behind each pair.
pub const PROPERTY_SEPARATOR: u8 = 2;
/// Longest property string that a record holds: its length is an `i16`.
pub const MAX_PROPERTIES_BYTES: usize = 32_767;

/// Pairs up to this number are rewritten without allocation.
const FEW_PAIRS: usize = 64;

/// Nearly all messages have no more pairs than this; room for more is not even cleared for them.
const USUAL_PAIRS: usize = 12;

/// Names of properties, under RocketMQ's names.
pub mod names {
    #![allow(missing_docs, reason = "the RocketMQ name is the documentation")]
    pub const KEYS: &str = "KEYS";
    pub const TAGS: &str = "TAGS";
    pub const WAIT: &str = "WAIT";
    pub const DELAY: &str = "DELAY";
    pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
    pub const REAL_TOPIC: &str = "REAL_TOPIC";
    pub const REAL_QID: &str = "REAL_QID";
    pub const TRAN_MSG: &str = "TRAN_MSG";
    pub const PGROUP: &str = "PGROUP";
    pub const MIN_OFFSET: &str = "MIN_OFFSET";
    pub const MAX_OFFSET: &str = "MAX_OFFSET";
    pub const BUYER_ID: &str = "BUYER_ID";
    pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    pub const TRANSFER_FLAG: &str = "TRANSFER_FLAG";
    pub const CORRECTION_FLAG: &str = "CORRECTION_FLAG";
    pub const MQ2_FLAG: &str = "MQ2_FLAG";
    pub const RECONSUME_TIME: &str = "RECONSUME_TIME";
    pub const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
    pub const MSG_REGION: &str = "MSG_REGION";
    pub const TRACE_ON: &str = "TRACE_ON";
    pub const UNIQ_KEY: &str = "UNIQ_KEY";
    pub const EXTEND_UNIQ_INFO: &str = "EXTEND_UNIQ_INFO";
    pub const CONSUME_START_TIME: &str = "CONSUME_START_TIME";
    pub const INNER_NUM: &str = "INNER_NUM";
    pub const INNER_BASE: &str = "INNER_BASE";
    pub const DUP_INFO: &str = "DUP_INFO";
    pub const CHECK_IMMUNITY_TIME_IN_SECONDS: &str = "CHECK_IMMUNITY_TIME_IN_SECONDS";
    pub const TRAN_PREPARED_QUEUE_OFFSET: &str = "TRAN_PREPARED_QUEUE_OFFSET";
    pub const TRANSACTION_ID: &str = "__transactionId__";
    pub const TRANSACTION_CHECK_TIMES: &str = "TRANSACTION_CHECK_TIMES";
    pub const INSTANCE_ID: &str = "INSTANCE_ID";
    pub const CORRELATION_ID: &str = "CORRELATION_ID";
    pub const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
    pub const TTL: &str = "TTL";
    pub const ARRIVE_TIME: &str = "ARRIVE_TIME";
    pub const PUSH_REPLY_TIME: &str = "PUSH_REPLY_TIME";
    pub const CLUSTER: &str = "CLUSTER";
    pub const MSG_TYPE: &str = "MSG_TYPE";
    pub const POP_CK: &str = "POP_CK";
    pub const POP_CK_OFFSET: &str = "POP_CK_OFFSET";
    pub const FIRST_POP_TIME: &str = "1ST_POP_TIME";
    pub const SHARDING_KEY: &str = "__SHARDINGKEY";
    pub const FORWARD_QUEUE_ID: &str = "PROPERTY_FORWARD_QUEUE_ID";
    pub const REDIRECT: &str = "REDIRECT";
    pub const INNER_MULTI_DISPATCH: &str = "INNER_MULTI_DISPATCH";
    pub const INNER_MULTI_QUEUE_OFFSET: &str = "INNER_MULTI_QUEUE_OFFSET";
    pub const TRACE_CONTEXT: &str = "TRACE_CONTEXT";
    pub const TIMER_DELAY_SEC: &str = "TIMER_DELAY_SEC";
    pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
    pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";
    pub const TIMER_ENQUEUE_MS: &str = "TIMER_ENQUEUE_MS";
    pub const TIMER_DEQUEUE_MS: &str = "TIMER_DEQUEUE_MS";
    pub const TIMER_ROLL_TIMES: &str = "TIMER_ROLL_TIMES";
    pub const TIMER_OUT_MS: &str = "TIMER_OUT_MS";
    pub const TIMER_DEL_UNIQKEY: &str = "TIMER_DEL_UNIQKEY";
    pub const TIMER_DELAY_LEVEL: &str = "TIMER_DELAY_LEVEL";
    pub const BORN_HOST: &str = "__BORNHOST";
    pub const BORN_TIMESTAMP: &str = "BORN_TIMESTAMP";
    pub const DLQ_ORIGIN_TOPIC: &str = "DLQ_ORIGIN_TOPIC";
    pub const DLQ_ORIGIN_MESSAGE_ID: &str = "DLQ_ORIGIN_MESSAGE_ID";
    pub const CRC32: &str = "__CRC32#";
    /// Begins the names of what consumers add on arrival and nobody stores.
    pub const TRANSIENT_PREFIX: &str = "__RMQ.TRANSIENT.";
}

/// Where a value lies in the property string it was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueRange {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl ValueRange {
    fn new(start: usize, end: usize) -> Option<ValueRange> {
        Some(ValueRange { start: u32::try_from(start).ok()?, end: u32::try_from(end).ok()? })
    }

    /// The value, out of the string that was scanned; empty if `properties` is a shorter one.
    pub fn of(self, properties: &[u8]) -> &[u8] {
        properties.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The value as text, if it is UTF-8.
    pub fn text_of(self, properties: &[u8]) -> Option<&str> {
        std::str::from_utf8(self.of(properties)).ok()
    }
}

macro_rules! summary {
    ($($(#[$meta:meta])* $field:ident: $name:ident,)*) => {
        /// The values that the broker looks at, found in one pass.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct PropertySummary {
            $($(#[$meta])* pub $field: Option<ValueRange>,)*
        }

        impl PropertySummary {
            /// Notes a pair; the last one of a name counts.
            fn note(&mut self, name: &[u8], value: Option<ValueRange>) {
                $(const $name: &[u8] = names::$name.as_bytes();)*
                match name {
                    $($name => self.$field = value,)*
                    _ => {}
                }
            }
        }
    };
}

summary! {
    /// `KEYS`
    keys: KEYS,
    /// `TAGS`
    tags: TAGS,
    /// `UNIQ_KEY`
    unique_key: UNIQ_KEY,
    /// `WAIT`
    wait: WAIT,
    /// `DELAY`
    delay: DELAY,
    /// `TIMER_DELAY_SEC`
    timer_delay_seconds: TIMER_DELAY_SEC,
    /// `TIMER_DELAY_MS`
    timer_delay_ms: TIMER_DELAY_MS,
    /// `TIMER_DELIVER_MS`
    timer_deliver_ms: TIMER_DELIVER_MS,
    /// `TIMER_OUT_MS`
    timer_out_ms: TIMER_OUT_MS,
    /// `TIMER_DEL_UNIQKEY`
    timer_delete_unique_key: TIMER_DEL_UNIQKEY,
    /// `TRAN_MSG`
    transaction_message: TRAN_MSG,
    /// `PGROUP`
    producer_group: PGROUP,
    /// `CHECK_IMMUNITY_TIME_IN_SECONDS`
    check_immunity_seconds: CHECK_IMMUNITY_TIME_IN_SECONDS,
    /// `INNER_NUM`
    inner_number: INNER_NUM,
    /// `INNER_BASE`
    inner_base: INNER_BASE,
    /// `INNER_MULTI_DISPATCH`
    inner_multi_dispatch: INNER_MULTI_DISPATCH,
    /// `INNER_MULTI_QUEUE_OFFSET`
    inner_multi_queue_offset: INNER_MULTI_QUEUE_OFFSET,
    /// `POP_CK`
    pop_check_point: POP_CK,
    /// `RETRY_TOPIC`
    retry_topic: RETRY_TOPIC,
    /// `REAL_TOPIC`
    real_topic: REAL_TOPIC,
    /// `REAL_QID`
    real_queue_id: REAL_QID,
    /// `ORIGIN_MESSAGE_ID`
    origin_message_id: ORIGIN_MESSAGE_ID,
    /// `RECONSUME_TIME`
    reconsume_time: RECONSUME_TIME,
    /// `MAX_RECONSUME_TIMES`
    max_reconsume_times: MAX_RECONSUME_TIMES,
    /// `REPLY_TO_CLIENT`
    reply_to_client: REPLY_TO_CLIENT,
    /// `MSG_TYPE`
    message_type: MSG_TYPE,
    /// `DUP_INFO`
    duplicate_info: DUP_INFO,
    /// `__CRC32#`
    crc32: CRC32,
}

/// One pair, as positions in the string.
#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    start: usize,
    separator: usize,
    end: usize,
}

impl Pair {
    fn name(self, input: &[u8]) -> &[u8] {
        input.get(self.start..self.separator).unwrap_or_default()
    }

    fn value(self, input: &[u8]) -> &[u8] {
        input.get(self.separator + 1..self.end).unwrap_or_default()
    }
}

/// The valid pairs in the order of the string, duplicates included.
struct Pairs<'a> {
    input: &'a [u8],
    /// Where the next piece begins.
    at: usize,
    separators: Separators<'a>,
}

impl<'a> Pairs<'a> {
    #[inline]
    fn new(input: &'a [u8]) -> Pairs<'a> {
        let separators = Separators::new(input, NAME_VALUE_SEPARATOR, PROPERTY_SEPARATOR);
        Pairs { input, at: 0, separators }
    }
}

impl Iterator for Pairs<'_> {
    type Item = Pair;

    #[inline]
    fn next(&mut self) -> Option<Pair> {
        loop {
            let start = self.at;
            let (separator, is_end) = self.separators.next_of_either()?;
            if is_end {
                // A piece without a separator.
                self.at = separator + 1;
                continue;
            }
            let end = self.separators.next_second().unwrap_or(self.input.len());
            self.at = end + 1;
            if separator > start && end > separator + 1 {
                return Some(Pair { start, separator, end });
            }
        }
    }
}

/// The valid pairs of a property string in order, duplicates included.
pub fn properties(input: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    Pairs::new(input).map(move |pair| (pair.name(input), pair.value(input)))
}

/// The value that a name has: the last one.
pub fn find_property<'a>(input: &'a [u8], name: &str) -> Option<&'a [u8]> {
    properties(input).filter(|pair| pair.0 == name.as_bytes()).last().map(|pair| pair.1)
}

/// `UNIQ_KEY` and `KEYS`, which the index takes, in one pass. The last one of each counts.
pub fn index_keys(input: &[u8]) -> (Option<&[u8]>, Option<&[u8]>) {
    // A name ends at its piece's first separator and has none in it: who begins with name and separator has that name.
    const UNIQUE_KEY: &[u8; 9] = b"UNIQ_KEY\x01";
    const KEYS: &[u8; 5] = b"KEYS\x01";
    let (mut unique_key, mut keys) = (0..0, 0..0);
    for_each_piece(input, PROPERTY_SEPARATOR, |start, end| {
        let rest = input.get(start..).unwrap_or_default();
        if rest.first_chunk() == Some(UNIQUE_KEY) && start + UNIQUE_KEY.len() < end {
            unique_key = start + UNIQUE_KEY.len()..end;
        } else if rest.first_chunk() == Some(KEYS) && start + KEYS.len() < end {
            keys = start + KEYS.len()..end;
        }
    });
    let value = |range: Range<usize>| input.get(range).filter(|value| !value.is_empty());
    (value(unique_key), value(keys))
}

/// The words of a `KEYS` value. Source: `MessageConst.KEY_SEPARATOR`; IndexService passes over empty words.
pub fn key_words(keys: &[u8]) -> impl Iterator<Item = &[u8]> {
    keys.split(|&byte| byte == b' ').filter(|word| !word.is_empty())
}

/// Finds what the broker looks at, in one pass.
pub fn scan_properties(input: &[u8]) -> PropertySummary {
    let mut summary = PropertySummary::default();
    for pair in Pairs::new(input) {
        summary.note(pair.name(input), ValueRange::new(pair.separator + 1, pair.end));
    }
    summary
}

/// Appends one pair.
pub fn write_property(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.push(NAME_VALUE_SEPARATOR);
    out.extend_from_slice(value);
    out.push(PROPERTY_SEPARATOR);
}

/// Appends to `out` what the broker stores for a single message: the valid pairs of `input` without those in `remove` or
/// `additions`, of duplicates only the last, then `additions` (those with an empty value left out). Every pair ends
/// with 0x02. The ranges of the summary count from where the appended string begins.
pub fn rewrite_properties(
    input: &[u8],
    remove: &[&str],
    additions: &[(&str, &str)],
    out: &mut Vec<u8>,
) -> PropertySummary {
    let mut rewrite = Rewrite { start: out.len(), out, summary: PropertySummary::default(), remove, additions };
    if !rewrite.few::<USUAL_PAIRS>(input) && !rewrite.few::<FEW_PAIRS>(input) {
        rewrite.many(input);
    }
    for (name, value) in additions {
        if !name.is_empty() && !value.is_empty() {
            rewrite.append(name.as_bytes(), value.as_bytes());
        }
    }
    rewrite.summary
}

struct Rewrite<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    summary: PropertySummary,
    remove: &'a [&'a str],
    additions: &'a [(&'a str, &'a str)],
}

impl Rewrite<'_> {
    /// Up to `MOST` pairs are compared with one another; false, and nothing is done, if there are more.
    fn few<const MOST: usize>(&mut self, input: &[u8]) -> bool {
        let mut few = [Pair::default(); MOST];
        let mut count = 0;
        let mut pairs = Pairs::new(input);
        for (slot, pair) in few.iter_mut().zip(&mut pairs) {
            *slot = pair;
            count += 1;
        }
        if count == MOST && pairs.next().is_some() {
            return false;
        }
        for (index, pair) in few[..count].iter().enumerate() {
            let name = pair.name(input);
            if !few[index + 1..count].iter().any(|later| later.name(input) == name) {
                self.keep(name, pair.value(input));
            }
        }
        true
    }

    /// With many pairs the search for duplicates needs a table, or a hostile string would cost quadratic time.
    fn many(&mut self, input: &[u8]) {
        let all = || Pairs::new(input);
        let last: HashMap<&[u8], usize> = all().enumerate().map(|(index, pair)| (pair.name(input), index)).collect();
        for (index, pair) in all().enumerate() {
            let name = pair.name(input);
            if last.get(name) == Some(&index) {
                self.keep(name, pair.value(input));
            }
        }
    }

    fn keep(&mut self, name: &[u8], value: &[u8]) {
        let replaced = self.additions.iter().any(|added| added.0.as_bytes() == name);
        if !replaced && !self.remove.iter().any(|removed| removed.as_bytes() == name) {
            self.append(name, value);
        }
    }

    fn append(&mut self, name: &[u8], value: &[u8]) {
        write_property(self.out, name, value);
        let end = self.out.len() - 1 - self.start;
        self.summary.note(name, ValueRange::new(end - value.len(), end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(text: &str) -> Vec<u8> {
        text.bytes()
            .map(|byte| {
                if byte == b'^' {
                    1
                } else if byte == b'|' {
                    2
                } else {
                    byte
                }
            })
            .collect()
    }

    /// Goal: pieces are kept and dropped as Java does. Method: Java's answers for odd strings, `^` = 0x01, `|` = 0x02.
    #[test]
    fn parser_keeps_what_java_keeps() {
        let pairs = |text: &str| {
            properties(&wire(text))
                .map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii()))
                .collect::<Vec<_>>()
        };
        assert_eq!(pairs("A^b|"), ["A=b"]);
        assert_eq!(pairs("A^b"), ["A=b"]);
        for nothing in ["", "|", "A^|", "AB^|", "^b|", "ABC|", "ABC", "^^|", "|||"] {
            assert!(pairs(nothing).is_empty(), "{nothing}");
        }
        assert_eq!(pairs("A^b^c|"), ["A=b\\x01c"]);
        assert_eq!(pairs("Ab|C^d|"), ["C=d"]);
        assert_eq!(find_property(&wire("A^b|A^c|"), "A"), Some(&b"c"[..]));
    }

    /// Goal: one scan finds the values. Method: several names, one of them twice.
    #[test]
    fn scan_finds_last_values() {
        let input = wire("TAGS^a|KEYS^k 1|TAGS^b|UNIQ_KEY^u|WAIT^|x^y|");
        let summary = scan_properties(&input);
        assert_eq!(summary.tags.unwrap().of(&input), b"b");
        assert_eq!(summary.keys.unwrap().text_of(&input), Some("k 1"));
        assert_eq!(summary.unique_key.unwrap().of(&input), b"u");
        assert_eq!(summary.wait, None);
    }

    /// Goal: the index finds the values that everybody finds. Method: all strings of up to six of some pieces, whole and odd ones,
    /// compared with the general search.
    #[test]
    fn index_keys_are_the_last_values() {
        let pieces = ["|", "KEYS^a|", "KEYS^b^c|", "KEYS^|", "UNIQ_KEY^u|", "UNIQ_KEY^", "KEYS", "XKEYS^n|"];
        for number in 0..8_usize.pow(6) {
            let text: String = (0..6).map(|digit| pieces[number >> (3 * digit) & 7]).collect();
            let input = wire(&text);
            let expected = (find_property(&input, names::UNIQ_KEY), find_property(&input, names::KEYS));
            assert_eq!(index_keys(&input), expected, "{text}");
        }
    }

    /// Goal: keys are split as RocketMQ's index splits them. Method: spaces at all places.
    #[test]
    fn keys_are_words() {
        for (keys, words) in [("", &[][..]), (" ", &[]), ("k", &["k"]), (" a  b ", &["a", "b"]), ("a\tb", &["a\tb"])] {
            assert!(key_words(keys.as_bytes()).eq(words.iter().map(|word| word.as_bytes())), "{keys:?}");
        }
    }

    /// Goal: the stored string is normal and the summary points into it. Method: removal, replacement, duplicates and
    /// invalid pieces, behind bytes that were already in the buffer.
    #[test]
    fn rewrite_normalises() {
        let input = wire("A^1|POP_CK^x|TAGS^t|A^2|bad|CLUSTER^old|E^|KEYS^k");
        let mut out = b"before".to_vec();
        let summary = rewrite_properties(&input, &["POP_CK"], &[("CLUSTER", "c"), ("TRACE_ON", "")], &mut out);
        assert_eq!(&out[6..], wire("TAGS^t|A^2|KEYS^k|CLUSTER^c|"));
        assert_eq!(summary.tags.unwrap().of(&out[6..]), b"t");
        assert_eq!(summary.keys.unwrap().of(&out[6..]), b"k");
        assert_eq!(summary.pop_check_point, None);
    }

    /// Goal: many pairs take the table path with the same result. Method: more pairs than fit on the stack, each twice.
    #[test]
    fn rewrite_of_many_pairs() {
        let mut input = Vec::new();
        for round in 0..2 {
            for index in 0..200 {
                write_property(&mut input, format!("n{index}").as_bytes(), format!("{round}").as_bytes());
            }
        }
        let mut out = Vec::new();
        rewrite_properties(&input, &["n7"], &[], &mut out);
        assert_eq!(properties(&out).count(), 199);
        assert!(properties(&out).all(|pair| pair.1 == b"1"));
    }
}
