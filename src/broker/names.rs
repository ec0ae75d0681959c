//! Rules for the names of topics and groups, the system topics and groups, and the names derived from them.
//! Source: TopicValidator, MixAll, KeyBuilder. Pure functions; every feature asks here.

/// Holds delayed messages, one queue per level.
pub use ringmq_shards::recovery::queue_place::SCHEDULE_TOPIC;

/// Template for topics that a send creates.
pub const AUTO_CREATE_TOPIC: &str = "TBW102";
/// For load tests.
pub const BENCHMARK_TOPIC: &str = "BenchmarkTest";
/// Half messages of transactions.
pub const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
/// Marks of finished half messages.
pub const HALF_OPERATION_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
/// Half messages that were checked too often.
pub const TRANSACTION_CHECK_MAX_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
/// Message traces.
pub const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";
/// Self test.
pub const SELF_TEST_TOPIC: &str = "SELF_TEST_TOPIC";
/// Historic events.
pub const OFFSET_MOVED_TOPIC: &str = "OFFSET_MOVED_EVENT";
/// Offsets of brokers that keep them in RocksDB.
pub const CHECKPOINT_TOPIC: &str = "CHECKPOINT_TOPIC";
/// Arbitrary-time messages.
pub const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";
/// Every topic with this prefix is a system topic.
pub const SYSTEM_TOPIC_PREFIX: &str = "rmq_sys_";
/// Prefix of the topic of messages that a group will consume again.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// Prefix of the topic of messages that a group could not consume.
pub const DEAD_LETTER_PREFIX: &str = "%DLQ%";
/// Prefix of consumer groups that belong to the system.
pub const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";

/// Longest topic name, in characters.
pub const TOPIC_MAX_CHARACTERS: usize = 127;
/// Longest retry or dead-letter topic name, in characters.
pub const DERIVED_TOPIC_MAX_CHARACTERS: usize = 255;
/// Longest group name, in characters: its retry topic must fit. RocketMQ takes 255, but stores nothing in such a retry topic.
pub const GROUP_MAX_CHARACTERS: usize = DERIVED_TOPIC_MAX_CHARACTERS - RETRY_PREFIX.len();

/// System topics whatever the configuration.
pub const SYSTEM_TOPICS: [&str; 10] = [
    AUTO_CREATE_TOPIC,
    SCHEDULE_TOPIC,
    BENCHMARK_TOPIC,
    HALF_TOPIC,
    TRACE_TOPIC,
    HALF_OPERATION_TOPIC,
    TRANSACTION_CHECK_MAX_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_TOPIC,
    CHECKPOINT_TOPIC,
];

/// Topics that clients may not send to.
const NOT_SENDABLE: [&str; 6] = [
    SCHEDULE_TOPIC,
    HALF_TOPIC,
    HALF_OPERATION_TOPIC,
    TRANSACTION_CHECK_MAX_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_TOPIC,
];

/// Groups that exist from the first start. Source: SubscriptionGroupManager.init.
pub const PREDEFINED_GROUPS: [&str; 8] = [
    "TOOLS_CONSUMER",
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PULL",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_RMQ_SYS_TRANS",
];

/// Why a name is refused; the text is the remark of the answer, in the words that RocketMQ's tools expect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty or only white space.
    #[error("The specified {kind} is blank.")]
    Blank {
        /// `topic` or `group`.
        kind: &'static str,
    },
    /// A character outside `A-Z a-z 0-9 _ - % |`.
    #[error("The specified {kind}: {name}, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$")]
    Character {
        /// `topic` or `group`.
        kind: &'static str,
        /// The refused name.
        name: String,
    },
    /// More characters than allowed.
    #[error("The specified {kind}: {name}, is longer than {kind} max length: {limit}")]
    TooLong {
        /// `topic` or `group`.
        kind: &'static str,
        /// The refused name.
        name: String,
        /// Longest allowed length.
        limit: usize,
    },
    /// A retry or dead-letter topic with more characters than allowed.
    #[error("The specified topic is DLQ or Retry topic: {name}, and it's longer than topic max length: {limit}")]
    DerivedTooLong {
        /// The refused name.
        name: String,
        /// Longest allowed length.
        limit: usize,
    },
}

/// Checks a topic name as TopicValidator.validateTopic does. Does not allocate unless it fails.
pub fn check_topic(topic: &str) -> Result<(), NameError> {
    check_characters("topic", topic)?;
    if is_retry_topic(topic) || topic.starts_with(DEAD_LETTER_PREFIX) {
        if topic.len() > DERIVED_TOPIC_MAX_CHARACTERS {
            return Err(NameError::DerivedTooLong { name: topic.to_owned(), limit: DERIVED_TOPIC_MAX_CHARACTERS });
        }
    } else if topic.len() > TOPIC_MAX_CHARACTERS {
        return Err(NameError::TooLong { kind: "topic", name: topic.to_owned(), limit: TOPIC_MAX_CHARACTERS });
    }
    Ok(())
}

/// Checks a group name as TopicValidator.validateGroup does. Does not allocate unless it fails.
pub fn check_group(group: &str) -> Result<(), NameError> {
    check_characters("group", group)?;
    if group.len() > GROUP_MAX_CHARACTERS {
        return Err(NameError::TooLong { kind: "group", name: group.to_owned(), limit: GROUP_MAX_CHARACTERS });
    }
    Ok(())
}

fn check_characters(kind: &'static str, name: &str) -> Result<(), NameError> {
    if is_blank(name) {
        return Err(NameError::Blank { kind });
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'%' | b'|');
    if !name.bytes().all(allowed) {
        return Err(NameError::Character { kind, name: name.to_owned() });
    }
    Ok(())
}

/// Empty or only white space, as Java's tools see it.
pub fn is_blank(text: &str) -> bool {
    text.chars().all(char::is_whitespace)
}

/// Whether clients may send to this topic. Source: TopicValidator.isNotAllowedSendTopic.
pub fn is_sendable(topic: &str) -> bool {
    !NOT_SENDABLE.contains(&topic)
}

/// Whether the name is a system topic on every broker; [`super::topics::TopicTable::is_system`] adds the topics that
/// are named after this broker and its cluster.
pub fn is_system_topic(topic: &str) -> bool {
    topic.starts_with(SYSTEM_TOPIC_PREFIX) || SYSTEM_TOPICS.contains(&topic)
}

/// Whether the name is that of a retry topic.
pub fn is_retry_topic(topic: &str) -> bool {
    topic.starts_with(RETRY_PREFIX)
}

/// The group whose retry topic this is.
pub fn group_of_retry_topic(topic: &str) -> Option<&str> {
    topic.strip_prefix(RETRY_PREFIX)
}

/// Whether the group belongs to the system. Source: MixAll.isSysConsumerGroup.
pub fn is_system_group(group: &str) -> bool {
    group.starts_with(SYSTEM_GROUP_PREFIX)
}

/// Whether the group belongs to tools or the system, which pull without a heartbeat. Source: MixAll.isSysConsumerGroupPullMessage.
pub fn pulls_unregistered(group: &str) -> bool {
    let others = ["DEFAULT_CONSUMER", "SCHEDULE_CONSUMER", "__MONITOR_CONSUMER"];
    is_system_group(group) || PREDEFINED_GROUPS.contains(&group) || others.contains(&group)
}

/// Retry topic of a group.
pub fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// Dead-letter topic of a group.
pub fn dead_letter_topic(group: &str) -> String {
    format!("{DEAD_LETTER_PREFIX}{group}")
}

/// Retry topics of POP consumption of one topic by one group: the first and the second form of the name.
pub fn pop_retry_topics(topic: &str, group: &str) -> [String; 2] {
    [format!("{RETRY_PREFIX}{group}_{topic}"), format!("{RETRY_PREFIX}{group}+{topic}")]
}

/// Topic for replies of request-reply messaging in this cluster.
pub fn reply_topic(cluster: &str) -> String {
    format!("{cluster}_REPLY_TOPIC")
}

/// Topic of POP check points in this cluster.
pub fn revive_topic(cluster: &str) -> String {
    format!("{SYSTEM_TOPIC_PREFIX}REVIVE_LOG_{cluster}")
}

/// Topic that the members of a broker group read to find each other.
pub fn member_topic(broker: &str) -> String {
    format!("{SYSTEM_TOPIC_PREFIX}SYNC_BROKER_MEMBER_{broker}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: topic names are accepted and refused as the rules say. Method: names at and beyond each bound.
    #[test]
    fn topic_names() {
        for good in ["a", "Topic_1-x|%", &"t".repeat(127), &format!("%RETRY%{}", "g".repeat(248)), "%DLQ%g"] {
            assert_eq!(check_topic(good), Ok(()), "{good}");
        }
        assert_eq!(check_topic(" \t").unwrap_err().to_string(), "The specified topic is blank.");
        assert_eq!(
            check_topic("a b").unwrap_err().to_string(),
            "The specified topic: a b, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
        );
        assert!(check_topic("标签").is_err());
        let long = "t".repeat(128);
        assert_eq!(
            check_topic(&long).unwrap_err().to_string(),
            format!("The specified topic: {long}, is longer than topic max length: 127")
        );
        let long = format!("%DLQ%{}", "g".repeat(251));
        assert_eq!(
            check_topic(&long).unwrap_err().to_string(),
            format!("The specified topic is DLQ or Retry topic: {long}, and it's longer than topic max length: 255")
        );
    }

    /// Goal: group names end at 120 characters. Method: both sides of the bound, a blank, a foreign character.
    #[test]
    fn group_names() {
        assert_eq!(check_group(&"g".repeat(248)), Ok(()));
        assert!(matches!(check_group(&"g".repeat(249)), Err(NameError::TooLong { limit: 248, .. })));
        assert_eq!(check_group("").unwrap_err().to_string(), "The specified group is blank.");
        assert!(check_group("g/1").is_err());
    }

    /// Goal: derived names have RocketMQ's form. Method: one of each.
    #[test]
    fn derived_names() {
        assert_eq!(retry_topic("g"), "%RETRY%g");
        assert_eq!(dead_letter_topic("g"), "%DLQ%g");
        assert_eq!(pop_retry_topics("t", "g"), ["%RETRY%g_t".to_owned(), "%RETRY%g+t".to_owned()]);
        assert_eq!(revive_topic("c"), "rmq_sys_REVIVE_LOG_c");
        assert_eq!(member_topic("b"), "rmq_sys_SYNC_BROKER_MEMBER_b");
        assert_eq!(group_of_retry_topic("%RETRY%g"), Some("g"));
    }

    /// Goal: the two sets of special topics do not get mixed up. Method: one member of each kind.
    #[test]
    fn system_and_sendable() {
        assert!(is_system_topic("rmq_sys_anything") && is_system_topic("TBW102") && !is_system_topic("T"));
        assert!(is_sendable("TBW102") && is_sendable("T") && !is_sendable(SCHEDULE_TOPIC));
        assert!(is_system_group("CID_RMQ_SYS_TRANS") && !is_system_group("CID_ONSAPI_PULL"));
    }
}
