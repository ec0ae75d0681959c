use super::fuzz::parse_and_write;
use super::*;
use crate::bodies::{MessageQueue, SubscriptionData};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Goal: everything that fastjson accepts is read with its meaning. Method: one table of inputs and standard JSON; the
/// expectations were printed by fastjson 1.2.83.
#[test]
fn accepts_the_dialect() {
    let cases = [
        (r#"{a:1,'b':2,"c":3}"#, json!({"a": 1, "b": 2, "c": 3})),
        (r#"{0:1,"1":2,-3:4,1.5:5}"#, json!({"0": 1, "1": 2, "-3": 4, "1.5": 5})),
        ("{true:1,null:2}", json!({"true": 1, "null": 2})),
        (r#"{{"brokerName":"b"}:5}"#, json!({r#"{"brokerName":"b"}"#: 5})),
        ("[1,,2,]", json!([1, 2])),
        ("{a:1,,b:2,}\n", json!({"a": 1, "b": 2})),
        ("{a:01,b:1L,c:NaN}", json!({"a": 1, "b": 1, "c": null})),
        (r#"["\x41\v\0\7","\ud83d\ude00","\uD800x"]"#, json!(["A\u{b}\0\u{7}", "\u{1f600}", "?x"])),
        ("[-9223372036854775808,18446744073709551615,1.5e3]", json!([i64::MIN, u64::MAX, 1500.0])),
        (
            r#"{"a":{"b":[{"c":1}]},"d":{"$ref":"$.a.b[0]"},"e":{"$ref":"$.d"}}"#,
            json!({"a": {"b": [{"c": 1}]}, "d": {"c": 1}, "e": {"c": 1}}),
        ),
        (r#"{"a-b":{0:{"c":1}},"d":{"$ref":"$.a\\-b[0]"}}"#, json!({"a-b": {"0": {"c": 1}}, "d": {"c": 1}})),
    ];
    for (input, expected) in cases {
        assert_eq!(parse(input.as_bytes()), Ok(expected), "{input}");
    }
}

/// Goal: malformed text is an error of the right kind, never a panic. Method: one table of inputs.
#[test]
fn refuses_malformed_text() {
    for input in [
        "",
        "{",
        "[1",
        "{a",
        "{a:",
        "\"x",
        "{a:1}{",
        "[1]x",
        "{a b:1}",
        "\"\\q\"",
        "\"\\u12\"",
        "-",
        "tru",
        "{a:1 b:2}",
    ] {
        assert!(parse(input.as_bytes()).is_err(), "{input}");
    }
    assert!(matches!(parse(b"\"\xff\""), Err(JsonError::BadString { .. })));
    assert_eq!(parse("[".repeat(100_000).as_bytes()), Err(JsonError::TooDeep));
    assert_eq!(parse("{a:".repeat(100_000).as_bytes()), Err(JsonError::TooDeep));
    assert!(parse("{".repeat(100_000).as_bytes()).is_err());
    assert_eq!(parse(format!("[{}]", "0,".repeat(limits::MAX_NODES)).as_bytes()), Err(JsonError::TooLarge));
}

/// Goal: back references cannot loop or explode. Method: a self reference, mutual references, an unknown path, and
/// twenty levels that each double the size.
#[test]
fn bounds_back_references() {
    for input in [
        r#"{"$ref":"$"}"#,
        r#"{"a":{"$ref":"$"}}"#,
        r#"{"a":{"$ref":"@"}}"#,
        r#"{"a":{"b":{"$ref":".."}}}"#,
        r#"{"a":{"$ref":"$.b"},"b":{"$ref":"$.a"}}"#,
        r#"{"a":{"x":{"$ref":"$.b"}},"b":{"x":{"$ref":"$.a"}}}"#,
        r#"{"a":{"$ref":"$.nothing"}}"#,
        r#"{"a":{"$ref":"$.a[99999999999999999999]"}}"#,
    ] {
        assert!(parse(input.as_bytes()).is_err(), "{input}");
    }
    let mut bomb = String::from(r#"{"l0":[0,0]"#);
    for level in 1..40 {
        let below = level - 1;
        bomb.push_str(&format!(r#","l{level}":[{{"$ref":"$.l{below}"}},{{"$ref":"$.l{below}"}}]"#));
    }
    bomb.push('}');
    let repeats = r#"{"$ref":"$.a"},"#.repeat(200);
    let long_strings = format!(r#"{{"a":["{}"],"b":[{repeats}]}}"#, "x".repeat(1 << 20));
    assert_eq!(parse(long_strings.as_bytes()), Err(JsonError::TooLarge));
    assert!(matches!(parse(bomb.as_bytes()), Err(JsonError::TooLarge | JsonError::TooDeep)));
}

/// Goal: escapes are byte-equal to fastjson's in both forms. Method: strings printed by fastjson 1.2.83.
#[test]
fn escapes_like_fastjson() {
    let input = "\0\u{8}\u{b}\u{1f} a/\"\\\u{7f}\u{9f}\u{a0}ä中\u{2028}😀";
    let compact = "\"\\u0000\\b\\u000B\\u001F a/\\\"\\\\\\u007F\\u009F\u{a0}ä中\\u2028😀\"";
    let standard = r#""\u0000\b\u000B\u001F a\/\"\\\u007F\u009F\u00A0\u00E4\u4E2D\u2028\uD83D\uDE00""#;
    assert_eq!(text(to_fastjson(input)), compact);
    assert_eq!(text(to_standard(input)), standard);
}

/// Goal: doubles are Java's. Method: values printed by fastjson 1.2.83.
#[test]
fn writes_java_doubles() {
    let values = [0.0, 1.5, 1e7, 1e21, 12_345_678.9, 1e-3, 1e-4, 100.0, 1_234_567.0, f64::NAN];
    let expected = "[0.0,1.5,1.0E7,1.0E21,1.23456789E7,0.001,1.0E-4,100.0,1234567.0,null]";
    assert_eq!(text(to_fastjson(&values)), expected);
}

/// Goal: keys follow their Rust type and are sorted. Method: an integer map, a queue map and a string map in each form.
#[test]
fn writes_keys_by_type() {
    let integers = BTreeMap::from([(10, "x"), (9, "y"), (-1, "z")]);
    assert_eq!(text(to_fastjson(&integers)), r#"{-1:"z",9:"y",10:"x"}"#);
    assert_eq!(text(to_standard(&integers)), r#"{"-1":"z","9":"y","10":"x"}"#);
    let queues = BTreeMap::from([(MessageQueue::new("T", "broker-a", 0), 5)]);
    assert_eq!(text(to_fastjson(&queues)), r#"{{"brokerName":"broker-a","queueId":0,"topic":"T"}:5}"#);
    let quoted = r#"{"{\"brokerName\":\"broker-a\",\"queueId\":0,\"topic\":\"T\"}":5}"#;
    assert_eq!(text(to_standard(&queues)), quoted);
    for form in [to_fastjson(&queues), to_standard(&queues)] {
        assert_eq!(from_slice::<BTreeMap<MessageQueue, i32>>(&form).unwrap(), queues);
    }
    let unsorted: std::collections::HashMap<_, _> =
        [("b", Some(1)), ("a", None), ("B", Some(2)), ("a-b", Some(3))].into();
    assert_eq!(text(to_fastjson(&unsorted)), r#"{"B":2,"a-b":3,"b":1}"#);
}

/// Goal: state files have Java's layout. Method: a table printed by `RemotingSerializable.toJson(.., true)`.
#[test]
fn indents_like_fastjson() {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Offsets {
        data_version: crate::bodies::DataVersion,
        empty_list: Vec<i32>,
        longs: Vec<i32>,
        empty_map: BTreeMap<String, i32>,
        offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
    }
    let offsets = Offsets {
        data_version: crate::bodies::DataVersion { timestamp: 1_700_000_000_000, ..Default::default() },
        empty_list: vec![],
        longs: vec![1, 2],
        empty_map: BTreeMap::new(),
        offset_table: BTreeMap::from([
            ("E@g".to_owned(), BTreeMap::new()),
            ("T@g".to_owned(), BTreeMap::from([(0, 5), (1, 7)])),
        ]),
    };
    let expected = "{\n\t\"dataVersion\":{\n\t\t\"counter\":0,\n\t\t\"stateVersion\":0,\n\t\t\"timestamp\":1700000000000\n\t},\n\
                    \t\"emptyList\":[],\n\t\"emptyMap\":{},\n\t\"longs\":[1,2],\n\
                    \t\"offsetTable\":{\n\t\t\"E@g\":{},\n\t\t\"T@g\":{0:5,1:7\n\t\t}\n\t}\n}";
    assert_eq!(text(to_fastjson_pretty(&offsets)), expected);
}

/// Goal: the leniency towards types is fastjson's. Method: subscriptions that fastjson 1.2.83 read, with its results.
#[test]
fn reads_types_leniently() {
    let read = |input: &str| from_slice::<SubscriptionData>(input.as_bytes());
    let data = read(r#"{"subVersion":"12","codeSet":["12",5],"classFilterMode":"true"}"#).unwrap();
    assert_eq!((data.sub_version, data.code_set, data.class_filter_mode), (12, vec![12, 5], true));
    let data = read(r#"{"SUBVERSION":5,"sub_string":"q","topic":5,"unknown":[{}],"tagsSet":null}"#).unwrap();
    assert_eq!((data.sub_version, data.sub_string.as_str(), data.topic.as_str()), (5, "q", "5"));
    assert_eq!(read(r#"{"subVersion":1.7}"#).unwrap().sub_version, 1);
    assert_eq!(read(r#"{"topic":{"a":1}}"#).unwrap().topic, r#"{"a":1}"#);
    assert!(read(r#"{"classFilterMode":1}"#).unwrap().class_filter_mode);
    assert!(!read(r#"{"classFilterMode":2}"#).unwrap().class_filter_mode);
    assert!(read(r#"{"subVersion":"x"}"#).is_err());
    assert!(read(r#"{"codeSet":[3000000000]}"#).is_err());
    assert_eq!(read("{}").unwrap(), SubscriptionData::default());
}

proptest! {
    /// Goal: no bytes make the reader panic or change by a round trip. Method: random bytes, and random text made of the
    /// characters that matter to the grammar.
    #[test]
    fn arbitrary_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        parse_and_write(&bytes);
    }

    /// Goal: damaged bodies are as safe as random bytes. Method: a body that uses every construct of the dialect, with a
    /// few bytes replaced, removed or doubled.
    #[test]
    fn damaged_bodies_are_safe(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..6)) {
        let mut bytes = br#"{"clientID":"c\u4E2D",consumerDataSet:[{"consumeType":1,"groupName":'g',"subscriptionDataSet":[{"codeSet":["12",5],"subVersion":"17","topic":{"$ref":"$.clientID"},}]}],"offsetTable":{{"brokerName":"b","queueId":0}:1.5E3,"T@g":{0:5,1:-7}},"x":null}"#.to_vec();
        for (position, byte, kind) in damage {
            let position = position.index(bytes.len());
            match kind {
                0 => bytes[position] = byte,
                1 => drop(bytes.remove(position)),
                _ => bytes.insert(position, bytes[position]),
            }
        }
        parse_and_write(&bytes);
    }

    #[test]
    fn arbitrary_tokens_are_safe(tokens in prop::collection::vec(
        prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"a\"", "'b'", "c", "0", "-1", "1.5", "null", "true", "\"$ref\"", "\"$.a\"", "\"$\"",
            "\"topic\"", " ", "\\", "\"", "{\"a\":",
        ]), 0..60))
    {
        parse_and_write(tokens.concat().as_bytes());
    }
}
