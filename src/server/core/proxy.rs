//! The header of a proxy in front of a connection's first frame (RocketMQ `NettyRemotingServer.HandshakeHandler`).
//!
//! Its bytes wait in the connection's input like those of a frame, with the same bounds in bytes and time.

use ringmq_protocol::proxy::{Start, read_start};

use super::*;

impl ShardCore {
    /// Looks whether the input of a connection begins with a header, and takes it off. `None` when frames follow, else whether the
    /// connection may stay open.
    pub(super) fn begin_input(&mut self, id: SlotId) -> Option<bool> {
        let connection = self.connections.get_mut(id)?;
        match read_start(connection.input.as_slice()) {
            Ok(Start::Frames) => {
                connection.has_begun = true;
                None
            }
            Ok(Start::NeedMore { total }) => {
                connection.wanted_input = total.unwrap_or(0);
                Some(true)
            }
            Ok(Start::Header { length, source }) => {
                connection.has_begun = true;
                connection.wanted_input = 0;
                connection.input.consume(length);
                connection.frame_began_ms = self.now_ns / 1_000_000;
                self.input_bytes -= length;
                let (is_empty, listener) = (connection.input.is_empty(), connection.listener);
                if let Some(peer) = source {
                    let connection = connection_number(self.settings.index, id);
                    if self.control.try_send(ControlRequest::Opened { connection, listener, peer }).is_err() {
                        // As when there is no room for a connection.
                        return Some(false);
                    }
                    self.counters.control_asked += 1;
                }
                is_empty.then_some(true)
            }
            Err(error) => {
                self.log_malformed("proxy sends a header that cannot be read", &error);
                self.counters.protocol_errors += 1;
                Some(false)
            }
        }
    }
}
