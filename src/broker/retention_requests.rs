//! Requests of tools that clean up: expired log files (329), queues without messages (306), queues without a topic (316).
//! Source: AdminBrokerProcessor.

use super::{Answer, Control, Effect, Handled, Request, success};

/// DELETE_EXPIRED_COMMITLOG (329): expired files go now, not at their hour.
pub(crate) fn delete_expired(_control: &mut Control, request: &mut Request<'_>) -> Handled {
    request.effects.push(Effect::RemoveExpired);
    Ok(Answer::Now(success()))
}

/// CLEAN_EXPIRED_CONSUMEQUEUE (306). Unlike RocketMQ's, a queue whose messages are all gone keeps its offsets: they would
/// begin at 0 again, below what its consumers have committed.
pub(crate) fn clean_queues(_control: &mut Control, request: &mut Request<'_>) -> Handled {
    request.effects.push(Effect::CleanQueues);
    Ok(Answer::Now(success()))
}

/// CLEAN_UNUSED_TOPIC (316): queues of topics that the table of topics does not have.
pub(crate) fn clean_unused_topics(_control: &mut Control, request: &mut Request<'_>) -> Handled {
    request.effects.push(Effect::RetireUnknownTopics);
    Ok(Answer::Now(success()))
}
