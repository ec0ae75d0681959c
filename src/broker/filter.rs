//! Tag subscriptions: from an expression such as `TagA || TagB` to a set of codes that a queue entry is compared with.
//! Source: FilterAPI, ExpressionMessageFilter.
//!
//! A code is the Java `hashCode` of one tag. Different tags can share a code; consumers compare the text themselves, so
//! the broker never does. Pure; a filter does not change once made.

use std::sync::Arc;

/// The expression that takes every message.
pub const ALL: &str = "*";

/// The type of expression that this filter understands; an absent or blank type means the same.
pub const TAG: &str = "TAG";

/// Codes compared one by one up to this number; beyond it a sorted search is faster.
const LINEAR_CODES: usize = 8;

/// The expression consists of separators alone: RocketMQ's own parser throws for these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("subString split error")]
pub struct ExpressionError;

/// A parsed tag expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagFilter {
    everything: bool,
    codes: Arc<[i32]>,
}

/// Whether an expression type means tags. Source: ExpressionType.isTagType.
pub fn is_tag_type(expression_type: Option<&str>) -> bool {
    matches!(expression_type, None | Some("") | Some(TAG))
}

/// The tags of an expression in their order, trimmed, blanks left out; an empty list for one that takes everything.
/// A blank part is dropped, so that `a || ` has one tag and ` || ` has none (and then matches nothing).
pub fn tags(expression: &str) -> Result<Vec<&str>, ExpressionError> {
    if expression.is_empty() || expression == ALL {
        return Ok(Vec::new());
    }
    let parts: Vec<&str> = expression.split("||").collect();
    if parts.iter().all(|part| part.is_empty()) {
        return Err(ExpressionError);
    }
    Ok(parts.into_iter().map(java_trim).filter(|tag| !tag.is_empty()).collect())
}

impl TagFilter {
    /// The filter that takes everything.
    pub fn everything() -> TagFilter {
        TagFilter { everything: true, codes: Arc::default() }
    }

    /// Parses an expression; absent, empty or `*` takes everything.
    pub fn parse(expression: Option<&str>) -> Result<TagFilter, ExpressionError> {
        let expression = expression.unwrap_or(ALL);
        if expression.is_empty() || expression == ALL {
            return Ok(TagFilter::everything());
        }
        Ok(TagFilter::from_codes(tags(expression)?.into_iter().map(java_hash)))
    }

    /// The filter of a subscription that came with its codes, as heartbeats do: the codes are believed, not computed.
    pub fn of_subscription(
        expression: Option<&str>,
        class_filter: bool,
        codes: impl Iterator<Item = i32>,
    ) -> TagFilter {
        if class_filter || expression == Some(ALL) {
            return TagFilter::everything();
        }
        TagFilter::from_codes(codes)
    }

    fn from_codes(codes: impl Iterator<Item = i32>) -> TagFilter {
        let mut codes: Vec<i32> = codes.collect();
        codes.sort_unstable();
        codes.dedup();
        TagFilter { everything: false, codes: codes.into() }
    }

    /// Whether every message passes, so that queue entries need not be looked at.
    pub fn takes_everything(&self) -> bool {
        self.everything
    }

    /// Whether a message passes, by the tag code of its queue entry (0 without tags). Compares the low 32 bits; does
    /// not allocate.
    #[inline]
    pub fn matches(&self, tags_code: i64) -> bool {
        if self.everything {
            return true;
        }
        #[allow(clippy::cast_possible_truncation, reason = "the code is the low half by definition (Long.intValue)")]
        let code = tags_code as i32;
        if self.codes.len() <= LINEAR_CODES {
            self.codes.contains(&code)
        } else {
            self.codes.binary_search(&code).is_ok()
        }
    }

    /// The codes in ascending order.
    pub fn codes(&self) -> &[i32] {
        &self.codes
    }
}

/// `String.trim`: removes characters up to U+0020, not all white space.
fn java_trim(text: &str) -> &str {
    text.trim_matches(|character: char| character <= ' ')
}

/// `String.hashCode`: over UTF-16 units, wrapping.
pub fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: codes equal Java's. Method: the published vectors.
    #[test]
    fn hash_vectors() {
        assert_eq!(java_hash("TagA"), 2_598_919);
        assert_eq!(java_hash("TagB"), 2_598_920);
        assert_eq!(java_hash("标签"), 857_175);
        assert_eq!(java_hash(""), 0);
    }

    /// Goal: expressions split as FilterAPI splits them. Method: a table of expressions and their tags.
    #[test]
    fn expressions() {
        let table: [(&str, &[&str]); 6] = [
            ("TagA", &["TagA"]),
            ("TagA || TagB", &["TagA", "TagB"]),
            ("||TagA||", &["TagA"]),
            (" || ", &[]),
            ("a|b", &["a|b"]),
            ("a|||b", &["a", "|b"]),
        ];
        for (expression, expected) in table {
            assert_eq!(tags(expression).unwrap(), expected, "{expression}");
        }
        assert_eq!(TagFilter::parse(Some("||")), Err(ExpressionError));
        assert_eq!(TagFilter::parse(Some("||||")), Err(ExpressionError));
    }

    /// Goal: only wanted codes pass. Method: matching and other codes, few and many tags, the high half ignored.
    #[test]
    fn matching() {
        for all in [None, Some(""), Some("*")] {
            assert!(TagFilter::parse(all).unwrap().matches(0));
        }
        let two = TagFilter::parse(Some("TagA||TagB")).unwrap();
        assert!(two.matches(2_598_919) && two.matches(2_598_920) && !two.matches(0));
        assert!(two.matches(2_598_919 | (7 << 32)));
        assert!(!TagFilter::parse(Some(" || ")).unwrap().matches(0));
        let expression = (0..40).map(|number| format!("t{number}")).collect::<Vec<_>>().join("||");
        let many = TagFilter::parse(Some(&expression)).unwrap();
        assert!((0..40).all(|number| many.matches(i64::from(java_hash(&format!("t{number}"))))));
        assert!(!many.matches(i64::from(java_hash("t40"))));
    }

    /// Goal: a subscription from a heartbeat is believed. Method: codes that do not belong to the text; class filters.
    #[test]
    fn subscriptions() {
        assert!(TagFilter::of_subscription(Some("x"), false, [5].into_iter()).matches(5));
        assert!(TagFilter::of_subscription(Some("x"), true, std::iter::empty()).takes_everything());
        assert!(TagFilter::of_subscription(Some("*"), false, std::iter::empty()).takes_everything());
        assert!(!TagFilter::of_subscription(Some("x"), false, std::iter::empty()).matches(5));
        assert!(is_tag_type(None) && is_tag_type(Some("")) && is_tag_type(Some("TAG")) && !is_tag_type(Some("SQL92")));
    }
}
