//! Requests of tools about topics: create and change (17, 18), delete (215), show (21, 351, 305).
//! Source: AdminBrokerProcessor.

use std::collections::BTreeMap;

use ringmq_protocol::bodies::{DataVersion, JsonBody, TopicConfig, TopicConfigAndMapping, TopicFilterType, TopicList};
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;
use ringmq_protocol::json::JsonEnum;
use serde::{Deserialize, Serialize};

use super::attributes::{self, AttributeError};
use super::{Answer, Control, Effect, Handled, Refusal, Request, body, limits, names, success};

/// Body of 18. Source: CreateTopicListRequestBody.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TopicConfigList {
    topic_config_list: Vec<TopicConfig>,
}

impl From<AttributeError> for Refusal {
    fn from(error: AttributeError) -> Refusal {
        Refusal::new(response::SYSTEM_ERROR, error.to_string())
    }
}

/// UPDATE_AND_CREATE_TOPIC (17).
pub(crate) fn update(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let wanted = from_header(request.command)?;
    match control.check_update(&wanted)? {
        None => Ok(Answer::Now(success())),
        Some(altered) => {
            control.check_room_for_topics(std::slice::from_ref(&altered))?;
            control.apply_topics(vec![altered], request.now.wall_ms, request.effects);
            Ok(Answer::Now(success()))
        }
    }
}

/// UPDATE_AND_CREATE_TOPIC_LIST (18). All or nothing; like RocketMQ it stops with success, and nothing applied, at the
/// first topic that would not change.
pub(crate) fn update_list(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let wanted = TopicConfigList::decode(body(request.command)?)?.topic_config_list;
    let mut altered: BTreeMap<String, TopicConfig> = BTreeMap::new();
    for config in &wanted {
        match control.check_update(config)? {
            None => return Ok(Answer::Now(success())),
            Some(config) => _ = altered.insert(config.topic_name.clone(), config),
        }
    }
    let altered: Vec<TopicConfig> = altered.into_values().collect();
    control.check_room_for_topics(&altered)?;
    control.apply_topics(altered, request.now.wall_ms, request.effects);
    Ok(Answer::Now(success()))
}

/// DELETE_TOPIC_IN_BROKER (215). Also deletes the retry topics of POP consumption of every group with offsets on it.
pub(crate) fn delete(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let name = request.command.ext_text("topic")?;
    if names::is_blank(name) {
        return Err(Refusal::new(response::INVALID_PARAMETER, "The specified topic is blank."));
    }
    control.refuse_system_topic(name)?;
    let mut topics = vec![name.to_owned()];
    if control.config.clear_retry_topics {
        let retry = control.offsets.groups_of(name).flat_map(|group| names::pop_retry_topics(name, group));
        topics.extend(retry.filter(|topic| control.topics.contains(topic)));
    }
    for topic in topics {
        if control.topics.remove(&topic, request.now.wall_ms) {
            request.effects.push(Effect::TopicsChanged);
        }
        control.offsets.remove_topic(&topic);
        request.effects.push(Effect::RetireQueues { topic });
    }
    Ok(Answer::Now(success()))
}

/// GET_ALL_TOPIC_CONFIG (21), whole or one page of it.
pub(crate) fn all(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let all = control.topics.sorted();
    let page = Page::of(request.command, "topicSeq", "maxTopicNum", control.topics.version())?;
    let table = page.cut(all.iter()).map(|(name, config)| ((*name).to_owned(), (*config).clone())).collect();
    let wrapper = TopicConfigAndMapping {
        data_version: control.topics.version().clone(),
        topic_config_table: table,
        ..TopicConfigAndMapping::default()
    };
    Ok(Answer::Now(success().with_ext("totalTopicNum", all.len()).with_body(wrapper.encode())))
}

/// GET_TOPIC_CONFIG (351).
pub(crate) fn one(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let topic = request.command.ext_text("topic")?;
    let Some(config) = control.topics.get(topic) else {
        return Err(Refusal::new(response::TOPIC_NOT_EXIST, format!("No topic in this broker. topic: {topic}")));
    };
    Ok(Answer::Now(success().with_body(config.encode())))
}

/// GET_SYSTEM_TOPIC_LIST_FROM_BROKER (305).
pub(crate) fn system_topics(control: &mut Control, _request: &mut Request<'_>) -> Handled {
    let topic_list = control.topics.system_topics().map(str::to_owned).collect();
    Ok(Answer::Now(success().with_body(TopicList { broker_addr: None, topic_list }.encode())))
}

fn from_header(command: &Command) -> Result<TopicConfig, Refusal> {
    let filter_type = command.ext_text("topicFilterType")?;
    // Exact names only: the Java header calls Enum.valueOf.
    let known = TopicFilterType::CONSTANTS.iter().find(|(name, _)| *name == filter_type);
    let Some((_, topic_filter_type)) = known else {
        let remark = format!("topicFilterType = [{filter_type}] value invalid");
        return Err(Refusal::new(response::SYSTEM_ERROR, remark));
    };
    let topic = command.ext_text("topic")?;
    names::check_topic(topic)?;
    Ok(TopicConfig {
        read_queue_nums: command.ext_i32("readQueueNums")?,
        write_queue_nums: command.ext_i32("writeQueueNums")?,
        perm: command.ext_i32("perm")?,
        topic_filter_type: *topic_filter_type,
        topic_sys_flag: command.optional_i32("topicSysFlag")?.unwrap_or(0),
        order: command.optional_bool("order").unwrap_or(false),
        attributes: attributes::parse(command.ext("attributes").unwrap_or_default())?,
        ..TopicConfig::new(topic)
    })
}

impl Control {
    fn refuse_system_topic(&self, topic: &str) -> Result<(), Refusal> {
        if self.config.protect_system_topics && self.topics.is_system(topic) {
            let remark = format!("The topic[{topic}] is conflict with system topic.");
            return Err(Refusal::new(response::INVALID_PARAMETER, remark));
        }
        Ok(())
    }

    /// Checks a wanted configuration whose attributes are changes with signs. Returns what the topic would become, or
    /// `None` if it would not change.
    fn check_update(&self, wanted: &TopicConfig) -> Result<Option<TopicConfig>, Refusal> {
        let name = wanted.topic_name.as_str();
        names::check_topic(name)?;
        self.refuse_system_topic(name)?;
        for queues in [wanted.read_queue_nums, wanted.write_queue_nums] {
            if !(0..=limits::MAX_QUEUES_PER_TOPIC).contains(&queues) {
                return Err(Refusal::new(response::INVALID_PARAMETER, limits::bad_queue_number(queues)));
            }
        }
        let message_type = wanted.attributes.get("+message.type");
        if message_type.is_some_and(|kind| kind == "MIXED") {
            return Err(Refusal::new(response::INVALID_PARAMETER, "MIXED message type is not supported."));
        }
        let existing = self.topics.get(name);
        let unknown = existing.map(|config| config.unknown.clone()).unwrap_or_default();
        let wanted = TopicConfig { unknown, ..wanted.clone() };
        if existing == Some(&wanted) {
            return Ok(None);
        }
        let none = BTreeMap::new();
        let current = existing.map_or(&none, |config| &config.attributes);
        let attributes = attributes::alter(existing.is_none(), current, &wanted.attributes)?;
        if let Some(attribute) = attributes::unserved(&attributes) {
            let remark = format!("topics with {attribute} are not served yet by this broker");
            return Err(Refusal::new(response::MESSAGE_ILLEGAL, remark));
        }
        Ok(Some(TopicConfig { attributes, ..wanted }))
    }

    fn apply_topics(&mut self, topics: Vec<TopicConfig>, wall_ms: u64, effects: &mut Vec<Effect>) {
        if topics.is_empty() {
            return;
        }
        let names = topics.iter().map(|topic| topic.topic_name.clone()).collect();
        topics.into_iter().for_each(|topic| self.topics.put(topic, wall_ms));
        effects.push(Effect::TopicsChanged);
        self.register_topics(names, effects);
    }
}

/// The part of a sorted table that a paged request wants.
pub(crate) struct Page {
    start: usize,
    length: usize,
}

impl Page {
    /// Reads the paging fields; without any of them the whole table is meant. A version other than the table's starts
    /// again at the beginning.
    pub(crate) fn of(
        command: &Command,
        start_field: &'static str,
        length_field: &'static str,
        version: &DataVersion,
    ) -> Result<Page, Refusal> {
        let start = command.optional_i32(start_field)?;
        let length = command.optional_i32(length_field)?;
        let seen = command.ext("dataVersion");
        if start.is_none() && length.is_none() && seen.is_none() {
            return Ok(Page { start: 0, length: usize::MAX });
        }
        let current = seen.is_some_and(|seen| DataVersion::decode(seen.as_bytes()).is_ok_and(|seen| seen == *version));
        let start = if current { usize::try_from(start.unwrap_or(0)).unwrap_or(0) } else { 0 };
        let length = usize::try_from(length.unwrap_or(i32::MAX)).unwrap_or(0);
        Ok(Page { start, length: length.min(limits::METADATA_PAGE) })
    }

    /// The entries of the page.
    pub(crate) fn cut<T>(&self, entries: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        entries.skip(self.start).take(self.length)
    }
}
