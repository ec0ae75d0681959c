//! Whether a failed request is worth another attempt. Pure.

use ringmq_protocol::codes::response;

use super::error::ClientError;

/// Whether a producer tries another broker after this failure (`DefaultMQProducer.retryResponseCodes`). After a broken
/// connection the message may already be stored, so a retry may store it twice.
pub fn send_again(error: &ClientError) -> bool {
    match error {
        ClientError::NothingListens { .. }
        | ClientError::Connect { .. }
        | ClientError::Broken { .. }
        | ClientError::Timeout { .. }
        | ClientError::Protocol { .. } => true,
        ClientError::Refused { code, .. } => matches!(
            *code,
            response::TOPIC_NOT_EXIST
                | response::SERVICE_NOT_AVAILABLE
                | response::SYSTEM_ERROR
                | response::SYSTEM_BUSY
                | response::NO_PERMISSION
                | response::NO_BUYER_ID
                | response::NOT_IN_CURRENT_UNIT
                | response::GO_AWAY
        ),
        ClientError::NoNameServer
        | ClientError::Answer { .. }
        | ClientError::NoTopic(_)
        | ClientError::NoQueue(_)
        | ClientError::Message(_) => false,
    }
}

/// Whether a consumer asks the same broker again after a pause: it may come back, or its pressure may go.
pub fn pull_again(error: &ClientError) -> bool {
    match error {
        ClientError::Refused { code, .. } => matches!(
            *code,
            response::SYSTEM_BUSY
                | response::SERVICE_NOT_AVAILABLE
                | response::FLOW_CONTROL
                | response::SUBSCRIPTION_NOT_EXIST
                | response::SUBSCRIPTION_NOT_LATEST
                | response::GO_AWAY
        ),
        _ => send_again(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: i32) -> ClientError {
        ClientError::Refused { address: String::new(), request: 0, code, remark: String::new() }
    }

    /// Goal: what a person must change is not repeated, what passes is. Method: both kinds of refusal and a lost broker.
    #[test]
    fn passing_troubles_are_retried() {
        let lost = ClientError::NothingListens { address: "a:1".into() };
        assert!(send_again(&lost) && pull_again(&lost));
        assert!(send_again(&refused(response::SYSTEM_BUSY)) && pull_again(&refused(response::SYSTEM_BUSY)));
        assert!(send_again(&refused(response::TOPIC_NOT_EXIST)) && !pull_again(&refused(response::TOPIC_NOT_EXIST)));
        for code in [response::MESSAGE_ILLEGAL, response::INVALID_PARAMETER] {
            assert!(!send_again(&refused(code)) && !pull_again(&refused(code)));
        }
    }
}
