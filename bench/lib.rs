//! The latency harness of RingMQ. Only the name of the room exists so far; nothing depends on it.
