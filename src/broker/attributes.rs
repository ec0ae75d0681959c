//! Attributes of topics: the text form of requests (`+key=value,-key`), which changes are allowed, and which values are
//! not served yet. Source: AttributeParser, AttributeUtil, TopicAttributes. Pure.

use std::collections::BTreeMap;

/// Key of the queue type; immutable.
pub const QUEUE_TYPE: &str = "queue.type";
/// Key of the clean-up policy; immutable.
pub const CLEANUP_POLICY: &str = "cleanup.policy";
/// Key of the message type.
pub const MESSAGE_TYPE: &str = "message.type";
/// Key of the retention time.
pub const RESERVE_TIME: &str = "reserve.time";

/// Why attributes are refused; the texts are the remarks that RocketMQ answers with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// A part with `=` whose key has no `+`.
    #[error("add/alter attribute format is wrong: {0}")]
    AddFormat(String),
    /// A part without `=` that has no `-`.
    #[error("delete attribute format is wrong: {0}")]
    DeleteFormat(String),
    /// The same key, sign included, twice.
    #[error("key duplication: {0}")]
    Duplicate(String),
    /// The same key with two signs.
    #[error("alter duplication key. key: {0}")]
    AlteredTwice(String),
    /// An empty key, or a sign inside one.
    #[error("kv string format wrong.")]
    Key,
    /// A new topic can only be given attributes.
    #[error("only add attribute is supported while creating topic. key: {0}")]
    OnlyAdd(String),
    /// Deleting what is not there.
    #[error("attempt to delete a nonexistent key: {0}")]
    NotThere(String),
    /// A key without a sign.
    #[error("wrong format key: {0}")]
    Sign(String),
    /// A key that topics do not have.
    #[error("unsupported key: {0}")]
    Unsupported(String),
    /// A key that is fixed once the topic exists.
    #[error("attempt to update an unchangeable attribute. key: {0}")]
    Unchangeable(String),
    /// A value outside the key's set.
    #[error("value is not in set: [{0}]")]
    NotInSet(String),
    /// A number that is none, or is out of range.
    #[error("value is not in range(-1, {max})", max = i64::MAX)]
    NotInRange,
}

/// Parses the text of a request. Keys keep their sign.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, AttributeError> {
    let mut parsed = BTreeMap::new();
    if text.is_empty() {
        return Ok(parsed);
    }
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (key, value) = match part.split_once('=') {
            Some((key, _)) if !key.contains('+') => return Err(AttributeError::AddFormat(key.to_owned())),
            Some((key, value)) => (key, value.split('=').next().unwrap_or_default()),
            None if !part.contains('-') => return Err(AttributeError::DeleteFormat(part.to_owned())),
            None => (part, ""),
        };
        if parsed.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(AttributeError::Duplicate(key.to_owned()));
        }
    }
    Ok(parsed)
}

/// Applies signed changes to the attributes of a topic (`create`: a new one) and returns the result, without signs.
pub fn alter(
    create: bool,
    current: &BTreeMap<String, String>,
    changes: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, AttributeError> {
    let mut altered = current.clone();
    let mut seen = Vec::new();
    for (signed, value) in changes {
        let mut rest = signed.chars();
        let sign = rest.next().ok_or(AttributeError::Key)?;
        let key = rest.as_str();
        if key.is_empty() || key.contains(['+', '-']) {
            return Err(AttributeError::Key);
        }
        if seen.contains(&key) {
            return Err(AttributeError::AlteredTwice(key.to_owned()));
        }
        seen.push(key);
        match sign {
            '+' => {
                check_key(key, !create)?;
                check_value(key, value)?;
                altered.insert(key.to_owned(), value.clone());
            }
            _ if create => return Err(AttributeError::OnlyAdd(key.to_owned())),
            '-' if !current.contains_key(key) => return Err(AttributeError::NotThere(key.to_owned())),
            '-' => {
                check_key(key, true)?;
                altered.remove(key);
            }
            _ => return Err(AttributeError::Sign(key.to_owned())),
        }
    }
    Ok(altered)
}

fn check_key(key: &str, change: bool) -> Result<(), AttributeError> {
    match key {
        QUEUE_TYPE | CLEANUP_POLICY if change => Err(AttributeError::Unchangeable(key.to_owned())),
        QUEUE_TYPE | CLEANUP_POLICY | MESSAGE_TYPE | RESERVE_TIME => Ok(()),
        _ => Err(AttributeError::Unsupported(key.to_owned())),
    }
}

fn check_value(key: &str, value: &str) -> Result<(), AttributeError> {
    let allowed: &[&str] = match key {
        QUEUE_TYPE => &["SimpleCQ", "BatchCQ"],
        CLEANUP_POLICY => &["DELETE", "COMPACTION"],
        MESSAGE_TYPE => &["UNSPECIFIED", "NORMAL", "FIFO", "DELAY", "TRANSACTION", "MIXED"],
        _ => {
            return match value.parse::<i64>() {
                Ok(number) if number >= -1 => Ok(()),
                _ => Err(AttributeError::NotInRange),
            };
        }
    };
    if allowed.contains(&value) { Ok(()) } else { Err(AttributeError::NotInSet(allowed.join(", "))) }
}

/// The attribute, without sign, that this broker does not serve: batch queues and compaction would need stores that it
/// does not have, and messages accepted under them would be delivered wrongly.
pub fn unserved(attributes: &BTreeMap<String, String>) -> Option<&'static str> {
    let is = |key: &str, value: &str| attributes.get(key).is_some_and(|found| found == value);
    if is(QUEUE_TYPE, "BatchCQ") {
        Some("queue.type=BatchCQ")
    } else if is(CLEANUP_POLICY, "COMPACTION") {
        Some("cleanup.policy=COMPACTION")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// Goal: the text form is read as AttributeParser reads it. Method: good and bad texts with expected results.
    #[test]
    fn text_form() {
        assert_eq!(parse(""), Ok(map(&[])));
        assert_eq!(parse("+a=b,-c"), Ok(map(&[("+a", "b"), ("-c", "")])));
        assert_eq!(parse("a=b").unwrap_err().to_string(), "add/alter attribute format is wrong: a");
        assert_eq!(parse("+a").unwrap_err().to_string(), "delete attribute format is wrong: +a");
        assert_eq!(parse("+a=b,+a=c").unwrap_err().to_string(), "key duplication: +a");
    }

    /// Goal: only allowed changes pass. Method: one case per rule, for a new and for an existing topic.
    #[test]
    fn changes() {
        let none = map(&[]);
        let fifo = map(&[("message.type", "FIFO")]);
        assert_eq!(alter(true, &none, &map(&[("+message.type", "FIFO")])), Ok(fifo.clone()));
        assert_eq!(alter(false, &fifo, &map(&[("-message.type", "")])), Ok(none.clone()));
        let cases = [
            (
                true,
                map(&[("-message.type", "")]),
                "only add attribute is supported while creating topic. key: message.type",
            ),
            (false, map(&[("-reserve.time", "")]), "attempt to delete a nonexistent key: reserve.time"),
            (false, map(&[("+queue.type", "BatchCQ")]), "attempt to update an unchangeable attribute. key: queue.type"),
            (true, map(&[("+colour", "red")]), "unsupported key: colour"),
            (
                true,
                map(&[("+message.type", "ODD")]),
                "value is not in set: [UNSPECIFIED, NORMAL, FIFO, DELAY, TRANSACTION, MIXED]",
            ),
            (true, map(&[("+reserve.time", "-2")]), "value is not in range(-1, 9223372036854775807)"),
            (false, map(&[("message.type", "FIFO")]), "wrong format key: essage.type"),
            (true, map(&[("+", "x")]), "kv string format wrong."),
            (
                false,
                map(&[("+message.type", "FIFO"), ("-message.type", "")]),
                "alter duplication key. key: message.type",
            ),
        ];
        for (create, changes, remark) in cases {
            assert_eq!(alter(create, &fifo, &changes).unwrap_err().to_string(), remark);
        }
    }

    /// Goal: the two kinds of topics that need another store are recognised. Method: each, and a served one.
    #[test]
    fn not_served() {
        assert_eq!(unserved(&map(&[("queue.type", "BatchCQ")])), Some("queue.type=BatchCQ"));
        assert_eq!(unserved(&map(&[("cleanup.policy", "COMPACTION")])), Some("cleanup.policy=COMPACTION"));
        assert_eq!(unserved(&map(&[("queue.type", "SimpleCQ"), ("message.type", "FIFO")])), None);
    }
}
