//! What brokers answer, in the form that callers need. Pure.

use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;
use ringmq_protocol::record::{CrcCheck, Records};

use super::error::AnswerError;

/// What a producer learns of a stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendReceipt {
    /// Queue that took it.
    pub queue_id: i32,
    /// Its offset in that queue; of a batch, the first one's.
    pub queue_offset: i64,
    /// Its offset message id; of a batch, one per message, joined by commas.
    pub message_id: String,
    /// Response code: 0, or 10 to 12 if the message is stored but a wait for the disk or a replica was given up.
    pub code: i32,
}

impl SendReceipt {
    /// Reads the answer to a send; `None` if it is a refusal.
    ///
    /// # Errors
    /// A field is missing.
    pub fn decode(answer: &Command) -> Result<Option<SendReceipt>, AnswerError> {
        match answer.code {
            response::SUCCESS
            | response::FLUSH_DISK_TIMEOUT
            | response::SLAVE_NOT_AVAILABLE
            | response::FLUSH_SLAVE_TIMEOUT => Ok(Some(SendReceipt {
                queue_id: answer.ext_i32("queueId")?,
                queue_offset: answer.ext_i64("queueOffset")?,
                message_id: answer.ext_text("msgId")?.to_owned(),
                code: answer.code,
            })),
            _ => Ok(None),
        }
    }

    /// Whether everything that was waited for has happened.
    pub fn is_settled(&self) -> bool {
        self.code == response::SUCCESS
    }
}

/// How a pull went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullStatus {
    /// There are messages.
    Found,
    /// No new message (19).
    NothingNew,
    /// Messages, but none with these tags (20): ask again at the next offset at once.
    NothingMatched,
    /// The offset is outside the queue (21): go on at the next offset.
    OffsetMoved,
}

/// The answer to a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullAnswer {
    /// How it went.
    pub status: PullStatus,
    /// Offset to ask for next.
    pub next_offset: i64,
    /// Offset of the oldest message of the queue.
    pub min_offset: i64,
    /// Offset that the next message of the queue will have.
    pub max_offset: i64,
    /// Stored records, one behind the other.
    pub records: Vec<u8>,
}

impl PullAnswer {
    /// Reads the answer to a pull; `None` if it is a refusal.
    ///
    /// # Errors
    /// A field is missing.
    pub fn decode(answer: Command) -> Result<Option<PullAnswer>, AnswerError> {
        let status = match answer.code {
            response::SUCCESS => PullStatus::Found,
            response::PULL_NOT_FOUND => PullStatus::NothingNew,
            response::PULL_RETRY_IMMEDIATELY => PullStatus::NothingMatched,
            response::PULL_OFFSET_MOVED => PullStatus::OffsetMoved,
            _ => return Ok(None),
        };
        Ok(Some(PullAnswer {
            status,
            next_offset: answer.ext_i64("nextBeginOffset")?,
            min_offset: answer.ext_i64("minOffset")?,
            max_offset: answer.ext_i64("maxOffset")?,
            records: answer.body.unwrap_or_default(),
        }))
    }

    /// The messages in order, their checksums verified. Ends after the first error.
    pub fn messages(&self) -> Records<'_> {
        Records::new(&self.records, CrcCheck::Verify)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_records::record;
    use super::*;

    /// Goal: receipts come from all codes that mean stored. Method: one of each kind, a refusal, a missing field.
    #[test]
    fn receipts() {
        for code in [0, 10, 11, 12] {
            let answer =
                Command::response(code, 1).with_ext("msgId", "M").with_ext("queueId", 2).with_ext("queueOffset", 3);
            let receipt = SendReceipt::decode(&answer).expect("complete").expect("stored");
            assert_eq!(
                (receipt.queue_id, receipt.queue_offset, receipt.message_id.as_str(), receipt.is_settled()),
                (2, 3, "M", code == 0)
            );
        }
        assert_eq!(SendReceipt::decode(&Command::response(13, 1)), Ok(None));
        assert!(SendReceipt::decode(&Command::response(0, 1)).is_err());
    }

    /// Goal: pulled records come out whole, damage ends the walk. Method: two records, then a damaged body byte.
    #[test]
    fn pulled_messages() {
        let mut records = record(0, b"", b"one");
        records.extend(record(0, b"", b"two"));
        let answer = Command::response(0, 1)
            .with_ext("nextBeginOffset", 2)
            .with_ext("minOffset", 0)
            .with_ext("maxOffset", 5)
            .with_body(records.clone());
        let answer = PullAnswer::decode(answer).expect("complete").expect("found");
        assert_eq!((answer.status, answer.next_offset, answer.max_offset), (PullStatus::Found, 2, 5));
        let bodies: Vec<&[u8]> = answer.messages().map(|message| message.expect("whole").body()).collect();
        assert_eq!(bodies, [b"one", b"two"]);
        records[90] ^= 1;
        let damaged: Vec<bool> = Records::new(&records, CrcCheck::Verify).map(|message| message.is_ok()).collect();
        assert_eq!(damaged, [false]);
    }
}
