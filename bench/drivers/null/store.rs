//! Messages that the null server keeps, and the one fault it commits with them.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use ringmq_protocol::batch::BatchReader;
use ringmq_protocol::codes::request::SEND_BATCH_MESSAGE;
use ringmq_protocol::codes::response::{PULL_NOT_FOUND, SUCCESS};
use ringmq_protocol::frame::SerializeType;
use ringmq_protocol::header::Header;
use ringmq_protocol::pull::{PullHeader, PullResult, write_pull_response_head};
use ringmq_protocol::record::{RecordFields, bind_record, encode_record, record_length};
use ringmq_protocol::send::SendHeader;

use crate::load::body::{BodyHeader, Filler, read_body};

/// The stored message at which the fault happens.
const FAULTY_MESSAGE: u64 = 20;

/// Bytes of records after which an answer holds no further one, as brokers do it (`maxTransferBytesOnMessageInMemory`).
const MOST_ANSWER_BYTES: usize = 256 << 10;

/// What goes wrong, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing.
    None,
    /// An acknowledged message is not stored.
    Loss,
    /// A message is stored twice.
    Duplicate,
    /// A message is stored in front of the one before it.
    Reorder,
    /// A bit of a body changes.
    Corruption,
    /// A message of another run appears.
    Phantom,
}

/// A pull that waits for a message.
#[derive(Debug)]
pub struct Held {
    /// Whose it is.
    pub client: usize,
    opaque: i32,
    serialize_type: SerializeType,
    queue: (String, i32),
    offset: usize,
    most: usize,
}

/// The messages.
#[derive(Debug)]
pub struct Store {
    fault: Fault,
    count: u64,
    queues: HashMap<(String, i32), Vec<Vec<u8>>>,
    held: Vec<Held>,
}

impl Store {
    /// An empty store.
    pub fn new(fault: Fault) -> Store {
        Store { fault, count: 0, queues: HashMap::new(), held: Vec::new() }
    }

    /// Stores the messages of a send, and returns the pulls that waited for them.
    pub fn take(&mut self, header: &Header<'_>, body: &[u8]) -> Vec<Held> {
        let Ok(send) = SendHeader::decode(header.code, header) else { return Vec::new() };
        let key = (send.topic.to_owned(), send.queue_id);
        if header.code == SEND_BATCH_MESSAGE {
            for entry in BatchReader::new(body).flatten() {
                self.put(&key, entry.body);
            }
        } else {
            self.put(&key, body);
        }
        let (woken, held) = std::mem::take(&mut self.held).into_iter().partition(|held: &Held| held.queue == key);
        self.held = held;
        woken
    }

    fn put(&mut self, key: &(String, i32), body: &[u8]) {
        self.count += 1;
        let queue = self.queues.entry(key.clone()).or_default();
        let is_faulty = self.count == FAULTY_MESSAGE;
        match self.fault {
            Fault::Loss if is_faulty => {}
            Fault::Duplicate if is_faulty => queue.extend([body.to_vec(), body.to_vec()]),
            Fault::Reorder if is_faulty => {
                let before_last = queue.len().saturating_sub(1);
                queue.insert(before_last, body.to_vec());
            }
            Fault::Corruption if is_faulty => {
                let mut changed = body.to_vec();
                if let Some(last) = changed.last_mut() {
                    *last ^= 1;
                }
                queue.push(changed);
            }
            Fault::Phantom if is_faulty => {
                queue.push(body.to_vec());
                if let Some(header) = read_body(body) {
                    let mut other = Vec::new();
                    Filler::new(body.len()).write(&BodyHeader { run_id: !header.run_id, ..header }, &mut other);
                    queue.push(other);
                }
            }
            _ => queue.push(body.to_vec()),
        }
    }

    /// Answers a pull, or keeps it until there is something.
    pub fn pull(&mut self, client: usize, header: &Header<'_>, output: &mut Vec<u8>) {
        let Ok(pull) = PullHeader::decode(header) else { return };
        let held = Held {
            client,
            opaque: header.opaque,
            serialize_type: header.serialize_type,
            queue: (pull.topic.to_owned(), pull.queue_id),
            offset: usize::try_from(pull.queue_offset).unwrap_or(0),
            most: usize::try_from(pull.max_msg_nums).unwrap_or(1),
        };
        let has_any = self.queues.get(&held.queue).is_some_and(|queue| queue.len() > held.offset);
        if !has_any && pull.suspend_timeout_ms > 0 {
            self.held.push(held);
        } else {
            self.answer_held(&held, output);
        }
    }

    /// Answers a pull with what there is.
    pub fn answer_held(&mut self, held: &Held, output: &mut Vec<u8>) {
        let empty = Vec::new();
        let queue = self.queues.get(&held.queue).unwrap_or(&empty);
        let mut records = Vec::new();
        let mut next = held.offset;
        for body in queue.iter().skip(held.offset).take(held.most) {
            if !records.is_empty() && records.len() + body.len() > MOST_ANSWER_BYTES {
                break;
            }
            let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let fields = RecordFields {
                topic: &held.queue.0,
                queue_id: u32::try_from(held.queue.1).unwrap_or(0),
                flag: 0,
                sys_flag: 0,
                born_timestamp: 0,
                born_host: nobody,
                store_host: nobody,
                reconsume_times: 0,
                prepared_transaction_offset: 0,
                body,
                body_crc: Some(0),
                properties: b"",
            };
            let start = records.len();
            records.resize(start + record_length(&fields), 0);
            encode_record(&fields, &mut records[start..]);
            let offset = i64::try_from(next).unwrap_or(0);
            bind_record(&mut records[start..], offset, offset, 0);
            next += 1;
        }
        let result = PullResult {
            suggest_which_broker_id: 0,
            next_begin_offset: i64::try_from(next).unwrap_or(0),
            min_offset: 0,
            max_offset: i64::try_from(queue.len()).unwrap_or(0),
            topic_sys_flag: 0,
            group_sys_flag: 0,
            forbidden_type: None,
        };
        let code = if records.is_empty() { PULL_NOT_FOUND } else { SUCCESS };
        let form = held.serialize_type;
        write_pull_response_head(output, form, held.opaque, code, None, &result, records.len());
        output.extend_from_slice(&records);
    }
}
