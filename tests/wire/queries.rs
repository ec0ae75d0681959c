//! Look-ups of messages by their keys.

use ringmq::client::Message;
use ringmq_protocol::codes::request;
use ringmq_protocol::command::Command;
use ringmq_protocol::record::{CrcCheck, RecordView};

use super::broker::Store;

#[test]
fn a_key_is_found_right_after_its_send() {
    // Goal: the index has what was acknowledged before the question came. Method: many times over a send, and once its answer is
    // there a single question for its key, which is not asked again.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("T", 1);
    let (mut client, mut connection, queue) = (broker.client(), broker.connection(), broker.queue("T", 0));
    for number in 0..100 {
        let body = format!("body {number}");
        client.send_to(&queue, &Message::new(body.clone()).with_key(format!("key-{number}"))).expect("stored");
        let question = Command::request(request::QUERY_MESSAGE)
            .with_ext("topic", "T")
            .with_ext("key", format!("key-{number}"))
            .with_ext("maxNum", 32)
            .with_ext("beginTimestamp", 0)
            .with_ext("endTimestamp", i64::MAX);
        let answer = connection.call(question).expect("an answer");
        assert_eq!(answer.code, 0, "key {number}: {:?}", answer.remark);
        let found = RecordView::parse(answer.body.as_deref().expect("a body"), CrcCheck::Verify).expect("a record");
        assert_eq!(found.body(), body.as_bytes());
    }
    broker.stop(&[]);
}
