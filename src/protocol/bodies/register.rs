//! Body of REGISTER_BROKER (103): plain JSON, or one zlib stream of length-prefixed parts. Source: RegisterBrokerBody.
//!
//! The compressed form: DataVersion JSON; topic count; per topic the text `name readQ writeQ perm FILTERTYPE attributes`;
//! filter server list JSON; from version 5.0.0 on a mapping count and the mappings. Every part has an i32 length before
//! it. Inflation stops at a bound, and no length is trusted before the bytes are there.

use super::limits::{MAX_INFLATED_REGISTER_BODY_LENGTH, MAX_REGISTERED_TOPICS};
use super::{DataVersion, TopicConfig, TopicConfigAndMapping, TopicFilterType};
use crate::json::{JsonEnum, JsonError, Value, from_slice, to_fastjson};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read, Write};

/// Version ordinal of 5.0.0: from it on the compressed body carries queue mappings.
const VERSION_WITH_MAPPINGS: i32 = 413;

/// Body of a registration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RegisterBrokerBody {
    /// Filter servers; a relic, always empty.
    pub filter_server_list: Vec<String>,
    /// The broker's topics and their version.
    pub topic_config_serialize_wrapper: TopicConfigAndMapping,
}

/// Why a compressed registration cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterBodyError {
    /// Not a zlib stream.
    #[error("inflate the register body: {0}")]
    Inflate(String),
    /// Larger than [`MAX_INFLATED_REGISTER_BODY_LENGTH`].
    #[error("the register body is longer than {MAX_INFLATED_REGISTER_BODY_LENGTH} bytes when inflated")]
    TooLong,
    /// A part is missing or its length is impossible.
    #[error("the register body ends inside {part}")]
    Truncated {
        /// Which part.
        part: &'static str,
    },
    /// More than [`MAX_REGISTERED_TOPICS`], or a negative count.
    #[error("the register body announces {count} topics")]
    Count {
        /// The announced count.
        count: i32,
    },
    /// A topic's text does not have the expected form.
    #[error("malformed topic in the register body: {text:?}")]
    Topic {
        /// The beginning of the text.
        text: String,
    },
    /// A part is not the expected JSON.
    #[error("read the register body: {0}")]
    Json(#[from] JsonError),
}

impl RegisterBrokerBody {
    /// Reads the compressed form. `sender_version`: the version ordinal of the request.
    pub fn decode_compressed(body: &[u8], sender_version: i32) -> Result<Self, RegisterBodyError> {
        let inflated = inflate(body)?;
        let mut parts = Parts { rest: &inflated };
        let mut wrapper = TopicConfigAndMapping {
            data_version: from_slice::<DataVersion>(parts.part("the data version")?)?,
            ..TopicConfigAndMapping::default()
        };
        for _ in 0..parts.count("the topic count")? {
            let topic = decode_topic(parts.part("a topic")?)?;
            wrapper.topic_config_table.insert(topic.topic_name.clone(), topic);
        }
        let filter_server_list = from_slice(parts.part("the filter servers")?)?;
        if sender_version >= VERSION_WITH_MAPPINGS {
            for _ in 0..parts.count("the mapping count")? {
                let mapping: Value = from_slice(parts.part("a mapping")?)?;
                let topic = mapping.get("topic").and_then(Value::as_str).unwrap_or_default().to_owned();
                wrapper.topic_queue_mapping_info_map.insert(topic, mapping);
            }
        }
        Ok(RegisterBrokerBody { filter_server_list, topic_config_serialize_wrapper: wrapper })
    }

    /// Writes the compressed form as version 5 brokers do.
    pub fn encode_compressed(&self) -> Vec<u8> {
        let wrapper = &self.topic_config_serialize_wrapper;
        let mut plain = Vec::new();
        put_part(&mut plain, &to_fastjson(&wrapper.data_version));
        put_count(&mut plain, wrapper.topic_config_table.len());
        for topic in wrapper.topic_config_table.values() {
            put_part(&mut plain, encode_topic(topic).as_bytes());
        }
        put_part(&mut plain, &to_fastjson(&self.filter_server_list));
        put_count(&mut plain, wrapper.topic_queue_mapping_info_map.len());
        for mapping in wrapper.topic_queue_mapping_info_map.values() {
            put_part(&mut plain, &to_fastjson(mapping));
        }
        // Java's Deflater.BEST_COMPRESSION. Writing to a Vec cannot fail.
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        let _ = encoder.write_all(&plain);
        encoder.finish().unwrap_or_default()
    }
}

fn inflate(body: &[u8]) -> Result<Vec<u8>, RegisterBodyError> {
    let mut inflated = Vec::new();
    let limit = MAX_INFLATED_REGISTER_BODY_LENGTH as u64 + 1;
    let result = ZlibDecoder::new(body).take(limit).read_to_end(&mut inflated);
    result.map_err(|error| RegisterBodyError::Inflate(error.to_string()))?;
    if inflated.len() > MAX_INFLATED_REGISTER_BODY_LENGTH {
        return Err(RegisterBodyError::TooLong);
    }
    Ok(inflated)
}

struct Parts<'a> {
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    fn integer(&mut self, part: &'static str) -> Result<i32, RegisterBodyError> {
        let (bytes, rest) = self.rest.split_first_chunk::<4>().ok_or(RegisterBodyError::Truncated { part })?;
        self.rest = rest;
        Ok(i32::from_be_bytes(*bytes))
    }

    fn count(&mut self, part: &'static str) -> Result<usize, RegisterBodyError> {
        let count = self.integer(part)?;
        usize::try_from(count)
            .ok()
            .filter(|&count| count <= MAX_REGISTERED_TOPICS)
            .ok_or(RegisterBodyError::Count { count })
    }

    fn part(&mut self, part: &'static str) -> Result<&'a [u8], RegisterBodyError> {
        let length = usize::try_from(self.integer(part)?).map_err(|_| RegisterBodyError::Truncated { part })?;
        if length > self.rest.len() {
            return Err(RegisterBodyError::Truncated { part });
        }
        let (bytes, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(bytes)
    }
}

/// Source: TopicConfig.decode.
fn decode_topic(bytes: &[u8]) -> Result<TopicConfig, RegisterBodyError> {
    let text = String::from_utf8_lossy(bytes);
    let malformed = || RegisterBodyError::Topic { text: text.chars().take(200).collect() };
    // The attributes come last and may themselves contain blanks.
    let mut words = text.splitn(6, ' ');
    let mut next = || words.next().ok_or_else(malformed);
    let number = |word: &str| word.parse::<i32>().map_err(|_| malformed());
    let topic_name = next()?.to_owned();
    let read_queue_nums = number(next()?)?;
    let write_queue_nums = number(next()?)?;
    let perm = number(next()?)?;
    let topic_filter_type = TopicFilterType::from_name(next()?).ok_or_else(malformed)?;
    // Java ignores attributes that do not parse.
    let attributes =
        words.next().and_then(|word| from_slice::<BTreeMap<String, String>>(word.as_bytes()).ok()).unwrap_or_default();
    Ok(TopicConfig {
        attributes,
        perm,
        read_queue_nums,
        topic_filter_type,
        topic_name,
        write_queue_nums,
        ..TopicConfig::default()
    })
}

/// Source: TopicConfig.encode.
fn encode_topic(topic: &TopicConfig) -> String {
    let attributes = to_fastjson(&topic.attributes);
    format!(
        "{} {} {} {} {} {}",
        topic.topic_name,
        topic.read_queue_nums,
        topic.write_queue_nums,
        topic.perm,
        topic.topic_filter_type.name(),
        String::from_utf8_lossy(&attributes)
    )
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    out.extend_from_slice(&count.to_be_bytes());
}

fn put_part(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// For fuzzers: arbitrary bytes as a compressed registration, and as the plain content of one. No panic, bounded memory,
/// and what was read survives writing and reading.
pub fn fuzz_register_body(bytes: &[u8]) {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    let deflated = encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default();
    for body in [bytes, &deflated] {
        for version in [VERSION_WITH_MAPPINGS - 1, VERSION_WITH_MAPPINGS] {
            let Ok(decoded) = RegisterBrokerBody::decode_compressed(body, version) else { continue };
            assert!(decoded.topic_config_serialize_wrapper.topic_config_table.len() <= MAX_REGISTERED_TOPICS);
            let again = RegisterBrokerBody::decode_compressed(&decoded.encode_compressed(), VERSION_WITH_MAPPINGS);
            if let Ok(again) = again {
                let table = |body: &RegisterBrokerBody| body.topic_config_serialize_wrapper.topic_config_table.clone();
                assert_eq!(table(&again), table(&decoded), "writing and reading changed a registration");
            }
        }
    }
}
