//! Entry points for fuzzers: arbitrary bytes in, invariants asserted.

use super::{from_value, parse, to_fastjson, to_fastjson_pretty, to_standard};

/// Whatever the bytes: no panic, and a value that was read survives writing and reading in all three forms.
pub fn parse_and_write(bytes: &[u8]) {
    let Ok(value) = parse(bytes) else { return };
    let without_nulls = drop_nulls(value.clone());
    for text in [to_fastjson(&value), to_fastjson_pretty(&value), to_standard(&value)] {
        let again = parse(&text);
        // An object that holds `$ref` beside a null is written as a back reference, which means something else.
        if !text.windows(4).any(|window| window == b"$ref") {
            assert_eq!(again.as_ref(), Ok(&without_nulls), "writing and reading changed a value");
        }
    }
    let _ = from_value::<crate::bodies::HeartbeatData>(value.clone());
    let _ = from_value::<crate::bodies::RegisterBrokerBody>(value.clone());
    let _ = from_value::<crate::bodies::ConsumerOffsetWrapper>(value.clone());
    let _ = from_value::<crate::bodies::SubscriptionGroupWrapper>(value);
}

/// What writing does to a value: members that are null disappear.
fn drop_nulls(value: super::Value) -> super::Value {
    use super::Value;
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(drop_nulls).collect()),
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .filter(|(_, member)| !member.is_null())
                .map(|(key, member)| (key, drop_nulls(member)))
                .collect(),
        ),
        scalar => scalar,
    }
}
