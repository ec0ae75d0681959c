//! Which handler serves which request code: one line per code. Sends (10, 310, 320) and pulls (11, 361) are served by
//! the shards and never come here. A feature is added with its file and its lines.

use ringmq_protocol::codes::request;

use super::{
    Handler, config_requests, connection_requests, group_requests, heartbeat, locks, offset_requests, query_requests,
    retention_requests, runtime_info, statistics_requests, topic_requests,
};

/// Every code that the control plane serves.
#[rustfmt::skip]
pub const HANDLERS: &[(i32, Handler)] = &[
    (request::HEART_BEAT, heartbeat::heartbeat),
    (request::UPDATE_CONSUMER_OFFSET, offset_requests::update),
    (request::QUERY_CONSUMER_OFFSET, offset_requests::query),
    (request::GET_CONSUMER_LIST_BY_GROUP, heartbeat::consumer_list),
    (request::LOCK_BATCH_MQ, locks::lock_batch),
    (request::UNLOCK_BATCH_MQ, locks::unlock_batch),
    (request::UNREGISTER_CLIENT, heartbeat::unregister),
    (request::CHECK_CLIENT_CONFIG, heartbeat::check_client),
    (request::GET_MAX_OFFSET, offset_requests::maximum),
    (request::GET_MIN_OFFSET, offset_requests::minimum),
    (request::SEARCH_OFFSET_BY_TIMESTAMP, offset_requests::by_timestamp),
    (request::GET_EARLIEST_MSG_STORETIME, offset_requests::earliest_store_time),
    (request::QUERY_MESSAGE, query_requests::by_key),
    (request::VIEW_MESSAGE_BY_ID, query_requests::by_id),
    (request::UPDATE_AND_CREATE_TOPIC, topic_requests::update),
    (request::UPDATE_AND_CREATE_TOPIC_LIST, topic_requests::update_list),
    (request::DELETE_TOPIC_IN_BROKER, topic_requests::delete),
    (request::GET_ALL_TOPIC_CONFIG, topic_requests::all),
    (request::GET_TOPIC_CONFIG, topic_requests::one),
    (request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER, topic_requests::system_topics),
    (request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, group_requests::update),
    (request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST, group_requests::update_list),
    (request::DELETE_SUBSCRIPTIONGROUP, group_requests::delete),
    (request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, group_requests::all),
    (request::GET_SUBSCRIPTIONGROUP_CONFIG, group_requests::one),
    (request::GET_ALL_CONSUMER_OFFSET, offset_requests::all),
    (request::CLONE_GROUP_OFFSET, offset_requests::clone),
    (request::UPDATE_BROKER_CONFIG, config_requests::update),
    (request::GET_BROKER_CONFIG, config_requests::get),
    (request::DELETE_EXPIRED_COMMITLOG, retention_requests::delete_expired),
    (request::CLEAN_EXPIRED_CONSUMEQUEUE, retention_requests::clean_queues),
    (request::CLEAN_UNUSED_TOPIC, retention_requests::clean_unused_topics),
    (request::GET_BROKER_RUNTIME_INFO, runtime_info::get),
    (request::GET_TOPIC_STATS_INFO, statistics_requests::topic),
    (request::GET_CONSUME_STATS, statistics_requests::consumption),
    (request::GET_BROKER_CONSUME_STATS, statistics_requests::consumption_of_broker),
    (request::QUERY_CONSUME_TIME_SPAN, statistics_requests::time_span),
    (request::VIEW_BROKER_STATS_DATA, statistics_requests::view),
    (request::GET_CONSUMER_CONNECTION_LIST, connection_requests::consumers),
    (request::GET_PRODUCER_CONNECTION_LIST, connection_requests::producers),
    (request::GET_ALL_PRODUCER_INFO, connection_requests::all_producers),
    (request::QUERY_TOPIC_CONSUME_BY_WHO, connection_requests::groups_of_topic),
    (request::QUERY_TOPICS_BY_CONSUMER, connection_requests::topics_of_group),
    (request::QUERY_SUBSCRIPTION_BY_CONSUMER, connection_requests::subscription),
];

/// The handler of a code; the list is short and ordered by frequency.
pub fn handler(code: i32) -> Option<Handler> {
    HANDLERS.iter().find(|(served, _)| *served == code).map(|(_, handler)| *handler)
}
