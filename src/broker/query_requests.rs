//! Requests that fetch stored messages: by key (12) and by commit-log offset (33). Source: QueryMessageProcessor.

use ringmq_protocol::codes::response;

use super::{Answer, Control, Handled, Refusal, Request, success};

/// QUERY_MESSAGE (12). The answer may hold messages of other keys with the same hash; clients compare. What cannot be read is no
/// proof that there is no message, so it is an error, unlike in Java.
pub(crate) fn by_key(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let topic = request.command.ext_text("topic")?.to_owned();
    let key = request.command.ext_text("key")?.to_owned();
    let unique = request.command.ext("_UNIQUE_KEY_QUERY") == Some("true");
    let wanted = request.command.ext_i32("maxNum")?;
    let most =
        if unique { control.config.default_query_messages } else { wanted.min(control.config.max_query_messages) };
    let begin = request.command.ext_i64("beginTimestamp")?;
    let end = request.command.ext_i64("endTimestamp")?;
    Ok(Answer::LookUp(Box::new(move |store| {
        let found = match store.query(&topic, &key, most, begin, end) {
            Ok(found) => found,
            Err(reason) => return Refusal::new(response::SYSTEM_ERROR, reason).into_command(),
        };
        let answer = if found.records.is_empty() {
            let remark = "can not find message, maybe time range not correct";
            Refusal::new(response::QUERY_NOT_FOUND, remark).into_command()
        } else {
            success().with_body(found.records)
        };
        answer
            .with_ext("indexLastUpdateTimestamp", found.index_last_timestamp)
            .with_ext("indexLastUpdatePhyoffset", found.index_last_physical)
    })))
}

/// VIEW_MESSAGE_BY_ID (33).
pub(crate) fn by_id(_control: &mut Control, request: &mut Request<'_>) -> Handled {
    let offset = request.command.ext_i64("offset")?;
    Ok(Answer::LookUp(Box::new(move |store| match store.record_at(offset) {
        Some(record) => success().with_body(record),
        None => {
            let remark = format!("can not find message by the offset, {offset}");
            Refusal::new(response::SYSTEM_ERROR, remark).into_command()
        }
    })))
}
