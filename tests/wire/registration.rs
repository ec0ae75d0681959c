//! What name servers know, and when.

use ringmq::client::requests::{self, SendTarget};
use ringmq::client::{Connection, Message};
use ringmq_protocol::codes::response;

use super::broker::Store;

#[test]
fn a_topic_has_a_route_when_its_making_is_answered() {
    // Goal: whoever asks for the route of a topic right after the answer that it was made finds it, also when a send made it, and a
    // name server that is down holds up nobody. Method: many topics, each asked for at once; a second name server that is no one.
    let mut store = Store::new();
    let broker = store.start(&["shards=2", "namesrvAddr=127.0.0.1:9"]);
    let mut connection = broker.connection();
    let mut name_server = Connection::open(&broker.name_server()).expect("a connection");
    for number in 0..30 {
        let topic = format!("made-{number}");
        connection.call_ok(requests::create_topic(&topic, 1)).expect("made");
        let route = name_server.call(requests::route(&topic)).expect("an answer");
        assert_eq!(route.code, response::SUCCESS, "{topic}");
        let topic = format!("sent-{number}");
        let target = SendTarget { group: "wire", topic: &topic, queue_id: 0, now_ms: 1 };
        connection.call_ok(requests::send(&target, &Message::new("body"), "key").expect("a request")).expect("stored");
        let route = name_server.call(requests::route(&topic)).expect("an answer");
        assert_eq!(route.code, response::SUCCESS, "{topic}");
    }
    broker.stop(&["a name server cannot be reached"]);
}
